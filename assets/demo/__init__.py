"""The recorded chat in the README: `python -m assets.demo` makes it again."""

"""The chat as a person sees it at a terminal."""

"""gemma-mlx and python -m gemma_mlx: what runs before the command line is imported, for Ctrl-C to end that quietly."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; ends with SystemExit."""
    try:
        from gemma_mlx.terminal import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()

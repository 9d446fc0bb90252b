"""python -m gemma_mlx is gemma-mlx."""

from __future__ import annotations

from gemma_mlx.terminal.cli import main

main()

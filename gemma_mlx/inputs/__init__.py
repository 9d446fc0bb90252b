"""Bytes to numbers: pictures, sounds, text and messages become a `Prompt`. NumPy only, no MLX."""

"""Turns a checkpoint of Gemma 4 12B into a folder of packed MLX arrays, one slice of a tensor at a time."""

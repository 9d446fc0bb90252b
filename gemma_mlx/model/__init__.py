"""What the network is, in MLX: no text, no files.

Shape letters, the same in every file: B batch (always 1 here), L new tokens, S keys in view, D hidden, H query
heads, K key/value heads, V vocabulary, W sliding window, P patches, F frames of sound.
"""

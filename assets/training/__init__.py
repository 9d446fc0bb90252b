"""How the miniature in `assets/miniature` was trained: data, curriculum, training loop, evaluation."""

"""Adapters: small changes to a model's matrices that somebody trained, read from a folder and laid over a model."""

"""Measurements, each behind a verb of `gemma-mlx bench`: what a run of the model takes, against what was planned.

    memory.py    bytes against context: our layout, the plain one, and peers; with needle.py, whether a window is used
    drafting.py  speed with drafts against the speed without, and which drafts hold
    quality.py   what packing costs: divergence from a reference, and error rates over sets of files
    kv_error.py  what 8-bit rows cost in exactness

Nothing here prints for a person: results are yielded, and `gemma_mlx.terminal.bench` shows them. What is measured in a
process of its own (`*_point.py`) writes JSON lines to its stdout for the process that started it.
"""

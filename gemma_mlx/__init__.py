"""Gemma 4 12B on a Mac: private, in a terminal, with eyes and ears.

The public names:

    load(folder)         a model folder -> Gemma
    Gemma                stream(), reply(), score(), session(), sampling()
    Sampling             temperature, top-k, top-p, ...
    Reply, Step, Score   what comes back
    GemmaError           what goes wrong, one line each
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemma_mlx.errors import GemmaError

if TYPE_CHECKING:
    from gemma_mlx.answer import Reply, Step
    from gemma_mlx.decoding.sampling import Sampling
    from gemma_mlx.gemma import Gemma, Score
    from gemma_mlx.loader import load

__version__ = "0.1.0"
__all__ = ["Gemma", "GemmaError", "Reply", "Sampling", "Score", "Step", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Loads MLX when one of the names that need it is first used: `gemma-mlx --help` needs none of it."""
    if name == "Sampling":
        from gemma_mlx.decoding.sampling import Sampling

        return Sampling
    if name == "load":
        from gemma_mlx.loader import load

        return load
    if name in __all__:
        from gemma_mlx import answer, gemma

        return getattr(answer if name in ("Reply", "Step") else gemma, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

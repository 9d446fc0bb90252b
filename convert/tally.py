"""What packing changed, counted so that parts can be added up."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Tally:
    """Counts over some numbers that were packed. `a + b` is the tally of both parts."""

    squared_error: float = 0.0
    """Sum of (packed - original) squared."""
    squared_sum: float = 0.0
    """Sum of original squared."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})

    @property
    def relative_error(self) -> float:
        """RMS of what changed over RMS of the numbers; 0 where all of them are 0."""
        return math.sqrt(self.squared_error / self.squared_sum) if self.squared_sum else 0.0

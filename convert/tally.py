"""What packing changed, counted so that parts can be added up."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Counts over some numbers that were packed. `a + b` is the tally of both parts."""

    squared_error: float = 0.0
    """Sum of (packed - original) squared."""
    squared_sum: float = 0.0
    """Sum of original squared."""
    blocks: int = 0
    """Looked for on a lattice, and so below; 0 where the recipe looks for none (`lattice.py`)."""
    blocks_off_lattice: int = 0
    """Rounded, for no step gives them back."""
    numbers: int = 0
    """In those blocks."""
    same_numbers: int = 0
    """As they were, once rounded to bfloat16."""
    largest_deviation: float = 0.0
    """Of one of them, once rounded to bfloat16, relative to what it was."""
    output_error: float = 0.0
    """Mean squared change of the outputs on the prompts of a calibration, summed; 0 where there was none, as below.
    Inputs in different blocks of columns (`second_moments.py`) count as if they had nothing to do with each other."""
    plain_output_error: float = 0.0
    """The same had each number been rounded for itself."""
    output_sum: float = 0.0
    """Mean squares of the outputs, summed."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            squared_error=self.squared_error + other.squared_error,
            squared_sum=self.squared_sum + other.squared_sum,
            blocks=self.blocks + other.blocks,
            blocks_off_lattice=self.blocks_off_lattice + other.blocks_off_lattice,
            numbers=self.numbers + other.numbers,
            same_numbers=self.same_numbers + other.same_numbers,
            largest_deviation=max(self.largest_deviation, other.largest_deviation),
            output_error=self.output_error + other.output_error,
            plain_output_error=self.plain_output_error + other.plain_output_error,
            output_sum=self.output_sum + other.output_sum,
        )

    @property
    def relative_error(self) -> float:
        """RMS of what changed over RMS of the numbers; 0 where all of them are 0."""
        return math.sqrt(self.squared_error / self.squared_sum) if self.squared_sum else 0.0

    @property
    def relative_output_error(self) -> float:
        """RMS of what changed in the outputs over RMS of the outputs; 0 where none were looked at."""
        return math.sqrt(self.output_error / self.output_sum) if self.output_sum else 0.0

    @property
    def plain_relative_output_error(self) -> float:
        """The same had each number been rounded for itself."""
        return math.sqrt(self.plain_output_error / self.output_sum) if self.output_sum else 0.0

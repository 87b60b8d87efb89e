"""What a job sends back: the part of an exact sum that its blocks make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

#: One exactly summable quantity beside the table: an integer, or whole grid steps.
Extra = int | float | np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """A table with one row for each term that occurs in a job's blocks, in whole steps of the round's grid.

    Attributes
    ----------
    words : ndarray of int32, shape (n_words,)
        The term ids of the rows, ascending and distinct.
    steps : ndarray of int32 or float64, shape (n_words, width)
        Whole numbers of grid steps.
    extras : mapping of str to int, float or ndarray
        What else the job adds up, each exactly summable: whole numbers (`summation.merge_extras` adds them).
    """

    words: np.ndarray
    steps: np.ndarray
    extras: Mapping[str, Extra] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of the table and its term ids."""
        return self.words.nbytes + self.steps.nbytes

"""What a job sends back: the part of an exact sum that its blocks make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

#: One exactly summable quantity beside the table: an integer, or whole grid steps.
Extra = int | float | np.ndarray


def cell_type(size: int) -> np.dtype:
    """Return the type of places in a table of so many numbers."""
    return np.dtype(np.int32 if size <= 2**31 else np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """A table with one row for each term that occurs in a job's blocks, in whole steps of the round's grid.

    Attributes
    ----------
    words : ndarray of int32, shape (n_words,)
        The term ids of the rows, ascending and distinct.
    steps : ndarray of int32 or float64, shape (n_words, width), or (n_cells,) of a sparse table
        Whole numbers of grid steps.
    extras : mapping of str to int, float or ndarray
        What else the job adds up, each exactly summable: whole numbers (`summation.merge_extras` adds them).
    cells : ndarray of int32 or int64, shape (n_cells,), optional
        The table is sparse: the places of `steps` in it, row by row. What comes more than once is added up.
    """

    words: np.ndarray
    steps: np.ndarray
    extras: Mapping[str, Extra] = field(default_factory=dict)
    cells: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the table and its term ids."""
        cells = 0 if self.cells is None else self.cells.nbytes
        return self.words.nbytes + self.steps.nbytes + cells

    def table(self, width: int) -> np.ndarray:
        """Return all steps, shape (n_words, width): float64 where they come from a sparse table."""
        if self.cells is None:
            return self.steps
        size = len(self.words) * width
        return np.bincount(self.cells, self.steps, size).reshape(len(self.words), width)

"""Tall matrices by slices of their rows, which threads compute side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

#: Rows of a slice, about: some tens of columns of them stay in the cache from one operation to the next.
SLICE = 4096

T = TypeVar("T")

#: Does what the built-in `map` does, and may compute the items side by side.
Map = Callable[[Callable[[slice], Any], Sequence[slice]], Iterable[Any]]


class Rows:
    """The rows of tall matrices, divided into slices that may be computed side by side.

    The slices follow from the number of rows alone. So whatever is computed slice by slice, and summed in
    their order, has the same bits for any number of threads.

    Parameters
    ----------
    number : int
        Of rows.
    side_by_side : callable
        A `Map` to compute slices with.

    Attributes
    ----------
    slices : list of slice
        At least one.
    """

    def __init__(self, number: int, side_by_side: Map = map) -> None:
        self.number = number
        count = max(1, round(number / SLICE))
        bounds = [number * i // count for i in range(count + 1)]
        self.slices = [slice(*pair) for pair in itertools.pairwise(bounds)]
        self._map = side_by_side if count > 1 else map

    def map(self, function: Callable[[slice], T]) -> list[T]:
        """Return what `function` returns for each slice, in order."""
        return list(self._map(function, self.slices))

    def sum(self, function: Callable[[slice], np.ndarray]) -> np.ndarray:
        """Return the sum over the slices."""
        total, *others = self.map(function)
        for part in others:
            total += part
        return total

    def scale(self, matrix: np.ndarray, factors: np.ndarray) -> None:
        """Multiply the columns of `matrix`, in place."""

        def scale(rows: slice) -> None:
            matrix[rows] *= factors

        self.map(scale)

    def gram(self, vectors: np.ndarray) -> np.ndarray:
        """Return ``vectors' vectors`` in float64."""

        def gram(rows: slice) -> np.ndarray:
            some = vectors[rows].astype(np.float64)
            return some.T @ some

        return self.sum(gram)

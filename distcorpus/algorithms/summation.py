"""Sums that do not depend on their order: numbers are rounded to a grid, and sums of grid points are exact.

A number is rounded once, to a multiple of the *grid*, a power of two. From there on it is carried as a whole
number of *steps*; float64 adds whole numbers exactly while they stay within 2**53. So any order, grouping or
split of the same rounded numbers gives the same bits, and n of them differ from their unrounded sum by at
most n * grid / 2.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .partial import Extra

#: float64 holds every whole number up to here.
MAX_STEPS = 2.0**53

_INT32_MAX = 2**31 - 1
#: Elements that `narrow_in_place` moves at a time.
_SLICE = 1 << 16


def grid_for(bound: float, bits: int = 52) -> float:
    """Return the grid whose `bits` most significant bits hold every total up to `bound`.

    Parameters
    ----------
    bound : float
        No total exceeds this in magnitude.
    bits : int
        ``bound`` is at most ``2**bits`` steps. 52 leaves a bit for the rounding of up to 2**53 addends; fewer
        make a coarser grid whose steps are small enough to travel as int32.

    Returns
    -------
    float
        A power of two, ``2**(ceil(log2(bound)) - bits)``; 1 for a bound of zero.

    Raises
    ------
    ValueError
        If `bound` is negative, infinite or NaN, or `bits` is not in [1, 52].
    """
    if not 0 <= bound < math.inf:
        raise ValueError(f"bound={bound}: the bound on a sum must be finite and not negative")
    if not 1 <= bits <= 52:
        raise ValueError(f"bits={bits}: a grid has between 1 and 52 bits")
    if bound == 0:
        return 1.0
    mantissa, exponent = math.frexp(bound)  # bound = mantissa * 2**exponent, mantissa in [1/2, 1)
    ceiling = exponent - 1 if mantissa == 0.5 else exponent
    return math.ldexp(1.0, max(ceiling - bits, -1022))


def to_steps(values: np.ndarray, grid: float) -> np.ndarray:
    """Round values to whole steps of the grid, half to even.

    Parameters
    ----------
    values : ndarray of float32 or float64
    grid : float
        A power of two.

    Returns
    -------
    ndarray of float64
        Whole numbers, of the shape of `values`; they differ from ``values / grid`` by at most 1/2.

    Raises
    ------
    OverflowError
        If a value is not finite, or 2**53 steps or more.
    """
    values = np.ascontiguousarray(values)
    steps = np.empty(values.shape)
    kernels = compiled_kernels()
    if kernels is not None:
        exact = kernels.round_to_steps(values.reshape(-1), 1 / grid, steps.reshape(-1))
    else:
        np.rint(np.divide(values, grid, out=steps), out=steps)
        exact = in_range(steps)
    if not exact:
        raise inexact(steps, grid)
    return steps


def in_range(steps: np.ndarray) -> bool:
    """Return whether all these sums of whole steps are exact."""
    return not steps.size or bool(max(-steps.min(), steps.max()) < MAX_STEPS)  # NaN is not


@functools.cache
def compiled_kernels() -> ModuleType | None:
    """Return the module of compiled loops, loading it on the first call; None where numba is missing."""
    try:
        from . import _sum_kernels
    except ImportError:
        return None
    return _sum_kernels


def inexact(steps: np.ndarray, grid: float, terms: np.ndarray | None = None) -> OverflowError:
    """Return the error for sums of which some have left the range in which they are exact.

    Parameters
    ----------
    steps : ndarray
        The sums, in whole steps.
    grid : float
        The value of a step; 1 where that is not known.
    terms : ndarray, optional
        The term id of each row of `steps`.
    """
    wrong = np.argwhere(~(np.abs(steps) < MAX_STEPS))[0]
    of = "" if terms is None else f"term id {terms[wrong[0]]}: "
    value = steps[tuple(wrong)]
    if not np.isfinite(value):
        return OverflowError(
            f"{of}a sum is not finite ({value:g}): the topics, a prior or a document have what is no number, "
            "or is too large or too small for its type"
        )
    limit = "" if grid == 1.0 else f" of {grid:g} ({MAX_STEPS * grid:.10g})"
    return OverflowError(
        f"{of}a sum exceeds 2**53 steps{limit} and is no longer exact; give smaller counts or weights, or "
        "for LDA fewer documents an update (update_every)"
    )


def narrow_steps(steps: np.ndarray) -> np.ndarray:
    """Return whole steps as int32 where every one fits, else as they are (float64)."""
    return steps.astype(np.int32) if _is_narrow(steps) else steps


def narrow_in_place(steps: np.ndarray) -> np.ndarray:
    """Do what `narrow_steps` does without memory for a second table: the array, which owns its memory, is
    given up, and half of that is free afterwards.
    """
    if steps.dtype == np.int32 or not _is_narrow(steps):
        return steps
    shape, size = steps.shape, steps.size
    wide = steps.reshape(-1)
    narrow = wide.view(np.int32)
    for start in range(0, size, _SLICE):
        part = slice(start, min(start + _SLICE, size))
        narrow[part] = wide[part]  # never beyond what has been read: numpy sees where they overlap
    del wide, narrow
    steps.resize(-(-size // 2), refcheck=False)
    return steps.view(np.int32)[:size].reshape(shape)


def _is_narrow(steps: np.ndarray) -> bool:
    return not steps.size or bool(max(-steps.min(), steps.max()) <= _INT32_MAX)


def check_steps(steps: np.ndarray, cells: np.ndarray | None, num_rows: int, width: int) -> None:
    """Refuse steps that are no table of so many rows, or whose cells are not in it."""
    size = num_rows * width
    if steps.shape != ((num_rows, width) if cells is None else cells.shape):
        raise ValueError(
            f"steps of shape {steps.shape} for {num_rows} rows of a table of width {width}; pass one row of "
            "steps for each row number, or one step for each cell"
        )
    if cells is not None and len(cells) and not 0 <= cells.min() <= cells.max() < size:
        raise ValueError(f"cells up to {cells.max()} of a table of {size}")


def add_cells(total: np.ndarray, rows: np.ndarray, cells: np.ndarray, steps: np.ndarray) -> bool:
    """Add steps to some cells of a table of sums.

    Parameters
    ----------
    total : ndarray of float64, shape (m, width)
        Changed.
    rows : ndarray of int32, shape (n,)
        Rows of `total`.
    cells : ndarray of int32 or int64, shape (n_cells,)
        Places in a table of these rows (n, width), row by row; more than once if need be.
    steps : ndarray of int32 or float64, shape (n_cells,)
        Whole numbers of steps.

    Returns
    -------
    bool
        Whether all sums are exact.
    """
    kernels = compiled_kernels()
    if kernels is not None:
        return bool(kernels.add_cells(total, rows, cells, steps))
    places, columns = np.divmod(cells, total.shape[1])
    np.add.at(total, (rows[places], columns), steps)
    return in_range(total[rows[places], columns])


class GridSum:
    """An exact sum of tables given by rows, in whole steps of a grid; several threads may add at once.

    Parameters
    ----------
    num_rows, width : int
        The shape of the table.
    grid : float
        The value of a step, a power of two.
    """

    def __init__(self, num_rows: int, width: int, grid: float) -> None:
        if not grid > 0 or math.frexp(grid)[0] != 0.5:
            raise ValueError(f"grid={grid}: a grid is a power of two; take it from grid_for")
        self.grid = grid
        self.steps = np.zeros((num_rows, width))
        self._lock = threading.Lock()

    def add(self, rows: np.ndarray, steps: np.ndarray, cells: np.ndarray | None = None) -> None:
        """Add to some rows.

        Parameters
        ----------
        rows : ndarray of int32, shape (n,)
            Distinct row numbers.
        steps : ndarray of int32 or float64, shape (n, width), or (n_cells,)
            Whole numbers of steps.
        cells : ndarray of int32 or int64, shape (n_cells,), optional
            Where those are in the table (n, width), row by row; the others are zero.

        Raises
        ------
        ValueError
            If the shapes disagree or a row does not exist.
        OverflowError
            If a sum leaves the range in which it is exact; it is of no use after that.
        """
        check_steps(steps, cells, len(rows), self.steps.shape[1])
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self.steps)):
            raise ValueError(f"row numbers up to {rows.max()} in a table of {len(self.steps)} rows")
        kernels = compiled_kernels()
        with self._lock:
            if cells is not None:
                exact = add_cells(self.steps, rows, cells, steps)
            elif kernels is not None:
                exact = kernels.add_rows(self.steps, rows, steps)
            else:
                total = self.steps[rows] + steps
                self.steps[rows] = total
                exact = in_range(total)
            if not exact:
                raise inexact(self.steps[rows], self.grid, rows)

    def values(self, dtype: Any = np.float64) -> np.ndarray:
        """Return the sum, shape (num_rows, width); in float64 it is exact, as the grid is a power of two."""
        with self._lock:
            values = np.empty(self.steps.shape, dtype)
            return np.multiply(self.steps, self.grid, out=values, casting="same_kind")


def merge_extras(a: Mapping[str, Extra], b: Mapping[str, Extra]) -> dict[str, Extra]:
    """Add up the extras of two partials; a name that one of them lacks counts as zero there.

    Raises
    ------
    ValueError
        If one name stands for quantities of different shapes.
    OverflowError
        If a sum leaves the range in which it is exact.
    """
    merged = dict(a)
    for name, value in b.items():
        if name not in merged:
            merged[name] = value
            continue
        shapes = np.shape(merged[name]), np.shape(value)
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"extra {name!r} has shape {shapes[0]} in one partial and {shapes[1]} in the other"
            )
        total = merged[name] + value
        if not isinstance(total, int) and np.size(total) and not np.abs(total).max() < MAX_STEPS:
            raise OverflowError(
                f"extra {name!r} exceeds 2**53 steps and is no longer exact; choose a coarser grid"
            )
        merged[name] = total
    return merged


def exact_sum(values: np.ndarray) -> float:
    """Return the correctly rounded sum of finite float64 values, as `math.fsum` does, but vectorised.

    Peels off the leading bits of all values at once: they add without error, and so do the next ones
    (algorithm AccSum of Rump, Ogita and Oishi, Accurate Floating-Point Summation Part I, SIAM J. Sci. Comput.
    31(1), 2008, carried on until nothing is left).

    Raises
    ------
    OverflowError
        If the sum is out of range.
    """
    rest = np.array(values, dtype=np.float64).ravel()
    parts: list[float] = []
    while rest.size:
        largest = float(np.abs(rest).max())
        if largest == 0.0:
            break
        if not largest < 2.0**900:  # the scale might overflow; rare, and the slow way is exact too
            return math.fsum([*parts, *rest])
        scale = math.ldexp(1.0, math.frexp(largest)[1] + rest.size.bit_length() + 1)
        leading = (rest + scale) - scale
        parts.append(float(leading.sum()))
        rest -= leading
    return math.fsum(parts)

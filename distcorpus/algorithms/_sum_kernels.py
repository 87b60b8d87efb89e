"""Compiled loops of `summation`, which hold no GIL (imported on first use: numba loads slowly)."""

from __future__ import annotations

import numpy as np

from ._caching import compiled

MAX_STEPS = 2.0**53

# No fast-math: these loops are exact because every operation is rounded where it stands.
_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def round_to_steps(values: np.ndarray, inverse: float, steps: np.ndarray) -> bool:
    """Set `steps` to the values in whole steps; return whether all are in range. All arrays are flat."""
    bad = 0
    for i in range(len(values)):
        step = np.rint(np.float64(values[i]) * inverse)
        steps[i] = step
        bad += not abs(step) < MAX_STEPS
    return bad == 0


@_compiled
def add_rows(total: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> bool:
    """Add `steps` to the rows of `total`; return whether all sums are in range."""
    bad = 0
    for i in range(len(rows)):
        row = rows[i]
        for k in range(total.shape[1]):
            value = total[row, k] + steps[i, k]
            total[row, k] = value
            bad += not abs(value) < MAX_STEPS
    return bad == 0


@_compiled
def add_cells(total: np.ndarray, rows: np.ndarray, cells: np.ndarray, steps: np.ndarray) -> bool:
    """Add `steps` to those cells of the rows of `total`; return whether all sums are in range."""
    width = total.shape[1]
    bad = 0
    begin = -width
    row = 0
    for c in range(len(cells)):
        cell = np.int64(cells[c])
        if not begin <= cell < begin + width:  # words follow each other
            place = cell // width
            begin = place * width
            row = rows[place]
        value = total[row, cell - begin] + steps[c]
        total[row, cell - begin] = value
        bad += not abs(value) < MAX_STEPS
    return bad == 0

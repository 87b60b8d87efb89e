"""Compiled loops of `topics`, which hold no GIL (imported on first use: numba loads slowly)."""

from __future__ import annotations

import numpy as np

from ._caching import compiled

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def rows_of(table: np.ndarray, scale: float, prior: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return ``prior + scale * table`` for some words."""
    rows = np.empty((len(words), table.shape[1]), table.dtype)
    factor = table.dtype.type(scale)
    for i in range(len(words)):
        w = words[i]
        if prior.shape[1] == 1:
            of_word = prior[w, 0]
            for k in range(table.shape[1]):
                rows[i, k] = of_word + factor * table[w, k]
        else:
            for k in range(table.shape[1]):
                rows[i, k] = prior[w, k] + factor * table[w, k]
    return rows


@_compiled
def add_rows(
    table: np.ndarray, words: np.ndarray, rows: np.ndarray, unit: float, factor: float
) -> np.ndarray:
    """Add ``factor * unit * rows`` to the rows of some words; return the totals of ``rows``."""
    totals = np.zeros(table.shape[1])
    per_row = factor * unit
    for i in range(len(words)):
        w = words[i]
        for k in range(table.shape[1]):
            totals[k] += rows[i, k]
            table[w, k] += table.dtype.type(per_row * rows[i, k])
    return totals

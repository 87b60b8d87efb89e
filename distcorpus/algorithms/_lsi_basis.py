"""The dense half of the block Lanczos iteration: an orthonormal basis that grows, and its Rayleigh-Ritz
problem."""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import get_blas_funcs

#: Columns of a panel of the basis: wide enough for BLAS to run at speed, narrow enough to waste little.
PANEL = 256

#: Rows that are brought to double precision at a time: a few columns of them stay in the cache.
_TILE = 4096


class Basis:
    """Orthonormal columns, kept in panels, so that growing moves nothing.

    Parameters
    ----------
    num_terms : int
    dtype : dtype
        float32 or float64.
    """

    def __init__(self, num_terms: int, dtype: np.dtype) -> None:
        self.num_terms = num_terms
        self.dtype = dtype
        self._panels: list[np.ndarray] = []  # each (num_terms, <= PANEL), Fortran order
        self._free = 0  # columns of the last panel not used yet
        self._gemm = get_blas_funcs("gemm", dtype=dtype)

    @property
    def size(self) -> int:
        """The number of columns."""
        return sum(panel.shape[1] for panel in self._panels) - self._free

    def append(self, block: np.ndarray) -> None:
        """Add orthonormal columns that are orthogonal to those before."""
        taken = 0
        while taken < block.shape[1]:
            if not self._free:
                width = min(PANEL, max(1, self.num_terms))
                self._panels.append(np.empty((self.num_terms, width), self.dtype, order="F"))
                self._free = width
            count = min(self._free, block.shape[1] - taken)
            first = self._panels[-1].shape[1] - self._free
            self._panels[-1][:, first : first + count] = block[:, taken : taken + count]
            self._free -= count
            taken += count

    def project_out(self, vectors: np.ndarray) -> np.ndarray:
        """Subtract from `vectors` (C order, changed in place) their projection; return its coefficients."""
        coefficients = [panel.T @ vectors for panel in self._used()]
        for panel, part in zip(self._used(), coefficients, strict=True):
            # vectors' -= part' panel', with both sides as BLAS stores them, so that nothing is copied
            self._gemm(-1.0, part.T, panel, 1.0, vectors.T, trans_b=True, overwrite_c=True)
        return np.concatenate(coefficients)

    def combine(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the basis times `coefficients`, shape (num_terms, coefficients.shape[1])."""
        result = np.zeros((self.num_terms, coefficients.shape[1]), self.dtype)
        first = 0
        for panel in self._used():
            part = np.ascontiguousarray(coefficients[first : first + panel.shape[1]], self.dtype)
            self._gemm(1.0, part.T, panel, 1.0, result.T, trans_b=True, overwrite_c=True)
            first += panel.shape[1]
        return result

    def _used(self) -> list[np.ndarray]:
        *full, last = self._panels
        return [*full, last[:, : last.shape[1] - self._free]]


def gram(vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors' vectors`` in float64."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for first in range(0, len(vectors), _TILE):
        tile = vectors[first : first + _TILE].astype(np.float64)
        total += tile.T @ tile
    return total


def orthonormalise(vectors: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor ``vectors = Q R`` by the eigenvectors of the Gram matrix, leaving out what is noise.

    Parameters
    ----------
    vectors : ndarray, shape (n, b)
    floor : float
        Directions with a singular value of at most `floor` are left out.

    Returns
    -------
    Q : ndarray, shape (n, r)
        Orthonormal, of the type of `vectors`, C order; r <= b.
    R : ndarray of float64, shape (r, b)
    """
    values, rotation = np.linalg.eigh(gram(vectors))
    scales = np.sqrt(np.maximum(values, 0.0))
    # A Gram matrix in double precision shows no singular value below 1e-8 of the largest.
    kept = scales > max(floor, 1e-7 * scales.max(initial=0.0))
    factor = (rotation[:, kept] * scales[kept]).T
    vectors = vectors @ (rotation[:, kept] / scales[kept]).astype(vectors.dtype)
    deviation = 1.0
    while len(factor) and deviation > 0.1:  # once, and once more where the first pass was far off
        values, rotation = np.linalg.eigh(vectors.T @ vectors)
        deviation = float(np.abs(values - 1).max())
        scales = np.sqrt(np.maximum(values, np.finfo(values.dtype).eps))
        factor = (rotation * scales) @ rotation.T @ factor
        vectors = vectors @ ((rotation / scales) @ rotation.T)
    return vectors, factor


def orthonormal(vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return nearly orthonormal columns in a type, that of `vectors` or a wider one, orthonormal to its
    rounding error.

    The nearest orthonormal columns are ``vectors (vectors' vectors)**-1/2``, of whose power series two terms
    do. What they add is small, so the type of `vectors` is exact enough for it.
    """
    error = gram(vectors) - np.eye(vectors.shape[1])
    result = vectors.astype(dtype, copy=False)
    if np.abs(error).max(initial=0.0) >= 8 * np.finfo(dtype).eps:
        result = result + vectors @ (0.375 * error @ error - 0.5 * error).astype(vectors.dtype)
    return result

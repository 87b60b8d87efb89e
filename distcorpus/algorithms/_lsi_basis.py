"""The dense half of the block Lanczos iteration: an orthonormal basis that grows, and other tall matrices, by
slices of their rows."""

from __future__ import annotations

import math

import numpy as np

from .rows import Rows

#: Columns of a basis's widest panel: wide enough for BLAS to run at speed, narrow enough to waste little.
PANEL = 512


def panel_width(wanted: int) -> int:
    """Return the columns of a basis's panels: as many as it will have, if there are not many."""
    return min(PANEL, 64 * math.ceil(2.6 * wanted / 64))


class Basis:
    """Orthonormal columns, kept in panels, so that growing moves nothing.

    Parameters
    ----------
    rows : Rows
    dtype : dtype
        float32 or float64.
    panel : int
        Columns of a panel.
    """

    def __init__(self, rows: Rows, dtype: np.dtype, panel: int) -> None:
        self.rows = rows
        self.dtype = dtype
        self._panels: list[np.ndarray] = []  # each (num_rows, its columns), C order
        self._width = min(panel, max(1, rows.number))
        self._room = 0  # columns of the last panel that are not used
        self.size = 0  # columns

    def append(self, block: np.ndarray, apart: bool = False) -> None:
        """Add orthonormal columns that are orthogonal to those before.

        Where they are to be `apart`, since they may be dropped soon, the block becomes a panel as it is.
        """
        if apart:
            if self._room:
                self._panels[-1] = self._panels[-1][:, : -self._room]
            self._panels.append(block)
            self.size, self._room = self.size + block.shape[1], 0
            return
        taken = 0
        while taken < block.shape[1]:
            if not self._room:
                self._room = self._width
                self._panels.append(np.empty((self.rows.number, self._room), self.dtype))
            panel = self._panels[-1]
            first = panel.shape[1] - self._room
            count = min(self._room, block.shape[1] - taken)

            def copy(
                rows: slice,
                panel: np.ndarray = panel,
                columns: slice = slice(first, first + count),
                new: slice = slice(taken, taken + count),
            ) -> None:
                panel[rows, columns] = block[rows, new]

            self.rows.map(copy)
            self._room -= count
            self.size += count
            taken += count

    def shrink(self, size: int) -> None:
        """Keep the first `size` columns only."""
        self._room += self.size - size
        self.size = size
        while self._panels and self._room >= self._panels[-1].shape[1]:
            self._room -= self._panels.pop().shape[1]

    def project_out(self, vectors: np.ndarray) -> np.ndarray:
        """Subtract from `vectors` (changed in place) their projection; return its coefficients."""

        def project(rows: slice) -> np.ndarray:
            some = vectors[rows].T
            return np.concatenate([some @ panel for panel in self._panels_of(rows)], axis=1)

        def subtract(rows: slice) -> None:
            first = 0
            for panel in self._panels_of(rows):
                vectors[rows] -= panel @ coefficients[first : first + panel.shape[1]]
                first += panel.shape[1]

        coefficients = np.ascontiguousarray(self.rows.sum(project).T)
        self.rows.map(subtract)
        return coefficients

    def combine(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the basis times `coefficients`, shape (num_rows, coefficients.shape[1])."""
        coefficients = coefficients.astype(self.dtype, order="C")
        result = np.zeros((self.rows.number, coefficients.shape[1]), self.dtype)

        def combine(rows: slice) -> None:
            first = 0
            for panel in self._panels_of(rows):
                result[rows] += panel @ coefficients[first : first + panel.shape[1]]
                first += panel.shape[1]

        self.rows.map(combine)
        return result

    def _panels_of(self, rows: slice) -> list[np.ndarray]:
        """Return some rows of each panel, of the last one only the columns that are used."""
        left = self.size
        panels = []
        for panel in self._panels:
            panels.append(panel[rows, :left])
            left -= panel.shape[1]
        return panels


def shifted(rows: Rows, image: np.ndarray, shift: float, vectors: np.ndarray) -> np.ndarray:
    """Subtract ``shift * vectors`` from `image` and bring its columns to unit length, in place.

    Returns
    -------
    ndarray, shape (b,)
        What the lengths were.
    """

    def subtract(rows: slice) -> np.ndarray:
        some = image[rows]
        some -= image.dtype.type(shift) * vectors[rows]
        return np.einsum("ij,ij->j", some, some)

    lengths = np.sqrt(rows.sum(subtract))
    rows.scale(image, 1 / lengths)
    return lengths


def orthonormalise(rows: Rows, vectors: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor ``vectors = Q R`` by the eigenvectors of the Gram matrix, leaving out what is noise.

    Parameters
    ----------
    rows : Rows
    vectors : ndarray, shape (n, b)
    floor : float
        Directions with a singular value of at most `floor` are left out.

    Returns
    -------
    Q : ndarray, shape (n, r)
        Orthonormal, of the type of `vectors`, C order; r <= b.
    R : ndarray of float64, shape (r, b)
    """
    values, rotation = np.linalg.eigh(rows.gram(vectors))
    scales = np.sqrt(np.maximum(values, 0.0))
    # A Gram matrix in double precision shows no singular value below 1e-8 of the largest.
    kept = scales > max(floor, 1e-7 * scales.max(initial=0.0))
    factor = (rotation[:, kept] * scales[kept]).T
    transform = rotation[:, kept] / scales[kept]
    deviation = 1.0
    while True:
        vectors, gram = _transformed(rows, vectors, transform.astype(vectors.dtype))
        # Once, and once more where the first pass was far off.
        if not len(factor) or deviation <= 0.1:
            return vectors, factor
        values, rotation = np.linalg.eigh(gram)
        deviation = float(np.abs(values - 1).max())
        scales = np.sqrt(np.maximum(values, np.finfo(values.dtype).eps))
        factor = (rotation * scales) @ rotation.T @ factor
        transform = (rotation / scales) @ rotation.T


def _transformed(rows: Rows, vectors: np.ndarray, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``vectors @ transform`` and its Gram matrix."""
    result = np.empty((len(vectors), transform.shape[1]), vectors.dtype)

    def multiply(rows: slice) -> np.ndarray:
        some = np.matmul(vectors[rows], transform, out=result[rows])
        return some.T @ some

    return result, rows.sum(multiply)


def orthonormal(rows: Rows, vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return nearly orthonormal columns orthonormal to the rounding error of a type that is no narrower.

    The nearest orthonormal columns are ``vectors (vectors' vectors)**-1/2``, of whose power series two terms
    do. What they add is small, so the type of `vectors` is exact enough for it.

    Raises
    ------
    ArithmeticError
        If they are far from orthonormal.
    """
    while True:
        error = rows.gram(vectors) - np.eye(vectors.shape[1])
        largest = np.abs(error).max(initial=0.0)
        if largest < 8 * np.finfo(dtype).eps:
            return vectors.astype(dtype, copy=False)
        if not largest < 0.1:
            raise ArithmeticError(
                f"the vectors are not orthonormal: inner products are up to {largest:.1e} off"
            )
        correction = (0.375 * error @ error - 0.5 * error).astype(vectors.dtype)
        result = np.empty(vectors.shape, dtype)

        def correct(
            rows: slice, old: np.ndarray = vectors, by: np.ndarray = correction, new: np.ndarray = result
        ) -> None:
            np.add(old[rows], old[rows] @ by, out=new[rows], dtype=dtype)

        rows.map(correct)
        if not np.linalg.norm(error) > 1e-5 or not np.linalg.norm(error, 2) > 1e-5:
            return result  # what is left is the third power of that
        vectors = result

"""Sparse matrices of others, checked before any method of scipy's sees them.

scipy's compiled code trusts the arrays of a matrix. It checks them, in part, when it makes the matrix;
whoever changes them later makes the next method read, or write, where there is nothing of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from .inherited import is_inherited

#: A scipy sparse matrix or array; its orientation is gensim's, terms x documents, if nothing else is said.
Sparse = Any

TERMS_X_DOCUMENTS = "terms x documents"


def matrix_of(documents: Any) -> Sparse | None:
    """Return the matrix that documents are: themselves, or that of gensim's ``Sparse2Corpus``; else None.

    A subclass that gives documents in its own way is no matrix.
    """
    if scipy.sparse.issparse(documents):
        return documents
    kind = type(documents)
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in kind.__mro__]
    if "gensim.matutils.Sparse2Corpus" not in names:
        return None
    if not is_inherited(kind, ("__iter__", "__getitem__", "__len__"), ("gensim",)):
        return None
    return documents.sparse if scipy.sparse.issparse(documents.sparse) else None


def sound(matrix: Sparse, what: str, orientation: str = TERMS_X_DOCUMENTS) -> Sparse:
    """Return a matrix of which scipy can make any other, checked; itself, if its format has arrays.

    Parameters
    ----------
    matrix : scipy sparse matrix or array
        Of any format, with two dimensions.
    what : str
        What error messages call it.
    orientation : str
        What error messages say of its rows and columns.

    Raises
    ------
    ValueError
        If its arrays do not fit each other or its shape, or it has other values than real numbers. The
        message says which.
    """
    try:
        if matrix.ndim != 2:
            raise ValueError(f"its shape is {matrix.shape}")
        check = _CHECKS.get(matrix.format)
        if check is None:
            raise ValueError(f"format {matrix.format!r} is not known; convert it with .tocsc()")
        return check(matrix)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"{what}: not a sound {orientation} matrix ({error})") from error


def _check_values(values: np.ndarray, ndim: int) -> None:
    if not isinstance(values, np.ndarray) or values.ndim != ndim:
        raise ValueError(f"its data are no array of {ndim} dimensions")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {values.dtype}; give real numbers")
    if np.ma.is_masked(values):
        raise ValueError("its data have masked values; give them values, data.filled(0)")


def _check_whole(name: str, numbers: Any) -> None:
    if not isinstance(numbers, np.ndarray) or numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(f"its {name} is no array of whole numbers with one dimension")
    if np.ma.is_masked(numbers):
        raise ValueError(f"its {name} has masked values")


def _check_within(name: str, numbers: np.ndarray, least: int, limit: int, of: str) -> None:
    """Check that numbers are in ``[least, limit)``."""
    if not len(numbers) or (numbers.min() >= least and numbers.max() < limit):
        return
    place = int(np.argmax((numbers < least) | (numbers >= limit)))
    raise ValueError(f"{name}[{place}] is {numbers[place]}, outside {of}")


def _check_length(name: str, length: int, of: str, wanted: int) -> None:
    if length != wanted:
        raise ValueError(f"it has {length} numbers in {name}, and {wanted} in {of}")


def _compressed(matrix: Sparse) -> Sparse:
    """Check CSC, CSR and BSR: index pointers of the columns, or rows, and the places of entries in them."""
    blocked = matrix.format == "bsr"
    indptr, indices, data = matrix.indptr, matrix.indices, matrix.data
    _check_values(data, 3 if blocked else 1)
    _check_whole("indptr", indptr)
    _check_whole("indices", indices)
    shape, (major, minor) = matrix.shape, ((1, 0) if matrix.format == "csc" else (0, 1))
    block = data.shape[1:] if blocked else (1, 1)
    if 0 in block or any(size % of for size, of in zip(shape, block, strict=True)):
        raise ValueError(f"its shape {shape} is not made of blocks of {block[0]} x {block[1]}")
    number, limit = shape[major] // block[major], shape[minor] // block[minor]
    if len(indptr) != number + 1:
        raise ValueError(f"it has {len(indptr)} numbers in indptr, and its shape {shape} needs {number + 1}")
    _check_length("indices", len(indices), "data", len(data))
    if indptr[0] != 0:
        raise ValueError(f"indptr[0] is {indptr[0]}, not 0")
    descends = indptr[1:] < indptr[:-1]  # differences may overflow
    if descends.any():
        place = int(np.argmax(descends))
        raise ValueError(
            f"its index pointers do not increase: indptr[{place}] is {indptr[place]}, "
            f"indptr[{place + 1}] {indptr[place + 1]}"
        )
    if indptr[-1] > len(indices):
        raise ValueError(f"indptr[{number}] is {indptr[-1]}, and it has {len(indices)} indices")
    of = f"its {limit} {'blocks' if blocked else ('rows', 'columns')[minor]}"
    _check_within("indices", indices[: int(indptr[-1])], 0, limit, of)
    return matrix


def _coordinates(matrix: Sparse) -> Sparse:
    _check_values(matrix.data, 1)
    for name, size, of in zip(("row", "col"), matrix.shape, ("rows", "columns"), strict=True):
        numbers = getattr(matrix, name)
        _check_whole(name, numbers)
        _check_length(name, len(numbers), "data", len(matrix.data))
        _check_within(name, numbers, 0, size, f"its {size} {of}")
    return matrix


def _diagonals(matrix: Sparse) -> Sparse:
    _check_values(matrix.data, 2)
    _check_whole("offsets", matrix.offsets)
    _check_length("offsets", len(matrix.offsets), "data", len(matrix.data))
    rows, columns = matrix.shape
    if len(np.unique(matrix.offsets)) != len(matrix.offsets):
        raise ValueError("its offsets have a diagonal twice")
    # One just beyond has no entry.
    _check_within("offsets", matrix.offsets, -rows, columns + 1, f"its shape {matrix.shape}")
    return matrix


def _of_lists(matrix: Sparse) -> Sparse:
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {matrix.dtype}; give real numbers")
    places, values = ([len(row) for row in part] for part in (matrix.rows, matrix.data))
    if len(places) != matrix.shape[0] or places != values:
        raise ValueError("its rows and data are no lists of equal lengths, one for each row of its shape")
    return _compressed(matrix.tocsr())


def _of_keys(matrix: Sparse) -> Sparse:
    if set(map(len, matrix.keys())) - {2}:
        raise ValueError("its keys are not pairs of a row and a column")
    return _coordinates(matrix.tocoo())


_CHECKS: dict[str, Callable[[Sparse], Sparse]] = {
    "csc": _compressed,
    "csr": _compressed,
    "bsr": _compressed,
    "coo": _coordinates,
    "dia": _diagonals,
    "lil": _of_lists,
    "dok": _of_keys,
}

"""The kernel of LSI: the product of a terms x documents matrix and its transpose with a block of vectors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from distcorpus.algorithms.chunk import Chunk, positions_of
from distcorpus.algorithms.lda import floats
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.postings import Postings, postings
from distcorpus.algorithms.received import check_kinds, keep_plain, real, whole
from distcorpus.algorithms.summation import compiled_kernels, in_range, inexact, narrow_steps
from distcorpus.kernels.base import Key, Packed
from distcorpus.kernels.checking import MARGIN, check_extras
from distcorpus.kernels.registry import register

#: Entries of a block of documents, about: few enough documents that a table with a row for each stays in a
#: near cache. A corpus of two million entries makes four blocks, which two workers can share.
BLOCK_NNZ = 600_000

#: Bytes of a cache line and of a vector: the compiled product wants rows that are whole ones.
LINE = 64


@dataclass(frozen=True, slots=True, eq=False)
class ProductParams:
    """The parameters of `Product`.

    Attributes
    ----------
    width : int
        Columns of Q.
    grid : float
        See `lsi.product_grid`.
    dtype : {"float32", "float64"}
        In which a block is computed.
    weights : dict of int to float, or None
        The squared weight of each chunk number; 1 where it lacks one.
    """

    width: int
    grid: float
    dtype: str
    weights: Mapping[int, float] | None = None

    def __post_init__(self) -> None:
        floats(self.dtype)
        keep_plain(self, whole, "width")
        keep_plain(self, real, "grid")
        check_kinds(dict, None, weights=self.weights)
        if self.weights is not None:
            weights = {key: real("a weight", weight) for key, weight in self.weights.items()}
            object.__setattr__(self, "weights", weights)


@register
class Product:
    """One job's part of ``A (A' Q)``: the blocks' products, each rounded to the grid, summed exactly.

    Parameters
    ----------
    params : ProductParams
    words : ndarray of int32, shape (n,)
        The term ids that occur in the job's blocks, ascending and distinct.
    table : ndarray, shape (m, width)
        Rows of Q.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` of each term in `words`.
    """

    name: ClassVar[str] = "lsi"
    version: ClassVar[int] = 1
    params: ClassVar[type] = ProductParams
    limits: ClassVar[Mapping[str, int]] = {"max_nnz": BLOCK_NNZ}
    least_job_cost: ClassVar[float] = 30.0
    counts: ClassVar[bool] = False
    sums: ClassVar[bool] = True

    @staticmethod
    def pack(block: Chunk) -> Postings:
        """Return a block by terms, in memory of its own."""
        return postings(block)

    @staticmethod
    def prepare(rows: np.ndarray, params: ProductParams, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows of the shared table in the type of the computation."""
        return np.ascontiguousarray(rows, dtype=params.dtype)

    def __init__(
        self, params: ProductParams, words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        self._weights = params.weights or {}
        self._words = words
        self._row_of = positions_of(words, len(table_row))
        self._width = table.shape[1]
        self._q = _lined_up(table[table_row[words]], np.dtype(params.dtype))
        self._grid = params.grid
        self._idle: list[np.ndarray] = []
        self._totals: list[np.ndarray] = []  # one a thread that has been adding, in steps of the grid

    def add(self, block: Postings, key: Key) -> None:
        """Add a block's product.

        Parameters
        ----------
        block : Postings
            Its terms must be among the job's words.
        key : tuple of int
            The number of the block's chunk comes first.

        Raises
        ------
        OverflowError
            If the product exceeds the bound that the grid was made for.
        """
        try:
            total = self._idle.pop()
        except IndexError:  # all are being added to at this moment
            total = _aligned(self._q.shape, np.dtype(np.float64))
            self._totals.append(total)
        rows, weight = self._row_of[block.words], self._weights.get(key[0], 1.0)
        _add_product(block, rows, self._q, weight, self._grid, total)
        self._idle.append(total)

    def result(self) -> Partial:
        """Return the sum of the blocks added so far, as it travels."""
        steps = self._total()[:, : self._width]
        return Partial(self._words, np.ascontiguousarray(narrow_steps(steps)))

    def _total(self) -> np.ndarray:
        if not self._totals:
            return np.zeros(self._q.shape)
        total, *others = self._totals
        for other in others:
            total += other
            if not in_range(total):
                raise inexact(total, self._grid, self._words)
        self._totals, self._idle = [total], [total]
        return total

    @staticmethod
    def check(
        result: Partial, params: ProductParams, words: np.ndarray, blocks: Sequence[tuple[Packed, Key]]
    ) -> None:
        """Refuse a product that is not of all words, or larger than the documents can make it: no entry of
        A (A' Q) exceeds the squared Frobenius norm of A where the columns of Q have at most unit length.
        """
        if len(result.words) != len(words):
            raise ValueError(f"it has {len(result.words)} of the {len(words)} terms of its documents")
        check_extras(result.extras, {})
        weights = params.weights or {}
        norm = sum(weights.get(key[0], 1.0) * _squared_norm(block) for block, key in blocks)
        steps, most = result.steps, MARGIN * norm / params.grid + len(blocks)
        largest = max(-float(steps.min()), float(steps.max())) if steps.size else 0.0
        if largest > most:
            raise ValueError(f"it has entries of {largest:g} steps, and its documents make {most:g} at most")

    @classmethod
    def warm(cls) -> None:
        """Compile the loops, or load them from the disk's cache, by running tiny jobs."""
        for of_values, dtype in itertools.product(("float32", "float64"), repeat=2):
            chunk = Chunk(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, of_values), 1)
            job = cls(
                ProductParams(1, 1.0, dtype), chunk.words(), np.ones((1, 1), dtype), np.zeros(1, np.int32)
            )
            job.add(cls.pack(chunk), (0,))


def _squared_norm(block: Any) -> float:
    """Return about the sum of the squared values or, of documents that are elsewhere, a bound on it."""
    if isinstance(block, Postings):
        return block.squared_norm
    if isinstance(block, Chunk):
        return float(np.square(block.data, dtype=np.float64).sum())
    return float(block.squared_norm())


def _add_product(
    block: Postings, rows: np.ndarray, q: np.ndarray, weight: float, grid: float, total: np.ndarray
) -> None:
    """Add ``weight * A (A' Q)`` of a block, rounded to the grid, to a total: see `_product_compiled`.

    `rows` says where the block's terms are in `q` and `total`.

    Raises
    ------
    OverflowError
        If the total leaves the range in which it is exact.
    """
    multiply = _compiled_multiply() or _multiply
    entries = block.indptr, block.documents, block.data, block.n_docs
    if not multiply(rows, *entries, q, weight / grid, total):
        raise inexact(total[rows], grid, block.words)


def _lined_up(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the rows as the compiled product wants them, each filled up to whole lines."""
    lanes = LINE // dtype.itemsize
    table = _aligned((len(rows), -(-rows.shape[1] // lanes) * lanes), dtype)
    table[:, : rows.shape[1]] = rows
    return table


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return zeros that start on a cache line."""
    nbytes = shape[0] * shape[1] * dtype.itemsize
    raw = np.zeros(nbytes + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def _compiled_multiply() -> Callable[..., bool] | None:
    if compiled_kernels() is None:
        return None
    from distcorpus.kernels._product_compiled import multiply

    return multiply


def _multiply(
    rows: np.ndarray,
    indptr: np.ndarray,
    documents: np.ndarray,
    data: np.ndarray,
    n_docs: int,
    q: np.ndarray,
    scale: float,
    total: np.ndarray,
) -> bool:
    """Do what `_product_compiled.multiply` does, by scipy: the fallback where numba is missing."""
    block = scipy.sparse.csr_array((data.astype(q.dtype), documents, indptr), (len(rows), n_docs))
    y = block @ (block.T @ q[rows])
    sums = total[rows] + np.rint(np.multiply(y, scale, dtype=np.float64))
    total[rows] = sums
    return in_range(sums)

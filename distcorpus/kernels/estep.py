"""The kernel of LDA's training: the E-step over a job's blocks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.lda import (
    LDA_GRID,
    VARIANTS,
    add_statistics,
    as_compiled,
    checked_prior,
    expectation,
    expected_log_counts,
    expected_log_theta,
    floats,
    is_collapsed,
    most_cells,
    rows_of,
    sparse_statistics,
    starting_gamma,
    topic_weights,
)
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.received import check_amounts, check_kinds, flag, keep_plain, real, whole
from distcorpus.algorithms.summation import (
    add_cells,
    in_range,
    inexact,
    narrow_in_place,
    narrow_steps,
    to_steps,
)
from distcorpus.kernels.base import Key
from distcorpus.kernels.checking import MARGIN, check_array, check_extras, check_total
from distcorpus.kernels.registry import register

#: Documents of a block, the unit that is scheduled, retried and rounded. Of a default chunk of 2,000
#: documents this makes four, which several threads or workers share; rounding a block's statistics costs a
#: few per cent of computing them.
BLOCK_DOCUMENTS = 512

#: The part of a job's counts that may be other than zero where they are sent as cells, of twice the size.
SPARSE = 0.25

#: Bytes of lambda that are turned into topic weights at a time: they stay in a near cache.
AT_ONCE = 1 << 19


@dataclass(frozen=True, slots=True, eq=False)
class TopicParams:
    """What kernels that infer documents' topics have in common.

    Attributes
    ----------
    alpha : ndarray of float64, shape (K,)
        The documents' Dirichlet prior.
    totals : ndarray of float64, shape (K,)
        The sums of lambda over all terms.
    dtype : {"float32", "float64"}
        Of the computation.
    iterations : int
        The most a document may take.
    gamma_threshold : float
        A document has converged when its gamma changes by less than this on average.
    seed : int
        The model's, not negative.
    variant : {"vb", "cvb0"}
        Variational Bayes, or its zero-order collapsed form.
    """

    alpha: np.ndarray
    totals: np.ndarray
    dtype: str
    iterations: int
    gamma_threshold: float
    seed: int
    variant: str = "vb"

    def __post_init__(self) -> None:
        floats(self.dtype)
        check_kinds(np.ndarray, alpha=self.alpha, totals=self.totals)
        keep_plain(self, whole, "iterations", "seed")
        keep_plain(self, real, "gamma_threshold")
        check_kinds(str, variant=self.variant)
        shapes = np.shape(self.alpha), np.shape(self.totals)
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(
                f"alpha has shape {shapes[0]} and totals {shapes[1]}: give a number for each topic"
            )
        check_amounts({"alpha": self.alpha}, above_zero=True)
        check_amounts({"totals": self.totals})

    @property
    def width(self) -> int:
        """The number of topics."""
        return len(self.alpha)


@dataclass(frozen=True, slots=True, eq=False)
class EStepParams(TopicParams):
    """The parameters of `EStep`.

    Attributes
    ----------
    gamma_statistics : bool
        Whether to sum what the update of alpha needs.
    """

    gamma_statistics: bool = False

    def __post_init__(self) -> None:
        TopicParams.__post_init__(self)  # `super()` knows nothing of a class with slots
        keep_plain(self, flag, "gamma_statistics")


@register
class EStep:
    """The E-step over the blocks of a job: expected counts of the job's words and topics, exactly summed.

    Each block's statistics are computed in floating point, rounded to `LDA_GRID`, and added without error.

    Parameters
    ----------
    params : EStepParams
    words : ndarray of int32, shape (n,)
        The terms that occur in the job's blocks, ascending.
    table : ndarray, shape (m, K)
        Topic weights, from `prepare`.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` for each term id; only the entries of `words` are used.
    """

    name: ClassVar[str] = "lda"
    version: ClassVar[int] = 1
    params: ClassVar[type] = EStepParams
    limits: ClassVar[Mapping[str, int]] = {"max_docs": BLOCK_DOCUMENTS}
    least_job_cost: ClassVar[float] = 10.0
    counts: ClassVar[bool] = True
    sums: ClassVar[bool] = True

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        """Return the block: documents are computed as they come."""
        return block

    @staticmethod
    def prepare(rows: np.ndarray, params: TopicParams, out: np.ndarray | None = None) -> np.ndarray:
        """Turn rows of lambda (m, K) into topic weights of the computation's dtype (see `Kernel.prepare`)."""
        dtype = floats(params.dtype)
        if out is None or out.dtype != dtype or not out.flags.writeable:
            out = np.empty(rows.shape, dtype)
        count = max(1, AT_ONCE // max(1, params.width * dtype.itemsize))
        for start in range(0, len(rows), count):
            part = slice(start, start + count)
            out[part] = topic_weights(as_compiled(rows[part], dtype), params.totals, params.variant)
        return out

    def __init__(
        self, params: EStepParams, words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        self._dtype = floats(params.dtype)
        self._alpha = checked_prior(params.alpha, table.shape[1], self._dtype)
        self._options = params.iterations, params.gamma_threshold, params.variant
        self._seed = params.seed
        self._words = words
        self._table = as_compiled(table, self._dtype)
        self._table_rows = rows_of(words, table_row, len(table))
        self._position = np.full(len(table_row), -1, np.int32)
        self._position[words] = np.arange(len(words), dtype=np.int32)
        self._cells: list[tuple[Key, np.ndarray, np.ndarray]] = []  # of blocks, until they are too many
        self._num_cells = 0
        self._steps: np.ndarray | None = None
        self._counters = np.zeros(3, np.int64)
        self._log_theta = np.zeros(len(self._alpha)) if params.gamma_statistics else None
        self._lock = threading.Lock()

    @np.errstate(all="ignore")
    def add(self, block: Chunk, key: Key) -> None:
        """Add a block's statistics; several threads may.

        Parameters
        ----------
        block : Chunk
            Of the job's words.
        key : tuple of int
            The block's identity, from which its documents' gamma starts (see `starting_gamma`).
        """
        gamma = starting_gamma(block.n_docs, len(self._alpha), self._seed, key, self._dtype)
        positions = rows_of(block.indices, self._position, len(self._words))
        rows = self._table_rows[positions]
        theta, ratio, converged, iterations = expectation(
            block, rows, self._table, self._alpha, gamma, *self._options
        )
        if self._log_theta is not None:
            if is_collapsed(self._options[-1]):
                logs = expected_log_counts(block, rows, self._table, self._alpha, gamma, theta, ratio)
            else:
                logs = expected_log_theta(gamma)
            log_theta = to_steps(logs.sum(axis=0), LDA_GRID)
        counts = block, positions, theta, ratio, self._table, self._table_rows, LDA_GRID
        num_words, num_topics = len(self._words), len(self._alpha)
        most = most_cells(block, positions, theta, num_words, num_topics)
        cells = None
        # A word comes in several documents of one topic, so what it has is about half of the most.
        if self._steps is None and most <= 2 * SPARSE * num_words * num_topics:
            cells = sparse_statistics(*counts, most)
        with self._lock:
            if cells is not None:
                self._cells.append((key, *cells))
                self._num_cells += len(cells[0])
            if self._steps is not None or self._num_cells > SPARSE * num_words * num_topics:
                self._fill_table()
            if cells is None:
                add_statistics(*counts, self._fill_table())
            self._counters += block.n_docs, converged, iterations
            if self._log_theta is not None:
                self._log_theta += log_theta

    def _fill_table(self) -> np.ndarray:
        """Return the sums as a table, from here on."""
        if self._steps is None:
            self._steps = np.zeros((len(self._words), len(self._alpha)))
        rows = np.arange(len(self._words), dtype=np.int32)
        for _, cells, steps in self._cells:
            add_cells(self._steps, rows, cells, steps)  # what is out of range stays so
        self._cells.clear()
        return self._steps

    def result(self) -> Partial:
        """Return the sums; nothing can be added after that.

        Returns
        -------
        Partial
            Steps of `LDA_GRID`; the extras are ``documents``, ``converged`` and ``iterations`` and, if asked
            for, ``gamma_statistics``: the sum over documents of psi(gamma) - psi(sum(gamma)) or, collapsed,
            of E[psi(alpha + counts)] - psi(sum(gamma)), float64 (K,) in steps of `LDA_GRID`.

        Raises
        ------
        OverflowError
            If a statistic is no number, or more than 2**31.
        """
        with self._lock:
            documents, converged, iterations = map(int, self._counters)
            extras: dict[str, Any] = {
                "documents": documents,
                "converged": converged,
                "iterations": iterations,
            }
            if self._log_theta is not None:
                extras["gamma_statistics"] = self._log_theta.copy()
            if self._steps is None:
                parts = sorted(self._cells, key=lambda part: part[0])
                none = np.empty(0, np.int32)  # of a job without a block
                cells = np.concatenate([none, *(cells for _, cells, _ in parts)])
                steps = np.concatenate([none, *(steps for _, _, steps in parts)])
                if not in_range(steps):
                    raise inexact(steps, LDA_GRID, self._words[cells // len(self._alpha)])
                return Partial(self._words, narrow_steps(steps), extras, cells)
            if not in_range(self._steps):
                raise inexact(self._steps, LDA_GRID, self._words)
            self._steps = narrow_in_place(self._steps)
            return Partial(self._words, self._steps, extras)

    @staticmethod
    def check(
        result: Partial, params: EStepParams, words: np.ndarray, blocks: Sequence[tuple[Chunk, Key]]
    ) -> None:
        """Refuse statistics that are not of all words, or more than the documents' tokens."""
        if len(result.words) != len(words):
            raise ValueError(f"it has {len(result.words)} of the {len(words)} terms of its documents")
        tokens = sum(block.total() for block, _ in blocks)
        rounded = sum(block.nnz for block, _ in blocks) * params.width  # each by half a step
        check_total(result.steps, MARGIN * tokens / LDA_GRID + rounded)
        extras = result.extras
        counted: dict[str, type] = {"documents": int, "converged": int, "iterations": int}
        check_extras(extras, counted | ({"gamma_statistics": np.ndarray} if params.gamma_statistics else {}))
        documents = sum(block.n_docs for block, _ in blocks)
        if extras["documents"] != documents:
            raise ValueError(f"it counts {extras['documents']} documents, and there are {documents}")
        if not 0 <= extras["converged"] <= documents:
            raise ValueError(f"{extras['converged']} of {documents} documents converged")
        if not 0 <= extras["iterations"] <= documents * max(params.iterations, 0):
            raise ValueError(f"{documents} documents took {extras['iterations']} iterations")
        if params.gamma_statistics:
            check_array("gamma_statistics", extras["gamma_statistics"], (params.width,), np.float64)

    @classmethod
    def warm(cls, dtypes: Sequence[str] = ("float32",)) -> None:
        """Compile the kernels, or load them from numba's cache, by running tiny jobs."""
        one = np.zeros(1, np.int32)
        add_cells(np.zeros((1, 1)), one, one, np.zeros(1))  # of counts that do not fit into int32
        block = Chunk(np.array([0, 1]), one, np.ones(1, np.float32), 1)
        for dtype, variant in itertools.product(dtypes, VARIANTS):
            params = EStepParams(np.ones(1), np.ones(1), dtype, 1, 0.001, 0, variant, gamma_statistics=True)
            job = cls(params, block.words(), cls.prepare(np.ones((1, 1)), params), one)
            job.add(block, (0,))

"""Training LSI: the chunks of a corpus, each of which is multiplied once as it arrives, and the iteration."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms import lsi
from distcorpus.algorithms.chunk import Divisible
from distcorpus.algorithms.lda import floats
from distcorpus.algorithms.received import check_amounts, check_kinds, keep_plain, optional, real, whole
from distcorpus.algorithms.summation import GridSum, exact_sum, grid_for
from distcorpus.engines.base import Block, Engine
from distcorpus.kernels import NormParams, Product, ProductParams, SquaredNorm
from distcorpus.training.evaluation import Evaluation, evaluate
from distcorpus.training.rounds import SumRound
from distcorpus.training.session import Session
from distcorpus.training.standing import Standing

logger = logging.getLogger(__name__)

#: A factorisation that documents are added to has this many times the wanted rank.
KEPT_RANKS = 2


@dataclass(frozen=True, slots=True, eq=False)
class LsiTask:
    """What is to be trained.

    Attributes
    ----------
    num_terms : int
        Size of the vocabulary.
    num_topics : int
        Wanted number of singular vectors.
    decay : float
        Weight of what came before a chunk, relative to it.
    dtype : {"float32", "float64"}
        Of the result.
    seed : int
        Seeds the start block.
    power_iters, extra_samples : int, optional
        Fixes the effort instead of the accuracy, see `algorithms.lsi.factorise`.
    base : (ndarray, ndarray), optional
        U and s of documents that came before all chunks.
    squared_weights : tuple of float
        Of the first chunks, which a model has had before and are put again: how they count beside each other
        and `base`, whatever `decay` says. The chunks after them weigh down all of these alike.
    tolerance : float
        Relative error of each singular value.

    Raises
    ------
    TypeError, ValueError
        If the shapes of `base` do not fit, the weights are none, or a number is not finite.
    """

    num_terms: int
    num_topics: int
    decay: float = 1.0
    dtype: str = "float64"
    seed: int = 0
    power_iters: int | None = None
    extra_samples: int | None = None
    base: lsi.Factors | None = None
    squared_weights: tuple[float, ...] = ()
    tolerance: float = lsi.TOLERANCE

    def __post_init__(self) -> None:
        if type(self.squared_weights) is not tuple or set(map(type, self.squared_weights)) - {float}:
            raise TypeError(
                "squared_weights: give a tuple of floats, one for each chunk that was there before"
            )
        if not all(0 <= squared < math.inf for squared in self.squared_weights):
            raise ValueError(
                "squared_weights: earlier documents count infinitely much, or less than nothing: give a "
                "decay of 1 or less"
            )
        keep_plain(self, whole, "num_terms", "num_topics", "seed")
        keep_plain(self, optional(whole), "power_iters", "extra_samples")
        keep_plain(self, real, "decay", "tolerance")
        if self.tolerance <= 0:
            raise ValueError(f"tolerance={self.tolerance}: give a number above 0")
        floats(self.dtype)
        if self.base is not None:
            U, s = self.base
            check_kinds(np.ndarray, U=U, s=s)
            if U.ndim != 2 or len(U) != self.num_terms or U.shape[1:] != s.shape:
                raise ValueError(
                    f"base has shapes {U.shape} and {s.shape}: give ({self.num_terms}, k) and (k,)"
                )
            check_amounts({"the base's singular values": s})
            if U.dtype.kind != "f" or not np.isfinite(U.min(initial=0)) or not np.isfinite(U.max(initial=0)):
                raise ValueError("the base's vectors are not all finite numbers: give those of a model")


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """A factorisation in the place of chunks: up to which number, -1 for what came before all of them."""

    U: NDArray
    s: NDArray
    last: int


class LsiTraining(Session):
    """Factorises the documents that are put.

    The first product is summed while the chunks arrive. Chunks are kept, so that later additions give what
    training on everything at once would have given; beyond `memory` bytes, and without a spool, they are
    folded into a factorisation of twice the wanted rank.

    Parameters
    ----------
    name, engine, **session
        As `Session` takes them.
    task : LsiTask
    fold_at : int, optional
        Bytes of chunks beyond which they are folded, where there is no spool; by default `memory`.
    after_round : callable
        Told how many rounds there have been, after each product with the whole corpus.
    """

    kernel = Product

    def __init__(
        self,
        name: str,
        engine: Engine,
        task: LsiTask,
        *,
        fold_at: int | None = None,
        after_round: Callable[[int], None] = lambda rounds: None,
        **session: Any,
    ) -> None:
        super().__init__(name, engine, task.num_terms, **session)
        self.task = task
        self.after_round = after_round
        self._fold_at = self.memory if fold_at is None else fold_at
        self._blocks: dict[int, Block] = {}
        self._squared_norms: dict[int, float] = {}  # of each block
        self._base = None if task.base is None else _Base(*task.base, -1)
        self._committed = 0
        self._committed_base = self._base  # of what was committed, while a fold has mixed it
        self.num_folds = 0
        self._finishing = self._finished = False
        self._failure = ""
        self._committed_documents = 0
        self._unmeasured: list[tuple[Any, list[Block]]] = []
        self._num_taken = 0  # chunks that are in the round of those that arrive, or are to be
        self._approach: lsi.Approach | None = None
        self._last_round = 0  # about which will be the last
        self._values: tuple[float, ...] = ()
        self._streamed: SumRound | None = None
        self._streamed_bound = 0.0  # on the squared norm of what the round may have
        self._streamed_norm = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks in memory, and of what stands in the place of others."""
        return self.spool.nbytes + (0 if self._base is None else self._base.U.nbytes)

    def begin(self) -> None:
        """Begin an addition; chunks of one that was not finished are given up."""
        if self._base is not None and self._base.last >= self._committed:
            self._base = self._committed_base
        self._give_up(self._committed)
        self.num_chunks, self.num_documents = self._committed, self._committed_documents
        self._num_taken = self._committed
        self._unmeasured.clear()
        self._streamed = None
        self._finishing = self._finished = False
        self._failure = ""
        self._approach, self.documents_computed = None, 0
        self._latest = lambda: None

    def put(self, chunk: Divisible) -> None:
        """Add a chunk; waits while the queue is full.

        Raises
        ------
        ValueError
            If it is of documents that are here, after such as are on workers.
        """
        if not chunk.measured:
            self._unmeasured.append((chunk, self.keep(chunk)))
            return
        if self._unmeasured:
            raise ValueError("documents are put after references to others: put them before, or refer to all")
        if self.spool.directory is None and lsi.must_fold(self.spool.nbytes, chunk.nbytes, self._fold_at):
            self._fold()
        self._take(chunk, self.keep(chunk))

    def _take(self, chunk: Divisible, blocks: list[Block]) -> None:
        """Multiply a chunk as it arrives."""
        self._num_taken += 1
        norms = [documents.squared_norm() for documents in chunk.split(**self.kernel.limits)]
        self._blocks.update((block.number, block) for block in blocks)
        self._squared_norms.update(zip((block.number for block in blocks), norms, strict=True))
        self._streamed_norm += sum(norms)
        if self._streamed is None or self._streamed_norm > self._streamed_bound:
            self._streamed = self._stream()
        self.queue(self._streamed, blocks)

    def finish(self) -> lsi.Factors:
        """Factorise everything that has arrived.

        Returns
        -------
        U : ndarray, shape (num_terms, k)
            Left singular vectors, ``k <= num_topics``.
        s : ndarray, shape (k,)
            Singular values, descending.
        """
        self._finishing = True
        try:
            self._measure()
            factors = self._factorise(self.num_chunks, self.task.num_topics)
        except Exception as error:
            if not isinstance(error, ConnectionError):  # of a client that is gone
                self._failure = str(error)
            raise
        self._finished, self._values = True, tuple(factors[1].tolist())
        self._committed_documents = self.num_documents
        self._streamed = None
        self._committed, self._committed_base = self.num_chunks, None
        return factors

    def _measure(self) -> None:
        """Let workers measure the documents that they have; then all is as if these had been put."""
        if not self._unmeasured:
            return
        with Evaluation(
            f"{self.name}/norms",
            self.engine,
            self.num_terms,
            NormParams(),
            lambda words: np.empty((len(words), 0)),
            kernel=SquaredNorm,
            check_client=self.check_client,
        ) as measuring:
            measured = evaluate(measuring, [chunk for chunk, _ in self._unmeasured])
            for (chunk, _), norms in zip(self._unmeasured, measured, strict=True):
                for block, norm in zip(chunk.blocks, norms.tolist(), strict=True):
                    block.norm.append(norm)
        for chunk, blocks in self._unmeasured:
            self._take(chunk, blocks)
        self._unmeasured.clear()

    def chunks_done(self) -> int:
        """Return how many of the chunks that are arriving have been multiplied once."""
        return self._streamed.chunks_done() if self._streamed is not None else 0

    def standing(self) -> Standing:
        """See `Session.standing`."""
        found, approach = super().standing(), self._approach
        expected = to_do = None
        if approach is not None:
            # Of the round under way, which may be a later one than when that was said.
            left = max(self._last_round - self.num_rounds, 0)
            expected = self.num_rounds + left
            round_ = self._latest()
            of_round = self.num_documents if round_ is None else round_.counts()[3]
            to_do = found.documents_done + self.num_documents - of_round + left * self.num_documents
        return replace(
            found,
            topics=self.task.num_topics,
            complete=self._finishing,
            done=self._finished,
            failure=self._failure,
            documents_to_do=found.documents_done if self._finished else to_do,
            rounds_expected=self.num_rounds if self._finished else expected,
            tolerance=self.task.tolerance if self.task.power_iters is None else None,
            error=approach.error if approach is not None else None,
            singular_values=self._values,
        )

    def _approaches(self, approach: lsi.Approach) -> None:
        """Note how far the iteration is."""
        self._approach = approach
        self._last_round = self.num_rounds + approach.products_left
        if approach.values is not None:
            self._values = tuple(approach.values.tolist())
        if approach.error is not None:
            self.curve.add(self.documents_computed, approach.error)

    def _give_up(self, first: int) -> None:
        """Keep no chunk from number `first` on."""
        self._blocks = {n: block for n, block in self._blocks.items() if block.key[0] < first}
        self._squared_norms = {n: self._squared_norms[n] for n in self._blocks}
        for number in range(first, self.num_chunks):
            self.spool.release(number)

    def _squared_norm(self, blocks: Iterable[Block], weights: Mapping[int, float] | None = None) -> float:
        """Return the squared Frobenius norm of some blocks, each chunk with its squared weight, or 1."""
        norms = [(block.key[0], self._squared_norms[block.number]) for block in blocks]
        try:
            return exact_sum(np.array([norm if weights is None else weights[n] * norm for n, norm in norms]))
        except OverflowError:  # which `check_norm` refuses
            return math.inf

    def _weights(self, blocks: Iterable[Block], end: int) -> dict[int, float]:
        """Return the squared weight of each block's chunk when those before number `end` are all."""
        numbers = {block.key[0] for block in blocks}
        return lsi.chunk_weights(numbers, end - 1, self.task.decay, self.task.squared_weights)

    def _stream(self) -> SumRound:
        """Open the round that multiplies the chunks with the start block as they arrive."""
        task = self.task
        width = lsi.block_width(task.num_terms, task.num_topics, task.power_iters, task.extra_samples)
        blocks, end = list(self._blocks.values()), self._num_taken
        self._streamed_norm = self._squared_norm(blocks)
        lsi.check_norm(self._streamed_norm, 1.0, 0)
        self._streamed_bound = lsi.bound_foreseen(self._streamed_norm)
        dtype = lsi.iteration_dtype(
            task.num_terms,
            task.num_topics,
            task.dtype,
            tolerance=task.tolerance,
            power_iters=task.power_iters,
            squared_norm=self._streamed_bound,
        )
        omega = lsi.start_block(task.num_terms, task.num_topics, task.seed, dtype, width)
        round_ = self._open_product(omega, grid_for(self._streamed_bound), None)
        self.add(round_, [block for block in blocks if block.key[0] < end - 1])
        return round_

    def _open_product(self, Q: NDArray, grid: float, weights: dict[int, float] | None) -> SumRound:
        width = Q.shape[1]
        return self.open_sum(
            ProductParams(width, grid, Q.dtype.name, weights),
            GridSum(self.num_terms, width, grid),
            lambda words: np.ascontiguousarray(Q[words]),
            keep_blocks=True,
        )

    def _computed(self, round_: SumRound, dtype: Any) -> NDArray:
        self.seal(round_)
        round_.wait()
        self.after_round(self.num_rounds)
        assert isinstance(round_.total, GridSum)
        return round_.total.values(dtype)

    def _factorise(self, end: int, num_topics: int) -> lsi.Factors:
        """Factorise the documents of all chunks before number `end`, to so many triplets."""
        blocks = [block for block in self._blocks.values() if block.key[0] < end]
        weights = self._weights(blocks, end)
        squared_norm = self._squared_norm(blocks, weights)

        def product(Q: NDArray) -> NDArray:
            round_ = self._open_product(Q, lsi.product_grid(squared_norm, Q.dtype), weights)
            self.add(round_, blocks)
            return self._computed(round_, Q.dtype)

        base, start = None, None
        if self._base is not None:
            newer = lsi.chunks_since(self._base.last + 1, end, len(self.task.squared_weights))
            base = self._base.U, self._base.s * lsi.decayed(self.task.decay, newer)
        whole = squared_norm + (0.0 if base is None else float(np.square(base[1]).sum()))
        lsi.check_norm(whole, self.task.decay, sum(block.nnz for block in blocks))
        if self._streamed is not None and end == self.num_chunks:
            start = self._computed(self._streamed, np.float64)
        with self.engine.algebra():
            return lsi.factorise(
                product,
                self.num_terms,
                num_topics,
                squared_norm=squared_norm,
                dtype=self.task.dtype,
                seed=self.task.seed,
                tolerance=self.task.tolerance,
                base=base,
                start=start,
                side_by_side=self.engine.map,
                power_iters=self.task.power_iters,
                extra_samples=self.task.extra_samples,
                observe=self._approaches,
            )

    def _fold(self) -> None:
        """Put a factorisation in the place of the kept chunks."""
        rank = KEPT_RANKS * self.task.num_topics
        logger.warning(
            "training run %s: the chunks before number %d are folded into up to %d factors, as no more than "
            "%.3g MB are kept; singular values may come out too small",
            self.name,
            self.num_chunks,
            rank,
            self._fold_at / 1e6,
        )
        self.num_folds += 1
        committed_only = self._base is None or self._base.last < self._committed
        # First of all, as it begins with the sum that any other round would end.
        everything = _Base(*self._factorise(self.num_chunks, rank), self.num_chunks - 1)
        if committed_only and self.num_chunks > self._committed:
            # The addition may be given up: what was there before it stays apart.
            before = self._base
            if any(block.key[0] < self._committed for block in self._blocks.values()):
                before = _Base(*self._factorise(self._committed, rank), self._committed - 1)
            self._committed_base = before
        self._base = everything
        self._give_up(0)
        self._streamed = None

    def add_documents(self, chunks: Iterable[Divisible]) -> lsi.Factors:
        """Add documents, and factorise everything; if that fails they count for nothing.

        Parameters
        ----------
        chunks : iterable of Divisible
            Read once.

        Returns
        -------
        U, s : ndarray
            As `finish` returns them.
        """
        self.begin()
        for chunk in chunks:
            self.put(chunk)
            del chunk  # its packed blocks take its place
        return self.finish()


def in_this_process(
    engine: Engine, task: LsiTask, *, fold_at: int | None = None, **options: Any
) -> LsiTraining:
    """Return a training run without limit to what is queued, which is kept anyway (see `LsiTraining`)."""
    return LsiTraining("lsi", engine, task, fold_at=fold_at, memory=sys.maxsize, max_queued=0, **options)


def train(
    engine: Engine, task: LsiTask, chunks: Iterable[Divisible], *, fold_at: int | None = None, **options: Any
) -> lsi.Factors:
    """Factorise a corpus at once, in this thread (see `LsiTraining.add_documents` and `in_this_process`)."""
    with in_this_process(engine, task, fold_at=fold_at, **options) as training:
        return training.add_documents(chunks)

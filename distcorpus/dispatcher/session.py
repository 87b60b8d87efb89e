"""One model that is being trained: its chunks, its rounds, its result.

A session knows the mathematics and an engine, and nothing of workers, sockets or threads. What it waits for
always has an end: the result, an error, or a client that is no longer there.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms import lsi
from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.lda import LDA_GRID
from distcorpus.algorithms.online import BLOCK_DOCUMENTS
from distcorpus.algorithms.partial import Extra, Partial
from distcorpus.algorithms.summation import GridSum, exact_sum, grid_for, merge_extras
from distcorpus.algorithms.topics import StatisticsSum
from distcorpus.dispatcher.engine import Block, Engine, Round
from distcorpus.dispatcher.journal import Journal
from distcorpus.dispatcher.spool import Spool
from distcorpus.dispatcher.team import Team

#: Non-zeros for each term of the vocabulary that a job has to have, by kernel: with fewer, sending its
#: broadcast rows and adding its partial, which have a row a term, take longer than computing it. Inference
#: sends rows once for a whole corpus and adds up nothing.
LEAST_JOB_COST = {"lsi": 30.0, "lda": 10.0, "inference": 0.0}
#: Seconds between two looks whether the client that waits is still there.
CLIENT_CHECK_EVERY = 0.5


class SumRound:
    """A kernel summed over blocks, exactly (what the engine knows as a `Round`).

    Parameters
    ----------
    session : str
        Name of the session.
    number : int
        Number of the round in its session.
    kernel : str
        Name of the kernel that workers run.
    params : dict
        Its parameters.
    total : GridSum or StatisticsSum
        What the partials are added to.
    num_terms : int
        Size of the vocabulary.
    rows : callable
        Returns the broadcast rows of an array of term ids.
    spool : Spool or None
        Keeps the chunks, each until it is in the sum; None where they come again in a later round.
    check_client : callable
        Raises where the client that waits is gone.
    """

    def __init__(
        self,
        session: str,
        number: int,
        kernel: str,
        params: dict[str, Any],
        total: GridSum | StatisticsSum,
        num_terms: int,
        rows: Callable[[NDArray[np.int32]], NDArray],
        spool: Spool | None,
        check_client: Callable[[], None],
    ) -> None:
        self.session = session
        self.number = number
        self.kernel = kernel
        self.params = params
        self.num_terms, self.width = num_terms, total.steps.shape[1]
        self.rows = rows
        self.total = total
        self.extras: dict[str, Extra] = {}
        self.least_job_cost = LEAST_JOB_COST[kernel] * num_terms
        self.keep_blocks = spool is None
        self._spool = spool
        self._blocks: dict[int, Block] = {}
        self._missing: Counter[int] = Counter()  # blocks by chunk
        self._chunks_done = 0
        self._check_client = check_client
        self._changed = threading.Condition()
        self._pending = 0
        self._finished = False
        self._error: str | None = None

    # What the engine asks and tells.

    def block(self, number: int) -> Block | None:
        with self._changed:
            return self._blocks.get(number)

    def add(self, blocks: Sequence[int], partial: Partial) -> None:
        self.total.add(partial.words, partial.steps)
        with self._changed:
            self.extras = merge_extras(self.extras, partial.extras)
            for number in blocks:
                chunk, _ = self._blocks[number].key
                self._missing[chunk] -= 1
                self._chunks_done += not self._missing[chunk]
                if self._spool is not None:
                    del self._blocks[number]
                    if not self._missing[chunk]:
                        self._spool.release(chunk)
            self._changed.notify_all()

    def progressed(self, pending: int) -> None:
        with self._changed:
            self._pending = pending
            self._changed.notify_all()

    def finished(self) -> None:
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def failed(self, error: str) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # What the session waits for.

    @property
    def under_way(self) -> bool:
        """Whether it has blocks, and is neither finished nor failed."""
        with self._changed:
            return bool(self._missing) and not self._finished and self._error is None

    def values(self, dtype: Any = np.float64) -> NDArray:
        """Return the sum over the whole vocabulary, shape (num_terms, width)."""
        assert isinstance(self.total, GridSum)
        return self.total.values(dtype)

    def chunks_done(self) -> int:
        """Return how many chunks are in the sum with all their blocks."""
        with self._changed:
            return self._chunks_done

    def expect(self, blocks: Sequence[Block]) -> None:
        """Take in blocks that are about to be queued."""
        with self._changed:
            self._blocks.update((block.number, block) for block in blocks)
            self._missing.update(block.key[0] for block in blocks)

    def wait_for_room(self, nbytes: int) -> None:
        """Wait until a chunk of that size fits into memory, or no other is there.

        Raises
        ------
        RuntimeError
            If the round fails meanwhile; the message names the chunk, the workers and the last traceback.
        """
        spool = self._spool
        if spool is not None:
            self._wait(lambda: spool.has_room(nbytes) or not spool.nbytes)

    def wait_for_queue(self, limit: int) -> None:
        """Wait until fewer than `limit` blocks are queued.

        Raises
        ------
        RuntimeError
            If the round fails meanwhile; the message names the chunk, the workers and the last traceback.
        """
        self._wait(lambda: self._pending < limit)

    def wait(self) -> None:
        """Wait until the round is finished.

        Raises
        ------
        RuntimeError
            If it fails; the message names the chunk, the workers and the last traceback.
        """
        self._wait(lambda: self._finished)

    def take(self, names: Sequence[str]) -> list[Extra]:
        """Wait for some extras, each of which one block has, and take them out of the sum.

        Raises
        ------
        RuntimeError
            If the round fails meanwhile; the message names the chunk, the workers and the last traceback.
        """
        self._wait(lambda: all(name in self.extras for name in names))
        with self._changed:
            return [self.extras.pop(name) for name in names]

    def _wait(self, ready: Callable[[], bool]) -> None:
        check_at = time.monotonic() + CLIENT_CHECK_EVERY
        with self._changed:
            while True:
                if self._error is not None:
                    raise RuntimeError(self._error)
                if ready():
                    return
                self._changed.wait(max(check_at - time.monotonic(), 0.0))
                if time.monotonic() >= check_at:
                    self._check_client()
                    check_at = time.monotonic() + CLIENT_CHECK_EVERY


class Session:
    """What LSI and LDA sessions share: chunks, rounds and back-pressure.

    Parameters
    ----------
    name : str
        Unique name.
    engine : Engine
        Computes the rounds.
    num_terms : int
        Size of the vocabulary.
    max_queued : int
        Chunks that wait for a worker at once; `put` blocks while there are as many. 0: no limit.
    memory : int
        Bytes of chunks to keep in memory.
    spool : Path, optional
        Directory for those that do not fit there.
    journal : Journal, optional
        Keeps what it takes to go on with the session in another process; removed when the session ends.
    team : Team, optional
        Threads for what LSI computes between two rounds.
    check_client : callable
        Raises where the client is gone.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        num_terms: int,
        *,
        max_queued: int = 10,
        memory: int = 2 << 30,
        spool: Path | None = None,
        journal: Journal | None = None,
        team: Team | None = None,
        check_client: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.num_terms = num_terms
        self.num_chunks = 0
        self._engine = engine
        self._max_queued = max_queued
        self._memory = memory
        self._directory = spool
        self._journal = journal
        self._spool = Spool(memory, spool, journal)
        self._team = team or Team(1)
        self._check_client = check_client
        self._num_blocks = 0
        self.num_rounds = 0
        self._latest: Callable[[], SumRound | None] = lambda: None  # a weak reference: sums are large
        engine.open_session(name)

    @property
    def under_way(self) -> bool:
        """Whether a round is."""
        round_ = self._latest()
        return round_ is not None and round_.under_way

    def close(self) -> None:
        """Give up everything; jobs under way count for nothing."""
        self._engine.close_session(self.name)
        if self._journal is not None:
            self._journal.remove()

    def _open_round(
        self,
        kernel: str,
        params: dict[str, Any],
        total: GridSum | StatisticsSum,
        rows: Callable[[NDArray[np.int32]], NDArray],
        spool: Spool | None,
    ) -> SumRound:
        self._check_client()
        self.num_rounds += 1
        round_ = SumRound(
            self.name,
            self.num_rounds,
            kernel,
            params,
            total,
            self.num_terms,
            rows,
            spool,
            self._check_client,
        )
        self._latest = weakref.ref(round_)
        self._engine.open_round(round_)
        return round_

    def _keep(self, chunk: Chunk, **limits: int) -> list[Block]:
        """Keep the next chunk, cut into blocks (see `Chunk.split`)."""
        blocks, first = [], 0
        kept = self._spool.keep(self.num_chunks, chunk) if chunk.n_docs or self._journal else chunk
        for documents in kept.split(**limits):
            blocks.append(Block(self._num_blocks, (self.num_chunks, first), documents, documents.words()))
            self._num_blocks += 1
            first += documents.n_docs
        self.num_chunks += 1
        return blocks

    def _queue(self, round_: SumRound, blocks: list[Block]) -> None:
        """Put the blocks of one chunk into the queue, when there is room."""
        if self._max_queued and blocks:
            round_.wait_for_queue(self._max_queued * len(blocks))
        self._add(round_, blocks)

    def _add(self, round_: SumRound, blocks: list[Block]) -> None:
        round_.expect(blocks)
        self._engine.add_blocks(round_, blocks)

    def _finish(self, round_: Round) -> None:
        self._engine.seal_round(round_)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics as gensim's ``LdaState`` holds them: a Dirichlet posterior with parameters ``eta + sstats``.

    Attributes
    ----------
    eta : ndarray, shape (num_terms,) or (num_topics, num_terms)
        Prior.
    sstats : ndarray, shape (num_topics, num_terms)
        Sufficient statistics.
    """

    eta: NDArray
    sstats: NDArray

    def totals(self) -> NDArray[np.float64]:
        """Return the parameters of each topic summed over the vocabulary, shape (num_topics,)."""
        return self.sstats.sum(axis=1, dtype=np.float64) + self.eta.sum(axis=-1, dtype=np.float64)

    def rows(self, words: NDArray[np.int32], dtype: str) -> NDArray:
        """Return the parameters of some terms, shape (n_words, num_topics)."""
        eta = self.eta[words, None] if self.eta.ndim == 1 else self.eta[:, words].T
        return np.ascontiguousarray(self.sstats[:, words].T + eta, dtype=dtype)


class LdaSession(Session):
    """An LDA model: each round is the E-step of the chunks between two M-steps.

    Parameters
    ----------
    alpha : ndarray, shape (num_topics,)
        Prior of the documents' topics.
    iterations, gamma_threshold, seed, variant
        As `algorithms.lda.EStep` takes them.
    **session
        As `Session` takes them.
    """

    def __init__(
        self,
        *session: Any,
        alpha: NDArray,
        iterations: int = 50,
        gamma_threshold: float = 0.001,
        seed: int = 0,
        variant: str = "vb",
        **options: Any,
    ) -> None:
        super().__init__(*session, **options)
        self.num_topics = len(alpha)
        self._params = {
            "alpha": np.asarray(alpha, dtype=np.float64),
            "iterations": iterations,
            "gamma_threshold": gamma_threshold,
            "seed": seed,
            "variant": variant,
            "gamma_statistics": False,
        }
        self._round: SumRound | None = None

    def begin(self, topics: Topics) -> None:
        """Begin a round with these topics; one that was not finished is given up.

        Chunks are numbered anew, so that a document starts from the same gamma in every pass.
        """
        self._spool = Spool(self._memory, self._directory)
        self.num_chunks = 0
        dtype = "float64" if topics.sstats.dtype == np.float64 else "float32"
        self._round = self._open_round(
            "lda",
            {**self._params, "totals": topics.totals(), "dtype": dtype},
            GridSum(self.num_terms, self.num_topics, LDA_GRID),
            lambda words: topics.rows(words, dtype),
            self._spool,
        )

    def put(self, chunk: Chunk) -> None:
        """Add a chunk to the round; waits while the queue or the memory is full."""
        if self._round is None:
            raise RuntimeError("no round has begun: call reset(state) before putjob")
        self._round.wait_for_room(chunk.nbytes)
        self._queue(self._round, self._keep(chunk, max_docs=BLOCK_DOCUMENTS))

    def finish(self) -> tuple[NDArray[np.float64], int]:
        """Wait for the round.

        Returns
        -------
        sstats : ndarray of float64, shape (num_topics, num_terms)
            Expected sufficient statistics of the round's documents.
        documents : int
            Their number.
        """
        if self._round is None:
            raise RuntimeError("no round has begun: call reset(state) before getstate")
        round_, self._round = self._round, None
        self._finish(round_)
        round_.wait()
        return round_.values().T, int(round_.extras.get("documents", 0))

    def chunks_done(self) -> int:
        """Return how many chunks of the round that is under way are in its sum."""
        return self._round.chunks_done() if self._round is not None else 0


class LsiSession(Session):
    """An LSI model: a block Krylov iteration over all chunks that ever arrived.

    The first product is summed while the chunks arrive. Chunks are kept, so that later additions give what
    training on everything at once would have given; beyond `memory` bytes, and without a spool, they are
    folded into a factorisation of 2k directions.

    Parameters
    ----------
    num_topics : int
        Wanted number of singular vectors.
    decay : float
        Weight of what came before a chunk, relative to it.
    dtype : str
        ``"float32"`` or ``"float64"``: of the result.
    seed : int
        Seeds the start block.
    power_iters, extra_samples : int, optional
        Fixes the effort instead of the accuracy, see `algorithms.lsi.factorise`.
    base : (ndarray, ndarray), optional
        U and s of documents that came before all chunks.
    **session
        As `Session` takes them.
    """

    def __init__(
        self,
        *session: Any,
        num_topics: int,
        decay: float = 1.0,
        dtype: str = "float64",
        seed: int = 0,
        power_iters: int | None = None,
        extra_samples: int | None = None,
        base: lsi.Factors | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*session, **options)
        self.num_topics = num_topics
        self.decay = decay
        self.dtype = dtype
        self._seed = seed
        self._effort: dict[str, Any] = {"power_iters": power_iters, "extra_samples": extra_samples}
        self._blocks: dict[int, Block] = {}
        self._squared_norms: dict[int, float] = {}  # of each block
        self._base: tuple[NDArray, NDArray, int] | None = None if base is None else (*base, -1)
        self._committed = 0
        self._streamed: SumRound | None = None
        self._streamed_bound = 0.0

    def put(self, chunk: Chunk) -> None:
        """Add a chunk; waits while the queue is full."""
        if self._directory is None and lsi.must_fold(self._spool.nbytes, chunk.nbytes, self._memory):
            self._fold()
        blocks = self._keep(chunk, max_nnz=lsi.BLOCK_NNZ)
        self._blocks.update((block.number, block) for block in blocks)
        self._squared_norms.update((block.number, block.documents.squared_norm()) for block in blocks)
        if self._streamed is None:
            self._stream()
        assert self._streamed is not None
        self._queue(self._streamed, blocks)

    def finish(self) -> tuple[NDArray, NDArray]:
        """Factorise everything that has arrived.

        Returns
        -------
        U : ndarray, shape (num_terms, k)
            Left singular vectors, ``k <= num_topics``.
        s : ndarray, shape (k,)
            Singular values, descending.
        """
        U, s = self._factorise(keep=None)
        self._streamed = None
        self._committed = self.num_chunks
        return U, s

    def begin(self) -> None:
        """Begin an addition; chunks of one that was not finished are given up."""
        self._give_up(self._committed)
        self.num_chunks = self._committed
        self._streamed = None

    def chunks_done(self) -> int:
        """Return how many of the chunks that are arriving have been multiplied once."""
        return self._streamed.chunks_done() if self._streamed is not None else 0

    def _give_up(self, first: int) -> None:
        """Keep no chunk from number `first` on."""
        self._blocks = {n: block for n, block in self._blocks.items() if block.key[0] < first}
        self._squared_norms = {n: self._squared_norms[n] for n in self._blocks}
        for number in range(first, self.num_chunks):
            self._spool.release(number)

    def _squared_norm(self, weights: Mapping[int, float]) -> float:
        """Return the squared Frobenius norm of the kept chunks, each with its squared weight."""
        norms = [
            weights[block.key[0]] * self._squared_norms[number] for number, block in self._blocks.items()
        ]
        return exact_sum(np.array(norms))

    def _weights(self, decay: float) -> dict[int, float]:
        return lsi.chunk_weights(
            {block.key[0] for block in self._blocks.values()}, self.num_chunks - 1, decay
        )

    def _stream(self) -> None:
        """Open the round that multiplies the chunks with the start block as they arrive."""
        width = lsi.block_width(self.num_terms, self.num_topics, **self._effort)
        self._streamed_bound = lsi.bound_foreseen(self._squared_norm(self._weights(1.0)))
        dtype = lsi.iteration_dtype(
            self.num_terms,
            self.num_topics,
            self.dtype,
            power_iters=self._effort["power_iters"],
            squared_norm=self._streamed_bound,
        )
        omega = lsi.start_block(self.num_terms, self.num_topics, self._seed, dtype, width)
        self._streamed = self._open_product(omega, grid_for(self._streamed_bound), None)
        earlier = [block for block in self._blocks.values() if block.key[0] < self.num_chunks - 1]
        self._add(self._streamed, earlier)

    def _open_product(self, Q: NDArray, grid: float, weights: dict[int, float] | None) -> SumRound:
        params = {"grid": grid, "dtype": Q.dtype.name, "weights": weights}
        total = GridSum(self.num_terms, Q.shape[1], grid)
        return self._open_round("lsi", params, total, lambda words: np.ascontiguousarray(Q[words]), None)

    def _product(self, Q: NDArray, squared_norm: float, weights: dict[int, float]) -> NDArray:
        """Return the sum of ``w_i^2 A_i (A_i' Q)`` over all kept blocks, in the type of Q."""
        round_ = self._open_product(Q, lsi.product_grid(squared_norm, Q.dtype), weights)
        self._add(round_, list(self._blocks.values()))
        self._finish(round_)
        round_.wait()
        return round_.values(Q.dtype)

    def _factorise(self, keep: int | None) -> tuple[NDArray, NDArray]:
        weights = self._weights(self.decay)
        squared_norm = self._squared_norm(weights)
        base = None
        if self._base is not None:
            U, s, folded = self._base
            base = (U, s * self.decay ** (self.num_chunks - 1 - folded))
        start = None
        if self._streamed is not None:
            self._finish(self._streamed)
            self._streamed.wait()
            if self._squared_norm(self._weights(1.0)) <= self._streamed_bound:
                start = self._streamed.values()
        return lsi.factorise(
            lambda Q: self._product(Q, squared_norm, weights),
            self.num_terms,
            self.num_topics,
            squared_norm=squared_norm,
            dtype=self.dtype,
            seed=self._seed,
            base=base,
            start=start,
            keep=keep,
            side_by_side=self._team.map,
            **self._effort,
        )

    def _fold(self) -> None:
        """Put a factorisation of twice the wanted rank in the place of the kept chunks."""
        U, s = self._factorise(keep=2 * self.num_topics)
        self._base = (U, s, self.num_chunks - 1)
        self._give_up(0)
        self._streamed = None
        self._committed = self.num_chunks

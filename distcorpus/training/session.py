"""One training run as an engine sees it: its blocks, and one round after the other.

A session knows the mathematics and an engine, and nothing of workers, sockets or threads. What it waits for
always has an end: the result, an error, or a client that is no longer there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk, Divisible
from distcorpus.algorithms.stopping import Stop
from distcorpus.algorithms.summation import GridSum
from distcorpus.algorithms.topics import StatisticsSum
from distcorpus.engines.base import Block, Engine
from distcorpus.training.rounds import BlockRound, Round, SumRound
from distcorpus.training.spool import Journal, Spool
from distcorpus.training.standing import Curve, Standing, TopicNow

#: Why a round was given up.
ENDED = "its training run has ended"
#: Why a chunk is refused.
PUT_AFTER_END = "put() after end(): all chunks were there, and this one is not among them"


class Session:
    """What all training runs have in common: chunks, rounds and back-pressure.

    Parameters
    ----------
    name : str
        Unique name.
    engine : Engine
        Computes the rounds.
    num_terms : int
        Size of the vocabulary.
    max_queued : int
        Chunks that wait to be computed at once; `queue` waits while there are as many. 0: no limit.
    memory : int
        Bytes of chunks to keep in memory.
    spool : Path, optional
        Directory for those that do not fit there.
    journal : Journal, optional
        Keeps what it takes to go on with the session in another process; removed when the session ends.
    room : callable, optional
        As `Spool` takes it.
    check_client : callable
        Raises where the client is gone.
    """

    kernel: Any  # which most of its rounds are of

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
        room: Callable[[int, int], bool] | None = None,
        check_client: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.num_terms = num_terms
        self.num_chunks = 0
        self.num_documents = 0
        self.documents_computed = 0  # in all rounds
        self.num_rounds = 0
        self.memory = memory
        self.spool = Spool(memory, spool, journal, room)
        self.curve = Curve()
        self._max_queued = max_queued
        self._journal = journal
        self.check_client = check_client
        self.stop = Stop()  # ends what the training run's own thread computes
        self._num_blocks = 0
        self._ended = False
        self._latest: Callable[[], Round | None] = lambda: None  # a weak reference: sums are large
        engine.open_session(name)

    def close(self, keep: bool = False) -> None:
        """Give up everything; jobs under way count for nothing, and whoever waits for them is told.

        Parameters
        ----------
        keep : bool
            Leave the journal, for another process to go on.
        """
        self._ended = True
        self.stop.set()
        self.engine.close_session(self.name)
        round_ = self._latest()
        if round_ is not None:
            round_.give_up(ENDED)
        if self._journal is not None:
            if keep:
                self._journal.let_go()
            else:
                self._journal.remove()

    @property
    def is_kept(self) -> bool:
        """Whether another process could go on with it."""
        return self._journal is not None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def chunks_done(self) -> int:
        """Return how many chunks of the round under way have been computed."""
        round_ = self._latest()
        return round_.chunks_done() if round_ is not None else 0

    def standing(self) -> Standing:
        """Return where the run stands; any thread may ask."""
        round_ = self._latest()
        blocks, done, chunks, _ = round_.counts() if round_ is not None else (0, 0, 0, 0)
        return Standing(
            terms=self.num_terms,
            chunks_arrived=self.num_chunks,
            documents_arrived=self.num_documents,
            documents_done=self.documents_computed,
            round=self.num_rounds or None,
            blocks=blocks,
            blocks_done=done,
            chunks_of_blocks=chunks,
        )

    def topics_now(self, number: int, words: int) -> list[TopicNow]:
        """Return up to so many topics as they are now, with so many terms each; none where they cannot be
        told yet.
        """
        return []

    def keep(self, chunk: Divisible) -> list[Block]:
        """Keep the next chunk until it is released, cut into blocks.

        Raises
        ------
        ValueError, RuntimeError
            See `Spool.keep`.
        """
        kept = chunk
        # A chunk without documents has no blocks, and nothing would release it.
        if isinstance(chunk, Chunk) and (chunk.n_docs or self._journal):
            kept = self.spool.keep(self.num_chunks, chunk)
        elif self._journal is not None:
            self._journal.keep(self.num_chunks, chunk)
        blocks = self.cut(self.num_chunks, kept)
        self.num_chunks += 1
        self.num_documents += chunk.n_docs
        return blocks

    def cut(self, number: int, chunk: Divisible) -> list[Block]:
        """Cut a chunk into blocks (see `Chunk.split`)."""
        blocks, first = [], 0
        for documents in chunk.split(**self.kernel.limits):
            held = self.engine.hold(self.kernel, documents)
            key = (number, first)
            blocks.append(
                Block(self._num_blocks, key, held, documents.n_docs, documents.nnz, documents.packed_words())
            )
            self._num_blocks += 1
            first += documents.n_docs
        return blocks

    def open_sum(
        self,
        params: Any,
        total: GridSum | StatisticsSum,
        rows: Callable[[NDArray[np.int32]], NDArray],
        **options: Any,
    ) -> SumRound:
        """Open a round of the session's kernel whose results are added up (see `Round` for the options)."""
        return self._opened(SumRound(total, *self._about(params), rows, **self._options(options)))

    def open_blocks(
        self, params: Any, rows: Callable[[NDArray[np.int32]], NDArray], **options: Any
    ) -> BlockRound:
        """Open a round of the session's kernel with a result for each block."""
        return self._opened(BlockRound(*self._about(params), rows, **self._options(options)))

    def _about(self, params: Any) -> tuple[Any, ...]:
        self.check_client()
        self.num_rounds += 1
        return self.name, self.num_rounds, self.kernel, params, self.num_terms

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "check_client": self.check_client,
            "release": self.spool.release,
            "computed": self._count,
            **given,
        }

    def _count(self, documents: int) -> None:
        self.documents_computed += documents  # under the round's lock, and it has one round at a time

    def _opened(self, round_: Any) -> Any:
        before = self._latest()
        if before is not None:
            before.give_up("its training run has begun another one")
        self._latest = weakref.ref(round_)
        self.engine.open_round(round_)
        if self._ended:  # by another thread, which may have seen the round before
            self.engine.close_session(self.name)
            round_.give_up(ENDED)
        return round_

    def queue(self, round_: Round, blocks: list[Block]) -> None:
        """Put the blocks of one chunk into the queue, when there is room."""
        if self._max_queued and blocks:
            round_.wait_for_queue(self._max_queued * len(blocks))
        self.add(round_, blocks)

    def add(self, round_: Round, blocks: list[Block]) -> None:
        """Put blocks into the queue, at once."""
        round_.expect(blocks)
        self.engine.add_blocks(round_, blocks)

    def seal(self, round_: Round) -> None:
        """No more blocks will come."""
        self.engine.seal_round(round_)

    def wait_for_room(self, round_: Round, nbytes: int) -> None:
        """Wait until a chunk of that size fits into memory, or no other is there."""
        spool = self.spool
        round_.wait_until(lambda: spool.has_room(nbytes) or not spool.nbytes)

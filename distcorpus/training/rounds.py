"""A round: one kernel over the blocks of a session, and what a training run waits for in it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.partial import Extra
from distcorpus.algorithms.summation import GridSum, merge_extras
from distcorpus.algorithms.topics import StatisticsSum
from distcorpus.engines.base import Block
from distcorpus.kernels import Key, Result

#: Seconds between two looks whether the client that waits is still there.
CLIENT_CHECK_EVERY = 0.5


class Round:
    """What all rounds have in common (what an engine knows as `base.Round`).

    Parameters
    ----------
    session : str
        Name of the session.
    number : int
        Number of the round in its session.
    kernel : Kernel
    params
        Its parameters.
    num_terms : int
        Size of the vocabulary.
    rows : callable
        Returns the rows of the shared table for an array of term ids.
    keep_blocks : bool
        Whether the blocks come again in a later round.
    release : callable
        Told the number of each chunk whose blocks are all done, if they do not come again.
    computed : callable
        Told how many documents each result is of.
    check_client : callable
        Raises where the client that waits is gone.
    """

    one_by_one = False

    def __init__(
        self,
        session: str,
        number: int,
        kernel: Any,
        params: Any,
        num_terms: int,
        rows: Callable[[NDArray[np.int32]], NDArray],
        *,
        keep_blocks: bool = False,
        release: Callable[[int], None] = lambda chunk: None,
        computed: Callable[[int], None] = lambda documents: None,
        check_client: Callable[[], None] = lambda: None,
    ) -> None:
        self.session = session
        self.number = number
        self.kernel = kernel
        self.params = params
        self.num_terms = num_terms
        self.rows = rows
        self.least_job_cost = kernel.least_job_cost * num_terms
        self.keep_blocks = keep_blocks
        self._release = release
        self._computed = computed
        self._check_client = check_client
        self._blocks: dict[int, Block] = {}
        self._left: set[int] = set()  # numbers of blocks whose result is not here
        self._missing: Counter[int] = Counter()  # blocks by chunk
        self._chunks_done = 0
        self._num_blocks = 0
        self._documents_done = 0
        self._changed = threading.Condition()
        self._pending = 0
        self._finished = False
        self._error: BaseException | None = None

    # What the engine asks and tells.

    def block(self, number: int) -> Block | None:
        with self._changed:
            return self._blocks.get(number)

    def add(self, blocks: Sequence[int], result: Result) -> None:
        """Take in the result of a job, some blocks; it is dropped if they are all in already.

        Raises
        ------
        ValueError
            If some of them are in already, or not of this round: they cannot be taken out of the result.
        """
        with self._changed:
            if self._left.isdisjoint(blocks):
                return
            if not self._left.issuperset(blocks):
                raise ValueError(f"a result of the blocks {sorted(blocks)}, some of which are in already")
            self._left.difference_update(blocks)
            documents = sum(self._blocks[number].n_docs for number in blocks)
            self._documents_done += documents
            self._computed(documents)
        self._take_in(result)
        with self._changed:
            for number in blocks:
                chunk, _ = self._blocks[number].key
                self._missing[chunk] -= 1
                self._chunks_done += not self._missing[chunk]
                if not self.keep_blocks:
                    del self._blocks[number]
                    if not self._missing[chunk]:
                        self._release(chunk)
            self._changed.notify_all()

    def _take_in(self, result: Any) -> None:
        raise NotImplementedError

    def progressed(self, pending: int) -> None:
        with self._changed:
            self._pending = pending
            self._changed.notify_all()

    def finished(self) -> None:
        with self._changed:
            if self._left:
                what = "; ".join(str(self._blocks[number]) for number in sorted(self._left)[:3])
                self._error = self._error or RuntimeError(f"a round was ended without {what}")
            self._finished = True
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    # What the training run waits for. It raises what the round failed with: for an error on a worker, a
    # RuntimeError that names the chunk, the workers and the last traceback.

    def give_up(self, why: str) -> None:
        """Whoever waits for it is told that it will not be finished, if it is not."""
        with self._changed:
            if not self._finished and self._error is None:
                self._error = RuntimeError(f"this round was given up: {why}")
                self._changed.notify_all()

    @property
    def under_way(self) -> bool:
        """Whether it has blocks, and is neither finished nor failed."""
        with self._changed:
            return bool(self._missing) and not self._finished and self._error is None

    def chunks_done(self) -> int:
        """Return how many chunks have been computed with all their blocks."""
        with self._changed:
            return self._chunks_done

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many blocks it has, how many of them are computed, of how many chunks all are, and how
        many documents are in the computed ones.
        """
        with self._changed:
            done = self._num_blocks - len(self._left)
            return self._num_blocks, done, len(self._missing), self._documents_done

    def expect(self, blocks: Sequence[Block]) -> None:
        """Take in blocks that are about to be queued."""
        with self._changed:
            self._blocks.update((block.number, block) for block in blocks)
            self._left.update(block.number for block in blocks)
            self._num_blocks += len(blocks)
            self._missing.update(block.key[0] for block in blocks)

    def wait_until(self, ready: Callable[[], Any]) -> None:
        """Wait until something is ready, which changes when a block is taken in or out of the queue, or at
        `wake`.
        """
        check_at = time.monotonic() + CLIENT_CHECK_EVERY
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if ready():
                    return
                self._changed.wait(max(check_at - time.monotonic(), 0.0))
                if time.monotonic() >= check_at:
                    self._check_client()
                    check_at = time.monotonic() + CLIENT_CHECK_EVERY

    def wake(self) -> None:
        """Have those who wait look again at what they wait for."""
        with self._changed:
            self._changed.notify_all()

    def wait_for_queue(self, limit: int) -> None:
        """Wait until fewer than `limit` blocks are queued."""
        self.wait_until(lambda: self._pending < limit)

    def wait(self) -> None:
        """Wait until the round is finished."""
        self.wait_until(lambda: self._finished)


class SumRound(Round):
    """A round whose results are added up, exactly.

    Parameters
    ----------
    total : GridSum or StatisticsSum
        What the partials are added to.
    *round_, **options
        As `Round` takes them.

    Attributes
    ----------
    extras : dict of str to int, float or ndarray
        The sums beside the table.
    """

    def __init__(self, total: GridSum | StatisticsSum, *round_: Any, **options: Any) -> None:
        super().__init__(*round_, **options)
        self.total = total
        self.extras: dict[str, Extra] = {}

    def _take_in(self, result: Any) -> None:
        self.total.add(result.words, result.steps, result.cells)
        with self._changed:
            self.extras = merge_extras(self.extras, result.extras)


class BlockRound(Round):
    """A round that keeps what the kernel computed of each block, until somebody takes it."""

    one_by_one = True

    def __init__(self, *round_: Any, **options: Any) -> None:
        super().__init__(*round_, **options)
        self._arrays: dict[Key, NDArray] = {}

    def _take_in(self, result: Any) -> None:
        with self._changed:
            self._arrays.update(result.arrays)

    def take(self, blocks: Sequence[Block]) -> list[NDArray]:
        """Wait for the results of some blocks and give them away, in that order."""
        self.wait_until(lambda: self.has(blocks))
        with self._changed:
            return [self._arrays.pop(block.key) for block in blocks]

    def has(self, blocks: Sequence[Block]) -> bool:
        """Return whether the results of some blocks are here."""
        return all(block.key in self._arrays for block in blocks)

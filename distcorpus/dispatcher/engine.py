"""The seam between sessions and whatever computes their rounds.

A session asks an engine to run a round and is told what came back; it knows no worker, thread or socket.
`drivers.PyroEngine` is ours; another engine is another file beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.partial import Partial


@dataclass(frozen=True, slots=True)
class Block:
    """Documents of one chunk that are scheduled, retried and rounded as one.

    Attributes
    ----------
    number : int
        Its number within the session.
    key : tuple of int
        (number of its chunk in the session, first document of the block in that chunk).
    documents : Chunk
        The documents.
    words : ndarray of int32, shape (n_words,)
        Sorted ids of the terms that occur in it.
    """

    number: int
    key: tuple[int, int]
    documents: Chunk
    words: NDArray[np.int32]

    def __str__(self) -> str:
        chunk, first = self.key
        return f"chunk {chunk}, documents {first}-{first + self.documents.n_docs - 1}"


class Round(Protocol):
    """One kernel summed over blocks: what an engine needs to know of it, and what it tells it."""

    session: str
    number: int
    kernel: str
    params: dict[str, Any]
    num_terms: int
    width: int
    least_job_cost: float  # non-zeros that a job has to have to be worth its partial
    keep_blocks: bool  # whether the blocks come again in a later round, so that workers do well to keep them

    def block(self, number: int) -> Block | None:
        """Return a block of the round; None where it is in the sum and will not come again."""

    def rows(self, words: NDArray[np.int32]) -> NDArray:
        """Return the broadcast rows of `words`, shape (n_words, width)."""

    def add(self, blocks: Sequence[int], partial: Partial) -> None:
        """Add the accepted partial of some blocks to the sum; called by several threads at once."""

    def progressed(self, pending: int) -> None:
        """So many blocks are queued now. Like what follows, it must neither wait nor call the engine."""

    def finished(self) -> None:
        """Every block is in the sum, once."""

    def failed(self, error: str) -> None:
        """The round cannot be finished; `error` says why, and which worker."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as the dispatcher sees it."""

    name: str
    uri: str
    host: str
    pid: int
    threads: int
    state: str
    kernels: str  # see `algorithms.kind`


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What one job cost: the bytes that travelled and where its seconds went."""

    round: int
    kernel: str
    worker: str
    blocks: tuple[str, ...]
    documents: int
    bytes_sent: int
    bytes_received: int
    transfer_seconds: float
    queue_seconds: float
    compute_seconds: float
    sum_seconds: float


class Engine(Protocol):
    """Runs rounds. Every method returns at once and may be called by any thread."""

    def workers(self) -> Sequence[WorkerInfo]:
        """Return the workers that are connected."""

    def wait_for_workers(self, timeout: float) -> bool:
        """Wait until at least one worker is connected."""

    def open_session(self, session: str) -> None:
        """Begin to serve a session."""

    def close_session(self, session: str) -> None:
        """Drop all that belongs to a session; its jobs under way count for nothing."""

    def open_round(self, round_: Round) -> None:
        """Begin a round; a round of the same session that is not finished is dropped."""

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        """Put blocks of the round into the queue."""

    def seal_round(self, round_: Round) -> None:
        """No more blocks will come; ``round_.finished()`` follows once all are in the sum."""

    def records(self, session: str) -> Sequence[JobRecord]:
        """Return what the session's latest jobs cost."""

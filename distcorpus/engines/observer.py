"""What an engine tells whoever watches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What one job cost: the bytes that travelled and where its seconds went.

    Attributes
    ----------
    session : str
    round : int
    kernel, worker : str
    blocks : tuple of str
    documents : int
    began : float
        When it was handed out, in seconds since 1970.
    outcome : str
        "accepted": it is in the sum; "discarded": it came too late; "failed": it raised; "handed back": its
        worker was leaving, or nobody wanted it any more; "lost": its worker was.
    bytes_sent, bytes_received : int
    transfer_seconds, queue_seconds, compute_seconds, sum_seconds : float
        It and its answer travelled; it waited; it was computed; its result was added to the sum.
    """

    session: str
    round: int
    kernel: str
    worker: str
    blocks: tuple[str, ...]
    documents: int
    began: float
    outcome: str = "accepted"
    bytes_sent: int = 0
    bytes_received: int = 0
    transfer_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    sum_seconds: float = 0.0


class EngineObserver:
    """Is told what happens, at times under the engine's lock: it is quick and does not call the engine."""

    def job_ended(self, record: JobRecord) -> None:
        """A worker's answer to a job has been dealt with, or there will be none."""

    def round_ended(self, session: str, kernel: str, seconds: float, error: BaseException | None) -> None:
        """A round is finished, or has failed."""

    def worker_changed(self, worker: str, what: str, reason: str) -> None:
        """A worker "joined", "left", or is "lost", "silent", "expelled" or "refused", or "answers" again."""


_watching: tuple[EngineObserver, ...] = ()


def watching() -> tuple[EngineObserver, ...]:
    """Return those whom the engines of this process tell of their jobs, whatever they compute."""
    return _watching


@contextmanager
def told(observer: EngineObserver) -> Iterator[None]:
    """Let an observer be told, by the threads that compute in this process."""
    global _watching
    _watching = (*_watching, observer)
    try:
        yield
    finally:
        _watching = tuple(other for other in _watching if other is not observer)

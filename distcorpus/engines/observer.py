"""What an engine of workers tells whoever watches it."""

from __future__ import annotations

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

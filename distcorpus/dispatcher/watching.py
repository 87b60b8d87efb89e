"""What has happened in a cluster: counts, and the latest events, for whoever asks.

The engine tells of every job, so this is quick: an event is made into what travels once, when it happens.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from distcorpus.engines.observer import EngineObserver, JobRecord
from distcorpus.monitor.snapshot import (
    BOUNDS,
    ENDS_KEPT,
    EVENTS_A_SNAPSHOT,
    LONGEST_TEXT,
    Histogram,
    Incident,
    JobEvent,
    SessionEnd,
    SessionView,
    to_message,
)

#: Events that are kept for those who ask now and then.
EVENTS_KEPT = 20_000
#: Workers and sessions whose counts are kept, the latest.
COUNTED = 4096
#: Seconds over which shares and rates are.
LATELY = 60
#: A session's curve has at most this many points; then every other one is dropped.
POINTS = 400
#: What an incident says of how a session ended.
SAID = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "its program was interrupted, or is gone",
    "idle": "ended",
    "stopped": "the dispatcher was ended",
    "kept": "the dispatcher was ended; it can go on with the next one",
}


class Recent:
    """How much there was in each of the last seconds.

    Amounts are put down to the seconds in which they fell.
    """

    def __init__(self) -> None:
        self._slots = [0.0] * (LATELY + 1)
        self._second = 0  # the latest

    def add(self, began: float, ended: float, amount: float) -> None:
        """Spread an amount over a time."""
        ended = max(began, ended)
        self._advance(int(ended))
        first = max(int(began), self._second - LATELY)
        span = ended - began
        for second in range(first, min(int(ended), self._second) + 1):
            part = (min(ended, second + 1) - max(began, second)) / span if span else 1.0
            self._slots[second % (LATELY + 1)] += amount * part

    def total(self, now: float) -> float:
        """Return how much there was in the last `LATELY` seconds and the one under way."""
        self._advance(int(now))
        return sum(self._slots)

    def _advance(self, second: int) -> None:
        if second - self._second > LATELY:
            self._slots = [0.0] * (LATELY + 1)
        else:
            for later in range(self._second + 1, second + 1):
                self._slots[later % (LATELY + 1)] = 0.0
        self._second = max(self._second, second)


@dataclass(slots=True)
class Counts:
    """What jobs have cost: of a worker, or of a session. All times are of one clock that nobody sets."""

    since: float
    jobs: int = 0
    failed: int = 0
    lost: int = 0
    discarded: int = 0
    documents: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    compute_seconds: float = 0.0
    transfer_seconds: float = 0.0
    computing: Recent = field(default_factory=Recent)
    transferring: Recent = field(default_factory=Recent)
    computed: Recent = field(default_factory=Recent)  # documents
    round_seconds: float | None = None  # a running mean
    failure: str = ""  # of the latest round

    def add(self, record: JobRecord, now: float) -> None:
        """Count a job that has ended."""
        self.jobs += record.outcome == "accepted"
        self.failed += record.outcome == "failed"
        self.lost += record.outcome == "lost"
        self.discarded += record.outcome == "discarded"
        self.bytes_sent += record.bytes_sent
        self.bytes_received += record.bytes_received
        self.compute_seconds += record.compute_seconds
        self.transfer_seconds += record.transfer_seconds
        computed_at = now - record.sum_seconds
        self.computing.add(computed_at - record.compute_seconds, computed_at, record.compute_seconds)
        self.transferring.add(computed_at - record.transfer_seconds, computed_at, record.transfer_seconds)
        if record.outcome == "accepted":
            self.documents += record.documents
            self.computed.add(now - _seconds(record), now, record.documents)

    def shares(self, now: float) -> tuple[float, float, float]:
        """Return the shares of the last minute, or of the time since it is there, in which it computed, in
        which something only travelled, and the rest.
        """
        seconds = min(max(now - self.since, 1e-3), LATELY + now % 1)
        busy = min(self.computing.total(now) / seconds, 1.0)
        transfer = min(self.transferring.total(now) / seconds, 1.0 - busy)
        return busy, transfer, 1.0 - busy - transfer

    def rate(self, now: float) -> float:
        """Return the documents a second of the last minute, or of the time since it is there."""
        return self.computed.total(now) / min(max(now - self.since, 1e-3), LATELY + now % 1)


class _Seconds:
    """Counts how long something took."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(BOUNDS, seconds)] += 1
        self._total += max(seconds, 0.0)

    def histogram(self) -> Histogram:
        return Histogram(counts=tuple(self._counts), total=self._total)


class Watch(EngineObserver):
    """Counts what happens and keeps the latest events. Any thread may call it; it calls nobody."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[tuple[bool, tuple[Any, ...]]] = deque(maxlen=EVENTS_KEPT)  # whether it is a job
        self._ends: deque[dict[str, Any]] = deque(maxlen=ENDS_KEPT)
        self._workers: OrderedDict[str, Counts] = OrderedDict()
        self._sessions: OrderedDict[str, Counts] = OrderedDict()
        self._jobs: dict[str, Counter[str]] = {}
        self._phases = {phase: _Seconds() for phase in ("queue", "transfer", "compute", "sum")}
        self._rounds: dict[str, _Seconds] = {}
        self._begun: Counter[str] = Counter()
        self._happened: Counter[str] = Counter()
        self._documents_arrived = 0
        self._all = Counts(time.monotonic())

    # What the engine tells.

    def job_ended(self, record: JobRecord) -> None:
        now, ended = time.monotonic(), time.time()
        with self._lock:
            for table, name in ((self._workers, record.worker), (self._sessions, record.session)):
                _counts(table, name, now).add(record, now)
            self._all.add(record, now)
            self._jobs.setdefault(record.kernel, Counter())[record.outcome] += 1
            if record.outcome in ("accepted", "discarded"):
                for phase, seconds in self._phases.items():
                    seconds.add(getattr(record, f"{phase}_seconds"))
            self._number += 1
            event = JobEvent(
                self._number,
                record.began,
                ended,
                record.session,
                record.worker,
                record.round,
                record.kernel,
                record.outcome,
                record.documents,
                len(record.blocks),
                record.queue_seconds,
                record.transfer_seconds,
                record.compute_seconds,
                record.sum_seconds,
                record.bytes_sent,
                record.bytes_received,
            )
            self._events.append((True, to_message(event)))
        if record.outcome == "failed":
            self.tell(
                "job failed", "warning", f"round {record.round}, {_few(record.blocks)}: see the log",
                worker=record.worker, session=record.session,
            )  # fmt: skip

    def round_ended(self, session: str, kernel: str, seconds: float, error: BaseException | None) -> None:
        with self._lock:
            counts = _counts(self._sessions, session, time.monotonic())
            counts.failure = "" if error is None else _short(str(error))
            if error is not None:
                self._tell("session failed", "error", str(error), "", session)
                return
            self._rounds.setdefault(kernel, _Seconds()).add(seconds)
            before = counts.round_seconds
            counts.round_seconds = seconds if before is None else before + 0.3 * (seconds - before)

    def worker_changed(self, worker: str, what: str, reason: str) -> None:
        severity = {"joined": "info", "left": "info", "answers": "info", "silent": "warning"}.get(
            what, "error"
        )
        with self._lock:
            if what == "joined":
                self._workers.pop(worker, None)
                _counts(self._workers, worker, time.monotonic())
        self.tell(f"worker {what}", severity, reason, worker=worker)

    # What the dispatcher tells.

    def session_begins(self, session: str, kind: str, what: str, earlier: str = "") -> None:
        """A training run, or an evaluation, begins, or goes on that had an earlier name."""
        with self._lock:
            self._begun[kind] += 1
            _counts(self._sessions, session, time.monotonic())
        if earlier:
            what = f"{what}; it was {earlier} before the dispatcher was started again"
        self.tell("session goes on" if earlier else "session begins", "info", what, session=session)

    def session_ends(self, last: SessionView, outcome: str, reason: str) -> None:
        """A session ends: how it was last, and how it ends (see `SessionEnd`)."""
        said, severity = SAID[outcome], "warning" if outcome in ("failed", "idle") else "info"
        with self._lock:
            text = f"{said}: {reason}" if reason else said
            number = self._tell("session ends", severity, text, "", last.name)
            end = SessionEnd(
                number=number, time=time.time(), outcome=outcome, reason=_short(reason), session=last
            )
            self._ends.append(to_message(end))

    def documents_arrived(self, number: int) -> None:
        """So many documents have arrived."""
        with self._lock:
            self._documents_arrived += number

    def tell(self, kind: str, severity: str, text: str, *, worker: str = "", session: str = "") -> None:
        """Keep an incident."""
        with self._lock:
            self._tell(kind, severity, text, worker, session)

    def _tell(self, kind: str, severity: str, text: str, worker: str, session: str) -> int:
        """Keep an incident, under the lock; return its number."""
        self._happened[kind] += 1
        self._number += 1
        event = Incident(self._number, time.time(), kind, severity, worker, session, _short(text))
        self._events.append((False, to_message(event)))
        return self._number

    # What is asked.

    def worker(self, name: str) -> Counts:
        """Return the counts of a worker."""
        with self._lock:
            return _counts(self._workers, name, time.monotonic())

    def session(self, name: str) -> Counts:
        """Return the counts of a session."""
        with self._lock:
            return _counts(self._sessions, name, time.monotonic())

    def totals(self) -> dict[str, Any]:
        """Return the arguments of `Totals` that are known here."""
        with self._lock:
            return {
                "jobs": {kernel: dict(outcomes) for kernel, outcomes in self._jobs.items()},
                "job_seconds": {phase: seconds.histogram() for phase, seconds in self._phases.items()},
                "round_seconds": {kernel: seconds.histogram() for kernel, seconds in self._rounds.items()},
                "documents": self._all.documents,
                "documents_arrived": self._documents_arrived,
                "bytes_sent": self._all.bytes_sent,
                "bytes_received": self._all.bytes_received,
                "sessions": dict(self._begun),
                "sessions_failed": self._happened["session failed"],
                "workers_joined": self._happened["worker joined"],
                "workers_lost": self._happened["worker lost"],
                "workers_expelled": self._happened["worker expelled"],
            }

    def latest(self) -> int:
        """Return the number of the latest event."""
        with self._lock:
            return self._number

    def events(self, cursor: int | None, last: int | None = None) -> dict[str, Any]:
        """Return what happened after a cursor, as a message has it.

        Parameters
        ----------
        cursor : int or None
            The number of the last event that is known; None for the latest ones.
        last : int, optional
            The number of the last event to tell of; by default the latest.
        """
        with self._lock:
            last = self._number if last is None else last
            all_ends = cursor is None
            oldest = self._number - len(self._events)  # the number before the first
            if cursor is None:
                cursor = max(last - EVENTS_A_SNAPSHOT, oldest)
            elif not 0 <= cursor <= last:
                cursor = oldest  # of a dispatcher before this one
            first = max(cursor, oldest)
            newest = islice(reversed(self._events), self._number - last, max(self._number - first, 0))
            new = list(newest)[::-1]
            told = new[:EVENTS_A_SNAPSHOT]
            after, upto = 0 if all_ends else first, first + len(told)
            ended = [end for end in self._ends if after < end["number"] <= upto]
        return {
            "jobs": [event for is_job, event in told if is_job],
            "incidents": [event for is_job, event in told if not is_job],
            "ended": ended,
            "cursor": upto,
            "missed": first - cursor,
            "more": len(told) < len(new),
        }


def _counts(table: OrderedDict[str, Counts], name: str, now: float) -> Counts:
    """Return what is counted under a name, a new one where there is none; forget who was long ago."""
    if name not in table:
        table[name] = Counts(now)
        if len(table) > COUNTED:
            table.popitem(last=False)
    table.move_to_end(name)
    return table[name]


def _seconds(record: JobRecord) -> float:
    """Return how long a job took from when it was handed out."""
    return record.queue_seconds + record.transfer_seconds + record.compute_seconds + record.sum_seconds


def _short(text: str) -> str:
    """Return what is told of a text: its end where it is too long."""
    return text if len(text) <= LONGEST_TEXT else f"... {text[4 - LONGEST_TEXT :]}"


def _few(blocks: Iterable[str]) -> str:
    blocks = list(blocks)
    return "; ".join(blocks[:3]) + ("; ..." if len(blocks) > 3 else "")

"""The last minutes of a cluster, made of the snapshots that were taken of it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Any

from distcorpus.monitor.snapshot import Snapshot, as_dict

#: Seconds of which everything is kept.
KEPT_SECONDS = 600.0
#: The most jobs and incidents that are kept, and workers that are told of, those that cannot be used first.
MOST_JOBS, MOST_INCIDENTS, MOST_WORKERS = 8_000, 500, 400
#: Sessions that have ended; evaluations are forgotten first.
MOST_ENDED = 20
#: The most samples; then every other one is dropped.
MOST_SAMPLES = 1_200

#: What a page is told of a job, in this order.
JOB_FIELDS = (
    *("worker", "session", "round", "kernel", "outcome", "documents", "began", "ended"),
    *("queue_seconds", "transfer_seconds", "compute_seconds", "sum_seconds", "bytes_sent", "bytes_received"),
)

_ENDED = JOB_FIELDS.index("ended")

#: States of workers that take jobs, now or soon.
USABLE = frozenset({"ready", "silent", "leaving", "connecting"})


class History:
    """Keeps what happened lately: jobs, incidents, and samples of what flows and what is kept.

    Parameters
    ----------
    seconds : float, default `KEPT_SECONDS`
    jobs : int, default `MOST_JOBS`
    """

    def __init__(self, seconds: float = KEPT_SECONDS, jobs: int = MOST_JOBS) -> None:
        self._seconds = seconds
        self._latest: Snapshot | None = None
        self._now: dict[str, Any] = {}
        self._jobs: deque[list[Any]] = deque(maxlen=jobs)
        self._incidents: deque[dict[str, Any]] = deque(maxlen=MOST_INCIDENTS)
        self._ended: list[dict[str, Any]] = []
        self._samples: deque[dict[str, Any]] = deque()

    @property
    def latest(self) -> Snapshot | None:
        """The latest snapshot."""
        return self._latest

    def add(self, snapshot: Snapshot) -> dict[str, Any]:
        """Take in a snapshot.

        Returns
        -------
        dict
            What is new, for JSON: ``now``, ``jobs``, ``incidents``, ``ended`` and ``sample`` (None where it
            is of the same moment as the one before), see `state`.
        """
        told = {end.session.name for end in snapshot.ended}
        open_ = tuple(session for session in snapshot.sessions if session.name not in told)
        snapshot = replace(snapshot, sessions=open_)
        ended = _ended(snapshot, self._latest)
        # One look may take several snapshots, if there are many events, or be the same as the one before.
        before = self._latest
        again = before is not None and (before.began, before.time) == (snapshot.began, snapshot.time)
        sample = None if again else _sample(snapshot, before)
        jobs = [[getattr(job, name) for name in JOB_FIELDS] for job in snapshot.jobs]
        incidents = as_dict(snapshot.incidents)
        self._latest = replace(snapshot, jobs=(), incidents=(), ended=())
        self._now = _now(self._latest)
        self._jobs.extend(jobs)
        self._incidents.extend(incidents)
        names = {one["name"] for one in ended}
        self._ended = [*(one for one in self._ended if one["name"] not in names), *ended]
        while len(self._ended) > MOST_ENDED:
            evaluations = (one for one in self._ended if one["kind"] == "evaluation")
            self._ended.remove(next(evaluations, self._ended[0]))
        if sample is not None:
            self._samples.append(sample)
        if len(self._samples) > MOST_SAMPLES:
            self._samples = deque(list(self._samples)[::2])
        oldest = snapshot.time - self._seconds
        while self._jobs and self._jobs[0][_ENDED] < oldest:
            self._jobs.popleft()
        while self._samples and self._samples[0]["time"] < oldest:
            self._samples.popleft()
        return {"now": self._now, "jobs": jobs, "incidents": incidents, "ended": ended, "sample": sample}

    def state(self) -> dict[str, Any]:
        """Return all that is kept, for JSON.

        Returns
        -------
        dict
            ``now``: the latest snapshot, with ``worker_states`` counted; ``job_fields``; ``jobs``: a list of
            values in that order for each; ``incidents``; ``ended``: the sessions that have, as they were
            last, with ``ended`` (when), ``outcome`` and ``reason`` (see `SessionEnd`; "unknown" where the
            dispatcher was killed, or does not tell); ``samples``: dicts with ``time``, the rates a second
            ``sent``, ``received``, ``documents`` and ``jobs``, and the amounts ``queued``, ``workers``,
            ``memory_dispatcher``, ``memory_documents``, ``memory_workers``.
        """
        return {
            "now": self._now,
            "job_fields": JOB_FIELDS,
            "jobs": list(self._jobs),
            "incidents": list(self._incidents),
            "ended": list(self._ended),
            "samples": list(self._samples),
        }


def _now(snapshot: Snapshot) -> dict[str, Any]:
    workers = sorted(snapshot.workers, key=lambda worker: (worker.state in USABLE, worker.name))
    told = replace(snapshot, workers=tuple(workers[:MOST_WORKERS]))
    states = Counter(worker.state for worker in workers)
    return {**as_dict(told), "worker_states": states}


def _ended(snapshot: Snapshot, before: Snapshot | None) -> list[dict[str, Any]]:
    """Return the sessions that have ended since the snapshot before, as they were last."""
    told = [
        {**as_dict(end.session), "ended": end.time, "outcome": end.outcome, "reason": end.reason}
        for end in snapshot.ended
    ]
    names = {session.name for session in snapshot.sessions} | {one["name"] for one in told}
    gone = [session for session in (before.sessions if before else ()) if session.name not in names]
    unknown = {"ended": snapshot.time, "outcome": "unknown", "reason": ""}
    return [{**as_dict(session), **unknown} for session in gone] + told


def _sample(snapshot: Snapshot, before: Snapshot | None) -> dict[str, Any]:
    """Return what flowed since the snapshot before, a second, and what there is now."""
    flows = dict.fromkeys(("sent", "received", "documents", "jobs"), 0.0)
    if before is not None and before.began == snapshot.began and snapshot.time > before.time:
        seconds = snapshot.time - before.time
        for name, value in _counts(snapshot).items():
            flows[name] = max(value - _counts(before)[name], 0) / seconds
    usable = [worker for worker in snapshot.workers if worker.state in USABLE]
    return {
        "time": snapshot.time,
        **flows,
        "queued": sum(session.chunks_queued for session in snapshot.sessions),
        "workers": len(usable),
        "memory_dispatcher": snapshot.bytes_resident or 0,
        "memory_documents": snapshot.bytes_documents,
        "memory_workers": sum(worker.bytes_resident or 0 for worker in usable),
    }


def _counts(snapshot: Snapshot) -> dict[str, int]:
    totals = snapshot.totals
    return {
        "sent": totals.bytes_sent,
        "received": totals.bytes_received,
        "documents": totals.documents,
        "jobs": sum(outcomes.get("accepted", 0) for outcomes in totals.jobs.values()),
    }

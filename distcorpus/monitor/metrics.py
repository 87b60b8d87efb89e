"""A snapshot as metrics for Prometheus (``pip install "distcorpus[metrics]"``).

Every metric is made from one snapshot, and nothing is remembered between two: the labels of a session that
has ended, or of a worker that is gone, are gone with it. docs/monitoring.md has all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from distcorpus.monitor.snapshot import BOUNDS, Histogram, SessionView, Snapshot, WorkerView

#: What a scrape's answer is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATES = "ready", "silent", "leaving", "connecting", "refused", "unreachable", "expelled", "stock"

#: Of each session: the name, what it says, and where a snapshot has it.
_OF_SESSIONS: tuple[tuple[str, str, Callable[[SessionView], float | None]], ...] = (
    ("progress_ratio", "How far it is, from 0 to 1", lambda one: one.progress),
    ("left_seconds", "About how long it will take still", lambda one: one.seconds_left),
    ("documents_per_second", "How fast it is, over the last minute", lambda one: one.rate),
    ("documents_done", "Documents computed, as often as they are", lambda one: one.documents_done),
    ("documents_arrived", "Documents that have arrived", lambda one: one.documents_arrived),
    ("queued_chunks", "Chunks of which something waits for a worker", lambda one: one.chunks_queued),
    ("jobs_under_way", "Jobs that are with workers", lambda one: one.jobs_under_way),
    ("updates", "M-steps of LDA so far", lambda one: one.updates),
    ("round", "The round under way", lambda one: one.round),
    ("error_ratio", "Estimated relative error of LSI's singular values", lambda one: one.error),
    ("perplexity", "Latest estimate of LDA's perplexity", lambda one: one.perplexity),
    ("memory_bytes", "Its documents in the dispatcher's memory", lambda one: one.bytes_memory),
    ("spooled_bytes", "Its documents on the dispatcher's disk", lambda one: one.bytes_spooled),
    ("sent_bytes", "Sent to workers for it", lambda one: one.bytes_sent),
    ("received_bytes", "Received from workers for it", lambda one: one.bytes_received),
    ("waits_for_worker", "1 where it has something to compute and nobody for it", lambda one: _waits(one)),
)
#: Of each worker that the dispatcher has.
_OF_WORKERS: tuple[tuple[str, str, Callable[[WorkerView], float | None]], ...] = (
    ("threads", "Threads that compute", lambda one: one.threads),
    ("busy_ratio", "Share of the last minute in which it computed", lambda one: one.busy),
    ("transfer_ratio", "Share in which something only travelled", lambda one: one.transfer),
    ("idle_ratio", "Share in which neither was so", lambda one: one.idle),
    ("memory_bytes", "Memory of its process", lambda one: one.bytes_resident),
    ("cached_bytes", "Documents and topics that it keeps", lambda one: one.bytes_cached),
    ("jobs_held", "Jobs that are with it", lambda one: one.jobs_held),
    ("job_age_seconds", "How long the job under way has been with it", lambda one: one.job_seconds),
    ("ping_seconds", "From the dispatcher to it and back", lambda one: one.ping_seconds),
    ("clock_offset_seconds", "Its clock less the dispatcher's", lambda one: one.clock_offset),
)


def as_text(snapshot: Snapshot | None) -> bytes:
    """Return the answer to a scrape.

    Parameters
    ----------
    snapshot : Snapshot or None
        None where no dispatcher answers: then ``distcorpus_up`` is 0 and nothing else is told.

    Raises
    ------
    ModuleNotFoundError
        prometheus-client is not installed; the message says how it is.
    """
    metrics = Metrics(lambda: snapshot)
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return bytes(generate_latest(registry))


class Metrics:
    """A collector for a `prometheus_client` registry.

    Parameters
    ----------
    latest : callable
        Returns the latest snapshot, or None.

    Raises
    ------
    ModuleNotFoundError
        prometheus-client is not installed.
    """

    def __init__(self, latest: Callable[[], Snapshot | None]) -> None:
        try:
            import prometheus_client.core as core
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'metrics need prometheus-client: pip install "distcorpus[metrics]"', name=error.name
            ) from None
        self._core: Any = core
        self._latest = latest

    def describe(self) -> list[Any]:
        """Say nothing of what there will be: that is known when there is a snapshot."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of the latest snapshot."""
        snapshot = self._latest()
        yield self._gauge("up", "1 where the dispatcher answers", 0.0 if snapshot is None else 1.0)
        if snapshot is not None:
            yield from self._of_dispatcher(snapshot)
            yield from self._of_totals(snapshot)
            yield from self._of_each("session", _OF_SESSIONS, snapshot.sessions, "kind")
            usable = [worker for worker in snapshot.workers if worker.threads is not None]
            yield from self._of_each("worker", _OF_WORKERS, usable)

    def _of_dispatcher(self, snapshot: Snapshot) -> Iterator[Any]:
        info = self._core.InfoMetricFamily("distcorpus_build", "What the dispatcher is made of")
        info.add_metric([], {"version": snapshot.version, "host": snapshot.host, **dict(snapshot.versions)})
        yield info
        started = "When the dispatcher began, in seconds since 1970"
        yield self._gauge("dispatcher_start_time_seconds", started, snapshot.began)
        for name, what, value in (
            ("dispatcher_memory_bytes", "Memory of the dispatcher's process", snapshot.bytes_resident),
            ("dispatcher_tables_bytes", "What sessions' tables take", snapshot.bytes_tables),
            ("dispatcher_documents_bytes", "Documents in its memory", snapshot.bytes_documents),
            ("dispatcher_limit_bytes", "What both may take (--total-memory)", snapshot.bytes_limit),
            ("spool_free_bytes", "Free where documents are spooled", snapshot.bytes_spool_free),
            ("certificate_expiry_time_seconds", "When its certificate does", snapshot.certificate_expires),
        ):
            if value is not None:
                yield self._gauge(name, what, value)
        states = Counter(dict.fromkeys(_STATES, 0))
        states.update(worker.state for worker in snapshot.workers)
        yield self._gauge("workers", "Workers by state", states, "state")
        kinds = Counter(dict.fromkeys(("lda", "lsi", "evaluation"), 0))
        kinds.update(session.kind for session in snapshot.sessions)
        yield self._gauge("sessions", "Models in training or open, by kind", kinds, "kind")
        queued = sum(session.chunks_queued for session in snapshot.sessions)
        yield self._gauge("queued_chunks", "Chunks of which something waits for a worker", queued)
        threads = sum(worker.threads or 0 for worker in snapshot.workers if worker.state == "ready")
        yield self._gauge("ready_threads", "Threads of the workers that are ready", threads)
        spooled = sum(session.bytes_spooled for session in snapshot.sessions)
        yield self._gauge("spooled_bytes", "Documents of sessions on disk", spooled)

    def _of_totals(self, snapshot: Snapshot) -> Iterator[Any]:
        totals = snapshot.totals
        jobs = self._core.CounterMetricFamily(
            "distcorpus_jobs", "Jobs that have ended, by kernel and outcome", labels=("kernel", "outcome")
        )
        for kernel, outcomes in totals.jobs.items():
            for outcome, number in outcomes.items():
                jobs.add_metric((kernel, outcome), number)
        yield jobs
        yield self._counter("documents", "Documents computed, as often as they are", totals.documents)
        yield self._counter("documents_arrived", "Documents that have arrived", totals.documents_arrived)
        traffic = {"sent": totals.bytes_sent, "received": totals.bytes_received}
        yield self._counter("traffic_bytes", "Between the dispatcher and workers", traffic, "direction")
        yield self._counter("sessions_begun", "By kind", totals.sessions, "kind")
        for name, what, number in (
            ("sessions_failed", "Sessions of which a round failed", totals.sessions_failed),
            ("blocks_repeated", "Blocks that went back into the queue", totals.blocks_repeated),
            ("jobs_copied", "Second copies of jobs that took too long", totals.jobs_copied),
            ("jobs_overtaken", "Those of them that came first", totals.jobs_overtaken),
            ("workers_joined", "Workers that joined", totals.workers_joined),
            ("workers_lost", "Workers that were lost", totals.workers_lost),
            ("workers_expelled", "Workers that gave false answers", totals.workers_expelled),
        ):
            yield self._counter(name, what, number)
        refused = totals.connections_refused
        yield self._counter("connections_refused", "Connections and calls, by reason", refused, "reason")
        phases = "Seconds of jobs, by where they went"
        yield self._histogram("job_seconds", phases, totals.job_seconds, "phase")
        yield self._histogram("round_seconds", "Seconds of rounds", totals.round_seconds, "kernel")

    def _of_each(self, what: str, metrics: Any, views: Any, *labels: str) -> Iterator[Any]:
        for name, said, value_of in metrics:
            family = self._core.GaugeMetricFamily(f"distcorpus_{what}_{name}", said, labels=(what, *labels))
            for view in views:
                value = value_of(view)
                if value is not None:
                    family.add_metric((view.name, *(getattr(view, label) for label in labels)), value)
            yield family

    def _gauge(self, name: str, what: str, value: float | Mapping[str, float], label: str = "") -> Any:
        return _filled(self._core.GaugeMetricFamily, name, what, value, label)

    def _counter(self, name: str, what: str, value: float | Mapping[str, float], label: str = "") -> Any:
        return _filled(self._core.CounterMetricFamily, name, what, value, label)

    def _histogram(self, name: str, what: str, values: Mapping[str, Histogram], label: str) -> Any:
        family = self._core.HistogramMetricFamily(f"distcorpus_{name}", what, labels=(label,))
        edges = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
        for key, histogram in values.items():
            buckets = list(zip(edges, accumulate(histogram.counts), strict=True))
            family.add_metric((key,), buckets, histogram.total)
        return family


def _filled(family: Any, name: str, what: str, value: float | Mapping[str, float], label: str) -> Any:
    made = family(f"distcorpus_{name}", what, labels=(label,) if label else ())
    for key, number in value.items() if isinstance(value, Mapping) else [("", value)]:
        made.add_metric((key,) if label else (), number)
    return made


def _waits(session: SessionView) -> float:
    return float(session.waits_for == "no worker")

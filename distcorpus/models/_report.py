"""Reports of training runs: data of the cluster and of this process, collected while they go on."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from distcorpus.engines.observer import EngineObserver, JobRecord, told
from distcorpus.kernels.build import this_build
from distcorpus.monitor.poller import Looking
from distcorpus.monitor.report import ReportData, write
from distcorpus.monitor.snapshot import FRESH
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.memory import resident_memory

logger = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY = 0.5
#: Points of a curve.
MOST_POINTS = 2000
#: What a model's settings are called, where it has them.
SETTINGS = (
    *("num_topics", "num_terms", "chunksize", "passes", "update_every", "update_chunks", "variant", "alpha"),
    *("eta", "decay", "offset", "eval_every", "iterations", "gamma_threshold", "minimum_probability"),
    *("random_state", "random_seed", "onepass", "power_iters", "extra_samples", "dtype"),
    *("distributed", "workers"),
)

_open: list[_Report] = []


class _Report(EngineObserver):
    """Collects, in a thread of its own, until it is written."""

    def __init__(self, title: str) -> None:
        self._data = ReportData(title, time.time(), this_build())
        self._lock = threading.Lock()
        self._clusters: dict[tuple[str, int], Looking] = {}
        self._latest: set[tuple[str, int]] = set()  # of which what was before has been seen
        self._cpu = time.process_time(), time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._began = time.time()
        self._thread.start()

    def job_ended(self, record: JobRecord) -> None:
        with self._lock:
            self._data.add_job(
                worker=record.worker,
                session=record.session,
                round=record.round,
                kernel=record.kernel,
                outcome=record.outcome,
                documents=record.documents,
                began=record.began,
                ended=time.time(),
                compute_seconds=record.compute_seconds,
            )

    def runs_on(self, host: str, port: int) -> None:
        """A model of this process trains on the cluster of that name server."""
        with self._lock:
            if (host, port) not in self._clusters:
                self._clusters[host, port] = Looking(NameServerLocation(host, port, broadcast=False))

    def begins(self, model: Any, what: str) -> dict[str, Any]:
        """A training begins; return where it is put down."""
        run = {
            "what": what,
            "class": type(model).__name__,
            "where": _where(model),
            "settings": _settings(model),
            "began": time.time(),
            "ended": None,
            "error": "",
            "documents": 0,
            "updates": 0,
            "rounds": 0,
            "curve": [],
        }
        with self._lock:
            self._data.runs.append(run)
        return run

    def finish(self) -> str:
        """Look once more, and return the page."""
        self._ending.set()
        self._thread.join()
        with self._lock:
            return self._data.page(time.time())

    # The thread.

    def _run(self) -> None:
        while not self._ending.wait(EVERY):
            self._look()
        if self._clusters:
            time.sleep(FRESH)  # for what happened since the latest snapshot that was made for anybody
        self._look()
        for looking in self._clusters.values():
            looking.close()

    def _look(self) -> None:
        cpu, then = time.process_time(), time.monotonic()
        with self._lock:
            cores = (cpu - self._cpu[0]) / max(then - self._cpu[1], 1e-9)
            self._cpu = cpu, then
            self._data.add_sample(time.time(), resident_memory(), cores)
            clusters = list(self._clusters.items())
        for where, looking in clusters:
            # A dispatcher that is gone, or lies, costs the report what it would have told; the training has
            # its own connection, and says so there.
            with suppress(ConnectionError, ValueError):
                for snapshot in looking.snapshots():
                    if where not in self._latest:
                        self._latest.add(where)
                        ours = snapshot.time - (time.time() - self._began)
                        snapshot = replace(
                            snapshot,
                            jobs=tuple(job for job in snapshot.jobs if job.ended >= ours),
                            incidents=tuple(event for event in snapshot.incidents if event.time >= ours),
                            ended=tuple(end for end in snapshot.ended if end.time >= ours),
                        )
                    with self._lock:
                        self._data.add_snapshot(snapshot)


@contextmanager
def performance_report(path: str | os.PathLike[str]) -> Iterator[None]:
    """Write a report that shows where the time of the training runs in a ``with`` block goes.

    Parameters
    ----------
    path : path
        An HTML file that needs no other files. It has the settings and results of each training run of this
        process, the versions, a timeline of jobs, and over time the traffic and memory of our cluster, or the
        memory and cores of this process. It is written when the block ends, also by an error. It also shows
        other training runs on the same cluster in that time. For a Dask cluster it has settings and results;
        `distributed.performance_report` has the rest.

    Raises
    ------
    ValueError
        It names no file, or one in a directory that is not there or cannot be written to.
    OSError
        It cannot be written.

    Examples
    --------
    >>> from distcorpus import LdaModel, performance_report
    >>> with performance_report("run.html"):  # doctest: +SKIP
    ...     model = LdaModel(corpus, id2word=dictionary, distributed=True)
    """
    from distcorpus.models._check import path as check_path

    target = check_path("path", path)
    with _collecting(os.path.basename(target)) as report:
        try:
            yield
        finally:
            page = report.finish()
            write(target, page)


@contextmanager
def of_model(model: Any) -> Iterator[None]:
    """Write the report that a model was asked for, if it was; the training is not lost where that fails."""
    target = getattr(model, "report", None)
    if target is None:
        yield
        return
    with _collecting(os.path.basename(target)) as report:
        try:
            yield
        finally:
            page = report.finish()
            try:
                write(target, page)
            except OSError as error:
                logger.error("the report %s cannot be written: %s", target, error)


@contextmanager
def following(model: Any, what: str) -> Iterator[list[Callable[[dict[str, Any]], None]]]:
    """Put a training down in all reports that are being made; return whom to tell of its events."""
    runs = [report.begins(model, what) for report in _open]
    try:
        yield [lambda event, run=run: _happened(run, event) for run in runs]  # type: ignore[misc]
    except BaseException as error:
        for run in runs:
            run["error"] = f"{type(error).__name__}: {error}".removesuffix(": ")[:2000]
        raise
    finally:
        for run in runs:
            run["ended"] = time.time()


def is_reported() -> bool:
    """Return whether a report is being made of what this process trains."""
    return bool(_open)


def runs_on(host: str, port: int) -> None:
    """A model of this process has found its cluster: reports look at it, too."""
    for report in list(_open):
        report.runs_on(host, port)


@contextmanager
def _collecting(title: str) -> Iterator[_Report]:
    report = _Report(title)
    _open.append(report)
    try:
        with told(report):
            yield report
    finally:
        _open.remove(report)


def _happened(run: dict[str, Any], event: dict[str, Any]) -> None:
    """Put down what happened in a training."""
    if event["kind"] == "update":
        run["documents"] = event["pass_"] * (event["of"] or 0) + event["documents"]
        run["updates"] = event.get("updates", 0)
    elif event["kind"] == "round":
        run["rounds"] = event["rounds"]
    elif event["kind"] == "perplexity":
        run["curve"].append([run["documents"], float(np.exp2(-event["per_word"]))])
        if len(run["curve"]) > MOST_POINTS:
            del run["curve"][::2]


def _where(model: Any) -> str:
    if getattr(model, "client", None) is not None:
        return "a Dask cluster"
    return "a cluster" if getattr(model, "dispatcher", None) is not None else "threads of this process"


def _settings(model: Any) -> dict[str, str]:
    """Return a model's arguments in words, none of its data."""
    found = {}
    for name in SETTINGS:
        value = getattr(model, name, None)
        if isinstance(value, np.ndarray):
            value = _of_array(value)
        elif isinstance(value, np.random.RandomState) or value is None:
            continue
        elif isinstance(value, type):
            value = np.dtype(value).name
        found[name] = str(value)[:200]
    return found


def _of_array(values: np.ndarray) -> str:
    if values.size and (values == values.flat[0]).all():
        return f"{values.flat[0]:.6g}, of shape {values.shape}"
    return f"{values.min():.6g} to {values.max():.6g}, of shape {values.shape}" if values.size else "none"

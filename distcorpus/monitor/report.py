"""A report of what was computed: one HTML file, with all that it shows and draws within it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from distcorpus.monitor.history import JOB_FIELDS, MOST_SAMPLES, MOST_WORKERS, History
from distcorpus.monitor.snapshot import Snapshot, WorkerView, as_dict

STATIC = Path(__file__).parent / "static"
#: The most jobs that a report shows of this process, and of a cluster.
MOST_JOBS = 40_000
#: The state of a worker that there was earlier.
GONE = "gone"
#: In the order in which they are run.
SCRIPTS = "theme.js", "draw.js", "charts.js", "views.js", "report.js"


class ReportData:
    """What a report is made of.

    Parameters
    ----------
    title : str
    began : float
        In seconds since 1970.
    versions : dict of str to str
    """

    def __init__(self, title: str, began: float, versions: dict[str, str]) -> None:
        self._title = title
        self._began = began
        self._versions = versions
        self._history = History(seconds=float("inf"), jobs=MOST_JOBS)
        self._workers: dict[str, WorkerView] = {}
        self._own_jobs: list[list[Any]] = []
        self._own_samples: list[dict[str, Any]] = []
        self._jobs = 0
        self.runs: list[dict[str, Any]] = []

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Take in a look at the cluster."""
        self._jobs += len(snapshot.jobs)
        self._history.add(snapshot)
        for worker in snapshot.workers:
            if worker.name in self._workers or len(self._workers) < MOST_WORKERS:
                self._workers[worker.name] = worker

    def add_job(self, **values: Any) -> None:
        """Take in a job of this process; see `monitor.history.JOB_FIELDS`, what is left out is 0."""
        self._jobs += 1
        if len(self._own_jobs) < MOST_JOBS:
            self._own_jobs.append([values.get(name, 0) for name in JOB_FIELDS])

    def add_sample(self, time: float, memory: int, cores: float) -> None:
        """Take in what this process takes: memory in bytes, and the cores that it keeps busy."""
        self._own_samples.append({"time": time, "memory": memory, "cores": cores})
        if len(self._own_samples) > MOST_SAMPLES:
            del self._own_samples[::2]

    def page(self, ended: float) -> str:
        """Return the report as HTML."""
        state = self._history.state()
        if state["now"]:
            state["now"] = {**state["now"], **self._all_workers()}
        jobs = self._own_jobs + state["jobs"]
        data = {
            "title": self._title,
            "began": self._began,
            "until": ended,
            "versions": self._versions,
            "runs": self.runs,
            "own_samples": self._own_samples,
            "jobs_not_shown": self._jobs - len(jobs),
            **state,
            **_indexed(jobs),
        }
        return _page(self._title, data)

    def _all_workers(self) -> dict[str, Any]:
        """Return the workers that there were at any time, as they were last, and how many in which state."""
        latest = self._history.latest
        there = {worker.name for worker in latest.workers} if latest is not None else set()
        workers = [
            as_dict(worker) if name in there else {**as_dict(worker), "state": GONE, "job": ""}
            for name, worker in self._workers.items()
        ]
        states = Counter(worker["state"] for worker in workers)
        return {"workers": workers, "worker_states": states}


def write(path: str, page: str) -> None:
    """Write a report, whole or not at all.

    Raises
    ------
    OSError
        It cannot be written.
    """
    folder = os.path.dirname(path) or "."
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".html.part")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(page)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _page(title: str, data: dict[str, Any]) -> str:
    style = (STATIC / "style.css").read_text("utf-8")
    scripts = [(STATIC / name).read_text("utf-8") for name in SCRIPTS]
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src "
        + " ".join(f"'{_digest(script)}'" for script in scripts)
        + "; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    # Nothing in it may end the element that it is in, or begin another.
    inside = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{style}</style>",
            '</head>\n<body>\n<div id="page"></div>\n<div id="tip" role="status" hidden></div>',
            f'<script type="application/json" id="data">{inside}</script>',
            *(f"<script>{script}</script>" for script in scripts),
            "</body>\n</html>\n",
        ]
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _indexed(jobs: list[list[Any]]) -> dict[str, Any]:
    """Return jobs with each name once, and numbers no longer than they say something."""
    names: dict[Any, int] = {}
    rows = []
    for job in jobs:
        row: list[Any] = []
        for field, value in zip(JOB_FIELDS, job, strict=True):
            if isinstance(value, str):
                value = names.setdefault(value, len(names))
            elif field in ("began", "ended"):
                value = round(value, 4)
            elif isinstance(value, float):
                value = round(value, 6)
            row.append(value)
        rows.append(row)
    return {"jobs": rows, "names": list(names)}

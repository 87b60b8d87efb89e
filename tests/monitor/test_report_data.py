"""What a report keeps of a cluster that is gone when it is written."""

from __future__ import annotations

from pathlib import Path

from distcorpus.monitor.report import ReportData, write
from distcorpus.monitor.snapshot import Snapshot, WorkerView
from tests.models.test_report import read


def test_workers_that_have_left_are_in_it(tmp_path: Path):
    report = ReportData("run", 1.0, {})
    workers = tuple(
        WorkerView(name=f"w{number}", state="ready", jobs=5, job="lda-1, round 2") for number in (1, 2)
    )
    snapshot = Snapshot(schema=1, time=2.0, version="1", host="h", pid=1, began=1.0, workers=workers)
    report.add_snapshot(snapshot)
    report.add_snapshot(
        Snapshot(schema=1, time=3.0, version="1", host="h", pid=1, began=1.0, workers=workers[:1])
    )
    write(str(tmp_path / "run.html"), report.page(4.0))
    now = read(tmp_path / "run.html")["now"]
    assert [(one["name"], one["state"], one["jobs"], one["job"]) for one in now["workers"]] == [
        ("w1", "ready", 5, "lda-1, round 2"),
        ("w2", "gone", 5, ""),
    ]
    assert now["worker_states"] == {"ready": 1, "gone": 1}

"""The screen of `distcorpus status`."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from distcorpus.cli.status import screen
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SCHEMA, SessionView, Snapshot, WorkerView

SESSION = SessionView(
    name="lda-61f2ed-1",
    kind="lda",
    topics=100,
    terms=50_000,
    host="node-17.compute.example.org",
    pid=123_456,
    pass_=1,
    passes=3,
    waits_for="update 12 of 30",
    progress=0.4,
    rate=12_345.6,
    seconds_left=290.0,
    chunks_queued=3,
    max_queued=10,
    perplexity=1234.5,
)


def worker(number: int, **given: Any) -> WorkerView:
    return WorkerView(
        **{
            "name": f"node-{number}.compute.example.org-123456",
            "host": f"node-{number}.compute.example.org",
            "pid": 123_456,
            "threads": 16,
            "state": "ready",
            "busy": 0.9,
            "jobs": 12_345,
            "jobs_lost": 3,
            "job": "lda-61f2ed-1",
            "job_seconds": 3.0,
            "bytes_resident": 3_000_000_000,
            **given,
        }
    )


def shown(width: int, *workers: WorkerView, session: SessionView = SESSION) -> str:
    snapshot = Snapshot(
        schema=SCHEMA,
        time=100.0,
        version="1",
        host="h",
        pid=1,
        began=1.0,
        sessions=(session,),
        workers=workers,
    )
    console = Console(width=width, file=io.StringIO())
    console.print(screen(snapshot, width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    return "\n".join(lines)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_where_a_session_stands_is_whole(width: int):
    said = shown(width, worker(1))
    assert text.stage(SESSION) in said
    whole = " ".join(said.split())
    parts = "lda-61f2ed-1", text.model(SESSION), text.owner(SESSION), "40 %", "12,346", "4 min 50 s", "3/10"
    for part in parts:
        assert part in whole
    assert "…" not in said


def test_a_wide_terminal_has_a_table_of_sessions():
    assert "stands at" in shown(250, worker(1))
    assert "stands at" not in shown(100, worker(1))


@pytest.mark.parametrize("width", [80, 100])
def test_workers_with_long_names(width: int):
    said = shown(width, worker(1), worker(2, state="silent"))
    for part in ("node-1.compute.example.org-123456", "ready", "silent", "90 %", "12,345; 3 lost", "threads"):
        assert part in said
    assert "…" not in said
    assert shown(width, worker(1, name="ü" * 120)).count("ü") == 120


def test_all_of_a_worker_where_there_is_room():
    said = shown(250, worker(1))
    for column in ("host", "pid", "busy", "transfer", "idle", "memory", "cache", "ping", "jobs"):
        assert column in said

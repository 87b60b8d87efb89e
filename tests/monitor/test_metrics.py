"""A snapshot as Prometheus reads it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distcorpus.monitor.metrics import as_text
from distcorpus.monitor.snapshot import BOUNDS, Histogram, SessionView, Snapshot, Totals, WorkerView

ROOT = Path(__file__).parents[2]
SNAPSHOT = Snapshot(
    schema=1,
    time=2000.0,
    version="1.2",
    host="alpha",
    pid=7,
    began=1000.0,
    versions={"numpy": "2.1"},
    certificate_expires=3000.0,
    bytes_resident=5,
    bytes_spool_free=9,
    sessions=(
        SessionView(
            name="lda-1",
            kind="lda",
            progress=0.5,
            seconds_left=9.0,
            perplexity=90.0,
            chunks_queued=3,
            waits_for="no worker",
            updates=4,
        ),
        SessionView(name='lsi-"\n2', kind="lsi", error=1e-3, round=2),
    ),
    workers=(
        WorkerView(
            name="w1",
            state="ready",
            threads=4,
            busy=0.25,
            transfer=0.25,
            idle=0.5,
            bytes_resident=9,
            clock_offset=0.1,
        ),
        WorkerView(name="w2", state="unreachable", reason="no answer"),
    ),
    totals=Totals(
        jobs={"lda": {"accepted": 3, "lost": 1}},
        job_seconds={"compute": Histogram(counts=(1, 2, *(0,) * (len(BOUNDS) - 2), 1), total=500.0)},
        round_seconds={"lda": Histogram(counts=(0, 1, *(0,) * (len(BOUNDS) - 1)), total=0.002)},
        documents=10,
        bytes_sent=100,
        bytes_received=200,
        sessions={"lda": 2},
        connections_refused={"no TLS": 2},
    ),
)


def scraped(snapshot: Snapshot | None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample's value by its name and labels."""
    samples = {}
    for family in text_string_to_metric_families(as_text(snapshot).decode()):
        assert family.documentation
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples
            samples[key] = sample.value
    return samples


def value(samples: Any, name: str, **labels: str) -> float:
    return samples[f"distcorpus_{name}", frozenset(labels.items())]


def test_a_scrape_has_what_the_snapshot_has():
    found = scraped(SNAPSHOT)
    assert value(found, "up") == 1
    assert value(found, "build_info", version="1.2", host="alpha", numpy="2.1") == 1
    assert value(found, "dispatcher_start_time_seconds") == 1000
    assert value(found, "certificate_expiry_time_seconds") == 3000
    assert value(found, "workers", state="ready") == value(found, "workers", state="unreachable") == 1
    assert value(found, "workers", state="expelled") == 0
    assert value(found, "sessions", kind="lsi") == 1
    assert value(found, "queued_chunks") == 3
    assert value(found, "ready_threads") == 4
    assert value(found, "jobs_total", kernel="lda", outcome="lost") == 1
    assert value(found, "traffic_bytes_total", direction="received") == 200
    assert value(found, "connections_refused_total", reason="no TLS") == 2
    assert value(found, "session_progress_ratio", session="lda-1", kind="lda") == 0.5
    assert value(found, "session_waits_for_worker", session="lda-1", kind="lda") == 1
    assert value(found, "session_error_ratio", session='lsi-"\n2', kind="lsi") == 1e-3
    assert value(found, "worker_busy_ratio", worker="w1") == 0.25
    assert not any(("worker", "w2") in labels for _, labels in found)
    # Buckets are sums of all that is not longer.
    assert value(found, "job_seconds_bucket", phase="compute", le="0.001") == 1
    assert value(found, "job_seconds_bucket", phase="compute", le="1000") == 3
    assert value(found, "job_seconds_bucket", phase="compute", le="+Inf") == 4
    assert value(found, "job_seconds_count", phase="compute") == 4
    assert value(found, "job_seconds_sum", phase="compute") == 500


def test_labels_of_what_is_gone_are_gone():
    left = scraped(replace(SNAPSHOT, sessions=SNAPSHOT.sessions[1:], workers=()))
    assert not any({("session", "lda-1"), ("worker", "w1")} & labels for _, labels in left)
    assert value(left, "sessions", kind="lda") == 0


def test_without_a_dispatcher_that_is_all_that_is_told():
    assert scraped(None) == {("distcorpus_up", frozenset()): 0}


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "distcorpus\[metrics\]"'):
        as_text(SNAPSHOT)


def names_in_a_scrape() -> set[str]:
    families = text_string_to_metric_families(as_text(SNAPSHOT).decode())
    return {family.name for family in families}


def test_every_metric_is_documented():
    documented = set(re.findall(r"`distcorpus_(\w+)`", (ROOT / "docs" / "monitoring.md").read_text("utf-8")))
    told = {name.removesuffix("_total") for name in documented}  # as the parser names the families
    assert {name.removeprefix("distcorpus_") for name in names_in_a_scrape()} == told


def test_the_board_asks_for_what_there_is():
    board = json.loads((ROOT / "deploy" / "grafana" / "distcorpus.json").read_text("utf-8"))
    asked = set()
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            asked |= set(re.findall(r"distcorpus_\w+", target["expr"]))
    there = {name for name, _ in scraped(SNAPSHOT)}
    assert asked
    assert asked <= there

"""What has happened is counted, and told to whoever asks where he stopped."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distcorpus.dispatcher import watching
from distcorpus.dispatcher.watching import LATELY, Counts, Recent, Watch
from distcorpus.engines.observer import JobRecord
from distcorpus.monitor.snapshot import (
    BOUNDS,
    ENDS_KEPT,
    EVENTS_A_SNAPSHOT,
    LONGEST_TEXT,
    SessionEnd,
    SessionView,
    Totals,
    from_message,
    to_message,
)

times = st.floats(1e6, 1e6 + 200)


@example([(1000200.0, 5e-32, 1.0)])
@given(st.lists(st.tuples(times, st.floats(0, 50), st.floats(0, 10)), max_size=20))
def test_amounts_fall_where_they_fell(spans: list[tuple[float, float, float]]):
    recent = Recent()
    for began, seconds, amount in spans:
        recent.add(began, began + seconds, amount)
    now = 1e6 + 260
    first = int(now) - LATELY
    expected = sum(
        amount * max(0.0, ended - max(began, first)) / (ended - began)
        if ended > began  # as floats: a time may be too short to be one
        else amount * (int(began) >= first)
        for began, ended, amount in ((began, began + seconds, amount) for began, seconds, amount in spans)
    )
    assert recent.total(now) == pytest.approx(expected, abs=1e-6)


def record(**changes: object) -> JobRecord:
    about: dict = {
        "session": "s",
        "round": 1,
        "kernel": "lda",
        "worker": "w",
        "blocks": ("chunk 0, documents 0-9",),
        "documents": 10,
        "began": 0.0,
        "compute_seconds": 0.02,
        "transfer_seconds": 0.002,
        "bytes_sent": 5,
        "bytes_received": 7,
    }
    return JobRecord(**{**about, **changes})


def test_shares_are_of_the_time_since_it_is_there():
    counts = Counts(since=1000.0)
    counts.add(record(began=1002.0, compute_seconds=2.0, transfer_seconds=3.0), now=1004.0)
    busy, transfer, idle = counts.shares(1010.0)
    assert (busy, transfer, idle) == pytest.approx((0.2, 0.3, 0.5))
    assert counts.rate(1010.0) == pytest.approx(1.0)
    assert counts.shares(1010.0 + 2 * LATELY) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_clock_that_is_set_changes_no_share_and_no_rate(monkeypatch: pytest.MonkeyPatch, step: float):
    watch = Watch()
    watch.job_ended(record(began=time.time()))
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() + step)
    watch.job_ended(record(began=time.time()))
    counts, now = watch.worker("w"), time.monotonic()
    assert counts.computed.total(now) == pytest.approx(20)
    assert counts.computing.total(now) == pytest.approx(0.04)
    assert 0 < now - counts.since < 60
    assert counts.rate(now + 2 * LATELY) == 0
    assert counts.shares(now + 2 * LATELY) == (0.0, 0.0, 1.0)


def test_totals_count_every_job_by_what_came_of_it():
    watch = Watch()
    for outcome in ("accepted", "accepted", "discarded", "failed", "lost"):
        watch.job_ended(record(outcome=outcome))
    watch.round_ended("s", "lda", 0.5, None)
    watch.round_ended("s", "lda", 0.5, RuntimeError("no"))
    watch.worker_changed("w", "joined", "")
    watch.worker_changed("w", "lost", "its process ended")
    totals = Totals(**watch.totals())
    assert totals.jobs == {"lda": {"accepted": 2, "discarded": 1, "failed": 1, "lost": 1}}
    assert (totals.documents, totals.bytes_sent, totals.bytes_received) == (20, 25, 35)
    compute = totals.job_seconds["compute"]
    assert compute.counts[BOUNDS.index(0.03)] == sum(compute.counts) == 3
    assert compute.total == pytest.approx(0.06)
    assert sum(totals.round_seconds["lda"].counts) == 1
    assert (totals.sessions_failed, totals.workers_joined, totals.workers_lost) == (1, 1, 1)
    assert (watch.worker("w").jobs, watch.session("s").lost) == (0, 1)  # the worker has joined anew


def test_a_cursor_leads_from_one_look_to_the_next(monkeypatch: pytest.MonkeyPatch):
    watch = Watch()
    for _ in range(3):
        watch.job_ended(record())
    watch.tell("session begins", "info", "x" * 2 * LONGEST_TEXT, session="s")
    told = watch.events(None)
    assert [event[0] for event in told["jobs"]] == [1, 2, 3]
    assert [(event[0], len(event[-1])) for event in told["incidents"]] == [(4, LONGEST_TEXT)]
    assert (told["cursor"], told["missed"], told["more"]) == (4, 0, False)
    nothing = {"jobs": [], "incidents": [], "ended": []}
    assert watch.events(4) == {**nothing, "cursor": 4, "missed": 0, "more": False}
    watch.job_ended(record())
    assert [event[0] for event in watch.events(4)["jobs"]] == [5]
    # A cursor of another dispatcher, or none that could be one: all that there is.
    assert len(watch.events(99)["jobs"]) == len(watch.events(-1)["jobs"]) == 4
    for _ in range(EVENTS_A_SNAPSHOT):
        watch.job_ended(record())
    first = watch.events(0)
    assert (first["cursor"], first["more"]) == (EVENTS_A_SNAPSHOT, True)
    rest = watch.events(first["cursor"])
    assert (len(rest["jobs"]), rest["more"]) == (5, False)


def test_it_is_told_how_sessions_ended():
    watch = Watch()
    view = SessionView(name="lda-1", kind="lda", documents_done=6000)
    watch.session_ends(view, "failed", "y" * 2 * LONGEST_TEXT)
    watch.job_ended(record())
    told = watch.events(0)
    (end,) = [from_message(SessionEnd, message) for message in told["ended"]]
    assert (end.number, end.outcome, len(end.reason), end.session) == (1, "failed", LONGEST_TEXT, view)
    ((number, _, kind, severity, _, session, text),) = told["incidents"]
    assert (number, kind, severity, session) == (1, "session ends", "warning", "lda-1")
    assert text.endswith("y")
    assert watch.events(1)["ended"] == []
    for number in range(2 * ENDS_KEPT):
        watch.session_ends(replace(view, name=f"lsi-{number}"), "finished", "")
    assert len(watch.events(1)["ended"]) == ENDS_KEPT
    for _ in range(EVENTS_A_SNAPSHOT):
        watch.job_ended(record())
    # Who asks for the first time is told of all of them, however many jobs there were since.
    assert [end["session"]["name"] for end in watch.events(None)["ended"]] == [
        f"lsi-{number}" for number in range(ENDS_KEPT, 2 * ENDS_KEPT)
    ]


def test_a_session_that_goes_on_is_told_of_with_its_earlier_name():
    watch = Watch()
    watch.session_begins("lda-2", "lda", "of a program on h", "lda-1")
    ((*_, kind, _, _, session, text),) = watch.events(0)["incidents"]
    assert (kind, session) == ("session goes on", "lda-2")
    assert text == "of a program on h; it was lda-1 before the dispatcher was started again"


def test_what_is_forgotten_is_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "EVENTS_KEPT", 3)
    watch = Watch()
    for _ in range(10):
        watch.job_ended(record())
    told = watch.events(2)
    assert ([event[0] for event in told["jobs"]], told["missed"]) == ([8, 9, 10], 5)


def test_counts_of_who_is_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watching, "COUNTED", 2)
    watch = Watch()
    for name in "abcd":
        watch.job_ended(record(worker=name))
    assert watch.worker("d").jobs == 1
    assert watch.worker("a").jobs == 0
    assert to_message(Totals(**watch.totals()))["jobs"] == {"lda": {"accepted": 4}}

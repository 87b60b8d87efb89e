"""Figures and sentences for people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SessionView


@pytest.mark.parametrize(
    ("nbytes", "said"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234567, "1.23 MB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (4e18, "4,000 PB"),
    ],
)
def test_sizes(nbytes: float | None, said: str):
    assert text.size(nbytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.0, "0.0 s"),
        (0.0012, "1.2 ms"),
        (0.0996, "0.1 s"),
        (3.21, "3.2 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (320, "5 min 20 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86_400 * 3 + 3600 * 4, "3 d 4 h"),
    ],
)
def test_durations(seconds: float | None, said: str):
    assert text.duration(seconds) == said


def test_a_share_is_not_100_before_it_is():
    assert [text.share(part) for part in (0.0, 0.29, 0.9999, 1.0, None)] == [
        "0 %",
        "29 %",
        "99 %",
        "100 %",
        "-",
    ]


def test_where_a_session_stands():
    session = SessionView(
        name="lda-1",
        kind="lda",
        topics=1,
        terms=5000,
        host="alpha",
        pid=17,
        pass_=1,
        passes=3,
        waits_for="update 12 of 30",
        phase="computing",
        documents_to_do=60_000,
        progress=0.4,
        rate=1234.5,
        seconds_left=29.0,
        jobs_under_way=1,
        chunks_queued=3,
        max_queued=10,
    )
    assert text.model(session) == "LDA, 1 topic, 5,000 terms"
    assert text.owner(session) == "alpha, pid 17"
    assert text.progress(session) == (
        "session lda-1: pass 2 of 3, update 12 of 30; 40 % of 60,000 documents; 1,234 documents a second; "
        "about 29 s left; 1 job with workers, 3 of 10 chunks queued"
    )
    lost = SessionView(name="lsi-1", kind="lsi", waits_for="no worker", documents_arrived=7)
    assert text.stage(lost) == "waits for a worker: there is none, 7 documents have arrived"


def test_one_document_has_arrived():
    one = SessionView(name="lsi-1", kind="lsi", documents_arrived=1)
    assert text.stage(one) == "1 document has arrived"
    assert text.stage(replace(one, documents_expected=1)) == "1 of 1 document has arrived"

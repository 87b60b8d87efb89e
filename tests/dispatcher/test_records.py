"""What jobs cost is made into an answer once for all who ask, and written once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from distcorpus.dispatcher import records
from distcorpus.dispatcher.records import Records, as_message
from distcorpus.engines.observer import JobRecord
from distcorpus.wire import Daemon, Written, close, connect, expose

RECORD = JobRecord("s", 1, "lda", "w", ("chunk 0",), 10, 1.5, bytes_sent=7)


def test_a_record_travels_as_its_fields():
    assert as_message(RECORD) == asdict(RECORD)


def test_an_answer_will_do_for_all_who_ask(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def of(session: str) -> list[JobRecord]:
        asked.append(session)
        return [RECORD]

    told = Records(of)
    monkeypatch.setattr(records, "FRESH", 1e9)
    assert told.answer("s") is told.answer("s")
    told.answer("t")
    assert asked == ["s", "t"]
    for number in range(records.KEPT):
        told.answer(f"further {number}")
    told.answer("s")  # which was forgotten
    assert asked[-1] == "s"
    monkeypatch.setattr(records, "FRESH", 0.0)
    assert told.answer("s").value == [asdict(RECORD)]
    assert asked[-2:] == ["s", "s"]


def test_making_answers_takes_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    slept = []
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(records.time, "sleep", slept.append)

    def of(session: str) -> list[JobRecord]:
        now[0] += 1.0
        return []

    told = Records(of)
    told.answer("s")
    told.answer("t")
    assert slept == [0.0, pytest.approx(1.0 / records.SHARE)]


def test_each_serializer_writes_an_answer_once():
    answer = Written([1, "a"])
    written = []

    def write(value: Any) -> bytes:
        written.append(value)
        return b"written"

    assert [answer.by(number, write) for number in (4, 4, 64, 4)] == [b"written"] * 4
    assert written == [[1, "a"]] * 2


@pytest.mark.parametrize("serializer", ["frames", "pickle"])
def test_an_answer_arrives_as_often_as_it_is_asked_for(serializer: str):
    class Server:
        answer = Written([as_message(RECORD), np.arange(5000)])

        @expose
        def ask(self) -> Any:
            return self.answer

    daemon = Daemon()
    uri = daemon.serve("server", Server())
    daemon.start()
    proxy = connect(uri, serializer=serializer)
    for _ in range(3):
        record, array = proxy.ask()
        assert record == asdict(RECORD)
        assert array.tolist() == list(range(5000))
    close(proxy)
    daemon.stop(grace=0.1)

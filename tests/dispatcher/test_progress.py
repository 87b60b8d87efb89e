"""What a dispatcher with `-v` logs of its sessions every ten seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distcorpus.dispatcher import dispatcher as module
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.engines.pyro import PyroEngine
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SessionView

from ..cluster.conftest import wait_until

SESSION = SessionView(name="lda-1", kind="lda", phase="computing", waits_for="update 2 of 3")


class Looked:
    """Stands for the dispatcher's looks at its sessions."""

    def __init__(self) -> None:
        self.views = [SESSION]
        self.times = 0
        self.fails = False

    def session_views(self) -> list[SessionView]:
        self.times += 1
        if self.fails:
            self.fails = False
            raise KeyError("what was never there")
        return self.views


def test_the_thread_logs_a_line_for_each_session_that_moves(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level("INFO", module.__name__)
    monkeypatch.setattr(module, "PROGRESS_EVERY", 0.005)
    dispatcher, looked = Dispatcher(PyroEngine(dict)), Looked()
    monkeypatch.setattr(dispatcher, "_looks", looked)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == module.__name__]

    dispatcher.start()
    try:
        wait_until(lambda: looked.times > 3, "some looks")
        assert lines() == [text.progress(SESSION)]  # it stands still, and is told of once
        moved = replace(SESSION, waits_for="update 3 of 3")
        looked.views = [moved]
        wait_until(lambda: lines()[-1] == text.progress(moved), "the next line")
        looked.fails = True
        looked.views = [SESSION]
        wait_until(lambda: lines()[-1] == text.progress(SESSION), "a line after an error")
    finally:
        dispatcher.ending.set()


def test_without_v_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", module.__name__)
    started: list[str] = []
    monkeypatch.setattr(module.threading.Thread, "start", lambda thread: started.append(thread.name))
    Dispatcher(PyroEngine(dict)).start()
    assert "progress" not in started

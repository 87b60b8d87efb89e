"""How a session ended, as its connection tells those who watch."""

from __future__ import annotations

from typing import Any

import pytest

from distcorpus.dispatcher.connection import Connection
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.engines.pyro import PyroEngine
from distcorpus.training.standing import Standing


class Standstill:
    """A session that stands where it is told to."""

    name = "lda-1"

    def __init__(self, is_kept: bool = False, **standing: Any) -> None:
        self.is_kept = is_kept
        self._standing = standing

    def standing(self) -> Standing:
        return Standing(**self._standing)


@pytest.fixture
def connection() -> Connection:
    return Connection(Dispatcher(PyroEngine(dict)))


def test_it_has_its_result_or_not(connection: Connection):
    for standing, outcome in (
        ({"done": True}, ("finished", "")),
        ({"answered": True}, ("finished", "")),
        ({}, ("interrupted", "")),
        ({"failure": "no space"}, ("failed", "no space")),
        ({"failure": "no space", "done": True}, ("finished", "")),
    ):
        assert connection._outcome(Standstill(**standing)) == outcome  # type: ignore[arg-type]


def test_its_latest_round_failed(connection: Connection):
    watch = connection._dispatcher.watch
    watch.round_ended("lda-1", "lda", 1.0, RuntimeError("round 2: no worker could compute it"))
    assert connection._outcome(Standstill()) == ("failed", "round 2: no worker could compute it")  # type: ignore[arg-type]
    watch.round_ended("lda-1", "lda", 1.0, None)
    assert connection._outcome(Standstill()) == ("interrupted", "")  # type: ignore[arg-type]


def test_its_dispatcher_ends(connection: Connection):
    connection._dispatcher.drain()
    failing = {"failure": "the dispatcher was told to end"}
    assert connection._outcome(Standstill(is_kept=True, **failing)) == ("stopped", "")  # type: ignore[arg-type]
    connection._dispatcher.keeps_sessions = True
    assert connection._outcome(Standstill(is_kept=True)) == ("kept", "")  # type: ignore[arg-type]
    assert connection._outcome(Standstill()) == ("stopped", "")  # type: ignore[arg-type]


def test_its_program_was_idle(connection: Connection):
    connection._ended_idle = "the program called nothing for 9 s"
    assert connection._outcome(Standstill()) == ("idle", "the program called nothing for 9 s")  # type: ignore[arg-type]

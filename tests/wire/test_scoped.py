"""Settings of a while: each thread its own, undone in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from Pyro4.configuration import config

from distcorpus.wire import scoped as module
from distcorpus.wire.scoped import override, scoped, temporary


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by other tests' clusters."""
    monkeypatch.setattr(module, "_entries", ())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=st.permutations(range(4)), number=st.integers(1, 4))
def test_what_stays_is_what_others_have_set(orders, number):
    before = config.NS_HOST, config.NS_PORT
    undo: dict[int, Callable[[], None]] = {
        place: override(NS_HOST=f"host{place}", NS_PORT=place) for place in range(number)
    }
    for place in [place for place in orders if place < number]:
        assert (f"host{max(undo)}", max(undo)) == (config.NS_HOST, config.NS_PORT)
        undo.pop(place)()
    assert before == (config.NS_HOST, config.NS_PORT)


def test_each_thread_sees_its_own():
    """And one that has none, and no name for another's, the latest of all."""
    both_there, both_seen = threading.Barrier(3), threading.Barrier(3)

    def look(host: str) -> Any:
        undo = override(NS_HOST=host)
        both_there.wait(10)
        seen = config.NS_HOST, scoped("NS_HOST")
        both_seen.wait(10)
        undo()
        return seen, config.NS_HOST

    default = config.NS_HOST
    with ThreadPoolExecutor(3) as threads:
        looks = [threads.submit(look, host) for host in ("a", "b")]
        both_there.wait(10)
        # By a thread that never had one: this one may be an open cluster's.
        assert threads.submit(lambda: config.NS_HOST).result(10) in ("a", "b")
        both_seen.wait(10)
        for one, host in zip(looks, ("a", "b"), strict=True):
            assert one.result(10)[0] == (host, host)
    assert default == config.NS_HOST


def test_what_is_set_by_hand_counts(monkeypatch: pytest.MonkeyPatch):
    default = config.NS_HOST
    undo = override(NS_HOST="a")
    with monkeypatch.context() as patched:
        patched.setattr(config, "NS_HOST", "by hand")
        assert config.NS_HOST == "by hand"
    assert config.NS_HOST == "a"
    undo()
    assert default == config.NS_HOST
    assert scoped("nobody set it", 3) == 3


def test_what_is_set_for_a_while_is_undone_and_no_more():
    first, gone = override(NS_HOST="first"), override(NS_HOST="gone")
    with temporary():
        override(NS_HOST="second")
        override(NS_HOST="first")
        override(NS_HOST="second")
        gone()
        with ThreadPoolExecutor(1) as other:
            undo = other.submit(override, NS_PORT=1).result()
        assert scoped("NS_HOST") == "second"
    assert scoped("NS_HOST") == "first"
    assert scoped("NS_PORT") == 1, "another thread's stays"
    undo()
    first()
    assert scoped("NS_HOST") is None

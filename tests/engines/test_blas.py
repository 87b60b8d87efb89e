"""BLAS has one thread while a training computes with it, whichever thread of the program that is."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import threadpoolctl

from distcorpus.engines.threads import ThreadsEngine


def blas_threads() -> list[int]:
    pools = threadpoolctl.threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


def in_a_thread(function) -> None:
    errors = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors, errors


@pytest.fixture
def before() -> Iterator[list[int]]:
    with threadpoolctl.threadpool_limits(2, "blas"):
        found = blas_threads()
        if max(found) == 1:
            pytest.skip("BLAS has one thread anyway, on this machine")
        yield found


def limited() -> None:
    with ThreadsEngine(1) as engine, engine.algebra():
        assert set(blas_threads()) == {1}


def test_in_one_thread_after_the_other(before):
    """threadpoolctl takes the thread that limits first for the only one that may."""
    limited()
    in_a_thread(limited)
    assert blas_threads() == before
    limited()
    assert blas_threads() == before


def test_in_two_threads_at_once(before):
    """The last one that goes lifts the limit, and not the one that set it."""
    entered, left = threading.Event(), threading.Event()

    def second() -> None:
        with ThreadsEngine(1) as engine, engine.algebra():
            entered.set()
            assert left.wait(10)
            assert set(blas_threads()) == {1}

    thread = threading.Thread(target=lambda: in_a_thread(second))
    with ThreadsEngine(1) as engine, engine.algebra():
        thread.start()
        assert entered.wait(10)
    left.set()
    thread.join()
    assert blas_threads() == before


def test_where_the_program_limits_it_itself(before):
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        in_a_thread(limited)
        limited()
    assert blas_threads() == before

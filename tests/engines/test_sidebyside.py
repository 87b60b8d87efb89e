"""Threads that help the caller."""

from __future__ import annotations

import threading

import pytest

from distcorpus.engines.sidebyside import SideBySide

from .conftest import wait_until


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order(threads):
    team = SideBySide(threads)
    assert team.map(lambda number: number**2, range(100)) == [number**2 for number in range(100)]
    assert team.map(str, ["one"]) == ["one"]
    assert team.map(str, []) == []


def test_it_computes_side_by_side():
    barrier = threading.Barrier(3, timeout=30)  # which none passes before three are there

    def meet(item: int) -> int:
        barrier.wait()
        return threading.get_ident()

    assert len(set(SideBySide(3).map(meet, range(3)))) == 3


def test_helpers_that_are_busy_are_not_waited_for():
    team, begun, end = SideBySide(2), threading.Event(), threading.Event()

    def block(item: int) -> None:
        if threading.current_thread() is not other:
            begun.set()
            assert end.wait(30)
        else:
            assert begun.wait(30)

    other = threading.Thread(target=team.map, args=(block, range(2)))
    other.start()
    assert begun.wait(30)
    assert team.map(lambda number: -number, range(9)) == [-number for number in range(9)]
    end.set()
    other.join()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_is_raised(threads):
    def fail(item: int) -> None:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item"):
        SideBySide(threads).map(fail, range(7))


@pytest.mark.parametrize("number", range(3))
def test_threads_that_cannot_be_started_are_done_without(monkeypatch, number):
    """Also by whoever is called for what they would have done."""
    numbers = iter(range(1000))
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if next(numbers) >= number:
            raise RuntimeError("can't start new thread")
        real(thread)

    team = SideBySide(4)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(20):
            assert team.map(lambda item: -item, range(50)) == [-item for item in range(50)]
    assert next(numbers) > number
    assert team.map(lambda item: -item, range(50)) == [-item for item in range(50)]
    team.close()


@pytest.mark.parametrize("starts", [False, True])
def test_an_interruption_while_threads_start_is_raised_and_leaves_none(monkeypatch, starts):
    numbers = iter(range(1000))
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        failing = next(numbers) == 0
        if starts or not failing:
            real(thread)
        if failing:
            raise KeyboardInterrupt

    team, before = SideBySide(4), threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            team.map(lambda item: -item, range(50))
    team.close()
    wait_until(lambda: threading.active_count() == before)
    assert team.map(lambda item: -item, range(50)) == [-item for item in range(50)]
    team.close()

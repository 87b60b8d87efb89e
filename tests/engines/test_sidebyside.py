"""Threads that help the caller."""

from __future__ import annotations

import threading

import pytest

from distcorpus.engines.sidebyside import SideBySide


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

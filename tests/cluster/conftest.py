"""Clusters for the tests: real processes on loopback."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from distcorpus import LocalCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two workers that no test may harm."""
    with LocalCluster(n_workers=2) as cluster:
        yield cluster


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    """Two workers of this test alone, to be killed as it likes."""
    with LocalCluster(n_workers=2) as cluster:
        yield cluster


def wait_until(condition: Callable[[], object], what: str, timeout: float = 100.0) -> None:
    """Wait for a condition; the test fails where it does not come true in time."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {timeout:g} s")
        pause.wait(0.02)


def when_collected(condition: Callable[[], object]) -> Callable[[], object]:
    """Return the condition, to be looked at when garbage was collected.

    A client that has failed is held by its error's traceback, and for a moment by a thread of its own.
    """

    def look() -> object:
        gc.collect()
        return condition()

    return look

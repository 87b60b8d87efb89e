"""Threads that help the one that calls."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class SideBySide:
    """Computes items side by side: in the caller's thread, and in others as soon as they have woken up.

    Where the cores are busy with other things the caller computes everything, and waits for nobody. Several
    threads may call at once.

    Parameters
    ----------
    threads : int
        The most that compute at once for one caller.
    """

    def __init__(self, threads: int) -> None:
        self._helpers = threads - 1
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Return what `function` returns for each item, in order; what it raises is raised here."""
        results: dict[int, R] = {}
        numbers = itertools.count()

        def work() -> None:
            while (number := next(numbers)) < len(items):
                results[number] = function(items[number])

        wanted = min(self._helpers, len(items) - 1)
        with self._lock:
            if self._pool is None and wanted > 0:
                self._pool = ThreadPoolExecutor(self._helpers, thread_name_prefix="side-by-side")
            helpers = [self._pool.submit(work) for _ in range(wanted)] if self._pool is not None else []
        try:
            work()
        finally:
            late = [helper for helper in helpers if not helper.cancel()]
        for helper in late:
            helper.result()
        return [results[number] for number in range(len(items))]

    def close(self) -> None:
        """End the threads; those that compute are waited for. The next call starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

"""Threads that help the one that calls."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

        helpers: list[Future[None]] = []
        try:
            self._call(work, min(self._helpers, len(items) - 1), helpers)
            work()
        finally:
            late = [helper for helper in helpers if not helper.cancel()]
        for helper in late:
            helper.result()
        return [results[number] for number in range(len(items))]

    def _call(self, work: Callable[[], None], wanted: int, helpers: list[Future[None]]) -> None:
        """Have so many helpers work, or as many as there can be."""
        if wanted <= 0:
            return
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._helpers, thread_name_prefix="side-by-side")
            for _ in range(wanted):
                # Not the future of the pool, which is lost where it has queued the work but starts no thread.
                helpers.append(Future())
                try:
                    self._pool.submit(_help, helpers[-1], work)
                except RuntimeError:  # the system has no more threads, and the caller does not need them
                    return

    def close(self) -> None:
        """End the threads; those that compute are waited for. The next call starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()


def _help(helper: Future[None], work: Callable[[], None]) -> None:
    if helper.set_running_or_notify_cancel():
        try:
            work()
            helper.set_result(None)
        except BaseException as error:
            helper.set_exception(error)

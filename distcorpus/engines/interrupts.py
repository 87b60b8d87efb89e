"""Long computations for the main thread, which Ctrl-C ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from distcorpus.algorithms.stopping import Stop, stopped_by

R = TypeVar("R")


def interruptible(function: Callable[..., R], *arguments: Any, **options: Any) -> R:
    """Return what a function returns, which Ctrl-C ends.

    Only the main thread hears of it, and not while it is in compiled code: so another one computes.
    """
    if threading.current_thread() is not threading.main_thread():
        return function(*arguments, **options)
    stop = Stop()

    def compute() -> R:
        with stopped_by(stop):
            return function(*arguments, **options)

    with ThreadPoolExecutor(1, thread_name_prefix="interruptible") as helper:
        try:
            return helper.submit(compute).result()
        except BaseException:
            stop.set()
            raise

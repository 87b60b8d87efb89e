"""What Ctrl-C and SIGTERM do to a command.

This module imports little, for it is there before all else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal told the command to end.

    Parameters
    ----------
    signal : int
        Its number.
    what : str
        What the command was doing.
    """

    def __init__(self, signal: int = signal.SIGINT, what: str = "") -> None:
        super().__init__(f"interrupted{what and ' '}{what}")
        self.signal = signal


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Let a signal that would raise an exception end the process at once, while the block imports modules.

    Nothing is begun then that has to be cleaned up, and an exception could be lost: callbacks that run during
    imports cannot raise any.
    """
    raising = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    raising = {number: handler for number, handler in raising.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        raising = {}
    for number in raising:
        signal.signal(number, _end_at_once)
    try:
        yield
    finally:
        for number, handler in raising.items():
            signal.signal(number, handler)


@contextmanager
def raises_when_terminated() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted` while the block runs, as Ctrl-C does, so that a command cleans up.

    Where the exception of either is lost, for a callback cannot raise any, it is raised again.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    say_lost = sys.unraisablehook

    def once_more(lost: Any) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            number = getattr(lost.exc_value, "signal", signal.SIGINT)
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        else:
            say_lost(lost)

    sys.unraisablehook = once_more
    try:
        yield
    finally:
        sys.unraisablehook = say_lost
        if signal.getsignal(signal.SIGTERM) is _raise:  # else a daemon has taken over
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if "--report-fd" not in sys.argv:  # else it is a part of a command, which says so
        os.write(2, b"distcorpus: interrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)

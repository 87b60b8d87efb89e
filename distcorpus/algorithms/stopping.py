"""Computations that another thread ends early, where what they would give is of no use any more.

Who computes looks at a flag: between blocks and documents, and between the iterations of a document. So it is
free after one iteration of one document, however many iterations it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np


class Stopped(Exception):
    """A computation was ended before it was done."""


class Stop:
    """What ends a computation.

    Attributes
    ----------
    flag : ndarray of uint8, shape (1,)
        1 when it is to end; compiled loops look at it.
    """

    def __init__(self) -> None:
        self.flag = np.zeros(1, np.uint8)

    def set(self) -> None:
        """End what looks at this, now or later."""
        self.flag[0] = 1

    def check(self) -> None:
        """Raise Stopped if it is to end."""
        if self.flag[0]:
            raise Stopped("nobody wants the result any more")


_NEVER = Stop()

#: What ends the computations of a thread.
_CURRENT: ContextVar[Stop | None] = ContextVar("stop", default=None)


def current() -> Stop:
    """Return what ends the computations of this thread; without `stopped_by` nothing does."""
    return _CURRENT.get() or _NEVER


@contextmanager
def stopped_by(stop: Stop) -> Iterator[None]:
    """Let `stop` end what this thread computes in the block.

    Raises
    ------
    Stopped
        It did, or had been set before.
    """
    before = _CURRENT.set(stop)
    try:
        stop.check()
        yield
    finally:
        _CURRENT.reset(before)

"""What the latest jobs of a session cost, told to any number of peers."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from distcorpus.engines.observer import JobRecord
from distcorpus.monitor.snapshot import FRESH
from distcorpus.wire import Written

#: The part of the time that making answers may take.
SHARE = 0.2
#: Sessions whose answers are kept.
KEPT = 4

_NAMES = tuple(field.name for field in fields(JobRecord))
_values = attrgetter(*_NAMES)


class Records:
    """Makes the answers: ten thousand records are some megabytes, so that each is made once for all.

    Parameters
    ----------
    records : callable
        Returns the records of a session.
    """

    def __init__(self, records: Callable[[str], Sequence[JobRecord]]) -> None:
        self._records = records
        self._lock = threading.Lock()
        self._made: OrderedDict[str, tuple[Written, float]] = OrderedDict()  # and when
        self._again_at = 0.0

    def answer(self, session: str) -> Written:
        """Return the answer; who asks for many sessions waits, and nobody else does."""
        with self._lock:
            made, at = self._made.get(session, (None, 0.0))
            if made is None or time.monotonic() - at >= FRESH:
                time.sleep(max(0.0, self._again_at - time.monotonic()))
                began = time.monotonic()
                made = Written([as_message(record) for record in self._records(session)])
                ended = time.monotonic()
                self._again_at = ended + (ended - began) / SHARE
                self._made[session] = made, ended
                self._made.move_to_end(session)
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
        return made


def as_message(record: JobRecord) -> dict[str, Any]:
    """Return a record as it travels."""
    return dict(zip(_NAMES, _values(record), strict=True))

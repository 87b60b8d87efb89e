"""Who is refused much is answered late: so that refusing takes a small share of a core in the long run."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: The share of a core that refusing one host's messages may take in the long run, where it waits for answers.
SHARE = 0.01
#: Says another share: more than 0, and 1 or more for answers that do not wait.
VARIABLE = "DISTCORPUS_REFUSED_SHARE"
#: CPU seconds that each host has at once before its answers wait: mistakes are told of without delay.
FREE_SECONDS = 0.25
#: No answer waits longer.
LONGEST_SECONDS = 10.0
# Hosts that are remembered; beyond, those that are owed most are forgotten.
_MOST_PEERS = 1024


class Refusals:
    """Tells how long the answer to a refused message waits: a token bucket of CPU seconds for each host.

    Parameters
    ----------
    share : float, optional
        CPU seconds a second; by default what `VARIABLE` says, or `SHARE`.
    clock : callable
        Returns seconds.
    """

    def __init__(self, share: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.share = _configured() if share is None else share
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}  # CPU seconds, when that was so
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def refusing(self, peer: str, seconds: float) -> Iterator[float]:
        """Charge a host for a refusal, and count it as waiting while the block runs.

        Parameters
        ----------
        peer : str
        seconds : float
            CPU time that reading and refusing its message has taken.

        Yields
        ------
        float
            Seconds to wait before it is answered. Those that wait at the same time wait in proportion longer,
            so that many connections get no more of the daemon than one.
        """
        with self._lock:
            now = self._clock()
            left, since = self._left.get(peer, (FREE_SECONDS, now))
            left = min(left + (now - since) * self.share, FREE_SECONDS) - seconds
            self._left[peer] = max(left, 0.0), now
            if len(self._left) > _MOST_PEERS:
                del self._left[max(self._left, key=lambda one: self._left[one])]
            self._waiting[peer] += 1
            late = left < 0.0 and self.share < 1.0
            pause = min(seconds / self.share * self._waiting[peer], LONGEST_SECONDS) if late else 0.0
        try:
            yield pause
        finally:
            with self._lock:
                self._waiting[peer] -= 1
                if not self._waiting[peer]:
                    del self._waiting[peer]


def _configured() -> float:
    said = os.environ.get(VARIABLE)
    if not said:
        return SHARE
    try:
        share = float(said)
    except ValueError:
        share = 0.0
    if not share > 0.0:
        raise ValueError(f"{VARIABLE}={said!r}: give a share of a core, more than 0 (by default {SHARE})")
    return share

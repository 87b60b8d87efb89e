"""Daemons that a command runs as processes of their own: those that die are started again, for a while."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from distcorpus.cli.service import NOTIFY_SOCKET

logger = logging.getLogger("distcorpus")

#: Seconds between two looks at the processes.
LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and how soon, a process that died is started again.

    Attributes
    ----------
    first, longest : float
        Seconds to wait the first time, twice as many each further time, and at the most.
    deaths : int
        One that dies so often within `within` seconds is given up.
    within : float
    """

    first: float = 1.0
    longest: float = 30.0
    deaths: int = 6
    within: float = 600.0


@dataclass(slots=True, eq=False)
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    report: int = -1  # it is closed when the process is ready
    was_ready: bool = False
    died_at: deque[float] = field(default_factory=deque)
    start_at: float | None = None

    def start(self) -> None:
        self.report, write = os.pipe()
        os.set_blocking(self.report, False)
        try:
            # In a session of its own, so that Ctrl-C reaches it through us, once. Its input ends with us.
            self.process = subprocess.Popen(
                [*self.command, "--until-eof", "--report-fd", str(write)],
                env={name: value for name, value in os.environ.items() if name != NOTIFY_SOCKET},
                stdin=subprocess.PIPE,
                pass_fds=(write,),
                start_new_session=True,
            )
        finally:
            os.close(write)
        self.start_at = None

    def look(self) -> None:
        """Notice that it is ready."""
        if self.report >= 0:
            with suppress(BlockingIOError):
                said = os.read(self.report, 65536)
                self.was_ready = self.was_ready or bool(said)
                if not said:
                    self.close_report()

    def close_report(self) -> None:
        if self.report >= 0:
            os.close(self.report)
            self.report = -1

    def close(self) -> None:
        self.close_report()
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def delay(self, now: float, patience: Patience) -> float | None:
        """Return how long to wait before it is started again, after it has died; None to give it up."""
        self.died_at.append(now)
        while self.died_at[0] <= now - patience.within:
            self.died_at.popleft()
        if len(self.died_at) >= patience.deaths:
            return None
        return float(min(patience.first * 2 ** (len(self.died_at) - 1), patience.longest))


def run_children(
    commands: Mapping[str, Sequence[str]],
    ended: threading.Event,
    patience: Patience | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Run commands side by side until `ended` is set, or all have ended.

    One that ends with exit code 0 was asked to. One that never was ready has a fault that will not go away.
    Any other is started again.

    Parameters
    ----------
    commands : mapping of str to sequence of str
        By the names that logs call them. Each takes ``--until-eof`` and ``--report-fd``.
    ended : threading.Event
    patience : Patience, optional
    on_ready : callable
        Called once, when all of them have been ready.

    Returns
    -------
    dict of str to int
        The exit codes of those that were given up, or that did not end with code 0 when they were told to.
    """
    patience = patience or Patience()
    children = [_Child(name, command) for name, command in commands.items()]
    running, codes, told = list(children), {}, False
    try:
        for child in children:
            child.start()
        while running and not ended.wait(LOOK_EVERY):
            for child in list(running):
                if not _see_to(child, patience):
                    running.remove(child)
                    assert child.process is not None
                    if child.process.returncode:
                        codes[child.name] = child.process.returncode
            if not told and all(child.was_ready for child in children):
                told = True
                on_ready()
    finally:
        alive = [child for child in children if child.process is not None and child.process.poll() is None]
        for child in alive:
            child.process.terminate()  # type: ignore[union-attr]
        for child in alive:
            assert child.process is not None
            if code := child.process.wait():
                codes[child.name] = code
        for child in children:
            child.close()
    return codes


def _see_to(child: _Child, patience: Patience) -> bool:
    """Start a child again if it died and it is time to; False where it will not run any more."""
    now = time.monotonic()
    if child.start_at is not None:
        if now >= child.start_at:
            child.start()
        return True
    child.look()
    assert child.process is not None
    code = child.process.poll()
    if code is None:
        return True
    child.look()
    child.close()
    if code == 0:
        return False
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    what = f"worker {child.name} (pid {child.process.pid}) {how}"
    if not child.was_ready:
        logger.error("%s before it was ready: it is not started again", what)
        return False
    delay = child.delay(now, patience)
    if delay is None:
        often = f"{patience.deaths} times within {patience.within:g} s"
        logger.error("%s, and has died %s: it is not started again", what, often)
        return False
    logger.error("%s: it is started again in %g s", what, delay)
    child.start_at = now + delay
    return True

"""What the three daemons share as processes: how they begin, what they say first, and how they end."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from distcorpus._text import plural

logger = logging.getLogger(__name__)

#: Where systemd listens for what its services say of themselves.
NOTIFY_SOCKET = "NOTIFY_SOCKET"


class Lifetime:
    """Ends a daemon on SIGINT or SIGTERM, when it is asked to exit, or when its parent is gone.

    A second signal ends the process at once. Signals are read from a pipe by a thread of their own: Python's
    handlers run in the main thread, which may just be going to sleep, or hold the lock that they need.

    Parameters
    ----------
    until_eof : bool
        End when standard input is closed, as it is when the process that started us ends in any way.
    """

    def __init__(self, *, until_eof: bool = False) -> None:
        self.ended = threading.Event()
        self.signal: int = signal.SIGTERM  # that ended it; the end of standard input is taken for one
        arrived, tell = os.pipe()
        os.set_blocking(tell, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(tell)
        self._watch(lambda: self._read_signals(arrived))
        if until_eof:
            self._watch(self._read_stdin)

    def end_with(self, event: threading.Event) -> None:
        """End when `event` is set."""
        self._watch(event.wait)

    def wait(self) -> None:
        """Wait until it is time to end."""
        self.ended.wait()
        notify("STOPPING=1")

    def _watch(self, wait: Callable[[], object]) -> None:
        def watch() -> None:
            wait()
            self.ended.set()

        threading.Thread(target=watch, name="lifetime", daemon=True).start()

    def _read_signals(self, arrived: int) -> None:
        number = self.signal = os.read(arrived, 1)[0]
        logger.info("%s: ending", signal.Signals(number).name)

        def end_at_once() -> None:
            os._exit(128 + os.read(arrived, 1)[0])

        self._watch(end_at_once)

    def _read_stdin(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass


def say(*lines: str) -> None:
    """Print a daemon's first lines."""
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def report_ready(descriptor: int | None, facts: dict[str, Any]) -> None:
    """Tell the process that started us, through a pipe, and systemd, where it did, that we are ready.

    Parameters
    ----------
    descriptor : int or None
        The pipe's file descriptor; None where nobody waits.
    facts : dict
        What it wants to know, JSON serialisable.
    """
    if descriptor is not None:
        with os.fdopen(descriptor, "w") as pipe:
            json.dump(facts, pipe)
    notify("READY=1")


def notify(state: str) -> None:
    """Tell systemd how we are (sd_notify(3)), where it runs us as a service of ``Type=notify``.

    Parameters
    ----------
    state : str
        For example ``"READY=1"``.
    """
    address = os.environ.get(NOTIFY_SOCKET)
    if not address:
        return
    if address.startswith("@"):  # in Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError as error:
            logger.warning("cannot tell systemd at %s=%s: %s", NOTIFY_SOCKET, address, error)


def set_blas_threads(threads: int | None) -> str:
    """Set the BLAS threads of this process and name its BLAS libraries.

    Parameters
    ----------
    threads : int or None
        Threads for BLAS; None leaves them as they are.

    Returns
    -------
    str
        For example ``"openblas 0.3.30 SkylakeX, 1 thread"``.
    """
    # threadpoolctl sees only what is loaded, and scipy brings a BLAS of its own beside numpy's.
    import scipy.linalg.blas  # noqa: F401
    import threadpoolctl

    if threads is not None:
        threadpoolctl.threadpool_limits(threads, user_api="blas")
    libraries = set()
    for info in threadpoolctl.threadpool_info():
        if info["user_api"] == "blas":
            parts = (info["internal_api"], info.get("version"), info.get("architecture"))
            name = " ".join(str(part) for part in parts if part)
            libraries.add(f"{name}, {plural(info['num_threads'], 'thread')}")
    return "; ".join(sorted(libraries)) or "none that threadpoolctl knows"

"""Workers by the kernels that they compute with: none of another kind takes part in a training.

Each kind has a schedule of its own. A session belongs to the best kind that there is when it begins, and
stays with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from distcorpus._version import __version__, __wire__
from distcorpus.engines.schedule import Schedule
from distcorpus.kernels.build import contradiction, read_build, this_build

#: Threads that a worker may have.
MAX_THREADS = 4096
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as the dispatcher sees it."""

    name: str
    uri: str
    host: str
    pid: int
    threads: int
    state: str
    kernels: str  # see `kernels.kind`
    build: Mapping[str, str] = field(default_factory=dict, compare=False)  # see `kernels.build`


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker said when it was asked how it does.

    Attributes
    ----------
    bytes_cached, bytes_cache, bytes_resident : int
        What it keeps between jobs, how much it may, and the memory of its process.
    seconds : float
        The question and the answer took.
    clock_offset : float
        Its clock less ours, to within half of these seconds.
    """

    bytes_cached: int
    bytes_cache: int
    bytes_resident: int
    seconds: float
    clock_offset: float


class RefusedError(RuntimeError):
    """A worker cannot take part, and is told why."""


def read_status(name: str, uri: str, status: Any) -> WorkerInfo:
    """Return what a worker says of itself.

    Raises
    ------
    RefusedError
        It is of another version.
    RuntimeError
        It says something that cannot be.
    """
    if not isinstance(status, Mapping):
        raise RuntimeError("its status is no status")

    def text(key: str) -> str:
        value = status.get(key)
        if type(value) is not str or not value.isprintable() or not 0 < len(value) <= _LONGEST:
            raise RuntimeError(f"its status has no {key} that could be one")
        return value

    def number(key: str, least: int, most: int) -> int:
        value: Any = status.get(key)
        if type(value) is not int or not least <= value <= most:
            small = type(value) is float or (type(value) is int and abs(value) < 1e18)
            shown = value if small else type(value).__name__
            raise RuntimeError(f"its status has {key}={shown}: give it {least} to {most}")
        return value

    version = text("version")
    if version != __version__:
        said = {"distcorpus": version}  # the rest may be said otherwise
    else:
        said = status.get("build", {"distcorpus": version, "wire": str(__wire__)})
    try:
        build = read_build(said)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    refusal = contradiction(this_build(), build, "the worker")
    if refusal is not None:
        raise RefusedError(refusal)
    threads = number("threads", 1, MAX_THREADS)
    pid = number("pid", 1, 2**31)
    return WorkerInfo(name, uri, text("host"), pid, threads, "ready", text("kernels"), build)


def read_pulse(said: Any, asked: float, seconds: float) -> Pulse | None:
    """Return what a worker says of how it does; None where it says something that cannot be.

    Parameters
    ----------
    said : any
        As it arrived.
    asked, seconds : float
        When it was asked, by our clock since 1970, and how long the answer took.
    """
    if type(said) is not dict:
        return None
    numbers: list[Any] = [said.get(key) for key in ("bytes_cached", "bytes_cache", "bytes_resident")]
    clock = said.get("time")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        return None
    if type(clock) is not float or not 0 <= clock < 1e12:
        return None
    return Pulse(numbers[0], numbers[1], numbers[2], seconds, clock - asked - seconds / 2)


def best_of(workers: Iterable[WorkerInfo]) -> str | None:
    """Return the kernels that a training should have: compiled ones, then those with the most threads.

    Parameters
    ----------
    workers : iterable of WorkerInfo
        Those that it could have.

    Returns
    -------
    str or None
        None where there are no workers.
    """
    threads: dict[str, int] = {}
    for worker in workers:
        threads[worker.kernels] = threads.get(worker.kernels, 0) + worker.threads
    return max(threads, key=lambda kernels: _worth(kernels, threads[kernels]), default=None)


def _worth(kernels: str, threads: int) -> tuple[bool, int, tuple[int, ...], str]:
    version = tuple(int(digits) for digits in re.findall(r"\d{1,9}", kernels))
    return kernels.startswith("numba "), threads, version, kernels


class Kinds:
    """The schedules, and which of them each session has. The caller holds a lock around every call.

    Parameters
    ----------
    make : callable
        Makes a schedule.
    """

    def __init__(self, make: Callable[[], Schedule]) -> None:
        self._make = make
        self._schedules: dict[str, Schedule] = {}
        self._nobodys: Schedule | None = None  # of sessions that began before any worker came
        self._of_session: dict[str, Schedule] = {}
        self._required: dict[str, str] = {}

    def __iter__(self) -> Any:
        return iter([*self._schedules.values(), *([self._nobodys] if self._nobodys else [])])

    def of(self, kernels: str) -> Schedule:
        """Return the schedule of the workers with these kernels."""
        if kernels not in self._schedules:
            # The first workers there are take what waits for any.
            self._schedules[kernels] = self._nobodys or self._make()
            self._nobodys = None
        return self._schedules[kernels]

    def of_session(self, session: str) -> Schedule | None:
        """Return the schedule of a session; None where it is closed."""
        return self._of_session.get(session)

    def kernels_of(self, session: str) -> str | None:
        """Return the kernels of a session's workers; None where they are not known yet."""
        schedule = self._of_session.get(session)
        return next((name for name, other in self._schedules.items() if other is schedule), None)

    def require(self, session: str, kernels: str) -> None:
        """Give a session that is about to begin no other kernels: it has been computed with these."""
        self._required[session] = kernels

    def begin(self, session: str, workers: Iterable[WorkerInfo]) -> Schedule:
        """Choose the schedule of a session, `workers` being there."""
        required = self._required.pop(session, None)
        known = [WorkerInfo("", "", "", 0, 1, "", kernels) for kernels in self._schedules]
        kernels = required or best_of(workers) or best_of(known)
        if kernels is not None:
            schedule = self.of(kernels)
        else:
            schedule = self._nobodys = self._nobodys or self._make()
        self._of_session[session] = schedule
        return schedule

    def prune(self, workers: Iterable[WorkerInfo]) -> None:
        """Forget the kinds that neither sessions nor `workers` have."""
        used = {worker.kernels for worker in workers}
        self._schedules = {
            kernels: schedule
            for kernels, schedule in self._schedules.items()
            if kernels in used or schedule in self._of_session.values()
        }

    def end(self, session: str) -> Schedule | None:
        """Forget a session; returns the schedule that it had."""
        self._required.pop(session, None)
        return self._of_session.pop(session, None)

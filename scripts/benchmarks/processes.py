"""What several processes use while something runs: CPU seconds, and memory of their own."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Seconds between two looks.
SAMPLE_EVERY = 0.1

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What the processes of one kind have used.

    Attributes
    ----------
    cpu : float
        CPU seconds of all.
    largest : int
        The most memory that one of them had, in bytes.
    """

    cpu: float = 0.0
    largest: int = 0


class Watch:
    """Watches processes while its block runs; memory is anonymous or shared, pages of files do not count.

    Attributes
    ----------
    memory : int
        The most memory of all processes at one moment, in bytes.
    """

    def __init__(self) -> None:
        self.memory = 0
        self._kinds: dict[int, str] = {}
        self._parents: list[tuple[int, str]] = []
        self._began: dict[int, float] = {}
        self._cpu: dict[int, float] = {}
        self._largest: dict[int, int] = {}
        self._stop = threading.Event()

    def also(self, pid: int, kind: str) -> None:
        """Watch a process too."""
        self._kinds[pid] = kind

    def descendants(self, pid: int, kind: str) -> None:
        """Watch too whatever a process will start."""
        self._parents.append((pid, kind))

    def _look(self) -> None:
        for parent, kind in self._parents:
            with suppress(psutil.Error):
                for process in psutil.Process(parent).children(recursive=True):
                    self._kinds.setdefault(process.pid, kind)
        total = 0
        for pid in list(self._kinds):
            with suppress(OSError, ProcessLookupError):
                cpu, memory = cpu_seconds(pid), own_memory(pid)
                self._cpu[pid] = cpu
                self._largest[pid] = max(memory, self._largest.get(pid, 0))
                total += memory
        self.memory = max(self.memory, total)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            self._look()

    def __enter__(self) -> Watch:
        self._look()
        self._began = dict(self._cpu)
        self._thread = threading.Thread(target=self._sample, name="watch")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def usage(self) -> dict[str, Usage]:
        """Return what the processes have used, by their kind."""
        found: dict[str, Usage] = {}
        for pid, cpu in self._cpu.items():
            usage = found.setdefault(self._kinds[pid], Usage())
            usage.cpu += cpu - self._began.get(pid, 0.0)
            usage.largest = max(usage.largest, self._largest[pid])
        return found


def cpu_seconds(pid: int) -> float:
    """The CPU seconds that a process has used so far, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def own_memory(pid: int) -> int:
    """The memory that a process has and no file: anonymous and shared, resident, in bytes."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(1024 * int(status[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in status)

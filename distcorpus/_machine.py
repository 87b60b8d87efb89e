"""What this machine is, and what of it this process may use; every room may ask."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_cores() -> int:
    """Return how many cores this process can keep busy: its cgroup may have fewer than it may run on."""
    quota = cpu_quota()
    return usable_cores() if quota is None else max(1, min(usable_cores(), math.ceil(quota)))


def physical_memory() -> int:
    """Return the bytes of this machine's memory; 8 GiB where nothing tells, as on Windows."""
    if not hasattr(os, "sysconf"):
        return 8 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """Return the bytes of memory that this process may take: the machine's, or its cgroup's if fewer."""
    limit = memory_limit()
    return physical_memory() if limit is None else min(limit, physical_memory())


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time this process's cgroup, or one above it, has; None for all."""
    quotas = []
    for folder in _cgroups(root, "cpu"):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                period = (folder / "cpu.cfs_period_us").read_text().strip()
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process's cgroup, or one above it, has; None for all."""
    limits = []
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # there is none, or it is "max"
                continue
    return min(limits, default=None)


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process can still take, as the kernel and its cgroups say; None
    where nothing tells.
    """
    free = []
    with suppress(OSError, ValueError, LookupError):
        free.append(1024 * _number_after("MemAvailable:", root / "proc/meminfo"))
    for folder in _cgroups(root, "memory"):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
            except (OSError, ValueError):  # there is none, or it is "max"
                continue
            with suppress(OSError, ValueError, LookupError):  # files that are in memory give way
                left += _number_after(cached, folder / "memory.stat")
            free.append(max(left, 0))
    return min(free, default=None)


def _number_after(name: str, path: Path) -> int:
    """Return the number in the line of a file that begins with a name."""
    for line in path.read_text().splitlines():
        if line.split(None, 1)[:1] == [name]:
            return int(line.split()[1])
    raise LookupError(name)


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and those above it, of version 2 and 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controller if controllers else mount
        folder = base / path.lstrip("/")
        if ".." in folder.parts:  # it is outside of what this process sees, and its own is the uppermost
            folder = base
        while folder != base:
            yield folder
            folder = folder.parent
        yield base


def open_alone(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """Open a file or folder and lock it until it is closed; return None where another process has it."""
    descriptor = os.open(path, flags, 0o600)
    locked = False
    try:
        locked = try_to_lock(descriptor)
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def try_to_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed; return False where another process has locked it.

    Where the system has no such locks, as Windows, nobody is kept out.

    Raises
    ------
    OSError
        If the file system has none.
    """
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True

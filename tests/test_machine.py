"""What of a machine a process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from distcorpus import _machine
from distcorpus._machine import available_cores, cpu_quota, memory_limit, physical_memory, usable_memory
from distcorpus.cli.commands import parser
from distcorpus.dispatcher.limits import Limits
from distcorpus.engines.threads import available_threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_cgroups(tmp_path: Path):
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (None, None)
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")  # of one above it
    write(tmp_path / "sys/fs/cgroup/a/b/memory.max", "1000\n")
    write(tmp_path / "sys/fs/cgroup/a/memory.max", "max\n")
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (1.5, 1000)
    write(tmp_path / "proc/self/cgroup", "3:cpu,cpuacct:/x\n4:memory:/x\n")
    write(tmp_path / "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000")
    write(tmp_path / "sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000")
    write(tmp_path / "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000")
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (0.5, 2000)
    write(tmp_path / "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1")
    assert cpu_quota(tmp_path) is None


def test_what_is_free_is_what_the_tightest_cgroup_leaves(tmp_path: Path):
    assert _machine.free_memory(tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     90 kB\n")
    assert _machine.free_memory(tmp_path) == 90 * 1024
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "sys/fs/cgroup/a/b/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/a/b/memory.current", "1000\n")
    write(tmp_path / "sys/fs/cgroup/a/memory.max", "9000\n")
    write(tmp_path / "sys/fs/cgroup/a/memory.current", "6000\n")
    assert _machine.free_memory(tmp_path) == 3000
    write(tmp_path / "sys/fs/cgroup/a/memory.stat", "anon 4000\nfile 2000\ninactive_file 1500\n")
    assert _machine.free_memory(tmp_path) == 4500
    write(tmp_path / "proc/self/cgroup", "4:memory:/x\n")
    write(tmp_path / "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000")
    write(tmp_path / "sys/fs/cgroup/memory/x/memory.usage_in_bytes", "2500")
    assert _machine.free_memory(tmp_path) == 0
    write(tmp_path / "sys/fs/cgroup/memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n")
    assert _machine.free_memory(tmp_path) == 500


def test_threads_and_limits_follow_the_cgroup(monkeypatch: pytest.MonkeyPatch):
    """As in a container: what it may have counts, not what the machine has."""
    for name in ("DISTCORPUS_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_machine, "usable_cores", lambda: 16)
    monkeypatch.setattr(_machine, "cpu_quota", lambda: 1.5)
    assert available_threads() == available_cores() == 2
    assert parser().parse_args(["dispatcher"]).threads == 2
    limit = physical_memory() // 2
    monkeypatch.setattr(_machine, "memory_limit", lambda: limit)
    assert usable_memory() == limit
    assert Limits()._session_memory == limit // 2
    monkeypatch.setattr(_machine, "memory_limit", lambda: 2 * physical_memory())
    assert usable_memory() == physical_memory()


def test_a_cgroup_that_cannot_be_seen_is_the_uppermost(tmp_path: Path):
    """As in a container that has a namespace of its own for them."""
    write(tmp_path / "proc/self/cgroup", "0::/../../x\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", "3000\n")
    assert memory_limit(tmp_path) == 3000


def test_nothing_else_counts_the_machines_cores():
    """In a container these are more than it may have."""
    package = Path(_machine.__file__).parent
    counting = {path.name for path in package.rglob("*.py") if "cpu_count" in path.read_text("utf-8")}
    assert counting == {"_machine.py", "examination.py"}  # the doctor tells of both

"""A short form of scripts/endurance.py, and that it would see what it looks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import endurance
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it reads /proc")
def test_a_short_form():
    """In a process of its own, whose clients are forked from a server of theirs."""
    command = [sys.executable, "scripts/endurance.py", "--runs", "12", "--killed", "4", "--every", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| dispatcher, ") == 2
    assert "flat; no session left" in done.stdout


def measured(what, values):
    daemon = endurance.Daemon("dispatcher", 1)
    for number, value in enumerate(values, 1):
        daemon.at.append(10 * number)
        for name in daemon.taken:
            daemon.taken[name].append(value if name == what else 7.0)
    return endurance.Report({"runs": [daemon]}, [])


@pytest.mark.parametrize("what", endurance.MOST_SLOPE)
def test_what_grows_is_seen(what):
    growing = measured(what, [100.0 + number for number in range(30)])
    assert growing.failures() == [f"dispatcher: {what} grows by 10.00 in a hundred runs"]
    assert "+10.00" in growing.table()
    assert not measured(what, [50.0, 60.0, 70.0, 80.0, 90.0] + 10 * [100.0]).failures()  # it fills first
    assert not measured(what, [100.0] * 20).failures()


def test_what_is_left_is_said():
    report = measured("memory", [1.0] * 20)
    report.left.append("sessions/1")
    assert report.failures() == ["left: sessions/1"]

"""Processes that a command runs: what dies is said at once and started again, with patience that ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distcorpus.cli.children import Patience, _Child, run_children

QUICK = Patience(first=0.05, longest=0.2, deaths=4, within=60.0)

#: Says that it is ready, unless it is told not to, and does what its second argument says.
SCRIPT = """
import os, sys, time
report = int(sys.argv[sys.argv.index("--report-fd") + 1])
where, what = sys.argv[1:3]
with open(where, "a") as file:
    print(os.getpid(), file=file)
if what != "unready":
    os.write(report, b"{}")
os.close(report)
if what == "once" and len(open(where).readlines()) > 1:
    what = "live"
if what == "live":
    sys.stdin.read()
elif what == "exit":
    sys.exit(0)
else:
    sys.exit(3)
"""


def command(where: Path, what: str) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(where), what]


def started(where: Path) -> list[int]:
    return [int(line) for line in where.read_text().split()] if where.exists() else []


def wait_until(condition) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("it did not happen within 20 s")


def test_one_that_dies_is_started_again_and_one_that_is_done_is_not(tmp_path, caplog):
    ended = threading.Event()
    files = {what: tmp_path / what for what in ("once", "live", "exit")}
    with ThreadPoolExecutor(1) as thread:
        codes = thread.submit(
            run_children, {what: command(file, what) for what, file in files.items()}, ended, QUICK
        )
        wait_until(lambda: len(started(files["once"])) == 2)
        (victim,) = started(files["live"])
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(started(files["live"])) == 2)
        assert len(started(files["exit"])) == 1
        assert not codes.done()
        ended.set()
        # They are told by SIGTERM, which this script does not handle.
        assert codes.result(20) == {"once": -signal.SIGTERM, "live": -signal.SIGTERM}
    said = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"worker live (pid {victim}) was killed by SIGKILL: it is started again in 0.05 s" in said
    assert any("worker once" in line and "exit code 3: it is started again" in line for line in said)
    assert len(said) == 2


def test_patience_ends(tmp_path, caplog):
    """With a word, and an exit code; the others go on until the end."""
    ended = threading.Event()
    codes = run_children({"a": command(tmp_path / "a", "die")}, ended, QUICK)
    assert codes == {"a": 3}
    assert len(started(tmp_path / "a")) == QUICK.deaths
    assert "has died 4 times within 60 s: it is not started again" in caplog.text


def test_one_that_never_was_ready_is_not_started_again(tmp_path, caplog):
    assert run_children({"a": command(tmp_path / "a", "unready")}, threading.Event(), QUICK) == {"a": 3}
    assert len(started(tmp_path / "a")) == 1
    assert "ended with exit code 3 before it was ready: it is not started again" in caplog.text


def test_delays_double_and_old_deaths_are_forgotten():
    patience = Patience(first=1.0, longest=5.0, deaths=6, within=100.0)
    child = _Child("a", [])
    assert [child.delay(now, patience) for now in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert child.delay(99.0, patience) is None
    assert child.delay(103.5, patience) == 4.0  # with those at 4 and 99

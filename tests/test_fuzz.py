"""The fuzzer finds what is wrong; a short run finds nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import fuzz
import fuzztargets
import numpy as np
import pytest

SCRIPT = Path(fuzz.__file__)

#: A target that is as wrong as the first byte of its input says.
WRONG = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz, fuzztargets
fuzz.POLL = 0.05
fuzz.SECONDS, fuzz.PATIENCE = 0.05, 1.0
def check(data):
    if b"!" in data:
        os.abort()
    if b"?" in data:
        while True:
            pass
    if b"#" in data:
        raise KeyError
    return data.decode()
fuzz.TARGETS["wrong"] = lambda: fuzztargets.Target(check, [b"a message", b"a#nother", b"a!third!"], ())
report = fuzz.fuzz("wrong", 2.0, 1, fuzz.Path(sys.argv[2]))
for path in report.findings:
    print(path.name, path.read_bytes())
"""

#: What becomes of a target's own messages. A target changes the process that it is in.
REAL = """
import sys
sys.path.insert(0, sys.argv[1])
import fuzz, fuzztargets
target = fuzztargets.TARGETS[sys.argv[2]]()
print([fuzz._execute(target, data) for data in target.seeds])
"""


def python(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_what_is_wrong_is_found_and_made_short(tmp_path: Path):
    printed = python("-c", WRONG, SCRIPT.parent, tmp_path)
    assert "wrong-killed-by-SIGABRT b'!'" in printed.splitlines()
    assert "wrong-KeyError-in-check b'#'" in printed.splitlines()


def test_what_takes_too_much_is_found(monkeypatch: pytest.MonkeyPatch):
    def check(data: bytes) -> str:
        while data == b"long":
            pass
        return str(np.ones(len(data) << 26).sum())

    target = fuzztargets.Target(check, [])
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert "0.2 s" in (fuzz.wrong_with(target, b"long") or "")
    monkeypatch.setattr(fuzz, "SECONDS", 60.0)
    assert "256 MB" in (fuzz.wrong_with(target, b"1") or "")
    assert fuzz.wrong_with(target, b"") is None


def test_a_short_run_finds_nothing(tmp_path: Path):
    printed = python(SCRIPT, "--minutes", "0.06", "--seed", "3", "--findings", tmp_path)
    lines = printed.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == list(fuzztargets.TARGETS), printed
    assert all("0 findings" in line for line in lines), printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", fuzztargets.TARGETS)
def test_real_messages_are_read(name: str):
    """Else the fuzzer would begin at nothing."""
    outcomes = ast.literal_eval(python("-c", REAL, SCRIPT.parent, name))
    assert {wrong for wrong, _ in outcomes} == {None}
    assert sum("Error" not in outcome for _, outcome in outcomes) > len(outcomes) / 2

"""The fuzzer finds what is wrong; a short run finds nothing."""

from __future__ import annotations

import ast
import dataclasses
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import fuzz
import fuzzgrammar
import fuzztargets
import numpy as np
import pytest
from Pyro4.errors import SecurityError, SerializeError

from distcorpus.wire import allowed, unpickle
from distcorpus.wire.unpickle import OutsideVocabulary

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


@pytest.mark.long
def test_what_takes_too_much_for_its_size_is_found():
    kept: list[bytes] = []

    def check(data: bytes) -> str:
        kept[:] = [bytes(len(data) << 10)]
        return str(sum(range(len(data) * 1000)))

    fine = fuzztargets.Bounds(2000, 1 << 20, 1e-3, 1.0)
    target = fuzztargets.Target(check, [], bounds=fine)
    assert fuzz.wrong_with(target, b"x" * 1000) is None
    little = fuzztargets.Bounds(500, 0, 1e-3, 1.0)
    assert "memory" in (fuzz.wrong_with(dataclasses.replace(target, bounds=little), b"x" * 1000) or "")
    brief = fuzztargets.Bounds(2000, 1 << 20, 1e-7, 0.0)
    assert "time" in (fuzz.wrong_with(dataclasses.replace(target, bounds=brief), b"x" * 1000) or "")


@pytest.mark.long
def test_the_grammar_writes_calls_that_are_read_and_calls_that_are_refused():
    chance = random.Random(1)
    written = [fuzzgrammar.message(chance, "a", "b", 1) for _ in range(400)]
    outcomes = Counter()
    for data in written:
        try:
            unpickle.load(data, allowed.resolve)
            outcomes["read"] += 1
        except (SecurityError, SerializeError, OutsideVocabulary) as error:
            outcomes[re.sub(r"\d+", "#", str(error))[:30]] += 1
    assert outcomes["read"] > 40
    assert len(outcomes) > 20


@pytest.mark.long
def test_a_short_run_of_the_grammar_finds_nothing(tmp_path: Path):
    printed = python(SCRIPT, "--minutes", "0.1", "--seed", "3", "--target", "calls", "--findings", tmp_path)
    assert "0 findings" in printed, printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_short_run_finds_nothing(tmp_path: Path):
    printed = python(SCRIPT, "--minutes", "0.06", "--seed", "3", "--findings", tmp_path)
    lines = printed.splitlines()[1:]
    assert [line.split(":")[0] for line in lines] == list(fuzztargets.TARGETS), printed
    assert all("0 findings" in line for line in lines), printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", fuzztargets.TARGETS)
@pytest.mark.long
def test_real_messages_are_read(name: str):
    """Else the fuzzer would begin at nothing."""
    outcomes = ast.literal_eval(python("-c", REAL, SCRIPT.parent, name))
    assert {wrong for wrong, _ in outcomes} == {None}
    assert sum("Error" not in outcome for _, outcome in outcomes) > len(outcomes) / 2

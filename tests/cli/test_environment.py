"""Environment variables with wrong values: each command says so in one line, and the doctor goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from Pyro4.configuration import Configuration

from distcorpus._environment import RULES, wrong

WRONG = {
    "PYRO_NS_PORT": "abc",
    "PYRO_SSL": "perhaps",
    "PYRO_COMMTIMEOUT": "x",
    "PYRO_LOGLEVEL": "loud",
    "DISTCORPUS_ALLOW": "bad",
    "DISTCORPUS_THREADS": "x",
    "DISTCORPUS_REFUSED_SHARE": "x",
    "DISTCORPUS_DISTRIBUTED": "maybe",
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distcorpus", *arguments],
        env={**os.environ, "PYRO_SERIALIZER": "pickle", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_command_names_each_variable_that_is_wrong():
    done = run("status", **WRONG)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(WRONG)
    for name, value in WRONG.items():
        (line,) = [line for line in lines if name in line]
        assert line == f"distcorpus status: {name}={value!r}: set it to {RULES[name][0]}, or unset it"


def test_the_doctor_finds_them_and_goes_on():
    done = run("doctor", "--here", "--json", **WRONG, PYRO_NS_HOTS="alpha", DISTCORPUS_KERNELS="no.such,json")
    assert (done.returncode, done.stderr) == (2, "")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    for name in WRONG:
        assert checks[name]["state"] == "fail"
        assert checks[name]["remedy"] == f"set {name} to {RULES[name][0]}, or unset it"
    assert checks["PYRO_NS_HOTS"]["state"] == "warn"
    assert "PYRO_NS_HOST" in checks["PYRO_NS_HOTS"]["remedy"]
    assert checks["own kernels"]["state"] == "fail"
    assert "no.such, which cannot be imported" in checks["own kernels"]["said"]


def test_the_rules_are_those_of_pyro4():
    """Which it reads when it is imported, so that it cannot be asked."""
    defaults = Configuration()
    defaults.reset(useenvironment=False)
    assert {name.removeprefix("PYRO_") for name in RULES if name.startswith("PYRO_")} == {
        *Configuration.__slots__,
        "LOGFILE",
        "LOGLEVEL",
    }
    for name in Configuration.__slots__:
        value = getattr(defaults, name)
        refused = bool(wrong({f"PYRO_{name}": "x"}))
        assert refused == isinstance(value, bool | int | float), name


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("PYRO_NS_PORT", "9090"),
        ("PYRO_SSL", "On"),
        ("PYRO_COMMTIMEOUT", "1.5"),
        ("PYRO_LOGLEVEL", "DEBUG"),
        ("DISTCORPUS_ALLOW", "mine.words:Words,other:Thing"),
        ("DISTCORPUS_ALLOW", ""),
        ("DISTCORPUS_THREADS", "4"),
        ("DISTCORPUS_REFUSED_SHARE", "0.1"),
        ("DISTCORPUS_DISTRIBUTED", "0"),
    ],
)
def test_what_is_right_is_not_complained_of(name: str, right: str):
    assert wrong({name: right}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYRO_NS_PORT", ""),
        ("PYRO_NS_PORT", "99999"),
        ("PYRO_COMMTIMEOUT", "nan"),
        ("DISTCORPUS_THREADS", "0"),
    ],
)
def test_more_that_is_wrong(name: str, value: str):
    assert list(wrong({name: value})) == [name]

"""Values that options cannot have are one clear error, before anything is done."""

from __future__ import annotations

import pytest

from distcorpus.cli import main
from distcorpus.cli.commands import parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker", "--wait", "abc"], "--wait: 'abc': give a number of seconds, 0 or more, or 'forever'"),
        (["worker", "--wait", "inf"], "--wait: 'inf': give a number of seconds"),
        (["ssh", "alpha", "--wait", "forever"], "--wait: 'forever': give a number above 0"),
        (["worker", "--cache", "nan"], "--cache: 'nan': give a number, 0 or more"),
        (["worker", "--bind-port", "99999"], "--bind-port: '99999': give a port, from 0 to 65535"),
        (["status", "--port", "99999"], "--port: '99999': give a port, from 0 to 65535"),
        (["status", "--watch", "0"], "--watch: '0': give a number above 0"),
        (["dispatcher", "--memory", "nan"], "--memory: 'nan': give a number, 0 or more"),
        (["dispatcher", "--maxsize", "-4"], "--maxsize: '-4': give a whole number, 0 or more"),
        (["dispatcher", "--resume", "0"], "--resume: '0': give a number above 0"),
        (["dispatcher", "--threads", "1.5"], "--threads: '1.5': give a whole number above 0"),
        (["dispatcher", "--total-memory", "0"], "--total-memory: '0': give a number above 0"),
        (["ping", "--timeout", "0"], "--timeout: '0': give a number above 0"),
        (["ssh", "alpha", "--workers", "0"], "--workers: '0': give a whole number above 0"),
        (["demo", "--workers", "0"], "--workers: '0': give a whole number above 0"),
        (["head", "--port", "x"], "--port: 'x': give a port, from 0 to 65535"),
        (["certs", "init", "d", "--days", "0"], "--days: '0': give a number above 0"),
    ],
)
def test_a_value_that_cannot_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert f"error: argument {said}" in capsys.readouterr().err.replace("-p/--port/--bind-port", "--port")


def test_values_that_can_be():
    options = parser().parse_args(["dispatcher", "--wait", "forever", "--maxsize", "0", "--memory", "0"])
    assert (options.wait, options.maxsize, options.memory) == (float("inf"), 0, 0.0)
    assert parser().parse_args(["worker", "--wait", "0"]).wait == 0

"""Values that options cannot have are one clear error, before anything is done."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["worker", "--worker", "4"], "unrecognized arguments: --worker 4; did you mean --workers?"),
        (["status", "--jsn"], "unrecognized arguments: --jsn; did you mean --json?"),
        (["status", "--until-eo"], "unrecognized arguments: --until-eo"),
        (["ping", "-x"], "unrecognized arguments: -x"),
    ],
)
def test_an_unknown_option(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"distcorpus {arguments[0]}: error: {said}"


TRAIN = ["train", "lda", "--corpus", "c.mm", "--topics", "2", "--out", "m"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["head", "--tls-nameserver", "d"], "name the dispatcher's too, with --tls"),
        (["ssh", "alpha", "--insecure", "--days", "3"], "--days is for the certificates that --tls makes"),
        ([*TRAIN, "--no-broadcast"], "are for a cluster: give --cluster too"),
        ([*TRAIN, "--tls", "d"], "a cluster: give --cluster too"),
        ([*TRAIN, "--cluster", "--workers", "3"], "leave it out with --cluster"),
        (["doctor", "--here", "--port", "1"], "--here looks at no cluster"),
        (["doctor", "--address-file", "f", "--port", "1"], "leave out --host and --port"),
    ],
)
def test_an_option_that_would_do_nothing(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert said in str(exited.value.code)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (TRAIN, "--corpus c.mm: there is no such folder or file"),
        (
            [*TRAIN[:3], "here.mm", *TRAIN[4:], "--dictionary", "d"],
            "--dictionary d: No such file or directory",
        ),
        (
            ["nameserver", "--address-file", "/no/file"],
            "--address-file /no/file: there is no folder /no that",
        ),
        (["head", "--address-file", "/no/file"], "--address-file /no/file: there is no folder /no that"),
        (["dashboard", "--words", "/no/words"], "--words /no/words: No such file or directory"),
        (["dashboard", "--words", "latin"], "--words latin is no text in UTF-8"),
        (["corpus", "build", "here.mm", "--out", "o", "--stopwords", "w"], "--stopwords w: No such file"),
        (["ssh", "--hostfile", "h", "--insecure"], "--hostfile h: No such file or directory"),
    ],
)
def test_a_file_that_is_not_there(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.mm").touch()
    (tmp_path / "latin").write_bytes("0\tä\t1\n".encode("latin-1"))
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert str(exited.value.code).startswith(f"distcorpus {arguments[0]}: {said}")

"""The console command."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gensim.corpora import MmCorpus

from distcorpus import __version__
from distcorpus.cli import main
from distcorpus.cli.commands import COMMANDS
from distcorpus.wire import NameServerDaemon


def run(*arguments, environment=None, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "distcorpus", *arguments],
        env={**os.environ, **(environment or {}), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_version():
    assert run("--version").stdout.strip() == f"distcorpus {__version__}"


def test_every_module_of_a_command_is_composed():
    folder = Path(__file__).parents[2] / "distcorpus" / "cli"
    files = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "commands",
        "common",
        "service",
        "signals",
        "children",
        "node",
    }
    assert {module.__name__.rpartition(".")[2] for module in COMMANDS} == files


@pytest.mark.parametrize("command", [[module.__name__.rpartition(".")[2]] for module in COMMANDS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exited:
        main([*command, "--help"])
    assert exited.value.code == 0
    assert "usage: distcorpus " + command[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nameserver", "--bind-p", "0"],
        ["dispatcher", "--max", "3"],
        ["worker", "--worker", "4"],
        ["worker", "--thread=2"],
        ["demo", "--topic", "3"],
        ["status", "--ho", "127.0.0.1"],
        ["stop", "--po", "1"],
        ["certs", "issue", "somewhere", "--role", "worker", "--day", "3"],
        ["certs", "init", "somewhere", "--verb"],
        ["--vers", "status"],
    ],
)
def test_the_beginning_of_an_option_is_not_the_option(arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    usage, error = capsys.readouterr().err.split("error: ")
    assert usage.startswith(f"usage: distcorpus {'' if arguments[0].startswith('-') else arguments[0]}")
    assert re.search(r"unrecognized arguments: .*; did you mean --[a-z-]+\?$", error.strip())


def test_no_parser_of_ours_abbreviates():
    root = Path(__file__).parents[2]
    calls = 0
    for path in [*(root / "scripts").rglob("*.py"), *(root / "distcorpus").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser"):
                calls += 1
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("allow_abbrev") == "False", f"{path}:{node.lineno}"
    assert calls


def interrupt_as_it_waits(arguments, processes, number):
    """Send a signal to a daemon that waits for the name server; its exit code and what it says of itself."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.settimeout(60)
        where = ["--host", "127.0.0.1", "--port", str(nobody.getsockname()[1])]
        command = [sys.executable, "-m", "distcorpus", *arguments, *where]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            for _ in range(processes):  # each has looked for it once, and looks again
                nobody.accept()[0].close()
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
    assert "Traceback" not in errors
    return process.returncode, [line for line in errors.splitlines() if line.startswith("distcorpus")]


@pytest.mark.parametrize(
    ("arguments", "processes", "number"),
    [
        (["dispatcher"], 1, signal.SIGTERM),
        pytest.param(["dispatcher"], 1, signal.SIGINT, marks=pytest.mark.long),
        pytest.param(["worker"], 1, signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(["worker"], 1, signal.SIGINT, marks=pytest.mark.long),
        pytest.param(["worker", "--workers", "2"], 2, signal.SIGTERM, marks=pytest.mark.long),
        (["worker", "--workers", "2"], 2, signal.SIGINT),
    ],
)
def test_a_daemon_that_is_interrupted_as_it_waits_says_so_in_one_line(arguments, processes, number):
    code, lines = interrupt_as_it_waits(arguments, processes, number)
    assert code == 128 + number
    assert len(lines) == 1
    assert lines[0].startswith(f"distcorpus {arguments[0]}: interrupted")


@pytest.mark.parametrize("command", ["dispatcher", "worker"])
@pytest.mark.parametrize(
    ("wait", "said"),
    [
        pytest.param(["--wait", "forever"], "", id="forever", marks=pytest.mark.long),
        pytest.param([], ", for 60 s (--wait)", id="a minute"),
    ],
)
def test_a_daemon_says_at_once_what_it_waits_for(command, wait, said):
    """And goes on when that is there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port), "--no-broadcast", *wait]
    arguments = [sys.executable, "-m", "distcorpus", command, *where]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        assert first.startswith(f"distcorpus {command}: waiting for the name server{said}: tried ")
        assert f"127.0.0.1:{port}" in first
        nameserver = NameServerDaemon(port=port, broadcast=False)
        nameserver.start()
        try:
            assert process.stdout.readline().startswith(f"distcorpus {command} ")
            process.terminate()
            errors = process.communicate(timeout=60)[1]
        finally:
            nameserver.stop()
    assert "Traceback" not in errors


def heeds_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which background jobs of a shell ignore


def test_a_look_at_a_cluster_that_is_interrupted_says_so_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(60)
        command = [sys.executable, "-m", "distcorpus", "status", "--host", "127.0.0.1", "--port"]
        command.append(str(mute.getsockname()[1]))
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_sigint) as process:
            connection, _ = mute.accept()  # and never answered
            with connection:
                process.send_signal(signal.SIGINT)
                errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (130, "distcorpus status: interrupted\n")


def test_status(cluster):
    result = run("status", environment=cluster.environ())
    assert result.returncode == 0, result.stderr
    for worker in cluster.workers:
        assert str(worker.pid) in result.stdout


def test_status_without_a_cluster():
    result = run("status", "--host", "127.0.0.1", "--port", "1")
    assert result.returncode == 1
    assert "distcorpus nameserver" in result.stderr
    assert "Traceback" not in result.stderr


def test_demo():
    """Topics, places and times; the whole in under a minute on two cores."""
    result = run("demo")
    assert result.returncode == 0, result.stderr
    for part in (
        "LSI: the first topics",
        "LDA: the first topics",
        "Where it was computed",
        "gensim, serial",
        "here, no cluster",
        "gensim on 2 workers",
        "chunk 0",
    ):
        assert part in result.stdout
    for model in ("LSI", "LDA"):
        faster = r"\d+\.\d+ \(\d+\.\dx\)"
        assert re.search(rf"│ {model} +│ +\d+\.\d+ │ +{faster} │ +{faster} │", result.stdout), model


@pytest.mark.long
def test_demo_with_a_corpus_of_ones_own(lee_corpus, tmp_path):
    corpus, dictionary = str(tmp_path / "corpus.mm"), str(tmp_path / "dictionary")
    MmCorpus.serialize(corpus, lee_corpus.counts[:100])
    lee_corpus.dictionary.save(dictionary)
    result = run("demo", "--corpus", corpus, "--dictionary", dictionary, "--workers", "1", "--topics", "5")
    assert result.returncode == 0, result.stderr
    assert "100 documents" in result.stdout


@pytest.mark.long
def test_demo_needs_both_files():
    result = run("demo", "--corpus", "x.mm")
    assert result.returncode == 1
    assert "--dictionary" in result.stderr

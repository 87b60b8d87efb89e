"""Four terminals: the scripts as a user runs them, and a gensim program that has never heard of us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from distcorpus.wire import connect, find, list_names, lookup, names

from .conftest import wait_until

SCRIPTS = Path(__file__).parents[2] / "scripts"

UNTOUCHED = """
import sys
from gensim.models import LdaModel, LsiModel
from gensim.test.utils import common_corpus, common_dictionary

lsi = LsiModel(common_corpus, id2word=common_dictionary, num_topics=3, distributed=True)
lda = LdaModel(common_corpus, id2word=common_dictionary, num_topics=3, distributed=True)
print(len(lsi.projection.s), lsi.numworkers, lda.state.numdocs, lda.numworkers)
assert "distcorpus" not in sys.modules
try:
    LdaModel([[(0, -1)]], id2word=common_dictionary, num_topics=3, distributed=True)
except ValueError as error:
    print("refused:", error)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def script(name, *options, environment=None):
    process = subprocess.Popen(
        [sys.executable, SCRIPTS / f"run_{name}.py", *options],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def first_lines(process, number=3):
    return [process.stdout.readline().rstrip() for _ in range(number)]


def test_four_terminals_and_an_untouched_program():
    port = free_port()
    where = {"PYRO_NS_HOST": "127.0.0.1", "PYRO_NS_PORT": str(port)}
    with ExitStack() as terminals:
        # The name server last: the order does not matter.
        worker = terminals.enter_context(script("worker", "--name", "a", environment=where))
        dispatcher = terminals.enter_context(
            script("dispatcher", "--host", "127.0.0.1", "--port", str(port), "--no-broadcast")
        )
        pair = terminals.enter_context(
            script("worker", "--workers", "2", "--name", "pair", "--host", "127.0.0.1", "--port", str(port))
        )
        nameserver = terminals.enter_context(script("nameserver", "--bind-port", str(port)))

        assert first_lines(nameserver)[1] == f"listens on 127.0.0.1:{port}"
        lines = first_lines(dispatcher)
        assert lines[0].startswith("distcorpus dispatcher")
        assert f"name server 127.0.0.1:{port}" in lines[1]
        assert "BLAS: " in lines[2]
        lines = first_lines(worker)
        assert lines[0].startswith("distcorpus worker a ")
        assert "thread" in lines[2]

        ns = find("127.0.0.1", port, broadcast=False)
        status = connect(lookup(ns, names.DISPATCHER)).status
        wait_until(lambda: len(status()["workers"]) == 3, "the joining of three workers")
        assert {worker["name"] for worker in status()["workers"]} == {"a", "pair-0", "pair-1"}

        program = subprocess.run(
            [sys.executable, "-c", UNTOUCHED],
            env={**os.environ, **where, "PYRO_SERIALIZER": "pickle"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        lines = program.stdout.splitlines()
        assert lines[0] == "3 3 9 3"
        assert lines[1].startswith("refused: chunk 0")

        for process in (pair, worker, dispatcher):
            process.send_signal(signal.SIGTERM)
        for process in (pair, worker, dispatcher):
            assert process.wait(30) == 0
        assert list(list_names(ns)) == [names.NAME_SERVER]
        nameserver.send_signal(signal.SIGINT)
        assert nameserver.wait(30) == 0


def test_missing_name_server_is_one_clear_line():
    result = subprocess.run(
        [
            sys.executable,
            SCRIPTS / "run_worker.py",
            "--host",
            "127.0.0.1",
            "--port",
            str(free_port()),
            "--wait",
            "0.2",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "distcorpus nameserver" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_while_waiting_for_the_name_server():
    with script("dispatcher", "--host", "127.0.0.1", "--port", str(free_port()), "--wait", "600") as process:
        ready = Path(f"/proc/{process.pid}/status")
        # Signals reach it once Python has its handlers: SigCgt shows them.
        wait_until(
            lambda: int(ready.read_text().split("SigCgt:")[1].split()[0], 16) & (1 << 14), "its handlers"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) is not None


@pytest.mark.parametrize("options", [("--workers", "0"), ("--threads", "0")])
def test_senseless_options(options):
    result = subprocess.run(
        [sys.executable, SCRIPTS / "run_worker.py", *options], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert f"argument {options[0]}: '0': give a whole number above 0" in result.stderr


@pytest.mark.long
def test_name_server_that_restarts_learns_the_names_again():
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port), "--no-broadcast")
    with script("dispatcher", *where), script("worker", *where, "--name", "a"):
        expected = {*names.OF_THE_DISPATCHER, names.worker("a")}

        def registered():
            return expected <= set(list_names(find("127.0.0.1", port, broadcast=False, wait=60)))

        for _ in range(2):
            with script("nameserver", "--bind-port", str(port)):
                wait_until(registered, "the registration of all names")

"""Ctrl-C and SIGTERM: one line at most, an exit status that says so, nothing left behind."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distcorpus.cli import train
from distcorpus.cli.signals import Interrupted

from ..cluster.conftest import wait_until
from ..monitor.telling import TellingCluster

#: Sends itself a signal when it imports a module.
INTERRUPTED_IMPORT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
class Interrupting:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number:d})
sys.meta_path.insert(0, Interrupting)
from distcorpus.cli import main
main({arguments!r})
"""


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "distcorpus", *arguments], stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    ("arguments", "module", "number"),
    [
        (["status"], "Pyro4", signal.SIGINT),
        (["status"], "distcorpus._environment", signal.SIGINT),
        (["worker", "--wait", "0", "--port", "1"], "distcorpus.worker.daemon", signal.SIGINT),
        (["dispatcher", "--wait", "0", "--port", "1"], "distcorpus.dispatcher.dispatcher", signal.SIGTERM),
        (["demo"], "distcorpus.demo", signal.SIGINT),
        (["demo"], "gensim.models", signal.SIGTERM),
        (["train", "lda", "--corpus", "c", "--topics", "1", "--out", "m"], "gensim.models", signal.SIGTERM),
    ],
)
def test_while_it_imports(arguments: list[str], module: str, number: int):
    program = INTERRUPTED_IMPORT.format(arguments=arguments, module=module, number=number)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (128 + number, "distcorpus: interrupted\n")


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Interrupted")]
)
def test_an_exception_that_is_lost_in_a_callback_is_raised_again(number: int, raised: str):
    program = f"""
import os, signal, time, weakref
from distcorpus.cli.signals import raises_when_terminated
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
class Gone: pass
with raises_when_terminated():
    gone = Gone()
    callback = weakref.ref(gone, lambda reference: os.kill(os.getpid(), {number:d}))
    try:
        del gone
        time.sleep(600)
    except KeyboardInterrupt as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == (f"{raised}\n", "")


@pytest.fixture
def telling() -> Iterator[TellingCluster]:
    with TellingCluster() as cluster:
        yield cluster


def test_a_terminal_that_shows_a_cluster_is_as_it_was(telling: TellingCluster):
    ours, theirs = pty.openpty()
    where = ["--host", "127.0.0.1", "--port", str(telling._nameserver.port), "--no-broadcast"]
    environment = {**os.environ, "TERM": "xterm"}
    with start("status", "--watch", "0.1", *where, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while b"dispatcher" not in shown:
            shown += os.read(ours, 65536)
        assert b"\x1b[?1049h" in shown
        process.terminate()
        while b"\x1b[?1049l" not in shown or b"\x1b[?25h" not in shown:
            shown += os.read(ours, 65536)  # an error at its end
        assert process.communicate(timeout=60)[1] == "distcorpus status: interrupted\n"
    os.close(ours)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_build_ends_its_processes(tmp_path: Path):
    (tmp_path / "sleepy.py").write_text(
        f"import os, pathlib, time\n"
        f"def tokens(text):\n"
        f"    pathlib.Path({str(tmp_path)!r}, f'begun-{{os.getpid()}}').touch()\n"
        f"    time.sleep(600)\n"
    )
    (tmp_path / "texts.txt").write_text("some words\n" * 10)
    out = tmp_path / "news.corpus"
    arguments = ["--tokenizer", "sleepy:tokens", "--processes", "2", "--out", str(out)]
    with start("corpus", "build", "texts.txt", *arguments, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        wait_until(lambda: list(tmp_path.glob("begun-*")), "tokenizing")
        processes = children_of(process.pid)
        assert len(processes) == 2
        process.terminate()
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == "distcorpus corpus: interrupted"
    assert "Traceback" not in errors
    assert not any(map(alive, processes))
    assert not out.exists()


def test_the_demo_ends_its_cluster():
    with start("demo", stdout=subprocess.PIPE) as process:
        wait_until(lambda: len(children_of(process.pid)) == 4, "cluster")
        started = children_of(process.pid)
        process.terminate()
        errors = process.communicate(timeout=120)[1]
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "distcorpus demo: interrupted\n")
    assert not any(map(alive, started))


def test_a_model_whose_saving_is_interrupted_leaves_no_file(tmp_path: Path):
    (tmp_path / "model").write_text("the one before")

    def save(path: str) -> None:
        Path(f"{path}.state").write_text("whole")
        Path(path).write_text("half")
        raise Interrupted(signal.SIGTERM)

    model = SimpleNamespace(as_gensim=lambda: SimpleNamespace(save=save))
    with pytest.raises(Interrupted):
        train._save(model, str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_text() == "the one before"


def test_a_head_that_has_just_begun_removes_its_address_file(tmp_path: Path):
    path = tmp_path / "cluster.json"
    with start("head", "--port", "0", "--address-file", str(path), stdout=subprocess.DEVNULL) as process:
        wait_until(path.exists, "address file")
        process.terminate()
        errors = process.communicate(timeout=120)[1]
    assert "Traceback" not in errors
    assert process.returncode in (0, 128 + signal.SIGTERM)
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_silent_name_server_keeps_nobody(number: int):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(60)
        program = (
            "import signal; from distcorpus.cli import main; from distcorpus.wire import nameserver;"
            "signal.signal(signal.SIGINT, signal.default_int_handler); nameserver._FIND_SECONDS = 600;"
            f"main(['worker', '--host', '127.0.0.1', '--port', '{mute.getsockname()[1]}'])"
        )
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = mute.accept()  # and never answered
            with connection:
                process.send_signal(number)
                errors = process.communicate(timeout=60)[1]
    said = "distcorpus worker: interrupted while it waited for the name server\n"
    assert (process.returncode, errors) == (128 + number, said)

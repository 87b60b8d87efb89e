"""`status`, `ping` and `stop` at dispatchers that are older, or vanish, and readers that have seen enough."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from distcorpus.cli import main
from distcorpus.wire import expose, names

from ..monitor.telling import TellingCluster


class Old:
    """A dispatcher that does not tell of itself."""

    def __init__(self) -> None:
        self.ended = False

    @expose
    def ping(self) -> str:
        """Answer."""
        return "pong"

    @expose
    def exit(self, workers: bool = True) -> None:
        """Note that it was called."""
        self.ended = True


@pytest.fixture
def old() -> Iterator[TellingCluster]:
    with TellingCluster(Old) as cluster:
        yield cluster


@pytest.fixture
def telling() -> Iterator[TellingCluster]:
    with TellingCluster() as cluster:
        yield cluster


def where(cluster: TellingCluster) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(cluster._nameserver.port), "--no-broadcast"]


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distcorpus", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_an_older_dispatcher_is_ended_where_that_is_asked_for(
    old: TellingCluster, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit, match=r"of another version of distcorpus.*pass --yes to end it"):
        main(["stop", *where(old)])
    assert not old.dispatcher.ended
    main(["stop", "--yes", *where(old)])
    assert old.dispatcher.ended
    assert capsys.readouterr().out == "the dispatcher and its workers are ending\n"


def test_probes_of_an_older_dispatcher(old: TellingCluster, capsys: pytest.CaptureFixture[str]):
    main(["ping", *where(old)])
    assert " answers (" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="of another version of distcorpus"):
        main(["ping", "--workers", "1", *where(old)])


@pytest.mark.parametrize("what", [["nameserver"], ["worker", "--name", "w"]])
def test_only_a_dispatcher_is_asked_for_workers(what: list[str]):
    with pytest.raises(SystemExit, match="--workers is asked of the dispatcher"):
        main(["ping", *what, "--workers", "1"])


def test_a_worker_that_does_not_answer(telling: TellingCluster):
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        there = f"127.0.0.1:{frozen.getsockname()[1]}"
        telling._nameserver.nameserver.register(names.worker("w"), f"PYRO:w@{there}")
        said = (
            rf"ping: worker w at {there} does not answer within 0\.2 s \(--timeout\): see on its host whether"
        )
        with pytest.raises(SystemExit, match=said):
            main(["ping", "worker", "--name", "w", "--timeout", "0.2", *where(telling)])
    with pytest.raises(SystemExit, match=f"ping: worker w at {there} does not answer: .*refused"):
        main(["ping", "worker", "--name", "w", *where(telling)])


def test_a_name_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        port = frozen.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"tried 127\.0\.0\.1:{port} \(no answer within 0\.2 s\)"):
            main(["ping", "--timeout", "0.2", "--host", "127.0.0.1", "--port", str(port)])


def test_watching_goes_on_after_a_dispatcher_that_was_started_again(telling: TellingCluster):
    with start("status", "--json", "--watch", "0.05", *where(telling), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = map(json.loads, process.stdout)
        assert next(looks)["host"] == "h"
        telling.end()
        problem = next(look for look in looks if "problem" in look)
        assert list(problem) == ["problem"]
        assert problem["problem"]
        telling.begin()
        assert next(look for look in looks if "problem" not in look)["host"] == "h"
        assert telling.dispatcher.cursors[0] is None  # that of the one before means nothing to it
        process.kill()


@pytest.mark.parametrize("options", [[], ["--json"], ["--json", "--watch", "0.05"]])
def test_who_has_seen_enough_gets_no_complaint(telling: TellingCluster, options: list[str]):
    """As with `status --json | head -1`."""
    read, write = os.pipe()
    os.close(read)
    with start("status", *options, *where(telling), stdout=write) as process:
        os.close(write)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode != 0

"""Processes that a program starts while it has a `LocalCluster` open."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gensim.models
import joblib
import pytest
from gensim.test.utils import common_corpus, common_dictionary
from joblib.externals import loky

from distcorpus import LocalCluster, models
from distcorpus.wire import inherited

KINDS = {"gensim's": gensim.models.LsiModel, "ours": models.LsiModel}


def workers_found(kind: str) -> int:
    model = KINDS[kind](common_corpus, id2word=common_dictionary, num_topics=2, distributed=True)
    return int(model.numworkers)


def found_by_a_child(method: str, kind: str) -> int:
    with pool_of(method) as pool:
        return pool.submit(workers_found, kind).result(120)


def pool_of(method: str) -> Executor:
    if method == "loky":
        return loky.ProcessPoolExecutor(1)
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are, with none of other tests."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(inherited, "_open", {})
    return tmp_path / f"distcorpus-clusters-{os.getuid()}"


@pytest.mark.long
def test_pools_find_what_is_open_now(cluster):
    """They are older than one cluster, and outlive it; what is nested is found first, and TLS spoken."""

    with ExitStack() as stack:
        pools = [stack.enter_context(pool_of(method)) for method in ("fork", "forkserver", "spawn", "loky")]

        def find(*kinds: str) -> list[list[int]]:
            asked = [[pool.submit(workers_found, kind) for kind in kinds] for pool in pools]
            return [[answer.result(120) for answer in answers] for answers in asked]

        assert find("ours") == [[2]] * 4
        with LocalCluster(1, tls=True):
            assert find(*KINDS) == [[1, 1]] * 4
        assert find(*KINDS) == [[2, 2]] * 4


@pytest.mark.long
def test_joblib(cluster):
    """Its processes are kept for the next call; functions that are pickled whole import nothing of ours."""

    def find() -> tuple[int, int]:
        from gensim.models import LsiModel

        model = LsiModel(common_corpus, id2word=common_dictionary, num_topics=2, distributed=True)
        return model.numworkers, os.getpid()

    calls = [joblib.Parallel(2, backend="loky")(joblib.delayed(find)() for _ in range(2)) for _ in range(2)]
    assert {workers for call in calls for workers, _ in call} == {2}
    assert os.getpid() not in {process for call in calls for _, process in call}


@pytest.mark.long
def test_children_of_children(cluster):
    with pool_of("spawn") as pool:
        assert pool.submit(found_by_a_child, "spawn", "ours").result(120) == 2


@pytest.mark.long
def test_a_child_sees_what_the_thread_sees_that_started_it():
    both = threading.Barrier(2)

    def look(number: int) -> int:
        with LocalCluster(number):
            both.wait(120)
            found = found_by_a_child("spawn", "ours")
            both.wait(120)
            return found

    with ThreadPoolExecutor(2) as threads:
        looks = [threads.submit(look, number) for number in (1, 2)]
        assert [one.result(120) for one in looks] == [1, 2]


def seen() -> Any:
    return inherited.find()


def announce(port: int, folder: str | None = None) -> Callable[[], None]:
    return inherited.announce("127.0.0.1", port, folder, lambda: None)


KILLED = """
import os
from distcorpus.wire.inherited import announce
announce("127.0.0.1", 1, None, print)
os.kill(os.getpid(), 9)
"""


def test_nothing_is_left_to_find(folder):
    """Neither of a cluster that is closed, nor of a process that was killed; the environment is as before."""
    before = dict(os.environ)
    killed = subprocess.run([sys.executable, "-c", KILLED], env={**before, "TMPDIR": str(folder.parent)})
    assert killed.returncode == -9
    assert len(list(folder.iterdir())) == 1
    outer, inner = announce(1), announce(2, "/certificate")
    (file,) = folder.iterdir()
    assert file.name.startswith(f"{os.getpid()}-")
    assert [path.stat().st_mode & 0o777 for path in (folder, file)] == [0o700, 0o600]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(seen).port == 2
        outer()
        assert (pool.apply(seen).port, pool.apply(seen).folder) == (2, "/certificate")
        inner()
        assert pool.apply(seen) is None
    assert list(folder.iterdir()) == []
    assert os.environ == before


def test_a_folder_of_others_is_not_used(folder, caplog):
    folder.mkdir()
    folder.chmod(0o777)
    file = folder / inherited._name_of(os.getpid())
    file.write_text('[{"host": "evil", "port": 1, "folder": null, "thread": 0}]')
    undo = announce(1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(seen) is None
    undo()
    assert "only this user can write" in caplog.text

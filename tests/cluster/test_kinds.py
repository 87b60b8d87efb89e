"""Workers with different kernels, which do not give the same bits: no training has two kinds of them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import gensim.models
import pytest

from distcorpus import LocalCluster
from distcorpus._version import __version__
from distcorpus.engines.kinds import Kinds, WorkerInfo, best_of, read_status
from distcorpus.engines.schedule import Schedule
from distcorpus.models import LdaModel, LsiModel
from distcorpus.wire import Daemon, expose, find, names, register, unregister

from .conftest import wait_until
from .test_failures import Hooked
from .test_worker_limits import worker_of

pytest.importorskip("numba")
KINDS = [LdaModel, LsiModel, gensim.models.LdaModel, gensim.models.LsiModel]


@pytest.fixture(scope="module")
def no_numba(tmp_path_factory):
    """The variables of a process that has no numba."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(folder)}


def train(kind, corpus, documents=None):
    lda = issubclass(kind, gensim.models.LdaModel)
    options = {"id2word": corpus.dictionary, "num_topics": 12, "chunksize": 30, "distributed": True}
    if lda:
        options |= {"random_state": 1, "update_every": 0, "eval_every": None, "passes": 2}
    model = kind(documents or (corpus.counts if lda else corpus.tfidf), **options)
    return model.state.sstats.tobytes() if lda else model.projection.u.tobytes()


def computed_by(cluster):
    session = cluster.dispatcher.recorded_sessions()[-1]
    return {record["worker"] for record in cluster.dispatcher.records(session)}


@pytest.mark.parametrize(
    "kind", KINDS[:2] + [pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[2:]]
)
def test_no_training_has_two_kinds(cluster, no_numba, lee_corpus, kind):
    """However many of the lesser kind there are, and in repeated runs."""
    expected = train(kind, lee_corpus)
    with worker_of(cluster, "--threads", "4", name="numpy-1", variables=no_numba):
        found = {worker["name"]: worker["kernels"] for worker in cluster.dispatcher.status()["workers"]}
        assert found.pop("numpy-1").startswith("numpy ")
        assert all(kernels.startswith("numba ") for kernels in found.values())
        for _ in range(3):
            assert train(kind, lee_corpus) == expected
            assert computed_by(cluster) <= found.keys()


@pytest.mark.long
def test_those_without_numba_train_where_there_are_no_others(no_numba, lee_corpus):
    with LocalCluster(0) as cluster, worker_of(cluster, name="numpy-1", variables=no_numba):
        alone = train(LdaModel, lee_corpus)

        def scale():
            cluster._add_workers(1)
            wait_until(lambda: len(cluster.dispatcher.status()["workers"]) == 2, "its joining")

        # A better worker that comes in the middle of it does not take part; the next training is its own.
        assert train(LdaModel, lee_corpus, Hooked(lee_corpus.counts, 100, scale)) == alone
        assert computed_by(cluster) == {"numpy-1"}
        train(LdaModel, lee_corpus)
        assert computed_by(cluster) == {cluster.workers[0].name}
        model = LdaModel(id2word=lee_corpus.dictionary, num_topics=2, distributed=True)
        assert model.numworkers == 1
        status = subprocess.run(
            [sys.executable, "-m", "distcorpus", "status"],
            env={**os.environ, **cluster.environ(), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "numpy " in status.stdout
        assert "numba " in status.stdout
        assert "each training run uses those of one kind" in status.stdout


@pytest.mark.long
@pytest.mark.timeout(900)  # the kernels are compiled for another CPU
@pytest.mark.parametrize(
    "cpu",
    [
        {"NUMBA_CPU_NAME": "haswell"},
        {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2,-avx,-avx2,-fma,-avx512f"},
    ],
    ids=["no AVX-512", "no AVX2"],
)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are CPUs of x86")
def test_workers_without_wide_vectors_give_the_same_bytes(cluster, lee_corpus, cpu):
    """What numba compiles for another CPU is rounded alike."""
    with LocalCluster(0) as older, worker_of(older, name="older", variables=cpu):
        with_older = [train(kind, lee_corpus) for kind in KINDS]
    assert [train(kind, lee_corpus) for kind in KINDS] == with_older


GOOD = {"version": __version__, "host": "h", "pid": 1, "threads": 1, "kernels": "numba 1.0"}


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": float("nan")},
        {"threads": 0},
        {"threads": -1},
        {"threads": 10**9},
        {"threads": 1.5},
        {"threads": True},
        {"threads": "2"},
        {"threads": 10**5000},
        {"pid": None},
        {"host": 3},
        {"kernels": ""},
        {"kernels": "numba\n1"},
        {"kernels": "x" * 10**6},
        {"version": "0"},
        {"version": None},
    ],
)
def test_a_status_that_cannot_be(changes):
    assert read_status("w", "uri", GOOD).threads == 1
    with pytest.raises(RuntimeError, match=f"version|{next(iter(changes))}") as caught:
        read_status("w", "uri", {**GOOD, **changes})
    assert len(str(caught.value)) < 200


class Liar:
    """A worker that says something odd of itself."""

    @expose
    def status(self):
        return {**GOOD, "threads": float("nan")}


def test_a_worker_with_such_a_status_is_refused_by_name(lee_corpus, capfd):
    with LocalCluster(1, verbose=True) as cluster:
        daemon = Daemon()
        uri = daemon.serve(names.worker("liar"), Liar())
        daemon.start()
        environ = cluster.environ()
        nameserver = find(environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"]), broadcast=False)
        register(nameserver, names.worker("liar"), uri)
        try:
            said = []

            def complained():
                said.append(capfd.readouterr().err)
                return "worker liar" in "".join(said) and "threads=nan" in "".join(said)

            wait_until(complained, "the refusal")
            train(LdaModel, lee_corpus)
            assert [worker["name"] for worker in cluster.dispatcher.status()["workers"]] == [
                worker.name for worker in cluster.workers
            ]
        finally:
            unregister(nameserver, names.worker("liar"), uri)
            daemon.stop()


def info(name, kernels, threads=1):
    return WorkerInfo(name, "uri", "host", 1, threads, "ready", kernels)


def test_the_better_kind():
    """Compiled kernels before others, then many threads, then the newest."""
    assert best_of([]) is None
    assert best_of([info("a", "numpy 2.0", 64), info("b", "numba 0.60")]) == "numba 0.60"
    assert best_of([info("a", "numba 0.60", 3), info("b", "numba 0.61", 2)]) == "numba 0.60"
    assert best_of([info("a", "numba 0.9.1"), info("b", "numba 0.60.0")]) == "numba 0.60.0"


def test_sessions_that_wait_for_their_first_worker_take_its_kind():
    kinds = Kinds(Schedule)
    waiting = kinds.begin("s", [])
    assert kinds.kernels_of("s") is None
    assert kinds.of("numpy 2.0") is waiting
    assert kinds.kernels_of("s") == "numpy 2.0"
    kinds.require("t", "numba 0.60")
    assert kinds.begin("t", [info("a", "numpy 2.0")]) is not waiting
    assert kinds.kernels_of("t") == "numba 0.60"
    kinds.end("s")
    kinds.prune([])
    assert kinds.of("numpy 2.0") is not waiting

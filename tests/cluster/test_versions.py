"""Processes of other versions: what cannot work is refused on both sides, what can change bits is told."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import contextmanager

import gensim.models
import pytest

from distcorpus import LocalCluster
from distcorpus._version import __version__, __wire__
from distcorpus.kernels.build import PARTS, contradiction, differences, read_build, this_build
from distcorpus.models import LdaModel, LsiModel, _cluster

from .conftest import wait_until

KINDS = [LdaModel, LsiModel]


@contextmanager
def worker(cluster, folder, code):
    """A worker before whose start some code is run; yields a function that returns its log."""
    (folder / "sitecustomize.py").write_text(code)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "distcorpus", "worker", "--no-broadcast", "--name", "odd"],
            env={**os.environ, **cluster.environ("worker"), "PYTHONPATH": str(folder)},
            stderr=log,
        )
    try:
        yield lambda: (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(60)


def status_of(cluster):
    command = [sys.executable, "-m", "distcorpus", "status"]
    env = {**os.environ, **cluster.environ(), "COLUMNS": "300"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A cluster, and a function that returns what its daemons have logged."""
    path = tmp_path_factory.mktemp("logged") / "log"
    stderr = os.dup(2)
    with open(path, "w") as log:
        os.dup2(log.fileno(), 2)  # which its processes inherit
    try:
        cluster = LocalCluster(1, verbose=True)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    with cluster:
        yield cluster, path.read_text


@pytest.fixture
def verbose(logged):
    return logged[0]


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ("__version__ = '9.9'", "9.9 (wire unknown)"),
        pytest.param("__wire__ = 99", f"{__version__} (wire 99)", marks=pytest.mark.long),
    ],
)
def test_a_worker_of_another_version_is_refused_on_both_sides(logged, lee_corpus, tmp_path, changes, has):
    """It is told, the dispatcher logs it, `status` shows it, and a training goes without it."""
    cluster, dispatcher_log = logged
    refusal = f"the worker has distcorpus {has}, the dispatcher {__version__} (wire {__wire__})"
    with worker(cluster, tmp_path, f"import distcorpus._version as v\nv.{changes}\n") as log:
        wait_until(lambda: refusal in log(), "the worker's being told")
        assert log().count("the dispatcher refuses this worker") == 1
        assert f"pip install distcorpus=={__version__}" in log()
        (said,) = [line for line in dispatcher_log().splitlines() if f"cannot be used: {refusal}" in line]
        assert "worker odd at PYRO:distcorpus.worker.odd@" in said
        assert "has to be reachable" not in said
        assert f"worker odd cannot be used: {refusal}" in status_of(cluster)
        model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=2, distributed=True)
        assert model.numworkers == 1
    wait_until(lambda: not cluster.dispatcher.status()["refused"], "its being forgotten")


@pytest.mark.parametrize("changes", [{"distcorpus": "9.9"}, {"wire": "99"}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_another_version_is_refused_on_both_sides(
    logged, lee_corpus, monkeypatch, kind, changes
):
    build = {**this_build(), **changes}
    has, wanted = f"{build['distcorpus']} (wire {build['wire']})", f"{__version__} (wire {__wire__})"
    refusal = f"the program has distcorpus {has}, the dispatcher {wanted}"
    before = logged[1]().count(refusal)
    monkeypatch.setattr(_cluster, "this_build", lambda: build)
    with pytest.raises(RuntimeError) as raised:
        kind(lee_corpus.counts, id2word=lee_corpus.dictionary, num_topics=2, distributed=True)
    assert refusal in str(raised.value)
    assert f"pip install distcorpus=={__version__}" in str(raised.value)
    assert logged[1]().count(f"refused a program: {refusal}") == before + 1
    # The next one is served.
    monkeypatch.undo()
    kind(lee_corpus.counts, id2word=lee_corpus.dictionary, num_topics=2, distributed=True)


def test_a_dispatcher_of_another_version_is_refused_by_the_program():
    """One that knows no greeting, and one that takes any program."""

    class Old:
        def __getattr__(self, name):
            raise AttributeError(name)

    class Careless:
        def hello(self, build):
            return {"build": {**this_build(), "wire": "0"}, "may_differ": []}

    for proxy, message in ((Old(), "does not say which"), (Careless(), r"the dispatcher .* \(wire 0\)")):
        with pytest.raises(RuntimeError, match=rf"{message}(.|\n)*nstall"):
            _cluster._met(proxy)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import numpy\nnumpy.__version__ = '9.9.9'\n", "numpy 9.9.9 of worker odd"),
        ("import sys\nsys.modules['numba'] = None\n", "numba none of worker odd"),
        (
            "import distcorpus.kernels.kind as kind\nkind.instructions = lambda: 'no vectors'\n",
            "vectors no vectors of worker odd",
        ),
    ],
    ids=["numpy", "no numba", "vectors"],
)
@pytest.mark.long
def test_what_may_change_bits_is_told(verbose, lee_corpus, tmp_path, caplog, monkeypatch, code, told):
    """To our models, once, and by `status`; gensim's own class says nothing of itself and is served."""
    monkeypatch.setattr(_cluster, "_told", set())
    options = {"id2word": lee_corpus.dictionary, "num_topics": 2, "distributed": True}
    with worker(verbose, tmp_path, code), caplog.at_level(logging.WARNING, "distcorpus"):
        wait_until(lambda: len(verbose.dispatcher.status()["workers"]) == 2, "its joining")
        for kind in KINDS:
            kind(lee_corpus.counts, **options)
        lines = [
            record.message for record in caplog.records if "may differ in their last bits" in record.message
        ]
        assert len(lines) == 1
        assert told in lines[0]
        assert told in status_of(verbose)
        assert "builds differ" in status_of(verbose)
        gensim.models.LsiModel(lee_corpus.tfidf, **options)
    caplog.clear()
    wait_until(lambda: len(verbose.dispatcher.status()["workers"]) == 1, "its leaving")
    LsiModel(lee_corpus.tfidf, **options)
    assert not [record for record in caplog.records if "may differ" in record.message]
    assert "builds differ" not in status_of(verbose)


def test_builds():
    build = this_build()
    assert tuple(build) == PARTS
    assert read_build(build) == build
    assert read_build({"numpy": "1"})["scipy"] == "unknown"
    assert contradiction(build, dict(build), "x") is None
    assert differences(build, dict(build), "a", "b") == []
    assert differences(build, {**build, "python": "2.7"}, "a", "b") == []
    for part in ("numpy", "scipy", "numba", "kernels", "machine", "vectors"):
        (found,) = differences(build, {**build, part: "other"}, "a", "b")
        assert found == f"{part} other of b, {build[part]} of a"
    more = {**build, "kernels": build["kernels"] + ", of its own 7"}
    assert differences(build, more, "a", "b") == differences(more, build, "a", "b") == []
    newer = {**build, "kernels": "of its own 7, lda 999"}
    (found,) = differences(build, newer, "a", "b")
    assert found == f"kernels {newer['kernels']} of b, {build['kernels']} of a"
    for wrong in (None, [], {"numpy": 3}, {"numpy": ""}, {"numpy": "a\nb"}, {"numpy": "x" * 1000}):
        with pytest.raises(ValueError, match="build"):
            read_build(wrong)

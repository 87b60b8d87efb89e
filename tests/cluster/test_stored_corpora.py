"""Training on a cluster whose workers read the documents themselves, to the same bytes as of a list."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gensim.corpora import Dictionary

from distcorpus import Corpus, LdaModel, LocalCluster, LsiModel
from distcorpus.corpora import writing

from .conftest import wait_until
from .test_restart import Reached
from .test_resume import ResumingCluster

RNG = np.random.default_rng(8)
TEXTS = [[f"w{n}" for n in RNG.zipf(1.3, 40) if n < 300] for _ in range(700)]
TEXTS[40] = []
DICTIONARY = Dictionary(TEXTS)
BAGS = [DICTIONARY.doc2bow(text) for text in TEXTS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(writing, "SHARD_ENTRIES", 4000)
        return Corpus.write(root / "deep" / "c", BAGS, DICTIONARY)


@pytest.fixture(scope="module")
def reading(corpus: Corpus, root: Path) -> Iterator[LocalCluster]:
    """A cluster that has the corpus."""
    with LocalCluster(n_workers=2, corpora=[root]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def lacking(corpus: Corpus) -> Iterator[LocalCluster]:
    """A cluster that has not."""
    with LocalCluster(n_workers=2) as cluster:
        yield cluster


def at(cluster: LocalCluster) -> dict:
    where = cluster.environ()
    ns_conf = {"host": where["PYRO_NS_HOST"], "port": int(where["PYRO_NS_PORT"]), "broadcast": False}
    return {"distributed": True, "ns_conf": ns_conf}


def lda(documents, **options) -> bytes:
    options = {"num_topics": 5, "chunksize": 100, "random_state": 1, **options}
    model = LdaModel(documents, id2word=DICTIONARY, **options)
    return model.get_topics().tobytes() + model.alpha.tobytes()


def lsi(documents, **options) -> bytes:
    model = LsiModel(documents, id2word=DICTIONARY, num_topics=5, **{"chunksize": 100, **options})
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def maps(pid: int | str) -> set[str]:
    """Return the names of the corpora's files that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.rpartition("/")[2] for line in lines if line.endswith(".npy")}


def documents_in(names: set[str]) -> set[str]:
    return {name for name in names if name.endswith(("-data.npy", "-indices.npy"))}


TRAININGS = {
    "lda": (lda, lambda c: c, {}),
    "lda of a slice, several passes": (lda, lambda c: c[37:650], {"passes": 3, "alpha": "auto"}),
    "lda in one update": (lda, lambda c: c, {"update_every": 0, "chunksize": 1000}),
    "lsi": (lsi, lambda c: c[5:], {}),
    "lsi with decay": (lsi, lambda c: c, {"decay": 0.7}),
    "lsi of tf-idf": (lsi, lambda c: c.tfidf(), {}),
    "lsi of a slice of tf-idf": (lsi, lambda c: c.tfidf("ltu")[100:600], {"dtype": np.float32}),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_bytes_are_those_of_a_list(reading, lacking, corpus: Corpus, name: str):
    train, view, options = TRAININGS[name]
    wanted = train(list(view(corpus)), workers=1, **options)
    assert train(view(corpus), **at(reading), **options) == wanted
    assert train(view(corpus), **at(lacking), **options) == wanted


def test_only_workers_read_documents(reading: LocalCluster, corpus: Corpus, root: Path, tmp_path: Path):
    shutil.copytree(root / "deep" / "c", tmp_path / "client")
    mine = Corpus(tmp_path / "client")
    for path in documents_in({path.name for path in mine.directory.iterdir()}):
        (mine.directory / path).unlink()
    lda(mine, **at(reading), passes=2)
    lsi(mine, **at(reading))
    lsi(mine.tfidf(), **at(reading))
    model = LdaModel(BAGS, id2word=DICTIONARY, num_topics=5, random_state=1, **at(reading))
    assert sum(map(len, model.transform(mine, 100))) == len(BAGS)
    assert not documents_in(maps(reading.dispatcher_pid))
    assert all(documents_in(maps(worker.pid)) for worker in reading.workers)


def evaluations(model: LdaModel, documents, **options) -> list:
    """What evaluations of documents come to, each from the same start."""
    found = []
    for evaluate in (
        lambda: np.concatenate(list(model.transform(documents, 100, **options))),
        lambda: model.bound(documents, **options),
        lambda: model.log_perplexity(documents, **options),
        lambda: [list(topics) for topics in model[documents]],
    ):
        model.random_state = np.random.RandomState(2)
        found.append(evaluate())
    return found


@pytest.mark.parametrize("view", [lambda c: c, lambda c: c[37:650], lambda c: c[:40]])
def test_evaluations_are_those_of_a_list(reading, lacking, corpus: Corpus, view):
    """Of some chunks, and of one."""
    model = LdaModel(BAGS, id2word=DICTIONARY, num_topics=5, chunksize=100, random_state=1, **at(reading))
    here = evaluations(model, list(view(corpus)), distributed=False)
    for cluster in (reading, lacking):
        model.ns_conf = at(cluster)["ns_conf"]
        for options in ({}, {"distributed": True}):
            wanted = evaluations(model, list(view(corpus)), **options)
            found = evaluations(model, view(corpus), **options)
            assert found[0].tobytes() == wanted[0].tobytes() == here[0].tobytes()
            assert found[1:] == wanted[1:]
            assert found[1:3] == here[1:3]


def test_a_failed_evaluation_of_documents_that_nobody_has(lacking, corpus: Corpus, tmp_path: Path):
    """The error says what is missing, and the cluster serves on."""
    shutil.copytree(corpus.directory, tmp_path / "client")
    mine = Corpus(tmp_path / "client")
    model = LdaModel(BAGS, id2word=DICTIONARY, num_topics=5, **at(lacking))
    for path in documents_in({path.name for path in mine.directory.iterdir()}):
        (mine.directory / path).unlink()
    with pytest.raises((OSError, ValueError), match=r"-(data|indices)\.npy"):
        list(model.transform(mine, 100))
    assert len(list(model.transform(corpus, 100))) == 7


@pytest.mark.long
def test_the_dispatcher_reads_for_workers_that_lack_it(
    reading: LocalCluster, corpus: Corpus, root: Path, tmp_path: Path
):
    """So that the client, whose copy has no documents, sends none."""
    shutil.copytree(root / "deep" / "c", tmp_path / "client")
    mine = Corpus(tmp_path / "client")
    for path in documents_in({path.name for path in mine.directory.iterdir()}):
        (mine.directory / path).unlink()
    with LocalCluster(1, dispatcher_options=(f"--corpora={root}",)) as cluster:
        assert lda(mine, **at(cluster)) == lda(BAGS, workers=1)
        assert documents_in(maps(cluster.dispatcher_pid))
        with another_worker(cluster, "--corpora", str(root)) as pid:  # and now there is one of each kind
            assert lda(mine, **at(cluster), passes=4) == lda(BAGS, workers=1, passes=4)
            assert lsi(mine.tfidf(), **at(cluster)) == lsi(list(corpus.tfidf()), workers=1)
            assert documents_in(maps(pid))


@contextmanager
def another_worker(cluster: LocalCluster, *options: str) -> Iterator[int]:
    """Run a worker beside those of a cluster."""
    command = [sys.executable, "-m", "distcorpus", "worker", "--no-broadcast", "--name", "another", *options]
    environ = {**os.environ, **cluster.environ("worker")}
    with subprocess.Popen([*command, "--until-eof"], env=environ, stdin=subprocess.PIPE) as process:
        try:
            wait_until(
                lambda: "another" in {worker["name"] for worker in cluster.dispatcher.status()["workers"]},
                "the other worker's joining",
            )
            yield process.pid
        finally:
            process.terminate()


def test_the_perplexity_is_that_of_documents_that_are_sent(reading, corpus: Corpus, caplog):
    """And costs the dispatcher no document."""
    found = []
    for documents in (corpus, BAGS):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="gensim.models.ldamodel"):
            lda(documents, eval_every=2, **at(reading))
        found.append([record.getMessage() for record in caplog.records if "per-word bound" in record.msg])
    assert len(found[0]) == 4
    assert found[0] == found[1]
    assert not documents_in(maps(reading.dispatcher_pid))


def test_documents_are_added_as_if_all_had_come_at_once(reading, corpus: Corpus, caplog):
    options = {"id2word": DICTIONARY, "num_topics": 5, "chunksize": 100, "workers": 1}
    whole = LsiModel(BAGS, **options)
    options |= at(reading)
    del options["workers"]
    model = LsiModel(corpus[:300], **options)
    model.add_documents(corpus[300:])
    assert model.projection.s.tobytes() == whole.projection.s.tobytes()
    for rest in (BAGS[300:], iter(BAGS[300:])):  # what is sent comes after what was referred to
        model = LsiModel(corpus[:300], **options)
        model.add_documents(rest)
        assert model.projection.s.tobytes() == whole.projection.s.tobytes()
    assert "leading factors" not in caplog.text


class At(Reached):
    """Stops a training when its program hears of an update with so many `of` something."""

    def __init__(self, of: str, number: int) -> None:
        super().__init__()
        self._of, self._number = of, number

    def __call__(self, event: dict) -> None:
        if event["kind"] == "update" and event[self._of] >= self._number:
            self.stop()


@pytest.mark.long
def test_a_worker_that_is_killed_and_a_dispatcher_that_is(
    corpus: Corpus, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    quiet = lda(BAGS, workers=1, passes=12)
    spool = tmp_path / "spool"
    with LocalCluster(2, corpora=[root], dispatcher_options=("--spool", str(spool), "--resume")) as cluster:
        updates = At("updates", 3)
        with ThreadPoolExecutor(1) as client:
            training = client.submit(lda, corpus, progress=updates, passes=12, **at(cluster))
            assert updates.there.wait(60)
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            updates.go_on.set()
            assert training.result(timeout=90) == quiet
        resuming = ResumingCluster(cluster, spool)
        trainings = (
            (At("updates", 2), partial(lda, corpus, passes=12), quiet),
            (At("documents", 400), partial(lsi, corpus.tfidf()), lsi(list(corpus.tfidf()), workers=1)),
        )
        with caplog.at_level(logging.INFO, logger="distcorpus.models._cluster"):
            for reached, train, wanted in trainings:
                run = partial(train, progress=reached, **at(cluster))
                assert resuming.killed_and_restarted(reached, run) == wanted
        resuming.close()
    assert caplog.text.count("the training run goes on: the dispatcher has") == 2


def test_a_damaged_shard_is_refused_with_its_name(corpus: Corpus, root: Path, tmp_path: Path):
    shutil.copytree(root / "deep" / "c", tmp_path / "c")
    path = tmp_path / "c" / "shard-00001-indices.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with LocalCluster(1, corpora=[tmp_path]) as cluster:
        with pytest.raises(RuntimeError, match=r"shard-00001-indices.npy has been changed"):
            lda(corpus, **at(cluster))
        assert lda(BAGS, **at(cluster)) == lda(BAGS, workers=1)  # it serves the next one

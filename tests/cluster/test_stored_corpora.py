"""Training on a cluster whose workers read the documents themselves, to the same bytes as of a list."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gensim.corpora import Dictionary

from distcorpus import Corpus, LdaModel, LocalCluster, LsiModel
from distcorpus.corpora import writing

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
    assert not documents_in(maps(reading.dispatcher_pid))
    assert all(documents_in(maps(worker.pid)) for worker in reading.workers)


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

"""One training run, any engine: the same bytes, whatever engine computes them and however documents come."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from gensim.corpora import MmCorpus

from distcorpus import Corpus, LocalCluster
from distcorpus.models import LdaModel, LsiModel

from .conftest import NUM_TERMS

KINDS = {
    "threads": ["lists", "matrix", "corpus", "mm"],
    "pyro": ["lists", "matrix", "corpus", "mm"],
    "dask": ["lists", "matrix", "corpus", "mm", "bag"],
}
WHAT = ["lda", "lda of many topics", "lsi", "transform", "bound"]


def cases() -> Iterator[Any]:
    for engine, kinds in KINDS.items():
        for kind in kinds:
            for what in WHAT:
                # What is on disk comes as a matrix does, and many topics are one way of sending sums.
                repeats = kind in ("corpus", "mm") and what != "lda"
                repeats |= kind != "lists" and what == "lda of many topics"
                marks = [pytest.mark.long] if repeats and engine != "threads" else []
                yield pytest.param(engine, kind, what, marks=marks)


@pytest.fixture(scope="module")
def pyro() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def stored(corpus, tmp_path_factory) -> dict[str, Any]:
    """The documents on disk."""
    folder = tmp_path_factory.mktemp("stored")
    written = Corpus.write(folder / "c", corpus, dict.fromkeys(range(NUM_TERMS), "a"))
    written.to_mm(folder / "c.mm")
    return {"corpus": written, "mm": MmCorpus(str(folder / "c.mm"))}


@pytest.fixture(scope="module")
def model(corpus, dictionary) -> LdaModel:
    return LdaModel(corpus[:300], num_topics=7, id2word=dictionary, chunksize=150, random_state=5)


def compute(what: str, model: LdaModel, documents: Any, dictionary: Any, engine: dict[str, Any]) -> bytes:
    """Return what comes out, as bytes; `engine` are the arguments that choose one."""
    if what in ("lda", "lda of many topics"):
        options: dict[str, Any] = {"num_topics": 7, "chunksize": 150, "passes": 2, "random_state": 5}
        if what == "lda of many topics":  # so that partials are sparse
            options["num_topics"] = 80
        lda = LdaModel(documents, id2word=dictionary, alpha="auto", **options, **engine)
        return lda.state.sstats.tobytes() + lda.alpha.tobytes()
    if what == "lsi":
        projection = LsiModel(documents, id2word=dictionary, num_topics=9, chunksize=150, **engine).projection
        return projection.u.tobytes() + projection.s.tobytes()
    model = copy.deepcopy(model)  # which draws a seed
    where = engine if "workers" not in engine else {"distributed": False}
    if what == "transform":
        return b"".join(part.tobytes() for part in model.transform(documents, **where))
    return model.bound(documents, **where).hex().encode()


@pytest.fixture(scope="module")
def expected(model, corpus, dictionary) -> dict[str, bytes]:
    """What one thread makes of lists."""
    return {what: compute(what, model, corpus, dictionary, {"workers": 1}) for what in WHAT}


def arguments_of(engine: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the arguments that choose an engine."""
    if engine == "threads":
        return {"workers": 2}
    if engine == "pyro":
        request.getfixturevalue("pyro")
        return {"distributed": True}
    return {"client": request.getfixturevalue("client")}


@pytest.mark.parametrize(("engine", "kind", "what"), cases())
def test_equal_bytes(request, model, corpus, matrix, stored, dictionary, expected, engine, kind, what):
    arguments = arguments_of(engine, request)
    documents = {"lists": corpus, "matrix": matrix, **stored}.get(kind)
    if kind == "bag":
        import dask.bag

        documents = dask.bag.from_sequence(corpus, npartitions=7)
    assert compute(what, model, documents, dictionary, arguments) == expected[what]


class Stream:
    """A corpus that can be read again and has no length."""

    def __init__(self, documents: list[Any]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[Any]:
        return iter(self._documents)


@pytest.mark.parametrize("engine", ["threads", "pyro", "dask"])
@pytest.mark.parametrize("kind", [Stream, iter])
def test_a_corpus_of_unknown_length(request, corpus, dictionary, engine, kind):
    """Fewer documents than a chunk has are a step of the learning rate, as they are in a list."""
    options = {"id2word": dictionary, "num_topics": 7, "passes": 3, "random_state": 5}
    arguments = arguments_of(engine, request)
    few = corpus[:200]
    expected = LdaModel(few, workers=1, **options)
    model = LdaModel(kind(few), **arguments, **options)
    assert model.state.sstats.tobytes() == expected.state.sstats.tobytes()
    for one, documents in ((model, kind(few[:50])), (expected, few[:50])):
        one.update(documents)
    assert model.state.sstats.tobytes() == expected.state.sstats.tobytes()
    for one, documents in ((model, kind(few[:50])), (expected, few[:50])):
        one.update(documents, chunksize=100)
    assert model.state.sstats.tobytes() == expected.state.sstats.tobytes()

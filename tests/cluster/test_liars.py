"""Workers that lie, with and without a certificate: refused, named, dropped for good; the same bytes."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from distcorpus import LdaModel, LocalCluster, LsiModel
from distcorpus.algorithms.chunk import as_chunk, words_in
from distcorpus.engines.answers import Computed, FalseAnswer, read_answer
from distcorpus.engines.base import Block
from distcorpus.kernels import EStep, EStepParams, Inference, InferenceParams, Product, ProductParams, run
from distcorpus.wire import (
    Credentials,
    Daemon,
    expose,
    find,
    names,
    register,
    roles,
    sliced,
    unregister,
    use_tls,
)
from distcorpus.worker.daemon import Worker, _reply

from .conftest import wait_until


class Liar(Worker):
    """Computes what it is told to, and answers something else."""

    def __init__(self, name, lie):
        super().__init__(name)
        self.lie, self.answers = lie, []

    @expose
    @sliced
    def process(self, job: dict[str, Any]) -> Any:
        answer = self._process(job)
        if answer.keys() & {"missing", "handed_back"}:
            return answer
        self.answers.append(answer)
        return self.lie(self, answer)


def of_partial(change):
    """A lie about words, steps or extras."""

    def lie(liar, answer):
        words, steps, extras = answer["partial"]
        return {**answer, "partial": change(words.copy(), steps.copy(), dict(extras))}

    return lie


def of_arrays(change):
    def lie(liar, answer):
        return {**answer, "arrays": [(key, change(array.copy())) for key, array in answer["arrays"]]}

    return lie


def with_first(steps, value, dtype=None):
    steps = steps.astype(dtype or steps.dtype)
    steps[0, 0] = value
    return steps


def without(extras, name):
    return {key: value for key, value in extras.items() if key != name}


ANY = {
    "nothing": lambda liar, answer: None,
    "no result": lambda liar, answer: {"lease": answer["lease"], "seconds": answer["seconds"]},
    "another job's number": lambda liar, answer: {**answer, "lease": answer["lease"] + "1"},
    "no number": lambda liar, answer: {key: value for key, value in answer.items() if key != "lease"},
    "no seconds": lambda liar, answer: {**answer, "seconds": {}},
    "endless seconds": lambda liar, answer: {
        **answer,
        "seconds": dict.fromkeys(("waited", "computed", "held"), np.inf),
    },
    "blocks of nobody": lambda liar, answer: {
        "lease": answer["lease"],
        "missing": [10**9],
        "rows_missing": False,
    },
}
SUMS = {
    "too few rows": of_partial(lambda w, s, e: (w, s[:-1], e)),
    "too wide": of_partial(lambda w, s, e: (w, np.ascontiguousarray(np.hstack([s, s])), e)),
    "one dimension": of_partial(lambda w, s, e: (w, s.ravel(), e)),
    "float32 steps": of_partial(lambda w, s, e: (w, s.astype(np.float32), e)),
    "NaN": of_partial(lambda w, s, e: (w, with_first(s, np.nan, np.float64), e)),
    "halves": of_partial(lambda w, s, e: (w, with_first(s, 0.5, np.float64), e)),
    "huge steps": of_partial(lambda w, s, e: (w, with_first(s, 2.0**60, np.float64), e)),
    "steps beyond the documents": of_partial(lambda w, s, e: (w, with_first(s, 2.0**52, np.float64), e)),
    "an id beyond the vocabulary": of_partial(lambda w, s, e: (np.append(w[:-1], np.int32(2**30)), s, e)),
    "a negative id": of_partial(lambda w, s, e: (np.append(np.int32(-1), w[1:]), s, e)),
    "ids of other words": of_partial(lambda w, s, e: (np.arange(len(w), dtype=np.int32), s, e)),
    "ids downwards": of_partial(lambda w, s, e: (w[::-1].copy(), s, e)),
    "an id twice": of_partial(lambda w, s, e: (np.append(w[:1], w[:-1]), s, e)),
    "ids of int64": of_partial(lambda w, s, e: (w.astype(np.int64), s, e)),
    "a word less": of_partial(lambda w, s, e: (w[:-1], s[:-1], e)),
    "an extra more": of_partial(lambda w, s, e: (w, s, {**e, "more": 1})),
    "a cell outside": of_partial(lambda w, s, e: (w, s.ravel()[:1], e, np.array([s.size], np.int32))),
    "a cell before": of_partial(lambda w, s, e: (w, s.ravel()[:1], e, np.array([-1], np.int32))),
    "cells of int64": of_partial(lambda w, s, e: (w, s.ravel(), e, np.arange(s.size))),
    "fewer cells": of_partial(lambda w, s, e: (w, s.ravel(), e, np.arange(s.size - 1, dtype=np.int32))),
    "more cells": of_partial(
        lambda w, s, e: (w, np.zeros(s.size + 1, np.int32), e, np.zeros(s.size + 1, np.int32))
    ),
    "cells that are text": of_partial(lambda w, s, e: (w, s, e, "cells")),
    "words that are text": of_partial(lambda w, s, e: ("words", s, e)),
}
LDA = {
    "negative steps": of_partial(lambda w, s, e: (w, with_first(s, -1), e)),
    "an extra missing": of_partial(lambda w, s, e: (w, s, without(e, "documents"))),
    "a count that is text": of_partial(lambda w, s, e: (w, s, {**e, "documents": "10"})),
    "more documents": of_partial(lambda w, s, e: (w, s, {**e, "documents": e["documents"] + 1})),
    "more converged": of_partial(lambda w, s, e: (w, s, {**e, "converged": 10**9})),
    "negative iterations": of_partial(lambda w, s, e: (w, s, {**e, "iterations": -1})),
    "gamma statistics missing": of_partial(lambda w, s, e: (w, s, without(e, "gamma_statistics"))),
    "gamma statistics of NaN": of_partial(
        lambda w, s, e: (w, s, {**e, "gamma_statistics": e["gamma_statistics"] * np.nan})
    ),
}
INFERENCE = {
    "gamma of NaN": of_arrays(lambda a: a * np.nan),
    "negative gamma": of_arrays(lambda a: -a),
    "huge gamma": of_arrays(lambda a: a * 1e9),
    "too wide": of_arrays(lambda a: np.ascontiguousarray(np.hstack([a, a]))),
    "too few": of_arrays(lambda a: a[:-1]),
    "float64": of_arrays(lambda a: a.astype(np.float64)),
    "another block": lambda liar, answer: {
        **answer,
        "arrays": [((key[0] + 1, *key[1:]), array) for key, array in answer["arrays"]],
    },
    "a block less": lambda liar, answer: {**answer, "arrays": answer["arrays"][1:]},
    "a block twice": lambda liar, answer: {**answer, "arrays": answer["arrays"] * 2},
    "text": of_arrays(lambda a: "gamma"),
}


def lda(corpus):
    model = LdaModel(
        corpus.counts[:120],
        id2word=corpus.dictionary,
        num_topics=4,
        chunksize=5,
        update_chunks=12,
        alpha="auto",
        iterations=10,
        random_state=1,
        distributed=True,
    )
    return model.state.sstats.tobytes() + model.alpha.tobytes()


def lsi(corpus):
    model = LsiModel(
        corpus.tfidf[:120], id2word=corpus.dictionary, num_topics=4, chunksize=5, distributed=True
    )
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def inference(corpus):
    model = LdaModel(corpus.counts[:50], id2word=corpus.dictionary, num_topics=4, random_state=1)
    rows = model.transform(corpus.counts[:200], chunksize=5, distributed=True)
    return b"".join(np.asarray(row).tobytes() for row in rows)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, (str(WITNESS),)


#: Made by code that an answer brings, were it run.
WITNESS = Path(__file__).with_name("witness")

#: Those that need a worker to be told.
TOLD = {
    "an answer twice": lambda liar, answer: liar.answers[max(len(liar.answers) - 2, 0)],
    "always missing": lambda liar, answer: {"missing": [], "rows_missing": True},
    "code to run": lambda liar, answer: {**answer, "seconds": RunsCode()},
    "an array without end": lambda liar, answer: {
        **answer,
        "partial": {"array in slices": (0, "<f8", (2**40,))},
    },
    "an array of objects": lambda liar, answer: {**answer, "partial": {"array in slices": (0, "|O", (2,))}},
}
#: With a certificate a lie is the same lie; these are tried with one too.
WITH_CERTIFICATE = [
    (lda, "another job's number", ANY["another job's number"]),
    (lda, "NaN", SUMS["NaN"]),
    (lda, "an extra missing", LDA["an extra missing"]),
    (lsi, "huge steps", SUMS["huge steps"]),
    (inference, "gamma of NaN", INFERENCE["gamma of NaN"]),
]
CASES = [
    *((lda, name, lie) for name, lie in TOLD.items()),
    (lda, "negative steps", LDA["negative steps"]),
    (lda, "too few rows", SUMS["too few rows"]),
    (lda, "an id beyond the vocabulary", SUMS["an id beyond the vocabulary"]),
    *WITH_CERTIFICATE,
]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def logged(request, tmp_path_factory):
    """A cluster of one honest worker, and the file of what its daemons log."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    stderr = os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            cluster = LocalCluster(n_workers=1, tls=request.param)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    daemons = []  # they stay, so that none gets the address of one before it
    with cluster:
        yield cluster, log, daemons
    for daemon in daemons:
        daemon.stop(grace=0)


@pytest.fixture(scope="module")
def honest(logged, lee_corpus):
    return {train: train(lee_corpus) for train in (lda, lsi, inference)}


@contextmanager
def joined(cluster, liar, daemons):
    """Serve a liar from this process, with a worker's certificate where the cluster has them."""
    where = cluster.environ(roles.WORKER)
    folder = where["DISTCORPUS_TLS"]
    daemon = Daemon(on_disconnect=liar.disconnected, credentials=Credentials(folder) if folder else None)
    daemons.append(daemon)
    # Other tests of this process may have registered kernels of their own.
    liar.kernels = cluster.dispatcher.status()["workers"][0]["kernels"]
    name = names.worker(liar.name)
    uri = daemon.serve(name, liar)
    daemon.start()
    # A name server takes workers from workers: this process is one, for as long as it takes to register.
    undo = use_tls(folder or None)
    try:
        nameserver = find(where["PYRO_NS_HOST"], int(where["PYRO_NS_PORT"]), broadcast=False)
        register(nameserver, name, uri)
        nameserver._pyroRelease()
    finally:
        undo()
    try:
        wait_until(lambda: liar.name in workers(cluster), "the liar's joining")
        yield uri
    finally:
        undo = use_tls(folder or None)
        unregister(find(where["PYRO_NS_HOST"], int(where["PYRO_NS_PORT"]), broadcast=False), name, uri)
        undo()


def workers(cluster):
    return {worker["name"] for worker in cluster.dispatcher.status()["workers"]}


@pytest.mark.parametrize(("train", "name", "lie"), CASES, ids=[f"{t.__name__}-{n}" for t, n, _ in CASES])
def test_a_liar_is_dropped_and_the_result_unharmed(logged, honest, lee_corpus, train, name, lie):
    cluster, log, daemons = logged
    if cluster.environ()["DISTCORPUS_TLS"] and (train, name, lie) not in WITH_CERTIFICATE:
        pytest.skip("tried without TLS")
    liar = Liar(f"liar-{time.monotonic_ns()}", lie)
    with joined(cluster, liar, daemons) as uri:
        deadline = time.monotonic() + 100.0
        while liar.name in workers(cluster):  # the honest worker may compute all of a short training
            assert time.monotonic() < deadline, "the liar does not end"
            assert train(lee_corpus) == honest[train]
        assert liar.answers
        said = [line for line in log.read_text().splitlines() if liar.name in line and "expelled" in line]
        assert len(said) == 1
        assert uri.rpartition("@")[2] in said[0]
        count = len(liar.answers)
        assert train(lee_corpus) == honest[train]
        assert len(liar.answers) == count
    assert not WITNESS.exists()


class Posed:
    """A round of a kernel over two blocks of six documents, and what an honest worker answers."""

    def __init__(self, kernel, params):
        self.kernel, self.params = kernel, params
        documents = [[(0, 1), (2, 3)], [(2, 1)], [], [(5, 2), (6, 1)], [(6, 4)], [(2, 1), (9, 1)]]
        chunk = as_chunk(documents, 12, counts=True)
        self.blocks = []
        for number, part in enumerate(chunk.split(max_docs=3)):
            held = Block(number, (0, 3 * number), part, part.n_docs, part.nnz, part.words())
            self.blocks.append(held)
        self.words = words_in([block.words for block in self.blocks], 12)
        rows = np.random.default_rng(0).random((len(self.words), params.width)) + 0.1
        rows /= np.linalg.norm(rows, axis=0)
        table_row = np.zeros(12, np.int32)
        table_row[self.words] = np.arange(len(self.words))
        packed = [(kernel.pack(block.documents), block.key) for block in self.blocks]
        result, _ = run(
            kernel, params, packed, self.words, kernel.prepare(rows.astype(params.dtype), params), table_row
        )
        self.answer = {
            "lease": "it",
            "seconds": {"waited": 0.0, "computed": 0.1, "held": 0.1},
            **_reply(result),
        }

    def read(self, answer):
        return read_answer(answer, "it", self, self.blocks, self.words)


def estep(**options):
    return Posed(EStep, EStepParams(np.ones(2), np.ones(2), "float32", 20, 0.001, 1, **options))


POSED = {
    "lda": (lambda: estep(gamma_statistics=True), {**ANY, **SUMS, **LDA}),
    "cvb0": (lambda: estep(gamma_statistics=True, variant="cvb0"), {**ANY, **SUMS, **LDA}),
    "lsi": (lambda: Posed(Product, ProductParams(3, 2.0**-20, "float32", {0: 4.0})), {**ANY, **SUMS}),
    "inference": (
        lambda: Posed(Inference, InferenceParams(np.ones(2), np.ones(2), "float32", 20, 0.001, 1)),
        {**ANY, **INFERENCE},
    ),
    "bound": (
        lambda: Posed(
            Inference, InferenceParams(np.ones(2), np.ones(2), "float32", 20, 0.001, 1, bound=True)
        ),
        {**ANY, **{name: INFERENCE[name] for name in ("gamma of NaN", "another block", "text")}},
    ),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (_, lies) in POSED.items() for name in lies]
)
def test_an_answer_that_is_none(kind, name):
    pose, lies = POSED[kind]
    posed = pose()
    assert isinstance(posed.read(posed.answer), Computed)
    with pytest.raises(FalseAnswer, match=r"\w"):
        posed.read(lies[name](None, posed.answer))


@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.floats()
        | st.text()
        | arrays(np.int32, 3)
        | arrays(np.float64, (2, 2)),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "words", 3]), inner),
        max_leaves=8,
    ),
    st.sampled_from(["lda", "lsi", "inference"]),
    st.sampled_from(["partial", "arrays", "seconds", "missing", "rows_missing", "lease"]),
)
def test_no_answer_is_read_by_accident(value, kind, place):
    """Whatever stands in an answer, it is a false one: no other error, and no result."""
    posed = _posed(kind)
    if place not in ("arrays", "partial") or place in posed.answer:
        with pytest.raises(FalseAnswer):
            posed.read({**posed.answer, "missing" if place == "rows_missing" else place: value})


@cache
def _posed(kind):
    return POSED[kind][0]()

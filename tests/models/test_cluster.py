"""Our models on a cluster: the same bytes whatever its size and whatever happens to it."""

from __future__ import annotations

import copy
import logging
import os
import signal
import threading

import gensim.models
import numpy as np
import pytest
import scipy.sparse
from gensim.matutils import Sparse2Corpus, corpus2csc, corpus2dense
from gensim.models.callbacks import CoherenceMetric, ConvergenceMetric, DiffMetric, PerplexityMetric

from distcorpus import LocalCluster
from distcorpus.engines.threads import available_threads
from distcorpus.models import LdaModel, LsiModel
from distcorpus.models._cluster import CHUNKS_IN_FLIGHT, Cluster

LDA = {"num_topics": 8, "chunksize": 40, "random_state": 3, "update_chunks": 2}
LSI = {"num_topics": 10, "chunksize": 40}


def lda_bytes(model):
    state = model.state
    return [
        state.sstats.tobytes(),
        model.alpha.tobytes(),
        model.eta.tobytes(),
        model.num_updates,
        state.numdocs,
    ]


def lsi_bytes(model):
    return [model.projection.u.tobytes(), model.projection.s.tobytes()]


def test_the_same_bytes_with_any_number_of_workers(lee_corpus):
    """And without a cluster."""
    dictionary = lee_corpus.dictionary
    lda = {**LDA, "id2word": dictionary, "passes": 2, "alpha": "auto", "eta": "auto"}
    expected_lda = lda_bytes(LdaModel(lee_corpus.counts, **lda))
    lsi = {**LSI, "id2word": dictionary, "decay": 0.9}
    expected_lsi = lsi_bytes(LsiModel(lee_corpus.tfidf, **lsi))
    with LocalCluster(n_workers=1) as cluster:
        for workers in (1, 2, 3):
            cluster.scale(workers)
            assert lda_bytes(LdaModel(lee_corpus.counts, distributed=True, **lda)) == expected_lda
            assert lsi_bytes(LsiModel(lee_corpus.tfidf, distributed=True, **lsi)) == expected_lsi


def test_a_killed_worker_changes_nothing(lee_corpus):
    lda = {**LDA, "id2word": lee_corpus.dictionary, "passes": 6}
    expected = lda_bytes(LdaModel(lee_corpus.counts, **lda))
    with LocalCluster(n_workers=2) as cluster:
        killed = []

        def kill(event):
            if event["kind"] == "update" and event["updates"] >= 3 and not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        model = LdaModel(lee_corpus.counts, distributed=True, progress=kill, **lda)
        assert killed
    assert lda_bytes(model) == expected


def kinds_of_corpora(documents, num_terms):
    matrix = corpus2csc(documents, num_terms=num_terms)
    yield "generator", (document for document in documents)
    yield "csc", matrix
    yield "csr", matrix.tocsr()
    yield "Sparse2Corpus", Sparse2Corpus(matrix)
    yield "arrays", [np.array(document) for document in documents]


@pytest.mark.parametrize("distributed", [False, True])
def test_any_kind_of_corpus(cluster, lee_corpus, distributed):
    """A generator is trained with several passes, and equals a list."""
    dictionary = lee_corpus.dictionary
    lda = {**LDA, "id2word": dictionary, "passes": 3, "distributed": distributed}
    lsi = {**LSI, "id2word": dictionary, "distributed": distributed}
    expected_lda = lda_bytes(LdaModel(lee_corpus.counts, **lda))
    expected_lsi = lsi_bytes(LsiModel(lee_corpus.tfidf, **lsi))
    for kind, corpus in kinds_of_corpora(lee_corpus.counts, len(dictionary)):
        assert lda_bytes(LdaModel(corpus, **lda)) == expected_lda, kind
    for kind, corpus in kinds_of_corpora(lee_corpus.tfidf, len(dictionary)):
        assert lsi_bytes(LsiModel(corpus, **lsi)) == expected_lsi, kind


#: An argument of each model with a value that is not its default, and has to change the result.
LDA_ARGUMENTS = {
    "iterations": 2,
    "gamma_threshold": 0.5,
    "random_state": 4,
    "decay": 0.9,
    "offset": 9.0,
    "passes": 2,
    "chunksize": 30,
    "update_every": 0,
    "update_chunks": 1,
    "alpha": "asymmetric",
    "eta": 0.5,
    "dtype": np.float64,
    "inference": "cvb0",
}
LSI_ARGUMENTS = {
    "num_topics": 9,
    "chunksize": 30,
    "decay": 0.5,
    "onepass": False,
    "power_iters": 1,
    "extra_samples": 5,
    "dtype": np.float32,
    "random_seed": 1,
}


@pytest.mark.parametrize("argument", LDA_ARGUMENTS)
def test_every_lda_argument_reaches_the_workers(cluster, lee_corpus, argument):
    options = {**LDA, "id2word": lee_corpus.dictionary}
    default = LdaModel(lee_corpus.counts[:120], distributed=True, **options)
    options[argument] = LDA_ARGUMENTS[argument]
    here, there = (LdaModel(lee_corpus.counts[:120], distributed=d, **options) for d in (False, True))
    assert lda_bytes(here) == lda_bytes(there)
    assert lda_bytes(there) != lda_bytes(default)


@pytest.mark.parametrize("argument", LSI_ARGUMENTS)
def test_every_lsi_argument_reaches_the_workers(cluster, lee_corpus, argument):
    options = {**LSI, "id2word": lee_corpus.dictionary, "decay": 0.7}
    default = LsiModel(lee_corpus.tfidf[:120], distributed=True, **options)
    options[argument] = LSI_ARGUMENTS[argument]
    there = LsiModel(lee_corpus.tfidf[:120], distributed=True, **options)
    here = LsiModel(lee_corpus.tfidf[:120], **options)
    assert lsi_bytes(here) == lsi_bytes(there)
    assert there.projection.u.dtype == options.get("dtype", np.float64)
    assert lsi_bytes(there) != lsi_bytes(default)


@pytest.mark.parametrize("argument", ["chunksize", "decay"])
def test_arguments_of_add_documents_count(cluster, lee_corpus, argument):
    options = {**LSI, "id2word": lee_corpus.dictionary, "decay": 0.7, "distributed": True}
    at_once = LsiModel(lee_corpus.tfidf, **{**options, argument: LSI_ARGUMENTS[argument]})
    later = LsiModel(**options)
    later.add_documents(lee_corpus.tfidf, **{argument: LSI_ARGUMENTS[argument]})
    assert lsi_bytes(later) == lsi_bytes(at_once)


@pytest.mark.parametrize(
    "argument", ["iterations", "gamma_threshold", "decay", "offset", "passes", "chunksize"]
)
def test_arguments_of_update_count(cluster, lee_corpus, argument):
    options = {**LDA, "id2word": lee_corpus.dictionary, "distributed": True}
    at_once = LdaModel(lee_corpus.counts, **{**options, argument: LDA_ARGUMENTS[argument]})
    later = LdaModel(**options)
    later.update(lee_corpus.counts, **{argument: LDA_ARGUMENTS[argument]})
    assert lda_bytes(later) == lda_bytes(at_once)


def test_update_every_does_not_count_workers(lee_corpus):
    """By default a result depends on nothing of the cluster; `chunks_as_numpy` makes no difference."""
    options = {**LDA, "id2word": lee_corpus.dictionary, "update_chunks": None}
    expected = [lda_bytes(LdaModel(lee_corpus.counts, update_every=every, **options)) for every in (1, 2)]
    assert expected[0] != expected[1]
    assert lda_bytes(LdaModel(lee_corpus.counts, **{**options, "update_chunks": 2})) == expected[1]
    options["distributed"] = True
    with LocalCluster(n_workers=1) as cluster:
        for workers in (1, 2, 3):
            cluster.scale(workers)
            assert lda_bytes(LdaModel(lee_corpus.counts, **options)) == expected[0]
            later = LdaModel(**options)
            later.update(lee_corpus.counts, update_every=2, chunks_as_numpy=True)
            assert lda_bytes(later) == expected[1]
            assert later.numworkers == workers


def test_update_every_counts_workers_in_gensims_model(lee_corpus, monkeypatch):
    """Which is unmodified: an update comes after `update_every` chunks for each worker."""
    options = {**LDA, "id2word": lee_corpus.dictionary, "distributed": True}
    del options["update_chunks"]
    with LocalCluster(n_workers=1) as cluster:
        for name, value in cluster.environ().items():
            monkeypatch.setenv(name, value)
        for workers, updates in ((1, 4), (2, 2)):
            cluster.scale(workers)
            model = gensim.models.LdaModel(lee_corpus.counts[:160], **options)
            session = cluster.dispatcher.recorded_sessions()[-1]
            records = cluster.dispatcher.records(session)
            assert model.numworkers == workers
            assert len({record["round"] for record in records}) == updates


def test_what_gensims_models_ignore_or_refuse_on_a_cluster(cluster, lee_corpus, monkeypatch):
    """Unmodified, on this cluster: the reason for the column of that name in docs/models.md."""
    for name, value in cluster.environ().items():
        monkeypatch.setenv(name, value)
    counts, tfidf = lee_corpus.counts[:120], lee_corpus.tfidf[:120]
    lda = {"id2word": lee_corpus.dictionary, "num_topics": 4, "chunksize": 40, "random_state": 3}
    expected = gensim.models.LdaModel(counts, distributed=True, **lda).state.sstats.tobytes()
    for ignored in ({"iterations": 2}, {"gamma_threshold": 0.5}):
        model = gensim.models.LdaModel(counts, distributed=True, **lda, **ignored)
        assert model.state.sstats.tobytes() == expected
        here = gensim.models.LdaModel(counts, **lda).state.sstats
        assert not np.array_equal(gensim.models.LdaModel(counts, **lda, **ignored).state.sstats, here)
    with pytest.raises(NotImplementedError):
        gensim.models.LdaModel(counts, distributed=True, alpha="auto", **lda)
    lsi = {"id2word": lee_corpus.dictionary, "num_topics": 4, "chunksize": 40}
    expected = lsi_bytes(gensim.models.LsiModel(tfidf, distributed=True, **lsi))
    assert lsi_bytes(gensim.models.LsiModel(tfidf, distributed=True, random_seed=7, **lsi)) == expected
    assert gensim.models.LsiModel(distributed=True, onepass=False, **lsi).onepass
    matrix = corpus2csc(tfidf, num_terms=len(lee_corpus.dictionary))
    with pytest.raises(AssertionError):
        gensim.models.LsiModel(matrix, distributed=True, **lsi)


def test_updates_again_and_again(cluster, lee_corpus):
    models = []
    for distributed in (False, True):
        model = LdaModel(
            lee_corpus.counts[:100], id2word=lee_corpus.dictionary, distributed=distributed, **LDA
        )
        model.update(lee_corpus.counts[100:200])
        model.update(lee_corpus.counts[200:])
        assert model.state.numdocs == 300
        models.append(model)
    assert lda_bytes(models[0]) == lda_bytes(models[1])


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_additions_merge(cluster, lee_corpus, decay):
    """Whole singular vectors of the part that came first: then the second factorisation is that of
    everything.
    """
    dictionary = lee_corpus.dictionary
    matrix = corpus2csc(lee_corpus.tfidf, num_terms=len(dictionary)).toarray()
    matrix[:, :20] *= decay
    expected = np.linalg.svd(matrix[:, :30], compute_uv=False)[:25]
    for distributed in (False, True):
        model = LsiModel(lee_corpus.tfidf[:20], id2word=dictionary, num_topics=25, distributed=distributed)
        model.add_documents(lee_corpus.tfidf[20:30], decay=decay)
        np.testing.assert_allclose(model.projection.s, expected, rtol=1e-3)
        assert model.docs_processed == 30


@pytest.mark.parametrize("distributed", [False, True])
def test_a_checkpoint_goes_on_to_the_same_bytes(cluster, lee_corpus, tmp_path, distributed):
    path = str(tmp_path / "checkpoint")
    options = {
        **LDA,
        "id2word": lee_corpus.dictionary,
        "passes": 3,
        "alpha": "auto",
        "distributed": distributed,
    }
    whole = LdaModel(lee_corpus.counts, checkpoint=path, checkpoint_every=5, **options)
    resumed = LdaModel.load(path)
    assert resumed.interrupted["progress"]["updates"] == 10
    resumed.update(lee_corpus.counts, resume=True)
    assert lda_bytes(resumed) == lda_bytes(whole)
    with pytest.raises(ValueError, match="interrupted"):
        resumed.update(lee_corpus.counts, resume=True)
    with pytest.raises(ValueError, match="300"):
        LdaModel.load(path).update(lee_corpus.counts[:10], resume=True)


@pytest.mark.parametrize("distributed", [False, True])
def test_an_interrupt_leaves_a_usable_model(cluster, lee_corpus, distributed):
    options = {**LDA, "id2word": lee_corpus.dictionary, "passes": 3, "distributed": distributed}
    whole = LdaModel(lee_corpus.counts, **options)

    def interrupt(event):
        if event["kind"] == "update" and event["updates"] == 5:
            raise KeyboardInterrupt

    model = LdaModel(progress=interrupt, **options)
    with pytest.raises(KeyboardInterrupt):
        model.update(lee_corpus.counts)
    assert model.interrupted["progress"]["updates"] >= 5
    np.testing.assert_allclose(model.get_topics().sum(axis=1), 1.0, rtol=1e-5)
    model.progress = False
    model.update(lee_corpus.counts, resume=True)
    assert lda_bytes(model) == lda_bytes(whole)
    if distributed:
        wait_until_free(cluster)


def wait_until_free(cluster):
    """Wait until no session is open."""
    ended = threading.Event()
    for _ in range(100):
        if not cluster.dispatcher.status()["sessions"]:
            return
        ended.wait(0.1)
    pytest.fail("the interrupted session is still open")


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize("kind", ["update", "round"])
def test_an_interrupted_addition_leaves_the_model_as_it_was(cluster, lee_corpus, distributed, kind):
    """Whether its documents were read or multiplied."""
    options = {**LSI, "id2word": lee_corpus.dictionary, "distributed": distributed}
    model = LsiModel(lee_corpus.tfidf[:100], **options)
    before, events = lsi_bytes(model), []

    def interrupt(event):
        events.append(event["kind"])
        if events.count(kind) == 2 or (distributed and events[-1] == kind == "round"):
            raise KeyboardInterrupt

    model.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        model.add_documents(lee_corpus.tfidf[100:])
    assert lsi_bytes(model) == before
    if distributed:
        wait_until_free(cluster)
    model.progress = False
    model.add_documents(lee_corpus.tfidf[100:])
    assert model.docs_processed == 300


@pytest.mark.parametrize("chunksize", [pytest.param(40, marks=pytest.mark.long), 300])
def test_callbacks_see_each_pass(cluster, lee_corpus, chunksize):
    """As gensim's own metrics see gensim's: with the topics of a whole pass, and those of the one before."""
    texts = [[lee_corpus.dictionary[word] for word, _ in document] for document in lee_corpus.counts]

    def train(distributed):
        metrics = [
            PerplexityMetric(corpus=lee_corpus.counts[:90], logger="shell"),
            CoherenceMetric(
                texts=texts, coherence="u_mass", topn=5, corpus=lee_corpus.counts, logger="shell"
            ),
            DiffMetric(logger="shell", num_words=20),
            ConvergenceMetric(logger="shell", num_words=20),
        ]
        return LdaModel(
            lee_corpus.counts,
            callbacks=metrics,
            passes=3,
            distributed=distributed,
            **{**LDA, "id2word": lee_corpus.dictionary, "chunksize": chunksize},
        )

    here, there = train(False), train(True)
    assert set(here.metrics) == {"Perplexity", "Coherence", "Diff", "Convergence"}
    for name in ("Coherence", "Diff", "Convergence"):
        assert np.array_equal(here.metrics[name], there.metrics[name]), name
        assert len(here.metrics[name]) == 3
    for model in (here, there):
        perplexities = model.metrics["Perplexity"]
        assert len(set(perplexities)) == 3
        assert perplexities[2] < perplexities[0]
        assert np.shape(model.metrics["Diff"]) == (3, 8)
        convergence = model.metrics["Convergence"]
        assert convergence[2] < convergence[0]
    np.testing.assert_allclose(there.metrics["Perplexity"], here.metrics["Perplexity"], rtol=1e-2)


@pytest.mark.parametrize("distributed", [False, True])
def test_the_log_lines_stay(cluster, lee_corpus, caplog, distributed):
    with caplog.at_level(logging.INFO, logger="gensim.models.ldamodel"):
        LdaModel(
            lee_corpus.counts, id2word=lee_corpus.dictionary, eval_every=1, distributed=distributed, **LDA
        )
    for line in ("running online", "PROGRESS: pass 0", "topic #", "topic diff=", "rho=", "per-word bound"):
        assert line in caplog.text, line


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize("model", [LdaModel, LsiModel])
def test_progress(cluster, lee_corpus, capsys, model, distributed):
    """Of documents and updates or rounds, also where nobody knows how many documents there are."""
    corpus, options = (lee_corpus.counts, LDA) if model is LdaModel else (lee_corpus.tfidf, LSI)
    options = {**options, "id2word": lee_corpus.dictionary, "distributed": distributed}
    events = []
    model(corpus, progress=events.append, **options)
    documents = [event["documents"] for event in events if event["kind"] == "update"]
    assert documents == sorted(documents)
    assert documents[-1] == 300
    steps = "updates" if model is LdaModel else "rounds"
    counts = [event[steps] for event in events if steps in event]
    assert counts == sorted(counts)
    assert counts[-1] >= 4
    workers = 2 if distributed else available_threads()
    assert events[-1 if model is LsiModel or not distributed else -2]["workers"] == workers
    for given in (corpus, iter(corpus)):
        model(given, progress=True, **options)
        shown = capsys.readouterr().err
        assert "300/300" in shown or given is not corpus
        assert f"{steps}=" in shown
        assert f"workers={workers}" in shown


def test_an_error_names_the_document_and_the_model_goes_on(cluster, lee_corpus):
    model = LdaModel(id2word=lee_corpus.dictionary, distributed=True, **LDA)
    before = lda_bytes(model)
    bad = [*lee_corpus.counts[:50], [(10**6, 1)]]
    with pytest.raises(ValueError, match=r"chunk 1: document 10: term id 1000000"):
        model.update(bad)
    assert lda_bytes(model) == before
    model.update(lee_corpus.counts)
    assert model.state.numdocs == 300


class Unreadable(list):
    """A corpus that cannot be read to its end."""

    def __len__(self):
        return 5 + list.__len__(self)

    def __iter__(self):
        yield from list.__iter__(self)
        raise OSError("the disk is gone")


#: Documents of 4 a chunk after which reading fails, and how many of them are learnt.
READ_AND_LEARNT = {"nothing": (3, 0), "some": (19, 16), "whole updates": (20, 20)}


@pytest.mark.parametrize("read", READ_AND_LEARNT)
@pytest.mark.parametrize("update_chunks", [1, 2])
def test_an_update_that_fails_leaves_what_was_learnt_everywhere(cluster, lee_corpus, read, update_chunks):
    """And the next one goes on from the same bytes."""
    documents, learnt = READ_AND_LEARNT[read]
    learnt -= learnt % (4 * update_chunks)
    found = []
    for distributed in (False, True):
        model = LdaModel(
            id2word=lee_corpus.dictionary,
            num_topics=3,
            chunksize=4,
            update_chunks=update_chunks,
            random_state=1,
            distributed=distributed,
        )
        model.update(lee_corpus.counts[:40])
        assert model.state.numdocs == 40
        with pytest.raises(OSError, match="disk"):
            model.update(Unreadable(lee_corpus.counts[40 : 40 + documents]))
        assert (model.state.numdocs, model.num_updates) == (40 + learnt, 40 + learnt)
        found.append(lda_bytes(model))
        model.update(lee_corpus.counts[60:75])
        assert model.state.numdocs == 55 + learnt
        model.update(lee_corpus.counts[:5], passes=0)
        assert model.state.numdocs == 55 + learnt
        found.append(lda_bytes(model))
    assert found[:2] == found[2:]


def test_an_update_whose_sums_are_too_large_leaves_what_was_learnt_everywhere(cluster):
    documents = [[(0, 2e9)], [(1, 1)], [(0, 2e9)], [(0, 2e9)], [(1, 1)], [(2, 1)]]
    found = []
    for distributed in (False, True):
        model = LdaModel(
            id2word=dict.fromkeys(range(3), "w"),
            num_topics=1,
            chunksize=1,
            update_chunks=2,
            random_state=1,
            distributed=distributed,
        )
        with pytest.raises((OverflowError, RuntimeError), match="a sum exceeds"):
            model.update(documents)
        assert (model.state.numdocs, model.num_updates) == (2, 2)
        found.append(lda_bytes(model))
    assert found[0] == found[1]


@pytest.mark.parametrize("distributed", [False, True])
def test_a_checkpoint_counts_what_was_learnt(cluster, lee_corpus, tmp_path, distributed):
    path = str(tmp_path / "model")
    options = {**LDA, "update_chunks": 1, "id2word": lee_corpus.dictionary, "distributed": distributed}
    counted = []

    def look(event):
        if event["kind"] == "update":
            counted.append(LdaModel.load(path).state.numdocs)

    model = LdaModel(lee_corpus.counts[:100], checkpoint=path, checkpoint_every=1, progress=look, **options)
    # A cluster may be ahead by some updates while documents are still being sent.
    assert counted == sorted(counted) if distributed else counted == [40, 80, 100]
    assert set(counted) <= {40, 80, 100}
    assert model.state.numdocs == counted[-1] == 100


@pytest.mark.parametrize("distributed", [False, True])
def test_an_update_that_its_observer_ends_goes_on_to_the_same_bytes(cluster, lee_corpus, distributed):
    options = {**LDA, "id2word": lee_corpus.dictionary, "passes": 2, "distributed": distributed}

    def stop(event):
        if event["kind"] == "update" and event["updates"] == 2:
            raise OSError("nobody looks")

    model = LdaModel(progress=stop, **options)
    with pytest.raises(OSError, match="nobody looks"):
        model.update(lee_corpus.counts)
    assert model.state.numdocs == min(80 * model.interrupted["progress"]["updates"], 300)
    model.progress = False
    model.update(lee_corpus.counts, resume=True)
    assert lda_bytes(model) == lda_bytes(LdaModel(lee_corpus.counts, **options))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_threads(lee_corpus, workers):
    options = {**LDA, "id2word": lee_corpus.dictionary}
    alone = LdaModel(lee_corpus.counts, **options)
    assert lda_bytes(LdaModel(lee_corpus.counts, workers=workers, **options)) == lda_bytes(alone)
    options = {**LSI, "id2word": lee_corpus.dictionary}
    expected = lsi_bytes(LsiModel(lee_corpus.tfidf, **options))
    assert lsi_bytes(LsiModel(lee_corpus.tfidf, workers=workers, **options)) == expected


@pytest.mark.parametrize("model", [LdaModel, LsiModel])
def test_the_cluster_is_found_by_ns_conf(cluster, monkeypatch, lee_corpus, model):
    from distcorpus.wire.location import use_nameserver

    where = cluster.environ()
    found = use_nameserver("127.0.0.1", 1)  # nobody is there
    try:
        options = {"id2word": lee_corpus.dictionary, "num_topics": 3, "distributed": True}
        conf = {"host": where["PYRO_NS_HOST"], "port": int(where["PYRO_NS_PORT"]), "broadcast": False}
        assert model(ns_conf=conf, **options).numworkers == 2
        with pytest.raises(RuntimeError, match=r"nameserver\n.*dispatcher\n.*worker"):
            model(ns_conf={"broadcast": False}, **options)
        with pytest.raises(ValueError, match="hmac_key"):
            model(ns_conf={"hmac_key": "secret"}, **options)
    finally:
        found()


@pytest.fixture
def evaluated(cluster, lee_corpus):
    """A distributed model with chunks of 40 documents, and what names the cluster's latest session."""
    model = LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, distributed=True, **LDA)
    return model, lambda: cluster.dispatcher.recorded_sessions()[-1]


@pytest.mark.parametrize("inference", ["vb", "cvb0"])
def test_transform_gives_the_same_bytes_here_and_on_a_cluster(cluster, lee_corpus, inference):
    """In order, chunk by chunk, documents without words too."""
    model = LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, inference=inference, **LDA)
    read = []

    def corpus():
        for number, document in enumerate([*lee_corpus.counts, [], [], []]):
            read.append(number)
            yield document

    parts = {}
    for distributed in (False, True):
        read.clear()
        model.random_state = np.random.RandomState(7)
        parts[distributed] = []
        for part in model.transform(corpus(), chunksize=10, distributed=distributed):
            # A stream that reads a few chunks ahead.
            assert len(read) <= 10 * (len(parts[distributed]) + 1 + CHUNKS_IN_FLIGHT)
            parts[distributed].append(part)
    assert [len(part) for part in parts[True]] == [10] * 30 + [3]
    assert [part.tobytes() for part in parts[True]] == [part.tobytes() for part in parts[False]]
    np.testing.assert_allclose(parts[True][-1], np.tile(model.alpha / model.alpha.sum(), (3, 1)), rtol=1e-5)


def test_transform_to_sparse_matrices(evaluated, lee_corpus):
    model, _ = evaluated
    model.random_state = np.random.RandomState(7)
    dense = np.concatenate(list(model.transform(lee_corpus.counts)))
    model.random_state = np.random.RandomState(7)
    parts = list(model.transform(lee_corpus.counts, sparse=True, minimum_probability=0.2))
    assert all(scipy.sparse.issparse(part) and part.format == "csr" for part in parts)
    expected = np.where(dense >= 0.2, dense, 0)
    assert sum(part.nnz for part in parts) == np.count_nonzero(expected)
    assert np.array_equal(scipy.sparse.vstack(parts).toarray(), expected)
    default = next(model.transform(lee_corpus.counts, sparse=True))
    assert default.data.min() >= model.minimum_probability
    with pytest.raises(ValueError, match="sparse=True"):
        model.transform(lee_corpus.counts, minimum_probability=0.2)


WHOLE_CORPUS = {
    "bound": lambda model, corpus: model.bound(corpus),
    "log_perplexity": lambda model, corpus: model.log_perplexity(corpus, total_docs=500),
    "inference": lambda model, corpus: model.inference(corpus)[0],
    "statistics": lambda model, corpus: model.inference(corpus, collect_sstats=True)[1],
    "model[corpus]": lambda model, corpus: corpus2dense(model[corpus], model.num_topics),
}


@pytest.mark.parametrize("method", WHOLE_CORPUS)
def test_whole_corpora_are_evaluated_on_the_cluster_of_a_distributed_model(evaluated, lee_corpus, method):
    """With what gensim computes, up to where a document's gamma starts; a chunk is evaluated here."""
    model, latest_session = evaluated
    call = WHOLE_CORPUS[method]
    model.minimum_probability = 0.0
    here = copy.copy(model)
    here.dispatcher = None
    before = latest_session()
    call(model, lee_corpus.counts[:40])
    expected = call(here, lee_corpus.counts)
    assert latest_session() == before
    found = call(model, lee_corpus.counts)
    assert latest_session() != before
    difference = np.abs(found - expected)
    assert np.median(difference) <= 0.01 * np.abs(expected).max()


def test_a_distributed_model_is_evaluated_where_there_is_no_cluster(evaluated, lee_corpus, caplog):
    """To the same bytes, as when it was loaded on another machine."""
    model, _ = evaluated
    bounds = []
    for conf in (None, {"host": "127.0.0.1", "port": 1}):  # nobody is there
        model.random_state = np.random.RandomState(7)
        model.dispatcher = Cluster(conf)
        bounds.append(model.bound(lee_corpus.counts))
    assert bounds[0] == bounds[1]
    assert "no cluster was found" in caplog.text
    for method in (model.bound, model.log_perplexity):
        with pytest.raises(RuntimeError, match="nameserver"):
            method(lee_corpus.counts, distributed=True)
        caplog.clear()
        method(lee_corpus.counts, distributed=False)
        assert not caplog.records


def test_an_evaluation_that_is_left_frees_the_cluster(cluster, evaluated, lee_corpus):
    model, _ = evaluated
    for _ in model.transform(lee_corpus.counts):
        break
    wait_until_free(cluster)


def test_evaluation_errors_name_the_document(evaluated, lee_corpus):
    model, _ = evaluated
    with pytest.raises(ValueError, match="chunk 1: document 10: term id 1000000"):
        list(model.transform([*lee_corpus.counts[:50], [(10**6, 1)]]))


def test_the_perplexity_is_estimated_while_the_workers_compute(cluster, lee_corpus, caplog):
    """It costs no round of its own, and changes nothing."""
    options = {**LDA, "id2word": lee_corpus.dictionary, "distributed": True}
    expected = lda_bytes(LdaModel(lee_corpus.counts, eval_every=None, **options))
    with caplog.at_level(logging.INFO, logger="gensim.models.ldamodel"):
        model = LdaModel(lee_corpus.counts, eval_every=2, **options)
    assert lda_bytes(model) == expected
    assert caplog.text.count("per-word bound") == 4  # every second chunk of 8, however many workers there are
    records = cluster.dispatcher.records(cluster.dispatcher.recorded_sessions()[-1])
    assert {record["kernel"] for record in records} == {"lda"}
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="gensim.models.ldamodel"):
        model.update(lee_corpus.counts, eval_every=4)
    assert caplog.text.count("per-word bound") == 2

"""Documents that are added to an LSI model count as if all had come at once, wherever it is trained."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import signal
import threading
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from gensim.matutils import corpus2csc

from distcorpus import LocalCluster, LsiModel
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.models import lsimodel
from distcorpus.models._cluster import Cluster
from distcorpus.models._kept import Addition, Kept
from distcorpus.training.lsi import LsiTask

LSI = {"num_topics": 20, "chunksize": 40}
#: Where an addition begins; chunks of 40 are cut alike if it all came at once.
PARTS = {"two": [0, 160, 300], "three": [0, 80, 200, 300]}
DTYPES = [np.float32, np.float64]
NOT_HERE = "documents before, which are not here"


def lsi_bytes(model):
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def parts_of(lee_corpus, cut):
    return [lee_corpus.tfidf[first:last] for first, last in zip(PARTS[cut], PARTS[cut][1:], strict=False)]


def added(parts, dictionary, **options):
    model = LsiModel(parts[0], id2word=dictionary, **{**LSI, **options})
    for part in parts[1:]:
        model.add_documents(part)
    return model


@pytest.fixture(scope="module")
def dense(lee_corpus):
    return corpus2csc(lee_corpus.tfidf, num_terms=len(lee_corpus.dictionary)).toarray()


def assert_exact(model, matrix):
    """As LAPACK has them: the values, and the space of the leading directions that a gap sets apart."""
    U, s, _ = scipy.linalg.svd(matrix, full_matrices=False)
    k = model.num_topics
    np.testing.assert_allclose(model.projection.s, s[:k], rtol=1e-4)
    leading = 1 + int(np.flatnonzero(s[:k] - s[1 : k + 1] > 0.02 * s[:k])[-1])
    cosines = scipy.linalg.svdvals(model.projection.u[:, :leading].astype(float).T @ U[:, :leading])
    assert cosines.min() > 0.999


def weights_of(sizes, decay, chunksize=40):
    """Return the weight of each document, each chunk of which counts `decay` times as much as the next."""
    chunks = [min(chunksize, size - n) for size in sizes for n in range(0, size, chunksize)]
    return np.repeat(decay ** np.arange(len(chunks) - 1, -1, -1.0), chunks)


@pytest.mark.long
def test_additions_are_exact_with_any_number_of_workers(lee_corpus, dense):
    """They give the bytes of a model that had everything at once, which is held against LAPACK."""
    dictionary, at_once = lee_corpus.dictionary, {}
    for dtype in DTYPES:
        model = LsiModel(lee_corpus.tfidf, id2word=dictionary, dtype=dtype, **LSI)
        assert_exact(model, dense)
        at_once[dtype] = lsi_bytes(model)
    with LocalCluster(n_workers=1) as cluster:
        for workers in (0, 1, 2):
            cluster.scale(max(workers, 1))
            for dtype in DTYPES:
                for cut in PARTS:
                    parts = parts_of(lee_corpus, cut)
                    model = added(parts, dictionary, distributed=workers > 0, dtype=dtype)
                    assert lsi_bytes(model) == at_once[dtype]
                    assert model.docs_processed == 300


@pytest.mark.parametrize(("dtype", "decay"), [(np.float32, 1.2), (np.float64, 0.7)])
def test_decay_counts_over_additions(cluster, lee_corpus, dense, decay, dtype):
    parts = parts_of(lee_corpus, "three")
    here, there = (
        added(parts, lee_corpus.dictionary, decay=decay, dtype=dtype, distributed=distributed)
        for distributed in (False, True)
    )
    assert lsi_bytes(here) == lsi_bytes(there)
    assert_exact(there, dense * weights_of([len(part) for part in parts], decay))


@pytest.mark.parametrize("distributed", [False, True])
def test_each_addition_has_a_decay_and_a_size_of_its_own(cluster, lee_corpus, dense, distributed):
    """A sparse matrix weighs down once what was there; so does `onepass=False`."""
    model = LsiModel(
        lee_corpus.tfidf[:100], id2word=lee_corpus.dictionary, decay=0.9, distributed=distributed, **LSI
    )
    weights = weights_of([100], 0.9)
    model.add_documents(lee_corpus.tfidf[100:150], chunksize=20, decay=0.5)
    weights = np.concatenate([weights * 0.5**3, weights_of([50], 0.5, 20)])
    assert_exact(model, dense[:, :150] * weights)
    matrix = scipy.sparse.csc_array(dense[:, 150:230])
    model.add_documents(matrix, chunksize=30, decay=0.6)
    weights = np.concatenate([weights * 0.6, np.ones(80)])
    assert_exact(model, dense[:, :230] * weights)
    model.onepass = False
    model.num_topics = 10  # what is kept does not depend on it
    model.add_documents(lee_corpus.tfidf[230:], decay=0.8)
    assert_exact(model, dense * np.concatenate([weights * 0.8, np.ones(70)]))
    assert model.docs_processed == 300


def test_what_is_too_much_to_keep_is_said(cluster, lee_corpus, dense, monkeypatch, caplog):
    """The factors count for it then, and nothing of it is kept: the same bytes with and without a cluster."""
    parts = parts_of(lee_corpus, "three")
    exact = scipy.linalg.svdvals(dense)[: LSI["num_topics"]]
    nbytes = sum(chunk.nbytes for chunk in added(parts[:1], lee_corpus.dictionary)._kept.chunks)
    for limit in (nbytes - 1, nbytes):  # the first addition goes beyond it, or the second
        monkeypatch.setattr(lsimodel, "KEPT_BYTES", limit)
        models = []
        for distributed in (False, True):
            caplog.clear()
            model = added(parts[:1], lee_corpus.dictionary, distributed=distributed)
            assert (model._kept is None) == (limit < nbytes)
            model.add_documents(parts[1])
            assert (f"the 20 leading factors of the 80 {NOT_HERE}" in caplog.text) == (limit < nbytes)
            if limit == nbytes:
                assert_exact(model, dense[:, :200])
            assert model._kept is None
            model.add_documents(parts[2])
            assert f"the 20 leading factors of the 200 {NOT_HERE}" in caplog.text
            assert (model.projection.s < exact * 1.0001).all()
            np.testing.assert_allclose(model.projection.s, exact, rtol=0.1)
            assert model.docs_processed == 300
            models.append(lsi_bytes(model))
        assert models[0] == models[1]


@pytest.mark.long
def test_what_a_dispatcher_folds_is_said(lee_corpus, dense, caplog):
    """To the program too."""
    parts = parts_of(lee_corpus, "two")
    little = ("--memory", str(100_000 / 2**30))
    with LocalCluster(1, dispatcher_options=little):
        model = added(parts[:1], lee_corpus.dictionary, distributed=True)
        caplog.clear()
        model.add_documents(parts[1])
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        lsimodel.FOLDED
    ]
    exact = scipy.linalg.svdvals(dense)[: LSI["num_topics"]]
    assert (model.projection.s < exact * 1.0001).all()
    # It was folded there; here are all documents, and another cluster gets them.
    model.distributed = False
    model.add_documents(lee_corpus.tfidf[:40])
    assert_exact(model, np.hstack([dense, dense[:, :40]]))


@pytest.mark.long
def test_additions_need_no_cluster_that_was_there_before(lee_corpus, dense):
    """Each on another one, or on none."""
    parts = parts_of(lee_corpus, "three")
    model = added(parts[:1], lee_corpus.dictionary)
    model.distributed, model.dispatcher = True, Cluster()
    for part in parts[1:]:
        with LocalCluster(1):
            model.add_documents(part)
    assert lsi_bytes(model) == lsi_bytes(LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, **LSI))


@pytest.mark.long
def test_a_worker_is_killed_in_each_addition(lee_corpus):
    """While the documents arrive, those that were there among them, and while they are multiplied."""
    parts = parts_of(lee_corpus, "three")
    killed = {}
    with LocalCluster(n_workers=3) as cluster:

        def kill(kind, event):
            if event["kind"] == kind and kind not in killed:
                killed[kind] = cluster.workers[len(killed)].pid
                os.kill(killed[kind], signal.SIGKILL)

        model = added(parts[:1], lee_corpus.dictionary, distributed=True)
        for kind, part in zip(("update", "round"), parts[1:], strict=True):
            model.progress = partial(kill, kind)
            model.add_documents(part)
    assert len(set(killed.values())) == 2
    assert lsi_bytes(model) == lsi_bytes(LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, **LSI))


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_nothing_of_an_addition_that_fails_counts(cluster, lee_corpus, dense, distributed, error):
    def failing(number):
        yield from lee_corpus.tfidf[:number]
        raise error("the disk is gone")

    parts = parts_of(lee_corpus, "three")
    model = added(parts[:1], lee_corpus.dictionary, distributed=distributed)
    for part in parts[1:]:
        before, processed = lsi_bytes(model), model.docs_processed
        for number in (0, 70):
            with pytest.raises(error, match="the disk is gone"):
                model.add_documents(failing(number))
        with pytest.raises((ValueError, TypeError)):
            model.add_documents([*lee_corpus.tfidf[:50], [(0, float("nan"))]])
        model.add_documents(iter([]))
        assert (lsi_bytes(model), model.docs_processed) == (before, processed)
        model.add_documents(part)
    assert lsi_bytes(model) == lsi_bytes(LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, **LSI))
    assert_exact(model, dense)


@pytest.mark.parametrize("distributed", [False, True])
def test_two_threads_add_to_one_model(cluster, lee_corpus, dense, distributed):
    """One after the other: neither takes away what the other one has added."""
    model = added([lee_corpus.tfidf[:100]], lee_corpus.dictionary, distributed=distributed)
    parts = [lee_corpus.tfidf[first : first + 50] for first in range(100, 300, 50)]
    threads = [threading.Thread(target=model.add_documents, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert model.docs_processed == 300
    assert_exact(model, dense)  # the order of the documents makes no difference to it


@pytest.mark.parametrize("distributed", [False, True])
def test_two_models_in_two_threads(cluster, lee_corpus, distributed):
    cuts = {"two": None, "three": None}

    def train(cut):
        cuts[cut] = added(parts_of(lee_corpus, cut), lee_corpus.dictionary, distributed=distributed)

    threads = [threading.Thread(target=train, args=(cut,)) for cut in cuts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert lsi_bytes(cuts["two"]) == lsi_bytes(cuts["three"])


def test_an_addition_in_the_middle_of_another_is_not_lost_in_silence(lee_corpus, dense):
    model = added([lee_corpus.tfidf[:100]], lee_corpus.dictionary)

    def meddling():
        yield from lee_corpus.tfidf[100:120]
        model.add_documents(lee_corpus.tfidf[200:])

    with pytest.raises(RuntimeError, match="was changed while documents were added to it"):
        model.add_documents(meddling())
    assert model.docs_processed == 200
    model.add_documents(lee_corpus.tfidf[100:200])
    assert_exact(model, dense)


@pytest.mark.parametrize(("make", "distributed"), [("pickle", True), ("copy", False), ("file", True)])
def test_copies_have_the_factors_only_and_say_so(
    cluster, lee_corpus, dense, tmp_path, caplog, make, distributed
):
    parts = parts_of(lee_corpus, "two")
    model = added(parts[:1], lee_corpus.dictionary, distributed=distributed)
    if make == "file":
        model.save(str(tmp_path / "model"))
        other = LsiModel.load(str(tmp_path / "model"))
    else:
        other = copy.deepcopy(model) if make == "copy" else pickle.loads(pickle.dumps(model))
    assert len(pickle.dumps(model)) < 1.1 * len(pickle.dumps(model.as_gensim()))
    other.add_documents(lee_corpus.tfidf[160:200])
    assert f"the 20 leading factors of the 160 {NOT_HERE}" in caplog.text
    first = other.projection.u
    caplog.clear()
    # What is added from now on is kept, beside those factors.
    other.add_documents(lee_corpus.tfidf[200:])
    assert not caplog.records
    U, s = model.projection.u, model.projection.s
    assert_exact(other, np.hstack([U * s, dense[:, 160:]]))
    assert other.projection.u is not first
    # The model itself has its documents still.
    model.add_documents(parts[1])
    assert not caplog.records
    assert_exact(model, dense)


@pytest.mark.parametrize("what", ["u", "s", "u in place", "s in place"])
def test_factors_that_the_program_has_changed_count(lee_corpus, dense, caplog, what):
    model = added([lee_corpus.tfidf[:100]], lee_corpus.dictionary)
    if what == "u":
        model.projection.u = np.roll(model.projection.u, 1, axis=0)
    elif what == "u in place":
        model.projection.u[:] = np.roll(model.projection.u, 1, axis=0)
    elif what == "s":
        model.projection.s = model.projection.s * 3
    else:
        model.projection.s *= 3
    U, s = model.projection.u, model.projection.s
    model.add_documents(lee_corpus.tfidf[100:150])
    assert f"the 20 leading factors of the 100 {NOT_HERE}" in caplog.text
    assert_exact(model, np.hstack([U * s, dense[:, 100:150]]))


@pytest.mark.parametrize("distributed", [False, True])
def test_a_matrix_that_the_program_uses_again(cluster, lee_corpus, dense, distributed):
    """What is kept is not in the program's arrays."""
    matrix = scipy.sparse.csc_array(dense[:, :160].astype(np.float32))
    model = added([matrix], lee_corpus.dictionary, distributed=distributed)
    matrix.data[:] = 1.0
    matrix.indices[:] = 0
    model.add_documents(scipy.sparse.csc_array(dense[:, 160:].astype(np.float32)))
    assert_exact(model, dense)


def test_a_second_attempt_keeps_what_it_read_once():
    """A dispatcher that is lost is given everything again."""
    there, new = ([as_chunk([[(word, 1.0)]], 9) for word in words] for words in ((0, 1), (2, 3, 4)))
    nbytes = sum(chunk.nbytes for chunk in there + new)
    for limit, keeps in ((nbytes, True), (nbytes - 1, False)):
        addition = Addition(Kept(None, tuple(there), (4.0, 1.0)), new, limit)
        task = LsiTask(9, 2, decay=0.5, squared_weights=(4.0, 1.0))
        for read in range(1, 6):  # and no further
            attempt = iter(addition)
            assert [int(next(attempt).indices[0]) for _ in range(read)] == list(range(read))
            assert addition.kept(task, b"") is None
        assert [int(chunk.indices[0]) for chunk in addition] == [0, 1, 2, 3, 4]
        kept = addition.kept(task, b"")
        assert (kept is not None) == keeps
        if kept is not None:
            assert [int(chunk.indices[0]) for chunk in kept.chunks] == [0, 1, 2, 3, 4]
            assert kept.squared_weights == (4.0 / 64, 1.0 / 64, 1 / 16, 1 / 4, 1.0)
            assert kept.weighed(3.0).squared_weights[-1] == 9.0

"""Bad input: one clear error in the client, and the cluster serves the next."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import scipy.sparse
from gensim.corpora import Dictionary, HashDictionary
from gensim.models import LdaModel, LsiModel
from gensim.utils import FakeDict

from distcorpus import LocalCluster
from distcorpus.wire import connect, find, list_names, lookup, names

from ..template import start
from .conftest import wait_until


@pytest.fixture(autouse=True)
def serves_the_next(cluster, lee_corpus):
    yield
    model = LsiModel(lee_corpus.tfidf[:50], id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    assert len(model.projection.s) == 3


def lda(corpus, documents):
    # Without eval_every=None the model would first fail over the chunk itself, evaluating the perplexity.
    return LdaModel(
        documents, id2word=corpus.dictionary, num_topics=3, chunksize=100, eval_every=None, distributed=True
    )


def lsi(corpus, documents):
    return LsiModel(documents, id2word=corpus.dictionary, num_topics=3, chunksize=100, distributed=True)


@pytest.mark.parametrize("count", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("model", [lda, lsi])
def test_counts_that_are_not_finite(cluster, lee_corpus, model, count):
    documents = [*lee_corpus.counts[:150], [(7, count)]]
    with pytest.raises(ValueError, match=r"chunk 1.*document 50.*term id 7.*not finite"):
        model(lee_corpus, documents)


def test_negative_counts(cluster, lee_corpus):
    documents = [*lee_corpus.counts[:5], [(7, -2)]]
    with pytest.raises(ValueError, match=r"chunk 0.*document 5.*term id 7.*negative"):
        lda(lee_corpus, documents)
    lsi(lee_corpus, documents)


def test_ids_outside_the_vocabulary(cluster, lee_corpus):
    beyond = len(lee_corpus.dictionary)
    with pytest.raises(ValueError, match=rf"chunk 0.*document 1.*{beyond}"):
        lda(lee_corpus, [[(0, 1)], [(beyond, 1)]])


def test_matrix_with_other_vocabulary(cluster, lee_corpus):
    model = LsiModel(id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    model.dispatcher.reset()
    with pytest.raises(ValueError, match="terms"):
        model.dispatcher.putjob(scipy.sparse.csc_matrix(np.eye(4)))


def test_matrix_with_bad_indices(cluster, lee_corpus):
    """scipy would take it, and crash the process that used it."""
    model = LsiModel(id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    model.dispatcher.reset()
    matrix = scipy.sparse.csc_matrix(np.eye(len(lee_corpus.dictionary)))
    matrix.indices[3] = 10**8
    with pytest.raises(ValueError, match="chunk 0: document 3: term id 100000000 is outside the vocabulary"):
        model.dispatcher.putjob(matrix)


@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
def test_session_that_was_interrupted(cluster, lee_corpus, kind):
    """The connection is the session: over a new one the model is told so, and not half served."""
    model = kind(id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    model.dispatcher._pyroRelease()
    with pytest.raises(RuntimeError, match=r"no session.*Train a new model"):
        (model.update if kind is LdaModel else model.add_documents)(lee_corpus.counts)


def test_no_workers(lee_corpus):
    with LocalCluster(n_workers=0), pytest.raises(RuntimeError, match=r"no workers.*distcorpus worker"):
        lsi(lee_corpus, lee_corpus.tfidf)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["lsi", "lda"])
def test_stock_workers_are_named(lee_corpus, kind):
    """gensim's own worker does not count: the error says that it was seen, and what to start."""
    with LocalCluster(n_workers=0) as cluster:
        stock = subprocess.Popen(
            [sys.executable, "-m", f"gensim.models.{kind}_worker"],
            env={**os.environ, **cluster.environ()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            nameserver = find(broadcast=False)
            wait_until(lambda: list_names(nameserver, f"gensim.{kind}_worker"), "gensim's worker")
            (name,) = list_names(nameserver, f"gensim.{kind}_worker")
            with pytest.raises(
                RuntimeError, match=rf"no workers.*1 of gensim's.*{name}.*'distcorpus worker'"
            ):
                (lsi if kind == "lsi" else lda)(lee_corpus, lee_corpus.counts)
            assert cluster.dispatcher.status()["stock_workers"] == [name]
            cluster.scale(1)
            lsi(lee_corpus, lee_corpus.tfidf)
        finally:
            stock.kill()
            stock.wait()


def dispatcher_command(cluster, *options):
    return start(
        [sys.executable, "-m", "distcorpus", "dispatcher", "--no-broadcast", *options],
        env={**os.environ, **cluster.environ()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_second_dispatcher(cluster):
    second = dispatcher_command(cluster)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "already" in errors
    assert "--replace" in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_second_dispatcher_that_replaces(lee_corpus):
    with LocalCluster(n_workers=1) as cluster:
        second = dispatcher_command(cluster, "--replace")
        try:
            assert second.stdout.readline().startswith("distcorpus dispatcher")
            lsi(lee_corpus, lee_corpus.tfidf)
        finally:
            second.terminate()
            second.communicate(timeout=60)
        assert second.returncode == 0


def test_every_usual_mapping_is_a_vocabulary(cluster, lee_corpus):
    size = len(lee_corpus.dictionary)
    words = {lee_corpus.dictionary.token2id[word]: word for word in lee_corpus.dictionary.token2id}
    uci = Dictionary.from_documents([["a"]])
    uci.token2id, uci.dfs = lee_corpus.dictionary.token2id, defaultdict(int, lee_corpus.dictionary.dfs)
    kinds = [OrderedDict(sorted(words.items())), defaultdict(str, words), Counter(dict.fromkeys(words, 1))]
    kinds += [FakeDict(size), HashDictionary(id_range=size), uci]
    expected = LdaModel(
        lee_corpus.counts[:50], id2word=words, num_topics=3, distributed=True, eval_every=None, random_state=1
    )
    for id2word in kinds:
        model = LdaModel(
            lee_corpus.counts[:50],
            id2word=id2word,
            num_topics=3,
            distributed=True,
            eval_every=None,
            random_state=1,
        )
        assert model.state.sstats.tobytes() == expected.state.sstats.tobytes(), type(id2word)


@pytest.mark.parametrize("id2word", [{"a": "b"}, {1.5: "a"}, OrderedDict([("a", 0)])], ids=repr)
def test_ids_that_are_no_numbers(cluster, id2word):
    front = connect(lookup(find(*cluster._nameserver, broadcast=False), names.LDA_DISPATCHER))
    with pytest.raises(TypeError, match=r"id2word has a (str|float) for an id"):
        front.initialize(id2word=id2word, num_topics=2)

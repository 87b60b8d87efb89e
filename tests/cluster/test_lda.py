"""Unmodified gensim LDA on a cluster, against gensim's serial computation."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.models import LdaModel
from gensim.models.ldamodel import LdaState

from distcorpus.algorithms.lda import starting_gamma
from distcorpus.wire import connect, names
from distcorpus.wire.nameserver import find, lookup


class StartingGamma:
    """Gives gensim's serial E-step the gamma that ours starts from."""

    def __init__(self, gamma):
        self._gamma = gamma

    def gamma(self, shape, scale, size):
        assert size == self._gamma.shape
        return self._gamma


def test_statistics_of_a_chunk_are_gensims(cluster, lee_corpus):
    num_topics, chunk = 25, lee_corpus.counts[:100]
    serial = LdaModel(id2word=lee_corpus.dictionary, num_topics=num_topics, random_state=3)
    serial.sync_state()
    serial.random_state = StartingGamma(starting_gamma(len(chunk), num_topics, 0, (0, 0)))
    _, expected = serial.inference(chunk, collect_sstats=True)

    host, port = cluster.environ()["PYRO_NS_HOST"], int(cluster.environ()["PYRO_NS_PORT"])
    front = connect(lookup(find(host, port, broadcast=False), names.LDA_DISPATCHER))
    front.initialize(id2word=lee_corpus.dictionary, num_topics=num_topics)
    front.reset(serial.state)
    front.putjob([np.array(document, dtype=np.float32) for document in chunk])
    state = front.getstate()

    assert isinstance(state, LdaState)
    assert state.numdocs == len(chunk)
    assert state.sstats.dtype == np.float32
    assert np.abs(state.sstats - expected).sum() / expected.sum() < 1e-4


@pytest.mark.network
@pytest.mark.long
def test_perplexity_is_serial_gensims(cluster, newsgroups):
    """The same schedule of updates, so that only the arithmetic and the documents' starting gamma differ.

    With gensim's default offset the starting gamma alone moves the perplexity by 1.5 %; with this one by 0.3
    %.
    """
    options = {
        "id2word": newsgroups.dictionary,
        "num_topics": 20,
        "chunksize": 250,
        "offset": 16,
        "eval_every": None,
    }
    train, held_out = newsgroups.counts[:6000], newsgroups.counts[-1000:]
    distributed = LdaModel(train, distributed=True, random_state=1, **options)
    assert distributed.numworkers == 2
    serial = LdaModel(train, update_every=2, random_state=1, **options)
    bounds = []
    for model in (distributed, serial):
        model.random_state = np.random.RandomState(5)
        bounds.append(model.log_perplexity(held_out))
    ours, theirs = np.exp2(-np.array(bounds))
    assert ours == pytest.approx(theirs, rel=0.01)


def test_passes_and_priors(cluster, lee_corpus):
    """Asymmetric alpha, a matrix of eta, several passes, counts that are not whole."""
    rng = np.random.default_rng(1)
    eta = rng.uniform(0.01, 0.5, (5, len(lee_corpus.dictionary)))
    model = LdaModel(
        lee_corpus.counts[:50] + lee_corpus.tfidf[50:100],
        id2word=lee_corpus.dictionary,
        num_topics=5,
        alpha="asymmetric",
        eta=eta,
        passes=3,
        chunksize=20,
        distributed=True,
    )
    assert model.state.numdocs == 100
    np.testing.assert_allclose(model.get_topics().sum(axis=1), 1.0, rtol=1e-5)


def test_float64(cluster, lee_corpus):
    """gensim's own distributed mode fails here by an assertion."""
    model = LdaModel(
        lee_corpus.counts, id2word=lee_corpus.dictionary, num_topics=5, dtype=np.float64, distributed=True
    )
    assert model.state.sstats.dtype == np.float64

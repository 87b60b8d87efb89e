"""Jobs of which no document has a word: they add nothing, and fail nothing."""

from __future__ import annotations

import gensim.models
import numpy as np
import pytest

from distcorpus import LocalCluster
from distcorpus.models import LdaModel, LsiModel

EMPTY = [[] for _ in range(500)]


def train(kind, documents, dictionary, **options):
    common = {"id2word": dictionary, "num_topics": 5, "chunksize": 500, "distributed": True}
    if issubclass(kind, gensim.models.LdaModel):
        options |= {"random_state": 1, "update_every": 0, "eval_every": None}
    return kind(documents, **common, **options)


def result(model):
    if isinstance(model, gensim.models.LdaModel):
        return model.get_topics()
    return model.projection.u * model.projection.s


@pytest.fixture(scope="module")
def grown():
    """A cluster that each test's first model finds with one worker, and its last with three."""
    with LocalCluster(n_workers=1) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", [LdaModel, LsiModel, gensim.models.LdaModel, gensim.models.LsiModel])
@pytest.mark.long
def test_chunk_of_empty_documents_between_others(grown, lee_corpus, kind):
    """Whichever worker gets it, and whatever it has computed before."""
    lda = issubclass(kind, gensim.models.LdaModel)
    documents = (lee_corpus.counts if lda else lee_corpus.tfidf) * 2
    corpus = [*documents[:500], *EMPTY, *documents[:500]]
    for workers in (1, 2, 3):
        grown.scale(workers)
        model = train(kind, corpus, lee_corpus.dictionary)
        if workers == 1:
            expected = result(model)
            if not lda:
                # Empty documents are columns of zeros.
                without = result(train(kind, [*documents[:500]] * 2, lee_corpus.dictionary))
                np.testing.assert_allclose(np.abs(expected), np.abs(without), rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(result(model), expected)
    grown.scale(1)


@pytest.mark.parametrize("kind", [LdaModel, gensim.models.LdaModel])
def test_lda_of_empty_documents_alone(cluster, lee_corpus, kind):
    model = train(kind, EMPTY[:5], lee_corpus.dictionary)
    np.testing.assert_allclose(model.get_topics().sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("kind", [LsiModel, gensim.models.LsiModel])
def test_lsi_of_empty_documents_alone(cluster, lee_corpus, kind):
    model = train(kind, EMPTY[:5], lee_corpus.dictionary)
    assert model.projection.u.shape == (len(lee_corpus.dictionary), 0)
    assert model.projection.s.shape == (0,)


@pytest.mark.parametrize("documents", [[[]], [[], []], EMPTY])
def test_transform_of_empty_documents(cluster, lee_corpus, documents):
    model = train(LdaModel, lee_corpus.counts[:50], lee_corpus.dictionary)
    here = np.vstack(list(model.transform(documents, distributed=False)))
    there = np.vstack(list(model.transform(documents, distributed=True)))
    np.testing.assert_array_equal(there, here)
    # Nothing is known of such a document but its prior.
    np.testing.assert_allclose(here, np.tile(model.alpha / model.alpha.sum(), (len(documents), 1)), rtol=1e-5)
    assert model.bound(documents, distributed=True) == model.bound(documents, distributed=False)

"""Unmodified gensim LSI on a cluster, against exact singular vectors."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.matutils import corpus2csc
from gensim.models import LsiModel
from scipy.sparse.linalg import svds


def exact(corpus, num_terms, k, weights=None):
    """Return the k leading left singular vectors and values of the weighted term-document matrix."""
    matrix = corpus2csc(corpus, num_terms=num_terms)
    if weights is not None:
        matrix = matrix.multiply(weights).tocsc()
    U, s, _ = svds(matrix, k=k, random_state=1, tol=1e-10)
    order = np.argsort(-s)
    return U[:, order], s[order]


def assert_same_factors(projection, U, s, rtol=1e-3, gap=0.02):
    """Values within `rtol`; the leading directions that a gap in the spectrum sets apart span the same."""
    assert projection.u.shape == U.shape
    np.testing.assert_allclose(projection.s, s, rtol=rtol)
    apart = np.flatnonzero(s[:-1] - s[1:] > gap * s[:-1])
    leading = apart[-1] + 1 if len(apart) else 1
    cosines = np.linalg.svd(projection.u[:, :leading].T @ U[:, :leading], compute_uv=False)
    assert cosines.min() > 0.999
    assert np.abs(projection.u.T @ projection.u - np.eye(len(s))).max() < 1e-10


def test_lee(cluster, lee_corpus):
    k = 50
    model = LsiModel(
        lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=k, chunksize=40, distributed=True
    )
    U, s = exact(lee_corpus.tfidf, len(lee_corpus.dictionary), k)
    assert_same_factors(model.projection, U, s)
    assert model.docs_processed == len(lee_corpus.tfidf)
    assert model.projection.u.dtype == np.float64


@pytest.mark.network
@pytest.mark.long
def test_newsgroups(cluster, newsgroups):
    k = 50
    model = LsiModel(newsgroups.tfidf, id2word=newsgroups.dictionary, num_topics=k, distributed=True)
    U, s = exact(newsgroups.tfidf, len(newsgroups.dictionary), k)
    assert_same_factors(model.projection, U, s)


def test_float32(cluster, lee_corpus):
    model = LsiModel(
        lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=10, distributed=True, dtype=np.float32
    )
    assert model.projection.u.dtype == model.projection.s.dtype == np.float32
    _, s = exact(lee_corpus.tfidf, len(lee_corpus.dictionary), 10)
    np.testing.assert_allclose(model.projection.s, s, rtol=1e-3)


def test_additions_add(cluster, lee_corpus):
    """gensim's own distributed mode would forget the first 200 documents."""
    k, corpus = 20, lee_corpus.tfidf
    model = LsiModel(
        corpus[:200], id2word=lee_corpus.dictionary, num_topics=k, chunksize=30, distributed=True
    )
    model.add_documents(corpus[200:260])
    model.add_documents(corpus[260:], chunksize=7)
    U, s = exact(corpus, len(lee_corpus.dictionary), k)
    assert_same_factors(model.projection, U, s)


def test_decay(cluster, lee_corpus):
    """Each chunk weighs `decay` times as much as the next one."""
    k, chunksize, decay, corpus = 10, 60, 0.8, lee_corpus.tfidf
    model = LsiModel(
        corpus[:180],
        id2word=lee_corpus.dictionary,
        num_topics=k,
        chunksize=chunksize,
        decay=decay,
        distributed=True,
    )
    model.add_documents(corpus[180:])
    weights = decay ** (4 - np.arange(300) // chunksize)
    U, s = exact(corpus, len(lee_corpus.dictionary), k, weights)
    assert_same_factors(model.projection, U, s)


def test_folding(lee_corpus):
    """Kept chunks that outgrow their budget are folded into twice the wanted directions."""
    from distcorpus import LocalCluster

    k, corpus = 10, lee_corpus.tfidf
    tight = ("--memory", str(60_000 / 2**30))
    with LocalCluster(1, dispatcher_options=tight):
        model = LsiModel(corpus, id2word=lee_corpus.dictionary, num_topics=k, chunksize=50, distributed=True)
    _, s = exact(corpus, len(lee_corpus.dictionary), k)
    serial = LsiModel(corpus, id2word=lee_corpus.dictionary, num_topics=k, chunksize=50).projection.s
    ours, theirs = np.abs(model.projection.s / s - 1).max(), np.abs(serial / s - 1).max()
    assert ours < 0.05
    assert ours < theirs


def test_fewer_documents_than_topics(cluster, lee_corpus):
    model = LsiModel(lee_corpus.tfidf[:3], id2word=lee_corpus.dictionary, num_topics=10, distributed=True)
    dense = corpus2csc(lee_corpus.tfidf[:3], num_terms=len(lee_corpus.dictionary)).toarray()
    np.testing.assert_allclose(model.projection.s, np.linalg.svd(dense, compute_uv=False), rtol=1e-6)


def test_number_of_workers_makes_no_difference(cluster, lee_corpus):
    from distcorpus import LocalCluster

    def train():
        model = LsiModel(
            lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=10, chunksize=50, distributed=True
        )
        return model.projection.u.tobytes() + model.projection.s.tobytes()

    two = train()
    for n_workers in (1, 7):
        with LocalCluster(n_workers):
            assert train() == two


def test_equal_singular_values(cluster):
    """A block of the iteration sees 16 copies of a value; 40 groups of one-word documents make 40."""
    random = np.random.default_rng(0)
    corpus = [[(group, 1.0)] for group in range(40) for _ in range(25)]
    for _ in range(500):
        terms = 40 + np.unique(random.integers(0, 400, 4))
        corpus.append([(int(term), 1.0) for term in terms])
    corpus = [corpus[i] for i in random.permutation(len(corpus))]
    id2word = {term: str(term) for term in range(440)}
    dense = corpus2csc(corpus, num_terms=440).toarray()
    exact_s = np.linalg.svd(dense, compute_uv=False)
    for k in (30, 60):
        model = LsiModel(corpus, id2word=id2word, num_topics=k, chunksize=300, distributed=True)
        np.testing.assert_allclose(model.projection.s, exact_s[:k], rtol=1e-4)

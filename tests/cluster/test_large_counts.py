"""Counts that are too large to be added exactly: one error that names the document and the limit."""

from __future__ import annotations

import gensim.models
import numpy as np
import pytest

from distcorpus.models import LdaModel, LsiModel

ID2WORD = dict.fromkeys(range(4), "word")
KINDS = [LdaModel, gensim.models.LdaModel]


def train(kind, documents, **options):
    lda = {"random_state": 1, "eval_every": None} if issubclass(kind, gensim.models.LdaModel) else {}
    return kind(documents, id2word=ID2WORD, num_topics=2, **lda, **options)


@pytest.mark.parametrize("distributed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_one_document(cluster, kind, distributed):
    if kind is gensim.models.LdaModel and not distributed:
        pytest.skip("gensim alone")
    model = train(kind, [[(0, 1)], [(1, 1e9), (2, 3)]], distributed=distributed)
    assert model.state.sstats.sum() == pytest.approx(1e9 + 4, rel=1e-4)
    # Our models look at each value while they read, the dispatcher at what they add up to.
    too_large = r"has (a count of 3000000000.*2147483648|the value 3e\+09: values below 2\.14748e\+09)"
    with pytest.raises(ValueError, match=rf"chunk 0: document 1: term id 2 {too_large}"):
        train(kind, [[(0, 1)], [(2, 3e9)]], distributed=distributed)
    with pytest.raises(ValueError, match=r"document 2: term id 1 has (a count of|the value) 1\.\d+e\+12"):
        train(kind, [[(0, 1)], [(1, 2.0)], [(1, 1.5e12 + 2**30)]], distributed=distributed)


@pytest.mark.parametrize("kind", KINDS)
def test_several_documents(cluster, kind):
    documents = [[(0, 1)], [(1, 1e9)], [(1, 1.1e9), (2, 4)], [(1, 1e9)]]
    with pytest.raises(
        ValueError, match=r"document 2: term id 1 has a count of 1100000000, .* have 3100000000"
    ):
        train(kind, documents, distributed=True)
    # Of different terms they may be more.
    many = [[(0, 2e9)], [(1, 2e9)], [(2, 2e9)]]
    assert train(kind, many, distributed=True).state.sstats.sum() == pytest.approx(6e9, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_several_chunks(cluster, kind):
    """Which is seen when they are added up."""
    with pytest.raises(
        OverflowError,
        match=r"chunk \d, documents 0-0: term id 1: a sum exceeds .*\(2147483648\).* give smaller counts",
    ):
        train(kind, [[(1, 2e9)]] * 4, distributed=True, chunksize=1, update_every=0)


@pytest.mark.parametrize("kind", [LsiModel, gensim.models.LsiModel])
def test_lsi_has_room(cluster, kind):
    documents = [[(0, 1e9), (1, 1e9)], [(1, 3e9)], [(2, 1e12)]]
    model = train(kind, documents, distributed=True)
    matrix = np.zeros((4, 3))
    for column, document in enumerate(documents):
        for term, value in document:
            matrix[term, column] = value
    np.testing.assert_allclose(model.projection.s, np.linalg.svd(matrix)[1][:2], rtol=1e-4)


@pytest.mark.parametrize("kind", [LsiModel, gensim.models.LsiModel])
@pytest.mark.parametrize(
    ("value", "message"), [(1e-160, "1e-160|add up to"), (1e154, r"the value 1e\+154|add up to")]
)
def test_lsi_refuses_what_it_cannot_hold(cluster, kind, value, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
        train(kind, [[(0, value)], [(1, value)]], distributed=True)

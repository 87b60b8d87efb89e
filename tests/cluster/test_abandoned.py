"""gensim's LSI on a dispatcher that keeps little: an addition that is given up counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.matutils import corpus2dense
from gensim.models import LsiModel

from distcorpus import LocalCluster

NUM_TERMS, NUM_TOPICS, CHUNK = 80, 4, 20
#: Bytes of two of its chunks: each of 20 documents with 80 entries takes 13 kB.
MEMORY = 27_000


@pytest.fixture(scope="module", autouse=True)
def small():
    """A dispatcher that folds after every second chunk."""
    with LocalCluster(1, dispatcher_options=("--memory", str(MEMORY / 2**30))) as cluster:
        yield cluster


def documents(seed, number):
    """Documents of rank 6: what a fold keeps, twice the topics, is the whole of them."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).gamma(1.0, size=(6, NUM_TERMS))
    dense = (random.gamma(1.0, size=(number, 6)) * np.geomspace(8, 1, 6)) @ directions
    return [list(enumerate(row.tolist())) for row in dense]


def exact(corpora, decay):
    chunks = [
        corpus2dense(corpus[first : first + CHUNK], NUM_TERMS, dtype=np.float64)
        for corpus in corpora
        for first in range(0, len(corpus), CHUNK)
    ]
    weighed = [chunk * decay ** (len(chunks) - 1 - place) for place, chunk in enumerate(chunks)]
    return np.linalg.svd(np.hstack(weighed), compute_uv=False)[:NUM_TOPICS]


class Spilt(Exception):
    """What a corpus raises in the middle of being read."""


def broken(corpus):
    yield from corpus
    raise Spilt


@pytest.mark.parametrize("decay", [1.0, 0.9])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_addition_whose_corpus_raises_counts_for_nothing(before, decay):
    """Given up twice, before the first, second and third addition, after it was folded."""
    model = LsiModel(
        id2word=dict.fromkeys(range(NUM_TERMS), "word"),
        num_topics=NUM_TOPICS,
        chunksize=CHUNK,
        decay=decay,
        distributed=True,
    )
    there = []
    for number, size in enumerate((100, 20, 80)):
        if number == before:
            for seed in (50, 51):
                with pytest.raises(Spilt):
                    # gensim sends a chunk when it has read the next one's first document.
                    model.add_documents(broken(documents(seed, 101)))
        there.append(documents(number, size))
        model.add_documents(there[-1])
        np.testing.assert_allclose(model.projection.s, exact(there, decay), rtol=1e-4)


@pytest.mark.parametrize("wrong", [NUM_TERMS, 2**31 - 1, -1])
@pytest.mark.parametrize("at", [0, 47])
def test_a_document_of_another_vocabulary_is_named_and_the_model_goes_on(wrong, at):
    model = LsiModel(
        id2word=dict.fromkeys(range(NUM_TERMS), "word"),
        num_topics=NUM_TOPICS,
        chunksize=CHUNK,
        distributed=True,
    )
    good = documents(1, 60)
    for there in ([good], [good, good]):
        bad = list(good)
        bad[at] = [(3, 1.0), (wrong, 2.0)]
        number = 3 * (len(there) - 1) + at // CHUNK
        message = f"chunk {number}: document {at % CHUNK}: term id {wrong} is outside the vocabulary of 80"
        with pytest.raises(ValueError, match=f"^{message} terms$"):
            model.add_documents(bad)
        model.add_documents(good)
        np.testing.assert_allclose(model.projection.s, exact(there, 1.0), rtol=1e-4)

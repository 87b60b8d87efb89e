"""TF-IDF of a corpus on disk against gensim's `TfidfModel`."""

from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from gensim.corpora import Dictionary
from gensim.models import TfidfModel

from distcorpus.corpora import Corpus, weighting, writing

RNG = np.random.default_rng(3)
TEXTS = [["w0", *(f"w{n}" * (n % 3 + 1) for n in RNG.zipf(1.5, 30) if n < 40)] for _ in range(60)]
TEXTS[7] = []
DICTIONARY = Dictionary(TEXTS)
BAGS = [DICTIONARY.doc2bow(text) for text in TEXTS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(writing, "SHARD_ENTRIES", 150)
        return Corpus.write(tmp_path_factory.mktemp("tfidf") / "c", BAGS, DICTIONARY)


def assert_as_gensim(found, model: TfidfModel, bags=BAGS):
    assert len(found) == len(bags)
    for document, bag in zip(found, bags, strict=True):
        wanted = model[bag] if bag else []  # of an empty one gensim cannot compute some weightings
        assert [term for term, _ in document] == [term for term, _ in wanted]
        assert [weight for _, weight in document] == pytest.approx([w for _, w in wanted], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"pivot": 7.0}, {"pivot": 7.0, "slope": 0.6}])
def test_as_gensim_does_by_default(corpus: Corpus, options: dict):
    assert_as_gensim(corpus.tfidf(**options), TfidfModel(dictionary=DICTIONARY, **options))


@pytest.mark.parametrize("local", "btnaldL")
def test_every_smart_weighting(corpus: Corpus, local: str):
    for letters in product("xnftp", "xncub"):
        smartirs = local + "".join(letters)
        model = TfidfModel(dictionary=DICTIONARY, smartirs=smartirs)
        assert_as_gensim(corpus.tfidf(smartirs)[:20], model, BAGS[:20])


@pytest.mark.parametrize("smartirs", ["ntn", "lfc", "atu", "btb"])
def test_a_pivot_that_is_given(corpus: Corpus, smartirs: str):
    model = TfidfModel(dictionary=DICTIONARY, smartirs=smartirs, pivot=5.0, slope=0.3)
    assert_as_gensim(corpus.tfidf(smartirs, pivot=5.0, slope=0.3), model)


@pytest.mark.parametrize(
    "functions",
    [
        {"wlocal": np.sqrt},
        {"wglobal": lambda df, n: n / df - 1},
        {"normalize": lambda vector: [(term, weight / 2) for term, weight in vector]},
        {"wlocal": lambda tf: tf > 1, "normalize": False},
    ],
)
def test_functions_of_ones_own(corpus: Corpus, functions: dict):
    assert_as_gensim(corpus.tfidf(**functions), TfidfModel(dictionary=DICTIONARY, **functions))


def test_a_term_of_all_documents_is_left_out(tmp_path: Path):
    bags = [[(0, 1), (1, 2)], [(0, 3)], [(0, 1), (2, 1)]]
    view = Corpus.write(tmp_path / "c", bags).tfidf()
    assert_as_gensim(view, TfidfModel(bags), bags)
    assert [len(document) for document in view] == [1, 0, 1]


def test_a_slice_has_the_weights_of_the_whole_corpus(corpus: Corpus):
    whole = list(corpus.tfidf())
    assert list(corpus.tfidf()[10:30]) == whole[10:30]
    assert list(corpus[10:30].tfidf()) == whole[10:30]
    assert corpus.tfidf()[12] == whole[12]
    assert list(pickle.loads(pickle.dumps(corpus.tfidf()[3:]))) == whole[3:]


def test_it_may_be_written_as_a_corpus_of_its_own(corpus: Corpus, tmp_path: Path):
    written = Corpus.write(tmp_path / "c", corpus.tfidf())
    assert list(written) == list(corpus.tfidf())
    assert written._store.manifest.weighting == "weights"
    assert abs(written.to_scipy() - corpus.tfidf().to_scipy()).max() == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"smartirs": "nf"}, "give three letters"),
        ({"smartirs": "zfc"}, "'z' is not one of"),
        ({"smartirs": "nfc", "wlocal": np.sqrt}, "give it, or functions"),
        ({"normalize": False, "pivot": 1.0}, "give normalize=True"),
        ({"pivot": float("nan")}, "give a finite number"),
        ({"slope": "x"}, "give a finite number"),
    ],
)
def test_bad_arguments(corpus: Corpus, arguments: dict, match: str):
    with pytest.raises((ValueError, TypeError), match=match):
        corpus.tfidf(**arguments)


def test_word_lengths_need_words(tmp_path: Path):
    with pytest.raises(ValueError, match="the corpus has no words"):
        Corpus.write(tmp_path / "c", BAGS).tfidf("nfb")


def test_what_travels_makes_the_same_weighting():
    given = weighting.Weighting("Lpu", 3, 0.5)
    assert weighting.Weighting(*given.to_message()) == given


@pytest.mark.parametrize("least", [0.1, -3.0])
def test_weights_have_the_entries_that_gensim_leaves(tmp_path: Path, least: float):
    values = np.random.default_rng(5).uniform(least, 2, (30, 12))
    values[0, :2] = 1e-13, 1e13
    bags = [
        [(term, float(row[term])) for term in range(12) if (term + n) % 3] for n, row in enumerate(values)
    ]
    corpus = Corpus.write(tmp_path / "c", bags, {term: f"w{term}" for term in range(12)})
    compared = 0
    for smartirs in map("".join, product("bnadlL", "ntp", "ncu")):
        model = TfidfModel(dictionary=corpus.id2word, smartirs=smartirs)
        with np.errstate(invalid="ignore", divide="ignore"):
            for document, bag in zip(corpus.tfidf(smartirs), bags, strict=True):
                try:
                    wanted = model[bag]
                except AssertionError:  # of documents with weights that are no numbers
                    continue
                compared += 1
                assert dict(document) == pytest.approx(dict(wanted), rel=1e-6, abs=1e-6)
    assert compared > 1000

"""References that are forged: what a worker and a dispatcher make of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.algorithms.chunk import packed_words
from distcorpus.corpora import Corpus
from distcorpus.corpora.reference import Reference, StoredChunk, checksum_of_words
from distcorpus.corpora.roots import Roots
from distcorpus.corpora.weighting import Weighting
from distcorpus.worker.daemon import Worker

from .test_worker import job

BAGS = [[(0, 1.0), (1, 2.0)], [(1, 1.0)]]
LIMITS = {"max_docs": 512}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.write(tmp_path_factory.mktemp("root") / "c", BAGS)


@pytest.fixture
def worker(corpus: Corpus) -> Worker:
    return Worker("a worker", corpora=Roots([str(corpus.directory.parent)]))


@pytest.fixture
def reference(corpus: Corpus) -> Reference:
    return corpus.referred(0, 2, 2, LIMITS, None).blocks[0].reference


def ask(worker: Worker, reference: Reference, **changes):
    return worker.process(job(payload={}, stored={0: reference.to_message()}, **changes))


def arrays_of(corpus: Corpus, *more) -> dict:
    chunk = corpus.chunk(0, 2)
    return {0: (chunk.indptr, chunk.indices, chunk.data, *more)}


def test_a_worker_computes_the_same_of_what_it_reads_and_of_what_it_is_sent(worker, corpus, reference):
    read = ask(worker, reference)["partial"]
    words = np.array([0, 1], np.int32)
    both = job(payload=arrays_of(corpus, words), stored={0: reference.to_message()})
    for answer in (worker.process(job(payload=arrays_of(corpus))), Worker("without").process(both)):
        assert np.array_equal(read[0], answer["partial"][0])
        assert np.array_equal(read[1], answer["partial"][1])


def test_a_worker_without_the_corpus_asks_for_the_documents(reference: Reference):
    assert ask(Worker("without"), reference) == {"missing": [0], "rows_missing": False}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stop": 3}, "it has 2 documents"),
        ({"start": 5, "stop": 9}, "it has 2 documents"),
        ({"stop": 1}, "number of documents and entries"),
        ({"entries": 2}, "number of documents and entries"),
        ({"entries": 2**61}, "number of documents and entries"),
        ({"words": 1}, "words"),
        ({"most": 3.0}, "sum"),
        ({"squares": 5.0}, "squares"),
        ({"stop": 2**40}, "at most 512"),
    ],
)
def test_facts_that_are_not_of_the_corpus_fail_the_job(worker, reference, changes, match):
    """And are the program's fault: nothing is answered that the dispatcher would blame the worker for."""
    with pytest.raises(ValueError, match=match):
        ask(worker, replace(reference, **changes))


def test_a_vocabulary_that_is_smaller_than_the_corpus(worker, reference):
    with pytest.raises(ValueError, match="and 2 terms, and the vocabulary 1"):
        ask(worker, reference, num_terms=1, words=np.zeros(1, np.int32), rows=np.ones((1, 2), np.float32))


def test_negative_weights_are_no_counts(tmp_path: Path):
    corpus = Corpus.write(tmp_path / "c", [[(0, 1.0), (1, -1.0)]])
    (block,) = corpus.referred(0, 1, 2, LIMITS, None).blocks
    with pytest.raises(ValueError, match="a negative value, where counts are wanted"):
        ask(Worker("w", corpora=Roots([str(tmp_path)])), block.reference)


@pytest.mark.parametrize("stored", [{7: None}, {0: None}, {0: ("x",) * 8}, {0: ()}, [0], "0", {0: {}}])
def test_what_is_no_reference(worker: Worker, stored: object):
    with pytest.raises((TypeError, ValueError)):
        worker.process(job(payload={}, stored=stored))


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=70),
    st.binary(max_size=70),
    st.just("a" * 64),
    st.just(math.nan),
    st.tuples(st.text(max_size=3), st.floats(), st.floats()),
)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(WRONG, max_size=9), at=st.integers(0, 7), part=WRONG)
def test_no_message_makes_a_reference_that_cannot_be(parts: list, at: int, part: object):
    good = list(Reference("a" * 64, Weighting("nfc"), 0, 5, 9, 9.0, 9.0, 1).to_message())
    good[at] = part
    for message in (tuple(parts), tuple(good), parts):
        try:
            read = Reference.from_message(message)
        except (TypeError, ValueError):
            continue
        assert len(read.corpus) == 64
        assert 0 <= read.start <= read.stop
        assert read.most >= 0
        assert read.to_message() == message


def message(**changes) -> dict:
    words = np.array([0, 1], np.int32)
    reference = Reference("a" * 64, None, 0, 2, 3, 4.0, 8.0, checksum_of_words(words)).to_message()
    return {"references": [reference], "words": [words], **changes}


BITS = np.array([0b01100000, 0b00000001], np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {"words": []},
        {"words": [np.array([1, 0], np.int32)]},
        {"words": [np.array([0, 99], np.int32)]},
        {"words": [np.array([-1, 1], np.int32)]},
        {"words": [np.array([[0, 1]], np.int32)]},
        {"words": [np.array([0, 1], np.int64)]},
        {"words": [BITS]},
        {"words": [[0, 1]]},
        {"words": np.array([0, 1], np.int32)},
        {"references": []},
        {"references": [("a" * 64, None, 0, 513, 3, 4.0, 8.0, 0)]},
        {"references": message()["references"] * 2, "words": message()["words"] * 2},
        {"more": 1},
    ],
)
def test_a_chunk_that_is_none(changes: dict):
    with pytest.raises((TypeError, ValueError)):
        StoredChunk.from_message(message(**changes), 10, LIMITS, None)


def test_a_chunk_that_is_one():
    chunk = StoredChunk.from_message(message(), 10, LIMITS, None)
    assert (chunk.n_docs, chunk.nnz, chunk.words().tolist()) == (2, 3, [0, 1])
    many = np.arange(9, dtype=np.int32)
    packed = packed_words(many, 10)
    assert packed.dtype == np.uint8
    reference = Reference("a" * 64, None, 0, 2, 3, 4.0, 8.0, checksum_of_words(many)).to_message()
    read = StoredChunk.from_message({"references": [reference], "words": [packed]}, 10, LIMITS, None)
    assert read.words().tolist() == many.tolist()


def test_a_client_gives_no_documents_but_those_that_it_trains_on(corpus: Corpus, reference: Reference):
    assert corpus.dereferenced(reference).nnz == 3
    with pytest.raises(ValueError, match="not among those that are trained on"):
        corpus[1:].dereferenced(reference)
    with pytest.raises(ValueError, match="not among those that are trained on"):
        corpus.tfidf().dereferenced(reference)
    with pytest.raises(ValueError, match="not among those that are trained on"):
        corpus.dereferenced(replace(reference, corpus="b" * 64))

"""Corpora as a training reads them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from distcorpus.corpora import Corpus
from distcorpus.corpora.reading import ReadAhead, as_corpus, chunks, vocabulary
from distcorpus.corpora.reference import refers_to


class Item:
    pass


def test_what_was_read_is_let_go_of():
    """At once, with no garbage collection: a chunk may be large."""
    items: list[weakref.ref[Item]] = []

    def made() -> Iterator[Item]:
        for _ in range(3):
            item = Item()
            items.append(weakref.ref(item))
            yield item
            del item

    def run() -> None:
        ahead = ReadAhead(made(), 5)
        ahead.fill(lambda: False)
        last = None
        for last in ahead:  # noqa: B007 (this frame has it when it ends)
            pass

    gc.disable()
    try:
        run()
        assert [item() for item in items] == [None] * 3
    finally:
        gc.enable()


def test_an_error_comes_when_its_item_is_needed():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("of the corpus")

    ahead = ReadAhead(items(), 5)
    ahead.fill(lambda: False)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="of the corpus"):
            next(ahead)


def test_no_more_is_read_ahead_than_wanted():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    ahead = ReadAhead(items(), 4)
    ahead.fill(lambda: len(taken) == 2)
    assert taken == [0, 1]
    ahead.fill(lambda: False)
    assert taken == [0, 1, 2, 3]
    assert list(ahead) == list(range(10))


class Presence(Corpus):
    """A corpus on disk, with a one for each word."""

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        for document in super().__iter__():
            yield [(word, 1.0) for word, _ in document]


def test_a_corpus_on_disk_with_documents_of_its_own(tmp_path: Path):
    documents = [[(0, 5.0), (1, 2.0)], [(3, 7.0)]]
    Corpus.write(tmp_path / "stored", documents)
    stored, presence = Corpus(tmp_path / "stored"), Presence(tmp_path / "stored")
    for corpus, values in ((stored, [5, 2, 7]), (presence, [1, 1, 1])):
        (chunk,) = chunks(as_corpus(corpus), 10, 4, counts=True)
        assert chunk.data.tolist() == values
    assert refers_to(stored, counts=True) is not None
    assert refers_to(presence, counts=True) is None
    assert [*Corpus.write(tmp_path / "copy", presence)] == [*presence]


def test_a_vocabulary_is_the_largest_id_of_any_good_corpus():
    documents = [[(0, 1), (2, 1)], [], [(7, 0)]]
    arrays = [np.array(document, np.float32).reshape(-1, 2) for document in documents]
    for corpus in (documents, arrays, tuple(documents)):
        for chunksize in (1, 2, 100):
            id2word, num_terms = vocabulary(None, corpus, chunksize)
            assert (num_terms, id2word[7]) == (8, "7")
    assert vocabulary(None, [[], []])[1] == 0


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ((0, 1), r"document 1 is not a bag of words but \(0, 1\)"),
        (["a", "b"], "document 1 is not a bag of words but"),
        ("a text", "document 1 is not a bag of words but 'a text'"),
        ([(-1, 1)], "document 1: term id -1 is not a whole number from 0 on"),
        ([(float("nan"), 1)], "document 1: term id nan is not a whole number from 0 on"),
    ],
)
def test_a_search_for_the_vocabulary_names_a_wrong_document(document: object, message: str):
    with pytest.raises((TypeError, ValueError), match=f"^chunk 1: {message}"):
        vocabulary(None, [[(0, 1)], [(1, 1)], [(2, 1)], document], 2)


def test_a_malformed_matrix_is_no_corpus():
    matrix = scipy.sparse.csr_matrix(np.eye(4))
    matrix.indices[0] = 10**8
    with pytest.raises(ValueError, match=r"^the corpus: not a sound .*indices\[0\] is 100000000"):
        as_corpus(matrix)

"""A user's corpus, whatever its kind, as chunks."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

import scipy.sparse
from gensim import utils

from distcorpus.algorithms.chunk import Chunk, as_chunk

T = TypeVar("T")

EMPTY_CORPUS = "the corpus is empty: give at least one document"


def is_sparse(corpus: Any) -> bool:
    """Return whether a corpus is a scipy sparse matrix or array."""
    return bool(scipy.sparse.issparse(corpus))


def as_corpus(corpus: Any) -> Any:
    """Return a corpus as `chunks` and `length` take it.

    Parameters
    ----------
    corpus : iterable of documents, or scipy sparse matrix
        Documents are bags of words. A matrix, or an object with one as its ``sparse`` attribute (gensim's
        ``Sparse2Corpus``), is terms x documents.

    Raises
    ------
    TypeError
        If it is neither.
    """
    matrix = getattr(corpus, "sparse", corpus)
    if is_sparse(matrix):
        return matrix.tocsc()
    if isinstance(corpus, str | bytes) or not isinstance(corpus, Iterable):
        raise TypeError(
            f"corpus is a {type(corpus).__name__}: give an iterable of bags of words or a scipy "
            "sparse matrix (terms x documents)"
        )
    return corpus


def check_corpus(corpus: Any, num_terms: int) -> None:
    """Check what can be known of a corpus to train on before it is read.

    Raises
    ------
    ValueError
        If it is empty, or a matrix of more terms than the vocabulary has.
    """
    if length(corpus) == 0:
        raise ValueError(EMPTY_CORPUS)
    if is_sparse(corpus):
        _check_terms(corpus, num_terms)


def _check_terms(corpus: Any, num_terms: int) -> None:
    if corpus.shape[0] > num_terms:
        raise ValueError(
            f"the corpus has {corpus.shape[0]} terms, the vocabulary (id2word) {num_terms}: give the "
            "id2word that the corpus was made with, and a matrix of terms x documents"
        )


def length(corpus: Any) -> int | None:
    """Return the number of documents, or None where only reading the corpus can tell."""
    if is_sparse(corpus):
        return int(corpus.shape[1])
    try:
        return len(corpus)
    except Exception:  # whatever a user's own class raises
        return None


def is_rereadable(corpus: Any) -> bool:
    """Return whether a corpus can be read more than once."""
    return is_sparse(corpus) or iter(corpus) is not corpus


def chunks(corpus: Any, chunksize: int, num_terms: int, *, counts: bool) -> Iterator[Chunk]:
    """Read a corpus in chunks of `chunksize` documents.

    Raises
    ------
    ValueError, TypeError
        If a document is none, see `as_chunk`.
    """
    if is_sparse(corpus):
        _check_terms(corpus, num_terms)
        parts: Iterator[Any] = (corpus[:, n : n + chunksize] for n in range(0, corpus.shape[1], chunksize))
    else:
        documents = iter(corpus)
        parts = iter(lambda: list(islice(documents, chunksize)), [])
    for number, part in enumerate(parts):
        yield as_chunk(part, num_terms, counts=counts, what=f"chunk {number}")


def vocabulary(id2word: Any, corpus: Any) -> tuple[Any, int]:
    """Return the mapping of term ids to words and the size of the vocabulary, as gensim's models count it.

    Parameters
    ----------
    id2word : mapping, or None
        Without one the corpus is read for its largest term id.
    corpus : any corpus, or None

    Raises
    ------
    ValueError, TypeError
        If neither is given, or the corpus could be read only once, or `id2word` is no mapping.
    """
    if id2word is None:
        if corpus is None:
            raise ValueError(
                "at least one of corpus/id2word must be specified, to establish input space dimensionality"
            )
        if is_sparse(corpus):
            return utils.FakeDict(corpus.shape[0]), int(corpus.shape[0])
        if iter(corpus) is corpus:
            raise ValueError(
                "a generator can be read only once: give id2word with it, from which the vocabulary is taken"
            )
        id2word = utils.dict_from_corpus(corpus)
        return id2word, len(id2word)
    keys = getattr(id2word, "keys", None)
    if keys is None:
        raise TypeError(
            f"id2word is a {type(id2word).__name__}: give a gensim Dictionary or a dict of id to word"
        )
    largest = max(keys(), default=-1)
    if not isinstance(largest, numbers.Integral):
        raise TypeError(
            f"id2word has the key {largest!r}: give a dict of id to word, as Dictionary is, not of word to id"
        )
    return id2word, 1 + int(largest)


class ReadAhead(Generic[T]):
    """An iterator of which some items may be read before they are needed, in the same thread.

    Parameters
    ----------
    items : iterator
    limit : int
        The most that are read ahead.
    """

    def __init__(self, items: Iterator[T], limit: int) -> None:
        self._items = items
        self._limit = limit
        self._read: deque[T] = deque()
        self._error: Exception | None = None  # raised when its item is needed, and not before

    def fill(self, enough: Callable[[], bool]) -> None:
        """Read on, until `enough` says so; at most one item after that."""
        while self._error is None and len(self._read) < self._limit and not enough():
            try:
                self._read.append(next(self._items))
            except Exception as error:  # the end is a StopIteration
                self._error = error

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._read:
            return self._read.popleft()
        if self._error is not None:
            raise self._error
        return next(self._items)

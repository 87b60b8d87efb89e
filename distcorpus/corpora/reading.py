"""A user's corpus, whatever its kind, as chunks."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import scipy.sparse
from gensim import utils

from distcorpus._machine import free_memory
from distcorpus.algorithms.chunk import (
    LARGEST_WEIGHT,
    MAX_COUNT,
    MAX_TERMS,
    Chunk,
    Divisible,
    as_chunk,
    largest_id,
)
from distcorpus.algorithms.inherited import is_inherited
from distcorpus.algorithms.sparse import matrix_of, sound
from distcorpus.corpora.textfiles import text_file

T = TypeVar("T")

HOW_TO_NUMBER = (
    "number the words from 0 without gaps, as gensim.corpora.Dictionary does, or hash them to a smaller "
    "range (HashDictionary(id_range=...))"
)

#: Values whose sums may not be held any more, in steps of `lda.LDA_GRID`.
LARGEST_COUNT = MAX_COUNT
#: The largest value of a document where the result is float32.
LARGEST_SINGLE = 1e18

#: Words of a document that is read without making a chunk of a corpus of it.
SMALL = 8
#: The methods that decide what the documents of a corpus on disk are.
_SEQUENCE = "__iter__", "__getitem__", "__len__"

_NUMBERS = int, float, np.float64, np.float32
_POSITIONS = np.arange(SMALL, dtype=np.int32)


class EmptyCorpusError(ValueError):
    """There was nothing to train on."""

    def __init__(self) -> None:
        super().__init__("the corpus is empty: give at least one document")


class StoredCorpus(Protocol):
    """A corpus on disk, which gives its documents as chunks."""

    num_terms: int

    def __len__(self) -> int: ...

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return some documents, their values as they are."""

    def are_sound(self, counts: bool, largest: float) -> bool:
        """Return whether it is known that `as_chunk`, with these options, would leave chunks as they are."""


class PlacedCorpus(Protocol):
    """A corpus whose documents are on a cluster, and are read there."""

    num_terms: int | None  # the size of its vocabulary, where it is known

    def __len__(self) -> int: ...

    def placed_chunks(
        self, chunksize: int, num_terms: int, limits: Mapping[str, int], options: Mapping[str, Any]
    ) -> Iterator[Divisible]:
        """Cut the documents into chunks, and these into blocks; `options` are `as_chunk`'s."""


def is_placed(corpus: Any) -> bool:
    """Return whether the documents of a corpus are on a cluster."""
    return hasattr(type(corpus), "placed_chunks")  # a Dask `Delayed` has attributes of every name


def is_stored(corpus: Any) -> bool:
    """Return whether a corpus is on disk, and gives its documents as chunks: a subclass with another
    ``__iter__`` has other documents.
    """
    kind = type(corpus)
    return hasattr(kind, "are_sound") and is_inherited(kind, _SEQUENCE, ("distcorpus", "gensim"))


def is_sparse(corpus: Any) -> bool:
    """Return whether a corpus is a scipy sparse matrix or array."""
    return bool(scipy.sparse.issparse(corpus))


def _shape_of(matrix: Any) -> tuple[int, int]:
    """Return the terms and documents of a sparse matrix."""
    if matrix.ndim != 2:
        raise ValueError(
            f"the corpus is a sparse array of shape {matrix.shape}: give one of terms x documents (of one "
            "document, of shape (terms, 1))"
        )
    terms, documents = matrix.shape
    return int(terms), int(documents)


def as_corpus(corpus: Any) -> Any:
    """Return a corpus as `chunks` and `length` take it.

    Parameters
    ----------
    corpus : iterable of documents, or scipy sparse matrix
        Documents are bags of words. A matrix, which may be that of gensim's ``Sparse2Corpus``, is terms x
        documents.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is a malformed matrix.
    """
    if is_placed(corpus) or is_stored(corpus):
        return corpus
    matrix = matrix_of(corpus)
    if matrix is not None:
        _shape_of(matrix)
        return sound(matrix, "the corpus").tocsc()
    if isinstance(corpus, str | bytes) or not isinstance(corpus, Iterable):
        raise TypeError(
            f"corpus is a {type(corpus).__name__}: give an iterable of bags of words or a scipy "
            "sparse matrix (terms x documents)"
        )
    return corpus


def check_corpus(corpus: Any, num_terms: int) -> None:
    """Check what can be known of a corpus before it is read.

    Raises
    ------
    ValueError
        If it is a matrix of more terms than the vocabulary has, or seems to be one of documents x terms.
    """
    if is_placed(corpus) or is_stored(corpus):
        if (corpus.num_terms or 0) > num_terms:
            array = ", and an array of documents x terms" if is_placed(corpus) else ""
            raise ValueError(
                f"the corpus has {corpus.num_terms} terms, the vocabulary (id2word) {num_terms}: give the "
                f"id2word that the corpus was made with{array}"
            )
        return
    if is_sparse(corpus):
        check_shape(*_shape_of(corpus), num_terms)


def check_shape(terms: int, documents: int, num_terms: int, kind: str = "a matrix") -> None:
    """Check the shape of a corpus that is a matrix, terms x documents, or a `kind` of documents x terms.

    Raises
    ------
    ValueError
        If it has more terms than the vocabulary has, or seems to be the other way round.
    """
    wanted, given, side = "terms x documents", "documents x terms", "rows"
    shape, transposed = f"{terms} x {documents}", "matrix.T"
    if kind != "a matrix":
        wanted, given, side = given, wanted, "columns"
        shape, transposed = f"{documents} x {terms}", "array.T"
    if terms != num_terms and documents == num_terms:
        raise ValueError(
            f"the corpus is {kind} of {shape}, and the vocabulary (id2word) has {num_terms} terms: it "
            f"seems to be {given}; give {transposed}, {wanted} (or, if that is what it is, all {num_terms} "
            f"{side})"
        )
    if terms > num_terms:
        raise ValueError(
            f"the corpus has {terms} terms, the vocabulary (id2word) {num_terms}: give the "
            f"id2word that the corpus was made with, and {kind} of {wanted}"
        )


def length(corpus: Any) -> int | None:
    """Return the number of documents, or None where only reading the corpus can tell."""
    if is_sparse(corpus):
        return _shape_of(corpus)[1]
    if (file := text_file(corpus)) is not None:
        return file.length()
    try:
        return len(corpus)
    except Exception:  # whatever a user's own class raises
        return None


def is_rereadable(corpus: Any) -> bool:
    """Return whether a corpus can be read more than once. `iter` is not called, which may begin a reading."""
    return is_sparse(corpus) or hasattr(corpus, "__len__") or not hasattr(corpus, "__next__")


def divisible(
    corpus: Any, chunksize: int, num_terms: int, *, counts: bool, limits: Mapping[str, int]
) -> Iterator[Divisible]:
    """Read a corpus in chunks of `chunksize` documents, to be cut into blocks of these `limits`, here or
    where it is (see `chunks`).
    """
    if not is_placed(corpus):
        return chunks(corpus, chunksize, num_terms, counts=counts)
    check_corpus(corpus, num_terms)
    return corpus.placed_chunks(chunksize, num_terms, limits, _options(counts))


def _options(counts: bool) -> dict[str, Any]:
    return {"counts": counts, "largest": LARGEST_COUNT if counts else LARGEST_WEIGHT}


def chunks(corpus: Any, chunksize: int, num_terms: int, *, counts: bool) -> Iterator[Chunk]:
    """Read a corpus that is here in chunks of `chunksize` documents.

    Raises
    ------
    ValueError, TypeError
        If a document is none, see `as_chunk`.
    """
    if is_stored(corpus):
        yield from _stored(corpus, chunksize, num_terms, _options(counts))
        return
    check_corpus(corpus, num_terms)
    for number, part in enumerate(_parts(corpus, chunksize)):
        yield as_chunk(part, num_terms, what=f"chunk {number}", **_options(counts))


def _parts(corpus: Any, chunksize: int) -> Iterator[Any]:
    """Yield the documents of a corpus that is here and is not stored, so many at once, as `as_chunk` takes
    them.
    """
    if is_sparse(corpus):
        return (corpus[:, n : n + chunksize] for n in range(0, corpus.shape[1], chunksize))
    if (file := text_file(corpus)) is not None:
        return file.chunks(chunksize)
    # `islice` calls `iter` each time, at which a corpus may begin anew, but not a generator.
    documents = (document for document in corpus)
    return iter(lambda: list(islice(documents, chunksize)), [])


def _stored(corpus: StoredCorpus, chunksize: int, num_terms: int, options: dict[str, Any]) -> Iterator[Chunk]:
    check_corpus(corpus, num_terms)
    sound = corpus.are_sound(**options)
    for number, start in enumerate(range(0, len(corpus), chunksize)):
        chunk = corpus.chunk(start, start + chunksize)
        if sound:
            yield replace(chunk, num_terms=num_terms)
        else:
            yield as_chunk(chunk, num_terms, what=f"chunk {number}", **options)


def vocabulary(id2word: Any, corpus: Any, chunksize: int = 2000) -> tuple[Any, int]:
    """Return the mapping of term ids to words and the size of the vocabulary, as gensim's models count it.

    Parameters
    ----------
    id2word : mapping, or None
        Without one that of a corpus on disk; any other is read for its largest term id.
    corpus : any corpus, or None
    chunksize : int
        Documents that are read at once, where the corpus is read.

    Raises
    ------
    ValueError, TypeError
        If neither is given, or the corpus could be read only once, or `id2word` is no mapping; if a document
        of a corpus that is read is none.
    """
    if id2word is None and is_stored(corpus):
        words = corpus.id2word
        return (utils.FakeDict(corpus.num_terms) if words is None else words), corpus.num_terms
    if id2word is None:
        if corpus is None:
            raise ValueError(
                "at least one of corpus/id2word must be specified, to establish input space dimensionality"
            )
        if is_sparse(corpus):
            terms, _ = _shape_of(corpus)
            return utils.FakeDict(terms), terms
        if is_placed(corpus):
            if corpus.num_terms is None:
                raise ValueError(
                    "documents on a Dask cluster are not read for their largest term id: give id2word with "
                    "them, from which the vocabulary is taken"
                )
            return utils.FakeDict(corpus.num_terms), _checked_size(corpus.num_terms)
        if not is_rereadable(corpus):
            raise ValueError(
                "a generator can be read only once: give id2word with it, from which the vocabulary is taken"
            )
        numbered = enumerate(_parts(corpus, chunksize))
        largest = max((largest_id(part, f"chunk {number}") for number, part in numbered), default=-1)
        return utils.FakeDict(1 + largest), _checked_size(1 + largest)
    keys = getattr(id2word, "keys", None)
    if keys is None:
        raise TypeError(
            f"id2word is a {type(id2word).__name__}: give a gensim Dictionary or a dict of id to word"
        )
    try:
        largest = max(keys(), default=-1)
    except TypeError as error:
        raise TypeError(f"id2word has keys of several kinds ({error}): give a dict of id to word") from error
    if not isinstance(largest, numbers.Integral):
        raise TypeError(
            f"id2word has the key {largest!r}: give a dict of id to word, as Dictionary is, not of word to id"
        )
    return id2word, _checked_size(1 + int(largest))


def word_of(id2word: Any, word: int) -> Any:
    """Return a word to show, or its id where the vocabulary has a gap."""
    try:
        return id2word[word]
    except KeyError:
        return word


def _checked_size(num_terms: int) -> int:
    if num_terms > MAX_TERMS:
        raise ValueError(f"term ids up to {num_terms - 1}: {HOW_TO_NUMBER}")
    return num_terms


def check_memory(num_terms: int, num_topics: int, itemsize: int) -> None:
    """Refuse topics that this machine cannot hold, before memory is taken.

    Raises
    ------
    ValueError
        If two tables of them are more than the memory that is free.
    """
    needed, free = 2 * num_terms * num_topics * itemsize, free_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{num_topics} topics (num_topics) of {num_terms} terms need {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free. The largest term id, {num_terms - 1}, makes the vocabulary: "
            f"{HOW_TO_NUMBER}"
        )


def small_document(
    document: Any, num_terms: int, *, counts: bool = True, most: int = SMALL
) -> tuple[np.ndarray, Chunk] | None:
    """Return what `compact` does of up to `most` pairs, ascending and with counts, or weights; None for any
    other document.

    To read it as a chunk takes longer than to infer its topics.
    """
    least, largest = (0.0, LARGEST_COUNT) if counts else (-LARGEST_WEIGHT, LARGEST_WEIGHT)
    if type(document) is not list or len(document) > most:
        return None
    words, values, last = [], [], -1
    for pair in document:
        if type(pair) is not tuple or len(pair) != 2:
            return None
        word, count = pair
        if type(word) is not int or type(count) not in _NUMBERS:
            return None
        if not (last < word < num_terms and least < count < largest and count):
            return None
        words.append(word)
        values.append(count)
        last = word
    size = len(words)
    positions = _POSITIONS[:size] if size <= SMALL else np.arange(size, dtype=np.int32)
    chunk = Chunk(np.array([0, size]), positions, np.array(values, np.float64), size)
    return np.array(words, np.int32), chunk


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
        self._ended = False  # no StopIteration is kept: its traceback would keep all that was read

    def fill(self, enough: Callable[[], bool]) -> None:
        """Read on, until `enough` says so; at most one item after that."""
        while not self._ended and self._error is None and len(self._read) < self._limit and not enough():
            try:
                self._read.append(next(self._items))
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._error = error

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._read:
            return self._read.popleft()
        if self._error is not None:
            raise self._error
        if self._ended:
            raise StopIteration
        return next(self._items)

"""What ``model[corpus]`` returns, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

import numpy as np
from gensim.interfaces import TransformedCorpus
from gensim.matutils import Dense2Corpus, Sparse2Corpus

from distcorpus.algorithms.sparse import matrix_of
from distcorpus.corpora.reading import as_corpus, check_corpus, chunks, is_sparse

T = TypeVar("T")


def quietly(items: Iterable[T]) -> Iterator[T]:
    """Yield items, each of which is made while nothing is said of floating-point errors; what takes them has
    its own settings.
    """
    made = iter(items)
    while True:
        with np.errstate(all="ignore"):
            try:
                item = next(made)
            except StopIteration:
                return
        yield item


def begun(given: Any) -> Any:
    """Return a document or corpus as gensim's ``is_corpus`` takes it.

    That takes the first document of an iterator before it is iterated over. A corpus that is its own iterator
    would begin anew then, and give that document twice.
    """
    if hasattr(given, "__next__") and "Corpus" not in type(given).__name__:
        return (document for document in given)
    return given


def as_gensims(corpus: Any, num_terms: int) -> Any:
    """Return a matrix, once it is checked, as the corpus that gensim's methods take; anything else as it is.

    Raises
    ------
    ValueError
        If the matrix is malformed, or does not fit the vocabulary (see `check_corpus`).
    """
    if matrix_of(corpus) is None:
        return corpus
    if is_sparse(corpus):  # gensim's corpus says which way round it is
        check_corpus(corpus, num_terms)
    return Sparse2Corpus(as_corpus(corpus))


def one_document(document: Any) -> Any:
    """Return a document, as a list where it can be read only once."""
    if type(document) is list or not isinstance(document, Iterable) or isinstance(document, Sized):
        return document
    return list(document)


def pairs_of(document: Any, num_terms: int) -> list[tuple[int, Any]]:
    """Return a document of counts as pairs, in its order.

    Raises
    ------
    TypeError, ValueError
        If it is no document, see `algorithms.chunk.as_chunk`.
    """
    for _ in chunks([document], 1, num_terms, counts=True):  # which checks it
        pass
    rows = np.asarray(document) if isinstance(document, np.ndarray) else document
    return [(int(word), count) for word, count in rows]


class Projections(TransformedCorpus):
    """A corpus' documents in the space of an LSI model's topics, projected each time that it is read.

    Parameters
    ----------
    model : LsiModel
    corpus : iterable of documents
    chunksize : int
        Documents that are projected at once.
    """

    def __init__(self, model: Any, corpus: Any, chunksize: int) -> None:
        super().__init__(model, corpus, chunksize)

    def __iter__(self) -> Iterator[Any]:
        corpus, model = as_corpus(self.corpus), self.obj
        read = chunks(corpus, self.chunksize, model.num_terms, counts=False)
        for projected in quietly(map(model._projected, read)):
            yield from Dense2Corpus(projected.T)


class DocumentTopics(TransformedCorpus):
    """The topics of a corpus' documents, inferred chunk by chunk, and each time that it is read.

    Parameters
    ----------
    model : LdaModel
    corpus : iterable of documents
    gammas : callable
        Returns the documents' Dirichlet parameters, chunk by chunk.
    **options
        Of `get_document_topics`. gensim keeps them as attributes of the model, where they outlast this.
    """

    def __init__(
        self, model: Any, corpus: Any, gammas: Callable[[], Iterator[np.ndarray]], **options: Any
    ) -> None:
        super().__init__(model, corpus)
        self._gammas = gammas
        self._options = options

    def __iter__(self) -> Iterator[Any]:
        if self._options["per_word_topics"]:
            for document in self.corpus:
                yield self.obj.get_document_topics(document, **self._options)
            return
        for gamma in quietly(self._gammas()):
            for probabilities in _shares(gamma):
                (topics,) = np.nonzero(probabilities >= self._options["minimum_probability"])
                yield list(zip(topics.tolist(), probabilities[topics], strict=True))

    def __getitem__(self, docno: Any) -> Any:
        return self.obj.get_document_topics(self.corpus[docno], **self._options)


@np.errstate(all="ignore")
def _shares(gamma: np.ndarray) -> np.ndarray:
    shares: np.ndarray = gamma / gamma.sum(axis=1, keepdims=True)
    return shares

"""A user's corpus, whatever its kind, as chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import scipy.sparse

from distcorpus.algorithms.chunk import Chunk, as_chunk


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
    if scipy.sparse.issparse(matrix):
        return matrix.tocsc()
    if isinstance(corpus, str | bytes) or not isinstance(corpus, Iterable):
        raise TypeError(
            f"corpus is a {type(corpus).__name__}: give an iterable of bags of words or a scipy sparse matrix (terms x "
            "documents)"
        )
    return corpus


def length(corpus: Any) -> int | None:
    """Return the number of documents, or None where only reading the corpus can tell."""
    if scipy.sparse.issparse(corpus):
        return int(corpus.shape[1])
    try:
        return len(corpus)
    except Exception:  # whatever a user's own class raises
        return None


def chunks(corpus: Any, chunksize: int, num_terms: int, *, counts: bool) -> Iterator[Chunk]:
    """Read a corpus in chunks of `chunksize` documents.

    Raises
    ------
    ValueError, TypeError
        If a document is none, see `as_chunk`.
    """
    if scipy.sparse.issparse(corpus):
        if corpus.shape[0] > num_terms:
            raise ValueError(
                f"the corpus has {corpus.shape[0]} terms, the vocabulary (id2word) {num_terms}: give the id2word that "
                "the corpus was made with, and a matrix of terms x documents"
            )
        parts: Iterator[Any] = (corpus[:, n : n + chunksize] for n in range(0, corpus.shape[1], chunksize))
    else:
        documents = iter(corpus)
        parts = iter(lambda: list(islice(documents, chunksize)), [])
    for number, part in enumerate(parts):
        yield as_chunk(part, num_terms, counts=counts, what=f"chunk {number}")

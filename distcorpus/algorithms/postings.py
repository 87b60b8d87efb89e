"""A block of documents by terms: for each term the list of the documents that have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from .chunk import Chunk


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """A term-document matrix in CSR form, of the terms that occur and the documents that are not empty.

    Attributes
    ----------
    words : ndarray of int32, shape (n_words,)
        The term ids, ascending and distinct.
    indptr : ndarray of int32, shape (n_words + 1,)
        The term ``words[i]`` owns the entries ``indptr[i]`` to ``indptr[i + 1]``; starts at 0.
    documents : ndarray of int32, shape (nnz,)
        Numbers of documents, in ``[0, n_docs)``, ascending for each term.
    data : ndarray of float32 or float64, shape (nnz,)
        The values.
    n_docs : int
        The number of documents that are not empty.
    squared_norm : float
        About the sum of the squared values.
    """

    words: np.ndarray
    indptr: np.ndarray
    documents: np.ndarray
    data: np.ndarray
    n_docs: int
    squared_norm: float

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return len(self.documents)

    @property
    def nbytes(self) -> int:
        """The bytes of the four arrays."""
        return self.words.nbytes + self.indptr.nbytes + self.documents.nbytes + self.data.nbytes


def postings(block: Chunk) -> Postings:
    """Return a block by terms, in memory of its own."""
    bounds = np.unique(block.indptr).astype(np.int32)  # an empty document's bounds are equal
    n_docs = len(bounds) - 1
    by_document = scipy.sparse.csr_array((block.data, block.indices, bounds), (n_docs, block.num_terms))
    by_term = by_document.tocsc()
    words = np.flatnonzero(np.diff(by_term.indptr)).astype(np.int32)
    bounds = np.append(by_term.indptr[words], np.int32(block.nnz))
    squared_norm = float(np.square(by_term.data, dtype=np.float64).sum())
    return Postings(words, bounds, by_term.indices, by_term.data, n_docs, squared_norm)

"""TF-IDF of the documents of a store, computed as they are read: what gensim's `TfidfModel` computes."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.received import check_kinds
from distcorpus.corpora.store import Store

#: Terms whose global weight is not above are left out, as gensim does.
EPS = 1e-12

LOCAL, GLOBAL, NORMS = "bnaldL", "nftp", "ncub"
_ALIASES = ({"t": "n"}, {"x": "n"}, {"x": "n"})


@dataclass(frozen=True, slots=True)
class Weighting:
    """A weighting that has a name, by which a worker knows it too.

    Attributes
    ----------
    smartirs : str
        In SMART notation: the weight of a term in a document (one of `LOCAL`), its weight in the corpus (of
        `GLOBAL`) and the normalisation (of `NORMS`).
    pivot : float or None
        Of pivoted normalisation; with "u" and "b" that of the corpus, unless it is given.
    slope : float

    Raises
    ------
    TypeError, ValueError
        If that is none.

    References
    ----------
    Singhal, Buckley & Mitra, Pivoted document length normalization, SIGIR 1996.
    """

    smartirs: str = "nfc"
    pivot: float | None = None
    slope: float = 0.25

    def __post_init__(self) -> None:
        check_kinds(str, smartirs=self.smartirs)
        if len(self.smartirs) != 3:
            raise ValueError(f"smartirs={self.smartirs!r}: give three letters, such as 'nfc'")
        letters = [aliases.get(c, c) for aliases, c in zip(_ALIASES, self.smartirs, strict=True)]
        for letter, known in zip(letters, (LOCAL, GLOBAL, NORMS), strict=True):
            if letter not in known:
                raise ValueError(f"smartirs={self.smartirs!r}: {letter!r} is not one of {known!r}")
        object.__setattr__(self, "smartirs", "".join(letters))
        for name in ("pivot", "slope"):
            value = getattr(self, name)
            if value is None and name == "pivot":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                shown = value if isinstance(value, int | float) else f"a {type(value).__name__}"
                raise TypeError(f"{name}={shown}: give a finite number")
            object.__setattr__(self, name, float(value))

    def to_message(self) -> tuple[Any, ...]:
        """Return it as it travels."""
        return astuple(self)


class TermWeights:
    """A weighting with what it has to know of a corpus.

    Parameters
    ----------
    weighting : Weighting
    store : Store

    Attributes
    ----------
    of_terms : ndarray of float64, shape (num_terms,)
        The terms' weights in the corpus; 0 for those that are left out.

    Raises
    ------
    ValueError
        If normalising by the length of words is asked for and the corpus has no words.
    """

    def __init__(self, weighting: Weighting, store: Store) -> None:
        self.local, of_terms, self.norm = tuple(weighting.smartirs)
        self.slope = weighting.slope
        # Workers read these by themselves, and rely on the entries that there are.
        self._of_counts = store.manifest.weighting == "counts"
        self.pivot = weighting.pivot
        documents = store.manifest.documents
        self.of_terms = global_weights(of_terms, store.document_frequencies(), documents)
        self._lengths: NDArray[np.float64] | None = None
        if self.norm == "b" and (self.pivot is None or weighting.smartirs[2] == "b"):
            texts = store.words()
            if texts is None:
                raise ValueError("smartirs ends with 'b', the length of words, and the corpus has no words")
            self._lengths = np.array([0.0 if text is None else len(text) + 1.0 for text in texts])
        if self.pivot is None and self.norm == "u":
            self.pivot = store.manifest.entries / max(documents, 1)
        elif self.pivot is None and self._lengths is not None:
            self.pivot = float(store.collection_frequencies() @ self._lengths) / max(documents, 1)

    def weigh(self, chunk: Chunk) -> Chunk:
        """Return documents with their weights in the place of counts, float32 and in new arrays."""
        chunk_counts, counts = chunk, chunk.data.astype(np.float64)
        values = local_weights(self.local, counts, chunk.indptr) * self.of_terms[chunk.indices]
        chunk = Chunk(chunk.indptr, chunk.indices, values, chunk.num_terms)
        left_out = self.of_terms[chunk.indices] == 0
        if left_out.any():
            chunk = without(chunk, left_out)
        lengths = self._norms(chunk, chunk_counts)
        if lengths is None:
            weights = chunk.data
        else:
            with np.errstate(divide="ignore"):
                factors = np.where(lengths == 0, 1.0, 1.0 / lengths)
            weights = chunk.data * np.repeat(factors, np.diff(chunk.indptr))
        if not self._of_counts:
            # Weights that are no numbers are left out as well, but where a whole document's are none: gensim
            # fails there, and so does whoever reads them.
            dropped = ~(np.abs(weights) > EPS)
            if lengths is not None:
                dropped &= ~np.repeat(np.isnan(lengths), np.diff(chunk.indptr))
            chunk, weights = without(chunk, dropped), weights[~dropped]
        return Chunk(chunk.indptr, chunk.indices, weights.astype(np.float32), chunk.num_terms)

    def _norms(self, chunk: Chunk, counts: Chunk) -> NDArray[np.float64] | None:
        """Return what the weights of each document are divided by, if by anything."""
        if self.pivot is None and self.norm == "n":
            return None
        if self.norm == "b":
            assert self._lengths is not None
            norms = sums(counts.data * self._lengths[counts.indices], counts.indptr)
        elif self.norm == "u":
            norms = np.diff(chunk.indptr).astype(np.float64)
        else:
            norms = np.sqrt(sums(np.square(chunk.data), chunk.indptr))
        return norms if self.pivot is None else (1 - self.slope) * self.pivot + self.slope * norms


def global_weights(scheme: str, frequencies: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
    """Return the terms' weights in a corpus; 0 for those that are left out, which no document has or all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        of = frequencies.astype(np.float64)
        if scheme == "n":
            weights = np.ones(len(of))
        elif scheme == "f":
            weights = np.log2(documents / of)
        elif scheme == "t":
            weights = np.log2((documents + 1.0) / of)
        else:
            weights = np.maximum(np.log2((documents - of) / of), 0.0)
    return shown(weights, frequencies)


def shown(weights: NDArray[np.float64], frequencies: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights with 0 for the terms that are left out."""
    return np.where((frequencies > 0) & (np.abs(weights) > EPS), weights, 0.0)


def local_weights(scheme: str, counts: NDArray[np.float64], indptr: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the terms' weights in their documents."""
    if scheme == "n":
        return counts
    if scheme == "b":
        return (counts != 0).astype(np.float64)
    if scheme == "a":
        largest = _by_document(np.maximum, counts, indptr)
        return 0.5 + 0.5 * counts / np.repeat(largest, np.diff(indptr))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = 1 + np.log2(counts)
        if scheme == "d":
            logs = 1 + np.log2(logs)
        elif scheme == "L":
            lengths = np.diff(indptr)
            means = sums(counts, indptr) / np.maximum(lengths, 1)
            logs /= np.repeat(1 + np.log2(means), lengths)
    return logs


def sums(values: NDArray[np.float64], indptr: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of the values of each document."""
    return _by_document(np.add, values, indptr)


def _by_document(
    function: np.ufunc, values: NDArray[np.float64], indptr: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Reduce the values of each document; 0 for one without any."""
    result = np.zeros(len(indptr) - 1)
    filled = indptr[1:] > indptr[:-1]
    if filled.any():
        result[filled] = function.reduceat(values, indptr[:-1][filled])
    return result


def without(chunk: Chunk, dropped: NDArray[np.bool_]) -> Chunk:
    """Return documents without some of their entries."""
    indptr = np.concatenate(([0], np.cumsum(~dropped, dtype=np.int64)))[chunk.indptr]
    return Chunk(indptr, chunk.indices[~dropped], chunk.data[~dropped], chunk.num_terms)

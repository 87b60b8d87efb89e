"""The documents of an LSI model, kept so that others can be added as if all had come at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import Chunk, Divisible
from distcorpus.algorithms.lsi import Factors, chunk_weights
from distcorpus.corpora.reference import StoredChunk, documents_here
from distcorpus.training.lsi import LsiTask


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What the factors of a model were made of.

    Attributes
    ----------
    base : (ndarray, ndarray), optional
        U and s of documents that came before all chunks.
    chunks : tuple of Chunk or StoredChunk
        In memory of their own, or references to documents on this machine's disk.
    squared_weights : tuple of float
        Of each chunk, as it counts in the factors.
    content : bytes
        What `checksum` says of U and s that were made of all this.
    """

    base: Factors | None = None
    chunks: tuple[Chunk | StoredChunk, ...] = ()
    squared_weights: tuple[float, ...] = ()
    content: bytes = b""

    def most_topics(self) -> int:
        """Return how many topics these documents can have, by their number and that of their terms."""
        documents = 0 if self.base is None else len(self.base[1])
        terms = None if self.base is None else np.any(self.base[0], axis=1)
        for chunk in self.chunks:
            if isinstance(chunk, StoredChunk):
                chunk = documents_here(chunk)
            terms = np.zeros(chunk.num_terms, bool) if terms is None else terms
            terms[chunk.indices] = True
            documents += int(np.count_nonzero(np.diff(chunk.indptr)))
        return min(documents, 0 if terms is None else int(np.count_nonzero(terms)))

    def weighed(self, weight: float) -> Kept:
        """Return the same documents, each counting `weight` times as much."""
        return replace(
            self,
            base=None if self.base is None else (self.base[0], self.base[1] * weight),
            squared_weights=tuple(squared * weight * weight for squared in self.squared_weights),
        )


def _nbytes(chunk: Any) -> int:
    """Return the bytes that a chunk has here, or would have."""
    if isinstance(chunk, StoredChunk):
        return 8 * (chunk.n_docs + 1 + chunk.nnz)
    return int(chunk.nbytes)


class Addition:
    """The chunks of a model with those that are added: may be read more than once, if the added ones can.

    Parameters
    ----------
    before : Kept
    added : iterable of Chunk, or of what is on a cluster and stays there
    limit : int
        Bytes of chunks to keep; if there are more, or some are not here, none of them is.
    refers : bool
        Whether what is added are references, which chunks may come before and not after.
    """

    def __init__(self, before: Kept, added: Iterable[Divisible], limit: int, *, refers: bool = False) -> None:
        self._refers = refers
        self._before = before
        self._added = added
        self._limit = limit
        self._kept: list[Chunk | StoredChunk] | None = None

    def __iter__(self) -> Iterator[Divisible]:
        base = self._before.base
        kept = list(self._before.chunks)
        left = self._limit - sum(map(_nbytes, kept)) - (0 if base is None else base[0].nbytes)
        self._kept = None
        for earlier in self._before.chunks:
            yield earlier if self._refers else documents_here(earlier)
        for chunk in self._added:
            stays = isinstance(chunk, Chunk | StoredChunk)
            left = left - _nbytes(chunk) if stays else -1
            if isinstance(chunk, Chunk) and left >= 0:
                kept.append(chunk.copy())  # the program may change what the chunk shares with its corpus
            elif isinstance(chunk, StoredChunk) and left >= 0:
                kept.append(chunk)
            else:
                kept.clear()
            yield chunk
            del chunk  # whoever has taken it need not keep it
        self._kept = kept if left >= 0 else None

    def kept(self, task: LsiTask, content: bytes) -> Kept | None:
        """Return what was read, and counts as `task` says, or None where it is too much to keep."""
        if self._kept is None:
            return None
        number = len(self._kept)
        weights = chunk_weights(range(number), number - 1, task.decay, task.squared_weights)
        base = self._before.base
        if base is not None:
            base = base[0], base[1] * task.decay ** (number - len(task.squared_weights))
        return Kept(base, tuple(self._kept), tuple(weights[n] for n in range(number)), content)

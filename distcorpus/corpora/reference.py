"""Documents of a corpus on disk that are named and not sent: who has the corpus reads them.

A reference says which documents of which corpus, known by its manifest's checksum, and facts of them that
follow from the manifest. Whoever reads the documents holds them against the facts.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import (
    DENSE_TERMS,
    LARGEST_WEIGHT,
    MAX_COUNT,
    Chunk,
    as_chunk,
    block_bounds,
    packed_words,
    positions_of,
    unpacked_words,
    words_in,
)
from distcorpus.corpora.reading import is_stored
from distcorpus.corpora.store import Store
from distcorpus.corpora.weighting import TermWeights, Weighting

R = TypeVar("R")

#: How far sums may exceed their bounds by rounding.
ROUNDING = 1e-6

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """Which documents these are, and facts that they are held against.

    Attributes
    ----------
    corpus : str
        The checksum of its manifest.
    weighting : Weighting or None
        What their counts are replaced by.
    start, stop : int
        Their numbers in the corpus.
    entries : int
    most, squares : float
        Bounds on the sum of the values and of their squares.
    words : int
        CRC-32 of the term ids that are said to be all that occur.

    Raises
    ------
    TypeError, ValueError
        If it is none.
    """

    corpus: str
    weighting: Weighting | None
    start: int
    stop: int
    entries: int
    most: float
    squares: float
    words: int

    def __post_init__(self) -> None:
        if type(self.corpus) is not str or not _CHECKSUM.fullmatch(self.corpus):
            raise ValueError("a reference names no corpus by its checksum")
        if not (self.weighting is None or isinstance(self.weighting, Weighting)):
            raise TypeError("a reference has an unknown weighting")
        whole = (self.start, self.stop, self.entries, self.words)
        if not all(type(n) is int and 0 <= n < 2**62 for n in whole) or self.start > self.stop:
            raise ValueError("a reference has documents that cannot be")
        if not all(type(n) is float and n >= 0 for n in (self.most, self.squares)):
            raise ValueError("a reference has bounds that are none")

    def to_message(self) -> tuple[Any, ...]:
        """Return it as it travels: in plain values."""
        weighting = None if self.weighting is None else self.weighting.to_message()
        facts = (self.entries, self.most, self.squares, self.words)
        return (self.corpus, weighting, self.start, self.stop, *facts)

    @classmethod
    def from_message(cls, message: Any) -> Reference:
        """Take what has travelled.

        Raises
        ------
        TypeError, ValueError
            If it is no reference.
        """
        if type(message) is not tuple or len(message) != 8:
            raise TypeError("a reference has eight parts")
        corpus, weighting, *rest = message
        if weighting is not None:
            if type(weighting) is not tuple or len(weighting) != 3:
                raise TypeError("a reference has an unknown weighting")
            weighting = Weighting(*weighting)
        return cls(corpus, weighting, *rest)

    def __str__(self) -> str:
        return f"documents {self.start}-{self.stop - 1} of the corpus {self.corpus[:12]}"


def checksum_of_words(words: NDArray[np.int32]) -> int:
    """Return the checksum of term ids."""
    return zlib.crc32(np.ascontiguousarray(words, "<i4").tobytes())


class Read:
    """Reads the documents of references, of the stores that it is given.

    It keeps what weightings have to know of their corpora.
    """

    MOST_KEPT = 8

    def __init__(self) -> None:
        self._weights: dict[tuple[str, Weighting], TermWeights] = {}

    def documents(self, store: Store, reference: Reference, num_terms: int, counts: bool) -> Chunk:
        """Return documents, as those of a list would be read.

        Raises
        ------
        ValueError
            If there are none of these numbers, or they are not as a model wants them; if a file is damaged.
        """
        manifest = store.manifest
        if reference.stop > manifest.documents or manifest.terms > num_terms:
            raise ValueError(
                f"{reference}: it has {manifest.documents} documents and {manifest.terms} terms, and the "
                f"vocabulary {num_terms}"
            )
        chunk = replace(store.chunk(reference.start, reference.stop), num_terms=num_terms)
        if reference.weighting is not None:
            chunk = self._of(store, reference.weighting).weigh(chunk)
        largest = MAX_COUNT if counts else LARGEST_WEIGHT
        return as_chunk(chunk, num_terms, counts=counts, largest=largest, what=str(reference))

    def _of(self, store: Store, weighting: Weighting) -> TermWeights:
        key = store.checksum, weighting
        found = self._weights.get(key)
        if found is None:
            found = TermWeights(weighting, store)
            if len(self._weights) >= self.MOST_KEPT:
                self._weights.pop(next(iter(self._weights)), None)
            self._weights[key] = found
        return found


def held_against(reference: Reference, chunk: Chunk, words: NDArray[np.int32]) -> Chunk:
    """Return documents with positions among `words` for term ids, where they are what a reference says.

    Raises
    ------
    ValueError
        They are not: the facts that travelled are not of this corpus.
    """
    if chunk.n_docs != reference.stop - reference.start or chunk.nnz != reference.entries:
        raise _not_of_it(reference, "number of documents and entries")
    if checksum_of_words(words) != reference.words:
        raise _not_of_it(reference, "words")
    if chunk.nnz:
        if not len(words):
            raise _not_of_it(reference, "words")
        positions = _positions(words, chunk.indices)
        if not np.array_equal(words[positions], chunk.indices):
            raise _not_of_it(reference, "words")
    else:
        positions = chunk.indices
    for what, bound, sum_ in (
        ("sum", reference.most, chunk.total),
        ("squares", reference.squares, lambda: float(np.square(chunk.data, dtype=np.float64).sum())),
    ):
        if bound < math.inf and sum_() > bound * (1 + ROUNDING):
            raise _not_of_it(reference, what)
    return Chunk(chunk.indptr, positions, chunk.data, len(words))


def _positions(words: NDArray[np.int32], ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the positions of some ids among ascending words; any where one is not among them."""
    size = int(words[-1]) + 1
    if size <= DENSE_TERMS * len(ids):
        return positions_of(words, size)[np.minimum(ids, size - 1)]
    return np.minimum(np.searchsorted(words, ids), len(words) - 1).astype(np.int32)


def _not_of_it(reference: Reference, what: str) -> ValueError:
    return ValueError(f"{reference} do not have the {what} that the program says: train again")


# A chunk of which there are only references.


class Source(Protocol):
    """Where the documents of references are read from."""

    def documents(self, reference: Reference) -> Chunk:
        """Return documents; may wait for them."""

    def bound(self, chunk: StoredChunk, arguments: Sequence[Any]) -> tuple[float, float]:
        """Return what is computed of a whole chunk, and the sum of its values."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredBlock:
    """A block of documents that are on disk, somewhere: what `Documents` has.

    Attributes
    ----------
    reference : Reference
    packed : ndarray
        Its words, and others, see `packed_words`.
    source : Source
    """

    reference: Reference
    packed: NDArray
    source: Any = None
    norm: list[float] = field(default_factory=list)  # the squared one, once it is known

    @property
    def n_docs(self) -> int:
        """The number of documents."""
        return self.reference.stop - self.reference.start

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self.reference.entries

    def words(self) -> NDArray[np.int32]:
        """Return the term ids that occur, and some that do not."""
        return unpacked_words(self.packed)

    def packed_words(self) -> NDArray:
        """Return the words as they are kept."""
        return self.packed

    def total(self) -> float:
        """Return a bound on the sum of the values."""
        return self.reference.most

    def squared_norm(self) -> float:
        """Return the sum of the squared values, where it is known, or a bound on it."""
        return self.norm[0] if self.norm else self.reference.squares

    def documents(self) -> Chunk:
        """Return the documents; may wait for them."""
        chunk: Chunk = self.source.documents(self.reference)
        return chunk


class StoredChunk:
    """A chunk of documents that are on disk, somewhere: what `Divisible` has.

    Parameters
    ----------
    blocks : sequence of StoredBlock
        Consecutive documents of one corpus.
    limits : dict
        That they were cut by.
    num_terms : int
    """

    def __init__(self, blocks: Sequence[StoredBlock], limits: Mapping[str, int], num_terms: int) -> None:
        self.blocks = list(blocks)
        self.num_terms = num_terms
        self._limits = dict(limits)
        self._total: float | None = None

    @property
    def n_docs(self) -> int:
        """The number of documents."""
        return sum(block.n_docs for block in self.blocks)

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return sum(block.nnz for block in self.blocks)

    @property
    def nbytes(self) -> int:
        """The bytes that this process has of it."""
        return sum(block.packed.nbytes for block in self.blocks)

    @property
    def measured(self) -> bool:
        """Whether workers have said the squared norms of its blocks."""
        return all(block.norm for block in self.blocks)

    def words(self) -> NDArray[np.int32]:
        """Return the term ids that occur, and some that do not."""
        return words_in([block.words() for block in self.blocks], self.num_terms)

    def total(self) -> float:
        """Return the sum of the values, where `apply` has told it."""
        return sum(block.total() for block in self.blocks) if self._total is None else self._total

    def largest(self) -> float:
        """Return 0: whoever refers to documents has looked at their largest value."""
        return 0.0

    def split(self, max_docs: int | None = None, max_nnz: int | None = None) -> list[StoredBlock]:
        """Return the blocks that it was cut into, or without limits one of all."""
        given = {"max_docs": max_docs, "max_nnz": max_nnz}
        limits = {name: limit for name, limit in given.items() if limit is not None}
        if not limits and self.blocks:
            return [self._whole()]
        if limits != self._limits:
            raise ValueError(f"a chunk was cut into blocks of {self._limits}, and {limits} are asked for")
        return self.blocks

    def _whole(self) -> StoredBlock:
        first, last, words = self.blocks[0].reference, self.blocks[-1].reference, self.words()
        reference = replace(
            first,
            stop=last.stop,
            entries=self.nnz,
            most=sum(block.reference.most for block in self.blocks),
            squares=sum(block.reference.squares for block in self.blocks),
            words=checksum_of_words(words),
        )
        return StoredBlock(reference, packed_words(words, self.num_terms), self.blocks[0].source)

    def here(self) -> Chunk:
        """Return the documents as a chunk."""
        if not self.blocks:
            return as_chunk([], self.num_terms)
        whole = self._whole()
        return as_chunk(whole.documents(), self.num_terms, largest=LARGEST_WEIGHT)

    def apply(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return what is computed of the chunk, by whoever reads its documents."""
        result, self._total = self.blocks[0].source.bound(self, arguments)
        return result

    def to_message(self) -> dict[str, Any]:
        """Return it as it travels."""
        return {
            "references": [block.reference.to_message() for block in self.blocks],
            "words": [block.packed for block in self.blocks],
        }

    @classmethod
    def from_message(
        cls, message: Any, num_terms: int, limits: Mapping[str, int], source: Any
    ) -> StoredChunk:
        """Take what has travelled.

        Raises
        ------
        TypeError, ValueError
            If it is no chunk of this vocabulary, or not cut by these limits.
        """
        if type(message) is not dict or set(message) != {"references", "words"}:
            raise TypeError("what is put is no chunk of references")
        if type(message["references"]) is not list or type(message["words"]) is not list:
            raise TypeError("a chunk has lists of references and words")
        references = [Reference.from_message(reference) for reference in message["references"]]
        if len(references) != len(message["words"]):
            raise ValueError("a chunk has words for other blocks than it has")
        for before, after in pairwise(references):
            same = (before.corpus, before.weighting, before.stop)
            if same != (after.corpus, after.weighting, after.start):
                raise ValueError("the references of a chunk are not of consecutive documents")
        most = limits.get("max_docs")
        blocks = []
        for reference, packed in zip(references, message["words"], strict=True):
            if most is not None and reference.stop - reference.start > most:
                raise ValueError(f"{reference} are a block of more than {most}")
            words = checked_words(packed, num_terms)
            if checksum_of_words(words) != reference.words:
                raise ValueError(f"{reference}: words that are not theirs")
            blocks.append(StoredBlock(reference, packed.copy(), source))
        return cls(blocks, limits, num_terms)


def documents_here(chunk: Any) -> Any:
    """Return a chunk as it is, but of references their documents."""
    return chunk.here() if isinstance(chunk, StoredChunk) else chunk


def checked_words(packed: Any, num_terms: int) -> NDArray[np.int32]:
    """Return the words that have arrived packed.

    Raises
    ------
    TypeError, ValueError
        If they are none of this vocabulary.
    """
    if type(packed) is not np.ndarray or packed.ndim != 1 or packed.dtype not in (np.int32, np.uint8):
        raise TypeError("the words of a block are no array of term ids, or bits")
    words = unpacked_words(packed)
    if len(words) and not (words[0] >= 0 and words[-1] < num_terms and (words[1:] > words[:-1]).all()):
        raise ValueError(f"the words of a block are not ascending term ids below {num_terms}")
    return words


class ReferredCorpus:
    """A corpus on disk of which a training is sent references: what `PlacedCorpus` has.

    Parameters
    ----------
    corpus : Documents
        See `refers_to`.
    """

    def __init__(self, corpus: Any) -> None:
        self._corpus = corpus
        self.num_terms: int | None = corpus.num_terms

    def __len__(self) -> int:
        return len(self._corpus)

    def placed_chunks(
        self, chunksize: int, num_terms: int, limits: Mapping[str, int], options: Mapping[str, Any]
    ) -> Iterator[StoredChunk]:
        """Cut the documents into chunks and blocks; no document is read."""
        for first in range(0, len(self._corpus), chunksize):
            yield self._corpus.referred(first, first + chunksize, num_terms, limits, self)

    def documents(self, reference: Reference) -> Chunk:
        """Return documents that somebody lacks.

        Raises
        ------
        ValueError
            If they are not of this corpus.
        """
        chunk: Chunk = self._corpus.dereferenced(reference)
        return chunk


def refers_to(corpus: Any, counts: bool) -> ReferredCorpus | None:
    """Return a corpus of which references can be sent; None where its documents have to be."""
    if not is_stored(corpus) or not corpus.is_referable(counts):
        return None
    return ReferredCorpus(corpus)


def blocks_of(
    store: Store,
    weighting: Weighting | None,
    start: int,
    indptr: NDArray[np.int64],
    num_terms: int,
    limits: Mapping[str, int],
    source: Any,
) -> StoredChunk:
    """Return the chunk of documents from number `start` on, of which `indptr` is known."""
    blocks = []
    for first, end in pairwise(block_bounds(indptr, **limits).tolist()):
        words = store.words_about(start + first, start + end)
        most, squares = _bounds(store, weighting, start + first, start + end)
        reference = Reference(
            corpus=store.checksum,
            weighting=weighting,
            start=start + first,
            stop=start + end,
            entries=int(indptr[end] - indptr[first]),
            most=most,
            squares=squares,
            words=checksum_of_words(words),
        )
        blocks.append(StoredBlock(reference, packed_words(words, num_terms), source))
    return StoredChunk(blocks, limits, num_terms)


def _bounds(store: Store, weighting: Weighting | None, start: int, stop: int) -> tuple[float, float]:
    """Return bounds on the sum of the values and of their squares, as far as the manifest tells them."""
    if weighting is not None:
        unit = weighting.smartirs[2] == "c" and weighting.pivot is None
        return math.inf, float(stop - start) if unit else math.inf
    most = squares = 0.0
    for number, first, end in store.spans(start, stop):
        shard = store.shards[number]
        if shard.weighting != "counts":
            return math.inf, math.inf
        entries = float(np.diff(store.part(number, "indptr")[[first, end]])[0])
        total = min(shard.total, shard.largest * entries)
        most, squares = most + total, squares + shard.largest * total
    return most, squares

"""Documents that are on a Dask cluster already: its workers read and cut them, and this process knows facts.

A collection's partitions, in their order, are read into chunks of the same documents as those of a list, so
that everything that is computed of them has the same bytes. All of it Dask can compute again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures as concurrent_futures
from dataclasses import dataclass
from typing import Any, TypeVar

import distributed
import numpy as np
import scipy.sparse
from dask.base import is_dask_collection
from dask.delayed import Delayed
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk, as_chunk, packed_words, unpacked_words, words_in
from distcorpus.algorithms.sparse import matrix_of, sound
from distcorpus.engines.dask import (
    ANSWER_WITHIN,
    LOOK_EVERY,
    SCHEDULER_TIMEOUT,
    SENDINGS,
    give_place,
    let_go,
    when_read,
)
from distcorpus.engines.dasktasks import LOST, Parcel, Placed, line_of

R = TypeVar("R")

#: Chunks whose facts are asked for at once.
FACTS_AT_ONCE = 32

KINDS = (
    "a dask.bag of bags of words, a dask.array of sparse blocks (documents x terms), or delayed scipy "
    "matrices or futures of them (terms x documents)"
)


# What runs on workers.


def shape_of(kind: str, what: str, *blocks: Any) -> tuple[int | None, int]:
    """Return the terms of a partition, where it is a matrix, and its documents."""
    if kind == "array":
        return sum(int(np.shape(block)[1]) for block in blocks), int(np.shape(blocks[0])[0])
    matrix = matrix_of(blocks[0])
    if matrix is not None:
        return int(matrix.shape[0]), int(matrix.shape[-1])
    try:
        return None, len(blocks[0])
    except TypeError:
        raise TypeError(f"{what} is a {type(blocks[0]).__name__}: give {KINDS}") from None


def read(kind: str, num_terms: int, options: Mapping[str, Any], what: str, *blocks: Any) -> Parcel:
    """Read a partition, as the documents of a list are read."""
    documents: Any = blocks[0]
    if kind == "array":
        rows: list[Any] = [_by_row(block, what) for block in blocks]
        documents = (rows[0] if len(rows) == 1 else scipy.sparse.hstack(rows, "csr")).T
    return Parcel(as_chunk(documents, num_terms, what=what, **options))


def _by_row(block: Any, what: str) -> Any:
    if np.ma.is_masked(block):
        raise ValueError(f"{what}: it has masked values; give them values (dask.array.ma.filled)")
    if matrix_of(block) is None:
        try:
            block = block.tocsr() if hasattr(block, "tocsr") else scipy.sparse.csr_array(block)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{what}: {error}") from None
    return sound(block, what, "documents x terms").tocsr()


def join(
    num_terms: int,
    options: Mapping[str, Any],
    what: str,
    bounds: Sequence[tuple[int, int]],
    *parts: Parcel,
) -> Parcel:
    """Return the chunk that is made of these documents of some partitions."""
    pieces = [part.content.slice(*of) for part, of in zip(parts, bounds, strict=True)]
    if len(pieces) > 1:
        lengths = np.concatenate([np.diff(piece.indptr) for piece in pieces])
        joined = Chunk(
            np.concatenate(([0], np.cumsum(lengths))),
            np.concatenate([piece.indices for piece in pieces]),
            np.concatenate([piece.data for piece in pieces]),
            num_terms,
        )
    else:
        joined = pieces[0]
    return Parcel(as_chunk(joined, num_terms, what=what, **options))


@dataclass(frozen=True, slots=True, eq=False)
class BlockFacts:
    """What is known of a block.

    Attributes
    ----------
    start, stop : int
        Its documents in the chunk.
    nnz : int
    squared_norm : float
    words : ndarray
        See `packed_words`.
    """

    start: int
    stop: int
    nnz: int
    squared_norm: float
    words: NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What is known of a chunk.

    Attributes
    ----------
    address : str
        The worker that it is on.
    n_docs, nnz : int
    total, largest : float
        Of the values.
    blocks : list of BlockFacts
    """

    address: str
    n_docs: int
    nnz: int
    total: float
    largest: float
    blocks: list[BlockFacts]


def facts_of(chunk: Parcel, limits: Mapping[str, int]) -> Facts:
    """Return the facts of a chunk, and of its blocks under some limits."""
    content: Chunk = chunk.content
    blocks, start = [], 0
    for block in content.split(**limits):
        words = packed_words(block.words(), block.num_terms)
        stop = start + block.n_docs
        blocks.append(BlockFacts(start, stop, block.nnz, block.squared_norm(), words))
        start = stop
    address = distributed.get_worker().address
    return Facts(address, content.n_docs, content.nnz, content.total(), content.largest(), blocks)


def pack(chunk: Parcel, kernel: Any, start: int, stop: int) -> Parcel:
    """Return a block as a kernel takes it."""
    return Parcel(kernel.pack(chunk.content.slice(start, stop)))


def applied(chunk: Parcel, function: Callable[..., R], arguments: Parcel) -> R:
    """Return what a function makes of a chunk."""
    return function(chunk.content, *arguments.content)


# This side.


class PlacedBlock:
    """A block of documents that are on the cluster: what `Documents` has."""

    def __init__(
        self, corpus: DaskCorpus, chunk: distributed.Future, address: str, facts: BlockFacts
    ) -> None:
        self._corpus = corpus
        self._chunk = chunk
        self._address = address
        self._facts = facts
        self._packed: dict[Any, Placed] = {}

    @property
    def n_docs(self) -> int:
        """The number of documents."""
        return self._facts.stop - self._facts.start

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self._facts.nnz

    def words(self) -> NDArray[np.int32]:
        """Return the distinct term ids that occur."""
        return unpacked_words(self._facts.words)

    def packed_words(self) -> NDArray:
        """Return the words as they are kept."""
        return self._facts.words

    def squared_norm(self) -> float:
        """Return the sum of the squared values."""
        return self._facts.squared_norm

    def packed(self, kernel: Any) -> Placed:
        """Return the block as a kernel takes it; made once, where the chunk is."""
        if kernel not in self._packed:
            future = self._corpus.submit(
                f"{kernel.name}-block", pack, self._chunk, kernel, self._facts.start, self._facts.stop
            )
            self._packed[kernel] = Placed(future, self._address)
        return self._packed[kernel]


class PlacedChunk:
    """A chunk that is on the cluster: what `Divisible` has."""

    def __init__(
        self,
        corpus: DaskCorpus,
        future: distributed.Future,
        facts: Facts,
        limits: Mapping[str, int],
        num_terms: int,
    ) -> None:
        self._corpus = corpus
        self._future = future
        self._facts = facts
        self._limits = dict(limits)
        self._num_terms = num_terms
        self._blocks = [PlacedBlock(corpus, future, facts.address, block) for block in facts.blocks]

    @property
    def n_docs(self) -> int:
        """The number of documents."""
        return self._facts.n_docs

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self._facts.nnz

    @property
    def nbytes(self) -> int:
        """The bytes that this process has of it."""
        return sum(block.words.nbytes for block in self._facts.blocks)

    @property
    def measured(self) -> bool:
        """Whether the squared norms of its blocks are known: they are among the facts."""
        return True

    def words(self) -> NDArray[np.int32]:
        """Return the distinct term ids that occur."""
        return words_in([block.words() for block in self._blocks], self._num_terms)

    def total(self) -> float:
        """Return the sum of the values."""
        return self._facts.total

    def largest(self) -> float:
        """Return the largest absolute value."""
        return self._facts.largest

    def split(self, **limits: Any) -> list[PlacedBlock]:
        """Return the blocks; of the limits that the collection was read for."""
        if limits != self._limits:
            raise ValueError(f"a chunk was cut into blocks of {self._limits}, and {limits} are asked for")
        return self._blocks

    def apply(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return ``function(chunk, *arguments)``, computed on a worker."""
        for sending in range(SENDINGS):
            try:
                sent = self._corpus.client.scatter(Parcel(arguments), hash=False)
                applying = self._corpus.submit("corpus-apply", applied, self._future, function, sent)
                (result,) = gathered(self._corpus.client, [applying])
                return result
            except LOST:  # the arguments, with the worker that they were on
                if sending + 1 == SENDINGS:
                    raise
        raise AssertionError


class DaskCorpus:
    """A collection on a Dask cluster as a corpus.

    Parameters
    ----------
    client : Client
    collection : Bag, Array, Delayed, Future, or list of the latter two
        Computed at once, and kept on the cluster until its chunks have been cut.
    check : callable
        Told the terms and documents of a matrix, the size of the vocabulary and what it is, an array or a
        matrix; raises ValueError where they do not fit.

    Attributes
    ----------
    num_terms : int or None
        The size of the vocabulary, where the collection says it.

    Raises
    ------
    TypeError
        If it is another kind of collection.
    ValueError
        If a future is of another cluster.
    """

    def __init__(self, client: Any, collection: Any, check: Callable[[int, int, int, str], None]) -> None:
        self.client = client
        self.num_terms: int | None = None
        self._check = check
        self._id = uuid.uuid4().hex[:12]
        self._serials = itertools.count()
        self._made: weakref.WeakSet[distributed.Future] = weakref.WeakSet()
        self._kind, self._sources = self._sources_of(collection)
        self._raw: list[list[distributed.Future]] | None = None
        self._shapes: list[tuple[int | None, int]] | None = None

    def _sources_of(self, collection: Any) -> tuple[str, list[list[Any]]]:
        """Return the kind of the partitions, and each as what it is computed from."""
        kind = type(collection).__name__
        module = type(collection).__module__
        if kind == "Bag" and module.startswith("dask.bag"):
            # A partition may be a generator, which is read once.
            return "documents", [[part] for part in collection.map_partitions(list).to_delayed()]
        if kind == "Array" and module.startswith("dask.array"):
            if collection.ndim != 2:
                raise TypeError(
                    f"corpus is a dask.array of {collection.ndim} dimensions: give one of documents x terms"
                )
            if not np.isnan(collection.shape[1]):
                self.num_terms = int(collection.shape[1])
            return "array", [list(row) for row in collection.to_delayed()]
        parts = list(collection) if isinstance(collection, list | tuple) else [collection]
        for number, part in enumerate(parts):
            if isinstance(part, distributed.Future):
                theirs, ours = part.client.scheduler.address, self.client.scheduler.address
                if theirs != ours:
                    raise ValueError(
                        f"part {number} of the corpus is a future on the cluster {theirs}, and client is on "
                        f"{ours}: give the client that made the future"
                    )
            elif not isinstance(part, Delayed):
                of = f"part {number} of " if isinstance(collection, list | tuple) else ""
                raise TypeError(f"{of}the corpus is a {type(part).__name__}: give {KINDS}")
        return "documents", [[part] for part in parts]

    def submit(self, what: str, function: Callable[..., Any], *arguments: Any) -> distributed.Future:
        """Submit a task; Dask's dashboard groups by `what`."""
        key = (what, f"{self._id}-{next(self._serials)}")
        future = self.client.submit(function, *arguments, key=key, pure=False)
        self._made.add(future)
        when_read(self.client.loop.asyncio_loop, _seen, future)  # it is not let go of before
        return future

    def _gathered(self, futures: Sequence[distributed.Future]) -> list[Any]:
        """Wait for results; where there is an error, nothing is left on the cluster.

        The error's traceback would hold futures, one of which holds the error.
        """
        try:
            return gathered(self.client, futures)
        except BaseException as error:
            self._raw = None
            for future in list(self._made):
                let_go(self.client.loop.asyncio_loop, future)
            if isinstance(error, distributed.CancelledError) and (cancelled := self._cancelled()):
                line_of(error)  # nothing of it, which is the new error's context, may hold the user's futures
                raise ValueError(
                    f"{cancelled} of the corpus is a future that was cancelled, or whose data were lost: "
                    "compute it again, and give the new one"
                ) from None
            raise

    def _cancelled(self) -> str | None:
        """Name the first partition that is a cancelled future of the user's, if one is."""
        for number, parts in enumerate(self._sources):
            if any(isinstance(part, distributed.Future) and part.cancelled() for part in parts):
                return f"partition {number}"
        return None

    def _persisted(self) -> list[list[distributed.Future]]:
        """Return the futures of what the partitions are read from."""
        if self._raw is None:
            delayed = [part for parts in self._sources for part in parts if is_dask_collection(part)]
            made = self.client.compute(delayed) if delayed else []
            self._made.update(made)
            computed = iter(made)
            self._raw = [
                [next(computed) if is_dask_collection(part) else part for part in parts]
                for parts in self._sources
            ]
        return self._raw

    def _shapes_of_parts(self) -> list[tuple[int | None, int]]:
        if self._shapes is None:
            asked = [
                self.submit("corpus-count", shape_of, self._kind, f"partition {n}", *raw)
                for n, raw in enumerate(self._persisted())
            ]
            self._shapes = self._gathered(asked)
        return self._shapes

    def __len__(self) -> int:
        return sum(documents for _, documents in self._shapes_of_parts())

    def _check_shapes(self, num_terms: int) -> None:
        """Refuse matrices of more terms than the vocabulary, or that seem to be the other way round."""
        shapes = [(terms, documents) for terms, documents in self._shapes_of_parts() if terms is not None]
        if not shapes:
            return
        if self._kind == "array":
            self._check(max(terms for terms, _ in shapes), len(self), num_terms, "a dask.array")
            return
        # One part may have as many documents as there are terms by chance, all of them hardly.
        one_fits = any(terms == num_terms or documents != num_terms for terms, documents in shapes)
        terms, documents = max(shapes)
        self._check(terms, 0 if one_fits else documents, num_terms, "a matrix")

    def placed_chunks(
        self, chunksize: int, num_terms: int, limits: Mapping[str, int], options: Mapping[str, Any]
    ) -> Iterator[PlacedChunk]:
        """Cut the documents into chunks, and these into blocks.

        Parameters
        ----------
        chunksize : int
            Documents of a chunk.
        num_terms : int
            The size of the vocabulary.
        limits : dict
            Of blocks, see `Chunk.split`.
        options : dict
            Of `as_chunk`.

        Yields
        ------
        PlacedChunk
            Chunk n has the documents from ``n * chunksize`` on.

        Raises
        ------
        ValueError, TypeError
            If a document is none; what computing the collection raises.
        RuntimeError
            If the cluster is lost.
        """
        self._check_shapes(num_terms)
        ends = list(itertools.accumulate(documents for _, documents in self._shapes_of_parts()))
        parts = [
            self.submit("corpus-part", read, self._kind, num_terms, dict(options), f"partition {n}", *raw)
            for n, raw in enumerate(self._persisted())
        ]
        asked: deque[tuple[distributed.Future, distributed.Future]] = deque()
        for number, first in enumerate(range(0, ends[-1] if ends else 0, chunksize)):
            bounds, of = [], []
            last = min(first + chunksize, ends[-1])
            for n in range(bisect_right(ends, first), len(ends)):
                start = ends[n - 1] if n else 0
                if start >= last:
                    break
                if ends[n] > start:
                    bounds.append((max(first - start, 0), min(last, ends[n]) - start))
                    of.append(parts[n])
            what = f"chunk {number}"
            chunk = self.submit("corpus-chunk", join, num_terms, dict(options), what, bounds, *of)
            asked.append((chunk, self.submit("corpus-facts", facts_of, chunk, dict(limits))))
        # Each is on the cluster for as long as something has to be made of it.
        self._raw = None
        del parts
        while asked:
            some = [asked.popleft() for _ in range(min(FACTS_AT_ONCE, len(asked)))]
            found = self._gathered([facts for _, facts in some])
            some.reverse()
            for facts in found:
                yield PlacedChunk(self, some.pop()[0], facts, limits, num_terms)


def gathered(client: Any, futures: Sequence[distributed.Future]) -> list[Any]:
    """Wait for results, and fetch them; inside a task, its place is others' meanwhile.

    Raises
    ------
    Exception
        What a task raised.
    RuntimeError
        If the scheduler is lost.
    """

    async def gather() -> list[Any]:
        results: list[Any] = await client.gather(list(futures), asynchronous=True)
        return results

    place = give_place()
    loop = client.loop.asyncio_loop
    try:
        asked = asyncio.run_coroutine_threadsafe(gather(), loop)
        answered_at = time.monotonic()
        while not concurrent_futures.wait([asked], timeout=LOOK_EVERY).done:
            scheduler = client.scheduler  # None when the client has been closed
            if scheduler is not None:
                probe = asyncio.run_coroutine_threadsafe(scheduler.identity(n_workers=0), loop)
                concurrent_futures.wait([probe], timeout=ANSWER_WITHIN)
                if probe.done() and not probe.cancelled() and probe.exception() is None:
                    answered_at = time.monotonic()
                probe.cancel()
            silent_for = time.monotonic() - answered_at
            if _is_closed(client) or silent_for > SCHEDULER_TIMEOUT:
                asked.cancel()
                why = "the client was closed" if _is_closed(client) else f"no answer for {silent_for:.0f} s"
                raise RuntimeError(_lost(client, why))
        try:
            return asked.result()
        except (concurrent_futures.CancelledError, asyncio.CancelledError):
            if _is_closed(client):
                raise RuntimeError(_lost(client, "the client was closed")) from None
            raise
    finally:
        if place is not None:
            distributed.rejoin()


def _seen(future: distributed.Future) -> None:
    """Let go of a task that the scheduler knows."""


def _is_closed(client: Any) -> bool:
    return client.status in ("closing", "closed")


def _lost(client: Any, why: str) -> str:
    address = client.scheduler.address if client.scheduler else "that there was"
    return (
        f"the Dask scheduler {address} is lost: {why}. See its log, and train again with a new Client; the "
        "documents have not been read"
    )

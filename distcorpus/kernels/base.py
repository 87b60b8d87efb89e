"""What all kernels have in common: the protocol, and what a job returns."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.postings import Postings

#: What identifies a block: the number of its chunk, and its first document in that chunk.
Key = tuple[int, ...]

#: A block of documents as a kernel takes it.
Packed = Chunk | Postings


@dataclass(frozen=True, slots=True, eq=False)
class BlockResults:
    """What a kernel that adds up nothing returns: an array for each block of the job.

    Attributes
    ----------
    arrays : dict of (chunk, document) to ndarray
        By the key of the block.
    """

    arrays: Mapping[Key, NDArray]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class BlockArrays:
    """What a kernel that adds up nothing has computed so far: several threads may add to it."""

    def __init__(self) -> None:
        self._arrays: dict[Key, NDArray] = {}
        self._lock = threading.Lock()

    def _keep(self, key: Key, array: NDArray) -> None:
        with self._lock:
            self._arrays[key] = array

    def result(self) -> BlockResults:
        """Return what was computed so far."""
        with self._lock:
            return BlockResults(dict(self._arrays))


#: What a job returns.
Result = Partial | BlockResults


class Params(Protocol):
    """The parameters of a round, a dataclass: the one definition of what travels with its jobs."""

    @property
    def width(self) -> int:
        """Numbers in a row of the shared table."""


def as_dict(params: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, not copied: how it travels."""
    return {field.name: getattr(params, field.name) for field in fields(params)}


class Kernel(Protocol):
    """One job's computation: a pure function of blocks of documents and of rows of the shared table.

    An instance computes one job. ``add`` may be called by several threads at once; ``result`` follows when
    all blocks were added, and its bytes depend neither on their order nor on the threads.

    Attributes
    ----------
    name : str
        Under which jobs, logs and records know it.
    version : int
        Counts the changes after which it computes other bytes: workers of one training run must agree.
    params : type
        The dataclass of its parameters.
    limits : dict
        Of a block, as `Chunk.split` takes them.
    least_job_cost : float
        Non-zeros for each term of the vocabulary that a job has to have: with fewer, sending its rows of
        the shared table and adding its partial result, which have a row for each term, take longer than
        computing it.
    counts : bool
        Whether values have to be counts.
    sums : bool
        Whether jobs return a `Partial` that is added up, its rows as wide as the shared table's; else they
        return `BlockResults`.

    Notes
    -----
    A kernel may have a static method ``check(result, params, words, blocks)`` that raises ValueError for a
    result which these blocks, (documents, key) each, cannot have; what all results have to be was checked
    before (`checking.check_result`).
    """

    name: ClassVar[str]
    version: ClassVar[int]
    params: ClassVar[type]
    limits: ClassVar[Mapping[str, int]]
    least_job_cost: ClassVar[float]
    counts: ClassVar[bool]
    sums: ClassVar[bool]

    @staticmethod
    def pack(block: Chunk) -> Packed:
        """Return a block as `add` takes it; it may share the block's memory."""

    @staticmethod
    def prepare(rows: NDArray, params: Any, out: NDArray | None = None) -> NDArray:
        """Return rows of the shared table as the constructor takes them.

        Parameters
        ----------
        rows : ndarray, shape (n, width)
            They are left as they are.
        params : the kernel's parameters
        out : ndarray, optional
            Memory for the result, where it fits; `rows` themselves, if nobody else needs them.
        """

    def __init__(
        self, params: Any, words: NDArray[np.int32], table: NDArray, table_row: NDArray[np.int32]
    ) -> None: ...

    def add(self, block: Any, key: Key) -> None:
        """Compute a block."""

    def result(self) -> Result:
        """Return what was computed; nothing can be added after that."""

    @classmethod
    def warm(cls) -> None:
        """Compile, or load from the disk's cache, what the first job would have to wait for."""

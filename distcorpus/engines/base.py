"""The seam between a training run and whatever computes its rounds.

A training run asks an engine to compute a round and is told what came back; it knows no worker, thread or
socket. `threads` is this process, `pyro` our cluster, `dask` somebody's Dask cluster. An engine of one
process needs no more than `Engine`; one with workers that come, go and are late takes `schedule` for what to
do, and brings what carries jobs there and results back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import unpacked_words
from distcorpus.kernels import Result

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Block:
    """Documents of one chunk that are scheduled, retried and rounded as one.

    Attributes
    ----------
    number : int
        Its number within the session.
    key : tuple of int
        (number of its chunk in the session, first document of the block in that chunk).
    documents : any
        The documents, as `Engine.hold` returned them.
    n_docs, nnz : int
        How many documents, and how many entries they have.
    packed : ndarray
        The terms that occur in it, see `packed_words`.
    """

    number: int
    key: tuple[int, int]
    documents: Any
    n_docs: int
    nnz: int
    packed: NDArray

    @property
    def words(self) -> NDArray[np.int32]:
        """Sorted ids of the terms that occur in it."""
        return unpacked_words(self.packed)

    def __str__(self) -> str:
        chunk, first = self.key
        return f"chunk {chunk}, documents {first}-{first + self.n_docs - 1}"


class Round(Protocol):
    """One kernel over blocks: what an engine needs to know of it, and what it tells it."""

    session: str
    number: int
    kernel: Any  # a `Kernel`
    params: Any
    num_terms: int
    least_job_cost: float  # non-zeros that a job has to have to be worth its partial
    one_by_one: bool  # whether results of single blocks are waited for before the round is finished
    keep_blocks: bool  # whether the blocks come again in a later round, so that workers do well to keep them

    def block(self, number: int) -> Block | None:
        """Return a block of the round; None where its result is here and it will not come again."""

    def rows(self, words: NDArray[np.int32]) -> NDArray:
        """Return the rows of the shared table for `words`, shape (n_words, width): a new array."""

    def add(self, blocks: Sequence[int], result: Result) -> None:
        """Take in the accepted result of a job, some blocks, once; called by several threads at once."""

    def progressed(self, pending: int) -> None:
        """So many blocks are queued now. Like what follows, it must neither wait nor call the engine."""

    def finished(self) -> None:
        """Every block's result was taken in, once."""

    def failed(self, error: BaseException) -> None:
        """The round cannot be finished; `error` says why, and which worker."""


class Engine(Protocol):
    """Computes rounds. Methods return at once, unless they say otherwise; any thread may call them."""

    @property
    def num_workers(self) -> int:
        """How many compute now."""

    def open_session(self, session: str) -> None:
        """Begin to serve a session."""

    def close_session(self, session: str) -> None:
        """Drop all that belongs to a session; its jobs under way count for nothing."""

    def hold(self, kernel: Any, documents: Any) -> Any:
        """Return a block's `Documents`, which are here or where this engine computes, as it keeps them for
        the rounds of a kernel.
        """

    def open_round(self, round_: Round) -> None:
        """Begin a round; a round of the same session that is not finished is dropped."""

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        """Put blocks of the round into the queue."""

    def seal_round(self, round_: Round) -> None:
        """No more blocks will come; ``round_.finished()`` follows once all have been computed."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Compute something between two rounds, side by side on this machine; return when it is done."""

    def algebra(self) -> AbstractContextManager[Any]:
        """The time in which `map` shares the cores: BLAS has one thread."""


class OwnEngine(Engine, Protocol):
    """An engine that a program makes for its own training runs, and enters around each of them."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *exception: object) -> None: ...

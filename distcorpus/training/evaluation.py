"""Evaluating a model that does not change: the topics of whole corpora, their bound, their projections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk, Divisible
from distcorpus.algorithms.received import check_kinds, count, keep_plain
from distcorpus.algorithms.topics import check_arrived
from distcorpus.engines.base import Block, Engine
from distcorpus.kernels import Inference, InferenceParams, as_dict
from distcorpus.training.session import PUT_AFTER_END, Session
from distcorpus.training.standing import Standing

#: Chunks that are computed or on their way, and not looked at yet.
CHUNKS_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationTask:
    """What a program asks a dispatcher to evaluate.

    Attributes
    ----------
    topics : dict
        The arguments of `LazyTopics`.
    params : InferenceParams
    first : int
        The number of the first chunk that will be put: those before it were evaluated elsewhere.
    """

    topics: dict[str, Any]
    params: InferenceParams
    first: int = 0

    def __post_init__(self) -> None:
        check_kinds(dict, topics=self.topics)
        keep_plain(self, count, "first")
        check_arrived(self.topics, self.params.alpha)

    def to_message(self) -> dict[str, Any]:
        """Return it as it travels."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "params": as_dict(self.params)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> EvaluationTask:
        """Take what has travelled."""
        return cls(**{**message, "params": InferenceParams(**message["params"])})


class Evaluation(Session):
    """Evaluates chunk after chunk. All are of one round, so that topics travel to a worker once.

    Parameters
    ----------
    name, engine, **session
        As `Session` takes them.
    num_terms : int
        Size of the vocabulary.
    params
        The kernel's.
    rows : callable
        Returns the model's rows of an array of term ids.
    first : int
        The number of the first chunk that will be put.
    kernel : type
        A `Kernel` whose results are of blocks.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        num_terms: int,
        params: Any,
        rows: Callable[[NDArray[np.int32]], NDArray],
        first: int = 0,
        kernel: Any = Inference,
        **session: Any,
    ) -> None:
        super().__init__(name, engine, num_terms, **session)
        self.kernel = kernel
        self.num_chunks = first
        self._round = self.open_blocks(params, rows)
        self._waiting: deque[list[Block]] = deque()
        self._complete = False

    def put(self, chunk: Divisible) -> None:
        """Take the next chunk; waits while too many are queued, but for documents that are not here: a
        program that waits supplies nobody with them.

        Raises
        ------
        RuntimeError
            `end` was called before.
        """
        if self._complete:
            raise RuntimeError(PUT_AFTER_END)
        here = isinstance(chunk, Chunk)
        if here:
            self.wait_for_room(self._round, chunk.nbytes)
        blocks = self.keep(chunk)
        self._waiting.append(blocks)
        (self.queue if here else self.add)(self._round, blocks)

    def end(self) -> None:
        """No more chunks will come."""
        self._complete = True
        self.seal(self._round)

    def standing(self) -> Standing:
        """See `Session.standing`."""
        return replace(super().standing(), complete=self._complete, answered=not self._waiting)

    def wait_until(self, ready: Callable[[], Any]) -> None:
        """Wait for the oldest chunk that was not taken, or until something else is ready (see `Round.wake`).

        Raises
        ------
        RuntimeError
            All have been taken.
        """
        if not self._waiting:
            raise RuntimeError("take() without a chunk that was put and not taken: call put() first")
        blocks = self._waiting[0]
        self._round.wait_until(lambda: self._round.has(blocks) or ready())

    def is_computed(self) -> bool:
        """Return whether `take` would not wait."""
        return bool(self._waiting) and self._round.has(self._waiting[0])

    def wake(self) -> None:
        """Have who waits look again at what is ready."""
        self._round.wake()

    def take(self) -> np.ndarray:
        """Wait for the oldest chunk that was not taken.

        Returns
        -------
        ndarray
            The documents' gamma, shape (n_docs, K), or the bound of each block, shape (n_blocks,).

        Raises
        ------
        RuntimeError
            All have been taken.
        """
        self.wait_until(lambda: False)
        return np.concatenate(self._round.take(self._waiting.popleft()))


def evaluate(evaluation: Evaluation, chunks: Iterable[Divisible]) -> Iterator[np.ndarray]:
    """Yield what `Evaluation.take` returns of each chunk, in order; others are computed meanwhile."""
    in_flight = 0
    for chunk in chunks:
        evaluation.put(chunk)
        in_flight += 1
        if in_flight == CHUNKS_IN_FLIGHT:
            yield evaluation.take()
            in_flight -= 1
    evaluation.end()
    for _ in range(in_flight):
        yield evaluation.take()

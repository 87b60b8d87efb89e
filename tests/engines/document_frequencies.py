"""A kernel of a user's own, in one file: in how many documents each term occurs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.summation import GridSum
from distcorpus.engines.base import Engine
from distcorpus.kernels import Key, register
from distcorpus.training.session import Session


@dataclass(frozen=True, slots=True)
class Nothing:
    """It needs no parameters and no shared rows."""

    width: int = 1


@register
class DocumentFrequencies:
    """Counts the documents of a job's blocks that have each of the job's words."""

    name: ClassVar[str] = "document frequencies"
    version: ClassVar[int] = 1
    params: ClassVar[type] = Nothing
    limits: ClassVar[Mapping[str, int]] = {"max_docs": 20}
    least_job_cost: ClassVar[float] = 0.0
    counts: ClassVar[bool] = False
    sums: ClassVar[bool] = True

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        return block

    @staticmethod
    def prepare(rows: np.ndarray, params: Nothing, out: np.ndarray | None = None) -> np.ndarray:
        return rows

    def __init__(self, params: Nothing, words: np.ndarray, table: np.ndarray, table_row: np.ndarray) -> None:
        self._words = words
        self._counts = np.zeros(len(table_row), np.int32)
        self._lock = threading.Lock()

    def add(self, block: Chunk, key: Key) -> None:
        counts = np.bincount(block.indices, minlength=len(self._counts))
        with self._lock:
            self._counts += counts.astype(np.int32)

    def result(self) -> Partial:
        return Partial(self._words, self._counts[self._words][:, np.newaxis])

    @classmethod
    def warm(cls) -> None: ...


class Counting(Session):
    """Counts in a whole corpus."""

    kernel = DocumentFrequencies


def document_frequencies(engine: Engine, chunks: Iterable[Chunk], num_terms: int, name: str) -> Any:
    """Return how many documents have each term, on any engine."""
    with Counting(name, engine, num_terms) as counting:
        total = GridSum(num_terms, 1, 1.0)
        round_ = counting.open_sum(Nothing(), total, lambda words: np.zeros((len(words), 1), np.float32))
        for chunk in chunks:
            counting.queue(round_, counting.keep(chunk))
        counting.seal(round_)
        round_.wait()
        return total.values()[:, 0].astype(int)

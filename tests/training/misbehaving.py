"""An engine that does what real ones do on a bad day, as a list of choices says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from distcorpus.algorithms.chunk import Chunk, positions_of, words_in
from distcorpus.engines.base import Block, Round
from distcorpus.kernels.job import run


class BadDay(Exception):
    """What a job raises."""


class MisbehavingEngine:
    """Computes in the caller's thread, in an order and in jobs that follow from `choose`.

    Parameters
    ----------
    choose : callable
        Returns one of some options.
    faults : sequence of str
        What may happen to a job besides being computed: ``"twice"`` (its result comes again), ``"late"`` (its
        result comes again after the round has ended), ``"raise"``, ``"lose"`` (its result never comes, and
        the round ends).
    eager : bool
        Compute everything at once.
    """

    num_workers = 1

    def __init__(
        self, choose: Callable[[Sequence[Any]], Any], faults: Sequence[str] = (), *, eager: bool = False
    ) -> None:
        self._choose = choose
        self._eager = eager
        self._faults = ["none", *faults]
        self._waiting: list[Block] = []
        self._late: list[Callable[[], None]] = []
        self.happened: set[str] = set()

    def open_session(self, session: str) -> None: ...

    def close_session(self, session: str) -> None:
        self._waiting.clear()

    def hold(self, kernel: Any, documents: Chunk) -> Any:
        return kernel.pack(documents)

    def open_round(self, round_: Round) -> None:
        self._waiting.clear()

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        self._waiting += blocks
        while self._waiting and (self._eager or self._choose([False, True])):
            self._compute_some(round_)

    def seal_round(self, round_: Round) -> None:
        while self._waiting:
            self._compute_some(round_)
        round_.finished()
        late, self._late = self._late, []
        for deliver in late:
            deliver()

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return list(map(function, items))

    def algebra(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _compute_some(self, round_: Round) -> None:
        size = self._choose(range(1, len(self._waiting) + 1))
        job = [self._waiting.pop(self._choose(range(len(self._waiting)))) for _ in range(size)]
        fault = self._choose(self._faults)
        self.happened.add(fault)
        if fault == "raise":
            round_.failed(BadDay(str(job[0])))
            return
        if fault == "lose":
            return
        numbers, result = [block.number for block in job], self._result(round_, job)
        round_.add(numbers, result)
        if fault == "twice":
            round_.add(numbers, result)
        elif fault == "late":
            self._late.append(lambda: round_.add(numbers, result))

    def _result(self, round_: Round, job: Sequence[Block]) -> Any:
        words = words_in([block.words for block in job], round_.num_terms)
        table = round_.kernel.prepare(round_.rows(words), round_.params)
        blocks = [(block.documents, block.key) for block in job]
        table_row = positions_of(words, round_.num_terms)
        return run(round_.kernel, round_.params, blocks, words, table, table_row)[0]

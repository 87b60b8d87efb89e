"""Partials that are added up on Dask's workers: of many workers the sums alone come into the program.

A job's partial stays on its worker. As soon as there are `FAN_IN`, they are added up on one of these, and
their sum with other sums while more are to come; what is left comes here. Sums are exact, so the order makes
no difference. Where a worker is lost, the jobs in the sums that it had are computed again.

All here runs on the client's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import distributed
import numpy as np

from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.summation import merge_extras, narrow_steps
from distcorpus.algorithms.topics import StatisticsSum
from distcorpus.engines.base import Block
from distcorpus.engines.dasktasks import LOST, JobError, Parcel, line_of, narrowed, widened
from distcorpus.engines.schedule import Hand

logger = logging.getLogger(__name__)

#: More workers than this have their partials added up among them.
FROM_WORKERS = 10
#: Partials that are added up at once.
FAN_IN = 8
#: How often a job is computed again whose partial was lost, and a sum is tried.
TRIES = 3
#: Seconds between two tries.
AGAIN_AFTER = 0.5


def add_up(num_terms: int, width: int, *parcels: Parcel) -> Parcel:
    """Add partials up, on a worker.

    Parameters
    ----------
    num_terms, width : int
        Size of the vocabulary, and numbers a row of the table.
    *parcels : Parcel
        Of partials, which are not changed.
    """
    try:
        total = StatisticsSum(num_terms, width, 1.0)
        extras: dict[str, Any] = {}
        for parcel in parcels:
            partial = widened(parcel.content)
            total.add(partial.words, partial.steps, partial.cells)
            extras = merge_extras(extras, partial.extras)
        order = np.argsort(total.words)
        steps = narrow_steps(total.steps[order])
        return Parcel(narrowed(Partial(total.words[order], steps, extras)))
    except OverflowError as error:
        raise OverflowError(str(error)) from None
    except Exception:
        raise JobError(traceback.format_exc()) from None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A job that was computed, and may have to be again."""

    hand: Hand
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The sum of some jobs' partials, on a worker.

    Attributes
    ----------
    future : Future
        Of a `Parcel`.
    worker : Any
        Where it is.
    jobs : tuple of Job
    """

    future: distributed.Future
    worker: Any
    jobs: tuple[Job, ...]


class Driver(Protocol):
    """What an engine does for the sums of its rounds."""

    def spawn(self, coroutine: Any) -> asyncio.Task[None]:
        """Run a coroutine on the loop, and keep it."""

    def is_current(self, round_: Any) -> bool:
        """Whether the round is neither over nor given up."""

    def is_queued(self, round_: Any) -> bool:
        """Whether blocks of it wait for a worker."""

    def is_there(self, worker: Any) -> bool:
        """Whether a worker is not known to be gone."""

    def least_busy(self) -> Any:
        """Return a worker for a job, or None."""

    async def compute(self, worker: Any, job: Job, round_: Any) -> distributed.Future:
        """Compute a job on a worker, and leave its partial there."""

    async def submit(self, worker: Any, round_: Any, function: Any, *arguments: Any) -> distributed.Future:
        """Compute something on a worker, and leave the result there."""

    async def fetch(self, held: Held) -> Any:
        """Return what is on a worker."""

    def take_in(self, held: Held, round_: Any, result: Any) -> None:
        """Add a sum to the round's."""

    def give_up(self, jobs: Sequence[Job], round_: Any, error: Exception) -> None:
        """Fail the round."""

    def look(self) -> None:
        """Look soon who is there."""

    def over(self, round_: Any) -> None:
        """There is nothing of the round to wait for now."""


@dataclass(slots=True, eq=False)
class _Work:
    """What a task of the loop does: adding `parts` up, or computing a `job` again.

    Attributes
    ----------
    workers : set
        Those that it needs.
    tries : int
        How often the job was given to a worker again.
    """

    workers: set[Any]
    parts: list[Held] = field(default_factory=list)
    job: Job | None = None
    tries: int = 0
    lost: str = ""


class SumOnWorkers:
    """The sum of one round on Dask's workers.

    Parameters
    ----------
    driver : Driver
    round_ : SumRound
    """

    def __init__(self, driver: Driver, round_: Any) -> None:
        self._driver = driver
        self._round = round_
        self._held: list[Held] = []
        self._busy = 0  # jobs that are computed, and tasks
        self._tasks: dict[asyncio.Task[None], _Work] = {}
        self._broken: set[asyncio.Task[None]] = set()  # cancelled, as a worker that they need is gone

    def begin(self) -> None:
        """A job is computed."""
        self._busy += 1

    def end(self, computed: Held | None) -> None:
        """That job is computed; None: it is not, or nobody wants it."""
        if computed is not None:
            self._held.append(computed)
        self._busy -= 1
        self._go_on()

    def worker_gone(self, worker: Any) -> None:
        """What was on that worker is lost."""
        for task, work in self._tasks.items():
            if worker in work.workers:
                self._broken.add(task)
                task.cancel()
        held, self._held = self._held, []
        self._salvage(held)

    def drop(self) -> None:
        """The round is over, or given up."""
        self._held.clear()
        for task in self._tasks:
            task.cancel()

    def _go_on(self) -> None:
        if not self._driver.is_current(self._round):
            self.drop()
        while len(self._held) >= FAN_IN:
            self._sum_up(FAN_IN)
        if self._held and not self._busy:
            self._sum_up(len(self._held))
        if not self._busy:
            self._driver.over(self._round)

    def _sum_up(self, number: int) -> None:
        parts, self._held = self._held[:number], self._held[number:]
        self._start(_Work({held.worker for held in parts}, parts))

    def _salvage(self, parts: Sequence[Held]) -> None:
        """Keep those that are there still, and compute the jobs of the others again."""
        for held in parts:
            if self._driver.is_there(held.worker) and held.future.status == "finished":
                self._held.append(held)
            else:
                for job in held.jobs:
                    self._start(_Work(set(), job=job))

    def _start(self, work: _Work) -> None:
        self._busy += 1
        task = self._driver.spawn(self._sum(work) if work.job is None else self._again(work, work.job))
        self._tasks[task] = work
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        work, broken = self._tasks.pop(task), task in self._broken
        self._broken.discard(task)
        if task.cancelled() and broken:  # maybe before it began
            if work.job is None:
                self._salvage(work.parts)
            else:
                self._start(work)
        self._busy -= 1
        self._go_on()

    async def _sum(self, work: _Work) -> None:
        """Add some up on the worker of the first, and fetch the sum where there is nothing to add it to."""
        driver, round_ = self._driver, self._round
        try:
            for _ in range(TRIES):
                try:
                    if len(work.parts) > 1:
                        work.parts = [await self._added_up(work.parts)]
                    # A job takes a place on its worker until it is in the sum: others must not wait for that.
                    if not driver.is_queued(round_) and (self._busy > 1 or self._held):
                        self._held += work.parts
                    else:
                        driver.take_in(work.parts[0], round_, await driver.fetch(work.parts[0]))
                    return
                except LOST as error:
                    logger.debug("partials of a round were lost (%s)", line_of(error))
                driver.look()
                await asyncio.sleep(AGAIN_AFTER)
        except Exception as error:
            self._give_up([job for held in work.parts for job in held.jobs], error)
        else:
            self._salvage(work.parts)

    async def _added_up(self, parts: Sequence[Held]) -> Held:
        worker, round_ = parts[0].worker, self._round
        arguments = round_.num_terms, round_.total.steps.shape[1], *(held.future for held in parts)
        future = await self._driver.submit(worker, round_, add_up, *arguments)
        return Held(future, worker, tuple(job for held in parts for job in held.jobs))

    async def _again(self, work: _Work, job: Job) -> None:
        """Compute a job whose partial was lost."""
        driver = self._driver
        try:
            while work.tries < TRIES:
                worker = driver.least_busy()
                if worker is not None:
                    work.tries += 1
                    work.workers = {worker}
                    try:
                        future = await driver.compute(worker, job, self._round)
                        self._held.append(Held(future, worker, (job,)))
                        return
                    except LOST as error:
                        work.lost = f"; the last: {line_of(error)}"
                driver.look()
                await asyncio.sleep(AGAIN_AFTER)
            raise JobError(f"its partial was lost {1 + work.tries} times{work.lost}")
        except Exception as error:
            self._give_up([job], error)

    def _give_up(self, jobs: Sequence[Job], error: Exception) -> None:
        self._driver.give_up(jobs, self._round, error)

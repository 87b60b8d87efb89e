"""Partials that are added up on Dask's workers: each job's once, whatever is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("distributed", reason="distributed is not installed: pip install distcorpus[dask]")

from distcorpus.algorithms.partial import Partial
from distcorpus.engines import dasksums
from distcorpus.engines.dask import DaskEngine
from distcorpus.engines.dasksums import Held, Job, SumOnWorkers, add_up
from distcorpus.engines.dasktasks import JobError, Parcel, narrowed, widened
from distcorpus.engines.schedule import Hand

from .conftest import content, lsi
from .test_dask import lda, pids

NUM_TERMS, WIDTH = 12, 3

#: Whole numbers of steps: small, beyond int32, and at the edge of what is exact.
steps = st.integers(-5, 5) | st.sampled_from([2**31, -(2**40), 2**50])


@st.composite
def partials(draw: st.DrawFn) -> Partial:
    words = np.array(sorted(draw(st.sets(st.integers(0, NUM_TERMS - 1)))), np.int32)
    size = len(words) * WIDTH
    extras = {
        "documents": draw(st.integers(0, 9)),
        "steps": np.array(draw(st.lists(steps, min_size=2, max_size=2)), float),
    }
    if draw(st.booleans()):
        cells = draw(st.lists(st.integers(0, size - 1), max_size=9)) if size else []
        values = [draw(steps) for _ in cells]
        return Partial(words, np.array(values, np.float64), extras, np.array(cells, np.int32))
    values = draw(st.lists(steps, min_size=size, max_size=size))
    table = np.array(values, np.float64).reshape(len(words), WIDTH)
    fits = not table.size or np.abs(table).max() < 2**31
    return Partial(words, table.astype(np.int32) if fits and draw(st.booleans()) else table, extras)


@settings(deadline=None)  # the first one compiles
@given(st.lists(partials(), min_size=1, max_size=5))
def test_the_sum_is_that_of_all(parts: list[Partial]):
    wanted = np.zeros((NUM_TERMS, WIDTH))
    for part in parts:
        wanted[part.words] += part.table(WIDTH)
    found = widened(add_up(NUM_TERMS, WIDTH, *(Parcel(narrowed(part)) for part in parts)).content)
    table = np.zeros((NUM_TERMS, WIDTH))
    table[found.words] = found.table(WIDTH)
    assert np.array_equal(table, wanted)
    assert found.words.tolist() == sorted({int(word) for part in parts for word in part.words})
    assert found.extras["documents"] == sum(part.extras["documents"] for part in parts)
    assert np.array_equal(found.extras["steps"], sum(part.extras["steps"] for part in parts))


def test_a_sum_that_is_not_exact_any_more_is_an_error():
    part = Partial(np.array([0], np.int32), np.full((1, WIDTH), 2.0**52))
    with pytest.raises(OverflowError, match="no longer exact"):
        add_up(NUM_TERMS, WIDTH, Parcel(part), Parcel(part))


class Cluster:
    """A cluster in which things go wrong: what is on a worker are the numbers of the jobs in a sum."""

    def __init__(self, chance: random.Random, trouble: float) -> None:
        self.chance, self.trouble = chance, trouble
        self.names = itertools.count()
        self.workers = {next(self.names) for _ in range(3)}
        self.taken: list[int] = []
        self.fetches = 0
        self.failed: str | None = None
        self.total: SumOnWorkers | None = None
        self.idle = asyncio.Event()
        self._tasks: set[Any] = set()

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        return task

    def is_current(self, round_):
        return self.failed is None

    def is_queued(self, round_):
        return self.chance.random() < 0.3

    def is_there(self, worker):
        return worker in self.workers

    def least_busy(self):
        return self.chance.choice(sorted(self.workers)) if self.workers else None

    async def _work(self, worker):
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        if self.chance.random() < self.trouble:
            if self.chance.random() < 0.7:
                self.lose(worker)
                await asyncio.sleep(0)
            raise ConnectionError("it is lost")
        if worker not in self.workers:
            raise ConnectionError("it is gone")

    def lose(self, worker):
        if worker in self.workers:
            self.workers.remove(worker)
            self.workers.add(next(self.names))
            self.total.worker_gone(worker)

    async def compute(self, worker, job, round_):
        await self._work(worker)
        return SimpleNamespace(status="finished", worker=worker, jobs=[job.hand.lease])

    async def submit(self, worker, round_, function, num_terms, width, *futures):
        await self._work(worker)
        for future in futures:
            if future.worker not in self.workers:
                raise ConnectionError("a part is lost")
        jobs = [job for future in futures for job in future.jobs]
        return SimpleNamespace(status="finished", worker=worker, jobs=jobs)

    async def fetch(self, held):
        await self._work(held.worker)
        return held.future.jobs

    def take_in(self, held, round_, result):
        assert sorted(result) == sorted(job.hand.lease for job in held.jobs)
        self.fetches += 1
        self.taken += result

    def give_up(self, jobs, round_, error):
        self.failed = str(error)

    def look(self):
        pass

    def over(self, round_):
        self.idle.set()


async def summed_up(cluster: Cluster, number: int) -> None:
    round_ = SimpleNamespace(num_terms=1, total=SimpleNamespace(steps=np.zeros((1, 1))))
    cluster.total = total = SumOnWorkers(cluster, round_)

    async def job(lease: int) -> None:
        total.begin()
        worker = cluster.least_busy()
        held = None
        for _ in range(cluster.chance.randrange(20)):
            await asyncio.sleep(0)
        one = Job(Hand(lease, str(worker), "s", 1, (lease,), False), [])
        if cluster.is_there(worker):
            future = SimpleNamespace(status="finished", worker=worker, jobs=[lease])
            held = Held(future, worker, (one,))
        else:  # it is handed to another
            while held is None:
                worker = cluster.least_busy()
                try:
                    held = Held(await cluster.compute(worker, one, round_), worker, (one,))
                except ConnectionError:
                    continue
                if not cluster.is_there(worker):
                    held = None
        total.end(held)

    jobs = [asyncio.ensure_future(job(lease)) for lease in range(number)]
    await asyncio.gather(*jobs)
    while not cluster.failed and len(cluster.taken) < number:
        await asyncio.wait_for(cluster.idle.wait(), 30)
        cluster.idle.clear()


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([0.0, 0.05, 0.3]), st.integers(0, 2**32))
def test_each_job_is_in_the_sum_once(number: int, trouble: float, seed: int):
    before = dasksums.AGAIN_AFTER
    dasksums.AGAIN_AFTER = 0.0
    try:
        cluster = Cluster(random.Random(seed), trouble)
        asyncio.run(summed_up(cluster, number))
    finally:
        dasksums.AGAIN_AFTER = before
    assert cluster.failed is not None or sorted(cluster.taken) == list(range(number))
    assert trouble or cluster.failed is None


def test_of_many_partials_few_come_here():
    cluster = Cluster(random.Random(0), 0.0)
    cluster.is_queued = lambda round_: False
    asyncio.run(summed_up(cluster, 100))
    assert cluster.fetches <= 2


def test_an_error_of_a_sum_fails_the_round():
    cluster = Cluster(random.Random(0), 0.0)

    async def raising(*arguments):
        raise JobError("no longer exact")

    cluster.submit = raising
    asyncio.run(summed_up(cluster, 20))
    assert "no longer exact" in cluster.failed


# On a cluster

#: Trainings whose rounds have more than one job.
TRAIN = {"lda": partial(lda, update_every=0), "lsi": lsi}


@pytest.fixture(scope="module")
def expected(corpus, dictionary) -> dict[str, bytes]:
    """What threads come to."""
    return {name: content(train(corpus, dictionary)) for name, train in TRAIN.items()}


@pytest.fixture
def summing(monkeypatch):
    """Has the partials of two workers added up there; counts the jobs in what comes here."""
    monkeypatch.setattr(dasksums, "FROM_WORKERS", 0)
    monkeypatch.setattr(dasksums, "FAN_IN", 2)
    sums: list[int] = []
    real = DaskEngine._take_in

    def counted(engine, worker, hands, *rest):
        sums.append(len(hands))
        real(engine, worker, hands, *rest)

    monkeypatch.setattr(DaskEngine, "_take_in", counted)
    return sums


@pytest.mark.parametrize("model", TRAIN)
def test_the_bytes_are_those_of_threads(client, corpus, dictionary, expected, summing, model):
    assert content(TRAIN[model](corpus, dictionary, client=client)) == expected[model]
    assert max(summing) > 1


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("model", TRAIN)
def test_workers_are_killed(client, corpus, dictionary, expected, summing, model, number, monkeypatch):
    """While they have partials: one of them, or both."""
    running = list(pids(client).values())
    real = SumOnWorkers._added_up

    async def kill(total: SumOnWorkers, parts: list[Held]) -> Held:
        for pid in running[:number]:
            os.kill(pid, signal.SIGKILL)
        running.clear()
        return await real(total, parts)

    monkeypatch.setattr(SumOnWorkers, "_added_up", kill)
    assert content(TRAIN[model](corpus, dictionary, client=client)) == expected[model]
    assert not running


def test_a_failed_round_leaves_nothing(client, corpus, dictionary, summing, monkeypatch):
    """The next training of the same cluster is as ever; the fixture looks what is left on the workers."""
    real = SumOnWorkers._added_up
    sums = 0

    async def failing(total: SumOnWorkers, parts: list[Held]) -> Held:
        nonlocal sums
        sums += 1
        if sums == 3:
            raise JobError("no sum today")
        return await real(total, parts)

    monkeypatch.setattr(SumOnWorkers, "_added_up", failing)
    with pytest.raises(RuntimeError, match="no sum today"):
        lsi(corpus, dictionary, client=client)
    assert content(lsi(corpus, dictionary, client=client)) == content(lsi(corpus, dictionary))

"""Drive the dispatcher's schedule with any number of workers, in simulated time.

A discrete event simulation: the schedule is the very one that the dispatcher runs; the workers, their network
and their mishaps are drawn from a seeded random generator. See docs/simulation.md.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from distcorpus.engines.schedule import Decision, Drop, Fail, Finish, Hand, Schedule

TICK = 1.0  # seconds between the dispatcher's ticks
PING_DEADLINE = 5.0  # seconds until a stopped worker counts as silent
HEAPS = 0.55  # documents have so many words to this power (Heaps' law), measured from 500 to 10,000 of them

COLUMNS = [
    "workers",
    "rounds",
    "jobs",
    "blocks/job",
    "utilisation",
    "seconds",
    "makespan/ideal",
    "link",
    "lost",
    "requeued",
    "overtaken",
    "us/job",
]


@dataclass(slots=True, eq=False)
class Worker:
    """A simulated worker: computes one job after the other, each after its blocks have arrived."""

    name: str
    free_at: float = 0.0  # when it has computed all that it was given
    alive: bool = True
    stopped_until: float = 0.0
    busy: float = 0.0  # seconds it computed


@dataclass(slots=True)
class Outcome:
    """What one simulation came to."""

    workers: int
    rounds: int
    jobs: int
    blocks: int
    makespan: float
    ideal: float
    busy: float
    present: float
    link: float
    scheduler_seconds: float
    schedule: Schedule

    def row(self) -> tuple[str, ...]:
        stats = self.schedule.stats
        return (
            f"{self.workers:,}",
            f"{self.rounds:,}",
            f"{self.jobs:,}",
            f"{self.blocks / self.jobs:.1f}",
            f"{self.busy / self.present:.1%}",
            f"{self.makespan:,.0f}",
            f"{self.makespan / self.ideal:.2f}",
            f"{self.link:,.0f}",
            f"{stats.lost:,}",
            f"{stats.requeued:,}",
            f"{stats.overtaken:,}",
            f"{1e6 * self.scheduler_seconds / self.jobs:.0f}",
        )


@dataclass(slots=True)
class Simulation:
    """One training of several rounds on a number of workers."""

    options: argparse.Namespace
    n_workers: int
    random: random.Random = field(init=False)
    schedule: Schedule = field(init=False)
    scheduler_seconds: float = 0.0
    now: float = 0.0
    events: list[tuple[float, int, str, tuple[Any, ...]]] = field(default_factory=list)
    order: itertools.count[int] = field(default_factory=itertools.count)
    workers: dict[str, Worker] = field(default_factory=dict)
    names: itertools.count[int] = field(default_factory=itertools.count)
    link_free_at: float = 0.0
    link_busy: float = 0.0
    costs: list[float] = field(default_factory=list)
    rounds: int = 0
    rounds_done: int = 0
    busy: float = 0.0
    present: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.options.seed} {self.n_workers}")
        self.schedule = Schedule(overdue_after=2 * TICK)

    def run(self) -> Outcome:
        """Simulate until the last round is finished."""
        options = self.options
        self.costs = [self.spread() for _ in range(options.round_blocks or options.blocks * self.n_workers)]
        self.rounds = options.rounds
        if options.all_blocks:
            self.rounds = max(1, round(options.all_blocks / len(self.costs)))
        for _ in range(self.n_workers):
            self.join()
        self.after(TICK, "tick")
        if options.joins:
            self.after(self.random.expovariate(options.joins / 3600), "join_extra")
        self.tell("session_opened", "training")
        self.open_round()
        while self.rounds_done < self.rounds:
            self.now, _, event, arguments = heapq.heappop(self.events)
            getattr(self, event)(*arguments)
        for worker in self.workers.values():
            self.part(worker)
        work = sum(self.costs) * self.rounds * options.seconds
        jobs = self.schedule.stats.leases
        blocks = len(self.costs) * self.rounds + self.schedule.stats.requeued
        return Outcome(
            self.n_workers, self.rounds, jobs, blocks, self.now, work / self.n_workers, self.busy,
            self.present, self.link_busy, self.scheduler_seconds, self.schedule,
        )  # fmt: skip

    # The dispatcher

    def tell(self, event: str, *arguments: Any, **more: Any) -> Any:
        """Report an event to the schedule, take its time, and carry out what it decides."""
        began = time.thread_time()
        answer = getattr(self.schedule, event)(*arguments, self.now, **more)
        self.scheduler_seconds += time.thread_time() - began
        if isinstance(answer, list):
            self.carry_out(answer)
        return answer

    def carry_out(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Hand():
                    self.hand(decision)
                case Finish():
                    self.rounds_done += 1
                    if self.rounds_done < self.rounds:
                        self.after(self.options.between, "open_round")
                case Fail(error=error):
                    raise SystemExit(f"{self.n_workers} workers: the training failed: {error}")
                case Drop(worker=name):
                    self.workers.pop(name, None)

    def open_round(self) -> None:
        self.tell("round_opened", "training", self.rounds_done, least_job_cost=self.options.least)
        self.tell("blocks_added", "training", list(enumerate(self.costs)))
        self.tell("round_sealed", "training")

    def tick(self) -> None:
        self.tell("tick")
        self.after(TICK, "tick")

    def after(self, seconds: float, event: str, *arguments: Any) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.order), event, arguments))

    def spread(self) -> float:
        """A factor with mean one: log-normal, `--spread` its coefficient of variation."""
        variance = math.log1p(self.options.spread**2)
        return self.random.lognormvariate(-variance / 2, math.sqrt(variance))

    # Jobs

    def transfer(self, begin: float, blocks: int) -> float:
        """When what is sent at `begin` has arrived: the dispatcher's own link takes one at a time."""
        seconds = self.options.link * min(1.0, self.options.words * blocks**HEAPS)
        self.link_busy += seconds
        self.link_free_at = max(self.link_free_at, begin) + seconds
        return self.link_free_at + self.options.transfer

    def hand(self, hand: Hand) -> None:
        worker = self.workers[hand.worker]
        cost = sum(self.costs[block] for block in hand.blocks)
        seconds = cost * self.options.seconds * self.spread()
        arrives = self.transfer(self.now, len(hand.blocks))
        begin = max(arrives, worker.free_at, worker.stopped_until)
        worker.free_at = begin + seconds
        self.after(worker.free_at - self.now, "computed", worker, hand.lease, seconds, len(hand.blocks))

    def computed(self, worker: Worker, lease: int, seconds: float, blocks: int) -> None:
        if worker.stopped_until > self.now:
            self.after(worker.stopped_until - self.now, "computed", worker, lease, seconds, blocks)
        elif worker.alive:
            worker.busy += seconds
            self.after(self.transfer(self.now, blocks) - self.now, "arrived", lease)

    def arrived(self, lease: int) -> None:
        self.tell("summed" if self.tell("delivered", lease) else "discarded", lease)

    # Workers

    def join(self) -> None:
        worker = Worker(f"worker {next(self.names)}")
        self.workers[worker.name] = worker
        self.present -= self.now
        for rate, event in ((self.options.failures, "die"), (self.options.stalls, "stop")):
            if rate:
                self.after(self.random.expovariate(rate / 3600), event, worker)
        self.tell("worker_joined", worker.name)

    def join_extra(self) -> None:
        self.join()
        self.after(self.random.expovariate(self.options.joins / 3600), "join_extra")

    def part(self, worker: Worker) -> None:
        """Its time on the cluster is over."""
        self.present += self.now
        self.busy += worker.busy

    def die(self, worker: Worker) -> None:
        """A worker is killed, which is seen at once; another takes its place after a while."""
        worker.alive = False
        self.part(worker)
        self.tell("worker_lost", worker.name, "killed")
        self.after(self.options.replace, "join")

    def stop(self, worker: Worker) -> None:
        """A worker stops for a while, which is seen when it misses a ping."""
        if worker.alive:
            duration = self.random.expovariate(1 / self.options.stall_seconds)
            worker.stopped_until = self.now + duration
            worker.free_at = max(worker.free_at, self.now) + duration
            if duration > PING_DEADLINE:
                self.after(PING_DEADLINE, "fall_silent", worker)
            self.after(duration, "wake", worker)

    def fall_silent(self, worker: Worker) -> None:
        self.tell("worker_silent", worker.name)

    def wake(self, worker: Worker) -> None:
        self.tell("worker_answered", worker.name)
        if worker.alive:
            self.after(self.random.expovariate(self.options.stalls / 3600), "stop", worker)


def table(rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """The lines of a Markdown table, one by one as the rows come."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "|".join("-" * (len(column) + 1) + ":" for column in COLUMNS) + "|"
    for row in rows:
        yield (
            "| "
            + " | ".join(cell.rjust(len(column)) for cell, column in zip(row, COLUMNS, strict=True))
            + " |"
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__, formatter_class=show_defaults)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[1, 10, 100, 1_000, 10_000], help="one simulation for each")
    add("--blocks", type=int, default=40, help="blocks a worker in each round")
    add("--round-blocks", type=int, help="blocks in each round, instead of so many a worker")
    add("--rounds", type=int, default=2, help="rounds, one after the other")
    add("--all-blocks", type=int, help="blocks of all rounds together, instead of their number")
    add("--least", type=float, default=0.0, help="blocks that a job has at least, where there are as many")
    add("--between", type=float, default=0.0, help="seconds between two rounds")
    add("--seconds", type=float, default=1.0, help="mean time to compute a block")
    add("--spread", type=float, default=0.3, help="coefficient of variation of costs and of times")
    add("--transfer", type=float, default=0.1, help="seconds a job and a result travel")
    add("--link", type=float, default=0.0, help="seconds the whole table occupies the dispatcher's link")
    add("--words", type=float, default=1.0, help="part of the table that a job of one block needs")
    add("--failures", type=float, default=2.0, help="kills, for each worker and hour")
    add("--replace", type=float, default=10.0, help="seconds until another worker takes a killed one's place")
    add("--stalls", type=float, default=2.0, help="stops (SIGSTOP), for each worker and hour")
    add("--stall-seconds", type=float, default=10.0, help="mean duration of a stop")
    add("--joins", type=float, default=0.0, help="workers that join besides, an hour")
    add("--seed", type=int, default=1, help="of the random generator")
    return parser


def main() -> None:
    """Print one row for each number of workers."""
    options = parser().parse_args()
    gc.disable()  # looking through the simulator's own millions of objects is no cost of the schedule
    for line in table(Simulation(options, workers).run().row() for workers in options.workers):
        print(line, flush=True)


if __name__ == "__main__":
    main()

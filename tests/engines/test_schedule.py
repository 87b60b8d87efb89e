"""The schedule: random histories against a model of each lease, then its policies one by one."""

from __future__ import annotations

import gc
import math
import random
import subprocess
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distcorpus.engines import schedule as module
from distcorpus.engines.schedule import (
    Attempt,
    Cancel,
    Decision,
    Drop,
    Fail,
    Failure,
    Finish,
    Hand,
    Schedule,
)

SLOTS = 2
ATTEMPTS = 3


def hands(decisions: Iterable[Decision]) -> list[Hand]:
    return [decision for decision in decisions if isinstance(decision, Hand)]


def kept(schedule: Schedule) -> Counter[str]:
    """Count the objects of the schedule's own classes, and tuples, that it refers to, however indirectly."""
    own = tuple(
        getattr(module, name) for name in ("_Block", "_Job", "_Lease", "_Round", "_Session", "_Worker")
    )
    containers = (Schedule, *own, module._Queue, dict, OrderedDict, list, tuple, set, deque)
    seen: set[int] = set()
    counts: Counter[str] = Counter()
    stack: list[object] = [schedule]
    while stack:
        thing = stack.pop()
        if id(thing) in seen or not isinstance(thing, containers):
            continue
        seen.add(id(thing))
        if isinstance(thing, (*own, tuple)):
            counts[type(thing).__name__] += 1
        stack.extend(gc.get_referents(thing))
    return counts


# Random histories


@dataclass
class Worker:
    name: str
    silent: bool = False
    leaving: bool = False
    held: dict[int, Leased] = field(default_factory=dict, repr=False)

    @property
    def available(self) -> bool:
        return not (self.silent or self.leaving)


@dataclass
class Leased:
    hand: Hand
    worker: Worker = field(repr=False)
    round: Round = field(repr=False)
    alone: bool = False  # handed out to be the only thing on its worker
    trusted: bool = True  # its worker was never silent since
    claimed: bool = False
    cancelled: bool = False
    overtaken: bool = False  # cancelled, as a second copy was faster
    over: bool = False

    @property
    def undone(self) -> list[int]:
        return [block for block in self.hand.blocks if block not in self.round.claimed]


@dataclass
class Round:
    session: str
    number: int
    open: bool = True
    sealed: bool = False
    blocks: dict[int, float] = field(default_factory=dict)
    claimed: set[int] = field(default_factory=set)
    sum: Counter[int] = field(default_factory=Counter)
    raised: dict[int, list[str]] = field(default_factory=dict)
    perhaps: dict[int, list[str]] = field(
        default_factory=dict
    )  # raised after its worker was silent: may count
    suspected: Counter[int] = field(default_factory=Counter)


class Histories(RuleBasedStateMachine):
    """Workers that deliver late, twice, never, or after they were thought dead; clients that come and go."""

    @initialize(timeout=st.sampled_from([None, 20.0]), biggest=st.sampled_from([math.inf, 6.0]))
    def begin(self, timeout: float | None, biggest: float) -> None:
        self.schedule = Schedule(
            slots=SLOTS, attempts=ATTEMPTS, max_job_cost=biggest, overdue_after=1.0, worker_timeout=timeout
        )
        self.timeout = timeout
        self.biggest = biggest
        self.now = 0.0
        self.names = 0
        self.workers: dict[str, Worker] = {}
        self.rounds: dict[str, Round | None] = {}
        self.leases: dict[int, Leased] = {}
        self.deserted_since = 0.0
        self.copied: set[int] = set()  # the blocks of a second copy whose result is being reported
        for threads in (1, 1, 2):
            self.join(threads)
        self.open_session("a")

    # What the driver would do

    def carry_out(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Hand():
                    self.handed(decision)
                case Cancel(lease, worker):
                    cancelled = self.leases[lease]
                    assert cancelled.worker.name == worker
                    assert not any([cancelled.over, cancelled.claimed, cancelled.cancelled])
                    cancelled.cancelled = True
                    cancelled.overtaken = not self.copied.isdisjoint(cancelled.hand.blocks)
                case Finish(session, number):
                    finished = self.rounds[session]
                    assert finished
                    assert finished.number == number
                    assert finished.sealed
                    assert finished.sum == Counter(list(finished.blocks))
                    self.close(finished)
                case Fail(session, number, error):
                    failed = self.rounds[session]
                    assert failed
                    assert failed.number == number
                    self.deserved(failed, error)
                    self.close(failed)
                case Drop(name):
                    if name in self.workers:
                        leaver = self.workers.pop(name)
                        assert leaver.leaving
                        assert not leaver.held

    def handed(self, hand: Hand) -> None:
        worker = self.workers[hand.worker]
        round = self.rounds[hand.session]
        assert round
        assert round.number == hand.round
        assert worker.available
        assert len(worker.held) < SLOTS
        assert not any(lease.alone or lease.overtaken for lease in worker.held.values())
        assert len(set(hand.blocks)) == len(hand.blocks)
        assert set(hand.blocks) <= set(round.blocks) - round.claimed
        assert len(hand.blocks) == 1 or sum(round.blocks[block] for block in hand.blocks) <= self.biggest
        counted_on = [
            lease
            for lease in self.leases.values()
            if lease.round is round
            and not lease.over
            and lease.trusted
            and {*lease.hand.blocks} & {*hand.blocks}
        ]
        if hand.copy:
            assert round.sealed
            assert not worker.held
            assert [lease.hand.blocks for lease in counted_on] in ([hand.blocks], [])
        else:
            assert not counted_on
        suspect = any(round.suspected[block] for block in hand.blocks)
        raised_on = {name for block in hand.blocks for name in round.raised.get(block, ())}
        if raised_on:
            assert len(hand.blocks) == 1
            perhaps = {name for block in hand.blocks for name in round.perhaps.get(block, ())}
            others = {other.name for other in self.workers.values() if other.available} - raised_on - perhaps
            assert worker.name not in raised_on or not others
        if suspect and not hand.copy:
            assert len(hand.blocks) == 1
            assert not worker.held
        alone = suspect and len(hand.blocks) == 1
        self.leases[hand.lease] = worker.held[hand.lease] = Leased(hand, worker, round, alone)

    def deserved(self, round: Round, error: Failure) -> None:
        match error.kind:
            case "exception":
                assert error.blocks
                for block in error.blocks:
                    raised = round.raised.get(block, []) + round.perhaps.get(block, [])
                    assert len(raised) >= ATTEMPTS
                    named = Counter(
                        attempt.worker for attempt in error.attempts if attempt.reason == "raised"
                    )
                    assert named <= Counter(raised)
                    assert named.total() >= ATTEMPTS
            case "poison":
                assert error.blocks
                assert all(round.suspected[block] >= ATTEMPTS for block in error.blocks)
                assert Counter(attempt.reason for attempt in error.attempts)["lost"] >= ATTEMPTS
            case "no_workers":
                assert self.timeout is not None
                assert not any(worker.available for worker in self.workers.values())
                assert self.now - self.deserted_since >= self.timeout

    def close(self, round: Round) -> None:
        round.open = False
        self.rounds[round.session] = None

    def end(self, lease: Leased) -> None:
        lease.over = True
        lease.worker.held.pop(lease.hand.lease, None)

    def watch_workers(self, before: bool) -> None:
        """Note when the last available worker went."""
        if before and not any(worker.available for worker in self.workers.values()):
            self.deserted_since = self.now

    @property
    def any_available(self) -> bool:
        return any(worker.available for worker in self.workers.values())

    # Events: workers

    @rule(threads=st.integers(1, 3))
    def join(self, threads: int) -> None:
        if len(self.workers) < 6:
            name = f"w{self.names % 8}"
            self.names += 1
            if name not in self.workers:
                self.workers[name] = Worker(name)
                self.carry_out(self.schedule.worker_joined(name, self.now, threads))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), what=st.sampled_from(["lost", "lost", "expelled", "silent", "leaving"]))
    def meet_with_mishap(self, data: st.DataObject, what: str) -> None:
        before = self.any_available
        worker = self.workers[data.draw(st.sampled_from(sorted(self.workers)))]
        match what:
            case "lost":
                self.lose(worker)
            case "expelled":
                self.lose(worker, suspect=False)
            case "silent":
                worker.silent = True
                for lease in worker.held.values():
                    lease.trusted = False
                self.watch_workers(before)
                self.carry_out(self.schedule.worker_silent(worker.name, self.now))
            case "leaving":
                worker.leaving = True
                self.watch_workers(before)
                self.carry_out(self.schedule.worker_leaving(worker.name, self.now))
                assert (worker.name in self.schedule._workers) == bool(worker.held)

    def lose(self, worker: Worker, suspect: bool = True) -> None:
        before = self.any_available
        del self.workers[worker.name]
        alone = len(worker.held) == 1
        for lease in list(worker.held.values()):
            if not lease.claimed:
                self.end(lease)
                if lease.round.open:
                    for block in lease.undone:
                        if suspect and (
                            not lease.round.suspected[block] or (alone and len(lease.hand.blocks) == 1)
                        ):
                            lease.round.suspected[block] += 1
        self.watch_workers(before)
        event, reason = ("worker_lost", "lost") if suspect else ("worker_expelled", "it lied")
        decisions = getattr(self.schedule, event)(worker.name, reason, self.now)
        assert decisions[0] == Drop(worker.name, reason)
        self.carry_out(decisions)

    @precondition(lambda self: any(worker.silent for worker in self.workers.values()))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        silent = sorted(worker.name for worker in self.workers.values() if worker.silent)
        worker = self.workers[data.draw(st.sampled_from(silent))]
        worker.silent = False
        self.carry_out(self.schedule.worker_answered(worker.name, self.now))

    # Events: sessions

    @rule(session=st.sampled_from("abc"))
    def open_session(self, session: str) -> None:
        if session not in self.rounds:
            self.rounds[session] = None
            self.carry_out(self.schedule.session_opened(session, self.now))
            self.open_round(session)
            self.add_blocks(session, [1.0, 1.0, 3.0, 0.5, 1.0, 1.0, 2.0, 1.0])

    @rule(session=st.sampled_from("abc"), luck=st.integers(0, 3))
    def close_session(self, session: str, luck: int) -> None:
        if session in self.rounds and luck == 0:
            self.shut(session)

    def shut(self, session: str) -> None:
        round = self.rounds.pop(session)
        if round:
            round.open = False
        self.carry_out(self.schedule.session_closed(session, self.now))
        self.carry_out(self.schedule.round_sealed(session, self.now))

    @rule(session=st.sampled_from("abc"), luck=st.integers(0, 3))
    def next_round(self, session: str, luck: int) -> None:
        if session in self.rounds and (self.rounds[session] is None or luck == 0):
            self.open_round(session)
            self.add_blocks(session, [1.0] * 12)

    @rule(session=st.sampled_from("abc"), luck=st.integers(0, 3))
    def give_up_round(self, session: str, luck: int) -> None:
        round = self.rounds.get(session)
        if round and luck == 0:
            self.carry_out(self.schedule.round_given_up(session, round.number + 1, self.now))
            assert round.open
            round.open = False
            self.rounds[session] = None
            self.carry_out(self.schedule.round_given_up(session, round.number, self.now))

    def open_round(self, session: str) -> None:
        former = self.rounds[session]
        if former:
            former.open = False
        self.names += 1
        self.rounds[session] = Round(session, self.names)
        self.carry_out(self.schedule.round_opened(session, self.names, self.now))

    @rule(session=st.sampled_from("abc"), costs=st.lists(st.floats(0.1, 5), min_size=1, max_size=12))
    def add_blocks(self, session: str, costs: list[float]) -> None:
        round = self.rounds.get(session)
        if round and not round.sealed:
            first = len(round.blocks)  # the same numbers in every round of a session
            new = [(first + i, cost) for i, cost in enumerate(costs)]
            round.blocks.update(new)
            self.carry_out(self.schedule.blocks_added(session, new, self.now))

    @rule(session=st.sampled_from("abc"))
    def seal(self, session: str) -> None:
        round = self.rounds.get(session)
        if round and not round.sealed:
            round.sealed = True
            self.carry_out(self.schedule.round_sealed(session, self.now))

    # Events: leases

    def some_lease(self, data: st.DataObject) -> Leased:
        """Draw an outstanding lease, or one of those that are over."""
        outstanding = [lease for lease in self.leases.values() if not lease.over]
        recent = list(self.leases.values())[-20:]
        return data.draw(st.sampled_from(data.draw(st.sampled_from([outstanding or recent, recent]))))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), at_once=st.booleans(), seconds=st.sampled_from([0.0, 0.1, 1.0]))
    def deliver(self, data: st.DataObject, at_once: bool, seconds: float) -> None:
        self.now += seconds
        self.arrive(self.some_lease(data), at_once)

    def arrive(self, lease: Leased, at_once: bool) -> None:
        hand, round = lease.hand, lease.round
        wanted = not lease.over and not lease.claimed and round.open and not round.claimed & {*hand.blocks}
        assert self.schedule.delivered(hand.lease, self.now) == wanted
        if wanted:
            lease.claimed = True
            round.claimed.update(hand.blocks)
            if at_once:
                self.add_to_sum(lease)
        else:
            if not lease.claimed:
                self.end(lease)
            self.carry_out(self.schedule.discarded(hand.lease, self.now))

    def add_to_sum(self, lease: Leased) -> None:
        lease.round.sum.update(lease.hand.blocks)
        self.end(lease)
        self.copied = set(lease.hand.blocks) if lease.hand.copy else set()
        self.carry_out(self.schedule.summed(lease.hand.lease, self.now))
        self.copied = set()

    @property
    def adding(self) -> list[Leased]:
        return [lease for lease in self.leases.values() if lease.claimed and not lease.over]

    @precondition(lambda self: self.adding)
    @rule(data=st.data())
    def finish_adding(self, data: st.DataObject) -> None:
        self.add_to_sum(data.draw(st.sampled_from(self.adding)))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        lease = self.some_lease(data)
        if not lease.claimed:
            if not lease.over and lease.round.open and not lease.round.claimed & {*lease.hand.blocks}:
                raised = lease.round.raised if lease.trusted else lease.round.perhaps
                for block in lease.hand.blocks:
                    raised.setdefault(block, []).append(lease.worker.name)
            self.end(lease)
            self.carry_out(self.schedule.failed(lease.hand.lease, "raised", self.now))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        before = self.any_available
        lease = self.some_lease(data)
        if not lease.claimed:
            if not lease.over and lease.round.open and not lease.round.claimed & {*lease.hand.blocks}:
                lease.worker.leaving = True
            self.end(lease)
            self.watch_workers(before)
            self.carry_out(self.schedule.handed_back(lease.hand.lease, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.schedule.tick(self.now))

    # What must hold at any time

    @invariant()
    def idle_workers_are_known(self) -> None:
        idle = {worker.name for worker in self.workers.values() if worker.available and not worker.held}
        assert {worker.name for worker in self.schedule._free[0]} == idle
        assert set(self.schedule._workers) == set(self.workers)

    @invariant()
    def nothing_waits_that_an_idle_worker_could_compute(self) -> None:
        idle = {worker.name for worker in self.schedule._free[0]}
        if idle:
            for session, round in self.rounds.items():
                if round:
                    raised_on_all = [
                        block
                        for block in set(round.blocks) - round.claimed
                        if idle <= {*round.raised.get(block, ()), *round.perhaps.get(block, ())}
                    ]
                    assert self.schedule.pending(session) <= len(raised_on_all)

    @invariant()
    def every_block_is_queued_or_leased(self) -> None:
        for session, round in self.rounds.items():
            if round is None:
                assert self.schedule.pending(session) == self.schedule.outstanding(session) == 0
                continue
            pending = self.schedule.pending(session)
            assert pending + self.schedule.outstanding(session) == len(round.blocks) - len(round.sum)
            leased: set[int] = set()
            trusted: set[int] = set()
            for lease in self.leases.values():
                if lease.round is round and not lease.over and not lease.claimed:
                    leased.update(lease.hand.blocks)
                    if lease.trusted:
                        trusted.update(lease.hand.blocks)
            unclaimed = set(round.blocks) - round.claimed
            assert len(unclaimed - leased) <= pending <= len(unclaimed - trusted)

    @invariant()
    def who_waits_is_known(self) -> None:
        waiting = dict(self.schedule.waiting(self.now))
        if self.any_available:
            assert not waiting
        else:
            assert set(waiting) == {session for session in self.rounds if self.schedule.pending(session)}
            assert all(self.deserted_since <= since <= self.now for since in waiting.values())

    @invariant()
    def nothing_is_kept_of_what_is_over(self) -> None:
        counts = kept(self.schedule)
        outstanding = [lease for lease in self.leases.values() if not lease.over]
        blocks = sum(len(round.blocks) for round in self.rounds.values() if round)
        assert counts["_Lease"] == len(outstanding)
        assert counts["_Round"] <= sum(round is not None for round in self.rounds.values()) + len(outstanding)
        assert counts["_Session"] <= len(self.rounds) + len(outstanding)
        assert counts["_Block"] <= blocks + sum(len(lease.hand.blocks) for lease in outstanding)

    def teardown(self) -> None:
        """Every round is finished once its workers behave, and nothing is kept when all have gone."""
        if not hasattr(self, "schedule"):
            return
        for round in list(self.rounds.values()):
            if round and not round.sealed:
                round.sealed = True
                self.carry_out(self.schedule.round_sealed(round.session, self.now))
        for worker in list(self.workers.values()):
            worker.silent = False
            self.carry_out(self.schedule.worker_answered(worker.name, self.now))
        for name in ("extra 1", "extra 2"):
            self.workers[name] = Worker(name)
            self.carry_out(self.schedule.worker_joined(name, self.now))
        while outstanding := [lease for lease in self.leases.values() if not lease.over]:
            for lease in outstanding:
                if lease.claimed:
                    self.add_to_sum(lease)
                elif not lease.over:
                    self.arrive(lease, True)
        assert not any(self.rounds.values())
        for session in list(self.rounds):
            self.shut(session)
        for name in list(self.workers):
            del self.workers[name]
            self.carry_out(self.schedule.worker_lost(name, "the end", self.now))
        assert not kept(self.schedule) - Counter(tuple=1)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)


@pytest.mark.long
class TestManyHistories(Histories.TestCase):
    settings = settings(max_examples=400, stateful_step_count=50, deadline=None)


# One policy after the other


class Play:
    """A schedule and what was decided, for a test that tells what happens step by step."""

    def __init__(self, workers: int = 0, **options: float) -> None:
        self.schedule = Schedule(**options)  # type: ignore[arg-type]
        self.now = 0.0
        self.out: dict[int, Hand] = {}  # handed out, and nothing came of it yet
        self.told: list[Decision] = []  # the other decisions
        self.computed_by: dict[int, str] = {}
        for i in range(workers):
            self.tell("worker_joined", f"w{i}")

    def tell(self, event: str, *arguments: object, **more: int) -> list[Decision]:
        decisions: list[Decision] = getattr(self.schedule, event)(*arguments, self.now, **more)
        for decision in decisions:
            if isinstance(decision, Hand):
                self.out[decision.lease] = decision
            else:
                self.told.append(decision)
        return decisions

    def round(self, session: str, number: int, blocks: Iterable[int] | dict[int, float]) -> None:
        """Open a round (and the session before its first), with all its blocks, and seal it."""
        if number == 0:
            self.tell("session_opened", session)
        self.tell("round_opened", session, number)
        costs = blocks if isinstance(blocks, dict) else dict.fromkeys(blocks, 1.0)
        self.tell("blocks_added", session, costs.items())
        self.tell("round_sealed", session)

    def at(self, worker: str) -> list[Hand]:
        return [hand for hand in self.out.values() if hand.worker == worker]

    def complete(self, hand: Hand) -> bool:
        """The worker's result arrives and is dealt with."""
        del self.out[hand.lease]
        accepted = self.schedule.delivered(hand.lease, self.now)
        if accepted:
            self.computed_by.update(dict.fromkeys(hand.blocks, hand.worker))
        self.tell("summed" if accepted else "discarded", hand.lease)
        return accepted

    def fail(self, hand: Hand, reason: str = "raised") -> None:
        del self.out[hand.lease]
        self.tell("failed", hand.lease, reason)

    def lose(self, worker: str) -> None:
        self.out = {lease: hand for lease, hand in self.out.items() if hand.worker != worker}
        self.tell("worker_lost", worker, "killed")

    def work(self, seconds: Callable[[Hand], float] = lambda hand: 1.0) -> list[Hand]:
        """Complete all that is handed out, one after the other, until nothing is."""
        done = []
        while self.out:
            hand = next(iter(self.out.values()))
            self.now += seconds(hand)
            if self.complete(hand):
                done.append(hand)
        return done

    @property
    def failures(self) -> list[Fail]:
        return [decision for decision in self.told if isinstance(decision, Fail)]


def blocks_of(decisions: Iterable[Decision]) -> list[int]:
    return sorted(block for hand in hands(decisions) for block in hand.blocks)


def test_first_slots_are_filled_before_second_ones() -> None:
    play = Play(workers=5)
    play.tell("session_opened", "a")
    play.tell("round_opened", "a", 0)
    order = [hands(play.tell("blocks_added", "a", [(block, 1.0)]))[0].worker for block in range(10)]
    assert len(set(order[:5])) == len(set(order[5:])) == 5
    assert not hands(play.tell("blocks_added", "a", [(10, 1.0)]))


def test_what_is_queued_is_handed_out_before_the_round_is_sealed() -> None:
    play = Play(workers=1)
    play.tell("session_opened", "a")
    play.tell("round_opened", "a", 0)
    assert blocks_of(play.tell("blocks_added", "a", [(7, 1.0)])) == [7]
    play.work()
    assert not play.told
    assert play.tell("round_sealed", "a") == [Finish("a", 0)]


def test_an_empty_round_is_finished_when_it_is_sealed() -> None:
    play = Play()
    play.round("a", 0, [])
    assert play.told == [Finish("a", 0)]


def test_jobs_are_few_and_get_smaller_towards_the_end() -> None:
    play = Play(workers=4)
    play.round("a", 0, range(1000))
    sizes = [len(hand.blocks) for hand in play.work()]
    assert sum(sizes) == 1000
    assert sizes[0] == 1000 // (2 * 2 * 4)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert len(sizes) < 100


def test_a_job_has_a_block_for_each_thread_and_a_bounded_cost() -> None:
    play = Play(max_job_cost=6.0)
    play.tell("worker_joined", "many", threads=4)
    play.round("a", 0, range(10))
    assert [len(hand.blocks) for hand in play.out.values()] == [4, 4]
    play = Play(workers=1, max_job_cost=6.0)
    play.round("a", 0, {0: 50.0, **dict.fromkeys(range(1, 100), 1.0)})
    assert [hand.blocks for hand in play.out.values()] == [(0,), (1, 2, 3, 4, 5, 6)]


def test_a_worker_with_more_threads_gets_more() -> None:
    play = Play()
    play.tell("worker_joined", "one", threads=1)
    play.tell("worker_joined", "three", threads=3)
    play.round("a", 0, range(320))
    assert [len(play.at(name)[0].blocks) for name in ("one", "three")] == [20, 56]


@pytest.mark.parametrize("costs", [(0.9, 1.0, 1.1, 1.0), (1.1, 1.0, 0.9, 1.0)])
def test_a_job_that_must_be_large_is_as_near_to_its_share_as_blocks_allow(costs: tuple[float, ...]) -> None:
    """The first two blocks are a little less than half of all, or a little more."""
    schedule = Schedule(slots=SLOTS)
    for worker in "AB":
        schedule.worker_joined(worker, 0.0)
    schedule.session_opened("a", 0.0)
    schedule.round_opened("a", 1, 0.0, least_job_cost=100.0)
    handed = hands(schedule.blocks_added("a", enumerate(costs), 0.0))
    assert [hand.blocks for hand in handed] == [(0, 1), (2, 3)]


def test_blocks_go_to_the_worker_that_holds_them() -> None:
    play = Play(workers=8)
    play.round("a", 0, range(400))
    first = {block: hand.worker for hand in play.work() for block in hand.blocks}
    play.round("a", 1, range(400))
    again = {block: hand.worker for hand in play.work() for block in hand.blocks}
    assert sum(first[block] == again[block] for block in range(400)) > 360


def test_blocks_go_to_the_worker_that_has_their_documents() -> None:
    """Before it, or any other, has computed them; one that is not there holds nothing."""
    schedule = Schedule(slots=SLOTS)
    for worker in "AB":
        schedule.worker_joined(worker, 0.0)
    schedule.session_opened("a", 0.0)
    schedule.round_opened("a", 1, 0.0, least_job_cost=2.0)
    holders = {0: "B", 1: "A", 2: "B", 3: "A"}
    handed = hands(schedule.blocks_added("a", [(number, 1.0) for number in range(4)], 0.0, holders))
    assert {block: hand.worker for hand in handed for block in hand.blocks} == holders
    schedule.round_opened("a", 2, 0.0)
    handed = hands(schedule.blocks_added("a", [(0, 1.0)], 0.0, {0: "gone"}))
    assert [hand.blocks for hand in handed] == [(0,)]


def test_a_holder_is_served_before_another_idle_worker() -> None:
    play = Play(workers=1)
    play.round("a", 0, [0])
    play.tell("worker_joined", "w1")
    play.work()
    assert [worker.name for worker in play.schedule._free[0]] == ["w1", "w0"]
    play.round("a", 1, [0])
    assert blocks_of(play.at("w0")) == [0]


def held_unequally(one_by_one: bool, size: int) -> Play:
    """The first worker holds more blocks than the second; they take one after the other."""
    play = Play(workers=2, slots=1, max_job_cost=1.0)
    play.round("a", 0, range(size + size // 2))
    for _ in range(size // 2):
        play.complete(play.at("w0")[0])
        play.complete(play.at("w1")[0])
    while play.at("w0"):
        play.complete(play.at("w0")[0])
    play.work()
    if one_by_one:
        play.tell("round_opened", "a", 1)
        for block in range(size + size // 2):
            play.tell("blocks_added", "a", [(block, 1.0)])
        play.tell("round_sealed", "a")
    else:
        play.round("a", 1, range(size + size // 2))
    return play


def test_blocks_are_taken_from_the_worker_with_the_most_left() -> None:
    play = held_unequally(one_by_one=False, size=8)
    assert Counter(play.computed_by.values()) == {"w0": 7, "w1": 5}
    for _ in range(4):
        play.complete(play.at("w0")[0])
    play.tell(
        "worker_joined", "thief"
    )  # two of the first worker's seven are left, and four of the other's five
    (stolen,) = play.at("thief")
    assert play.computed_by[stolen.blocks[0]] == "w1"


def test_a_small_session_is_not_starved_by_a_huge_one() -> None:
    play = Play(workers=2)
    play.round("huge", 0, range(10_000))
    play.round("small", 0, range(4))
    for _ in range(20):
        play.complete(next(iter(play.out.values())))
    assert Finish("small", 0) in play.told


@given(
    costs=st.lists(st.lists(st.floats(0.5, 20), min_size=150, max_size=200), min_size=2, max_size=4),
    workers=st.integers(1, 5),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
@pytest.mark.long
def test_sessions_are_served_the_same_cost_while_they_have_work(
    costs: list[list[float]], workers: int, order: random.Random
) -> None:
    play = Play(max_job_cost=30.0)
    for name, session in enumerate(costs):
        play.round(str(name), 0, dict(enumerate(session)))
    for worker in range(workers):
        play.tell("worker_joined", f"w{worker}")
    served = [0.0] * len(costs)
    seen: set[int] = set()
    while all(play.schedule.pending(str(name)) for name in range(len(costs))):
        for hand in play.out.values():
            if hand.lease not in seen:
                seen.add(hand.lease)
                served[int(hand.session)] += sum(costs[int(hand.session)][block] for block in hand.blocks)
        assert max(served) - min(served) <= 2 * 30.0
        play.complete(order.choice(list(play.out.values())))


def test_a_session_that_was_idle_has_saved_nothing_up() -> None:
    play = Play(workers=1, max_job_cost=1.0)
    play.round("idle", 0, [0])
    play.work()
    play.round("busy", 0, range(1000))
    for _ in range(100):
        play.complete(next(iter(play.out.values())))
    play.round("idle", 1, range(1000))
    following = Counter(play_next(play) for _ in range(40))
    assert abs(following["idle"] - following["busy"]) <= 3


def play_next(play: Play) -> str:
    hand = next(iter(play.out.values()))
    play.complete(hand)
    return hand.session


@given(
    poison=st.integers(0, 59),
    workers=st.integers(1, 8),
    threads=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_a_poison_block_kills_three_workers_and_is_named(
    poison: int, workers: int, threads: int, order: random.Random
) -> None:
    play = Play()
    for i in range(workers):
        play.tell("worker_joined", f"w{i}", threads=threads)
    play.round("poisoned", 0, range(60))
    play.round("other", 0, range(60))
    killed = []
    while play.out:
        hand = play.at(order.choice(list(play.out.values())).worker)[0]
        if hand.session == "poisoned" and poison in hand.blocks:
            killed.append(hand.worker)
            play.lose(hand.worker)
            play.tell("worker_joined", f"after {hand.worker}", threads=threads)
        else:
            play.complete(hand)
    attempts = tuple(Attempt(name, "killed") for name in killed)
    assert len(killed) == 3
    assert play.failures == [Fail("poisoned", 0, Failure("poison", (poison,), attempts))]
    assert Finish("other", 0) in play.told


def test_innocent_blocks_are_not_blamed_for_losses_they_share() -> None:
    play = Play(workers=3)
    play.round("a", 0, range(100))
    losses = 0
    while play.out:
        shared = [hand for hand in play.out.values() if len(hand.blocks) > 1]
        if shared and losses < 50:
            losses += 1
            play.lose(shared[0].worker)
            play.tell("worker_joined", f"after {losses}")
        else:
            play.complete(next(iter(play.out.values())))
    assert losses >= 10
    assert not play.failures
    assert play.told[-1] == Finish("a", 0)


def test_of_the_losses_that_blocks_share_only_the_first_counts() -> None:
    play = Play(workers=2, slots=1)
    play.round("a", 0, range(8))
    suspects = play.at("w0")[0].blocks
    assert len(suspects) == 2
    play.tell("worker_silent", "w0")
    play.complete(play.at("w1")[0])
    assert play.at("w1")[0].blocks == suspects
    play.lose("w0")
    play.lose("w1")
    play.tell("worker_joined", "w2")
    assert play.at("w2")[0].blocks == suspects[:1]
    play.lose("w2")
    assert not play.failures
    play.tell("worker_joined", "w3")
    play.work()
    assert play.told[-1] == Finish("a", 0)


def test_a_suspect_is_alone_on_its_worker() -> None:
    play = Play(workers=3)
    play.round("a", 0, range(100))
    suspects = {block for hand in play.at("w0") for block in hand.blocks}
    play.lose("w0")
    met: set[int] = set()
    while play.out:
        hand = next(iter(play.out.values()))
        if suspects & {*hand.blocks}:
            assert len(hand.blocks) == 1
            assert play.at(hand.worker) == [hand]
            met.update(hand.blocks)
        play.complete(hand)
    assert met == suspects
    assert play.told[-1] == Finish("a", 0)


def test_a_worker_is_emptied_for_a_suspect_only_while_one_waits() -> None:
    play = Play(workers=4, max_job_cost=1.0)
    play.round("a", 0, range(100))
    suspects = blocks_of(play.at("w0"))
    play.lose("w0")
    play.complete(play.at("w1")[0])
    play.complete(play.at("w2")[0])
    assert [len(play.at(name)) for name in ("w1", "w2", "w3")] == [1, 1, 2]
    play.tell("worker_joined", "new")
    assert blocks_of(play.at("new")) == suspects[:1]
    assert [len(play.at(name)) for name in ("w1", "w2", "w3")] == [1, 2, 2]
    play.complete(play.at("w1")[0])
    assert blocks_of(play.at("w1")) == suspects[1:]


def test_a_suspect_is_overtaken_only_while_that_cannot_kill_too_many() -> None:
    play = Play(workers=4, slots=1)
    play.round("a", 0, [0, 1])
    play.complete(play.at("w1")[0])
    for copies in (2, 1):
        play.lose(next(iter(play.out.values())).worker)
        for _ in range(2):
            play.now += 1000.0
            play.tell("tick")
        assert [hand.blocks for hand in play.out.values()] == [(0,)] * copies


def test_a_job_that_raises_is_retried_on_other_workers_and_then_reported() -> None:
    play = Play(workers=4)
    play.round("a", 0, range(40))
    tried = []
    while play.out:
        hand = next(iter(play.out.values()))
        if 17 in hand.blocks:
            tried.append(hand.worker)
            play.fail(hand, f"error {len(tried)}")
        else:
            play.complete(hand)
    assert len({*tried}) == len(tried) == 3
    attempts = tuple(Attempt(name, f"error {i}") for i, name in enumerate(tried, 1))
    assert play.failures == [Fail("a", 0, Failure("exception", (17,), attempts))]


def test_a_job_that_raised_waits_for_another_worker_that_is_busy() -> None:
    play = Play(workers=2, slots=1)
    play.round("a", 0, [0, 1])
    play.fail(play.at("w0")[0])
    assert not play.at("w0")
    assert play.schedule.pending("a") == 1
    play.complete(play.at("w1")[0])
    assert blocks_of(play.at("w1")) == [0]


def test_the_only_worker_tries_three_times() -> None:
    play = Play(workers=1)
    play.round("a", 0, [0])
    for _ in range(3):
        assert not play.failures
        play.fail(play.at("w0")[0])
    assert play.failures[0].error.blocks == (0,)


def test_a_worker_on_which_every_job_raises_fails_no_round() -> None:
    play = Play(workers=4)
    play.round("a", 0, range(200))
    while play.out:
        broken = play.at("w0")
        if broken:
            play.fail(broken[0])
        else:
            play.complete(next(iter(play.out.values())))
    assert play.told == [Finish("a", 0)]


def slow_worker(**options: float) -> tuple[Play, Hand]:
    """Everything but the one job of a worker is done, and what jobs take is known."""
    play = Play(workers=3, slots=1, **options)
    play.round("a", 0, range(60))
    slow = play.at("w0")[0]
    while len(play.out) > 1:
        hand = next(hand for hand in play.out.values() if hand is not slow)
        play.now += 0.1 * len(hand.blocks)
        play.complete(hand)
    return play, slow


def test_an_overdue_job_is_overtaken_and_cancelled() -> None:
    play, slow = slow_worker(overdue_after=2.0)
    play.now += 100.0
    (copy,) = hands(play.tell("tick"))
    assert copy.copy
    assert copy.blocks == slow.blocks
    assert copy.worker != slow.worker
    play.now += 100.0
    assert not play.tell("tick")  # two copies are enough
    assert play.complete(copy)
    assert play.told == [Cancel(slow.lease, "w0"), Finish("a", 0)]
    assert not play.complete(slow)
    assert play.schedule.stats.overtaken == 1


def test_a_worker_that_was_overtaken_gets_nothing_until_it_has_answered() -> None:
    """What keeps it busy would hold up the next round, and each one after it."""
    play = Play(workers=2)
    play.round("a", 0, range(40))
    stuck = play.at("w0")
    while play.told[-1:] != [Finish("a", 0)]:
        play.now += 100.0
        play.tell("tick")
        play.complete(play.at("w1")[0])
    assert {decision.lease for decision in play.told if isinstance(decision, Cancel)} == {
        hand.lease for hand in stuck
    }
    for number in (1, 2):
        play.round("a", number, range(40))
        while play.at("w1"):
            play.now += 1.0
            play.complete(play.at("w1")[0])
        assert play.told[-1] == Finish("a", number)
    assert play.at("w0") == stuck
    play.round("a", 3, range(40))
    play.complete(stuck[0])
    assert play.at("w0") == stuck[1:]
    play.complete(stuck[1])
    assert {hand.round for hand in play.at("w0")} == {3}


def test_of_a_worker_that_was_not_overtaken_nothing_is_thought() -> None:
    """What nobody wants any more, and a second copy that came second, keep it from nothing."""
    play = Play(workers=2)
    play.round("a", 0, range(40))
    while len(play.out) > 1:
        play.now += 1.0
        play.complete(play.at("w1")[0] if play.at("w1") else play.at("w0")[-1])
    play.now += 100.0
    (copy,) = hands(play.tell("tick"))
    assert play.complete(play.at("w0")[0])
    assert play.at(copy.worker) == [copy]
    play.round("a", 1, range(40))
    assert len(play.at(copy.worker)) == 2
    play.complete(copy)
    stale = play.at("w0") + play.at("w1")
    play.tell("round_given_up", "a", 1)
    play.round("a", 2, range(40))
    for hand in stale[::2]:  # one of each worker's
        play.complete(hand)
    assert {hand.worker for hand in play.out.values() if hand.round == 2} == {"w0", "w1"}


def test_the_first_of_two_copies_wins() -> None:
    play, slow = slow_worker()
    play.now += 100.0
    (copy,) = hands(play.tell("tick"))
    assert play.complete(slow)
    assert play.told == [Cancel(copy.lease, copy.worker), Finish("a", 0)]
    assert play.schedule.stats.overtaken == 0


def test_a_job_that_is_not_late_is_not_overtaken() -> None:
    play, slow = slow_worker(overdue_after=50.0)
    for play.now in range(10, 50):
        assert not play.tell("tick")
    play.now = 50
    assert blocks_of(play.tell("tick")) == sorted(slow.blocks)


@pytest.mark.parametrize("overdue_after", [0.0, 2.0])
def test_a_job_that_was_handed_out_before_anything_was_known_is_overtaken(overdue_after: float) -> None:
    play = Play(workers=3, slots=1, overdue_after=overdue_after)
    play.round("a", 0, [0, 1])
    play.now = 10.0
    assert not play.tell("tick")
    play.complete(play.at("w1")[0])
    play.now = 100.0
    assert [hand.blocks for hand in hands(play.tell("tick"))] == [(0,)]


def test_the_time_a_job_waits_for_the_one_before_is_not_its_own() -> None:
    play = Play(workers=2, max_job_cost=1.0, overdue_factor=20.0, overdue_after=0.0)
    play.round("a", 0, range(12))
    first = play.at("w0")[0]
    while play.at("w1"):
        play.now += 1.0
        play.complete(play.at("w1")[0])
    play.now = 19.0
    assert not play.tell("tick")
    play.now = 21.0
    assert [hand.blocks for hand in hands(play.tell("tick"))] == [first.blocks]


def test_where_single_blocks_are_waited_for_they_are_overtaken_before_all_have_come() -> None:
    play = Play(workers=2)
    play.tell("session_opened", "a")
    play.schedule.round_opened("a", 0, play.now, one_by_one=True)
    play.tell("blocks_added", "a", [(0, 1.0), (1, 1.0)])
    play.complete(play.at("w0")[0])
    play.now = 100.0
    (copy,) = play.tell("tick")
    assert (copy.worker, copy.blocks, copy.copy) == ("w0", (1,), True)


def test_nothing_is_overtaken_while_more_blocks_may_come() -> None:
    play = Play(workers=2)
    play.tell("session_opened", "a")
    play.tell("round_opened", "a", 0)
    play.tell("blocks_added", "a", [(0, 1.0), (1, 1.0)])
    play.complete(play.at("w0")[0])
    play.now = 100.0
    assert not play.tell("tick")
    play.tell("round_sealed", "a")
    play.now += 100.0
    play.tell("tick")
    play.now += 100.0
    assert [hand.blocks for hand in play.out.values()] == [(1,), (1,)]


def test_the_blocks_of_a_silent_worker_are_handed_on_and_its_late_result_is_taken_if_first() -> None:
    play = Play(workers=2, slots=1)
    play.round("a", 0, [0, 1])
    late = play.at("w0")[0]
    play.tell("worker_silent", "w0")
    play.complete(play.at("w1")[0])
    second = play.at("w1")[0]
    assert second.blocks == late.blocks
    assert play.complete(late)
    assert play.told == [Cancel(second.lease, "w1"), Finish("a", 0)]
    assert not play.complete(second)


def test_a_late_result_counts_for_blocks_that_were_split_up_since() -> None:
    play = Play(workers=3, slots=1, max_job_cost=2.0, job_factor=1.0)
    play.round("a", 0, range(12))
    late = play.at("w0")[0]
    assert len(late.blocks) == 2
    play.tell("worker_silent", "w0")
    play.complete(play.at("w1")[0])
    assert play.at("w1")[0].blocks == late.blocks
    play.fail(play.at("w1")[0])
    play.complete(play.at("w2")[0])
    single = play.at("w2")[0]
    assert single.blocks == late.blocks[:1]
    assert play.complete(late)
    assert play.told == [Cancel(single.lease, "w2")]
    assert not play.complete(single)
    play.work()
    assert play.told[-1] == Finish("a", 0)


def test_a_worker_that_wakes_goes_on_with_what_nobody_took_over() -> None:
    play = Play(workers=1)
    play.round("a", 0, [0])
    play.tell("worker_silent", "w0")
    assert play.schedule.pending("a") == 1
    assert not play.tell("worker_answered", "w0")
    assert play.schedule.pending("a") == 0
    play.work()
    assert play.told == [Finish("a", 0)]


def test_a_job_is_not_handed_again_to_the_worker_that_still_computes_it() -> None:
    play = Play(workers=2)
    play.round("a", 0, [0])
    play.tell("worker_silent", "w0")
    assert blocks_of(play.at("w1")) == [0]
    play.tell("worker_answered", "w0")
    assert not play.tell("worker_silent", "w1")
    assert play.schedule.pending("a") == 0
    play.complete(play.at("w0")[0])
    assert play.told[-1] == Finish("a", 0)


def test_a_worker_that_leaves_gets_no_more_and_is_dropped_when_it_holds_nothing() -> None:
    play = Play(workers=2)
    play.round("a", 0, range(100))
    first, second = play.at("w0")
    assert not play.tell("worker_leaving", "w0")
    assert "w0" in play.schedule._workers
    play.complete(first)
    del play.out[second.lease]
    play.tell("handed_back", second.lease)
    assert play.told == [Drop("w0", "it left")]
    assert "w0" not in play.schedule._workers
    done = blocks_of(play.work())
    assert done == sorted(set(range(100)) - {*first.blocks})
    assert play.told[-1] == Finish("a", 0)


def test_a_job_may_be_handed_back_before_the_worker_is_known_to_leave() -> None:
    play = Play(workers=1)
    play.round("a", 0, range(10))
    first, second = play.at("w0")
    assert not hands(play.tell("handed_back", first.lease))
    assert play.tell("handed_back", second.lease) == [Drop("w0", "it left")]
    assert play.schedule.pending("a") == 10


def test_a_round_waits_for_workers_until_the_timeout() -> None:
    play = Play(workers=1, worker_timeout=60.0)
    play.now = 10.0
    play.lose("w0")
    play.now = 20.0
    play.round("a", 0, [0])
    play.now = 79.0
    assert play.schedule.waiting(play.now) == [("a", 20.0)]
    assert not play.tell("tick")
    play.now = 80.0
    assert play.tell("tick") == [Fail("a", 0, Failure("no_workers"))]
    assert not play.schedule.waiting(play.now)
    play.round("b", 0, [0])
    play.tell("worker_joined", "late")
    play.work()
    assert play.told[-1] == Finish("b", 0)


def test_closing_a_session_cancels_all_of_it_and_frees_the_workers() -> None:
    play = Play(workers=1)
    play.round("a", 0, range(10))
    play.round("b", 0, [0])
    leases = list(play.out.values())
    play.tell("session_closed", "a")
    assert play.told == [Cancel(hand.lease, "w0") for hand in leases]
    assert not play.complete(leases[0])
    assert play.at("w0")[-1].session == "b"


def test_a_round_that_is_given_up_is_over_and_the_next_begins_as_usual() -> None:
    play = Play(workers=1)
    play.round("a", 0, range(10))
    leases = list(play.out.values())
    assert not play.tell("round_given_up", "a", 1)
    play.tell("round_given_up", "a", 0)
    assert play.told == [Cancel(hand.lease, "w0") for hand in leases]
    play.round("a", 1, range(10))
    play.work()
    assert play.told[-1] == Finish("a", 1)


def test_what_is_late_keeps_nothing_of_its_round() -> None:
    play = Play(workers=2, slots=1)
    play.round("a", 0, range(100))
    play.fail(play.at("w0")[0])
    play.complete(play.at("w1")[0])
    assert len(play.at("w1")[0].blocks) == 1
    play.tell("worker_silent", "w1")
    play.tell("session_closed", "a")
    assert kept(play.schedule)["_Block"] == len(blocks_of(play.out.values()))


def test_a_long_round_takes_no_more_memory_than_a_short_one() -> None:
    play = Play(workers=2)
    play.tell("session_opened", "a")
    play.tell("round_opened", "a", 0)
    for block in range(1000):
        play.tell("blocks_added", "a", [(block, 1.0)])
        play.complete(next(iter(play.out.values())))
    assert not play.out
    assert kept(play.schedule)["tuple"] < 100


def test_a_result_of_an_older_round_is_discarded() -> None:
    play = Play(workers=1)
    play.round("a", 0, [0])
    old = play.at("w0")[0]
    play.round("a", 1, [0])
    assert Cancel(old.lease, "w0") in play.told
    assert not play.complete(old)
    play.work()
    assert play.told[-1] == Finish("a", 1)


def test_another_process_under_the_same_name_takes_over() -> None:
    play = Play(workers=1)
    play.round("a", 0, [0])
    old = play.at("w0")[0]
    (new,) = hands(play.tell("worker_joined", "w0"))
    assert new.blocks == old.blocks
    assert not play.complete(old)
    assert play.complete(new)


def test_results_and_reports_about_what_is_gone_change_nothing() -> None:
    play = Play(workers=1)
    assert not play.schedule.delivered(99, 0.0)
    for event in ("summed", "discarded", "handed_back"):
        assert not play.tell(event, 99)
    assert not play.tell("failed", 99, "reason")
    for event in ("worker_silent", "worker_answered", "worker_leaving"):
        assert not play.tell(event, "nobody")
    assert not play.tell("worker_lost", "nobody", "reason")
    assert not play.tell("session_closed", "none")
    assert not play.tell("blocks_added", "none", [(0, 1.0)])


def test_wrong_calls_are_refused() -> None:
    play = Play(workers=1)
    play.tell("session_opened", "a")
    play.tell("round_opened", "a", 0)
    (hand,) = hands(play.tell("blocks_added", "a", [(0, 1.0)]))
    with pytest.raises(ValueError, match="session 'a' is open already"):
        play.tell("session_opened", "a")
    with pytest.raises(ValueError, match="block 0 of session 'a' is in round 0 already"):
        play.tell("blocks_added", "a", [(0, 1.0)])
    with pytest.raises(ValueError, match="block 1 of session 'a' has cost 0"):
        play.tell("blocks_added", "a", [(1, 0)])
    with pytest.raises(ValueError, match="ask `delivered` first"):
        play.tell("summed", hand.lease)
    with pytest.raises(ValueError, match="threads=0"):
        play.tell("worker_joined", "w1", threads=0)
    play.tell("round_sealed", "a")
    with pytest.raises(ValueError, match="after round 0 was sealed"):
        play.tell("blocks_added", "a", [(1, 1.0)])


@pytest.mark.parametrize("option", ["slots", "attempts", "job_factor", "max_job_cost", "overdue_factor"])
def test_parameters_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0"):
        Schedule(**{option: 0})
    with pytest.raises(ValueError, match="worker_timeout=-1"):
        Schedule(worker_timeout=-1)


@contextmanager
def counted_lines() -> Iterator[Counter[str]]:
    """Count the lines of Python that run."""
    lines: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        lines[event] += 1
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(former)


def lines_of_mishaps(workers: int) -> float:
    """Lines that run for each job, over two rounds with losses, silences, exceptions and overtaking."""
    play = Play(workers=workers)
    total = 0
    order = random.Random(1)
    for number in range(2):
        play.round("a", number, range(workers * 20))
        for step in range(workers):
            hand = play.out[order.choice(list(play.out))]
            with counted_lines() as lines:
                play.schedule.tick(play.now)
                if step % 10 == 0:
                    decisions = play.schedule.worker_lost(f"w{step}", "killed", play.now)
                elif step % 10 == 1:
                    decisions = play.schedule.worker_silent(f"w{step}", play.now)
                elif step % 10 == 2:
                    decisions = play.schedule.failed(hand.lease, "raised", play.now)
                else:
                    accepted = play.schedule.delivered(hand.lease, play.now)
                    finish = play.schedule.summed if accepted else play.schedule.discarded
                    decisions = finish(hand.lease, play.now)
            total += lines["line"]
            play.out.update((new.lease, new) for new in hands(decisions))
            play.out.pop(hand.lease)
            play.now += 0.01
        play.work()
        for step in range(0, workers, 10):
            play.tell("worker_joined", f"w{step}")
            play.tell("worker_answered", f"w{step + 1}")
    return total / workers


def lines_of_theft(size: int) -> float:
    """Lines that run for each block that is taken from a worker whose blocks were added one by one."""
    play = held_unequally(one_by_one=True, size=size)
    play.tell("worker_joined", "thief")
    with counted_lines() as lines:
        for _ in range(size // 2):
            play.complete(play.at("thief")[0])
    return lines["line"] / size


@pytest.mark.parametrize("lines", [pytest.param(lines_of_mishaps, marks=pytest.mark.long), lines_of_theft])
def test_no_decision_is_linear_in_the_number_of_workers_or_blocks(lines: Callable[[int], float]) -> None:
    assert lines(1000) < 1.5 * lines(100)


def test_the_simulator_prints_a_row_for_each_number_of_workers() -> None:
    script = Path(__file__).parents[2] / "scripts" / "simulate.py"
    mishaps = ["--failures", "20", "--stalls", "100", "--joins", "900"]
    command = [sys.executable, str(script), "--workers", "1", "30", *mishaps]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == ["workers", "--------:", "1", "30"]
    of = cells[0].index
    assert all(0 < float(row[of("utilisation")].rstrip("%")) <= 100 for row in cells[2:])
    assert all(int(row[of("lost")]) > 0 for row in cells[3:])

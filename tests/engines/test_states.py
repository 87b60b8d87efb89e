"""Every event in every state: in the table of transitions, in the schedule, and in a worker's link."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from distcorpus.engines import pyro, states
from distcorpus.engines import schedule as module
from distcorpus.engines.kinds import WorkerInfo
from distcorpus.engines.schedule import Hand, Schedule
from distcorpus.engines.states import (
    TRANSITIONS,
    BlockState,
    LeaseState,
    RoundState,
    State,
    WorkerState,
    after,
    may,
)
from distcorpus.wire import CallTimeout

KINDS: list[type[State]] = [WorkerState, LeaseState, RoundState, BlockState]
STATES = [state for kind in KINDS for state in kind]
EVENTS = sorted({event for row in TRANSITIONS.values() for event in row})


@pytest.mark.parametrize(("state", "event"), [*itertools.product(STATES, EVENTS)], ids=str)
def test_an_event_leads_where_the_table_says_or_raises(state: State, event: str) -> None:
    if event in TRANSITIONS[state]:
        assert may(state, event)
        assert type(after(state, event)) is type(state)
        assert after(state, event) is TRANSITIONS[state][event]
        assert after(state, event) is not state
    else:
        assert not may(state, event)
        with pytest.raises(RuntimeError, match=f"'{event}' in state {state}: there is no such transition"):
            after(state, event)


def test_every_state_has_a_row_and_can_be_reached_from_the_first_of_its_kind() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert {kind for kind in State.__subclasses__() if kind.__module__ == states.__name__} == set(KINDS)
    for kind in KINDS:
        reached, new = set(), {next(iter(kind))}
        while new:
            reached |= new
            new = {to for state in new for to in TRANSITIONS[state].values()} - reached
        assert reached == set(kind)


def test_the_drawings_show_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "schedule.md").read_text("utf-8")
    drawings = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    assert len(drawings) == len(KINDS)
    for kind, drawing in zip(KINDS, drawings, strict=True):
        rows = [(state, event, to) for state in kind for event, to in TRANSITIONS[state].items()]
        arrows = [f"{state.name} --> {to.name}: {event}" for state, event, to in rows]
        ends = [f"{state.name} --> [*]" for state in kind if not TRANSITIONS[state]]
        expected = [f"[*] --> {next(iter(kind)).name}", *arrows, *ends]
        assert sorted(line.strip() for line in drawing.splitlines()) == sorted(expected)


# What the schedule makes of its public events


class Case:
    """One job on `w0`, while `w1` computes another's: whatever comes back to the queue stays in it."""

    def __init__(self) -> None:
        self.schedule = Schedule(slots=1)
        for worker in ("w0", "w1"):
            self.schedule.worker_joined(worker, 0.0, threads=2)
        self.worker = self.schedule._workers["w0"]
        self.schedule.session_opened("s", 0.0)
        self.schedule.round_opened("s", 0, 0.0, one_by_one=True)
        (hand,) = self.schedule.blocks_added("s", [(0, 1.0)], 0.0)
        assert isinstance(hand, Hand)
        assert hand.worker == "w0"
        self.schedule.blocks_added("s", [(1, 1.0)], 0.0)
        self.id = hand.lease
        self.lease = self.schedule._leases[hand.lease]
        self.round = self.lease.job.round
        self.block = self.lease.job.blocks[0]

    def tell(self, event: str) -> None:
        if event in ("hand_copy", "sum_up_other"):
            getattr(self, event)()
            return
        arguments: dict[str, tuple[Any, ...]] = {
            "worker_joined": ("w0",),
            "worker_lost": ("w0", "killed"),
            "worker_silent": ("w0",),
            "worker_answered": ("w0",),
            "worker_leaving": ("w0",),
            "session_closed": ("s",),
            "round_opened": ("s", 1),
            "round_sealed": ("s",),
            "blocks_added": ("s", [(99, 1.0)]),
            "failed": (self.id, "raised"),
            "tick": (),
        }
        getattr(self.schedule, event)(*arguments.get(event, (self.id,)), 1.0)

    def hand_copy(self) -> None:
        """The other worker has done its own, and is given what this one computes too."""
        self.sum_up_other()
        self.schedule.tick(100.0)

    def sum_up_other(self) -> None:
        for lease in [lease for lease in self.schedule._leases.values() if lease.worker.name == "w1"]:
            if self.schedule.delivered(lease.id, 1.0):
                self.schedule.summed(lease.id, 1.0)

    def check(self) -> None:
        """What the schedule derives from states agrees with them."""
        workers = self.schedule._workers.values()
        assert (self.worker in workers) == (self.worker.state is not WorkerState.GONE)
        ready = [worker for worker in workers if worker.state is WorkerState.READY]
        assert {*self.schedule._available.values()} == {*ready}
        assert self.schedule._threads == sum(worker.threads for worker in ready)
        assert (self.id in self.schedule._leases) == (self.lease.state is not LeaseState.OVER)
        session = self.schedule._sessions.get("s")
        current = session is not None and session.round is self.round
        assert current == (self.round.state is not RoundState.CLOSED)


def run(before: list[str], event: str) -> Case:
    case = Case()
    for earlier in before:
        case.tell(earlier)
    case.check()
    return case


LEASES: dict[LeaseState, list[str]] = {
    LeaseState.EXPECTED: [],
    LeaseState.REVOKED: ["worker_silent"],
    LeaseState.CANCELLED: ["round_opened"],
    LeaseState.OVERTAKEN: ["hand_copy", "sum_up_other"],
    LeaseState.CLAIMED: ["delivered"],
    LeaseState.OVER: ["discarded"],
}
#: Letters of the states that follow on EXPECTED, REVOKED, CANCELLED, OVERTAKEN (T), CLAIMED (L) and OVER; !
#: is a ValueError.
LEASE_EVENTS = {
    "delivered": "LLCTLO",
    "summed": "!!!!OO",
    "discarded": "OOOOLO",
    "failed": "OOOOLO",
    "handed_back": "OOOOLO",
    "worker_silent": "RRCTLO",
    "worker_answered": "EECTLO",
    "worker_leaving": "ERCTLO",
    "worker_lost": "OOOOLO",
    "worker_joined": "OOOOLO",
    "session_closed": "CCCTLO",
    "round_opened": "CCCTLO",
    "round_sealed": "ERCTLO",
    "blocks_added": "ERCTLO",
    "tick": "ERCTLO",
}
WORKERS: dict[WorkerState, list[str]] = {
    WorkerState.READY: [],
    WorkerState.SILENT: ["worker_silent"],
    WorkerState.LEAVING: ["worker_leaving"],
    WorkerState.LEAVING_SILENT: ["worker_leaving", "worker_silent"],
    WorkerState.GONE: ["worker_lost"],
}
#: On READY, SILENT, LEAVING, LEAVING_SILENT (B, for both) and GONE, while it holds a lease.
WORKER_EVENTS = {
    "worker_silent": "SSBBG",
    "worker_answered": "RRLLG",
    "worker_leaving": "LBLBG",
    "worker_lost": "GGGGG",
    "worker_joined": "GGGGG",
    "delivered": "RSLBG",
    "discarded": "RSGGG",
    "failed": "RSGGG",
    "handed_back": "GGGGG",
    "session_closed": "RSLBG",
    "round_opened": "RSLBG",
    "tick": "RSLBG",
}
ROUNDS: dict[RoundState, list[str]] = {
    RoundState.OPEN: [],
    RoundState.SEALED: ["round_sealed"],
    RoundState.CLOSED: ["session_closed"],
}
ROUND_EVENTS = {
    "round_sealed": "SSC",
    "blocks_added": "O!C",
    "round_opened": "CCC",
    "session_closed": "CCC",
    "delivered": "OSC",
    "worker_lost": "OSC",
    "tick": "OSC",
}
BLOCKS: dict[BlockState, list[str]] = {BlockState.UNDONE: [], BlockState.DONE: ["delivered"]}
BLOCK_EVENTS = {
    "delivered": "DD",
    "discarded": "UD",
    "failed": "UD",
    "worker_lost": "UD",
    "session_closed": "UD",
}

LETTERS: dict[type[State], dict[str, State]] = {
    WorkerState: dict(zip("RSLBG", WorkerState, strict=True)),
    LeaseState: dict(zip("ERCTLO", LeaseState, strict=True)),
    RoundState: dict(zip("OSC", RoundState, strict=True)),
    BlockState: dict(zip("UD", BlockState, strict=True)),
}
CASES = [
    (what, state, before, event, letters[index])
    for what, ways, events in (
        ("lease", LEASES, LEASE_EVENTS),
        ("worker", WORKERS, WORKER_EVENTS),
        ("round", ROUNDS, ROUND_EVENTS),
        ("block", BLOCKS, BLOCK_EVENTS),
    )
    for event, letters in events.items()
    for index, (state, before) in enumerate(ways.items())
]


@pytest.mark.parametrize(("what", "state", "before", "event", "letter"), CASES, ids=str)
def test_every_public_event_in_every_state(
    what: str, state: State, before: list[str], event: str, letter: str
) -> None:
    case = run(before, event)
    assert getattr(case, what).state is state
    if letter == "!":
        with pytest.raises(ValueError, match=r"summed but not accepted|was sealed"):
            case.tell(event)
        expected = state
    else:
        case.tell(event)
        expected = LETTERS[type(state)][letter]
    assert getattr(case, what).state is expected
    case.check()


def test_a_transition_that_is_not_in_the_table_stops_the_schedule() -> None:
    case = Case()
    case.lease.state = LeaseState.CANCELLED  # though its job is wanted
    with pytest.raises(RuntimeError, match=r"'claim' in state LeaseState.CANCELLED"):
        case.tell("delivered")
    case = Case()
    case.round.close()
    with pytest.raises(RuntimeError, match=r"'close' in state RoundState.CLOSED"):
        case.round.close()


def test_random_histories_take_every_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = set()

    def record(state: State, event: str) -> State:
        taken.add((state, event))
        return after(state, event)

    monkeypatch.setattr(module, "after", record)
    draw = random.Random(1)
    events = [
        *LEASE_EVENTS,
        *["worker_joined", "delivered", "summed", "round_sealed"] * 3,
        *["worker_silent", "worker_answered", "hand_copy", "sum_up_other"] * 2,
    ]
    for _ in range(600):
        case = Case()
        for event in draw.choices(events, k=8):
            with suppress(ValueError):  # what is refused changes nothing
                case.tell(event)
            case.check()
    assert taken == {(state, event) for state, row in TRANSITIONS.items() for event in row}


# A worker's link


class Proxy:
    """A worker that does not answer in time, when it is to be silent."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent

    def forget(self, session: str) -> None:
        if not self.silent:
            raise ValueError("an answer that ends the message")
        self.silent = False
        raise CallTimeout("no answer in time")

    def pulse(self) -> None:
        assert not self.silent

    def _pyroRelease(self) -> None:
        pass


def fall_silent(engine: pyro.PyroEngine, link: pyro._Link) -> None:
    link.control.put(("forget", "a session"))
    link.control.put(None)
    engine._ping(link, Proxy(silent=True))


def answer(engine: pyro.PyroEngine, link: pyro._Link) -> None:
    engine._tell(link, Proxy(silent=False), "ping", None)


def leave(engine: pyro.PyroEngine, link: pyro._Link) -> None:
    engine.worker_leaves(link.info.name, link.info.uri)


def lose(engine: pyro.PyroEngine, link: pyro._Link) -> None:
    with engine._lock:
        engine._lose(link, "killed")


def stop(engine: pyro.PyroEngine, link: pyro._Link) -> None:
    engine.stop()


LINKS = {
    WorkerState.READY: [],
    WorkerState.SILENT: [fall_silent],
    WorkerState.LEAVING: [leave],
    WorkerState.LEAVING_SILENT: [leave, fall_silent],
    WorkerState.GONE: [lose],
}
LINK_EVENTS = {fall_silent: "SSBBG", answer: "RRLLG", leave: "LBLBG", lose: "GGGGG", stop: "GGGGG"}


@pytest.mark.parametrize("event", LINK_EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("state", WorkerState, ids=str)
def test_every_event_in_every_state_of_a_link(
    state: WorkerState, event: Callable[[pyro.PyroEngine, pyro._Link], None]
) -> None:
    engine = pyro.PyroEngine(dict, slots=1)
    info = WorkerInfo("w", "PYRO:w@nowhere:1", "nowhere", 1, 1, "ready", "numba")
    schedule = engine._kinds.of("numba")
    link = pyro._Link(info, schedule)
    engine._links["w"] = link
    schedule.worker_joined("w", 0.0)
    worker = schedule._workers["w"]
    engine._kinds.begin("s", [info])
    schedule.session_opened("s", 0.0)
    schedule.round_opened("s", 0, 0.0)
    assert schedule.blocks_added("s", [(0, 1.0)], 0.0)  # it holds a lease, and so can be leaving
    for earlier in LINKS[state]:
        earlier(engine, link)
    assert link.state is state
    event(engine, link)
    expected = LETTERS[WorkerState][LINK_EVENTS[event][[*WorkerState].index(state)]]
    assert link.state is expected
    assert [info.state for info in engine.workers()] == (
        [] if expected is WorkerState.GONE else [expected.name.split("_")[0].lower()]
    )
    assert event is stop or worker.state is expected
    assert (link.control.qsize() > 0) == (expected is WorkerState.GONE)  # its threads are told to end

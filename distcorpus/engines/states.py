"""The states of what the schedule keeps, and the events that lead from one to another.

`TRANSITIONS` is the whole of it, and every change of a state is looked up there: `after` raises where an
event cannot happen. What is reported late or twice is no such event, and is ignored by who asks `may` first.
docs/schedule.md draws the table.

What follows from these states is not stored: a job is counted on while a lease of it is EXPECTED, and wanted
while its round is not CLOSED and its blocks are UNDONE.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar


class State(Enum):
    """A state of something; its value says what it means."""

    # A member is equal to itself alone. Enum's own hash is a Python function, and states are looked up often.
    __hash__ = object.__hash__


class WorkerState(State):
    """Whether a worker takes leases, and whether what it holds is counted on."""

    READY = "takes leases"
    SILENT = "missed its ping's deadline: takes none, and what it holds goes to others"
    LEAVING = "takes none, and completes those that it holds"
    LEAVING_SILENT = "was leaving and fell silent, or the other way round"
    GONE = "was lost, or has left"


class LeaseState(State):
    """What is expected of one handing of a job to a worker."""

    EXPECTED = "its result is counted on"
    REVOKED = "its worker fell silent and its job is handed on; its result is taken if it is the first"
    CANCELLED = "its result is no longer wanted, but its worker has not answered yet"
    OVERTAKEN = "the same, as another worker was faster; its worker gets nothing until it has answered"
    CLAIMED = "its result was accepted and is being added to the sum"
    OVER = "its slot is free"


class RoundState(State):
    """Whether a round gets blocks, and whether results for it are wanted."""

    OPEN = "gets blocks"
    SEALED = "has all its blocks, and is finished when they are in the sum"
    CLOSED = "is finished, failed or given up"


class BlockState(State):
    """Whether a block has to be computed still; where it waits, or who computes it, follows from its job."""

    UNDONE = "no result with it was accepted yet"
    DONE = "a result with it was accepted, the only one"


AnyState = TypeVar("AnyState", bound=State)

#: What each event leads to in each state in which it may happen: a state of the same kind.
TRANSITIONS: dict[State, dict[str, Any]] = {
    WorkerState.READY: {
        "fall silent": WorkerState.SILENT,
        "leave": WorkerState.LEAVING,
        "go": WorkerState.GONE,
    },
    WorkerState.SILENT: {
        "answer": WorkerState.READY,
        "leave": WorkerState.LEAVING_SILENT,
        "go": WorkerState.GONE,
    },
    WorkerState.LEAVING: {"fall silent": WorkerState.LEAVING_SILENT, "go": WorkerState.GONE},
    WorkerState.LEAVING_SILENT: {"answer": WorkerState.LEAVING, "go": WorkerState.GONE},
    WorkerState.GONE: {},
    LeaseState.EXPECTED: {
        "revoke": LeaseState.REVOKED,
        "claim": LeaseState.CLAIMED,
        "cancel": LeaseState.CANCELLED,
        "overtake": LeaseState.OVERTAKEN,
        "end": LeaseState.OVER,
    },
    LeaseState.REVOKED: {
        "revive": LeaseState.EXPECTED,
        "claim": LeaseState.CLAIMED,
        "cancel": LeaseState.CANCELLED,
        "overtake": LeaseState.OVERTAKEN,
        "end": LeaseState.OVER,
    },
    LeaseState.CANCELLED: {"end": LeaseState.OVER},
    LeaseState.OVERTAKEN: {"end": LeaseState.OVER},
    LeaseState.CLAIMED: {"sum": LeaseState.OVER},
    LeaseState.OVER: {},
    RoundState.OPEN: {"seal": RoundState.SEALED, "close": RoundState.CLOSED},
    RoundState.SEALED: {"close": RoundState.CLOSED},
    RoundState.CLOSED: {},
    BlockState.UNDONE: {"claim": BlockState.DONE},
    BlockState.DONE: {},
}


def may(state: State, event: str) -> bool:
    """Whether an event of `TRANSITIONS` can happen in a state."""
    return event in TRANSITIONS[state]


def after(state: AnyState, event: str) -> AnyState:
    """Return the state that an event leads to.

    Parameters
    ----------
    state : State
        The state in which it happens.
    event : str
        Its name in `TRANSITIONS`.

    Raises
    ------
    RuntimeError
        If it cannot happen in this state.
    """
    try:
        reached: AnyState = TRANSITIONS[state][event]
    except KeyError:
        raise RuntimeError(f"{event!r} in state {state}: there is no such transition") from None
    return reached

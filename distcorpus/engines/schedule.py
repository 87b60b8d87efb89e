"""Which worker computes which blocks: a state machine with no threads, no sockets and no clock.

Events go in (a worker joined, a block was added, a result was delivered), each with the time as an argument,
and decisions come out (hand this job to that worker). The caller carries them out, and holds one lock around
every call.

The words: a *session* computes one *round* after the other; a round is a set of *blocks*, each with a cost;
a *job* is a set of blocks of one round that are computed together; a *lease* is one handing of a job to one
worker and takes one of its slots until the worker's answer has been dealt with.

How it decides:

* Free workers are served in the order of the leases they hold, so that everybody's first slot is filled
  before anybody's second. Sessions are served in the order of their virtual time, which is the cost they were
  served (start-time fair queueing: Goyal, Vin & Cheng 1996).
* The size of a job follows from the cost that is left in its round (guided self-scheduling: Polychronopoulos
  & Kuck 1987), so that jobs are few at first, and small at the end, when they have to balance.
* A block goes by preference to the worker that computed it in the round before and still holds its data.
* A job that takes too long is given to an idle worker too. If that one is faster, the first gets nothing
  until what it held has been dealt with: it is busy with something else, which would hold up one round after
  the other.
* A result is accepted if no block of it is in the sum yet, whoever it comes from and however late. Jobs that
  overlap are nested (a job and the single blocks it was split into): accepting one spoils no neighbour's.

No decision takes time in proportion to the number of workers or of queued blocks.

Workers, leases, rounds and blocks have states, and `states.TRANSITIONS` says which event leads from which to
which; jobs and sessions have none of their own.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from distcorpus.engines.states import BlockState, LeaseState, RoundState, WorkerState, after, may

_Jobs = OrderedDict["_Job", None]  # a queue, from which any can be taken
_FailureKind = Literal["exception", "poison", "no_workers"]

# Looked at often, and an enumeration's attribute is slow before Python 3.12.
_READY, _UNDONE = WorkerState.READY, BlockState.UNDONE
_EXPECTED, _OVERTAKEN = LeaseState.EXPECTED, LeaseState.OVERTAKEN

_SMOOTHING = 0.2  # weight of the newest job in the running mean of seconds per cost


# Decisions


@dataclass(frozen=True, slots=True)
class Hand:
    """Give this job to this worker; `copy` says that the same job is outstanding on another worker too."""

    lease: int
    worker: str
    session: str
    round: int
    blocks: tuple[int, ...]
    copy: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """The result of this lease is no longer wanted. Advisory: what arrives all the same is discarded.

    The slot stays taken until the worker has nothing to do with the job any more (`Schedule.discarded`).
    """

    lease: int
    worker: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every block of the sealed round is in its sum, exactly once."""

    session: str
    round: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of giving a block to a worker: why the job raised there, or how the worker was lost."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a round cannot be finished, the blocks that are to blame, and what was tried with them."""

    kind: _FailureKind
    blocks: tuple[int, ...] = ()
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """The round is given up; what else arrives for it is discarded. The session may open another."""

    session: str
    round: int
    error: Failure


@dataclass(frozen=True, slots=True)
class Drop:
    """The worker was lost or has left: the driver closes its connections."""

    worker: str
    reason: str


Decision = Hand | Cancel | Finish | Fail | Drop


@dataclass(slots=True)
class Stats:
    """Counts since the schedule was made."""

    leases: int = 0  # jobs handed out, second copies included
    copies: int = 0  # second copies of an outstanding job
    overtaken: int = 0  # second copies that were accepted before the first
    accepted: int = 0  # results that were accepted
    discarded: int = 0  # results that were not
    requeued: int = 0  # blocks that were handed out and came back to the queue
    failed: int = 0  # jobs that raised
    lost: int = 0  # workers that were lost


# State


@dataclass(slots=True, eq=False)
class _Block:
    number: int
    cost: float
    job: _Job | None = None  # the job it belongs to now; None while it waits to be put into one
    state: BlockState = _UNDONE
    losses: int = 0  # lost workers that it is suspected to have killed
    failures: int = 0  # jobs with it that raised
    tried: frozenset[str] = frozenset()  # the workers where they did
    history: tuple[Attempt, ...] = ()


@dataclass(slots=True, eq=False)
class _Job:
    round: _Round
    blocks: list[_Block]
    cost: float
    leases: dict[int, _Lease] = field(default_factory=dict)
    queue: _Jobs | None = None  # where it waits, if it does

    @property
    def wanted(self) -> bool:
        if self.round.state is RoundState.CLOSED:
            return False
        for block in self.blocks:  # noqa: SIM110, a generator would take as long again
            if block.state is not _UNDONE:
                return False
        return True

    @property
    def live(self) -> int:
        """Leases that are counted on."""
        return sum(lease.state is _EXPECTED for lease in self.leases.values())

    @property
    def losses(self) -> int:
        return max(block.losses for block in self.blocks)


@dataclass(slots=True, eq=False)
class _Lease:
    id: int
    job: _Job
    worker: _Worker
    since: float  # when it was handed out
    load: float  # its cost and that of what its worker had to compute before it
    copy: bool
    exclusive: bool  # the worker gets nothing else meanwhile
    state: LeaseState = _EXPECTED


@dataclass(slots=True, eq=False)
class _Worker:
    name: str
    threads: int
    leases: dict[int, _Lease] = field(default_factory=dict)
    state: WorkerState = _READY
    promised: _Round | None = None  # gets nothing until it holds nothing, then a suspect of this round
    free: OrderedDict[_Worker, None] | None = None  # the free workers with as many leases, if it is one
    last_result: float = -math.inf


@dataclass(slots=True, eq=False)
class _Queue:
    """Blocks that were in no job yet, or came back undone from one."""

    blocks: deque[_Block] = field(default_factory=deque)
    cost: float = 0.0
    entry: int = -1  # the one entry of the round's heap that stands for this queue

    def pop(self) -> _Block:
        block = self.blocks.popleft()
        self.cost = self.cost - block.cost if self.blocks else 0.0
        return block


@dataclass(slots=True, eq=False)
class _Round:
    session: _Session
    number: int
    least_job_cost: float = 0.0
    one_by_one: bool = False
    state: RoundState = RoundState.OPEN
    blocks: set[int] = field(default_factory=set)
    unsummed: int = 0  # blocks that are not in the sum
    unsummed_cost: float = 0.0
    pending: int = 0  # blocks that are queued
    pending_cost: float = 0.0
    pending_since: float = -math.inf
    leases: dict[int, _Lease] = field(default_factory=dict)
    shared: _Queue = field(default_factory=_Queue)  # blocks that no worker holds
    owned: dict[_Worker, _Queue] = field(default_factory=dict)  # blocks that this worker holds
    richest: list[tuple[float, int, _Worker]] = field(default_factory=list)  # heap: most cost first
    suspects: dict[frozenset[str], _Jobs] = field(default_factory=dict)  # may have killed; by where it raised
    promised: OrderedDict[_Worker, None] = field(default_factory=OrderedDict)  # are emptied for a suspect
    retries: dict[frozenset[str], _Jobs] = field(default_factory=dict)  # by where it raised
    requeued: _Jobs = field(default_factory=OrderedDict)  # a late result may still come
    overdue: list[tuple[float, int]] = field(default_factory=list)  # heap: when to look at which lease
    entries: itertools.count[int] = field(default_factory=itertools.count)

    def add(self, owner: _Worker | None, block: _Block) -> None:
        """Queue a new block; `rank` its owner before the next is taken."""
        queue = self.shared if owner is None else self.owned.setdefault(owner, _Queue())
        queue.blocks.append(block)
        queue.cost += block.cost

    def rank(self, owner: _Worker) -> None:
        """Enter a queue that has grown into the heap."""
        queue = self.owned[owner]
        queue.entry = next(self.entries)
        heapq.heappush(self.richest, (-queue.cost, queue.entry, owner))

    def most_left(self) -> _Worker | None:
        """The worker with the most cost queued for it.

        An entry of the heap is an upper bound of what its queue holds, put right when it comes to the top.
        """
        while self.richest:
            negative_cost, entry, owner = self.richest[0]
            queue = self.owned[owner]
            if entry != queue.entry or not queue.blocks:
                heapq.heappop(self.richest)
            elif -negative_cost > queue.cost:
                heapq.heapreplace(self.richest, (-queue.cost, entry, owner))
            else:
                return owner
        return None

    def close(self) -> None:
        """Let go of all that is queued."""
        self.state = after(self.state, "close")
        self.pending, self.pending_cost = 0, 0.0
        for jobs in (*self.suspects.values(), *self.retries.values()):
            jobs.clear()
        self.shared = _Queue()
        self.blocks.clear()
        self.owned.clear()
        self.richest.clear()
        self.suspects.clear()
        self.retries.clear()
        self.requeued.clear()
        self.overdue.clear()


def _number(queues: dict[frozenset[str], _Jobs]) -> int:
    return sum(len(jobs) for jobs in queues.values())


@dataclass(slots=True, eq=False)
class _Session:
    name: str
    serial: int
    virtual_time: float = 0.0
    ready: bool = False  # has its entry in the heap of sessions with something queued
    round: _Round | None = None
    rate: float | None = None  # thread seconds per cost, a running mean
    held: dict[int, _Worker] = field(default_factory=dict)  # who computed which block of this round
    held_before: dict[int, _Worker] = field(default_factory=dict)  # and of the round before

    @property
    def pending(self) -> int:
        return self.round.pending if self.round else 0


class Schedule:
    """Share the workers among the sessions, and lose nothing.

    Every event method returns the decisions that follow from it, in the order in which to carry them out. An
    event about a worker, a lease or a session that is gone changes nothing: threads report late.

    Parameters
    ----------
    slots : int
        Leases a worker holds at most. With two, the next job travels while the current one is computed.
    attempts : int
        How often a block is tried that makes its job raise, and how many workers a block may kill.
    max_job_cost : float
        No job of several blocks costs more.
    job_factor : float
        A job gets its worker's share of the cost left in the round, divided by `job_factor` and by `slots`,
        or more where the round says what a job has to cost at least.
    overdue_factor : float
        A lease is overdue when it takes this many times as long as expected, ...
    overdue_after : float
        ... and at least so many seconds.
    worker_timeout : float or None
        Seconds without any worker after which a round that waits for one fails. None: it waits.
    stats : Stats, optional
        What to go on counting in.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        slots: int = 2,
        attempts: int = 3,
        max_job_cost: float = math.inf,
        job_factor: float = 2.0,
        overdue_factor: float = 3.0,
        overdue_after: float = 2.0,
        worker_timeout: float | None = None,
        stats: Stats | None = None,
    ) -> None:
        at_least_one = {"slots": slots, "attempts": attempts, "job_factor": job_factor}
        above_zero = {"max_job_cost": max_job_cost, "overdue_factor": overdue_factor}
        seconds = {"overdue_after": overdue_after, "worker_timeout": worker_timeout or 0.0}
        for name, value in at_least_one.items():
            if not value >= 1:
                raise ValueError(f"{name}={value!r}: give 1 or more")
        for name, value in above_zero.items():
            if not value > 0:
                raise ValueError(f"{name}={value!r}: give a number above 0")
        for name, value in seconds.items():
            if not value >= 0:
                raise ValueError(f"{name}={value!r}: give a number of seconds, 0 or more")
        self.stats = stats or Stats()
        self._slots = slots
        self._attempts = attempts
        self._max_job_cost = max_job_cost
        self._job_factor = job_factor
        self._overdue_factor = overdue_factor
        self._overdue_after = overdue_after
        self._worker_timeout = worker_timeout
        self._now = -math.inf
        self._decisions: list[Decision] = []
        self._serials = itertools.count(1)
        self._sessions: dict[str, _Session] = {}
        self._ready: list[tuple[float, int, _Session]] = []  # heap: sessions with something queued
        self._virtual_time = 0.0  # of the session that was served last, when it was
        self._leases: dict[int, _Lease] = {}
        self._workers: dict[str, _Worker] = {}
        self._available: dict[str, _Worker] = {}
        self._threads = 0  # of the available workers
        self._deserted_since = -math.inf  # when the last available worker went
        self._free: list[OrderedDict[_Worker, None]] = [OrderedDict() for _ in range(slots)]  # by leases held

    # Events: workers

    def worker_joined(self, worker: str, now: float, threads: int = 1) -> list[Decision]:
        """A worker is ready. One that is known by that name is taken for lost: this is another process."""
        self._now = now
        if threads < 1:
            raise ValueError(f"worker {worker!r} joined with threads={threads!r}: give 1 or more")
        if worker in self._workers:
            self._lose(self._workers[worker], "another process joined under its name")
        self._workers[worker] = _Worker(worker, threads)
        self._admit(self._workers[worker])
        return self._decide()

    def worker_lost(self, worker: str, reason: str, now: float) -> list[Decision]:
        """Its connection broke: what it had to compute is requeued, and suspected of having killed it."""
        self._now = now
        if worker in self._workers:
            self._decisions.append(Drop(worker, reason))
            self._lose(self._workers[worker], reason)
        return self._decide()

    def worker_expelled(self, worker: str, reason: str, now: float) -> list[Decision]:
        """What it says cannot be believed: what it had to compute is requeued, and suspected of nothing."""
        self._now = now
        if worker in self._workers:
            self._decisions.append(Drop(worker, reason))
            self._lose(self._workers[worker], reason, suspect=False)
        return self._decide()

    def worker_silent(self, worker: str, now: float) -> list[Decision]:
        """It missed its ping's deadline: it gets no new lease, and its blocks are handed on.

        Its results are still accepted if they come before the others'.
        """
        self._now = now
        silent = self._workers.get(worker)
        if silent and may(silent.state, "fall silent"):
            silent.state = after(silent.state, "fall silent")
            self._dismiss(silent)
            for lease in silent.leases.values():
                if lease.state is _EXPECTED and lease.job.wanted:
                    lease.state = after(lease.state, "revoke")
                    self._came_back(lease.job)
        return self._decide()

    def worker_answered(self, worker: str, now: float) -> list[Decision]:
        """It answers again: it takes leases, and goes on with those that nobody else has taken over."""
        self._now = now
        awake = self._workers.get(worker)
        if awake and may(awake.state, "answer"):
            awake.state = after(awake.state, "answer")
            for lease in awake.leases.values():
                if lease.state is LeaseState.REVOKED and lease.job.wanted and lease.job.queue is not None:
                    self._dequeue(lease.job)
                    self._revive(lease)
            if awake.state is _READY:
                self._admit(awake)
        return self._decide()

    def worker_leaving(self, worker: str, now: float) -> list[Decision]:
        """It was asked to stop: it gets no more leases, and is dropped when it holds none."""
        self._now = now
        leaver = self._workers.get(worker)
        if leaver:
            self._leave(leaver)
        return self._decide()

    # Events: sessions

    def session_opened(self, session: str, now: float) -> list[Decision]:
        """A session is there; it has no round yet.

        Raises
        ------
        ValueError
            If a session of that name is open.
        """
        self._now = now
        if session in self._sessions:
            raise ValueError(f"session {session!r} is open already: give each session a name of its own")
        self._sessions[session] = _Session(session, next(self._serials), self._virtual_time)
        return self._decide()

    def session_closed(self, session: str, now: float) -> list[Decision]:
        """It is over: all that is outstanding for it is cancelled."""
        self._now = now
        closed = self._sessions.pop(session, None)
        if closed:
            if closed.round:
                self._close(closed.round)
            if closed.ready:
                self._ready = [entry for entry in self._ready if entry[2] is not closed]
                heapq.heapify(self._ready)
        return self._decide()

    def round_opened(
        self,
        session: str,
        round: int,
        now: float,
        least_job_cost: float = 0.0,
        one_by_one: bool = False,
    ) -> list[Decision]:
        """A round begins; one that is not finished is given up.

        Parameters
        ----------
        session : str
        round : int
            Its number in the session.
        now : float
            Seconds.
        least_job_cost : float
            What a job has to cost to be worth its overhead, in the unit of the blocks' costs. Jobs are
            smaller only where a worker's share of the round is.
        one_by_one : bool
            Whether somebody waits for single blocks before the round is sealed, so that what is late is
            overtaken before.
        """
        self._now = now
        opener = self._sessions.get(session)
        if opener:
            if opener.round:
                self._close(opener.round)
            opener.round = _Round(opener, round, least_job_cost, one_by_one)
            opener.held_before, opener.held = opener.held, {}
        return self._decide()

    def round_given_up(self, session: str, round: int, now: float) -> list[Decision]:
        """Nobody wants the round any more: all that is outstanding for it is cancelled."""
        self._now = now
        owner = self._sessions.get(session)
        if owner and owner.round and owner.round.number == round:
            self._close(owner.round)
        return self._decide()

    def blocks_added(
        self,
        session: str,
        blocks: Iterable[tuple[int, float]],
        now: float,
        holders: Mapping[int, str] | None = None,
    ) -> list[Decision]:
        """The round gets more blocks at once, so that each can go to the worker that holds it.

        After a `Fail`, blocks are ignored until the next round is opened.

        Parameters
        ----------
        session : str
        blocks : iterable of (int, float)
            Numbers, each once in a round, and costs, in any unit that is proportional to time.
        now : float
            Seconds.
        holders : mapping of int to str, optional
            Workers that hold some of the blocks already, though they have not computed them.

        Raises
        ------
        ValueError
            If the round is sealed or has the block already, or if a cost is not a number above 0.
        """
        self._now = now
        adder = self._sessions.get(session)
        if adder and adder.round:
            of = holders or {}
            owners = {self._add(adder.round, number, cost, of.get(number)): None for number, cost in blocks}
            for owner in owners:
                if owner:
                    adder.round.rank(owner)
        return self._decide()

    def round_sealed(self, session: str, now: float) -> list[Decision]:
        """The round gets no more blocks: it is finished when all it has are in the sum."""
        self._now = now
        sealer = self._sessions.get(session)
        if sealer and sealer.round and may(sealer.round.state, "seal"):
            sealer.round.state = after(sealer.round.state, "seal")
            self._finish_if_complete(sealer.round)
        return self._decide()

    # Events: leases

    def delivered(self, lease: int, now: float) -> bool:
        """Whether to accept the result that arrived.

        Returns
        -------
        bool
            True: its blocks are now claimed; add it to the sum, then report `summed`. False: it is late, a
            second copy, or of a round or session that is over; drop it, then report `discarded`.
        """
        self._now = now
        arrived = self._leases.get(lease)
        if arrived is None or not arrived.job.wanted:
            self.stats.discarded += 1
            return False
        self._learn(arrived)
        arrived.state = after(arrived.state, "claim")
        self.stats.accepted += 1
        self.stats.overtaken += arrived.copy
        held = arrived.job.round.session.held
        for block in arrived.job.blocks:
            block.state = after(block.state, "claim")
            held[block.number] = arrived.worker
            if block.job and block.job.queue is not None:
                self._dequeue(block.job)
        return True

    def summed(self, lease: int, now: float) -> list[Decision]:
        """The accepted result is in the sum: the slot is free, and nobody else need compute these blocks.

        Raises
        ------
        ValueError
            If the result was not accepted.
        """
        self._now = now
        added = self._leases.get(lease)
        if added:
            if not may(added.state, "sum"):
                raise ValueError(f"lease {lease} was summed but not accepted: ask `delivered` first")
            self._release(added, "sum")
            job = added.job
            if job.round.state is not RoundState.CLOSED:
                for rival in dict.fromkeys([job, *(block.job for block in job.blocks if block.job)]):
                    for other in rival.leases.values():
                        # A worker that is slower than a second copy is busy with something else.
                        self._cancel(other, "overtake" if added.copy else "cancel")
                job.round.unsummed -= len(job.blocks)
                job.round.unsummed_cost -= job.cost
                self._finish_if_complete(job.round)
        return self._decide()

    def discarded(self, lease: int, now: float) -> list[Decision]:
        """A result that was not accepted is dropped: the slot is free."""
        self._now = now
        dropped = self._leases.get(lease)
        if dropped and may(dropped.state, "end"):
            self._release(dropped, "end")
        return self._decide()

    def failed(self, lease: int, reason: str, now: float) -> list[Decision]:
        """The job raised: its blocks are retried one by one, on other workers where there are others."""
        self._now = now
        raised = self._leases.get(lease)
        if raised and may(raised.state, "end"):
            self.stats.failed += 1
            counted_on = raised.state is _EXPECTED
            self._release(raised, "end")
            job = raised.job
            if job.wanted and counted_on:
                attempt = Attempt(raised.worker.name, reason)
                for block in job.blocks:
                    block.failures += 1
                    block.tried |= {raised.worker.name}
                    block.history += (attempt,)
                guilty = [block for block in job.blocks if block.failures >= self._attempts]
                if guilty:
                    self._fail(job.round, "exception", guilty)
                else:
                    self._came_back(job)
        return self._decide()

    def handed_back(self, lease: int, now: float) -> list[Decision]:
        """The worker returned the job undone, and so it leaves: this may be heard before `worker_leaving`."""
        self._now = now
        undone = self._leases.get(lease)
        if undone and may(undone.state, "end"):
            counted_on = undone.state is _EXPECTED
            if undone.job.wanted:
                self._leave(undone.worker)
            self._release(undone, "end")
            if undone.job.wanted and counted_on:
                self._came_back(undone.job)
        return self._decide()

    def tick(self, now: float) -> list[Decision]:
        """Time passed: overtake what is overdue, and fail what has waited too long for a worker."""
        self._now = now
        for session in self._sessions.values():
            round = session.round
            if round and not round.pending and (round.one_by_one or round.state is RoundState.SEALED):
                self._overtake(round)
        if self._worker_timeout is not None:
            for name, since in self.waiting(now):
                round = self._sessions[name].round
                if round and now - since >= self._worker_timeout:
                    self._fail(round, "no_workers", [])
        return self._decide()

    # Queries

    def pending(self, session: str) -> int:
        """Blocks of the session's round that are queued and not leased."""
        asked = self._sessions.get(session)
        return asked.pending if asked else 0

    def outstanding(self, session: str) -> int:
        """Blocks of the session's round that are leased, or being added to the sum."""
        asked = self._sessions.get(session)
        return asked.round.unsummed - asked.round.pending if asked and asked.round else 0

    def waiting(self, now: float) -> list[tuple[str, float]]:
        """The sessions that have something to compute and nobody to compute it, and since when."""
        if self._available:
            return []
        return [
            (session.name, min(now, max(session.round.pending_since, self._deserted_since)))
            for session in self._sessions.values()
            if session.round and session.round.pending
        ]

    # Handing out

    def _decide(self) -> list[Decision]:
        """Hand out what can be, and return all that was decided since the event."""
        self._assign()
        decisions, self._decisions = self._decisions, []
        return decisions

    def _assign(self) -> None:
        """Serve free workers until nothing is queued for them.

        A worker that cannot be served is one where every block that is left has raised before. As a block is
        tried `attempts` times, there are fewer such workers than that.
        """
        unserved: list[_Worker] = []
        while self._ready and len(unserved) < self._attempts:
            worker = next((next(iter(free)) for free in self._free if free), None)
            if worker is None:
                break
            if not self._serve(worker):
                self._withhold(worker)
                unserved.append(worker)
        for worker in unserved:
            self._settle(worker)

    def _serve(self, worker: _Worker) -> bool:
        """Serve the session whose turn it is, or the next that has something for this worker."""
        if worker.promised:
            suspect = self._pick(worker.promised.suspects, worker)
            self._break_promise(worker)
            if suspect:
                self._grant(suspect, worker)
                return True
        passed: list[_Session] = []
        served = False
        start = self._virtual_time
        while self._ready and not served:
            key, _, session = heapq.heappop(self._ready)
            if key < session.virtual_time:
                heapq.heappush(self._ready, (session.virtual_time, session.serial, session))
            elif session.round is None or not session.pending:
                session.ready = False
            else:
                start = session.virtual_time
                served = self._serve_round(session.round, worker)
                passed.append(session)
        if served:
            self._virtual_time = max(self._virtual_time, start)
        for session in passed:
            heapq.heappush(self._ready, (session.virtual_time, session.serial, session))
        return served

    def _serve_round(self, round: _Round, worker: _Worker) -> bool:
        """Give a free worker a job of this round, or empty it for a suspect."""
        suspect = self._pick(round.suspects, worker)
        if suspect and worker.leases and len(round.promised) < _number(round.suspects):
            worker.promised = round
            round.promised[worker] = None
            self._settle(worker)
            return True
        if suspect and not worker.leases:
            job: _Job | None = suspect
        else:
            job = self._pick(round.retries, worker) or next(iter(round.requeued), None)
        if job:
            self._grant(job, worker)
            return True
        return self._serve_blocks(round, worker)

    def _pick(self, queues: dict[frozenset[str], _Jobs], worker: _Worker) -> _Job | None:
        """The first job that has not raised on this worker, or has on all there are."""
        for tried, jobs in queues.items():
            others = len(self._available) > sum(name in self._available for name in tried)
            if worker.name not in tried or not others:
                return next(iter(jobs))
        return None

    def _serve_blocks(self, round: _Round, worker: _Worker) -> bool:
        """Make a job of blocks that the worker holds, then of those nobody does, then of another worker's."""
        own = round.owned.get(worker)
        sources = [queue for queue in (own, round.shared) if queue and queue.blocks]
        if not sources:
            owner = round.most_left()
            if owner is None:
                return False
            if owner.free is not None and len(owner.leases) <= len(worker.leases):
                worker = owner
            sources = [round.owned[owner]]
        share = worker.threads / self._threads
        guided = round.pending_cost * share / (self._slots * self._job_factor)
        held = sum(lease.job.cost for lease in worker.leases.values() if lease.job.round is round)
        worthwhile = min(round.least_job_cost, round.unsummed_cost * share - held)
        blocks: list[_Block] = []
        cost = 0.0
        for queue in sources:
            while queue.blocks:
                next_cost = queue.blocks[0].cost
                total = cost + next_cost
                # Half of the next block: a job may as well miss its share by as much as exceed it.
                enough = (
                    len(blocks) >= worker.threads and cost + next_cost / 2 >= worthwhile and total > guided
                )
                if blocks and (enough or total > self._max_job_cost):
                    break
                blocks.append(queue.pop())
                cost = total
            if len(blocks) >= worker.threads:
                break
        self._count(round, -len(blocks), -cost)
        self._hand(self._make_job(round, blocks), worker)
        round.session.virtual_time += cost
        return True

    def _grant(self, job: _Job, worker: _Worker) -> None:
        """Hand out a job that is queued."""
        self._dequeue(job)
        self._hand(job, worker)
        job.round.session.virtual_time += job.cost

    def _hand(self, job: _Job, worker: _Worker, copy: bool = False) -> None:
        lease = _Lease(
            id=next(self._serials),
            job=job,
            worker=worker,
            since=self._now,
            load=job.cost + sum(other.job.cost for other in worker.leases.values()),
            copy=copy,
            exclusive=len(job.blocks) == 1 and job.losses > 0,
        )
        for table in (self._leases, worker.leases, job.leases, job.round.leases):
            table[lease.id] = lease
        self.stats.leases += 1
        self.stats.copies += copy
        self._watch(lease)
        self._settle(worker)
        numbers = tuple(block.number for block in job.blocks)
        session = job.round.session.name
        self._decisions.append(Hand(lease.id, worker.name, session, job.round.number, numbers, copy))

    # Overtaking

    def _watch(self, lease: _Lease) -> None:
        """Look at this lease when it may be overdue."""
        round = lease.job.round
        heapq.heappush(round.overdue, (self._now + self._overdue_after, lease.id))
        if len(round.overdue) > 2 * len(round.leases) + 16:
            round.overdue = [entry for entry in round.overdue if entry[1] in round.leases]
            heapq.heapify(round.overdue)

    def _overtake(self, round: _Round) -> None:
        """Give second copies of what is most overdue to idle workers."""
        later: list[tuple[float, int]] = []
        while self._free[0] and round.overdue and round.overdue[0][0] <= self._now:
            _, id = heapq.heappop(round.overdue)
            lease = self._leases.get(id)
            if lease is None or lease.state is not _EXPECTED:
                continue
            if not lease.job.wanted or lease.job.live != 1:
                continue
            job = lease.job
            if job.losses + job.live >= self._attempts:
                continue
            due = self._due(lease)
            tried = job.blocks[0].tried
            candidates = itertools.islice(self._free[0], self._attempts)
            worker = next((idle for idle in candidates if idle.name not in tried), None)
            if due is not None and due > self._now:
                later.append((due, id))
            elif due is None or worker is None:
                later.append((self._now + self._overdue_after, id))
            else:
                self._hand(job, worker, copy=True)
        for entry in later:
            heapq.heappush(round.overdue, entry)

    def _due(self, lease: _Lease) -> float | None:
        """When this lease has taken too long, once anything is known of the session's jobs."""
        rate = lease.job.round.session.rate
        if rate is None:
            return None
        expected = rate * lease.load / lease.worker.threads
        return lease.since + max(self._overdue_after, self._overdue_factor * expected)

    def _learn(self, lease: _Lease) -> None:
        """Note how long a job took, from when its worker could begin with it."""
        session, worker = lease.job.round.session, lease.worker
        if lease.state is _EXPECTED:
            seconds = self._now - max(lease.since, worker.last_result)
            rate = seconds * worker.threads / lease.job.cost
            session.rate = rate if session.rate is None else session.rate + _SMOOTHING * (rate - session.rate)
        worker.last_result = self._now

    # What comes back

    def _release(self, lease: _Lease, event: Literal["sum", "end"]) -> None:
        """The slot is free."""
        lease.state = after(lease.state, event)
        for table in (self._leases, lease.worker.leases, lease.job.leases, lease.job.round.leases):
            del table[lease.id]
        self._settle(lease.worker)
        self._let_leave(lease.worker)

    def _cancel(self, lease: _Lease, event: Literal["cancel", "overtake"] = "cancel") -> None:
        if may(lease.state, event):
            lease.state = after(lease.state, event)
            if event == "overtake":
                self._settle(lease.worker)
            self._decisions.append(Cancel(lease.id, lease.worker.name))

    def _came_back(self, job: _Job) -> None:
        """A lease of a job that is wanted ended without a result, or is not counted on any more."""
        if job.live:
            for lease in job.leases.values():
                self._watch(lease)
        elif job.queue is None:
            answers = (_READY, WorkerState.LEAVING)
            awake = next((lease for lease in job.leases.values() if lease.worker.state in answers), None)
            if awake:
                self._revive(awake)
            else:
                self._requeue(job)

    def _revive(self, lease: _Lease) -> None:
        """Count again on a lease whose worker has woken."""
        lease.state = after(lease.state, "revive")
        self._watch(lease)

    def _requeue(self, job: _Job) -> None:
        """Queue a job where its history says."""
        round = job.round
        self.stats.requeued += len(job.blocks)
        if any(block.losses or block.failures for block in job.blocks):
            singles = (
                [job] if len(job.blocks) == 1 else [self._make_job(round, [block]) for block in job.blocks]
            )
            for single in singles:
                queues = round.suspects if single.losses else round.retries
                self._enqueue(single, queues.setdefault(single.blocks[0].tried, OrderedDict()))
        elif job.leases:
            self._enqueue(job, round.requeued)
        else:
            for block in reversed(job.blocks):
                block.job = None
                round.shared.blocks.appendleft(block)
                round.shared.cost += block.cost
            self._count(round, len(job.blocks), job.cost)

    def _lose(self, worker: _Worker, reason: str, *, suspect: bool = True) -> None:
        """Take back what a lost worker had to compute.

        A block that was in one of its leases is a suspect from now on: it is leased alone, to a worker that
        holds nothing else, so that a second loss and a third are its own fault and no neighbour's. Of the
        losses that it shared with other blocks only the first counts.
        """
        self.stats.lost += 1
        del self._workers[worker.name]
        worker.state = after(worker.state, "go")
        self._dismiss(worker)
        alone = len(worker.leases) == 1
        lost = [lease for lease in worker.leases.values() if may(lease.state, "end")]
        for lease in lost:
            self._release(lease, "end")
        for lease in lost:
            round = lease.job.round
            if round.state is RoundState.CLOSED:
                continue
            undone = [block for block in lease.job.blocks if block.state is _UNDONE]
            for block in undone:
                block.history += (Attempt(worker.name, reason),)
                if suspect and (not block.losses or (alone and len(lease.job.blocks) == 1)):
                    block.losses += 1
            guilty = [block for block in undone if block.losses >= self._attempts]
            if guilty:
                self._fail(round, "poison", guilty)
                continue
            for job in dict.fromkeys(block.job for block in undone):
                if job and job.queue is not None:
                    self._dequeue(job)
                    self._requeue(job)
                elif job:
                    self._came_back(job)

    def _leave(self, worker: _Worker) -> None:
        if may(worker.state, "leave"):
            worker.state = after(worker.state, "leave")
            self._dismiss(worker)
            self._let_leave(worker)

    def _let_leave(self, worker: _Worker) -> None:
        """Drop a worker that leaves when it holds nothing any more."""
        if not worker.leases and worker.state in (WorkerState.LEAVING, WorkerState.LEAVING_SILENT):
            worker.state = after(worker.state, "go")
            del self._workers[worker.name]
            self._decisions.append(Drop(worker.name, "it left"))

    # Rounds

    def _add(self, round: _Round, number: int, cost: float, has_it: str | None) -> _Worker | None:
        """Queue a new block for the worker that holds it, if one does, and return that worker."""
        where = f"block {number} of session {round.session.name!r}"
        if round.state is not RoundState.OPEN:
            raise ValueError(f"{where} came after round {round.number} was sealed: open another round for it")
        if number in round.blocks:
            raise ValueError(f"{where} is in round {round.number} already: give each block its own number")
        if not 0 < cost < math.inf:
            raise ValueError(f"{where} has cost {cost!r}: give a finite number above 0")
        holder = round.session.held_before.get(number) or self._workers.get(has_it or "")
        round.blocks.add(number)
        round.unsummed += 1
        round.unsummed_cost += cost
        owner = holder if holder and holder.state is _READY else None
        round.add(owner, _Block(number, cost))
        self._count(round, 1, cost)
        return owner

    def _finish_if_complete(self, round: _Round) -> None:
        if not round.unsummed and round.state is RoundState.SEALED:
            self._decisions.append(Finish(round.session.name, round.number))
            self._close(round)

    def _fail(self, round: _Round, kind: _FailureKind, guilty: list[_Block]) -> None:
        history = guilty[0].history if guilty else ()
        error = Failure(kind, tuple(block.number for block in guilty), history)
        self._decisions.append(Fail(round.session.name, round.number, error))
        self._close(round)

    def _close(self, round: _Round) -> None:
        for worker in list(round.promised):
            self._break_promise(worker)
        for lease in round.leases.values():
            self._cancel(lease)
        round.close()
        round.session.round = None

    # Queues

    def _make_job(self, round: _Round, blocks: list[_Block]) -> _Job:
        job = _Job(round, blocks, sum(block.cost for block in blocks))
        for block in blocks:
            block.job = job
        return job

    def _enqueue(self, job: _Job, queue: _Jobs) -> None:
        queue[job] = None
        job.queue = queue
        self._count(job.round, len(job.blocks), job.cost)

    def _dequeue(self, job: _Job) -> None:
        round = job.round
        if job.queue is None:
            return
        del job.queue[job]
        tried = job.blocks[0].tried
        for queues in (round.suspects, round.retries):
            if not job.queue and queues.get(tried) is job.queue:
                del queues[tried]
        job.queue = None
        self._count(round, -len(job.blocks), -job.cost)
        while len(round.promised) > _number(round.suspects):
            self._break_promise(next(reversed(round.promised)))

    def _count(self, round: _Round, blocks: int, cost: float) -> None:
        """Keep count of what is queued, and the session among those that are served while anything is."""
        if not round.pending:
            round.pending_since = self._now
        round.pending += blocks
        round.pending_cost = round.pending_cost + cost if round.pending else 0.0
        session = round.session
        if round.pending and not session.ready:
            session.ready = True
            session.virtual_time = max(session.virtual_time, self._virtual_time)
            heapq.heappush(self._ready, (session.virtual_time, session.serial, session))

    # Workers

    def _admit(self, worker: _Worker) -> None:
        """It takes leases from now on."""
        self._available[worker.name] = worker
        self._threads += worker.threads
        self._settle(worker)

    def _dismiss(self, worker: _Worker) -> None:
        """It takes no more leases, if it did."""
        if self._available.get(worker.name) is worker:
            del self._available[worker.name]
            self._threads -= worker.threads
            if not self._available:
                self._deserted_since = self._now
        self._break_promise(worker)

    def _break_promise(self, worker: _Worker) -> None:
        if worker.promised:
            del worker.promised.promised[worker]
            worker.promised = None
        self._settle(worker)

    def _settle(self, worker: _Worker) -> None:
        """Put a worker among the free ones with as many leases, if it is free."""
        self._withhold(worker)
        held = len(worker.leases)
        occupied = any(lease.exclusive or lease.state is _OVERTAKEN for lease in worker.leases.values())
        takes = worker.state is _READY and held < self._slots and not occupied
        if takes and not (worker.promised and held):
            worker.free = self._free[held]
            worker.free[worker] = None

    def _withhold(self, worker: _Worker) -> None:
        if worker.free is not None:
            del worker.free[worker]
            worker.free = None

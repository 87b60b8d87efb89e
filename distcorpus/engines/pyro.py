"""Our Pyro4 engine: the threads that carry the schedule's decisions to workers and bring back what happened.

Each worker has a link: one driver thread and connection a slot, so that its next job travels while it
computes the current one, and one more that pings. What to do is decided in `schedule.py` alone, under one
lock; nothing slow happens under that lock.
"""

from __future__ import annotations

import logging
import math
import queue
import socket
import threading
import time
import traceback
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from distcorpus._text import plural
from distcorpus.algorithms.chunk import Chunk, words_in
from distcorpus.corpora.reference import StoredBlock
from distcorpus.engines.answers import (
    MOST_MISSING,
    FalseAnswer,
    HandedBack,
    Missing,
    largest_answer,
    read_answer,
)
from distcorpus.engines.base import Block, Round
from distcorpus.engines.failures import named, not_added, too_large, tries
from distcorpus.engines.kinds import Kinds, Pulse, RefusedError, WorkerInfo, best_of, read_pulse, read_status
from distcorpus.engines.observer import EngineObserver, JobRecord
from distcorpus.engines.schedule import Cancel, Decision, Drop, Fail, Failure, Finish, Hand, Schedule, Stats
from distcorpus.engines.sidebyside import SideBySide
from distcorpus.engines.states import WorkerState, after, may
from distcorpus.kernels import as_dict
from distcorpus.wire import (
    CallTimeout,
    CannotSendError,
    CommunicationError,
    ConnectionClosedError,
    MessageTooLargeError,
    NamingError,
    SlicedCalls,
    abort,
    close,
    connect,
    is_false_answer,
    location_of,
    remote_traceback,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Seconds between two ticks of the schedule's clock.
TICK_EVERY = 0.25
#: Seconds between two looks into the name server for workers.
DISCOVER_EVERY = 0.5
#: Seconds before an address that refused us is tried again.
RETRY_AFTER = 2.0
#: Seconds between two pings of a worker.
PING_EVERY = 1.0
#: Seconds in which a ping has to be answered; a worker that does not is not handed anything until it does.
PING_DEADLINE = 5.0
#: Seconds between two log lines about a round that waits for a worker.
WAITING_LOG_EVERY = 10.0
#: How many sessions' job records are kept, and how many records of one session.
SESSIONS_RECORDED, RECORDS_KEPT = 64, 10_000
#: How many addresses of workers that were expelled are remembered.
EXPELLED_KEPT = 1000
#: Characters of a worker's traceback, from its end, that are kept.
LONGEST_TRACEBACK = 20_000

#: Seconds for which a worker that lacked a corpus is sent its documents, before it is asked again.
LACKS_FOR = 60.0

#: What `WorkerInfo` says of a link that is not closed.
_SHOWN = {
    WorkerState.READY: "ready",
    WorkerState.SILENT: "silent",
    WorkerState.LEAVING: "leaving",
    WorkerState.LEAVING_SILENT: "leaving",
}


#: Workers that are being connected to at once; further ones are at the next look for some.
MAX_CONNECTING = 64
#: Workers that there may be at once: each takes a thread a slot and one more.
MAX_WORKERS = 1024


class _JobFailed(Exception):
    """A job failed on its worker; the message is the reason."""


@dataclass(frozen=True, slots=True)
class WorkerLook:
    """A worker as it is seen now.

    Attributes
    ----------
    info : WorkerInfo
    joined : float
        In seconds since 1970.
    held : tuple of (str, int, float)
        Session and round of the jobs that it holds, and for how many seconds, the oldest first.
    pulse : Pulse or None
        What it said lately.
    """

    info: WorkerInfo
    joined: float
    held: tuple[tuple[str, int, float], ...]
    pulse: Pulse | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A registered worker that takes no part: whether it is "connecting", "refused", "unreachable" or
    "expelled", and why.
    """

    name: str
    uri: str
    state: str
    reason: str


class _Link:
    """The connections to one worker, and what was sent over them.

    Its state is its worker's as this side knows it, and GONE when it is closed. While the engine has the
    link, it changes under the engine's lock.
    """

    def __init__(self, info: WorkerInfo, schedule: Schedule) -> None:
        self.info = info
        self.schedule = schedule
        self.hands: queue.SimpleQueue[Hand | None] = queue.SimpleQueue()
        self.control: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self.proxies: list[Any] = []
        self.state = WorkerState.READY
        self.joined = time.time()
        self.pulse: Pulse | None = None
        self.under_way: dict[int, tuple[str, int, float]] = {}  # by lease: session, round, since when
        self._lock = threading.Lock()
        self._held: set[tuple[str, int]] = set()
        self._sent: dict[tuple[str, int], NDArray[np.bool_]] = {}
        self._lacks: dict[str, float] = {}  # corpora that it did not have, and when

    def blocks_to_send(self, session: str, numbers: Iterable[int]) -> list[int]:
        """Return which blocks the worker does not hold; from now on it is taken to hold them."""
        with self._lock:
            wanted = [number for number in numbers if (session, number) not in self._held]
            self._held.update((session, number) for number in wanted)
        return wanted

    def miss(self, corpora: Iterable[str]) -> None:
        """The worker has none of some corpora, by their checksums."""
        with self._lock:
            self._lacks.update(dict.fromkeys(corpora, time.monotonic()))

    def lacks(self, corpus: str) -> bool:
        """Return whether the worker had no corpus of that checksum a moment ago."""
        with self._lock:
            return time.monotonic() < self._lacks.get(corpus, -math.inf) + LACKS_FOR

    def words_to_send(self, round_: Round, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the words whose rows it does not hold; from now on it is assumed to hold them."""
        key = (round_.session, round_.number)
        with self._lock:
            if key not in self._sent:
                for old in [old for old in self._sent if old[0] == round_.session]:
                    del self._sent[old]
                self._sent[key] = np.zeros(round_.num_terms, dtype=bool)
            sent = self._sent[key]
            wanted = words[~sent[words]]
            sent[wanted] = True
        return wanted

    def forget_words(self, round_: Round) -> None:
        with self._lock:
            self._sent.pop((round_.session, round_.number), None)

    def forget_blocks(self, session: str, numbers: Iterable[int]) -> None:
        with self._lock:
            self._held.difference_update((session, number) for number in numbers)

    def forget_session(self, session: str) -> None:
        """Let the worker, and this link, give up what belongs to a session that has ended."""
        with self._lock:
            self._held = {held for held in self._held if held[0] != session}
            for key in [key for key in self._sent if key[0] == session]:
                del self._sent[key]
        self.control.put(("forget", session))

    def close(self) -> None:
        """End all threads of the link; calls that wait for an answer fail at once."""
        self.state = after(self.state, "go")
        for proxy in self.proxies:
            abort(proxy)
            self.hands.put(None)
        self.control.put(None)


class PyroEngine:
    """Runs rounds on the worker daemons that are registered in the name server.

    Parameters
    ----------
    list_workers : callable
        Returns {worker name: URI}; may raise while the name server is away.
    slots : int, default 2
        Jobs in a worker's hands at once: one is computed while the next one travels.
    worker_timeout : float, optional
        Seconds that a round waits without any worker before it fails; None waits for ever.
    threads : int, default 1
        Of this process, for what is computed between two rounds; its BLAS has one.
    observer : EngineObserver, optional
        Is told what happens.
    max_workers : int, default 1024
        How many there may be at once. At one address there is one, under whatever names it is registered.
    """

    def __init__(
        self,
        list_workers: Callable[[], Mapping[str, str]],
        *,
        slots: int = 2,
        worker_timeout: float | None = None,
        threads: int = 1,
        observer: EngineObserver | None = None,
        max_workers: int = MAX_WORKERS,
    ) -> None:
        self.stats = Stats()
        self._observer = observer or EngineObserver()
        self._side_by_side = SideBySide(threads)
        self._name = uuid.uuid4().hex
        self._list_workers = list_workers
        self._slots = slots
        self._max_workers = max_workers
        self._worker_timeout = worker_timeout
        self._kinds = Kinds(lambda: Schedule(slots=slots, worker_timeout=worker_timeout, stats=self.stats))
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._links: dict[str, _Link] = {}
        self._connecting: dict[str, str] = {}
        self._next = ""  # the name that is connected to first
        self._refused: dict[tuple[str, str], float] = {}
        self._expelled: OrderedDict[str, str] = OrderedDict()  # by location, the last name seen there
        self._open: set[str] = set()
        self._rounds: dict[str, Round] = {}
        self._rounds_began: dict[str, float] = {}
        self._records: OrderedDict[str, deque[JobRecord]] = OrderedDict()
        self._complained: dict[tuple[str, str], str] = {}  # what is said of registered workers already
        self._unreachable: set[tuple[str, str]] = set()  # those of them that do not answer
        self._log_at = 0.0
        self._stopping = threading.Event()
        # Two threads, since a name server that does not answer must not stop the clock.
        self._threads = [
            threading.Thread(target=self._every, args=(seconds, what), name=what.__name__, daemon=True)
            for seconds, what in ((TICK_EVERY, self._tick), (DISCOVER_EVERY, self._discover))
        ]

    def start(self) -> None:
        """Begin to look for workers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close every connection; rounds under way are not told."""
        self._stopping.set()
        with self._lock:
            links = list(self._links.values())
            self._links.clear()
        for link in links:
            link.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=1.0)

    # What training runs ask.

    @property
    def num_workers(self) -> int:
        with self._lock:
            return len(self._links)

    def hold(self, kernel: Any, documents: Chunk) -> Chunk:
        return documents  # as they are sent, and sent again

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._side_by_side.map(function, items)

    def algebra(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def workers(self) -> Sequence[WorkerInfo]:
        with self._lock:
            return [replace(link.info, state=_SHOWN[link.state]) for link in self._links.values()]

    def refused_workers(self) -> dict[str, str]:
        """Return why registered workers cannot be used."""
        with self._lock:
            return {name: said for (name, _), said in self._complained.items() if said}

    def look(self) -> list[WorkerLook]:
        """Return all workers as they are now."""
        now = time.monotonic()
        with self._lock:
            return [
                WorkerLook(
                    replace(link.info, state=_SHOWN[link.state]),
                    link.joined,
                    tuple((of, round_, now - since) for of, round_, since in link.under_way.values()),
                    link.pulse,
                )
                for link in self._links.values()
            ]

    def unusable_workers(self) -> list[Unusable]:
        """Return the registered workers that take no part."""
        with self._lock:
            found = [
                Unusable(name, uri, "unreachable" if (name, uri) in self._unreachable else "refused", said)
                for (name, uri), said in self._complained.items()
                if said
            ]
            known = {worker.name for worker in found}
            found += [
                Unusable(name, uri, "connecting", "")
                for name, uri in self._connecting.items()
                if name not in known
            ]
            found += [
                Unusable(name, location, "expelled", "it gave a false answer to a job")
                for location, name in self._expelled.items()
            ]
        return found

    def load_of(self, session: str) -> tuple[int, int, bool]:
        """Return how many blocks of a session wait and are with workers, and whether it waits for one."""
        with self._lock:
            schedule = self._kinds.of_session(session)
            if schedule is None:
                return 0, 0, False
            waits = any(name == session for name, _ in schedule.waiting(time.monotonic()))
            return schedule.pending(session), schedule.outstanding(session), waits

    def jobs_of(self, session: str) -> int:
        """Return how many jobs of a session are with workers."""
        with self._lock:
            return sum(of == session for link in self._links.values() for of, _, _ in link.under_way.values())

    def usable_workers(self) -> Sequence[WorkerInfo]:
        """Return the workers that a session which begins now would get."""
        ready = [worker for worker in self.workers() if worker.state == "ready"]
        kernels = best_of(ready)
        return [worker for worker in ready if worker.kernels == kernels]

    def kernels_of(self, session: str) -> str | None:
        """Return the kernels of a session's workers; None where it waits for its first one."""
        with self._lock:
            return self._kinds.kernels_of(session)

    def require_kernels(self, session: str, kernels: str) -> None:
        """Let a session that is about to be opened have no workers but with these kernels."""
        with self._lock:
            self._kinds.require(session, kernels)

    def wait_for_workers(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: any(link.state is WorkerState.READY for link in self._links.values()), timeout
            )

    def open_session(self, session: str) -> None:
        with self._lock:
            self._open.add(session)
            self._records[session] = deque(maxlen=RECORDS_KEPT)
            while len(self._records) > SESSIONS_RECORDED:
                self._records.popitem(last=False)
            ready = [link.info for link in self._links.values() if link.state is WorkerState.READY]
            schedule = self._kinds.begin(session, ready)
            kernels = self._kinds.kernels_of(session)
            others = [info for info in ready if info.kernels != kernels]
            if others:
                logger.warning(
                    "training run %s is computed with %s; workers with other kernels, which could give other "
                    "bits, take no part: %s",
                    session,
                    kernels,
                    ", ".join(f"{info.name} ({info.kernels})" for info in others),
                )
            self._apply(schedule.session_opened(session, time.monotonic()))

    def close_session(self, session: str) -> None:
        with self._lock:
            self._open.discard(session)
            self._rounds.pop(session, None)
            self._rounds_began.pop(session, None)
            schedule = self._kinds.end(session)
            if schedule is not None:
                self._apply(schedule.session_closed(session, time.monotonic()))
            links = list(self._links.values())
        for link in links:
            link.forget_session(session)

    def open_round(self, round_: Round) -> None:
        with self._lock:
            if round_.session not in self._open:
                return  # it was closed while its next round was being made
            self._rounds[round_.session] = round_
            self._rounds_began[round_.session] = time.monotonic()
            schedule = self._kinds.of_session(round_.session)
            assert schedule is not None  # it is open
            self._apply(
                schedule.round_opened(
                    round_.session,
                    round_.number,
                    time.monotonic(),
                    round_.least_job_cost,
                    round_.one_by_one,
                )
            )

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        costs = [(block.number, float(max(block.nnz, 1))) for block in blocks]
        with self._lock:
            schedule = self._kinds.of_session(round_.session)
            if schedule is None:
                return
            self._apply(schedule.blocks_added(round_.session, costs, time.monotonic()))
            round_.progressed(schedule.pending(round_.session))

    def seal_round(self, round_: Round) -> None:
        with self._lock:
            schedule = self._kinds.of_session(round_.session)
            if schedule is not None:
                self._apply(schedule.round_sealed(round_.session, time.monotonic()))

    def records(self, session: str) -> Sequence[JobRecord]:
        with self._lock:
            return list(self._records.get(session, ()))

    def recorded_sessions(self) -> list[str]:
        """Return the sessions that `records` knows, in the order in which they began."""
        with self._lock:
            return list(self._records)

    def worker_leaves(self, name: str, uri: str) -> None:
        """Hand nothing more to a worker, which says that it is ending."""
        with self._lock:
            link = self._links.get(name)
            if link is not None and link.info.uri == uri and may(link.state, "leave"):
                link.state = after(link.state, "leave")
                self._apply(link.schedule.worker_leaving(name, time.monotonic()))

    def exit_workers(self) -> None:
        """Ask every worker to leave and end its process."""
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.control.put(("exit", None))

    # Carrying out what the schedule decides: under the lock, and so nothing here may wait.

    def _apply(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Hand(worker=worker, session=session):
                    link = self._links[worker]
                    link.hands.put(decision)
                    self._rounds[session].progressed(link.schedule.pending(session))
                case Cancel(worker=worker, lease=lease):
                    if worker in self._links:
                        self._links[worker].control.put(("cancel", self._lease_name(lease)))
                case Finish(session=session, round=number):
                    round_ = self._ended(session, number)
                    round_.finished()
                    self._tell_of_round(round_, None)
                case Fail(session=session, round=number, error=error):
                    round_ = self._ended(session, number)
                    failure = RuntimeError(self._describe(round_, error))
                    round_.failed(failure)
                    self._tell_of_round(round_, failure)
                case Drop(worker=worker, reason=reason):
                    self._unlink(worker, reason)

    def _tell_of_round(self, round_: Round, error: BaseException | None) -> None:
        began = self._rounds_began.pop(round_.session, None)
        seconds = 0.0 if began is None else time.monotonic() - began
        self._observer.round_ended(round_.session, round_.kernel.name, seconds, error)

    def _lease_name(self, lease: int) -> str:
        """Return a lease's name on workers, where another dispatcher's may have the same number."""
        return f"{self._name}-{lease}"

    def _ended(self, session: str, number: int) -> Round:
        round_ = self._rounds.pop(session)
        assert round_.number == number
        return round_

    def _describe(self, round_: Round, failure: Failure) -> str:
        if failure.kind == "no_workers":
            kernels = self._kinds.kernels_of(round_.session)
            of_kind = f" with {kernels}, as this training run needs," if self._links else ""
            return (
                f"no worker{of_kind} is connected, and none joined within {self._worker_timeout:g} s: start "
                "one with 'distcorpus worker' (or scripts/run_worker.py) on any host of the cluster"
            )
        what = "; ".join(str(round_.block(number)) for number in failure.blocks)
        tried = tries(failure.attempts)
        last = failure.attempts[-1]
        if failure.kind == "poison":
            return (
                f"{what}: every worker process that computed it ended ({tried}); the last: {last.reason}. "
                "See the workers' logs; where memory ran out, send smaller chunks (chunksize) or add memory"
            )
        return f"{what}: failed in {tried}; the last error, on worker {last.worker}:\n{last.reason}"

    def _unlink(self, worker: str, reason: str) -> None:
        link = self._links.pop(worker, None)
        if link is not None:
            expected = link.state in (WorkerState.LEAVING, WorkerState.LEAVING_SILENT)
            logger.log(logging.INFO if expected else logging.WARNING, "worker %s is gone: %s", worker, reason)
            self._observer.worker_changed(worker, "left" if expected else "lost", reason)
            link.close()
            self._changed.notify_all()

    # Finding workers.

    def _every(self, seconds: float, what: Callable[[float], None]) -> None:
        while not self._stopping.wait(seconds):
            try:
                what(time.monotonic())
            except Exception:  # without these threads nothing would join, or be overtaken, any more
                logger.exception("unexpected, in %s", what.__name__)

    def _tick(self, now: float) -> None:
        with self._lock:
            self._kinds.prune(link.info for link in self._links.values())
            waiting: list[str] = []
            for schedule in self._kinds:
                self._apply(schedule.tick(now))
                waiting += [session for session, _ in schedule.waiting(now)]
            for round_ in self._rounds.values():
                # Blocks leave the queue in other ways than by being handed out.
                schedule = self._kinds.of_session(round_.session)
                if schedule is not None:
                    round_.progressed(schedule.pending(round_.session))
            wanted = {self._kinds.kernels_of(session) for session in waiting} if self._links else set()
        if waiting and now >= self._log_at:
            self._log_at = now + WAITING_LOG_EVERY
            logger.warning(
                "%s %s for a worker%s: start one with 'distcorpus worker' on any host",
                plural(len(waiting), "training run"),
                "waits" if len(waiting) == 1 else "wait",
                f" with {' or '.join(sorted(filter(None, wanted)))}" if wanted else "",
            )

    def _discover(self, now: float) -> None:
        try:
            registered = self._list_workers()
        except (CommunicationError, NamingError) as error:
            logger.debug("cannot list workers: %s", error)
            return
        with self._lock:
            for silent in [link for link in self._links.values() if may(link.state, "answer")]:
                if silent.info.name not in registered:
                    self._lose(silent, "it is silent, and gone from the name server")
            self._refused = {key: until for key, until in self._refused.items() if until > now}
            taken = self._taken()
            there = set(registered.items())
            self._complained = {key: said for key, said in self._complained.items() if key in there}
            self._unreachable &= there
        # Those that never answer take a place for some seconds, and again soon after: so the turn goes on
        # where it had to stop.
        for name, uri in sorted(registered.items(), key=lambda item: (item[0] < self._next, item[0])):
            with self._lock:
                link = self._links.get(name)
                if self._connecting.get(name) == uri or (name, uri) in self._refused:
                    continue
                if len(self._connecting) >= MAX_CONNECTING:
                    self._next = name
                    break
                if self._is_expelled(name, uri):
                    continue
                if link is not None and link.info.uri == uri:
                    continue
                if link is None and (full := self._no_place(taken, name, uri)):
                    self._refuse(name, uri, full)
                    continue
                if link is not None:
                    self._lose(link, f"a worker of the same name registered at {uri}")
                self._connecting[name] = uri
            thread = threading.Thread(
                target=self._connect, args=(name, uri), name=f"connect {name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # this process has as many threads as it may have
                with self._lock:
                    del self._connecting[name]
                    self._refuse(name, uri, str(error))
                break

    def _taken(self) -> dict[str, str]:
        """Return who is at each address (under the lock)."""
        return {location_of(link.info.uri): link.info.name for link in self._links.values()}

    def _no_place(self, taken: Mapping[str, str], name: str, uri: str) -> str:
        """Return why a worker has no place beside the others, in words (under the lock)."""
        there = taken.get(location_of(uri), name)
        if there != name:
            return (
                f"at {location_of(uri)} there is worker {there}, and one address is one worker: start each "
                "worker by itself, with --threads for more cores"
            )
        if len(self._links) >= self._max_workers:
            return (
                f"the dispatcher has {len(self._links)} workers and takes no more: start it with a larger "
                "--max-workers"
            )
        return ""

    def _refuse(self, name: str, uri: str, said: str, unreachable: bool = False) -> None:
        """Do without a worker for a while (under the lock); it is said once why."""
        complained = (name, uri) in self._complained
        self._complained[name, uri] = said
        self._refused[name, uri] = time.monotonic() + RETRY_AFTER
        if unreachable:
            self._unreachable.add((name, uri))
        if not complained:
            self._observer.worker_changed(name, "refused", said)
        logger.log(
            logging.DEBUG if complained else logging.WARNING,
            "worker %s at %s cannot be used: %s%s",
            name,
            uri,
            said,
            ". Its address has to be reachable from here: see its --bind and --advertise"
            if unreachable
            else "",
        )

    def _connect(self, name: str, uri: str) -> None:
        proxies: list[Any] = []
        link: _Link | None = None
        try:
            proxies.extend(connect(uri, timeout=PING_DEADLINE) for _ in range(self._slots + 1))
            info = read_status(name, uri, proxies[0].status())
            for proxy in proxies[1:]:
                # A job takes as long as it takes; the pings tell whether the worker is alive.
                proxy._pyroTimeout = None
            link = self._join(name, uri, info, proxies)
            if link is not None:
                self._serve_link(link)
        except Exception as error:  # whatever is wrong with it, it is one worker fewer and no more
            if link is not None:  # nobody would hand it anything
                with self._lock:
                    self._lose(link, f"it cannot be served: {error}")
            if isinstance(error, RefusedError):
                with suppress(Exception):  # one of another version may not know the call
                    proxies[0].refused(f"{error} (the dispatcher runs on {socket.gethostname()})")
            for proxy in proxies:
                close(proxy)
            unreachable = isinstance(error, CommunicationError) and not remote_traceback(error)
            with self._lock:
                self._refuse(name, uri, str(error), unreachable)
                if self._connecting.get(name) == uri:
                    del self._connecting[name]

    def _join(self, name: str, uri: str, info: WorkerInfo, proxies: list[Any]) -> _Link | None:
        """Take in a worker that has been connected to; None where it has registered elsewhere meanwhile.

        Raises
        ------
        RuntimeError
            Others have taken its place.
        """
        with self._changed:
            if full := self._no_place(self._taken(), name, uri):
                raise RuntimeError(full)
            link = _Link(info, self._kinds.of(info.kernels))
            link.proxies = proxies
            if self._stopping.is_set() or self._connecting.get(name) != uri:
                link.close()
                return None
            del self._connecting[name]
            self._complained[name, uri] = ""  # when it is gone, that will have been said
            self._unreachable.discard((name, uri))
            self._links[name] = link
            logger.info(
                "worker %s joined (%s, pid %d, %s, %s)",
                name,
                info.host,
                info.pid,
                plural(info.threads, "thread"),
                info.kernels,
            )
            self._observer.worker_changed(name, "joined", f"{info.host}, {plural(info.threads, 'thread')}")
            self._apply(link.schedule.worker_joined(name, time.monotonic(), threads=info.threads))
            self._changed.notify_all()
            return link

    def _serve_link(self, link: _Link) -> None:
        """Start the threads of a link; raises RuntimeError where this process may have no more."""
        name, (first, *others) = link.info.name, link.proxies
        threading.Thread(target=self._ping, args=(link, first), name=f"ping {name}", daemon=True).start()
        for proxy in others:
            threading.Thread(
                target=self._drive, args=(link, proxy), name=f"drive {name}", daemon=True
            ).start()

    def _lose(self, link: _Link, reason: str) -> None:
        """Take a worker as lost (under the lock)."""
        if self._links.get(link.info.name) is link:
            self._unlink(link.info.name, reason)
            self._apply(link.schedule.worker_lost(link.info.name, reason, time.monotonic()))

    def _expel(self, link: _Link, reason: str) -> None:
        """Drop a worker for good, by its address (under the lock): what it answers cannot be believed."""
        location = location_of(link.info.uri)
        if location not in self._expelled:
            logger.error(
                "worker %s at %s is expelled: %s. Its jobs go to others, and nothing at this address is used "
                "again: check what runs there, and start the worker again at another address",
                link.info.name,
                location,
                reason,
            )
            self._expelled[location] = link.info.name
            while len(self._expelled) > EXPELLED_KEPT:
                self._expelled.popitem(last=False)
        for other in [other for other in self._links.values() if location_of(other.info.uri) == location]:
            del self._links[other.info.name]
            other.close()
            self._observer.worker_changed(other.info.name, "expelled", reason)
            self._apply(other.schedule.worker_expelled(other.info.name, reason, time.monotonic()))
        self._changed.notify_all()

    def _is_expelled(self, name: str, uri: str) -> bool:
        """Whether nothing at this address is used (under the lock)."""
        location = location_of(uri)
        seen = self._expelled.get(location)
        if seen is not None and seen != name:
            logger.warning(
                "worker %s at %s is not used: worker %s was expelled there. Start it at another --bind-port, "
                "or restart the dispatcher",
                name,
                location,
                seen,
            )
            self._expelled[location] = name
        return seen is not None

    # One worker's ping thread.

    def _ping(self, link: _Link, proxy: Any) -> None:
        name = link.info.name
        message: tuple[str, Any] | None = None
        while link.state is not WorkerState.GONE:
            if message is None:
                try:
                    message = link.control.get(timeout=PING_EVERY)
                except queue.Empty:
                    message = ("ping", None)
                if message is None:
                    break
            try:
                self._tell(link, proxy, *message)
                message = None
            except CommunicationError as error:
                # A message that was not answered is sent again when the worker answers.
                timed_out = isinstance(error, CallTimeout) or _connecting_timed_out(error)
                with self._lock:
                    if not timed_out:
                        self._lose(link, _how_lost(error))
                    elif may(link.state, "fall silent") and self._links.get(name) is link:
                        link.state = after(link.state, "fall silent")
                        logger.warning(
                            "worker %s is silent for %g s: its jobs go to others", name, PING_DEADLINE
                        )
                        self._observer.worker_changed(
                            name, "silent", "it does not answer; its jobs go to others"
                        )
                        self._apply(link.schedule.worker_silent(name, time.monotonic()))
            except Exception:
                logger.exception("worker %s answered a message with an error", name)
                message = None
        close(proxy)

    def _tell(self, link: _Link, proxy: Any, what: str, argument: Any) -> None:
        if what == "forget":
            proxy.forget(argument)
        elif what == "cancel":
            proxy.cancel([argument])
        elif what == "exit":
            proxy.exit()
        asked, began = time.time(), time.perf_counter()
        said = proxy.pulse()
        seconds = time.perf_counter() - began
        link.pulse = read_pulse(said, asked, seconds)
        with self._lock:
            if may(link.state, "answer") and self._links.get(link.info.name) is link:
                link.state = after(link.state, "answer")
                logger.info("worker %s answers again", link.info.name)
                self._observer.worker_changed(link.info.name, "answers", "")
                self._apply(link.schedule.worker_answered(link.info.name, time.monotonic()))
                self._changed.notify_all()

    # One slot's driver thread.

    def _drive(self, link: _Link, proxy: Any) -> None:
        # Each job in a call of its own: a thread that waits for the next one holds nothing of a round.
        calls = SlicedCalls(proxy)
        while (hand := link.hands.get()) is not None and self._serve(link, calls, hand):
            pass
        close(proxy)

    def _serve(self, link: _Link, calls: SlicedCalls, hand: Hand) -> bool:
        """Carry out one decision; False where the worker is lost."""
        with self._lock:
            round_ = self._rounds.get(hand.session)
            if round_ is None or round_.number != hand.round:
                self._apply(link.schedule.discarded(hand.lease, time.monotonic()))
                return True
            link.under_way[hand.lease] = hand.session, hand.round, time.monotonic()
        began = time.time()
        try:
            return self._serve_round(link, calls, hand, round_, began)
        finally:
            with self._lock:
                del link.under_way[hand.lease]

    def _serve_round(self, link: _Link, calls: SlicedCalls, hand: Hand, round_: Round, began: float) -> bool:
        def tell(outcome: str) -> None:
            self._observer.job_ended(_record(link, hand, round_, began, outcome))

        try:
            self._lease(link, calls, hand, round_, began)
        except FalseAnswer as error:
            tell("failed")
            with self._lock:
                self._expel(link, f"it gave a false answer to a job: {error}")
            return False
        except _JobFailed as failure:
            tell("failed")
            # Whether what was sent with it has arrived cannot be told.
            self._forget(link, hand, round_)
            with self._lock:
                self._apply(link.schedule.failed(hand.lease, str(failure), time.monotonic()))
        except CommunicationError as error:
            tell("lost")
            with self._lock:
                self._lose(link, _how_lost(error))
            return False
        except Exception as error:
            self._forget(link, hand, round_)
            if isinstance(error, OverflowError) and remote_traceback(error):
                tell("failed")
                self._fail(round_, too_large(_blocks_of(hand, round_), error))
            else:
                self._own_fault(hand, round_, error)
            with self._lock:
                self._apply(link.schedule.discarded(hand.lease, time.monotonic()))
        with self._lock:
            ended = hand.session not in self._open
        if ended:  # what came with the job is there after the session was forgotten
            link.forget_session(hand.session)
        return True

    def _forget(self, link: _Link, hand: Hand, round_: Round) -> None:
        """Take what was sent with a job as not sent."""
        link.forget_blocks(hand.session, hand.blocks)
        link.forget_words(round_)

    def _own_fault(self, hand: Hand, round_: Round, error: Exception) -> None:
        """Fail a round for an error that was raised here: on no other worker would it fare better."""
        what = named(_blocks_of(hand, round_))
        logger.error("training run %s, %s: the dispatcher failed", hand.session, what, exc_info=error)
        trace = "".join(traceback.format_exception(error))
        text = f"{what}: the dispatcher itself failed, no worker is at fault; its log has the same:\n{trace}"
        self._fail(round_, RuntimeError(text))

    def _fail(self, round_: Round, error: Exception) -> None:
        """Compute no more of a round, and say why."""
        round_.failed(error)
        with self._lock:
            schedule = self._kinds.of_session(round_.session)
            if schedule is not None and self._rounds.get(round_.session) is round_:
                del self._rounds[round_.session]
                self._apply(schedule.round_given_up(round_.session, round_.number, time.monotonic()))

    def _lease(self, link: _Link, calls: SlicedCalls, hand: Hand, round_: Round, began_at: float) -> None:
        """Hand one job to the worker and take back what comes of it.

        Raises
        ------
        _JobFailed
            The job was raised by the worker, cannot be sent to it, or its answer is none.
        CommunicationError
            The worker is lost.
        Exception
            Anything else is a fault of this process.
        """
        blocks = _blocks_of(hand, round_)
        if len(blocks) < len(hand.blocks):  # another worker was faster
            with self._lock:
                self._apply(link.schedule.discarded(hand.lease, time.monotonic()))
            return
        words = words_in([block.words for block in blocks], round_.num_terms)
        to_send: Sequence[int] = hand.blocks
        if round_.keep_blocks:
            to_send = link.blocks_to_send(hand.session, hand.blocks)
        new_words = link.words_to_send(round_, words)
        handed_at = time.monotonic()
        calls.most = largest_answer(round_, blocks, words)
        for _ in range(MOST_MISSING):
            job, bytes_sent = self._job(hand, round_, blocks, to_send, new_words, link.lacks)
            began = time.monotonic()
            reply = _ask(link, calls, job)
            ended = time.monotonic()
            answer = read_answer(reply, job["lease"], round_, blocks, words)
            if not isinstance(answer, Missing):
                break
            # All blocks of the job, since those that it holds may have to make room for the others.
            to_send = hand.blocks
            if answer.rows:
                link.forget_words(round_)
            else:
                link.miss(corpora_of(blocks))
            new_words = link.words_to_send(round_, words)
        else:
            raise FalseAnswer(f"{MOST_MISSING} times it missed what it had just been sent")
        if isinstance(answer, HandedBack):
            with self._lock:
                self._apply(link.schedule.handed_back(hand.lease, time.monotonic()))
            self._observer.job_ended(_record(link, hand, round_, began_at, "handed back", blocks))
            return
        result = answer.result
        record = replace(
            _record(link, hand, round_, began_at, "accepted", blocks),
            bytes_sent=bytes_sent,
            bytes_received=result.nbytes,
            transfer_seconds=ended - began - answer.held,
            queue_seconds=began - handed_at + answer.waited,
            compute_seconds=answer.computed,
        )
        with self._lock:
            accepted = link.schedule.delivered(hand.lease, time.monotonic())
            if not accepted:
                self._apply(link.schedule.discarded(hand.lease, time.monotonic()))
                self._observer.job_ended(replace(record, outcome="discarded"))
                return
        sum_began = time.monotonic()
        try:
            round_.add(hand.blocks, result)
        except Exception as error:
            logger.exception("a result cannot be taken in")
            self._fail(round_, not_added(blocks, f"worker {link.info.name}", error))
        record = replace(record, sum_seconds=time.monotonic() - sum_began)
        with self._lock:
            if hand.session in self._records:
                self._records[hand.session].append(record)
            self._observer.job_ended(record)
            self._apply(link.schedule.summed(hand.lease, time.monotonic()))

    def _job(
        self,
        hand: Hand,
        round_: Round,
        blocks: Sequence[Block],
        to_send: Sequence[int],
        words: NDArray[np.int32],
        lacks: Callable[[str], bool],
    ) -> tuple[dict[str, Any], int]:
        wanted = set(to_send)
        payload: dict[int, tuple[NDArray, ...]] = {}
        stored: dict[int, tuple[Any, ...]] = {}
        for block in blocks:
            documents = block.documents
            if isinstance(documents, StoredBlock):
                stored[block.number] = documents.reference.to_message()
                if block.number in wanted and lacks(documents.reference.corpus):
                    chunk = documents.documents()
                    payload[block.number] = (chunk.indptr, chunk.indices, chunk.data, block.words)
            elif block.number in wanted:
                payload[block.number] = (documents.indptr, documents.indices, documents.data)
        rows = round_.rows(words)
        job = {
            "lease": self._lease_name(hand.lease),
            "session": hand.session,
            "round": hand.round,
            "kernel": round_.kernel.name,
            "params": as_dict(round_.params),
            "num_terms": round_.num_terms,
            "blocks": [(block.number, block.key) for block in blocks],
            "payload": payload,
            "stored": stored,
            "keep": round_.keep_blocks,
            "words": words,
            "rows": rows,
        }
        nbytes = words.nbytes + rows.nbytes + sum(a.nbytes for arrays in payload.values() for a in arrays)
        return job, nbytes


def _record(
    link: _Link, hand: Hand, round_: Round, began: float, outcome: str, blocks: Sequence[Block] | None = None
) -> JobRecord:
    """Return what is known of every job that has ended."""
    if blocks is None:
        blocks = _blocks_of(hand, round_)
    return JobRecord(
        session=hand.session,
        round=hand.round,
        kernel=round_.kernel.name,
        worker=link.info.name,
        blocks=tuple(str(block) for block in blocks),
        documents=sum(block.n_docs for block in blocks),
        began=began,
        outcome=outcome,
    )


def _blocks_of(hand: Hand, round_: Round) -> list[Block]:
    """Return the blocks of a job; those that are done already are not known any more."""
    return [block for number in hand.blocks if (block := round_.block(number)) is not None]


def corpora_of(blocks: Iterable[Block]) -> set[str]:
    """Return the corpora that some blocks are references to."""
    return {b.documents.reference.corpus for b in blocks if isinstance(b.documents, StoredBlock)}


def _ask(link: _Link, calls: SlicedCalls, job: dict[str, Any]) -> Any:
    """Let a worker compute a job, and return its answer as it arrived.

    Raises
    ------
    _JobFailed
        It answered with an error; or the message is too large.
    OverflowError
        It answered with this one, see `too_large`.
    FalseAnswer
        What it answered cannot be read.
    CommunicationError
        It is lost.
    """
    try:
        return calls("process", job)
    except CannotSendError as error:
        raise TypeError(str(error)) from error  # before the worker heard of it
    except Exception as error:
        if is_false_answer(error):
            raise FalseAnswer(str(error)) from error
        trace = remote_traceback(error)[-LONGEST_TRACEBACK:]
        if trace and isinstance(error, OverflowError):
            raise
        if not trace and not isinstance(error, MessageTooLargeError):
            raise
        logger.warning("worker %s: a job failed: %s", link.info.name, error)
        raise _JobFailed(trace or repr(error)) from error


def _how_lost(error: CommunicationError) -> str:
    """Say how a worker was lost, in words that need no knowledge of sockets."""
    if isinstance(error, ConnectionClosedError):
        return "it closed the connection, or its process ended; its jobs go to other workers"
    return f"it cannot be reached any more ({error}); its jobs go to other workers"


def _connecting_timed_out(error: CommunicationError) -> bool:
    """Whether a peer did not answer a connection in time, as one that is stopped; the kernel's own ETIMEDOUT,
    which has a number, says that its host is gone.
    """
    return isinstance(error.__cause__, TimeoutError) and error.__cause__.errno is None

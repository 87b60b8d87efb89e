"""The engine on a Dask cluster: jobs are tasks on Dask's workers, which need no daemon of ours.

What to do is decided in `schedule.py`, as for our own cluster; here are coroutines on the client's event loop
that carry it out, a job each, and a thread that watches which workers there are. Blocks and rows of the
shared table go straight to the worker that a job is for, and results come straight back. Dask cannot compute
again what is sent that way: it is kept here, and sent to another worker where one is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError as ConcurrentCancelledError
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dask
import distributed
from dask.utils import parse_timedelta
from distributed.worker import get_data_from_worker

from distcorpus._text import plural
from distcorpus.algorithms.chunk import Chunk, words_in
from distcorpus.engines import dasksums
from distcorpus.engines.base import Block, Round
from distcorpus.engines.dasksums import Held, Job, SumOnWorkers
from distcorpus.engines.dasktasks import (
    KIND,
    LOST,
    JobError,
    Parcel,
    Placed,
    SharedRows,
    compute_job,
    free,
    greet,
    here,
    line_of,
    nothing,
    report_of,
    versions,
    widened,
)
from distcorpus.engines.failures import named, not_added, too_large
from distcorpus.engines.observer import JobRecord, watching
from distcorpus.engines.schedule import Cancel, Decision, Drop, Fail, Failure, Finish, Hand, Schedule
from distcorpus.engines.states import WorkerState, after, may
from distcorpus.engines.threads import ThreadsEngine, available_threads

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Seconds between two looks at which workers there are.
LOOK_EVERY = 0.5
#: Seconds that a training waits at its beginning for workers that are being prepared: without them one alone
#: would take the whole first round.
PREPARE_WITHIN = 0.5
#: Seconds in which the scheduler has to answer such a look, and a worker has to be reached.
ANSWER_WITHIN = 5.0
#: Seconds without an answer of the scheduler after which it is lost.
SCHEDULER_TIMEOUT = 20.0
#: Seconds without a heartbeat after which a worker is handed nothing, and its jobs go to others.
SILENT_AFTER = 15.0
#: How often a job's data are sent to a worker that loses them and is still there.
SENDINGS = 3
#: Seconds between two of them.
SEND_AGAIN_AFTER = 0.5
#: Seconds until a worker is asked again that sends too much already.
BUSY_FOR = 0.05
#: Seconds that the scheduler may need to read a task.
GRAPH_WITHIN = 1.0
#: Seconds between two log lines about a round that waits for a worker.
WAITING_LOG_EVERY = 10.0


def checked_client(client: Any) -> Any:
    """Return the client that a program means.

    Parameters
    ----------
    client : Client, or "active"
        ``"active"`` is the one that Dask itself would use: of the task that runs here, else the newest.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If there is none, or it is closed, or it is one for coroutines.
    """
    if isinstance(client, str) and client == "active":
        try:
            client = distributed.get_client()
        except ValueError:
            raise ValueError('client="active", but there is no Dask client: make one, Client(...)') from None
    if not isinstance(client, distributed.Client):
        raise TypeError(
            f"client is a {type(client).__name__}: give a dask.distributed.Client, or "
            '"active" for the current one'
        )
    if client.asynchronous:
        raise ValueError(
            "client is asynchronous, and training waits: give Client(...) without asynchronous=True, from a "
            "thread that runs no event loop (await asyncio.to_thread(...))"
        )
    if client.status not in ("running", "connecting"):
        raise ValueError(f"client is {client.status}: give a client that is connected, Client(...)")
    return client


@dataclass(eq=False)
class _Worker:
    """A worker of the cluster that takes jobs.

    Attributes
    ----------
    name : str
        What errors, logs and the schedule call it.
    direct : bool
        Whether this process reaches it, and need not go through the scheduler.
    held : dict
        The blocks that it keeps, by session and number.
    leases : dict
        The coroutines that see to its jobs.
    stay : Future
        Of the `Stay` there: while it is not released, the worker is prepared.
    state : WorkerState
        What the schedule was told of it last.
    """

    name: str
    address: str
    threads: int
    direct: bool
    stay: distributed.Future
    held: dict[tuple[str, int], distributed.Future] = field(default_factory=dict)
    leases: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    state: WorkerState = WorkerState.READY
    heartbeat: Any = None
    heard_at: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class _Job:
    """A job that a worker computes, and what it costs: see `JobRecord`."""

    worker: _Worker
    hand: Hand
    round: Round
    blocks: Sequence[Block]
    began: float = field(default_factory=time.time)
    bytes_sent: int = 0
    bytes_received: int = 0
    transfer_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0

    def tell(self, outcome: str, sum_seconds: float = 0.0) -> None:
        """Tell those who watch what came of it."""
        for observer in watching():
            observer.job_ended(
                JobRecord(
                    session=self.hand.session,
                    round=self.hand.round,
                    kernel=self.round.kernel.name,
                    worker=self.worker.name,
                    blocks=tuple(map(str, self.blocks)),
                    documents=sum(block.n_docs for block in self.blocks),
                    began=self.began,
                    outcome=outcome,
                    bytes_sent=self.bytes_sent,
                    bytes_received=self.bytes_received,
                    transfer_seconds=self.transfer_seconds,
                    queue_seconds=self.queue_seconds,
                    compute_seconds=self.compute_seconds,
                    sum_seconds=sum_seconds,
                )
            )


class DaskEngine:
    """Computes rounds on the workers of a Dask cluster, from when it is entered until it is left.

    In a task of the cluster it gives the task's place to others meanwhile, as `distributed.worker_client`.

    Parameters
    ----------
    client : Client or "active"
        See `checked_client`.
    """

    def __init__(self, client: Any) -> None:
        self._client: Any = checked_client(client)
        self._id = uuid.uuid4().hex[:12]
        self._serials = itertools.count()
        self._here = ThreadsEngine()  # for what is computed between two rounds
        self._pool = ThreadPoolExecutor(available_threads(), thread_name_prefix="distcorpus-sum")
        timeout = parse_timedelta(dask.config.get("distributed.scheduler.no-workers-timeout"))
        # The second slot is for what comes while a job is computed: later blocks, another session's, and
        # those of a worker that is gone.
        self._schedule = Schedule(slots=2, worker_timeout=timeout or None)
        self._worker_timeout = timeout
        self._lock = threading.Lock()
        self._rounds: dict[str, Round] = {}
        self._sessions: set[str] = set()
        self._workers: dict[str, _Worker] = {}  # by address, also those that are leaving
        self._by_name: dict[str, _Worker] = {}  # those that the schedule knows
        self._joining: dict[str, ConcurrentFuture[None]] = {}
        self._refused: dict[str, str] = {}  # why, by address
        self._kind = ""  # see `_other_kind`
        self._lost: str | None = None  # why no round can be computed any more
        self._answered_at = time.monotonic()
        self._log_at = time.monotonic() + WAITING_LOG_EVERY
        self._ticket: distributed.Future | None = None
        self._sums: dict[Round, SumOnWorkers] = {}  # of rounds whose partials stay on the workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._look_now = threading.Event()
        self._prepared = threading.Event()  # all workers that there were at the beginning, once
        self._watcher = threading.Thread(target=self._watch, name="distcorpus-dask", daemon=True)
        self._gave_place: threading.Thread | None = None

    def __enter__(self) -> DaskEngine:
        self._loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        try:
            self._gave_place = give_place()
            self._watcher.start()
            self._prepared.wait(PREPARE_WITHIN)
        except BaseException:  # nobody leaves what was not entered, and workers are being prepared
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        if self._gave_place is threading.current_thread():
            distributed.rejoin()

    def close(self) -> None:
        """Drop all jobs, and all that is on the workers."""
        self._stopping = True
        self._look_now.set()
        with ExitStack() as steps:  # the last one first; an interruption of one leaves out no other
            steps.callback(self._here.close)
            steps.callback(self._pool.shutdown)
            steps.callback(self._leave_cluster)
            if self._watcher.ident is not None:  # else it was not started, or ends as soon as it is
                self._watcher.join()

    def _leave_cluster(self) -> None:
        with self._lock:
            for round_ in list(self._rounds.values()):
                self._give_up(round_)
        with suppress(TimeoutError, ConcurrentCancelledError, asyncio.TimeoutError, RuntimeError):
            self._on_loop(self._leave()).result(ANSWER_WITHIN)

    # What training runs ask.

    @property
    def num_workers(self) -> int:
        with self._lock:
            return len(self._by_name)

    def hold(self, kernel: Any, documents: Any) -> Any:
        if isinstance(documents, Chunk):
            return kernel.pack(documents)  # kept as long as the round may have to send it again
        return documents.packed(kernel)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._here.map(function, items)

    def algebra(self) -> AbstractContextManager[Any]:
        return self._here.algebra()

    def open_session(self, session: str) -> None:
        with self._lock:
            self._sessions.add(session)
            self._apply(self._schedule.session_opened(session, time.monotonic()))

    def close_session(self, session: str) -> None:
        with self._lock:
            self._sessions.discard(session)
            self._rounds.pop(session, None)
            self._apply(self._schedule.session_closed(session, time.monotonic()))
        self._post(self._forget, session)

    def open_round(self, round_: Round) -> None:
        with self._lock:
            if round_.session not in self._sessions:
                return
            if self._lost is not None:
                round_.failed(RuntimeError(self._lost))
                return
            self._rounds[round_.session] = round_
            # A task takes some 10 ms, whatever it computes: a worker gets its share of what there is as one
            # job, however little the kernel would have a job cost.
            least_job_cost, now = math.inf, time.monotonic()
            self._apply(
                self._schedule.round_opened(
                    round_.session, round_.number, now, least_job_cost, round_.one_by_one
                )
            )

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        costs = [(block.number, float(max(block.nnz, 1))) for block in blocks]
        placed = [(b.number, b.documents.address) for b in blocks if isinstance(b.documents, Placed)]
        with self._lock:
            if self._rounds.get(round_.session) is round_:
                there = {n: self._workers[where].name for n, where in placed if where in self._workers}
                self._apply(self._schedule.blocks_added(round_.session, costs, time.monotonic(), there))
                round_.progressed(self._schedule.pending(round_.session))

    def seal_round(self, round_: Round) -> None:
        with self._lock:
            if self._rounds.get(round_.session) is round_:
                self._apply(self._schedule.round_sealed(round_.session, time.monotonic()))

    # Carrying out what the schedule decides: under the lock, and so nothing here may wait.

    def _apply(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Hand(session=session):
                    self._rounds[session].progressed(self._schedule.pending(session))
                    self._post(self._start, decision)
                case Cancel(worker=name, lease=lease):
                    self._post(self._cancel, name, lease)
                case Finish(session=session):
                    self._rounds.pop(session).finished()
                case Fail(session=session, error=failure):
                    round_ = self._rounds.pop(session)
                    round_.failed(RuntimeError(self._describe(round_, failure)))
                case Drop(worker=name, reason=reason):
                    self._by_name.pop(name, None)
                    logger.info("Dask worker %s takes no more jobs: %s", name, reason)

    def _give_up(self, round_: Round) -> None:
        """Compute no more of a round."""
        if self._rounds.get(round_.session) is round_:
            del self._rounds[round_.session]
            self._apply(self._schedule.round_given_up(round_.session, round_.number, time.monotonic()))

    def _describe(self, round_: Round, failure: Failure) -> str:
        if failure.kind == "no_workers":
            return (
                f"the Dask cluster has no worker, and none joined within {self._worker_timeout:g} s "
                "(distributed.scheduler.no-workers-timeout): start some, client.cluster.scale(n)"
            )
        what = "; ".join(str(round_.block(number)) for number in failure.blocks)
        names = ", ".join(attempt.worker for attempt in failure.attempts)
        last = failure.attempts[-1]
        if failure.kind == "poison":
            return (
                f"{what}: every Dask worker that computed it ended ({names}); the last: {last.reason}. See "
                "the workers' logs; where memory ran out, give smaller chunks (chunksize) or larger workers"
            )
        return (
            f"{what}: failed on Dask worker {names}; the last error, on worker {last.worker}:\n{last.reason}"
        )

    def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> ConcurrentFuture[T]:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the watcher will say so
            self._loop.call_soon_threadsafe(function, *arguments)

    # The watcher's thread: it goes on where the client's loop does not.

    def _watch(self) -> None:
        while not self._stopping:
            try:
                self._look()
            except Exception:
                logger.exception("unexpected, in looking for Dask workers")
            self._look_now.wait(LOOK_EVERY)
            self._look_now.clear()

    def _look(self) -> None:
        asked: ConcurrentFuture[Any] | None = None
        try:
            asked = self._on_loop(self._identity())
            identity = asked.result(ANSWER_WITHIN)
        except (Exception, ConcurrentCancelledError) as error:
            if asked is not None:
                asked.cancel()
            self._no_answer(error)
            return
        now = self._answered_at = time.monotonic()
        found = identity["workers"]
        with self._lock:
            for address in [address for address in self._workers if address not in found]:
                self._lose(self._workers.pop(address), now)
            for address in [address for address in self._joining if address not in found]:
                self._joining.pop(address).cancel()
            for address in [address for address in self._refused if address not in found]:
                del self._refused[address]
            for address, info in found.items():
                if address in self._workers:
                    self._check_worker(self._workers[address], info, now)
                elif address not in self._joining and address not in self._refused and not self._stopping:
                    self._joining[address] = self._on_loop(self._join(address, info))
            self._tick(now, len(found))
            if not self._joining:
                self._prepared.set()

    async def _identity(self) -> dict[str, Any]:
        # What the client itself caches of this is refreshed with a few workers only.
        identity: dict[str, Any] = await self._client.scheduler.identity(n_workers=-1)
        return identity

    def _no_answer(self, error: BaseException) -> None:
        """Give up where the scheduler is lost for good."""
        silent_for = time.monotonic() - self._answered_at
        closed = self._client.status in ("closing", "closed")
        if self._lost is not None or self._stopping or not (closed or silent_for > SCHEDULER_TIMEOUT):
            return
        address = self._client.scheduler.address if self._client.scheduler else "that there was"
        why = "the client was closed" if closed else f"no answer for {silent_for:.0f} s ({error!r})"
        with self._lock:
            self._lost = (
                f"the Dask scheduler {address} is lost: {why}. See its log, and train again with a new "
                "Client; an LDA model is as after its latest update, an LSI model as before the call"
            )
            for round_ in list(self._rounds.values()):
                self._give_up(round_)
                round_.failed(RuntimeError(self._lost))

    def _check_worker(self, worker: _Worker, info: Mapping[str, Any], now: float) -> None:
        """Take in what the scheduler says of a worker (under the lock)."""
        if info["last_seen"] != worker.heartbeat:
            worker.heartbeat, worker.heard_at = info["last_seen"], now
        if info["status"].startswith("clos") and may(worker.state, "leave"):
            worker.state = after(worker.state, "leave")
            self._apply(self._schedule.worker_leaving(worker.name, now))
        silent = now - worker.heard_at > SILENT_AFTER or info["status"] == "paused"
        if silent and may(worker.state, "fall silent"):
            logger.warning("Dask worker %s is silent or paused: its jobs go to others", worker.name)
            worker.state = after(worker.state, "fall silent")
            self._apply(self._schedule.worker_silent(worker.name, now))
        elif not silent and may(worker.state, "answer"):
            worker.state = after(worker.state, "answer")
            self._apply(self._schedule.worker_answered(worker.name, now))

    def _lose(self, worker: _Worker, now: float) -> None:
        """Take a worker as lost (under the lock)."""
        self._by_name.pop(worker.name, None)
        expected = worker.state in (WorkerState.LEAVING, WorkerState.LEAVING_SILENT)
        logger.log(logging.INFO if expected else logging.WARNING, "Dask worker %s is gone", worker.name)
        worker.state = after(worker.state, "go")
        self._apply(self._schedule.worker_lost(worker.name, "it is gone from the Dask cluster", now))
        self._post(self._abandon, worker)

    def _tick(self, now: float, present: int) -> None:
        """Let the schedule know the time, and see to rounds that wait for a worker (under the lock)."""
        self._apply(self._schedule.tick(now))
        for round_ in self._rounds.values():
            round_.progressed(self._schedule.pending(round_.session))
        waiting = self._schedule.waiting(now)
        self._post(self._call_for_worker, bool(waiting) and not present)
        if waiting and present and present == len(self._refused):
            reasons = "; ".join(self._refused.values())
            for session, _ in waiting:
                round_ = self._rounds[session]
                self._give_up(round_)
                round_.failed(RuntimeError(f"no worker of the Dask cluster can be used: {reasons}"))
        elif not waiting:
            self._log_at = now + WAITING_LOG_EVERY
        elif now >= self._log_at:
            self._log_at = now + WAITING_LOG_EVERY
            logger.warning("waiting for a worker of the Dask cluster %s", self._client.scheduler.address)

    # From here on all runs on the client's loop.

    def _call_for_worker(self, wanted: bool) -> None:
        """Keep a task waiting as long as there is no worker: adaptive clusters start one for it."""
        if not wanted:
            if self._ticket is not None:
                let_go(self._loop, self._ticket)
            self._ticket = None
        elif self._ticket is None or self._ticket.done():
            self._ticket = self._client.submit(nothing, key=self._key(None, "worker"), pure=False)

    async def _join(self, address: str, info: Mapping[str, Any]) -> None:
        """Look whether a worker can be used, and prepare it."""
        name = f"{info['name']} ({address})" if str(info["name"]) != address else address
        refusal: str | None = None
        worker, kind = None, ""
        with ExitStack() as leaving:
            try:
                stay = self._on_worker(address, self._key(None, "greet"), greet)
                leaving.callback(let_go, self._loop, stay)
                direct = await self._reaches(address)  # meanwhile
                there = await self._result(stay, address, direct)
                refusal, kind = _differences(there), there[KIND]
                worker = _Worker(name, address, int(info["nthreads"]), direct, stay)
            except LOST:
                pass  # it is gone, or the next look tries again
            except Exception as error:
                refusal = f"{type(error).__name__}: {error}. Is distcorpus installed there?"
            with self._lock:
                self._joining.pop(address, None)
                if not self._joining:
                    self._prepared.set()
                if worker is not None and refusal is None:
                    refusal = self._other_kind(kind)
                if refusal is not None:
                    self._refused[address] = f"{name}: {refusal}"
                    logger.warning("Dask worker %s cannot be used: %s", name, refusal)
                elif worker is not None and not self._stopping:
                    leaving.pop_all()
                    self._workers[address] = self._by_name[name] = worker
                    logger.info("Dask worker %s joined, %s", name, plural(worker.threads, "thread"))
                    self._apply(self._schedule.worker_joined(name, time.monotonic(), threads=worker.threads))

    def _other_kind(self, kind: str) -> str | None:
        """Return in what a worker's kernels differ from those of the first one, if they do (under the lock).

        This process only adds up: its own may be others.
        """
        self._kind = self._kind or kind
        if kind == self._kind:
            return None
        return (
            f"its kernels are {kind}, and those of the workers that train {self._kind}, which gives other "
            "last bits: install numba on all workers, or use machines of one kind"
        )

    async def _reaches(self, address: str) -> bool:
        """Return whether this process can connect to a worker itself."""
        if self._client.direct_to_workers is False:
            return False
        probing = asyncio.ensure_future(self._scattered({self._key(None, "probe"): None}, address, True))
        try:
            # Not `wait_for`, which up to Python 3.11 may overlook that it is cancelled itself.
            await asyncio.wait({probing}, timeout=ANSWER_WITHIN)
            if not probing.done():
                raise TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
            (probe,) = probing.result()
            probe.release()
        except (OSError, TimeoutError, asyncio.TimeoutError):
            logger.info("Dask worker %s cannot be reached: data go through the scheduler", address)
            return False
        finally:
            probing.cancel()
        return True

    def _on_worker(
        self, address: str, key: tuple[Any, ...], function: Callable[..., Any], *arguments: Any
    ) -> distributed.Future:
        """Submit a task for one worker."""
        return self._client.submit(
            function, *arguments, key=key, workers=[address], allow_other_workers=False, pure=False
        )

    def _key(self, kernel: Any, what: str, *of: Any) -> tuple[Any, ...]:
        """Return a new key; by its first word Dask's dashboard and reports group what they show."""
        name = kernel.name if kernel is not None else "distcorpus"
        return (f"{name}-{what}", *of, f"{self._id}-{next(self._serials)}")

    async def _scattered(
        self, contents: Mapping[Any, Any], address: str, direct: bool
    ) -> list[distributed.Future]:
        """Send something to a worker.

        Raises
        ------
        OSError, TimeoutError
            If the worker is gone, or cannot be reached.
        """
        parcels = {key: Parcel(content) for key, content in contents.items()}
        try:
            futures = await _unbroken(
                self._client.scatter(
                    parcels,
                    workers=[address],
                    direct=direct,
                    hash=False,
                    timeout=ANSWER_WITHIN,
                    asynchronous=True,
                ),
                _release,
            )
        except KeyError:
            # The worker got it all and went, and the scheduler, which does not know the worker any more, has
            # entered some of it without an owner.
            with suppress(Exception):
                await self._client.scheduler.update_data(
                    who_has={key: [] for key in parcels}, nbytes={}, client=self._client.id
                )
                for key in parcels:
                    distributed.Future(key, self._client).release()
            raise ConnectionError(f"{address} is gone") from None
        return list(futures.values())

    async def _result(self, future: distributed.Future, address: str, direct: bool) -> Any:
        """Wait for a result and fetch it.

        `Client.gather` has all that wait at once share one request, which a worker that is gone holds up for
        all of them.
        """
        await computed(future, address)
        if not direct:
            return await _unbroken(self._client.gather(future, direct=False, asynchronous=True))
        while True:
            answer = await _unbroken(
                get_data_from_worker(self._client.rpc, [future.key], address, who=self._client.id)
            )
            if answer["status"] != "busy":
                break
            await asyncio.sleep(BUSY_FOR)
        if future.key not in answer["data"]:
            raise ConnectionError(f"{address} has no {future.key}")
        return answer["data"][future.key]

    def _start(self, hand: Hand) -> None:
        with self._lock:
            worker = self._by_name.get(hand.worker)
        if worker is None:  # it was lost meanwhile, and the schedule knows
            return
        task = self._loop.create_task(self._serve(worker, hand))
        worker.leases[hand.lease] = task
        self._keep(task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """A loop holds its tasks only weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self, name: str, lease: int) -> None:
        with self._lock:
            worker = self._by_name.get(name)
        task = worker.leases.get(lease) if worker is not None else None
        if task is not None:
            task.cancel()

    def _abandon(self, worker: _Worker) -> None:
        for task in list(worker.leases.values()):
            task.cancel()
        worker.held.clear()
        worker.stay.release()
        for total in self._sums.values():
            total.worker_gone(worker)

    def _forget(self, session: str) -> None:
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            for key in [key for key in worker.held if key[0] == session]:
                del worker.held[key]
        for round_ in [round_ for round_ in self._sums if round_.session == session]:
            self._sums.pop(round_).drop()

    async def _leave(self) -> None:
        """Give up all that is on the cluster."""
        for task in list(self._tasks):
            task.cancel()
        for joining in self._joining.values():
            joining.cancel()
        self._call_for_worker(False)
        for worker in self._workers.values():
            worker.held.clear()
            worker.stay.release()

    async def _serve(self, worker: _Worker, hand: Hand) -> None:
        """See to one job."""
        with self._lock:
            round_ = self._rounds.get(hand.session)
        blocks = []
        if round_ is not None and round_.number == hand.round:
            blocks = [block for number in hand.blocks if (block := round_.block(number)) is not None]
        if round_ is None or len(blocks) < len(hand.blocks):  # it is over, or another worker was faster
            worker.leases.pop(hand.lease, None)
            self._discard(hand)
            return
        job = _Job(worker, hand, round_, blocks)
        try:
            await self._lease(job)
        except asyncio.CancelledError:
            with self._lock:
                there = self._workers.get(worker.address) is worker
            job.tell("discarded" if there else "lost")
            try:
                await self._until_free(worker)
            finally:
                self._discard(hand)
        except Exception as error:
            job.tell("failed")
            if self._client.status in ("closing", "closed"):
                self._look_now.set()  # which fails the whole round
                return
            if isinstance(error, OverflowError):
                self._fail(round_, too_large(blocks, error))
                traceback.clear_frames(error.__traceback__)
                self._discard(hand)
                return
            reason = report_of(error)
            logger.warning("Dask worker %s: a job failed: %s", worker.name, reason.strip().splitlines()[-1])
            with self._lock:
                self._apply(self._schedule.failed(hand.lease, reason, time.monotonic()))
        finally:
            worker.leases.pop(hand.lease, None)

    def _discard(self, hand: Hand) -> None:
        with self._lock:
            self._apply(self._schedule.discarded(hand.lease, time.monotonic()))

    async def _until_free(self, worker: _Worker) -> None:
        """Wait until a worker computes what it is given: others' tasks may keep it busy for long."""
        with self._lock:
            if self._stopping or self._workers.get(worker.address) is not worker:
                return
        waiting = self._on_worker(worker.address, self._key(None, "free"), free)
        try:
            await computed(waiting, worker.address)
        except LOST as error:  # the worker, or the client, is
            logger.debug("Dask worker %s is not waited for (%s)", worker.name, line_of(error))
        finally:
            let_go(self._loop, waiting)

    async def _lease(self, job: _Job) -> None:
        total = self._sum_on_workers(job.round)
        if total is None:
            result = await self._computed(job)
            if self._is_accepted(job):  # nothing can stop this any more
                self._submit_sum(job.worker, [job.hand], job.round, result, job)
            return
        held = None
        total.begin()
        try:
            future = await self._computed(job, fetch=False)
            if self._is_accepted(job):
                job.tell("accepted")
                held = Held(future, job.worker, (Job(job.hand, job.blocks),))
        finally:
            total.end(held)

    def _sum_on_workers(self, round_: Round) -> SumOnWorkers | None:
        """Return the sum that a job's partial joins on the workers; None where it comes here."""
        with self._lock:
            many = len(self._by_name) > dasksums.FROM_WORKERS
        if not (many and round_.kernel.sums):
            return None
        if round_ not in self._sums:
            self._sums[round_] = SumOnWorkers(_SumDriver(self), round_)
        return self._sums[round_]

    def _is_accepted(self, job: _Job) -> bool:
        with self._lock:
            accepted = self._schedule.delivered(job.hand.lease, time.monotonic())
        if not accepted:
            job.tell("discarded")
            self._discard(job.hand)
        return accepted

    async def _computed(self, job: _Job, *, fetch: bool = True) -> Any:
        """Compute a job on a worker; return what it comes to or, not to `fetch` it, its future."""
        for sending in range(SENDINGS):
            try:
                return await self._attempt(job, fetch)
            except LOST as error:
                lost = line_of(error)
            # The worker is gone, which the watcher will soon know; or its data are.
            logger.debug("Dask worker %s lost a job's data (%s)", job.worker.name, lost)
            for block in job.blocks:
                job.worker.held.pop((job.hand.session, block.number), None)
            self._look_now.set()
            if sending + 1 < SENDINGS:
                await asyncio.sleep(SEND_AGAIN_AFTER)
        raise JobError(f"its data were lost {SENDINGS} times; the last: {lost}")

    async def _attempt(self, job: _Job, fetch: bool) -> Any:
        """Send a job, and wait for it."""
        worker, hand, round_, blocks = job.worker, job.hand, job.round, job.blocks
        session, kernel = hand.session, round_.kernel
        held = {block.number: worker.held.get((session, block.number)) for block in blocks}
        there = {number: future for number, future in held.items() if future is not None}
        new = [block for block in blocks if block.number not in there]
        there |= {
            block.number: self._at(worker, block.documents, round_)
            for block in new
            if isinstance(block.documents, Placed)
        }
        to_send = [block for block in new if block.number not in there]
        contents = {self._key(kernel, "block", session, block.number): block.documents for block in to_send}
        shared = await self._loop.run_in_executor(self._pool, _shared_rows, round_, blocks)
        contents[self._key(kernel, "rows", session, hand.round)] = shared
        began = time.monotonic()
        *sent, rows = await self._scattered(contents, worker.address, worker.direct)
        job.bytes_sent = sum(int(getattr(content, "nbytes", 0)) for content in contents.values())
        job.transfer_seconds = time.monotonic() - began
        there |= zip((block.number for block in to_send), sent, strict=True)
        task = self._on_worker(
            worker.address,
            self._key(kernel, "job", session, hand.round, hand.lease),
            compute_job,
            kernel,
            round_.num_terms,
            [block.key for block in blocks],
            rows,
            *(there[block.number] for block in blocks),
        )
        if round_.keep_blocks:
            worker.held.update(((session, block.number), there[block.number]) for block in new)
            if not hand.copy:
                self._moved(worker, hand)
        try:
            return await (self._fetched(task, job) if fetch else self._left(task, worker))
        finally:
            for future in (rows, *(() if round_.keep_blocks else sent)):
                future.release()

    async def _fetched(self, task: distributed.Future, job: _Job) -> Any:
        """Return what comes of a task, and let go of it."""
        began = time.monotonic()
        try:
            await computed(task, job.worker.address)
            ended = time.monotonic()
            parcel = await self._result(task, job.worker.address, job.worker.direct)
        finally:
            let_go(self._loop, task)
        job.bytes_received = int(getattr(parcel.content, "nbytes", 0))
        job.transfer_seconds += time.monotonic() - ended
        job.compute_seconds = parcel.seconds
        job.queue_seconds = max(ended - began - parcel.seconds, 0.0)
        return parcel.content

    async def _left(self, task: distributed.Future, worker: _Worker) -> distributed.Future:
        """Wait for a task, and leave what comes of it on the worker."""
        try:
            await computed(task, worker.address)
        except BaseException:
            let_go(self._loop, task)
            raise
        return task

    def _at(self, worker: _Worker, placed: Placed, round_: Round) -> distributed.Future:
        """Return a block that is on the cluster, for a worker's jobs."""
        if not round_.keep_blocks or placed.address == worker.address:
            return placed.future
        # What a worker fetches for a job Dask takes for a copy too many, and drops it before the next round.
        return self._on_worker(worker.address, self._key(round_.kernel, "block"), here, placed.future)

    def _moved(self, keeper: _Worker, hand: Hand) -> None:
        """Of the blocks of a job no other worker need keep a copy."""
        with self._lock:
            others = [worker for worker in self._workers.values() if worker is not keeper]
        for worker in others:
            for number in hand.blocks:
                worker.held.pop((hand.session, number), None)

    # In the pool.

    def _submit_sum(
        self, worker: _Worker, hands: Sequence[Hand], round_: Round, result: Any, job: _Job | None = None
    ) -> None:
        try:
            self._pool.submit(self._take_in, worker, hands, round_, result, job)
        except RuntimeError as error:  # the system has no more threads
            self._fail(round_, RuntimeError(f"results cannot be added up: {error}"))
            self._count_as_summed(hands)

    def _take_in(
        self, worker: _Worker, hands: Sequence[Hand], round_: Round, result: Any, job: _Job | None
    ) -> None:
        """Add what some jobs come to together to the sum; tell of it where it is one `job`."""
        began = time.monotonic()
        numbers = [number for hand in hands for number in hand.blocks]
        blocks = [block for number in numbers if (block := round_.block(number)) is not None]
        try:
            round_.add(numbers, widened(result))
        except Exception as error:
            logger.exception("a result cannot be taken in")
            self._fail(round_, not_added(blocks, f"Dask worker {worker.name}", error))
        if job is not None:
            job.tell("accepted", sum_seconds=time.monotonic() - began)
        self._count_as_summed(hands)

    def _fail(self, round_: Round, error: Exception) -> None:
        """Compute no more of a round, and say why."""
        round_.failed(error)
        with self._lock:
            self._give_up(round_)

    def _count_as_summed(self, hands: Sequence[Hand]) -> None:
        with self._lock:
            for hand in hands:
                self._apply(self._schedule.summed(hand.lease, time.monotonic()))


class _SumDriver:
    """What a `SumOnWorkers` asks of the engine, see `dasksums.Driver`."""

    def __init__(self, engine: DaskEngine) -> None:
        self._engine = engine

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._engine._loop.create_task(coroutine)
        self._engine._keep(task)
        return task

    def is_current(self, round_: Round) -> bool:
        with self._engine._lock:
            return self._engine._rounds.get(round_.session) is round_ and not self._engine._stopping

    def is_queued(self, round_: Round) -> bool:
        with self._engine._lock:
            return self._engine._schedule.pending(round_.session) > 0

    def is_there(self, worker: _Worker) -> bool:
        with self._engine._lock:
            return self._engine._workers.get(worker.address) is worker

    def least_busy(self) -> _Worker | None:
        with self._engine._lock:
            workers = [w for w in self._engine._by_name.values() if w.state is WorkerState.READY]
        return min(workers, key=lambda worker: len(worker.leases), default=None)

    async def compute(self, worker: _Worker, job: Job, round_: Round) -> distributed.Future:
        return await self._engine._attempt(_Job(worker, job.hand, round_, job.blocks), False)

    async def submit(
        self, worker: _Worker, round_: Round, function: Callable[..., Parcel], *arguments: Any
    ) -> distributed.Future:
        key = self._engine._key(round_.kernel, "sum", round_.session, round_.number)
        task = self._engine._on_worker(worker.address, key, function, *arguments)
        return await self._engine._left(task, worker)

    async def fetch(self, held: Held) -> Any:
        return (await self._engine._result(held.future, held.worker.address, held.worker.direct)).content

    def take_in(self, held: Held, round_: Round, result: Any) -> None:
        hands = [job.hand for job in held.jobs]
        self._engine._submit_sum(held.worker, hands, round_, result)

    def give_up(self, jobs: Sequence[Job], round_: Round, error: Exception) -> None:
        blocks = [block for job in jobs for block in job.blocks[:1]]
        if isinstance(error, OverflowError):
            self._engine._fail(round_, too_large(blocks, error))
        else:
            self._engine._fail(round_, RuntimeError(f"{named(blocks)}: {report_of(error)}"))
        self._engine._count_as_summed([job.hand for job in jobs])

    def look(self) -> None:
        self._engine._look_now.set()

    def over(self, round_: Round) -> None:
        self._engine._sums.pop(round_, None)


async def computed(future: distributed.Future, address: str) -> None:
    """Wait until something is computed on a worker; raise what it raises, or that it is lost."""
    error = await future.exception(asynchronous=True)
    if error is not None:
        raise error
    if future.cancelled():
        raise ConnectionError(f"{address} lost {future.key}")


async def _unbroken(doing: Awaitable[T], drop: Callable[[T], None] = lambda result: None) -> T:
    """Wait for something that goes on where the waiting is cancelled, and whose result is then dropped: what
    was sent or read halfway would be left on a worker, or in a connection that others use.
    """
    task = asyncio.ensure_future(doing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:

        def ended(task: asyncio.Future[T]) -> None:
            if not task.cancelled() and task.exception() is None:
                drop(task.result())

        task.add_done_callback(ended)
        raise


def _release(futures: Mapping[Any, distributed.Future]) -> None:
    for future in futures.values():
        future.release()


def _shared_rows(round_: Round, blocks: Sequence[Block]) -> SharedRows:
    words = words_in([block.words for block in blocks], round_.num_terms)
    return SharedRows(round_.params, words, round_.rows(words))


def _differences(there: Mapping[str, str]) -> str | None:
    """Return what a worker has in other versions, if it has."""
    here = versions()
    differ = [
        f"{name} is {there[name]} there and {here[name]} here"
        for name in here
        if name != KIND and name in there and there[name] != here[name]
    ]
    return f"{', '.join(differ)}: install the same versions there" if differ else None


def let_go(loop: asyncio.AbstractEventLoop, task: distributed.Future) -> None:
    """Release a task. One that has just been submitted may come to the scheduler after its release, which
    reads graphs in a thread, and would then stay there.
    """
    if task.done():
        task.release()
    else:
        when_read(loop, task.release)


def when_read(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function when the scheduler has read what was submitted to it."""
    with suppress(RuntimeError):  # the client was closed, and all that it had is given up
        loop.call_soon_threadsafe(loop.call_later, GRAPH_WITHIN, function, *arguments)


def give_place() -> threading.Thread | None:
    """In a task of a Dask worker, let others have its thread; return this thread where that was done."""
    try:
        distributed.get_worker()
    except ValueError:
        return None
    try:
        distributed.secede()
    except (KeyError, ValueError):  # it has, in a worker_client
        return None
    return threading.current_thread()

"""The worker daemon: it computes the jobs that it is handed, and keeps nothing that matters."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.algorithms.chunk import Chunk, compact, from_arrays, words_in
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.stopping import Stop, Stopped, stopped_by
from distcorpus.corpora.reference import Read, Reference, checked_words, held_against
from distcorpus.corpora.roots import Roots
from distcorpus.corpora.store import Store
from distcorpus.kernels import KERNELS, Result, check_result, load_own
from distcorpus.kernels.build import this_build
from distcorpus.kernels.kind import kind_of_kernels
from distcorpus.wire import Connection, Slices, client_gone, current_connection, expose, sliced
from distcorpus.wire.memory import resident_memory
from distcorpus.worker.cache import Cache, KeptBlock
from distcorpus.worker.job import run
from distcorpus.worker.stated import LONGEST_NAME, check_block, check_job, check_scratch

logger = logging.getLogger(__name__)

#: Seconds between two log lines about the jobs of a session, and how many sessions are told apart.
LOG_EVERY, SESSIONS_LOGGED = 10.0, 256
#: Leases of jobs that were taken back which are remembered.
CANCELLED_KEPT = 1000
#: Sessions that something may be kept for: many more than a dispatcher has.
SESSIONS_KEPT = 4096
#: Seconds between two looks whether those whose jobs are computed are there.
LOOK_EVERY = 1.0
#: Bytes that a worker has ready for its first job: enough for the default chunks and a hundred topics.
MEMORY_TAKEN = 64 << 20


class JobLog:
    """Logs what is computed: the beginning of each session, and then a sum of its jobs now and then.

    Parameters
    ----------
    every : float
        Seconds between two lines about a session.
    """

    def __init__(self, every: float = LOG_EVERY) -> None:
        self._every = every
        self._sums: dict[str, tuple[float, int, int, float]] = {}  # since when; jobs, documents, seconds

    def computed(self, session: str, kernel: str, documents: int, seconds: float) -> None:
        """Count a job that was just computed; one at a time."""
        if not logger.isEnabledFor(logging.INFO):
            return
        now = time.monotonic()
        if session not in self._sums:
            while len(self._sums) >= SESSIONS_LOGGED:
                del self._sums[next(iter(self._sums))]
            logger.info(
                "training run %s: first job: %s of %s in %.3g s",
                session,
                kernel,
                plural(documents, "document"),
                seconds,
            )
            self._sums[session] = now, 0, 0, 0.0
            return
        since, jobs, so_far, busy = self._sums[session]
        jobs, so_far, busy = jobs + 1, so_far + documents, busy + seconds
        if now - since >= self._every:
            logger.info(
                "training run %s: %s (%s), %s in %.3g s of the last %.0f s",
                session,
                plural(jobs, "job"),
                kernel,
                plural(so_far, "document"),
                busy,
                now - since,
            )
            since, jobs, so_far, busy = now, 0, 0, 0.0
        self._sums[session] = since, jobs, so_far, busy


@dataclass(frozen=True, slots=True, eq=False)
class _UnderWay:
    """A job that is here, and what ends it."""

    lease: str
    session: str
    connection: Connection | None
    stop: Stop = field(default_factory=Stop)


class Worker(Slices):
    """The object that a worker daemon serves.

    Parameters
    ----------
    name : str
        The worker's name, the same in the name server, in logs and in errors.
    threads : int, default 1
        Threads that compute the blocks of one job in parallel, with one table and one partial result.
    cache_bytes : int, default 4 GiB
        Bytes to keep between jobs: documents, and rows of shared tables.
    blas : str
        The BLAS and its threads, which kernels without numba use.
    corpora : Roots, optional
        The corpora that this worker may read.
    """

    def __init__(
        self,
        name: str,
        threads: int = 1,
        cache_bytes: int = 4 << 30,
        blas: str = "",
        corpora: Roots | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.kernels = kind_of_kernels(blas)
        self.threads = threads
        self.leaving = threading.Event()
        self.exit_asked = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="block") if threads > 1 else None
        self._cache_bytes = cache_bytes
        self._cache = Cache(cache_bytes)
        self._corpora = corpora or Roots()
        self._reader = Read()
        self._users: dict[str, set[Connection]] = {}  # of each session that something may be kept of
        self._users_lock = threading.Lock()
        self._computing = threading.Lock()
        self._calls = 0
        self._calls_changed = threading.Condition()
        self._cancelled: OrderedDict[str, Connection | None] = OrderedDict()  # and who said so
        self._cancelled_lock = threading.Lock()
        self._under_way: set[_UnderWay] = set()
        self._watching: threading.Thread | None = None
        self._started = time.monotonic()
        self._refused = ""
        self._log = JobLog()
        self._jobs_done = 0
        self._seconds = 0.0

    def warm(self) -> str:
        """Load (the first time on a machine: compile) the kernels, and take memory: no job has to wait.

        Returns
        -------
        str
            What computes them.
        """
        load_own()
        for kernel in KERNELS.values():
            kernel.warm()
        # The system gives a page when it is first written to; what is freed stays (`share_freed_memory`).
        np.ones(MEMORY_TAKEN, np.uint8)
        return self.kernels

    @expose
    def ping(self) -> str:
        """Answer at once, whatever is being computed."""
        return "pong"

    @expose
    def pulse(self) -> dict[str, Any]:
        """Answer at once, and say what this worker takes."""
        return {
            "time": time.time(),
            "bytes_cached": self._cache.nbytes,
            "bytes_cache": self._cache_bytes,
            "bytes_resident": resident_memory(),
        }

    @expose
    def status(self) -> dict[str, Any]:
        """What this worker is and what it has done so far."""
        return {
            "name": self.name,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "version": __version__,
            "threads": self.threads,
            "kernels": self.kernels,
            "build": this_build(self.kernels.startswith("numba ")),
            "jobs_done": self._jobs_done,
            "compute_seconds": self._seconds,
            "cached_bytes": self._cache.nbytes,
            "uptime_seconds": time.monotonic() - self._started,
        }

    @expose
    def refused(self, reason: str) -> None:
        """A dispatcher says that it cannot use this worker, and why."""
        reason = "".join(filter(str.isprintable, reason[:1000]))
        if reason != self._refused:
            self._refused = reason
            logger.error("the dispatcher refuses this worker: %s", reason)

    @expose
    @sliced
    def process(self, job: dict[str, Any]) -> dict[str, Any]:
        """Compute a job.

        Parameters
        ----------
        job : dict
            ``lease``, ``session``, ``round``, ``kernel``, ``params``, ``num_terms``; ``blocks``, a list of
            (number, key); ``stored``, of which corpus those are that this
            worker may have on its disk; ``payload``, the documents of those blocks that it is thought not to
            hold; ``keep``, whether they come again; ``words`` and ``rows``, the rows of the shared table that
            it is thought not to hold. The arrays are taken out of it, so that the message that they came in
            can be freed.

        Returns
        -------
        dict
            ``lease``, as the job has it, ``partial`` (words, steps, extras) or ``arrays``, a list of (key,
            array), and ``seconds``; or ``missing`` with what has to be sent again; or ``handed_back``
            where the worker is leaving, or the job was cancelled or is of an earlier round.
        """
        with self._calls_changed:
            self._calls += 1
        try:
            return self._process(job)
        finally:
            with self._calls_changed:
                self._calls -= 1
                self._calls_changed.notify_all()

    def _process(self, job: dict[str, Any]) -> dict[str, Any]:
        kernel, params = check_job(job)
        self._used_by(job["session"], current_connection())
        under_way = _UnderWay(job["lease"], job["session"], current_connection())
        with self._calls_changed:
            self._under_way.add(under_way)
            self._calls_changed.notify_all()
            self._watch()
        try:
            with stopped_by(under_way.stop):
                return self._computed(job, kernel, params)
        except Stopped:
            return {"handed_back": True}
        finally:
            with self._calls_changed:
                self._under_way.remove(under_way)

    def _computed(self, job: dict[str, Any], kernel: Any, params: Any) -> dict[str, Any]:
        arrived = time.perf_counter()
        session, num_terms = job["session"], job["num_terms"]
        # What arrives are views of the whole message, which would stay as long as they do.
        stored = {number: Reference.from_message(said) for number, said in job.pop("stored", {}).items()}
        arrived_blocks = {
            number: _arrived(kernel, number, arrays, num_terms, stored.get(number))
            for number, arrays in job.pop("payload").items()
        }
        for number, reference in stored.items():
            if number not in arrived_blocks and self._cache.block(session, number) is None:
                found_block = self._stored(kernel, number, reference, num_terms)
                if found_block is not None:
                    arrived_blocks[number] = found_block
        if job["keep"]:
            for number, block in arrived_blocks.items():
                self._cache.put_block(session, number, block)
        held = [
            (arrived_blocks.get(number) or self._cache.block(session, number), key)
            for number, key in job["blocks"]
        ]

        def prepare(rows: Any) -> Any:
            return kernel.prepare(rows, params, out=rows)

        table = self._cache.table(session, job["round"], params.width, prepare)
        new_words, new_rows = job.pop("words"), job.pop("rows")
        if table is not None and len(new_words):
            table.add(new_words, new_rows)
            self._cache.grown(session, table)
        del new_words, new_rows
        # Not before: other jobs may need what came with this one.
        if table is None or self._is_unwanted(job):
            return {"handed_back": True}
        blocks = [(block, key) for block, key in held if block is not None]
        missing = [
            number for (block, _), (number, _) in zip(held, job["blocks"], strict=True) if block is None
        ]
        words = words_in([block.words for block, _ in blocks], num_terms)
        found = None if missing else table.find(words)
        if found is None:
            return {"missing": missing, "rows_missing": not missing}
        for (number, _), (block, _) in zip(job["blocks"], blocks, strict=True):
            check_scratch(number, block, params.width, self._cache_bytes)
        with self._computing:
            if self._is_unwanted(job):
                return {"handed_back": True}
            waited = time.perf_counter() - arrived
            result, seconds = run(kernel, params, blocks, words, *found, self._pool)
            self._jobs_done += 1
            self._seconds += seconds
            self._log.computed(
                session, kernel.name, sum(block.documents.n_docs for block, _ in blocks), seconds
            )
        # The next job is computed meanwhile.
        _check_own(kernel, params, result, words, [(block.documents, key) for block, key in blocks])
        return {
            "lease": job["lease"],
            **_reply(result),
            "seconds": {"waited": waited, "computed": seconds, "held": time.perf_counter() - arrived},
        }

    def _stored(self, kernel: Any, number: int, reference: Reference, num_terms: int) -> KeptBlock | None:
        """Return a block of a corpus that this worker has; None where it has not."""
        check_block(kernel, number, reference.stop - reference.start)

        def read(store: Store) -> tuple[Chunk, NDArray[np.int32]]:
            chunk = self._reader.documents(store, reference, num_terms, kernel.counts)
            return chunk, store.words_about(reference.start, reference.stop)

        found = self._corpora.read(reference.corpus, read)
        if found is None:
            return None
        chunk, words = found
        return KeptBlock(words, kernel.pack(held_against(reference, chunk, words)))

    def _is_unwanted(self, job: dict[str, Any]) -> bool:
        return self.leaving.is_set() or job["lease"] in self._cancelled

    @expose
    def cancel(self, leases: list[str]) -> None:
        """Take back jobs; what is computed of them ends."""
        longest = max(map(len, leases), default=0)
        if len(leases) > CANCELLED_KEPT or longest > LONGEST_NAME:
            raise ValueError(
                f"{len(leases):,} leases of up to {longest:,} characters: a call takes back up to "
                f"{CANCELLED_KEPT:,} of up to {LONGEST_NAME}"
            )
        with self._cancelled_lock:
            self._cancelled.update(dict.fromkeys(leases, current_connection()))
            while len(self._cancelled) > CANCELLED_KEPT:
                self._cancelled.popitem(last=False)
        self._stop(lambda job: job.lease in leases)

    @expose
    def forget(self, session: str) -> None:
        """Give up all that is computed and kept for a session that has ended."""
        self._stop(lambda job: job.session == session)
        with self._users_lock:
            self._users.pop(session, None)
            self._cache.forget(session)

    def _stop(self, which: Callable[[_UnderWay], bool]) -> None:
        """End some of the jobs that are here."""
        with self._calls_changed:
            for job in filter(which, self._under_way):
                job.stop.set()

    def _watch(self) -> None:
        """See to it that jobs end whose connection does: the thread that would hear of it computes."""
        if self._watching is None:
            self._watching = threading.Thread(target=self._watch_connections, name="watch", daemon=True)
            self._watching.start()

    def _watch_connections(self) -> None:
        while True:
            with self._calls_changed:
                self._calls_changed.wait_for(lambda: self._under_way)
            time.sleep(LOOK_EVERY)
            self._stop(lambda job: job.connection is not None and client_gone(job.connection.sock))

    def _used_by(self, session: str, connection: Connection | None) -> None:
        if connection is not None:
            with self._users_lock:
                self._users.setdefault(session, set()).add(connection)
                while len(self._users) > SESSIONS_KEPT:
                    oldest = next(iter(self._users))
                    del self._users[oldest]
                    self._cache.forget(oldest)

    def disconnected(self, connection: Connection) -> None:
        """Give up what is kept for the sessions whose last connection this was: their dispatcher is gone, or
        they never had one; and what it has cancelled.
        """
        with self._cancelled_lock:
            for lease in [lease for lease, by in self._cancelled.items() if by is connection]:
                del self._cancelled[lease]
        with self._users_lock:
            for session in [session for session, users in self._users.items() if connection in users]:
                self._users[session].remove(connection)
                if not self._users[session]:
                    del self._users[session]
                    self._cache.forget(session)

    @expose
    def exit(self) -> None:
        """Leave the cluster: finish the job under way, hand back the others, and end the process."""
        self.exit_asked.set()

    def leave(self, timeout: float) -> bool:
        """Take no more jobs and wait until none is here any more.

        Parameters
        ----------
        timeout : float
            Seconds to wait for the job that is being computed.

        Returns
        -------
        bool
            Whether all jobs ended in time.
        """
        self.leaving.set()
        with self._calls_changed:
            return self._calls_changed.wait_for(lambda: self._calls == 0, timeout)


def _check_own(kernel: Any, params: Any, result: Result, words: np.ndarray, blocks: Any) -> None:
    """Refuse to send what the dispatcher would expel this worker for: it has computed what it was given."""
    try:
        check_result(kernel, params, result, words, blocks)
    except ValueError as error:
        raise ValueError(
            f"the result is impossible for the job's documents: {error}. The topics, or vectors, that came "
            "with the job are none that a training run makes: begin with others"
        ) from error


def _arrived(
    kernel: Any, number: int, arrays: tuple[Any, ...], num_terms: int, reference: Reference | None
) -> KeptBlock:
    """Return a block that was sent; where it could have been read, as it would have been."""
    indptr, indices, data, *words_of = arrays
    chunk = from_arrays(indptr, indices, data, num_terms, f"block {number}")
    if reference is None:
        return _packed(kernel, number, chunk)
    check_block(kernel, number, chunk.n_docs)
    (sent,) = words_of
    words = checked_words(sent, num_terms)
    local = held_against(reference, chunk, words)
    packed = kernel.pack(local)
    return KeptBlock(words.copy(), local.copy() if packed is local else packed)


def _packed(kernel: Any, number: int, block: Chunk) -> KeptBlock:
    """Return a block as it is computed and kept, in memory of its own."""
    check_block(kernel, number, block.n_docs)
    words, local = compact(block)
    packed = kernel.pack(local)
    return KeptBlock(words, local.copy() if packed is local else packed)


def _reply(result: Result) -> dict[str, Any]:
    """Return what was computed, as it travels."""
    if isinstance(result, Partial):
        cells = () if result.cells is None else (result.cells,)
        return {"partial": (result.words, result.steps, result.extras, *cells)}
    return {"arrays": list(result.arrays.items())}

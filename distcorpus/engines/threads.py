"""The engine of one process: its threads compute, with one copy of the topics and of the sums.

The kernels hold no GIL, so threads share the cores, and the program may go on reading its corpus meanwhile.
Nothing is sent and nothing is started but the threads, which end with the training run.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from distcorpus._machine import available_cores
from distcorpus.algorithms.chunk import Chunk, positions_of, words_in
from distcorpus.algorithms.rows import Map, Rows
from distcorpus.algorithms.stopping import Stop, stopped_by
from distcorpus.engines.base import Block, Round
from distcorpus.engines.failures import too_large
from distcorpus.engines.observer import JobRecord, watching
from distcorpus.engines.sidebyside import SideBySide

T = TypeVar("T")
R = TypeVar("R")

#: Numbers of threads that whoever starts a process, such as joblib or Dask, gives it.
THREAD_VARIABLES = "DISTCORPUS_THREADS", "OMP_NUM_THREADS"


def available_threads() -> int:
    """Return how many threads this process may keep busy.

    The least of the cores that it may run on, its share of them (control groups), and what
    ``DISTCORPUS_THREADS`` or, without that, ``OMP_NUM_THREADS`` says.
    """
    limits = [available_cores()]
    for name in THREAD_VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text):
            limits.append(int(text))
            break
    return max(1, min(limits))


class _Budget:
    """The threads that compute at once for all training runs of this process that did not ask for a number:
    as many as there are cores, however many runs there are.
    """

    def __init__(self) -> None:
        self._permits = threading.Semaphore(available_threads())

    def __enter__(self) -> None:
        self._permits.acquire()

    def __exit__(self, *exception: object) -> None:
        self._permits.release()


def let_this_thread_limit(blas: Any) -> None:
    """See to it that a limit which this thread sets has an effect.

    threadpoolctl (since 3.7) ignores it in silence where another thread, which is alive, has set one before.

    Parameters
    ----------
    blas : ThreadpoolController
    """
    for library in blas.lib_controllers:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)


class _OneBlasThread:
    """Limits BLAS to one thread as long as some training run wants that.

    The limit is the process's own. It is set by the first run that comes and lifted by the last that goes, in
    whatever order they do.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._blas: Any = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                import threadpoolctl

                self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
                let_this_thread_limit(self._blas)
                self._limit = self._blas.limit(limits=1)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                let_this_thread_limit(self._blas)
                self._limit.restore_original_limits()
                let_this_thread_limit(self._blas)  # nor does it keep others from it


_shared: dict[str, Any] = {}
_sharing = threading.Lock()


def _of_process(what: type[T]) -> T:
    """Return the one object of its kind in this process."""
    with _sharing:
        if what.__name__ not in _shared:
            _shared[what.__name__] = what()
        found: T = _shared[what.__name__]
        return found


def _forget_shared() -> None:
    """A forked child has none of the parent's threads, which may have held locks and permits."""
    global _sharing
    _sharing = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_shared)


class _Job:
    """Some blocks of a round that share a kernel instance, whose result is theirs together."""

    def __init__(self, round_: Round, blocks: Sequence[Block], stop: Stop) -> None:
        self.round = round_
        self.stop = stop
        self.blocks = blocks
        self.left = len(blocks)
        self._making = threading.Lock()
        self._kernel: Any = None

    def kernel(self, side_by_side: Map = map) -> Any:
        """Return the kernel instance; whoever comes first makes it, with helpers where there are some."""
        with self._making:
            if self._kernel is None:
                round_ = self.round
                words = words_in([block.words for block in self.blocks], round_.num_terms)
                table = _prepared(round_, words, side_by_side)
                rows_of: NDArray[np.int32] = positions_of(words, round_.num_terms)
                self._kernel = round_.kernel(round_.params, words, table, rows_of)
            return self._kernel


def _prepared(round_: Round, words: NDArray[np.int32], side_by_side: Map) -> NDArray:
    """Return the kernel's table of some words, of which slices may be made side by side."""
    params, prepare = round_.params, round_.kernel.prepare
    first, *others = [slice(None)] if side_by_side is map else Rows(len(words)).slices
    rows = round_.rows(words[first])
    part: NDArray = prepare(rows, params, out=rows)
    if not others:
        return part
    table = np.empty((len(words), *part.shape[1:]), part.dtype)
    table[first] = part

    def fill(some: slice) -> None:
        place = table[some]
        part = prepare(round_.rows(words[some]), params, out=place)
        if part is not place:
            place[:] = part

    list(side_by_side(fill, others))
    return table


def _record(round_: Round, block: Block, began: float, seconds: float) -> JobRecord:
    """Return what is known of a block that this thread has just computed, which began then."""
    return JobRecord(
        session=round_.session,
        round=round_.number,
        kernel=round_.kernel.name,
        worker=threading.current_thread().name,
        blocks=(str(block),),
        documents=block.n_docs,
        began=began,
        compute_seconds=seconds,
    )


class ThreadsEngine:
    """Computes rounds by threads of this process, which last as long as its ``with`` block, or until `close`.

    Parameters
    ----------
    threads : int, optional
        How many; by default `available_threads`, which all such engines of the process share.

    Raises
    ------
    ValueError
        If it is less than 1.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"{threads} threads: give a number above 0, or None for one a core")
        self.num_workers = threads or available_threads()
        self._budget: AbstractContextManager[Any] = nullcontext() if threads else _of_process(_Budget)
        self._side_by_side = SideBySide(self.num_workers)
        self._changed = threading.Condition()
        self._queue: deque[tuple[_Job, Block]] = deque()
        self._rounds: dict[str, Round] = {}
        self._left: dict[str, int] = {}  # blocks of the session's round that are not in its result
        self._stops: dict[str, Stop] = {}  # what ends the session's round
        self._sealed: set[str] = set()
        self._threads: set[threading.Thread] = set()  # one that is not in it ends

    def __enter__(self) -> ThreadsEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop all jobs, those that are being computed too."""
        with self._changed:
            threads, self._threads = self._threads, set()
            self._rounds.clear()
            self._left.clear()
            self._queue.clear()
            for stop in self._stops.values():
                stop.set()
            self._changed.notify_all()
        try:
            for thread in threads:
                thread.join()
        finally:
            self._side_by_side.close()

    # What training runs ask.

    def open_session(self, session: str) -> None:
        """Nothing to do: a session begins with its first round."""

    def close_session(self, session: str) -> None:
        with self._changed:
            self._drop(session)

    def hold(self, kernel: Any, documents: Chunk) -> Any:
        return kernel.pack(documents)

    def open_round(self, round_: Round) -> None:
        with self._changed:
            self._drop(round_.session)
            self._rounds[round_.session] = round_
            self._left[round_.session] = 0
            self._stops[round_.session] = Stop()

    def add_blocks(self, round_: Round, blocks: Sequence[Block]) -> None:
        with self._changed:
            if not blocks or self._rounds.get(round_.session) is not round_:
                return
            job = _Job(round_, blocks, self._stops[round_.session])
            # The largest first, so that no thread is left alone with one at the end.
            self._queue.extend((job, block) for block in sorted(blocks, key=lambda block: -block.nnz))
            self._left[round_.session] += len(blocks)
            self._start_threads()
            self._changed.notify_all()
            self._tell_pending(round_)

    def seal_round(self, round_: Round) -> None:
        with self._changed:
            if self._rounds.get(round_.session) is round_:
                self._sealed.add(round_.session)
                self._finish_if_complete(round_)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._side_by_side.map(function, items)

    @contextmanager
    def algebra(self) -> Iterator[None]:
        with _of_process(_OneBlasThread):
            yield

    # Under the lock.

    def _drop(self, session: str) -> None:
        self._rounds.pop(session, None)
        self._left.pop(session, None)
        self._sealed.discard(session)
        stop = self._stops.pop(session, None)
        if stop is not None:
            stop.set()
        self._queue = deque(task for task in self._queue if task[0].round.session != session)

    def _start_threads(self) -> None:
        """Start as many as there are blocks, and no more than there may be."""
        wanted = min(self.num_workers, sum(self._left.values()))
        while (running := len(self._threads)) < wanted:
            thread = threading.Thread(target=self._work, name=f"distcorpus-{running}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise RuntimeError(
                    f"{error}: {running} of {self.num_workers} threads run. Give fewer, "
                    f"workers={running or 1}, or let this process have more (ulimit -u; in a container, its "
                    "limit of pids)"
                ) from error
            # Only now: one whose start is interrupted can be neither joined nor told from one that runs.
            self._threads.add(thread)

    def _tell_pending(self, round_: Round) -> None:
        round_.progressed(sum(job.round is round_ for job, _ in self._queue))

    def _finish_if_complete(self, round_: Round) -> None:
        if round_.session in self._sealed and not self._left[round_.session]:
            self._drop(round_.session)
            round_.finished()

    # The threads.

    def _work(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or thread not in self._threads)
                if thread not in self._threads:
                    return
                job, block = self._queue.popleft()
                self._tell_pending(job.round)
            try:
                self._compute(job, block)
            except OverflowError as error:
                self._fail(job, too_large(job.blocks, error))
            except BaseException as error:  # it is raised where the round is waited for
                self._fail(job, error)
            del job, block  # a thread that waits for the next one holds nothing of a round

    def _fail(self, job: _Job, error: BaseException) -> None:
        with self._changed:
            if self._rounds.get(job.round.session) is job.round:
                self._drop(job.round.session)
                job.round.failed(error)

    def _compute(self, job: _Job, block: Block) -> None:
        round_ = job.round
        with self._budget:
            began, start = time.time(), time.perf_counter()
            with stopped_by(job.stop):
                job.kernel(self.map if self.num_workers > 1 else map).add(block.documents, block.key)
            seconds = time.perf_counter() - start
        for observer in watching():
            observer.job_ended(_record(round_, block, began, seconds))
        with self._changed:
            job.left -= 1
            if job.left or self._rounds.get(round_.session) is not round_:
                return
        round_.add([block.number for block in job.blocks], job.kernel().result())
        with self._changed:
            if self._rounds.get(round_.session) is round_:
                self._left[round_.session] -= len(job.blocks)
                self._finish_if_complete(round_)

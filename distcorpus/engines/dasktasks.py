"""What runs on Dask's workers for the engine, and what travels to them and back."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import distributed
import numpy as np
import scipy
from distributed.scheduler import KilledWorker, NoValidWorkerError
from numpy.typing import NDArray

from distcorpus._version import __version__
from distcorpus.algorithms.chunk import positions_of
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.summation import compiled_kernels
from distcorpus.engines.threads import let_this_thread_limit
from distcorpus.kernels import KERNELS
from distcorpus.kernels.job import run
from distcorpus.kernels.kind import kind_of_kernels

#: What says that data or a worker are lost, and not that a job is wrong.
LOST = (
    distributed.CancelledError,
    KilledWorker,
    NoValidWorkerError,
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)

#: What `versions` calls the kernels of a worker's CPU, which are held against those of other workers.
KIND = "kind"

_INT32_MAX = 2**31 - 1


class JobError(RuntimeError):
    """A job raised on a worker; the message is the traceback."""


def line_of(error: BaseException) -> str:
    """Return an error as one line, and clear the frames of its traceback.

    They refer to futures, one of which refers to the error: a cycle that would keep what is on the workers.
    """
    traceback.clear_frames(error.__traceback__)
    return repr(error)


def report_of(error: BaseException) -> str:
    """Return an error with its traceback, and clear that as `line_of` does."""
    text = str(error) if isinstance(error, JobError) else "".join(traceback.format_exception(error))
    traceback.clear_frames(error.__traceback__)
    return text


@dataclass(frozen=True, slots=True, eq=False)
class SharedRows:
    """What a job needs besides its blocks: its rows of the shared table, and the parameters."""

    params: Any
    words: NDArray[np.int32]
    rows: NDArray

    @property
    def nbytes(self) -> int:
        """The bytes of the rows and their term ids."""
        return self.words.nbytes + self.rows.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class NarrowPartial:
    """A partial of which only some rows are too wide for int32.

    Attributes
    ----------
    partial : Partial
        In int32; the wide rows are zero.
    wide : ndarray of int, shape (n_wide,)
        Which rows are wide.
    steps : ndarray of float64, shape (n_wide, width)
        Those rows.
    """

    partial: Partial
    wide: NDArray[np.intp]
    steps: NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self.partial.nbytes + self.wide.nbytes + self.steps.nbytes


def narrowed(result: Any) -> Any:
    """Return a result as it travels: one cell beyond int32 does not double a whole table."""
    if not isinstance(result, Partial) or result.steps.dtype == np.int32 or not result.steps.size:
        return result
    if result.cells is not None:
        return result
    largest = np.maximum(result.steps.max(axis=1), -result.steps.min(axis=1))
    wide = np.flatnonzero(~(largest <= _INT32_MAX))
    if 2 * len(wide) >= len(largest):
        return result
    steps = result.steps[wide]
    narrow: NDArray[np.int32] = np.zeros(result.steps.shape, np.int32)
    fits = largest <= _INT32_MAX
    np.copyto(narrow, result.steps, where=fits[:, np.newaxis], casting="unsafe")
    return NarrowPartial(Partial(result.words, narrow, result.extras), wide, steps)


def widened(result: Any) -> Any:
    """Return a result as the round takes it."""
    if not isinstance(result, NarrowPartial):
        return result
    steps = result.partial.steps.astype(np.float64)
    steps[result.wide] = result.steps
    return Partial(result.partial.words, steps, result.partial.extras)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A block that is on the cluster already, and that Dask can compute again.

    Attributes
    ----------
    future : Future
        Of a `Parcel`.
    address : str
        The worker that its documents were on when they were looked at.
    """

    future: distributed.Future
    address: str


class Parcel:
    """Something that travels, whose size Dask knows and whose arrays arrive as compiled loops take them."""

    def __init__(self, content: Any, seconds: float = 0.0) -> None:
        self.content = content
        self.seconds = seconds  # that it took to compute

    def __sizeof__(self) -> int:
        return int(getattr(self.content, "nbytes", 0)) + object.__sizeof__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self.content, self.seconds)


def _unpacked(content: Any, seconds: float) -> Parcel:
    return Parcel(_aligned(content), seconds)


def _aligned(value: Any) -> Any:
    """Return a value whose arrays are contiguous, aligned and writable: what arrives may be none of these."""
    if isinstance(value, np.ndarray):
        return np.require(value, None, ["C", "A", "W"])
    if isinstance(value, Mapping):
        return {key: _aligned(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: _aligned(getattr(value, part.name)) for part in fields(value)})
    return value


#: One job of ours at a time computes in a process, with all threads of the worker.
_computing = threading.Lock()


def compute_job(
    kernel: Any, num_terms: int, keys: Sequence[tuple[int, ...]], shared: Parcel, *blocks: Parcel
) -> Parcel:
    """Compute a job, on a worker.

    Everything that it is given is shared with whatever else runs there, and is sent on by Dask: nothing of it
    is written to.
    """
    try:
        threads = int(distributed.get_worker().state.nthreads)
        content = shared.content
        with _computing, _one_blas_thread(), ThreadPoolExecutor(threads, "distcorpus") as pool:
            result, seconds = run(
                kernel,
                content.params,
                [(block.content, key) for block, key in zip(blocks, keys, strict=True)],
                content.words,
                kernel.prepare(content.rows, content.params),
                positions_of(content.words, num_terms),
                pool if threads > 1 else None,
            )
        return Parcel(narrowed(result), seconds)
    except OverflowError as error:
        raise OverflowError(str(error)) from None  # without the frames, and what they hold
    except Exception:
        raise JobError(traceback.format_exc()) from None


@functools.cache
def _blas() -> Any:
    """Return what controls this process' BLAS; to find the libraries takes as long as a small job."""
    import scipy.linalg  # noqa: F401  its BLAS is one of them
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def _one_blas_thread() -> AbstractContextManager[Any]:
    """Limit BLAS to a thread, as its bits depend on how many there are; a nanny has done so already."""
    blas = _blas()
    if all(library.num_threads == 1 for library in blas.lib_controllers):
        return nullcontext()
    let_this_thread_limit(blas)
    limited: AbstractContextManager[Any] = blas.limit(limits=1)
    return limited


def versions() -> dict[str, str]:
    """Return the versions of all that bits depend on, and under `KIND` what they depend on besides."""
    compiled = compiled_kernels() is not None
    found = {
        "distcorpus": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": sys.modules["numba"].__version__ if compiled else "not used",
        KIND: kind_of_kernels(_name_of_blas()),
    }
    return found | {f"kernel {name}": str(kernel.version) for name, kernel in sorted(KERNELS.items())}


def _name_of_blas() -> str:
    """Name the BLAS libraries and what they have made of this CPU; each uses one thread."""
    found = (library.info() for library in _blas().lib_controllers)
    names = {f"{one['internal_api']} {one['version']} {one.get('architecture', '')}".strip() for one in found}
    return ", ".join(sorted(names))


class Stay(dict[str, str]):
    """A worker's `versions`, and on that worker the stay of an engine.

    It lasts as long as Dask keeps this object there: until the engine, its client or its program ends, in
    whatever way. The last one that goes leaves the worker as it was before the first came. What travels are
    the versions alone.
    """

    def __init__(self) -> None:
        super().__init__(versions())
        _stays.add(id(self))
        keep_freed_memory()

    def __del__(self) -> None:
        _stays.discard(id(self))
        if not _stays:
            give_back_memory()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


_stays: set[int] = set()


def greet() -> Stay:
    """Prepare a worker, on that worker: no job has to wait for what is compiled."""
    for kernel in KERNELS.values():
        _warm(kernel)
    return Stay()


def free() -> None:
    """A task that waits until the worker computes what it is given, and no job of ours."""
    with _computing:
        pass


@functools.cache
def _warm(kernel: Any) -> None:
    kernel.warm()


def here(parcel: Parcel) -> Parcel:
    """Return what is given: on the worker that it then is on."""
    return parcel


def nothing() -> None:
    """A task that waits for a worker, which adaptive clusters start for one."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Undo, on a worker, that Dask's nannies have freed memory go back to the system at once.

    With their ``MALLOC_TRIM_THRESHOLD_`` each table of a job is mapped anew, and every page of it costs a
    fault. `give_back_memory` returns to their setting.
    """
    return _set_malloc(1 << 30, 1 << 30)


def give_back_memory() -> None:
    """Return, on a worker, what a training has freed to the system, and to the settings that there were."""
    threshold = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    if threshold.isdecimal() and _set_malloc(int(threshold), 128 << 10):
        ctypes.CDLL(None).malloc_trim(0)


def _set_malloc(trim: int, mmap: int) -> bool:
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, trim) and mallopt(_M_MMAP_THRESHOLD, mmap))

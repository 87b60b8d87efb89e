"""Running one job: a kernel over a set of blocks, on some threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms import stopping
from distcorpus.kernels.base import Key, Packed, Result


def run(
    kernel: Any,
    params: Any,
    blocks: Sequence[tuple[Any, Key]],
    words: NDArray[np.int32],
    table: NDArray,
    table_row: NDArray[np.int32],
    threads: Executor | None = None,
    *,
    unpack: Callable[[Any], Packed] = lambda block: block,
) -> tuple[Result, float]:
    """Compute one job.

    Parameters
    ----------
    kernel : type
        A `Kernel`.
    params
        The round's parameters, as the kernel takes them.
    blocks : sequence of (Chunk or Postings, tuple of int)
        The documents, packed by the kernel, and what identifies each block within its session. Where `unpack`
        is given they may be of any type that has ``nnz``, their entries.
    words : ndarray of int32, shape (n_words,)
        The sorted ids of the terms that occur in the blocks.
    table : ndarray, shape (m, width)
        Broadcast rows, as the kernel's ``prepare`` made them.
    table_row : ndarray of int32, shape (num_terms,)
        The row of each of the `words`.
    threads : Executor, optional
        Where blocks are computed side by side; without it here, one after the other.
    unpack : callable
        Returns a block as the kernel takes it, when it is its turn.

    Returns
    -------
    result : Partial or BlockResults
        The same bits for any number of threads.
    seconds : float
        Time spent in computing.

    Raises
    ------
    Stopped
        What ends this thread's computations (`stopping.stopped_by`) was set.
    """
    started = time.perf_counter()
    job, stop = kernel(params, words, table, table_row), stopping.current()

    def add(block: tuple[Any, Key]) -> None:
        with stopping.stopped_by(stop):
            job.add(unpack(block[0]), block[1])

    if threads is None or len(blocks) == 1:
        for block in blocks:
            add(block)
    else:
        # The largest first, so that no thread is left alone with one at the end.
        for _ in threads.map(add, sorted(blocks, key=lambda block: -block[0].nnz)):
            pass
    return job.result(), time.perf_counter() - started

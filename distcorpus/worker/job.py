"""Running one job: a kernel over a set of blocks, on this worker's threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.evaluation import Inference
from distcorpus.algorithms.lda import EStep
from distcorpus.algorithms.lsi import Product
from distcorpus.algorithms.partial import Partial
from distcorpus.worker.cache import KeptBlock, Places

#: The kernels that a job may name.
KERNELS: dict[str, Any] = {"lda": EStep, "lsi": Product, "inference": Inference}


def run(
    kernel_name: str,
    params: dict[str, Any],
    blocks: Sequence[tuple[KeptBlock, tuple[int, ...]]],
    words: NDArray[np.int32],
    table: NDArray,
    rows: NDArray[np.int32],
    threads: Executor | None,
) -> tuple[Partial, float]:
    """Compute one job.

    Parameters
    ----------
    kernel_name : str
        A name in `KERNELS`.
    params : dict
        The round's parameters, as the kernel takes them.
    blocks : sequence of (KeptBlock, tuple of int)
        The documents, and what identifies each block within its session.
    words : ndarray of int32, shape (n_words,)
        The sorted ids of the terms that occur in the blocks.
    table : ndarray, shape (m, width)
        The broadcast.
    rows : ndarray of int32, shape (n_words,)
        The row of `table` of each word.
    threads : Executor or None
        Where blocks are computed side by side; None computes them here, one after the other.

    Returns
    -------
    partial : Partial
        The exact sum over the blocks, the same bits for any number of threads.
    seconds : float
        Time spent in computing.
    """
    started = time.perf_counter()
    # The kernel sees no term but these, by their positions: what it takes does not grow with the vocabulary.
    kernel = KERNELS[kernel_name](params, np.arange(len(words), dtype=np.int32), table, rows)
    places = Places(words)
    if threads is None or len(blocks) == 1:
        for block, key in blocks:
            kernel.add(block.among(places), key)
    else:
        # The largest first, so that no thread is left alone with one at the end.
        largest_first = sorted(blocks, key=lambda block: -block[0].documents.nnz)
        for _ in threads.map(lambda block: kernel.add(block[0].among(places), block[1]), largest_first):
            pass
    partial = kernel.partial()
    partial = replace(partial, words=words[partial.words])
    return partial, time.perf_counter() - started

"""Running one job: a kernel over a set of blocks, on this worker's threads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus import kernels
from distcorpus.algorithms.partial import Partial
from distcorpus.kernels import Key, Result
from distcorpus.worker.cache import KeptBlock, Places

_POSITION = re.compile(r"^term id (\d+):")


def run(
    kernel: Any,
    params: Any,
    blocks: Sequence[tuple[KeptBlock, Key]],
    words: NDArray[np.int32],
    table: NDArray,
    rows: NDArray[np.int32],
    threads: Executor | None,
) -> tuple[Result, float]:
    """Compute one job: see `kernels.run`.

    The kernel sees no term but `words`, by their positions: what it takes does not grow with the vocabulary.

    Parameters
    ----------
    rows : ndarray of int32, shape (n_words,)
        The row of `table` of each word.
    """
    places = Places(words)
    try:
        result, seconds = kernels.run(
            kernel,
            params,
            blocks,
            np.arange(len(words), dtype=np.int32),
            table,
            rows,
            threads,
            unpack=lambda block: block.among(places),
        )
    except OverflowError as error:  # which names a term as the kernel sees it, see `summation.inexact`
        said = _POSITION.sub(lambda found: f"term id {words[int(found[1])]}:", str(error))
        raise OverflowError(said) from error
    if isinstance(result, Partial):
        result = replace(result, words=words[result.words])
    return result, seconds

"""What a job states, held against what it brings, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import MAX_TERMS
from distcorpus.kernels import kernel_named
from distcorpus.worker.cache import KeptBlock

#: Bytes that the documents of one block may take while they are computed, where the cache is not larger.
SCRATCH = 1 << 30


def check_job(job: Mapping[str, Any]) -> tuple[Any, Any]:
    """Refuse a job whose parts contradict each other.

    Returns
    -------
    kernel, params
        What it is to be computed with.

    Raises
    ------
    TypeError, ValueError
        It states a size, a type or a block that what it brings does not have; the message names it.
    """
    kernel = kernel_named(job["kernel"])
    params = kernel.params(**job["params"])
    num_terms, width = (
        _size("num_terms", job["num_terms"], MAX_TERMS),
        _size("width", params.width, MAX_TERMS),
    )
    _size("round", job["round"], 2**63 - 1)
    words, rows = job["words"], job["rows"]
    if not isinstance(words, np.ndarray) or words.dtype != np.int32 or words.ndim != 1:
        raise TypeError("words: not an array of term ids (int32)")
    if not isinstance(rows, np.ndarray) or rows.dtype not in (np.float32, np.float64):
        raise TypeError("rows: not an array of float32 or float64")
    if len(words) and not (words[0] >= 0 and words[-1] < num_terms and (words[1:] > words[:-1]).all()):
        raise ValueError(f"words: not ascending term ids of a vocabulary of {num_terms} terms")
    if rows.shape != (len(words), width):
        raise ValueError(f"rows of shape {rows.shape} for {len(words)} words and a width of {width}")
    numbers = [number for number, _ in job["blocks"]]
    if len(set(numbers)) < len(numbers):
        raise ValueError("a job has one of its blocks twice")
    stored = job.get("stored", {})
    if type(stored) is not dict or not set(stored) <= set(numbers):
        raise ValueError("a job refers to documents of blocks that it does not have")
    if not set(job["payload"]) <= set(numbers):
        raise ValueError("a job brings documents of blocks that it does not have")
    return kernel, params


def check_block(kernel: Any, number: int, n_docs: int) -> None:
    """Refuse more documents than a dispatcher puts into a block, empty ones included.

    Raises
    ------
    ValueError
        There are more.
    """
    most = kernel.limits.get("max_docs", n_docs)
    if n_docs > most:
        raise ValueError(f"block {number} has {n_docs} documents: at most {most} make one")


def check_scratch(number: int, block: KeptBlock, width: int, budget: int) -> None:
    """Refuse documents for which computing would take more memory than `budget` or `SCRATCH` bytes.

    Raises
    ------
    ValueError
        They would; the message has the remedy.
    """
    nbytes = block.documents.n_docs * width * 8
    if nbytes > max(budget, SCRATCH):
        raise ValueError(
            f"block {number}: {block.documents.n_docs} documents with {width} numbers each take "
            f"{nbytes / 1e9:.1f} GB: train fewer topics, or give this worker a larger --cache"
        )


def _size(name: str, size: Any, most: int) -> int:
    if type(size) is not int or not 0 <= size <= most:
        raise ValueError(f"{name}={size!r}: not a whole number from 0 to {most}")
    return size

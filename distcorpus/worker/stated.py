"""What a job states, held against what it brings, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import MAX_TERMS
from distcorpus.algorithms.received import UNROLLED, UNROLLED_PER_BYTE, check_kinds, distinct_bytes
from distcorpus.kernels import kernel_named
from distcorpus.worker.cache import KEPT, KeptBlock

#: Characters of the name of a session or of a lease.
LONGEST_NAME = 200
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
    check_kinds(str, session=job["session"], lease=job["lease"])
    for name in ("session", "lease"):
        if len(job[name]) > LONGEST_NAME:
            raise ValueError(f"{name}: {len(job[name]):,} characters, and up to {LONGEST_NAME} are taken")
    check_kinds(dict, params=job["params"], payload=job["payload"], stored=job.get("stored", {}))
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
    numbers = _numbers(job["blocks"])
    if len(set(numbers)) < len(numbers):
        raise ValueError("a job has one of its blocks twice")
    if not set(job.get("stored", {})) <= set(numbers):
        raise ValueError("a job refers to documents of blocks that it does not have")
    if not set(job["payload"]) <= set(numbers):
        raise ValueError("a job brings documents of blocks that it does not have")
    _check_payload(job["payload"])
    return kernel, params


def _numbers(blocks: Any) -> list[int]:
    """Return the numbers of a job's blocks, which say nothing else than numbers."""
    if type(blocks) is not list or not all(type(block) is tuple and len(block) == 2 for block in blocks):
        raise TypeError("blocks: not a list of (number, key)")
    for number, key in blocks:
        if type(key) is not tuple or not all(type(n) is int and 0 <= n < 2**63 for n in (number, *key)):
            raise TypeError("blocks: not a list of (number, key), these of whole numbers")
    return [number for number, _ in blocks]


def _check_payload(payload: Mapping[int, Any]) -> None:
    """Refuse documents that take far more memory as blocks than they did in their message, where all blocks
    may have the same ones.
    """
    if not set(map(type, payload.values())) <= {tuple, list}:
        raise TypeError("payload: not the arrays of blocks")
    arrays = [array for arrays in payload.values() for array in arrays if type(array) is np.ndarray]
    taken = KEPT * len(payload) + sum(array.nbytes for array in arrays)
    brought = distinct_bytes(arrays)
    if taken > UNROLLED + UNROLLED_PER_BYTE * brought:
        raise ValueError(
            f"a job brings {len(payload)} blocks that take {taken / 1e6:,.0f} MB, and only "
            f"{brought / 1e6:,.1f} MB of them arrived: empty ones, or one many times"
        )


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
        # What is no number, or a long one, is not written out.
        shown = size if type(size) is int and abs(size) < 2**64 else f"a {type(size).__name__}"
        raise ValueError(f"{name}={shown}: not a whole number from 0 to {most}")
    return size

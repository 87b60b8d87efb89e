"""What a worker answers to a job, held against the job before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.partial import Partial
from distcorpus.engines.base import Block, Round
from distcorpus.kernels import BlockResults, Result, check_result

#: How often a worker may say of one job that it lacks what was just sent. Other jobs of its may displace
#: that, but not again and again.
MOST_MISSING = 20
#: Bytes of an answer of a kernel that does not say what its results look like.
MOST_OF_OTHERS = 4 << 30
#: Bytes of an answer beside the arrays that follow from the job.
_BESIDE = 1 << 20


class FalseAnswer(Exception):
    """A worker's answer is none to the job that it was handed: the worker cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A result that passed, and the seconds that the worker says it took."""

    result: Result
    waited: float
    computed: float
    held: float


@dataclass(frozen=True, slots=True)
class Missing:
    """The worker lacks documents or, with `rows`, rows of the shared table."""

    rows: bool


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker leaves, or does not want the job."""


def largest_answer(round_: Round, blocks: Sequence[Block], words: NDArray[np.int32]) -> int:
    """Return how many bytes the answer to a job may have, where the kernel says what results look like."""
    if getattr(round_.kernel, "check", None) is None:
        return MOST_OF_OTHERS
    width = int(round_.params.width)
    rows = len(words) if round_.kernel.sums else sum(block.n_docs for block in blocks)
    return 2 * (rows * (8 * width + 4) + 8 * width) + _BESIDE


def read_answer(
    answer: Any, lease: str, round_: Round, blocks: Sequence[Block], words: NDArray[np.int32]
) -> Computed | Missing | HandedBack:
    """Return what a worker answered.

    Parameters
    ----------
    answer : any
        As it arrived.
    lease : str
        The name under which the job was handed out.
    round_ : Round
    blocks : sequence of Block
        Those of the job.
    words : ndarray of int32
        The term ids that occur in them.

    Raises
    ------
    FalseAnswer
        It is no answer to this job; the message says why.
    """
    try:
        return _read(answer, lease, round_, blocks, words)
    except MemoryError:
        raise
    except Exception as error:  # whatever a made-up answer leads to
        raise FalseAnswer(str(error) or repr(error)) from error


def _read(
    answer: Any, lease: str, round_: Round, blocks: Sequence[Block], words: NDArray[np.int32]
) -> Computed | Missing | HandedBack:
    if type(answer) is not dict:
        raise ValueError(f"it is a {type(answer).__name__}")
    if "missing" in answer:
        numbers, rows = answer["missing"], answer.get("rows_missing")
        known = {block.number for block in blocks}
        whole = type(numbers) is list and set(map(type, numbers)) <= {int}
        if not whole or type(rows) is not bool or not known.issuperset(numbers):
            raise ValueError("what it says it is missing is not of the job")
        return Missing(rows)
    if "handed_back" in answer:
        return HandedBack()
    if type(answer.get("lease")) is not str or answer["lease"] != lease:
        raise ValueError("it is the answer to another job")
    result: Result
    if round_.kernel.sums:
        of, steps, extras, *cells = answer["partial"]
        result = Partial(of, steps, extras, *cells)
    else:
        items = answer["arrays"]
        if not all(type(key) is tuple and set(map(type, key)) <= {int} for key, _ in items):
            raise ValueError("it has a block that is not called by numbers")
        result = BlockResults(dict(items))
        if len(items) != len(result.arrays):
            raise ValueError("it has a block twice")
    keyed = [(block.documents, block.key) for block in blocks]
    check_result(round_.kernel, round_.params, result, words, keyed)
    return Computed(result, *_seconds(answer["seconds"]))


def _seconds(seconds: Mapping[str, Any]) -> list[float]:
    values = [seconds[name] for name in ("waited", "computed", "held")]
    if not all(type(value) is float and math.isfinite(value) and value >= 0 for value in values):
        raise ValueError("its seconds are no durations")
    return values

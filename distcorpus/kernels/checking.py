"""What a job's result has to look like: held against its blocks where it was computed, and where it arrives.

A worker checks what it sends, so what arrives and does not pass was never computed by a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.partial import Partial, cell_type
from distcorpus.algorithms.summation import MAX_STEPS
from distcorpus.kernels.base import BlockResults, Key

#: How often a bound from the documents may be exceeded: honest sums are above it by rounding alone.
MARGIN = 2.0


def check_result(
    kernel: Any,
    params: Any,
    result: Any,
    words: NDArray[np.int32],
    blocks: Sequence[tuple[Any, Key]],
) -> None:
    """Refuse a result that no kernel can have computed of these blocks.

    Parameters
    ----------
    kernel : type
        A `Kernel`.
    params
        The round's parameters.
    result : any
        What is said to be a `Result`.
    words : ndarray of int32, shape (n_words,)
        The term ids that occur in the job's blocks, ascending.
    blocks : sequence of (Chunk or Postings, tuple of int)
        The documents, and the key of each block.

    Raises
    ------
    ValueError
        It is none; the message says what is wrong.
    """
    if kernel.sums:
        _require(isinstance(result, Partial), "it is no partial sum")
        _check_partial(result, words, params.width)
    else:
        _require(isinstance(result, BlockResults), "it has no arrays by block")
        _check_arrays(result.arrays, [key for _, key in blocks])
    check = getattr(kernel, "check", None)
    if check is not None:
        check(result, params, words, blocks)


def check_extras(extras: Mapping[str, Any], expected: Mapping[str, type]) -> None:
    """Refuse extras that are not named and typed as a kernel declares them.

    Raises
    ------
    ValueError
        One is missing, of another type, or not declared.
    """
    _require(set(extras) == set(expected), f"its extras are {_shown(sorted(extras))}, not {sorted(expected)}")
    for name, kind in expected.items():
        _require(type(extras[name]) is kind, f"its extra {name!r} is a {type(extras[name]).__name__}")


def check_array(what: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse what is not an array of finite numbers of this shape and type.

    Raises
    ------
    ValueError
        It is not.
    """
    _require(
        type(array) is np.ndarray and array.shape == shape and array.dtype == dtype,
        f"{what}: {described(array)}, not {np.dtype(dtype)} {shape}",
    )
    _require(bool(np.isfinite(array).all()), f"{what} is not finite")


def check_total(steps: NDArray, most: float) -> None:
    """Refuse negative steps, or more in all than `most`.

    Raises
    ------
    ValueError
        They are.
    """
    if steps.size:
        _require(bool(steps.min() >= 0), "it has negative steps")
        total = float(steps.sum(dtype=np.float64))
        _require(total <= most, f"it adds {total:g} steps, and its documents make {most:g} at most")


def described(value: Any) -> str:
    """Say what a value is, shortly, whatever it is."""
    if type(value) is np.ndarray:
        return f"{value.dtype} {value.shape}"[:100]
    return type(value).__name__[:100]


def _check_partial(partial: Partial, words: NDArray[np.int32], width: int) -> None:
    of, steps = partial.words, partial.steps
    _require(
        type(of) is np.ndarray and of.ndim == 1 and of.dtype == np.int32,
        f"its term ids are {described(of)}, not int32 of one dimension",
    )
    if of is not words and not np.array_equal(of, words):
        _require(bool((of[1:] > of[:-1]).all()), "its term ids do not ascend")
        _require(len(of) <= len(words), "it has more term ids than its documents")
        places = np.minimum(np.searchsorted(words, of), max(len(words) - 1, 0))
        _require(not len(of) or bool((words[places] == of).all()), "it has ids of terms not in its documents")
    _require(
        type(steps) is np.ndarray and steps.dtype in (np.int32, np.float64),
        f"its steps are {described(steps)}, not int32 or float64",
    )
    if partial.cells is None:
        _require(
            steps.shape == (len(of), width),
            f"its steps have the shape {steps.shape}, for {len(of)} terms and a width of {width}",
        )
    else:
        _check_cells(partial.cells, steps, len(of) * width)
    if steps.dtype == np.float64:
        _check_whole("its steps", steps)
    _require(isinstance(partial.extras, Mapping), "its extras are no mapping")
    for name, value in partial.extras.items():
        _require(type(name) is str, "an extra has no name")
        if type(value) is int:
            _require(abs(value) < 2**63, f"its extra {name!r} is out of range")
        elif type(value) is float:
            _require(value.is_integer() and abs(value) < MAX_STEPS, f"its extra {name!r} is {value}")
        else:
            numbers = isinstance(value, np.ndarray | np.number) and value.dtype.kind in "fiu"
            _require(numbers, f"its extra {name!r} is a {described(value)}")
            _check_whole(f"its extra {name!r}", np.asarray(value))


def _check_cells(cells: Any, steps: NDArray, size: int) -> None:
    _require(
        type(cells) is np.ndarray and cells.ndim == 1 and cells.dtype == cell_type(size),
        f"its cells are {described(cells)}, not {cell_type(size)} of one dimension",
    )
    _require(steps.shape == cells.shape, f"its steps have the shape {steps.shape}, for {len(cells)} cells")
    _require(len(cells) <= size, f"it has {len(cells)} cells of a table of {size}")
    if len(cells):
        inside = cells.min() >= 0 and cells.max() < size
        _require(bool(inside), f"its cells are from {cells.min()} to {cells.max()}, of a table of {size}")


def _check_whole(what: str, numbers: NDArray) -> None:
    if numbers.size:
        least, most = float(numbers.min()), float(numbers.max())
        _require(math.isfinite(least) and math.isfinite(most), f"{what}: not finite")
        _require(max(-least, most) < MAX_STEPS, f"{what}: up to {max(-least, most):g}, which is out of range")
        if numbers.dtype.kind == "f":
            _require(bool((np.rint(numbers) == numbers).all()), f"{what}: not whole numbers")


def _check_arrays(arrays: Mapping[Key, Any], keys: Sequence[Key]) -> None:
    _require(set(arrays) == set(keys), f"it has blocks {_shown(list(arrays))}, not {_shown(list(keys))}")
    for key, array in arrays.items():
        numbers = type(array) is np.ndarray and array.ndim > 0 and array.dtype.kind in "fiub"
        _require(numbers, f"of block {key} it has a {described(array)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)

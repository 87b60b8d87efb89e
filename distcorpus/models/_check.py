"""Arguments are checked before anything is computed or sent: each error says what was given and what is
allowed.
"""

from __future__ import annotations

import numbers
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import scipy.sparse
from gensim import utils

#: Takes an argument's name and value; returns the value to use, or raises.
Check = Callable[[str, Any], Any]


class ShapeError(ValueError, AssertionError):
    """A prior of the wrong shape. gensim raises AssertionError there, and its users may expect it."""


def _real(name: str, value: Any, allowed: str) -> float:
    """Return a number as a float; a text of one too, which gensim takes in places."""
    if isinstance(value, str):
        with suppress(ValueError):
            given = float(value)
            warnings.warn(
                f"{name}={value!r} is a text: give a number", DeprecationWarning, stacklevel=outside()
            )
            return given
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r}: give {allowed}")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def outside() -> int:
    """Return the stack level of the first caller that is not of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("distcorpus."):
        frame, level = frame.f_back, level + 1
    return level


def whole(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """Return a whole number in [least, most]."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_):
        whole_number = int(value)
        if not least <= whole_number <= most:
            raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")
        return whole_number
    given = _real(name, value, f"a whole number, {least} or more")
    if not given.is_integer() or not least <= given <= most:
        raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")
    return int(given)


def topics(name: str, value: Any) -> int:
    """Return a number of topics; gensim leaves out a fraction, which searches over parameters rely on."""
    given = value
    if isinstance(value, float | np.floating) and np.isfinite(value) and not float(value).is_integer():
        given = int(value)
        warnings.warn(
            f"{name}={value!r} is taken for {given}, as gensim does: give a whole number",
            DeprecationWarning,
            stacklevel=outside(),
        )
    return whole(name, given, 1)


def schedule(
    *,
    passes: Any,
    update_every: Any,
    decay: Any,
    offset: Any,
    eval_every: Any,
    iterations: Any,
    gamma_threshold: Any,
) -> dict[str, Any]:
    """Return the arguments of a training of LDA as numbers."""
    # gensim takes the remainder by it, whose sign makes no difference.
    every = None if eval_every is None else whole("eval_every", eval_every, -(2**31))
    return {
        "passes": whole("passes", passes, 0),
        "update_every": whole("update_every", update_every, 0),
        "decay": number("decay", decay, 0.0),
        "offset": number("offset", offset, 1.0),  # below 1 the first update's learning rate would exceed 1
        "eval_every": None if every is None else abs(every),
        "iterations": whole("iterations", iterations, 0),
        "gamma_threshold": number("gamma_threshold", gamma_threshold, 0.0),
    }


def workers(value: Any, distributed: Any) -> int | None:
    """Return a number of threads, or None."""
    if value is None:
        return None
    if distributed:
        raise ValueError(
            f"workers={value!r} with distributed=True: give workers for threads of this process, or "
            "distributed=True for a running cluster"
        )
    return whole("workers", value, 1)


def number(name: str, value: Any, least: float, most: float = np.inf) -> float:
    """Return a finite number in [least, most]."""
    if type(value) is float and least <= value <= most and value < np.inf:
        return value  # as nearly all are, where a document alone shall not wait
    allowed = f"{least:g} or more" if most == np.inf else f"from {least:g} to {most:g}"
    given = _real(name, value, f"a number, {allowed}")
    if not (np.isfinite(given) and least <= given <= most):
        raise ValueError(f"{name}={value!r}: give a number, {allowed}")
    return given


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    given = _real(name, value, "a number above 0")
    if not (np.isfinite(given) and given > 0):
        raise ValueError(f"{name}={value!r}: give a number above 0")
    return given


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return one of some words."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, allowed))}")
    return str(value)


def progress(name: str, value: Any) -> Any:
    """Return True or False, or a function."""
    if not (isinstance(value, bool) or callable(value)):
        raise TypeError(f"{name}={value!r}: give True, False, or a function that is called with each event")
    return value


def metrics(name: str, value: Any) -> Any:
    """Return gensim's callbacks of a topic model, or None."""
    given = () if value is None else value
    if not isinstance(given, Iterable) or not all(hasattr(metric, "get_value") for metric in given):
        raise TypeError(f"{name}={value!r}: give a list of metrics of gensim.models.callbacks")
    return value


def path(name: str, value: Any) -> str:
    """Return the path of a file, new or not, in a directory that can be written to."""
    try:
        found = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: give the path of a file") from None
    folder = os.path.dirname(found) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{name}={value!r}: there is no directory {folder}; make it, or give another path")
    if not found or os.path.isdir(found):
        raise ValueError(f"{name}={value!r}: this names no file; give the path of one")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{name}={value!r}: nothing can be written to {folder} ({error.strerror}); give another path"
        ) from None
    return found


def random_state(seed: Any) -> np.random.RandomState:
    """Return what gensim makes of a seed."""
    try:
        return utils.get_random_state(seed)
    except (ValueError, TypeError) as error:
        raise ValueError(f"random_state={seed!r}: give a whole number or a numpy RandomState") from error


def floats(dtype: Any) -> np.dtype:
    """Return float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype={dtype!r}: give numpy.float32 or numpy.float64") from None
    if found not in (np.float32, np.float64):
        raise ValueError(
            f"dtype={found}: give numpy.float32 or numpy.float64 (float16 overflows in sums beyond 65,504)"
        )
    return found


def given_prior(name: str, value: Any, words: Sequence[str]) -> Any:
    """Return a Dirichlet prior as gensim takes it: None, one of some words, a number, or an array."""
    kinds = "a number, or a list or array of them"
    allowed = f"give one of {', '.join(map(repr, words))}, {kinds}" if words else f"give {kinds}"
    if value is None:
        return None
    if isinstance(value, str):
        if value in words:
            return value
        try:
            return _real(name, value, allowed)
        except TypeError:
            raise ValueError(f"{name}={value!r}: {allowed}") from None
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked values: give an array without")
    if scipy.sparse.issparse(value) or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is a {type(value).__name__}: {allowed}")
    try:
        if np.iscomplexobj(np.asarray(value)):
            raise TypeError("there are complex ones")
        values = np.asarray(value, dtype=np.float64)
    except OverflowError:
        raise ValueError(f"{name} has a number beyond {np.finfo(np.float64).max:.0e}: {allowed}") from None
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is no array of numbers ({error}): {allowed}") from error
    return float(values) if values.ndim == 0 else values


def prior(
    name: str, values: np.ndarray, shapes: Sequence[tuple[int, ...]], *, zeros: bool = False
) -> np.ndarray:
    """Return a Dirichlet prior.

    A zero, where not all are, stands for the smallest number: a topic that no document begins with. With
    `zeros` it stays, and so it does where all are.
    """
    if values.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        raise ShapeError(f"{name} has shape {values.shape}: give a number, or an array of shape {allowed}")
    bad = values[~(np.isfinite(values) & (values >= 0))]
    if bad.size:
        raise ValueError(
            f"{name} has the value {bad.flat[0]:g}, which is not a positive number in {values.dtype}: give "
            f"numbers from {np.finfo(values.dtype).tiny:.0e} to {np.finfo(values.dtype).max:.0e}"
        )
    with np.errstate(over="ignore"):
        sums = values.sum(axis=-1, dtype=np.float64)
    if not (np.asarray(sums) < np.finfo(values.dtype).max / 2).all():
        raise ValueError(
            f"{name} adds up to {np.max(sums):.3g}, which is more than {values.dtype} has room for (counts "
            f"come on top): give smaller numbers, of which the sum is below "
            f"{np.finfo(values.dtype).max / 2:.2g}"
        )
    if zeros:
        return values
    if not values.any():
        tiny = np.finfo(values.dtype).tiny
        raise ValueError(f"{name} is 0 in {values.dtype}: give a number above 0, {tiny:.0e} or more")
    return np.maximum(values, np.finfo(values.dtype).tiny)

"""Arguments are checked before anything is computed or sent: each error says what was given and what is
allowed.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gensim import utils


class ShapeError(ValueError, AssertionError):
    """A prior of the wrong shape. gensim raises AssertionError there, and its users may expect it."""


def whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r}: give a whole number, {least} or more")
    given = float(value)
    if not given.is_integer() or given < least:
        raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")
    return int(given)


def number(name: str, value: Any, least: float, most: float = np.inf) -> float:
    """Return a finite number in [least, most]."""
    allowed = f"{least:g} or more" if most == np.inf else f"from {least:g} to {most:g}"
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r}: give a number, {allowed}")
    given = float(value)
    if not (np.isfinite(given) and least <= given <= most):
        raise ValueError(f"{name}={value!r}: give a number, {allowed}")
    return given


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r}: give a number above 0")
    given = float(value)
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
    """Return the path of a file in a directory that there is."""
    try:
        found = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: give the path of a file") from None
    folder = os.path.dirname(found) or "."
    if not os.path.isdir(folder):
        raise ValueError(f"{name}={value!r}: there is no directory {folder}; make it, or give another path")
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


def prior(name: str, values: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> None:
    """Check a Dirichlet prior."""
    if values.shape not in shapes:
        allowed = " or ".join(str(shape) for shape in shapes)
        raise ShapeError(f"{name} has shape {values.shape}: give a number, or an array of shape {allowed}")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"{name} has values that are not positive numbers: a Dirichlet prior is above 0")

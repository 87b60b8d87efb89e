"""What arrived, held against what it may be before anything goes through it.

What documents will take when they are unrolled follows from what they state alone.

A message may state much in few bytes: an array without elements has a shape, a matrix without entries has
columns, and one document may stand in a list a thousand times. In a program's own hands none of this is
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from .sparse import matrix_of

#: Bytes that a chunk may take as a `Chunk`, and for each byte that it brought so many more.
UNROLLED, UNROLLED_PER_BYTE = 64 << 20, 8
#: Bytes of an entry (two numbers) and of a document.
_ENTRY, _DOCUMENT = 16, 16
#: Bytes of a row of an array when it becomes an object of its own.
_ROW = 128

#: The largest whole number that compiled code takes.
LARGEST = 2**63 - 1

R = TypeVar("R")

WHOLE: tuple[type, ...] = (int, np.integer)
NUMBER: tuple[type, ...] = (int, float, np.integer, np.floating)
#: The largest count that is taken: more than there is of anything, and a float still has each number below.
MOST_COUNTED = 2**53


def check_kinds(*kinds: type | None, **values: Any) -> None:
    """Refuse values of other types, which are not looked at: lists in lists in lists may have no end.

    Parameters
    ----------
    *kinds : type or None
        Those that they may have.
    **values : any
        By their names.

    Raises
    ------
    TypeError
        One has another; the message names it.
    """
    for name, value in values.items():
        if not isinstance(value, tuple(type(None) if kind is None else kind for kind in kinds)):
            wanted = " or ".join("None" if kind is None else kind.__name__ for kind in kinds)
            raise TypeError(f"{name} is a {type(value).__name__}: give {wanted}")


def whole(name: str, value: Any, least: int = -LARGEST, most: int = LARGEST) -> int:
    """Return a whole number that has arrived as Python's own: compiled code is compiled for each other type.

    Raises
    ------
    TypeError
        It is none.
    ValueError
        It is less than `least`, or more than `most`; without one, than compiled code takes.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} is a bool: give a whole number")
    check_kinds(*WHOLE, **{name: value})
    number = int(value)
    if not least <= number <= most:
        shown = number if abs(number) <= LARGEST else "..."  # a long number takes long to write
        raise ValueError(f"{name}={shown}: give a whole number from {least} to {most:,}")
    return number


def count(name: str, value: Any, least: int = 0) -> int:
    """Return a count that has arrived (see `whole`): `MOST_COUNTED` at most."""
    return whole(name, value, least, MOST_COUNTED)


def real(name: str, value: Any, least: float = -math.inf) -> Any:
    """Return a number that has arrived as Python's own (see `whole`), int or float.

    Raises
    ------
    TypeError
        It is none.
    ValueError
        It is less than `least`, or not finite.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} is a bool: give a number")
    check_kinds(*NUMBER, **{name: value})
    if isinstance(value, WHOLE):
        return whole(name, value, -LARGEST if least == -math.inf else math.ceil(least))
    given = float(value)
    if not (math.isfinite(given) and given >= least):
        allowed = "a finite number" if least == -math.inf else f"a finite number, {least:g} or more"
        raise ValueError(f"{name}={given:g}: give {allowed}")
    return given


def flag(name: str, value: Any) -> bool:
    """Return True or False, which has arrived, as Python's own.

    Raises
    ------
    TypeError
        It is something else.
    """
    check_kinds(bool, np.bool_, **{name: value})
    return bool(value)


def optional(check: Callable[[str, Any], R]) -> Callable[[str, Any], R | None]:
    """Return a check that lets None through."""
    return lambda name, value: None if value is None else check(name, value)


def keep_plain(of: Any, check: Callable[..., Any], *names: str) -> None:
    """Put in the place of some attributes, of a dataclass that may be frozen, what `check` makes of them."""
    for name in names:
        object.__setattr__(of, name, check(name, getattr(of, name)))


def check_amounts(amounts: Mapping[str, Any], *, above_zero: bool = False) -> None:
    """Refuse arrays, and numbers, that are not all finite and at least 0.

    Parameters
    ----------
    amounts : mapping of str to ndarray or number
        By their names.
    above_zero : bool, default False
        Whether 0 will not do either.

    Raises
    ------
    TypeError, ValueError
        One has something else; the message names it and says what it has.
    """
    for name, amount in amounts.items():
        array = np.asarray(amount)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} is of type {array.dtype}: give numbers")
        if not array.size:
            continue
        least, most = float(array.min()), float(array.max())  # no number where one is none
        if not ((least > 0 if above_zero else least >= 0) and most < math.inf):
            has = f"is {least:g}" if not array.ndim else f"has numbers from {least:g} to {most:g}"
            allowed = "above 0" if above_zero else "of 0 or more"
            raise ValueError(f"{name} {has}: give finite numbers {allowed}")


def check_received(documents: Any, what: str = "chunk") -> None:
    """Refuse documents that would take far more memory as a `Chunk` than they did in their message.

    Parameters
    ----------
    documents : any
        As `chunk.as_chunk` takes them; what it refuses is not looked at.
    what : str
        What error messages call them.

    Raises
    ------
    ValueError
        They would; the message has the numbers.
    """
    matrix = matrix_of(documents)
    if matrix is not None:
        number, taken, brought = _of_matrix(matrix)
    elif isinstance(documents, np.ndarray) and documents.dtype != object:
        number, brought = math.prod(documents.shape[:1]), documents.nbytes
        taken = _ROW * number + _ENTRY * math.prod(documents.shape[:2])
    elif isinstance(documents, list | tuple | np.ndarray):
        number, taken, brought = _of_sequence(documents)
    else:
        return
    if taken > UNROLLED + UNROLLED_PER_BYTE * brought:
        raise ValueError(
            f"{what}: its {number} documents would take {taken / 1e6:,.0f} MB, and only "
            f"{brought / 1e6:,.1f} MB of them arrived: empty ones, or one many times. Send smaller chunks "
            "(chunksize)"
        )


def _of_matrix(matrix: Any) -> tuple[int, int, int]:
    """Return the number of documents, and the bytes that they will take and have brought."""
    brought = sum(part.nbytes for part in vars(matrix).values() if isinstance(part, np.ndarray))
    brought += sum(part.nbytes for part in getattr(matrix, "coords", ()))
    number = math.prod(matrix.shape[1:])
    return number, _DOCUMENT * number + _ENTRY * matrix.nnz, brought


def _of_sequence(documents: Any) -> tuple[int, int, int]:
    """Return the number of documents, and the bytes that they will take and have brought."""
    seen: set[int] = set()
    arrays = []
    taken = brought = 0
    for document in documents:
        try:
            entries = len(document)
        except TypeError:
            continue  # not a document: it is refused where it is read
        taken += _DOCUMENT + _ENTRY * entries
        if id(document) in seen:
            continue
        seen.add(id(document))
        if isinstance(document, np.ndarray):
            arrays.append(document)
        elif isinstance(document, list | tuple):
            brought += _DOCUMENT + _ENTRY * entries
    return len(documents), taken, brought + distinct_bytes(arrays)


def distinct_bytes(arrays: Iterable[np.ndarray]) -> int:
    """Return the bytes of some arrays; of those that begin at one place in memory, as arrays of the same
    buffer do, the bytes of the longest.
    """
    at: dict[int, int] = {}
    for array in {id(array): array for array in arrays}.values():  # places take time to find
        place = array.__array_interface__["data"][0]
        at[place] = max(at.get(place, 0), array.nbytes)
    return sum(at.values())

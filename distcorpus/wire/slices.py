"""Calls whose arguments or answers are larger than a message: their arrays travel in slices, one a message.

The caller is a `SlicedCalls`; what is called is a method with `sliced`, of an object of a class with
`Slices`. In the place of an array that travels by itself a message has a dict, ``{MARK: (number, dtype,
shape)}``.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from Pyro4.configuration import config
from Pyro4.errors import ProtocolError

from distcorpus._machine import usable_memory
from distcorpus.wire.daemon import Connection, current_connection, expose

MARK = "array in slices"
#: Bytes of a slice, where messages may be so large.
SLICE = 64 << 20
#: Arrays below travel in their message.
SMALL = 4096
#: The part of the memory of this machine, or its cgroup, that arrays may take which are arriving in slices.
SHARE_OF_MEMORY = 0.5
#: Bytes that are taken at once: the largest pages of usual systems.
PAGE = 2 << 20
_MOST_AXES = 8
_LONGEST_TYPE = 20
#: How many containers an array is in at most, from the arguments or the answer on.
DEEPEST = 4
#: Rows of an array without bytes: whoever goes through them takes time and memory for each.
MOST_EMPTY_ROWS = 1 << 16
#: Arrays of one call that travel in slices.
MOST_ARRAYS = 100_000
#: No program is asked for more slices than this limit of its messages makes.
LEAST_LIMIT = 1 << 16

F = TypeVar("F", bound=Callable[..., Any])


def message_limit() -> int:
    """Return how many bytes a message may have, in this process."""
    return int(config.MAX_MESSAGE_SIZE)


class _Arriving:
    """The bytes that are arriving in slices, of all connections together."""

    def __init__(self) -> None:
        self.most = int(usable_memory() * SHARE_OF_MEMORY)
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int, of: int) -> None:
        """Take so many bytes of an array that will have `of`."""
        with self._lock:
            if self._taken + nbytes > self.most:
                raise too_large(of)
            self._taken += nbytes

    def give_back(self, nbytes: int) -> None:
        with self._lock:
            self._taken -= nbytes


def too_large(nbytes: int) -> ValueError:
    """Return what is said of an array for which there is no room."""
    return ValueError(
        f"an array of {nbytes / 1e6:,.0f} MB does not fit into this machine's memory beside what else is "
        "arriving: train fewer topics"
    )


_arriving = _Arriving()


class FalseSliceError(ProtocolError):
    """What an answer says of its slices cannot be: whatever answers does not keep to the protocol."""


class _Parcels:
    """The arrays of one connection that are on their way, at its server.

    What an array is said to have is claimed, and what of it is here takes memory. A connection claims no more
    than all may take, since addresses have an end too; memory is taken as slices come, so that nobody keeps
    others from theirs by what is merely said.
    """

    def __init__(self) -> None:
        self.limit = message_limit()
        self._in: dict[int, tuple[np.ndarray, int]] = {}  # and the bytes of each that are here
        self._claimed = 0
        self._out: dict[int, np.ndarray] = {}

    def put(self, number: int, nbytes: int, start: int, part: np.ndarray) -> None:
        buffer, here = self._in.get(number, (None, 0))
        end = start + part.nbytes
        known = buffer is None or nbytes == len(buffer)
        if start != here or not known or end > nbytes or part.dtype != np.uint8:
            raise ValueError("a slice that does not follow the one before")
        if buffer is None:
            buffer = self._begun(nbytes)
        _arriving.take(_pages(end, nbytes) - _pages(here, nbytes), nbytes)
        buffer[start:end] = part
        if number not in self._in:
            self._claimed += nbytes
        self._in[number] = buffer, end

    def _begun(self, nbytes: int) -> np.ndarray:
        """Return room for an array, which takes no memory before it is written to."""
        if len(self._in) >= MOST_ARRAYS:
            raise ValueError(f"{MOST_ARRAYS} arrays have arrived, and the call that they are for has not")
        if self._claimed + nbytes > _arriving.most:
            raise too_large(nbytes)
        return np.empty(nbytes, np.uint8)

    def get(self, number: int, start: int, size: int) -> np.ndarray:
        array = self._out[number]
        if start + size >= len(array):
            del self._out[number]
        return array[start : start + size]

    def arrived(self, number: Any, dtype: Any, shape: Any) -> np.ndarray:
        numbers = (number, *shape) if type(shape) in (tuple, list) else (None,)
        if len(numbers) > 1 + _MOST_AXES or not all(type(one) is int and one >= 0 for one in numbers):
            raise ValueError("an array has arrived whose number and shape are none")
        buffer, here = self._in.pop(number)
        self._claimed -= len(buffer)
        _arriving.give_back(_pages(here, len(buffer)))
        kind = _number_type(dtype)
        if kind is None or math.prod(shape) * kind.itemsize != len(buffer) or here < len(buffer):
            raise ValueError("an array has not arrived as a whole")
        if not len(buffer) and math.prod(length or 1 for length in shape) > MOST_EMPTY_ROWS:
            raise ValueError("an array without bytes has arrived that states many rows")
        return buffer.view(kind).reshape(shape)

    def unpacked(self, arguments: Any) -> Any:
        return _replaced(arguments, lambda mark: self.arrived(*mark)) if self._in else arguments

    def packed(self, answer: Any) -> Any:
        self._out.clear()  # of a call before, which nobody will ask for
        return _marked(answer, self.limit, self._out)

    def __del__(self) -> None:
        _arriving.give_back(sum(_pages(here, len(buffer)) for buffer, here in self._in.values()))


def _pages(here: int, nbytes: int) -> int:
    """Return what an array takes of which so many bytes are here: the system gives whole pages."""
    return min(-(-here // PAGE) * PAGE, nbytes)


class Slices:
    """What an object has to offer whose methods are `sliced`."""

    def __init__(self) -> None:
        self.__parcels: WeakKeyDictionary[Connection, _Parcels] = WeakKeyDictionary()
        self.__lock = threading.Lock()

    def parcels(self) -> _Parcels | None:
        """Return those of the connection whose call this is."""
        connection = current_connection()
        if connection is None:
            return None
        with self.__lock:
            return self.__parcels.setdefault(connection, _Parcels())

    def _own(self) -> _Parcels:
        parcels = self.parcels()
        if parcels is None:
            raise RuntimeError("slices come over a connection")
        return parcels

    @expose
    def agree(self, limit: int) -> int:
        """Return how many bytes a message may have, where the caller's may have `limit`."""
        parcels = self._own()
        parcels.limit = min(max(_whole(limit), LEAST_LIMIT), message_limit())
        return parcels.limit

    @expose
    def put_slice(self, number: int, nbytes: int, start: int, part: np.ndarray) -> None:
        """Take a slice of an array of `nbytes` bytes; they come one after the other."""
        if not isinstance(part, np.ndarray) or part.ndim != 1:
            raise TypeError("a slice is an array of bytes")
        self._own().put(_whole(number), _whole(nbytes), _whole(start), part)

    @expose
    def get_slice(self, number: int, start: int, size: int) -> np.ndarray:
        """Return a slice of an array of the latest answer."""
        return self._own().get(_whole(number), _whole(start), _whole(size))


def sliced(method: F) -> F:
    """Let the arrays of a method's arguments and of its answer travel in slices."""

    @functools.wraps(method)
    def call(self: Slices, *arguments: Any) -> Any:
        parcels = self.parcels()
        if parcels is None:
            return method(self, *arguments)
        return parcels.packed(method(self, *parcels.unpacked(arguments)))

    return call  # type: ignore[return-value]


class SlicedCalls:
    """Calls of `sliced` methods, one after the other.

    Parameters
    ----------
    proxy : Proxy
        Of an object with `Slices`.

    Attributes
    ----------
    most : int
        Bytes that the arrays of an answer may have together; by default half of what this machine, or
        its cgroup, has.
    """

    def __init__(self, proxy: Any) -> None:
        self.proxy = proxy
        self.most = _arriving.most
        self._limit: int | None = None

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Call a method, and return what it returns.

        Raises
        ------
        FalseSliceError
            What the answer says of its arrays cannot be.
        """
        if self._limit is None:
            limit = self._method("agree")(message_limit())
            if type(limit) is not int or not 0 < limit <= message_limit():
                raise FalseSliceError("the other side does not agree to a size of messages")
            self._limit = limit
        size = max(min(SLICE, self._limit // 2), 1)
        arrays: dict[int, np.ndarray] = {}
        arguments = _marked(arguments, self._limit, arrays)
        for number, array in arrays.items():
            for start, part in _parts(array, size):
                self._method("put_slice")(number, len(array), start, part)
        arrays.clear()
        answer = self._method(method)(*arguments)
        left = self.most

        def fetch(mark: Any) -> np.ndarray:
            nonlocal left
            number, dtype, shape = _read_mark(mark, left)
            array = np.empty(shape, dtype)
            left -= array.nbytes
            for start, part in _parts(array.reshape(-1).view(np.uint8), size):
                came = self._method("get_slice")(number, start, len(part))
                if type(came) is not np.ndarray or came.dtype != np.uint8 or came.shape != part.shape:
                    raise FalseSliceError("a slice of an answer is not the one that was asked for")
                part[:] = came
            return array

        return _replaced(answer, fetch)

    def _method(self, name: str) -> Any:
        """Return a method of the remote object, if it says that it has one."""
        if name not in self.proxy._pyroMethods:
            raise FalseSliceError(f"what answers has no method {name!r}")
        return getattr(self.proxy, name)


def _read_mark(mark: Any, most: int) -> tuple[int, np.dtype, tuple[int, ...]]:
    """Return number, type and shape of an array in slices, of `most` bytes."""
    if type(mark) not in (tuple, list) or len(mark) != 3:
        raise FalseSliceError("an answer has no array where it says so")
    number, dtype, shape = mark
    kind = _number_type(dtype)
    lengths = type(shape) in (tuple, list) and all(type(length) is int and length >= 0 for length in shape)
    if type(number) is not int or kind is None or not lengths or len(shape) > _MOST_AXES:
        raise FalseSliceError("an answer has an array of no type or shape that it could have")
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes > most:
        raise FalseSliceError(
            f"an answer has arrays of {nbytes / 1e6:,.1f} MB, where {most / 1e6:,.1f} MB are the most"
        )
    return number, kind, tuple(shape)


def _number_type(dtype: Any) -> np.dtype | None:
    """Return the type of numbers that a string names, or None."""
    try:
        # numpy reads a longer text as one of several types, in its own time.
        kind = np.dtype(dtype if type(dtype) is str and len(dtype) < _LONGEST_TYPE else "O")
    except (TypeError, ValueError):
        return None
    return kind if kind.kind in "fiub" else None


def _parts(array: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(array), size):
        yield start, array[start : start + size]


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise TypeError("a slice's place is a whole number")
    return number


def _marked(value: Any, limit: int, arrays: dict[int, np.ndarray]) -> Any:
    """Return a value with marks for its larger arrays, which are put into `arrays` as bytes; the value itself
    where all of them fit into half a message.
    """
    nbytes = 0

    def count(array: np.ndarray) -> np.ndarray:
        nonlocal nbytes
        nbytes += array.nbytes
        return array

    _map_arrays(value, count)
    if nbytes <= limit // 2:
        return value

    def mark(array: np.ndarray) -> Any:
        if array.nbytes < SMALL:
            return array
        number = len(arrays)
        arrays[number] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return {MARK: (number, array.dtype.str, array.shape)}

    return _map_arrays(value, mark)


def _map_arrays(value: Any, function: Callable[[np.ndarray], Any]) -> Any:
    if type(value) is np.ndarray:
        return function(value)
    if type(value) is dict:
        return {key: _map_arrays(item, function) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_map_arrays(item, function) for item in value)
    return value


def _replaced(value: Any, array_of: Callable[[Any], np.ndarray]) -> Any:
    """Return a value with arrays in the place of its marks; what stands in it often is looked at once."""
    done: dict[int, Any] = {}

    def replaced(value: Any, depth: int) -> Any:
        if depth > DEEPEST or type(value) not in (dict, tuple, list):
            return value
        if id(value) not in done:
            if type(value) is not dict:
                done[id(value)] = type(value)([replaced(item, depth + 1) for item in value])
            elif len(value) == 1 and MARK in value:
                done[id(value)] = array_of(value[MARK])
            else:
                done[id(value)] = {key: replaced(item, depth + 1) for key, item in value.items()}
        return done[id(value)]

    return replaced(value, 0)

"""Read pickles as data: a reader that can make nothing but what its rules describe.

Restricting ``pickle.Unpickler.find_class`` is not enough to read a stranger's pickle. A pickle can set
attributes of the allowed classes themselves (BUILD), hand a forged state to numpy's C code, make the C
implementation allocate gigabytes with five bytes (LONG_BINPUT), and overflow the C stack by hashing a tuple
nested a million deep. None of that passes through ``find_class``. So this module interprets the opcodes
itself: a name in a pickle stands for a `Rule`, never for a live class or function that the pickle could get
hold of, and only the rule makes and fills objects.

The opcodes that Python's pickler writes in protocols 2 to 5 are understood (see ``pickletools`` for the
format), but for those of persistent ids, extension codes and keyword construction, which nothing in this
project needs.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from Pyro4.errors import SecurityError, SerializeError


@dataclass(frozen=True, slots=True)
class Rule:
    """How the objects of one name are made from what a pickle says of them.

    Attributes
    ----------
    call : callable, optional
        Makes the object from the arguments of a call (REDUCE).
    new : callable, optional
        Makes the bare object from the arguments of ``__new__`` (NEWOBJ).
    restore : callable, optional
        Fills the object with its state (BUILD), at most once for each object.
    finish : callable, optional
        Checks the object when all of the pickle has been read, so that nothing can change after the check.
    takes_items : bool
        Items may be set (SETITEM) before the state is.
    """

    call: Callable[..., Any] | None = None
    new: Callable[..., Any] | None = None
    restore: Callable[[Any, Any], None] | None = None
    finish: Callable[[Any], None] | None = None
    takes_items: bool = False


Resolve = Callable[[str, str], Any]
Buffer = bytes | bytearray | memoryview

#: The most opcodes of one pickle. A one-byte opcode can make an object of 64 bytes: without a bound, a large
#: message would become a far larger one. A gensim Dictionary takes about ten opcodes a term.
MAX_OPERATIONS = 50_000_000

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
_MAX_KEY = 2**64


def load(data: Buffer, resolve: Resolve, buffers: Sequence[Buffer] = ()) -> Any:
    """Read one pickle.

    Parameters
    ----------
    data : bytes-like
        The pickle. Nothing may follow its STOP.
    resolve : callable
        Takes the module and the name that a global in the pickle has; returns a `Rule`, or a plain value that
        stands for itself (such as ``numpy.float32``), or raises SecurityError.
    buffers : sequence of bytes-like
        The out-of-band buffers of a protocol 5 pickle, in order.

    Raises
    ------
    SecurityError
        The pickle asks for something that no rule allows.
    SerializeError
        The pickle is malformed.
    """
    try:
        return _Reader(data, resolve, buffers).load()
    except (SecurityError, SerializeError):
        raise
    except RecursionError as error:
        raise SerializeError("malformed pickle: nested too deeply") from error
    except Exception as error:
        raise SerializeError(f"malformed pickle: {type(error).__name__}: {error}") from error


def check_keys(keys: Sequence[Any]) -> None:
    """Refuse dictionary keys and set members that are not numbers, strings, or flat tuples of them.

    Hashing recurses in C without a limit, so a deeply nested tuple would crash the process. Whole numbers
    have at most 64 bits: of longer ones, as many as one likes have the same hash.
    """
    kinds = set(map(type, keys))
    numbers = keys if kinds == {int} else [key for key in keys if type(key) is int] if int in kinds else ()
    if numbers and (min(numbers) <= -_MAX_KEY or max(numbers) >= _MAX_KEY):
        raise SecurityError("refused a dictionary key or set member of more than 64 bits")
    if kinds <= _SCALARS:
        return
    for key in keys:
        parts = key if type(key) is tuple else (key,)
        if not all(type(part) in _SCALARS or _is_numpy_scalar(part) for part in parts):
            raise SecurityError(
                "refused a dictionary key or set member that is not a number, string or flat tuple"
            )


def _is_numpy_scalar(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and type(value).__hash__ is not None


class _Reader:
    __slots__ = (
        "buffers",
        "data",
        "end",
        "finishing",
        "marks",
        "memo",
        "pending",
        "resolve",
        "stack",
        "view",
    )

    def __init__(self, data: Buffer, resolve: Resolve, buffers: Sequence[Buffer]) -> None:
        self.data = data
        self.view = memoryview(data).cast("B")
        self.end = len(self.view)
        self.resolve = resolve
        self.buffers = iter(buffers)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Objects that await their state, by id; the value holds them, so that no id is used again meanwhile.
        self.pending: dict[int, tuple[Any, Rule]] = {}
        self.finishing: list[tuple[Callable[[Any], None], Any]] = []

    def load(self) -> Any:
        data, operations = self.data, _OPERATIONS
        position = 0
        for _ in repeat(None, MAX_OPERATIONS):
            operation = operations[data[position]]
            if operation is None:
                raise SecurityError(f"refused pickle opcode {data[position]:#04x}")
            position = operation(self, position + 1)
            if position < 0:
                break
        else:
            raise SecurityError(f"refused a pickle of more than {MAX_OPERATIONS} opcodes")
        if self.marks or len(self.stack) != 1:
            raise SerializeError("malformed pickle: objects left over at its end")
        for finish, value in self.finishing:
            finish(value)
        return self.stack[0]

    def take(self, position: int, size: int) -> memoryview:
        if size < 0 or position + size > self.end:
            raise SerializeError("malformed pickle: it ends within a value")
        return self.view[position : position + size]

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def make(self, make: Callable[..., Any] | None, rule: Any, args: Any) -> None:
        if make is None or type(args) is not tuple:
            raise SecurityError("refused to call something that may not be called from a pickle")
        value = make(*args)
        if rule.restore is not None:
            self.pending[id(value)] = value, rule
        if rule.finish is not None:
            self.finishing.append((rule.finish, value))
        self.stack.append(value)

    # Each operation takes the position after its opcode and returns the position after its argument.

    def protocol(self, position: int) -> int:
        if not 2 <= self.data[position] <= 5:
            raise SerializeError(f"malformed pickle: protocol {self.data[position]} is not understood")
        return position + 1

    def frame(self, position: int) -> int:
        return position + 8

    def stop(self, position: int) -> int:
        if position != self.end:
            raise SerializeError("malformed pickle: bytes follow its end")
        return -1

    def mark(self, position: int) -> int:
        self.marks.append(self.stack)
        self.stack = []
        return position

    def pop(self, position: int) -> int:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()
        return position

    def discard_to_mark(self, position: int) -> int:
        self.pop_mark()
        return position

    def none(self, position: int) -> int:
        self.stack.append(None)
        return position

    def true(self, position: int) -> int:
        self.stack.append(True)
        return position

    def false(self, position: int) -> int:
        self.stack.append(False)
        return position

    def int1(self, position: int) -> int:
        self.stack.append(self.data[position])
        return position + 1

    def int2(self, position: int) -> int:
        self.stack.append(_UINT16(self.data, position)[0])
        return position + 2

    def int4(self, position: int) -> int:
        self.stack.append(_INT32(self.data, position)[0])
        return position + 4

    def long1(self, position: int) -> int:
        size = self.data[position]
        self.stack.append(int.from_bytes(self.take(position + 1, size), "little", signed=True))
        return position + 1 + size

    def float8(self, position: int) -> int:
        self.stack.append(_FLOAT64(self.data, position)[0])
        return position + 8

    def text1(self, position: int) -> int:
        return self._text(position + 1, self.data[position])

    def text4(self, position: int) -> int:
        return self._text(position + 4, _UINT32(self.data, position)[0])

    def text8(self, position: int) -> int:
        return self._text(position + 8, _UINT64(self.data, position)[0])

    def _text(self, position: int, size: int) -> int:
        self.stack.append(str(self.take(position, size), "utf-8", "surrogatepass"))
        return position + size

    def bytes1(self, position: int) -> int:
        return self._bytes(position + 1, self.data[position])

    def bytes4(self, position: int) -> int:
        return self._bytes(position + 4, _UINT32(self.data, position)[0])

    def bytes8(self, position: int) -> int:
        return self._bytes(position + 8, _UINT64(self.data, position)[0])

    def _bytes(self, position: int, size: int) -> int:
        self.stack.append(bytes(self.take(position, size)))
        return position + size

    def bytearray8(self, position: int) -> int:
        size = _UINT64(self.data, position)[0]
        self.stack.append(bytearray(self.take(position + 8, size)))
        return position + 8 + size

    def next_buffer(self, position: int) -> int:
        self.stack.append(next(self.buffers))
        return position

    def readonly_buffer(self, position: int) -> int:
        # What arrives is this process's own memory: nothing is gained by forbidding to write to it.
        return position

    def empty_tuple(self, position: int) -> int:
        self.stack.append(())
        return position

    def tuple1(self, position: int) -> int:
        self.stack[-1:] = [(self.stack[-1],)]
        return position

    def tuple2(self, position: int) -> int:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]
        return position

    def tuple3(self, position: int) -> int:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]
        return position

    def tuple_from_mark(self, position: int) -> int:
        items = self.pop_mark()
        self.stack.append(tuple(items))
        return position

    def empty_list(self, position: int) -> int:
        self.stack.append([])
        return position

    def append(self, position: int) -> int:
        item = self.stack.pop()
        self._top(list).append(item)
        return position

    def appends(self, position: int) -> int:
        items = self.pop_mark()
        self._top(list).extend(items)
        return position

    def empty_dict(self, position: int) -> int:
        self.stack.append({})
        return position

    def setitem(self, position: int) -> int:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items((key,), (value,))
        return position

    def setitems(self, position: int) -> int:
        items = self.pop_mark()
        self._set_items(items[::2], items[1::2])
        return position

    def _set_items(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        check_keys(keys)
        target = self.stack[-1]
        _, rule = self.pending.get(id(target), (None, None))
        if rule is None or not rule.takes_items:
            self._top(dict).update(zip(keys, values, strict=True))
            return
        for key, value in zip(keys, values, strict=True):
            target[key] = value

    def empty_set(self, position: int) -> int:
        self.stack.append(set())
        return position

    def additems(self, position: int) -> int:
        items = self.pop_mark()
        check_keys(items)
        self._top(set).update(items)
        return position

    def frozenset_from_mark(self, position: int) -> int:
        items = self.pop_mark()
        check_keys(items)
        self.stack.append(frozenset(items))
        return position

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise SecurityError(
                f"refused to fill a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self.stack[-1]

    def put1(self, position: int) -> int:
        self.memo[self.data[position]] = self.stack[-1]
        return position + 1

    def put4(self, position: int) -> int:
        self.memo[_UINT32(self.data, position)[0]] = self.stack[-1]
        return position + 4

    def memoize(self, position: int) -> int:
        self.memo[len(self.memo)] = self.stack[-1]
        return position

    def get1(self, position: int) -> int:
        self.stack.append(self.memo[self.data[position]])
        return position + 1

    def get4(self, position: int) -> int:
        self.stack.append(self.memo[_UINT32(self.data, position)[0]])
        return position + 4

    def global_lines(self, position: int) -> int:
        module, name, _ = bytes(self.take(position, min(512, self.end - position))).split(b"\n", 2)
        self.stack.append(self.resolve(module.decode(), name.decode()))
        return position + len(module) + len(name) + 2

    def stack_global(self, position: int) -> int:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise SerializeError("malformed pickle: a global's name is not a string")
        self.stack.append(self.resolve(module, name))
        return position

    def reduce(self, position: int) -> int:
        args, rule = self.stack.pop(), self.stack.pop()
        self.make(rule.call if type(rule) is Rule else None, rule, args)
        return position

    def newobj(self, position: int) -> int:
        args, rule = self.stack.pop(), self.stack.pop()
        self.make(rule.new if type(rule) is Rule else None, rule, args)
        return position

    def build(self, position: int) -> int:
        state = self.stack.pop()
        target = self.stack[-1]
        value, rule = self.pending.pop(id(target), (None, None))
        if rule is None or rule.restore is None or value is not target:
            raise SecurityError(f"refused to set the state of a {type(target).__name__}")
        rule.restore(target, state)
        return position


_UINT16 = struct.Struct("<H").unpack_from
_INT32 = struct.Struct("<i").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_FLOAT64 = struct.Struct(">d").unpack_from

_BY_OPCODE: dict[bytes, Callable[[_Reader, int], int]] = {
    pickle.PROTO: _Reader.protocol,
    pickle.FRAME: _Reader.frame,
    pickle.STOP: _Reader.stop,
    pickle.MARK: _Reader.mark,
    pickle.POP: _Reader.pop,
    pickle.POP_MARK: _Reader.discard_to_mark,
    pickle.NONE: _Reader.none,
    pickle.NEWTRUE: _Reader.true,
    pickle.NEWFALSE: _Reader.false,
    pickle.BININT1: _Reader.int1,
    pickle.BININT2: _Reader.int2,
    pickle.BININT: _Reader.int4,
    pickle.LONG1: _Reader.long1,
    pickle.BINFLOAT: _Reader.float8,
    pickle.SHORT_BINUNICODE: _Reader.text1,
    pickle.BINUNICODE: _Reader.text4,
    pickle.BINUNICODE8: _Reader.text8,
    pickle.SHORT_BINBYTES: _Reader.bytes1,
    pickle.BINBYTES: _Reader.bytes4,
    pickle.BINBYTES8: _Reader.bytes8,
    pickle.BYTEARRAY8: _Reader.bytearray8,
    pickle.NEXT_BUFFER: _Reader.next_buffer,
    pickle.READONLY_BUFFER: _Reader.readonly_buffer,
    pickle.EMPTY_TUPLE: _Reader.empty_tuple,
    pickle.TUPLE1: _Reader.tuple1,
    pickle.TUPLE2: _Reader.tuple2,
    pickle.TUPLE3: _Reader.tuple3,
    pickle.TUPLE: _Reader.tuple_from_mark,
    pickle.EMPTY_LIST: _Reader.empty_list,
    pickle.APPEND: _Reader.append,
    pickle.APPENDS: _Reader.appends,
    pickle.EMPTY_DICT: _Reader.empty_dict,
    pickle.SETITEM: _Reader.setitem,
    pickle.SETITEMS: _Reader.setitems,
    pickle.EMPTY_SET: _Reader.empty_set,
    pickle.ADDITEMS: _Reader.additems,
    pickle.FROZENSET: _Reader.frozenset_from_mark,
    pickle.BINPUT: _Reader.put1,
    pickle.LONG_BINPUT: _Reader.put4,
    pickle.MEMOIZE: _Reader.memoize,
    pickle.BINGET: _Reader.get1,
    pickle.LONG_BINGET: _Reader.get4,
    pickle.GLOBAL: _Reader.global_lines,
    pickle.STACK_GLOBAL: _Reader.stack_global,
    pickle.REDUCE: _Reader.reduce,
    pickle.NEWOBJ: _Reader.newobj,
    pickle.BUILD: _Reader.build,
}
_OPERATIONS = [_BY_OPCODE.get(bytes([code])) for code in range(256)]

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

Nothing that is read is deeper than `MAX_DEPTH`, and what reading makes is accounted for before it is made,
against a budget that follows from the size of the message. An opcode that makes no more than some thirty
bytes of memory for each of its own is bounded by that already; for the others a reader charges
(`_Reader.charge`). A charge stands for time as well: what takes long to make is charged as if it were large.
"""

from __future__ import annotations

import pickle
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from time import thread_time
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
    gathers : type, optional
        A set, frozenset or Counter, that a call makes of the one collection that it is given.
    restore : callable, optional
        Fills the object with its state (BUILD), at most once for each object.
    finish : callable, optional
        Checks the object when all of the pickle has been read, so that nothing can change after the check.
    takes_items : bool
        Items may be set (SETITEM) before the state is.
    holds : bool
        The object keeps what it is made of, and so is as deep as that.
    charges : bool
        `call`, `new`, `restore` and `finish` take, before their arguments, a function that charges bytes.
        Otherwise the weight of the arguments is charged.
    """

    call: Callable[..., Any] | None = None
    new: Callable[..., Any] | None = None
    gathers: type | None = None
    restore: Callable[..., None] | None = None
    finish: Callable[..., None] | None = None
    takes_items: bool = False
    holds: bool = False
    charges: bool = False


Resolve = Callable[[str, str], Any]
Buffer = bytes | bytearray | memoryview

#: The most opcodes of one pickle. A gensim Dictionary takes about ten a term.
MAX_OPERATIONS = 50_000_000
#: The most containers, and objects with a state, that are within each other.
MAX_DEPTH = 100
#: What may be charged for one message: so many bytes for each of its own, and so many whatever its size; and
#: beyond the message's size, never more than so many.
BYTES_A_BYTE = 24
BYTES_FREE = 8 << 20
MAX_OBJECT_BYTES = 1 << 30
#: The longest text, in bytes: nobody else computes while one is decoded.
MAX_TEXT_BYTES = 64 << 20
#: CPU seconds that it may take to fill sets and dictionaries with keys whose hashes a sender can choose: for
#: one message, and for each of its keys.
HASHING_SECONDS = 0.05
HASHING_SECONDS_A_KEY = 2e-6

#: Charged for an object: more than any of those that rules make has for itself.
OBJECT = 400
_LIST = 112
_HASH_TABLE = 256
_ENTRY = 96  # of a set or dictionary, whose tables are sparse
_NESTED = 128  # to know how deep something is
_FEW = 8
#: Of what is charged, so much is asked for at once.
_QUANTUM = 1 << 20
_LONGEST_REASON = 200
_TOO_DEEP = f"refused a message that is nested more than {MAX_DEPTH} deep"
_ENDS_WITHIN = "malformed pickle: it ends within a value"

_SCALARS = {str, bytes, int, float, bool, type(None)}
#: Types whose values hold no others.
LEAVES: set[type] = _SCALARS | {bytearray, memoryview, complex}
_CONTAINERS = frozenset({tuple, list, dict, set, frozenset})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_CHANGEABLE = _MAPPINGS | {list, set}
_GOT = _CHANGEABLE | {tuple}
_BYTES_EACH: dict[type, int] = {
    **dict.fromkeys((*_MAPPINGS, set, frozenset), _ENTRY),
    bytes: 1,
    bytearray: 1,
    str: 4,
    list: 8,
    tuple: 8,
}
_MAX_KEY = 2**64
#: The scalars of numpy that may be keys, without their sizes.
_NUMPY_KEYS = frozenset({"bool", "int", "uint", "float", "str", "bytes"})
#: Keys that are put at once, and probes of a table: nobody else computes meanwhile.
_BATCH = 1000
_PROBES = 20_000_000
#: Items that are looked at at once.
_SLICE = 1 << 16


class OutsideVocabulary(ValueError):
    """A document that arrived, in a well-formed message, has a term that its vocabulary does not have."""


def load(
    data: Buffer,
    resolve: Resolve,
    buffers: Iterable[Buffer] = (),
    *,
    size: int | None = None,
    account: Callable[[int], None] | None = None,
) -> Any:
    """Read one pickle.

    Parameters
    ----------
    data : bytes-like
        The pickle. Nothing may follow its STOP.
    resolve : callable
        Takes the module and the name that a global in the pickle has; returns a `Rule`, or a plain value that
        stands for itself (such as ``numpy.float32``), or raises SecurityError.
    buffers : iterable of bytes-like
        The out-of-band buffers of a protocol 5 pickle, in order.
    size : int, optional
        Bytes of the whole message, with its buffers; by default those of `data`.
    account : callable, optional
        Told, before more is made, how many bytes that will be; raises SecurityError where the receiver has no
        room for them. Of small messages it hears nothing.

    Raises
    ------
    SecurityError
        The pickle asks for something that no rule allows, is nested too deeply, or makes too much.
    SerializeError
        The pickle is malformed.
    OutsideVocabulary
        Documents in it do not fit the vocabulary that they come with.
    """
    try:
        return _Reader(data, resolve, buffers, size, account).load()
    except (SecurityError, SerializeError, OutsideVocabulary):
        raise
    except RecursionError as error:
        raise SerializeError("malformed pickle: nested too deeply") from error
    except Exception as error:
        text = str(error)[:_LONGEST_REASON]
        raise SerializeError(f"malformed pickle: {type(error).__name__}: {text}") from error


def weight(values: Iterable[Any]) -> int:
    """Bytes that copies of some values would take, without what is in them."""
    return sum(_BYTES_EACH[type(value)] * len(value) for value in values if type(value) in _BYTES_EACH)


def check_keys(keys: Sequence[Any]) -> None:
    """Refuse dictionary keys and set members that are neither numbers nor strings.

    A sender can choose tuples, complex numbers and long integers that all have the same hash. Of integers of
    64 bits and of floats, a few dozen have; of these a dictionary can still be made slow, see `_Reader.fill`.
    """
    kinds = set(map(type, keys))
    numbers = keys if kinds == {int} else [key for key in keys if type(key) is int] if int in kinds else ()
    if numbers and (min(numbers) <= -_MAX_KEY or max(numbers) >= _MAX_KEY):
        raise SecurityError("refused a dictionary key or set member of more than 64 bits")
    for kind in kinds - _SCALARS:
        name = kind.__name__.rstrip("0123456789_")
        if kind.__module__ != "numpy" or name not in _NUMPY_KEYS:
            raise SecurityError(
                f"refused a {kind.__name__} as a dictionary key or set member: these are numbers or strings"
            )


class _Reader:
    __slots__ = (
        "account",
        "budget",
        "buffers",
        "data",
        "end",
        "far_memo",
        "finishing",
        "hashing",
        "heights",
        "kept",
        "late",
        "marks",
        "memo",
        "pending",
        "reserved",
        "resolve",
        "room",
        "shared",
        "size",
        "stack",
        "view",
    )

    def __init__(
        self,
        data: Buffer,
        resolve: Resolve,
        buffers: Iterable[Buffer],
        size: int | None,
        account: Callable[[int], None] | None,
    ) -> None:
        self.data = bytes(data) if type(data) is memoryview else data  # each byte is got by its index
        self.view = memoryview(data).cast("B")
        self.end = len(self.view)
        self.resolve = resolve
        self.buffers = iter(buffers)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.far_memo: dict[int, Any] = {}  # by indices that do not follow each other
        # Objects that await their state, by id; the value holds them, so that no id is used again meanwhile.
        self.pending: dict[int, tuple[Any, Rule]] = {}
        self.finishing: list[tuple[Rule, Any]] = []
        self.size = self.end if size is None else size
        self.budget = self.size + min(BYTES_FREE + BYTES_A_BYTE * self.size, MAX_OBJECT_BYTES)
        self.account = account
        self.reserved = self.room = _QUANTUM  # bytes that may be charged, and how many of them are left
        # How deep things are, by id; they are kept, so that no id is used again.
        self.heights: dict[int, int] = {}
        self.kept: list[Any] = []
        # What the memo has handed out may be in something else already when it grows deeper: by id, and by
        # how much all of them have.
        self.shared: set[int] = set()
        self.late = 0
        self.hashing = HASHING_SECONDS

    def load(self) -> Any:
        # The commonest opcodes are read here: a call for each would take twice as long.
        data, operations, view, end = self.data, _OPERATIONS, self.view, self.end
        stack, marks, memo, pending = self.stack, self.marks, self.memo, self.pending
        leaves, got = LEAVES, _GOT
        push, memoize = stack.append, memo.append
        position = 0
        for _ in repeat(None, MAX_OPERATIONS):
            code = data[position]
            position += 1
            if code == _MEMOIZE:
                memoize(stack[-1])
            elif code == _BINGET and data[position] < len(memo):
                value = memo[data[position]]
                if type(value) in got or (pending and id(value) in pending):
                    self.got(value)
                push(value)
                position += 1
            elif code == _BININT1:
                push(data[position])
                position += 1
            elif code == _SHORT_BINUNICODE:
                start = position + 1
                position = start + data[position]
                if position > end:
                    raise SerializeError(_ENDS_WITHIN)
                push(str(view[start:position], "utf-8", "surrogatepass"))
            elif code == _TUPLE2:
                second, first = stack.pop(), stack.pop()
                pair = first, second
                if type(first) not in leaves or type(second) not in leaves:
                    self.nest(pair, pair)
                push(pair)
            elif code == _MARK:
                if len(marks) > MAX_DEPTH:
                    raise SecurityError(_TOO_DEEP)
                marks.append(len(stack))
            else:
                operation = operations[code]
                if operation is None:
                    raise SecurityError(f"refused pickle opcode {code:#04x}")
                position = operation(self, position)
                if position < 0:
                    break
        else:
            raise SecurityError(f"refused a pickle of more than {MAX_OPERATIONS} opcodes")
        if self.marks or len(stack) != 1:
            raise SerializeError("malformed pickle: objects left over at its end")
        for rule, value in self.finishing:
            self.apply(rule, rule.finish, value)
        return stack[0]

    def take(self, position: int, size: int) -> memoryview:
        if size < 0 or position + size > self.end:
            raise SerializeError(_ENDS_WITHIN)
        return self.view[position : position + size]

    def pop_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    # Accounting.

    def charge(self, nbytes: int) -> None:
        """Account for bytes that are about to be made."""
        self.room -= nbytes
        if self.room < 0:
            self.enlarge()

    def enlarge(self) -> None:
        more = _QUANTUM - self.room
        self.reserved += more
        if self.reserved > self.budget:
            raise SecurityError(
                f"refused a message of {self.size:,} bytes that would take more than {self.budget:,} bytes "
                "of memory"
            )
        if self.account is not None:
            self.account(more)
        self.room += more

    # Depth. A container of scalars is 1 deep; what is deeper is in `heights`, and so is each object that
    # holds what it was made of. Whoever holds a container is deeper than that was when it was put there. If
    # it grows deeper later, which takes the memo, it is so by no more than what `late` sums up.

    def highest(self, values: Sequence[Any]) -> int:
        """How deep the deepest of some values is."""
        if len(values) > _SLICE:
            return max(self.highest(values[at : at + _SLICE]) for at in range(0, len(values), _SLICE))
        kinds = set(map(type, values))
        if kinds <= LEAVES:
            return 0
        heights = self.heights
        if not heights or heights.keys().isdisjoint(map(id, values)):
            return 0 if kinds.isdisjoint(_CONTAINERS) else 1
        return max(heights.get(id(value), 1) for value in values)

    def nest(self, target: Any, values: Sequence[Any]) -> None:
        """Account for the depth of a container or object that gets some values."""
        height = self.highest(values) + 1
        key = id(target)
        before = self.heights.get(key, 0)
        if height <= (before or 1):
            return
        if not before:
            self.keep(target)
        if key in self.shared:
            self.late += height - (before or 1)
        if height > MAX_DEPTH or self.late > MAX_DEPTH:
            raise SecurityError(_TOO_DEEP)
        self.heights[key] = height

    def got(self, value: Any) -> None:
        """Account for what the memo hands out: it may be in something else already."""
        if type(value) is tuple:
            if len(value) <= _FEW:
                self.nest(value, value)  # see `tuple_from_mark`
        elif type(value) in _CHANGEABLE or id(value) in self.pending:
            self.shared.add(id(value))

    def keep(self, value: Any) -> None:
        self.charge(_NESTED)
        self.heights[id(value)] = 1
        self.kept.append(value)

    # Making.

    def make(self, rule: Any, make: Callable[..., Any] | None, args: Any) -> None:
        if make is None or type(args) is not tuple:
            raise SecurityError("refused to call something that may not be called from a pickle")
        self.room -= OBJECT
        if self.room < 0:
            self.enlarge()
        if rule.charges:
            value = make(self.charge, *args)
        else:
            self.charge(weight(args))
            value = make(*args)
        if rule.holds:
            self.keep(value)
            self.nest(value, args)
        if rule.restore is not None:
            self.pending[id(value)] = value, rule
        if rule.finish is not None:
            self.finishing.append((rule, value))
        self.stack.append(value)

    def apply(self, rule: Rule, function: Any, *args: Any) -> None:
        """Restore or check an object."""
        if rule.charges:
            function(self.charge, *args)
        else:
            self.charge(OBJECT + weight(args))
            function(*args)

    def gather(self, kind: Any, items: Any = ()) -> Any:
        """Make a set, a frozenset or a Counter."""
        if kind is Counter:
            if type(items) is not dict:
                raise SecurityError("refused a Counter of anything but a dictionary")
            counter: Counter[Any] = Counter()
            self.fill(counter, list(items), list(items.values()))
            self.nest(counter, list(items.values()))
            return counter
        if type(items) not in (list, tuple):
            raise SecurityError("refused a set of anything but a list")
        members: set[Any] = set()
        self.fill(members, items)
        return members if kind is set else frozenset(members)

    def fill(self, target: Any, keys: Sequence[Any], values: Sequence[Any] | None = None) -> None:
        """Put members into a set, or items into a dictionary.

        A sender who chooses the hashes can make a table ever slower, and that in one call, during which
        nobody else computes. So the calls are short, and the seconds that they take are counted.
        """
        check_keys(keys)
        self.charge(_ENTRY * len(keys))
        put: Callable[[Any, Any], Any] = _PUT.get(type(target), _put_one_by_one)
        if len(target) + len(keys) <= _BATCH:
            put(target, keys if values is None else zip(keys, values, strict=True))
            return
        a_key = HASHING_SECONDS_A_KEY * (1 if type(target) in _PUT else 20)
        strings = set(map(type, keys)) == {str}
        start = 0
        while start < len(keys):
            count = _SLICE if strings else max(1, min(_BATCH, _PROBES // (len(target) + 1)))
            some = slice(start, start + count)
            start += count
            began = thread_time()
            put(target, keys[some] if values is None else zip(keys[some], values[some], strict=True))
            self.hashing += a_key * count - (thread_time() - began)
            if self.hashing < 0:
                raise SecurityError("refused a dictionary or set whose keys were chosen to make it slow")

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

    def pop(self, position: int) -> int:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()
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

    def text4(self, position: int) -> int:
        return self._text(position + 4, _UINT32(self.data, position)[0])

    def text8(self, position: int) -> int:
        return self._text(position + 8, _UINT64(self.data, position)[0])

    def _text(self, position: int, size: int) -> int:
        text = self.take(position, size)
        if size > MAX_TEXT_BYTES:
            raise SecurityError(f"refused a text of more than {MAX_TEXT_BYTES:,} bytes")
        self.stack.append(str(text, "utf-8", "surrogatepass"))
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
        one = (self.stack.pop(),)
        if type(one[0]) not in LEAVES:
            self.nest(one, one)
        self.stack.append(one)
        return position

    def tuple3(self, position: int) -> int:
        third, second, first = self.stack.pop(), self.stack.pop(), self.stack.pop()
        three = first, second, third
        self.nest(three, three)
        self.stack.append(three)
        return position

    def tuple_from_mark(self, position: int) -> int:
        mark = self.marks.pop()
        items = tuple(self.stack[mark:])
        del self.stack[mark:]
        # The arguments of a call, which takes them off again, are accounted for if the memo hands them out.
        if len(items) > _FEW or not self.data.startswith(_MEMOIZE_REDUCE, position):
            self.nest(items, items)
        self.stack.append(items)
        return position

    def empty_list(self, position: int) -> int:
        self.charge(_LIST)
        self.stack.append([])
        return position

    def append(self, position: int) -> int:
        item = self.stack.pop()
        target = self._top(list)
        self.nest(target, (item,))
        target.append(item)
        return position

    def appends(self, position: int) -> int:
        items = self.pop_mark()
        target = self._top(list)
        self.nest(target, items)
        target.extend(items)
        return position

    def empty_dict(self, position: int) -> int:
        self.charge(_HASH_TABLE)
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
        target = self.stack[-1]
        _, rule = self.pending.get(id(target), (None, None))
        if type(target) not in _MAPPINGS and (rule is None or not rule.takes_items):
            self._top(dict)
        self.nest(target, values)
        self.fill(target, keys, values)

    def empty_set(self, position: int) -> int:
        self.charge(_HASH_TABLE)
        self.stack.append(set())
        return position

    def additems(self, position: int) -> int:
        items = self.pop_mark()
        self.fill(self._top(set), items)
        return position

    def frozenset_from_mark(self, position: int) -> int:
        self.charge(_HASH_TABLE)
        self.stack.append(self.gather(frozenset, self.pop_mark()))
        return position

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise SecurityError(
                f"refused to fill a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self.stack[-1]

    def put1(self, position: int) -> int:
        return self._put(position + 1, self.data[position])

    def put4(self, position: int) -> int:
        return self._put(position + 4, _UINT32(self.data, position)[0])

    def _put(self, position: int, index: int) -> int:
        if index == len(self.memo):
            self.memo.append(self.stack[-1])
        elif index < len(self.memo):
            self.memo[index] = self.stack[-1]
        else:
            self.far_memo[index] = self.stack[-1]
        return position

    def get1(self, position: int) -> int:
        return self._get(position + 1, self.data[position])

    def get4(self, position: int) -> int:
        return self._get(position + 4, _UINT32(self.data, position)[0])

    def _get(self, position: int, index: int) -> int:
        value = self.memo[index] if index < len(self.memo) else self.far_memo[index]
        self.got(value)
        self.stack.append(value)
        return position

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
        if type(rule) is not Rule:
            self.make(rule, None, args)
        elif rule.gathers is None:
            self.make(rule, rule.call, args)
        else:
            self.charge(_HASH_TABLE)
            self.stack.append(self.gather(rule.gathers, *args))
        return position

    def newobj(self, position: int) -> int:
        args, rule = self.stack.pop(), self.stack.pop()
        self.make(rule, rule.new if type(rule) is Rule else None, args)
        return position

    def build(self, position: int) -> int:
        state = self.stack.pop()
        target = self.stack[-1]
        value, rule = self.pending.pop(id(target), (None, None))
        if rule is None or rule.restore is None or value is not target:
            raise SecurityError(f"refused to set the state of a {type(target).__name__}")
        if rule.holds:
            self.nest(target, (state,))
        self.apply(rule, rule.restore, target, state)
        return position


def _put_one_by_one(target: Any, items: Iterable[tuple[Any, Any]]) -> None:
    for key, value in items:
        target[key] = value


_PUT: dict[type, Callable[[Any, Any], Any]] = {
    dict: dict.update,
    defaultdict: dict.update,
    Counter: dict.update,  # its own would count the items
    OrderedDict: OrderedDict.update,
    set: set.update,
}

_MEMOIZE, _MARK, _TUPLE2 = pickle.MEMOIZE[0], pickle.MARK[0], pickle.TUPLE2[0]
_MEMOIZE_REDUCE = pickle.MEMOIZE + pickle.REDUCE
_SHORT_BINUNICODE, _BININT1, _BINGET = pickle.SHORT_BINUNICODE[0], pickle.BININT1[0], pickle.BINGET[0]
_UINT16 = struct.Struct("<H").unpack_from
_INT32 = struct.Struct("<i").unpack_from
_UINT32 = struct.Struct("<I").unpack_from
_UINT64 = struct.Struct("<Q").unpack_from
_FLOAT64 = struct.Struct(">d").unpack_from

_BY_OPCODE: dict[bytes, Callable[[_Reader, int], int]] = {
    pickle.PROTO: _Reader.protocol,
    pickle.FRAME: _Reader.frame,
    pickle.STOP: _Reader.stop,
    pickle.POP: _Reader.pop,
    pickle.POP_MARK: _Reader.discard_to_mark,
    pickle.NONE: _Reader.none,
    pickle.NEWTRUE: _Reader.true,
    pickle.NEWFALSE: _Reader.false,
    pickle.BININT2: _Reader.int2,
    pickle.BININT: _Reader.int4,
    pickle.LONG1: _Reader.long1,
    pickle.BINFLOAT: _Reader.float8,
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
    pickle.BINGET: _Reader.get1,
    pickle.LONG_BINGET: _Reader.get4,
    pickle.GLOBAL: _Reader.global_lines,
    pickle.STACK_GLOBAL: _Reader.stack_global,
    pickle.REDUCE: _Reader.reduce,
    pickle.NEWOBJ: _Reader.newobj,
    pickle.BUILD: _Reader.build,
}
#: Of the opcodes that `_Reader.load` does not read itself.
_OPERATIONS = [_BY_OPCODE.get(bytes([code])) for code in range(256)]

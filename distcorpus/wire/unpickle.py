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

What stands in several places is one object, and whoever goes through what was read meets it in each of them,
so that a hundred lists can have 2**100 leaves. So each time that the memo hands a container out it is charged
as if it were written again, and what a message unfolds to is bounded by its size as well.
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
_NESTED = 128  # to know how deep something is, and how large
_PLACE = 1  # of something in a container that is in one more place: it takes no memory, but time
_FEW = 8
#: Of what is charged, so much is asked for at once.
_QUANTUM = 1 << 20
_LONGEST_REASON = 200
_TOO_DEEP = f"refused a message that is nested more than {MAX_DEPTH} deep"
_ENDS_WITHIN = "malformed pickle: it ends within a value"

_SCALARS = {str, bytes, int, float, bool, type(None)}
#: Types whose values hold no others.
LEAVES: set[type] = _SCALARS | {bytearray, memoryview, complex, type, Rule}
_CONTAINERS = frozenset({tuple, list, dict, set, frozenset, Counter})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_CHANGEABLE = _MAPPINGS | {list, set}
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
_PROBES = 4_000_000
#: Items that are looked at at once.
_SLICE = 1 << 16
#: What is known of a container is one number, as there are many: so many times its size, and its depth.
_SIZE = 1 << 7


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
        "grown",
        "hashing",
        "kept",
        "known",
        "late",
        "marks",
        "memo",
        "parts",
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
        # How deep and large things are, by id; they are kept, so that no id is used again.
        self.known: dict[int, int] = {}
        self.kept: list[Any] = []
        self.parts: dict[int, list[Any]] = {}  # what objects were made of, by their ids
        # What the memo has handed out may be in something else already when it grows: by id; by how much all
        # of them have grown deeper; and whether one has grown at all.
        self.shared: set[int] = set()
        self.late = 0
        self.grown = False
        self.hashing = HASHING_SECONDS

    def load(self) -> Any:
        # The commonest opcodes are read here: a call for each would take twice as long.
        data, operations, view, end = self.data, _OPERATIONS, self.view, self.end
        stack, marks, memo = self.stack, self.marks, self.memo
        leaves = LEAVES
        push, memoize = stack.append, memo.append
        position = 0
        for _ in repeat(None, MAX_OPERATIONS):
            code = data[position]
            position += 1
            if code == _MEMOIZE:
                memoize(stack[-1])
            elif code == _BINGET and data[position] < len(memo):
                value = memo[data[position]]
                if type(value) not in leaves:
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
        if self.grown:
            self.unfold(stack[0])
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
                "of memory, or say the same things again too often"
            )
        if self.account is not None:
            self.account(more)
        self.room += more

    # Depth and size. A container of scalars is 1 deep, and as large as it is long. Of what is deeper, and of
    # each object that holds what it was made of, both are `known`. Whoever holds a container is deeper than
    # that was when it was put there, and as large as its own length and all that is in what it holds, each
    # time that it does. What grows later, which takes the memo, makes its holders deeper by no more than what
    # `late` sums up; how large they are is counted anew when all has been read (`unfold`).

    def measure(self, values: Sequence[Any]) -> tuple[int, int]:
        """How deep the deepest of some values is, and how large all of them are together."""
        if len(values) > _SLICE:
            parts = [self.measure(values[at : at + _SLICE]) for at in range(0, len(values), _SLICE)]
            return max(depth for depth, _ in parts), sum(size for _, size in parts)
        kinds = set(map(type, values))
        if kinds <= LEAVES:
            return 0, 0
        known = self.known
        if not known or known.keys().isdisjoint(map(id, values)):
            flat = values if kinds <= _CONTAINERS else [v for v in values if type(v) in _CONTAINERS]
            return (1, sum(map(len, flat))) if flat else (0, 0)
        found = [known.get(id(value)) or self.look_up(value) for value in values]
        depths = [one % _SIZE for one in found]
        return max(depths), (sum(found) - sum(depths)) // _SIZE

    def look_up(self, value: Any) -> int:
        """How large and deep one value is, in one number."""
        found = self.known.get(id(value), 0)
        return found or (_SIZE * len(value) + 1 if type(value) in _CONTAINERS else 0)

    def nest(self, target: Any, values: Sequence[Any]) -> None:
        """Account for a container or object that gets some values, or for a tuple of them."""
        depth, size = self.measure(values)
        key = id(target)
        found = self.known.get(key)
        shared = key in self.shared
        if shared and values:
            self.grown = True
        if found is None:
            if not depth:
                return
            found = 1 if values is target else self.look_up(target)
            self.keep(target)
        elif key in self.parts:
            self.parts[key] += values
        deeper = depth + 1 - found % _SIZE
        if deeper > 0:
            if shared:
                self.late += deeper
            if depth >= MAX_DEPTH or self.late > MAX_DEPTH:
                raise SecurityError(_TOO_DEEP)
            found += deeper
        self.known[key] = found + _SIZE * (len(values) + size)

    def got(self, value: Any) -> None:
        """Account for what the memo hands out: it is in one more place, and may grow there."""
        kind, key = type(value), id(value)
        found = self.known.get(key, 0)
        if not found and kind in _CONTAINERS:
            # See `tuple_from_mark`.
            if kind is tuple and len(value) <= _FEW and not LEAVES.issuperset(map(type, value)):
                self.nest(value, value)
            found = self.look_up(value)
        if kind in _CHANGEABLE or key in self.pending:
            self.shared.add(key)
        self.room -= _PLACE * (found // _SIZE)
        if self.room < 0:
            self.enlarge()

    def keep(self, value: Any) -> None:
        self.charge(_NESTED)
        self.known[id(value)] = 1
        self.kept.append(value)

    def unfold(self, root: Any) -> None:
        """Account for all that is in the value that was read, as many times as it is there.

        What comes back to itself is counted once around.
        """
        sizes: dict[int, int] = {id(root): 0}  # what is on the way, too: nothing of it is in itself
        path: list[list[Any]] = [[id(root), iter(self.inside(root)), 0]]
        while path:
            step = path[-1]
            for value in step[1]:
                step[2] += 1
                if type(value) in LEAVES:
                    continue
                if id(value) not in sizes:
                    self.charge(_NESTED)
                    sizes[id(value)] = 0
                    path.append([id(value), iter(self.inside(value)), 0])
                    break
                step[2] += sizes[id(value)]
            else:
                path.pop()
                key, _, size = step
                sizes[key] = size
                if path:
                    path[-1][2] += size
                # What is beyond the budget already, at once: the sizes of what holds it may have no end.
                if not path or _PLACE * size > self.budget:
                    self.charge(_PLACE * size)

    def inside(self, value: Any) -> Iterable[Any]:
        """What is in a value."""
        if type(value) in _MAPPINGS:
            return list(value.values())
        return value if type(value) in _CONTAINERS else self.parts.get(id(value), ())

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
            if type(value) not in _MAPPINGS:
                self.parts[id(value)] = []
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
            self.nest(counter, list(items.values()))
            self.fill(counter, list(items), list(items.values()))
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
        target = self._top(set)
        self.nest(target, items)
        self.fill(target, items)
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

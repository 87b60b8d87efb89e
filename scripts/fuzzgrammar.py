"""Pickles that ask for much with few bytes: nested, shared, memoised and filled after the fact.

`CASES` are arguments of calls: attacks that an independent test made, and others of their kinds. `message`
writes calls with new ones.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from random import Random

import numpy as np
import scipy.sparse

from distcorpus.wire import allowed

#: Prime, and Python's modulus of hashes.
_MODULUS = 2**61 - 1


def text(value: str) -> bytes:
    """The opcodes that push a text; like those that follow, for protocol 4."""
    encoded = value.encode()
    if len(encoded) < 256:
        return b"\x8c" + bytes([len(encoded)]) + encoded
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def contents(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def whole(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def call(object_id: str, method: str, *arguments: bytes) -> bytes:
    """A call with arguments that are written as opcodes."""
    return b"\x80\x04(" + text(object_id) + text(method) + b"(" + b"".join(arguments) + b"t}t."


def call_by_name(object_id: str, method: str, **arguments: bytes) -> bytes:
    """A call with named arguments."""
    return b"\x80\x04(" + text(object_id) + text(method) + b")" + attributes(**arguments) + b"t."


def built(module: str, cls: str, state: bytes) -> bytes:
    """An object with a state."""
    return name(module, cls) + b")\x81" + state + b"b"


def attributes(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def array(shape: bytes, of: str = "f8", buffer: bytes = b"C\x00") -> bytes:
    dtype = name("numpy", "dtype") + text(of) + b"\x89\x88\x87R"
    return name("numpy.core.numeric", "_frombuffer") + b"(" + buffer + dtype + shape + text("C") + b"tR"


def many(times: int, start: bytes, each: bytes) -> bytes:
    """A tuple of `start` and many `each`."""
    return b"(" + start + each * times + b"t"


def doubled(first: bytes, each: bytes, levels: int = 40) -> bytes:
    """Something in something in something, twice or more often in each: few bytes, and 2**levels leaves."""
    chain = b"".join(each.replace(b"%s", get(at)) + put(at + 1) + b"0" for at in range(levels))
    return first + put(0) + b"0" + chain + get(levels)


def keys(numbers: list[int]) -> bytes:
    """A dictionary with these keys."""
    return b"}(" + b"".join(whole(number) + b"N" for number in numbers) + b"u"


def colliding(size: int) -> list[int]:
    """Keys that make a dictionary of CPython quadratic, when its table has `size` slots (a power of two).

    The first half lie one after the other on the path that a search takes when it has used up a key's high
    bits. The others come upon that path at its beginning, and have to go along all of it.
    """
    mask = size - 1
    path = np.empty(size // 2, np.int64)
    slot = 1
    for at in range(len(path)):
        path[at] = slot
        slot = (5 * slot + 1) & mask
    place = np.full(size, size)
    place[path] = np.arange(len(path))
    late = np.arange(size, 8 * size)
    slots, rest = late & mask, late.copy()
    inside = place[slots] < size
    while rest.any():
        rest >>= 5
        slots = (5 * slots + rest + 1) & mask
        inside &= place[slots] < size
    late = late[inside][np.argsort(place[slots[inside]])]
    return [*path.tolist(), *late[: size // 6].tolist()]


def _unicode_error(*, by_state: bool) -> bytes:
    """An exception whose text is read at an address of the sender's choice, where C code trusts it."""
    cls = name("builtins", "UnicodeDecodeError")
    if by_state:
        head = cls + b"(" + text("utf8") + b"C\x01x" + b"K\x00K\x01" + text("why") + b"tR"
        return (
            head
            + attributes(object=b"G" + struct.pack(">d", 2.0), start=whole(2**60), end=whole(2**60 + 1))
            + b"b"
        )
    return cls + b"(" + text("utf8") + b"C\x01x" + whole(-(10**12)) + whole(1 - 10**12) + text("why") + b"tR"


_COLLIDING = 1 << 17
_DICTIONARY = ("gensim.corpora.dictionary", "Dictionary")
_FROM_BUFFER = ("numpy.core.numeric", "_frombuffer")
_BYTES = contents(bytes(20_000)) + put(0)
_DTYPE = name("numpy", "dtype") + put(1) + text("u1") + b"\x89\x88\x87" + put(2) + b"R" + put(3)
_LISTS = b"".join(b"]" + put(at) for at in range(5000))
_STATE = b"}(" + b"".join(text(str(at)) + b"N" for at in range(5000)) + b"u" + put(0)
_SET = name("builtins", "set") + put(1)
_SCALAR = name("numpy.core.multiarray", "scalar") + put(4)


def _matrix() -> bytes:
    """The state of a sparse matrix, and its class."""
    matrix = scipy.sparse.csc_matrix(np.eye(100))
    state = {key: getattr(matrix, key) for key in ("_shape", "data", "indices", "indptr")}
    return pickle.dumps(state, 4)[2:-1] + put(900) + name("scipy.sparse._csc", "csc_matrix") + put(901)


def long_strings(size: int, times: int, buffer: bytes | None = None) -> bytes:
    """Scalars of a long type, each a copy of the same bytes: a bytearray's, or those beside the pickle."""
    dtype = name("numpy", "dtype") + text(f"S{size}") + b"\x89\x88\x87R" + put(3)
    some = b"\x96" + struct.pack("<Q", size) + b"a" * size if buffer is None else buffer
    return many(times, some + put(0) + dtype + _SCALAR, get(4) + get(3) + get(0) + b"\x86R")


#: An argument of each kind.
CASES: dict[str, Callable[[], bytes]] = {
    "a deep tuple": lambda: b")" + b"\x85" * 600_000,
    "a deep list": lambda: b"]" * 100_000 + b"a" * 99_999,
    "a deep dictionary": lambda: b"}N" * 90_000 + b"}" + b"s" * 90_000,
    "a deep object": lambda: (name(*_DICTIONARY) + b")\x81}" + text("x")) * 9000 + b"N" + b"sb" * 9000,
    "deep after the fact": lambda: many(
        1, _LISTS, b"".join(get(at) + get(at + 1) + b"a" for at in range(4999))
    ),
    "marks": lambda: b"(" * 900_000,
    "an exception with attributes": lambda: _unicode_error(by_state=True),
    "an exception with arguments": lambda: _unicode_error(by_state=False),
    "a syntax error far away": lambda: (
        name("builtins", "SyntaxError")
        + many(1, text("a"), many(1, text("f") + b"K\x01", whole(10**10) + text("x")))
        + b"R"
    ),
    "copies of bytes": lambda: many(
        3000, _BYTES + name("builtins", "bytearray") + put(1), get(1) + get(0) + b"\x85R"
    ),
    "copies into arrays": lambda: many(
        2000,
        _BYTES + _DTYPE + name(*_FROM_BUFFER) + put(4),
        get(4) + many(1, get(0) + get(3), whole(20_000) + b"\x85" + text("C")) + b"R",
    ),
    "copies of a state": lambda: many(
        2000, _STATE + name(*_DICTIONARY) + put(1), get(1) + b")\x81" + get(0) + b"b"
    ),
    "copies of a set": lambda: many(
        2000, b"](" + b"".join(map(whole, range(5000))) + b"e" + put(0) + _SET, get(1) + get(0) + b"\x85R"
    ),
    "copies of a Counter": lambda: many(
        2000,
        keys([*range(5000)]) + put(0) + name("collections", "Counter") + put(1),
        get(1) + get(0) + b"\x85R",
    ),
    "sparse matrices": lambda: many(9000, _matrix(), get(901) + b")\x81" + get(900) + b"b"),
    "empty sets": lambda: many(900_000, b"", b"\x8f"),
    "empty lists": lambda: many(900_000, b"", b"]"),
    "empty dictionaries": lambda: many(900_000, b"", b"}"),
    "ones in ones": lambda: many(200_000, b"", b"N\x85"),
    "small dictionaries": lambda: many(100_000, b"", b"}NNs"),
    "a large memo": lambda: b"N" + b"\x94" * 900_000,
    "dtypes": lambda: many(30_000, _DTYPE, get(1) + get(2) + b"R"),
    "numpy's numbers": lambda: many(
        20_000, _DTYPE + _SCALAR + get(3) + b"C\x011\x86" + put(5), get(4) + get(5) + b"R"
    ),
    "numpy's long strings": lambda: long_strings(500_000, 1500),
    "lists in lists": lambda: doubled(b"](G" + bytes(8) + b"e", b"](%s%se"),
    "tuples in tuples": lambda: doubled(b"G" + bytes(8) + b"\x85", b"%s%s\x86"),
    "long tuples in long tuples": lambda: doubled(b")", b"(" + b"%s" * 12 + b"t"),
    "lists in lists after the fact": lambda: many(
        1,
        b"".join(b"]" + put(at) for at in range(40)),
        b"".join(get(at) + b"(" + get(at + 1) * 2 + b"e0" for at in range(39)),
    ),
    "an array of nothing": lambda: array(whole(25_000_000) + b"K\x00\x86"),
    "an array of empty strings": lambda: array(whole(10**9) + b"\x85", of="S0"),
    "tuples as keys": lambda: (
        b"}(" + b"".join(whole(at) + whole(-at) + b"\x86N" for at in range(25_000)) + b"u"
    ),
    "keys of one hash": lambda: keys([at * _MODULUS + turn for turn in range(3000) for at in range(-7, 8)]),
    "multiples of the modulus": lambda: keys([at * _MODULUS % 2**63 for at in range(50_000)]),
    "powers of two": lambda: keys([at << 40 for at in range(50_000)]),
    "keys on one path": lambda: keys(colliding(_COLLIDING)),
    "members on one path": lambda: b"\x8f(" + b"".join(map(whole, colliding(_COLLIDING))) + b"\x90",
    "a list made a set": lambda: _SET + b"](" + b"".join(map(whole, colliding(_COLLIDING))) + b"e\x85R",
    "a vocabulary that is stated": lambda: built(
        "gensim.corpora.hashdictionary", "HashDictionary", attributes(id_range=whole(5 * 10**8))
    ),
    "ids that are stated": lambda: built("gensim.utils", "FakeDict", attributes(num_terms=whole(2 * 10**9))),
    "a long text": lambda: text("a" * 900_000 + "\U0001f600"),
}


_NAMES = sorted(pair for pair in allowed._ALLOWED if pair[0] != "exceptions")
_ATTRIBUTES = ("id_range", "num_terms", "token2id", "object", "start", "_pyroTraceback", "data", "_shape")
_CONTAINERS = ((b"(", b"t"), (b"](", b"e"), (b"}(", b"u"), (b"\x8f(", b"\x90"), (b"(", b"\x91"))
_AROUND = ((b"", b"\x85"), (b"]", b"a"), (b"}N", b"s"), (b"N", b"\x86"), (b"(", b"t"))
_LONGEST_CONTAINER = 300_000
#: How containers begin, whether their items have keys, and what is written before and after the items.
_FILLED = (
    (b"]", False, b"(", b"e"),
    (b"", False, b"(", b"t"),
    (b"}", True, b"(", b"u"),
    (name(*_DICTIONARY) + b")\x81", False, b"}" + text("a") + b"](", b"esb"),
)
#: What is read as it is.
SOUND = (
    array(b"K\x03\x85", buffer=contents(bytes(24))),
    array(b"K\x02K\x03\x86", of="f4", buffer=contents(bytes(24))),
    array(b"K\x00K\x02\x86"),
    built("gensim.utils", "FakeDict", attributes(num_terms=b"K\x07")),
    built("gensim.corpora.hashdictionary", "HashDictionary", attributes(id_range=b"K\x07")),
    built(*_DICTIONARY, attributes(token2id=b"}" + text("a") + b"K\x00s")),
    name("collections", "OrderedDict") + b")R",
    name("collections", "defaultdict") + name("builtins", "int") + b"\x85R",
    name("builtins", "ValueError") + text("a") + b"\x85R",
    pickle.dumps(scipy.sparse.csc_matrix(np.eye(3)), 2)[2:-1],
)


class _Writer:
    """Writes one argument at random."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.memo = 0

    def value(self, depth: int) -> bytes:
        deeper = self.container, self.made, self.shared, self.chained, self.scalar, self.wrapped
        return self.chance.choice((self.leaf, *(deeper if depth > 0 else ())))(depth)

    def leaf(self, depth: int = 0) -> bytes:
        chance = self.chance
        number = whole(chance.choice((0, 1, 255, -1, 2**31, 2**61 - 1, 2**63, chance.getrandbits(70))))
        word = text(chance.choice("aé€\U0001f600") * chance.choice((0, 1, 5, 300)))
        some = contents(bytes(chance.choice((0, 1, 64, 4000))))
        plain = b"N", b"\x88", b")", b"]", b"}", b"\x8f", b"G" + bytes(8)
        return chance.choice((*plain, number, word, some, *SOUND))

    def container(self, depth: int) -> bytes:
        items = [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        items *= self.chance.choice((1, 1, 1, 2, 100, 3000))
        start, end = self.chance.choice(_CONTAINERS)
        step = self.chance.choice((1, 2**17, 2**40, _MODULUS, 8191))
        names = [self.chance.choice((whole(at * step % 2**63), text(str(at)))) for at in range(len(items))]
        if end == b"u":
            items = [part for pair in zip(names, items, strict=True) for part in pair]
        elif end in b"\x90\x91":
            items = names
        longest = max(map(len, items), default=1)
        return start + b"".join(items[: _LONGEST_CONTAINER // longest // 2 * 2]) + end

    def wrapped(self, depth: int) -> bytes:
        inside = self.value(depth - 1)
        times = self.chance.choice((1, 3, 50, 99, 101, 5000))
        before, after = self.chance.choice(_AROUND)
        return before * times + inside + after * times

    def made(self, depth: int) -> bytes:
        """Calls, new objects and states, as often as not of things that were put into the memo."""
        chance = self.chance
        where = name(*chance.choice(_NAMES))
        inside = [self.value(depth - 1) for _ in range(chance.randrange(3))]
        arguments = chance.choice((many(1, b"", b"".join(inside)), self.value(depth - 1) + b"\x85", b")"))
        made = where + arguments + chance.choice((b"R", b"R", b"\x81"))
        if chance.random() < 0.5:
            state = {chance.choice(_ATTRIBUTES): self.value(depth - 1) for _ in range(3)}
            made += chance.choice((attributes(**state), self.value(depth - 1))) + b"b"
        return made

    def shared(self, depth: int) -> bytes:
        """Something in the memo, and what is done with it again and again."""
        index, self.memo = self.memo, self.memo + 1
        first = self.value(depth - 1) + put(index)
        again = get(index) + self.chance.choice(
            (
                b"",
                b"\x85",
                get(index) + b"a",
                self.leaf() + b"a",
                self.leaf() + b"Ns",
                name(*self.chance.choice(_NAMES)) + get(index) + b"R",
                name(*self.chance.choice(_NAMES)) + get(index) + b"\x85R",
                name(*self.chance.choice(_NAMES)) + b")\x81" + get(index) + b"b",
            )
        )
        return many(self.chance.choice((1, 2, 50, 4000)), first, again)

    def chained(self, depth: int) -> bytes:
        """What is in the memo in what is in the memo, and so on: put there after it is filled, or before."""
        chance = self.chance
        levels, start = chance.choice((1, 3, 12, 20, 40, 99)), self.memo
        self.memo += levels + 1
        later = chance.random() < 0.5
        begin, keyed, before, after = chance.choice([way for way in _FILLED if way[0] or not later])
        times = chance.choice((1, 2, 2, 3, 12))

        def filled(one: bytes) -> bytes:
            items = [(whole(at) if keyed else b"") + one for at in range(times)]
            return before + b"".join(items) + after

        if not later:
            built = [begin + filled(get(start + at)) + put(start + at + 1) + b"0" for at in range(levels)]
            return self.value(depth - 1) + put(start) + b"0" + b"".join(built) + get(start + levels)
        built = [begin + put(start + at) for at in range(levels + 1)]
        built += [get(start + at) + filled(get(start + at + 1)) + b"0" for at in range(levels)]
        return many(1, b"", b"".join(built))

    def scalar(self, depth: int) -> bytes:
        """Many of numpy's scalars, of wide types too, of bytes that are in the memo."""
        chance = self.chance
        start = self.memo
        self.memo += 3
        of, size = chance.choice(
            (("f8", 8), ("c32", 32), ("S1", 1), ("S64", 64), ("U100", 400), ("S9000", 9000))
        )
        if chance.random() < 0.2:
            size *= chance.choice((10, 100))  # which may not fit
        some = chance.choice((contents(bytes(size)), b"\x96" + struct.pack("<Q", size) + bytes(size)))
        dtype = name("numpy", "dtype") + text(of) + b"\x89\x88\x87R"
        made = name("numpy.core.multiarray", "scalar")
        first = made + put(start) + dtype + put(start + 1) + some + put(start + 2)
        again = get(start) + get(start + 1) + get(start + 2) + b"\x86R"
        return many(chance.choice((1, 50, 1000, 20_000)), first, again)


def message(chance: Random, object_id: str, method: str, count: int) -> bytes:
    """Write a call of a method with random arguments."""
    writer = _Writer(chance)
    return call(object_id, method, *(writer.value(chance.randrange(1, 7)) for _ in range(count)))

"""The reader of pickles: it reads what Python writes, and makes nothing that no rule describes."""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import fuzzgrammar
import numpy as np
import pytest
from gensim.corpora import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from Pyro4.errors import SecurityError, SerializeError

from distcorpus.wire import unpickle
from distcorpus.wire.allowed import allow, resolve

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = st.integers(-(2**63), 2**63) | st.text() | st.binary()
values = st.recursive(
    scalars | st.sets(keys) | st.frozensets(keys) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner) | st.tuples(inner, inner)
    ),
)
protocols = st.integers(2, 5)
dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.byte_string_dtypes()
    | hnp.unicode_string_dtypes()
)


def load(data: Any) -> Any:
    return unpickle.load(data, resolve)


def stack_global(module: str, name: str) -> bytes:
    """The opcodes that push a global."""
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


def call(module: str, name: str, *arguments: str) -> bytes:
    """A pickle that calls a function with strings."""
    parts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in arguments]
    return b"\x80\x04" + stack_global(module, name) + b"(" + b"".join(parts) + b"tR."


@settings(max_examples=50, deadline=None)
@given(values, protocols)
def test_plain_values_are_read_as_python_reads_them(value: Any, protocol: int):
    assert load(pickle.dumps(value, protocol)) == value


def test_one_object_in_two_places_stays_one_object():
    shared = [1]
    first, second = load(pickle.dumps([shared, shared]))
    assert first is second
    circle: list[Any] = []
    circle.append(circle)
    read = load(pickle.dumps(circle))
    assert read[0] is read


@given(hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0)), protocols, st.sampled_from("CFNR"))
def test_arrays_are_read_as_python_reads_them(array: np.ndarray, protocol: int, layout: str):
    if array.ndim and layout == "N":
        array = array[::2]
    if layout == "F":
        array = np.asfortranarray(array)
    array.flags.writeable = layout != "R"
    read = load(pickle.dumps(array, protocol))
    assert type(read) is np.ndarray
    assert read.dtype == pickle.loads(pickle.dumps(array, protocol)).dtype
    np.testing.assert_array_equal(read, array)
    assert read.flags.writeable


@given(dtypes, st.data(), protocols)
def test_dtypes_and_numpy_scalars_are_read(dtype: np.dtype, data: st.DataObject, protocol: int):
    assert load(pickle.dumps(dtype, protocol)) == dtype
    scalar = data.draw(hnp.arrays(dtype, ()))[()]
    read = load(pickle.dumps(scalar, protocol))
    assert type(read) is type(scalar)
    np.testing.assert_array_equal(read, scalar)


def test_numpy_1_and_2_spellings_are_both_read():
    data = pickle.dumps([np.arange(3), np.float32(2), np.arange(6)[::2]], 4)
    assert b"numpy._core" in data or b"numpy.core" in data
    for ours, theirs in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        other = data.replace(ours, theirs)
        # A name's length stands before it; the frame's is not looked at by this reader.
        for name in (b".multiarray", b".numeric"):
            wrong, right = len(ours + name), len(theirs + name)
            other = other.replace(b"\x8c" + bytes([wrong]) + theirs, b"\x8c" + bytes([right]) + theirs)
        array, scalar, sliced = load(other)
        assert array.tolist() == [0, 1, 2]
        assert scalar == np.float32(2)
        assert sliced.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "ValueError.__init__"),
        ("builtins", "KeyboardInterrupt"),
        ("builtins", "SystemExit"),
        ("gensim.utils", "os.system"),
        ("gensim.utils", "subprocess.Popen"),
        ("gensim.utils.os", "system"),
        ("gensim.utils", "pickle.loads"),
        ("gensim.utils", "SaveLoad.load"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.testing", "runstring"),
        ("numpy", "load"),
        ("numpy", "f2py.os.system"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "memmap"),
        ("numpy._core", "multiarray._reconstruct"),
        ("scipy.sparse", "load_npz"),
        ("Pyro4.core", "Proxy"),
        ("Pyro4.core", "Daemon"),
        ("Pyro4.util", "PickleSerializer"),
        ("Pyro4.errors", "SecurityError.mro"),
        ("distcorpus.wire.allowed", "allow"),
        ("copyreg", "_reconstructor"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("", "system"),
    ],
)
def test_any_other_name_is_refused_and_not_imported(module: str, name: str):
    loaded = set(sys.modules)
    with pytest.raises(SecurityError, match="refused"):
        load(call(module, name, "true"))
    assert set(sys.modules) == loaded


def test_values_that_may_arrive_cannot_be_called():
    assert load(pickle.dumps([np.float32, np.ndarray])) == [np.float32, np.ndarray]
    for module, name in (
        ("numpy", "float32"),
        ("numpy", "ndarray"),
        ("zlib", "adler32"),
        ("builtins", "int"),
    ):
        with pytest.raises(SecurityError, match="refused to call"):
            load(call(module, name, "1"))


def test_the_state_of_a_class_cannot_be_set():
    """What ``find_class`` cannot prevent: BUILD upon the class itself, not upon an instance."""
    state = pickle.dumps((None, {"doc2bow": 5}), 4)[2:-1]
    payload = b"\x80\x04" + stack_global("gensim.corpora.dictionary", "Dictionary") + state + b"b."
    before = Dictionary.doc2bow
    with pytest.raises(SecurityError, match="refused to set the state"):
        load(payload)
    assert Dictionary.doc2bow is before


def test_state_can_be_set_once_only():
    array = pickle.dumps(np.arange(4)[::2], 4)
    again = array[:-1] + array[array.index(b"(K\x01") : -1] + b"."
    with pytest.raises(SecurityError, match="refused to set the state"):
        load(again)


def test_checks_come_after_the_last_change():
    """Else the indices of a sparse matrix could be set after they were checked."""
    events: list[Any] = []

    class Box:
        pass

    rule = unpickle.Rule(
        new=Box,
        restore=lambda box, state: events.append(state),
        finish=lambda box: events.append("finish"),
    )
    make = stack_global("m", "Box") + b")\x81"
    payload = b"\x80\x04" + make + b"\x940" + make + b"K\x01b0h\x00K\x02b."
    assert type(unpickle.load(payload, lambda module, name: rule)) is Box
    assert events == [1, 2, "finish", "finish"]


@pytest.mark.parametrize(
    "state",
    [
        "(3, '<', ('f8', (10,)), None, None, -1, -1, 0)",
        "(3, '<', None, ('a',), {'a': (np.dtype('i4'), 0)}, 4, 4, 0)",
        "(3, '<', None, None, None, 64, 8, 0)",
        "(3, '<', None, None, None, -1, -1, 63)",
        "(4, '<', None, None, None, -1, -1, 0, {})",
        "(3, 'x', None, None, None, -1, -1, 0)",
        "{'a': 1}",
    ],
)
def test_a_forged_dtype_is_refused(state: str):
    class Forged:
        def __reduce__(self) -> Any:
            return np.dtype, ("f8", False, True), eval(state)

    with pytest.raises((SecurityError, SerializeError)):
        load(pickle.dumps(Forged()))
    assert np.dtype("f8").itemsize == 8
    assert np.dtype("f8").names is None


@pytest.mark.parametrize(
    "spec", ["O", "O8", "|O", "V8", "object", "i4,O", "f8,f8", "(3,)f8", "M8", "numpy.object_"]
)
def test_dtypes_of_objects_and_structures_are_refused(spec: str):
    with pytest.raises(SecurityError, match="dtype"):
        load(
            b"\x80\x04"
            + stack_global("numpy", "dtype")
            + b"\x8c"
            + bytes([len(spec)])
            + spec.encode()
            + b"\x85R."
        )


@pytest.mark.parametrize("array", [np.array([None, "x"]), np.zeros(2, "f4,f4"), np.zeros(2, [("a", "O")])])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_objects_and_structures_are_refused(array: np.ndarray, protocol: int):
    with pytest.raises(SecurityError, match="dtype"):
        load(pickle.dumps(array, protocol))


def test_an_array_larger_than_its_bytes_is_refused():
    data = bytearray(pickle.dumps(np.zeros(100), 5))
    position = data.index(b"Kd")
    data[position : position + 2] = b"K\xff"
    with pytest.raises(SecurityError, match="do not fill"):
        load(bytes(data))


def test_a_memo_index_costs_no_memory():
    """Stock C pickle answers these five bytes by allocating 32 GiB."""
    assert load(b"\x80\x04Nr\xff\xff\xff\x7f.") is None


@pytest.mark.parametrize("opcode", [b"B", b"X", b"\x8d", b"\x8e", b"\x96"])
def test_a_length_beyond_the_end_takes_no_memory(opcode: bytes):
    size = b"\xff\xff\xff\x7f" if opcode in b"BX" else b"\xff\xff\xff\xff\xff\x00\x00\x00"
    with pytest.raises(SerializeError, match="ends within"):
        load(b"\x80\x05" + opcode + size + b"abc.")


@pytest.mark.parametrize("use", [b"}%sNs.", b"\x8f(%s\x90.", b"(%s\x91."])
def test_a_deep_tuple_is_never_hashed(use: bytes):
    """Hashing it would overflow the C stack, and end the process."""
    for depth in (50, 300_000):
        deep = b")" + b"\x85" * depth
        with pytest.raises(SecurityError, match=r"key|deep"):
            load(b"\x80\x04" + use.replace(b"%s", deep))


@pytest.mark.parametrize(
    "build", [lambda n: {n: 1}, lambda n: {"a": 1, -n: 1}, lambda n: {n}, lambda n: frozenset({n})]
)
def test_numbers_that_share_one_hash_are_no_keys(build: Any):
    assert hash(2**61 - 1) == hash(5 * (2**61 - 1))
    assert load(pickle.dumps(build(2**63))) == build(2**63)
    with pytest.raises(SecurityError, match="64 bits"):
        load(pickle.dumps(build(2**64)))


def test_a_pickle_of_too_many_opcodes_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unpickle, "MAX_OPERATIONS", 1000)
    assert len(load(b"\x80\x04(" + b"}" * 990 + b"t.")) == 990
    with pytest.raises(SecurityError, match="1000 opcodes"):
        load(b"\x80\x04(" + b"}" * 1000 + b"t.")


@given(st.binary(max_size=60))
def test_garbage_is_an_error_and_nothing_else(data: bytes):
    for payload in (data, b"\x80\x05" + data, b"\x80\x05" + data + b"."):
        with contextlib.suppress(SecurityError, SerializeError):
            load(payload)


@given(values, st.data())
def test_damaged_pickles_are_an_error_and_nothing_else(value: Any, data: st.DataObject):
    damaged = bytearray(pickle.dumps([value, np.arange(3), ValueError("x"), Dictionary]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SecurityError, SerializeError):
        load(bytes(damaged))


class Vocabulary(dict[int, str]):
    """A user's id2word."""

    def __init__(self, size: int = 0) -> None:
        super().__init__()
        self.size = size


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def test_allow_adds_exactly_one_class():
    with pytest.raises(SecurityError, match=rf"--allow {__name__}:Named"):
        load(pickle.dumps(Named("a")))
    allow(f"{__name__}:Named")
    assert load(pickle.dumps(Named("a"))).name == "a"
    with pytest.raises(SecurityError, match="Vocabulary"):
        load(pickle.dumps(Vocabulary()))


@pytest.mark.parametrize(
    "spec", ["", "os", "os:", ":system", "os:path.join", "os.system", "os: system", "..:x"]
)
def test_allow_takes_one_class_only(spec: str):
    with pytest.raises(ValueError, match="module:Class"):
        allow(spec)


def test_allow_takes_no_function():
    allow("os:getcwd")
    with pytest.raises(SecurityError, match="only classes"):
        load(b"\x80\x04" + stack_global("os", "getcwd") + b")R.")


# Depth, accounting and hashing: see also test_small_messages.py, where the same goes over the wire.


def nested(kind: str, depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = {"tuple": (value,), "list": [value], "dict": {"a": value}, "pair": (value, 1, 2)}[kind]
    return value


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "pair"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_depth_is_bounded(kind: str, protocol: int):
    fine = nested(kind, unpickle.MAX_DEPTH)
    assert load(pickle.dumps(fine, protocol)) == fine
    with pytest.raises(SecurityError, match="100 deep"):
        load(pickle.dumps(nested(kind, unpickle.MAX_DEPTH + 1), protocol))


@pytest.mark.parametrize("cls", [Dictionary, OrderedDict, defaultdict, Counter])
def test_depth_counts_what_objects_hold(cls: type):
    def holding(value: Any) -> Any:
        outer = cls()
        if cls is Dictionary:
            outer.token2id = value
        else:
            outer["a"] = value
        return outer

    value: Any = 1
    for _ in range(30):
        value = [holding(value)]
    assert type(load(pickle.dumps(value))[0]) is cls
    for _ in range(30):
        value = [holding(value)]
    with pytest.raises(SecurityError, match="100 deep"):
        load(pickle.dumps(value))


def test_what_is_shared_counts_once_however_often_it_is_there():
    shared = nested("list", 60)
    many = [shared] * 1000
    assert load(pickle.dumps(many)) == many


def test_a_cycle_is_read_and_a_chain_that_grows_after_the_fact_is_not():
    parent: dict[str, Any] = {}
    parent["children"] = [{"parent": parent} for _ in range(3000)]
    read = load(pickle.dumps(parent))
    assert all(child["parent"] is read for child in read["children"])
    links = range(300)
    top_down = b"(" + b"".join(b"]r" + at.to_bytes(4, "little") for at in range(len(links)))
    for at in range(len(links) - 1):
        top_down += b"j" + at.to_bytes(4, "little") + b"j" + (at + 1).to_bytes(4, "little") + b"a"
    with pytest.raises(SecurityError, match="100 deep"):
        load(b"\x80\x04" + top_down + b"t.")


def test_the_arguments_of_a_call_are_counted_when_the_memo_hands_them_out():
    """They are not where they are used for the call alone, as those of a million arrays are."""
    make = stack_global("m", "Any")
    forged = b"\x80\x04N\x94"
    for at in range(200):
        forged += make + b"(" + (b"j" + at.to_bytes(4, "little")) + b"t\x94R0"
    rule = unpickle.Rule(call=lambda argument: None)
    with pytest.raises(SecurityError, match="100 deep"):
        unpickle.load(forged + b".", lambda module, name: rule)


def test_what_is_made_is_charged_to_the_receiver_before_it_is_made():
    data = b"\x80\x04(" + b"]" * 50_000 + b"t."
    told: list[int] = []
    read = unpickle.load(data, resolve, account=told.append)
    assert len(read) == 50_000
    assert 50_000 * sys.getsizeof([]) < sum(told) + (1 << 20)

    def full(nbytes: int) -> None:
        raise SecurityError("full")

    with pytest.raises(SecurityError, match="full"):
        unpickle.load(data, resolve, account=full)
    assert load(b"\x80\x04].") == []
    unpickle.load(b"\x80\x04].", resolve, account=full)


def test_an_honest_message_is_far_from_its_bounds():
    documents = [np.ones((7, 2), np.float32) for _ in range(20_000)]
    tuples = [[(at, 1) for at in range(3)] for _ in range(20_000)]
    words = {f"word{at}": at for at in range(100_000)}
    for value in (documents, tuples, words, dict.fromkeys(range(100000), "a"), [[] for _ in range(50_000)]):
        assert len(load(pickle.dumps(value, 4))) == len(value)


@pytest.mark.parametrize("shape", [(10**9, 0), (0, 10**9), (1, 10**9, 0)])
@pytest.mark.parametrize("protocol", [4, 5])
def test_an_array_without_bytes_is_charged_for_its_rows(shape: tuple[int, ...], protocol: int):
    data = pickle.dumps(np.empty(shape), protocol)
    with pytest.raises(SecurityError, match="of memory"):
        load(data)
    assert load(pickle.dumps(np.empty((5000, 0)), protocol)).shape == (5000, 0)


@pytest.mark.parametrize("key", [(1, 2), ("a",), (), 1j, np.complex128(1), frozenset({1})], ids=repr)
@pytest.mark.parametrize("build", [lambda key: {key: 1}, lambda key: {key}, lambda key: frozenset({key})])
def test_what_can_be_given_any_hash_is_no_key(key: Any, build: Any):
    with pytest.raises(SecurityError, match="numbers or strings"):
        load(pickle.dumps(build(key)))


FILLED = {
    "dict": lambda keys: fuzzgrammar.keys(keys),
    "OrderedDict": lambda keys: (
        stack_global("collections", "OrderedDict") + b")R" + fuzzgrammar.keys(keys)[1:]
    ),
    "Counter": lambda keys: stack_global("collections", "Counter") + fuzzgrammar.keys(keys) + b"\x85R",
    "set": lambda keys: b"\x8f(" + b"".join(map(fuzzgrammar.whole, keys)) + b"\x90",
    "frozenset": lambda keys: b"(" + b"".join(map(fuzzgrammar.whole, keys)) + b"\x91",
    "set of a list": lambda keys: (
        stack_global("builtins", "set") + b"](" + b"".join(map(fuzzgrammar.whole, keys)) + b"e\x85R"
    ),
}


@pytest.mark.parametrize("kind", FILLED)
def test_keys_that_were_chosen_to_be_slow_are_refused_in_time(kind: str):
    honest = b"\x80\x04" + FILLED[kind]([*range(0, 700_000, 7)]) + b"."
    assert len(load(honest)) == 100_000
    chosen = b"\x80\x04" + FILLED[kind](fuzzgrammar.colliding(1 << 17)) + b"."
    refused = pytest.raises(SecurityError, match="chosen to make it slow")
    began = time.thread_time()
    with contextlib.nullcontext() if "set" in kind else refused:  # a set looks elsewhere, and is not slow
        load(chosen)
    assert time.thread_time() - began < 0.3 + 2e-6 * len(chosen)


def test_nobody_waits_long_for_keys_that_were_chosen_to_be_slow(monkeypatch: pytest.MonkeyPatch):
    """Nothing else runs while keys are put: so few of them are put at once."""
    seconds = []

    def put(target: dict[Any, Any], items: Any) -> None:
        began = time.thread_time()
        dict.update(target, items)
        seconds.append(time.thread_time() - began)

    monkeypatch.setitem(unpickle._PUT, dict, put)
    with pytest.raises(SecurityError, match="chosen to make it slow"):
        load(b"\x80\x04" + FILLED["dict"](fuzzgrammar.colliding(1 << 17)) + b".")
    assert max(seconds) < 0.1


def test_random_keys_of_64_bits_are_read():
    keys = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 200_000).tolist()
    assert load(pickle.dumps(dict.fromkeys(keys))) == dict.fromkeys(keys)


# What stands in several places is one object, but whoever goes through it finds it in each of them.


def put(index: int) -> bytes:
    return b"r" + index.to_bytes(4, "little")


def get(index: int) -> bytes:
    return b"j" + index.to_bytes(4, "little")


def doubled(levels: int, start: bytes = b"]", each: bytes = b"](%s%se") -> bytes:
    """Something that holds twice what holds twice what holds twice ..."""
    built = b"\x80\x04" + start + put(0) + b"0"
    for at in range(levels):
        built += each.replace(b"%s", get(at)) + put(at + 1) + b"0"
    return built + get(levels) + b"."


DICTIONARY = stack_global("gensim.corpora.dictionary", "Dictionary") + b")\x81"
DOUBLED = {
    "lists": (b"](K\x01e", b"](%s%se"),
    "empty lists": (b"]", b"](%s%se"),
    "tuples": (b"K\x01\x85", b"%s%s\x86"),
    "threes": (b")", b"%s%s%s\x87"),
    "long tuples": (b")", b"(" + b"%s" * 12 + b"t"),
    "dictionaries": (b"}", b"}(\x8c\x01a%s\x8c\x01b%su"),
    "ordered dictionaries": (
        b"]",
        stack_global("collections", "OrderedDict") + b")R(\x8c\x01a%s\x8c\x01b%su",
    ),
    "Counters": (b"]", stack_global("collections", "Counter") + b"}(\x8c\x01a%s\x8c\x01b%su\x85R"),
    "objects": (b"]", DICTIONARY + b"}(\x8c\x01a%s\x8c\x01b%sub"),
    "sets in lists": (b"\x8f(K\x01K\x02\x90", b"](%s%se"),
}


@pytest.mark.parametrize("kind", DOUBLED)
def test_what_is_shared_is_bounded_in_what_it_unfolds_to(kind: str):
    load(doubled(8 if kind != "long tuples" else 4, *DOUBLED[kind]))
    for levels in (25, 40, 98):
        with pytest.raises(SecurityError, match="of memory"):
            load(doubled(levels, *DOUBLED[kind]))


def after_the_fact(levels: int, empty: bytes, fill: bytes) -> bytes:
    """As `doubled`, but each was handed out when nothing was in it."""
    built = b"\x80\x04(" + b"".join(empty + put(at) for at in range(levels))
    for at in range(levels - 1):
        built += get(at) + fill.replace(b"%s", get(at + 1)) + b"0"
    return built + b"t."


FILLED_LATER = {
    "lists": (b"]", b"(%s%se"),
    "one by one": (b"]", b"%sa%sa"),
    "dictionaries": (b"}", b"(\x8c\x01a%s\x8c\x01b%su"),
    "objects": (DICTIONARY, b"}(\x8c\x01a%s\x8c\x01b%sub"),
}


@pytest.mark.parametrize("kind", FILLED_LATER)
def test_what_grows_after_the_fact_is_bounded_too(kind: str):
    load(after_the_fact(8, *FILLED_LATER[kind]))
    for levels in (25, 40, 49):
        with pytest.raises(SecurityError, match="of memory"):
            load(after_the_fact(levels, *FILLED_LATER[kind]))


@pytest.mark.parametrize(("empty", "fill"), [(b"]", b"(%se"), (b"\x8f", b"(%s\x90")])
def test_scalars_that_come_after_the_fact_count_in_each_place(empty: bytes, fill: bytes):
    many = b"".join(b"M" + number.to_bytes(2, "little") for number in range(5000))
    for times in (10, 5000):
        shared = b"\x80\x04(" + empty + put(0) + get(0) * times + fill.replace(b"%s", many) + b"t."
        with contextlib.nullcontext() if times == 10 else pytest.raises(SecurityError, match="of memory"):
            assert len(load(shared)[0]) == 5000


@pytest.mark.parametrize(
    "value",
    [
        np.arange(2000.0),
        "word" * 1000,
        (1, 2.0),
        ("a", (1, 2)),
        [np.arange(3)] * 3,
        {"one": 1},
        frozenset({1, 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_honest_message_may_say_the_same_thing_often(value: Any):
    many = [[value, value] for _ in range(50_000)]
    assert len(load(pickle.dumps(many))) == len(many)


def test_a_small_corpus_may_be_repeated():
    documents = [[(number, 1) for number in range(100)] for _ in range(9)] * 2000
    assert load(pickle.dumps(documents)) == documents


def test_a_circle_is_counted_once_around():
    head: list[Any] = [1, 2, 3]
    head.append([{"head": head, "number": number} for number in range(2000)])
    read = load(pickle.dumps([head, head]))
    assert all(part["head"] is read[0] for part in read[1][3])

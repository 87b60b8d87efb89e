"""What scripts/fuzz.py feeds: the readers of all that a stranger may send, and real messages for them."""

from __future__ import annotations

import inspect
import logging
import pickle
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from random import Random
from typing import Any

import fuzzgrammar
import numpy as np
import scipy.sparse
from gensim.corpora import Dictionary, HashDictionary
from gensim.models.ldamodel import LdaState
from gensim.models.lsimodel import Projection
from gensim.utils import FakeDict
from Pyro4 import message, util
from Pyro4.constants import DAEMON_NAME
from Pyro4.core import URI, current_context
from Pyro4.errors import NamingError, SecurityError, SerializeError
from Pyro4.message import Message

from distcorpus.algorithms.chunk import Chunk, as_chunk, from_arrays
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda, GensimLsi
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.engines.pyro import PyroEngine
from distcorpus.kernels import KERNELS
from distcorpus.wire import Daemon, NameServer, NameServerDaemon, allowed, names, nameserver, unpickle
from distcorpus.wire.frames import FRAMES_ID, decode, encode
from distcorpus.wire.serializer import RestrictedPickleSerializer, StringMarshalSerializer
from distcorpus.wire.unpickle import OutsideVocabulary
from distcorpus.worker import cache
from distcorpus.worker.daemon import Worker

NUM_TERMS = 50


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes
    ----------
    check : callable
        Reads them; returns in a few words what it made of them. Raises AssertionError where that is wrong.
    seeds : list of bytes
        Real messages.
    expected : tuple of types
        The errors with which it may refuse.
    bounds : Bounds, optional
        What an input may take, besides what any may.
    generate : callable, optional
        Writes an input.
    attacks : list of callables
        Each writes an input that was dangerous once.
    """

    check: Callable[[bytes], str]
    seeds: list[bytes]
    expected: tuple[type[Exception], ...] = (SecurityError, SerializeError, OutsideVocabulary)
    bounds: Bounds | None = None
    generate: Callable[[Random], bytes] | None = None
    attacks: Sequence[Callable[[], bytes]] = ()


@dataclass(frozen=True)
class Bounds:
    """What an input may take: so much for each of its bytes, and so much whatever its size.

    Memory is what Python and numpy ask for, at its peak.
    """

    bytes_a_byte: float = 64
    bytes_free: float = 16 << 20
    seconds_a_byte: float = 2e-6
    seconds_free: float = 0.3

    def exceeded(self, target: Target, data: bytes) -> str | None:
        """Say which bound an input exceeds."""
        seconds = min(self._seconds(target, data) for _ in range(2))  # the first may find something cold
        if seconds > self.seconds_free + self.seconds_a_byte * len(data):
            return "took more time than its size allows"
        tracemalloc.start()
        try:
            self._seconds(target, data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        if peak > self.bytes_free + self.bytes_a_byte * len(data):
            return "took more memory than its size allows"
        return None

    @staticmethod
    def _seconds(target: Target, data: bytes) -> float:
        began = time.process_time()
        with suppress(*target.expected):
            target.check(data)
        return time.process_time() - began


class _Forbidden:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _values() -> list[Any]:
    """What travels to and from gensim's models, and what is refused."""
    projection = Projection(5, 2, None)
    projection.u, projection.s = np.asfortranarray(np.eye(5, 2)), np.array([2.0, 1.0])
    options = {"id2word": {0: "a", np.int64(1): "b"}, "alpha": "symmetric", "decay": 0.5, "dtype": np.float32}
    uri = URI("PYRO:gensim.lsi_dispatcher@127.0.0.1:9100")
    return [
        Dictionary([["human", "interface"], ["computer", "human"]]),
        HashDictionary([["human"]], id_range=20),
        FakeDict(17),
        LdaState(np.full(4, 0.25), (3, 4), dtype=np.float32),
        projection,
        [[(0, 1.0), (3, 2.0)], [], [(1, 4)]],
        [np.array([[0, 1], [4, 2]]), np.empty((0, 2))],
        *(getattr(scipy.sparse, kind)(np.eye(4, 3)) for kind in ("csc_matrix", "csr_array")),
        ("gensim.lda_dispatcher", "initialize", (), options),
        ("distcorpus.lda", "put", tuple(_arrays()), {}),
        {"handshake": "hello", "object": "gensim.lda_dispatcher"},
        [uri, ValueError("a"), KeyError("b"), NamingError("c"), UnicodeDecodeError("utf8", b"x", 0, 1, "d")],
        [np.arange(12.0).reshape(3, 4).T, np.float64(2), np.array(["a", "bc"]), np.dtype(">f8"), 1j, 2**70],
        [{1, "a"}, frozenset([2]), bytearray(b"c"), (None, True, -1, 1.5)],
        _Forbidden(print, "run"),
        _Forbidden(bytes, 1 << 40),
    ]


def _arrays(dtype: Any = np.float32) -> list[np.ndarray]:
    """The arrays of a chunk of three documents."""
    indices = np.array([0, 7, 3, 1, 2, 49], np.int32)
    return [np.array([0, 2, 3, 6]), indices, np.arange(1, 7).astype(dtype)]


def _named(module: str, name: str) -> bytes:
    """The opcodes of a pickle that push a global."""
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


#: Pieces of which messages are made.
TOKENS: Sequence[bytes] = [
    *(bytes([code]) for code in range(256)),
    *(_named(*pair) for pair in (*allowed._ALLOWED, ("os", "system"), ("gensim.utils", "os.system"))),
    *(f"c{module}\n{name}\n".encode() for module, name in allowed._ALLOWED if len(name) < 12),
    *(struct.pack("<Q", 1 << bits) for bits in (16, 31, 32, 62, 63)),
    *(struct.pack("<q", number) for number in (-1, -2, (1 << 63) - 1)),
    b"\x8c\x02f8\x89\x88\x87R",
    b"\x94h\x00",
    b"(" * 50,
    b"\x85" * 500,
    b"]\x94h\x00a",
    b"PYRO",
    b"DCF1",
]


def _first(data: bytes, choices: int) -> tuple[int, bytes]:
    """The first byte of an input chooses what is done with the others."""
    return (data[0] % choices if data else 0), data[1:]


def serializer() -> Target:
    """The pickle serializer, as a daemon and as a client use it, and marshal's replacement."""
    ours, marshal = RestrictedPickleSerializer(), StringMarshalSerializer()
    readers = [
        ours.deserializeData,
        ours.deserializeCall,
        lambda data: ours.deserializeData(data, compressed=True),
        lambda data: ours.deserializeData(zlib.compress(data, 1), compressed=True),
        marshal.deserializeData,
    ]

    def check(data: bytes) -> str:
        which, data = _first(data, len(readers))
        return _used(readers[which](data))

    pickles = [pickle.dumps(value, protocol) for value in _values() for protocol in (2, 4, 5)]
    seeds = [bytes([which]) + data for data in pickles for which in (0, 1)]
    seeds += [b"\x02" + zlib.compress(data) for data in pickles[::4]]
    return Target(check, [*seeds, b"\x03" + pickles[0], b"\x04z\x05hello", b"\x04u\x05\0\0\0hello"])


def _used(value: Any, depth: int = 0) -> str:
    """Use what was read as far as that is compiled code's business; returns its kind."""
    if isinstance(value, np.ndarray):
        value.copy()
    elif isinstance(value, scipy.sparse.csc_matrix | scipy.sparse.csr_matrix):
        value.tocoo().tocsr().sum_duplicates()
    elif type(value) in (list, tuple) and depth < 3:
        return " ".join(_used(part, depth + 1) for part in value[:10])
    return type(value).__name__


def frame_reader() -> Target:
    """The serializer between processes of ours."""

    def check(data: bytes) -> str:
        which, data = _first(data, 2)
        return _used(decode(bytearray(data) if which else data))

    large = [np.arange(1100.0), [np.arange(1500, dtype=np.int32), "between", np.ones((40, 30), np.float32)]]
    encoded = [bytes(encode(value)) for value in [*_values(), *large]]
    return Target(check, [bytes([which]) + data for data in encoded for which in (0, 1)])


def chunks() -> Target:
    """Documents as models and the dispatcher send them, and the compiled code that computes with them."""
    worker = Worker("fuzzed")
    cache.ROWS_IN_FLIGHT = 0.0  # a job with too few shared rows would wait for them

    def check(data: bytes) -> str:
        which, data = _first(data, 4)
        value = unpickle.load(data, allowed.resolve)
        if which == 3:
            return _job(value)
        if which == 2:
            indptr, indices, values = value
            chunk = from_arrays(indptr, indices, values, NUM_TERMS)
        else:
            chunk = as_chunk(value, NUM_TERMS, counts=bool(which))
        _check_sound(chunk)
        for kernel in ("lsi", "lda"):
            _compute(kernel, [chunk.indptr, chunk.indices, chunk.data], chunk.words(), None)
        return f"{chunk.data.dtype} {min(chunk.n_docs, 3)} {min(chunk.nnz, 3)}"

    def _job(value: Any) -> str:
        try:
            kernel, arrays, words, rows = value
            return _compute(kernel, arrays, words, rows)
        except Exception as error:  # a worker's answer
            return f"{type(error).__name__} {error}"

    def _compute(kernel: str, arrays: list[np.ndarray], words: np.ndarray, rows: np.ndarray | None) -> str:
        params = {"alpha": np.ones(2), "totals": np.ones(2), "iterations": 5, "gamma_threshold": 0.001}
        params |= {"seed": 1, "variant": "vb", "gamma_statistics": False, "dtype": "float32", "bound": True}
        params |= {"grid": 2.0**-10, "weights": None, "width": 2}
        params = {field.name: params[field.name] for field in fields(KERNELS[kernel].params)}
        job = {"lease": "1", "session": "fuzz", "round": 1, "kernel": kernel, "params": params, "keep": True}
        job |= {
            "num_terms": NUM_TERMS,
            "blocks": [(0, (0, 0))],
            "payload": {0: arrays},
            "words": words,
        }
        rows = np.ones((len(words), 2), np.float32) if rows is None else rows
        try:
            return " ".join(worker.process({**job, "rows": rows}))
        finally:
            worker.forget("fuzz")

    values: list[Any] = [
        [[(0, 1.0), (3, 2.0)], [], [(1, 4)]],
        [np.array([[0, 1], [4, 2]], np.float32), np.empty((0, 2)), np.array([[9, 1.5]])],
        [[(3, 1), (3, 2), (1, 0)]],
    ]
    matrix = np.random.default_rng(1).poisson(0.1, (NUM_TERMS, 6)).astype(float)
    for kind in ("csc_matrix", "csc_array", "csr_matrix", "csr_array"):
        value = getattr(scipy.sparse, kind)(matrix)
        values.append(value)
        wide = value.copy()
        wide.indptr, wide.indices = wide.indptr.astype(np.int64), wide.indices.astype(np.int64)
        values.append(wide)
    seeds = [bytes([which]) + pickle.dumps(value, 5) for value in values for which in (0, 1)]
    words, rows = np.array([0, 1, 2, 3, 7, 49], np.int32), np.ones((6, 2), np.float32)
    for dtype in (np.float32, np.float64):
        arrays = _arrays(dtype)
        seeds.append(b"\x02" + pickle.dumps(arrays, 5))
        for kernel in ("lda", "lsi", "inference"):
            seeds.append(b"\x03" + pickle.dumps([kernel, arrays, words, rows], 5))
    expected = SecurityError, SerializeError, TypeError, ValueError, OverflowError
    for seed in seeds:  # what is compiled at its first use is no input's fault
        with suppress(*expected):
            check(seed)
    return Target(check, seeds, expected)


def _check_sound(chunk: Chunk) -> None:
    """Fail where a chunk is not what `Chunk` promises."""
    assert (chunk.indptr.dtype, chunk.indices.dtype) == (np.int64, np.int32)
    assert chunk.data.dtype in (np.float32, np.float64)
    assert chunk.indptr[0] == 0
    assert chunk.indptr[-1] == len(chunk.indices) == len(chunk.data)
    assert (chunk.indptr[1:] >= chunk.indptr[:-1]).all()
    assert not chunk.nnz or 0 <= chunk.indices.min() <= chunk.indices.max() < NUM_TERMS


def name_server() -> Target:
    """A name server, over a socket: its transport, Pyro4's messages and calls, and what it serves."""
    nameserver._answers = lambda uri: True  # else it would connect to wherever an input says
    daemon = NameServerDaemon(port=0, broadcast=False)
    own = daemon.uri()
    Daemon.start(daemon)
    complaints: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    logging.getLogger("distcorpus").addHandler(Listen(logging.WARNING))
    logging.getLogger("Pyro4").setLevel(logging.CRITICAL)

    def check(data: bytes) -> str:
        complaints.clear()
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=4.0) as sock:
            answers = b""
            try:
                sock.sendall(_messages(data))
                sock.shutdown(socket.SHUT_WR)
                while part := sock.recv(1 << 16):
                    answers += part
            except TimeoutError as error:
                raise AssertionError("no answer") from error
            except OSError:
                answers += b" closed "
        kinds = [answer[2:6].hex() for answer in answers.split(b"PYRO")[1:]]
        errors = b" ".join(word for word in answers.split() if word.isalpha())[:80]
        assert not complaints, complaints
        storage = daemon.nameserver.storage
        assert len(storage) < 20
        storage.clear()
        daemon.nameserver.register(names.NAME_SERVER, own)
        return f"{' '.join(kinds)} {errors.decode(errors='replace')}"

    calls: list[Any] = [
        ("ping",),
        ("count",),
        ("list",),
        ("list", "distcorpus.", None, None, ["class:worker"], True),
        ("list", None, "(a+)+$"),
        ("lookup", names.LSI_DISPATCHER),
        ("register", names.worker("w"), "PYRO:distcorpus.worker.w@127.0.0.1:9200", True, ["class:worker"]),
        ("set_metadata", names.worker("w"), ["a"]),
        ("remove", names.worker("w")),
        ("remove", None, "distcorpus."),
    ]
    hello = {"handshake": "hello", "object": names.NAME_SERVER}
    seeds: list[bytes] = []
    for control, dumps in ((0, pickle.dumps), (4, lambda value: bytes(encode(value)))):
        opening = _packed(control, dumps(hello))
        packed = [
            _packed(control + 1, dumps((names.NAME_SERVER, method, arguments, {})))
            for method, *arguments in calls
        ]
        seeds += [opening + call for call in packed]
        seeds.append(b"".join([opening, *packed, _packed(2, b"ping")]))
        flagged = [_packed(control + 1 + flag, dumps(("", "ping", (), {}))) for flag in (8, 16, 32, 64, 128)]
        seeds += [opening + call for call in flagged]
    return Target(check, seeds, ())


class _Client:
    """A connection, as far as daemons look at it: arrays that arrive in slices are kept by it."""

    peer, role = "fuzz", None

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


def calls() -> Target:
    """What all daemons offer: calls that a grammar writes are read, and made, and their answers written."""
    wait_until_connected = {"wait_for_workers": lambda self, timeout: True}
    engine = type("Engine", (PyroEngine,), wait_until_connected)(dict)
    dispatcher = Dispatcher(engine)
    daemon = Daemon()
    near, _far = socket.socketpair()
    current_context.client = _Client(near)
    reader = RestrictedPickleSerializer()
    fronts = {
        names.LSI_DISPATCHER: GensimLsi,
        names.LDA_DISPATCHER: GensimLda,
        names.LSI_MODELS: ModelLsi,
        names.LDA_MODELS: ModelLda,
    }
    served: dict[str, Any] = {
        DAEMON_NAME: daemon.objectsById[DAEMON_NAME],
        names.NAME_SERVER: NameServer(),
        names.DISPATCHER: dispatcher,
        names.worker("w"): Worker("w"),
    }
    nameserver._answers = lambda uri: True
    methods = [
        (object_id, method)
        for object_id, one in (*served.items(), *fronts.items())
        for method in sorted(util.get_exposed_members(one)["methods"])
        if method not in ("ready", "exit")  # the one waits, the other ends
    ]

    def check(data: bytes) -> str:
        object_id, method, args, kwargs = reader.loadsCall(data)
        if (object_id, method) not in methods:
            return "unknown"
        front = fronts[object_id](dispatcher) if object_id in fronts else None
        try:
            answer = util.getAttribute(front or served[object_id], method)(*args, **(kwargs or {}))
        except Exception as error:
            answer = error
        finally:
            if front is not None:
                front.close()
        kind = f"{method} {type(answer).__name__} {answer if isinstance(answer, Exception) else ''}"
        with suppress(Exception):  # as Pyro4, which then says so
            reader.dumps(answer)
        return kind

    def parameters(object_id: str, method: str) -> int:
        return len(inspect.signature(getattr(served.get(object_id) or fronts[object_id], method)).parameters)

    fed = [(*of, count) for of in methods if (count := parameters(*of) - (of[0] in fronts))]

    def generate(chance: Random) -> bytes:
        while True:
            object_id, method, most = chance.choice(fed)
            written = fuzzgrammar.message(chance, object_id, method, chance.randrange(1, min(most, 3) + 1))
            if len(written) < LONGEST_WRITTEN:
                return written

    def attack(at: int, argument: Callable[[], bytes]) -> bytes:
        object_id, method, _ = fed[at % len(fed)]
        return fuzzgrammar.call(object_id, method, argument())

    attacks = [partial(attack, at, argument) for at, argument in enumerate(fuzzgrammar.CASES.values())]
    uri = "PYRO:distcorpus.worker.w@127.0.0.1:9200"
    honest: list[Any] = [
        (DAEMON_NAME, "get_metadata", names.NAME_SERVER),
        (names.NAME_SERVER, "register", names.worker("w"), uri, False, ["class:worker"]),
        (names.NAME_SERVER, "list", "distcorpus."),
        (names.DISPATCHER, "records", "lda-1"),
        (names.DISPATCHER, "status"),
        (names.DISPATCHER, "snapshot"),
        (names.DISPATCHER, "details"),
        (names.worker("w"), "forget", "lda-1"),
        (names.worker("w"), "cancel", ["1", "2"]),
        (names.LSI_DISPATCHER, "initialize", FakeDict(7), 2),
        (names.LDA_DISPATCHER, "initialize", Dictionary([["a", "b"]]), 2),
    ]
    seeds = [pickle.dumps((object_id, method, args, {})) for object_id, method, *args in honest]
    return Target(check, seeds, bounds=Bounds(), generate=generate, attacks=attacks)


#: The longest call that the grammar writes.
LONGEST_WRITTEN = 1 << 20


def _packed(control: int, payload: bytes) -> bytes:
    return bytes([control]) + struct.pack("!H", len(payload)) + payload


def _messages(data: bytes) -> bytes:
    """Make Pyro4 messages with sound headers of an input: control, length and payload of each.

    The two lowest bits of the control are the message's type, or that the payload is to be sent as it is; the
    others are the serializer and the flags.
    """
    sent = b""
    types = (message.MSG_CONNECT, message.MSG_INVOKE, message.MSG_PING)
    bits = {
        8: message.FLAGS_COMPRESSED,
        16: message.FLAGS_KEEPSERIALIZED,
        32: message.FLAGS_ONEWAY,
        64: message.FLAGS_BATCH,
    }
    at = 0
    while at + 3 <= len(data):
        control, (length,) = data[at], struct.unpack_from("!H", data, at + 1)
        payload = data[at + 3 : at + 3 + length]
        at += 3 + length
        if control % 4 == 3:
            sent += payload
            continue
        if control & 128:
            payload, control = zlib.compress(payload, 1), control | 8
        flags = sum(flag for bit, flag in bits.items() if control & bit)
        flags |= message.FLAGS_META_ON_CONNECT if control % 4 == 0 else 0
        serializer_id = FRAMES_ID if control & 4 else RestrictedPickleSerializer.serializer_id
        sent += Message(types[control % 4], payload, serializer_id, flags, 1).to_bytes()
    return sent


TARGETS: dict[str, Callable[[], Target]] = {
    "calls": calls,
    "serializer": serializer,
    "frames": frame_reader,
    "chunks": chunks,
    "nameserver": name_server,
}

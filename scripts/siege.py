"""Attack the daemons of a cluster in every way at once, as a stranger who reaches their ports can.

``python scripts/siege.py --host HOST --port PORT`` finds the daemons through the name server, attacks until
its standard input ends, and prints as JSON how often each attack was made. `Siege` does it beside a training.
How much longer that takes, ``python scripts/bench.py siege`` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import fuzzgrammar
import numpy as np
import scipy.sparse
from gensim.models.ldamodel import LdaState
from Pyro4 import message
from Pyro4.constants import DAEMON_NAME

from distcorpus import LocalCluster
from distcorpus.monitor.snapshot import Snapshot, from_message
from distcorpus.wire import client_gone, connect, find, list_names, names, raise_file_limit, sockets
from distcorpus.wire.frames import FRAMES_ID, encode

PICKLE = 4
#: Seconds between two attempts of one attack.
PAUSE = 0.05
#: Idle connections to all daemons together, and slow senders and lying headers of each kind.
IDLE = 1000
SLOW = 20


class Target(NamedTuple):
    """An object of a daemon."""

    name: str
    object_id: str
    address: tuple[str, int]


class Field:
    """What the attacks know of the cluster.

    Parameters
    ----------
    host, port : str, int
        Of the name server.
    witness : str
        A file that must not come to be: code that is smuggled in would make it.
    """

    def __init__(self, host: str, port: int, witness: str) -> None:
        self.nameserver = find(host, port, broadcast=False)
        self.witness = witness
        self.over = threading.Event()
        self.made: Counter[str] = Counter()
        self.targets = []
        for name, uri in list_names(self.nameserver).items():
            object_id, _, address = uri.removeprefix("PYRO:").rpartition("@")
            self.targets.append(Target(name, object_id, sockets.parse_address(address)))
        self.daemons = list({target.address: target for target in self.targets}.values())

    def target(self, name: str) -> Target:
        """The object of that name."""
        return next(target for target in self.targets if target.name == name)


def header(size: int, kind: int = message.MSG_INVOKE, serializer: int = PICKLE, flags: int = 0) -> bytes:
    """The header of a message that claims so many bytes."""
    fields = kind, flags, 0, size, serializer
    checksum = sum((*fields, 48, 0x34E9)) & 0xFFFF
    return struct.pack("!4sHHHHiHHHH", b"PYRO", 48, *fields, 0, 0, checksum)


def packed(value: Any, **options: int) -> bytes:
    """A message with a pickled value."""
    data = pickle.dumps(value)
    return header(len(data), **options) + data


def hello(target: Target) -> bytes:
    """The message with which a client shakes hands."""
    return packed({"handshake": "hello", "object": target.object_id}, kind=message.MSG_CONNECT)


def opened(target: Target, shaken: bool = True) -> socket.socket:
    """A connection to a target."""
    sock = socket.create_connection(target.address, timeout=30.0)
    if shaken:
        sock.sendall(hello(target))
        receive(sock)
    return sock


def receive(sock: socket.socket) -> bytes:
    """One message of the daemon; raises ConnectionError where it hangs up instead."""

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = sock.recv(size - len(data))
            if not part:
                raise ConnectionError("it hung up")
            data += part
        return data

    head = exactly(24)
    size, annotations = struct.unpack("!12xi2xH4x", head)
    return head + exactly(size + annotations)


# The attacks: each goes on for ever, and yields after each attempt.


def idle_connections(field: Field, chance: random.Random) -> Iterator[None]:
    """Many who shake hands and say nothing."""
    held = [opened(field.daemons[number % len(field.daemons)]) for number in range(IDLE)]
    while held:
        yield


def slow_handshakes(field: Field, chance: random.Random) -> Iterator[None]:
    """A byte of the handshake at a time."""
    yield from _slowly(field, lambda target: (opened(target, shaken=False), hello(target)), chance)


def slow_messages(field: Field, chance: random.Random) -> Iterator[None]:
    """A byte at a time of a large call."""
    yield from _slowly(field, lambda target: (opened(target), header(100 << 20) + bytes(1 << 16)), chance)


def _slowly(
    field: Field, begin: Callable[[Target], tuple[socket.socket, bytes]], chance: random.Random
) -> Iterator[None]:
    senders: list[tuple[socket.socket, bytes]] = []
    while True:
        if len(senders) < SLOW:
            senders.append(begin(chance.choice(field.targets)))
        sock, left = senders.pop(0)
        with suppress(OSError):
            sock.sendall(left[:1])
            if not client_gone(sock):
                senders.append((sock, left[1:] or left))
        yield


def lying_headers(field: Field, chance: random.Random) -> Iterator[None]:
    """Headers that claim up to 2 GiB, with a little after them."""
    held: list[socket.socket] = []
    while True:
        sock = opened(chance.choice(field.targets))
        size = chance.choice(((1 << 31) - 1, (1 << 30) - 1000, 1 << 30, -1))
        sock.sendall(
            header(size, serializer=chance.choice((PICKLE, FRAMES_ID))) + bytes(chance.randrange(999))
        )
        held.append(sock)
        if len(held) > SLOW:
            held.pop(0).close()
        yield


def garbage(field: Field, chance: random.Random) -> Iterator[None]:
    """Bytes of all sorts, before and after the handshake."""
    whole = header(200_000) + bytes(encode(("object", "ping", (np.arange(20_000),), {})))
    while True:
        target = chance.choice(field.targets)
        for shaken in (False, True):
            with opened(target, shaken) as sock, suppress(OSError):
                kind = chance.randrange(4)
                if kind == 0:
                    sock.sendall(chance.randbytes(chance.randrange(1, 5000)))
                elif kind == 1:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
                elif kind == 2:
                    sock.sendall(whole[: chance.randrange(len(whole))])
                else:
                    data = chance.randbytes(300)
                    sock.sendall(header(len(data), serializer=chance.choice((PICKLE, FRAMES_ID, 5))) + data)
                    receive(sock)
        yield


class _Calls:
    """What pickle turns into a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._parts = function, arguments

    def __reduce__(self) -> Any:
        return self._parts


def smuggled_code(field: Field, chance: random.Random) -> Iterator[None]:
    """Pickles that run code, in handshakes and in calls, named outright and by walks through modules."""
    command = f"touch '{field.witness}'"

    def walk(module: str, name: str) -> bytes:
        parts = (module, name, command)
        texts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in parts[:2]]
        argument = b"X" + struct.pack("<I", len(command)) + command.encode()
        return b"\x80\x04" + b"".join(texts) + b"\x93" + argument + b"\x85R."

    walks = [
        walk("os", "system"),
        walk("gensim.utils", "os.system"),
        walk("numpy", "f2py.os.system"),
        walk("numpy.testing._private.utils", "runstring"),
        walk("builtins", "exec"),
    ]
    while True:
        target = chance.choice(field.targets)
        code = _Calls(os.system, command)
        greeting = {"handshake": code, "object": target.object_id}
        for data in (pickle.dumps(greeting), *walks):
            with opened(target, shaken=False) as sock:
                sock.sendall(header(len(data), message.MSG_CONNECT) + data)
                _refused(receive(sock))
        call: tuple[Any, ...] = (
            target.object_id,
            chance.choice(("ping", "process", "initialize", "register")),
            (code,),
            {},
        )
        for data in (pickle.dumps(call), *walks):
            with opened(target) as sock, suppress(ConnectionError):
                sock.sendall(header(len(data)) + data)
                _refused(receive(sock))
        yield


def forged_documents(field: Field, chance: random.Random) -> Iterator[None]:
    """Sparse matrices, and jobs for a worker, that would crash compiled code."""
    front = field.target(names.LSI_DISPATCHER)
    workers = [target for target in field.targets if target.name.startswith(names.WORKER_PREFIX)]
    while True:
        matrix = scipy.sparse.csc_matrix(np.eye(4))
        which, place, number = chance.choice(
            (("indices", 1, 1 << 30), ("indptr", 2, 1 << 30), ("indices", 0, -9))
        )
        getattr(matrix, which)[place] = number
        wide: Any = scipy.sparse.csc_matrix(np.eye(4))
        wide.indices, wide.indptr = np.arange(4), np.arange(5)
        wide.indptr[2:4] = (1 << 63) - 1, -2
        with opened(front) as sock:
            sock.sendall(
                packed((front.object_id, "initialize", (), {"id2word": dict.fromkeys(range(4), "a")}))
            )
            receive(sock)
            for forged in (matrix, wide):
                sock.sendall(packed((front.object_id, "putjob", (forged,), {})))
                with suppress(ConnectionError):  # to hang up is a refusal too
                    _refused(receive(sock))
        worker = chance.choice(workers)
        indptr = np.array([0, 1 << 40]) if chance.random() < 0.5 else np.array([0, (1 << 63) - 1, -2, 1])
        payload = {0: (indptr, np.array([0], np.int32), np.ones(1, np.float32))}
        params = {"width": 1, "grid": 1.0, "dtype": "float32", "weights": None}
        job = {"lease": "x", "session": "siege", "round": 1, "kernel": "lsi", "params": params}
        job |= {"num_terms": 4, "keep": False}
        job |= {"blocks": [(0, (0, 0))], "payload": payload}
        job |= {"words": np.empty(0, np.int32), "rows": np.empty((0, 1))}
        with opened(worker) as sock:
            sock.sendall(packed((worker.object_id, "process", (job,), {})))
            _refused(receive(sock))
        yield


def bombs(field: Field, chance: random.Random) -> Iterator[None]:
    """Messages of some bytes that would become much memory: by compression, by a pickle's opcodes."""
    compressor = zlib.compressobj(1)
    zeros = b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(100)), compressor.flush()])
    while True:
        target = chance.choice(field.targets)
        for data, flags in ((zeros, message.FLAGS_COMPRESSED), (b"\x80\x04Nr\xff\xff\xff\x7f0.", 0)):
            with opened(target) as sock, suppress(ConnectionError):
                sock.sendall(header(len(data), flags=flags) + data)
                _refused(receive(sock))
        for _ in range(20):
            yield


def small_messages(field: Field, chance: random.Random) -> Iterator[None]:
    """Few bytes that ask for much memory or time, or for a crash (see fuzzgrammar.py)."""
    written = {name: argument() for name, argument in fuzzgrammar.CASES.items()}
    methods = {
        names.NAME_SERVER: ("lookup", "register"),
        names.DISPATCHER: ("records",),
        names.LSI_DISPATCHER: ("initialize", "putjob"),
        names.LDA_DISPATCHER: ("initialize", "reset"),
    }
    while True:
        for argument in chance.sample([*written.values()], len(written)):
            target = chance.choice(field.targets)
            of_all = DAEMON_NAME, "get_metadata"
            object_id, method = chance.choice(
                [of_all, *((target.object_id, name) for name in methods.get(target.object_id, ("forget",)))]
            )
            data = fuzzgrammar.call(object_id, method, argument)
            with opened(target) as sock, suppress(OSError):
                sock.sendall(header(len(data)) + data)
                receive(sock)
            yield


def small_documents(field: Field, chance: random.Random) -> Iterator[None]:
    """Chunks of few bytes that state many documents, or nest or repeat a few without end."""
    document = [(number % 4, 1) for number in range(20_000)]
    nested: Any = 1
    for _ in range(5):
        nested = [nested] * 1000
    columns: Any = scipy.sparse.csr_matrix((4, 1))
    columns.resize(4, 1 << 40)
    chunks = [np.zeros((25_000_000, 0)), np.zeros((25_000_000, 0, 2)), [document] * 1000, columns]
    chunks += [[np.zeros((1 << 40, 0))], [nested], [np.zeros((1, 2)), nested], [[(nested, 1)]]]
    while True:
        for kind in (names.LSI_DISPATCHER, names.LDA_DISPATCHER):
            front = field.target(kind)
            begin: list[tuple[str, tuple[Any, ...]]] = [("initialize", (dict.fromkeys(range(4), "a"), 2))]
            if kind == names.LDA_DISPATCHER:
                begin.append(("reset", (LdaState(np.full(4, 0.5), (2, 4)),)))
            for chunk in chunks:
                with opened(front) as sock:
                    for method, arguments in begin:
                        sock.sendall(packed((front.object_id, method, arguments, {})))
                        receive(sock)
                    sock.sendall(packed((front.object_id, "putjob", (chunk,), {})))
                    with suppress(ConnectionError):  # to hang up is a refusal too
                        _refused(receive(sock))
        yield


def claims(field: Field, chance: random.Random) -> Iterator[None]:
    """Jobs that state a vocabulary, rows or blocks that they do not bring, and slices of nothing."""
    workers = [target for target in field.targets if target.name.startswith(names.WORKER_PREFIX)]
    arrays = np.array([0, 1]), np.array([0], np.int32), np.ones(1, np.float32)
    params = {"width": 1, "grid": 1.0, "dtype": "float32", "weights": None}
    job = {"lease": "c", "round": 1, "kernel": "lsi", "params": params, "keep": True}
    job |= {"num_terms": (1 << 31) - 1, "blocks": [(0, (0, 0))], "payload": {0: arrays}}
    job |= {"words": np.array([0], np.int32), "rows": np.ones((1, 1), np.float32)}
    many = np.zeros(1 << 16, np.int8), np.empty(0, np.int32), np.empty(0, np.float32)
    false: list[dict[str, Any]] = [
        {"params": {**params, "width": 1 << 30}},
        {"params": {**params, "dtype": "S1000000"}},
    ]
    false += [{"blocks": [(0, (0, 0))] * 10_000}, {"kernel": "lda", "payload": {0: many}}]
    number = 0
    while True:
        number += 1
        worker = chance.choice(workers)
        with opened(worker) as sock:
            sock.sendall(packed((worker.object_id, "process", ({**job, "session": f"claim-{number}"},), {})))
            receive(sock)
            for change in false:
                stated = {**job, "session": "claim", **change}
                sock.sendall(packed((worker.object_id, "process", (stated,), {})))
                _refused(receive(sock))
            arguments = 0, 1 << 40, 0, np.zeros(1, np.uint8)
            sock.sendall(packed((worker.object_id, "put_slice", arguments, {})))
            _refused(receive(sock))
        yield


def hostile_names(field: Field, chance: random.Random) -> Iterator[None]:
    """A pattern that takes for ever to match, everything removed by its prefix, a name that is taken over."""
    target = field.target(names.NAME_SERVER)
    calls: list[tuple[str, Sequence[Any]]] = [("list", (None, "(a+)+$")), ("remove", (None, "distcorpus."))]
    calls.append(("remove", (None, None, ".*")))
    calls.append(("register", (names.LSI_DISPATCHER, "PYRO:thief@127.0.0.1:9", False)))
    while True:
        for method, arguments in calls:
            with opened(target) as sock:
                sock.sendall(packed((target.object_id, method, arguments, {})))
                _refused(receive(sock))
        yield


def replays(field: Field, chance: random.Random) -> Iterator[None]:
    """What was said once is said again: a registration, a worker's job, a training and parts of it."""
    worker = next(target for target in field.targets if target.name.startswith(names.WORKER_PREFIX))
    uri = f"PYRO:{worker.object_id}@{sockets.format_address(*worker.address)}"
    lsi = field.target(names.LSI_DISPATCHER)
    id2word, documents = dict.fromkeys(range(4), "a"), scipy.sparse.csc_matrix(np.eye(4))
    arrays = np.array([0, 1]), np.array([0], np.int32), np.ones(1, np.float32)
    params = {"grid": 1.0, "dtype": "float32", "weights": None}
    job = {"lease": "siege-1", "session": "siege", "round": 1, "kernel": "lsi", "params": params}
    job |= {"keep": True, "num_terms": 1, "blocks": [(0, (0, 0))], "payload": {0: arrays}}
    job |= {"words": np.array([0], np.int32), "rows": np.ones((1, 1), np.float32)}
    said: list[tuple[Target, list[tuple[str, tuple[Any, ...]]]]] = [
        (field.target(names.NAME_SERVER), [("register", (worker.name, uri, True))]),
        (worker, [("process", (job,)), ("cancel", (["siege-1"],)), ("forget", ("siege",))]),
        (lsi, [("initialize", (id2word, 2)), ("putjob", (documents,)), ("getstate", ())]),
    ]
    while True:
        for target, calls in said:
            messages = [packed((target.object_id, method, arguments, {})) for method, arguments in calls]
            again = messages * 2 + chance.sample(messages, 1) * 3
            with opened(target) as sock:
                for one in again:
                    sock.sendall(one)
                    receive(sock)
        yield


def impossible_tasks(field: Field, chance: random.Random) -> Iterator[None]:
    """Training runs of numbers that cannot be, which those who watch would have to be told of."""
    lda, lsi = field.target(names.LDA_MODELS), field.target(names.LSI_MODELS)
    plan = {"passes": 1, "update_chunks": 1, "chunksize": 10, "decay": 0.5, "offset": 1.0}
    plan |= {"iterations": 5, "gamma_threshold": 0.001, "seed": 1}
    topics = {"eta": np.full(4, 0.1), "table": np.ones((4, 2)), "numdocs": 10}
    task = {"topics": topics, "alpha": np.full(2, 0.5), "eta": np.full(4, 0.1), "num_updates": 0}
    task |= {"documents": 10, "plan": plan, "progress": {}}
    params = {"alpha": np.ones(2), "totals": np.full(2, 4.0), "dtype": "float64", "iterations": 5}
    inference = {"topics": topics, "params": {**params, "gamma_threshold": 0.1, "seed": 1}}
    of_lsi = {"num_terms": 4, "num_topics": 2}
    numbers = (1 << 70, 1 << 2000, -1, True, float("nan"), "x" * 100_000)
    while True:
        odd = chance.choice(numbers)
        claims = [(lda, "begin", {**task, name: odd}) for name in ("documents", "num_updates", "pause_every")]
        claims += [(lda, "begin", {**task, "plan": {**plan, name: odd}}) for name in ("passes", "chunksize")]
        claims += [(lda, "begin", {**task, "plan": {**plan, "chunksize": 0}})]
        claims += [(lda, "begin", {**task, "progress": {"updates": odd}})]
        claims += [(lda, "begin_inference", {**inference, "first": odd})]
        claims += [(lsi, "begin", {**of_lsi, "tolerance": chance.choice((float("nan"), float("inf"), 0.0))})]
        for target, method, claim in claims:
            with opened(target) as sock:
                sock.sendall(packed((target.object_id, method, (claim,), {})))
                _refused(receive(sock))
        yield


def unread_answers(field: Field, chance: random.Random) -> Iterator[None]:
    """Questions whose answers nobody reads."""
    questions: list[tuple[str, str, tuple[Any, ...]]] = [
        (names.NAME_SERVER, "list", ()),
        (names.DISPATCHER, "snapshot", (0,)),
        (names.DISPATCHER, "records", ("lda",)),
    ]
    held: list[socket.socket] = []
    while True:
        name, method, arguments = chance.choice(questions)
        target = field.target(name)
        sock = opened(target)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(packed((target.object_id, method, arguments, {})))
        held.append(sock)
        if len(held) > SLOW:
            held.pop(0).close()
        yield


def exhaustion(field: Field, chance: random.Random) -> Iterator[None]:
    """As many connections to each daemon as it takes, until it refuses; all are held."""
    held = []
    for target in field.daemons:
        answer = b""
        while b"already has" not in answer:
            try:
                held.append(socket.create_connection(target.address, timeout=30.0))
                held[-1].sendall(hello(target))
                answer = receive(held[-1])
            except OSError:  # no more files, or it hung up: that is a refusal as well
                break
    while held:
        yield


def _refused(answer: bytes) -> None:
    kind, flags = struct.unpack_from("!HH", answer, 6)
    assert kind == message.MSG_CONNECTFAIL or flags & message.FLAGS_EXCEPTION, answer


Attack = Callable[[Field, random.Random], Iterator[None]]
#: All that a cluster may suffer for as long as one likes; `exhaustion` keeps new clients out besides.
ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        idle_connections,
        slow_handshakes,
        slow_messages,
        lying_headers,
        garbage,
        smuggled_code,
        forged_documents,
        bombs,
        small_messages,
        small_documents,
        claims,
        hostile_names,
        replays,
        impossible_tasks,
        unread_answers,
    )
}


def attack(field: Field, name: str, seed: int) -> None:
    """Make one attack until the siege is over."""
    chance, begin = random.Random(seed), {**ATTACKS, "exhaustion": exhaustion}[name]
    attempts = begin(field, chance)
    while not field.over.wait(PAUSE):
        try:
            next(attempts)
        except ConnectionError:  # to hang up is a refusal too
            attempts = begin(field, chance)
        field.made[name] += 1


def watch(field: Field) -> None:
    """Look at the cluster until the siege is over: what is seen can be read, and no worker is expelled."""
    target = field.target(names.DISPATCHER)
    viewer = connect(f"PYRO:{target.object_id}@{sockets.format_address(*target.address)}")
    cursor = None
    while not field.over.wait(1.0):
        seen = from_message(Snapshot, viewer.snapshot(cursor))
        cursor = seen.cursor
        assert not seen.totals.workers_expelled, seen.incidents
        assert all(session.phase != "unknown" for session in seen.sessions), seen.sessions


class Siege:
    """Attacks on a cluster by another process, while the block runs.

    Parameters
    ----------
    cluster : LocalCluster
    witness : Path
        A file that must not come to be.
    attacks : sequence of str
        Names in `ATTACKS`, or ``"exhaustion"``.
    cores : set of int, optional
        Where the attackers compute; by default wherever this process may.

    Attributes
    ----------
    made : dict of str to int
        How often each attack was made, when it is over.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        witness: Path,
        attacks: Sequence[str] = tuple(ATTACKS),
        cores: set[int] | None = None,
    ) -> None:
        environ = cluster.environ()
        where = ["--host", environ["PYRO_NS_HOST"], "--port", environ["PYRO_NS_PORT"]]
        self.made: dict[str, int] = {}
        self._command = [sys.executable, __file__, *where, "--witness", str(witness), *attacks]
        self._cores = cores

    def __enter__(self) -> Siege:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._cores is not None:
            os.sched_setaffinity(self._process.pid, self._cores)  # which its threads, made later, inherit
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "laid\n":
            raise RuntimeError("the siege was not laid; what went wrong stands above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        printed, _ = self._process.communicate()
        if printed:
            self.made = json.loads(printed)


def main() -> int:
    """Run from the command line; 1 where an attack was not refused."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the name server's (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="the name server's (default: %(default)s)")
    parser.add_argument("--witness", default="witness", help="what code that got in would make")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}, exhaustion")
    options = parser.parse_args()
    raise_file_limit()
    field = Field(options.host, options.port, options.witness)
    attacks = options.attacks or ATTACKS
    failed: list[BaseException] = []

    def run(name: str, seed: int) -> None:
        try:
            if name == watch.__name__:
                watch(field)
            else:
                attack(field, name, seed)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [
        threading.Thread(target=run, args=(name, seed), daemon=True)
        for seed, name in enumerate((*attacks, watch.__name__))
    ]
    for thread in threads:
        thread.start()
    while not failed and len(field.made) < len(attacks):  # each has been made once
        time.sleep(PAUSE)
    print("laid", flush=True)
    sys.stdin.read()
    field.over.set()
    print(json.dumps({} if failed else field.made), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

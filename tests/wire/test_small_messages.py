"""One small message must not stop a daemon: real daemons, over the real wire, while another client pings."""

from __future__ import annotations

import inspect
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import fuzzgrammar
import pytest
from fuzzgrammar import CASES, call, text
from Pyro4 import message, socketutil, util
from Pyro4.constants import DAEMON_NAME
from Pyro4.errors import SecurityError
from Pyro4.message import Message

from distcorpus import LocalCluster
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda, GensimLsi
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.wire import NameServer, connect, find, lookup, names, refusals, roles, sockets, tls
from distcorpus.worker.daemon import Worker

from .conftest import Peer, wait_until

#: What a message may take (docs/security.md), with what a daemon takes for a connection and an answer.
BYTES_A_BYTE, BYTES_FREE = 64, 16 << 20
LONGEST_PING = 0.5
#: Those that end a process where they are read without care.
CRASHES = [
    "a deep tuple",
    "deep after the fact",
    "an exception with attributes",
    "an exception with arguments",
]

#: What each role may call that takes an argument, besides every daemon's `get_metadata`.
CALLS = {
    roles.CLIENT: [(roles.NAMESERVER, "lookup"), (roles.DISPATCHER, "records")],
    roles.WORKER: [(roles.DISPATCHER, "worker_leaves")],
    roles.DISPATCHER: [(roles.WORKER, "forget"), (roles.WORKER, "cancel")],
    roles.NAMESERVER: [],
    roles.VIEWER: [(roles.DISPATCHER, "snapshot"), (roles.DISPATCHER, "details")],
}
SERVERS = (roles.NAMESERVER, roles.DISPATCHER, roles.WORKER)


class Daemon(NamedTuple):
    """A daemon of the cluster."""

    host: str
    port: int
    object_id: str
    pid: int
    ping: Any


class Attacked:
    """A cluster, and what an attack needs of it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        host, port = cluster._nameserver
        self.nameserver = find(host, port, broadcast=False)
        pids = [cluster._daemons[-1].pid, cluster.dispatcher_pid, cluster.workers[0].pid]
        objects = names.NAME_SERVER, names.DISPATCHER, names.worker(cluster.workers[0].name)
        self.daemons = {}
        for role, object_id, pid in zip(SERVERS, objects, pids, strict=True):
            uri = lookup(self.nameserver, object_id)
            assert uri is not None
            address = sockets.parse_address(uri.rpartition("@")[2])
            self.daemons[role] = Daemon(*address, object_id, pid, Pinger(uri))
            # What is imported for the first object of its kind stays, and is no message's fault.
            peer = Peer(*address, context=self.context(roles.CLIENT))
            peer.shake_hands(DAEMON_NAME)
            assert isinstance(peer.ask(call(DAEMON_NAME, "get_metadata", *fuzzgrammar.SOUND)), TypeError)
            peer.sock.close()

    def call(self, role: str, method: str, *arguments: bytes) -> bytes:
        return call(self.daemons[role].object_id, method, *arguments)

    def context(self, role: str) -> Any:
        if self.cluster._certificates is None:
            return None
        return tls.Credentials(Path(self.cluster._certificates.of(role))).client_context()

    def attack(self, role: str, payload: bytes, caller: str = roles.CLIENT, serializer: int = 4) -> Any:
        """Send a call, and hold what it takes against its size; returns the answer."""
        answer, longest = self._attack(role, payload, caller, serializer)
        if longest >= LONGEST_PING:  # what keeps others waiting does so again; a busy machine does not
            again = [self._attack(role, payload, caller, serializer)[1] for _ in range(2)]
            assert max(again) < LONGEST_PING, f"pings of {longest:.2f} s, then {again}"
        return pickle.loads(answer.data) if serializer == 4 else answer.data

    def _attack(self, role: str, payload: bytes, caller: str, serializer: int) -> tuple[Message, float]:
        daemon = self.daemons[role]
        before = memory(daemon.pid)
        with daemon.ping as pings:
            peer = Peer(daemon.host, daemon.port, context=self.context(caller))
            with suppress(OSError):
                peer.shake_hands(DAEMON_NAME)
                peer.send(message.MSG_INVOKE, payload, serializer)
                answer = peer.receive()
            peer.sock.close()
        assert alive(daemon.pid)
        grown = memory(daemon.pid, peak=True) - before
        assert grown <= BYTES_FREE + BYTES_A_BYTE * len(payload), f"{grown:,} bytes for {len(payload):,}"
        return answer, max(pings)


class Pinger:
    """Pings all the time, as any client may, whatever it may call; collects how long each took."""

    def __init__(self, uri: str) -> None:
        self.proxy = connect(uri, timeout=30.0)

    def __enter__(self) -> list[float]:
        self.seconds: list[float] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._ping)
        self.thread.start()
        wait_until(lambda: bool(self.seconds))
        return self.seconds

    def _ping(self) -> None:
        connection = self.proxy._pyroConnection
        while True:
            began = time.perf_counter()
            connection.send(Message(message.MSG_PING, b"ping", 4, 0, 0).to_bytes())
            Message.recv(connection, [message.MSG_PING])
            self.seconds.append(time.perf_counter() - began)
            if self.over.wait(0.002):
                return

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()


def memory(pid: int, peak: bool = False) -> int:
    """Bytes that a process has; or that it had at most since it was last asked without `peak`."""
    if not peak:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) << 10


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def plain() -> Iterator[Attacked]:
    with LocalCluster(n_workers=1) as cluster:
        yield Attacked(cluster)


@pytest.fixture(scope="module")
def secured() -> Iterator[Attacked]:
    # Nobody waits for a refusal: how long others wait is another matter.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(refusals.VARIABLE, "1")
        with LocalCluster(n_workers=1, tls=True) as cluster:
            yield Attacked(cluster)


@pytest.mark.parametrize("case", CASES)
def test_a_small_message_takes_little_and_stops_nobody(plain: Attacked, case: str):
    argument = CASES[case]()
    for role, method in [*CALLS[roles.CLIENT], (roles.WORKER, "forget")]:
        plain.attack(role, plain.call(role, method, argument))


def open_arguments() -> Iterator[tuple[str, str, str, str]]:
    """The arguments that may be anything: role, object, method and name of each."""
    served = {
        names.LSI_DISPATCHER: (roles.DISPATCHER, GensimLsi),
        names.LDA_DISPATCHER: (roles.DISPATCHER, GensimLda),
        names.LSI_MODELS: (roles.DISPATCHER, ModelLsi),
        names.LDA_MODELS: (roles.DISPATCHER, ModelLda),
        names.DISPATCHER: (roles.DISPATCHER, Dispatcher),
        names.WORKER_PREFIX: (roles.WORKER, Worker),
        names.NAME_SERVER: (roles.NAMESERVER, NameServer),
    }
    for object_id, (role, cls) in served.items():
        for method in sorted(util.get_exposed_members(cls)["methods"]):
            for name, hint in get_type_hints(inspect.unwrap(getattr(cls, method))).items():
                if name != "return" and (hint is Any or get_origin(hint) is dict):
                    yield role, object_id, method, name


@pytest.mark.long
@pytest.mark.parametrize("levels", [19, 40])
@pytest.mark.parametrize("argument", [*open_arguments()], ids=" ".join)
def test_what_unfolds_stops_nobody_wherever_it_is(
    plain: Attacked, argument: tuple[str, str, str, str], levels: int
):
    """What the reader lets pass, too."""
    role, object_id, method, name = argument
    if object_id == names.WORKER_PREFIX:
        object_id = plain.daemons[role].object_id
    for first, each in ((b"](G" + bytes(8) + b"e", b"](%s%se"), (b"G" + bytes(8) + b"\x85", b"%s%s\x86")):
        bomb = fuzzgrammar.doubled(first, each, levels)
        for value in (bomb, fuzzgrammar.attributes(a=bomb, topics=fuzzgrammar.get(levels))):
            payload = fuzzgrammar.call_by_name(object_id, method, **{name: value})
            answer = plain.attack(role, payload)
            assert isinstance(answer, Exception)
            assert isinstance(answer, SecurityError) == (levels == 40)


@pytest.mark.parametrize("case", CRASHES)
@pytest.mark.parametrize("role", SERVERS)
def test_pyro_s_own_methods_are_no_way_in(plain: Attacked, role: str, case: str):
    for method in ("get_metadata", "get_next_stream_item", "close_stream", "__getattr__"):
        assert isinstance(plain.attack(role, call(DAEMON_NAME, method, CASES[case]())), Exception)


@pytest.mark.parametrize("case", CRASHES)
@pytest.mark.parametrize("caller", roles.ROLES)
def test_a_certificate_is_no_way_in(secured: Attacked, caller: str, case: str):
    argument = CASES[case]()
    for role in SERVERS:
        answer = secured.attack(role, call(DAEMON_NAME, "get_metadata", argument), caller)
        assert isinstance(answer, Exception)
    for role, method in CALLS[caller]:
        assert isinstance(secured.attack(role, secured.call(role, method, argument), caller), Exception)


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in CRASHES])
@pytest.mark.parametrize("caller", roles.ROLES)
def test_with_a_certificate_a_small_message_takes_little(secured: Attacked, caller: str, case: str):
    argument = CASES[case]()
    for role in SERVERS:
        secured.attack(role, call(DAEMON_NAME, "get_metadata", argument), caller)
    for role, method in CALLS[caller]:
        secured.attack(role, secured.call(role, method, argument), caller)


@pytest.mark.parametrize("case", CRASHES)
def test_nothing_but_a_uri_is_registered(plain: Attacked, secured: Attacked, case: str):
    for attacked in (plain, secured):
        for arguments in ((text(names.worker("w9")), CASES[case]()), (CASES[case](), text("PYRO:a@b:1"))):
            payload = call(names.NAME_SERVER, "register", *arguments)
            assert isinstance(attacked.attack(roles.NAMESERVER, payload, roles.WORKER), Exception)


@pytest.mark.parametrize("case", ["a vocabulary that is stated", "ids that are stated"])
@pytest.mark.parametrize("object_id", [names.LSI_DISPATCHER, names.LDA_DISPATCHER])
def test_a_stated_length_is_not_gone_through(plain: Attacked, object_id: str, case: str):
    # Refused for what its result would take, and that at once.
    answer = plain.attack(roles.DISPATCHER, call(object_id, "initialize", CASES[case]()))
    assert "make a result of" in str(answer)


def test_topics_are_not_gone_through(plain: Attacked):
    number = fuzzgrammar.whole(5 * 10**8)
    for object_id in (names.LSI_DISPATCHER, names.LDA_DISPATCHER):
        answer = plain.attack(roles.DISPATCHER, call(object_id, "initialize", b"}", number))
        assert "num_topics=500000000: give a whole number from 1 to 1,000,000" in str(answer)


def framed(pickled: bytes, buffers: int = 0) -> bytes:
    """A message of the other serializer, with empty buffers."""
    head = struct.pack(f"!4sIQ{buffers}Q", b"DCF1", buffers, len(pickled), *[0] * buffers)
    return head + bytes(-len(head) % 64) + pickled + bytes(-len(pickled) % 64 if buffers else 0)


def test_copies_of_a_buffer_are_charged(plain: Attacked):
    size = 500_000
    argument = fuzzgrammar.long_strings(size, 1500, b"\x97")
    for role, method in [*CALLS[roles.CLIENT], (roles.WORKER, "forget")]:
        payload = framed_with(plain.call(role, method, argument), b"a" * size)
        assert b"of memory" in plain.attack(role, payload, serializer=64)


def framed_with(pickled: bytes, buffer: bytes) -> bytes:
    """A message of the other serializer, with one buffer."""
    head = struct.pack("!4sI2Q", b"DCF1", 1, len(pickled), len(buffer))
    head += bytes(-len(head) % 64) + pickled
    return head + bytes(-len(head) % 64) + buffer


@pytest.mark.parametrize("asked_for", [False, True])
def test_empty_buffers_take_little(plain: Attacked, asked_for: bool):
    count = 400_000
    argument = fuzzgrammar.many(count, b"", b"\x97") if asked_for else b"N"
    payload = framed(plain.call(roles.WORKER, "forget", argument), count)
    assert b"Error" in plain.attack(roles.WORKER, payload, serializer=64)


def test_a_large_message_is_for_those_who_need_it(plain: Attacked):
    payload = call(names.NAME_SERVER, "lookup", text("a" * (1 << 20)))
    assert "too large" in str(plain.attack(roles.NAMESERVER, payload))


@pytest.mark.parametrize("raised", [True, False])
@pytest.mark.parametrize("case", CRASHES)
def test_a_worker_s_answer_ends_no_dispatcher(plain: Attacked, case: str, raised: bool):
    answer = framed(b"\x80\x04" + CASES[case]() + b".")
    asked = threading.Event()
    meta = {
        "methods": {"ping", "status", "process", "cancel", "forget", "exit", "refused"},
        "oneway": set(),
        "attrs": set(),
    }

    def serve(sock: socket.socket) -> None:
        connection = socketutil.SocketConnection(sock)
        with sock, suppress(Exception):
            while True:
                got = Message.recv(connection)
                kind, flags, data = message.MSG_RESULT, message.FLAGS_EXCEPTION if raised else 0, answer
                if got.type == message.MSG_CONNECT:
                    kind, flags = message.MSG_CONNECTOK, message.FLAGS_META_ON_CONNECT
                    data = framed(pickle.dumps({"handshake": "hello", "meta": meta}))
                sock.sendall(Message(kind, data, got.serializer_id, flags, got.seq).to_bytes())
                if got.type == message.MSG_INVOKE:
                    asked.set()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    name = names.worker("rogue")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        plain.nameserver.register(name, f"PYRO:{name}@127.0.0.1:{server.getsockname()[1]}")
        try:
            with plain.daemons[roles.DISPATCHER].ping as pings:
                assert asked.wait(20)
                count = len(pings)
                wait_until(lambda: len(pings) > count + 100)
        finally:
            plain.nameserver.remove(name)
        server.shutdown(socket.SHUT_RDWR)
    assert max(pings) < LONGEST_PING
    assert alive(plain.daemons[roles.DISPATCHER].pid)

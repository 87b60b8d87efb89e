"""What a stranger on the network can try, over real sockets, and what a rogue server can try upon a client.

Each attack runs a command if it succeeds, which would leave a witness file behind.
"""

from __future__ import annotations

import contextlib
import marshal
import pickle
import re
import resource
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import Pyro4.core
import pytest
from Pyro4 import message, socketutil, util
from Pyro4.errors import SecurityError, SerializeError
from Pyro4.message import Message

from distcorpus import wire
from distcorpus.wire.serializer import MAX_DECOMPRESSED_BYTES, StringMarshalSerializer

from .conftest import PICKLE, Echo, Peer

#: An unmodified Pyro4 client that sends a pickle which runs `touch`, in a call or in the handshake.
STOCK_ATTACK = """
import os, sys, Pyro4
uri, where, witness, serializer, method = sys.argv[1:]
class Evil:
    def __reduce__(self):
        return os.system, (f"touch '{witness}'",)
proxy = Pyro4.Proxy(uri)
proxy._pyroSerializer = serializer
if where == "handshake":
    proxy._pyroHandshake = Evil()
try:
    proxy._pyroBind()
    proxy._pyroInvoke(method, (Evil(),), {})
    print("answered")
except Exception as error:
    print(type(error).__name__, error)
"""

#: The same, upon a stock daemon: the control, which shows that the attack is one.
STOCK_DAEMON = """
import sys, threading, Pyro4
Pyro4.config.SERIALIZERS_ACCEPTED = {"pickle"}
@Pyro4.expose
class Echo:
    def echo(self, value): pass
daemon = Pyro4.Daemon()
sys.argv[1] = str(daemon.register(Echo()))
threading.Thread(target=daemon.requestLoop, daemon=True).start()
"""


class Evil:
    """Runs a command when stock pickle reads it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        import os

        return os.system, (f"touch '{self.witness}'",)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "witness"
    yield path
    assert not path.exists()


@pytest.fixture
def name_server() -> Iterator[wire.NameServerDaemon]:
    daemon = wire.NameServerDaemon(port=0)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize("where", ["call", "handshake"])
def test_the_attack_is_one(stock_python: Callable[..., str], tmp_path: Path, where: str):
    path = tmp_path / "control"
    stock_python(STOCK_DAEMON + STOCK_ATTACK, "", where, str(path), "pickle", "echo")
    assert path.exists()


@pytest.mark.parametrize("where", ["call", "handshake"])
def test_a_daemon_refuses_it(
    stock_python: Callable[..., str], witness: Path, daemon: wire.Daemon, echo: Echo, where: str
):
    printed = stock_python(STOCK_ATTACK, daemon.uri("echo"), where, str(witness), "pickle", "echo")
    assert "refused" in printed
    assert "system" in printed
    assert echo.calls == 0
    assert wire.connect(daemon.uri("echo")).echo(1) == 1


@pytest.mark.parametrize("where", ["call", "handshake"])
@pytest.mark.parametrize("method", ["register", "list"])
def test_the_name_server_refuses_it(
    stock_python: Callable[..., str],
    witness: Path,
    name_server: wire.NameServerDaemon,
    method: str,
    where: str,
):
    printed = stock_python(STOCK_ATTACK, name_server.uri(), where, str(witness), "pickle", method)
    assert "refused" in printed
    assert wire.find("127.0.0.1", name_server.port).count() == 1


@pytest.mark.parametrize("serializer", [1, 2, 3, 5, 6, 7, 42, 99])
def test_every_other_serializer_is_refused(daemon: wire.Daemon, witness: Path, serializer: int, echo: Echo):
    attacker = Peer("127.0.0.1", daemon.port)
    attacker.send(message.MSG_CONNECT, pickle.dumps({"handshake": Evil(witness)}), serializer)
    assert attacker.receive().type == message.MSG_CONNECTFAIL
    attacker = Peer("127.0.0.1", daemon.port)
    attacker.shake_hands()
    attacker.send(message.MSG_INVOKE, pickle.dumps(("echo", "echo", (Evil(witness),), {})), serializer)
    with contextlib.suppress(wire.ConnectionClosedError):
        assert attacker.receive().flags & message.FLAGS_EXCEPTION
    assert echo.calls == 0


def test_dill_and_cloudpickle_are_gone():
    wire.install()
    for name in ("dill", "cloudpickle"):
        with pytest.raises(SerializeError):
            util.get_serializer(name)
    for number in (5, 7):
        with pytest.raises(SerializeError):
            util.get_serializer_by_id(number)


def test_stock_pickle_inside_frames_is_refused(daemon: wire.Daemon, witness: Path, echo: Echo):
    attacker = Peer("127.0.0.1", daemon.port)
    attacker.shake_hands()
    payload = pickle.dumps(("echo", "echo", (Evil(witness),), {}))
    head = struct.pack("!4sIQ", b"DCF1", 0, len(payload))
    attacker.send(message.MSG_INVOKE, head + bytes(-len(head) % 64) + payload, 64)
    assert b"SecurityError" in attacker.receive().data
    assert echo.calls == 0


@pytest.mark.parametrize(
    "call",
    [
        5,
        None,
        (),
        ("echo", "echo", ()),
        ("echo", "echo", 3, {}),
        ("echo", "echo", (), {1: 2}),
        (1, 2, (), {}),
    ],
    ids=str,
)
def test_what_is_no_call_is_refused(peer: Peer, call: Any):
    peer.shake_hands()
    assert isinstance(peer.ask(pickle.dumps(call)), SerializeError)


def test_a_marshalled_blob_is_refused(peer: Peer, echo: Echo):
    peer.shake_hands()
    blob = marshal.dumps(("info", "echo", "echo"))
    answer = peer.ask(pickle.dumps(1), message.FLAGS_KEEPSERIALIZED, BLBI=blob)
    assert isinstance(answer, SecurityError)
    assert echo.calls == 0


@pytest.mark.parametrize("deep", [b")" + b"\x85" * 200_000, b"]" * 200_000 + b"a" * 199_999])
def test_deeply_nested_values_crash_nobody(daemon: wire.Daemon, peer: Peer, echo: Echo, deep: bytes):
    peer.shake_hands()
    head = b"\x80\x02(" + b"X\x04\x00\x00\x00echo" * 2
    assert peer.ask(head + b"K\x05\x85}t.") == 5
    assert re.search("100 deep|more than .* of memory", str(peer.ask(head + deep + b"\x85}t.")))
    assert echo.calls == 1
    assert wire.connect(daemon.uri("echo")).echo(1) == 1


def test_oneway_calls_start_no_threads(daemon: wire.Daemon, peer: Peer):
    class Threads:
        idents: set[int] = set()  # noqa: RUF012

        @wire.expose
        def note(self) -> int:
            self.idents.add(threading.get_ident())
            return len(self.idents)

    daemon.serve("threads", Threads())
    peer.shake_hands()
    for _ in range(20):
        peer.send(message.MSG_INVOKE, pickle.dumps(("threads", "note", (), {})), flags=message.FLAGS_ONEWAY)
    assert peer.ask(pickle.dumps(("threads", "note", (), {}))) == 1


def zipped_zeros(size: int) -> bytes:
    """A compressed call whose argument is that many zero bytes, made without holding them."""
    block = 1 << 20
    before, after = pickle.dumps(("echo", "echo", (b"\0" * block,), {}), 4).split(b"\0" * block)
    before = before.replace(struct.pack("<I", block), struct.pack("<I", size))
    compressor = zlib.compressobj(1)
    parts = [compressor.compress(before)]
    parts += [compressor.compress(b"\0" * block) for _ in range(size // block)]
    return b"".join([*parts, compressor.compress(after), compressor.flush()])


def test_a_decompression_bomb_takes_no_memory(peer: Peer, echo: Echo):
    peer.shake_hands()  # first, since who is connected and says nothing is hung up on
    bomb = zipped_zeros(1 << 30)
    assert len(bomb) < 10 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = peer.ask(bomb, message.FLAGS_COMPRESSED)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert isinstance(answer, SecurityError)
    assert grown < 4 * MAX_DECOMPRESSED_BYTES
    assert echo.calls == 0


def test_an_honest_compressed_call_is_served(stock_python: Callable[..., str], daemon: wire.Daemon):
    program = """
import sys, Pyro4
Pyro4.config.COMPRESSION = True
print(len(Pyro4.Proxy(sys.argv[1]).echo("a" * 10_000)))
"""
    assert stock_python(program, daemon.uri("echo")) == "10000\n"


@pytest.mark.parametrize("size", [1 << 17, (1 << 31) - 1, -1])
def test_a_header_bomb_before_the_handshake_is_refused(daemon: wire.Daemon, size: int):
    attacker = Peer("127.0.0.1", daemon.port)
    attacker.sock.sendall(header(message.MSG_CONNECT, size))
    received = attacker.wait_for_end()
    assert not received or Message.from_header(received[:24]).type == message.MSG_CONNECTFAIL


@pytest.mark.parametrize("size", [(1 << 30) - 1000, (1 << 31) - 1, -1])
def test_a_header_bomb_takes_no_memory(peer: Peer, daemon: wire.Daemon, size: int):
    peer.shake_hands()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peer.sock.sendall(header(message.MSG_INVOKE, size) + b"little")
    assert wire.connect(daemon.uri("echo")).echo(1) == 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 100 << 20


def header(kind: int, size: int) -> bytes:
    """The header of a message that claims `size` bytes of data."""
    checksum = (kind + 48 + size + PICKLE + 0x34E9) & 0xFFFF
    return struct.pack("!4sHHHHiHHHH", b"PYRO", 48, kind, 0, 0, size, PICKLE, 0, 0, checksum)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n" * 10, b"\0" * 100, b"PYRO" + b"\xff" * 100])
def test_garbage_stops_nobody(daemon: wire.Daemon, garbage: bytes):
    for shaken in (False, True):
        attacker = Peer("127.0.0.1", daemon.port)
        if shaken:
            attacker.shake_hands()
        attacker.sock.sendall(garbage)
        attacker.wait_for_end()
    assert wire.connect(daemon.uri("echo")).echo(1) == 1


@pytest.mark.parametrize(
    "annotation", [b"short", b"COR", b"CORR\x00\x02ab", b"\xff\xff\xff\xff\x00\x00", b"XXXX\xff\xff"]
)
def test_bad_annotations_stop_nobody(daemon: wire.Daemon, annotation: bytes):
    attacker = Peer("127.0.0.1", daemon.port)
    attacker.shake_hands()
    data = pickle.dumps(("echo", "echo", (1,), {}))
    checksum = (message.MSG_INVOKE + 48 + len(data) + len(annotation) + PICKLE + 0x34E9) & 0xFFFF
    fields = (b"PYRO", 48, message.MSG_INVOKE, 0, 0, len(data), PICKLE, len(annotation), 0, checksum)
    attacker.sock.sendall(struct.pack("!4sHHHHiHHHH", *fields) + annotation + data)
    attacker.wait_for_end()
    assert wire.connect(daemon.uri("echo")).echo(1) == 1


# A rogue server upon a client.


@pytest.fixture
def rogue() -> Iterator[Callable[[bytes, int, int], str]]:
    """Starts a server that answers a connection's handshake with what it is given; returns its URI."""
    servers: list[socket.socket] = []

    def start(data: bytes, serializer: int, flags: int = 0, kind: int = message.MSG_CONNECTOK) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                connection = socketutil.SocketConnection(sock)
                Message.recv(connection)
                sock.sendall(Message(kind, data, serializer, flags, 0).to_bytes())
                sock.recv(1)

        threading.Thread(target=answer, daemon=True).start()
        return f"PYRO:echo@127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("kind", [message.MSG_CONNECTOK, message.MSG_CONNECTFAIL])
@pytest.mark.parametrize("serializer", [3, 4, 5, 7, 64])
def test_a_client_refuses_a_rogue_answer(rogue: Any, witness: Path, serializer: int, kind: int):
    uri = rogue(pickle.dumps(Evil(witness)), serializer, 0, kind)
    with pytest.raises((SecurityError, SerializeError)):
        wire.connect(uri)


def test_an_unmodified_proxy_in_our_process_refuses_it_too(rogue: Any, witness: Path):
    with pytest.raises(SecurityError, match="refused"):
        Pyro4.core.Proxy(rogue(pickle.dumps(Evil(witness)), PICKLE))._pyroBind()


def test_a_rogue_decompression_bomb_is_refused(rogue: Any):
    with pytest.raises(SecurityError, match="compressed"):
        wire.connect(rogue(zipped_zeros(1 << 28), PICKLE, message.FLAGS_COMPRESSED))


@pytest.mark.parametrize("text", ["", "short", "é", "long" * 100, "é" * 300])
def test_of_marshal_only_strings_are_read(text: str):
    for data in (marshal.dumps(text), marshal.dumps(text, 0)):
        assert StringMarshalSerializer().loads(data) == text


@pytest.mark.parametrize("value", [5, None, [1], (1,), b"x", {1: 2}, 1.5, compile("1", "f", "eval")])
def test_nothing_else_of_marshal_is_read(value: Any):
    with pytest.raises((SecurityError, SerializeError)):
        StringMarshalSerializer().loads(marshal.dumps(value))


@pytest.mark.parametrize("data", [b"", b"z", b"z\x05ab", b"u\xff\xff\xff\xff", b"u\x01", b"z\x01ab"])
def test_malformed_marshal_is_an_error(data: bytes):
    with pytest.raises((SecurityError, SerializeError)):
        StringMarshalSerializer().loads(data)

"""No peer takes what the others need: each limit is reached here, and those who keep to them are served."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import fuzzgrammar
import numpy as np
import pytest
from Pyro4 import config, message

from distcorpus import wire
from distcorpus.wire import sockets, transport

from .conftest import PICKLE, Peer
from .test_daemon import Blocker, call_in_thread, wait_until

STRANGER = "127.0.0.66"


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, daemon: wire.Daemon) -> Any:
    """Makes connections to the daemon that come from another host than ours.

    On loopback, whose addresses count as one host otherwise.
    """
    monkeypatch.setattr(sockets, "peer_group", str)
    with ExitStack() as stack:

        def connect(shaken: bool = True) -> Peer:
            peer = Peer("127.0.0.1", daemon.port, (STRANGER, 0))
            stack.enter_context(peer.sock)
            if shaken:
                peer.shake_hands()
            return peer

        yield connect


def header(size: int) -> bytes:
    """The header of a call of `size` bytes."""
    checksum = (message.MSG_INVOKE + 48 + size + PICKLE + 0x34E9) & 0xFFFF
    return struct.pack("!4sHHHHiHHHH", b"PYRO", 48, message.MSG_INVOKE, 0, 0, size, PICKLE, 0, 0, checksum)


def is_dropped(peer: Peer) -> bool:
    peer.sock.settimeout(0.01)
    try:
        return peer.sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [0, 1, 70_000, 1_500_000])
def test_a_message_that_stalls_is_given_up(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any, sent: int
):
    monkeypatch.setattr(transport, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(transport, "SLOWEST_BYTES_A_SECOND", 1e9)
    silent = wire.connect(daemon.uri("echo"))
    slow = stranger()
    slow.sock.sendall(header(5_000_000) + bytes(sent))
    wait_until(lambda: is_dropped(slow))
    assert silent.echo(1) == 1


def test_a_call_and_a_pause_may_last_longer_than_a_stall(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    monkeypatch.setattr(transport, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(transport, "SLOWEST_BYTES_A_SECOND", 1e9)
    blocker = Blocker()
    daemon.serve("blocker", blocker)
    silent = stranger()
    thread, outcome = call_in_thread(wire.connect(daemon.uri("blocker")).block)
    assert blocker.entered.wait(10)
    slow = stranger()
    slow.sock.sendall(header(1000))
    wait_until(lambda: is_dropped(slow))  # the others were looked at too, and have waited for longer
    blocker.let_go.set()
    thread.join(10)
    assert outcome == ["done"]
    assert silent.ask(pickle.dumps(("echo", "echo", (3,), {}))) == 3


TOO_LARGE = """
import sys, Pyro4
proxy = Pyro4.Proxy(sys.argv[1])
for call in (lambda: proxy.echo(b"x" * 3_000_000), lambda: proxy.repeat(b"x" * 200_000, 10)):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
print(proxy.echo(5))
"""


def test_a_message_that_is_too_large_is_answered(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stock_python: Callable[..., str]
):
    class Repeating:
        @wire.expose
        def echo(self, value: Any) -> Any:
            return value

        @wire.expose
        def repeat(self, value: bytes, times: int) -> bytes:
            return value * times

    monkeypatch.setattr(config, "MAX_MESSAGE_SIZE", 1_000_000)
    printed = stock_python(TOO_LARGE, daemon.serve("repeating", Repeating())).splitlines()
    assert printed[0].startswith(
        "MessageTooLargeError a message of 3 MB is too large: this daemon takes 1 MB"
    )
    assert printed[1].startswith("MessageTooLargeError max message size exceeded")
    assert printed[2] == "5"


def test_a_host_has_a_part_of_the_connections(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    monkeypatch.setattr(transport, "MAX_CONNECTIONS_OF_A_PEER", 3)
    taken = [stranger() for _ in range(3)]
    refused = stranger(shaken=False)
    refused.send(message.MSG_CONNECT, pickle.dumps({"handshake": "hello", "object": "echo"}))
    answer = refused.receive()
    assert answer.type == message.MSG_CONNECTFAIL
    assert b"already has 3 connections from your host" in answer.data
    assert wire.connect(daemon.uri("echo")).echo(1) == 1
    for peer in taken:
        peer.sock.close()
    wait_until(lambda: _connects(stranger))


def _connects(stranger: Any) -> bool:
    try:
        stranger()
    except AssertionError:
        return False
    return True


def test_of_too_many_handshakes_the_greediest_hosts_oldest_is_dropped(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    monkeypatch.setattr(transport, "MAX_HANDSHAKES", 4)
    slow = Peer("127.0.0.1", daemon.port)  # older than any other, and not the greediest host's
    silent = [stranger(shaken=False) for _ in range(7)]
    wait_until(lambda: [is_dropped(peer) for peer in silent] == [True] * 4 + [False] * 3)
    slow.shake_hands()
    slow.sock.close()


def test_of_too_many_bytes_the_greediest_hosts_slowest_are_dropped(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    monkeypatch.setattr(transport, "MAX_BYTES_UNDER_WAY", 16 << 20)
    stalled = [stranger() for _ in range(4)]
    for peer in stalled:
        peer.sock.sendall(header(5 << 20) + bytes(4 << 20))
    wait_until(lambda: any(map(is_dropped, stalled)))
    assert not all(map(is_dropped, stalled))
    proxy = wire.connect(daemon.uri("echo"))
    sent = np.arange(1 << 19)  # 4 MB
    for _ in range(3):
        np.testing.assert_array_equal(proxy.echo(sent), sent)
    for peer in stalled:
        peer.sock.close()
    # Nothing stays counted: all of it is there again, for a message and its answer.
    sent = np.arange((7 << 20) // 8)
    wait_until(lambda: daemon.transportServer._nbytes == 0)
    np.testing.assert_array_equal(proxy.echo(sent), sent)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("127.0.0.1", "127.255.3.4", True),
        ("127.0.0.1", "::1", True),
        ("::ffff:127.0.0.9", "::1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_what_counts_as_one_host(one: str, other: str, same: bool):
    assert (sockets.peer_group(one) == sockets.peer_group(other)) == same


def test_what_is_made_of_messages_counts_as_bytes_under_way(
    daemon: wire.Daemon, peer: Peer, monkeypatch: pytest.MonkeyPatch
):
    lists = fuzzgrammar.call("echo", "echo", fuzzgrammar.many(60_000, b"", b"]"))
    peer.shake_hands()
    peer.send(message.MSG_INVOKE, lists)
    assert len(pickle.loads(peer.receive().data)) == 60_000
    server = daemon.transportServer
    wait_until(lambda: server._nbytes == 0)
    monkeypatch.setattr("distcorpus.wire.transport.MAX_BYTES_UNDER_WAY", 4 << 20)
    peer.send(message.MSG_INVOKE, lists)
    with pytest.raises(wire.ConnectionClosedError):
        peer.receive()
    wait_until(lambda: server._nbytes == 0)
    assert wire.connect(daemon.uri("echo")).echo(1) == 1


class Telling:
    """Answers with as many bytes as one likes."""

    @wire.expose
    def tell(self, number: int) -> bytes:
        return bytes(number)


def ask_and_read_nothing(peer: Peer, number: int) -> Peer:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.send(message.MSG_INVOKE, pickle.dumps(("telling", "tell", (number,), {})))
    return peer


@pytest.mark.parametrize("same_host", [False, True])
def test_answers_that_nobody_reads_give_way(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any, same_host: bool
):
    """They count as bytes under way; those who read get theirs, whatever host they are on."""
    if same_host:
        monkeypatch.setattr(sockets, "peer_group", lambda address: "one host")
    monkeypatch.setattr(transport, "MAX_BYTES_UNDER_WAY", 30 << 20)
    proxy = wire.connect(daemon.serve("telling", Telling()))
    stalled = [ask_and_read_nothing(stranger(), 10 << 20) for _ in range(4)]
    wait_until(lambda: daemon.refused().get("dropped", 0) >= 2)  # all four have been answered
    for _ in range(3):
        assert len(proxy.tell(10 << 20)) == 10 << 20
    assert daemon.transportServer._nbytes <= 30 << 20
    for peer in stalled:
        peer.sock.close()
    wait_until(lambda: daemon.transportServer._nbytes == 0)
    assert len(proxy.tell(25 << 20)) == 25 << 20


def test_an_answer_that_is_not_read_is_given_up(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    monkeypatch.setattr(transport, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(transport, "SLOWEST_BYTES_A_SECOND", 1e9)
    daemon.serve("telling", Telling())
    peer = stranger()
    ask_and_read_nothing(peer, 10 << 20)
    wait_until(lambda: daemon.refused().get("dropped", 0) == 1)
    wait_until(lambda: daemon.transportServer._nbytes == 0)


@pytest.mark.parametrize(("limit", "all_answered"), [(200, True), (20, False)])
def test_large_messages_and_answers_at_once_wait_for_nobody(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, limit: int, all_answered: bool
):
    """Each is answered, or told that its connection is gone; and then there is room again."""
    monkeypatch.setattr(transport, "MAX_BYTES_UNDER_WAY", limit << 20)
    sent = np.arange(1 << 20)  # 8 MB
    answered: list[bool] = []

    def ask() -> None:
        proxy = wire.connect(daemon.uri("echo"))
        try:
            answered.append(np.array_equal(proxy.echo(sent), sent))
        except wire.ConnectionClosedError:
            answered.append(False)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answered) == 8
    assert all(answered) or not all_answered
    wait_until(lambda: daemon.transportServer._nbytes == 0)
    np.testing.assert_array_equal(wire.connect(daemon.uri("echo")).echo(sent), sent)


@pytest.mark.long
def test_who_does_not_read_for_a_while_gets_the_answer(monkeypatch: pytest.MonkeyPatch):
    """A program that is stopped, and goes on: its host answers all the time."""
    monkeypatch.setattr(sockets, "VANISHED_AFTER", 1)
    daemon = wire.Daemon()
    daemon.serve("telling", Telling())
    daemon.start()
    peer = Peer("127.0.0.1", daemon.port)
    peer.shake_hands("telling")
    peer.send(message.MSG_INVOKE, pickle.dumps(("telling", "tell", (40 << 20,), {})))
    time.sleep(3)  # more than the buffers of both ends is on its way
    assert len(pickle.loads(peer.receive().data)) == 40 << 20
    peer.sock.close()
    daemon.stop()


@pytest.mark.parametrize(
    ("retransmits", "probes", "vanished"),
    [(0, 0, False), (5, 0, False), (0, 3, False), (6, 0, True), (0, 6, True)],
)
def test_a_host_that_never_answers_has_vanished(retransmits: int, probes: int, vanished: bool):
    class Told(socket.socket):
        def getsockopt(self, *which: Any) -> bytes:
            return bytes([1, 0, retransmits, probes])

    with Told() as sock:
        assert sockets.has_vanished(sock) == vanished
    closed = socket.socket()
    closed.close()
    assert not sockets.has_vanished(closed)


def test_connections_to_vanished_hosts_are_dropped(
    daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch, stranger: Any
):
    peer = stranger()
    proxy = wire.connect(daemon.uri("echo"))
    monkeypatch.setattr(sockets, "has_vanished", lambda sock: sock.getpeername()[0] == STRANGER)
    wait_until(lambda: is_dropped(peer))
    assert proxy.echo(1) == 1

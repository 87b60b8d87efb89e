"""The daemon serves many, is stopped by none, and ends promptly."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distcorpus import wire
from distcorpus.wire import sockets, transport

from .conftest import Echo, Peer, wait_until


class Blocker:
    """Blocks in a call until it is let go; notes whether the caller is gone."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.connection: Any = None

    @wire.expose
    def block(self) -> str:
        self.connection = wire.current_connection()
        self.entered.set()
        self.let_go.wait(30)
        return "done"

    @wire.expose
    def stop_daemon(self) -> str:
        self._pyroDaemon.stop()  # type: ignore[attr-defined]
        return "stopped"


@pytest.fixture
def blocker(daemon: wire.Daemon) -> Any:
    blocker = Blocker()
    daemon.serve("blocker", blocker)
    yield blocker
    blocker.let_go.set()


def call_in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_errors_come_back_with_their_traceback(daemon: wire.Daemon):
    proxy = wire.connect(daemon.uri("echo"))
    with pytest.raises(ZeroDivisionError) as caught:
        proxy.divide(1.0, 0.0)
    assert "in divide" in wire.remote_traceback(caught.value)
    assert wire.remote_traceback(ValueError("here")) == ""
    assert proxy.divide(1.0, 2.0) == 0.5


class ClusterError(RuntimeError):
    """An error of ours, which not every peer can import."""


@pytest.mark.parametrize("serializer", ["frames", "pickle"])
@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (ClusterError("worker w1 is lost"), RuntimeError("worker w1 is lost")),
        (ValueError("bad", NotImplemented), ValueError),
        (KeyError("missing"), KeyError("missing")),
        (UnicodeDecodeError("utf8", b"x", 0, 1, "why"), UnicodeDecodeError("utf8", b"x", 0, 1, "why")),
    ],
    ids=str,
)
def test_every_error_arrives_as_one_that_any_peer_knows(
    daemon: wire.Daemon, serializer: str, raised: Exception, arrives: Any
):
    class Failing:
        @wire.expose
        def fail(self) -> None:
            raise raised

    daemon.serve("failing", Failing())
    proxy = wire.connect(daemon.uri("failing"), serializer=serializer)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (which one, is asserted below)
        proxy.fail()
    if isinstance(arrives, type):
        assert type(caught.value) is arrives
    else:
        assert type(caught.value) is type(arrives)
        assert str(caught.value) == str(arrives)
    assert "in fail" in wire.remote_traceback(caught.value)


def test_what_is_not_exposed_cannot_be_called(daemon: wire.Daemon):
    proxy = wire.connect(daemon.uri("echo"))
    proxy._pyroMethods.update({"__init__", "hidden", "echo.__globals__"})
    for name in ("__init__", "hidden", "echo.__globals__"):
        with pytest.raises(AttributeError):
            proxy._pyroInvoke(name, (), {})


def test_each_connection_gets_an_object_of_its_own_which_ends_with_it(daemon: wire.Daemon):
    closed = threading.Event()

    class Session:
        def __init__(self) -> None:
            self.total = 0

        @wire.expose
        def add(self, number: int) -> int:
            self.total += number
            return self.total

        def close(self) -> None:
            closed.set()

    daemon.serve_each("session", Session, Session)
    first, second = wire.connect(daemon.uri("session")), wire.connect(daemon.uri("session"))
    assert [first.add(1), first.add(1), second.add(1)] == [1, 2, 1]
    wire.close(first)
    assert closed.wait(10)
    assert second.add(1) == 2


def test_the_end_of_a_connection_is_told():
    ended: list[Any] = []
    daemon = wire.Daemon(on_disconnect=ended.append)
    daemon.serve("echo", Echo())
    daemon.start()
    proxy = wire.connect(daemon.uri("echo"))
    assert proxy.echo(1) == 1
    assert ended == []
    wire.close(proxy)
    wait_until(lambda: len(ended) == 1)
    daemon.stop()


def test_a_client_that_left_is_noticed_while_its_call_blocks(daemon: wire.Daemon, blocker: Blocker):
    proxy = wire.connect(daemon.uri("blocker"))
    thread, outcome = call_in_thread(proxy.block)
    assert blocker.entered.wait(10)
    assert not wire.client_gone(blocker.connection.sock)
    start = time.monotonic()
    wire.abort(proxy)
    thread.join(10)
    assert time.monotonic() - start < 5
    assert isinstance(outcome[0], wire.ConnectionClosedError)
    wait_until(lambda: wire.client_gone(blocker.connection.sock))


def test_looking_for_the_client_consumes_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with accepted:
        client.sendall(b"data")
        wait_until(lambda: accepted.recv(4, socket.MSG_PEEK) == b"data")
        assert not wire.client_gone(accepted)
        client.close()
        wait_until(lambda: wire.client_gone(accepted))
        assert accepted.recv(10) == b"data"
    assert wire.client_gone(accepted)


def test_a_call_that_takes_too_long_times_out(daemon: wire.Daemon, blocker: Blocker):
    proxy = wire.connect(daemon.uri("blocker"), timeout=0.1)
    with pytest.raises(wire.CallTimeout):
        proxy.block()


def test_silent_peers_block_nobody_and_are_dropped(daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.5)
    silent = [socket.create_connection(("127.0.0.1", daemon.port), timeout=20) for _ in range(20)]
    proxy = wire.connect(daemon.uri("echo"), connect_timeout=5)
    assert proxy.echo(1) == 1
    assert [sock.recv(1) for sock in silent] == [b""] * 20
    assert proxy.echo(2) == 2  # one that shook hands may be silent for longer
    for sock in silent:
        sock.close()


def test_a_slow_handshake_is_dropped_all_the_same(daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=0.05) as sock:
        wait_until(lambda: _is_closed_upon(sock, b"P"), seconds=10)


def _is_closed_upon(sock: socket.socket, data: bytes) -> bool:
    try:
        sock.send(data)
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_thousand_idle_connections_stop_no_call(daemon: wire.Daemon):
    wire.raise_file_limit()
    idle = []
    try:
        for _ in range(1000):
            peer = Peer("127.0.0.1", daemon.port)
            idle.append(peer)
            peer.shake_hands()
        proxy = wire.connect(daemon.uri("echo"))
        assert proxy.echo(np.arange(100_000)).sum() == 4_999_950_000
        start = time.monotonic()
        daemon.stop()
        assert time.monotonic() - start < 5
    finally:
        for peer in idle:
            peer.sock.close()


def test_connections_over_the_limit_are_told_so_and_stop_nobody():
    daemon = wire.Daemon(max_connections=2)
    daemon.serve("echo", Echo())
    daemon.start()
    proxies = [wire.connect(daemon.uri("echo")) for _ in range(2)]
    silent = socket.create_connection(("127.0.0.1", daemon.port))
    with pytest.raises(wire.CommunicationError, match="already has 2 connections"):
        wire.connect(daemon.uri("echo"))
    assert proxies[0].echo(1) == 1
    silent.close()
    wire.close(proxies[0])
    wait_until(lambda: _connects(daemon))
    daemon.stop()


def _connects(daemon: wire.Daemon) -> bool:
    try:
        wire.close(wire.connect(daemon.uri("echo")))
    except wire.CommunicationError:
        return False
    return True


def test_stopping_is_prompt_and_may_be_repeated(daemon: wire.Daemon, echo: Echo):
    proxies = [wire.connect(daemon.uri("echo")) for _ in range(5)]
    start = time.monotonic()
    daemon.stop()
    daemon.stop()
    assert time.monotonic() - start < 1
    with pytest.raises(wire.CommunicationError):
        proxies[0].echo(1)
    with pytest.raises(wire.CommunicationError):
        wire.connect(f"PYRO:echo@127.0.0.1:{daemon.port}", connect_timeout=2)
    wire.Daemon().stop()  # never started


def test_a_call_under_way_is_answered_before_the_end(daemon: wire.Daemon, blocker: Blocker):
    proxy = wire.connect(daemon.uri("blocker"))
    thread, outcome = call_in_thread(proxy.block)
    assert blocker.entered.wait(10)
    stopping, _ = call_in_thread(lambda: daemon.stop(grace=20))
    wait_until(lambda: not _connects(daemon))
    blocker.let_go.set()
    thread.join(10)
    stopping.join(10)
    assert outcome == ["done"]
    assert not stopping.is_alive()


def test_a_call_that_does_not_end_is_cut_off(daemon: wire.Daemon, blocker: Blocker):
    proxy = wire.connect(daemon.uri("blocker"))
    thread, outcome = call_in_thread(proxy.block)
    assert blocker.entered.wait(10)
    daemon.stop(grace=0.1)
    thread.join(10)
    assert isinstance(outcome[0], wire.ConnectionClosedError)


def test_a_call_may_stop_its_own_daemon(daemon: wire.Daemon, blocker: Blocker):
    proxy = wire.connect(daemon.uri("blocker"))
    assert proxy.stop_daemon() == "stopped"


@pytest.mark.parametrize(
    ("advertise", "location"),
    [("example.org:1234", "example.org:1234"), ("192.0.2.7", "192.0.2.7:{port}"), ("[::1]:99", "[::1]:99")],
)
def test_the_advertised_address_is_in_the_uri(advertise: str, location: str):
    daemon = wire.Daemon(advertise=advertise)
    expected = location.format(port=daemon.port)
    assert daemon.location == expected
    assert daemon.uri("a") == f"PYRO:a@{expected}"
    daemon.stop()


def test_a_daemon_on_all_addresses_advertises_one_that_others_can_use():
    daemon = wire.Daemon("0.0.0.0", insecure=True)
    assert not daemon.location.startswith("0.0.0.0")
    daemon.stop()


@pytest.mark.parametrize("advertise", ["", ":80", "host:", "host:port", "host:70000", "[::1", "[::1]x"])
def test_an_address_that_is_none_is_refused(advertise: str):
    with pytest.raises(ValueError, match="HOST or HOST:PORT"):
        sockets.parse_address(advertise)


def test_a_port_that_is_taken_is_named(daemon: wire.Daemon):
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{daemon.port}"):
        wire.Daemon(port=daemon.port)


def test_daemons_listen_on_this_machine_only():
    daemon = wire.Daemon()
    assert daemon.sock.getsockname()[0] == wire.default_bind() == "127.0.0.1"
    daemon.stop()


def test_a_vanished_host_shows_within_ten_seconds(daemon: wire.Daemon, blocker: Blocker):
    """The system's own timers do it, or `has_vanished` for data on its way from a daemon; here, that they are
    set.
    """
    proxy = wire.connect(daemon.uri("blocker"))
    thread, _ = call_in_thread(proxy.block)
    assert blocker.entered.wait(10)
    for sock in (proxy._pyroConnection.sock, blocker.connection.sock):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, probes = (
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"))
            for name in ("IDLE", "INTVL", "CNT")
        )
        assert idle + interval * probes < 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    of_client, of_daemon = (
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        for sock in (proxy._pyroConnection.sock, blocker.connection.sock)
    )
    assert 0 < of_client < 10_000
    assert of_daemon == 0
    blocker.let_go.set()
    thread.join(10)

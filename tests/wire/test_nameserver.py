"""The name server: found, truthful about who is alive, and bounded in what it does for a stranger."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from Pyro4.configuration import config
from Pyro4.errors import NamingError

from distcorpus import wire
from distcorpus.wire import nameserver, sockets

from .conftest import Echo, Peer


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def mute_port() -> Iterator[int]:
    """A port that neither accepts connections nor refuses them: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def dead_uri() -> str:
    return f"PYRO:gone@127.0.0.1:{free_port()}"


@pytest.fixture
def server() -> Iterator[wire.NameServerDaemon]:
    server = wire.NameServerDaemon(port=0)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def ns(server: wire.NameServerDaemon) -> wire.Proxy:
    return wire.find("127.0.0.1", server.port)


@pytest.fixture
def other() -> Iterator[wire.Daemon]:
    other = wire.Daemon()
    other.serve("echo", Echo())
    other.start()
    yield other
    other.stop()


def test_names_are_registered_listed_and_removed(ns: wire.Proxy, daemon: wire.Daemon):
    name, uri = wire.names.worker("w1"), daemon.uri("echo")
    assert wire.lookup(ns, name) is None
    wire.register(ns, name, uri)
    wire.register(ns, wire.names.DISPATCHER, uri)
    assert wire.lookup(ns, name) == uri
    assert wire.list_names(ns, wire.names.WORKER_PREFIX) == {"distcorpus.worker.w1": uri}
    assert len(wire.list_names(ns)) == 3
    assert wire.connect(wire.lookup(ns, name)).echo(5) == 5
    assert wire.unregister(ns, name, uri)
    assert not wire.unregister(ns, name, uri)
    assert wire.lookup(ns, name) is None


def test_a_name_that_is_alive_is_not_taken(ns: wire.Proxy, daemon: wire.Daemon, other: wire.Daemon):
    wire.register(ns, "name", daemon.uri("echo"))
    wire.register(ns, "name", daemon.uri("echo"))  # one's own, again
    with pytest.raises(NamingError, match=f"already registered.*{daemon.port}"):
        wire.register(ns, "name", other.uri("echo"))
    assert wire.lookup(ns, "name") == daemon.uri("echo")
    with pytest.raises(NamingError, match=f"already registered.*{daemon.port}"):
        ns.register("name", other.uri("echo"))  # as Pyro4's own clients do it
    assert wire.lookup(ns, "name") == daemon.uri("echo")
    assert not wire.unregister(ns, "name", other.uri("echo"))
    assert wire.lookup(ns, "name") == daemon.uri("echo")


def call_from_elsewhere(server: wire.NameServerDaemon, method: str, *arguments: Any) -> Any:
    """Call the name server from another address of this machine; returns the answer or the error."""
    peer = Peer("127.0.0.1", server.port, source=("127.0.0.2", 0))
    peer.shake_hands(wire.names.NAME_SERVER)
    return peer.ask(pickle.dumps((wire.names.NAME_SERVER, method, arguments, {})))


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is this machine's on Linux only")
def test_a_stranger_removes_no_name_that_is_alive(
    server: wire.NameServerDaemon, daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sockets, "peer_group", lambda address: address)  # as if they were two hosts
    ns = wire.find("127.0.0.1", server.port)
    uri = daemon.uri("echo")
    wire.register(ns, "name", uri)
    answer = call_from_elsewhere(server, "remove", "name")
    assert isinstance(answer, NamingError)
    assert "127.0.0.1 to remove" in str(answer)
    assert isinstance(call_from_elsewhere(server, "set_metadata", "name", ["mine"]), NamingError)
    # To register the very same does not make it one's own.
    assert call_from_elsewhere(server, "register", "name", uri) is None
    assert isinstance(call_from_elsewhere(server, "remove", "name"), NamingError)
    assert isinstance(call_from_elsewhere(server, "remove", wire.names.NAME_SERVER), NamingError)
    assert wire.lookup(ns, "name") == uri
    daemon.stop()
    assert call_from_elsewhere(server, "remove", "name") == 1
    assert wire.lookup(ns, "name") is None


def test_who_registered_a_name_removes_it(ns: wire.Proxy, server: wire.NameServerDaemon, daemon: wire.Daemon):
    wire.register(ns, "name", daemon.uri("echo"))
    again = wire.find("127.0.0.1", server.port)  # after its connection broke, say
    assert wire.unregister(again, "name", daemon.uri("echo"))


def test_a_name_whose_daemon_died_is_taken_over(ns: wire.Proxy, daemon: wire.Daemon, other: wire.Daemon):
    wire.register(ns, "name", daemon.uri("echo"))
    daemon.stop()
    wire.register(ns, "name", other.uri("echo"))
    assert wire.lookup(ns, "name") == other.uri("echo")


def test_two_that_register_at_once_do_not_both_win(server: wire.NameServerDaemon, daemon: wire.Daemon):
    start = threading.Barrier(8)
    outcomes = []

    def register(number: int) -> None:
        ns = wire.find("127.0.0.1", server.port)
        start.wait(20)
        try:
            wire.register(ns, "name", daemon.uri(f"object{number}"))
            outcomes.append(number)
        except NamingError:
            pass

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 1


def test_stale_names_are_removed_and_others_stay(
    server: wire.NameServerDaemon, ns: wire.Proxy, daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch
):
    wire.register(ns, "alive", daemon.uri("echo"))
    wire.register(ns, "dead", dead_uri())
    monkeypatch.setattr(nameserver, "ALIVE_SECONDS", 0.2)
    with mute_port() as port:
        unreachable = f"PYRO:nat@127.0.0.1:{port}"
        wire.register(ns, "unreachable", unreachable)
        answered = server.clean()
        assert set(wire.list_names(ns)) == {wire.names.NAME_SERVER, "alive", "unreachable"}
        assert answered == {daemon.uri("echo")}
        server.clean({unreachable})
        assert set(wire.list_names(ns)) == {wire.names.NAME_SERVER, "alive"}


def test_cleaning_goes_on_in_the_background(daemon: wire.Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nameserver, "CLEAN_SECONDS", 0.05)
    server = wire.NameServerDaemon(port=0)
    server.start()
    ns = wire.find("127.0.0.1", server.port)
    wire.register(ns, "name", daemon.uri("echo"))
    daemon.stop()
    deadline = time.monotonic() + 10
    while wire.lookup(ns, "name") is not None:
        assert time.monotonic() < deadline
    server.stop()


@pytest.mark.parametrize("regex", ["(a+)+$", ".*", "(.*)*x", "["])
def test_regular_expressions_are_refused(ns: wire.Proxy, regex: str):
    with pytest.raises(NamingError, match="prefix"):
        ns.list(regex=regex)
    with pytest.raises(NamingError, match="one by one"):
        ns.remove(regex=regex)


def test_names_are_not_removed_wholesale(ns: wire.Proxy, daemon: wire.Daemon):
    wire.register(ns, "name", daemon.uri("echo"))
    for prefix in ("", "n", "Pyro"):
        with pytest.raises(NamingError, match="one by one"):
            ns.remove(prefix=prefix)
    with pytest.raises(NamingError, match="to remove"):
        ns.remove(wire.names.NAME_SERVER)
    assert len(wire.list_names(ns)) == 2


def test_what_it_holds_is_bounded(ns: wire.Proxy, monkeypatch: pytest.MonkeyPatch):
    uri = "PYRO:a@127.0.0.1:1"
    for bad in (lambda: ns.register("n" * 600, uri), lambda: ns.register("n", "PYRO:" + "a" * 600 + "@h:1")):
        with pytest.raises(NamingError, match="at most 512"):
            bad()
    with pytest.raises(NamingError, match="metadata"):
        ns.register("n", uri, metadata=["m"] * 100)
    with pytest.raises(NamingError, match="at most 512"):
        ns.register("n", uri, metadata=["m" * 600])
    with pytest.raises(Exception, match="uri"):
        ns.register("n", "not a uri")
    monkeypatch.setattr(nameserver, "MAX_NAMES", 3)
    ns.register("a", uri)
    ns.register("b", uri)
    with pytest.raises(NamingError, match="holds 3 names"):
        ns.register("c", uri)
    ns.register("b", uri)
    monkeypatch.setattr(nameserver, "MAX_NAMES", 10)
    monkeypatch.setattr(nameserver, "MAX_NAMES_OF_A_HOST", 3)
    ns.register("c", uri)
    with pytest.raises(NamingError, match="your host has 3 names"):
        ns.register("d", uri)
    ns.remove("c")
    ns.register("d", uri)
    assert ns.list(metadata_any=["class:Pyro4.naming.NameServer"]).keys() == {wire.names.NAME_SERVER}


def test_when_none_is_found_the_error_says_what_was_tried_and_what_helps(monkeypatch: pytest.MonkeyPatch):
    port = free_port()
    with pytest.raises(
        NamingError, match=rf"127.0.0.1:{port} .*refused.*distcorpus nameserver.*PYRO_NS_HOST"
    ):
        wire.find("127.0.0.1", port)
    monkeypatch.setattr(config, "NS_HOST", "127.0.0.1")
    monkeypatch.setattr(config, "NS_PORT", port)
    monkeypatch.setattr(config, "NS_BCPORT", free_port(socket.SOCK_DGRAM))
    monkeypatch.setattr(nameserver, "_BROADCAST_SECONDS", 0.01)
    with pytest.raises(NamingError, match=rf"{port} .*and a broadcast to port {config.NS_BCPORT} .no answer"):
        wire.find()


def test_waiting_finds_one_that_starts_later():
    port = free_port()
    found: list[wire.Proxy] = []
    waiting = threading.Thread(target=lambda: found.append(wire.find("127.0.0.1", port, wait=20)))
    waiting.start()
    server = wire.NameServerDaemon(port=port)
    server.start()
    waiting.join(20)
    assert found[0].count() == 1
    server.stop()


def test_waiting_can_be_interrupted():
    interrupt = threading.Event()
    threading.Timer(0.1, interrupt.set).start()
    start = time.monotonic()
    with pytest.raises(NamingError):
        wire.find("127.0.0.1", free_port(), wait=60, interrupt=interrupt)
    assert time.monotonic() - start < 10


def test_something_else_on_the_port_is_no_name_server(daemon: wire.Daemon):
    with pytest.raises(NamingError, match="no name server"):
        wire.find("127.0.0.1", daemon.port)


def test_it_is_found_by_broadcast(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "NS_BCPORT", free_port(socket.SOCK_DGRAM))
    monkeypatch.setattr(config, "NS_HOST", "127.0.0.1")
    monkeypatch.setattr(config, "NS_PORT", free_port())
    server = wire.NameServerDaemon("0.0.0.0", port=0, insecure=True)
    server.start()
    try:
        assert wire.find().count() == 1
    finally:
        server.stop()


def test_on_loopback_it_answers_no_broadcast(server: wire.NameServerDaemon):
    assert server.broadcasts is None


def test_its_stop_is_prompt_and_frees_the_port():
    server = wire.NameServerDaemon("0.0.0.0", port=0, broadcast=True, insecure=True)
    server.start()
    start = time.monotonic()
    server.stop()
    server.stop()
    assert time.monotonic() - start < 2
    wire.NameServerDaemon(port=server.port).stop()


def test_importing_loads_neither_gensim_nor_scipy():
    """And takes under 0.25 s: printed, for a loaded machine proves nothing."""
    program = (
        "import sys, time; start = time.perf_counter(); import distcorpus.wire; "
        "print(time.perf_counter() - start, *({'gensim', 'scipy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, *loaded = done.stdout.split()
    print(f"import distcorpus.wire: {seconds} s")
    assert loaded == []


def test_all_texts_together_have_a_limit(ns: wire.Proxy, monkeypatch: pytest.MonkeyPatch):
    """What they take in the memory, and in the answer to who asks for all."""
    monkeypatch.setattr(nameserver, "MAX_BYTES_OF_A_HOST", 5000)
    many = ["\U0001f600" * 500 + str(number) for number in range(16)]  # 32 kB
    with pytest.raises(NamingError, match="one host may register"):
        ns.register("heavy", dead_uri(), metadata=many)
    assert wire.lookup(ns, "heavy") is None
    ns.register("light", dead_uri(), metadata=["\ud800" * 500])
    with pytest.raises(NamingError, match="one host may register"):
        ns.set_metadata("light", many)
    assert ns.lookup("light", return_metadata=True)[1] == ["\ud800" * 500]
    for _ in range(9):  # in its own place it is counted once, and what is removed not at all
        ns.set_metadata("light", ["x" * 500] * 6)
        ns.register("another", dead_uri(), metadata=["x" * 500])
        ns.remove("another")
    monkeypatch.setattr(nameserver, "MAX_BYTES", 3500)
    with pytest.raises(NamingError, match="the name server holds"):
        ns.register("another", dead_uri(), metadata=["x" * 500])
    assert len(wire.list_names(ns)) == 2

"""Mutual TLS over real sockets: who is refused by whom, in what words, while others are served."""

from __future__ import annotations

import logging
import os
import pickle
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Pyro4 import message, util
from Pyro4.configuration import config
from Pyro4.errors import SecurityError

from distcorpus import wire
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.wire import certificates, names, roles, sockets, tls, transport
from distcorpus.worker.daemon import Worker

from .conftest import Echo, Peer, wait_until
from .test_attacks import Evil
from .test_nameserver import free_port

WORKER = names.worker("w1")

#: How OpenSSL's alerts for a peer's certificate are called.
CERTIFICATE_ALERTS = {
    "none": "CERTIFICATE_REQUIRED",
    "foreign": "UNKNOWN_CA",
    "expired": "CERTIFICATE_EXPIRED",
}


class Cluster:
    """Notes what was called of the objects of a cluster."""

    def __init__(self) -> None:
        self.called: list[str] = []

    @wire.expose
    def ping(self) -> str:
        self.called.append("ping")
        return "pong"

    @wire.expose
    def process(self, job: Any) -> Any:
        self.called.append("process")
        return job

    @wire.expose
    def begin(self, task: Any) -> None:
        self.called.append("begin")

    @wire.expose
    def worker_leaves(self, name: str, uri: str) -> None:
        self.called.append("worker_leaves")

    @wire.expose
    def snapshot(self) -> None:
        self.called.append("snapshot")

    @wire.expose
    def exit(self) -> None:
        self.called.append("exit")


class Rogue:
    """Credentials that are used as they are, however bad."""

    def __init__(self, folder: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / tls.CERTIFICATE, folder / tls.KEY)

    def server_context(self) -> ssl.SSLContext:
        return self._context


@contextmanager
def speaking(folder: Path | None) -> Iterator[None]:
    """Let this process connect with that folder's certificate."""
    undo = wire.use_tls(folder)
    try:
        yield
    finally:
        undo()


@contextmanager
def serving(
    folder: Path | None, *objects: tuple[str, Any], rogue: bool = False
) -> Iterator[tuple[wire.Daemon, list[str]]]:
    """A daemon with that folder's certificate; yields it and the URIs of what it serves."""
    good = wire.Credentials(folder) if folder is not None and not rogue else None
    daemon = wire.Daemon(credentials=good)
    if folder is not None and rogue:
        daemon.transportServer.credentials = Rogue(folder)
    uris = [daemon.serve(object_id, served) for object_id, served in objects]
    daemon.start()
    try:
        yield daemon, uris
    finally:
        daemon.stop()


@pytest.fixture(scope="session")
def bad(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates of a worker here that are not to be trusted, and a dispatcher's from elsewhere."""
    folder = tmp_path_factory.mktemp("bad")
    other = certificates.make_authority(folder / "other")
    hosts = ("127.0.0.1",)
    return {
        "expired": certificates.issue(authority, "worker", hosts, 1e-9, folder / "expired"),
        "foreign": certificates.issue(other, "worker", hosts, 1, folder / "foreign"),
        "elsewhere": certificates.issue(authority, "worker", ("elsewhere.test",), 1, folder / "elsewhere"),
        "client": certificates.issue(authority, "client", (), 1, folder / "client"),
    }


@pytest.fixture
def worker(credentials: dict[str, Path]) -> Iterator[tuple[wire.Daemon, str]]:
    """A worker's daemon with TLS that echoes."""
    with serving(credentials["worker"], (WORKER, Echo())) as (daemon, (uri,)):
        yield daemon, uri


def client_context(credentials: dict[str, Path], folder: Path | None) -> ssl.SSLContext:
    """What a peer without any code of ours has: Python's default, and a certificate, maybe."""
    context = ssl.create_default_context(cafile=str(credentials["client"] / tls.AUTHORITY))
    if folder is not None:
        context.load_cert_chain(folder / tls.CERTIFICATE, folder / tls.KEY)
    return context


def test_calls_travel_over_tls(credentials: dict[str, Path], worker: tuple[wire.Daemon, str]):
    _, uri = worker
    array = np.arange(5_000_000, dtype=np.float32)
    with speaking(credentials["dispatcher"]):
        for serializer in ("frames", "pickle"):
            proxy = wire.connect(uri, serializer=serializer, timeout=30)
            assert proxy._pyroConnection.sock.version() == "TLSv1.3"
            np.testing.assert_array_equal(proxy.echo(array), array)
            assert proxy.echo({"a": [1, None]}) == {"a": [1, None]}
        assert wire.connect(uri.replace("127.0.0.1", "localhost")).echo(1) == 1


@pytest.mark.parametrize("which", ["none", "foreign", "expired"])
def test_a_daemon_refuses_bad_certificates(
    which: str,
    credentials: dict[str, Path],
    bad: dict[str, Path],
    worker: tuple[wire.Daemon, str],
    caplog: pytest.LogCaptureFixture,
):
    daemon, uri = worker
    attacker = Peer("127.0.0.1", daemon.port, context=client_context(credentials, bad.get(which)))
    with pytest.raises(wire.ConnectionClosedError, match="peer") as refused:
        attacker.shake_hands(WORKER)
    assert CERTIFICATE_ALERTS[which] in refused.value.__cause__.reason
    reason = {"none": "has no certificate", "foreign": "ca.pem", "expired": "expired.*certs issue"}[which]
    wait_for_log(caplog, f"refused a connection from loopback: .*{reason}")
    with speaking(credentials["dispatcher"]):
        assert wire.connect(uri).echo(1) == 1


def wait_for_log(caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    wait_until(lambda: any(re.search(pattern, record.getMessage()) for record in list(caplog.records)), 20)


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("expired", "certificate has expired; renew it with 'distcorpus certs issue'"),
        ("foreign", "no authority that ca.pem lists"),
        ("elsewhere", "not valid for '127.0.0.1'.*--host"),
        ("client", "a client's certificate cannot serve"),
    ],
)
def test_our_client_refuses_bad_servers(
    which: str, reason: str, credentials: dict[str, Path], bad: dict[str, Path]
):
    with (
        serving(bad[which], (WORKER, Echo()), rogue=True) as (_, (uri,)),
        speaking(credentials["dispatcher"]),
        pytest.raises(wire.CommunicationError, match=reason),
    ):
        wire.connect(uri)


STOCK_CLIENT = """
import sys, Pyro4
from Pyro4 import config
config.SSL = True
config.SSL_CACERTS, config.SSL_CLIENTCERT, config.SSL_CLIENTKEY = sys.argv[2:]
try:
    print(Pyro4.Proxy(sys.argv[1]).echo(5))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("expired", "certificate has expired"),
        ("foreign", "certificate verify failed"),
        ("elsewhere", "not valid for '127.0.0.1'"),
        ("client", "unsuitable certificate purpose"),
    ],
)
def test_so_do_clients_that_have_never_heard_of_us(
    which: str,
    reason: str,
    credentials: dict[str, Path],
    bad: dict[str, Path],
    stock_python: Callable[..., str],
):
    files = tls.stock_variables(credentials["client"])
    with serving(bad[which], (names.LDA_DISPATCHER, Echo()), rogue=True) as (_, (uri,)):
        printed = stock_python(STOCK_CLIENT, uri, *list(files.values())[2:])
    assert reason in printed


def test_a_client_that_has_never_heard_of_us_is_served(
    credentials: dict[str, Path], stock_python: Callable[..., str]
):
    files = tls.stock_variables(credentials["client"])
    with serving(credentials["dispatcher"], (names.LDA_DISPATCHER, Echo())) as (_, (uri,)):
        assert stock_python(STOCK_CLIENT, uri, *list(files.values())[2:]) == "5\n"


@pytest.mark.parametrize("serializer", ["frames", "pickle"])
def test_who_answers_has_to_have_the_role_for_it(credentials: dict[str, Path], serializer: str):
    objects = [(object_id, Cluster()) for object_id in (WORKER, names.DISPATCHER, "anything.else")]
    with serving(credentials["worker"], *objects) as (_, uris), speaking(credentials["client"]):
        with pytest.raises(
            wire.CommunicationError, match=r"certificate of role worker.*by a dispatcher only"
        ):
            wire.connect(uris[1], serializer=serializer)
        with pytest.raises(wire.CommunicationError, match="no cluster has an object of that name"):
            wire.connect(uris[2], serializer=serializer)
        proxy = wire.connect(uris[0], serializer=serializer)
        # Nor when a proxy connects again, by itself.
        proxy._pyroUri = type(proxy._pyroUri)(uris[1])
        proxy._pyroRelease()
        with pytest.raises(wire.CommunicationError, match="by a dispatcher only"):
            proxy.ping()


def test_pyros_own_variables_are_enough_with_us_too(credentials: dict[str, Path]):
    """And who answers is checked nevertheless."""
    program = (
        "import sys; from distcorpus import wire\n"
        "for uri in sys.argv[1:]:\n"
        "    try: print(wire.connect(uri).echo(5))\n"
        "    except wire.CommunicationError as error: print(error)"
    )
    objects = ((WORKER, Echo()), (names.LDA_MODELS, Echo()))
    with serving(credentials["worker"], *objects) as (_, uris):
        done = subprocess.run(
            [sys.executable, "-c", program, *uris],
            env={**os.environ, **tls.stock_variables(credentials["dispatcher"])},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    answer, refusal = done.stdout.splitlines()
    assert answer == "5"
    assert "role worker" in refusal


def test_a_plain_peer_of_a_daemon_with_tls_is_told(
    credentials: dict[str, Path], worker: tuple[wire.Daemon, str], caplog: pytest.LogCaptureFixture
):
    _, uri = worker
    with speaking(None), pytest.raises(wire.CommunicationError, match=r"speaks TLS only.*DISTCORPUS_TLS"):
        wire.connect(uri)
    wait_for_log(caplog, "refused a connection from loopback: it speaks no TLS")
    with speaking(credentials["dispatcher"]):
        assert wire.connect(uri).echo(1) == 1


def test_a_tls_peer_of_a_plain_daemon_is_told(credentials: dict[str, Path]):
    with serving(None, (WORKER, Echo())) as (_, (uri,)):
        with (
            speaking(credentials["dispatcher"]),
            pytest.raises(wire.CommunicationError, match=r"speaks no TLS: start it with --tls"),
        ):
            wire.connect(uri)
        assert wire.connect(uri).echo(1) == 1


def test_silent_peers_stop_nobody(
    credentials: dict[str, Path], worker: tuple[wire.Daemon, str], monkeypatch: pytest.MonkeyPatch
):
    daemon, uri = worker
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 1.0)
    with ExitStack() as stack, speaking(credentials["dispatcher"]):
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=20))
            for _ in range(30)
        ]
        for sock in silent[:10]:
            sock.sendall(b"\x16")
        for sock in silent[10:20]:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        wait_until(lambda: len(daemon.transportServer._threads) >= len(silent))
        monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 20.0)  # for those who mean it
        assert wire.connect(uri).echo(1) == 1
        for sock in silent:
            assert sock.recv(100) == b""


def test_what_is_no_handshake_stops_nobody(credentials: dict[str, Path], worker: tuple[wire.Daemon, str]):
    daemon, uri = worker
    for garbage in (b"\x16" + b"\xff" * 1000, b"GET / HTTP/1.0\r\n\r\n" * 5, b"\x16\x03\x01\x00\x00"):
        attacker = Peer("127.0.0.1", daemon.port)
        attacker.sock.sendall(garbage)
        attacker.wait_for_end()
    with speaking(credentials["dispatcher"]):
        assert wire.connect(uri).echo(1) == 1


def test_a_connection_that_is_shut_sends_nothing_in_the_clear(
    credentials: dict[str, Path], worker: tuple[wire.Daemon, str]
):
    daemon, _ = worker
    peer = Peer("127.0.0.1", daemon.port, context=client_context(credentials, credentials["dispatcher"]))
    sockets.shut(peer.sock)
    with pytest.raises(wire.ConnectionClosedError):
        sockets.send_data(peer.sock, b"secret")
    assert peer.sock.version() == "TLSv1.3"


# Who may call what.

CALLS = [
    # object, served by, method, arguments, who may
    (WORKER, "worker", "process", ({},), {"dispatcher"}),
    (WORKER, "worker", "exit", (), {"dispatcher"}),
    (names.LDA_MODELS, "dispatcher", "begin", ({},), {"client"}),
    (names.LSI_DISPATCHER, "dispatcher", "exit", (), {"client"}),
    (names.DISPATCHER, "dispatcher", "exit", (), {"client", "dispatcher"}),
    (names.DISPATCHER, "dispatcher", "worker_leaves", ("w", "u"), {"worker"}),
    (names.DISPATCHER, "dispatcher", "snapshot", (), {"client", "dispatcher", "viewer"}),
]


@pytest.mark.parametrize(("object_id", "served_by", "method", "arguments", "may"), CALLS)
@pytest.mark.parametrize("serializer", ["frames", "pickle"])
def test_roles_decide_who_calls(
    object_id: str,
    served_by: str,
    method: str,
    arguments: tuple[Any, ...],
    may: set[str],
    serializer: str,
    credentials: dict[str, Path],
):
    served = Cluster()
    with serving(credentials[served_by], (object_id, served)) as (_, (uri,)):
        for role in roles.ROLES:
            served.called.clear()
            with speaking(credentials[role]):
                proxy = wire.connect(uri, serializer=serializer)
                if role in may:
                    getattr(proxy, method)(*arguments)
                else:
                    with pytest.raises(SecurityError, match=f"certificate's role is {role}"):
                        getattr(proxy, method)(*arguments)
            assert served.called == ([method] if role in may else [])


def test_arguments_of_a_forbidden_call_are_not_read(credentials: dict[str, Path], tmp_path: Path):
    served = Cluster()
    with serving(credentials["worker"], (WORKER, served)) as (daemon, _):
        attacker = Peer("127.0.0.1", daemon.port, context=client_context(credentials, credentials["client"]))
        attacker.shake_hands(WORKER)
        answer = attacker.ask(pickle.dumps((WORKER, "process", (Evil(tmp_path / "witness"),), {})))
        assert "dispatcher may call that" in str(answer)
        assert attacker.wait_for_end() == b""
    assert served.called == []


@pytest.mark.parametrize(
    "flags", [0, message.FLAGS_BATCH, message.FLAGS_ONEWAY, message.FLAGS_BATCH | message.FLAGS_ONEWAY]
)
@pytest.mark.parametrize(
    "call",
    [
        # A pickle that begins with an allowed call, drops it, and goes on with another.
        b"\x80\x02"
        + b"X\x15\x00\x00\x00distcorpus.dispatcher"
        + b"X\x0d\x00\x00\x00worker_leaves"
        + b"00"
        + pickle.dumps((names.DISPATCHER, "exit", (), {}), 2)[2:],
        pickle.dumps((names.DISPATCHER, "worker_leaves", [("exit", (), {})], None), 2),
        pickle.dumps((names.DISPATCHER, "__getattr__", ("exit",), {}), 2),
        pickle.dumps((names.DISPATCHER, "<batch>", [("exit", (), {})], None), 2),
        pickle.dumps([names.DISPATCHER, "worker_leaves", ("a", "b"), {}], 2),
        b"\x80\x02]q\x00.",
        b"\x80\x02X\xff\xff\xff\x7fworker_leaves",
    ],
)
def test_no_trick_hides_what_is_called(credentials: dict[str, Path], call: bytes, flags: int):
    served = Cluster()
    with serving(credentials["dispatcher"], (names.DISPATCHER, served)) as (daemon, _):
        attacker = Peer("127.0.0.1", daemon.port, context=client_context(credentials, credentials["worker"]))
        attacker.shake_hands(names.DISPATCHER)
        attacker.send(message.MSG_INVOKE, call, flags=flags)
        attacker.wait_for_end()
    assert served.called == []


def test_batches_are_not_served_without_tls_either():
    served = Cluster()
    with serving(None, (names.DISPATCHER, served)) as (daemon, _):
        attacker = Peer("127.0.0.1", daemon.port)
        attacker.shake_hands(names.DISPATCHER)
        call = pickle.dumps((names.DISPATCHER, "ping", [("exit", (), {})], None))
        assert isinstance(attacker.ask(call, flags=8), TypeError)
    assert served.called == []


def test_the_table_knows_every_exposed_method():
    """One that is forgotten there could not be called by anybody."""
    objects = {
        names.NAME_SERVER: wire.NameServer,
        names.DISPATCHER: Dispatcher,
        WORKER: Worker,
    }
    for object_id, cls in objects.items():
        exposed = set(util.get_exposed_members(cls, only_exposed=True)["methods"])
        allowed = {
            method for method in exposed if any(may_call(role, object_id, method) for role in roles.ROLES)
        }
        assert allowed == exposed
    assert not may_call("client", names.DISPATCHER, "anything_else")
    assert not may_call("dispatcher", "anything.else", "ping")


def may_call(role: str, object_id: str, method: str) -> bool:
    try:
        roles.check_call(role, object_id, method)
    except SecurityError:
        return False
    return True


# The name server.


@pytest.fixture
def server(credentials: dict[str, Path]) -> Iterator[wire.NameServerDaemon]:
    server = wire.NameServerDaemon(port=0, credentials=wire.Credentials(credentials["nameserver"]))
    server.start()
    yield server
    server.stop()


def test_only_the_right_role_has_a_name(credentials: dict[str, Path], server: wire.NameServerDaemon):
    alive = f"PYRO:x@127.0.0.1:{server.port}"
    for role, name, may in [
        ("worker", WORKER, True),
        ("dispatcher", names.LDA_DISPATCHER, True),
        ("client", WORKER, False),
        ("client", names.DISPATCHER, False),
        ("worker", names.LDA_DISPATCHER, False),
        ("dispatcher", WORKER, False),
        ("worker", "anything.else", False),
        ("nameserver", names.NAME_SERVER, False),
        ("dispatcher", names.NAME_SERVER, False),
    ]:
        with speaking(credentials[role]):
            ns = wire.find("127.0.0.1", server.port)
            if may:
                wire.register(ns, name, alive)
                assert wire.lookup(ns, name) == alive
                continue
            for method, argument in (
                ("register", "PYRO:evil@127.0.0.1:1"),
                ("remove", None),
                ("set_metadata", ["evil"]),
            ):
                ns = wire.find("127.0.0.1", server.port)  # a refusal ends the connection
                with pytest.raises(SecurityError, match=f"this certificate's role is {role}"):
                    getattr(ns, method)(*[name, argument][: 2 if argument else 1])
    with speaking(credentials["client"]):
        ns = wire.find("127.0.0.1", server.port)
        assert set(wire.list_names(ns)) == {names.NAME_SERVER, WORKER, names.LDA_DISPATCHER}


def test_the_right_role_replaces_what_is_alive(credentials: dict[str, Path], server: wire.NameServerDaemon):
    with speaking(credentials["dispatcher"]):
        ns = wire.find("127.0.0.1", server.port)
        old, new = (f"PYRO:{name}@127.0.0.1:{server.port}" for name in ("old", "new"))
        wire.register(ns, names.DISPATCHER, old)
        with pytest.raises(wire.NamingError, match="already registered"):
            wire.register(ns, names.DISPATCHER, new)
        wire.register(ns, names.DISPATCHER, new, replace=True)
        assert wire.lookup(ns, names.DISPATCHER) == new
        assert wire.unregister(ns, names.DISPATCHER, new)


def test_only_a_name_server_is_asked_for_names(credentials: dict[str, Path]):
    with (
        serving(credentials["worker"], (names.NAME_SERVER, Cluster())) as (daemon, _),
        speaking(credentials["client"]),
        pytest.raises(wire.NamingError, match=r"role worker.*served by a nameserver only"),
    ):
        wire.find("127.0.0.1", daemon.port)


def test_the_name_in_the_certificate_is_what_a_broadcast_is_answered_with(
    authority: Path, credentials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An address that it does not name would be refused."""
    folder = certificates.issue(authority, "nameserver", ["localhost"], 20, tmp_path / "ns")
    monkeypatch.setattr(config, "NS_BCPORT", free_port(socket.SOCK_DGRAM))
    monkeypatch.setattr(config, "NS_HOST", "localhost")
    monkeypatch.setattr(config, "NS_PORT", free_port())
    server = wire.NameServerDaemon("0.0.0.0", 0, credentials=wire.Credentials(folder))
    server.start()
    try:
        with speaking(credentials["client"]):
            assert wire.find().count() == 1
    finally:
        server.stop()


# Credentials.


@pytest.fixture
def folder(authority: Path, tmp_path: Path) -> Path:
    """A worker's certificate that a test may harm."""
    return certificates.issue(authority, "worker", ["127.0.0.1"], 20, tmp_path / "own")


def serial(proxy: Any) -> str:
    return str(proxy._pyroConnection.sock.getpeercert()["serialNumber"])


def test_renewed_certificates_are_used_at_once(
    authority: Path, credentials: dict[str, Path], folder: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    with serving(folder, (WORKER, Echo())) as (_, (uri,)), speaking(credentials["dispatcher"]):
        first = wire.connect(uri)
        certificates.issue(authority, "worker", ["127.0.0.1"], 20, folder)
        second = wire.connect(uri)
        assert serial(second) != serial(first)
        assert first.echo(1) == second.echo(1) == 1
        # Half a copy: what was read before serves on.
        (folder / tls.CERTIFICATE).write_text("not yet")
        assert serial(wire.connect(uri)) == serial(second)
        assert "stays in use" in caplog.text
        shutil.rmtree(folder)
        assert serial(wire.connect(uri)) == serial(second)
        certificates.issue(authority, "worker", ["127.0.0.1"], 20, folder)
        assert serial(wire.connect(uri)) not in (serial(first), serial(second))


def test_a_caller_uses_its_renewed_certificate(authority: Path, tmp_path: Path, credentials: dict[str, Path]):
    folder = certificates.issue(authority, "client", (), 1, tmp_path / "client")
    with serving(credentials["dispatcher"], (names.LDA_DISPATCHER, Echo())) as (_, (uri,)), speaking(folder):
        assert wire.connect(uri).echo(1) == 1
        certificates.issue(authority, "worker", ["127.0.0.1"], 1, folder)
        with pytest.raises(SecurityError, match="role is worker"):
            wire.connect(uri).echo(1)


def test_two_authorities_can_be_trusted_while_one_follows_the_other(
    authority: Path, credentials: dict[str, Path], folder: Path, tmp_path: Path
):
    new = certificates.make_authority(tmp_path / "new")
    caller = certificates.issue(new, "dispatcher", ["127.0.0.1"], 1)
    with serving(folder, (WORKER, Echo())) as (_, (uri,)), speaking(caller):
        both = (authority / tls.AUTHORITY).read_bytes() + (new / tls.AUTHORITY).read_bytes()
        for node in (folder, caller):
            with pytest.raises(wire.CommunicationError):
                wire.connect(uri)
            (node / tls.AUTHORITY).write_bytes(both)
        assert wire.connect(uri).echo(1) == 1


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder, other: (folder / "key.pem").unlink(), "key.pem is missing.*certs issue"),
        (lambda folder, other: (folder / "cert.pem").write_text("x"), "no certificate, or do not belong"),
        (lambda folder, other: shutil.copy(other / "key.pem", folder), "no certificate, or do not belong"),
        (lambda folder, other: shutil.copy(other / "ca.pem", folder), "no authority that ca.pem lists"),
        (lambda folder, other: shutil.rmtree(folder), "ca.pem is missing.*certs issue"),
    ],
)
def test_bad_files_are_named(folder: Path, bad: dict[str, Path], harm: Callable[..., Any], reason: str):
    harm(folder, bad["foreign"])
    with pytest.raises(ValueError, match=reason):
        wire.Credentials(folder).check_role("worker")
    with speaking(folder), pytest.raises(wire.CommunicationError, match=reason):
        wire.connect("PYRO:x@127.0.0.1:1")


def test_credentials_are_for_one_role_and_some_hosts(folder: Path, bad: dict[str, Path], authority: Path):
    own = wire.Credentials(folder)
    with pytest.raises(ValueError, match=r"holds a worker's certificate.*--role dispatcher"):
        own.check_role("dispatcher")
    with pytest.raises(ValueError, match=r"is for 127.0.0.1,.*at localhost.*--advertise"):
        wire.Daemon("localhost", credentials=own)
    with pytest.raises(ValueError, match=r"10\.1\.2\.3"):
        wire.Daemon(credentials=own, advertise="10.1.2.3")
    with pytest.raises(ValueError, match="has expired"):
        wire.Credentials(bad["expired"]).check_role("worker")
    many = certificates.issue(authority, "worker", ["*.rack.test", "n1.test", "10.1.2.3"], 1, folder)
    named = wire.Credentials(many)
    assert named.name_for("10.1.2.3") == "10.1.2.3"
    assert named.name_for("10.9.9.9") == "n1.test"
    daemon = wire.Daemon(credentials=named, advertise="n7.rack.test")
    assert daemon.location == f"n7.rack.test:{daemon.port}"
    daemon.stop()


def test_on_all_addresses_a_name_of_the_certificate_is_advertised(authority: Path, tmp_path: Path):
    folder = certificates.issue(authority, "worker", ["n1.test"], 1, tmp_path / "n1")
    daemon = wire.Daemon("0.0.0.0", credentials=wire.Credentials(folder))
    assert daemon.location == f"n1.test:{daemon.port}"
    daemon.stop()


def test_a_key_that_others_can_read_is_refused(
    authority: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = certificates.issue(authority, "client", (), 3, tmp_path / "open")
    loaded = wire.Credentials(folder)
    loaded.client_context()
    for mode in (0o644, 0o640, 0o604, 0o602, 0o660):
        (folder / tls.KEY).chmod(mode)
        with pytest.raises(ValueError, match=rf"{mode:04o}.*chmod 600 .*key\.pem"):
            wire.Credentials(folder).client_context()
    for mode in (0o600, 0o400):
        (folder / tls.KEY).chmod(mode)
        wire.Credentials(folder).client_context()
    # What was read before stays in use when the key is replaced by one that others can read.
    certificates.issue(authority, "client", (), 30, folder)
    (folder / tls.KEY).chmod(0o644)
    loaded.client_context()
    assert "chmod 600" in caplog.text


def test_what_expires_soon_is_warned_of(authority: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = certificates.issue(authority, "client", (), 3, tmp_path / "short")
    short = wire.Credentials(folder)
    for _ in range(3):
        short.client_context()
    assert caplog.text.count("expires in 3.0 days: renew it") == 1
    caplog.clear()
    certificates.issue(authority, "client", (), 30, folder)
    short.client_context()
    assert "expires" not in caplog.text


def test_an_authority_and_its_certificates_are_for_their_owner_alone(authority: Path, folder: Path):
    for path in (authority, folder):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (authority / certificates.AUTHORITY_KEY, folder / tls.KEY):
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    with pytest.raises(FileExistsError, match="worthless"):
        certificates.make_authority(authority)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("worker",), "give --host"),
        (("client", ["a"]), "drop --host"),
        (("king", ["a"]), "the roles are"),
        (("worker", ["a:9090"]), "without a port"),
        (("worker", ["http://a"]), "without a port"),
        (("worker", ["a"], 0), "days"),
        (("worker", ["a"], float("nan")), "days"),
    ],
)
def test_what_cannot_be_issued_is_said(authority: Path, arguments: tuple[Any, ...], reason: str):
    with pytest.raises(ValueError, match=reason):
        certificates.issue(authority, *arguments)


def test_an_authority_that_is_none_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="certs init"):
        certificates.issue(tmp_path, "client")


def test_no_certificate_outlives_its_authority(tmp_path: Path):
    short = certificates.make_authority(tmp_path / "short", 2)
    assert wire.Credentials(certificates.issue(short, "client")).expires < time.time() + 3 * 86400


def test_without_the_library_the_error_names_the_extra():
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from distcorpus.cli import main; main(['certs', 'init', '/nowhere'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "pip install 'distcorpus[tls]'" in done.stderr
    assert "Traceback" not in done.stderr


# Loopback unless told otherwise.


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "", "192.0.2.1", "example.org", "127.example.org"])
def test_without_tls_a_daemon_stays_on_this_machine(bind: str):
    with pytest.raises(ValueError, match=r"without TLS(?s:.*)certs init(?s:.*)--tls(?s:.*)--insecure"):
        wire.Daemon(bind)


def test_unless_it_is_told_to_and_says_so_each_time(caplog: pytest.LogCaptureFixture):
    for times in (1, 2):
        wire.Daemon("0.0.0.0", insecure=True).stop()
        assert caplog.text.count("listening on 0.0.0.0 without TLS: whoever reaches the port") == times
    wire.Daemon(insecure=True).stop()
    assert caplog.text.count("without TLS") == 2

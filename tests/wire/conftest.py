"""A daemon of ours to attack and to use, and a peer that says whatever it likes."""

from __future__ import annotations

import pickle
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from Pyro4 import message, socketutil
from Pyro4.message import Message

from distcorpus import wire

PICKLE = 4


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for a condition; the test fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@wire.expose
class Echo:
    """Answers with what it was called with, and remembers how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def echo(self, value: Any) -> Any:
        self.calls += 1
        return value

    def divide(self, a: float, b: float) -> float:
        return a / b


class Peer:
    """A client that writes its messages by hand."""

    def __init__(
        self,
        host: str,
        port: int,
        source: tuple[str, int] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.sock = socket.create_connection((host, port), timeout=20, source_address=source)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname=host)
        self.connection = socketutil.SocketConnection(self.sock)

    def send(
        self, kind: int, data: bytes, serializer: int = PICKLE, flags: int = 0, **annotations: bytes
    ) -> None:
        self.sock.sendall(Message(kind, data, serializer, flags, 0, annotations=annotations).to_bytes())

    def receive(self) -> Message:
        return Message.recv(self.connection)

    def wait_for_end(self) -> bytes:
        """Send no more, and read until the daemon has closed the connection too."""
        received = b""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            while part := self.sock.recv(4096):
                received += part
        return received

    def shake_hands(self, object_id: str = "echo") -> None:
        self.send(message.MSG_CONNECT, pickle.dumps({"handshake": "hello", "object": object_id}))
        assert self.receive().type == message.MSG_CONNECTOK

    def ask(self, data: bytes, flags: int = 0, serializer: int = PICKLE, **annotations: bytes) -> Any:
        """Send a call and read the (harmless) answer, which stock pickle does."""
        self.send(message.MSG_INVOKE, data, serializer, flags, **annotations)
        return pickle.loads(self.receive().data)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def daemon(echo: Echo) -> Iterator[wire.Daemon]:
    daemon = wire.Daemon()
    daemon.serve("echo", echo)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def peer(daemon: wire.Daemon) -> Iterator[Peer]:
    peer = Peer("127.0.0.1", daemon.port)
    yield peer
    peer.sock.close()


@pytest.fixture
def stock_python(tmp_path: Path) -> Callable[..., str]:
    """Runs a program in another process that has Pyro4 but not us; returns what it prints."""

    def run(program: str, *arguments: str) -> str:
        guard = "import sys; sys.modules['distcorpus'] = None\n"
        environment = {"PYRO_SERIALIZER": "pickle", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", guard + program, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run

"""Our socket server for Pyro4's daemon: a thread a connection, a deadline for handshakes, and a prompt end.

Pyro4's own hands connections to a pool and answers those that do not fit in the thread that accepts, where
one silent peer stops all others; closing it waits for each idle connection in turn.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from Pyro4 import socketutil
from Pyro4.configuration import config
from Pyro4.errors import CommunicationError, MessageTooLargeError, SecurityError

from distcorpus.wire import sockets

HANDSHAKE_SECONDS = 5.0
HANDSHAKE_BYTES = 1 << 16
MAX_CONNECTIONS = 4096
# Connections over the limit that are told so; further ones are closed without a word.
_MAX_REFUSALS = 32
_POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


class Connection(socketutil.SocketConnection):
    """One accepted connection.

    Attributes
    ----------
    sock : socket.socket
    idle : bool
        No call of this connection is being received, computed or answered.
    size_limit : int or None
        The most bytes that are received at once; small until the peer has shaken hands.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.idle = False
        self.size_limit: int | None = HANDSHAKE_BYTES

    def recv(self, size: int) -> Any:
        if self.size_limit is not None and size > self.size_limit:
            raise MessageTooLargeError(f"a handshake of {size} bytes is too large")
        data = super().recv(size)
        self.idle = False
        return data


class Transport:
    """The socket server; its public methods are those that Pyro4's daemon calls."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS) -> None:
        self.max_connections = max_connections
        self.grace = 1.0
        self.sock: Any = None
        self.locationStr = ""
        self._daemon: Any = None
        self._lock = threading.Lock()
        self._closing = False
        self._threads: dict[Connection, threading.Thread] = {}
        self._deadlines: dict[Connection, float] = {}  # of handshakes, earliest first
        self._waker: socket.socket | None = None

    def init(self, daemon: Any, host: str, port: int, unixsocket: str | None = None) -> None:
        self._daemon = daemon
        try:
            self.sock = socketutil.createSocket(
                bind=(host, port), reuseaddr=config.SOCK_REUSE, timeout=None, noinherit=True, nodelay=True
            )
        except OSError as error:
            self.close()
            raise OSError(
                error.errno,
                f"cannot listen on {sockets.format_address(host, port)}: {error.strerror or error}",
            ) from error
        self.sock.listen(1024)
        self.sock.setblocking(False)
        self.locationStr = sockets.format_address(host, self.sock.getsockname()[1])

    def loop(self, loopCondition: Any = lambda: True) -> None:
        woken, waker = socket.socketpair()
        with woken, waker, selectors.DefaultSelector() as selector:
            with self._lock:
                if self._closing:
                    return
                self._waker = waker
                selector.register(self.sock, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not self._closing and loopCondition():
                ready = selector.select(self._seconds_to_next_deadline())
                if any(key.fileobj is self.sock for key, _ in ready):
                    self._accept()
                self._drop_overdue()

    def close(self) -> None:
        """Stop accepting; end idle connections now, the others when they have answered, or after `grace`."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            threads = dict(self._threads)
            if self._waker is not None:
                with suppress(OSError):
                    self._waker.send(b"!")
            if self.sock is not None:
                self.sock.close()
        for connection in threads:
            if connection.idle or connection.size_limit is not None:
                sockets.shut(connection.sock)
        deadline = time.monotonic() + self.grace
        for connection, thread in threads.items():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    sockets.shut(connection.sock)

    shutdown = close

    def _accept(self) -> None:
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if not self._closing:
                log.warning("cannot accept connections: %s", error)
                time.sleep(0.05)  # out of files, say: the connection stays queued, and select returns at once
            return
        sock.settimeout(None)
        connection = Connection(sock)
        with self._lock:
            count = len(self._threads)
            refused = count >= self.max_connections
            if self._closing or count >= self.max_connections + _MAX_REFUSALS:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection, refused), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("refused a connection: %s", error)
                connection.close()
                return
            self._threads[connection] = thread
            self._deadlines[connection] = time.monotonic() + HANDSHAKE_SECONDS

    def _serve(self, connection: Connection, refused: bool) -> None:
        try:
            reason = f"this daemon already has {self.max_connections} connections" if refused else None
            if not self._daemon._handshake(connection, denied_reason=reason):
                return
            connection.size_limit = None
            with self._lock:
                self._deadlines.pop(connection, None)
            try:
                while self._may_wait(connection):
                    self._daemon.handleRequest(connection)
            finally:
                self._daemon._clientDisconnect(connection)
        except (OSError, CommunicationError, SecurityError) as error:
            log.debug("connection ended: %s", error)
        except Exception as error:
            log.warning("connection ended by %s: %s", type(error).__name__, error)
        finally:
            self._forget(connection)

    def _may_wait(self, connection: Connection) -> bool:
        with self._lock:
            connection.idle = not self._closing
            return connection.idle

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._deadlines.pop(connection, None)
            self._threads.pop(connection, None)

    def _seconds_to_next_deadline(self) -> float:
        with self._lock:
            deadline = next(iter(self._deadlines.values()), None)
        if deadline is None:
            return _POLL_SECONDS
        return min(_POLL_SECONDS, max(0.0, deadline - time.monotonic()))

    def _drop_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection, deadline in self._deadlines.items() if deadline <= now]
            for connection in overdue:
                del self._deadlines[connection]
        for connection in overdue:
            sockets.shut(connection.sock)

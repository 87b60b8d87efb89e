"""Our socket server for Pyro4's daemon: a thread a connection, and no peer that can stop the others.

Pyro4's own hands connections to a pool and answers those that do not fit in the thread that accepts, where
one silent peer stops all others; closing it waits for each idle connection in turn.

Between messages a peer may be silent as long as it likes. A handshake, and a message that has begun, has to
get on. What all peers together may take is limited, and where a limit is reached, the peer that has taken the
most of it pays.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from Pyro4 import socketutil
from Pyro4.configuration import config
from Pyro4.core import current_context
from Pyro4.errors import ConnectionClosedError, MessageTooLargeError, PyroError, SecurityError
from Pyro4.message import Message

from distcorpus.wire import roles, sockets, tls
from distcorpus.wire.refusals import Refusals

HANDSHAKE_SECONDS = 5.0
HANDSHAKE_BYTES = 1 << 16
#: Connections that may be in their handshake at once; beyond, the greediest peer's oldest is dropped.
MAX_HANDSHAKES = 512
MAX_CONNECTIONS = 4096
#: Of the connections, those that one peer may have (see `sockets.peer_group`): the others' reserve.
MAX_CONNECTIONS_OF_A_PEER = 2048
#: Bytes of messages that are arriving or being answered, and of their answers; beyond, the slowest message or
#: answer of the greediest peer is dropped.
MAX_BYTES_UNDER_WAY = 4 << 30
#: A message that gets on more slowly than this, after a respite, is given up, and its connection with it.
STALL_SECONDS = 30.0
SLOWEST_BYTES_A_SECOND = 1 << 18
# Connections over a limit that are told so; further ones are closed without a word.
_MAX_REFUSALS = 32
_POLL_SECONDS = 1.0
_SCRATCH_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Connection(socketutil.SocketConnection):
    """One accepted connection.

    Attributes
    ----------
    sock : socket.socket
    peer : str
        Whom it is put down to, see `sockets.peer_group`.
    idle : bool
        No call of this connection is being received, computed or answered.
    idle_since : float
        When (on the monotonic clock) that began.
    shaken : bool
        The peer has shaken hands.
    deadline : float or None
        When (on the monotonic clock) what is being received or sent is given up.
    arriving, sending : bool
        A message of it is; an answer to it is.
    waiting : bool
        What came was refused, and the answer waits.
    nbytes : int
        Bytes of the message under way, of what has been made of it, and of its answer.
    seq, serializer_id : int
        Of the latest message.
    role : str or None
        What the peer's certificate is for; None without TLS.
    dropped : bool
        It has been shut, for it took what others need.
    """

    def __init__(self, sock: socket.socket, peer: str, transport: Transport) -> None:
        super().__init__(sock)
        self.peer = peer
        self.idle = False
        self.idle_since = 0.0
        self.shaken = False
        self.deadline: float | None = time.monotonic() + HANDSHAKE_SECONDS
        self.arriving = self.sending = False
        self.waiting = False
        self.nbytes = 0
        self.seq = self.serializer_id = 0
        self.role: str | None = None
        self.dropped = False
        self._transport = transport
        self._began = 0.0
        self._cpu_began = 0.0
        self._sending_began = 0.0
        self._sent = 0

    @property
    def speed(self) -> float:
        """Bytes a second of the message that is arriving, or of the answer that is being sent."""
        began, nbytes = (self._sending_began, self._sent) if self.sending else (self._began, self.nbytes)
        return nbytes / max(time.monotonic() - began, 1e-9)

    def idle_seconds(self) -> float:
        """Return for how long no call has come; 0 where one is being received, computed or answered."""
        return time.monotonic() - self.idle_since if self.idle else 0.0

    def recv(self, size: int) -> Any:
        """Receive a part of a message: its header, its annotations or its data."""
        if not self.shaken:
            if size > HANDSHAKE_BYTES:
                raise MessageTooLargeError(f"a handshake of {size} bytes is too large")
            return super().recv(size)
        if self.idle:
            return self._receive_header(size)
        self.arriving = True
        data = sockets.receive_data(self.sock, size, self._expect)
        self.arriving = False
        self.deadline = None
        return data

    def send(self, data: Any) -> None:
        """Send an answer, which counts as bytes under way until all of it is sent."""
        if not self.shaken:
            super().send(data)
            return
        self._set_deadline(len(data))
        self._transport.make_room(self, len(data))
        if self.dropped:
            raise ConnectionClosedError("an answer was dropped: too many bytes are under way in this daemon")
        self._sending_began, self._sent, self.sending = time.monotonic(), 0, True
        try:
            sockets.send_data(self.sock, data, self._gets_on)
        finally:
            self.sending = False

    def _gets_on(self, nbytes: int) -> None:
        self._sent += nbytes

    def account(self, nbytes: int) -> None:
        """Count bytes that are about to be made of this connection's message as if they arrived.

        Raises
        ------
        SecurityError
            There is no room for them: the connection has been dropped.
        """
        self._transport.make_room(self, nbytes)
        if self.dropped:
            raise SecurityError("refused a message: too many bytes are under way in this daemon")

    def count_refusal(self, reason: str) -> None:
        """Count a call that this peer may not make."""
        self._transport.refused[reason] += 1

    def await_refusal(self) -> None:
        """Wait, in this connection's thread, until what it sent last may be answered by a refusal."""
        refusals = self._transport.refusals
        with refusals.refusing(self.peer, time.thread_time() - self._cpu_began) as seconds:
            if seconds:
                self.waiting = True
                sockets.wait_gone(self.sock, seconds)
                self.waiting = False

    def discard(self, size: int) -> None:
        """Receive `size` bytes and forget them."""
        scratch = bytearray(_SCRATCH_BYTES)
        while size > 0:
            self._set_deadline(_SCRATCH_BYTES)
            count = self.sock.recv_into(scratch, min(size, _SCRATCH_BYTES))
            if not count:
                raise ConnectionClosedError("the peer left in mid-message")
            size -= count

    def _receive_header(self, size: int) -> Any:
        sockets.wait_readable(self.sock)
        if self._transport.closing:
            raise ConnectionClosedError("this daemon is ending")
        data = super().recv(size)
        self.idle = False
        self._began = time.monotonic()
        self._cpu_began = time.thread_time()
        header = Message.from_header(data)
        self.seq, self.serializer_id = header.seq, header.serializer_id
        most = self._transport.max_message_bytes or config.MAX_MESSAGE_SIZE
        if header.data_size + header.annotations_size > most:
            # Earlier than Pyro4 would, which closes the connection: the peer has to be told.
            error = MessageTooLargeError(
                f"a message of {header.data_size / 1e6:,.0f} MB is too large: this daemon takes "
                f"{most / 1e6:,.0f} MB. Send smaller chunks, train fewer topics, or start it with a larger "
                "--max-message"
            )
            error.pyroMsg = header
            raise error
        return data

    def _expect(self, nbytes: int) -> None:
        self._set_deadline(nbytes)
        self._transport.make_room(self, nbytes)

    def _set_deadline(self, nbytes: int) -> None:
        self.deadline = time.monotonic() + STALL_SECONDS + nbytes / SLOWEST_BYTES_A_SECOND


class Transport:
    """The socket server; its public methods are those that Pyro4's daemon calls.

    Parameters
    ----------
    max_connections : int
    credentials : Credentials, optional
        Speak TLS, with peers that have a certificate too.
    max_message_bytes : int, optional
        By default what Pyro4's MAX_MESSAGE_SIZE says.
    max_bytes_under_way : int, optional
        By default `MAX_BYTES_UNDER_WAY`.
    """

    def __init__(
        self,
        max_connections: int = MAX_CONNECTIONS,
        credentials: tls.Credentials | None = None,
        max_message_bytes: int | None = None,
        max_bytes_under_way: int | None = None,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self._max_bytes_under_way = max_bytes_under_way
        self.max_connections = max_connections
        self.credentials = credentials
        self._complain = tls.Complaints()
        self.grace = 1.0
        self.sock: Any = None
        self.locationStr = ""
        self._daemon: Any = None
        self._lock = threading.Lock()
        self._closing = False
        self._threads: dict[Connection, threading.Thread] = {}
        self._shaking: dict[Connection, None] = {}  # in their handshake, the oldest first
        self._of_peer: Counter[str] = Counter()  # connections
        self.refused: Counter[str] = Counter()  # connections and calls, by reason
        self._nbytes = 0  # of messages under way
        self.refusals = Refusals()
        self._waker: socket.socket | None = None

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing

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
            look_at = time.monotonic()
            while not self._closing and loopCondition():
                ready = selector.select(max(0.0, look_at - time.monotonic()))
                if any(key.fileobj is self.sock for key, _ in ready):
                    self._accept()
                if time.monotonic() >= look_at:
                    self._drop_overdue()
                    look_at = time.monotonic() + _POLL_SECONDS

    def close(self) -> None:
        """Stop accepting; end idle connections now, the others when they have answered, or after `grace`.

        Each is told why first, in its own thread, as two may not write to a TLS socket.
        """
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
            if connection.idle:
                sockets.stop_reading(connection.sock)
            elif not connection.shaken:
                sockets.shut(connection.sock)
        deadline = time.monotonic() + self.grace
        for connection, thread in threads.items():
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    sockets.shut(connection.sock)

    shutdown = close

    def make_room(self, connection: Connection, nbytes: int) -> None:
        """Count bytes that are about to arrive or to be sent, and drop connections where that makes too many.

        Messages and their answers share one limit, and nobody waits for room: a message that waited would
        hold its own bytes meanwhile, and an answer those of its message, so that all could wait for each
        other for ever. In their place the slowest give way, which an attacker's are who does not get on;
        what is received and sent at the network's speed goes on.
        """
        with self._lock:
            connection.nbytes += nbytes
            self._nbytes += nbytes
            victims = self._too_many(connection)
        self._drop(victims, "too many bytes are under way, and its message or answer is the slowest")

    def _too_many(self, connection: Connection) -> list[Connection]:
        """Return which connections have to go, so that the others keep to the limit (under the lock)."""
        most = self._max_bytes_under_way or MAX_BYTES_UNDER_WAY
        victims: list[Connection] = []
        if self._nbytes <= most:
            return victims
        staying = [one for one in self._threads if not one.dropped]
        while sum(one.nbytes for one in staying) > most:
            taken: Counter[str] = Counter()
            for one in staying:
                taken[one.peer] += one.nbytes
            greediest = taken.most_common(1)[0][0]
            theirs = [one for one in staying if one.peer == greediest]
            under_way = [one for one in theirs if one.waiting] or [
                one for one in theirs if one.arriving or one.sending
            ]
            own = [connection] if connection in staying else theirs
            victim = min(under_way or own, key=lambda one: one.speed)
            victim.dropped = True
            staying.remove(victim)
            victims.append(victim)
        return victims

    def _accept(self) -> None:
        try:
            sock, address = self.sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if not self._closing:
                log.warning("cannot accept connections: %s", error)
                time.sleep(0.05)  # out of files, say: the connection stays queued, and select returns at once
            return
        sock.settimeout(None)
        sockets.wait_for_reader(sock)
        connection = Connection(sock, sockets.peer_group(address[0]), self)
        with self._lock:
            count, of_peer = len(self._threads), self._of_peer[connection.peer]
            reason = None
            if count >= self.max_connections:
                reason = f"this daemon already has {self.max_connections} connections"
            elif of_peer >= MAX_CONNECTIONS_OF_A_PEER:
                reason = f"this daemon already has {MAX_CONNECTIONS_OF_A_PEER} connections from your host"
            self.refused["too many connections"] += reason is not None
            most = self.max_connections + _MAX_REFUSALS
            most_of_peer = MAX_CONNECTIONS_OF_A_PEER + _MAX_REFUSALS
            if self._closing or count >= most or of_peer >= most_of_peer:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection, reason), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                log.warning("refused a connection: %s", error)
                connection.close()
                return
            self._threads[connection] = thread
            self._of_peer[connection.peer] += 1
            self._shaking[connection] = None
            if len(self._shaking) <= MAX_HANDSHAKES:
                return
            greediest = Counter(one.peer for one in self._shaking).most_common(1)[0][0]
            victim = next(one for one in self._shaking if one.peer == greediest)
            del self._shaking[victim]
        self._drop([victim], "too many handshakes at once, this is the oldest")

    def _serve(self, connection: Connection, refusal: str | None) -> None:
        current_context.client = connection  # all calls of this thread are this connection's
        try:
            if self.credentials is not None:
                refusal = self._shake_hands(connection, self.credentials) or refusal
            if not self._daemon._handshake(connection, denied_reason=refusal):
                return
            with self._lock:
                connection.shaken = True
                self._shaking.pop(connection, None)
            try:
                while self._may_wait(connection):
                    self._daemon.handleRequest(connection)
            finally:
                if self._closing:
                    self._daemon.take_leave(connection)
                self._daemon._clientDisconnect(connection)
        except (OSError, PyroError) as error:
            log.debug("connection ended: %s", error)
        except Exception as error:
            log.warning("connection ended by %s: %s", type(error).__name__, error)
        finally:
            self._forget(connection)

    def _shake_hands(self, connection: Connection, credentials: tls.Credentials) -> str | None:
        """Begin TLS; returns why the peer is refused, where it is and can be told so."""
        if not tls.is_offered(connection.sock):
            self.refused["no TLS"] += 1
            self._complain(connection.peer, "it speaks no TLS")
            return tls.WANTED
        context = credentials.server_context()
        connection.sock = context.wrap_socket(
            connection.sock, server_side=True, do_handshake_on_connect=False
        )
        try:
            connection.sock.do_handshake()
        except tls.HandshakeError as error:
            self.refused["TLS handshake"] += 1
            self._complain(connection.peer, str(error))
            sockets.drain(connection.sock, HANDSHAKE_BYTES)
            raise
        connection.role = roles.role_in(connection.sock.getpeercert())
        if connection.role is None:
            self.refused["no role"] += 1
            self._complain(connection.peer, "its certificate names no role")
            return "your certificate names no role: issue one with 'distcorpus certs issue'"
        return None

    def _may_wait(self, connection: Connection) -> bool:
        with self._lock:
            self._answered(connection)
            connection.idle_since = time.monotonic()
            connection.idle = not self._closing
            return connection.idle

    def _answered(self, connection: Connection) -> None:
        self._nbytes -= connection.nbytes
        connection.nbytes = 0
        connection.deadline = None

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._answered(connection)
            self._shaking.pop(connection, None)
            del self._threads[connection]
            self._of_peer[connection.peer] -= 1
            if not self._of_peer[connection.peer]:
                del self._of_peer[connection.peer]

    def _drop_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            connections = list(self._threads)
        self._drop(
            [one for one in connections if one.deadline is not None and one.deadline <= now],
            "it did not get on",
        )
        self._drop([one for one in connections if sockets.has_vanished(one.sock)], "its host has vanished")

    def _drop(self, connections: Iterable[Connection], why: str) -> None:
        for connection in connections:
            log.info("dropped a connection from %s: %s", connection.peer, why)
            self.refused["dropped"] += 1
            connection.dropped = True
            sockets.shut(connection.sock)

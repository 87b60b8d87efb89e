"""Sockets: gathered sending, receiving in place, and noticing peers that are gone."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

import numpy as np
from Pyro4 import socketutil
from Pyro4.errors import CommunicationError, ConnectionClosedError
from Pyro4.errors import TimeoutError as CallTimeout

from distcorpus.wire import tls

# A host that vanished without a word is noticed after IDLE + PROBES * INTERVAL seconds.
KEEPALIVE_IDLE = 3
KEEPALIVE_INTERVAL = 2
KEEPALIVE_PROBES = 3
VANISHED_AFTER = KEEPALIVE_IDLE + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL
# So often in a row data or a probe is sent again without an answer, ever more slowly, until the peer's host
# counts as vanished: some 13 seconds in a local network. A host whose program does not read answers each.
_VANISHED_TRIES = 6

_LARGE = 1 << 16
# A message is received in pieces, each as large as all before it: a few calls for a large message, and small
# claims upon a peer that has sent little yet.
_FIRST_PIECE = 1 << 20
_LARGEST_PIECE = 16 << 20
_IOV_MAX = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 16


class Gather:
    """The bytes of one message as a list of buffers that are sent without being joined.

    It stands where Pyro4 expects the bytes of a message's data: `len` is the number of bytes, and what Pyro4
    puts in front of it becomes one more buffer. The buffers must not change until the message is sent.
    """

    __slots__ = ("nbytes", "parts")

    def __init__(self, parts: Iterable[bytes | memoryview]) -> None:
        views = [memoryview(part) for part in parts]
        self.parts = [view for view in views if view.nbytes]
        self.nbytes = sum(view.nbytes for view in self.parts)

    def __len__(self) -> int:
        return self.nbytes

    def __radd__(self, head: bytes) -> Gather:
        return Gather([head, *self.parts])

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def send_data(
    sock: socket.socket, data: bytes | Gather, after_piece: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Send all of `data`, without copying it, also on a socket with a timeout and on a TLS socket.

    Parameters
    ----------
    sock : socket.socket
    data : bytes or Gather
    after_piece : callable
        Called with the number of bytes that the system has just taken.

    Raises
    ------
    CallTimeout
        Nothing could be sent for as long as the socket's timeout.
    ConnectionClosedError
        The connection was lost.
    """
    views = deque(data.parts if isinstance(data, Gather) else [memoryview(data)])
    gathers = hasattr(sock, "sendmsg") and not _is_tls(sock)
    try:
        while views:
            sent = sock.sendmsg(list(islice(views, _IOV_MAX))) if gathers else sock.send(views[0])
            after_piece(sent)
            while views and sent >= views[0].nbytes:
                sent -= views.popleft().nbytes
            if sent:
                views[0] = views[0][sent:]
    except OSError as error:
        if isinstance(error, ConnectionError | ssl.SSLEOFError) and _has_arrived(sock):
            return  # the peer has left, and said why: that is read next
        raise _failure("sending", error) from error


def _has_arrived(sock: socket.socket) -> bool:
    """Whether there is something to read, which the peer sent before it left."""
    with suppress(OSError):
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)))
    return False


def receive_data(
    sock: socket.socket, size: int, before_piece: Callable[[int], None] = lambda nbytes: None
) -> bytes | memoryview:
    """Receive exactly `size` bytes: small ones as bytes, large ones into one fresh, writable buffer.

    Parameters
    ----------
    sock : socket.socket
    size : int
    before_piece : callable
        Called with the number of bytes that are waited for next.

    Raises
    ------
    CallTimeout
        Nothing arrived for as long as the socket's timeout.
    ConnectionClosedError
        The connection was lost, or closed before all had arrived.
    """
    if size < 0:
        raise ConnectionClosedError(f"receiving: the peer announced a message of {size} bytes")
    # numpy leaves the memory untouched, so what a lying header claims is never more than address space.
    view = memoryview(bytearray(size)) if size < _LARGE else np.empty(size, np.uint8).data
    flags = 0 if _is_tls(sock) else getattr(socket, "MSG_WAITALL", 0)
    received = 0
    try:
        while received < size:
            wanted = min(size - received, max(received, _FIRST_PIECE), _LARGEST_PIECE)
            before_piece(wanted)
            piece = view[received : received + wanted]
            received += wanted
            while piece:
                count = sock.recv_into(piece, len(piece), flags)
                if not count:
                    raise ConnectionClosedError("the connection was closed in the middle of a message")
                piece = piece[count:]
    except OSError as error:
        raise _failure("receiving", error) from error
    return bytes(view) if size < _LARGE else view


def _failure(doing: str, error: OSError) -> CommunicationError:
    # Python has one exception for a socket's own timeout and for a connection that the system has given up.
    if isinstance(error, TimeoutError) and error.errno is None:
        return CallTimeout(f"{doing}: timeout")
    if isinstance(error, ssl.SSLError):
        return ConnectionClosedError(f"{doing}: {tls.explain(error)}")
    return ConnectionClosedError(f"the connection was closed while {doing}: {error.strerror or error}")


def set_keepalive(sock: socket.socket) -> None:
    """Make the system notice a vanished peer of `sock` within `VANISHED_AFTER` seconds, idle or in
    mid-message.

    A peer that is there but reads nothing for that long, while data waits for it, is dropped as well (a
    stopped process, say): the system's timer for unacknowledged data, without which a host that vanishes in
    mid-message is waited for during a quarter of an hour, does not tell the two apart. See `wait_for_reader`
    for daemons.

    Set on a listening socket, it holds for the connections that it accepts. Where the system lacks an option,
    that one keeps its default.
    """
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", VANISHED_AFTER * 1000),
    )
    for level, name, value in options:
        if hasattr(socket, name):
            with suppress(OSError):
                sock.setsockopt(level, getattr(socket, name), value)


def wait_for_reader(sock: socket.socket) -> None:
    """Let the peer of an accepted connection be slow to read, as a program that is stopped for a while.

    Vanished peers are then to be looked for by `has_vanished`, where data is on its way to them.
    """
    if hasattr(socket, "TCP_INFO") and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def has_vanished(sock: socket.socket) -> bool:
    """Whether the host of the peer has not answered for long, to data or to the probes of a peer that does
    not read; False where the system does not tell.
    """
    if not hasattr(socket, "TCP_INFO"):
        return False
    try:
        _, _, retransmits, probes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
    except (OSError, ValueError):  # it has been closed
        return False
    return max(retransmits, probes) >= _VANISHED_TRIES


def client_gone(sock: socket.socket) -> bool:
    """Whether the peer of `sock` has closed the connection, without consuming anything and without waiting.

    To be asked while the peer's call is still being computed, when nothing reads the socket.
    """
    try:
        if hasattr(select, "poll"):
            ended = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)
            poll = select.poll()
            poll.register(sock, select.POLLIN | getattr(select, "POLLRDHUP", 0))
            events = poll.poll(0)
            if not events:
                return False
            if events[0][1] & ended:
                return True
        # The class's method, because a TLS socket's own refuses to peek; the end shows in the raw stream.
        return socket.socket.recv(sock, 1, socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0)) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


def shut(sock: socket.socket) -> None:
    """End the connection of `sock` in both directions; whoever is blocked on it returns at once."""
    with suppress(OSError):
        # The class's method: a TLS socket's own makes it a plain one first, in which another thread that is
        # just sending would go on in the clear.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def wait_readable(sock: socket.socket) -> None:
    """Wait until there is something to read, or `stop_reading`, without reading it."""
    pending = getattr(sock, "pending", None)
    if (pending is not None and pending()) or not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.poll()


def wait_gone(sock: socket.socket, seconds: float) -> None:
    """Wait for some seconds, or until the peer has closed the connection or `shut` was called."""
    if not hasattr(select, "poll"):
        time.sleep(seconds)
        return
    poll = select.poll()
    poll.register(sock, getattr(select, "POLLRDHUP", 0))
    poll.poll(seconds * 1000)


def stop_reading(sock: socket.socket) -> None:
    """End the receiving direction: whoever waits for something to read returns at once; it may still send."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RD)


def drain(sock: socket.socket, limit: int) -> None:
    """End sending on `sock`, and read up to `limit` bytes until the peer ends too.

    Closing a socket with unread data resets the connection, and the peer would lose what was sent last: why
    it is refused.
    """
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while limit > 0 and (data := socket.socket.recv(sock, 4096)):
            limit -= len(data)


def can_connect(host: str, port: int, timeout: float) -> bool | None:
    """Whether something listens at `host`:`port`; None where no answer came within `timeout` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError):  # ValueError: it is no host name
        return None
    return True


def parse_address(text: str, default_port: int = 0) -> tuple[str, int]:
    """Split ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT`` or a bare IPv6 address into host and port.

    Raises
    ------
    ValueError
        `text` is none of these.
    """
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else ""
        if not bracket or (rest and not port):
            host = ""
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            host = ""
    if not host or not (port or "0").isdecimal() or not 0 <= int(port or 0) <= 65535:
        raise ValueError(f"an address is HOST or HOST:PORT, not {text!r}")
    return host, int(port or default_port)


def format_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets about an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def default_bind() -> str:
    """The address that a daemon listens on unless it is told another: this machine only."""
    return "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine alone: ``localhost`` or an address; other names are not looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def peer_group(address: str) -> str:
    """Whom a connection from `address` is put down to: a host, or the network that one host may have.

    All of loopback is one peer, since its processes may choose among 2**24 addresses; so is an IPv6 network
    of 64 bits, for the same reason.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return "loopback" if ip.is_loopback else str(ipaddress.ip_network((ip, 64), strict=False))
        ip = ip.ipv4_mapped
    return "loopback" if ip.is_loopback else str(ip)


def outward_address() -> str:
    """This host's address as other hosts are likely to see it; its name where that cannot be told."""
    try:
        return str(socketutil.getIpAddress(None, workaround127=True))
    except (OSError, CommunicationError):
        return socket.gethostname()


def raise_file_limit() -> None:
    """Raise this process's limit of open files, and so of connections, as far as it may be raised."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_tls(sock: socket.socket) -> bool:
    return hasattr(sock, "getpeercert")

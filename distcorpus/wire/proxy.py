"""The calling side: connect, abort, close, and what can go wrong."""

from __future__ import annotations

from typing import Any

import Pyro4.core
from Pyro4.errors import (
    CommunicationError,
    ConnectionClosedError,
    MessageTooLargeError,
    NamingError,
    ProtocolError,
    PyroError,
    SecurityError,
)
from Pyro4.errors import TimeoutError as CallTimeout

from distcorpus.wire import sockets
from distcorpus.wire.frames import CannotSendError
from distcorpus.wire.serializer import install

__all__ = [
    "CallTimeout",
    "CommunicationError",
    "ConnectionClosedError",
    "MessageTooLargeError",
    "NamingError",
    "PyroError",
    "abort",
    "close",
    "connect",
    "is_false_answer",
    "location_of",
    "remote_traceback",
]

CONNECT_SECONDS = 10.0

Proxy = Any  # Pyro4 has no types: a remote object's methods are its attributes


def connect(
    uri: str,
    *,
    serializer: str = "frames",
    timeout: float | None = None,
    connect_timeout: float = CONNECT_SECONDS,
) -> Proxy:
    """Connect to a remote object, now.

    Parameters
    ----------
    uri : str
        As `Daemon.uri` or the name server gives it.
    serializer : {"frames", "pickle"}
        Frames between processes of ours; pickle towards name servers.
    timeout : float, optional
        Seconds that a call may go without a byte from the peer before it fails with `CallTimeout`; by default
        for ever.
    connect_timeout : float
        The same for connecting and shaking hands.

    Returns
    -------
    Pyro4.Proxy
        Calls on one proxy follow one another; use one for each purpose. Arrays that are passed must not
        change before the call returns; arrays that arrive by frames are writable views of the received
        message.

    Raises
    ------
    CommunicationError
        Nobody answers there, or refuses.
    """
    install()
    proxy = Pyro4.core.Proxy(uri)
    proxy._pyroSerializer = serializer
    proxy._pyroTimeout = connect_timeout
    proxy._pyroBind()
    proxy._pyroTimeout = timeout
    return proxy


def location_of(uri: str) -> str:
    """Return the ``host:port`` that a URI leads to."""
    return uri.rpartition("@")[2]


def abort(proxy: Proxy) -> None:
    """Break the proxy's connection from another thread, so that a call blocked in it fails at once."""
    connection = proxy._pyroConnection
    if connection is not None:
        sockets.shut(connection.sock)


def close(proxy: Proxy) -> None:
    """Close the proxy's connection, after the call that another thread may have in it (see `abort`)."""
    proxy._pyroRelease()


def is_false_answer(error: BaseException) -> bool:
    """Whether an error of a call says that the peer does not keep to the protocol: its answer cannot be read,
    asks for what may not arrive, or belongs to no call.
    """
    ours = CannotSendError, MessageTooLargeError
    theirs = ProtocolError, SecurityError
    return isinstance(error, theirs) and not isinstance(error, ours) and not remote_traceback(error)


def remote_traceback(error: BaseException) -> str:
    """The traceback of an exception on the peer that raised it; empty where it was raised here."""
    lines = getattr(error, "_pyroTraceback", None)
    return "".join(str(line) for line in lines) if isinstance(lines, list) else ""

"""The daemon that serves objects of this process to others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import Pyro4.core
from Pyro4.core import behavior
from Pyro4.errors import MessageTooLargeError, PyroError

from distcorpus.wire import sockets, tls
from distcorpus.wire.exposed import expose
from distcorpus.wire.serializer import install
from distcorpus.wire.transport import MAX_CONNECTIONS, Connection, Transport
from distcorpus.wire.unpickle import OutsideVocabulary

__all__ = ["Connection", "Daemon", "behavior", "current_connection"]

_EXPOSED = "whoever reaches the port can then use the cluster, read its data and stop it"

log = logging.getLogger(__name__)


class _Description(Pyro4.core.DaemonObject):
    """What Pyro4 has every daemon offer of itself."""

    @expose
    def registered(self) -> list[str]:
        names: list[str] = super().registered()
        return names

    @expose
    def ping(self) -> None:
        pass

    @expose
    def info(self) -> str:
        return str(super().info())

    @expose
    def get_metadata(self, objectId: str, as_lists: bool = False) -> dict[str, Any]:
        metadata: dict[str, Any] = super().get_metadata(objectId, as_lists)
        return metadata

    @expose
    def get_next_stream_item(self, streamId: str) -> Any:
        return super().get_next_stream_item(streamId)

    @expose
    def close_stream(self, streamId: str) -> None:
        super().close_stream(streamId)


class Daemon(Pyro4.core.Daemon):
    """Serve registered objects, from a thread of its own, to peers that speak restricted pickle or frames.

    Parameters
    ----------
    bind : str
        Address or host name to listen on.
    port : int
        0 for any free one.
    advertise : str, optional
        ``HOST`` or ``HOST:PORT`` at which others reach this daemon, where that differs from what it listens
        on (NAT). By default `bind`, or this host's address where `bind` is all addresses.
    on_disconnect : callable, optional
        Called with a `Connection` once it has ended and its last call has returned. It runs in the
        connection's thread.
    max_connections : int
        Each connection has a thread, idle ones too (about 50 KB); further ones are refused.
    credentials : distcorpus.wire.tls.Credentials, optional
        Serve with TLS, and only peers whose certificate's role allows what they call.
    insecure : bool
        Listen beyond this machine without TLS.

    Raises
    ------
    OSError
        The address cannot be listened on.
    ValueError
        `advertise` is not an address; or `bind` is more than this machine, with neither credentials nor
        `insecure`; or the credentials are not for the address at which others reach this daemon.

    Notes
    -----
    A peer has `distcorpus.wire.transport.HANDSHAKE_SECONDS` for its handshake. Between messages it may then
    be silent as long as it likes; a message that has begun has to get on. A peer whose host vanishes is
    dropped (see `distcorpus.wire.sockets.set_keepalive`).
    """

    #: The largest message; None for what Pyro4's MAX_MESSAGE_SIZE says.
    max_message_bytes: int | None = None
    #: Bytes of messages and answers under way; None for `transport.MAX_BYTES_UNDER_WAY`.
    max_bytes_under_way: int | None = None

    def __init__(
        self,
        bind: str = "127.0.0.1",
        port: int = 0,
        advertise: str | None = None,
        on_disconnect: Callable[[Connection], None] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        credentials: tls.Credentials | None = None,
        insecure: bool = False,
    ) -> None:
        install()
        public = sockets.parse_address(advertise) if advertise else None
        if public is None and bind in ("", "0.0.0.0", "::"):
            address = sockets.outward_address()
            public = credentials.name_for(address) if credentials is not None else address, 0
        if credentials is not None:
            credentials.check_host(public[0] if public is not None else bind)
        elif not sockets.is_loopback(bind):
            check_exposure(bind, insecure)
            log.warning("listening on %s without TLS: %s", bind or "all addresses", _EXPOSED)
        self._on_disconnect = on_disconnect
        self._max_connections = max_connections
        self.credentials = credentials
        self._transport: Transport | None = None
        self._stop_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._makers: dict[type, Callable[[], Any]] = {}
        super().__init__(host=bind, port=port, interface=_Description)
        self.host = bind
        self.port: int = self.sock.getsockname()[1]
        if public is not None:
            self.natLocationStr = sockets.format_address(public[0], public[1] or self.port)

    @property
    def transportServer(self) -> Any:
        """The socket server, under the name by which Pyro4 knows it."""
        return self._transport

    @transportServer.setter
    def transportServer(self, server: Any) -> None:
        # Pyro4 makes a server of its own choice here, and offers no other place to put ours.
        if server is not None:
            server = Transport(
                self._max_connections, self.credentials, self.max_message_bytes, self.max_bytes_under_way
            )
        self._transport = server

    def start(self) -> None:
        """Begin to serve, in a thread of the daemon's own."""
        self._thread = threading.Thread(
            target=self.transportServer.loop, name=f"daemon-{self.port}", daemon=True
        )
        self._thread.start()

    def stop(self, grace: float = 1.0) -> None:
        """End all connections and stop listening; calls that are running get `grace` seconds to answer.

        Harmless when the daemon has stopped, has not started, or is asked by one of its own calls.
        """
        with self._stop_lock:
            if self._transport is None:
                return
            self._transport.grace = grace
            super().close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    close = stop
    shutdown = stop

    @property
    def location(self) -> str:
        """``HOST:PORT`` at which others reach this daemon."""
        return str(self.natLocationStr or self.locationStr)

    def serve(self, object_id: str, served: Any) -> str:
        """Serve one object to all connections; returns its URI."""
        self.register(served, object_id, force=True)
        return self.uri(object_id)

    def serve_each(self, object_id: str, cls: type, make: Callable[[], Any]) -> str:
        """Serve an object of its own to each connection; returns the URI.

        Parameters
        ----------
        object_id : str
        cls : type
            The class of the objects, which tells what is exposed.
        make : callable
            Makes one, when a connection first calls it. If it has a method ``close``, that is called when the
            connection has ended; if it has a method ``arriving``, it says what errors call documents that are
            just being read; if it has a method ``farewell``, it returns an error (or None) for the peer's
            next call when this daemon ends.
        """
        self._makers[cls] = make
        self.register(cls, object_id, force=True)
        return self.uri(object_id)

    def refused(self) -> dict[str, int]:
        """How many connections and calls were refused, by reason: "no TLS", "TLS handshake", "no role",
        "role" (it does not allow the call), "too many connections", "dropped" (it took what others need).
        """
        transport = self._transport
        return {} if transport is None else {reason: n for reason, n in transport.refused.items() if n}

    def uri(self, object_id: str) -> str:
        """The URI under which others reach the object registered as `object_id`."""
        return str(self.uriFor(object_id))

    def handleRequest(self, conn: Connection) -> None:
        """Pyro4's: receive a call, and answer it; here also where the call or the answer is too large."""
        try:
            super().handleRequest(conn)
        except MessageTooLargeError as error:
            seq, serializer = Pyro4.core.current_context.seq, Pyro4.core.current_context.serializer_id
            call = getattr(error, "pyroMsg", None)
            if call is not None:
                seq, serializer = call.seq, call.serializer_id
                # Whoever is still sending reads no answer.
                conn.discard(call.data_size + call.annotations_size)
            self._sendExceptionResponse(conn, seq, serializer, error, None)

    def _sendExceptionResponse(
        self, conn: Connection, seq: int, serializer: int, error: Any, *more: Any, **flags: Any
    ) -> None:
        """Pyro4's; documents that were refused while they were read are called what their receiver calls
        them."""
        if isinstance(error, OutsideVocabulary):
            whats = [
                served.arriving() for served in conn.pyroInstances.values() if hasattr(served, "arriving")
            ]
            error = ValueError(": ".join([*whats, str(error)]))
        conn.await_refusal()
        super()._sendExceptionResponse(conn, seq, serializer, error, *more, **flags)

    def take_leave(self, conn: Connection) -> None:
        """Answer the next call of a peer before it is made: nobody will be here then."""
        for served in conn.pyroInstances.values():
            farewell = getattr(served, "farewell", None)
            error = farewell() if farewell is not None else None
            if error is not None:
                seq = (conn.seq + 1) & 0xFFFF  # as Pyro4 counts
                with suppress(OSError, PyroError):
                    super()._sendExceptionResponse(conn, seq, conn.serializer_id, error, [])
                return

    def clientDisconnect(self, conn: Connection) -> None:
        """Pyro4's hook: close the objects of the connection, and tell `on_disconnect`."""
        closing = [getattr(served, "close", None) for served in conn.pyroInstances.values()]
        if self._on_disconnect is not None:
            closing.append(partial(self._on_disconnect, conn))
        for close in filter(None, closing):
            try:
                close()
            except Exception:
                log.exception("could not clean up after a connection")

    def _getInstance(self, clazz: type, conn: Connection) -> Any:
        make = self._makers.get(clazz)
        if make is None:
            return super()._getInstance(clazz, conn)
        if clazz not in conn.pyroInstances:
            conn.pyroInstances[clazz] = make()
        return conn.pyroInstances[clazz]


def check_exposure(bind: str, insecure: bool) -> None:
    """Refuse to listen beyond this machine without TLS, unless that is wanted.

    Raises
    ------
    ValueError
        `bind` is not loopback, and `insecure` is false.
    """
    if not insecure and not sockets.is_loopback(bind):
        raise ValueError(
            f"without TLS a daemon listens on this machine only, not on {bind or 'all addresses'}. "
            "Set TLS up with\n"
            "    distcorpus certs init DIR\n"
            "    distcorpus certs issue DIR --role ROLE --host NAME\n"
            "once for each ROLE of nameserver, dispatcher and worker, and pass the folder that this makes "
            f"with --tls. Or pass --insecure: {_EXPOSED}"
        )


def current_connection() -> Connection | None:
    """The connection whose call the current thread is computing, or None."""
    connection: Connection | None = Pyro4.core.current_context.client
    return connection

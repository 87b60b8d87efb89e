"""Mutual TLS: this process's certificate, that of the peer, and what to say when either is refused.

Credentials are a folder of three files, as ``distcorpus certs issue`` writes them: ``cert.pem`` and
``key.pem``, and in ``ca.pem`` the authorities whose certificates are trusted.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import Pyro4.core
from Pyro4 import socketutil
from Pyro4.errors import CommunicationError, ConnectionClosedError

from distcorpus.wire import roles
from distcorpus.wire.scoped import override, scoped, set_default

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
VARIABLE = "DISTCORPUS_TLS"

#: What a peer that speaks no TLS is told, in the clear.
WANTED = (
    "this daemon speaks TLS only: set DISTCORPUS_TLS (a daemon: --tls) to a folder of "
    "'distcorpus certs issue', or PYRO_SSL and its like in a program without distcorpus"
)
#: Certificates that expire sooner are warned of, once a day.
WARN_SECONDS = 7 * 86400.0

_DAY = 86400.0
_MINUTE = 60.0
_COMPLAINTS_A_MINUTE = 20
_HANDSHAKE_RECORD = b"\x16"
_ISSUE = "with 'distcorpus certs issue'"

log = logging.getLogger(__name__)


class HandshakeError(ConnectionError):
    """A TLS handshake failed: a certificate is refused, or no TLS is spoken."""


class _Socket(ssl.SSLSocket):
    """A TLS socket whose handshake fails with words that help."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLEOFError as error:
            raise ConnectionResetError(explain(error)) from error
        except ssl.SSLError as error:
            raise HandshakeError(explain(error)) from error


@dataclass(frozen=True, slots=True)
class _Loaded:
    server: ssl.SSLContext
    client: ssl.SSLContext
    role: str
    hosts: tuple[str, ...]
    expires: float  # seconds since the epoch


class Credentials:
    """A certificate with its key and the authorities that it trusts, read again whenever a file has changed.

    New connections use what the files hold then, so certificates are renewed without stopping anything.
    Should the new files not do, the last good ones stay in use, and the log says why.

    Parameters
    ----------
    folder : path
        With ``ca.pem``, ``cert.pem`` and ``key.pem``.

    Notes
    -----
    The files are read when they are first needed; each property and method raises ValueError where they are
    missing, do not belong together, have expired or name no role.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._lock = threading.Lock()
        self._stamp: tuple[tuple[int, int, int], ...] | None = None
        self._loaded: _Loaded | None = None
        self._warn_at = 0.0

    @property
    def role(self) -> str:
        """What the certificate lets its holder do."""
        return self._current().role

    @property
    def expires(self) -> float:
        """When the certificate expires, in seconds since the epoch."""
        return self._current().expires

    def server_context(self) -> ssl.SSLContext:
        """The context of a connection that was accepted now."""
        return self._current().server

    def client_context(self) -> ssl.SSLContext:
        """The context of a connection that is opened now."""
        return self._current().client

    def check_role(self, role: str) -> None:
        """Refuse to serve as what the certificate is not for.

        Raises
        ------
        ValueError
            The certificate has another role.
        """
        if self.role != role:
            raise ValueError(
                f"{self.folder} holds a {self.role}'s certificate, a {role} needs one of its own: "
                f"issue it with 'distcorpus certs issue DIR --role {role} --host NAME'"
            )

    def check_host(self, host: str) -> None:
        """Refuse to serve at an address where peers would refuse the certificate.

        Raises
        ------
        ValueError
            The certificate does not name `host`.
        """
        loaded = self._current()
        if not _is_for(loaded, host):
            raise ValueError(
                f"the certificate in {self.folder} is for {', '.join(loaded.hosts) or 'no host'}, and others "
                f"would reach this daemon at {host}: choose one of its names with --bind or --advertise, or "
                f"issue a certificate for {host} too"
            )

    def name_for(self, address: str) -> str:
        """The name at which this host is reached: `address` if the certificate has it, else its first."""
        loaded = self._current()
        plain = [host for host in loaded.hosts if "*" not in host]
        return address if not plain or _is_for(loaded, address) else plain[0]

    def _current(self) -> _Loaded:
        with self._lock:
            stamp = self._take_stamp()
            if stamp != self._stamp or self._loaded is None:
                self._stamp = stamp
                try:
                    self._loaded = self._load()
                    self._warn_at = 0.0
                except ValueError as error:
                    if self._loaded is None:
                        raise
                    log.warning("the certificate that was read before stays in use: %s", error)
            now = time.time()
            left = self._loaded.expires - now
            if left < WARN_SECONDS and now >= self._warn_at:
                self._warn_at = now + _DAY
                log.warning(
                    "the certificate in %s %s: renew it %s, nothing has to be stopped for it",
                    self.folder,
                    f"expires in {left / _DAY:.1f} days" if left > 0 else "has expired",
                    _ISSUE,
                )
            return self._loaded

    def _take_stamp(self) -> tuple[tuple[int, int, int], ...] | None:
        stamp = []
        for name in (AUTHORITY, CERTIFICATE, KEY):
            try:
                status = (self.folder / name).stat()
            except OSError:
                return None
            stamp.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamp)

    def _load(self) -> _Loaded:
        for name in (AUTHORITY, CERTIFICATE, KEY):
            if not os.access(self.folder / name, os.R_OK):
                raise ValueError(
                    f"{self.folder / name} is missing or cannot be read: give a folder that was made {_ISSUE}"
                )
        key = (self.folder / KEY).stat()
        if key.st_uid == os.getuid() and key.st_mode & 0o077:
            raise ValueError(
                f"{self.folder / KEY} is a private key that others can read (mode "
                f"{key.st_mode & 0o777:04o}), so it is not used: chmod 600 {self.folder / KEY}"
            )
        try:
            server = self._context(ssl.PROTOCOL_TLS_SERVER)
            client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the files in {self.folder} are no certificate, or do not belong together: {error}"
            ) from error
        server.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed would be trusted for as long as its ticket, not as its certificate.
        server.num_tickets = 0
        own = self._context(ssl.PROTOCOL_TLS_CLIENT)
        own.check_hostname, own.verify_mode = False, ssl.CERT_NONE
        try:
            certificate = _shake_hands(server, own)
        except ssl.SSLError as error:
            why = _why(error) if isinstance(error, ssl.SSLCertVerificationError) else str(error)
            raise ValueError(f"the certificate in {self.folder} is of no use: {why}") from error
        role = roles.role_in(certificate)
        if role is None:
            raise ValueError(f"the certificate in {self.folder} names no role: issue one {_ISSUE}")
        hosts = [value for kind, value in certificate["subjectAltName"] if kind in ("DNS", "IP Address")]
        return _Loaded(server, client, role, tuple(hosts), ssl.cert_time_to_seconds(certificate["notAfter"]))

    def _context(self, protocol: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.sslsocket_class = _Socket
        context.load_verify_locations(self.folder / AUTHORITY)
        context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY, _no_passphrase)
        return context


def use(folder: str | os.PathLike[str] | None) -> Callable[[], None]:
    """Let all connections that this thread opens from now on use a folder's certificate, and those of threads
    that have said nothing else; None: no TLS.

    Returns
    -------
    callable
        Undoes it.
    """
    credentials = Credentials(folder) if folder is not None else None
    return override(credentials=credentials, SSL=folder is not None)


def current() -> Credentials | None:
    """What this thread's connections use."""
    credentials: Credentials | str | None = scoped("credentials")
    return _parents(credentials) if isinstance(credentials, str) else credentials


@functools.lru_cache(maxsize=8)
def _parents(folder: str) -> Credentials:
    """The credentials of a cluster that the parent process has open."""
    return Credentials(folder)


def stock_variables(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The environment in which a program that never imports distcorpus uses a client's certificate."""
    path = Path(folder).expanduser().absolute()
    return {
        "PYRO_SERIALIZER": "pickle",
        "PYRO_SSL": "true",
        "PYRO_SSL_CACERTS": str(path / AUTHORITY),
        "PYRO_SSL_CLIENTCERT": str(path / CERTIFICATE),
        "PYRO_SSL_CLIENTKEY": str(path / KEY),
    }


def install() -> None:
    """Let Pyro4's proxies use this process's credentials, and check the role of who answers them."""
    stock = socketutil.getSSLcontext

    def context(**files: str) -> ssl.SSLContext:
        credentials = current()
        made: ssl.SSLContext = stock(**files) if credentials is None else credentials.client_context()
        return made

    socketutil.getSSLcontext = context
    Pyro4.core.Proxy._pyroValidateHandshake = _check_server
    if folder := os.environ.get(VARIABLE):
        set_default(credentials=Credentials(folder), SSL=True)


class Complaints:
    """Warns of refused peers, of each host and reason once a minute, and not of too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self._said: set[tuple[str, str]] = set()

    def __call__(self, host: str, reason: str) -> None:
        """Log that `host` was refused."""
        with self._lock:
            now = time.monotonic()
            if now - self._since > _MINUTE:
                self._since = now
                self._said.clear()
            if (host, reason) in self._said or len(self._said) >= _COMPLAINTS_A_MINUTE:
                return
            self._said.add((host, reason))
        log.warning("refused a connection from %s: %s", host, reason)


def is_offered(sock: socket.socket) -> bool:
    """Whether the peer's first byte begins a TLS handshake; waits for it, and leaves it there.

    Raises
    ------
    ConnectionClosedError
        The peer has closed the connection.
    """
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionClosedError("the peer closed the connection")
    return first == _HANDSHAKE_RECORD


def expiry_of(certificate: Any) -> float | None:
    """When a peer's certificate expires (as ``getpeercert()`` returns it), in seconds since the epoch."""
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None


def explain(error: ssl.SSLError) -> str:
    """What is wrong with a TLS connection, and what helps."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {_why(error)}"
    if isinstance(error, ssl.SSLEOFError):
        return "the connection was closed"
    reason = error.reason or ""
    for part, text in _REASONS:
        if part in reason:
            return text
    return f"the TLS connection failed: {error.strerror or error}"


#: What helps, by OpenSSL's code of why a certificate cannot be verified.
_REMEDIES = {
    9: "; compare the clocks of both hosts",
    10: f"; renew it {_ISSUE}",
    **dict.fromkeys((18, 19, 20), f"; it is of no authority that {AUTHORITY} lists"),
    26: "; a client's certificate cannot serve",
    **dict.fromkeys(
        (62, 64), "; use a name that it was issued for, or issue it with --host for this one too"
    ),
}
_REASONS = (
    (
        "CERTIFICATE_REQUIRED",
        f"the peer wants a certificate: give this process one of its own ({VARIABLE}, --tls)",
    ),
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the peer has no certificate"),
    (
        "WRONG_VERSION_NUMBER",
        f"the peer speaks no TLS: start it with --tls, or unset {VARIABLE} (and PYRO_SSL) here",
    ),
    ("CERTIFICATE_EXPIRED", f"the peer says that this process's certificate has expired: renew it {_ISSUE}"),
    ("UNKNOWN_CA", "the peer does not trust the authority of this process's certificate"),
    ("ALERT", "the peer refuses this process's certificate"),
)


def _why(error: ssl.SSLCertVerificationError) -> str:
    return f"{error.verify_message}{_REMEDIES.get(error.verify_code, '')}"


def _check_server(proxy: Any, response: Any) -> None:
    """Pyro4's hook for a proxy that has just connected: who serves an object has the role for it."""
    connection, uri = proxy._pyroConnection, proxy._pyroUri
    certificate = connection.getpeercert()
    if certificate is None:
        return
    role, wanted = roles.role_in(certificate), roles.server_of(uri.object)
    if role is None or role != wanted:
        proxy._pyroConnection = None
        connection.close()
        raise CommunicationError(
            f"refused {uri}: who answers there has a certificate of role {role or 'none'}, and "
            + (
                f"{uri.object} is served by a {wanted} only"
                if wanted
                else "no cluster has an object of that name"
            )
        )


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str | None = None) -> Any:
    """Connect two contexts in memory; returns the client's certificate as the server has verified it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    calling = client.wrap_bio(to_client, to_server, server_hostname=host)
    for side in (calling, serving, calling, serving):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return serving.getpeercert()


def _is_for(loaded: _Loaded, host: str) -> bool:
    try:
        _shake_hands(loaded.server, loaded.client, host)
    except (ssl.SSLError, ValueError):  # ValueError: no host name at all
        return False
    return True


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, and a daemon cannot ask for it")

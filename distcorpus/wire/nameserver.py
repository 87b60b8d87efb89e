"""The name server: where the objects of a cluster are found by name. Ours to run, and how to ask any."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any

import Pyro4.core
import Pyro4.naming
from Pyro4 import socketutil
from Pyro4.configuration import config
from Pyro4.errors import NamingError, PyroError

from distcorpus.wire import addressfile, roles, sockets
from distcorpus.wire.daemon import Daemon, current_connection
from distcorpus.wire.exposed import expose
from distcorpus.wire.names import NAME_SERVER
from distcorpus.wire.proxy import CallTimeout, Proxy, connect
from distcorpus.wire.scoped import scoped
from distcorpus.wire.tls import Credentials

log = logging.getLogger(__name__)

MAX_NAMES = 10_000
MAX_NAMES_OF_A_HOST = 5_000  # the others' reserve
MAX_TEXT = 512  # characters of a name, a URI or a piece of metadata
MAX_METADATA = 16
#: Bytes (UTF-8) of all names, URIs and metadata, and of those of one host: as many as a list's answer has.
MAX_BYTES = 4 << 20
MAX_BYTES_OF_A_HOST = 2 << 20
#: Of a message: far more than any call of a name server needs.
MAX_MESSAGE_BYTES = 1 << 20
#: Of messages and answers under way.
MAX_BYTES_UNDER_WAY = 256 << 20
ALIVE_SECONDS = 1.0
CLEAN_SECONDS = 5.0
_BROADCAST_SECONDS = 0.7
_BROADCAST_TRIES = 3
_FIND_SECONDS = 3.0
_CALL_SECONDS = 10.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0


@expose
class NameServer(Pyro4.naming.NameServer):
    """Pyro4's name server, in memory, with a bound on everything that a peer can ask of it.

    With TLS, a name belongs to the role that serves it (see `distcorpus.wire.roles`). Without, it belongs to
    the host that registered it for as long as something answers at its URI.
    """

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[str, str] = {}  # the host that registered a name
        self._sizes: dict[str, int] = {}  # bytes of a name and what is registered under it

    def register(
        self,
        name: str,
        uri: str | Pyro4.core.URI,
        safe: bool = False,
        metadata: Iterable[str] | None = None,
    ) -> None:
        """Register `uri` under `name`; to register what is registered already changes nothing.

        Raises
        ------
        NamingError
            What is registered under that name is another URI, which answers (only the role that serves the
            name may replace it, without `safe`); or the name server, or the caller's part of it, is full.
        SecurityError
            The caller's certificate is not for that name.
        """
        text = str(uri)
        metadata = _check_texts(name, text, metadata)
        caller = _caller()
        may_replace = _is_authorised(name) and not safe
        known = self._uri_of(name)
        if known == text:
            return
        if known is not None and not may_replace and _answers(known) is not False:
            raise NamingError(f"{name} is already registered, at {known}, and something answers there")
        with self.lock:
            if name not in self.storage and len(self.storage) >= MAX_NAMES:
                raise NamingError(f"the name server holds {MAX_NAMES} names, which is all that it takes")
            holders = list(self._holders.values())
            if self._holders.get(name) != caller and holders.count(caller) >= MAX_NAMES_OF_A_HOST:
                raise NamingError(f"your host has {MAX_NAMES_OF_A_HOST} names, which is all that it may have")
            if not may_replace and self._uri_of(name) not in (known, None):
                raise NamingError(f"{name} has just been registered by another")
            size = self._size_for(name, caller, text, metadata)
            super().register(name, text, metadata=metadata)
            self._holders[name] = caller
            self._sizes[name] = size

    def ping(self) -> None:
        """Answer at once."""

    def count(self) -> int:
        """How many names are registered."""
        return int(super().count())

    def lookup(self, name: str, return_metadata: bool = False) -> Any:
        """The URI that is registered under a name, or that and the metadata.

        Raises
        ------
        NamingError
            There is none.
        """
        return super().lookup(name, return_metadata)

    def set_metadata(self, name: str, metadata: Iterable[str] | None) -> None:
        """Replace the metadata of a registration, by who may remove it."""
        known = self._check_owner(name)
        metadata = _check_texts(name, "", metadata)
        with self.lock:
            holder = self._holders.get(name, "")
            size = self._size_for(name, holder, known or "", metadata)
            super().set_metadata(name, metadata)
            self._sizes[name] = size

    def remove(self, name: str | None = None, prefix: str | None = None, regex: str | None = None) -> int:
        """Remove one name; returns how many were removed. Whole prefixes and patterns are refused.

        Raises
        ------
        NamingError
            Without TLS: something answers at its URI, and another host has registered it.
        SecurityError
            The caller's certificate is not for that name.
        """
        if prefix is not None or regex is not None:
            raise NamingError("this name server removes names one by one, not by prefix or regex")
        known = self._check_owner(name)
        with self.lock:
            return self._remove(name) if self._uri_of(name) == known else 0

    def list(
        self,
        prefix: str | None = None,
        regex: str | None = None,
        metadata_all: Iterable[str] | None = None,
        metadata_any: Iterable[str] | None = None,
        return_metadata: bool = False,
    ) -> dict[str, Any]:
        """The registered names and URIs. Regular expressions are refused: matching one can take for ever."""
        if regex is not None:
            raise NamingError("this name server lists by prefix or metadata, not by regex")
        listed: dict[str, Any] = super().list(prefix, None, metadata_all, metadata_any, return_metadata)
        return listed

    def _check_owner(self, name: Any) -> str | None:
        """Refuse who may not remove or change what is registered under `name`; returns the URI."""
        _check_texts(name, "", None)
        known = self._uri_of(name)
        owned = _is_authorised(name) or self._holders.get(name) == _caller()
        if known is not None and not owned and _answers(known) is not False:
            raise NamingError(
                f"{name} is for {self._holders.get(name)} to remove, and something answers at {known}"
            )
        return known

    def _size_for(self, name: str, holder: str, uri: str, metadata: Iterable[str] | None) -> int:
        """Return the bytes of a registration, if there is room for it (under the lock)."""
        texts = (name, uri, *(metadata or ()))
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        before = self._sizes.get(name, 0)
        if sum(self._sizes.values()) - before + size > MAX_BYTES:
            raise NamingError(
                f"the name server holds {MAX_BYTES >> 20} MiB of names, URIs and metadata at most"
            )
        of_host = sum(
            taken
            for other, taken in self._sizes.items()
            if other != name and self._holders.get(other) == holder
        )
        if of_host + size > MAX_BYTES_OF_A_HOST:
            raise NamingError(
                f"one host may register {MAX_BYTES_OF_A_HOST >> 20} MiB of names, URIs and metadata: "
                "register fewer, or with less metadata"
            )
        return size

    def _remove(self, name: Any) -> int:
        self._holders.pop(name, None)
        self._sizes.pop(name, None)
        return int(super().remove(name))

    def _uri_of(self, name: Any) -> str | None:
        entry = self.storage.get(name)
        return None if entry is None else entry[0]

    def _remove_if_still(self, name: str, uri: str) -> None:
        with self.lock:
            if self._uri_of(name) == uri:
                self._remove(name)
                log.warning("removed %s: nothing answers at %s", name, uri)


class NameServerDaemon(Daemon):
    """A name server with its daemon, its answers to broadcasts, and its cleaning of names that nobody answers
    for.

    Parameters
    ----------
    bind : str
    port : int, optional
        By default Pyro4's, 9090 or what PYRO_NS_PORT says.
    broadcast : bool
        Answer those who look for a name server by broadcast (UDP, port 9091 or PYRO_NS_BCPORT); never on
        loopback.
    advertise, credentials, insecure
        As for `Daemon`.
    address_file : path-like, optional
        A file that says where it is, from its start to its stop.
    """

    max_message_bytes = MAX_MESSAGE_BYTES
    max_bytes_under_way = MAX_BYTES_UNDER_WAY

    def __init__(
        self,
        bind: str = "127.0.0.1",
        port: int | None = None,
        broadcast: bool = True,
        advertise: str | None = None,
        credentials: Credentials | None = None,
        insecure: bool = False,
        address_file: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            bind,
            config.NS_PORT if port is None else port,
            advertise,
            credentials=credentials,
            insecure=insecure,
        )
        self.nameserver = NameServer()
        self.register(self.nameserver, NAME_SERVER)
        self.nameserver.register(NAME_SERVER, self.uri(), metadata=["class:Pyro4.naming.NameServer"])
        self._stopping = threading.Event()
        self._address_file = address_file
        self._remove_address_file: Callable[[], None] = lambda: None
        self.broadcasts: Any = (
            self._broadcast_server() if broadcast and not sockets.is_loopback(bind) else None
        )

    def uri(self, object_id: str = NAME_SERVER) -> str:
        """The name server's own URI, or that of another object of its daemon."""
        return super().uri(object_id)

    def start(self) -> None:
        """Begin to serve, to answer broadcasts and to clean."""
        super().start()
        threading.Thread(target=self._clean_periodically, name="name-cleaner", daemon=True).start()
        if self.broadcasts is not None:
            threading.Thread(target=self._answer_broadcasts, name="broadcasts", daemon=True).start()
        if self._address_file is not None:
            host, port = sockets.parse_address(self.location)
            self._remove_address_file = addressfile.write(self._address_file, host, port)

    def stop(self, grace: float = 1.0) -> None:
        """Stop all of it."""
        self._stopping.set()
        self._remove_address_file()
        if self.broadcasts is not None:
            self.broadcasts.close()
        super().stop(grace)

    close = stop
    shutdown = stop

    def clean(self, answered: Collection[str] = ()) -> set[str]:
        """Remove the names that nobody answers for.

        A URI on another host is removed only if it answered before: an address that is meant for others (NAT)
        may never be reachable from here, or refuse.

        Parameters
        ----------
        answered : collection of str
            URIs that answered at an earlier time.

        Returns
        -------
        set of str
            The URIs that have answered, then or now.
        """
        seen = set()
        for name, uri in self.nameserver.list().items():
            if name == NAME_SERVER or self._stopping.is_set():
                continue
            answers = _answers(uri)
            if answers:
                seen.add(uri)
            elif uri in answered or (answers is False and sockets.is_loopback(Pyro4.core.URI(uri).host)):
                self.nameserver._remove_if_still(name, uri)
        return seen

    def _clean_periodically(self) -> None:
        answered: set[str] = set()
        while not self._stopping.wait(CLEAN_SECONDS):
            try:
                answered = self.clean(answered)
            except Exception:  # whatever somebody registered, the other names are to be looked after
                log.exception("cannot clean the names")

    def _broadcast_server(self) -> Any:
        # With TLS the name that the certificate has, else the address at which the caller reaches this host.
        internal = self.uriFor(NAME_SERVER, nat=self.credentials is not None)
        try:
            return Pyro4.naming.BroadcastServer(internal)
        except OSError as error:
            log.warning("not answering broadcasts: %s (others must name this host with --host)", error)
            return None

    def _answer_broadcasts(self) -> None:
        while not self._stopping.is_set():
            self.broadcasts.processRequest()  # waits 2 s at most


_NO_NAME_SERVER = "what answers there is none, or a broken one"


def find(
    host: str | None = None,
    port: int | None = None,
    broadcast: bool = True,
    wait: float = 0.0,
    interrupt: threading.Event | None = None,
    on_wait: Callable[[str], None] = lambda why: None,
    address_file: str | None = None,
    timeout: float | None = None,
) -> Proxy:
    """Find a name server and connect to it.

    Parameters
    ----------
    host : str, optional
        Where it is. By default PYRO_NS_HOST, or this machine; then, with `broadcast`, whoever answers in the
        network.
    port : int, optional
        By default PYRO_NS_PORT, or 9090.
    broadcast : bool
    wait : float
        Go on trying for that many seconds, ever more slowly.
    interrupt : threading.Event, optional
        Give up as soon as it is set.
    on_wait : callable
        Told once, as the waiting begins, where nobody was found.
    address_file : str, optional
        A file that says where it is; then nowhere else is looked. By default, where neither host nor port is
        given and no `LocalCluster` is open, what DISTCORPUS_ADDRESS_FILE names.
    timeout : float, optional
        Seconds that each of its answers may take; by default 3 until it is connected to, and 10 afterwards.

    Returns
    -------
    Pyro4.Proxy
        For `register`, `lookup` and the like.

    Raises
    ------
    NamingError
        None was found.
    """
    deadline = time.monotonic() + wait
    delay = _FIRST_DELAY
    said = False
    interrupt = interrupt or threading.Event()
    find_seconds, call_seconds = (_FIND_SECONDS, _CALL_SECONDS) if timeout is None else (timeout, timeout)
    while True:
        tried = []
        for where, uri in _candidates(host, port, broadcast, address_file, find_seconds):
            if uri is None:
                tried.append(f"{where} (no answer)")
                continue
            try:
                return connect(uri, serializer="pickle", timeout=call_seconds, connect_timeout=find_seconds)
            except CallTimeout:
                tried.append(f"{where} (no answer within {find_seconds:g} s)")
            except PyroError as error:
                tried.append(f"{where} ({error.__cause__ or error})")
        left = deadline - time.monotonic()
        if left > 0 and not said:
            said = True
            on_wait(" and ".join(tried))
        if left <= 0 or interrupt.wait(min(delay, left)):
            raise NamingError(
                f"no name server found: tried {' and '.join(tried)}. "
                "Start one with `distcorpus nameserver`, or say where it is with --host and --port "
                "(or PYRO_NS_HOST and PYRO_NS_PORT), or with --address-file"
            )
        delay = min(2 * delay, _LONGEST_DELAY)


def register(ns: Proxy, name: str, uri: str, replace: bool = False) -> None:
    """Register `uri` under `name`; with `replace` and TLS, also in the place of one that answers.

    Raises
    ------
    NamingError
        Another is registered under that name, and answers.
    """
    ns.register(name, uri, safe=not replace)


def unregister(ns: Proxy, name: str, uri: str) -> bool:
    """Remove `name` if it still stands for `uri`; returns whether it did."""
    return lookup(ns, name) == uri and bool(ns.remove(name))


def lookup(ns: Proxy, name: str) -> str | None:
    """The URI registered under `name`, or None.

    Raises
    ------
    NamingError
        The name server answers with what is no address of an object.
    """
    try:
        found = ns.lookup(name)
    except NamingError:
        return None
    return _address(name, found)


def list_names(ns: Proxy, prefix: str = "") -> dict[str, str]:
    """The names that start with `prefix`, with their URIs.

    Raises
    ------
    NamingError
        The name server answers with what are no names and addresses.
    """
    answer = ns.list(prefix=prefix or None)
    if type(answer) is not dict or not all(type(name) is str for name in answer):
        raise NamingError(f"the name server's list of names is a {type(answer).__name__}: {_NO_NAME_SERVER}")
    return {name: _address(name, uri) for name, uri in answer.items() if name.startswith(prefix)}


def _address(name: str, uri: Any) -> str:
    """Return a URI that leads to an object at a host and port, and nowhere else."""
    if isinstance(uri, str | Pyro4.core.URI) and len(str(uri)) <= MAX_TEXT:
        try:
            parsed = Pyro4.core.URI(str(uri))
        except PyroError:
            parsed = None
        if parsed is not None and parsed.protocol == "PYRO" and parsed.host and not parsed.sockname:
            return str(parsed)
    raise NamingError(f"the name server leads {name} to no host and port: {_NO_NAME_SERVER}")


def _candidates(
    host: str | None, port: int | None, broadcast: bool, address_file: str | None, seconds: float
) -> Iterator[tuple[str, str | None]]:
    """Where a name server may be: in words, and as a URI if there is one."""
    if host is None and port is None and address_file is None and scoped("NS_HOST") is None:
        address_file = os.environ.get(addressfile.VARIABLE) or None
    if address_file is not None:
        address = addressfile.read(address_file)
        if address is None:
            yield f"the address file {address_file}, which is not there", None
        else:
            direct = sockets.format_address(address.host, address.port)
            left_over = "left over, if that was killed"
            where = f"{direct}, which the address file {address_file} names ({address}; {left_over})"
            yield where, f"PYRO:{NAME_SERVER}@{direct}"
        return
    direct = sockets.format_address(host or config.NS_HOST, port or config.NS_PORT)
    yield direct, f"PYRO:{NAME_SERVER}@{direct}"
    if host is None and broadcast:
        yield f"a broadcast to port {config.NS_BCPORT}", _broadcast(seconds)


def find_by_broadcast() -> tuple[str, int] | None:
    """Return the host and port of a name server that answers a broadcast, if one does."""
    uri = _broadcast(_FIND_SECONDS)
    return None if uri is None else sockets.parse_address(uri.rpartition("@")[2])


def _broadcast(seconds: float) -> str | None:
    """Ask the network for a name server, by UDP, for so long at most; the URI in the first right answer."""
    patience = min(_BROADCAST_SECONDS, seconds / _BROADCAST_TRIES)
    with (
        suppress(OSError),  # no network at all
        socketutil.createBroadcastSocket(reuseaddr=config.SOCK_REUSE, timeout=patience) as sock,
    ):
        for _ in range(_BROADCAST_TRIES):
            for address in config.parseAddressesString(config.BROADCAST_ADDRS):
                with suppress(OSError):  # no such interface, or not allowed to broadcast
                    sock.sendto(b"GET_NSURI", (address, config.NS_BCPORT))
            with suppress(OSError, PyroError, UnicodeDecodeError):
                answer, _ = sock.recvfrom(MAX_TEXT)
                uri = Pyro4.core.URI(answer.decode("ascii"))
                if uri.protocol == "PYRO" and uri.object == NAME_SERVER and uri.host:
                    return str(uri)
    return None


def _caller() -> str:
    """The host whose call this thread computes."""
    connection = current_connection()
    return "the name server" if connection is None else connection.peer


def _is_authorised(name: str) -> bool:
    """Whether the caller's certificate is for `name`; False without TLS.

    Raises
    ------
    SecurityError
        It is for something else.
    """
    connection = current_connection()
    if connection is None or connection.role is None:
        return False
    roles.check_name(connection.role, name)
    return True


def _answers(uri: str) -> bool | None:
    """Whether something listens where `uri` points: True, False, or None where that cannot be told."""
    try:
        parsed = Pyro4.core.URI(uri)
    except PyroError:
        return False
    if not parsed.host:
        return None
    return sockets.can_connect(parsed.host, parsed.port, ALIVE_SECONDS)


def _check_texts(name: Any, uri: str, metadata: Any) -> list[str] | None:
    if metadata is not None:
        if isinstance(metadata, str) or len(metadata) > MAX_METADATA:
            raise NamingError(f"metadata is a collection of at most {MAX_METADATA} strings")
        metadata = list(metadata)
    for text in (name, uri, *(metadata or ())):
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise NamingError(
                f"a name, a URI and each piece of metadata is a string of at most {MAX_TEXT} characters"
            )
    return metadata

"""Where the name server is, for processes that need it again and again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import Pyro4

from distcorpus.wire.nameserver import find
from distcorpus.wire.proxy import CommunicationError
from distcorpus.wire.scoped import override
from distcorpus.wire.sockets import format_address


class NameServerLocation:
    """A name server that is looked for again when the connection to it was lost.

    Parameters
    ----------
    host : str, optional
        Its host; by default ``PYRO_NS_HOST``, or whoever answers a broadcast.
    port : int, optional
        Its port; by default ``PYRO_NS_PORT``.
    broadcast : bool, default True
        Whether to broadcast.
    address_file : str, optional
        A file that says where it is, see `wire.addressfile`; by default what DISTCORPUS_ADDRESS_FILE names.
    timeout : float, optional
        Seconds that each of its answers may take, see `wire.find`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        broadcast: bool = True,
        address_file: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._where: dict[str, Any] = {
            "host": host,
            "port": port,
            "broadcast": broadcast,
            "address_file": address_file,
            "timeout": timeout,
        }
        self._found: Any = None
        self._address = "not found yet"
        self._lock = threading.Lock()

    def locate(
        self,
        wait: float = 0.0,
        interrupt: threading.Event | None = None,
        on_wait: Callable[[str], None] = lambda why: None,
    ) -> Any:
        """Return the name server.

        Parameters
        ----------
        wait : float
            Seconds to wait for it to appear.
        interrupt : Event, optional
            Ends the waiting early.
        on_wait : callable
            Told once, as the waiting begins, why no name server was found at first.

        Raises
        ------
        NamingError
            If there is none.
        """
        with self._lock:
            if self._found is not None:
                try:
                    self._found.ping()
                    return self._found
                except CommunicationError:
                    self._found = None
            self._found = find(**self._where, wait=wait, interrupt=interrupt, on_wait=on_wait)
            uri = self._found._pyroUri
            self._address = format_address(uri.host, uri.port)
            return self._found

    def __str__(self) -> str:
        return self._address

    def own_address(self) -> str:
        """Return the address of this host's interface that leads to the name server."""
        uri = self.locate()._pyroUri
        with socket.socket(
            socket.AF_INET6 if ":" in uri.host else socket.AF_INET, socket.SOCK_DGRAM
        ) as probe:
            probe.connect((uri.host, uri.port))
            return str(probe.getsockname()[0])


def default_nameserver() -> tuple[str, int]:
    """Return where the gensim models of this process look for the name server."""
    return Pyro4.config.NS_HOST, Pyro4.config.NS_PORT


def use_nameserver(host: str, port: int) -> Callable[[], None]:
    """Let the models of this thread look for the name server there, and those of threads that have said
    nothing else.

    Returns
    -------
    callable
        Undoes it.
    """
    return override(NS_HOST=host, NS_PORT=port)

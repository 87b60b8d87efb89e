"""Keeping names registered for as long as their daemon lives, whatever happens to the name server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from distcorpus.wire.nameserver import list_names, register, unregister
from distcorpus.wire.proxy import CommunicationError, NamingError

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the names still stand: a name server that was restarted has forgotten
#: them.
CHECK_EVERY = 2.0
#: Seconds that a daemon which is asked to make place has for it.
REPLACE_TIMEOUT = 15.0
#: Seconds in which a name server that breaks connections, or is started again, has to come to itself.
START_TIMEOUT = 15.0
#: Seconds between two attempts to register.
RETRY_EVERY = 0.1


class Registration:
    """Names that lead to objects of this process.

    Parameters
    ----------
    locate : callable
        Returns a name server; called again after the connection to one was lost.
    names : mapping of str to str
        URI by name.
    taken : callable, optional
        Called once, with the name, when another daemon has taken one of the names over.
    """

    def __init__(
        self,
        locate: Callable[[], Any],
        names: Mapping[str, str],
        taken: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._locate = locate
        self._names = dict(names)
        self._taken = taken
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="registration", daemon=True)

    def start(self, *, replace: bool = False) -> None:
        """Register the names, and keep them registered.

        Parameters
        ----------
        replace : bool, default False
            Take a name over from a daemon that is alive: at once with TLS, and else when that has ended,
            within `REPLACE_TIMEOUT`.

        Raises
        ------
        NamingError
            If a name leads to a daemon that is alive, and `replace` is false or that daemon does not end; or
            if there is no name server for `START_TIMEOUT`.
        CommunicationError
            If the name server breaks connections for `START_TIMEOUT`.
        """
        began = time.monotonic()
        nameserver = None
        for name, uri in self._names.items():
            while True:
                try:
                    nameserver = nameserver or self._locate()
                    register(nameserver, name, uri, replace=replace)
                    break
                except (CommunicationError, NamingError) as error:
                    taken = nameserver is not None and isinstance(error, NamingError)
                    if taken and not replace:
                        raise
                    if time.monotonic() > began + (REPLACE_TIMEOUT if taken else START_TIMEOUT):
                        raise
                    if not taken:  # it is starting, started again, or very busy
                        nameserver = None
                time.sleep(RETRY_EVERY)
        self._thread.start()

    def stop(self) -> None:
        """Remove the names that still lead here."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CHECK_EVERY + 5.0)
        try:
            nameserver = self._locate()
            for name, uri in self._names.items():
                unregister(nameserver, name, uri)
        except (CommunicationError, NamingError) as error:
            logger.debug("cannot remove names, the name server is gone: %s", error)

    def _keep(self) -> None:
        away = False
        while not self._stopping.wait(CHECK_EVERY):
            try:
                nameserver = self._locate()
                registered = list_names(nameserver)
                for name, uri in self._names.items():
                    found = registered.get(name)
                    if found is None:
                        logger.warning("name %s was gone from the name server: registering it again", name)
                        register(nameserver, name, uri)
                    elif found != uri:
                        logger.warning("name %s was taken over by %s", name, found)
                        self._taken(name)
                        return
                away = False
            except (CommunicationError, NamingError) as error:
                if not away:
                    logger.warning("cannot check the registration (%s): trying again", error)
                away = True
            except Exception:  # without this thread the names would be gone for good with the name server
                logger.exception("unexpected, in keeping names registered")

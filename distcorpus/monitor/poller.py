"""Asks a dispatcher what there is to see, once a second, for all who watch."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from distcorpus.monitor.history import History
from distcorpus.monitor.snapshot import Details, Snapshot, as_dict, from_message
from distcorpus.wire import CommunicationError, NamingError, PyroError, close, connect, names
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.nameserver import lookup

logger = logging.getLogger(__name__)

#: Seconds between two looks, and between two looks at a session that somebody watches.
EVERY, DETAILS_EVERY = 1.0, 2.0
#: Seconds for which a session is watched after somebody has asked for it, and how many are.
WATCHED_FOR, MOST_WATCHED = 10.0, 8
#: Sessions of which what was found is kept, when they have ended too.
DETAILS_KEPT = 20
#: Seconds that a dispatcher has for an answer.
TIMEOUT = 10.0
#: Seconds after which the log says that a dispatcher which is registered does not answer.
PATIENCE = 5.0
#: Latest messages that are kept for those who are slow; who is slower is told everything anew.
MESSAGES_KEPT = 30
#: Snapshots in a row that are asked for where a dispatcher has more events to tell.
MOST_PAGES = 20


class NoDispatcher(ConnectionError):
    """The name server knows none."""


class Looking:
    """A connection to whatever dispatcher there is, found again when it was lost.

    Parameters
    ----------
    location : NameServerLocation
    """

    def __init__(self, location: NameServerLocation) -> None:
        self._location = location
        self._proxy: Any = None
        self._cursor: int | None = None
        self._began: float | None = None

    def snapshots(self) -> list[Snapshot]:
        """Look once: more than one where there is more to tell than one holds.

        Raises
        ------
        ConnectionError
            Nobody answers, or nothing that can be read; the message says what. `NoDispatcher` where none is
            registered.
        """
        found = []
        for _ in range(MOST_PAGES):
            snapshot = from_message(Snapshot, self._ask("snapshot", self._cursor))
            if self._began not in (None, snapshot.began):
                # Of another dispatcher: what it has told is after a cursor of the one before.
                self._began = None
                self._cursor = 0
                continue
            self._began, self._cursor = snapshot.began, snapshot.cursor
            found.append(snapshot)
            if not snapshot.more:
                break
        return found

    def details(self, session: str) -> Details | None:
        """Look at one session; None where there is none of that name.

        Raises
        ------
        ConnectionError
            As `snapshots`.
        """
        try:
            return from_message(Details, self._ask("details", session))
        except LookupError:
            return None

    def close(self) -> None:
        """Close the connection."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            close(proxy)

    def _ask(self, what: str, argument: Any) -> Any:
        try:
            if self._proxy is None:
                uri = lookup(self._location.locate(), names.DISPATCHER)
                if uri is None:
                    raise NoDispatcher(f"the name server {self._location} knows no dispatcher")
                self._proxy = connect(uri, timeout=TIMEOUT, connect_timeout=TIMEOUT)
            return getattr(self._proxy, what)(argument)
        except NoDispatcher:
            raise
        except (CommunicationError, NamingError, OSError, PyroError) as error:
            self.close()
            raise ConnectionError(f"the dispatcher does not answer: {error}") from error
        except AttributeError as error:
            self.close()
            raise ConnectionError(
                "the dispatcher is of a version that tells nothing to dashboards"
            ) from error


class Poller:
    """Looks at a cluster every second in a thread of its own, and tells whoever asks.

    Parameters
    ----------
    location : NameServerLocation
    every : float, default `EVERY`
        Seconds between two looks.
    """

    def __init__(self, location: NameServerLocation, every: float = EVERY) -> None:
        self._looking = Looking(location)
        self._every = every
        self._history = History()
        self._lock = threading.Lock()
        self._messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._number = 0  # of the latest message
        self._problem = "connecting"
        self._told = ""
        self._patient_until = time.monotonic() + PATIENCE  # a cluster may be starting
        self._watched: dict[str, float] = {}  # sessions, and until when
        self._details: dict[str, dict[str, Any]] = {}
        self._details_at = 0.0
        self._listeners: set[Callable[[], None]] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and tell those who listen."""
        self._ending.set()
        self._thread.join(TIMEOUT)
        self._notify()

    @property
    def ended(self) -> bool:
        """Whether it is closed."""
        return self._ending.is_set()

    @property
    def latest(self) -> Snapshot | None:
        """The latest snapshot while the dispatcher answers, else None."""
        with self._lock:
            return None if self._problem else self._history.latest

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call something after each look; return what ends that."""
        with self._lock:
            self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def messages(self, after: int | None) -> tuple[list[str], int]:
        """Return the messages for a page as JSON, and the number of the latest.

        Parameters
        ----------
        after : int or None
            The number of the last that the page has; None where it has none, and is told everything.
        """
        with self._lock:
            if after is None or self._number - after > len(self._messages):
                whole = {"problem": self._problem, **self._history.state()}
                return [_json("state", whole)], self._number
            new = self._number - after
            return list(self._messages)[len(self._messages) - new :], self._number

    def watch(self, session: str) -> dict[str, Any] | None:
        """Return what is known of a session that somebody looks at, and look at it for a while."""
        with self._lock:
            known = self._history.latest
            if known is not None and any(view.name == session for view in known.sessions):
                self._watched[session] = time.monotonic() + WATCHED_FOR
                while len(self._watched) > MOST_WATCHED:
                    del self._watched[min(self._watched, key=self._watched.__getitem__)]
            return self._details.get(session)

    # The thread.

    def _run(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                self._look()
            except Exception as error:  # a dispatcher that lies must not end what looks at it
                self._looking.close()
                if isinstance(error, NoDispatcher) and self._history.latest is None:
                    self._tell(f"waiting for a dispatcher: {error}", logging.INFO)
                elif isinstance(error, ConnectionError):
                    self._tell(str(error))
                else:
                    self._tell(f"the dispatcher's answer is refused: {error!r}")
            self._ending.wait(max(self._every - (time.monotonic() - began), 0.05))
        self._looking.close()

    def _look(self) -> None:
        for snapshot in self._looking.snapshots():
            with self._lock:
                self._problem = self._told = ""
                self._say("tick", self._history.add(snapshot))
        now = time.monotonic()
        if now >= self._details_at + DETAILS_EVERY:
            with self._lock:
                self._watched = {name: until for name, until in self._watched.items() if until > now}
                watched = list(self._watched)
            for name in watched:
                details = self._looking.details(name)
                with self._lock:
                    if details is not None:
                        self._details.pop(name, None)
                        self._details[name] = as_dict(details)
                        while len(self._details) > DETAILS_KEPT:
                            del self._details[next(iter(self._details))]
            self._details_at = now
        self._notify()

    def _tell(self, problem: str, level: int = logging.WARNING) -> None:
        with self._lock:
            patient = level > logging.INFO and time.monotonic() < self._patient_until
            if problem != self._told and not patient:
                logger.log(level, "%s", problem)
                self._told = problem
            self._problem = problem
            self._say("problem", {"problem": problem})
        self._notify()

    def _say(self, kind: str, message: dict[str, Any]) -> None:
        self._number += 1
        self._messages.append(_json(kind, message))

    def _notify(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


def _json(kind: str, message: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, **message}, allow_nan=False, separators=(",", ":"))

"""The dispatcher: what all connections share, and what those who watch a cluster ask."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distcorpus._version import __version__
from distcorpus.algorithms.summation import compiled_kernels
from distcorpus.corpora.roots import Roots
from distcorpus.dispatcher.journal import Journals
from distcorpus.dispatcher.limits import Limits
from distcorpus.dispatcher.looking import Looks, Owner, spool_free
from distcorpus.dispatcher.records import Records
from distcorpus.dispatcher.watching import Watch
from distcorpus.engines.pyro import PyroEngine
from distcorpus.kernels.build import differences, this_build
from distcorpus.monitor import text
from distcorpus.training.session import Session
from distcorpus.wire import PyroError, Written, expose

logger = logging.getLogger(__name__)

#: Seconds that a dispatcher which is ending gives the calls under way to be answered.
DRAIN_TIMEOUT = 5.0
#: Differences between builds that a snapshot tells of.
MOST_DIFFERENCES = 100
#: Seconds between two log lines about a session.
PROGRESS_EVERY = 10.0
#: The most seconds between two looks for sessions that are idle.
IDLE_POLL = 10.0


class Dispatcher:
    """The engine, the options, the sessions.

    Parameters
    ----------
    engine : PyroEngine
        Computes the rounds.
    list_stock_workers : callable
        Returns the registered names of gensim's own workers, which this dispatcher cannot use.
    max_queued : int
        Chunks that a session may have waiting; 0: no limit.
    memory : int
        Bytes of chunks that a session keeps in memory.
    spool : Path, optional
        Directory where it keeps the others.
    journals : Journals, optional
        Keeps the sessions of our own models for a dispatcher after this one.
    limits : Limits, optional
        What sessions may take.
    corpora : Roots, optional
        The corpora that this process may read.
    idle : float, optional
        Seconds without a call after which a session is ended.
    watch : Watch, optional
        What `engine` tells of what happens.
    location : str
        Where this process listens.
    certificate_expires : callable, optional
        Returns when (in seconds since 1970) its certificate does; None without TLS.
    refused : callable
        Returns how many connections were refused, by reason.
    """

    def __init__(
        self,
        engine: PyroEngine,
        *,
        list_stock_workers: Callable[[], list[str]] = list,
        max_queued: int = 10,
        memory: int = 2 << 30,
        spool: Path | None = None,
        journals: Journals | None = None,
        limits: Limits | None = None,
        corpora: Roots | None = None,
        idle: float | None = None,
        watch: Watch | None = None,
        location: str = "",
        certificate_expires: Callable[[], float] | None = None,
        refused: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self.limits = limits or Limits()
        self.idle = idle
        self.corpora = corpora or Roots()
        self.engine = engine
        self._list_stock_workers = list_stock_workers
        self.journals = journals
        self.session_options = {
            "max_queued": max_queued,
            "memory": memory,
            "spool": spool,
            "room": self.limits.has_room,
        }
        self.exit_asked = threading.Event()
        self.ending = threading.Event()
        #: Whether our own models will go on with a dispatcher after this one, which is ending.
        self.keeps_sessions = journals is not None
        self.sessions: dict[str, Session] = {}
        self.owners: dict[str, Owner] = {}
        self.watch = watch or Watch()
        self._location = location
        self._certificate_expires = certificate_expires
        self._spool = "" if spool is None else str(spool)
        self._looks = Looks(
            engine, self.watch, self._about, self._owned, refused, self.stock_workers, max_queued
        )
        self._records = Records(engine.records)
        self.connections: weakref.WeakSet[Any] = weakref.WeakSet()  # those that have a session
        self._numbers = itertools.count(1)
        self._token = secrets.token_hex(3)
        self.started, self._started = time.time(), time.monotonic()
        self.build = this_build(compiled_kernels() is not None)

    def session_name(self, kind: str) -> str:
        """Return a name that no session of any dispatcher ever had: workers may still know those."""
        return f"{kind}-{self._token}-{next(self._numbers)}"

    def session_begins(self, session: Session, owner: Owner) -> None:
        """Tell of a session, from now on."""
        self.sessions[session.name] = session
        self.owners[session.name] = owner
        self.watch.session_begins(session.name, owner.kind, f"of a program on {owner.host}", owner.earlier)

    def session_ends(self, session: Session, outcome: Callable[[Session], tuple[str, str]]) -> None:
        """Tell for the last time of a session: how it is, and what `outcome` returns (see `SessionEnd`)."""
        name = session.name
        try:
            owner = self.owners.get(name)
            if owner is not None:
                last = replace(self._looks.session_view(session, owner), waits_for="", seconds_left=None)
                self.watch.session_ends(last, *outcome(session))
        finally:
            self.sessions.pop(name, None)
            self.owners.pop(name, None)

    def start(self) -> None:
        """Begin to end the sessions of programs that say nothing, and to log how far the others are."""
        if logger.isEnabledFor(logging.INFO):
            threading.Thread(target=self._log_progress, name="progress", daemon=True).start()
        if self.idle is not None:
            threading.Thread(target=self._end_idle, args=(self.idle,), name="idle", daemon=True).start()

    def _log_progress(self) -> None:
        told: dict[str, str] = {}  # a session that stands still is told of once
        while not self.ending.wait(PROGRESS_EVERY):
            try:
                lines = {view.name: text.progress(view) for view in self._looks.session_views()}
                for name, line in lines.items():
                    if told.get(name) != line:
                        logger.info("%s", line)
                told = lines
            except Exception:  # which is no reason to say nothing any more
                logger.exception("unexpected, in logging progress")

    def _end_idle(self, idle: float) -> None:
        while not self.ending.wait(min(idle / 4, IDLE_POLL)):
            for connection in list(self.connections):
                try:
                    connection.end_if_idle(idle)
                except Exception:  # without this thread no session would be ended any more
                    logger.exception("unexpected, in ending an idle session")

    def may_differ(self) -> list[str]:
        """Return what may give workers other bits than each other or than this dispatcher, in words."""
        found = []
        for worker in self.engine.workers():
            if worker.build:
                found += differences(self.build, worker.build, "the dispatcher", f"worker {worker.name}")
        return found

    def stock_workers(self) -> list[str]:
        """Return the registered names of gensim's own workers; none where the name server cannot be asked."""
        with suppress(PyroError):
            return self._list_stock_workers()
        return []

    def drain(self) -> None:
        """Begin no session, and let all that wait for something be told why they will not get it."""
        self.ending.set()

    def _about(self) -> dict[str, Any]:
        expires = self._certificate_expires
        return {
            "began": self.started,
            "location": self._location,
            "tls": expires is not None,
            "certificate_expires": None if expires is None else expires(),
            "versions": self.build,
            "may_differ": tuple(self.may_differ()[:MOST_DIFFERENCES]),
            "bytes_tables": self.limits.tables(),
            "bytes_limit": self.limits.total_memory,
            "spool": self._spool,
            "bytes_spool_free": spool_free(self._spool),
            "keeps_sessions": self.journals is not None,
        }

    def _owned(self) -> list[tuple[Session, Owner]]:
        owners = self.owners.copy()
        return [
            (session, owners[name])
            for name, session in sorted(self.sessions.copy().items())
            if name in owners
        ]

    @expose
    def snapshot(self, cursor: int | None = None) -> dict[str, Any]:
        """Tell all that there is to see, see `monitor.snapshot.Snapshot`.

        Parameters
        ----------
        cursor : int or None
            That of the snapshot before, for the events since; None for the latest events.
        """
        return self._looks.snapshot(cursor)

    @expose
    def details(self, session: str) -> dict[str, Any]:
        """Tell what a session has found so far, see `monitor.snapshot.Details`."""
        return self._looks.details(session)

    @expose
    def ping(self) -> str:
        """Answer at once."""
        return "pong"

    @expose
    def status(self) -> dict[str, Any]:
        """Who works, and for whom; where nobody does, also which of gensim's own workers there are."""
        workers = [asdict(worker) for worker in self.engine.workers()]
        return {
            "version": __version__,
            "build": self.build,
            "may_differ": self.may_differ(),
            "refused": self.engine.refused_workers(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "uptime_seconds": time.monotonic() - self._started,
            "workers": workers,
            "stock_workers": [] if workers else self.stock_workers(),
            "sessions": sorted(self.sessions.copy()),
            "kernels": {name: self.engine.kernels_of(name) for name in sorted(self.sessions.copy())},
        }

    @expose
    def records(self, session: str) -> Written:
        """What the latest jobs of a session cost, and where they were computed: a list of dicts, with the
        attributes of `engines.observer.JobRecord`. It may be half a second old.
        """
        return self._records.answer(session)

    @expose
    def recorded_sessions(self) -> list[str]:
        """The sessions that `records` knows, in the order in which they began."""
        return self.engine.recorded_sessions()

    @expose
    def worker_leaves(self, name: str, uri: str) -> None:
        """A worker says that it is ending: it is handed nothing more."""
        self.engine.worker_leaves(name, uri)

    @expose
    def exit(self, workers: bool = True) -> None:
        """End the dispatcher; if its workers end too, so do the cluster and all training runs."""
        logger.info("asked to exit")
        if workers:
            self.keeps_sessions = False
            self.engine.exit_workers()
        self.exit_asked.set()

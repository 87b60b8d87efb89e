"""What the dispatcher tells those who watch: a snapshot of all, and the topics of one session."""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distcorpus._machine import usable_memory
from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.dispatcher.watching import Watch
from distcorpus.engines.pyro import PyroEngine, Unusable, WorkerLook
from distcorpus.monitor.snapshot import (
    FRESH,
    SCHEMA,
    Details,
    Point,
    SessionView,
    Snapshot,
    Topic,
    Totals,
    WorkerView,
    to_message,
)
from distcorpus.training.session import Session
from distcorpus.training.standing import Standing
from distcorpus.wire.memory import resident_memory

#: Topics that are told of a session, those with the largest weights, and terms of each.
TOPICS_TOLD, TERMS_TOLD = 100, 15
#: Singular values that are.
VALUES_TOLD = 2000
#: The part of the time that telling of one session's topics may take.
DETAILS_SHARE = 0.02
#: Seconds between two questions for gensim's own workers, which matter where there are no others.
STOCK_EVERY = 2.0
#: Characters of an error that says why a session cannot be looked at.
LONGEST_REASON = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose session it is.

    Attributes
    ----------
    kind : {"lda", "lsi", "evaluation"}
    client : {"distcorpus", "gensim"}
    host : str
    pid : int or None
    role : str or None
    began : float
    word : callable, optional
        Returns the word of a term id, where the program has told them.
    earlier : str
        The session's name at the dispatcher before this one, where it goes on from there.
    """

    kind: str
    client: str
    host: str
    pid: int | None
    role: str | None
    began: float
    word: Callable[[int], str] | None = None
    earlier: str = ""


@dataclass(slots=True)
class _Told:
    """The details of a session; who asks for those of another does not wait while they are made."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made: dict[str, Any] = field(default_factory=dict)
    again_at: float = -math.inf


class Looks:
    """Makes snapshots.

    Parameters
    ----------
    engine : PyroEngine
    watch : Watch
    about : callable
        Returns the arguments of `Snapshot` that the dispatcher knows of itself.
    sessions : callable
        Returns the sessions that are open, each with its owner.
    refused : callable
        Returns how many connections were refused, by reason.
    stock_workers : callable
        Returns the names of gensim's own workers.
    max_queued : int
        Chunks of a session that may wait.
    """

    def __init__(
        self,
        engine: PyroEngine,
        watch: Watch,
        about: Callable[[], dict[str, Any]],
        sessions: Callable[[], list[tuple[Session, Owner]]],
        refused: Callable[[], dict[str, int]],
        stock_workers: Callable[[], list[str]],
        max_queued: int,
    ) -> None:
        self._engine = engine
        self._watch = watch
        self._about = about
        self._sessions = sessions
        self._refused = refused
        self._stock_workers = stock_workers
        self._stock: list[str] = []
        self._stock_at = -math.inf
        self._max_queued = max_queued
        self._lock = threading.Lock()
        self._details_lock = threading.Lock()
        self._details: dict[str, _Told] = {}
        self._made: dict[str, Any] = {}
        self._made_at = -math.inf
        self._last_event = 0
        self._memory = usable_memory()
        self._untold: set[str] = set()  # sessions of which it was logged that they cannot be looked at

    def session_views(self) -> list[SessionView]:
        """Return how far each session is."""
        now = time.monotonic()
        sessions = self._sessions()
        self._untold &= {session.name for session, _ in sessions}
        return [self._view(session, owner, now) for session, owner in sessions]

    def session_view(self, session: Session, owner: Owner) -> SessionView:
        """Return how far one session is."""
        return self._view(session, owner, time.monotonic())

    def snapshot(self, cursor: int | None) -> dict[str, Any]:
        """Return a snapshot as it travels, with what happened after `cursor`."""
        with self._lock:
            if time.monotonic() - self._made_at >= FRESH:
                # What is counted and what happened are told as of the same moment.
                self._last_event = self._watch.latest()
                self._made = to_message(self._look())
                self._made_at = time.monotonic()
            made, last = self._made, self._last_event
        return {**made, **self._watch.events(cursor, last)}

    def details(self, name: str) -> dict[str, Any]:
        """Return what is told of one session, as it travels.

        Raises
        ------
        LookupError
            There is no session of that name.
        """
        open_now = {session.name: (session, owner) for session, owner in self._sessions()}
        if name not in open_now:
            raise LookupError(f"there is no session {name[:100]!r}: it has ended, or never began")
        with self._details_lock:
            self._details = {of: told for of, told in self._details.items() if of in open_now}
            told = self._details.setdefault(name, _Told())
        with told.lock:
            began = time.monotonic()
            if began >= told.again_at:
                told.made = self._detail(*open_now[name])
                ended = time.monotonic()
                told.again_at = ended + max(FRESH, (ended - began) / DETAILS_SHARE)
            return told.made

    def _detail(self, session: Session, owner: Owner) -> dict[str, Any]:
        topics = tuple(
            Topic(
                topic.number,
                topic.weight,
                topic.terms,
                topic.probabilities,
                tuple(map(owner.word, topic.terms)) if owner.word is not None else (),
            )
            for topic in session.topics_now(TOPICS_TOLD, TERMS_TOLD)
        )
        values = session.standing().singular_values[:VALUES_TOLD]
        history = tuple(Point(*point) for point in session.curve.points())
        details = Details(
            session=session.name, time=time.time(), topics=topics, singular_values=values, history=history
        )
        return dict(to_message(details))

    def _look(self) -> Snapshot:
        now = time.monotonic()
        workers = self._engine.look()
        views = self.session_views()
        stats = self._engine.stats
        return Snapshot(
            schema=SCHEMA,
            time=time.time(),
            version=__version__,
            host=socket.gethostname(),
            pid=os.getpid(),
            bytes_resident=resident_memory() or None,
            bytes_machine=self._memory,
            bytes_documents=sum(view.bytes_memory for view in views),
            sessions=tuple(views),
            workers=tuple(
                [self._worker(look, now) for look in workers]
                + [_unusable(worker) for worker in self._engine.unusable_workers()]
                + [_stock(name) for name in ([] if workers else self._stock_now())]
            ),
            totals=Totals(
                **self._watch.totals(),
                blocks_repeated=stats.requeued,
                jobs_copied=stats.copies,
                jobs_overtaken=stats.overtaken,
                connections_refused=self._refused(),
            ),
            **self._about(),
        )

    def _stock_now(self) -> list[str]:
        """Return gensim's own workers, of which the name server is asked now and then."""
        if time.monotonic() - self._stock_at >= STOCK_EVERY:
            self._stock = self._stock_workers()
            self._stock_at = time.monotonic()
        return self._stock

    def _worker(self, look: WorkerLook, now: float) -> WorkerView:
        info, pulse, counts = look.info, look.pulse, self._watch.worker(look.info.name)
        busy, transfer, idle = counts.shares(now)
        session, round_, seconds = look.held[0] if look.held else ("", 0, None)
        return WorkerView(
            name=info.name,
            state=info.state,
            uri=info.uri,
            host=info.host,
            pid=info.pid,
            threads=info.threads,
            kernels=info.kernels,
            versions=dict(info.build),
            joined=look.joined,
            job=f"{session}, round {round_}" if session else "",
            job_seconds=seconds,
            jobs_held=len(look.held),
            jobs=counts.jobs,
            jobs_failed=counts.failed,
            jobs_lost=counts.lost,
            jobs_discarded=counts.discarded,
            documents=counts.documents,
            compute_seconds=counts.compute_seconds,
            transfer_seconds=counts.transfer_seconds,
            busy=busy,
            transfer=transfer,
            idle=idle,
            bytes_sent=counts.bytes_sent,
            bytes_received=counts.bytes_received,
            bytes_cached=pulse.bytes_cached if pulse else None,
            bytes_cache=pulse.bytes_cache if pulse else None,
            bytes_resident=pulse.bytes_resident if pulse else None,
            ping_seconds=pulse.seconds if pulse else None,
            clock_offset=pulse.clock_offset if pulse else None,
        )

    def _view(self, session: Session, owner: Owner, now: float) -> SessionView:
        """Return how far a session is; whatever is wrong with one, the others are shown."""
        try:
            return self._session(session, owner, now)
        except Exception as error:
            if session.name not in self._untold:
                self._untold.add(session.name)
                logger.exception("cannot tell where session %s stands", session.name)
            return SessionView(
                **_whose(session, owner),
                phase="unknown",
                waits_for=f"cannot be told: {type(error).__name__}: {str(error)[:LONGEST_REASON]}",
            )

    def _session(self, session: Session, owner: Owner, now: float) -> SessionView:
        stands = session.standing()
        counts = self._watch.session(session.name)
        queued, under_way, no_worker = self._engine.load_of(session.name)
        rate = counts.rate(now) if counts.documents else None
        phase = _phase(stands)
        to_do, done = stands.documents_to_do, stands.documents_done
        left = max(to_do - done, 0) / rate if to_do is not None and rate else None
        return SessionView(
            **_whose(session, owner),
            topics=stands.topics,
            terms=stands.terms,
            phase=phase,
            waits_for=_waits_for(stands, phase, queued + under_way, no_worker),
            chunks_arrived=stands.chunks_arrived,
            documents_arrived=stands.documents_arrived,
            documents_expected=stands.documents_expected,
            documents_done=done,
            documents_to_do=to_do,
            pass_=stands.pass_,
            passes=stands.passes,
            updates=stands.updates,
            updates_expected=stands.updates_expected,
            round=stands.round,
            rounds_expected=stands.rounds_expected,
            error=stands.error,
            tolerance=stands.tolerance,
            perplexity=stands.perplexity,
            progress=min(done / to_do, 1.0) if to_do else None,
            rate=rate,
            seconds_left=0.0 if phase == "done" else left,
            blocks=stands.blocks,
            blocks_done=stands.blocks_done,
            chunks_queued=math.ceil(queued * stands.chunks_of_blocks / stands.blocks) if stands.blocks else 0,
            max_queued=self._max_queued,
            jobs=counts.jobs,
            jobs_under_way=self._engine.jobs_of(session.name),
            jobs_failed=counts.failed,
            jobs_repeated=counts.lost + counts.failed,
            bytes_sent=counts.bytes_sent,
            bytes_received=counts.bytes_received,
            bytes_memory=session.spool.nbytes,
            bytes_spooled=session.spool.bytes_on_disk,
            kernels=self._engine.kernels_of(session.name),
            earlier=owner.earlier,
        )


def _whose(session: Session, owner: Owner) -> dict[str, Any]:
    """Return the arguments of `SessionView` that say whose session it is."""
    of_owner = {name: getattr(owner, name) for name in ("kind", "client", "host", "pid", "role", "began")}
    return {"name": session.name, **of_owner}


def _phase(stands: Standing) -> str:
    if stands.done:
        return "done"
    if stands.paused:
        return "paused"
    return "computing" if stands.complete else "arriving"


def _waits_for(stands: Standing, phase: str, blocks: int, no_worker: bool) -> str:
    """Say for a reader what a session waits for."""
    if no_worker:
        return "no worker"
    if phase in ("done", "paused") or (phase == "arriving" and not blocks):
        return "the client"
    if stands.passes is not None and stands.updates is not None:
        of = f" of {stands.updates_expected}" if stands.updates_expected else ""
        return f"update {stands.updates + 1}{of}"
    if stands.tolerance is not None and stands.round is not None:
        of = f" of about {stands.rounds_expected}" if stands.rounds_expected else ""
        return f"round {stands.round}{of}"
    return plural(blocks, "block")


def _unusable(worker: Unusable) -> WorkerView:
    return WorkerView(name=worker.name, state=worker.state, reason=worker.reason, uri=worker.uri)


def _stock(name: str) -> WorkerView:
    reason = "gensim's own worker, for gensim's dispatchers only: start 'distcorpus worker' in its place"
    return WorkerView(name=name, state="stock", reason=reason)


def spool_free(folder: str) -> int | None:
    """Return the bytes that are free where documents are spooled."""
    try:
        return shutil.disk_usage(folder).free if folder else None
    except OSError:
        return None

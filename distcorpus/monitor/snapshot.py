"""A look at a cluster: what the dispatcher tells of itself, its training runs, its workers and what happened.

Everything is small and plain: it travels as dicts, lists, texts and numbers, is checked when it arrives
(`from_message`), and `as_json` gives the same as JSON with these names for keys, which stay what they are as
long as `SCHEMA` does. None stands for what is not known. Times are seconds of the dispatcher's clock since
1970, durations seconds, sizes bytes. Nothing of the documents' contents is in it; topics, as term ids, are
told of one session on request (`Details`).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from itertools import islice
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

#: The number of this description: another one, where a key has changed its meaning or is gone.
SCHEMA = 1
#: The most events in one snapshot; who asks again is told the next ones.
EVENTS_A_SNAPSHOT = 2000
#: Sessions that have ended, of which is told how.
ENDS_KEPT = 20
#: Seconds for which a look will do for whoever asks: many dashboards cost little more than one.
FRESH = 0.5
#: Characters of the longest text.
LONGEST_TEXT = 4000
#: Entries of the longest list, and of the largest mapping.
LONGEST_LIST = 100_000

#: In seconds: upper bounds of `Histogram`'s buckets, after which there is one for all that is longer.
BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """One training run, or an evaluation.

    Attributes
    ----------
    name : str
        Unique for ever, such as ``lda-61f2ed-1``.
    kind : {"lda", "lsi", "evaluation"}
    client : {"distcorpus", "gensim"}
        Whose class its program uses.
    host : str
        Where the program runs.
    pid : int or None
        Its process; None of gensim's classes, which do not tell.
    role : str or None
        That of its certificate; None without TLS.
    began : float
    topics, terms : int or None
        Of the model.
    phase : {"arriving", "computing", "paused", "done", "unknown"}
        Its documents are arriving (while they do, they are computed already); all have arrived; it waits for
        its program; it has its result; where it stands cannot be told (`waits_for` says why).
    waits_for : str
        For a reader: ``"no worker"``, ``"the client"``, ``"round 12 of about 30"``.
    chunks_arrived, documents_arrived : int
    documents_expected : int or None
    documents_done : int
        Counted as often as they are computed: once a pass, or once a round of LSI.
    documents_to_do : int or None
        Of all passes, or of all rounds as far as can be told.
    pass_, passes : int or None
        Of LDA: the pass under way, from 0, and how many there will be.
    updates, updates_expected : int or None
        Of LDA: M-steps.
    round, rounds_expected : int or None
        The round under way, from 1; of LSI, about how many there will be.
    error : float or None
        Of LSI: the estimated relative error of the wanted singular value that is known worst.
    tolerance : float or None
        Of LSI: what `error` has to come to.
    perplexity : float or None
        Of LDA, where it is estimated: gensim's, ``2**-bound`` a word, of the latest chunk held against it.
    progress : float or None
        From 0 to 1.
    rate : float or None
        Documents a second, lately.
    seconds_left : float or None
    blocks, blocks_done : int
        Of the round under way.
    chunks_queued, max_queued : int
        Chunks of which something waits for a worker, and how many may (``--maxsize``); 0 for any number.
    jobs, jobs_under_way, jobs_failed, jobs_repeated : int
        Jobs that were computed, that are with workers, that raised, that went to another worker.
    bytes_sent, bytes_received : int
        Between the dispatcher and the workers.
    bytes_memory, bytes_spooled : int
        Its documents at the dispatcher.
    kernels : str or None
        Of its workers.
    earlier : str
        Its name at the dispatcher before this one, if it goes on from there (``--resume``); else empty.
    """

    name: str
    kind: str
    client: str = "distcorpus"
    host: str = ""
    pid: int | None = None
    role: str | None = None
    began: float = 0.0
    topics: int | None = None
    terms: int | None = None
    phase: str = "arriving"
    waits_for: str = ""
    chunks_arrived: int = 0
    documents_arrived: int = 0
    documents_expected: int | None = None
    documents_done: int = 0
    documents_to_do: int | None = None
    pass_: int | None = None
    passes: int | None = None
    updates: int | None = None
    updates_expected: int | None = None
    round: int | None = None
    rounds_expected: int | None = None
    error: float | None = None
    tolerance: float | None = None
    perplexity: float | None = None
    progress: float | None = None
    rate: float | None = None
    seconds_left: float | None = None
    blocks: int = 0
    blocks_done: int = 0
    chunks_queued: int = 0
    max_queued: int = 0
    jobs: int = 0
    jobs_under_way: int = 0
    jobs_failed: int = 0
    jobs_repeated: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_memory: int = 0
    bytes_spooled: int = 0
    kernels: str | None = None
    earlier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker that is registered, whether it can be used or not.

    Attributes
    ----------
    name : str
    state : {"ready", "silent", "leaving", "connecting", "refused", "unreachable", "expelled", "stock"}
        It takes jobs; it did not answer a ping in time; it is ending; it is being connected to; it cannot be
        used (`reason` says why); it does not answer at its address; it gave a false answer; it is gensim's
        own, for gensim's own dispatchers.
    reason : str
        Of the states from "refused" on; for a reader.
    uri : str
    host : str
    pid, threads : int or None
    kernels : str or None
        What computes, and which kernels.
    versions : dict of str to str
        Of Python, numpy and so on.
    joined : float or None
    job : str
        The session and round of the job under way; empty where there is none.
    job_seconds : float or None
        For how long it has been under way.
    jobs_held : int
        Jobs that are with it, the next one too.
    jobs, jobs_failed, jobs_lost, jobs_discarded : int
        Computed by it; raised; lost with it under this name and given to others; and computed for nothing,
        for another worker was faster.
    documents : int
    compute_seconds, transfer_seconds : float
        Of all its jobs; transfers overlap with computing.
    busy, transfer, idle : float or None
        Shares of the last minute: it computed; it did not, and something travelled; neither. Their sum is 1.
    bytes_sent, bytes_received : int
        To it, and from it.
    bytes_cached, bytes_cache : int or None
        Documents and topics that it keeps, and how many it may.
    bytes_resident : int or None
        Memory of its process.
    ping_seconds : float or None
        From the dispatcher to it and back, lately.
    clock_offset : float or None
        Its clock less the dispatcher's.
    """

    name: str
    state: str
    reason: str = ""
    uri: str = ""
    host: str = ""
    pid: int | None = None
    threads: int | None = None
    kernels: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    joined: float | None = None
    job: str = ""
    job_seconds: float | None = None
    jobs_held: int = 0
    jobs: int = 0
    jobs_failed: int = 0
    jobs_lost: int = 0
    jobs_discarded: int = 0
    documents: int = 0
    compute_seconds: float = 0.0
    transfer_seconds: float = 0.0
    busy: float | None = None
    transfer: float | None = None
    idle: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_cached: int | None = None
    bytes_cache: int | None = None
    bytes_resident: int | None = None
    ping_seconds: float | None = None
    clock_offset: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How long something took, by `BOUNDS`.

    Attributes
    ----------
    counts : list of int
        In each bucket, the last one for what is longer than all bounds.
    total : float
        Seconds in all.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counts since the dispatcher began; they never fall.

    Attributes
    ----------
    jobs : dict of str to dict of str to int
        By kernel and outcome (see `JobEvent`).
    job_seconds : dict of str to Histogram
        By phase: "queue", "transfer", "compute", "sum".
    round_seconds : dict of str to Histogram
        By kernel.
    documents : int
        Counted as often as they were computed.
    documents_arrived : int
    bytes_sent, bytes_received : int
        To workers, and from workers.
    sessions : dict of str to int
        Begun, by kind.
    sessions_failed : int
    blocks_repeated : int
        Blocks that went back into the queue.
    jobs_copied, jobs_overtaken : int
        Second copies of jobs that took too long, and those of them that came first.
    workers_joined, workers_lost, workers_expelled : int
    connections_refused : dict of str to int
        By reason.
    """

    jobs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    job_seconds: Mapping[str, Histogram] = field(default_factory=dict)
    round_seconds: Mapping[str, Histogram] = field(default_factory=dict)
    documents: int = 0
    documents_arrived: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    sessions: Mapping[str, int] = field(default_factory=dict)
    sessions_failed: int = 0
    blocks_repeated: int = 0
    jobs_copied: int = 0
    jobs_overtaken: int = 0
    workers_joined: int = 0
    workers_lost: int = 0
    workers_expelled: int = 0
    connections_refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One job has ended; where its time went.

    Attributes
    ----------
    number : int
        Events are numbered from 1, jobs and incidents together.
    began : float
        When it was handed to its worker.
    ended : float
    session : str
    worker : str
    round : int
    kernel : str
    outcome : {"accepted", "discarded", "failed", "handed back", "lost"}
        It is in the sum; it came too late, or nobody wanted it any more; it raised; its worker was leaving;
        its worker was lost.
    documents, blocks : int
    queue_seconds, transfer_seconds, compute_seconds, sum_seconds : float
        From `began` on: it waited, here or at its worker; it and its answer travelled; it was computed; its
        result was added to the sum.
    bytes_sent, bytes_received : int
    """

    number: int
    began: float
    ended: float
    session: str
    worker: str
    round: int
    kernel: str
    outcome: str
    documents: int
    blocks: int
    queue_seconds: float
    transfer_seconds: float
    compute_seconds: float
    sum_seconds: float
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Something happened to a worker or a session.

    Attributes
    ----------
    number : int
        See `JobEvent`.
    time : float
    kind : str
        "worker joined", "worker left", "worker lost", "worker silent", "worker answers", "worker expelled",
        "worker refused", "job failed", "session begins", "session goes on", "session ends", "session failed".
    severity : {"info", "warning", "error"}
    worker, session : str
        Empty where there is none.
    text : str
        For a reader: what, and why.
    """

    number: int
    time: float
    kind: str
    severity: str
    worker: str
    session: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """A session has ended.

    Attributes
    ----------
    number : int
        That of its incident "session ends", see `JobEvent`.
    time : float
    outcome : {"finished", "failed", "interrupted", "idle", "stopped", "kept"}
        It has its result (of gensim's `LdaModel`, which does not tell how many rounds it needs: its latest
        round was complete); it could not be computed; its program closed the connection before, for it was
        interrupted or is gone; its program called nothing for too long (``--idle``); the dispatcher was
        ended; that too, but the session can go on with the next dispatcher (``--resume``).
    reason : str
        Why, for a reader; of "failed" and "idle".
    session : SessionView
        How it was last.
    """

    number: int
    time: float
    outcome: str
    reason: str
    session: SessionView


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A look at a cluster.

    Attributes
    ----------
    schema : int
        `SCHEMA` of who made it.
    time : float
        When it was made.
    version, host : str
        Of the dispatcher.
    pid : int
    began : float
        When the dispatcher did. Where it is another than before, cursors and counts have begun again.
    location : str
        ``HOST:PORT`` where it listens.
    tls : bool
    certificate_expires : float or None
    versions : dict of str to str
        Of Python, numpy and so on, at the dispatcher.
    may_differ : list of str
        What may give workers other bits than the dispatcher's, in words.
    bytes_resident : int or None
        Memory of the dispatcher's process.
    bytes_machine : int
        Memory of its machine.
    bytes_tables, bytes_documents, bytes_limit : int
        What sessions' tables take, their documents in memory, and what all may (``--total-memory``).
    spool : str
        Where documents go for which there is no memory; empty where nowhere.
    bytes_spool_free : int or None
    keeps_sessions : bool
        Whether training runs go on with a dispatcher after this one (``--resume``).
    sessions : list of SessionView
    workers : list of WorkerView
    totals : Totals
    jobs : list of JobEvent
    incidents : list of Incident
        What has happened since the cursor that was asked for, each in the order of their numbers.
    ended : list of SessionEnd
        The sessions that have ended since then, in the same order; no more than the latest `ENDS_KEPT`.
    cursor : int
        The number of the latest event that is told: ask for what comes after it next time.
    missed : int
        Events after the cursor that was asked for which are forgotten.
    more : bool
        Whether there are further events after `cursor` already.
    """

    schema: int
    time: float
    version: str
    host: str
    pid: int
    began: float
    location: str = ""
    tls: bool = False
    certificate_expires: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    may_differ: tuple[str, ...] = ()
    bytes_resident: int | None = None
    bytes_machine: int = 0
    bytes_tables: int = 0
    bytes_documents: int = 0
    bytes_limit: int = 0
    spool: str = ""
    bytes_spool_free: int | None = None
    keeps_sessions: bool = False
    sessions: tuple[SessionView, ...] = ()
    workers: tuple[WorkerView, ...] = ()
    totals: Totals = field(default_factory=Totals)
    jobs: tuple[JobEvent, ...] = ()
    incidents: tuple[Incident, ...] = ()
    ended: tuple[SessionEnd, ...] = ()
    cursor: int = 0
    missed: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """The most probable terms of a topic.

    Attributes
    ----------
    number : int
    weight : float
        Of LDA its share of the tokens, as far as they are in the topics: those of all topics sum to 1. Of
        LSI its singular value.
    terms : list of int
        Ids.
    values : list of float
        Probabilities; of LSI, entries of the singular vector.
    words : list of str
        The terms' words where the dispatcher knows them, else empty.
    """

    number: int
    weight: float
    terms: tuple[int, ...]
    values: tuple[float, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A session at one time, for a curve.

    Attributes
    ----------
    time : float
    documents_done : int
    value : float
        Perplexity of LDA, estimated error of LSI.
    """

    time: float
    documents_done: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is told of one session on request.

    Attributes
    ----------
    session : str
    time : float
    topics : list of Topic
        As they are now; empty where there are none yet.
    singular_values : list of float
        Of LSI: the wanted ones as far as they are known, descending.
    history : list of Point
        Oldest first, a bounded number.
    """

    session: str
    time: float
    topics: tuple[Topic, ...] = ()
    singular_values: tuple[float, ...] = ()
    history: tuple[Point, ...] = ()


#: What travels as a tuple of its fields, for there are many.
_ROWS = (JobEvent, Incident, Topic, Point)


def to_message(view: Any) -> Any:
    """Return a view as it travels: plain dicts, lists, tuples, texts and numbers.

    Whatever is in the view, `from_message` takes what it becomes: what is too long is cut, a number that
    cannot be one is not known, or nothing. One session's or worker's figures hide no other's.
    """
    kind: Any = type(view)
    return _write(kind, view)


def from_message(cls: type[T], message: Any) -> T:
    """Return a view that has arrived.

    Parameters
    ----------
    cls : type
        `Snapshot`, `Details` or one of their parts.
    message : any
        What `to_message` makes; of another release it may have more keys than here, or fewer of those that
        have a value to stand in for them.

    Raises
    ------
    ValueError
        It is not that; the message says where.
    """
    found: T = _read(cls, message, cls.__name__)
    return found


def as_dict(view: Any) -> Any:
    """Return a view as JSON has it: dicts and lists only, with every key."""
    if is_dataclass(view):
        return {name: as_dict(value) for name, value in _values(view).items()}
    if isinstance(view, Mapping):
        return {key: as_dict(value) for key, value in view.items()}
    if isinstance(view, tuple | list):
        return [as_dict(value) for value in view]
    return view


def as_json(view: Any, indent: int | None = None) -> str:
    """Return a view as JSON."""
    return json.dumps(as_dict(view), indent=indent, allow_nan=False)


def _write(hint: Any, value: Any) -> Any:
    """Return a value as `_read` takes it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kind = next(part for part in parts if part is not NoneType)
        return None if value is None or not _is_told(kind, value) else _write(kind, value)
    if is_dataclass(hint):
        cls: Any = hint
        values = {name: _write(of, getattr(value, name)) for name, of in _hints(cls).items()}
        return tuple(values.values()) if hint in _ROWS else values
    if origin is tuple:
        return [_write(parts[0], item) for item in value[:LONGEST_LIST]]
    if origin is Mapping:
        items = islice(value.items(), LONGEST_LIST)
        return {_write(str, key): _write(parts[1], item) for key, item in items}
    if not _is_told(hint, value):
        return hint()
    return hint(value)[:LONGEST_TEXT] if hint is str else hint(value)


def _is_told(hint: Any, value: Any) -> bool:
    """Whether a text or a number can be told as what a hint says; other hints are not looked at."""
    kinds: dict[Any, Any] = {str: str, int: Integral, float: Real}
    if hint in kinds and not isinstance(value, kinds[hint]):
        return False
    if hint is int:
        return bool(-(2**63) <= value < 2**63)
    return hint is not float or bool(abs(value) <= sys.float_info.max)


def _values(view: Any) -> dict[str, Any]:
    kind: Any = type(view)
    return {name: getattr(view, name) for name in _hints(kind)}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _read(hint: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None:
            return None
        return _read(next(part for part in parts if part is not NoneType), value, where)
    if is_dataclass(hint):
        return _read_view(hint, value, where)
    if origin is tuple:
        if type(value) not in (list, tuple) or len(value) > LONGEST_LIST:
            raise ValueError(f"{where} is no list, or too long")
        return tuple(_read(parts[0], item, where) for item in value)
    if origin is Mapping:
        if type(value) is not dict or len(value) > LONGEST_LIST:
            raise ValueError(f"{where} is no mapping, or too large")
        return {_read(str, key, where): _read(parts[1], item, f"{where}[...]") for key, item in value.items()}
    if hint is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} is a {type(value).__name__}, not a {hint.__name__}")
    if (hint is float and not math.isfinite(value)) or (hint is int and not -(2**63) <= value < 2**63):
        raise ValueError(f"{where} is not a number that it could be")
    if hint is str and len(value) > LONGEST_TEXT:
        raise ValueError(f"{where} is a text of {len(value)} characters")
    return value


def _read_view(cls: Any, value: Any, where: str) -> Any:
    hints = _hints(cls)
    if type(value) in (list, tuple) and cls in _ROWS and len(value) == len(hints):
        value = dict(zip(hints, value, strict=True))
    if type(value) is not dict:
        raise ValueError(f"{where} is a {type(value).__name__}")
    known = {
        name: _read(hint, value[name], f"{where}.{name}") for name, hint in hints.items() if name in value
    }
    try:
        return cls(**known)
    except TypeError as error:  # something is missing that nothing stands in for
        raise ValueError(f"{where}: {error}") from None

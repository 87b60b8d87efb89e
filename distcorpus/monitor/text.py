"""Figures and sentences for people."""

from __future__ import annotations

import math

from distcorpus._text import plural
from distcorpus.monitor.snapshot import SessionView

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def size(nbytes: float | None) -> str:
    """Return bytes as ``1.2 GB``, in powers of 1000; ``-`` for what is not known."""
    if nbytes is None:
        return "-"
    # 999.5 of a unit would be read as 1000: it is one of the next.
    power = next((power for power in range(len(_SIZES)) if nbytes < 999.5 * 1000**power), len(_SIZES) - 1)
    amount = nbytes / 1000**power
    return f"{amount:.3g} {_SIZES[power]}" if power and amount < 999.5 else f"{amount:,.0f} {_SIZES[power]}"


def duration(seconds: float | None) -> str:
    """Return seconds as ``20 ms``, ``3.2 s``, ``5 min 20 s`` or ``3 d 4 h``; ``-`` for what is not known."""
    if seconds is None:
        return "-"
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, (large, small), names in (
        (3600, (60, 1), ("min", "s")),
        (86_400, (3600, 60), ("h", "min")),
        (math.inf, (86_400, 3600), ("d", "h")),
    ):
        if whole < unit:
            rest = whole % large // small
            return f"{whole // large:,} {names[0]}" + (f" {rest} {names[1]}" if rest else "")
    raise AssertionError


def count(number: float | None) -> str:
    """Return a number as ``12,000``; ``-`` for what is not known."""
    return "-" if number is None else f"{number:,.0f}"


def share(part: float | None) -> str:
    """Return a share as ``12 %``, never 100 before it is; ``-`` for what is not known."""
    return "-" if part is None else f"{math.floor(100 * part + 1e-9)} %"


def model(session: SessionView) -> str:
    """Return what is trained, as ``LDA, 100 topics, 5,000 terms``."""
    parts = ["evaluation" if session.kind == "evaluation" else session.kind.upper()]
    parts += [plural(session.topics, "topic")] if session.topics is not None else []
    parts += [plural(session.terms, "term")] if session.terms is not None else []
    return ", ".join(parts)


def owner(session: SessionView) -> str:
    """Return whose session it is, as ``alpha, pid 17``."""
    return session.host + (f", pid {session.pid}" if session.pid is not None else "")


def stage(session: SessionView) -> str:
    """Return where a session stands, as ``pass 2 of 3, update 12 of 30``."""
    parts = []
    if session.passes is not None and session.pass_ is not None and session.passes > 1:
        parts.append(f"pass {session.pass_ + 1} of {session.passes}")
    waits_for = session.waits_for
    parts += [f"waits for {waits_for}" if waits_for in ("no worker", "the client") else waits_for]
    if session.waits_for == "no worker":
        parts[-1] = "waits for a worker: there is none"
    if session.phase == "arriving":
        arrived = session.documents_arrived
        if session.documents_expected is not None:
            said = f"{count(arrived)} of {plural(session.documents_expected, 'document')}"
        else:
            said = plural(arrived, "document")
        parts.append(f"{said} {'has' if arrived == 1 else 'have'} arrived")
    if session.perplexity is not None:
        parts.append(f"perplexity {session.perplexity:,.1f}")
    if session.error is not None:
        parts.append(f"error about {session.error:.1e}")
    return ", ".join(filter(None, parts))


def progress(session: SessionView) -> str:
    """Return a line for a log: where a session stands, how fast it is, and what is left."""
    parts = [f"session {session.name}: {stage(session)}"]
    if session.progress is not None:
        parts.append(f"{share(session.progress)} of {plural(session.documents_to_do or 0, 'document')}")
    if session.rate:
        parts.append(f"{count(session.rate)} documents a second")
    if session.seconds_left:
        parts.append(f"about {duration(session.seconds_left)} left")
    queued = f"{plural(session.jobs_under_way, 'job')} with workers"
    if session.max_queued:
        queued += f", {session.chunks_queued} of {plural(session.max_queued, 'chunk')} queued"
    return "; ".join([*parts, queued])

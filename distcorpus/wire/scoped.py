"""Settings of Pyro4 and of ours that somebody has set for a while: each thread sees its own, if it has any.

A thread that has set nothing sees what was set last, by whichever thread, and is not undone yet; where nobody
has set anything, the cluster that the parent process has open. Undoing has no order: what stays is what
others have set.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from Pyro4.configuration import config

from distcorpus.wire import inherited

_lock = threading.Lock()
_entries: tuple[tuple[threading.Thread, dict[str, Any]], ...] = ()
_CLUSTERS = ("NS_HOST", "NS_PORT", "SSL", "credentials")  # what a cluster sets
_defaults: dict[str, Any] = {}


def override(**values: Any) -> Callable[[], None]:
    """Set something until what is returned is called, by any thread."""
    global _entries
    entry = threading.current_thread(), values
    with _lock:
        _entries = (*_entries, entry)

    def undo() -> None:
        global _entries
        with _lock:
            _entries = tuple(other for other in _entries if other is not entry)

    return undo


@contextmanager
def temporary() -> Iterator[None]:
    """Undo, when the block ends, what this thread has set in it."""
    global _entries
    before = _entries
    try:
        yield
    finally:
        me = threading.current_thread()
        with _lock:
            kept = {id(entry) for entry in before}  # equal ones may have been set since
            _entries = tuple(entry for entry in _entries if entry[0] is not me or id(entry) in kept)


def set_default(**values: Any) -> None:
    """Set something for where nobody has set it, and no parent has a cluster open."""
    _defaults.update(values)


def install() -> None:
    """Let Pyro4 see what is set."""
    config.__class__ = _Config


def scoped(name: str, default: Any = None) -> Any:
    """Return what this thread sees of a setting."""
    for values in (*_entries_with(name)[-1:], _of_parent(name) or _defaults):
        if name in values:
            return values[name]
    return default


def _entries_with(name: str) -> list[dict[str, Any]]:
    """Return where a setting is set, the one that this thread sees last."""
    me = threading.current_thread()
    setting = [entry for entry in _entries if name in entry[1]]
    return [values for _, values in [entry for entry in setting if entry[0] is me] or setting]


def _of_parent(name: str) -> dict[str, Any] | None:
    """Return what a cluster that the parent process has open sets; None where it has none, or not this."""
    cluster = inherited.find() if name in _CLUSTERS else None
    if cluster is None:
        return None
    values = (cluster.host, cluster.port, cluster.folder is not None, cluster.folder)
    return dict(zip(_CLUSTERS, values, strict=True))


def _setting(name: str) -> property:
    kept = getattr(type(config), name)

    def read(self: Any) -> Any:
        return scoped(name, kept.__get__(self))

    def write(self: Any, value: Any) -> None:
        entries = _entries_with(name)
        if entries:
            entries[-1][name] = value  # what is set by hand later counts, for as long
        elif _of_parent(name) is not None:
            override(**{name: value})
        elif name in _defaults:
            _defaults[name] = value
        else:
            kept.__set__(self, value)

    return property(read, write)


class _Config(type(config)):  # type: ignore[misc]
    """Pyro4's configuration, of which a thread may see a part of its own."""

    __slots__ = ()
    NS_HOST = _setting("NS_HOST")
    NS_PORT = _setting("NS_PORT")
    SSL = _setting("SSL")


def _forked() -> None:
    """In a forked child."""
    global _lock
    _lock = threading.Lock()
    inherited.forked()


os.register_at_fork(after_in_child=_forked)

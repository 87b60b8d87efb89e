"""Settings of Pyro4 and of ours that somebody has set for a while: each thread sees its own, if it has any.

A thread that has set nothing sees what was set last, by whichever thread, and is not undone yet. Undoing has
no order: what stays is what others have set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from Pyro4.configuration import config

_lock = threading.Lock()
_entries: tuple[tuple[threading.Thread, dict[str, Any]], ...] = ()


def override(**values: Any) -> Callable[[], None]:
    """Set something until what is returned is called, by any thread."""
    global _entries
    entry = threading.current_thread(), values
    with _lock:
        if type(config) is not _Config:
            config.__class__ = _Config
        _entries = (*_entries, entry)

    def undo() -> None:
        global _entries
        with _lock:
            _entries = tuple(other for other in _entries if other is not entry)

    return undo


def scoped(name: str, default: Any = None) -> Any:
    """Return what this thread sees of a setting."""
    values = _values(name)
    return default if values is None else values[name]


def _values(name: str) -> dict[str, Any] | None:
    """Return where this thread's value of a setting is; None where nobody has set one."""
    me = threading.current_thread()
    setting = [entry for entry in _entries if name in entry[1]]
    own = [entry for entry in setting if entry[0] is me]
    return (own or setting)[-1][1] if setting else None


def _setting(name: str) -> property:
    kept = getattr(type(config), name)

    def read(self: Any) -> Any:
        return scoped(name, kept.__get__(self))

    def write(self: Any, value: Any) -> None:
        values = _values(name)
        if values is None:
            kept.__set__(self, value)
        else:
            values[name] = value  # what is set by hand later counts, for as long

    return property(read, write)


class _Config(type(config)):  # type: ignore[misc]
    """Pyro4's configuration, of which a thread may see a part of its own."""

    __slots__ = ()
    NS_HOST = _setting("NS_HOST")
    NS_PORT = _setting("NS_PORT")
    SSL = _setting("SSL")

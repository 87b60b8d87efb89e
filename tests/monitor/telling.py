"""A name server, and what answers as a dispatcher and tells what a test wants, over the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from distcorpus import wire
from distcorpus.monitor.snapshot import SCHEMA, Details, Snapshot, to_message
from distcorpus.wire import expose, names
from distcorpus.wire.location import NameServerLocation


class Telling:
    """What is asked of a dispatcher by those who only look."""

    def __init__(self) -> None:
        self.snapshots_asked = 0
        self.cursors: list[int | None] = []
        self.told = Snapshot(schema=SCHEMA, time=time.time(), version="1", host="h", pid=1, began=1.0)
        self.found: dict[str, Details] = {}
        self.lie: Any = None

    @expose
    def snapshot(self, cursor: int | None = None) -> Any:
        """Tell `told`, or a lie."""
        self.snapshots_asked += 1
        self.cursors.append(cursor)
        message = to_message(replace(self.told, time=time.time()))
        return message if self.lie is None else self.lie

    @expose
    def details(self, session: str) -> Any:
        """Tell what was found."""
        if session not in self.found:
            raise LookupError("there is no such session")
        return to_message(self.found[session])


class TellingCluster:
    """A name server and a dispatcher that tells, as long as its ``with`` block.

    Parameters
    ----------
    kind : callable
        Makes what answers as a dispatcher.
    """

    def __init__(self, kind: Callable[[], Any] = Telling) -> None:
        self._kind = kind

    def __enter__(self) -> TellingCluster:
        self._nameserver = wire.NameServerDaemon(port=0)
        self._nameserver.start()
        self.begin()
        return self

    def begin(self) -> None:
        """Let a dispatcher appear."""
        self.dispatcher = self._kind()
        self._daemon = wire.Daemon()
        uri = self._daemon.serve(names.DISPATCHER, self.dispatcher)
        self._daemon.start()
        self._nameserver.nameserver.register(names.DISPATCHER, uri)

    def end(self) -> None:
        """Let it vanish."""
        self._nameserver.nameserver.remove(names.DISPATCHER)
        self._daemon.stop()

    def location(self) -> NameServerLocation:
        """Where the name server is."""
        return NameServerLocation("127.0.0.1", self._nameserver.port, broadcast=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._daemon.stop()
        self._nameserver.stop()

"""The clusters that a process has open, for those that it starts by multiprocessing or loky.

A process says which they are in a file of its user's, and its children look there each time they look for a
cluster: a pool's processes may be older than the cluster, or outlive it. A child that is started while one is
open is told, by what is pickled for it, whose file it is, and which thread started it: it sees what that
thread sees.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import process
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: Under which name the message lies in what multiprocessing hands to a child.
_KEY = "distcorpus"


@dataclass(frozen=True)
class OpenCluster:
    """A cluster that is open.

    Attributes
    ----------
    host, port
        Of its name server.
    folder : str or None
        Of the certificate of its clients, where it speaks TLS.
    thread : int
        The thread that opened it.
    """

    host: str
    port: int
    folder: str | None
    thread: int


_lock = threading.Lock()
_open: dict[OpenCluster, Callable[[], None]] = {}
_own = ""  # the name of this process's file, if there is one
_parent = ""  # the name of its file
_starter = 0  # the parent's thread that started this process


def announce(host: str, port: int, folder: str | None, in_child: Callable[[], None]) -> Callable[[], None]:
    """Let the children of this process find a cluster that this thread has opened.

    Parameters
    ----------
    host : str
    port : int
        Of its name server.
    folder : str, optional
        Of its clients' certificate.
    in_child : callable
        Is called in a forked child, which finds the cluster as others do from then on.

    Returns
    -------
    callable
        Undoes it.
    """
    cluster = OpenCluster(host, port, folder, threading.get_ident())
    with _lock:
        _open[cluster] = in_child
        _write()

    def undo() -> None:
        with _lock:
            if _open.pop(cluster, None):
                _write()

    return undo


def find() -> OpenCluster | None:
    """Return the cluster that the parent has open: the latest of the thread that started us, or of all."""
    global _parent
    if not _parent and (parent := multiprocessing.parent_process()) is not None and parent.pid:
        with suppress(OSError):
            _parent = _name_of(parent.pid)
    if not _parent:
        return None
    try:
        found = [OpenCluster(**cluster) for cluster in json.loads((_folder() / _parent).read_bytes())]
    except (OSError, ValueError, TypeError):
        return None  # it has none, or is gone
    seen = [cluster for cluster in found if cluster.thread == _starter] or found
    return seen[-1] if seen else None


def forked() -> None:
    """In a forked child: let it look where other children look."""
    global _lock, _own, _parent, _starter
    _lock = threading.Lock()
    if _own:
        _own, _parent, _starter = "", _own, threading.get_ident()
        for in_child in _open.values():
            in_child()
    _open.clear()


class _Message:
    """What a child is told when it is started; unpickled, it lies ready for the child's own children."""

    def __reduce__(self) -> Any:
        return _receive, (_own, threading.get_ident()) if _own else (_parent, _starter)


def _receive(parent: str, starter: int) -> _Message:
    global _parent, _starter
    _parent, _starter = parent, starter
    return _Message()


def _write() -> None:
    """Write what is open to this process's file; where nothing is, there is none."""
    global _own
    inheritance: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    _own = ""
    try:
        name = _name_of(os.getpid())
        path = _folder() / name
        if not _open:
            path.unlink(missing_ok=True)
        else:
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump([asdict(cluster) for cluster in _open], file)
            os.replace(file.name, path)
            _own = name
            _remove_stale(path.parent)
    except OSError as error:
        logger.warning("processes that this one starts will not find its cluster: %s", error)
    if _own:
        inheritance[_KEY] = _Message()
    elif not _parent:
        inheritance.pop(_KEY, None)


def _folder() -> Path:
    """Return the folder of this user's files.

    Raises
    ------
    OSError
        There is none that nobody else can write to.
    """
    folder = Path(tempfile.gettempdir()) / f"distcorpus-clusters-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise OSError(f"{folder} is not a directory that only this user can write to")
    return folder


def _name_of(pid: int) -> str:
    """Return the name of a process's file, which no later process of that number has."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return f"{pid}-{fields[19]}"


def _remove_stale(folder: Path) -> None:
    """Remove the files of processes that were killed."""
    for path in folder.iterdir():
        pid, _, start = path.name.partition("-")
        if pid.isdecimal() and start.isdecimal():
            try:
                alive = _name_of(int(pid)) == path.name
            except OSError:
                alive = False
            if not alive:
                path.unlink(missing_ok=True)

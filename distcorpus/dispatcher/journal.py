"""What ``dispatcher --spool DIR --resume`` keeps of each session, to go on with it after it was killed.

A session has a folder in ``DIR/sessions``, whose name is a token that only its program knows. In it are:

``session``
    what the program began with, and which version of this package wrote it
``chunk-N``
    the chunks that have arrived and are still needed
``state``
    how far the training has come
``name``
    what the session is called at its dispatcher
``end``
    there once all chunks have arrived: their number
``owner``
    empty; locked by the dispatcher that has the session

A file is written under another name and then renamed, so it is there as a whole or not at all, whenever the
dispatcher is killed. Nothing is synchronised with the disk: a power cut may lose or spoil files, which their
checksums tell. They hold messages as they travel, and are read with the same restricted serializer.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import secrets
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from distcorpus._machine import open_alone
from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.algorithms.chunk import Chunk
from distcorpus.corpora.reference import StoredChunk
from distcorpus.wire import frames

logger = logging.getLogger(__name__)

_MAGIC = b"DCJOURN1"
_HEAD = struct.Struct("!8sQI")  # the size and the CRC-32 of what follows
_HEAD_SIZE = 64  # as frames are aligned

_TOKEN = re.compile(r"[0-9a-f]{32}")
_CHUNK = re.compile(r"chunk-(\d+)")


class DamagedJournal(Exception):
    """A session's folder is not what was written, or another version wrote it."""


class Journal:
    """The folder of one session.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    BlockingIOError
        If another dispatcher has the session.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first = 0  # the lowest number of a chunk that may be there
        self._removed = False
        self._changing = threading.Lock()
        owner = open_alone(folder / "owner", os.O_WRONLY | os.O_CREAT)
        if owner is None:
            raise BlockingIOError(f"another dispatcher has the session in {folder}")
        self._owner = owner

    @property
    def token(self) -> str:
        """What its program has to know to go on with it."""
        return self.folder.name

    def __contains__(self, name: str) -> bool:
        return (self.folder / name).exists()

    def write(self, name: str, value: Any) -> None:
        """Write a file, in the place of an earlier one of that name.

        Raises
        ------
        RuntimeError
            If the disk is full, or fails.
        """
        message = frames.encode(value)
        temporary = self.folder / f".{name}"
        with self._changing:
            if self._removed:
                return  # the session was closed meanwhile
            try:
                _write(temporary, message.parts)
                temporary.replace(self.folder / name)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise RuntimeError(
                    f"{name} cannot be written to {self.folder.parent}: {error.strerror}. Make room there, "
                    "or start the dispatcher with another --spool DIR, or without --resume"
                ) from error

    def read(self, name: str) -> Any:
        """Read a file.

        Raises
        ------
        DamagedJournal
        """
        try:
            return _read(self.folder / name)
        except Exception as error:  # whatever a spoilt file leads to
            raise DamagedJournal(f"{name}: {error or type(error).__name__}") from error

    def keep(self, number: int, chunk: Chunk | StoredChunk) -> None:
        """Keep a chunk, or the references that it is, if it is not here already.

        Raises
        ------
        RuntimeError
            If the disk is full, or fails.
        """
        name = f"chunk-{number}"
        if name not in self:
            if isinstance(chunk, Chunk):
                self.write(name, (chunk.indptr, chunk.indices, chunk.data))
            else:
                self.write(name, chunk.to_message())

    def mapped(self, number: int, num_terms: int) -> Chunk:
        """Return a chunk that is kept, as maps of its file."""
        with open(self.folder / f"chunk-{number}", "rb") as file:
            # Private to this process, as frames want memory that could be written to.
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        indptr, indices, data = frames.decode(view[_HEAD_SIZE:])
        return Chunk(indptr, indices, data, num_terms)

    def chunks(
        self, first: int, num_terms: int, referred: Callable[[Any], StoredChunk]
    ) -> Iterator[Chunk | StoredChunk]:
        """Read the chunks from number `first` on; `referred` makes them of the message of references.

        Raises
        ------
        DamagedJournal
        """
        found = (_CHUNK.fullmatch(path.name) for path in self.folder.iterdir())
        end = max((int(match[1]) for match in found if match), default=-1) + 1
        if "end" in self and self.read("end") > max(end, first):
            raise DamagedJournal(f"chunk-{end} is missing")
        for number in range(first, end):
            kept = self.read(f"chunk-{number}")
            if type(kept) is dict:
                yield self._referred(number, kept, referred)
            else:
                indptr, indices, data = kept
                yield Chunk(indptr, indices, data, num_terms)

    def _referred(self, number: int, kept: Any, referred: Callable[[Any], StoredChunk]) -> StoredChunk:
        try:
            return referred(kept)
        except (TypeError, ValueError) as error:
            raise DamagedJournal(f"chunk-{number}: {error}") from error

    def drop_chunks(self, end: int) -> None:
        """Drop the chunks before number `end`."""
        for number in range(self._first, end):
            (self.folder / f"chunk-{number}").unlink(missing_ok=True)
        self._first = max(self._first, end)

    def move(self, name: str) -> None:
        """Rename the folder."""
        self.folder = self.folder.rename(self.folder.with_name(name))

    def let_go(self) -> None:
        """Write nothing more, and let others have it."""
        with self._changing:
            if not self._removed:
                self._removed = True
                os.close(self._owner)

    def remove(self) -> None:
        """Remove it; the session has ended."""
        with self._changing:
            if self._removed:
                return
            self._removed = True
        with suppress(OSError):  # it may have been removed by hand
            self.move(f".{self.token}")  # killed half-way through, it is not taken for a session
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._owner)


class Journals:
    """The sessions' folders. Those that a killed dispatcher has left wait for their programs for a while.

    Parameters
    ----------
    directory : Path
        It is made where it is missing.
    patience : float
        Seconds after which those are removed whose programs did not come.

    Raises
    ------
    ValueError
        If the directory cannot be used, or not by this user alone.
    """

    def __init__(self, directory: Path, patience: float) -> None:
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            status = directory.stat()
        except OSError as error:
            raise ValueError(f"{directory}: {error.strerror}; give another --spool DIR") from error
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError(
                f"others may read or change {directory}, which --resume keeps documents in: chmod 700 it, as "
                "its owner, or give another --spool DIR"
            )
        self._directory = directory
        self._patience = patience
        self._waiting: dict[str, Journal] = {}
        self._lock = threading.Lock()
        for folder in sorted(directory.iterdir()):
            self._find(folder)
        if self._waiting:
            said = plural(len(self._waiting), "session")
            logger.info("%s to go on with: waiting for the programs, for %g s", said, patience)
            timer = threading.Timer(patience, self._give_up)
            timer.daemon = True
            timer.start()

    def _find(self, folder: Path) -> None:
        """Take over what another dispatcher has left."""
        if not _TOKEN.fullmatch(folder.name.removeprefix(".")):
            return
        try:
            journal = Journal(folder)
        except OSError:
            return  # another dispatcher has it, or nobody
        if folder.name.startswith("."):  # it was being made or removed
            journal.remove()
            return
        try:
            version = journal.read("session")["version"]
            if version != __version__:
                raise DamagedJournal(f"it was written by distcorpus {version}, this is {__version__}")
        except DamagedJournal as error:
            self.set_aside(journal, error)
        else:
            self._waiting[journal.token] = journal

    def begin(self, task: dict[str, Any]) -> Journal:
        """Make the folder of a new session.

        Raises
        ------
        RuntimeError
            If the disk is full, or fails.
        """
        token = secrets.token_hex(16)
        hidden = self._directory / f".{token}"
        try:
            hidden.mkdir(mode=0o700)
            journal = Journal(hidden)
        except OSError as error:
            raise RuntimeError(f"no session can be kept in {self._directory}: {error.strerror}") from error
        try:
            journal.write("session", {"version": __version__, "task": task})
        except BaseException:
            journal.remove()
            raise
        journal.move(token)
        return journal

    def claim(self, token: str) -> Journal | None:
        """Return the session that waits for the program with this token; None where there is none."""
        with self._lock:
            if token not in self._waiting and _TOKEN.fullmatch(token):
                self._find(self._directory / token)  # its dispatcher may have ended after this one began
            return self._waiting.pop(token, None)

    def set_aside(self, journal: Journal, reason: DamagedJournal) -> None:
        """Keep a folder that cannot be used, for somebody to look at."""
        with suppress(OSError):
            journal.move(f"damaged-{journal.token}")
        journal.let_go()
        logger.warning(
            "a session cannot go on: %s. It is set aside as %s; remove it when you like",
            reason,
            journal.folder,
        )

    def _give_up(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for journal in waiting.values():
            logger.warning(
                "session %s is dropped: its program did not come within %g s", journal.token, self._patience
            )
            journal.remove()


def _write(path: Path, parts: list[memoryview]) -> None:
    size, checksum = 0, 0
    for part in parts:
        size, checksum = size + part.nbytes, zlib.crc32(part, checksum)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(_HEAD.pack(_MAGIC, size, checksum).ljust(_HEAD_SIZE, b"\0"))
        file.writelines(parts)


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        content = memoryview(bytearray(os.fstat(file.fileno()).st_size))
        file.readinto(content)
    magic, size, checksum = _HEAD.unpack_from(content)
    message = content[_HEAD_SIZE:]
    if magic != _MAGIC or size != message.nbytes or zlib.crc32(message) != checksum:
        raise ValueError("it is not what was written")
    return frames.decode(message)

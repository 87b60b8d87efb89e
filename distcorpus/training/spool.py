"""The chunks that a model keeps until they are no longer needed: in memory, and what does not fit on disk.

A spooled chunk lies in a file of its own that has no name: whatever ends this process, the system takes the
file back with it. Its arrays are read-only maps of that file, which need memory only while they are used.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distcorpus.algorithms.chunk import Chunk


class Journal(Protocol):
    """A place on disk from which another process can go on with a session."""

    def keep(self, number: int, chunk: Any) -> None:
        """Keep a chunk, or references to its documents, if it is not there already."""

    def mapped(self, number: int, num_terms: int) -> Chunk:
        """Return a chunk that is kept, as maps of its file."""

    def write(self, name: str, value: Any) -> None:
        """Write something else, in the place of an earlier one of that name."""

    def drop_chunks(self, end: int) -> None:
        """Drop the chunks before number `end`."""

    def let_go(self) -> None:
        """Write nothing more, and leave it to another process."""

    def remove(self) -> None:
        """Remove it; the session has ended."""


class Spool:
    """The chunks of one model, by number.

    Parameters
    ----------
    memory : int
        Bytes of chunks to keep in memory.
    directory : Path, optional
        Where the others go; without one there is no place for them.
    journal : Journal, optional
        Keeps all of them on disk, for a dispatcher after this one.
    room : callable, optional
        Whether a model that has so many bytes in memory may have so many more, beside other models.
    """

    def __init__(
        self,
        memory: int,
        directory: Path | None = None,
        journal: Journal | None = None,
        room: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.directory = directory
        self.room = room
        self._journal = journal
        self._memory = memory
        self._in_memory: dict[int, int] = {}  # bytes by number
        self._on_disk: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks in memory."""
        with self._lock:
            return sum(self._in_memory.values())

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of the others."""
        with self._lock:
            return sum(self._on_disk.values())

    def has_room(self, nbytes: int) -> bool:
        """Whether a chunk of that size fits into memory with those that are there."""
        own = self.nbytes
        return own + nbytes <= self._memory and (self.room is None or self.room(own, nbytes))

    def keep(self, number: int, chunk: Chunk) -> Chunk:
        """Keep a chunk until it is released, and its memory or its place on disk as long as somebody uses it.

        Returns
        -------
        Chunk
            The chunk to use from now on: the one that was given, or the same on disk.

        Raises
        ------
        ValueError
            If it does not fit into memory, and there is no directory.
        RuntimeError
            If the disk is full, or fails; or other models have the memory, and there is no directory.
        """
        if self._journal is not None:
            self._journal.keep(number, chunk)
        if self.has_room(chunk.nbytes):
            with self._lock:
                self._in_memory[number] = chunk.nbytes
            return chunk
        with self._lock:
            self._on_disk[number] = chunk.nbytes
        if self._journal is not None:
            return self._journal.mapped(number, chunk.num_terms)
        what = f"chunk {number} ({chunk.n_docs} documents, {chunk.nbytes / 1e6:.3g} MB)"
        if self.directory is None and self.nbytes + chunk.nbytes <= self._memory:
            raise RuntimeError(
                f"{what} does not fit into the dispatcher's memory beside the documents of other models: "
                "train when one of them has ended, or start the dispatcher with a larger --total-memory, or "
                "with --spool DIR to keep the rest on disk"
            )
        if self.directory is None:
            raise ValueError(
                f"{what} does not fit into the {self._memory / 1e6:.3g} MB that the dispatcher keeps of a "
                "model: send smaller chunks (chunksize), or start the dispatcher with a larger --memory, or "
                "with --spool DIR to keep the rest on disk"
            )
        try:
            return _on_disk(chunk, self.directory)
        except OSError as error:
            raise RuntimeError(
                f"{what} cannot be written to {self.directory}: {error.strerror}. Make room there, or start "
                "the dispatcher with another --spool DIR or a larger --memory"
            ) from error

    def release(self, number: int) -> None:
        """A chunk is no longer needed."""
        with self._lock:
            self._in_memory.pop(number, None)
            self._on_disk.pop(number, None)


def spool_directory(path: str) -> Path:
    """Return a directory for spooled chunks, made (for this user alone) where it is missing.

    Raises
    ------
    ValueError
        If no file can be written there.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise ValueError(f"--spool {path}: {error.strerror}; give a directory to write to") from error
    return directory


def _on_disk(chunk: Chunk, directory: Path) -> Chunk:
    """Write a chunk to a file without a name and map it."""
    arrays = (chunk.indptr, chunk.data, chunk.indices)  # the wider items first: all are aligned
    # Written, not mapped for writing: a full disk is then an error instead of the end of the process.
    with tempfile.TemporaryFile(dir=directory) as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    offset, maps = 0, []
    for array in arrays:
        maps.append(np.frombuffer(mapped, array.dtype, array.size, offset))
        offset += array.nbytes
    indptr, data, indices = maps
    return Chunk(indptr, indices, data, chunk.num_terms)

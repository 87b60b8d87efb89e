"""Arrays and texts in the files of a corpus' folder: written with their checksums, read as memory maps."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

#: Stands for a text that is missing; no text in UTF-8 has this byte.
_NONE = b"\xff"


class DamagedError(ValueError):
    """A file of a corpus is not what its manifest says."""


class Folder:
    """A folder that is open: its files are found in it whatever is renamed meanwhile.

    Parameters
    ----------
    path : path-like
    parent : Folder, optional
        The folder that `path` is a name in; neither it nor what is in it may then be a symbolic link.
    links : bool
        Whether what is in it may be symbolic links.

    Raises
    ------
    OSError
        If it is no folder, or cannot be read.
    """

    def __init__(
        self, path: str | os.PathLike[str], parent: Folder | None = None, *, links: bool = True
    ) -> None:
        self._links = 0 if links and parent is None else os.O_NOFOLLOW
        self.path: Path = Path(path) if parent is None else parent.path / path
        flags = os.O_RDONLY | os.O_DIRECTORY | self._links
        self._fd: int = os.open(path, flags, dir_fd=None if parent is None else parent._fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def folders(self) -> list[str]:
        """Return the names of the folders that are in it, sorted; links are none."""
        with os.scandir(self._fd) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def is_there(self) -> bool:
        """Return whether its path still leads to it, and to no other folder."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def open(self, name: str) -> int:
        """Return a descriptor of a regular file, to read.

        Raises
        ------
        OSError
            If there is none, or it is a link where none may be.
        """
        if Path(name).name != name:
            raise ValueError(f"{name!r} is not the name of a file")
        # Without O_NONBLOCK a pipe of that name would be waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | self._links, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path / name} is not a regular file")
        return descriptor

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of `most` bytes at most."""
        with os.fdopen(self.open(name), "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DamagedError(f"{self.path / name}: more than {most} bytes")
        return content


#: Files, as the system knows them, whose content was right when this process looked: checksums and checks.
_verified: dict[tuple[int, ...], tuple[Any, ...]] = {}


def mapped(
    folder: Folder,
    name: str,
    dtype: Any,
    shape: tuple[int, ...],
    checksum: str,
    again: bool = False,
    check: partial[str] | None = None,
) -> NDArray:
    """Return the array in a file, as a read-only memory map.

    The content is held against its checksum when the process first reads the file, or with `again`, and then
    given to `check`, which returns what is wrong with it.

    Raises
    ------
    DamagedError
        If the file is missing, or not that array.
    OSError
        If it cannot be read.
    """
    path = folder.path / name
    try:
        descriptor = folder.open(name)
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing: copy it again, or write the corpus again") from None
    try:
        status = os.fstat(descriptor)
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if status.st_size else b""
    finally:
        os.close(descriptor)
    dtype = np.dtype(dtype)
    header = _header(dtype, shape)
    wanted = len(header) + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) != wanted:
        raise DamagedError(
            f"{path} has {len(content)} bytes, and its manifest says {wanted}: copy it again, or write the "
            "corpus again"
        )
    seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    array: NDArray = np.ndarray(shape, dtype, buffer=content, offset=len(header))
    verified = checksum, *((check.func, check.args) if check else ())
    if again or _verified.get(seen) != verified:
        if hashlib.sha256(content).hexdigest() != checksum or content[: len(header)] != header:
            raise DamagedError(
                f"{path} has been changed: its checksum is not that of the manifest. Copy it again, or write "
                "the corpus again"
            )
        if check is not None and (wrong := check(array)):
            raise DamagedError(
                f"{path} has {wrong}: it was changed with its checksum. Write the corpus again"
            )
        _verified[seen] = verified
    return array


def remedy(error: OSError) -> str:
    """Return what to do where something cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "make room there, or give another folder" if full else "give a folder that can be written to"


class _Hashing:
    """A file that is written, with the checksum of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return self._file.write(content)


def write(folder: Path, name: str, array: NDArray) -> str:
    """Write an array as a file of a folder, in which it appears when it is complete.

    Returns
    -------
    str
        Its checksum.

    Raises
    ------
    OSError
        If that is not possible, as on a full disk; nothing is left of it.
    """
    array = np.ascontiguousarray(array)
    return write_bytes(folder, name, [_header(array.dtype, array.shape), array.reshape(-1).view(np.uint8)])


def write_bytes(folder: Path, name: str, parts: Iterable[Any]) -> str:
    """Write a file of a folder of these parts, as `write` does."""
    unfinished = folder / f"{name}.unfinished"
    try:
        with open(unfinished, "wb") as file:
            hashing = _Hashing(file)
            for part in parts:
                hashing.write(part)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / name)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return hashing.sha256.hexdigest()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return how a ``.npy`` file of an array begins."""
    file = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


# Texts: one array of bytes, and one of where each ends.


def packed_texts(texts: Iterable[str | None]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return texts as bytes, and where each ends."""
    encoded = [_NONE if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


class Texts(Sequence[Any]):
    """Texts in two arrays, which may be maps of files; None where one is missing."""

    def __init__(self, content: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._content = content
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        start = int(self._ends[number - 1]) if number else 0
        return _decoded(self._content[start : self._ends[number]].tobytes())

    def __iter__(self) -> Iterator[Any]:
        content, start = self._content.tobytes(), 0
        for end in self._ends.tolist():
            yield _decoded(content[start:end])
            start = end


def _decoded(encoded: bytes) -> str | None:
    return None if encoded == _NONE else encoded.decode("utf-8", "surrogatepass")

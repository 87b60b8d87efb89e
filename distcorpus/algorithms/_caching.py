"""Where the compiled kernels are kept, and what makes them stale: a change of any file they are made of."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distcorpus._machine import try_to_lock

#: Where the files are that kernels are made of.
PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = PACKAGE / "algorithms", PACKAGE / "kernels"
#: How long a process waits for another that compiles, in s, before it compiles without regard to it.
PATIENCE = 120.0


@functools.cache
def source_stamp() -> str:
    """Return what changes with any file of the mathematics: a kernel is inlined from several."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in room.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _candidates() -> Iterator[Path]:
    """Folders for the compiled kernels, the first that can be written being the one."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "distcorpus"
    yield ROOMS[0] / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        yield Path(home) / "distcorpus" / "kernels"


@functools.cache
def folder() -> Path | None:
    """Return the folder for the compiled kernels, made if need be; None where there is none to write to.

    What another of the folders has compiled already, as that of an image or of an install by root, is copied
    there.
    """
    for path in _candidates():
        if _is_writable(path):
            return _with_copies(path)
    # What lies there is executed, and others may write to the folder above.
    try:
        private = Path(tempfile.gettempdir()) / f"distcorpus-kernels-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        status = private.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    return _with_copies(private) if ours and _is_writable(private) else None


def _with_copies(folder: Path) -> Path:
    """Copy kernels of these sources to `folder`, and return it."""
    # numba reads an index (.nbi) and then what it lists: that has to be there before it.
    files = [file for path in _candidates() for file in path.glob(f"*-{_tag()}.*")]
    for file in sorted(files, key=lambda file: file.suffix == ".nbi"):
        copy = folder / file.name
        if not copy.exists():
            with suppress(OSError):  # then it is compiled
                unfinished = folder / f".{os.getpid()}-{file.name}"
                shutil.copyfile(file, unfinished)
                os.replace(unfinished, copy)
    return folder


def _is_writable(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def is_compiled(function: str) -> bool:
    """Return whether the disk has a kernel compiled, by ``module.function``: as far as names tell."""
    path = folder()
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    return path is not None and any(path.glob(f"{function}-{_tag()}.{version}*.nbi"))


def _tag() -> str:
    return source_stamp()[:12]


class _Turn:
    """One process at a time compiles: the others wait, and load what it has saved.

    numba's index of a kernel is read, changed and written again, so that of two processes that save at once
    one loses its work. numba holds its own lock, of this process, around all calls.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._depth = 0

    @contextmanager
    def until_saved(self) -> Iterator[None]:
        """A turn taken within ends with it: a kernel compiles those that it is made of within its own."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._file is not None:
                os.close(self._file)
                self._file = None

    def take(self) -> bool:
        """Wait for the turn; return whether it had not been ours already."""
        path = folder()
        if path is None or self._file is not None or not self._depth:
            return False
        end = time.monotonic() + PATIENCE
        with suppress(OSError):  # another user's, or a file system without locks: nobody waits
            self._file = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            while not try_to_lock(self._file) and time.monotonic() < end:
                time.sleep(0.02)
        return True


_turn = _Turn()


@functools.cache
def _cache() -> Any:
    """Return numba's cache of a function, kept in `folder` and written by one process at a time."""
    from numba.core import caching

    class Locator(caching._CacheLocator):
        """Says where numba keeps the kernels of this package, and when they are stale."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def get_cache_path(self) -> str:
            return str(self._path)

        def get_source_stamp(self) -> str:
            return source_stamp()

        def get_disambiguator(self) -> str:
            return _tag()

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            path = folder()
            return None if path is None or Path(file).resolve().parent not in ROOMS else cls(path)

    implementation = getattr(caching, "CacheImpl", None) or caching._CacheImpl  # numba before 0.6x
    implementation._locator_classes.insert(0, Locator)

    class Cache(caching.FunctionCache):
        """Looks again when the turn to compile has come."""

        def load_overload(self, signature: Any, context: Any) -> Any:
            found = super().load_overload(signature, context)
            return super().load_overload(signature, context) if found is None and _turn.take() else found

    return Cache


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return numba's ``njit`` with a cache in `folder`, or without one where there is none."""
    import numba
    from numba.core.compiler_lock import global_compiler_lock

    def decorate(function: Any) -> Any:
        kernel = numba.njit(**options)(function)
        if folder() is not None:
            compile_now = kernel.compile

            def compile_in_turn(signature: Any) -> Any:
                with global_compiler_lock, _turn.until_saved():
                    return compile_now(signature)

            kernel._cache = _cache()(function)
            kernel.compile = compile_in_turn
        return kernel

    return decorate

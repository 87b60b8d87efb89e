"""The corpora that a worker or a dispatcher may read: those under the folders that it was started with.

A program names a corpus by the checksum of its manifest, and nothing else. No path that it sends is used, and
nothing outside of these folders is reached: symbolic links in them are not followed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from distcorpus.corpora import manifest
from distcorpus.corpora.files import DamagedError, Folder
from distcorpus.corpora.store import Store

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: How deep below a root a corpus may be, and how many folders are looked at.
DEPTH, FOLDERS = 3, 10_000
#: Seconds between two looks for corpora that were not there.
LOOK_EVERY = 2.0


class Roots:
    """The corpora under some folders.

    Parameters
    ----------
    folders : sequence of str
        Each may be a corpus, or hold some.

    Raises
    ------
    ValueError
        If one is no folder, or cannot be read.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self._folders = [Path(folder).resolve() for folder in folders]
        for given, folder in zip(folders, self._folders, strict=True):
            try:
                Folder(folder, links=False)
            except OSError as error:
                raise ValueError(
                    f"--corpora {given}: {error.strerror}; give a folder that there is"
                ) from error
        #: The copies of each corpus, the one that is read first.
        self._found: dict[str, list[Store]] = {}
        self._doubted: set[str] = set()
        self._looked_at = -LOOK_EVERY
        self._lock = threading.Lock()

    def find(self, checksum: str) -> Store | None:
        """Return the corpus with this checksum of its manifest, or None.

        It is looked for again where its folder has been moved or replaced since it was found.
        """
        return next(iter(self._copies(checksum)), None)

    def _copies(self, checksum: str) -> list[Store]:
        with self._lock:
            there = [store for store in self._found.pop(checksum, []) if store.is_there()]
            if there:
                self._found[checksum] = there
            if not there or checksum in self._doubted:
                self._look_again(checksum)
            return list(self._found.get(checksum, ()))

    def read(self, checksum: str, function: Callable[[Store], T]) -> T | None:
        """Return what a function makes of the corpus with this checksum; None where it is not here.

        A copy that cannot be read is passed over for the next, and read last from then on.

        Raises
        ------
        DamagedError, OSError
            If no copy can be read; they are looked for again then, as one may have been repaired.
        """
        failed: Exception | None = None
        for store in self._copies(checksum):
            try:
                return function(store)
            except (DamagedError, OSError) as error:
                failed = error
                logger.warning("a copy of a corpus cannot be read, others are tried: %s", error)
                self._read_last(checksum, store)
        if failed is None:
            return None
        with self._lock:
            self._doubted.add(checksum)
        raise failed

    def _read_last(self, checksum: str, store: Store) -> None:
        with self._lock:
            self._found.get(checksum, []).sort(key=lambda other: other is store)

    def _look_again(self, checksum: str) -> None:
        """Look for a corpus, unless somebody has just looked."""
        now = time.monotonic()
        if self._folders and now >= self._looked_at + LOOK_EVERY:
            self._looked_at = now
            self._found.pop(checksum, None)
            self._doubted.discard(checksum)
            self._look()

    def checksums(self) -> list[str]:
        """Return those of all corpora that there are."""
        with self._lock:
            self._look()
            return sorted(self._found)

    def _look(self) -> None:
        left = FOLDERS
        for root in self._folders:
            with suppress(OSError):
                for folder in _folders(Folder(root, links=False), DEPTH):
                    left -= 1
                    if left < 0:
                        logger.warning("only the first %d folders are searched for corpora", FOLDERS)
                        return
                    self._add(folder)

    def _add(self, folder: Folder) -> None:
        try:
            content = folder.read(manifest.NAME, manifest.LARGEST)
            copies = self._found.get(manifest.checksum_of(content), [])
            if folder.path not in [store.path for store in copies]:
                store = Store(folder)
                self._found.setdefault(store.checksum, []).append(store)
                logger.info("found the corpus %s: %s", folder.path, store.checksum)
        except OSError:
            pass  # no corpus
        except DamagedError as error:
            logger.warning("a corpus is not used: %s", error)


def _folders(folder: Folder, depth: int) -> Iterator[Folder]:
    """Yield a folder and those in it, to a depth; no symbolic link is followed."""
    yield folder
    if not depth:
        return
    for name in folder.folders():
        with suppress(OSError):
            yield from _folders(Folder(name, folder), depth - 1)

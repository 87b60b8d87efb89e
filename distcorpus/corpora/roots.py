"""The corpora that a worker or a dispatcher may read: those under the folders that it was started with.

A program names a corpus by the checksum of its manifest, and nothing else. No path that it sends is used, and
nothing outside of these folders is reached: symbolic links in them are not followed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from distcorpus.corpora import manifest
from distcorpus.corpora.files import DamagedError, Folder
from distcorpus.corpora.store import Store

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
        self._found: dict[str, Store] = {}
        self._doubted: set[str] = set()
        self._looked_at = -LOOK_EVERY
        self._lock = threading.Lock()

    def find(self, checksum: str) -> Store | None:
        """Return the corpus with this checksum of its manifest, or None.

        It is looked for again where its folder has been moved or replaced since it was found.
        """
        with self._lock:
            found = self._found.get(checksum)
            if found is not None and not found.is_there():
                del self._found[checksum]
            if checksum not in self._found or checksum in self._doubted:
                self._look_again(checksum)
            return self._found.get(checksum)

    @contextmanager
    def reading(self, checksum: str) -> Iterator[Store | None]:
        """Find a corpus to read it: where that fails it is looked for again, as it may have been repaired."""
        try:
            yield self.find(checksum)
        except (DamagedError, OSError):
            with self._lock:
                self._doubted.add(checksum)
            raise

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
            if manifest.checksum_of(content) not in self._found:
                store = Store(folder)
                self._found[store.checksum] = store
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

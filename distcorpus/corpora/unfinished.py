"""The folders beside a corpus that hold what is not finished: whose they are, what may be removed there."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distcorpus._machine import open_alone


@dataclass(frozen=True)
class Kind:
    """A kind of such folders.

    Attributes
    ----------
    suffix : str
        What their names end with, after the corpus' own name.
    marker : str
        The file that is written first, and removed last.
    files : str
        The names of all files that this library writes there, as a regular expression.
    """

    suffix: str
    marker: str
    files: str

    def of(self, directory: Path) -> Path:
        """Return the folder that belongs to a corpus."""
        return directory.with_name(directory.name + self.suffix)

    def marks(self, folder: str, files: list[str]) -> bool:
        """Return whether a folder with these files is of this kind."""
        return folder.endswith(self.suffix) and self.marker in files

    def claim(self, folder: Path) -> int | None:
        """Make a folder of this kind, or take over one that is there, and lock it.

        Returns
        -------
        int or None
            The descriptor that holds the lock; None where another process has it.

        Raises
        ------
        FileExistsError
            If there is something that this library has not made.
        """
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            raise self._not_ours(folder, "it is no folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_alone(folder)
        if lock is None:
            return None
        try:
            self._check(folder)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _check(self, folder: Path) -> None:
        names = sorted(os.listdir(folder))
        strange = next((name for name in names if not self._is_ours(folder / name)), None)
        if strange is not None:
            raise self._not_ours(folder, f"it has {strange!r}")
        if names and self.marker not in names:
            raise self._not_ours(folder, f"it has no {self.marker}")

    def _is_ours(self, path: Path) -> bool:
        return bool(re.fullmatch(self.files, path.name)) and not path.is_dir()

    def _not_ours(self, folder: Path, why: str) -> FileExistsError:
        return FileExistsError(
            f"{folder} is needed while the corpus is made, and is not what an interrupted run left ({why}): "
            "rename it, or give another folder for the corpus"
        )

    def clear(self, folder: Path, kept: set[str]) -> None:
        """Remove what this library has written into a locked folder, but some files; the marker last."""
        paths = [path for path in folder.iterdir() if path.name not in kept and self._is_ours(path)]
        for path in sorted(paths, key=lambda path: path.name == self.marker):
            path.unlink()

    def remove(self, folder: Path) -> None:
        """Remove a folder that is locked, with what this library has written into it."""
        with suppress(OSError):  # what somebody else has put there stays
            self.clear(folder, set())
            folder.rmdir()


#: The counts of a build.
COUNTED = Kind(".counted", "source.json", r"source\.json|piece-\d{6,}\.(npz|unfinished)|words-\d{5,}\.arrow")
#: A corpus that is being written.
WRITING = Kind(
    ".unfinished",
    "progress.jsonl",
    r"progress\.jsonl|(manifest\.json|((document|collection)-frequencies|words-(bytes|ends)"
    r"|shard-\d{5,}-(indptr|indices|data|words|names-bytes|names-ends))\.npy)(\.unfinished)?",
)
KINDS = (COUNTED, WRITING)


def refuse_existing(directory: Path) -> None:
    """Raise a FileExistsError if there is more than an empty folder where a corpus shall be made."""
    if not os.path.lexists(directory):
        return
    if directory.is_symlink() or not directory.is_dir() or any(directory.iterdir()):
        left = [str(kind.of(directory)) for kind in KINDS if kind.of(directory).is_dir()]
        more = f" ({' and '.join(left)} may be of an earlier run: nothing there was touched)" if left else ""
        raise FileExistsError(f"{directory} exists already: give another folder, or remove it{more}")

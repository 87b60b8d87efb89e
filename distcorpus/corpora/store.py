"""A corpus on disk, open: its manifest and its arrays, which are mapped when they are first needed."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk, joined
from distcorpus.corpora import manifest
from distcorpus.corpora.files import DamagedError, Folder, Texts, mapped
from distcorpus.corpora.manifest import Manifest, Shard, file_of


class Store:
    """A corpus on disk.

    Parameters
    ----------
    folder : path-like, or Folder
    checksum : str, optional
        What the manifest's checksum has to be.

    Attributes
    ----------
    path : Path
    manifest : Manifest
    checksum : str
        The manifest's, by which the corpus is known on other machines.

    Raises
    ------
    FileNotFoundError
        If there is no corpus.
    DamagedError
        If its manifest is none, of a newer format, or another one than `checksum` says.
    """

    def __init__(self, folder: str | os.PathLike[str] | Folder, checksum: str | None = None) -> None:
        try:
            self._folder = folder if isinstance(folder, Folder) else Folder(Path(os.path.abspath(folder)))
            content = self._folder.read(manifest.NAME, manifest.LARGEST)
        except (FileNotFoundError, NotADirectoryError):
            path = folder.path if isinstance(folder, Folder) else folder
            raise FileNotFoundError(
                f"{path} is no corpus: there is no {manifest.NAME}. Give a folder that Corpus.write or "
                "distcorpus corpus build has made"
            ) from None
        self.path = self._folder.path
        self.checksum = manifest.checksum_of(content)
        if checksum is not None and checksum != self.checksum:
            raise DamagedError(
                f"{self.path} is another corpus than it was: its manifest has been changed. Open it anew"
            )
        self.manifest = Manifest.from_bytes(content, str(self.path / manifest.NAME))
        self._firsts = [shard.first for shard in self.manifest.shards]
        self._maps: dict[tuple[int, str], NDArray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Store, (self.path, self.checksum)

    def is_there(self) -> bool:
        """Return whether its folder is where it was opened, and is no other one."""
        return self._folder.is_there()

    @property
    def shards(self) -> tuple[Shard, ...]:
        """What is known of the shards."""
        return self.manifest.shards

    def part(self, number: int, part: str) -> NDArray:
        """Return an array of a shard; its checksum is looked at when this process first reads it.

        Raises
        ------
        DamagedError
            If it is not what the manifest says; the message names the file.
        """
        with self._lock:
            found = self._maps.get((number, part))
            if found is None:
                found = self._maps[number, part] = self._mapped(number, part, again=False)
        return found

    def _mapped(self, number: int, part: str, again: bool) -> NDArray:
        names = self.manifest.names[number] if self.manifest.names else 0
        return map_part(self._folder, number, self.shards[number], part, names, again)

    def verify(self) -> Iterator[str]:
        """Read every file, and yield its name when its checksum is right.

        Raises
        ------
        DamagedError
            If it is not.
        """
        for part in self.manifest.checksums:
            self._of_all(part, again=True)
            yield file_of(part)
        for number, shard in enumerate(self.shards):
            for part in shard.checksums:
                self._mapped(number, part, again=True)
                yield file_of(part, number)

    def document_frequencies(self) -> NDArray[np.int64]:
        """Return in how many documents each term is."""
        return self._of_all("document-frequencies")

    def collection_frequencies(self) -> NDArray[np.float64]:
        """Return what the values of each term add up to."""
        return self._of_all("collection-frequencies")

    def words(self) -> Texts | None:
        """Return the words by term id, where there is a dictionary."""
        if self.manifest.words < 0:
            return None
        return Texts(self._of_all("words-bytes"), self._of_all("words-ends"))

    def _of_all(self, part: str, again: bool = False) -> NDArray:
        dtype, size = {
            "document-frequencies": (np.int64, self.manifest.terms),
            "collection-frequencies": (np.float64, self.manifest.terms),
            "words-bytes": (np.uint8, self.manifest.words),
            "words-ends": (np.int64, self.manifest.terms),
        }[part]
        return mapped(self._folder, file_of(part), dtype, (size,), self.manifest.checksums[part], again)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield which documents of which shards make a range of documents: (shard, first, end) in it."""
        number = bisect_right(self._firsts, start) - 1
        while start < stop:
            shard = self.shards[number]
            end = min(stop, shard.end)
            yield number, start - shard.first, end - shard.first
            start, number = end, number + 1

    def names(self, start: int, stop: int) -> Iterator[str]:
        """Yield the names of a range of documents."""
        for number, first, end in self.spans(start, stop):
            texts = Texts(self.part(number, "names-bytes"), self.part(number, "names-ends"))
            yield from (texts[n] for n in range(first, end))

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return a range of documents: a view of the maps, or new arrays where it is of several shards."""
        return joined([self._chunk_of(*span) for span in self.spans(start, stop)], self.manifest.terms)

    def _chunk_of(self, number: int, first: int, end: int) -> Chunk:
        bounds = self.part(number, "indptr")[first : end + 1]
        begin, after = int(bounds[0]), int(bounds[-1])
        indices, data = self.part(number, "indices"), self.part(number, "data")
        return Chunk(bounds - begin, indices[begin:after], data[begin:after], self.manifest.terms)

    def gathered(self, numbers: NDArray[np.int64]) -> Chunk:
        """Return documents by their numbers, in the order of these, in new arrays."""
        of = np.searchsorted(self._firsts, numbers, side="right") - 1
        shards = [(n, np.flatnonzero(of == n)) for n in np.unique(of).tolist()]
        starts, lengths = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        for n, places in shards:
            rows, bounds = numbers[places] - self._firsts[n], self.part(n, "indptr")
            starts[places] = bounds[rows]
            lengths[places] = bounds[rows + 1] - bounds[rows]
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        indices = np.empty(indptr[-1], np.int32)
        data = np.empty(indptr[-1], np.result_type(np.float32, *(self.shards[n].dtype for n, _ in shards)))
        for n, places in shards:
            there = _entries(indptr[places], lengths[places])
            here = _entries(starts[places], lengths[places])
            indices[there], data[there] = self.part(n, "indices")[here], self.part(n, "data")[here]
        return Chunk(indptr, indices, data, self.manifest.terms)

    def indptr(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return where the documents of a range end, as `Chunk.indptr`: no document is read."""
        lengths = [
            np.diff(self.part(n, "indptr")[first : end + 1]) for n, first, end in self.spans(start, stop)
        ]
        return np.concatenate(([0], np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))))

    def words_about(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return all words of a range of documents, and some of those around it: no document is read."""
        occurs = np.zeros(self.manifest.terms, bool)
        for number, first, end in self.spans(start, stop):
            shard = self.shards[number]
            rows = self.part(number, "words")[first // shard.segment : -(-end // shard.segment)]
            found = np.unpackbits(np.bitwise_or.reduce(rows, axis=0), count=shard.terms)
            occurs[: shard.terms] |= found.view(bool)
        return np.flatnonzero(occurs).astype(np.int32)


def _entries(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of all entries of documents that begin at `starts`."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)


def map_part(
    folder: Folder, number: int, shard: Shard, part: str, name_bytes: int = 0, again: bool = False
) -> NDArray:
    """Return an array of a shard as a memory map, see `files.mapped`.

    Compiled code relies on what these arrays hold, so that this is looked at with the checksum.
    """
    dtype, shape = {
        "indptr": (np.int64, (shard.n_docs + 1,)),
        "indices": (np.int32, (shard.entries,)),
        "data": (shard.dtype, (shard.entries,)),
        "words": (np.uint8, (shard.n_segments, shard.word_bytes)),
        "names-bytes": (np.uint8, (name_bytes,)),
        "names-ends": (np.int64, (shard.n_docs,)),
    }[part]
    name, check = file_of(part, number), partial(_wrong, part, shard)
    return mapped(folder, name, dtype, shape, shard.checksums[part], again, check)


def _wrong(part: str, shard: Shard, array: NDArray) -> str:
    """Return what an array of a shard has that it cannot have, if it has."""
    if part == "indptr":
        fine = array[0] == 0 and array[-1] == shard.entries and bool((array[1:] >= array[:-1]).all())
        return "" if fine else f"places of documents that are none among {shard.entries} entries"
    if part == "indices" and len(array):
        fine = array.min() >= 0 and array.max() < shard.terms
        return "" if fine else f"term ids that are not below {shard.terms}"
    if part == "data" and len(array):
        fine = array.min() >= shard.least and array.max() <= shard.largest  # of NaN neither is true
        return "" if fine else f"values that are not from {shard.least:g} to {shard.largest:g}"
    return ""

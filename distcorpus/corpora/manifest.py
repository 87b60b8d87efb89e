"""What is known of a corpus on disk without reading a document: its manifest, a file of JSON."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from distcorpus.algorithms.chunk import MAX_TERMS
from distcorpus.corpora.files import DamagedError

#: The manifest's name in a corpus' folder.
NAME = "manifest.json"
FORMAT, VERSION = "distcorpus corpus", 1
#: Bytes of a manifest: a shard takes half a kilobyte.
LARGEST = 64 << 20

#: The arrays of a shard: a CSR matrix, and the words of each segment of its documents, a bit a term.
PARTS = ("indptr", "indices", "data", "words")
#: Those of names.
TEXTS = ("bytes", "ends")

#: Entries, and documents, with which a shard is full.
SHARD_ENTRIES, SHARD_DOCUMENTS = 1 << 23, 1 << 20
#: Documents of a segment, at least, and entries that it should have for each term of the vocabulary.
SEGMENT_DOCUMENTS, SEGMENT_ENTRIES = 64, 0.25

_CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Shard:
    """What is known of some consecutive documents that are stored together.

    Attributes
    ----------
    first, end : int
        Its documents.
    entries : int
    dtype : str
        Of the values: float32 where that is exact, or else float64.
    weighting : str
        "counts" where all values are whole and positive, or else "weights".
    least, largest, total : float
        The smallest and the largest value and the sum of all; 0 without entries.
    segment : int
        Documents of a segment; the last one has fewer.
    terms : int
        One more than the largest term id, which is how many bits the words of a segment have.
    checksums : dict of str to str
        SHA-256 of its files by part, see `PARTS`, and where there are names `TEXTS`.
    """

    first: int
    end: int
    entries: int
    dtype: str
    weighting: str
    least: float
    largest: float
    total: float
    segment: int
    terms: int
    checksums: Mapping[str, str]

    @property
    def n_docs(self) -> int:
        """The number of documents."""
        return self.end - self.first

    @property
    def n_segments(self) -> int:
        """The number of segments."""
        return -(-self.n_docs // self.segment)

    @property
    def word_bytes(self) -> int:
        """Bytes that hold the words of a segment."""
        return -(-self.terms // 8)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a corpus.

    Attributes
    ----------
    documents, entries, terms : int
    weighting : str
        "counts" where that is the weighting of all shards, or else "weights".
    shards : tuple of Shard
    words : int
        How many bytes the words of the dictionary take; -1 where there is none.
    names : tuple of int
        How many bytes the names of each shard's documents take; empty where they have none.
    checksums : dict of str to str
        SHA-256 of the files that are of no shard, by name without ``.npy``.
    """

    documents: int
    entries: int
    terms: int
    weighting: str
    shards: tuple[Shard, ...]
    words: int
    names: tuple[int, ...]
    checksums: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """Return the content of the file; equal corpora have equal ones."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, what: str) -> Manifest:
        """Read and check the content of a manifest.

        Raises
        ------
        DamagedError
            If it is none, contradicts itself, or is of a newer format; the message begins with `what`.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{what} is no manifest: {error}") from None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise DamagedError(f"{what} is not the manifest of a corpus")
        version = values.pop("version", None)
        if type(version) is not int or version < 1:
            raise DamagedError(f"{what} says no version of its format")
        if version > VERSION:
            raise DamagedError(
                f"{what} is of format {version}, and this distcorpus reads up to {VERSION}: install a newer "
                "one (pip install --upgrade distcorpus)"
            )
        try:
            manifest = cls(
                **{
                    **values,
                    "shards": tuple(Shard(**shard) for shard in values["shards"]),
                    "names": tuple(values["names"]),
                }
            )
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(f"{what} contradicts itself: {error}") from None
        return manifest

    def _check(self) -> None:
        sizes = [self.documents, self.entries, self.terms, *self.names, self.words + 1]
        checksums = list(self.checksums.values())
        end = 0
        for shard in self.shards:
            sizes += [shard.first, shard.n_docs, shard.entries, shard.segment - 1, shard.terms]
            _want(shard.first == end and shard.n_docs > 0, "documents of its shards")
            _want(shard.terms <= self.terms, "terms of its shards")
            _want(shard.dtype in ("float32", "float64"), "types of its shards")
            numbers = (shard.least, shard.largest, shard.total)
            _want(all(type(n) is float and math.isfinite(n) for n in numbers), "values of its shards")
            wanted = {*PARTS, *(f"names-{part}" for part in TEXTS if self.names)}
            _want(set(shard.checksums) == wanted, "files of its shards")
            checksums += shard.checksums.values()
            end = shard.end
        _want(all(type(size) is int and 0 <= size < 2**62 for size in sizes), "sizes")
        _want(end == self.documents, "number of documents")
        _want(sum(shard.entries for shard in self.shards) == self.entries, "number of entries")
        _want(self.terms <= MAX_TERMS, "number of terms")
        _want(len(self.names) in (0, len(self.shards)), "names of its documents")
        _want(self.weighting == weighting(self.shards), "weighting")
        _want(all(type(c) is str and bool(_CHECKSUM.fullmatch(c)) for c in checksums), "checksums")
        wanted = {"document-frequencies", "collection-frequencies"}
        wanted |= {f"words-{part}" for part in TEXTS if self.words >= 0}
        _want(set(self.checksums) == wanted, "files")


def weighting(shards: tuple[Shard, ...]) -> str:
    """Return the weighting of all values."""
    kinds = {shard.weighting for shard in shards}
    if not kinds <= {"counts", "weights"}:
        raise ValueError("its shards have an unknown weighting")
    return "weights" if "weights" in kinds else "counts"


def _want(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"its {what}")


def file_of(part: str, shard: int | None = None) -> str:
    """Return the name of a file; no manifest can say another one."""
    return f"{part}.npy" if shard is None else f"shard-{shard:05d}-{part}.npy"


def checksum_of(content: bytes) -> str:
    """Return the checksum of a manifest, by which a corpus is known on all machines."""
    return hashlib.sha256(content).hexdigest()


def shard_from(values: Mapping[str, Any]) -> Shard:
    """Return the shard that was written down as a dict."""
    return Shard(**{field.name: values[field.name] for field in fields(Shard)})

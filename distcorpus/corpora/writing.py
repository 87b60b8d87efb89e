"""Writing a corpus to disk, chunk after chunk, in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus._machine import free_memory
from distcorpus.algorithms.chunk import LARGEST_WEIGHT, MAX_TERMS, Chunk, as_chunk, joined
from distcorpus.corpora import files, manifest
from distcorpus.corpora.files import Folder
from distcorpus.corpora.manifest import (
    SEGMENT_DOCUMENTS,
    SEGMENT_ENTRIES,
    SHARD_DOCUMENTS,
    SHARD_ENTRIES,
    Manifest,
    Shard,
    file_of,
)
from distcorpus.corpora.reading import HOW_TO_NUMBER
from distcorpus.corpora.store import map_part
from distcorpus.corpora.unfinished import WRITING, refuse_existing

#: Bytes that a term of the vocabulary takes, and terms that an entry may come with where there are many.
TERM_BYTES, TERMS_OF_AN_ENTRY, SMALL_VOCABULARY = 16, 64, 1 << 22
#: What an interrupted writer leaves of each shard, a line of JSON.
_PROGRESS = WRITING.marker


class ShardWriter:
    """Writes a corpus to disk, chunk after chunk.

    Everything is written to a folder beside the final one, which it becomes when it is complete: until then
    there is none that could be opened. Where shards end follows from the documents alone, and so does every
    byte, however the documents were divided into chunks.

    Parameters
    ----------
    directory : path-like
        The folder to make.
    num_terms : int, optional
        The size of the vocabulary, where it is known before; larger term ids are then refused at once.
    source : str, optional
        Says which documents are written: where an earlier writer of the same source was interrupted, its
        complete shards are kept, and `n_docs` says how many documents they have, which are not to be given
        again. Without one everything is written anew.

    Attributes
    ----------
    directory : Path
    n_docs : int
        The documents that are written, or were added.

    Raises
    ------
    FileExistsError
        If there is something at `directory` already.
    RuntimeError
        If another process writes the same corpus.
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> with ShardWriter("reviews.corpus") as writer:              # doctest: +SKIP
    ...     for chunk in chunks:
    ...         writer.add(chunk)
    ...     writer.finish(id2word=dictionary)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        num_terms: int | None = None,
        *,
        source: str | None = None,
    ) -> None:
        self.directory = Path(os.path.abspath(directory))
        self._given_terms = num_terms
        self._most_terms = MAX_TERMS if num_terms is None else num_terms
        refuse_existing(self.directory)
        self._source = source
        self._unfinished = WRITING.of(self.directory)
        lock = WRITING.claim(self._unfinished)
        if lock is None:
            raise RuntimeError(
                f"another process writes the corpus {self.directory}: wait for it, or give another folder"
            )
        self._lock = lock
        self._shards: list[Shard] = []
        self._name_bytes: list[int] = []
        self._chunks: list[Chunk] = []
        self._names: list[str] = []
        self._named: bool | None = None
        self._finished = False
        try:
            refuse_existing(self.directory)  # another process may just have finished it
            self._begin()
        except BaseException:
            os.close(self._lock)
            raise
        self.n_docs = self._shards[-1].end if self._shards else 0

    def _begin(self) -> None:
        """Take over the shards of an earlier writer of the same source, and remove all else."""
        folder = Folder(self._unfinished)
        about = {"version": manifest.VERSION, "source": self._source, "terms": self._given_terms}
        try:
            first, *lines = (self._unfinished / _PROGRESS).read_text("utf-8").splitlines()
            if self._source is not None and json.loads(first) == about:
                for line in lines:
                    self._take_over(folder, json.loads(line))
        except (OSError, ValueError, KeyError, TypeError):  # it was interrupted: what it has up to there
            pass
        kept = {_PROGRESS}
        for number, shard in enumerate(self._shards):
            kept |= {file_of(part, number) for part in shard.checksums}
        WRITING.clear(self._unfinished, kept)
        lines = [json.dumps(about), *(self._line(number) for number in range(len(self._shards)))]
        (self._unfinished / _PROGRESS).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def _take_over(self, folder: Folder, values: Mapping[str, Any]) -> None:
        shard, name_bytes = manifest.shard_from(values["shard"]), values["names"]
        number = len(self._shards)
        for part in shard.checksums:
            map_part(folder, number, shard, part, name_bytes)
        self._shards.append(shard)
        if name_bytes >= 0:
            self._name_bytes.append(name_bytes)
        self._named = name_bytes >= 0

    def _line(self, number: int) -> str:
        names = self._name_bytes[number] if self._name_bytes else -1
        return json.dumps({"shard": asdict(self._shards[number]), "names": names})

    def add(self, documents: Any, names: Iterable[str] | None = None) -> None:
        """Add the next documents.

        Parameters
        ----------
        documents : Chunk, sequence of documents, or scipy sparse matrix
            As `as_chunk` takes them.
        names : iterable of str, optional
            The documents' names: of all documents, or of none.

        Raises
        ------
        ValueError, TypeError
            If a document is none, see `as_chunk`; if a value is too large, or a term id so large that the
            vocabulary does not fit into the memory; if there are more or fewer names than documents.
        OSError
            If it cannot be written, as on a full disk.
        """
        what = f"documents from {self.n_docs} on"
        chunk = as_chunk(documents, self._most_terms, largest=LARGEST_WEIGHT, what=what)
        if not chunk.n_docs:
            return
        texts = None if names is None else list(names)
        if self._named is None:
            self._named = texts is not None
        if self._named != (texts is not None) or (texts is not None and len(texts) != chunk.n_docs):
            given = "no" if texts is None else len(texts)
            raise ValueError(f"{what}: {given} names for {chunk.n_docs}: name all documents, or none")
        if texts is not None:
            wrong = next((text for text in texts if not isinstance(text, str)), None)
            if wrong is not None:
                raise TypeError(f"{what}: the name {wrong!r} is a {type(wrong).__name__}: give a str")
            self._names += texts
        self._chunks.append(chunk)
        self.n_docs += chunk.n_docs
        while self._is_full():
            waiting = joined(self._chunks, self._most_terms)
            # The documents until there are enough entries, and the one with which there are.
            stop = int(np.searchsorted(waiting.indptr, SHARD_ENTRIES))
            stop = min(stop, SHARD_DOCUMENTS, waiting.n_docs)
            self._write(waiting.slice(0, stop), self._names[:stop])
            self._chunks, self._names = [waiting.slice(stop, waiting.n_docs)], self._names[stop:]
        self._chunks[-1] = self._chunks[-1].copy()  # whoever gave it may change it

    def _is_full(self) -> bool:
        n_docs, entries = (
            sum(sizes) for sizes in zip(*((c.n_docs, c.nnz) for c in self._chunks), strict=True)
        )
        return n_docs >= SHARD_DOCUMENTS or entries >= SHARD_ENTRIES

    def _write(self, chunk: Chunk, names: list[str]) -> None:
        number = len(self._shards)
        chunk = as_chunk(chunk, self._most_terms)  # float32 if that holds all of these
        terms = int(chunk.indices.max(initial=-1)) + 1
        _check_vocabulary(terms)
        segment = segment_size(chunk.n_docs, chunk.nnz, terms)
        arrays = {
            "indptr": chunk.indptr,
            "indices": chunk.indices,
            "data": chunk.data,
            "words": words_of_segments(chunk, segment, terms),
        }
        if self._named:
            content, ends = files.packed_texts(names)
            arrays |= {"names-bytes": content, "names-ends": ends}
        checksums = {part: self._written(file_of(part, number), array) for part, array in arrays.items()}
        first = self._shards[-1].end if self._shards else 0
        whole = bool((chunk.data > 0).all()) and bool((chunk.data == np.floor(chunk.data)).all())
        shard = Shard(
            first=first,
            end=first + chunk.n_docs,
            entries=chunk.nnz,
            dtype=chunk.data.dtype.name,
            weighting="counts" if whole else "weights",
            least=float(chunk.data.min()) if chunk.nnz else 0.0,
            largest=float(chunk.data.max()) if chunk.nnz else 0.0,
            total=chunk.total(),
            segment=segment,
            terms=terms,
            checksums=checksums,
        )
        self._shards.append(shard)
        if self._named:
            self._name_bytes.append(arrays["names-bytes"].nbytes)
        with open(self._unfinished / _PROGRESS, "a", encoding="utf-8") as file:
            file.write(f"{self._line(number)}\n")

    def _written(self, name: str, array: NDArray) -> str:
        try:
            return files.write(self._unfinished, name, array)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OSError:
        return OSError(
            error.errno,
            f"the corpus {self.directory} cannot be written: {error.strerror}; {files.remedy(error)}",
        )

    def finish(self, id2word: Any = None) -> Path:
        """Write what is left, and make the folder of all.

        Parameters
        ----------
        id2word : mapping of int to str, gensim Dictionary, or sequence of str, optional
            The words, by term id. Without it the corpus has none.

        Returns
        -------
        Path
            The folder, which `Corpus` opens.

        Raises
        ------
        ValueError, TypeError
            If a term has an id beyond the dictionary, or words are not strings; without a dictionary, if the
            largest term id makes a vocabulary that is much larger than the documents.
        OSError
            If it cannot be written.
        """
        waiting = joined(self._chunks, self._most_terms)
        if waiting.n_docs:
            self._write(waiting, self._names)
            self._chunks, self._names = [], []
        words = None if id2word is None else words_by_id(id2word)
        terms = max((shard.terms for shard in self._shards), default=0)
        size = terms if words is None else len(words)
        size = size if self._given_terms is None else max(size, self._given_terms)
        if terms > size:
            raise ValueError(
                f"the documents have the term id {terms - 1}, and id2word has {size} words: give the id2word "
                "that they were made with"
            )
        if words is None and self._given_terms is None:
            _check_ids(size, sum(shard.entries for shard in self._shards))
        in_documents, in_all = self._frequencies(size)
        arrays: dict[str, NDArray] = {"document-frequencies": in_documents, "collection-frequencies": in_all}
        word_bytes = -1
        if words is not None:
            content, ends = files.packed_texts([*words, *[None] * (size - len(words))])
            word_bytes = content.nbytes
            arrays |= {"words-bytes": content, "words-ends": ends}
        checksums = {part: self._written(file_of(part), array) for part, array in arrays.items()}
        content_of_all = Manifest(
            documents=self.n_docs,
            entries=sum(shard.entries for shard in self._shards),
            terms=size,
            weighting=manifest.weighting(tuple(self._shards)),
            shards=tuple(self._shards),
            words=word_bytes,
            names=tuple(self._name_bytes),
            checksums=checksums,
        ).to_bytes()
        try:
            files.write_bytes(self._unfinished, manifest.NAME, [content_of_all])
            os.fsync(self._lock)
            refuse_existing(self.directory)
            self._unfinished.rename(self.directory)
            (self.directory / _PROGRESS).unlink()
        except FileExistsError:
            raise
        except OSError as error:
            raise self._cannot_write(error) from error
        self._finished = True
        self.close()
        return self.directory

    def _frequencies(self, num_terms: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return in how many documents each term is, and what its values add up to."""
        in_documents, in_all = np.zeros(num_terms, np.int64), np.zeros(num_terms)
        folder = Folder(self._unfinished)
        for number, shard in enumerate(self._shards):
            indices = map_part(folder, number, shard, "indices")
            data = map_part(folder, number, shard, "data")
            in_documents += np.bincount(indices, minlength=num_terms)
            in_all += np.bincount(indices, data, minlength=num_terms)
        return in_documents, in_all

    def discard(self) -> None:
        """Remove what was written, if it is not finished."""
        if not self._finished and self._lock >= 0:
            WRITING.remove(self._unfinished)
        self.close()

    def close(self) -> None:
        """Write nothing more; complete shards stay for a writer of the same source, if one was given."""
        if self._lock >= 0:
            if not self._finished and (self._source is None or not self._shards):
                WRITING.remove(self._unfinished)
            os.close(self._lock)
            self._lock = -1
        self._chunks, self._names = [], []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_vocabulary(terms: int) -> None:
    """Refuse term ids whose frequencies this machine cannot hold, before memory is taken."""
    needed, free = TERM_BYTES * terms, free_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"the largest term id, {terms - 1}, makes the vocabulary, whose frequencies need "
            f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: {HOW_TO_NUMBER}"
        )


def _check_ids(terms: int, entries: int) -> None:
    """Refuse term ids that leave nearly all of a large vocabulary without an entry."""
    if terms > max(SMALL_VOCABULARY, TERMS_OF_AN_ENTRY * entries):
        raise ValueError(
            f"the largest term id, {terms - 1}, makes the vocabulary, whose frequencies take "
            f"{TERM_BYTES * terms >> 20} MB, and there are {entries} entries: {HOW_TO_NUMBER}; or give "
            "id2word, where the vocabulary is so large"
        )


def segment_size(n_docs: int, entries: int, terms: int) -> int:
    """Return how many documents of a shard make a segment: so many that their words take little room."""
    wanted = SEGMENT_ENTRIES * terms * n_docs / max(entries, 1)
    return max(SEGMENT_DOCUMENTS, min(n_docs, int(np.ceil(wanted))))


def words_of_segments(chunk: Chunk, segment: int, terms: int) -> NDArray[np.uint8]:
    """Return the words of each segment of some documents: a row of bits, see `np.packbits`."""
    rows = []
    for start in range(0, chunk.n_docs, segment):
        occurs = np.zeros(terms, bool)
        occurs[chunk.indices[chunk.indptr[start] : chunk.indptr[min(start + segment, chunk.n_docs)]]] = True
        rows.append(np.packbits(occurs))
    return np.array(rows, np.uint8).reshape(len(rows), -(-terms // 8))


def words_by_id(id2word: Any) -> list[str | None]:
    """Return the words of a dictionary by term id, None where it has none of that id.

    Raises
    ------
    ValueError, TypeError
        If it is no dictionary of whole numbers to strings.
    """
    if isinstance(id2word, Sequence) and not isinstance(id2word, str | bytes):
        items = list(enumerate(id2word))
    elif hasattr(id2word, "keys"):
        items = [(key, id2word[key]) for key in id2word.keys()]  # noqa: SIM118 - gensim's have no iterator
    else:
        raise TypeError(f"id2word is a {type(id2word).__name__}: give a Dictionary, or a dict of id to word")
    for key, word in items:
        if isinstance(key, bool) or not isinstance(key, int | np.integer) or not 0 <= key < MAX_TERMS:
            raise TypeError(f"id2word has the key {key!r}: give a dict of id to word, not of word to id")
        if not (isinstance(word, str) or word is None):
            raise TypeError(f"id2word has the word {word!r}, a {type(word).__name__}: give strings")
    words: list[str | None] = [None] * (1 + max((int(key) for key, _ in items), default=-1))
    for key, word in items:
        words[key] = word
    return words

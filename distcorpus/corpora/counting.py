"""The counts of a piece of text, in a file: which words are in which of its documents, how often."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk
from distcorpus.corpora.inputs import Input, Piece, needs
from distcorpus.corpora.records import NOT_UNICODE, Fields, Record, records
from distcorpus.corpora.words import AT_ONCE, Tokenizer, Tokens, cut, runs, tokenizer, tokens, wanted

#: Bad records of a piece that are told of, beside how many there are.
TOLD = 20


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Attributes
    ----------
    sources : tuple of Input
    fields : Fields
    tokenizer : str or function
        See `words.tokenizer`.
    stopwords : frozenset of str
    skip_bad : bool
        Skip records that have no text.
    named : bool
        Documents have names.
    """

    sources: tuple[Input, ...]
    fields: Fields
    tokenizer: str | Tokenizer
    stopwords: frozenset[str]
    skip_bad: bool
    named: bool


@dataclass(frozen=True)
class Tally:
    """What came of a piece.

    Attributes
    ----------
    documents, bad, lines : int
        Records that are documents, and that are none; lines that the piece has.
    told : list of (str, int, str)
        File, if it is none of the piece's input, line and problem of the first bad ones.
    """

    documents: int = 0
    bad: int = 0
    lines: int = 0
    told: list[tuple[str, int, str]] = field(default_factory=list)


def count(piece: Piece, reading: Reading, path: Path, known: Tally | None = None) -> Tally:
    """Count the words of a piece's documents into a file, which appears when it is complete.

    Nothing is written where a record is bad and bad ones are not skipped, or where the tally is `known`.

    Raises
    ------
    InputError
        If the input cannot be read.
    TokenizerError
        If the tokenizer failed.
    OSError
        If the file cannot be written.
    """
    if known is not None:
        return known
    words = _Words(reading)
    names: list[str] = []
    told: list[tuple[str, int, str]] = []
    bad, line = 0, 0
    for record in records(piece, reading.sources, reading.fields):
        line = record.line
        if record.blank:
            continue
        problem = record.problem or words.add(record)
        if not problem:
            names.append(record.id)
            continue
        bad += 1
        if len(told) < TOLD:
            told.append((record.where, record.line, problem))
        if not reading.skip_bad:
            return Tally(0, bad, 0, told)
    _save(path, *words.counted(), names if reading.named else [], [words.documents, bad, line])
    return Tally(words.documents, bad, line, told)


class TokenizerError(Exception):
    """A tokenizer failed: in which file, if it is none of the piece's input, in which line, and how."""

    def __init__(self, where: str, line: int, problem: str) -> None:
        super().__init__(where, line, problem)


class _Words:
    """Counts the words of texts, those of some texts or of a part of a long one at once.

    Parameters
    ----------
    reading : Reading
    """

    def __init__(self, reading: Reading) -> None:
        self.documents = 0
        self._function = tokenizer(reading.tokenizer)
        self._stopwords = reading.stopwords
        self._texts: list[Any] = []
        self._places: list[tuple[str, int]] = []  # the file and the line of each
        self._rows: list[int] = []  # the number of each text's document
        self._size = 0
        self._counted: list[tuple[NDArray[np.int64], Any, Any]] = []  # of documents, counts, and words

    def add(self, record: Record) -> str:
        """Add a document; return what is wrong with it, where it is none."""
        text, is_function = record.text, callable(self._function)
        try:
            encoded = (text if is_function else text.lower()).encode()
        except UnicodeEncodeError:
            return NOT_UNICODE
        try:
            record.id.encode()
        except UnicodeEncodeError:
            return "the name is no UTF-8: give another one"
        parts: Iterable[Any] = [text] if is_function else cut(encoded)
        for part in parts:
            self._texts.append(part)
            self._places.append((record.where, record.line))
            self._rows.append(self.documents)
            self._size += len(part)
            if self._size >= AT_ONCE:
                self._count()
        self.documents += 1
        return ""

    def _count(self) -> None:
        codes, indptr, words = self._found()
        keep = wanted(words, self._function, self._stopwords)
        kept = keep[codes]
        codes = (np.cumsum(keep, dtype=np.int32) - 1)[codes[kept]]
        indptr = np.concatenate(([0], np.cumsum(kept, dtype=np.int32)))[indptr]
        words = words.filter(needs("pyarrow").array(keep))
        shape = (len(self._texts), len(words))
        matrix = scipy.sparse.csr_array((np.ones(len(codes), np.int32), codes, indptr), shape=shape)
        matrix.sum_duplicates()
        self._counted.append((np.array(self._rows, np.int64), matrix, words))
        self._texts, self._places, self._rows, self._size = [], [], [], 0

    def _found(self) -> Tokens:
        function = self._function
        if not callable(function):
            return runs(self._texts, function)
        begun = 0

        def tokenize(text: str) -> Iterable[str]:
            nonlocal begun
            begun += 1
            return function(text)

        try:
            return tokens(self._texts, tokenize)
        except (Exception, SystemExit) as error:
            raise TokenizerError(*self._places[begun - 1], f"the tokenizer failed: {error!r}") from error

    def counted(self) -> tuple[Any, Any]:
        """Return the counts of all, documents x words (CSC), and the words (Arrow strings)."""
        self._count()
        every = needs("pyarrow").concat_arrays([words for _, _, words in self._counted]).dictionary_encode()
        codes, rows, data, begin = [], [], [], 0
        for of, matrix, words in self._counted:
            codes.append(every.indices.slice(begin, len(words)).to_numpy()[matrix.indices])
            rows.append(np.repeat(of, np.diff(matrix.indptr)))
            data.append(matrix.data)
            begin += len(words)
        places = np.concatenate(rows), np.concatenate(codes)
        shape = (self.documents, len(every.dictionary))
        whole = scipy.sparse.coo_array((np.concatenate(data), places), shape=shape).tocsc()
        whole.sum_duplicates()
        return whole, every.dictionary


def _save(path: Path, matrix: Any, words: Any, names: list[str], facts: list[int]) -> None:
    arrays: dict[str, Any] = {
        "facts": np.array(facts, np.int64),
        "indptr": matrix.indptr,
        "indices": matrix.indices.astype(np.min_scalar_type(facts[0])),
        "data": matrix.data.astype(np.min_scalar_type(int(matrix.data.max(initial=1)))),
        **_buffers("words", words),
        **_buffers("names", needs("pyarrow").array(names, "string")),
    }
    unfinished = path.with_suffix(".unfinished")
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, **arrays)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def _buffers(what: str, strings: Any) -> dict[str, NDArray]:
    """Return the arrays of an array of strings that begins at its buffers' beginning."""
    size = len(strings) + 1
    _, offsets, content = strings.buffers()
    ends = np.frombuffer(offsets, np.int32)[:size] if offsets is not None else np.zeros(size, np.int32)
    content = np.frombuffer(content, np.uint8)[: ends[-1]] if content is not None else np.empty(0, np.uint8)
    return {f"{what}_ends": ends, f"{what}_bytes": content}


class Counts:
    """The counts of a piece, from its file.

    Raises
    ------
    ValueError
        If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = np.load(path, allow_pickle=False)
            self.documents, self.bad, self.lines = self._file["facts"].tolist()
        except (zipfile.BadZipFile, EOFError, KeyError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    def check(self) -> None:
        """Read everything, which has checksums."""
        try:
            for name in self._file.files:
                self._file[name]
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(str(error)) from None

    def __enter__(self) -> Counts:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _strings(self, what: str) -> Any:
        pyarrow = needs("pyarrow")
        ends, content = self._file[f"{what}_ends"], self._file[f"{what}_bytes"]
        buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(content)]
        return pyarrow.Array.from_buffers(pyarrow.string(), len(ends) - 1, buffers)

    def words(self) -> Any:
        """Return the words, as Arrow strings."""
        return self._strings("words")

    def names(self) -> list[str] | None:
        """Return the documents' names, where they have some."""
        return self._strings("names").to_pylist() if len(self._file["names_ends"]) > 1 else None

    def of_words(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return in how many documents each word is, and which is the first."""
        indptr, indices = self._file["indptr"], self._file["indices"]
        return np.diff(indptr).astype(np.int64), indices[indptr[:-1]].astype(np.int64)

    def chunk(self, ids: NDArray[np.int32], num_terms: int) -> Chunk:
        """Return the documents, where word ``w`` is the term ``ids[w]``, or, where that is -1, none."""
        matrix = scipy.sparse.csc_array(
            (self._file["data"].astype(np.float32), self._file["indices"], self._file["indptr"]),
            shape=(self.documents, len(ids)),
        )
        order = np.argsort(ids, kind="stable")[int((ids < 0).sum()) :]
        documents = matrix[:, order].tocsr()
        indices = ids[order][documents.indices]
        return Chunk(documents.indptr.astype(np.int64), indices, documents.data, num_terms)


def numbered(path: Path, ids: NDArray[np.int32], num_terms: int) -> tuple[Chunk, list[str] | None]:
    """Return the documents of a piece's file, see `Counts.chunk`, and their names."""
    with Counts(path) as counts:
        return counts.chunk(ids, num_terms), counts.names()


def problems(tally: Tally, source: Input, lines: int) -> Sequence[str]:
    """Return what is wrong with the bad records that are told of a piece that begins after `lines` lines."""
    return [located(source, lines, *one) for one in tally.told]


def located(source: Input, lines: int, where: str, line: int, problem: str) -> str:
    """Return a problem with the file and the line, where that has one."""
    return f"{where}: {problem}" if where else f"{source.path}:{lines + line}: {problem}"

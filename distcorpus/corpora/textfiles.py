"""gensim's corpora in text files (Matrix Market, UCI, Blei, SVMlight), read by compiled parsers.

The parsers know the plain lines, and pass over all others to Python: `_MatrixMarket` to its numbers, the
others to gensim's own `line2doc`. So a document has the same values as if the corpus had been iterated over,
and a malformed line is an error that names it.
"""

from __future__ import annotations

import functools
import lzma
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import MAX_TERMS, Chunk
from distcorpus.algorithms.inherited import is_inherited

#: Bytes that are read at once.
BLOCK = 1 << 18
#: A line has fewer bytes: all of it is in memory.
LONGEST_LINE = 1 << 28
#: Bytes of a line that an error message shows.
SHOWN = 80
#: Documents, be they empty, that are read at once.
DOCUMENTS_AT_ONCE = 1 << 16

#: The methods that decide what a corpus' documents are. Whoever has another one reads for himself.
_METHODS = {"__iter__", "skip_headers", "docbyoffset", "line2doc"}

Piece = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]


#: The end of a file, as an offset.
_END = np.iinfo(np.int64).max


class OutOfOrderError(ValueError, AssertionError):
    """The documents of a Matrix Market file are not in ascending order (for gensim a failed assertion)."""


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        from distcorpus.algorithms import _text_kernels
    except ImportError:
        return None
    return _text_kernels


def warm() -> None:
    """Load the compiled parsers, or compile them."""
    kernels = _kernels()
    if kernels is not None:
        nothing = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0)
        kernels.read_entries(0, 0, 0, 0, *nothing)
        kernels.read_documents(0, 0, True, 0, *nothing)


@dataclass(frozen=True)
class Span:
    """Documents that follow each other in a file, as its index has them.

    Attributes
    ----------
    first, stop : int
        The number of the first, from 0, and of the one after the last.
    begin, end : int
        Where in the file they are, in bytes.
    occupied : ndarray of bool
        Whether a document has a place there.
    """

    first: int
    stop: int
    begin: int
    end: int
    occupied: NDArray[np.bool_]


def text_file(corpus: Any) -> TextFile | None:
    """Return what reads a corpus by a compiled parser, or None where it has to be asked for its documents.

    Parameters
    ----------
    corpus : any corpus
        It can be read if it is gensim's ``MmCorpus``, ``UciCorpus``, ``BleiCorpus`` or ``SvmLightCorpus``, a
        subclass that reads in the same way, or a slice of one (``corpus[10:20]``, a ``SlicedCorpus``).
    """
    reader, slice_ = _reader(corpus), None
    if reader == "gensim.utils.SlicedCorpus":
        corpus, slice_ = corpus.corpus, corpus.slice_
        reader = _reader(corpus)
    kind = _READINGS.get(reader or "")
    if kind is None or _kernels() is None or getattr(corpus, "transposed", True) is not True:
        return None
    if slice_ is None:
        return TextFile(corpus, kind, None)
    index: Any = getattr(corpus, "index", None)
    if not isinstance(index, np.ndarray) or index.dtype.kind != "i":
        return None
    offsets = index[index >= 0]
    if not len(offsets) or (np.diff(offsets) <= 0).any() or len(index) != len(corpus):
        return None
    return TextFile(corpus, kind, np.arange(len(index))[slice_])


def _reader(corpus: Any) -> str | None:
    """Return which class of gensim's reads a corpus, None if anything else has to do with it."""
    if not _METHODS.isdisjoint(getattr(corpus, "__dict__", ())):
        return None
    if not is_inherited(type(corpus), _METHODS, ("gensim",)):
        return None
    readers = (cls for cls in type(corpus).__mro__ if "__iter__" in vars(cls))
    return next((f"{cls.__module__}.{cls.__qualname__}" for cls in readers), None)


class TextFile:
    """A corpus in a text file.

    Parameters
    ----------
    corpus : gensim corpus
    kind : class
        What reads it.
    positions : ndarray of int, optional
        The documents that are wanted, in this order; all by default.
    """

    def __init__(
        self, corpus: Any, kind: type[_Entries | _Lines], positions: NDArray[np.int64] | None
    ) -> None:
        self._corpus = corpus
        self._kind = kind
        self._positions = positions

    def chunks(self, chunksize: int) -> Iterator[Chunk]:
        """Read it in chunks of `chunksize` documents, whose values are not checked.

        Raises
        ------
        ValueError
            If the file is malformed; the message names the line.
        """
        pieces: list[Piece] = []
        room = chunksize
        for span in self._spans():
            with _Text(self._corpus, span) as text:
                reading = self._kind(self._corpus, text, span)
                while (piece := reading.take(room)) is not None:
                    pieces.append(piece)
                    room -= len(piece[0])
                    if room == 0:
                        yield _chunk(pieces)
                        pieces, room = [], chunksize
        if pieces:
            yield _chunk(pieces)

    def _spans(self) -> Iterator[Span | None]:
        """Cut what is wanted into documents that follow each other in the file."""
        if self._positions is None:
            yield None
            return
        index = self._corpus.index
        # Where the next document with any words begins, which is where an empty one would.
        begins = np.append(np.where(index < 0, _END, index), _END)
        begins = np.minimum.accumulate(begins[::-1])[::-1]
        for run in np.split(self._positions, np.flatnonzero(np.diff(self._positions) != 1) + 1):
            if len(run):
                first, stop = int(run[0]), int(run[-1]) + 1
                yield Span(first, stop, int(begins[first]), int(begins[stop]), index[first:stop] >= 0)

    def length(self) -> int:
        """Return the number of documents; where neither header nor index tells it the file is read."""
        corpus = self._corpus
        if self._positions is not None:
            return len(self._positions)
        if hasattr(corpus, "num_docs"):
            return int(corpus.num_docs)
        if corpus.index is not None:
            return len(corpus.index)
        if corpus.length is None:
            corpus.length = sum(chunk.n_docs for chunk in self.chunks(DOCUMENTS_AT_ONCE))
        return int(corpus.length)


def _chunk(pieces: list[Piece]) -> Chunk:
    lengths, ids, values = (
        arrays[0] if len(pieces) == 1 else np.concatenate(arrays) for arrays in zip(*pieces, strict=True)
    )
    return Chunk(np.concatenate(([0], np.cumsum(lengths))), ids, values, MAX_TERMS)


class _Text:
    """The text of a corpus' file, in blocks of whole lines that compiled parsers read by their address.

    Parameters
    ----------
    corpus : gensim corpus
    span : Span, optional
        What of it is read.

    Attributes
    ----------
    at, end : int
        The addresses of what has not been read of the block.
    """

    def __init__(self, corpus: Any, span: Span | None) -> None:
        self._source = corpus.input if hasattr(corpus, "input") else corpus.fname
        self._begin, self._left = (0, _END) if span is None else (span.begin, span.end - span.begin)
        self._lines = 0
        self._make_buffer(BLOCK)
        self.at = self.end = self._filled = self._first

    def _make_buffer(self, size: int) -> None:
        kernels = _kernels()
        assert kernels is not None
        self._padding = kernels.PADDING
        self._buffer = bytearray(size + len(self._padding))
        self._size = size
        self._first = int(np.frombuffer(self._buffer, np.uint8).ctypes.data)

    def __enter__(self) -> _Text:
        self._open = self._opened()
        self._stream = self._open.__enter__()
        if self._begin < _END:
            with self._naming_the_file():
                self._stream.seek(self._begin)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def _opened(self) -> AbstractContextManager[Any]:
        if hasattr(self._source, "seek"):
            return nullcontext(self._source)
        from gensim import utils

        return cast("AbstractContextManager[Any]", utils.open(self._source, "rb"))

    def _read(self, start: int) -> int:
        """Read on, into the buffer from a position on; return the number of bytes."""
        size = min(self._size - start, self._left)
        if size <= 0:
            return 0
        with self._naming_the_file():
            if hasattr(self._stream, "readinto"):
                read = self._stream.readinto(memoryview(self._buffer)[start : start + size])
            else:
                data = self._stream.read(size)
                if not isinstance(data, bytes):
                    raise TypeError(f"{self.name}: open it to read bytes, it gives {type(data).__name__}")
                self._buffer[start : start + len(data)] = data
                read = len(data)
        self._left -= read
        return int(read)

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Name it in the errors that decompressors raise of an archive that is damaged or cut off."""
        try:
            yield
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the system's
                raise
            raise ValueError(f"{self.name}: {error}") from error

    @property
    def name(self) -> str:
        """What error messages call the file."""
        return str(getattr(self._source, "name", self._source))

    def has_more(self) -> bool:
        """Return whether there is any more text, and go on to the next block if need be."""
        if self.at < self.end:
            return True
        rest = bytes(self._buffer[self.end - self._first : self._filled - self._first])
        size, cut, more = len(rest), 0, 1
        if size == self._size:
            self._make_buffer(2 * size)
        self._buffer[:size] = rest
        while more and not cut and size < self._size:
            more = self._read(size)
            cut = self._buffer.rfind(b"\n", size, size + more) + 1
            size += more
        self.at, self._filled = self._first, self._first + size
        self.end = self._first + (cut if more else size)
        if not more:
            self._buffer[size : size + len(self._padding)] = self._padding
        elif not cut:
            if size >= LONGEST_LINE:
                raise self.error(f"has more than {size} bytes: it is no line of a corpus")
            return self.has_more()
        return self.at < self.end

    def passed(self, at: int, lines: int) -> memoryview:
        """Go on to an address, so many lines further; return the text between."""
        text = memoryview(self._buffer)[self.at - self._first : at - self._first]
        self.at = at
        self._lines += lines
        return text

    def line(self) -> bytes:
        """Return the next line, without going on; nothing at the end."""
        if not self.has_more():
            return b""
        start, end = self.at - self._first, self.end - self._first
        return bytes(self._buffer[start : self._buffer.find(b"\n", start, end) + 1 or end])

    def pass_line(self) -> bytes:
        """Return the next line, and go on."""
        line = self.line()
        self.passed(self.at + len(line), 1)
        return line

    def error(self, message: str, kind: type[Exception] = ValueError) -> Exception:
        """Make an error of the next line."""
        lines, left = self._lines + 1, self._begin if self._begin < _END else 0
        if left:
            with self._opened() as stream:
                stream.seek(0)
                while left > 0 and (data := stream.read(min(BLOCK, left))):
                    lines += data.count(b"\n")
                    left -= len(data)
        return kind(f"{self.name}: line {lines} {message}")

    def not_parsed(self, line: bytes, why: str) -> Exception:
        """Make an error of the next line that shows it."""
        shown = line if len(line) <= SHOWN else line[:SHOWN] + b"..."
        return self.error(f"cannot be read: unable to parse line {shown!r}: {why}")


class _Room:
    """Arrays that parsers write to, one after the other."""

    def __init__(self) -> None:
        self._ids, self._values = np.empty(0, np.int32), np.empty(0)
        self._size = 0

    def free(self, entries: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Return arrays for the next entries, of which there may be so many."""
        if len(self._ids) < self._size + entries:
            more = 2 * self._size + entries
            ids, values = np.empty(more, np.int32), np.empty(more)
            ids[: self._size], values[: self._size] = self._ids[: self._size], self._values[: self._size]
            self._ids, self._values = ids, values
        return self._ids[self._size :], self._values[self._size :]

    def keep(self, entries: int) -> None:
        """Keep what was written."""
        self._size += entries

    def taken(self, lengths: NDArray[np.int64]) -> Piece:
        """Return what was kept, and keep it no longer."""
        ids, values, size = self._ids, self._values, self._size
        # Not copied: what is beyond them was not written to, and so is hardly any memory.
        self._ids, self._values, self._size = np.empty_like(ids), np.empty_like(values), 0
        return lengths, ids[:size], values[:size]


class _Entries:
    """Reads lines of a document's number, a term's and a value, after a header: Matrix Market."""

    #: What an entry needs at least, its line's end included.
    BYTES = 6

    def __init__(self, corpus: Any, text: _Text, span: Span | None) -> None:
        self._text = text
        self._span = span
        self._num_docs = corpus.num_docs
        self._num_terms = min(corpus.num_terms, MAX_TERMS)
        self._first: int
        self._stop: int
        self._first, self._stop = (0, corpus.num_docs) if span is None else (span.first, span.stop)
        self._document = self._first
        self._entries_to_go = corpus.num_nnz
        self._room = _Room()
        sizes = [corpus.num_docs, corpus.num_terms, corpus.num_nnz]
        if min(sizes) < 0:
            raise ValueError(f"{text.name}: its header says {min(sizes)}, where it counts: it is damaged")
        if span is None:
            if self._sizes() != sizes:
                raise ValueError(f"{text.name}: has changed since it was opened: open it again")
            if self._first == self._stop:
                self._end()

    def _sizes(self) -> list[int]:
        """Pass over the header; return the numbers of documents, terms and entries."""
        line = self._text.pass_line()
        while line.startswith(b"%"):
            line = self._text.pass_line()
        return _whole_numbers(line) if line else [0, 0, 0]

    def take(self, room: int) -> Piece | None:
        """Read at most so many documents; None after the last."""
        if self._first == self._stop:
            return None
        kernels = _kernels()
        assert kernels is not None
        lengths = np.zeros(min(room, self._stop - self._first, DOCUMENTS_AT_ONCE), np.int64)
        text = self._text
        while text.has_more():
            free = self._room.free((text.end - text.at) // self.BYTES + 1)
            reason, at, self._document, entries = kernels.read_entries(
                text.at, text.end, self._first, self._document, lengths, *free
            )
            self._check_terms(free[0][:entries])
            text.passed(at, entries)
            self._keep(entries)
            if reason == kernels.FULL or (reason == kernels.OTHER and not self._take_line(lengths)):
                break
        if self._span is not None:
            self._check_index(self._span, lengths)
        self._first += len(lengths)
        if self._first == self._stop:
            self._end()
        return self._room.taken(lengths)

    def _keep(self, entries: int) -> None:
        self._room.keep(entries)
        self._entries_to_go -= entries

    def _check_terms(self, ids: NDArray[np.int32]) -> None:
        """Check the terms of plain lines, of which each has one."""
        if len(ids) and ids.max() >= self._num_terms:
            first = int(np.argmax(ids >= self._num_terms))
            self._text.passed(self._text.at, first)
            raise self._no_term(int(ids[first]) + 1)

    def _no_term(self, term: int) -> Exception:
        return self._text.error(
            f"has the term {term}: terms are counted from 1 to {self._num_terms}, as the header says"
        )

    def _take_line(self, lengths: NDArray[np.int64]) -> bool:
        """Read a line that is not plain; return whether its document is still wanted."""
        text = self._text
        number, term, value = self._parsed(text.line())
        document = number - 1
        if document < self._document:
            if self._span is not None and self._document == self._span.first:
                raise self._wrong_index()
            raise text.error(
                f"belongs to document {number}, after document {self._document + 1}: documents must come in "
                "ascending order, and are counted from 1",
                OutOfOrderError,
            )
        if not 1 <= term <= self._num_terms:
            raise self._no_term(term)
        if document >= self._first + len(lengths):
            return False
        self._document = document
        lengths[document - self._first] += 1
        ids, values = self._room.free(1)
        ids[0], values[0] = term - 1, value
        self._keep(1)
        text.pass_line()
        return True

    def _parsed(self, line: bytes) -> tuple[int, int, float]:
        try:
            if b"_" in line:  # which Python's numbers may have
                raise ValueError
            number, term, value = line.split()
            return int(number), int(term), float(value)
        except ValueError:
            why = "wanted are the numbers of a document and of a term, and a value"
            raise self._text.not_parsed(line, why) from None

    def _check_index(self, span: Span, lengths: NDArray[np.int64]) -> None:
        here = slice(self._first - span.first, self._first - span.first + len(lengths))
        wrong = span.occupied[here] != (lengths > 0)
        # The last document's place may be the end of the file.
        if wrong[: self._num_docs - 1 - self._first].any():
            raise self._wrong_index()

    def _wrong_index(self) -> ValueError:
        return ValueError(f"{self._text.name}: its index is not of this file: save the corpus again")

    def _end(self) -> None:
        """Check that the file ends where the last document does."""
        text = self._text
        if text.has_more():
            number, _, _ = self._parsed(text.line())
            if self._span is not None:
                raise self._wrong_index()
            raise text.error(f"belongs to document {number}, and the header tells of {self._num_docs}")
        if self._span is None and self._entries_to_go != 0:
            missing = abs(self._entries_to_go)
            raise ValueError(
                f"{text.name}: has {missing} {'entries less' if self._entries_to_go > 0 else 'entries more'} "
                "than its header says: it is damaged, or not complete"
            )


class _UciEntries(_Entries):
    """Reads the same after another header, of three lines."""

    def _sizes(self) -> list[int]:
        return [size for _ in range(3) for size in _whole_numbers(self._text.pass_line() or b"0")]


def _whole_numbers(line: bytes) -> list[int]:
    try:
        return [int(number) for number in line.split()]
    except ValueError:
        return []


class _Lines:
    """Reads lines of one document each: Blei's format."""

    #: What an entry needs at least, the blank before it included.
    BYTES = 4
    LABELLED = False

    def __init__(self, corpus: Any, text: _Text, span: Span | None) -> None:
        self._corpus = corpus
        self._text = text
        self._to_come = None if span is None else span.stop - span.first
        self._room = _Room()

    def take(self, room: int) -> Piece | None:
        """Read at most so many documents; None after the last."""
        kernels = _kernels()
        assert kernels is not None
        lengths = np.zeros(min(room, DOCUMENTS_AT_ONCE), np.int64)
        text, done = self._text, 0
        while text.has_more():
            free = self._room.free((text.end - text.at) // self.BYTES + 1)
            reason, at, now, entries = kernels.read_documents(
                text.at, text.end, self.LABELLED, done, lengths, *free
            )
            self._label(text.passed(at, now - done))
            self._room.keep(entries)
            done = now
            if reason == kernels.FULL:
                break
            if reason == kernels.OTHER:
                done += self._take_line(lengths[done:])
        if self._to_come is not None:
            self._to_come -= done
            if self._to_come < 0 or (self._to_come > 0 and done == 0):
                raise ValueError(f"{text.name}: its index is not of this file: save the corpus again")
        return self._room.taken(lengths[:done]) if done else None

    def _label(self, lines: memoryview) -> None:
        """See the lines that were read."""

    def _document(self, line: bytes) -> list[tuple[int, float]] | None:
        document: list[tuple[int, float]] = self._corpus.line2doc(line)
        return document

    def _take_line(self, lengths: NDArray[np.int64]) -> int:
        """Read a line that is not plain; return the number of its documents, 1 or 0."""
        line = self._text.line()
        try:
            document = self._document(line)
        except (ValueError, IndexError) as error:
            raise self._text.not_parsed(line, str(error)) from error
        self._text.pass_line()
        if document is None:
            return 0
        if any(not -MAX_TERMS <= term <= MAX_TERMS for term, _ in document):
            raise self._text.not_parsed(line, f"terms are counted up to {MAX_TERMS}")
        ids, values = self._room.free(len(document))
        for entry, (term, value) in enumerate(document):
            ids[entry], values[entry] = term, value
        self._room.keep(len(document))
        lengths[0] = len(document)
        return 1


class _LabelledLines(_Lines):
    """Reads lines of a label and one document each, and comments: SVMlight's format."""

    LABELLED = True

    def __init__(self, corpus: Any, text: _Text, span: Span | None) -> None:
        super().__init__(corpus, text, span)
        self._labels: list[str] | None = None
        if span is None and corpus.store_labels:
            self._labels = corpus.labels = []

    def _label(self, lines: memoryview) -> None:
        if self._labels is not None:
            self._labels += [line.split(None, 1)[0].decode() for line in bytes(lines).splitlines()]

    def _document(self, line: bytes) -> list[tuple[int, float]] | None:
        read = self._corpus.line2doc(line)
        if read is None:
            return None
        document, label = read
        if self._labels is not None:
            self._labels.append(label)
        return list(document)


#: What reads the corpora of which class.
_READINGS: dict[str, type[_Entries | _Lines]] = {
    "gensim.corpora.mmcorpus.MmCorpus": _Entries,
    "gensim.corpora.ucicorpus.UciCorpus": _UciEntries,
    "gensim.corpora.bleicorpus.BleiCorpus": _Lines,
    "gensim.corpora.svmlightcorpus.SvmLightCorpus": _LabelledLines,
}

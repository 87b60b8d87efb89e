"""A corpus on disk from files of text.

The words of each piece of text are counted into a file, by several processes. The frequencies of all words
are added up, which gives the dictionary, and the counts are written with its term ids. What is counted stays
until the corpus is complete, so that a build that was interrupted goes on; nothing depends on the number of
processes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus._machine import available_cores
from distcorpus.corpora import inputs
from distcorpus.corpora.counting import (
    Counts,
    Reading,
    Tally,
    TokenizerError,
    count,
    located,
    numbered,
    problems,
)
from distcorpus.corpora.crew import Crew
from distcorpus.corpora.files import remedy
from distcorpus.corpora.fingerprint import of_tokenizer
from distcorpus.corpora.inputs import InputError, Piece, needs
from distcorpus.corpora.records import Fields
from distcorpus.corpora.unfinished import COUNTED, refuse_existing
from distcorpus.corpora.vocabulary import WORD_BYTES, Vocabulary, ids_of
from distcorpus.corpora.words import LETTERS, Tokenizer, tokenizer
from distcorpus.corpora.writing import ShardWriter

logger = logging.getLogger(__name__)

#: Bytes that a process takes at most: a piece of text, its tokens and their counts, and what it imports.
PROCESS_BYTES = 512 << 20
#: Words of pieces that are looked up at once, beside as many as the dictionary has.
LOOKED_UP = 1 << 20


@dataclass(frozen=True)
class Options:
    """How a corpus is built: the arguments of `Corpus.build`."""

    text: str = "text"
    id: str | None = None
    format: str | None = None
    tokenizer: str | Tokenizer = LETTERS
    stopwords: str | Collection[str] = ()
    no_below: int = 5
    no_above: float = 0.5
    keep: int | None = 100_000
    skip_bad: bool = False
    processes: int | None = None
    memory: float = 4.0
    progress: bool = False

    def __post_init__(self) -> None:
        """Raise a ValueError if an argument cannot be used."""
        for name, least, optional in (("no_below", 0, False), ("keep", 1, True), ("processes", 1, True)):
            value = getattr(self, name)
            if optional and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
            object.__setattr__(self, name, int(value))
        if not _is_number(self.no_above) or not 0 < self.no_above <= 1:
            raise ValueError(
                f"no_above={self.no_above!r}: give the part of the documents that a word may be in at most, "
                "above 0 and at most 1"
            )
        if not _is_number(self.memory) or not 0 < self.memory < math.inf:
            raise ValueError(f"memory={self.memory!r}: give gigabytes, above 0")
        for name in ("text", "id"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "id" and value is None):
                raise ValueError(f"{name}={value!r}: give the name of a field")
        object.__setattr__(self, "stopwords", _stopwords(self.stopwords, tokenizer(self.tokenizer)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def build(
    paths: Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    options: Options,
    say_bad: Callable[[str], None] = logger.warning,
) -> int:
    """Build a corpus, see `Corpus.build`, and return how many bad records were skipped.

    Each of the first ones is told to `say_bad`.
    """
    needs("pyarrow")
    directory = Path(os.path.abspath(directory))
    folder = COUNTED.of(directory)
    refuse_existing(directory)
    sources = inputs.find(paths, options.format)
    if not sources:
        raise InputError("there is no input: give files of text")
    files = {source.form == "files" for source in sources}
    if len(files) > 1:
        raise InputError("either all inputs are files of one document, or none is")
    reading = Reading(
        tuple(sources),
        Fields(options.text, options.id),
        options.tokenizer,
        frozenset(options.stopwords),
        options.skip_bad,
        named=options.id is not None or True in files,
    )
    if options.id is not None and any(source.form in ("lines", "files") for source in sources):
        raise InputError("text files have no fields, so that id is of no use for them: leave it out")
    try:
        source = _source(reading)
        with _kept(folder, source) as counted, _crew(options, reading) as crew:
            build = _Build(reading, source, options, counted, crew)
            bad = build.count(say_bad)
            build.write(directory)
            COUNTED.remove(counted)
    except OSError as error:
        if isinstance(error, FileExistsError) or error.errno is None or "cannot be" in str(error):
            raise
        raise OSError(
            error.errno,
            f"the counts of {directory} cannot be written to {folder}: {error.strerror}; "
            f"{remedy(error)}. The same command goes on from where it was",
        ) from error
    return bad


def _crew(options: Options, reading: Reading) -> Crew:
    processes = options.processes or available_cores()
    if any(source.is_of_this_process for source in reading.sources):
        return Crew(1)
    fitting = int(options.memory * 2**30) // 2 // PROCESS_BYTES
    return Crew(max(1, min(processes, fitting)))


def _stopwords(words: str | Collection[str], function: str | Tokenizer) -> frozenset[str]:
    """Return the words to leave out, in lower case where all words are."""
    if isinstance(words, str) and words == "gensim":
        from gensim.parsing.preprocessing import STOPWORDS

        return frozenset(STOPWORDS)
    if isinstance(words, str | bytes) or not isinstance(words, Iterable):
        raise ValueError(f"stopwords={words!r}: give a list of words, or 'gensim'")
    given = list(words)
    wrong = next((word for word in given if not isinstance(word, str)), None)
    if wrong is not None:
        raise ValueError(f"stopwords has {wrong!r}, a {type(wrong).__name__}: give strings")
    return frozenset(given if callable(function) else (word.lower() for word in given))


def _source(reading: Reading) -> str:
    """Return what the counts follow from, beside the program."""
    function = tokenizer(reading.tokenizer)
    about = {
        "format": 3,
        "sources": [asdict(source) for source in reading.sources],
        "fields": asdict(reading.fields),
        "tokenizer": of_tokenizer(function) if callable(function) else function,
        "stopwords": hashlib.sha256(json.dumps(sorted(reading.stopwords)).encode()).hexdigest(),
        "skip_bad": reading.skip_bad,
        "made by": [unicodedata.unidata_version, importlib.metadata.version("pyarrow"), inputs.PIECE],
    }
    return json.dumps(about, sort_keys=True)


@contextmanager
def _kept(folder: Path, source: str) -> Iterator[Path]:
    """Make the folder of the counts; what an interrupted build of the same source has counted stays there."""
    lock = COUNTED.claim(folder)
    if lock is None:
        raise RuntimeError(f"another process counts in {folder}: wait for it, or give another folder")
    try:
        about = folder / COUNTED.marker
        if not about.exists() or about.read_text("utf-8") != source:
            COUNTED.clear(folder, {about.name})
            about.write_text(source, "utf-8")
        yield folder
    finally:
        os.close(lock)


class _Build:
    """Counts, and then writes what is counted."""

    def __init__(self, reading: Reading, source: str, options: Options, folder: Path, crew: Crew) -> None:
        self._reading = reading
        self._source = source
        self._options = options
        self._folder = folder
        self._crew = crew
        self._files: list[Path] = []
        self._lines = Counter[int]()  # of each input, as far as it is counted
        self._firsts = [0]  # the number of the first document of each file, and how many there are

    def _bar(self, total: int, unit: str, what: str) -> Any:
        from tqdm.auto import tqdm

        scale = unit == "B"
        return tqdm(
            total=total,
            unit=unit,
            unit_scale=scale,
            desc=what,
            disable=not self._options.progress,
            file=sys.stderr,
        )

    def count(self, say_bad: Callable[[str], None]) -> int:
        """Count the words of all pieces that are not counted yet; return how many bad records there are."""
        reading = self._reading
        total = sum(source.size for source in reading.sources)
        waiting: list[Piece] = []
        bad, told = 0, 0
        with self._bar(total, "B", "counting") as bar:
            for tally in self._tallies(waiting):
                piece = waiting.pop(0)
                texts = problems(tally, reading.sources[piece.source], self._lines[piece.source])
                if tally.bad and not reading.skip_bad:
                    raise InputError(f"{texts[0]} (skip_bad passes over such records)")
                for text in texts[: max(0, 10 - told)]:
                    say_bad(text)
                told += len(texts)
                bad += tally.bad
                self._lines[piece.source] += tally.lines
                self._firsts.append(self._firsts[-1] + tally.documents)
                bar.update(piece.read - bar.n)
                bar.set_postfix(documents=self._firsts[-1], refresh=False)
        for path in set(self._folder.glob("piece-*.npz")) - set(self._files):
            path.unlink()
        if not self._firsts[-1]:
            raise InputError(f"there is no document in the input{' but bad ones' if bad else ''}")
        return bad

    def _tallies(self, waiting: list[Piece]) -> Iterator[Tally]:
        """Yield what came of each piece, see `_uncounted`."""
        try:
            yield from self._crew.map(count, self._uncounted(waiting))
        except TokenizerError as error:
            number = waiting[0].source
            source, lines = self._reading.sources[number], self._lines[number]
            raise InputError(located(source, lines, *error.args)) from error

    def _uncounted(self, waiting: list[Piece]) -> Iterator[tuple[Any, ...]]:
        """Yield the arguments of `count` for each piece, which `waiting` gets."""
        for number, piece in enumerate(inputs.pieces(self._reading.sources, self._reading.fields.names)):
            path = self._folder / f"piece-{number:06d}.npz"
            tally = _tally_of(path)
            waiting.append(piece)
            self._files.append(path)
            yield (piece, self._reading, path) if tally is None else (None, None, path, tally)

    def write(self, directory: Path) -> None:
        """Write the corpus."""
        options, n_docs = self._options, self._firsts[-1]
        most = int(options.memory * 2**30 / 2) // WORD_BYTES
        vocabulary = Vocabulary(self._folder, most)
        for number, path in enumerate(self._files):
            with Counts(path) as counts:
                documents, first = counts.of_words()
                vocabulary.add(counts.words(), documents, first + self._firsts[number])
        words = vocabulary.chosen(options.no_below, int(options.no_above * n_docs), options.keep)
        if not len(words):
            raise InputError(
                f"no word is in at least no_below={options.no_below} and in at most {options.no_above:g} "
                f"(no_above) of the {n_docs} documents: give other limits"
            )
        texts = words.to_pylist()
        source = f"{self._source} {hashlib.sha256(chr(10).join(texts).encode()).hexdigest()}"
        with (
            ShardWriter(directory, len(texts), source=source) as writer,
            self._bar(n_docs, "doc", "writing") as bar,
        ):
            done = writer.n_docs
            bar.update(done)
            start = next(
                n for n in range(len(self._files) + 1) if n_docs == done or self._firsts[n + 1] > done
            )
            for number, (chunk, names) in enumerate(self._crew.map(numbered, self._ids(words, start)), start):
                skip = max(0, done - self._firsts[number])
                writer.add(chunk.slice(skip, chunk.n_docs), None if names is None else names[skip:])
                bar.update(chunk.n_docs - skip)
            writer.finish(texts)

    def _ids(self, words: Any, start: int) -> Iterator[tuple[Path, NDArray[np.int32], int]]:
        """Yield the arguments of `numbered` for the files from `start` on."""
        pyarrow = needs("pyarrow")
        group: list[tuple[Path, Any]] = []

        def found() -> Iterator[tuple[Path, NDArray[np.int32], int]]:
            ids = ids_of(pyarrow.concat_arrays([part for _, part in group]), words)
            ends = np.cumsum([len(part) for _, part in group])
            for (path, _), of_file in zip(group, np.split(ids, ends[:-1]), strict=True):
                yield path, of_file, len(words)

        for path in self._files[start:]:
            with Counts(path) as counts:
                group.append((path, counts.words()))
            if sum(len(part) for _, part in group) >= min(len(words), LOOKED_UP):
                yield from found()
                group.clear()
        if group:
            yield from found()


def _tally_of(path: Path) -> Tally | None:
    """Return what came of a piece that is counted already."""
    try:
        with Counts(path) as counts:
            counts.check()
            return Tally(counts.documents, counts.bad, counts.lines)
    except (OSError, ValueError):
        return None

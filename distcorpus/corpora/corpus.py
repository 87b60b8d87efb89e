"""A corpus on disk as gensim's models take it: memory-mapped, read at memory speed."""

from __future__ import annotations

import bz2
import gzip
import html
import io
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.io
import scipy.sparse
from gensim.corpora import Dictionary
from gensim.interfaces import CorpusABC
from numpy.typing import NDArray

from distcorpus._text import plural
from distcorpus.algorithms.chunk import MAX_COUNT, Chunk, as_chunk
from distcorpus.corpora.files import remedy
from distcorpus.corpora.reading import (
    LARGEST_COUNT,
    LARGEST_SINGLE,
    as_corpus,
    is_sparse,
    is_stored,
    word_of,
)
from distcorpus.corpora.reference import Reference, StoredChunk, blocks_of
from distcorpus.corpora.store import Store
from distcorpus.corpora.textfiles import text_file
from distcorpus.corpora.weighting import TermWeights, Weighting
from distcorpus.corpora.writing import ShardWriter

logger = logging.getLogger(__name__)

#: Documents that are read at once where a reader does not say how many.
AT_ONCE = 2000
#: Documents that a notebook shows, and words of each.
DOCUMENTS_SHOWN, WORDS_SHOWN = 3, 12


class Documents(CorpusABC):
    """A range of documents that are on disk, as a corpus."""

    def __init__(self, store: Store, start: int, stop: int) -> None:
        self._store = store
        self._start = start
        self._stop = stop

    def _range(self, start: int, stop: int) -> Documents:
        """Return another range of the store's documents, read in the same way."""
        raise NotImplementedError

    def _chunk(self, start: int, stop: int) -> Chunk:
        """Return a range of the store's documents."""
        raise NotImplementedError

    def gathered(self, numbers: NDArray[np.int64]) -> Chunk:
        """Return documents by their numbers in this range, in the order of these."""
        raise NotImplementedError

    def _selected(self, numbers: NDArray[np.int64]) -> Selection:
        return Selection(self._store, self, numbers)

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return the documents `start` to `stop` as a document-term matrix.

        Of a `Corpus` it is a view of what is on disk, where all of them are of one shard.

        Raises
        ------
        DamagedError
            If a file is not what it was when the corpus was written; the message names it.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._chunk(self._start + start, self._start + max(start, stop))

    def are_sound(self, counts: bool, largest: float) -> bool:
        """Return whether it is known that `as_chunk`, with these options, would leave chunks as they are."""
        return False

    weighting: Weighting | None = None

    def is_referable(self, counts: bool) -> bool:
        """Return whether others that have the corpus can read these documents by themselves."""
        raise NotImplementedError

    def referred(
        self, start: int, stop: int, num_terms: int, limits: Mapping[str, int], source: Any
    ) -> StoredChunk:
        """Return references to the documents `start` to `stop`, cut by these limits."""
        start, stop, _ = slice(start, stop).indices(len(self))
        first = self._start + start
        indptr = self._store.indptr(first, self._start + stop)
        return blocks_of(self._store, self.weighting, first, indptr, num_terms, limits, source)

    def dereferenced(self, reference: Reference) -> Chunk:
        """Return documents that are referred to.

        Raises
        ------
        ValueError
            If they are not among these.
        """
        mine = (self._store.checksum, self.weighting)
        within = self._start <= reference.start <= reference.stop <= self._stop
        if (reference.corpus, reference.weighting) != mine or not within:
            raise ValueError(f"{reference} are not among those that are trained on")
        return self._chunk(reference.start, reference.stop)

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        for first in range(0, len(self), AT_ONCE):
            yield from _bags(self.chunk(first, first + AT_ONCE))

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step == 1:
                return self._range(self._start + start, self._start + max(start, stop))
            return self._selected(np.arange(start, stop, step))
        if isinstance(which, list | tuple | np.ndarray):
            given = np.asarray(which)
            if given.ndim == 1:
                return self._selected(np.arange(len(self))[given if given.size else given.astype(np.intp)])
            if given.ndim > 1:
                raise IndexError(f"an index of {given.ndim} dimensions: give a list of documents' numbers")
        number = range(len(self))[which]
        return next(_bags(self.chunk(number, number + 1)))

    @property
    def num_docs(self) -> int:
        """The number of documents."""
        return len(self)

    @property
    def num_terms(self) -> int:
        """The size of the vocabulary."""
        return self._store.manifest.terms

    @property
    def id2word(self) -> Any:
        """The words: a gensim `Dictionary`; a dict of id to word where two ids have the same word; None where
        the corpus was written without words.
        """
        return dictionary_of(self._store)

    @property
    def names(self) -> list[str] | None:
        """The documents' names; None where they have none."""
        if not self._store.manifest.names:
            return None
        return list(self._store.names(self._start, self._stop))

    def to_scipy(self) -> Any:
        """Return the documents as a scipy sparse matrix (CSC), terms x documents.

        It shares memory with what is on disk, where all are of one shard.
        """
        chunk = self.chunk(0, len(self))
        shape = (self.num_terms, len(self))
        return scipy.sparse.csc_matrix((chunk.data, chunk.indices, chunk.indptr), shape=shape)

    def to_mm(self, path: str | os.PathLike[str]) -> None:
        """Write the documents as a Matrix Market file, which gensim's `MmCorpus` reads.

        The file appears when it is complete.

        Parameters
        ----------
        path : path-like
            Compressed where it ends with ``.gz`` or ``.bz2``.

        Raises
        ------
        ValueError
            If it ends like a file that is compressed in another way.
        OSError
            If it cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in (".xz", ".zst", ".zip", ".lz4"):
            raise ValueError(f"{path}: {suffix} is not written: let the name end with .mm, .mm.gz or .mm.bz2")
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
        try:
            stored_at = open(unfinished, "xb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            with stored_at as stored, _compressing(stored, suffix) as file:
                entries = int(self._indptr()[-1])
                file.write(b"%%MatrixMarket matrix coordinate real general\n")
                file.write(f"{len(self)} {self.num_terms} {entries}\n".encode())
                for first in range(0, len(self), AT_ONCE):
                    file.write(_mm_lines(self.chunk(first, first + AT_ONCE), first))
            unfinished.replace(path)
        except BaseException as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:
                raise _cannot_write(path, error) from error
            raise

    def _indptr(self) -> NDArray[np.int64]:
        """Return where each document ends, as `Chunk.indptr`."""
        parts = [np.diff(self.chunk(first, first + AT_ONCE).indptr) for first in range(0, len(self), AT_ONCE)]
        return np.concatenate(([0], np.cumsum(np.concatenate([np.empty(0, np.int64), *parts]))))


class Corpus(Documents):
    """A corpus on disk: its documents are memory-mapped, and read at memory speed.

    A gensim corpus like any other: ``len``, iteration, ``corpus[i]``, slices (which copy nothing), `save` and
    `load` (which keep where it is), for every model and index.

    Parameters
    ----------
    directory : path-like
        A folder that `Corpus.write` made.

    Raises
    ------
    FileNotFoundError
        If it is none.
    ValueError
        If it is of a newer format, or damaged (`DamagedError`); the message names the file. What a shard
        holds is checked when it is first read.

    Examples
    --------
    >>> corpus = Corpus.write("reviews.corpus", bags_of_words, dictionary)         # doctest: +SKIP
    >>> lda = LdaModel(corpus, id2word=corpus.id2word, num_topics=100)             # doctest: +SKIP
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        store = Store(directory)
        super().__init__(store, 0, store.manifest.documents)

    @classmethod
    def write(
        cls,
        directory: str | os.PathLike[str],
        corpus: Any,
        id2word: Any = None,
        *,
        names: Any = None,
        source: str | None = None,
    ) -> Corpus:
        """Write a corpus to disk, in bounded memory, and open it.

        Parameters
        ----------
        directory : path-like
            The folder to make. It appears when all is there: what was interrupted is in none that opens.
        corpus : iterable of bags of words, or scipy sparse matrix (terms x documents)
            Read once: a generator will do.
        id2word : gensim Dictionary, mapping of int to str, or sequence of str, optional
            The words; by default those of a `Corpus`, and of other documents none.
        names : iterable of str, optional
            The documents' names; by default those of a `Corpus`.
        source : str, optional
            Says which documents these are: where an earlier call with the same text was interrupted, the
            shards that were complete are kept, and the documents in them are skipped. Without one all is
            written anew.

        Raises
        ------
        FileExistsError
            If there is something at `directory`.
        ValueError, TypeError
            If a document is none, or has a term that `id2word` has not; if there are more or fewer names than
            documents.
        OSError
            If it cannot be written, as on a full disk.
        """
        corpus = as_corpus(corpus)
        num_terms = _terms_of(corpus) if id2word is None else None
        if isinstance(corpus, Documents):
            id2word = corpus.id2word if id2word is None else id2word
            names = corpus.names if names is None else names
        with ShardWriter(directory, num_terms, source=source) as writer:
            begin = writer.n_docs
            named = None if names is None else islice(iter(names), begin, None)
            for documents, size in _parts(corpus, begin):
                writer.add(documents, None if named is None else list(islice(named, size)))
            if named is not None and next(named, None) is not None:
                raise ValueError(f"there are more names than the {writer.n_docs} documents")
            writer.finish(id2word)
        return cls(directory)

    @classmethod
    def build(
        cls,
        inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        directory: str | os.PathLike[str],
        *,
        text: str = "text",
        id: str | None = None,
        format: str | None = None,
        tokenizer: str | Callable[[str], Iterable[str]] = "letters",
        stopwords: str | Collection[str] = (),
        no_below: int = 5,
        no_above: float = 0.5,
        keep: int | None = 100_000,
        skip_bad: bool = False,
        processes: int | None = None,
        memory: float = 4.0,
        progress: bool = False,
    ) -> Corpus:
        """Build a corpus from files of text, and open it.

        Equal input gives equal bytes, for any number of processes. Needs the extra: ``pip install
        "distcorpus[corpus]"``.

        Parameters
        ----------
        inputs : path, or sequence of paths
            Files, folders (all files in them, by name), URLs that fsspec knows, and globs of these; plain,
            gzip (``.gz``), bzip2 (``.bz2``), xz (``.xz``) or zstd (``.zst``).
        directory : path-like
            The folder to make. It appears when all is there: what was interrupted is in none that opens, and
            the same call goes on from there.
        text, id : str
            The fields of a document's text and name, in JSON lines, CSV and tables.
        format : {"lines", "files", "jsonl", "csv", "tsv", "parquet", "arrow"}, optional
            By default what the files' names say; "lines", a document a line, where they say nothing. With
            "files" each file is a document, and its path the name. JSON lines are objects, one a line, CSV
            has a header, and Arrow is the file or the stream format.
        tokenizer : {"letters", "gensim"}, str or function
            "letters": runs of 2 to 15 letters, in lower case. "gensim": what
            ``gensim.utils.simple_preprocess`` gives. "MODULE:FUNCTION", or a function of a module: gives the
            words of a text; called in each process.
        stopwords : collection of str, or "gensim"
            Words to leave out; "gensim" for gensim's own English ones. In lower case or not, where the
            tokenizer is no function.
        no_below, no_above, keep
            As in ``Dictionary.filter_extremes``: a word has to be in at least so many documents and at most
            this part of them, and so many words are kept, those of most documents; None for all.
        skip_bad : bool
            Skip records that have no text; a warning names the first of them and says how many there are.
        processes : int, optional
            By default as many as there are cores that this process may use.
        memory : float
            Gigabytes that all processes together should take at most. At least one of half a gigabyte runs.
        progress : bool
            Show a progress bar.

        Raises
        ------
        FileExistsError
            If there is something at `directory`.
        InputError
            If an input cannot be read or a record has no text; the message names the file and the line. A
            ValueError, as other arguments that cannot be used raise it.
        OSError
            If it cannot be written, as on a full disk.
        RuntimeError
            If a library is missing, a process was killed, or another process builds the same corpus.

        Notes
        -----
        A record may have 32 MB. While it is built, the counts of all words are beside the corpus, about as
        large as this.

        Examples
        --------
        >>> corpus = Corpus.build("reviews.jsonl.gz", "reviews.corpus", text="review")  # doctest: +SKIP
        """
        from distcorpus.corpora.building import Options, build

        paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
        options = Options(
            text=text,
            id=id,
            format=format,
            tokenizer=tokenizer,
            stopwords=stopwords,
            no_below=no_below,
            no_above=no_above,
            keep=keep,
            skip_bad=skip_bad,
            processes=processes,
            memory=memory,
            progress=progress,
        )
        bad = build(paths, directory, options)
        if bad:
            logger.warning("skipped %s without text", plural(bad, "record"))
        return cls(directory)

    def _range(self, start: int, stop: int) -> Corpus:
        part = type(self).__new__(type(self))
        Documents.__init__(part, self._store, start, stop)
        return part

    def _chunk(self, start: int, stop: int) -> Chunk:
        return self._store.chunk(start, stop)

    def gathered(self, numbers: NDArray[np.int64]) -> Chunk:
        """See `Documents.gathered`."""
        return self._store.gathered(self._start + numbers)

    def are_sound(self, counts: bool, largest: float) -> bool:
        """See `Documents.are_sound`."""
        shards = self._store.shards
        if not all(s.dtype == "float32" and max(-s.least, s.largest) < largest for s in shards):
            return False
        return not counts or (all(shard.least >= 0 for shard in shards) and self._adds_up())

    def _adds_up(self) -> bool:
        """Return whether all documents, and so any of them, have few enough of each term."""
        store = self._store
        few = sum(shard.total for shard in store.shards) < MAX_COUNT
        return few or bool(store.collection_frequencies().max() < MAX_COUNT)

    def is_referable(self, counts: bool) -> bool:
        """See `Documents.is_referable`."""
        return self.are_sound(counts, LARGEST_COUNT if counts else LARGEST_SINGLE)

    def _indptr(self) -> NDArray[np.int64]:
        return self._store.indptr(self._start, self._stop)

    @property
    def directory(self) -> Path:
        """The folder."""
        return self._store.path

    @property
    def checksum(self) -> str:
        """The checksum of the manifest, by which the corpus is known on all machines; slices have it too."""
        return self._store.checksum

    @property
    def num_nnz(self) -> int:
        """The number of entries."""
        return int(self._indptr()[-1])

    @property
    def document_frequencies(self) -> NDArray[np.int64]:
        """In how many documents of the whole corpus each term is."""
        return self._store.document_frequencies()

    def tfidf(
        self,
        smartirs: str | None = None,
        *,
        wlocal: Callable[[NDArray], Any] | None = None,
        wglobal: Callable[[int, int], float] | None = None,
        normalize: bool | Callable[..., Any] = True,
        pivot: float | None = None,
        slope: float = 0.25,
    ) -> TfidfCorpus:
        """Return the documents with TF-IDF weights, as gensim's `TfidfModel` of the whole corpus gives them.

        Nothing is stored: weights are computed as documents are read, here or on a worker, of the document
        frequencies that the corpus has.

        Parameters
        ----------
        smartirs, wlocal, wglobal, normalize, pivot, slope
            As in gensim. With functions of your own the documents are read in this process, slowly.

        Raises
        ------
        ValueError, TypeError
            If an argument is not what it has to be.

        Examples
        --------
        >>> lsi = LsiModel(corpus.tfidf(), id2word=corpus.id2word)                     # doctest: +SKIP
        """
        custom = wlocal is not None or wglobal is not None or callable(normalize)
        if smartirs is not None and custom:
            raise ValueError("smartirs names all weights: give it, or functions of your own")
        if not normalize and smartirs is None and pivot is not None:
            raise ValueError("pivot is of a normalisation: give normalize=True with it")
        if smartirs is None:
            smartirs = "nfc" if normalize else "nfn"
        weighting = Weighting(smartirs, pivot, slope)
        if custom:
            weigh: Callable[[Chunk], Chunk] = _CustomWeights(
                self._store, wlocal, wglobal, normalize, weighting.pivot, weighting.slope
            )
            return TfidfCorpus(self._store, self._start, self._stop, weigh, None)
        weigh = TermWeights(weighting, self._store).weigh
        return TfidfCorpus(self._store, self._start, self._stop, weigh, weighting)

    def verify(self) -> Iterator[str]:
        """Read every file of the whole corpus, and yield its name when its checksum is right.

        Raises
        ------
        DamagedError
            If it is not; the message names the file.
        """
        return self._store.verify()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {str(self.directory)!r}: {plural(len(self), 'document')}, "
            f"{plural(self.num_terms, 'term')}>"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: how large it is, and the heaviest words of the first documents."""
        facts = {
            "folder": str(self.directory),
            "documents": f"{len(self):,}",
            "terms": f"{self.num_terms:,}",
            "entries": f"{self.num_nnz:,}",
        }
        words, first = self.id2word or {}, self[:DOCUMENTS_SHOWN]
        for name, bag in zip(first.names or range(len(first)), first, strict=True):
            heaviest = sorted(bag, key=lambda pair: -pair[1])[:WORDS_SHOWN]
            facts[f"document {name}"] = ", ".join(f"{word_of(words, id)} {value:g}" for id, value in heaviest)
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in facts.items()
        )
        return f"<b>{type(self).__name__}</b><table>{rows}</table>"


class Selection(Documents):
    """Documents of a corpus, by their numbers in it; some may be there more than once."""

    def __init__(self, store: Store, documents: Documents, numbers: NDArray[np.int64]) -> None:
        super().__init__(store, 0, len(numbers))
        self._documents = documents
        self._numbers = numbers

    def _range(self, start: int, stop: int) -> Selection:
        return Selection(self._store, self._documents, self._numbers[start:stop])

    def _selected(self, numbers: NDArray[np.int64]) -> Selection:
        return Selection(self._store, self._documents, self._numbers[numbers])

    def _chunk(self, start: int, stop: int) -> Chunk:
        return self._documents.gathered(self._numbers[start:stop])

    def is_referable(self, counts: bool) -> bool:
        """See `Documents.is_referable`: references are to ranges."""
        return False

    @property
    def names(self) -> list[str] | None:
        """The documents' names; None where they have none."""
        names = self._documents.names
        return None if names is None else [names[number] for number in self._numbers.tolist()]


def dictionary_of(store: Store) -> Any:
    """Return the words of a store, see `Documents.id2word`."""
    texts = store.words()
    if texts is None:
        return None
    words = {number: word for number, word in enumerate(texts) if word is not None}
    token2id = {word: number for number, word in words.items()}
    if len(token2id) < len(words):
        return words
    dictionary = Dictionary()
    dictionary.token2id, dictionary.id2token = token2id, words
    of_documents = store.document_frequencies().tolist()
    dictionary.dfs = {number: of_documents[number] for number in words if of_documents[number]}
    dictionary.num_docs, dictionary.num_nnz = store.manifest.documents, store.manifest.entries
    if store.manifest.weighting == "counts":
        of_all = store.collection_frequencies().tolist()
        dictionary.cfs = {number: int(of_all[number]) for number in words if of_all[number]}
        dictionary.num_pos = int(sum(of_all))
    return dictionary


def _bags(chunk: Chunk) -> Iterator[list[tuple[int, float]]]:
    bounds, ids, values = chunk.indptr.tolist(), chunk.indices.tolist(), chunk.data.tolist()
    for first, end in pairwise(bounds):
        yield list(zip(ids[first:end], values[first:end], strict=True))


def _terms_of(corpus: Any) -> int | None:
    """Return the size of a corpus' vocabulary, where the corpus says it."""
    if is_sparse(corpus):
        return int(corpus.shape[0])
    return int(corpus.num_terms) if is_stored(corpus) else None


def _parts(corpus: Any, begin: int) -> Iterator[tuple[Any, int]]:
    """Yield the documents of a corpus from `begin` on, some at once, and how many they are."""
    if is_stored(corpus) or is_sparse(corpus):
        size = corpus.shape[1] if is_sparse(corpus) else len(corpus)
        for first in range(begin, size, AT_ONCE):
            end = min(first + AT_ONCE, size)
            yield (corpus[:, first:end] if is_sparse(corpus) else corpus.chunk(first, end)), end - first
        return
    if (file := text_file(corpus)) is not None:
        end = 0
        for chunk in file.chunks(AT_ONCE):
            first, end = end, end + chunk.n_docs
            if end > begin:
                wanted = chunk.slice(max(begin - first, 0), chunk.n_docs)
                yield wanted, wanted.n_docs
        return
    documents = islice(corpus, begin, None)
    while part := list(islice(documents, AT_ONCE)):
        yield part, len(part)


def _compressing(stored: BinaryIO, suffix: str) -> AbstractContextManager[Any]:
    """Return what is to be written to, for a file that ends like this: equal content gives equal bytes."""
    if suffix == ".gz":
        return gzip.GzipFile("", "wb", fileobj=stored, mtime=0)
    if suffix == ".bz2":
        return bz2.BZ2File(stored, "wb")
    return nullcontext(stored)


def _cannot_write(path: Path, error: OSError) -> OSError:
    return OSError(error.errno, f"{path} cannot be written: {error.strerror or error}; {remedy(error)}")


def _mm_lines(chunk: Chunk, first: int) -> bytes:
    """Return the lines of some documents of a Matrix Market file, the first of which has number `first`."""
    if not chunk.nnz:
        return b""
    rows = np.repeat(np.arange(first, first + chunk.n_docs), np.diff(chunk.indptr))
    matrix = scipy.sparse.coo_array(
        (chunk.data.astype(np.float64), (rows, chunk.indices.astype(np.int64))),
        shape=(first + chunk.n_docs, chunk.num_terms),
    )
    file = io.BytesIO()
    scipy.io.mmwrite(file, matrix, field="real", symmetry="general")
    lines = file.getvalue()
    start = 0
    while lines[start : start + 1] == b"%":  # comments, and then the line of sizes
        start = lines.index(b"\n", start) + 1
    return lines[lines.index(b"\n", start) + 1 :]


class TfidfCorpus(Documents):
    """The documents of a corpus with TF-IDF weights, which are computed as they are read.

    Made by `Corpus.tfidf`. The weights are float32.
    """

    def __init__(
        self, store: Store, start: int, stop: int, weigh: Callable[[Chunk], Chunk], named: Any
    ) -> None:
        super().__init__(store, start, stop)
        self._weigh = weigh
        #: Where it has a name.
        self.weighting = named

    def is_referable(self, counts: bool) -> bool:
        """See `Documents.is_referable`: where weights have a name, and leave nothing out."""
        if self.weighting is None or counts or self._store.manifest.weighting != "counts":
            return False
        left_out = self._weigh.__self__.of_terms == 0  # type: ignore[attr-defined]
        return not (left_out & (self._store.document_frequencies() > 0)).any()

    def _range(self, start: int, stop: int) -> TfidfCorpus:
        return TfidfCorpus(self._store, start, stop, self._weigh, self.weighting)

    def _chunk(self, start: int, stop: int) -> Chunk:
        return self._weigh(self._store.chunk(start, stop))

    def gathered(self, numbers: NDArray[np.int64]) -> Chunk:
        """See `Documents.gathered`."""
        return self._weigh(self._store.gathered(self._start + numbers))


class _CustomWeights:
    """Weights by functions of the user's, as gensim's `TfidfModel` calls them."""

    def __init__(
        self, store: Store, wlocal: Any, wglobal: Any, normalize: Any, pivot: Any, slope: float
    ) -> None:
        from gensim import utils
        from gensim.models.tfidfmodel import TfidfModel, df2idf, precompute_idfs

        frequencies = store.document_frequencies()
        documents = store.manifest.documents
        dfs = {number: int(frequencies[number]) for number in np.flatnonzero(frequencies).tolist()}
        model = TfidfModel(normalize=normalize, pivot=pivot, slope=slope)
        model.wlocal = utils.identity if wlocal is None else wlocal
        model.idfs = precompute_idfs(df2idf if wglobal is None else wglobal, dfs, documents)
        model.dfs, model.num_docs, model.num_nnz = dfs, documents, store.manifest.entries
        self._model = model

    def __call__(self, chunk: Chunk) -> Chunk:
        # Made of Python's pairs again: functions may return whatever they like.
        weighed = [self._model[bag] for bag in _bags(chunk)]
        return as_chunk(weighed, chunk.num_terms)

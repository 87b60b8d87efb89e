"""A chunk of a corpus: a document-term matrix in CSR form, made of everything that gensim passes around."""

from __future__ import annotations

import functools
import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, pairwise
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from distcorpus._text import plural

from .sparse import Sparse, matrix_of, sound
from .summation import exact_sum

R = TypeVar("R")

MAX_TERMS = 2**31 - 1
#: What the counts of a term may add up to: LDA's sums are exact below (see `lda.LDA_GRID`).
MAX_COUNT = 2.0**31
#: Values that are larger may have squares whose sums cannot be held any more.
LARGEST_WEIGHT = 1e150
#: Where no value is larger than that, their squares are no normal numbers.
SMALLEST_WEIGHT = 1e-150

#: Terms of the vocabulary for each id that is looked at, up to which a table of all terms is used.
DENSE_TERMS = 32

#: Documents, and entries, that are read at once: meanwhile no other thread of the process runs.
DOCUMENTS_AT_ONCE, ENTRIES_AT_ONCE = 1 << 15, 1 << 18

#: Reading so many documents without the compiled reader takes about as long as loading it.
WORTH_LOADING = 40_000


class Counted(Protocol):
    """Documents of which it is known how many they are and which words they have."""

    @property
    def n_docs(self) -> int:
        """The number of documents, empty ones included."""

    @property
    def nnz(self) -> int:
        """The number of entries."""

    def words(self) -> np.ndarray:
        """Return the distinct term ids that occur, ascending (int32)."""


class Documents(Counted, Protocol):
    """What a training run has to know of a block's documents, which may be on another machine."""

    def squared_norm(self) -> float:
        """Return the sum of the squared values, correctly rounded."""

    def packed_words(self) -> NDArray:
        """Return the words as they are kept, see `packed_words`."""


class Divisible(Counted, Protocol):
    """A chunk that can be cut into blocks of `Documents`; a `Chunk` is one that is here."""

    @property
    def nbytes(self) -> int:
        """The bytes that it takes in this process."""

    @property
    def measured(self) -> bool:
        """Whether its blocks can say their `Documents.squared_norm`."""

    def total(self) -> float:
        """Return the sum of the values."""

    def largest(self) -> float:
        """Return the largest absolute value."""

    def split(self, max_docs: int | None = None, max_nnz: int | None = None) -> Sequence[Documents]:
        """Cut it into blocks, see `Chunk.split`."""

    def apply(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return ``function(chunk, *arguments)``, computed where the documents are."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A document-term matrix in CSR form.

    Within a document the term ids increase strictly and no value is zero; `as_chunk` sees to it.

    Attributes
    ----------
    indptr : ndarray of int64, shape (n_docs + 1,)
        Document ``d`` owns the entries ``indptr[d]`` to ``indptr[d + 1]``; starts at 0.
    indices : ndarray of int32, shape (nnz,)
        Term ids, in ``[0, num_terms)``.
    data : ndarray of float32 or float64, shape (nnz,)
        The values: counts or weights.
    num_terms : int
        The size of the vocabulary.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    num_terms: int

    @property
    def n_docs(self) -> int:
        """The number of documents, empty ones included."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return len(self.indices)

    @property
    def nbytes(self) -> int:
        """The bytes of the three arrays."""
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes

    def words(self) -> np.ndarray:
        """Return the distinct term ids that occur, ascending (int32)."""
        return words_in([self.indices], self.num_terms)

    def packed_words(self) -> NDArray:
        """Return the words as they are."""
        return self.words()

    def slice(self, start: int, stop: int) -> Chunk:
        """Return the documents `start` to `stop` as a chunk that shares this one's entries."""
        start, stop, _ = slice(start, stop).indices(self.n_docs)
        bounds = self.indptr[start : max(start, stop) + 1]
        first, last = bounds[0], bounds[-1]
        return Chunk(bounds - first, self.indices[first:last], self.data[first:last], self.num_terms)

    @property
    def measured(self) -> bool:
        """Whether its blocks can say their squared norms: they are here."""
        return True

    def copy(self) -> Chunk:
        """Return the chunk in memory of its own."""
        return Chunk(self.indptr.copy(), self.indices.copy(), self.data.copy(), self.num_terms)

    def split(self, max_docs: int | None = None, max_nnz: int | None = None) -> list[Chunk]:
        """Cut the chunk into blocks of about equal size, in document order.

        The cut depends on the chunk and the limits alone. There are as few blocks as the limits allow on
        average; a block exceeds `max_nnz` by less than one document, and `max_docs` never unless `max_nnz` is
        given too.

        Parameters
        ----------
        max_docs : int, optional
            The documents that a block may have.
        max_nnz : int, optional
            The entries that a block should have at most.

        Returns
        -------
        list of Chunk
            Views of this chunk; empty where it has no documents.
        """
        bounds = block_bounds(self.indptr, max_docs, max_nnz)
        return [self.slice(start, stop) for start, stop in pairwise(bounds)]

    def squared_norm(self) -> float:
        """Return the sum of the squared values, correctly rounded (so the same in any order); infinite where
        it is out of range.
        """
        with np.errstate(over="ignore"):
            squares = np.square(self.data, dtype=np.float64)
        try:
            return exact_sum(squares)
        except OverflowError:
            return math.inf

    def total(self) -> float:
        """Return the sum of the values."""
        return float(self.data.sum(dtype=np.float64))

    def largest(self) -> float:
        """Return the largest absolute value; 0 where there is none."""
        return float(np.abs(self.data).max(initial=0.0))

    def apply(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return ``function(self, *arguments)``."""
        return function(self, *arguments)


def block_bounds(
    indptr: np.ndarray, max_docs: int | None = None, max_nnz: int | None = None
) -> NDArray[np.int64]:
    """Return where `Chunk.split` cuts documents of which `indptr` is known: the first of each block, and
    their number.
    """
    for name, limit in (("max_docs", max_docs), ("max_nnz", max_nnz)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name}={limit}: a block needs room for at least one; pass a positive number")
    per_document, per_entry = 0, 0  # shares of a block, over the common denominator max_docs * max_nnz
    if max_docs is not None:
        per_document = max_nnz or 1
    if max_nnz is not None:
        per_entry = max_docs or 1
    capacity = (max_docs or 1) * (max_nnz or 1)
    load = np.maximum(per_document, np.diff(indptr) * per_entry)
    ends = np.concatenate(([0], np.cumsum(load)))
    n_blocks = max(1, -(-int(ends[-1]) // capacity))
    targets = [int(ends[-1]) * i // n_blocks for i in range(1, n_blocks)]
    cuts = np.searchsorted(ends, targets, side="right") - 1
    return np.unique(np.concatenate(([0], cuts, [len(indptr) - 1]))).astype(np.int64)


def packed_words(words: NDArray[np.int32], num_terms: int) -> NDArray:
    """Return term ids as they are or, where that is smaller, as a bit for each term of the vocabulary."""
    if words.nbytes <= num_terms // 8:
        return words
    occurs = np.zeros(num_terms, bool)
    occurs[words] = True
    return np.packbits(occurs)


def unpacked_words(packed: NDArray) -> NDArray[np.int32]:
    """Return the term ids of which `packed_words` has made something."""
    if packed.dtype == np.int32:
        return packed
    return np.flatnonzero(np.unpackbits(packed)).astype(np.int32)


def joined(chunks: Sequence[Chunk], num_terms: int) -> Chunk:
    """Return the documents of some chunks as one chunk: the only one, or a new one."""
    if len(chunks) == 1:
        return chunks[0]
    lengths = [np.zeros(1, np.int64), *(np.diff(chunk.indptr) for chunk in chunks)]
    return Chunk(
        np.cumsum(np.concatenate(lengths)),
        np.concatenate([np.empty(0, np.int32), *(chunk.indices for chunk in chunks)]),
        np.concatenate([np.empty(0, np.float32), *(chunk.data for chunk in chunks)]),
        num_terms,
    )


def words_in(id_lists: Sequence[np.ndarray], num_terms: int) -> np.ndarray:
    """Return the term ids that occur in any of some arrays, int32, ascending and distinct."""
    if not _is_dense(sum(map(len, id_lists)), num_terms):
        every = np.concatenate([np.empty(0, np.int32), *id_lists])
        return np.unique(every).astype(np.int32, copy=False)
    occurs = np.zeros(num_terms, dtype=bool)
    for ids in id_lists:
        occurs[ids] = True
    return np.flatnonzero(occurs).astype(np.int32)


def compact(chunk: Chunk) -> tuple[np.ndarray, Chunk]:
    """Return the words of a chunk, ascending, and the chunk with their positions for term ids."""
    if _is_dense(chunk.nnz, chunk.num_terms):
        words = chunk.words()
        positions = positions_of(words, chunk.num_terms)[chunk.indices]
    else:
        words, positions = np.unique(chunk.indices, return_inverse=True)
    return words, Chunk(chunk.indptr, positions.astype(np.int32, copy=False), chunk.data, len(words))


def _is_dense(number: int, num_terms: int) -> bool:
    """Whether so many ids are worth a table with an entry for each term: it is faster than to sort them, and
    takes memory for a vocabulary whose size may be no more than a claim.
    """
    return num_terms <= DENSE_TERMS * number


def positions_of(words: np.ndarray, num_terms: int) -> np.ndarray:
    """Return the position of each term id among some distinct ones, int32 (num_terms,); 0 for others."""
    positions = np.zeros(num_terms, np.int32)
    positions[words] = np.arange(len(words), dtype=np.int32)
    return positions


def from_arrays(indptr: Any, indices: Any, data: Any, num_terms: int, what: str = "chunk") -> Chunk:
    """Make a chunk of three arrays that arrived from elsewhere.

    Everything is checked that compiled code relies on.

    Parameters
    ----------
    indptr, indices, data : ndarray
        As `Chunk` has them, `indptr` and `indices` of any integer type, `data` of any floating-point one.
    num_terms : int
        The size of the vocabulary.
    what : str
        What error messages call the chunk.

    Raises
    ------
    TypeError
        If they are not arrays of numbers with one dimension.
    ValueError
        If `indptr` does not cut the entries into documents, or a term id is not in ``[0, num_terms)``.
    """
    for array, kind in ((indptr, "i"), (indices, "i"), (data, "f")):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind != kind:
            raise TypeError(f"{what}: not the arrays of a chunk; pass indptr, indices and data of a Chunk")
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or (indptr[1:] < indptr[:-1]).any():
        raise ValueError(f"{what}: indptr does not describe documents of {len(indices)} entries")
    if len(data) != len(indices):
        raise ValueError(f"{what}: {len(data)} values for {len(indices)} term ids")
    return Chunk(
        indptr.astype(np.int64, copy=False),
        _checked_ids(indptr, indices, num_terms, what),
        data if data.dtype in (np.float32, np.float64) else data.astype(np.float64),
        num_terms,
    )


def as_chunk(
    documents: Any, num_terms: int, *, counts: bool = False, largest: float | None = None, what: str = "chunk"
) -> Chunk:
    """Convert and validate a chunk of a corpus.

    Duplicate term ids within a document are summed, explicit zeros are dropped, and the values become float32
    where float32 holds every one of them exactly, float64 otherwise.

    Parameters
    ----------
    documents : sequence of documents, or scipy sparse matrix, or Chunk
        Documents are gensim's bags of words, each a list of ``(term id, value)`` pairs or an array of shape
        (n_words, 2). A sparse matrix has shape (terms, documents), as gensim has it; gensim's
        ``Sparse2Corpus`` will do.
    num_terms : int
        The size of the vocabulary.
    counts : bool
        Refuse negative values.
    largest : float, optional
        Refuse values of this magnitude, or more.
    what : str
        What error messages call the documents.

    Returns
    -------
    Chunk
        It may share memory with `documents`.

    Raises
    ------
    TypeError
        If a document is neither pairs of numbers nor an array of them.
    ValueError
        If a term id is not a whole number in ``[0, num_terms)``, or came as float32 while `num_terms` exceeds
        2**24 (float32 does not tell larger ids apart); if a value is infinite, NaN, or (with `counts`)
        negative or too large (`MAX_COUNT`); if a sparse matrix is malformed. The message names the document
        and the term id.
    """
    if not 0 <= num_terms <= MAX_TERMS:
        raise ValueError(f"num_terms={num_terms}: a vocabulary has between 0 and 2**31 - 1 terms")
    indptr, ids, values = _arrays_of(documents, num_terms, what)
    indices = _checked_ids(indptr, ids, num_terms, what)
    _check_values(indptr, indices, values, counts, largest, what)
    indptr, indices, values = _canonical(indptr, indices, values, num_terms, what)
    if counts:
        _check_totals(indptr, indices, values, what)
    # Of memory maps and other subclasses of arrays, which do not travel, the arrays.
    return Chunk(np.asarray(indptr), np.asarray(indices), _narrowed(values), num_terms)


def largest_id(documents: Any, what: str = "chunk") -> int:
    """Return the largest term id of documents of which the vocabulary is not known; -1 where there is none.

    Parameters
    ----------
    documents, what
        As `as_chunk` has them.

    Raises
    ------
    TypeError
        If a document is neither pairs of numbers nor an array of them.
    ValueError
        If a term id is not a whole number from 0 on, or a sparse matrix is malformed.
    """
    indptr, ids, _ = _arrays_of(documents, 0, what)
    if not len(ids):
        return -1
    with np.errstate(invalid="ignore"):
        good = (ids >= 0) & (np.floor(ids) == ids) & (ids < np.inf)
    if not good.all():
        _refuse(~good, indptr, ids, what, "is not a whole number from 0 on")
    return int(ids.max())


def _arrays_of(documents: Any, num_terms: int, what: str) -> tuple[np.ndarray, ...]:
    """Return (indptr, ids, values) of documents of any kind; the ids may still be floats."""
    if isinstance(documents, Chunk):
        return documents.indptr, documents.indices, documents.data
    matrix = matrix_of(documents)
    if matrix is not None:
        return _from_sparse(matrix, what)
    if not isinstance(documents, Iterable) or isinstance(documents, str | bytes):
        raise TypeError(
            f"{what}: cannot read documents from {type(documents).__name__}; pass a list of bags of words "
            "or a scipy sparse matrix (terms x documents)"
        )
    return _read(documents if isinstance(documents, list | tuple) else list(documents), num_terms, what)


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        from . import _bow_kernels
    except ImportError:
        return None
    return _bow_kernels


class _Reader:
    """The compiled reader of bags of words, once it is worth the time that loading numba takes."""

    def __init__(self) -> None:
        self._documents_to_go = WORTH_LOADING

    def load(self) -> None:
        self._documents_to_go = 0
        self.read([])

    def read(self, documents: Sequence[Any]) -> tuple[np.ndarray, ...] | None:
        """Return (indptr, ids, values), or None where this is nothing for it."""
        if self._documents_to_go > 0:
            self._documents_to_go -= len(documents)
            return None
        kernels = _kernels()
        if kernels is None:
            return None
        understood, *arrays = kernels.read(id(documents), tuple(map(id, kernels.TYPES)))
        return tuple(arrays) if understood else None


_reader = _Reader()


def warm() -> None:
    """Load the compiled reader of bags of words, or compile it, before `as_chunk` has read enough without."""
    _reader.load()


def _read(documents: Sequence[Any], num_terms: int, what: str) -> tuple[np.ndarray, ...]:
    """Read bags of words into (indptr, ids, values), not too many at once; the ids may still be floats."""
    lengths: list[np.ndarray] = [np.zeros(1, np.int64)]
    ids, values = [], []
    for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
        of_pieces = []
        for piece in _pieces(documents[first : first + DOCUMENTS_AT_ONCE]):
            read = _reader.read(piece)
            if read is None:
                try:
                    read = _from_documents(piece, num_terms, what)
                except _NotBags as error:
                    raise _culprit(documents, what) from error
            of_pieces.append(np.diff(read[0]))
            ids.append(read[1])
            values.append(read[2])
        # A document that was cut is one again.
        whole = documents[first : first + DOCUMENTS_AT_ONCE]
        lengths.append(of_pieces[0] if len(of_pieces) == 1 else np.fromiter(map(len, whole), np.int64))
    if not ids:
        return lengths[0], np.empty(0, np.int32), np.empty(0)
    indptr = np.cumsum(np.concatenate(lengths))
    if len(ids) == 1:
        return indptr, ids[0], values[0]
    return indptr, np.concatenate(ids), np.concatenate(values)


def _pieces(documents: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut some documents into parts of about `ENTRIES_AT_ONCE` entries, in their order, long ones as well."""
    try:
        ends = np.cumsum(np.fromiter(map(len, documents), np.int64, count=len(documents)))
    except TypeError:  # not all are documents: whoever reads them says which
        yield documents
        return
    if ends[-1] <= ENTRIES_AT_ONCE:
        yield documents
        return
    start = 0
    while start < len(documents):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + ENTRIES_AT_ONCE, side="right")))
        alone = documents[start]
        if stop == start + 1 and isinstance(alone, list | tuple | np.ndarray):
            for first in range(0, max(len(alone), 1), ENTRIES_AT_ONCE):
                yield [alone[first : first + ENTRIES_AT_ONCE]]
        else:
            yield documents[start:stop]
        start = stop


def _from_documents(documents: Sequence[Any], num_terms: int, what: str) -> tuple[np.ndarray, ...]:
    """Concatenate bags of words into (indptr, ids, values); the ids may still be floats."""
    try:
        lengths = np.fromiter(map(len, documents), np.int64, count=len(documents))
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        if any(issubclass(kind, np.ndarray) for kind in set(map(type, documents))):
            arrays = [_as_array(document, num_terms, what) for document in documents if len(document)]
            _check_id_dtypes(arrays, num_terms, what)
            pairs = np.concatenate(arrays) if arrays else np.empty((0, 2))
            if pairs.ndim != 2 or pairs.shape[1] != 2:
                raise ValueError("not pairs")
        else:
            pairs = _pairs(chain.from_iterable(documents))
        if pairs.dtype.kind not in "iuf":
            raise TypeError("not numbers")
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, _DtypeError):
            raise
        raise _NotBags from error
    return indptr, pairs[:, 0], pairs[:, 1]


#: What has two items and is no pair, and what numpy makes numbers of that is none.
_NO_PAIRS = str, bytes, bytearray, memoryview, Set, Mapping
_NO_NUMBERS = str, bytes, bytearray, memoryview, np.datetime64, np.timedelta64


def _pairs(entries: Iterable[Any]) -> np.ndarray:
    """Return pairs of numbers as an array; nothing is made of what is nested deeper, nor of text."""
    entries = list(entries)
    if set(map(len, entries)) - {2} or any(issubclass(kind, _NO_PAIRS) for kind in set(map(type, entries))):
        raise ValueError("not pairs")
    kinds = set(map(type, chain.from_iterable(entries)))
    if any(issubclass(kind, _NO_NUMBERS) for kind in kinds) or (
        any(issubclass(kind, np.ndarray) for kind in kinds)
        and not all(map(_is_number, chain.from_iterable(entries)))
    ):
        raise TypeError("not numbers")
    return np.fromiter(chain.from_iterable(entries), np.float64, count=2 * len(entries)).reshape(-1, 2)


def _is_number(thing: Any) -> bool:
    """Return whether an array, where this is one, is one number."""
    if not isinstance(thing, np.ndarray):
        return True
    return thing.shape == () and thing.dtype.kind in "biuf" and thing is not np.ma.masked


class _NotBags(Exception):
    """Some of the documents are no bags of words."""


def _as_array(document: Any, num_terms: int, what: str) -> np.ndarray:
    """Return a bag of words as an array of numbers, shape (n_words, 2), and no subclass of one.

    It may be a structured array of two fields, or one of objects: of pairs, or of numbers.
    """
    if not isinstance(document, np.ndarray):
        return _pairs(document)
    if isinstance(document, np.ma.MaskedArray) and _masked(document):
        raise TypeError("masked values")
    array = np.asarray(document)
    fields = array.dtype.names
    if fields is not None:
        if len(fields) != 2 or any(array[field].dtype.kind not in "biuf" for field in fields):
            raise TypeError("not pairs")
        _check_id_dtypes([array[fields[0]]], num_terms, what)
        return np.stack([array[field].astype(np.float64) for field in fields], axis=-1)
    if array.dtype == object:
        rows = [tuple(row) for row in array]
        if not all(isinstance(number, numbers.Real) for row in rows for number in row):
            raise TypeError("not numbers")
        return np.array(rows, dtype=np.float64)
    return array


def _masked(document: np.ma.MaskedArray[Any, Any]) -> int:
    """Return how many values of an array are masked."""
    mask: Any = np.ma.getmask(document)
    return sum(int(np.sum(mask if name is None else mask[name])) for name in mask.dtype.names or [None])


class _DtypeError(ValueError):
    """The term ids came in a floating-point type that cannot tell them apart."""


def _check_id_dtypes(arrays: Sequence[np.ndarray], num_terms: int, what: str) -> None:
    for dtype in {array.dtype for array in arrays}:
        if dtype.kind == "f" and num_terms > (limit := 2 ** (np.finfo(dtype).nmant + 1)):
            raise _DtypeError(
                f"{what}: term ids came as {dtype}, which is exact only up to {limit}, but "
                f"num_terms={num_terms}; pass float64 arrays, lists of pairs, or a scipy sparse matrix"
            )


def _culprit(documents: Sequence[Any], what: str) -> TypeError:
    """Find the first document that is no bag of words."""
    for number, document in enumerate(documents):
        fault = _fault(document, what)
        if fault is not None:
            return TypeError(f"{what}: document {number} {fault}")
    return TypeError(
        f"{what}: the documents are not of one kind; pass lists of pairs, or (n_words, 2) arrays"
    )


def _fault(document: Any, what: str) -> str | None:
    """Return why a document is no bag of words, or None."""
    if isinstance(document, np.ma.MaskedArray) and (masked := _masked(document)):
        return (
            f"is {_shortened(document)} with {plural(masked, 'masked value')}; leave its words out "
            "(numpy.ma.compress_rows) or give them values (filled)"
        )
    if isinstance(document, Iterator):
        return f"is a {type(document).__name__}, which can be read only once; pass a list of it"
    try:
        pairs = _as_array(document, MAX_TERMS, what)
        if pairs.size == 0 or (pairs.dtype.kind in "iuf" and pairs.shape == (len(pairs), 2)):
            return None
    except (TypeError, ValueError, OverflowError):
        pass
    remedy = "pass (term id, value) pairs of numbers, or an array of shape (n_words, 2)"
    if _has_text(document):
        remedy += "; of words gensim's Dictionary.doc2bow makes these"
    return f"is not a bag of words but {_shortened(document)}; {remedy}"


def _has_text(document: Any) -> bool:
    """Return whether a document is text, or words."""
    words = document[:1] if isinstance(document, list | tuple) else [document]
    return any(isinstance(word, str | bytes) for word in words)


_short = reprlib.Repr()
_short.maxlevel = 3  # lists of lists of lists may be few, and their text endless


def _shortened(thing: Any) -> str:
    if isinstance(thing, np.ndarray):
        return f"an array of shape {thing.shape} and type {thing.dtype}"
    try:
        text = _short.repr(thing)
    except ValueError:  # an integer with too many digits
        text = f"a {type(thing).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _from_sparse(matrix: Sparse, what: str) -> tuple[np.ndarray, ...]:
    """Return the columns of a terms x documents matrix as (indptr, ids, values)."""
    columns = sound(matrix, what).tocsc()
    values = columns.data.astype(np.float64) if columns.data.dtype.kind in "biu" else columns.data
    return (
        columns.indptr.astype(np.int64),
        columns.indices[: columns.indptr[-1]],
        values[: columns.indptr[-1]],
    )


def _checked_ids(indptr: np.ndarray, ids: np.ndarray, num_terms: int, what: str) -> np.ndarray:
    """Return `ids` as int32 if every one is a whole number in [0, num_terms)."""
    if not len(ids):
        return np.empty(0, dtype=np.int32)
    if not (ids.min() >= 0 and ids.max() < num_terms):  # NaN fails too
        _refuse(
            ~((ids >= 0) & (ids < num_terms)),
            indptr,
            ids,
            what,
            f"is outside the vocabulary of {num_terms} terms",
        )
    indices = ids.astype(np.int32, copy=False)
    if ids.dtype.kind == "f" and not np.array_equal(indices, ids):
        _refuse(indices != ids, indptr, ids, what, "is not a whole number")
    return indices


def _check_values(
    indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, counts: bool, largest: float | None, what: str
) -> None:
    if not len(values):
        return
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        _refuse(~np.isfinite(values), indptr, ids, what, "has a value that is not finite")
    if largest is not None and max(-float(low), float(high)) >= largest:
        number = values[np.argmax(np.abs(values) >= largest)]
        reason = (
            f"has the value {number:g}: values below {largest:g} can be added up; divide them by a number"
        )
        _refuse(np.abs(values) >= largest, indptr, ids, what, reason)
    if counts and low < 0:
        _refuse(values < 0, indptr, ids, what, "has a negative value, where counts are wanted")


def _check_totals(indptr: np.ndarray, ids: np.ndarray, values: np.ndarray, what: str) -> None:
    """Refuse counts of which those of one term add up to more than can be counted."""
    if values.sum(dtype=np.float64) < MAX_COUNT:
        return
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    totals = np.add.reduceat(values[order], starts, dtype=np.float64)
    if totals.max() < MAX_COUNT:
        return
    which = int(np.argmax(totals))
    entries = order[starts[which] : starts[which + 1] if which + 1 < len(starts) else None]
    entry = int(entries[np.argmax(values[entries])])
    document = int(np.searchsorted(indptr, entry, side="right")) - 1
    raise ValueError(
        f"{what}: document {document}: term id {ids[entry]} has a count of {values[entry]:.10g}, and all of "
        f"these documents have {totals[which]:.10g} of it: counts are added exactly below "
        f"{MAX_COUNT:.0f} (2**31); give smaller ones"
    )


def _refuse(bad: np.ndarray, indptr: np.ndarray, ids: np.ndarray, what: str, reason: str) -> None:
    entry = int(np.argmax(bad))
    document = int(np.searchsorted(indptr, entry, side="right")) - 1
    raise ValueError(
        f"{what}: document {document}: term id {ids[entry]:.17g} {reason} ({int(bad.sum())} such entries)"
    )


def _canonical(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, num_terms: int, what: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort each document by term id, sum duplicates and drop zeros; copies only what has any of these."""
    ascending = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    ascending[starts[(starts > 0) & (starts < len(indices))] - 1] = True
    if ascending.all() and np.count_nonzero(values) == len(values):
        return indptr, indices, values
    matrix = scipy.sparse.csr_array(
        (values.astype(np.float64), indices.copy(), indptr.copy()), shape=(len(indptr) - 1, num_terms)
    )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not np.isfinite(matrix.data).all():
        raise ValueError(f"{what}: the values of a repeated term id add up to infinity")
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def _narrowed(values: np.ndarray) -> np.ndarray:
    """Return `values` as contiguous float32 where that is exact, else as float64."""
    with np.errstate(all="ignore"):
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype == np.float32 or np.array_equal(narrow, values):
        return narrow
    return np.ascontiguousarray(values, dtype=np.float64)

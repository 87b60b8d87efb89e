"""What a worker keeps between jobs: blocks of documents, and rows of the shared tables of present rounds.

Nothing here matters for a result. A worker that has forgotten something says so, and the dispatcher sends it
again. All of it takes memory in proportion to what arrived, whatever size of vocabulary a job states, and all
together as much as `Cache` is given.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import DENSE_TERMS
from distcorpus.algorithms.postings import Postings
from distcorpus.kernels import Packed

#: Seconds that a job waits for rows of the shared table that the dispatcher sent with the worker's other slot
#: and that have not arrived yet; after that the job asks for them itself.
ROWS_IN_FLIGHT = 10.0

#: Bytes that each thing that is kept takes, besides those of its arrays: they, and what holds them.
KEPT = 1024

_TABLE = "table"


class Places:
    """Where term ids stand among some words.

    Parameters
    ----------
    words : ndarray of int32
        Ascending and distinct.
    """

    def __init__(self, words: NDArray[np.int32]) -> None:
        self._words = words
        size = int(words[-1]) + 1 if len(words) else 0
        self._place: NDArray[np.int32] | None = None
        if size <= DENSE_TERMS * len(words):  # faster than to search
            self._place = np.full(size, -1, np.int32)
            self._place[words] = np.arange(len(words), dtype=np.int32)

    def __len__(self) -> int:
        return len(self._words)

    @property
    def nbytes(self) -> int:
        """Its bytes in memory, without the words."""
        return 0 if self._place is None else self._place.nbytes

    def of(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the places of ascending ids; -1 for those that are not among the words."""
        if not len(ids) or not len(self._words):
            return np.full(len(ids), -1, np.int32)
        last = self._words[-1]
        within = ids if ids[-1] <= last else ids[: np.searchsorted(ids, last, side="right")]
        if self._place is not None:
            places = self._place[within]
        else:
            places = np.searchsorted(self._words, within).astype(np.int32)
            places[self._words[places] != within] = -1
        if len(within) == len(ids):
            return places
        return np.append(places, np.full(len(ids) - len(within), -1, np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class KeptBlock:
    """Documents as a worker keeps them.

    Attributes
    ----------
    words : ndarray of int32, shape (n_words,)
        The terms that occur in them, ascending and distinct.
    documents : Chunk or Postings
        As a kernel's ``pack`` makes them; for the id of a term they have its position in `words`.
    """

    words: NDArray[np.int32]
    documents: Packed

    @property
    def nbytes(self) -> int:
        """Its bytes in memory."""
        return KEPT + self.words.nbytes + self.documents.nbytes

    @property
    def nnz(self) -> int:
        """Its entries."""
        return self.documents.nnz

    def among(self, words: Places) -> Packed:
        """Return the documents with places among `words`, which have all of theirs, for ids."""
        places = words.of(self.words)
        if isinstance(self.documents, Postings):
            return replace(self.documents, words=places[self.documents.words])
        return replace(self.documents, indices=places[self.documents.indices], num_terms=len(words))


class Table:
    """The rows of a round's shared table that this worker holds, one for each term, in order of arrival.

    Parameters
    ----------
    number : int
        The round's.
    width : int
        Columns of a row: documents without words need none, and still have to know how many.
    prepare : callable
        Applied once to the rows as they arrive (a kernel's ``prepare``); it may overwrite them.
    patience : float
        Seconds that `find` waits for rows.
    """

    def __init__(
        self,
        number: int,
        width: int,
        prepare: Callable[[NDArray], NDArray],
        patience: float = ROWS_IN_FLIGHT,
    ) -> None:
        self.number = number
        self.width = width
        self._rows: NDArray = prepare(np.empty((0, width)))
        self._words: NDArray[np.int32] = np.empty(0, np.int32)  # ascending
        self._row_of: NDArray[np.int32] = np.empty(0, np.int32)  # of each of them
        self._places = Places(self._words)
        self._prepare = prepare
        self._patience = patience
        self._arrived = threading.Condition()

    @property
    def nbytes(self) -> int:
        """Its bytes in memory."""
        arrays = self._rows, self._words, self._row_of, self._places
        return KEPT + sum(array.nbytes for array in arrays)

    def add(self, words: NDArray[np.int32], rows: NDArray) -> None:
        """Add the rows of `words`, ascending; those that are held already are left as they are."""
        prepared = self._prepare(rows)
        with self._arrived:
            new = self._places.of(words) < 0
            if not new.all():
                words, prepared = words[new], prepared[new]
            used = len(self._words)
            end = used + len(words)
            if not used:
                self._rows = prepared
            elif end > len(self._rows):
                # Jobs that compute now keep the array they were given; only what comes later sees the new
                # one.
                grown = np.empty((max(end, 2 * used), prepared.shape[1]), dtype=prepared.dtype)
                grown[:used] = self._rows[:used]
                self._rows = grown
            if self._rows is not prepared:
                self._rows[used:end] = prepared
            rows_of_new = np.arange(used, end, dtype=np.int32)
            if used:
                where = np.searchsorted(self._words, words)
                self._row_of = np.insert(self._row_of, where, rows_of_new)
                self._words = np.insert(self._words, where, words)
            else:
                self._row_of, self._words = rows_of_new, words.copy()
            self._places = Places(self._words)
            self._arrived.notify_all()

    def find(self, words: NDArray[np.int32]) -> tuple[NDArray, NDArray[np.int32]] | None:
        """Wait until the rows of all `words` are here; None where they do not come in time.

        Returns
        -------
        table : ndarray, shape (m, width)
        rows : ndarray of int32, shape (n_words,)
            Which of its rows each word has.
        """
        places = np.empty(0, np.int32)

        def complete() -> bool:
            nonlocal places
            places = self._places.of(words)
            return bool((places >= 0).all())

        with self._arrived:
            self._arrived.wait_for(lambda: complete() or not self._patience, self._patience)
            return (self._rows, self._row_of[places]) if (places >= 0).all() else None

    def give_up(self) -> None:
        """Wait for no more rows: those that arrive from now on go to another table."""
        with self._arrived:
            self._patience = 0.0
            self._arrived.notify_all()


class Cache:
    """Blocks and tables of all sessions; beyond a budget, those that were not used for longest are given up.

    Parameters
    ----------
    budget : int
        Bytes to keep. Jobs that compute hold on to what they use, beyond that.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[str, Hashable], tuple[KeptBlock | Table, int]] = OrderedDict()
        self._newest: dict[str, int] = {}  # the newest round of each session
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def put_block(self, session: str, number: int, block: KeptBlock) -> None:
        """Keep a block."""
        with self._lock:
            if (session, number) not in self._kept:
                self._put((session, number), block)

    def block(self, session: str, number: int) -> KeptBlock | None:
        """Return a block, or None where it is not held."""
        with self._lock:
            if (session, number) not in self._kept:
                return None
            self._kept.move_to_end((session, number))
            block, _ = self._kept[session, number]
            assert isinstance(block, KeptBlock)
            return block

    def table(
        self, session: str, number: int, width: int, prepare: Callable[[NDArray], NDArray]
    ) -> Table | None:
        """Return the table of a round, made empty where it is new; None where a later round has begun."""
        with self._lock:
            newest = self._newest.get(session, -1)
            if number < newest:
                return None
            table, _ = self._kept.get((session, _TABLE), (None, 0))
            assert table is None or isinstance(table, Table)
            if table is None or number > table.number:
                # Where one of this round was given up, rows that a job lacks are not on their way.
                patience = 0.0 if number == newest else ROWS_IN_FLIGHT
                table = Table(number, width, prepare, patience)
                self._newest[session] = number
            if table.width != width:
                raise ValueError(f"a job states a width of {width}, the others of its round {table.width}")
            self._put((session, _TABLE), table)
            return table

    def grown(self, session: str, table: Table) -> None:
        """Count a table anew, if it is kept still."""
        with self._lock:
            if self._kept.get((session, _TABLE), (None, 0))[0] is table:
                self._put((session, _TABLE), table)

    def forget(self, session: str) -> None:
        """Give up everything of a session."""
        with self._lock:
            self._newest.pop(session, None)
            for key in [key for key in self._kept if key[0] == session]:
                self._remove(key)

    def _put(self, key: tuple[str, Hashable], item: KeptBlock | Table) -> None:
        if key in self._kept:
            self._remove(key)
        self._kept[key] = item, item.nbytes
        self._nbytes += item.nbytes
        while self._nbytes > self._budget:
            given_up = self._remove(next(iter(self._kept)))
            if isinstance(given_up, Table):
                given_up.give_up()

    def _remove(self, key: tuple[str, Hashable]) -> KeptBlock | Table:
        item, nbytes = self._kept.pop(key)
        self._nbytes -= nbytes
        return item

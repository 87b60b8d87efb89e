"""What a worker keeps between jobs: blocks of documents, and the broadcast rows of the rounds under way.

Nothing here matters for a result. A worker that has forgotten something says so, and the dispatcher sends it
again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.postings import Postings

#: A block of documents as a kernel takes it (its ``pack`` makes it).
Packed = Chunk | Postings

#: Seconds that a job waits for broadcast rows that the dispatcher sent with the worker's other slot and that
#: are still on their way; after that the job asks for them itself.
ROWS_IN_FLIGHT = 10.0


class BlockCache:
    """Blocks of documents by (session, block number), the least recently used given up beyond a budget.

    Parameters
    ----------
    budget : int
        Bytes of blocks to keep.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._blocks: OrderedDict[tuple[str, int], Packed] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def put(self, session: str, number: int, block: Packed) -> None:
        """Keep a block; the ones that were not used for longest make room."""
        with self._lock:
            if (session, number) in self._blocks:
                return
            self._blocks[session, number] = block
            self._nbytes += block.nbytes
            while self._nbytes > self._budget and len(self._blocks) > 1:
                self._nbytes -= self._blocks.popitem(last=False)[1].nbytes

    def get(self, session: str, number: int) -> Packed | None:
        """Return a block, or None where it is not held."""
        with self._lock:
            block = self._blocks.get((session, number))
            if block is not None:
                self._blocks.move_to_end((session, number))
            return block

    def forget(self, session: str) -> None:
        """Give up every block of a session."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == session]:
                self._nbytes -= self._blocks.pop(key).nbytes


class Table:
    """The broadcast rows of one round that this worker holds, one a term, in order of arrival.

    Parameters
    ----------
    num_terms : int
        Size of the vocabulary.
    width : int
        Columns of a row: documents without words need none, and still have to know how many.
    prepare : callable
        Applied once to the rows as they arrive (a kernel's ``prepare``); it may overwrite them.
    """

    def __init__(self, num_terms: int, width: int, prepare: Callable[[NDArray], NDArray]) -> None:
        self.row_of: NDArray[np.int32] = np.full(num_terms, -1, dtype=np.int32)
        self.rows: NDArray = prepare(np.empty((0, width)))
        self._used = 0
        self._prepare = prepare
        self._arrived = threading.Condition()

    def add(self, words: NDArray[np.int32], rows: NDArray) -> None:
        """Add the rows of `words`; those that are held already are left as they are."""
        prepared = self._prepare(rows)
        with self._arrived:
            new = self.row_of[words] < 0
            if not new.all():
                words, prepared = words[new], prepared[new]
            end = self._used + len(words)
            if not self._used:
                self.rows = prepared
            elif end > len(self.rows):
                # Jobs that compute now keep the array they were given; only what comes later sees the new
                # one.
                room = min(max(end, 2 * self._used), len(self.row_of))
                grown = np.empty((room, prepared.shape[1]), dtype=prepared.dtype)
                grown[: self._used] = self.rows[: self._used]
                self.rows = grown
            if self.rows is not prepared:
                self.rows[self._used : end] = prepared
            self.row_of[words] = np.arange(self._used, end, dtype=np.int32)
            self._used = end
            self._arrived.notify_all()

    def holds(self, words: NDArray[np.int32], timeout: float = ROWS_IN_FLIGHT) -> bool:
        """Wait until the rows of all `words` are here; False where they do not come in `timeout` seconds."""
        with self._arrived:
            return self._arrived.wait_for(lambda: bool((self.row_of[words] >= 0).all()), timeout)


class Tables:
    """The tables of the rounds under way: of each session that of the newest round."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[int, Table]] = {}
        self._lock = threading.Lock()

    def get(
        self,
        session: str,
        round_number: int,
        num_terms: int,
        width: int,
        prepare: Callable[[NDArray], NDArray],
    ) -> Table | None:
        """Return the table of a round, made empty where it is new; None where a later round has begun."""
        with self._lock:
            newest, table = self._tables.get(session, (0, None))
            if round_number < newest:
                return None
            if table is None or round_number > newest:
                table = Table(num_terms, width, prepare)
                self._tables[session] = round_number, table
            return table

    def forget(self, session: str) -> None:
        """Give up the tables of a session."""
        with self._lock:
            self._tables.pop(session, None)

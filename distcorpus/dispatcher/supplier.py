"""Documents that a session's program refers to, for workers that do not have their corpus."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.corpora.files import DamagedError
from distcorpus.corpora.reference import Read, Reference, StoredChunk
from distcorpus.corpora.roots import Roots
from distcorpus.kernels import ChunkBound, InferenceParams
from distcorpus.training.evaluation import Evaluation

logger = logging.getLogger(__name__)

#: Seconds between two looks whether the program is still there.
LOOK_EVERY = 0.5
#: A request of the program: its number, and the reference as it travels.
Request = tuple[int, tuple[Any, ...]]


class Supplier:
    """Reads the documents of one session's references: from the dispatcher's own corpora, or else it asks the
    program for them (a `Source`).

    Parameters
    ----------
    roots : Roots
        The dispatcher's.
    engine, session, num_terms
        What is measured is of this session, and computed there.
    counts : bool
        Whether values have to be counts.
    check_client : callable
        Raises where the program is gone.
    """

    def __init__(
        self,
        roots: Roots,
        engine: Any,
        session: str,
        num_terms: int,
        counts: bool,
        check_client: Callable[[], None],
    ) -> None:
        self._roots = roots
        self._engine = engine
        self._session = session
        self._num_terms = num_terms
        self._counts = counts
        self._check_client = check_client
        self._read = Read()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._asked: dict[int, Reference] = {}
        self._arrived: dict[int, Chunk] = {}
        self._untold: list[Request] = []
        self._closed = False
        #: Called when there is a request that was not taken.
        self.asked: Callable[[], None] = lambda: None
        #: Set while there is one.
        self.news = threading.Event()

    def documents(self, reference: Reference) -> Chunk:
        """Return documents; waits for the program, where they are not here.

        Raises
        ------
        ConnectionError, RuntimeError
            If the program is gone, or the session was closed.
        """
        try:
            found = self._roots.read(
                reference.corpus,
                lambda store: self._read.documents(store, reference, self._num_terms, self._counts),
            )
            if found is not None:
                return found
        except DamagedError as error:
            logger.error("a corpus here is damaged, the program is asked for it: %s", error)
        number = next(self._numbers)
        with self._changed:
            self._asked[number] = reference
            self._untold.append((number, reference.to_message()))
            self.news.set()
        self.asked()
        try:
            with self._changed:
                while not self._changed.wait_for(lambda: self._closed or number in self._arrived, LOOK_EVERY):
                    self._check_client()
                if self._closed:
                    raise RuntimeError("its session has ended")
                return self._arrived.pop(number)
        finally:
            with self._changed:
                self._asked.pop(number, None)
                self._arrived.pop(number, None)

    def requests(self) -> list[Request]:
        """Return what the program was not asked for yet."""
        with self._changed:
            self.news.clear()
            untold, self._untold = self._untold, []
        return untold

    def supply(self, number: int, chunk: Chunk) -> None:
        """Take what the program was asked for; what nobody waits for any more is dropped.

        Raises
        ------
        ValueError
            If they are not so many documents.
        """
        with self._changed:
            reference = self._asked.get(number)
            if reference is None:
                return
            if chunk.n_docs != reference.stop - reference.start:
                raise ValueError(f"{chunk.n_docs} documents were supplied for {reference}")
            self._arrived[number] = chunk
            self._changed.notify_all()

    def bound(self, chunk: StoredChunk, arguments: Sequence[Any]) -> tuple[float, float]:
        """Return a chunk's part of the variational bound, and the sum of its counts, from a worker."""
        words, rows, totals, alpha, plan, number = arguments
        params = InferenceParams(
            alpha=np.asarray(alpha, dtype=np.float64),
            totals=totals,
            dtype=rows.dtype.name,
            iterations=plan.iterations,
            gamma_threshold=plan.gamma_threshold,
            seed=plan.seed,
            variant=plan.variant,
            bound=True,
        )
        name = f"{self._session}/bound-{next(self._numbers)}"
        with Evaluation(
            name,
            self._engine,
            self._num_terms,
            params,
            lambda wanted: rows[np.searchsorted(words, wanted)],
            number,
            ChunkBound,
            check_client=self._check_client,
        ) as evaluating:
            evaluating.put(chunk)
            evaluating.end()
            nats, total = evaluating.take().tolist()
        return nats, total

    def close(self) -> None:
        """Whoever waits for documents is told that they will not come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

"""The session of a model that is evaluated: the topics of whole corpora under topics that do not change."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.evaluation import name_of
from distcorpus.algorithms.lda import LDA_GRID
from distcorpus.algorithms.online import BLOCK_DOCUMENTS
from distcorpus.algorithms.topics import LazyTopics, StatisticsSum
from distcorpus.dispatcher.engine import Block
from distcorpus.dispatcher.session import Session


class LdaInference(Session):
    """Evaluates chunk after chunk. All are of one round, so that topics travel to a worker once.

    Parameters
    ----------
    name, engine, num_terms, **session
        As `Session` takes them.
    topics : LazyTopics
    params : dict
        Of `evaluation.Inference`.
    first : int
        The number of the first chunk that will be put: those before it were evaluated elsewhere.
    """

    def __init__(
        self,
        *session: Any,
        topics: LazyTopics,
        params: dict[str, Any],
        first: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(*session, **options)
        self.num_chunks = first
        total = StatisticsSum(self.num_terms, topics.num_topics, LDA_GRID)  # to which nothing is added
        self._round = self._open_round("inference", params, total, topics.rows, self._spool)
        self._waiting: deque[list[Block]] = deque()

    def put(self, chunk: Chunk) -> None:
        """Take the next chunk; waits while too many are queued."""
        self._round.wait_for_room(chunk.nbytes)
        blocks = self._keep(chunk, max_docs=BLOCK_DOCUMENTS)
        self._waiting.append(blocks)
        self._queue(self._round, blocks)

    def take(self) -> np.ndarray:
        """Wait for the oldest chunk that was not taken.

        Returns
        -------
        ndarray
            As `evaluation.evaluate` yields it.
        """
        blocks = self._waiting.popleft()
        return np.concatenate(self._round.take([name_of(block.key) for block in blocks]))

    def chunks_done(self) -> int:
        """Return how many chunks have been evaluated."""
        return self._round.chunks_done()

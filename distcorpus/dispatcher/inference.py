"""The session of a model that is evaluated: the topics of whole corpora under topics that do not change."""

from __future__ import annotations

from typing import Any

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.evaluation import name_of
from distcorpus.algorithms.lda import LDA_GRID
from distcorpus.algorithms.online import BLOCK_DOCUMENTS
from distcorpus.algorithms.topics import LazyTopics, StatisticsSum
from distcorpus.dispatcher.session import Session


class LdaInference(Session):
    """Infers chunk after chunk.

    Parameters
    ----------
    name, engine, num_terms, **session
        As `Session` takes them.
    topics : LazyTopics
    params : dict
        Of `evaluation.Inference`, but for the topics' totals and their type.
    """

    def __init__(self, *session: Any, topics: LazyTopics, params: dict[str, Any], **options: Any) -> None:
        super().__init__(*session, **options)
        self._topics = topics
        self._params = {**params, "totals": topics.totals(), "dtype": topics.dtype.name}

    def infer(self, chunk: Chunk) -> tuple[np.ndarray, float]:
        """Infer the topics of a chunk's documents.

        Returns
        -------
        gamma : ndarray, shape (n_docs, num_topics)
            The documents' Dirichlet parameters, in their order.
        score : float
            Their part of the variational bound, in nats; 0 where the params do not ask for it.
        """
        width = self._topics.num_topics
        blocks = self._keep(chunk, max_docs=BLOCK_DOCUMENTS)
        total = StatisticsSum(self.num_terms, width, LDA_GRID)
        round_ = self._open_round("inference", self._params, total, self._topics.rows, self._spool)
        self._add(round_, blocks)
        self._finish(round_)
        round_.wait()
        gammas = [np.asarray(round_.extras[name_of(block.key)]) for block in blocks]
        gamma = np.concatenate(gammas) if gammas else np.empty((0, width), self._topics.dtype)
        return gamma, float(round_.extras.get("score", 0.0)) * LDA_GRID

    def chunks_done(self) -> int:
        """Return how many chunks have been inferred or are about to be."""
        return self.num_chunks

"""Inference and the variational bound as a kernel over blocks, as `lda.EStep` is the kernel of training."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from .chunk import Chunk
from .lda import LDA_GRID, bound, infer, log_topics, topic_weights
from .partial import Partial
from .summation import to_steps


class Inference:
    """The topics of the documents of a job's blocks, and their part of the variational bound.

    Parameters
    ----------
    params : mapping
        ``alpha``, ``totals``, ``variant``, ``iterations``, ``gamma_threshold``, ``seed`` and ``dtype`` as
        `lda.EStep` takes them, and ``bound`` (bool): whether to sum the documents' part of the bound.
    words : ndarray of int32, shape (n,)
        The terms that occur in the job's blocks, ascending.
    table : ndarray, shape (m, K)
        Rows of lambda.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` for each term id; only the entries of `words` are used.
    """

    @staticmethod
    def prepare(rows: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
        """Return rows of lambda in the type of the computation."""
        return np.ascontiguousarray(rows, dtype=params["dtype"])

    def __init__(
        self, params: Mapping[str, Any], words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        self._params = params
        self._words = words
        self._row_of = np.zeros(len(table_row), np.int32)
        self._row_of[words] = np.arange(len(words), dtype=np.int32)
        rows = np.ascontiguousarray(table[table_row[words]])
        self._weights = topic_weights(rows, params["totals"], params["variant"])
        self._log_topics = log_topics(rows, params["totals"]) if params["bound"] else None
        self._gammas: dict[str, Any] = {}
        self._score = 0.0
        self._lock = threading.Lock()

    def add(self, block: Chunk, key: tuple[int, ...]) -> None:
        """Infer a block's documents; several threads may.

        Parameters
        ----------
        block : Chunk
            Of the job's words.
        key : tuple of int
            The block's identity, from which its documents' gamma starts.
        """
        params = self._params
        gamma = infer(
            block,
            self._weights,
            self._row_of,
            params["alpha"],
            variant=params["variant"],
            iterations=params["iterations"],
            gamma_threshold=params["gamma_threshold"],
            seed=params["seed"],
            key=key,
        )
        score = 0.0
        if self._log_topics is not None:
            nats = bound(block, self._log_topics, self._row_of, params["alpha"], gamma)
            score = float(to_steps(np.array([nats]), LDA_GRID)[0])
        with self._lock:
            self._gammas[name_of(key)] = gamma
            self._score += score

    def partial(self) -> Partial:
        """Return what was inferred so far.

        Returns
        -------
        Partial
            No rows; the extras are ``score``, in steps of `LDA_GRID`, and each block's gamma by `name_of` its
            key.
        """
        with self._lock:
            nothing = np.empty((0, self._weights.shape[1]), np.int32)
            return Partial(self._words[:0], nothing, {"score": self._score, **self._gammas})


def name_of(key: tuple[int, ...]) -> str:
    """Return the name under which a block's gamma is found in the extras."""
    return "gamma " + " ".join(map(str, key))

"""Inference and the variational bound as a kernel over blocks, as `lda.EStep` is the kernel of training."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .chunk import Chunk, positions_of
from .lda import bound, infer, log_topics, topic_weights
from .online import compute
from .partial import Partial
from .topics import LazyTopics


class Inference:
    """The topics of the documents of a job's blocks, or their part of the variational bound.

    Parameters
    ----------
    params : mapping
        See `parameters`.
    words : ndarray of int32, shape (n,)
        The terms that occur in the job's blocks, ascending.
    table : ndarray, shape (m, K)
        Rows of lambda.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` for each term id; only the entries of `words` are used.
    """

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        """Return a block as `add` takes it and as it is kept between rounds, in memory of its own."""
        return block.copy()

    @staticmethod
    def prepare(rows: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
        """Return rows of lambda in the type of the computation."""
        return np.ascontiguousarray(rows, dtype=params["dtype"])

    def __init__(
        self, params: Mapping[str, Any], words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        self._params = params
        self._words = words
        self._row_of = positions_of(words, len(table_row))
        rows = np.ascontiguousarray(table[table_row[words]])
        self._weights = topic_weights(rows, params["totals"], params["variant"])
        self._log_topics = log_topics(rows, params["totals"]) if params["bound"] else None
        self._results: dict[str, Any] = {}
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
        result = infer(
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
        if self._log_topics is not None:
            result = np.array([bound(block, self._log_topics, self._row_of, params["alpha"], result)])
        with self._lock:
            self._results[name_of(key)] = result

    def partial(self) -> Partial:
        """Return what was computed so far.

        Returns
        -------
        Partial
            No rows. The extras have for each block, by `name_of` its key, the documents' gamma, shape
            (n_docs, K), or their part of the bound, shape (1,), in nats.
        """
        with self._lock:
            nothing = np.empty((0, self._weights.shape[1]), np.int32)
            return Partial(self._words[:0], nothing, dict(self._results))


def name_of(key: tuple[int, ...]) -> str:
    """Return the name under which a block's result is found in the extras."""
    return "block " + " ".join(map(str, key))


def parameters(
    topics: LazyTopics,
    alpha: np.ndarray,
    *,
    variant: str,
    iterations: int,
    gamma_threshold: float,
    seed: int,
    bound: bool,
) -> dict[str, Any]:
    """Return the parameters of `Inference`.

    Parameters
    ----------
    topics : LazyTopics
    alpha : ndarray, shape (K,)
        The documents' Dirichlet prior.
    variant, iterations, gamma_threshold, seed
        As `lda.EStep` takes them.
    bound : bool
        Whether the documents' part of the bound is wanted, and not their gamma.
    """
    return {
        "alpha": np.asarray(alpha, dtype=np.float64),
        "totals": topics.totals(),
        "dtype": topics.dtype.name,
        "variant": variant,
        "iterations": iterations,
        "gamma_threshold": gamma_threshold,
        "seed": seed,
        "bound": bound,
    }


def evaluate(topics: LazyTopics, params: Mapping[str, Any], chunks: Iterable[Chunk]) -> Iterator[np.ndarray]:
    """Evaluate a corpus in this thread: the same bits as a cluster's.

    Yields
    ------
    ndarray
        Each chunk's gamma, shape (n_docs, K), or the bound of each of its blocks.
    """
    for number, chunk in enumerate(chunks):
        of_blocks = compute(Inference, topics, params, number, chunk).extras.values()
        yield np.concatenate(list(of_blocks))

"""Online LDA: the plan of a training run, and the M-step between two rounds of the E-step.

Hoffman, Blei & Bach, Online learning for latent Dirichlet allocation, NIPS 2010, with gensim's learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .chunk import Chunk, Divisible, positions_of
from .lda import LDA_GRID, bound, infer, is_collapsed, log_topics, topic_bound, topic_weights
from .received import check_kinds, count, flag, keep_plain, real, whole
from .rows import Map
from .topics import LazyTopics, StatisticsSum, newton_step


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is trained on a corpus.

    Attributes
    ----------
    passes : int
        How often each document is used.
    update_chunks : int
        Chunks between two M-steps; 0: one M-step a pass.
    chunksize : int
        At least 1: documents that count as one step of time in the learning rate.
    decay, offset : float
        The learning rate is ``(offset + pass + updates / chunksize) ** -decay``.
    iterations : int
        The most iterations that a document may take.
    gamma_threshold : float
        A document has converged when its gamma changes by less than this on average.
    seed : int
        Where the documents' gamma starts from.
    variant : {"vb", "cvb0"}
        See `lda`.
    optimize_alpha, optimize_eta : bool
        Whether the priors are learnt.
    eval_chunks : int
        Chunks between two estimates of the perplexity (one more comes with a pass's last chunk); 0: never.
    details : bool
        Whether to report of each M-step how far the topics moved and what some of them are.

    Raises
    ------
    TypeError, ValueError
        One of them is no such number.
    """

    passes: int
    update_chunks: int
    chunksize: int
    decay: float
    offset: float
    iterations: int
    gamma_threshold: float
    seed: int
    variant: str = "vb"
    optimize_alpha: bool = False
    optimize_eta: bool = False
    eval_chunks: int = 0
    details: bool = False

    def __post_init__(self) -> None:
        keep_plain(self, count, "passes", "update_chunks", "iterations", "eval_chunks")
        keep_plain(self, partial(count, least=1), "chunksize")
        keep_plain(self, partial(whole, least=0), "seed")
        keep_plain(self, partial(real, least=0.0), "decay", "gamma_threshold")
        # Below 1 the first learning rate would be above 1, and take more from the topics than they have.
        keep_plain(self, partial(real, least=1.0), "offset")
        keep_plain(self, flag, "optimize_alpha", "optimize_eta", "details")
        check_kinds(str, variant=self.variant)
        is_collapsed(self.variant)


@dataclass(slots=True)
class Progress:
    """Where a training stands: after its latest M-step.

    Attributes
    ----------
    pass_ : int
        The pass that the next chunk belongs to.
    chunk : int
        The number of that chunk in its pass.
    documents : int
        Documents of this pass so far.
    updates : int
        M-steps so far.
    """

    pass_: int = 0
    chunk: int = 0
    documents: int = 0
    updates: int = 0

    def __post_init__(self) -> None:
        keep_plain(self, count, "pass_", "chunk", "documents", "updates")


class OnlineLda:
    """A model in training.

    Parameters
    ----------
    topics : LazyTopics
        Changed by every M-step. Its `numdocs` is the number of documents that the corpus stands for.
    alpha : ndarray, shape (num_topics,)
        The documents' Dirichlet prior.
    eta : ndarray, shape (num_terms,) or (num_topics, num_terms)
        The topics' prior as it is learnt. As in gensim, the topics go on with the prior that they began with.
    num_updates : int
        Documents that M-steps of a first pass have seen.
    """

    def __init__(self, topics: LazyTopics, alpha: np.ndarray, eta: np.ndarray, num_updates: int = 0) -> None:
        self.topics = topics
        self.alpha = alpha
        self.eta = eta
        self.num_updates = num_updates
        self.converged = 0  # documents of the latest M-step, after all their iterations

    def mstep(
        self,
        plan: Plan,
        pass_: int,
        total: StatisticsSum,
        extras: Mapping[str, Any],
        side_by_side: Map = map,
    ) -> float:
        """Update the model from the statistics of some documents.

        Parameters
        ----------
        plan : Plan
        pass_ : int
        total : StatisticsSum
            The expected counts.
        extras : mapping
            The other sums of the E-step's kernel.
        side_by_side : callable
            A `Map` for slices of the topics' rows.

        Returns
        -------
        float
            The learning rate.
        """
        documents = int(extras.get("documents", 0))
        self.converged = int(extras.get("converged", 0))
        rho = float((plan.offset + pass_ + self.num_updates / plan.chunksize) ** -plan.decay)
        if plan.optimize_alpha and documents:
            mean_logs = extras["gamma_statistics"] * LDA_GRID / documents
            self.alpha = newton_step(self.alpha, documents, mean_logs, rho).astype(self.alpha.dtype)
        self.topics.blend(
            rho, total.words, total.steps, documents, unit=total.grid, side_by_side=side_by_side
        )
        if plan.optimize_eta:
            mean_logs = self._mean_log_topics()
            self.eta = newton_step(self.eta, self.topics.num_topics, mean_logs, rho).astype(self.eta.dtype)
        if pass_ == 0:
            self.num_updates += documents
        return rho

    def _mean_log_topics(self) -> np.ndarray:
        """Return E[log beta] averaged over the topics, float64 of shape (num_terms,)."""
        return np.concatenate([rows.mean(axis=1) for rows in self.log_topics()])

    def log_topics(self) -> Iterator[np.ndarray]:
        """Return E[log beta], some thousand terms at a time: float64 of shape (n_terms, num_topics)."""
        totals = self.topics.totals()
        for first in range(0, self.topics.num_terms, 4096):
            words = np.arange(first, min(first + 4096, self.topics.num_terms), dtype=np.int32)
            yield log_topics(self.topics.rows(words), totals)

    def per_word_bound(self, plan: Plan, chunk: Divisible, number: int, documents: int) -> float:
        """Return the variational bound of a chunk a word, in nats, as gensim's ``log_perplexity`` has it.

        Parameters
        ----------
        plan : Plan
        chunk : Divisible
        number : int
            Its number, from which its documents' gamma starts.
        documents : int
            Documents that it stands for.
        """
        words = chunk.words()
        rows, totals = self.topics.rows(words), self.topics.totals()
        ratio = documents / chunk.n_docs
        score = ratio * chunk.apply(_chunk_bound, words, rows, totals, self.alpha, plan, number)
        everything = self.topics.rows(np.arange(self.topics.num_terms, dtype=np.int32))
        score += topic_bound(everything.T, self.eta)
        return float(score / (ratio * chunk.total()))


def _chunk_bound(
    chunk: Chunk,
    words: np.ndarray,
    rows: np.ndarray,
    totals: np.ndarray,
    alpha: np.ndarray,
    plan: Plan,
    number: int,
) -> float:
    """Return the documents' part of the variational bound of a chunk, given the topics' rows of its words."""
    row_of = positions_of(words, chunk.num_terms)
    gamma = infer(
        chunk,
        topic_weights(rows, totals, plan.variant),
        row_of,
        alpha,
        variant=plan.variant,
        iterations=plan.iterations,
        gamma_threshold=plan.gamma_threshold,
        seed=plan.seed,
        key=(number, 0),
    )
    return bound(chunk, log_topics(rows, totals), row_of, alpha, gamma)

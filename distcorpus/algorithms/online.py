"""Online LDA: the schedule of updates, and the M-step between two rounds of the E-step.

Hoffman, Blei & Bach, Online learning for latent Dirichlet allocation, NIPS 2010, with gensim's learning rate.
How a round of the E-step is computed (here, or by a cluster) is the business of whoever calls `train`: the
bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from .chunk import Chunk, positions_of
from .lda import LDA_GRID, EStep, bound, infer, log_topics, topic_bound, topic_weights
from .partial import Partial
from .summation import merge_extras
from .topics import LazyTopics, StatisticsSum, newton_step

#: Documents of a block, the unit that is scheduled, retried and rounded. Of a default chunk of 2,000
#: documents this makes four, which several threads or workers share; rounding a block's statistics costs a
#: few per cent of computing them.
BLOCK_DOCUMENTS = 512

#: A chunk's number in its pass, and the chunk.
Numbered = tuple[int, Chunk]


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
        Documents that count as one step of time in the learning rate.
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

    def params(self, plan: Plan) -> dict[str, Any]:
        """Return the parameters of `lda.EStep`."""
        return {
            "alpha": np.asarray(self.alpha, dtype=np.float64),
            "totals": self.topics.totals(),
            "variant": plan.variant,
            "iterations": plan.iterations,
            "gamma_threshold": plan.gamma_threshold,
            "seed": plan.seed,
            "dtype": self.topics.dtype.name,
            "gamma_statistics": plan.optimize_alpha,
        }

    def mstep(self, plan: Plan, pass_: int, total: StatisticsSum, extras: Mapping[str, Any]) -> float:
        """Update the model from the statistics of some documents.

        Parameters
        ----------
        plan : Plan
        pass_ : int
        total : StatisticsSum
            The expected counts.
        extras : mapping
            The other sums of `lda.EStep`.

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
        self.topics.blend(rho, total.words, total.steps, documents, unit=total.grid)
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

    def per_word_bound(self, plan: Plan, chunk: Chunk, number: int, documents: int) -> float:
        """Return the variational bound of a chunk a word, in nats, as gensim's ``log_perplexity`` has it.

        Parameters
        ----------
        plan : Plan
        chunk : Chunk
        number : int
            Its number, from which its documents' gamma starts.
        documents : int
            Documents that it stands for.
        """
        words = chunk.words()
        row_of = positions_of(words, chunk.num_terms)
        rows, totals = self.topics.rows(words), self.topics.totals()
        gamma = infer(
            chunk,
            topic_weights(rows, totals, plan.variant),
            row_of,
            self.alpha,
            variant=plan.variant,
            iterations=plan.iterations,
            gamma_threshold=plan.gamma_threshold,
            seed=plan.seed,
            key=(number, 0),
        )
        ratio = documents / chunk.n_docs
        score = ratio * bound(chunk, log_topics(rows, totals), row_of, self.alpha, gamma)
        everything = self.topics.rows(np.arange(self.topics.num_terms, dtype=np.int32))
        score += topic_bound(everything.T, self.eta)
        return float(score / (ratio * chunk.data.sum(dtype=np.float64)))


def train(
    model: OnlineLda,
    plan: Plan,
    chunks: Callable[[int], Iterable[Numbered]],
    estep: Callable[[dict[str, Any], Iterator[Numbered], StatisticsSum], Mapping[str, Any]],
    *,
    guard: AbstractContextManager[Any] | None = None,
    after_update: Callable[[float, int], None] = lambda rho, documents: None,
    after_pass: Callable[[int], None] = lambda pass_: None,
    progress: Progress | None = None,
) -> None:
    """Train a model.

    Parameters
    ----------
    model : OnlineLda
        Changed in place.
    plan : Plan
    chunks : callable
        Given a pass, returns its chunks with their numbers, in order; may wait for them.
    estep : callable
        Given the parameters of `lda.EStep`, the chunks of one round as they come, and where to add their
        statistics, returns the other sums.
    guard : context manager, optional
        Entered whenever `model` and `progress` change.
    after_update : callable
        Told the learning rate of each M-step and the documents that it took in.
    after_pass : callable
        Told of each pass that has ended.
    progress : Progress, optional
        Where to begin, in a training that was interrupted after an M-step; it is kept up to date.
    """
    guard = guard or nullcontext()
    progress = progress or Progress()
    total = StatisticsSum(model.topics.num_terms, model.topics.num_topics, LDA_GRID)
    for pass_ in range(progress.pass_, plan.passes):
        first = progress.chunk
        remaining = (one for one in chunks(pass_) if one[0] >= first)
        for leader in remaining:
            # The first chunk says that there is a round; the others are drawn while it is computed.
            others = islice(remaining, plan.update_chunks - 1) if plan.update_chunks else remaining
            seen = _Counter(chain([leader], others))
            extras = estep(model.params(plan), iter(seen), total)
            with guard:
                rho = model.mstep(plan, pass_, total, extras)
                progress.chunk += seen.chunks
                progress.documents += seen.documents
                progress.updates += 1
            total.clear()
            after_update(rho, seen.documents)
        with guard:
            progress.pass_, progress.chunk, progress.documents = pass_ + 1, 0, 0
        after_pass(pass_)


def estep(
    topics: LazyTopics, params: dict[str, Any], chunks: Iterator[Numbered], total: StatisticsSum
) -> Mapping[str, Any]:
    """Compute a round of `train` in this thread: the same bits as a cluster's."""
    extras: dict[str, Any] = {}
    for number, chunk in chunks:
        partial = compute(EStep, topics, params, number, chunk)
        total.add(partial.words, partial.steps)
        extras = merge_extras(extras, partial.extras)
    return extras


def compute(kernel: Any, topics: LazyTopics, params: Mapping[str, Any], number: int, chunk: Chunk) -> Partial:
    """Compute a chunk in this thread, as one job, block after block.

    Parameters
    ----------
    kernel : type
        `lda.EStep` or `evaluation.Inference`.
    topics : LazyTopics
    params : mapping
        The kernel's.
    number : int
        The chunk's.
    chunk : Chunk
    """
    words = chunk.words()
    table = kernel.prepare(topics.rows(words), params)
    job = kernel(params, words, table, positions_of(words, chunk.num_terms))
    first = 0
    for block in chunk.split(max_docs=BLOCK_DOCUMENTS):
        job.add(block, (number, first))
        first += block.n_docs
    partial: Partial = job.partial()
    return partial


class Reporter:
    """Says what happens in a training, in small dicts that travel.

    Parameters
    ----------
    model : OnlineLda
    plan : Plan
    progress : Progress
        Kept up to date by `train`.
    """

    def __init__(self, model: OnlineLda, plan: Plan, progress: Progress) -> None:
        self._model = model
        self._plan = plan
        self._progress = progress
        self._log_topics = list(model.log_topics()) if plan.details else []

    def update(self, rho: float, merged: int, documents: int) -> dict[str, Any]:
        """Report an M-step.

        Parameters
        ----------
        rho : float
            Its learning rate.
        merged : int
            The documents that it took in.
        documents : int
            Those of a whole pass.

        Returns
        -------
        dict
            ``kind`` ("update"), ``pass_``, ``documents`` (of this pass so far), ``of``, ``updates``, ``rho``,
            ``merged``, ``converged`` (of those, within their iterations), ``numdocs`` (that the model then
            stands for); with ``plan.details`` also ``alpha``, where it is learnt,
            ``diff``, the mean absolute change of E[log beta], and ``topics``:
            number, alpha, the ids of the ten most probable terms and their probabilities, of the
            topics with the two smallest and the two largest alpha.
        """
        progress = self._progress
        event: dict[str, Any] = {
            "kind": "update",
            "pass_": progress.pass_,
            "documents": progress.documents,
            "of": documents,
            "updates": progress.updates,
            "rho": rho,
            "merged": merged,
            "converged": self._model.converged,
            "numdocs": self._model.topics.numdocs,
        }
        if self._plan.details:
            if self._plan.optimize_alpha:
                event["alpha"] = self._model.alpha.tolist()
            before, self._log_topics = self._log_topics, list(self._model.log_topics())
            changes = (np.abs(b - a).sum() for a, b in zip(before, self._log_topics, strict=True))
            topics = self._model.topics
            event["diff"] = float(sum(changes)) / (topics.num_terms * topics.num_topics)
            by_alpha = np.argsort(self._model.alpha, kind="stable").tolist()
            event["topics"] = [self._topic(k) for k in dict.fromkeys(by_alpha[:2] + by_alpha[-2:])]
        return event

    def _topic(self, k: int) -> tuple[int, float, list[int], list[float]]:
        logs = np.concatenate([rows[:, k] for rows in self._log_topics])
        best = np.argsort(-logs, kind="stable")[:10].astype(np.int32)
        topics = self._model.topics
        probabilities = topics.rows(best)[:, k] / topics.totals()[k]
        return k, float(self._model.alpha[k]), best.tolist(), probabilities.tolist()

    def perplexity(self, number: int, chunk: Chunk, last: bool, documents: int) -> dict[str, Any] | None:
        """Estimate the perplexity of a chunk, where the plan says so.

        Parameters
        ----------
        number : int
            The chunk's number in its pass.
        chunk : Chunk
        last : bool
            Whether it is the last one.
        documents : int
            Those of a whole pass.

        Returns
        -------
        dict or None
            ``kind`` ("perplexity"), ``per_word`` (the bound, in nats), ``documents`` and ``words`` of the
            chunk.
        """
        every = self._plan.eval_chunks
        if not every or not chunk.nnz or not (last or (number + 1) % every == 0):
            return None
        return {
            "kind": "perplexity",
            "per_word": self._model.per_word_bound(self._plan, chunk, number, documents),
            "documents": chunk.n_docs,
            "words": float(chunk.data.sum(dtype=np.float64)),
        }


class _Counter:
    """Counts chunks as they pass by."""

    def __init__(self, chunks: Iterable[Numbered]) -> None:
        self._chunks = chunks
        self.chunks = 0
        self.documents = 0

    def __iter__(self) -> Iterator[Numbered]:
        for number, chunk in self._chunks:
            self.chunks += 1
            self.documents += chunk.n_docs
            yield number, chunk

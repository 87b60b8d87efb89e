"""The one evaluator of topics: how well they complete documents that they were not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from corpora import BoW

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.lda import infer

#: The prior of each topic in a document, the same for every competitor.
ALPHA = 0.1

#: Entries whose probabilities are computed at once.
ENTRIES_AT_ONCE = 100_000


@dataclass(frozen=True)
class Completion:
    """Documents, each word of which was given to one of two halves by the toss of a coin."""

    observed: Chunk
    scored: Chunk


def halve(documents: list[BoW], num_terms: int) -> Completion:
    """Divide documents into the half that is observed and the half that is scored, always the same."""
    lengths = [len(document) for document in documents]
    pairs = np.array([pair for document in documents for pair in document])
    owners = np.repeat(np.arange(len(documents)), lengths)
    observed = np.random.default_rng(0).binomial(pairs[:, 1], 0.5)

    def chunk(counts: np.ndarray) -> Chunk:
        kept = counts > 0
        indptr = np.searchsorted(owners[kept], np.arange(len(documents) + 1))
        terms = pairs[kept, 0].astype(np.int32)
        return Chunk(indptr.astype(np.int64), terms, counts[kept].astype(np.float32), num_terms)

    return Completion(chunk(observed), chunk(pairs[:, 1] - observed))


def perplexity(topics: np.ndarray, completion: Completion) -> float:
    """Return exp of the mean negative log probability of the scored words, given the observed ones.

    The documents' topics are inferred by zero-order collapsed variational Bayes, from the same start and with
    the same prior, whoever has trained the topics.

    Parameters
    ----------
    topics : ndarray, shape (K, num_terms)
        Probabilities of the terms in each topic, up to a factor a topic.
    """
    table = np.ascontiguousarray((topics / topics.sum(axis=1, keepdims=True)).T, dtype=np.float32)
    identity = np.arange(len(table), dtype=np.int32)
    gamma = infer(
        completion.observed,
        table,
        identity,
        np.full(len(topics), ALPHA),
        variant="cvb0",
        iterations=200,
        gamma_threshold=1e-4,
        gamma=np.ones((completion.observed.n_docs, len(topics))),
    )
    theta = gamma / gamma.sum(axis=1, keepdims=True)
    scored = completion.scored
    documents = np.repeat(np.arange(scored.n_docs), np.diff(scored.indptr))
    score = 0.0
    for first in range(0, scored.nnz, ENTRIES_AT_ONCE):
        entries = slice(first, first + ENTRIES_AT_ONCE)
        mixed = np.einsum("jk,jk->j", theta[documents[entries]], table[scored.indices[entries]])
        score += float(scored.data[entries] @ np.log(mixed.astype(np.float64)))
    return math.exp(-score / float(scored.data.sum()))

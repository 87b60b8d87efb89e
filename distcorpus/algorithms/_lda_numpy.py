"""The kernels of LDA in numpy: the reference for `_lda_numba`, and the fallback where numba is missing.

Shapes: D documents, K topics, m rows of topic weights. Documents come in CSR form: document d has the words
``rows[indptr[d]:indptr[d + 1]]``, which are row numbers of the table of topic weights, with the ``counts``
beside them. All floating point arrays are of one dtype unless said.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.special import logsumexp, psi

# The SplitMix64 generator (Steele, Lea & Flood, Fast splittable pseudorandom number generators, OOPSLA 2014).
MIX_STEP = np.uint64(0x9E3779B97F4A7C15)
MIX_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

#: Makes the sum of four uniform variables, scaled to (-1, 1), a Gamma(100, 1/100) variable: a polynomial,
#: lowest coefficient first, fitted to the one's quantile function at the other's distribution function. The
#: distributions differ by 8e-5 (Kolmogorov's distance).
GAMMA_QUANTILE = (
    0.9966692593407355, 0.3330401971547302, 0.03694713952908622, 0.028720778524810663, 0.010597068774196873,
    0.1785283923378474, 0.0033626836407479707, -0.46492803333912897, 0.00892723728233127, 0.4871470769956834,
)  # fmt: skip


def starting_gamma(num_docs: int, num_topics: int, state: np.uint64) -> np.ndarray:
    """Draw Gamma(100, 1/100) variables, each a function of `state` and its place alone; float64 (D, K)."""
    bits = state + np.arange(1, num_docs * num_topics + 1, dtype=np.uint64) * MIX_STEP
    bits = (bits ^ (bits >> np.uint64(30))) * MIX_MULTIPLIERS[0]
    bits = (bits ^ (bits >> np.uint64(27))) * MIX_MULTIPLIERS[1]
    bits ^= bits >> np.uint64(31)
    field_sums = bits.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int64)
    u = (field_sums - 131070) / 131072.0
    value = np.full_like(u, GAMMA_QUANTILE[-1])
    for coefficient in GAMMA_QUANTILE[-2::-1]:
        value = value * u + coefficient
    return value.reshape(num_docs, num_topics)


def digamma(values: np.ndarray) -> np.ndarray:
    """Return psi(values), elementwise, float64."""
    return np.asarray(psi(values.astype(np.float64)))


def topic_weights(rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return exp(psi(rows) - psi(totals)) in the dtype of rows (m, K); totals (K,) float64."""
    return np.exp(np.minimum(digamma(rows) - psi(totals), 0)).astype(rows.dtype)  # no row exceeds its total


def expectation(
    indptr: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    table: np.ndarray,
    alpha: np.ndarray,
    gamma: np.ndarray,
    iterations: int,
    threshold: np.floating,
    epsilon: np.floating,
    collapsed: bool,
    stop: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, int, int]:
    """Fit gamma (D, K) to the documents in place, from the values that it has.

    `threshold` is on the mean absolute change of gamma; `epsilon` is added to the normaliser of phi, as
    gensim does. `collapsed` stands for CVB0. Where ``stop[0]`` becomes 1 it returns at once, and what it
    returns is of no use.

    Returns
    -------
    theta : tuple of ndarray
        The documents' topic weights, each document to a scale of its own, as the three arrays of a matrix in
        CSR form, shape (D, K): where documents begin and end, topics, weights.
    ratio : ndarray, shape (nnz,)
        The counts over phi's normaliser, to the inverse scale: ``theta[d, k] * ratio[j] * table[rows[j],
        k]`` is the expected number of times that document d uses topic k for its entry j.
    converged : int
        Documents whose gamma changed by less than `threshold` on average in their last iteration.
    iterations : int
        Iterations in all.
    """
    theta = np.zeros_like(gamma)
    ratio = np.empty_like(counts)
    num_converged = num_iterations = 0
    for d in range(len(gamma)):
        if stop[0]:
            break
        words = slice(indptr[d], indptr[d + 1])
        weights = table[rows[words]]
        posterior = gamma[d]
        theta[d] = _document_weights(posterior, collapsed)
        ratio[words] = counts[words] / (weights @ theta[d] + epsilon)
        for _ in range(iterations):
            previous = posterior
            posterior = alpha + theta[d] * (ratio[words] @ weights)
            theta[d] = _document_weights(posterior, collapsed)
            ratio[words] = counts[words] / (weights @ theta[d] + epsilon)
            num_iterations += 1
            if np.abs(posterior - previous).mean() < threshold:
                num_converged += 1
                break
            if stop[0]:
                break
        gamma[d] = posterior
    sparse = scipy.sparse.csr_array(theta)
    return (sparse.indptr, sparse.indices, sparse.data), ratio, num_converged, num_iterations


def _document_weights(posterior: np.ndarray, collapsed: bool) -> np.ndarray:
    if collapsed:
        return posterior / posterior.sum()
    return np.exp(psi(posterior) - psi(posterior.sum()))


def dense(theta: tuple[np.ndarray, np.ndarray, np.ndarray], num_topics: int) -> np.ndarray:
    """Return the documents' topic weights, shape (D, K)."""
    indptr, topics, weights = theta
    shape = len(indptr) - 1, num_topics
    return np.asarray(scipy.sparse.csr_array((weights, topics, indptr), shape=shape).toarray())


def statistics(
    indptr: np.ndarray,
    positions: np.ndarray,
    theta: tuple[np.ndarray, np.ndarray, np.ndarray],
    ratio: np.ndarray,
    table: np.ndarray,
    table_rows: np.ndarray,
    grid: float,
    steps: np.ndarray,
    cells: np.ndarray,
    sparse: bool,
) -> int:
    """Compute the expected counts of n words and K topics, in whole steps of the grid.

    The word of an entry is given by its position among the n: its row of the table is
    ``table_rows[position]``. The counts are added to `steps`, float64 (n * K,). Where they are `sparse`,
    those that are not zero become the first of `steps`, their places in such an array the first of `cells`,
    and their number is returned.
    """
    words, columns = np.unique(positions, return_inverse=True)
    num_topics = table.shape[1]
    entries = scipy.sparse.csr_array((ratio, columns, indptr), shape=(len(indptr) - 1, len(words)))
    expected = (entries.T @ dense(theta, num_topics) * table[table_rows[words]]).astype(np.float64)
    rounded = np.rint(expected / grid)
    if not sparse:
        steps.reshape(-1, num_topics)[words] += rounded
        return 0
    word, topic = np.nonzero(rounded)
    cells[: len(word)] = words[word].astype(cells.dtype) * num_topics + topic
    steps[: len(word)] = rounded[word, topic]
    return len(word)


def absence(
    indptr: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    table: np.ndarray,
    theta: tuple[np.ndarray, np.ndarray, np.ndarray],
    ratio: np.ndarray,
    uses: np.ndarray,
) -> np.ndarray:
    """Return the probability that a document uses a topic for none of its words, float64 (D, K).

    `theta` and `ratio` are those of `expectation`, and `uses` the expected numbers of uses, float64 (D, K),
    which tell where it is as good as 1 or 0.
    """
    absent = np.ones(uses.shape)
    weights = dense(theta, uses.shape[1])
    for d in range(len(absent)):
        words = slice(indptr[d], indptr[d + 1])
        expected = weights[d] * ratio[words, None] * table[rows[words]].astype(np.float64)
        count = np.maximum(counts[words, None], np.finfo(counts.dtype).tiny)
        absent[d] = np.prod(np.maximum(1 - expected / count, 0.0) ** count, axis=0)
    return absent


def word_bound(
    indptr: np.ndarray, rows: np.ndarray, counts: np.ndarray, log_topics: np.ndarray, log_theta: np.ndarray
) -> float:
    """Sum count * log(sum_k exp(log_theta[d, k] + log_topics[row, k])) over the entries; all float64."""
    documents = np.repeat(np.arange(len(log_theta)), np.diff(indptr))
    return float(counts @ logsumexp(log_theta[documents] + log_topics[rows], axis=1))

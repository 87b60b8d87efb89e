"""Latent Dirichlet allocation: the E-step over a block of documents, inference, and the variational bound.

The update is that of online variational Bayes (Hoffman, Blei & Bach, Online learning for latent Dirichlet
allocation, NIPS 2010) with gensim's convergence rule, or of zero-order collapsed variational Bayes (CVB0;
Asuncion et al., On smoothing and inference for topic models, UAI 2009; stochastic, and clumped by word as
here: Foulds et al., Stochastic collapsed variational Bayesian inference for latent Dirichlet allocation, KDD
2013), in which the counts stand in place of exp(psi(.)):

    ==============  =======================================  ==================
    variant         ``"vb"``                                 ``"cvb0"``
    ==============  =======================================  ==================
    topic weight    exp(psi(lambda[w, k]) - psi(totals[k]))  lambda[w, k] / totals[k]
    theta weight    exp(psi(gamma[k]) - psi(sum(gamma)))     gamma[k] / sum(gamma)
    ==============  =======================================  ==================

    gamma[k] = alpha[k] + theta[k] * sum_w counts[w] * topics[w, k] / (theta . topics[w] + epsilon)

Lambda, the statistics and all else that a term has come as *tables*: one row of K numbers for each term of
interest. ``table_row`` maps a term id to its row; only the entries of terms that occur are looked at.

numba compiles the kernels on first use; where it is missing, numpy does the same, more than ten times slower.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from scipy.special import gammaln

from . import stopping
from ._caching import is_compiled
from .chunk import Chunk, Divisible
from .partial import cell_type
from .summation import narrow_steps

#: Statistics are rounded to multiples of this: sums of expected counts are exact up to 2**31 in one cell.
LDA_GRID = 2.0**-22

#: What the largest count of a chunk has to be: of less than sixteen steps rounding would leave little.
SMALLEST_COUNT = 16 * LDA_GRID

VARIANTS = ("vb", "cvb0")

#: Documents' topic weights: the arrays of a matrix in CSR form.
Theta: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


@functools.cache
def compiled_or_numpy() -> ModuleType:
    try:
        return importlib.import_module("._lda_numba", __package__)
    except ImportError:
        return importlib.import_module("._lda_numpy", __package__)


_LONGEST_TYPE = 20  # characters of the name of a type of numbers

#: Documents that are inferred without the compiled kernels before these are loaded: it takes as long.
WORTH_LOADING = 300

_inferred = 0  # documents, without them


def _light_kernels(num_docs: int) -> ModuleType:
    """The compiled kernels once they are loaded, or worth it; few documents never wait for a compiler."""
    global _inferred
    compiled = sys.modules.get(f"{__package__}._lda_numba")
    if compiled is not None and hasattr(compiled, "starting_gamma"):  # not in the middle of its import
        return compiled_or_numpy()
    _inferred += num_docs
    if num_docs >= WORTH_LOADING or (_inferred >= WORTH_LOADING and is_compiled("_lda_numba.expectation")):
        return compiled_or_numpy()
    return importlib.import_module("._lda_numpy", __package__)


def as_compiled(values: Any, dtype: Any) -> np.ndarray:
    """As the kernels are compiled for: of this dtype, contiguous, aligned, writable; a copy if it is not."""
    if type(values) is np.ndarray and values.dtype == dtype and values.flags.carray:
        return values
    return np.require(values, dtype, ["C", "A", "W", "E"])


def floats(name: Any) -> np.dtype:
    # numpy makes types of lists, and of long texts, in as long a time.
    if not isinstance(name, type | np.dtype) and (type(name) is not str or len(name) > _LONGEST_TYPE):
        raise TypeError(f"dtype is a {type(name).__name__}; pass 'float32' or 'float64'")
    dtype = np.dtype(name)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype} is not computed in; pass 'float32' or 'float64'")
    return dtype


def checked_prior(alpha: Any, num_topics: int, dtype: np.dtype) -> np.ndarray:
    alpha = as_compiled(alpha, dtype)
    if alpha.shape != (num_topics,) or not (alpha > 0).all():
        raise ValueError(f"alpha={alpha!r} for {num_topics} topics; pass one positive number a topic")
    return alpha


def rows_of(words: np.ndarray, table_row: np.ndarray, num_rows: int) -> np.ndarray:
    """The rows of words in a table of so many; what they index in compiled code is not checked any more."""
    if len(words) and not 0 <= words.min() <= words.max() < len(table_row):
        raise ValueError(
            f"term ids up to {words.max()}, but table_row is for {len(table_row)} terms; pass one for each"
        )
    rows = as_compiled(table_row[words], np.int32)
    if len(rows) and not 0 <= rows.min() <= rows.max() < num_rows:
        missing = words[(rows < 0) | (rows >= num_rows)][0]
        raise ValueError(f"term id {missing} has no row in the table; pass one for each term that occurs")
    return rows


def check_not_too_small(chunk: Divisible, number: int) -> None:
    """Refuse documents whose counts would be rounded away.

    Parameters
    ----------
    chunk : Divisible
    number : int
        The chunk's.

    Raises
    ------
    ValueError
        If it has counts, and none of `SMALLEST_COUNT`.
    """
    largest = chunk.largest()
    if 0 < largest < SMALLEST_COUNT:
        raise ValueError(
            f"chunk {number}: its largest count is {largest:g}: expected counts are rounded to multiples of "
            f"{LDA_GRID:.2g}, and topics are learnt from counts of {SMALLEST_COUNT:.2g} or more; multiply "
            "them by a number"
        )


def is_collapsed(variant: str) -> bool:
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r} is not known; pass one of {', '.join(map(repr, VARIANTS))}")
    return variant == "cvb0"


@np.errstate(all="ignore")
def topic_weights(rows: np.ndarray, totals: np.ndarray, variant: str = "vb") -> np.ndarray:
    """Turn rows of lambda into the weights that the E-step uses.

    Parameters
    ----------
    rows : ndarray of float32 or float64, shape (m, K)
        Rows of lambda, the topics' Dirichlet parameters.
    totals : ndarray of float64, shape (K,)
        The sums of lambda over all terms.
    variant : {"vb", "cvb0"}

    Returns
    -------
    ndarray, shape (m, K)
        In the dtype of `rows`; weights too small to be normal numbers are 0.
    """
    totals = np.asarray(totals, dtype=np.float64)
    if totals.shape != rows.shape[1:]:
        raise ValueError(
            f"totals has shape {totals.shape} for rows of {rows.shape[1:]} topics; pass one total a topic"
        )
    if is_collapsed(variant):
        return rows / totals.astype(rows.dtype)
    return np.asarray(compiled_or_numpy().topic_weights(as_compiled(rows, rows.dtype), totals))


@np.errstate(all="ignore")
def document_weights(gamma: np.ndarray, variant: str = "vb") -> np.ndarray:
    """Return the topic weights theta of documents, shape (n_docs, K), from their gamma and in its dtype."""
    if is_collapsed(variant):
        return gamma / gamma.sum(axis=1, keepdims=True)
    return np.exp(expected_log_theta(gamma)).astype(gamma.dtype)


@np.errstate(all="ignore")
def log_topics(rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Return E[log beta], the expected logarithms of the topics' probabilities.

    Parameters
    ----------
    rows : ndarray, shape (m, K)
        Rows of lambda.
    totals : ndarray, shape (K,)
        The sums of lambda over all terms.

    Returns
    -------
    ndarray of float64, shape (m, K)
        psi(rows) - psi(totals).
    """
    kernels = compiled_or_numpy()
    return np.asarray(kernels.digamma(rows) - kernels.digamma(np.asarray(totals, dtype=np.float64)))


def starting_gamma(
    num_docs: int, num_topics: int, seed: int, key: Sequence[int], dtype: Any = np.float32
) -> np.ndarray:
    """Draw a block's starting gamma from Gamma(100, 1/100), as gensim does.

    The distribution function is within 8e-5 of that.

    Parameters
    ----------
    num_docs, num_topics : int
    seed : int
        The model's, not negative.
    key : sequence of int
        The block's identity, not negative. Seed, key and a document's number in the block give its gamma.
    dtype : {float32, float64}

    Returns
    -------
    ndarray, shape (num_docs, num_topics)
        The same for both dtypes, up to rounding.
    """
    state = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0]
    return np.asarray(compiled_or_numpy().starting_gamma(num_docs, num_topics, state).astype(dtype))


@np.errstate(all="ignore")
def infer(
    block: Chunk,
    table: np.ndarray,
    table_row: np.ndarray,
    alpha: np.ndarray,
    *,
    variant: str = "vb",
    iterations: int = 50,
    gamma_threshold: float = 0.001,
    seed: int = 0,
    key: Sequence[int] = (0,),
    gamma: np.ndarray | None = None,
    light: bool = False,
) -> np.ndarray:
    """Infer the documents' topics under given topics.

    Parameters
    ----------
    block : Chunk
    table : ndarray of float32 or float64, shape (m, K)
        Topic weights (see `topic_weights`); their dtype is that of the computation.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` for each term id.
    alpha : ndarray, shape (K,)
        The documents' Dirichlet prior.
    variant : {"vb", "cvb0"}
    iterations : int
        The most a document may take.
    gamma_threshold : float
        A document has converged when its gamma changes by less than this on average.
    seed, key
        Where `starting_gamma` starts.
    gamma : ndarray, shape (n_docs, K), optional
        Where to start instead.
    light : bool
        Whether few documents may be computed without the compiled kernels, which round otherwise.

    Returns
    -------
    ndarray, shape (n_docs, K)
        The documents' Dirichlet parameters.
    """
    dtype, num_topics = floats(table.dtype), table.shape[1]
    if gamma is None:
        gamma = starting_gamma(block.n_docs, num_topics, seed, key, dtype)
    elif gamma.shape != (block.n_docs, num_topics):
        raise ValueError(f"gamma has shape {gamma.shape}; pass one of {(block.n_docs, num_topics)}")
    else:
        gamma = np.array(gamma, dtype=dtype, order="C")
    rows = rows_of(block.indices, table_row, len(table))
    alpha = checked_prior(alpha, num_topics, dtype)
    kernels = _light_kernels(block.n_docs) if light else compiled_or_numpy()
    options = iterations, gamma_threshold, variant
    expectation(block, rows, as_compiled(table, dtype), alpha, gamma, *options, kernels=kernels)
    return gamma


def expectation(
    block: Chunk,
    rows: np.ndarray,
    table: np.ndarray,
    alpha: np.ndarray,
    gamma: np.ndarray,
    iterations: int,
    gamma_threshold: float,
    variant: str,
    kernels: ModuleType | None = None,
) -> tuple[Theta, np.ndarray, int, int]:
    dtype, stop = table.dtype.type, stopping.current()
    theta, ratio, converged, total = (kernels or compiled_or_numpy()).expectation(
        as_compiled(block.indptr, np.int64),
        rows,
        as_compiled(block.data, dtype),
        table,
        alpha,
        gamma,
        iterations,
        dtype(gamma_threshold),
        np.finfo(dtype).eps,  # gensim's too
        is_collapsed(variant),
        stop.flag,
    )
    stop.check()
    return theta, ratio, converged, total


def most_cells(block: Chunk, positions: np.ndarray, theta: Theta, num_words: int, num_topics: int) -> int:
    """Return how many counts of a job's words and the topics can be other than zero, at most."""
    topics = np.repeat(np.diff(theta[0]), np.diff(block.indptr))  # of each entry
    return int(np.minimum(np.bincount(positions, topics, num_words), num_topics).sum())


def sparse_statistics(
    block: Chunk,
    positions: np.ndarray,
    theta: Theta,
    ratio: np.ndarray,
    table: np.ndarray,
    table_rows: np.ndarray,
    grid: float,
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a block's expected counts of words and topics, rounded to the grid.

    Parameters
    ----------
    block : Chunk
    positions : ndarray of int32, shape (nnz,)
        The job's word of each entry.
    theta, ratio
        From `expectation`.
    table : ndarray, shape (m, K)
        Topic weights.
    table_rows : ndarray of int32, shape (n_words,)
        The row of `table` of each of the job's words.
    grid : float
    most : int
        From `most_cells`.

    Returns
    -------
    cells : ndarray of int32 or int64, shape (n,)
        Which counts are not zero: their places in a table of n_words x K, row by row. They ascend by words.
    steps : ndarray of int32 or float64, shape (n,)
        Those counts, in whole steps.
    """
    cells, steps = np.empty(most, cell_type(len(table_rows) * table.shape[1])), np.empty(most)
    indptr = as_compiled(block.indptr, np.int64)
    number = compiled_or_numpy().statistics(
        indptr, positions, theta, ratio, table, table_rows, grid, steps, cells, True
    )
    return cells[:number], narrow_steps(steps[:number])


def add_statistics(
    block: Chunk,
    positions: np.ndarray,
    theta: Theta,
    ratio: np.ndarray,
    table: np.ndarray,
    table_rows: np.ndarray,
    grid: float,
    steps: np.ndarray,
) -> None:
    """Add a block's expected counts, rounded to the grid, to a job's sums.

    Parameters
    ----------
    block, positions, theta, ratio, table, table_rows, grid
        See `sparse_statistics`.
    steps : ndarray of float64, shape (n_words, K)
        The sums in whole steps; changed.
    """
    indptr, no_cells = as_compiled(block.indptr, np.int64), np.empty(0, cell_type(steps.size))
    compiled_or_numpy().statistics(
        indptr, positions, theta, ratio, table, table_rows, grid, steps.reshape(-1), no_cells, False
    )


def expected_log_theta(gamma: np.ndarray) -> np.ndarray:
    """psi(gamma) - psi(sum(gamma)) for each document, float64."""
    kernels = compiled_or_numpy()
    totals = gamma.sum(axis=1, dtype=np.float64, keepdims=True)
    return np.asarray(kernels.digamma(gamma) - kernels.digamma(totals))


def expected_log_counts(
    block: Chunk,
    rows: np.ndarray,
    table: np.ndarray,
    alpha: np.ndarray,
    gamma: np.ndarray,
    theta: Theta,
    ratio: np.ndarray,
) -> np.ndarray:
    """E[psi(alpha + N)] - psi(sum(gamma)) for each document, float64, N being its counts of the topics.

    psi is far from linear near a small alpha: at the expected count alone it would take every trace of a
    topic for a use of it, and alpha would grow without end. So the case of no use is taken by itself (Teh,
    Kurihara & Welling, Collapsed variational inference for HDP, NIPS 2007).
    """
    kernels = compiled_or_numpy()
    dtype = table.dtype
    prior = alpha.astype(np.float64)
    uses = np.maximum(gamma - prior, 0)
    used = 1 - kernels.absence(
        as_compiled(block.indptr, np.int64), rows, as_compiled(block.data, dtype), table, theta, ratio, uses
    )
    at_none = kernels.digamma(prior)
    uses /= np.maximum(used, np.finfo(np.float64).eps)
    logs = at_none + used * (kernels.digamma(prior + uses) - at_none)
    return np.asarray(logs - kernels.digamma(gamma.sum(axis=1, dtype=np.float64, keepdims=True)))


@np.errstate(all="ignore")
def bound(
    block: Chunk, log_table: np.ndarray, table_row: np.ndarray, alpha: np.ndarray, gamma: np.ndarray
) -> float:
    """Return the documents' part of the variational bound, E_q[log p(words, theta)] - E_q[log q(theta)].

    Parameters
    ----------
    block : Chunk
    log_table : ndarray of float64, shape (m, K)
        E[log beta] (see `log_topics`).
    table_row : ndarray of int32, shape (num_terms,)
        The row of `log_table` for each term id.
    alpha : ndarray, shape (K,)
    gamma : ndarray, shape (n_docs, K)
        From `infer`.

    Returns
    -------
    float
        In nats. With `topic_bound` it makes the whole bound (Hoffman, Blei & Bach 2010, eq. 4), as gensim's
        ``LdaModel.bound`` has it.
    """
    kernels = compiled_or_numpy()
    alpha = np.asarray(alpha, dtype=np.float64)
    gamma = np.asarray(gamma, dtype=np.float64)
    log_theta = expected_log_theta(gamma)
    score = kernels.word_bound(
        as_compiled(block.indptr, np.int64),
        rows_of(block.indices, table_row, len(log_table)),
        as_compiled(block.data, np.float64),
        as_compiled(log_table, np.float64),
        log_theta,
    )
    score += np.sum((alpha - gamma) * log_theta)
    d, k = np.nonzero(gamma != alpha)  # the others add nothing
    score += np.sum(gammaln(gamma[d, k]) - gammaln(alpha[k]))
    score += np.sum(gammaln(alpha.sum()) - gammaln(gamma.sum(axis=1)))
    return float(score)


@np.errstate(all="ignore")
def topic_bound(topics: np.ndarray, eta: float | np.ndarray) -> float:
    """Return the topics' part of the variational bound, E_q[log p(beta | eta)] - E_q[log q(beta | lambda)].

    Parameters
    ----------
    topics : ndarray, shape (K, num_terms)
        Lambda, in gensim's orientation.
    eta : float, or ndarray of shape (num_terms,) or (K, num_terms)
        The topics' Dirichlet prior.

    Returns
    -------
    float
        In nats.
    """
    kernels = compiled_or_numpy()
    eta = np.asarray(eta, dtype=np.float64)
    priors, log_gammas = (np.broadcast_to(values, topics.shape) for values in (eta, gammaln(eta)))
    score = 0.0
    for lambda_, prior, log_gamma in zip(topics.astype(np.float64), priors, log_gammas, strict=True):
        log_beta = kernels.digamma(lambda_) - kernels.digamma(lambda_.sum(keepdims=True))
        score += np.sum((prior - lambda_) * log_beta + gammaln(lambda_) - log_gamma)
        score += gammaln(prior.sum()) - gammaln(lambda_.sum())
    return float(score)

"""The topics of an LDA model, of which a training step touches only the rows of the words it has seen.

The parameters of the topics' Dirichlet posterior are ``lambda = eta + sstats``, terms x topics. A step of
online variational Bayes (Hoffman, Blei & Bach, Online learning for latent Dirichlet allocation, NIPS 2010,
eq. 5) makes

    sstats = (1 - rho) * sstats + rho * (targetsize / numdocs) * (expected counts of numdocs documents)

and the expected counts of all words but those documents' are zero. `LazyTopics` keeps ``sstats = scale *
table`` so that one number decays every row, and only the rows of the documents' words are read or written.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .received import check_amounts, check_kinds, real
from .rows import Map, Rows
from .summation import MAX_STEPS, add_cells, check_steps, inexact

#: Fewer rows than this are not worth loading the compiled loops for; the bits are the same.
FEW_ROWS = 10_000

#: The scale is multiplied into the table where it falls below this; far from where float32 would overflow.
SMALLEST_SCALE = 2.0**-40


@functools.cache
def _kernels() -> ModuleType | None:
    try:
        from . import _topics_kernels
    except ImportError:
        return None
    return _topics_kernels


class LazyTopics:
    """Topics whose untouched rows decay together, by one number.

    Parameters
    ----------
    eta : ndarray, shape (num_terms,) or (num_topics, num_terms)
        The topics' Dirichlet prior.
    table : ndarray of float32 or float64, shape (num_terms, num_topics)
        Sufficient statistics, one row a term; it is kept, not copied, and changed by `blend`.
    scale : float
        What the table is multiplied by.
    numdocs : int
        Documents that the statistics stand for.
    sums : ndarray of float64, shape (num_topics,), optional
        Sums of the table over all terms, where they are known.

    Raises
    ------
    ValueError
        If the shapes disagree, or the table is neither float32 nor float64.
    """

    def __init__(
        self,
        eta: np.ndarray,
        table: np.ndarray,
        scale: float = 1.0,
        numdocs: int = 0,
        sums: np.ndarray | None = None,
    ) -> None:
        check_kinds(np.ndarray, eta=eta, table=table)
        check_kinds(np.ndarray, None, sums=sums)
        if table.ndim != 2 or table.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"a table of shape {table.shape} and type {table.dtype}: give terms x topics in float32 "
                "or float64"
            )
        # "E": of a memory map, or another subclass of arrays, which does not travel, the array.
        self.table = np.require(table, requirements=["C", "A", "W", "E"])
        eta = np.asarray(eta)
        if eta.shape not in ((self.num_terms,), (self.num_topics, self.num_terms)):
            raise ValueError(
                f"eta has shape {eta.shape}: give ({self.num_terms},) or "
                f"({self.num_topics}, {self.num_terms})"
            )
        self.eta = eta
        self.scale = real("scale", scale)
        self.numdocs: int = real("numdocs", numdocs)
        if sums is not None and sums.shape != (self.num_topics,):
            raise ValueError(f"sums has shape {sums.shape}: give ({self.num_topics},)")
        self.sums = self.table.sum(axis=0, dtype=np.float64) if sums is None else sums
        self._prior = np.require(np.atleast_2d(eta).T, self.table.dtype, ["C", "A", "W", "E"])
        self._prior_totals = eta.sum(axis=-1, dtype=np.float64)

    @classmethod
    def from_state(cls, eta: np.ndarray, sstats: np.ndarray, numdocs: int = 0) -> LazyTopics:
        """Take the topics from where gensim's ``LdaState`` has them: statistics of shape (num_topics,
        num_terms).
        """
        return cls(eta, np.array(sstats.T, order="C"), numdocs=numdocs)

    @np.errstate(all="ignore")
    def to_state(self) -> np.ndarray:
        """Return the statistics as gensim's ``LdaState`` has them, shape (num_topics, num_terms)."""
        statistics = np.empty((self.num_topics, self.num_terms), self.dtype)
        return np.multiply(self.table.T, self.dtype.type(self.scale), out=statistics)

    @property
    def num_terms(self) -> int:
        """Size of the vocabulary."""
        return len(self.table)

    @property
    def num_topics(self) -> int:
        """Number of topics."""
        return self.table.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of the statistics."""
        return self.table.dtype

    @np.errstate(all="ignore")
    def rows(self, words: np.ndarray) -> np.ndarray:
        """Return lambda of some terms, shape (n_words, num_topics)."""
        few = len(words) < FEW_ROWS and f"{__package__}._topics_kernels" not in sys.modules
        kernels = None if few else _kernels()
        if kernels is None:
            return self._prior[words] + self.dtype.type(self.scale) * self.table[words]
        if len(words) and not 0 <= words.min() <= words.max() < self.num_terms:
            raise ValueError(f"term ids up to {words.max()}, but there are {self.num_terms} terms")
        return np.asarray(kernels.rows_of(self.table, self.scale, self._prior, words))

    def totals(self) -> np.ndarray:
        """Return lambda summed over all terms, float64 of shape (num_topics,)."""
        return np.asarray(self._prior_totals + self.scale * self.sums)

    @np.errstate(all="ignore")
    def blend(
        self,
        rho: float,
        words: np.ndarray,
        statistics: np.ndarray,
        numdocs: int,
        targetsize: int | None = None,
        *,
        unit: float = 1.0,
        side_by_side: Map = map,
    ) -> None:
        """Move the topics towards the expected counts of some documents.

        Parameters
        ----------
        rho : float
            How far, from 0 (not at all) to 1 (all the way).
        words : ndarray of int32, shape (n,)
            The terms that occur in the documents, distinct.
        statistics : ndarray of float64, shape (n, num_topics)
            Their expected counts, in units of `unit`. In whole steps of a grid their totals are exact, and
            the result does not depend on the order of the words.
        numdocs : int
            Number of the documents.
        targetsize : int, optional
            Documents that the statistics shall stand for; as many as before by default.
        unit : float
            The value of one in `statistics`.
        side_by_side : callable
            A `Map` to blend slices of the words with.

        Raises
        ------
        ValueError
            If the shapes disagree or a term does not exist.
        """
        if statistics.shape != (len(words), self.num_topics):
            raise ValueError(
                f"statistics of shape {statistics.shape} for {len(words)} words and {self.num_topics} topics"
            )
        if len(words) and not 0 <= words.min() <= words.max() < self.num_terms:
            raise ValueError(f"term ids up to {words.max()}, but there are {self.num_terms} terms")
        targetsize = self.numdocs if targetsize is None else targetsize
        stretch = targetsize / self.numdocs if self.numdocs else 1.0
        self._decay((1.0 - rho) * stretch)
        factor = rho * (targetsize / numdocs if numdocs else 1.0) / self.scale
        kernels = _kernels()
        if kernels is not None:
            totals = Rows(len(words), side_by_side).sum(
                lambda part: kernels.add_rows(self.table, words[part], statistics[part], unit, factor)
            )
        else:
            self.table[words] += (factor * unit * statistics).astype(self.dtype)
            totals = statistics.sum(axis=0)
        self.sums += factor * unit * totals
        self.numdocs = targetsize

    def _decay(self, factor: float) -> None:
        """Multiply all statistics."""
        scale = self.scale * factor
        if scale < SMALLEST_SCALE:
            self.table *= self.dtype.type(scale)
            self.sums *= scale
            scale = 1.0
        self.scale = scale


def shares_of_tokens(statistics: np.ndarray) -> np.ndarray:
    """Return each topic's share of the tokens.

    Parameters
    ----------
    statistics : ndarray, shape (num_topics,)
        The sufficient statistics summed over all terms, on any scale.

    Returns
    -------
    ndarray of float64, shape (num_topics,)
        Their sum is 1; all alike where there are no statistics.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    total = statistics.sum()
    if not 0 < total < np.inf:
        return np.full(len(statistics), 1 / max(len(statistics), 1))
    return statistics / total


def check_arrived(topics: Mapping[str, Any], alpha: Any) -> None:
    """Refuse a model that has arrived if no training run makes such.

    Parameters
    ----------
    topics : mapping
        The arguments of `LazyTopics`.
    alpha : any
        The documents' prior.

    Raises
    ------
    TypeError, ValueError
        They have something else than finite numbers of 0 or more (alpha: above 0), or another number of
        topics; the message says which.
    """
    eta, table, sums = topics["eta"], topics["table"], topics.get("sums")
    check_kinds(np.ndarray, eta=eta, table=table, alpha=alpha)
    check_kinds(np.ndarray, None, sums=sums)
    if alpha.shape != table.shape[1:]:
        raise ValueError(
            f"alpha has shape {alpha.shape} for a table of {table.shape}: give one number a topic"
        )
    real("numdocs", topics.get("numdocs", 0), 0)
    check_amounts({"eta": eta, "table": table, "sums": () if sums is None else sums})
    check_amounts({"alpha": alpha, "scale": real("scale", topics.get("scale", 1.0))}, above_zero=True)


class LeadingTerms:
    """Finds the most probable terms of some topics, of which the rows are given piece by piece.

    Parameters
    ----------
    number : int
        How many of each topic.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._ids: np.ndarray | None = None
        self._values: np.ndarray | None = None

    def add(self, words: np.ndarray, rows: np.ndarray) -> None:
        """Look at some terms.

        Parameters
        ----------
        words : ndarray of int32, shape (n,)
            Their ids.
        rows : ndarray, shape (n, num_topics)
            Their parameters.
        """
        ids = np.broadcast_to(words[:, np.newaxis], rows.shape)
        if self._ids is not None and self._values is not None:
            ids, rows = np.concatenate([self._ids, ids]), np.concatenate([self._values, rows])
        if len(rows) > self._number:
            best = np.argpartition(rows, len(rows) - self._number, axis=0)[-self._number :]
            ids, rows = np.take_along_axis(ids, best, 0), np.take_along_axis(rows, best, 0)
        self._ids, self._values = ids, rows

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids and parameters, shape (number, num_topics), in each column the largest first."""
        if self._ids is None or self._values is None:
            raise ValueError("no terms were looked at: add some")
        order = np.argsort(-self._values, axis=0, kind="stable")
        return np.take_along_axis(self._ids, order, 0), np.take_along_axis(self._values, order, 0)


class StatisticsSum:
    """An exact sum of statistics that holds rows only for the terms that occur; several threads may add at
    once.

    Parameters
    ----------
    num_terms, width : int
        Size of the vocabulary, and numbers a row.
    grid : float
        The value of a step, a power of two.
    side_by_side : callable
        A `Map` to add slices of the terms with.
    """

    def __init__(self, num_terms: int, width: int, grid: float, side_by_side: Map = map) -> None:
        self.grid = grid
        self._map = side_by_side
        self._row_of = np.full(num_terms, -1, np.int32)
        self._words = np.empty(0, np.int32)
        self._steps = np.zeros((0, width))
        self._used = 0
        self._lock = threading.Lock()

    @property
    def words(self) -> np.ndarray:
        """The terms that were added to, int32, in the order in which they came."""
        return self._words[: self._used]

    @property
    def steps(self) -> np.ndarray:
        """The sums of `words` in whole steps, float64 of shape (n_words, width)."""
        return self._steps[: self._used]

    def add(self, words: np.ndarray, steps: np.ndarray, cells: np.ndarray | None = None) -> None:
        """Add to the rows of some terms.

        Parameters
        ----------
        words : ndarray of int32, shape (n,)
            Distinct term ids.
        steps : ndarray of int32 or float64, shape (n, width), or (n_cells,)
            Whole numbers of steps.
        cells : ndarray of int32 or int64, shape (n_cells,), optional
            Where those are in the table (n, width), row by row; the others are zero.

        Raises
        ------
        ValueError
            If the shapes disagree or a term does not exist.
        OverflowError
            If a sum leaves the range in which it is exact; it is of no use after that.
        """
        check_steps(steps, cells, len(words), self._steps.shape[1])
        if len(words) and not 0 <= words.min() <= words.max() < len(self._row_of):
            raise ValueError(f"term ids up to {words.max()}, but there are {len(self._row_of)} terms")
        with self._lock:
            self._make_room(words)
            rows = self._row_of[words]
            if cells is None:
                slices = Rows(len(words), self._map)
                exact = all(slices.map(lambda part: _add_steps(self._steps, rows[part], steps[part])))
            else:
                exact = add_cells(self._steps, rows, cells, steps)
            if not exact:
                raise inexact(self._steps[rows], self.grid, words)

    def clear(self) -> None:
        """Forget every sum; the memory is kept for the next ones."""
        with self._lock:
            self._row_of[self.words] = -1
            Rows(self._used, self._map).map(lambda part: self._steps[part].fill(0))
            self._used = 0

    def _make_room(self, words: np.ndarray) -> None:
        new = words[self._row_of[words] < 0]
        end = self._used + len(new)
        if end > len(self._steps):
            capacity = min(max(end, 2 * len(self._steps)), len(self._row_of))
            grown = np.zeros((capacity, self._steps.shape[1]))
            grown[: self._used] = self.steps
            words_grown = np.empty(capacity, np.int32)
            words_grown[: self._used] = self.words
            self._steps, self._words = grown, words_grown
        self._words[self._used : end] = new
        self._row_of[new] = np.arange(self._used, end, dtype=np.int32)
        self._used = end


def _add_steps(total: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> bool:
    """Add `steps` to some rows of `total`; return whether all sums are in range."""
    from .summation import compiled_kernels

    kernels = compiled_kernels()
    if kernels is not None:
        return bool(kernels.add_rows(total, rows, steps))
    total[rows] += steps
    return not steps.size or bool(np.abs(total[rows]).max() < MAX_STEPS)


@np.errstate(all="ignore")
def newton_step(prior: np.ndarray, num: float, mean_logs: np.ndarray, rho: float) -> np.ndarray:
    """Return a Dirichlet prior after one damped Newton step towards its maximum likelihood.

    Parameters
    ----------
    prior : ndarray, shape (n,)
        The parameters now.
    num : float
        Number of observations.
    mean_logs : ndarray, shape (n,)
        Mean over the observations of the expected logarithms of the probabilities.
    rho : float
        The part of the step that is taken.

    Returns
    -------
    ndarray of float64, shape (n,)
        The prior itself where the step would leave the positive numbers.

    References
    ----------
    Jonathan Huang, Maximum likelihood estimation of Dirichlet distribution parameters, 2005: the Hessian is a
    diagonal plus a constant, so that its inverse takes linear time.
    """
    from scipy.special import polygamma, psi

    prior = np.asarray(prior, dtype=np.float64)
    gradient = num * (psi(prior.sum()) - psi(prior) + mean_logs)
    diagonal = -num * polygamma(1, prior)
    constant = num * polygamma(1, prior.sum())
    shift = (gradient / diagonal).sum() / (1.0 / constant + (1.0 / diagonal).sum())
    updated = prior - rho * (gradient - shift) / diagonal
    return updated if (updated > 0).all() else prior


def warm(dtypes: Any = ("float32",)) -> None:
    """Compile what the first step would have to wait for, or load it from the disk's cache."""
    for name in dtypes:
        topics = LazyTopics(np.ones(1, name), np.ones((1, 1), name))
        total = StatisticsSum(1, 1, 1.0)
        word = np.zeros(1, np.int32)
        for steps in (np.ones((1, 1), np.int32), np.ones((1, 1))):
            total.add(word, steps)
            total.add(word, steps[0], word)
        topics.blend(0.5, total.words, total.steps, 1)
        topics.rows(word)

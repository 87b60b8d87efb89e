"""Where a training run stands, for whoever watches it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.topics import LeadingTerms, shares_of_tokens

#: The most points of a curve; with more, every other one is dropped.
POINTS = 400


#: Terms that are looked at together, so that the training does not wait long.
TERMS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True)
class TopicNow:
    """The most probable terms of a topic, with their probabilities, and the topic's share of the tokens."""

    number: int
    weight: float
    terms: tuple[int, ...]
    probabilities: tuple[float, ...]


def topics_now(
    rows: Callable[[NDArray[np.int32]], NDArray],
    num_terms: int,
    totals: Callable[[], NDArray],
    statistics: Callable[[], NDArray],
    number: int,
    words: int,
    unchanging: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[TopicNow]:
    """Return the topics of an LDA model with the largest shares of the tokens.

    Parameters
    ----------
    rows : callable
        Returns lambda of an array of term ids, shape (n, K).
    num_terms : int
    totals : callable
        Returns lambda summed over all terms, shape (K,).
    statistics : callable
        Returns the same of the sufficient statistics alone, without eta, on any scale.
    number, words : int
        How many topics, and terms of each.
    unchanging : callable
        Returns what is entered while a part of lambda is read.
    """
    with unchanging():
        shares = shares_of_tokens(statistics())
    chosen = np.sort(np.argsort(-shares, kind="stable")[:number])
    leading = LeadingTerms(words)
    for first in range(0, num_terms, TERMS_AT_ONCE):
        ids = np.arange(first, min(first + TERMS_AT_ONCE, num_terms), dtype=np.int32)
        with unchanging():
            part = rows(ids)
        leading.add(ids, part[:, chosen])
    if not num_terms:
        return []
    with unchanging():
        sums = totals()[chosen]
    terms, values = leading.found()
    return [
        TopicNow(int(k), float(share), tuple(terms[:, i].tolist()), tuple((values[:, i] / sums[i]).tolist()))
        for i, (k, share) in enumerate(zip(chosen, shares[chosen], strict=True))
    ]


class Curve:
    """A figure of a training run over time, in a bounded number of points."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int, float]] = []
        self._every = 1
        self._skipped = 0

    def add(self, documents_done: int, value: float) -> None:
        """Add what it is now; no point where that is no number."""
        if not math.isfinite(value):
            return
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        points = [*self._points, (time.time(), documents_done, value)]
        if len(points) > POINTS:
            points, self._every = points[::2], 2 * self._every
        self._points = points  # at once, since others may be reading them

    def points(self) -> list[tuple[float, int, float]]:
        """Return seconds since 1970, documents done and the figure, oldest first."""
        return self._points


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a training run stands.

    Attributes
    ----------
    topics, terms : int or None
    chunks_arrived, documents_arrived : int
        Of the pass, or of what is being added.
    documents_expected : int or None
    documents_done : int
        Counted as often as they are computed.
    documents_to_do : int or None
        Of the whole run.
    complete : bool
        Whether all documents have arrived.
    paused : bool
        Whether it waits for its program to go on.
    done : bool
        Whether it has its result.
    answered : bool
        Whether it has all results that its program has asked for.
    failure : str
        Why it can have none; empty where it can.
    pass_, passes, updates, updates_expected, round, rounds_expected : int or None
    error, tolerance, perplexity : float or None
    blocks, blocks_done, chunks_of_blocks : int
        Of the round under way, and of how many chunks they are.
    singular_values : tuple of float
        As far as they are known.
    """

    topics: int | None = None
    terms: int | None = None
    chunks_arrived: int = 0
    documents_arrived: int = 0
    documents_expected: int | None = None
    documents_done: int = 0
    documents_to_do: int | None = None
    complete: bool = False
    paused: bool = False
    done: bool = False
    answered: bool = False
    failure: str = ""
    pass_: int | None = None
    passes: int | None = None
    updates: int | None = None
    updates_expected: int | None = None
    round: int | None = None
    rounds_expected: int | None = None
    error: float | None = None
    tolerance: float | None = None
    perplexity: float | None = None
    blocks: int = 0
    blocks_done: int = 0
    chunks_of_blocks: int = 0
    singular_values: tuple[float, ...] = ()

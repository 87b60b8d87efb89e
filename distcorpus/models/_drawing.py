"""The topics that a training starts from, drawn while other things are done."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distcorpus.algorithms.topics import LazyTopics

#: Numbers that are drawn in one go; it takes some tens of milliseconds.
DRAWN_AT_ONCE = 1_000_000


class Drawing:
    """Draws topics in a thread, as ``gensim.models.LdaModel`` does: from Gamma(100, 1/100), topic by topic.

    It takes longer than to find a cluster and to read some documents.

    Parameters
    ----------
    random_state : RandomState
        Nobody else may draw from it until `result` has returned.
    eta : ndarray, shape (num_terms,) or (num_topics, num_terms)
        The topics' prior.
    num_topics, num_terms : int
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(
        self,
        random_state: np.random.RandomState,
        eta: np.ndarray,
        num_topics: int,
        num_terms: int,
        dtype: Any,
    ) -> None:
        self._table = np.empty((num_terms, num_topics), dtype)
        self._random_state = random_state
        self._eta = eta
        self._given_up = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="topics")
        self._topics: Future[LazyTopics] = self._thread.submit(self._draw)

    def _draw(self) -> LazyTopics:
        num_terms, num_topics = self._table.shape
        step = max(DRAWN_AT_ONCE // num_terms, 1)
        for first in range(0, num_topics, step):
            if self._given_up.is_set():
                break
            some = self._table.T[first : first + step]
            some[...] = self._random_state.gamma(100.0, 1.0 / 100.0, some.shape)
        return LazyTopics(self._eta, self._table)

    def done(self) -> bool:
        """Return whether there is nothing to wait for."""
        return self._topics.done()

    def result(self) -> LazyTopics:
        """Wait for the topics."""
        return self._topics.result()

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *exception: object) -> None:
        self._given_up.set()
        self._thread.shutdown()

"""A worker that is merely late is overtaken, well before anybody takes it for silent."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from gensim.models import LdaModel

from distcorpus import models
from distcorpus.engines.pyro import PING_DEADLINE

#: Seconds before a job counts as late, the schedule's default.
OVERDUE_AFTER = 2.0


def train(corpus):
    model = LdaModel(
        corpus.counts,
        id2word=corpus.dictionary,
        num_topics=30,
        chunksize=10,
        update_every=0,
        eval_every=None,
        random_state=1,
        distributed=True,
    )
    return model.state.sstats.tobytes()


def test_late_worker_is_overtaken(own_cluster, lee_corpus):
    quiet = train(lee_corpus)
    late, other = own_cluster.workers
    os.kill(late.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        assert train(lee_corpus) == quiet
        assert time.monotonic() - stopped_at < PING_DEADLINE
    finally:
        os.kill(late.pid, signal.SIGCONT)
    session = own_cluster.dispatcher.recorded_sessions()[-1]
    jobs = own_cluster.dispatcher.records(session)
    assert {job["worker"] for job in jobs} == {other.name}
    assert sum(job["documents"] for job in jobs) == len(lee_corpus.counts)
    # It was given jobs, which came to nothing: the others had to wait for it.
    assert time.monotonic() - stopped_at > OVERDUE_AFTER


@pytest.mark.parametrize("chunksize", [10, 300], ids=["many chunks", "one chunk"])
def test_late_worker_is_overtaken_in_an_evaluation(own_cluster, lee_corpus, chunksize):
    """At the end of its input, and where the program waits for a chunk before it sends more."""
    model = models.LdaModel(id2word=lee_corpus.dictionary, num_topics=30, random_state=1, distributed=True)
    state = model.random_state.get_state()
    quiet = list(model.transform(lee_corpus.counts, chunksize=chunksize))
    model.random_state.set_state(state)
    late, _ = own_cluster.workers
    os.kill(late.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    try:
        np.testing.assert_array_equal(list(model.transform(lee_corpus.counts, chunksize=chunksize)), quiet)
        assert time.monotonic() - stopped_at < PING_DEADLINE
    finally:
        os.kill(late.pid, signal.SIGCONT)

"""LocalCluster: ready when it says so, found by this process, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import gensim.models
import pytest
from gensim.models import LsiModel

from distcorpus import LocalCluster, models

from .conftest import wait_until
from .test_clients import alive


def test_workers_are_shown(cluster):
    workers = cluster.workers
    assert len(workers) == 2
    assert all(alive(worker.pid) for worker in workers)
    assert len({worker.address for worker in workers}) == 2
    assert {worker["name"] for worker in cluster.dispatcher.status()["workers"]} == {w.name for w in workers}


def test_scale(lee_corpus):
    with LocalCluster(n_workers=1) as cluster:
        cluster.scale(3)
        assert len(cluster.workers) == 3
        assert len(cluster.dispatcher.status()["workers"]) == 3
        model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
        assert model.numworkers == 3
        cluster.scale(1)
        assert len(cluster.dispatcher.status()["workers"]) == 1


def test_a_worker_that_is_killed_a_moment_before_is_replaced():
    """It may look alive yet, when the dispatcher has lost it already."""
    with LocalCluster(n_workers=1) as cluster:
        for _ in range(3):
            (victim,) = cluster.workers
            os.kill(victim.pid, signal.SIGKILL)
            wait_until(lambda: not cluster.dispatcher.status()["workers"], "its loss")
            cluster.scale(1)
            assert [worker.pid for worker in cluster.workers] != [victim.pid]
            assert len(cluster.dispatcher.status()["workers"]) == 1


def test_nested_clusters_and_the_way_back(cluster, lee_corpus):
    """The innermost cluster is the one that models find."""
    with LocalCluster(n_workers=1):
        model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
        assert model.numworkers == 1
    model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    assert model.numworkers == 2


def pids(cluster):
    return [process.pid for process in [*cluster._daemons, *cluster._workers]]


def test_exception_leaves_no_process():
    started = []

    def fail():
        with LocalCluster(n_workers=1) as cluster:
            started.extend(pids(cluster))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert started
    assert not any(alive(pid) for pid in started)


@pytest.mark.long
def test_worker_threads(lee_corpus):
    """Threads of one worker share the broadcast and the partial, and change no bit."""
    results = []
    for threads in (1, 2):
        with LocalCluster(n_workers=1, threads=threads) as cluster:
            assert cluster.dispatcher.status()["workers"][0]["threads"] == threads
            model = LsiModel(
                lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5, chunksize=20, distributed=True
            )
            results.append(model.projection.u.tobytes())
    assert results[0] == results[1]


PARENT = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from distcorpus import LocalCluster
cluster = LocalCluster(n_workers=2)
print(*(process.pid for process in [*cluster._daemons, *cluster._workers]), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.long
def test_killed_parent_leaves_no_process(number):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    started = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(started) == 4
    assert all(alive(pid) for pid in started)
    parent.send_signal(number)
    parent.wait(20)
    parent.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in started), "the end of the cluster's processes", 20)


def test_process_that_cannot_start():
    with pytest.raises(RuntimeError, match="dispatcher process ended with exit code 2"):
        LocalCluster(n_workers=0, dispatcher_options=("--no-such-option",))


def test_senseless_sizes(cluster):
    with pytest.raises(ValueError, match="n_workers=-1"):
        LocalCluster(n_workers=-1)
    with pytest.raises(ValueError, match="n_workers=-2"):
        cluster.scale(-2)


def test_environ_is_enough_for_another_process(cluster):
    program = (
        "from gensim.models import LsiModel; from gensim.test.utils import common_corpus, common_dictionary; "
        "print(LsiModel(common_corpus, id2word=common_dictionary, num_topics=2, distributed=True).numworkers)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **cluster.environ()},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == "2\n"


KINDS = [gensim.models.LsiModel, models.LsiModel]


def workers_found(kind, corpus):
    return kind(corpus.tfidf, id2word=corpus.dictionary, num_topics=2, distributed=True).numworkers


@pytest.mark.long
def test_clusters_that_are_closed_in_the_wrong_order_leave_no_dead_address(lee_corpus):
    """Three of which the first is closed first: models always find the latest that is open."""
    first, second, third = LocalCluster(1), LocalCluster(2), LocalCluster(1, tls=True)
    try:
        first.close()
        assert workers_found(models.LsiModel, lee_corpus) == 1  # the third's, with TLS
        third.close()
        assert [workers_found(kind, lee_corpus) for kind in KINDS] == [2, 2]
    finally:
        for cluster in (first, third, second):
            cluster.close()


@pytest.mark.long
def test_two_threads_have_a_cluster_each(lee_corpus):
    """Each finds its own, one of them with TLS, while both are open; and so does a reconnection."""
    both = threading.Barrier(2)

    def train(number, tls):
        with LocalCluster(number, tls=tls) as cluster:
            both.wait(60)
            found = [workers_found(kind, lee_corpus) for kind in KINDS]
            sessions = len(cluster.dispatcher.recorded_sessions())
            both.wait(60)
        return found, sessions

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.submit(train, 1, True), threads.submit(train, 2, False)
        assert one.result(120) == ([1, 1], 2)
        assert two.result(120) == ([2, 2], 2)

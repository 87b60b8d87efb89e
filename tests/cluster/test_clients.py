"""Several clients at once, and clients that go away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from gensim.models import LdaModel, LsiModel

from distcorpus import LocalCluster

from .conftest import wait_until


def train(corpus, number):
    if number % 2:
        model = LsiModel(
            corpus.tfidf, id2word=corpus.dictionary, num_topics=10 + number, chunksize=50, distributed=True
        )
        return model.projection.u.tobytes()
    model = LdaModel(
        corpus.counts,
        id2word=corpus.dictionary,
        num_topics=10 + number,
        chunksize=50,
        random_state=number,
        distributed=True,
    )
    return model.state.sstats.tobytes()


def test_clients_at_once_get_what_they_would_alone(cluster, lee_corpus):
    alone = [train(lee_corpus, number) for number in range(5)]
    with ThreadPoolExecutor(20) as clients:
        together = list(clients.map(lambda number: train(lee_corpus, number), [*range(5)] * 4))
    assert together == alone * 4


SLOW_CLIENT = """
import distcorpus, sys, time
from gensim.corpora import Dictionary
from gensim.models import LdaModel

class Endless:
    def __len__(self):
        return 10**9
    def __iter__(self):
        print("training", flush=True)
        while True:
            yield [(0, 1), (1, 1)]

LdaModel(Endless(), id2word={0: "a", 1: "b"}, num_topics=2, chunksize=10, distributed=True)
"""


def test_client_that_is_killed_frees_its_session(cluster, lee_corpus):
    before = sessions(cluster)
    client = subprocess.Popen(
        [sys.executable, "-c", SLOW_CLIENT], env={**os.environ, **cluster.environ()}, stdout=subprocess.PIPE
    )
    assert client.stdout.readline() == b"training\n"
    wait_until(lambda: sessions(cluster) - before, "the session's beginning")
    mine = sessions(cluster) - before
    client.send_signal(signal.SIGKILL)
    client.wait()
    wait_until(lambda: not sessions(cluster) & mine, "the session's end")
    client.stdout.close()
    train(lee_corpus, 0)


def sessions(cluster):
    return set(cluster.dispatcher.status()["sessions"])


WAITING_CLIENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from distcorpus.wire import connect, names
from distcorpus.wire.nameserver import find, lookup
import numpy as np
from gensim.models import LdaModel

front = connect(lookup(find(), names.LDA_DISPATCHER))
model = LdaModel(id2word={0: "a", 1: "b"}, num_topics=200)
front.initialize(id2word={0: "a", 1: "b"}, num_topics=200)
front.reset(model.state)
documents = [np.array([(0, 1.0), (1, 2.0)], dtype=np.float32)] * 20000
for _ in range(40):
    front.putjob(documents)
try:
    print("waiting", flush=True)
    front.getstate()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.long
def test_ctrl_c_in_getstate(cluster):
    before = sessions(cluster)
    client = subprocess.Popen(
        [sys.executable, "-c", WAITING_CLIENT],
        env={**os.environ, **cluster.environ()},
        stdout=subprocess.PIPE,
    )
    assert client.stdout.readline() == b"waiting\n"
    mine = sessions(cluster) - before
    client.send_signal(signal.SIGINT)
    assert client.stdout.readline() == b"interrupted\n"
    assert client.wait(10) == 0
    client.stdout.close()
    wait_until(lambda: not sessions(cluster) & mine, "the session's end")


def test_jobsdone_works_remotely(cluster, lee_corpus):
    model = LdaModel(id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
    model.dispatcher.reset(model.state)
    assert model.dispatcher.jobsdone() == 0
    for first in range(0, 300, 100):
        model.dispatcher.putjob(lee_corpus.counts[first : first + 100])
    wait_until(lambda: model.dispatcher.jobsdone() == 3, "three chunks done")
    assert model.dispatcher.getstate().numdocs == 300


def test_exit_works_remotely(own_cluster, lee_corpus):
    pids = [worker.pid for worker in own_cluster.workers] + [own_cluster.dispatcher_pid]
    model = LsiModel(id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
    model.dispatcher.exit()
    wait_until(lambda: not any(alive(pid) for pid in pids), "the end of dispatcher and workers")


def alive(pid):
    """Whether a child process of ours runs (and is not merely waited for)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("waits_in", ["putjob", "getstate"])
def test_dispatcher_that_is_told_to_end_says_so(lee_corpus, waits_in):
    with LocalCluster(n_workers=1) as cluster, ThreadPoolExecutor(1) as client:
        (worker,) = cluster.workers
        waiting = threading.Event()

        def train():
            model = LdaModel(id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
            model.dispatcher.reset(model.state)
            os.kill(worker.pid, signal.SIGSTOP)
            for _ in range(2):
                model.dispatcher.putjob(lee_corpus.counts[:50])
            waiting.set()
            while waits_in == "putjob":
                model.dispatcher.putjob(lee_corpus.counts[:50])
            model.dispatcher.getstate()

        training = client.submit(train)
        try:
            assert waiting.wait(30)
            os.kill(cluster.dispatcher_pid, signal.SIGTERM)
            with pytest.raises(RuntimeError, match=r"the dispatcher was told to end.*train again"):
                training.result(timeout=20)
            wait_until(lambda: not alive(cluster.dispatcher_pid), "the dispatcher's end", 5)
        finally:
            os.kill(worker.pid, signal.SIGCONT)

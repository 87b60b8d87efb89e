"""Workers that die, join and leave in the middle of a training: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from gensim.models import LdaModel, LsiModel

from distcorpus import LocalCluster

from ..template import start
from .conftest import wait_until


class Hooked:
    """A corpus that calls a function before one of its documents."""

    def __init__(self, documents, at, call):
        self._documents, self._at, self._call = documents, at, call

    def __len__(self):
        return len(self._documents)

    def __iter__(self):
        for number, document in enumerate(self._documents):
            if number == self._at and self._call is not None:
                call, self._call = self._call, None
                call()
            yield document


def train_lda(corpus, documents):
    """One round over many chunks, so that a worker is sure to hold some when something happens to it."""
    model = LdaModel(
        documents,
        id2word=corpus.dictionary,
        num_topics=30,
        chunksize=10,
        update_every=0,
        passes=2,
        random_state=1,
        distributed=True,
    )
    return model.state.sstats.tobytes()


def train_lsi(corpus, documents):
    model = LsiModel(documents, id2word=corpus.dictionary, num_topics=20, chunksize=10, distributed=True)
    return model.projection.u.tobytes() + model.projection.s.tobytes()


@pytest.mark.parametrize("train", [train_lda, train_lsi])
def test_result_survives_kill(own_cluster, lee_corpus, train):
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    quiet = train(lee_corpus, documents)
    victim = own_cluster.workers[0]
    hooked = Hooked(documents, 150, lambda: os.kill(victim.pid, signal.SIGKILL))
    assert train(lee_corpus, hooked) == quiet
    assert [worker.name for worker in own_cluster.workers] != []
    assert victim.name not in {worker["name"] for worker in own_cluster.dispatcher.status()["workers"]}
    # One worker or two, then three: still the same.
    own_cluster.scale(3)
    assert train(lee_corpus, documents) == quiet


def computed_by(cluster, session):
    return {record["worker"] for record in cluster.dispatcher.records(session)}


def test_worker_that_joins_is_used(lee_corpus):
    with LocalCluster(n_workers=1) as cluster:
        hooked = Hooked(lee_corpus.counts, 150, lambda: cluster.scale(2))
        train_lda(lee_corpus, hooked)
        session = cluster.dispatcher.recorded_sessions()[-1]
        assert computed_by(cluster, session) == {worker.name for worker in cluster.workers}


def test_workers_that_leave_lose_nothing(own_cluster, lee_corpus):
    quiet = train_lsi(lee_corpus, lee_corpus.tfidf)
    hooked = Hooked(lee_corpus.tfidf, 100, lambda: own_cluster.scale(1, wait=False))
    assert train_lsi(lee_corpus, hooked) == quiet
    wait_until(lambda: len(own_cluster.dispatcher.status()["workers"]) == 1, "the worker's leave")


def test_rolling_restart(own_cluster, lee_corpus):
    """Every worker ends and another takes its place, one after the other, in the middle of a training."""
    quiet = train_lda(lee_corpus, lee_corpus.counts)
    first = own_cluster.workers

    def restart():
        for worker in first:
            os.kill(worker.pid, signal.SIGTERM)
            wait_until(lambda worker=worker: worker not in own_cluster.workers, "its end")
            own_cluster.scale(2)

    assert train_lda(lee_corpus, Hooked(lee_corpus.counts, 150, restart)) == quiet
    assert not {worker.name for worker in first} & {worker.name for worker in own_cluster.workers}


def test_training_waits_for_a_worker(lee_corpus):
    """All workers die; the round goes on when another one joins."""
    with LocalCluster(n_workers=1) as cluster:
        quiet = train_lda(lee_corpus, lee_corpus.counts)
        victim = cluster.workers[0]
        killed = threading.Event()

        def kill():
            os.kill(victim.pid, signal.SIGKILL)
            killed.set()

        result = []
        hooked = Hooked(lee_corpus.counts, 100, kill)
        training = threading.Thread(target=lambda: result.append(train_lda(lee_corpus, hooked)))
        training.start()
        assert killed.wait(30)
        wait_until(lambda: not cluster.dispatcher.status()["workers"], "the loss of the only worker")
        cluster.scale(1)
        training.join(60)
        assert result == [quiet]


def test_worker_timeout(lee_corpus):
    """With --worker-timeout a training without workers fails, and says what to do."""
    options = ("--worker-timeout", "1")
    with LocalCluster(n_workers=1, dispatcher_options=options) as cluster:
        victim = cluster.workers[0]
        hooked = Hooked(lee_corpus.counts, 100, lambda: os.kill(victim.pid, signal.SIGKILL))
        with pytest.raises(RuntimeError, match=r"no worker.*start one with 'distcorpus worker'"):
            train_lda(lee_corpus, hooked)
        cluster.scale(1)
        train_lda(lee_corpus, lee_corpus.counts)


@contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_result_survives_a_stopped_worker(own_cluster, lee_corpus):
    """A process that is stopped keeps its connections: only the pings tell, and its jobs go to others."""
    quiet = train_lda(lee_corpus, lee_corpus.counts)
    victim = own_cluster.workers[0]
    with stopped(victim.pid):
        assert train_lda(lee_corpus, lee_corpus.counts) == quiet
    wait_until(
        lambda: victim.name in computed_by(own_cluster, last_session_after(own_cluster, lee_corpus)),
        "the return of the worker",
    )


def last_session_after(cluster, corpus):
    train_lda(corpus, corpus.counts)
    return cluster.dispatcher.recorded_sessions()[-1]


FAULTY = """
from distcorpus.kernels import EStep

add = EStep.add

def of_less_than_seven_topics(self, block, key):
    if len(self._alpha) == 7:
        raise ArithmeticError("seven topics")
    add(self, block, key)

EStep.add = of_less_than_seven_topics
"""


@pytest.fixture
def faulty_workers(monkeypatch, tmp_path):
    """Workers that are started now cannot compute seven topics."""
    (tmp_path / "faulty.py").write_text(FAULTY, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DISTCORPUS_KERNELS", "faulty")


def seven_topics(documents, dictionary):
    """Return the error of a training run of seven topics."""
    with pytest.raises(RuntimeError) as caught:
        LdaModel(documents, id2word=dictionary, num_topics=7, random_state=1, distributed=True)
    return str(caught.value)


def test_job_that_raises(faulty_workers, own_cluster, lee_corpus):
    """An error on a worker reaches the client with its name and traceback; the cluster serves the next."""
    message = seven_topics(lee_corpus.counts, lee_corpus.dictionary)
    assert "chunk 0, documents 0-" in message
    assert own_cluster.workers[0].name in message
    assert "Traceback" in message
    assert "ArithmeticError: seven topics" in message
    train_lda(lee_corpus, lee_corpus.counts)


def test_worker_with_a_tiny_cache(lee_corpus):
    """A worker that cannot keep one job's blocks is sent them again each time, and the result is the same."""
    with LocalCluster(n_workers=1) as cluster:
        quiet = train_lsi(lee_corpus, lee_corpus.tfidf)
        environment = {**os.environ, **cluster.environ()}
        command = [
            sys.executable,
            "-m",
            "distcorpus",
            "worker",
            "--no-broadcast",
            "--cache",
            "0",
            "--name",
            "small",
        ]
        small = start(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: len(cluster.dispatcher.status()["workers"]) == 2, "its joining")
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            wait_until(lambda: len(cluster.dispatcher.status()["workers"]) == 1, "the loss of the other")
            assert train_lsi(lee_corpus, lee_corpus.tfidf) == quiet
        finally:
            small.terminate()
            assert small.wait(30) == 0


def test_tries_are_counted_by_worker(faulty_workers, lee_corpus):
    """On one worker as on two: three tries, which are not three workers."""

    def error():
        return seven_topics(lee_corpus.counts[:20], lee_corpus.dictionary)

    with LocalCluster(n_workers=1) as cluster:
        first = cluster.workers[0].name
        assert f"chunk 0, documents 0-19: failed in 3 tries, on worker {first} (3); the last" in error()
        cluster.scale(2)
        second = cluster.workers[1].name
        pair = {f"{first} (2), {second}", f"{second} (2), {first}"}
        said = error()
        assert any(f"failed in 3 tries, on workers {names}; the last" in said for names in pair)


@pytest.mark.long
@pytest.mark.parametrize("train", [train_lda, train_lsi])
def test_thirty_workers_join_and_leave(lee_corpus, train):
    """Some in order, some killed, in the middle of one training after another; each has the same bytes."""
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    with LocalCluster(n_workers=1) as cluster, ThreadPoolExecutor(1) as other:
        quiet = train(lee_corpus, documents)
        seen = {cluster.workers[0].name}

        def come_and_go() -> None:
            for number in (8, 2, 9, 1, 9, 3, 8):
                if number > len(cluster.workers):
                    os.kill(cluster.workers[0].pid, signal.SIGKILL)
                cluster.scale(number)
                seen.update(worker.name for worker in cluster.workers)

        coming = other.submit(come_and_go)
        while not coming.done():
            assert train(lee_corpus, documents) == quiet
        coming.result()
        assert len(seen) > 30
        names = {worker.name for worker in cluster.workers}
        wait_until(
            lambda: {worker["name"] for worker in cluster.dispatcher.status()["workers"]} == names,
            "the leave of the others",
        )
        assert train(lee_corpus, documents) == quiet

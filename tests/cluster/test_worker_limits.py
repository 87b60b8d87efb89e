"""What a worker takes memory for: what a job brings, not what it states; and not for longer than needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gensim.models import LdaModel, LsiModel

from distcorpus import LocalCluster
from distcorpus.cluster import LEAVE_TIMEOUT
from distcorpus.wire import close, connect, find, list_names, names
from distcorpus.wire.frames import encode
from distcorpus.worker.daemon import Worker

from ..template import start
from .conftest import wait_until
from .test_worker import job

linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="it is measured as Linux does it"
)
LSI = {"width": 2, "grid": 2.0**-20, "dtype": "float32", "weights": None}
HUGE = 250_000_000


def memory(pid, what):
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[what].split()[0]) * 1024


@contextmanager
def peak(pid, limit):
    """The block must not make a process take `limit` bytes more than it has."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = memory(pid, "VmRSS")
    yield
    taken = memory(pid, "VmHWM") - before
    print(f"{taken / 1e6:.1f} MB")
    assert taken < limit


@contextmanager
def worker_of(cluster, *options, name="measured", variables=None):
    """One more worker, in its own process; yields its id."""
    command = [sys.executable, "-m", "distcorpus", "worker", "--no-broadcast", "--name", name, *options]
    before = len(cluster.dispatcher.status()["workers"])
    process = start(
        command,
        env={**os.environ, **cluster.environ("worker"), **(variables or {})},
        stdout=subprocess.DEVNULL,
    )
    try:
        # On a machine, or for a CPU, that is new it compiles its kernels first.
        wait_until(lambda: len(cluster.dispatcher.status()["workers"]) == before + 1, "its joining", 500.0)
        yield process.pid
    finally:
        process.terminate()
        assert process.wait(LEAVE_TIMEOUT) == 0  # the job under way, which may be compiling, is finished


def uri_of(cluster, name="measured"):
    environ = cluster.environ()
    ns = find(environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"]), broadcast=False)
    return list_names(ns)[names.worker(name)]


@pytest.mark.long
@linux
@pytest.mark.parametrize("kernel", ["lda", "lsi"])
def test_few_bytes_that_state_a_large_vocabulary(cluster, kernel):
    """They are computed, and rightly: a vocabulary may be large, and a document has few of its words."""
    params = job()["params"] if kernel == "lda" else LSI
    documents = np.array([0, 2]), np.array([7, HUGE - 1], np.int32), np.array([1, 2], np.float32)
    words, rows = np.array([7, HUGE - 1], np.int32), np.array([[1, 2], [3, 4]], np.float32)
    with worker_of(cluster) as pid:
        proxy = connect(uri_of(cluster))
        small = job(kernel=kernel, params=params, payload={0: documents}, words=words, rows=rows, keep=True)
        expected = proxy.process(
            {
                **small,
                "payload": {0: (documents[0], np.array([0, 1], np.int32), documents[2])},
                "words": np.array([0, 1], np.int32),
            }
        )["partial"][1]
        with peak(pid, 16e6):
            for number in range(3):
                message = {**small, "num_terms": HUGE, "session": f"stated-{number}", "lease": f"s-{number}"}
                assert len(bytes(encode(("x", "process", (message,), {})))) < 2500
                found, steps, _ = proxy.process(message)["partial"]
                np.testing.assert_array_equal(found, words)
                np.testing.assert_array_equal(steps, expected)
        close(proxy)


def broadcast(session, nbytes):
    """A job that leaves so many bytes in a worker."""
    rows = np.ones((nbytes // 400, 100), np.float32)
    words = np.arange(len(rows), dtype=np.int32)
    params = {**job()["params"], "alpha": np.ones(100), "totals": np.ones(100)}
    return job(
        session=session,
        num_terms=len(rows),
        params=params,
        words=words,
        rows=rows,
        blocks=[],
        payload={},
    )


@linux
@pytest.mark.long
def test_all_that_is_kept_is_within_the_cache(cluster):
    with worker_of(cluster, "--cache", "0.03") as pid:
        proxy = connect(uri_of(cluster))
        proxy.process(broadcast("first", 10 << 20))
        with peak(pid, 150e6):
            for number in range(40):
                proxy.process(broadcast(f"session-{number}", 10 << 20))
                assert proxy.status()["cached_bytes"] <= 0.03 * 2**30
        close(proxy)


def test_what_a_stranger_leaves_goes_with_its_connection(cluster, lee_corpus):
    with worker_of(cluster):
        watching = connect(uri_of(cluster))
        strangers = [connect(uri_of(cluster)) for _ in range(2)]
        for proxy in strangers:
            proxy.process(broadcast("shared", 1 << 20))
        strangers[0].process(broadcast("alone", 2 << 20))
        assert watching.status()["cached_bytes"] > 3 << 20
        close(strangers[0])
        wait_until(lambda: watching.status()["cached_bytes"] < 2 << 20, "the end of what one alone left")
        assert watching.status()["cached_bytes"] > 1 << 20
        close(strangers[1])
        wait_until(lambda: watching.status()["cached_bytes"] == 0, "the end of all")
        close(watching)


@pytest.mark.long
def test_what_a_killed_dispatcher_leaves_goes(lee_corpus):
    with LocalCluster(0) as cluster, worker_of(cluster):
        model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
        watching = connect(uri_of(cluster))
        assert watching.status()["cached_bytes"] > 0
        os.kill(cluster.dispatcher_pid, signal.SIGKILL)
        wait_until(lambda: watching.status()["cached_bytes"] == 0, "the end of its documents")
        close(watching)
        del model


def train(corpus):
    options = {"id2word": corpus.dictionary, "distributed": True}
    lsi = LsiModel(corpus.tfidf, num_topics=20, chunksize=10, **options)
    options |= {"update_every": 0, "random_state": 1, "eval_every": None}
    lda = LdaModel(corpus.counts, num_topics=30, chunksize=20, passes=2, **options)
    return lda.state.sstats.tobytes(), lsi.projection.u.tobytes()


@pytest.fixture(scope="module")
def quiet(cluster, lee_corpus):
    return train(lee_corpus)


@pytest.mark.long
@pytest.mark.parametrize("cache", ["0", "0.0003"])
def test_a_small_cache_makes_no_difference(quiet, lee_corpus, cache):
    """Nor does anything wait for rows that were given up."""
    with LocalCluster(0) as cluster, worker_of(cluster, "--cache", cache):
        assert train(lee_corpus) == quiet
        waited = [
            record["queue_seconds"]
            for session in cluster.dispatcher.recorded_sessions()
            for record in cluster.dispatcher.records(session)
        ]
        assert max(waited) < 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "other", "params": {}}, "no kernel is called 'other'"),
        ({"num_terms": 2**31}, "num_terms"),
        ({"num_terms": 2.0}, "num_terms"),
        ({"kernel": "lsi", "params": {**LSI, "width": 1 << 40}}, "width"),
        ({"kernel": "lsi", "params": {**LSI, "width": 3}}, "width"),
        ({"round": "1"}, "round"),
        ({"rows": np.ones((2, 2), np.float16)}, "rows"),
        ({"rows": np.ones((1, 2))}, "rows of shape"),
        ({"words": np.array([0, 0], np.int32)}, "words"),
        ({"words": np.array([1, 0], np.int32)}, "words"),
        ({"words": np.array([0, 2], np.int32)}, "words"),
        ({"words": np.array([-1, 1], np.int32)}, "words"),
        ({"words": [0, 1]}, "words"),
        ({"kernel": "lsi", "params": {**LSI, "dtype": "S1000000"}}, "dtype"),
        ({"params": LSI}, "unexpected keyword"),
        ({"params": {**job()["params"], "alpha": np.ones(3)}}, "alpha"),
        ({"params": {**job()["params"], "totals": np.ones(1)}}, "totals"),
        ({"blocks": [(0, (0, 0))] * 2}, "twice"),
        ({"blocks": []}, "does not have"),
        (
            {"payload": {0: (np.zeros(514, np.int8), np.empty(0, np.int32), np.empty(0, np.float32))}},
            "513 documents",
        ),
    ],
)
def test_job_that_contradicts_itself(changes, message):
    worker = Worker("a worker")
    with pytest.raises((TypeError, ValueError), match=message):
        worker.process(job(**changes))
    assert worker.status()["cached_bytes"] == 0
    assert "partial" in worker.process(job())


def test_documents_that_would_take_all_memory():
    """Each of them has a row of its own while it is computed."""
    worker = Worker("a worker", cache_bytes=0)
    number, width = 5_000, 30_000
    documents = np.arange(number + 1), np.zeros(number, np.int32), np.ones(number, np.float32)
    rows = np.ones((1, width), np.float32)
    words = np.zeros(1, np.int32)
    params = {**LSI, "width": width}
    with pytest.raises(ValueError, match=r"block 0: 5000 documents.*1\.2 GB.*--cache"):
        worker.process(job(kernel="lsi", params=params, payload={0: documents}, words=words, rows=rows))


def same(blocks, arrays):
    """A job of so many blocks, all of them with the same documents."""
    return job(
        num_terms=int(arrays[1].max(initial=1)) + 1,
        blocks=[(number, (0, number)) for number in range(blocks)],
        payload=dict.fromkeys(range(blocks), arrays),
        keep=True,
    )


def aliases(entries):
    """Documents as a forged message may bring them: arrays of their own, in the same memory."""
    indices, data = bytearray(4 * entries), bytearray(4 * entries)
    return lambda: (
        np.array([0, entries]),
        np.ndarray(entries, np.int32, indices),
        np.ndarray(entries, np.float32, data),
    )


NO_DOCUMENTS = np.array([0]), np.empty(0, np.int32), np.empty(0, np.float32)


@linux
@pytest.mark.parametrize("blocks", [300, 100_000])
def test_one_document_in_many_blocks_is_refused_before_it_is_copied(cluster, blocks):
    entries = 250_000
    document = np.array([0, entries]), np.arange(entries, dtype=np.int32), np.ones(entries, np.float32)
    message = same(blocks, document if blocks == 300 else NO_DOCUMENTS)
    size = len(bytes(encode(("x", "process", (message,), {}))))
    with worker_of(cluster) as pid:
        proxy, other = connect(uri_of(cluster)), connect(uri_of(cluster))
        proxy.process(job())  # what the first loads is no fault of the next
        pings = []
        with peak(pid, (16 << 20) + 64 * size):
            thread = threading.Thread(target=refused, args=(proxy, message, said := []))
            thread.start()
            while thread.is_alive() or not pings:  # it may have been refused before the first
                began = time.perf_counter()
                other.ping()
                pings.append(time.perf_counter() - began)
            thread.join()
        assert max(pings) < 0.5
        assert said
        close(proxy)
        close(other)


def refused(proxy, message, said):
    with pytest.raises(ValueError, match="many times") as error:
        proxy.process(message)
    said.append(str(error.value))


def test_arrays_of_one_buffer_are_one_document():
    forged, message = aliases(200_000), same(400, NO_DOCUMENTS)
    message["payload"] = {number: forged() for number in range(400)}
    with pytest.raises(ValueError, match="400 blocks that take 640 MB, and only"):
        Worker("w").process(message)


def test_small_blocks_are_kept_with_what_each_takes():
    worker = Worker("w", cache_bytes=500 << 10)
    worker.process(same(1000, NO_DOCUMENTS))
    assert 400 << 10 < worker.status()["cached_bytes"] <= 500 << 10


@pytest.mark.parametrize(
    "leases",
    [["x"] * 1001, ["x" * 201], [str(number) for number in range(100_000)]],
    ids=["many", "long", "most"],
)
def test_what_is_cancelled_is_bounded(leases):
    worker = Worker("w")
    with pytest.raises(ValueError, match=r"takes back up to 1,000 of up to 200"):
        worker.cancel(leases)
    assert not worker._cancelled
    for first in range(0, 5000, 500):
        worker.cancel([str(number) for number in range(first, first + 500)])
    assert list(worker._cancelled) == [str(number) for number in range(4000, 5000)]


def test_what_a_connection_has_cancelled_goes_with_it(monkeypatch):
    worker = Worker("w")
    here, there = object(), object()
    for connection, lease in ((here, "a"), (there, "b"), (here, "c")):
        monkeypatch.setattr(
            "distcorpus.worker.daemon.current_connection", lambda connection=connection: connection
        )
        worker.cancel([lease])
    worker.disconnected(here)
    assert list(worker._cancelled) == ["b"]


@pytest.mark.parametrize("name", ["session", "lease"])
def test_names_of_jobs_are_short(name):
    with pytest.raises(ValueError, match=rf"{name}: 201 characters, and up to 200"):
        Worker("w").process(job(**{name: "x" * 201}))


def test_sessions_that_a_worker_knows_are_bounded(monkeypatch):
    monkeypatch.setattr("distcorpus.worker.daemon.SESSIONS_KEPT", 2)
    worker = Worker("w")
    connection = object()
    monkeypatch.setattr("distcorpus.worker.daemon.current_connection", lambda: connection)
    for number in range(5):
        worker.process(job(session=f"s{number}"))
    assert list(worker._users) == ["s3", "s4"]

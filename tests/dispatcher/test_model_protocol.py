"""The protocol of our own models over real connections: calls that meet others on the same connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from distcorpus.algorithms.chunk import as_chunk
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLsi
from distcorpus.dispatcher.model_protocol import ModelLsi
from distcorpus.engines.pyro import PyroEngine
from distcorpus.wire import Daemon, abort, connect, expose
from distcorpus.worker.daemon import Worker

from ..cluster.conftest import wait_until

NUM_TERMS = 30
MATRIX = scipy.sparse.csc_matrix(np.random.default_rng(0).poisson(0.5, (NUM_TERMS, 20)).astype(float))
VALUES = np.linalg.svd(MATRIX.toarray(), compute_uv=False)[:3]
TASK = {"num_terms": NUM_TERMS, "num_topics": 3}


class Gated(Worker):
    """A worker that computes only while its gate is open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.gate = threading.Event()
        self.reached = threading.Event()

    @expose
    def process(self, job: dict[str, Any]) -> dict[str, Any]:
        self.reached.set()
        assert self.gate.wait(30)
        return super().process(job)


class Cluster:
    """A dispatcher and a worker in this process."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.worker = Gated("w")
        uri = self.daemon.serve("w", self.worker)
        self.engine = PyroEngine(lambda: {"w": uri})
        self.dispatcher = Dispatcher(self.engine)
        self.uris = {
            cls: self.daemon.serve_each(cls.__name__, cls, lambda cls=cls: cls(self.dispatcher))
            for cls in (ModelLsi, GensimLsi)
        }
        self.daemon.start()
        self.engine.start()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.worker.gate.set()
    cluster.daemon.stop(grace=1.0)
    cluster.engine.stop()


def arrays() -> tuple[Any, Any, Any]:
    chunk = as_chunk(MATRIX, NUM_TERMS)
    return chunk.indptr, chunk.indices, chunk.data


def sessions() -> list[str]:
    """The names of the threads that factorise."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lsi-")]


@pytest.mark.parametrize(
    "call",
    [("begin", TASK), ("put", *arrays()), ("go_on", "token")],
    ids=["begin", "put", "go_on"],
)
def test_a_call_beside_finish_is_an_error_and_harms_nothing(cluster, call):
    proxy = connect(cluster.uris[ModelLsi])
    proxy.begin(TASK)
    proxy.put(*arrays())
    assert proxy.finish(0.05)["factors"] is None
    method, *arguments = call
    with pytest.raises(RuntimeError, match=rf"{method}\(\) while finish\(\) is under way"):
        getattr(proxy, method)(*arguments)
    cluster.worker.gate.set()
    wait_until(lambda: proxy.finish(10.0)["factors"] is not None, "the factors")
    np.testing.assert_allclose(proxy.finish(1.0)["factors"][1], VALUES, rtol=1e-4)
    # When it is done, another one may begin.
    proxy.begin(TASK)
    proxy.put(*arrays())
    np.testing.assert_allclose(proxy.finish(10.0)["factors"][1], VALUES, rtol=1e-4)
    proxy._pyroRelease()


def test_who_waits_for_a_session_that_ends_is_told(cluster):
    """The thread that factorises ends with the connection, though its round never will."""
    before = sessions()
    proxy = connect(cluster.uris[ModelLsi])
    proxy.begin(TASK)
    proxy.put(*arrays())
    assert proxy.finish(0.05)["factors"] is None
    assert len(sessions()) == len(before) + 1
    abort(proxy)
    proxy._pyroRelease()
    wait_until(lambda: sessions() == before, "the end of the thread", 5)
    assert not cluster.worker.gate.is_set()


def test_two_threads_with_one_proxy_take_turns(cluster):
    """gensim's protocol: what the second asks for comes after the first's answer, which is right."""
    proxy = connect(cluster.uris[GensimLsi], serializer="pickle")
    proxy.initialize(id2word=dict.fromkeys(range(NUM_TERMS), "w"), num_topics=3)
    proxy.reset()
    proxy.putjob(MATRIX)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(proxy.getstate)
        assert cluster.worker.reached.wait(10)
        second = threads.submit(proxy.reset)
        cluster.worker.gate.set()
        np.testing.assert_allclose(first.result(20).s, VALUES, rtol=1e-4)
        second.result(20)
    proxy.putjob(MATRIX)
    np.testing.assert_allclose(proxy.getstate().s, np.sqrt(2) * VALUES, rtol=1e-4)
    proxy._pyroRelease()

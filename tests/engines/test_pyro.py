"""Our Pyro4 engine in this process: real workers behind real sockets, and faults of the dispatcher itself."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.algorithms.summation import GridSum
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLsi
from distcorpus.engines import pyro
from distcorpus.engines.pyro import PyroEngine
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.kernels import Product, ProductParams
from distcorpus.training.lsi import LsiTask, LsiTraining, train
from distcorpus.training.session import Session
from distcorpus.wire import Daemon, close, connect, expose
from distcorpus.worker.daemon import Worker

NUM_TERMS = 30


def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def chunk(seed: int = 0) -> Chunk:
    random = np.random.default_rng(seed)
    return as_chunk(
        scipy.sparse.csc_array(random.poisson(0.5, (NUM_TERMS, 20)).astype(np.float32)), NUM_TERMS
    )


class Watched(Worker):
    """A worker that counts the jobs that reach it."""

    calls = 0

    @expose
    def process(self, job: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        return super().process(job)


class Workers:
    """Worker objects, and where the engine is told that they are."""

    def __init__(self) -> None:
        self.daemons: list[Daemon] = []
        self.registered: dict[str, str] = {}

    def add(self, worker: Any) -> Any:
        """Serve a worker, at a port of its own as each has."""
        daemon = Daemon()
        self.daemons.append(daemon)
        self.registered[worker.name] = daemon.serve(worker.name, worker)
        daemon.start()
        return worker

    def __call__(self) -> dict[str, str]:
        return dict(self.registered)


@pytest.fixture
def workers() -> Iterator[Workers]:
    served = Workers()
    yield served
    for daemon in served.daemons:
        daemon.stop(grace=0.1)


@pytest.fixture
def engine(workers: Workers) -> Iterator[PyroEngine]:
    engine = PyroEngine(workers)
    engine.start()
    yield engine
    engine.stop()


class Products(Session):
    kernel = Product

    def round(self, rows: Callable[[Any], Any], number: int = 1) -> Any:
        round_ = self.open_sum(
            ProductParams(4, 2.0**-20, "float32", None),
            GridSum(NUM_TERMS, 4, 2.0**-20),
            rows,
            keep_blocks=True,
        )
        for seed in range(number):
            self.add(round_, self.keep(chunk(seed)))
        self.seal(round_)
        return round_


def fine(words: Any) -> Any:
    return np.ones((len(words), 4), np.float32)


def spilt(words: Any) -> Any:
    raise KeyError("what was never there")


def unfit(words: Any) -> Any:
    rows: Any = np.empty((len(words), 4), object)  # of a dtype that cannot be sent
    rows[:] = threading.Lock()
    return rows


@pytest.mark.parametrize("what", ["connect a", "ping a", "drive a"])
def test_a_worker_that_no_thread_can_be_started_for_joins_later(workers, engine, monkeypatch, what):
    """And is handed nothing that nobody would carry to it."""
    real = threading.Thread.start
    failed: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == what and not failed:
            failed.append(what)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.1)
    with Products("s", engine, NUM_TERMS) as session:
        round_ = session.round(fine, 3)
        workers.add(Watched("a"))
        round_.wait()
    assert failed
    until(lambda: engine.num_workers == 1)


@pytest.mark.parametrize(("rows", "error"), [(spilt, "KeyError: 'what was never there'"), (unfit, "Error: ")])
def test_a_fault_of_the_dispatcher_is_its_own(workers, engine, caplog, rows, error):
    """It fails at once, with its traceback in the log and in the error; no worker is tried or blamed."""
    there = [workers.add(Watched(name)) for name in "abc"]
    until(lambda: engine.num_workers == 3)
    with Products("s", engine, NUM_TERMS) as session, caplog.at_level(logging.WARNING):
        round_ = session.round(rows, 9)
        with pytest.raises(RuntimeError, match="the dispatcher itself failed") as raised:
            round_.wait()
        message = str(raised.value)
        assert message.startswith("chunk ")
        assert error in message
        assert "Traceback (most recent call last)" in message
        assert "worker a" not in message
        assert [worker.calls for worker in there] == [0, 0, 0]
        assert any(record.exc_info for record in caplog.records if "the dispatcher failed" in record.message)
        # The session, its workers and other sessions are as they were.
        again = session.round(fine, 9)
        again.wait()
        assert again.chunks_done() == 9
    assert {worker.state for worker in engine.workers()} == {"ready"}


def test_a_sum_that_is_too_large_is_the_error_of_threads_and_not_tried_again(workers, engine, monkeypatch):
    """With the term as the documents have it, though workers see terms by their positions."""
    there = [workers.add(Watched(name)) for name in "abc"]
    until(lambda: engine.num_workers == 3)
    documents = as_chunk([[(5, 1.0), (7, 1e200)]], NUM_TERMS)
    monkeypatch.setattr(Product, "check", lambda *arguments: None)
    errors = []
    with ThreadsEngine(1) as threads:
        for engine_ in (threads, engine):
            with Products("s", engine_, NUM_TERMS) as session:
                total = GridSum(NUM_TERMS, 4, 2.0**-20)
                round_ = session.open_sum(ProductParams(4, 2.0**-20, "float64", None), total, fine)
                session.add(round_, session.keep(documents))
                session.seal(round_)
                with pytest.raises(OverflowError) as raised:
                    round_.wait()
                errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert errors[0].startswith("chunk 0, documents 0-0: term id 5: a sum exceeds 2**53 steps")
    assert sum(worker.calls for worker in there) == 1


def test_such_a_fault_reaches_the_client(workers, engine, monkeypatch):
    """gensim's protocol: the error arrives, and the connection serves its next addition."""
    workers.add(Worker("a"))
    until(lambda: engine.num_workers == 1)
    dispatcher = Dispatcher(engine)
    daemon = Daemon()
    uri = daemon.serve_each("lsi", GensimLsi, lambda: GensimLsi(dispatcher))
    daemon.start()
    proxy = connect(uri, serializer="pickle")
    job = scipy.sparse.csc_matrix(np.random.default_rng(0).poisson(0.5, (NUM_TERMS, 20)).astype(float))
    try:
        proxy.initialize(id2word=dict.fromkeys(range(NUM_TERMS), "w"), num_topics=3)
        with monkeypatch.context() as patched:
            patched.setattr(pyro, "words_in", spilt_words)
            proxy.reset()
            proxy.putjob(job)
            with pytest.raises(RuntimeError, match="the dispatcher itself failed") as raised:
                proxy.getstate()
        assert "OverflowError: of words" in str(raised.value)
        proxy.reset()
        proxy.putjob(job)
        values = np.linalg.svd(job.toarray(), compute_uv=False)[:3]
        np.testing.assert_allclose(proxy.getstate().s, values, rtol=1e-4)
    finally:
        close(proxy)
        daemon.stop(grace=0.1)


def spilt_words(*arguments: Any) -> Any:
    raise OverflowError("of words")


class Liar(Worker):
    """A worker that answers jobs with what is no answer."""

    answer: Any = None

    @expose
    def process(self, job: dict[str, Any]) -> dict[str, Any]:
        return {**self.answer, "lease": job["lease"]} if type(self.answer) is dict else self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "it is a NoneType"),
        ({}, "partial"),
        ({"missing": []}, "what it says it is missing is not of the job"),
        ({"partial": 3, "seconds": {}}, "cannot unpack"),
        ({"missing": [], "rows_missing": True}, "20 times it missed what it had just been sent"),
    ],
    ids=str,
)
def test_a_worker_that_gives_no_answer_is_expelled(workers, engine, answer, said, caplog):
    """It is named in the log, and another one computes its job: nobody is asked for the same for ever."""
    workers.add(Liar("liar")).answer = answer
    until(lambda: engine.num_workers == 1)
    with Products("s", engine, NUM_TERMS) as session:
        round_ = session.round(fine)
        until(lambda: engine.num_workers == 0)
        workers.add(Worker("honest"))
        round_.wait()
    (line,) = [record.getMessage() for record in caplog.records if "false answer" in record.getMessage()]
    assert "liar" in line
    assert said in line


def test_a_session_gets_the_kind_that_has_the_most_threads(workers, engine):
    """Of all that are ready, not of any that there is."""
    for name, threads, kernels in (("a", 1, "numba 9.9"), ("b", 2, "numba 0.1"), ("c", 1, "numba 0.1")):
        workers.add(Worker(name, threads)).kernels = kernels
    until(lambda: engine.num_workers == 3)
    with Session("s", engine, NUM_TERMS):
        assert engine.kernels_of("s") == "numba 0.1"


def test_results_are_those_of_this_process(workers, engine):
    for name in "ab":
        workers.add(Worker(name))
    until(lambda: engine.num_workers == 2)
    task, chunks = LsiTask(NUM_TERMS, 3), [chunk(seed) for seed in range(5)]
    with ThreadsEngine(1) as threads:
        expected = train(threads, task, chunks)
    with LsiTraining("s", engine, task) as training:
        for one in chunks:
            training.put(one)
        for found, wanted in zip(training.finish(), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


class Refusing(Worker):
    """What is no worker of ours."""

    @expose
    def status(self) -> dict[str, Any]:
        return {}


def test_addresses_that_never_answer_keep_no_worker_out(workers, monkeypatch):
    """They are many more than are connected to at once, and may be tried again before all have been."""
    monkeypatch.setattr(pyro, "DISCOVER_EVERY", 0.01)
    monkeypatch.setattr(pyro, "connect", partial(connect, connect_timeout=0.5))
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.1)
    monkeypatch.setattr(pyro, "MAX_CONNECTING", 4)
    engine = PyroEngine(workers)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections come about, and nobody says anything
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        workers.registered = {f"a{number:02}": f"PYRO:a{number:02}@{address}" for number in range(30)}
        workers.add(Worker("honest"))
        engine.start()
        try:
            until(lambda: engine.num_workers == 1)
        finally:
            engine.stop()


def test_names_that_come_and_go_leave_nothing(workers, monkeypatch, caplog):
    """Workers that cannot be used register under new names again and again, while others are found."""
    monkeypatch.setattr(pyro, "DISCOVER_EVERY", 0.005)
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.01)
    monkeypatch.setattr(pyro, "MAX_CONNECTING", 4)
    engine = PyroEngine(workers)
    workers.add(Refusing("bad"))
    bad = workers.registered.pop("bad")
    workers.registered["always"] = bad
    most = 0

    def names(number: int) -> list[str]:
        return [f"bad-{number}-{place}" for place in range(20)]

    def known() -> set[str]:
        with engine._lock:
            return {name for name, _ in (*engine._refused, *engine._complained)} | set(engine._connecting)

    with caplog.at_level(logging.DEBUG, logger="distcorpus.engines.pyro"):
        engine.start()
        try:
            for number in range(10):
                workers.registered = {"always": bad, **dict.fromkeys(names(number), bad)}
                until(lambda number=number: any(name.startswith(f"bad-{number}-") for name in known()))
                with engine._lock:
                    most = max(most, len(engine._connecting))
            workers.registered = {"always": bad}
            workers.add(Worker("good"))
            until(lambda: engine.num_workers == 1)
            until(lambda: known() <= {"always", "good"})
        finally:
            engine.stop()
    assert most <= 4
    assert "unexpected" not in caplog.text
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("worker always at" in record.message for record in warnings) == 1


def test_one_address_is_one_worker(workers, monkeypatch, caplog):
    """A process that is registered under many names takes the threads of one."""
    monkeypatch.setattr(pyro, "DISCOVER_EVERY", 0.01)
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.05)
    engine = PyroEngine(workers)
    workers.add(Worker("w"))
    uri = workers.registered.pop("w")
    many = {f"x{number:02}": uri for number in range(20)}
    workers.registered = dict(many)
    workers.add(Worker("another"))
    engine.start()
    try:
        until(lambda: engine.num_workers == 2 and len(engine.refused_workers()) == 19)
        time.sleep(0.2)
        names = [worker.name for worker in engine.workers()]
        assert sorted(names)[0] == "another"
        (chosen,) = [name for name in names if name != "another"]
        refused = engine.refused_workers()
        assert set(refused) == set(many) - {chosen}
        assert all(
            f"there is worker {chosen}, and one address is one worker" in said for said in refused.values()
        )
        assert sum(thread.name.startswith(("ping x", "drive x")) for thread in threading.enumerate()) == 3
        assert sum("cannot be used" in record.message for record in caplog.records) == 19
        # Its place is another's when it is gone.
        del workers.registered[chosen]
        with engine._lock:
            engine._lose(engine._links[chosen], "for this test")
        until(lambda: engine.num_workers == 2)
    finally:
        engine.stop()


def test_there_are_so_many_workers_and_no_more(workers, monkeypatch):
    monkeypatch.setattr(pyro, "DISCOVER_EVERY", 0.01)
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.05)
    engine = PyroEngine(workers, max_workers=2)
    for name in "abcd":
        workers.add(Worker(name))
    engine.start()
    try:
        until(lambda: len(engine.refused_workers()) == 2)
        assert engine.num_workers == 2
        assert all("larger --max-workers" in said for said in engine.refused_workers().values())
    finally:
        engine.stop()


@pytest.mark.parametrize("failing", ["connect", "ping", "drive"])
def test_a_worker_for_which_there_is_no_thread_is_none(workers, monkeypatch, caplog, failing):
    """It joins when there are threads again; until then it has no link that nobody serves."""
    monkeypatch.setattr(pyro, "DISCOVER_EVERY", 0.01)
    monkeypatch.setattr(pyro, "RETRY_AFTER", 0.05)
    full = threading.Event()
    full.set()

    class Thread(threading.Thread):
        def start(self) -> None:
            if full.is_set() and self.name.startswith(failing):
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(pyro.threading, "Thread", Thread)
    engine = PyroEngine(workers)
    workers.add(Worker("a"))
    engine.start()
    try:
        until(lambda: engine.refused_workers() == {"a": "can't start new thread"})
        full.clear()
        until(lambda: engine.num_workers == 1)
        with Products("s", engine, NUM_TERMS) as session:
            session.round(fine).wait()
    finally:
        engine.stop()
    assert "unexpected" not in caplog.text

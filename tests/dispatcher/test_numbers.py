"""Numbers that programs send in otherwise valid messages: no worker is expelled, and none kept for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import pytest
from gensim.models.ldamodel import LdaState
from gensim.utils import FakeDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distcorpus.algorithms.chunk import as_chunk
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.engines.pyro import PyroEngine
from distcorpus.wire import Daemon, SlicedCalls, abort, connect, slices
from distcorpus.worker.daemon import Worker

from ..cluster.conftest import wait_until
from ..messages import PLAN, START

TERMS, TOPICS = 20, 3
CHUNK = as_chunk([[(i, 1), (i + 7, 2), (19, 1)] for i in range(8)], TERMS, counts=True)
ARRAYS = CHUNK.indptr, CHUNK.indices, CHUNK.data
ENDLESS = {"iterations": 2**50, "gamma_threshold": 0.0}


class Cluster:
    """A dispatcher and a worker in this process."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.worker = Worker("w")
        self.uri = self.daemon.serve("w", self.worker)
        self.engine = PyroEngine(lambda: {"w": self.uri})
        self.dispatcher = Dispatcher(self.engine)
        self.uris = {
            cls: self.daemon.serve_each(cls.__name__, cls, lambda cls=cls: cls(self.dispatcher))
            for cls in (ModelLda, ModelLsi, GensimLda)
        }
        self.daemon.start()
        self.engine.start()

    def is_whole(self) -> bool:
        """Whether the worker is there, and nothing is said against it."""
        return [worker.state for worker in self.engine.workers()] == ["ready"] and (
            not self.engine.unusable_workers()
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.engine.stop()
    cluster.daemon.stop(grace=1.0)


@contextmanager
def connected(cluster: Cluster, cls: type) -> Iterator[Any]:
    proxy = connect(cluster.uris[cls])
    yield proxy
    proxy._pyroRelease()


def topics(**changes: Any) -> dict[str, Any]:
    table = np.random.default_rng(0).random((TERMS, TOPICS)).astype(np.float32)
    return {"eta": np.full(TERMS, 0.1, np.float32), "table": table, "numdocs": 8, **changes}


def training(**changes: Any) -> dict[str, Any]:
    plan = {**PLAN, "chunksize": 8, "iterations": 20}
    return {
        "topics": topics(scale=1.0, sums=np.full(TOPICS, 9.0)),
        "alpha": np.full(TOPICS, 0.3, np.float32),
        "eta": np.full(TERMS, 0.1, np.float32),
        "num_updates": 0,
        "plan": plan,
        "documents": 8,
        "progress": {**START},
        **changes,
    }


def inference() -> dict[str, Any]:
    params = {
        "alpha": np.full(TOPICS, 0.3),
        "totals": np.full(TOPICS, 12.0),
        "dtype": "float32",
        "iterations": 20,
        "gamma_threshold": 0.001,
        "seed": 1,
    }
    return {"topics": topics(), "params": params, "first": 0}


def train(proxy: Any, task: dict[str, Any], patience: float = 20.0) -> bytes:
    """Train on one chunk, and return the topics."""
    proxy.begin(task)
    proxy.put(*ARRAYS)
    proxy.end()
    seen, deadline = 0, time.monotonic() + patience
    while not (news := proxy.events(seen, 0.5))["done"]:
        seen = news["seen"]
        if time.monotonic() > deadline:
            raise TimeoutError("it trains on")
    return bytes(proxy.fetch()["topics"]["table"].tobytes())


def evaluate(proxy: Any, task: dict[str, Any]) -> None:
    proxy.begin_inference(task)
    proxy.put(*ARRAYS)
    proxy.end()
    proxy.take()


def places(message: dict[str, Any], *above: str) -> list[tuple[str, ...]]:
    """Return where a message has a number, or an array of such."""
    found: list[tuple[str, ...]] = []
    for name, value in message.items():
        if isinstance(value, dict):
            found += places(value, *above, name)
        elif not isinstance(value, str):
            found.append((*above, name))
    return found


def changed(message: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a message with another number in some place; of an array, all or some of them."""
    name, *below = place
    if below:
        return {**message, name: changed(message[name], tuple(below), value)}
    old = message[name]
    if isinstance(old, np.ndarray):
        with np.errstate(over="ignore"):
            new = old.copy()
            new.reshape(-1)[::2] = value
        return {**message, name: new}
    return {**message, name: value}


NUMBERS = [-1, 0, 1, 3, 2**31, 2**50, 2**62, 2**63, 2**70, True]
NUMBERS += [float("nan"), float("inf"), -float("inf"), -5.0, -0.05, 0.0, 1e-45, 1e-30, 1e38, 1e300]
NUMBERS += [np.int8(5), np.uint16(5), np.float32(0.5), np.bool_(True)]
#: What would take its time, by what it says.
SLOW = ("plan", "passes")


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["begin", "begin_inference"]),
    st.integers(0, 50),
    st.sampled_from(NUMBERS),
    st.sampled_from(["vb", "cvb0"]),
    st.booleans(),
)
@example("begin", places(training()).index(("topics", "table")), -5.0, "cvb0", False)
@example("begin", places(training()).index(("topics", "table")), float("nan"), "vb", True)
@example("begin", places(training()).index(("topics", "table")), 1e38, "cvb0", True)
@example("begin", places(training()).index(("topics", "scale")), -1, "cvb0", False)
@example("begin", places(training()).index(("topics", "eta")), -0.05, "vb", False)
@example("begin", places(training()).index(("plan", "iterations")), 2**50, "vb", False)
@example("begin", places(training()).index(("plan", "iterations")), np.int8(5), "vb", False)
def test_a_number_of_any_kind_expels_nobody(cluster, method, at, number, variant, learns):
    wait_until(cluster.is_whole, "a worker")
    with connected(cluster, ModelLda) as proxy:
        honest = train(proxy, training())
    task = training() if method == "begin" else inference()
    if method == "begin":
        task["plan"] |= {
            "variant": variant,
            "optimize_alpha": learns,
            "optimize_eta": learns,
            "eval_chunks": 1,
            "details": learns,
        }
    else:
        task["params"] |= {"variant": variant, "bound": learns}
    where = places(task)
    place = where[at % len(where)]
    if place == SLOW:
        return
    # Whatever becomes of it, but that it takes all iterations that it may.
    errors = ArithmeticError, LookupError, RuntimeError, TimeoutError, TypeError, ValueError
    with connected(cluster, ModelLda) as proxy, suppress(*errors):
        (partial(train, patience=1.0) if method == "begin" else evaluate)(proxy, changed(task, place, number))
    assert cluster.is_whole()
    with connected(cluster, ModelLda) as proxy:
        assert train(proxy, training()) == honest


@pytest.mark.parametrize(
    ("place", "number", "error"),
    [
        (("topics", "table"), -5.0, r"table has numbers from -5 to .*: give finite numbers of 0 or more"),
        (("topics", "table"), np.nan, "table has numbers from nan"),
        (("topics", "eta"), -0.05, "eta has numbers from -0.05"),
        (("topics", "scale"), -1.0, "scale is -1: give finite numbers above 0"),
        (("topics", "scale"), np.nan, "scale=nan: give a finite number"),
        (("topics", "sums"), np.inf, "sums has numbers from"),
        (("topics", "numdocs"), -1, "numdocs=-1"),
        (("alpha",), 0.0, "alpha has numbers from 0 to .*above 0"),
        (("eta",), -1.0, "eta has numbers"),
        (("num_updates",), -10, "num_updates=-10"),
        (("plan", "offset"), 0.5, "offset=0.5: give a finite number, 1 or more"),
        (("plan", "iterations"), True, "iterations is a bool"),
        (("plan", "seed"), 2**63, r"seed=\.\.\.: give a whole number"),
    ],
    ids=str,
)
def test_what_no_training_makes_is_refused_when_it_arrives(cluster, place, number, error):
    with connected(cluster, ModelLda) as proxy:
        with pytest.raises((TypeError, ValueError), match=error):
            proxy.begin(changed(training(), place, number))
        if place[:1] == ("topics",) and place[1] in inference()["topics"]:
            with pytest.raises((TypeError, ValueError), match=error):
                proxy.begin_inference(changed(inference(), place, number))


def test_small_priors_are_none_of_these(cluster):
    task = training(alpha=np.full(TOPICS, 1e-30, np.float32), eta=np.full(TERMS, 1e-30, np.float32))
    task["topics"]["eta"] = task["eta"]
    with connected(cluster, ModelLda) as proxy:
        assert train(proxy, task)


@pytest.mark.parametrize("name", ["sstats", "eta"])
@pytest.mark.parametrize("number", [-5.0, np.nan, np.inf])
def test_of_gensims_state(cluster, name, number):
    state = LdaState(np.full(TERMS, 0.1, np.float32), (TOPICS, TERMS))
    getattr(state, name)[..., 3] = number
    with connected(cluster, GensimLda) as proxy:
        with pytest.raises(ValueError, match="alpha has numbers from -1"):
            proxy.initialize(id2word=FakeDict(TERMS), num_topics=TOPICS, alpha=[1.0, -1.0, 1.0])
        proxy.initialize(id2word=FakeDict(TERMS), num_topics=TOPICS)
        with pytest.raises(ValueError, match=r"the state's .* give finite numbers of 0 or more"):
            proxy.reset(state)


@pytest.mark.parametrize(("at", "number"), [(0, np.nan), (0, np.inf), (1, np.nan), (1, -1.0)])
def test_of_the_base_of_lsi(cluster, at, number):
    base = np.eye(TERMS, 2), np.ones(2)
    base[at].flat[0] = number
    with connected(cluster, ModelLsi) as proxy, pytest.raises(ValueError, match="the base's"):
        proxy.begin({"num_terms": TERMS, "num_topics": 2, "base": base})


def held(cluster: Cluster) -> int:
    return sum(len(look.held) for look in cluster.engine.look())


def threads_of(session: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(session)]


def begin_training(proxy: Any) -> None:
    task = training()
    task["plan"] |= ENDLESS
    proxy.begin(task)


def begin_evaluating(proxy: Any) -> None:
    task = inference()
    task["params"] |= ENDLESS
    proxy.begin_inference(task)


def begin_estimating(proxy: Any) -> None:
    """The dispatcher itself infers the documents, for the perplexity."""
    task = training()
    task["plan"] |= {**ENDLESS, "eval_chunks": 1}
    proxy.begin(task)


@pytest.mark.parametrize("begin", [begin_training, begin_evaluating, begin_estimating])
def test_who_leaves_frees_the_worker(cluster, begin: Callable[[Any], None]):
    wait_until(cluster.is_whole, "a worker")
    proxy = connect(cluster.uris[ModelLda])
    begin(proxy)
    proxy.put(*ARRAYS)
    wait_until(lambda: held(cluster), "its job")
    abort(proxy)
    proxy._pyroRelease()
    wait_until(lambda: not held(cluster) and not threads_of("lda-"), "its end", 20)
    with connected(cluster, ModelLda) as honest:
        assert train(honest, training())
    assert cluster.is_whole()


@pytest.mark.parametrize(("num_terms", "num_topics"), [(10**9, 0), (0, 10**9), (3, 0)])
def test_tables_without_bytes(cluster, num_terms, num_topics):
    task = training(alpha=np.ones(min(num_topics, 10), np.float32))
    with connected(cluster, ModelLda) as proxy:
        task["topics"]["table"] = {slices.MARK: (0, "<f4", (num_terms, num_topics))}
        evaluating = inference()
        evaluating["topics"] = task["topics"]
        evaluating["params"] |= {"alpha": task["alpha"], "totals": task["alpha"]}
        for begin, message in ((proxy.begin, task), (proxy.begin_inference, evaluating)):
            proxy.put_slice(0, 0, 0, np.empty(0, np.uint8))
            with pytest.raises(ValueError, match=r"many rows|num_topics=0"):
                begin(message)
        assert train(proxy, training())


def test_topics_of_no_number(cluster):
    task = training(alpha=np.ones(0, np.float32))
    task["topics"] = topics(table=np.zeros((TERMS, 0), np.float32))
    with connected(cluster, ModelLda) as proxy, pytest.raises(ValueError, match="num_topics=0: give 1 to"):
        proxy.begin(task)


@pytest.mark.parametrize("cls", [ModelLda, ModelLsi])
def test_a_chunk_larger_than_half_a_message(cluster, cls, monkeypatch):
    """It travels in slices, whatever model it is for, to train and to evaluate."""
    random = np.random.default_rng(0)
    documents = [[(int(t), 1) for t in sorted(random.choice(TERMS, 10, replace=False))] for _ in range(600)]
    chunk = as_chunk(documents, TERMS, counts=True)
    arrays = chunk.indptr, chunk.indices, chunk.data
    monkeypatch.setattr(slices, "message_limit", lambda: slices.LEAST_LIMIT)
    assert sum(array.nbytes for array in arrays) > slices.LEAST_LIMIT // 2
    with connected(cluster, cls) as proxy:
        calls = SlicedCalls(proxy)
        if cls is ModelLsi:
            calls("begin", {"num_terms": TERMS, "num_topics": 2})
            calls("put", *arrays)
            wait_until(lambda: calls("finish", 1.0)["factors"] is not None, "the factors")
            return
        calls("begin", training(documents=600))
        calls("put", *arrays)
        calls("end")
        wait_until(lambda: calls("events", 0, 1.0)["done"], "the end")
        calls("begin_inference", inference())
        calls("put", *arrays)
        assert calls("take")["result"].shape == (600, TOPICS)

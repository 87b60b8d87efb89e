"""Lists in lists that are few and unfold to millions: nobody goes through them, wherever they are put.

The reader of messages refuses those that are much larger than their message (tests/wire/test_unpickle.py).
What it lets pass, and what comes from elsewhere, is not looked at by whoever wants something else.
"""

from __future__ import annotations

import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gensim.models.ldamodel import LdaState
from gensim.utils import FakeDict
from Pyro4.core import current_context

from distcorpus.algorithms.chunk import as_chunk
from distcorpus.corpora.reference import Reference
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda, GensimLsi
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.engines.answers import FalseAnswer, read_answer
from distcorpus.engines.base import Block
from distcorpus.engines.pyro import PyroEngine
from distcorpus.kernels import KERNELS
from distcorpus.worker.daemon import Worker

from .messages import PLAN, START

#: 2 ** LEVELS leaves: a second or more for whoever goes through them.
LEVELS = 23
REFUSED = TypeError, ValueError


def unfolding(kind: type, leaf: Any = 1.0) -> Any:
    value = kind([leaf])
    for _ in range(LEVELS):
        value = kind([value, value])
    return value


BOMBS = {"list": unfolding(list), "tuple": unfolding(tuple)}


@pytest.fixture(params=BOMBS)
def bomb(request: pytest.FixtureRequest) -> Any:
    return BOMBS[request.param]


@contextmanager
def at_once() -> Iterator[None]:
    """Fails where something has been gone through."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
    finally:
        seconds = time.process_time() - began
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert seconds < 0.5
    assert peak < 16 << 20


class Client:
    """A connection, as far as a dispatcher looks at it."""

    peer, role = "test", None

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock


@pytest.fixture(scope="module")
def dispatcher() -> Iterator[Dispatcher]:
    near, far = socket.socketpair()
    current_context.client = Client(near)
    engine = type("Engine", (PyroEngine,), {"wait_for_workers": lambda self, timeout: True})(dict)
    with near, far:
        yield Dispatcher(engine)
    current_context.client = None


def begun(front: Any, *arguments: Any) -> Any:
    front.initialize(*arguments)
    return front


def state(**attributes: Any) -> LdaState:
    made = LdaState(np.ones(7), (2, 7))
    vars(made).update(attributes)
    return made


def with_attributes(**attributes: Any) -> FakeDict:
    made = FakeDict(7)
    vars(made).update(attributes)
    return made


#: Calls of the gensim protocol, each with something in the place of what it wants.
GENSIM: dict[str, Callable[[Dispatcher, Any], Any]] = {
    "lda alpha": lambda d, bomb: GensimLda(d).initialize(FakeDict(7), 2, 2000, bomb),
    "lda alpha in a list": lambda d, bomb: GensimLda(d).initialize(FakeDict(7), 2, 2000, [bomb, bomb]),
    "lda id2word": lambda d, bomb: GensimLda(d).initialize(bomb, 2),
    "lda state": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).reset(bomb),
    "lda eta": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).reset(state(eta=bomb)),
    "lda sstats": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).reset(state(sstats=bomb)),
    "lda shape": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).reset(
        state(sstats=with_attributes(shape=bomb))
    ),
    "lda job": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).putjob(bomb),
    "lda document": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).putjob([[(0, 1.0)], bomb]),
    "lda entry": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).putjob([[(0, bomb)]]),
    "lda array and entry": lambda d, bomb: begun(GensimLda(d), FakeDict(7), 2).putjob(
        [np.ones((1, 2)), [(0, bomb)]]
    ),
    "lsi id2word": lambda d, bomb: GensimLsi(d).initialize(bomb, 2),
    "lsi job": lambda d, bomb: begun(GensimLsi(d), FakeDict(7), 2).putjob(bomb),
    "lsi shape": lambda d, bomb: begun(GensimLsi(d), FakeDict(7), 2).putjob(with_attributes(shape=bomb)),
    "lsi shape of a shape": lambda d, bomb: begun(GensimLsi(d), FakeDict(7), 2).putjob(
        with_attributes(shape=(bomb,))
    ),
    "lsi dtype": lambda d, bomb: begun(GensimLsi(d), FakeDict(7), 2).putjob(with_attributes(dtype=bomb)),
    "lsi sparse": lambda d, bomb: begun(GensimLsi(d), FakeDict(7), 2).putjob(with_attributes(sparse=bomb)),
}


@pytest.mark.parametrize("where", GENSIM)
def test_the_protocol_of_gensim_refuses_it_at_once(dispatcher: Dispatcher, where: str, bomb: Any):
    with at_once(), pytest.raises(REFUSED):
        GENSIM[where](dispatcher, bomb)


def test_words_that_are_none_are_not_shown(dispatcher: Dispatcher, bomb: Any):
    front = GensimLda(dispatcher)
    front.initialize({0: "a word\n", 1: bomb, 2: 5}, 2)
    with at_once():
        assert [front._word(number) for number in range(4)] == ["a word", "", "5", ""]


@pytest.mark.parametrize(
    "alpha", [None, "symmetric", 0.5, np.float32(0.5), [0.1, 1], np.array([0.1, 1.0])], ids=str
)
def test_what_gensim_sends_for_alpha_is_taken(dispatcher: Dispatcher, alpha: Any):
    GensimLda(dispatcher).initialize(FakeDict(7), 2, 2000, alpha)


LDA = {
    "topics": {"eta": np.ones(7), "table": np.ones((7, 2)), "scale": 1.0, "sums": None, "numdocs": 5},
    "alpha": np.ones(2),
    "eta": np.ones(7),
    "num_updates": 0,
    "plan": {**PLAN, "variant": "vb"},
    "documents": 5,
    "progress": {**START},
    "pause_every": None,
}
PARAMS = {
    "alpha": np.ones(2),
    "totals": np.ones(2),
    "dtype": "float32",
    "iterations": 5,
    "gamma_threshold": 0.001,
    "seed": 1,
    "variant": "vb",
}
LSI = {
    "num_terms": 7,
    "num_topics": 2,
    "decay": 1.0,
    "dtype": "float32",
    "seed": 0,
    "power_iters": None,
    "extra_samples": None,
    "base": None,
    "squared_weights": (),
    "tolerance": 1e-6,
}


def places(message: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where something stands in a message."""
    for key, value in message.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def replaced(message: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**message, first: replaced(message[first], tuple(rest), value) if rest else value}


def of(message: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("path", [*places(message)], ids=".".join)


@of(LDA)
def test_a_training_that_wants_it_is_refused_at_once(
    dispatcher: Dispatcher, path: tuple[str, ...], bomb: Any
):
    front = ModelLda(dispatcher)
    with at_once(), pytest.raises(REFUSED):
        front.begin(replaced(LDA, path, bomb))
    assert front.begin(LDA)["chunks"] == 0
    front.close()


def test_chunks_that_are_said_to_be_done_take_no_memory(dispatcher: Dispatcher):
    front = ModelLda(dispatcher)
    with at_once():
        assert front.begin(replaced(LDA, ("progress", "chunk"), 10**8))["chunks"] == 10**8
    front.close()


@pytest.mark.parametrize("kept", ["finished", "paused_at", "told", "events"])
def test_what_a_dispatcher_keeps_is_not_said_by_a_program(dispatcher: Dispatcher, kept: str, bomb: Any):
    for value in (bomb, 0, (10**9, 0)):
        with at_once(), pytest.raises(REFUSED):
            ModelLda(dispatcher).begin({**LDA, kept: value})


@of({"topics": LDA["topics"], "params": PARAMS})
def test_an_evaluation_that_wants_it_is_refused_at_once(
    dispatcher: Dispatcher, path: tuple[str, ...], bomb: Any
):
    task = {"topics": LDA["topics"], "params": PARAMS, "first": 0}
    with at_once(), pytest.raises(REFUSED):
        ModelLda(dispatcher).begin_inference(replaced(task, path, bomb))


@of(LSI)
def test_an_addition_that_wants_it_is_refused_at_once(
    dispatcher: Dispatcher, path: tuple[str, ...], bomb: Any
):
    with at_once(), pytest.raises(REFUSED):
        ModelLsi(dispatcher).begin(replaced(LSI, path, bomb))
    with at_once(), pytest.raises(REFUSED):
        ModelLsi(dispatcher).begin({**LSI, "base": (with_attributes(ndim=2, shape=bomb), bomb)})


def test_a_build_that_is_none_is_refused_at_once(dispatcher: Dispatcher, bomb: Any):
    with at_once(), pytest.raises(REFUSED):
        ModelLda(dispatcher).hello({"distcorpus": bomb, "wire": bomb})


FACTS = ("0" * 64, ("nfc", None, 0.25), 0, 3, 5, 9.0, 9.0, 1)


@pytest.mark.parametrize("part", range(len(FACTS)))
def test_a_reference_that_says_it_is_refused_at_once(part: int, bomb: Any):
    with at_once(), pytest.raises(REFUSED):
        Reference.from_message((*FACTS[:part], bomb, *FACTS[part + 1 :]))
    for at in range(3):
        weighting = [*FACTS[1]]
        weighting[at] = bomb
        with at_once(), pytest.raises(REFUSED):
            Reference.from_message((FACTS[0], tuple(weighting), *FACTS[2:]))


ARRAYS = np.array([0, 1]), np.array([0], np.int32), np.ones(1, np.float32)
JOB = {
    "lease": "1",
    "session": "s",
    "round": 1,
    "kernel": "lda",
    "params": {**PARAMS, "gamma_statistics": False},
    "num_terms": 7,
    "blocks": [(0, (0, 0))],
    "stored": {},
    "payload": {0: ARRAYS},
    "keep": True,
    "words": np.array([0], np.int32),
    "rows": np.ones((1, 2), np.float32),
}
#: What may be anything.
TRUTHS = {("keep",), ("params", "gamma_statistics")}


@pytest.mark.parametrize("path", [path for path in places(JOB) if path not in TRUTHS], ids=str)
def test_a_job_that_says_it_is_refused_at_once(path: tuple[str, ...], bomb: Any):
    worker = Worker("w")
    assert "partial" in worker.process(dict(JOB))
    with at_once(), pytest.raises(REFUSED):
        worker.process(replaced(JOB, path, bomb))


@pytest.mark.parametrize(
    "said",
    [
        lambda bomb: {"blocks": [(bomb, (0, 0))]},
        lambda bomb: {"blocks": [(0, bomb)]},
        lambda bomb: {"blocks": [(0, (0, bomb))]},
        lambda bomb: {"payload": {0: (bomb, bomb, bomb)}},
        lambda bomb: {"payload": {0: (*ARRAYS, bomb)}, "stored": {0: FACTS}},
        lambda bomb: {"stored": {0: bomb}},
    ],
)
def test_blocks_that_say_it_are_refused_at_once(said: Callable[[Any], dict[str, Any]], bomb: Any):
    with at_once(), pytest.raises(REFUSED):
        Worker("w").process({**JOB, **said(bomb)})


@pytest.mark.parametrize("part", ["width", "grid", "dtype", "weights", "weight"])
def test_a_product_that_wants_it_is_refused_at_once(part: str, bomb: Any):
    params = {"width": 2, "grid": 2.0**-10, "dtype": "float32", "weights": None}
    said = {"weights": {0: bomb}} if part == "weight" else {part: bomb}
    with at_once(), pytest.raises(REFUSED):
        Worker("w").process({**JOB, "kernel": "lsi", "params": {**params, **said}})


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "all": lambda bomb: bomb,
    "missing": lambda bomb: {"missing": bomb, "rows_missing": False},
    "one missing": lambda bomb: {"missing": [bomb], "rows_missing": False},
    "rows missing": lambda bomb: {"missing": [0], "rows_missing": bomb},
    "lease": lambda bomb: {"lease": bomb},
    "arrays": lambda bomb: {"lease": "1", "arrays": bomb},
    "key": lambda bomb: {"lease": "1", "arrays": [(bomb, np.ones(1))]},
    "part of a key": lambda bomb: {"lease": "1", "arrays": [((0, bomb), np.ones(1))]},
    "array": lambda bomb: {"lease": "1", "arrays": [((0, 0), bomb)]},
    "seconds": lambda bomb: {
        "lease": "1",
        "arrays": [((0, 0), np.ones((1, 2), np.float32))],
        "seconds": bomb,
    },
}


@pytest.mark.parametrize("where", ANSWERS)
def test_a_false_answer_is_refused_at_once(where: str, bomb: Any):
    kernel = KERNELS["inference"]
    chunk = as_chunk([[(0, 1.0)]], 7)
    round_: Any = SimpleNamespace(kernel=kernel, params=kernel.params(**PARAMS))
    with at_once(), pytest.raises(FalseAnswer):
        read_answer(
            ANSWERS[where](bomb), "1", round_, [Block(0, (0, 0), chunk, 1, 1, chunk.words())], chunk.words()
        )

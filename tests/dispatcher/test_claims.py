"""What a program claims of its training run is refused, or harms nobody who watches the cluster."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distcorpus.algorithms.received import MOST_COUNTED
from distcorpus.dispatcher import looking
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.engines.pyro import PyroEngine
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import Details, SessionView, Snapshot, as_json, from_message, to_message
from distcorpus.training.standing import Curve, Standing
from distcorpus.wire import Daemon, close, connect
from distcorpus.worker.daemon import Worker

from ..messages import PLAN

NUM_TERMS, NUM_TOPICS = 20, 3
CHUNK = np.array([0, 2, 3]), np.array([1, 4, 2], np.int32), np.ones(3, np.float32)
PARAMS = {
    "alpha": np.ones(NUM_TOPICS),
    "totals": np.full(NUM_TOPICS, 20.0),
    "dtype": "float32",
    "iterations": 5,
    "gamma_threshold": 0.1,
    "seed": 1,
}


def topics() -> dict[str, Any]:
    table = np.ones((NUM_TERMS, NUM_TOPICS), np.float32)
    return {"eta": np.full(NUM_TERMS, 0.1, np.float32), "table": table, "numdocs": 10}


def lda(plan: dict[str, Any] | None = None, progress: dict[str, Any] | None = None, **more: Any) -> dict:
    task = {
        "topics": topics(),
        "alpha": np.full(NUM_TOPICS, 0.3, np.float32),
        "eta": np.full(NUM_TERMS, 0.1, np.float32),
        "num_updates": 0,
        "documents": 10,
    }
    return {**task, "plan": {**PLAN, **(plan or {})}, "progress": progress or {}, **more}


class Watched:
    """A dispatcher and a worker in this process, and what those see who watch it."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        uri = self.daemon.serve("w", Worker("w"))
        self.engine = PyroEngine(lambda: {"w": uri})
        self.dispatcher = Dispatcher(self.engine)
        for cls in (ModelLda, ModelLsi, GensimLda):
            self.daemon.serve_each(cls.__name__, cls, lambda cls=cls: cls(self.dispatcher))
        self.daemon.start()
        self.engine.start()

    def proxy(self, cls: type, **options: Any) -> Any:
        return connect(self.daemon.uri(cls.__name__), **options)

    def look(self) -> Snapshot:
        found = from_message(Snapshot, self.dispatcher.snapshot())
        as_json(found)
        for view in found.sessions:
            text.progress(view)
        return found


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "FRESH", 0.0)
        watched = Watched()
        yield watched
        watched.daemon.stop(grace=0.1)
        watched.engine.stop()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (lda({"chunksize": 0}), "chunksize=0: give a whole number from 1"),
        (lda({"chunksize": True}), "chunksize is a bool"),
        (lda({"passes": -1}), "passes=-1: give"),
        (lda({"passes": 2**70}), r"passes=\.\.\.: give"),
        (lda({"update_chunks": -1}), "update_chunks=-1: give"),
        (lda({"iterations": MOST_COUNTED + 1}), "iterations=9007199254740993: give"),
        (lda({"eval_chunks": 1.5}), "eval_chunks is a float"),
        (lda({"decay": math.nan}), "decay=nan: give a finite number"),
        (lda({"offset": math.inf}), "offset=inf: give a finite number"),
        (lda({"offset": 10**400}), r"offset=\.\.\.: give a whole number from 1 to "),
        (lda({"decay": True}), "decay is a bool"),
        (lda(documents=-5), "documents=-5: give"),
        (lda(documents=1 << 2000), r"documents=\.\.\.: give"),
        (lda(num_updates=2**70), r"num_updates=\.\.\.: give"),
        (lda(pause_every=0), "pause_every=0: give a whole number from 1"),
        (lda(progress={"updates": 2**70}), r"updates=\.\.\.: give"),
        (lda(progress={"pass_": True}), "pass_ is a bool"),
    ],
)
def test_a_number_that_cannot_be_one_is_refused(watched: Watched, task: dict[str, Any], says: str):
    proxy = watched.proxy(ModelLda)
    with pytest.raises((TypeError, ValueError), match=says):
        proxy.begin(task)
    close(proxy)
    assert watched.look().sessions == ()


@pytest.mark.parametrize("first", ["x" * 5000, 2**70, 1.5, -5, True])
def test_an_evaluation_begins_at_a_chunk(watched: Watched, first: Any):
    proxy = watched.proxy(ModelLda)
    with pytest.raises((TypeError, ValueError), match="first"):
        proxy.begin_inference({"topics": topics(), "params": PARAMS, "first": first})
    close(proxy)


@pytest.mark.parametrize("tolerance", [math.nan, math.inf, 0.0, -1.0, True, "1"])
def test_a_tolerance_is_above_nothing(watched: Watched, tolerance: Any):
    proxy = watched.proxy(ModelLsi)
    with pytest.raises((TypeError, ValueError), match="tolerance"):
        proxy.begin({"num_terms": NUM_TERMS, "num_topics": 2, "tolerance": tolerance})
    close(proxy)


def test_a_vocabulary_has_no_negative_ids(watched: Watched):
    """Its tables would have taken less than nothing, and so made room for others' without end."""
    proxy = watched.proxy(GensimLda, serializer="pickle")
    with pytest.raises(ValueError, match="negative id, -5"):
        proxy.initialize(id2word={-5: "a"}, num_topics=2)
    close(proxy)


numbers = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.sampled_from([2**31, 2**53, 2**63, 2**70, 1 << 2000, -(1 << 2000), np.int64(3), np.float64("nan")])
)
fields = st.sampled_from(
    [("plan", name) for name in PLAN if name != "seed"]
    + [("plan", "eval_chunks")]
    + [("progress", name) for name in ("pass_", "chunk", "documents", "updates")]
    + [("", name) for name in ("documents", "num_updates", "pause_every", "first", "tolerance", "decay")]
)


@pytest.mark.long
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(fields, numbers, min_size=1, max_size=3))
@example({("plan", "chunksize"): 0})
@example({("", "documents"): 2**53, ("plan", "passes"): 2**53, ("plan", "chunksize"): 1})
@example({("", "documents"): np.int64(3), ("plan", "passes"): np.int64(3)})
@example({("progress", "updates"): 2**53, ("progress", "documents"): 2**53, ("", "first"): 2**53})
def test_whatever_a_program_claims_everybody_can_look(watched: Watched, claims: dict[tuple[str, str], Any]):
    parts: dict[str, dict[str, Any]] = {"plan": {}, "progress": {}, "": {}}
    for (part, name), value in claims.items():
        parts[part][name] = value
    of_task = {
        name: parts[""][name] for name in ("documents", "num_updates", "pause_every") if name in parts[""]
    }
    of_lsi = {name: parts[""][name] for name in ("tolerance", "decay") if name in parts[""]}
    inference = {"topics": topics(), "params": PARAMS, "first": parts[""].get("first", 0)}
    begun = [
        (watched.proxy(ModelLda), "begin", lda(parts["plan"], parts["progress"], **of_task)),
        (watched.proxy(ModelLda), "begin_inference", inference),
        (watched.proxy(ModelLsi), "begin", {"num_terms": NUM_TERMS, "num_topics": 2, **of_lsi}),
    ]
    for proxy, method, task in begun:
        with suppress(TypeError, ValueError):
            getattr(proxy, method)(task)
            watched.look()
            proxy.put(*CHUNK)
    for view in watched.look().sessions:
        assert view.phase != "unknown"
        from_message(Details, watched.dispatcher.details(view.name))
    for proxy, _, _ in begun:
        close(proxy)


def test_one_session_that_cannot_be_looked_at_hides_no_other(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    proxies = [watched.proxy(ModelLsi) for _ in range(2)]
    for proxy in proxies:
        proxy.begin({"num_terms": NUM_TERMS, "num_topics": 2})
    name, other = watched.dispatcher.status()["sessions"][-2:]

    def fail() -> None:
        raise ZeroDivisionError("x" * 5000)

    monkeypatch.setattr(watched.dispatcher.sessions[name], "standing", fail)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            views = {view.name: view for view in watched.look().sessions}
    assert views[name].phase == "unknown"
    assert views[name].waits_for.startswith("cannot be told: ZeroDivisionError: xxx")
    assert len(views[name].waits_for) < 300
    assert (views[name].kind, views[name].host) == ("lsi", "loopback")
    assert (views[other].phase, views[other].terms) == ("arriving", NUM_TERMS)
    (logged,) = [record for record in caplog.records if name in record.getMessage()]
    assert logged.exc_info
    for proxy in proxies:
        close(proxy)


def test_figures_that_are_no_numbers_are_not_known(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    proxy = watched.proxy(ModelLsi)
    proxy.begin({"num_terms": NUM_TERMS, "num_topics": 2})
    (name,) = watched.dispatcher.status()["sessions"]
    session = watched.dispatcher.sessions[name]
    odd = Standing(
        perplexity=math.nan, error=math.inf, updates=2**70, documents_done=2**70, terms=np.int64(7)
    )
    monkeypatch.setattr(session, "standing", lambda: odd)
    (view,) = watched.look().sessions
    assert (view.perplexity, view.error, view.updates, view.terms) == (None, None, None, 7)
    assert view.documents_done == 0
    monkeypatch.setattr(session, "standing", lambda: replace(odd, singular_values=(math.nan, 1.0)))
    details = from_message(Details, watched.dispatcher.details(name))
    assert details.singular_values == (0.0, 1.0)
    close(proxy)


def test_the_details_of_one_session_wait_for_no_other(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    proxies = [watched.proxy(ModelLsi) for _ in range(2)]
    for proxy in proxies:
        proxy.begin({"num_terms": NUM_TERMS, "num_topics": 2})
    slow, other = watched.dispatcher.status()["sessions"][-2:]
    reached, gate = threading.Event(), threading.Event()

    def wait(*sizes: int) -> list[Any]:
        reached.set()
        assert gate.wait(30)
        return []

    monkeypatch.setattr(watched.dispatcher.sessions[slow], "topics_now", wait)
    thread = threading.Thread(target=watched.dispatcher.details, args=(slow,))
    thread.start()
    assert reached.wait(30)
    assert from_message(Details, watched.dispatcher.details(other)).session == other
    assert thread.is_alive()
    gate.set()
    thread.join(30)
    for proxy in proxies:
        close(proxy)


def test_a_curve_has_points_where_there_are_numbers():
    curve = Curve()
    for value in (1.0, math.nan, math.inf, 2.0):
        curve.add(1, value)
    assert [value for _, _, value in curve.points()] == [1.0, 2.0]


def test_a_view_of_what_a_worker_says_is_cut():
    view = SessionView(name="x" * 5000, kind="lda", host=None, pid=True, rate=1 << 2000)  # type: ignore[arg-type]
    told = from_message(SessionView, to_message(view))
    assert (len(told.name), told.host, told.pid, told.rate) == (4000, "", 1, None)

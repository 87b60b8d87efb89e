"""Training runs on engines that reorder, repeat, delay and lose: the same bytes, or an error."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.algorithms.online import OnlineLda, Plan, Progress
from distcorpus.algorithms.topics import LazyTopics
from distcorpus.engines.base import Engine
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.kernels import EStep, InferenceParams, Product
from distcorpus.training.evaluation import Evaluation, evaluate
from distcorpus.training.lda import LdaTraining, Observer
from distcorpus.training.lsi import LsiTask, train

from .misbehaving import BadDay, MisbehavingEngine
from .test_lda import ListSource

NUM_TERMS, NUM_TOPICS = 40, 4
HARMLESS = ["twice", "late"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that few documents make many jobs."""
    monkeypatch.setattr(EStep, "limits", {"max_docs": 7})
    monkeypatch.setattr(Product, "limits", {"max_nnz": 50})


def chunks() -> list[Chunk]:
    random = np.random.default_rng(0)
    matrix = scipy.sparse.csc_array(random.poisson(0.3, (NUM_TERMS, 60)).astype(np.float32))
    return [as_chunk(matrix[:, first : first + 20], NUM_TERMS) for first in (0, 20, 40)]


def topics() -> LazyTopics:
    table = np.random.default_rng(1).gamma(100.0, 0.01, (NUM_TERMS, NUM_TOPICS)).astype(np.float32)
    return LazyTopics(np.full(NUM_TERMS, 0.2), table, numdocs=60)


def lda(engine: Engine, progress: Progress | None = None) -> list[bytes]:
    plan = Plan(2, 2, 20, 0.5, 1.0, 20, 1e-3, 3, optimize_alpha=True)
    model = OnlineLda(topics(), np.full(NUM_TOPICS, 0.3), np.full(NUM_TERMS, 0.2))
    with LdaTraining("lda", engine, model, plan, progress) as training:
        training.run(ListSource(training, chunks()), Observer())
    return [model.topics.table.tobytes(), model.alpha.tobytes()]


def lsi(engine: Engine) -> list[bytes]:
    return [
        array.tobytes() for array in train(engine, LsiTask(NUM_TERMS, 5, decay=0.8), chunks(), fold_at=3000)
    ]


def gammas(engine: Engine) -> list[bytes]:
    learnt = topics()
    params = InferenceParams(np.full(NUM_TOPICS, 0.3), learnt.totals(), "float32", 20, 1e-3, 3)
    with Evaluation("lda", engine, learnt.num_terms, params, learnt.rows) as evaluation:
        return [gamma.tobytes() for gamma in evaluate(evaluation, chunks())]


RUNS = {"lda": lda, "lsi": lsi, "gammas": gammas}


def choosing(data: st.DataObject) -> Callable[[Sequence[Any]], Any]:
    return lambda options: data.draw(st.sampled_from(list(options)))


@functools.cache
def expected(run: str) -> list[bytes]:
    with ThreadsEngine(2) as engine:
        return RUNS[run](engine)


@pytest.mark.parametrize("run", RUNS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_comes_twice_late_or_in_another_order_changes_no_bit(run, data):
    # An evaluation takes results before its round has ended.
    engine = MisbehavingEngine(choosing(data), HARMLESS, eager=run == "gammas")
    assert RUNS[run](engine) == expected(run)


@pytest.mark.parametrize("run", ["lda", "lsi"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_lost_or_failed_job_is_an_error(run, data):
    engine = MisbehavingEngine(choosing(data), [*HARMLESS, "raise", "lose"])
    found, error = None, None
    try:
        found = RUNS[run](engine)
    except (BadDay, RuntimeError) as raised:
        error = raised
    if not engine.happened & {"raise", "lose"}:
        assert found == expected(run)
    elif "raise" not in engine.happened:
        assert "a round was ended without chunk" in str(error)
    else:
        assert error is not None


def test_calls_out_of_order_are_errors():
    """Nobody waits for what will never be computed."""
    learnt = topics()
    params = InferenceParams(np.full(NUM_TOPICS, 0.3), learnt.totals(), "float32", 20, 1e-3, 3)
    with (
        ThreadsEngine(1) as engine,
        Evaluation("lda", engine, learnt.num_terms, params, learnt.rows) as evaluation,
    ):
        with pytest.raises(RuntimeError, match=r"take\(\) without a chunk"):
            evaluation.take()
        evaluation.put(chunks()[0])
        evaluation.end()
        with pytest.raises(RuntimeError, match=r"put\(\) after end\(\)"):
            evaluation.put(chunks()[1])
        assert len(evaluation.take()) == 20
        with pytest.raises(RuntimeError, match=r"take\(\) without a chunk"):
            evaluation.take()


def test_an_interrupted_run_goes_on_from_its_last_update():
    """The model and its progress are as the latest M-step left them, and another run goes on from there."""

    class Interrupting(Observer):
        updates = 0

        def after_update(self, event):
            self.updates += 1
            if self.updates == 2:
                raise KeyboardInterrupt

    plan = Plan(2, 1, 20, 0.5, 1.0, 20, 1e-3, 3)
    model, whole = (OnlineLda(topics(), np.full(NUM_TOPICS, 0.3), np.full(NUM_TERMS, 0.2)) for _ in range(2))
    progress = Progress()
    with ThreadsEngine(2) as engine:
        with LdaTraining("lda", engine, model, plan, progress) as training, pytest.raises(KeyboardInterrupt):
            training.run(ListSource(training, chunks()), Interrupting())
        assert (progress.pass_, progress.chunk, progress.documents, progress.updates) == (0, 2, 40, 2)
        for one, where in ((model, progress), (whole, None)):
            with LdaTraining("lda", engine, one, plan, where) as training:
                training.run(ListSource(training, chunks()), Observer())
    assert model.topics.table.tobytes() == whole.topics.table.tobytes()

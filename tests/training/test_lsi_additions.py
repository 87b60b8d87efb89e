"""Additions to an LSI model, in process: what was given up counts for nothing, whatever was folded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.training.lsi import LsiTask, LsiTraining

NUM_TERMS, NUM_TOPICS, DOCS = 60, 4, 25


def matrix(number: int) -> NDArray:
    """Return the documents of one chunk, of rank 6: a fold keeps 2 x 4 directions, the whole of it."""
    random = np.random.default_rng(number)
    directions = np.random.default_rng(99).normal(size=(NUM_TERMS, 6))
    return directions @ (random.normal(size=(6, DOCS)) * np.geomspace(8, 1, 6)[:, None])


CHUNKS: list[Chunk] = [as_chunk(scipy.sparse.csc_array(matrix(number)), NUM_TERMS) for number in range(16)]
NBYTES = CHUNKS[0].nbytes
#: What an addition brings; most of them more than is kept.
ADDITIONS = [[0, 1, 2, 3, 4], [5], [6, 7, 8, 9]]


def exact(numbers: Iterable[int], decay: float) -> NDArray:
    """Return the singular values of some chunks by dense algebra."""
    chunks = [matrix(number).astype(np.float32) for number in numbers]
    weighed = [chunk * decay ** (len(chunks) - 1 - place) for place, chunk in enumerate(chunks)]
    return scipy.linalg.svdvals(np.hstack(weighed).astype(np.float64))[:NUM_TOPICS]


class GivenUp(Exception):
    """What a corpus raises in the middle of being read."""


def add(training: LsiTraining, numbers: Iterable[int], gives_up: bool = False) -> NDArray | None:
    training.begin()
    for number in numbers:
        training.put(CHUNKS[number])
    return None if gives_up else training.finish()[1]


@pytest.mark.parametrize(
    ("decay", "times"),
    [(1.0, 2), *(pytest.param(*case, marks=pytest.mark.long) for case in [(1.0, 1), (0.9, 1), (0.9, 2)])],
)
@pytest.mark.parametrize("lost", [[10], [10, 11, 12, 13, 14]], ids=["kept", "folded"])
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("kept", [1.5, 3.5, 100], ids=lambda kept: f"{kept} chunks kept")
def test_an_addition_that_is_given_up_counts_for_nothing(before, lost, times, decay, kept):
    """Before the first, second and third addition, once and again, with folds in it or before it, or none."""
    task = LsiTask(NUM_TERMS, NUM_TOPICS, decay=decay)
    with ThreadsEngine(2) as engine, LsiTraining("s", engine, task, fold_at=int(kept * NBYTES)) as training:
        there: list[int] = []
        for number, addition in enumerate(ADDITIONS):
            if number == before:
                for _ in range(times):
                    add(training, lost, gives_up=True)
            values = add(training, addition)
            there += addition
            np.testing.assert_allclose(values, exact(there, decay), rtol=1e-4)


def test_a_model_that_begins_with_a_base_keeps_it():
    """`add_documents` to a model that was loaded: what it had is no part of what is given up."""
    U, s, _ = scipy.linalg.svd(matrix(0).astype(np.float64), full_matrices=False)
    base = (np.ascontiguousarray(U[:, :6]), s[:6])
    task = LsiTask(NUM_TERMS, NUM_TOPICS, base=base)
    with ThreadsEngine(2) as engine, LsiTraining("s", engine, task, fold_at=int(1.5 * NBYTES)) as training:
        add(training, [10, 11, 12, 13], gives_up=True)
        np.testing.assert_allclose(add(training, [1, 2, 3]), exact([0, 1, 2, 3], 1.0), rtol=1e-4)


@pytest.mark.parametrize("interrupted_at", range(1, 12))
def test_what_was_interrupted_while_it_was_waited_for(interrupted_at):
    """In whichever round, those of a fold included, the next attempt finds what was there before."""
    task = LsiTask(NUM_TERMS, NUM_TOPICS)
    rounds: list[int] = []

    def interrupt(number: int) -> None:
        rounds.append(number)
        if len(rounds) == interrupted_at:
            raise GivenUp

    options: dict[str, Any] = {"fold_at": int(2.5 * NBYTES), "after_round": interrupt}
    with ThreadsEngine(2) as engine, LsiTraining("s", engine, task, **options) as training:
        interrupted = 0
        for addition in ([0, 1], [10, 11, 12], [2, 3]):
            try:
                values = add(training, addition)
            except GivenUp:
                interrupted += 1
                values = add(training, addition)
        assert interrupted == 1
        np.testing.assert_allclose(values, exact([0, 1, 10, 11, 12, 2, 3], 1.0), rtol=1e-4)


def test_a_round_that_another_one_ends_is_not_waited_for():
    """A dropped round is never finished: whoever waits for it gets an error."""
    with ThreadsEngine(1) as engine, LsiTraining("s", engine, LsiTask(NUM_TERMS, NUM_TOPICS)) as training:
        add(training, [0], gives_up=True)
        streamed = training._streamed
        training._stream()
        with pytest.raises(RuntimeError, match="was given up: its training run has begun another one"):
            streamed.wait()


@pytest.mark.parametrize("kept", [1.5, 2.5, 3.5, 100], ids=lambda kept: f"{kept} chunks kept")
@pytest.mark.parametrize("based", [False, True])
def test_chunks_that_a_model_had_before_keep_their_weights(kept, based):
    """Wherever they are folded, `decay` is of what is added alone, and weighs down what came before."""
    settled, decay, added = (0.25, 9.0, 4.0), 0.8, [3, 4, 5]
    base = None
    weighed = [matrix(n) * squared**0.5 * decay**3 for n, squared in enumerate(settled)]
    weighed += [matrix(n) * decay ** (5 - n) for n in added]
    if based:
        U, s, _ = scipy.linalg.svd(matrix(9), full_matrices=False)
        base = (np.ascontiguousarray(U[:, :6]), s[:6])
        weighed.append(matrix(9) * decay**3)
    task = LsiTask(NUM_TERMS, NUM_TOPICS, decay=decay, base=base, squared_weights=settled)
    with ThreadsEngine(2) as engine, LsiTraining("s", engine, task, fold_at=int(kept * NBYTES)) as training:
        values = add(training, range(6))
        assert (training.num_folds > 0) == (kept < 6)
    np.testing.assert_allclose(values, scipy.linalg.svdvals(np.hstack(weighed))[:NUM_TOPICS], rtol=1e-4)


def test_a_fold_is_said(caplog):
    task = LsiTask(NUM_TERMS, NUM_TOPICS)
    with ThreadsEngine(1) as engine, LsiTraining("s", engine, task, fold_at=int(2.5 * NBYTES)) as training:
        add(training, [0, 1])
        assert not caplog.records
        add(training, [2])
    assert "training run s: the chunks before number 2 are folded into up to 8 factors" in caplog.text


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([1.0], TypeError),
        ((1,), TypeError),
        (("1",), TypeError),
        (np.ones(2), TypeError),
        ((1.0, -1.0), ValueError),
        ((np.inf,), ValueError),
        ((float("nan"),), ValueError),
    ],
)
def test_weights_that_are_none(weights, error):
    with pytest.raises(error, match="squared_weights: "):
        LsiTask(NUM_TERMS, NUM_TOPICS, squared_weights=weights)


@pytest.mark.parametrize(
    ("error", "failure"), [(ValueError("no numbers"), "no numbers"), (ConnectionResetError("gone"), "")]
)
def test_it_stands_where_it_failed(monkeypatch: pytest.MonkeyPatch, error: Exception, failure: str):
    def fail(*arguments: Any) -> None:
        raise error

    with ThreadsEngine(1) as engine, LsiTraining("lsi", engine, LsiTask(NUM_TERMS, NUM_TOPICS)) as training:
        with monkeypatch.context() as patch:
            patch.setattr(training, "_factorise", fail)
            with pytest.raises(type(error)):
                add(training, [0])
        assert training.standing().failure == failure
        add(training, [1])
        assert not training.standing().failure

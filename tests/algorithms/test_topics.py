"""Lazy topics and the schedule of online LDA, against gensim's state and update rules."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gensim.models.ldamodel import LdaState, update_dir_prior
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.algorithms import topics as module
from distcorpus.algorithms.lda import LDA_GRID
from distcorpus.algorithms.rows import SLICE
from distcorpus.algorithms.summation import GridSum
from distcorpus.algorithms.topics import LazyTopics, StatisticsSum, newton_step, shares_of_tokens


@pytest.fixture(params=["compiled", "numpy"])
def kernels(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(module, "_kernels", lambda: None)


def random_eta(rng, kind, num_topics, num_terms):
    return rng.uniform(0.01, 0.5, (num_topics, num_terms) if kind == "matrix" else num_terms)


@pytest.mark.parametrize("eta_kind", ["vector", "matrix"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 3e-6)])
def test_blend_is_gensims(kernels, eta_kind, dtype, tolerance):
    """Through many steps, with a rate of 1 (all is forgotten), of 0, and a scale that becomes tiny on the
    way.
    """
    rng = np.random.default_rng(0)
    num_topics, num_terms = 7, 50
    state = LdaState(random_eta(rng, eta_kind, num_topics, num_terms), (num_topics, num_terms), dtype)
    state.sstats[...] = rng.gamma(1.0, 1.0, state.sstats.shape)
    state.numdocs = 1000
    topics = LazyTopics.from_state(state.eta, state.sstats, state.numdocs)
    rates = [0.5, 1.0, 0.0, *[0.7] * 60, 1.0, 0.3]
    for number, rho in enumerate(rates):
        words = rng.permutation(num_terms)[:12].astype(np.int32)
        steps = rng.integers(0, 1 << 24, (12, num_topics)).astype(np.float64)
        other = LdaState(state.eta, state.sstats.shape, dtype)
        other.sstats[:, words] = (steps * LDA_GRID).T
        other.numdocs = 20
        targetsize = 1000 + 10 * number
        state.blend(rho, other, targetsize)
        topics.blend(rho, words, steps, 20, targetsize, unit=LDA_GRID)
        expected = state.get_lambda()
        np.testing.assert_allclose(topics.rows(words), expected[:, words].T, rtol=tolerance)
        np.testing.assert_allclose(topics.totals(), expected.sum(axis=1, dtype=np.float64), rtol=tolerance)
    np.testing.assert_allclose(topics.to_state(), state.sstats, rtol=tolerance)
    assert topics.numdocs == state.numdocs


def test_only_the_rows_of_the_words_are_written():
    table = np.random.default_rng(0).gamma(1.0, 1.0, (50, 4)).astype(np.float32)
    topics = LazyTopics(np.full(50, 0.1, np.float32), table.copy(), numdocs=10)
    words = np.array([3, 30], np.int32)
    topics.blend(0.25, words, np.ones((2, 4)), 5)
    changed = np.flatnonzero((topics.table != table).any(axis=1))
    assert changed.tolist() == words.tolist()


def test_states_there_and_back():
    sstats = np.random.default_rng(0).gamma(1.0, 1.0, (3, 8)).astype(np.float32)
    assert np.array_equal(LazyTopics.from_state(np.ones(8), sstats).to_state(), sstats)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.rows(np.array([5], np.int32)), "5 terms"),
        (lambda t: t.rows(np.array([-1], np.int32)), "5 terms"),
        (lambda t: t.blend(0.5, np.array([5], np.int32), np.ones((1, 2)), 1), "5 terms"),
        (lambda t: t.blend(0.5, np.array([0], np.int32), np.ones((1, 3)), 1), "shape"),
        (lambda t: LazyTopics(np.ones(4), t.table), "eta"),
        (lambda t: LazyTopics(np.ones(5), t.table.astype(np.float16)), "float16"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    topics = LazyTopics(np.ones(5), np.ones((5, 2)))
    with pytest.raises(ValueError, match=message):
        call(topics)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 19), min_size=1), min_size=1, max_size=8), st.randoms())
def test_sum_is_the_grid_sums_in_any_order(parts, random):
    rng = np.random.default_rng(1)
    partials = [
        (np.array(sorted(words), np.int32), rng.integers(-(2**31), 2**31, (len(words), 3)).astype(np.int32))
        for words in parts
    ]
    expected = GridSum(20, 3, 1.0)
    for words, steps in partials:
        expected.add(words, steps)
    total = StatisticsSum(20, 3, 1.0)
    for _ in range(2):  # the second time in memory that was used before
        total.clear()
        random.shuffle(partials)
        for words, steps in partials:
            total.add(words, steps.astype(np.float64))
        dense = np.zeros((20, 3))
        dense[total.words] = total.steps
        assert np.array_equal(dense, expected.values())
        assert sorted(total.words) == sorted(set().union(*parts))


def test_cells_add_up_as_their_table_does():
    rng = np.random.default_rng(2)
    words = np.array([4, 1, 7], np.int32)
    table = rng.integers(0, 3, (3, 5)).astype(np.int32)
    cells = np.flatnonzero(table)[::-1].astype(np.int32)
    cells, steps = np.append(cells, cells[:2]), np.append(table.flat[cells], [1, 1]).astype(np.int32)
    table.flat[cells[:2]] += 1
    for sums in (StatisticsSum(9, 5, 1.0), GridSum(9, 5, 1.0)):
        sums.add(words, steps, cells)
        got = np.zeros((9, 5))
        if isinstance(sums, GridSum):
            got = sums.values()
        else:
            got[sums.words] = sums.steps
        np.testing.assert_array_equal(got[words], table)
        assert got.sum() == table.sum()
        with pytest.raises(ValueError, match="cells up to 15"):
            sums.add(words, steps[:1], np.array([15], np.int32))


def test_slices_of_rows_side_by_side_have_the_same_bits(kernels):
    rng = np.random.default_rng(3)
    num_terms, width = 4 * SLICE, 3
    table = rng.gamma(1.0, 1.0, (num_terms, width)).astype(np.float32)
    words = rng.permutation(num_terms)[: 3 * SLICE + 5].astype(np.int32)
    steps = rng.integers(0, 2**31, (len(words), width)).astype(np.int32)
    results = []
    with ThreadPoolExecutor(3) as pool:
        for side_by_side in (map, pool.map):
            total = StatisticsSum(num_terms, width, LDA_GRID, side_by_side)
            for _ in range(2):
                total.clear()
                assert not total.steps.any()
                total.add(words, steps)
                total.add(words[::-2], steps[::-2])
            topics = LazyTopics(np.full(num_terms, 0.1, np.float32), table.copy(), numdocs=10)
            topics.blend(0.25, total.words, total.steps, 5, unit=total.grid, side_by_side=side_by_side)
            results.append((total.steps.tobytes(), topics.table.tobytes(), topics.sums.tobytes()))
            too_many = np.zeros(steps.shape)
            too_many[-1, -1] = 2.0**53
            with pytest.raises(OverflowError, match=f"^term id {words[-1]}: a sum exceeds"):
                total.add(words, too_many)
    assert results[0] == results[1]


def test_sum_refuses_what_it_cannot_hold():
    total = StatisticsSum(4, 2, 1.0)
    word = np.array([1], np.int32)
    with pytest.raises(ValueError, match="4 terms"):
        total.add(np.array([4], np.int32), np.ones((1, 2)))
    with pytest.raises(ValueError, match="shape"):
        total.add(word, np.ones((1, 3)))
    with pytest.raises(OverflowError, match=r"^term id 1: a sum exceeds"):
        total.add(word, np.full((1, 2), 2.0**53))
    total.clear()
    with pytest.raises(OverflowError, match=r"^term id 1: a sum is not finite \(nan\)"):
        total.add(word, np.array([np.nan]), np.array([1], np.int32))


@pytest.mark.parametrize("rho", [0.1, 1.0])
def test_newton_step_is_gensims(rho):
    rng = np.random.default_rng(0)
    prior = rng.gamma(1.0, 1.0, 9)
    for _ in range(5):  # one or the other leaves the positive numbers at a full step
        mean_logs = np.log(rng.dirichlet(rng.gamma(1.0, 1.0, 9) + 0.01, 50)).mean(axis=0)
        expected = update_dir_prior(prior, 50, mean_logs, rho)
        np.testing.assert_allclose(newton_step(prior, 50, mean_logs, rho), expected, rtol=1e-10)


def test_shares_of_tokens_are_of_the_statistics_alone():
    topics = LazyTopics(np.full(10, 5.0), np.arange(30, dtype=np.float32).reshape(10, 3), scale=0.5)
    np.testing.assert_allclose(shares_of_tokens(topics.sums), np.array([135, 145, 155]) / 435)
    for statistics in (np.zeros(4), np.full(4, np.inf), np.full(4, np.nan)):
        assert shares_of_tokens(statistics).tolist() == [0.25] * 4

"""Order-independent sums: equal bits whatever the order, grouping and split; error as documented."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distcorpus.algorithms import summation
from distcorpus.algorithms.summation import (
    GridSum,
    exact_sum,
    grid_for,
    merge_extras,
    narrow_in_place,
    narrow_steps,
    to_steps,
)

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)


@pytest.fixture(params=["compiled", "numpy"])
def kernels(request, monkeypatch):
    """Run a test with the compiled loops and with their fallback."""
    if request.param == "numpy":
        monkeypatch.setattr(summation, "compiled_kernels", lambda: None)
    else:
        assert summation.compiled_kernels() is not None
    return request.param


@given(st.floats(min_value=1e-300, max_value=1e300), st.integers(1, 52))
def test_the_grid_is_the_finest_that_holds_the_bound(bound, bits):
    grid = grid_for(bound, bits)
    assert math.frexp(grid)[0] == 0.5
    assert bound <= grid * 2**bits
    assert grid <= 2**-1022 or bound > grid / 2 * 2**bits


@pytest.mark.parametrize("bound", [-1.0, math.inf, math.nan])
def test_a_bound_must_be_finite(bound):
    with pytest.raises(ValueError, match="the bound on a sum"):
        grid_for(bound)


def test_a_grid_is_a_power_of_two():
    assert grid_for(0.0) == 1.0
    with pytest.raises(ValueError, match="power of two"):
        GridSum(1, 1, 0.3)
    with pytest.raises(ValueError, match="between 1 and 52 bits"):
        grid_for(1.0, 53)


@given(values=st.lists(finite, min_size=1, max_size=40), data=st.data())
def test_any_order_grouping_and_split_gives_the_same_bits(values, data):
    grid = grid_for(math.fsum(map(abs, values)))
    steps = to_steps(np.array(values).reshape(-1, 1), grid)
    rows = np.zeros(1, np.int32)

    def total(order):
        groups = data.draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))
        partial_sums = [GridSum(1, 1, grid) for _ in range(4)]
        for item, group in zip(order, groups, strict=True):
            partial_sums[group].add(rows, steps[item : item + 1])
        whole = GridSum(1, 1, grid)
        for part in data.draw(st.permutations(partial_sums)):
            whole.add(rows, narrow_steps(part.steps))
        return whole.values().tobytes()

    numbers = list(range(len(values)))
    expected = total(numbers)
    assert total(data.draw(st.permutations(numbers))) == expected
    error = abs(np.frombuffer(expected)[0] - math.fsum(values))
    assert error <= len(values) * grid / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_to_nearest_ties_to_even(kernels, dtype):
    values = np.array([[0.5, 1.5, 2.5], [-0.5, -1.5, 0.75]], dtype)
    np.testing.assert_array_equal(to_steps(values, 1.0), [[0, 2, 2], [0, -2, 1]])
    np.testing.assert_array_equal(to_steps(values[:, ::2], 0.25), [[2, 10], [-2, 3]])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.inf, r"^a sum is not finite \(inf\)"),
        (math.nan, r"^a sum is not finite \(nan\)"),
        (2.0**53, r"^a sum exceeds 2\*\*53 steps and is no longer exact; give smaller counts"),
    ],
)
def test_what_the_grid_cannot_hold_is_refused(kernels, value, message):
    with pytest.raises(OverflowError, match=message):
        to_steps(np.array([0.0, value]), 1.0)


def test_a_sum_that_leaves_the_exact_range_is_refused(kernels):
    total = GridSum(3, 2, 2.0**-4)
    rows = np.array([0, 2], np.int32)
    total.add(rows, np.full((2, 2), 2.0**52))
    with pytest.raises(OverflowError, match=r"^term id 0: a sum exceeds 2\*\*53 steps of 0.0625"):
        total.add(rows, np.full((2, 2), 2.0**52))


def test_adding_rows(kernels):
    total = GridSum(4, 2, 0.5)
    total.add(np.array([3, 1], np.int32), np.array([[1, 2], [3, 4]], np.int32))
    total.add(np.array([1], np.int32), np.array([[0.0, -8.0]]))
    total.add(np.array([], np.int32), np.zeros((0, 2)))
    np.testing.assert_array_equal(total.values(), [[0, 0], [1.5, -2], [0, 0], [0.5, 1]])


def test_shapes_and_rows_are_checked():
    total = GridSum(3, 2, 1.0)
    with pytest.raises(ValueError, match=r"steps of shape \(2, 3\)"):
        total.add(np.array([0, 1], np.int32), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="in a table of 3 rows"):
        total.add(np.array([3], np.int32), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="in a table of 3 rows"):
        total.add(np.array([-1], np.int32), np.zeros((1, 2)))


def test_threads_lose_nothing(kernels):
    total = GridSum(50, 8, 1.0)
    rows = np.arange(50, dtype=np.int32)
    start = threading.Barrier(4)

    def work(number):
        start.wait()
        for _ in range(100):
            total.add(rows, np.full((50, 8), number, np.int32))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(total.steps, np.full((50, 8), 1000))


def test_narrowing_keeps_every_value():
    assert narrow_steps(np.array([2.0**31 - 1, -(2.0**31) + 1])).dtype == np.int32
    wide = np.array([2.0**31])
    assert narrow_steps(wide) is wide
    assert narrow_steps(np.array([-(2.0**40)])).dtype == np.float64
    assert narrow_steps(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 5), (400, 500)])
def test_narrowing_in_place_is_narrowing(shape):
    steps = np.rint(np.random.default_rng(1).normal(0, 2.0**28, shape))
    wanted = narrow_steps(steps)
    got = narrow_in_place(steps)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, wanted)
    assert narrow_in_place(got) is got
    wide = np.full(shape, 2.0**31)
    assert narrow_in_place(wide) is wide or not wide.size


def test_extras_add_up():
    a = {"documents": 3, "gamma": np.array([1.0, 2.0])}
    merged = merge_extras(a, {"documents": 4, "gamma": np.array([10.0, 20.0]), "converged": 2})
    assert merged["documents"] == 7
    assert merged["converged"] == 2
    np.testing.assert_array_equal(merged["gamma"], [11, 22])
    assert a["documents"] == 3
    np.testing.assert_array_equal(a["gamma"], [1, 2])
    with pytest.raises(ValueError, match="'gamma' has shape"):
        merge_extras(a, {"gamma": np.zeros(3)})
    with pytest.raises(OverflowError, match="'gamma' exceeds"):
        merge_extras(a, {"gamma": np.full(2, 2.0**53)})


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), max_size=60)
)
def test_the_exact_sum_is_correctly_rounded(values):
    assert exact_sum(np.array(values)) == math.fsum(values)

"""exp(digamma) and digamma of the kernels against scipy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import psi

from distcorpus.algorithms import _lda_numpy, lda

numba_kernels = pytest.importorskip("distcorpus.algorithms._lda_numba")

ROOT = np.array([1.4616321449683623])  # psi(ROOT) = 0, so weights under this total are exp(psi(lambda))
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


def exp_digamma(x: np.ndarray) -> np.ndarray:
    return numba_kernels.topic_weights(x[:, None], ROOT)[:, 0]


def reference(x: np.ndarray) -> np.ndarray:
    """exp(psi(x)); near 0, where psi is large, float64 would not do."""
    x = x.astype(np.longdouble)
    return np.exp(psi((1 + x).astype(np.float64)) - 1 / x)


def check(x: np.ndarray) -> None:
    got, wanted = exp_digamma(x), reference(x)
    assert got.dtype == x.dtype
    normal = wanted > np.finfo(x.dtype).tiny * (1 + 1e-6)
    assert (np.abs(got[normal] / wanted[normal] - 1) < TOLERANCE[str(x.dtype)]).all()
    assert (np.abs(got[~normal]) <= np.finfo(x.dtype).tiny * (1 + 1e-5)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exp_digamma_on_a_grid(dtype):
    check(np.geomspace(1e-4, 1e6, 200_001).astype(dtype))
    check(np.linspace(0.01, 4, 200_001).astype(dtype))


@given(st.lists(st.floats(2**-13, 2**20, width=32), min_size=1, max_size=40))
def test_exp_digamma_of_any_arguments(values):
    check(np.array(values, np.float32))
    check(np.array(values, np.float64))


@pytest.mark.parametrize("total", [1e-3, 0.011, 0.5, 3.0, 1e5])
def test_weights_are_relative_to_their_total(total):
    """Also where exp(psi(total)) itself is no normal number in float32."""
    x = total * np.array([1.0, 0.999, 0.99, 0.9], np.float32)
    got = numba_kernels.topic_weights(x[:, None], np.array([total]))[:, 0]
    wanted = np.exp(psi(x.astype(np.float64)) - psi(total))
    np.testing.assert_allclose(got, wanted, rtol=3e-6, atol=1.2e-38)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("total", [1.1e-4, 6e-5, 4e-5, 1e-6, 1e-30])
def test_weights_of_tiny_topics(total, dtype, monkeypatch):
    """Where exp(psi(total)) is no number in any type. Of one term the weight is 1."""
    shares = np.array([1.0, 1 - total, 1 - 30 * total, 0.5, 1e-3])
    x = np.maximum(total * shares, np.finfo(dtype).tiny).astype(dtype)
    exact = x.astype(np.longdouble)
    whole = max(np.longdouble(total), exact[0])
    wanted = np.exp(1 / whole - 1 / exact)
    wanted[wanted < np.finfo(dtype).tiny] = 0
    totals = np.array([float(whole), 3.0])  # beside a topic of the usual size
    got = numba_kernels.topic_weights(np.stack([x, np.full_like(x, 2.0)], axis=1), totals)
    assert got.dtype == dtype
    np.testing.assert_allclose(got[:, 0], wanted.astype(dtype), rtol=1e-3)
    np.testing.assert_allclose(got[:, 1], np.exp(psi(2.0) - psi(3.0)), rtol=1e-6)
    above = numba_kernels.topic_weights(x[:1, None], np.array([float(exact[0]) * (1 - 1e-7)]))
    assert above == 1  # rounding may put a row above its total
    assert _lda_numpy.topic_weights(x[:1, None], np.array([float(exact[0]) * (1 - 1e-7)])) == 1


def test_digamma():
    x = np.geomspace(1e-4, 1e6, 100_001)
    error = np.abs(numba_kernels.digamma(x) - psi(x))
    assert (error <= 1e-14 * np.maximum(1, np.abs(psi(x)))).all()


def test_logarithms_of_topics_agree_with_the_weights(monkeypatch):
    rows, totals = np.random.default_rng(1).gamma(2.0, 1.0, (50, 3)), np.array([100.0, 80.0, 130.0])
    compiled = lda.log_topics(rows, totals)
    np.testing.assert_allclose(np.exp(compiled), lda.topic_weights(rows, totals), rtol=1e-13)
    monkeypatch.setattr(lda, "compiled_or_numpy", lambda: _lda_numpy)
    np.testing.assert_allclose(lda.log_topics(rows, totals), compiled, rtol=1e-13)

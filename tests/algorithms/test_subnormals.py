"""Subnormal numbers are zero in a kernel, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

subnormals = pytest.importorskip("distcorpus.algorithms._subnormals", reason="numba is not installed")

from distcorpus.algorithms._caching import compiled  # noqa: E402

SMALL = np.float32(1e-30), np.float32(1e-10)  # whose product is subnormal


@subnormals.without_subnormals
@compiled()
def product(left, right):
    return left * right


@compiled()
def usual_product(left, right):
    return left * right


def fail(left, right):
    raise ArithmeticError(left * right)


@pytest.mark.skipif(not subnormals._IS_X86, reason="other processors have no such register")
def test_they_are_zero_in_a_kernel_only():
    assert usual_product(*SMALL) > 0
    assert product(*SMALL) == 0
    assert usual_product(*SMALL) > 0
    assert np.multiply(*SMALL) > 0
    assert product(np.float32(1e-40), np.float32(1e10)) == 0
    assert product(2.0, 3.0) == 6


def test_they_are_numbers_again_after_an_error():
    with pytest.raises(ArithmeticError) as caught:
        subnormals.without_subnormals(fail)(*SMALL)
    assert (caught.value.args[0] == 0) == subnormals._IS_X86
    assert usual_product(*SMALL) > 0


def test_floating_point_errors_are_told_as_before():
    product(*SMALL)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        np.float32(1) / np.float32(0)

"""Training runs of LSI, in process: what arrives, what is given up, and what is folded."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.training.lsi import LsiTask, LsiTraining, train

NUM_TERMS = 60


def matrix(seed: int = 0, documents: int = 90) -> np.ndarray:
    return np.random.default_rng(seed).poisson(0.4, (NUM_TERMS, documents)).astype(float)


def chunk_of(values: np.ndarray) -> Chunk:
    return as_chunk(scipy.sparse.csc_array(values), len(values))


@pytest.mark.parametrize("first", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_corpus_that_outgrows_its_first_chunk(first, dtype):
    """By more than the first product was prepared for, also where the first chunk has nothing but zeros."""
    parts = [matrix(0, 30) * first, matrix(1, 30), matrix(2, 30) * 1e4]
    with ThreadsEngine(2) as engine:
        _, s = train(engine, LsiTask(NUM_TERMS, 10, dtype=dtype), map(chunk_of, parts))
    exact = np.linalg.svd(np.hstack(parts), compute_uv=False)[:10]
    np.testing.assert_allclose(s, exact, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_an_addition_of_another_size(scale):
    parts = [matrix(0, 30), matrix(1, 30) * scale]
    with ThreadsEngine(2) as engine, LsiTraining("lsi", engine, LsiTask(NUM_TERMS, 10)) as training:
        for number in range(2):
            _, s = training.add_documents([chunk_of(parts[number])])
            exact = np.linalg.svd(np.hstack(parts[: number + 1]), compute_uv=False)[:10]
            np.testing.assert_allclose(s, exact, rtol=1e-4)


def test_what_folding_keeps_is_accurate():
    """All triplets that stand for the folded documents, not only those that are wanted in the end."""
    values = matrix(3)
    task = LsiTask(NUM_TERMS, 5, dtype="float64")
    with ThreadsEngine(2) as engine, LsiTraining("lsi", engine, task, fold_at=1) as training:
        training.put(chunk_of(values[:, :80]))
        training.put(chunk_of(values[:, 80:]))
        assert training._base is not None
        exact = np.linalg.svd(values[:, :80], compute_uv=False)[:10]
        np.testing.assert_allclose(training._base.s, exact, rtol=1e-4)

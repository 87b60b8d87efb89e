"""LSI of a corpus with many equal singular values, on one worker and on two, against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from distcorpus import LocalCluster
from distcorpus.models import LsiModel

TOPICS = 32


@pytest.fixture(scope="module")
def matrix() -> scipy.sparse.csc_array:
    """40 groups of 100 one-word documents, of which the singular values are 10, beside weaker documents of
    other terms; in any order.
    """
    random = np.random.RandomState(0)
    groups = scipy.sparse.kron(scipy.sparse.eye(40), np.ones((1, 100)))
    others = scipy.sparse.random(460, 700, 0.006, random_state=random, data_rvs=random.random_sample)
    both = scipy.sparse.csc_array(scipy.sparse.block_diag([groups, others]))
    return both[:, random.permutation(both.shape[1])]


@pytest.fixture(scope="module", params=[1, 2])
def workers(request):
    with LocalCluster(n_workers=request.param) as cluster:
        yield cluster


def train(matrix, **options):
    words = dict.fromkeys(range(matrix.shape[0]), "word")
    return LsiModel(matrix, id2word=words, num_topics=TOPICS, chunksize=500, **options).projection


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_singular_values_on_workers(workers, matrix, dtype):
    exact = np.linalg.svd(matrix.toarray(), compute_uv=False)
    assert np.ptp(exact[:40]) < 1e-12 < exact[39] - exact[40]  # more of them than topics
    projection = train(matrix, dtype=dtype, distributed=True)
    here = train(matrix, dtype=dtype, workers=1)
    assert projection.u.tobytes() == here.u.tobytes()
    assert projection.s.tobytes() == here.s.tobytes()
    np.testing.assert_allclose(projection.s, exact[:TOPICS], rtol=1e-4)
    u = projection.u.astype(np.float64)
    assert np.abs(u.T @ u - np.eye(TOPICS)).max() < (1e-5 if dtype == np.float32 else 1e-12)
    residuals = np.linalg.norm(matrix @ (matrix.T @ u) - u * projection.s**2, axis=0)
    assert residuals.max() <= 2 * np.sqrt(1e-4) * exact[0] ** 2

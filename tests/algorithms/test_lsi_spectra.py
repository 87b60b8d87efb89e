"""LSI is exact on every spectrum: against LAPACK, where many singular values are equal or nearly so.

``LSI_SEEDS=20 pytest -m "" tests/algorithms/test_lsi_spectra.py`` tries more of the random matrices, as
``tox -e long`` does of the long ones.
"""

from __future__ import annotations

import itertools
import os
import re

import numpy as np
import pytest
import scipy.sparse

from distcorpus.algorithms import _lsi_iteration, _lsi_proof
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.algorithms.lsi import bound_foreseen, factorise

from ..in_this_process import lsi

DTYPES = ["float32", "float64"]
SEEDS = range(int(os.environ.get("LSI_SEEDS", "1")))
TERMS, DOCUMENTS = 500, 400
#: What a caller of `factorise`, and of `LsiModel`, can do.
REMEDY = "ask for fewer topics (num_topics), or for so much work (power_iters, extra_samples)"


def matrix_of(spectrum, seed, shape=(TERMS, DOCUMENTS)):
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.standard_normal((n, len(spectrum))))[0] for n in shape)
    return (u * spectrum) @ v.T


def factors_of(matrix, num_topics, dtype, seed=0, **options):
    def product(q):
        return matrix.astype(q.dtype) @ (matrix.T.astype(q.dtype) @ q)

    squared_norm = float(np.square(matrix).sum())
    return factorise(
        product, len(matrix), num_topics, squared_norm=squared_norm, dtype=dtype, seed=seed, **options
    )


def assert_exact(factors, matrix, num_topics, tolerance=1e-4):
    """All wanted values, orthonormal vectors, and ``A A' u = s**2 u`` as far as the tolerance implies it."""
    u, s = factors
    exact = np.linalg.svd(matrix, compute_uv=False)
    rank = min(num_topics, int(np.count_nonzero(exact > 1e-9 * exact[0])))
    assert s.shape == (rank,)
    np.testing.assert_allclose(s, exact[:rank], rtol=tolerance)
    precise = u.astype(np.float64)
    assert np.abs(precise.T @ precise - np.eye(rank)).max() < (1e-5 if u.dtype == np.float32 else 1e-12)
    residuals = np.linalg.norm(matrix @ (matrix.T @ precise) - precise * s**2, axis=0)
    # A value that is off by e**2 has a vector that is off by e.
    assert residuals.max() <= 2 * np.sqrt(tolerance) * s[0] ** 2


def tail(number, below):
    return 0.6 * below * np.arange(1.0, number + 1) ** -0.4


def equal(copies, before=0):
    rest = tail(DOCUMENTS - before - copies, 10.0)
    return np.concatenate([np.linspace(30, 15, before), np.full(copies, 10.0), rest])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("copies", "num_topics"),
    [(5, 15), (17, 32), (40, 60), (200, 230)]
    + [
        pytest.param(*case, marks=pytest.mark.long)
        for case in [(5, 3), (17, 9), (40, 20), (70, 35), (70, 80), (200, 60)]
    ],
)
@pytest.mark.parametrize("before", [0, 8])
def test_equal_singular_values(copies, num_topics, before, seed, dtype):
    """Fewer topics than there are copies, and more; a block of the iteration sees 16 of them at most."""
    matrix = matrix_of(equal(copies, before), seed)
    assert_exact(factors_of(matrix, num_topics, dtype, seed), matrix, num_topics)


SPECTRA = {
    "slow decay": 10 * np.arange(1.0, DOCUMENTS + 1) ** -0.1,
    "middling decay": 10 * np.arange(1.0, DOCUMENTS + 1) ** -0.5,
    "fast decay": 10 * 0.9 ** np.arange(DOCUMENTS),
    "plateaus": np.repeat(10 * 0.8 ** np.arange(DOCUMENTS // 25), 25),
    "a plateau that slopes": np.r_[np.linspace(10.01, 10, 150), tail(DOCUMENTS - 150, 10)],
    "near ties": np.r_[np.linspace(20, 11, 27), 10 * (1 - 1e-5 * np.arange(40)), tail(DOCUMENTS - 67, 9)],
    "one that dwarfs equal ones": np.r_[200.0, np.full(80, 2.0), tail(DOCUMENTS - 81, 2)],
    "low rank": np.linspace(9, 8, 45),
    "low rank, all equal": np.full(45, 3.0),
    "flat": np.full(DOCUMENTS, 2.0),
    "two scales": np.r_[np.full(30, 1000.0), np.full(60, 1.0), tail(DOCUMENTS - 90, 1)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "num_topics", [32, *(pytest.param(number, marks=pytest.mark.long) for number in (10, 60))]
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "near ties")) for name in SPECTRA]
)
def test_other_spectra(name, num_topics, seed, dtype):
    matrix = matrix_of(SPECTRA[name], seed)
    assert_exact(factors_of(matrix, num_topics, dtype, seed), matrix, num_topics)


def chunks_of(matrix, n_chunks=3):
    bounds = np.linspace(0, matrix.shape[1], n_chunks + 1).astype(int)
    sparse = scipy.sparse.csc_array(matrix)
    return [as_chunk(sparse[:, a:b], matrix.shape[0]) for a, b in itertools.pairwise(bounds)]


def block_diagonal(seed=0):
    """40 groups of 100 one-word documents beside random documents of other terms."""
    random = np.random.RandomState(seed)
    groups = scipy.sparse.kron(scipy.sparse.eye(40), np.ones((1, 100)))
    others = scipy.sparse.random(
        460, 700, 0.006, random_state=random, data_rvs=lambda n: random.poisson(1, n) + 1
    )
    return scipy.sparse.block_diag([groups, others]).toarray()


def one_hot(seed=0):
    random = np.random.default_rng(seed)
    matrix = np.zeros((500, 1200))
    matrix[random.integers(0, 50, 1200), np.arange(1200)] = 1
    matrix[random.integers(50, 500, 3000), random.integers(0, 1200, 3000)] += 1
    return matrix


CORPORA = {
    "block-diagonal": block_diagonal(),
    "permuted identity": np.eye(300)[np.random.default_rng(0).permutation(300)],
    "every document nine times": np.repeat(np.random.default_rng(0).poisson(0.02, (400, 60)), 9, axis=1),
    "every term nine times": np.repeat(np.random.default_rng(0).poisson(0.02, (50, 300)), 9, axis=0),
    "templates": np.kron(np.eye(90), np.ones((5, 4))),
    "one-hot metadata": one_hot(),
    "a chunk of nothing first": np.hstack([np.zeros((200, 100)), np.kron(np.eye(40), np.ones((5, 5)))]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_topics", [5, 45, 60])
@pytest.mark.parametrize("name", CORPORA)
def test_corpora_with_equal_singular_values(name, num_topics, dtype):
    matrix = CORPORA[name].astype(float)
    assert_exact(lsi(chunks_of(matrix), len(matrix), num_topics, dtype=dtype), matrix, num_topics)


@pytest.mark.parametrize("dtype", DTYPES)
def test_folding_loses_no_more_than_is_documented(dtype):
    """Each fold drops what is beyond 2k directions: with a rank of no more, nothing."""
    matrix = np.kron(np.eye(30), np.ones((8, 20)))[:, np.random.default_rng(0).permutation(600)]
    chunks = chunks_of(matrix, 6)
    factors = lsi(chunks, len(matrix), 20, dtype=dtype, fold_at=2 * chunks[0].nbytes)
    assert_exact(factors, matrix, 20, 3e-4)  # a tolerance for each of the folds


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_chunks", [3, 6])
def test_folding_of_more_equal_values_than_it_keeps(n_chunks, dtype):
    """40 groups of 60 one-word documents, of which a fold keeps 30: no value grows, and none loses more than
    the folds have dropped. They come before every third chunk, from which it is a bound (Weyl's) that the
    first value beyond 2k is none larger than that of all documents so far.
    """
    matrix = np.kron(np.eye(40), np.ones((1, 60)))[:, np.random.default_rng(0).permutation(2400)]
    chunks = chunks_of(matrix, n_chunks)
    u, s = lsi(chunks, len(matrix), 15, dtype=dtype, fold_at=2 * chunks[0].nbytes)
    per_chunk = 2400 // n_chunks
    folds = [matrix[:, : number * per_chunk] for number in range(2, n_chunks, 2)]
    dropped = sum(np.linalg.svd(before, compute_uv=False)[30] ** 2 for before in folds)
    assert s.shape == (15,)
    assert (s**2 <= 60 * (1 + 3e-4)).all()
    assert (s**2 >= (60 - dropped) * (1 - 3e-4)).all()
    assert (60 - dropped) > 0
    # What it gives is what the documents of its directions are: no vector has a value that it has not.
    assert (np.linalg.norm(matrix.T @ u.astype(np.float64), axis=0) >= s * (1 - 3e-4)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-30, 30])
def test_no_bit_depends_on_the_scale(dtype, exponent):
    """Values around 1e-9 and 1e9 are but powers of two away from values around 1."""
    matrix = block_diagonal()
    u, s = lsi(chunks_of(matrix), len(matrix), 45, dtype=dtype)
    other_u, other_s = lsi(chunks_of(np.ldexp(matrix, exponent)), len(matrix), 45, dtype=dtype)
    assert other_u.tobytes() == u.tobytes()
    np.testing.assert_array_equal(other_s, np.ldexp(s, exponent))
    assert bound_foreseen(2.0 ** (2 * exponent)) == 2.0 ** (2 * exponent) * bound_foreseen(1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_scales_at_the_ends_of_float32(dtype, factor):
    matrix = one_hot() * factor
    assert_exact(lsi(chunks_of(matrix), len(matrix), 20, dtype=dtype), matrix, 20)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9])
def test_a_value_that_dwarfs_the_wanted_ones(ratio, dtype):
    """Right, or an error; or left out where they are not told from zero. In float32 it takes float64."""
    spectrum = np.r_[ratio, np.linspace(2, 1, 20), tail(100, 1)]
    matrix = matrix_of(spectrum, 0)
    try:
        _, s = factors_of(matrix, 15, dtype)
    except ArithmeticError as error:
        assert REMEDY in str(error)  # noqa: PT017
        assert ratio > 1e4
    else:
        np.testing.assert_allclose(s, spectrum[: len(s)], rtol=1e-4)
        assert len(s) == 15 or ratio >= 1e7


def test_the_basis_is_bounded(monkeypatch):
    """It begins again from its Ritz vectors, as often as it takes; at some point that is an error."""
    sizes = []

    class Watched(_lsi_iteration.Basis):
        def append(self, block, apart=False):
            super().append(block, apart)
            sizes.append(self.size)

    monkeypatch.setattr(_lsi_iteration, "Basis", Watched)
    monkeypatch.setattr(_lsi_iteration, "basis_bound", lambda returned: 180)
    matrix = matrix_of(SPECTRA["slow decay"], 0)
    assert_exact(factors_of(matrix, 40, "float64"), matrix, 40)
    assert max(sizes) <= 180
    assert any(after < before for before, after in itertools.pairwise(sizes))
    monkeypatch.setattr(_lsi_iteration, "RESTARTS", 0)
    with pytest.raises(ArithmeticError, match=re.escape(REMEDY)):
        factors_of(matrix, 40, "float64")


# The proof by itself


def lanczos(matrix, probe, steps):
    """The block Lanczos process: the matrix in its basis, the next coupling, the probe's coordinates."""
    first, lengths = np.linalg.qr(probe)
    blocks = [first]
    for _ in range(steps):
        image = matrix @ blocks[-1]
        for _ in range(2):
            for block in blocks:
                image -= block @ (block.T @ image)
        blocks.append(np.linalg.qr(image)[0])
    basis, following = np.hstack(blocks[:-1]), blocks[-1]
    return basis.T @ matrix @ basis, following.T @ matrix @ basis, lengths


@pytest.mark.long
@pytest.mark.parametrize("failure", [0.3, 0.01])
def test_the_bound_fails_as_seldom_as_it_says(failure):
    """One eigenvalue stands out by little: few steps do not always see it."""
    random = np.random.default_rng(0)
    values = np.r_[1.0, np.linspace(0.8, 0, 199)]
    failed = given = 0
    for _ in range(300):
        matrix, coupling, lengths = lanczos(np.diag(values), random.standard_normal((200, 2)), 12)
        bound, largest = _lsi_proof.complement_bound(
            matrix, coupling, lengths, steps=12, floor=1e-12, limit=1.5, failure=failure
        )
        assert largest <= 1 + 1e-12
        if bound is not None:
            given += 1
            failed += bound < 1
    assert given > 200
    assert failed <= 300 * failure


def test_the_probe_sees_what_is_there():
    values = np.r_[np.full(30, 1.0), np.linspace(0.8, 0, 270)]
    probe = np.random.default_rng(0).standard_normal((300, 16))
    matrix, coupling, lengths = lanczos(np.diag(values), probe, 6)
    options = {"steps": 6, "floor": 1e-12}
    assert _lsi_proof.complement_bound(matrix, coupling, lengths, limit=0.99, **options)[0] is None
    bound, largest = _lsi_proof.complement_bound(matrix, coupling, lengths, limit=2.0, **options)
    assert largest == pytest.approx(1, abs=1e-3)
    assert 1 <= bound < 1.2


def test_no_more_eigenvalues_than_counted():
    random = np.random.default_rng(1)
    for _ in range(50):
        symmetric = random.standard_normal((40, 40))
        symmetric += symmetric.T
        theta, rotation = np.linalg.eigh(symmetric[:15, :15])
        residuals = symmetric[15:, :15] @ rotation
        c = np.linalg.eigvalsh(symmetric[15:, 15:])[-1]
        true = np.linalg.eigvalsh(symmetric)
        for x in c + np.array([0.01, 1.0, 5.0, 20.0]):
            counted = _lsi_proof.exceeding(theta, residuals, x, c)
            shifted = np.diag(theta) + residuals.T @ residuals / (x - c)
            assert counted == np.count_nonzero(np.linalg.eigvalsh(shifted) > x)
            assert counted >= np.count_nonzero(true > x)

"""LSI against dense and ARPACK singular value decompositions, on real text and on the edge cases."""

from __future__ import annotations

import itertools
import re
import threading

import gensim
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from gensim.test.utils import datapath
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distcorpus.algorithms import summation
from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.algorithms.lsi import (
    block_width,
    chunk_weights,
    chunks_since,
    factorise,
    iteration_dtype,
    must_fold,
    product_grid,
    start_block,
)
from distcorpus.algorithms.rows import SLICE
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.kernels import Product, ProductParams, product
from distcorpus.training.lsi import LsiTask, LsiTraining, train

from ..in_this_process import lsi

DTYPES = ["float32", "float64"]
ORTHONORMAL = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(scope="module")
def lee() -> scipy.sparse.csc_array:
    """TF-IDF of gensim's Lee corpus, terms x documents."""
    with open(datapath("lee_background.cor"), encoding="utf8") as lines:
        texts = [re.findall(r"[a-z]{2,15}", line.lower()) for line in lines]
    dictionary = gensim.corpora.Dictionary(texts)
    dictionary.filter_extremes(no_below=2, no_above=0.5)
    bags = [dictionary.doc2bow(text) for text in texts]
    tfidf = gensim.models.TfidfModel(bags)
    return scipy.sparse.csc_array(gensim.matutils.corpus2csc(tfidf[bags], num_terms=len(dictionary)))


def chunks_of(matrix: scipy.sparse.csc_array, n_chunks: int = 1) -> list[Chunk]:
    bounds = np.linspace(0, matrix.shape[1], n_chunks + 1).astype(int)
    return [as_chunk(matrix[:, a:b], matrix.shape[0]) for a, b in itertools.pairwise(bounds)]


def exact(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    return u, s


def assert_factors(factors, matrix, num_topics, tolerance, angle=None):
    """The leading triplets, all that there are, with orthonormal vectors and canonical signs."""
    u, s = factors
    exact_u, exact_s = exact(matrix)
    rank = int(np.count_nonzero(exact_s > 1e-9 * max(exact_s.max(initial=0), 1e-300)))
    k = min(num_topics, rank)
    assert u.shape == (matrix.shape[0], k)
    assert s.shape == (k,)
    assert s.dtype == np.float64
    np.testing.assert_allclose(s, exact_s[:k], rtol=tolerance)
    assert np.abs(u.T.astype(np.float64) @ u - np.eye(k)).max(initial=0) < ORTHONORMAL[u.dtype.name]
    for column in u.T:
        assert column[np.flatnonzero(column)[0]] > 0
    if angle is not None:
        cosines = np.linalg.svd(exact_u[:, :k].T @ u, compute_uv=False)
        assert cosines.min() > 1 - angle


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-4), ("float64", 1e-10)])
def test_lee_against_arpack(lee, dtype, tolerance):
    k = 30
    u, s = lsi(chunks_of(lee, 3), lee.shape[0], k, dtype=dtype, tolerance=tolerance)
    exact_u, exact_s, _ = scipy.sparse.linalg.svds(lee, k=k)
    np.testing.assert_allclose(s, exact_s[::-1], rtol=tolerance)
    assert u.dtype == dtype
    assert np.linalg.svd(exact_u.T @ u, compute_uv=False).min() > (0.99 if tolerance > 1e-6 else 1 - 1e-8)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("float32", 1e-12), ("float32", 1e10), ("float64", 1e-25), ("float64", 1e10), ("float64", 1e100)],
)
def test_values_of_any_size(lee, dtype, factor):
    u, s = lsi(chunks_of(lee * factor), lee.shape[0], 10, dtype=dtype)
    assert_factors((u, s / factor), lee.toarray(), 10, 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [1, 7, 40])
def test_any_block_width_will_do(lee, dtype, block):
    product, norm = product_of(chunks_of(lee), dtype)
    factors = factorise(
        product, lee.shape[0], 10, squared_norm=norm, dtype=dtype, block=block, tolerance=1e-6
    )
    assert_factors(factors, lee.toarray(), 10, 2e-6, angle=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(np.outer(np.arange(1, 51), np.ones(60)), id="rank one"),
        pytest.param(np.random.default_rng(0).poisson(0.3, (40, 5)), id="fewer documents than topics"),
        pytest.param(np.random.default_rng(0).poisson(0.3, (5, 60)), id="fewer terms than topics"),
        pytest.param(np.ones((1, 9)), id="one term"),
        pytest.param(np.eye(1), id="one term in one document"),
        pytest.param(np.zeros((30, 8)), id="all zero"),
        pytest.param(np.zeros((30, 0)), id="no documents"),
        pytest.param(
            np.pad(np.random.default_rng(1).poisson(0.5, (40, 30)), ((3, 60), (2, 9))), id="empty rows"
        ),
        pytest.param(np.kron(np.eye(40), np.ones((2, 3))), id="equal singular values"),
    ],
)
def test_short_answers_are_right(matrix, dtype):
    sparse = scipy.sparse.csc_array(matrix.astype(float))
    factors = lsi(chunks_of(sparse, 2), matrix.shape[0], 12, dtype=dtype)
    if matrix.shape[1] == 0 or not matrix.any():
        assert factors[0].shape == (matrix.shape[0], 0)
        assert factors[1].shape == (0,)
    else:
        assert_factors(factors, matrix, 12, 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "spectrum",
    [
        pytest.param(1 / np.sqrt(np.arange(1.0, 101)), id="slow decay"),
        pytest.param(np.full(100, 2.0), id="flat"),
        pytest.param(np.linspace(9, 8, 25), id="rank between a block and the topics"),
        pytest.param(np.r_[np.linspace(9, 8, 25), np.linspace(0.3, 0.1, 75)], id="a cliff among the wanted"),
        pytest.param(np.r_[100.0, np.linspace(2, 1, 99)], id="one that dwarfs the others"),
    ],
)
def test_any_spectrum(spectrum, dtype):
    """Whether the filter suits the matrix or not, which an estimate has to tell, the answer is right."""
    random = np.random.default_rng(5)
    u, v = (np.linalg.qr(random.standard_normal((n, len(spectrum))))[0] for n in (300, 150))
    matrix = (u * spectrum) @ v.T
    factors = lsi(chunks_of(scipy.sparse.csc_array(matrix)), 300, 30, dtype=dtype)
    assert_factors(factors, matrix, 30, 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_basis_stays_orthonormal(dtype):
    """Beside a large singular value, rounding grows from step to step unless it is seen to."""
    random = np.random.default_rng(0)
    spectrum = np.r_[300.0, np.linspace(2, 1, 299)]
    u, v = (np.linalg.qr(random.standard_normal((n, len(spectrum))))[0] for n in (1200, 400))
    matrix = (u * spectrum) @ v.T

    def product(q):
        return matrix.astype(q.dtype) @ (matrix.T.astype(q.dtype) @ q)

    squared_norm = float((spectrum**2).sum())
    factors = factorise(product, 1200, 30, squared_norm=squared_norm, dtype=dtype)
    assert_factors(factors, matrix, 30, 1e-4)


def test_no_chunks_at_all():
    u, s = lsi([], 7, 3)
    assert u.shape == (7, 0)
    assert s.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decay_weighs_the_chunks(lee, dtype):
    chunks = chunks_of(lee, 4)
    factors = lsi(chunks, lee.shape[0], 10, decay=0.6, dtype=dtype, tolerance=1e-6)
    bounds = np.linspace(0, lee.shape[1], 5).astype(int)
    weighted = [lee[:, a:b].toarray() * 0.6 ** (3 - i) for i, (a, b) in enumerate(itertools.pairwise(bounds))]
    assert_factors(factors, np.hstack(weighted), 10, 2e-6, angle=1e-4)


def test_additions_with_decay_and_all_at_once_agree(lee):
    """A base of full rank loses nothing, so two calls must do what one does, decay included."""
    chunks, n = chunks_of(lee, 4), lee.shape[0]
    options = {"dtype": "float64", "tolerance": 1e-9, "decay": 0.8}
    first = lsi(chunks[:2], n, 150, **options)
    assert len(first[1]) == np.linalg.matrix_rank(lee[:, :150].toarray())  # a few documents are there twice
    u, s = lsi(chunks[2:], n, 10, base=first, **options)
    whole_u, whole_s = lsi(chunks, n, 10, **options)
    np.testing.assert_allclose(s, whole_s, rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(u * whole_u, axis=0)), 1, rtol=1e-6)


def test_a_base_alone_is_returned(lee):
    u, s = lsi(chunks_of(lee), lee.shape[0], 8, dtype="float64", tolerance=1e-10)
    again_u, again_s = lsi([], lee.shape[0], 8, base=(u, s), dtype="float64", tolerance=1e-10)
    np.testing.assert_allclose(again_s, s, rtol=1e-9)
    np.testing.assert_allclose(again_u, u, atol=1e-6)


def test_merging_two_halves(lee):
    """What travels between models is U and s; merging two takes one as the base and one as documents."""
    left, right = chunks_of(lee, 2)
    n, k = lee.shape[0], 10
    u, s = lsi([right], n, 3 * k)
    base = lsi([left], n, 3 * k)
    pseudo_documents = as_chunk(scipy.sparse.csc_array(u.astype(float) * s), n)
    merged = lsi([pseudo_documents], n, k, base=base)
    assert_factors(merged, np.hstack([u * s, base[0] * base[1]]), k, 1e-4)


def test_folding_keeps_to_the_budget_and_is_close(lee, monkeypatch):
    chunks, n, k = chunks_of(lee, 6), lee.shape[0], 10
    kept = []
    original = LsiTraining._factorise

    def watched(training, *arguments):
        kept.append(sum(chunks[n].nbytes for n in {block.key[0] for block in training._blocks.values()}))
        return original(training, *arguments)

    monkeypatch.setattr(LsiTraining, "_factorise", watched)
    budget = max(a.nbytes + b.nbytes for a, b in itertools.pairwise(chunks))
    _, s = lsi(chunks, n, k, fold_at=budget)
    assert len(kept) == 3
    assert max(kept) <= budget
    # By dense algebra: two chunks at a time (the sizes differ), 2k directions of each fold.
    folded = np.zeros((n, 0))
    bounds = np.linspace(0, lee.shape[1], 7).astype(int)
    for first, last in ((0, 2), (2, 4), (4, 6)):
        u, values = exact(np.hstack([folded, lee[:, bounds[first] : bounds[last]].toarray()]))
        folded = (u * values)[:, : 2 * k]
    np.testing.assert_allclose(s, values[:k], rtol=1e-3)


def test_when_to_fold():
    assert not must_fold(0, 100, 50)
    assert not must_fold(50, 50, 100)
    assert must_fold(51, 50, 100)
    assert not must_fold(10**12, 10**12, None)
    assert chunk_weights([1, 3], 3, 0.5) == {1: 0.0625, 3: 1.0}


def test_weights_of_chunks_that_were_there_before():
    """Beside each other they count as they did; what is new weighs them all down alike."""
    settled = (0.3, 7.0)
    assert chunk_weights([0], 0, 0.5, settled) == {0: 0.3}
    assert chunk_weights([0, 1], 1, 0.5, settled) == {0: 0.3, 1: 7.0}
    assert chunk_weights([0, 1, 2], 2, 0.5, settled) == {0: 0.3 / 4, 1: 7.0 / 4, 2: 1.0}
    assert chunk_weights([1, 2, 3], 3, 0.5, settled) == {1: 7.0 / 16, 2: 0.25, 3: 1.0}
    # Of a base that ends before chunk `start`.
    assert [chunks_since(start, 5, 2) for start in range(6)] == [3, 3, 3, 2, 1, 0]
    assert [chunks_since(0, end, 2) for end in range(4)] == [0, 0, 0, 1]


def test_keep_returns_more_directions(lee):
    product, squared_norm = product_of(chunks_of(lee), "float32")
    u, s = factorise(product, lee.shape[0], 10, squared_norm=squared_norm, keep=20)
    assert u.shape == (lee.shape[0], 20)
    np.testing.assert_allclose(s[:10], exact(lee.toarray())[1][:10], rtol=1e-4)


def test_work_as_gensim_states_it(lee):
    product, squared_norm = product_of(chunks_of(lee), "float64")
    widths = []

    def counted(q):
        widths.append(q.shape[1])
        return product(q)

    errors = []
    for power_iters in range(3):
        widths.clear()
        _, s = factorise(
            counted,
            lee.shape[0],
            10,
            squared_norm=squared_norm,
            dtype="float64",
            power_iters=power_iters,
            extra_samples=5,
        )
        assert widths == [15] * (power_iters + 2)  # the start's, then one a step
        errors.append(np.abs(s / exact(lee.toarray())[1][:10] - 1).max())
    assert errors[0] > errors[1] > errors[2]


def test_a_start_computed_elsewhere(lee):
    """A rough start is as good: chunks may arrive before the norm, hence the grid, is known."""
    product, squared_norm = product_of(chunks_of(lee), "float32")
    n = lee.shape[0]
    omega = start_block(n, 10, 0, "float32")
    np.testing.assert_allclose(np.linalg.norm(omega, axis=0), 1, rtol=1e-5)
    assert omega.shape == (n, block_width(n, 10))
    start = np.round(product(omega), 2)
    _, s = factorise(product, n, 10, squared_norm=squared_norm, start=start)
    np.testing.assert_allclose(s, exact(lee.toarray())[1][:10], rtol=1e-4)
    _, s = factorise(product, n, 10, squared_norm=squared_norm, start=np.zeros_like(start))
    np.testing.assert_allclose(s, exact(lee.toarray())[1][:10], rtol=1e-4)


def product_of(chunks, dtype):
    """The product over chunks, each one block, without `Product`: an independent reference."""
    matrix = scipy.sparse.hstack(
        [
            scipy.sparse.csr_array((c.data, c.indices, c.indptr), shape=(c.n_docs, c.num_terms)).T
            for c in chunks
        ]
    ).astype(dtype)
    return (lambda q: matrix @ (matrix.T @ q)), float((matrix.data.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(
    ("first", "roughness", "given_up"),
    [
        pytest.param(3.0, 0.0, None, id="float32 will do"),
        pytest.param(35.0, 0.0, None, id="float32 will do without a filter"),
        pytest.param(1000.0, 0.0, "at once", id="too steep"),
        pytest.param(10.0, 1e-4, "at the end", id="float32 is rougher than foreseen"),
    ],
)
def test_float64_is_computed_in_float32_where_that_will_do(first, roughness, given_up):
    random = np.random.default_rng(5)
    spectrum = np.r_[first, np.linspace(2, 1, 99)]
    u, v = (np.linalg.qr(random.standard_normal((n, len(spectrum))))[0] for n in (300, 150))
    matrix = (u * spectrum) @ v.T
    asked = []

    def product(q):
        asked.append(q.dtype.name)
        y = matrix @ (matrix.T @ q)
        if q.dtype == np.float32:
            y += roughness * first**2 * random.standard_normal(y.shape) / np.sqrt(len(y))
        return y

    squared_norm = float((spectrum**2).sum())
    factors = factorise(product, 300, 20, squared_norm=squared_norm, dtype="float64")
    assert factors[0].dtype == np.float64
    assert_factors(factors, matrix, 20, 1e-4)
    single, double = asked.count("float32"), asked.count("float64")
    assert asked == ["float32"] * single + ["float64"] * double
    assert single == 2 if given_up == "at once" else single > 5
    assert double == 1 if given_up is None else double > 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype):
    n = 3 * SLICE + 5
    matrix = scipy.sparse.random_array((n, 400), density=0.01, rng=np.random.default_rng(2), format="csc")
    options = {"dtype": dtype, "tolerance": 1e-3}
    with ThreadsEngine(1) as one_thread, ThreadsEngine(3) as three:
        task = LsiTask(n, 40, **options)
        alone, together = (train(engine, task, chunks_of(matrix)) for engine in (one_thread, three))
    squares = np.linalg.eigvalsh((matrix.T @ matrix).toarray())[:-41:-1]
    np.testing.assert_allclose(alone[1], np.sqrt(squares), rtol=1e-3)
    for one, other in zip(alone, together, strict=True):
        assert one.tobytes() == other.tobytes()


def test_the_type_in_which_the_iteration_begins():
    assert iteration_dtype(1000, 10, "float64") == np.float32
    assert iteration_dtype(1000, 10, "float64", tolerance=1e-6) == np.float64
    assert iteration_dtype(1000, 10, "float64", power_iters=2) == np.float64
    assert iteration_dtype(30, 10, "float64") == np.float64
    assert iteration_dtype(1000, 10, "float64", squared_norm=1e37) == np.float64
    assert iteration_dtype(1000, 10, "float32") == np.float32
    assert iteration_dtype(1000, 10, "float32", tolerance=1e-6) == np.float64
    assert iteration_dtype(30, 10, "float32") == np.float64
    assert iteration_dtype(30, 10, "float32", power_iters=2) == np.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": np.int32}, "float32 or float64"),
        ({"num_topics": 0}, "num_topics=0"),
        ({"squared_norm": np.inf}, "must be finite"),
        ({"product": lambda q: q[:-1]}, "an array of shape"),
        ({"product": lambda q: q * np.nan}, "not finite"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"product": lambda q: q, "num_terms": 30, "num_topics": 3, "squared_norm": 30.0, **options}
    with pytest.raises(ValueError, match=message):
        factorise(**arguments)


def test_the_error_estimate_is_honest(lee):
    """Where the estimate ends the iteration, the true error is within the tolerance, and not by far."""
    true = exact(lee.toarray())[1]
    for tolerance in (1e-2, 1e-3, 1e-5):
        product, norm = product_of(chunks_of(lee), "float64")
        options = {"squared_norm": norm, "dtype": "float64", "tolerance": tolerance, "block": 4}
        _, s = factorise(product, lee.shape[0], 20, **options)
        error = np.abs(s / true[:20] - 1).max()
        assert tolerance / 1000 < error < tolerance


# The kernel of a job


def job(chunks, dtype, q, words=None, weights=None, grid_bits=None):
    squared_norm = sum(chunk.squared_norm() for chunk in chunks)
    grid = (
        product_grid(squared_norm, dtype)
        if grid_bits is None
        else summation.grid_for(squared_norm, grid_bits)
    )
    params = ProductParams(q.shape[1], grid, dtype, weights)
    if words is None:
        words = np.unique(np.concatenate([chunk.indices for chunk in chunks])).astype(np.int32)
    # The table lists the rows backwards, as one that has other jobs' rows too might.
    table = np.ascontiguousarray(q[words[::-1]])
    table_row = np.full(len(q), -1, np.int32)
    table_row[words[::-1]] = np.arange(len(words))
    return Product(params, words, Product.prepare(table, params), table_row)


@pytest.fixture(params=["compiled", "scipy"])
def kernels(request, monkeypatch):
    if request.param == "scipy":
        monkeypatch.setattr(summation, "compiled_kernels", lambda: None)
        monkeypatch.setattr(product, "compiled_kernels", lambda: None)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 8, 16, 33, 48, 64, 80, 130])
def test_the_product_is_right(lee, kernels, dtype, width):
    chunks, n = chunks_of(lee, 3), lee.shape[0]
    q = np.linalg.qr(np.random.default_rng(width).standard_normal((n, width)))[0]
    part = job(chunks, dtype, q, weights={1: 0.25})
    for number, chunk in enumerate(chunks):
        for block in chunk.split(max_nnz=1000):
            part.add(Product.pack(block), (number, 0))
    matrix = scipy.sparse.hstack([chunk_matrix(c) * w for c, w in zip(chunks, (1, 0.5, 1), strict=True)])
    expected = matrix @ (matrix.T @ q)
    partial = part.result()
    grid = product_grid(sum(chunk.squared_norm() for chunk in chunks), dtype)
    n_blocks = sum(len(chunk.split(max_nnz=1000)) for chunk in chunks)
    rounding = 10 * np.finfo(dtype).eps * np.abs(expected).max()
    got = np.zeros_like(q)
    got[partial.words] = partial.steps * grid
    np.testing.assert_allclose(got, expected, rtol=0, atol=n_blocks * grid / 2 + rounding)
    assert partial.steps.flags.c_contiguous
    assert partial.extras == {}


def chunk_matrix(chunk: Chunk) -> scipy.sparse.csc_array:
    return scipy.sparse.csr_array(
        (chunk.data.astype(float), chunk.indices, chunk.indptr), shape=(chunk.n_docs, chunk.num_terms)
    ).T.tocsc()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_on_the_blocks_alone(lee, dtype):
    """Jobs in any order, in any grouping, by any number of threads: equal bytes."""
    chunk, n = chunks_of(lee)[0], lee.shape[0]
    blocks = chunk.split(max_nnz=1500)
    packed = [Product.pack(block) for block in blocks]
    assert len(blocks) > 10
    q = np.random.default_rng(0).standard_normal((n, 20)) / np.sqrt(n)
    grid = product_grid(chunk.squared_norm(), dtype)
    params = ProductParams(20, grid, dtype)

    def total(jobs, n_threads):
        whole = summation.GridSum(n, 20, grid)
        for members in jobs:
            words = np.unique(np.concatenate([blocks[i].indices for i in members])).astype(np.int32)
            part = Product(params, words, Product.prepare(q, params), np.arange(n, dtype=np.int32))
            barrier = threading.Barrier(n_threads)

            def work(share, part=part, barrier=barrier):
                barrier.wait()
                for i in share:
                    part.add(packed[i], (0, i))

            threads = [threading.Thread(target=work, args=(members[i::n_threads],)) for i in range(n_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            partial = part.result()
            whole.add(partial.words, partial.steps)
        return whole.values().tobytes()

    numbers = list(range(len(blocks)))
    expected = total([numbers], 1)
    shuffled = list(np.random.default_rng(1).permutation(numbers))
    assert total([shuffled], 1) == expected
    assert total([shuffled[i::3] for i in range(3)], 2) == expected
    assert total([[i] for i in shuffled], 1) == expected
    assert total([shuffled], 4) == expected


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (4, 0), (3, 1)])
def test_postings_are_the_block_by_terms(shape):
    dense = np.random.default_rng(0).poisson(0.5, shape).astype(float)
    dense[:, 1:3] = 0  # empty documents have no number
    block = as_chunk(scipy.sparse.csc_array(dense), shape[0])
    lists = Product.pack(block)
    np.testing.assert_array_equal(lists.words, np.flatnonzero(dense.any(axis=1)))
    expected = dense[lists.words][:, dense.any(axis=0)]
    assert expected.shape == (len(lists.words), lists.n_docs)
    matrix = scipy.sparse.csr_array((lists.data, lists.documents, lists.indptr), expected.shape)
    np.testing.assert_array_equal(matrix.toarray(), expected)
    assert lists.nnz == block.nnz
    assert not np.shares_memory(lists.data, block.data)


#: Far from where float32 underflows, which the bound on rounding errors leaves out.
SMALL = st.integers(-4096, 4096).map(lambda value: value / 1024)


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), width=st.sampled_from([1, 8, 16, 17, 33, 64]))
def test_any_blocks_in_any_jobs(data, dtype, width):
    """Empty blocks and documents, single terms, repeated blocks: right, and the same bits in any jobs."""
    num_terms = data.draw(st.integers(1, 6))
    blocks = data.draw(
        st.lists(
            st.integers(0, 7).flatmap(lambda n_docs: arrays(np.float32, (num_terms, n_docs), elements=SMALL)),
            min_size=1,
            max_size=4,
        )
    )
    blocks += blocks[:1]
    chunks = [as_chunk(scipy.sparse.csc_array(block), num_terms) for block in blocks]
    q = np.random.default_rng(0).standard_normal((num_terms, width))
    q = (q / np.linalg.norm(q, axis=0)).astype(dtype)
    weights = {0: 0.49, 1: 2.0}
    grid = product_grid(2 * sum(chunk.squared_norm() for chunk in chunks), dtype)
    params = ProductParams(width, grid, dtype, weights)
    table = Product.prepare(q, params)

    def total():
        whole = summation.GridSum(num_terms, width, grid)
        places = data.draw(st.lists(st.integers(0, 2), min_size=len(chunks), max_size=len(chunks)))
        for job in set(places):
            members = [i for i, place in enumerate(places) if place == job]
            words = np.unique(np.concatenate([chunks[i].indices for i in members])).astype(np.int32)
            part = Product(params, words, table, np.arange(num_terms, dtype=np.int32))
            for i in members:
                part.add(Product.pack(chunks[i]), (i, 0))
            partial = part.result()
            whole.add(partial.words, partial.steps)
        return whole.values()

    got = total()
    assert total().tobytes() == got.tobytes()
    expected, bound = np.zeros(q.shape), np.zeros(q.shape)
    for i, block in enumerate(blocks):
        weight, block = weights.get(i, 1.0), block.astype(float)
        expected += weight * block @ (block.T @ q)
        bound += weight * np.abs(block) @ (np.abs(block).T @ np.abs(q))
    assert (np.abs(got - expected) <= 20 * np.finfo(dtype).eps * bound + len(blocks) * grid).all()


def test_adding_goes_on_after_a_partial(lee):
    chunk = chunks_of(lee)[0]
    q = np.ones((lee.shape[0], 3)) / np.sqrt(lee.shape[0])
    whole, stepwise = job([chunk], "float32", q), job([chunk], "float32", q)
    for i, block in enumerate(chunk.split(max_nnz=5000)):
        whole.add(Product.pack(block), (0, i))
        stepwise.add(Product.pack(block), (0, i))
        stepwise.result()
    np.testing.assert_array_equal(stepwise.result().steps, whole.result().steps)


def test_small_steps_travel_narrow(lee, kernels):
    chunk = chunks_of(lee)[0]
    q = np.ones((lee.shape[0], 3)) / np.sqrt(lee.shape[0])
    for bits, dtype in ((20, np.int32), (50, np.float64)):
        part = job([chunk], "float64", q, grid_bits=bits)
        part.add(Product.pack(chunk), (0, 0))
        assert part.result().steps.dtype == dtype


def test_a_product_beyond_the_bound_is_an_error(lee, kernels):
    chunk = chunks_of(lee)[0]
    q = np.full((lee.shape[0], 2), 1e8)
    part = job([chunk], "float64", q, grid_bits=52)
    with pytest.raises(OverflowError, match=r"^term id \d+: a sum exceeds 2\*\*53 steps .* smaller counts"):
        part.add(Product.pack(chunk), (0, 0))


def test_a_job_without_blocks(lee):
    chunk = chunks_of(lee)[0]
    partial = job([chunk], "float32", np.zeros((lee.shape[0], 2))).result()
    assert partial.steps.shape == (len(chunk.words()), 2)
    assert not partial.steps.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_fallback_gives_the_same_factors(lee, dtype, monkeypatch):
    compiled = lsi(chunks_of(lee), lee.shape[0], 10, dtype=dtype, tolerance=1e-7)
    monkeypatch.setattr(summation, "compiled_kernels", lambda: None)
    monkeypatch.setattr(product, "compiled_kernels", lambda: None)
    plain = lsi(chunks_of(lee), lee.shape[0], 10, dtype=dtype, tolerance=1e-7)
    np.testing.assert_allclose(plain[1], compiled[1], rtol=1e-5)
    np.testing.assert_allclose(plain[0], compiled[0], atol=2e-3 if dtype == "float32" else 1e-3)

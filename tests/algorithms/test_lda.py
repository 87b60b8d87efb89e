"""The E-step, inference and the bound, against gensim's own and against each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gensim.corpora import Dictionary
from gensim.models import LdaModel
from gensim.test.utils import datapath
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import psi
from scipy.stats import gamma as gamma_distribution
from scipy.stats import kstest

from distcorpus.algorithms import _lda_numpy, lda
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.algorithms.lda import LDA_GRID, bound, infer, starting_gamma, topic_bound
from distcorpus.algorithms.stopping import Stop
from distcorpus.algorithms.summation import merge_extras
from distcorpus.kernels import EStep, EStepParams

numba_kernels = pytest.importorskip("distcorpus.algorithms._lda_numba")
NEVER = Stop().flag


@pytest.fixture(params=["numba", "numpy"])
def backend(request, monkeypatch):
    kernels = {"numba": numba_kernels, "numpy": _lda_numpy}[request.param]
    monkeypatch.setattr(lda, "compiled_or_numpy", lambda: kernels)
    return request.param


@pytest.fixture(scope="module")
def lee():
    """100 documents of news, as bags of words, and the size of their vocabulary."""
    with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
        texts = [line.split() for line in lines][:100]
    dictionary = Dictionary(texts)
    dictionary.filter_extremes(no_below=3, no_above=0.5)
    return [dictionary.doc2bow(text) for text in texts], len(dictionary)


class Given:
    """A random state that draws the given gamma."""

    def __init__(self, gamma):
        self.draw = gamma

    def gamma(self, shape, scale, size):
        assert size == self.draw.shape
        return self.draw.copy()


def trained(lee, num_topics, dtype=np.float32, alpha="symmetric"):
    documents, num_terms = lee
    id2word = {i: str(i) for i in range(num_terms)}
    return LdaModel(
        documents,
        num_topics,
        id2word,
        alpha=alpha,
        dtype=dtype,
        random_state=3,
        eval_every=None,
        iterations=50,
    )


def params(model_or_alpha, totals, **changes):
    alpha = getattr(model_or_alpha, "alpha", model_or_alpha)
    settings = {"dtype": "float32", "iterations": 50, "gamma_threshold": 0.001, "seed": 11}
    return EStepParams(alpha, totals, **{**settings, "gamma_statistics": True, **changes})


def estep(lambda_, settings, words, num_terms):
    """An EStep whose table has the words' rows in another order than the words."""
    order = np.random.default_rng(5).permutation(len(words))
    table_row = np.full(num_terms, -1, np.int32)
    table_row[words[order]] = np.arange(len(words))
    return EStep(settings, words, EStep.prepare(lambda_[:, words[order]].T, settings), table_row)


def dense(partial, num_terms, num_topics):
    statistics = np.zeros((num_terms, num_topics))
    statistics[partial.words] = partial.table(num_topics) * LDA_GRID
    return statistics


def relative_l1(got, wanted):
    return np.abs(got - wanted).sum() / np.abs(wanted).sum()


@pytest.mark.parametrize(
    ("num_topics", "dtype", "alpha", "tolerance"),
    [
        (1, np.float32, "symmetric", 1e-5),
        (7, np.float32, "asymmetric", 1e-4),
        (20, np.float32, "symmetric", 1e-4),
        (100, np.float32, "symmetric", 1e-4),
        (40, np.float64, "asymmetric", 1e-7),
    ],
)
def test_statistics_and_gamma_are_gensims(lee, backend, num_topics, dtype, alpha, tolerance):
    documents, num_terms = lee
    model = trained(lee, num_topics, dtype, alpha)
    block = as_chunk(documents, num_terms)
    start = starting_gamma(len(documents), num_topics, 11, (2, 0), dtype)
    model.random_state = Given(start)
    gamma, statistics = model.inference(documents, collect_sstats=True)

    lambda_ = model.state.get_lambda()
    settings = params(model, lambda_.sum(axis=1), dtype=np.dtype(dtype).name)
    step = estep(lambda_, settings, block.words(), num_terms)
    step.add(block, (2, 0))
    partial = step.result()
    assert relative_l1(dense(partial, num_terms, num_topics), statistics.T) < tolerance
    assert partial.extras["documents"] == len(documents)

    table = EStep.prepare(lambda_.T, settings)
    inferred = infer(block, table, np.arange(num_terms, dtype=np.int32), model.alpha, seed=11, key=(2, 0))
    assert inferred.dtype == dtype
    assert relative_l1(inferred, gamma) < tolerance
    log_theta = psi(inferred.astype(float)) - psi(inferred.astype(float).sum(axis=1, keepdims=True))
    steps = partial.extras["gamma_statistics"]
    assert (steps == np.rint(steps)).all()
    np.testing.assert_allclose(steps * LDA_GRID, log_theta.sum(axis=0), rtol=1e-5)


def test_statistics_of_alpha_are_exact_for_documents_of_one_word(backend):
    """Which either use a topic once, or not at all: E[psi(alpha + N)] is a sum of two terms."""
    weights = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]])
    alpha = np.array([0.1, 0.02, 0.3])
    block = as_chunk([[(0, 1)], [(1, 1)], []], 2)
    settings = params(
        alpha, np.ones(3), variant="cvb0", dtype="float64", iterations=500, gamma_threshold=1e-12
    )
    step = EStep(settings, block.words(), EStep.prepare(weights, settings), np.arange(2, dtype=np.int32))
    step.add(block, (0, 0))
    gamma = infer(
        block,
        weights,
        np.arange(2, dtype=np.int32),
        alpha,
        variant="cvb0",
        iterations=500,
        gamma_threshold=1e-12,
    )
    used = gamma - alpha  # the probabilities, since there is one word
    expected = psi(alpha) + used * (psi(alpha + 1) - psi(alpha)) - psi(gamma.sum(axis=1))[:, None]
    steps = step.result().extras["gamma_statistics"]
    np.testing.assert_allclose(steps * LDA_GRID, expected.sum(axis=0), rtol=1e-5)


def test_compiled_absence_agrees_with_the_reference(lee):
    (documents, num_terms), num_topics = lee, 40
    block = as_chunk(documents, num_terms)
    rng = np.random.default_rng(0)
    table = rng.gamma(0.05, 1.0, (num_terms, num_topics)).astype(np.float32) + np.float32(1e-6)
    alpha = np.full(num_topics, 0.1, np.float32)
    absent = []
    for kernels in (numba_kernels, _lda_numpy):
        gamma = np.ones((len(documents), num_topics), np.float32)
        theta, ratio, _, _ = numba_kernels.expectation(
            block.indptr,
            block.indices,
            block.data,
            table,
            alpha,
            gamma,
            20,
            np.float32(0),
            np.float32(1e-7),
            True,
            NEVER,
        )
        absent.append(
            kernels.absence(block.indptr, block.indices, block.data, table, theta, ratio, gamma - 0.1)
        )
    assert (absent[0] < 0.01).any()
    assert (absent[0] > 0.99).any()
    np.testing.assert_allclose(1 - absent[0], 1 - absent[1], rtol=1e-3, atol=1e-6)


def block_statistics(kernels, block, lambda_, alpha, dtype, variant, iterations=100, threshold=0.001):
    """One block's statistics from the kernels alone, with float32's epsilon whatever the dtype."""
    scalar, collapsed = np.dtype(dtype).type, variant == "cvb0"
    totals = lambda_.sum(axis=1)
    rows = np.ascontiguousarray(lambda_.T, dtype)
    table = (rows / totals).astype(dtype) if collapsed else kernels.topic_weights(rows, totals)
    gamma = starting_gamma(block.n_docs, len(alpha), 5, (1,), dtype)
    theta, ratio, *counters = kernels.expectation(
        block.indptr,
        block.indices,
        block.data.astype(dtype),
        table,
        alpha.astype(dtype),
        gamma,
        iterations,
        scalar(threshold),
        scalar(np.finfo(np.float32).eps),
        collapsed,
        NEVER,
    )
    every = np.arange(block.num_terms, dtype=np.int32)
    counts = block.indptr, block.indices, theta, ratio, table, every, LDA_GRID
    cells, steps, table_of = np.empty(rows.size, np.int32), np.empty(rows.size), np.zeros(rows.size)
    number = kernels.statistics(*counts, steps, cells, True)
    assert kernels.statistics(*counts, table_of, cells[:0], False) == 0
    np.testing.assert_array_equal(np.flatnonzero(table_of), np.sort(cells[:number]))
    np.testing.assert_array_equal(table_of[cells[:number]], steps[:number])
    return table_of.reshape(rows.shape) * LDA_GRID, gamma, counters


@pytest.mark.parametrize("variant", ["vb", "cvb0"])
@pytest.mark.parametrize(("num_topics", "alpha"), [(1, 1.0), (7, 0.2), (20, 0.05), (100, 0.01), (130, 0.001)])
def test_compiled_agrees_with_the_reference(lee, variant, num_topics, alpha):
    documents, num_terms = lee
    block = as_chunk(documents, num_terms)
    lambda_ = trained(lee, num_topics, np.float64).state.get_lambda()
    alpha = alpha * np.random.default_rng(1).uniform(0.5, 1.5, num_topics)
    wanted, gamma, counters = block_statistics(_lda_numpy, block, lambda_, alpha, "float64", variant)
    assert counters[1] > 100
    double = block_statistics(numba_kernels, block, lambda_, alpha, "float64", variant)
    assert list(double[2]) == list(counters)
    assert relative_l1(double[0], wanted) < 1e-7  # of the grid
    assert relative_l1(double[1], gamma) < 1e-10
    single = block_statistics(numba_kernels, block, lambda_, alpha, "float32", variant)
    assert relative_l1(single[0], wanted) < 1e-5
    assert relative_l1(single[1], gamma) < 1e-5


@pytest.mark.parametrize("num_topics", [7, 60, 300])
def test_a_topic_that_has_left_comes_back(num_topics):
    """Topic 1 has the rare word as long as it competes for the others, and then topic 2 gets its trace."""
    table = np.zeros((2, num_topics))
    table[0, :2] = 1, 0.95
    table[1, 1:3] = 1, 0.01
    alpha = np.full(num_topics, 0.02)
    alpha[2] = 0.1
    posteriors = []
    for kernels, dtype in ((_lda_numpy, np.float64), (numba_kernels, np.float32)):
        gamma = np.ones((1, num_topics), dtype)
        kernels.expectation(
            np.array([0, 2]),
            np.arange(2, dtype=np.int32),
            np.array([60, 0.05], dtype),
            table.astype(dtype),
            alpha.astype(dtype),
            gamma,
            200,
            dtype(1e-7),
            dtype(np.finfo(np.float32).eps),
            False,
            NEVER,
        )
        posteriors.append(gamma[0])
    weights = np.exp(psi(alpha) - psi(61.0))
    # Where topic 1 has the word, topic 2 gets less of it than float32 resolves.
    assert 0.05 * weights[2] * 0.01 / np.exp(psi(1) - psi(61)) < 2**-30 * 60
    assert posteriors[0][2] - 0.1 > 0.002
    np.testing.assert_allclose(posteriors[1], posteriors[0], rtol=1e-4)


def posed(num_topics, alpha, concentration, lengths, seed):
    """Documents of these lengths, lambda and priors; to be computed in float64."""
    random = np.random.default_rng(seed)
    num_terms = 80
    documents = [
        [(int(w), int(random.integers(1, 9))) for w in np.sort(random.permutation(num_terms)[:length])]
        for length in lengths
    ]
    block = as_chunk(documents, num_terms)
    lambda_ = random.gamma(concentration, 1.0, (num_topics, num_terms)) + 1e-3
    return block, lambda_, 10**alpha * random.uniform(0.3, 3.0, num_topics), "float64", "vb"


@settings(max_examples=25, deadline=None)
@given(
    num_topics=st.integers(1, 60) | st.integers(125, 150),
    alpha=st.floats(-4, 0.5),
    concentration=st.sampled_from([0.01, 0.1, 1.0]),
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
)
@example(num_topics=27, alpha=-2.0, concentration=1.0, lengths=[3], seed=0)
@example(num_topics=27, alpha=-2.0, concentration=1.0, lengths=[0, 3, 14], seed=1)
@example(num_topics=27, alpha=-2.0, concentration=1.0, lengths=[0, 3], seed=0)
def test_topics_may_leave_under_any_prior(num_topics, alpha, concentration, lengths, seed):
    """The compiled kernel against the dense one, where words are of few topics or of many."""
    given_all = posed(num_topics, alpha, concentration, lengths, seed)
    # A topic that comes back when a document has converged costs it iterations: so many of them for both.
    wanted, gamma, counters = block_statistics(_lda_numpy, *given_all, 20, 0.0)
    got = block_statistics(numba_kernels, *given_all, 20, 0.0)
    assert list(got[2]) == list(counters)
    np.testing.assert_allclose(got[0], wanted, atol=2 * LDA_GRID)
    np.testing.assert_allclose(got[1], gamma, rtol=1e-9, atol=1e-9)
    _, _, dense = block_statistics(_lda_numpy, *given_all)
    _, _, compiled = block_statistics(numba_kernels, *given_all)
    assert compiled[0] == dense[0]
    assert compiled[1] >= dense[1]


def test_topics_that_are_looked_at_and_stay_away_change_nothing():
    """At the 16th of 17 iterations, after which nothing but one topic is left."""
    given_all = posed(27, -2.0, 1.0, [3], 0)
    dense, compiled = (block_statistics(kernels, *given_all) for kernels in (_lda_numpy, numba_kernels))
    assert list(compiled[2]) == list(dense[2]) == [1, 17]
    np.testing.assert_allclose(compiled[1], dense[1], rtol=1e-12)


def test_partials_are_sparse_where_most_counts_are_zero(lee, blocks):
    num_terms = lee[1]
    words = np.arange(num_terms, dtype=np.int32)
    lambda_ = np.random.default_rng(0).gamma(0.05, 1.0, (200, num_terms)) + 1e-4
    parts = []
    for group in ([blocks], [blocks[:2], blocks[2:]], [blocks[::-1]]):
        for part in group:
            settings = params(np.full(200, 1 / 200), lambda_.sum(axis=1), gamma_statistics=False)
            step = estep(lambda_, settings, words, num_terms)
            for key, block in part:
                step.add(block, key)
            parts.append(step.result())
            EStep.check(parts[-1], settings, words, [(block, key) for key, block in part])
    whole, first, second, reversed_ = parts
    assert whole.cells is not None
    assert whole.nbytes < whole.table(200).size * 4 / 2
    assert whole.cells.tobytes() == reversed_.cells.tobytes()
    assert whole.steps.tobytes() == reversed_.steps.tobytes()
    np.testing.assert_array_equal(whole.table(200), first.table(200) + second.table(200))


def test_expected_counts_add_up_to_the_counts(lee, backend):
    documents, num_terms = lee
    model = trained(lee, 7)
    block = as_chunk(documents, num_terms)
    step = estep(
        model.state.get_lambda(),
        params(model, model.state.get_lambda().sum(axis=1)),
        block.words(),
        num_terms,
    )
    step.add(block, (0,))
    got = dense(step.result(), num_terms, 7).sum(axis=1)
    wanted = np.bincount(block.indices, block.data, num_terms)
    np.testing.assert_allclose(got, wanted, rtol=1e-2)


def test_odd_documents(backend):
    """Empty, of one word, of counts that are not whole, of a tiny total, longer than a vector by one."""
    documents = [[], [(2, 1)], [(0, 0.25), (3, 1.7)], [(1, 1e-3)], [(i, 1) for i in range(17)], []]
    num_terms, num_topics = 17, 3
    block = as_chunk(documents, num_terms)
    random = np.random.default_rng(2)
    lambda_ = random.gamma(1.0, 1.0, (num_topics, num_terms)) + 0.1
    alpha = np.array([0.001, 0.002, 0.5])
    settings = params(alpha, lambda_.sum(axis=1), iterations=100, gamma_threshold=1e-6, dtype="float64")
    table, row = EStep.prepare(lambda_.T, settings), np.arange(num_terms, dtype=np.int32)
    gamma = infer(block, table, row, alpha, iterations=100, gamma_threshold=1e-6)
    assert np.isfinite(gamma).all()
    np.testing.assert_array_equal(gamma[[0, 5]], [alpha, alpha])
    totals = [sum(count for _, count in document) for document in documents]
    np.testing.assert_allclose(gamma.sum(axis=1) - alpha.sum(), totals, atol=1e-9)
    for document, posterior in zip(documents, gamma, strict=True):  # a fixed point of the update
        theta = np.exp(psi(posterior) - psi(posterior.sum()))
        update = alpha.copy()
        for word, count in document:
            update += count * theta * table[word] / (theta @ table[word])
        np.testing.assert_allclose(posterior, update, rtol=1e-4)
    step = estep(lambda_, settings, block.words(), num_terms)
    step.add(block, (0,))
    assert dense(step.result(), num_terms, num_topics).sum() == pytest.approx(sum(totals), rel=1e-6)
    assert step.result().extras["documents"] == 6


def test_a_document_of_tiny_total_stays_representable(backend):
    """exp(psi(gamma)) underflows in float32, its ratio to exp(psi(sum(gamma))) does not."""
    alpha, table = np.array([0.003]), np.array([[0.5]], np.float32)
    gamma = infer(as_chunk([[(0, 0.002)]], 1), table, np.zeros(1, np.int32), alpha)
    np.testing.assert_allclose(gamma, 0.005, rtol=1e-5)


def test_no_iterations_leave_gamma_where_it_starts(lee, backend):
    documents, num_terms = lee
    model = trained(lee, 7)
    block = as_chunk(documents[:5], num_terms)
    table = EStep.prepare(model.state.get_lambda().T, params(model, model.state.get_lambda().sum(axis=1)))
    gamma = infer(
        block, table, np.arange(num_terms, dtype=np.int32), model.alpha, iterations=0, seed=4, key=(1,)
    )
    np.testing.assert_array_equal(gamma, starting_gamma(5, 7, 4, (1,)))


@pytest.fixture(scope="module")
def blocks(lee):
    documents, num_terms = lee
    chunk = as_chunk(documents, num_terms)
    return [((0, start), chunk.slice(start, start + 20)) for start in range(0, 100, 20)]


def run(lee, blocks, threads=1, **changes):
    num_terms = lee[1]
    lambda_ = np.random.default_rng(0).gamma(0.5, 1.0, (30, num_terms)) + 0.01
    words = np.unique(np.concatenate([block.words() for _, block in blocks]))
    settings = params(np.full(30, 1 / 30), lambda_.sum(axis=1), **changes)
    step = estep(lambda_, settings, words, num_terms)
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(step.add, block, key) for key, block in blocks]:
            future.result()
    return step.result()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_sums_depend_on_no_order_grouping_or_thread(lee, blocks, data):
    wanted = run(lee, blocks)
    shuffled = data.draw(st.permutations(blocks))
    cut = data.draw(st.integers(1, 4))
    parts = [run(lee, part, data.draw(st.integers(1, 4))) for part in (shuffled[:cut], shuffled[cut:])]
    num_terms = lee[1]
    total = sum(dense(part, num_terms, 30) for part in parts)
    assert total.tobytes() == dense(wanted, num_terms, 30).tobytes()
    extras = merge_extras(parts[0].extras, parts[1].extras)
    assert extras.pop("gamma_statistics").tobytes() == wanted.extras["gamma_statistics"].tobytes()
    assert extras == {name: value for name, value in wanted.extras.items() if name != "gamma_statistics"}


def test_steps_travel_as_int32_where_they_fit():
    table, row = np.ones((1, 1), np.float32), np.zeros(1, np.int32)
    for count, dtype in ((500, np.int32), (513, np.float64)):
        step = EStep(params(np.ones(1), np.ones(1)), np.zeros(1, np.int32), table, row)
        step.add(as_chunk([[(0, count)]], 1), (0,))
        assert step.result().steps.dtype == dtype
        assert step.result().steps[0, 0] * LDA_GRID == pytest.approx(count, rel=1e-6)


def test_a_sum_beyond_the_exact_range_is_refused(backend):
    step = EStep(
        params(np.ones(1), np.ones(1), dtype="float64"),
        np.zeros(1, np.int32),
        np.ones((1, 1)),
        np.zeros(1, np.int32),
    )
    for number in range(2):
        step.add(as_chunk([[(0, 1.5 * 2**30)]], 1), (number,))
    with pytest.raises(OverflowError, match=r"^term id 0: a sum exceeds .* no longer exact"):
        step.result()


def test_topics_that_are_not_numbers_are_refused(backend):
    settings = params(np.ones(1), np.ones(1), gamma_statistics=False)
    step = EStep(settings, np.zeros(1, np.int32), np.full((1, 1), np.nan), np.zeros(1, np.int32))
    step.add(as_chunk([[(0, 1)]], 1), (0,))
    with pytest.raises(OverflowError, match=r"^term id 0: a sum is not finite \(-?nan\)"):
        step.result()


def test_starting_gamma_is_gamma_distributed(backend):
    draws = starting_gamma(2000, 100, 7, (3, 500))
    assert draws.dtype == np.float32
    assert draws.mean() == pytest.approx(1, abs=1e-3)
    assert draws.std() == pytest.approx(0.1, rel=1e-2)
    assert kstest(draws.ravel(), gamma_distribution(100, scale=0.01).cdf).pvalue > 0.01
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.01


def test_starting_gamma_depends_on_seed_key_and_document_only():
    first = starting_gamma(10, 5, 1, (2, 3), np.float64)
    np.testing.assert_array_equal(first[:4], starting_gamma(4, 5, 1, (2, 3), np.float64))
    np.testing.assert_array_equal(first.astype(np.float32), starting_gamma(10, 5, 1, (2, 3)))
    for other in (
        starting_gamma(10, 5, 0, (2, 3)),
        starting_gamma(10, 5, 1, (3, 2)),
        starting_gamma(10, 5, 1, (2,)),
    ):
        assert (other != first.astype(np.float32)).mean() > 0.99


def test_starting_gamma_has_the_same_bits_without_numba(monkeypatch):
    compiled = starting_gamma(50, 33, 1, (2, 3), np.float64)
    monkeypatch.setattr(lda, "compiled_or_numpy", lambda: _lda_numpy)
    np.testing.assert_array_equal(compiled, starting_gamma(50, 33, 1, (2, 3), np.float64))


@pytest.mark.parametrize("eta", ["symmetric", "asymmetric-vector"])
def test_bound_is_gensims(lee, backend, eta):
    documents, num_terms = lee
    model = trained(lee, 12, np.float64, "asymmetric")
    if eta != "symmetric":
        model.eta = np.linspace(0.05, 0.2, num_terms)
    gamma, _ = model.inference(documents)
    wanted = model.bound(documents, gamma=gamma[:, None, :])  # as its own inference of one document
    lambda_ = model.state.get_lambda()
    block = as_chunk(documents, num_terms)
    words = block.words()
    table_row = np.full(num_terms, -1, np.int32)
    table_row[words] = np.arange(len(words))
    table = lda.log_topics(lambda_[:, words].T, lambda_.sum(axis=1))
    score = bound(block, table, table_row, model.alpha, gamma)
    assert score + topic_bound(lambda_, model.eta) == pytest.approx(wanted, rel=1e-12)


def test_log_perplexity_is_gensims(lee):
    documents, num_terms = lee
    model = trained(lee, 9)
    held_out = documents[:25]
    block = as_chunk(held_out, num_terms)
    start = starting_gamma(25, 9, 0, (0,))
    inference = model.inference
    one_by_one = iter(start[:, None, :])

    def from_the_same_start(chunk, collect_sstats=False):
        model.random_state = Given(next(one_by_one))
        return inference(chunk, collect_sstats)

    model.inference = from_the_same_start
    wanted = model.log_perplexity(held_out, total_docs=100)
    lambda_ = model.state.get_lambda()
    row = np.arange(num_terms, dtype=np.int32)
    gamma = infer(block, lda.topic_weights(lambda_.T, lambda_.sum(axis=1)), row, model.alpha, gamma=start)
    score = bound(block, lda.log_topics(lambda_.T, lambda_.sum(axis=1)), row, model.alpha, gamma)
    score = 4 * score + topic_bound(lambda_, model.eta)
    assert score / (4 * block.data.sum()) == pytest.approx(wanted, rel=1e-5)


def test_bound_where_every_product_of_weights_underflows(backend):
    alpha = np.array([0.001, 0.001])
    gamma = np.array([[0.001, 20.001]])
    log_table = np.array([[-1.0, -1500.0]])
    score = bound(as_chunk([[(0, 2)]], 1), log_table, np.zeros(1, np.int32), alpha, gamma)
    without = bound(as_chunk([[]], 1), log_table, np.zeros(1, np.int32), alpha, gamma)
    log_theta = psi(gamma[0]) - psi(gamma.sum())
    assert score - without == pytest.approx(2 * np.logaddexp(*(log_theta + log_table[0])), rel=1e-12)


def test_arrays_from_the_network_may_be_read_only(lee, backend):
    documents, num_terms = lee
    block = as_chunk(documents[:5], num_terms)
    table = np.full((num_terms, 4), 0.1, np.float32)
    alpha, row = np.full(4, 0.25), np.arange(num_terms, dtype=np.int32)
    wanted = infer(block, table, row, alpha)
    for array in (block.indptr, block.indices, block.data, table, row, alpha):
        array.flags.writeable = False
    np.testing.assert_array_equal(infer(block, table, row, alpha), wanted)


def test_wrong_parameters_are_named():
    with pytest.raises(ValueError, match="variant='gibbs'"):
        lda.topic_weights(np.ones((2, 3)), np.ones(3), "gibbs")
    with pytest.raises(ValueError, match="totals has shape"):
        lda.topic_weights(np.ones((2, 3)), np.ones(2))
    block, table, row = (
        as_chunk([[(0, 1), (4, 1)]], 5),
        np.ones((2, 3), np.float32),
        np.array([1, 0, -1, 0, -1]),
    )
    alpha = np.ones(3)
    with pytest.raises(ValueError, match="term id 4 has no row"):
        infer(block, table, row, alpha)
    with pytest.raises(ValueError, match="term ids up to 4, but table_row is for 2"):
        infer(block, table, row[:2], alpha)
    with pytest.raises(ValueError, match="one positive number a topic"):
        infer(block.slice(0, 0), table, row, np.zeros(3))
    with pytest.raises(ValueError, match="gamma has shape"):
        infer(block.slice(0, 0), table, row, alpha, gamma=np.ones((1, 3)))
    with pytest.raises(ValueError, match="dtype=float16"):
        infer(block, table.astype(np.float16), row, alpha)
    step = EStep(params(alpha, alpha), np.array([0, 1], np.int32), table, row)
    with pytest.raises(ValueError, match="term id 4 has no row"):
        step.add(block, (0,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_warmed_job_compiles_nothing(lee, blocks, dtype):
    EStep.warm([dtype])
    functions = vars(numba_kernels).values()
    functions = [*functions, *(getattr(function, "__wrapped__", None) for function in functions)]
    kernels = [kernel for kernel in functions if hasattr(kernel, "signatures")]
    compiled = [list(kernel.signatures) for kernel in kernels]
    assert sum(map(len, compiled)) >= 5
    for variant in lda.VARIANTS:
        run(lee, blocks, dtype=dtype, variant=variant)
    assert [list(kernel.signatures) for kernel in kernels] == compiled


def test_numpy_stands_in_where_numba_is_missing():
    program = "import sys; sys.modules['numba'] = None; from distcorpus.algorithms import lda"
    program += "; from distcorpus.kernels import EStep; EStep.warm()"
    program += "; print(lda.compiled_or_numpy().__name__)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "distcorpus.algorithms._lda_numpy"


def test_numba_is_loaded_by_the_first_kernel_only():
    program = "import sys, distcorpus.algorithms.lda; print('numba' in sys.modules, 'gensim' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]

"""The E-step of LDA on one thread: ours, gensim's, scikit-learn's, all from the same topics and gamma."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import corpora
import numpy as np
import scipy.sparse
from corpora import BoW
from gensim.models import LdaModel
from sklearn.decomposition import LatentDirichletAllocation

from benchmarks import data, machine, report
from benchmarks.report import Result
from distcorpus.algorithms import _lda_numpy, lda
from distcorpus.algorithms.chunk import Chunk, as_chunk, positions_of
from distcorpus.algorithms.partial import Partial
from distcorpus.algorithms.stopping import Stop
from distcorpus.kernels import EStep, EStepParams

NOTE = """\
The E-step of LDA: gamma and the sufficient statistics of one chunk, one thread, from the same topics
(after three updates) and the same starting gamma, at gensim's defaults (50 iterations, threshold 0.001,
symmetric alpha of 1/K, float32). Compared are gensim's `LdaModel.inference(chunk, collect_sstats=True)`;
scikit-learn's `LatentDirichletAllocation._e_step` on a CSR matrix, which is where its `partial_fit` spends
its time; and our `EStep`, from its construction to its rounded partial, with the compiled kernels and with
those in numpy. The weights of the topics, exp(E[log beta]), are computed beforehand for all. Ours draws
its starting gamma within the measured time; the others get it for nothing. All run in one process. GFLOP/s
count 4 K for each word and iteration; the share is of this machine's measured `sgemm` on one thread. The
error is the relative L1 distance of the statistics from a float64 computation in numpy."""

#: Interleaved runs of a full measurement.
REPEATS = 5

ITERATIONS, THRESHOLD = 50, 0.001
NEVER = Stop().flag
SEED, KEY = 1, (0, 0)


@dataclass(frozen=True)
class Case:
    """A chunk of documents, and topics for it."""

    name: str
    documents: list[BoW]
    block: Chunk
    num_topics: int
    topics: np.ndarray  # lambda, (num_terms, K) float32
    gamma: np.ndarray  # where every competitor starts, (n_docs, K) float32


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    sgemm = machine.sgemm_gflops(repeats=3 if quick else 15)
    rows, chart = [], []
    for name, documents, num_terms in _chunks(quick):
        for num_topics in (20, 100) if quick else (20, 100, 400):
            case = _case(name, documents, num_terms, num_topics)
            row, factors = _row(case, sgemm, repeats)
            rows.append(row)
            chart.append((f"{name}\nK={num_topics}", factors))
    columns = [
        "documents, distinct words", "K", "iterations", "gensim, s", "ours", "ours, numpy", "scikit-learn",
        "GFLOP/s", "of sgemm", "error", "of gensim's",
    ]  # fmt: skip
    text = f"sgemm on one thread: {sgemm:.0f} GFLOP/s\n\n" + report.table(columns, rows)
    return Result(text, {"estep": lambda path: report.draw_bars(path, chart, "times faster than gensim's")})


def _chunks(quick: bool) -> list[tuple[str, list[BoW], int]]:
    if quick:
        dictionary, documents = corpora.bow(corpora.lee(), no_below=3)
        return [("Lee", documents[:200], len(dictionary))]
    dictionary, documents = corpora.bow(corpora.sotu())
    short = [document for document in documents if 30 <= len(document) <= 60][:2000]
    chunks = [("SOTU", short, len(dictionary))]
    dictionary, documents = data.shuffled_newsgroups(quick=False)
    long = [document for document in documents if len(document) > 120][:1000]
    return [*chunks, ("20 Newsgroups", long, len(dictionary))]


def _case(name: str, documents: list[BoW], num_terms: int, num_topics: int) -> Case:
    block = as_chunk(documents, num_terms, counts=True)
    # Three updates by gensim's rule (offset 1, decay 0.5), each with the documents that are measured on.
    eta = 1 / num_topics
    random = np.random.default_rng(SEED)
    topics = eta + random.gamma(100.0, 0.01, (num_terms, num_topics)).astype(np.float32)
    for update in range(3):
        rate = (1 + update) ** -0.5
        updated = (1 - rate) * topics + rate * (
            eta + _statistics(_ours(block, topics)(), num_terms, num_topics)
        )
        topics = updated.astype(np.float32)
    gamma = lda.starting_gamma(block.n_docs, num_topics, SEED, KEY)
    distinct = block.nnz / block.n_docs
    return Case(f"{block.n_docs:,} of {name}, {distinct:.0f}", documents, block, num_topics, topics, gamma)


def _ours(block: Chunk, topics: np.ndarray) -> Callable[[], Partial]:
    """The E-step as a worker runs it."""
    num_terms, num_topics = topics.shape
    alpha, totals = np.full(num_topics, 1 / num_topics), topics.sum(axis=0, dtype=np.float64)
    params = EStepParams(alpha, totals, "float32", ITERATIONS, THRESHOLD, SEED)
    words = block.words()
    table = EStep.prepare(topics[words], params)
    table_row = positions_of(words, num_terms)

    def compute() -> Partial:
        step = EStep(params, words, table, table_row)
        step.add(block, KEY)
        return step.result()

    return compute


def _ours_in_numpy(block: Chunk, topics: np.ndarray) -> Callable[[], Partial]:
    compute = _ours(block, topics)

    def compute_in_numpy() -> Partial:
        with mock.patch.object(lda, "compiled_or_numpy", return_value=_lda_numpy):
            return compute()

    return compute_in_numpy


def _statistics(result: Partial | np.ndarray, num_terms: int, num_topics: int) -> np.ndarray:
    """What a competitor has computed, as (num_terms, K)."""
    if isinstance(result, np.ndarray):  # gensim's and scikit-learn's is (K, num_terms)
        return result.T
    sums = np.zeros((num_terms, num_topics))
    sums[result.words] = result.table(num_topics) * lda.LDA_GRID
    return sums


def _reference(case: Case) -> np.ndarray:
    """The statistics in float64, by the kernels in numpy, with what float32 adds to phi's normaliser."""
    table = _all_weights(case.topics.astype(np.float64))
    block = case.block
    theta, ratio, _, _ = _lda_numpy.expectation(
        block.indptr,
        block.indices,
        block.data.astype(np.float64),
        table,
        np.full(case.num_topics, 1 / case.num_topics),
        case.gamma.astype(np.float64),
        ITERATIONS,
        np.float64(THRESHOLD),
        np.float64(np.finfo(np.float32).eps),
        False,
        NEVER,
    )
    entries = scipy.sparse.csr_array((ratio, block.indices, block.indptr), shape=(block.n_docs, len(table)))
    return np.asarray(entries.T @ _lda_numpy.dense(theta, case.num_topics) * table)


class _Given:
    """In the place of a random state: returns the starting gamma that it was made with."""

    def __init__(self, gamma: np.ndarray) -> None:
        self._gamma = gamma

    def gamma(self, shape: float, scale: float, size: tuple[int, int]) -> np.ndarray:
        assert size == self._gamma.shape
        return self._gamma.copy()


def _gensim(case: Case) -> Callable[[], np.ndarray]:
    num_terms = len(case.topics)
    model = LdaModel(
        id2word={term: str(term) for term in range(num_terms)},
        num_topics=case.num_topics,
        iterations=ITERATIONS,
        gamma_threshold=THRESHOLD,
    )
    model.expElogbeta = np.ascontiguousarray(_all_weights(case.topics).T)
    model.random_state = _Given(case.gamma)
    return lambda: model.inference(case.documents, collect_sstats=True)[1]


def _scikit_learn(case: Case) -> Callable[[], np.ndarray]:
    num_terms = len(case.topics)
    matrix: scipy.sparse.csr_matrix = data.as_csr(case.documents, num_terms)
    model = LatentDirichletAllocation(
        case.num_topics, max_doc_update_iter=ITERATIONS, mean_change_tol=THRESHOLD
    )
    model._init_latent_vars(num_terms, dtype=np.float32)
    model.components_ = np.ascontiguousarray(case.topics.T)
    model.exp_dirichlet_component_ = np.ascontiguousarray(_all_weights(case.topics).T)
    model.random_state_ = _Given(case.gamma)
    return lambda: model._e_step(matrix, cal_sstats=True, random_init=True)[1]


def _all_weights(topics: np.ndarray) -> np.ndarray:
    return lda.topic_weights(topics, topics.sum(axis=0, dtype=np.float64))


def _row(case: Case, sgemm: float, repeats: int) -> tuple[list[str], dict[str, float]]:
    competitors: dict[str, Callable[[], Partial | np.ndarray]] = {
        "gensim": _gensim(case),
        "ours": _ours(case.block, case.topics),
        "ours, numpy": _ours_in_numpy(case.block, case.topics),
        "scikit-learn": _scikit_learn(case),
    }
    reference = _reference(case)
    errors = {
        name: np.abs(_statistics(compute(), *reference.shape) - reference).sum() / reference.sum()
        for name, compute in competitors.items()
    }
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(repeats):
        for name, compute in competitors.items():
            # The quick ones are over in milliseconds, so they run more often.
            for _ in range(3 if name == "ours" else 1):
                began = time.perf_counter()
                compute()
                times[name].append(time.perf_counter() - began)
    iterations = _iterations(case)
    words = np.diff(case.block.indptr)
    gflops = 4e-9 * case.num_topics * int(words @ iterations) / statistics.median(times["ours"])
    gensim = times["gensim"]
    row = [
        case.name,
        str(case.num_topics),
        f"{iterations.mean():.0f}",
        report.seconds(gensim),
        *(report.ratio(gensim, times[name]) for name in ("ours", "ours, numpy", "scikit-learn")),
        f"{gflops:.0f}",
        f"{gflops / sgemm:.0%}",
        f"{errors['ours']:.0e}",
        f"{errors['gensim']:.0e}",
    ]
    factors = {
        name: statistics.median(gensim) / statistics.median(values)
        for name, values in times.items()
        if name != "gensim"
    }
    return row, factors


def _iterations(case: Case) -> np.ndarray:
    """How many iterations each document takes: the fewest after which more change nothing."""
    table, words = _all_weights(case.topics), np.arange(len(case.topics), dtype=np.int32)
    alpha = np.full(case.num_topics, 1 / case.num_topics)

    def gamma_after(iterations: int) -> np.ndarray:
        return lda.infer(
            case.block,
            table,
            words,
            alpha,
            iterations=iterations,
            gamma_threshold=THRESHOLD,
            gamma=case.gamma,
        )

    final = gamma_after(ITERATIONS)
    needed = np.full(case.block.n_docs, ITERATIONS)
    for iterations in range(ITERATIONS - 1, 0, -1):
        needed[(gamma_after(iterations) == final).all(axis=1)] = iterations
    return needed

"""LSI's factorisation on one thread: ours, gensim's, scikit-learn's, scipy's; and our fused product alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import corpora
import numpy as np
import scipy.sparse.linalg

from benchmarks import data, isolated, report
from benchmarks.report import Result

NOTE = """\
The 200 leading left singular vectors of 20 Newsgroups (TF-IDF by gensim's `TfidfModel`), one thread, each
run in a fresh process that has done a small factorisation before. All begin with the matrix in memory:
ours and gensim's "one chunk" as one chunk, gensim's others by `Sparse2Corpus`. The exact singular values
are those of ARPACK (`scipy.sparse.linalg.svds`, float64, tolerance 0). "Worst" and "mean" are relative
errors of the 200 singular values; "cosine" is the smallest among the leading half of the exact singular
vectors, between each and the space that was found.

Below it, one `Y += A (A' Q)` over synthetic documents of 200 distinct words each, whose frequencies are
Zipf's, with a vocabulary of 100,000 terms; rounding to the grid included. GFLOP/s count 4 for each
non-zero and column."""

#: Interleaved runs of a full measurement.
REPEATS = 3

#: The time of one-pass gensim is the reference of the ratios.
REFERENCE = "gensim, one pass, one chunk"

ZIPF_TERMS, ZIPF_DISTINCT = 100_000, 200
BLOCKS = (32, 64, 128)


@dataclass(frozen=True)
class Factorisation:
    """What a run has computed, and how long that took."""

    seconds: float
    u: np.ndarray  # (num_terms, k)
    s: np.ndarray


# --------------------------------------------------------------------------------------------- competitors
# Each takes a matrix (terms x documents, CSC, float64) and the number of topics, and returns U and s.


def ours(matrix: scipy.sparse.csc_matrix, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    from distcorpus.algorithms.chunk import as_chunk
    from distcorpus.engines.threads import ThreadsEngine
    from distcorpus.training.lsi import LsiTask, train

    chunk = as_chunk(matrix.astype(dtype), matrix.shape[0])
    with ThreadsEngine(1) as engine:
        return train(engine, LsiTask(matrix.shape[0], k, dtype=dtype), [chunk])


def gensim(
    matrix: scipy.sparse.csc_matrix, k: int, chunksize: int | None, onepass: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    from gensim.matutils import Sparse2Corpus
    from gensim.models import LsiModel

    corpus = matrix if chunksize is None else Sparse2Corpus(matrix)
    terms = {term: str(term) for term in range(matrix.shape[0])}
    model = LsiModel(corpus, k, id2word=terms, chunksize=chunksize or 20000, onepass=onepass)
    return model.projection.u, model.projection.s


def scikit_learn(matrix: scipy.sparse.csc_matrix, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import TruncatedSVD

    model = TruncatedSVD(k, random_state=0).fit(matrix.T.tocsr().astype(dtype))
    return model.components_.T, model.singular_values_


def scipy_svds(
    matrix: scipy.sparse.csc_matrix, k: int, solver: Literal["arpack", "propack"], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    u, s, _ = scipy.sparse.linalg.svds(matrix.astype(dtype), k, solver=solver, rng=0)
    order = np.argsort(-s)
    return u[:, order], s[order]


COMPETITORS: dict[str, tuple[Callable[..., tuple[np.ndarray, np.ndarray]], tuple[object, ...]]] = {
    REFERENCE: (gensim, (None,)),
    "gensim, one pass, chunks of 5,000": (gensim, (5000,)),
    "gensim, two passes": (gensim, (20000, False)),
    "scikit-learn TruncatedSVD, float64": (scikit_learn, ("float64",)),
    "scikit-learn TruncatedSVD, float32": (scikit_learn, ("float32",)),
    "scipy PROPACK, float64": (scipy_svds, ("propack", "float64")),
    "scipy PROPACK, float32": (scipy_svds, ("propack", "float32")),
    "ours, float64": (ours, ("float64",)),
    "ours, float32": (ours, ("float32",)),
}

# ------------------------------------------------------------------------------------------- measurements


def factorise_once(name: str, quick: bool, k: int) -> Factorisation:
    """Run one competitor, in this process."""
    matrix = data.tfidf_matrix(quick)
    function, options = COMPETITORS[name]
    function(matrix[:2000, :500], 10, *options)
    began = time.perf_counter()
    u, s = function(matrix, k, *options)
    return Factorisation(time.perf_counter() - began, np.asarray(u), np.asarray(s))


def exact(quick: bool, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact factors, computed once and then read from the cache."""
    path = corpora.cache_folder() / f"bench-lsi-exact-{k}{'-quick' * quick}.npz"
    if not path.exists():
        u, s = scipy_svds(data.tfidf_matrix(quick), k, "arpack", "float64")
        np.savez(path, u=u, s=s)
    with np.load(path) as arrays:
        return arrays["u"], arrays["s"]


@dataclass(frozen=True)
class Accuracy:
    """How far a factorisation is from the exact one."""

    worst: float
    mean: float
    cosine: float

    def cells(self) -> list[str]:
        return [f"{self.worst:.1e}", f"{self.mean:.1e}", f"{self.cosine:.4f}"]


def accuracy(u: np.ndarray, s: np.ndarray, exact_u: np.ndarray, exact_s: np.ndarray) -> Accuracy:
    """Compare left singular vectors and singular values with the exact ones."""
    missing = len(exact_s) - len(s)
    errors = np.abs(np.concatenate([s[: len(exact_s)], np.zeros(max(missing, 0))]) - exact_s) / exact_s
    leading = exact_u[:, : max(1, len(exact_s) // 2)]
    # Not assumed to be orthonormal.
    basis, _ = np.linalg.qr(u.astype(np.float64))
    cosines = np.linalg.norm(basis.T @ leading, axis=0)
    return Accuracy(errors.max(), errors.mean(), cosines.min())


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    k = 50 if quick else 200
    exact_u, exact_s = exact(quick, k)
    times: dict[str, list[float]] = {name: [] for name in COMPETITORS}
    accuracies: dict[str, Accuracy] = {}
    for _ in range(repeats):
        for name in COMPETITORS:
            done = isolated.run(factorise_once, name, quick, k)
            times[name].append(done.seconds)
            accuracies[name] = accuracy(done.u, done.s, exact_u, exact_s)
    rows = [
        [name, report.seconds(values), report.ratio(times[REFERENCE], values), *accuracies[name].cells()]
        for name, values in times.items()
    ]
    columns = ["factorisation", "seconds", "faster", "worst", "mean", "cosine"]
    text = f"{report.table(columns, rows)}\n\n{_fused(quick, repeats)}"
    points = [(name, [(statistics.median(values), accuracies[name].worst)]) for name, values in times.items()]
    labels = "seconds, one thread", f"worst relative error of {k} singular values"
    return Result(text, {"lsi": lambda path: report.draw_dots(path, points, *labels)})


def _fused(quick: bool, repeats: int) -> str:
    """Our fused product at a large vocabulary."""
    from distcorpus.algorithms.chunk import as_chunk, positions_of
    from distcorpus.algorithms.lsi import product_grid
    from distcorpus.kernels import Product, ProductParams

    documents = corpora.zipf(2_000 if quick else 40_000, ZIPF_TERMS, ZIPF_DISTINCT)
    matrix = scipy.sparse.hstack([chunk.astype(np.float32) for chunk in documents.chunks()], format="csc")
    chunk = as_chunk(matrix, ZIPF_TERMS)
    blocks = [(i, Product.pack(block)) for i, block in enumerate(chunk.split(**Product.limits))]
    words = chunk.words()
    table_row = positions_of(words, ZIPF_TERMS)
    random = np.random.default_rng(0)
    rows = []
    for width in BLOCKS:
        q = random.standard_normal((len(words), width), dtype=np.float32)
        q /= np.linalg.norm(q, axis=0)
        params = ProductParams(width, product_grid(chunk.squared_norm(), "float32"), "float32")
        product = Product(params, words, Product.prepare(q, params), table_row)
        product.add(blocks[0][1], (0,))
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            for key, block in blocks:
                product.add(block, (key,))
            seconds.append(time.perf_counter() - began)
        gflops = 4e-9 * chunk.nnz * width / statistics.median(seconds)
        rows.append([str(width), f"{chunk.nnz / 1e6:.1f} M", report.seconds(seconds), f"{gflops:.1f}"])
    return report.table(["columns of the block", "non-zeros", "seconds", "GFLOP/s"], rows)

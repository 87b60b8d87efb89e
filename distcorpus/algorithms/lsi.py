"""Latent semantic indexing: the leading left singular vectors of a terms x documents matrix by block Lanczos
iteration.

The matrix A is only ever multiplied, ``Q -> A (A' Q)``, and that product is a sum over blocks of documents:
`Product` computes and rounds one job's part of it, so that a cluster's total has the same bits whatever its
jobs were. `factorise` drives the iteration and knows only the total. `lsi` does all of it in one process.

References: Golub and Underwood, The block Lanczos method for computing eigenvalues, 1977; Musco and Musco,
Randomized block Krylov methods for stronger and faster approximate singular value decomposition, NeurIPS
2015; folding is the merge of Rehurek, Subspace tracking for latent semantic analysis, ECIR 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ._lsi_basis import Basis, Map, Rows, orthonormal, orthonormalise, shifted
from .summation import grid_for

#: Entries of a block of documents, about: few enough documents that a table with a row for each stays in a
#: near cache. A corpus of two million entries makes four blocks, which two workers can share.
BLOCK_NNZ = 600_000

#: Bytes of a cache line and of a vector: the compiled product wants rows that are whole ones.
LINE = 64

#: An earlier factorisation: left singular vectors (terms x k) and singular values (k).
Factors = tuple[np.ndarray, np.ndarray]

#: Bits of the bound on a product's entries that the grid resolves. In float32 that is well below the rounding
#: error of the product itself, and most entries fit into int32.
GRID_BITS = {"float32": 38, "float64": 52}


#: The relative error of a singular value where none is asked for.
TOLERANCE = 1e-4

#: The smallest tolerance that an iteration in float32 is tried for.
SINGLE_TOLERANCE = 1e-5

#: Squared norms for which an iteration in float32 is tried: its products are in range then.
SINGLE_NORMS = 2.0**-100, 2.0**120

#: How much larger than its first chunk (by squared norm) a corpus may grow before the first product, which a
#: cluster sums while the chunks arrive and thus on a grid chosen early, has to be computed again.
GROWTH_FORESEEN = 2.0**20


def product_grid(squared_norm: float, dtype: Any) -> float:
    """Return the grid for ``A (A' Q)`` where the columns of Q have at most unit length.

    No entry of the product exceeds the largest squared singular value, hence none the squared Frobenius norm
    of A.
    """
    return grid_for(squared_norm, GRID_BITS[np.dtype(dtype).name])


def block_width(
    num_terms: int, num_topics: int, power_iters: int | None = None, extra_samples: int | None = None
) -> int:
    """Return the number of columns of a block of the iteration (see `factorise` for the arguments).

    A multiple of 16 (whole cache lines); wide enough for few rounds, narrow enough that the basis, whose cost
    grows with its square, stays small.
    """
    if power_iters is not None:
        return min(num_topics, num_terms) + (100 if extra_samples is None else extra_samples)
    return max(1, min(num_terms, 16 * min(4, max(1, round(num_topics / 80)))))


def iteration_dtype(
    num_terms: int,
    num_topics: int,
    dtype: Any,
    *,
    tolerance: float = TOLERANCE,
    max_steps: int | None = None,
    power_iters: int | None = None,
    squared_norm: float = 1.0,
) -> np.dtype:
    """Return the type in which the iteration begins (see `factorise` for the arguments).

    float32, which is twice as fast, also where the result is float64: if singular values are wanted to a
    tolerance at which that may do, and few enough of them for the first product to tell whether it does.
    """
    can_tell = max_steps is None and power_iters is None and num_terms > 4 * num_topics
    in_range = SINGLE_NORMS[0] < squared_norm < SINGLE_NORMS[1]
    return np.dtype(np.float32 if can_tell and in_range and tolerance >= SINGLE_TOLERANCE else dtype)


def start_block(
    num_terms: int, num_topics: int, seed: int, dtype: Any, block: int | None = None
) -> np.ndarray:
    """Return the random block that the iteration starts from, shape (num_terms, block), columns of unit
    length.

    `factorise` begins with its product with A A'; where chunks arrive one by one, that product can be summed
    as they come, and be given to `factorise` as `start`.
    """
    width = min(num_terms, block or block_width(num_terms, num_topics))
    if not width:
        return np.zeros((num_terms, 0), dtype)
    vectors = np.random.default_rng(seed).standard_normal((num_terms, width), dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=0)).astype(dtype)


def factorise(
    product: Callable[[np.ndarray], np.ndarray],
    num_terms: int,
    num_topics: int,
    *,
    squared_norm: float,
    dtype: Any = np.float32,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    block: int | None = None,
    max_steps: int | None = None,
    power_iters: int | None = None,
    extra_samples: int | None = None,
    base: Factors | None = None,
    start: np.ndarray | None = None,
    keep: int | None = None,
    side_by_side: Map = map,
) -> Factors:
    """Return the leading left singular vectors and singular values of a terms x documents matrix A.

    Block Lanczos iteration with full reorthogonalisation, on ``A A'`` or, where the wanted singular values
    are few among many, on a quadratic polynomial of it that sets them apart. It ends when the singular values
    are estimated to `tolerance`, or when the Krylov space is exhausted. The estimate is that of
    `estimated_change`, summed up over the steps to come at the rate at which it falls.

    A float64 result comes from an iteration in float32, where that is accurate enough: see `iteration_dtype`.
    The vectors are made orthonormal in float64 then, and the last wanted singular values, which rounding
    would spoil first, are compared with one product in float64. If float32 turns out not to do, at the
    beginning or at the end, everything is computed in float64.

    Parameters
    ----------
    product : callable
        Returns ``A (A' Q)``, shape (num_terms, b), for Q of shape (num_terms, b) in C order, computed in the
        type of Q, which is float32 or `dtype`. It is a new array, which is then changed in place.
    num_terms : int
    num_topics : int
        The number of triplets wanted.
    squared_norm : float
        The squared Frobenius norm of A (0: `product` is not called).
    dtype : dtype
        float32 or float64: the type of the result. In float32, singular values below about 1e-3 of the
        largest are not told from zero, since it is their squares that the iteration sees.
    seed : int
        Of the starting block.
    tolerance : float
        Relative error of each wanted singular value.
    block : int, optional
        Columns of a block; `block_width` by default.
    max_steps : int, optional
        The most products to compute after the start's.
    power_iters, extra_samples : int, optional
        gensim's way to say how much work to do, in place of `tolerance`: the blocks have ``num_topics +
        extra_samples`` columns (extra_samples: 100 by default) and the iteration takes ``power_iters + 1``
        steps. Its space contains that of as many power iterations.
    base : (ndarray, ndarray), optional
        U0 and s0 of an earlier factorisation, whose documents count too: what is factorised is
        ``A A' + U0 diag(s0**2) U0'``.
    start : ndarray, shape (num_terms, b), optional
        ``A A'`` times `start_block`, if it is known already; any other block to start from will do, roughly
        computed or not.
    keep : int, optional
        Return up to this many triplets, of which only the first `num_topics` are held to `tolerance`.
    side_by_side : callable
        Does what the built-in `map` does, and may compute the items side by side: `Executor.map` of some
        threads. So are slices of the dense matrices computed, to the same bits as by `map`. BLAS had better
        have one thread then.

    Returns
    -------
    U : ndarray of `dtype`, shape (num_terms, k)
        Orthonormal columns; the first entry of each that is not zero is positive.
    s : ndarray of float64, shape (k,)
        Descending and positive; k is less than `num_topics` where the rank of A is.

    Raises
    ------
    ValueError
        If an argument is out of range, or `product` returns something of the wrong shape or not finite.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype={dtype}: the iteration runs in float32 or float64")
    if num_topics < 1:
        raise ValueError(f"num_topics={num_topics}: ask for at least one")
    if not 0 <= squared_norm < math.inf:
        raise ValueError(f"squared_norm={squared_norm}: the matrix must be finite")
    wanted = min(num_topics, num_terms)
    returned = min(max(keep or 0, num_topics), num_terms)
    if power_iters is not None:
        block = block or block_width(num_terms, num_topics, power_iters, extra_samples)
        max_steps, tolerance = power_iters + 1, 0.0
    if not squared_norm and base is None:
        return np.zeros((num_terms, 0), dtype), np.zeros(0)

    whole_norm = squared_norm  # squared too, with that of the earlier factorisation
    if base is not None:
        whole_norm += float(np.square(base[1], dtype=np.float64).sum())
    first_dtype = iteration_dtype(
        num_terms, returned, dtype, tolerance=tolerance, max_steps=max_steps, squared_norm=whole_norm
    )
    scale = _scale(whole_norm, first_dtype)

    def scaled(y: np.ndarray) -> np.ndarray:
        if scale != 1.0:
            y *= y.dtype.type(scale**2)
        return y

    def multiply(q: np.ndarray) -> np.ndarray:
        y = _checked_product(product(q), q) if squared_norm else np.zeros_like(q)
        return scaled(_with_base(y, base, q))

    omega = partial(start_block, num_terms, num_topics, seed, first_dtype, block)
    if start is None:
        image = multiply(omega())
    elif base is None:
        image = scaled(start.astype(first_dtype))
    else:
        image = scaled(_with_base(start.astype(first_dtype), base, omega()))
    rows = Rows(num_terms, side_by_side)
    scaled_norm = whole_norm * scale**2
    task = _Task(multiply, rows, dtype, wanted, returned, tolerance, max_steps, scaled_norm, seed)
    if first_dtype != dtype:
        with suppress(_Unfit):
            found = _iterate(replace(task, dtype=first_dtype, narrow=True), image, filtered=True)
            vectors, values = _in_double(*found, task)
            return vectors, values / scale
    image = image.astype(dtype, copy=False)
    try:
        # Where many of the directions are wanted, the basis is small anyway.
        found = _iterate(task, image, filtered=max_steps is None and num_terms > 4 * returned)
    except _Unfit:
        found = _iterate(task, image, filtered=False)
    vectors, theta, shift = found
    values = np.sqrt(_eigenvalues(theta, shift))
    return _with_canonical_signs(orthonormal(rows, vectors, dtype)), values / scale


def _scale(squared_norm: float, dtype: np.dtype) -> float:
    """Return the power of two that the matrix is multiplied by: 1, or what brings a norm near to 1 whose
    eighth power, the squared length of a polynomial's product, might be out of the type's range.
    """
    _, exponent = math.frexp(squared_norm)
    if abs(exponent) <= 24:
        return 1.0
    limit = int(np.finfo(dtype).maxexp) - 8
    return math.ldexp(1.0, -max(-limit, min(exponent, limit)) // 2)


@dataclass(frozen=True, slots=True)
class _Task:
    """What `factorise` is asked for, its arguments checked."""

    multiply: Callable[[np.ndarray], np.ndarray]  # of the scaled matrix, see `_scale`
    rows: Rows
    dtype: np.dtype  # of the iteration
    wanted: int
    returned: int
    tolerance: float
    max_steps: int | None
    squared_norm: float  # of the scaled matrix, with that of an earlier factorisation
    seed: int
    narrow: bool = False  # whether the result's type is wider than the iteration's


class _Unfit(Exception):
    """The matrix is not fit for a filter, or not for the type of the iteration."""


def _iterate(task: _Task, start: np.ndarray, filtered: bool) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Run the iteration from a product of A A', on A A' or, if `filtered`, on its polynomial if that is fit.

    Returns
    -------
    vectors : ndarray of `task.dtype`, shape (num_terms, k)
        Ritz vectors, orthonormal but for rounding.
    theta : ndarray of float64, shape (k,)
        Their Ritz values, descending.
    shift : float or None
        That of the polynomial, if it was that (see `_filter_shift`).

    Raises
    ------
    _Unfit
        If the polynomial, or a type that is narrower than the result's, turns out not to be fit.
    """
    dtype, rows = task.dtype, task.rows
    shift: float | None = None
    random = np.random.default_rng(task.seed)
    eps = float(np.finfo(dtype).eps)
    grid_noise = 4 * math.sqrt(rows.number) * math.ldexp(task.squared_norm, -GRID_BITS[dtype.name])
    scale = _length(start)
    vectors, coupling = orthonormalise(rows, start, _noise(dtype, scale) + grid_noise)
    basis = Basis(rows, dtype)
    problem = _RayleighRitz()
    stop = _Stop(task.wanted, task.tolerance)
    exhausted = not vectors.shape[1]
    while basis.size < rows.number and len(problem) != task.max_steps:
        if exhausted:  # nothing but directions that the start had no part in can be missing
            if filtered or task.narrow:
                raise _Unfit
            vectors = _fresh_block(random, basis, start.shape[1])
            coupling = np.zeros((vectors.shape[1], problem.width))
        image = task.multiply(vectors)
        if filtered and shift is None:
            shift = _filter_shift(vectors.T @ image, coupling, task)
            filtered = shift is not None
            stop = _Stop(task.wanted, task.tolerance, shift)
            if filtered:
                scale, grid_noise = 0.0, grid_noise * _length(image)
        if shift is not None:
            # The grid is made for columns of at most unit length.
            lengths = shifted(rows, image, shift, vectors)
            image = task.multiply(image)
            rows.scale(image, lengths)
        length = _length(image)
        scale = max(scale, length)
        floor = _noise(dtype, scale) + grid_noise
        if exhausted and length <= 4 * math.sqrt(vectors.shape[1]) * floor:
            break
        basis.append(vectors)
        coefficients = basis.project_out(image)
        # In exact arithmetic the image meets the last two blocks only.
        strayed = np.abs(coefficients[: -vectors.shape[1] - problem.width]).max(initial=0.0)
        problem.append(coefficients[-vectors.shape[1] :], coupling)
        vectors, coupling = orthonormalise(rows, image, floor)
        shortest = np.linalg.norm(coupling, axis=1).min(initial=math.inf)
        if len(coupling) and (
            shortest < 0.01 * length or strayed > min(math.sqrt(eps) * scale, 0.1 * shortest)
        ):
            # Rounding has spoilt the angles, or is about to: once more. What strays was projected out as
            # badly as the basis is orthonormal, and weighs the more in the new block the shorter that is.
            basis.project_out(vectors)
            vectors, correction = orthonormalise(rows, vectors, 0.5)
            coupling = correction @ coupling
        exhausted = not len(coupling)
        if not exhausted and stop.due(basis.size):
            theta, coordinates = problem.solve()
            if filtered and basis.size > 4 * task.wanted and theta[task.wanted - 1] <= floor:
                raise _Unfit
            if stop.reached(basis.size, theta, coordinates, coupling):
                break

    theta, coordinates = problem.solve()
    count = min(task.returned, int(np.count_nonzero(theta > floor)))
    if (filtered or task.narrow) and count < task.wanted:
        raise _Unfit
    return basis.combine(coordinates[:, :count]), theta[:count], shift


def _filter_shift(matrix: np.ndarray, coupling: np.ndarray, task: _Task) -> float | None:
    """Return the shift of a polynomial ``x (x - shift)`` that sets the wanted eigenvalues of A A' apart.

    None if the rank is small, or the polynomial's eigenvalues are too far apart for the type of the
    computation.

    Above the shift it grows about twice as fast as x, measured by its size between 0 and the shift. So a
    basis of two thirds of the columns will do, for a few more products. Any shift from a half to nine tenths
    of the last wanted eigenvalue is about as good as the best, hence an estimate will do, for which the first
    product is enough. The random `start_block` has on average the same share in each eigenvector; so the
    share that a Ritz vector has in it says for how many eigenvectors the Ritz value stands (Lin, Saad and
    Yang, Approximating spectral densities of large matrices, SIAM Review 58(1), 2016). On text the estimate
    is up to a third too large.

    Parameters
    ----------
    matrix : ndarray, shape (b, b)
        ``Q' A A' Q`` for the first block Q.
    coupling : ndarray, shape (b, c)
        ``Q @ coupling`` is the product of A A' and the start block.

    Raises
    ------
    _Unfit
        If a type narrower than the result's is not fit for the rank, or for how far apart the eigenvalues of
        A A' are.
    """
    values, rotation = np.linalg.eigh(matrix.astype(np.float64))
    if len(coupling) < coupling.shape[1] or not values[0] > 0:
        if task.narrow:
            raise _Unfit
        return None
    values, rotation = values[::-1], rotation[:, ::-1]
    stands_for = np.square(rotation.T @ coupling).mean(axis=1) / np.square(values) * task.rows.number
    ranks = np.cumsum(stands_for) - stands_for / 2
    last = float(np.interp(task.returned, ranks, values)) * min(1.0, float(ranks[-1]) / task.returned)
    shift = 0.6 * last
    largest, smallest = values[0] * (values[0] - shift), last * (last - shift)
    if task.narrow and _noise(task.dtype, values[0]) > 0.001 * last:
        raise _Unfit
    return None if _noise(task.dtype, largest) > 0.05 * smallest else shift


def _eigenvalues(theta: np.ndarray, shift: float | None) -> np.ndarray:
    """Return the eigenvalues x of A A' for which ``x (x - shift)`` is `theta`; None stands for no filter."""
    if shift is None:
        return theta
    return shift / 2 + np.sqrt(shift**2 / 4 + theta)


def _noise(dtype: np.dtype, scale: float) -> float:
    """Return the length below which a column of a product is rounding error, `scale` being that of the
    longest."""
    return 16 * float(np.finfo(dtype).eps) * scale


def _checked_product(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    if y.shape != q.shape:
        raise ValueError(f"product returned an array of shape {y.shape} for a block of shape {q.shape}")
    return np.ascontiguousarray(y, dtype=q.dtype)


def _length(vectors: np.ndarray) -> float:
    """Return the Frobenius norm of a product."""
    length = float(np.linalg.norm(vectors))
    if not math.isfinite(length):
        raise ValueError("product returned values that are not finite")
    return length


def _with_base(y: np.ndarray, base: Factors | None, q: np.ndarray) -> np.ndarray:
    """Add to a product ``U0 diag(s0**2) U0' q``, the part of an earlier factorisation, in place."""
    if base is not None:
        u, s = base[0].astype(q.dtype, copy=False), np.asarray(base[1], dtype=np.float64)
        y += u @ (np.square(s)[:, np.newaxis] * (u.T @ q)).astype(q.dtype)
    return y


def _fresh_block(random: np.random.Generator, basis: Basis, width: int) -> np.ndarray:
    """Return random orthonormal columns orthogonal to the basis."""
    vectors = random.standard_normal((basis.rows.number, min(width, basis.rows.number - basis.size)))
    vectors = vectors.astype(basis.dtype)
    for _ in range(2 if basis.size else 1):
        if basis.size:
            basis.project_out(vectors)
        vectors, _ = orthonormalise(basis.rows, vectors, 0.0)
    return vectors


class _RayleighRitz:
    """The matrix ``Q' A A' Q`` of the basis Q, block tridiagonal, as the recurrence gives it."""

    def __init__(self) -> None:
        self._diagonal: list[np.ndarray] = []
        self._coupling: list[np.ndarray] = []
        self._solution: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._diagonal)

    @property
    def width(self) -> int:
        """The columns of the last block."""
        return len(self._diagonal[-1]) if self._diagonal else 0

    def append(self, diagonal: np.ndarray, coupling: np.ndarray) -> None:
        """Add a block: its own matrix, and that between it and the block before."""
        self._diagonal.append((diagonal + diagonal.T) / 2)
        self._coupling.append(coupling)
        self._solution = None

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the Ritz values, descending, and the Ritz vectors in coordinates of the basis (columns)."""
        if self._solution is not None:
            return self._solution
        ends = np.cumsum([len(diagonal) for diagonal in self._diagonal])
        matrix = np.zeros((ends[-1], ends[-1]))
        previous = 0
        for end, diagonal, coupling in zip(ends, self._diagonal, self._coupling, strict=True):
            first = end - len(diagonal)
            matrix[first:end, first:end] = diagonal
            if first:
                matrix[first:end, previous:first] = coupling
                matrix[previous:first, first:end] = coupling.T
            previous = first
        values, vectors = np.linalg.eigh(matrix)
        self._solution = values[::-1], vectors[:, ::-1]
        return self._solution


class _Stop:
    """Tells when the wanted singular values are accurate, asking for the Ritz values as seldom as it can."""

    def __init__(self, wanted: int, tolerance: float, shift: float | None = None) -> None:
        self._wanted = wanted
        self._tolerance = tolerance
        self._shift = shift
        self._next = (3.0 if shift is None else 2.1) * wanted
        # The error falls by this factor's logarithm a column, at first sight: typical of text.
        self._rate = (2.6 if shift is None else 8.0) / wanted
        self._last: tuple[int, float] | None = None

    def due(self, size: int) -> bool:
        """Return whether a basis of `size` columns is worth a look."""
        return self._tolerance > 0 and size >= self._next

    def reached(self, size: int, theta: np.ndarray, coordinates: np.ndarray, coupling: np.ndarray) -> bool:
        """Return whether the errors are within the tolerance; if not, guess when to look again."""
        change = estimated_change(theta, coordinates, coupling, self._wanted, self._shift)
        first_look = self._last is None
        if self._last is not None and 0 < change < self._last[1]:
            rate = math.log(self._last[1] / change) / (size - self._last[0])
            self._rate = max(rate, 1 / self._wanted)
        self._last = size, change
        # Each later step changes less than the next one by this rate: a geometric series.
        error = change / (1 - math.exp(-self._rate * coupling.shape[1]))
        # At the first look the rate is but a guess, a better one where the filter leaves a gap.
        if error <= self._tolerance / ((10 if self._shift is None else 2) if first_look else 1):
            return True
        # Not all of the way that is left at this rate, since the rate rises towards the end.
        way = 0.6 * math.log(max(1.0, error / self._tolerance)) / self._rate
        self._next = size + min(way, self._wanted)
        return False


def estimated_change(
    theta: np.ndarray,
    coordinates: np.ndarray,
    coupling: np.ndarray,
    wanted: int,
    shift: float | None = None,
) -> float:
    """Return how much, relatively, the next step would at most change the first `wanted` singular values.

    A Ritz value whose pair has the residual r is within ``|r|`` of an eigenvalue, and within ``|r|**2 / gap``
    where the rest of the spectrum is a gap away. The rest is represented by the mean of the unwanted Ritz
    values.

    Parameters
    ----------
    theta : ndarray, shape (m,)
        Ritz values, descending.
    coordinates : ndarray, shape (m, m)
        Ritz vectors in coordinates of the basis.
    coupling : ndarray, shape (r, b)
        What couples the basis, whose last block has b columns, to the next block.
    wanted : int
    shift : float, optional
        That of `_filter_shift`, where the Ritz values are those of its polynomial.
    """
    residuals = np.linalg.norm(coupling @ coordinates[-coupling.shape[1] :, :wanted], axis=0)
    values = np.maximum(theta[:wanted], np.finfo(np.float64).tiny)
    rest = theta[wanted:].mean() if len(theta) > wanted else 0.0
    gaps = np.maximum(values - rest, np.finfo(np.float64).tiny)
    errors = np.minimum(residuals, np.square(residuals) / gaps)
    eigenvalues = _eigenvalues(values, shift)
    slope = 1.0 if shift is None else 2 * eigenvalues - shift
    errors /= 2 * eigenvalues * slope
    return float(errors.max())


def _in_double(vectors: np.ndarray, theta: np.ndarray, shift: float | None, task: _Task) -> Factors:
    """Return the factors in float64 that an iteration in float32 has found.

    Its Ritz values, which are a block tridiagonal matrix's, are compared with what the vectors themselves
    give in float64. It is enough to look at the last wanted ones: all products had rounding errors in
    proportion to the largest eigenvalue, so relatively these suffer most.

    Raises
    ------
    _Unfit
        If rounding has changed a wanted singular value by more than a tenth of the tolerance.
    """
    vectors = orthonormal(task.rows, vectors, task.dtype)
    first = max(0, task.wanted - block_width(task.rows.number, task.wanted))
    some = np.ascontiguousarray(vectors[:, first : task.wanted])
    image = task.multiply(some)
    exact = np.einsum("ij,ij->j", image, some if shift is None else image - shift * some)
    values, exact = np.sqrt(_eigenvalues(theta, shift)), np.sqrt(_eigenvalues(exact, shift))
    if not np.allclose(values[first : task.wanted], exact, rtol=task.tolerance / 10, atol=0):
        raise _Unfit
    return _with_canonical_signs(vectors), values


def _with_canonical_signs(vectors: np.ndarray) -> np.ndarray:
    """Make the first entry of each column that is not zero positive."""
    first = np.argmax(vectors != 0, axis=0)
    leading = vectors[first, np.arange(vectors.shape[1])]
    vectors *= np.where(leading < 0, -1, 1).astype(vectors.dtype)
    return vectors


def must_fold(kept_nbytes: int, next_nbytes: int, memory_budget: int | None) -> bool:
    """Return whether the kept chunks have to be folded before the next one is taken in.

    To fold is to factorise what is kept and to go on with the result in its place. There is nothing to fold
    before the first.
    """
    return memory_budget is not None and kept_nbytes > 0 and kept_nbytes + next_nbytes > memory_budget


def chunk_weights(numbers: Iterable[int], last: int, decay: float) -> dict[int, float]:
    """Return the squared weights of some chunks, ``decay**(2 * (last - number))``, where `last` is the
    newest."""
    return {number: decay ** (2 * (last - number)) for number in numbers}


def bound_foreseen(squared_norm: float) -> float:
    """Return a bound on the squared norm of a corpus whose first chunk has this one.

    While the chunks arrive, their product with `start_block` is summed on a grid made for that bound; where
    the corpus outgrows it, the product is computed again.
    """
    return GROWTH_FORESEEN * max(squared_norm, 1.0)

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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ._lsi_basis import orthonormal
from ._lsi_iteration import LESS, Approach, Task, Unfit, iterate, noise
from ._lsi_stop import eigenvalues
from .chunk import SMALLEST_WEIGHT
from .rows import Map, Rows
from .summation import grid_for

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

#: What a corpus' squared norm, with all weights, may be: of more, products leave the range of float64.
LARGEST_NORM = 2.0**1020
#: Of less, unless it is 0, products are no normal numbers.
SMALLEST_NORM = SMALLEST_WEIGHT**2

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
    tolerance at which that may do, and few enough of them for the first product to tell whether it does. Else
    float64, also where the result is float32; but `dtype` where not accuracy but effort is fixed.
    """
    if max_steps is not None or power_iters is not None:
        return np.dtype(dtype)
    in_range = SINGLE_NORMS[0] < squared_norm < SINGLE_NORMS[1]
    can_tell = num_terms > 4 * num_topics and in_range and tolerance >= SINGLE_TOLERANCE
    return np.dtype(np.float32 if can_tell else np.float64)


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
    observe: Callable[[Approach], None] = lambda approach: None,
) -> Factors:
    """Return the leading left singular vectors and singular values of a terms x documents matrix A.

    Block Lanczos iteration with full reorthogonalisation, on ``A A'`` or, where the wanted singular values
    are few among many, on a quadratic polynomial of it that sets them apart. It ends when the singular values
    are estimated to `tolerance`, and random probes of what the basis leaves out have shown that none is
    missing, however many are equal; each fails to with a probability of `_lsi_proof.FAILURE`. The basis has
    at most `_lsi_iteration.basis_bound` columns, and half as many again for a moment.

    The iteration runs in float32, where that is accurate enough: see `iteration_dtype`. For a float64 result
    the vectors are made orthonormal in float64 then, and the last wanted singular values, which rounding
    would spoil first, are compared with one product in float64. If float32 turns out not to do, at the
    beginning or at the end, everything is computed in float64.

    Parameters
    ----------
    product : callable
        Returns ``A (A' Q)``, shape (num_terms, b), for Q of shape (num_terms, b) in C order, computed in the
        type of Q, float32 or float64. It is a new array, which is then changed in place.
    num_terms : int
    num_topics : int
        The number of triplets wanted.
    squared_norm : float
        The squared Frobenius norm of A (0: `product` is not called).
    dtype : dtype
        float32 or float64: the type of the result. Singular values below about 1e-7 of the largest are not
        told from zero, since it is their squares that the iteration sees.
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
    observe : callable
        Told after each step how far the iteration is.

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
    ArithmeticError
        If double precision, or as much work as is allowed, does not make the values accurate.
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

    def task_in(dtype: np.dtype) -> Task:
        # The grid of a product is a multiple of this; what is off by half a step in each row is that long.
        grid_noise = 4 * math.sqrt(num_terms) * math.ldexp(whole_norm * scale**2, -GRID_BITS[dtype.name])
        return Task(
            multiply, rows, dtype, wanted, returned, tolerance, max_steps, grid_noise, seed, observe_scaled
        )

    def observe_scaled(approach: Approach) -> None:
        values = approach.values
        observe(approach if values is None else replace(approach, values=values / scale))

    rows = Rows(num_terms, side_by_side)
    if max_steps is None and first_dtype == np.float32:
        with suppress(Unfit, ArithmeticError):
            found = iterate(replace(task_in(first_dtype), narrow=True), image, filtered=True)
            if dtype == np.float64:
                vectors, values = _in_double(*found, task_in(dtype))
                return vectors, values / scale
            return _finished(*found, rows, dtype, scale)
    task = task_in(dtype if max_steps is not None else np.dtype(np.float64))
    image = image.astype(task.dtype, copy=False)
    try:
        # Where many of the directions are wanted, the basis is small anyway.
        found = iterate(task, image, filtered=max_steps is None and num_terms > 4 * returned)
    except Unfit:
        found = iterate(task, image, filtered=False)
    if max_steps is None:
        _check_accuracy(*found, task)
    return _finished(*found, rows, dtype, scale)


def _finished(
    vectors: np.ndarray, theta: np.ndarray, shift: float | None, rows: Rows, dtype: np.dtype, scale: float
) -> Factors:
    """Return the factors that an iteration of the scaled matrix has found."""
    vectors = orthonormal(rows, vectors, dtype if dtype.itemsize > vectors.itemsize else vectors.dtype)
    values = np.sqrt(eigenvalues(theta, shift))
    return _with_canonical_signs(vectors).astype(dtype, copy=False), values / scale


def _scale(squared_norm: float, dtype: np.dtype) -> float:
    """Return the power of two that the matrix is multiplied by: 1, or what brings a norm near to 1 whose
    eighth power, the squared length of a polynomial's product, might be out of the type's range.
    """
    _, exponent = math.frexp(squared_norm)
    if abs(exponent) <= 24:
        return 1.0
    limit = int(np.finfo(dtype).maxexp) - 8
    return math.ldexp(1.0, -max(-limit, min(exponent, limit)) // 2)


def _checked_product(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    if y.shape != q.shape:
        raise ValueError(f"product returned an array of shape {y.shape} for a block of shape {q.shape}")
    return np.ascontiguousarray(y, dtype=q.dtype)


def _with_base(y: np.ndarray, base: Factors | None, q: np.ndarray) -> np.ndarray:
    """Add to a product ``U0 diag(s0**2) U0' q``, the part of an earlier factorisation, in place."""
    if base is not None:
        u, s = base[0].astype(q.dtype, copy=False), np.asarray(base[1], dtype=np.float64)
        y += u @ (np.square(s)[:, np.newaxis] * (u.T @ q)).astype(q.dtype)
    return y


def _in_double(vectors: np.ndarray, theta: np.ndarray, shift: float | None, task: Task) -> Factors:
    """Return the factors in float64 that an iteration in float32 has found.

    Raises
    ------
    Unfit
        If rounding has changed a wanted singular value by more than a tenth of the tolerance.
    """
    vectors = orthonormal(task.rows, vectors, task.dtype)
    if _rounding(vectors, theta, shift, task) > task.tolerance / 10:
        raise Unfit
    return _with_canonical_signs(vectors), np.sqrt(eigenvalues(theta, shift))


def _check_accuracy(vectors: np.ndarray, theta: np.ndarray, shift: float | None, task: Task) -> None:
    """Raise an error if rounding in float64 has spoilt a wanted singular value.

    Raises
    ------
    ArithmeticError
        If one is off by more than the tolerance.
    """
    last = min(task.wanted, len(theta)) - 1
    if last < 0:
        return
    largest, smallest = (float(value) for value in eigenvalues(theta[[0, last]], shift))
    if noise(task.dtype, largest) + task.grid_noise < task.tolerance * smallest:
        return
    rounding = _rounding(vectors, theta, shift, task)
    if not rounding <= task.tolerance:
        ratio = math.sqrt(smallest / largest)
        raise ArithmeticError(
            f"singular value {last + 1} is {ratio:.1e} of the largest, too little to be told to "
            f"{task.tolerance:g} in double precision (found to {rounding:.1e}): {LESS}, or "
            "scale down the documents or terms that dwarf the others"
        )


def _rounding(vectors: np.ndarray, theta: np.ndarray, shift: float | None, task: Task) -> float:
    """Return by how much the singular values differ, relatively, from those that a product gives in float64.

    Ritz values, which are a small matrix's, are compared with what the vectors themselves give. It is enough
    to look at the last wanted ones: all products had rounding errors in proportion to the largest eigenvalue,
    so relatively these suffer most.
    """
    last = min(task.wanted, len(theta))
    first = max(0, last - block_width(task.rows.number, task.wanted))
    some = np.ascontiguousarray(vectors[:, first:last])
    image = task.multiply(some)
    exact = np.einsum("ij,ij->j", image, some if shift is None else image - shift * some)
    ratios = np.maximum(eigenvalues(exact, shift), 0) / eigenvalues(theta[first:last], shift)
    return float(np.abs(np.sqrt(ratios) - 1).max(initial=0.0))


def _with_canonical_signs(vectors: np.ndarray) -> np.ndarray:
    """Make the first entry of each column that is not zero positive."""
    leading = vectors[:1].sum(axis=0)
    for column in np.flatnonzero(leading == 0):
        leading[column] = vectors[np.argmax(vectors[:, column] != 0), column]
    vectors *= np.where(leading < 0, -1, 1).astype(vectors.dtype)
    return vectors


def must_fold(kept_nbytes: int, next_nbytes: int, memory_budget: int | None) -> bool:
    """Return whether the kept chunks have to be folded before the next one is taken in.

    To fold is to factorise what is kept and to go on with the result in its place. There is nothing to fold
    before the first.
    """
    return memory_budget is not None and kept_nbytes > 0 and kept_nbytes + next_nbytes > memory_budget


def chunks_since(start: int, end: int, earlier: int = 0) -> int:
    """Return how many chunks with numbers from `start` to before `end` weigh down what came before them.

    The first chunks, so many as `earlier`, weigh on nothing: what they count beside each other is settled.
    """
    return max(end, earlier) - max(start, earlier)


def chunk_weights(
    numbers: Iterable[int], last: int, decay: float, settled: Sequence[float] = ()
) -> dict[int, float]:
    """Return the squared weights of some chunks, where `last` is the newest: each counts `decay` times as
    much as the next one, but the first ones beside each other as their `settled` squared weights say.
    """
    weights = {}
    for number in numbers:
        squared = settled[number] if number < len(settled) else 1.0
        since = chunks_since(number + 1, last + 1, len(settled))
        weights[number] = squared * decayed(decay, 2 * since)
    return weights


def decayed(decay: float, times: int) -> float:
    """Return what something weighs that was weighed down so many times.

    Raises
    ------
    ValueError
        If that is more than numbers can hold.
    """
    try:
        return float(decay**times)
    except OverflowError:
        raise ValueError(
            f"decay={decay:g}: it was applied {times} times to the squares of the first documents' values, "
            "which then count infinitely much; give a decay of 1 or less, or a larger chunksize"
        ) from None


def check_norm(squared_norm: float, decay: float, entries: int) -> None:
    """Refuse documents whose products could not be told from 0, or not be held.

    Parameters
    ----------
    squared_norm : float
        Of all documents, as they are weighed.
    decay : float
        What they are weighed by.
    entries : int
        Their words.

    Raises
    ------
    ValueError
        They are.
    """
    weighed = "" if decay == 1 else f", weighed by decay={decay:g},"
    if not squared_norm < LARGEST_NORM:
        raise ValueError(
            f"the squares of the documents' values{weighed} add up to {squared_norm:g}, and must to less "
            f"than {LARGEST_NORM:.3g}: divide the values by a number, or give a decay of 1 or less"
        )
    if squared_norm < SMALLEST_NORM and entries:
        raise ValueError(
            f"the squares of the documents' values{weighed} add up to {squared_norm:g}, and must to "
            f"{SMALLEST_NORM:g} or more: multiply the values by a number, or give a decay near 1"
        )


def bound_foreseen(squared_norm: float) -> float:
    """Return a bound on the squared norm of a corpus whose first chunk has this one; of one that begins with
    nothing but zeros, which tell nothing, a bound for values around 1.

    While the chunks arrive, their product with `start_block` is summed on a grid made for that bound; where
    the corpus outgrows it, the product is computed again.
    """
    return min(GROWTH_FORESEEN * (squared_norm or 1.0), LARGEST_NORM)

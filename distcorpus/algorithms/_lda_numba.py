"""The compiled kernels of LDA; `_lda_numpy` has the same functions, in a few lines of numpy each.

The topic weights ``B`` of a document's words (topics x words) are laid out with the words along the vectors.
Both halves of an iteration, ``phinorm = theta' B`` and ``B (counts / phinorm)``, then run over whole rows of
B, and a topic that has left the document is left out by skipping its row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import register_jitable
from scipy.special import psi

from ._caching import compiled
from ._lda_numpy import GAMMA_QUANTILE, MIX_MULTIPLIERS, MIX_STEP
from ._lda_simd import (
    absolute,
    choose,
    copy_transposed,
    fill,
    fma,
    is_set,
    lanes,
    load,
    load_apart,
    maximum,
    nearest,
    polynomial,
    power_of_two,
    smallest,
    splat,
    store,
    total,
)
from ._subnormals import without_subnormals

LOG2_E = math.log2(math.e)
LN2 = math.log(2)
LN2_REST_SINGLE = -1.904654299957768e-09  # ln 2 less its float32
LN2_REST_DOUBLE = 2.3190468138462996e-17  # ln 2 less its float64

# exp(u) for |u| <= ln(2) / 2, interpolated at Chebyshev nodes (relative error 3e-9, 4e-18).
EXP_SINGLE = (
    1.0, 1.0000000379432992, 0.5000000047401394, 0.1666641450716956, 0.04166635163844457,
    0.008375210200870016, 0.0013941213100006334,
)  # fmt: skip
EXP_DOUBLE = (
    1.0, 1.0, 0.5000000000000019, 0.1666666666666668, 0.04166666666648666, 0.00833333333331949,
    0.0013888888952696516, 0.00019841269890340666, 2.4801485074105115e-05, 2.7557240604663896e-06,
    2.763279054211718e-07, 2.511015364692893e-08,
)  # fmt: skip

# (exp(psi(1 + x)) - x - 1/2) / w as a polynomial of w = 1 / (x + POLE), 0 < w <= 1 / POLE, interpolated at
# Chebyshev nodes in 60-digit arithmetic (relative error of exp(psi): 5e-8, 2e-15). It tends to 1/24 as x
# grows.
POLE = 1.25
GROWTH_SINGLE = (
    0.041666569901005014, 0.03125899499838028, 0.016861128681064277, 0.004178063017012532,
    -0.008548578235131556, 0.0022028694605615625,
)  # fmt: skip
GROWTH_DOUBLE = (
    0.041666666666679814, 0.0312499999904578, 0.017013890059338996, 0.0031249421987453938,
    -0.0049420839840364494, -0.003914940472446691, 0.003219065206773153, 0.003193005335110546,
    0.007222017669211103, -0.05683147695845115, 0.1364006829968777, -0.19833930216827847,
    0.19678125128310758, -0.13559401981181107, 0.06265243696982836, -0.017551269178738782,
    0.002260162205359367,
)  # fmt: skip

LOOK_EVERY = 16  # iterations, at topics that have left

SMALLEST_QUOTIENT = 1e-30

SMALLEST_ARGUMENT = 2.0**-14  # of exp_digamma: whole exponents of two stay exact in float32


@register_jitable
def growth(x: Any, w: Any) -> Any:
    """exp(psi(1 + x)) for vectors x >= 0 and w = 1 / (x + POLE)."""
    return fma(w, polynomial(w, GROWTH_SINGLE, GROWTH_DOUBLE), x + fill(x, 0.5))


@register_jitable
def exp_digamma(x: Any, shift: Any) -> Any:
    """exp(psi(x)) * 2**shift for vectors x >= 2**-14 and whole shifts; 0 where it would be subnormal.

    psi(x) = psi(1 + x) - 1/x, and exp(psi(1 + x)) is smooth and almost x + 1/2. What would cost accuracy is
    exp(-1/x) for small x: the division's remainder is carried along.
    """
    x = maximum(x, fill(x, SMALLEST_ARGUMENT))
    shifted = x + fill(x, POLE)
    both = fill(x, 1.0) / (x * shifted)
    w = both * x
    inverse = both * shifted
    remainder = fma(-inverse, x, fill(x, 1.0))  # 1/x = inverse * (1 + remainder)
    twos = nearest(inverse * fill(x, LOG2_E))
    u = fma(twos, fill(x, LN2), -inverse)
    u = fma(twos, choose(x, LN2_REST_SINGLE, LN2_REST_DOUBLE), u)
    u = fma(-inverse, remainder, u)
    return growth(x, w) * polynomial(u, EXP_SINGLE, EXP_DOUBLE) * power_of_two(shift - twos)


@register_jitable
def padded(count: int, lane: int) -> int:
    return (count + lane - 1) // lane * lane


@compiled(nogil=True, error_model="numpy")
def _successor_growth(values: np.ndarray) -> np.ndarray:
    """exp(psi(1 + values)) for a 1-d array."""
    lane = lanes(values)
    buffer = np.ones(padded(values.size, lane), values.dtype)
    buffer[: values.size] = values
    for v in range(0, buffer.size, lane):
        x = load(buffer, v)
        store(buffer, v, growth(x, fill(x, 1.0) / (x + fill(x, POLE))))
    return buffer[: values.size]


def digamma(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return np.log(_successor_growth(values.reshape(-1))).reshape(values.shape) - 1 / values


@without_subnormals
@compiled(nogil=True, error_model="numpy")
def _topic_weights(rows: np.ndarray, shifts: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """exp(psi(rows)) * 2**shifts * scales; rows (m, K), the others (K,), all of one dtype."""
    lane = lanes(shifts)
    num_topics = shifts.size
    width = max(num_topics, lane)
    if num_topics < lane:
        padded_rows = np.ones((rows.shape[0], lane), rows.dtype)
        padded_rows[:, :num_topics] = rows
        padded_shifts, padded_scales = np.zeros(lane, rows.dtype), np.ones(lane, rows.dtype)
        padded_shifts[:num_topics] = shifts
        padded_scales[:num_topics] = scales
        rows, shifts, scales = padded_rows, padded_shifts, padded_scales
    weights = np.empty_like(rows)
    values, target = rows.reshape(-1), weights.reshape(-1)
    for start in range(0, values.size, width):
        for v in range(0, width, lane):
            column = min(v, width - lane)  # the last block overlaps the one before
            weight = exp_digamma(load(values, start + column), load(shifts, column)) * load(scales, column)
            store(target, start + column, weight)
    return np.ascontiguousarray(weights[:, :num_topics])


def topic_weights(rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
    small = totals < 2 * SMALLEST_ARGUMENT  # of larger ones, smaller rows weigh nothing anyway
    of_kernel = np.where(small, 1.0, totals)
    shifts = np.rint(LOG2_E / of_kernel)  # exp(psi(totals)) is about 2**-shifts
    scales = np.exp(-psi(of_kernel) - LN2 * shifts)
    weights = np.asarray(_topic_weights(rows, shifts.astype(rows.dtype), scales.astype(rows.dtype)))
    if small.any():
        weights[:, small] = _small_weights(rows[:, small].astype(np.float64), totals[small])
        weights[weights < np.finfo(rows.dtype).tiny] = 0
    return weights


def _small_weights(rows: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """exp(psi(rows) - psi(totals)) near 0, where psi(x) = psi(1 + x) - 1/x is all but -1/x."""
    rows = np.minimum(rows, totals)  # which rounding may exceed
    return np.asarray(np.exp((rows - totals) / rows / totals + psi(1 + rows) - psi(1 + totals)))


@register_jitable
def gather(
    table: np.ndarray, num_topics: int, starts: np.ndarray, length: int, columns: np.ndarray, width: int
) -> None:
    """columns[k * width + j] = table[starts[j] + k]; what lies beyond the length is some word's as well."""
    lane = lanes(table)
    for block in range(0, width, lane):
        if num_topics < lane:
            for k in range(num_topics):
                for j in range(block, block + lane):
                    columns[k * width + j] = table[starts[j] + k]
        else:
            for k in range(0, num_topics, lane):
                column = min(k, num_topics - lane)  # the last block overlaps the one before
                copy_transposed(table, starts[block:], column, columns, column * width + block, width)


@register_jitable
def exponent(mass: Any) -> Any:
    """Of the power of two that documents of this mass have as the scale of their weights."""
    mass = splat(mass)
    return nearest(fill(mass, LOG2_E) / maximum(mass, fill(mass, SMALLEST_ARGUMENT)))


@register_jitable
def weigh(posterior: np.ndarray, width: int, mass: Any, collapsed: bool, weight: np.ndarray) -> Any:
    """Fill in the document's topic weights and return, to the same scale, the weight of all its mass.

    The scale 2**shift keeps documents of tiny mass representable; it cancels in all that is made of the
    weights.
    """
    lane = lanes(posterior)
    if collapsed:
        for v in range(0, width, lane):
            store(weight, v, load(posterior, v))
        return mass
    shift = exponent(mass)
    for v in range(0, width, lane):
        store(weight, v, exp_digamma(load(posterior, v), shift))
    return smallest(exp_digamma(splat(mass), shift))


@register_jitable
def divide(
    count: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    live: int,
    columns: np.ndarray,
    width: int,
    floor: Any,
    quotient: np.ndarray,
) -> None:
    """quotient = count / (weight' B + floor), with the rows of B at columns[row[i] :]."""
    lane = lanes(columns)
    start = splat(floor)
    whole = width - width % (4 * lane)
    for v in range(0, whole, 4 * lane):
        a = start
        b = start
        c = start
        d = start
        for i in range(live):
            w = splat(weight[i])
            a = fma(w, load(columns, row[i] + v), a)
            b = fma(w, load(columns, row[i] + v + lane), b)
            c = fma(w, load(columns, row[i] + v + 2 * lane), c)
            d = fma(w, load(columns, row[i] + v + 3 * lane), d)
        store(quotient, v, load(count, v) / a)
        store(quotient, v + lane, load(count, v + lane) / b)
        store(quotient, v + 2 * lane, load(count, v + 2 * lane) / c)
        store(quotient, v + 3 * lane, load(count, v + 3 * lane) / d)
    even = live - live % 2
    for v in range(whole, width, lane):
        a = start
        b = fill(start, 0.0)
        for i in range(0, even, 2):
            a = fma(splat(weight[i]), load(columns, row[i] + v), a)
            b = fma(splat(weight[i + 1]), load(columns, row[i + 1] + v), b)
        if even < live:
            a = fma(splat(weight[even]), load(columns, row[even] + v), a)
        store(quotient, v, load(count, v) / (a + b))


@register_jitable
def multiply(
    row: np.ndarray, live: int, columns: np.ndarray, width: int, quotient: np.ndarray, share: np.ndarray
) -> None:
    """share = B quotient, with the rows of B at columns[row[i] :]."""
    lane = lanes(columns)
    zero = fill(load(quotient, 0), 0.0)
    whole = live - live % 4
    for i in range(0, whole, 4):
        a = zero
        b = zero
        c = zero
        d = zero
        for v in range(0, width, lane):
            q = load(quotient, v)
            a = fma(q, load(columns, row[i] + v), a)
            b = fma(q, load(columns, row[i + 1] + v), b)
            c = fma(q, load(columns, row[i + 2] + v), c)
            d = fma(q, load(columns, row[i + 3] + v), d)
        share[i] = total(a)
        share[i + 1] = total(b)
        share[i + 2] = total(c)
        share[i + 3] = total(d)
    for i in range(whole, live):
        a = zero
        for v in range(0, width, lane):
            a = fma(load(quotient, v), load(columns, row[i] + v), a)
        share[i] = total(a)


@register_jitable
def sweep(
    table: np.ndarray,
    num_topics: int,
    starts: np.ndarray,
    length: int,
    count: np.ndarray,
    width: int,
    weight: np.ndarray,
    floor: Any,
    quotient: np.ndarray,
    share: np.ndarray,
) -> None:
    """quotient = count / (weight' B + floor) and share = B quotient, with the columns of B at
    table[starts[j] :].

    Columns are still in a near cache when they are read again. The last vector of one ends with it and
    overlaps the one before, so weight and share have a gap there (see `lay_out`).
    """
    lane = lanes(table)
    last = num_topics - lane
    zero = fill(load(weight, 0), 0.0)
    for v in range(0, weight.size, lane):
        store(share, v, zero)
    for block in range(0, width, lane):
        end = min(block + lane, padded(length, 4))
        for j in range(block, end, 4):
            at_a, at_b, at_c, at_d = starts[j], starts[j + 1], starts[j + 2], starts[j + 3]
            a = zero
            b = zero
            c = zero
            d = zero
            for v in range(0, weight.size, lane):
                w = load(weight, v)
                k = min(v, last)
                a = fma(w, load(table, at_a + k), a)
                b = fma(w, load(table, at_b + k), b)
                c = fma(w, load(table, at_c + k), c)
                d = fma(w, load(table, at_d + k), d)
            quotient[j], quotient[j + 1] = total(a), total(b)
            quotient[j + 2], quotient[j + 3] = total(c), total(d)
        store(quotient, block, load(count, block) / (load(quotient, block) + splat(floor)))
        for j in range(block, end, 4):
            at_a, at_b, at_c, at_d = starts[j], starts[j + 1], starts[j + 2], starts[j + 3]
            a = splat(quotient[j])
            b = splat(quotient[j + 1])
            c = splat(quotient[j + 2])
            d = splat(quotient[j + 3])
            for v in range(0, weight.size, lane):
                k = min(v, last)
                s = fma(a, load(table, at_a + k), load(share, v))
                s = fma(b, load(table, at_b + k), s)
                s = fma(c, load(table, at_c + k), s)
                store(share, v, fma(d, load(table, at_d + k), s))


@register_jitable
def lay_out(values: np.ndarray, before: int, gap: int, target: np.ndarray) -> None:
    """Copy the values to whole vectors, with a gap of zeros after so many of them."""
    for k in range(before):
        target[k] = values[k]
    for k in range(before, before + gap):
        target[k] = 0
    for k in range(before, values.size):
        target[k + gap] = values[k]


@register_jitable
def gather_topics(
    table: np.ndarray,
    starts: np.ndarray,
    topic: np.ndarray,
    live: int,
    columns: np.ndarray,
    width: int,
    row: np.ndarray,
) -> None:
    """Gather some topics: columns[row[i] + j] = table[starts[j] + topic[i]]."""
    for i in range(live):
        row[i] = i * width
    for block in range(0, width, lanes(table)):
        for i in range(live):
            store(columns, row[i] + block, load_apart(table, starts, block, topic[i]))


@register_jitable
def normalise(count: np.ndarray, quotient: np.ndarray, width: int, normaliser: np.ndarray) -> None:
    """normaliser = count / quotient, 0 where both are."""
    lane = lanes(count)
    for v in range(0, width, lane):
        divisor = load(quotient, v)
        store(normaliser, v, load(count, v) / maximum(divisor, fill(divisor, SMALLEST_QUOTIENT)))


@register_jitable
def dot(left: np.ndarray, right: np.ndarray, width: int) -> Any:
    lane = lanes(left)
    result = fill(load(left, 0), 0.0)
    for v in range(0, width, lane):
        result = fma(load(left, v), load(right, v), result)
    return total(result)


@register_jitable
def sum_of(values: np.ndarray, width: int) -> Any:
    lane = lanes(values)
    result = fill(load(values, 0), 0.0)
    for v in range(0, width, lane):
        result = result + load(values, v)
    return total(result)


@register_jitable
def update(
    weight: np.ndarray, share: np.ndarray, prior: np.ndarray, posterior: np.ndarray, width: int
) -> Any:
    """posterior = prior + weight * share; return its sum, and by how much it has changed."""
    lane = lanes(prior)
    mass = fill(load(prior, 0), 0.0)
    change = mass
    for v in range(0, width, lane):
        new = fma(load(weight, v), load(share, v), load(prior, v))
        change = change + absolute(new - load(posterior, v))
        mass = mass + new
        store(posterior, v, new)
    return total(mass), total(change)


@register_jitable
def leaves(weight: Any, share: Any, prior: Any, posterior: Any, tolerance: Any, trace: Any) -> bool:
    """Whether a topic is about to receive less than the tolerance, and does not grow from a trace."""
    coming = weight * share
    received = posterior - prior
    return (coming < tolerance) & (coming <= received + received + trace)


@register_jitable
def returning(
    table: np.ndarray,
    starts: np.ndarray,
    length: int,
    quotient: np.ndarray,
    resting: np.ndarray,
    tolerance: Any,
    topic: np.ndarray,
    live: int,
    share: np.ndarray,
) -> int:
    """Append those topics to the live ones that would receive more than the tolerance; return how many there
    are.

    `resting` are the weights of topics that have received nothing; `share` is for use here.
    """
    num_topics = topic.size
    for k in range(num_topics):
        share[k] = 0
    for j in range(length):
        for k in range(num_topics):
            share[k] += quotient[j] * table[starts[j] + k]
    for i in range(live):
        share[topic[i]] = 0
    for k in range(num_topics):
        if resting[k] * share[k] > tolerance:
            topic[live] = k
            live += 1
    return live


@without_subnormals
@compiled(nogil=True, error_model="numpy")
def expectation(
    indptr: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    table: np.ndarray,
    alpha: np.ndarray,
    gamma: np.ndarray,
    iterations: int,
    threshold: Any,
    epsilon: Any,
    collapsed: bool,
    stop: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray, int, int]:
    # A topic leaves a document from which it is about to receive next to nothing, with gamma = alpha. Now and
    # then, and at the end, those that have left are looked at again.
    lane = lanes(alpha)
    num_docs, num_topics = gamma.shape
    topics_width = padded(num_topics, lane)
    gap = topics_width - num_topics
    longest = lane
    for d in range(num_docs):
        longest = max(longest, padded(indptr[d + 1] - indptr[d], lane))
    table = table.reshape(-1)
    theta_stop = np.zeros(num_docs + 1, np.int64)
    theta_topic = np.empty(num_docs * num_topics, np.int32)
    theta_weight = np.empty(num_docs * num_topics + lane, alpha.dtype)
    ratio = np.empty(counts.size, alpha.dtype)
    starts = np.empty(longest, np.int64)
    columns = np.empty(num_topics * longest, alpha.dtype)
    # By word of the document, in whole vectors:
    count, quotient = np.zeros(longest, alpha.dtype), np.zeros(longest, alpha.dtype)
    at_first = np.zeros(longest, alpha.dtype)
    # By live topic of the document, in whole vectors that end in zeros:
    topic, row = np.empty(num_topics, np.int64), np.empty(num_topics, np.int64)
    prior, posterior = np.empty(topics_width, alpha.dtype), np.empty(topics_width, alpha.dtype)
    weight, share = np.empty(topics_width, alpha.dtype), np.empty(topics_width, alpha.dtype)
    resting = np.empty(topics_width, alpha.dtype)
    # Fewer topics are gathered sooner than read again; and from CVB0 none ever leaves.
    by_rows = num_topics >= 16 * lane and not collapsed
    before = topics_width - lane if by_rows else num_topics
    largest_prior = alpha.max()
    alphas = np.ones(topics_width, alpha.dtype)
    alphas[:num_topics] = alpha
    nothing = alpha.dtype.type(0)
    precision = alpha.dtype.type(np.finfo(alpha.dtype).eps / 16)
    num_converged = 0
    num_iterations = 0

    for d in range(num_docs):
        if is_set(stop):  # nobody looks at what is returned
            break
        first = indptr[d]
        length = indptr[d + 1] - first
        width = padded(length, lane)
        for j in range(length):
            count[j] = counts[first + j]
            starts[j] = rows[first + j] * num_topics
        for j in range(length, width):
            count[j] = 0
            quotient[j] = 0
            starts[j] = starts[length - 1]
        tolerance = precision * sum_of(count, width)
        trace = tolerance / 1024
        iteration = 0
        converged = False
        live = num_topics
        lay_out(alpha, before, gap, prior)
        lay_out(gamma[d], before, gap, posterior)
        mass = sum_of(posterior, topics_width)
        scale = weigh(posterior, topics_width, mass, collapsed, weight)
        for k in range(before, before + gap):
            weight[k] = 0
        least = weight[0]
        for v in range(0, before - before % lane, lane):
            least = min(least, smallest(load(weight, v)))
        for k in range(before - before % lane, num_topics):
            least = min(least, weight[k + gap if k >= before else k])

        # Over all topics, by the rows of the table.
        while by_rows:
            sweep(table, num_topics, starts, length, count, width, weight, epsilon * scale, quotient, share)
            if iteration == 0:
                normalise(count, quotient, width, at_first)
            if converged or iteration == iterations:
                break
            mass, change = update(weight, share, prior, posterior, topics_width)
            iteration += 1
            if is_set(stop):
                iterations = iteration
            converged = change < threshold * num_topics
            scale = weigh(posterior, topics_width, mass, collapsed, weight)
            for k in range(before, before + gap):
                weight[k] = 0
            if not (collapsed or converged or iteration == iterations):
                leaving = 0
                for i in range(topics_width):
                    leaving += leaves(weight[i], share[i], prior[i], posterior[i], tolerance, trace)
                if 3 * (topics_width - leaving) <= num_topics:
                    break

        # Over the topics that are left, by the columns of what is gathered of them.
        gone_mass = nothing  # of the topics that have left
        gone_change = nothing  # of those that left in the last iteration
        finished = by_rows and (converged or iteration == iterations)
        if not by_rows:
            for k in range(num_topics):
                topic[k], row[k] = k, k * width
            gather(table, num_topics, starts, length, columns, width)
        else:
            live = 0
            for k in range(num_topics):
                i = k if k < before else k + gap
                if not finished and leaves(weight[i], share[i], prior[i], posterior[i], tolerance, trace):
                    gone_mass += prior[i]
                    gone_change += posterior[i] - prior[i]
                else:
                    topic[live] = k
                    prior[live], posterior[live], weight[live] = prior[i], posterior[i], weight[i]
                    live += 1
            if not finished:
                gather_topics(table, starts, topic, live, columns, width, row)
        if not finished:
            live_width = padded(live, lane)
            for i in range(live, live_width):
                prior[i], posterior[i], share[i] = nothing, nothing, nothing
            divide(count, weight, row, live, columns, width, epsilon * scale, quotient)
            if iteration == 0:
                normalise(count, quotient, width, at_first)
        while iteration < iterations and not converged:
            multiply(row, live, columns, width, quotient, share)
            mass, change = update(weight, share, prior, posterior, live_width)
            mass += gone_mass
            iteration += 1
            if is_set(stop):
                iterations = iteration
            converged = change + gone_change < threshold * num_topics
            scale = weigh(posterior, live_width, mass, collapsed, weight)
            gone_change = nothing
            if not (collapsed or converged or iteration == iterations):
                kept = 0
                for i in range(live):
                    if leaves(weight[i], share[i], prior[i], posterior[i], tolerance, trace):
                        gone_mass += prior[i]
                        gone_change += posterior[i] - prior[i]
                    else:
                        topic[kept], row[kept] = topic[i], row[i]
                        prior[kept], posterior[kept], weight[kept] = prior[i], posterior[i], weight[i]
                        kept += 1
                if kept < live:
                    live = kept
                    live_width = padded(live, lane)
                    for i in range(live, live_width):
                        prior[i], posterior[i], share[i] = nothing, nothing, nothing
            divide(count, weight, row, live, columns, width, epsilon * scale, quotient)
            looks = converged or iteration % LOOK_EVERY == 0 or iteration == iterations - 1
            if live < num_topics and looks:
                # No topic has more of a word than the first normaliser has over the least weight.
                at_rest = smallest(exp_digamma(splat(largest_prior), exponent(mass)))
                if not at_rest * dot(quotient, at_first, width) <= least * tolerance:
                    weigh(alphas, topics_width, mass, collapsed, resting)
                    back = returning(table, starts, length, quotient, resting, tolerance, topic, live, share)
                    for i in range(topics_width):  # what lies behind the live topics is added up too
                        share[i] = nothing
                    if live < back:
                        for i in range(live, back):
                            gone_mass -= alpha[topic[i]]
                            prior[i] = posterior[i] = alpha[topic[i]]
                            weight[i] = resting[topic[i]]
                        live = back
                        live_width = padded(live, lane)
                        for i in range(live, live_width):
                            prior[i], posterior[i] = nothing, nothing
                        gather_topics(table, starts, topic, live, columns, width, row)
                        divide(count, weight, row, live, columns, width, epsilon * scale, quotient)
                        converged = False

        num_converged += converged
        num_iterations += iteration
        if iteration > 0:
            gamma[d] = alpha
        for i in range(live):
            gamma[d, topic[i]] = posterior[i]
        begin = theta_stop[d]
        if 4 * live > num_topics:  # as a whole row
            theta_stop[d + 1] = begin + num_topics
            for k in range(num_topics):
                theta_topic[begin + k] = k
                theta_weight[begin + k] = 0
            for i in range(live):
                theta_weight[begin + topic[i]] = weight[i]
        else:
            theta_stop[d + 1] = begin + live
            for i in range(live):
                theta_topic[begin + i] = topic[i]
                theta_weight[begin + i] = weight[i]
        for j in range(length):
            ratio[first + j] = quotient[j]
    theta = (theta_stop, theta_topic[: theta_stop[-1]], theta_weight[: theta_stop[-1]])
    return theta, ratio, num_converged, num_iterations


@without_subnormals
@compiled(nogil=True, error_model="numpy")
def statistics(
    indptr: np.ndarray,
    positions: np.ndarray,
    theta: tuple[np.ndarray, np.ndarray, np.ndarray],
    ratio: np.ndarray,
    table: np.ndarray,
    table_rows: np.ndarray,
    grid: float,
    steps: np.ndarray,
    cells: np.ndarray,
    sparse: bool,
) -> int:
    theta_stop, theta_topic, theta_weight = theta
    num_words, num_topics = table_rows.size, table.shape[1]
    lane = lanes(ratio)
    whole = num_topics - num_topics % lane
    # The entries word by word, in document order (a counting sort).
    stop = np.zeros(num_words + 1, np.int64)
    for j in range(positions.size):
        stop[positions[j] + 1] += 1
    stop = np.cumsum(stop)
    ratios = np.empty(positions.size, ratio.dtype)
    document = np.empty(positions.size, np.int32)
    for d in range(indptr.size - 1):
        for j in range(indptr[d], indptr[d + 1]):
            p = positions[j]
            ratios[stop[p]] = ratio[j]
            document[stop[p]] = d
            stop[p] += 1
    row = np.zeros(num_topics, ratio.dtype)
    touched = np.empty(num_topics, np.int64)
    touched_by = np.full(num_topics, -1, np.int64)
    per_step = 1 / grid
    num_cells = 0
    begin = 0
    for p in range(num_words):
        end = stop[p]
        num_touched = 0
        for e in range(begin, end):
            uses = ratios[e]
            first, last = theta_stop[document[e]], theta_stop[document[e] + 1]
            if last - first < num_topics:
                for i in range(first, last):
                    k = theta_topic[i]
                    if touched_by[k] != p:
                        touched_by[k] = p
                        touched[num_touched] = k
                        num_touched += 1
                    row[k] += uses * theta_weight[i]
                continue
            for v in range(0, whole, lane):
                store(row, v, fma(splat(uses), load(theta_weight, first + v), load(row, v)))
            for k in range(whole, num_topics):
                row[k] += uses * theta_weight[first + k]
            if num_touched < num_topics:
                num_touched = num_topics
                for k in range(num_topics):
                    touched_by[k] = p
                    touched[k] = k
        r = table_rows[p]
        for i in range(num_touched):
            k = touched[i]
            step = np.rint(np.float64(row[k] * table[r, k]) * per_step)
            row[k] = 0
            if sparse:
                cells[num_cells] = p * num_topics + k
                steps[num_cells] = step
                num_cells += step != 0
            else:
                steps[p * num_topics + k] += step
        begin = end
    return num_cells


@without_subnormals
@compiled(nogil=True, error_model="numpy")
def absence(
    indptr: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    table: np.ndarray,
    theta: tuple[np.ndarray, np.ndarray, np.ndarray],
    ratio: np.ndarray,
    uses: np.ndarray,
) -> np.ndarray:
    theta_stop, theta_topic, theta_weight = theta
    absent = np.empty(uses.shape)
    weight = np.empty(uses.shape[1], ratio.dtype)
    for d in range(uses.shape[0]):
        weight[:] = 0
        for i in range(theta_stop[d], theta_stop[d + 1]):
            weight[theta_topic[i]] = theta_weight[i]
        for k in range(uses.shape[1]):
            if not 1e-3 < uses[d, k] < 30:  # 1 - P is (1 - P) (1 + uses / 2) at least; P < exp(-uses)
                absent[d, k] = max(1 - uses[d, k], 0.0)
                continue
            product = 1.0
            for j in range(indptr[d], indptr[d + 1]):
                count = np.float64(counts[j])
                expected = np.float64(weight[k] * ratio[j] * table[rows[j], k])
                if count == 1 or expected < 1e-4:  # (1 - expected / count) ** count, or nearly
                    product *= max(1 - expected, 0.0)
                else:
                    product *= max(1 - expected / count, 0.0) ** count
            absent[d, k] = product
    return absent


@compiled(nogil=True, error_model="numpy")
def starting_gamma(num_docs: int, num_topics: int, state: Any) -> np.ndarray:
    values = np.empty((num_docs, num_topics))
    flat = values.reshape(-1)
    low = np.uint64(0xFFFF)
    for i in range(flat.size):
        bits = state + np.uint64(i + 1) * MIX_STEP
        bits = (bits ^ (bits >> np.uint64(30))) * MIX_MULTIPLIERS[0]
        bits = (bits ^ (bits >> np.uint64(27))) * MIX_MULTIPLIERS[1]
        bits ^= bits >> np.uint64(31)
        fields = (
            (bits & low)
            + (bits >> np.uint64(16) & low)
            + (bits >> np.uint64(32) & low)
            + (bits >> np.uint64(48))
        )
        u = (np.int64(fields) - 131070) / 131072.0
        value = GAMMA_QUANTILE[-1]
        for c in range(len(GAMMA_QUANTILE) - 2, -1, -1):
            value = float(value * u + GAMMA_QUANTILE[c])
        flat[i] = value
    return values


@compiled(nogil=True, error_model="numpy")
def word_bound(
    indptr: np.ndarray, rows: np.ndarray, counts: np.ndarray, log_topics: np.ndarray, log_theta: np.ndarray
) -> float:
    # One exponential for each topic and table row or document, not for each topic and entry: exp(x + y) is
    # the product of exponentials scaled to their largest. Where all products underflow the sum is taken
    # anew.
    num_topics = log_topics.shape[1]
    peak = np.empty(log_topics.shape[0])
    topics = np.empty_like(log_topics)
    for r in range(log_topics.shape[0]):
        peak[r] = log_topics[r].max()
        for k in range(num_topics):
            topics[r, k] = math.exp(log_topics[r, k] - peak[r])
    score = 0.0
    theta = np.empty(num_topics)
    for d in range(indptr.size - 1):
        top = log_theta[d].max()
        for k in range(num_topics):
            theta[k] = math.exp(log_theta[d, k] - top)
        for j in range(indptr[d], indptr[d + 1]):
            r = rows[j]
            mixture = 0.0
            for k in range(num_topics):
                mixture += theta[k] * topics[r, k]
            if mixture < 1e-250:
                largest = (log_theta[d] + log_topics[r]).max()
                mixture = 0.0
                for k in range(num_topics):
                    mixture += math.exp(log_theta[d, k] + log_topics[r, k] - largest)
                score += counts[j] * (math.log(mixture) + largest)
            else:
                score += counts[j] * (math.log(mixture) + top + peak[r])
    return score

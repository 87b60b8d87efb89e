"""The block Lanczos iteration for an operator ``A A'`` that can only be multiplied.

`iterate` runs it, on the operator or on a quadratic polynomial of it, until `Stop` is content. A basis that
grows too large begins again from its Ritz vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._lsi_basis import Basis, orthonormal, orthonormalise, panel_width, shifted
from ._lsi_proof import Probe
from ._lsi_stop import RayleighRitz, Stop, eigenvalues
from .rows import Rows

#: Steps that a probe takes, about.
PROBE_STEPS = 4
#: What can be asked for where values are not as accurate as is asked for.
LESS = (
    "ask for fewer topics (num_topics), or for so much work (power_iters, extra_samples) in place of that "
    "accuracy"
)
#: How often the basis begins again before the iteration is given up.
RESTARTS = 60


@dataclass(frozen=True, slots=True)
class Approach:
    """How far an iteration is.

    Attributes
    ----------
    products_left : int
        About how many are to come.
    error : float or None
        The largest relative error of a wanted singular value, by the latest estimate.
    values : ndarray or None
        The wanted singular values as they were at that estimate, descending.
    """

    products_left: int
    error: float | None
    values: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Task:
    """What `factorise` is asked for, its arguments checked."""

    multiply: Callable[[np.ndarray], np.ndarray]  # of the scaled matrix, see `_scale`
    rows: Rows
    dtype: np.dtype  # of the iteration
    wanted: int
    returned: int
    tolerance: float
    max_steps: int | None
    grid_noise: float  # the length of what a product's grid may be off, see `product_grid`
    seed: int
    observe: Callable[[Approach], None] = lambda approach: None
    narrow: bool = False  # whether the result's type is wider than the iteration's


class Unfit(Exception):
    """The matrix is not fit for a filter, or not for the type of the iteration."""


def basis_bound(returned: int) -> int:
    """Return the most columns that the basis has, for so many triplets, in an iteration to a tolerance.

    Where a block more does not fit, it begins again from half of its Ritz vectors; while these are computed,
    they need memory too.
    """
    return 4 * returned + 1024


def iterate(task: Task, start: np.ndarray, filtered: bool) -> tuple[np.ndarray, np.ndarray, float | None]:
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
    Unfit
        If the polynomial, or the type of the iteration, turns out not to be fit.
    ArithmeticError
        If the values are not accurate after very many steps.
    """
    lanczos = _Lanczos(task, start, filtered)
    stop = Stop(task.wanted, task.tolerance)
    random = np.random.default_rng([task.seed, 1])  # not the stream of the start block
    restarts = 0
    while lanczos.basis.size < task.rows.number and lanczos.steps != task.max_steps:
        if lanczos.probe is not None and (lanczos.exhausted or not stop.probing):
            lanczos.resume()
        if lanczos.exhausted or (stop.probing and lanczos.probe is None):
            # Where it is exhausted, nothing but directions that the start had no part in can be missing.
            if lanczos.exhausted and (lanczos.filtered or task.narrow):
                raise Unfit
            lanczos.pause(random, stop.probe_width if task.tolerance else start.shape[1])
            stop.probing = True
        if not lanczos.step():
            break
        if lanczos.shift is not None and lanczos.steps == 1:
            stop = Stop(task.wanted, task.tolerance, lanczos.shift)
        if task.tolerance and lanczos.reached(stop):
            break
        task.observe(lanczos.approach(stop))
        if task.max_steps is None and lanczos.basis.size + lanczos.vectors.shape[1] > basis_bound(
            task.returned
        ):
            restarts += 1
            if restarts > RESTARTS:
                raise ArithmeticError(
                    f"the {task.wanted} leading singular values are not accurate to {task.tolerance:g} after "
                    f"{lanczos.steps} steps: {LESS}"
                )
            lanczos.restart((task.returned + basis_bound(task.returned)) // 2)
            stop.begin_again(lanczos.basis.size)
    return lanczos.leading(stop.solution or lanczos.problem.solve())


class _Lanczos:
    """The basis, what is known of the operator in it, and the block that is to be multiplied next.

    While it is paused, a probe is multiplied in its place, and what comes of that, each block orthogonal to
    the whole basis, joins the basis.
    """

    def __init__(self, task: Task, start: np.ndarray, filtered: bool) -> None:
        self._task = task
        self._rows = task.rows
        self._grid_noise = task.grid_noise
        self._scale = length_of(start)
        self._floor = noise(task.dtype, self._scale) + self._grid_noise
        self.filtered = filtered
        self.shift: float | None = None
        self.vectors, self._factor = orthonormalise(task.rows, start, self._floor)
        self._coupling = np.zeros((len(self._factor), 0))  # of the next block to the last columns before
        self.basis = Basis(task.rows, task.dtype, panel_width(task.wanted))
        self.problem = RayleighRitz()
        self.steps = 0
        self.probe: Probe | None = None
        self._paused: tuple[np.ndarray, np.ndarray] | None = None  # the next block and its coupling

    @property
    def exhausted(self) -> bool:
        """Whether the operator leads nowhere from the basis."""
        return not self.vectors.shape[1]

    def pause(self, random: np.random.Generator, width: int) -> None:
        """Go on with a probe: the part of a random block that is orthogonal to the basis."""
        rows, size = self._rows, self.basis.size
        width = min(width, rows.number - size)
        fresh = random.standard_normal((rows.number, width), dtype=np.float32)
        fresh = fresh.astype(self._task.dtype, copy=False)
        lengths = np.eye(width)
        # Twice where not much is left of it.
        for _ in range(1 if 2 * size < rows.number else 2):
            if size:
                self.basis.project_out(fresh)
            fresh, factor = orthonormalise(rows, fresh, 0.0)
            lengths = factor @ lengths
        self._paused = self.vectors, self._coupling
        self.vectors, self._coupling = fresh, np.zeros((len(lengths), 0))
        self.probe = Probe(size, lengths)

    def resume(self) -> None:
        """Go on with the block that was next before the pause, and with the probe's, as one."""
        assert self._paused is not None
        assert self.probe is not None
        before, coupling = self._paused
        first, self.probe, self._paused = self.probe.first, None, None
        if self.basis.size == first:
            self.vectors, self._coupling = before, coupling
            return
        both = np.ascontiguousarray(np.concatenate([before, self.vectors], axis=1))
        factor = np.eye(both.shape[1])
        eps = float(np.finfo(both.dtype).eps)
        for floor in (64 * eps, 0.5):
            if not both.shape[1]:
                break
            self.basis.project_out(both)
            both, correction = orthonormalise(self._rows, both, floor)
            factor = correction @ factor
        anchor = first - coupling.shape[1]
        whole = np.zeros((len(factor), self.basis.size - anchor))
        whole[:, : coupling.shape[1]] = factor[:, : len(coupling)] @ coupling
        whole[:, whole.shape[1] - self._coupling.shape[1] :] += factor[:, len(coupling) :] @ self._coupling
        self.vectors, self._coupling = both, whole

    def step(self) -> bool:
        """Multiply the next block; return whether something came of it."""
        task, rows, vectors = self._task, self._rows, self.vectors
        image = self._image()
        length = length_of(image)
        self._scale = max(self._scale, length)
        self._floor = floor = noise(task.dtype, self._scale) + self._grid_noise
        probe, paused = self.probe, self._paused
        begins = probe is not None and self.basis.size == probe.first
        nothing = length <= 4 * math.sqrt(vectors.shape[1]) * floor
        if begins and nothing and paused is not None and not paused[0].shape[1]:
            return False  # the random block was all that could lead on
        self.basis.append(vectors, apart=probe is not None)
        coefficients = self.basis.project_out(image)
        width = vectors.shape[1]
        coupling = self._coupling
        before = coefficients[:-width]
        # In exact arithmetic the image meets its own block and what that is coupled to only: the one before,
        # and for a probe's blocks also what led on from the basis.
        strange = before[: len(before) - coupling.shape[1]]
        if probe is not None and paused is not None:
            anchor = probe.first - paused[1].shape[1]
            strange = np.delete(strange, slice(anchor, probe.first), axis=0)
            coupling = before[anchor:].T  # which is not known before
        strayed = np.abs(strange).max(initial=0.0)
        self.problem.append(coefficients[-width:], coupling)
        self.steps += 1
        vectors, coupling = orthonormalise(rows, image, floor)
        shortest = np.linalg.norm(coupling, axis=1).min(initial=math.inf)
        eps = float(np.finfo(task.dtype).eps)
        # A probe's blocks meet what led on from the basis again and again, by more than what is new in them.
        long_probe = probe is not None and self.basis.size > probe.first + 3 * len(probe.lengths)
        if len(coupling) and (
            long_probe
            or shortest < 0.01 * length
            or strayed > min(math.sqrt(eps) * self._scale, 0.1 * shortest)
        ):
            # Rounding has spoilt the angles, or is about to: once more. What strays was projected out as
            # badly as the basis is orthonormal, and weighs the more in the new block the shorter that is.
            self.basis.project_out(vectors)
            vectors, correction = orthonormalise(rows, vectors, 0.5)
            coupling = correction @ coupling
        self.vectors, self._coupling = vectors, coupling
        return True

    def _image(self) -> np.ndarray:
        """Return what the operator makes of the next block; the first time, settle which operator it is."""
        task, vectors = self._task, self.vectors
        image = task.multiply(vectors)
        if self.filtered and self.shift is None:
            self.shift = _filter_shift(vectors.T @ image, self._factor, task)
            self.filtered = self.shift is not None
            if self.filtered:
                self._scale, self._grid_noise = 0.0, self._grid_noise * length_of(image)
        if self.shift is not None:
            # The grid is made for columns of at most unit length.
            lengths = shifted(self._rows, image, self.shift, vectors)
            image = task.multiply(image)
            self._rows.scale(image, lengths)
        return image

    def reached(self, stop: Stop) -> bool:
        """Return whether the iteration may end.

        Raises
        ------
        Unfit
            If the rank seems to be too small for the polynomial.
        """
        if self.probe is not None:
            return stop.probed(self.problem, self._coupling, self.probe, self._floor)
        if not stop.due(self.basis.size, self.exhausted):
            return False
        theta, _ = self.problem.solve()
        wanted = self._task.wanted
        if self.filtered and self.basis.size > 4 * wanted and theta[wanted - 1] <= self._floor:
            raise Unfit
        return stop.reached(self.problem, self._coupling, self._floor)

    def approach(self, stop: Stop) -> Approach:
        """Return how far this is."""
        task = self._task
        if task.max_steps is not None:
            return Approach(task.max_steps - self.steps, None, None)
        steps = math.ceil(stop.columns_left(self.basis.size) / max(self.vectors.shape[1], 1))
        if self.probe is None:
            steps += PROBE_STEPS
        elif (len_so_far := self.problem.blocks(self.probe.first)) < PROBE_STEPS:
            steps += PROBE_STEPS - len_so_far
        else:
            steps += 1
        theta = stop.estimated
        values = None if theta is None else np.sqrt(np.maximum(eigenvalues(theta, self.shift), 0.0))
        return Approach(steps * (1 if self.shift is None else 2), stop.error, values)

    def restart(self, size: int) -> None:
        """Begin again from the leading Ritz vectors, as many as `size`.

        The next block stays what it was, and all of them are coupled to it (Wu and Simon, Thick-restart
        Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22(2), 2000).
        """
        if self.probe is not None:
            self.resume()
        theta, coordinates = self.problem.solve()
        kept = orthonormal(self._rows, self.basis.combine(coordinates[:, :size]), self._task.dtype)
        self.basis = Basis(self._rows, self._task.dtype, panel_width(self._task.wanted))
        self.basis.append(kept)
        self.problem = RayleighRitz()
        self.problem.append(np.diag(theta[:size]), np.zeros((size, 0)))
        self._coupling = self._coupling @ coordinates[len(theta) - self._coupling.shape[1] :, :size]

    def leading(self, solution: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float | None]:
        """Return the leading Ritz vectors and values, and the shift."""
        theta, coordinates = solution
        count = min(self._task.returned, int(np.count_nonzero(theta > self._floor)))
        if (self.filtered or self._task.narrow) and count < self._task.wanted:
            raise Unfit
        self.basis.shrink(len(theta))
        return self.basis.combine(coordinates[:, :count]), theta[:count], self.shift


def _filter_shift(matrix: np.ndarray, coupling: np.ndarray, task: Task) -> float | None:
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
    Unfit
        If a type narrower than the result's is not fit for the rank, or for how far apart the eigenvalues of
        A A' are.
    """
    values, rotation = np.linalg.eigh(matrix.astype(np.float64))
    if len(coupling) < coupling.shape[1] or not values[0] > 0:
        if task.narrow:
            raise Unfit
        return None
    values, rotation = values[::-1], rotation[:, ::-1]
    stands_for = np.square(rotation.T @ coupling).mean(axis=1) / np.square(values) * task.rows.number
    ranks = np.cumsum(stands_for) - stands_for / 2
    last = float(np.interp(task.returned, ranks, values)) * min(1.0, float(ranks[-1]) / task.returned)
    shift = 0.6 * last
    largest, smallest = values[0] * (values[0] - shift), last * (last - shift)
    if task.narrow and noise(task.dtype, values[0]) > 0.001 * last:
        raise Unfit
    return None if noise(task.dtype, largest) > 0.05 * smallest else shift


def noise(dtype: np.dtype, scale: float) -> float:
    """Return the length below which a column of a product is rounding error, `scale` being that of the
    longest."""
    return 16 * float(np.finfo(dtype).eps) * scale


def length_of(vectors: np.ndarray) -> float:
    """Return the Frobenius norm of a product."""
    length = float(np.linalg.norm(vectors))
    if not math.isfinite(length):
        raise ValueError("product returned values that are not finite")
    return length

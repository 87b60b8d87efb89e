"""When the block Lanczos iteration may end: its Rayleigh-Ritz problem, and what a probe shows of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._lsi_proof import Probe, complement_bound, exceeding

#: Columns of the first probe: a whole cache line in float32.
PROBE = 16

#: Columns of the widest.
WIDEST_PROBE = 128


def eigenvalues(theta: np.ndarray, shift: float | None) -> np.ndarray:
    """Return the eigenvalues x of A A' for which ``x (x - shift)`` is `theta`; None stands for no filter."""
    if shift is None:
        return theta
    return shift / 2 + np.sqrt(shift**2 / 4 + theta)


class RayleighRitz:
    """The matrix ``Q' A A' Q`` of the basis Q, as the recurrence gives it: each block is coupled to the last
    columns before it only."""

    def __init__(self) -> None:
        self._diagonal: list[np.ndarray] = []
        self._coupling: list[np.ndarray] = []
        self._ends: list[int] = []
        self._solution: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def reach(self) -> int:
        """The columns of the last block."""
        return len(self._diagonal[-1]) if self._diagonal else 0

    def append(self, diagonal: np.ndarray, coupling: np.ndarray) -> None:
        """Add a block: its own matrix, and that between it and the last columns before."""
        self._diagonal.append((diagonal + diagonal.T) / 2)
        self._coupling.append(coupling)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(diagonal))
        self._solution = None

    def matrix(self, first: int = 0) -> np.ndarray:
        """Return the matrix, or the part of it from column `first` on, where a block begins."""
        size = self._ends[-1] - first
        matrix = np.zeros((size, size))
        for end, diagonal, coupling in zip(self._ends, self._diagonal, self._coupling, strict=True):
            own = slice(end - len(diagonal) - first, end - first)
            if own.start < 0:
                continue
            matrix[own, own] = diagonal
            if own.start:
                before = slice(max(own.start - coupling.shape[1], 0), own.start)
                inside = coupling[:, coupling.shape[1] - (before.stop - before.start) :]
                matrix[own, before] = inside
                matrix[before, own] = inside.T
        return matrix

    def blocks(self, first: int) -> int:
        """Return how many blocks there are from column `first` on."""
        return sum(end > first for end in self._ends)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the Ritz values, descending, and the Ritz vectors in coordinates of the basis (columns)."""
        if self._solution is None:
            values, vectors = np.linalg.eigh(self.matrix())
            self._solution = values[::-1], vectors[:, ::-1]
        return self._solution


class Stop:
    """Tells when the wanted singular values are accurate, asking for the Ritz values as seldom as it can.

    When they seem to be, a probe is to be multiplied, until it shows how large what is missing could be. Then
    it is known whether they are accurate; if not, that stays known, since a larger basis leaves less out. A
    probe that meets something as large as the last wanted value has found what was missing: it joins, and a
    wider one has to show that there is no more.

    Attributes
    ----------
    error : float or None
        The largest relative error of a wanted singular value, as it was estimated last.
    probing : bool
        Whether a probe is to be multiplied.
    probe_width : int
        Its columns.
    solution : (ndarray, ndarray) or None
        The Ritz values and coordinates that are accurate.
    """

    def __init__(self, wanted: int, tolerance: float, shift: float | None = None) -> None:
        self._wanted = wanted
        self._tolerance = tolerance
        self._shift = shift
        self._next = (3.0 if shift is None else 2.1) * wanted
        # The error falls by this factor's logarithm a column, at first sight: typical of text.
        self._rate = (2.6 if shift is None else 8.0) / wanted
        self._last: tuple[int, float] | None = None
        self._seen: _Seen | None = None  # what the probe is to be compared with
        self._rest: float | None = None  # the largest eigenvalue of what the basis leaves out
        self.error: float | None = None
        self.probing = False
        self.probe_width = PROBE
        self.solution: tuple[np.ndarray, np.ndarray] | None = None

    def begin_again(self, size: int) -> None:
        """Forget what was known, since the basis has become smaller."""
        self._last = self._seen = self._rest = None
        self._next = size
        self.probing = False

    def due(self, size: int, exhausted: bool) -> bool:
        """Return whether a basis of `size` columns is worth a look."""
        return size >= (self._wanted if exhausted else max(self._wanted, self._next))

    @property
    def estimated(self) -> np.ndarray | None:
        """The wanted Ritz values as they were when `error` was estimated."""
        return None if self._seen is None else self._seen.theta[: self._wanted]

    def columns_left(self, size: int) -> float:
        """Return about how many columns the basis, which has `size`, needs still, without the probe's."""
        if self._rest is not None or self.probing:
            return 0.0
        if self._last is None or self.error is None:
            return max(self._next - size, 0.0)
        way = math.log(max(1.0, self.error / self._tolerance)) / self._rate
        return max(self._last[0] + way - size, 0.0)

    def reached(self, problem: RayleighRitz, coupling: np.ndarray, floor: float) -> bool:
        """Return whether the values are accurate; if they seem to be, ask for a probe.

        Parameters
        ----------
        problem : RayleighRitz
        coupling : ndarray, shape (r, b)
            What couples the last b columns of the basis to the next block.
        floor : float
            The length of rounding errors.
        """
        theta, coordinates = problem.solve()
        size = len(theta)
        residuals = coupling @ coordinates[size - coupling.shape[1] :]
        seen = self._seen = _Seen(theta, coordinates, residuals, self._goals(theta, floor))
        if self._rest is not None:
            if self._accurate():
                return True
            error = seen.error(seen.goals.above - self._rest, self._shift)
        else:
            error = seen.error(seen.gap(), self._shift)
            self.probing = error <= self._tolerance
        self.error = error
        first_look = self._last is None
        if self._last is not None and 0 < error < self._last[1]:
            rate = math.log(self._last[1] / error) / (size - self._last[0])
            self._rate = max(rate, 1 / self._wanted)
        self._last = size, error
        # Not all of the way that is left at this rate, once that is known, since it rises towards the end.
        way = (1.0 if first_look else 0.6) * math.log(max(1.0, error / self._tolerance)) / self._rate
        self._next = size + min(way, self._wanted)
        return False

    def probed(self, problem: RayleighRitz, coupling: np.ndarray, probe: Probe, floor: float) -> bool:
        """Return whether the values are accurate, as the probe shows; see whether it is of use any longer.

        Parameters
        ----------
        problem : RayleighRitz
            With the probe's blocks.
        coupling : ndarray, shape (r, b)
            What couples the last of these to the next.
        probe : Probe
        floor : float
        """
        seen = self._seen
        if seen is None or len(seen.theta) != probe.first:  # the basis is too small anyway
            self.probing = False
            return False
        matrix = problem.matrix(probe.first)
        beyond = np.zeros((len(coupling), len(matrix)))
        beyond[:, len(matrix) - coupling.shape[1] :] = coupling
        steps = problem.blocks(probe.first)
        limit = seen.goals.limit
        bound, largest = complement_bound(
            matrix, beyond, probe.lengths, steps=steps, floor=floor, limit=limit
        )
        if bound is not None:
            self._rest = largest
            self.probing = False
            self._next = 0
            return self._accurate()
        if largest >= limit:
            self.probing = False
            self._next = 0
            self.probe_width = min(2 * self.probe_width, WIDEST_PROBE)
        return False

    def _accurate(self) -> bool:
        """Return whether no wanted value changes by more than the tolerance, now that none is missing."""
        seen, rest = self._seen, self._rest
        assert seen is not None
        assert rest is not None
        goals = seen.goals
        errors = seen.errors(goals.above - rest, self._shift)
        if errors.max(initial=0.0) > 2 * self._tolerance:
            return False
        # Those whose residuals are nothing need no second look.
        doubtful = np.flatnonzero(errors > 1e-3 * self._tolerance)
        if len(doubtful) == 0 or doubtful[-1] != len(errors) - 1:
            doubtful = np.append(doubtful, len(errors) - 1)
        for number in doubtful[::-1]:
            x = max(goals.highest[number], goals.above)
            if exceeding(seen.theta, seen.residuals, x, rest) > number:
                return False
        self.solution = seen.theta, seen.coordinates
        return True

    def _goals(self, theta: np.ndarray, floor: float) -> _Goals:
        wanted = theta[: self._wanted]
        wanted = wanted[wanted > floor]
        x = eigenvalues(wanted, self._shift) * (1 + 0.999 * self._tolerance) ** 2
        highest = x if self._shift is None else x * (x - self._shift)
        if len(wanted) < self._wanted:  # the others are zero, as far as can be told
            return _Goals(highest, 4 * floor, 8 * floor)
        return _Goals(highest, (wanted[-1] + highest[-1]) / 2, highest[-1])


@dataclass(frozen=True, slots=True)
class _Goals:
    highest: np.ndarray  # what each eigenvalue may be
    limit: float  # what an eigenvalue of the rest may be
    above: float  # what any eigenvalue that is not counted may be


@dataclass(frozen=True, slots=True)
class _Seen:
    """A Rayleigh-Ritz problem's solution."""

    theta: np.ndarray
    coordinates: np.ndarray
    residuals: np.ndarray  # shape (r, m)
    goals: _Goals

    def gap(self) -> float:
        """Return a guess at how far the rest is below the last wanted value."""
        count = len(self.goals.highest)
        rest = float(self.theta[count:].mean()) if len(self.theta) > count else 0.0
        return max(self.goals.above - max(rest, 0.0), 1e-3 * self.goals.above)

    def error(self, gap: float, shift: float | None) -> float:
        """Return the largest of the `errors`."""
        return float(self.errors(gap, shift).max(initial=0.0))

    def errors(self, gap: float, shift: float | None) -> np.ndarray:
        """Return how much each wanted singular value may be off, relatively, to first order.

        A Ritz value whose pair has the residual r is within ``|r|`` of an eigenvalue, and within
        ``|r|**2 / gap`` where the rest of the spectrum is a gap away.
        """
        count = len(self.goals.highest)
        lengths = np.linalg.norm(self.residuals[:, :count], axis=0)
        x = eigenvalues(self.theta[:count], shift)
        slope = 1.0 if shift is None else 2 * x - shift
        return np.minimum(lengths, np.square(lengths) / gap) / (2 * x * slope)

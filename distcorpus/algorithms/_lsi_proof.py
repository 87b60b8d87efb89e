"""What an iteration in a subspace can say about the eigenvalues outside: bounds that hold but for a small
probability.

The symmetric operator M (here ``A A'`` or a polynomial of it) is, in an orthonormal basis Q and its
complement,

    [ T  R' ]
    [ R  C  ]

where T and R are known and C is not. Two steps bound the eigenvalues of M from above.

1. A *probe*, a random block G, has been multiplied with C some times. An eigenvector v of C with the
   eigenvalue x has the components ``g = G' v`` in it, which are independent and normal, whatever C is, for
   the probe was drawn after Q. So g is hardly ever short. Yet ``|g p(x)| <= |p(C) G|`` for each polynomial p
   whose coefficients are matrices, and where all orthonormal ones (those of the block Lanczos process) are
   taken together, ``g' K(x) g <= 1`` for their kernel K: a point of a measure weighs no more than its
   Christoffel function. An x at which K is too large for that is no eigenvalue (`complement_bound`).
2. Where no eigenvalue of C exceeds c, M has as many eigenvalues above an x > c as ``T + R' (x - C)**-1 R``
   (the inertia of a Schur complement), hence no more than ``T + R' R / (x - c)`` (`exceeding`).

References: Kuczynski and Wozniakowski, Estimating the largest eigenvalue by the power and Lanczos algorithms
with a random start, SIAM J. Matrix Anal. Appl. 13(4), 1992; Halko, Martinsson and Tropp, Finding structure
with randomness, SIAM Review 53(2), 2011, section 4.3; Haynsworth, Determination of the inertia of a
partitioned Hermitian matrix, Linear Algebra Appl. 1, 1968; Parlett, The Symmetric Eigenvalue Problem, SIAM
1998, sections 10 and 11; Damanik, Pushnitski and Simon, The analytic theory of matrix orthogonal polynomials,
Surveys in Approximation Theory 4, 2008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.special

#: How often a probe may be too short in some direction for its conclusion to hold.
FAILURE = 1e-5

#: Where a polynomial's values grow beyond this, its recurrence ends.
OVERFLOW = 1e100

#: The longest that a polynomial's value need be: its square's rounding error is much less than 1.
LONGEST = 1e3

#: Halvings of the interval in which the smallest bound is looked for.
HALVINGS = 12


@dataclass(frozen=True, slots=True)
class Probe:
    """The part of a random block that is orthogonal to a basis."""

    first: int  # columns of that basis
    lengths: np.ndarray  # the block in orthonormal columns, shape (f, f)


def complement_bound(
    matrix: np.ndarray,
    coupling: np.ndarray,
    lengths: np.ndarray,
    *,
    steps: int,
    floor: float,
    limit: float,
    failure: float = FAILURE,
) -> tuple[float | None, float]:
    """Return an upper bound on the eigenvalues of C, but for a probability of `failure`.

    Parameters
    ----------
    matrix : ndarray, shape (m, m)
        C in an orthonormal basis that begins with the probe's columns.
    coupling : ndarray, shape (r, m)
        What C makes of the basis beyond it: in r further orthonormal columns.
    lengths : ndarray, shape (f, f)
        The probe in these columns: independent standard normal in any orthonormal basis of C's space.
    steps : int
        How many times the basis allows for multiplying the probe with C.
    floor : float
        Lengths up to here are rounding errors of a product.
    limit : float
        The largest bound that is of use.
    failure : float
        The probability, at most, that C has an eigenvalue above the bound.

    Returns
    -------
    bound : float or None
        The smallest bound that the probe gives; None if that exceeds `limit`.
    largest : float
        The largest Ritz value of the probe: no larger than the largest eigenvalue of C.
    """
    recurrence = _Recurrence(matrix, coupling, lengths, steps, floor)
    # The squared length of a normal vector is below this with the probability of `failure`.
    shortest = 2 * float(scipy.special.gammaincinv(lengths.shape[1] / 2, failure))
    largest = recurrence.largest
    lowest = largest + floor
    if not (lowest < limit and recurrence.excludes(limit, shortest)):
        return None, largest
    # The kernel grows with x from the largest Ritz value on, so whatever is above is excluded too.
    bound = limit
    for _ in range(HALVINGS):
        middle = (lowest + bound) / 2
        if recurrence.excludes(middle, shortest):
            bound = middle
        else:
            lowest = middle
    return bound, largest


class _Recurrence:
    """The block Lanczos process of C from the probe, in coordinates, and the polynomials of that."""

    def __init__(
        self, matrix: np.ndarray, coupling: np.ndarray, start: np.ndarray, steps: int, floor: float
    ) -> None:
        size = len(matrix)
        extended = np.concatenate([matrix, coupling])
        self._first = np.linalg.inv(start)
        self._steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        space = blocks = np.eye(len(extended), len(start))
        while len(self._steps) < steps and blocks.shape[1]:
            image = extended @ blocks[:size]
            coefficients = space.T @ image
            image -= space @ coefficients
            image -= space @ (space.T @ image)
            left, lengths, right = np.linalg.svd(image, full_matrices=False)
            kept = lengths > floor
            self._steps.append((coefficients, right[kept].T / lengths[kept], _by_noise(right[~kept], floor)))
            blocks = left[:, kept]
            space = np.concatenate([space, blocks], axis=1)
        inside = space[:size, : space.shape[1] - blocks.shape[1]]
        self.largest = 0.0
        if inside.shape[1]:
            self.largest = max(0.0, float(np.linalg.eigvalsh(inside.T @ matrix @ inside)[-1]))

    def excludes(self, x: float, shortest: float) -> bool:
        """Return whether x is no eigenvalue, as `shortest` is the squared length of what a probe has of its
        eigenvector.
        """
        block = values = self._first
        terms, allowed = [block], 1
        for coefficients, onwards, lost in self._steps:
            image = x * block - values @ coefficients
            block = image @ onwards
            terms += [block, image @ lost]  # what is lost in the noise is no longer than that
            allowed += bool(lost.size)
            if not np.abs(block).max(initial=0.0) < OVERFLOW:
                break  # less of the kernel excludes less
            values = np.concatenate([values, block], axis=1)
        together = np.concatenate(terms, axis=1)
        # So do shorter columns; and the smallest eigenvalue is not to drown in the largest one's rounding.
        together /= np.maximum(1.0, np.linalg.norm(together, axis=0) / LONGEST)
        return bool(np.linalg.eigvalsh(together @ together.T)[0] * shortest > allowed)


def _by_noise(directions: np.ndarray, noise: float) -> np.ndarray:
    """Return the directions as columns, divided by the length of what is lost in all of them."""
    return directions.T / (max(noise, np.finfo(np.float64).tiny) * math.sqrt(max(1, len(directions))))


def exceeding(theta: np.ndarray, residuals: np.ndarray, x: float, c: float) -> int:
    """Return how many eigenvalues of M exceed x, at most, where none of C exceeds c < x.

    These are the positive eigenvalues of ``T - x + R' R / (x - c)``, of whose inertia most is that of
    ``T - x``.

    Parameters
    ----------
    theta : ndarray, shape (m,)
        The eigenvalues of T.
    residuals : ndarray, shape (r, m)
        R times the eigenvectors of T.
    x, c : float
    """
    distances = theta - x
    distances[distances == 0] = np.finfo(np.float64).tiny
    schur = (residuals / distances) @ residuals.T
    schur[np.diag_indices_from(schur)] += x - c
    return int(np.count_nonzero(distances > 0) + np.count_nonzero(np.linalg.eigvalsh(schur) < 0))

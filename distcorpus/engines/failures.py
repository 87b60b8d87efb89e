"""What a program is told of a job that cannot be computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from distcorpus.engines.base import Block
from distcorpus.engines.schedule import Attempt


def tries(attempts: Iterable[Attempt]) -> str:
    """Say how often something was tried, and how often on which worker.

    Examples
    --------
    >>> tries([Attempt("w1", ""), Attempt("w0", ""), Attempt("w1", "")])
    '3 tries, on workers w1 (2), w0'
    """
    counts = Counter(attempt.worker for attempt in attempts)
    names = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in counts.most_common())
    number = counts.total()
    return f"{number} {'tries' if number > 1 else 'try'}, on worker{'s' if len(counts) > 1 else ''} {names}"


def named(blocks: Iterable[Block]) -> str:
    """Return what an error says of the blocks of a job: the first ones."""
    return "; ".join(map(str, islice(blocks, 3)))


def too_large(blocks: Sequence[Block], error: OverflowError) -> OverflowError:
    """Return what a program is told of sums that are too large, or no numbers, where a kernel has blocks.

    They are the documents' fault, or the topics': it would be so on any worker, and nothing is tried again.
    All other errors may be a worker's own.
    """
    return OverflowError(f"{named(blocks)}: {error}")


def not_added(blocks: Sequence[Block], worker: str, error: Exception) -> Exception:
    """Return what a program is told where the result of some blocks cannot be added to the sum."""
    if isinstance(error, OverflowError):
        return too_large(blocks, error)
    return RuntimeError(f"{named(blocks)}: the result of {worker} cannot be added to the sum: {error}")

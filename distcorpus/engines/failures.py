"""What a program is told of a job that cannot be computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

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

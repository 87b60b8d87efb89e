"""Words for people; every room may use them."""

from __future__ import annotations


def plural(number: int, what: str) -> str:
    """Return ``1 worker``, ``2 workers``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"

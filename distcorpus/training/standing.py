"""Where a training run stands, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a training run stands.

    Attributes
    ----------
    topics, terms : int or None
    chunks_arrived, documents_arrived : int
        Of the pass, or of what is being added.
    documents_expected : int or None
    documents_done : int
        Counted as often as they are computed.
    documents_to_do : int or None
        Of the whole run.
    complete : bool
        Whether all documents have arrived.
    paused : bool
        Whether it waits for its program to go on.
    done : bool
        Whether it has its result.
    pass_, passes, updates, updates_expected, round, rounds_expected : int or None
    error, tolerance, perplexity : float or None
    blocks, blocks_done, chunks_of_blocks : int
        Of the round under way, and of how many chunks they are.
    singular_values : tuple of float
        As far as they are known.
    """

    topics: int | None = None
    terms: int | None = None
    chunks_arrived: int = 0
    documents_arrived: int = 0
    documents_expected: int | None = None
    documents_done: int = 0
    documents_to_do: int | None = None
    complete: bool = False
    paused: bool = False
    done: bool = False
    pass_: int | None = None
    passes: int | None = None
    updates: int | None = None
    updates_expected: int | None = None
    round: int | None = None
    rounds_expected: int | None = None
    error: float | None = None
    tolerance: float | None = None
    perplexity: float | None = None
    blocks: int = 0
    blocks_done: int = 0
    chunks_of_blocks: int = 0
    singular_values: tuple[float, ...] = ()

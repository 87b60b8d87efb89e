"""What a session takes, held against memory and a message's size before anything is computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from distcorpus._machine import usable_memory
from distcorpus.algorithms.chunk import MAX_TERMS
from distcorpus.algorithms.lsi import block_width
from distcorpus.wire import message_limit

#: Bytes of a message beside its largest array.
_BESIDE = 1 << 16


def check_result(num_terms: int, num_topics: int, itemsize: int) -> None:
    """Refuse a model of gensim's own classes whose result is more than one message: that it has to be.

    Parameters
    ----------
    num_terms, num_topics : int
    itemsize : int
        Bytes of a number.

    Raises
    ------
    ValueError
        It is; the message has the numbers and the remedy.
    """
    nbytes, limit = num_terms * num_topics * itemsize + _BESIDE, message_limit()
    if nbytes > limit:
        raise ValueError(
            f"{num_terms} terms x {num_topics} topics of {itemsize} bytes make a result of "
            f"{nbytes / 2**20:,.1f} MB, and a message may have {limit / 2**20:,.1f} MB: use "
            "distcorpus.models, whose results travel in slices, start the dispatcher with a larger "
            "--max-message (at most 2047), or train fewer topics"
        )


def lsi_bytes(
    num_terms: Any, num_topics: Any, power_iters: int | None = None, extra_samples: int | None = None
) -> int:
    """Return the bytes of an LSI model's vectors and of one product in float32, at least.

    Parameters
    ----------
    num_terms, num_topics : int
        What a program claims.
    power_iters, extra_samples : int, optional
        As `algorithms.lsi.factorise` takes them.

    Raises
    ------
    TypeError, ValueError
        If a claim is no such number.
    """
    _check_claim("num_terms", num_terms, 0)
    _check_claim("num_topics", num_topics, 1)
    for name, number in (("power_iters", power_iters), ("extra_samples", extra_samples)):
        if number is not None:
            _check_claim(name, number, 0)
    width = block_width(num_terms, num_topics, power_iters, extra_samples)
    # The vectors, a start, its product, and the product's exact sum.
    return int(4 * num_terms * (min(num_topics, num_terms) + 4 * width))


def lda_bytes(num_terms: int, num_topics: int, itemsize: int) -> int:
    """Return the bytes of an LDA model's topics, as they come and go, and of its statistics' exact sum.

    Raises
    ------
    TypeError, ValueError
        If there cannot be so many terms or topics.
    """
    _check_claim("num_terms", num_terms, 0)
    _check_claim("num_topics", num_topics, 1)
    return num_terms * num_topics * (2 * itemsize + 8)


@dataclass(slots=True)
class _Account:
    host: str
    nbytes: int
    documents: Callable[[], int] = field(default=lambda: 0)


class Limits:
    """How much all sessions of a dispatcher may take, each of them, and those of one host.

    Half of the memory in all is for whoever comes first; of the other half each of `sessions` has an equal
    share, so that no session is left without any.

    Parameters
    ----------
    session_memory : int, optional
        Bytes that one session's tables may take; by default half of what this machine, or its cgroup, has.
    total_memory : int, optional
        Bytes that all sessions' tables and documents may take; by default three quarters of it.
    sessions, sessions_of_host : int
        How many there may be in all, and from one host.
    """

    def __init__(
        self,
        session_memory: int | None = None,
        total_memory: int | None = None,
        sessions: int = 256,
        sessions_of_host: int = 128,
    ) -> None:
        self._session_memory = usable_memory() // 2 if session_memory is None else session_memory
        self._total_memory = usable_memory() * 3 // 4 if total_memory is None else total_memory
        self._sessions = sessions
        self._sessions_of_host = sessions_of_host
        self._accounts: dict[Hashable, _Account] = {}
        self._lock = threading.Lock()

    def admit(
        self, who: Hashable, host: str, nbytes: int, what: str = "its tables", *, anyway: bool = False
    ) -> None:
        """Let a session begin, whose tables take `nbytes`; what `who` had before is released.

        Parameters
        ----------
        who : hashable
            Its connection.
        host : str
            Where its program runs.
        nbytes : int
        what : str
            Which tables these are.
        anyway : bool, default False
            It was let in by a dispatcher before this one: count it only.

        Raises
        ------
        RuntimeError, ValueError
            If it exceeds a limit; the message has the numbers and the remedy.
        """
        with self._lock:
            self._accounts.pop(who, None)
            if not anyway:
                self._check(host, nbytes, what)
            self._accounts[who] = _Account(host, nbytes)

    def opened(self, who: Hashable, documents: Callable[[], int]) -> None:
        """Tell how to ask for the bytes of documents that a session keeps in memory."""
        with self._lock:
            if who in self._accounts:
                self._accounts[who].documents = documents

    def release(self, who: Hashable) -> None:
        """A session has ended."""
        with self._lock:
            self._accounts.pop(who, None)

    def has_room(self, own: int, nbytes: int) -> bool:
        """Whether a session that has `own` bytes of documents may keep `nbytes` more in memory."""
        if own + nbytes <= self._total_memory // 2 // self._sessions:
            return True
        with self._lock:
            return self._taken() + nbytes <= self._total_memory // 2

    @property
    def total_memory(self) -> int:
        """Bytes that all sessions may take."""
        return self._total_memory

    def tables(self) -> int:
        """Return the bytes of all sessions' tables."""
        with self._lock:
            return sum(account.nbytes for account in self._accounts.values())

    def _taken(self) -> int:
        return sum(account.nbytes + account.documents() for account in self._accounts.values())

    def _check(self, host: str, nbytes: int, what: str) -> None:
        if nbytes > self._session_memory:
            raise ValueError(
                f"{what} take {_gb(nbytes)} at least, and a model may take {_gb(self._session_memory)} "
                "of the dispatcher's memory: give the dictionary without gaps (Dictionary.compactify), fewer "
                "terms (filter_extremes), or fewer topics; or start the dispatcher with a larger "
                "--session-memory"
            )
        if len(self._accounts) >= self._sessions:
            raise RuntimeError(
                f"the dispatcher has {len(self._accounts)} models in training, and takes no more: train when "
                "one of them has ended, or start the dispatcher with a larger --max-sessions"
            )
        of_host = sum(account.host == host for account in self._accounts.values())
        if of_host >= self._sessions_of_host:
            raise RuntimeError(
                f"the dispatcher has {of_host} models of this host in training, and takes no more: end some "
                "(del model), or start the dispatcher with a larger --max-sessions-of-host"
            )
        taken = self._taken()
        if taken + nbytes > self._total_memory:
            raise RuntimeError(
                f"{what} take {_gb(nbytes)} at least, and {len(self._accounts)} others have "
                f"{_gb(taken)} of the {_gb(self._total_memory)} that the dispatcher may take: train when "
                "one of them has ended, or start the dispatcher with a larger --total-memory"
            )


def _check_claim(name: str, number: Any, least: int) -> None:
    if type(number) is not int:
        raise TypeError(f"{name} is a {type(number).__name__}: give a whole number")
    if not least <= number <= MAX_TERMS:
        raise ValueError(f"{name}={number if number < 1e18 else '...'}: give {least} to {MAX_TERMS:,}")


def _gb(nbytes: int) -> str:
    return f"{nbytes / 2**30:,.2f} GB"

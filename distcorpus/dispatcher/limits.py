"""What a session's result takes, held against what a message may have, before anything is computed."""

from __future__ import annotations

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

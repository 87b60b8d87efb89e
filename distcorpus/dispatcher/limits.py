"""What a session takes, held against memory and a message's size before anything is computed."""

from __future__ import annotations

import os

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


def check_memory(
    num_terms: int, num_topics: int, power_iters: int | None = None, extra_samples: int | None = None
) -> None:
    """Refuse an LSI model whose vocabulary, which may be no more than a claim, is beyond this machine.

    Parameters
    ----------
    num_terms, num_topics : int
    power_iters, extra_samples : int, optional
        As `algorithms.lsi.factorise` takes them.

    Raises
    ------
    ValueError
        The vectors and one product in float32 take more than all memory; the message has the numbers.
    """
    width = block_width(num_terms, num_topics, power_iters, extra_samples)
    nbytes = 4 * num_terms * (num_topics + 4 * width)  # a start, its product, and the product's exact sum
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if nbytes > memory:
        raise ValueError(
            f"{num_terms} terms x {num_topics} topics take {nbytes / 2**30:,.0f} GB at least, and the "
            f"dispatcher's machine has {memory / 2**30:,.0f} GB: give the dictionary without gaps "
            "(Dictionary.compactify), fewer terms (filter_extremes), or fewer topics"
        )

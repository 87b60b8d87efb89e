"""The words of terms, as a program tells them, for those who watch its training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.received import NUMBER

#: Characters of a word that those who watch are shown.
LONGEST_WORD = 60
#: Bytes of all words that a dispatcher keeps of a training run.
MOST_BYTES = 32 << 20


def of_id2word(id2word: Any) -> Callable[[int], str] | None:
    """Return what finds the word of a term id; None where gensim's `id2word` has no words."""
    from gensim.corpora import HashDictionary
    from gensim.utils import FakeDict

    if isinstance(id2word, HashDictionary | FakeDict):
        return None

    def word(number: int) -> str:
        try:
            return shown(id2word[number])
        except Exception:  # whatever the program has put there
            return ""

    return word


def of_text(text: NDArray[np.uint8], num_terms: int) -> Callable[[int], str]:
    """Return what finds the word of a term id.

    Parameters
    ----------
    text : ndarray of uint8, one-dimensional
        UTF-8: a line for each term, in the order of their ids.
    num_terms : int

    Raises
    ------
    ValueError
        It is not that, or too long.
    """
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(f"words as an array of {text.dtype}, of shape {text.shape}: uint8 of one dimension")
    if len(text) > MOST_BYTES:
        raise ValueError(f"words of {len(text):,} bytes; {MOST_BYTES:,} are kept")
    lines = 1 + int(np.count_nonzero(text == ord("\n")))
    if lines != num_terms:
        raise ValueError(f"{lines} words for {num_terms} terms")
    kept = text.copy()  # of its own, whatever the message has beside it
    ends = np.append(np.flatnonzero(kept == ord("\n")), len(kept))

    def word(number: int) -> str:
        if not 0 <= number < num_terms:
            return ""
        begin = 0 if number == 0 else int(ends[number - 1]) + 1
        return shown(kept[begin : int(ends[number])].tobytes().decode(errors="replace"))

    return word


def shown(word: Any) -> str:
    """Return what is shown of a word: what may have no end is not written out."""
    text = str(word)[:LONGEST_WORD] if isinstance(word, (str, *NUMBER)) else ""
    return "".join(filter(str.isprintable, text))

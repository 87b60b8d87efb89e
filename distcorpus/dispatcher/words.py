"""The words of terms, as a program tells them, for those who watch its training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import MAX_TERMS
from distcorpus.algorithms.received import NUMBER

#: Characters of a word that those who watch are shown.
LONGEST_WORD = 60
#: Bytes of all words that a dispatcher keeps of a training run.
MOST_BYTES = 32 << 20
#: Those that count for each of gensim's words beside its text: its id, and where it ends.
_BESIDE = 16


def of_id2word(id2word: Any) -> Callable[[int], str] | None:
    """Return what finds the word of a term id; None where gensim's `id2word` has no words.

    The words are copied, up to `MOST_BYTES`: what a program has sent is not asked again, for it may take long
    over each of its answers (a ``Dictionary`` with two words of one id makes all of its words anew).
    """
    from gensim.corpora import Dictionary

    terms: Iterable[tuple[Any, Any]] = ()
    if isinstance(id2word, Dictionary):
        if isinstance(id2word.token2id, dict):
            terms = ((number, word) for word, number in id2word.token2id.items())
    elif isinstance(id2word, dict):
        terms = id2word.items()
    numbers, texts, size = [], [], 0
    for number, term in terms:
        text = _text(term).encode(errors="replace")
        size += len(text) + _BESIDE
        if size > MOST_BYTES:
            break
        if isinstance(number, int | np.integer) and 0 <= number < MAX_TERMS:
            numbers.append(int(number))
            texts.append(text)
    if not numbers:
        return None
    # Of words with the same id the last one counts, as in gensim.
    ids = np.array(numbers, np.int64)
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    ends = np.cumsum([len(texts[place]) for place in order])
    kept = b"".join([texts[place] for place in order])

    def word(number: int) -> str:
        place = int(np.searchsorted(ids, number, "right")) - 1
        if place < 0 or ids[place] != number:
            return ""
        begin = int(ends[place - 1]) if place else 0
        return shown(kept[begin : int(ends[place])].decode())

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
    return "".join(filter(str.isprintable, _text(word)))


def _text(word: Any) -> str:
    if isinstance(word, int) and not isinstance(word, bool) and abs(word) >= 10**LONGEST_WORD:
        return ""
    return str(word)[:LONGEST_WORD] if isinstance(word, (str, *NUMBER)) else ""

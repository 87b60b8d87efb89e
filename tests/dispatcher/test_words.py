"""What a program tells of its words is checked, and only what can be shown of a word is."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.corpora import Dictionary, HashDictionary

from distcorpus.dispatcher import words
from distcorpus.models._cluster import words_of


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def test_words_of_a_text():
    word = words.of_text(as_bytes("\u00e9t\u00e9\n\na\x1b[31m\n" + 100 * "y"), 4)
    assert [word(number) for number in (-1, 0, 1, 2, 3, 4)] == [
        "", "\u00e9t\u00e9", "", "a[31m", 60 * "y", "",
    ]  # fmt: skip
    assert words.of_text(np.frombuffer(b"\xff\xfe", np.uint8), 1)(0) == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (as_bytes("a\nb"), "2 words for 3 terms"),
        (as_bytes(""), "1 words for 3 terms"),
        (np.zeros(3, np.float32), "array of float32"),
        (np.zeros((3, 1), np.uint8), r"shape \(3, 1\)"),
        (np.broadcast_to(np.uint8(10), words.MOST_BYTES + 1), "33,554,432 are kept"),
    ],
)
def test_words_that_are_refused(text, says):
    with pytest.raises(ValueError, match=says):
        words.of_text(text, 3)


def test_words_of_a_vocabulary():
    dictionary = Dictionary([["one", "two"], ["three"]])
    sent = words_of(dictionary, 3)
    assert sent is not None
    word = words.of_text(sent, 3)
    assert {number: word(number) for number in range(3)} == dict(dictionary.items())
    assert words_of(HashDictionary([["one"]]), 32_000) is None
    assert words_of(dictionary, 10**7) is None

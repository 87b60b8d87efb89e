"""What a program tells of its words is checked, and only what can be shown of a word is."""

from __future__ import annotations

import numpy as np
import pytest
from gensim.corpora import Dictionary, HashDictionary
from gensim.utils import FakeDict

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


class Asked(dict):
    """A mapping that is asked once for all that it has."""

    def __getitem__(self, number):
        raise AssertionError(number)


def test_words_of_gensims_vocabularies():
    """They are copied: what a program has sent is not asked again."""
    word = words.of_id2word(Asked({7: "b", 0: "\u00e9t\u00e9", 3: 100 * "y", 5: 1.5, -1: "no", 2**70: "no"}))
    assert [word(number) for number in (0, 1, 3, 5, 7, 8, -1)] == [
        "\u00e9t\u00e9",
        "",
        60 * "y",
        "1.5",
        "b",
        "",
        "",
    ]
    odd = words.of_id2word({0: None, 1: "\ud800", 2: 10**5000, 3: "a\x1b[31m", 4: -7})
    assert [odd(number) for number in range(5)] == ["", "?", "", "a[31m", "-7"]
    for nothing in ({}, HashDictionary([["one"]]), FakeDict(10), Dictionary(), "text", {-1: "a"}):
        assert words.of_id2word(nothing) is None


def test_two_words_of_one_id_cost_nothing_later():
    """gensim's dictionary then makes all words anew for each that it is asked for."""
    dictionary = Dictionary([["one", "two"]])
    dictionary.token2id |= {"again": 0}
    word = words.of_id2word(dictionary)
    dictionary.token2id.clear()
    assert [word(number) for number in range(3)] == ["again", "two", ""]


def test_words_beyond_the_limit_are_left_out(monkeypatch):
    monkeypatch.setattr(words, "MOST_BYTES", 60)
    word = words.of_id2word(dict.fromkeys(range(10), "abcd"))
    assert [word(number) for number in range(5)] == ["abcd", "abcd", "abcd", "", ""]


def test_words_of_a_vocabulary():
    dictionary = Dictionary([["one", "two"], ["three"]])
    sent = words_of(dictionary, 3)
    assert sent is not None
    word = words.of_text(sent, 3)
    assert {number: word(number) for number in range(3)} == dict(dictionary.items())
    assert words_of(HashDictionary([["one"]]), 32_000) is None
    assert words_of(dictionary, 10**7) is None

"""Corpora as a training reads them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from distcorpus.corpora.reading import ReadAhead


class Item:
    pass


def test_what_was_read_is_let_go_of():
    """At once, with no garbage collection: a chunk may be large."""
    items: list[weakref.ref[Item]] = []

    def made() -> Iterator[Item]:
        for _ in range(3):
            item = Item()
            items.append(weakref.ref(item))
            yield item
            del item

    def run() -> None:
        ahead = ReadAhead(made(), 5)
        ahead.fill(lambda: False)
        last = None
        for last in ahead:  # noqa: B007 (this frame has it when it ends)
            pass

    gc.disable()
    try:
        run()
        assert [item() for item in items] == [None] * 3
    finally:
        gc.enable()


def test_an_error_comes_when_its_item_is_needed():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("of the corpus")

    ahead = ReadAhead(items(), 5)
    ahead.fill(lambda: False)
    assert next(ahead) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="of the corpus"):
            next(ahead)


def test_no_more_is_read_ahead_than_wanted():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    ahead = ReadAhead(items(), 4)
    ahead.fill(lambda: len(taken) == 2)
    assert taken == [0, 1]
    ahead.fill(lambda: False)
    assert taken == [0, 1, 2, 3]
    assert list(ahead) == list(range(10))

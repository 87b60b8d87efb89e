"""Arrays that arrive in slices: what they take is taken as they come, and given back."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from distcorpus.wire import slices
from distcorpus.wire.slices import MARK, PAGE, _Parcels

PART = np.zeros(100, np.uint8)


@pytest.fixture(autouse=True)
def arriving(monkeypatch: pytest.MonkeyPatch) -> slices._Arriving:
    """Room for arrays of 64 MB, of which nothing is taken when a test ends."""
    room = slices._Arriving()
    room.most = 64 << 20
    monkeypatch.setattr(slices, "_arriving", room)
    yield room
    gc.collect()
    assert room._taken == 0


@pytest.mark.parametrize(
    "bad",
    [
        (0, 64 << 20, 5, PART),
        (0, 50, 0, PART),
        (0, 64 << 20, 0, np.zeros(100, np.float32)),
        (0, (64 << 20) + 1, 0, PART),
        (0, 1 << 60, 0, PART[:0]),
    ],
    ids=str,
)
def test_a_refused_slice_takes_nothing(arriving: slices._Arriving, bad: tuple[Any, ...]):
    parcels = _Parcels()
    for _ in range(3):
        with pytest.raises(ValueError, match=r"slice|fit"):
            parcels.put(*bad)
        assert arriving._taken == 0
    _Parcels().put(0, 1000, 0, PART)


@pytest.mark.parametrize(
    "bad", [(0, 1000, 50, PART), (0, 1001, 100, PART), (0, 1000, 100, np.zeros(901, np.uint8))]
)
def test_a_refused_slice_leaves_those_before_it(arriving: slices._Arriving, bad: tuple[Any, ...]):
    parcels = _Parcels()
    parcels.put(0, 1000, 0, PART)
    for _ in range(3):
        with pytest.raises(ValueError, match="follow"):
            parcels.put(*bad)
    assert arriving._taken == 1000
    parcels.put(0, 1000, 100, np.ones(900, np.uint8))
    assert parcels.arrived(0, "u1", (1000,)).sum() == 900
    assert arriving._taken == 0


@pytest.mark.parametrize("mark", [(0, "f8", (1000,)), (0, "O", (125,)), (0, "f8", (2, 2))], ids=str)
def test_what_makes_no_array_is_given_back(arriving: slices._Arriving, mark: tuple[Any, ...]):
    parcels = _Parcels()
    parcels.put(0, 1000, 0, np.zeros(1000, np.uint8))
    with pytest.raises(ValueError, match="whole"):
        parcels.unpacked([{MARK: mark}])
    assert arriving._taken == 0
    parcels.put(0, 64 << 20, 0, PART)


@pytest.mark.parametrize("shape", [(10**9, 0), (0, 10**9), (2**40, 1, 0), (1000, 1000, 0)], ids=str)
def test_rows_without_bytes_are_not_merely_said(shape: tuple[int, ...]):
    parcels = _Parcels()
    parcels.put(0, 0, 0, PART[:0])
    with pytest.raises(ValueError, match="states many rows"):
        parcels.unpacked([{MARK: (0, "<f4", shape)}])
    parcels.put(0, 0, 0, PART[:0])
    assert parcels.arrived(0, "<f4", (100, 0)).shape == (100, 0)


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_mark_is_made_of_numbers(kind: type, at: int):
    value: Any = kind([1])
    for _ in range(40):
        value = kind([value, value])
    parcels = _Parcels()
    parcels.put(0, 100, 0, PART)
    mark: list[Any] = [0, "u1", (100,)]
    for wrong in (value, kind([value])):
        mark[at] = wrong
        with pytest.raises(ValueError, match="none"):
            parcels.unpacked({MARK: tuple(mark)})
    assert parcels.arrived(0, "u1", (100,)).shape == (100,)


def test_what_is_merely_said_takes_nobody_s_room(arriving: slices._Arriving):
    """Else one connection without a session keeps all others from sending theirs."""
    liars = [_Parcels() for _ in range(20)]
    for liar in liars:
        liar.put(0, 64 << 20, 0, PART[:0])
    assert arriving._taken == 0
    liars[0].put(0, 64 << 20, 0, PART)
    assert arriving._taken == PAGE
    honest = _Parcels()
    for start in range(0, 48 << 20, 1 << 20):
        honest.put(0, 48 << 20, start, np.full(1 << 20, 7, np.uint8))
    assert arriving._taken == (48 << 20) + PAGE
    assert (honest.arrived(0, "u1", (48 << 20,)) == 7).all()


def test_a_connection_says_no_more_than_there_is():
    parcels = _Parcels()
    parcels.put(0, 40 << 20, 0, PART)
    with pytest.raises(ValueError, match="fit"):
        parcels.put(1, 40 << 20, 0, PART)
    with pytest.raises(ValueError, match="whole"):
        parcels.arrived(0, "u1", (40 << 20,))
    parcels.put(1, 40 << 20, 0, PART)


def test_what_comes_is_limited_for_all_together(arriving: slices._Arriving):
    first, second = _Parcels(), _Parcels()
    first.put(0, 40 << 20, 0, np.zeros(40 << 20, np.uint8))
    second.put(0, 40 << 20, 0, np.zeros(24 << 20, np.uint8))
    for _ in range(3):
        with pytest.raises(ValueError, match="an array of 42 MB does not fit"):
            second.put(0, 40 << 20, 24 << 20, PART)
    del first
    gc.collect()
    second.put(0, 40 << 20, 24 << 20, np.zeros(16 << 20, np.uint8))
    assert arriving._taken == 40 << 20

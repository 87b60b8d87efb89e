"""Where the records of CSV end, as a strict `csv.reader` that is given lines has it.

A quote opens a field only where one begins. In it two quotes are one, and a single one ends it: if neither a
delimiter nor a line's end follows, the rest of the line is passed over, and its record is bad.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LF, CR, QUOTE = b'\n\r"'
#: What was read last: nothing of a field, some of one, some of one in quotes, a quote in it, what may not
#: follow that, and a CR, after which LF is of the same line's end.
BEGIN, FIELD, QUOTED, AFTER_QUOTE, WRONG, AFTER_CR = range(6)

Finder: TypeAlias = Callable[[NDArray[np.uint8], int, int, NDArray[np.int64]], "tuple[int, int]"]


def find_records(
    content: NDArray[np.uint8], state: int, delimiter: int, ends: NDArray[np.int64]
) -> tuple[int, int]:
    """Find where records end.

    Parameters
    ----------
    content : ndarray of uint8
    state : int
        After what was read before: `BEGIN` where a record begins.
    delimiter : int
    ends : ndarray of int64
        Receives where records end, their lines' ends included; it ends when this is full.

    Returns
    -------
    count : int
        How many there are.
    state : int
        After all, where `ends` is not full.
    """
    count = 0
    for at in range(len(content)):
        byte = content[at]
        if state == AFTER_CR:
            ends[count] = at + (byte == LF)
            count += 1
            state = BEGIN
            if count == len(ends):
                break
            if byte == LF:
                continue
        if state == QUOTED:
            if byte == QUOTE:
                state = AFTER_QUOTE
        elif byte == LF:
            ends[count] = at + 1
            count += 1
            state = BEGIN
            if count == len(ends):
                break
        elif byte == CR:
            state = AFTER_CR
        elif state == WRONG:
            continue
        elif byte == delimiter:
            state = BEGIN
        elif byte == QUOTE and state != FIELD:
            state = QUOTED
        else:
            state = WRONG if state == AFTER_QUOTE else FIELD
    return count, state


@functools.cache
def compiled_finder() -> Finder:
    """Return `find_records`, compiled where numba is there."""
    try:
        from ._caching import compiled

        finder: Finder = compiled(nogil=True)(find_records)
    except ImportError:
        return find_records
    return finder

"""The compiled parsers of corpora that are text (imported on first use: numba loads slowly).

They read the plain lines, which are nearly all there are, and stop at any other one, which is left to Python.
Numbers in decimal become the float64 that is nearest, as Python's `float` has it, or are left to it as well.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ._caching import compiled

#: Bytes after a text, none of them part of a number: no number has to be checked for the text's end.
PADDING = b"\n" * 8

#: Decimal digits that are read; of a number with more, the others say at most by how little it is larger.
DIGITS = 18
#: float64 holds every whole number up to here, and the powers of ten up to the 22nd.
LARGEST_INT, EXACT_POWERS = 2**53, 22
#: Powers of ten of which 18 digits and the product are well inside of what float64 holds with all its bits.
FIRST_POWER, LAST_POWER = -300, 280

LARGEST_ID = 2**31 - 1

LF, SPACE, TAB, CR, PLUS, MINUS, POINT, ZERO, COLON, E, SMALL_E, COMMENT, DELETE = b"\n \t\r+-.0:Ee#\x7f"

#: Why a parser stops: its text is read, its documents are full, or a line is not plain.
END, FULL, OTHER = range(3)

_INT64, _INT128, _DOUBLE = ir.IntType(64), ir.IntType(128), ir.DoubleType()
_compiled = compiled(nogil=True, error_model="numpy")


@intrinsic
def _high_half(typing_context: Any, left: Any, right: Any) -> Any:
    """Return the higher 64 bits of the product of two unsigned integers."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        product = builder.mul(*(builder.zext(arg, _INT128) for arg in args))
        return builder.trunc(builder.lshr(product, ir.Constant(_INT128, 64)), _INT64)

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def _leading_zeros(typing_context: Any, number: Any) -> Any:
    """Return how many of the highest of 64 bits are zero."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def _trailing_zeros(typing_context: Any, number: Any) -> Any:
    """Return how many of the lowest of 64 bits are zero."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def _double_of(typing_context: Any, bits: Any) -> Any:
    """Return the float64 that has these bits."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], _DOUBLE)

    return types.float64(types.uint64), generate


@intrinsic
def _byte(typing_context: Any, address: Any) -> Any:
    """Read a byte. (An array's would be looked for from the end where an index is negative.)"""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        byte = builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer()))
        return builder.zext(byte, _INT64)

    return types.int64(types.int64), generate


@intrinsic
def _eight_bytes(typing_context: Any, address: Any) -> Any:
    """Read eight bytes, the first as the lowest."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        word = builder.load(builder.inttoptr(args[0], _INT64.as_pointer()), align=1)
        return word if sys.byteorder == "little" else builder.bswap(word)

    return types.uint64(types.int64), generate


def _powers_of_ten() -> tuple[np.ndarray, np.ndarray]:
    """Return the highest 128 bits of each power of ten, the first of them set, as two halves."""
    bits = []
    for power in range(FIRST_POWER, LAST_POWER + 1):
        number = 10**power << 128 if power >= 0 else (1 << 1280) // 10**-power
        bits.append(number >> (number.bit_length() - 128))
    return np.array([n >> 64 for n in bits], np.uint64), np.array([n & (2**64 - 1) for n in bits], np.uint64)


_HIGH, _LOW = _powers_of_ten()
# Of eight bytes at once: the digit 0, what carries a 9's successor into the highest bit, and that bit.
_ZEROS, _ABOVE_NINES, _HIGHEST_BITS = (np.uint64(byte * 0x0101010101010101) for byte in (0x30, 0x46, 0x80))
_PAIRS = np.uint64(0x000000FF000000FF)
_ALL_BITS = np.uint64(2**64 - 1)
_HUNDREDS, _ONES = np.uint64(100 + (1_000_000 << 32)), np.uint64(1 + (10_000 << 32))
_WHOLE_POWERS = np.array([10**power for power in range(9)])
_EXACT = np.array([10.0**power for power in range(EXACT_POWERS + 1)])


@_compiled
def _scaled(digits: int, power: int) -> tuple[bool, float]:
    """Return the float64 nearest to ``digits * 10**power``, and whether that is certain.

    The product of 64 and 128 bits is known to within two units of its 128th bit, as of the powers the highest
    128 bits are (Lemire 2021, "Number parsing at a gigabyte per second"). It is rounded to 53 bits, which is
    uncertain only where what is cut off is as near as that to a half.

    Parameters
    ----------
    digits : int
        From 1 to 10**`DIGITS`.
    power : int
        From `FIRST_POWER` to `LAST_POWER`.
    """
    zeros = _leading_zeros(np.uint64(digits))
    normal = np.uint64(digits) << zeros
    power_high, power_low = _HIGH[power - FIRST_POWER], _LOW[power - FIRST_POWER]
    high, middle = _high_half(normal, power_high), normal * power_high
    carried = _high_half(normal, power_low)
    middle += carried
    high += np.uint64(middle < carried)
    cut = (high >> np.uint64(63)) + np.uint64(10)
    half = np.uint64(1) << (cut - np.uint64(1))
    rest = high & ((np.uint64(1) << cut) - np.uint64(1))
    certain = not (
        (rest == half and middle <= np.uint64(2))
        or (rest == half - np.uint64(1) and middle >= np.uint64(2**64 - 3))
    )
    mantissa = (high >> cut) + np.uint64(rest >= half)
    # The bits of the exponent follow those of the mantissa, which may carry one over.
    exponent = ((power * 217706) >> 16) + 1 + np.int64(cut) - np.int64(zeros) + 52 + 1023
    return certain, _double_of((np.uint64(exponent - 1) << np.uint64(52)) + mantissa)


@_compiled
def _digits(at: int, digits: int) -> tuple[int, int]:
    """Read digits that follow others; return what comes after them, and all as a number (modulo 2**64)."""
    while True:
        word = _eight_bytes(at)
        low = word - _ZEROS
        # The highest bit of the first byte that is no digit is set; later ones mean nothing.
        others = ((word + _ABOVE_NINES) | low) & _HIGHEST_BITS
        count = _trailing_zeros(others) >> 3 if others else 8
        if count == 0:
            return at, digits
        low <<= np.uint64(64 - 8 * count)
        # Neighbours become one number of two digits, then of four, then of eight.
        low = low * np.uint64(10) + (low >> np.uint64(8))
        pairs = (low & _PAIRS) * _HUNDREDS + ((low >> np.uint64(16)) & _PAIRS) * _ONES
        digits = digits * _WHOLE_POWERS[count] + np.int64(pairs >> np.uint64(32))
        at += count
        if others:
            return at, digits


@_compiled
def _number(at: int) -> tuple[int, float]:
    """Read a decimal number; return what follows it, 0 where it is not plain, and its value."""
    sign = _byte(at)
    if ZERO <= sign <= ZERO + 9 and _byte(at + 1) == LF:  # as most counts are
        return at + 1, float(sign - ZERO)
    if sign in (MINUS, PLUS):
        at += 1
    start = at
    while _byte(at) == ZERO:
        at += 1
    first = at
    at, digits = _digits(at, 0)
    count, power = at - first, 0
    some = at > start
    if _byte(at) == POINT:
        at += 1
        point = at
        if count == 0:
            while _byte(at) == ZERO:
                at += 1
        significant = at
        at, digits = _digits(at, digits)
        some |= at > point
        count += at - significant
        power = point - at
    if not some:
        return 0, 0.0
    more = count > DIGITS
    if more:
        digits, power = _first_digits(first)
    if _byte(at) in (E, SMALL_E):
        at += 1
        below = _byte(at) == MINUS
        if below or _byte(at) == PLUS:
            at += 1
        start = at
        at, exponent = _digits(at, 0)
        if not 0 < at - start <= DIGITS:
            return 0, 0.0
        power += -exponent if below else exponent
    if digits == 0:
        value = 0.0
    elif digits <= LARGEST_INT and -EXACT_POWERS <= power <= EXACT_POWERS and not more:
        # One operation of exact numbers, correctly rounded (Clinger 1990).
        value = digits / _EXACT[-power] if power < 0 else digits * _EXACT[power]
    elif FIRST_POWER <= power <= LAST_POWER:
        certain, value = _scaled(digits, power)
        if more:
            certain_too, above = _scaled(digits + 1, power)
            certain = certain and certain_too and value == above
        if not certain:
            return 0, 0.0
    else:
        return 0, 0.0
    return at, -value if sign == MINUS else value


@_compiled
def _first_digits(at: int) -> tuple[int, int]:
    """Read the first `DIGITS` of more digits; return them and the power of ten of the last."""
    digits, count, power, fraction = 0, 0, 0, False
    while True:
        digit = _byte(at) - ZERO
        if digit == POINT - ZERO and not fraction:
            fraction = True
        elif not 0 <= digit <= 9:
            return digits, power
        elif count < DIGITS:
            digits = digits * 10 + digit
            count += digits != 0
            power -= fraction
        else:
            power += not fraction
        at += 1


@_compiled
def _whole(at: int) -> tuple[int, int]:
    """Read a whole number; return what follows it and its value, -1 where it is not plain."""
    after, value = _digits(at, 0)
    return after, value if 0 < after - at <= DIGITS else -1


@_compiled
def _after_blanks(at: int) -> int:
    while _byte(at) in (SPACE, TAB):
        at += 1
    return at


@_compiled
def _after_line(at: int) -> int:
    """Return where the next line begins, 0 where there is more on this one."""
    if _byte(at) != LF:
        at = _after_blanks(at)
        if _byte(at) == CR:
            at += 1
        if _byte(at) != LF:
            return 0
    return at + 1


@_compiled
def read_entries(
    at: int, end: int, first: int, document: int, lengths: np.ndarray, ids: np.ndarray, values: np.ndarray
) -> tuple[int, int, int, int]:
    """Read lines of a document's number, a term's and a value, both numbers counted from 1.

    Parameters
    ----------
    at, end : int
        The addresses where the lines begin and end; `PADDING` follows.
    first : int
        The number, counted from 0, of the first document that is wanted.
    document : int
        The number of the last one that was read. The others are not below it.
    lengths : ndarray of int64, shape (n_docs,)
        One is added for each entry of a document.
    ids : ndarray of int32
    values : ndarray of float64
        Receive the entries; with room for as many as the lines can have.

    Returns
    -------
    reason : int
        `END`; `FULL`, if a line belongs to a document after the last that is wanted; `OTHER`.
    at : int
        The address of the first line that was not read.
    document : int
        The number of the last document that was read.
    entries : int
        How many there are.
    """
    entries = 0
    # How the last line began, up to a blank, if that is within eight bytes: so do most others.
    beginning, its_bits, its_bytes = np.uint64(0), np.uint64(0), 0
    while at < end:
        word = _eight_bytes(at)
        if its_bytes and word & its_bits == beginning:
            after, number = at + its_bytes - 1, document + 1
        else:
            after, number = _whole(at)
            its_bytes = after + 1 - at
            if its_bytes <= 8:
                its_bits = _ALL_BITS >> np.uint64(64 - 8 * its_bytes)
                beginning = word & its_bits
            else:
                its_bytes = 0
        after_blanks = _after_blanks(after)
        after_term, term = _whole(after_blanks)
        at_value = _after_blanks(after_term)
        if after_blanks == after or at_value == after_term or not 1 <= term <= LARGEST_ID + 1:
            return OTHER, at, document, entries
        after_value, value = _number(at_value)
        if after_value == 0 or number <= document:
            return OTHER, at, document, entries
        next_line = _after_line(after_value)
        if next_line == 0:
            return OTHER, at, document, entries
        if number > first + len(lengths):
            return FULL, at, document, entries
        document = number - 1
        lengths[document - first] += 1
        ids[entries] = term - 1
        values[entries] = value
        entries += 1
        at = next_line
    return END, at, document, entries


@_compiled
def read_documents(
    at: int, end: int, labelled: bool, done: int, lengths: np.ndarray, ids: np.ndarray, values: np.ndarray
) -> tuple[int, int, int, int]:
    """Read lines of one document each: a label or the number of entries, then the entries, ``term:value``.

    Parameters
    ----------
    at, end : int
        The addresses where the lines begin and end; `PADDING` follows.
    labelled : bool
        Whether lines begin with a label; terms are then counted from 1, else from 0.
    done : int
        How many documents of `lengths` were read before.
    lengths : ndarray of int64, shape (n_docs,)
        Receive the number of entries of each document.
    ids : ndarray of int32
    values : ndarray of float64
        Receive the entries; with room for as many as the lines can have.

    Returns
    -------
    reason : int
        `END`; `FULL`, if there is a line after the last document that is wanted; `OTHER`.
    at : int
        The address of the first line that was not read.
    done : int
        How many documents have been read.
    entries : int
        How many there are.
    """
    entries = 0
    while at < end:
        if done == len(lengths):
            return FULL, at, done, entries
        after, wanted = at, -1
        if labelled:
            while SPACE < _byte(after) < DELETE and _byte(after) != COMMENT:
                after += 1
        else:
            after, wanted = _whole(at)
        if after == at:
            return OTHER, at, done, entries
        count = 0
        while True:
            at_term = _after_blanks(after)
            if _byte(at_term) in (LF, CR):
                break
            after_term, term = _whole(at_term)
            if (
                at_term == after
                or _byte(after_term) != COLON
                or not labelled <= term <= LARGEST_ID + labelled
            ):
                return OTHER, at, done, entries
            after, value = _number(after_term + 1)
            if after == 0:
                return OTHER, at, done, entries
            ids[entries + count] = term - labelled
            values[entries + count] = value
            count += 1
        next_line = _after_line(after)
        # What stands before a line's end that is missing is for whoever knows the format.
        if next_line == 0 or next_line > end or not (labelled or wanted == count):
            return OTHER, at, done, entries
        lengths[done] = count
        done += 1
        entries += count
        at = next_line
    return END, at, done, entries

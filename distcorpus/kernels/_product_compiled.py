"""The compiled loops of `product`, which holds no GIL (imported on first use: numba loads slowly).

It goes through a block by terms, twice: first each term's row of Q is added to the rows of its documents in a
table T, then these rows are gathered into the term's row of Y. Only T is read and written at random, and it
is small enough to stay in a near cache; Q and Y stream past. A term's rows of Q and Y stay in registers:
LLVM's own vectoriser keeps them in memory, which is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from distcorpus.algorithms._caching import compiled
from distcorpus.algorithms.summation import MAX_STEPS

#: Bytes of a vector and of a cache line. Rows of Q and Y have whole vectors and start on a line.
VECTOR = 64

#: Vectors of columns that are computed at a time: T has no more, so that it stays small.
STRIP = 2

#: Rows of Q and Y are fetched this many terms ahead of their use.
AHEAD = 32

_INT64, _INT32, _INT8, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.DoubleType()


class _Rows:
    """Access by vectors to a table whose rows are given by where they start (in elements)."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, lanes: int
    ) -> None:
        self._builder = builder
        self._lanes = lanes
        self._lines = lanes * array_type.dtype.bitwidth // 8 // VECTOR
        self.vector = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
        self._data = make_array(array_type)(context, builder, array).data

    def _address(self, start: ir.Value, number: int) -> ir.Value:
        """Point to the vector of this number in the row."""
        offset = self._builder.add(start, _INT64(number * self._lanes))
        return self._builder.bitcast(self._builder.gep(self._data, [offset]), self.vector.as_pointer())

    def load(self, start: ir.Value, number: int) -> ir.Value:
        return self._builder.load(self._address(start, number), align=VECTOR)

    def store(self, value: ir.Value, start: ir.Value, number: int) -> None:
        self._builder.store(value, self._address(start, number), align=VECTOR)

    def prefetch(self, start: ir.Value, number: int) -> None:
        address = self._builder.bitcast(self._address(start, number), _INT8.as_pointer())
        signature = ir.FunctionType(ir.VoidType(), [address.type, _INT32, _INT32, _INT32])
        function = self._builder.module.declare_intrinsic("llvm.prefetch", [address.type], signature)
        for_reading, keep_near, is_data = _INT32(0), _INT32(3), _INT32(1)
        for line in range(self._lines):
            where = self._builder.gep(address, [_INT64(line * VECTOR)])
            self._builder.call(function, [where, for_reading, keep_near, is_data])


class _Entries:
    """The entries of a block: where the document's row of T starts, and the value in every lane."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, array_types: Any, arrays: Any, t_type: Any, vectors: int
    ) -> None:
        self._context, self._builder = context, builder
        self._documents, self._data = (
            make_array(array_type)(context, builder, array).data
            for array_type, array in zip(array_types, arrays, strict=True)
        )
        self._types = array_types[1].dtype, t_type.dtype
        self._lanes = _lanes(t_type)
        self._row = _INT64(vectors * self._lanes)

    def start(self, entry: ir.Value) -> ir.Value:
        document = self._builder.load(self._builder.gep(self._documents, [entry]))
        return self._builder.mul(self._builder.zext(document, _INT64), self._row)

    def value(self, entry: ir.Value) -> ir.Value:
        value = self._builder.load(self._builder.gep(self._data, [entry]))
        return _splat(self._builder, self._context.cast(self._builder, value, *self._types), self._lanes)


def _lanes(array_type: Any) -> int:
    return VECTOR * 8 // array_type.dtype.bitwidth


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """Return the vector whose every lane is the scalar."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes))


def _call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """Call an intrinsic function of LLVM on vectors of one type."""
    vector = arguments[0].type
    bits = 64 if vector.element == _DOUBLE else 32
    signature = ir.FunctionType(vector, [vector] * len(arguments))
    full_name = f"llvm.{name}.v{vector.count}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, full_name), arguments)


@intrinsic(prefer_literal=True)
def _scatter(
    typing_context: Any,
    q: Any,
    start: Any,
    later: Any,
    documents: Any,
    data: Any,
    begin: Any,
    end: Any,
    t: Any,
    vectors: Any,
) -> Any:
    """Add a term's row of `q`, times its entries `begin` to `end`, to the documents' rows of `t`.

    `start` and `later` say where this row and that of a later term start.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        q_array, start, later, documents_array, data_array, begin, end, t_array, _ = args
        numbers = range(vectors.literal_value)
        source = _Rows(context, builder, q, q_array, _lanes(t))
        target = _Rows(context, builder, t, t_array, _lanes(t))
        arrays = documents_array, data_array
        entries = _Entries(context, builder, (documents, data), arrays, t, len(numbers))
        row = [source.load(start, number) for number in numbers]
        for number in numbers:
            source.prefetch(later, number)
        with cgutils.for_range_slice(builder, begin, end, _INT64(1), _INT64) as (entry, _):
            where, value = entries.start(entry), entries.value(entry)
            for number in numbers:
                old = target.load(where, number)
                target.store(_call(builder, "fma", value, row[number], old), where, number)
        return context.get_dummy_value()

    if not isinstance(vectors, types.IntegerLiteral):
        return None
    arguments = (q, types.int64, types.int64, documents, data, types.int64, types.int64, t, vectors)
    return types.void(*arguments), generate


@intrinsic(prefer_literal=True)
def _gather(
    typing_context: Any,
    t: Any,
    documents: Any,
    data: Any,
    begin: Any,
    end: Any,
    scale: Any,
    total: Any,
    start: Any,
    later: Any,
    vectors: Any,
) -> Any:
    """Add the documents' rows of `t`, times a term's entries `begin` to `end`, to its row of `total`.

    Their sum is multiplied by `scale` and rounded to whole numbers. Returns whether all totals are in range.
    `start` and `later` say where this row and that of a later term start.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        t_array, documents_array, data_array, begin, end, factor, total_array, start, later, _ = args
        lanes, numbers = _lanes(t), range(vectors.literal_value)
        source = _Rows(context, builder, t, t_array, lanes)
        target = _Rows(context, builder, total, total_array, lanes)
        arrays = documents_array, data_array
        entries = _Entries(context, builder, (documents, data), arrays, t, len(numbers))
        # Two sums for each vector of columns, so that one need not wait for the other.
        sums = [[cgutils.alloca_once(builder, source.vector) for _ in numbers] for _ in range(2)]
        for pointer in (*sums[0], *sums[1]):
            builder.store(ir.Constant(source.vector, None), pointer)

        def add(entry: ir.Value, parity: int) -> None:
            where, value = entries.start(entry), entries.value(entry)
            for number, pointer in enumerate(sums[parity]):
                term = source.load(where, number)
                builder.store(_call(builder, "fma", value, term, builder.load(pointer)), pointer)

        length = builder.sub(end, begin)
        even_end = builder.sub(end, builder.and_(length, _INT64(1)))
        with cgutils.for_range_slice(builder, begin, even_end, _INT64(2), _INT64) as (entry, _):
            add(entry, 0)
            add(builder.add(entry, _INT64(1)), 1)
        with builder.if_then(builder.icmp_signed("<", even_end, end)):
            add(even_end, 0)

        scales = _splat(builder, factor, lanes)
        limits = ir.Constant(ir.VectorType(_DOUBLE, lanes), [MAX_STEPS] * lanes)
        in_range = None
        for number, pair in enumerate(zip(*sums, strict=True)):
            target.prefetch(later, number)
            row = builder.fadd(*map(builder.load, pair))
            if row.type.element != _DOUBLE:
                row = builder.fpext(row, limits.type)
            steps = _call(builder, "rint", builder.fmul(row, scales))
            value = builder.fadd(target.load(start, number), steps)
            target.store(value, start, number)
            below = builder.fcmp_ordered("<", _call(builder, "fabs", value), limits)  # NaN is not
            in_range = below if in_range is None else builder.and_(in_range, below)
        mask = builder.bitcast(in_range, ir.IntType(lanes))
        return builder.icmp_unsigned("==", mask, ir.IntType(lanes)(-1))

    if not isinstance(vectors, types.IntegerLiteral):
        return None
    arguments = (t, documents, data, *[types.int64] * 2, types.float64, total, *[types.int64] * 2, vectors)
    return types.boolean(*arguments), generate


def _strip_of(vectors: int) -> Callable[..., bool]:
    """Return the product for this many vectors of columns."""

    @numba.njit(nogil=True, error_model="numpy")
    def multiply_strip(
        rows: np.ndarray,
        indptr: np.ndarray,
        documents: np.ndarray,
        data: np.ndarray,
        q: np.ndarray,
        scale: float,
        total: np.ndarray,
        column: int,
        t: np.ndarray,
    ) -> bool:
        width = q.shape[1]
        last = len(rows) - 1
        t[:] = 0
        for term in range(len(rows)):
            start = np.int64(rows[term]) * width + column
            later = np.int64(rows[min(term + AHEAD, last)]) * width + column
            _scatter(q, start, later, documents, data, indptr[term], indptr[term + 1], t, vectors)
        in_range = True
        for term in range(len(rows)):
            start = np.int64(rows[term]) * width + column
            later = np.int64(rows[min(term + AHEAD, last)]) * width + column
            begin, end = indptr[term], indptr[term + 1]
            in_range &= _gather(t, documents, data, begin, end, scale, total, start, later, vectors)
        return in_range

    return multiply_strip


_one_vector, _whole_strip = _strip_of(1), _strip_of(STRIP)


# All fused multiply-adds are written out and each column's sum has one order, so the bits do not depend on
# the width of a processor's vectors.
@compiled(nogil=True, error_model="numpy")
def multiply(
    rows: np.ndarray,
    indptr: np.ndarray,
    documents: np.ndarray,
    data: np.ndarray,
    n_docs: int,
    q: np.ndarray,
    scale: float,
    total: np.ndarray,
) -> bool:
    """Add ``scale * A (A' Q)``, rounded to whole numbers, to `total`; return whether all sums are in range.

    Parameters
    ----------
    rows : ndarray of int32, shape (n_words,)
        The row of `q` and `total` of each term that occurs.
    indptr, documents, data, n_docs
        The attributes of `Postings`.
    q : ndarray of float32 or float64, shape (n_rows, width)
        Aligned to `VECTOR` bytes, rows a multiple of it. The product is computed in its type.
    scale : float
    total : ndarray of float64, shape (n_rows, width)
        Aligned as `q`.
    """
    lanes = VECTOR // q.itemsize
    width = q.shape[1]
    t = np.empty((n_docs * STRIP + 1) * lanes, q.dtype)
    t = t[(-t.ctypes.data % VECTOR) // q.itemsize :]
    in_range = True
    column = 0
    while column + STRIP * lanes <= width:
        strip = t[: n_docs * STRIP * lanes]
        in_range &= _whole_strip(rows, indptr, documents, data, q, scale, total, column, strip)
        column += STRIP * lanes
    while column < width:
        strip = t[: n_docs * lanes]
        in_range &= _one_vector(rows, indptr, documents, data, q, scale, total, column, strip)
        column += lanes
    return in_range

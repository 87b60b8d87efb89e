"""The compiled product of `lsi`, which holds no GIL (imported on first use: numba loads slowly).

One pass over a block does it: a document's rows of Q are gathered into one row, and that row is scattered to
the document's rows of Y. Both halves are limited by how fast rows come out of the caches, so the gathered row
stays in registers: LLVM's own vectoriser keeps it in memory, which halves the speed.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

#: Bytes of a vector and of a cache line. Rows of Q and Y have whole vectors and start on a line.
VECTOR = 64

#: Rows are fetched this many entries ahead of their use: the rows of rare words are in no near cache.
AHEAD = 24

_INT64, _INT32, _INT8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)


class _Rows:
    """Access by vectors to a table whose rows are given by where they start (in elements)."""

    def __init__(self, context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value) -> None:
        self._builder = builder
        element = context.get_value_type(array_type.dtype)
        self.lanes = VECTOR * 8 // array_type.dtype.bitwidth
        self.vector = ir.VectorType(element, self.lanes)
        self._data = make_array(array_type)(context, builder, array).data

    def address(self, start: ir.Value, number: int) -> ir.Value:
        """Point to the vector of this number in the row."""
        offset = self._builder.add(start, _INT64(number * self.lanes))
        return self._builder.bitcast(self._builder.gep(self._data, [offset]), self.vector.as_pointer())

    def load(self, start: ir.Value, number: int) -> ir.Value:
        return self._builder.load(self.address(start, number), align=VECTOR)

    def store(self, value: ir.Value, start: ir.Value, number: int) -> None:
        self._builder.store(value, self.address(start, number), align=VECTOR)

    def prefetch(self, start: ir.Value, number: int) -> None:
        address = self._builder.bitcast(self.address(start, number), _INT8.as_pointer())
        signature = ir.FunctionType(ir.VoidType(), [address.type, _INT32, _INT32, _INT32])
        function = self._builder.module.declare_intrinsic("llvm.prefetch", [address.type], signature)
        for_reading, keep_near, is_data = _INT32(0), _INT32(3), _INT32(1)
        self._builder.call(function, [address, for_reading, keep_near, is_data])

    def splat(self, scalar: ir.Value) -> ir.Value:
        """Return the vector whose every lane is the scalar."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self._builder.insert_element(undefined, scalar, _INT32(0))
        return self._builder.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        )

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        name = f"llvm.fma.v{self.lanes}f{VECTOR * 8 // self.lanes}"
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        function = cgutils.get_or_insert_function(self._builder.module, signature, name)
        return self._builder.call(function, [a, b, c])


@intrinsic(prefer_literal=True)
def _gather_and_scatter(
    typing_context: Any,
    q: Any,
    y: Any,
    starts: Any,
    values: Any,
    length: Any,
    weight: Any,
    column: Any,
    vectors: Any,
) -> Any:
    """Add ``weight * a (a' q)`` to `y`, in `vectors` vectors of columns from `column` on, for one document a.

    `starts` says where the rows of the document's terms start. Both it and `values` go on after `length`:
    `values` with a zero, `starts` with `AHEAD` + 1 numbers of any rows.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source = _Rows(context, builder, signature.args[0], args[0])
        target = _Rows(context, builder, signature.args[1], args[1])
        start_data = make_array(signature.args[2])(context, builder, args[2]).data
        value_data = make_array(signature.args[3])(context, builder, args[3]).data
        count, scale, first = args[4:7]
        numbers = range(vectors.literal_value)

        def start_of(entry: ir.Value, ahead: int = 0) -> ir.Value:
            where = builder.gep(start_data, [builder.add(entry, _INT64(ahead))])
            return builder.add(builder.load(where), first)

        def value_of(entry: ir.Value) -> ir.Value:
            return source.splat(builder.load(builder.gep(value_data, [entry])))

        # Two sums for each vector of columns, so that one need not wait for the other.
        sums = [[cgutils.alloca_once(builder, source.vector) for _ in numbers] for _ in range(2)]
        for pointer in (*sums[0], *sums[1]):
            builder.store(ir.Constant(source.vector, None), pointer)
        pairs = builder.lshr(builder.add(count, _INT64(1)), _INT64(1))
        with cgutils.for_range(builder, pairs) as loop:
            for parity in range(2):
                entry = builder.add(builder.shl(loop.index, _INT64(1)), _INT64(parity))
                start, later, value = start_of(entry), start_of(entry, AHEAD), value_of(entry)
                for number in numbers:
                    source.prefetch(later, number)
                    pointer = sums[parity][number]
                    builder.store(
                        source.fma(value, source.load(start, number), builder.load(pointer)), pointer
                    )
        scales = source.splat(scale)
        row = [
            builder.fmul(scales, builder.fadd(builder.load(even), builder.load(odd)))
            for even, odd in zip(*sums, strict=True)
        ]
        with cgutils.for_range(builder, count) as loop:
            start, later, value = start_of(loop.index), start_of(loop.index, AHEAD), value_of(loop.index)
            for number in numbers:
                target.prefetch(later, number)
                target.store(target.fma(value, row[number], target.load(start, number)), start, number)
        return context.get_dummy_value()

    if not isinstance(vectors, types.IntegerLiteral):
        return None
    return types.void(q, y, starts, values, types.int64, values.dtype, types.int64, vectors), generate


# All fused multiply-adds are written out and each column's sum has one order, so the bits do not depend on
# the width of a processor's vectors.
@numba.njit(nogil=True, cache=True, error_model="numpy")
def multiply(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    row_of: np.ndarray,
    q: np.ndarray,
    weight: float,
    y: np.ndarray,
    touched: np.ndarray,
) -> None:
    """Add ``weight * A (A' q)`` to `y`, document by document, and mark the rows of `y` that it touches.

    Parameters
    ----------
    indptr, indices, data : ndarray
        A block as CSR (documents x terms).
    row_of : ndarray of int32, shape (num_terms,)
        The row of `q` and `y` of each term that occurs.
    q, y : ndarray, shape (n_rows, width)
        Aligned to `VECTOR` bytes, rows a multiple of it.
    weight : float
        Of the type of `q`.
    touched : ndarray of uint8, shape (n_rows,)
    """
    width = q.shape[1]
    lanes = VECTOR // q.itemsize
    longest = 0
    for document in range(len(indptr) - 1):
        longest = max(longest, indptr[document + 1] - indptr[document])
    starts = np.zeros(longest + 1 + AHEAD, np.int64)
    values = np.zeros(longest + 1, q.dtype)
    for document in range(len(indptr) - 1):
        first = indptr[document]
        length = indptr[document + 1] - first
        for p in range(length):
            row = np.uint32(row_of[indices[first + p]])
            starts[p] = np.int64(row) * width
            values[p] = data[first + p]
            touched[row] = 1
        values[length] = 0
        column = 0
        while column + 4 * lanes <= width:
            _gather_and_scatter(q, y, starts, values, length, weight, column, 4)
            column += 4 * lanes
        if column + 3 * lanes == width:
            _gather_and_scatter(q, y, starts, values, length, weight, column, 3)
        elif column + 2 * lanes == width:
            _gather_and_scatter(q, y, starts, values, length, weight, column, 2)
        elif column + lanes == width:
            _gather_and_scatter(q, y, starts, values, length, weight, column, 1)

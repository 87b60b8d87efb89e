"""The compiled product of `lsi`, which holds no GIL (imported on first use, since numba takes a while to
load)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

#: Rows are fetched this many entries ahead of their use: the rows of rare words are in no cache.
AHEAD = 16

_LINE = 64  # bytes of a cache line


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line of ``array[row, column]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = make_array(signature.args[0])(context, builder, args[0])
        strides = cgutils.unpack_tuple(builder, rows.strides)
        offset = builder.add(builder.mul(args[1], strides[0]), builder.mul(args[2], strides[1]))
        address = builder.gep(builder.bitcast(rows.data, ir.IntType(8).as_pointer()), [offset])
        flag = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], function_type)
        for_reading, keep_near, is_data = flag(0), flag(3), flag(1)
        builder.call(function, [address, for_reading, keep_near, is_data])
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.int64), generate


# Contraction to fused multiply-adds is all the fast-math there is: each column's sum runs in the order that is
# written here, so that the bits do not depend on the width of a processor's vectors.
@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
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
    """Add ``weight * A (A' q)`` to `y`, one document after the other, and mark the rows of `y` that it
    touches.

    Parameters
    ----------
    indptr, indices, data : ndarray
        A block as CSR (documents x terms).
    row_of : ndarray of int32, shape (num_terms,)
        The row of `q` and `y` of each term that occurs.
    q, y : ndarray, shape (n_rows, width)
    weight : float
        Of the type of `q`.
    touched : ndarray of uint8, shape (n_rows,)
    """
    width = q.shape[1]
    line = _LINE // q.itemsize
    longest = 0
    for document in range(len(indptr) - 1):
        longest = max(longest, indptr[document + 1] - indptr[document])
    # Unsigned, so that no index is checked for counting from the end.
    rows = np.zeros(longest + 4 + AHEAD, np.uint32)
    values = np.zeros(longest + 4, q.dtype)
    projection = np.empty(width, q.dtype)
    for document in range(len(indptr) - 1):
        start = indptr[document]
        length = indptr[document + 1] - start
        for p in range(length):
            rows[p] = row_of[indices[start + p]]
            values[p] = data[start + p]
            touched[rows[p]] = 1
        for p in range(length, length + 3):  # whole groups of four
            rows[p] = 0
            values[p] = 0
        for k in range(width):
            projection[k] = 0
        for p in range(0, length, 4):
            for ahead in range(p + AHEAD, p + AHEAD + 4):
                for k in range(0, width, line):
                    _prefetch(q, rows[ahead], k)
            v0, v1, v2, v3 = values[p], values[p + 1], values[p + 2], values[p + 3]
            r0, r1, r2, r3 = rows[p], rows[p + 1], rows[p + 2], rows[p + 3]
            for k in range(width):
                projection[k] += (v0 * q[r0, k] + v1 * q[r1, k]) + (v2 * q[r2, k] + v3 * q[r3, k])
        for k in range(width):
            projection[k] *= weight
        for p in range(length):
            for k in range(0, width, line):
                _prefetch(y, rows[p + AHEAD], k)
            value, row = values[p], rows[p]
            for k in range(width):
                y[row, k] += value * projection[k]

"""The compiled reader of bags of words for `chunk` (imported on first use: numba loads slowly).

It follows CPython's own pointers from the list of documents to the numbers, as long as every object on the
way is exactly of a type that it knows; anything else it leaves to numpy. It holds the GIL and runs no Python
code, so that nothing it looks at can change or go away meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ._caching import compiled

#: Where the macros Py_TYPE, Py_SIZE, PyList_GET_ITEM, PyTuple_GET_ITEM and PyFloat_AS_DOUBLE look, in bytes
#: from the start of an object.
TYPE, SIZE, LIST_ITEMS, TUPLE_ITEMS, FLOAT_VALUE = 8, 16, 24, 24, 16

_SIZES = [type_.__basicsize__ for type_ in (object, list, tuple, float)]
if sys.version_info >= (3, 14) or _SIZES != [16, 40, 24, 24]:
    raise ImportError("this Python's objects may not look like those of CPython 3.10 to 3.13 with 64 bits")

#: The types that are read. numpy's float64, which gensim's TF-IDF gives, is a float with more methods.
TYPES = (list, tuple, int, float, np.float64)
Addresses = tuple[int, int, int, int, int]

LARGEST_ID = 2**31 - 1
#: float64 holds every whole number up to here.
LARGEST_INT = 2**53

_INT64, _INT32, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.DoubleType()
_compiled = compiled()


def _load(type_: ir.Type) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(builder.inttoptr(builder.add(*args), type_.as_pointer()))

    return generate


@intrinsic
def _word_at(typing_context: Any, address: Any, offset: Any) -> Any:
    """Read an integer or a pointer of 64 bits."""
    return types.int64(types.int64, types.int64), _load(_INT64)


@intrinsic
def _double_at(typing_context: Any, address: Any, offset: Any) -> Any:
    """Read a float64."""
    return types.float64(types.int64, types.int64), _load(_DOUBLE)


@intrinsic
def _int_at(typing_context: Any, address: Any) -> Any:
    """Return the value of an object of type int; -2**63 for all that have more than 64 bits."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        # For an int it raises nothing, so no error is left behind.
        object_type, overflow = ir.IntType(8).as_pointer(), cgutils.alloca_once(builder, _INT32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_INT64, [object_type, overflow.type]),
            "PyLong_AsLongLongAndOverflow",
        )
        value = builder.call(function, [builder.inttoptr(args[0], object_type), overflow])
        fits = builder.icmp_signed("==", builder.load(overflow), _INT32(0))
        return builder.select(fits, value, _INT64(-(2**63)))

    return types.int64(types.int64), generate


@_compiled
def _items(sequence: int, addresses: Addresses) -> int:
    """Return the address of a list's or a tuple's items, -1 for anything else."""
    list_, tuple_, _, _, _ = addresses
    if _word_at(sequence, TYPE) == list_:
        return _word_at(sequence, LIST_ITEMS)
    if _word_at(sequence, TYPE) == tuple_:
        return sequence + TUPLE_ITEMS
    return -1


@_compiled
def read(documents: int, addresses: Addresses) -> tuple[bool, np.ndarray, np.ndarray, np.ndarray]:
    """Read bags of words.

    Parameters
    ----------
    documents : int
        The address of a sequence of them (its `id`), to which the caller holds a reference.
    addresses : tuple of int
        Those of `TYPES`.

    Returns
    -------
    understood : bool
        Whether sequences are lists or tuples, term ids whole numbers from 0 to 2**31 - 1, and values floats,
        or whole numbers up to 2**53; otherwise the arrays mean nothing.
    indptr : ndarray of int64, shape (n_docs + 1,)
    ids : ndarray of int32, shape (nnz,)
    values : ndarray of float64, shape (nnz,)
    """
    nothing = False, np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float64)
    _, _, int_, float_, numpy_float = addresses
    bags = _items(documents, addresses)
    if bags == -1:
        return nothing
    num_docs = _word_at(documents, SIZE)
    indptr = np.zeros(num_docs + 1, np.int64)
    for d in range(num_docs):
        bag = _word_at(bags, 8 * d)
        if _items(bag, addresses) == -1:
            return nothing
        indptr[d + 1] = indptr[d] + _word_at(bag, SIZE)
    ids = np.empty(indptr[num_docs], np.int32)
    values = np.empty(indptr[num_docs], np.float64)
    for d in range(num_docs):
        pairs = _items(_word_at(bags, 8 * d), addresses)
        first = indptr[d]
        for p in range(first, indptr[d + 1]):
            pair = _word_at(pairs, 8 * (p - first))
            numbers = _items(pair, addresses)
            if numbers == -1 or _word_at(pair, SIZE) != 2:
                return nothing
            number = _word_at(numbers, 0)
            if _word_at(number, TYPE) != int_:
                return nothing
            id_ = _int_at(number)
            if not 0 <= id_ <= LARGEST_ID:
                return nothing
            ids[p] = id_
            number = _word_at(numbers, 8)
            type_ = _word_at(number, TYPE)
            if type_ in (float_, numpy_float):
                values[p] = _double_at(number, FLOAT_VALUE)
            elif type_ == int_:
                value = _int_at(number)
                if not -LARGEST_INT <= value <= LARGEST_INT:
                    return nothing
                values[p] = value
            else:
                return nothing
    return True, indptr, ids, values

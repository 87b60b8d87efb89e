"""Vectors of 64 bytes inside numba functions: what the E-step's inner loops are written in.

LLVM's loop vectoriser needs `fastmath` to touch a reduction, then chooses width and order by the machine,
and its checks and remainders cost more than the arithmetic of a short document. Here the width, the order
and every fused multiply-add are written down, so the kernels are faster *and* round alike on every machine
(where registers are narrower, LLVM splits the vectors).

A `Vector` is a value in a numba function with `+ - * /` and unary `-`; the functions below make, combine and
store it. They can be called from compiled code only. Padding arrays to whole vectors is up to the caller.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

VECTOR_BYTES = 64


class Vector(types.Type):
    """The numba type of a vector of `lanes` floats of one dtype."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    vector = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _constant(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _llvm(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """Call the LLVM intrinsic `name` of the arguments' common vector type."""
    vector = arguments[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    signature = ir.FunctionType(vector, [vector] * len(arguments))
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{vector.count}f{bits}"
    )
    return builder.call(function, arguments)


def _address(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value, vector: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def lanes(typingctx: Any, array: Any) -> Any:
    """Number of elements of the array's dtype in a vector."""
    count = Vector(array.dtype).lanes

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), count)

    return types.int64(array), codegen


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """The vector array[index : index + lanes] of a C-contiguous 1-d array; no bounds check."""
    result = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(result)
        address = _address(context, builder, array, arguments[0], arguments[1], vector)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return result(array, types.int64), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + lanes] = value; no bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, array, arguments[0], arguments[1], arguments[2].type)
        builder.store(arguments[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


@intrinsic
def is_set(typingctx: Any, flag: Any) -> Any:
    """Whether flag[0] is not 0 at this moment: it is read each time, as another thread may set it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(flag)(context, builder, value=arguments[0]).data
        value = builder.load_atomic(data, "monotonic", align=1)
        return builder.icmp_unsigned("!=", value, ir.Constant(value.type, 0))

    return types.boolean(flag), codegen


@intrinsic
def load_apart(typingctx: Any, array: Any, starts: Any, index: Any, offset: Any) -> Any:
    """The vector of array[starts[index + j] + offset] for j up to the number of lanes; no bounds check.

    `starts` is an array of int64; the others are as in `load`.
    """
    result = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_, starts_, index_, offset_ = arguments
        data, first = (
            context.make_array(kind)(context, builder, value=value).data
            for kind, value in ((array, array_), (starts, starts_))
        )
        vector = ir.Constant(context.get_value_type(result), ir.Undefined)
        for j in range(result.lanes):
            start = builder.load(builder.gep(first, [builder.add(index_, ir.Constant(ir.IntType(64), j))]))
            element = builder.load(builder.gep(data, [builder.add(start, offset_)]))
            vector = builder.insert_element(vector, element, ir.Constant(ir.IntType(32), j))
        return vector

    return result(array, starts, types.int64, types.int64), codegen


@intrinsic
def copy_transposed(
    typingctx: Any, source: Any, starts: Any, column: Any, target: Any, position: Any, stride: Any
) -> Any:
    """target[position + i * stride + j] = source[starts[j] + column + i] for i and j up to the number of
    lanes.

    `starts` is an array of int64; the others are as in `load`. No bounds check.
    """
    lane = Vector(source.dtype).lanes

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_, starts_, column_, target_, position_, stride_ = arguments
        vector = context.get_value_type(Vector(source.dtype))
        integer = ir.IntType(64)
        alignment = source.dtype.bitwidth // 8
        first = context.make_array(starts)(context, builder, value=starts_).data
        matrix = []
        for j in range(lane):
            start = builder.load(builder.gep(first, [ir.Constant(integer, j)]))
            address = _address(context, builder, source, source_, builder.add(start, column_), vector)
            matrix.append(builder.load(address, align=alignment))
        distance = 1
        while distance < lane:  # swap the off-diagonal blocks of ever larger 2 x 2 blocks
            low = [j if not j & distance else lane + j - distance for j in range(lane)]
            high = [j + distance if not j & distance else lane + j for j in range(lane)]
            for i in range(lane):
                if not i & distance:
                    pair = matrix[i], matrix[i + distance]
                    matrix[i], matrix[i + distance] = (
                        builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(ir.IntType(32), lane), mask))
                        for mask in (low, high)
                    )
            distance *= 2
        for i in range(lane):
            index = builder.add(position_, builder.mul(stride_, ir.Constant(integer, i)))
            address = _address(context, builder, target, target_, index, vector)
            builder.store(matrix[i], address, align=alignment)
        return context.get_dummy_value()

    return types.void(source, starts, types.int64, target, types.int64, types.int64), codegen


@intrinsic
def splat(typingctx: Any, scalar: Any) -> Any:
    """The vector whose every lane is the scalar."""
    result = Vector(scalar)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], result.lanes)

    return result(scalar), codegen


@intrinsic
def fill(typingctx: Any, like: Any, value: Any) -> Any:
    """The vector of the type of `like` whose every lane is the float64 `value`, rounded to that type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, context.cast(builder, arguments[1], types.float64, like.dtype), like.lanes)

    return like(like, types.float64), codegen


@intrinsic
def choose(typingctx: Any, like: Any, single: Any, double: Any) -> Any:
    """Fill with one of two float64: the first for vectors of float32, the second for float64."""
    which = 1 if like.dtype == types.float32 else 2

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, context.cast(builder, arguments[which], types.float64, like.dtype), like.lanes)

    return like(like, types.float64, types.float64), codegen


@intrinsic
def polynomial(typingctx: Any, x: Any, single: Any, double: Any) -> Any:
    """Horner's rule with the coefficients for the type of x (tuples of float64, lowest coefficient first)."""
    which, source = (1, single) if x.dtype == types.float32 else (2, double)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        coefficients = [
            _splat(builder, context.cast(builder, c, types.float64, x.dtype), x.lanes)
            for c in cgutils.unpack_tuple(builder, arguments[which], len(source))
        ]
        value = coefficients.pop()
        while coefficients:
            value = _llvm(builder, "fma", value, arguments[0], coefficients.pop())
        return value

    return x(x, single, double), codegen


@intrinsic
def power_of_two(typingctx: Any, exponent: Any) -> Any:
    """2**exponent for lanes holding whole numbers; 0 where that would be subnormal."""
    integer, mantissa_bits = (ir.IntType(32), 23) if exponent.dtype == types.float32 else (ir.IntType(64), 52)
    bias = 127 if exponent.dtype == types.float32 else 1023

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = arguments[0].type
        bounded = _llvm(builder, "minnum", arguments[0], _constant(vector, float(bias)))
        bounded = _llvm(builder, "maxnum", bounded, _constant(vector, float(-bias)))
        integers = ir.VectorType(integer, vector.count)
        biased = builder.add(builder.fptosi(bounded, integers), _constant(integers, bias))
        return builder.bitcast(builder.shl(biased, _constant(integers, mantissa_bits)), vector)

    return exponent(exponent), codegen


def _elementwise(name: str, arity: int, doc: str) -> Callable[..., Any]:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _llvm(builder, name, *arguments)

    def unary(typingctx: Any, a: Any) -> Any:
        return a(a), codegen

    def binary(typingctx: Any, a: Any, b: Any) -> Any:
        return a(a, b), codegen

    def ternary(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, b, c), codegen

    function = (unary, binary, ternary)[arity - 1]
    function.__doc__ = doc
    return intrinsic(function)


absolute = _elementwise("fabs", 1, "|a|.")
nearest = _elementwise("rint", 1, "The nearest whole number, ties to even.")
maximum = _elementwise("maxnum", 2, "The larger of each pair.")
minimum = _elementwise("minnum", 2, "The smaller of each pair.")
fma = _elementwise("fma", 3, "a * b + c, rounded once.")


def _reduction(
    combine: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value], doc: str
) -> Callable[..., Any]:
    """Reduce a vector by halves, an order that is the same everywhere."""

    def reduce(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, count = arguments[0], vector.lanes
            while count > 1:
                count //= 2
                low, high = (
                    builder.shuffle_vector(
                        value,
                        ir.Constant(value.type, ir.Undefined),
                        ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(start, start + count))),
                    )
                    for start in (0, count)
                )
                value = combine(builder, low, high)
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return vector.dtype(vector), codegen

    reduce.__doc__ = doc
    return intrinsic(reduce)


total = _reduction(lambda builder, a, b: builder.fadd(a, b), "The sum of the lanes.")
smallest = _reduction(lambda builder, a, b: _llvm(builder, "minnum", a, b), "The smallest lane.")


def _operator(python_operator: Callable[..., Any], instruction: str) -> None:
    """Give vectors a binary operator."""

    @intrinsic
    def compute(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return a(a, b), codegen

    def implementation(a: Any, b: Any) -> Any:
        return compute(a, b)

    @overload(python_operator)
    def typed(a: Any, b: Any) -> Any:
        return implementation if isinstance(a, Vector) and a == b else None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")


@intrinsic
def _negate(typingctx: Any, a: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fneg(arguments[0])

    return a(a), codegen


@overload(operator.neg)
def _negative(a: Any) -> Any:
    def implementation(a: Any) -> Any:
        return _negate(a)

    return implementation if isinstance(a, Vector) else None

"""Kernels for which subnormal numbers are zero.

The weight of a topic that leaves a document falls from one iteration to the next, and what it is multiplied
by is small too: products pass through the numbers below the smallest normal one (2**-126 in float32). Nothing
of them remains, and processors of Intel need more than a hundred cycles for each: an E-step of long documents
takes four to six times as long with them.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._caching import compiled

P = ParamSpec("P")
R = TypeVar("R")

#: Bits of the control register of SSE and AVX: subnormal results are zero, and so are subnormal operands.
FLUSH_TO_ZERO, DENORMALS_ARE_ZERO = 1 << 15, 1 << 6

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def _call(builder: Any, name: str, register: Any) -> None:
    pointer = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(register, pointer)])


@intrinsic
def _get(typingctx: Any) -> Any:
    """Return the control register of this thread."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        register = cgutils.alloca_once(builder, ir.IntType(32))
        _call(builder, "stmxcsr", register)
        return builder.load(register)

    return types.uint32(), codegen


@intrinsic
def _set(typingctx: Any, value: Any) -> Any:
    """Set it."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "ldmxcsr", cgutils.alloca_once_value(builder, arguments[0]))
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


@compiled()
def _exchange(value: int) -> int:
    before = _get()
    _set(value)
    return before


@compiled()
def _current() -> int:
    return _get()


def without_subnormals(kernel: Callable[P, R]) -> Callable[P, R]:
    """Let subnormal numbers be zero in the calling thread while a compiled function runs.

    That is not in the function itself: LLVM moves arithmetic past a change of the register.
    """
    if not _IS_X86:
        return kernel

    @functools.wraps(kernel)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _exchange(_current() | FLUSH_TO_ZERO | DENORMALS_ARE_ZERO)
        try:
            return kernel(*args, **kwargs)
        finally:
            _exchange(before)

    return run

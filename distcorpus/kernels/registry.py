"""The kernels that a job may name."""

from __future__ import annotations

from typing import Any, TypeVar

K = TypeVar("K", bound=type[Any])

#: By name.
KERNELS: dict[str, Any] = {}


def register(kernel: K) -> K:
    """Let jobs name a kernel; a class decorator.

    Raises
    ------
    ValueError
        If another kernel has its name.
    """
    if KERNELS.setdefault(kernel.name, kernel) is not kernel:
        raise ValueError(f"there is a kernel {kernel.name!r} already: {KERNELS[kernel.name]!r}")
    return kernel


def kernel_named(name: str) -> Any:
    """Return a kernel.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    kernel = KERNELS.get(name)
    if kernel is None:
        raise ValueError(f"no kernel is called {name!r}: there are {', '.join(sorted(KERNELS))}")
    return kernel

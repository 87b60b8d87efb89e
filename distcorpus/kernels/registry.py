"""The kernels that a job may name."""

from __future__ import annotations

import importlib
import os
from typing import Any, TypeVar

K = TypeVar("K", bound=type[Any])

#: Modules with kernels of the user's own, separated by commas: a worker imports them when it starts.
KERNELS_VARIABLE = "DISTCORPUS_KERNELS"

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
    if type(name) is not str:
        raise ValueError(f"no kernel is called by a {type(name).__name__}")
    kernel = KERNELS.get(name)
    if kernel is None:
        raise ValueError(f"no kernel is called {name!r}: there are {', '.join(sorted(KERNELS))}")
    return kernel


def load_own() -> None:
    """Import the modules that the environment names; each registers its kernels.

    Raises
    ------
    ValueError
        If one cannot be imported.
    """
    for name in filter(None, map(str.strip, os.environ.get(KERNELS_VARIABLE, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"{KERNELS_VARIABLE} names {name}, which cannot be imported: {error}") from error

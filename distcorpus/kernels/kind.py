"""Which kernels this process computes with: two processes give the same bits only with the same."""

from __future__ import annotations

import platform

import numpy as np

from distcorpus.algorithms.summation import compiled_kernels
from distcorpus.kernels.registry import KERNELS


def kind_of_kernels(blas: str = "") -> str:
    """Name the kernels.

    numba compiles for the CPU that it finds, and the kernels are written so that the bits do not depend on
    that. numpy's depend on what it and its BLAS make of the CPU.

    Parameters
    ----------
    blas : str
        The BLAS and its threads.

    Returns
    -------
    str
        Equal where results are; ``"numba"`` or ``"numpy"`` come first, then the version.
    """
    versions = ", ".join(f"{name} {kernel.version}" for name, kernel in sorted(KERNELS.items()))
    version = f"kernels {versions}, {platform.machine()}"
    if compiled_kernels() is not None:
        import numba

        return f"numba {numba.__version__}, {version}"
    return f"numpy {np.__version__}, {version}, {instructions()}, {blas or 'BLAS unknown'}"


def instructions() -> str:
    """Name the widest instructions that numpy has loops for and this CPU has."""
    core = getattr(np, "_core", None) or np.core
    features = core._multiarray_umath.__cpu_features__
    wide = [name for name in ("AVX512_SKX", "AVX512F", "AVX2", "FMA3", "ASIMD") if features.get(name)]
    return "+".join(wide) or "no vectors"

"""What a process is made of: the versions that processes of ours tell each other when they meet.

Some differences cannot work, and others can change the last bits of a result.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from distcorpus._version import __version__, __wire__
from distcorpus.kernels.kind import instructions
from distcorpus.kernels.registry import KERNELS

#: What a build says, in the order in which it is shown.
PARTS = "distcorpus", "wire", "python", "numpy", "scipy", "numba", "kernels", "machine", "vectors"
#: What has to be equal.
_ESSENTIAL = "distcorpus", "wire"
#: What can change bits. Without numba that is also what numpy makes of the CPU.
_SIGNIFICANT = "numpy", "scipy", "numba", "kernels", "machine", "vectors"
_LONGEST = 500
NONE = "none"


def this_build(compiled: bool | None = None) -> dict[str, str]:
    """Return the build of this process.

    Parameters
    ----------
    compiled : bool, optional
        Whether its kernels are numba's; by default whether numba is installed, which is not loaded to see.
    """
    numba = NONE if compiled is False else _installed("numba")
    return {
        "distcorpus": __version__,
        "wire": str(__wire__),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": _installed("scipy"),
        "numba": numba,
        "kernels": ", ".join(f"{name} {kernel.version}" for name, kernel in sorted(KERNELS.items())),
        "machine": platform.machine(),
        "vectors": instructions(),
    }


@cache
def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NONE


def read_build(said: Any) -> dict[str, str]:
    """Return a build that arrived; what it does not say is unknown.

    Raises
    ------
    ValueError
        It is none, or says something that no build says.
    """
    if not isinstance(said, Mapping):
        raise ValueError("a build is a mapping of names to versions")
    for part in PARTS:
        value = said.get(part, "unknown")
        if type(value) is not str or not value.isprintable() or not 0 < len(value) <= _LONGEST:
            raise ValueError(f"its build says no {part} that could be one")
    return {part: said.get(part, "unknown") for part in PARTS}


def contradiction(dispatcher: Mapping[str, str], other: Mapping[str, str], name: str) -> str | None:
    """Say why a process cannot work with a dispatcher, and what to do; None where it can.

    Parameters
    ----------
    dispatcher, other : mapping of str to str
        Their builds.
    name : str
        What to call the other process.
    """
    if all(dispatcher[part] == other[part] for part in _ESSENTIAL):
        return None
    wanted, has = (f"{build['distcorpus']} (wire {build['wire']})" for build in (dispatcher, other))
    return (
        f"{name} has distcorpus {has}, the dispatcher {wanted}: install the same version "
        f"(pip install distcorpus=={dispatcher['distcorpus']}) where {name} runs, and start it again"
    )


def differences(ours: Mapping[str, str], theirs: Mapping[str, str], us: str, them: str) -> list[str]:
    """Say what may give two processes other bits, a sentence's part each.

    A kernel that only one of them has changes no bits: the other computes nothing with it.
    """
    parts = [part for part in _SIGNIFICANT if ours[part] != theirs[part]]
    if "kernels" in parts and _agree(_kernels(ours["kernels"]), _kernels(theirs["kernels"])):
        parts.remove("kernels")
    return [f"{part} {theirs[part]} of {them}, {ours[part]} of {us}" for part in parts]


def _kernels(said: str) -> dict[str, str]:
    pairs = (kernel.rpartition(" ") for kernel in said.split(", "))
    return {name: version for name, _, version in pairs}


def _agree(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    common = ours.keys() & theirs.keys()
    return bool(common) and all(ours[name] == theirs[name] for name in common)

"""Whether arrays that a program may change in place are what they were."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def checksum(*arrays: Any) -> bytes:
    """Return what changes when an entry of an array does, or its type or shape; 0.4 ms a megabyte.

    Another content has the same with a chance of 2**-32. It is not made against those who look for one.
    """
    return b" ".join(_of_one(np.asarray(array)) for array in arrays)


def _of_one(array: np.ndarray) -> bytes:
    content = array.ravel(order="K")  # not copied, where it has no gaps
    return f"{array.dtype.str}{array.shape}{array.strides}{zlib.crc32(content.view(np.uint8).data)}".encode()

"""The kernels that measure documents where they are computed: their squared norm, and their bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.received import keep_plain, whole
from distcorpus.kernels.base import BlockArrays, BlockResults, Key
from distcorpus.kernels.checking import check_array
from distcorpus.kernels.inference import Inference
from distcorpus.kernels.product import BLOCK_NNZ
from distcorpus.kernels.registry import register


@dataclass(frozen=True, slots=True)
class NormParams:
    """The parameters of `SquaredNorm`.

    Attributes
    ----------
    width : int
        Of the rows, of which nothing is wanted.
    """

    width: int = 0

    def __post_init__(self) -> None:
        keep_plain(self, whole, "width")


@register
class SquaredNorm(BlockArrays):
    """The sum of the squared values of each block, correctly rounded: an array of shape (1,)."""

    name: ClassVar[str] = "norm"
    version: ClassVar[int] = 1
    params: ClassVar[type] = NormParams
    limits: ClassVar[Mapping[str, int]] = {"max_nnz": BLOCK_NNZ}
    least_job_cost: ClassVar[float] = 0.0
    counts: ClassVar[bool] = False
    sums: ClassVar[bool] = False

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        """Return the block."""
        return block

    @staticmethod
    def prepare(rows: np.ndarray, params: NormParams, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows, which are empty."""
        return rows

    def __init__(
        self, params: NormParams, words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        super().__init__()

    def add(self, block: Chunk, key: Key) -> None:
        """Measure a block."""
        self._keep(key, np.array([block.squared_norm()]))

    @staticmethod
    def check(
        result: BlockResults, params: NormParams, words: np.ndarray, blocks: Sequence[tuple[Chunk, Key]]
    ) -> None:
        """Refuse what is no norm."""
        for _, key in blocks:
            check_array(f"of block {key}", result.arrays[key], (1,), np.float64)
            if result.arrays[key][0] < 0:
                raise ValueError(f"of block {key}: a negative norm")

    @classmethod
    def warm(cls) -> None:
        """Nothing to do."""


@register
class ChunkBound(Inference):
    """A whole chunk's part of the variational bound, in nats, and the sum of its values: shape (2,).

    Its params have ``bound``.
    """

    name: ClassVar[str] = "chunk-bound"
    limits: ClassVar[Mapping[str, int]] = {}

    def add(self, block: Chunk, key: Key) -> None:
        """Evaluate a chunk."""
        super().add(block, key)
        (nats,) = self._arrays[key]
        self._keep(key, np.array([nats, block.total()]))

    @staticmethod
    def check(
        result: BlockResults, params: Any, words: np.ndarray, blocks: Sequence[tuple[Chunk, Key]]
    ) -> None:
        """Refuse what is no bound, or no sum of counts."""
        for _, key in blocks:
            check_array(f"of block {key}", result.arrays[key], (2,), np.float64)
            if not 0 <= result.arrays[key][1] < math.inf:
                raise ValueError(f"of block {key}: a sum of counts that is none")

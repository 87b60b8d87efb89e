"""The projection of documents on vectors, which LSI's transform is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from distcorpus.algorithms.chunk import Chunk
from distcorpus.kernels.base import BlockArrays, Key


@dataclass(frozen=True, slots=True)
class ProjectionParams:
    """The parameters of `DocumentProjection`.

    Attributes
    ----------
    width : int
        The number of vectors.
    """

    width: int


class DocumentProjection(BlockArrays):
    """The documents of a job's blocks in the space of some vectors.

    The result has for each block an array of shape (n_docs, width). It is not among the kernels that our own
    workers compute: there LSI projects in the client's process.
    """

    name: ClassVar[str] = "projection"
    version: ClassVar[int] = 1
    params: ClassVar[type] = ProjectionParams
    limits: ClassVar[Mapping[str, int]] = {"max_docs": 2000}
    least_job_cost: ClassVar[float] = 0.0
    counts: ClassVar[bool] = False
    sums: ClassVar[bool] = False

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        """Return the block."""
        return block

    @staticmethod
    def prepare(rows: np.ndarray, params: ProjectionParams, out: np.ndarray | None = None) -> np.ndarray:
        """Return the rows of the vectors as they are."""
        return rows

    def __init__(
        self, params: ProjectionParams, words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        super().__init__()
        self._table = table
        self._row_of = table_row

    def add(self, block: Chunk, key: Key) -> None:
        """Project a block; several threads may."""
        rows = self._row_of[block.indices]
        documents = scipy.sparse.csr_array((block.data, rows, block.indptr), (block.n_docs, len(self._table)))
        projected: Any = documents @ self._table
        self._keep(key, projected)

    @classmethod
    def warm(cls) -> None:
        """Nothing to do: nothing is compiled."""

"""The kernel of evaluation: inference, and the documents' part of the variational bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distcorpus.algorithms.chunk import Chunk, positions_of
from distcorpus.algorithms.lda import bound, infer, log_topics, topic_weights
from distcorpus.algorithms.received import flag, keep_plain
from distcorpus.kernels.base import BlockArrays, BlockResults, Key
from distcorpus.kernels.checking import MARGIN, check_array
from distcorpus.kernels.estep import BLOCK_DOCUMENTS, TopicParams
from distcorpus.kernels.registry import register


@dataclass(frozen=True, slots=True, eq=False)
class InferenceParams(TopicParams):
    """The parameters of `Inference`.

    Attributes
    ----------
    bound : bool
        Whether the documents' part of the bound is wanted, and not their gamma.
    """

    bound: bool = False

    def __post_init__(self) -> None:
        TopicParams.__post_init__(self)  # `super()` knows nothing of a class with slots
        keep_plain(self, flag, "bound")


@register
class Inference(BlockArrays):
    """The topics of the documents of a job's blocks, or their part of the variational bound.

    The result has for each block the documents' gamma, shape (n_docs, K), or their part of the bound, shape
    (1,), in nats.

    Parameters
    ----------
    params : InferenceParams
    words : ndarray of int32, shape (n,)
        The terms that occur in the job's blocks, ascending.
    table : ndarray, shape (m, K)
        Rows of lambda.
    table_row : ndarray of int32, shape (num_terms,)
        The row of `table` for each term id; only the entries of `words` are used.
    """

    name: ClassVar[str] = "inference"
    version: ClassVar[int] = 1
    params: ClassVar[type] = InferenceParams
    limits: ClassVar[Mapping[str, int]] = {"max_docs": BLOCK_DOCUMENTS}
    #: Rows are sent once for a whole corpus, and nothing is added up.
    least_job_cost: ClassVar[float] = 0.0
    counts: ClassVar[bool] = True
    sums: ClassVar[bool] = False

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        """Return the block: documents are computed as they come."""
        return block

    @staticmethod
    def prepare(rows: np.ndarray, params: InferenceParams, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows of lambda in the type of the computation."""
        return np.ascontiguousarray(rows, dtype=params.dtype)

    def __init__(
        self, params: InferenceParams, words: np.ndarray, table: np.ndarray, table_row: np.ndarray
    ) -> None:
        super().__init__()
        self._params = params
        self._row_of = positions_of(words, len(table_row))
        rows = np.ascontiguousarray(table[table_row[words]])
        self._weights = topic_weights(rows, params.totals, params.variant)
        self._log_topics = log_topics(rows, params.totals) if params.bound else None

    def add(self, block: Chunk, key: Key) -> None:
        """Infer a block's documents; several threads may.

        Parameters
        ----------
        block : Chunk
            Of the job's words.
        key : tuple of int
            The block's identity, from which its documents' gamma starts.
        """
        params = self._params
        array = infer(
            block,
            self._weights,
            self._row_of,
            params.alpha,
            variant=params.variant,
            iterations=params.iterations,
            gamma_threshold=params.gamma_threshold,
            seed=params.seed,
            key=key,
        )
        if self._log_topics is not None:
            array = np.array([bound(block, self._log_topics, self._row_of, params.alpha, array)])
        self._keep(key, array)

    @staticmethod
    def check(
        result: BlockResults,
        params: InferenceParams,
        words: np.ndarray,
        blocks: Sequence[tuple[Chunk, Key]],
    ) -> None:
        """Refuse what is no gamma of these documents, or no bound."""
        for block, key in blocks:
            array, what = result.arrays[key], f"of block {key}"
            if params.bound:
                check_array(what, array, (1,), np.float64)
                continue
            check_array(what, array, (block.n_docs, params.width), np.dtype(params.dtype))
            if array.size:
                if not array.min() >= 0:
                    raise ValueError(f"{what}: a negative gamma")
                # Without iterations gamma is where it starts, about 1 for each topic.
                prior = block.n_docs * (params.width + float(params.alpha.sum(dtype=np.float64)))
                most = MARGIN * (prior + block.total())
                total = float(array.sum(dtype=np.float64))
                if total > most:
                    raise ValueError(f"{what}: gamma sums to {total:g}, where {most:g} is the most")

    @classmethod
    def warm(cls) -> None:
        """Nothing to do: `EStep.warm` compiles the same loops."""

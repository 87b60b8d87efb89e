"""LSI by the threads of this process, as the model has it, for tests of the factorisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.lsi import Factors
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.training.lsi import LsiTask, train


def lsi(
    chunks: Iterable[Chunk],
    num_terms: int,
    num_topics: int,
    *,
    dtype: str = "float32",
    fold_at: int | None = None,
    **task: Any,
) -> Factors:
    """Factorise a corpus."""
    with ThreadsEngine() as engine:
        return train(engine, LsiTask(num_terms, num_topics, dtype=dtype, **task), chunks, fold_at=fold_at)

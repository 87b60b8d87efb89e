"""The evaluation of a model for a program, which is asked for documents that it only referred to."""

from __future__ import annotations

from typing import Any

from distcorpus.algorithms.chunk import Chunk, Divisible
from distcorpus.dispatcher.supplier import Request
from distcorpus.training.evaluation import Evaluation


class ClientEvaluation(Evaluation):
    """An `Evaluation` whose program puts chunks, or references to them, and takes what is computed."""

    def __init__(self, *evaluation: Any, **session: Any) -> None:
        super().__init__(*evaluation, **session)
        self._wanted: list[Request] = []

    def put(self, chunk: Divisible, *, wait: bool = True) -> None:
        """See `Evaluation.put`; references are taken at once, since a program that waits supplies nobody with
        documents.
        """
        super().put(chunk, wait=wait and isinstance(chunk, Chunk))

    def want(self, request: Request) -> None:
        """Ask the program for documents."""
        self._wanted.append(request)
        self.wake()

    def answer(self) -> dict[str, Any]:
        """Wait for the oldest chunk that was not taken, or for documents being wanted.

        Returns
        -------
        dict
            ``result``, see `take`, or None where it is not there, and ``wanted``, requests for documents.
        """
        self.wait_until(lambda: self._wanted)
        wanted, self._wanted = self._wanted, []
        return {"result": self.take() if self.is_computed() else None, "wanted": wanted}

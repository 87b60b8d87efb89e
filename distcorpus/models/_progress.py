"""What follows a training as it goes: a progress bar, a function, a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from distcorpus.models._report import following, of_model
from distcorpus.models._showing import TrainingLog


class ProgressBar:
    """Shows one bar with documents, rate, time left, updates or rounds, and workers; or calls a function.
    Tells the reports that are being made, too.

    Parameters
    ----------
    model : LdaModel or LsiModel
        With its ``progress``, a bool or callable, and its ``report``, a path or None.
    what : str
        What is trained.
    """

    def __init__(self, model: Any, what: str) -> None:
        progress: bool | Callable[[dict[str, Any]], None] = model.progress
        self._model = model
        self._reports: list[Callable[[dict[str, Any]], None]] = []
        self._log = TrainingLog("products with the corpus" if what == "LSI" else "documents computed")
        self._leaving = ExitStack()
        self._shown = progress is True
        self._call = progress if callable(progress) else None
        self._what = what
        self._bar: Any = None
        self._facts: dict[str, int] = {}
        self._began = 0.0

    def told(self, event: dict[str, Any], passes: int) -> None:
        """Take in an event of the training."""
        for tell in (self._log.told, *self._reports):
            tell(event)
        if self._call is not None:
            self._call(event)
        if not self._shown:
            return
        if event["kind"] == "update":
            if self._bar is None:
                self._bar = self._new_bar(event["of"] * passes if event["of"] is not None else None)
            done = event["pass_"] * (event["of"] or 0) + event["documents"]
            self._bar.update(done - self._bar.n)
        if self._bar is not None:
            self._facts |= {name: event[name] for name in ("updates", "rounds", "workers") if name in event}
            self._bar.set_postfix(self._facts)

    def _new_bar(self, total: int | None) -> Any:
        """Return a bar whose rate counts from when the training began: the first chunk took time too."""
        from tqdm.auto import tqdm

        bar = tqdm(total=total, unit="doc", desc=self._what)
        bar.start_t = bar.last_print_t = self._began
        return bar

    def __enter__(self) -> ProgressBar:
        with ExitStack() as entered:
            entered.enter_context(of_model(self._model))
            self._reports = entered.enter_context(following(self._model, self._what))
            self._leaving = entered.pop_all()
        vars(self._model)["_training_log"] = self._log
        self._began = time.time()  # the clock that tqdm has
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._leaving.__exit__(kind, error, trace)

"""A progress bar over the events of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ProgressBar:
    """Shows one bar with documents, rate, time left, updates or rounds, and workers; or calls a function.

    Parameters
    ----------
    progress : bool or callable
    what : str
        What is trained.
    """

    def __init__(self, progress: bool | Callable[[dict[str, Any]], None], what: str) -> None:
        self._shown = progress is True
        self._call = progress if callable(progress) else None
        self._what = what
        self._bar: Any = None
        self._facts: dict[str, int] = {}

    def told(self, event: dict[str, Any], passes: int) -> None:
        """Take in an event of the training."""
        if self._call is not None:
            self._call(event)
        if not self._shown:
            return
        if event["kind"] == "update":
            if self._bar is None:
                from tqdm.auto import tqdm

                total = event["of"] * passes if event["of"] is not None else None
                self._bar = tqdm(total=total, unit="doc", desc=self._what)
            done = event["pass_"] * (event["of"] or 0) + event["documents"]
            self._bar.update(done - self._bar.n)
        if self._bar is not None:
            self._facts |= {name: event[name] for name in ("updates", "rounds", "workers") if name in event}
            self._bar.set_postfix(self._facts)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

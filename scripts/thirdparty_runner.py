"""Runs tests with our classes in the place of gensim's, for `thirdparty.py`: WAY OUTCOMES PYTEST-ARGUMENT...

It is run by the interpreter of the environment that has the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import gensim.models
import pytest


def replace(original: Any, ours: Any) -> None:
    """Put a class in the place of another wherever gensim has it; what is imported later gets it there."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gensim"):
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, ours)


def distributed(ours: Any) -> Any:
    """Return a subclass whose models are distributed unless they are told otherwise."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        ours.__init__(self, *args, **{"distributed": True, **kwargs})

    made = type(ours.__name__, (ours,), {"__init__": __init__, "__module__": __name__})
    globals()[ours.__name__] = made  # where pickles find it
    return made


class Outcomes:
    """Keeps what became of each test."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """See pytest."""
        if report.when == "call" or not report.passed:
            text = "" if report.passed else f": {str(report.longrepr).strip().splitlines()[-1][:300]}"
            self.found.setdefault(report.nodeid, report.outcome + text)

    def pytest_collectreport(self, report: Any) -> None:
        """See pytest."""
        if not report.passed:
            self.found[report.nodeid] = f"{report.outcome}: {str(report.longrepr)[-300:]}"


def main() -> None:
    """Run the tests."""
    way, path, *arguments = sys.argv[1:]
    cluster: Any = contextlib.nullcontext()
    if way != "gensim":
        import distcorpus

        for name in ("LdaModel", "LsiModel"):
            original, ours = getattr(gensim.models, name), getattr(distcorpus, name)
            replace(original, distributed(ours) if way == "cluster" else ours)
        if way == "cluster":
            cluster = distcorpus.LocalCluster(n_workers=2)
    outcomes = Outcomes()
    start = time.perf_counter()
    with cluster:
        pytest.main(["-q", "-c", os.devnull, "-p", "no:cacheprovider", *arguments], plugins=[outcomes])
    Path(path).write_text(
        json.dumps({"seconds": time.perf_counter() - start, "tests": outcomes.found}), "utf-8"
    )


if __name__ == "__main__":
    main()

"""The tables of docs/models.md are complete, and what they claim is tested."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distcorpus.models import LdaModel, LsiModel

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"


def rows(model):
    """The first and the last cells of the rows of a model's tables."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {model.__name__}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [(cells[1], cells[-2]) for cells in (line.split("|") for line in lines)]


def signature(function):
    return {name for name in inspect.signature(function).parameters if name != "self"}


@pytest.mark.parametrize("model", [LdaModel, LsiModel])
def test_the_tables_have_every_argument(model):
    """Of the constructors and of all public methods, ours and gensim's."""
    documented = {"__init__": set()}
    for cell, _ in rows(model):
        methods = re.findall(r"`(\w+)\(([^)]*)\)`", cell)
        for name, arguments in methods:
            documented.setdefault(name, set()).update(filter(None, arguments.split(", ")))
        if not methods:
            documented["__init__"].update(re.findall(r"`(\w+)`", cell))
    expected = {}
    for kind in (model, model.gensims_class):
        for name, member in inspect.getmembers(kind, inspect.isroutine):
            if not name.startswith("_") or name in ("__init__", "__getitem__"):
                expected.setdefault(name, set()).update(signature(member))
    assert documented == expected


@pytest.mark.long
def test_every_row_names_tests_that_exist():
    cells = [tests for model in (LdaModel, LsiModel) for _, tests in rows(model)]
    named = [re.findall(r"`([^`]+::[^`]+)`", cell) for cell in cells]
    assert all(named)
    wanted = {f"tests/{test}" for tests in named for test in tests}
    files = sorted({test.split("::")[0] for test in wanted})
    options = ["--collect-only", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider"]
    collect = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True)
    collected = set(done.stdout.splitlines())
    whole = {test.split("[")[0] for test in collected}
    assert wanted - collected - whole == set()

"""The benchmark's smallest run, on the corpus that comes with gensim."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "scripts" / "bench.py"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The rows of the table that ``bench.py estep --quick`` prints."""
    pytest.importorskip("sklearn", reason="scikit-learn is a competitor: pip install '.[bench]'")
    # An override that the benchmark has to drop by itself.
    environment = os.environ | {"OPENBLAS_CORETYPE": "Prescott"}
    command = [sys.executable, str(BENCH), "estep", "--quick"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Prescott" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, cells, strict=True)) for cells in body]


def test_each_number_of_topics_has_a_row(rows: list[dict[str, str]]):
    assert [row["K"] for row in rows] == ["20", "100"]


def test_the_statistics_are_those_of_the_reference(rows: list[dict[str, str]]):
    assert all(0 < float(row[column]) < 1e-5 for row in rows for column in ("error", "of gensim's"))


def test_compiled_kernels_are_faster_than_gensim(rows: list[dict[str, str]]):
    assert all(float(row["ours"].removesuffix("x")) > 2 for row in rows)

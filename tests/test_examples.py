"""Every file in examples/ runs, warns of nothing, and prints what it is about."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.long
def test_it_runs(path):
    if "sklearn" in path.read_text("utf-8") and importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert done.stderr == ""


def test_the_list_names_them_all():
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in listed for path in EXAMPLES.glob("*.py"))

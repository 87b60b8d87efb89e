"""The benchmark's smallest run, on the corpus that comes with gensim."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.processes import Watch, cpu_seconds, own_memory

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


@pytest.mark.long
def test_each_number_of_topics_has_a_row(rows: list[dict[str, str]]):
    assert [row["K"] for row in rows] == ["20", "100"]


@pytest.mark.long
def test_the_statistics_are_those_of_the_reference(rows: list[dict[str, str]]):
    assert all(0 < float(row[column]) < 1e-5 for row in rows for column in ("error", "of gensim's"))


@pytest.mark.long
def test_each_competitor_has_a_figure(rows: list[dict[str, str]]):
    competitors = ("ours", "ours, numpy", "scikit-learn")
    assert all(float(row[name].removesuffix("x")) > 0 for row in rows for name in competitors)


def test_what_processes_use_is_seen(tmp_path: Path):
    """CPU seconds, and memory of their own: not a file that they map."""
    file = tmp_path / "large"
    file.write_bytes(bytes(200_000_000))
    program = (
        "import mmap, sys, time\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(mapped[::4096])\n"
        "own = bytearray(100_000_000)\n"
        "while time.process_time() < 0.5: pass\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        watch = Watch()
        watch.also(process.pid, "workers")
        watch.descendants(process.pid, "others")
        with watch:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
        usage = watch.usage()["workers"]
        assert 100e6 < usage.largest <= watch.memory < 180e6
        assert usage.cpu <= cpu_seconds(process.pid)
        assert cpu_seconds(process.pid) > 0.4
        assert own_memory(process.pid) <= usage.largest
        process.communicate("")

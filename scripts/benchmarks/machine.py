"""The machine that is measured: its description, its threads, its speed at a dense product."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import threadpoolctl

#: Overrides of OpenBLAS that would hide what the machine can do.
OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

#: Say how many threads a process's BLAS and OpenMP have, each of them.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

#: Whose versions matter.
PACKAGES = (
    "distcorpus", "numpy", "scipy", "numba", "gensim", "scikit-learn", "tomotopy", "pyspark", "distributed",
    "Pyro4",
)  # fmt: skip


def environment(threads: int) -> dict[str, str]:
    """The variables of this process, without overrides, for a process of so many threads."""
    kept = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
    return kept | dict.fromkeys(THREAD_VARIABLES, str(threads))


def start_again_where_needed() -> None:
    """Replace this process by one with the right variables: BLAS reads them when it is loaded."""
    wanted = environment(threads=1)
    if wanted != dict(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


@contextmanager
def one_core_apart() -> Iterator[set[int]]:
    """Leave a core, which this yields, to others: this process and what it starts have the rest, if any."""
    cores = os.sched_getaffinity(0)
    theirs = {max(cores)}
    os.sched_setaffinity(0, cores - theirs or cores)
    try:
        yield theirs
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def kept_busy(cores: set[int]) -> Iterator[None]:
    """Have something else compute on some cores, as a neighbour may: cores of one machine slow each other."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            os.sched_setaffinity(process.pid, cores)
            yield
        finally:
            process.kill()


def description() -> str:
    """Markdown lines that head each table."""
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    pools = sorted(
        {
            f"{pool['internal_api']} {pool['version'] or ''} ({pool.get('architecture', 'any')}, "
            f"{pool['num_threads']} thread{'s' * (pool['num_threads'] > 1)})"
            for pool in threadpoolctl.threadpool_info()
        }
    )
    return "\n".join(
        [
            f"* {_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB; {platform.system()}",
            f"* Python {platform.python_version()}, {versions}",
            f"* {'; '.join(pools)} in a process of one thread",
        ]
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _processor() -> str:
    """The processor's name, with what tells apart those of one name."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    vectors = "AVX-512" if "avx512f" in facts.get("flags", "") else "no AVX-512"
    return (
        f"{facts.get('model name', platform.processor())} (family {facts.get('cpu family', '?')}, "
        f"model {facts.get('model', '?')}, {vectors})"
    )


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def sgemm_gflops(size: int = 2048, repeats: int = 7) -> float:
    """This process's speed at a float32 matrix product, median, in GFLOP/s."""
    left, right = np.random.default_rng(0).random((2, size, size), dtype=np.float32)
    out = np.empty_like(left)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        np.matmul(left, right, out=out)
        seconds.append(time.perf_counter() - began)
    return 2e-9 * size**3 / statistics.median(seconds)

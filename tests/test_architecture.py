"""Packages import only what the package layout in docs/how-it-works.md allows."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "distcorpus"

#: What each room may import of ours besides itself. A module beside the rooms may import anything.
ALLOWED = {
    "algorithms": set(),
    "wire": set(),
    "corpora": {"algorithms"},
    "kernels": {"algorithms"},
    "engines": {"algorithms", "kernels", "corpora"},
    "training": {"algorithms", "kernels", "corpora", "engines.base"},
    "monitor": {"wire"},
    "dispatcher": {"algorithms", "kernels", "corpora", "training", "engines", "monitor", "wire"},
    "worker": {"algorithms", "kernels", "corpora", "wire"},
    "models": {"algorithms", "kernels", "corpora", "training", "engines", "monitor", "wire"},
    "cli": {
        *("algorithms", "kernels", "corpora", "training", "engines", "models", "dispatcher", "worker"),
        *("monitor", "wire", "demo"),
    },
}

#: What single files may import besides.
ALSO_ALLOWED = {"engines/pyro.py": {"wire"}}

#: Modules from elsewhere that a room (or one file) must not import; the exceptions are single names.
FORBIDDEN = {
    "algorithms": {"Pyro4", "gensim", "serpent", "socket", "threading", "concurrent", "multiprocessing"},
    "kernels": {"Pyro4", "gensim", "socket", "concurrent.futures.ThreadPoolExecutor", "multiprocessing"},
    "training": {"Pyro4", "gensim", "socket", "threading.Thread", "concurrent", "multiprocessing"},
    "engines/schedule.py": {"threading", "socket", "time", "asyncio", "selectors", "queue", "datetime"},
    "engines/states.py": {"threading", "socket", "time", "asyncio", "selectors", "queue", "datetime"},
}
EXCEPTIONS = {"algorithms": {"threading.Lock"}}


def imported(path: Path, root: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, at its top or inside a function.

    Of a plain `import module` these are the attributes that the file uses: `module.attribute`.
    """
    package = [root.name, *path.relative_to(root).parts[:-1]]
    tree = ast.parse(path.read_text("utf-8"))
    used: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.setdefault(node.value.id, set()).add(node.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                attributes = sorted(used.get(alias.asname or alias.name, ()))
                yield from (f"{alias.name}.{attribute}" for attribute in attributes)
                if not attributes:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            # Each dot after the first goes one package up.
            parents = package[: len(package) + 1 - node.level] if node.level else []
            source = [*parents, node.module] if node.module else parents
            yield from (".".join([*source, alias.name]) for alias in node.names)


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def breaches(root: Path) -> list[str]:
    """Every import in a package that the plan does not allow, as `file imports name`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        room = relative.split("/")[0] if "/" in relative else None
        forbidden = FORBIDDEN.get(room or "", set()) | FORBIDDEN.get(relative, set())
        if room != "wire":
            forbidden = forbidden | {"Pyro4"}
        if not relative.startswith("engines/dask"):
            forbidden = forbidden | {"dask", "distributed"}
        for name in imported(path, root):
            if within(name, root.name):
                target = name.removeprefix(f"{root.name}.")
                rooms = {room, "_version", "__version__", "_machine", "_environment", "_text"} | ALLOWED.get(
                    room or "", set()
                )
                rooms |= ALSO_ALLOWED.get(relative, set())
                fine = room is None or any(within(target, allowed) for allowed in rooms if allowed)
            else:
                fine = not any(within(name, module) for module in forbidden) or name in EXCEPTIONS.get(
                    room or "", set()
                )
            if not fine:
                found.append(f"{relative} imports {name}")
    return found


def test_every_import_goes_where_the_plan_allows():
    assert breaches(PACKAGE) == []


def test_every_folder_is_a_room_of_the_plan():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(ALLOWED)


@pytest.mark.parametrize(
    ("file", "line", "breach"),
    [
        ("algorithms/lda.py", "from distcorpus.wire import connect", "distcorpus.wire.connect"),
        ("algorithms/lda.py", "from ..training import session", "distcorpus.training.session"),
        ("algorithms/lda.py", "from .. import cluster", "distcorpus.cluster"),
        ("algorithms/lda.py", "def f():\n    import gensim.matutils", "gensim.matutils"),
        ("algorithms/lda.py", "import threading\nthreading.Thread()", "threading.Thread"),
        ("algorithms/lda.py", "import threading as t\nt.Lock()\nt.Event()", "threading.Event"),
        ("algorithms/lda.py", "from threading import Lock, Thread", "threading.Thread"),
        ("engines/schedule.py", "from time import monotonic", "time.monotonic"),
        ("engines/threads.py", "from distcorpus.wire import connect", "distcorpus.wire.connect"),
        (
            "training/lda.py",
            "from distcorpus.engines.threads import ThreadsEngine",
            "distcorpus.engines.threads.ThreadsEngine",
        ),
        ("training/lda.py", "from threading import Thread", "threading.Thread"),
        (
            "dispatcher/connection.py",
            "from distcorpus.worker.daemon import Worker",
            "distcorpus.worker.daemon.Worker",
        ),
        ("kernels/job.py", "import Pyro4.core", "Pyro4.core"),
        ("models/_engine.py", "from distributed import Client", "distributed.Client"),
        (
            "wire/nameserver.py",
            "from distcorpus.algorithms.chunk import Chunk",
            "distcorpus.algorithms.chunk.Chunk",
        ),
        ("models/lda.py", "from distcorpus import LocalCluster", "distcorpus.LocalCluster"),
        ("cluster.py", "import Pyro4", "Pyro4"),
        ("cli/status.py", "import Pyro4", "Pyro4"),
        ("worker/job.py", "from distcorpus.cli.common import Parser", "distcorpus.cli.common.Parser"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, line: str, breach: str):
    path = tmp_path / "distcorpus" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert breaches(tmp_path / "distcorpus") == [f"{file} imports {breach}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "algorithms/lda.py",
            "from . import chunk\nfrom .chunk import Chunk\nfrom threading import Lock\nimport numba",
        ),
        (
            "algorithms/lda.py",
            "import threading\nlock = threading.Lock()",
        ),
        (
            "dispatcher/connection.py",
            "from distcorpus.algorithms.chunk import Chunk\nfrom ..wire import connect",
        ),
        ("wire/nameserver.py", "import Pyro4.naming\nfrom distcorpus import __version__"),
        ("engines/pyro.py", "import threading, time\nfrom distcorpus.wire import connect"),
        ("training/lda.py", "from distcorpus.engines.base import Engine\nimport threading\nthreading.Lock()"),
        (
            "cli/worker.py",
            "from distcorpus.worker.daemon import Worker\nfrom distcorpus.wire import names",
        ),
        (
            "demo.py",
            "from distcorpus.cli import main\nfrom distcorpus.cluster import LocalCluster",
        ),
    ],
)
def test_what_the_plan_allows_is_no_breach(tmp_path: Path, file: str, line: str):
    path = tmp_path / "distcorpus" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert breaches(tmp_path / "distcorpus") == []


def test_the_mathematics_loads_neither_compiler_nor_gensim():
    """And takes under 0.3 s beyond numpy and scipy: printed, for a loaded machine proves nothing."""
    # A compiled kernel's module has a leading underscore and is imported by the first call that needs it.
    names = sorted(path.stem for path in (PACKAGE / "algorithms").glob("[!_]*.py"))
    program = (
        "import time, sys, numpy, scipy.sparse\n"
        "start = time.perf_counter()\n"
        f"import {', '.join(f'distcorpus.algorithms.{name}' for name in names)}\n"
        "print(time.perf_counter() - start, *(name for name in ('numba', 'gensim') if name in sys.modules))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    print(f"import distcorpus.algorithms: {statistics.median(float(seconds) for seconds, *_ in runs):.3f} s")
    assert [loaded for _, *loaded in runs] == [[], [], []]


def test_no_message_leaves_the_number_open():
    """`_text.plural` says `1 worker` and `2 workers`."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "(s)" in node.value
    ]
    assert found == []

"""Where the compiled kernels are kept."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distcorpus.algorithms import _caching

#: As in a service: neither the install, nor a home, nor a chosen folder can be written to.
NOWHERE = """
from pathlib import Path
from distcorpus.algorithms import _caching
_caching._candidates = lambda: iter([Path("/dev/null/install"), Path("/dev/null/home")])
"""
SUM = """
import numpy as np
from distcorpus.algorithms import summation
assert summation.compiled_kernels() is not None
assert summation.to_steps(np.ones(3), 0.5).tolist() == [2.0] * 3
print(_caching.folder())
"""


def run(program: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_without_a_folder_kernels_go_to_a_private_one(tmp_path):
    folder = Path(run(NOWHERE + SUM, TMPDIR=str(tmp_path)))
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.glob("_sum_kernels.round_to_steps-*.nbi"))


@pytest.mark.long
def test_what_is_compiled_already_is_copied(tmp_path):
    """As in an image: nothing is compiled again."""
    image, elsewhere = tmp_path / "image", tmp_path / "elsewhere"
    run("from distcorpus.algorithms import _caching\n" + SUM, NUMBA_CACHE_DIR=str(image))
    compiled = {file.name: file.read_bytes() for file in image.rglob("*.nb?")}
    assert compiled
    copied = f"""
from pathlib import Path
from distcorpus.algorithms import _caching
_caching._candidates = lambda: map(Path, [{str(elsewhere)!r}, {str(image / "distcorpus")!r}])
from numba.core import event
compilations = event.RecordingListener()
event.register("numba:compile", compilations)
"""
    assert run(copied + SUM + "assert not compilations.buffer") == str(elsewhere)
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir()} == compiled


@pytest.mark.long
def test_what_others_may_write_to_is_not_used(tmp_path):
    """Its files are code; kernels are compiled without a cache then."""
    folder = tmp_path / f"distcorpus-kernels-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    assert run(NOWHERE + SUM, TMPDIR=str(tmp_path)) == "None"
    assert list(folder.iterdir()) == []
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert run(NOWHERE + SUM, TMPDIR=str(tmp_path)) == "None"


@pytest.mark.long
def test_without_any_folder_kernels_are_compiled_without_a_cache():
    """As in a container whose file systems are all read-only, where Python finds no temporary folder."""
    nowhere = """
import tempfile
def none():
    raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir = none
"""
    assert run(NOWHERE + nowhere + SUM) == "None"


def test_a_read_only_install_without_a_home_uses_the_chosen_folder(tmp_path):
    chosen = tmp_path / "chosen"
    program = "from distcorpus.algorithms import _caching\n" + SUM
    assert run(program, NUMBA_CACHE_DIR=str(chosen)) == str(chosen / "distcorpus")
    assert list(chosen.rglob("*.nbi"))


@pytest.mark.long
def test_processes_that_start_at_once_compile_once(tmp_path):
    """Each needs the same kernels and has none: together they compile each once, and none is lost."""
    program = """
import os, sys
from pathlib import Path
from numba.core import event
compilations = event.RecordingListener()
event.register("numba:compile", compilations)
from distcorpus.algorithms import _caching
_caching._candidates = lambda: iter([Path(os.environ["FOLDER"])])
import numpy as np
from distcorpus.algorithms import summation
sys.stdin.read()
for dtype in (np.float32, np.float64):
    summation.to_steps(np.ones(3, dtype), 0.5)
names = [str(event.data["dispatcher"].py_func.__name__) for _, event in compilations.buffer if event.is_start]
print(len(names))
"""
    environment = {**os.environ, "FOLDER": str(tmp_path / "together")}
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.close()
    together = sum(int(process.stdout.read()) for process in processes)
    assert [process.wait() for process in processes] == [0] * 4
    alone = subprocess.run(
        command,
        env={**environment, "FOLDER": str(tmp_path / "alone")},
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    assert together == int(alone.stdout) > 0


@pytest.mark.long
def test_where_no_lock_can_be_had_nobody_waits(tmp_path):
    """As where another user has made the file."""
    (tmp_path / "distcorpus" / "lock").mkdir(parents=True)
    program = (
        "from distcorpus.algorithms import _caching\n_caching._with_copies = lambda folder: folder\n" + SUM
    )
    assert run(program, NUMBA_CACHE_DIR=str(tmp_path)) == str(tmp_path / "distcorpus")
    assert list(tmp_path.rglob("*.nbi"))


FILES = [path.relative_to(_caching.PACKAGE) for room in _caching.ROOMS for path in room.glob("*.py")]


@pytest.mark.parametrize("file", sorted(map(str, FILES)))
def test_a_change_of_any_file_of_a_kernel_makes_it_stale(tmp_path, monkeypatch, file):
    copy = tmp_path / "distcorpus"
    for room in _caching.ROOMS:
        shutil.copytree(room, copy / room.name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_caching, "ROOMS", [copy / room.name for room in _caching.ROOMS])
    before = _caching.source_stamp.__wrapped__()
    assert before == _caching.source_stamp()
    with (copy / file).open("a") as source:
        source.write("\n# changed\n")
    assert _caching.source_stamp.__wrapped__() != before


@pytest.mark.long
def test_warm_says_where_the_kernels_are():
    done = subprocess.run(
        [sys.executable, "-m", "distcorpus", "warm"], capture_output=True, text=True, check=True
    )
    assert str(_caching.folder()) in done.stdout
    assert _caching.is_compiled("_lda_numba.expectation")

"""Run a function in a fresh process, where no state, thread or memory of another run can leak in."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import machine

#: Bytes that a new process takes for a moment.
MEMORY_TOUCHED = 1 << 30

#: Seconds between two looks at the memory of a process and its descendants; a look takes a few milliseconds.
SAMPLE_EVERY = 0.25


class Failed(Exception):
    """The run came to no result; the message says why, in a few words."""


def run(function: Callable[..., Any], *arguments: Any, threads: int = 1, timeout: float | None = None) -> Any:
    """Call a function of a module in a new process.

    Parameters
    ----------
    function : callable
        Of a module of this package.
    *arguments
        Picklable, as must be what it returns.
    threads : int
        Of the process's BLAS and OpenMP.
    timeout : float, optional
        Seconds until the process, and all that it has started, is killed.

    Raises
    ------
    Failed
        If it raised, died, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, function.__module__, function.__qualname__, str(result)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            env=machine.environment(threads) | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        try:
            process.communicate(pickle.dumps(arguments), timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"not finished after {timeout:.0f} s") from None
        finally:
            _kill(process)
        if not result.exists():
            raise Failed(f"its process died (exit code {process.returncode})")
        value, error = pickle.loads(result.read_bytes())
        if error:
            print(error, file=sys.stderr)
            raise Failed(error.strip().splitlines()[-1])
        return value


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has left running; nothing to do where all went well."""
    with suppress(psutil.NoSuchProcess):
        for descendant in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
    process.kill()
    process.wait()


class PeakMemory:
    """The most memory that this process and its descendants had at once, in bytes.

    What processes share counts once (the sum of their proportional set sizes).
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self._stop = threading.Event()

    def _sample(self) -> None:
        process = psutil.Process()
        stopped = False
        while not stopped:
            # The last look is at what there is when the training has ended.
            stopped = self._stop.wait(SAMPLE_EVERY)
            total = 0
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error, ProcessLookupError):
                    total += one.memory_full_info().pss
            self.nbytes = max(self.nbytes, total)


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch the memory while the block runs."""
    peak = PeakMemory()
    sampler = threading.Thread(target=peak._sample, name="memory sampler")
    sampler.start()
    try:
        yield peak
    finally:
        peak._stop.set()
        sampler.join()


def peak_of_process(pid: int | str = "self") -> int:
    """The most memory that a process has had so far (resident, shared pages included), in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory of its own")


def forget_peak(pid: int | str = "self") -> int:
    """Let the peak of a process begin anew, and return it: the memory that the process has now, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_of_process(pid)


def _main(module: str, function: str, path: str) -> None:
    arguments = pickle.loads(sys.stdin.buffer.read())
    # Given back at once: the system then has memory that a virtual machine need not ask its host for, which
    # takes longer than some of what is measured.
    np.ones(MEMORY_TOUCHED, np.uint8)
    value, error = None, ""
    try:
        value = getattr(importlib.import_module(module), function)(*arguments)
    except Exception:
        error = traceback.format_exc()
    Path(f"{path}.part").write_bytes(pickle.dumps((value, error), protocol=5))
    os.replace(f"{path}.part", path)
    sys.stderr.flush()
    # Threads that a competitor has left behind would keep the process.
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])

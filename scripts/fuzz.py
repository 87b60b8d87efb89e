"""Feed forged messages to what reads them: ``python scripts/fuzz.py --minutes 30 --target all``.

A target (see fuzztargets.py) takes bytes, and has to end with a result or with a clear error. Any other
exception, a crash, more than `SECONDS` or more than `MEMORY` bytes for one input is a finding. It is made
shorter and written to a folder; the last lines say how to see it again.

Inputs are real messages, damaged, spliced and rewritten, and for some targets messages that a grammar writes
(see fuzzgrammar.py), whose bounds follow from their size. Those that come to something new are damaged
further: with ``atheris`` (``pip install '.[fuzz]'``) to code that was not reached yet, otherwise to another
error or result.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(["distcorpus"]) if atheris else contextlib.nullcontext():
    from fuzztargets import TARGETS, TOKENS, Target

#: Bounds of one input: seconds of computing, and bytes.
SECONDS = 5.0
MEMORY = 256 << 20
#: Seconds in which an input has to end, however busy the machine is.
PATIENCE = 60.0
LONGEST = 1 << 20
#: The longest of those that are damaged.
LONGEST_DAMAGED = 1 << 16
#: Inputs that are damaged further, at most.
CORPUS = 2000
#: Tries to make a finding shorter.
SHRINKING = 300
#: Seconds between two looks at the process that fuzzes.
POLL = 0.2

# What that process shares with its parent: the number of inputs executed, its most memory in bytes, and the
# length of the present input, which follows.
_HEAD = struct.Struct("QQQ")


class OutOfBounds(BaseException):
    """An input took too long; no Exception, for these are caught by what is fuzzed."""


@dataclass
class Report:
    """What came of one target.

    Attributes
    ----------
    inputs : int
    peak : int
        The most memory that one process had, in bytes.
    findings : list of Path
        Files with inputs, named by what is wrong with them.
    """

    inputs: int
    peak: int
    findings: list[Path]


def wrong_with(target: Target, data: bytes) -> str | None:
    """Execute one input in this process; what is wrong with what it does, or None."""
    return _execute(target, data)[0]


def _execute(target: Target, data: bytes) -> tuple[str | None, str]:
    """What is wrong, or None; and the outcome in words that are the same for inputs of one kind."""
    _forget_peak()
    before = _peak()
    previous = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    wrong = None
    try:
        outcome = target.check(data)
    except target.expected as error:
        outcome = f"{type(error).__name__}: {error}"
    except OutOfBounds:
        wrong = outcome = f"took more than {SECONDS:g} s"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        wrong = outcome = f"{type(error).__name__} in {frame.name}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    if wrong is None and _peak() - before > MEMORY:
        wrong = outcome = f"took more than {MEMORY >> 20} MB"
    if wrong is None and target.bounds is not None:
        wrong = target.bounds.exceeded(target, data)
        outcome = wrong or outcome
    return wrong, re.sub(r"\d+|'[^']*'", "#", outcome)[:120]


def _too_long(number: int, frame: FrameType | None) -> None:
    raise OutOfBounds


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _forget_peak() -> None:
    with suppress(OSError):  # only Linux has it
        Path("/proc/self/clear_refs").write_text("5")


def mutate(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damage a message.

    Parameters
    ----------
    data, other : bytes
        The message, and one of which parts may be taken.
    chance : random.Random
    """
    changed = bytearray(data)
    for _ in range(1 + int(chance.expovariate(0.5))):
        start = chance.randrange(len(changed) + 1)
        stop = min(len(changed), start + int(chance.expovariate(0.1)))
        kind = chance.randrange(8)
        if kind == 0:
            changed[start:stop] = b""
        elif kind == 1:
            changed[start:start] = changed[start:stop] * chance.choice((1, 2, 50))
        elif kind == 2:
            changed[start:stop] = chance.choice(TOKENS)
        elif kind == 3:
            changed[start:start] = chance.choice(TOKENS)
        elif kind == 4:
            where = chance.randrange(len(other) + 1)
            changed[start:stop] = other[where : where + int(chance.expovariate(0.05))]
        elif kind == 5:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice((0, 1, -1, 1 << 8 * size - 1, chance.getrandbits(8 * size)))
            order = "little" if chance.random() < 0.5 else "big"
            number += chance.randrange(-2, 3)
            changed[start : start + size] = (number % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]
        elif start < len(changed):
            changed[start] = chance.randrange(256) if kind == 6 else changed[start] ^ 1 << chance.randrange(8)
    return bytes(changed[:LONGEST_DAMAGED])


class _Record:
    """What a process that fuzzes leaves behind, however it ends."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _HEAD.size + LONGEST)
        self.put(0, 0, b"")

    def put(self, inputs: int, peak: int, data: bytes) -> None:
        _HEAD.pack_into(self._shared, 0, inputs, peak, len(data))
        self._shared[_HEAD.size : _HEAD.size + len(data)] = data

    def get(self) -> tuple[int, int, bytes]:
        inputs, peak, length = _HEAD.unpack_from(self._shared)
        return inputs, peak, self._shared[_HEAD.size : _HEAD.size + length]


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> Report:
    """Fuzz one target for some time, in processes of its own.

    Parameters
    ----------
    name : str
        Of the target.
    seconds : float
    seed : int
        Decides what the inputs are.
    folder : Path
        For the findings.
    """
    report = Report(0, 0, [])
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        record = _Record()
        pid = _fork(_fuzz_here, name, left, seed, record, folder)
        ended_by = _watch(pid, record)
        inputs, peak, data = record.get()
        report.inputs += inputs
        report.peak = max(report.peak, peak)
        seed += 1
        if ended_by:
            shorter = _shortened(data, lambda data: _watch(_fork(_try, name, data)) is not None, 30)
            _keep(folder, name, ended_by, shorter)
    report.findings = sorted(folder.glob(f"{name}-*"))
    return report


def _fork(run: Callable[..., None], *arguments: Any) -> int:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            run(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _watch(pid: int, record: _Record | None = None) -> str | None:
    """Wait for a process that executes inputs; returns what was wrong, where one of them ended it."""
    inputs, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code:
                return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            return None
        now = record.get()[0] if record is not None else 0
        if now != inputs:
            inputs, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:  # it waits, or is compiled code, which heeds no timer
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "does not end"
        time.sleep(POLL if record is not None else POLL / 10)


def _try(name: str, data: bytes) -> None:
    _execute(TARGETS[name](), data)


def _fuzz_here(name: str, seconds: float, seed: int, record: _Record, folder: Path) -> None:
    """Execute inputs until the time is over."""
    target = TARGETS[name]()
    chance = random.Random(seed)
    inputs = 0
    outcomes: set[str] = set()
    corpus = list(target.seeds)

    def execute(data: bytes) -> None:
        nonlocal inputs
        record.put(inputs, _peak(), data)
        wrong, outcome = _execute(target, data)
        if wrong is not None and wrong.startswith("took"):
            wrong, outcome = _execute(target, data)  # it may have been the first to use something
        inputs += 1
        if wrong is not None and _keep(folder, name, outcome, data):
            kind = outcome
            _keep(folder, name, kind, _shortened(data, lambda data: _execute(target, data)[1] == kind))
        if outcome not in outcomes and len(corpus) < CORPUS:
            outcomes.add(outcome)
            corpus.append(data)

    for data in target.seeds:
        execute(data)
    deadline = time.monotonic() + seconds
    for attack in chance.sample(target.attacks, len(target.attacks)):
        if time.monotonic() < deadline:
            execute(attack())
    seconds = max(0.0, deadline - time.monotonic())
    if atheris:
        _fuzz_by_coverage(execute, target, seconds, seed)
    while time.monotonic() < deadline:
        if target.generate is not None and chance.random() < 0.75:
            execute(target.generate(chance)[:LONGEST])
        else:
            execute(mutate(chance.choice(corpus), chance.choice(corpus), chance))


def _fuzz_by_coverage(execute: Callable[[bytes], None], target: Target, seconds: float, seed: int) -> None:
    """Let atheris choose the inputs; it ends the process."""

    def mutated(data: bytes, most: int, number: int) -> bytes:
        chance = random.Random(number)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        if target.generate is not None and chance.random() < 0.75:
            return target.generate(chance)[:most]
        return mutate(data, chance.choice(target.seeds), chance)[:most]

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(data)
        options = [f"-seed={seed}", f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST}"]
        # The bounds are ours.
        options += ["-rss_limit_mb=0", "-timeout=3600", "-verbosity=0", f"-artifact_prefix={corpus}/"]
        atheris.Setup([sys.argv[0], *options, corpus], execute, custom_mutator=mutated)
        atheris.Fuzz()


def _keep(folder: Path, name: str, kind: str, data: bytes) -> bool:
    """Write a finding to the folder, unless a shorter one of its kind is there."""
    words = re.sub(r"\W+", "-", kind)[:80].strip("-")
    path = folder / f"{name}-{words}"
    if path.exists() and path.stat().st_size <= len(data):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _shortened(data: bytes, fails: Callable[[bytes], bool], tries: int = SHRINKING) -> bytes:
    """The shortest part of an input, found by leaving out pieces, that is still wrong."""
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data):
            if not tries:
                return data
            tries -= 1
            shorter = data[:start] + data[start + size :]
            if fails(shorter):
                data = shorter
            else:
                start += size
        size //= 2
    return data


def main() -> int:
    """Run from the command line; 1 where something was found."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="in all (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="decides the inputs (default: %(default)s)")
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), metavar="FOLDER")
    parser.add_argument("--show", type=Path, metavar="FILE", help="execute one finding, of the --target")
    options = parser.parse_args()
    if options.show is not None:
        TARGETS[options.target]().check(options.show.read_bytes())
        return 0
    names = [*TARGETS] if options.target == "all" else [options.target]
    print(f"{'with atheris' if atheris else 'without atheris'}, seed {options.seed}")
    found = 0
    for name in names:
        report = fuzz(name, 60 * options.minutes / len(names), options.seed, options.findings)
        found += len(report.findings)
        print(
            f"{name}: {report.inputs:,} inputs, {len(report.findings)} findings, "
            f"peak memory {report.peak >> 20} MB",
            flush=True,
        )
        for path in report.findings:
            print(f"  python scripts/fuzz.py --target {name} --show '{path}'")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Megabytes a second over loopback: our frames and our restricted pickle against stock Pyro4."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import isolated, report
from benchmarks.report import Result

NOTE = """\
One call with a float32 array as its argument (there) and one that returns such an array (back), over
loopback, from one process to another, both fresh. Stock Pyro4 has its pickle serializer. Ours are the
restricted pickle, which gensim's unmodified classes use towards our dispatcher, and the frames between
processes of ours; both in daemons as the cluster starts them, and both again with mutual TLS (1.3; both
ends of the encryption share this machine's cores). A megabyte is 10^6 bytes."""

#: Interleaved runs of a full measurement; each calls several times.
REPEATS = 5

#: Calls of each kind in a run; one more comes before.
CALLS = 10

KINDS = {
    "Pyro4, pickle": "stock",
    "ours, pickle": "pickle",
    "ours, frames": "frames",
    "ours, pickle, TLS": "pickle+tls",
    "ours, frames, TLS": "frames+tls",
}
REFERENCE = "Pyro4, pickle"

SIZES = (3_000_000, 50_000_000)


class Sink:
    """What the server offers."""

    def __init__(self) -> None:
        self._arrays = {nbytes: np.ones(nbytes // 4, np.float32) for nbytes in SIZES}

    def take(self, array: np.ndarray) -> int:
        return array.nbytes

    def give(self, nbytes: int) -> np.ndarray:
        return self._arrays[nbytes]


def serve(kind: str, folder: str) -> None:
    """Serve a `Sink`, print its URI, and end with the standard input; `folder` is for certificates."""
    if kind == "stock":
        import Pyro4

        Pyro4.config.SERIALIZERS_ACCEPTED = {"pickle"}
        daemon = Pyro4.Daemon("127.0.0.1")
        uri = str(daemon.register(Pyro4.expose(Sink)()))
        print(uri, flush=True)
        threading.Thread(target=daemon.requestLoop, daemon=True).start()
    else:
        from distcorpus import wire

        wire.share_freed_memory()
        credentials = wire.Credentials(_certificate(folder, "worker")) if kind.endswith("+tls") else None
        ours = wire.Daemon("127.0.0.1", credentials=credentials)
        print(ours.serve(wire.names.worker("sink"), wire.expose(Sink)()), flush=True)
        ours.start()
    sys.stdin.read()
    os._exit(0)


def _certificate(folder: str, role: str) -> Path:
    """Issue a certificate; the first one makes the authority."""
    from distcorpus.wire import certificates

    with suppress(FileExistsError):
        certificates.make_authority(folder)
    return certificates.issue(folder, role, ["127.0.0.1"])


@contextmanager
def _server(kind: str, folder: str) -> Iterator[str]:
    command = [sys.executable, "-c", f"from benchmarks.wire import serve; serve({kind!r}, {folder!r})"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def _proxy(kind: str, uri: str, folder: str) -> Any:
    if kind == "stock":
        import Pyro4

        Pyro4.config.SERIALIZER = "pickle"
        return Pyro4.Proxy(uri)
    from distcorpus import wire

    wire.share_freed_memory()
    if kind.endswith("+tls"):
        wire.use_tls(_certificate(folder, "dispatcher"))
    return wire.connect(uri, serializer=kind.removesuffix("+tls"))


def measure(kind: str, sizes: tuple[int, ...], calls: int) -> dict[tuple[int, str], float]:
    """Median seconds of a call for each size and direction."""
    medians = {}
    with TemporaryDirectory() as folder, _server(kind, folder) as uri:
        proxy = _proxy(kind, uri, folder)
        for nbytes in sizes:
            array = np.ones(nbytes // 4, np.float32)
            for direction, call, argument in (("there", proxy.take, array), ("back", proxy.give, nbytes)):
                seconds = []
                for _ in range(calls + 1):
                    began = time.perf_counter()
                    call(argument)
                    seconds.append(time.perf_counter() - began)
                medians[nbytes, direction] = statistics.median(seconds[1:])
    return medians


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    calls = 2 if quick else CALLS
    runs: dict[str, list[dict[tuple[int, str], float]]] = {name: [] for name in KINDS}
    for _ in range(repeats):
        for name, kind in KINDS.items():
            runs[name].append(isolated.run(measure, kind, SIZES, calls))
    cases = [(nbytes, direction) for nbytes in SIZES for direction in ("there", "back")]
    rows = []
    for name, measured in runs.items():
        cells = []
        for case in cases:
            seconds = [one[case] for one in measured]
            reference = [one[case] for one in runs[REFERENCE]]
            speed = case[0] / 1e6 / statistics.median(seconds)
            cells.append(f"{speed:,.0f} ({report.ratio(reference, seconds)})")
        rows.append([name, *cells])
    columns = [f"{nbytes / 1e6:.0f} MB {direction}" for nbytes, direction in cases]
    return Result(report.table(["MB/s", *columns], rows))

"""How long training runs take while dashboards watch their cluster, beside the same cluster unwatched."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import chaos
import corpora

from benchmarks import machine, report
from benchmarks.processes import cpu_seconds
from benchmarks.report import Result
from distcorpus import LocalCluster

NOTE = """\
Our models of 20 Newsgroups on a cluster of this machine with two workers, trained unwatched and, in turn,
while ten dashboards look at the cluster every second. The dashboards have a core to themselves, as if they
were elsewhere; the cluster and the program have the others, unwatched too. CPU seconds are those of the
dispatcher and the workers during a training, seconds those of the clock."""

DASHBOARDS = 10

#: Training runs of each kind in a full measurement.
REPEATS = 7


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    dictionary, documents = corpora.bow(corpora.lee() if quick else corpora.newsgroups())
    passes = 2 if quick else 20
    trainings = chaos.ours(dictionary, list(documents), topics=100, chunksize=2000, passes=passes)
    seconds: dict[tuple[str, bool], list[float]] = {}
    used: dict[tuple[str, bool], list[float]] = {}
    with machine.one_core_apart() as theirs, LocalCluster(2) as cluster:
        pids = [cluster.dispatcher_pid, *(worker.pid for worker in cluster.workers)]
        results = {model: train() for model, train in trainings.items()}

        def train_all(watched: bool) -> None:
            for model, train in trainings.items():
                before, began = sum(map(cpu_seconds, pids)), time.perf_counter()
                assert train() == results[model], f"{model} came to other bytes"
                seconds.setdefault((model, watched), []).append(time.perf_counter() - began)
                used.setdefault((model, watched), []).append(sum(map(cpu_seconds, pids)) - before)

        for _ in range(repeats):
            train_all(watched=False)
            with dashboards(cluster, theirs):
                train_all(watched=True)
    rows = []
    for model in trainings:
        cells = [model]
        for measured in (seconds, used):
            alone, watched = measured[model, False], measured[model, True]
            change = statistics.median(watched) / statistics.median(alone) - 1
            cells += [report.seconds(alone), report.seconds(watched), f"{change:+.1%}"]
        rows.append(cells)
    columns = ["model", "unwatched, s", "watched, s", "difference"]
    columns += ["unwatched, CPU s", "watched, CPU s", "difference"]
    return Result(report.table(columns, rows))


@contextmanager
def dashboards(cluster: LocalCluster, cores: set[int]) -> Iterator[None]:
    """Dashboards that look at the cluster, each a process of its own on these cores."""
    environment = os.environ | cluster.environ()
    host, port = environment["PYRO_NS_HOST"], environment["PYRO_NS_PORT"]
    command = [sys.executable, "-m", "distcorpus", "dashboard", "--bind", "127.0.0.1:0"]
    command += ["--host", host, "--port", port, "--no-broadcast", "--until-eof"]
    with ExitStack() as stack:
        started = []
        for _ in range(DASHBOARDS):
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            os.sched_setaffinity(process.pid, cores)
            stack.enter_context(process)
            assert process.stdin is not None
            stack.callback(process.stdin.close)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            if not any(line.startswith("dashboard at ") for line in process.stdout):
                raise RuntimeError(f"a dashboard has ended with exit code {process.wait()}")
        yield

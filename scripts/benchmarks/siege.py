"""How long training runs take on a cluster under siege, beside the same cluster in peace."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import chaos
import corpora
import siege

from benchmarks import machine, report
from benchmarks.report import Result
from distcorpus import LocalCluster

NOTE = """\
gensim's own models of 20 Newsgroups on a cluster of this machine with two workers, trained in peace and, in
turn, while another process on this machine attacks every daemon at once. "Bad peers": 1,000 idle
connections, slow senders in handshakes and in messages, headers that claim 2 GiB, garbage and truncated
frames. "Small messages": those that ask for a crash, or for much memory or time, by few bytes. "All": both,
smuggled code, forged documents, decompression bombs, hostile names and replays as well. The attackers have
a core to themselves, as if they were elsewhere; the cluster and the program have the others. In peace that
core is kept busy with something else, as cores of one machine slow each other."""

SIEGES = {
    "bad peers": ("idle_connections", "slow_handshakes", "slow_messages", "lying_headers", "garbage"),
    "small messages": ("small_messages", "small_documents", "claims"),
    "all": tuple(siege.ATTACKS),
}

#: Training runs of each kind in a full measurement.
REPEATS = 5


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    dictionary, documents = corpora.bow(corpora.lee() if quick else corpora.newsgroups())
    trainings = chaos.gensims(dictionary, documents, topics=100, chunksize=500, passes=2 if quick else 10)
    seconds: dict[tuple[str, str], list[float]] = {}
    made = dict.fromkeys(SIEGES, 0)
    with (
        machine.one_core_apart() as theirs,
        LocalCluster(2) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        results = {model: train() for model, train in trainings.items()}

        def train_all(when: str) -> None:
            for model, train in trainings.items():
                began = time.perf_counter()
                assert train() == results[model], f"{model} came to other bytes {when}"
                seconds.setdefault((model, when), []).append(time.perf_counter() - began)

        for _ in range(repeats):
            with machine.kept_busy(theirs):
                train_all("in peace")
            for name, attacks in SIEGES.items():
                with siege.Siege(cluster, Path(folder, "witness"), attacks, theirs) as laid:
                    train_all(name)
                made[name] += sum(laid.made.values())
    rows = []
    for model in trainings:
        peace = seconds[model, "in peace"]
        cells = [model, report.seconds(peace)]
        for name in SIEGES:
            change = statistics.median(seconds[model, name]) / statistics.median(peace) - 1
            cells += [report.seconds(seconds[model, name]), f"{change:+.0%}"]
        rows.append(cells)
    columns = ["model", "in peace, s"]
    for name in SIEGES:
        columns += [f"{name}, s", "difference"]
    counts = ", ".join(f"{count:,} ({name})" for name, count in made.items())
    return Result(f"{report.table(columns, rows)}\n\n* attacks made meanwhile: {counts}")

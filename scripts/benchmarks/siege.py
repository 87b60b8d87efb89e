"""How long trainings take on a cluster under siege, beside the same cluster in peace."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import chaos
import corpora
import siege

from benchmarks import report
from benchmarks.report import Result
from distcorpus import LocalCluster

NOTE = """\
gensim's own models of 20 Newsgroups on a cluster of this machine with two workers, trained in peace and, in
turn, while another process on this machine attacks every daemon at once: 1,000 idle connections, slow senders
in handshakes and in messages, headers that claim 2 GiB, garbage and truncated frames, smuggled code, forged
documents, decompression bombs, hostile names, replays. The attackers' own computing is included: they share
the machine's cores."""

#: Pairs of trainings in a full measurement.
REPEATS = 5


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    dictionary, documents = corpora.bow(corpora.lee() if quick else corpora.newsgroups())
    trainings = chaos.gensims(dictionary, documents, topics=100, chunksize=500, passes=2 if quick else 10)
    seconds: dict[tuple[str, str], list[float]] = {}
    attacks = 0
    with LocalCluster(2) as cluster, tempfile.TemporaryDirectory() as folder:
        results = {model: train() for model, train in trainings.items()}

        def train_all(when: str) -> None:
            for model, train in trainings.items():
                began = time.perf_counter()
                assert train() == results[model], f"{model} came to other bytes {when}"
                seconds.setdefault((model, when), []).append(time.perf_counter() - began)

        for _ in range(repeats):
            train_all("in peace")
            with siege.Siege(cluster, Path(folder, "witness")) as laid:
                train_all("under siege")
            attacks += sum(laid.made.values())
    rows = []
    for model in trainings:
        peace, war = (seconds[model, when] for when in ("in peace", "under siege"))
        change = statistics.median(war) / statistics.median(peace) - 1
        rows.append([model, report.seconds(peace), report.seconds(war), f"{change:+.0%}"])
    columns = ["model", "in peace, s", "under siege, s", "difference"]
    return Result(f"{report.table(columns, rows)}\n\n* {attacks:,} attacks were made meanwhile")

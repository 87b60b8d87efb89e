"""Held-out perplexity against seconds of training: what a schedule, an algorithm or more iterations buy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks import data, heldout, isolated, report, trainers
from benchmarks.isolated import Failed
from benchmarks.report import Result
from benchmarks.trainers import Training

NOTE = """\
LDA with 100 topics on nine tenths of 20 Newsgroups, on two cores: gensim's `LdaMulticore` with two
workers, scikit-learn with two jobs, tomotopy with two threads, ours on a cluster of one worker with two
threads. Each point is a training of its own from the beginning (tomotopy's go on from one another: pausing
costs it nothing), so the seconds are those that a user waits. The perplexity is that of `train`'s one
evaluator. "Default" is gensim's schedule and priors (scikit-learn's: its own). Where other settings are
written out, they are the chunk size and the decay of the learning rate, then alpha of each topic and eta
of each term, then `gamma_threshold`; they were chosen on this corpus."""

#: Interleaved runs of a full measurement.
REPEATS = 1

#: Seconds after which a training counts as one that does not end.
TIME_LIMIT = 300.0

REFERENCE = "tomotopy"


@dataclass(frozen=True)
class Schedule:
    """A curve: a competitor with settings of its own, and the passes (or iterations) of its training runs."""

    label: str
    train: Callable[..., list[Training]]
    lengths: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _ours(label: str, lengths: tuple[int, ...], **options: Any) -> Schedule:
    return Schedule(f"ours, {label}", trainers.cluster_lengths, lengths, options)


#: Chunks of which each of two threads gets a block, and a learning rate that falls faster than by default.
FASTER = {"chunksize": 1000, "decay": 0.7}

#: CVB0 with more updates, and documents that are left when they have nearly converged.
FASTEST = {"inference": "cvb0", "chunksize": 500, "decay": 0.8, "gamma_threshold": 0.01}

FEW, MANY = (1, 2, 4, 8), (1, 2, 3, 4, 8, 16)

SCHEDULES = [
    Schedule("gensim, default", trainers.gensim_lengths, (1, 2, 4)),
    Schedule("scikit-learn, default", trainers.scikit_learn_lengths, (1, 2, 4)),
    Schedule(REFERENCE, trainers.tomotopy_lengths, (10, 20, 50, 100, 150, 200)),
    _ours("VB, default", FEW),
    _ours("VB, 1000/0.7, 0.1/0.1", FEW, alpha=0.1, eta=0.1, **FASTER),
    _ours("VB, 1000/0.7, learnt/0.1", FEW, alpha="auto", eta=0.1, **FASTER),
    _ours("CVB0, 500/0.8, 0.05/0.02, 0.01", MANY, alpha=0.05, eta=0.02, **FASTEST),
    _ours("CVB0, 500/0.8, learnt/0.02, 0.01", MANY, alpha="auto", eta=0.02, **FASTEST),
]


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    num_topics = 20 if quick else 100
    split = data.split_newsgroups(quick)
    completion = heldout.halve(split.held_out, len(split.dictionary))
    seconds: dict[str, list[list[float]]] = {}
    perplexities: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    for _ in range(repeats):
        for schedule in SCHEDULES:
            lengths = schedule.lengths[:2] if quick else schedule.lengths
            arguments = (quick, num_topics, lengths, schedule.options)
            try:
                done = isolated.run(schedule.train, *arguments, timeout=len(lengths) * TIME_LIMIT)
            except Failed as error:
                failures[schedule.label] = str(error)
                continue
            seconds.setdefault(schedule.label, []).append([training.seconds for training in done])
            perplexities[schedule.label] = [
                heldout.perplexity(training.model["topics"], completion) for training in done
            ]
    curves = [
        (label, list(zip(map(statistics.median, zip(*runs, strict=True)), perplexities[label], strict=True)))
        for label, runs in seconds.items()
    ]
    lines = [f"* No result: {label}: {why}" for label, why in failures.items()]
    text = "\n\n".join([_points(curves), *lines, _sooner(dict(curves))])
    axes = "seconds, two cores", "held-out perplexity"
    return Result(text, {"curves": lambda path: report.draw_curves(path, curves, *axes)})


def _points(curves: list[tuple[str, list[tuple[float, float]]]]) -> str:
    lengths = {schedule.label: schedule.lengths for schedule in SCHEDULES}
    rows = [
        [label, str(length), report.seconds([seconds]), f"{perplexity:.0f}"]
        for label, points in curves
        for length, (seconds, perplexity) in zip(lengths[label], points, strict=False)
    ]
    return report.table(["", "passes or iterations", "seconds", "perplexity"], rows)


def _sooner(curves: dict[str, list[tuple[float, float]]]) -> str:
    """How much sooner our best curve reaches each perplexity of tomotopy's."""
    rows = []
    for length, (seconds, perplexity) in zip(_reference_lengths(), curves[REFERENCE], strict=False):
        reaching = [
            (ours, label)
            for label, points in curves.items()
            if label.startswith("ours")
            for ours, reached in points
            if reached <= perplexity
        ]
        ours, label = min(reaching, default=(None, "none of ours gets there"))
        cells = ["", ""] if ours is None else [report.seconds([ours]), report.ratio([seconds], [ours])]
        rows.append([label, str(length), f"{perplexity:.0f}", report.seconds([seconds]), *cells])
    columns = ["first of ours", "tomotopy's iterations", "perplexity", "seconds", "ours, seconds", "sooner"]
    return report.table(columns, rows)


def _reference_lengths() -> tuple[int, ...]:
    return next(schedule.lengths for schedule in SCHEDULES if schedule.label == REFERENCE)

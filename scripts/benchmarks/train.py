"""LDA and LSI end to end: ours on clusters of this machine and on Dask, gensim's three modes, scikit-learn,
tomotopy, Spark."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import data, heldout, isolated, lsi, report, trainers
from benchmarks.isolated import Failed
from benchmarks.report import Result
from benchmarks.trainers import Training

NOTE = """\
20 Newsgroups in a fixed random order, as lists of (id, count) pairs, from the constructor's call to the
trained model; gensim's defaults, with `eval_every=None`. LDA: one pass over the nine tenths that are not
held out, chunks of 2,000. LSI: 200 topics, all documents with TF-IDF, chunks of 20,000. scikit-learn
(which gets a CSR matrix) has gensim's chunks, schedule, iterations and priors; tomotopy (whose documents
are loaded beforehand) has its own defaults. Spark (whose documents are in its executor's memory beforehand)
has gensim's chunks, drawn at random, its schedule and priors. Spark, tomotopy and gensim's distributed mode
are run once, and with 400 and 1,000 topics each is.

Each run is a fresh process that has trained on a few documents before; clusters, ours and gensim's own,
are up already. "Cores" are the processes that compute times their threads; each has one BLAS thread a core
of its own. Clients, name servers and dispatchers (whose threads, for LSI, are as many as the machine's cores)
are not counted; they share the machine's cores.

The perplexity is that of one evaluator for all: of each held-out document it observes half the words,
infers the topics by the same routine with the same prior, and scores the other half. "Worst" is the
largest relative error of a singular value. Memory is the peak of all processes of a run together, what
they share counted once, the corpus in the client included."""

#: Interleaved runs of a full measurement.
REPEATS = 3

#: Seconds after which a run counts as one that does not end.
TIME_LIMIT = 600.0

#: A worker's processes and threads.
CLUSTERS = ((1, 1), (1, 2), (2, 1))

REFERENCE = "gensim, serial"


@dataclass(frozen=True)
class Entry:
    """A competitor: how it is trained, on how many cores, and how often at the most."""

    name: str
    cores: int
    train: Callable[..., Training]
    options: tuple[object, ...] = ()
    #: Of each process's BLAS and OpenMP.
    threads: int = 1
    at_most: int = 1_000


def _clustered(train: Callable[..., Training]) -> list[Entry]:
    entries = []
    for models, what in (("gensim.models", "gensim's class"), ("distcorpus.models", "our class")):
        for workers, threads in CLUSTERS:
            where = f"{workers} worker{'s' * (workers > 1)}" + f" of {threads} threads" * (threads > 1)
            entries.append(
                Entry(f"ours, {what}, {where}", workers * threads, train, (models, workers, threads), threads)
            )
    return entries


LDA = [
    Entry(REFERENCE, 1, trainers.gensim_lda),
    Entry("gensim LdaMulticore, 1 worker", 1, trainers.gensim_lda, (1,)),
    Entry("gensim LdaMulticore, 2 workers", 2, trainers.gensim_lda, (2,)),
    Entry("gensim distributed, 2 workers", 2, trainers.gensim_distributed_lda, (2,), at_most=1),
    Entry("scikit-learn, online", 1, trainers.scikit_learn_lda, (1,)),
    Entry("scikit-learn, online, 2 jobs", 2, trainers.scikit_learn_lda, (2,)),
    Entry("tomotopy, 50 iterations", 1, trainers.tomotopy_lda, (50, 1), at_most=1),
    Entry("tomotopy, 50 iterations, 2 threads", 2, trainers.tomotopy_lda, (50, 2), at_most=1),
    Entry("Spark MLlib, online, 2 cores", 2, trainers.spark_lda, (2,), at_most=1),
    *_clustered(trainers.cluster_lda),
    Entry("ours, our class, Dask, 2 workers", 2, trainers.dask_lda, (2,)),
    Entry("ours, our class, no cluster, 1 thread", 1, trainers.serial_lda),
    Entry("ours, our class, no cluster, 2 threads", 2, trainers.serial_lda, threads=2),
]

LSI = [
    Entry(REFERENCE, 1, trainers.gensim_lsi),
    Entry("gensim distributed, 2 workers", 2, trainers.gensim_distributed_lsi, (2,), at_most=1),
    Entry("scikit-learn TruncatedSVD", 1, trainers.scikit_learn_lsi),
    *_clustered(trainers.cluster_lsi),
    Entry("ours, our class, Dask, 2 workers", 2, trainers.dask_lsi, (2,)),
    Entry("ours, our class, no cluster, 1 thread", 1, trainers.serial_lsi),
    Entry("ours, our class, no cluster, 2 threads", 2, trainers.serial_lsi, threads=2),
]

#: More topics, for those that are told apart by them.
MANY_TOPICS = (400, 1000)
LDA_OF_MANY = [
    replace(entry, at_most=1)
    for entry in LDA
    if entry.name == REFERENCE or entry.name.startswith(("scikit-learn, online", "ours, our class"))
]


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    limit = 30.0 if quick else TIME_LIMIT
    num_topics = 20 if quick else 100
    split = data.split_newsgroups(quick)
    completion = heldout.halve(split.held_out, len(split.dictionary))

    def judge_lda(training: Training) -> str:
        return f"{heldout.perplexity(training.model['topics'], completion):.0f}"

    k = 50 if quick else 200
    exact = lsi.exact(quick, k)

    def judge_lsi(training: Training) -> str:
        return f"{lsi.accuracy(training.model['u'], training.model['s'], *exact).worst:.1e}"

    parts = []
    many_topics = () if quick else MANY_TOPICS
    for title, entries, topics, judge, criterion in (
        ("LDA", LDA, num_topics, judge_lda, "perplexity"),
        *(("LDA", LDA_OF_MANY, many, judge_lda, "perplexity") for many in many_topics),
        ("LSI", LSI, k, judge_lsi, "worst"),
    ):
        trainings, failures = _train_all(entries, (quick, topics), repeats, limit)
        rows = _rows([entry for entry in entries if entry.name in trainings], trainings, judge)
        columns = ["", "cores", "seconds", "faster", criterion, "peak, MB"]
        parts.append(f"### {title}, {topics} topics\n\n{report.table(columns, rows)}")
        parts += [f"* No result: {name}: {why}" for name, why in failures.items()]
        parts.append(_costs(trainings))
    return Result("\n\n".join(parts))


def _train_all(
    entries: Sequence[Entry], arguments: tuple[object, ...], repeats: int, limit: float
) -> tuple[dict[str, list[Training]], dict[str, str]]:
    trainings: dict[str, list[Training]] = {}
    failures: dict[str, str] = {}
    for number in range(repeats):
        for entry in entries:
            if entry.name in failures or number >= entry.at_most:
                continue
            try:
                done = isolated.run(
                    entry.train, *arguments, *entry.options, threads=entry.threads, timeout=limit
                )
            except Failed as error:
                failures[entry.name] = str(error)
            else:
                trainings.setdefault(entry.name, []).append(done)
    return trainings, failures


def _rows(
    entries: Sequence[Entry],
    trainings: dict[str, list[Training]],
    judge: Callable[[Training], str],
) -> list[list[str]]:
    rows = []
    reference = [training.seconds for training in trainings[REFERENCE]]
    for entry in entries:
        done = trainings[entry.name]
        seconds = [training.seconds for training in done]
        peak = statistics.median(training.peak for training in done)
        cells = [report.seconds(seconds), report.ratio(reference, seconds), judge(done[-1])]
        rows.append([entry.name, str(entry.cores), *cells, report.megabytes(peak)])
    return rows


def _costs(trainings: dict[str, list[Training]]) -> str:
    """Where the seconds and bytes of our clusters' jobs went, in the run of median duration."""
    rows = []
    for name, done in trainings.items():
        if not done[0].jobs:
            continue
        median = sorted(done, key=lambda training: training.seconds)[(len(done) - 1) // 2]
        jobs = median.jobs
        sums = [
            f"{sum(job[f'{part}_seconds'] for job in jobs):.2f}"
            for part in ("queue", "transfer", "compute", "sum")
        ]
        travelled = [
            report.megabytes(sum(job[part] for job in jobs)) for part in ("bytes_sent", "bytes_received")
        ]
        worker = max(nbytes for daemon, nbytes in median.peaks.items() if daemon != "dispatcher")
        rows.append(
            [
                name,
                str(len({job["round"] for job in jobs})),
                str(len(jobs)),
                *travelled,
                *sums,
                f"{median.seconds:.2f}",
                report.megabytes(worker),
                report.megabytes(median.peaks["dispatcher"]),
            ]
        )
    columns = [
        "jobs", "rounds", "number", "sent, MB", "received, MB", "queue, s", "transfer, s", "compute, s",
        "sum, s", "in all, s", "worker's peak, MB", "dispatcher's, MB",
    ]  # fmt: skip
    return report.table(columns, rows)

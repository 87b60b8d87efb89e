"""What a worker's memory grows by in LDA, and a process's in LSI, beside what they work on."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from unittest import mock

import corpora
import numpy as np
from corpora import BoW

from benchmarks import data, isolated, report
from benchmarks.report import Result
from distcorpus.algorithms.chunk import Chunk

NOTE = """\
Growth is the most memory that a process has had, less what it had before (resident set).

LDA: the worker of a cluster of one while `distcorpus.models.LdaModel` trains on chunks of one corpus; before,
it has trained on 200 documents with 10 topics. The 64 MiB that a worker has ready for its first job count as
growth, so it is never below 67 MB. "Topics" are one table of the job's distinct words and topics, float32;
the sums are as much as two of these, and one or two are on their way.

LSI: `distcorpus.training.lsi.train`, with chunks of 5,000 documents that nobody else keeps, in a process that
has factorised a few documents before. A block is a matrix of all terms and the columns of one step, float32.
Beside the basis there are the wanted vectors, which are made of it, some blocks, and square matrices of the
basis's columns."""

#: Fresh processes for each case.
REPEATS = 3

#: Corpus, documents of a chunk, chunks.
LDA = (("20 Newsgroups", 2_000, 4), ("SOTU", 20_000, 1))


def run(quick: bool, repeats: int) -> Result:
    """Measure."""
    rows = []
    for corpus, size, count in LDA[:1] if quick else LDA:
        for num_topics in (10,) if quick else (100, 400):
            for threads in (1, 4):
                arguments = (quick, corpus, size, count, num_topics, threads)
                measured = [isolated.run(worker_growth, *arguments) for _ in range(repeats)]
                growth = statistics.median(one[0] for one in measured)
                _, chunk, topics = measured[0]
                rows.append(
                    [
                        f"{corpus}, {size:,} documents",
                        str(num_topics),
                        str(threads),
                        *(f"{nbytes / 1e6:.1f}" for nbytes in (growth, chunk, topics)),
                        f"{(growth - 3 * chunk) / topics:.1f}",
                    ]
                )
    columns = ["chunk", "K", "threads", "growth, MB", "chunk, MB", "topics, MB", "less 3 chunks, in topics"]
    lda = report.table(columns, rows)

    rows = []
    for num_topics in (50,) if quick else (200, 400):
        measured = [isolated.run(lsi_growth, quick, num_topics) for _ in range(repeats)]
        growth = statistics.median(one[0] for one in measured)
        _, kept, basis, block = measured[0]
        sizes = [f"{nbytes / 1e6:.1f}" for nbytes in (growth, kept, basis, block)]
        rows.append([str(num_topics), *sizes, f"{(growth - kept - basis) / block:.1f}"])
    columns = [
        "K", "growth, MB", "chunks, MB", "basis, MB", "block, MB", "less chunks and basis, in blocks",
    ]  # fmt: skip
    return Result(f"### LDA\n\n{lda}\n\n### LSI\n\n{report.table(columns, rows)}")


def worker_growth(
    quick: bool, corpus: str, size: int, count: int, num_topics: int, threads: int
) -> tuple[int, int, int]:
    """Bytes that a worker grows by in LDA, those of its largest chunk, and of that chunk's topics."""
    from distcorpus import LocalCluster
    from distcorpus.algorithms.chunk import as_chunk
    from distcorpus.models import LdaModel
    from distcorpus.worker.daemon import MEMORY_TAKEN

    documents: list[BoW]
    if corpus == "SOTU":
        dictionary, documents = corpora.bow(corpora.sotu())
    else:
        dictionary, documents = data.shuffled_newsgroups(quick)
    documents = documents[: size * count]
    chunks = [
        as_chunk(documents[i : i + size], len(dictionary), counts=True)
        for i in range(0, len(documents), size)
    ]
    options = {"id2word": dictionary, "chunksize": size, "distributed": True, "eval_every": None}
    with LocalCluster(1, threads=threads, blas_threads=1) as cluster:
        LdaModel(documents[:200], 10, **options)
        pid = cluster.workers[0].pid
        before = isolated.forget_peak(pid) - MEMORY_TAKEN
        LdaModel(documents, num_topics, **options)
        growth = isolated.peak_of_process(pid) - before
    words = max(len(chunk.words()) for chunk in chunks)
    return growth, max(chunk.nbytes for chunk in chunks), words * num_topics * 4


def lsi_growth(quick: bool, num_topics: int) -> tuple[int, int, int, int]:
    """Bytes that a process grows by in LSI, of the chunks, of the basis and of a block of it."""
    from distcorpus.algorithms import _lsi_iteration, lsi
    from distcorpus.algorithms.chunk import as_chunk

    matrix = data.tfidf_matrix(quick).astype(np.float32)
    num_terms, num_docs = matrix.shape
    chunks = [as_chunk(matrix[:, i : i + 5_000], num_terms) for i in range(0, num_docs, 5_000)]
    _train([as_chunk(matrix[:, :200], num_terms)], num_terms, 10)
    del matrix
    kept = sum(chunk.nbytes for chunk in chunks)
    sizes = []

    class Watched(_lsi_iteration.Basis):
        def append(self, block: np.ndarray, apart: bool = False) -> None:
            super().append(block, apart)
            sizes.append(self.size)

    before = isolated.forget_peak() - kept
    with mock.patch.object(_lsi_iteration, "Basis", Watched):
        _train((chunks.pop(0) for _ in range(len(chunks))), num_terms, num_topics)
    column = 4 * num_terms
    block = column * lsi.block_width(num_terms, num_topics)
    return isolated.peak_of_process() - before, kept, column * sizes[-1], block


def _train(chunks: Iterable[Chunk], num_terms: int, num_topics: int) -> None:
    from distcorpus.engines.threads import ThreadsEngine
    from distcorpus.training.lsi import LsiTask, train

    with ThreadsEngine(1) as engine:
        train(engine, LsiTask(num_terms, num_topics, dtype="float32"), chunks)

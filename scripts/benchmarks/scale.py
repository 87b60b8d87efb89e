"""Large corpora: from text to a corpus on disk, and LDA and LSI of it, of `.mm` files and of matrices."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import psutil
from gensim.corpora import MmCorpus
from gensim.utils import FakeDict

from benchmarks import isolated, machine, report
from benchmarks.processes import Usage, Watch
from benchmarks.report import Result

NOTE = """\
"Synthetic" documents have 100,000 terms of Zipfian frequency, half of their words from 500 topics of Zipfian
frequencies of their own (`corpora.large`); "real" ones are all passages of 32 words of 20 Newsgroups,
Reuters-21578, the State of the Union addresses and the Wikipedia summaries. LDA: 100 topics, one pass over
counts. LSI: 400 topics, TF-IDF. Else the defaults.

From the constructor's call to the trained model, in a fresh process that has trained on 2,000 documents
before. A corpus on disk and a `.mm` file are in the page cache as far as they fit; TF-IDF of a `Corpus` is
made while it is read, in a `.mm` file it is written down; a matrix is in memory. Without a cluster "2
threads" are `workers=2`; a worker of a cluster has one thread. "Built" is `distcorpus corpus build` of a file
with a document a line. "From .mm" is only to read 20,000 documents of such a file, as gensim's `MmCorpus`
does, and as our models do (their checks included).

CPU seconds are what the processes spent while it was trained, the name server's with the dispatcher's. Memory
is the peak of what is a process's own (anonymous and shared memory; not pages of files, which the system can
drop), of all together at one moment, and of the largest worker."""

REPEATS = 1

DOCUMENTS = 328_000
QUICK_DOCUMENTS = 6_000
QUICK_TOPICS = 20
TOPICS = {"lda": 100, "lsi": 400}
WARM_UP = 2_000

#: Threads of this process, or workers, by the name of the row.
PLACES = {"1 thread": 1, "2 threads": 2, "1 worker": 1, "2 workers": 2}
SOURCES = {"corpus": "Corpus", "mm": ".mm file", "matrix": "matrix"}

BUILD = "build"
#: How many documents of a `.mm` file are read by gensim and by us, and who reads which.
READ_DOCUMENTS = 20_000
READERS = tuple(f"read {model} {who}" for model in TOPICS for who in ("gensim", "ours"))
ROWS = (
    BUILD,
    *READERS,
    *(f"{model} {source} {place}" for model in TOPICS for source in SOURCES for place in PLACES),
)

#: What `run` takes besides.
OPTIONS = ("documents", "text", "only", "make")

#: Letters of the words that stand for terms.
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Made:
    """The documents of a benchmark, as files in the cache folder."""

    folder: Path
    #: How many they are.
    documents: int

    @property
    def corpus(self) -> Path:
        return self.folder / "counts.corpus"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    def mm(self, model: str) -> Path:
        return self.folder / ("counts.mm" if model == "lda" else "tfidf.mm")


@dataclass
class Measured:
    """A row."""

    seconds: float
    documents: int
    entries: int
    usage: dict[str, Usage] = field(default_factory=dict)
    #: The most memory of all processes at one moment, in bytes.
    memory: int = 0


def add_options(parser: Any) -> None:
    """Add the options of this subcommand."""
    parser.add_argument(
        "--documents", type=int, metavar="N", help=f"synthetic documents (default: {DOCUMENTS:,})"
    )
    parser.add_argument("--text", choices=("synthetic", "real"), default="synthetic", help="which documents")
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="ROW",
        help="rows such as 'lda corpus 2 workers', or patterns such as 'l?? mm *'; what was measured before "
        f"on these documents is shown as well. All: {', '.join(ROWS)}",
    )
    parser.add_argument("--make", action="store_true", help="only make the files that the rows need")


def run(
    quick: bool,
    repeats: int,
    documents: int | None = None,
    text: str = "synthetic",
    only: list[str] | None = None,
    make: bool = False,
) -> Result:
    """Measure."""
    rows = [row for row in ROWS if any(fnmatch.fnmatchcase(row, pattern) for pattern in only or ["*"])]
    if not rows:
        raise SystemExit(f"bench.py scale: no row is {' or '.join(only or [])}; there are: {', '.join(ROWS)}")
    made = documents_of(text, documents or (QUICK_DOCUMENTS if quick else DOCUMENTS))
    for model in TOPICS:
        if any(row.startswith((f"{model} mm", f"read {model}")) for row in rows):
            once(made.mm(model), partial(isolated.run, write_mm, made, model))
    if BUILD in rows:
        once(made.text, partial(isolated.run, write_text, text, made.documents))
    if make:
        return Result(f"made in {made.folder}")
    subprocess.run([sys.executable, "-m", "distcorpus", "warm"], check=True, stdout=sys.stderr)

    kept_in = made.folder / f"measured{'-quick' * quick}.json"
    about = machine.description()
    kept: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        kept = json.loads(kept_in.read_text())
    if kept.get("about") != about:
        kept = {"about": about, "rows": {}}
    for row in rows:
        one = [measure(made, row, quick) for _ in range(repeats)]
        middle = sorted(one, key=lambda measured: measured.seconds)[len(one) // 2]
        kept["rows"][row] = asdict(middle)
        kept_in.write_text(json.dumps(kept))
        print(f"{row}: {middle.seconds:.1f} s", file=sys.stderr, flush=True)
    shown = {row: kept["rows"][row] for row in ROWS if row in kept["rows"]}
    return Result(table(shown, text))


def once(path: Path, write: Callable[[Path], Any]) -> None:
    """Make a file or folder, which is there when it is complete."""
    if not path.exists():
        print(f"makes {path}", file=sys.stderr, flush=True)
        unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
        write(unfinished)
        unfinished.rename(path)


def documents_of(text: str, documents: int) -> Made:
    """The corpus on disk, made where it is missing."""
    if text == "real":
        documents = len(corpora.passages().texts)
    folder = corpora.cache_folder() / f"scale-{text}-{documents}"
    folder.mkdir(exist_ok=True)
    made = Made(folder, documents)
    once(made.corpus, partial(isolated.run, write_corpus, text, documents))
    return made


def write_corpus(text: str, documents: int, path: Path) -> None:
    """Write the documents as a `Corpus`."""
    from distcorpus.corpora import Corpus, ShardWriter

    if text == "real":
        dictionary, bags = corpora.bow(corpora.passages())
        Corpus.write(path, bags, dictionary)
        return
    synthetic = corpora.large(documents)
    with ShardWriter(path, synthetic.num_terms) as writer:
        for chunk in synthetic.chunks():
            writer.add(chunk)
        writer.finish()


def write_mm(made: Made, model: str, path: Path) -> None:
    """Write the documents as a `.mm` file, of TF-IDF for LSI."""
    from distcorpus.corpora import Corpus

    corpus = Corpus(made.corpus)
    (corpus if model == "lda" else corpus.tfidf()).to_mm(path)


def write_text(text: str, documents: int, path: Path) -> None:
    """Write the documents as text, one a line; the words of a synthetic one stand in their terms' order."""
    with open(path, "w", encoding="utf-8") as file:
        if text == "real":
            file.writelines(" ".join(passage.split()) + "\n" for passage in corpora.passages().texts)
            return
        synthetic = corpora.large(documents)
        words = np.array([word_of(term) for term in range(synthetic.num_terms)], object)
        for chunk in synthetic.chunks():
            every = words[np.repeat(chunk.indices, chunk.data)].tolist()
            ends = np.append(0, np.cumsum(chunk.data))[chunk.indptr].tolist()
            file.writelines(" ".join(every[start:end]) + "\n" for start, end in pairwise(ends))


def word_of(term: int) -> str:
    """A word of letters that stands for a term; frequent terms have short ones."""
    number, letters = term + len(LETTERS), ""
    while number:
        number, letter = divmod(number, len(LETTERS))
        letters = LETTERS[letter] + letters
    return letters


# ------------------------------------------------------------------------------------------------- measuring


def measure(made: Made, row: str, quick: bool) -> Measured:
    """Measure a row."""
    if row == BUILD:
        return isolated.run(build, made)
    if row in READERS:
        return isolated.run(read, made, *row.split()[1:])
    model, source, place = row.split(" ", 2)
    return isolated.run(
        train, made, model, source, place, quick, threads=PLACES[place] if "thread" in place else 1
    )


def build(made: Made) -> Measured:
    """`distcorpus corpus build`."""
    from distcorpus.corpora import Corpus

    with tempfile.TemporaryDirectory(dir=made.folder) as folder:
        out = Path(folder) / "built.corpus"
        command = [sys.executable, "-m", "distcorpus", "corpus", "build", str(made.text), "--out", str(out)]
        with Watch() as watch:
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=sys.stderr)
            watch.also(process.pid, "client")
            watch.descendants(process.pid, "workers")
            if process.wait() != 0:
                raise isolated.Failed(f"it ended with {process.returncode}")
            seconds = time.perf_counter() - began
        corpus = Corpus(out)
        return Measured(seconds, len(corpus), corpus.num_nnz, watch.usage(), watch.memory)


def read(made: Made, model: str, who: str) -> Measured:
    """The first documents of a `.mm` file, by iterating over it or as our models read it."""
    from distcorpus.corpora import reading, textfiles

    corpus = MmCorpus(str(made.mm(model)))
    textfiles.warm()
    watch = Watch()
    watch.also(os.getpid(), "client")
    with watch:
        began = time.perf_counter()
        documents = entries = 0
        if who == "gensim":
            for document in islice(corpus, READ_DOCUMENTS):
                documents, entries = documents + 1, entries + len(document)
        else:
            for chunk in reading.chunks(corpus, 2_000, corpus.num_terms, counts=model == "lda"):
                documents, entries = documents + chunk.n_docs, entries + chunk.nnz
                if documents >= READ_DOCUMENTS:
                    break
        seconds = time.perf_counter() - began
    return Measured(seconds, documents, entries, watch.usage(), watch.memory)


def train(made: Made, model: str, source: str, place: str, quick: bool) -> Measured:
    """Train a model."""
    from distcorpus import LocalCluster
    from distcorpus.corpora import Corpus, textfiles
    from distcorpus.models import LdaModel, LsiModel

    on_disk = Corpus(made.corpus)
    read = on_disk if model == "lda" else on_disk.tfidf()
    documents: Any = read
    if source == "mm":
        documents = MmCorpus(str(made.mm(model)))
    elif source == "matrix":
        documents = read.to_scipy().copy()
    options: dict[str, Any] = {
        "num_topics": QUICK_TOPICS if quick else TOPICS[model],
        "id2word": FakeDict(on_disk.num_terms),
    }
    if model == "lda":
        options |= {"random_state": 1, "eval_every": None}
    textfiles.warm()
    kind = LdaModel if model == "lda" else LsiModel
    with ExitStack() as stack:
        watch = Watch()
        watch.also(os.getpid(), "client")
        if "worker" in place:
            number = PLACES[place]
            # They share a disk with this process, and so read a `Corpus` themselves.
            cluster = stack.enter_context(LocalCluster(number, blas_threads=1, corpora=[made.folder]))
            options["distributed"] = True
            workers = {worker.pid for worker in cluster.workers}
            for worker in workers:
                watch.also(worker, "workers")
            for process in psutil.Process().children(recursive=True):
                if process.pid not in workers:
                    watch.also(process.pid, "dispatcher")
        else:
            options["workers"] = PLACES[place]
        kind(read[:WARM_UP], **options | {"num_topics": QUICK_TOPICS})
        with watch:
            began = time.perf_counter()
            kind(documents, **options)
            seconds = time.perf_counter() - began
    return Measured(seconds, len(on_disk), on_disk.num_nnz, watch.usage(), watch.memory)


# --------------------------------------------------------------------------------------------------- showing


def table(rows: Mapping[str, Mapping[str, Any]], text: str) -> str:
    """Show what was measured."""
    lines = []
    for row, measured in rows.items():
        usage = {who: Usage(**values) for who, values in measured["usage"].items()}
        cpu = [usage[who].cpu if who in usage else None for who in ("client", "dispatcher", "workers")]
        peaks = [usage[who].largest if who in usage else None for who in ("client", "dispatcher", "workers")]
        lines.append(
            [
                name_of(row),
                report.seconds([measured["seconds"]]),
                f"{measured['documents'] / measured['seconds']:,.0f}",
                *("" if seconds is None else report.seconds([seconds]) for seconds in cpu),
                *("" if peak is None else f"{peak / 1e9:.2f}" for peak in peaks),
                f"{measured['memory'] / 1e9:.2f}",
            ]
        )
    columns = [
        "", "seconds", "documents a second", "CPU s: client", "dispatcher", "workers",
        "GB: client", "dispatcher", "a worker", "all",
    ]  # fmt: skip
    measured = max(rows.values(), key=lambda measured: measured["documents"])
    head = f"{text.capitalize()}: {measured['documents']:,} documents, {measured['entries']:,} entries."
    return f"{head}\n\n{report.table(columns, lines)}"


def name_of(row: str) -> str:
    if row == BUILD:
        return "built from text"
    if row in READERS:
        _, model, who = row.split()
        return f"{'counts' if model == 'lda' else 'TF-IDF'} from .mm, {who}"
    model, source, place = row.split(" ", 2)
    return f"{model.upper()}, {SOURCES[source]}, {place}"

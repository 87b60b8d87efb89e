"""A corpus from text: `Corpus.build` against gensim's pipeline, with equal counts."""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import corpora
from gensim.corpora import Dictionary
from gensim.utils import simple_preprocess

from benchmarks import isolated, report
from benchmarks.report import Result
from distcorpus.corpora import Corpus

NOTE = """\
Real text, a document a line: newsgroups, speeches, newswire and encyclopaedia (`scripts/corpora.py`), four
times over. gensim: `simple_preprocess`, `Dictionary`, `filter_extremes` and `doc2bow` of every eighth line,
which are in memory. Ours: `Corpus.build(tokenizer="gensim")`, everything from the file to the corpus on disk,
the start of its processes included. CPU seconds of all processes, each run in a fresh one; that both count
the same is tested. MB is 10^6 bytes of text."""

#: Interleaved runs of a full measurement.
REPEATS = 3
TIMES, SHARE = 4, 8
KINDS: dict[str, int | None] = {"gensim": None, "ours, 1 process": 1, "ours, 2 processes": 2}


def write(path: Path, times: int) -> int:
    """Write the text of the real corpora to a file, and return how many documents that are."""
    texts = [
        " ".join(text.splitlines())
        for name in ("newsgroups", "sotu", "reuters", "wikipedia")
        for text in corpora.CORPORA[name]().texts
    ]
    content = "".join(f"{text}\n" for text in texts)
    with open(path, "w", encoding="utf-8", newline="") as file:
        for _ in range(times):
            file.write(content)
    return times * len(texts)


def gensims(lines: list[str]) -> tuple[Dictionary, list[list[tuple[int, int]]]]:
    """Return what gensim's pipeline gives."""
    texts = [simple_preprocess(line) for line in lines]
    dictionary = Dictionary(texts)
    dictionary.filter_extremes()
    return dictionary, [dictionary.doc2bow(text) for text in texts]


def measure(path: str, processes: int | None) -> tuple[int, float, float]:
    """Return documents, CPU seconds and seconds of one run."""
    lines = Path(path).read_text("utf-8").split("\n")[:-1]
    before, began = _cpu(), time.perf_counter()
    if processes is None:
        lines = lines[::SHARE]
        gensims(lines)
    else:
        with TemporaryDirectory(dir=Path(path).parent) as folder:
            Corpus.build(path, Path(folder) / "c", tokenizer="gensim", processes=processes)
    return len(lines), _cpu() - before, time.perf_counter() - began


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(quick: bool, repeats: int) -> Result:
    """Measure both."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "texts.txt"
        n_docs = write(path, 1 if quick else TIMES)
        size = path.stat().st_size
        found: dict[str, list[tuple[int, float, float]]] = {kind: [] for kind in KINDS}
        for _ in range(repeats):
            for kind, processes in KINDS.items():
                found[kind].append(isolated.run(measure, str(path), processes))
    rates = {kind: [documents / cpu for documents, cpu, _ in runs] for kind, runs in found.items()}
    reference = statistics.median(rates["gensim"])
    rows = []
    for kind, runs in found.items():
        rate = statistics.median(rates[kind])
        elapsed = statistics.median(documents / seconds for documents, _, seconds in runs)
        rows.append([kind, f"{rate:,.0f}", f"{rate / reference:.1f}x", f"{elapsed:,.0f}"])
    columns = ["pipeline", "documents a second and core", "of gensim's", "documents a second"]
    text = f"{n_docs:,} documents, {size / 1e6:.0f} MB.\n\n{report.table(columns, rows)}"
    return Result(text)

"""``distcorpus demo``: a cluster on this machine, real text, and how long it took, with it and without."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gensim.corpora import Dictionary, MmCorpus
from gensim.models import LdaModel, LsiModel, TfidfModel
from gensim.parsing.preprocessing import STOPWORDS
from gensim.test.utils import datapath
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distcorpus import models
from distcorpus._text import plural
from distcorpus.cli.warm import compile_kernels
from distcorpus.cluster import LocalCluster

#: A word of the bundled corpus.
WORD = re.compile(r"[a-z]{2,15}")


class _Watched:
    """A corpus that moves a progress bar as it is read."""

    def __init__(self, corpus: Sequence[Any], advance: Callable[[], None]) -> None:
        self._corpus = corpus
        self._advance = advance

    def __len__(self) -> int:
        return len(self._corpus)

    def __iter__(self) -> Iterator[Any]:
        for document in self._corpus:
            yield document
            self._advance()


def lee() -> tuple[Dictionary, list[list[tuple[int, int]]]]:
    """Return the Lee corpus that gensim brings along: 300 news articles.

    Returns
    -------
    dictionary : Dictionary
        Its vocabulary, without stop words and the rarest and the most frequent words.
    corpus : list of list of (int, int)
        Its documents as bags of words.
    """
    lines = Path(datapath("lee_background.cor")).read_text(encoding="utf-8").splitlines()
    texts = [[word for word in WORD.findall(line.lower()) if word not in STOPWORDS] for line in lines]
    dictionary = Dictionary(texts)
    dictionary.filter_extremes(no_below=3, no_above=0.2)
    return dictionary, [dictionary.doc2bow(text) for text in texts]


def demo(
    corpus_file: str | None = None,
    dictionary_file: str | None = None,
    *,
    n_workers: int = 2,
    num_topics: int = 20,
) -> None:
    """Train LSI and LDA with gensim's own classes, serially and on a cluster, and print what came of it.

    Parameters
    ----------
    corpus_file : str, optional
        A bag-of-words corpus in Matrix Market format; by default the Lee corpus.
    dictionary_file : str, optional
        Its Dictionary, saved by gensim or as text.
    n_workers : int
        Worker processes.
    num_topics : int
        Topics to find.

    Raises
    ------
    ValueError
        If only one of the two files is given, or a number is below 1.
    """
    if (corpus_file is None) != (dictionary_file is None):
        raise ValueError("give both --corpus and --dictionary, or neither")
    if n_workers < 1 or num_topics < 1:
        raise ValueError("--workers and --topics take a number above 0")
    console = Console()
    if corpus_file is None or dictionary_file is None:
        dictionary, corpus = lee()
        console.print(f"[bold]{len(corpus)} news articles[/] (Lee corpus), {len(dictionary)} words")
    else:
        dictionary, corpus = load_dictionary(dictionary_file), list(MmCorpus(corpus_file))
        console.print(f"[bold]{plural(len(corpus), 'document')}[/] of {corpus_file}, {len(dictionary)} words")
    tfidf = TfidfModel(corpus)
    weighted = [tfidf[document] for document in corpus]
    chunksize = max(min(len(corpus) // (4 * n_workers), 2000), 1)
    lda_options = {
        "id2word": dictionary,
        "num_topics": num_topics,
        "chunksize": chunksize,
        "passes": 1 if len(corpus) > 5000 else 20,
        # gensim's default, 1, lets the first chunks dominate the topics.
        "offset": 16,
        "random_state": 1,
        "eval_every": None,
    }
    lsi_options = {"id2word": dictionary, "num_topics": num_topics, "chunksize": chunksize}

    table = Table(title="seconds to train")
    for column in ("model", "gensim, serial", "here, no cluster", f"gensim on {plural(n_workers, 'worker')}"):
        table.add_column(column, justify="left" if column == "model" else "right")
    with Progress(console=console) as progress:

        def train(what: str, passes: int, make: Callable[[_Watched], Any]) -> tuple[Any, float]:
            task = progress.add_task(what, total=passes * len(corpus))
            watched_corpus = weighted if "LSI" in what else corpus
            started = time.perf_counter()
            model = make(_Watched(watched_corpus, lambda: progress.advance(task)))
            return model, time.perf_counter() - started

        # What is compiled once is no time of a training run.
        task = progress.add_task("compiling kernels, if this is the first time", total=1)
        compile_kernels()
        progress.advance(task)
        task = progress.add_task(
            f"starting a name server, a dispatcher and {plural(n_workers, 'worker')}", total=1
        )
        with LocalCluster(n_workers) as cluster:
            progress.advance(task)
            passes = int(lda_options["passes"])
            lsi, lsi_seconds = train("LSI", 1, lambda c: LsiModel(c, distributed=True, **lsi_options))
            lda, lda_seconds = train("LDA", passes, lambda c: LdaModel(c, distributed=True, **lda_options))
            places = {
                session: cluster.dispatcher.records(session)
                for session in cluster.dispatcher.recorded_sessions()
            }
        _, lsi_serial = train("LSI, serial gensim", 1, lambda c: LsiModel(c, **lsi_options))
        _, lda_serial = train("LDA, serial gensim", passes, lambda c: LdaModel(c, **lda_options))
        _, lsi_here = train("LSI, here", 1, lambda c: models.LsiModel(c, **lsi_options))
        _, lda_here = train("LDA, here", passes, lambda c: models.LdaModel(c, **lda_options))
    for name, serial, *ours in (
        ("LSI", lsi_serial, lsi_here, lsi_seconds),
        ("LDA", lda_serial, lda_here, lda_seconds),
    ):
        times = (f"{seconds:.2f} ({serial / seconds:.1f}x)" for seconds in ours)
        table.add_row(name, f"{serial:.2f}", *times)

    for name, model in (("LSI", lsi), ("LDA", lda)):
        console.print(f"\n[bold]{name}: the first topics[/]")
        for topic, words in model.show_topics(5, 8, formatted=False):
            console.print(f"  {topic}: " + ", ".join(word for word, _ in words))
    console.print("\n[bold]Where it was computed[/] (documents, each as often as it was in a round)")
    for session, records in places.items():
        documents: Counter[str] = Counter()
        for record in records:
            documents[record["worker"]] += record["documents"]
        console.print(
            f"  {session}: " + ", ".join(f"{name} {count}" for name, count in sorted(documents.items()))
        )
        for record in records[:4]:
            console.print(f"    round {record['round']}: {'; '.join(record['blocks'])} on {record['worker']}")
    console.print()
    console.print(table)


def load_dictionary(path: str) -> Dictionary:
    """Load a Dictionary in either of gensim's two formats."""
    with open(path, "rb") as file:
        pickled = file.read(1) == b"\x80"
    return Dictionary.load(path) if pickled else Dictionary.load_from_text(path)

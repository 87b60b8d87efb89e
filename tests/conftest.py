"""Corpora that several tests share (`scripts/` is on the path: see pyproject.toml)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import corpora
import pytest
from gensim.corpora import Dictionary
from gensim.models import TfidfModel
from threadpoolctl import threadpool_limits

from distcorpus.engines.threads import available_threads
from distcorpus.wire import certificates, refusals, roles

from . import template


class BagsOfWords(NamedTuple):
    """A corpus as gensim's models take it: the terms, their counts and their TF-IDF weights a document."""

    dictionary: Dictionary
    counts: list[list[tuple[int, int]]]
    tfidf: list[list[tuple[int, float]]]


def bags_of_words(corpus: corpora.Corpus) -> BagsOfWords:
    dictionary, counts = corpora.bow(corpus)
    model = TfidfModel(dictionary=dictionary)
    return BagsOfWords(dictionary, counts, [model[document] for document in counts])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="I/N", help="run part I of N, the same on all machines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if part := config.getoption("--part"):
        wanted, parts = map(int, part.split("/"))
        kept, left = [], []
        for item in items:
            of_it = zlib.crc32(item.nodeid.encode()) % parts == wanted % parts
            (kept if of_it else left).append(item)
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two a core: half of the time a test waits for a cluster."""
    return 2 * available_threads()


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """As many processes test as there are cores: threads of BLAS besides would only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certification authority that trusts nobody else."""
    return certificates.make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def credentials(authority: Path) -> dict[str, Path]:
    """The folder of a certificate for each role, on this machine."""
    hosts = ("127.0.0.1", "localhost")
    return {
        role: certificates.issue(authority, role, hosts if role in roles.SERVERS else ())
        for role in roles.ROLES
    }


@pytest.fixture(scope="session")
def lee_corpus() -> BagsOfWords:
    """300 news texts, which come with gensim."""
    return bags_of_words(corpora.lee())


@pytest.fixture(scope="session")
def newsgroups() -> BagsOfWords:
    """20 Newsgroups: 18,821 posts, fetched once a machine."""
    try:
        return bags_of_words(corpora.newsgroups())
    except corpora.CorpusUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def forked_daemons() -> Iterator[None]:
    """The daemons of every `LocalCluster` are forked, see `template`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distcorpus.cluster.subprocess", template.FORKING)
        yield
    template.end()


@pytest.fixture(scope="session", autouse=True)
def refusals_at_once() -> Iterator[None]:
    """Tests have thousands of messages refused, and would wait (see `wire/test_refusals.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(refusals.VARIABLE, "1")
        yield

"""A new kernel is one file, and runs on every engine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from distcorpus import LocalCluster
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.engines.pyro import PyroEngine
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.kernels import EStep, register
from distcorpus.wire import names
from distcorpus.wire.nameserver import find, list_names

from . import document_frequencies


@pytest.fixture(scope="module")
def chunks(lee_corpus):
    counts = lee_corpus.counts
    return [as_chunk(counts[n : n + 70], len(lee_corpus.dictionary)) for n in range(0, len(counts), 70)]


@pytest.fixture(scope="module")
def expected(lee_corpus):
    return np.array([lee_corpus.dictionary.dfs[word] for word in range(len(lee_corpus.dictionary))])


def test_threads(chunks, expected):
    with ThreadsEngine(2) as engine:
        found = document_frequencies.document_frequencies(engine, chunks, len(expected), "df-1")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_pyro(chunks, expected, monkeypatch):
    """Workers import the modules that their environment names."""
    folder = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DISTCORPUS_KERNELS", document_frequencies.__name__.split(".")[-1])
    with LocalCluster(n_workers=2):
        nameserver = find()
        engine = PyroEngine(
            lambda: {
                name.removeprefix(names.WORKER_PREFIX): uri
                for name, uri in list_names(nameserver, names.WORKER_PREFIX).items()
            }
        )
        engine.start()
        try:
            assert engine.wait_for_workers(30)
            found = document_frequencies.document_frequencies(engine, chunks, len(expected), "df-1")
        finally:
            engine.stop()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_dask(chunks, expected, client):
    """Workers get the kernel with their jobs."""
    cloudpickle = pytest.importorskip("cloudpickle")
    from distcorpus.engines.dask import DaskEngine

    cloudpickle.register_pickle_by_value(document_frequencies)
    with DaskEngine(client) as engine:
        found = document_frequencies.document_frequencies(engine, chunks, len(expected), "df-1")
    np.testing.assert_array_equal(found, expected)


def test_a_name_that_is_taken():
    class Other:
        name = EStep.name

    with pytest.raises(ValueError, match="there is a kernel 'lda' already"):
        register(Other)

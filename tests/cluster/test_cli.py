"""The console command."""

from __future__ import annotations

import os
import subprocess
import sys

from gensim.corpora import MmCorpus

from distcorpus import __version__


def run(*arguments, environment=None, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "distcorpus", *arguments],
        env={**os.environ, **(environment or {}), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_version():
    assert run("--version").stdout.strip() == f"distcorpus {__version__}"


def test_status(cluster):
    result = run("status", environment=cluster.environ())
    assert result.returncode == 0, result.stderr
    for worker in cluster.workers:
        assert str(worker.pid) in result.stdout


def test_status_without_a_cluster():
    result = run("status", "--host", "127.0.0.1", "--port", "1")
    assert result.returncode == 1
    assert "distcorpus nameserver" in result.stderr
    assert "Traceback" not in result.stderr


def test_demo():
    """Topics, places and times; the whole in under a minute on two cores."""
    result = run("demo")
    assert result.returncode == 0, result.stderr
    for part in (
        "LSI: the first topics",
        "LDA: the first topics",
        "Where it was computed",
        "gensim, serial",
        "chunk 0",
    ):
        assert part in result.stdout


def test_demo_with_a_corpus_of_ones_own(lee_corpus, tmp_path):
    corpus, dictionary = str(tmp_path / "corpus.mm"), str(tmp_path / "dictionary")
    MmCorpus.serialize(corpus, lee_corpus.counts[:100])
    lee_corpus.dictionary.save(dictionary)
    result = run("demo", "--corpus", corpus, "--dictionary", dictionary, "--workers", "1", "--topics", "5")
    assert result.returncode == 0, result.stderr
    assert "100 documents" in result.stdout


def test_demo_needs_both_files():
    result = run("demo", "--corpus", "x.mm")
    assert result.returncode == 1
    assert "--dictionary" in result.stderr

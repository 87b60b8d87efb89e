"""A chunk that kills the workers that compute it: tried on three, then its model fails, and no other."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from gensim.models import LdaModel

from distcorpus import LocalCluster

from .conftest import wait_until


def limit_cpu(pid, seconds):
    """Let the system kill a process that computes for about that long from now on."""
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    used = (int(user) + int(system)) // os.sysconf("SC_CLK_TCK")
    resource.prlimit(pid, resource.RLIMIT_CPU, (used + seconds, used + seconds))


def train(corpus):
    model = LdaModel(
        corpus.counts[:100],
        id2word=corpus.dictionary,
        num_topics=10,
        chunksize=50,
        update_every=0,
        random_state=1,
        eval_every=None,
        distributed=True,
    )
    return model.state.sstats.tobytes()


def train_on_a_heavy_chunk():
    """The third chunk takes a worker many seconds, the others next to nothing."""
    words, topics = 4000, 500
    random = np.random.default_rng(1)
    counts = random.integers(1, 9, (400, words))
    heavy = [np.column_stack([np.arange(words), row]).astype(np.float32) for row in counts]
    light = [np.array([(0, 1.0), (1, 2.0)], dtype=np.float32)] * 10
    model = LdaModel(id2word={n: str(n) for n in range(words)}, num_topics=topics, distributed=True)
    model.dispatcher.reset(model.state)
    for chunk in (light, light, heavy, light):
        model.dispatcher.putjob(chunk)
    return model.dispatcher.getstate()


def test_chunk_that_kills_its_workers(lee_corpus):
    with LocalCluster(n_workers=5) as cluster, ThreadPoolExecutor(1) as other:
        quiet = train(lee_corpus)
        before = {worker.name for worker in cluster.workers}
        for worker in cluster.workers:
            limit_cpu(worker.pid, 2)
        poisoned = other.submit(train_on_a_heavy_chunk)
        while not wait([poisoned], timeout=0.5).done:  # the others' CPU time is limited too
            assert train(lee_corpus) == quiet
        with pytest.raises(RuntimeError, match=r"chunk 2, documents 0-399: every worker process") as caught:
            poisoned.result()
        wait_until(lambda: len(cluster.dispatcher.status()["workers"]) == 2, "the loss of three workers")
        # Its connections break before the process has ended.
        wait_until(lambda: len(cluster.workers) == 2, "the end of three processes")
        lost = before - {worker.name for worker in cluster.workers}
        assert all(name in str(caught.value) for name in lost)
        assert train(lee_corpus) == quiet


@pytest.fixture
def limit_memory() -> Iterator[Callable[[int, int], None]]:
    """A function that lets the system kill a process that takes so many bytes more."""
    made = []

    def limit(pid: int, nbytes: int) -> None:
        for root, file in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
            folder = Path("/sys/fs/cgroup", root, f"distcorpus-test-{pid}")
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
            if (folder / file).exists():
                (folder / file).write_text(str(nbytes))
                (folder / "cgroup.procs").write_text(str(pid))
                return
        pytest.skip("no control group can be made whose memory is limited")

    yield limit
    for folder in made:
        folder.rmdir()


@pytest.mark.long
def test_chunk_whose_memory_kills_its_workers(lee_corpus, limit_memory):
    words, topics = 60_000, 500  # a table of 120 MB
    random = np.random.default_rng(1)
    heavy = [[(int(word), 1.0) for word in row] for row in random.permutation(words).reshape(60, -1)]
    with LocalCluster(n_workers=4) as cluster:
        quiet = train(lee_corpus)
        before = {worker.name for worker in cluster.workers}
        for worker in cluster.workers:
            limit_memory(worker.pid, 100 << 20)
        assert train(lee_corpus) == quiet
        model = LdaModel(id2word={n: str(n) for n in range(words)}, num_topics=topics, distributed=True)
        model.dispatcher.reset(model.state)
        for chunk in ([[(0, 1.0)]], heavy, [[(1, 1.0)]]):
            model.dispatcher.putjob(chunk)
        with pytest.raises(RuntimeError, match=r"chunk 1, documents 0-59: every worker process") as caught:
            model.dispatcher.getstate()
        wait_until(lambda: len(cluster.workers) == 1, "the end of three processes")
        lost = before - {worker.name for worker in cluster.workers}
        assert all(name in str(caught.value) for name in lost)
        assert train(lee_corpus) == quiet

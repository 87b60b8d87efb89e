"""Documents, and a Dask cluster of two processes for all tests of a file that leave it as it was."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from distcorpus.algorithms.chunk import as_chunk
from distcorpus.models import LdaModel, LsiModel

NUM_TERMS = 300
PATIENCE = 100.0
NO_DASK = "distributed is not installed: pip install distcorpus[dask]"


def wait_until(ready: Callable[[], Any], facts: Callable[[], Any] = lambda: "") -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := ready()):
        assert time.monotonic() < deadline, f"it did not come to that: {facts()}"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def corpus() -> list[list[tuple[int, int]]]:
    rng = np.random.default_rng(3)
    documents = []
    for _ in range(900):
        ids = np.unique(rng.integers(0, NUM_TERMS, 20) * rng.integers(0, 2, 20))
        documents.append([(int(id), int(rng.integers(1, 5))) for id in ids])
    return documents


@pytest.fixture(scope="session")
def matrix(corpus):
    chunk = as_chunk(corpus, NUM_TERMS)
    return scipy.sparse.csr_array((chunk.data, chunk.indices, chunk.indptr), (len(corpus), NUM_TERMS)).T


@pytest.fixture(scope="session")
def dictionary():
    return {id: f"word{id}" for id in range(NUM_TERMS)}


@pytest.fixture(scope="module")  # without work it takes a twentieth of a core
def cluster() -> Iterator[Any]:
    dask = pytest.importorskip("dask", reason=NO_DASK)
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0}
    # LocalCluster gives up a worker that was lost this long ago and is lost again at that moment.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        distributed().LocalCluster(dashboard_address=None, silence_logs=50, **options) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def module_client(cluster) -> Iterator[Any]:
    with distributed().Client(cluster) as client:
        yield client


def distributed() -> Any:
    return pytest.importorskip("distributed", reason=NO_DASK)


def left_over(client: Any) -> list[Any]:
    kept = client.run(lambda dask_worker: list(dask_worker.data), on_error="ignore")
    return [key for keys in kept.values() for key in keys]


@pytest.fixture
def client(cluster, module_client) -> Iterator[Any]:
    """Two workers before a test, and nothing of ours on them after it, though no garbage is collected."""

    def two_workers() -> bool:
        cluster.scale(2)
        return len(cluster.scheduler.workers) >= 2

    wait_until(two_workers)
    gc.collect()
    gc.disable()
    try:
        yield module_client
        known = cluster.scheduler.tasks
        wait_until(lambda: not left_over(module_client), lambda: (left_over(module_client), known))
        wait_until(lambda: not known, lambda: known)
    finally:
        gc.enable()


def lsi(corpus, dictionary, **options) -> LsiModel:
    return LsiModel(corpus, id2word=dictionary, num_topics=9, chunksize=150, **options)


def content(model) -> bytes:
    if isinstance(model, LdaModel):
        return model.state.sstats.tobytes()
    return model.projection.u.tobytes() + model.projection.s.tobytes()

"""The engine on a Dask cluster of real processes: the same bytes, whatever happens to the workers."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

distributed = pytest.importorskip(
    "distributed", reason="distributed is not installed: pip install distcorpus[dask]"
)

import cloudpickle  # noqa: E402
import dask  # noqa: E402
import threadpoolctl  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

from distcorpus.algorithms.chunk import Chunk, as_chunk  # noqa: E402
from distcorpus.algorithms.partial import Partial  # noqa: E402
from distcorpus.algorithms.summation import GridSum  # noqa: E402
from distcorpus.corpora.reading import chunks  # noqa: E402
from distcorpus.engines import dask as engine_module  # noqa: E402
from distcorpus.engines import dasktasks  # noqa: E402
from distcorpus.engines.dask import DaskEngine  # noqa: E402
from distcorpus.engines.dasktasks import Parcel, SharedRows, _aligned, compute_job, narrowed, widened  # noqa: E402
from distcorpus.engines.observer import EngineObserver, JobRecord, told  # noqa: E402
from distcorpus.engines.schedule import Schedule  # noqa: E402
from distcorpus.engines.threads import ThreadsEngine  # noqa: E402
from distcorpus.kernels import EStep, EStepParams, Product, ProductParams  # noqa: E402
from distcorpus.models import LdaModel, LsiModel  # noqa: E402
from distcorpus.training.session import Session  # noqa: E402

from .conftest import NUM_TERMS, PATIENCE, content, lsi, wait_until  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def threads_client() -> Iterator[Client]:
    """A worker in this very process, with two threads: what is sent is shared."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def lda(corpus, dictionary, **options) -> LdaModel:
    options = {"num_topics": 7, "chunksize": 150, "passes": 2, "random_state": 5} | options
    return LdaModel(corpus, id2word=dictionary, **options)


TRAIN = {"lda": lda, "lsi": lsi}


@pytest.fixture(scope="module")
def expected(corpus, dictionary) -> dict[str, bytes]:
    """What threads come to."""
    return {name: content(train(corpus, dictionary)) for name, train in TRAIN.items()}


# The same bytes


@pytest.mark.parametrize("kind", ["lists", "matrix"])
@pytest.mark.parametrize("model", TRAIN)
def test_trainings_have_the_bytes_of_threads(client, corpus, matrix, dictionary, expected, model, kind):
    documents = corpus if kind == "lists" else matrix
    assert content(TRAIN[model](documents, dictionary, client=client)) == expected[model]


@pytest.mark.parametrize("decay", [pytest.param(1.0, marks=pytest.mark.long), 0.8])
def test_additions_have_the_bytes_of_threads(client, corpus, matrix, dictionary, decay):
    """And are exact: what was there before is sent again, to a cluster that has kept nothing of it."""
    models = []
    for options in ({}, {"client": client}):
        model = lsi(corpus[:300], dictionary, decay=decay, **options)
        model.add_documents(corpus[300:450])
        model.add_documents(corpus[450:])
        models.append(model)
    assert content(models[0]) == content(models[1])
    weights = np.repeat(decay ** np.arange(5, -1, -1.0), 150)
    exact = np.linalg.svd(matrix.toarray() * weights, compute_uv=False)
    np.testing.assert_allclose(models[1].projection.s, exact[:9], rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{"update_every": 0}, {"update_chunks": 3, "alpha": "auto", "eta": "auto"}]
)
def test_updates_of_many_chunks(client, corpus, dictionary, options):
    here = lda(corpus, dictionary, **options)
    there = lda(corpus, dictionary, client=client, **options)
    assert content(there) == content(here)
    assert there.alpha.tobytes() == here.alpha.tobytes()


@pytest.mark.parametrize("kind", ["lists", "matrix"])
def test_evaluations_have_the_bytes_of_threads(client, corpus, matrix, dictionary, kind):
    model = lda(corpus[:300], dictionary, passes=1)
    documents = corpus if kind == "lists" else matrix
    state = model.random_state.get_state()

    def again(function):
        model.random_state.set_state(state)
        return function()

    here = again(lambda: list(model.transform(corpus)))
    there = again(lambda: list(model.transform(documents, client=client)))
    assert [part.tobytes() for part in there] == [part.tobytes() for part in here]
    parts = again(
        lambda: list(model._evaluate(chunks(corpus, 150, NUM_TERMS, counts=True), False, bound=True))
    )
    bound = sum(float(part.sum()) for part in parts) + model._topics_bound()
    assert again(lambda: model.bound(documents, client=client)) == bound
    words = sum(count for document in corpus for _, count in document)
    assert again(lambda: model.log_perplexity(documents, client=client)) == pytest.approx(bound / words)


def test_a_model_is_evaluated_by_its_client(client, corpus, dictionary, monkeypatch):
    """Of more than one chunk; `distributed=False` decides otherwise."""
    model = lda(corpus[:300], dictionary, passes=1, client=client)
    used = []
    real = DaskEngine.__enter__
    monkeypatch.setattr(DaskEngine, "__enter__", lambda engine: used.append(engine) or real(engine))
    list(model.transform(corpus))
    model.bound(corpus)
    model.log_perplexity(corpus)
    model.inference(corpus)
    assert len(used) == 4
    list(model.transform(corpus[:100]))
    list(model.transform(corpus, distributed=False))
    assert len(used) == 4


def test_a_client_that_reaches_the_scheduler_only(cluster, client, corpus, dictionary, expected):
    with Client(cluster, direct_to_workers=False, set_as_default=False) as indirect:
        for name, train in TRAIN.items():
            assert content(train(corpus, dictionary, client=indirect)) == expected[name]


def test_workers_that_the_client_cannot_connect_to(client, corpus, dictionary, expected, monkeypatch):
    real = Client._scatter

    async def refusing(self, *arguments, direct=None, **options):
        if direct:
            raise OSError("no route to host")
        return await real(self, *arguments, direct=direct, **options)

    monkeypatch.setattr(Client, "_scatter", refusing)
    assert content(lda(corpus, dictionary, client=client)) == expected["lda"]


@pytest.mark.parametrize("model", TRAIN)
def test_a_worker_in_this_process_with_two_threads(threads_client, corpus, dictionary, expected, model):
    assert content(TRAIN[model](corpus, dictionary, client=threads_client)) == expected[model]


# Workers come and go


def pids(client: Client) -> dict[str, int]:
    return client.run(os.getpid)


@pytest.mark.long
@pytest.mark.parametrize("model", TRAIN)
def test_workers_are_killed_in_mid_training(client, corpus, dictionary, expected, model):
    """First one of them, then both."""
    running = pids(client)
    events = 0

    def kill(event) -> None:
        nonlocal events
        events += 1
        victims = {3: list(running.values())[:1], 6: list(running.values())[1:]}.get(events, [])
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

    assert content(TRAIN[model](corpus, dictionary, client=client, progress=kill)) == expected[model]
    assert events > 6


@pytest.mark.long
def test_scaling(cluster, client, corpus, dictionary, expected, monkeypatch):
    engines: list[DaskEngine] = []
    real = DaskEngine.__enter__
    monkeypatch.setattr(DaskEngine, "__enter__", lambda engine: engines.append(engine) or real(engine))
    sizes = iter([3, 1, 2])

    def scale(event) -> None:
        if event["updates"] % 3 == 0 and (size := next(sizes, None)) is not None:
            cluster.scale(size)
            wait_until(lambda: engines[0].num_workers == size, lambda: engines[0].num_workers)

    assert content(lda(corpus, dictionary, client=client, progress=scale)) == expected["lda"]
    assert next(sizes, None) is None


@pytest.mark.long
def test_retired_workers(corpus, dictionary, expected):
    """Dask moves their data to others, and nothing is computed twice."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50, memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        rounds = 0

        def retire(event) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 8:
                client.retire_workers(list(cluster.scheduler.workers)[:1])

        assert content(lsi(corpus, dictionary, client=client, progress=retire)) == expected["lsi"]
        assert len(cluster.scheduler.workers) == 1


@pytest.mark.long
def test_an_adaptive_cluster_that_has_no_worker(corpus, dictionary, expected):
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=1, dashboard_address=None, silence_logs=50, memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.adapt(minimum=0, maximum=2)
        assert content(lsi(corpus, dictionary, client=client)) == expected["lsi"]


def test_more_workers_than_the_client_remembers(corpus, dictionary):
    """`Client.scheduler_info` knows five."""
    with (
        LocalCluster(
            n_workers=7, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        DaskEngine(client) as engine,
    ):
        wait_until(lambda: engine.num_workers == 7)


def test_no_worker_within_the_time_that_dask_is_given(corpus, dictionary):
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as client,
        dask.config.set({"distributed.scheduler.no-workers-timeout": "200ms"}),
        pytest.raises(RuntimeError, match=r"has no worker, and none joined within 0\.2 s.*scale"),
    ):
        lda(corpus, dictionary, client=client)


# Kernels that misbehave


@dataclass(frozen=True, slots=True, eq=False)
class CountParams:
    """What `Count` does in some block."""

    mode: str
    path: str
    width: int = 1


class Count:
    """Counts documents, and BLAS threads; raises, ends its process or waits, if it is told to."""

    name: ClassVar[str] = "count"
    version: ClassVar[int] = 1
    params: ClassVar[type] = CountParams
    limits: ClassVar[dict[str, int]] = {"max_docs": 50}
    least_job_cost: ClassVar[float] = 0.0
    counts: ClassVar[bool] = False
    sums: ClassVar[bool] = True

    @staticmethod
    def pack(block: Chunk) -> Chunk:
        return block

    @staticmethod
    def prepare(rows, params, out=None):
        return rows.copy()

    def __init__(self, params, words, table, table_row) -> None:
        self._params, self._words = params, words
        self._counts = np.zeros((table_row.size, 1))
        self._lock = threading.Lock()

    def add(self, block, key) -> None:
        params = self._params
        if key == (0, 100):
            if params.mode == "raise":
                raise ValueError("this document is bad")
            if params.mode == "overflow":
                with Path(params.path).open("a") as calls:
                    calls.write("!")
                raise OverflowError("term id 3: a sum is not finite")
            if params.mode == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if params.mode == "die once" and not Path(params.path).exists():
                Path(params.path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        with self._lock:
            np.add.at(self._counts[:, 0], block.indices, 1.0)

    def result(self) -> Partial:
        pools = threadpoolctl.threadpool_info()
        blas = max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)
        return Partial(self._words, self._counts[self._words], {"more": blas - 1})

    @classmethod
    def warm(cls) -> None:
        """There is nothing to compile."""


class Counting(Session):
    kernel = Count


def count(engine, corpus, mode="", path: Any = "") -> tuple[np.ndarray, dict]:
    """One round of `Count`."""
    with Counting(f"counting-{mode}", engine, NUM_TERMS) as session:
        total = GridSum(NUM_TERMS, 1, 1.0)
        rows = lambda words: np.ones((len(words), 1))  # noqa: E731
        round_ = session.open_sum(CountParams(mode, str(path)), total, rows)
        for chunk in chunks(corpus, 300, NUM_TERMS, counts=True):
            session.add(round_, session.keep(chunk))
        session.seal(round_)
        round_.wait()
        return total.values(), round_.extras


def test_a_kernel_of_somebody_elses(client, corpus):
    """Document frequencies, of a class that workers do not have."""
    with DaskEngine(client) as engine, ThreadsEngine(2) as threads:
        counts, _ = count(engine, corpus)
        np.testing.assert_array_equal(counts, count(threads, corpus)[0])
    frequencies = np.bincount([id for document in corpus for id, _ in document], minlength=NUM_TERMS)
    np.testing.assert_array_equal(counts[:, 0], frequencies)


def test_an_error_reaches_the_caller_with_its_worker_and_traceback(client, corpus):
    with DaskEngine(client) as engine:
        with pytest.raises(RuntimeError) as raised:
            count(engine, corpus, "raise")
        message = str(raised.value)
        assert "chunk 0, documents 100-149: failed on Dask worker" in message
        assert any(address in message for address in client.run(lambda: 0))
        assert "Traceback" in message
        assert 'raise ValueError("this document is bad")' in message
        count(engine, corpus)  # and the cluster serves on


def test_an_error_of_documents_is_that_of_threads_and_not_tried_again(client, corpus, tmp_path):
    errors = []
    for make in (lambda: ThreadsEngine(1), lambda: DaskEngine(client)):
        path = tmp_path / f"{len(errors)}"
        with make() as engine:
            with pytest.raises(OverflowError) as raised:
                count(engine, corpus[:300], "overflow", path)
            assert path.read_text("utf-8") == "!"
            errors.append(str(raised.value).rpartition(": term id")[::2])
            count(engine, corpus)
    (here, said), (there, also_said) = errors
    assert said == also_said == " 3: a sum is not finite"
    assert "documents 100-149" in there
    assert here.startswith("chunk 0, documents 0-49; ")


def test_a_worker_ends_in_the_middle_of_a_job(client, corpus, tmp_path):
    with DaskEngine(client) as engine:
        counts, _ = count(engine, corpus, "die once", tmp_path / "died")
        assert (tmp_path / "died").exists()
        np.testing.assert_array_equal(counts, count(engine, corpus)[0])


@pytest.mark.long
def test_a_block_that_ends_every_worker(client, corpus):
    with DaskEngine(client) as engine, pytest.raises(RuntimeError) as raised:
        count(engine, corpus, "die")
    message = str(raised.value)
    assert "chunk 0, documents 100-149: every Dask worker that computed it ended" in message
    assert message.count("tcp://") == 3


def test_a_round_is_given_up(client, corpus):
    """What it has on workers goes, and the next one is right."""
    with DaskEngine(client) as engine:
        with Counting("given up", engine, NUM_TERMS) as session:
            round_ = session.open_sum(
                CountParams("", ""), GridSum(NUM_TERMS, 1, 1.0), lambda words: np.ones((len(words), 1))
            )
            session.add(round_, session.keep(as_chunk(corpus, NUM_TERMS)))
        assert count(engine, corpus)[0].sum() == sum(map(len, corpus))


def test_blas_has_one_thread(threads_client, corpus):
    """In a worker that no nanny has told so."""
    with threadpoolctl.threadpool_limits(2, "blas"):
        pools = threadpoolctl.threadpool_info()
        before = [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]
        if max(before) == 1:
            pytest.skip("BLAS has one thread anyway, on this machine")
        with DaskEngine(threads_client) as engine:
            assert count(engine, corpus)[1]["more"] == 0
        pools = threadpoolctl.threadpool_info()
        assert [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"] == before


@pytest.mark.parametrize("kernel", [EStep, Product])
def test_jobs_write_to_nothing_that_they_are_given(threads_client, corpus, kernel):
    """Dask sends it on, and in this process it is ours."""
    block = as_chunk(corpus[:100], NUM_TERMS)
    words, packed = block.words(), kernel.pack(block)
    rows = np.random.default_rng(0).gamma(1.0, 1.0, (len(words), 4)).astype(np.float32)
    params: Any = ProductParams(4, 2.0**-20, "float32")
    if kernel is EStep:
        params = EStepParams(np.full(4, 0.25), rows.sum(axis=0, dtype=float), "float32", 20, 1e-3, 0)
    parcels = Parcel(SharedRows(params, words, rows)), Parcel(packed)
    before = pickle.dumps((params, words, rows, packed))
    jobs = [
        threads_client.submit(compute_job, kernel, NUM_TERMS, [(0, 0)], *parcels, pure=False)
        for _ in range(2)
    ]
    first, second = (job.result().content for job in jobs)
    assert pickle.dumps((params, words, rows, packed)) == before
    assert first.steps.tobytes() == second.steps.tobytes()


# What travels


@given(
    st.lists(
        st.lists(st.sampled_from([0, 1, -5, 2**31 - 1, -(2**31), 2**40]), min_size=3, max_size=3), max_size=8
    )
)
def test_what_is_narrowed_row_by_row_comes_back(table):
    steps = np.array(table, dtype=np.float64).reshape(-1, 3)
    partial = Partial(np.arange(len(steps), dtype=np.int32), steps, {"documents": 3})
    back = widened(pickle.loads(pickle.dumps(narrowed(partial))))
    np.testing.assert_array_equal(back.steps, steps)
    assert back.extras == partial.extras


def test_one_wide_cell_does_not_double_a_table():
    steps = np.ones((1000, 50))
    steps[3, 7] = 2.0**40
    assert narrowed(Partial(np.arange(1000, dtype=np.int32), steps)).nbytes < 0.52 * steps.nbytes


def test_arrays_arrive_aligned_and_writable():
    raw = np.zeros(8 * 9 + 1, np.uint8)
    crooked = raw[1:].view(np.float64)
    crooked.flags.writeable = False
    chunk = Chunk(np.array([0, 9]), np.arange(9, dtype=np.int32), crooked, 9)
    data = _aligned(chunk).data
    assert data.flags.aligned
    assert data.flags.writeable
    assert sys.getsizeof(Parcel(chunk)) > chunk.nbytes


def faults(table_bytes: int = 1 << 20) -> int:
    """The page faults of taking and freeing a table again and again, after the first time."""
    import resource

    np.ones(table_bytes, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(table_bytes, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_stays_on_workers_during_a_training_and_goes_after_it(client):
    def of_workers() -> list[int]:
        return list(client.run(faults).values())

    assert min(of_workers()) > 10_000
    with DaskEngine(client) as engine:
        wait_until(lambda: engine.num_workers == 2)
        assert max(of_workers()) < 2_000
    wait_until(lambda: min(of_workers()) > 10_000)


def stays() -> int:
    """How many engines prepared this worker and are there still."""
    return len(dasktasks._stays)


def test_a_client_that_ends_leaves_workers_as_they_were(cluster, client):
    """As a program does that is killed: Dask releases what it had, and nobody of ours is asked."""
    with Client(cluster, set_as_default=False) as other:
        engine = DaskEngine(other).__enter__()
        wait_until(lambda: engine.num_workers == 2)
        assert set(client.run(stays).values()) == {1}
    try:
        wait_until(lambda: set(client.run(stays).values()) == {0})
    finally:
        engine.close()


@pytest.mark.parametrize(("where", "what"), [("_prepared", "wait"), ("_watcher", "start")])
def test_an_interruption_while_an_engine_is_entered(client, monkeypatch, where, what):
    """Nothing goes on that nobody could end."""
    engine = DaskEngine(client)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(engine, where), what, interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.__enter__()
    assert not engine._watcher.is_alive()
    wait_until(lambda: set(client.run(stays).values()) == {0})


def test_a_thread_that_watches_cannot_be_started(client, monkeypatch):
    engine = DaskEngine(client)

    def start() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine._watcher, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        engine.__enter__()


# Workers that are busy with others' tasks


def wait_for(path: str) -> bool:
    """A task of somebody else, that ends when there is a file; whether it was there in time."""
    deadline = time.monotonic() + PATIENCE / 2
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return Path(path).exists()


@pytest.fixture
def occupy(client, tmp_path, monkeypatch) -> Iterator[Callable[[], Any]]:
    """Occupies one worker; when this ends, it must still have been occupied."""
    monkeypatch.setattr(engine_module, "Schedule", partial(Schedule, overdue_after=0.1))
    tasks = []

    def occupy() -> None:
        address = min(client.scheduler_info()["workers"])
        task = client.submit(wait_for, str(tmp_path / "go on"), workers=[address], pure=False, priority=100)
        wait_until(lambda: address in str(client.processing()) and client.processing()[address])
        tasks.append(task)

    yield occupy
    done = [task.done() for task in tasks]
    (tmp_path / "go on").touch()
    assert all(task.result() for task in tasks)
    assert done == [False]
    tasks.clear()


def test_an_evaluation_with_a_worker_that_is_busy_with_other_things(client, corpus, dictionary, occupy):
    """What is asked for is waited for one by one, and so overtaken long before the last comes."""
    model = lda(corpus[:300], dictionary, passes=1)
    state = model.random_state.get_state()
    expected = [part.tobytes() for part in model.transform(corpus * 2, chunksize=100)]
    model.random_state.set_state(state)
    found = model.transform(corpus * 2, chunksize=100, client=client)
    first = next(found).tobytes()
    occupy()
    assert [first, *(part.tobytes() for part in found)] == expected


def test_a_training_with_a_worker_that_is_busy_with_other_things(
    client, corpus, dictionary, expected, occupy, monkeypatch
):
    """It is overtaken once, and waited for no more."""
    engines: list[DaskEngine] = []
    real = DaskEngine.__enter__
    monkeypatch.setattr(DaskEngine, "__enter__", lambda engine: engines.append(engine) or real(engine))
    updates = 0

    def progress(event) -> None:
        nonlocal updates
        updates += 1
        if updates == 2:
            occupy()

    model = lda(corpus, dictionary, client=client, progress=progress)
    assert content(model) == expected["lda"]
    assert updates > 10
    assert 1 <= engines[0]._schedule.stats.overtaken <= engines[0]._schedule._slots


# What is told


class Told(EngineObserver):
    def __init__(self) -> None:
        self.jobs: list[JobRecord] = []

    def job_ended(self, record: JobRecord) -> None:
        self.jobs.append(record)


def test_who_watches_is_told_of_each_job(client, corpus, dictionary):
    watched = Told()
    with told(watched):
        lda(corpus, dictionary, client=client)
    assert {job.outcome for job in watched.jobs} <= {"accepted", "discarded"}
    jobs = [job for job in watched.jobs if job.outcome == "accepted"]
    assert sum(job.documents for job in jobs) == 2 * len(corpus)
    assert {job.kernel for job in jobs} == {"lda"}
    assert {job.worker.partition("(")[2].rstrip(")") for job in jobs} <= set(client.run(stays))
    assert all(job.bytes_sent and job.bytes_received and job.compute_seconds > 0 for job in jobs)


def test_workers_with_other_versions_are_not_used(client, corpus, dictionary, monkeypatch):
    real = engine_module.versions
    monkeypatch.setattr(engine_module, "versions", lambda: real() | {"numpy": "0.1", "kernel lda": "x"})
    with pytest.raises(RuntimeError, match=r"no worker .* can be used: .*numpy is .* there and 0\.1 here"):
        lda(corpus, dictionary, client=client)


def compute_with(instructions: str) -> None:
    """Let a worker, on that worker, take itself for one without numba, on such a CPU."""
    from distcorpus.kernels import kind

    kind.compiled_kernels = lambda: None
    kind.instructions = lambda: instructions


def compute_as_before() -> None:
    from importlib import reload

    from distcorpus.kernels import kind

    reload(kind)


@pytest.fixture
def two_kinds(client) -> Iterator[None]:
    addresses = sorted(client.scheduler_info()["workers"])
    for address, instructions in zip(addresses, ["AVX2", "AVX512F"], strict=True):
        client.run(compute_with, instructions, workers=[address])
    yield
    client.run(compute_as_before)


def test_workers_of_two_kinds_do_not_train_together(two_kinds, client, corpus, dictionary, expected, caplog):
    assert content(lda(corpus, dictionary, client=client)) == expected["lda"]
    refused = [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]
    assert len(refused) == 1
    assert "its kernels are numpy" in refused[0]
    assert "AVX2, openblas" in refused[0]
    assert "AVX512F, openblas" in refused[0]
    assert "install numba on all workers" in refused[0]


def test_numba_has_a_version_where_kernels_are_compiled(monkeypatch):
    import numba

    assert dasktasks.versions()["numba"] == numba.__version__
    monkeypatch.setattr(dasktasks, "compiled_kernels", lambda: None)
    assert dasktasks.versions()["numba"] == "not used"


# Clients


def train_in_a_task(which: str, corpus, dictionary) -> bytes:
    if which == "active":
        return content(lda(corpus, dictionary, client="active"))
    if which == "get_client":
        return content(lda(corpus, dictionary, client=distributed.get_client()))
    with distributed.worker_client() as client:
        return content(lda(corpus, dictionary, client=client))


@pytest.mark.parametrize("which", ["active", "get_client", "worker_client"])
def test_a_training_inside_a_task(threads_client, client, corpus, dictionary, expected, which):
    """On a worker with one thread, which it has to leave to its own jobs."""
    address = next(iter(client.run(lambda: 0)))
    task = client.submit(
        train_in_a_task, which, corpus, dictionary, workers=[address], allow_other_workers=False, pure=False
    )
    assert task.result(timeout=PATIENCE) == expected["lda"]
    assert client.submit(lambda: 1, workers=[address], pure=False).result(timeout=PATIENCE) == 1


def test_the_active_client(client, corpus, dictionary, expected):
    assert content(lda(corpus, dictionary, client="active")) == expected["lda"]


def test_no_client_is_picked_up_in_silence(client, corpus, dictionary, monkeypatch):
    monkeypatch.setattr(DaskEngine, "__enter__", lambda engine: pytest.fail("it was"))
    lda(corpus[:300], dictionary, passes=1)


@pytest.mark.parametrize("model", [LdaModel, LsiModel])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"distributed": True}, ValueError, "client and distributed=True: give client alone"),
        ({"ns_conf": {"host": "x"}}, ValueError, "client and ns_conf=.*: give client alone"),
        ({"workers": 2}, ValueError, "client and workers=2: give client alone"),
        ({"client": "tcp://host"}, TypeError, r"client is a str: give a dask.distributed.Client"),
    ],
)
def test_contradictions_are_refused(module_client, dictionary, model, options, error, message):
    with pytest.raises(error, match=message):
        model(id2word=dictionary, **{"client": module_client, **options})


def test_transform_takes_one_place(module_client, corpus, dictionary):
    model = lda(corpus[:150], dictionary, passes=1)
    for distributed_ in (True, False):
        with pytest.raises(ValueError, match="client and distributed="):
            model.transform(corpus, distributed=distributed_, client=module_client)


def test_clients_of_no_use_are_refused(cluster, dictionary, monkeypatch):
    client = Client(cluster, set_as_default=False)
    client.close()
    with pytest.raises(ValueError, match="client is closed: give a client that is connected"):
        LdaModel(id2word=dictionary, client=client)

    async def use() -> None:
        async with Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as coroutines:
            with pytest.raises(ValueError, match=r"client is asynchronous.*give Client"):
                LdaModel(id2word=dictionary, client=coroutines)

    import asyncio

    asyncio.run(use())

    def no_client() -> None:
        raise ValueError("No clients found")

    monkeypatch.setattr(distributed, "get_client", no_client)
    with pytest.raises(ValueError, match='client="active", but there is no Dask client'):
        LsiModel(id2word=dictionary, client="active")


def test_without_dask_the_remedy_is_named(dictionary, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "distcorpus.engines.dask")
    with pytest.raises(ImportError, match=r"pip install 'distcorpus\[dask\]'"):
        LdaModel(id2word=dictionary, client="active")


def test_nothing_of_dask_is_loaded_where_it_is_not_used():
    program = "import sys, distcorpus.models; print([m for m in ('dask', 'distributed') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("model", TRAIN)
def test_a_client_is_not_saved(client, corpus, dictionary, model, tmp_path):
    trained = TRAIN[model](corpus[:150], dictionary, client=client)
    trained.save(str(tmp_path / "model"))
    loaded = type(trained).load(str(tmp_path / "model"))
    for other in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained)), loaded):
        assert other.client is None
        assert content(other) == content(trained)
    assert trained.client is client


# The scheduler is lost


def start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def lost_at_the_fourth_update(client: Client, corpus, dictionary, lose: Callable[[], Any]) -> LdaModel:
    """A model whose training was given up, with one clear error."""
    lost_at = 0.0

    def progress(event) -> None:
        nonlocal lost_at
        if event["updates"] == 4:
            lost_at = time.monotonic()
            lose()

    model = lda(None, dictionary, client=client, progress=progress)
    with pytest.raises(RuntimeError, match=r"the Dask scheduler .* is lost: .*a new Client"):
        model.update(corpus)
    assert 0 < lost_at < time.monotonic() < lost_at + 15
    assert model.num_updates == 600
    return model


def goes_on(model: LdaModel, corpus) -> LdaModel:
    model.client, model.progress = None, False
    model.update(corpus, resume=True)
    return model


def test_a_client_that_is_closed(cluster, client, corpus, dictionary, expected):
    other = Client(cluster, set_as_default=False)
    model = lost_at_the_fourth_update(other, corpus, dictionary, other.close)
    assert content(goes_on(model, corpus)) == expected["lda"]


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_scheduler_is_one_clear_error(corpus, dictionary, expected, monkeypatch, how):
    """The model is as after its latest update, and goes on from there."""
    monkeypatch.setattr(engine_module, "SCHEDULER_TIMEOUT", 3.0)
    monkeypatch.setattr(engine_module, "ANSWER_WITHIN", 2.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
    worker = start("dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    try:
        with Client(address, timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
            model = lost_at_the_fourth_update(client, corpus, dictionary, lambda: os.kill(scheduler.pid, how))
            scheduler.kill()
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert content(goes_on(model, corpus)) == expected["lda"]

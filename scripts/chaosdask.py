"""The Dask side of ``chaos.py``: what happens to the workers of a Dask cluster while it trains."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import chaos
import corpora
from dask import config
from distributed import Client, LocalCluster
from gensim.corpora import Dictionary
from gensim.models import TfidfModel

from distcorpus import models
from distcorpus.engines import dask, dasksums

#: Workers that there should be.
WORKERS = 3
#: Seconds after which what was to happen in the midst of something has missed its moment.
MOMENT = 10.0

SCATTER, FETCH, SUM = "killed in mid-scatter", "killed in mid-fetch", "killed in mid-sum"
MERGE = "killed in mid-sum on workers"


class Mischief:
    """Does something to the workers, again and again.

    Parameters
    ----------
    cluster : LocalCluster
    client : Client
        Of the training runs.
    seed : int
    every : float
        Mean seconds between two faults.
    """

    def __init__(self, cluster: Any, client: Any, seed: int, every: float) -> None:
        self.faults: list[chaos.Fault] = []
        self._cluster = cluster
        self._client = client
        self._random = random.Random(seed)
        self._every = every
        self._armed: str | None = None
        self._struck = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.kinds: dict[str, Callable[[], None]] = {
            "killed (SIGKILL)": lambda: os.kill(self._victim(), signal.SIGKILL),
            "stopped (SIGSTOP, SIGCONT)": self._stop,
            "retired (retire_workers)": self._retire,
            "scaled to 0 and back": self._scale,
            "restarted (Client.restart)": lambda: self._client.restart(timeout=30),
            **{moment: self._at(moment) for moment in (SCATTER, FETCH, SUM, MERGE)},
        }

    def __enter__(self) -> Mischief:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        self._thread.join()

    def strike(self, moment: str, address: str) -> None:
        """The engine is in the midst of something with a worker: kill it, if that is wanted."""
        if self._armed == moment:
            self._armed = None
            for nanny in list(self._cluster.workers.values()):
                if nanny.worker_address == address and nanny.pid:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
                        self._struck.set()

    def _victim(self) -> int:
        pids = [nanny.pid for nanny in self._cluster.workers.values() if nanny.pid]
        return int(self._random.choice(pids))

    def _stop(self) -> None:
        pid = self._victim()
        os.kill(pid, signal.SIGSTOP)
        try:
            self._ending.wait(self._random.uniform(*chaos.PAUSES))
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _retire(self) -> None:
        self._client.retire_workers([self._random.choice(list(self._cluster.scheduler.workers))])

    def _scale(self) -> None:
        self._cluster.scale(0)
        self._ending.wait(self._random.uniform(0.5, 4.0))

    def _at(self, moment: str) -> Callable[[], None]:
        def wait() -> None:
            self._struck.clear()
            self._armed = moment
            if not self._struck.wait(MOMENT):
                self._armed = None
                raise LookupError("nothing was under way")

        return wait

    def _run(self) -> None:
        kinds = list(self.kinds)
        while not self._ending.wait(self._random.expovariate(1 / self._every)):
            self._cluster.scale(WORKERS)
            if not self._cluster.scheduler.workers:
                continue
            kind = self._random.choice(kinds)
            at = time.monotonic()
            try:
                self.kinds[kind]()
            except (LookupError, ProcessLookupError, TimeoutError):
                continue  # there was none to do it to
            finally:
                self._cluster.scale(WORKERS)
            self.faults.append(chaos.Fault(kind, at))
        self._cluster.scale(WORKERS)


@contextmanager
def watched(mischief: Mischief) -> Iterator[None]:
    """Let the mischief know what the engine is in the midst of.

    Every other round is added up on the workers, few as they are.
    """
    scattered, take_in, fetch = (
        dask.DaskEngine._scattered,
        dask.DaskEngine._take_in,
        dask.get_data_from_worker,
    )
    sum_on_workers, submit = dask.DaskEngine._sum_on_workers, dask._SumDriver.submit
    from_workers, fan_in = dasksums.FROM_WORKERS, dasksums.FAN_IN

    async def scattering(engine: Any, contents: Any, address: str, direct: bool) -> Any:
        mischief.strike(SCATTER, address)
        return await scattered(engine, contents, address, direct)

    async def fetching(rpc: Any, keys: Any, worker: str, **options: Any) -> Any:
        mischief.strike(FETCH, worker)
        return await fetch(rpc, keys, worker, **options)

    def taking_in(engine: Any, worker: Any, *rest: Any) -> None:
        mischief.strike(SUM, worker.address)
        take_in(engine, worker, *rest)

    def choosing(engine: Any, round_: Any) -> Any:
        return sum_on_workers(engine, round_) if round_.number % 2 else None

    async def submitting(driver: Any, worker: Any, *rest: Any) -> Any:
        mischief.strike(MERGE, worker.address)
        return await submit(driver, worker, *rest)

    dasksums.FROM_WORKERS, dasksums.FAN_IN = 0, 2
    dask.DaskEngine._sum_on_workers = choosing  # type: ignore[assignment, method-assign]
    dask._SumDriver.submit = submitting  # type: ignore[assignment, method-assign]
    dask.DaskEngine._scattered = scattering  # type: ignore[assignment, method-assign]
    dask.DaskEngine._take_in = taking_in  # type: ignore[assignment, method-assign]
    dask.get_data_from_worker = fetching
    try:
        yield
    finally:
        dasksums.FROM_WORKERS, dasksums.FAN_IN = from_workers, fan_in
        dask.DaskEngine._sum_on_workers = sum_on_workers  # type: ignore[method-assign]
        dask._SumDriver.submit = submit  # type: ignore[method-assign]
        dask.DaskEngine._scattered = scattered  # type: ignore[method-assign]
        dask.DaskEngine._take_in = take_in  # type: ignore[method-assign]
        dask.get_data_from_worker = fetch


def run(
    make: Callable[[Any], Mapping[str, chaos.Training]], *, seconds: float, seed: int, every: float
) -> chaos.Report:
    """Train again and again for some time, all models at once, on a Dask cluster whose workers suffer.

    Parameters
    ----------
    make : callable
        Returns the training runs by name of the model, given a client; for None they need no cluster.
    seconds, seed, every
        As `chaos.chaos` takes them.
    """
    quiet = {model: train() for model, train in make(None).items()}
    with (
        # LocalCluster gives up a worker that was lost this long ago and is lost again at that moment.
        config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50, memory_limit=0
        ) as cluster,
        Client(cluster) as client,
        Mischief(cluster, client, seed, every) as mischief,
        watched(mischief),
    ):
        report = chaos.Report(mischief.faults, kinds=list(mischief.kinds))
        chaos.train_until(time.monotonic() + seconds, make(client), quiet, report)
        wait_until_empty(client)
    return report


def wait_until_empty(client: Any) -> None:
    """Wait until nothing is left on the workers.

    Raises
    ------
    RuntimeError
        If something stays.
    """
    deadline = time.monotonic() + 60.0
    while any(kept := client.run(lambda dask_worker: list(dask_worker.data), on_error="ignore").values()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"left on the workers: {kept}")
        time.sleep(0.2)


def trainings(
    dictionary: Dictionary, counts: list[corpora.BoW], *, topics: int, chunksize: int, passes: int
) -> Callable[[Any], dict[str, chaos.Training]]:
    """Return what makes the training runs of a corpus for a client."""
    weigh = TfidfModel(dictionary=dictionary)
    tfidf = [weigh[document] for document in counts]

    def make(client: Any) -> dict[str, chaos.Training]:
        options: dict[str, Any] = {"num_topics": topics, "chunksize": chunksize, "client": client}

        def lda() -> bytes:
            plan: dict[str, Any] = {"random_state": 1, "update_chunks": 4, "passes": passes}
            model = models.LdaModel(counts, id2word=dictionary, **plan, **options)
            return bytes(model.state.sstats.tobytes())

        def lsi() -> bytes:
            model = models.LsiModel(tfidf, id2word=dictionary, **options)
            return bytes(model.projection.u.tobytes() + model.projection.s.tobytes())

        return {"LDA": lda, "LSI": lsi}

    return make

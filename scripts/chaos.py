"""Train LDA and LSI while everything happens to the workers, and compare the result's bytes with a quiet run.

``python scripts/chaos.py --minutes 10 --seed 1`` trains gensim's own models of 20 Newsgroups on a cluster of
this machine, again and again, two clients at once. Meanwhile workers are killed, stopped, asked to leave,
started, cut off and frozen at random. It prints what was done to them, how often, and how many of these
faults the training runs survived that were under way: that is, ended with the bytes of the quiet run.

With ``--engine dask`` it is workers of a Dask cluster, which are killed in the midst of this and that,
stopped, retired, scaled to none and back and restarted, and models of `distcorpus.models` with ``client=``.

With ``--dispatcher`` the dispatcher is killed too, and started again with ``--resume``. It is then the models
of `distcorpus.models` that are trained, each on a generator, since gensim's own cannot outlive a dispatcher.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import corpora
from gensim.corpora import Dictionary
from gensim.models import LdaModel, LsiModel, TfidfModel

from distcorpus import LocalCluster, models
from distcorpus.wire import CommunicationError, find, lookup, names

#: Seconds for which a worker is stopped or frozen: around the ping's deadline, so that some are only late and
#: the others are taken for silent.
PAUSES = (1.0, 9.0)
#: Seconds between two looks at the workers.
POLL = 0.05

T = TypeVar("T")
Training = Callable[[], bytes]


class Relay:
    """Carries TCP connections to a worker, and cuts or freezes them when told to.

    It listens on 127.0.0.1; the worker has the same port on 127.0.0.2.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def used(self) -> bool:
        """Whether anybody is connected to the worker."""
        return bool(self._sockets)

    def cut(self) -> None:
        """Break every connection; new ones may be made."""
        with self._lock:
            cut, self._sockets = self._sockets, set()
        for sock in cut:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Carry nothing from now on; the connections stay."""
        self._flows.clear()

    def thaw(self) -> None:
        """Carry on."""
        self._flows.set()

    def close(self) -> None:
        """Break every connection and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.thaw()

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.2", self.port))
            except OSError:
                outer.close()
                continue
            with self._lock:
                self._sockets |= {inner, outer}
            for source, target in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        buffer = memoryview(bytearray(1 << 18))
        with suppress(OSError):
            while count := source.recv_into(buffer):
                self._flows.wait()
                target.sendall(buffer[:count])
        with self._lock:
            self._sockets.discard(source)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Worker:
    """A worker process that the dispatcher reaches through a relay."""

    def __init__(self, cluster: LocalCluster, name: str) -> None:
        self.paused_until: float | None = None
        self.leaving = False
        self.relay = Relay()
        port = str(self.relay.port)
        command = [sys.executable, "-m", "distcorpus", "worker", "--no-broadcast", "--name", name]
        command += ["--bind", "127.0.0.2", "--bind-port", port, "--advertise", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [*command, "--blas-threads", "1"],
            env={**os.environ, **cluster.environ("worker")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def works(self) -> bool:
        """Whether the dispatcher has it and nothing is wrong with it."""
        return self.alive and self.relay.used and not self.leaving and self.paused_until is None

    def kill(self) -> None:
        self._process.kill()

    def leave(self) -> None:
        self.leaving = True
        self._process.terminate()

    def stop(self, seconds: float) -> None:
        self.paused_until = time.monotonic() + seconds
        self._process.send_signal(signal.SIGSTOP)

    def freeze(self, seconds: float) -> None:
        self.paused_until = time.monotonic() + seconds
        self.relay.freeze()

    def go_on(self) -> None:
        """End what `stop` or `freeze` began."""
        self.paused_until = None
        self._process.send_signal(signal.SIGCONT)
        self.relay.thaw()

    def close(self) -> None:
        """Leave neither process nor connection behind."""
        self._process.kill()
        self._process.wait()
        self.relay.close()


class Dispatcher:
    """A cluster's dispatcher, which is killed and started again at the same address.

    Parameters
    ----------
    cluster : LocalCluster
    options : sequence of str
        More of its command line.
    """

    def __init__(self, cluster: LocalCluster, options: Sequence[str]) -> None:
        uri = lookup(find(), names.DISPATCHER)
        assert uri is not None  # the cluster has one
        self._command = [sys.executable, "-m", "distcorpus", "dispatcher", "--no-broadcast"]
        self._command += ["--bind-port", uri.rsplit(":", 1)[1], *options]
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    def kill_and_restart(self) -> None:
        if self._process is None:
            os.kill(self._cluster.dispatcher_pid, signal.SIGKILL)
        else:
            self.close()
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, **self._cluster.environ("dispatcher")},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done, and when."""

    kind: str
    at: float


#: What may be done to a worker that works; `start` is a new worker.
FAULTS: dict[str, Callable[[Worker, float], None]] = {
    "killed (SIGKILL)": lambda worker, seconds: worker.kill(),
    "stopped (SIGSTOP, SIGCONT)": lambda worker, seconds: worker.stop(seconds),
    "asked to leave (SIGTERM)": lambda worker, seconds: worker.leave(),
    "cut off (connections broken)": lambda worker, seconds: worker.relay.cut(),
    "frozen (network silent)": lambda worker, seconds: worker.freeze(seconds),
}
STARTED = "started in mid-training"
DISPATCHER = "dispatcher killed (SIGKILL)"


class Mischief:
    """Workers, and a thread that does something to one of them every `every` seconds.

    Two workers at least are there or being started, and one of those that work is always left alone.

    Parameters
    ----------
    cluster : LocalCluster
        Where they work; its own workers are none.
    seed : int
        Decides what is done, to whom, and how long it lasts.
    every : float
        Mean seconds between two faults.
    most : int
        Most workers at once.
    dispatcher : Dispatcher, optional
        The dispatcher, where it is to suffer too.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        seed: int,
        every: float,
        most: int = 4,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.faults: list[Fault] = []
        self._dispatcher = dispatcher
        self._cluster = cluster
        self._random = random.Random(seed)
        self._every = every
        self._most = most
        self._workers: list[Worker] = []
        self._num_started = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mischief")

    def __enter__(self) -> Mischief:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        for worker in self._workers:
            worker.close()

    def start_workers(self, number: int) -> None:
        """Start workers and wait until the dispatcher has them."""
        for _ in range(number):
            self._start_worker()
        while not all(worker.works for worker in self._workers):
            if not all(worker.alive for worker in self._workers):
                raise RuntimeError("a worker did not start: run 'distcorpus worker' by hand to see why")
            time.sleep(POLL)

    def begin(self) -> None:
        """Let the mischief begin."""
        self._thread.start()

    def end(self) -> None:
        """End it, and let those that are stopped or frozen go on."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for worker in self._workers:
            if worker.paused_until is not None:
                worker.go_on()

    def _start_worker(self) -> None:
        self._workers.append(Worker(self._cluster, f"chaos-{os.getpid()}-{self._num_started}"))
        self._num_started += 1

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(POLL):
            now = time.monotonic()
            for worker in list(self._workers):
                if not worker.alive:
                    worker.close()
                    self._workers.remove(worker)
                elif worker.paused_until is not None and now >= worker.paused_until:
                    worker.go_on()
            if now >= due and self._do_something(now):
                due = now + self._every * self._random.uniform(0.5, 1.5)

    def _do_something(self, now: float) -> bool:
        """Do something to a worker, if one can be spared, or to the dispatcher."""
        staying = [worker for worker in self._workers if not worker.leaving]
        working = [worker for worker in staying if worker.works]
        kinds = [*FAULTS] if len(working) > 1 else []
        if kinds and self._dispatcher is not None:
            kinds.append(DISPATCHER)
        if len(staying) < self._most:
            kinds.append(STARTED)
        if len(staying) < 2:
            kinds = [STARTED]
        if not kinds:
            return False
        kind = self._random.choice(kinds)
        if kind == STARTED:
            self._start_worker()
        elif kind == DISPATCHER and self._dispatcher is not None:
            self._dispatcher.kill_and_restart()
        else:
            FAULTS[kind](self._random.choice(working), self._random.uniform(*PAUSES))
        self.faults.append(Fault(kind, now))
        return True


@dataclass(frozen=True, slots=True)
class Run:
    """One training during the mischief."""

    model: str
    began: float
    ended: float
    outcome: str

    @property
    def good(self) -> bool:
        return self.outcome == "same bytes"


@dataclass
class Report:
    """What was done, and what came of it."""

    faults: list[Fault]
    runs: list[Run] = field(default_factory=list)
    kinds: Sequence[str] = (*FAULTS, STARTED)

    @property
    def good(self) -> bool:
        return bool(self.runs) and all(run.good for run in self.runs)

    def survived(self) -> Counter[str]:
        """Count, by kind, the faults during which no training went wrong."""
        return Counter(
            fault.kind
            for fault in self.faults
            if all(run.good for run in self.runs if run.began <= fault.at <= run.ended)
        )

    def __str__(self) -> str:
        times, survived = Counter(fault.kind for fault in self.faults), self.survived()
        kinds = [*self.kinds, *([DISPATCHER] if DISPATCHER in times else [])]
        rows = [(kind, str(times[kind]), str(survived[kind])) for kind in kinds]
        rows.append(("all", str(times.total()), str(survived.total())))
        lines = [f"| {'fault':<28} | times | survived |", f"|{'-' * 30}|------:|---------:|"]
        lines += [f"| {kind:<28} | {number:>5} | {good:>8} |" for kind, number, good in rows]
        for model in dict.fromkeys(run.model for run in self.runs):
            runs = [run for run in self.runs if run.model == model]
            seconds = sum(run.ended - run.began for run in runs) / len(runs)
            outcomes = Counter(run.outcome for run in runs)
            told = "; ".join(f"{number} x {outcome}" for outcome, number in outcomes.items())
            lines.append(f"{model}: {len(runs)} training runs of {seconds:.1f} s on average: {told}")
        return "\n".join(lines)


def chaos(
    trainings: Mapping[str, Training],
    *,
    seconds: float,
    seed: int,
    every: float,
    dispatcher: bool = False,
    tls: bool = False,
    verbose: bool = False,
) -> Report:
    """Train again and again for some time, all models at once, while workers suffer.

    Parameters
    ----------
    trainings : mapping of str to callable
        By name of the model: trains it, and returns the bytes of the result.
    seconds : float
        How long; training runs that are under way then are finished.
    seed : int
        Seeds the faults.
    every : float
        Mean seconds between two faults.
    dispatcher : bool
        Kill the dispatcher too.
    tls : bool
        Speak TLS.
    verbose : bool
        Let the dispatcher log to standard error.
    """
    with ExitStack() as stack:
        options: tuple[str, ...] = ()
        if dispatcher:
            options = ("--spool", stack.enter_context(tempfile.TemporaryDirectory()), "--resume")
        cluster = stack.enter_context(LocalCluster(0, dispatcher_options=options, tls=tls, verbose=verbose))
        victim = None
        if dispatcher:
            victim = Dispatcher(cluster, [*options, *(["--verbose"] if verbose else [])])
            stack.callback(victim.close)
        mischief = stack.enter_context(Mischief(cluster, seed, every, dispatcher=victim))
        mischief.start_workers(3)
        quiet = {model: train() for model, train in trainings.items()}
        report = Report(mischief.faults)
        mischief.begin()
        train_until(time.monotonic() + seconds, trainings, quiet, report)
    return report


def train_until(
    deadline: float, trainings: Mapping[str, Training], quiet: Mapping[str, bytes], report: Report
) -> None:
    """Train again and again, all models at once, and report what came of it against quiet runs."""

    def client(model: str, train: Training) -> None:
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                outcome = "same bytes" if train() == quiet[model] else "OTHER BYTES"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            report.runs.append(Run(model, began, time.monotonic(), outcome))

    clients = [threading.Thread(target=client, args=item) for item in trainings.items()]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


def gensims(
    dictionary: Dictionary, documents: Iterable[corpora.BoW], *, topics: int, chunksize: int, passes: int
) -> dict[str, Training]:
    """Return the training runs of gensim's own LDA and LSI on a corpus.

    LDA is trained in batches: in online training the number of workers decides how many chunks make an
    update, and thus changes the model.
    """
    counts = list(documents)
    weigh = TfidfModel(dictionary=dictionary)
    tfidf = [weigh[document] for document in counts]

    def lda() -> bytes:
        options = {"num_topics": topics, "chunksize": chunksize, "random_state": 1, "distributed": True}
        batch = {"update_every": 0, "passes": passes, "eval_every": None}
        model = LdaModel(counts, id2word=dictionary, **options, **batch)
        return bytes(model.state.sstats.tobytes())

    def lsi() -> bytes:
        options = {"num_topics": topics, "chunksize": chunksize, "distributed": True}
        model = LsiModel(tfidf, id2word=dictionary, **options)
        return bytes(model.projection.u.tobytes() + model.projection.s.tobytes())

    return {"LDA": lda, "LSI": lsi}


def ours(
    dictionary: Dictionary, documents: Iterable[corpora.BoW], *, topics: int, chunksize: int, passes: int
) -> dict[str, Training]:
    """Return the training runs of `distcorpus.models` on a corpus that each of them reads once."""
    counts = list(documents)
    weigh = TfidfModel(dictionary=dictionary)
    tfidf = [weigh[document] for document in counts]

    options: dict[str, Any] = {"num_topics": topics, "chunksize": chunksize, "distributed": True}

    def lda() -> bytes:
        plan: dict[str, Any] = {"random_state": 1, "update_chunks": 4, "passes": passes}
        model = when_there(lambda: models.LdaModel(id2word=dictionary, **plan, **options))
        model.update(iter(counts))
        return bytes(model.state.sstats.tobytes())

    def lsi() -> bytes:
        model = when_there(lambda: models.LsiModel(id2word=dictionary, **options))
        model.add_documents(iter(tfidf))
        return bytes(model.projection.u.tobytes() + model.projection.s.tobytes())

    return {"LDA": lda, "LSI": lsi}


def when_there(make: Callable[[], T]) -> T:
    """Make a model, which asks the dispatcher for its workers, when the dispatcher is there."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return make()
        except (CommunicationError, RuntimeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL)


def main() -> int:
    """Run from the command line; 1 where a training went wrong."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="seeds the faults (default: %(default)s)")
    parser.add_argument(
        "--every", type=float, default=4.0, metavar="SECONDS", help="between faults (default: %(default)g)"
    )
    parser.add_argument("--topics", type=int, default=100, help="of both models (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=100, help="of LDA (default: %(default)s)")
    parser.add_argument(
        "--dispatcher", action="store_true", help="train distcorpus.models, and kill the dispatcher too"
    )
    parser.add_argument(
        "--engine", choices=("pyro", "dask"), default="pyro", help="whose workers (default: %(default)s)"
    )
    parser.add_argument("--tls", action="store_true", help="on a cluster with TLS")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the dispatcher's log")
    options = parser.parse_args()
    try:
        dictionary, documents = corpora.bow(corpora.newsgroups())
    except corpora.CorpusUnavailable as error:
        sys.exit(str(error))
    if options.engine == "dask":
        import chaosdask

        make_for = chaosdask.trainings(
            dictionary, list(documents), topics=options.topics, chunksize=500, passes=options.passes
        )
        report = chaosdask.run(make_for, seconds=60 * options.minutes, seed=options.seed, every=options.every)
        print(report)
        return 0 if report.good else 1
    make = ours if options.dispatcher else gensims
    trainings = make(dictionary, documents, topics=options.topics, chunksize=500, passes=options.passes)
    report = chaos(
        trainings,
        seconds=60 * options.minutes,
        seed=options.seed,
        every=options.every,
        dispatcher=options.dispatcher,
        tls=options.tls,
        verbose=options.verbose,
    )
    print(report)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())

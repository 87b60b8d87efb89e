"""Finding a cluster, and one training on it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from distcorpus.algorithms.chunk import Chunk
from distcorpus.wire import (
    CommunicationError,
    MessageTooLargeError,
    NamingError,
    abort,
    connect,
    remote_traceback,
)
from distcorpus.wire.nameserver import find, lookup

logger = logging.getLogger(__name__)

#: Chunks that are converted ahead of the connection.
CHUNKS_AHEAD = 2
#: Chunks of an evaluation that are on their way, or computed and not looked at yet.
CHUNKS_EVALUATED_AHEAD = 8
#: Seconds that a training whose dispatcher is gone waits for it, or another one, to be started.
RECONNECT_TIMEOUT = 60.0
#: Seconds between two looks for it.
RECONNECT_EVERY = 0.5
#: How often a training's connection may break.
RECONNECTS = 10

T = TypeVar("T")

HOW_TO_START = (
    "Start one with\n"
    "    distcorpus nameserver\n"
    "    distcorpus dispatcher\n"
    "    distcorpus worker\n"
    "(on other hosts with --host of the name server), or on this machine alone with distcorpus.LocalCluster()"
)


class Cluster:
    """Where a cluster is looked for.

    Parameters
    ----------
    ns_conf : mapping, optional
        ``host``, ``port`` and ``broadcast`` of the name server, as gensim's ``ns_conf``; by default that of
        an active `LocalCluster`, else PYRO_NS_HOST, else whoever answers a broadcast.

    Raises
    ------
    TypeError, ValueError
        If `ns_conf` holds anything else.
    """

    def __init__(self, ns_conf: Mapping[str, Any] | None = None) -> None:
        if ns_conf is not None and not isinstance(ns_conf, Mapping):
            raise TypeError(
                f"ns_conf is a {type(ns_conf).__name__}: give a dict with host, port or broadcast"
            )
        self.where = {key: value for key, value in (ns_conf or {}).items() if value is not None}
        unknown = set(self.where) - {"host", "port", "broadcast"}
        if unknown:
            raise ValueError(f"ns_conf has {sorted(unknown)}: it takes host, port and broadcast")

    def connect(self, name: str) -> Any:
        """Connect to the object that is registered under a name.

        Raises
        ------
        RuntimeError
            If there is no cluster, or none that answers.
        """
        try:
            nameserver = find(**self.where)
            uri = lookup(nameserver, name)
            if uri is None:
                raise NamingError("the name server knows no dispatcher")
            return connect(uri)
        except (CommunicationError, NamingError) as error:
            looked = (
                f"where ns_conf={self.where} says"
                if self.where
                else "at PYRO_NS_HOST, here, and by broadcast"
            )
            raise RuntimeError(
                f"no cluster to train on was found, looking {looked}. {HOW_TO_START}"
            ) from error


@contextmanager
def local_cluster(workers: int) -> Iterator[Cluster]:
    """A cluster of this machine, for a while."""
    from distcorpus.cluster import LocalCluster

    with LocalCluster(n_workers=workers):
        yield Cluster()


def train_on(cluster: Cluster, name: str, attempt: Callable[[Training], T], *, rereadable: bool) -> T:
    """Train on a cluster; where the dispatcher is lost, go on when it is back, or another one.

    Parameters
    ----------
    cluster : Cluster
    name : str
        Of the model's door at the dispatcher.
    attempt : callable
        Trains from where the last attempt came to, and reads the corpus anew.
    rereadable : bool
        Whether it can.

    Raises
    ------
    RuntimeError
        If the dispatcher is lost and does not come back in time, or the corpus is a generator.
    """
    proxy = cluster.connect(name)
    for left in reversed(range(RECONNECTS)):
        try:
            with Training(proxy) as training:
                return attempt(training)
        except CommunicationError as error:
            if remote_traceback(error) or isinstance(error, MessageTooLargeError) or not left:
                raise
            if not rereadable:
                raise RuntimeError(
                    "the dispatcher is gone, and the corpus, a generator, cannot be read again to go on with "
                    "another one: train again, with a corpus that can be read more than once"
                ) from error
            logger.warning(
                "the connection to the dispatcher broke (%s): going on when one is there again, within %g s",
                error,
                RECONNECT_TIMEOUT,
            )
        proxy = _reconnect(cluster, name)
    raise AssertionError("the last attempt returns or raises")


def _reconnect(cluster: Cluster, name: str) -> Any:
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    while True:
        try:
            return cluster.connect(name)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RECONNECT_EVERY)


class Training:
    """One training on a cluster. The connection has a thread of its own, so that Ctrl-C never breaks a call.

    Parameters
    ----------
    proxy : Proxy
        The model's door at the dispatcher.
    """

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="distcorpus")
        self._sent: deque[Future[Any]] = deque()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the door after everything that was put, and return what it returns."""
        self._collect(0)
        return self._caller.submit(getattr(self._proxy, method), *arguments).result()

    def put(self, chunk: Chunk) -> None:
        """Send a chunk; waits while the cluster is too far behind.

        Raises
        ------
        Exception
            What has ended the training.
        """
        self._collect(CHUNKS_AHEAD)
        self._sent.append(self._caller.submit(self._proxy.put, chunk.indptr, chunk.indices, chunk.data))

    def evaluate(self, chunks: Iterable[Chunk]) -> Iterator[np.ndarray]:
        """Yield what the cluster computes of each chunk, in order; others are read and sent meanwhile."""
        ahead = 0
        for chunk in chunks:
            if ahead == CHUNKS_EVALUATED_AHEAD:
                yield self.call("take")
                ahead -= 1
            self.put(chunk)
            ahead += 1
        for _ in range(ahead):
            yield self.call("take")

    def follow(self, told: Callable[[dict[str, Any]], None], timeout: float = 1.0) -> None:
        """Say that all chunks were put and wait for the end of the training, telling what happens in it."""
        self.call("end")
        while True:
            for event in self.call("events", timeout):
                if event["kind"] == "done":
                    return
                told(event)

    def give_up(self) -> None:
        """Forget the chunks that are not sent yet."""
        for future in self._sent:
            future.cancel()
        self._sent.clear()

    def close(self) -> None:
        """End the session, whatever it is doing."""
        self.give_up()
        abort(self._proxy)
        self._caller.shutdown(wait=True, cancel_futures=True)
        self._proxy._pyroRelease()

    def _collect(self, limit: int) -> None:
        """Wait until no more than `limit` chunks are on their way."""
        while len(self._sent) > limit:
            self._sent.popleft().result()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

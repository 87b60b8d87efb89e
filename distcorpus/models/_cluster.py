"""Finding a cluster, and one training on it."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from gensim.corpora import Dictionary, HashDictionary

from distcorpus._text import plural
from distcorpus.algorithms.chunk import Chunk
from distcorpus.corpora.files import DamagedError
from distcorpus.corpora.reference import Reference, StoredChunk
from distcorpus.kernels import Inference
from distcorpus.kernels.build import contradiction, differences, read_build, this_build
from distcorpus.models import _answers
from distcorpus.models._report import runs_on
from distcorpus.training.evaluation import CHUNKS_IN_FLIGHT, EvaluationTask
from distcorpus.wire import (
    CannotSendError,
    CommunicationError,
    ConnectionClosedError,
    MessageTooLargeError,
    NamingError,
    PyroError,
    SlicedCalls,
    abort,
    connect,
    is_false_answer,
    remote_traceback,
)
from distcorpus.wire.location import default_nameserver
from distcorpus.wire.nameserver import find, lookup

logger = logging.getLogger(__name__)

#: Chunks that are on their way to the dispatcher.
CHUNKS_SENT_AHEAD = 2
#: Seconds that a training whose dispatcher is gone waits for it, or another one, to be started.
RECONNECT_TIMEOUT = 60.0
#: Seconds for which an evaluation that found no cluster keeps others from looking for it.
REMEMBERED_GONE = 60.0
#: Seconds between two looks for it.
RECONNECT_EVERY = 0.5
#: Words that are sent, and characters of each where one has very many.
MOST_WORDS, LONGEST_WORD = 1_000_000, 60
#: How often, within so many seconds, a training may lose its dispatcher: it may be what ends it.
RECONNECTS, RECONNECTS_WITHIN = 10, 120.0

T = TypeVar("T")

#: What was said of differences between builds; each once.
_told: set[str] = set()
MOST_TOLD = 100

HOW_TO_START = (
    "Start one with\n"
    "    distcorpus nameserver\n"
    "    distcorpus dispatcher\n"
    "    distcorpus worker\n"
    "(on other hosts with --host of the name server), or on this machine alone with distcorpus.LocalCluster()"
)

OR_HERE = (
    "To compute in this process instead: distributed=False, model.distributed = False for a model that there "
    "is, or DISTCORPUS_DISTRIBUTED=0 in the environment"
)


class Cluster:
    """Where a cluster is looked for.

    Parameters
    ----------
    ns_conf : mapping, optional
        ``host``, ``port`` and ``broadcast`` of the name server, as gensim's ``ns_conf``, or ``address_file``;
        by default that of an active `LocalCluster`, else what DISTCORPUS_ADDRESS_FILE names, else
        PYRO_NS_HOST, else whoever answers a broadcast.

    Raises
    ------
    TypeError, ValueError
        If `ns_conf` holds anything else.
    """

    def __init__(self, ns_conf: Mapping[str, Any] | None = None) -> None:
        if ns_conf is not None and not isinstance(ns_conf, Mapping):
            raise TypeError(
                f"ns_conf is a {type(ns_conf).__name__}: give a dict with host, port, broadcast or "
                "address_file"
            )
        self.where = {key: value for key, value in (ns_conf or {}).items() if value is not None}
        self._gone: tuple[float, Any] = (-np.inf, None)
        unknown = set(self.where) - {"host", "port", "broadcast", "address_file"}
        if unknown:
            raise ValueError(
                f"ns_conf has {sorted(unknown)}: it takes host, port and broadcast, or address_file"
            )
        if "address_file" in self.where and not {"host", "port"}.isdisjoint(self.where):
            raise ValueError("ns_conf has address_file beside host or port: give one or the other")

    def connect(self, name: str) -> Any:
        """Connect to the object that is registered under a name.

        Raises
        ------
        RuntimeError
            If there is no cluster, none that answers, or one of another version.
        """
        try:
            nameserver = find(**self.where)
            uri = lookup(nameserver, name)
            if uri is None:
                raise NamingError("the name server knows no dispatcher")
            found = _met(connect(uri))
            runs_on(nameserver._pyroUri.host, nameserver._pyroUri.port)
            return found
        except PyroError as error:  # also where what answers is no name server, or no dispatcher
            looked = (
                f"where ns_conf={self.where} says"
                if self.where
                else "where DISTCORPUS_ADDRESS_FILE says, or at PYRO_NS_HOST, here, and by broadcast"
            )
            raise RuntimeError(
                f"no cluster to train on was found, looking {looked}: {error}\n{HOW_TO_START}\n{OR_HERE}"
            ) from error

    def remember_gone(self) -> None:
        """Remember for a while that nobody was found."""
        self._gone = time.monotonic(), default_nameserver()

    def is_known_to_be_gone(self) -> bool:
        """Return whether nobody was found a moment ago, at the place where one would look now."""
        when, where = self._gone
        return where == default_nameserver() and time.monotonic() < when + REMEMBERED_GONE

    def reconnect(self, name: str) -> Any:
        """Connect when the dispatcher, or another one, is there again.

        Raises
        ------
        RuntimeError
            If none comes in time.
        """
        deadline = time.monotonic() + RECONNECT_TIMEOUT
        while True:
            try:
                return self.connect(name)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RECONNECT_EVERY)


def _met(proxy: Any) -> Any:
    """Tell a dispatcher of which build this process is, and see that it fits.

    Raises
    ------
    RuntimeError
        They cannot work together.
    """
    ours = this_build()
    try:
        answer = proxy.hello({**ours, "pid": os.getpid()})
        theirs = read_build(answer["build"])
        refusal = contradiction(theirs, ours, "this program")
        elsewhere = answer["may_differ"]
        if type(elsewhere) is not list or not all(type(text) is str for text in elsewhere):
            raise TypeError("what differs is not said in words")
    except (LookupError, TypeError, ValueError) as error:
        raise RuntimeError(f"the dispatcher's answer to 'hello' is refused: {error!r}") from error
    except AttributeError:
        refusal = (
            f"the dispatcher has a version of distcorpus that does not say which it is, this program has "
            f"{ours['distcorpus']} (wire {ours['wire']}), and they do not work together: install the same "
            "one where the dispatcher, its workers and this program run, and start them again"
        )
    if refusal is not None:
        raise RuntimeError(refusal)
    found = differences(ours, theirs, "this program", "the dispatcher") + elsewhere
    if found:
        text = "; ".join(found)
        if text not in _told:
            if len(_told) > MOST_TOLD:
                _told.clear()
            _told.add(text)
            logger.warning(
                "results may differ in their last bits from those of other clusters, and of this program "
                "without one: %s",
                text,
            )
    return proxy


def train_on(cluster: Cluster, name: str, attempt: Callable[[Training], T], *, rereadable: bool) -> T:
    """Train on a cluster; where the dispatcher is lost, go on when it is back, or another one.

    A dispatcher that was started with ``--resume`` goes on itself, and `attempt` does not notice. Otherwise
    there is another attempt.

    Parameters
    ----------
    cluster : Cluster
    name : str
        Of the model's object at the dispatcher.
    attempt : callable
        Trains from where the last attempt came to, and reads the corpus anew.
    rereadable : bool
        Whether it can.

    Raises
    ------
    RuntimeError
        If the dispatcher is lost and does not come back in time, or has lost what a generator gave.
    """
    proxy = cluster.connect(name)
    for left in reversed(range(RECONNECTS)):
        try:
            with Training(proxy, partial(cluster.reconnect, name)) as training:
                return attempt(training)
        except CommunicationError as error:
            if not _is_broken(error) or not left:
                raise
            if training.begun and not rereadable:
                raise RuntimeError(
                    "the dispatcher is gone, and the corpus, a generator, cannot be read again to go on with "
                    "another one: train again, with a corpus that can be read more than once, or with a "
                    "dispatcher that keeps training runs on disk (--spool DIR --resume)"
                ) from error
            _say_broken(error)
        proxy = cluster.reconnect(name)
    raise AssertionError("the last attempt returns or raises")


def words_of(id2word: Any, num_terms: int) -> np.ndarray | None:
    """Return the words of a vocabulary, for those who watch: a line each, in the order of their ids (UTF-8).

    None where it has none, or too many.
    """
    has_words = isinstance(id2word, dict | Dictionary) and not isinstance(id2word, HashDictionary)
    if not has_words or num_terms > MOST_WORDS:
        return None
    if isinstance(id2word, Dictionary):
        id2word = {number: word for word, number in id2word.token2id.items()}
    words = [str(id2word.get(number, "")) for number in range(num_terms)]
    text = "\n".join(words)
    if text.count("\n") >= num_terms or len(text) > MOST_WORDS * 10:
        text = "\n".join(word[:LONGEST_WORD].replace("\n", " ") for word in words)
    return np.frombuffer(text.encode(errors="replace"), np.uint8)


def _is_broken(error: CommunicationError) -> bool:
    """Whether the connection broke, and not the dispatcher or the message is at fault."""
    return not remote_traceback(error) and not isinstance(error, MessageTooLargeError | CannotSendError)


def _invoke(calls: SlicedCalls, method: str, *arguments: Any) -> Any:
    """Call a method, over the connection that there is: Pyro4 would make another one, without a session."""
    if calls.proxy._pyroConnection is None:
        raise ConnectionClosedError("the connection to the dispatcher broke")
    try:
        answer = calls(method, *arguments)
    except PyroError as error:
        if is_false_answer(error):
            raise _answers.refuse(method, str(error)) from error
        raise
    return _answers.check(method, answer)


def _check_result(task: EvaluationTask, chunk: Chunk | StoredChunk, result: np.ndarray) -> None:
    """Refuse what is no gamma of a chunk, or no bound of its blocks."""
    if task.params.bound:
        shape: tuple[int, ...] = (sum(1 for _ in chunk.split(**Inference.limits)),)
        _answers.check_array("take", "the bound", result, shape)
    else:
        _answers.check_array("take", "gamma", result, (chunk.n_docs, task.params.width))


def _say_broken(error: CommunicationError) -> None:
    logger.warning(
        "the connection to the dispatcher broke (%s): going on when one is there again, within %g s",
        error,
        RECONNECT_TIMEOUT,
    )


class Training:
    """One training on a cluster. The connection has a thread of its own, so that Ctrl-C never breaks a call.

    When the dispatcher is killed, and started again with ``--resume``, every method goes on where it was: the
    chunks that the dispatcher may not have are kept here.

    Parameters
    ----------
    proxy : Proxy
        The model's object at the dispatcher.
    reconnect : callable, optional
        Returns a new proxy when the dispatcher is there again; without it a broken connection is an error.

    Attributes
    ----------
    begun : bool
        Whether `begin` has succeeded; before that nobody has to read a corpus.

    Raises
    ------
    CommunicationError
        By every method: the dispatcher is lost, and the training with it.
    """

    def __init__(self, proxy: Any, reconnect: Callable[[], Any] | None = None) -> None:
        self._proxy = proxy
        self._calls = SlicedCalls(proxy)
        self._reconnect = reconnect
        self._broke_at: deque[float] = deque(maxlen=RECONNECTS)
        self.begun = False
        self._token: str | None = None
        self._words: np.ndarray | None = None
        self._caller = ThreadPoolExecutor(1, thread_name_prefix="distcorpus")
        self._num_put = 0
        self._num_there = 0  # chunks that the dispatcher has, or does not need
        #: The chunks after those, on their way.
        self._sent: deque[tuple[Chunk | StoredChunk, Future[Any]]] = deque()
        self._sources: list[Any] = []  # of the documents that the dispatcher was only referred to

    def begin(self, task: dict[str, Any], words: np.ndarray | None = None) -> None:
        """Begin what the protocol's ``begin`` describes; `words`, see `words_of`, are for those who watch."""
        begun = self.call("begin", task)
        self.begun = True
        self._token, self._num_there = begun["token"], begun["chunks"]
        self._words = words
        self._tell_words()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of it after everything that was put, and return what it returns."""
        while True:
            self._collect(0)
            try:
                return self._submit(method, *arguments).result()
            except CommunicationError as error:
                self._go_on(error)

    def put(self, chunk: Chunk | StoredChunk) -> None:
        """Send a chunk, or references to its documents, if the dispatcher needs it; waits while the cluster
        is too far behind.

        Raises
        ------
        Exception
            What has ended the training.
        """
        self._collect(CHUNKS_SENT_AHEAD)
        self._num_put += 1
        if isinstance(chunk, StoredChunk):
            for block in chunk.blocks[:1]:
                if not any(block.source is source for source in self._sources):
                    self._sources.append(block.source)
        if self._num_put > self._num_there:
            self._sent.append((chunk, self._send(chunk)))

    def evaluate(self, task: EvaluationTask, chunks: Iterable[Chunk | StoredChunk]) -> Iterator[np.ndarray]:
        """Yield what the cluster computes of each chunk, in order; others are read and sent meanwhile.

        Chunks are kept here until that has come, so it needs no more than any dispatcher to go on.

        Parameters
        ----------
        task : EvaluationTask
        chunks : iterable of Chunk or StoredChunk
        """
        unread = iter(chunks)
        waiting: deque[Chunk | StoredChunk] = deque()
        taken, begun, ended, exhausted = 0, False, False, False
        while True:
            try:
                if not begun:
                    self.call("begin_inference", replace(task, first=taken).to_message())
                    begun, ended = True, False
                    for chunk in waiting:
                        self.put(chunk)
                for chunk in islice(unread, CHUNKS_IN_FLIGHT - len(waiting)):
                    waiting.append(chunk)
                    self.put(chunk)
                exhausted = exhausted or len(waiting) < CHUNKS_IN_FLIGHT
                if not waiting:
                    return
                if exhausted and not ended:
                    self.call("end")
                    ended = True
                answer = self.call("take")
                self.supply(answer["wanted"])
                if (result := answer["result"]) is None:
                    continue
                _check_result(task, waiting[0], result)
            except CommunicationError as error:
                self._connect_again(error)
                self._sent.clear()
                begun = False
                continue
            waiting.popleft()
            taken += 1
            yield result

    def follow(
        self, told: Callable[[dict[str, Any]], None], timeout: float = 1.0, *, updates: int | None = None
    ) -> None:
        """Say that all chunks were put and wait for the end of the training, telling what happens in it; or,
        without saying so, until there have been so many updates.

        An event at which the training waits is answered when `told` has returned.
        """
        if updates is None:
            self.call("end")
        seen, made, done = 0, 0, False
        while not done and (updates is None or made < updates):
            answer = self.call("events", seen, timeout)
            self.supply(answer["wanted"])
            for event in answer["events"]:
                told(event)
                made = event.get("updates", made)
            seen, done = answer["seen"], answer["done"]

    def give_up(self) -> None:
        """Forget the chunks that are not sent yet; where the dispatcher is lost now, the training is."""
        self._token = None
        for _, future in self._sent:
            future.cancel()
        self._sent.clear()

    def close(self) -> None:
        """End the session, whatever it is doing."""
        self.give_up()
        abort(self._proxy)
        self._caller.shutdown(wait=True, cancel_futures=True)
        self._proxy._pyroRelease()

    def _tell_words(self) -> None:
        """Send the words; nothing waits for them, and a training run goes on without."""
        if self._words is not None:
            self._submit("tell_words", self._words)

    def _submit(self, method: str, *arguments: Any) -> Future[Any]:
        return self._caller.submit(_invoke, self._calls, method, *arguments)

    def supply(self, wanted: Iterable[tuple[int, Any]]) -> None:
        """Send documents that the dispatcher was referred to, and that a worker lacks.

        Parameters
        ----------
        wanted : iterable of (int, tuple)
            The dispatcher's requests, number and reference.

        Raises
        ------
        FalseDispatcherError
            If they are none that were trained on.
        """
        for number, reference in wanted:
            try:
                chunk = self._documents(Reference.from_message(reference))
            except DamagedError:
                raise
            except (TypeError, ValueError) as error:
                raise _answers.refuse("events", str(error)) from error
            self.call("supply", number, chunk.indptr, chunk.indices, chunk.data)

    def _documents(self, reference: Reference) -> Chunk:
        refused: Exception = ValueError(f"{reference} were not trained on")
        for source in self._sources:
            try:
                chunk: Chunk = source.documents(reference)
                return chunk
            except DamagedError:
                raise
            except ValueError as error:
                refused = error
        raise refused

    def _send(self, chunk: Chunk | StoredChunk) -> Future[Any]:
        if isinstance(chunk, StoredChunk):
            return self._submit("put_references", chunk.to_message())
        return self._submit("put", chunk.indptr, chunk.indices, chunk.data)

    def _collect(self, limit: int) -> None:
        """Wait until no more than `limit` chunks are on their way."""
        while len(self._sent) > limit:
            try:
                self._sent[0][1].result()
            except CommunicationError as error:
                self._go_on(error)
            else:
                self._sent.popleft()
                self._num_there += 1

    def _go_on(self, error: CommunicationError) -> None:
        """Reconnect, and send again what the dispatcher does not have; raise `error` where it has nothing."""
        if self._token is None:
            raise error
        self._connect_again(error)
        try:
            there = self._submit("go_on", self._token).result()
        except CommunicationError as again:
            return self._go_on(again)
        except KeyboardInterrupt:
            abort(self._proxy)  # it may wait for workers, and other calls for it
            raise
        if there is None or there < self._num_there:
            raise error
        logger.info("the training run goes on: the dispatcher has %s of it", plural(there, "chunk"))
        while self._num_there < there and self._sent:
            self._sent.popleft()
            self._num_there += 1
        self._num_there = there
        self._tell_words()
        self._sent = deque((chunk, self._send(chunk)) for chunk, _ in self._sent)

    def _connect_again(self, error: CommunicationError) -> None:
        """Connect to the dispatcher when it is there again; raise `error` where that is of no use.

        Raises
        ------
        RuntimeError
            If it does not come back, or was lost too often.
        """
        if self._reconnect is None or not _is_broken(error):
            raise error
        now = time.monotonic()
        if len(self._broke_at) == RECONNECTS and now < self._broke_at[0] + RECONNECTS_WITHIN:
            raise RuntimeError(
                f"the dispatcher was lost {RECONNECTS} times within {RECONNECTS_WITHIN:g} s: see its log; "
                "this training run may be the cause"
            ) from error
        self._broke_at.append(now)
        _say_broken(error)
        for _, future in self._sent:
            future.cancel()
        abort(self._proxy)
        self._proxy = self._reconnect()
        self._calls = SlicedCalls(self._proxy)

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

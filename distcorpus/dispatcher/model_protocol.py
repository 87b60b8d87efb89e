"""The protocol of our own models: the Pyro objects that `distcorpus.models` talks to, one a connection."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from distcorpus._text import plural
from distcorpus.algorithms import chunk, lsi, topics
from distcorpus.algorithms.chunk import Chunk, as_chunk, from_arrays
from distcorpus.algorithms.topics import LazyTopics
from distcorpus.corpora.reference import StoredChunk
from distcorpus.dispatcher import words
from distcorpus.dispatcher.client_training import ClientTraining
from distcorpus.dispatcher.connection import WORKER_GRACE, Connection
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.journal import DamagedJournal, Journal
from distcorpus.dispatcher.limits import lda_bytes, lsi_bytes
from distcorpus.dispatcher.supplier import Request, Supplier
from distcorpus.kernels.build import contradiction, read_build
from distcorpus.training.evaluation import Evaluation, EvaluationTask
from distcorpus.training.lda import LdaTask
from distcorpus.training.lsi import LsiTask, LsiTraining
from distcorpus.wire import ConnectionClosedError, Slices, expose, sliced

logger = logging.getLogger(__name__)

#: Differences between builds that a program is told of.
MOST_DIFFERENCES = 20
#: The longest that a call waits for something to happen, in seconds.
LONGEST_WAIT = 10.0


def warm() -> None:
    """Compile what reads documents and what the M-step runs, or load it from the disk's cache: no training
    has to wait for it.
    """
    chunk.warm()
    topics.warm(("float32", "float64"))


class _ModelConnection(Slices, Connection):
    """What both of our models share."""

    client = "distcorpus"
    counts: bool  # whether a chunk's values have to be counts
    _supplier: Supplier | None = None
    _referred_bytes = 0

    def __init__(self, dispatcher: Dispatcher) -> None:
        Slices.__init__(self)
        Connection.__init__(self, dispatcher)

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> Any:
        """Return a new session for a task, which `begin` describes."""
        raise NotImplementedError

    def _ended(self) -> Exception:
        if self._dispatcher.keeps_sessions:
            # As if it had been killed: the program looks for the next one, and goes on.
            return ConnectionClosedError("the dispatcher is ending")
        return super()._ended()

    def farewell(self) -> Exception | None:
        return None if self._dispatcher.keeps_sessions else super().farewell()

    def _nbytes(self, task: dict[str, Any]) -> int:
        """Return what the tables of a task take; raises where it claims what cannot be."""
        raise NotImplementedError

    def _what(self, task: dict[str, Any]) -> str:
        """Say which tables these are."""
        return f"{task['num_terms']} terms x {task['num_topics']} topics"

    @expose
    def hello(self, build: dict[str, Any]) -> dict[str, Any]:
        """Say of which build the program is, when its connection is made.

        Parameters
        ----------
        build : dict
            See `kernels.build.this_build`; and ``pid``, its process.

        Returns
        -------
        dict
            ``build``, the dispatcher's, and ``may_differ``, what workers have that is not as with it.

        Raises
        ------
        RuntimeError
            They cannot work together.
        """
        theirs, ours = read_build(build), self._dispatcher.build
        pid = build.get("pid")
        self.pid = pid if type(pid) is int and 0 < pid < 2**31 else None
        refusal = contradiction(ours, theirs, "the program")
        if refusal is not None:
            logger.warning("refused a program: %s", refusal)
            raise RuntimeError(refusal)
        return {"build": ours, "may_differ": self._dispatcher.may_differ()[:MOST_DIFFERENCES]}

    def _check_free(self, method: str) -> None:
        """Raise where another call of this connection is under way that a method would disturb."""

    def _begin(self, task: dict[str, Any]) -> dict[str, Any]:
        self._check_free("begin")
        name, options = self._begin_session(self._nbytes(task), self._what(task))
        journals = self._dispatcher.journals
        journal = None if journals is None else journals.begin(task)
        try:
            self._opened(self._make(name, task, journal=journal, **options))
            if journal is not None:
                journal.write("kernels", self._dispatcher.engine.kernels_of(name))
                journal.write("name", name)
        except BaseException:
            if journal is not None:
                journal.remove()
            raise
        return {"token": None if journal is None else journal.token, "chunks": self._session.num_chunks}

    @expose
    def go_on(self, token: str) -> int | None:
        """Go on with a session that a dispatcher before this one had when it was killed.

        Parameters
        ----------
        token : str
            As `begin` returned it.

        Returns
        -------
        int or None
            Chunks that need not be put again; None where the session is lost.
        """
        self._check_free("go_on")
        self._check_ending()
        self.close()
        journals = self._dispatcher.journals
        journal = None if journals is None else journals.claim(token)
        if journals is None or journal is None:
            return None
        try:
            self._restore(journal)
        except DamagedJournal as error:
            journals.set_aside(journal, error)
            self.close()
            return None
        said = plural(self._session.num_chunks, "chunk")
        logger.info("session %s goes on with %s", self._session.name, said)
        return int(self._session.num_chunks)

    def _restore(self, journal: Journal) -> None:
        task = journal.read("session")["task"]
        if "state" in journal:
            task |= journal.read("state")
        self._admit(self._nbytes(task), anyway=True)
        name, options = self._name_session()
        kernels = journal.read("kernels") if "kernels" in journal else None
        if kernels is not None:
            self._dispatcher.engine.require_kernels(name, kernels)
        earlier = journal.read("name") if "name" in journal else ""
        try:
            self._opened(self._make(name, task, journal=journal, **options), earlier)
        except (LookupError, TypeError, ValueError) as error:
            raise DamagedJournal(f"session: {error!r}") from error
        kept_chunks = journal.chunks(self._session.num_chunks, self._session.num_terms, self._referred)
        for kept in kept_chunks:
            self._session.put(kept)
        with suppress(RuntimeError):  # of a full disk: it is called by an earlier name the next time
            journal.write("name", name)

    def _current(self) -> Any:
        self._check_ending()
        self._check_idle()
        if self._session is None:
            raise RuntimeError("this connection has no session: call begin() first")
        return self._session

    @expose
    def ready(self) -> int:
        """Wait a little for a worker and return how many there are."""
        self._dispatcher.engine.wait_for_workers(WORKER_GRACE)
        return len(self._dispatcher.engine.usable_workers())

    @sliced  # outermost: what is in slices becomes arrays before the arguments are checked
    @expose
    def put(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> None:
        """Add a chunk, the arrays of a `Chunk`; waits while the training is too far behind."""
        self._check_free("put")
        chunk = self._chunk(indptr, indices, data)
        self._dispatcher.watch.documents_arrived(chunk.n_docs)
        self._current().put(chunk)

    @sliced
    @expose
    def put_references(self, message: dict[str, Any]) -> None:
        """Add a chunk of documents that workers have, as `StoredChunk.to_message` makes it.

        For a worker that lacks them the program is asked, by requests in `ModelLda.events`, `ModelLda.take`
        and `ModelLsi.finish`, unless this process has the corpus.
        """
        self._check_free("put_references")
        session, what = self._current(), self.arriving()
        try:
            chunk = self._referred(message)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{what}: {error}") from None
        self._referred_bytes += chunk.nbytes
        if self._referred_bytes > session.memory:
            raise ValueError(
                f"{what}: what is known of the documents takes more than the {session.memory / 1e6:.3g} MB "
                "that the dispatcher keeps of a model: start it with a larger --memory, or give a larger "
                "chunksize"
            )
        session.put(chunk)

    def _referred(self, message: Any) -> StoredChunk:
        session = self._session
        if self._supplier is None:
            self._supplier = Supplier(
                self._dispatcher.corpora,
                self._dispatcher.engine,
                session.name,
                session.num_terms,
                self.counts,
                session.check_client,
            )
            self._supplier.asked = self._asked
        return StoredChunk.from_message(message, session.num_terms, session.kernel.limits, self._supplier)

    def _asked(self) -> None:
        """The program has to be asked for documents."""

    def _is_asked(self) -> bool:
        """Whether there are requests that the program was not told."""
        return self._supplier is not None and self._supplier.news.is_set()

    def _requests(self) -> list[Request]:
        """Return these, which the program is told now."""
        return [] if self._supplier is None else self._supplier.requests()

    @sliced
    @expose
    def supply(self, number: int, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> None:
        """Bring the documents of a request, by its number."""
        chunk = self._chunk(indptr, indices, data)
        if self._supplier is not None:
            self._supplier.supply(number, chunk)

    def close(self) -> None:
        """See `Connection.close`."""
        supplier, self._supplier = self._supplier, None
        self._word = None
        self._referred_bytes = 0
        if supplier is not None:
            supplier.close()
        super().close()

    def _chunk(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> Chunk:
        """Return a chunk that arrived; compiled code will trust it, so it is checked."""
        session = self._current()
        what = self.arriving()
        arrived = from_arrays(indptr, indices, data, session.num_terms, what)
        return as_chunk(arrived, session.num_terms, counts=self.counts, what=what)


class ModelLda(_ModelConnection):
    """What `distcorpus.models.LdaModel` talks to."""

    kind = "lda"
    counts = True

    @expose
    @sliced
    def begin(self, task: dict[str, Any]) -> dict[str, Any]:
        """Begin a training.

        Parameters
        ----------
        task : dict
            See `LdaTask`.

        Returns
        -------
        dict
            ``token``, for `go_on` (None where the dispatcher keeps nothing), and ``chunks``, how many need
            not be put.
        """
        LdaTask.from_message(task)  # a program says nothing of what a dispatcher keeps for the next one
        return self._begin(task)

    def _nbytes(self, task: dict[str, Any]) -> int:
        return _bytes_of(task["topics"])

    def _what(self, task: dict[str, Any]) -> str:
        return _tables(task["topics"])

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> ClientTraining:
        kept = ("finished", "paused_at", "told", "events")
        saved = {key: task.pop(key) for key in kept if key in task}
        return ClientTraining(name, self._dispatcher.engine, LdaTask.from_message(task), **saved, **options)

    def _restore(self, journal: Journal) -> None:
        super()._restore(journal)
        if "end" in journal:
            self._session.end()

    @sliced
    @expose
    def tell_words(self, text: np.ndarray) -> None:
        """Tell the words of the terms, for those who watch; see `words.of_text`."""
        session = self._current()
        self._word = words.of_text(text, session.num_terms)
        owners = self._dispatcher.owners
        owners[session.name] = replace(owners[session.name], word=self._word)

    @expose
    def end(self) -> None:
        """No more chunks will come."""
        self._current().end()

    @expose
    def events(self, seen: int, timeout: float) -> dict[str, Any]:
        """Return what happened after the first `seen` events, see `ClientTraining.events`, and in ``wanted``
        requests for documents, number and reference.
        """
        happened = self._current().events(seen, min(timeout, LONGEST_WAIT), self._is_asked)
        return {**happened, "wanted": self._requests()}

    def _asked(self) -> None:
        self._session.wake()

    @expose
    @sliced
    def fetch(self) -> dict[str, Any]:
        """Return the model as its latest M-step left it.

        Returns
        -------
        dict
            ``topics``, ``alpha``, ``eta``, ``num_updates`` and ``progress`` as `begin` takes them.
        """
        return self._current().fetch()

    @expose
    @sliced
    def begin_inference(self, task: dict[str, Any]) -> None:
        """Begin to evaluate a model.

        Parameters
        ----------
        task : dict
            See `EvaluationTask`.
        """
        asked = EvaluationTask.from_message(task)
        nbytes = _bytes_of(asked.topics)
        learnt = LazyTopics(**asked.topics)
        name, options = self._begin_session(nbytes, _tables(asked.topics))
        engine = self._dispatcher.engine
        self._opened(
            Evaluation(name, engine, learnt.num_terms, asked.params, learnt.rows, asked.first, **options)
        )

    @expose
    @sliced
    def take(self) -> dict[str, Any]:
        """Wait for the oldest chunk that was not taken, or for documents being wanted.

        Returns
        -------
        dict
            ``result``, see `Evaluation.take`, or None where it is not there, and ``wanted``, requests for
            documents, number and reference.
        """
        evaluation = self._current()
        evaluation.wait_until(self._is_asked)
        wanted = self._requests()
        return {"result": evaluation.take() if evaluation.is_computed() else None, "wanted": wanted}


class ModelLsi(_ModelConnection):
    """What `distcorpus.models.LsiModel` talks to."""

    kind = "lsi"
    counts = False
    _factors: Future[lsi.Factors] | None = None

    @expose
    @sliced
    def begin(self, task: dict[str, Any]) -> dict[str, Any]:
        """Begin an addition of documents.

        Parameters
        ----------
        task : dict
            See `LsiTask`.

        Returns
        -------
        dict
            As `ModelLda.begin` does.
        """
        return self._begin(task)

    def _nbytes(self, task: dict[str, Any]) -> int:
        asked = LsiTask(**task)
        return lsi_bytes(asked.num_terms, asked.num_topics, asked.power_iters, asked.extra_samples)

    def close(self) -> None:
        """See `Connection.close`."""
        self._factors = None  # whoever computes them is told
        super().close()

    def _check_free(self, method: str) -> None:
        if self._factors is not None and not self._factors.done():
            raise RuntimeError(
                f"{method}() while finish() is under way on the same connection: call finish() until it has "
                "returned the factors, or train another model over a connection of its own"
            )

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> LsiTraining:
        asked = LsiTask(**task)
        return LsiTraining(name, self._dispatcher.engine, asked, **options)

    @expose
    @sliced
    def finish(self, timeout: float) -> dict[str, Any]:
        """Factorise everything that was put; called until it is done.

        Returns
        -------
        dict
            ``factors``: U and s, or None where they are not there after `timeout` seconds; ``rounds``, how
            many were begun, ``wanted``, requests for documents (number and reference),
            ``workers``, how many there are, and ``folds``, how often documents that are too
            many to keep were folded.
        """
        session = self._current()
        if self._factors is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix=session.name)
            self._factors = thread.submit(session.finish)
            thread.shutdown(wait=False)
            if self._supplier is not None:
                news = self._supplier.news
                self._factors.add_done_callback(lambda factors: news.set())
        if self._supplier is None:
            wait([self._factors], min(timeout, LONGEST_WAIT))
        else:
            if not self._factors.done():
                self._supplier.news.wait(min(timeout, LONGEST_WAIT))
        return {
            "factors": self._factors.result() if self._factors.done() else None,
            "wanted": self._requests(),
            "rounds": session.num_rounds,
            "workers": self._dispatcher.engine.num_workers,
            "folds": session.num_folds,
        }


def _bytes_of(topics: dict[str, Any]) -> int:
    """Return what the tables of an LDA model take, whose topics have arrived."""
    table = topics["table"]
    if type(table) is not np.ndarray or table.ndim != 2:
        raise ValueError("the topics' table is no array of terms x topics")
    num_terms, num_topics = table.shape
    return lda_bytes(num_terms, num_topics, table.itemsize)


def _tables(topics: dict[str, Any]) -> str:
    num_terms, num_topics = topics["table"].shape
    return f"{num_terms} terms x {num_topics} topics"

"""The doors of our own models: what `distcorpus.models` talks to, one object a connection."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from distcorpus.algorithms import chunk, lsi, topics
from distcorpus.algorithms.chunk import Chunk, as_chunk, from_arrays
from distcorpus.algorithms.online import OnlineLda, Plan, Progress
from distcorpus.algorithms.topics import LazyTopics
from distcorpus.dispatcher.front import WORKER_GRACE, Dispatcher, _Front
from distcorpus.dispatcher.inference import LdaInference
from distcorpus.dispatcher.journal import DamagedJournal, Journal
from distcorpus.dispatcher.limits import check_memory
from distcorpus.dispatcher.session import LsiSession, Session
from distcorpus.dispatcher.training import LdaTraining
from distcorpus.wire import Slices, expose, sliced

logger = logging.getLogger(__name__)

#: The longest that a call waits for something to happen, in seconds.
LONGEST_WAIT = 10.0


def warm() -> None:
    """Compile what reads documents and what the M-step runs, or load it from the disk's cache: no training
    has to wait for it.
    """
    chunk.warm()
    topics.warm(("float32", "float64"))


class _Door(Slices, _Front):
    """What both doors share."""

    counts: bool  # whether a chunk's values have to be counts

    def __init__(self, dispatcher: Dispatcher) -> None:
        Slices.__init__(self)
        _Front.__init__(self, dispatcher)

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> Session:
        """Return a new session for a task, which `begin` describes."""
        raise NotImplementedError

    def _begin(self, task: dict[str, Any]) -> dict[str, Any]:
        name, options = self._begin_session()
        journals = self._dispatcher.journals
        journal = None if journals is None else journals.begin(task)
        try:
            self._opened(self._make(name, task, journal=journal, **options))
            if journal is not None:
                journal.write("kernels", self._dispatcher.engine.kernels_of(name))
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
        logger.info("session %s goes on with %d chunks", self._session.name, self._session.num_chunks)
        return int(self._session.num_chunks)

    def _restore(self, journal: Journal) -> None:
        task = journal.read("session")["task"]
        if "state" in journal:
            task |= journal.read("state")
        name, options = self._name_session()
        kernels = journal.read("kernels") if "kernels" in journal else None
        if kernels is not None:
            self._dispatcher.engine.require_kernels(name, kernels)
        try:
            self._opened(self._make(name, task, journal=journal, **options))
        except (LookupError, TypeError, ValueError) as error:
            raise DamagedJournal(f"session: {error!r}") from error
        for kept in journal.chunks(self._session.num_chunks, self._session.num_terms):
            self._session.put(kept)

    def _current(self) -> Any:
        if self._session is None:
            raise RuntimeError("this connection has no session: call begin() first")
        return self._session

    @expose
    def ready(self) -> int:
        """Wait a little for a worker and return how many there are."""
        self._dispatcher.engine.wait_for_workers(WORKER_GRACE)
        return len(self._dispatcher.engine.usable_workers())

    @expose
    @sliced
    def put(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> None:
        """Add a chunk, the arrays of a `Chunk`; waits while the training is too far behind."""
        self._current().put(self._chunk(indptr, indices, data))

    def _chunk(self, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray) -> Chunk:
        """Return a chunk that arrived; compiled code will trust it, so it is checked."""
        session = self._current()
        what = f"chunk {session.num_chunks}"
        arrived = from_arrays(indptr, indices, data, session.num_terms, what)
        return as_chunk(arrived, session.num_terms, counts=self.counts, what=what)


class LdaDoor(_Door):
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
            ``topics`` (the arguments of `LazyTopics`), ``alpha``, ``eta``, ``num_updates``, ``plan`` (the
            arguments of `Plan`), ``documents`` (how many will come, or None), ``progress`` (those of
            `Progress`) and ``pauses`` (whether to wait for `resume` after each pass) and
            ``pause_every`` (after how many updates).

        Returns
        -------
        dict
            ``token``, for `go_on` (None where the dispatcher keeps nothing), and ``chunks``, how many need
            not be put.
        """
        return self._begin(task)

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> LdaTraining:
        learnt = LazyTopics(**task["topics"])
        return LdaTraining(
            name,
            self._dispatcher.engine,
            learnt.num_terms,
            OnlineLda(learnt, task["alpha"], task["eta"], task["num_updates"]),
            Plan(**task["plan"]),
            documents=task["documents"],
            progress=Progress(**task["progress"]),
            finished=task.get("finished"),
            paused_at=task.get("paused_at"),
            pauses=task["pauses"],
            pause_every=task["pause_every"],
            **options,
        )

    def _restore(self, journal: Journal) -> None:
        super()._restore(journal)
        if "end" in journal:
            self._session.end()

    @expose
    def end(self) -> None:
        """No more chunks will come."""
        self._current().end()

    @expose
    def events(self, timeout: float) -> list[dict[str, Any]]:
        """Return what happened since the last call, see `LdaTraining.events`."""
        return self._current().events(min(timeout, LONGEST_WAIT))

    @expose
    def resume(self) -> None:
        """Go on with the next pass."""
        self._current().resume()

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
            ``topics`` (the arguments of `LazyTopics`), ``params`` and ``first``, see `LdaInference`.
        """
        learnt = LazyTopics(**task["topics"])
        name, options = self._begin_session()
        options |= {"params": task["params"], "first": task["first"]}
        engine = self._dispatcher.engine
        self._opened(LdaInference(name, engine, learnt.num_terms, topics=learnt, **options))

    @expose
    @sliced
    def take(self) -> np.ndarray:
        """Return what was computed of the oldest chunk that was not taken, see `LdaInference.take`."""
        return self._current().take()


class LsiDoor(_Door):
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
            ``num_terms``, and the arguments of `LsiSession`: ``num_topics``, ``decay``, ``dtype``, ``seed``,
            ``power_iters``, ``extra_samples``, and ``base``, the factors of the documents that came before.

        Returns
        -------
        dict
            As `LdaDoor.begin` does.
        """
        return self._begin(task)

    def _make(self, name: str, task: dict[str, Any], **options: Any) -> LsiSession:
        base = task["base"]
        if base is not None and (base[0].shape[0] != task["num_terms"] or base[0].shape[1:] != base[1].shape):
            raise ValueError(f"base has shapes {base[0].shape} and {base[1].shape}")
        self._factors = None
        num_terms = task["num_terms"]
        check_memory(num_terms, task["num_topics"], task["power_iters"], task["extra_samples"])
        of_task = {key: value for key, value in task.items() if key != "num_terms"}
        return LsiSession(name, self._dispatcher.engine, num_terms, **of_task, **options)

    @expose
    @sliced
    def finish(self, timeout: float) -> dict[str, Any]:
        """Factorise everything that was put; called until it is done.

        Returns
        -------
        dict
            ``factors``: U and s, or None where they are not there after `timeout` seconds; ``rounds``, how
            many were begun, and ``workers``, how many there are.
        """
        session = self._current()
        if self._factors is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix=session.name)
            self._factors = thread.submit(session.finish)
            thread.shutdown(wait=False)
        done, _ = wait([self._factors], min(timeout, LONGEST_WAIT))
        return {
            "factors": self._factors.result() if done else None,
            "rounds": session.num_rounds,
            "workers": len(self._dispatcher.engine.workers()),
        }

"""The front doors: the Pyro objects that gensim's unmodified models and those who watch a cluster talk to.

A model's connection is its session: it begins with ``initialize`` and ends when the connection does. Errors
leave here as builtin exceptions, since the program at the other end may never have imported this package.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from gensim.models.ldamodel import LdaModel, LdaState
from gensim.models.lsimodel import Projection
from numpy.typing import NDArray

from distcorpus._version import __version__
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.algorithms.received import check_received
from distcorpus.dispatcher.drivers import PyroEngine
from distcorpus.dispatcher.journal import Journals
from distcorpus.dispatcher.limits import check_memory, check_result
from distcorpus.dispatcher.session import LdaSession, LsiSession, Session, Topics
from distcorpus.dispatcher.team import Team
from distcorpus.wire import client_gone, current_connection, expose

logger = logging.getLogger(__name__)

#: Seconds that a dispatcher which is ending gives its models to ask for what they will not get.
DRAIN_TIMEOUT = 5.0
#: Seconds between two looks whether they have.
DRAIN_POLL = 0.05
#: Seconds that a model which finds no worker waits for one: workers that start together with it are found
#: meanwhile.
WORKER_GRACE = 5.0


class Dispatcher:
    """What the front doors share: the engine, the options, the sessions.

    Parameters
    ----------
    engine : PyroEngine
        Computes the rounds.
    max_queued : int
        Chunks that a session may have waiting; 0: no limit.
    memory : int
        Bytes of chunks that a session keeps in memory.
    spool : Path, optional
        Directory where it keeps the others.
    threads : int, default 1
        Threads for what sessions compute themselves between two rounds.
    journals : Journals, optional
        Keeps the sessions of our own models for a dispatcher after this one.
    """

    def __init__(
        self,
        engine: PyroEngine,
        *,
        max_queued: int = 10,
        memory: int = 2 << 30,
        spool: Path | None = None,
        threads: int = 1,
        journals: Journals | None = None,
    ) -> None:
        self.engine = engine
        self.journals = journals
        self.session_options = {
            "max_queued": max_queued,
            "memory": memory,
            "spool": spool,
            "team": Team(threads),
        }
        self.exit_asked = threading.Event()
        self.ending = threading.Event()
        self.sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self._token = secrets.token_hex(3)
        self.started = time.time()

    def session_name(self, kind: str) -> str:
        """Return a name that no session of any dispatcher ever had: workers may still know those."""
        return f"{kind}-{self._token}-{next(self._numbers)}"

    def drain(self) -> None:
        """Answer the models in training with an error, until all of them have been told, or time is up."""
        self.ending.set()
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while any(session.under_way for session in list(self.sessions.values())):
            if time.monotonic() > deadline:
                return
            time.sleep(DRAIN_POLL)

    @expose
    def ping(self) -> str:
        """Answer at once."""
        return "pong"

    @expose
    def status(self) -> dict[str, Any]:
        """Who works, and for whom."""
        return {
            "version": __version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "uptime_seconds": time.time() - self.started,
            "workers": [asdict(worker) for worker in self.engine.workers()],
            "sessions": sorted(self.sessions.copy()),
            "kernels": {name: self.engine.kernels_of(name) for name in sorted(self.sessions.copy())},
        }

    @expose
    def records(self, session: str) -> list[dict[str, Any]]:
        """What the latest jobs of a session cost, and where they were computed."""
        return [asdict(record) for record in self.engine.records(session)]

    @expose
    def recorded_sessions(self) -> list[str]:
        """The sessions that `records` knows, in the order in which they began."""
        return self.engine.recorded_sessions()

    @expose
    def worker_leaves(self, name: str, uri: str) -> None:
        """A worker says that it is ending: it is handed nothing more."""
        self.engine.worker_leaves(name, uri)

    @expose
    def exit(self, workers: bool = True) -> None:
        """End the dispatcher, and all its workers with it."""
        logger.info("asked to exit")
        if workers:
            self.engine.exit_workers()
        self.exit_asked.set()


class _Front:
    """One connection of an unmodified gensim model.

    Parameters
    ----------
    dispatcher : Dispatcher
        Whom it belongs to.
    """

    kind: str

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._session: Any = None
        self._initialized = False

    def _begin_session(self) -> tuple[str, dict[str, Any]]:
        """Close the session of an earlier ``initialize`` and see that there are workers for a new one.

        Returns
        -------
        name : str
            Of the new session.
        options : dict
            Its arguments.
        """
        self.close()
        self._check_ending()
        if not self._dispatcher.engine.wait_for_workers(WORKER_GRACE):
            raise RuntimeError(
                "no workers: the dispatcher is running but no worker is connected to it; start one with "
                "'distcorpus worker' (or scripts/run_worker.py) on any host that reaches the name server"
            )
        return self._name_session()

    def _name_session(self) -> tuple[str, dict[str, Any]]:
        connection = current_connection()
        assert connection is not None  # this is one of its calls

        def check_client() -> None:
            if client_gone(connection.sock):
                raise ConnectionResetError("the client is gone")
            self._check_ending()

        options = {**self._dispatcher.session_options, "check_client": check_client}
        self._initialized = True
        return self._dispatcher.session_name(self.kind), options

    def _opened(self, session: Session) -> None:
        self._session = session
        self._dispatcher.sessions[session.name] = session
        logger.info("session %s begins", session.name)

    def _check_ending(self) -> None:
        if self._dispatcher.ending.is_set():
            if self._session is not None:
                self._dispatcher.sessions.pop(self._session.name, None)  # it is told now
            raise RuntimeError(
                "the dispatcher was told to end, and this training with it: train again when it, or another "
                "one, has been started"
            )

    def _check_initialized(self) -> None:
        self._check_ending()
        if not self._initialized:
            raise RuntimeError(
                "this connection has no session: it broke, or the dispatcher was killed and started again "
                f"(this one has run since {time.ctime(self._dispatcher.started)}), or initialize() was not "
                "called. Train a new model; what the cluster held for this one is gone. With "
                "distcorpus.models, and dispatcher --spool DIR --resume, a training goes on"
            )

    def close(self) -> None:
        """End the session of this connection, if it has one."""
        session, self._session = self._session, None
        if session is not None:
            self._dispatcher.sessions.pop(session.name, None)
            session.close()
            logger.info("session %s ends", session.name)
            del session
            gc.collect()  # the traceback of an error is a cycle, which may hold documents and large arrays

    @expose
    def getworkers(self) -> list[str]:
        """The URIs of the workers that this model's training has, or would have."""
        return [worker.uri for worker in self._dispatcher.engine.usable_workers()]

    @expose
    def jobsdone(self) -> int:
        """How many chunks of the round under way have been computed."""
        return self._session.chunks_done() if self._session is not None else 0

    @expose
    def exit(self) -> None:
        """End the dispatcher and all workers."""
        self._dispatcher.exit()


class LsiFront(_Front):
    """What ``gensim.models.LsiModel(distributed=True)`` talks to."""

    kind = "lsi"

    @expose
    def initialize(
        self,
        id2word: Any = None,
        num_topics: int = 200,
        chunksize: int = 20000,
        decay: float = 1.0,
        power_iters: int = 2,
        extra_samples: int = 100,
        distributed: bool = False,
        onepass: bool = True,
    ) -> None:
        """Begin a model; takes what ``LsiModel`` sends."""
        self._num_terms = _num_terms(id2word)
        self._num_topics = _positive("num_topics", num_topics)
        self._decay = float(decay)
        if not 0.0 < self._decay < np.inf:
            raise ValueError(f"decay={decay!r}: give a positive number, 1.0 to weigh all documents alike")
        # Of which type the result will be, the first chunk says.
        check_result(self._num_terms, self._num_topics, np.dtype(np.float32).itemsize)
        check_memory(self._num_terms, self._num_topics)
        self._projection = {"power_iters": power_iters, "extra_dims": extra_samples}
        self._name, self._options = self._begin_session()

    def _open(self, dtype: np.dtype) -> None:
        # The model does not say its dtype; its first chunk shows it.
        check_result(self._num_terms, self._num_topics, dtype.itemsize)
        self._dtype = dtype
        self._opened(
            LsiSession(
                self._name,
                self._dispatcher.engine,
                self._num_terms,
                num_topics=self._num_topics,
                decay=self._decay,
                dtype="float64" if dtype == np.float64 else "float32",
                **self._options,
            )
        )

    @expose
    def reset(self) -> None:
        """Begin an addition of documents; what was trained before stays in."""
        self._check_initialized()
        if self._session is not None:
            self._session.begin()

    @expose
    def putjob(self, job: Any) -> None:
        """Add a chunk, terms x documents; waits while the queue is full."""
        self._check_initialized()
        number = self._session.num_chunks if self._session is not None else 0
        shape = getattr(job, "shape", None)
        if shape is not None and shape[0] != self._num_terms:
            raise ValueError(
                f"chunk {number} has {shape[0]} terms, this model's vocabulary {self._num_terms}"
            )
        check_received(job, f"chunk {number}")
        chunk = as_chunk(job, self._num_terms, what=f"chunk {number}")
        if self._session is None:
            self._open(np.dtype(getattr(job, "dtype", np.float64)))
        self._session.put(chunk)

    @expose
    def getstate(self) -> Projection:
        """Wait for all chunks and return the projection of all documents so far."""
        self._check_initialized()
        projection = Projection(self._num_terms, self._num_topics, None, **self._projection)
        if self._session is not None:
            projection.u, projection.s = (array.astype(self._dtype) for array in self._session.finish())
        return projection


class LdaFront(_Front):
    """What ``gensim.models.LdaModel(distributed=True)`` talks to."""

    kind = "lda"

    @expose
    def initialize(
        self,
        id2word: Any = None,
        num_topics: int = 100,
        chunksize: int = 2000,
        alpha: Any = "symmetric",
        eta: Any = None,
        distributed: bool = False,
    ) -> None:
        """Begin a model; takes what ``LdaModel`` sends (the topics, with eta, come with ``reset``)."""
        shape: dict[str, Any] = {
            "num_topics": _positive("num_topics", num_topics),
            "num_terms": _num_terms(id2word),
            "dtype": np.float64,
        }
        check_result(shape["num_terms"], shape["num_topics"], np.dtype(np.float32).itemsize)
        # gensim's own reading of what it accepts as a prior, without making a model.
        prior, _ = LdaModel.init_dir_prior(SimpleNamespace(**shape), alpha, "alpha")
        if prior.shape != (shape["num_topics"],):
            raise ValueError(
                f"alpha has shape {prior.shape}: give one number for each of {num_topics} topics"
            )
        name, options = self._begin_session()
        self._opened(LdaSession(name, self._dispatcher.engine, shape["num_terms"], alpha=prior, **options))

    @expose
    def reset(self, state: LdaState) -> None:
        """Begin a round with the topics of `state`."""
        self._check_initialized()
        session = self._session
        shape = (session.num_topics, session.num_terms)
        if state.sstats.shape != shape:
            raise ValueError(
                f"the state has statistics of shape {state.sstats.shape}, this model's have {shape}"
            )
        self._state = state
        session.begin(Topics(np.asarray(state.eta), state.sstats))

    @expose
    def putjob(self, job: Any) -> None:
        """Add a chunk, a list of documents; waits while the queue is full."""
        self._check_initialized()
        session = self._session
        what = f"chunk {session.num_chunks}"
        check_received(job, what)
        session.put(as_chunk(job, session.num_terms, counts=True, what=what))

    @expose
    def getstate(self) -> LdaState:
        """Wait for the round and return its sufficient statistics."""
        self._check_initialized()
        sstats, documents = self._session.finish()
        state = LdaState(np.asarray(self._state.eta), (0, 0), dtype=self._state.sstats.dtype)
        state.sstats = _as_c(sstats, self._state.sstats.dtype)
        state.numdocs = documents
        return state


def _as_c(array: NDArray, dtype: np.dtype) -> NDArray:
    return np.ascontiguousarray(array, dtype=dtype)


def _num_terms(id2word: Any) -> int:
    """Return the size of the vocabulary, as gensim's models count it."""
    keys = getattr(id2word, "keys", None)
    if keys is None:
        raise TypeError(
            f"id2word is a {type(id2word).__name__}: give a gensim Dictionary or a dict of id to word"
        )
    return 1 + max(keys(), default=-1)


def _positive(what: str, number: Any) -> int:
    if int(number) != number or number < 1:
        raise ValueError(f"{what}={number!r}: give a whole number above 0")
    return int(number)

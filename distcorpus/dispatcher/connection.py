"""One connection of a model, whose session it is: it ends when the connection does.

Errors leave here as builtin exceptions, since the program at the other end may never have imported this
package.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.looking import Owner
from distcorpus.training.evaluation import Evaluation
from distcorpus.training.session import Session
from distcorpus.wire import client_gone, current_connection, expose

logger = logging.getLogger(__name__)

#: Seconds that a model which finds no worker waits for one: workers that start together with it are found
#: meanwhile.
WORKER_GRACE = 5.0
#: How many of gensim's own workers an error names.
STOCK_SHOWN = 5


class Connection:
    """What the protocols of gensim's models and of ours have in common.

    Parameters
    ----------
    dispatcher : Dispatcher
        Whom it belongs to.
    """

    kind: str
    client = "gensim"  # whose class the program uses
    pid: int | None = None  # the program's, where it says so
    _word: Callable[[int], str] | None = None  # of a term id, where the program has told its words

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._session: Any = None
        self._initialized = False
        self._client: Any = None  # the connection of the wire that the session has
        self._ended_idle = ""

    def _begin_session(self, nbytes: int, what: str) -> tuple[str, dict[str, Any]]:
        """Close the session of an earlier ``initialize``; see that there are room and workers for a new one.

        Parameters
        ----------
        nbytes : int
            What its tables take.
        what : str
            Which they are.

        Returns
        -------
        name : str
            Of the new session.
        options : dict
            Its arguments.
        """
        self.close()
        self._check_ending()
        self._admit(nbytes, what)
        if not self._dispatcher.engine.wait_for_workers(WORKER_GRACE):
            raise RuntimeError(
                "no workers: the dispatcher is running but no worker is connected to it; start one with "
                "'distcorpus worker' (or scripts/run_worker.py) on any host that reaches the name server"
                + self._stock_workers()
            )
        return self._name_session()

    def _stock_workers(self) -> str:
        """Return what to add to an error about missing workers: gensim's own do not count as such."""
        stock = self._dispatcher.stock_workers()
        if not stock:
            return ""
        shown = ", ".join(stock[:STOCK_SHOWN]) + (", ..." if len(stock) > STOCK_SHOWN else "")
        return (
            f". The name server has {len(stock)} of gensim's own workers ({shown}), which work for gensim's "
            "dispatchers only: stop them, and start 'distcorpus worker' in their place"
        )

    def _admit(self, nbytes: int, what: str = "its tables", *, anyway: bool = False) -> None:
        connection = current_connection()
        assert connection is not None  # this is one of its calls
        self._client, self._ended_idle = connection, ""
        self._dispatcher.limits.admit(self, connection.peer, nbytes, what, anyway=anyway)
        self._dispatcher.connections.add(self)

    def end_if_idle(self, seconds: float) -> None:
        """End the session where its program has called nothing for so long."""
        idle = self._client.idle_seconds()
        if idle < seconds:
            return
        self._ended_idle = (
            f"the program called nothing for {idle:,.0f} s, and the dispatcher ends what is idle for "
            f"{seconds:g} s (--idle): train again"
        )
        name = self._session.name if self._session is not None else self.kind
        logger.warning("session %s, of %s, is ended: %s", name, self._client.peer, self._ended_idle)
        self.close()

    def _name_session(self) -> tuple[str, dict[str, Any]]:
        connection = current_connection()
        assert connection is not None  # this is one of its calls

        def check_client() -> None:
            if client_gone(connection.sock):
                raise ConnectionResetError("the client is gone")
            self._check_idle()
            self._check_ending()

        options = {**self._dispatcher.session_options, "check_client": check_client}
        self._initialized = True
        return self._dispatcher.session_name(self.kind), options

    def _opened(self, session: Session, earlier: str = "") -> None:
        self._session = session
        kind = "evaluation" if isinstance(session, Evaluation) else self.kind
        host, role = self._client.peer, self._client.role
        owner = Owner(kind, self.client, host, self.pid, role, time.time(), self._word, earlier)
        self._dispatcher.session_begins(session, owner)
        self._dispatcher.limits.opened(self, lambda: session.spool.nbytes)
        logger.info("session %s begins", session.name)

    def _check_ending(self) -> None:
        if self._dispatcher.ending.is_set():
            raise self._ended()

    def _ended(self) -> Exception:
        """Return what the program is told when the dispatcher ends."""
        return RuntimeError(
            "the dispatcher was told to end, and this training run ended with it: train again when it, or "
            "another dispatcher, has been started"
        )

    def farewell(self) -> Exception | None:
        """Return what the program is told at its next call, when the dispatcher will be gone."""
        return self._ended()

    def _check_idle(self) -> None:
        if self._ended_idle:
            raise RuntimeError(f"this training run was ended: {self._ended_idle}")

    def _check_initialized(self) -> None:
        self._check_ending()
        self._check_idle()
        if not self._initialized:
            raise RuntimeError(
                "this connection has no session: it broke, or the dispatcher was killed and started again "
                f"(this one has run since {time.ctime(self._dispatcher.started)}), or initialize() was not "
                "called. Train a new model; what the cluster held for this one is gone. With "
                "distcorpus.models, and dispatcher --spool DIR --resume, a training run goes on"
            )

    def arriving(self) -> str:
        """Return what errors call the chunk that is arriving (it is the wire that asks)."""
        return f"chunk {self._session.num_chunks if self._session is not None else 0}"

    def close(self) -> None:
        """End the session of this connection, if it has one."""
        session, self._session = self._session, None
        self._dispatcher.connections.discard(self)
        self._dispatcher.limits.release(self)
        if session is not None:
            try:
                self._dispatcher.session_ends(session, self._outcome)
            finally:
                session.close(keep=self._dispatcher.ending.is_set() and self._dispatcher.keeps_sessions)
            logger.info("session %s ends", session.name)
            del session
            gc.collect()  # the traceback of an error is a cycle, which may hold documents and large arrays

    def _outcome(self, session: Session) -> tuple[str, str]:
        """Return how a session that is closed ends, and why; see `monitor.snapshot.SessionEnd`."""
        stands = session.standing()
        failure = stands.failure or self._dispatcher.watch.session(session.name).failure
        if stands.done:
            return "finished", ""
        if self._ended_idle:
            return "idle", self._ended_idle
        if self._dispatcher.ending.is_set():
            return "kept" if self._dispatcher.keeps_sessions and session.is_kept else "stopped", ""
        if failure:
            return "failed", failure
        return "finished" if stands.answered else "interrupted", ""

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

"""The sessions of our own LDA model: the whole training runs here; the client streams its corpus in and
waits.

A client's calls and the training are two threads. What the client puts is kept as long as a later pass needs
it. What happens in the training is told in *events*, small dicts that the client fetches whenever it likes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from distcorpus.algorithms.chunk import Chunk
from distcorpus.algorithms.online import BLOCK_DOCUMENTS, Numbered, OnlineLda, Plan, Progress, Reporter, train
from distcorpus.algorithms.topics import StatisticsSum
from distcorpus.dispatcher.engine import Block, Engine
from distcorpus.dispatcher.session import CLIENT_CHECK_EVERY, Session

#: Chunks that may wait beyond the update under way, before the client has to.
CHUNKS_AHEAD = 8
#: Events that are kept for a client that does not fetch them.
EVENTS_KEPT = 10_000
#: The part of the time that saving how far the training is may take.
SAVING_SHARE = 0.1


class Ended(Exception):
    """The client is gone or has ended the session: the training stops, and nobody wants to know."""


class LdaTraining(Session):
    """An LDA model that is trained here.

    Parameters
    ----------
    name, engine, num_terms
        As `Session` takes them.
    model : OnlineLda
        The model; this session changes it.
    plan : Plan
        How it is trained.
    documents : int, optional
        Documents that the client is going to put; None where it cannot tell, so that the training begins when
        all of them are here.
    progress : Progress, optional
        Where an earlier training was interrupted.
    finished : (int, int), optional
        Chunks, and documents in them, that are in the topics and will not be put again, as they are not
        needed again; by default what `progress` says.
    paused_at : dict, optional
        The event that an earlier training waited at for `resume`.
    pauses : bool
        Wait for `resume` after each pass.
    pause_every : int, optional
        Wait for `resume` after every so many updates, once all chunks are here: a client that still sends
        some does not listen.
    check_client : callable
        Raises where the client is gone.
    **session
        As `Session` takes them.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        num_terms: int,
        model: OnlineLda,
        plan: Plan,
        *,
        documents: int | None,
        progress: Progress | None = None,
        finished: tuple[int, int] | None = None,
        paused_at: dict[str, Any] | None = None,
        pauses: bool = False,
        pause_every: int | None = None,
        check_client: Callable[[], None] = lambda: None,
        **session: Any,
    ) -> None:
        super().__init__(name, engine, num_terms, check_client=self._check, **session)
        self.model = model
        self.plan = plan
        self._updating = threading.Lock()  # held while the model changes
        self.progress = progress or Progress()
        self._client_is_there = check_client
        self._pauses = pauses
        self._pause_every = pause_every
        self._paused = False
        self._documents = documents
        self._used_again = plan.passes > 1
        self._finished = finished or (self.progress.chunk, self.progress.documents)
        if self._used_again:
            self._finished = (0, 0)
        done, documents_done = self._finished
        self._chunks: list[tuple[Chunk, list[Block]] | None] = [None] * done  # None: done with
        self._ends: list[int] = [documents_done] * done  # documents up to the end of each chunk
        self._taken = self.num_chunks = done
        self._paused_at = paused_at
        self._saved = self.progress.updates
        self._save_at = 0.0
        self._complete = False
        self._closed = False
        self._done = False
        self._error: BaseException | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    # What the client's connection calls.

    def put(self, chunk: Chunk) -> None:
        """Take the next chunk; waits while the training is too far behind.

        Raises
        ------
        Exception
            What ended the training.
        """
        with self._changed:
            if self._documents is not None and not self._used_again:
                self._wait(lambda: self._done or self._has_room(chunk))
            self._raise()
        blocks = self._keep(chunk, max_docs=BLOCK_DOCUMENTS)
        with self._changed:
            self._chunks.append((chunk, blocks))
            self._ends.append(chunk.n_docs + (self._ends[-1] if self._ends else 0))
            self._changed.notify_all()

    def _has_room(self, chunk: Chunk) -> bool:
        # Those that the training has taken fill the memory too, until they are in a sum.
        fits = self._spool.has_room(chunk.nbytes) or not self._spool.nbytes
        return fits and len(self._chunks) - self._taken < CHUNKS_AHEAD

    def end(self) -> None:
        """No more chunks will come."""
        if self._journal is not None:
            self._journal.write("end", self.num_chunks)
        with self._changed:
            if self._documents is None:
                self._documents = self._ends[-1] if self._ends else 0
                self.model.topics.numdocs += self._documents
            self._complete = True
            self._changed.notify_all()

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """Return what happened since the last call, waiting for something to happen; the last event is
        ``done``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._done or self._error, timeout)
            self._raise()
            happened = list(self._events)
            self._events.clear()
            if self._done:
                happened.append({"kind": "done"})
        return happened

    def resume(self) -> None:
        """Go on after a pass."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def fetch(self) -> dict[str, Any]:
        """Return a copy of the model as the latest M-step left it, and how far that is."""
        with self._updating:
            learnt = self._learnt()
            topics = learnt["topics"]
            topics["sums"] = topics["sums"].copy()
            if not self._done:
                topics["table"] = topics["table"].copy()
            return learnt

    def _learnt(self) -> dict[str, Any]:
        """Return the model and how far the training is; the arrays are the model's own."""
        topics = self.model.topics
        return {
            "topics": {
                "eta": topics.eta,
                "table": topics.table,
                "scale": topics.scale,
                "numdocs": topics.numdocs,
                "sums": topics.sums,
            },
            "alpha": self.model.alpha,
            "eta": self.model.eta,
            "num_updates": self.model.num_updates,
            "progress": asdict(self.progress),
        }

    def close(self) -> None:
        """Give up everything."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def chunks_done(self) -> int:
        """Return how many chunks of the first pass the training has taken."""
        return self._taken

    # The training's thread.

    def _run(self) -> None:
        try:
            with self._changed:
                self._wait(lambda: self._documents is not None)
            self._reporter = Reporter(self.model, self.plan, self.progress)
            if self._paused_at is not None:
                self._wait_for_answer(self._paused_at)
            train(
                self.model,
                self.plan,
                self._arriving,
                self._estep,
                guard=self._updating,
                after_update=self._after_update,
                after_pass=self._after_pass,
                progress=self.progress,
            )
        except Ended:
            return
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        else:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _arriving(self, pass_: int) -> Iterator[Numbered]:
        number = self.progress.chunk  # those before it are in the topics
        while True:
            with self._changed:
                self._wait(partial(self._is_known, number))
                if number == len(self._chunks):
                    return
                self._taken = max(self._taken, number + 1)
                self._changed.notify_all()
            yield number, self._kept(number)[0]
            number += 1

    def _is_known(self, number: int) -> bool:
        """Return whether chunk `number` is here, or will never come."""
        return number < len(self._chunks) or self._complete

    def _kept(self, number: int) -> tuple[Chunk, list[Block]]:
        kept = self._chunks[number]
        assert kept is not None  # it is given up after the last pass only
        return kept

    def _estep(
        self, params: dict[str, Any], chunks: Iterator[Numbered], total: StatisticsSum
    ) -> Mapping[str, Any]:
        spool = None if self._used_again else self._spool
        round_ = self._open_round("lda", params, total, self.model.topics.rows, spool)
        used = []
        for number, chunk in chunks:
            used.append(number)
            self._queue(round_, self._kept(number)[1])
            # While the workers compute.
            last = self._ends[number] == self._documents
            event = self._reporter.perplexity(number, chunk, last, self._documents or 0)
            if event is not None:
                self._tell(event)
        self._finish(round_)
        if self.progress.updates > self._saved and time.monotonic() >= self._save_at:
            self._save(None)  # while the workers compute, the topics stand still
        round_.wait()
        if not self._used_again:
            for number in used:
                self._chunks[number] = None
        return round_.extras

    def _after_update(self, rho: float, merged: int) -> None:
        if not self._used_again:
            self._finished = (self.progress.chunk, self.progress.documents)
        event = self._reporter.update(rho, merged, self._documents or 0)
        due = self._pause_every is not None and self.progress.updates % self._pause_every == 0
        self._pause({**event, "workers": len(self._engine.workers())}, due and self._complete)

    def _after_pass(self, pass_: int) -> None:
        self._pause({"kind": "pass", "pass_": pass_}, self._pauses)

    def _save(self, paused_at: dict[str, Any] | None) -> None:
        """Save what a dispatcher after this one needs, and drop the chunks that it does not need."""
        if self._journal is None:
            return
        began = time.monotonic()
        here = {"documents": self._documents, "finished": self._finished, "paused_at": paused_at}
        self._journal.write("state", {**self._learnt(), **here})
        self._journal.drop_chunks(self._finished[0])
        self._saved = self.progress.updates
        ended = time.monotonic()
        self._save_at = ended + (ended - began) / SAVING_SHARE

    def _pause(self, event: dict[str, Any], wait: bool) -> None:
        """Tell of an event and, if asked, wait until the client has dealt with it."""
        if wait:
            self._save(event)
            self._wait_for_answer(event)
        else:
            self._tell(event)

    def _wait_for_answer(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._paused = True
            self._tell(event)
            self._wait(lambda: not self._paused)

    def _tell(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def _check(self) -> None:
        if self._closed:
            raise Ended
        try:
            self._client_is_there()
        except ConnectionError:
            raise Ended from None

    def _wait(self, ready: Callable[[], Any]) -> None:
        """Wait, under the lock, until something is ready or the session has come to its end."""
        while not self._changed.wait_for(lambda: self._closed or self._error or ready(), CLIENT_CHECK_EVERY):
            self._check()
        if self._closed:
            raise Ended

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

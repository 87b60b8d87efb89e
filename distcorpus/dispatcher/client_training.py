"""A training run of our own LDA model for a program: it streams its corpus in and waits.

The program's calls and the training run are two threads. What the program puts is kept as long as a later
pass needs it. What happens in the training run is told in *events*, small dicts that the program fetches
whenever it likes. They are numbered, and kept until the program says that it has them, so that each reaches
it once, from this dispatcher or from one that goes on with the training.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from typing import Any

from distcorpus.algorithms.chunk import Chunk, Divisible
from distcorpus.algorithms.stopping import Stopped, stopped_by
from distcorpus.engines.base import Block, Engine
from distcorpus.training.lda import LdaTask, LdaTraining, Numbered, Observer, topics_as_dict
from distcorpus.training.rounds import CLIENT_CHECK_EVERY, Round
from distcorpus.training.session import PUT_AFTER_END
from distcorpus.training.standing import Standing, TopicNow, topics_now

#: Chunks that may wait beyond the update under way, before the client has to.
CHUNKS_WAITING = 8
#: Events that are kept for a client that does not fetch them.
EVENTS_KEPT = 10_000
#: The part of the time that saving how far the training is may take.
SAVING_SHARE = 0.1


class Ended(Exception):
    """The client is gone or has ended the session: the training stops, and nobody wants to know."""


class ClientTraining(LdaTraining, Observer):
    """A training run in a thread of its own; it is the run's source and its observer too.

    Parameters
    ----------
    name, engine, **session
        As `LdaTraining` takes them.
    task : LdaTask
    finished : (int, int), optional
        Chunks, and documents in them, that are in the topics and will not be put again, as they are not
        needed again; by default what the task's progress says.
    paused_at : dict, optional
        The event that an earlier training run waited at for the program's answer.
    told : int
        How many events were before those of `events`.
    events : sequence of dict
        Those of an earlier training run that the program may not have.
    check_client : callable
        Raises where the client is gone.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        task: LdaTask,
        *,
        finished: tuple[int, int] | None = None,
        paused_at: dict[str, Any] | None = None,
        told: int = 0,
        events: Sequence[dict[str, Any]] = (),
        check_client: Callable[[], None] = lambda: None,
        **session: Any,
    ) -> None:
        super().__init__(
            name, engine, task.model(), task.plan, task.progress, check_client=self._check, **session
        )
        self._updating = threading.Lock()  # held while the model changes
        self._client_is_there = check_client
        self._pauses = task.pauses
        self._pause_every = task.pause_every
        self._paused = False
        self._expected = task.documents
        self.comes_again = self.plan.passes > 1
        self._finished = finished or (self.progress.chunk, self.progress.documents)
        if self.comes_again:
            self._finished = (0, 0)
        done, documents_done = self._finished
        # By their numbers, without those that are done with: how many these are is no more than a claim.
        self._chunks: dict[int, tuple[Divisible, list[Block]]] = {}
        self._chunks_put = done
        self._documents_put = documents_done
        self.documents_computed = self.progress.pass_ * (task.documents or 0) + self.progress.documents
        self._taken = self.num_chunks = done
        self._paused_at = paused_at
        self._perplexity: float | None = None
        self._saved = self.progress.updates
        self._save_at = 0.0
        self._complete = False
        self._closed = False
        self._done = False
        self._error: BaseException | None = None
        #: The latest events, without those that the program has; the number before the first is that of the
        #: events that happened less their own.
        self._events: deque[dict[str, Any]] = deque(events, maxlen=EVENTS_KEPT)
        self._happened = told + len(events)
        self._happened_by_update = self._happened  # when the topics became what they are
        self._seen = told  # events that the program has
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    # What the client's connection calls.

    def put(self, chunk: Divisible) -> None:
        """Take the next chunk; waits while the training is too far behind.

        Raises
        ------
        RuntimeError
            `end` was called before.
        Exception
            What ended the training.
        """
        with self._changed:
            if self._complete:
                raise RuntimeError(PUT_AFTER_END)
            # References take next to no memory, and a program that waits supplies nobody with documents.
            here = isinstance(chunk, Chunk)
            if here and self._expected is not None and not self.comes_again:
                self._wait(lambda: self._done or self._has_room(chunk))
            self._raise()
        blocks = self.keep(chunk)
        with self._changed:
            self._chunks[self._chunks_put] = chunk, blocks
            self._chunks_put += 1
            self._documents_put += chunk.n_docs
            self._changed.notify_all()

    def _has_room(self, chunk: Divisible) -> bool:
        # Those that the training has taken fill the memory too, until they are in a sum.
        fits = self.spool.has_room(chunk.nbytes) or not self.spool.nbytes
        return fits and self._chunks_put - self._taken < CHUNKS_WAITING

    def end(self) -> None:
        """No more chunks will come."""
        if self._journal is not None:
            self._journal.write("end", self.num_chunks)
        with self._changed:
            if self._expected is None:
                self._expected = self._documents_put
                self.model.topics.numdocs += self._expected
            self._complete = True
            self._changed.notify_all()

    def events(self, seen: int, timeout: float, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Return what happened after the first `seen` events, waiting for something to happen.

        Parameters
        ----------
        seen : int
            How many events the program has, and has dealt with: a pause at one of them ends.
        timeout : float
            Seconds.
        interrupted : callable
            Whether not to wait any longer; `wake` has it asked again.

        Returns
        -------
        dict
            ``events``, ``seen`` (with those) and ``done`` (whether there will be no more).
        """
        with self._changed:
            self._seen = max(self._seen, seen)
            self._changed.notify_all()
            while self._events and self._happened - len(self._events) < self._seen:
                self._events.popleft()
            self._changed.wait_for(
                lambda: self._events or interrupted() or self._done or self._error, timeout
            )
            self._raise()
            return {
                "events": list(self._events),
                "seen": max(self._happened, self._seen),
                "done": self._done,
            }

    def wake(self) -> None:
        """Have who waits look again at what it waits for."""
        with self._changed:
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
        return {
            "topics": topics_as_dict(self.model.topics),
            "alpha": self.model.alpha,
            "eta": self.model.eta,
            "num_updates": self.model.num_updates,
            "progress": asdict(self.progress),
        }

    def close(self, keep: bool = False) -> None:
        """Give up everything, see `Session.close`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close(keep)

    def chunks_done(self) -> int:
        """Return how many chunks of the first pass the training has taken."""
        return self._taken

    def standing(self) -> Standing:
        """See `Session.standing`."""
        plan, expected = self.plan, self._expected
        found = super().standing()
        chunks = self.num_chunks
        if expected is not None and not self._complete:
            chunks = max(chunks, math.ceil(expected / plan.chunksize))
        known = expected is not None
        return replace(
            found,
            documents_arrived=self._documents_put,
            documents_expected=expected,
            documents_to_do=expected * plan.passes if expected is not None else None,
            updates_expected=plan.passes * math.ceil(chunks / (plan.update_chunks or chunks or 1))
            if known
            else None,
            complete=self._complete,
            paused=self._paused,
            done=self._done,
            failure="" if self._error is None else str(self._error),
            perplexity=self._perplexity,
        )

    def topics_now(self, number: int, words: int) -> list[TopicNow]:
        """See `Session.topics_now`."""
        topics = self.model.topics
        return topics_now(
            topics.rows,
            topics.num_terms,
            topics.totals,
            lambda: topics.sums,
            number,
            words,
            lambda: self._updating,
        )

    # The training run's thread.

    def _run(self) -> None:
        try:
            with self._changed:
                self._wait(lambda: self._expected is not None)
            if self._paused_at is not None:
                self._wait_for_answer(self._paused_at)
            with stopped_by(self.stop):
                self.run(self, self)
            # Who is told of the end may fetch the model from a dispatcher after this one.
            if self.progress.updates > self._saved:
                self._save(None)
        except (Ended, Stopped):
            return
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
        else:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    # What it asks of its source.

    @property
    def documents(self) -> int:
        """Those of a pass."""
        return self._expected or 0

    def chunks(self, pass_: int) -> Iterator[Numbered]:
        """Yield the chunks that are not in the topics, as the client puts them."""
        number = self.progress.chunk
        while True:
            with self._changed:
                self._wait(partial(self._is_known, number))
                if number == self._chunks_put:
                    return
                self._taken = max(self._taken, number + 1)
                self._changed.notify_all()
            yield number, self._kept(number)[0]
            number += 1

    def blocks(self, number: int, chunk: Divisible) -> list[Block]:
        """Return the blocks of a chunk."""
        return self._kept(number)[1]

    def _is_known(self, number: int) -> bool:
        """Return whether chunk `number` is here, or will never come."""
        return number < self._chunks_put or self._complete

    def _kept(self, number: int) -> tuple[Divisible, list[Block]]:
        return self._chunks[number]  # it is given up after the last pass only

    # What it tells its observer.

    def changing(self) -> AbstractContextManager[Any]:
        """The client does not fetch the model meanwhile."""
        return self._updating

    def computing(self, round_: Round) -> None:
        """Save the topics, which stand still, while the workers compute."""
        if self.progress.updates > self._saved and time.monotonic() >= self._save_at:
            self._save(None)

    def after_update(self, event: dict[str, Any]) -> None:
        """Let go of what is in the topics; pause if the client asked for it."""
        if not self.comes_again:
            first, self._finished = self._finished[0], (self.progress.chunk, self.progress.documents)
            with self._changed:
                for number in range(first, self.progress.chunk):
                    del self._chunks[number]
        due = self._pause_every is not None and self.progress.updates % self._pause_every == 0
        self._pause(event, due and self._complete)

    def after_pass(self, pass_: int) -> None:
        """Pause if the client asked for it."""
        self._pause({"kind": "pass", "pass_": pass_}, self._pauses)

    def _save(self, paused_at: dict[str, Any] | None) -> None:
        """Save what a dispatcher after this one needs, and drop the chunks that it does not need."""
        if self._journal is None:
            return
        began = time.monotonic()
        with self._changed:
            # Without those of the round under way: they will happen again.
            kept = max(self._happened_by_update - self._happened + len(self._events), 0)
            events = list(islice(self._events, kept))
        here = {
            "documents": self._expected,
            "finished": self._finished,
            "paused_at": paused_at,
            "told": self._happened_by_update - kept,
            "events": events,
        }
        self._journal.write("state", {**self._learnt(), **here})
        self._journal.drop_chunks(self._finished[0])
        self._saved = self.progress.updates
        ended = time.monotonic()
        self._save_at = ended + (ended - began) / SAVING_SHARE

    def _pause(self, event: dict[str, Any], wait: bool) -> None:
        """Tell of an event and, if asked, wait until the client has dealt with it."""
        self._happened_by_update = self._happened
        if wait:
            self._save(event)
            self._wait_for_answer(event)
        else:
            self.happened(event)
            self._happened_by_update = self._happened

    def _wait_for_answer(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._paused = True
            self.happened(event)
            self._wait(lambda: self._seen >= self._happened)
            self._paused = False
            self._happened_by_update = self._happened

    def happened(self, event: dict[str, Any]) -> None:
        """Keep an event for the client, unless it has it from a dispatcher before this one."""
        if event["kind"] == "perplexity":
            self._perplexity = 2.0 ** min(-event["per_word"], 1000.0)
            self.curve.add(self.standing().documents_done, self._perplexity)
        with self._changed:
            self._happened += 1
            if self._happened > self._seen:
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

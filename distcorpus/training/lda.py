"""Training LDA: the loop over passes, rounds of the E-step, and M-steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import Divisible
from distcorpus.algorithms.lda import LDA_GRID, check_not_too_small
from distcorpus.algorithms.online import OnlineLda, Plan, Progress
from distcorpus.algorithms.received import check_amounts, check_kinds, count, flag, keep_plain, optional
from distcorpus.algorithms.topics import LazyTopics, StatisticsSum, check_arrived
from distcorpus.engines.base import Block, Engine
from distcorpus.kernels import EStep, EStepParams
from distcorpus.training.rounds import Round
from distcorpus.training.session import Session
from distcorpus.training.spool import Spool
from distcorpus.training.standing import Standing, TopicNow, topics_now

R = TypeVar("R")

#: A chunk's number in its pass, and the chunk.
Numbered = tuple[int, Divisible]


class Source(Protocol):
    """Where a training run takes its documents from.

    Attributes
    ----------
    comes_again : bool
        Whether the same blocks come in every pass, so that workers do well to keep them.
    """

    comes_again: bool

    @property
    def documents(self) -> int:
        """Those of a pass."""

    def chunks(self, pass_: int) -> Iterable[Numbered]:
        """Return the chunks of a pass with their numbers, in order; may wait for them."""

    def blocks(self, number: int, chunk: Divisible) -> list[Block]:
        """Return the blocks of a chunk that `chunks` has just given."""


class Observer:
    """Is told of a training run, in the thread that runs it; does nothing."""

    def changing(self) -> AbstractContextManager[Any]:
        """Return what is entered whenever the model and its progress change."""
        return nullcontext()

    def computing(self, round_: Round) -> None:
        """A round has all its blocks and is being computed: the topics stand still."""

    def estimated(self, chunk: Divisible, estimate: Callable[[], R]) -> R:
        """Return what an estimate of a chunk's perplexity returns, which may take a while."""
        return estimate()

    def happened(self, event: dict[str, Any]) -> None:
        """A perplexity was estimated, see `Reporter`."""

    def after_update(self, event: dict[str, Any]) -> None:
        """There was an M-step, see `Reporter`."""

    def after_pass(self, pass_: int) -> None:
        """A pass has ended."""


@dataclass(frozen=True, slots=True, eq=False)
class LdaTask:
    """What a program asks a dispatcher to train.

    Attributes
    ----------
    topics : dict
        The arguments of `LazyTopics`.
    alpha, eta : ndarray
        See `OnlineLda`.
    num_updates : int
        See `OnlineLda`.
    plan : Plan
    documents : int, optional
        How many will come in all; None where the program cannot tell, so that the training begins when all of
        them are there.
    progress : Progress
        Where to begin.
    pauses : bool
        Wait for the program after each pass.
    pause_every : int, optional
        Wait for the program after every so many updates, once all chunks are there: a program that still
        sends some does not listen.
    """

    topics: dict[str, Any]
    alpha: NDArray
    eta: NDArray
    num_updates: int
    plan: Plan
    documents: int | None
    progress: Progress
    pauses: bool = False
    pause_every: int | None = None

    def __post_init__(self) -> None:
        check_kinds(dict, topics=self.topics)
        check_kinds(np.ndarray, eta=self.eta)
        keep_plain(self, count, "num_updates")
        keep_plain(self, optional(count), "documents")
        keep_plain(self, optional(partial(count, least=1)), "pause_every")
        keep_plain(self, flag, "pauses")
        check_arrived(self.topics, self.alpha)
        check_amounts({"eta": self.eta})

    def to_message(self) -> dict[str, Any]:
        """Return it as it travels."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "plan": asdict(self.plan), "progress": asdict(self.progress)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> LdaTask:
        """Take what has travelled."""
        progress = Progress(**message["progress"])
        return cls(**{**message, "plan": Plan(**message["plan"]), "progress": progress})

    def model(self) -> OnlineLda:
        """Return the model to train."""
        return OnlineLda(LazyTopics(**self.topics), self.alpha, self.eta, self.num_updates)


def topics_as_dict(topics: LazyTopics, numdocs: int | None = None) -> dict[str, Any]:
    """Return the arguments that make the same `LazyTopics`, standing for `numdocs` documents; not copied."""
    return {
        "eta": topics.eta,
        "table": topics.table,
        "scale": topics.scale,
        "sums": topics.sums,
        "numdocs": topics.numdocs if numdocs is None else numdocs,
    }


def estep_params(model: OnlineLda, plan: Plan) -> EStepParams:
    """Return the parameters of the next round."""
    return EStepParams(
        alpha=np.asarray(model.alpha, dtype=np.float64),
        totals=model.topics.totals(),
        dtype=model.topics.dtype.name,
        iterations=plan.iterations,
        gamma_threshold=plan.gamma_threshold,
        seed=plan.seed,
        variant=plan.variant,
        gamma_statistics=plan.optimize_alpha,
    )


class LdaTraining(Session):
    """Trains a model.

    Parameters
    ----------
    name, engine, **session
        As `Session` takes them.
    model : OnlineLda
        Changed in place.
    plan : Plan
    progress : Progress, optional
        Where to begin, in a training that was interrupted after an M-step; it is kept up to date.
    """

    kernel = EStep

    def __init__(
        self,
        name: str,
        engine: Engine,
        model: OnlineLda,
        plan: Plan,
        progress: Progress | None = None,
        **session: Any,
    ) -> None:
        super().__init__(name, engine, model.topics.num_terms, **session)
        self.model = model
        self.plan = plan
        self.progress = progress or Progress()

    def standing(self) -> Standing:
        """See `Session.standing`."""
        return replace(
            super().standing(),
            topics=self.model.topics.num_topics,
            pass_=min(self.progress.pass_, self.plan.passes - 1),
            passes=self.plan.passes,
            updates=self.progress.updates,
        )

    def run(self, source: Source, observer: Observer) -> None:
        """Train, in this thread, from where `progress` stands to the end of the plan.

        Raises
        ------
        Exception
            What a round fails with, or `source` or `observer` raise. The model is as the latest M-step left
            it, unless that itself was interrupted.
        """
        model, plan, progress = self.model, self.plan, self.progress
        reporter = Reporter(model, plan, progress)
        total = StatisticsSum(self.num_terms, model.topics.num_topics, LDA_GRID, self.engine.map)
        for pass_ in range(progress.pass_, plan.passes):
            first = progress.chunk
            remaining = (numbered for numbered in source.chunks(pass_) if numbered[0] >= first)
            for leader in remaining:
                # The first chunk says that there is a round; the others are read while it is computed.
                others = islice(remaining, plan.update_chunks - 1) if plan.update_chunks else remaining
                seen = _Counter(chain([leader], others))
                extras = self._expect(iter(seen), total, source, observer, reporter)
                with observer.changing():
                    rho = model.mstep(plan, pass_, total, extras, self.engine.map)
                    progress.chunk += seen.chunks
                    progress.documents += seen.documents
                    progress.updates += 1
                total.clear()
                event = reporter.update(rho, seen.documents, source.documents)
                observer.after_update({**event, "workers": self.engine.num_workers})
            with observer.changing():
                progress.pass_, progress.chunk, progress.documents = pass_ + 1, 0, 0
            observer.after_pass(pass_)

    def _expect(
        self,
        chunks: Iterator[Numbered],
        total: StatisticsSum,
        source: Source,
        observer: Observer,
        reporter: Reporter,
    ) -> Mapping[str, Any]:
        """Compute the expected statistics of some chunks, the E-step."""
        documents = self.progress.documents
        round_ = self.open_sum(
            estep_params(self.model, self.plan),
            total,
            self.model.topics.rows,
            keep_blocks=source.comes_again,
        )
        for number, chunk in chunks:
            self.queue(round_, source.blocks(number, chunk))
            documents += chunk.n_docs
            # While the engine computes.
            last = documents == source.documents
            estimate = partial(reporter.perplexity, number, chunk, last, source.documents)
            event = observer.estimated(chunk, estimate)
            if event is not None:
                observer.happened(event)
        self.seal(round_)
        observer.computing(round_)
        round_.wait()
        return round_.extras


class EStepTraining(Session):
    """A model whose M-step is made elsewhere: round after round of the E-step under given topics.

    Parameters
    ----------
    name, engine, num_terms, **session
        As `Session` takes them.
    num_topics : int
    """

    kernel = EStep

    def __init__(self, *session: Any, num_topics: int, **options: Any) -> None:
        super().__init__(*session, **options)
        self.num_topics = num_topics
        self._round: Any = None
        self._statistics: NDArray = np.zeros(num_topics)

    def begin(
        self,
        params: EStepParams,
        total: Any,
        rows: Callable[[NDArray[np.int32]], NDArray],
        statistics: NDArray,
    ) -> None:
        """Begin a round; one that was not finished is given up.

        Chunks are numbered anew, so that a document starts from the same gamma in every pass.

        Parameters
        ----------
        params : EStepParams
        total : GridSum
            What the statistics are added to.
        rows : callable
            Returns lambda of an array of term ids.
        statistics : ndarray, shape (num_topics,)
            The sufficient statistics in lambda, summed over all terms.
        """
        # A new one: a round that was given up may still release chunks of the same numbers.
        self.spool = Spool(self.memory, self.spool.directory, room=self.spool.room)
        self.num_chunks = self.num_documents = 0
        self._statistics = statistics
        self._round = self.open_sum(params, total, rows)

    def put(self, chunk: Divisible) -> None:
        """Add a chunk to the round; waits while the queue or the memory is full."""
        round_ = self._current()
        check_not_too_small(chunk, self.num_chunks)
        self.wait_for_room(round_, chunk.nbytes)
        self.queue(round_, self.keep(chunk))

    def finish(self) -> tuple[Any, int]:
        """Wait for the round.

        Returns
        -------
        total : GridSum
            As `begin` was given it.
        documents : int
            How many are in it.
        """
        round_ = self._current()
        self.seal(round_)
        round_.wait()
        self._round = None
        return round_.total, int(round_.extras.get("documents", 0))

    def standing(self) -> Standing:
        """See `Session.standing`."""
        answered = self._round is None and self.num_rounds > 0
        return replace(super().standing(), topics=self.num_topics, answered=answered)

    def topics_now(self, number: int, words: int) -> list[TopicNow]:
        """See `Session.topics_now`."""
        round_ = self._round
        if round_ is None:
            return []
        totals, statistics = round_.params.totals, self._statistics
        return topics_now(round_.rows, self.num_terms, lambda: totals, lambda: statistics, number, words)

    def _current(self) -> Any:
        if self._round is None:
            raise RuntimeError("no round has begun: call reset(state) before putjob and getstate")
        return self._round


class Reporter:
    """Says what happens in a training, in small dicts that travel.

    Parameters
    ----------
    model : OnlineLda
    plan : Plan
    progress : Progress
        Kept up to date by the training run.
    """

    def __init__(self, model: OnlineLda, plan: Plan, progress: Progress) -> None:
        self._model = model
        self._plan = plan
        self._progress = progress
        self._log_topics = list(model.log_topics()) if plan.details else []

    def update(self, rho: float, merged: int, documents: int) -> dict[str, Any]:
        """Report an M-step.

        Parameters
        ----------
        rho : float
            Its learning rate.
        merged : int
            The documents that it took in.
        documents : int
            Those of a whole pass.

        Returns
        -------
        dict
            ``kind`` ("update"), ``pass_``, ``documents`` (of this pass so far), ``of``, ``updates``, ``rho``,
            ``merged``, ``converged`` (of those, within their iterations), ``numdocs`` (that the model then
            stands for); with ``plan.details`` also ``alpha``, where it is learnt, ``diff``, the mean absolute
            change of E[log beta], and ``topics``: number, alpha, the ids of the ten most probable terms and
            their probabilities, of the topics with the two smallest and the two largest alpha.
        """
        progress = self._progress
        event: dict[str, Any] = {
            "kind": "update",
            "pass_": progress.pass_,
            "documents": progress.documents,
            "of": documents,
            "updates": progress.updates,
            "rho": rho,
            "merged": merged,
            "converged": self._model.converged,
            "numdocs": self._model.topics.numdocs,
        }
        if self._plan.details:
            if self._plan.optimize_alpha:
                event["alpha"] = self._model.alpha.tolist()
            before, self._log_topics = self._log_topics, list(self._model.log_topics())
            changes = (np.abs(b - a).sum() for a, b in zip(before, self._log_topics, strict=True))
            topics = self._model.topics
            event["diff"] = float(sum(changes)) / (topics.num_terms * topics.num_topics)
            by_alpha = np.argsort(self._model.alpha, kind="stable").tolist()
            event["topics"] = [self._topic(k) for k in dict.fromkeys(by_alpha[:2] + by_alpha[-2:])]
        return event

    def _topic(self, k: int) -> tuple[int, float, list[int], list[float]]:
        logs = np.concatenate([rows[:, k] for rows in self._log_topics])
        best = np.argsort(-logs, kind="stable")[:10].astype(np.int32)
        topics = self._model.topics
        probabilities = topics.rows(best)[:, k] / topics.totals()[k]
        return k, float(self._model.alpha[k]), best.tolist(), probabilities.tolist()

    def perplexity(self, number: int, chunk: Divisible, last: bool, documents: int) -> dict[str, Any] | None:
        """Estimate the perplexity of a chunk, where the plan says so.

        Parameters
        ----------
        number : int
            The chunk's number in its pass.
        chunk : Divisible
        last : bool
            Whether it is the last one.
        documents : int
            Those of a whole pass.

        Returns
        -------
        dict or None
            ``kind`` ("perplexity"), ``per_word`` (the bound, in nats), ``documents`` and ``words`` of the
            chunk.
        """
        every = self._plan.eval_chunks
        if not every or not chunk.nnz or not (last or (number + 1) % every == 0):
            return None
        return {
            "kind": "perplexity",
            "per_word": self._model.per_word_bound(self._plan, chunk, number, documents),
            "documents": chunk.n_docs,
            "words": chunk.total(),
        }


class _Counter:
    """Counts chunks as they pass by."""

    def __init__(self, chunks: Iterable[Numbered]) -> None:
        self._chunks = chunks
        self.chunks = 0
        self.documents = 0

    def __iter__(self) -> Iterator[Numbered]:
        for number, chunk in self._chunks:
            self.chunks += 1
            self.documents += chunk.n_docs
            yield number, chunk

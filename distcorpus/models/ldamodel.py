"""gensim's LDA model over compiled kernels, on this machine or on a cluster."""

from __future__ import annotations

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from typing import Any, ClassVar, TypeVar, cast

import gensim.models
import gensim.utils
import numpy as np
import scipy.sparse
from gensim.models.callbacks import Callback
from gensim.models.ldamodel import LdaState

from distcorpus.algorithms.chunk import Chunk, Divisible, compact, warm
from distcorpus.algorithms.lda import (
    VARIANTS,
    bound,
    check_not_too_small,
    document_weights,
    infer,
    log_topics,
    topic_bound,
    topic_weights,
)
from distcorpus.algorithms.online import OnlineLda, Plan, Progress
from distcorpus.algorithms.received import optional
from distcorpus.algorithms.topics import LazyTopics, shares_of_tokens
from distcorpus.corpora.reading import (
    EmptyCorpusError,
    ReadAhead,
    as_corpus,
    check_corpus,
    check_memory,
    chunks,
    divisible,
    is_placed,
    is_rereadable,
    is_sparse,
    length,
    small_document,
    vocabulary,
    word_of,
)
from distcorpus.corpora.reference import StoredChunk, documents_here, refers_to
from distcorpus.engines.base import Block, Engine
from distcorpus.engines.interrupts import interruptible
from distcorpus.kernels import EStep, Inference, InferenceParams
from distcorpus.models import _check as check
from distcorpus.models._answers import check_topics
from distcorpus.models._cluster import Cluster, Training, train_on, words_of
from distcorpus.models._content import checksum
from distcorpus.models._documents import DocumentTopics, as_gensims, begun, one_document, pairs_of, quietly
from distcorpus.models._drawing import Drawing
from distcorpus.models._engine import check_here, chosen_client, engine_of, placed, placed_with
from distcorpus.models._progress import ProgressBar
from distcorpus.models._report import is_reported
from distcorpus.models._saving import Saved, save_whole
from distcorpus.models._showing import Shown, prepare_pyldavis
from distcorpus.training.evaluation import Evaluation, EvaluationTask, evaluate
from distcorpus.training.lda import LdaTask, LdaTraining, Numbered, Observer, topics_as_dict
from distcorpus.training.rounds import Round
from distcorpus.wire import CommunicationError, names

R = TypeVar("R")

# Under the name that gensim's users know its lines by.
logger = logging.getLogger("gensim.models.ldamodel")

#: Iterations, of all documents together, that may take a while.
LONG = 10_000
#: Chunks that may be read before they are needed.
CHUNKS_READ_AHEAD = 8
#: Chunks of a training on a Dask cluster that wait for a worker.
CHUNKS_QUEUED = 10
#: Seconds between two looks at what the cluster has learnt, from where a lost dispatcher's training goes on.
KEEP_EVERY = 10.0


def _probability(name: str, value: Any) -> float:
    """Return a smallest probability; gensim takes None for 0."""
    return check.number(name, 0.0 if value is None else value, 0.0, 1.0)


#: A prior that adds up to less has room in any type.
SURELY_ROOM = float(np.finfo(np.float32).max) / 2

#: How the attributes are checked that a program may set later: as the arguments of these names are.
SETTINGS: dict[str, check.Check] = {
    "chunksize": partial(check.whole, least=1),
    "iterations": partial(check.whole, least=0),
    "gamma_threshold": partial(check.number, least=0.0),
    "minimum_probability": _probability,
    "callbacks": check.metrics,
    "random_state": lambda _, value: check.random_state(value),
    "update_chunks": optional(partial(check.whole, least=1)),
    "progress": check.progress,
    "report": optional(check.path),
    "checkpoint": optional(check.path),
    "checkpoint_every": partial(check.whole, least=1),
    "workers": optional(partial(check.whole, least=1)),
}
#: Those that a training looks at.
OF_TRAINING = (
    "callbacks",
    "random_state",
    "update_chunks",
    "progress",
    "report",
    "checkpoint",
    "checkpoint_every",
    "workers",
)

#: Where the topics were taken from a model.
NO_TOPICS = (
    "this model has no topics: clear() was called, or its state set to None; train a new one, or load one"
)

#: What gensim's training calls, and ours does not: it computes on blocks, here or elsewhere.
HOOKS = (
    "do_estep",
    "do_mstep",
    "update_alpha",
    "update_eta",
    "sync_state",
    "inference",
    "log_perplexity",
)


class LdaModel(Saved, Shown, gensim.models.LdaModel):
    """Latent Dirichlet allocation, with everything that ``gensim.models.LdaModel`` has.

    The arguments and methods are gensim's; docs/models.md lists the differences. All arguments, including
    ``alpha='auto'`` and ``eta='auto'``, have their effect in distributed mode too. A cluster reads the corpus
    once: it may be a generator, a scipy sparse matrix (terms x documents) or, with `client`, a Dask
    collection, whose documents stay on the cluster (docs/dask.md).

    The same arguments and `random_state` give the same bytes without a cluster and on a cluster of any size.

    Parameters
    ----------
    corpus, num_topics, id2word, chunksize, passes, update_every, alpha, eta, decay, offset, eval_every,
    iterations, \
gamma_threshold, minimum_probability, random_state, minimum_phi_value, per_word_topics, callbacks
        As in gensim.
    distributed : bool
        Train on a cluster.
    ns_conf : dict, optional
        Where the cluster's name server is: ``host``, ``port``, ``broadcast``, or ``address_file``. By default
        that of an active `LocalCluster`, else what DISTCORPUS_ADDRESS_FILE names, else PYRO_NS_HOST, else
        the one that answers a broadcast.
    dtype : {numpy.float32, numpy.float64}
        Type of the computation. gensim's float16 is refused, because sums in it overflow at 65,504 words.
    inference : {"vb", "cvb0"}
        Variational Bayes, as in gensim, or zero-order collapsed variational Bayes (Asuncion et al., On
        smoothing and inference for topic models, UAI 2009), which finds better topics in the same time.
    update_chunks : int, optional
        Chunks between two M-steps; `update_every` by default. gensim's class multiplies that by the number of
        workers; here the result does not depend on the cluster.
    progress : bool or callable
        True shows a progress bar; a function is called with each event, a dict, see `training.lda.Reporter`.
    checkpoint : path, optional
        Save the model there every `checkpoint_every` M-steps. ``LdaModel.load(path).update(corpus,
        resume=True)`` goes on from there, to the same bytes as a training run that was not interrupted.
    checkpoint_every : int
    workers : int, optional
        Threads of this process that compute, if the model is not distributed; by default as many as the cores
        that the process may use. The result is the same.
    client : dask.distributed.Client or "active", optional
        Compute on the Dask cluster of this client, or of the active client. The result is the same. It is
        not saved with the model.
    report : path, optional
        After each training run, write an HTML file that shows where its time went: `performance_report`.

    Raises
    ------
    ValueError, TypeError
        If an argument has a wrong value or type; this is checked before anything is sent.
    RuntimeError
        If there is no cluster, or a chunk cannot be computed.

    References
    ----------
    Hoffman, Blei & Bach, Online learning for latent Dirichlet allocation, NIPS 2010.
    """

    gensims_class: ClassVar[Any] = gensim.models.LdaModel
    own_options: ClassVar[dict[str, Any]] = {
        "variant": "vb",
        "update_chunks": None,
        "progress": False,
        "report": None,
        "checkpoint": None,
        "checkpoint_every": 10,
        "workers": None,
        "client": None,
        "ns_conf": None,
        "interrupted": None,
    }

    # The topics are held in one of two forms: as training leaves them, until somebody looks at `state`.
    _drawing: Drawing | None = None
    _topics: LazyTopics | None = None
    _state: LdaState | None = None
    _exp_elog_beta: np.ndarray | None = None
    _made: dict[str, Any]  # forms of the present topics: the first that is made of a kind counts
    _prepared: tuple[LdaState, bytes, LazyTopics] | None = None

    def __init__(
        self,
        corpus: Any = None,
        num_topics: int = 100,
        id2word: Any = None,
        distributed: bool = False,
        chunksize: int = 2000,
        passes: int = 1,
        update_every: int = 1,
        alpha: Any = "symmetric",
        eta: Any = None,
        decay: float = 0.5,
        offset: float = 1.0,
        eval_every: int | None = 10,
        iterations: int = 50,
        gamma_threshold: float = 0.001,
        minimum_probability: float | None = 0.01,
        random_state: Any = None,
        ns_conf: Mapping[str, Any] | None = None,
        minimum_phi_value: float | None = 0.01,
        per_word_topics: bool = False,
        callbacks: Any = None,
        dtype: Any = np.float32,
        *,
        inference: str = "vb",
        update_chunks: int | None = None,
        progress: bool | Callable[[dict[str, Any]], None] = False,
        checkpoint: str | None = None,
        checkpoint_every: int = 10,
        workers: int | None = None,
        client: Any = None,
        report: str | None = None,
    ) -> None:
        self.dtype = check.floats(dtype)
        self.num_topics = check.topics("num_topics", num_topics)
        self.chunksize = SETTINGS["chunksize"]("chunksize", chunksize)
        schedule = check.schedule(
            passes=passes,
            update_every=update_every,
            decay=decay,
            offset=offset,
            eval_every=eval_every,
            iterations=iterations,
            gamma_threshold=gamma_threshold,
        )
        self.__dict__.update(schedule)
        self.minimum_probability = _probability("minimum_probability", minimum_probability)
        if minimum_phi_value is None:  # gensim's meaning
            minimum_phi_value = self.minimum_probability
        self.minimum_phi_value = check.number("minimum_phi_value", minimum_phi_value, 0.0)
        self.per_word_topics = bool(per_word_topics)
        self.variant = check.one_of("inference", inference, VARIANTS)
        self.callbacks, self.random_state, self.update_chunks = callbacks, random_state, update_chunks
        self.progress, self.report = progress, report
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self.workers = check.workers(workers, distributed)
        self._settle(OF_TRAINING)
        self.client = chosen_client(client, distributed=distributed or None, ns_conf=ns_conf, workers=workers)
        self.ns_conf = ns_conf
        self.interrupted: dict[str, Any] | None = None
        self.num_updates = 0

        if corpus is not None:
            corpus = placed(corpus, self.client)
        self.id2word, self.num_terms = vocabulary(id2word, corpus, self.chunksize)
        if self.num_terms == 0:
            raise ValueError(
                "cannot compute LDA over an empty collection (no terms): id2word is empty; give the "
                "dictionary that the corpus was made with"
            )
        if corpus is not None:
            check_corpus(corpus, self.num_terms)
            documents = length(corpus)
            if documents == 0:
                raise EmptyCorpusError
            self._first = corpus, documents  # for `update`, which need not look again
        check_memory(self.num_terms, self.num_topics, self.dtype.itemsize)
        alpha = check.given_prior("alpha", alpha, ("symmetric", "asymmetric", "auto"))
        values, self.optimize_alpha = self.init_dir_prior(alpha, "alpha")
        self.alpha = check.prior("alpha", values, [(self.num_topics,)])
        eta = check.given_prior("eta", eta, ("symmetric", "auto"))
        values, self.optimize_eta = self.init_dir_prior(eta, "eta")
        shapes = [(self.num_terms,), (self.num_topics, self.num_terms)]
        self.eta = check.prior("eta", values, shapes, zeros=True)
        if corpus is not None:
            self._check_eta()

        self.distributed = bool(distributed)
        Cluster(ns_conf)  # complains of what it cannot use
        self.dispatcher = Cluster(ns_conf) if distributed else None
        self.numworkers = 1
        drawing = Drawing(self.random_state, self.eta, self.num_topics, self.num_terms, self.dtype)
        with drawing as self._drawing:
            cluster = self._cluster()
            if cluster is not None:
                with Training(cluster.connect(names.LDA_MODELS)) as training:
                    self.numworkers = max(training.call("ready"), 1)
                logger.info("using distributed version with %i workers", self.numworkers)
            if corpus is not None:
                start = time.time()
                try:
                    self.update(corpus)
                finally:
                    self.__dict__.pop("_first", None)
                self.add_lifecycle_event("created", msg=f"trained {self} in {time.time() - start:.2f}s")
            self._await_topics()

    def _check_eta(self) -> None:
        """gensim lets a model be made with eta=0, whose topics come from elsewhere."""
        if not (self.eta > 0).all():
            raise ValueError(
                "eta has zeros: topics cannot be learnt with them, only used; give eta a number above 0"
            )

    # The topics, in both forms. What is made when somebody looks is made aside and published whole: other
    # threads may look too, and memory may run out, or Ctrl-C come, at any point.

    def _await_topics(self) -> None:
        drawing = self._drawing
        if drawing is not None:
            self.__dict__.update(_topics=drawing.result(), _made={}, _drawing=None)

    @property
    def state(self) -> Any:
        """The topics as gensim's ``LdaState``; made of what the training left when somebody looks."""
        self._await_topics()
        topics = self._topics
        if topics is not None:
            state = LdaState(topics.eta, (0, 0), dtype=self.dtype)
            state.sstats = topics.to_state()
            state.numdocs = topics.numdocs
            state = self._made.setdefault("state", state)  # one for all who look: they may write into it
            if self._topics is topics:
                self.__dict__.update(_state=state, _topics=None)
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self.__dict__.update(_drawing=None, _topics=None, _state=state, _prepared=None, _made={})

    @property
    def expElogbeta(self) -> np.ndarray:
        """exp(E[log beta]), shape (num_topics, num_terms); computed when somebody looks."""
        weights = self._exp_elog_beta
        if weights is None:
            topics = self._lazy_topics()
            rows = topics.rows(np.arange(topics.num_terms, dtype=np.int32))
            weights = np.ascontiguousarray(topic_weights(rows, topics.totals()).T)
            self._exp_elog_beta = weights = self._made.setdefault("weights", weights)
        return weights

    @expElogbeta.setter
    def expElogbeta(self, values: np.ndarray) -> None:
        self.__dict__.update(_exp_elog_beta=values, _prepared=None)

    def _lazy_topics(self, *, checked: bool = True) -> LazyTopics:
        """Return the topics as training has them; not to be changed.

        Of a `state` they are made once: again where it was changed in place, which takes a look at all of it,
        or, where that is not `checked`, when `sync_state` says so, as for gensim's own inference.
        """
        self._await_topics()
        topics, state = self._topics, self._state
        if topics is not None:
            return topics
        if state is None:
            raise RuntimeError(NO_TOPICS)
        prepared = self._prepared
        if prepared is not None and prepared[0] is state and not checked:
            return prepared[2]
        statistics = self._statistics_of(state)
        content = checksum(statistics, state.eta, state.numdocs)
        if prepared is None or prepared[0] is not state or prepared[1] != content:
            topics = LazyTopics.from_state(state.eta, statistics, state.numdocs)
            self._prepared = prepared = state, content, topics
        return prepared[2]

    def _statistics_of(self, state: Any) -> np.ndarray:
        """Return the statistics of a state, which the program may have replaced, in the model's type."""
        statistics = np.asarray(state.sstats)
        shape = self.num_topics, self.num_terms
        if statistics.shape != shape or statistics.dtype.kind not in "iuf":
            raise ValueError(
                f"state.sstats is an array of {statistics.dtype} {statistics.shape}: give one of numbers, "
                f"topics x terms, {shape}"
            )
        return statistics.astype(self.dtype, copy=False)

    def _topics_to_train(self) -> LazyTopics:
        """Return the topics for a training to change in place."""
        topics = self._lazy_topics()
        if self._topics is None:
            self._prepared = None
        return topics

    def _adopt(self, topics: LazyTopics, alpha: np.ndarray, eta: np.ndarray, num_updates: int) -> None:
        """Take over what a training has come to, all at once."""
        self.__dict__.update(
            _topics=topics,
            _state=None,
            _exp_elog_beta=None,
            _prepared=None,
            _made={},
            alpha=alpha,
            eta=eta,
            num_updates=num_updates,
        )

    def _setting(self, name: str) -> Any:
        """Return an attribute that the program may have set, as the constructor would have it.

        Raises
        ------
        ValueError, TypeError
            If it is not what it has to be.
        """
        value = getattr(self, name)
        if name in SETTINGS:
            return SETTINGS[name](name, value)
        shapes: list[tuple[int, ...]] = [(self.num_topics,)]
        if name == "eta":
            shapes = [(self.num_terms,), (self.num_topics, self.num_terms)]
        if type(value) is np.ndarray and value.dtype == self.dtype and value.shape in shapes:
            # What the constructor and training runs leave; to see so takes less time than the whole check.
            least, most = np.minimum.reduce(value, None), np.maximum.reduce(value, None)
            if least > 0 and most < SURELY_ROOM / value.shape[-1]:
                return value
        given = check.given_prior(name, value, ())
        values, _ = self.init_dir_prior(given, name)
        return check.prior(name, values, shapes, zeros=name == "eta")

    def _random(self) -> np.random.RandomState:
        if type(self.random_state) is not np.random.RandomState:  # the program has set it
            self._settle(("random_state",))
        return self.random_state

    def _settle(self, names: Iterable[str]) -> None:
        """Let attributes that the program may have set be as the constructor would have them."""
        self.__dict__.update({name: self._setting(name) for name in names})

    # Training.

    @np.errstate(all="ignore")
    def update(
        self,
        corpus: Any,
        chunksize: int | None = None,
        decay: float | None = None,
        offset: float | None = None,
        passes: int | None = None,
        update_every: int | None = None,
        eval_every: int | None = None,
        iterations: int | None = None,
        gamma_threshold: float | None = None,
        chunks_as_numpy: bool = False,
        *,
        resume: bool = False,
    ) -> None:
        """Train on more documents.

        Parameters
        ----------
        corpus : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
            Where it has no ``len()`` it is read to its end before the first update.
        chunksize, decay, offset, passes, update_every, eval_every, iterations, gamma_threshold
            As in gensim; by default those that the model was made with.
        chunks_as_numpy : bool
            Ignored.
        resume : bool
            Go on with the training that this model's checkpoint (or Ctrl-C) interrupted, on the same corpus.

        Raises
        ------
        ValueError, TypeError
            If an argument or a document is not what it has to be.
        RuntimeError
            If the cluster cannot be found or cannot compute a chunk.
        KeyboardInterrupt
            The model then has what had been learnt until then.
        """

        self._settle(("alpha", "eta", *OF_TRAINING))
        self._check_eta()
        self._warn_of_hooks()
        first = self.__dict__.pop("_first", None)
        if first is not None and first[0] is not corpus:  # a subclass gives others than the constructor has
            first = None
        corpus = placed(corpus, self.client)
        documents = length(corpus) if first is None else first[1]
        given = {
            "passes": passes,
            "update_every": update_every,
            "decay": decay,
            "offset": offset,
            "eval_every": eval_every,
            "iterations": iterations,
            "gamma_threshold": gamma_threshold,
        }
        given = {name: getattr(self, name) if value is None else value for name, value in given.items()}
        schedule = check.schedule(**given)
        update_every, eval_every = schedule["update_every"], schedule["eval_every"] or 0
        chosen = chunksize is not None
        if chunksize is None:
            chunksize = self._setting("chunksize")
            chunksize = min(chunksize, documents or chunksize)
        chunksize = check.whole("chunksize", chunksize, 1)
        check_corpus(corpus, self.num_terms)
        if documents == 0:
            logger.warning("LdaModel.update() called with an empty corpus")
            return
        update_chunks = self.update_chunks or update_every
        read = self._read_while_drawing(corpus, chunksize)
        topics = self._topics_to_train()
        if not np.isfinite(topics.sums).all():
            raise ValueError("state.sstats has what is no number: give it the statistics of a trained model")
        watched = logger.isEnabledFor(logging.INFO)
        plan = Plan(
            passes=schedule["passes"],
            update_chunks=update_chunks if update_every else 0,
            chunksize=chunksize,
            decay=schedule["decay"],
            offset=schedule["offset"],
            iterations=schedule["iterations"],
            gamma_threshold=schedule["gamma_threshold"],
            seed=int(self.random_state.randint(2**31 - 1)),
            variant=self.variant,
            optimize_alpha=self.optimize_alpha,
            optimize_eta=self.optimize_eta,
            # For the log, and for reports, alone.
            eval_chunks=eval_every if watched or self.report is not None or is_reported() else 0,
            details=watched,
        )
        progress = Progress()
        numdocs = topics.numdocs
        if resume:
            plan, progress, topics, numdocs = self._interrupted_training(documents)
        self._log_plan(plan, documents, eval_every)
        cluster = self._cluster()
        if cluster is not None:
            corpus = refers_to(corpus, counts=True) or corpus
        run = _Run(self, corpus, documents, plan, progress, read, numdocs)
        try:
            if documents is None and not resume and not chosen:
                run.count_if_few()
            if cluster is not None:
                run.on_cluster(cluster, topics)
            else:
                run.on_engine(topics)
        except EmptyCorpusError:
            if first is not None:
                raise
            logger.warning("LdaModel.update() called with an empty corpus")

    def _warn_of_hooks(self) -> None:
        """Say which methods of a subclass gensim's training would call, and this one does not."""
        mine = [name for name in HOOKS if getattr(type(self), name) is not getattr(LdaModel, name)]
        mine += [name for name in HOOKS if name in vars(self)]
        if mine:
            warnings.warn(
                f"{type(self).__name__} has its own {', '.join(mine)}: distcorpus calls none of them "
                "in training. Follow a training run with callbacks=... or progress=..., or derive from "
                "gensim.models.LdaModel",
                UserWarning,
                stacklevel=check.outside(),
            )

    def _read_while_drawing(self, corpus: Any, chunksize: int) -> Iterator[Chunk] | None:
        """Return the chunks of a corpus, some of them read while the topics are drawn; None where none was.

        A corpus with code of its own waits: it may draw from `random_state` too.
        """
        if self._drawing is None or not (type(corpus) in (list, tuple) or is_sparse(corpus)):
            return None
        rest = chunks(corpus, chunksize, self.num_terms, counts=True)
        ahead: list[Chunk] = []
        while len(ahead) < CHUNKS_READ_AHEAD and not self._drawing.done():
            try:
                ahead.append(next(rest))
            except StopIteration:
                break
            except (TypeError, ValueError):
                return None  # the training will come to it
        return chain(ahead, rest)

    def _interrupted_training(self, documents: int | None) -> tuple[Plan, Progress, LazyTopics, int]:
        if self.interrupted is None:
            raise ValueError(
                "resume=True, but no training run of this model was interrupted: load its checkpoint first, "
                "or leave resume out"
            )
        kept = self.interrupted
        if documents is not None and documents != kept["documents"]:
            raise ValueError(
                f"resume=True with a corpus of {documents} documents: the training run was interrupted on "
                f"{kept['documents']}; give the same corpus"
            )
        topics = LazyTopics(**{**kept["topics"], "table": kept["topics"]["table"].copy()})
        return Plan(**kept["plan"]), Progress(**kept["progress"]), topics, topics.numdocs - kept["documents"]

    def _log_plan(self, plan: Plan, documents: int | None, eval_every: int) -> None:
        kind = (
            "batch"
            if not plan.update_chunks
            else f"online ({'single' if plan.passes == 1 else 'multi'}-pass)"
        )
        known = documents or 0
        after = min(known, plan.update_chunks * plan.chunksize) if plan.update_chunks else known
        logger.info(
            "running %s LDA training, %s topics, %i passes over the supplied corpus of %s documents, "
            "updating model once every %i documents, evaluating perplexity every %i documents, "
            "iterating %ix with a convergence threshold of %f",
            kind,
            self.num_topics,
            plan.passes,
            documents if documents is not None else "an unknown number of",
            after,
            min(known, eval_every * plan.chunksize),
            plan.iterations,
            plan.gamma_threshold,
        )
        if documents and documents / after * plan.passes < 10:
            logger.warning(
                "too few updates, training might not converge; consider increasing the number of "
                "passes or iterations to improve accuracy"
            )

    # Inference.

    @np.errstate(all="ignore")
    def inference(self, chunk: Any, collect_sstats: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Infer the topics of some documents; of more than `chunksize` on the cluster, where the model is
        distributed.

        Parameters
        ----------
        chunk : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
        collect_sstats : bool
            Return the expected statistics too.

        Returns
        -------
        gamma : ndarray, shape (n_docs, num_topics)
            The documents' Dirichlet parameters: without a cluster gensim's, up to rounding, for the same
            `random_state`.
        sstats : ndarray, shape (num_topics, num_terms), or None
        """
        if not collect_sstats and type(chunk) is list and len(chunk) == 1:
            single = small_document(chunk[0], self.num_terms)
            if single is not None:
                return self._infer_words(*single), None
        if collect_sstats:
            check_here(chunk, "inference without collect_sstats")
            documents = list(
                chunks(as_corpus(chunk), self._setting("chunksize"), self.num_terms, counts=True)
            )
            parts = list(self._gammas(*_spread_if_many(documents, self._where(None, None))))
        else:
            parts = list(self._gammas_of_corpus(chunk, self._setting("chunksize")))
        gamma = np.concatenate(parts) if parts else np.empty((0, self.num_topics), self.dtype)
        return gamma, self._statistics(documents, parts) if collect_sstats else None

    @np.errstate(all="ignore")
    def get_document_topics(
        self,
        bow: Any,
        minimum_probability: float | None = None,
        minimum_phi_value: float | None = None,
        per_word_topics: bool = False,
    ) -> Any:
        """Return the topics of a document, or of each document of a corpus, chunk by chunk as it is read.
        Arguments and result are as in gensim; a corpus may also be a scipy sparse matrix (terms x documents).
        """
        check_here(bow, "transform")
        if minimum_phi_value is not None:
            minimum_phi_value = check.number("minimum_phi_value", minimum_phi_value, 0.0)
        if minimum_probability is not None:
            minimum_probability = _probability("minimum_probability", minimum_probability)
        if minimum_probability is None or minimum_phi_value is None:
            setting = self._setting("minimum_probability")  # of both, as in gensim
            minimum_probability = setting if minimum_probability is None else minimum_probability
            minimum_phi_value = setting if minimum_phi_value is None else minimum_phi_value
        is_corpus, given = gensim.utils.is_corpus(begun(as_gensims(bow, self.num_terms)))
        if not is_corpus:
            given = one_document(given)
            if per_word_topics:
                given = pairs_of(given, self.num_terms)
        return super().get_document_topics(given, minimum_probability, minimum_phi_value, per_word_topics)

    def _apply(self, corpus: Any, chunksize: int | None = None, **options: Any) -> DocumentTopics:
        gammas = partial(self._gammas_of_corpus, corpus, chunksize or self._setting("chunksize"))
        return DocumentTopics(self, corpus, gammas, **options)

    def _gammas_of_corpus(self, corpus: Any, chunksize: int) -> Iterator[np.ndarray]:
        corpus, client = placed_with(corpus, None, self.client)
        return self._gammas(*self._spread(corpus, chunksize, None, client))

    def _gammas(self, read: Iterable[Divisible], where: Any) -> Iterator[np.ndarray]:
        return (
            map(self._infer, cast("Iterable[Chunk]", read)) if where is False else self._evaluate(read, where)
        )

    def _divisible(self, corpus: Any, chunksize: int) -> Iterator[Divisible]:
        """Return the chunks of a corpus, to be evaluated."""
        return divisible(corpus, chunksize, self.num_terms, counts=True, limits=Inference.limits)

    def _infer(self, documents: Chunk) -> np.ndarray:
        return self._infer_words(*compact(documents))

    def _infer_words(self, words: np.ndarray, documents: Chunk) -> np.ndarray:
        """Infer documents whose term ids are positions among some words."""
        start = self._random().gamma(100.0, 1.0 / 100.0, (documents.n_docs, self.num_topics))
        alpha, iterations = self._setting("alpha"), self._setting("iterations")
        if not documents.indices.size and iterations:  # no words: the prior, whatever the start
            return np.tile(alpha, (documents.n_docs, 1)).astype(self.dtype)
        # Few iterations are over sooner than Ctrl-C would have an effect.
        compute = partial(interruptible, infer) if documents.n_docs * iterations > LONG else infer
        return compute(
            documents,
            self._weights(words),
            np.arange(len(words), dtype=np.int32),
            alpha,
            variant=self.variant,
            iterations=iterations,
            gamma_threshold=self._setting("gamma_threshold"),
            gamma=start.astype(self.dtype),
            light=True,
        )

    def _weights(self, words: np.ndarray) -> np.ndarray:
        """Return the topic weights of some terms, shape (n_words, num_topics)."""
        if self.variant == "vb" and (self._topics is None or self._exp_elog_beta is not None):
            return np.ascontiguousarray(self.expElogbeta[:, words].T)
        topics = self._lazy_topics(checked=False)
        return topic_weights(topics.rows(words), topics.totals(), self.variant)

    def _statistics(self, documents: Iterable[Chunk], gammas: Iterable[np.ndarray]) -> np.ndarray:
        """Return the expected counts of topics and terms, shape (num_topics, num_terms)."""
        statistics = np.zeros((self.num_topics, self.num_terms), self.dtype)
        epsilon = np.finfo(self.dtype).eps
        for chunk, gamma in zip(documents, gammas, strict=True):
            first = 0
            for block in chunk.split(**EStep.limits):
                words, local = compact(block)
                weights = self._weights(words)
                theta = document_weights(gamma[first : first + block.n_docs], self.variant)
                first += block.n_docs
                of_entries = np.repeat(theta, np.diff(local.indptr), axis=0)
                norms = np.einsum("nk,nk->n", of_entries, weights[local.indices]) + epsilon
                ratios = scipy.sparse.csr_array(
                    (local.data / norms, local.indices, local.indptr), shape=(local.n_docs, len(words))
                )
                statistics[:, words] += ((ratios.T @ theta) * weights).T
        return statistics

    def transform(
        self,
        corpus: Any,
        chunksize: int | None = None,
        *,
        sparse: bool = False,
        minimum_probability: float | None = None,
        distributed: bool | None = None,
        client: Any = None,
    ) -> Iterator[np.ndarray | scipy.sparse.csr_array]:
        """Infer the topics of a whole corpus, in a stream that needs memory for a few chunks.

        Parameters
        ----------
        corpus : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
        chunksize : int, optional
            Documents of a chunk; the model's by default.
        sparse : bool
            Yield sparse matrices, in which small probabilities are left out.
        minimum_probability : float, optional
            The smallest probability that a sparse matrix has; the model's by default.
        distributed : bool, optional
            Compute on a cluster. By default that of a distributed model, if there is one and the corpus has
            more than one chunk. The bytes are the same.
        client : dask.distributed.Client or "active", optional
            Compute on a Dask cluster. By default that of a model which was made with one, if the corpus has
            more than one chunk.

        Returns
        -------
        iterator of ndarray or csr_array, shape (n_docs, num_topics)
            The topics' probabilities of the documents of the next chunk, in order.

        Raises
        ------
        ValueError, TypeError
            If an argument or a document is not what it has to be.
        RuntimeError
            If there is no cluster, where one is asked for, or it cannot compute a chunk.
        """
        size = check.whole("chunksize", self.chunksize if chunksize is None else chunksize, 1)
        least = self._setting("minimum_probability") if minimum_probability is None else minimum_probability
        least = check.number("minimum_probability", least, 0.0, 1.0)
        if minimum_probability is not None and not sparse:
            raise ValueError("minimum_probability without sparse=True: arrays have all probabilities")
        corpus, client = placed_with(corpus, client, self.client, distributed)
        read, where = self._spread(corpus, size, distributed, client)

        @np.errstate(all="ignore")
        def probabilities(gamma: np.ndarray) -> np.ndarray | scipy.sparse.csr_array:
            theta = gamma / gamma.sum(axis=1, keepdims=True)
            return scipy.sparse.csr_array(np.where(theta >= least, theta, 0)) if sparse else theta

        return map(probabilities, quietly(self._evaluate(read, where, required=bool(distributed))))

    def _spread(
        self, corpus: Any, chunksize: int, distributed: bool | None, client: Any
    ) -> tuple[Iterable[Divisible], Any]:
        """Return the chunks of a corpus, or references to them, and where they are computed: True is the
        cluster, False is here, and anything else a Dask client.
        """
        where = self._where(distributed, client)
        if where is True:
            corpus = refers_to(corpus, counts=True) or corpus
        read = self._divisible(corpus, chunksize)
        asked = client is not None or distributed is not None
        return (read, where) if asked else _spread_if_many(read, where)

    def _where(self, distributed: bool | None, client: Any) -> Any:
        if client is not None:
            return chosen_client(client, distributed=distributed)
        if distributed is not None:
            return bool(distributed)
        if self.client is not None:
            return self.client
        cluster = self._cluster()
        return cluster is not None and not cluster.is_known_to_be_gone()

    def _evaluate(
        self, read: Iterable[Divisible], where: Any, *, bound: bool = False, required: bool = False
    ) -> Iterator[np.ndarray]:
        """Yield gamma, or the bounds, of each chunk, see `training.evaluation.evaluate`: computed by this
        process, where there is no cluster to spread them over and none is required.
        """
        topics = self._lazy_topics()
        params = InferenceParams(
            alpha=np.asarray(self._setting("alpha"), dtype=np.float64),
            totals=topics.totals(),
            dtype=topics.dtype.name,
            iterations=self._setting("iterations"),
            gamma_threshold=self._setting("gamma_threshold"),
            seed=int(self._random().randint(2**31 - 1)),
            variant=self.variant,
            bound=bound,
        )
        remote = self._evaluation(required) if where is True else None
        if remote is not None:
            to_send = cast("Iterable[Chunk | StoredChunk]", read)  # what is on a Dask cluster has a client
            with remote:
                yield from remote.evaluate(EvaluationTask(topics_as_dict(topics), params), to_send)
            return
        client = None if isinstance(where, bool) else where
        with (
            engine_of(client, self._setting("workers")) as engine,
            Evaluation("lda", engine, topics.num_terms, params, topics.rows) as evaluation,
        ):
            yield from evaluate(evaluation, map(documents_here, read))

    def _evaluation(self, required: bool) -> Training | None:
        cluster = self._cluster() or Cluster(self.ns_conf)
        try:
            proxy = cluster.connect(names.LDA_MODELS)
            return Training(proxy, partial(cluster.reconnect, names.LDA_MODELS))
        except RuntimeError:
            if required:
                raise
            cluster.remember_gone()
            logger.warning(
                "no cluster was found: a distributed model is evaluated in this process; "
                "model.distributed = False, or DISTCORPUS_DISTRIBUTED=0 in the environment, keeps it from "
                "looking"
            )
            return None

    @np.errstate(all="ignore")
    def bound(
        self,
        corpus: Any,
        gamma: np.ndarray | None = None,
        subsample_ratio: float = 1.0,
        *,
        distributed: bool | None = None,
        client: Any = None,
    ) -> float:
        """Return the variational bound of some documents, in nats.

        Parameters
        ----------
        corpus : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
        gamma : ndarray, shape (n_docs, num_topics), optional
            Their Dirichlet parameters; inferred by default.
        subsample_ratio : float
            How many documents each of them stands for.
        distributed : bool, optional
            Compute on a cluster, where `gamma` is not given. By default that of a distributed model, if there
            is one and the corpus has more than `chunksize` documents.
        client : dask.distributed.Client or "active", optional
            Compute on a Dask cluster, where `gamma` is not given. By default as in `transform`.
        """
        subsample_ratio = check.positive("subsample_ratio", subsample_ratio)
        if gamma is None:
            corpus, client = placed_with(corpus, client, self.client, distributed)
            read, where = self._spread(corpus, self._setting("chunksize"), distributed, client)
            score = self._documents_bound(read, where, required=bool(distributed))
        else:
            check_here(corpus, "bound without gamma")
            of_corpus = chunks(as_corpus(corpus), self._setting("chunksize"), self.num_terms, counts=True)
            score = self._bound_under(of_corpus, gamma)
        return float(score * subsample_ratio + self._topics_bound())

    def _documents_bound(self, read: Iterable[Divisible], where: Any, *, required: bool) -> float:
        parts = self._evaluate(read, where, bound=True, required=required)
        return sum(float(part.sum()) for part in parts)

    def _bound_under(self, read: Iterable[Chunk], gamma: np.ndarray) -> float:
        if np.shape(gamma)[1:] != (self.num_topics,):
            raise self._misfit(gamma)
        gamma = np.asarray(gamma)
        if gamma.dtype.kind not in "iuf" or not (np.isfinite(gamma) & (gamma > 0)).all():
            raise ValueError("gamma has what is no number above 0: give what inference(corpus) returns first")
        topics = self._lazy_topics()
        totals, alpha = topics.totals(), self._setting("alpha")
        score, first = 0.0, 0
        for chunk in read:
            words, local = compact(chunk)
            of_chunk = gamma[first : first + chunk.n_docs]
            if len(of_chunk) != chunk.n_docs:
                raise self._misfit(gamma)
            log_table = log_topics(topics.rows(words), totals)
            score += bound(local, log_table, np.arange(len(words), dtype=np.int32), alpha, of_chunk)
            first += chunk.n_docs
        if first != len(gamma):
            raise self._misfit(gamma)
        return score

    def _misfit(self, gamma: Any) -> ValueError:
        shape = np.shape(gamma)
        return ValueError(f"gamma has shape {shape}: give a row of {self.num_topics} for each document")

    def _topics_bound(self) -> float:
        topics = self._lazy_topics()
        everything = topics.rows(np.arange(self.num_terms, dtype=np.int32))
        return topic_bound(everything.T, self._setting("eta"))

    @np.errstate(all="ignore")
    def log_perplexity(
        self,
        chunk: Any,
        total_docs: int | None = None,
        *,
        distributed: bool | None = None,
        client: Any = None,
    ) -> float:
        """Return the variational bound of some documents, a word, and log the perplexity ``2**-bound``.

        Parameters
        ----------
        chunk : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
        total_docs : int, optional
            How many documents they stand for; themselves by default.
        distributed, client : optional
            As in `bound`.
        """
        documents, words = 0, 0.0

        def counted(read: Iterable[Divisible]) -> Iterator[Divisible]:
            nonlocal documents, words
            for part in read:
                documents += part.n_docs
                words += documents_here(part).total()
                yield part

        total = None if total_docs is None else check.whole("total_docs", total_docs, 1)
        corpus, client = placed_with(chunk, client, self.client, distributed)
        read, where = self._spread(corpus, self._setting("chunksize"), distributed, client)
        score = self._documents_bound(counted(read), where, required=bool(distributed))
        if not words:
            logger.warning("no words to estimate a perplexity from")
            return float(np.float64(score + self._topics_bound()) / words)  # gensim's too: -inf
        ratio = (total or documents) / documents
        per_word = (score * ratio + self._topics_bound()) / (ratio * words)
        log_perplexity(per_word, documents, words)
        return per_word

    @np.errstate(all="ignore")
    def diff(
        self,
        other: Any,
        distance: str = "kullback_leibler",
        num_words: int = 100,
        n_ann_terms: int = 10,
        diagonal: bool = False,
        annotation: bool = True,
        normed: bool = True,
    ) -> Any:
        """Compare the topics with those of another LDA model, gensim's or ours. Arguments and result are as
        in gensim.
        """
        if not isinstance(other, gensim.models.LdaModel):
            raise TypeError(f"other is a {type(other).__name__}: give an LDA model, gensim's or distcorpus'")
        if not isinstance(other, type(self)):
            adopted = type(self).__new__(type(self))
            LdaModel.__setstate__(
                adopted, dict(vars(other)) if not isinstance(other, LdaModel) else other.__getstate__()
            )
            other = adopted
        return super().diff(other, distance, num_words, n_ann_terms, diagonal, annotation, normed)

    # gensim's own, where words are missing too, and whatever the program has set of floating-point errors.

    def _check_state(self) -> None:
        if self.state is None:
            raise RuntimeError(NO_TOPICS)

    def _worded(self, **attributes: Any) -> Any:
        self._check_state()  # which makes it: for this model, too
        return super()._worded(**attributes)

    @np.errstate(all="ignore")
    def get_topics(self) -> np.ndarray:
        """Return the topics' probabilities of terms, shape (num_topics, num_terms)."""
        self._check_state()
        topics: np.ndarray = super().get_topics()
        return topics

    @np.errstate(all="ignore")
    def show_topics(
        self, num_topics: int = 10, num_words: int = 10, log: bool = False, formatted: bool = True
    ) -> Any:
        """Return the leading words of topics. Arguments and result are as in gensim; ids stand for missing
        words.
        """
        worded = self._worded(alpha=self._setting("alpha"), random_state=self._random())
        return gensim.models.LdaModel.show_topics(worded, num_topics, num_words, log, formatted)

    do_estep = np.errstate(all="ignore")(gensim.models.LdaModel.do_estep)
    do_mstep = np.errstate(all="ignore")(gensim.models.LdaModel.do_mstep)
    sync_state = np.errstate(all="ignore")(gensim.models.LdaModel.sync_state)
    update_alpha = np.errstate(all="ignore")(gensim.models.LdaModel.update_alpha)
    update_eta = np.errstate(all="ignore")(gensim.models.LdaModel.update_eta)

    @np.errstate(all="ignore")
    def get_topic_terms(self, topicid: int, topn: int = 10) -> Any:
        """Return the leading term ids of a topic with their probabilities, as gensim does."""
        return super().get_topic_terms(topicid, topn)

    @np.errstate(all="ignore")
    def get_term_topics(self, word_id: Any, minimum_probability: float | None = None) -> Any:
        """Return the topics in which a term, an id or a word, is likely, as gensim does."""
        if minimum_probability is None:
            least = self._setting("minimum_probability")
        else:
            least = _probability("minimum_probability", minimum_probability)
        return super().get_term_topics(word_id, least)

    def show_topic(self, topicid: int, topn: int = 10) -> list[tuple[Any, Any]]:
        """Return the leading words of a topic with their probabilities, as gensim does; an id where the
        vocabulary has a gap.
        """
        return [(word_of(self.id2word, word), value) for word, value in self.get_topic_terms(topicid, topn)]

    @np.errstate(all="ignore")
    def top_topics(
        self,
        corpus: Any = None,
        texts: Any = None,
        dictionary: Any = None,
        window_size: int | None = None,
        coherence: str = "u_mass",
        topn: int = 20,
        processes: int = -1,
    ) -> list[tuple[list[tuple[Any, Any]], Any]]:
        """Return the topics with their coherences, the most coherent first. Arguments and result are as in
        gensim; where the vocabulary has gaps, ids stand for words.
        """
        given = as_gensims(corpus, self.num_terms)
        return gensim.models.LdaModel.top_topics(
            self._worded(), given, texts, dictionary, window_size, coherence, topn, processes
        )

    def pyldavis(self, corpus: Any, sample: int | None = None, **options: Any) -> Any:
        """Prepare what pyLDAvis shows, from documents that are read once, in memory for one chunk.

        Parameters
        ----------
        corpus : iterable of documents or scipy sparse matrix (terms x documents)
            Any number of them: the result is that of ``pyLDAvis.prepare`` with all.
        sample : int, optional
            Infer the topics of so many documents alone, which are chosen by chance and kept in memory; terms
            are counted in all.
        **options
            For ``pyLDAvis.prepare``.

        Returns
        -------
        pyLDAvis.PreparedData
            ``pyLDAvis.display`` or ``pyLDAvis.save_html`` show it.

        Raises
        ------
        ImportError
            pyLDAvis is not installed.
        ValueError
            The documents have no words, or are not what they have to be.
        """
        if sample is not None:
            sample = check.whole("sample", sample, 1)
        check_corpus(corpus, self.num_terms)
        return prepare_pyldavis(self, corpus, sample, options)

    def _topic_table(self) -> tuple[np.ndarray, np.ndarray] | None:
        if not self.num_updates or self.state is None:
            return None
        values = self.get_topics()
        return shares_of_tokens(self.state.sstats.sum(axis=1, dtype=np.float64)), values

    def _weight_text(self, weight: float) -> str:
        return f"{100 * weight:.3g} % of tokens"

    def _facts(self) -> dict[str, Any]:
        alpha = f"{np.min(self.alpha):.3g} to {np.max(self.alpha):.3g}"
        return {
            "topics": f"{self.num_topics:,}",
            "terms": f"{self.num_terms:,}",
            "updates": f"{self.num_updates:,}",
            "inference": self.variant,
            "alpha": f"{alpha}, learnt" if self.optimize_alpha else alpha,
            "dtype": np.dtype(self.dtype).name,
            "passes": self.passes,
            "chunksize": f"{self.chunksize:,}",
        }

    # Files and copies hold what gensim's do.

    def __getstate__(self) -> dict[str, Any]:
        held = {"_drawing", "_topics", "_state", "_exp_elog_beta", "_prepared", "_made"}
        attributes = {name: value for name, value in super().__getstate__().items() if name not in held}
        state = self.state
        return {**attributes, "state": state, "expElogbeta": None if state is None else self.expElogbeta}

    def __setstate__(self, state: dict[str, Any]) -> None:
        attributes = dict(state)
        self._made = {}
        self._state = attributes.pop("state", None)
        self._exp_elog_beta = attributes.pop("expElogbeta", None)
        if attributes.get("dtype") == np.float16:
            attributes.update(self._widened(attributes))
        super().__setstate__(attributes)

    def _widened(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Take over what gensim has computed in float16 in a type that we compute in; return the attributes
        that change.
        """
        logger.warning(
            "a model of dtype=float16, in which distcorpus does not compute, is one of dtype=float32 now"
        )
        single = np.dtype(np.float32)
        given = self._state
        if given is not None:
            state = LdaState(given.eta.astype(single), (0, 0), dtype=single)
            state.sstats = given.sstats.astype(single)
            state.numdocs = given.numdocs
            self._state = state
        self._exp_elog_beta = None
        priors = {name: attributes[name].astype(single) for name in ("alpha", "eta")}
        return {"dtype": single, **priors}


def log_perplexity(per_word: float, documents: int, words: float) -> None:
    """Log an estimate in gensim's words."""
    logger.info(
        "%.3f per-word bound, %.1f perplexity estimate based on a held-out corpus of %i documents with "
        "%i words",
        per_word,
        np.exp2(-per_word),
        documents,
        words,
    )


def _spread_if_many(read: Iterable[Divisible], where: Any) -> tuple[Iterable[Divisible], Any]:
    """Return chunks and where they are computed: one that is alone is computed here."""
    if where is False:
        return read, False
    rest = iter(read)
    first = list(islice(rest, 2))
    return (chain(first, rest), where) if len(first) > 1 else (map(documents_here, first), False)


class _Run:
    """One call of `LdaModel.update`.

    Parameters
    ----------
    model : LdaModel
    corpus : any corpus
    documents : int, optional
        Their number; None where only reading can tell.
    plan : Plan
    progress : Progress
        Where to begin.
    read : iterator of Chunk, optional
        The chunks for the first pass, where some are read already.
    numdocs : int
        Documents that the topics stood for before.
    """

    def __init__(
        self,
        model: LdaModel,
        corpus: Any,
        documents: int | None,
        plan: Plan,
        progress: Progress,
        read: Iterator[Divisible] | None,
        numdocs: int,
    ) -> None:
        self.model = model
        self.documents = documents
        self.plan = plan
        self.progress = progress
        self.bar = ProgressBar(model, "LDA")
        self.callback = Callback(model.callbacks) if model.callbacks else None
        self._corpus = corpus
        self._numdocs = numdocs
        self._read = read
        self._read_again: Callable[[], Iterator[Divisible]] = partial(
            divisible, corpus, plan.chunksize, model.num_terms, counts=True, limits=EStep.limits
        )

    def count_if_few(self) -> None:
        """Let a corpus of unknown length have the learning rate of the same list, whose chunks have no more
        documents than it has.
        """
        chunks = self._chunks()
        first = list(islice(chunks, 2))
        self._read = chain(first, chunks)
        if len(first) == 1:
            self.plan = replace(self.plan, chunksize=min(self.plan.chunksize, first[0].n_docs))

    def on_engine(self, topics: LazyTopics) -> None:
        """Train in this process, on threads or a Dask cluster."""
        warm()
        if self.documents is None or is_placed(self._corpus):  # which is cut once
            kept = list(self._chunks())
            self.documents = sum(chunk.n_docs for chunk in kept)
            if not kept:
                raise EmptyCorpusError
            self._read_again = lambda: iter(kept)
        learnt = OnlineLda(topics, self.model.alpha, self.model.eta, self.model.num_updates)
        self._set_callback_model()
        topics.numdocs = target = self._numdocs + self.documents
        try:
            with self.bar, engine_of(self.model.client, self.model.workers) as engine:
                self._train(engine, learnt)
        finally:
            topics.numdocs = self._documents_learnt(target)
        self.adopt(learnt)
        self.model.interrupted = None

    def _train(self, engine: Engine, learnt: OnlineLda) -> None:
        # Threads are there from the beginning, and workers of a cluster come and go.
        queued = engine.num_workers + 1 if self.model.client is None else CHUNKS_QUEUED
        with LdaTraining("lda", engine, learnt, self.plan, self.progress, max_queued=queued) as training:
            observer = _Observer(self, training)
            try:
                training.run(_Source(self, training, observer), observer)
            except BaseException:
                observer.interrupted()
                raise

    def _documents_learnt(self, target: int) -> int:
        """Return how many documents the topics stand for now, if that is `target` after the first pass."""
        return target if self.progress.pass_ else self._numdocs + self.progress.documents

    def on_cluster(self, cluster: Cluster, topics: LazyTopics) -> None:
        """Train on a cluster."""
        model = self.model
        self._set_callback_model()
        task = LdaTask(
            topics=topics_as_dict(topics, self._numdocs + (self.documents or 0)),
            alpha=np.asarray(model.alpha),
            eta=np.asarray(model.eta),
            num_updates=model.num_updates,
            plan=self.plan,
            documents=self.documents,
            progress=self.progress,
            pauses=self.callback is not None,
            pause_every=model.checkpoint_every if model.checkpoint is not None else None,
        ).to_message()
        kept_at = time.monotonic()

        def attempt(training: Training) -> None:
            def fetch() -> None:
                nonlocal kept_at
                fetched = training.call("fetch")
                check_topics(fetched, topics.table.shape, topics.dtype, topics.eta)
                kept_at = time.monotonic()
                if self.documents is not None:
                    task.update(fetched)  # where another attempt goes on
                self.progress = Progress(**fetched["progress"])
                learnt = LazyTopics(**fetched["topics"])
                if learnt.numdocs > self._numdocs:  # the number of documents is known
                    self.keep_interrupted(learnt)
                learnt.numdocs = self._documents_learnt(learnt.numdocs)
                model._adopt(learnt, fetched["alpha"], fetched["eta"], fetched["num_updates"])

            def told(event: dict[str, Any]) -> None:
                if event["kind"] == "pass" and self.callback is not None:
                    fetch()
                    self.call_back(event["pass_"])
                elif event["kind"] == "update" and self.checkpoint_is_due(event["updates"]):
                    fetch()
                    self.save_checkpoint()
                elif time.monotonic() > kept_at + KEEP_EVERY:
                    fetch()
                self.told(event)

            training.begin(task, words_of(model.id2word, model.num_terms))
            try:
                sent = end = 0
                try:
                    for number, chunk in cast("Iterator[tuple[int, Chunk | StoredChunk]]", self.read()):
                        sent, end = number + 1, end + chunk.n_docs
                        training.put(chunk)
                        logger.info(
                            "PROGRESS: pass 0, dispatching documents up to #%i/%i", end, self.documents or end
                        )
                        if time.monotonic() > kept_at + KEEP_EVERY:
                            fetch()
                except CommunicationError:
                    raise
                except Exception:
                    # As in this process, what came before is learnt.
                    with suppress(Exception):
                        self._follow_updates(training, sent, told)
                    raise
                if not end:
                    raise EmptyCorpusError
                logger.info("reached the end of input; now waiting for all remaining jobs to finish")
                training.follow(told)
            except (CommunicationError, EmptyCorpusError):
                raise
            except KeyboardInterrupt:
                training.give_up()
                with suppress(CommunicationError):
                    fetch()
                raise
            except Exception:
                training.give_up()
                with suppress(Exception):
                    fetch()
                raise
            fetch()
            model.interrupted = None

        with self.bar:
            train_on(cluster, names.LDA_MODELS, attempt, rereadable=is_rereadable(self._corpus))

    def _follow_updates(
        self, training: Training, chunks: int, told: Callable[[dict[str, Any]], None]
    ) -> None:
        """Wait for the updates that so many chunks, to which no more will come, are enough for."""
        plan, progress = self.plan, self.progress
        if self.documents is not None and plan.update_chunks:  # else nothing begins without the last chunk
            updates = (chunks - progress.chunk) // plan.update_chunks
            if updates > 0:
                training.follow(told, updates=progress.updates + updates)

    def adopt(self, learnt: OnlineLda) -> None:
        """Let the model have what was learnt."""
        self.model._adopt(learnt.topics, learnt.alpha, learnt.eta, learnt.num_updates)

    def told(self, event: dict[str, Any]) -> None:
        """Log and show what happens in the training."""
        if event["kind"] == "perplexity":
            log_perplexity(event["per_word"], event["documents"], event["words"])
        elif event["kind"] == "update":
            logger.debug(
                "%i/%i documents converged within %i iterations",
                event["converged"],
                event["merged"],
                self.plan.iterations,
            )
            if "alpha" in event:
                logger.info("optimized alpha %s", event["alpha"])
            if event["merged"] != event["numdocs"]:
                logger.info(
                    "merging changes from %i documents into a model of %i documents",
                    event["merged"],
                    event["numdocs"],
                )
            for number, alpha, words, probabilities in event.get("topics", ()):
                terms = zip(probabilities, words, strict=True)
                text = " + ".join(f'{p:.3f}*"{word_of(self.model.id2word, word)}"' for p, word in terms)
                logger.info("topic #%i (%.3f): %s", number, alpha, text)
            if "diff" in event:
                logger.info("topic diff=%f, rho=%f", event["diff"], event["rho"])
        self.bar.told(event, self.plan.passes)

    def _chunks(self) -> Iterator[Divisible]:
        read, self._read = self._read, None
        for number, chunk in enumerate(read or self._read_again()):
            check_not_too_small(chunk, number)
            yield chunk

    def read(self) -> Iterator[Numbered]:
        """Read the corpus once."""
        end = 0
        for number, chunk in enumerate(self._chunks()):
            end += chunk.n_docs
            yield number, chunk
        self._check_length(end)

    def _check_length(self, documents: int) -> None:
        if self.documents is not None and documents != self.documents:
            raise RuntimeError(
                f"input corpus size changed during training: its len() was {self.documents}, and it had "
                f"{documents} documents"
            )

    def checkpoint_is_due(self, updates: int) -> bool:
        """Return whether one is, after so many updates."""
        return self.model.checkpoint is not None and updates % self.model.checkpoint_every == 0

    def keep_interrupted(self, topics: LazyTopics) -> None:
        """Keep all that it takes to go on from here to the same bytes."""
        kept = topics_as_dict(topics)
        self.model.interrupted = {
            "plan": asdict(self.plan),
            "progress": asdict(self.progress),
            "topics": {**kept, "table": kept["table"].copy(), "sums": kept["sums"].copy()},
            "documents": topics.numdocs - self._numdocs,
        }

    def save_checkpoint_of(self, learnt: OnlineLda) -> None:
        """Let the model have what was learnt, and save it."""
        topics = learnt.topics
        self.keep_interrupted(topics)
        target, topics.numdocs = topics.numdocs, self._documents_learnt(topics.numdocs)
        try:
            self.adopt(learnt)
            self.save_checkpoint()
        finally:
            topics.numdocs = target

    def save_checkpoint(self) -> None:
        """Save the model where its checkpoints go."""
        assert self.model.checkpoint is not None
        save_whole(self.model, self.model.checkpoint)
        logger.info("saved a checkpoint after %i updates to %s", self.progress.updates, self.model.checkpoint)

    def _set_callback_model(self) -> None:
        if self.callback is not None:
            self.callback.set_model(self.model)
            self.model.metrics = defaultdict(list)

    def call_back(self, pass_: int) -> None:
        """Call the user's callbacks after a pass."""
        assert self.callback is not None
        for metric, value in self.callback.on_epoch_end(pass_).items():
            self.model.metrics[metric].append(value)


class _Source:
    """The documents of a run, read ahead while a round is computed."""

    comes_again = False

    def __init__(self, run: _Run, training: LdaTraining, observer: _Observer) -> None:
        assert run.documents is not None
        self.documents = run.documents
        self._run = run
        self._training = training
        self._observer = observer

    def chunks(self, pass_: int) -> Iterator[Numbered]:
        """Read a pass."""
        ahead = self._observer.reading = ReadAhead(self._run.read(), CHUNKS_READ_AHEAD)
        end = 0
        for number, chunk in ahead:
            end += chunk.n_docs
            logger.info("PROGRESS: pass %i, at document #%i/%i", pass_, end, self.documents)
            yield number, chunk

    def blocks(self, number: int, chunk: Divisible) -> list[Block]:
        """Cut a chunk."""
        return self._training.cut(number, chunk)


class _Observer(Observer):
    """Keeps the model up to date, and tells of the run."""

    def __init__(self, run: _Run, training: LdaTraining) -> None:
        self.reading: ReadAhead[Numbered] | None = None
        self._run = run
        self._training = training
        self._changing = _Changing()

    def estimated(self, chunk: Divisible, estimate: Callable[[], R]) -> R:
        """Let Ctrl-C end what is computed here."""
        return interruptible(estimate) if isinstance(chunk, Chunk) else estimate()

    def changing(self) -> _Changing:
        """Remember whether an M-step was interrupted."""
        return self._changing

    def computing(self, round_: Round) -> None:
        """Read on meanwhile."""
        if self.reading is not None:
            self.reading.fill(lambda: not round_.under_way)

    def happened(self, event: dict[str, Any]) -> None:
        """Log it."""
        self._run.told(event)

    def after_update(self, event: dict[str, Any]) -> None:
        """Save a checkpoint, if one is due."""
        if self._run.checkpoint_is_due(event["updates"]):
            self._run.save_checkpoint_of(self._training.model)
        self._run.told(event)

    def after_pass(self, pass_: int) -> None:
        """Call the user's callbacks."""
        if self._run.callback is not None:
            self._run.adopt(self._training.model)
            self._run.call_back(pass_)

    def interrupted(self) -> None:
        """Let the model have what had been learnt."""
        topics = self._training.model.topics
        if self._changing.now:  # Ctrl-C came in the middle of an M-step
            topics.sums = topics.table.sum(axis=0, dtype=np.float64)
        else:
            self._run.keep_interrupted(topics)
        self._run.adopt(self._training.model)


class _Changing:
    """A context that remembers whether it was left by an exception."""

    now = False

    def __enter__(self) -> None:
        self.now = True

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.now = kind is not None

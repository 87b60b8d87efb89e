"""gensim's LSI model over an iteration to a given accuracy, on this machine or on a cluster."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, cast

import gensim.models
import gensim.utils
import numpy as np
import scipy.sparse
from gensim.matutils import Dense2Corpus, full2sparse
from gensim.models.lsimodel import P2_EXTRA_DIMS, P2_EXTRA_ITERS, Projection

from distcorpus.algorithms import lsi
from distcorpus.algorithms.chunk import SMALLEST_WEIGHT, Chunk, Divisible, joined, warm
from distcorpus.algorithms.received import optional
from distcorpus.corpora.reading import (
    LARGEST_SINGLE,
    EmptyCorpusError,
    as_corpus,
    check_corpus,
    check_memory,
    chunks,
    divisible,
    is_rereadable,
    is_sparse,
    length,
    small_document,
    vocabulary,
)
from distcorpus.corpora.reference import StoredChunk, refers_to
from distcorpus.kernels import DocumentProjection, Product, ProjectionParams, as_dict
from distcorpus.models import _check as check
from distcorpus.models._answers import check_factors
from distcorpus.models._cluster import Cluster, Training, train_on
from distcorpus.models._content import checksum
from distcorpus.models._documents import Projections, as_gensims, begun, one_document, quietly
from distcorpus.models._engine import check_here, chosen_client, engine_of, placed, placed_with
from distcorpus.models._kept import Addition, Kept
from distcorpus.models._progress import ProgressBar
from distcorpus.models._saving import Saved
from distcorpus.models._showing import Shown, spectrum_figure, spectrum_html
from distcorpus.training.evaluation import Evaluation, evaluate
from distcorpus.training.lsi import LsiTask, train
from distcorpus.wire import names

# Under the name that gensim's users know its lines by.
logger = logging.getLogger("gensim.models.lsimodel")

#: Bytes of chunks that a training in this process keeps before it folds them.
MEMORY = 2 << 30
#: Bytes of chunks that a model keeps, wherever it is trained: documents can be added as if all had come at
#: once.
KEPT_BYTES = 512 << 20
FOLDED = (
    "the dispatcher has folded this model's documents, which are more than it keeps of a model: singular "
    "values may come out too small. Start it with a larger --memory, or with --spool DIR"
)
#: Words of a document that is projected without making a chunk of it: that is faster.
MOST_WORDS = 300
#: Seconds between two looks at how far a cluster is.
SECONDS_BETWEEN_EVENTS = 1.0


#: How the attributes are checked that a program may set later: as the arguments of these names are.
SETTINGS: dict[str, check.Check] = {
    "num_topics": check.topics,
    "chunksize": partial(check.whole, least=1),
    "decay": check.positive,
    "power_iters": optional(partial(check.whole, least=0)),
    "extra_samples": optional(partial(check.whole, least=0)),
    "dtype": lambda _, value: check.floats(value).type,
    "random_seed": optional(partial(check.whole, least=0)),
    "progress": check.progress,
    "report": optional(check.path),
    "workers": optional(partial(check.whole, least=1)),
}


class LsiModel(Saved, Shown, gensim.models.LsiModel):
    """Latent semantic indexing, with everything that ``gensim.models.LsiModel`` has.

    The arguments and methods are gensim's; docs/models.md lists the differences. The corpus is read once; it
    may be a generator, a scipy sparse matrix or, with `client`, a Dask collection. All singular values are
    accurate, whereas gensim's one-pass algorithm merges truncated factorisations.

    Parameters
    ----------
    corpus, num_topics, id2word, chunksize
        As in gensim.
    decay : float
        Weight of the documents before a chunk, relative to it.
    distributed : bool
        Compute on a cluster.
    onepass : bool
        False: `decay` weighs the earlier documents against all new ones together, not chunk by chunk.
    power_iters, extra_samples : int, optional
        They fix the number of steps: ``power_iters + 1`` steps with blocks of ``num_topics + extra_samples``
        columns, which are more accurate than the same number of gensim's power iterations. If only one is
        given, the other has gensim's default, 2 or 100. If none is given, the iteration goes on until every
        singular value is accurate to 1e-4.
    dtype : {numpy.float64, numpy.float32}
        Type of the result. A float64 model is computed in float32 first, if that is accurate enough.
    random_seed : int, optional
        Seed of the random vectors that the iteration starts from; 0 by default.
    ns_conf : dict, optional
        Where the cluster's name server is: ``host``, ``port``, ``broadcast``, or ``address_file``. By default
        that of an active `LocalCluster`, else what DISTCORPUS_ADDRESS_FILE names, else PYRO_NS_HOST, else
        the one that answers a broadcast.
    progress : bool or callable
        True shows a progress bar; a function is called with each event, a dict: ``kind`` is "update" when a
        chunk was read (with ``documents`` so far ``of`` all, or None), and "round" for products with the
        whole corpus (with ``rounds`` so far and, on a cluster, ``workers``).
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
    """

    #: The documents that the factors were made of, while they are not too many.
    _kept: Kept | None = None

    gensims_class: ClassVar[Any] = gensim.models.LsiModel
    own_options: ClassVar[dict[str, Any]] = {
        "distributed": False,
        "ns_conf": None,
        "progress": False,
        "report": None,
        "workers": None,
        "client": None,
    }

    def __init__(
        self,
        corpus: Any = None,
        num_topics: int = 200,
        id2word: Any = None,
        chunksize: int = 20000,
        decay: float = 1.0,
        distributed: bool = False,
        onepass: bool = True,
        power_iters: int | None = None,
        extra_samples: int | None = None,
        dtype: Any = np.float64,
        random_seed: int | None = None,
        *,
        ns_conf: Mapping[str, Any] | None = None,
        progress: bool | Callable[[dict[str, Any]], None] = False,
        workers: int | None = None,
        client: Any = None,
        report: str | None = None,
    ) -> None:
        self.num_topics, self.chunksize, self.decay = num_topics, chunksize, decay
        self.onepass = bool(onepass)
        self.power_iters, self.extra_samples = power_iters, extra_samples
        self.dtype, self.random_seed = dtype, random_seed
        self.progress, self.report = progress, report
        self.workers = check.workers(workers, distributed)
        self._settle()
        self.client = chosen_client(client, distributed=distributed or None, ns_conf=ns_conf, workers=workers)
        self.ns_conf = ns_conf
        if corpus is not None:
            corpus = placed(corpus, self.client)
        self.id2word, self.num_terms = vocabulary(id2word, corpus, self.chunksize)
        if corpus is not None:
            check_corpus(corpus, self.num_terms)
            documents = length(corpus)
            if documents == 0:
                raise EmptyCorpusError
            self._first = corpus, documents  # for `add_documents`, which need not look again
        check_memory(self.num_terms, self.num_topics, np.dtype(self.dtype).itemsize)
        self.docs_processed = 0
        self._adding = threading.RLock()
        steps, columns = self._effort_of_gensim()
        self.projection = Projection(
            self.num_terms,
            self.num_topics,
            power_iters=steps,
            extra_dims=columns,
            dtype=self.dtype,
            random_seed=self.random_seed,
        )
        self.distributed = bool(distributed)
        Cluster(ns_conf)  # complains of what it cannot use
        self.dispatcher = Cluster(ns_conf) if distributed else None
        self.numworkers = self.workers or 1
        cluster = self._cluster()
        if cluster is not None:
            with Training(cluster.connect(names.LSI_MODELS)) as training:
                self.numworkers = max(training.call("ready"), 1)
            logger.info("using distributed version with %i workers", self.numworkers)
        if corpus is not None:
            start = time.time()
            try:
                self.add_documents(corpus)
            finally:
                self.__dict__.pop("_first", None)
            self.add_lifecycle_event("created", msg=f"trained {self} in {time.time() - start:.2f}s")

    def _setting(self, name: str) -> Any:
        """Return an attribute that the program may have set, as the constructor would have it."""
        return SETTINGS[name](name, getattr(self, name))

    def _settle(self) -> None:
        """Let all of them be as the constructor would have them."""
        self.__dict__.update({name: self._setting(name) for name in SETTINGS})

    def add_documents(self, corpus: Any, chunksize: int | None = None, decay: float | None = None) -> None:
        """Train on more documents.

        The factors are then those of all documents, as if they had come at once: while all of them take up to
        `KEPT_BYTES`, the model keeps them, in this process, and sends a cluster the earlier ones again. What
        is more, and what a model had that was loaded, unpickled or copied, counts by its `num_topics` leading
        factors, and the log says so. Several threads may add documents, one after the other.

        Parameters
        ----------
        corpus : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
            Read once.
        chunksize : int, optional
            Documents of a chunk, which is what `decay` is counted in and what travels at once.
        decay : float, optional
            Weight of the documents before a chunk, relative to it.

        Raises
        ------
        ValueError, TypeError
            If an argument or a document is not what it has to be.
        RuntimeError
            If the cluster cannot be found or cannot compute a chunk.
        KeyboardInterrupt
            The model is then what it was before.
        """
        logger.info("updating model with new documents")
        self._settle()
        size = check.whole("chunksize", self.chunksize if chunksize is None else chunksize, 1)
        decay = check.positive("decay", self.decay if decay is None else decay)
        first = self.__dict__.pop("_first", None)
        if first is not None and first[0] is not corpus:  # a subclass gives others than the constructor has
            first = None
        corpus = placed(corpus, self.client)
        check_corpus(corpus, self.num_terms)
        documents = length(corpus) if first is None else first[1]
        if documents == 0:
            logger.warning("LsiModel.add_documents() called with an empty corpus")
            return
        before = decay
        if not self.onepass or is_sparse(corpus):  # gensim merges these as one
            decay = 1.0
        with self._adding:
            self._add(_Reading(self, corpus, documents, size), decay, before, must_have=first is not None)

    def _add(self, reading: _Reading, decay: float, before: float, must_have: bool) -> None:
        """Factorise what there is and what is read, as `add_documents` says; `before` weighs what there is
        where the chunks, with a `decay` of 1, count as one.
        """
        content = self._content()
        earlier = self._earlier(content).weighed(before if decay == 1.0 else 1.0)
        power_iters, extra_samples = self._effort()
        task = LsiTask(
            self.num_terms,
            self.num_topics,
            decay=decay,
            dtype=np.dtype(self.dtype).name,
            seed=self.random_seed or 0,
            power_iters=power_iters,
            extra_samples=extra_samples,
            base=earlier.base,
            squared_weights=earlier.squared_weights,
        )
        addition = Addition(earlier, reading, KEPT_BYTES, refers=reading.refers)
        cluster = self._cluster()
        try:
            with reading.bar, np.errstate(all="ignore"):
                if cluster is not None:
                    u, s = self._on_cluster(cluster, task, addition, reading)
                else:
                    u, s = self._on_engine(task, addition, reading)
        except EmptyCorpusError:
            if must_have:
                raise
            logger.warning("LsiModel.add_documents() called with an empty corpus")
            return
        with np.errstate(all="ignore"):
            narrow = u.astype(self.dtype, copy=False), s.astype(self.dtype, copy=False)
        if not np.isfinite(narrow[1]).all():
            raise ValueError(
                f"singular values up to {s[0]:g} are beyond dtype={np.dtype(self.dtype)}: give "
                "dtype=numpy.float64, or divide the documents' values by a number"
            )
        if (narrow[1] < np.finfo(self.dtype).tiny).any():
            raise ValueError(
                f"singular values down to {s[-1]:g} are below what dtype={np.dtype(self.dtype)} holds: give "
                "dtype=numpy.float64, or multiply the documents' values by a number"
            )
        if self._content() != content:
            raise RuntimeError(
                "the model was changed while documents were added to it (by its corpus or `progress`): these "
                "are not in it; add them again"
            )
        u, s = narrow
        kept = addition.kept(task, checksum(u, s))
        self._warn_of_missing(s, kept, self.docs_processed + reading.documents)
        self._kept = kept  # of no use without these factors
        vars(self.projection).update(u=u, s=s)  # both or none, if Ctrl-C comes now
        self.docs_processed += reading.documents
        logger.info("processed documents up to #%s", self.docs_processed)
        if logger.isEnabledFor(logging.INFO):
            self.print_topics(5)

    def _warn_of_missing(self, s: np.ndarray, kept: Kept | None, documents: int) -> None:
        """Say that topics are missing, where documents, so many in all, and terms are enough for more."""
        if len(s) == self.num_topics:
            return
        if len(s) < (min(documents, self.num_terms) if kept is None else kept.most_topics()):
            logger.warning(
                "%d topics were found of num_topics=%d: the other singular values are zero (some documents "
                "are sums of others), or below 1e-7 of the largest, %g, and not told from zero. If they are "
                "wanted, scale down the documents or terms that dwarf the others, as TfidfModel does",
                len(s),
                self.num_topics,
                s[0] if len(s) else 0,
            )

    def plot_spectrum(self, axes: Any = None) -> Any:
        """Draw the singular values.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where; by default in a new figure.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            This model has no topics yet.
        """
        self._check_topics()
        return spectrum_figure(np.asarray(self.projection.s), axes)

    def _check_topics(self) -> None:
        if self.projection.u is None:
            raise ValueError(
                "this model has no topics, as it has not been trained: call add_documents(corpus), or load a "
                "model"
            )

    # gensim's own, where words are missing too.

    @np.errstate(all="ignore")
    def get_topics(self) -> np.ndarray:
        """Return the topics, shape (num_topics, num_terms), each of unit length."""
        self._check_topics()
        topics: np.ndarray = super().get_topics()
        return topics

    @np.errstate(all="ignore")
    def show_topic(self, topicno: int, topn: int = 10) -> Any:
        """Return the leading words of a topic with their values, as gensim does; an id where the vocabulary
        has a gap.
        """
        self._check_topics()
        return gensim.models.LsiModel.show_topic(self._worded(), topicno, topn)

    @np.errstate(all="ignore")
    def show_topics(
        self, num_topics: int = -1, num_words: int = 10, log: bool = False, formatted: bool = True
    ) -> Any:
        """Return the leading words of topics. Arguments and result are as in gensim; ids stand for missing
        words.
        """
        self._check_topics()
        worded = self._worded(num_topics=self._setting("num_topics"))
        return gensim.models.LsiModel.show_topics(worded, num_topics, num_words, log, formatted)

    @np.errstate(all="ignore")
    def print_debug(self, num_topics: int = 5, num_words: int = 10) -> None:
        """Log the words that tell the topics apart, as gensim does; ids stand for missing words."""
        self._check_topics()
        gensim.models.LsiModel.print_debug(self._worded(), num_topics, num_words)

    def _topic_table(self) -> tuple[np.ndarray, np.ndarray] | None:
        u, s = self.projection.u, self.projection.s
        number = self._setting("num_topics")
        return None if u is None else (s[:number], u[:, :number].T)

    def _facts(self) -> dict[str, Any]:
        return {
            "topics": f"{self._setting('num_topics'):,}",
            "terms": f"{self.num_terms:,}",
            "documents": f"{self.docs_processed:,}",
            "decay": self.decay,
            "dtype": np.dtype(self.dtype).name,
            "chunksize": f"{self.chunksize:,}",
        }

    def _spectrum_html(self) -> str:
        return "" if self.projection.s is None else spectrum_html(np.asarray(self.projection.s))

    def _content(self) -> bytes:
        """Return what changes with the factors, which a program may assign or change in place."""
        u = self.projection.u
        return b"" if u is None else checksum(u, self.projection.s)

    def _earlier(self, content: bytes) -> Kept:
        """Return what the factors, with this content, were made of, as far as it is here."""
        if self.projection.u is None:
            return Kept()
        kept = self._kept
        if kept is not None and kept.content == content:
            return kept
        logger.warning(
            "documents are added to the %d leading factors of the %d documents before, which are not here: "
            "a model keeps up to %.3g MB of them, and copies and files have none. Singular values may come "
            "out too small",
            len(self.projection.s),
            self.docs_processed,
            KEPT_BYTES / 1e6,
        )
        return Kept((np.asarray(self.projection.u), np.asarray(self.projection.s, dtype=np.float64)))

    def _effort(self) -> tuple[int | None, int | None]:
        """Return `power_iters` and `extra_samples`; one that is not given is gensim's, where the other is."""
        if self.power_iters is None and self.extra_samples is None:
            return None, None
        return self._effort_of_gensim()

    def _effort_of_gensim(self) -> tuple[int, int]:
        return (
            P2_EXTRA_ITERS if self.power_iters is None else self.power_iters,
            P2_EXTRA_DIMS if self.extra_samples is None else self.extra_samples,
        )

    def _on_engine(self, task: LsiTask, addition: Addition, reading: _Reading) -> lsi.Factors:
        """Train by threads or a Dask cluster."""
        warm()
        with engine_of(self.client, self.workers) as engine:

            def after_round(rounds: int) -> None:
                reading.tell_round(rounds, workers=engine.num_workers)

            return train(engine, task, addition, fold_at=MEMORY, after_round=after_round)

    def _on_cluster(
        self, cluster: Cluster, task: LsiTask, addition: Addition, reading: _Reading
    ) -> lsi.Factors:
        """Train on a cluster."""

        def attempt(training: Training) -> lsi.Factors:
            training.begin(as_dict(task))
            for chunk in cast("Iterable[Chunk | StoredChunk]", addition):
                training.put(chunk)
                logger.info("dispatched documents up to #%s", reading.documents)
            logger.info("reached the end of input; now waiting for all remaining jobs to finish")
            told = 0
            while True:
                state = training.call("finish", SECONDS_BETWEEN_EVENTS)
                if state["rounds"] > told:
                    told = state["rounds"]
                    reading.tell_round(told, workers=state["workers"])
                training.supply(state["wanted"])
                if state["factors"] is not None:
                    check_factors(state["factors"], task.num_terms, task.num_topics)
                    if state["folds"]:
                        logger.warning(FOLDED)
                    u, s = state["factors"]
                    return u, s

        return train_on(cluster, names.LSI_MODELS, attempt, rereadable=reading.rereadable)

    @np.errstate(all="ignore")
    def __getitem__(self, bow: Any, scaled: bool = False, chunksize: int | None = 512) -> Any:
        """Project a document, or each document of a corpus, chunk by chunk as it is read. Arguments and
        result are as in gensim; a corpus may also be a scipy sparse matrix (terms x documents).

        Raises
        ------
        ValueError, TypeError
            If the model has not been trained, or a document is none; of a corpus when it comes to that.
        """
        self._check_topics()
        check_here(bow, "transform")
        is_corpus, given = gensim.utils.is_corpus(begun(as_gensims(bow, self.num_terms)))
        if is_corpus and chunksize:
            return self._apply(given, check.whole("chunksize", chunksize, 1))
        if is_corpus:
            projected = self._projected(joined([*self._chunks(as_corpus(given))], self.num_terms))
        else:
            projected = self._projected_document(given)
        if scaled:
            projected = projected * (1.0 / self.projection.s[: projected.shape[-1]])
        return Dense2Corpus(projected.T) if is_corpus else full2sparse(projected)

    def _apply(self, corpus: Any, chunksize: int | None = None, **options: Any) -> Projections:
        return Projections(self, corpus, chunksize or self.chunksize, **options)

    def _chunks(self, corpus: Any) -> Iterator[Chunk]:
        return chunks(corpus, self._setting("chunksize"), self.num_terms, counts=False)

    def _vectors(self) -> np.ndarray:
        """Return the left singular vectors of the topics."""
        return np.asarray(self.projection.u[:, : self._setting("num_topics")])

    def _projected(self, documents: Chunk) -> np.ndarray:
        """Project documents as gensim does; shape (n_docs, k)."""
        u = self._vectors()
        matrix = scipy.sparse.csr_array(
            (documents.data.astype(u.dtype, copy=False), documents.indices, documents.indptr),
            shape=(documents.n_docs, self.num_terms),
        )
        return np.asarray(matrix @ u)

    def _projected_document(self, document: Any) -> np.ndarray:
        """Project a document; shape (k,). Rows of a few words are added up sooner than a matrix is made."""
        u = self._vectors()
        document = one_document(document)
        single = small_document(document, self.num_terms, counts=False, most=MOST_WORDS)
        if single is None and type(document) is list:
            with suppress(TypeError, ValueError):  # what cannot be put in order
                single = small_document(sorted(document), self.num_terms, counts=False, most=MOST_WORDS)
        if single is None:
            (chunk,) = self._chunks([document])
            words = chunk.indices
        else:
            words, chunk = single
        values = chunk.data.astype(u.dtype, copy=False)
        return np.asarray((values[:, np.newaxis] * u[words]).sum(axis=0))

    def transform(
        self, corpus: Any, chunksize: int | None = None, *, client: Any = None
    ) -> Iterator[np.ndarray]:
        """Project a whole corpus, in a stream that needs memory for one chunk.

        Parameters
        ----------
        corpus : iterable of documents, scipy sparse matrix (terms x documents), or Dask collection
        chunksize : int, optional
            Documents of a chunk; the model's by default.
        client : dask.distributed.Client or "active", optional
            Compute on a Dask cluster. By default that of a model which was made with one, if the corpus is
            on it; other documents are projected in this process.

        Returns
        -------
        iterator of ndarray, shape (n_docs, k)
            The documents of the next chunk in the space of the topics, in order.
        """
        self._check_topics()
        size = check.whole("chunksize", self.chunksize if chunksize is None else chunksize, 1)
        corpus, client = placed_with(corpus, client, self.client)
        if client is not None:
            return quietly(self._project(corpus, client, size))
        return quietly(map(self._projected_all, chunks(corpus, size, self.num_terms, counts=False)))

    def _projected_all(self, documents: Chunk) -> np.ndarray:
        """Project documents in the type that both they and the model need; shape (n_docs, k)."""
        matrix = scipy.sparse.csr_array(
            (documents.data, documents.indices, documents.indptr), shape=(documents.n_docs, self.num_terms)
        )
        return np.asarray(matrix @ self._vectors())

    def _project(self, corpus: Any, client: Any, chunksize: int) -> Iterator[np.ndarray]:
        """Project a corpus on a Dask cluster."""
        vectors = np.ascontiguousarray(self._vectors())
        read = divisible(corpus, chunksize, self.num_terms, counts=False, limits=DocumentProjection.limits)
        params = ProjectionParams(vectors.shape[1])
        with (
            engine_of(client, None) as engine,
            Evaluation(
                "lsi", engine, self.num_terms, params, vectors.__getitem__, kernel=DocumentProjection
            ) as projecting,
        ):
            yield from evaluate(projecting, read)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_kept", "_adding")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._adding = threading.RLock()

    def as_gensim(self) -> Any:
        plain = super().as_gensim()
        # gensim has no tolerance to go by.
        plain.power_iters, plain.extra_samples = self._effort_of_gensim()
        plain.distcorpus_options |= {"power_iters": self.power_iters, "extra_samples": self.extra_samples}
        return plain


def _where_largest(number: int, chunk: Divisible) -> str:
    """Say where the largest value of a chunk is."""
    if not isinstance(chunk, Chunk):
        return f"chunk {number}"
    entry = int(np.argmax(np.abs(chunk.data)))
    document = int(np.searchsorted(chunk.indptr, entry, side="right")) - 1
    return f"chunk {number}: document {document}: term id {chunk.indices[entry]}"


class _Reading:
    """The chunks of a corpus, counted and shown as they are read."""

    def __init__(self, model: LsiModel, corpus: Any, of: int | None, chunksize: int) -> None:
        self.documents = 0
        self._largest = LARGEST_SINGLE if model.dtype == np.float32 else np.inf
        self._before = model.docs_processed
        self.bar = ProgressBar(model, "LSI")
        self._of = of
        self.rereadable = is_rereadable(corpus)
        referred = refers_to(corpus, counts=False) if model._cluster() is not None else None
        #: Whether workers read the documents themselves.
        self.refers = referred is not None
        corpus = referred or corpus
        self._read = partial(
            divisible, corpus, chunksize, model.num_terms, counts=False, limits=Product.limits
        )

    def __iter__(self) -> Iterator[Divisible]:
        self.documents = 0
        most: tuple[float, str] = (0.0, "")
        for number, chunk in enumerate(self._read()):
            largest = chunk.largest()
            if most[0] < largest:
                most = largest, _where_largest(number, chunk)
            if largest > self._largest:
                raise ValueError(
                    f"chunk {number}: a document has the value {largest:g}: with dtype=float32 values are "
                    f"at most {self._largest:g}; give dtype=numpy.float64, or divide them by a number"
                )
            self.documents += chunk.n_docs
            logger.info("preparing a new chunk of documents")
            yield chunk
            logger.info("processed documents up to #%s", self._before + self.documents)
            event = {"kind": "update", "pass_": 0, "documents": self.documents, "of": self._of}
            self.bar.told(event, passes=1)
        if not self.documents:
            raise EmptyCorpusError
        if 0 < most[0] < SMALLEST_WEIGHT and not self._before:
            raise ValueError(
                f"{most[1]} has the value {most[0]:g}, and no document a larger one: the squares of values "
                f"below {SMALLEST_WEIGHT:g} cannot be added up; multiply them by a number"
            )

    def tell_round(self, rounds: int, **facts: Any) -> None:
        """Tell of a product with the corpus."""
        logger.debug("%i products with the corpus", rounds)
        self.bar.told({"kind": "round", "rounds": rounds, **facts}, passes=1)

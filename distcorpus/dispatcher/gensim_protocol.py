"""The protocol of gensim's unmodified models: the Pyro objects that they talk to, one a connection.

gensim itself is imported when the first of its models asks: it takes longer to load than all else.
"""

from __future__ import annotations

import gc
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from distcorpus.algorithms.chunk import as_chunk
from distcorpus.algorithms.lda import LDA_GRID
from distcorpus.algorithms.received import NUMBER, check_amounts, check_kinds, check_received
from distcorpus.algorithms.summation import GridSum
from distcorpus.dispatcher import words
from distcorpus.dispatcher.connection import Connection
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.limits import check_result, lda_bytes, lsi_bytes
from distcorpus.kernels import EStepParams
from distcorpus.training.lda import EStepTraining
from distcorpus.training.lsi import LsiTask, LsiTraining
from distcorpus.wire import expose

#: The most topics of a model: gensim's priors are made of them one by one.
MAX_TOPICS = 1_000_000
#: What gensim's class does not send.
ITERATIONS, GAMMA_THRESHOLD = 50, 0.001


@cache
def load_gensim() -> None:
    """Import gensim, once; its modules stay, and no collection at the end of a session looks through them."""
    import gensim.models  # noqa: F401

    gc.freeze()


class _GensimModel(Connection):
    """What both have in common."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        load_gensim()
        super().__init__(dispatcher)


class GensimLsi(_GensimModel):
    """What ``gensim.models.LsiModel(distributed=True)`` talks to."""

    kind = "lsi"

    @expose
    def initialize(
        self,
        id2word: Any = None,
        num_topics: float = 200,
        chunksize: float = 20000,
        decay: float = 1.0,
        power_iters: float = 2,
        extra_samples: float = 100,
        distributed: bool = False,
        onepass: bool = True,
    ) -> None:
        """Begin a model; takes what ``LsiModel`` sends."""
        self._num_terms = _num_terms(id2word)
        self._num_topics = _positive("num_topics", num_topics, MAX_TOPICS)
        self._decay = float(decay)
        if not 0.0 < self._decay < np.inf:
            raise ValueError(f"decay={decay!r}: give a positive number, 1.0 to weigh all documents alike")
        # Of which type the result will be, the first chunk says.
        check_result(self._num_terms, self._num_topics, np.dtype(np.float32).itemsize)
        self._projection = {"power_iters": power_iters, "extra_dims": extra_samples}
        self._name, self._options = self._begin_session(
            lsi_bytes(self._num_terms, self._num_topics),
            f"{self._num_terms} terms x {self._num_topics} topics",
        )

    def _open(self, dtype: np.dtype) -> None:
        # The model does not say its dtype; its first chunk shows it.
        check_result(self._num_terms, self._num_topics, dtype.itemsize)
        self._dtype = dtype
        task = LsiTask(
            self._num_terms,
            self._num_topics,
            decay=self._decay,
            dtype="float64" if dtype == np.float64 else "float32",
        )
        self._opened(LsiTraining(self._name, self._dispatcher.engine, task, **self._options))

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
        what = self.arriving()
        matrix = isinstance(job, np.ndarray) or scipy.sparse.issparse(job)
        if matrix and job.shape[:1] != (self._num_terms,):
            terms = job.shape[0] if job.ndim else 0
            raise ValueError(f"{what} has {terms} terms, this model's vocabulary {self._num_terms}")
        check_received(job, what)
        chunk = as_chunk(job, self._num_terms, what=what)
        self._dispatcher.watch.documents_arrived(chunk.n_docs)
        if self._session is None:
            self._open(job.dtype if matrix else np.dtype(np.float64))
        self._session.put(chunk)

    @expose
    def getstate(self) -> Any:
        """Wait for all chunks and return gensim's ``Projection`` of all documents so far."""
        from gensim.models.lsimodel import Projection

        self._check_initialized()
        projection = Projection(self._num_terms, self._num_topics, None, **self._projection)
        if self._session is not None:
            projection.u, projection.s = (array.astype(self._dtype) for array in self._session.finish())
        return projection


class GensimLda(_GensimModel):
    """What ``gensim.models.LdaModel(distributed=True)`` talks to."""

    kind = "lda"

    @expose
    def initialize(
        self,
        id2word: Any = None,
        num_topics: float = 100,
        chunksize: float = 2000,
        alpha: Any = "symmetric",
        eta: Any = None,
        distributed: bool = False,
    ) -> None:
        """Begin a model; takes what ``LdaModel`` sends (the topics, with eta, come with ``reset``)."""
        from gensim.models import LdaModel

        shape: dict[str, Any] = {
            "num_topics": _positive("num_topics", num_topics, MAX_TOPICS),
            "num_terms": _num_terms(id2word),
            "dtype": np.float64,
        }
        _check_prior(alpha)
        itemsize = np.dtype(np.float32).itemsize
        check_result(shape["num_terms"], shape["num_topics"], itemsize)
        # gensim's own reading of what it accepts as a prior, without making a model.
        prior, _ = LdaModel.init_dir_prior(SimpleNamespace(**shape), alpha, "alpha")
        if prior.shape != (shape["num_topics"],):
            raise ValueError(
                f"alpha has shape {prior.shape}: give one number for each of {num_topics} topics"
            )
        self._alpha = np.asarray(prior, dtype=np.float64)
        check_amounts({"alpha": self._alpha}, above_zero=True)
        self._word = words.of_id2word(id2word)
        name, options = self._begin_session(
            lda_bytes(shape["num_terms"], shape["num_topics"], itemsize),
            f"{shape['num_terms']} terms x {shape['num_topics']} topics",
        )
        engine, num_terms = self._dispatcher.engine, shape["num_terms"]
        self._opened(EStepTraining(name, engine, num_terms, num_topics=len(prior), **options))

    @expose
    def reset(self, state: Any) -> None:
        """Begin a round with the topics of `state`, an ``LdaState``."""
        from gensim.models.ldamodel import LdaState

        if not isinstance(state, LdaState):
            raise TypeError(f"reset() takes state as LdaState, not as a {type(state).__name__}")
        self._check_initialized()
        session = self._session
        shape = (session.num_topics, session.num_terms)
        eta, sstats = state.eta, state.sstats
        check_kinds(np.ndarray, eta=eta, sstats=sstats)
        if sstats.shape != shape or eta.shape not in (shape, shape[1:]):
            raise ValueError(
                f"the state has statistics of shape {sstats.shape} and eta of {eta.shape}, this model's have "
                f"{shape} and {shape[1:]} or {shape}"
            )
        check_amounts({"the state's statistics": sstats, "the state's eta": eta})
        self._state = state
        dtype = "float64" if sstats.dtype == np.float64 else "float32"
        statistics = sstats.sum(axis=1, dtype=np.float64)
        totals = statistics + eta.sum(axis=-1, dtype=np.float64)

        def rows(words: NDArray[np.int32]) -> NDArray:
            prior = eta[words, None] if eta.ndim == 1 else eta[:, words].T
            return np.ascontiguousarray(sstats[:, words].T + prior, dtype=dtype)

        params = EStepParams(self._alpha, totals, dtype, ITERATIONS, GAMMA_THRESHOLD, seed=0)
        total = GridSum(session.num_terms, session.num_topics, LDA_GRID)
        session.begin(params, total, rows, statistics)

    @expose
    def putjob(self, job: Any) -> None:
        """Add a chunk, a list of documents; waits while the queue is full."""
        self._check_initialized()
        session = self._session
        what = self.arriving()
        check_received(job, what)
        chunk = as_chunk(job, session.num_terms, counts=True, what=what)
        self._dispatcher.watch.documents_arrived(chunk.n_docs)
        session.put(chunk)

    @expose
    def getstate(self) -> Any:
        """Wait for the round and return its sufficient statistics, an ``LdaState``."""
        from gensim.models.ldamodel import LdaState

        self._check_initialized()
        total, documents = self._session.finish()
        state = LdaState(self._state.eta, (0, 0), dtype=self._state.sstats.dtype)
        state.sstats = np.ascontiguousarray(total.values().T, dtype=self._state.sstats.dtype)
        state.numdocs = documents
        return state


def _num_terms(id2word: Any) -> int:
    """Return the size of the vocabulary, as gensim's models count it."""
    from gensim.corpora import HashDictionary
    from gensim.utils import FakeDict

    # These two have no ids, only the number that they state.
    if isinstance(id2word, HashDictionary):
        return int(id2word.id_range)
    if isinstance(id2word, FakeDict):
        return int(id2word.num_terms)
    keys = getattr(id2word, "keys", None)
    if keys is None:
        raise TypeError(
            f"id2word is a {type(id2word).__name__}: give a gensim Dictionary or a dict of id to word"
        )
    ids = list(keys())
    for kind in set(map(type, ids)):
        if not issubclass(kind, int | np.integer):
            raise TypeError(f"id2word has a {kind.__name__} for an id: give a dict of whole number to word")
    if min(ids, default=0) < 0:
        raise ValueError(f"id2word has a negative id, {min(ids)}: give ids from 0 on")
    return 1 + int(max(ids, default=-1))


def _check_prior(alpha: Any) -> None:
    """Refuse what is no prior of gensim's before numpy makes an array of it."""
    check_kinds(None, str, *NUMBER, np.ndarray, list, tuple, alpha=alpha)
    if isinstance(alpha, list | tuple) and not all(isinstance(number, NUMBER) for number in alpha):
        raise TypeError("alpha is a list with other things than numbers")


def _positive(what: str, number: Any, most: int) -> int:
    if int(number) != number or not 0 < number <= most:
        raise ValueError(f"{what}={number!r}: give a whole number from 1 to {most:,}")
    return int(number)

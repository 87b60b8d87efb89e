"""gensim's LDA model over compiled kernels, on this machine or on a cluster."""

from __future__ import annotations

import copy
import logging
import math
import numbers
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gensim.models
import numpy as np
from gensim import utils
from gensim.models.callbacks import Callback
from gensim.models.ldamodel import LdaState

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.algorithms.lda import VARIANTS, bound, infer, log_topics, topic_bound, topic_weights
from distcorpus.algorithms.online import Numbered, OnlineLda, Plan, Progress, estep, train
from distcorpus.algorithms.topics import LazyTopics
from distcorpus.models._cluster import Cluster, Training
from distcorpus.models._corpus import as_corpus, chunks, length
from distcorpus.wire import names

# gensim's users know its log lines, and under which name they come.
logger = logging.getLogger("gensim.models.ldamodel")

#: What a model of ours has beyond gensim's, as it is saved, and what one that gensim saved gets.
OPTIONS: dict[str, Any] = {
    "variant": "vb",
    "update_chunks": None,
    "ns_conf": None,
}


class LdaModel(gensim.models.LdaModel):
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
        minimum_probability: float = 0.01,
        random_state: Any = None,
        ns_conf: Mapping[str, Any] | None = None,
        minimum_phi_value: float = 0.01,
        per_word_topics: bool = False,
        callbacks: Any = None,
        dtype: Any = np.float32,
        *,
        inference: str = "vb",
        update_chunks: int | None = None,
    ) -> None:
        self.dtype = np.finfo(dtype).dtype
        self.variant = inference
        self.update_chunks = update_chunks
        self.ns_conf = ns_conf
        self.id2word = id2word
        if id2word is None:
            self.id2word = utils.dict_from_corpus(corpus)
        self.num_terms = 1 + max(self.id2word.keys())
        self.distributed = bool(distributed)
        self.num_topics = int(num_topics)
        self.chunksize = chunksize
        self.decay = decay
        self.offset = offset
        self.minimum_probability = minimum_probability
        self.num_updates = 0
        self.passes = passes
        self.update_every = update_every
        self.eval_every = eval_every
        self.minimum_phi_value = minimum_phi_value
        self.per_word_topics = per_word_topics
        self.callbacks = callbacks
        self.alpha, self.optimize_alpha = self.init_dir_prior(alpha, "alpha")
        self.eta, self.optimize_eta = self.init_dir_prior(eta, "eta")
        self.random_state = utils.get_random_state(random_state)
        self.iterations = iterations
        self.gamma_threshold = gamma_threshold
        self.dispatcher = Cluster(ns_conf) if distributed else None
        self.numworkers = 1
        if self.dispatcher is not None:
            with Training(self.dispatcher.connect(names.LDA_MODELS)) as training:
                self.numworkers = training.call("ready")
        state = LdaState(self.eta, (self.num_topics, self.num_terms), dtype=self.dtype)
        state.sstats[...] = self.random_state.gamma(100.0, 0.01, state.sstats.shape)
        self.state = state
        if corpus is not None:
            start = time.time()
            self.update(corpus)
            self.add_lifecycle_event("created", msg=f"trained {self} in {time.time() - start:.2f}s")

    @property
    def state(self) -> Any:
        if self._topics is not None:
            topics, self._topics = self._topics, None
            self._state = LdaState(topics.eta, (0, 0), dtype=self.dtype)
            self._state.sstats = topics.to_state()
            self._state.numdocs = topics.numdocs
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self._topics, self._state = None, state

    def _adopt(self, topics: LazyTopics) -> None:
        self._topics, self._state = topics, None

    def _lazy_topics(self) -> LazyTopics:
        if self._topics is not None:
            return self._topics
        state = self._state
        return LazyTopics.from_state(state.eta, state.sstats, state.numdocs)

    def update(
        self,
        corpus,
        chunksize=None,
        decay=None,
        offset=None,
        passes=None,
        update_every=None,
        eval_every=None,
        iterations=None,
        gamma_threshold=None,
        chunks_as_numpy=False,
    ):
        corpus = as_corpus(corpus)
        documents = length(corpus)
        chunksize = min(self.chunksize, documents)
        plan = Plan(
            passes=self.passes,
            update_chunks=self.update_chunks or self.update_every * self.numworkers,
            chunksize=chunksize,
            decay=self.decay,
            offset=self.offset,
            iterations=self.iterations,
            gamma_threshold=self.gamma_threshold,
            seed=int(self.random_state.randint(2**31 - 1)),
            variant=self.variant,
            optimize_alpha=self.optimize_alpha,
            optimize_eta=self.optimize_eta,
            eval_chunks=0,
        )
        topics = self._lazy_topics()
        topics.numdocs += documents
        if self.dispatcher:
            with Training(self.dispatcher.connect(names.LDA_MODELS)) as training:
                training.call(
                    "begin",
                    {
                        "topics": dict(
                            eta=topics.eta,
                            table=topics.table,
                            scale=topics.scale,
                            numdocs=topics.numdocs,
                            sums=topics.sums,
                        ),
                        "alpha": self.alpha,
                        "eta": self.eta,
                        "num_updates": self.num_updates,
                        "plan": __import__("dataclasses").asdict(plan),
                        "documents": documents,
                        "progress": {},
                        "pauses": False,
                    },
                )
                for chunk in chunks(corpus, chunksize, self.num_terms, counts=True):
                    training.put(chunk)
                training.follow(lambda e: None)
                got = training.call("fetch")
            self._adopt(LazyTopics(**got["topics"]))
            self.alpha, self.eta, self.num_updates = got["alpha"], got["eta"], got["num_updates"]
        else:
            model = OnlineLda(topics, self.alpha, self.eta, self.num_updates)
            train(
                model,
                plan,
                lambda p: enumerate(chunks(corpus, chunksize, self.num_terms, counts=True)),
                lambda p, c, t: estep(topics, p, c, t),
            )
            self._adopt(topics)
            self.alpha, self.eta, self.num_updates = model.alpha, model.eta, model.num_updates

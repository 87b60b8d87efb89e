"""The names under which a cluster's objects are registered in the name server."""

from __future__ import annotations

NAME_SERVER = "Pyro.NameServer"
LSI_DISPATCHER = "gensim.lsi_dispatcher"
LDA_DISPATCHER = "gensim.lda_dispatcher"
DISPATCHER = "distcorpus.dispatcher"
LSI_MODELS = "distcorpus.lsi"
LDA_MODELS = "distcorpus.lda"
OF_THE_DISPATCHER = (DISPATCHER, LSI_DISPATCHER, LDA_DISPATCHER, LSI_MODELS, LDA_MODELS)
WORKER_PREFIX = "distcorpus.worker."
#: What gensim's own workers register as, each with a suffix of its own.
STOCK_WORKERS = ("gensim.lsi_worker", "gensim.lda_worker")


def worker(name: str) -> str:
    """The registered name of the worker called `name`."""
    return WORKER_PREFIX + name

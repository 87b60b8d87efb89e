"""A dispatcher that is told to end: whoever is just not calling it hears why at the next call."""

from __future__ import annotations

import os
import signal
import time

import gensim.models
import pytest

from distcorpus import LocalCluster
from distcorpus.models import LdaModel, LsiModel

from .conftest import wait_until
from .test_clients import alive
from .test_failures import Hooked

KINDS = [gensim.models.LdaModel, gensim.models.LsiModel, LdaModel, LsiModel]
TOLD = r"the dispatcher was told to end.*train again"


def end(cluster):
    """Tell the dispatcher to end, and wait until it has."""
    os.kill(cluster.dispatcher_pid, signal.SIGTERM)
    wait_until(lambda: not alive(cluster.dispatcher_pid), "the dispatcher's end", 20)


def corpus_of(kind, lee_corpus):
    return lee_corpus.counts if issubclass(kind, gensim.models.LdaModel) else lee_corpus.tfidf


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
@pytest.mark.long
def test_who_is_between_two_calls_is_told(lee_corpus, kind, tls):
    """While it reads its corpus; the next chunk is more than the system takes from it at once."""
    documents = corpus_of(kind, lee_corpus)
    large = [[(word, 1.0) for word in range(len(lee_corpus.dictionary))]] * 200
    with LocalCluster(1, tls=tls) as cluster:
        corpus = Hooked(documents[:60] + large, 55, lambda: end(cluster))
        options = {"eval_every": None} if issubclass(kind, gensim.models.LdaModel) else {}
        model = kind(id2word=lee_corpus.dictionary, num_topics=3, chunksize=10, distributed=True, **options)
        began = time.monotonic()
        with pytest.raises(RuntimeError, match=TOLD):
            (model.update if options else model.add_documents)(corpus, chunksize=200)
        assert time.monotonic() - began < 20.0


@pytest.mark.long
def test_idle_models_do_not_delay_the_end(lee_corpus):
    """An evaluation that nobody takes from, a model that was trained, one that was made: all are told."""
    with LocalCluster(1) as cluster:
        evaluated = LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
        evaluation = evaluated.transform(lee_corpus.counts, chunksize=5)
        next(evaluation)
        trained = gensim.models.LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, distributed=True)
        made = gensim.models.LdaModel(id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
        began = time.monotonic()
        end(cluster)
        assert time.monotonic() - began < 4.0
        with pytest.raises(RuntimeError, match=TOLD):
            list(evaluation)
        with pytest.raises(RuntimeError, match=TOLD):
            trained.add_documents(lee_corpus.tfidf)
        with pytest.raises(RuntimeError, match=TOLD):
            made.update(lee_corpus.counts)

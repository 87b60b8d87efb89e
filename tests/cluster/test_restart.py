"""A dispatcher that is killed and started again: our models go on where they were, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from gensim.models.callbacks import Metric

from distcorpus import LdaModel, LsiModel

from ..template import start


@contextmanager
def dispatcher(cluster):
    """A dispatcher in the place of the one that was killed."""
    process = start(
        [sys.executable, "-m", "distcorpus", "dispatcher", "--no-broadcast"],
        env={**os.environ, **cluster.environ()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().startswith("distcorpus dispatcher")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


class Reached:
    """A corpus, or an observer of a training, that stops at one point until something has happened."""

    def __init__(self):
        self.there, self.go_on = threading.Event(), threading.Event()

    def stop(self):
        if not self.there.is_set():
            self.there.set()
            assert self.go_on.wait(60)


class StopsAt(Reached):
    def __init__(self, documents, at):
        super().__init__()
        self._documents, self._at = documents, at

    def __len__(self):
        return len(self._documents)

    def __iter__(self):
        for number, document in enumerate(self._documents):
            if number == self._at:
                self.stop()
            yield document


def train_lda(corpus, documents, **options):
    model = LdaModel(
        documents,
        id2word=corpus.dictionary,
        num_topics=10,
        chunksize=50,
        update_chunks=2,
        passes=4,
        random_state=1,
        distributed=True,
        **options,
    )
    return model.state.sstats.tobytes()


def train_lsi(corpus, documents):
    model = LsiModel(documents, id2word=corpus.dictionary, num_topics=10, chunksize=50, distributed=True)
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def killed_and_restarted(cluster, reached, train):
    """What a training comes to whose dispatcher is killed at that point, and started again."""
    with ThreadPoolExecutor(1) as client:
        training = client.submit(train)
        assert reached.there.wait(60)
        os.kill(cluster.dispatcher_pid, signal.SIGKILL)
        with dispatcher(cluster):
            reached.go_on.set()
            return training.result(timeout=90)


@pytest.mark.parametrize("train", [train_lda, train_lsi])
def test_while_the_corpus_is_read(own_cluster, lee_corpus, train):
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    quiet = train(lee_corpus, documents)
    corpus = StopsAt(documents, 250)
    assert killed_and_restarted(own_cluster, corpus, lambda: train(lee_corpus, corpus)) == quiet


class AfterPasses(Metric):
    """What gensim's callbacks call after each pass, for which the dispatcher waits."""

    def __init__(self, observer):
        self.logger, self.title = "shell", "passes"
        self._observer, self._passes = observer, 0

    def get_value(self, **parameters):
        self._passes += 1
        if self._passes == 3:
            self._observer.stop()
        return self._passes


def test_lda_goes_on_where_it_was(own_cluster, lee_corpus):
    """After a later pass; what was learnt is not learnt again."""
    quiet = train_lda(lee_corpus, lee_corpus.counts)
    observer, updates = Reached(), []

    def progress(event):
        if event["kind"] == "update":
            updates.append(event["updates"])

    callbacks = [AfterPasses(observer)]
    train = killed_and_restarted(
        own_cluster,
        observer,
        lambda: train_lda(lee_corpus, lee_corpus.counts, progress=progress, callbacks=callbacks),
    )
    assert train == quiet
    assert updates == list(range(1, 13))


def test_generator_cannot_be_read_again(own_cluster, lee_corpus):
    corpus = StopsAt(lee_corpus.tfidf, 250)
    with pytest.raises(RuntimeError, match=r"the dispatcher is gone.*generator.*train again"):
        killed_and_restarted(own_cluster, corpus, lambda: train_lsi(lee_corpus, iter(corpus)))

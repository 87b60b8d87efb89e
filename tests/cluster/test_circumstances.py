"""Things that go wrong around a training, and sizes at the edge: the same bytes, or one clear error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
from gensim import models as gensims
from gensim.utils import FakeDict

from distcorpus import LdaModel, LocalCluster, LsiModel
from distcorpus.wire import find, list_names, names

from ..template import start
from .conftest import wait_until
from .test_failures import Hooked


def train_lda(corpus, documents=None, **options):
    model = LdaModel(
        documents or corpus.counts,
        id2word=corpus.dictionary,
        num_topics=5,
        chunksize=30,
        random_state=1,
        distributed=True,
        **options,
    )
    return model.state.sstats.tobytes()


def train_lsi(corpus, documents=None, **options):
    model = LsiModel(
        documents or corpus.tfidf,
        id2word=corpus.dictionary,
        num_topics=5,
        chunksize=30,
        distributed=True,
        **options,
    )
    return model.projection.u.tobytes() + model.projection.s.tobytes()


@contextmanager
def nameserver(port):
    """A name server at a port, in the place of one that was killed."""
    command = [sys.executable, "-m", "distcorpus", "nameserver", "--bind-port", str(port), "--no-broadcast"]
    process = start(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("distcorpus name server")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("train", [train_lda, train_lsi])
def test_a_name_server_that_is_killed_in_mid_run(own_cluster, lee_corpus, train):
    """The training does not notice; when there is one again, the daemons are found as before."""
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    quiet = train(lee_corpus)
    where = own_cluster.environ()
    host, port = where["PYRO_NS_HOST"], int(where["PYRO_NS_PORT"])
    *_, old = own_cluster._daemons

    def kill():
        os.kill(old.pid, signal.SIGKILL)
        wait_until(lambda: not old.alive, "its end")

    assert train(lee_corpus, Hooked(documents, 100, kill)) == quiet
    with pytest.raises(RuntimeError, match="no cluster to train on was found"):
        train(lee_corpus)
    with nameserver(port):

        def known():
            found = find(host, port, broadcast=False)
            registered = list_names(found)
            found._pyroRelease()
            return set(names.OF_THE_DISPATCHER) <= set(registered) and len(
                [name for name in registered if name.startswith(names.WORKER_PREFIX)]
            ) == len(own_cluster.workers)

        wait_until(known, "their registering again")
        assert train(lee_corpus) == quiet


def test_a_spool_that_is_removed_in_mid_run(lee_corpus, tmp_path):
    spool = tmp_path / "spool"
    options = ("--memory", str(20_000 / 2**30), "--spool", str(spool))
    with LocalCluster(1, dispatcher_options=options) as cluster:
        quiet = train_lsi(lee_corpus)
        hooked = Hooked(lee_corpus.tfidf, 200, lambda: shutil.rmtree(spool))
        with pytest.raises(RuntimeError, match=r"chunk \d+ .*cannot be written to .*spool.*--spool DIR"):
            train_lsi(lee_corpus, hooked)
        spool.mkdir()
        assert train_lsi(lee_corpus) == quiet
        wait_until(lambda: not cluster.dispatcher.status()["sessions"], "the session's end")


@pytest.mark.parametrize("where", ["missing/model", "folder"])
def test_a_checkpoint_that_cannot_be_written(cluster, lee_corpus, tmp_path, where):
    """It is said when the model is made or the checkpoint is due, with the path; the cluster goes on."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / where
    with pytest.raises((OSError, ValueError), match=where.split("/")[0]):
        train_lda(lee_corpus, checkpoint=str(path), checkpoint_every=1)
    wait_until(lambda: not cluster.dispatcher.status()["sessions"], "the session's end")
    train_lda(lee_corpus)


def test_few_descriptors(lee_corpus):
    """With 64 of them a dispatcher serves whom it can, and everybody again when there are some."""
    with LocalCluster(1) as cluster:
        quiet = train_lda(lee_corpus)
        resource.prlimit(cluster.dispatcher_pid, resource.RLIMIT_NOFILE, (64, 64))
        assert train_lda(lee_corpus) == quiet
        host, port = cluster.dispatcher._pyroUri.host, cluster.dispatcher._pyroUri.port
        held = [socket.create_connection((host, port)) for _ in range(100)]
        assert cluster.dispatcher.ping() == "pong"
        for sock in held:
            sock.close()
        assert train_lda(lee_corpus) == quiet
        assert len(cluster.dispatcher.status()["workers"]) == 1


@pytest.mark.parametrize("train", [train_lda, pytest.param(train_lsi, marks=pytest.mark.long)])
def test_a_client_that_forks_in_mid_run(cluster, lee_corpus, train):
    """The child trains a model of its own; the parent's training goes on as if nothing had happened."""
    program = f"""
import os, sys
import corpora
from gensim.models import TfidfModel
from distcorpus import LdaModel, LsiModel
dictionary, counts = corpora.bow(corpora.lee())
weigh = TfidfModel(dictionary=dictionary)
kind, documents = {"(LdaModel, counts)" if train is train_lda else "(LsiModel, [weigh[d] for d in counts])"}
options = dict(id2word=dictionary, num_topics=5, chunksize=30, distributed=True)
if kind is LdaModel:
    options["random_state"] = 1

def learnt(corpus):
    model = kind(corpus, **options)
    table = model.state.sstats if kind is LdaModel else model.projection.u
    return table.tobytes()

class Forks:
    child = None
    def __len__(self):
        return len(documents)
    def __iter__(self):
        for number, document in enumerate(documents):
            if number == 150 and self.child is None:
                self.child = os.fork()
                if self.child == 0:
                    try:
                        os._exit(learnt(documents) != quiet)
                    finally:
                        os._exit(3)
            yield document

quiet = learnt(documents)
forks = Forks()
assert learnt(forks) == quiet
_, status = os.waitpid(forks.child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
print("both")
"""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **cluster.environ(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["both"], done.stderr


def test_eight_threads_of_one_client(cluster, lee_corpus):
    """Each trains its own model, and all read one; every result is the one that a single thread gets."""
    quiet = train_lda(lee_corpus), train_lsi(lee_corpus)
    together = threading.Barrier(8)

    def work(number):
        together.wait(30)
        return (train_lsi if number % 2 else train_lda)(lee_corpus)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [quiet[number % 2] for number in range(8)]


@pytest.mark.parametrize("bind", ["localhost", "::1"])
@pytest.mark.long
def test_host_names_and_ipv6(bind, lee_corpus):
    """All three daemons listen at, and advertise, a host name or an IPv6 address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        if bind == "::1":
            pytest.skip("this machine has no IPv6")

    def daemon(*arguments):
        process = start(
            [sys.executable, "-m", "distcorpus", *arguments, "--bind", bind, "--until-eof", "--no-broadcast"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[0].startswith("distcorpus "), lines
        return process, lines[1].split("listens on ")[1].split(",")[0].split()[0]

    processes = []
    try:
        process, location = daemon("nameserver", "--bind-port", "0")
        processes.append(process)
        port = location.rpartition(":")[2]
        for what in ("dispatcher", "worker"):
            process, advertised = daemon(what, "--host", bind, "--port", port)
            processes.append(process)
            assert advertised.rpartition(":")[0] in (bind, f"[{bind}]")
        model = LsiModel(
            lee_corpus.tfidf[:60],
            id2word=lee_corpus.dictionary,
            num_topics=3,
            distributed=True,
            ns_conf={"host": bind, "port": int(port)},
        )
        here = LsiModel(lee_corpus.tfidf[:60], id2word=lee_corpus.dictionary, num_topics=3)
        np.testing.assert_array_equal(model.projection.s, here.projection.s)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.communicate(timeout=60)


def both(kind, corpus, **options):
    """What a model learns on the cluster, and without one."""
    there, here = (kind(corpus, distributed=distributed, **options) for distributed in (True, False))
    if kind is LdaModel:
        return there.state.sstats, here.state.sstats
    return there.projection.s, here.projection.s


@pytest.mark.long
@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
def test_a_document_of_a_million_words(cluster, kind):
    size = 1_000_000
    long = scipy.sparse.csc_matrix((np.ones(size), np.arange(size), [0, size, size + 2][:2]), (size, 1))
    short = scipy.sparse.csc_matrix(([1.0, 2.0], ([0, 5], [0, 0])), (size, 1))
    options = {"random_state": 1, "iterations": 5, "eval_every": None} if kind is LdaModel else {}
    there, here = both(
        kind, scipy.sparse.hstack([long, short]).tocsc(), id2word=FakeDict(size), num_topics=2, **options
    )
    np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
def test_counts_of_a_thousand_million(cluster, kind):
    documents = [[(0, 10**9), (1, 3)], [(1, 10**9)], [(2, 1), (3, 10**9)]]
    options = {"random_state": 1, "eval_every": None} if kind is LdaModel else {}
    there, here = both(kind, documents, id2word=FakeDict(4), num_topics=2, chunksize=1, **options)
    np.testing.assert_array_equal(there, here)
    assert np.isfinite(there).all()


@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
@pytest.mark.long
def test_a_million_tiny_documents_in_a_chunk(cluster, kind):
    size = 1_000_000
    words = np.arange(size) % 7
    corpus = scipy.sparse.csc_matrix((np.ones(size), words, np.arange(size + 1)), (7, size))
    options = {"random_state": 1, "iterations": 3, "eval_every": None} if kind is LdaModel else {}
    there, here = both(kind, corpus, id2word=FakeDict(7), num_topics=2, chunksize=size, **options)
    np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
def test_chunks_of_one_document(cluster, lee_corpus, kind):
    options = {"random_state": 1, "eval_every": None} if kind is LdaModel else {}
    documents = lee_corpus.counts if kind is LdaModel else lee_corpus.tfidf
    there, here = both(
        kind, documents[:60], id2word=lee_corpus.dictionary, num_topics=3, chunksize=1, **options
    )
    np.testing.assert_array_equal(there, here)


@pytest.mark.long
@pytest.mark.parametrize("kind", [gensims.LdaModel, gensims.LsiModel])
def test_a_thousand_topics_of_half_a_million_terms(cluster, kind):
    """gensim's class gets its result in one message: it is told before anybody takes memory."""
    from .test_session_limits import dispatcher_object

    name = names.LSI_DISPATCHER if kind is gensims.LsiModel else names.LDA_DISPATCHER
    proxy = dispatcher_object(cluster, name)
    with pytest.raises(ValueError, match=r"500000 terms x 1000 topics.*distcorpus\.models"):
        proxy.initialize(id2word=FakeDict(500_000), num_topics=1000)
    proxy._pyroRelease()

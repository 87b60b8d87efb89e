"""What one program's claims, sessions and silence may cost: limits, and the others go on."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from gensim import models as gensims
from gensim.utils import FakeDict

from distcorpus import LdaModel, LocalCluster, LsiModel
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.dispatcher.limits import Limits, lda_bytes, lsi_bytes
from distcorpus.wire import abort, connect, find, lookup, names

from .conftest import wait_until

MB = 2**20


@contextmanager
def logged_cluster(folder, *options, n_workers=1):
    """A cluster, and the file of what its daemons log."""
    log = folder / "stderr"
    stderr = os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            cluster = LocalCluster(n_workers=n_workers, dispatcher_options=options)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    with cluster:
        yield cluster, log


def dispatcher_object(cluster, name):
    where = cluster.environ()
    nameserver = find(where["PYRO_NS_HOST"], int(where["PYRO_NS_PORT"]), broadcast=False)
    proxy = connect(lookup(nameserver, name), serializer="pickle" if "dispatcher" in name else "frames")
    nameserver._pyroRelease()
    return proxy


def resident(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def train(corpus):
    model = LsiModel(corpus.tfidf, id2word=corpus.dictionary, num_topics=5, chunksize=60, distributed=True)
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def sessions(cluster):
    return cluster.dispatcher.status()["sessions"]


LSI_TASK = {"num_terms": 100, "num_topics": 2}


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ({"num_terms": 10**9, "num_topics": 10}, "model may take"),
        ({"num_terms": 10**9, "num_topics": 10**9}, "model may take"),
        ({"num_terms": 10**5, "num_topics": 10**9, "power_iters": 2}, "model may take"),
        ({"num_terms": 10**5, "num_topics": 10, "power_iters": 2, "extra_samples": 10**9}, "model may take"),
        ({"num_terms": 10**12, "num_topics": 2}, "num_terms=1000000000000: give"),
        ({"num_terms": 100, "num_topics": 10**30}, r"num_topics=\.\.\.: give"),
        ({"num_terms": -1, "num_topics": 2}, "num_terms=-1: give"),
        ({"num_terms": 100, "num_topics": 0}, "num_topics=0: give"),
        ({"num_terms": "many", "num_topics": 2}, "num_terms is a str"),
        ({"num_terms": 1e9, "num_topics": 2}, "num_terms is a float"),
    ],
)
def test_claims(cluster, lee_corpus, task, error):
    proxy = dispatcher_object(cluster, names.LSI_MODELS)
    before = resident(cluster.dispatcher_pid)
    with pytest.raises((ValueError, TypeError), match=error):
        proxy.begin(task)
    assert resident(cluster.dispatcher_pid) - before < 64 * MB
    proxy.begin(LSI_TASK)  # the connection goes on
    proxy._pyroRelease()


@pytest.mark.parametrize("kind", [gensims.LsiModel, gensims.LdaModel])
@pytest.mark.parametrize(("num_terms", "num_topics"), [(10**9, 10), (10**3, 10**9)])
def test_claims_of_gensims_models(cluster, kind, num_terms, num_topics):
    name = names.LSI_DISPATCHER if kind is gensims.LsiModel else names.LDA_DISPATCHER
    proxy = dispatcher_object(cluster, name)
    with pytest.raises(ValueError, match="topics"):
        proxy.initialize(id2word=FakeDict(num_terms), num_topics=num_topics, chunksize=10)
    proxy._pyroRelease()


def test_more_sessions_than_there_may_be(tmp_path, lee_corpus):
    """A host has its limit, and all have one; what ends makes room."""
    with logged_cluster(tmp_path, "--max-sessions-of-host", "3") as (cluster, _), ExitStack() as stack:
        for _ in range(3):
            proxy = dispatcher_object(cluster, names.LSI_MODELS)
            stack.callback(abort, proxy)
            proxy.begin(LSI_TASK)
        with pytest.raises(RuntimeError, match=r"3 models of this host in training.*--max-sessions-of-host"):
            train(lee_corpus)
        stack.close()
        wait_until(lambda: not sessions(cluster), "the sessions' end")
        train(lee_corpus)


def test_limits_of_memory():
    limits = Limits(100 * MB, 256 * MB, sessions=8, sessions_of_host=4)
    with pytest.raises(ValueError, match=r"take 0\.98 GB.*--session-memory"):
        limits.admit("a", "host", 1000 * MB)
    limits.admit("a", "host", 90 * MB)
    limits.admit("a", "host", 95 * MB)  # another in its place
    limits.admit("b", "host", 100 * MB)
    with pytest.raises(RuntimeError, match=r"2 others have 0\.19 GB of the 0\.25 GB.*--total-memory"):
        limits.admit("c", "host", 90 * MB)
    limits.release("b")
    limits.admit("c", "host", 1)
    assert limits.has_room(0, 16 * MB)  # an eighth of the half
    assert limits.has_room(0, 32 * MB)  # of what is for all
    assert not limits.has_room(0, 34 * MB)
    limits.opened("c", lambda: 33 * MB)
    assert not limits.has_room(16 * MB, 1)
    assert limits.has_room(15 * MB, MB)
    limits.admit("d", "another", 1)
    limits.admit("e", "host", 1)
    limits.admit("f", "host", 1)
    with pytest.raises(RuntimeError, match=r"4 models of this host"):
        limits.admit("g", "host", 1)
    limits.admit("g", "host", 10**12, anyway=True)


def test_what_a_model_is_said_to_take():
    assert lsi_bytes(10**6, 100) >= 4 * 10**6 * 100
    assert lda_bytes(10**6, 100, 4) >= 10**8 * (4 + 8)
    assert lsi_bytes(0, 5) == 0


def sleeper(cluster, documents, num_terms):
    """A program that sends chunks until it has to wait, and says nothing any more."""
    proxy = dispatcher_object(cluster, names.LSI_MODELS)
    proxy.begin({"num_terms": num_terms, "num_topics": 2})
    for chunk in documents:
        proxy.put(chunk.indptr, chunk.indices, chunk.data)
    return proxy


@pytest.mark.long
def test_fifty_sleepers(tmp_path, lee_corpus):
    """They take bounded memory, others train meanwhile, and the dispatcher ends them and says so."""
    spool = tmp_path / "spool"
    options = ("--idle", "4", "--total-memory", "0.25", "--spool", str(spool))
    quiet_documents = [[(n % 5000, 1.0 + n % 7) for n in range(s, s + 400)] for s in range(0, 45_000, 30)]
    chunk = as_chunk([sorted(dict(document).items()) for document in quiet_documents], 5000, what="chunk")
    assert chunk.nbytes > 4 * MB
    with logged_cluster(tmp_path, *options) as (cluster, log):
        quiet = train(lee_corpus)
        before = resident(cluster.dispatcher_pid)
        sleepers = [sleeper(cluster, [chunk, chunk], 5000) for _ in range(50)]
        sent = 50 * 2 * chunk.nbytes
        assert sent > 384 * MB
        assert train(lee_corpus) == quiet
        wait_until(lambda: "--idle" in log.read_text(), "the first one's end")
        assert train(lee_corpus) == quiet
        wait_until(lambda: not sessions(cluster), "their end")
        lines = [line for line in log.read_text().splitlines() if "--idle" in line]
        assert len(lines) == 50
        assert all("called nothing for" in line and "of loopback" in line for line in lines)
        with pytest.raises(RuntimeError, match=r"called nothing for [0-9]+ s.*4 s \(--idle\): train again"):
            sleepers[0].put(chunk.indptr, chunk.indices, chunk.data)
        assert resident(cluster.dispatcher_pid) - before < 256 * MB
        assert train(lee_corpus) == quiet
        for proxy in sleepers:
            abort(proxy)
    assert not list(spool.glob("*"))


def test_who_calls_is_not_idle(tmp_path, lee_corpus):
    """Neither one that waits in a call, nor one that calls now and then."""
    with logged_cluster(tmp_path, "--idle", "1") as (_, log):
        began = time.monotonic()
        slow = (time.sleep(0.02) or document for document in lee_corpus.counts[:150])
        LdaModel(slow, id2word=lee_corpus.dictionary, num_topics=3, chunksize=10, distributed=True)
        assert time.monotonic() - began > 2
        assert "--idle" not in log.read_text()


@pytest.mark.parametrize("option", ["--session-memory", "--total-memory", "--max-sessions", "--idle"])
def test_options_that_cannot_be(option):
    from .test_cli import run

    done = run("dispatcher", option, "-1")
    assert done.returncode != 0
    assert option in done.stderr


def test_numbers_are_documented():
    table = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    for option in (
        "--session-memory",
        "--total-memory",
        "--max-sessions",
        "--max-sessions-of-host",
        "--idle",
    ):
        assert f"| `{option} " in table

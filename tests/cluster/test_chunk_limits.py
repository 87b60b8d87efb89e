"""Few bytes of documents are not much memory in the dispatcher, and many do not stop it."""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse
from gensim.models import LdaModel, LsiModel
from Pyro4.errors import SecurityError

import distcorpus.models
from distcorpus.wire import close, connect, lookup, names
from distcorpus.wire.nameserver import find

from .test_worker_limits import linux, peak

DOCUMENT = [(number % 4, 1) for number in range(100_000)]
ID2WORD = dict.fromkeys(range(4), "word")
NOTHING = np.empty(0)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value] * 1000
    return value


#: What arrives in few bytes, and why it is refused.
SMALL = {
    "rows of nothing": (np.zeros((25_000_000, 0)), "25000000 (documents|terms)"),
    "rows of no pairs": (np.zeros((25_000_000, 0, 2), np.float32), "25000000 (documents|terms)"),
    "one document, often": ([DOCUMENT] * 200, "200 documents"),
    "one array, often": ([np.array(DOCUMENT, np.float32)] * 2000, "2000 documents"),
    "an array without elements": ([np.zeros((1 << 40, 0))], "1 documents"),
    "columns of no row": (
        scipy.sparse.csr_matrix((NOTHING, np.empty(0, np.int64), np.zeros(5, np.int64)), shape=(4, 1 << 40)),
        "1099511627776 documents",
    ),
    "nested lists": ([nested(5)], "document 0 is not a bag of words"),
    "nested lists among arrays": ([np.zeros((1, 2)), nested(5)], "document 1 is not a bag of words"),
    "nested pairs": ([[(0, 1)], [(nested(4), 1)]], "document 1 is not a bag of words"),
}


def dispatcher_of(cluster):
    environ = cluster.environ()
    return lookup(
        find(environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"]), broadcast=False), names.DISPATCHER
    )


@contextmanager
def pinged(cluster, limit=0.5):
    """Another client's pings are answered within `limit` seconds meanwhile."""
    over, begun = threading.Event(), threading.Event()
    waited = []

    def ping():
        proxy = connect(dispatcher_of(cluster), timeout=60)
        while not over.wait(0.005):
            began = time.monotonic()
            proxy.ping()
            waited.append(time.monotonic() - began)
            begun.set()
        close(proxy)

    thread = threading.Thread(target=ping)
    thread.start()
    assert begun.wait(60)
    try:
        yield
    finally:
        over.set()
        thread.join()
    print(f"a ping took {max(waited):.3f} s at most, of {len(waited)}")
    assert max(waited) < limit


def model(kind):
    made = kind(id2word=ID2WORD, num_topics=2, distributed=True)
    made.dispatcher.reset(*([made.state] if kind is LdaModel else []))
    return made


@linux
@pytest.mark.parametrize("kind", [LdaModel, LsiModel])
@pytest.mark.parametrize("what", SMALL)
def test_small_message(cluster, kind, what):
    documents, reason = SMALL[what]
    assert len(pickle.dumps(documents)) < 1.2e6
    talking = model(kind)
    # By the reader of messages, or as a chunk.
    by_either = rf"refused a message of [\d,]+ bytes that would take more|chunk 0.*{reason}"
    refused = pytest.raises((TypeError, ValueError, SecurityError), match=by_either)
    with peak(cluster.dispatcher_pid, 100e6), pinged(cluster), refused as raised:
        talking.dispatcher.putjob(documents)
    # The session goes on, but for one whose message could not be read.
    if raised.type is SecurityError:
        talking = model(kind)
    talking.dispatcher.putjob([[(0, 1), (2, 3)]])
    talking.dispatcher.getstate()


def test_one_document_often_is_trained(cluster):
    """Where it is not too often."""
    documents = [DOCUMENT[:100]] * 2000
    talking = model(LdaModel)
    talking.dispatcher.putjob(documents)
    assert talking.dispatcher.getstate().numdocs == 2000


@pytest.mark.parametrize("kind", ["lists", "one document", "floats", "arrays", "matrix"])
@pytest.mark.long
def test_large_message_stops_nobody(cluster, kind):
    """A ping is answered while it is converted."""
    number = 3_000_000
    ids = np.arange(number) % 4
    if kind in ("lists", "floats"):
        value = 1 if kind == "lists" else np.float32(1)  # which the compiled reader does not know
        documents = [[(k, value) for k in range(4)] for _ in range(number // 16)]
    elif kind == "one document":
        documents = [list(zip(ids[: number // 3].tolist(), [1] * (number // 3), strict=True))]
    elif kind == "arrays":
        documents = [np.column_stack([ids[:100], ids[:100] + 1.0])] * 500 + [
            np.column_stack([ids, ids + 1.0])
        ]
    else:
        indptr = np.arange(0, number + 1, 4)
        documents = scipy.sparse.csc_matrix(
            (np.ones(number), ids[::-1].copy(), indptr), shape=(4, number // 4)
        )
    talking = model(LsiModel)
    with pinged(cluster):
        talking.dispatcher.putjob(documents)


@linux
@pytest.mark.parametrize("kind", [LsiModel, distcorpus.models.LsiModel])
@pytest.mark.parametrize("last", [2**30, 2**31 - 2])
def test_a_vocabulary_that_is_a_claim(cluster, kind, last):
    """One word, whose id makes the vocabulary larger than any memory."""
    refused = pytest.raises((ValueError, RuntimeError), match=rf"{last + 1} terms.* (GB|MB|GiB)")
    with peak(cluster.dispatcher_pid, 50e6), pinged(cluster), refused:
        kind([[(last, 1.0)]], id2word={last: "word"}, num_topics=50, distributed=True)

"""Models that are larger than a message: ours travel in slices, gensim's own are refused when they begin."""

from __future__ import annotations

import gensim.models
import numpy as np
import pytest
from Pyro4.configuration import config
from Pyro4.errors import SecurityError

from distcorpus import LocalCluster
from distcorpus.models import LdaModel, LsiModel
from distcorpus.wire import CommunicationError, close, connect, limit_messages, slices

from .test_worker_limits import linux, peak, uri_of, worker_of

TERMS, TOPICS = 6000, 60
ID2WORD = {number: f"w{number}" for number in range(TERMS)}
SMALL = ("--max-message", "1")
OURS = [LdaModel, LsiModel]


@pytest.fixture(scope="module")
def documents():
    random = np.random.default_rng(1)
    words = random.integers(0, TERMS, (400, 60))
    return [[(int(word), int(1 + word % 3)) for word in set(row)] for row in words]


@pytest.fixture(scope="module")
def small():
    """A cluster none of whose daemons sends or takes more than 1 MB."""
    with LocalCluster(0, dispatcher_options=SMALL) as cluster, worker_of(cluster, *SMALL, "--threads", "2"):
        yield cluster


def train(kind, documents, distributed=True, **options):
    common = {"id2word": ID2WORD, "num_topics": TOPICS, "distributed": distributed, "chunksize": 200}
    common["random_state" if issubclass(kind, gensim.models.LdaModel) else "random_seed"] = 1
    return kind(documents, **common, **options)


def result(model):
    if isinstance(model, gensim.models.LdaModel):
        return model.state.sstats.tobytes()
    return model.projection.u.tobytes() + model.projection.s.tobytes()


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("client", [1 << 20, 1 << 30], ids=["small client", "client"])
@pytest.mark.long
def test_ours_are_trained(small, cluster, documents, monkeypatch, kind, client):
    """To the same bytes; twice, so that what was learnt travels both ways; and evaluated."""
    environ = cluster.environ()
    conf = {"host": environ["PYRO_NS_HOST"], "port": int(environ["PYRO_NS_PORT"])}
    expected = train(kind, documents, ns_conf=conf)
    first = result(expected)
    (expected.update if kind is LdaModel else expected.add_documents)(documents[:200])
    monkeypatch.setattr(config, "MAX_MESSAGE_SIZE", client)
    model = train(kind, documents)
    assert result(model) == first
    assert len(first) > 1 << 20
    (model.update if kind is LdaModel else model.add_documents)(documents[:200])
    assert result(model) == result(expected)
    if kind is LdaModel:
        many = documents * 20
        there, here = (
            np.vstack(list(one.transform(many, chunksize=8000, distributed=distributed)))
            for one, distributed in ((model, True), (expected, False))
        )
        np.testing.assert_array_equal(there, here)
        assert there.nbytes > 1 << 20


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.long
def test_a_chunk_is_larger_than_half_a_message(small, documents, monkeypatch, kind):
    for name, value in small.environ().items():
        monkeypatch.setenv(name, value)
    model = train(kind, documents * 4, chunksize=1600, num_topics=5)
    assert result(model) == result(train(kind, documents * 4, False, chunksize=1600, num_topics=5))


@pytest.mark.parametrize("kind", [gensim.models.LdaModel, gensim.models.LsiModel])
def test_gensims_are_refused_when_they_begin(small, documents, monkeypatch, kind):
    for name, value in small.environ().items():
        monkeypatch.setenv(name, value)
    options = {"random_state": 1} if kind is gensim.models.LdaModel else {}
    common = {"id2word": ID2WORD, "distributed": True, "num_topics": TOPICS}
    with pytest.raises(
        Exception, match=r"6000 terms x 60 topics.*1\.4 MB.*1\.0 MB.*distcorpus.models.*--max-message"
    ):
        kind(**common, **options)
    assert not small.dispatcher.status()["sessions"]
    assert kind(documents, **{**common, "num_topics": 10}, **options).num_topics == 10


def test_gensims_of_float64_are_refused_at_the_first_chunk(small, documents, monkeypatch):
    for name, value in small.environ().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"30 topics of 8 bytes.*1\.4 MB"):
        gensim.models.LsiModel(documents, id2word=ID2WORD, num_topics=30, distributed=True)
    model = gensim.models.LdaModel(id2word=ID2WORD, num_topics=30, distributed=True, dtype=np.float64)
    with pytest.raises(CommunicationError, match=r"too large.*--max-message"):
        model.update(documents)


def test_slices_that_make_no_array(small):
    """Each is refused, and nothing of them stays."""
    proxy = connect(uri_of(small))
    proxy.agree(1 << 20)
    part = np.zeros(100, np.uint8)
    for bad in (
        (0, 200, 50, part),
        (0, 50, 0, part),
        (0, 1 << 60, 0, part),
        (-1, 100, 0, part),
        (0, 100.0, 0, part),
        (0, 100, 0, np.zeros(100, np.float32)),
        (0, 100, 0, np.zeros((10, 10), np.uint8)),
        (0, 100, 0, "x" * 100),
    ):
        with pytest.raises((TypeError, ValueError)):
            proxy.put_slice(*bad)
    marks = [
        (0, "O", (100,)),
        (0, "S100", (1,)),
        (0, "f8", (100,)),
        (0, "f4", (-25, -1)),
        (7, "f4", (25,)),
        (0,),
    ]
    for mark in marks:
        proxy.put_slice(0, 100, 0, part)
        with pytest.raises((TypeError, ValueError, KeyError)):
            proxy.process({slices.MARK: mark})
        close(proxy)
        proxy = connect(uri_of(small))
    with pytest.raises(KeyError):
        proxy.get_slice(0, 0, 10)
    close(proxy)


@linux
@pytest.mark.long
def test_a_claim_takes_no_memory(cluster):
    with worker_of(cluster) as pid:
        proxy = connect(uri_of(cluster))
        with peak(pid, 16e6):
            for number in range(10):
                proxy.put_slice(number, 100 << 20, 0, np.zeros(100, np.uint8))
        shared = [[]]
        for _ in range(8):
            shared = [shared] * 1000
        with pytest.raises(SecurityError, match="of memory"):  # for what it unfolds to
            proxy.process(shared)
        close(proxy)


@pytest.mark.parametrize("nbytes", [0, 1000, 2**31, 2**40])
def test_limits_that_cannot_be(nbytes):
    with pytest.raises(ValueError, match="give 1 to 2047"):
        limit_messages(nbytes)

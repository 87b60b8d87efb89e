"""Training runs go on, to the same bytes, while strangers attack every daemon of their cluster."""

from __future__ import annotations

import resource
import socket
import threading
from contextlib import ExitStack

import chaos
import pytest
import siege

from distcorpus import LocalCluster
from distcorpus.models import LdaModel
from distcorpus.wire import find, list_names, sockets


@pytest.fixture(scope="module")
def trainings(lee_corpus):
    return chaos.gensims(lee_corpus.dictionary, lee_corpus.counts, topics=50, chunksize=10, passes=20)


def daemons(cluster):
    return [cluster.dispatcher_pid, *(worker.pid for worker in cluster.workers)]


@pytest.mark.long
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096, reason="too few files for a thousand connections"
)
def test_trainings_go_on_under_siege(own_cluster, trainings, tmp_path):
    quiet = {model: train() for model, train in trainings.items()}
    before = daemons(own_cluster)
    witness = tmp_path / "witness"
    with siege.Siege(own_cluster, witness) as laid:
        besieged = {model: train() for model, train in trainings.items()}
        assert besieged == quiet
    print(laid.made)
    assert laid.made.keys() == siege.ATTACKS.keys()
    assert not witness.exists()
    assert daemons(own_cluster) == before
    assert {model: train() for model, train in trainings.items()} == quiet


class Corpus:
    """Documents, the second half of which comes when something has happened."""

    def __init__(self, documents, happened):
        self._documents = documents
        self._happened = happened
        self.half = threading.Event()

    def __len__(self):
        return len(self._documents)

    def __iter__(self):
        for number, document in enumerate(self._documents):
            if number == len(self._documents) // 2:
                self.half.set()
                assert self._happened.wait(120)
            yield document


@pytest.mark.long
def test_a_training_ends_when_no_connection_is_left(own_cluster, lee_corpus, tmp_path):
    def train(documents):
        options = {"num_topics": 20, "chunksize": 20, "update_every": 0, "random_state": 1}
        model = LdaModel(documents, id2word=lee_corpus.dictionary, distributed=True, **options)
        return model.get_topics().tobytes()

    quiet = train(lee_corpus.counts)
    exhausted = threading.Event()
    corpus = Corpus(lee_corpus.counts, exhausted)
    result = []
    thread = threading.Thread(target=lambda: result.append(train(corpus)))
    thread.start()
    assert corpus.half.wait(60)
    with siege.Siege(own_cluster, tmp_path / "witness", ["exhaustion"]) as laid:
        with pytest.raises(RuntimeError, match="no cluster"):
            train(lee_corpus.counts)
        exhausted.set()
        thread.join(120)
    assert laid.made
    assert result == [quiet]


@pytest.mark.long
def test_silent_peers_stop_no_training_with_tls(trainings):
    pytest.importorskip("cryptography")
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(1, tls=True))
        quiet = {model: train() for model, train in trainings.items()}
        environ = cluster.environ()
        nameserver = find(environ["PYRO_NS_HOST"], int(environ["PYRO_NS_PORT"]), broadcast=False)
        addresses = {uri.rpartition("@")[2] for uri in list_names(nameserver).values()}
        for address in addresses:
            for number in range(100):
                peer = stack.enter_context(socket.create_connection(sockets.parse_address(address)))
                peer.sendall(b"\x16\x03\x01"[: number % 4])  # the beginning of a handshake
        assert {model: train() for model, train in trainings.items()} == quiet

"""`dispatcher --spool DIR --resume`, killed and started again: our models go on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import gensim.models
import numpy as np
import pytest

from distcorpus import LdaModel, LocalCluster, LsiModel
from distcorpus.models import _cluster
from distcorpus.monitor.snapshot import Snapshot, from_message
from distcorpus.wire import CommunicationError, close, connect, find, lookup, names

from ..template import start
from .conftest import wait_until, when_collected
from .test_clients import alive
from .test_failures import Hooked
from .test_restart import Reached, StopsAt, train_lda, train_lsi
from .test_spool import disk


class ResumingCluster:
    """A cluster whose dispatcher is killed and started again at the same address."""

    def __init__(self, cluster, spool):
        self.cluster = cluster
        self.sessions = spool / "sessions"
        self._options = ("--bind-port", lookup(find(), names.DISPATCHER).rsplit(":", 1)[1])
        self._options += ("--spool", str(spool), "--resume")
        self._pid = cluster.dispatcher_pid
        self._process = None
        self.log = spool / "log"

    def kill(self, number=signal.SIGKILL):
        os.kill(self._pid, number)
        if self._process is not None:
            self._process.communicate()
        wait_until(lambda: not alive(self._pid), "the dispatcher's end")

    def start(self, *seconds):
        with open(self.log, "w") as log:
            self._process = start(
                [
                    sys.executable,
                    "-m",
                    "distcorpus",
                    "dispatcher",
                    "--no-broadcast",
                    *self._options,
                    *seconds,
                ],
                env={**os.environ, **self.cluster.environ("dispatcher")},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._pid = self._process.pid
        assert self._process.stdout.readline().startswith("distcorpus dispatcher")

    def killed_and_restarted(self, reached, train, end=signal.SIGKILL):
        """What a training comes to whose dispatcher ends at that point, and is started again."""
        with ThreadPoolExecutor(1) as client:
            training = client.submit(train)
            try:
                assert reached.there.wait(60)
                if end == "--replace":
                    former = self._process, self._pid
                    self._options = ("--bind-port", "0", *self._options[2:])
                    self.start("--replace")
                    wait_until(lambda: not alive(former[1]), "the end of the one that was replaced")
                else:
                    self.kill(end)
                    self.start()
            finally:
                reached.go_on.set()
            return training.result(timeout=90)

    def close(self):
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    spool = tmp_path_factory.mktemp("spool")
    with LocalCluster(2, dispatcher_options=("--spool", str(spool), "--resume")) as cluster:
        resuming = ResumingCluster(cluster, spool)
        yield resuming
        resuming.close()


@pytest.fixture
def resuming(shared):
    yield shared
    wait_until(lambda: not os.listdir(shared.sessions), "the removal of what the sessions kept")


@pytest.fixture
def sent(monkeypatch):
    """Counts the chunks that clients send and the sessions that they begin."""
    counter = Counter()
    submit = _cluster.Training._submit

    def counted(training, method, *arguments):
        counter[method] += 1
        return submit(training, method, *arguments)

    monkeypatch.setattr(_cluster.Training, "_submit", counted)
    return counter


def once(corpus, read):
    """A generator that counts in `read` what it gave."""
    for document in corpus:
        read["documents"] += 1
        yield document


def test_while_the_corpus_is_read(resuming, lee_corpus, sent):
    quiet = train_lda(lee_corpus, lee_corpus.counts)
    sent.clear()
    corpus = StopsAt(lee_corpus.counts, 250)
    assert resuming.killed_and_restarted(corpus, lambda: train_lda(lee_corpus, corpus)) == quiet
    # A session that goes on is not begun again; what was on the way when it was killed is sent twice.
    assert sent["begin"] == 1
    assert 6 <= sent["put"] <= 6 + 1 + _cluster.CHUNKS_SENT_AHEAD


def test_those_who_watch_are_told_its_earlier_name(resuming, lee_corpus):
    def look():
        proxy = connect(lookup(find(), names.DISPATCHER))
        try:
            return from_message(Snapshot, proxy.snapshot())
        finally:
            close(proxy)

    corpus = StopsAt(lee_corpus.counts, 250)
    with ThreadPoolExecutor(1) as client:
        training = client.submit(train_lda, lee_corpus, corpus)
        assert corpus.there.wait(60)
        (before,) = look().sessions
        resuming.kill()
        resuming.start()
        corpus.go_on.set()
        training.result(timeout=90)
    wait_until(lambda: look().ended, "its end")
    after = look()
    (end,) = after.ended
    assert (end.outcome, end.session.earlier) == ("finished", before.name)
    (told,) = [incident for incident in after.incidents if incident.kind == "session goes on"]
    assert told.session == end.session.name != before.name
    assert f"it was {before.name} before" in told.text


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, "--replace"])
@pytest.mark.parametrize("train", [train_lda, train_lsi])
@pytest.mark.long
def test_an_orderly_end_keeps_what_a_kill_keeps(resuming, lee_corpus, sent, train, end):
    """`systemctl restart` in mid-training: a corpus that is read once goes on to the same bytes."""
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    quiet = train(lee_corpus, documents)
    sent.clear()
    corpus, read = StopsAt(documents, 250), Counter()

    def once_read():
        return train(lee_corpus, once(corpus, read))

    assert resuming.killed_and_restarted(corpus, once_read, end) == quiet
    assert read["documents"] == 300
    assert sent["begin"] == 1


def test_an_orderly_end_while_the_program_waits(resuming, lee_corpus, sent):
    """In a call of it, workers being stopped: LDA goes on after its last update."""
    quiet = train_lda(lee_corpus, iter(lee_corpus.counts))
    sent.clear()
    updates = Updates(resuming.cluster, 5)
    observed = iter(lee_corpus.counts)
    train = resuming.killed_and_restarted(
        updates, lambda: train_lda(lee_corpus, observed, progress=updates), signal.SIGTERM
    )
    assert train == quiet
    assert sent["begin"] == 1
    assert updates.numbers[-1] == 12


def test_an_orderly_end_of_an_evaluation(resuming, lee_corpus):
    model = LdaModel(id2word=lee_corpus.dictionary, num_topics=5, random_state=1, distributed=True)
    before = model.random_state.get_state()
    quiet = list(model.transform(lee_corpus.counts, chunksize=10))
    model.random_state.set_state(before)
    corpus, read = StopsAt(lee_corpus.counts, 200), Counter()

    def evaluate():
        return list(model.transform(once(corpus, read), chunksize=10))

    np.testing.assert_array_equal(resuming.killed_and_restarted(corpus, evaluate, signal.SIGTERM), quiet)
    assert read["documents"] == 300


@pytest.mark.parametrize("train", [train_lda, train_lsi])
def test_stop_ends_the_trainings_and_keeps_nothing(tmp_path, lee_corpus, train):
    """`distcorpus stop` ends the cluster: programs are told at once, and do not wait for another one."""
    documents = lee_corpus.counts if train is train_lda else lee_corpus.tfidf
    with LocalCluster(1, dispatcher_options=("--spool", str(tmp_path), "--resume")) as cluster:

        def stop():
            assert os.listdir(tmp_path / "sessions")
            command = [sys.executable, "-m", "distcorpus", "stop", "--yes"]
            subprocess.run(command, env={**os.environ, **cluster.environ()}, check=True)
            wait_until(lambda: not alive(cluster.dispatcher_pid), "the dispatcher's end")

        with pytest.raises(RuntimeError, match=r"the dispatcher was told to end.*train again"):
            train(lee_corpus, Hooked(documents, 150, stop))
        assert os.listdir(tmp_path / "sessions") == []


class Updates(Reached):
    """An observer that stops the workers, and itself, at one update."""

    def __init__(self, cluster, at):
        super().__init__()
        self.numbers = []
        self._cluster, self._at = cluster, at

    def __call__(self, event):
        if event["kind"] == "update":
            self.numbers.append(event["updates"])
            if event["updates"] == self._at:
                self._signal(signal.SIGSTOP)
                self.stop()
                self._signal(signal.SIGCONT)

    def _signal(self, number):
        for worker in self._cluster.workers:
            os.kill(worker.pid, number)


@pytest.mark.parametrize("once_read", [False, True])
def test_killed_when_the_program_knows_of_the_end_and_has_not_fetched(
    resuming, lee_corpus, monkeypatch, once_read
):
    """What it fetches of the next dispatcher is the end too, and not what was saved on the way there."""

    def train():
        documents = lee_corpus.counts
        return train_lda(lee_corpus, iter(documents) if once_read else documents)

    quiet = train()
    follow, reached = _cluster.Training.follow, Reached()

    def follow_and_stop(training, *arguments):
        follow(training, *arguments)
        reached.stop()

    monkeypatch.setattr(_cluster.Training, "follow", follow_and_stop)
    assert resuming.killed_and_restarted(reached, train) == quiet


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.long
def test_lda_goes_on_after_its_last_update(resuming, lee_corpus, sent, passes):
    """Of a generator, and of a corpus that is read once: what is in the topics is neither sent nor computed
    again.
    """

    def train(corpus, progress=False):
        model = LdaModel(
            corpus,
            id2word=lee_corpus.dictionary,
            num_topics=10,
            chunksize=3,
            update_chunks=1,
            passes=passes,
            random_state=1,
            distributed=True,
            progress=progress,
        )
        return model.state.sstats.tobytes()

    documents = lee_corpus.counts
    quiet = train(iter(documents) if passes == 2 else documents)
    sent.clear()
    updates = Updates(resuming.cluster, 30)
    read = Counter()
    corpus = once(documents, read) if passes == 2 else documents
    assert resuming.killed_and_restarted(updates, lambda: train(corpus, updates)) == quiet
    assert sent["begin"] == 1
    assert sent["put"] <= 100 + 1 + _cluster.CHUNKS_SENT_AHEAD
    if passes == 2:
        assert read["documents"] == 300
    # Though updates are not saved each, and those after the last that was are made again.
    assert updates.numbers == list(range(1, 100 * passes + 1))


@pytest.mark.long
def test_lsi_of_added_documents(resuming, lee_corpus, sent):
    half = len(lee_corpus.tfidf) // 2

    def train(second):
        model = LsiModel(
            iter(lee_corpus.tfidf[:half]),
            id2word=lee_corpus.dictionary,
            num_topics=10,
            chunksize=50,
            distributed=True,
        )
        model.add_documents(second)
        return model.projection.u.tobytes() + model.projection.s.tobytes()

    quiet = train(lee_corpus.tfidf[half:])
    sent.clear()
    corpus, read = StopsAt(lee_corpus.tfidf[half:], 120), Counter()
    assert resuming.killed_and_restarted(corpus, lambda: train(once(corpus, read))) == quiet
    assert read["documents"] == half
    assert sent["begin"] == 2


class Paused(gensim.models.callbacks.Metric):
    """A metric that stops once, at the end of the second pass, and says what the model was like."""

    logger = None
    title = "statistics"

    def __init__(self, reached):
        self.reached = reached
        self.seen = []

    def __getstate__(self):  # a checkpoint holds the model's callbacks
        return {}

    def get_value(self, **arguments):
        if len(self.seen) == 1:
            self.reached.stop()
        statistics = arguments["model"].state.sstats.copy()
        self.seen.append(statistics)
        return float(statistics[0, 0])


def test_callbacks_see_each_pass_once(resuming, lee_corpus, tmp_path):
    """The dispatcher is killed while it waits for a callback."""

    def train(reached, checkpoint):
        metric = Paused(reached)
        options = {"callbacks": [metric], "checkpoint": str(checkpoint), "checkpoint_every": 3}
        result = train_lda(lee_corpus, iter(lee_corpus.counts), **options)
        return result, metric.seen

    nothing = Reached()
    nothing.go_on.set()
    quiet, seen = train(nothing, tmp_path / "quiet")
    reached = Reached()
    killed, seen_again = resuming.killed_and_restarted(reached, lambda: train(reached, tmp_path / "killed"))
    assert killed == quiet
    assert len(seen) == 4
    np.testing.assert_array_equal(seen_again, seen)


@pytest.mark.long
def test_killed_twice(resuming, lee_corpus, monkeypatch):
    """While the session begins, when nothing has been read, so that another one can begin; and later."""
    quiet = train_lsi(lee_corpus, lee_corpus.tfidf)
    corpus, read = StopsAt(lee_corpus.tfidf, 250), Counter()
    submit = _cluster.Training._submit

    def kill_first(training, method, *arguments):
        if method == "begin":
            monkeypatch.undo()
            resuming.kill()
            resuming.start()
        return submit(training, method, *arguments)

    monkeypatch.setattr(_cluster.Training, "_submit", kill_first)
    documents = once(corpus, read)
    assert resuming.killed_and_restarted(corpus, lambda: train_lsi(lee_corpus, documents)) == quiet
    assert read["documents"] == 300


def test_evaluation(resuming, lee_corpus):
    """Of a generator; it goes on with any dispatcher."""
    model = LdaModel(id2word=lee_corpus.dictionary, num_topics=5, random_state=1, distributed=True)
    before = model.random_state.get_state()
    quiet = list(model.transform(lee_corpus.counts, chunksize=10))
    model.random_state.set_state(before)
    corpus, read = StopsAt(lee_corpus.counts, 200), Counter()

    def evaluate():
        return list(model.transform(once(corpus, read), chunksize=10))

    np.testing.assert_array_equal(resuming.killed_and_restarted(corpus, evaluate), quiet)
    assert read["documents"] == 300


def abandoned(lee_corpus):
    """Begin a training whose program vanishes with its dispatcher."""
    with _cluster.Training(_cluster.Cluster().connect(names.LSI_MODELS)) as training:
        options = {"num_topics": 5, "base": None, "num_terms": len(lee_corpus.dictionary)}
        training.begin(options)
        yield training._token


@pytest.mark.long
def test_client_that_does_not_come_back(resuming, lee_corpus):
    program = abandoned(lee_corpus)
    token = next(program)
    assert os.listdir(resuming.sessions) == [token]
    resuming.kill()
    program.close()
    resuming.start("0.5")
    wait_until(lambda: not os.listdir(resuming.sessions), "the removal of the session")
    assert "its program did not come within 0.5 s" in resuming.log.read_text()


@pytest.mark.long
def test_damaged_session_is_set_aside(resuming, lee_corpus):
    """The program sends its corpus again."""
    quiet = train_lsi(lee_corpus, lee_corpus.tfidf)
    corpus = StopsAt(lee_corpus.tfidf, 250)
    with ThreadPoolExecutor(1) as client:
        training = client.submit(train_lsi, lee_corpus, corpus)
        assert corpus.there.wait(60)
        resuming.kill()
        [session] = resuming.sessions.iterdir()
        with open(session / "chunk-1", "r+b") as file:
            last = os.fstat(file.fileno()).st_size - 1
            byte = os.pread(file.fileno(), 1, last)
            os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), last)
        resuming.start()
        corpus.go_on.set()
        assert training.result(timeout=90) == quiet
    damaged = resuming.sessions / f"damaged-{session.name}"
    wait_until(lambda: os.listdir(resuming.sessions) == [damaged.name], "the end of the second session")
    assert resuming.log.read_text().count("chunk-1: it is not what was written. It is set aside as") == 1
    for file in damaged.iterdir():
        file.unlink()
    damaged.rmdir()


def test_full_disk(resuming, lee_corpus):
    with disk(resuming.sessions, "200k"):
        with pytest.raises(RuntimeError, match=r"chunk-\d cannot be written.*No space left.*--spool DIR"):
            train_lsi(lee_corpus, lee_corpus.tfidf)
        gone = when_collected(lambda: not os.listdir(resuming.sessions))
        wait_until(gone, "the removal of the session")
        train_lsi(lee_corpus, lee_corpus.tfidf[:60])


@pytest.mark.long
def test_unmodified_models_are_told(resuming, lee_corpus):
    """By the dispatcher that was started again: at once, if their program has PYRO_MAX_RETRIES=1."""
    models = []
    for retries in (0, 1):
        model = gensim.models.LsiModel(id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
        model.dispatcher._pyroMaxRetries = retries
        model.add_documents(lee_corpus.tfidf[:50])
        models.append(model)
    resuming.kill()
    resuming.start()
    with pytest.raises(CommunicationError):
        models[0].add_documents(lee_corpus.tfidf)
    message = r"no session.*dispatcher was killed and started again.*Train a new model.*--resume"
    for model in models:
        with pytest.raises(RuntimeError, match=message):
            model.add_documents(lee_corpus.tfidf)

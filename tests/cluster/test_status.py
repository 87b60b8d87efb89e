"""What people see of a cluster while it trains: the snapshot, `status`, `ping`, `stop` and the logs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import gensim
import pytest

from distcorpus import LocalCluster
from distcorpus.cli import main
from distcorpus.models import LdaModel, LsiModel
from distcorpus.monitor.metrics import as_text
from distcorpus.monitor.snapshot import Details, SessionView, Snapshot, WorkerView, from_message

from .conftest import wait_until


class Halting:
    """A corpus that does something when it has been read to some document, once."""

    def __init__(self, documents: list[Any], at: int, hook: Callable[[], None]) -> None:
        self._documents, self._at, self._hook = documents, at, hook

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[Any]:
        for number, document in enumerate(self._documents):
            if number == self._at and self._hook is not None:
                hook, self._hook = self._hook, None  # type: ignore[assignment]
                hook()
            yield document


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster, and a function that returns what it has logged."""
    path = tmp_path_factory.mktemp("log") / "log"
    stderr = os.dup(2)
    with open(path, "w") as file:
        os.dup2(file.fileno(), 2)  # which its processes inherit
    try:
        cluster = LocalCluster(2, verbose=True)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    with cluster:
        yield cluster, path.read_text


def look(cluster: LocalCluster, cursor: int | None = None) -> Snapshot:
    return from_message(Snapshot, cluster.dispatcher.snapshot(cursor))


def fresh(cluster: LocalCluster, ready: Callable[[Snapshot], Any], cursor: int | None = None) -> Snapshot:
    """A snapshot of which something is true."""
    found: list[Snapshot] = []

    def is_there() -> bool:
        found[:] = [look(cluster, cursor)]
        return bool(ready(found[0]))

    wait_until(is_there, "what is looked for")
    return found[0]


@pytest.fixture
def watched(log: Any) -> LocalCluster:
    """The cluster, where the sessions of the test before have ended."""
    fresh(log[0], lambda one: not one.sessions)
    return log[0]


def details(cluster: LocalCluster, session: str) -> Details:
    return from_message(Details, cluster.dispatcher.details(session))


def test_lda_in_mid_training(watched: LocalCluster, lee_corpus: Any, caplog: pytest.LogCaptureFixture):
    seen: list[tuple[SessionView, Details]] = []

    def hook() -> None:
        snapshot = fresh(
            watched, lambda one: any(view.updates == 2 and not view.jobs_under_way for view in one.sessions)
        )
        (session,) = snapshot.sessions
        seen.append((session, details(watched, session.name)))

    caplog.set_level("INFO", "gensim")  # so that the perplexity is estimated
    LdaModel(
        Halting(lee_corpus.counts, 101, hook),
        id2word=lee_corpus.dictionary,
        num_topics=7,
        chunksize=50,
        passes=2,
        eval_every=1,
        distributed=True,
    )
    ((session, detail),) = seen
    assert (session.kind, session.client, session.pid) == ("lda", "distcorpus", os.getpid())
    assert (session.topics, session.terms) == (7, len(lee_corpus.dictionary))
    assert (session.documents_arrived, session.documents_expected) == (100, 300)
    assert (session.documents_done, session.documents_to_do) == (100, 600)
    assert (session.pass_, session.passes, session.updates, session.updates_expected) == (0, 2, 2, 12)
    assert (session.phase, session.waits_for) == ("arriving", "the client")
    assert session.progress == pytest.approx(1 / 6)
    assert session.rate is not None
    assert session.seconds_left == pytest.approx(500 / session.rate, rel=0.5)
    assert session.perplexity is not None
    assert session.bytes_sent > 0
    assert session.bytes_received > 0
    assert session.max_queued == 10
    assert detail.history[-1].value == session.perplexity
    assert len(detail.topics) == 7
    for topic in detail.topics:
        assert len(topic.terms) == 15
        assert list(topic.values) == sorted(topic.values, reverse=True)
        assert 0 < sum(topic.values) < 1
    assert sum(topic.weight for topic in detail.topics) == pytest.approx(1)
    assert len({topic.weight for topic in detail.topics}) == 7  # of tokens, though all have the same alpha
    wait_until(lambda: not look(watched).sessions, "the end of the session")
    with pytest.raises(LookupError, match="has ended"):
        watched.dispatcher.details(session.name)


def test_how_sessions_ended(watched: LocalCluster, lee_corpus: Any):
    cursor = look(watched).cursor
    options = {"id2word": lee_corpus.dictionary, "num_topics": 5, "distributed": True}
    LdaModel(lee_corpus.counts, passes=3, chunksize=300, **options)
    LsiModel(lee_corpus.tfidf, **options)
    gensim.models.LdaModel(lee_corpus.counts, **options)

    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LdaModel(lee_corpus.counts, passes=300, chunksize=300, progress=interrupt, **options)
    ended = fresh(watched, lambda one: len(one.ended) == 4, cursor).ended
    lda, lsi, stock, interrupted = ended
    assert [one.outcome for one in ended] == ["finished", "finished", "finished", "interrupted"]
    last = lda.session
    assert (last.phase, last.updates, last.updates_expected, last.documents_done) == ("done", 3, 3, 900)
    assert (last.progress, last.waits_for) == (1.0, "")
    assert lsi.session.documents_done == lsi.session.documents_to_do
    assert stock.session.client == "gensim"
    assert stock.session.documents_done >= 300
    assert 1 <= (interrupted.session.updates or 0) < 300
    after = look(watched, cursor)
    texts = [incident.text for incident in after.incidents if incident.kind == "session ends"]
    assert texts == ["finished"] * 3 + ["its program was interrupted, or is gone"]
    assert not any(f'session="{one.session.name}"' in as_text(after).decode() for one in ended)


def test_lsi_in_mid_training(watched: LocalCluster, lee_corpus: Any):
    """Its views, one after the other: rounds, their estimated number, the error, the singular values."""
    ended = threading.Event()
    views: list[tuple[SessionView, Details]] = []

    def follow() -> None:
        while not ended.is_set():
            for view in look(watched).sessions:
                with contextlib.suppress(LookupError):  # it has ended
                    views.append((view, details(watched, view.name)))
            ended.wait(0.05)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        for _ in range(200):  # until there have been several looks at one
            model = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=60, distributed=True)
            if len(views) > 3:
                break
    finally:
        ended.set()
        follower.join()
    assert views
    for view, _ in views:
        assert (view.kind, view.terms) == ("lsi", len(lee_corpus.dictionary))
        assert view.rounds_expected is None or view.round is None or view.round <= view.rounds_expected
        assert view.progress is None or 0 <= view.progress <= 1
    assert len(model.projection.s) == 60


def test_topics_are_seen_in_words(watched: LocalCluster, lee_corpus: Any):
    """Also words with the end of a line in them or very many characters, numbers, and ids without a word."""
    ids = range(len(lee_corpus.dictionary))
    long = {number: f"{number}\n" + "x" * 100 for number in ids}
    for id2word, expected in (
        (lee_corpus.dictionary, lee_corpus.dictionary),
        (long, {number: word.replace("\n", " ")[:60] for number, word in long.items()}),
        (dict.fromkeys(ids, 7), dict.fromkeys(ids, "7")),
        ({max(ids): "last"}, {number: "last" if number == max(ids) else "" for number in ids}),
    ):
        seen: list[Details] = []

        def hook(seen: list[Details] = seen) -> None:
            snapshot = fresh(watched, lambda one: any(view.documents_arrived for view in one.sessions))
            seen.append(details(watched, snapshot.sessions[0].name))

        fresh(watched, lambda one: not one.sessions)
        corpus = Halting(lee_corpus.counts, 60, hook)
        LdaModel(corpus, id2word=id2word, num_topics=3, chunksize=20, distributed=True)
        for topic in seen[0].topics:
            assert topic.words == tuple(expected[term] for term in topic.terms)
        assert len(seen[0].topics) == 3


def test_gensim_s_own_models_are_seen(watched: LocalCluster, lee_corpus: Any):
    seen: list[tuple[SessionView, Details]] = []

    def hook() -> None:
        snapshot = fresh(watched, lambda one: any(view.documents_arrived for view in one.sessions))
        seen.append((snapshot.sessions[0], details(watched, snapshot.sessions[0].name)))

    gensim.models.LdaModel(
        Halting(lee_corpus.counts, 60, hook),
        id2word=lee_corpus.dictionary,
        num_topics=3,
        chunksize=20,
        update_every=0,
        distributed=True,
    )
    ((session, detail),) = seen
    assert (session.client, session.pid, session.topics) == ("gensim", None, 3)
    words = set(lee_corpus.dictionary.token2id)
    assert {word for topic in detail.topics for word in topic.words} <= words
    assert all(len(topic.words) == len(topic.terms) == 15 for topic in detail.topics)


def test_what_is_counted_agrees(watched: LocalCluster, lee_corpus: Any):
    before = fresh(watched, lambda one: not one.sessions)
    LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5, chunksize=50, distributed=True)
    after = fresh(
        watched, lambda one: any(event.kind == "session ends" for event in one.incidents), before.cursor
    )
    assert not after.missed
    assert not after.more
    numbers = sorted(event.number for event in (*after.jobs, *after.incidents))
    assert numbers == list(range(before.cursor + 1, after.cursor + 1))
    jobs = Counter(event.outcome for event in after.jobs)
    then, now = (Counter(one.totals.jobs.get("lsi", {})) for one in (before, after))
    assert now - then == jobs
    assert sum(event.documents for event in after.jobs if event.outcome == "accepted") == (
        after.totals.documents - before.totals.documents
    )
    assert sum(event.bytes_sent for event in after.jobs) == after.totals.bytes_sent - before.totals.bytes_sent
    assert sum(worker.jobs for worker in after.workers) == sum(
        outcomes["accepted"] for outcomes in after.totals.jobs.values()
    )
    for event in after.jobs:
        spent = event.queue_seconds + event.transfer_seconds + event.compute_seconds + event.sum_seconds
        assert spent <= event.ended - event.began + 0.05
    for worker in after.workers:
        assert worker.state == "ready"
        assert worker.busy is not None
        assert worker.busy + (worker.transfer or 0) + (worker.idle or 0) == pytest.approx(1)
        assert worker.bytes_resident is not None
        assert worker.bytes_resident > 50e6
        assert abs(worker.clock_offset or 0) < 1
        assert worker.versions["numpy"]
    kinds = [incident.kind for incident in after.incidents]
    assert kinds == ["session begins", "session ends"]


def run(*arguments: str, cluster: LocalCluster, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distcorpus", *arguments],
        env={**os.environ, **cluster.environ(), "COLUMNS": "140"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def where(cluster: LocalCluster) -> list[str]:
    host, port = cluster._nameserver
    return ["--host", host, "--port", str(port), "--no-broadcast"]


def test_status_and_stop_in_mid_training(
    log: Any, lee_corpus: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    cluster, _ = log
    said = {}
    monkeypatch.setenv("COLUMNS", "200")

    def hook() -> None:
        fresh(cluster, lambda one: any(view.updates == 2 for view in one.sessions))
        main(["status", *where(cluster)])
        said["status"] = capsys.readouterr().out
        main(["status", "--json", *where(cluster)])
        said["json"] = capsys.readouterr().out
        monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
        with pytest.raises(SystemExit) as exited:
            main(["stop", *where(cluster)])
        said["refused"] = f"{capsys.readouterr().out}{exited.value.code}"
        said["asked"] = stop_at_a_terminal(cluster, b"\n")

    LdaModel(
        Halting(lee_corpus.counts, 101, hook),
        id2word=lee_corpus.dictionary,
        num_topics=7,
        chunksize=50,
        passes=2,
        distributed=True,
    )
    assert "1 model in training or open" in said["status"]
    assert "LDA, 7 topics" in said["status"]
    assert "16 %" in said["status"]
    assert "waits for the client" in said["status"]
    assert "2 workers, 2 threads (ready: 2)" in said["status"]
    found = json.loads(said["json"])
    assert set(found) == {field.name for field in fields(Snapshot)}
    assert set(found["sessions"][0]) == {field.name for field in fields(SessionView)}
    assert set(found["workers"][0]) == {field.name for field in fields(WorkerView)}
    assert found["sessions"][0]["updates"] == 2
    for answer in (said["refused"], said["asked"][1]):
        assert "1 model is in training or open, and would be lost:" in answer
        assert "LDA, 7 topics" in answer
    assert "pass --yes" in said["refused"]
    assert "end them all? [y/N]" in said["asked"][1]
    assert "nothing is ended" in said["asked"][1]
    assert said["asked"][0] == 1
    assert cluster.dispatcher.ping() == "pong"


def stop_at_a_terminal(cluster: LocalCluster, answer: bytes) -> tuple[int, str]:
    """The exit status of `stop`, and what it said."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "distcorpus", "stop", *where(cluster)],
        env={**os.environ, **cluster.environ()},
        stdin=its,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.close(its)
    os.write(ours, answer)
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out.decode()


def test_probes(watched: LocalCluster, capsys: pytest.CaptureFixture[str]):
    there = where(watched)
    main(["ping", *there])
    main(["ping", "--workers", "2", *there])
    main(["ping", "nameserver", *there])
    main(["ping", "worker", "--name", watched.workers[0].name, *there])
    assert capsys.readouterr().out.count(" answers (") == 4
    for refused, why in (
        (["--workers", "3"], "2 workers that are ready, not 3"),
        (["worker", "--name", "nobody"], "knows no distcorpus.worker.nobody"),
        (["worker"], "--name"),
    ):
        with pytest.raises(SystemExit, match=why):
            main(["ping", *refused, *there])


def test_the_logs_tell_of_progress(log: Any, lee_corpus: Any, monkeypatch: pytest.MonkeyPatch):
    _, logged = log
    LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
    assert "first job: lsi of " in logged()
    assert " worker.daemon: training run lsi-" in logged().replace("distcorpus.", "")


def test_watch_and_its_end(watched: LocalCluster):
    """One look after the other as lines of JSON, until Ctrl-C, which is one line and exit status 130."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distcorpus", "status", "--json", "--watch", "0.1", *where(watched)],
        env={**os.environ, **watched.environ()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    looks = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert looks[1]["cursor"] >= looks[0]["cursor"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "distcorpus status: interrupted\n")


def test_a_worker_that_is_killed_is_seen(log: Any, watched: LocalCluster, lee_corpus: Any):
    """Last of all, as the cluster is not whole afterwards."""
    victim, cursor = watched.workers[0], look(watched).cursor
    expected = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=9, distributed=True)
    halting = Halting(lee_corpus.tfidf, 150, lambda: os.kill(victim.pid, signal.SIGKILL))
    model = LsiModel(halting, id2word=lee_corpus.dictionary, num_topics=9, chunksize=50, distributed=True)
    assert model.num_topics == expected.num_topics
    after = fresh(watched, lambda one: one.totals.workers_lost)
    lost = [incident for incident in look(watched, cursor).incidents if incident.kind == "worker lost"]
    assert [incident.worker for incident in lost] == [victim.name]
    assert "its jobs go to other workers" in lost[0].text
    assert after.totals.workers_lost == 1
    assert sum(worker.state == "ready" for worker in after.workers) == 1
    assert f"WARNING distcorpus.engines.pyro: worker {victim.name} is gone: it closed the conn" in log[1]()
    assert "distcorpus_workers_lost_total 1.0" in as_text(after).decode()
    assert 'distcorpus_workers{state="ready"} 1.0' in as_text(after).decode()
    result = run("status", cluster=watched)
    assert f"worker lost {victim.name}: it closed the connection" in result.stdout.replace("\n", " ")

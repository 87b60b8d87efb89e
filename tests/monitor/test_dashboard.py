"""The dashboard's server: who may look, and what it does with what it is told. Its pages: `test_browser`."""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import wait_until
from tests.monitor.telling import TellingCluster

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from distcorpus.cli import dashboard as command
from distcorpus.monitor.guard import HEADERS, new_token
from distcorpus.monitor.history import MOST_ENDED, MOST_JOBS, MOST_WORKERS, History
from distcorpus.monitor.poller import Poller
from distcorpus.monitor.snapshot import (
    Details,
    JobEvent,
    SessionEnd,
    SessionView,
    Snapshot,
    Topic,
    Totals,
    WorkerView,
)
from distcorpus.monitor.web import MOST_STREAMS, STATIC, Dashboard

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def cluster() -> Iterator[TellingCluster]:
    with TellingCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def served(cluster: TellingCluster) -> Iterator[Dashboard]:
    dashboard = Dashboard(Poller(cluster.location(), every=0.1), ("127.0.0.1", 0), hosts=["head.example"])
    yield dashboard
    dashboard.close()


@pytest.fixture(scope="module")
def token() -> str:
    return new_token()


@pytest.fixture(scope="module")
def guarded(cluster: TellingCluster, token: str) -> Iterator[Dashboard]:
    dashboard = Dashboard(Poller(cluster.location(), every=0.1), ("127.0.0.1", 0), token=token)
    yield dashboard
    dashboard.close()


def where(dashboard: Dashboard) -> tuple[str, int]:
    host, port = re.fullmatch(r"https?://(.+):(\d+)/", dashboard.address).groups()  # type: ignore[union-attr]
    return host, int(port)


def ask(
    dashboard: Dashboard, path: str = "/", method: str = "GET", **headers: str
) -> http.client.HTTPResponse:
    """Ask for something; the answer's body is read, as `body`."""
    connection = http.client.HTTPConnection(*where(dashboard), timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": "localhost", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


class Stream:
    """A page's stream of events."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.connection = http.client.HTTPConnection(*where(dashboard), timeout=20)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()

    def next(self, wanted: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """Return the next message that is wanted."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            line = self.answer.readline()
            if line.startswith(b"data: "):
                message: dict[str, Any] = json.loads(line[6:])
                if wanted(message):
                    return message
        pytest.fail("no such message")

    def close(self) -> None:
        # The answer keeps the socket open otherwise.
        self.answer.close()
        self.connection.close()


@pytest.mark.parametrize("path", ["/", "/static/views.js", "/health", "/details?session=x", "/nothing"])
def test_every_answer_says_what_a_page_may_do(served: Dashboard, path: str) -> None:
    answer = ask(served, path)
    for name, value in HEADERS.items():
        assert answer.getheader(name) == value
    policy = answer.getheader("content-security-policy") or ""
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    assert answer.getheader("server") is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8787", "[::1]:1", "192.168.1.9", "HEAD.example:80"])
def test_this_machine_is_called_by_its_names(served: Dashboard, host: str) -> None:
    assert ask(served, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8787",
        "",
        "[::1",
        "a@localhost.x",
        "127.0.0.1.x",
    ],
)
def test_a_page_of_another_name_is_refused(served: Dashboard, host: str) -> None:
    for path in ("/", "/events", "/details?session=x", "/static/live.js"):
        answer = ask(served, path, Host=host)
        assert answer.status == 421
        assert b"--name" in answer.body  # type: ignore[attr-defined]


def test_two_hosts_are_refused(served: Dashboard) -> None:
    with socket.create_connection(where(served)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert re.match(rb"HTTP/1.1 4\d\d", connection.recv(100))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1"])
def test_another_origin_is_refused(served: Dashboard, origin: str) -> None:
    assert ask(served, "/events", Origin=origin).status == 403
    assert ask(served, "/", Origin="http://localhost").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH"])
def test_it_only_looks(served: Dashboard, method: str) -> None:
    assert ask(served, "/", method).status == 405


@pytest.mark.parametrize(
    "path", ["/static/../web.py", "/static/%2e%2e/web.py", "/static//etc/passwd", "/static/..%2fguard.py"]
)
def test_only_static_files_are_served(served: Dashboard, path: str) -> None:
    answer = ask(served, path)
    assert answer.status == 404
    assert b"import" not in answer.body  # type: ignore[attr-defined]


def test_who_has_no_token_sees_nothing(guarded: Dashboard, token: str) -> None:
    for path in (
        "/",
        "/events",
        "/details?session=x",
        "/static/live.js",
        "/health",
        "/?token=wrong",
        "/?token=",
    ):
        answer = ask(guarded, path)
        assert answer.status == 401
        assert b"?token=" in answer.body  # type: ignore[attr-defined]
    assert ask(guarded, Authorization="Bearer wrong").status == 401
    assert ask(guarded, Authorization=f"Basic {token}").status == 401
    assert ask(guarded, Cookie="distcorpus-1=" + token).status == 401
    assert ask(guarded, Cookie="distcorpus=\xff;;=").status == 401
    assert ask(guarded, Authorization=f"Bearer {token}").status == 200


def test_a_token_goes_from_the_address_into_a_cookie(guarded: Dashboard, token: str) -> None:
    answer = ask(guarded, f"/?token={token}")
    assert (answer.status, answer.getheader("location")) == (303, "/")
    cookie = answer.getheader("set-cookie") or ""
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert ask(guarded, Cookie=cookie.partition(";")[0]).status == 200
    # Nobody is sent elsewhere.
    assert ask(guarded, f"//evil.example/?token={token}").getheader("location") == "/evil.example/"
    assert ask(guarded, f"/\r?token={token}".replace("\r", "%0d%0aX:y")).getheader("location") == "/"
    for path in (
        "/%5Cevil.example/",
        "/%5C%5Cevil.example/",
        "/%09/evil.example/",
        "/x/..%5C%5Cevil.example",
    ):
        assert ask(guarded, f"{path}?token={token}").getheader("location") == "/"


def test_an_address_of_many_fields_is_refused(served: Dashboard, guarded: Dashboard, token: str) -> None:
    many = "&".join(f"a{number}={number}" for number in range(25))
    for dashboard, address in (
        (served, f"/?{many}"),
        (guarded, f"/?{many}"),
        (guarded, f"/?{many}&token={token}"),
    ):
        answer = ask(dashboard, address)
        assert answer.status == 400
        assert answer.getheader("content-security-policy") is not None


def test_the_page_has_no_script_of_its_own_and_never_parses_html() -> None:
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?! src=)[^>]*>|\son\w+=|style=|https?:", page)
    for file in STATIC.glob("*.js"):
        source = file.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", source
        )
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)


def test_one_look_serves_all_who_watch(cluster: TellingCluster, served: Dashboard) -> None:
    streams = [Stream(served) for _ in range(10)]
    try:
        states = [stream.next(lambda message: message["kind"] == "state") for stream in streams]
        assert all(state["now"]["host"] == "h" for state in states)
        before = cluster.dispatcher.snapshots_asked
        for stream in streams:
            for _ in range(3):
                assert stream.next()["kind"] == "tick"
        assert cluster.dispatcher.snapshots_asked - before < 3 * 10
    finally:
        for stream in streams:
            stream.close()


def test_what_is_told_stays_text(cluster: TellingCluster, served: Dashboard) -> None:
    cluster.dispatcher.told = replace(
        cluster.dispatcher.told, workers=(WorkerView(name=SCRIPT, state="ready", reason="\u2028</script>"),)
    )
    stream = Stream(served)
    try:
        message = stream.next(lambda message: message.get("now", {}).get("workers"))
        assert message["now"]["workers"][0]["name"] == SCRIPT
        assert stream.answer.getheader("content-type", "").startswith("text/event-stream")
    finally:
        stream.close()


@pytest.mark.parametrize("lie", [7, {}, {"schema": 1}, {"time": float("nan")}, [1], "x"])
def test_a_lie_is_told_as_one_and_forgotten(cluster: TellingCluster, served: Dashboard, lie: Any) -> None:
    cluster.dispatcher.lie = lie
    stream = Stream(served)
    try:
        assert "refused" in stream.next(lambda message: message.get("problem"))["problem"]
        assert ask(served, "/health").status == 503
        cluster.dispatcher.lie = None
        assert stream.next(lambda message: message["kind"] == "tick")["now"]["host"] == "h"
        assert ask(served, "/health").status == 200
    finally:
        cluster.dispatcher.lie = None
        stream.close()


def test_metrics_are_what_prometheus_reads(served: Dashboard) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    deadline = time.monotonic() + 20
    while ask(served, "/health").status != 200 and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    answer = ask(served, "/metrics")
    assert answer.status == 200
    assert answer.getheader("content-type", "").startswith("text/plain; version=0.0.4")
    families = list(parser.text_string_to_metric_families(answer.body.decode()))  # type: ignore[attr-defined]
    assert any(family.name.startswith("distcorpus_") for family in families)


def test_a_dispatcher_that_comes_back_is_found(cluster: TellingCluster, served: Dashboard) -> None:
    stream = Stream(served)
    try:
        stream.next(lambda message: message.get("now"))
        cluster.dispatcher.told = replace(cluster.dispatcher.told, cursor=0)
        cluster.end()
        assert "answer" in stream.next(lambda message: message.get("problem"))["problem"]
        cluster.begin()
        cluster.dispatcher.told = replace(cluster.dispatcher.told, began=2.0, host="second")
        assert stream.next(lambda message: message["kind"] == "tick")["now"]["host"] == "second"
        assert 0 in cluster.dispatcher.cursors  # it tells of what happened before it was found
    finally:
        stream.close()


def test_a_session_is_looked_at_while_somebody_does(cluster: TellingCluster, served: Dashboard) -> None:
    telling = cluster.dispatcher
    telling.found = {"lda-1": Details(session="lda-1", time=1.0, topics=(Topic(0, 1.0, (2,), (0.5,)),))}
    telling.told = replace(telling.told, sessions=(SessionView(name="lda-1", kind="lda"),))
    deadline = time.monotonic() + 20
    found = None
    while found is None and time.monotonic() < deadline:
        found = json.loads(ask(served, "/details?session=lda-1").body)  # type: ignore[attr-defined]
        threading.Event().wait(0.05)
    assert found is not None
    assert found["topics"][0]["terms"] == [2]
    assert json.loads(ask(served, "/details?session=" + "x" * 5000).body) is None  # type: ignore[attr-defined]


def test_so_many_pages_and_no_more(served: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcorpus.monitor.web.MOST_STREAMS", 2)
    assert MOST_STREAMS > 2
    streams = [Stream(served) for _ in range(2)]
    try:
        for stream in streams:
            stream.next()
        assert ask(served, "/events").status == 503
    finally:
        for stream in streams:
            stream.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        stream = Stream(served)
        status = stream.answer.status
        stream.close()
        if status == 200:
            return
    pytest.fail("the places of those who left are not free again")


def test_who_asks_for_the_head_of_the_stream_takes_no_place(
    served: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distcorpus.monitor.web.MOST_STREAMS", 2)
    asking = [http.client.HTTPConnection(*where(served), timeout=20) for _ in range(4)]
    try:
        for connection in asking:
            connection.request("HEAD", "/events")
            assert connection.getresponse().status == 200
        stream = Stream(served)
        assert stream.answer.status == 200
        stream.close()
    finally:
        for connection in asking:
            connection.close()


def test_a_dispatcher_that_was_never_there_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "distcorpus.monitor.poller")
    monkeypatch.setattr("distcorpus.monitor.poller.PATIENCE", 0.0)

    def said(level: str, what: str) -> bool:
        return any(record.levelname == level and what in record.getMessage() for record in caplog.records)

    with TellingCluster() as cluster:
        cluster.end()
        poller = Poller(cluster.location(), every=0.05)
        try:
            wait_until(lambda: said("INFO", "waiting for a dispatcher: the name server"), "that it waits")
            assert not [record for record in caplog.records if record.levelname != "INFO"]
            cluster.begin()
            wait_until(lambda: poller.latest is not None, "the dispatcher")
            cluster.end()
            wait_until(lambda: said("WARNING", "knows no dispatcher"), "its loss")
        finally:
            poller.close()
            cluster.begin()


def test_over_https_the_cookie_is_for_https(
    cluster: TellingCluster, token: str, authority: Path, credentials: dict[str, Path]
) -> None:
    folder = credentials["nameserver"]
    dashboard = Dashboard(
        Poller(cluster.location()),
        ("127.0.0.1", 0),
        token=token,
        certificate=(str(folder / "cert.pem"), str(folder / "key.pem")),
    )
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        connection = http.client.HTTPSConnection(*where(dashboard), context=context, timeout=20)
        connection.request("GET", f"/?token={token}")
        answer = connection.getresponse()
        assert answer.status == 303
        assert "Secure" in (answer.getheader("set-cookie") or "")
        connection.close()
    finally:
        dashboard.close()


def test_history_is_bounded_and_forgets() -> None:
    history = History()
    event = JobEvent(1, 1.0, 2.0, "s", "w", 1, "lda", "accepted", 5, 1, 0.1, 0.2, 0.3, 0.4, 10, 20)
    workers = tuple(WorkerView(name=f"w{i}", state="ready") for i in range(2 * MOST_WORKERS))
    odd = WorkerView(name="zz", state="unreachable", reason="no answer")
    snapshot = Snapshot(schema=1, time=2.0, version="1", host="h", pid=1, began=1.0, workers=(*workers, odd))
    for number in range(12):
        history.add(replace(snapshot, time=2.0 + number, jobs=(event,) * 1000))
    state = history.state()
    assert len(state["jobs"]) == MOST_JOBS
    assert len(state["now"]["workers"]) == MOST_WORKERS
    assert state["now"]["workers"][0]["name"] == "zz"  # what needs looking at is told
    assert state["now"]["worker_states"] == {"ready": 2 * MOST_WORKERS, "unreachable": 1}
    history.add(replace(snapshot, time=5000.0))
    assert not history.state()["jobs"]
    assert len(history.state()["samples"]) == 1


def test_history_tells_how_sessions_ended() -> None:
    history = History()
    early = SessionView(name="lda-1", kind="lda", documents_done=3000)
    lost = SessionView(name="lda-2", kind="lda")
    first = Snapshot(
        schema=1, time=10.0, version="1", host="h", pid=1, began=1.0, sessions=(early, lost)
    )  # fmt: skip
    history.add(first)
    last = replace(early, documents_done=6000, phase="done")
    end = SessionEnd(number=3, time=10.4, outcome="finished", reason="", session=last)
    # It may still be among those that are open.
    told = history.add(replace(first, time=11.0, ended=(end,)))
    assert [session["name"] for session in told["now"]["sessions"]] == ["lda-2"]
    assert [(one["name"], one["outcome"], one["ended"], one["documents_done"]) for one in told["ended"]] == [
        ("lda-1", "finished", 10.4, 6000)
    ]
    # Its dispatcher was killed: nobody has told.
    history.add(replace(first, time=12.0, began=11.5, sessions=()))
    assert [(one["name"], one["outcome"]) for one in history.state()["ended"]] == [
        ("lda-1", "finished"),
        ("lda-2", "unknown"),
    ]
    evaluations = [
        replace(end, session=SessionView(name=f"evaluation-{number}", kind="evaluation"))
        for number in range(2 * MOST_ENDED)
    ]
    for number, evaluation in enumerate(evaluations):
        history.add(replace(first, time=13.0 + number, began=11.5, sessions=(), ended=(evaluation,)))
    kept = [one["name"] for one in history.state()["ended"]]
    assert len(kept) == MOST_ENDED
    assert kept[:2] == ["lda-1", "lda-2"]


def test_history_tells_rates_and_who_has_ended() -> None:
    history = History()
    session = SessionView(name="lda-1", kind="lda", chunks_queued=3)
    first = Snapshot(
        schema=1, time=10.0, version="1", host="h", pid=1, began=1.0, sessions=(session,),
        totals=Totals(bytes_sent=100, documents=10),
    )  # fmt: skip
    history.add(first)
    told = history.add(replace(first, time=12.0, sessions=(), totals=Totals(bytes_sent=500, documents=30)))
    assert (told["sample"]["sent"], told["sample"]["documents"]) == (200.0, 10.0)
    assert [(one["name"], one["ended"]) for one in told["ended"]] == [("lda-1", 12.0)]
    # The same look again, for there are more events than one snapshot has.
    assert history.add(history.latest)["sample"] is None
    assert [sample["sent"] for sample in history.state()["samples"]] == [0.0, 200.0]
    # Another dispatcher counts from the beginning.
    told = history.add(replace(first, time=13.0, began=12.5, totals=Totals(bytes_sent=7)))
    assert told["sample"]["sent"] == 0.0


@pytest.mark.parametrize("text", ["8787", "127.0.0.1", "127.0.0.1:", ":8787", "h:70000", "h:-1", "h:²"])
def test_an_address_is_an_address_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8787"):
        command.address(text)
    assert command.address("[::1]:80") == ("::1", 80)


def test_nothing_goes_beyond_this_machine_in_the_clear() -> None:
    options = argparse.Namespace(bind="0.0.0.0:1", certificate=None, insecure=False)
    with pytest.raises(ValueError, match="--certificate"):
        command.check_exposure(options, beyond=True)
    command.check_exposure(options, beyond=False)
    command.check_exposure(argparse.Namespace(**{**vars(options), "insecure": True}), beyond=True)
    command.check_exposure(argparse.Namespace(**{**vars(options), "certificate": ["a", "b"]}), beyond=True)


def test_words_are_read_from_a_dictionary_as_text(tmp_path: Path) -> None:
    from gensim.corpora import Dictionary

    dictionary = Dictionary([["human", "machine"], ["machine", SCRIPT]])
    dictionary.save_as_text(tmp_path / "words")
    assert command.read_words(str(tmp_path / "words")) == [dictionary[i] for i in range(len(dictionary))]
    (tmp_path / "bad").write_text("1\tx\n")
    with pytest.raises(ValueError, match="line 1"):
        command.read_words(str(tmp_path / "bad"))


def test_a_token_is_for_its_owner_alone(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token + "\n")
    file.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        command._read_token(str(file))
    file.chmod(0o600)
    assert command._read_token(str(file)) == token
    file.write_text("short")
    with pytest.raises(ValueError, match="16 or more"):
        command._read_token(str(file))


def test_a_token_in_the_place_of_its_file_is_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file") as raised:
        command._read_token(token)
    assert token not in str(raised.value)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    there, missing = tmp_path / "there.pem", tmp_path / "missing.pem"
    there.write_text("something else")
    with pytest.raises(ValueError, match=r"--certificate: .*missing\.pem: No such file"):
        command.check_certificate(str(there), str(missing))
    with pytest.raises(ValueError, match=r"--certificate: .*there\.pem, with the key"):
        command.check_certificate(str(there), str(there))


def test_the_address_that_is_printed_leads_somewhere() -> None:
    assert command.reachable("https://0.0.0.0:8787/", "alpha") == "https://alpha:8787/"
    assert command.reachable("http://[::]:8787/", "alpha") == "http://alpha:8787/"
    assert command.reachable("http://127.0.0.1:8787/", "alpha") == "http://127.0.0.1:8787/"

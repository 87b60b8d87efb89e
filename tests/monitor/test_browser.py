"""The dashboard in a real browser: ``pytest -m browser``, by playwright with Debian's chromium.

With ``DISTCORPUS_SCREENSHOTS=docs/images`` the pictures of the documentation are made on the way.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from distcorpus import LdaModel, LocalCluster, LsiModel, performance_report
from distcorpus.monitor.report import ReportData, write
from distcorpus.monitor.snapshot import (
    Details,
    Incident,
    JobEvent,
    Point,
    SessionEnd,
    SessionView,
    Snapshot,
    Topic,
    Totals,
    WorkerView,
)
from distcorpus.wire.location import NameServerLocation
from tests.engines.conftest import wait_until
from tests.monitor.telling import TellingCluster

playwright = pytest.importorskip("playwright.sync_api")
web = pytest.importorskip("distcorpus.monitor.web")
from distcorpus.monitor.poller import Looking, Poller  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>"
SWITCHES = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--host-resolver-rules=MAP evil.example 127.0.0.1"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser
        browser.close()


@pytest.fixture
def serving() -> Iterator[ExitStack]:
    """What is entered here ends when all pages are closed."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def telling(serving: ExitStack) -> TellingCluster:
    """A dispatcher that tells what it is told to."""
    return serving.enter_context(TellingCluster())


def dashboard(serving: ExitStack, location: NameServerLocation, **options: Any) -> str:
    """Serve a dashboard from this process; return its address."""
    served = web.Dashboard(Poller(location), ("127.0.0.1", 0), **options)
    serving.callback(served.close)
    return str(served.address)


@pytest.fixture
def open_page(browser: Any, serving: ExitStack) -> Iterator[Callable[..., Any]]:
    """Opens pages, on none of which anything may be wrong: no error, no violated policy, no dialog."""
    wrong: list[str] = []
    contexts = []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 760}, **options})
        contexts.append(context)
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error('policy: ' + event.blockedURI));"
        )
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.wrong = wrong
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[..., None]:
    folder = Path(os.environ.get("DISTCORPUS_SCREENSHOTS", tmp_path))

    def shoot(page: Any, name: str) -> None:
        page.mouse.move(0, 0)
        size = page.viewport_size
        height = min(page.evaluate("document.getElementById('page').offsetHeight"), size["height"])
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height}
        page.screenshot(path=folder / f"{name}.png", clip=clip)
        assert (folder / f"{name}.png").stat().st_size > 5000

    return shoot


class Stop(Exception):
    pass


class Training(threading.Thread):
    """Trains until it is told to stop."""

    def __init__(self, train: Callable[[Callable[[dict[str, Any]], None]], object]) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self._train = train
        self.start()

    def run(self) -> None:
        def check(event: dict[str, Any]) -> None:
            if self.stop.is_set():
                raise Stop

        try:
            while not self.stop.is_set():
                self._train(check)
        except Stop:
            pass

    def end(self) -> None:
        self.stop.set()
        self.join(100)
        assert not self.is_alive()


def until(page: Any, condition: str, what: str, timeout: float = 60.0) -> None:
    """Wait until a JavaScript expression is true."""
    deadline = time.monotonic() + timeout
    while not page.evaluate(f"!!({condition})"):  # its wait_for_function needs eval, which the policy forbids
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout:g} s; the page says {page.inner_text('body')[:1500]}")
        page.wait_for_timeout(50)


def session_after(began: float, kind: str, where: NameServerLocation) -> str:
    """Return the name of the first session of a kind that begins after a time."""

    def named() -> str | None:
        views = looking.snapshots()[-1].sessions
        return next((view.name for view in views if view.kind == kind and view.began >= began), None)

    with closing(Looking(where)) as looking:
        return str(wait_until(named, lambda: f"no session {kind} has begun"))


def test_a_training_is_watched_and_a_worker_killed(
    open_page: Callable[..., Any], serving: ExitStack, shoot: Callable[..., None], lee_corpus: Any
) -> None:
    logging.getLogger("gensim.models.ldamodel").setLevel(logging.INFO)  # so that it estimates perplexities
    documents, dictionary = lee_corpus.counts * 20, lee_corpus.dictionary
    cluster = serving.enter_context(LocalCluster(n_workers=3, dashboard=True))
    link = cluster.dashboard_link
    assert link is not None
    assert link in repr(cluster)
    where = NameServerLocation(*cluster._nameserver, broadcast=False)
    with_words = dashboard(serving, where, words=[dictionary[i] for i in range(len(dictionary))])
    lda = Training(
        lambda check: LdaModel(
            documents, id2word=dictionary, num_topics=12, passes=200, chunksize=500, eval_every=4,
            alpha="asymmetric", distributed=True, progress=check,
        )
    )  # fmt: skip
    serving.callback(lda.end)
    looked_at = threading.Event()  # an LSI takes a second: it waits with its open session until it is
    looked_at.set()

    def train_lsi(check: Callable[[dict[str, Any]], None]) -> None:
        def hold(event: dict[str, Any]) -> None:
            check(event)
            if event["kind"] == "round":
                looked_at.wait(100)

        LsiModel(
            lee_corpus.tfidf * 20, id2word=dictionary, num_topics=100, chunksize=500, distributed=True,
            progress=hold,
        )  # fmt: skip

    lsi = Training(train_lsi)
    serving.callback(lsi.end)

    page = open_page(link, color_scheme="light")
    until(page, "document.querySelector('article[data-key^=lda]:not(.over) progress[value]')", "a bar")
    name = page.locator("article.run:not(.over) .run-head a", has_text="lda").first.inner_text()
    bar = f"document.querySelector('article[data-key=\"{name}\"] progress')"
    first = page.evaluate(f"{bar}.value")
    until(page, f"{bar} && {bar}.value > {first} + 0.02", "the bar moves")
    assert page.locator("tbody tr", has_text="worker-").count() == 3
    if "DISTCORPUS_SCREENSHOTS" in os.environ:
        page.wait_for_timeout(8000)  # there is more to see then
    shoot(page, "dashboard-overview")

    victim = cluster.workers[1]
    os.kill(victim.pid, signal.SIGKILL)
    page.goto(f"{link}#/faults")
    happened = "document.querySelector('.incidents').innerText"
    until(page, f"{happened}.includes('{victim.name}') && {happened}.includes('worker lost')", "a loss")
    until(page, "+document.querySelector('.tile .value').innerText >= 1", "that it is counted")
    page.goto(f"{link}#/")
    until(page, "document.querySelector('.tile .value').innerText === '2'", "two workers are left")
    now = page.evaluate(f"{bar}.value")
    until(page, f"{bar} && {bar}.value > {now}", "the bar moves on")

    dark = open_page(f"{with_words}#/timeline", color_scheme="dark")
    drawn = "document.querySelectorAll('svg[data-chart=timeline] path.compute')"
    until(dark, f"[...{drawn}].map((path) => path.getAttribute('d')).join('').length > 200", "jobs are drawn")
    assert victim.name in dark.text_content("svg[data-chart=timeline]")
    shoot(dark, "dashboard-timeline")
    dark.locator("[data-action=window]").first.click()
    box = dark.locator("svg[data-chart=timeline]").bounding_box()
    dark.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 15)
    until(dark, "!document.getElementById('tip').hidden", "a tip")
    dark.goto(f"{with_words}#/traffic")
    until(dark, "document.querySelectorAll('path.line').length >= 6", "traffic is drawn")
    shoot(dark, "dashboard-traffic")

    page.goto(f"{with_words}#/session/{name}")
    until(page, "document.querySelectorAll('.topic .term').length >= 60", "topics")
    assert set(page.locator(".term .word").all_inner_texts()) <= set(dictionary.token2id)
    until(page, "document.querySelector('svg[data-chart=history]')", "perplexity over time")
    page.set_viewport_size({"width": 1180, "height": 1060})
    shoot(page, "dashboard-session")
    page.goto(f"{with_words}#/")
    lsi.end()
    looked_at.clear()
    held_since = time.time()
    lsi = Training(train_lsi)
    serving.callback(lsi.end)
    serving.callback(looked_at.set)
    held = session_after(held_since, "lsi", where)
    until(page, f"document.querySelector('article[data-key=\"{held}\"]:not(.over)')", "LSI")
    page.locator("article.run:not(.over) .run-head a", has_text=held).click()
    until(page, "document.querySelector('svg[data-chart=spectrum]')", "a spectrum")
    looked_at.set()

    phone = open_page(link, viewport={"width": 390, "height": 780}, color_scheme="dark", is_mobile=True)
    for at in ("timeline", "traffic", "faults", f"session/{name}", ""):
        phone.goto(f"{link}#/{at}")
        until(phone, "document.querySelector('main .card')", at)
        assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth"), at
    shoot(phone, "dashboard-phone")

    page.goto(f"{with_words}#/session/{name}")
    lsi.end()
    lda.end()
    until(page, "document.querySelector('main .left').innerText.includes('interrupted at')", "its end")


def test_a_dispatcher_is_killed_and_started_again(open_page: Callable[..., Any], serving: ExitStack) -> None:
    cluster = serving.enter_context(LocalCluster(n_workers=0, dashboard=True))
    page = open_page(cluster.dashboard_link)
    until(page, "document.querySelector('#connection .status.good')", "the dispatcher is seen")
    os.kill(cluster.dispatcher_pid, signal.SIGKILL)
    until(page, "document.querySelector('.banner')", "that nobody answers is said")
    again = subprocess.Popen(
        [sys.executable, "-m", "distcorpus", "dispatcher", "--no-broadcast"],
        env={**os.environ, **cluster.environ("dispatcher")},
        stdout=subprocess.PIPE,
    )
    try:
        until(page, f"document.querySelector('footer').innerText.includes('process {again.pid},')", "another")
        assert page.locator(".banner").count() == 0
    finally:
        again.terminate()
        again.communicate(timeout=60)


def hostile(cls: Any, **known: Any) -> Any:
    """A view whose every text is an attack."""
    texts = {field.name: ATTACK for field in fields(cls) if field.type in ("str", "str | None")}
    return cls(**{**texts, **known})


def test_what_is_told_is_text_on_every_page(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    now = time.time()
    job = JobEvent(1, now - 3, now - 1, *(ATTACK,) * 2, 1, ATTACK, "accepted", 5, 1, *(0.1,) * 4, 10, 20)
    told = telling.dispatcher
    told.told = replace(
        told.told,
        **dict.fromkeys(("version", "host", "location", "spool"), ATTACK),
        may_differ=(ATTACK,),
        sessions=(
            hostile(SessionView, kind=ATTACK),
            hostile(SessionView, name="plain", kind="lsi", phase="done"),
        ),
        workers=(
            hostile(WorkerView, versions={ATTACK: ATTACK}),
            hostile(WorkerView, name="__proto__", state="ready"),
        ),
        totals=Totals(jobs={ATTACK: {ATTACK: 1}, "__proto__": {"lost": 2}}, connections_refused={ATTACK: 1}),
        jobs=(job,),
        incidents=(
            Incident(2, now, *(ATTACK,) * 5),
            Incident(3, now, "k", "error", "__proto__", "", ATTACK),
        ),
    )
    topic = Topic(0, 0.5, (1, 2), (0.5, -0.25), (ATTACK, "__proto__"))
    for name in (ATTACK, "plain"):
        told.found[name] = Details(
            session=name,
            time=now,
            topics=(topic,),
            singular_values=(2.0, 1.0),
            history=(Point(now, 5, 0.5),),
        )
    address = dashboard(serving, telling.location())
    page = open_page(address)
    until(page, "document.querySelector('.run-head a')", "the session")
    for at in ("timeline", "traffic", "faults", "session/plain", "session/%E0%A4%A", "constructor/x", ""):
        page.goto(f"{address}#/{at}")
        until(page, "document.querySelector('main').children.length > 0", at)
        assert page.locator("body script, body img, iframe").count() == 0
    assert page.locator("td b", has_text=ATTACK).count() >= 1  # it is read as it is written
    page.locator(".run-head a", has_text="<script>").first.click()
    until(page, "document.querySelectorAll('.term').length === 2", "its topics")
    assert page.locator("h1", has_text=ATTACK).count() == 1
    assert page.locator("body script, body img, iframe").count() == 0
    assert page.wrong == []
    # Nor could the page parse HTML if it tried.
    with page.expect_console_message(lambda message: "policy: trusted-types" in message.text):
        assert page.evaluate(
            "() => { try { document.body.innerHTML = '<b>x</b>'; } catch { return true; } return false; }"
        )
    page.wrong.clear()


FIGURES = {
    "Format.seconds(119.6)": "2 min",
    "Format.seconds(3599.7)": "1 h",
    "Format.seconds(3540)": "59 min",
    "Format.seconds(99.6)": "1 min 40 s",
    "Format.seconds(0)": "0 s",
    "Format.percent(0.9996)": "99 %",
    "Format.percent(1)": "100 %",
    "Format.percent(0.29)": "29 %",
    "Format.number(0.001)": "0.00100",
    "Format.number(0.00123)": "0.00123",
    "Format.number(0.9996)": "1.00",
    "Format.number(0)": "0",
    "mark(Format.number(1e-3))": "0.001",
    "mark(Format.number(1e-4))": "1e-4",
    "mark(Format.number(100))": "100",
    "roundMarks(3000, 157000, 3).join()": "100000",
    "roundMarks(3000, 157000, 5).join()": "50000,100000,150000",
    "roundMarks(1, 3, 5).join()": "1,2,3",
    "shorten('worker-26865-1', 10)": "work…65-1",
    "waiting({ waits_for: 'no worker' })": "waits for a worker: there is none",
}


def test_figures_are_what_people_read(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    page = open_page(dashboard(serving, telling.location()))
    assert {expression: page.evaluate(expression) for expression in FIGURES} == FIGURES


def test_how_training_runs_ended_is_shown(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    now = time.time()
    lda = SessionView(
        name="lda-1", kind="lda", passes=20, pass_=19, updates=20, updates_expected=20, documents_done=6000
    )
    told = telling.dispatcher
    told.told = replace(
        told.told,
        began=now - 96,
        sessions=(SessionView(name="lda-9", kind="lda", earlier="lda-3"),),
        ended=(
            SessionEnd(number=1, time=now, outcome="finished", reason="", session=lda),
            SessionEnd(
                number=2, time=now, outcome="failed", reason="round 2: no", session=replace(lda, name="lda-2")
            ),
            SessionEnd(number=3, time=now, outcome="kept", reason="", session=replace(lda, name="lda-3")),
        ),
        incidents=(Incident(4, now - 3000, "session failed", "error", "", "lda-0", "long ago"),),
    )
    address = dashboard(serving, telling.location())
    page = open_page(address)
    until(page, "document.querySelector('article[data-key=lda-1]')", "the runs")
    finished = page.inner_text("article[data-key=lda-1]")
    assert "finished at " in finished
    assert "pass 20 of 20, update 20 of 20" in finished
    assert "6,000 documents computed" in finished
    failed = page.inner_text("article[data-key=lda-2]")
    assert "failed at " in failed
    assert "round 2: no" in failed
    assert "goes on as lda-9" in page.inner_text("article[data-key=lda-3]")
    assert page.locator(".badge").count() == 0  # for what was long ago
    assert re.search(r"up (9\d s|1 min \d+ s)", page.inner_text("footer"))
    page.goto(f"{address}#/session/lda-3")
    page.locator("main a", has_text="lda-9").click()
    until(
        page, "document.querySelector('main').innerText.includes('It was lda-3 before')", "where it is from"
    )
    page.goto(f"{address}#/session/lda-2")
    until(page, "document.querySelector('main .reason')", "the reason")
    told.told = replace(told.told, incidents=(Incident(5, now, "job failed", "error", "", "lda-9", "now"),))
    until(page, "document.querySelector('.badge')", "that something is wrong")


def test_the_timeline_is_as_busy_as_its_percentage(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    page = open_page(dashboard(serving, telling.location()))
    # A job of 10 ms every 100 ms for ten minutes: each pixel has several.
    painted = page.evaluate(
        """() => {
            const common = { worker: "w", session: "s", round: 1, kernel: "lda", outcome: "accepted",
                documents: 1, queue_seconds: 0, transfer_seconds: 0, compute_seconds: 0.01, sum_seconds: 0,
                bytes_sent: 1, bytes_received: 1 };
            const times = Array.from({ length: 6000 }, (_, i) => i / 10);
            const jobs = times.map((began) => ({ ...common, began, ended: began + 0.01 }));
            const drawn = timeline({ jobs, workers: ["w"], from: 0, to: 600, live: false, width: 1000 });
            const lane = +drawn.querySelector(".lane").getAttribute("width");
            let area = 0;
            for (const path of drawn.querySelectorAll("path.compute"))
                for (const [, wide] of path.getAttribute("d").matchAll(/h([\\d.]+)v/g))
                    area += wide * (path.getAttribute("fill-opacity") || 1);
            return [area / lane, drawn.querySelectorAll(".label")[1].textContent];
        }"""
    )
    assert painted[0] == pytest.approx(0.1, abs=0.03)
    assert re.fullmatch(r"(9\.\d|10) %", painted[1])


def test_long_names_of_workers_are_read(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    names = ("node000.cluster.example.org-20000", "<script>")
    told = telling.dispatcher
    told.told = replace(
        told.told,
        workers=tuple(
            WorkerView(
                name=name, state="ready", host=name, threads=2, busy=0.5, transfer=0.1, idle=0.4, job="lda-1"
            )
            for name in names
        ),
    )
    for width in (390, 1180):
        page = open_page(dashboard(serving, telling.location()), viewport={"width": width, "height": 780})
        until(page, "document.querySelector('td:first-child')", "the workers")
        for lines, name in ((2, names[0]), (1, names[1])):
            box = page.locator("td:first-child b", has_text=name).bounding_box()
            assert box["height"] < 24 * lines, (width, name)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_both_themes_and_the_switch(
    open_page: Callable[..., Any], serving: ExitStack, telling: TellingCluster
) -> None:
    light = "+getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128"
    address = dashboard(serving, telling.location())
    for scheme in ("light", "dark"):
        page = open_page(address, color_scheme=scheme)
        until(page, "document.querySelector('.tiles')", "the overview")
        assert page.evaluate(light) == (scheme == "light")
        page.click("#theme")
        assert page.evaluate(light) == (scheme == "dark")
        page.reload()
        until(page, "document.querySelector('.tiles')", "the overview")
        assert page.evaluate(light) == (scheme == "dark")


def test_other_pages_cannot_look(
    open_page: Callable[..., Any], browser: Any, serving: ExitStack, telling: TellingCluster
) -> None:
    token = "a-token-of-a-test-0123456789"
    asking, open_to_all = (dashboard(serving, telling.location(), token=it) for it in (token, None))
    page = open_page(f"{asking}?token={token}")
    until(page, "document.querySelector('#connection .status.good')", "the cluster is seen")
    assert token not in page.url
    # A name of somebody else's that leads here, which is what DNS rebinding makes.
    stranger = page.context.new_page()
    port = open_to_all.rstrip("/").rpartition(":")[2]
    assert stranger.goto(f"http://evil.example:{port}/").status == 421
    # A page elsewhere in the same browser reads nothing, with its cookie or without.
    stranger.goto("about:blank")
    for address in (open_to_all, asking):
        read = "(address) => fetch(address, {credentials: 'include'}).then(() => true, () => false)"
        assert stranger.evaluate(read, f"{address}details?session=x") is False


def test_a_report_is_read_without_a_server(
    open_page: Callable[..., Any], shoot: Callable[..., None], lee_corpus: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.html"
    with performance_report(path):
        LdaModel(lee_corpus.counts * 10, 10, lee_corpus.dictionary, passes=4, chunksize=500, eval_every=1)
        LsiModel(lee_corpus.tfidf * 10, 20, lee_corpus.dictionary)
    page = open_page(path.as_uri(), viewport={"width": 1180, "height": 1000})
    until(page, "document.querySelector('svg[data-chart=timeline] path.compute')", "jobs")
    assert page.locator("svg[data-chart^=curve]").count() == 1
    text = page.inner_text("main")
    assert "threads of this process" in text
    assert "products with the corpus" in text
    shoot(page, "report")
    phone = open_page(path.as_uri(), viewport={"width": 390, "height": 780}, color_scheme="dark")
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_report_of_a_cluster_has_its_runs_and_no_dead_links(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    done = SessionView(name="lda-1", kind="lda", documents_done=600, phase="done")
    snapshot = Snapshot(
        schema=1, time=2.0, version="1", host="h", pid=1, began=1.0,
        sessions=(SessionView(name="lda-2", kind="lda"),),
        ended=(SessionEnd(number=1, time=2.0, outcome="finished", reason="", session=done),),
        workers=(WorkerView(name="w1", state="ready", threads=1, jobs=3),),
        incidents=(Incident(1, 2.0, "session ends", "info", "", "lda-1", "finished"),),
    )  # fmt: skip
    report = ReportData("run", 1.0, {})
    report.add_snapshot(snapshot)
    report.add_snapshot(replace(snapshot, time=3.0, workers=(), ended=(), incidents=()))
    write(str(tmp_path / "run.html"), report.page(4.0))
    page = open_page((tmp_path / "run.html").as_uri())
    until(page, "document.querySelector('article[data-key=lda-1]')", "the runs")
    assert "finished at" in page.inner_text("article[data-key=lda-1]")
    assert "under way at" in page.inner_text("article[data-key=lda-2]")
    assert "gone" in page.inner_text("tr[data-key=w1]")
    assert page.locator("a[href]").count() == 0

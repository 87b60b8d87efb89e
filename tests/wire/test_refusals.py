"""Who is refused much is answered late, and nobody else is."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress

import fuzzgrammar
import pytest
from Pyro4.constants import DAEMON_NAME
from Pyro4.errors import PyroError

from distcorpus.wire import connect, refusals, sockets
from distcorpus.wire.daemon import Daemon
from distcorpus.wire.refusals import FREE_SECONDS, LONGEST_SECONDS, Refusals

from .conftest import Peer, wait_until

SHARE = 0.02


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def pause(one, peer, seconds):
    with one.refusing(peer, seconds) as pause:
        return pause


def test_mistakes_are_told_of_at_once_and_a_flood_is_not():
    one = Refusals(SHARE, Clock())
    assert pause(one, "a", FREE_SECONDS / 2) == pause(one, "a", FREE_SECONDS / 2) == 0.0
    assert pause(one, "a", 0.01) == pytest.approx(0.01 / SHARE)
    assert pause(one, "a", 100.0) == LONGEST_SECONDS
    assert pause(one, "b", 0.01) == 0.0, "another host's messages are its own"


def test_a_host_is_forgiven_with_time():
    clock = Clock()
    one = Refusals(SHARE, clock)
    pause(one, "a", FREE_SECONDS)
    clock.now += 0.01 / SHARE
    assert pause(one, "a", 0.0099) == 0.0
    assert pause(one, "a", 0.0099) > 0.0


def test_many_connections_get_no_more_than_one():
    one = Refusals(SHARE, Clock())
    pause(one, "a", FREE_SECONDS)
    with ExitStack() as stack:
        pauses = [stack.enter_context(one.refusing("a", 0.001)) for _ in range(20)]
    assert pauses == pytest.approx([0.001 / SHARE * number for number in range(1, 21)])
    assert pause(one, "a", 0.001) == pytest.approx(0.001 / SHARE), "those have been answered"


def test_hosts_are_not_remembered_without_end():
    one = Refusals(SHARE, Clock())
    for number in range(1100):
        pause(one, str(number), 1.0)
    assert len(one._left) <= 1024


@pytest.mark.parametrize("said", ["0", "-1", "nan", "much"])
def test_a_share_that_cannot_be(monkeypatch, said):
    monkeypatch.setenv(refusals.VARIABLE, said)
    with pytest.raises(ValueError, match=f"{refusals.VARIABLE}='{said}': give a share of a core"):
        Refusals()


@pytest.fixture
def daemon(monkeypatch):
    monkeypatch.delenv(refusals.VARIABLE)
    monkeypatch.setattr(refusals, "FREE_SECONDS", 0.05)
    daemon = Daemon()
    daemon.start()
    yield daemon
    daemon.stop()


def message():
    """A call that takes some milliseconds to refuse."""
    return fuzzgrammar.call(DAEMON_NAME, "get_metadata", fuzzgrammar.many(20_000, b"", b"]"))


def test_a_flood_of_refused_messages_takes_little_and_others_do_not_wait(daemon):
    """Eight attackers, who would take all that this process gets of the machine."""
    peers = [Peer("127.0.0.1", daemon.port) for _ in range(8)]
    answers = []

    def flood(peer):
        with suppress(OSError, PyroError):
            peer.shake_hands(DAEMON_NAME)
            while True:
                answers.append(peer.ask(message()))

    threads = [threading.Thread(target=flood, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    wait_until(lambda: any(one.waiting for one in list(daemon.transportServer._threads)))
    honest = connect(f"PYRO:{DAEMON_NAME}@127.0.0.1:{daemon.port}", timeout=30.0)
    before = len(answers)
    for _ in range(50):
        honest.ping()
        threading.Event().wait(0.02)
    during = len(answers) - before
    for peer in peers:
        sockets.shut(peer.sock)
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive()
    assert all(isinstance(answer, TypeError) for answer in answers)
    # Without a limit they would have had all of the processor, and several for each of the 50 pings.
    assert during < 50


def test_the_end_of_a_daemon_waits_for_no_refusal(daemon):
    peer = Peer("127.0.0.1", daemon.port)
    peer.shake_hands(DAEMON_NAME)

    def ask():
        with suppress(OSError, PyroError):
            while True:
                peer.ask(message())

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: any(one.waiting for one in list(daemon.transportServer._threads)))
    began = time.monotonic()
    daemon.stop(grace=0.1)
    assert time.monotonic() - began < 5.0
    thread.join(30.0)
    assert not thread.is_alive()

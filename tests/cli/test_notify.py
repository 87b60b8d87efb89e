"""What daemons tell systemd, as sd_notify(3) has it: when they are ready, and when they end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from distcorpus.cli.service import notify


@pytest.fixture
def manager(tmp_path):
    """Where a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(200)
        channel.bind(str(tmp_path / "notify"))
        yield channel


def run(*arguments, at):
    return subprocess.Popen(
        [sys.executable, "-m", "distcorpus", *arguments],
        env={**os.environ, "NOTIFY_SOCKET": at},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_a_head_and_several_workers(manager, tmp_path):
    """The workers are ready when all are; none of them speaks for itself."""
    path = str(tmp_path / "address")
    with run("head", "--port", "0", "--address-file", path, at=manager.getsockname()) as head:
        assert manager.recv(100) == b"READY=1"
        with run("worker", "--workers", "2", "--address-file", path, at=manager.getsockname()) as workers:
            assert manager.recv(100) == b"READY=1"
            workers.terminate()
            workers.communicate()
        assert workers.returncode == 0
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        manager.settimeout(60)
        head.terminate()
        assert manager.recv(100) == b"STOPPING=1"
    assert head.returncode == 0


def test_an_abstract_address_and_nobody_there(tmp_path, monkeypatch, caplog):
    name = f"distcorpus-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("READY=1")
        assert channel.recv(100) == b"READY=1"
    notify("READY=1")
    assert "cannot tell systemd" in caplog.text
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")

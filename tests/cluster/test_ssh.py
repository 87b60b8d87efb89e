"""``distcorpus ssh`` with OpenSSH's server on this machine; over several hosts in `test_hosts`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from distcorpus.cli import node
from distcorpus.cli.ssh import _facts, _hosts
from distcorpus.wire import certificates

from . import sshd
from .conftest import wait_until
from .test_scripts import free_port

PROGRAM = """
from distcorpus import LdaModel
from gensim.test.utils import common_corpus, common_dictionary
print(LdaModel(common_corpus, id2word=common_dictionary, num_topics=2, distributed=True).state.numdocs)
"""

needs_sshd = pytest.mark.skipif(sshd.missing, reason="no OpenSSH server on this machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Options that lead ``distcorpus ssh`` to a server on loopback."""
    keys, port = sshd.Keys(tmp_path_factory.mktemp("ssh")), free_port()
    with subprocess.Popen(keys.server("127.0.0.1", port), stderr=subprocess.DEVNULL) as process:

        def answers():
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True

        wait_until(answers, "the start of the server")
        yield keys.options(port)
        process.terminate()


def start(server, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "distcorpus", "ssh", "127.0.0.1", *server, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if text in line:
            return lines
    pytest.fail("\n".join([*lines, process.stderr.read()]))


def variables(process):
    line = read_until(process, "    export ")[-1]
    return dict(word.split("=", 1) for word in line.split()[1:])


def processes_of(port):
    """Processes that have the name server's port in their command line, but for the command's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if str(port).encode() in words and b"ssh" not in words:
                found.append(words)
    return found


@pytest.mark.long
@needs_sshd
def test_a_cluster_with_tls_that_ends_with_the_command(server, tmp_path):
    """Programs find it, its output has the hosts' names, and nothing of it stays."""
    port = free_port()
    with start(server, "--tls", "--threads", "1", "--port", str(port), "-v") as command:
        lines = read_until(command, "the cluster is complete: 1 worker on 1 host")
        assert any(line.startswith("[head] distcorpus dispatcher") for line in lines)
        assert any(line.startswith("[127.0.0.1] distcorpus worker 127.0.0.1 ") for line in lines)
        assert sum("TLS with a certificate until" in line for line in lines) == 2
        where = variables(command)
        folder = Path(where["DISTCORPUS_TLS"])
        assert folder.parent.stat().st_mode & 0o077 == 0
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **where},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "9"
        assert len(processes_of(port)) >= 2
        command.send_signal(signal.SIGINT)
        errors = command.communicate(timeout=150)[1]
    assert command.returncode == 0, errors
    assert not folder.exists()
    assert processes_of(port) == []
    assert "[127.0.0.1] " in errors


def test_a_cluster_that_is_stopped_ends_the_command(tmp_path, monkeypatch):
    """With what runs here in the place of ssh."""
    pretended = tmp_path / "ssh"
    pretended.write_text(
        '#!/bin/sh\nexport SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22"\n'
        'for last; do :; done\nexec sh -c "$last"\n'
    )
    pretended.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with start([], "--insecure", "--threads", "1", "--port", str(free_port())) as command:
        where = variables(command)
        stop = [sys.executable, "-m", "distcorpus", "stop", "--yes"]
        subprocess.run(stop, env={**os.environ, **where}, check=True, capture_output=True)
        out, errors = command.communicate(timeout=150)
    assert (command.returncode, errors) == (0, "")
    own = [line for line in out.splitlines() if not line.startswith(("[", "Ctrl-C ends it"))]
    assert own == ["the cluster was told to end, and has ended"]


@needs_sshd
def test_nothing_stays_when_the_command_is_killed(server):
    port = free_port()
    options = ["--insecure", "--remote-head", "--threads", "1", "--port", str(port)]
    with start(server, *options) as command:
        read_until(command, "the cluster is complete")
        command.kill()
    wait_until(lambda: processes_of(port) == [], "the end of the cluster", 150)


@pytest.mark.long
@needs_sshd
@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--python", "/nowhere/python"], "127.0.0.1: ended with exit code 127, see above"),
        (["-o", "User=nobody-of-this-name"], "127.0.0.1: ssh could not connect"),
        (["--head-options=--nonsense"], "head: ended with exit code 2, see above"),
        (["--worker-options=--threads 0"], "127.0.0.1: ended with exit code 2, see above"),
    ],
)
def test_what_does_not_start_is_one_clear_error(server, options, error):
    with start(server, "--insecure", "--port", str(free_port()), *options) as command:
        errors = command.communicate(timeout=100)[1]
    assert command.returncode == 1
    assert error in errors
    assert "Traceback" not in errors


def test_a_node_that_hears_nothing_ends_what_it_runs(monkeypatch):
    """Where the cable is pulled, no end of the input arrives."""
    monkeypatch.setattr(node, "SILENCE", 0.05)
    here, there = os.pipe()
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        os.write(there, b"\n")
        node._watch(here, pipe)
        assert pipe.closed
    assert os.read(read, 1) == b""
    for descriptor in (here, there, read):
        os.close(descriptor)


def test_a_node_keeps_what_it_is_given_to_itself(tmp_path, authority):
    """Certificates lie in a private folder while it runs, and nowhere afterwards."""
    folder = certificates.issue(authority, "nameserver", ["127.0.0.1"])
    order = {
        "arguments": ["nameserver", "--port", "0", "--tls", node.CERTIFICATES + "/nameserver"],
        "files": {f"nameserver/{file.name}": file.read_text() for file in folder.iterdir()},
    }
    with subprocess.Popen(
        [sys.executable, "-m", "distcorpus.cli.node"],
        env={**os.environ, "TMPDIR": str(tmp_path), "SSH_CONNECTION": "10.0.0.1 1234 10.0.0.2 22"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        hello = _facts(json.loads(process.stdout.readline().removeprefix(node.HELLO)))
        assert (hello["seen_from"], hello["address"]) == ("10.0.0.1", "10.0.0.2")
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        assert "TLS with a certificate" in [process.stdout.readline() for _ in range(3)][1]
        (private,) = tmp_path.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        assert (private / "nameserver" / "key.pem").stat().st_mode & 0o777 == 0o600
        process.stdin.close()
        process.stdin = None
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_hosts_and_a_file_of_them(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("# ours\nnode1\n\n  ada@node2  # with a user\n")
    assert _hosts(["node0"], str(file)) == {"node0": "node0", "node1": "node1", "node2": "ada@node2"}


@pytest.mark.parametrize("hosts", [[], ["-oProxyCommand=true"], ["a b"], ["ada@"], ["node1", "ada@node1"]])
def test_what_are_no_hosts(hosts):
    with pytest.raises(ValueError, match="host"):
        _hosts(hosts, None)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"version": "0.1.0", "cores": "2", "seen_from": None, "address": None},
        {"version": 1, "cores": 2, "seen_from": None, "address": None},
        {"version": "0.1.0", "cores": 2, "seen_from": 7, "address": None},
        {"version": "0.1.0", "cores": True, "seen_from": None, "address": None},
    ],
)
def test_what_no_node_says(said):
    with pytest.raises(ValueError, match="something else"):
        _facts(said)


@pytest.mark.parametrize("options", [[], ["--tls", "--insecure"]])
def test_senseless_options(options):
    command = [sys.executable, "-m", "distcorpus", "ssh", "127.0.0.1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "--tls" in done.stderr

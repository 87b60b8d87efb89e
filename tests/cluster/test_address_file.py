"""A file that says where the name server is: who writes it, who reads it, and when it is of no use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from gensim.test.utils import common_corpus, common_dictionary
from Pyro4.errors import NamingError

from distcorpus import LdaModel, LocalCluster
from distcorpus.wire import addressfile, find, list_names, names
from distcorpus.wire.nameserver import NameServerDaemon

from .conftest import wait_until
from .test_scripts import free_port


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "distcorpus", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head and a worker that find each other by a file; what the file is called."""
    path = tmp_path_factory.mktemp("shared") / "cluster.json"
    worker = start("worker", "--name", "a", "--until-eof", "--address-file", str(path))
    head = start("head", "--port", "0", "--until-eof", "--address-file", str(path))
    try:
        wait_until(path.exists, "the writing of the file")
        lines = [head.stdout.readline() for _ in range(4)]
        assert lines[0].startswith("distcorpus head: the name server listens on 127.0.0.1:")
        assert lines[1].startswith("distcorpus dispatcher")
        assert lines[0].split()[-1] in lines[2]
        wait_until(
            lambda: names.worker("a") in list_names(find(address_file=str(path))), "the worker's joining", 200
        )
        yield path
        for process in (worker, head):
            process.send_signal(signal.SIGTERM)
        for process in (worker, head):
            assert process.wait(30) == 0
        assert not path.exists()
    finally:
        for process in (worker, head):
            process.kill()
            process.communicate()


@pytest.mark.long
def test_models_find_it_by_ns_conf_and_by_the_environment(head, monkeypatch):
    options = {"id2word": common_dictionary, "num_topics": 2, "random_state": 1, "distributed": True}
    named = LdaModel(common_corpus, ns_conf={"address_file": str(head)}, **options)
    monkeypatch.setenv(addressfile.VARIABLE, str(head))
    by_environment = LdaModel(common_corpus, **options)
    assert named.state.sstats.tobytes() == by_environment.state.sstats.tobytes()


def test_an_open_local_cluster_and_what_is_said_come_before_the_environment(head, monkeypatch):
    monkeypatch.setattr("distcorpus.wire.scoped._entries", ())  # other tests' clusters are none of this one's
    monkeypatch.setenv(addressfile.VARIABLE, str(head))
    with LocalCluster(0) as cluster:
        assert names.worker("a") not in list_names(find())
        assert cluster.environ()[addressfile.VARIABLE] == ""
    assert names.worker("a") in list_names(find())
    nobody = {"host": "127.0.0.1", "port": free_port(), "broadcast": False}
    with pytest.raises(NamingError, match=f"tried 127.0.0.1:{nobody['port']} "):
        find(**nobody)


def test_commands_read_it(head):
    for options in (["--address-file", str(head)], []):
        done = subprocess.run(
            [sys.executable, "-m", "distcorpus", "status", *options],
            env={**os.environ, addressfile.VARIABLE: str(head), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert " a " in done.stdout
    done = start("status", "--address-file", str(head), "--host", "127.0.0.1")
    assert "leave out --host and --port" in done.communicate()[1]


def test_a_file_that_was_left_over_is_one_clear_error(tmp_path):
    path = tmp_path / "cluster.json"
    addressfile.write(path, "127.0.0.1", free_port())
    with pytest.raises(NamingError) as caught:
        find(address_file=str(path))
    for part in (str(path), f"pid {os.getpid()}", "left over", "distcorpus nameserver"):
        assert part in str(caught.value)
    with pytest.raises(RuntimeError, match="left over"):
        LdaModel(
            common_corpus, id2word=common_dictionary, distributed=True, ns_conf={"address_file": str(path)}
        )
    path.unlink()
    with pytest.raises(NamingError, match=r"cluster\.json, which is not there"):
        find(address_file=str(path))


def test_who_waits_follows_the_file(tmp_path):
    """It names a name server that was killed; one is started in its place, elsewhere."""
    path = tmp_path / "cluster.json"
    addressfile.write(path, "127.0.0.1", free_port())
    daemon = NameServerDaemon(port=0, address_file=path)
    starting = threading.Timer(0.2, daemon.start)
    starting.start()
    try:
        assert list_names(find(address_file=str(path), wait=60))
    finally:
        starting.join()
        daemon.stop()
    assert not path.exists()


def test_only_its_own_file_is_removed(tmp_path):
    path = tmp_path / "cluster.json"
    remove_first = addressfile.write(path, "alpha", 9090)
    remove_second = addressfile.write(path, "beta", 9091)
    remove_first()
    address = addressfile.read(path)
    assert address is not None
    assert (address.host, address.port) == ("beta", 9091)
    remove_second()
    assert addressfile.read(path) is None
    assert list(tmp_path.iterdir()) == []


WHOLE = {"host": "alpha", "port": 9090, "written_by": "pid 1 on alpha", "written_at": 1.5}


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "[]",
        "null",
        "[" * 3000,
        json.dumps(WHOLE)[:-1],
        json.dumps({**WHOLE, "more": 1}),
        json.dumps({**WHOLE, "host": 7}),
        json.dumps({**WHOLE, "host": ""}),
        json.dumps({**WHOLE, "host": "a" * 300}),
        json.dumps({**WHOLE, "port": 0}),
        json.dumps({**WHOLE, "port": 65536}),
        json.dumps({**WHOLE, "port": True}),
        json.dumps({**WHOLE, "port": "9090"}),
        json.dumps({**WHOLE, "written_at": "now"}),
        json.dumps(WHOLE) + " " * addressfile.MAX_BYTES,
        b"\xff\xfe".decode("latin-1"),
    ],
)
def test_what_is_no_address_file(tmp_path, contents):
    path = tmp_path / "cluster.json"
    path.write_bytes(contents.encode("latin-1"))
    with pytest.raises(NamingError, match="is no address file"):
        addressfile.read(path)


def test_what_cannot_be_read_or_written(tmp_path):
    with pytest.raises(NamingError, match="cannot be read: Is a directory"):
        addressfile.read(tmp_path)
    failed = start("nameserver", "--port", "0", "--address-file", str(tmp_path / "nowhere" / "file"))
    errors = failed.communicate(timeout=60)[1]
    assert failed.returncode == 1
    assert "nowhere" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("options", [["-n", "127.0.0.1", "-p", "0"], ["--host", "localhost", "--port", "0"]])
def test_options_of_pyro4s_own_name_server(options):
    process = start("nameserver", "--until-eof", *options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "listens on" in output

"""The doctor finds what is planted: each failure that docs/troubleshooting.md tells of."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distcorpus import LocalCluster, wire
from distcorpus._version import __version__
from distcorpus.cli import main
from distcorpus.monitor import examination
from distcorpus.monitor.doctor import (
    Check,
    Machine,
    check_environment,
    check_machine,
    check_snapshot,
    verdict,
)
from distcorpus.monitor.examination import examine, this_machine
from distcorpus.monitor.snapshot import (
    SCHEMA,
    Incident,
    SessionView,
    Snapshot,
    Totals,
    WorkerView,
    to_message,
)
from distcorpus.wire import certificates, names, roles

GOOD = Machine(
    python=(3, 12, 1),
    packages=dict.fromkeys(
        ("Pyro4", "gensim", "numpy", "scipy", "threadpoolctl", "rich", "tqdm", "numba", "cryptography"), "1"
    ),
    cores=8,
    usable_cores=8,
    memory=16 << 30,
    blas=(("openblas 0.3", 8),),
    kernels_folder="/cache",
    kernels_compiled=True,
    files=(1024, 1 << 20),
    spool="/spool",
    spool_free=100 << 30,
    environment={"PYRO_SERIALIZER": "pickle"},
)
WORKER = WorkerView(name="w1", state="ready", threads=4, kernels="numba 1", ping_seconds=0.001)
WELL = Snapshot(
    schema=SCHEMA,
    time=1000.0,
    version=__version__,
    host="alpha",
    pid=1,
    began=0.0,
    versions={"numpy": "2"},
    spool="/spool",
    bytes_spool_free=100 << 30,
    bytes_limit=10 << 30,
    workers=(WORKER,),
)


def complaints(checks: Iterator[Check]) -> list[Check]:
    """Those that are not ok, each of which says what to do."""
    found = [check for check in checks if check.state != "ok"]
    assert all(check.said and check.remedy for check in found)
    return found


def test_a_good_machine_gives_no_cause_for_complaint():
    assert complaints(check_machine(GOOD)) == []
    assert verdict(check_machine(GOOD)) == 0


def test_a_fresh_installation_gives_no_cause_for_complaint():
    """What programs with gensim's own classes need is said, as a hint."""
    checks = list(check_machine(replace(GOOD, environment={})))
    assert verdict(checks) == 0
    (serializer,) = (check for check in checks if check.name == "PYRO_SERIALIZER")
    assert serializer.said.startswith("not set: only programs with gensim's own classes")


def test_a_wrong_serializer_is_one_line():
    assert [check.name for check in check_environment({"PYRO_SERIALIZER": "json"})] == ["PYRO_SERIALIZER"]


@pytest.mark.parametrize(
    ("fault", "state", "said", "remedy"),
    [
        ({"python": (3, 9, 0)}, "warn", "3.9.0", "3.10"),
        ({"packages": {**GOOD.packages, "gensim": None}}, "fail", "missing: gensim", "pip install gensim"),
        ({"packages": {**GOOD.packages, "numba": None}}, "warn", "many times slower", "pip install numba"),
        ({"packages": {**GOOD.packages, "cryptography": None}}, "warn", "no certificates", "distcorpus[tls]"),
        ({"blas": (("openblas 0.3", 16),)}, "warn", "8 cores; openblas 0.3 has 16", "OPENBLAS_NUM_THREADS=8"),
        ({"quota": 2.5}, "warn", "2 cores of 8, by the cgroup", "OPENBLAS_NUM_THREADS=2"),
        ({"usable_cores": 1}, "warn", "1 core of 8, by affinity", "OPENBLAS_NUM_THREADS=1"),
        ({"kernels_folder": None}, "warn", "no folder can be written to", "NUMBA_CACHE_DIR"),
        ({"kernels_compiled": False}, "warn", "not compiled yet", "distcorpus warm"),
        ({"files": (256, 256)}, "warn", "at most 256", "ulimit"),
        ({"spool_free": None}, "fail", "cannot be written to", "another --spool"),
        ({"spool_free": 1000}, "fail", "has 1 kB free", "make room"),
        (
            {"environment": {"PYRO_SERIALIZER": "json"}},
            "warn",
            "set to 'json'",
            "PYRO_SERIALIZER=pickle",
        ),
        (
            {"environment": {**GOOD.environment, "DISTCORPUS_TSL": "x"}},
            "warn",
            "nothing reads it",
            "misspelt",
        ),
        (
            {"environment": {**GOOD.environment, "PYRO_NS_PORT": "x"}},
            "fail",
            "'x' is not a whole number from 0 to 65535: the name server's port",
            "set PYRO_NS_PORT to a whole number from 0 to 65535, or unset it",
        ),
        (
            {"environment": {**GOOD.environment, "PYRO_NS_HOTS": "x"}},
            "warn",
            "nothing reads it",
            "there is PYRO_NS_HOST",
        ),
        ({"own_kernels": ("x, which is not there",)}, "fail", "DISTCORPUS_KERNELS names x", "PYTHONPATH"),
        (
            {"environment": {**GOOD.environment, "PYRO_MAX_MESSAGE_SIZE": "65536"}},
            "warn",
            "larger messages are refused",
            "unset it",
        ),
    ],
)
def test_faults_of_a_machine(fault: dict[str, Any], state: str, said: str, remedy: str):
    (found,) = complaints(check_machine(replace(GOOD, **fault)))
    assert found.state == state
    assert said in found.said
    assert remedy in found.remedy


def test_variables_are_told_of_with_what_they_do():
    environment = {"PYRO_NS_HOST": "alpha", "DISTCORPUS_DASHBOARD_TOKEN": "hush"}
    checks = {check.name: check for check in check_environment(environment)}
    assert "hush" not in str(checks)
    assert checks["PYRO_NS_HOST"].said == "alpha: the name server's host"
    assert checks["PYRO_NS_HOST"].state == "ok"
    assert "hush" not in str(list(check_environment({"PYRO_SSL_CLIENTKEYPASSWD": "hush"})))


def test_every_variable_that_the_package_reads_is_known():
    from distcorpus.monitor.doctor import VARIABLES

    package = Path(examination.__file__).parents[1]
    sources = [path.read_text("utf-8") for path in package.rglob("*.py")]
    read = {name for source in sources for name in re.findall(r"DISTCORPUS_[A-Z]\w*", source)}
    assert {"DISTCORPUS_TLS", "DISTCORPUS_ALLOW"} <= read
    assert read <= VARIABLES.keys()


def test_the_memory_is_the_cgroups_where_that_is_less():
    checks = [check for check in check_machine(replace(GOOD, memory_limit=1 << 30)) if check.name == "memory"]
    assert [(check.state, "by the cgroup's limit" in check.said) for check in checks] == [("ok", True)]


def test_a_spool_that_the_dispatcher_would_make_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path / "new" / "spool", "new", "new/spool"):
        assert examination.free_space(str(folder)) is not None
    assert not (tmp_path / "new").exists()


def test_this_machine_is_seen_as_it_is():
    machine = this_machine()
    assert machine.cpus >= 1
    assert machine.packages["numpy"]
    assert machine.blas
    assert verdict(check_machine(machine)) < 2


def test_a_cluster_that_is_well_gives_no_cause_for_complaint():
    assert complaints(check_snapshot(WELL, __version__, 1000.0, 0.0)) == []


SLOW = replace(WORKER, host="beta", bytes_sent=10**8, transfer_seconds=100.0, jobs=10)


@pytest.mark.parametrize(
    "worker",
    [
        pytest.param(replace(SLOW, host=WELL.host), id="no network"),
        pytest.param(replace(SLOW, jobs=1000), id="small jobs"),
        pytest.param(replace(SLOW, bytes_sent=10**6, jobs=1), id="few bytes"),
    ],
)
def test_a_link_whose_speed_says_nothing_of_the_network(worker: WorkerView):
    found = complaints(check_snapshot(replace(WELL, workers=(worker,)), __version__, 1000.0, 0.0))
    assert found == []
    (slow,) = complaints(check_snapshot(replace(WELL, workers=(SLOW,)), __version__, 1000.0, 0.0))
    assert slow.name == "link to w1"


@pytest.mark.parametrize("kind", ["worker lost", "session failed"])
def test_what_was_lost_long_ago_is_no_cause_for_complaint(kind: str):
    lost = Incident(1, 100.0, kind, "error", "w9", "s", "it closed the connection")
    assert complaints(check_snapshot(replace(WELL, incidents=(lost,)), __version__, 1000.0, 0.0)) == []


@pytest.mark.parametrize(
    ("fault", "state", "said", "remedy"),
    [
        ({"version": "9.9"}, "fail", "the dispatcher has distcorpus 9.9", "pip install distcorpus==9.9"),
        ({"certificate_expires": 900.0}, "fail", "has expired", "issue it again"),
        ({"certificate_expires": 5000.0}, "warn", "is valid for 1 h 6 min", "issue it again"),
        ({"time": 2000.0}, "warn", "clock differs by 16 min 40 s", "time service"),
        ({"workers": ()}, "fail", "none that is ready", "distcorpus worker"),
        ({"spool": "/spool", "bytes_spool_free": 10}, "fail", "/spool (on alpha) has 10 B free", "make room"),
        ({"bytes_tables": 10 << 30}, "warn", "models take", "--total-memory"),
        ({"may_differ": ("numpy 1 of worker w1, 2 of the dispatcher",)}, "warn", "numpy 1", "same versions"),
        ({"totals": Totals(connections_refused={"no TLS": 3})}, "warn", "3 for no TLS", "docs/tls.md"),
        (
            {
                "incidents": (
                    Incident(1, 990.0, "worker lost", "error", "w9", "", "it closed the connection"),
                )
            },
            "warn",
            "w9, 10 s ago: it closed the connection",
            "memory ran out",
        ),
        (
            {"sessions": (SessionView(name="s", kind="lda", waits_for="no worker"),)},
            "fail",
            "waits for a worker",
            "distcorpus worker",
        ),
    ],
)
def test_faults_of_a_cluster(fault: dict[str, Any], state: str, said: str, remedy: str):
    (found,) = complaints(check_snapshot(replace(WELL, **fault), __version__, 1000.0, 0.0))
    assert found.state == state
    assert said in found.said
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("fault", "state", "said", "remedy"),
    [
        ({"state": "unreachable", "reason": "timed out"}, "fail", "unreachable: timed out", "--advertise"),
        (
            {"state": "refused", "reason": "it has 9.9"},
            "fail",
            "refused: it has 9.9",
            "install the dispatcher's",
        ),
        ({"state": "expelled", "reason": "a false answer"}, "fail", "expelled", "--bind-port"),
        ({"state": "stock", "reason": "gensim's own"}, "fail", "stock", "'distcorpus worker' in their place"),
        ({"state": "silent", "threads": 1}, "warn", "silent", "overloaded"),
        ({"threads": 1, "kernels": "numpy 2"}, "warn", "different kernels: 1 with", "same numba"),
        ({"threads": 1, "kernels": "numba 1", "clock_offset": -60.0}, "warn", "differs", "time service"),
        (
            {"threads": 1, "kernels": "numba 1", "ping_seconds": 0.5},
            "warn",
            "0.5 s there and back",
            "network",
        ),
        ({"threads": 1, "kernels": "numba 1", "jobs_failed": 2}, "warn", "2 jobs raised", "its log"),
        (
            {
                "threads": 1,
                "kernels": "numba 1",
                "ping_seconds": 0.001,
                "bytes_sent": 10**8,
                "transfer_seconds": 100.0,
            },
            "warn",
            "1 MB/s",
            "network",
        ),
    ],
)
def test_faults_of_a_worker(fault: dict[str, Any], state: str, said: str, remedy: str):
    odd = replace(WorkerView(name="odd", state="ready"), **fault)
    found = complaints(check_snapshot(replace(WELL, workers=(WORKER, odd)), __version__, 1000.0, 0.0))
    assert len(found) == 1
    assert found[0].state == state
    assert said in found[0].said
    assert remedy in found[0].remedy


# The way to a cluster: real sockets, name servers and certificates.


class Dispatcher:
    """Tells what it is given."""

    def __init__(self, message: Any) -> None:
        self._message = message

    @wire.expose
    def snapshot(self, cursor: int | None) -> Any:
        return self._message


@contextmanager
def cluster(
    credentials: dict[str, Path] | None = None,
    *,
    nameserver: str = roles.NAMESERVER,
    dispatcher: str | None = roles.DISPATCHER,
    message: Any = None,
) -> Iterator[tuple[str, int]]:
    """The address of a name server; it and its dispatcher have certificates of these roles."""

    def secured(role: str) -> Any:
        return None if credentials is None else wire.Credentials(credentials[role])

    with ExitStack() as stack:
        server = wire.NameServerDaemon("127.0.0.1", 0, broadcast=False, credentials=secured(nameserver))
        server.start()
        stack.callback(server.stop)
        if dispatcher is not None:
            daemon = wire.Daemon(credentials=secured(dispatcher))
            now = to_message(replace(WELL, time=time.time())) if message is None else message
            uri = daemon.serve(names.DISPATCHER, Dispatcher(now))
            daemon.start()
            stack.callback(daemon.stop)
            server.nameserver.register(names.DISPATCHER, uri)
        yield "127.0.0.1", server.port


def examined(host: str | None, port: int | None, folder: Path | None = None, **options: Any) -> list[Check]:
    """The complaints of an examination."""
    undo = wire.use_tls(folder)
    try:
        return complaints(examine(host, port, broadcast=False, **options))
    finally:
        undo()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_way_with_nothing_on_it(credentials: dict[str, Path]):
    with cluster() as where:
        assert examined(*where) == []
    with cluster(credentials) as where:
        assert [check.name for check in examined(*where, credentials["viewer"])] == []


def only(found: list[Check], name: str, said: str, remedy: str) -> None:
    (check,) = found
    assert (check.name, check.state) == (name, "fail")
    assert said in check.said
    assert remedy in check.remedy


def test_no_such_name():
    only(examined("nowhere.invalid", 9090), "name server", "the name is not known", "/etc/hosts")


def test_nothing_listens():
    only(examined("127.0.0.1", free_port()), "name server", "nothing listens", "--bind 0.0.0.0")


def test_no_cluster_where_nobody_said_that_there_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examination, "default_nameserver", lambda: ("127.0.0.1", free_port()))
    (found,) = examined(None, None, asked_for=False)
    assert (found.name, found.state) == ("cluster", "warn")


def test_something_else_listens():
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(30)
        address = other.getsockname()

        def close_all() -> None:
            for _ in range(2):
                other.accept()[0].close()

        closing = threading.Thread(target=close_all)
        closing.start()
        found = examined(*address)
        closing.join()
    assert found[-1].name == "name server"
    assert found[-1].state == "fail"


def test_tls_where_there_is_none_here(credentials: dict[str, Path]):
    with cluster(credentials) as where:
        only(examined(*where), "name server", "TLS", "docs/tls.md")


def test_no_tls_where_there_is_some_here(credentials: dict[str, Path]):
    with cluster() as where:
        only(examined(*where, credentials["viewer"]), "TLS", "speaks no TLS", "docs/tls.md")


def test_a_certificate_of_another_authority(credentials: dict[str, Path], tmp_path: Path):
    other = certificates.make_authority(tmp_path / "other")
    viewer = certificates.issue(other, "viewer")
    with cluster(credentials) as where:
        only(examined(*where, viewer), "TLS", "of no authority", "docs/tls.md")


def test_certificates_that_are_of_no_use(credentials: dict[str, Path], authority: Path, tmp_path: Path):
    expired = certificates.issue(authority, "viewer", days=1e-9, folder=tmp_path / "expired")
    soon = certificates.issue(authority, "viewer", days=1, folder=tmp_path / "soon")
    with cluster(credentials) as where:
        only(examined(*where, expired), "this process's certificate", "expired", "docs/tls.md")
        only(examined(*where, tmp_path / "none"), "this process's certificate", "missing", "docs/tls.md")
        only(examined(*where, credentials["worker"]), "role", "a worker's, who may not look", "--role viewer")
        (found,) = examined(*where, soon)
        assert (found.name, found.state) == ("this process's certificate", "warn")
    with cluster(credentials, nameserver="worker", dispatcher=None) as where:
        only(examined(*where, credentials["viewer"]), "TLS", "role worker", "--role nameserver")
    with cluster(credentials, dispatcher="worker") as where:
        only(examined(*where, credentials["viewer"]), "dispatcher", "role worker", "--role dispatcher")


def test_no_dispatcher():
    with cluster(dispatcher=None) as where:
        only(examined(*where), "dispatcher", "knows none", "start 'distcorpus dispatcher'")


def test_a_dispatcher_that_is_gone():
    with cluster(dispatcher=None) as (host, port):
        nameserver = wire.find(host, port, broadcast=False)
        wire.register(nameserver, names.DISPATCHER, f"PYRO:{names.DISPATCHER}@127.0.0.1:{free_port()}")
        only(examined(host, port), "dispatcher", "nothing listens", "start the dispatcher")


@pytest.mark.parametrize("message", [{"schema": 99}, [], None.__class__, "\0" * 9000])
def test_a_dispatcher_of_another_kind(message: Any):
    if message is type(None):
        message = {**to_message(WELL), "workers": 5}
    with cluster(message=message) as where:
        only(examined(*where), "version", "does not tell of itself", "same version")


def test_another_name_server_answers_broadcasts(monkeypatch: pytest.MonkeyPatch):
    with cluster() as where:
        monkeypatch.setattr(examination, "find_by_broadcast", lambda: ("127.0.0.1", 1))
        (found,) = complaints(examine(*where))
        assert (found.name, found.state) == ("broadcasts", "warn")
        assert "PYRO_BROADCAST_ADDRS" in found.remedy
        monkeypatch.setattr(examination, "find_by_broadcast", lambda: where)
        assert complaints(examine(*where)) == []


# Of a cluster of real processes.


@pytest.fixture(scope="module")
def real() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=1) as cluster:
        yield cluster


def doctor(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status, and what was said that is not ok."""
    with pytest.raises(SystemExit) as exited:
        main(["doctor", "--json", *arguments])
    checks = json.loads(capsys.readouterr().out)
    assert isinstance(exited.value.code, int)
    return exited.value.code, {check["name"]: check for check in checks if check["state"] != "ok"}


def test_the_command(
    real: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    host, port = real._nameserver
    where = ("--host", host, "--port", str(port), "--no-broadcast")
    monkeypatch.setenv("PYRO_SERIALIZER", "pickle")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    _, found = doctor(*where, capsys=capsys)
    assert not {name for name in found if "worker" in name or "dispatcher" in name or "name server" in name}
    # A worker whose address leads nowhere, as the dispatcher sees it.
    nameserver = wire.find(host, port, broadcast=False)
    uri = f"PYRO:{names.worker('ghost')}@127.0.0.1:{free_port()}"
    wire.register(nameserver, names.worker("ghost"), uri)
    deadline = time.monotonic() + 60
    while "worker ghost" not in found:
        assert time.monotonic() < deadline
        code, found = doctor(*where, capsys=capsys)
    assert code == 2
    assert found["worker ghost"]["state"] == "fail"
    assert "reachable from there" in found["worker ghost"]["remedy"]
    # Lines for people, with the remedy below.
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit):
        main(["doctor", "--here", "--spool", str(file / "none")])
    out = capsys.readouterr().out
    assert "fail  spool: " in out
    assert "      give another --spool DIR" in out
    assert "name server" not in out
    monkeypatch.setenv("DISTCORPUS_ADDRESS_FILE", str(tmp_path / "address"))
    code, found = doctor(capsys=capsys)
    assert (code, found["address file"]["state"]) == (2, "fail")
    assert os.environ["PYRO_SERIALIZER"] == "pickle"


def test_times_are_said_as_people_read_them(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        clock = iter((1.0, 1.19))
        monkeypatch.setattr(examination.time, "perf_counter", lambda: next(clock))
        *_, check = examination._reach("dispatcher", *listening.getsockname())
    assert check.said.endswith("takes connections, in 0.2 s")

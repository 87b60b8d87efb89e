"""Clusters with mutual TLS: the commands that set them up, and programs that use them by environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from Pyro4.errors import SecurityError

from distcorpus import LocalCluster, LsiModel
from distcorpus.wire import certificates, connect, find, lookup, names, tls, use_tls

from ..template import start
from .conftest import wait_until
from .test_cli import run
from .test_scripts import free_port, script

ROOT = Path(__file__).parents[2]

TRAIN = """
import hashlib, sys
import corpora
from gensim.models import TfidfModel
{imports}
dictionary, counts = corpora.bow(corpora.lee())
weigh = TfidfModel(dictionary=dictionary)
common = dict(id2word=dictionary, num_topics=5, distributed=True)
lsi = LsiModel([weigh[document] for document in counts], chunksize=100, **common)
lda = LdaModel(counts, chunksize=100, update_every=0, eval_every=None, random_state=1, **common)
assert "distcorpus" not in sys.modules or {ours}
for values in (lsi.projection.u, lsi.projection.s, lda.state.sstats):
    print(hashlib.sha256(values.tobytes()).hexdigest())
"""
UNMODIFIED = TRAIN.format(imports="from gensim.models import LdaModel, LsiModel", ours=False)
OURS = TRAIN.format(imports="from distcorpus import LdaModel, LsiModel", ours=True)


@pytest.fixture(scope="module")
def secure() -> LocalCluster:
    with LocalCluster(n_workers=2, tls=True) as cluster:
        yield cluster


def program(text: str, variables: dict[str, str]) -> list[str]:
    """Run a program that knows of the cluster by these variables alone; returns what it prints."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYRO_") and name != tls.VARIABLE
    }
    path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**environment, **variables, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def variables(cluster: LocalCluster, *, ours: bool) -> dict[str, str]:
    """Those with which distcorpus finds the cluster, or those with which anything else does."""
    return {
        name: value
        for name, value in cluster.environ().items()
        if name.startswith("PYRO_NS_") or (name == tls.VARIABLE if ours else name.startswith("PYRO_"))
    }


@pytest.fixture(scope="module")
def in_the_clear(cluster) -> list[str]:
    return program(UNMODIFIED, variables(cluster, ours=False))


@pytest.mark.long
def test_unmodified_models_train_by_environment_alone(secure, in_the_clear):
    """Beside peers that begin a handshake with each daemon and say no more."""
    environment = variables(secure, ours=False)
    assert set(environment) >= {"PYRO_SSL", "PYRO_SSL_CACERTS", "PYRO_SSL_CLIENTCERT", "PYRO_SSL_CLIENTKEY"}
    addresses = [worker.address.rsplit(":", 1) for worker in secure.workers]
    addresses += [secure.dispatcher._pyroUri.location.rsplit(":", 1)]
    addresses += [[environment["PYRO_NS_HOST"], environment["PYRO_NS_PORT"]]]
    with ExitStack() as silent:
        for host, port in addresses * 20:
            sock = silent.enter_context(socket.create_connection((host, int(port))))
            sock.sendall(b"\x16\x03")
        assert program(UNMODIFIED, environment) == in_the_clear


@pytest.mark.long
def test_our_models_train_by_one_variable(secure, in_the_clear):
    lsi_u, lsi_s, _ = program(OURS, variables(secure, ours=True))
    assert [lsi_u, lsi_s] == in_the_clear[:2]


def test_models_of_this_process_find_it(secure, lee_corpus):
    from gensim.models import LdaModel

    model = LdaModel(lee_corpus.counts[:60], id2word=lee_corpus.dictionary, num_topics=3, distributed=True)
    assert model.state.numdocs == 60


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("", "speaks TLS only: set DISTCORPUS_TLS"),
        ("/nowhere", r"ca.pem is missing.*distcorpus certs issue"),
        ("expired", "has expired; renew it with 'distcorpus certs issue'"),
        ("foreign", "no authority that ca.pem lists"),
        ("worker", "client may call that, and this certificate's role is worker"),
    ],
)
def test_our_models_name_the_remedy(secure, tmp_path, folder, reason):
    authority = Path(secure.environ()[tls.VARIABLE]).parent
    if folder == "expired":
        folder = certificates.issue(authority, "client", (), 1e-9, tmp_path / "expired")
    elif folder == "foreign":
        folder = certificates.issue(certificates.make_authority(tmp_path), "client")
    elif folder == "worker":
        folder = certificates.issue(authority, "worker", ["127.0.0.1"], 1, tmp_path / "worker")
    environment = secure.environ()
    ns_conf = {"host": environment["PYRO_NS_HOST"], "port": int(environment["PYRO_NS_PORT"])}
    undo = use_tls(folder or None)
    try:
        with pytest.raises((RuntimeError, SecurityError), match=reason):
            LsiModel(
                [[(0, 1)]],
                id2word={0: "a"},
                distributed=True,
                ns_conf={**ns_conf, "broadcast": False},
            )
    finally:
        undo()


def test_status_with_and_without_the_certificate(secure):
    environment = {**secure.environ(), tls.VARIABLE: ""}
    where = ("--host", environment["PYRO_NS_HOST"], "--port", environment["PYRO_NS_PORT"])
    refused = run("status", *where, environment=environment)
    assert refused.returncode == 1
    assert "DISTCORPUS_TLS" in refused.stderr
    status = run("status", *where, "--tls", secure.environ()[tls.VARIABLE], environment=environment)
    assert status.returncode == 0, status.stderr
    assert str(secure.workers[0].pid) in status.stdout


def test_a_viewer_can_look_and_nothing_else(secure):
    environment = secure.environ("viewer")
    status = run("status", environment=environment)
    assert status.returncode == 0, status.stderr
    assert str(secure.workers[0].pid) in status.stdout
    assert run("ping", "--workers", "2", environment=environment).returncode == 0
    refused = run("stop", "--yes", environment=environment)
    assert refused.returncode == 1
    assert "this certificate's role is viewer" in refused.stderr
    assert secure.dispatcher.ping() == "pong"


def test_a_cluster_in_the_clear_beside_it_is_used_in_the_clear(secure, monkeypatch):
    monkeypatch.setenv(tls.VARIABLE, secure.environ()[tls.VARIABLE])
    with LocalCluster(n_workers=0) as plain:
        assert plain.dispatcher.status()["workers"] == []
        assert run("status", environment=plain.environ()).returncode == 0
    assert len(secure.dispatcher.status()["workers"]) == 2


@pytest.mark.long
def test_four_commands_make_a_cluster(tmp_path):
    """As docs/tls.md tells it, on one machine."""
    pki, port = str(tmp_path / "pki"), str(free_port())
    assert "3650 days" in run("certs", "init", pki).stdout
    folders = {}
    issued = run("certs", "issue", pki, "--role", "worker", "--host", "127.0.0.1", "localhost")
    folders["worker"] = f"{pki}/worker-127.0.0.1"
    assert f"copy {folders['worker']} to where it is used, and pass it with --tls" in issued.stdout
    for role in ("nameserver", "dispatcher"):
        folders[role] = str(certificates.issue(pki, role, ["127.0.0.1", "localhost"]))
    client = run("certs", "issue", pki, "--role", "client").stdout
    exports = dict(line[len("export ") :].split("=", 1) for line in client.splitlines() if "export" in line)
    assert exports == {**tls.stock_variables(f"{pki}/client"), tls.VARIABLE: f"{pki}/client"}
    where = ("--host", "localhost", "--port", port, "--no-broadcast")
    with ExitStack() as stack:
        nameserver = stack.enter_context(
            script("nameserver", "--bind-port", port, "--tls", folders["nameserver"])
        )
        assert "with a certificate until 20" in "".join(nameserver.stdout.readline() for _ in range(2))
        stack.enter_context(script("dispatcher", *where, environment={tls.VARIABLE: folders["dispatcher"]}))
        pair = ("--workers", "2", "--name", "pair", "--tls", folders["worker"])
        stack.enter_context(script("worker", *where, *pair))
        stack.callback(use_tls(exports[tls.VARIABLE]))
        ns = find("localhost", int(port), broadcast=False)
        wait_until(lambda: lookup(ns, names.DISPATCHER), "the registration of the dispatcher")
        dispatcher = connect(lookup(ns, names.DISPATCHER))
        wait_until(lambda: len(dispatcher.status()["workers"]) == 2, "the joining of two workers")
        assert run("stop", *where, "--tls", exports[tls.VARIABLE]).returncode == 0


def test_daemons_refuse_what_is_not_safe(credentials):
    for command in ("nameserver", "dispatcher", "worker"):
        refused = run(command, "--bind", "0.0.0.0")
        assert refused.returncode == 1
        assert "certs init" in refused.stderr
        assert "--insecure" in refused.stderr
    wrong = run("dispatcher", "--tls", str(credentials["client"]))
    assert "holds a client's certificate, a dispatcher needs one of its own" in wrong.stderr


def test_insecure_is_warned_of():
    command = [sys.executable, "-m", "distcorpus", "nameserver", "--bind", "0.0.0.0", "--bind-port", "0"]
    process = start(
        [*command, "--insecure", "--no-broadcast", "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("distcorpus name server")
    _, errors = process.communicate(timeout=30)
    assert "listening on 0.0.0.0 without TLS: whoever reaches the port" in errors

"""A cluster over several hosts: network namespaces with addresses of their own, on a bridge in one more.

Name server and dispatcher are on one host, three workers on three, the client on another. Nothing is sent
outside of the namespaces.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from distcorpus import LocalCluster
from distcorpus.wire import certificates, tls

from . import sshd
from .conftest import wait_until

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make network namespaces"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="no iproute2 on this machine"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun on this machine"),
]

CENTRE, CLIENT = "centre", "client"
WORKERS = ("w1", "w2", "w3")
ADDRESSES = {host: f"10.99.0.{number}" for number, host in enumerate((CENTRE, *WORKERS, CLIENT), 1)}

PROGRAM = """
import hashlib, sys
import distcorpus
import corpora
from gensim.models import LdaModel, LsiModel

dictionary, documents = corpora.bow(corpora.lee())

class Paused:
    "The corpus; in the middle of it, something happens to the network."
    def __len__(self):
        return len(documents)
    def __iter__(self):
        for number, document in enumerate(documents):
            if number == 150:
                print("half", flush=True)
                sys.stdin.readline()
            yield document

common = {"id2word": dictionary, "num_topics": 10, "distributed": True}
if sys.argv[1] == "lda":
    options = {"chunksize": 30, "update_every": 0, "eval_every": None, "random_state": 1}
    model = LdaModel(Paused(), **common, **options)
    result = model.state.sstats.tobytes()
else:
    model = LsiModel(Paused(), chunksize=100, **common)
    result = model.projection.u.tobytes() + model.projection.s.tobytes()
print(hashlib.sha256(result).hexdigest(), flush=True)
"""


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class Cable:
    """A network cable between two tap devices that can be slow and lose packets."""

    def __init__(self, *devices):
        self.delay = self.loss = 0.0
        self._ends = [self._attach(device) for device in devices]
        self._random = random.Random(1)
        self._over, self._tell = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    @staticmethod
    def _attach(device):
        TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
        return end

    def _carry(self):
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        under_way = []
        count = 0
        while True:
            timeout = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else None
            readable, _, _ = select.select([*self._ends, self._over], [], [], timeout)
            if self._over in readable:
                return
            for end in readable:
                with suppress(OSError):  # the device is down
                    frame = os.read(end, 65536)
                    count += 1
                    if self._random.random() >= self.loss:
                        heapq.heappush(under_way, (time.monotonic() + self.delay, count, other[end], frame))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(under_way)
                with suppress(OSError):
                    os.write(end, frame)

    def close(self):
        os.write(self._tell, b"!")
        self._thread.join()
        for descriptor in (*self._ends, self._over, self._tell):
            os.close(descriptor)


class Network:
    """Hosts on one switch; the cable of the centre is a `Cable`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._tag = f"dc{os.getpid()}"
        self._add_namespace("switch")
        ip("-n", self._name("switch"), "link", "add", "bridge", "type", "bridge")
        ip("-n", self._name("switch"), "link", "set", "bridge", "up")
        for host in ADDRESSES:
            self._add_namespace(host)
            self._plug(host)
        self.processes: dict[str, subprocess.Popen] = {}

    def _name(self, host):
        return f"{self._tag}-{host}"

    def _add_namespace(self, host):
        name = self._name(host)
        ip("netns", "add", name)
        self._stack.callback(ip, "netns", "delete", name)
        ip("-n", name, "link", "set", "lo", "up")

    def _plug(self, host):
        inner, outer = f"{self._tag}i", f"{self._tag}o"
        if host == CENTRE:
            for device in (inner, outer):
                ip("tuntap", "add", "dev", device, "mode", "tap")
            self.cable = Cable(inner, outer)
            self._stack.callback(self.cable.close)
        else:
            ip("link", "add", inner, "type", "veth", "peer", "name", outer)
        ip("link", "set", inner, "netns", self._name(host), "name", "eth0")
        ip("link", "set", outer, "netns", self._name("switch"), "name", host)
        ip("-n", self._name("switch"), "link", "set", host, "master", "bridge", "up")
        address = ["address", "add", f"{ADDRESSES[host]}/24", "brd", "+", "dev", "eth0"]
        ip("-n", self._name(host), *address)
        ip("-n", self._name(host), "link", "set", "eth0", "up")
        ip("-n", self._name(host), "route", "add", "default", "dev", "eth0")

    def pull(self, host):
        """Pull the host's cable out of the switch."""
        ip("-n", self._name("switch"), "link", "set", host, "down")

    def put_back(self, host):
        ip("-n", self._name("switch"), "link", "set", host, "up")

    def start(self, host, *command, variables=None, **options):
        """Start a process on a host; it ends with the network."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYRO_")}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._name(host), sys.executable, *command],
            env={**environment, "PYTHONPATH": "scripts", "PYRO_SERIALIZER": "pickle", **(variables or {})},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self._stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process):
        process.kill()
        process.communicate()

    def tc(self, host, *arguments):
        return ip("netns", "exec", self._name(host), "tc", *arguments, check=False)

    def status(self):
        """What ``distcorpus status`` says on the centre's host, which finds the cluster by a broadcast."""
        process = self.start(CENTRE, "-m", "distcorpus", "status", stderr=subprocess.DEVNULL)
        return process.communicate(timeout=60)[0]

    def workers(self):
        status = self.status()
        return {worker for worker in WORKERS if f" {worker} " in status}

    def sessions(self):
        return "open: none" not in self.status()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        network = Network(stack)
        network.start(CENTRE, "-m", "distcorpus", "nameserver", "--bind", ADDRESSES[CENTRE], "--insecure")
        network.start(CENTRE, "-m", "distcorpus", "dispatcher", "--bind", ADDRESSES[CENTRE], "--insecure")
        for worker in WORKERS:
            options = ["--insecure", "--bind", ADDRESSES[worker], "--name", worker, "--blas-threads", "1"]
            network.start(worker, "-m", "distcorpus", "worker", *options)
        wait_until(lambda: network.workers() == set(WORKERS), "the joining of three hosts", 90)
        yield network


def train(network, model, in_mid_training=lambda: None, variables=None):
    """Train on the client's host, which finds the cluster by a broadcast; returns a hash of the result."""
    client = network.start(CLIENT, "-c", PROGRAM, model, variables=variables)
    assert client.stdout.readline() == "half\n"
    in_mid_training()
    answer, _ = client.communicate("\n", timeout=150)
    assert client.returncode == 0
    return answer.split()[-1]


@pytest.fixture(scope="module")
def quiet(network) -> dict[str, str]:
    """What the trainings come to when nothing happens."""
    return {model: train(network, model) for model in ("lda", "lsi")}


def test_same_bits_as_on_one_host(network, quiet):
    with LocalCluster(1) as cluster:
        client = subprocess.run(
            [sys.executable, "-c", PROGRAM, "lsi"],
            env={**os.environ, **cluster.environ(), "PYTHONPATH": "scripts"},
            cwd=Path(__file__).parents[2],
            input="\n",
            capture_output=True,
            text=True,
            check=True,
        )
    assert client.stdout.split()[-1] == quiet["lsi"]


def test_mutual_tls(network, quiet, authority):
    """A second cluster on the same hosts, whose name server answers no broadcasts."""

    def start(host, role, *options):
        certificate = certificates.issue(authority, role, [ADDRESSES[host]])
        network.start(
            host, "-m", "distcorpus", role, "--bind", "0.0.0.0", "--tls", str(certificate), *options
        )

    where = ("--host", ADDRESSES[CENTRE], "--port", "9190")
    start(CENTRE, "nameserver", "--bind-port", "9190", "--no-broadcast")
    start(CENTRE, "dispatcher", *where)
    for worker in WORKERS[:2]:
        start(worker, "worker", *where, "--blas-threads", "1")
    client = certificates.issue(authority, "client")

    def joined():
        status = network.start(CENTRE, "-m", "distcorpus", "status", *where, "--tls", str(client))
        return status.communicate(timeout=60)[0].count(" ready ")

    wait_until(lambda: joined() == 2, "the joining of two hosts", 60)
    variables = tls.stock_variables(client)
    variables |= {"PYRO_NS_HOST": ADDRESSES[CENTRE], "PYRO_NS_PORT": "9190"}
    variables |= {"PYRO_BROADCAST_ADDRS": "127.0.0.1"}  # the other cluster's name server would answer
    assert train(network, "lda", variables=variables) == quiet["lda"]


@pytest.mark.skipif(sshd.missing, reason="no OpenSSH server on this machine")
def test_ssh(network, quiet, tmp_path):
    """A third cluster, by ``distcorpus ssh``: a host that vanishes costs nothing, and ends by itself."""
    keys = sshd.Keys(tmp_path)
    run = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    for worker in WORKERS[:2]:
        network.start(worker, "-c", run, *keys.server(ADDRESSES[worker], 22), stderr=subprocess.DEVNULL)
    hosts = [ADDRESSES[worker] for worker in WORKERS[:2]]
    options = ["--tls", "--port", "9290", "--threads", "1", *keys.options(22)]

    def connects():
        probe = ["import socket, sys; [socket.create_connection((host, 22), 1) for host in sys.argv[1:]]"]
        return network.start(CENTRE, "-c", *probe, *hosts, stderr=subprocess.DEVNULL).wait() == 0

    wait_until(connects, "the start of the servers", 30)
    command = network.start(
        CENTRE, "-m", "distcorpus", "ssh", *hosts, *options, stderr=subprocess.PIPE, start_new_session=True
    )
    lines = []
    for line in command.stdout:
        lines.append(line)
        if line.startswith("    export "):
            break
    else:
        pytest.fail("".join([*lines, command.stderr.read()]))
    assert any(line.startswith(f"[{hosts[1]}] distcorpus worker {hosts[1]} ") for line in lines)
    variables = dict(word.split("=", 1) for word in lines[-1].split()[1:])
    variables |= tls.stock_variables(variables["DISTCORPUS_TLS"]) | {"PYRO_BROADCAST_ADDRS": "127.0.0.1"}

    def left():
        """Processes of this cluster on the host whose cable was pulled."""
        pids = ip("netns", "pids", network._name(WORKERS[1])).stdout.split()
        lines = []
        for pid in pids:
            with suppress(OSError):
                lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return [line for line in lines if b"9290" in line]

    assert left()
    assert train(network, "lda", lambda: network.pull(WORKERS[1]), variables) == quiet["lda"]
    said = ""
    while (
        f"{hosts[1]}: ssh could not connect, or lost the connection; its jobs go to other workers" not in said
    ):
        said = command.stderr.readline()
        assert said
    wait_until(lambda: not left(), "the end of the worker that hears nothing", 150)
    network.put_back(WORKERS[1])
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=150)
    assert command.returncode == 0
    wait_until(lambda: network.workers() == set(WORKERS), "the return of the host", 60)


@pytest.mark.parametrize("model", ["lda", "lsi"])
def test_cable_of_a_worker_is_pulled(network, quiet, model):
    assert train(network, model, lambda: network.pull("w1")) == quiet[model]
    network.put_back("w1")
    wait_until(lambda: network.workers() == set(WORKERS), "the return of the host", 60)
    assert train(network, model) == quiet[model]


def test_cable_of_the_client_is_pulled(network):
    """Without a word from it, its session is freed when the system has found out."""
    client = network.start(CLIENT, "-c", PROGRAM, "lda")
    assert client.stdout.readline() == "half\n"
    assert network.sessions()
    network.pull(CLIENT)
    client.kill()
    wait_until(lambda: not network.sessions(), "the end of the session", 30)
    network.put_back(CLIENT)


@pytest.mark.parametrize("how", ["netem", "cable"])
def test_slow_and_lossy_network(network, quiet, how):
    """100 ms more there and back, and one packet of a hundred lost."""
    if how == "netem":
        netem = ["netem", "delay", "100ms", "loss", "1%"]
        added = network.tc(CENTRE, "qdisc", "add", "dev", "eth0", "root", *netem)
        if added.returncode:
            pytest.skip(f"tc has no netem here: {added.stderr.strip()}")
    else:
        network.cable.delay, network.cable.loss = 0.05, 0.01
    try:
        for model in ("lda", "lsi"):
            assert train(network, model) == quiet[model]
    finally:
        network.cable.delay = network.cable.loss = 0.0
        if how == "netem":
            network.tc(CENTRE, "qdisc", "delete", "dev", "eth0", "root")

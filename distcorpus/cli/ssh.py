"""``distcorpus ssh``: a cluster on hosts that OpenSSH reaches, which ends when the command ends."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.cli.common import (
    Commands,
    check_output,
    find_dispatcher,
    port,
    positive,
    positive_count,
    reading,
    verbose_options,
)
from distcorpus.cli.node import CERTIFICATES, HELLO, SIGN_EVERY
from distcorpus.cli.service import Lifetime, say
from distcorpus.cli.signals import Interrupted
from distcorpus.wire import CommunicationError, NamingError, addressfile, roles, tls, use_tls
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.sockets import is_loopback

logger = logging.getLogger("distcorpus")

#: Days for which certificates are valid.
DAYS = 10.0
#: Seconds between two looks at the hosts.
LOOK_EVERY = 0.2
#: Seconds that workers have to end in: they finish their jobs; and the head.
WORKERS_END, HEAD_ENDS = 100.0, 60.0
#: No question at the keyboard, no terminal, and a host that vanished is noticed.
SSH = (
    *("ssh", "-T"),
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ClearAllForwardings=yes"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "ssh",
        parents=[verbose_options()],
        help="run a cluster on hosts that ssh reaches; it ends when this command ends",
    )
    parser.add_argument(
        "hosts", nargs="*", metavar="HOST", help="a host that runs workers: HOST or USER@HOST"
    )
    parser.add_argument("--hostfile", metavar="FILE", help="a file with one host per line")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="P",
        help="the hosts' Python that has distcorpus (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive_count,
        default=1,
        metavar="N",
        help="worker daemons per host (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive_count,
        metavar="N",
        help="threads of each daemon (default: the host's cores / --workers)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="use TLS, with certificates that are made for this cluster alone"
    )
    parser.add_argument(
        "--days",
        type=positive,
        metavar="N",
        help=f"days for which they are valid, which limits the cluster's life (default: {DAYS:g})",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="without TLS: whoever reaches the ports can use and stop the cluster",
    )
    parser.add_argument(
        "--remote-head",
        action="store_true",
        help="run the name server and the dispatcher on the first host (default: on this machine)",
    )
    parser.add_argument(
        "--head-address",
        metavar="ADDRESS",
        help="address at which hosts reach name server and dispatcher (default: the one that ssh comes from)",
    )
    parser.add_argument(
        "--port", type=port, default=9090, help="port of the name server (default: %(default)s)"
    )
    parser.add_argument(
        "--address-file", metavar="PATH", help="write the name server's address there, see 'nameserver'"
    )
    parser.add_argument(
        "--head-options", default="", metavar="OPTIONS", help="more options for 'head', in one argument"
    )
    parser.add_argument(
        "--worker-options", default="", metavar="OPTIONS", help="more options for 'worker', in one argument"
    )
    parser.add_argument(
        "-o",
        dest="ssh_options",
        action="append",
        default=[],
        metavar="OPTION",
        help="an option for ssh, as in -o Port=2222; may be given several times",
    )
    parser.add_argument(
        "--wait",
        type=positive,
        default=120.0,
        metavar="SECONDS",
        help="time in which all workers have to join (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run a cluster on the hosts until told to end."""
    hosts = _hosts(options.hosts, options.hostfile)
    if options.tls == options.insecure:
        raise ValueError(
            "give --tls; or --insecure, where everybody on the network is trusted: whoever reaches the ports "
            "can then use and stop the cluster"
        )
    if options.days is not None and not options.tls:
        raise ValueError("--days is for the certificates that --tls makes: give --tls too")
    if options.address_file and not options.remote_head:
        check_output("--address-file", options.address_file)
    lifetime = Lifetime()
    with ExitStack() as stack:
        _Cluster(options, hosts, lifetime, stack).run()


class Node:
    """A process of ours on some host, whose output shows here with the host's name.

    Parameters
    ----------
    name : str
        What the host is called in the output.
    command : sequence of str
        What starts `distcorpus.cli.node` there.
    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        self._hello: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        # In a session of its own, so that Ctrl-C reaches it through us.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._relay, args=pipes, daemon=True)
            for pipes in ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def meet(self, deadline: float, lifetime: Lifetime) -> None:
        """Wait for what it says of itself.

        Raises
        ------
        RuntimeError
            It ended, or is another version; or says nothing in time.
        """
        facts = None
        while facts is None:
            _check_interrupt(lifetime)
            with suppress(queue.Empty):
                facts = self._hello.get(timeout=LOOK_EVERY)
                if facts is None:
                    raise RuntimeError(f"{self.name}: {self.how_it_ended()}, see above")
            if facts is None and time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no answer in time")
        if facts["version"] != __version__:
            raise RuntimeError(
                f"{self.name} has distcorpus {facts['version']}, and here is {__version__}: install the same "
                "version, or name another Python with --python"
            )
        self.facts = facts

    def how_it_ended(self) -> str:
        """In words."""
        code = self.process.wait()
        return (
            "ssh could not connect, or lost the connection" if code == 255 else f"ended with exit code {code}"
        )

    def order(self, arguments: Sequence[str], folders: Mapping[str, Path]) -> None:
        """Say what to run, and bring along certificates."""
        files = {
            f"{name}/{file.name}": file.read_text("ascii")
            for name, folder in folders.items()
            for file in folder.iterdir()
        }
        self._send(json.dumps({"arguments": list(arguments), "files": files}).encode() + b"\n")

    def sign(self) -> None:
        """Give a sign of life."""
        self._send(b"\n")

    def let_go(self) -> None:
        """Tell it to end."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; the connection is cut where that takes too long."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s: does not end: its connection is cut", self.name)
            self.kill()
        for reader in self._readers:
            reader.join(1.0)

    def kill(self) -> None:
        """Cut the connection."""
        self.process.kill()
        self.process.wait()

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # that it has ended is found elsewhere
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def _relay(self, source: IO[bytes], sink: IO[str]) -> None:
        for line in iter(lambda: source.readline(65536), b""):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if sink is sys.stdout and not self.facts and text.startswith(HELLO):
                with suppress(ValueError):
                    self._hello.put(_facts(json.loads(text.removeprefix(HELLO))))
                    continue
            # In one piece: the lines of several hosts would mix.
            print(f"[{self.name}] {text}\n", end="", file=sink, flush=True)
        if sink is sys.stdout:
            self._hello.put(None)


class _Cluster:
    """The head, the workers' hosts, and how they find each other."""

    def __init__(
        self, options: argparse.Namespace, hosts: Mapping[str, str], lifetime: Lifetime, stack: ExitStack
    ) -> None:
        self.options = options
        self.lifetime = lifetime
        self.over = threading.Event()
        self.deadline = time.monotonic() + options.wait
        self.head: Node | None = None
        self.workers: list[Node] = []
        self.stack = stack
        stack.callback(self.end)
        for name, host in hosts.items():
            self.workers.append(Node(name, self._by_ssh(host)))
        self.first = next(iter(hosts.values()))

    def run(self) -> None:
        for worker in self.workers:
            worker.meet(self.deadline, self.lifetime)
        local = [sys.executable, "-m", "distcorpus.cli.node"]
        self.head = Node("head", self._by_ssh(self.first) if self.options.remote_head else local)
        self.head.meet(self.deadline, self.lifetime)
        address = self._address()
        expected = self._start(address)
        threading.Thread(target=self._give_signs, name="signs of life", daemon=True).start()
        self._wait_for(expected, address)
        self._say_how_to_use(len(expected), address)
        self._watch()

    def end(self) -> None:
        """End the workers, which say goodbye to the dispatcher, and then the head."""
        try:
            for nodes, seconds in (
                (self.workers, WORKERS_END),
                ([self.head] if self.head else [], HEAD_ENDS),
            ):
                for node in nodes:
                    node.let_go()
                until = time.monotonic() + seconds
                for node in nodes:
                    node.wait(max(until - time.monotonic(), 0.0))
        except BaseException:
            for node in self._nodes():
                node.kill()
            raise
        finally:
            self.over.set()

    def _nodes(self) -> Iterator[Node]:
        yield from self.workers
        if self.head is not None:
            yield self.head

    def _by_ssh(self, host: str) -> list[str]:
        chosen = [word for option in self.options.ssh_options for word in ("-o", option)]
        # Of an option that is given twice, ssh takes the first.
        remote = shlex.join([self.options.python, "-m", "distcorpus.cli.node"])
        return [SSH[0], *chosen, *SSH[1:], "--", host, f"exec {remote}"]

    def _address(self) -> str:
        """Return where the hosts reach the head."""
        if self.options.head_address:
            return str(self.options.head_address)
        if self.options.remote_head:
            seen = [self.head.facts["address"]] if self.head is not None else []
        else:
            seen = [worker.facts["seen_from"] for worker in self.workers]
        known = [address for address in seen if address]
        if not known:
            raise RuntimeError("ssh does not tell the hosts the address of this machine: give --head-address")
        # This machine may be among the hosts, which others do not reach at its loopback address.
        return next((address for address in known if not is_loopback(address)), known[0])

    def _start(self, address: str) -> set[str]:
        """Tell all what to run; returns the workers' names."""
        options = self.options
        issue = self._authority()
        if options.head_address:
            listen = ["--bind", "0.0.0.0", "--advertise", address]
        else:
            listen = ["--bind", address]
        common = ["--verbose"] if options.verbose else []
        common += [] if options.tls else ["--insecure"]
        head = ["head", *common, *listen, "--port", str(options.port), "--no-broadcast"]
        head += ["--address-file", options.address_file] if options.address_file else []
        folders = {}
        if options.tls:
            folders = {role: issue(role, [address]) for role in (roles.NAMESERVER, roles.DISPATCHER)}
            head += ["--tls", f"{CERTIFICATES}/dispatcher", "--tls-nameserver", f"{CERTIFICATES}/nameserver"]
        assert self.head is not None
        self.head.order([*head, *shlex.split(options.head_options)], folders)
        expected: set[str] = set()
        for worker in self.workers:
            own = worker.facts["address"] or address
            if is_loopback(own):
                own = address
            threads = options.threads or max(worker.facts["cores"] // options.workers, 1)
            arguments = ["worker", *common, "--bind", own, "--host", address, "--port", str(options.port)]
            arguments += ["--no-broadcast", "--name", worker.name, "--wait", f"{options.wait:g}"]
            arguments += ["--workers", str(options.workers), "--threads", str(threads)]
            folders = {}
            if options.tls:
                folders = {roles.WORKER: issue(roles.WORKER, [own])}
                arguments += ["--tls", f"{CERTIFICATES}/worker"]
            worker.order([*arguments, *shlex.split(options.worker_options)], folders)
            numbers = range(options.workers)
            one = options.workers == 1
            expected |= {worker.name} if one else {f"{worker.name}-{number}" for number in numbers}
        return expected

    def _authority(self) -> Any:
        """Make an authority that is forgotten at the end; returns what issues certificates."""
        if not self.options.tls:
            self.stack.callback(use_tls(None))
            return None
        from distcorpus.wire import certificates

        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="distcorpus-ssh-"))
        days = self.options.days or DAYS
        authority = certificates.make_authority(self.folder, days)

        def issue(role: str, hosts: Sequence[str]) -> Path:
            return certificates.issue(authority, role, hosts, days)

        self.client = issue(roles.CLIENT, [])
        self.stack.callback(use_tls(self.client))
        return issue

    def _wait_for(self, expected: set[str], address: str) -> None:
        """Wait until the dispatcher has all workers."""
        location = NameServerLocation(address, self.options.port, broadcast=False)
        missing = expected
        while missing:
            self._check()
            try:
                dispatcher = find_dispatcher(location.locate(), 10.0)
                if dispatcher is not None:
                    missing = expected - {worker["name"] for worker in dispatcher.status()["workers"]}
            except (CommunicationError, NamingError) as error:
                logger.debug("the cluster is not there yet: %s", error)
            if missing and time.monotonic() > self.deadline:
                raise RuntimeError(
                    f"workers that have not joined within {self.options.wait:g} s: "
                    f"{', '.join(sorted(missing))}. Can they reach the head at {address}, and it them? "
                    "Else give --head-address, or a longer --wait"
                )
            self.lifetime.ended.wait(LOOK_EVERY)

    def _say_how_to_use(self, number: int, address: str) -> None:
        variables = {"PYRO_NS_HOST": address, "PYRO_NS_PORT": str(self.options.port)}
        if self.options.tls:
            variables |= {tls.VARIABLE: str(self.client)}
        else:
            variables |= {"PYRO_SERIALIZER": "pickle"}
        if self.options.address_file and not self.options.remote_head:
            variables |= {addressfile.VARIABLE: os.path.abspath(self.options.address_file)}
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        say(
            f"the cluster is complete: {plural(number, 'worker')} on {plural(len(self.workers), 'host')}. "
            "Programs find it with",
            f"    export {exports}",
            "Ctrl-C ends it, on all hosts",
        )

    def _watch(self) -> None:
        """Wait for the end, or until nothing is left."""
        alive, failed = list(self.workers), False
        head_ends_by = math.inf
        while not self.lifetime.ended.wait(LOOK_EVERY):
            assert self.head is not None
            if self.head.ended:
                if self.head.process.returncode:
                    raise RuntimeError(f"head: {self.head.how_it_ended()}")
                say("the cluster was told to end, and has ended")
                return
            for worker in [worker for worker in alive if worker.ended]:
                alive.remove(worker)
                if worker.process.returncode:
                    failed = True
                    logger.error("%s: %s; its jobs go to other workers", worker.name, worker.how_it_ended())
            if not alive:  # they may have been told to end, and the head ends after them
                head_ends_by = min(head_ends_by, time.monotonic() + HEAD_ENDS)
                if failed or time.monotonic() > head_ends_by:
                    raise RuntimeError("no host is left")

    def _check(self) -> None:
        """Complain of what ended before the cluster was complete."""
        _check_interrupt(self.lifetime)
        for node in self._nodes():
            if node.ended:
                raise RuntimeError(f"{node.name}: {node.how_it_ended()}, see above")

    def _give_signs(self) -> None:
        # Until all have ended: the head waits for the workers.
        while not self.over.wait(SIGN_EVERY):
            for node in self._nodes():
                node.sign()


def _check_interrupt(lifetime: Lifetime) -> None:
    if lifetime.ended.is_set():
        raise Interrupted(lifetime.signal, "before the cluster was complete")


def _hosts(given: Sequence[str], hostfile: str | None) -> dict[str, str]:
    """Return the hosts by the names that they are called by: without the user.

    Raises
    ------
    ValueError
        There are none, or one twice, or one that ssh would take for an option.
    """
    lines = []
    if hostfile is not None:
        with reading("--hostfile", hostfile):
            lines = Path(hostfile).read_text("utf-8").splitlines()
    hosts: dict[str, str] = {}
    for host in [*given, *filter(None, (line.partition("#")[0].strip() for line in lines))]:
        name = host.rpartition("@")[2]
        if not name or host.startswith("-") or any(character.isspace() for character in host):
            raise ValueError(f"{host!r} is no host: give HOST or USER@HOST")
        if name in hosts:
            raise ValueError(f"{name} is given twice: for several daemons on a host there is --workers")
        hosts[name] = host
    if not hosts:
        raise ValueError("name the hosts that are to run workers, or a --hostfile with one host per line")
    return hosts


def _facts(said: Any) -> dict[str, Any]:
    """Check what a host says of itself."""
    kinds: dict[str, tuple[type, ...]] = {
        "version": (str,),
        "cores": (int,),
        "seen_from": (str, type(None)),
        "address": (str, type(None)),
    }
    if type(said) is not dict or set(said) != set(kinds):
        raise ValueError("it is something else")
    if not all(type(said[name]) in kind for name, kind in kinds.items()):
        raise ValueError("it is something else")
    return said

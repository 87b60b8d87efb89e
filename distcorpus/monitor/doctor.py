"""What may be wrong with a machine or a cluster, and the remedy: pure functions of facts.

`examination` gathers the facts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from distcorpus._environment import RULES, wrong
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SessionView, Snapshot, WorkerView

State = Literal["ok", "warn", "fail"]

#: Pythons that are tested.
PYTHONS = (3, 10), (3, 13)
#: Packages without which nothing works, and those without which something does not.
NEEDED = "Pyro4", "gensim", "numpy", "scipy", "threadpoolctl", "rich", "tqdm"
USEFUL = {"numba": "kernels are many times slower", "cryptography": "'certs' makes no certificates"}
#: Files that a dispatcher should be able to have open: three connections a worker, and one a program.
FILES = 1024
#: Seconds that clocks may differ.
SKEW = 5.0
#: Seconds before its end that a certificate is worth a word.
EXPIRES_SOON = 7 * 86_400.0
#: Bytes that a spool should have free.
SPOOL_FREE = 1 << 30
#: Seconds that a connection in one building does not take, and bytes a second that it exceeds.
SLOW_PING, SLOW_BYTES = 0.05, 20e6
#: Bytes that have to have travelled, in all and for each job, before their speed says something of the
#: network: the transfer of a small job is mostly waiting.
ENOUGH_BYTES, ENOUGH_BYTES_OF_A_JOB = 10e6, 1e6
#: Seconds that a loss or a failed training run is worth a word.
RECENT = 600.0
#: Workers that are named in one line.
NAMED = 5

#: What each environment variable does.
VARIABLES: Mapping[str, str] = {
    "PYRO_NS_HOST": "the name server's host",
    "PYRO_NS_PORT": "the name server's port",
    "PYRO_NS_BCPORT": "the UDP port of broadcasts for a name server",
    "PYRO_BROADCAST_ADDRS": "the addresses that broadcasts go to",
    "PYRO_SERIALIZER": "how gensim's own classes write messages: it has to be pickle",
    "PYRO_SSL": "whether programs that never import distcorpus speak TLS",
    "PYRO_SSL_CACERTS": "their certification authority",
    "PYRO_SSL_CLIENTCERT": "their certificate",
    "PYRO_SSL_CLIENTKEY": "its key",
    "PYRO_MAX_MESSAGE_SIZE": "how many bytes a message may have",
    "PYRO_MAX_RETRIES": "how often a program with gensim's own classes connects again",
    "DISTCORPUS_TLS": "the folder with this process's certificate",
    "DISTCORPUS_ADDRESS_FILE": "the file that says where the name server is",
    "DISTCORPUS_DISTRIBUTED": "0: models that were trained on a cluster compute in their own process",
    "DISTCORPUS_ALLOW": "classes of your own that may arrive",
    "DISTCORPUS_THREADS": "threads of models without a cluster",
    "DISTCORPUS_REFUSED_SHARE": "how much of a core one host's refused messages may take",
    "DISTCORPUS_DASHBOARD_TOKEN": "the token that the dashboard asks for",
    "DISTCORPUS_KERNELS": "modules with kernels of your own",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's.

    Attributes
    ----------
    name : str
        What was looked at.
    state : {"ok", "warn", "fail"}
    said : str
        What was found.
    remedy : str
        What to do about it; empty where nothing has to be done.
    """

    name: str
    state: State
    said: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is here.

    Attributes
    ----------
    python : tuple of int
        Its version.
    packages : dict of str to str or None
        Versions; None for what is not installed.
    cores : int
        Of the machine.
    usable_cores : int
        Those that this process may run on.
    quota : float or None
        Cores' worth of time that the cgroup has; None for no limit.
    memory : int
        Bytes of the machine.
    memory_limit : int or None
        That the cgroup has.
    blas : tuple of (str, int)
        Each BLAS library and its threads.
    kernels_folder : str or None
        Where compiled kernels are kept; None where that is nowhere.
    kernels_compiled : bool
    files : (int, int)
        How many files a process may have open, softly and at the most.
    spool, spool_free : str, int or None
        The folder that was asked for, and its free bytes; None where nothing can be written there.
    environment : dict of str to str
    own_kernels : tuple of str
        What is wrong with the modules that ``DISTCORPUS_KERNELS`` names.
    """

    python: tuple[int, ...]
    packages: Mapping[str, str | None] = field(default_factory=dict)
    cores: int = 1
    usable_cores: int = 1
    quota: float | None = None
    memory: int = 0
    memory_limit: int | None = None
    blas: tuple[tuple[str, int], ...] = ()
    kernels_folder: str | None = None
    kernels_compiled: bool = False
    files: tuple[int, int] = (FILES, FILES)
    spool: str = ""
    spool_free: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    own_kernels: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """Cores that this process really has."""
        limit = math.inf if self.quota is None else max(1, math.floor(self.quota + 1e-9))
        return int(min(self.cores, self.usable_cores, limit))


def check_machine(machine: Machine) -> Iterator[Check]:
    """Yield what is to be said of this machine and the packages on it."""
    version = ".".join(map(str, machine.python))
    first, last = (".".join(map(str, python)) for python in PYTHONS)
    if PYTHONS[0] <= machine.python[:2] <= PYTHONS[1]:
        yield Check("Python", "ok", version)
    else:
        yield Check("Python", "warn", version, f"use {first} to {last}, with which it is tested")
    yield from _packages(machine.packages)
    yield _cpus(machine)
    limit, memory = machine.memory_limit, text.size(machine.memory)
    if limit is not None and limit < machine.memory:
        memory = f"{text.size(limit)} by the cgroup's limit, of {memory}"
    yield Check("memory", "ok", memory)
    yield from _kernels(machine)
    soft, hard = machine.files
    if hard < FILES:
        remedy = f"raise it (ulimit -Hn {FILES}, or LimitNOFILE= of a systemd unit)"
        yield Check("open files", "warn", f"at most {hard:,} (ulimit -n)", remedy)
    else:
        yield Check("open files", "ok", f"{soft:,}, and up to {hard:,}, which daemons take")
    if machine.spool:
        yield _spool(machine.spool, machine.spool_free, "here")
    yield from check_environment(machine.environment)
    for said in machine.own_kernels:
        remedy = "install it where workers run, or add its folder to PYTHONPATH"
        yield Check("own kernels", "fail", f"DISTCORPUS_KERNELS names {said}", remedy)


def _packages(packages: Mapping[str, str | None]) -> Iterator[Check]:
    missing = [name for name in NEEDED if packages.get(name) is None]
    found = ", ".join(f"{name} {version}" for name, version in packages.items() if version is not None)
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Check("packages", "ok", found)
    for name, what in USEFUL.items():
        if packages.get(name) is None:
            package = '"distcorpus[tls]"' if name == "cryptography" else name
            yield Check(name, "warn", f"not installed: {what}", f"pip install {package}")


def _cpus(machine: Machine) -> Check:
    cpus = machine.cpus
    said = text.plural(cpus, "core")
    if cpus < machine.cores:
        why = (
            "the cgroup's quota"
            if machine.quota is not None and machine.quota < machine.cores
            else "affinity"
        )
        said += f" of {machine.cores}, by {why}"
    for library, threads in machine.blas:
        if threads > cpus:
            remedy = (
                f"set OPENBLAS_NUM_THREADS={cpus}, and worker --threads and --blas-threads to {cpus} at most"
            )
            return Check("cores", "warn", f"{said}; {library} has {text.plural(threads, 'thread')}", remedy)
    libraries = "; ".join(f"{library}, {text.plural(threads, 'thread')}" for library, threads in machine.blas)
    return Check("cores", "ok", f"{said}; BLAS: {libraries or 'none that threadpoolctl knows'}")


def _kernels(machine: Machine) -> Iterator[Check]:
    if machine.packages.get("numba") is None:
        return
    if machine.kernels_folder is None:
        said = "no folder can be written to: each process compiles them anew, for a minute"
        yield Check("kernels", "warn", said, "set NUMBA_CACHE_DIR to a folder that can be written to")
    elif not machine.kernels_compiled:
        said = f"not compiled yet; they will be in {machine.kernels_folder}"
        yield Check("kernels", "warn", said, "run 'distcorpus warm' once")
    else:
        yield Check("kernels", "ok", f"compiled, in {machine.kernels_folder}")


def _spool(folder: str, free: int | None, where: str) -> Check:
    if free is None:
        return Check("spool", "fail", f"{folder} ({where}) cannot be written to", "give another --spool DIR")
    if free < SPOOL_FREE:
        remedy = "make room there, or give another --spool DIR"
        return Check("spool", "fail", f"{folder} ({where}) has {text.size(free)} free", remedy)
    return Check("spool", "ok", f"{folder} ({where}) has {text.size(free)} free")


def check_environment(environment: Mapping[str, str]) -> Iterator[Check]:
    """Yield what each variable of ours and of Pyro4's does, and what is wrong with it."""
    wrong_ones = wrong(environment)
    for name, value in sorted(environment.items()):
        if not name.startswith(("PYRO_", "DISTCORPUS_")):
            continue
        what = VARIABLES.get(name)
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        if name.endswith(("TOKEN", "PASSWD", "HMAC_KEY")):
            shown = "(a secret)"
        if what is None and name not in RULES:
            yield Check(name, "warn", f"{shown!r}: nothing reads it", _spelling(name))
        elif name in wrong_ones:
            allowed = wrong_ones[name]
            said = f"{shown!r} is not {allowed}: {what or 'a setting of Pyro4'}"
            yield Check(name, "fail", said, f"set {name} to {allowed}, or unset it")
        elif name == "PYRO_MAX_MESSAGE_SIZE" and 0 < int(value) < 1 << 24:
            said = f"{text.size(int(value))}: larger messages are refused"
            yield Check(name, "warn", said, "unset it, or give bytes, such as 1073741824")
        elif name != "PYRO_SERIALIZER" or value == "pickle":
            yield Check(name, "ok", f"{shown}: {what or 'a setting of Pyro4'}")
    serializer = environment.get("PYRO_SERIALIZER")
    if serializer is None:
        said = (
            "not set: only programs with gensim's own classes that never import distcorpus need it, as pickle"
        )
        yield Check("PYRO_SERIALIZER", "ok", said)
    elif serializer != "pickle":
        yield Check(
            "PYRO_SERIALIZER",
            "warn",
            f"set to {serializer!r}: programs with gensim's own classes and without distcorpus are refused",
            "export PYRO_SERIALIZER=pickle, or unset it where no such program is started",
        )


def _spelling(name: str) -> str:
    near = get_close_matches(name, {**RULES, **VARIABLES}, 1)
    return f"is the name misspelt? there is {near[0]}" if near else "is the name misspelt?"


# Of the cluster, from the dispatcher's snapshot.


def check_snapshot(
    snapshot: Snapshot, version: str, asked: float, seconds: float, here: Mapping[str, str] | None = None
) -> Iterator[Check]:
    """Yield what is to be said of a cluster that tells of itself.

    Parameters
    ----------
    snapshot : Snapshot
    version : str
        That of distcorpus here.
    asked, seconds : float
        When the snapshot was asked for, in seconds since 1970, and how long the answer took.
    here : mapping of str to str, optional
        The packages here, as the dispatcher's ``versions`` has them.
    """
    if snapshot.version != version:
        said = f"the dispatcher has distcorpus {snapshot.version}, this is {version}"
        remedy = f"install the same version everywhere (pip install distcorpus=={snapshot.version})"
        yield Check("version", "fail", said, remedy)
    else:
        yield Check("version", "ok", f"distcorpus {version} here and at the dispatcher")
    yield _certificate("the dispatcher's certificate", snapshot.certificate_expires, asked)
    offset = snapshot.time - asked - seconds / 2
    if abs(offset) > SKEW + seconds / 2:
        said = f"the dispatcher's clock differs by {text.duration(abs(offset))}"
        yield Check("clocks", "warn", said, "run a time service (chrony, systemd-timesyncd) on both hosts")
    yield from _workers(snapshot)
    yield _versions(snapshot)
    yield from _links(snapshot)
    if snapshot.spool:
        yield _spool(snapshot.spool, snapshot.bytes_spool_free, f"on {snapshot.host}")
    yield from _memory(snapshot)
    yield from _sessions(snapshot)


def _certificate(name: str, expires: float | None, now: float) -> Check:
    if expires is None:
        return Check(name, "ok", "the cluster speaks no TLS")
    left = expires - now
    remedy = "issue it again ('distcorpus certs issue') and copy it over the old one: nothing is restarted"
    if left <= 0:
        return Check(name, "fail", "has expired", remedy)
    state: State = "warn" if left < EXPIRES_SOON else "ok"
    return Check(name, state, f"is valid for {text.duration(left)}", remedy if state == "warn" else "")


check_certificate = _certificate

_UNUSABLE: Mapping[str, tuple[State, str]] = {
    "unreachable": (
        "fail",
        "the dispatcher opens the connection, so the worker's address has to be reachable from there (its "
        "--bind, --advertise, --bind-port, firewalls); or its process is gone: start it again",
    ),
    "refused": ("fail", "install the dispatcher's version of distcorpus there, and start it again"),
    "expelled": ("fail", "see what runs there (memory, software), and start it at another --bind-port"),
    "stock": ("fail", "stop gensim's own workers, and start 'distcorpus worker' in their place"),
    "silent": ("warn", "its host is overloaded, stopped or cut off: its jobs went to other workers"),
    "connecting": ("warn", "ask again in some seconds"),
    "leaving": ("ok", ""),
}


def _workers(snapshot: Snapshot) -> Iterator[Check]:
    ready = [worker for worker in snapshot.workers if worker.state == "ready"]
    if not ready:
        yield Check(
            "workers",
            "fail",
            "the dispatcher has none that is ready",
            "start 'distcorpus worker' on any host; if some run, they found another name server, or the "
            "dispatcher cannot reach them",
        )
    else:
        threads = sum(worker.threads or 0 for worker in ready)
        yield Check("workers", "ok", f"{len(ready):,} ready, with {text.plural(threads, 'thread')}")
    for state, (how, remedy) in _UNUSABLE.items():
        found = [worker for worker in snapshot.workers if worker.state == state]
        for worker in found[:NAMED]:
            said = f"{worker.state}{f': {worker.reason}' if worker.reason else ''}"
            said += f" (at {worker.uri})" if worker.uri else ""
            yield Check(f"worker {worker.name}", how, said, remedy)
        if len(found) > NAMED:
            yield Check("workers", how, f"{len(found) - NAMED:,} more are {state}", remedy)
    lost = [one for one in snapshot.workers if one.jobs_failed]
    for worker in lost[:NAMED]:
        said = f"{text.plural(worker.jobs_failed, 'job')} raised an error there"
        yield Check(f"worker {worker.name}", "warn", said, "see its log, and the dispatcher's")
    recent = [
        one
        for one in snapshot.incidents
        if one.kind in ("worker lost", "session failed") and snapshot.time - one.time < RECENT
    ]
    for incident in recent[-NAMED:]:
        ago = text.duration(max(snapshot.time - incident.time, 0.0))
        who = incident.worker or incident.session
        first = incident.text.splitlines()[0] if incident.text else ""
        remedy = (
            "see its log; most often memory ran out" if incident.worker else "see docs/troubleshooting.md"
        )
        yield Check(incident.kind, "warn", f"{who}, {ago} ago: {first}", remedy)


def _versions(snapshot: Snapshot) -> Check:
    kernels = Counter(worker.kernels for worker in snapshot.workers if worker.kernels)
    if len(kernels) > 1:
        said = "; ".join(f"{number} with {name}" for name, number in kernels.most_common(NAMED))
        remedy = (
            "install the same numba and distcorpus everywhere: a training run uses workers of one kind only"
        )
        return Check("versions", "warn", f"workers have different kernels: {said}", remedy)
    if snapshot.may_differ:
        said = "; ".join(snapshot.may_differ[:NAMED])
        return Check("versions", "warn", said, "install the same versions everywhere, for the same last bits")
    table = ", ".join(f"{name} {version}" for name, version in snapshot.versions.items() if name != "kernels")
    return Check("versions", "ok", f"the dispatcher and all its workers: {table}")


def _links(snapshot: Snapshot) -> Iterator[Check]:
    for worker in snapshot.workers:
        if worker.clock_offset is not None and abs(worker.clock_offset) > SKEW:
            said = f"its clock differs from the dispatcher's by {text.duration(abs(worker.clock_offset))}"
            remedy = "run a time service (chrony, systemd-timesyncd) on both hosts"
            yield Check(f"worker {worker.name}", "warn", said, remedy)
    known = [worker for worker in snapshot.workers if worker.ping_seconds is not None]
    if not known:
        return
    # On the dispatcher's own host there is no network.
    elsewhere = [worker for worker in known if worker.host != snapshot.host]
    speeds = {worker.name: speed for worker in elsewhere if (speed := _speed(worker)) is not None}
    for worker in known:
        narrow = speeds.get(worker.name, math.inf) < SLOW_BYTES
        if not narrow and (worker.ping_seconds or 0) <= SLOW_PING:
            continue
        said = f"{text.duration(worker.ping_seconds)} there and back"
        said += f", {text.size(speeds[worker.name])}/s" if worker.name in speeds else ""
        remedy = "its network, or its host, is slow or busy: prefer one worker with several --threads there"
        yield Check(f"link to {worker.name}", "warn", said, remedy)
    longest = max(worker.ping_seconds or 0.0 for worker in known)
    said = f"{text.plural(len(known), 'worker')}, at most {text.duration(longest)} there and back"
    if speeds:
        said += f", at least {text.size(min(speeds.values()))}/s"
    yield Check("links", "ok", said)


def _speed(worker: WorkerView) -> float | None:
    """Return the bytes a second of its jobs' transfers, once enough has travelled."""
    nbytes = worker.bytes_sent + worker.bytes_received
    enough = nbytes > max(ENOUGH_BYTES, ENOUGH_BYTES_OF_A_JOB * worker.jobs)
    return nbytes / worker.transfer_seconds if enough and worker.transfer_seconds else None


def _memory(snapshot: Snapshot) -> Iterator[Check]:
    taken = snapshot.bytes_tables + snapshot.bytes_documents
    if snapshot.bytes_limit and taken > 0.9 * snapshot.bytes_limit:
        said = f"models take {text.size(taken)} of the {text.size(snapshot.bytes_limit)} that they may"
        remedy = (
            "train when others have ended, or start the dispatcher with a larger --total-memory or --spool"
        )
        yield Check("the dispatcher's memory", "warn", said, remedy)
    refused = snapshot.totals.connections_refused
    if refused:
        said = ", ".join(f"{number:,} for {reason}" for reason, number in refused.items())
        remedy = "the dispatcher's log has who and why; see docs/tls.md"
        yield Check("refused connections", "warn", said, remedy)


def _sessions(snapshot: Snapshot) -> Iterator[Check]:
    waiting = [session for session in snapshot.sessions if session.waits_for == "no worker"]
    for session in waiting[:NAMED]:
        yield Check(
            f"training run {session.name}", "fail", _waits(session), "start 'distcorpus worker' on any host"
        )
    full = [session for session in snapshot.sessions if 0 < session.max_queued <= session.chunks_queued]
    for session in full[:NAMED]:
        queued = f"{session.chunks_queued} of {text.plural(session.max_queued, 'chunk')}"
        said = f"{queued} wait: workers are slower than its program"
        yield Check(f"training run {session.name}", "ok", said)
    if snapshot.sessions and not waiting:
        yield Check(
            "training runs", "ok", f"{text.plural(len(snapshot.sessions), 'model')} in training or open"
        )


def _waits(session: SessionView) -> str:
    of = f" with {session.kernels}" if session.kernels else ""
    return f"waits for a worker{of}, and there is none ready"


def verdict(checks: Iterable[Check]) -> int:
    """Return the exit status: 0 where all is well, 1 with a warning, 2 with a failure."""
    return max(({"ok": 0, "warn": 1, "fail": 2}[check.state] for check in checks), default=0)

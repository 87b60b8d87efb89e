"""Train again and again, and kill clients in the middle of their calls: what the daemons take stays the same.

``nice python scripts/endurance.py`` makes 300 short training runs and kills 100 clients in mid-``putjob`` and
mid-``getstate``, on one cluster of this machine with a spool and journals. Meanwhile it reads from /proc the
resident memory, the threads and the descriptors of the name server, the dispatcher and each worker. It prints
the first and the last values and the slope: what each hundred runs, or each hundred killed clients, add. It
fails where a slope is too large, a session is left, or the spool's folder or that of the journals has a file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gensim import models as gensims

from distcorpus import LdaModel, LocalCluster, LsiModel
from distcorpus.wire import connect, find, lookup, names

NUM_TERMS = 2000
#: What a hundred runs or killed clients may add: MB of resident memory, threads, descriptors.
MOST_SLOPE = {"memory": 2.0, "threads": 0.5, "descriptors": 0.5}
#: What may come and go in the time that was measured, and is no growth.
SLACK = {"memory": 4.0, "threads": 1.0, "descriptors": 1.0}
#: Seconds over which threads and descriptors are looked at: those of the last connection end meanwhile.
SETTLING = 0.3
#: The part of the measurements, from the first on, in which caches and memory pools fill.
WARM_UP = 1 / 3
#: Seconds in which the dispatcher has to end what belonged to clients that are gone.
SESSIONS_END = 30.0

Documents = list[list[tuple[int, int]]]


@dataclass
class Daemon:
    """One process, and what it took at each look."""

    what: str
    pid: int
    at: list[int] = field(default_factory=list)
    taken: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MOST_SLOPE})

    def look(self, at: int) -> None:
        """Read /proc."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        resident = dict(line.split(":", 1) for line in status)["VmRSS"]
        self.at.append(at)
        self.taken["memory"].append(int(resident.split()[0]) / 1024)
        self.taken["threads"].append(np.inf)
        self.taken["descriptors"].append(np.inf)
        self.look_again()

    def look_again(self) -> None:
        """Count again what may have ended meanwhile."""
        for name, folder in (("threads", "task"), ("descriptors", "fd")):
            count = len(list(Path(f"/proc/{self.pid}/{folder}").iterdir()))
            self.taken[name][-1] = min(self.taken[name][-1], count)

    def slope(self, name: str) -> float:
        """Return what a hundred more add, by least squares over the looks after the warm-up."""
        first = int(len(self.at) * WARM_UP)
        return 100.0 * float(np.polyfit(self.at[first:], self.taken[name][first:], 1)[0])

    def grows(self, name: str) -> bool:
        """Whether that is more than it may be."""
        slope, span = self.slope(name), self.at[-1] * (1 - WARM_UP) / 100
        return slope > MOST_SLOPE[name] and slope * span > SLACK[name]


def look(daemons: Sequence[Daemon], at: int) -> None:
    """Read /proc, until the threads and descriptors of the last connections are gone."""
    for daemon in daemons:
        daemon.look(at)
    deadline = time.monotonic() + SETTLING
    while time.monotonic() < deadline:
        time.sleep(0.02)
        for daemon in daemons:
            daemon.look_again()


def daemons_of(cluster: LocalCluster) -> list[Daemon]:
    """Return the processes of a cluster."""
    dispatcher, nameserver = cluster._daemons
    workers = [Daemon(f"worker {number}", one.pid) for number, one in enumerate(cluster.workers, 1)]
    return [Daemon("name server", nameserver.pid), Daemon("dispatcher", dispatcher.pid), *workers]


def documents_of(number: int, seed: int) -> Documents:
    """Return documents of random words, the same for the same seed."""
    chance = np.random.default_rng(seed)
    words = (np.unique(chance.zipf(1.3, 60) % NUM_TERMS) for _ in range(number))
    return [[(int(word), int(chance.integers(1, 5))) for word in ids] for ids in words]


def train(number: int, documents: Documents) -> bytes:
    """Make one short training run, of each kind in turn; returns the bytes of what it learnt."""
    words = {term: str(term) for term in range(NUM_TERMS)}
    common: dict[str, Any] = {"id2word": words, "num_topics": 5, "chunksize": 50, "distributed": True}
    lda = {**common, "random_state": 1, "iterations": 5, "eval_every": None}
    if number % 4 == 0:
        return bytes(LdaModel(documents, passes=2, **lda).state.sstats.tobytes())
    if number % 4 == 1:
        return bytes(LsiModel(documents, **common).projection.u.tobytes())
    if number % 4 == 2:
        return bytes(gensims.LdaModel(documents, update_every=0, **lda).state.sstats.tobytes())
    return bytes(gensims.LsiModel(documents, **common).projection.u.tobytes())


def client(host: str, port: int, number: int, documents: Documents, began: Any) -> None:
    """Be a client that is killed in its call, and says when that begins; `number` says in which."""
    nameserver = find(host, port, broadcast=False)
    kind, getstate = (names.LSI_DISPATCHER, names.LDA_DISPATCHER)[number % 2], number % 4 >= 2
    uri = lookup(nameserver, kind)
    assert uri is not None
    proxy = connect(uri, serializer="pickle")
    proxy.initialize(id2word=dict.fromkeys(range(NUM_TERMS), "a"), num_topics=5, chunksize=50)
    if kind == names.LSI_DISPATCHER:
        proxy.reset()
    else:
        eta = np.full(NUM_TERMS, 0.2)
        state = gensims.ldamodel.LdaState(eta, (5, NUM_TERMS), dtype=np.float32)
        state.sstats[:] = np.random.default_rng(0).random(state.sstats.shape)
        proxy.reset(state)
    if getstate:
        for _ in range(4):
            proxy.putjob(documents)
        began.send(number)
        proxy.getstate()
    else:
        began.send(number)
        while True:
            proxy.putjob(documents)


def kill_client(cluster: LocalCluster, number: int, documents: Documents, chance: random.Random) -> None:
    """Start a client and kill it a moment after its call has begun."""
    where = cluster.environ()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    arguments = where["PYRO_NS_HOST"], int(where["PYRO_NS_PORT"]), number, documents, theirs
    process = context.Process(target=client, args=arguments, daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(60):
            raise RuntimeError(f"client {number} did not come to its call")
        ours.recv()
        time.sleep(chance.uniform(0, 0.05))
    finally:
        process.kill()
        process.join()
        ours.close()


def wait_for_no_session(cluster: LocalCluster) -> None:
    """Wait until the dispatcher has no session.

    Raises
    ------
    RuntimeError
        If one is left.
    """
    deadline = time.monotonic() + SESSIONS_END
    while sessions := cluster.dispatcher.status()["sessions"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"sessions are left: {', '.join(sessions)}")
        time.sleep(0.02)


@dataclass
class Report:
    """What came of it."""

    daemons: dict[str, list[Daemon]]  # by what was done
    left: list[str]  # files in the spool's folder and that of the journals

    def failures(self) -> list[str]:
        """Say what is not flat, and what is left."""
        steep = [
            f"{daemon.what}: {name} grows by {daemon.slope(name):.2f} in a hundred {what}"
            for what, daemons in self.daemons.items()
            for daemon in daemons
            for name in MOST_SLOPE
            if daemon.grows(name)
        ]
        return steep + [f"left: {name}" for name in self.left]

    def table(self) -> str:
        """Return it as Markdown."""
        lines = [
            "| | memory (MB) | per hundred | threads | per hundred | descriptors | per hundred |",
            "|---|---|---|---|---|---|---|",
        ]
        for what, daemons in self.daemons.items():
            for daemon in daemons:
                cells = [f"{daemon.what}, {daemon.at[-1]} {what}"]
                for name, digits in (("memory", 1), ("threads", 0), ("descriptors", 0)):
                    taken = daemon.taken[name]
                    first = taken[int(len(taken) * WARM_UP)]
                    cells += [f"{first:.{digits}f} → {taken[-1]:.{digits}f}", f"{daemon.slope(name):+.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)


def endure(runs: int, killed: int, every: int, seed: int = 1) -> Report:
    """Do it.

    Parameters
    ----------
    runs, killed : int
        Training runs, and clients to kill.
    every : int
        How many of them come between two looks.
    seed : int

    Raises
    ------
    RuntimeError
        If a session is left, or a run gave other bytes than one of its kind before.
    """
    chance = random.Random(seed)
    documents = documents_of(200, seed)
    learnt: dict[int, bytes] = {}
    report: dict[str, list[Daemon]] = {}
    with tempfile.TemporaryDirectory(prefix="distcorpus-") as folder:
        spool = Path(folder) / "spool"
        options = ("--spool", str(spool), "--resume", "--memory", "0.0001")
        with LocalCluster(n_workers=2, dispatcher_options=options) as cluster:

            def run(number: int) -> None:
                if learnt.setdefault(number % 4, trained := train(number, documents)) != trained:
                    raise RuntimeError(f"run {number} gave other bytes than one of its kind before")

            def kill(number: int) -> None:
                kill_client(cluster, number, documents, chance)

            multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
            for what, count, once in (("runs", runs, run), ("killed clients", killed, kill)):
                report[what] = daemons_of(cluster)
                for number in range(1, count + 1):
                    once(number)
                    if number % every == 0:
                        wait_for_no_session(cluster)
                        look(report[what], number)
            for number in range(4):  # the cluster is as good as it was
                run(number)
            wait_for_no_session(cluster)
            left = [str(path.relative_to(spool)) for path in spool.rglob("*") if not path.is_dir()]
            left += [str(path.relative_to(spool)) for path in (spool / "sessions").iterdir()]
    return Report(report, left)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300, help="training runs (default: %(default)s)")
    parser.add_argument("--killed", type=int, default=100, help="clients to kill (default: %(default)s)")
    parser.add_argument("--every", type=int, default=5, help="of them between two looks (default: 5)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    report = endure(options.runs, options.killed, options.every, options.seed)
    print(report.table())
    failures = report.failures()
    print("\n".join(failures) or "flat; no session left, the folders of spool and journals empty")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

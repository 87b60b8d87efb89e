"""A whole cluster on this machine: name server, dispatcher and workers as processes on loopback."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from distcorpus._machine import available_cores
from distcorpus._text import plural
from distcorpus.wire import abort, addressfile, connect, names, roles, tls, use_tls
from distcorpus.wire.inherited import announce
from distcorpus.wire.location import use_nameserver
from distcorpus.wire.nameserver import find, lookup

#: Seconds that a process which was told to end is waited for before it is killed.
END_TIMEOUT = 10.0
#: The same for a worker that leaves while the cluster goes on: it finishes its job, for up to a minute.
LEAVE_TIMEOUT = 90.0


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """A worker process of a `LocalCluster`.

    Attributes
    ----------
    name : str
        Its name in logs, errors and the name server.
    pid : int
        Its process id.
    address : str
        ``host:port`` that it listens on.
    """

    name: str
    pid: int
    address: str


class LocalCluster:
    """Name server, dispatcher and workers as processes of this machine, on loopback and free ports.

    While the cluster is open, the models of the thread that opened it find it (``distributed=True``). If
    several are open, a thread uses the latest that it opened itself; a thread that opened none uses the
    latest of all. They may be closed in any order. A process that is started by multiprocessing or loky
    (joblib) uses the same cluster as the thread that started it. No process is left behind: not after an
    exception, not after Ctrl-C, not when this process is killed.

    Parameters
    ----------
    n_workers : int, default 2
        Worker processes.
    threads : int, default 1
        Threads of each worker.
    blas_threads : int, optional
        BLAS threads of each worker; by default the cores of this machine divided by the workers.
    dispatcher_options : sequence of str, optional
        More options for ``distcorpus dispatcher``.
    corpora : sequence of path-like, optional
        Folders with corpora on disk (`Corpus`), which the workers and the dispatcher read by themselves.
    tls : bool, default False
        Use TLS, with certificates that are made for this cluster alone: nobody else on this machine can use
        it. Needs the cryptography library (``pip install 'distcorpus[tls]'``).
    dashboard : bool, default False
        Show the cluster in a browser, at `dashboard_link`; with `tls` it asks for a token, which is in the
        link. Needs ``pip install 'distcorpus[dashboard]'``.
    verbose : bool, default False
        Let the daemons log what they do to standard error.
    timeout : float, default 300
        Seconds in which everything has to be ready (the kernels are compiled the first time on a machine).

    Raises
    ------
    RuntimeError
        If a process does not start, or certificates cannot be made.
    TimeoutError
        If they are not ready in time.

    Examples
    --------
    >>> from distcorpus import LocalCluster
    >>> from gensim.models import LsiModel
    >>> with LocalCluster(n_workers=2) as cluster:  # doctest: +SKIP
    ...     model = LsiModel(corpus, id2word=dictionary, distributed=True)
    """

    def __init__(
        self,
        n_workers: int = 2,
        *,
        threads: int = 1,
        blas_threads: int | None = None,
        dispatcher_options: tuple[str, ...] = (),
        corpora: Sequence[str | os.PathLike[str]] = (),
        tls: bool = False,
        dashboard: bool = False,
        verbose: bool = False,
        timeout: float = 300.0,
    ) -> None:
        if n_workers < 0 or threads < 1:
            raise ValueError(
                f"n_workers={n_workers!r}, threads={threads!r}: give 0 or more workers, 1 or more threads"
            )
        if dashboard:
            require_dashboard()
        self._threads = threads
        self._corpora = [f"--corpora={os.fspath(folder)}" for folder in corpora]
        self._blas_threads = blas_threads or max(available_cores() // max(n_workers, 1), 1)
        self._verbose = verbose
        self._timeout = timeout
        self._daemons: list[_Process] = []
        self._workers: list[_Process] = []
        self._dashboards: list[_Process] = []
        self._leaving: list[_Process] = []
        self._num_started = 0
        self._dispatcher: Any = None
        self._undo_location: Callable[[], None] = lambda: None
        self._undo_announcement: Callable[[], None] = lambda: None
        self._certificates = _Certificates() if tls else None
        self._undo_tls = use_tls(None if self._certificates is None else self._certificates.of(roles.CLIENT))
        # Also when the interpreter ends, and when the cluster is simply forgotten.
        self._processes = (self._dashboards, self._leaving, self._workers, self._daemons)
        self._finalizer = weakref.finalize(self, _end_all, *self._processes)
        try:
            self._start(n_workers, dispatcher_options, dashboard)
        except BaseException:
            self.close()
            raise

    def _start(self, n_workers: int, dispatcher_options: tuple[str, ...], dashboard: bool) -> None:
        deadline = time.monotonic() + self._timeout
        nameserver = self._launch("nameserver", "--bind-port", "0")
        self._daemons.append(nameserver)
        host, port = nameserver.ready(deadline)["location"].rsplit(":", 1)
        self._nameserver = (host, int(port))
        dispatcher = self._launch("dispatcher", *self._find(), *self._corpora, *dispatcher_options)
        self._daemons.insert(0, dispatcher)
        self._add_workers(n_workers)
        if dashboard:
            token = ("--token",) if self._certificates is not None else ()
            options = ("--bind", "127.0.0.1:0", *token)
            self._dashboards.append(self._launch("dashboard", *self._find(), *options))
        from distcorpus.algorithms import chunk  # and with it scipy

        chunk.warm()  # this process will have documents to read, and nothing else to do now
        dispatcher.ready(deadline)
        uri = lookup(find(host, int(port), broadcast=False), names.DISPATCHER)
        if uri is None:
            raise RuntimeError("the dispatcher has lost its name to another one")
        self._dispatcher = connect(uri, timeout=30.0)
        self._wait_for_workers(deadline)
        for process in self._dashboards:
            process.ready(deadline)
        self._undo_location = use_nameserver(host, int(port))
        folder = None if self._certificates is None else self._certificates.of(roles.CLIENT)
        self._undo_announcement = announce(host, int(port), folder, self._undo_settings)

    @property
    def workers(self) -> list[LocalWorker]:
        """The workers that live and are ready."""
        return [
            LocalWorker(process.facts["name"], process.pid, process.facts["location"])
            for process in self._workers
            if process.is_ready
        ]

    @property
    def dispatcher(self) -> Any:
        """A proxy of the dispatcher: ``status()``, ``records(session)``, ``recorded_sessions()``."""
        return self._dispatcher

    @property
    def dispatcher_pid(self) -> int:
        """Process id of the dispatcher."""
        return self._daemons[0].pid

    @property
    def dashboard_link(self) -> str | None:
        """Where a browser finds the dashboard; None where there is none."""
        ready = [process.facts["url"] for process in self._dashboards if process.is_ready]
        return ready[0] if ready else None

    def environ(self, role: str = roles.CLIENT) -> dict[str, str]:
        """Return the environment variables with which another process finds this cluster.

        Parameters
        ----------
        role : {"client", "worker", "dispatcher", "viewer"}
            As what: with TLS, a certificate is for one role.
        """
        host, port = self._nameserver
        where = {"PYRO_NS_HOST": host, "PYRO_NS_PORT": str(port), addressfile.VARIABLE: ""}
        if self._certificates is None:
            return {**where, "PYRO_SERIALIZER": "pickle", "PYRO_SSL": "false", tls.VARIABLE: ""}
        folder = self._certificates.of(role)
        return {**where, **tls.stock_variables(folder), tls.VARIABLE: folder}

    def scale(self, n_workers: int, *, wait: bool = True) -> None:
        """Start or end workers until there are `n_workers`; training runs go on meanwhile.

        Parameters
        ----------
        n_workers : int
            How many workers there shall be. The youngest are the first to leave; they finish the job under
            way.
        wait : bool, default True
            Wait until the dispatcher knows of it, and start others for workers that die meanwhile.

        Raises
        ------
        RuntimeError
            If a worker ends before it is ready.
        TimeoutError
            If it takes longer than the cluster's `timeout`.
        """
        if n_workers < 0:
            raise ValueError(f"n_workers={n_workers!r}: give 0 or more")
        deadline = time.monotonic() + self._timeout
        while True:
            self._start_and_end(n_workers)
            if not wait:
                return
            for process in self._leaving:
                process.wait(LEAVE_TIMEOUT)
            self._wait_for_workers(deadline)
            if all(process.alive for process in self._workers):
                return
            # One that had been killed a moment before still looked alive.
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{plural(n_workers, 'worker')} did not start in time: those that start die"
                )

    def _start_and_end(self, n_workers: int) -> None:
        self._workers[:] = [process for process in self._workers if process.alive]
        self._add_workers(n_workers - len(self._workers))
        leaving = self._workers[n_workers:]
        self._leaving[:] = [process for process in self._leaving if process.alive] + leaving
        del self._workers[n_workers:]
        for process in leaving:
            process.terminate()

    def close(self) -> None:
        """End every process; done when the ``with`` block ends."""
        self._undo_announcement()
        if self._dispatcher is not None:
            abort(self._dispatcher)
            self._dispatcher = None
        self._undo_settings()
        self._finalizer.detach()
        _end_all(*self._processes)

    def _undo_settings(self) -> None:
        self._undo_location()
        self._undo_tls()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        host, port = self._nameserver
        link = self.dashboard_link
        shown = f", dashboard {link}" if link is not None else ""
        return f"LocalCluster(name server {host}:{port}, {plural(len(self.workers), 'worker')}{shown})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        link = self.dashboard_link
        facts = {
            "name server": "{}:{}".format(*self._nameserver),
            "workers": f"{len(self.workers)}, of {self._threads} thread{'s' * (self._threads > 1)} each",
            "TLS": "no" if self._certificates is None else "yes",
        }
        cells = {name: html.escape(text) for name, text in facts.items()}
        if link is not None:
            shown = html.escape(link)
            cells["dashboard"] = f'<a href="{shown}" target="_blank" rel="noopener noreferrer">{shown}</a>'
        rows = "".join(f"<tr><th>{name}</th><td>{cell}</td></tr>" for name, cell in cells.items())
        return f"<b>LocalCluster</b><table>{rows}</table>"

    def _find(self) -> tuple[str, ...]:
        host, port = self._nameserver
        return ("--host", host, "--port", str(port), "--no-broadcast")

    def _launch(self, *arguments: str) -> _Process:
        role = roles.VIEWER if arguments[0] == "dashboard" else arguments[0]
        folder = "" if self._certificates is None else self._certificates.of(role)
        return _Process([*arguments, *(["--verbose"] if self._verbose else [])], folder)

    def _add_workers(self, number: int) -> None:
        for _ in range(number):
            options = (
                "--threads",
                str(self._threads),
                "--blas-threads",
                str(self._blas_threads),
                *self._corpora,
            )
            name = f"worker-{os.getpid()}-{self._num_started}"
            self._workers.append(self._launch("worker", *self._find(), *options, "--name", name))
            self._num_started += 1

    def _wait_for_workers(self, deadline: float) -> None:
        """Wait until the dispatcher has every living worker, and no other."""
        for process in self._workers:
            process.ready(deadline)
        while True:
            wanted = {worker.name for worker in self.workers}
            connected = {worker["name"] for worker in self._dispatcher.status()["workers"]}
            if wanted == connected:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the dispatcher has {sorted(connected)}, not {sorted(wanted)}, as its workers"
                )
            time.sleep(0.05)


def require_dashboard() -> None:
    """Raise an error that says what to install where what the dashboard needs is not there."""
    for module in ("starlette", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"{module} is not installed: pip install 'distcorpus[dashboard]'")


class _Certificates:
    """A certification authority in a directory that vanishes with it, and a certificate for each role."""

    def __init__(self) -> None:
        from distcorpus.wire import certificates

        self._directory = tempfile.TemporaryDirectory(prefix="distcorpus-tls-")
        authority = certificates.make_authority(self._directory.name)
        self._folders = {
            role: certificates.issue(
                authority, role, ("127.0.0.1",) if role in roles.SERVERS else (), certificates.AUTHORITY_DAYS
            )
            for role in roles.ROLES
        }

    def of(self, role: str) -> str:
        """The folder of a role's certificate."""
        return str(self._folders[role])


class _Process:
    """A daemon process that ends when we end: its standard input is a pipe that only we hold."""

    def __init__(self, arguments: list[str], tls_folder: str) -> None:
        self.what = arguments[0]
        self.facts: dict[str, Any] = {}
        self._received = b""
        self._report: int | None
        self._report, write = os.pipe()
        command = [sys.executable, "-m", "distcorpus", *arguments, "--until-eof", "--report-fd", str(write)]
        try:
            # In a session of its own: Ctrl-C at a terminal is for the training, not for the cluster.
            self._popen = subprocess.Popen(
                command,
                env={**os.environ, tls.VARIABLE: tls_folder},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(write,),
                start_new_session=True,
            )
        finally:
            os.close(write)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def ready(self, deadline: float) -> dict[str, Any]:
        """Wait for the facts that the daemon reports when it is ready."""
        while self._report is not None:
            readable, _, _ = select.select([self._report], [], [], max(deadline - time.monotonic(), 0.0))
            if not readable:
                raise TimeoutError(f"the {self.what} process {self.pid} is not ready in time")
            data = os.read(self._report, 65536)
            self._received += data
            if not data:
                os.close(self._report)
                self._report = None
                if not self._received:
                    raise RuntimeError(
                        f"the {self.what} process ended with exit code {self._popen.wait()}; "
                        "its errors stand above"
                    )
                self.facts = json.loads(self._received)
        return self.facts

    @property
    def is_ready(self) -> bool:
        """Whether it lives and has reported its facts."""
        with suppress(TimeoutError, RuntimeError):
            self.ready(time.monotonic())
        return self.alive and bool(self.facts)

    def terminate(self) -> None:
        if self.alive:
            self._popen.terminate()

    def wait(self, timeout: float = END_TIMEOUT) -> None:
        """Wait until it has ended, and kill it where that takes too long."""
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
        self._let_go()

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()
        self._popen.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self._report is not None:
            os.close(self._report)
            self._report = None


def _end_all(
    watching: list[_Process], leaving: list[_Process], workers: list[_Process], daemons: list[_Process]
) -> None:
    """End the workers, then the dispatcher, then the name server: each says goodbye to the next."""
    try:
        for processes in (watching + leaving + workers, *([daemon] for daemon in daemons)):
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    except BaseException:  # Ctrl-C once more: at once, then
        for process in (*watching, *leaving, *workers, *daemons):
            process.kill()
        raise

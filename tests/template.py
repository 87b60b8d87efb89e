"""Daemons by fork: real processes of their own, that need not import everything anew.

A suite starts hundreds of daemons, and each would spend a second with imports. So a *template*, a process
that has imported what daemons need and does nothing else, forks them; each gets its own session, standard
streams, descriptors, environment and working directory, and runs the command line from its beginning. What is
read while modules are imported is the template's: a command whose environment differs in that is started as
usual, but for the name server's place.

`tests/cluster/test_cli.py`, `test_scripts.py` and the README's demo start daemons as users do.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, NoReturn

import Pyro4

#: Beginnings of variables that are read by imports.
_OF_IMPORTS = (
    "PYTHON",
    "PYRO_",
    "NUMBA_",
    "OPENBLAS",
    "OMP_",
    "MKL_",
    "LD_",
    "MALLOC_",
    "HOME",
    "XDG_",
    "TMP",
)
#: What a Dask cluster leaves in the environment of its program: threads, which daemons set themselves, and
#: what makes no difference to them.
_OF_DASK = {
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "6640",
}.items()
#: What `LocalCluster.environ` says without TLS.
_OF_A_CLUSTER = {"PYRO_NS_HOST", "PYRO_NS_PORT", "PYRO_SERIALIZER"}
_MOST = 1 << 20


class Template:
    """The process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._lock = threading.Lock()
        self.codes: dict[int, int] = {}
        self.changed = threading.Condition()
        self._pids: list[int] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(
        self, arguments: Sequence[str], environ: Mapping[str, str], fds: Mapping[int, int], session: bool
    ) -> int:
        """Run a command line of ``distcorpus``; `fds` says which of our descriptors become which of its."""
        request = {
            "arguments": arguments,
            "environ": dict(environ),
            "cwd": os.getcwd(),
            "fds": list(fds),
            "session": session,
        }
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], list(fds.values()))
            with self.changed:
                assert self.changed.wait_for(lambda: self._pids, 300), "the template does not answer"
                return self._pids.pop()

    def end(self) -> None:
        """End the template, when its daemons have ended."""
        self._socket.shutdown(socket.SHUT_WR)
        self._process.wait()

    def _listen(self) -> None:
        while message := self._socket.recv(_MOST):
            pid, code = json.loads(message)
            with self.changed:
                if code is None:
                    self._pids.append(pid)
                else:
                    self.codes[pid] = code
                self.changed.notify_all()


_template: Template | None = None


class Popen:
    """A forked daemon, with what our code uses of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: Any = None,
        stderr: Any = None,
        text: bool = False,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> None:
        global _template
        if _template is None:
            _template = Template()
        self._template = _template
        self.args = arguments
        self.returncode: int | None = None
        self.stdin: Any = None
        self.stdout: Any = None
        self.stderr: Any = None
        fds, closing = {number: number for number in pass_fds}, []
        for number, name, wanted in ((0, "stdin", stdin), (1, "stdout", stdout), (2, "stderr", stderr)):
            if wanted is None:
                fds[number] = number
            elif wanted == subprocess.DEVNULL:
                fds[number] = os.open(os.devnull, os.O_RDWR)
                closing.append(fds[number])
            elif wanted == subprocess.PIPE:
                read, write = os.pipe()
                ours, fds[number] = (write, read) if number == 0 else (read, write)
                closing.append(fds[number])
                mode = ("w" if number == 0 else "r") + ("" if text else "b")
                setattr(self, name, os.fdopen(ours, mode, buffering=1 if text else -1))
            else:
                fds[number] = wanted if isinstance(wanted, int) else wanted.fileno()
        try:
            self.pid = self._template.fork(
                arguments[3:], os.environ if env is None else env, fds, start_new_session
            )
        finally:
            for descriptor in closing:
                os.close(descriptor)

    def poll(self) -> int | None:
        with self._template.changed:
            self.returncode = self._template.codes.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        with self._template.changed:
            if not self._template.changed.wait_for(lambda: self.pid in self._template.codes, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        if self.stdin is not None:
            self.stdin.close()
        read = [None if stream is None else stream.read() for stream in (self.stdout, self.stderr)]
        for stream in filter(None, (self.stdout, self.stderr)):
            stream.close()
        self.wait(timeout)
        return read[0], read[1]


def start(arguments: Sequence[str], **how: Any) -> Any:
    """`subprocess.Popen`, by fork where it runs ``python -m distcorpus`` and can be forked."""
    environ = how.get("env") or os.environ
    names = {name for name in {*environ, *_AT_FIRST} - _OF_A_CLUSTER if name.startswith(_OF_IMPORTS)}
    if environ.get("PYRO_SSL") == "false":
        names -= {"PYRO_SSL"}
    same = all(
        environ.get(name) == _AT_FIRST.get(name) or (name, environ.get(name)) in _OF_DASK for name in names
    )
    if same and list(arguments[:3]) == [sys.executable, "-m", "distcorpus"]:
        return Popen(arguments, **how)
    return subprocess.Popen(arguments, **how)


def end() -> None:
    """End the template, if there is one."""
    global _template
    if _template is not None:
        _template.end()
        _template = None


_AT_FIRST = dict(os.environ)
#: What takes the place of the module `subprocess`.
FORKING = SimpleNamespace(
    Popen=start,
    **{name: getattr(subprocess, name) for name in ("DEVNULL", "PIPE", "STDOUT", "TimeoutExpired", "run")},
)


# The template itself.


def _serve(descriptor: int) -> NoReturn:
    from distcorpus.cli import main
    from distcorpus.cli.service import set_blas_threads
    from distcorpus.dispatcher import model_protocol
    from distcorpus.dispatcher.gensim_protocol import load_gensim
    from distcorpus.worker.daemon import Worker

    set_blas_threads(1)
    model_protocol.warm()
    Worker("template", 1, 1 << 20, "").warm()
    load_gensim()
    asked = socket.socket(fileno=descriptor)
    ended, tell = socket.socketpair()
    for one in (ended, tell, asked):
        one.setblocking(False)
    signal.set_wakeup_fd(tell.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is ended:
                    ended.recv(4096)
                    _reap(asked)
                    continue
                message, fds, _, _ = socket.recv_fds(asked, _MOST, 64)
                if not message:
                    os._exit(0)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for one in (asked, ended, tell):
                        one.close()
                    selector.close()
                    _run(main, json.loads(message), fds)
                asked.send(json.dumps((pid, None)).encode())
                for one in fds:
                    os.close(one)


def _reap(asked: socket.socket) -> None:
    with suppress(ChildProcessError):
        while (said := os.waitpid(-1, os.WNOHANG))[0]:
            asked.send(json.dumps((said[0], os.waitstatus_to_exitcode(said[1]))).encode())


def _run(main: Any, request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Become the daemon."""
    if request["session"]:
        os.setsid()
    # Out of the way of the numbers that they are to have.
    away = [os.dup2(one, 500 + at) for at, one in enumerate(fds)]
    for one in fds:
        os.close(one)
    for number, one in zip(request["fds"], away, strict=True):
        os.dup2(one, number)
        os.close(one)
    os.environ.clear()
    os.environ.update(request["environ"])
    os.chdir(request["cwd"])
    Pyro4.config.NS_HOST = os.environ.get("PYRO_NS_HOST", Pyro4.config.NS_HOST)
    Pyro4.config.NS_PORT = int(os.environ.get("PYRO_NS_PORT", Pyro4.config.NS_PORT))
    sys.argv[1:] = request["arguments"]
    code = 0
    try:
        main(request["arguments"])
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    with suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

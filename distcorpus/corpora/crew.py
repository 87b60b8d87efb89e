"""Processes that compute a function of many things, in their order.

They are started as programs of their own and know nothing of the program that uses them: it may have threads,
and needs no ``if __name__ == "__main__"``. They end when it ends, however it does.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from types import FunctionType
from typing import Any

#: Results that may wait for an earlier one, for each process.
AHEAD = 4


class Crew:
    """Processes that compute; with one, this process does.

    Parameters
    ----------
    processes : int
    """

    def __init__(self, processes: int) -> None:
        self._members: dict[Connection, subprocess.Popen[bytes]] = {}
        try:
            for _ in range(processes if processes > 1 else 0):
                self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        connection = Connection(ours.detach())
        with theirs:
            # It imports what this process does: from the current folder, which -c adds, only if this does.
            serving = f"from {__name__} import serve; serve({theirs.fileno()})"
            command = [sys.executable, "-c", f"import sys; sys.path[:] = filter(None, sys.path); {serving}"]
            process = subprocess.Popen(
                command,
                # Of a session of its own: Ctrl-C is for the program that asked for the work.
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )
        self._members[connection] = process

    def map(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield ``function(*item)`` of each item, in their order; few are taken before they are needed.

        Raises
        ------
        Exception
            What the function raised, for the first item for which it did.
        RuntimeError
            If a process was killed.
        """
        if not self._members:
            yield from (function(*item) for item in items)
            return
        numbered = enumerate(items)
        idle, busy = list(self._members), dict[Connection, int]()
        results: dict[int, tuple[bool, Any]] = {}
        wanted = 0
        while True:
            room = AHEAD * len(self._members) - len(busy) - len(results)
            for number, item in islice(numbered, max(0, min(len(idle), room))):
                connection = idle.pop()
                self._send(connection, (function, item))
                busy[connection] = number
            if wanted in results:
                fine, result = results.pop(wanted)
                if not fine:
                    raise result
                yield result
                wanted += 1
            elif not busy:
                return
            else:
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    results[busy.pop(ready)] = self._received(ready)
                    idle.append(ready)

    def _send(self, connection: Connection, call: Any) -> None:
        message = io.BytesIO()
        try:
            _Sending(message, pickle.HIGHEST_PROTOCOL).dump(call)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"this cannot be sent to another process: {error}. Define the function in a module, or use "
                "one process"
            ) from None
        try:
            connection.send_bytes(message.getbuffer())
        except OSError:
            raise self._lost(connection) from None

    def _received(self, connection: Connection) -> tuple[bool, Any]:
        try:
            return pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            raise self._lost(connection) from None

    def _lost(self, connection: Connection) -> RuntimeError:
        code = self._members[connection].wait()
        ended = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
        return RuntimeError(
            f"a process of the build {ended}; if memory ran out, give fewer processes. The same command "
            "goes on from where it was"
        )

    def close(self) -> None:
        """End the processes."""
        for connection, process in self._members.items():
            connection.close()
            process.kill()
            process.wait()
        self._members = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Sending(pickle.Pickler):
    """Pickles for another process, which has a ``__main__`` of its own."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__":
            raise pickle.PicklingError(f"{thing.__qualname__} is of the program itself")
        return NotImplemented


def serve(descriptor: int) -> None:
    """Compute what is asked for, until whoever asks is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        while True:
            message = connection.recv_bytes()
            try:
                function, item = pickle.loads(message)
                answer = True, function(*item)
            except BaseException as error:  # what a function of the user's raises is for the user's program
                answer = False, error
            try:
                content = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
            except Exception:
                content = pickle.dumps((False, RuntimeError(repr(answer[1]))))
            connection.send_bytes(content)

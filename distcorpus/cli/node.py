"""What ``distcorpus ssh`` runs on each host: it says who it is, is told what to run, and runs that.

What it is told comes through standard input, keys too: others on the host can see command lines. The one who
started it gives signs of life; when none comes any more, whatever broke, what it runs is told to end.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from distcorpus._machine import available_cores
from distcorpus._version import __version__

#: How the line begins in which a host says who it is.
HELLO = "distcorpus node: "
#: Stands for the folder of the certificates in what is to be run.
CERTIFICATES = "{certificates}"
#: Variables that say how a process of a cluster finds and meets the others.
SETTINGS = frozenset(
    {"DISTCORPUS_TLS", "DISTCORPUS_ADDRESS_FILE", "PYRO_NS_HOST", "PYRO_NS_PORT", "PYRO_SSL"}
)
#: Seconds between two signs of life of the one who started us, and how long to wait for one.
SIGN_EVERY, SILENCE = 5.0, 30.0


def main() -> int:
    """Run what standard input says; returns its exit code."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    facts = {
        "version": __version__,
        "cores": available_cores(),
        "seen_from": connection[0] if connection else None,  # the one who started us, from here
        "address": connection[2] if connection else None,  # where we are reached
    }
    print(HELLO + json.dumps(facts), flush=True)
    line = _read_line(sys.stdin.fileno())
    if not line:
        return 0
    order: dict[str, Any] = json.loads(line)
    with tempfile.TemporaryDirectory(prefix="distcorpus-") as folder:  # that only we can read
        for name, contents in order["files"].items():
            path = Path(folder) / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(contents, "ascii")
        arguments = [argument.replace(CERTIFICATES, folder) for argument in order["arguments"]]
        # A process of its own, for one that is ended the hard way could not remove the folder.
        process = subprocess.Popen(
            [sys.executable, "-m", "distcorpus", *arguments, "--until-eof"],
            stdin=subprocess.PIPE,
            # What the order does not say is not to be taken from a login's settings.
            env={name: value for name, value in os.environ.items() if name not in SETTINGS},
        )
        assert process.stdin is not None
        threading.Thread(target=_watch, args=(sys.stdin.fileno(), process.stdin), daemon=True).start()
        return process.wait()


def _read_line(descriptor: int) -> bytes:
    """Read up to the end of a line, and nothing beyond it."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            return b""
        line += byte
    return bytes(line)


def _watch(descriptor: int, pipe: Any) -> None:
    """Close a pipe when nothing more is heard."""
    while select.select([descriptor], [], [], SILENCE)[0] and os.read(descriptor, 4096):
        pass
    pipe.close()


if __name__ == "__main__":
    sys.exit(main())

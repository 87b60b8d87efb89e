"""All console commands, as one."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from distcorpus._version import __version__
from distcorpus.cli import (
    certs,
    corpus,
    dashboard,
    demo,
    dispatcher,
    doctor,
    head,
    nameserver,
    ping,
    ssh,
    status,
    stop,
    train,
    warm,
    worker,
)
from distcorpus.cli.common import Parser
from distcorpus.cli.signals import Interrupted, raises_when_terminated
from distcorpus.wire import PyroError, allow, limit_messages
from distcorpus.wire.scoped import temporary

logger = logging.getLogger("distcorpus")

#: The modules of the commands, in the order of ``--help``.
COMMANDS = (
    nameserver,
    dispatcher,
    head,
    worker,
    ssh,
    corpus,
    train,
    demo,
    status,
    dashboard,
    doctor,
    ping,
    stop,
    warm,
    certs,
)


def run(options: argparse.Namespace) -> None:
    """Run a command with what `parser` has read."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=logging.INFO if options.verbose else logging.WARNING,
    )
    # Pyro reports every connection that breaks or is refused; what matters of that, we say in our own words.
    logging.getLogger("Pyro4").setLevel(logging.CRITICAL)
    try:
        for spec in getattr(options, "allow", ()):
            allow(spec)
        if getattr(options, "max_message", None) is not None:
            limit_messages(options.max_message * 2**20)
        # Whoever calls this function goes on, without the command's --tls.
        with raises_when_terminated(), temporary():
            options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # as of 'status --json | head -1': who read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        sys.exit(128 + signal.SIGPIPE)
    except (PyroError, RuntimeError, OSError, ValueError) as error:
        if options.verbose:
            logger.exception("%s", error)
        sys.exit(f"distcorpus {options.command}: {error}")
    except Interrupted as interrupted:
        _exit_by(interrupted, options)
    except KeyboardInterrupt:
        _exit_by(Interrupted(), options)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    found = Parser(
        prog="distcorpus", description="gensim's distributed LSI and LDA over a cluster of worker daemons."
    )
    found.add_argument("--version", action="version", version=f"distcorpus {__version__}")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return found


def _exit_by(interrupted: Interrupted, options: argparse.Namespace) -> None:
    """Exit as a shell says that a signal ended a command, with one line."""
    if not getattr(options, "until_eof", False):  # else the process that started this one speaks
        print(f"distcorpus {options.command}: {interrupted}", file=sys.stderr)
    sys.exit(128 + interrupted.signal)

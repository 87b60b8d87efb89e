"""``distcorpus ping``: whether a part of a cluster answers, for probes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distcorpus.cli.common import (
    Commands,
    count,
    find_nameserver,
    find_options,
    positive,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.cli.service import say
from distcorpus.cli.status import look
from distcorpus.monitor import text
from distcorpus.wire import CallTimeout, CommunicationError, connect, location_of, names
from distcorpus.wire.nameserver import lookup


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "ping",
        parents=[verbose_options(), secure_options(), find_options()],
        help="check whether a daemon of a cluster answers, for probes: see the exit status",
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="dispatcher",
        choices=("nameserver", "dispatcher", "worker"),
        help="which daemon (default: %(default)s)",
    )
    parser.add_argument("--name", help="name of the worker")
    parser.add_argument(
        "--workers",
        type=count,
        default=0,
        metavar="N",
        help="the dispatcher has to have at least N ready workers",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=5.0,
        metavar="SECONDS",
        help="how long each answer may take (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Ask, and exit with 0 where there is an answer."""
    if (options.what == "worker") != (options.name is not None):
        raise ValueError("--name says which worker: give both, or neither")
    if options.workers and options.what != "dispatcher":
        raise ValueError("--workers is asked of the dispatcher: 'distcorpus ping --workers N'")
    use_credentials(options)
    began = time.monotonic()
    location = find_nameserver(options, timeout=options.timeout)
    nameserver = location.locate()
    who = f"name server {location}"
    if options.what != "nameserver":
        name = names.DISPATCHER if options.what == "dispatcher" else names.worker(options.name)
        with _answering(who, options.timeout):
            uri = lookup(nameserver, name)
        if uri is None:
            raise RuntimeError(f"the name server {location} knows no {name}")
        who = " ".join(filter(None, (options.what, options.name, "at", location_of(uri))))
        with _answering(who, options.timeout):
            _ask(connect(uri, timeout=options.timeout, connect_timeout=options.timeout), options)
    say(f"{who} answers ({(time.monotonic() - began) * 1000:.0f} ms)")


def _ask(proxy: Any, options: argparse.Namespace) -> None:
    """Ask more than to shake hands; not of a worker, which takes calls of its dispatcher alone."""
    if options.workers:
        ready = sum(worker.state == "ready" for worker in look(proxy).workers)
        if ready < options.workers:
            are = "that is" if ready == 1 else "that are"
            has = f"{text.plural(ready, 'worker')} {are} ready"
            raise RuntimeError(f"the dispatcher has {has}, not {options.workers}")
    elif options.what == "dispatcher":
        proxy.ping()


@contextmanager
def _answering(who: str, timeout: float) -> Iterator[None]:
    """Say who does not answer, and what to look at."""
    try:
        yield
    except CallTimeout:
        raise RuntimeError(
            f"{who} does not answer within {timeout:g} s (--timeout): see on its host whether its process is "
            "stopped or has no CPU time, what its log says, and whether a firewall is between"
        ) from None
    except CommunicationError as error:
        raise RuntimeError(f"{who} does not answer: {error}") from None

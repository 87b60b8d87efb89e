"""``distcorpus worker``: one daemon, or several as processes of their own."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys

from distcorpus._machine import available_cores
from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.cli.children import run_children
from distcorpus.cli.common import (
    Commands,
    amount,
    find_dispatcher,
    find_nameserver,
    find_options,
    make_daemon,
    port,
    positive_count,
    secure_options,
    serve_options,
    use_credentials,
    verbose_options,
    wait_options,
    with_tls,
)
from distcorpus.cli.service import Lifetime, report_ready, say, set_blas_threads
from distcorpus.cli.signals import Interrupted, ends_at_once
from distcorpus.wire import CommunicationError, NamingError, names, roles
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.memory import share_freed_memory
from distcorpus.wire.nameserver import lookup
from distcorpus.wire.registration import Registration
from distcorpus.wire.sockets import format_address, parse_address, raise_file_limit

logger = logging.getLogger("distcorpus")

#: Seconds that a worker which was told to end gives to the job that it is computing.
LEAVE_TIMEOUT = 60.0
#: Seconds for the answer to that job to travel.
LAST_ANSWER_TIMEOUT = 20.0


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "worker",
        parents=[verbose_options(), secure_options(), find_options(), wait_options(), serve_options()],
        help="run worker daemons",
    )
    parser.add_argument("--bind-port", type=port, default=0, help="port to listen on (default: any free one)")
    parser.add_argument(
        "--workers", type=positive_count, default=1, metavar="N", help="daemons to run (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=positive_count,
        default=1,
        metavar="N",
        help="threads of a daemon, which share its topics and its partial result (default: %(default)s)",
    )
    parser.add_argument(
        "--blas-threads",
        type=positive_count,
        metavar="N",
        help="threads for BLAS (default: cores / --workers)",
    )
    parser.add_argument("--name", help="the worker's name (default: host name and process id)")
    parser.add_argument(
        "--cache",
        type=amount,
        default=4.0,
        metavar="GB",
        help="documents and topics to keep between jobs (default: %(default)g)",
    )
    parser.add_argument(
        "--corpora",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with corpora that this worker reads by itself; may be given several times",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run one worker daemon, or several as processes of their own, until told to end."""
    if options.blas_threads is None:
        options.blas_threads = max(available_cores() // options.workers, 1)
    if options.workers == 1:
        _run_worker(options)
    else:
        _run_worker_processes(options)


def _run_worker(options: argparse.Namespace) -> None:
    credentials = use_credentials(options, roles.WORKER)  # before what takes seconds to import
    with ends_at_once():
        from distcorpus.corpora.roots import Roots
        from distcorpus.worker.daemon import Worker

    share_freed_memory()
    raise_file_limit()
    lifetime = Lifetime(until_eof=options.until_eof)
    blas = set_blas_threads(options.blas_threads)
    name = options.name or f"{socket.gethostname()}-{os.getpid()}"
    worker = Worker(name, options.threads, int(options.cache * 2**30), blas, Roots(options.corpora))
    nameserver = find_nameserver(options, lifetime)
    daemon = make_daemon(options, credentials, nameserver, worker.disconnected)
    registered_name = names.worker(name)
    daemon.serve(registered_name, worker)
    registration = Registration(
        nameserver.locate,
        {registered_name: daemon.uri(registered_name)},
        taken=lambda name: lifetime.ended.set(),
    )
    say(
        f"distcorpus worker {name} {__version__}, pid {os.getpid()}",
        f"listens on {daemon.location}, name server {nameserver}{with_tls(credentials)}",
        f"BLAS: {blas}; kernels: {worker.warm()}, {plural(options.threads, 'thread')}",
    )
    daemon.start()
    try:
        try:
            registration.start()
        except NamingError as error:
            raise RuntimeError(f"{error}; give each worker a --name of its own") from None
        if lookup(nameserver.locate(), names.DISPATCHER) is None:
            say("waiting for a dispatcher: the name server knows none yet")
        lifetime.end_with(worker.exit_asked)
        report_ready(options.report_fd, {"location": daemon.location, "name": name})
        lifetime.wait()
    finally:
        registration.stop()
        _say_goodbye(nameserver, name, daemon.uri(registered_name))
        in_time = worker.leave(LEAVE_TIMEOUT)
        daemon.stop(grace=LAST_ANSWER_TIMEOUT)
        if not in_time:
            logger.warning(
                "the job under way takes longer than %g s: it goes to another worker", LEAVE_TIMEOUT
            )
            logging.shutdown()
            os._exit(0)  # its threads would be waited for


def _say_goodbye(nameserver: NameServerLocation, name: str, uri: str) -> None:
    """Tell the dispatcher that this worker is ending, so that it hands nothing more to it."""
    try:
        dispatcher = find_dispatcher(nameserver.locate(), 5.0)
        if dispatcher is not None:
            dispatcher.worker_leaves(name, uri)
    except (CommunicationError, NamingError) as error:
        logger.debug("there is no dispatcher to take leave of: %s", error)


def _run_worker_processes(options: argparse.Namespace) -> None:
    """Run N daemons as processes, see `children.run_children`."""
    lifetime = Lifetime(until_eof=options.until_eof)
    base = options.name or f"{socket.gethostname()}-{os.getpid()}"
    wait = "forever" if math.isinf(options.wait) else str(options.wait)
    common = ["--bind", options.bind, "--threads", str(options.threads), "--cache", str(options.cache)]
    common += ["--blas-threads", str(options.blas_threads), "--wait", wait]
    common += ["--host", options.host] if options.host else []
    common += ["--port", str(options.port)] if options.port else []
    common += ["--address-file", options.address_file] if options.address_file else []
    common += [] if options.broadcast else ["--no-broadcast"]
    common += ["--tls", options.tls] if options.tls else []
    common += ["--insecure"] if options.insecure else []
    common += ["--verbose"] if options.verbose else []
    common += [f"--allow={spec}" for spec in options.allow]
    common += [f"--corpora={folder}" for folder in options.corpora]
    common += [] if options.max_message is None else ["--max-message", str(options.max_message)]
    commands = {}
    for number in range(options.workers):
        port = options.bind_port + number if options.bind_port else 0
        command = [sys.executable, "-m", "distcorpus", "worker", *common]
        command += ["--name", f"{base}-{number}", "--bind-port", str(port)]
        if options.advertise:
            host, advertised = parse_address(options.advertise)
            command += ["--advertise", format_address(host, advertised + number) if advertised else host]
        commands[f"{base}-{number}"] = command
    codes = run_children(commands, lifetime.ended, on_ready=lambda: report_ready(None, {}))
    # What was told to end before it had begun says so by its exit code, or was killed before it could.
    failed = [name for name, code in codes.items() if code not in (128 + signal.SIGTERM, -signal.SIGTERM)]
    if lifetime.ended.is_set() and codes and not failed:
        raise Interrupted(lifetime.signal, "before all workers were ready")
    if codes:
        of = f"{len(codes)} of {plural(len(commands), 'worker')}"
        raise RuntimeError(f"{of} ended with an error, see above: {', '.join(codes)}")

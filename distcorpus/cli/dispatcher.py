"""``distcorpus dispatcher``."""

from __future__ import annotations

import argparse
import gc
import os
from importlib import import_module

from distcorpus._machine import available_cores
from distcorpus._text import plural
from distcorpus._version import __version__
from distcorpus.cli.common import (
    Commands,
    Parser,
    amount,
    count,
    find_dispatcher,
    find_nameserver,
    find_options,
    make_daemon,
    port,
    positive,
    positive_count,
    secure_options,
    serve_options,
    use_credentials,
    verbose_options,
    wait_options,
    with_tls,
)
from distcorpus.cli.service import Lifetime, report_ready, say, set_blas_threads
from distcorpus.cli.signals import ends_at_once
from distcorpus.wire import Credentials, NamingError, names, roles
from distcorpus.wire.memory import share_freed_memory
from distcorpus.wire.nameserver import list_names
from distcorpus.wire.registration import Registration
from distcorpus.wire.sockets import raise_file_limit


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "dispatcher",
        parents=[verbose_options(), secure_options(), find_options(), wait_options(), serve_options()],
        help="run the dispatcher",
    )
    add_dispatcher_options(parser)
    parser.add_argument(
        "--replace",
        action="store_true",
        help="end the name server's present dispatcher, and take its place",
    )
    parser.set_defaults(run=run)


def add_dispatcher_options(parser: Parser) -> None:
    """Add what a command that runs a dispatcher has besides addresses."""
    parser.add_argument("--bind-port", type=port, default=0, help="port to listen on (default: any free one)")
    parser.add_argument(
        "--maxsize",
        type=count,
        default=10,
        help="chunks of one model that may wait for a worker; 0: no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--memory",
        type=amount,
        default=2.0,
        metavar="GB",
        help="documents of one model to keep in memory (default: %(default)g); LSI folds documents beyond "
        "this, unless there is a --spool",
    )
    parser.add_argument(
        "--spool",
        metavar="DIR",
        help="keep documents beyond --memory in files there, which are removed when the dispatcher ends",
    )
    parser.add_argument(
        "--resume",
        type=positive,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="keep the training runs of distcorpus.models in files of --spool, so that they go on when this "
        "dispatcher is killed and started again; it waits SECONDS for their programs (default: 60)",
    )
    for option, what in (
        (
            "--session-memory",
            "the most that one model's tables may take (default: half of the machine's or cgroup's memory)",
        ),
        (
            "--total-memory",
            "the most that the tables and documents of all models may take (default: three quarters of it)",
        ),
    ):
        parser.add_argument(option, type=positive, metavar="GB", help=what)
    parser.add_argument(
        "--max-sessions",
        type=positive_count,
        default=256,
        metavar="N",
        help="models that may be in training at once (default: %(default)s)",
    )
    parser.add_argument(
        "--max-sessions-of-host",
        type=positive_count,
        default=128,
        metavar="N",
        help="the same, for the programs of one host (default: %(default)s)",
    )
    parser.add_argument(
        "--max-workers",
        type=positive_count,
        default=1024,
        metavar="N",
        help="workers that may be connected at once (default: %(default)s)",
    )
    parser.add_argument(
        "--idle",
        type=amount,
        default=86_400.0,
        metavar="SECONDS",
        help="end the training run of a program that has made no call for so long; 0: never (default: a day)",
    )
    parser.add_argument(
        "--worker-timeout",
        type=positive,
        metavar="SECONDS",
        help="fail a training run that has had no worker for so long (default: it waits)",
    )
    parser.add_argument(
        "--threads",
        type=positive_count,
        default=min(available_cores(), 8),
        metavar="N",
        help="threads for LSI's dense algebra between two rounds (default: the number of cores, at most 8)",
    )
    parser.add_argument(
        "--corpora",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with corpora that this dispatcher reads by itself; may be given several times",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the dispatcher until it is told to end."""
    credentials = prepare(options)
    serve(options, credentials, Lifetime(until_eof=options.until_eof))


def prepare(options: argparse.Namespace) -> Credentials | None:
    """Check the options and import what takes seconds, before anything has begun; returns the certificate."""
    credentials = use_credentials(options, roles.DISPATCHER)
    if options.resume is not None and not options.spool:
        raise ValueError("--resume keeps training runs on disk: name a folder with --spool DIR")
    with ends_at_once():
        for protocol in ("gensim_protocol", "model_protocol"):
            import_module(f"distcorpus.dispatcher.{protocol}")
    share_freed_memory()
    raise_file_limit()
    return credentials


def serve(options: argparse.Namespace, credentials: Credentials | None, lifetime: Lifetime) -> None:
    """Run the dispatcher for its lifetime, after `prepare`."""
    from distcorpus.corpora.roots import Roots
    from distcorpus.dispatcher.dispatcher import DRAIN_TIMEOUT, Dispatcher
    from distcorpus.dispatcher.gensim_protocol import GensimLda, GensimLsi
    from distcorpus.dispatcher.journal import Journals
    from distcorpus.dispatcher.limits import Limits
    from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi, warm
    from distcorpus.dispatcher.watching import Watch
    from distcorpus.engines.pyro import PyroEngine
    from distcorpus.training.spool import spool_directory

    # BLAS's own threads would fight with those of workers on this machine for the cores, and round otherwise.
    blas = set_blas_threads(1)
    nameserver = find_nameserver(options, lifetime)

    def list_workers() -> dict[str, str]:
        registered = list_names(nameserver.locate(), names.WORKER_PREFIX)
        return {name.removeprefix(names.WORKER_PREFIX): uri for name, uri in registered.items()}

    def list_stock_workers() -> list[str]:
        return sorted(
            name for prefix in names.STOCK_WORKERS for name in list_names(nameserver.locate(), prefix)
        )

    watch = Watch()
    engine = PyroEngine(
        list_workers,
        worker_timeout=options.worker_timeout,
        threads=options.threads,
        observer=watch,
        max_workers=options.max_workers,
    )
    spool = spool_directory(options.spool) if options.spool else None
    daemon = make_daemon(options, credentials, nameserver)
    dispatcher = Dispatcher(
        engine,
        list_stock_workers=list_stock_workers,
        max_queued=options.maxsize,
        memory=int(options.memory * 2**30),
        spool=spool,
        journals=Journals(spool / "sessions", options.resume) if spool and options.resume else None,
        limits=Limits(
            _bytes(options.session_memory),
            _bytes(options.total_memory),
            options.max_sessions,
            options.max_sessions_of_host,
        ),
        corpora=Roots(options.corpora),
        idle=options.idle or None,
        watch=watch,
        location=daemon.location,
        certificate_expires=None if credentials is None else lambda: credentials.expires,
        refused=daemon.refused,
    )
    daemon.serve(names.DISPATCHER, dispatcher)
    daemon.serve_each(names.LSI_DISPATCHER, GensimLsi, lambda: GensimLsi(dispatcher))
    daemon.serve_each(names.LDA_DISPATCHER, GensimLda, lambda: GensimLda(dispatcher))
    daemon.serve_each(names.LSI_MODELS, ModelLsi, lambda: ModelLsi(dispatcher))
    daemon.serve_each(names.LDA_MODELS, ModelLda, lambda: ModelLda(dispatcher))
    registration = Registration(
        nameserver.locate,
        {name: daemon.uri(name) for name in names.OF_THE_DISPATCHER},
        taken=lambda name: lifetime.ended.set(),
    )
    warm()
    gc.freeze()  # what is here stays: each collection at the end of a session would look through all of it
    daemon.start()
    engine.start()
    dispatcher.start()
    try:
        if options.replace:
            replaced = find_dispatcher(nameserver.locate(), 5.0)
            if replaced is not None:
                replaced.exit(workers=False)
        try:
            registration.start(replace=options.replace)
        except NamingError as error:
            remedy = (
                "it was asked to end, and did not: end its process"
                if options.replace
                else "pass --replace to end that dispatcher and take its place"
            )
            raise RuntimeError(f"{error}; {remedy}") from None
        lifetime.end_with(dispatcher.exit_asked)
        say(
            f"distcorpus dispatcher {__version__}, pid {os.getpid()}",
            f"listens on {daemon.location}, name server {nameserver}{with_tls(credentials)}",
            f"BLAS: {blas}; {plural(options.threads, 'thread')}",
        )
        report_ready(options.report_fd, {"location": daemon.location})
        lifetime.wait()
    finally:
        registration.stop()
        dispatcher.drain()
        daemon.stop(grace=DRAIN_TIMEOUT)
        engine.stop()


def _bytes(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else int(gigabytes * 2**30)

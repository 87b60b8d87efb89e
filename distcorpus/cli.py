"""The console commands: the three daemons, the demo, and a look at a running cluster."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from distcorpus._version import __version__
from distcorpus.service import Lifetime, report_ready, say, set_blas_threads
from distcorpus.wire import CommunicationError, Daemon, NamingError, allow, connect, names, roles, tls
from distcorpus.wire.daemon import check_exposure
from distcorpus.wire.location import NameServerLocation
from distcorpus.wire.memory import share_freed_memory
from distcorpus.wire.nameserver import NameServerDaemon, list_names, lookup
from distcorpus.wire.registration import Registration
from distcorpus.wire.sockets import format_address, is_loopback, parse_address, raise_file_limit

logger = logging.getLogger("distcorpus")

#: Seconds that a worker which was told to end gives to the job that it is computing.
LEAVE_TIMEOUT = 60.0
#: Seconds for the answer to that job to travel.
LAST_ANSWER_TIMEOUT = 20.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a console command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; `sys.argv` by default.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=logging.INFO if options.verbose else logging.WARNING,
    )
    # Pyro reports every connection that breaks or is refused; what matters of that, we say in our own words.
    logging.getLogger("Pyro4").setLevel(logging.CRITICAL)
    try:
        for spec in getattr(options, "allow", ()):
            allow(spec)
        options.run(options)
    except (CommunicationError, NamingError, RuntimeError, OSError, ValueError) as error:
        if options.verbose:
            logger.exception("%s", error)
        sys.exit(f"distcorpus {options.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distcorpus", description="gensim's distributed LSI and LDA over a cluster of worker daemons."
    )
    parser.add_argument("--version", action="version", version=f"distcorpus {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    verbose = argparse.ArgumentParser(add_help=False)
    verbose.add_argument(
        "-v", "--verbose", action="store_true", help="log what happens, not only what is wrong"
    )

    secure = argparse.ArgumentParser(add_help=False)
    secure.add_argument(
        "--tls",
        default=os.environ.get(tls.VARIABLE) or None,
        metavar="DIR",
        help=f"speak TLS, with the certificate in this folder of 'certs issue' (default: {tls.VARIABLE})",
    )

    find = argparse.ArgumentParser(add_help=False)
    find.add_argument("--host", help="the name server's host (default: PYRO_NS_HOST, else broadcast)")
    find.add_argument("--port", type=int, help="the name server's port (default: PYRO_NS_PORT, else 9090)")
    find.add_argument(
        "--no-broadcast",
        dest="broadcast",
        action="store_false",
        help="do not look for the name server by broadcast",
    )

    serve = argparse.ArgumentParser(add_help=False)
    serve.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: %(default)s; 0.0.0.0 for all of this host's)",
    )
    serve.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS: whoever reaches the port can use and stop the cluster",
    )
    serve.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        help="address that others reach this daemon at, where it is not the one it listens on (NAT)",
    )
    serve.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="let objects of a class of your own arrive, such as an id2word; may be given several times",
    )
    wait = argparse.ArgumentParser(add_help=False)
    wait.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for the name server to appear (default: %(default)g)",
    )
    # Between LocalCluster and its processes.
    serve.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)
    serve.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)

    nameserver = commands.add_parser(
        "nameserver", parents=[verbose, secure, serve], help="run the name server"
    )
    nameserver.add_argument(
        "--bind-port", type=int, default=9090, help="port to listen on (default: %(default)s)"
    )
    nameserver.add_argument(
        "--no-broadcast", dest="broadcast", action="store_false", help="do not answer broadcasts"
    )
    nameserver.set_defaults(run=run_nameserver)

    dispatcher = commands.add_parser(
        "dispatcher", parents=[verbose, secure, find, wait, serve], help="run the dispatcher"
    )
    dispatcher.add_argument(
        "--bind-port", type=int, default=0, help="port to listen on (default: any free one)"
    )
    dispatcher.add_argument(
        "--maxsize",
        type=int,
        default=10,
        help="chunks of one model that may wait for a worker; 0: no limit (default: %(default)s)",
    )
    dispatcher.add_argument(
        "--memory",
        type=float,
        default=2.0,
        metavar="GB",
        help="documents of one model to keep in memory (default: %(default)g); LSI folds what is more than "
        "that, unless there is a --spool",
    )
    dispatcher.add_argument(
        "--spool",
        metavar="DIR",
        help="keep what is more than --memory in files there, which vanish with the dispatcher",
    )
    dispatcher.add_argument(
        "--resume",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="keep the trainings of distcorpus.models in files of --spool, so that they go on when this "
        "dispatcher is killed and started again; it waits so long for their programs (default: 60)",
    )
    dispatcher.add_argument(
        "--worker-timeout",
        type=float,
        metavar="SECONDS",
        help="fail a training that has had no worker for so long (default: wait)",
    )
    dispatcher.add_argument(
        "--replace",
        action="store_true",
        help="end the dispatcher that this name server has, and take its place",
    )
    dispatcher.add_argument(
        "--threads",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="threads for what LSI computes between rounds, while workers wait (default: cores, at most 8)",
    )
    dispatcher.set_defaults(run=run_dispatcher)

    worker = commands.add_parser(
        "worker", parents=[verbose, secure, find, wait, serve], help="run worker daemons"
    )
    worker.add_argument("--bind-port", type=int, default=0, help="port to listen on (default: any free one)")
    worker.add_argument(
        "--workers", type=int, default=1, metavar="N", help="daemons to run (default: %(default)s)"
    )
    worker.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads of a daemon that share one broadcast and one result (default: %(default)s)",
    )
    worker.add_argument(
        "--blas-threads",
        type=int,
        metavar="N",
        help="threads for BLAS (default: cores / workers of this command)",
    )
    worker.add_argument("--name", help="the worker's name (default: host name and process id)")
    worker.add_argument(
        "--cache", type=float, default=4.0, metavar="GB", help="documents to keep (default: %(default)g)"
    )
    worker.set_defaults(run=run_workers)

    demo = commands.add_parser(
        "demo", parents=[verbose], help="start a cluster on this machine and train LSI and LDA of real text"
    )
    demo.add_argument(
        "--corpus", metavar="FILE.mm", help="your own bag-of-words corpus, in Matrix Market format"
    )
    demo.add_argument("--dictionary", metavar="FILE", help="its gensim Dictionary (saved, or as text)")
    demo.add_argument("--workers", type=int, default=2, help="worker daemons (default: %(default)s)")
    demo.add_argument("--topics", type=int, default=20, help="topics to find (default: %(default)s)")
    demo.set_defaults(run=run_demo)

    status = commands.add_parser("status", parents=[verbose, secure, find], help="show a running cluster")
    status.set_defaults(run=run_status)

    stop = commands.add_parser(
        "stop", parents=[verbose, secure, find], help="end the dispatcher and all its workers"
    )
    stop.set_defaults(run=run_stop)
    warm = commands.add_parser(
        "warm",
        parents=[verbose],
        help="compile everything now, as in an image's build",
    )
    warm.set_defaults(run=_run_warm)
    _add_certs(commands, verbose)
    return parser


def _run_warm(options: argparse.Namespace) -> None:
    """Compile all kernels, or find them compiled."""
    from distcorpus.algorithms import _caching, chunk, lda, lsi, topics

    begun = time.monotonic()
    types = ("float32", "float64")
    lda.warm(types)
    topics.warm(types)
    lsi.warm()
    chunk.warm()
    folder = _caching.folder()
    if folder is None:
        sys.exit("distcorpus warm: no folder for the kernels can be written to; set NUMBA_CACHE_DIR to one")
    print(f"the kernels are in {folder} ({time.monotonic() - begun:.1f} s)")


def _add_certs(commands: Any, verbose: argparse.ArgumentParser) -> None:
    certs = commands.add_parser("certs", help="make the certificates of a cluster with TLS")
    actions = certs.add_subparsers(dest="action", required=True, metavar="ACTION")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("authority", metavar="DIR", help="folder of the certification authority")

    init = actions.add_parser("init", parents=[verbose, folder], help="make a certification authority")
    init.add_argument(
        "--days", type=float, default=3650, metavar="N", help="how long it is valid (default: %(default)g)"
    )
    init.set_defaults(run=run_certs_init)

    issue = actions.add_parser("issue", parents=[verbose, folder], help="issue or renew a certificate")
    issue.add_argument("--role", required=True, choices=roles.ROLES, help="what its holder may do")
    issue.add_argument(
        "--host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="host names and addresses at which others reach its holder; none for a client",
    )
    issue.add_argument(
        "--days", type=float, default=30, metavar="N", help="how long it is valid (default: %(default)g)"
    )
    issue.add_argument(
        "--out",
        metavar="FOLDER",
        help="where to write it (default: a folder in DIR named after role and host)",
    )
    issue.set_defaults(run=run_certs_issue)


def run_nameserver(options: argparse.Namespace) -> None:
    """Run the name server until it is told to end."""
    raise_file_limit()
    lifetime = Lifetime(until_eof=options.until_eof)
    credentials = _credentials(options, roles.NAMESERVER)
    daemon = NameServerDaemon(
        options.bind,
        options.bind_port,
        broadcast=options.broadcast,
        advertise=options.advertise,
        credentials=credentials,
        insecure=options.insecure,
    )
    daemon.start()
    try:
        say(
            f"distcorpus name server {__version__}, pid {os.getpid()}",
            f"listens on {daemon.location}{_with_tls(credentials)}",
            "BLAS: not used",
        )
        report_ready(options.report_fd, {"location": daemon.location})
        lifetime.wait()
    finally:
        daemon.stop()


def run_dispatcher(options: argparse.Namespace) -> None:
    """Run the dispatcher until it is told to end."""
    credentials = _credentials(options, roles.DISPATCHER)  # before what takes seconds to import
    from distcorpus.dispatcher.door import LdaDoor, LsiDoor, warm
    from distcorpus.dispatcher.drivers import PyroEngine
    from distcorpus.dispatcher.front import DRAIN_TIMEOUT, Dispatcher, LdaFront, LsiFront
    from distcorpus.dispatcher.journal import Journals
    from distcorpus.dispatcher.spool import spool_directory

    if options.resume is not None:
        if not options.spool:
            raise ValueError("--resume keeps trainings on disk: say where, with --spool DIR")
        if options.resume <= 0:
            raise ValueError(f"--resume {options.resume:g}: give a number of seconds above 0")
    if options.threads < 1:
        raise ValueError("--threads takes a number above 0")
    share_freed_memory()
    raise_file_limit()
    # BLAS's own threads would fight with those of workers on this machine for the cores, and round otherwise.
    blas = set_blas_threads(1)
    lifetime = Lifetime(until_eof=options.until_eof)
    nameserver = _nameserver(options, lifetime)

    def list_workers() -> dict[str, str]:
        registered = list_names(nameserver.locate(), names.WORKER_PREFIX)
        return {name.removeprefix(names.WORKER_PREFIX): uri for name, uri in registered.items()}

    engine = PyroEngine(list_workers, worker_timeout=options.worker_timeout)
    spool = spool_directory(options.spool) if options.spool else None
    dispatcher = Dispatcher(
        engine,
        max_queued=options.maxsize,
        memory=int(options.memory * 2**30),
        spool=spool,
        threads=options.threads,
        journals=Journals(spool / "sessions", options.resume) if spool and options.resume else None,
    )
    daemon = _daemon(options, credentials, nameserver)
    daemon.serve(names.DISPATCHER, dispatcher)
    daemon.serve_each(names.LSI_DISPATCHER, LsiFront, lambda: LsiFront(dispatcher))
    daemon.serve_each(names.LDA_DISPATCHER, LdaFront, lambda: LdaFront(dispatcher))
    daemon.serve_each(names.LSI_MODELS, LsiDoor, lambda: LsiDoor(dispatcher))
    daemon.serve_each(names.LDA_MODELS, LdaDoor, lambda: LdaDoor(dispatcher))
    registration = Registration(
        nameserver.locate,
        {name: daemon.uri(name) for name in names.OF_THE_DISPATCHER},
        taken=lambda name: lifetime.ended.set(),
    )
    warm()
    gc.freeze()  # what is here stays: each collection at the end of a session would look through all of it
    daemon.start()
    engine.start()
    try:
        if options.replace:
            replaced = _find_dispatcher(nameserver.locate(), 5.0)
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
            f"listens on {daemon.location}, name server {nameserver}{_with_tls(credentials)}",
            f"BLAS: {blas}; {options.threads} thread(s)",
        )
        report_ready(options.report_fd, {"location": daemon.location})
        lifetime.wait()
    finally:
        registration.stop()
        dispatcher.drain()
        daemon.stop(grace=DRAIN_TIMEOUT)
        engine.stop()


def run_workers(options: argparse.Namespace) -> None:
    """Run one worker daemon, or several as processes of their own, until told to end."""
    if options.workers < 1 or options.threads < 1:
        raise ValueError("--workers and --threads take a number above 0")
    if options.blas_threads is None:
        options.blas_threads = max((os.cpu_count() or 1) // options.workers, 1)
    if options.workers == 1:
        _run_worker(options)
    else:
        _run_worker_processes(options)


def _run_worker(options: argparse.Namespace) -> None:
    credentials = _credentials(options, roles.WORKER)  # before what takes seconds to import
    from distcorpus.worker.daemon import Worker

    share_freed_memory()
    raise_file_limit()
    lifetime = Lifetime(until_eof=options.until_eof)
    blas = set_blas_threads(options.blas_threads)
    name = options.name or f"{socket.gethostname()}-{os.getpid()}"
    worker = Worker(name, options.threads, int(options.cache * 2**30))
    nameserver = _nameserver(options, lifetime)
    daemon = _daemon(options, credentials, nameserver)
    registered_name = names.worker(name)
    daemon.serve(registered_name, worker)
    registration = Registration(
        nameserver.locate,
        {registered_name: daemon.uri(registered_name)},
        taken=lambda name: lifetime.ended.set(),
    )
    say(
        f"distcorpus worker {name} {__version__}, pid {os.getpid()}",
        f"listens on {daemon.location}, name server {nameserver}{_with_tls(credentials)}",
        f"BLAS: {blas}; kernels: {worker.warm()}, {options.threads} thread(s)",
    )
    daemon.start()
    try:
        try:
            registration.start()
        except NamingError as error:
            raise RuntimeError(f"{error}; give each worker a --name of its own") from None
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
        dispatcher = _find_dispatcher(nameserver.locate(), 5.0)
        if dispatcher is not None:
            dispatcher.worker_leaves(name, uri)
    except (CommunicationError, NamingError) as error:
        logger.debug("there is no dispatcher to take leave of: %s", error)


def _run_worker_processes(options: argparse.Namespace) -> None:
    """Run N daemons as processes, and end when all of them have ended."""
    lifetime = Lifetime(until_eof=options.until_eof)
    base = options.name or f"{socket.gethostname()}-{os.getpid()}"
    common = ["--bind", options.bind, "--threads", str(options.threads), "--cache", str(options.cache)]
    common += ["--blas-threads", str(options.blas_threads), "--wait", str(options.wait), "--until-eof"]
    common += ["--host", options.host] if options.host else []
    common += ["--port", str(options.port)] if options.port else []
    common += [] if options.broadcast else ["--no-broadcast"]
    common += ["--tls", options.tls] if options.tls else []
    common += ["--insecure"] if options.insecure else []
    common += ["--verbose"] if options.verbose else []
    common += [f"--allow={spec}" for spec in options.allow]
    processes = []
    for number in range(options.workers):
        port = options.bind_port + number if options.bind_port else 0
        command = [sys.executable, "-m", "distcorpus", "worker", *common]
        command += ["--name", f"{base}-{number}", "--bind-port", str(port)]
        if options.advertise:
            host, advertised = parse_address(options.advertise)
            command += ["--advertise", format_address(host, advertised + number) if advertised else host]
        # In a session of their own, so that Ctrl-C reaches them through us, once.
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
    try:
        while not lifetime.ended.wait(0.2):
            if all(process.poll() is not None for process in processes):
                break
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    failed = [process.returncode for process in processes if process.returncode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(processes)} workers ended with an error, see above")


def run_status(options: argparse.Namespace) -> None:
    """Print who works, and for whom."""
    from rich.console import Console
    from rich.table import Table

    _credentials(options)
    status = _dispatcher(options).status()
    table = Table(title=f"dispatcher {status['version']} on {status['host']}, pid {status['pid']}")
    for column in ("worker", "host", "pid", "threads", "state"):
        table.add_column(column)
    for worker in status["workers"]:
        table.add_row(*(str(worker[key]) for key in ("name", "host", "pid", "threads", "state")))
    console = Console()
    console.print(table)
    console.print(f"models in training or open: {', '.join(status['sessions']) or 'none'}")


def run_stop(options: argparse.Namespace) -> None:
    """End the dispatcher and all its workers."""
    _credentials(options)
    _dispatcher(options).exit()
    say("the dispatcher and its workers are ending")


def run_demo(options: argparse.Namespace) -> None:
    """Train LSI and LDA on a cluster of this machine, beside serial gensim."""
    from distcorpus.demo import demo

    demo(options.corpus, options.dictionary, n_workers=options.workers, num_topics=options.topics)


def run_certs_init(options: argparse.Namespace) -> None:
    """Make a certification authority."""
    from distcorpus.wire import certificates

    folder = certificates.make_authority(options.authority, options.days)
    say(
        f"a certification authority for {options.days:g} days: {folder}",
        f"{certificates.AUTHORITY_KEY} makes certificates: it stays here, no node needs it",
    )


def run_certs_issue(options: argparse.Namespace) -> None:
    """Issue a certificate, and say how it is used."""
    from distcorpus.wire import certificates

    folder = certificates.issue(options.authority, options.role, options.host, options.days, options.out)
    say(
        f"# a {options.role}'s certificate, for {options.days:g} days: copy {folder} to where it is used"
        f"{', and pass it with --tls' if options.role != roles.CLIENT else ''}"
    )
    if options.role == roles.CLIENT:
        say(
            "# for programs that import distcorpus, and the commands status and stop:",
            f"export {tls.VARIABLE}={shlex.quote(str(folder.absolute()))}",
            "# for all other programs with gensim's models:",
            *(f"export {name}={shlex.quote(value)}" for name, value in tls.stock_variables(folder).items()),
        )


def _credentials(options: argparse.Namespace, role: str | None = None) -> tls.Credentials | None:
    """Let this process use the certificate that ``--tls`` names, if any; a daemon's has to have its role."""
    tls.use(options.tls)
    credentials = tls.current()
    if credentials is not None:
        credentials.check_role(role or credentials.role)
    elif role is not None:
        check_exposure(options.bind, options.insecure)
    return credentials


def _with_tls(credentials: tls.Credentials | None) -> str:
    if credentials is None:
        return ""
    return f", TLS with a certificate until {time.strftime('%Y-%m-%d', time.localtime(credentials.expires))}"


def _daemon(
    options: argparse.Namespace, credentials: tls.Credentials | None, nameserver: NameServerLocation
) -> Daemon:
    """Return the daemon that the options describe, at an address that others can reach."""
    advertise = options.advertise
    if advertise is None and options.bind in ("0.0.0.0", "::"):
        own = nameserver.own_address()
        # On the name server's own host that is loopback, where nobody else looks: the daemon knows better.
        if not is_loopback(own):
            advertise = credentials.name_for(own) if credentials is not None else own
    return Daemon(
        options.bind, options.bind_port, advertise, credentials=credentials, insecure=options.insecure
    )


def _nameserver(options: argparse.Namespace, lifetime: Lifetime | None = None) -> NameServerLocation:
    # A daemon that only this machine reaches has no use for one that answers from elsewhere.
    alone = lifetime is not None and tls.current() is None and is_loopback(options.bind)
    location = NameServerLocation(options.host, options.port, broadcast=options.broadcast and not alone)
    if lifetime is not None:
        try:
            location.locate(options.wait, lifetime.ended)
        except NamingError:
            if lifetime.ended.is_set():  # it was told to end while it waited
                sys.exit(130)
            raise
    return location


def _find_dispatcher(nameserver: Any, timeout: float) -> Any | None:
    """Connect to the dispatcher that the name server knows, if it knows one and it answers."""
    uri = lookup(nameserver, names.DISPATCHER)
    try:
        return connect(uri, timeout=timeout, connect_timeout=timeout) if uri is not None else None
    except CommunicationError as error:
        logger.info("the dispatcher at %s does not answer: %s", uri, error)
        return None


def _dispatcher(options: argparse.Namespace) -> Any:
    location = _nameserver(options)
    dispatcher = _find_dispatcher(location.locate(), 10.0)
    if dispatcher is None:
        raise RuntimeError(
            f"the name server {location} knows no dispatcher that answers: start 'distcorpus dispatcher'"
        )
    return dispatcher

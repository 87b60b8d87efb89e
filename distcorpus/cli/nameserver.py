"""``distcorpus nameserver``."""

from __future__ import annotations

import argparse
import os

from distcorpus._version import __version__
from distcorpus.cli.common import (
    Commands,
    Parser,
    check_output,
    port,
    secure_options,
    serve_options,
    use_credentials,
    verbose_options,
    with_tls,
)
from distcorpus.cli.service import Lifetime, report_ready, say
from distcorpus.wire import roles, tls
from distcorpus.wire.nameserver import NameServerDaemon
from distcorpus.wire.sockets import raise_file_limit


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "nameserver",
        parents=[verbose_options(), secure_options(), serve_options()],
        help="run the name server",
    )
    # As Pyro4's own command for a name server has them.
    parser.add_argument(
        "-n", "--host", dest="bind", default=argparse.SUPPRESS, metavar="ADDRESS", help="the same as --bind"
    )
    parser.add_argument(
        "-p",
        "--port",
        "--bind-port",
        dest="bind_port",
        type=port,
        default=9090,
        help="port to listen on (default: %(default)s)",
    )
    add_nameserver_options(parser)
    parser.set_defaults(run=run)


def add_nameserver_options(parser: Parser) -> None:
    """Add what a command that runs a name server has besides addresses."""
    parser.add_argument(
        "--no-broadcast", dest="broadcast", action="store_false", help="do not answer broadcasts"
    )
    parser.add_argument(
        "--address-file",
        metavar="PATH",
        help="write this name server's address to a file that all hosts share; it is removed at the end",
    )


def make_nameserver(
    options: argparse.Namespace, port: int, credentials: tls.Credentials | None
) -> NameServerDaemon:
    """Return the name server that the options describe."""
    if options.address_file:
        check_output("--address-file", options.address_file)
    return NameServerDaemon(
        options.bind,
        port,
        broadcast=options.broadcast,
        advertise=options.advertise,
        credentials=credentials,
        insecure=options.insecure,
        address_file=options.address_file,
    )


def run(options: argparse.Namespace) -> None:
    """Run the name server until it is told to end."""
    raise_file_limit()
    lifetime = Lifetime(until_eof=options.until_eof)
    credentials = use_credentials(options, roles.NAMESERVER)
    daemon = make_nameserver(options, options.bind_port, credentials)
    try:
        daemon.start()
        say(
            f"distcorpus name server {__version__}, pid {os.getpid()}",
            f"listens on {daemon.location}{with_tls(credentials)}",
            "BLAS: not used",
        )
        report_ready(options.report_fd, {"location": daemon.location})
        lifetime.wait()
    finally:
        daemon.stop()

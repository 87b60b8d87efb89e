"""``distcorpus head``: what a cluster has one of, in one process."""

from __future__ import annotations

import argparse

from distcorpus.cli import dispatcher
from distcorpus.cli.common import Commands, port, secure_options, serve_options, verbose_options
from distcorpus.cli.nameserver import add_nameserver_options, make_nameserver
from distcorpus.cli.service import Lifetime, say
from distcorpus.wire import roles, tls
from distcorpus.wire.daemon import check_exposure
from distcorpus.wire.sockets import parse_address


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "head",
        parents=[verbose_options(), secure_options(), serve_options()],
        help="run the name server and the dispatcher in one process",
    )
    parser.add_argument(
        "--port", type=port, default=9090, help="port of the name server (default: %(default)s)"
    )
    parser.add_argument(
        "--tls-nameserver",
        metavar="DIR",
        help="the name server's certificate; --tls names the dispatcher's",
    )
    add_nameserver_options(parser)
    dispatcher.add_dispatcher_options(parser)
    # What a dispatcher that is by itself is told of its name server.
    parser.set_defaults(run=run, wait=0.0, replace=False)


def run(options: argparse.Namespace) -> None:
    """Run both until told to end."""
    credentials = None
    if options.tls_nameserver and not options.tls:
        raise ValueError(
            "--tls-nameserver is the name server's certificate: name the dispatcher's too, with --tls"
        )
    if options.tls:
        if not options.tls_nameserver:
            raise ValueError(
                "with TLS the name server has a certificate of its own: name the folder that "
                "'certs issue --role nameserver' made with --tls-nameserver"
            )
        credentials = tls.Credentials(options.tls_nameserver)
        credentials.check_role(roles.NAMESERVER)
    else:
        check_exposure(options.bind, options.insecure)
    if options.advertise and parse_address(options.advertise)[1]:
        raise ValueError("--advertise of a head takes a host without a port, because a head has two ports")
    of_dispatcher = dispatcher.prepare(options)
    lifetime = Lifetime(until_eof=options.until_eof)
    nameserver = make_nameserver(options, options.port, credentials)
    try:
        nameserver.start()
        say(f"distcorpus head: the name server listens on {nameserver.location}")
        # The dispatcher finds it as others do, so that it registers an address which leads to this host.
        options.host, options.port = parse_address(nameserver.location)
        if options.advertise and credentials is None:  # from here that may lead nowhere
            options.host = "127.0.0.1" if options.bind in ("", "0.0.0.0") else options.bind
            options.port = nameserver.port
        options.broadcast, options.address_file = False, None
        dispatcher.serve(options, of_dispatcher, lifetime)
    finally:
        nameserver.stop()

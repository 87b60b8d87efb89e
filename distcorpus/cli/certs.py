"""``distcorpus certs``: the certificates of a cluster with TLS."""

from __future__ import annotations

import argparse
import shlex

from distcorpus.cli.common import Commands, Parser, positive, verbose_options
from distcorpus.cli.service import say
from distcorpus.wire import roles, tls


def add(commands: Commands) -> None:
    """Add the command and its options."""
    certs = commands.add_parser("certs", help="make the certificates of a cluster with TLS")
    actions = certs.add_subparsers(dest="action", required=True, metavar="ACTION")
    folder = Parser(add_help=False)
    folder.add_argument("authority", metavar="DIR", help="folder of the certification authority")

    init = actions.add_parser(
        "init", parents=[verbose_options(), folder], help="make a certification authority"
    )
    init.add_argument(
        "--days",
        type=positive,
        default=3650,
        metavar="N",
        help="days for which it is valid (default: %(default)g)",
    )
    init.set_defaults(run=_run_init)

    issue = actions.add_parser(
        "issue", parents=[verbose_options(), folder], help="issue or renew a certificate"
    )
    issue.add_argument("--role", required=True, choices=roles.ROLES, help="what its holder may do")
    issue.add_argument(
        "--host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names and addresses at which others reach the holder; none for a client or a viewer",
    )
    issue.add_argument(
        "--days",
        type=positive,
        default=30,
        metavar="N",
        help="days for which it is valid (default: %(default)g)",
    )
    issue.add_argument(
        "--out",
        metavar="FOLDER",
        help="the folder to write it to (default: a folder in DIR named after role and host)",
    )
    issue.set_defaults(run=_run_issue)


def _run_init(options: argparse.Namespace) -> None:
    """Make a certification authority."""
    from distcorpus.wire import certificates

    folder = certificates.make_authority(options.authority, options.days)
    say(
        f"a certification authority for {options.days:g} days: {folder}",
        f"{certificates.AUTHORITY_KEY} makes certificates: it stays here, no node needs it",
    )


def _run_issue(options: argparse.Namespace) -> None:
    """Issue a certificate, and say how it is used."""
    from distcorpus.wire import certificates

    folder = certificates.issue(options.authority, options.role, options.host, options.days, options.out)
    say(
        f"# a {options.role}'s certificate, for {options.days:g} days: copy {folder} to where it is used"
        f"{', and pass it with --tls' if options.role in roles.SERVERS else ''}"
    )
    if options.role == roles.VIEWER:
        say(
            "# for the commands status, ping, doctor and dashboard:",
            f"export {tls.VARIABLE}={shlex.quote(str(folder.absolute()))}",
        )
    if options.role == roles.CLIENT:
        say(
            "# for programs that import distcorpus, and the commands status and stop:",
            f"export {tls.VARIABLE}={shlex.quote(str(folder.absolute()))}",
            "# for all other programs with gensim's models:",
            *(f"export {name}={shlex.quote(value)}" for name, value in tls.stock_variables(folder).items()),
        )

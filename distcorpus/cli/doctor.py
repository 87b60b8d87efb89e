"""``distcorpus doctor``: what is wrong here and with a cluster, and what to do about it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

from distcorpus.cli.common import Commands, default_tls, find_options, secure_options, verbose_options
from distcorpus.monitor.doctor import Check, check_machine, verdict
from distcorpus.wire import addressfile, tls

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("fail", "red")}


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "doctor",
        parents=[verbose_options(), secure_options(), find_options()],
        help="check this machine and a cluster for problems; exit status 1: warnings, 2: failures",
    )
    parser.add_argument(
        "--here", dest="cluster", action="store_false", help="check this machine only, not the cluster"
    )
    parser.add_argument(
        "--spool", default="", metavar="DIR", help="check this folder too, for a dispatcher's --spool"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print one line a check, with the remedy below it where there is one."""
    where = [options.host, options.port, options.address_file]
    if not options.cluster and (any(where) or not options.broadcast or options.tls != default_tls()):
        raise ValueError(
            "--here looks at no cluster: leave out --host, --port, --no-broadcast, --address-file and --tls"
        )
    if options.address_file and any(where[:2]):
        raise ValueError("--address-file says where the name server is: leave out --host and --port")
    found = []
    for check in _checks(options):
        found.append(check)
        if not options.json:
            _print(check)
    if options.json:
        print(json.dumps([asdict(check) for check in found], indent=2))
    sys.exit(verdict(found))


def _checks(options: argparse.Namespace) -> Iterator[Check]:
    from distcorpus.algorithms import _caching
    from distcorpus.monitor.examination import examine, this_machine

    folder = _caching.folder()
    compiled = _caching.is_compiled("_lda_numba.expectation")
    yield from check_machine(
        this_machine(options.spool, kernels_folder=str(folder) if folder else None, kernels_compiled=compiled)
    )
    if not options.cluster:
        return
    tls.use(options.tls)
    host, port = options.host, options.port
    path = options.address_file or (None if host or port else os.environ.get(addressfile.VARIABLE))
    if path:
        try:
            address = addressfile.read(path)
        except Exception as error:
            yield Check("address file", "fail", str(error), "start the name server with --address-file again")
            return
        if address is None:
            remedy = "start 'distcorpus nameserver --address-file' on a disk that all hosts share"
            yield Check("address file", "fail", f"{path} is not there", remedy)
            return
        yield Check("address file", "ok", f"{path}: {address}")
        host, port = address.host, address.port
    asked_for = bool(host or port or os.environ.get("PYRO_NS_HOST") or options.tls)
    yield from examine(host, port, broadcast=options.broadcast, asked_for=asked_for)


def _print(check: Check) -> None:
    from rich.console import Console
    from rich.text import Text

    mark, colour = _MARKS[check.state]
    line = Text(mark, colour)
    line.append(f"  {check.name}: {check.said}", "default")
    console = Console(highlight=False)
    console.print(line, soft_wrap=True)
    if check.remedy:
        console.print(Text(f"      {check.remedy}", "bold"), soft_wrap=True)

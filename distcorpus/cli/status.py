"""``distcorpus status``."""

from __future__ import annotations

import argparse

from distcorpus.cli.common import (
    Commands,
    find_options,
    require_dispatcher,
    secure_options,
    use_credentials,
    verbose_options,
)


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "status", parents=[verbose_options(), secure_options(), find_options()], help="show a running cluster"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print who works, and for whom."""
    from rich.console import Console
    from rich.table import Table

    use_credentials(options)
    status = require_dispatcher(options).status()
    table = Table(title=f"dispatcher {status['version']} on {status['host']}, pid {status['pid']}")
    columns = {"name": "worker", **{key: key for key in ("host", "pid", "threads", "state", "kernels")}}
    for column in columns.values():
        table.add_column(column)
    for worker in status["workers"]:
        table.add_row(*(str(worker[key]) for key in columns))
    console = Console()
    console.print(table)
    mixed = len({worker["kernels"] for worker in status["workers"]}) > 1
    sessions = [f"{name} (with {status['kernels'][name]})" if mixed else name for name in status["sessions"]]
    console.print(f"models in training or open: {', '.join(sessions) or 'none'}")
    for name, reason in status["refused"].items():
        console.print(f"worker {name} cannot be used: {reason}", markup=False)
    for name in status["stock_workers"]:
        console.print(
            f"{name} is gensim's own worker, for gensim's dispatchers only: start 'distcorpus worker' in its "
            "place",
            markup=False,
        )
    if status["may_differ"]:
        found = "; ".join(status["may_differ"])
        console.print(f"builds differ, so that results may in their last bits: {found}", markup=False)
    if mixed:
        console.print(
            "workers have different kernels, which could give different bits: "
            "each training has those of one kind"
        )

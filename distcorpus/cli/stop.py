"""``distcorpus stop``."""

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
from distcorpus.cli.service import say


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "stop",
        parents=[verbose_options(), secure_options(), find_options()],
        help="end the dispatcher and all its workers",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """End the dispatcher and all its workers."""
    use_credentials(options)
    require_dispatcher(options).exit()
    say("the dispatcher and its workers are ending")

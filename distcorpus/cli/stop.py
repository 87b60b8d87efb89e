"""``distcorpus stop``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from distcorpus.cli.common import (
    Commands,
    find_options,
    require_dispatcher,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.cli.service import say
from distcorpus.cli.status import look
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SessionView, Snapshot

#: Training runs that are listed before the question.
MOST_LISTED = 20


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "stop",
        parents=[verbose_options(), secure_options(), find_options()],
        help="end the dispatcher and all its workers",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask, even if models are in training")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """End the dispatcher and all its workers; ask before a training is lost.

    Raises
    ------
    RuntimeError
        There are training runs, and no terminal to ask at.
    """
    use_credentials(options)
    dispatcher = require_dispatcher(options)
    snapshot = _look(dispatcher, options.yes)
    if snapshot is not None and snapshot.sessions and not options.yes and not _agreed(snapshot.sessions):
        say("nothing is ended")
        sys.exit(1)
    dispatcher.exit()
    workers = "workers"
    if snapshot is not None:
        number = sum(worker.state in ("ready", "silent", "leaving") for worker in snapshot.workers)
        workers = text.plural(number, "worker")
    say(f"the dispatcher and its {workers} are ending")


def _look(dispatcher: Any, agreed: bool) -> Snapshot | None:
    """Return what there is; None where the dispatcher does not tell, and that makes no difference."""
    try:
        return look(dispatcher)
    except RuntimeError as error:
        if agreed:
            return None
        raise RuntimeError(f"{error}; pass --yes to end it, whatever is in training") from None


def _agreed(sessions: Sequence[SessionView]) -> bool:
    """List what is in training and ask."""
    are = "is" if len(sessions) == 1 else "are"
    say(f"{text.plural(len(sessions), 'model')} {are} in training or open, and would be lost:")
    for session in sessions[:MOST_LISTED]:
        done = "" if session.progress is None else f", {text.share(session.progress)} done"
        say(f"  {session.name} ({text.model(session)}) of {text.owner(session)}{done}")
    if len(sessions) > MOST_LISTED:
        say(f"  and {len(sessions) - MOST_LISTED:,} more")
    if not sys.stdin.isatty():
        raise RuntimeError("cannot ask, because standard input is not a terminal: pass --yes to end them all")
    try:
        return input("end them all? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False

"""The console commands: three daemons, corpora, training, a demo, a look at a cluster, its end, certificates.

Each command is a module here, `commands` composes them, `common` has what several share, and `service` how a
daemon's process begins and ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from distcorpus.cli.signals import ends_at_once


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a console command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; `sys.argv` by default.
    """
    with ends_at_once():
        from distcorpus import _environment

        wrong = _environment.wrong(os.environ)
        with _environment.without(wrong):  # Pyro4 reads its own when it is imported
            from distcorpus.cli import commands
        options = commands.parser().parse_args(arguments)
    if wrong and options.command != "doctor":  # which says more of it
        for name, allowed in wrong.items():
            said = f"{name}={os.environ[name]!r}: set it to {allowed}, or unset it"
            print(f"distcorpus {options.command}: {said}", file=sys.stderr)
        sys.exit(2)
    commands.run(options)

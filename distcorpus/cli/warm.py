"""``distcorpus warm``."""

from __future__ import annotations

import argparse
import sys
import time

from distcorpus.cli.common import Commands, verbose_options


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "warm",
        parents=[verbose_options()],
        help="compile all kernels now, for example while building an image",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compile all kernels, or find them compiled."""
    from distcorpus.algorithms import _caching

    begun = time.monotonic()
    compile_kernels()
    folder = _caching.folder()
    if folder is None:
        sys.exit("distcorpus warm: no folder for the kernels can be written to; set NUMBA_CACHE_DIR to one")
    print(f"the kernels are in {folder} ({time.monotonic() - begun:.1f} s)")


def compile_kernels() -> None:
    """Compile what this package has of kernels, or load it where that was done before."""
    from distcorpus.algorithms import chunk, topics
    from distcorpus.corpora import inputs, textfiles
    from distcorpus.kernels import KERNELS, EStep, load_own

    types = ("float32", "float64")
    load_own()
    for kernel in KERNELS.values():
        kernel.warm()
    EStep.warm(types)
    topics.warm(types)
    chunk.warm()
    textfiles.warm()
    inputs.warm()

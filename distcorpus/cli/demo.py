"""``distcorpus demo``."""

from __future__ import annotations

import argparse

from distcorpus.cli.common import Commands, positive_count, verbose_options
from distcorpus.cli.signals import ends_at_once


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "demo",
        parents=[verbose_options()],
        help="start a cluster on this machine and train LSI and LDA on real text",
    )
    parser.add_argument(
        "--corpus", metavar="FILE.mm", help="your own bag-of-words corpus, in Matrix Market format"
    )
    parser.add_argument("--dictionary", metavar="FILE", help="its gensim Dictionary (saved, or as text)")
    parser.add_argument(
        "--workers", type=positive_count, default=2, help="worker daemons (default: %(default)s)"
    )
    parser.add_argument(
        "--topics", type=positive_count, default=20, help="topics to find (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train LSI and LDA on a cluster of this machine, beside serial gensim."""
    with ends_at_once():
        from distcorpus.demo import demo

    demo(options.corpus, options.dictionary, n_workers=options.workers, num_topics=options.topics)

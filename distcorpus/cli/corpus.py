"""``distcorpus corpus``: build a corpus from text, and look at one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from distcorpus._text import plural
from distcorpus.cli.common import (
    Commands,
    Parser,
    amount,
    count,
    positive,
    positive_count,
    reading,
    verbose_options,
)
from distcorpus.cli.service import say
from distcorpus.cli.signals import ends_at_once


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("corpus", help="build a corpus on disk from text, and show what it has")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_build(actions)
    for name, run, text in (
        ("info", info, "show what a corpus has"),
        ("verify", verify, "hold every file of a corpus against its checksum"),
        ("head", head, "show the first documents of a corpus"),
    ):
        action = actions.add_parser(name, parents=[verbose_options()], help=text)
        action.add_argument("directory", metavar="DIR", help="a corpus")
        action.set_defaults(run=run)
        if name == "head":
            action.add_argument(
                "-n", type=positive_count, default=5, metavar="N", help="documents (default: %(default)s)"
            )


def _add_build(actions: Any) -> None:
    parser: Parser = actions.add_parser(
        "build",
        parents=[verbose_options()],
        help="build a corpus from files of text",
        description="Build a corpus from text files: one document per line, JSON lines, CSV, Parquet or "
        "Arrow; plain, or compressed by gzip (.gz), bzip2 (.bz2), xz (.xz) or zstd (.zst). If the build was "
        "interrupted, the same command goes on with it. Equal input gives equal bytes, for any number of "
        "processes.",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="a file, a folder of files, or a URL that fsspec can read"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write the corpus to")
    parser.add_argument(
        "--text",
        default="text",
        metavar="FIELD",
        help="the field with a record's text (default: %(default)s)",
    )
    parser.add_argument("--id", metavar="FIELD", help="the field with a record's name (default: no names)")
    parser.add_argument(
        "--format",
        choices=("lines", "files", "jsonl", "csv", "tsv", "parquet", "arrow"),
        help="format of the inputs (default: as their names say, else one document per line); files: each "
        "file is one document",
    )
    parser.add_argument(
        "--tokenizer",
        default="letters",
        metavar="MODULE:FUNCTION",
        help="how a text is divided into words: a Python function, 'gensim' for its simple_preprocess, or "
        "'letters' (default): runs of 2 to 15 letters in lower case",
    )
    parser.add_argument(
        "--stopwords",
        metavar="FILE",
        help="words to leave out, one per line; 'gensim': its English stop words",
    )
    parser.add_argument(
        "--no-below",
        type=count,
        default=5,
        metavar="N",
        help="leave out words that are in fewer documents than this (default: %(default)s)",
    )
    parser.add_argument(
        "--no-above",
        type=amount,
        default=0.5,
        metavar="PART",
        help="leave out words that are in more than this fraction of the documents (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=_number_or_all,
        default=100_000,
        metavar="N",
        help="keep at most N words, those that are in most documents, or 'all' (default: %(default)s)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip records that have no text")
    parser.add_argument(
        "--processes",
        type=positive_count,
        metavar="N",
        help="processes (default: the number of available cores)",
    )
    parser.add_argument(
        "--memory",
        type=positive,
        default=4.0,
        metavar="GB",
        help="the most memory that all processes together should take (default: %(default)g)",
    )
    parser.set_defaults(run=build)


def _number_or_all(text: str) -> int | None:
    return None if text == "all" else positive_count(text)


def build(options: argparse.Namespace) -> None:
    """Build a corpus from files of text."""
    with ends_at_once():
        from distcorpus.corpora import Corpus
        from distcorpus.corpora.building import Options
        from distcorpus.corpora.building import build as build_corpus
        from distcorpus.engines.threads import available_threads

    if ":" in options.tokenizer:  # a module of the user's
        sys.path.append(os.getcwd())
    bad = build_corpus(
        options.inputs,
        options.out,
        Options(
            text=options.text,
            id=options.id,
            format=options.format,
            tokenizer=options.tokenizer,
            stopwords=_stopwords(options.stopwords),
            no_below=options.no_below,
            no_above=options.no_above,
            keep=options.keep,
            skip_bad=options.skip_bad,
            processes=options.processes or available_threads(),
            memory=options.memory,
            progress=True,
        ),
        say_bad=lambda text: print(f"skipped: {text}", file=sys.stderr),
    )
    if bad:
        say(f"skipped {plural(bad, 'record')} without text")
    _show(Corpus(options.out))


def _stopwords(name: str | None) -> Any:
    if name is None or name == "gensim":
        return name or ()
    with reading("--stopwords", name):
        return Path(name).read_text("utf-8-sig").split()


def info(options: argparse.Namespace) -> None:
    """Print what a corpus has."""
    from distcorpus.corpora import Corpus

    _show(Corpus(options.directory))


def _show(corpus: Any) -> None:
    size = sum(path.stat().st_size for path in corpus.directory.iterdir())
    counted = f"{plural(len(corpus), 'document')}, {plural(corpus.num_terms, 'term')}"
    say(f"{corpus.directory}: {counted}, {corpus.num_nnz:,} entries, {size / 1e6:,.1f} MB")
    say(f"checksum {corpus.checksum}")


def verify(options: argparse.Namespace) -> None:
    """Hold every file of a corpus against its checksum."""
    from distcorpus.corpora import Corpus

    number = sum(1 for _ in Corpus(options.directory).verify())
    say(f"{options.directory}: all {number} files are as they were written")


def head(options: argparse.Namespace) -> None:
    """Print the first documents of a corpus."""
    from distcorpus.corpora import Corpus
    from distcorpus.corpora.reading import word_of

    corpus = Corpus(options.directory)[: options.n]
    words, names = corpus.id2word, corpus.names
    for number, document in enumerate(corpus):
        counts = sorted(document, key=lambda entry: (-entry[1], entry[0]))
        named = (f"{word if words is None else word_of(words, word)} {count:g}" for word, count in counts)
        say(f"{number if names is None else names[number]}: {', '.join(named)}")

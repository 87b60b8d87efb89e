"""``distcorpus train``: a model of a corpus, on this machine or on a cluster."""

from __future__ import annotations

import argparse
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from distcorpus.cli.common import (
    Commands,
    Parser,
    amount,
    check_output,
    default_tls,
    find_options,
    positive,
    positive_count,
    reading,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.cli.service import say
from distcorpus.cli.signals import ends_at_once

#: Words of a topic that are printed.
WORDS_SHOWN = 8


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser("train", help="train an LDA or LSI model on a corpus")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="MODEL")
    shared = _shared_options()
    lda = kinds.add_parser("lda", parents=[*shared, _common(2000)], help="latent Dirichlet allocation")
    lda.add_argument(
        "--passes", type=positive_count, default=1, metavar="N", help="passes over the corpus (default: 1)"
    )
    for name, words in (("alpha", "symmetric, asymmetric, auto"), ("eta", "symmetric, auto")):
        lda.add_argument(
            f"--{name}",
            type=_prior,
            default="symmetric",
            metavar="PRIOR",
            help=f"the prior: {words}, or a number (default: symmetric)",
        )
    lda.add_argument("--decay", type=amount, default=0.5, help="kappa of the updates (default: %(default)g)")
    lda.add_argument(
        "--offset", type=positive, default=1.0, help="tau_0 of the updates (default: %(default)g)"
    )
    lda.add_argument(
        "--iterations",
        type=int,
        default=50,
        metavar="N",
        help="the most iterations of a document's E-step (default: %(default)s)",
    )
    lda.add_argument(
        "--inference",
        choices=("vb", "cvb0"),
        default="vb",
        help="variational Bayes (as gensim) or zero-order collapsed variational Bayes (default: %(default)s)",
    )
    lda.add_argument(
        "--random-state", type=int, metavar="N", help="seed: the same number gives the same model"
    )
    lda.set_defaults(run=run, make=_lda)
    lsi = kinds.add_parser("lsi", parents=[*shared, _common(20_000)], help="latent semantic indexing")
    lsi.add_argument("--tfidf", action="store_true", help="weight the counts by TF-IDF")
    lsi.add_argument(
        "--decay", type=amount, default=1.0, help="weight of documents before a chunk (default: %(default)g)"
    )
    lsi.add_argument(
        "--random-state", type=int, metavar="N", help="seed: the same number gives the same model"
    )
    lsi.set_defaults(run=run, make=_lsi)


def _shared_options() -> list[Parser]:
    cluster = Parser(add_help=False)
    cluster.add_argument(
        "--cluster", action="store_true", help="train on a cluster (default: on this machine's cores)"
    )
    return [verbose_options(), secure_options(), find_options(), cluster]


def _common(chunksize: int) -> Parser:
    options = Parser(add_help=False)
    options.add_argument(
        "--corpus",
        required=True,
        metavar="DIR",
        help="a folder of 'distcorpus corpus build', or a Matrix Market file (.mm, .mm.gz, .mm.bz2)",
    )
    options.add_argument(
        "--dictionary",
        metavar="FILE",
        help="the words of a Matrix Market file: a gensim Dictionary, saved or as text",
    )
    options.add_argument("--topics", type=positive_count, required=True, metavar="K", help="topics to find")
    options.add_argument("--out", required=True, metavar="MODEL", help="the file to save the model to")
    options.add_argument(
        "--chunksize",
        type=positive_count,
        default=chunksize,
        metavar="N",
        help="documents per chunk (default: %(default)s)",
    )
    options.add_argument(
        "--workers",
        type=positive_count,
        metavar="N",
        help="threads on this machine (default: the number of available cores)",
    )
    return options


def _prior(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def run(options: argparse.Namespace) -> None:
    """Train a model, save it, and print its topics."""
    with ends_at_once():
        import_module("distcorpus.models")
    where = {**_where(options), "workers": options.workers, "progress": True}
    use_credentials(options)
    check_output("--out", options.out)
    corpus, dictionary = _load(options)
    model = options.make(options, corpus, dictionary, where)
    _save(model, options.out)
    for topic, words in model.show_topics(options.topics, WORDS_SHOWN, formatted=False):
        say(f"{topic}: {', '.join(str(word) for word, _ in words)}")
    kind = "LdaModel" if options.kind == "lda" else "LsiModel"
    say(f"saved: {options.out}, which gensim.models.{kind}.load and distcorpus.{kind}.load read")


def _save(model: Any, path: str) -> None:
    """Save a model so that its files are there only when all of them are whole."""
    out = Path(path).absolute()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        model.as_gensim().save(os.path.join(folder, out.name))
        # The file that names the others comes last.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == out.name):
            file.replace(out.parent / file.name)


def _where(options: argparse.Namespace) -> dict[str, Any]:
    """Return the models' arguments that say where they are trained."""
    given = {name: getattr(options, name) for name in ("host", "port", "address_file")}
    given = {name: value for name, value in given.items() if value is not None}
    if not options.cluster:
        if given or not options.broadcast or options.tls != default_tls():
            raise ValueError(
                "--host, --port, --no-broadcast, --address-file and --tls are for a cluster: give --cluster "
                "too"
            )
        return {"distributed": False}
    if options.workers is not None:
        raise ValueError("--workers is the number of threads on this machine: leave it out with --cluster")
    if not options.broadcast:
        given["broadcast"] = False
    return {"distributed": True, "ns_conf": given or None}


def _lda(options: argparse.Namespace, corpus: Any, dictionary: Any, where: dict[str, Any]) -> Any:
    from distcorpus.models import LdaModel

    return LdaModel(
        corpus,
        id2word=dictionary,
        num_topics=options.topics,
        chunksize=options.chunksize,
        passes=options.passes,
        alpha=options.alpha,
        eta=options.eta,
        decay=options.decay,
        offset=options.offset,
        iterations=options.iterations,
        inference=options.inference,
        random_state=options.random_state,
        eval_every=None,
        **where,
    )


def _lsi(options: argparse.Namespace, corpus: Any, dictionary: Any, where: dict[str, Any]) -> Any:
    from distcorpus.models import LsiModel

    if options.tfidf:
        corpus = _weighed(corpus)
    return LsiModel(
        corpus,
        id2word=dictionary,
        num_topics=options.topics,
        chunksize=options.chunksize,
        decay=options.decay,
        random_seed=options.random_state,
        **where,
    )


def _weighed(corpus: Any) -> Any:
    if hasattr(corpus, "tfidf"):
        return corpus.tfidf()
    from gensim.models import TfidfModel

    return TfidfModel(corpus)[corpus]


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the corpus and its words."""
    from gensim.corpora import MmCorpus

    from distcorpus.corpora import Corpus
    from distcorpus.demo import load_dictionary

    if Path(options.corpus).is_dir():
        corpus = Corpus(options.corpus)
        if options.dictionary is not None:
            raise ValueError("--dictionary is for Matrix Market files: a corpus' folder has its words")
        if corpus.id2word is None:
            raise ValueError(f"{options.corpus} has no words: give Corpus.write the id2word")
        return corpus, corpus.id2word
    if not os.path.exists(options.corpus):
        raise FileNotFoundError(f"--corpus {options.corpus}: there is no such folder or file")
    if options.dictionary is None:
        raise ValueError(f"give the --dictionary of {options.corpus}, or as --corpus a folder that has one")
    with reading("--dictionary", options.dictionary):
        dictionary = load_dictionary(options.dictionary)
    return MmCorpus(options.corpus), dictionary

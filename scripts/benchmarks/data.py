"""The documents that are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import corpora
import numpy as np
import scipy.sparse
from corpora import BoW
from gensim.corpora import Dictionary
from gensim.matutils import corpus2csc
from gensim.models import TfidfModel

#: Every so many-th document is held out.
HELD_OUT_EVERY = 10

#: Documents of a quick run, which shows that everything works and measures nothing.
QUICK_DOCUMENTS = 1500


@dataclass(frozen=True)
class Split:
    """A corpus of which a part is held out."""

    dictionary: Dictionary
    training: list[BoW]
    held_out: list[BoW]


def shuffled_newsgroups(quick: bool) -> tuple[Dictionary, list[BoW]]:
    """20 Newsgroups in an order that follows no group."""
    dictionary, documents = corpora.bow(corpora.newsgroups())
    order = np.random.default_rng(20).permutation(len(documents))
    return dictionary, [documents[d] for d in order[: QUICK_DOCUMENTS if quick else None]]


def split_newsgroups(quick: bool) -> Split:
    """20 Newsgroups, a tenth of it held out."""
    dictionary, documents = shuffled_newsgroups(quick)
    training = [document for d, document in enumerate(documents) if d % HELD_OUT_EVERY]
    return Split(dictionary, training, documents[::HELD_OUT_EVERY])


def tfidf_newsgroups(quick: bool) -> tuple[Dictionary, list[Any]]:
    """20 Newsgroups as gensim's TF-IDF weighs it, bags of words."""
    dictionary, documents = shuffled_newsgroups(quick)
    model = TfidfModel(dictionary=dictionary)
    return dictionary, [model[document] for document in documents]


def tfidf_matrix(quick: bool) -> scipy.sparse.csc_matrix:
    """The same as a matrix, terms x documents, float64."""
    path = corpora.cache_folder() / f"bench-tfidf{'-quick' * quick}.npz"
    if not path.exists():
        dictionary, documents = tfidf_newsgroups(quick)
        scipy.sparse.save_npz(path, corpus2csc(documents, num_terms=len(dictionary)), compressed=False)
    return scipy.sparse.csc_matrix(scipy.sparse.load_npz(path))


def as_csr(documents: list[BoW], num_terms: int) -> scipy.sparse.csr_matrix:
    """Bags of words as scikit-learn takes them: documents x terms, float32."""
    lengths = [len(document) for document in documents]
    pairs = np.array([pair for document in documents for pair in document]).reshape(-1, 2)
    return scipy.sparse.csr_matrix(
        (pairs[:, 1].astype(np.float32), pairs[:, 0], np.concatenate(([0], np.cumsum(lengths)))),
        shape=(len(documents), num_terms),
    )

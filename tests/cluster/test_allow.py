"""A user's own id2word class, let in by name."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
from gensim.models import LdaModel, LsiModel

from distcorpus import LocalCluster

MODULE = """
from gensim.corpora import Dictionary

class Words(dict):
    '''Upper case.'''

    def __init__(self, words=()):
        super().__init__(words)
        self.origin = "a list"

    def __setitem__(self, key, word):
        super().__setitem__(key, word.upper())

class Vocabulary(Dictionary):
    pass

class Other(Words):
    pass
"""


@pytest.fixture
def vocabulary(tmp_path, monkeypatch):
    """A module of the user's that the daemons can import too."""
    (tmp_path / "users_vocabulary.py").write_text(MODULE)
    path = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("users_vocabulary")
    del sys.modules["users_vocabulary"]


def test_classes_that_are_let_in(vocabulary, lee_corpus, monkeypatch):
    monkeypatch.setenv("DISTCORPUS_ALLOW", "users_vocabulary:Vocabulary,some:Thing")
    documents = lee_corpus.counts[:50]
    words = vocabulary.Words(enumerate(lee_corpus.dictionary[i] for i in range(len(lee_corpus.dictionary))))
    with LocalCluster(1, dispatcher_options=("--allow", "users_vocabulary:Words")):
        lda = LdaModel(documents, id2word=words, num_topics=3, eval_every=None, distributed=True)
        assert lda.num_terms == len(words)
        assert lda.state.numdocs == len(documents)
        own = vocabulary.Vocabulary(corpus.split() for corpus in ("human interface", "user interface"))
        lsi = LsiModel([[(0, 1), (1, 2)], [(1, 1), (2, 1)]], id2word=own, num_topics=2, distributed=True)
        assert lsi.projection.u.shape == (3, 2)
        with pytest.raises(RuntimeError, match="--allow users_vocabulary:Other"):
            LsiModel(id2word=vocabulary.Other(words), distributed=True)


@pytest.mark.parametrize("daemon", ["nameserver", "dispatcher", "worker"])
def test_what_names_no_class_is_refused(daemon):
    from distcorpus.cli import main

    with pytest.raises(SystemExit, match="allow takes 'module:Class'"):
        main([daemon, "--allow", "os.system"])

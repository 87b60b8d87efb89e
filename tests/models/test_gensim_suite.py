"""gensim's own tests of its two models, as installed, with ours in their place: here and on a cluster."""

from __future__ import annotations

import unittest
from types import SimpleNamespace

import pytest
from gensim.test import test_ldamodel, test_lsimodel

from distcorpus.models import LdaModel, LsiModel


class DistributedLda(LdaModel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"distributed": True, **kwargs})


class DistributedLsi(LsiModel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"distributed": True, **kwargs})


def cases():
    loader = unittest.TestLoader()
    for kind in (test_lsimodel.TestLsiModel, test_ldamodel.TestLdaModel):
        for name in loader.getTestCaseNames(kind):
            for where in ("here", "cluster"):
                marks = [pytest.mark.long] if name == "test_passes" and where == "cluster" else []
                yield pytest.param(kind, name, where, marks=marks, id=f"{kind.__name__}.{name}-{where}")


@pytest.mark.parametrize(("kind", "name", "where"), list(cases()))
def test_gensims_own(request, monkeypatch, kind, name, where):
    if where == "cluster":
        request.getfixturevalue("cluster")
    lda, lsi = (LdaModel, LsiModel) if where == "here" else (DistributedLda, DistributedLsi)
    monkeypatch.setattr(test_ldamodel, "ldamodel", SimpleNamespace(LdaModel=lda))
    monkeypatch.setattr(test_lsimodel, "lsimodel", SimpleNamespace(LsiModel=lsi))
    result = unittest.TestResult()
    kind(name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1
    assert not result.skipped

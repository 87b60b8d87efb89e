"""gensim's own tests of its two models, as installed, with ours in their place, on each engine."""

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


class DaskLda(LdaModel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"client": "active", **kwargs})


class DaskLsi(LsiModel):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"client": "active", **kwargs})


MODELS = {
    "here": (LdaModel, LsiModel),
    "cluster": (DistributedLda, DistributedLsi),
    "dask": (DaskLda, DaskLsi),
}


def cases():
    loader = unittest.TestLoader()
    for kind in (test_lsimodel.TestLsiModel, test_ldamodel.TestLdaModel):
        for name in loader.getTestCaseNames(kind):
            for where in MODELS:
                is_long = where != "here" or name == "test_passes"
                marks = [pytest.mark.long] if is_long else []
                if name == "test_passes":  # 7,500 updates, which take three minutes with Dask
                    marks.append(pytest.mark.timeout(900))
                yield pytest.param(kind, name, where, marks=marks, id=f"{kind.__name__}.{name}-{where}")


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed", reason="pip install distcorpus[dask]")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.mark.parametrize(("kind", "name", "where"), list(cases()))
def test_gensims_own(request, monkeypatch, kind, name, where):
    if where != "here":
        request.getfixturevalue({"cluster": "cluster", "dask": "dask_client"}[where])
    lda, lsi = MODELS[where]
    monkeypatch.setattr(test_ldamodel, "ldamodel", SimpleNamespace(LdaModel=lda))
    monkeypatch.setattr(test_lsimodel, "lsimodel", SimpleNamespace(LsiModel=lsi))
    result = unittest.TestResult()
    kind(name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1
    assert not result.skipped

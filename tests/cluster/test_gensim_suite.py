"""gensim's own tests of its two models, as installed, with ``distributed=True`` on our cluster."""

from __future__ import annotations

import functools
import re
import unittest

import pytest
from gensim.models.ldamodel import LdaModel
from gensim.models.lsimodel import LsiModel
from gensim.test import test_ldamodel, test_lsimodel

#: Tests that cannot apply to gensim's unmodified classes in distributed mode, and why.
CANNOT_APPLY = {
    "TestLdaModel.test_alpha_auto": "the unmodified class refuses alpha='auto' before it asks us",
}

#: Tests of thousands of rounds, and those that train as all others do and then do nothing with the cluster.
LONG = re.compile(
    "test_(passes|persistence|large_mmap|print_|show_|get_topic|top_topics|dtype|model_compat|random_state)"
)


def cases():
    loader = unittest.TestLoader()
    for kind in (test_lsimodel.TestLsiModel, test_ldamodel.TestLdaModel):
        for name in loader.getTestCaseNames(kind):
            marks = [pytest.mark.long] if LONG.match(name) else []
            yield pytest.param(kind, name, marks=marks, id=f"{kind.__name__}.{name}")


def distributed_by_default(init):
    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        kwargs.setdefault("distributed", True)
        init(self, *args, **kwargs)

    return wrapper


@pytest.mark.parametrize(("kind", "name"), list(cases()))
def test_gensims_own(cluster, monkeypatch, kind, name):
    reason = CANNOT_APPLY.get(f"{kind.__name__}.{name}")
    if reason:
        pytest.skip(reason)
    for model in (LsiModel, LdaModel):
        monkeypatch.setattr(model, "__init__", distributed_by_default(model.__init__))
    result = unittest.TestResult()
    kind(name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert result.testsRun == 1

"""Tests of OCTIS's LDA and LSI, and of its measures, for `thirdparty.py`: OCTIS's packages bring none."""

from __future__ import annotations

from typing import Any

import gensim.corpora
import numpy as np
import pytest
from gensim.test.utils import datapath
from gensim.utils import simple_preprocess
from octis.dataset.dataset import Dataset
from octis.evaluation_metrics.coherence_metrics import Coherence
from octis.evaluation_metrics.diversity_metrics import TopicDiversity
from octis.models.LDA import LDA
from octis.models.LSI import LSI


@pytest.fixture(scope="module")
def dataset() -> Any:
    """Gensim's 300 news texts, as OCTIS has them, in three parts."""
    with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
        texts = [simple_preprocess(line) for line in lines]
    dictionary = gensim.corpora.Dictionary(texts)
    dictionary.filter_extremes(no_below=5, no_above=0.5)
    kept = [[word for word in text if word in dictionary.token2id] for text in texts]
    metadata = {"last-training-doc": 200, "last-validation-doc": 250}
    return Dataset(kept, sorted(dictionary.token2id), metadata=metadata)


@pytest.mark.parametrize("partitions", [False, True])
@pytest.mark.parametrize("alpha", ["symmetric", "asymmetric", "auto", 0.1])
def test_lda(dataset: Any, partitions: bool, alpha: Any) -> None:
    """Its matrices are distributions over the words and the topics, and its topics measure up."""
    model = LDA(num_topics=10, random_state=1, passes=3)
    model.set_hyperparameters(alpha=alpha)
    model.partitioning(use_partitions=partitions)
    output = model.train_model(dataset, top_words=8)
    words = output["topic-word-matrix"]
    assert len(words) == 10
    np.testing.assert_allclose(np.sum(words, axis=1), 1.0, rtol=1e-4)
    assert np.shape(output["topic-document-matrix"]) == (10, 200 if partitions else 300)
    assert [len(topic) for topic in output["topics"]] == [8] * 10
    if partitions:
        assert np.shape(output["test-topic-document-matrix"])[0] == 10
    assert 0.2 < TopicDiversity(topk=8).score(output) <= 1.0
    measure = Coherence(texts=dataset.get_corpus(), topk=8, measure="u_mass", processes=1)
    assert -20 < measure.score(output) < 0


def test_lda_goes_on_with_the_test_documents(dataset: Any) -> None:
    """OCTIS updates the model with them."""
    model = LDA(num_topics=5, random_state=1)
    model.partitioning(use_partitions=True, update_with_test=True)
    output = model.train_model(dataset)
    assert np.shape(output["test-topic-word-matrix"]) == np.shape(output["topic-word-matrix"])


@pytest.mark.parametrize("partitions", [False, True])
def test_lsi(dataset: Any, partitions: bool) -> None:
    """Its topics are as many as asked for."""
    model = LSI(num_topics=10)
    model.partitioning(partitions)
    output = model.train_model(dataset, top_words=8)
    assert np.shape(output["topic-word-matrix"])[0] == 10
    assert [len(topic) for topic in output["topics"]] == [8] * 10

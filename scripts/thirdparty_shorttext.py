"""Tests of shorttext's topic models, for `thirdparty.py`: its own want texts that they download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shorttext
from sklearn.linear_model import LogisticRegression

WORDS = "renaissance painting of the church"


@pytest.fixture(scope="module")
def texts() -> Any:
    """Keywords of three subjects, which come with shorttext."""
    return shorttext.data.subjectkeywords()


@pytest.mark.parametrize("name", ["LDAModeler", "LSIModeler"])
def test_topics_of_texts(texts: Any, tmp_path: Path, name: str) -> None:
    """They are unit vectors, the same after saving and loading, and classify the texts they come from."""
    modeler = getattr(shorttext.generators, name)()
    modeler.train(texts, 8)
    vector = modeler.retrieve_topicvec(WORDS)
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    path = str(tmp_path / "model.bin")
    modeler.save_compact_model(path)
    loaded = shorttext.generators.GensimTopicModeler.from_pretrained(path)
    np.testing.assert_allclose(loaded.retrieve_topicvec(WORDS), vector, atol=0.05)
    scores = shorttext.classifiers.TopicVectorCosineDistanceClassifier(modeler).score(WORDS)
    assert set(scores) == set(texts)
    assert all(-1.01 <= score <= 1.01 for score in scores.values())
    classifier = shorttext.classifiers.TopicVectorSkLearnClassifier(modeler, LogisticRegression())
    classifier.train(texts)
    assert set(classifier.score(WORDS)) == set(texts)

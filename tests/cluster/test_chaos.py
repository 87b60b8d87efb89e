"""A short run of scripts/chaos.py: workers are killed, stopped, started, cut off and frozen meanwhile."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.long
def test_trainings_survive_everything(lee_corpus):
    trainings = chaos.gensims(lee_corpus.dictionary, lee_corpus.counts, topics=50, chunksize=10, passes=20)
    report = chaos.chaos(trainings, seconds=15, seed=3, every=0.7)
    print(report)
    assert report.good, str(report)
    assert len({fault.kind for fault in report.faults}) >= 4
    assert report.survived().total() == len(report.faults) >= 8

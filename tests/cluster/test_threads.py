"""A worker of several threads computes the blocks of a job side by side, and no job of it fails."""

from __future__ import annotations

import numpy as np

from distcorpus import LocalCluster
from distcorpus.corpora import Corpus
from distcorpus.models import LdaModel, LsiModel

from .test_kinds import KINDS, train
from .test_status import fresh


def test_no_job_fails_on_a_worker_of_several_threads(cluster, lee_corpus, tmp_path):
    expected = [train(kind, lee_corpus) for kind in KINDS]
    stored = Corpus.write(tmp_path / "stored", lee_corpus.counts, lee_corpus.dictionary)
    with LocalCluster(1, threads=2, corpora=[tmp_path]) as threaded:
        assert [train(kind, lee_corpus) for kind in KINDS] == expected
        options = {"id2word": lee_corpus.dictionary, "num_topics": 12, "distributed": True}
        lda = LdaModel(stored, chunksize=100, random_state=1, **options)
        lsi = LsiModel(stored.tfidf(), chunksize=100, **options)
        assert len(list(lda.transform(lee_corpus.counts))) > 0
        assert len(list(lsi.transform(lee_corpus.tfidf))) > 0
        assert np.isfinite(lda.bound(stored))
        records = [
            record
            for session in threaded.dispatcher.recorded_sessions()
            for record in threaded.dispatcher.records(session)
        ]
        (worker,) = fresh(threaded, lambda one: not one.sessions).workers
    assert max(len(record["blocks"]) for record in records) > 1
    assert (worker.jobs_failed, worker.jobs_lost) == (0, 0)

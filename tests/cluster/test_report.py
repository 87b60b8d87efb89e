"""A report of a training on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distcorpus import LdaModel, LocalCluster
from tests.models.test_report import read


def test_a_report_of_a_cluster(cluster: LocalCluster, lee_corpus: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    LdaModel(lee_corpus.counts, 5, lee_corpus.dictionary, chunksize=50, distributed=True, report=path)
    data = read(path)
    assert data["runs"][0]["where"] == "a cluster"
    good = [job for job in data["jobs"] if job["outcome"] == "accepted"]
    assert sum(job["documents"] for job in good) == len(lee_corpus.counts)
    assert {job["worker"] for job in good} <= {worker.name for worker in cluster.workers}
    assert sum(job["bytes_sent"] for job in good) > 0
    # Up to its end.
    assert [(one["outcome"], one["phase"]) for one in data["ended"]] == [("finished", "done")]
    assert {worker["name"] for worker in data["now"]["workers"]} == {
        worker.name for worker in cluster.workers
    }

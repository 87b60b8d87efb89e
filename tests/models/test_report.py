"""Reports: one file, which holds all that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distcorpus import LdaModel, LsiModel, performance_report
from tests.monitor.telling import TellingCluster


def read(path: Path) -> dict[str, Any]:
    """What a report was made of."""
    text = path.read_text("utf-8")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)  # nothing from elsewhere
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    data["jobs"] = [
        {
            name: data["names"][value] if name in ("worker", "session", "kernel", "outcome") else value
            for name, value in zip(data["job_fields"], job, strict=True)
        }
        for job in data["jobs"]
    ]
    return data


def test_a_report_of_threads(lee_corpus: Any, tmp_path: Path) -> None:
    with performance_report(tmp_path / "run.html"):
        LdaModel(
            lee_corpus.counts, 5, lee_corpus.dictionary, chunksize=100, passes=2, eval_every=1, workers=2
        )
        LsiModel(lee_corpus.tfidf, 5, lee_corpus.dictionary, workers=2)
    data = read(tmp_path / "run.html")
    lda, lsi = data["runs"]
    assert (lda["class"], lda["where"], lda["settings"]["passes"]) == (
        "LdaModel",
        "threads of this process",
        "2",
    )
    assert lda["documents"] == 2 * len(lee_corpus.counts)
    assert len(lda["curve"]) == 6
    assert lsi["rounds"] > 0
    assert data["versions"]["numpy"]
    jobs = [job for job in data["jobs"] if job["kernel"] == "lda"]
    assert sum(job["documents"] for job in jobs) == 2 * len(lee_corpus.counts)
    assert all(data["began"] <= job["began"] <= job["ended"] <= data["until"] for job in data["jobs"])
    assert {job["worker"] for job in jobs} <= {"distcorpus-0", "distcorpus-1"}
    assert data["own_samples"]
    # Nobody watches any more.
    assert_same = LdaModel(lee_corpus.counts, 5, lee_corpus.dictionary, workers=2, random_state=1)
    report = str(tmp_path / "model.html")
    reported = LdaModel(lee_corpus.counts, 5, lee_corpus.dictionary, workers=2, random_state=1, report=report)
    assert reported.state.sstats.tobytes() == assert_same.state.sstats.tobytes()
    assert len(read(Path(report))["runs"]) == 1


def test_a_report_is_written_where_the_training_fails(lee_corpus: Any, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        raise RuntimeError("</script><script>alert(1)</script>")

    with pytest.raises(RuntimeError, match="alert"), performance_report(tmp_path / "run.html"):
        LdaModel(lee_corpus.counts, 5, lee_corpus.dictionary, progress=stop, workers=1)
    assert "alert(1)" in read(tmp_path / "run.html")["runs"][0]["error"]
    assert "<script>alert" not in (tmp_path / "run.html").read_text("utf-8")


def test_where_it_cannot_be_written_is_said_before(lee_corpus: Any, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none" / "run.html")
    with pytest.raises(ValueError, match="no directory"), performance_report(nowhere):
        pass
    with pytest.raises(ValueError, match="report"):
        LsiModel(lee_corpus.tfidf, 5, lee_corpus.dictionary, report=nowhere)
    with pytest.raises(OSError, match="folder"), performance_report(tmp_path / "folder.html"):
        (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="names no file"), performance_report(tmp_path / "folder.html"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]


def test_what_a_cluster_tells_is_in_it_from_the_beginning_on(tmp_path: Path) -> None:
    """A real cluster's jobs: `cluster/test_report.py`."""
    from dataclasses import replace

    from distcorpus.models import _report
    from distcorpus.monitor.snapshot import JobEvent, WorkerView

    with TellingCluster() as cluster:
        telling = cluster.dispatcher
        job = JobEvent(1, 1.0, 2.0, "s", "before", 1, "lda", "accepted", 5, 1, *(0.1,) * 4, 10, 20)
        telling.told = replace(
            telling.told,
            workers=(WorkerView(name="w", state="ready"),),
            jobs=(job, replace(job, number=2, ended=4e9, worker="</script>")),
        )
        with performance_report(tmp_path / "run.html"):
            _report.runs_on("127.0.0.1", cluster._nameserver.port)
        data = read(tmp_path / "run.html")
        assert {job["worker"] for job in data["jobs"]} == {"</script>"}
        assert data["now"]["workers"][0]["name"] == "w"
        telling.lie = 7
        with performance_report(tmp_path / "run.html"):
            _report.runs_on("127.0.0.1", cluster._nameserver.port)
        assert read(tmp_path / "run.html")["now"] == {}


@pytest.mark.parametrize(
    ("name", "said"),
    [(".", "names no file"), ("", "names no file"), ("/proc/report.html", "nothing can be written to /proc")],
)
def test_where_no_report_can_be_written_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for make in (LdaModel, LsiModel):
        with pytest.raises(ValueError, match=said):
            make(num_topics=2, id2word={0: "a"}, report=name)
    with pytest.raises(ValueError, match=said), performance_report(name):
        pass

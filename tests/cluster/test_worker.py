"""A worker by itself, without a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from distcorpus import LocalCluster
from distcorpus.kernels import EStepParams, InferenceParams, ProductParams, as_dict
from distcorpus.wire import Daemon, abort, connect
from distcorpus.wire.frames import encode
from distcorpus.worker.daemon import JobLog, Worker

from .conftest import wait_until

PARAMS = {
    "lda": EStepParams(np.ones(2), np.ones(2), "float32", 5, 0.001, 1),
    "inference": InferenceParams(np.ones(2), np.ones(2), "float32", 5, 0.001, 1),
    "lsi": ProductParams(2, 1.0, "float32"),
}


def job(kernel="lda", **changes):
    """One document of two terms, with the broadcast rows of the first alone."""
    documents = (np.array([0, 2]), np.array([0, 1], dtype=np.int32), np.ones(2, dtype=np.float32))
    return {
        "lease": "a-1",
        "session": "lda-1",
        "round": 1,
        "kernel": kernel,
        "params": as_dict(PARAMS[kernel]) if kernel in PARAMS else None,
        "num_terms": 2,
        "blocks": [(0, (0, 0))],
        "payload": {0: documents},
        "keep": False,
        "words": np.array([0, 1], dtype=np.int32),
        "rows": np.ones((2, 2), dtype=np.float32),
        **changes,
    }


@pytest.fixture
def worker():
    return Worker("a worker")


def test_computes_what_it_is_given(worker):
    words, steps, extras = worker.process(job())["partial"]
    assert words.tolist() == [0, 1]
    assert steps.shape == (2, 2)
    assert extras["documents"] == 1


def test_cancelled_job_comes_back_at_once(worker):
    """Without waiting for the rest of the broadcast, which will not come either."""
    worker.cancel(["a-1"])
    half = {"words": np.array([0], dtype=np.int32), "rows": np.ones((1, 2), dtype=np.float32)}
    assert worker.process(job(**half)) == {"handed_back": True}
    # What came with it is there for the next job. Another dispatcher's lease of that number is not cancelled.
    rest = {"words": np.array([1], dtype=np.int32), "rows": np.ones((1, 2), dtype=np.float32)}
    assert "partial" in worker.process(job(lease="b-1", **rest))


def test_job_of_an_earlier_round_is_handed_back(worker):
    assert "partial" in worker.process(job(round=2))
    assert worker.process(job()) == {"handed_back": True}
    assert "partial" in worker.process(job(round=3))


def test_leaving_worker_takes_no_job(worker):
    assert worker.leave(1.0)
    assert worker.process(job()) == {"handed_back": True}


def test_block_that_it_does_not_hold_is_asked_for(worker):
    assert worker.process(job(payload={}))["missing"] == [0]
    assert "partial" in worker.process(job(keep=True))
    assert "partial" in worker.process(job(payload={}))
    worker.forget("lda-1")
    assert worker.process(job(payload={}))["missing"] == [0]


ENDLESS = {"iterations": 2**62, "gamma_threshold": 0.0}


@pytest.mark.parametrize("kernel", ["lda", "inference"])
@pytest.mark.parametrize("how", ["cancel", "forget"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_under_way_ends_when_nobody_wants_it(kernel, how, threads):
    worker = Worker("a worker", threads)
    endless = job(kernel, params={**as_dict(PARAMS[kernel]), **ENDLESS})
    endless["blocks"] = [(0, (0, 0)), (1, (0, 1))]
    endless["payload"] = dict.fromkeys((0, 1), endless["payload"][0])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(worker.process, endless)
        wait_until(worker._computing.locked, "the job")
        if how == "cancel":
            worker.cancel(["a-1"])
        else:
            worker.forget("lda-1")
        assert answer.result(20) == {"handed_back": True}
    assert worker.process(job(kernel, lease="b-1")).keys() >= {"lease"}


def test_a_job_under_way_ends_with_its_connection():
    """Where its dispatcher was killed, nobody tells the worker."""
    worker, daemon = Worker("a worker"), Daemon()
    uri = daemon.serve("w", worker)
    daemon.start()
    proxy = connect(uri)
    endless = job(params={**as_dict(PARAMS["lda"]), **ENDLESS})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(proxy.process, endless)
        wait_until(worker._computing.locked, "the job")
        abort(proxy)
    wait_until(lambda: not worker._computing.locked(), "its end", 20)
    daemon.stop(grace=1.0)


@pytest.mark.parametrize("variant", ["vb", "cvb0"])
def test_what_no_documents_make_is_not_sent(worker, variant):
    """Its dispatcher would take this worker for a liar."""
    posed = job(params={**as_dict(PARAMS["lda"]), "variant": variant})
    posed["rows"] = np.array([[-3, 10], [10, -3]], dtype=np.float32)
    if variant == "vb":
        assert "partial" in worker.process(posed)
    else:
        with pytest.raises(ValueError, match=r"impossible for the job's documents: .*begin with others"):
            worker.process(posed)


@pytest.mark.parametrize("kernel", ["lda", "lsi", "inference"])
def test_numpys_numbers_are_taken_for_pythons(kernel):
    """Compiled code would be compiled for each of their types."""
    given = as_dict(PARAMS[kernel])
    kinds = {int: np.int16, float: np.float32, bool: np.bool_}
    numpys = {name: kinds.get(type(value), lambda it: it)(value) for name, value in given.items()}
    kept = as_dict(type(PARAMS[kernel])(**numpys))
    assert list(map(type, kept.values())) == list(map(type, given.values()))
    for name, value in given.items():
        if type(value) in (int, float):
            with pytest.raises(TypeError, match=f"{name} is a bool"):
                type(PARAMS[kernel])(**{**given, name: True})


@pytest.mark.parametrize("kernel", ["lda", "lsi", "inference"])
def test_documents_that_would_crash_compiled_code_are_refused(worker, kernel):
    indptr, indices, data = job()["payload"][0]
    for bad in (
        (np.array([0, 2_000_000]), indices, data),
        (np.array([0, 2**63 - 1, -2, 2]), indices, data),
        (indptr, np.array([0, 1_000_000], dtype=np.int32), data),
        (indptr, indices, data[:1]),
    ):
        with pytest.raises(ValueError, match="block 0"):
            worker.process(job(kernel=kernel, payload={0: bad}))
    assert "partial" in worker.process(job())


# What a daemon does, in a process of which nothing else takes memory.
PROCESS = """
import sys
from pathlib import Path

import numpy as np

from distcorpus.kernels import EStep
from distcorpus.wire import share_freed_memory
from distcorpus.wire.frames import decode
from distcorpus.worker.daemon import JobLog, Worker

def memory(what):
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[what].split()[0]) * 1024

share_freed_memory()
worker = Worker("a worker")
EStep.warm()
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
for message in sys.argv[1:]:
    worker.process(decode(np.fromfile(message, np.uint8).data))
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="it is measured as Linux does it")
@pytest.mark.long
def test_memory_is_the_sums_and_two_rounds_topics(tmp_path):
    num_terms, num_topics = 20_000, 200
    topics = np.ones((num_terms, num_topics), np.float32)
    terms = np.arange(num_terms, dtype=np.int32)
    documents = np.arange(0, num_terms + 1, 100), terms, np.ones(num_terms, np.float32)
    params = {**job()["params"], "alpha": np.ones(num_topics), "totals": np.full(num_topics, 1.0 * num_terms)}
    messages = [str(tmp_path / f"round {number}") for number in (1, 2)]
    for number, message in enumerate(messages, 1):
        content = job(
            round=number,
            params=params,
            num_terms=num_terms,
            width=num_topics,
            payload={0: documents},
            words=terms,
            rows=topics,
        )
        Path(message).write_bytes(bytes(encode(content)))
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *messages], capture_output=True, text=True, timeout=60, check=True
    )
    tables = int(done.stdout) / topics.nbytes
    print(f"the memory of {tables:.1f} tables of float32")
    # The sums are of float64; the topics of a round arrive while those of the last one are held.
    assert tables < 4.7


@pytest.mark.long
def test_a_daemon_of_several_that_dies_is_started_again(tmp_path):
    """Under its name, and with a word at once; the command ends well all the same."""
    with LocalCluster(0) as cluster, open(tmp_path / "log", "w+") as log:
        command = [sys.executable, "-m", "distcorpus", "worker", "--no-broadcast"]
        command += ["--name", "w", "--workers", "2"]
        process = subprocess.Popen(command, env={**os.environ, **cluster.environ("worker")}, stderr=log)
        try:

            def pids():
                return {worker["name"]: worker["pid"] for worker in cluster.dispatcher.status()["workers"]}

            wait_until(lambda: pids().keys() == {"w-0", "w-1"}, "their joining")
            before = pids()
            os.kill(before["w-1"], signal.SIGKILL)
            wait_until(lambda: pids().get("w-1", before["w-1"]) != before["w-1"], "its joining again")
            assert pids()["w-0"] == before["w-0"]
        finally:
            process.terminate()
            code = process.wait(60)
        assert code == 0
        log.seek(0)
        said = log.read()
        assert f"worker w-1 (pid {before['w-1']}) was killed by SIGKILL: it is started again in 1 s" in said


def test_the_log_sums_the_jobs_of_a_session(caplog, monkeypatch):
    """The first one by itself, then one line for all since the line before."""
    now = 100.0
    monkeypatch.setattr("distcorpus.worker.daemon.time.monotonic", lambda: now)
    caplog.set_level("INFO", "distcorpus.worker.daemon")
    log = JobLog(every=10.0)
    log.computed("lda-1", "lda", 1, 0.5)
    log.computed("lsi-1", "lsi", 7, 0.25)
    log.computed("lda-1", "lda", 20, 1.0)
    now = 112.0
    log.computed("lda-1", "lda", 30, 2.0)
    now = 113.0
    log.computed("lda-1", "lda", 40, 4.0)
    now = 123.0
    log.computed("lsi-1", "lsi", 1, 0.125)
    log.computed("lda-1", "lda", 1, 1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "training run lda-1: first job: lda of 1 document in 0.5 s",
        "training run lsi-1: first job: lsi of 7 documents in 0.25 s",
        "training run lda-1: 2 jobs (lda), 50 documents in 3 s of the last 12 s",
        "training run lsi-1: 1 job (lsi), 1 document in 0.125 s of the last 23 s",
        "training run lda-1: 2 jobs (lda), 41 documents in 5 s of the last 11 s",
    ]

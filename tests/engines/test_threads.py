"""The engine of one process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import threadpoolctl

from distcorpus import LdaModel, LsiModel
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.algorithms.rows import SLICE
from distcorpus.engines import threads
from distcorpus.engines.threads import ThreadsEngine, available_threads
from distcorpus.kernels import EStep

from .conftest import wait_until
from .document_frequencies import document_frequencies

LDA = {"num_topics": 5, "chunksize": 50, "random_state": 1}


def threads_of_ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("distcorpus-")]


def blas_threads() -> list[int]:
    return [info["num_threads"] for info in threadpoolctl.threadpool_info() if info["user_api"] == "blas"]


def test_its_threads_end_with_the_training(lee_corpus):
    seen = []
    LdaModel(
        lee_corpus.counts,
        id2word=lee_corpus.dictionary,
        workers=3,
        progress=lambda event: seen.append(len(threads_of_ours())),
        **LDA,
    )
    assert 1 <= max(seen) <= 3
    assert not threads_of_ours()


def test_there_are_no_more_threads_than_blocks(lee_corpus, monkeypatch):
    """However many are allowed: a thread takes memory, and a system has an end of them."""
    started = []
    real = threading.Thread.start

    def start(thread):
        started.append(thread.name)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, workers=100_000, update_every=0, **LDA)
    assert 1 <= sum(name.startswith("distcorpus-") for name in started) <= 6


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("error", "message", "starts"),
    [
        (KeyboardInterrupt(), None, False),
        (KeyboardInterrupt(), None, True),  # it comes while the thread is starting
        (RuntimeError("can't start new thread"), r"new thread: . of 5 threads run. Give fewer", False),
    ],
)
def test_what_comes_while_threads_start_is_raised(lee_corpus, monkeypatch, number, error, message, starts):
    """And those that run end."""
    numbers = iter(range(100))
    real = threading.Thread.start

    def start(thread):
        failing = thread.name.startswith("distcorpus-") and next(numbers) == number
        if starts or not failing:
            real(thread)
        if failing:
            raise error

    model = LdaModel(id2word=lee_corpus.dictionary, workers=5, update_every=0, **LDA)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(type(error), match=message):
            model.update(lee_corpus.counts)
    assert next(numbers) > number
    wait_until(lambda: not threads_of_ours())
    model.update(lee_corpus.counts)


def test_an_engine_that_was_closed_computes_again():
    engine = ThreadsEngine(2)
    chunk = as_chunk([[(0, 1)], [(1, 2)], [(0, 1), (1, 1)]], 2)
    for name in "ab":
        with engine:
            assert list(document_frequencies(engine, [chunk] * 2, 2, name)) == [4, 4]
        assert not threads_of_ours()


@pytest.mark.parametrize(
    "train",
    [
        lambda documents, workers: LdaModel(documents, workers=workers, **LDA).get_topics(),
        lambda documents, workers: LsiModel(documents, 6, chunksize=50, workers=workers).projection.u,
    ],
    ids=["lda", "lsi"],
)
def test_slices_of_a_large_vocabulary_have_the_same_bytes(train):
    words = np.random.default_rng(0).integers(0, 4 * SLICE, (100, 400))
    documents = [[(int(word), 1.0 + word % 3) for word in np.unique(row)] for row in words]
    assert len(np.unique(words[: LDA["chunksize"]])) > 2 * SLICE
    first, *others = [train(documents, workers).tobytes() for workers in (1, 2, 3)]
    assert others == [first, first]


def test_an_error_in_a_thread_reaches_the_caller_with_its_traceback(lee_corpus, monkeypatch):
    add = EStep.add

    def fail(self, block, key):
        if key == (1, 0):
            raise ArithmeticError("the second chunk")
        add(self, block, key)

    model = LdaModel(id2word=lee_corpus.dictionary, **LDA)
    with monkeypatch.context() as patched:
        patched.setattr(EStep, "add", fail)
        with pytest.raises(ArithmeticError, match="the second chunk") as raised:
            model.update(lee_corpus.counts)
    assert raised.traceback[-1].name == "fail"
    assert not threads_of_ours()
    assert model.num_updates == 50  # the first chunk's
    model.update(lee_corpus.counts)


def test_a_corpus_that_raises_ends_the_threads(lee_corpus):
    class Failing:
        def __len__(self):
            return 300

        def __iter__(self):
            yield from lee_corpus.counts[:120]
            raise OSError("the disk is gone")

    model = LdaModel(id2word=lee_corpus.dictionary, **LDA)
    with pytest.raises(OSError, match="the disk is gone"):
        model.update(Failing())
    assert not threads_of_ours()
    assert model.num_updates == 100  # what was read before it counts, up to the last whole update


def test_the_caller_is_the_one_that_reads(lee_corpus):
    readers = set()

    class Watched:
        def __len__(self):
            return len(lee_corpus.counts)

        def __iter__(self):
            for document in lee_corpus.counts:
                readers.add(threading.get_ident())
                yield document

    LdaModel(Watched(), id2word=lee_corpus.dictionary, **LDA)
    assert readers == {threading.get_ident()}


def test_trainings_at_once_share_the_cores(lee_corpus, monkeypatch):
    """However many there are: no more blocks are computed at once than there are cores."""
    monkeypatch.setattr(threads, "_shared", {})
    monkeypatch.setenv("DISTCORPUS_THREADS", "2")
    now, most, lock = 0, 0, threading.Lock()
    add = EStep.add

    def counted(self, block, key):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        add(self, block, key)
        with lock:
            now -= 1

    monkeypatch.setattr(EStep, "add", counted)

    def train(_):
        return LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, **LDA).state.sstats.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(train, range(4)))) == 1
    assert 1 <= most <= min(2, available_threads())


def test_blas_has_its_threads_again_in_any_order():
    before = blas_threads()
    with ThreadsEngine(1) as first, ThreadsEngine(1) as second:
        one, other = first.algebra(), second.algebra()
        one.__enter__()
        assert set(blas_threads()) == {1}
        other.__enter__()
        one.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        other.__exit__(None, None, None)
    assert blas_threads() == before


def test_lsi_leaves_blas_as_it_was(lee_corpus):
    before = blas_threads()
    LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5)
    assert blas_threads() == before


@pytest.mark.parametrize(
    ("given", "expected"), [("1", 1), ("1,4", 1), ("", None), ("many", None), ("0", None), ("1000", None)]
)
def test_a_process_may_be_given_fewer_threads(monkeypatch, given, expected):
    monkeypatch.delenv("DISTCORPUS_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    all_of_them = available_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert available_threads() == (expected or all_of_them)
    monkeypatch.setenv("DISTCORPUS_THREADS", "1")
    assert available_threads() == 1


def test_one_core_is_one_thread():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from distcorpus.engines.threads import available_threads; print(available_threads())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_a_process_forked_after_a_training_trains_too(lee_corpus):
    """As multiprocessing's default does on Linux."""
    options = {"id2word": lee_corpus.dictionary, **LDA}
    expected = LdaModel(lee_corpus.counts, **options).state.sstats
    LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5)
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5)
            found = LdaModel(lee_corpus.counts, **options).state.sstats
            os.write(send, b"same" if np.array_equal(found, expected) else b"other")
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        assert pipe.read() == b"same"
    os.waitpid(child, 0)


@pytest.mark.long
def test_processes_of_joblib_share_the_cores(lee_corpus):
    """Each trains with the threads that joblib gives it, to the same bytes."""
    counts, tfidf, dictionary = lee_corpus.counts, lee_corpus.tfidf, lee_corpus.dictionary

    def train() -> tuple[int, bytes]:
        from distcorpus import LdaModel, LsiModel
        from distcorpus.engines.threads import available_threads

        lda = LdaModel(counts, id2word=dictionary, num_topics=5, chunksize=50, random_state=1)
        lsi = LsiModel(tfidf, id2word=dictionary, num_topics=5)
        return available_threads(), lda.state.sstats.tobytes() + lsi.projection.u.tobytes()

    threads, here = train()
    found = joblib.Parallel(2, backend="loky")(joblib.delayed(train)() for _ in range(2))
    assert [content for _, content in found] == [here] * 2
    assert sum(given for given, _ in found) <= max(threads, 2)


@pytest.mark.parametrize("number", [0, -1])
def test_there_is_at_least_one(number):
    with pytest.raises(ValueError, match=f"{number} threads: give a number above 0"):
        ThreadsEngine(number)

"""Chunks in memory and on disk: the same chunks, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.algorithms.chunk import Chunk
from distcorpus.training import spool
from distcorpus.training.spool import Spool, spool_directory


def chunk_of(documents, dtype=np.float32, num_terms=50):
    """A chunk with so many entries a document."""
    indptr = np.concatenate(([0], np.cumsum(documents))).astype(np.int64)
    nnz = int(indptr[-1])
    random = np.random.default_rng(nnz)
    return Chunk(indptr, np.arange(nnz, dtype=np.int32) % num_terms, random.random(nnz, dtype), num_terms)


def assert_same(kept, chunk):
    for name in ("indptr", "indices", "data"):
        ours, theirs = getattr(kept, name), getattr(chunk, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert kept.num_terms == chunk.num_terms


@given(
    documents=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=50, deadline=None)
def test_a_chunk_on_disk_is_the_same_chunk(tmp_path_factory, documents, dtype):
    chunk = chunk_of(documents, dtype)
    on_disk = Spool(0, tmp_path_factory.getbasetemp()).keep(0, chunk)
    assert_same(on_disk, chunk)
    assert not on_disk.data.flags.owndata
    # Blocks are cut out of it, in the middle of a document's neighbours.
    for ours, theirs in zip(on_disk.split(max_docs=3), chunk.split(max_docs=3), strict=True):
        assert_same(ours, theirs)


def test_memory_first_then_disk(tmp_path):
    chunk = chunk_of([5] * 10)
    spool = Spool(2 * chunk.nbytes, tmp_path)
    first, second, third = (spool.keep(number, chunk) for number in range(3))
    assert first is chunk
    assert second is chunk
    assert third is not chunk
    assert spool.nbytes == 2 * chunk.nbytes
    assert not spool.has_room(1)
    # What is released makes room; the chunk on disk never took any.
    spool.release(2)
    assert not spool.has_room(1)
    spool.release(0)
    assert spool.keep(3, chunk) is chunk


def test_files_have_no_names_and_their_space_comes_back(tmp_path):
    spool = Spool(0, tmp_path)
    kept = spool.keep(0, chunk_of([5] * 1000))
    assert list(tmp_path.iterdir()) == []
    open_maps = f" {tmp_path}/"
    maps = Path("/proc/self/maps")
    assert open_maps in maps.read_text()
    del kept
    assert open_maps not in maps.read_text()


KILLED = """
import numpy as np, sys
from pathlib import Path
from distcorpus.algorithms.chunk import Chunk
from distcorpus.training.spool import Spool
n = 100_000
chunk = Chunk(np.array([0, n]), np.arange(n, dtype=np.int32), np.ones(n), n)
kept = Spool(0, Path(sys.argv[1])).keep(0, chunk)
print("kept", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"kept\n"
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_no_directory(tmp_path):
    chunk = chunk_of([5] * 10)
    message = r"chunk 7 \(10 documents, 0.000488 MB\).*0.000487 MB.*chunksize.*--memory.*--spool"
    with pytest.raises(ValueError, match=message):
        Spool(chunk.nbytes - 1).keep(7, chunk)


@pytest.fixture
def small_files():
    """No file may grow beyond 1 MB: the next write fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(tmp_path, small_files):
    spool = Spool(0, tmp_path)
    small, large = chunk_of([5] * 10), chunk_of([1000] * 200)
    with pytest.raises(RuntimeError, match=r"chunk 1 \(200 documents.*cannot be written.*--spool"):
        spool.keep(1, large)
    assert_same(spool.keep(2, small), small)
    assert list(tmp_path.iterdir()) == []


def test_directory_is_made_for_its_user_alone(tmp_path):
    directory = spool_directory(str(tmp_path / "deep" / "spool"))
    assert directory.is_dir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert spool_directory(str(directory)) == directory


@pytest.fixture
def umask(request):
    previous = os.umask(request.param)
    yield
    os.umask(previous)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077], indirect=True)
def test_others_read_nothing_whatever_the_umask(tmp_path, umask, monkeypatch):
    files = []

    def note(number, *arguments, **options):
        files.append(os.fstat(number))
        return map_file(number, *arguments, **options)

    map_file = spool.mmap.mmap
    monkeypatch.setattr(spool.mmap, "mmap", note)
    directory = spool_directory(str(tmp_path / "spool"))
    Spool(0, directory).keep(0, chunk_of([5] * 10))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [(file.st_mode & 0o777, file.st_nlink) for file in files] == [(0o600, 0)]


def test_place_that_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--spool .*file.*: "):
        spool_directory(str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"--spool .*Permission denied"):
        spool_directory(str(tmp_path))

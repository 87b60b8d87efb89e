"""What `--resume` keeps of a session: there as a whole or not at all, for its owner alone, and for a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from distcorpus.corpora.reference import Reference, StoredChunk, checksum_of_words
from distcorpus.dispatcher import journal as journals_module
from distcorpus.dispatcher.journal import DamagedJournal, Journals
from distcorpus.training.spool import Spool

from ..training.test_spool import assert_same, chunk_of, small_files  # noqa: F401

TASK = {"num_terms": 50, "topics": np.arange(2000.0).reshape(50, 40), "base": None}


def no_references(message):
    raise AssertionError(f"nothing is referred to, and there is {message}")


def left_by_a_killed_dispatcher(directory, *, chunks=0):
    """Return the journal of a session whose dispatcher has died."""
    journal = Journals(directory, 60.0).begin(TASK)
    for number in range(chunks):
        journal.keep(number, chunk_of([5] * (number + 1)))
    journal.let_go()  # as the system does when a process ends
    return journal


def test_a_session_is_found_with_all_that_was_kept(tmp_path):
    left = left_by_a_killed_dispatcher(tmp_path, chunks=3)
    journals = Journals(tmp_path, 60.0)
    assert journals.claim("0" * 32) is None
    found = journals.claim(left.token)
    assert journals.claim(left.token) is None
    task = found.read("session")["task"]
    np.testing.assert_array_equal(task["topics"], TASK["topics"])
    task["topics"][0, 0] = 7.0  # a training changes it, but not the file
    assert found.read("session")["task"]["topics"][0, 0] == 0.0
    for number, chunk in enumerate(found.chunks(0, 50, no_references)):
        for same in (chunk, found.mapped(number, 50)):
            assert_same(same, chunk_of([5] * (number + 1)))
    assert number == 2
    found.drop_chunks(2)
    assert [chunk.n_docs for chunk in found.chunks(2, 50, no_references)] == [3]
    assert list(found.chunks(3, 50, no_references)) == []
    found.remove()
    assert os.listdir(tmp_path) == []


def test_chunks_in_memory_and_on_disk(tmp_path):
    """A spool with a journal has all of them on disk, and in memory what fits there."""
    first, second = chunk_of([5] * 10), chunk_of([6] * 10)
    journal = Journals(tmp_path, 60.0).begin(TASK)
    spool = Spool(first.nbytes, None, journal)
    assert spool.keep(0, first) is first
    mapped = spool.keep(1, second)
    assert not mapped.data.flags.owndata
    assert_same(mapped, second)
    assert [chunk.n_docs for chunk in journal.chunks(0, 50, no_references)] == [10, 10]


def test_nobody_else_may_read(tmp_path):
    directory = tmp_path / "sessions"
    journal = left_by_a_killed_dispatcher(directory, chunks=1)
    assert directory.stat().st_mode & 0o777 == journal.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in journal.folder.iterdir()} == {0o600}
    directory.chmod(0o755)
    with pytest.raises(ValueError, match=r"others may read or change .*sessions.*chmod 700"):
        Journals(directory, 60.0)


def test_session_of_another_dispatcher_that_lives(tmp_path):
    living = Journals(tmp_path, 60.0).begin(TASK)
    journals = Journals(tmp_path, 60.0)
    assert journals.claim(living.token) is None
    living.let_go()  # that one ends after this one began
    assert journals.claim(living.token) is not None


def test_nobody_comes(tmp_path, caplog):
    journal = left_by_a_killed_dispatcher(tmp_path)
    before = set(threading.enumerate())
    journals = Journals(tmp_path, 0.05)
    for timer in set(threading.enumerate()) - before:
        timer.join(30.0)
    assert os.listdir(tmp_path) == []
    assert caplog.text.count("its program did not come within 0.05 s") == 1
    assert journals.claim(journal.token) is None


def cut(path):
    os.truncate(path, path.stat().st_size - 8)


def spoil(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, spoil, lambda path: os.truncate(path, 0), os.unlink])
def test_damaged_session(tmp_path, caplog, damage):
    journal = left_by_a_killed_dispatcher(tmp_path, chunks=2)
    damage(journal.folder / "session")
    assert Journals(tmp_path, 60.0).claim(journal.token) is None
    assert os.listdir(tmp_path) == [f"damaged-{journal.token}"]
    [line] = [record.getMessage() for record in caplog.records]
    assert "a session cannot go on: session: " in line
    assert f"damaged-{journal.token}" in line
    Journals(tmp_path, 60.0)
    assert len(caplog.records) == 1  # it is reported once


@pytest.mark.parametrize("damage", [cut, spoil, lambda path: os.truncate(path, 0), os.unlink])
def test_damaged_chunk(tmp_path, damage):
    left = left_by_a_killed_dispatcher(tmp_path, chunks=3)
    damage(left.folder / "chunk-1")
    journal = Journals(tmp_path, 60.0).claim(left.token)
    with pytest.raises(DamagedJournal, match="chunk-1"):
        list(journal.chunks(0, 50, no_references))


def test_last_chunk_is_missing(tmp_path):
    journal = left_by_a_killed_dispatcher(tmp_path, chunks=3)
    journal = Journals(tmp_path, 60.0).claim(journal.token)
    journal.write("end", 3)
    (journal.folder / "chunk-2").unlink()
    with pytest.raises(DamagedJournal, match="chunk-2 is missing"):
        list(journal.chunks(0, 50, no_references))


def test_another_version(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(journals_module, "__version__", "0.0.1")
    journal = left_by_a_killed_dispatcher(tmp_path)
    monkeypatch.undo()
    assert Journals(tmp_path, 60.0).claim(journal.token) is None
    assert "it was written by distcorpus 0.0.1, this is " in caplog.text


def test_what_no_session_is_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / f".{'0' * 32}").mkdir()  # a session that was being made
    Journals(tmp_path, 60.0)
    assert os.listdir(tmp_path) == ["mine"]


def test_full_disk(tmp_path, small_files):  # noqa: F811
    journals = Journals(tmp_path, 60.0)
    journal = journals.begin(TASK)
    with pytest.raises(RuntimeError, match=r"chunk-0 cannot be written to .*: .*--spool DIR"):
        journal.keep(0, chunk_of([1000] * 200))
    assert sorted(os.listdir(journal.folder)) == ["owner", "session"]
    journal.keep(0, chunk_of([5]))
    assert_same(journal.mapped(0, 50), chunk_of([5]))
    with pytest.raises(RuntimeError, match="session cannot be written"):
        journals.begin({"topics": np.zeros(1 << 20)})
    assert os.listdir(tmp_path) == [journal.token]


WRITES = """
import itertools, sys
from pathlib import Path
import numpy as np
from distcorpus.dispatcher.journal import Journals
journal = Journals(Path(sys.argv[1]), 60.0).begin({})
for number in itertools.count():
    journal.write("state", np.full(100_000, number))
    print(journal.token, flush=True)
"""


def test_killed_while_it_writes(tmp_path):
    """What was there before is there as a whole."""
    process = subprocess.Popen([sys.executable, "-c", WRITES, tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        for _ in range(20):
            token = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    state = Journals(tmp_path, 60.0).claim(token).read("state")
    assert state.shape == (100_000,)
    assert state[0] == state[-1] >= 19


def test_references_are_kept_as_they_are(tmp_path):
    words = np.array([0, 7], np.int32)
    known = Reference("a" * 64, None, 3, 5, 4, 9.0, 81.0, checksum_of_words(words))
    message = {"references": [known.to_message()], "words": [words]}
    limits = {"max_docs": 512}
    journal = Journals(tmp_path, 60.0).begin({})
    journal.keep(0, StoredChunk.from_message(message, 50, limits, None))

    def referred(said):
        return StoredChunk.from_message(said, 50, limits, None)

    (found,) = journal.chunks(0, 50, referred)
    assert found.blocks[0].reference == known
    assert found.words().tolist() == [0, 7]
    with pytest.raises(DamagedJournal, match=r"chunk-0: .*below 5"):
        list(journal.chunks(0, 5, lambda said: StoredChunk.from_message(said, 5, limits, None)))

"""Training runs that need more memory than the dispatcher may use: the same bytes, or one clear error."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from gensim.models import LdaModel, LsiModel

from distcorpus import LocalCluster, models

from .conftest import wait_until, when_collected


def in_gb(nbytes):
    return str(nbytes / 2**30)


def train_lsi(corpus, documents=None):
    model = LsiModel(
        documents or corpus.tfidf, id2word=corpus.dictionary, num_topics=10, chunksize=50, distributed=True
    )
    return model.projection.u.tobytes() + model.projection.s.tobytes()


def train_lda(corpus, documents=None):
    model = LdaModel(
        documents or corpus.counts,
        id2word=corpus.dictionary,
        num_topics=10,
        chunksize=50,
        update_every=0,
        random_state=1,
        eval_every=None,
        distributed=True,
    )
    return model.state.sstats.tobytes()


def test_same_bytes_from_disk(cluster, lee_corpus, tmp_path):
    quiet = train_lsi(lee_corpus), train_lda(lee_corpus)
    options = ("--memory", in_gb(60_000), "--spool", str(tmp_path))
    with LocalCluster(2, dispatcher_options=options) as spooling:
        maps = f"/proc/{spooling.dispatcher_pid}/maps"
        model = LsiModel(id2word=lee_corpus.dictionary, num_topics=10, chunksize=50, distributed=True)
        model.add_documents(lee_corpus.tfidf)
        with open(maps) as mapped:
            assert f"{tmp_path}/" in mapped.read()
        assert list(tmp_path.iterdir()) == []
        assert model.projection.u.tobytes() + model.projection.s.tobytes() == quiet[0]
        # As it reads each document once, LDA waits until there is room, and needs no disk.
        assert train_lda(lee_corpus) == quiet[1]


@contextmanager
def disk(directory, size):
    """A disk of its own at `directory`."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_full_disk(lee_corpus, tmp_path):
    options = ("--memory", in_gb(60_000), "--spool", str(tmp_path))
    with disk(tmp_path, "100k"), LocalCluster(1, dispatcher_options=options):
        with pytest.raises(RuntimeError, match=r"chunk 3 .*No space left on device.*--spool"):
            train_lsi(lee_corpus)
        # What the disk held is free again when the client is gone.
        is_empty = when_collected(lambda: not shutil.disk_usage(tmp_path).used)
        wait_until(is_empty, "the release of what was on disk")
        train_lsi(lee_corpus, lee_corpus.tfidf[:100])
        train_lda(lee_corpus)


def test_chunk_that_is_too_large(lee_corpus):
    with LocalCluster(1, dispatcher_options=("--memory", in_gb(20_000))):
        for train in (train_lsi, train_lda):
            with pytest.raises(ValueError, match=r"chunk 0 \(50 documents.*chunksize.*--memory.*--spool DIR"):
                train(lee_corpus)
            train(lee_corpus, lee_corpus.counts[:5])


def test_our_models_wait_for_room(lee_corpus):
    """Memory for one chunk and no disk: the next chunk waits until the one before is in the sum."""
    with LocalCluster(1, dispatcher_options=("--memory", "0.00006")):
        model = models.LdaModel(
            lee_corpus.counts,
            id2word=lee_corpus.dictionary,
            num_topics=5,
            chunksize=100,
            eval_every=None,
            distributed=True,
        )
    assert model.state.numdocs == len(lee_corpus.counts)

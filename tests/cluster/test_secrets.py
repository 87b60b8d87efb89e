"""The keys of certificates are in their files and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gensim.models
import pytest

from distcorpus import LocalCluster, models


def lines_of_keys(folder):
    """What tells a key: the lines of base64 of every key file, and the files' names."""
    keys = [*folder.rglob("*key.pem")]
    assert keys
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        lines = path.read_text().splitlines()
        yield from (line.encode() for line in lines if len(line) > 20 and not line.startswith("---"))


@pytest.mark.long
def test_no_key_is_told(lee_corpus, tmp_path, capfd, monkeypatch):
    pytest.importorskip("cryptography")
    # A daemon that the template forks has the template's command line.
    monkeypatch.setattr("distcorpus.cluster.subprocess", subprocess)
    with LocalCluster(1, tls=True, verbose=True) as cluster:
        folder = Path(cluster.environ()["DISTCORPUS_TLS"]).parent
        secrets = set(lines_of_keys(folder))
        pids = [cluster.dispatcher_pid, *(worker.pid for worker in cluster.workers)]
        commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        for module in (gensim.models, models):
            options = {"id2word": lee_corpus.dictionary, "num_topics": 3, "distributed": True}
            lda = module.LdaModel(lee_corpus.counts, **options)
            lsi = module.LsiModel(lee_corpus.tfidf, **options)
            for name, model in (("lda", lda), ("lsi", lsi)):
                model.save(str(tmp_path / f"{module.__name__}-{name}"))
        with pytest.raises(ValueError, match="negative") as caught:
            gensim.models.LdaModel([[(0, -1)]], eval_every=None, **options)
    saved = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    logs = "".join(capfd.readouterr()).encode()
    assert b"begins" in logs
    assert commands.count(b"-m\0distcorpus\0") == len(pids)
    for told in (saved, logs, commands, str(caught.value).encode()):
        assert not any(secret in told for secret in secrets)
    # Nor is where they are, or the cluster, in what is saved.
    assert str(folder).encode() not in saved
    assert b"Pyro" not in saved


class Failing:
    def fail(self):
        password = "hunter2"
        raise RuntimeError(f"it has {len(password)} letters")


def test_an_error_tells_no_values():
    from distcorpus import wire

    daemon = wire.Daemon()
    uri = daemon.serve("failing", wire.expose(Failing)())
    daemon.start()
    with pytest.raises(RuntimeError, match="7 letters") as caught:
        wire.connect(uri).fail()
    daemon.stop()
    assert "in fail" in wire.remote_traceback(caught.value)
    assert "= 'hunter2'" not in wire.remote_traceback(caught.value)

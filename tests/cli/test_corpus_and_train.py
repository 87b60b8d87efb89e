"""From text to topics by commands; what comes out is a model that plain gensim loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gensim.corpora import MmCorpus
from gensim.models import LdaModel, LsiModel
from gensim.test.utils import datapath

from distcorpus import LocalCluster
from distcorpus.cli import main
from distcorpus.corpora import Corpus

pytest.importorskip("pyarrow")
LEE = datapath("lee_background.cor")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "lee"
    main(["corpus", "build", LEE, "--out", str(folder), "--stopwords", "gensim", "--processes", "1"])
    return folder


def failing(*arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return str(stopped.value)


def test_a_corpus_is_shown_and_verified(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    for action in ("info", "verify"):
        main(["corpus", action, str(corpus)])
    main(["corpus", "head", str(corpus), "-n", "2"])
    shown = capsys.readouterr().out
    assert "300 documents" in shown
    assert Corpus(corpus).checksum in shown
    assert "files are as they were written" in shown
    assert shown.splitlines()[-2].startswith("0: ")
    assert "there is no manifest.json" in failing("corpus", "info", corpus.parent)
    damaged = next(corpus.glob("shard-00000-data.npy"))
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(content[:-1] + b"x")
        assert damaged.name in failing("corpus", "verify", corpus)
    finally:
        damaged.write_bytes(content)


@pytest.mark.parametrize(("kind", "gensims"), [("lda", LdaModel), ("lsi", LsiModel)])
def test_the_model_is_gensims(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, kind: str, gensims: type
) -> None:
    out = tmp_path / "model"
    options = ["--tfidf"] if kind == "lsi" else ["--alpha", "auto", "--eta", "0.1", "--passes", "2"]
    main(["train", kind, "--corpus", str(corpus), "--topics", "3", "--out", str(out), *options])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2", "saved"]
    # Without this package: what it would import is not there.
    program = f"""
import sys
sys.modules["distcorpus"] = None
from gensim.models import {gensims.__name__}
model = {gensims.__name__}.load(sys.argv[1])
print(model.print_topics(2))
print(len(model[model.id2word.doc2bow("australia government said".split())]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_matrix_market_file_gives_the_same_model(corpus: Path, tmp_path: Path) -> None:
    stored = Corpus(corpus)
    MmCorpus.serialize(str(tmp_path / "c.mm"), stored)
    stored.id2word.save(str(tmp_path / "words"))
    options = ["--topics", "3", "--random-state", "1"]
    main(["train", "lda", "--corpus", str(corpus), *options, "--out", str(tmp_path / "a")])
    files = ["--corpus", str(tmp_path / "c.mm"), "--dictionary", str(tmp_path / "words")]
    main(["train", "lda", *files, *options, "--out", str(tmp_path / "b")])
    topics = [LdaModel.load(str(tmp_path / name)).get_topics() for name in "ab"]
    np.testing.assert_array_equal(*topics)


def test_a_cluster_gives_the_same_model(corpus: Path, tmp_path: Path) -> None:
    options = ["train", "lsi", "--corpus", str(corpus), "--topics", "3", "--tfidf"]
    main([*options, "--out", str(tmp_path / "a")])
    with LocalCluster(n_workers=1):
        main([*options, "--cluster", "--out", str(tmp_path / "b")])
    one, other = (LsiModel.load(str(tmp_path / name)).projection for name in "ab")
    np.testing.assert_array_equal(one.u, other.u)
    np.testing.assert_array_equal(one.s, other.s)


def test_what_cannot_be_used_is_said_before_the_training(corpus: Path, tmp_path: Path) -> None:
    command = ["train", "lda", "--topics", "3", "--out", tmp_path / "m"]
    assert "there is no such folder or file" in failing(*command, "--corpus", tmp_path / "c.mm")
    assert "--dictionary" in failing(*command, "--corpus", __file__)
    assert "--cluster" in failing(*command, "--corpus", corpus, "--host", "there")
    assert "no folder" in failing(*command[:-1], tmp_path / "none" / "m", "--corpus", corpus)
    assert "is a folder" in failing(*command[:-1], tmp_path, "--corpus", corpus)
    assert "has its words" in failing(*command, "--corpus", corpus, "--dictionary", "x")
    assert "alpha" in failing(*command, "--corpus", corpus, "--alpha", "nothing")
    assert not os.listdir(tmp_path)


def test_building_says_what_it_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, stop = tmp_path / "x.jsonl", tmp_path / "stop"
    path.write_text('{"text": "one two"}\n{\n')
    stop.write_text("\ufeffTWO\n", "utf-8")
    command = ["corpus", "build", path, "--no-below", "1", "--no-above", "1", "--out", tmp_path / "c"]
    assert "x.jsonl:2: this is no JSON" in failing(*command)
    main([*map(str, command), "--skip-bad", "--keep", "all", "--stopwords", str(stop)])
    shown = capsys.readouterr()
    assert "skipped 1 record without text" in shown.out
    assert "x.jsonl:2" in shown.err
    assert dict(Corpus(tmp_path / "c").id2word) == {0: "one"}


def test_the_head_of_a_corpus_whose_dictionary_has_gaps(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Corpus.write(tmp_path / "c", [[(0, 1), (1, 2)]], {0: "one", 2: "two"})
    main(["corpus", "head", str(tmp_path / "c")])
    assert capsys.readouterr().out == "0: 1 2, one 1\n"


def test_a_training_has_a_pass(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", "lda", "--corpus", corpus, "--topics", "3", "--out", tmp_path / "m"]
    failing(*command, "--passes", "0")
    assert "--passes" in capsys.readouterr().err
    assert not os.listdir(tmp_path)

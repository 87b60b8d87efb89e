"""Which corpora a worker may read: those under its roots, by their checksums alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from distcorpus.corpora import Corpus, DamagedError
from distcorpus.corpora.reference import Reference
from distcorpus.corpora.roots import Roots

BAGS = [[(0, 1.0), (3, 2.0)], [(1, 1.0)]]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.write(tmp_path / "outside" / "c", BAGS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_corpus_is_found_wherever_it_is_below(corpus: Corpus, root: Path):
    shutil.copytree(corpus.directory, root / "a" / "b" / "renamed")
    store = Roots([str(root)]).find(corpus.checksum)
    assert store is not None
    assert store.path == root / "a" / "b" / "renamed"
    assert store.chunk(0, 2).indices.tolist() == [0, 3, 1]


def test_a_root_may_be_the_corpus_itself(corpus: Corpus):
    assert Roots([str(corpus.directory)]).find(corpus.checksum) is not None


def test_one_that_comes_later_is_found(corpus: Corpus, root: Path, monkeypatch: pytest.MonkeyPatch):
    roots = Roots([str(root)])
    assert roots.find(corpus.checksum) is None
    shutil.copytree(corpus.directory, root / "c")
    monkeypatch.setattr("distcorpus.corpora.roots.LOOK_EVERY", 0.0)
    assert roots.find(corpus.checksum) is not None


def test_too_deep(corpus: Corpus, root: Path):
    shutil.copytree(corpus.directory, root / "1/2/3/4")
    assert Roots([str(root)]).find(corpus.checksum) is None


def test_no_root_no_corpus(corpus: Corpus):
    assert Roots().find(corpus.checksum) is None


@pytest.mark.parametrize("folder", ["none", "file"])
def test_a_root_that_is_none(tmp_path: Path, folder: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"--corpora .*{folder}: .*; give a folder that there is"):
        Roots([str(tmp_path / folder)])


def test_a_link_to_a_corpus_outside_is_not_followed(corpus: Corpus, root: Path):
    (root / "link").symlink_to(corpus.directory)
    (root / "above").symlink_to("..")
    assert Roots([str(root)]).find(corpus.checksum) is None


def test_linked_files_of_a_corpus_are_not_read(corpus: Corpus, root: Path):
    (root / "c").mkdir()
    for path in corpus.directory.iterdir():
        (root / "c" / path.name).symlink_to(path)
    assert Roots([str(root)]).find(corpus.checksum) is None
    (root / "c" / "manifest.json").unlink()
    shutil.copy(corpus.directory / "manifest.json", root / "c")
    store = Roots([str(root)]).find(corpus.checksum)
    assert store is not None
    with pytest.raises(OSError, match="symbolic links"):
        store.chunk(0, 1)
    assert list(Corpus(root / "c")) == BAGS  # where a user opens it, links are the user's


def test_a_root_that_is_a_link_is_the_administrators(corpus: Corpus, tmp_path: Path):
    (tmp_path / "link").symlink_to(corpus.directory.parent)
    assert Roots([str(tmp_path / "link")]).find(corpus.checksum) is not None


def test_a_corpus_that_is_exchanged_for_a_link_meanwhile(corpus: Corpus, root: Path):
    shutil.copytree(corpus.directory, root / "c")
    other = Corpus.write(root.parent / "other", [[(0, 5.0)], [(1, 1.0), (3, 7.0)]])
    store = Roots([str(root)]).find(corpus.checksum)
    (root / "c").rename(root / "moved")
    (root / "c").symlink_to(other.directory)
    assert store is not None
    assert store.chunk(0, 2).data.tolist() == [1.0, 2.0, 1.0]


def test_a_shard_that_was_changed_is_refused_with_its_name(corpus: Corpus, root: Path):
    shutil.copytree(corpus.directory, root / "c")
    path = root / "c" / "shard-00000-data.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = Roots([str(root)]).find(corpus.checksum)
    assert store is not None
    with pytest.raises(DamagedError, match=r"shard-00000-data.npy has been changed"):
        store.chunk(0, 1)


def read(roots: Roots, checksum: str) -> tuple[Path, int] | None:
    return roots.read(checksum, lambda store: (store.path, store.chunk(0, 2).nnz))


def test_a_copy_that_is_damaged_is_passed_over(
    corpus: Corpus, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    second = tmp_path / "second"
    for folder in (root, second):
        shutil.copytree(corpus.directory, folder / "c")
    (root / "c" / "shard-00000-data.npy").unlink()
    roots = Roots([str(root), str(second)])
    assert [read(roots, corpus.checksum) for _ in range(2)] == [(second / "c", 3)] * 2
    assert [str(root / "c" / "shard-00000-data.npy") in text for text in caplog.messages] == [True]
    assert read(roots, "0" * 64) is None
    (second / "c" / "shard-00000-indices.npy").unlink()
    with pytest.raises(DamagedError, match="is missing"):
        read(Roots([str(root), str(second)]), corpus.checksum)


def test_a_folder_that_was_replaced_is_found_again(
    corpus: Corpus, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distcorpus.corpora.roots.LOOK_EVERY", 0.0)
    shutil.copytree(corpus.directory, root / "c")
    roots = Roots([str(root)])
    assert roots.find(corpus.checksum) is not None
    shutil.rmtree(root / "c")
    shutil.copytree(corpus.directory, root / "c")
    again = roots.find(corpus.checksum)
    assert again is not None
    assert again.chunk(0, 2).nnz == 3
    (root / "c").rename(root / "moved")
    moved = roots.find(corpus.checksum)
    assert moved is not None
    assert moved.path == root / "moved"
    shutil.rmtree(root / "moved")
    assert roots.find(corpus.checksum) is None


def test_what_is_damaged_is_used_again_when_it_was_repaired(
    corpus: Corpus, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distcorpus.corpora.roots.LOOK_EVERY", 0.0)
    shutil.copytree(corpus.directory, root / "c")
    (root / "c" / "shard-00000-data.npy").unlink()
    roots = Roots([str(root)])
    for _ in range(2):
        with pytest.raises(DamagedError, match="is missing: copy it again"):
            read(roots, corpus.checksum)
    shutil.copytree(corpus.directory, root / "copy")
    shutil.rmtree(root / "c")
    assert read(roots, corpus.checksum) == (root / "copy", 3)


def test_a_folder_whose_corpus_became_another_one_is_looked_at_again(
    corpus: Corpus, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("distcorpus.corpora.roots.LOOK_EVERY", 0.0)
    shutil.copytree(corpus.directory, root / "c")
    roots = Roots([str(root)])
    assert roots.find(corpus.checksum) is not None
    other = Corpus.write(root.parent / "other", [[(0, 5.0), (1, 1.0)]])
    for path in other.directory.iterdir():
        shutil.copy(path, root / "c" / path.name)  # in place: the folder stays the same
    with pytest.raises(DamagedError):
        read(roots, corpus.checksum)
    assert roots.find(corpus.checksum) is None
    assert roots.find(other.checksum) is not None


def test_files_are_not_opened_as_folders(corpus: Corpus, root: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(corpus.directory, root / "c")
    roots, opened = Roots([str(root)]), []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **more: opened.append(str(path)) or real(path, *rest, **more)
    )
    assert roots.find(corpus.checksum) is not None
    assert opened.count("manifest.json") == 3  # of the root, of the corpus, and of the store
    assert not [path for path in opened if path.endswith(".npy")]


@pytest.mark.parametrize(
    "checksum",
    [
        "../outside/c",
        "/etc/passwd",
        "c",
        "a" * 63,
        "A" * 64,
        "a" * 63 + "\0",
        "a" * 64 + "\n",
        "../" * 21 + "a",
        b"a" * 64,
        None,
        ["a" * 64],
    ],
)
def test_a_reference_names_nothing_but_a_checksum(checksum: object):
    with pytest.raises(ValueError, match="no corpus by its checksum"):
        Reference.from_message((checksum, None, 0, 1, 1, 1.0, 1.0, 0))


def test_names_in_a_folder_are_names(corpus: Corpus):
    folder = corpus._store._folder
    for name in ("../c/manifest.json", "/etc/passwd", "..", ".", "", "a/b"):
        with pytest.raises((ValueError, OSError)):
            os.close(folder.open(name))

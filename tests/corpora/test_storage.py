"""A corpus on disk: what is written comes back, equal input has equal bytes, what is damaged is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from gensim.corpora import Dictionary, MmCorpus
from hypothesis import given, settings
from hypothesis import strategies as st

import distcorpus
from distcorpus.algorithms.chunk import as_chunk
from distcorpus.corpora import Corpus, DamagedError, ShardWriter, manifest, writing

VALUES = st.sampled_from([1.0, 2.0, 7.0, 0.5, 1 / 3, -2.5, 1e30])
DOCUMENT = st.dictionaries(st.integers(0, 40), VALUES, max_size=8).map(lambda bag: sorted(bag.items()))
CORPUS = st.lists(DOCUMENT, max_size=30)

TEXTS = [["human", "interface", "computer"], ["graph", "trees"], [], ["graph", "minors", "trees", "graph"]]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_ENTRIES", 20)
    monkeypatch.setattr(writing, "SEGMENT_DOCUMENTS", 2)


@pytest.fixture
def dictionary() -> Dictionary:
    return Dictionary(TEXTS)


@pytest.fixture
def bags(dictionary: Dictionary) -> list:
    return [dictionary.doc2bow(text) for text in TEXTS]


def many(number: int = 40) -> list[list[tuple[int, float]]]:
    return [[(n % 7, 1.0), (7 + n % 5, float(n + 1))] for n in range(number)]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@settings(max_examples=40, deadline=None)
@given(documents=CORPUS, cuts=st.lists(st.integers(0, 30), max_size=4), data=st.data())
def test_what_is_written_comes_back_and_its_bytes_follow_from_the_documents(documents, cuts, data):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(writing, "SHARD_ENTRIES", data.draw(st.integers(1, 60)))
        monkeypatch.setattr(writing, "SHARD_DOCUMENTS", data.draw(st.integers(1, 12)))
        monkeypatch.setattr(writing, "SEGMENT_DOCUMENTS", data.draw(st.integers(1, 5)))
        corpus = Corpus.write(Path(folder, "at once"), documents)
        with ShardWriter(Path(folder, "in parts")) as writer:
            bounds = [0, *sorted(min(cut, len(documents)) for cut in cuts), len(documents)]
            for first, end in pairwise(bounds):
                writer.add(documents[first:end])
            writer.finish()
        assert contents(Path(folder, "at once")) == contents(Path(folder, "in parts"))
        assert list(corpus) == documents
        assert [corpus[n] for n in range(len(corpus))] == documents
        assert list(corpus.verify())
        start, stop = sorted((data.draw(st.integers(-40, 40)), data.draw(st.integers(-40, 40))))
        assert list(corpus[start:stop]) == documents[start:stop]
        assert list(corpus[start:][:stop]) == documents[start:][:stop]
        whole = as_chunk(documents, 41)
        for first, end in ((0, len(documents)), (len(documents) // 3, len(documents) // 2)):
            part, wanted = corpus.chunk(first, end), whole.slice(first, end)
            assert np.array_equal(part.indptr, wanted.indptr)
            assert np.array_equal(part.indices, wanted.indices)
            assert np.array_equal(part.data, wanted.data)
            assert np.array_equal(corpus._store.indptr(first, end), wanted.indptr)
            assert set(wanted.indices) <= set(corpus._store.words_about(first, end))
        used = {term for document in documents for term, _ in document}
        assert set(corpus._store.words_about(0, len(documents))) == used
        in_documents = np.bincount(whole.indices, minlength=corpus.num_terms)
        assert np.array_equal(corpus.document_frequencies, in_documents)


def test_the_manifest_says_what_the_documents_are(small_shards: None, tmp_path: Path):
    corpus = Corpus.write(tmp_path / "c", many())
    shards = corpus._store.shards
    assert len(shards) == 4
    assert [shard.entries for shard in shards] == [20] * 4
    assert (shards[1].first, shards[1].end, shards[1].dtype, shards[1].weighting) == (
        10,
        20,
        "float32",
        "counts",
    )
    assert (shards[1].least, shards[1].largest, shards[1].total) == (1.0, 20.0, 10 + sum(range(11, 21)))
    weights = Corpus.write(tmp_path / "w", [[(0, 0.1)]])
    assert (weights._store.manifest.weighting, weights._store.shards[0].dtype) == ("weights", "float64")


def test_other_tools_read_the_arrays(tmp_path: Path, bags: list):
    Corpus.write(tmp_path / "c", bags)
    arrays = [np.load(tmp_path / f"c/shard-00000-{part}.npy") for part in ("data", "indices", "indptr")]
    rows = scipy.sparse.csr_array(tuple(arrays))
    assert (rows != as_chunk_rows(bags, rows.shape[1])).nnz == 0


def as_chunk_rows(bags: list, num_terms: int):
    chunk = as_chunk(bags, num_terms)
    return scipy.sparse.csr_array((chunk.data, chunk.indices, chunk.indptr), shape=(chunk.n_docs, num_terms))


def test_a_chunk_is_a_view(tmp_path: Path):
    corpus = Corpus.write(tmp_path / "c", many())
    whole, part = corpus.chunk(0, 40), corpus.chunk(10, 20)
    assert np.shares_memory(part.indices, whole.indices)
    assert np.shares_memory(part.data, whole.data)
    assert type(part.data) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        part.data[0] = 3


def test_words_and_names(tmp_path: Path, dictionary: Dictionary, bags: list):
    names = ["a", "ü", "", "line\nbreak"]
    corpus = Corpus.write(tmp_path / "c", bags, dictionary, names=iter(names))
    assert corpus.names == names
    assert corpus[1:3].names == names[1:3]
    found = corpus.id2word
    for attribute in ("token2id", "dfs", "cfs", "num_docs", "num_pos", "num_nnz"):
        assert getattr(found, attribute) == getattr(dictionary, attribute), attribute
    assert Corpus.write(tmp_path / "n", bags).id2word is None
    assert Corpus.write(tmp_path / "n2", bags).names is None


@pytest.mark.parametrize("words", [{0: "a", 12: "b"}, {0: "a", 1: "a"}, {0: "\ud800", 1: "x\0y"}])
def test_odd_dictionaries(tmp_path: Path, words: dict):
    corpus = Corpus.write(tmp_path / "c", [[(1, 2)]], words)
    assert dict(corpus.id2word.items()) == words
    assert corpus.num_terms == max(words) + 1


def test_matrices_generators_and_corpora(tmp_path: Path, bags: list):
    matrix = scipy.sparse.csc_matrix(as_chunk_rows(bags, 9).T)
    of_matrix = Corpus.write(tmp_path / "matrix", matrix)
    assert of_matrix.num_terms == 9
    assert (of_matrix.to_scipy() != matrix).nnz == 0
    assert list(Corpus.write(tmp_path / "generator", (bag for bag in bags))) == list(of_matrix)
    again = Corpus.write(tmp_path / "again", of_matrix[1:])
    assert list(again) == list(of_matrix)[1:]
    assert again.num_terms == 9


def test_saved_pickled_and_loaded(tmp_path: Path, bags: list):
    corpus = Corpus.write(tmp_path / "c", bags)
    corpus[1:].save(str(tmp_path / "saved"))
    assert list(Corpus.load(str(tmp_path / "saved"))) == list(corpus)[1:]
    assert list(pickle.loads(pickle.dumps(corpus))) == list(corpus)
    saved = pickle.dumps(corpus)
    (tmp_path / "c").rename(tmp_path / "old")
    Corpus.write(tmp_path / "c", bags[1:])
    with pytest.raises(DamagedError, match="another corpus than it was"):
        pickle.loads(saved)


def test_to_mm(tmp_path: Path):
    documents = [*many(7), [], [(3, 1 / 3)], []]
    Corpus.write(tmp_path / "c", documents).to_mm(tmp_path / "c.mm")
    assert list(MmCorpus(str(tmp_path / "c.mm"))) == documents


def test_selections(tmp_path: Path):
    corpus, documents = Corpus.write(tmp_path / "c", many()), many()
    assert list(corpus[::-3]) == documents[::-3]
    assert list(corpus[5:30:2][1:4]) == documents[5:30:2][1:4]
    assert list(corpus[[3, -1, 3]]) == [documents[3], documents[-1], documents[3]]
    assert list(corpus[np.arange(40) % 2 == 0]) == documents[::2]
    assert list(corpus[[]]) == []
    with pytest.raises(IndexError):
        corpus[40]


def test_it_is_at_the_top_level():
    assert distcorpus.Corpus is Corpus
    assert distcorpus.corpora.Corpus is Corpus


def test_a_notebook_shows_what_is_in_it(tmp_path: Path):
    words = {0: "<b>", 1: "rare", 2: "frequent"}
    documents = [[(0, 1), (2, 7)], [(1, 2)], [], [(1, 1)]]
    shown = Corpus.write(
        tmp_path / "named & shown", documents, words, names=["first", "a<i>", "c", "d"]
    )._repr_html_()
    assert "named &amp; shown" in shown
    assert "<th style='text-align:left'>document a&lt;i&gt;</th>" in shown
    assert "frequent 7, &lt;b&gt; 1" in shown
    assert "document d" not in shown
    assert "1 2" in Corpus.write(tmp_path / "plain", documents)._repr_html_()


# What is refused.


def test_an_existing_folder_is_left_alone(tmp_path: Path, bags: list):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/diary").write_text("dear")
    with pytest.raises(FileExistsError, match="give another folder"):
        Corpus.write(tmp_path / "c", bags)
    assert contents(tmp_path / "c") == {"diary": b"dear"}


def test_what_is_in_the_way_of_an_unfinished_corpus_is_left_alone(tmp_path: Path, bags: list):
    Corpus.write(tmp_path / "c.unfinished", bags)
    before = contents(tmp_path / "c.unfinished")
    with pytest.raises(FileExistsError, match=r"c\.unfinished .*\(it has no progress\.jsonl\): rename it"):
        Corpus.write(tmp_path / "c", bags)
    assert contents(tmp_path / "c.unfinished") == before
    (tmp_path / "d.unfinished").write_text("a file")
    (tmp_path / "e.unfinished").symlink_to(tmp_path / "c.unfinished")
    for name in "de":
        with pytest.raises(FileExistsError, match="it is no folder"):
            Corpus.write(tmp_path / name, bags)
    (tmp_path / "f").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="f exists already"):
        Corpus.write(tmp_path / "f", bags)
    assert not (tmp_path / "f.unfinished").exists()


def test_nothing_is_left_of_documents_that_are_refused(tmp_path: Path):
    for source in (None, "these"):
        with pytest.raises(ValueError, match="not finite"):
            Corpus.write(tmp_path / "c", [[(0, float("nan"))]], source=source)
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_corpus(tmp_path: Path, bags: list):
    with ShardWriter(tmp_path / "c") as writer:
        with pytest.raises(RuntimeError, match="another process writes"):
            ShardWriter(tmp_path / "c")
        writer.add(bags)
        writer.finish()
    assert len(Corpus(tmp_path / "c")) == 4


@pytest.mark.parametrize(
    ("documents", "id2word", "names", "match"),
    [
        ([[(5, 1)]], {0: "a"}, None, "term id 5, and id2word has 1 words"),
        ([[(0, float("nan"))]], None, None, "document 0: term id 0 has a value that is not finite"),
        (["text"], None, None, "document 0 is not a bag of words"),
        ([[(0, 1)]], {"a": 0}, None, "not of word to id"),
        ([[(0, 1)]], {0: b"a"}, None, "a bytes: give strings"),
        ([[(0, 1)]], None, [], "0 names for 1"),
        ([[(0, 1)]], None, ["a", "b"], "more names than the 1 documents"),
        ([[(0, 1)]], None, [3], "the name 3 is a int"),
    ],
)
def test_bad_input(tmp_path: Path, documents, id2word, names, match: str):
    with pytest.raises((ValueError, TypeError), match=match):
        Corpus.write(tmp_path / "c", documents, id2word, names=names)
    assert not (tmp_path / "c").exists()


def test_what_is_no_corpus(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="is no corpus"):
            Corpus(path)


@pytest.fixture
def written(small_shards: None, tmp_path: Path) -> Corpus:
    return Corpus.write(tmp_path / "c", many(), [f"w{n}" for n in range(12)])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "match"),
    [(truncate, "bytes, and its manifest says"), (flip, "has been changed"), (Path.unlink, "is missing")],
)
@pytest.mark.parametrize("part", ["indptr", "indices", "data"])
def test_a_damaged_shard_is_refused_with_its_name(written: Corpus, damage, match: str, part: str):
    damage(written.directory / f"shard-00002-{part}.npy")
    corpus = Corpus(written.directory)
    assert len(list(corpus[:20])) == 20
    with pytest.raises(DamagedError, match=f"shard-00002-{part}.npy.*{match}"):
        corpus[25]
    with pytest.raises(DamagedError, match=f"shard-00002-{part}.npy"):
        list(corpus.verify())


def test_damage_to_what_was_read_before_is_found(written: Corpus):
    assert list(written) == many()
    flip(written.directory / "shard-00001-data.npy")
    with pytest.raises(DamagedError, match="shard-00001-data"):
        Corpus(written.directory)[12]


def test_a_manifest_of_a_newer_format(written: Corpus):
    path = written.directory / manifest.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(DamagedError, match="is of format 2, and this distcorpus reads up to 1: install"):
        Corpus(written.directory)


def _changed(values: dict, path: list, value: object) -> dict:
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["documents"], 41),
        (["entries"], -1),
        (["terms"], 2**40),
        (["terms"], 3),
        (["weighting"], "weights"),
        (["shards", 1, "first"], 9),
        (["shards", 1, "end"], 5),
        (["shards", 1, "segment"], 0),
        (["shards", 1, "dtype"], "object"),
        (["shards", 1, "least"], "0"),
        (["shards", 1, "weighting"], "../x"),
        (["shards", 1, "checksums", "data"], "../../etc/passwd"),
        (["shards", 1, "checksums", "../data"], "0" * 64),
        (["shards", 1], {}),
        (["names"], [3]),
        (["words"], "x"),
        (["more"], 1),
        (["checksums"], []),
    ],
)
def test_a_manifest_that_contradicts_itself(written: Corpus, path: list, value: object):
    file = written.directory / manifest.NAME
    file.write_text(json.dumps(_changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(DamagedError, match="contradicts itself"):
        Corpus(written.directory)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"format": "other"}'])
def test_what_is_no_manifest(written: Corpus, content: bytes):
    (written.directory / manifest.NAME).write_bytes(content)
    with pytest.raises(DamagedError, match=r"manifest.json is (no|not the) manifest"):
        Corpus(written.directory)


def test_a_pipe_in_the_place_of_a_shard_is_not_waited_for(written: Corpus):
    path = written.directory / "shard-00000-data.npy"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        Corpus(written.directory)[0]


# Interrupted.


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may have more than some bytes: what a full disk does, the system does then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk(full_disk: None, tmp_path: Path):
    with pytest.raises(OSError, match=r"the corpus .* cannot be written: .*; make room there"):
        Corpus.write(tmp_path / "c", many(1000))
    assert not (tmp_path / "c").exists()
    assert not list((tmp_path / "c.unfinished").glob("*.npy*"))
    with pytest.raises(FileNotFoundError, match="is no corpus"):
        Corpus(tmp_path / "c.unfinished")


WRITES_AND_WAITS = """
import sys
from distcorpus.corpora import ShardWriter, writing
writing.SHARD_ENTRIES, writing.SEGMENT_DOCUMENTS = 20, 2
writer = ShardWriter(sys.argv[1], source="many")
writer.add([[(n % 7, 1.0), (7 + n % 5, float(n + 1))] for n in range(25)])
print("written", flush=True)
sys.stdin.read()
"""


def killed_in_the_middle(directory: Path) -> None:
    command = [sys.executable, "-c", WRITES_AND_WAITS, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        with pytest.raises(RuntimeError, match="another process writes"):
            ShardWriter(directory)
        process.kill()


def test_a_writer_that_was_killed_goes_on(small_shards: None, tmp_path: Path):
    killed_in_the_middle(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        Corpus(tmp_path / "c")
    untouched = (tmp_path / "c.unfinished/shard-00001-data.npy").stat().st_mtime_ns
    with ShardWriter(tmp_path / "c", source="many") as writer:
        assert writer.n_docs == 20
    corpus = Corpus.write(tmp_path / "c", iter(many()), source="many")
    assert (tmp_path / "c/shard-00001-data.npy").stat().st_mtime_ns == untouched
    assert list(corpus) == many()
    assert not (tmp_path / "c.unfinished").exists()
    Corpus.write(tmp_path / "quiet", many())
    assert contents(tmp_path / "c") == contents(tmp_path / "quiet")


def test_of_other_documents_nothing_is_taken_over(small_shards: None, tmp_path: Path):
    killed_in_the_middle(tmp_path / "c")
    assert list(Corpus.write(tmp_path / "c", many()[::-1], source="others")) == many()[::-1]


def test_a_shard_that_was_damaged_meanwhile_is_written_again(small_shards: None, tmp_path: Path):
    killed_in_the_middle(tmp_path / "c")
    flip(tmp_path / "c.unfinished/shard-00001-data.npy")
    with ShardWriter(tmp_path / "c", source="many") as writer:
        assert writer.n_docs == 10
    assert list(Corpus.write(tmp_path / "c", many(), source="many")) == many()


def test_what_was_written_can_be_discarded(tmp_path: Path, bags: list):
    with ShardWriter(tmp_path / "c") as writer:
        writer.add(bags)
        writer.discard()
    assert not list(tmp_path.iterdir())


# Many tokens, large ids, large values.


def test_more_tokens_than_a_term_may_have_are_read_by_workers(tmp_path: Path):
    corpus = Corpus.write(tmp_path / "many", [[(0, 2.0**30)], [(1, 2.0**30)], [(2, 1.0)]])
    assert corpus.is_referable(counts=True)
    corpus = Corpus.write(tmp_path / "of one", [[(0, 2.0**30)], [(0, 2.0**30)]])
    assert not corpus.is_referable(counts=True)
    assert corpus.is_referable(counts=False)


def test_a_vocabulary_of_gaps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ValueError, match=r"largest term id, 30000000, .* 457 MB, .* 1 entries: number the words"
    ):
        Corpus.write(tmp_path / "c", [[(30_000_000, 1)]])
    assert not (tmp_path / "c.unfinished").exists()
    monkeypatch.setattr(writing, "SMALL_VOCABULARY", 100)
    with pytest.raises(ValueError, match="or give id2word, where the vocabulary is so large"):
        Corpus.write(tmp_path / "small", [[(100, 1)]])
    assert Corpus.write(tmp_path / "more", [[(100, 1)], [(1, 1)]]).num_terms == 101
    assert Corpus.write(tmp_path / "words", [[(100, 1)]], {n: f"w{n}" for n in range(101)}).num_terms == 101
    assert Corpus.write(tmp_path / "matrix", scipy.sparse.csc_matrix(([1.0], [100], [0, 1]))).num_terms == 101
    monkeypatch.setattr(writing, "free_memory", lambda: 1600)
    with pytest.raises(ValueError, match=r"largest term id, 100, .* GiB are free: number the words"):
        Corpus.write(tmp_path / "large", [[(100, 1)], [(1, 1)]])


def test_values_whose_sum_is_not_finite_are_refused_at_once(tmp_path: Path):
    with (
        ShardWriter(tmp_path / "c") as writer,
        pytest.raises(ValueError, match=r"documents from 0 on: document 1: .* the value 1\.7e\+308"),
    ):
        writer.add([[(0, 1.0)], [(0, 1.7e308)]])


# Some of the documents.


@pytest.fixture
def named(small_shards: None, tmp_path: Path) -> Corpus:
    words, names = [f"w{n}" for n in range(12)], [f"d{n}" for n in range(40)]
    return Corpus.write(tmp_path / "named", [*many(35), [], [], [(0, 0.1)], [], [(3, 1)]], words, names=names)


@pytest.mark.parametrize("which", [[39, 0, 37, 37, 20, 35], list(range(0, 40, 3)), [], [36]])
@pytest.mark.parametrize("weighed", [False, True])
def test_a_selection_is_a_corpus(named: Corpus, which: list[int], weighed: bool):
    corpus = named.tfidf() if weighed else named
    documents = list(corpus)
    selection = corpus[which]
    assert list(selection) == [documents[n] for n in which]
    assert [selection[n] for n in range(len(which))] == [documents[n] for n in which]
    assert selection.names == [f"d{n}" for n in which]
    assert (selection.num_terms, dict(selection.id2word.items())) == (12, dict(corpus.id2word.items()))
    assert list(pickle.loads(pickle.dumps(selection))) == list(selection)


def test_selections_of_selections_and_slices(named: Corpus):
    documents = list(named)
    part = named[5:][[1, 2, 3]]
    assert list(part[[0]]) == [documents[6]]
    assert list(part[::-1][:2]) == [documents[8], documents[7]]
    assert part[np.array([False, True, True])].names == ["d7", "d8"]
    assert part[-1] == documents[8]
    with pytest.raises(IndexError):
        part[[3]]
    assert (part.to_scipy() != named[6:9].to_scipy()).nnz == 0
    assert not part.is_referable(counts=False)


def test_a_selection_trains_as_a_list_does(named: Corpus):
    which = list(range(0, 34, 2))
    found = distcorpus.LdaModel(named[which], num_topics=2, random_state=0, workers=1)
    documents = [bag for n, bag in enumerate(many(35)) if n in which]
    wanted = distcorpus.LdaModel(documents, id2word=named.id2word, num_topics=2, random_state=0, workers=1)
    assert found.get_topics().tobytes() == wanted.get_topics().tobytes()
    assert found.id2word[3] == "w3"


# What was changed together with its checksum.


def forge(directory: Path, part: str, place: int, value: float, shard: int = 0) -> None:
    path = directory / f"shard-{shard:05d}-{part}.npy"
    array = np.load(path)
    array[place] = value
    np.save(path, array)
    content = json.loads((directory / manifest.NAME).read_text())
    content["shards"][shard]["checksums"][part] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / manifest.NAME).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("part", "place", "value", "match"),
    [
        ("indices", 5, 500_000_000, "term ids that are not below"),
        ("indices", 5, -1, "term ids that are not below"),
        ("indptr", 0, 1, "places of documents that are none"),
        ("indptr", -1, 10**9, "places of documents that are none"),
        ("indptr", 3, 0, "places of documents that are none"),
        ("data", 3, 1e6, "values that are not from 1 to 10"),
        ("data", 3, -1, "values that are not from 1 to 10"),
        ("data", 3, np.nan, "values that are not from 1 to 10"),
    ],
)
def test_contents_that_cannot_be_are_refused(
    written: Corpus, part: str, place: int, value: float, match: str
):
    assert list(written) == many()
    forge(written.directory, part, place, value, shard=0)
    with pytest.raises(DamagedError, match=rf"shard-00000-{part}\.npy has {match}.*: it was changed with"):
        list(Corpus(written.directory))
    with pytest.raises(DamagedError, match=match):
        list(Corpus(written.directory).verify())


def test_what_was_right_for_one_manifest_is_looked_at_for_another(written: Corpus):
    assert list(written) == many()
    path = written.directory / manifest.NAME
    content = json.loads(path.read_text())
    content["shards"][0]["terms"] = 8
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedError, match="term ids that are not below 8"):
        Corpus(written.directory).chunk(0, 5)


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_to_mm_compresses(tmp_path: Path, suffix: str):
    corpus = Corpus.write(tmp_path / "c", many())
    for name in ("a", "b"):
        corpus.to_mm(tmp_path / f"{name}.mm{suffix}")
    assert list(MmCorpus(str(tmp_path / f"a.mm{suffix}"))) == many()
    content = (tmp_path / f"a.mm{suffix}").read_bytes()
    assert content == (tmp_path / f"b.mm{suffix}").read_bytes()
    assert not content.startswith(b"%%")
    with pytest.raises(ValueError, match=r"\.zst is not written: let the name end with"):
        corpus.to_mm(tmp_path / "a.mm.zst")


def test_a_corpus_is_written_with_its_words_and_names(named: Corpus, tmp_path: Path):
    for number, part in enumerate((named[::2], named[1:3], named.tfidf())):
        copy = Corpus.write(tmp_path / f"{number}", part)
        assert (dict(copy.id2word), copy.names) == (dict(part.id2word), part.names)
        assert copy.num_terms == named.num_terms
    other = Corpus.write(tmp_path / "other", named[:1], {n: f"w{n}" for n in range(9)}, names=["x"])
    assert (other.id2word[0], other.names) == ("w0", ["x"])
    with ShardWriter(tmp_path / "more", 9) as writer:
        writer.add([[(0, 1), (8, 1)]])
        writer.finish({0: "a"})
    assert dict(Corpus.write(tmp_path / "again", Corpus(tmp_path / "more")).id2word) == {0: "a"}


def test_indices(named: Corpus):
    assert named[np.array(1)] == named[1]
    assert named[[]].names == []
    for wrong in (np.array([[0, 1]]), [[0], [1]]):
        with pytest.raises(IndexError, match="an index of 2 dimensions: give a list"):
            named[wrong]


def test_to_mm_says_what_cannot_be_written(tmp_path: Path):
    corpus = Corpus.write(tmp_path / "c", many(1000))
    (tmp_path / "c.mm.unfinished").write_text("precious")
    corpus.to_mm(tmp_path / "c.mm")
    assert (tmp_path / "c.mm.unfinished").read_text() == "precious"
    with pytest.raises(FileNotFoundError, match=r"none/c\.mm cannot be written: No such file"):
        corpus.to_mm(tmp_path / "none" / "c.mm")


def test_to_mm_on_a_full_disk(written: Corpus, full_disk: None, tmp_path: Path):
    with pytest.raises(OSError, match=r"full\.mm cannot be written: .*; make room there"):
        Corpus.to_mm(repeated(written), tmp_path / "full.mm")
    assert not list(tmp_path.glob("full*"))


def repeated(corpus: Corpus) -> Corpus:
    return corpus[[0] * 500]

"""A corpus from files of text: gensim's counts, equal bytes however it is built, one error for bad input."""

from __future__ import annotations

import bz2
import csv
import errno
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from gensim.corpora import Dictionary
from gensim.test.utils import datapath
from gensim.utils import PAT_ALPHABETIC, simple_preprocess
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distcorpus.algorithms._csv_kernels import compiled_finder, find_records
from distcorpus.corpora import Corpus, InputError, counting, files, inputs, records, vocabulary, words
from distcorpus.corpora.crew import Crew
from distcorpus.corpora.fingerprint import of_tokenizer
from distcorpus.corpora.vocabulary import Vocabulary
from distcorpus.corpora.words import GENSIM, LETTERS, letters_of, runs, tokens, wanted

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

LEE = Path(datapath("lee_background.cor")).read_text("utf-8").splitlines()
#: What a tokenizer may stumble over.
UNICODE = [
    "Straße ΟΔΟΣ ΣΑΣ. İstanbul",
    "x² ½ 10km a_b _private __",
    "naïve Ǆ ﬁn 東京 日本語 пример",
    "e\u0301te\u0301 \x00\x85",
]
TEXTS = [*LEE[:60], *UNICODE, "", "supercalifragilisticexpialidocious " * 3, "a bc"]
ALL = {"no_below": 1, "no_above": 1.0, "keep": None}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def bags(corpus: Corpus) -> list[list[tuple[int, int]]]:
    return [[(term, int(count)) for term, count in document] for document in corpus]


def lines_file(folder: Path, texts: list[str] = TEXTS) -> Path:
    path = folder / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8", newline="")
    return path


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PIECE", 10_000)
    monkeypatch.setattr(inputs, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(inputs, "FILES_AT_ONCE", 3)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What any way of building a corpus of the texts gives."""
    folder = tmp_path_factory.mktemp("expected")
    return contents(Corpus.build(lines_file(folder), folder / "c", processes=1).directory)


def words_of(texts: list[str], kind: str) -> list[list[str]]:
    codes, indptr, words = runs([text.lower().encode() for text in texts], kind)
    kept = wanted(words, kind, frozenset())
    found = words.to_pylist()
    return [[found[code] for code in codes[a:b] if kept[code]] for a, b in pairwise(indptr)]


def test_letters_are_those_of_gensim() -> None:
    characters = "".join(map(chr, range(0x110000)))
    ours = "".join(
        character for character, is_in in zip(characters, letters_of(GENSIM), strict=True) if is_in
    )
    assert ours == "".join(found.group() for found in PAT_ALPHABETIC.finditer(characters))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(UNICODE), max_size=5))
def test_words_are_those_of_gensim_and_of_letters(texts: list[str]) -> None:
    assert words_of(texts, GENSIM) == [simple_preprocess(text) for text in texts]
    assert words_of(texts, LETTERS) == [
        [
            word
            for word in "".join(c if c.isalpha() else " " for c in text.lower()).split(" ")
            if 2 <= len(word) <= 15
        ]
        for text in texts
    ]


@pytest.mark.parametrize(
    "limits",
    [{}, {"no_below": 2, "no_above": 0.3, "keep": 50}, ALL, {"no_below": 1, "no_above": 1.0, "keep": 700}],
)
def test_all_counts_are_gensims(tmp_path: Path, small_pieces: None, limits: dict) -> None:
    corpus = Corpus.build(lines_file(tmp_path), tmp_path / "c", tokenizer="gensim", processes=1, **limits)
    documents = [simple_preprocess(text) for text in TEXTS]
    dictionary = Dictionary(documents)
    keep = limits.get("keep", 100_000)
    dictionary.filter_extremes(limits.get("no_below", 5), limits.get("no_above", 0.5), keep_n=keep)
    ours = corpus.id2word
    assert ours.token2id == dictionary.token2id
    assert (ours.dfs, ours.cfs, ours.num_docs) == (dictionary.dfs, dictionary.cfs, dictionary.num_docs)
    assert bags(corpus) == [dictionary.doc2bow(document) for document in documents]


def test_a_function_may_be_the_tokenizer(tmp_path: Path) -> None:
    path = lines_file(tmp_path)
    fast = Corpus.build(path, tmp_path / "fast", tokenizer="gensim", processes=1)
    slow = Corpus.build(path, tmp_path / "slow", tokenizer="gensim.utils:simple_preprocess", processes=2)
    assert contents(slow.directory) == contents(fast.directory)
    with pytest.raises(TypeError, match="list of strings"):
        tokens(["a"], lambda text: [1])
    with pytest.raises(InputError, match=r"texts\.txt:1: the tokenizer failed: ZeroDivision"):
        Corpus.build(path, tmp_path / "failed", tokenizer=lambda text: [1 // 0], processes=1)
    with pytest.raises(ValueError, match="Define the function in a module"):
        Corpus.build(path, tmp_path / "local", tokenizer=lambda text: [text], processes=2)
    for wrong in ("nothing", "no_such:thing", "json:nothing", "json:__name__"):
        with pytest.raises(ValueError, match="tokenizer"):
            Corpus.build(path, tmp_path / "wrong", tokenizer=wrong)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_equal_input_gives_equal_bytes(
    tmp_path: Path, small_pieces: None, expected: dict, processes: int
) -> None:
    path = lines_file(tmp_path)
    corpus = Corpus.build(path, tmp_path / "c", processes=processes, memory=4)
    assert contents(corpus.directory) == expected
    assert {entry.name for entry in tmp_path.iterdir()} == {"c", path.name}


def _jsonl(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS) + "\n")
    return path


def _csv(folder: Path, name: str, delimiter: str) -> Path:
    path = folder / name
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["the\nnumber", "text"])
        # Python 3.10 writes no NUL; it divides words as a space does.
        writer.writerows([f'"{n}",\n', text.replace("\0", " ")] for n, text in enumerate(TEXTS))
    return path


def _table(folder: Path, form: str) -> Path:
    path = folder / f"texts.{'parquet' if form == 'parquet' else 'arrow'}"
    table = pyarrow.table({"other": list(range(len(TEXTS))), "text": TEXTS})
    if form == "parquet":
        parquet.write_table(table, path, row_group_size=20)
    else:
        new = pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    return path


def _compressed(folder: Path, suffix: str) -> Path:
    content = lines_file(folder).read_bytes()
    half = len(content) // 2
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": pyarrow.Codec("zstd").compress}[suffix]
    path = folder / f"texts.txt{suffix}"
    parts = [content] if suffix == ".zst" else [content[:half], content[half:]]
    path.write_bytes(b"".join(bytes(pack(part)) for part in parts))
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "jsonl": _jsonl,
    "csv": lambda folder: _csv(folder, "texts.csv", ","),
    "tsv": lambda folder: _csv(folder, "texts.tsv", "\t"),
    "parquet": lambda folder: _table(folder, "parquet"),
    "arrow file": lambda folder: _table(folder, "file"),
    "arrow stream": lambda folder: _table(folder, "stream"),
    "gzip": lambda folder: _compressed(folder, ".gz"),
    "bzip2": lambda folder: _compressed(folder, ".bz2"),
    "zstd": lambda folder: _compressed(folder, ".zst"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_corpus(
    tmp_path: Path, small_pieces: None, expected: dict, form: str
) -> None:
    corpus = Corpus.build(FORMS[form](tmp_path), tmp_path / "c", processes=1)
    assert contents(corpus.directory) == expected


def test_other_file_systems(tmp_path: Path, small_pieces: None, expected: dict) -> None:
    fsspec = pytest.importorskip("fsspec")
    content = lines_file(tmp_path).read_bytes()
    cut = content.index(b"\n", len(content) // 2) + 1
    for name, part in (("a.txt", content[:cut]), ("b.txt.gz", gzip.compress(content[cut:]))):
        with fsspec.open(f"memory://build/{name}", "wb") as file:
            file.write(part)
    corpus = Corpus.build("memory://build/*.txt*", tmp_path / "c", processes=1)
    assert contents(corpus.directory) == expected


def test_folders_and_chains_of_other_file_systems(
    tmp_path: Path, small_pieces: None, expected: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    (tmp_path / "in" / ".hidden").mkdir(parents=True)
    (tmp_path / "in" / ".hidden" / "a.txt").write_text("hidden")
    path = lines_file(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(path, "sub/a.txt")
    urls = [
        f"file://{tmp_path}/in",
        f"zip://sub/a.txt::file://{tmp_path}/x.zip",
        f"zip://*/*.txt::file://{tmp_path}/x.zip",
    ]
    for number, url in enumerate(urls):
        corpus = Corpus.build(url, tmp_path / f"c{number}", processes=1)
        assert contents(corpus.directory) == expected
    for name in ("a", "b"):
        with fsspec.open(f"memory://folder/{name}.txt", "w") as file:
            file.write(f"word {name}{name}")
    corpus = Corpus.build("memory://folder", tmp_path / "files", format="files", processes=2, **ALL)
    assert corpus.names == ["memory:///folder/a.txt", "memory:///folder/b.txt"]
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for url, message in (
        ("nothing://a", "Protocol not known"),
        ("s3://b/a", "Install s3fs"),
        ("file:///no/a", "No such"),
    ):
        with pytest.raises(InputError, match=f"{url} cannot be read: .*{message}"):
            Corpus.build(url, tmp_path / "d", processes=1)


def test_ids_and_files_are_names(tmp_path: Path, small_pieces: None) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"body": "one two", "key": 7}\n{"body": "two é", "key": "a/b"}\n', "utf-8")
    corpus = Corpus.build(path, tmp_path / "c", text="body", id="key", processes=1, **ALL)
    assert corpus.names == ["7", "a/b"]
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for number in range(8):
        (folder / "sub" / f"{number}.txt").write_text(f"alpha\nbeta word{'x' * number}")
    (folder / ".hidden").write_text("no")
    corpus = Corpus.build(folder, tmp_path / "d", format="files", processes=2, **ALL)
    assert corpus.names == [str(folder / "sub" / f"{number}.txt") for number in range(8)]
    assert corpus[0] == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_stopwords(tmp_path: Path) -> None:
    path = lines_file(tmp_path, ["the cat sat", "the dog sat"])
    corpus = Corpus.build(path, tmp_path / "c", stopwords=["sat", "unheard"], processes=1, **ALL)
    assert list(corpus.id2word.token2id) == ["cat", "the", "dog"]
    corpus = Corpus.build(path, tmp_path / "e", stopwords=["SAT", "The"], processes=1, **ALL)
    assert list(corpus.id2word.token2id) == ["cat", "dog"]
    split = {"tokenizer": str.split, "processes": 1, **ALL, "no_below": np.int64(1)}
    corpus = Corpus.build(path, tmp_path / "f", stopwords=["SAT", "The"], **split)
    assert list(corpus.id2word.token2id) == ["cat", "sat", "the", "dog"]
    corpus = Corpus.build(path, tmp_path / "d", stopwords="gensim", processes=1, **ALL)
    assert list(corpus.id2word.token2id) == ["cat", "sat", "dog"]


LONG = b"text,b\n" + b"".join(b"%d %d words,b\n" % (n, n**7 % 9_999_991) for n in range(3_000))


def damaged(content: bytes, at: int | None = None) -> bytes:
    at = len(content) // 2 if at is None else at
    return content[:at] + bytes(byte ^ 255 for byte in content[at : at + 4]) + content[at + 4 :]


BAD = [
    ("a.txt", b"fine\nna\xefve\n", r"a\.txt:2: the text is no UTF-8"),
    (
        "b.jsonl",
        b'{"text": "x"}\n\n{"txt": "y"}\n',
        r"b\.jsonl:3: there is no field 'text' \(there are 'txt'\)",
    ),
    ("c.jsonl", b'{"text": "x"}\n{"text": "y"\n', r"c\.jsonl:2: this is no JSON"),
    ("d.jsonl", b'["x"]\n', r"d\.jsonl:1: this is a JSON list"),
    ("e.jsonl", b'{"text": null}\n', r"e\.jsonl:1: the field 'text' is null"),
    ("f.jsonl", b'{"text": "\\ud800"}\n', r"f\.jsonl:1: the text is no UTF-8"),
    ("g.csv", b'n,text\n1,"a\nb"\n2\n', r"g\.csv:4: there are 1 fields, and 2 in the header"),
    ("h.csv", b'n,text\n1,"a"b\n', r"h\.csv:2: this is no CSV"),
]
REFUSED = [
    ("empty.txt", b"", r"empty\.txt is empty"),
    ("i.csv", b"n,txt\n1,a\n", r"i\.csv: there is no field 'text'"),
    ("j.gz", gzip.compress(os.urandom(40_000))[:20_000], r"j\.gz is cut off"),
    ("k.bz2", bz2.compress(os.urandom(40_000))[:20_000], r"k\.bz2 is cut off"),
    ("l.zst", bytes(pyarrow.Codec("zstd").compress(os.urandom(40_000)))[:20_000], r"l\.zst is cut off"),
    ("j.xz", lzma.compress(os.urandom(40_000))[:20_000], r"j\.xz is cut off"),
    ("ma.gz", damaged(gzip.compress(LONG), 12), r"ma\.gz cannot be read: Error -3 while decompressing"),
    ("mb.gz", damaged(gzip.compress(LONG), -6), r"mb\.gz cannot be read: CRC check failed"),
    ("mc.bz2", damaged(bz2.compress(LONG)), r"mc\.bz2 cannot be read: Invalid data stream"),
    ("md.zst", damaged(bytes(pyarrow.Codec("zstd").compress(LONG)), 12), r"md\.zst cannot be read: ZSTD"),
    ("me.xz", damaged(lzma.compress(LONG)), r"me\.xz cannot be read: Corrupt input data"),
    (
        "mf.csv.gz",
        damaged(gzip.compress(LONG), 12),
        r"mf\.csv\.gz cannot be read: Error -3 while decompressing",
    ),
    ("mg.zip", b"PK", r"mg\.zip: \.zip files are not read: unpack it"),
    ("m.gz", b"no gzip", r"m\.gz cannot be read: Not a gzipped file"),
    ("n.parquet", b"PAR1 nothing", r"n\.parquet cannot be read"),
    ("o.arrow", b"nothing of that kind", r"o\.arrow cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), [*BAD, *REFUSED])
def test_bad_input_is_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Corpus.build(path, tmp_path / "c", processes=1, **ALL)
    with pytest.raises(FileNotFoundError):
        Corpus(tmp_path / "c")


def test_bad_records_are_passed_over_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PIECE", 40)
    path = tmp_path / "x.jsonl"
    lines = [f'{{"text": "word{"" if n % 3 else chr(0xFFFF)} w"}}' if n % 5 else "{" for n in range(20)]
    path.write_text("\n".join(lines), "utf-8")
    corpus = Corpus.build(path, tmp_path / "c", skip_bad=True, processes=2, **ALL)
    assert len(corpus) == 16
    assert [record.getMessage().split(" ")[0] for record in caplog.records[:4]] == [
        f"{path}:{line}:" for line in (1, 6, 11, 16)
    ]
    assert "skipped 4 records without text" in caplog.records[-1].getMessage()
    path.write_text("{\n")
    with pytest.raises(InputError, match="no document in the input but bad ones"):
        Corpus.build(path, tmp_path / "d", skip_bad=True, processes=1)


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_line_without_end_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"long.txt{suffix}"
    if suffix:
        with gzip.open(path, "wb", 1) as file:
            file.write(b"one two\n")
            for _ in range(9):
                file.write(bytes(8 << 20))
            file.write(b"\nthree\n")
    else:
        with open(path, "wb") as file:
            file.write(b"one two\n")
            file.seek(1 << 30)
            file.write(b"\nthree\n")
    if suffix:
        with pytest.raises(InputError, match=r"long\.txt.*:2: a record is longer than 32 MB"):
            Corpus.build(path, tmp_path / "c", processes=1, **ALL)
    assert megabytes(path, tmp_path / "c") < 350
    assert [len(document) for document in Corpus(tmp_path / "c")] == [2, 1]


MEASURED = """
import sys
from distcorpus.corpora import Corpus
options = {"format": sys.argv[3] or None, "skip_bad": True, "processes": 1, "no_below": 1, "no_above": 1.0}
Corpus.build(sys.argv[1], sys.argv[2], **options)
status = open("/proc/self/status").read()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def megabytes(path: Path, directory: Path, form: str = "") -> int:
    """Build a corpus in a process of its own, and return the most memory that it had."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell")
    command = [sys.executable, "-c", MEASURED, path, directory, form]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.long
def test_a_line_of_millions_of_words_takes_little_memory(tmp_path: Path) -> None:
    lines_file(tmp_path, ["aa bb", "x y " * (31 << 18), "xx yy"])
    assert megabytes(tmp_path / "texts.txt", tmp_path / "c") < 512
    assert list(map(len, Corpus(tmp_path / "c"))) == [2, 0, 2]


@pytest.mark.long
def test_files_that_are_compressed_a_hundredfold_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(15):
        text = f"file{chr(97 + number)} {'again and again ' * 200_000}".encode()
        (tmp_path / "in" / f"{number:02}.txt.gz").write_bytes(gzip.compress(text, 1))
    assert megabytes(tmp_path / "in", tmp_path / "c", "files") < 350
    corpus = Corpus(tmp_path / "c")
    assert bags(corpus)[7] == [(0, 400_000), (1, 200_000), (9, 1)]


@pytest.mark.long
def test_a_long_text_of_many_rows_takes_little_memory(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["one two " * 120_000] * 100})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert megabytes(tmp_path / "a.parquet", tmp_path / "c") < 400
    assert bags(Corpus(tmp_path / "c"))[99] == [(0, 120_000), (1, 120_000)]


@pytest.mark.parametrize("size", [9, 300])
@pytest.mark.parametrize(
    "kind", [LETTERS, GENSIM, pytest.param("gensim.utils:simple_preprocess", marks=pytest.mark.long)]
)
def test_nothing_depends_on_how_many_texts_are_counted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, kind: str
) -> None:
    path = lines_file(tmp_path, [*TEXTS[50:], " ".join(TEXTS[55:]), "東京。" * 50])
    wanted = contents(Corpus.build(path, tmp_path / "wanted", tokenizer=kind, processes=1, **ALL).directory)
    monkeypatch.setattr(counting, "AT_ONCE", size)
    monkeypatch.setattr(words, "AT_ONCE", size)
    corpus = Corpus.build(path, tmp_path / "c", tokenizer=kind, processes=1, **ALL)
    assert contents(corpus.directory) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"no_below": 900}, "no word is in at least no_below=900"),
        ({"no_above": 1.5}, "no_above"),
        ({"no_below": 1.5}, "no_below"),
        ({"keep": 0}, "keep"),
        ({"processes": 0}, "processes"),
        ({"processes": 2.5}, "processes"),
        ({"memory": 0}, "memory"),
        ({"memory": float("inf")}, "memory"),
        ({"no_above": "most"}, "no_above"),
        ({"tokenizer": None}, "tokenizer=None: give"),
        ({"tokenizer": 3}, "tokenizer=3: give"),
        ({"stopwords": [1]}, "stopwords has 1, a int"),
        ({"stopwords": None}, "stopwords=None: give a list"),
        ({"text": None}, "text=None"),
        ({"format": "xml"}, "format"),
        ({"stopwords": "french"}, "stopwords"),
        ({"id": "key"}, "text files have no fields"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Corpus.build(lines_file(tmp_path), tmp_path / "c", **{"processes": 1, **arguments})


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = lines_file(tmp_path)
    Corpus.build(path, tmp_path / "c", processes=1)
    with pytest.raises(FileExistsError, match="exists already"):
        Corpus.build(path, tmp_path / "c", processes=1)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Corpus.build(tmp_path / "none.txt", tmp_path / "d")


@pytest.mark.parametrize("suffix", [".counted", ".unfinished"])
@pytest.mark.parametrize("name", ["thesis.doc", "sub/a", "source.json/a", "manifest.json", "piece-0.npz"])
def test_folders_of_the_users_are_left_alone(tmp_path: Path, suffix: str, name: str) -> None:
    path, precious = lines_file(tmp_path), tmp_path / f"c{suffix}" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(FileExistsError, match=rf"c\{suffix} .*is not what an interrupted run left \(it has"):
        Corpus.build(path, tmp_path / "c", processes=1)
    assert precious.read_text() == "precious"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x").write_text("")
    with pytest.raises(FileExistsError, match=rf"exists already.*c\{suffix}.* may be of an earlier run"):
        Corpus.build(path, tmp_path / "c", processes=1)
    assert precious.read_text() == "precious"


def test_what_a_user_puts_into_the_folder_of_the_counts_stays(tmp_path: Path) -> None:
    def tokenize(text: str) -> list[str]:
        (tmp_path / "c.counted" / "note").write_text("dear")
        return text.split()

    Corpus.build(lines_file(tmp_path), tmp_path / "c", tokenizer=tokenize, processes=1)
    assert contents(tmp_path / "c.counted") == {"note": b"dear"}


SLOWLY = """
import sys, resource
from distcorpus.corpora import Corpus, inputs
inputs.PIECE = 3000
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
Corpus.build(sys.argv[1], sys.argv[2], processes=int(sys.argv[4]))
"""


@pytest.mark.long
def test_a_killed_build_goes_on(tmp_path: Path, expected: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = lines_file(tmp_path), tmp_path / "c.counted"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, path, tmp_path / "c", "0", "2"])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.npz"))) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    counted = {file: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    assert len(counted) >= 3
    assert not (tmp_path / "c").exists()
    damaged = max(counted)
    damaged.write_bytes(damaged.read_bytes()[:-200])
    monkeypatch.setattr(inputs, "PIECE", 3000)
    again: list[Path] = []
    count = counting.count

    def watched(piece: object, reading: object, file: Path, known: object = None) -> object:
        again.extend([file] if known is None else [])
        return count(piece, reading, file, known)

    monkeypatch.setattr("distcorpus.corpora.building.count", watched)
    corpus = Corpus.build(path, tmp_path / "c", processes=1)
    assert contents(corpus.directory) == expected
    assert damaged in again
    assert not set(counted) - {damaged} & set(again)
    assert not folder.exists()


@pytest.mark.parametrize("size", [1_500, 5_000])
@pytest.mark.long
def test_a_full_disk_is_one_error(tmp_path: Path, expected: dict, size: int) -> None:
    path = lines_file(tmp_path)
    command = [sys.executable, "-c", SLOWLY, path, tmp_path / "c"]
    done = subprocess.run([*command, str(size), "1"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "make room there" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "c").exists()
    corpus = Corpus.build(path, tmp_path / "c", processes=1)
    assert contents(corpus.directory) == expected


def test_frequencies_that_do_not_fit_into_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "AT_ONCE", 16)
    random = np.random.default_rng(0)
    small, large = Vocabulary(tmp_path, 40), Vocabulary(tmp_path, 10**9)
    for number in range(30):
        chosen = random.choice(400, 25, replace=False)
        documents = random.integers(1, 5, 25)
        first = number * 100 + random.integers(0, 100, 25)
        for one in (small, large):
            one.add(pyarrow.array([f"word{n}é" for n in chosen]), documents, first)
    assert len(list(tmp_path.glob("words-*.arrow"))) > 5
    for limits in ((1, 100, None), (3, 9, None), (2, 100, 7)):
        assert small.chosen(*limits).equals(large.chosen(*limits))
    assert len(large.chosen(2, 100, 7)) == 7


def test_a_process_that_dies_is_one_error() -> None:
    with Crew(2) as crew:
        assert list(crew.map(divmod, [(n, 3) for n in range(40)])) == [divmod(n, 3) for n in range(40)]
        with pytest.raises(ZeroDivisionError):
            list(crew.map(divmod, [(1, 1), (1, 0), (1, 1)]))
    with Crew(2) as crew, pytest.raises(RuntimeError, match=r"was killed by signal 9.*goes on from where"):
        list(crew.map(signal.raise_signal, [(signal.SIGKILL,)]))


# What is counted already.


TOKENIZER = """
import re
PATTERN = re.compile({pattern!r})
def words(text):
    return [word for word in PATTERN.findall(text.{case}()) if word not in {{"the", "of", "a", "an", "or"}}]
SHOUTS = lambda text: text.upper().split()
"""
FINGERPRINT = """
import sys
from importlib import import_module
from distcorpus.corpora.fingerprint import of_tokenizer
print(of_tokenizer(eval(sys.argv[1], vars(import_module("mine")))))
"""


def fingerprint(folder: Path, what: str = "words", case: str = "lower", pattern: str = "[a-z]+") -> str:
    """What another process takes for the fingerprint of a tokenizer of a module."""
    (folder / "mine.py").write_text(TOKENIZER.format(case=case, pattern=pattern))
    path = os.pathsep.join([str(folder), str(Path(inputs.__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", FINGERPRINT, what]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize(
    "what",
    [
        "words",
        "SHOUTS",
        pytest.param("PATTERN.findall", marks=pytest.mark.long),
        pytest.param("__import__('functools').partial(words)", marks=pytest.mark.long),
    ],
)
def test_a_tokenizer_is_known_again_in_another_process_and_a_changed_one_is_not(
    tmp_path: Path, what: str
) -> None:
    first = fingerprint(tmp_path, what)
    assert fingerprint(tmp_path, what) == first
    assert fingerprint(tmp_path, what, pattern="[a-f]+") != first
    if "words" in what:
        assert fingerprint(tmp_path, what, case="upper") != first


def test_parts_of_a_tokenizer_that_are_in_no_file_are_never_known_again() -> None:
    made = [lambda text, by=by: text.split(by) for by in "ab"]
    assert of_tokenizer(made[0]) == of_tokenizer(made[0]) != of_tokenizer(made[1])
    by = "c"
    inner = lambda text: text.split(by)  # noqa: E731
    assert of_tokenizer(inner) != of_tokenizer(inner)
    names: dict = {"__name__": "no_module_of_that_name"}
    exec("def words(text): return text.split()", names)
    assert of_tokenizer(names["words"]) != of_tokenizer(names["words"])


def test_a_changed_tokenizer_counts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines_file(tmp_path, ["One one", "two"])
    with pytest.MonkeyPatch.context() as interrupted:
        interrupted.setattr("distcorpus.corpora.building._Build.write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            Corpus.build(
                path, tmp_path / "c", tokenizer=lambda text: text.lower().split(), processes=1, **ALL
            )
    corpus = Corpus.build(
        path, tmp_path / "c", tokenizer=lambda text: text.upper().split(), processes=1, **ALL
    )
    assert list(corpus.id2word.token2id) == ["ONE", "TWO"]


def _interrupted(*anything: object) -> None:
    raise KeyboardInterrupt


def test_the_output_may_be_in_the_folder_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines_file(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.txt").write_text("hiddenword\n")
    monkeypatch.setattr("distcorpus.corpora.writing.SHARD_ENTRIES", 200)
    with pytest.MonkeyPatch.context() as interrupted:
        interrupted.setattr("distcorpus.corpora.writing.ShardWriter.finish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            Corpus.build(tmp_path, tmp_path / "c", processes=1, **ALL)
    assert {"c.counted", "c.unfinished"} <= {entry.name for entry in tmp_path.iterdir()}
    corpus = Corpus.build(tmp_path, tmp_path / "c", processes=1, **ALL)
    again = Corpus.build(tmp_path, tmp_path / "d", processes=1, **ALL)
    assert contents(again.directory) == contents(corpus.directory)
    assert "hiddenword" not in corpus.id2word.token2id


# Where records of CSV end.

CSV = st.text(st.sampled_from('"",x\n\r;é'), max_size=60).map(lambda text: f"text,b\n{text}")


def rows_of_csv(path: Path, piece: int, largest: int = 32 << 20) -> list[tuple[int, str, str]]:
    """Return the line and the text, or the problem, of each record, read in pieces of this size."""
    found, lines = [], 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inputs, "PIECE", piece)
        patched.setattr(inputs, "LARGEST_RECORD", largest)
        sources = inputs.find([path])
        for part in inputs.pieces(sources, ["text"]):
            line = 0
            for record in records.records(part, sources, records.Fields()):
                line = record.line
                if not record.blank:
                    found.append((lines + line, record.text, record.problem))
            lines += line
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CSV, st.integers(7, 30))
def test_pieces_of_csv_have_the_records_of_the_whole(tmp_path: Path, text: str, piece: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8", newline="")
    found = rows_of_csv(path, piece)
    reader, wanted = csv.reader(io.StringIO(text, newline=""), strict=True), []
    next(reader)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            wanted.append((reader.line_num, "", f"this is no CSV: {error}"))
            continue
        if row:
            fine = len(row) == 2
            problem = "" if fine else f"there are {len(row)} fields, and 2 in the header"
            wanted.append((reader.line_num, row[0] if fine else "", problem))
    assert found == wanted


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CSV, st.integers(7, 30))
def test_records_of_csv_that_are_too_long_are_the_same_for_any_piece(
    tmp_path: Path, text: str, piece: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, "utf-8", newline="")
    found = rows_of_csv(path, piece, 12)
    assert found == rows_of_csv(path, 1000, 12)
    whole = rows_of_csv(path, 1000)
    assert [row for row in found if "longer than" not in row[2]] == [row for row in whole if row in found]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40).map(lambda content: content.translate(TO_CSV)), st.integers(0, 5))
def test_compiled_code_finds_the_same_records(content: bytes, state: int) -> None:
    found = []
    for finder in (find_records, compiled_finder()):
        ends = np.zeros(41, np.int64)
        found.append((finder(np.frombuffer(b"x" + content, np.uint8), state, ord(","), ends), ends.tolist()))
    assert found[0] == found[1]


TO_CSV = bytes(b'",\n\rx'[n % 5] for n in range(256))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_quote_in_a_field_begins_nothing(tmp_path: Path, small_pieces: None, processes: int) -> None:
    rows = [f'{n},24" wide word{chr(97 + n % 20)}' + ' " and "' * (n % 3) for n in range(2000)]
    (tmp_path / "a.csv").write_text("\n".join(["id,text", *rows]), "utf-8")
    corpus = Corpus.build(tmp_path / "a.csv", tmp_path / "c", id="id", processes=processes, **ALL)
    assert corpus.names == [str(n) for n in range(2000)]
    lines_file(tmp_path, [row.partition(",")[2] for row in rows])
    lines = Corpus.build(tmp_path / "texts.txt", tmp_path / "d", processes=1, **ALL)
    assert bags(corpus) == bags(lines)


def test_a_record_of_csv_that_is_too_long_is_passed_over(
    tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inputs, "LARGEST_RECORD", 30_000)
    path = tmp_path / "a.csv"
    rows = ["one", "long " * 9_000 + "\nline two, and three\r\n" * 2, "two", '"']
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "b"], *([row, "b"] for row in rows)])
        file.write("bad\n")
    with pytest.raises(InputError, match=r"a\.csv:3: a record is longer than 32 MB.*is a quote missing"):
        Corpus.build(path, tmp_path / "c", processes=1, **ALL)
    corpus = Corpus.build(path, tmp_path / "c", processes=1, skip_bad=True, **ALL)
    assert bags(corpus) == [[(0, 1)], [(1, 1)], []]
    assert [record.getMessage().split(" ")[0] for record in caplog.records[:2]] == [
        f"{path}:3:",
        f"{path}:10:",
    ]


# What inputs may be.


def test_globs_of_this_machine(tmp_path: Path) -> None:
    for name in ("sb.txt", "sa.txt", "t.txt", "s[1].txt"):
        (tmp_path / name).write_text(f"word {name[:2]}\n")
    assert [Path(one.path).name for one in inputs.find([tmp_path / "s?.txt"])] == ["sa.txt", "sb.txt"]
    assert [Path(one.path).name for one in inputs.find([tmp_path / "s[1].txt"])] == ["s[1].txt"]
    assert len(inputs.find([tmp_path.parent / f"{tmp_path.name[:-1]}?"])) == 4
    with pytest.raises(InputError, match=r"there is no file .*x\*\.txt"):
        inputs.find([tmp_path / "x*.txt"])


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    for folder in ("tree/sub", "elsewhere", "tree/.hidden"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text(f"word {folder}\n")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "sub" / "back").symlink_to(tmp_path / "tree")
    found = [os.path.relpath(one.path, tmp_path) for one in inputs.find([tmp_path / "tree"])]
    assert found == ["tree/link/a.txt", "tree/sub/a.txt"]
    (tmp_path / "tree" / "sub" / "b.txt").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"b\.txt cannot be read: No such file"):
        inputs.find([tmp_path / "tree"])


def test_a_descriptor_of_the_process_is_no_input() -> None:
    for path in ("/dev/stdin", "/dev/fd/0"):
        with pytest.raises(InputError, match=f"{path} is of this process.*give the file itself"):
            inputs.find([path])


def test_a_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve.txt")
    try:
        Path(path).write_text("word\n")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match="the file's name is no UTF-8: rename it"):
        Corpus.build(tmp_path, tmp_path / "c", format="files", processes=1, **ALL)
    assert len(Corpus.build(tmp_path, tmp_path / "c", processes=1, **ALL)) == 1


TOKENIZERS = """
import sys
def failing(text):
    return text.split() if "three" not in text else 1 // 0
def leaving(text):
    sys.exit("enough")
def interrupting(text):
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_tokenizer_that_fails(
    tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(inputs, "PIECE", 20)
    (tmp_path / "failing_words.py").write_text(TOKENIZERS)
    monkeypatch.syspath_prepend(tmp_path)
    path = lines_file(tmp_path, ["one two"] * 8 + ["two three", "four"])
    for name, error, message in (
        ("failing", InputError, r"texts\.txt:9: the tokenizer failed: ZeroDivisionError"),
        ("leaving", InputError, r"texts\.txt:1: the tokenizer failed: SystemExit\('enough'\)"),
        ("interrupting", KeyboardInterrupt, None),
    ):
        with pytest.raises(error, match=message):
            Corpus.build(path, tmp_path / "c", tokenizer=f"failing_words:{name}", processes=processes, **ALL)


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('imported')")
    (tmp_path / "pyarrow.py").write_text("raise SystemExit('imported')")
    (tmp_path / "mine.py").write_text("split = str.split")
    lines_file(tmp_path, ["one two"] * 3)
    command = [sys.executable, "-c", "import sys; del sys.path[0]; from distcorpus.cli import main; main()"]
    for out, tokenizer in (("c", "letters"), ("d", "mine:split")):
        options = [
            "--out",
            out,
            "--tokenizer",
            tokenizer,
            "--no-below",
            "1",
            "--no-above",
            "1",
            "--processes",
            "2",
        ]
        done = subprocess.run(
            [*command, "corpus", "build", "texts.txt", *options], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert len(Corpus(tmp_path / out)) == 3


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is no regular file: write what it gives to one"):
        inputs.find([tmp_path / "pipe"])


def test_a_field_that_is_there_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n,text\na,1,b\n")
    table = pyarrow.table([["a"], ["b"]], names=["text", "text"])
    parquet.write_table(table, tmp_path / "b.parquet")
    with pyarrow.ipc.new_file(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.csv", "b.parquet", "c.arrow"):
        with pytest.raises(InputError, match=rf"{name}: several fields are called 'text': give each a name"):
            Corpus.build(tmp_path / name, tmp_path / "c", processes=1, **ALL)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "arrow file"])
def test_the_text_may_be_the_name(tmp_path: Path, form: str) -> None:
    corpus = Corpus.build(FORMS[form](tmp_path), tmp_path / "c", id="text", processes=1, **ALL)
    assert corpus.names is not None
    assert corpus.names[3] == TEXTS[3]


def test_a_cell_of_a_table_may_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcorpus.corpora.records.LARGEST_RECORD", 100)
    parquet.write_table(pyarrow.table({"text": ["short", "long " * 30]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet:2: a record is longer than 32 MB"):
        Corpus.build(tmp_path / "a.parquet", tmp_path / "c", processes=1, **ALL)


OF_MAIN = """
import sys
from distcorpus.corpora import Corpus
def serve(text):
    return text.split()
Corpus.build(sys.argv[1], sys.argv[2], tokenizer=serve, processes=2, no_below=1, no_above=1.0)
"""


@pytest.mark.long
def test_a_tokenizer_of_the_program_itself_is_refused_for_other_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OF_MAIN, lines_file(tmp_path), tmp_path / "c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        "cannot be sent to another process: serve is of the program itself. Define the function in a module"
        in (done.stderr.splitlines()[-1])
    )


def test_the_remedy_fits_the_error() -> None:
    assert "make room there" in files.remedy(OSError(errno.ENOSPC, ""))
    assert files.remedy(OSError(errno.EACCES, "")) == "give a folder that can be written to"

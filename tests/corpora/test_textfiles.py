"""Corpora in text files are read as gensim reads them, number for number."""

from __future__ import annotations

import bz2
import gzip
import io
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from gensim.corpora import BleiCorpus, MalletCorpus, MmCorpus, SvmLightCorpus, UciCorpus
from gensim.matutils import MmReader
from gensim.utils import SlicedCorpus
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distcorpus.corpora import Corpus, reading, textfiles
from distcorpus.corpora.textfiles import text_file
from distcorpus.models import LdaModel

Document = list[tuple[int, float]]

HEADER = b"%%MatrixMarket matrix coordinate real general\n"
TERMS = 1000


def read(corpus: Any, chunksize: int = 3) -> list[Document]:
    """The documents, by our parsers."""
    file = text_file(corpus)
    assert file is not None
    documents: list[Document] = []
    for chunk in file.chunks(chunksize):
        bounds = chunk.indptr.tolist()
        pairs = list(zip(chunk.indices.tolist(), chunk.data.tolist(), strict=True))
        assert len(bounds) - 1 == chunksize or len(documents) + len(bounds) - 1 == file.length()
        documents += [pairs[start:stop] for start, stop in pairwise(bounds)]
    assert len(documents) == file.length()
    return documents


def same(ours: list[Document], gensims: Any) -> bool:
    """Whether they are equal to the last bit; NaN is NaN."""
    theirs = [[(int(term), float(value)) for term, value in document] for document in gensims]
    return [[(t, np.float64(v).tobytes()) for t, v in d] for d in ours] == [
        [(t, np.float64(v).tobytes()) for t, v in d] for d in theirs
    ]


def matrix_market(documents: list[Document], blank: str = " ", end: str = "\n") -> bytes:
    """A file as no writer of gensim's would make it, with terms in any order."""
    lines = [
        f"{number}{blank}{term + 1}{blank}{value}{end}"
        for number, document in enumerate(documents, 1)
        for term, value in document
    ]
    sizes = f"{len(documents)} {TERMS} {len(lines)}\n".encode()
    return HEADER + b"% made by hand\n" + sizes + "".join(lines).encode()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file."""

    def write(content: bytes, name: str = "corpus.mm") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


VALUES = st.one_of(
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.floats(0, 1, width=32),
    st.from_regex(
        r"[+-]?([0-9]{1,25}\.?|\.[0-9]{1,25}|[0-9]{1,25}\.[0-9]{0,25})([eE][+-]?[0-9]{1,3})?", fullmatch=True
    ),
)
DOCUMENTS = st.lists(st.lists(st.tuples(st.integers(0, TERMS - 1), VALUES), max_size=6), max_size=12)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "scratch.mm"


@settings(max_examples=70, deadline=None)
@given(
    documents=DOCUMENTS,
    chunksize=st.integers(1, 13),
    block=st.integers(1, 200),
    blank=st.sampled_from([" ", "  ", "\t", " \t "]),
    end=st.sampled_from(["\n", "\r\n", " \n", "\t\r\n"]),
    last=st.booleans(),
)
def test_matrix_market_files_have_gensims_values(
    scratch: Path, documents: list[Document], chunksize: int, block: int, blank: str, end: str, last: bool
):
    content = matrix_market(documents, blank, end)
    scratch.write_bytes(content if last else content.rstrip(b"\r\n\t "))
    corpus = MmCorpus(str(scratch))
    with mock.patch.object(textfiles, "BLOCK", block):
        assert same(read(corpus, chunksize), corpus)


@settings(max_examples=70, deadline=None)
@given(
    documents=DOCUMENTS,
    place=st.integers(0, 50),
    line=st.one_of(
        st.binary(max_size=12),
        st.from_regex(
            rb"[+-]?[0-9]{0,20}[ \t\v]{0,2}[0-9]{0,3}[ \t]{0,2}[0-9.+e-]{0,9}[ x]?", fullmatch=True
        ),
    ),
    block=st.integers(1, 200),
)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b"", block=9)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b"1 2.5 3", block=9)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b"1 3 1_0", block=9)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b"\v1 +3 0x10", block=9)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b" +1 +3 +1e+1", block=9)
@example(documents=[[(1, 1)], [(2, 2)]], place=1, line=b"1 3 nan", block=9)
def test_a_line_of_anything_is_an_error_or_has_gensims_value(
    scratch: Path, documents: list[Document], place: int, line: bytes, block: int
):
    *header, sizes, rest = matrix_market(documents).split(b"\n", 3)
    lines = rest.split(b"\n")[:-1]
    lines.insert(place % (len(lines) + 1), line)
    sizes = b"%d %d %d" % (len(documents), TERMS, len(lines))
    scratch.write_bytes(b"\n".join([*header, sizes, *lines, b""]))
    corpus = MmCorpus(str(scratch))
    try:
        with mock.patch.object(textfiles, "BLOCK", block):
            ours = read(corpus)
    except ValueError as error:
        assert re.search(r"line \d+|entries (less|more)", str(error))  # noqa: PT017
        return
    assert same(ours, corpus)


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_as_they_are_printed(scratch: Path, numbers: list[float]):
    texts = [text for number in numbers for text in (repr(number), f"{number:.20g}", f"{number:.9e}")]
    texts += [str(np.float32(number)) for number in numbers if abs(number) < 1e38]
    scratch.write_bytes(matrix_market([[(0, text) for text in texts]]))  # type: ignore[misc]
    [document] = read(MmCorpus(str(scratch)))
    assert [value for _, value in document] == [float(text) for text in texts]


def test_numbers_halfway_between_two(scratch: Path):
    """Where the digits that are left out decide, or do not."""
    random = np.random.default_rng(5)
    numbers = np.exp(random.uniform(-40, 40, 500))
    texts = []
    for number, above in zip(numbers.tolist(), np.nextafter(numbers, np.inf).tolist(), strict=True):
        exact, shift = int(number * 2**120) + int(above * 2**120), 121
        decimals = f"{exact * 5**shift:0{shift + 1}d}"
        text = f"{decimals[:-shift]}.{decimals[-shift:]}"
        texts += [text, text[:30], text + "1", text[:22], text[:19]]
    scratch.write_bytes(matrix_market([[(0, text) for text in texts]]))  # type: ignore[misc]
    [document] = read(MmCorpus(str(scratch)))
    assert [value for _, value in document] == [float(text) for text in texts]


# ------------------------------------------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    ("sizes", "lines", "message"),
    [
        ("2 9 2", "1 1 1\n\n2 2 2", r"corpus.mm: line 4 cannot be read: unable to parse line b'\\n'"),
        ("2 9 2", "1 1 1\n% remark\n2 2 2", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 2 2\n\n", "line 5 cannot be read"),
        ("2 9 2", "1 1 1\n2 2", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 2 2 2", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 2 two", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 2.5 2", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 2 1_0", "line 4 cannot be read"),
        ("2 9 2", "1 1 1\n2 0 1", "line 4 has the term 0: terms are counted from 1"),
        ("2 9 2", "1 1 1\n2 99999999999 1", "line 4 has the term 99999999999"),
        ("2 9 2", "1 1 1\n2 99999999999999999999 1", "line 4 has the term 99999999999999999999"),
        ("2 3 2", "1 3 1\n2 4 1", "line 4 has the term 4: terms are counted from 1 to 3, as the header says"),
        ("2 3 2", "1 3 1\n2 +4 1", "line 4 has the term 4"),
        ("-2 3 2", "1 3 1\n2 1 1", "its header says -2"),
        ("2 9 2", "1 1 1\n3 1 1", "line 4 belongs to document 3, and the header tells of 2"),
        ("0 0 0", "1 1 1", "line 3 belongs to document 1, and the header tells of 0"),
        ("2 9 2", "1 1 1", "has 1 entries less than its header says"),
        ("2 9 2", "1 1 1\n1 2 1\n2 1 1", "has 1 entries more than its header says"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_the_line(
    file: Callable[..., Path], sizes: str, lines: str, message: str
):
    corpus = MmCorpus(str(file(HEADER + f"{sizes}\n{lines}\n".encode())))
    for chunksize in (1, 2, 100):
        with pytest.raises(ValueError, match=message):
            read(corpus, chunksize)


@pytest.mark.parametrize("lines", ["2 1 1\n1 1 1", "0 1 1\n1 1 1", "1 1 1\n-1 1 1"])
@pytest.mark.parametrize("kind", [ValueError, AssertionError])
def test_documents_out_of_order(file: Callable[..., Path], lines: str, kind: type[Exception]):
    corpus = MmCorpus(str(file(HEADER + f"2 9 2\n{lines}\n".encode())))
    with pytest.raises(
        kind, match=r"line \d belongs to document -?\d, after document \d: .* ascending order"
    ):
        read(corpus)


def test_a_file_that_has_changed(file: Callable[..., Path]):
    path = file(matrix_market([[(1, 1)], [(2, 2)]]))
    corpus = MmCorpus(str(path))
    path.write_bytes(matrix_market([[(1, 1)], [(2, 2)], [(3, 3)]]))
    with pytest.raises(ValueError, match=r"corpus\.mm: has changed since it was opened"):
        read(corpus)


@pytest.mark.parametrize(("end", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_truncated_archive(file: Callable[..., Path], end: str, pack: Callable[[bytes], bytes]):
    documents: list[Document] = [[(term, float(term * d)) for term in range(90)] for d in range(1, 40)]
    packed = pack(matrix_market(documents))
    path = file(packed, f"corpus.mm{end}")
    corpus = MmCorpus(str(path))
    for content in (
        packed[: len(packed) // 2],
        packed[: len(packed) // 2] + b"\xff" * 8 + packed[len(packed) // 2 + 8 :],
        packed[:-6] + bytes([packed[-6] ^ 255]) + packed[-5:],  # the checksum
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(path.name)):
            read(corpus)


def test_terms_beyond_the_header_of_uci(tmp_path: Path):
    corpus = saved(UciCorpus, tmp_path / "corpus.uci")
    path = tmp_path / "corpus.uci"
    path.write_bytes(path.read_bytes().replace(b"6 9 1\n", b"6 11 1\n"))
    with pytest.raises(ValueError, match=r"corpus\.uci: line \d+ has the term 11"):
        read(corpus)


def test_a_line_without_end(file: Callable[..., Path]):
    corpus = MmCorpus(str(file(matrix_market([[(1, 1)]]) + b" " * 5000)))
    with (
        mock.patch.object(textfiles, "BLOCK", 16),
        mock.patch.object(textfiles, "LONGEST_LINE", 1000),
        pytest.raises(ValueError, match="line 5 has more than 1024 bytes"),
    ):
        read(corpus)


# ----------------------------------------------------------------------------------- containers and slices


CORPUS: list[Document] = [
    [], [(3, 1.0), (5, 2.0)], [(0, 1.0)], [], [], [(7, 3.0), (8, 1.0)], [(1, 2.0)], [(4, 1.0)], [],
]  # fmt: skip
KINDS = (MmCorpus, UciCorpus, BleiCorpus, SvmLightCorpus)


def saved(kind: Any, path: Path, documents: list[Document] = CORPUS, **options: Any) -> Any:
    """A corpus with an index."""
    words = {term: f"word{term}" for term in range(10)}
    kind.serialize(str(path), documents, id2word=words, **options)
    return kind(str(path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [CORPUS, CORPUS[1:-1], [[]], [[], []]])
def test_corpora_of_all_kinds(tmp_path: Path, kind: Any, documents: list[Document]):
    corpus = saved(kind, tmp_path / "corpus", documents)
    for chunksize in (1, 2, 4, 100):
        assert same(read(corpus, chunksize), documents)
    assert reading.length(corpus) == len(documents)
    corpus.index = None
    assert reading.length(corpus) == len(documents) == len(corpus)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [CORPUS, CORPUS[1:-1]])
@pytest.mark.parametrize(
    "slice_",
    [
        slice(None), slice(2, 6), slice(3, None), slice(-3, None), slice(None, None, 2),
        slice(None, None, -1), slice(4, 4), slice(3, 5), [2, 3, 4, 1, 1], [], np.array([5, 6, 0]),
    ],
)  # fmt: skip
def test_slices(tmp_path: Path, kind: Any, documents: list[Document], slice_: Any):
    corpus = saved(kind, tmp_path / "corpus", documents)
    if isinstance(slice_, list) and not slice_:
        slice_ = np.array([], int)
    part = corpus[slice_]
    assert type(part) is SlicedCorpus
    assert same(read(part), part)
    mask = np.arange(len(documents)) % 3 == 1
    assert same(read(corpus[mask], 100), [d for d, kept in zip(documents, mask, strict=True) if kept])


@pytest.mark.parametrize(("end", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files(tmp_path: Path, end: str, pack: Callable[[bytes], bytes]):
    plain = saved(MmCorpus, tmp_path / "corpus.mm")
    packed = tmp_path / f"corpus.mm{end}"
    packed.write_bytes(pack((tmp_path / "corpus.mm").read_bytes()))
    corpus = MmCorpus(str(packed))
    corpus.index = plain.index
    assert same(read(corpus), plain)
    assert same(read(corpus[2:7]), CORPUS[2:7])


def test_file_objects(tmp_path: Path):
    saved(MmCorpus, tmp_path / "corpus.mm")
    content = (tmp_path / "corpus.mm").read_bytes()
    stream = io.BytesIO(content)
    corpus = MmCorpus(stream)
    for _ in range(2):  # and it stays open
        assert same(read(corpus), CORPUS)
    with gzip.open(io.BytesIO(gzip.compress(content))) as packed:
        assert same(read(MmCorpus(packed)), CORPUS)


def test_an_index_of_another_file(tmp_path: Path):
    corpus = saved(MmCorpus, tmp_path / "corpus.mm")
    corpus.index = saved(MmCorpus, tmp_path / "other.mm", [*CORPUS[:2], [(1, 1)], *CORPUS[2:-1]]).index
    with pytest.raises(ValueError, match=r"line \d|its index is not of this file"):
        read(corpus[1:])
    corpus.index = corpus.index[::-1]  # which gensim would follow, and we leave to it
    assert text_file(corpus[2:]) is None


def test_an_error_in_a_slice_names_the_line(tmp_path: Path):
    path = tmp_path / "corpus.mm"
    corpus = saved(MmCorpus, path)
    path.write_bytes(path.read_bytes().replace(b"\n7 2 2.0\n", b"\n7 2 xxx\n"))
    with pytest.raises(ValueError, match="line 8 cannot be read"):
        read(corpus[6:])


# ------------------------------------------------------------------------------------ the other formats


LABELS = st.text(st.characters(codec="utf-8", exclude_characters="#:"), max_size=4)
LINES = st.lists(
    st.tuples(
        LABELS,
        st.lists(st.tuples(st.integers(-2, 20), VALUES), max_size=5),
        st.sampled_from(["", " # x", "#"]),
    ),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(lines=LINES, block=st.integers(1, 200), last=st.booleans())
@example(lines=[("1", [(3, 45)], "")], block=100, last=False)
def test_labelled_lines(scratch: Path, lines: list[tuple[str, Document, str]], block: int, last: bool):
    text = "\n".join(
        " ".join([label, *(f"{term}:{value}" for term, value in document)]) + remark
        for label, document, remark in lines
    )
    scratch.write_bytes(text.encode() + b"\n" * last)
    compare(SvmLightCorpus(str(scratch)), block)


@settings(max_examples=40, deadline=None)
@given(lines=LINES, block=st.integers(1, 200), wrong=st.sampled_from([0, 0, 0, 1]), last=st.booleans())
def test_lines_with_the_number_of_entries(
    scratch: Path, lines: list[tuple[str, Document, str]], block: int, wrong: int, last: bool
):
    text = "\n".join(
        " ".join([str(len(document) + wrong), *(f"{term}:{value}" for term, value in document)])
        for _, document, _ in lines
    )
    scratch.write_bytes(text.encode() + b"\n" * last)
    scratch.with_suffix(".vocab").write_text("a\nb\n")
    compare(BleiCorpus(str(scratch), str(scratch.with_suffix(".vocab"))), block)


def compare(corpus: Any, block: int) -> None:
    try:
        theirs = list(corpus)
    except (ValueError, IndexError):
        with pytest.raises(ValueError, match=r"line \d+"):
            list(text_file(corpus).chunks(3))  # type: ignore[union-attr]
        return
    labels = getattr(corpus, "labels", None)
    with mock.patch.object(textfiles, "BLOCK", block):
        assert same(list(read_all(corpus)), theirs)
    assert getattr(corpus, "labels", None) == labels


def read_all(corpus: Any) -> Iterator[Document]:
    for chunk in text_file(corpus).chunks(3):  # type: ignore[union-attr]
        for start, stop in zip(chunk.indptr[:-1], chunk.indptr[1:], strict=True):
            yield list(zip(chunk.indices[start:stop].tolist(), chunk.data[start:stop].tolist(), strict=True))


# --------------------------------------------------------------------------------- who is not passed over


class Doubled(MmCorpus):
    def __iter__(self) -> Iterator[Document]:
        for document in super().__iter__():
            yield [(term, 2 * value) for term, value in document]


class Between(MmReader):
    def __iter__(self) -> Iterator[tuple[int, Document]]:
        for number, document in super().__iter__():
            yield number, document[:1]


class Inherits(MmCorpus, Between):
    pass


class SkipsMore(MmCorpus):
    def skip_headers(self, lines: Any) -> None:
        super().skip_headers(lines)
        next(lines)


class Other(SvmLightCorpus):
    def line2doc(self, line: bytes) -> Any:
        return [(0, 1.0)], "1"


class Elsewhere(MmCorpus):
    def docbyoffset(self, offset: int) -> Document:
        return [(0, float(offset))]


@pytest.mark.parametrize("kind", [Doubled, Inherits, SkipsMore, Elsewhere])
def test_a_subclass_that_reads_by_itself_does(tmp_path: Path, kind: type[MmCorpus]):
    saved(MmCorpus, tmp_path / "corpus.mm")
    corpus = kind(str(tmp_path / "corpus.mm"))
    assert text_file(corpus) is None
    assert text_file(corpus[1:3]) is None
    wanted = [sorted(document) for document in corpus]
    [chunk] = reading.chunks(corpus, 100, 10, counts=False)
    rows = [chunk.slice(d, d + 1) for d in range(chunk.n_docs)]
    assert [list(zip(row.indices, row.data, strict=True)) for row in rows] == wanted


def test_others_that_are_not_passed_over(tmp_path: Path):
    corpus = saved(SvmLightCorpus, tmp_path / "corpus")
    assert text_file(Other(corpus.fname)) is None
    plain = saved(MmCorpus, tmp_path / "corpus.mm")
    with mock.patch.object(MmCorpus, "__iter__"):
        assert text_file(plain) is None
    plain.docbyoffset = lambda offset: []
    assert text_file(plain[:2]) is None
    transposed = MmCorpus(plain.input)
    transposed.transposed = False
    assert text_file(transposed) is None
    assert text_file(SlicedCorpus(CORPUS, slice(2))) is None
    (tmp_path / "mallet").write_text("a en x y\n")
    assert text_file(MalletCorpus(str(tmp_path / "mallet"))) is None
    for other in (CORPUS, np.zeros((2, 2)), iter(CORPUS), None, object()):
        assert text_file(other) is None


class Named(MmCorpus):
    """A subclass that reads as its parent does."""

    def __len__(self) -> int:
        return super().__len__()


def test_a_subclass_that_only_adds_something(tmp_path: Path):
    saved(MmCorpus, tmp_path / "corpus.mm")
    assert same(read(Named(str(tmp_path / "corpus.mm"))), CORPUS)


# ----------------------------------------------------------------------------------------------- models


def test_a_model_reads_the_file_and_not_the_corpus(tmp_path: Path, lee_corpus: Any):
    dictionary, documents = lee_corpus.dictionary, lee_corpus.counts
    corpus = saved_lee(tmp_path, documents)
    options: dict[str, Any] = {"num_topics": 5, "id2word": dictionary, "random_state": 1, "chunksize": 64}
    wanted = LdaModel(documents, **options)
    with mock.patch("gensim.utils.dict_from_corpus", side_effect=AssertionError("read it")):
        model = LdaModel(corpus, **options)
        assert reading.vocabulary(None, corpus)[1] == len(dictionary)
    assert (model.get_topics() == wanted.get_topics()).all()
    assert (model.inference(corpus[10:20])[0] == wanted.inference(documents[10:20])[0]).all()
    assert model.bound(corpus) == wanted.bound(documents)


def saved_lee(tmp_path: Path, documents: list[Any]) -> MmCorpus:
    MmCorpus.serialize(str(tmp_path / "lee.mm"), documents)
    return MmCorpus(str(tmp_path / "lee.mm"))


def test_other_threads_run_while_a_parser_does():
    from distcorpus.algorithms import _text_kernels as kernels

    for kernel in (kernels.read_entries, kernels.read_documents):
        assert kernel.targetoptions["nogil"]


def test_a_corpus_on_disk_is_written_from_the_file(tmp_path: Path):
    corpus = saved(MmCorpus, tmp_path / "corpus.mm")
    with mock.patch("distcorpus.corpora.corpus.islice", side_effect=AssertionError("read it")):
        assert same(list(Corpus.write(tmp_path / "corpus", corpus)), CORPUS)

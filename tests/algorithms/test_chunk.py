"""Chunks: every form that gensim's corpora take, validation, splitting."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple

import gensim
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.algorithms import chunk as chunk_module
from distcorpus.algorithms.chunk import Chunk, as_chunk, from_arrays, largest_id
from distcorpus.algorithms.sparse import matrix_of, sound

NUM_TERMS = 12

documents_of_counts = st.lists(
    st.lists(st.tuples(st.integers(0, NUM_TERMS - 1), st.integers(-3, 9)), max_size=8), max_size=7
)


def dense(documents: list[list[tuple[int, float]]]) -> np.ndarray:
    """The documents x terms matrix, by definition."""
    matrix = np.zeros((len(documents), NUM_TERMS))
    for row, document in enumerate(documents):
        for term, value in document:
            matrix[row, term] += value
    return matrix


def to_dense(chunk: Chunk) -> np.ndarray:
    return scipy.sparse.csr_array(
        (chunk.data, chunk.indices, chunk.indptr), shape=(chunk.n_docs, chunk.num_terms)
    ).toarray()


def assert_well_formed(chunk: Chunk) -> None:
    assert (chunk.indptr.dtype, chunk.indices.dtype) == (np.int64, np.int32)
    assert chunk.indptr[0] == 0
    assert chunk.indptr[-1] == chunk.nnz == len(chunk.data)
    assert (chunk.data != 0).all()
    for document in range(chunk.n_docs):
        ids = chunk.indices[chunk.indptr[document] : chunk.indptr[document + 1]]
        assert (np.diff(ids) > 0).all()


@given(documents_of_counts)
def test_every_form_gives_the_same_chunk(documents):
    expected = dense(documents)
    matrix = scipy.sparse.csc_matrix(expected.T)
    forms = [
        documents,
        tuple(documents),
        iter(documents),
        [np.asarray(document, dtype=np.float32) for document in documents],
        [np.array(document, dtype=np.int64).reshape(-1, 2) for document in documents],
        [np.array(document) if i % 2 else document for i, document in enumerate(documents)],
        matrix,
        matrix.tocsr(),
        matrix.tocoo(),
        scipy.sparse.csc_array(matrix),
        gensim.matutils.Sparse2Corpus(matrix),
        as_chunk(documents, NUM_TERMS),
    ]
    for form in forms:
        chunk = as_chunk(form, NUM_TERMS)
        assert_well_formed(chunk)
        np.testing.assert_array_equal(to_dense(chunk), expected)
        assert chunk.data.dtype == np.float32


@given(documents_of_counts, st.one_of(st.none(), st.integers(1, 4)), st.one_of(st.none(), st.integers(1, 9)))
def test_split_covers_the_chunk_in_order(documents, max_docs, max_nnz):
    chunk = as_chunk(documents, NUM_TERMS)
    blocks = chunk.split(max_docs, max_nnz)
    assert sum(block.n_docs for block in blocks) == chunk.n_docs
    if blocks:
        np.testing.assert_array_equal(np.concatenate([to_dense(block) for block in blocks]), to_dense(chunk))
    longest = int(np.diff(chunk.indptr).max(initial=0))
    for block in blocks:
        assert_well_formed(block)
        assert block.n_docs > 0
        if max_nnz is not None:
            assert block.nnz < max_nnz + longest + 1
        elif max_docs is not None:
            assert block.n_docs <= max_docs


def test_split_is_even():
    chunk = as_chunk([[(i % NUM_TERMS, 1)] for i in range(101)], NUM_TERMS)
    assert [block.n_docs for block in chunk.split(max_docs=30)] == [25, 25, 25, 26]
    assert [block.nnz for block in chunk.split(max_nnz=30)] == [25, 25, 25, 26]
    assert len(chunk.split()) == 1
    with pytest.raises(ValueError, match="max_nnz=0"):
        chunk.split(max_nnz=0)


def test_slices_share_memory():
    chunk = as_chunk([[(0, 1), (3, 2)], [], [(1, 5)]], NUM_TERMS)
    part = chunk.slice(1, 3)
    assert (part.n_docs, part.nnz) == (2, 1)
    assert np.shares_memory(part.data, chunk.data)
    assert chunk.slice(2, 1).n_docs == 0


def test_words_and_norm():
    chunk = as_chunk([[(7, 3), (0, 1)], [], [(7, 0.1)]], NUM_TERMS)
    np.testing.assert_array_equal(chunk.words(), [0, 7])
    assert chunk.words().dtype == np.int32
    assert chunk.squared_norm() == 10 + 0.1**2
    assert as_chunk([], NUM_TERMS).squared_norm() == 0
    assert as_chunk([[(0, 1e154), (1, 1e154)], [(2, 1e200)]], NUM_TERMS).squared_norm() == np.inf
    assert as_chunk([[(0, 1e154), (1, 1e154)]], NUM_TERMS).squared_norm() == np.inf
    assert as_chunk([], NUM_TERMS).words().size == 0


def test_values_keep_every_bit():
    assert as_chunk([[(0, 2**24)]], NUM_TERMS).data.dtype == np.float32
    exact = as_chunk([[(0, 2**24 + 1), (1, 1e300)]], NUM_TERMS)
    assert exact.data.tolist() == [2**24 + 1, 1e300]
    summed = as_chunk([np.array([[0, 2**24], [0, 1]], dtype=np.float32)], NUM_TERMS)
    assert summed.data.tolist() == [2**24 + 1]


def test_large_term_ids_are_exact():
    big = 2**24 + 1
    assert as_chunk([[(big, 1)]], big + 1).indices.tolist() == [big]
    assert as_chunk([np.array([[big, 1]], dtype=np.float64)], big + 1).indices.tolist() == [big]
    with pytest.raises(ValueError, match=r"float32, which is exact only up to 16777216"):
        as_chunk([np.array([[big, 1]], dtype=np.float32)], big + 1)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([[(0, 1)], [(12, 1)]], "document 1: term id 12 is outside the vocabulary of 12 terms"),
        ([[(-1, 1)]], "document 0: term id -1 is outside"),
        ([[], [(0.5, 1)]], "document 1: term id 0.5 is not a whole number"),
        ([[(float("nan"), 1)]], "document 0: term id nan is outside"),
        ([[(None, 1)]], "document 0: term id nan is outside"),
        ([[(0, 1)], [(1, 1), (2, float("inf"))]], "document 1: term id 2 has a value that is not finite"),
        ([[(3, float("nan"))]], "document 0: term id 3 has a value that is not finite"),
        ([[(1, 1e308), (1, 1e308)]], "repeated term id add up to infinity"),
    ],
)
def test_bad_entries_are_named(documents, message):
    with pytest.raises(ValueError, match=message):
        as_chunk(documents, NUM_TERMS)


def test_negative_values_are_refused_as_counts_only():
    documents = [[(0, 1)], [(4, -2)]]
    assert as_chunk(documents, NUM_TERMS).data.tolist() == [1, -2]
    with pytest.raises(ValueError, match="document 1: term id 4 has a negative value"):
        as_chunk(documents, NUM_TERMS, counts=True)


@pytest.mark.parametrize(
    "documents",
    [
        [[1, 2]],
        [[(0, 1)], [(0, 1, 2)]],
        [[(0, 1)], ["ab"]],
        [None],
        [[(0, 10**400)]],
        [np.zeros(3)],
        [np.zeros((2, 3))],
        # Text of two characters, or of digits, and what else numpy makes numbers of.
        [[(0, 1)], ["12", "30"]],
        [[("1", "2")]],
        [[(0, "1")]],
        [[(np.str_("1"), 2)]],
        [[(b"1", 2)]],
        [[b"12"]],
        [[(np.array("1"), 2)]],
        [np.array([["1", "2"]])],
        [[(np.timedelta64(1), 2)]],
        [[(0, np.ma.masked)]],
        # Of two items, which are no pair.
        [[{0, 1}]],
        [[{0: 1, 2: 3}]],
    ],
)
def test_what_is_no_bag_of_words_is_named(documents):
    number = len(documents) - 1
    with pytest.raises(TypeError, match=f"^the corpus: document {number} is not a bag of words"):
        as_chunk(documents, NUM_TERMS, what="the corpus")


@pytest.mark.parametrize("documents", [5, "text", b"bytes"])
def test_what_is_no_corpus_is_refused(documents):
    with pytest.raises(TypeError, match="cannot read documents from"):
        as_chunk(documents, NUM_TERMS)


def test_words_are_told_what_makes_bags_of_them():
    with pytest.raises(TypeError, match=r"of words gensim's Dictionary\.doc2bow makes these"):
        as_chunk([["12", "30"]], NUM_TERMS)


def test_documents_that_can_be_read_once_are_refused():
    with pytest.raises(TypeError, match=r"^chunk: document 1 is a generator, which can be read only once"):
        as_chunk([[(0, 1)], (pair for pair in [(0, 1)])], NUM_TERMS)


def test_masked_documents():
    pairs = [("id", np.int64), ("count", np.float64)]
    for whole in (np.ma.array([[1, 2], [3, 4]]), np.ma.array([(1, 2), (3, 4)], dtype=pairs)):
        assert as_chunk([whole], NUM_TERMS).data.tolist() == [2, 4]
        partly = whole.copy()
        partly[1] = np.ma.masked
        with pytest.raises(TypeError, match=r"document 1 is an array .* with 2 masked values; leave"):
            as_chunk([[(0, 1)], partly], NUM_TERMS)


def test_the_largest_id():
    assert largest_id([[(3, 1), (7, 0)], []]) == 7  # gensim counts zeros
    assert largest_id([np.array([[3, 1]], np.float32), np.empty((0, 2))]) == 3
    assert largest_id([[(3e9, 1)]]) == 3_000_000_000
    assert largest_id([]) == largest_id([[]]) == -1
    for number in (-1, 0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"^c: document 1: term id {number} is not a whole number from"):
            largest_id([[(0, 1)], [(number, 1)]], "c")
    with pytest.raises(TypeError, match="document 0 is not a bag of words but"):
        largest_id([(0, 1)])


def damaged(kind: type, attribute: str, position: int, value: int) -> object:
    matrix = kind(np.eye(4))
    getattr(matrix, attribute)[position] = value
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        damaged(scipy.sparse.csc_matrix, "indices", 0, -7),
        damaged(scipy.sparse.csc_matrix, "indices", 0, 99),
        damaged(scipy.sparse.csr_matrix, "indptr", 1, 99),
        damaged(scipy.sparse.csc_array, "indptr", -1, 1_000_000),
        damaged(scipy.sparse.coo_matrix, "row", 0, -99),
        scipy.sparse.csc_matrix(np.eye(3) * 1j),
    ],
)
def test_unsound_sparse_matrices_are_refused(matrix):
    with pytest.raises(ValueError, match="not a sound terms x documents matrix"):
        as_chunk(matrix, NUM_TERMS)


#: What a program may have done to a matrix, by its format, and what it is told.
DAMAGES = {
    ("csr", "indices", 0, 10**8): r"indices\[0\] is 100000000, outside its 6 columns",
    ("csr", "indices", 1, -1): r"indices\[1\] is -1, outside",
    ("csr", "indptr", 1, 10**8): r"indptr\[1\] is 100000000, indptr\[2\]",
    ("csr", "indptr", -1, 10**8): r"indptr\[4\] is 100000000, and it has 5 indices",
    ("csr", "indptr", 0, -5): r"indptr\[0\] is -5, not 0",
    ("csc", "indices", 0, 4): r"indices\[0\] is 4, outside its 4 rows",
    ("csc", "indptr", 2, -(10**8)): r"indptr\[1\] is 1, indptr\[2\] -100000000",
    ("bsr", "indices", 0, 3): r"indices\[0\] is 3, outside its 3 blocks",
    ("bsr", "indptr", -1, 10**8): r"indptr\[2\] is 100000000",
    ("coo", "row", 0, 10**8): r"row\[0\] is 100000000, outside its 4 rows",
    ("coo", "col", 0, -1): r"col\[0\] is -1, outside its 6 columns",
    ("dia", "offsets", 0, 10**8): r"offsets\[0\] is 100000000, outside its shape \(4, 6\)",
    ("dia", "offsets", 0, 1): "its offsets have a diagonal twice",
    ("lil", "rows", 1, (10**8,)): r"indices\[2\] is 100000000, outside its 6 columns",
    ("lil", "rows", 0, (1, 2, 3)): "its rows and data are no lists of equal lengths",
}


def of_format(name: str) -> scipy.sparse.csr_matrix:
    matrix = scipy.sparse.coo_matrix(([1.0, 2, 3, 4, 5], ([0, 0, 1, 2, 3], [0, 1, 2, 4, 5])), shape=(4, 6))
    return (matrix.tobsr((2, 2)) if name == "bsr" else matrix.asformat(name)).copy()


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_no_method_of_scipys_sees_a_malformed_matrix(damage):
    name, attribute, place, value = damage
    matrix = of_format(name)
    getattr(matrix, attribute)[place] = list(value) if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=f"^c: not a sound terms x documents matrix .*{DAMAGES[damage]}"):
        sound(matrix, "c")


@pytest.mark.parametrize(
    ("name", "attribute"),
    [(name, part) for name in ("csr", "csc", "bsr") for part in ("indptr", "indices", "data")]
    + [("coo", "row"), ("coo", "data"), ("dia", "offsets"), ("lil", "rows"), ("lil", "data")],
)
def test_parts_of_a_matrix_of_different_lengths(name, attribute):
    matrix = of_format(name)
    setattr(matrix, attribute, getattr(matrix, attribute)[:-1])
    with pytest.raises(ValueError, match=r"^c: not a sound .*(it has \d numbers in|equal lengths)"):
        sound(matrix, "c")


def test_keys_of_a_matrix():
    for key in ((10**8, 0), (0, -3), 5, (1, 2, 3), (10**20, 1)):
        matrix = of_format("dok")
        matrix._dict[key] = 1.0
        with pytest.raises(ValueError, match=r"^c: not a sound terms x documents matrix"):
            sound(matrix, "c")


def test_every_format_of_scipys():
    expected = of_format("csr").toarray().T
    for name in ("csc", "csr", "bsr", "coo", "dia", "lil", "dok"):
        np.testing.assert_array_equal(to_dense(as_chunk(of_format(name), NUM_TERMS))[:, :4], expected)


def test_what_is_allowed_in_a_matrix_is_left_as_it_is():
    for kind in (np.int8, np.uint32, np.uint64):
        matrix = of_format("csr")
        matrix.indices, matrix.data = matrix.indices.astype(kind), matrix.data.astype(np.float16)
        assert sound(matrix, "c") is matrix
        assert matrix.indices.dtype == kind
        assert as_chunk(matrix, NUM_TERMS).data.tolist() == [1, 2, 3, 4, 5]
    room = of_format("csr")  # more of it than there are entries
    room.indices, room.data = np.append(room.indices, 99), np.append(room.data, 9.0)
    assert as_chunk(room, NUM_TERMS).data.tolist() == [1, 2, 3, 4, 5]


class Presence(gensim.matutils.Sparse2Corpus):
    """Documents with a one for each word."""

    def __iter__(self):
        for document in super().__iter__():
            yield [(word, 1.0) for word, _ in document]


class OfMyOwn:
    """A corpus whose matrix is documents x terms."""

    def __init__(self, sparse):
        self.sparse = sparse

    def __iter__(self):
        for row in self.sparse.toarray():
            yield [(int(word), row[word]) for word in np.flatnonzero(row)]


class Named(gensim.matutils.Sparse2Corpus):
    """One that has a name."""


def test_only_gensims_corpus_is_its_matrix():
    matrix = scipy.sparse.csc_matrix(np.array([[5, 0], [7, 1], [0, 2]]))
    assert to_dense(as_chunk(Presence(matrix), NUM_TERMS))[:, :3].tolist() == [[1, 1, 0], [0, 1, 1]]
    assert to_dense(as_chunk(OfMyOwn(matrix.T), NUM_TERMS))[:, :3].tolist() == [[5, 7, 0], [0, 1, 2]]
    assert matrix_of(Presence(matrix)) is matrix_of(OfMyOwn(matrix)) is None
    assert matrix_of(Named(matrix)) is not None


def test_a_matrix_with_more_rows_than_terms():
    assert as_chunk(scipy.sparse.csc_array((20, 3)), NUM_TERMS).n_docs == 3
    with pytest.raises(ValueError, match="term id 15 is outside"):
        as_chunk(scipy.sparse.coo_array(([1.0], ([15], [2])), shape=(20, 3)), NUM_TERMS)


def test_arrays_that_arrive_make_a_chunk():
    indptr, indices, data = np.array([0, 2, 2, 3], np.int32), np.array([0, 4, 1]), np.ones(3, np.float16)
    chunk = from_arrays(indptr, indices, data, 5)
    assert (chunk.indptr.dtype, chunk.indices.dtype, chunk.data.dtype) == (np.int64, np.int32, np.float64)
    assert (chunk.n_docs, chunk.nnz) == (3, 3)
    exact = chunk.indptr, chunk.indices, chunk.data
    again = from_arrays(*exact, 5)
    assert all(
        np.shares_memory(ours, theirs)
        for ours, theirs in zip((again.indptr, again.indices, again.data), exact, strict=True)
    )


@pytest.mark.parametrize(
    ("indptr", "indices", "data"),
    [
        ([], [], []),
        ([1, 3], [0, 1, 2], [1.0] * 3),
        ([0, 2], [0, 1, 2], [1.0] * 3),
        ([0, 4], [0, 1, 2], [1.0] * 3),
        ([0, 3, 2, 3], [0, 1, 2], [1.0] * 3),
        ([0, 2**63 - 1, -2, 3], [0, 1, 2], [1.0] * 3),  # whose differences overflow
        ([0, 3], [0, 1, 2], [1.0] * 2),
        ([0, 3], [0, 1, 5], [1.0] * 3),
        ([0, 3], [0, -1, 2], [1.0] * 3),
        ([0, 3], [0, 2**32, 2], [1.0] * 3),
    ],
    ids=str,
)
def test_arrays_that_compiled_code_would_run_away_with_are_refused(indptr, indices, data):
    arrays = np.array(indptr, np.int64), np.array(indices, np.int64), np.array(data)
    with pytest.raises(ValueError, match=r"^block 7: "):
        from_arrays(*arrays, 5, "block 7")


@pytest.mark.parametrize(
    "wrong", [[0, 1], np.array([[0, 1]]), np.array([0.0, 1.0]), np.array(["a", "b"]), None]
)
def test_what_are_no_arrays_of_a_chunk(wrong):
    arrays = [np.array([0, 2]), np.array([0, 1]), np.ones(2)]
    for place in range(2):
        with pytest.raises(TypeError, match="not the arrays of a chunk"):
            from_arrays(*arrays[:place], wrong, *arrays[place + 1 :], 5)


class Odd(int):
    """An int that numpy does not read as C would."""

    def __float__(self) -> float:
        return 7.0


Pair = namedtuple("Pair", "id count")

good_values = st.one_of(st.integers(1, 9), st.floats(0.5, 9), st.floats(0.5, 9).map(np.float64))
good_pairs = st.tuples(st.integers(0, NUM_TERMS - 1), good_values)
#: What the compiled reader must leave alone, or read as numpy does.
odd_pairs = st.one_of(
    st.tuples(st.integers(-2, NUM_TERMS), st.floats()),
    st.tuples(
        st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=1)), st.just(1)
    ),
    st.tuples(
        st.just(1), st.one_of(st.integers(), st.booleans(), st.none(), st.builds(np.float32, st.just(2)))
    ),
    st.builds(lambda: (np.int64(1), 1)),
    st.builds(lambda: (Odd(1), Odd(2))),
    st.builds(lambda: Pair(1, 2)),
    st.lists(st.integers(0, 3), max_size=3),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.just("ab"),
)


def outcome(documents: object, num_terms: int) -> tuple[object, ...]:
    try:
        chunk = as_chunk(documents, num_terms)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    arrays = chunk.indptr, chunk.indices, chunk.data
    return tuple((array.dtype, array.tobytes()) for array in arrays)


@settings(deadline=None)  # the first one compiles it
@given(st.data())
def test_the_compiled_reader_reads_as_numpy_does(data):
    pairs = good_pairs if data.draw(st.booleans()) else st.one_of(good_pairs, odd_pairs)
    documents = data.draw(
        st.lists(st.one_of(st.lists(pairs, max_size=5), st.lists(pairs, max_size=5).map(tuple)), max_size=5)
    )
    chunk_module.warm()
    compiled = outcome(documents, NUM_TERMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, "_reader", chunk_module._Reader())
        assert compiled == outcome(documents, NUM_TERMS)


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**53 + 1, 2**63, -(2**63) - 1, 2**70, 0.1, 0.0, -0.0])
def test_the_compiled_reader_at_the_edges(value):
    chunk_module.warm()
    assert (
        as_chunk([[(0, 1), (3, value)], ()], NUM_TERMS).data.tolist()
        == [1.0, float(value)][: 1 + bool(value)]
    )
    with pytest.raises((TypeError, ValueError), match="document 0"):
        as_chunk([[(2**31 + abs(int(value)), 1)]], NUM_TERMS)


def test_the_compiled_reader_reads_what_corpora_are_made_of():
    pytest.importorskip("numba")
    chunk_module.warm()
    for documents in ([], [[]], [[(1, 2), [3, 0.5]], ((0, np.float64(2)),)], ([(1000, 1000)],)):
        assert chunk_module._reader.read(documents) is not None
    for documents in (np.zeros(2), [np.zeros((1, 2))], [{1: 2}], [[(1, True)]], [[(1.0, 1)]], [[Pair(1, 2)]]):
        assert chunk_module._reader.read(documents) is None


def test_the_compiled_reader_keeps_no_references():
    chunk_module.warm()
    number, value = 10**6, 12345.5
    pair = (number, value)
    documents = [[pair] * 50, [pair, (number, None)]]
    before = [sys.getrefcount(thing) for thing in (number, value, pair, documents, documents[0])]
    for _ in range(100):
        chunk_module._reader.read(documents)
        chunk_module._reader.read(documents[:1])
    assert [sys.getrefcount(thing) for thing in (number, value, pair, documents, documents[0])] == before


def test_a_small_corpus_does_not_wait_for_numba():
    program = """
import sys
from distcorpus.algorithms.chunk import WORTH_LOADING, as_chunk
assert as_chunk([[(0, 1)]] * 10, 1).nnz == 10
assert "numba" not in sys.modules
as_chunk([[]] * WORTH_LOADING, 1)
assert as_chunk([[(0, 1)]] * 10, 1).nnz == 10
assert "numba" in sys.modules
"""
    pytest.importorskip("numba")
    subprocess.run([sys.executable, "-c", program], check=True)

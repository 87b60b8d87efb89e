"""What gensim's models send and get back arrives whole; what would crash compiled code does not arrive."""

from __future__ import annotations

import pickle
import zlib
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import Pyro4.errors
import pytest
import scipy.sparse
from gensim.corpora import Dictionary, HashDictionary, UciCorpus
from gensim.models.ldamodel import LdaState
from gensim.models.lsimodel import Projection
from gensim.test.utils import datapath
from gensim.utils import FakeDict
from Pyro4.core import URI
from Pyro4.errors import SecurityError

from distcorpus.wire import unpickle
from distcorpus.wire.allowed import resolve
from distcorpus.wire.calls import pickled
from distcorpus.wire.unpickle import OutsideVocabulary

FORMATS = ("csc_matrix", "csc_array", "csr_matrix", "csr_array")


def load(data: Any) -> Any:
    return unpickle.load(data, resolve)


def through(value: Any, protocol: int = 5) -> Any:
    # As in a program in which nothing else registers ways to pickle, as Dask does.
    read = load(pickled(value, protocol))
    assert type(read) is type(value)
    return read


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
class TestWhatGensimSends:
    def test_dictionary(self, protocol: int):
        sent = Dictionary([["human", "interface"], ["computer", "human"]])
        assert vars(through(sent, protocol)) == vars(sent)

    def test_dictionary_that_was_saved(self, protocol: int, tmp_path: Path):
        Dictionary([["human", "interface"]]).save(str(tmp_path / "dictionary"))
        sent = Dictionary.load(str(tmp_path / "dictionary"))
        assert through(sent, protocol).token2id == sent.token2id

    def test_hash_dictionary(self, protocol: int):
        sent = HashDictionary([["human", "interface"]])
        assert through(sent, protocol).doc2bow(["human"]) == sent.doc2bow(["human"])

    def test_fake_dict(self, protocol: int):
        assert len(through(FakeDict(17), protocol)) == 17

    @pytest.mark.parametrize("name", FORMATS)
    def test_sparse_chunk(self, protocol: int, name: str):
        sent = getattr(scipy.sparse, name)(np.array([[0, 1.5], [2, 0], [0, 3]]))
        sent.sum_duplicates()
        read = through(sent, protocol)
        np.testing.assert_array_equal(read.toarray(), sent.toarray())
        assert read.dtype == sent.dtype

    def test_lda_state(self, protocol: int):
        sent = LdaState(np.full(4, 0.25), (3, 4), dtype=np.float32)
        read = through(sent, protocol)
        np.testing.assert_array_equal(read.sstats, sent.sstats)
        assert read.dtype is np.float32

    def test_projection(self, protocol: int):
        sent = Projection(5, 2, None)
        sent.u, sent.s = np.asfortranarray(np.eye(5, 2)), np.array([2.0, 1.0])
        np.testing.assert_array_equal(through(sent, protocol).u, sent.u)

    def test_options(self, protocol: int):
        sent = {
            "id2word": {0: "a", np.int64(1): "b"},
            "num_topics": 3,
            "alpha": "symmetric",
            "eta": None,
            "decay": np.float64(0.5),
            "dtype": np.float32,
        }
        assert through(sent, protocol) == sent

    @pytest.mark.parametrize(
        "sent",
        [
            OrderedDict([(1, "b"), (0, "a")]),
            defaultdict(int, {0: 1}),
            defaultdict(set, {0: {"a"}}),
            defaultdict(None, {0: "a"}),
            Counter({0: 2, 5: 1}),
        ],
        ids=repr,
    )
    def test_standard_mappings(self, protocol: int, sent: Any):
        read = through(sent, protocol)
        assert read == sent
        assert list(read.items()) == list(sent.items())
        assert getattr(read, "default_factory", None) is getattr(sent, "default_factory", None)

    def test_dictionary_of_a_uci_corpus(self, protocol: int):
        sent = UciCorpus(datapath("testcorpus.uci")).create_dictionary()
        read = through(sent, protocol)
        assert type(read.dfs) is defaultdict
        assert vars(read) == vars(sent)

    def test_uri(self, protocol: int):
        assert through(URI("PYRO:worker@example.org:9999"), protocol) == URI("PYRO:worker@example.org:9999")

    @pytest.mark.parametrize(
        "error", [ValueError("a"), KeyError("b"), UnicodeDecodeError("utf8", b"x", 0, 1, "c")]
    )
    def test_exception(self, protocol: int, error: Exception):
        error._pyroTraceback = ["line"]  # type: ignore[attr-defined]
        read = through(error, protocol)
        assert read.args == error.args
        assert read._pyroTraceback == ["line"]

    def test_pyro_exception(self, protocol: int):
        assert str(through(Pyro4.errors.NamingError("gone"), protocol)) == "gone"


def broken(**parts: Any) -> Any:
    matrix = scipy.sparse.csc_matrix(np.array([[0, 1.5, 0], [2, 0, 4], [0, 3, 1]]))
    for name, value in parts.items():
        setattr(matrix, name, value)
    return matrix


@pytest.mark.parametrize(
    "parts",
    [
        {"indptr": np.array([0, 100, 3, 5], np.int32)},
        {"indptr": np.array([0, 1, 3, 1_000_000], np.int32)},
        {"indptr": np.array([0, 5], np.int32)},
        {"indptr": np.array([0, 2**63 - 1, -2, 5]), "indices": np.array([0, 1, 2, 1, 2])},  # overflows
        {"indptr": np.array([1, 1, 3, 5], np.int32)},
        {"indices": np.array([0.0, 1, 2, 1, 2])},
        {"data": np.ones(3)},
        {"data": np.array(["a"] * 5)},
        {"data": np.ones((5, 1))},
        {"_shape": (3, 3, 3)},
        {"_shape": (-3, 3)},
        {"_shape": (3, 1_000_000)},
        {"_shape": ("3", 3)},
        {"data": [1.0] * 5},
    ],
    ids=str,
)
def test_a_sparse_matrix_that_would_crash_is_refused(parts: dict[str, Any]):
    with pytest.raises(SecurityError, match="refused a sparse matrix"):
        load(pickle.dumps(broken(**parts)))


@pytest.mark.parametrize("wrong", [1_000_000, -1, 3])
@pytest.mark.parametrize("place", range(5))
def test_documents_of_another_vocabulary_are_refused_by_number(wrong: int, place: int):
    """Their connection goes on, so this is no SecurityError."""
    indices = np.array([1, 0, 2, 1, 2], np.int32)
    indices[place] = wrong
    document = [0, 1, 1, 2, 2][place]
    message = f"^document {document}: term id {wrong} is outside the vocabulary of 3 terms$"
    with pytest.raises(OutsideVocabulary, match=message):
        load(pickle.dumps(broken(indices=indices)))
    with pytest.raises(SecurityError, match=r"refused a sparse matrix: .*indices"):
        load(pickle.dumps(scipy.sparse.csr_matrix(broken(indices=indices).T)))


def test_a_claim_that_a_matrix_was_checked_is_not_believed():
    unsorted = np.array([2, 0], np.int32), np.array([0, 2], np.int32)
    sent = scipy.sparse.csc_matrix((np.array([1.0, 2.0]), *unsorted), (3, 1))
    sent.has_sorted_indices = True
    assert not load(pickle.dumps(sent)).has_sorted_indices


def test_parts_that_share_their_memory_are_refused():
    """Writing to the values of such a matrix would write to its indices, after their check."""
    sent = scipy.sparse.csc_matrix((np.zeros(3, np.int32), np.zeros(3, np.int32), np.arange(4)), (3, 3))
    data = pickle.dumps(sent, 5, buffer_callback=lambda buffer: None)
    buffers = [bytearray(part) for part in vars(sent).values() if isinstance(part, np.ndarray)]
    assert unpickle.load(data, resolve, buffers).nnz == 3
    shared = bytearray(len(buffers[0]))
    with pytest.raises(SecurityError, match="share"):
        unpickle.load(data, resolve, [shared if len(part) == len(shared) else part for part in buffers])


@pytest.mark.parametrize("cls", [bytes, bytearray])
def test_a_number_does_not_become_that_many_bytes(cls: type):
    class Bomb:
        def __reduce__(self) -> Any:
            return cls, (1 << 40,)

    with pytest.raises(SecurityError, match="bytes"):
        load(pickle.dumps(Bomb()))


class Reduced:
    """Pickles as a call, and then perhaps a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def test_an_exception_s_attributes_are_not_set_from_outside():
    error = ValueError("a")
    state = {"args": ("b",), "__cause__": KeyError(), "errno": 7, "_pyroTraceback": ["a line\n"], "x": 1}
    read = load(pickled(Reduced(ValueError, ("a",), state)))
    assert (type(read), read.args, vars(read)) == (ValueError, error.args, {"_pyroTraceback": ["a line\n"]})
    assert read.__cause__ is None
    for lines in ("text", [1], (["x"],), {"a": "b"}):
        assert vars(load(pickled(Reduced(ValueError, ("a",), {"_pyroTraceback": lines})))) == {}


@pytest.mark.parametrize(
    "state",
    [
        {"object": 1.5, "start": 2**60, "end": 2**60 + 1},
        {"start": -(10**12), "end": 1 - 10**12},
        {"reason": 5},
    ],
    ids=repr,
)
def test_a_unicode_error_points_into_its_text(state: dict[str, Any]):
    sound = UnicodeDecodeError("utf8", b"ab", 0, 1, "why")
    read = load(pickled(Reduced(UnicodeDecodeError, sound.args, state)))
    assert str(read) == str(sound)


@pytest.mark.parametrize(
    "arguments",
    [
        (UnicodeDecodeError, ("utf8", b"x", -(10**12), 1 - 10**12, "why")),
        (UnicodeDecodeError, ("utf8", b"x", 0, 2, "why")),
        (UnicodeDecodeError, ("utf8", b"x", 1, 0, "why")),
        (UnicodeDecodeError, ("utf8", 1.5, 0, 1, "why")),
        (UnicodeDecodeError, ("utf8",)),
        (UnicodeEncodeError, ("utf8", "x", 0, 2**40, "why")),
        (UnicodeEncodeError, ("utf8", b"x", 0, 1, "why")),
        (UnicodeTranslateError, ("x", 5, 6, "why")),
        (SyntaxError, ("a", ("file", 1, 10**10, "text"))),
        (ValueError, ([],)),
        (KeyError, ((1,),)),
        (ValueError, (np.ones(3),)),
        (OSError, ({},)),
    ],
    ids=repr,
)
def test_an_exception_of_anything_but_sound_scalars_is_refused(arguments: Any):
    with pytest.raises(SecurityError, match="refused a"):
        load(pickled(Reduced(*arguments)))


@pytest.mark.parametrize("size", [2**31, -1, 1.5, "5", True, None, (1,)], ids=repr)
def test_a_vocabulary_s_stated_size_is_a_size(size: Any):
    for stated, name in ((HashDictionary(), "id_range"), (FakeDict(1), "num_terms")):
        setattr(stated, name, size)
        with pytest.raises(SecurityError, match=f"{name} is not a whole number"):
            load(pickle.dumps(stated))
        delattr(stated, name)
        stated.other = 1
        with pytest.raises(SecurityError, match=f"{name} is not a whole number"):
            load(pickle.dumps(stated))


def test_an_attribute_hides_no_method_of_gensim_s():
    sent = Dictionary()
    sent.keys = np.float32
    with pytest.raises(SecurityError, match="hides one of its methods"):
        load(pickle.dumps(sent))


def test_a_defaultdict_makes_nothing_unusual():
    for factory in (np.ndarray, zlib.adler32, np.float32):
        with pytest.raises(SecurityError, match="refused a defaultdict"):
            load(pickled(Reduced(defaultdict, (factory,))))

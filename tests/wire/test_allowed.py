"""What gensim's models send and get back arrives whole; what would crash compiled code does not arrive."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import Pyro4.errors
import pytest
import scipy.sparse
from gensim.corpora import Dictionary, HashDictionary
from gensim.models.ldamodel import LdaState
from gensim.models.lsimodel import Projection
from gensim.utils import FakeDict
from Pyro4.core import URI
from Pyro4.errors import SecurityError

from distcorpus.wire import unpickle
from distcorpus.wire.allowed import resolve

FORMATS = ("csc_matrix", "csc_array", "csr_matrix", "csr_array")


def load(data: Any) -> Any:
    return unpickle.load(data, resolve)


def through(value: Any, protocol: int = 5) -> Any:
    read = load(pickle.dumps(value, protocol))
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
        {"indices": np.array([0, 1, 1_000_000, 1, 2], np.int32)},
        {"indices": np.array([0, -1, 2, 1, 2], np.int32)},
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

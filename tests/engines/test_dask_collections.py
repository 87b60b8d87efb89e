"""Documents that are on a Dask cluster already: the bytes of lists, and none of them comes here."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

distributed = pytest.importorskip(
    "distributed", reason="distributed is not installed: pip install distcorpus[dask]"
)

import cloudpickle  # noqa: E402
import dask  # noqa: E402
import dask.array  # noqa: E402
import dask.bag  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402
from distributed.comm.tcp import TCP  # noqa: E402

from distcorpus.algorithms.chunk import as_chunk  # noqa: E402
from distcorpus.engines.daskcorpus import DaskCorpus, packed_words, read, unpacked_words  # noqa: E402
from distcorpus.kernels import Product  # noqa: E402
from distcorpus.models import LdaModel, LsiModel  # noqa: E402

from .conftest import NUM_TERMS, PATIENCE, content, lsi  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])

#: Bounds of partitions: empty ones, tiny ones, some of several chunks.
CUTS = [0, 0, 1, 1, 130, 149, 151, 400, 777, 900, 900]


def pieces(documents: Any) -> list[Any]:
    matrix = scipy.sparse.issparse(documents)
    return [
        documents[:, start:stop] if matrix else documents[start:stop]
        for start, stop in itertools.pairwise(CUTS)
    ]


def collection(kind: str, corpus, matrix, client) -> Any:
    matrix = matrix.tocsc()
    if kind == "bag":
        return dask.bag.from_delayed([dask.delayed(piece) for piece in pieces(corpus)])
    if kind == "bag of generators":
        lists = dask.bag.from_delayed([dask.delayed(piece) for piece in pieces(corpus)])
        return lists.map_partitions(lambda documents: (document for document in documents))
    if kind == "delayed":
        return [dask.delayed(piece) for piece in pieces(matrix)]
    if kind == "one delayed":
        return dask.delayed(matrix)
    if kind == "futures":
        return client.scatter(pieces(matrix))
    if kind == "futures of lists":
        return client.scatter(pieces(corpus))
    rows = [
        dask.array.from_delayed(dask.delayed(piece.T.tocsr()), (piece.shape[1], NUM_TERMS), matrix.dtype)
        for piece in pieces(matrix)
    ]
    if kind == "array":
        return dask.array.concatenate(rows)
    columns = [
        [
            dask.array.from_delayed(
                dask.delayed(piece[part].T.tocsr()),
                (piece.shape[1], len(range(*part.indices(NUM_TERMS)))),
                matrix.dtype,
            )
            for part in (slice(0, 100), slice(100, NUM_TERMS))
        ]
        for piece in pieces(matrix)
    ]
    return dask.array.block(columns)


KINDS = [
    "bag",
    "bag of generators",
    "delayed",
    "one delayed",
    "futures",
    "futures of lists",
    "array",
    "array of columns",
]


def lda(documents, dictionary, **options) -> LdaModel:
    options = {"num_topics": 7, "chunksize": 150, "random_state": 5} | options
    return LdaModel(documents, id2word=dictionary, **options)


@pytest.fixture(scope="module")
def trained(corpus, dictionary) -> dict[str, Any]:
    return {"lda": lda(corpus, dictionary), "lsi": lsi(corpus, dictionary)}


def joined(parts: Iterator[np.ndarray]) -> bytes:
    return b"|".join(part.tobytes() for part in parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
def test_the_bytes_of_lists(client, corpus, matrix, dictionary, trained, kind):
    documents = collection(kind, corpus, matrix, client)
    assert content(lda(documents, dictionary, client=client)) == content(trained["lda"])
    assert content(lsi(documents, dictionary, client=client)) == content(trained["lsi"])
    model: Any = trained["lsi"]
    assert joined(model.transform(documents, client=client)) == joined(model.transform(corpus))


@pytest.mark.long
def test_passes_perplexity_and_evaluation(client, corpus, matrix, dictionary, caplog):
    """In the log the estimates of a training's chunks, which are computed on workers."""
    bag = collection("bag", corpus, matrix, client)

    def logged(documents, **options) -> tuple[bytes, list[str]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "gensim.models.ldamodel"):
            model = lda(documents, dictionary, passes=2, eval_every=2, alpha="auto", **options)
        return content(model), [line for line in caplog.messages if "perplexity estimate" in line]

    here = logged(corpus)
    assert len(here[1]) == 6
    assert logged(bag, client=client) == here
    model = lda(corpus, dictionary)
    documents = collection(
        "one delayed", corpus[:100], matrix[:, :100], client
    )  # a chunk alone goes there too

    def evaluated(documents, **options) -> tuple[Any, ...]:
        model_ = copy.deepcopy(model)
        return (
            joined(model_.transform(documents, **options)),
            model_.bound(documents, **options),
            model_.log_perplexity(documents, **options),
        )

    assert evaluated(bag, client=client) == evaluated(corpus, distributed=False)
    assert evaluated(documents, client=client) == evaluated(corpus[:100], distributed=False)
    model.client = client
    other = copy.deepcopy(model)
    other.client = client
    assert joined(iter([model.inference(bag)[0]])) == joined(iter([other.inference(corpus)[0]]))


@pytest.mark.long
def test_an_update_with_more_documents(client, corpus, matrix, dictionary):
    for train in (lda, lsi):
        here, there = train(corpus[:300], dictionary), train(corpus[:300], dictionary, client=client)
        more = dask.bag.from_sequence(corpus[300:], npartitions=4)
        if train is lda:
            here.update(corpus[300:])
            there.update(more)
            assert content(there) == content(here)
        else:  # which adds to factors, as every training on a client
            there.add_documents(more)
            other = lsi(corpus[:300], dictionary, client=client)
            other.add_documents(corpus[300:])
            assert content(there) == content(other)


def make(documents: int) -> Any:
    """Long documents, of which a model is small."""
    rng = np.random.default_rng(documents)
    return scipy.sparse.random_array(
        (NUM_TERMS, documents),
        density=0.9,
        rng=rng,
        data_sampler=lambda size: rng.integers(1, 9, size).astype(float),
    )


def test_no_document_comes_here(client, dictionary, monkeypatch):
    """Neither to this process' client nor to the scheduler, which runs in it."""
    volume = 0
    read, write = TCP.read, TCP.write

    async def reading(self, *arguments, **options):
        nonlocal volume
        message = await read(self, *arguments, **options)
        volume += size_of(message)
        return message

    async def writing(self, message, *arguments, **options):
        nonlocal volume
        nbytes = await write(self, message, *arguments, **options)
        volume += nbytes
        return nbytes

    monkeypatch.setattr(TCP, "read", reading)
    monkeypatch.setattr(TCP, "write", writing)
    here = scipy.sparse.hstack([make(n) for n in range(600, 604)], "csc")
    nbytes = here.data.nbytes + here.indices.nbytes

    def moved(documents: Any) -> int:
        nonlocal volume
        volume = 0
        options = {"id2word": dictionary, "num_topics": 3, "chunksize": 500, "client": client}
        LsiModel(documents, power_iters=1, extra_samples=3, **options)
        model = LdaModel(documents, iterations=5, random_state=0, **options)
        model.bound(documents)
        model.log_perplexity(documents)
        return volume

    there = [dask.delayed(make)(n) for n in range(600, 604)]
    assert moved(there) < nbytes / 4
    # Where they are here, they go straight to the workers: through the scheduler it would be thrice as much.
    assert nbytes < moved(here) < 4 * nbytes


def size_of(message: Any) -> int:
    """About the bytes of a message that has arrived."""
    if isinstance(message, dict):
        return sum(map(size_of, message.values()))
    if isinstance(message, list | tuple):
        return sum(map(size_of, message))
    frames = getattr(message, "frames", None)
    if frames is not None:
        return sum(memoryview(frame).nbytes for frame in frames)
    return sys.getsizeof(message)


@pytest.mark.long
@pytest.mark.parametrize("train", [lda, lsi])
def test_workers_are_killed(client, corpus, matrix, dictionary, trained, train):
    """Dask computes again what was on them."""
    running = client.run(os.getpid)
    events = 0

    def kill(event) -> None:
        nonlocal events
        events += 1
        for pid in {2: list(running.values())[:1], 5: list(running.values())[1:]}.get(events, []):
            os.kill(pid, signal.SIGKILL)

    bag = collection("bag", corpus, matrix, client)
    name = train.__name__
    assert content(train(bag, dictionary, client=client, progress=kill)) == content(trained[name])
    assert events > 5


def train_in_a_task(dictionary, documents) -> bytes:
    bag = dask.bag.from_sequence(documents, npartitions=3)
    return content(lda(bag, dictionary, client="active"))


@pytest.mark.long
def test_inside_a_task(client, corpus, dictionary, trained):
    """On a worker with one thread, which reads the documents too."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster, set_as_default=False) as one,
    ):
        task = one.submit(train_in_a_task, dictionary, corpus, pure=False)
        assert task.result(timeout=PATIENCE) == content(trained["lda"])


# What is no corpus


def bad(document: Any) -> Any:
    return [dask.delayed([[(1, 1)]]), dask.delayed([[(0, 1)], document])]


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ([(NUM_TERMS, 1)], ValueError, "partition 1: document 1: term id 300 is outside the vocabulary"),
        ([(0, -1)], ValueError, "partition 1: document 1: term id 0 has a negative value"),
        ("words", TypeError, "partition 1: document 1 is not a bag of words"),
    ],
)
def test_documents_that_are_none(client, dictionary, document, error, message):
    with pytest.raises(error, match=message):
        lda(bad(document), dictionary, client=client)


def test_an_error_of_the_collections_own(client, corpus, dictionary):
    def fail(document):
        raise KeyError("of the pipeline")

    bag = dask.bag.from_sequence(corpus[:10], npartitions=2).map(fail)
    for train in (lda, lsi):
        with pytest.raises(KeyError, match="of the pipeline"):
            train(bag, dictionary, client=client)


@pytest.mark.parametrize("train", [lda, lsi])
def test_what_is_refused(client, matrix, dictionary, train):
    documents = matrix.tocsc()
    with pytest.raises(ValueError, match=r"a matrix of .* seems to be documents x terms; give matrix\.T"):
        train(dask.delayed(documents.T.tocsr()), dictionary, client=client)
    with pytest.raises(ValueError, match=r"corpus is of Dask .*, and there is no client: give client="):
        train([dask.delayed(documents)], dictionary)
    with pytest.raises(ValueError, match=r"documents on a Dask cluster are not read for .*: give id2word"):
        train(dask.delayed(documents), None, client=client)
    with pytest.raises(ValueError, match="the corpus is empty"):
        train([dask.delayed(documents[:, :0])], dictionary, client=client)
    with pytest.raises(TypeError, match=r"part 1 of the corpus is a int: give a dask\.bag"):
        train([dask.delayed(documents), 3], dictionary, client=client)
    for ones in (dask.array.ones((4, 3)), dask.array.ones((4, 3))[:, :2]):
        with pytest.raises(TypeError, match=r"part 0 of the corpus is a Array: give a dask\.bag"):
            DaskCorpus(client, [ones, ones], print)
    with pytest.raises(TypeError, match=r"a dask\.array of 1 dimensions: give one of documents x terms"):
        train(dask.array.ones(3), dictionary, client=client)
    wide = dask.array.ones((3, NUM_TERMS + 1))
    with pytest.raises(ValueError, match=r"the corpus has 301 terms, the vocabulary .* 300"):
        train(wide, dictionary, client=client)


@pytest.mark.parametrize("rows", [100, 299, NUM_TERMS])
def test_an_array_of_terms_x_documents(client, matrix, dictionary, rows):
    array = dask.array.from_array(matrix.toarray()[:, :100], chunks=(rows, -1))
    with pytest.raises(ValueError, match=r"a dask\.array of 300 x 100, .* terms x documents; give array\.T"):
        lda(array, dictionary, client=client)


@pytest.mark.parametrize("rows", [150, NUM_TERMS])
def test_fewer_terms_and_parts_of_as_many_documents_as_terms(client, matrix, dictionary, rows):
    few = matrix.tocsc()[:250, : NUM_TERMS + 50]
    expected = lsi(few, dictionary).projection.s.tobytes()
    array = dask.array.from_array(few.T.toarray(), chunks=(rows, -1))
    parts = [dask.delayed(few[:, :rows]), dask.delayed(few[:, rows:])]
    for documents in (array, parts):
        assert lsi(documents, dictionary, client=client).projection.s.tobytes() == expected


def test_partitions_that_are_none(client, corpus, matrix, dictionary):
    generator = dask.delayed(lambda: (document for document in corpus[:9]))()
    for part, message in ((generator, "is a generator"), (dask.delayed(3), "is a int"), (None, "is a None")):
        parts = [dask.delayed(corpus[:9]), dask.delayed(part) if part is None else part]
        with pytest.raises(TypeError, match=f"partition 1 {message}.*: give a dask"):
            lda(parts, dictionary, client=client)
    texts = dask.array.from_array(matrix.T.toarray().astype(str)[:40], chunks=(20, -1))
    with pytest.raises((TypeError, ValueError), match=r"partition [01]: "):
        lda(texts, dictionary, client=client)


def test_what_is_computed_here_alone_takes_no_collection(client, corpus, matrix, dictionary, trained):
    model, array = trained["lda"], collection("array", corpus, matrix, client)
    delayed, future = dask.delayed(corpus), client.scatter(corpus, hash=False)
    for documents in (array, delayed, future, [delayed]):
        for call in (
            lambda given: model.bound(given, gamma=np.ones((len(corpus), 7)), client=client),
            lambda given: model.inference(given, collect_sstats=True),
            lambda given: model[given],
            lambda given: trained["lsi"][given],
        ):
            with pytest.raises(ValueError, match=r"corpus is of Dask .*, and this is computed here: see "):
                call(documents)


def test_a_client_that_is_set_later(client, corpus, dictionary):
    bag = dask.bag.from_sequence(corpus[:60], npartitions=2)
    model, expected = (lda(corpus[:300], dictionary) for _ in range(2))
    model.client = "active"
    with client.as_current():
        model.update(bag)
    expected.update(corpus[:60])
    assert model.state.sstats.tobytes() == expected.state.sstats.tobytes()


def test_a_future_that_was_cancelled_is_named(client, corpus, dictionary):
    parts = [client.submit(list, corpus[:10], pure=False), client.submit(list, corpus[10:20], pure=False)]
    parts[1].cancel()
    with pytest.raises(ValueError, match=r"partition 1 of the corpus is a future that was cancelled.*again"):
        lda(parts, dictionary, client=client)


def test_an_array_knows_its_vocabulary(client, corpus, matrix):
    array = collection("array", corpus, matrix, client)
    assert lsi(array, None, client=client).num_terms == NUM_TERMS


def test_a_bag_without_a_client_is_an_iterable(corpus, dictionary, trained):
    bag = dask.bag.from_sequence(corpus, npartitions=3)
    with dask.config.set(scheduler="synchronous"):
        assert content(lda(bag, dictionary)) == content(trained["lda"])


def test_a_client_that_is_closed(cluster, client):
    """While the documents are waited for."""
    other = Client(cluster, set_as_default=False)
    documents = DaskCorpus(other, dask.delayed(time.sleep)(2.0), lambda documents, num_terms: None)
    closing = threading.Timer(0.5, other.close)
    closing.start()
    with pytest.raises(RuntimeError, match=r"the Dask scheduler .* is lost: the client was closed"):
        len(documents)
    closing.join()


# Facts


@given(st.sets(st.integers(0, 199)), st.integers(200, 5000))
def test_words_come_back(words, num_terms):
    ids = np.array(sorted(words), np.int32)
    packed = packed_words(ids, num_terms)
    assert packed.nbytes <= num_terms // 8 + 1
    np.testing.assert_array_equal(unpacked_words(packed), ids)


def test_facts_are_those_of_the_documents(client, corpus, matrix, dictionary):
    chunk = as_chunk(corpus[150:300], NUM_TERMS)
    bag = DaskCorpus(client, collection("bag", corpus, matrix, client), lambda documents, num_terms: None)
    limits = {"max_nnz": 700}
    placed = list(bag.placed_chunks(150, NUM_TERMS, limits, {}))[1]
    assert (placed.n_docs, placed.nnz) == (chunk.n_docs, chunk.nnz)
    assert (placed.total(), placed.largest()) == (chunk.total(), chunk.largest())
    np.testing.assert_array_equal(placed.words(), chunk.words())
    assert len(chunk.split(**limits)) > 1
    for block, there in zip(chunk.split(**limits), placed.split(**limits), strict=True):
        assert (there.n_docs, there.nnz) == (block.n_docs, block.nnz)
        assert there.squared_norm() == block.squared_norm()
        np.testing.assert_array_equal(there.words(), block.words())
    with pytest.raises(ValueError, match=r"was cut into blocks of .*700"):
        placed.split(**Product.limits)


@pytest.mark.parametrize("kind", ["documents", "array"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr"])
def test_a_malformed_partition_does_not_end_the_worker(kind, form):
    matrix = scipy.sparse.eye_array(4, format=form).copy()
    (matrix.row if form == "coo" else matrix.indices)[0] = 10**8
    orientation = "terms x documents" if kind == "documents" else "documents x terms"
    with pytest.raises(ValueError, match=f"^partition 3: not a sound {orientation} matrix"):
        read(kind, 4, {}, "partition 3", matrix)


def test_masked_blocks_are_refused():
    block = np.ma.array(np.eye(4), mask=np.eye(4))
    with pytest.raises(ValueError, match=r"^partition 3: it has masked values"):
        read("array", 4, {}, "partition 3", block)

"""Each competitor's training, as its users would run it, in a process of its own.

Every function makes ready what a user would have already (the documents, a cluster, scikit-learn's matrix),
trains once on a few documents where that loads something, and then trains in earnest, watched. Nothing of
ours is imported at the top: it would change the Pyro4 that talks to gensim's own daemons.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from gensim.corpora import Dictionary

from benchmarks import data
from benchmarks.isolated import peak_memory, peak_of_process

#: Documents of the training that comes before the one that is measured.
WARM_UP = 200

#: Seconds in which gensim's own daemons have to find one another.
READY_WITHIN = 30.0


@dataclass
class Training:
    """What a training cost and what came of it.

    Attributes
    ----------
    seconds : float
    peak : int
        Bytes of all its processes together, at the most.
    model : dict of str to ndarray
        LDA: "topics", (K, num_terms). LSI: "u" and "s".
    jobs : list of dict
        The dispatcher's records, where it was ours.
    peaks : dict of str to int
        The most bytes that a daemon of ours has had so far, by its name.
    """

    seconds: float
    peak: int
    model: dict[str, np.ndarray]
    jobs: list[dict[str, Any]] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)


def _watched(train: Callable[[], Any], arrays: Callable[[Any], dict[str, np.ndarray]]) -> Training:
    with peak_memory() as peak:
        began = time.perf_counter()
        model = train()
        seconds = time.perf_counter() - began
    return Training(seconds, peak.nbytes, arrays(model))


def lda_options(dictionary: Dictionary, num_topics: int) -> dict[str, Any]:
    """What all of gensim's API is given; the rest is gensim's default."""
    return {
        "id2word": dictionary,
        "num_topics": num_topics,
        "random_state": 1,
        # Evaluating is no part of training.
        "eval_every": None,
    }


def _lda_arrays(model: Any) -> dict[str, np.ndarray]:
    return {"topics": model.get_topics().astype(np.float32)}


def _lsi_arrays(model: Any) -> dict[str, np.ndarray]:
    return {"u": model.projection.u, "s": model.projection.s}


# ------------------------------------------------------------------------------------------------- gensim


def gensim_lda(quick: bool, num_topics: int, workers: int | None = None) -> Training:
    """`LdaModel`, or `LdaMulticore` with so many workers."""
    from gensim.models import LdaModel, LdaMulticore

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics)

    def train(documents: Sequence[Any]) -> Any:
        if workers is None:
            return LdaModel(documents, **options)
        return LdaMulticore(documents, workers=workers, **options)

    train(split.training[:WARM_UP])
    return _watched(lambda: train(split.training), _lda_arrays)


def gensim_lsi(quick: bool, num_topics: int) -> Training:
    """`LsiModel`."""
    from gensim.models import LsiModel

    dictionary, documents = data.tfidf_newsgroups(quick)
    LsiModel(documents[:WARM_UP], 20, id2word=dictionary)
    return _watched(lambda: LsiModel(documents, num_topics, id2word=dictionary), _lsi_arrays)


def gensim_distributed_lda(quick: bool, num_topics: int, workers: int) -> Training:
    """`LdaModel(distributed=True)` with gensim's own dispatcher and workers."""
    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics)
    with _gensim_daemons("lda", workers):
        from gensim.models import LdaModel

        return _watched(lambda: LdaModel(split.training, distributed=True, **options), _lda_arrays)


def gensim_distributed_lsi(quick: bool, num_topics: int, workers: int) -> Training:
    """`LsiModel(distributed=True)` with gensim's own dispatcher and workers."""
    dictionary, documents = data.tfidf_newsgroups(quick)
    with _gensim_daemons("lsi", workers):
        from gensim.models import LsiModel

        return _watched(
            lambda: LsiModel(documents, num_topics, id2word=dictionary, distributed=True), _lsi_arrays
        )


@contextmanager
def _gensim_daemons(kind: str, workers: int) -> Iterator[None]:
    """Pyro4's stock name server and gensim's own daemons, on loopback; they end with the block."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "PYRO_SERIALIZERS_ACCEPTED": "pickle",
        "PYRO_SERIALIZER": "pickle",
        "PYRO_NS_HOST": "127.0.0.1",
        "PYRO_NS_PORT": str(port),
    }
    # This process too: Pyro4 reads them when it is first imported.
    assert "Pyro4" not in sys.modules, "Pyro4 has its settings already"
    os.environ.update(settings)
    import Pyro4

    with ExitStack() as daemons:

        def start(*command: str) -> None:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            daemons.callback(process.wait)
            daemons.callback(process.kill)

        def registered() -> list[str]:
            with Pyro4.locateNS() as nameserver:
                return [name for name in nameserver.list() if name.startswith("gensim.")]

        start("Pyro4.naming", "-n", "127.0.0.1", "-p", str(port), "-x")
        _wait_for(lambda: registered() is not None)
        for _ in range(workers):
            start(f"gensim.models.{kind}_worker")
        start(f"gensim.models.{kind}_dispatcher")
        _wait_for(lambda: len(registered()) == workers + 1)
        yield


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            if condition():
                return
            error: Exception | None = None
        except Exception as raised:  # it does not answer yet
            error = raised
        if time.monotonic() > deadline:
            raise TimeoutError("gensim's daemons are not ready") from error
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------- others


def scikit_learn_lda(quick: bool, num_topics: int, jobs: int) -> Training:
    """`LatentDirichletAllocation`, online, with gensim's chunks, schedule, iterations and priors."""
    from sklearn.decomposition import LatentDirichletAllocation

    split = data.split_newsgroups(quick)
    matrix = data.as_csr(split.training, len(split.dictionary))

    def train(documents: Any) -> Any:
        return LatentDirichletAllocation(
            num_topics,
            learning_method="online",
            max_iter=1,
            batch_size=2000,
            learning_offset=1.0,
            learning_decay=0.5,
            max_doc_update_iter=50,
            random_state=1,
            n_jobs=jobs,
        ).fit(documents)

    train(matrix[:WARM_UP])
    return _watched(lambda: train(matrix), lambda model: {"topics": model.components_.astype(np.float32)})


def scikit_learn_lsi(quick: bool, num_topics: int) -> Training:
    """`TruncatedSVD` in float32."""
    from sklearn.decomposition import TruncatedSVD

    matrix = data.tfidf_matrix(quick).T.tocsr().astype(np.float32)
    TruncatedSVD(20, random_state=0).fit(matrix[:WARM_UP])
    return _watched(
        lambda: TruncatedSVD(num_topics, random_state=0).fit(matrix),
        lambda model: {"u": model.components_.T, "s": model.singular_values_},
    )


def tomotopy_model(documents: Sequence[Any], num_topics: int) -> Any:
    """A tomotopy model at its defaults (alpha is learnt) that holds the documents."""
    import tomotopy

    model = tomotopy.LDAModel(k=num_topics, seed=1)
    for document in documents:
        model.add_doc([str(term) for term, count in document for _ in range(count)])
    return model


def tomotopy_topics(model: Any, num_terms: int) -> np.ndarray:
    """Its topics, (K, num_terms); what it has never seen gets the smallest probability."""
    topics = np.zeros((model.k, num_terms), np.float32)
    topics[:, [int(term) for term in model.used_vocabs]] = [
        model.get_topic_word_dist(k) for k in range(model.k)
    ]
    return np.where(topics > 0, topics, topics[topics > 0].min())


def tomotopy_lda(quick: bool, num_topics: int, iterations: int, workers: int) -> Training:
    """`tomotopy.LDAModel`: collapsed Gibbs sampling."""
    split = data.split_newsgroups(quick)
    model = tomotopy_model([document for document in split.training if document], num_topics)

    def train() -> Any:
        model.train(iterations, workers=workers)
        return model

    num_terms = len(split.dictionary)
    return _watched(train, lambda model: {"topics": tomotopy_topics(model, num_terms)})


def spark_lda(quick: bool, num_topics: int, cores: int) -> Training:
    """Spark MLlib's `LDA`, online, with gensim's chunks, schedule and priors.

    Its mini-batches are drawn at random: as many documents as there are, some of them twice. They are in its
    executor's memory beforehand.
    """
    from pyspark.ml.clustering import LDA
    from pyspark.ml.linalg import SparseVector, VectorUDT
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructField, StructType

    split = data.split_newsgroups(quick)
    size = len(split.dictionary)
    builder = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.memory", "4g").config("spark.log.level", "ERROR").getOrCreate()

    def loaded(documents: Sequence[Any]) -> Any:
        rows = [(SparseVector(size, dict(document)),) for document in documents]
        schema = StructType([StructField("features", VectorUDT())])
        frame = spark.createDataFrame(spark.sparkContext.parallelize(rows, 4 * cores), schema).cache()
        frame.count()
        return frame

    def train(frame: Any, documents: int) -> Any:
        chunk = min(2000, documents)
        return LDA(
            k=num_topics,
            optimizer="online",
            maxIter=-(-documents // chunk),
            subsamplingRate=chunk / documents,
            learningOffset=1.0,
            learningDecay=0.5,
            docConcentration=[1 / num_topics],
            topicConcentration=1 / num_topics,
            optimizeDocConcentration=False,
            seed=1,
        ).fit(frame)

    train(loaded(split.training[:WARM_UP]), WARM_UP)
    frame = loaded(split.training)
    done = _watched(
        lambda: train(frame, len(split.training)),
        lambda model: {"topics": model.topicsMatrix().toArray().T.astype(np.float32)},
    )
    spark.stop()
    return done


# --------------------------------------------------------------------------------------------------- ours


@contextmanager
def cluster(workers: int, threads: int) -> Iterator[Any]:
    """Our cluster; each of its processes has as many BLAS threads as one of its workers has threads."""
    from distcorpus import LocalCluster

    with LocalCluster(workers, threads=threads, blas_threads=threads) as running:
        yield running


def _on_cluster(
    train: Callable[[Sequence[Any]], Any],
    documents: Sequence[Any],
    arrays: Callable[[Any], dict[str, np.ndarray]],
    workers: int,
    threads: int,
) -> Training:
    with cluster(workers, threads) as running:
        train(documents[:WARM_UP])
        before = set(running.dispatcher.recorded_sessions())
        done = _watched(lambda: train(documents), arrays)
        for session in running.dispatcher.recorded_sessions():
            if session not in before:
                done.jobs += running.dispatcher.records(session)
        pids = {worker.name: worker.pid for worker in running.workers} | {
            "dispatcher": running.dispatcher_pid
        }
        done.peaks = {name: peak_of_process(pid) for name, pid in pids.items()}
        return done


def cluster_lda(quick: bool, num_topics: int, models: str, workers: int, threads: int) -> Training:
    """`LdaModel(distributed=True)` of a module, "gensim.models" or "distcorpus.models", on our cluster."""
    import importlib

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics)
    cls = importlib.import_module(models).LdaModel
    return _on_cluster(
        lambda documents: cls(documents, distributed=True, **options),
        split.training,
        _lda_arrays,
        workers,
        threads,
    )


def cluster_lsi(quick: bool, num_topics: int, models: str, workers: int, threads: int) -> Training:
    """`LsiModel(distributed=True)` of a module, "gensim.models" or "distcorpus.models", on our cluster."""
    import importlib

    dictionary, documents = data.tfidf_newsgroups(quick)
    cls = importlib.import_module(models).LsiModel
    return _on_cluster(
        lambda some: cls(some, num_topics, id2word=dictionary, distributed=True),
        documents,
        _lsi_arrays,
        workers,
        threads,
    )


def serial_lda(quick: bool, num_topics: int) -> Training:
    """`distcorpus.models.LdaModel` with no cluster."""
    from distcorpus.models import LdaModel

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics)
    LdaModel(split.training[:WARM_UP], **options)
    return _watched(lambda: LdaModel(split.training, **options), _lda_arrays)


def serial_lsi(quick: bool, num_topics: int) -> Training:
    """`distcorpus.models.LsiModel` with no cluster."""
    from distcorpus.models import LsiModel

    dictionary, documents = data.tfidf_newsgroups(quick)
    LsiModel(documents[:WARM_UP], 20, id2word=dictionary)
    return _watched(lambda: LsiModel(documents, num_topics, id2word=dictionary), _lsi_arrays)


@contextmanager
def _dask(workers: int) -> Iterator[Any]:
    """A client of a Dask cluster on this machine, each of whose workers has one thread."""
    from distributed import Client, LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(**options) as running, Client(running) as client:
        yield client


def dask_lda(quick: bool, num_topics: int, workers: int) -> Training:
    """`distcorpus.models.LdaModel` on a Dask cluster."""
    from distcorpus.models import LdaModel

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics)
    with _dask(workers) as client:
        LdaModel(split.training[:WARM_UP], client=client, **options)
        return _watched(lambda: LdaModel(split.training, client=client, **options), _lda_arrays)


def dask_lsi(quick: bool, num_topics: int, workers: int) -> Training:
    """`distcorpus.models.LsiModel` on a Dask cluster."""
    from distcorpus.models import LsiModel

    dictionary, documents = data.tfidf_newsgroups(quick)
    with _dask(workers) as client:
        LsiModel(documents[:WARM_UP], 20, id2word=dictionary, client=client)
        return _watched(
            lambda: LsiModel(documents, num_topics, id2word=dictionary, client=client), _lsi_arrays
        )


# --------------------------------------------------------------------------- training runs of several lengths
# Each returns one training for each number of passes (tomotopy: iterations), with the model's own settings.


def _lengths(
    train: Callable[[Sequence[Any], int], Any],
    documents: Any,
    lengths: Sequence[int],
    arrays: Callable[[Any], dict[str, np.ndarray]],
) -> list[Training]:
    train(documents[:WARM_UP], 1)
    return [_watched(partial(train, documents, length), arrays) for length in lengths]


def gensim_lengths(
    quick: bool, num_topics: int, lengths: Sequence[int], settings: dict[str, Any]
) -> list[Training]:
    """`LdaMulticore` with two workers."""
    from gensim.models import LdaMulticore

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics) | settings
    return _lengths(
        lambda documents, passes: LdaMulticore(documents, workers=2, passes=passes, **options),
        split.training,
        lengths,
        _lda_arrays,
    )


def scikit_learn_lengths(
    quick: bool, num_topics: int, lengths: Sequence[int], settings: dict[str, Any]
) -> list[Training]:
    """`LatentDirichletAllocation`, online, with two jobs and its own defaults."""
    from sklearn.decomposition import LatentDirichletAllocation

    split = data.split_newsgroups(quick)
    options = {"learning_method": "online", "random_state": 1, "n_jobs": 2} | settings
    return _lengths(
        lambda matrix, passes: LatentDirichletAllocation(num_topics, max_iter=passes, **options).fit(matrix),
        data.as_csr(split.training, len(split.dictionary)),
        lengths,
        lambda model: {"topics": model.components_.astype(np.float32)},
    )


def tomotopy_lengths(
    quick: bool, num_topics: int, lengths: Sequence[int], settings: dict[str, Any]
) -> list[Training]:
    """`tomotopy.LDAModel` with two threads, going on from one length to the next."""
    split = data.split_newsgroups(quick)
    model = tomotopy_model([document for document in split.training if document], num_topics)
    num_terms = len(split.dictionary)
    done: list[Training] = []
    for previous, length in pairwise([0, *lengths]):

        def train(iterations: int = length - previous) -> Any:
            model.train(iterations, workers=2, **settings)
            return model

        more = _watched(train, lambda model: {"topics": tomotopy_topics(model, num_terms)})
        more.seconds += done[-1].seconds if done else 0.0
        done.append(more)
    return done


def cluster_lengths(
    quick: bool, num_topics: int, lengths: Sequence[int], settings: dict[str, Any]
) -> list[Training]:
    """`distcorpus.models.LdaModel` on our cluster of one worker with two threads."""
    from distcorpus.models import LdaModel

    split = data.split_newsgroups(quick)
    options = lda_options(split.dictionary, num_topics) | settings
    with cluster(workers=1, threads=2):
        return _lengths(
            lambda documents, passes: LdaModel(documents, distributed=True, passes=passes, **options),
            split.training,
            lengths,
            _lda_arrays,
        )

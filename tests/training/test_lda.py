"""The one loop of online LDA, in process: against gensim's update rules, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from gensim.models import LdaModel

from distcorpus.algorithms.chunk import Chunk, as_chunk
from distcorpus.algorithms.lda import LDA_GRID, starting_gamma
from distcorpus.algorithms.online import OnlineLda, Plan, Progress
from distcorpus.algorithms.topics import LazyTopics, StatisticsSum
from distcorpus.engines.base import Block
from distcorpus.engines.threads import ThreadsEngine
from distcorpus.kernels import EStep
from distcorpus.training.lda import LdaTraining, Numbered, Observer, Reporter, estep_params


class StartingGamma:
    """Gives gensim's E-step the gamma that ours starts from."""

    def __init__(self, gammas):
        self._gammas = iter(gammas)

    def gamma(self, shape, scale, size):
        gamma = next(self._gammas).copy()  # gensim writes to it
        assert gamma.shape == size
        return gamma

    def rand(self, number):
        return np.zeros(number)


class ListSource:
    """Chunks in memory."""

    comes_again = False

    def __init__(self, training: LdaTraining, chunks: Sequence[Chunk]) -> None:
        self.documents = sum(chunk.n_docs for chunk in chunks)
        self._training = training
        self._chunks = chunks

    def chunks(self, pass_: int) -> Iterator[Numbered]:
        return enumerate(self._chunks)

    def blocks(self, number: int, chunk: Chunk) -> list[Block]:
        return self._training.cut(number, chunk)


def statistics_of(model: OnlineLda, plan: Plan, chunk: Chunk, total: StatisticsSum) -> dict:
    """Compute a chunk's statistics as one job."""
    params, words = estep_params(model, plan), chunk.words()
    table_row = np.searchsorted(words, np.arange(chunk.num_terms)).astype(np.int32)
    job = EStep(params, words, EStep.prepare(model.topics.rows(words), params), table_row)
    job.add(chunk, (0, 0))
    result = job.result()
    total.add(result.words, result.steps)
    return dict(result.extras)


@pytest.mark.parametrize("priors", [{}, {"alpha": "auto", "eta": "auto"}])
def test_training_is_gensims(lee_corpus, priors):
    """Several passes, updates and a rest, from the same gammas: alpha and eta too, where they are learnt."""
    documents, dictionary = lee_corpus.counts[:50], lee_corpus.dictionary
    options = {
        "num_topics": 5,
        "chunksize": 20,
        "passes": 2,
        "dtype": np.float64,
        "eval_every": None,
        **priors,
    }
    # Every document takes all iterations, for one that stops one sooner here than there would change the
    # rest.
    options |= {"gamma_threshold": 0.0, "iterations": 30}
    serial = LdaModel(id2word=dictionary, random_state=1, **options)
    serial.sync_state()  # a fresh gensim model leaves eta out of its first topics
    plan = Plan(
        passes=2,
        update_chunks=1,
        chunksize=20,
        decay=serial.decay,
        offset=serial.offset,
        iterations=serial.iterations,
        gamma_threshold=serial.gamma_threshold,
        seed=7,
        optimize_alpha=bool(priors),
        optimize_eta=bool(priors),
    )
    sizes = [20, 20, 10]
    gammas = [starting_gamma(n, 5, 7, (number, 0), np.float64) for number, n in enumerate(sizes)]
    serial.random_state = StartingGamma(gammas * 2)
    topics = LazyTopics.from_state(serial.state.eta, serial.state.sstats, len(documents))
    model = OnlineLda(topics, serial.alpha, serial.eta)
    chunks = [as_chunk(documents[n : n + 20], len(dictionary)) for n in (0, 20, 40)]
    with ThreadsEngine(2) as engine, LdaTraining("lda", engine, model, plan) as training:
        training.run(ListSource(training, chunks), Observer())
    serial.update(documents)
    np.testing.assert_allclose(model.topics.to_state(), serial.state.sstats, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.alpha, serial.alpha, rtol=1e-6)
    np.testing.assert_allclose(model.eta, serial.eta, rtol=1e-6)
    assert model.num_updates == serial.num_updates


def test_reports(lee_corpus):
    """The perplexity is the model's own of that chunk; the topics moved by what E[log beta] says."""
    documents, dictionary = lee_corpus.counts[:30], lee_corpus.dictionary
    num_terms = len(dictionary)
    rng = np.random.default_rng(0)
    topics = LazyTopics(np.full(num_terms, 0.2), rng.gamma(100.0, 0.01, (num_terms, 5)), numdocs=30)
    plan = Plan(1, 1, 10, 0.5, 4.0, 50, 1e-3, 0, eval_chunks=2, details=True)
    model = OnlineLda(topics, np.full(5, 0.2), topics.eta)
    reporter = Reporter(model, plan, progress := Progress())
    before = np.concatenate(list(model.log_topics()))
    chunk = as_chunk(documents[:10], num_terms)
    total = StatisticsSum(num_terms, 5, LDA_GRID)
    extras = statistics_of(model, plan, chunk, total)
    rho = model.mstep(plan, 0, total, extras)
    event = reporter.update(rho, 10, 30)
    after = np.concatenate(list(model.log_topics()))
    assert event["diff"] == pytest.approx(np.abs(after - before).mean())
    probabilities = topics.rows(np.arange(num_terms, dtype=np.int32)) / topics.totals()
    for number, _, words, shown in event["topics"]:
        assert sorted(shown, reverse=True) == shown
        assert words[0] == probabilities[:, number].argmax()
        assert shown[0] == pytest.approx(probabilities[:, number].max())
    assert progress.updates == 0  # it is the training run that counts
    assert reporter.perplexity(0, chunk, False, 30) is None
    serial = LdaModel(id2word=dictionary, num_topics=5, dtype=np.float64, alpha=[0.2] * 5, eta=0.2)
    serial.state.sstats[...] = topics.to_state()
    serial.sync_state()
    expected = serial.log_perplexity(documents[:10], total_docs=30)
    found = reporter.perplexity(1, chunk, False, 30)
    assert found["per_word"] == pytest.approx(expected, rel=1e-2)  # they start from other gammas
    assert found["words"] == chunk.data.sum()

"""Our models as gensim's: files, copies, inference, what is built on them, and what they refuse."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading

import gensim.models
import numpy as np
import pytest
from gensim.interfaces import TransformedCorpus
from gensim.matutils import Sparse2Corpus, corpus2csc
from gensim.models import CoherenceModel
from gensim.models.ldamodel import LdaState
from gensim.similarities import MatrixSimilarity

import distcorpus
from distcorpus.models import LdaModel, LsiModel, _drawing, lsimodel
from distcorpus.models._cluster import Cluster

LDA = {"num_topics": 8, "chunksize": 40, "random_state": 3}


@pytest.fixture
def lda(lee_corpus):
    return LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, **LDA)


@pytest.fixture
def lsi(lee_corpus):
    return LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=10)


def adopted(model):
    """The same model as one of ours, from gensim's attributes."""
    ours = LdaModel.__new__(LdaModel)
    ours.__setstate__(dict(vars(model)))
    return ours


def test_they_are_gensims_models(lda, lsi):
    assert isinstance(lda, gensim.models.LdaModel)
    assert isinstance(lsi, gensim.models.LsiModel)
    assert distcorpus.LdaModel is LdaModel
    assert distcorpus.LsiModel is LsiModel


def test_importing_the_package_does_not_load_gensim():
    program = "import sys, distcorpus; print('gensim' in sys.modules, distcorpus.LdaModel.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "LdaModel"]


def test_they_have_every_attribute_of_gensims(lee_corpus, lda, lsi):
    plain_lda = gensim.models.LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, **LDA)
    plain_lsi = gensim.models.LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=10)
    for ours, plain in ((lda, plain_lda), (lsi, plain_lsi)):
        assert set(vars(plain)) - set(vars(ours.as_gensim())) == set()
        for name, value in vars(ours.as_gensim()).items():
            expected = getattr(plain, name, None)
            assert name == "distcorpus_options" or type(value) is type(expected), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at_once", [1, 5000, _drawing.DRAWN_AT_ONCE])
def test_the_first_topics_are_gensims(lee_corpus, monkeypatch, dtype, at_once):
    monkeypatch.setattr(_drawing, "DRAWN_AT_ONCE", at_once)
    models = [
        cls(id2word=lee_corpus.dictionary, dtype=dtype, **LDA) for cls in (gensim.models.LdaModel, LdaModel)
    ]
    states = [(model.state.sstats, model.random_state.rand(3)) for model in models]
    assert states[0][0].dtype == states[1][0].dtype
    for expected, ours in zip(*states, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_an_interrupted_constructor_leaves_no_thread(lee_corpus):
    class Interrupting(list):
        def __iter__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LdaModel(Interrupting(lee_corpus.counts), id2word=lee_corpus.dictionary, **LDA)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("topics")]


# Inference.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inference_is_gensims(lee_corpus, dtype):
    """For the same state of the random numbers."""
    plain = gensim.models.LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, dtype=dtype, **LDA)
    ours = adopted(plain)
    documents = [*lee_corpus.counts[:20], [], [(3, 2.5)]]
    results = []
    for model in (plain, ours):
        model.random_state = np.random.RandomState(5)
        results.append(model.inference(documents, collect_sstats=True))
    (gamma, sstats), (our_gamma, our_sstats) = results
    assert our_gamma.dtype == our_sstats.dtype == dtype
    assert np.abs(our_gamma - gamma).sum() / gamma.sum() < 1e-4
    assert np.abs(our_sstats - sstats).sum() / sstats.sum() < 1e-4


@pytest.mark.parametrize("per_word_topics", [False, True])
def test_the_topics_of_a_corpus_are_gensims(lee_corpus, per_word_topics):
    """Whether chunk by chunk or document by document, and as often as they are read."""
    plain = gensim.models.LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, **LDA)
    ours = adopted(plain)
    documents = [*lee_corpus.counts[:90], [], [(3, 2.5)]]
    options = {"minimum_probability": 0.05, "minimum_phi_value": 0.1, "per_word_topics": per_word_topics}
    read = []
    for model in (plain, ours):
        topics = model.get_document_topics(documents, **options)
        assert isinstance(topics, TransformedCorpus)
        assert len(topics) == 92
        for _ in range(2):
            model.random_state = np.random.RandomState(5)
            read.append([one[0] if per_word_topics else one for one in topics])
        model.random_state = np.random.RandomState(5)
        first = topics[0][0] if per_word_topics else topics[0]
        assert [k for k, _ in first] == [k for k, _ in read[-1][0]]
    assert read[2] == read[3]
    differing = 0
    for expected, found in zip(read[0], read[2], strict=True):
        expected, found = dict(expected), dict(found)
        difference = max(abs(expected.get(k, 0) - found.get(k, 0)) for k in {*expected, *found})
        differing += difference > 1e-3  # a document may stop an iteration later
    assert differing <= 1
    assert not ours.per_word_topics
    assert ours[lee_corpus.counts[0]][0]
    matrix = corpus2csc(documents, num_terms=len(lee_corpus.dictionary))
    assert len(ours[matrix]) == 92
    assert [len(one) for one in ours[matrix][:2]] == [len(one) for one in list(ours[matrix])[:2]]


def test_bounds_are_gensims(lee_corpus):
    """With one eta a term; of a matrix gensim adds up all topics' priors as if they were one topic's."""
    eta = np.random.default_rng(0).uniform(0.1, 0.5, len(lee_corpus.dictionary))
    plain = gensim.models.LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, eta=eta, **LDA)
    ours = adopted(plain)
    documents = lee_corpus.counts[:50]
    bounds = []
    for model in (plain, ours):
        model.random_state = np.random.RandomState(5)
        gamma, _ = model.inference(documents)
        of_each = gamma[:, None] if model is plain else gamma  # gensim wants a matrix for each document
        bounds.append(
            [
                model.bound(documents, subsample_ratio=2.0),
                model.bound(documents, gamma=of_each),
                model.log_perplexity(documents, total_docs=500),
            ]
        )
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=1e-4)


def test_looking_at_the_topics_changes_nothing(lee_corpus, lda):
    """Whatever form the topics are held in, inference gives the same; and so does the next update."""
    other = copy.deepcopy(lda)
    assert lda._topics is not None or lda._state is not None
    assert lda.expElogbeta.shape == lda.state.sstats.shape
    expected = np.exp(lda.state.get_Elogbeta())
    np.testing.assert_allclose(lda.expElogbeta, expected, rtol=1e-4, atol=1e-30)
    for model in (lda, other):
        model.update(lee_corpus.counts[:50])
    assert np.array_equal(lda.get_topics(), other.get_topics())


def test_a_state_that_is_set_is_used(lee_corpus, lda):
    changed = copy.deepcopy(lda.state)
    changed.sstats[...] = changed.sstats[::-1]
    lda.state = changed
    lda.sync_state()
    assert np.array_equal(lda.get_topics()[0], changed.get_lambda()[0] / changed.get_lambda()[0].sum())
    rows, _ = lda.inference(lee_corpus.counts[:1])
    assert rows.shape == (1, 8)


@pytest.mark.parametrize("inference", ["vb", "cvb0"])
def test_transform_is_inference(lee_corpus, inference):
    model = LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, inference=inference, **LDA)
    parts = list(model.transform(iter(lee_corpus.counts), chunksize=128))
    assert [len(part) for part in parts] == [128, 128, 44]
    topics = np.concatenate(parts)
    np.testing.assert_allclose(topics.sum(axis=1), 1.0, rtol=1e-5)
    single = dict(model.get_document_topics(lee_corpus.counts[7], minimum_probability=0.0))
    assert np.abs(topics[7] - [single.get(k, 0.0) for k in range(8)]).max() < 0.05
    document_topics, word_topics, phis = model.get_document_topics(lee_corpus.counts[7], per_word_topics=True)
    assert document_topics
    assert [word for word, _ in word_topics] == [word for word, _ in lee_corpus.counts[7]]
    counts = dict(lee_corpus.counts[7])
    word, parts_of_word = phis[0]
    assert sum(value for _, value in parts_of_word) <= counts[word] * (1 + 1e-4)
    assert -20 < model.log_perplexity(lee_corpus.counts) < 0


def test_lsi_transform_is_gensims(lee_corpus, lsi):
    expected = np.array([[value for _, value in lsi[document]] for document in lee_corpus.tfidf[:50]])
    found = np.concatenate(list(lsi.transform(lee_corpus.tfidf[:50], chunksize=20)))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_cvb0_learns_better_topics(lee_corpus):
    """By held-out perplexity, each with its own inference (MODELS: Asuncion et al. 2009)."""
    scores = {}
    for inference in ("vb", "cvb0"):
        model = LdaModel(
            lee_corpus.counts[:250],
            id2word=lee_corpus.dictionary,
            num_topics=10,
            passes=5,
            offset=10,
            chunksize=50,
            alpha=0.1,
            eta=0.05,
            random_state=0,
            inference=inference,
        )
        theta = np.concatenate(list(model.transform([d[::2] for d in lee_corpus.counts[250:]])))
        likelihood = theta @ model.get_topics()
        scores[inference] = sum(
            count * np.log(likelihood[n, word])
            for n, document in enumerate(lee_corpus.counts[250:])
            for word, count in document[1::2]
        )
    assert scores["cvb0"] > scores["vb"]


@pytest.mark.parametrize("inference", ["vb", "cvb0"])
def test_alpha_is_learnt(inference):
    """From documents that were drawn with a known one."""
    rng = np.random.default_rng(1)
    topics = rng.dirichlet(np.full(200, 0.05), 5)
    alpha = np.array([0.05, 0.05, 0.1, 0.1, 0.3])
    corpus = []
    for theta in rng.dirichlet(alpha, 1000):
        words = rng.choice(200, size=60, p=theta @ topics)
        corpus.append([(word, count) for word, count in enumerate(np.bincount(words)) if count])
    model = LdaModel(
        corpus,
        id2word=dict(enumerate(map(str, range(200)))),
        num_topics=5,
        alpha="auto",
        eta=0.05,
        chunksize=200,
        passes=20,
        offset=4,
        random_state=0,
        inference=inference,
    )
    assert model.alpha.sum() == pytest.approx(alpha.sum(), rel=0.25)
    assert np.sort(model.alpha)[-1] == pytest.approx(0.3, rel=0.25)


# Files and copies.

COPIES = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "copy": copy.deepcopy}


@pytest.mark.parametrize("make", ["pickle", "copy", "save", "gensim and back"])
def test_copies_of_lda(lee_corpus, lda, tmp_path, make):
    lda.alpha = lda.alpha * 2
    path = str(tmp_path / "model")
    if make in COPIES:
        other = COPIES[make](lda)
    else:
        lda.save(path)
        if make == "gensim and back":
            plain = gensim.models.LdaModel.load(path)
            assert type(plain) is gensim.models.LdaModel
            assert plain[lee_corpus.counts[3]]
            plain.update(lee_corpus.counts[:0] or lee_corpus.counts[:1], passes=0)
            plain = gensim.models.LdaModel.load(path)
            plain.save(path)
        other = LdaModel.load(path)
    assert type(other) is LdaModel
    assert np.array_equal(other.state.sstats, lda.state.sstats)
    assert np.array_equal(other.expElogbeta, lda.expElogbeta)
    assert np.array_equal(other.alpha, lda.alpha)
    assert other.id2word == lda.id2word
    for model in (lda, other):
        model.random_state = np.random.RandomState(1)
        model.update(lee_corpus.counts[:50])
    assert np.array_equal(other.state.sstats, lda.state.sstats)


@pytest.mark.parametrize("make", ["pickle", "copy", "save", "gensim and back"])
def test_copies_of_lsi(lee_corpus, lsi, tmp_path, make):
    path = str(tmp_path / "model")
    if make in COPIES:
        other = COPIES[make](lsi)
    else:
        lsi.save(path)
        if make == "gensim and back":
            plain = gensim.models.LsiModel.load(path)
            assert type(plain) is gensim.models.LsiModel
            plain.save(path)
            plain.add_documents(lee_corpus.tfidf[:50])
        other = LsiModel.load(path)
    assert type(other) is LsiModel
    assert np.array_equal(other.projection.u, lsi.projection.u)
    # The documents stay with the model itself: all copies go on from its vectors.
    alike = COPIES["pickle"](lsi)
    for model in (alike, other):
        model.add_documents(lee_corpus.tfidf[:50])
    assert np.array_equal(other.projection.u, alike.projection.u)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_additions_count_as_if_all_had_come_at_once(lee_corpus, dtype, decay):
    options = {"id2word": lee_corpus.dictionary, "num_topics": 20, "chunksize": 50, "decay": decay}
    whole = LsiModel(lee_corpus.tfidf, dtype=dtype, **options)
    model = LsiModel(lee_corpus.tfidf[:150], dtype=dtype, **options)

    def failing():
        yield from lee_corpus.tfidf[:60]
        raise OSError("the disk is gone")

    for part in (lee_corpus.tfidf[150:200], failing(), lee_corpus.tfidf[200:]):
        if isinstance(part, list):
            model.add_documents(part)
            continue
        before = model.projection.s.copy()
        with pytest.raises(OSError, match="the disk is gone"):
            model.add_documents(part)
        np.testing.assert_array_equal(model.projection.s, before)
    np.testing.assert_allclose(model.projection.s, whole.projection.s, rtol=1e-6)
    assert model.docs_processed == 300


def test_documents_that_are_too_many_to_keep(lee_corpus, monkeypatch):
    """The factors then count for them; what is kept is freed."""
    monkeypatch.setattr(lsimodel, "KEPT_BYTES", 10_000)
    options = {"id2word": lee_corpus.dictionary, "num_topics": 20, "chunksize": 50}
    model = LsiModel(lee_corpus.tfidf[:150], **options)
    assert model._kept is None
    model.add_documents(lee_corpus.tfidf[150:])
    exact = LsiModel(lee_corpus.tfidf, **options).projection.s
    np.testing.assert_allclose(model.projection.s, exact, rtol=0.05)
    assert (model.projection.s < exact * 1.0001).all()


#: Uses our files, and makes some for us.
PLAIN_GENSIM = """
import sys
sys.modules["distcorpus"] = None  # not to be imported
import pickle
import gensim.models

paths, counts, tfidf = pickle.load(sys.stdin.buffer)
found = []
for path in paths:
    lda = gensim.models.LdaModel.load(path + "-lda")
    lsi = gensim.models.LsiModel.load(path + "-lsi")
    assert lda[counts[0]] and lsi[tfidf[0]]
    lda.update(counts)
    lsi.add_documents(tfidf)
    lda.save(path + "-lda-again")
    lsi.save(path + "-lsi-again")
    found.append((lda.get_topics(), lsi.projection.u))
sys.stdout.buffer.write(pickle.dumps(found))
"""


@pytest.mark.long
def test_files_go_to_gensim_and_back_where_this_package_is_not_installed(cluster, lee_corpus, tmp_path):
    """Of models that were trained here, and on a cluster."""
    paths = {distributed: str(tmp_path / str(distributed)) for distributed in (False, True)}
    for distributed, path in paths.items():
        options = {"id2word": lee_corpus.dictionary, "num_topics": 8, "distributed": distributed}
        LdaModel(lee_corpus.counts, **options).save(path + "-lda")
        LsiModel(lee_corpus.tfidf, **options).save(path + "-lsi")
    given = pickle.dumps((list(paths.values()), lee_corpus.counts[:50], lee_corpus.tfidf[:50]))
    done = subprocess.run([sys.executable, "-c", PLAIN_GENSIM], input=given, capture_output=True, check=True)
    for path, (topics, u) in zip(paths.values(), pickle.loads(done.stdout), strict=True):
        lda, lsi = LdaModel.load(path + "-lda-again"), LsiModel.load(path + "-lsi-again")
        assert np.array_equal(lda.get_topics(), topics)
        assert np.array_equal(lsi.projection.u, u)
        lda.update(lee_corpus.counts[50:100])
        lsi.add_documents(lee_corpus.tfidf[50:100])
        assert lda.state.numdocs == lsi.docs_processed == 400


def test_options_survive_a_file(lee_corpus, tmp_path):
    model = LdaModel(
        id2word=lee_corpus.dictionary, inference="cvb0", update_chunks=3, progress=print, num_topics=3
    )
    model.save(str(tmp_path / "model"))
    loaded = LdaModel.load(str(tmp_path / "model"))
    assert (loaded.variant, loaded.update_chunks, loaded.progress) == ("cvb0", 3, True)


def test_a_distributed_model_is_saved_without_its_cluster(cluster, lee_corpus, tmp_path):
    for model, corpus in ((LdaModel, lee_corpus.counts), (LsiModel, lee_corpus.tfidf)):
        trained = model(corpus, id2word=lee_corpus.dictionary, num_topics=5, distributed=True)
        trained.save(str(tmp_path / "model"))
        copies = copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))
        for other in (model.load(str(tmp_path / "model")), *copies):
            assert other[corpus[0]]
            (other.update if model is LdaModel else other.add_documents)(corpus[:20])


# What is built on them.


def test_coherence_and_similarities(lee_corpus, lda, lsi):
    for model, corpus in ((lda, lee_corpus.counts), (lsi, lee_corpus.tfidf)):
        coherence = CoherenceModel(
            model=model, corpus=corpus, dictionary=lee_corpus.dictionary, coherence="u_mass"
        )
        assert np.isfinite(coherence.get_coherence())
        index = MatrixSimilarity(model[corpus], num_features=10)
        assert index[model[corpus[4]]].argmax() == 4 or model is lda
    assert len(lda.top_topics(lee_corpus.counts[:50], topn=5)) == 8
    difference, _ = lda.diff(lda)
    assert difference.shape == (8, 8)


@pytest.mark.parametrize("coherence", ["u_mass", "c_v"])
def test_coherence_is_that_of_gensims_model(lee_corpus, lda, coherence):
    words = lee_corpus.dictionary
    options = {
        "texts": [[words[word] for word, _ in document] for document in lee_corpus.counts],
        "corpus": lee_corpus.counts,
        "dictionary": words,
        "coherence": coherence,
        "topn": 5,
        "processes": 1,
    }
    found, expected = (CoherenceModel(model=model, **options) for model in (lda, lda.as_gensim()))
    assert found.get_coherence_per_topic() == expected.get_coherence_per_topic()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_pyldavis(lee_corpus, lda):
    """It asks for the topics, and infers those of the whole corpus."""
    gensim_models = pytest.importorskip("pyLDAvis.gensim_models")
    tables = []
    for model in (lda, lda.as_gensim()):
        model.random_state = np.random.RandomState(5)
        shown = gensim_models.prepare(model, lee_corpus.counts, lee_corpus.dictionary, n_jobs=1)
        tables.append(shown.topic_coordinates.sort_index()["Freq"].to_numpy())
        assert len(shown.topic_info["Term"].unique()) > 30
    assert len(tables[0]) == 8
    assert tables[0].sum() == pytest.approx(100)
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-3)


# What is gensim's own.


def calls_of_lda(corpus):
    """Every method that `LdaModel` inherits, with all of its arguments, and what it gives or changes."""
    gamma = np.random.default_rng(0).gamma(1.0, 1.0, (20, 8)).astype(np.float32)

    def lambdas(model):
        drawn = np.random.default_rng(1).gamma(1.0, 1.0, model.state.sstats.shape)
        return (drawn + 1e-3).astype(np.float32)

    def statistics(model):
        other = LdaState(model.eta, model.state.sstats.shape, model.dtype)
        other.sstats[...] = lambdas(model)
        other.numdocs = 30
        return other

    def top_topics(model):
        options = {"texts": None, "dictionary": None, "window_size": None, "coherence": "u_mass"}
        return model.top_topics(corpus=corpus, topn=5, processes=1, **options)

    def diff(model):
        differences, words = model.diff(
            other=model,
            distance="jaccard",
            num_words=20,
            n_ann_terms=5,
            diagonal=True,
            annotation=True,
            normed=False,
        )
        return differences, words.tolist()

    def estep(model):
        state = statistics(model)
        model.random_state = np.random.RandomState(5)
        return model.do_estep(chunk=corpus[:20], state=state), state.sstats, state.numdocs

    def mstep(model):
        model.do_mstep(rho=0.3, other=statistics(model), extra_pass=False)
        return model.get_topics(), model.expElogbeta, model.num_updates

    def sync(model):
        model.sync_state(current_Elogbeta=np.log(lambdas(model)))
        return model.expElogbeta

    def cleared(model):
        model.clear()
        return model.state

    def event(model):
        model.add_lifecycle_event(event_name="seen", log_level=20)
        return model.lifecycle_events[-1]["event"]

    return {
        "show_topics": lambda m: (m.show_topics(), m.show_topics(3, num_words=4, log=True, formatted=False)),
        "print_topics": lambda m: m.print_topics(num_topics=3, num_words=4),
        "show_topic": lambda m: m.show_topic(topicid=1, topn=3),
        "print_topic": lambda m: m.print_topic(topicno=1, topn=3),
        "get_topics": lambda m: m.get_topics(),
        "get_topic_terms": lambda m: m.get_topic_terms(topicid=1, topn=3),
        "get_term_topics": lambda m: m.get_term_topics(word_id=5, minimum_probability=1e-6),
        "top_topics": top_topics,
        "diff": diff,
        "init_dir_prior": lambda m: m.init_dir_prior(prior="asymmetric", name="alpha"),
        "update_alpha": lambda m: (m.update_alpha(gammat=gamma, rho=0.5), m.alpha),
        "update_eta": lambda m: (m.update_eta(lambdat=lambdas(m), rho=0.5), m.eta),
        "do_estep": estep,
        "do_mstep": mstep,
        "sync_state": sync,
        "clear": cleared,
        "add_lifecycle_event": event,
    }


CALLS_OF_LSI = {
    "show_topics": lambda m: (m.show_topics(), m.show_topics(3, num_words=4, log=True, formatted=False)),
    "print_topics": lambda m: m.print_topics(num_topics=3, num_words=4),
    "print_debug": lambda m: m.print_debug(num_topics=3, num_words=4),
    "show_topic": lambda m: m.show_topic(topicno=1, topn=3),
    "print_topic": lambda m: m.print_topic(topicno=1, topn=3),
    "get_topics": lambda m: m.get_topics(),
    "add_lifecycle_event": lambda m: m.add_lifecycle_event(event_name="seen", log_level=20),
}


def assert_equal(found, expected):
    """Up to rounding, however deep the numbers are."""
    assert type(found) is type(expected)
    if isinstance(found, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(found, np.ndarray | float | np.floating):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    else:
        assert found == expected


@pytest.mark.parametrize("method", calls_of_lda([]))
def test_inherited_methods_of_lda_are_gensims(lee_corpus, lda, method):
    call = calls_of_lda(lee_corpus.counts)[method]
    assert_equal(call(copy.deepcopy(lda)), call(copy.deepcopy(lda).as_gensim()))


@pytest.mark.parametrize("method", CALLS_OF_LSI)
def test_inherited_methods_of_lsi_are_gensims(lsi, method):
    call = CALLS_OF_LSI[method]
    assert_equal(call(copy.deepcopy(lsi)), call(copy.deepcopy(lsi).as_gensim()))


def test_arguments_of_inference_count(lee_corpus):
    options = {**LDA, "id2word": lee_corpus.dictionary, "alpha": 0.1}
    document = lee_corpus.counts[7]
    default = LdaModel(lee_corpus.counts, **options)
    all_topics = LdaModel(lee_corpus.counts, minimum_probability=0.0, **options)
    assert len(default[document]) < len(all_topics[document]) == 8
    fewer = default.get_document_topics(document, minimum_probability=0.5)
    assert len(fewer) < len(default[document])
    assert len(default.__getitem__(document, eps=0.5)) == len(fewer)
    words = {}
    for least in (0.01, 0.9):
        model = LdaModel(lee_corpus.counts, per_word_topics=True, minimum_phi_value=least, **options)
        _, _, phis = model[document]
        words[least] = sum(len(parts) for _, parts in phis)
    assert words[0.9] < words[0.01]
    _, _, phis = default.get_document_topics(document, minimum_phi_value=0.9, per_word_topics=True)
    assert abs(sum(len(parts) for _, parts in phis) - words[0.9]) <= 3


def test_lsi_of_a_corpus_is_gensims(lee_corpus, lsi):
    plain = lsi.as_gensim()
    for options in ({}, {"scaled": True}, {"chunksize": 7}):
        found, expected = (
            [dict(one) for one in model.__getitem__(lee_corpus.tfidf[:30], **options)]
            for model in (lsi, plain)
        )
        assert found == expected
    assert lsi[lee_corpus.tfidf[0]] == plain[lee_corpus.tfidf[0]]


# What is refused.

WIDE_MATRIX = corpus2csc([[(10**5, 1.0)]])

BAD_LDA = {
    "num_topics": [0, -2.5, float("nan"), "many"],
    "chunksize": [0, -1, None],
    "passes": [-1, 1.5],
    "update_every": [-1, "often"],
    "decay": [-0.1, float("inf"), float("nan"), "slow"],
    "offset": [-1.0, 0.5, float("inf")],
    "eval_every": [1.5, "often"],
    "iterations": [-1, 2.5],
    "gamma_threshold": [-1.0, "small"],
    "minimum_probability": [-0.1, 1.1],
    "minimum_phi_value": [-1.0],
    "random_state": ["seed", -1],
    "alpha": [[0.1, 0.2], -1.0, [0.1] * 7 + [np.nan], "wrong"],
    "eta": [np.ones((2, 2)), 0.0, "asymmetric"],
    "dtype": [np.float16, np.int32, "nothing"],
    "inference": ["gibbs"],
    "update_chunks": [0, 1.5],
    "progress": ["yes"],
    "callbacks": [5, ["perplexity"]],
    "checkpoint": [5, "/nowhere/checkpoint"],
    "checkpoint_every": [0],
    "workers": [0, "all"],
    "ns_conf": [{"hmac_key": "x"}, "localhost"],
    "id2word": [{}, 5, {"word": 0}],
    "corpus": [5, "text", [], WIDE_MATRIX],
}
BAD_LSI = {
    "num_topics": [0, "many"],
    "chunksize": [0],
    "decay": [0.0, -1.0, float("nan"), "slow"],
    "power_iters": [-1, 1.5],
    "extra_samples": [-1, "many"],
    "dtype": [np.float16, np.int64],
    "random_seed": [-1, "seed"],
    "progress": ["yes"],
    "workers": [0],
    "ns_conf": [{"hmac_key": "x"}, "localhost"],
    "id2word": [5, {"word": 0}],
    "corpus": [5, "text", [], WIDE_MATRIX],
}


@pytest.mark.parametrize(
    ("model", "argument", "value"),
    [(LdaModel, name, value) for name, values in BAD_LDA.items() for value in values]
    + [(LsiModel, name, value) for name, values in BAD_LSI.items() for value in values],
)
def test_bad_arguments_are_refused_by_name(monkeypatch, lee_corpus, model, argument, value):
    """Before a cluster is looked for, which would fail."""
    monkeypatch.setattr(Cluster, "connect", lambda cluster, name: pytest.fail("a cluster was looked for"))
    options = {"corpus": lee_corpus.counts[:3], "id2word": lee_corpus.dictionary, "num_topics": 8}
    with pytest.raises((ValueError, TypeError), match=argument):
        model(**{**options, "distributed": True, argument: value})


@pytest.mark.parametrize(
    "argument",
    [
        "chunksize",
        "decay",
        "offset",
        "passes",
        "update_every",
        "eval_every",
        "iterations",
        "gamma_threshold",
    ],
)
def test_update_refuses_them_too(lee_corpus, lda, argument):
    for value in BAD_LDA[argument]:
        if value is not None:
            with pytest.raises((ValueError, TypeError), match=argument):
                lda.update(lee_corpus.counts, **{argument: value})


def test_methods_refuse_bad_arguments(lee_corpus, lda, lsi):
    for argument in ("chunksize", "decay"):
        for value in BAD_LSI[argument]:
            with pytest.raises((ValueError, TypeError), match=argument):
                lsi.add_documents(lee_corpus.tfidf, **{argument: value})
    for model in (lda, lsi):
        with pytest.raises(ValueError, match="chunksize"):
            next(model.transform(lee_corpus.counts, chunksize=0))
    with pytest.raises(ValueError, match="minimum_probability"):
        lda.transform(lee_corpus.counts, sparse=True, minimum_probability=2.0)
    with pytest.raises(ValueError, match="subsample_ratio"):
        lda.bound(lee_corpus.counts, subsample_ratio=0.0)
    with pytest.raises(ValueError, match="total_docs"):
        lda.log_perplexity(lee_corpus.counts, total_docs=0)
    for gamma in (np.ones((9, 8)), np.ones((11, 8)), np.ones((10, 7)), np.ones(10)):
        with pytest.raises(ValueError, match="gamma has shape"):
            lda.bound(lee_corpus.counts[:10], gamma=gamma)
    with pytest.raises(ValueError, match="gamma has shape"):
        lda.bound(lee_corpus.counts[:50], gamma=np.ones((lda.chunksize, 8)))
    with pytest.raises(ValueError, match="interrupted"):
        lda.update(lee_corpus.counts, resume=True)


def test_wrong_documents_are_refused(lee_corpus, lda, lsi):
    for model in (lda.update, lsi.add_documents):
        with pytest.raises(ValueError, match="chunk 0: document 1: term id 99999"):
            model([[(0, 1)], [(99999, 1)]])
        with pytest.raises(TypeError, match="document 0"):
            model(["words, not numbers"])
        with pytest.raises(ValueError, match="2000 terms"):
            model(corpus2csc([[(1999, 1.0)]], num_terms=2000))
    with pytest.raises(ValueError, match="negative"):
        lda.update([[(0, -1)]])
    with pytest.raises(ValueError, match="generator"):
        LdaModel(document for document in lee_corpus.counts)
    with pytest.raises(ValueError, match="at least one"):
        LsiModel()
    with pytest.raises(ValueError, match="not been trained"):
        next(LsiModel(id2word=lee_corpus.dictionary).transform(lee_corpus.tfidf))


def test_a_corpus_that_changes_its_size_is_noticed(lee_corpus, lda):
    class Shrinking(list):
        def __len__(self):
            return 301

    with pytest.raises(RuntimeError, match="301"):
        lda.update(Shrinking(lee_corpus.counts))


@pytest.mark.parametrize("distributed", [False, True])
def test_empty_corpora_change_nothing(request, lee_corpus, distributed):
    """Also where only reading tells; a model cannot be made of one."""
    if distributed:
        request.getfixturevalue("cluster")
    options = {"id2word": lee_corpus.dictionary, "num_topics": 4, "distributed": distributed}
    lda, lsi = LdaModel(lee_corpus.counts, **options), LsiModel(lee_corpus.tfidf, **options)
    before = lda.state.sstats.copy(), lsi.projection.u.copy()
    matrix = corpus2csc([], num_terms=len(lee_corpus.dictionary))
    for empty in ([], iter([]), matrix, Sparse2Corpus(matrix)):
        lda.update(empty)
        lsi.add_documents(empty)
    for empty in ([], iter([]), matrix):
        for model in (LdaModel, LsiModel):
            with pytest.raises(ValueError, match="corpus is empty"):
                model(empty, **options)
    assert np.array_equal(lda.state.sstats, before[0])
    assert np.array_equal(lsi.projection.u, before[1])
    lda.update(lee_corpus.counts[:20])
    lsi.add_documents(lee_corpus.tfidf[:20])

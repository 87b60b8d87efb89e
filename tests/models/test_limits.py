"""At the ends of what numbers can hold: the right answer, or an error that names the documents."""

from __future__ import annotations

import logging
import pickle
import re

import gensim.models
import numpy as np
import pytest
import scipy.sparse
from gensim.matutils import Sparse2Corpus, corpus2csc
from gensim.models.ldamodel import LdaState

from distcorpus.algorithms import lsi as algorithms_lsi
from distcorpus.corpora import Corpus
from distcorpus.models import LdaModel, LsiModel, lsimodel

WORDS = dict(enumerate("abcd"))
DOCUMENTS = [[(0, 1), (1, 2)], [(1, 1), (2, 3)], [(0, 2), (3, 1)], [(2, 1), (3, 2)]] * 3


def lda(documents=DOCUMENTS, **options):
    return LdaModel(documents, id2word=WORDS, **{"num_topics": 2, "random_state": 1, **options})


@pytest.mark.parametrize("update", [{"update_every": 0}, {"update_every": 4}])
def test_counts_of_several_chunks_that_add_up_to_too_much(update):
    documents = [[(0, 1e9)], [(1, 1)], [(0, 1e9)], [(0, 1e9)]]
    message = r"^chunk [023], documents 0-0: term id 0: a sum exceeds .*\(2147483648\).* give smaller counts"
    with pytest.raises(OverflowError, match=message):
        lda(documents, num_topics=1, chunksize=1, **update)
    # As they come one by one, they can be counted.
    assert lda(documents, num_topics=1, chunksize=1).state.get_lambda()[0, 0] > 1e9


def test_statistics_that_are_no_numbers_are_refused():
    model = lda()
    model.state.sstats[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^state\.sstats has what is no number"):
        model.update(DOCUMENTS)


def halves(count):
    """Documents of a few words, every second one of other words than the rest."""
    random = np.random.default_rng(0)
    return [
        [(int(word), count) for word in sorted(random.choice(20, 8, replace=False) + 20 * (number % 2))]
        for number in range(60)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("count", "passes"), [(1e-4, 20), (1e-4, 10), (1e-5, 3), (1e-5, 20)])
def test_topics_of_hardly_any_words_are_gensims(count, passes, dtype):
    """Their weights exp(psi(lambda) - psi(total)) are of numbers near 0, where psi has a pole."""
    options = {"id2word": dict.fromkeys(range(40), "w"), "num_topics": 2, "random_state": 1, "passes": passes}
    options |= {"eta": 1e-6, "alpha": 0.5, "chunksize": 60, "dtype": dtype, "eval_every": None}
    ours, plain = (cls(halves(count), **options) for cls in (LdaModel, gensim.models.LdaModel))
    assert np.isfinite(ours.expElogbeta).all()
    # Each of the statistics is rounded to the grid in each pass.
    np.testing.assert_allclose(ours.state.sstats, plain.state.sstats, atol=passes * 2.0**-22, rtol=1e-3)


def lsi(documents=DOCUMENTS, **options):
    return LsiModel(documents, id2word=WORDS, **{"num_topics": 2, **options})


BAD = {
    "beyond int32": ((2**31, 1), "term id 2147483648 is outside the vocabulary of 4 terms"),
    "beyond": ((4, 1), "term id 4 is outside"),
    "negative": ((-1, 1), "term id -1 is outside"),
    "fraction": ((0.5, 1), "term id 0.5 is not a whole number"),
    "NaN as an id": ((np.nan, 1), "term id nan is outside"),
    "NaN": ((0, np.nan), "term id 0 has a value that is not finite"),
    "infinite": ((0, np.inf), "term id 0 has a value that is not finite"),
    "huge": ((0, 1e200), r"term id 0 has the value 1e\+200"),
}


@pytest.mark.parametrize("name", BAD)
def test_lsi_refuses_documents_by_name(name):
    """Compiled code would read beyond its arrays."""
    pair, message = BAD[name]
    model = lsi()
    for document in ([pair], [(1, 1.0), pair], [(1, 1.0)] * 9 + [pair], np.array([pair], np.float64)):
        with pytest.raises(ValueError, match=f"^chunk 0: document 0: {message}"):
            model[document]
    corpus = [[(0, 1)]] * 6 + [[pair]]
    with pytest.raises(ValueError, match=f"^chunk 1: document 2: {message}"):
        list(model.__getitem__(corpus, chunksize=4))
    with pytest.raises(ValueError, match=f"document 6: {message}"):
        model.__getitem__(corpus, chunksize=None)
    for document in (["words"], [(0, "one")], [(0, 1, 2)]):
        with pytest.raises(TypeError, match="document 0 is not a bag of words"):
            model[document]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lsi_projects_good_documents_as_gensim(lee_corpus, dtype):
    ours = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=10, dtype=dtype)
    plain = ours.as_gensim()
    tolerance = 2e-6 if dtype == np.float32 else 1e-14

    def check(given, expected):
        assert [topic for topic, _ in given] == [topic for topic, _ in expected]
        values, others = (np.array([value for _, value in pairs]) for pairs in (given, expected))
        assert values.dtype == others.dtype
        np.testing.assert_allclose(values, others, rtol=tolerance, atol=tolerance)

    for document in [[], lee_corpus.tfidf[3][:5], lee_corpus.tfidf[3], lee_corpus.tfidf[3][::-1]]:
        for scaled in (False, True):
            check(ours.__getitem__(document, scaled), plain.__getitem__(document, scaled))
    check(ours[iter(lee_corpus.tfidf[3])], plain[lee_corpus.tfidf[3]])
    check(ours[np.array(lee_corpus.tfidf[3])], plain[lee_corpus.tfidf[3]])  # which gensim cannot read
    check(ours[[(5, 1.0), (2, -2.0), (5, 1.0), (7, 0)]], plain[[(2, -2.0), (5, 2.0)]])
    assert ours[[(0, 0.0)]] == []
    some = [lee_corpus.tfidf[number] for number in range(30)]
    for chunksize in (7, 512, None):
        found = [model.__getitem__(some, chunksize=chunksize) for model in (ours, plain)]
        assert len(found[0]) == len(found[1]) == 30
        assert type(found[1]) in type(found[0]).__mro__
        for given, expected in zip(*found, strict=True):
            check(given, expected)
    check(ours[some][4], plain[some][4])
    arrays = [np.array(document) for document in some]
    for given, expected in zip(ours[arrays], plain[some], strict=True):
        check(given, expected)
    scaled = ours.__getitem__(some, scaled=True, chunksize=None)
    for given, document in zip(scaled, some, strict=True):
        check(given, plain.__getitem__(document, scaled=True))


class Rewinding:
    """A corpus that is its own iterator, and begins anew whenever it is iterated over."""

    def __init__(self, documents):
        self._documents = documents
        iter(self)

    def __len__(self):
        return len(self._documents)

    def __iter__(self):
        self._left = iter(self._documents)
        return self

    def __next__(self):
        return next(self._left)


@pytest.mark.parametrize("before", [0, 1, 12])
def test_a_corpus_that_is_its_own_iterator_is_read_once(before):
    model, plain = lda(), lsi()
    for infer in (model.__getitem__, model.get_document_topics, plain.__getitem__):
        corpus = Rewinding(DOCUMENTS)
        for _ in range(before):
            next(corpus)
        assert len(list(infer(corpus))) == 12
    corpus = Rewinding(DOCUMENTS)
    assert list(plain[corpus]) == [plain[document] for document in DOCUMENTS]
    assert len(list(model.get_document_topics(Rewinding(DOCUMENTS), per_word_topics=True))) == 12


def test_sparse_arrays_of_one_dimension_are_refused():
    array = scipy.sparse.coo_array(np.ones(4))
    for call in (lda, lsi, lda().update, lsi().add_documents, lda().__getitem__, lsi().__getitem__):
        with pytest.raises(ValueError, match=r"sparse array of shape \(4,\): give one of terms x documents"):
            call(array)
    with pytest.raises(ValueError, match=r"sparse array of shape \(4,\)"):
        LdaModel(array, num_topics=2)
    for transform in (lda().transform, lsi().transform):
        with pytest.raises(ValueError, match=r"sparse array of shape \(4,\)"):
            next(transform(array))


def scaled_spectrum(factor, **options):
    """Singular values of some documents times a factor, divided by it, and those of LAPACK."""
    documents = [[(word, factor * value) for word, value in document] for document in DOCUMENTS]
    exact = np.linalg.svd(corpus2csc(DOCUMENTS, num_terms=4).toarray(), compute_uv=False)
    return lsi(documents, num_topics=4, **options).projection.s / factor, exact


@pytest.mark.parametrize("factor", [1e-150, 1e-140, 1e140, 3e149])
def test_lsi_up_to_the_ends_of_the_range(factor):
    for chunksize in (5, 100):
        np.testing.assert_allclose(*scaled_spectrum(factor, chunksize=chunksize), rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-151, 1e-155, 1e-160, 1e-162, 1e-165, 1e-200])
def test_lsi_refuses_weights_whose_squares_are_too_small(factor):
    documents = [[(0, factor)], [(1, -2 * factor), (2, factor)], [(1, factor)]]
    for chunksize, where in ((10, "chunk 0: document 1"), (1, "chunk 1: document 0")):
        with pytest.raises(ValueError, match=rf"^{where}: term id 1 has the value 2e-\d+, and no document"):
            lsi(documents, chunksize=chunksize)
    assert lsi([*documents, [(3, 2.0)]], chunksize=1).projection.s[0] == pytest.approx(2.0)
    model = lsi()
    before = model.projection.s.copy()
    model.add_documents(documents)  # which weigh nothing beside the others
    np.testing.assert_allclose(model.projection.s, before, rtol=1e-12)


def test_lsi_of_many_documents_with_large_weights():
    """Each value may be 9e149, and a thousand of their squares are more than the grid had room for."""
    documents = [[(0, 9e149)]] * 1000 + [[(1, 9e149)]]
    s = lsi(documents, chunksize=100).projection.s
    np.testing.assert_allclose(s / 9e149, [np.sqrt(1000), 1], rtol=1e-4)


def test_lsi_refuses_squares_that_add_up_to_too_much(monkeypatch):
    monkeypatch.setattr(algorithms_lsi, "LARGEST_NORM", 1e300)
    message = (
        r"^the squares of the documents' values add up to 4\.05e\+301, and must to less than 1e\+300: divide"
    )
    with pytest.raises(ValueError, match=message):
        lsi([[(0, 9e149)]] * 120, chunksize=50)


@pytest.mark.parametrize(
    ("decay", "chunksize", "message"),
    [
        (1e200, 4, r"^decay=1e\+200: it was applied 4 times"),
        (1e80, 4, r"^decay=1e\+80: it was applied 4 times"),
        (1e76, 4, r"^the squares of the documents' values, weighed by decay=1e\+76, add up to"),
    ],
)
def test_lsi_refuses_a_decay_that_grows_beyond_all_bounds(decay, chunksize, message):
    with pytest.raises(ValueError, match=message):
        lsi([[(0, 1e10), (1, 1.0)]] * 12, decay=decay, chunksize=chunksize)
    assert np.isfinite(lsi(decay=1e50, chunksize=4).projection.s).all()


def test_lsi_refuses_a_decay_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"weighed by decay=1e-200, add up to 0, and must to 1e-300 or more"):
        lsi([*DOCUMENTS, [], []], decay=1e-200, chunksize=2)
    s = lsi([*DOCUMENTS, [(0, 3.0)], []], decay=1e-200, chunksize=2).projection.s
    np.testing.assert_allclose(s, [3.0])


@pytest.mark.parametrize("factor", [1e-46, 1e-40])
def test_lsi_refuses_singular_values_that_float32_does_not_hold(factor):
    with pytest.raises(
        ValueError, match=r"^singular values down to \de-\d+ are below what dtype=float32 holds"
    ):
        lsi([[(0, factor)], [(1, 2 * factor)]], dtype=np.float32)
    s = lsi([[(0, factor)], [(1, 2 * factor)]]).projection.s
    np.testing.assert_allclose(s / factor, [2, 1], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 1e38}, r"^eta adds up to 4e\+38, which is more than float32 has room for"),
        ({"alpha": [3e38, 3e38]}, r"^alpha adds up to 6e\+38, which is more than float32"),
        ({"eta": 1e308, "dtype": np.float64}, "^eta adds up to inf, which is more than float64"),
        ({"eta": np.full((2, 4), 5e37)}, r"^eta adds up to 2e\+38"),
    ],
)
def test_priors_whose_sum_is_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lda(**options)


def test_large_priors_are_dirichlets():
    model = lda(eta=1e36, alpha=[1e37, 3e37])
    np.testing.assert_allclose(model.get_topics(), np.full((2, 4), 0.25), rtol=1e-5)
    assert [probability for _, probability in model[DOCUMENTS[0]]] == pytest.approx([0.25, 0.75])
    assert np.isfinite(model.log_perplexity(DOCUMENTS))


def test_lda_refuses_counts_that_would_be_rounded_away():
    for documents in (halves(1e-8), iter(halves(3e-6))):
        with pytest.raises(
            ValueError, match=r"^chunk 0: its largest count is \de-0\d: expected counts are round"
        ):
            LdaModel(documents, num_topics=2, id2word=dict.fromkeys(range(40), "w"))
    with pytest.raises(ValueError, match=r"^chunk 2: its largest count is 1e-08"):
        lda([*DOCUMENTS[:8], [(0, 1e-8)], []], chunksize=4)
    lda([[], [(0, 1e-8), (1, 1)]], chunksize=2)  # beside others it may be rounded away
    assert lda()[[(0, 1e-8)]] == lda()[[]]  # and inference rounds nothing


@pytest.mark.parametrize("value", [0.3, [0.3] * 4, np.full(4, 0.3), np.full((2, 4), 0.3, np.float32)])
def test_a_prior_that_is_set_later_counts(value):
    model, made = lda(passes=0), lda(passes=0, eta=0.3)
    model.eta = value
    made.state, made.random_state = model.state, np.random.RandomState(7)
    model.random_state = np.random.RandomState(7)
    for trained in (model, made):
        trained.update(DOCUMENTS, passes=1)
    np.testing.assert_array_equal(model.get_topics(), made.get_topics())
    model.alpha = [0.2, 0.4]
    gamma, _ = model.inference([[]])
    np.testing.assert_allclose(gamma, [[0.2, 0.4]], rtol=1e-6)
    assert np.isfinite(model.bound(DOCUMENTS))


USES = {
    "update": lambda model: model.update(DOCUMENTS),
    "document": lambda model: model[DOCUMENTS[0]],
    "corpus": lambda model: list(model[DOCUMENTS]),
    "transform": lambda model: list(model.transform(DOCUMENTS)),
    "bound": lambda model: model.bound(DOCUMENTS),
}


@pytest.mark.parametrize(
    ("name", "value", "message", "uses"),
    [
        ("eta", "auto", "^eta='auto': give", ["update", "bound"]),
        ("eta", [1.0], r"^Invalid eta shape|^eta has shape \(1,\)", ["update", "bound"]),
        ("alpha", [-1.0, 1.0], "^alpha has the value -1", ["update", "document", "corpus", "bound"]),
        ("iterations", "many", "^iterations='many': give", ["update", "document", "corpus", "transform"]),
        ("gamma_threshold", None, "^gamma_threshold=None: give", ["update", "document", "corpus"]),
        ("chunksize", 2.5, "^chunksize=2.5: give", ["update", "corpus", "bound"]),
        ("minimum_probability", 2, "^minimum_probability=2: give", ["document", "corpus", "transform"]),
        ("alpha", "auto", "^alpha='auto': give a number, or", ["update", "document", "corpus", "bound"]),
        ("alpha", [1j, 1.0], "^alpha is no array .*complex", ["update", "document"]),
        ("alpha", 10**400, "^alpha has a number beyond", ["update", "document"]),
        ("random_state", np.random.default_rng(0), "^random_state=Generator", list(USES)),
        ("workers", 2.5, "^workers=2.5: give", ["update", "transform", "bound"]),
        ("workers", 0, "^workers=0: give", ["update", "transform", "bound"]),
        ("update_chunks", 2.5, "^update_chunks=2.5: give", ["update"]),
        ("callbacks", 5, "^callbacks=5: give", ["update"]),
        ("progress", 5, "^progress=5: give", ["update"]),
        ("checkpoint", "/nowhere/model", "^checkpoint=.*no directory", ["update"]),
        ("checkpoint_every", 0, "^checkpoint_every=0: give", ["update"]),
        ("report", "/nowhere/report.html", "^report=.*no directory", ["update"]),
    ],
)
def test_attributes_that_are_set_later_are_checked_where_they_are_used(name, value, message, uses):
    model = lda()
    setattr(model, name, value)
    for use in uses:
        with pytest.raises((ValueError, TypeError, AssertionError), match=message):
            USES[use](model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0])
@pytest.mark.parametrize("name", ["alpha", "eta"])
def test_priors_that_are_set_later_are_checked_whatever_their_type(name, value, dtype):
    model = lda()
    prior = np.ones_like(getattr(model, name), dtype=dtype)
    prior[0] = value
    setattr(model, name, prior)
    with np.errstate(all="raise"):
        for use in ("update", "bound") if name == "eta" else USES:
            with pytest.raises(ValueError, match=rf"^{name} has the value {value:g}"):
                USES[use](model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_of_priors_that_are_set_later_are_what_the_constructor_makes_of_them(dtype):
    model, other = lda(), lda(alpha=[0.0, 1.0])
    model.alpha = np.array([0.0, 1.0], dtype)
    model.update(DOCUMENTS)
    assert model.alpha.tobytes() == other.alpha.tobytes()
    model.eta = np.array([0.0, 1.0, 1.0, 1.0], dtype)
    model.transform(DOCUMENTS)
    with pytest.raises(ValueError, match=r"^eta has zeros"):
        model.update(DOCUMENTS)


@pytest.mark.parametrize("value", [42, None])
def test_a_random_state_that_is_set_later_is_what_the_constructor_makes_of_it(value):
    models = lda(), lda()
    for model in models:
        model.random_state = value
    for use in USES.values():
        for model in models:
            use(model)
            assert type(model.random_state) is np.random.RandomState
    assert value is None or np.array_equal(models[0].get_topics(), models[1].get_topics())


STATISTICS = {
    "another vocabulary": np.ones((2, 3), np.float32),
    "terms x topics": np.ones((4, 2)),
    "complex": np.ones((2, 4), complex),
    "none": None,
}


@pytest.mark.parametrize("given", STATISTICS)
def test_statistics_that_are_none_are_refused(given):
    model = lda()
    model.state.sstats = STATISTICS[given]
    for use in ("update", "transform", "bound"):
        with pytest.raises(ValueError, match=r"^state.sstats is .* topics x terms, \(2, 4\)"):
            USES[use](model)


@pytest.mark.parametrize("kind", [np.int64, np.float16, np.float64, list])
def test_statistics_may_be_any_numbers(kind):
    models = lda(), lda()
    values = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    models[0].state.sstats = values
    models[1].state.sstats = values.tolist() if kind is list else values.astype(kind)
    for model in models:
        model.update(DOCUMENTS)
    assert models[0].get_topics().tobytes() == models[1].get_topics().tobytes()


@pytest.mark.filterwarnings("ignore:.* is a text:DeprecationWarning")
def test_what_the_check_of_a_methods_argument_returns_is_used():
    model = lda()
    gamma, _ = model.inference(DOCUMENTS)
    assert model.bound(DOCUMENTS, gamma, "2") == model.bound(DOCUMENTS, gamma, 2)
    document = DOCUMENTS[0]
    assert model.get_document_topics(document, "0.99") == model.get_document_topics(document, 0.99)
    for gammas in (-gamma, gamma * np.nan, gamma.astype(object), gamma.astype(str)):
        with pytest.raises(ValueError, match=r"^gamma has what is no number above 0"):
            model.bound(DOCUMENTS, gammas)
    for name in ("minimum_probability", "minimum_phi_value"):
        with pytest.raises(TypeError, match=f"^{name}='x': give a number"):
            model.get_document_topics(document, **{name: "x"})
    with pytest.raises(TypeError, match=r"^minimum_probability='x': give a number"):
        model.get_term_topics(0, "x")


@pytest.mark.parametrize(("name", "value"), [("chunksize", 3.0), ("iterations", 50.0), ("iterations", "50")])
@pytest.mark.filterwarnings("ignore:iterations='50':DeprecationWarning")
def test_whole_numbers_that_are_set_later_are_taken(name, value):
    model, other = lda(), lda()
    setattr(model, name, value)
    setattr(other, name, int(value))
    for use in USES.values():
        use(model), use(other)
    np.testing.assert_array_equal(model.get_topics(), other.get_topics())


def test_lsi_attributes_that_are_set_later():
    model, expected = lsi(), lsi()[DOCUMENTS[0]]
    model.num_topics, model.chunksize = 2.0, 3.0
    assert model[DOCUMENTS[0]] == expected
    assert next(iter(model.transform(DOCUMENTS))).shape == (3, 2)
    model.num_topics = "two"
    with pytest.raises(TypeError, match=r"^num_topics='two': give"):
        model[DOCUMENTS[0]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_topics", 0),
        ("random_seed", -1),
        ("decay", -1),
        ("power_iters", "x"),
        ("dtype", np.float16),
        ("workers", 0),
        ("progress", 5),
        ("report", "/nowhere/report.html"),
    ],
)
def test_lsi_attributes_that_are_set_later_are_checked(name, value):
    model = lsi()
    before = model.projection.s
    setattr(model, name, value)
    with pytest.raises((ValueError, TypeError), match=f"^{name}="):
        model.add_documents(DOCUMENTS)
    assert model.projection.s is before


@pytest.mark.parametrize("value", [2.5, "2"])
@pytest.mark.filterwarnings("ignore:num_topics=:DeprecationWarning")
def test_a_number_of_lsi_topics_that_is_set_later_is_the_same_everywhere(value):
    model = lsi(num_topics=3)
    model.num_topics = value
    assert len(model[DOCUMENTS[0]]) == len(model.show_topics()) == len(set(model.topics_frame().topic)) == 2
    model.add_documents(DOCUMENTS)
    assert len(model.projection.s) == 2


def test_an_effort_that_is_set_later_counts(monkeypatch):
    tasks = []
    made = lsimodel.LsiTask
    monkeypatch.setattr(
        lsimodel, "LsiTask", lambda *given, **more: tasks.append(made(*given, **more)) or tasks[-1]
    )
    model = lsi()
    model.power_iters = 1
    model.add_documents(DOCUMENTS)
    assert [(task.power_iters, task.extra_samples) for task in tasks] == [(None, None), (1, 100)]
    assert (model.as_gensim().power_iters, model.as_gensim().extra_samples) == (1, 100)


@pytest.mark.parametrize("given", [None, 3, 2.5])
def test_what_is_no_document_is_named(given):
    for model in (lda(), lsi()):
        with pytest.raises(TypeError, match=re.escape(f"document 0 is not a bag of words but {given!r}")):
            model[given]


def test_gaps_in_a_vocabulary_stop_nothing(caplog):
    caplog.set_level(logging.DEBUG)
    shown = []
    for words in ({0: "a", 3: "d"}, {0: "a", 1: "1", 2: "2", 3: "d"}):
        caplog.clear()
        model = LdaModel(DOCUMENTS, num_topics=2, id2word=words, random_state=1)
        other = LdaState(model.eta, (2, 4), model.dtype)
        model.do_estep(DOCUMENTS, other)
        model.do_mstep(0.5, other)
        factors = LsiModel(DOCUMENTS, num_topics=2, id2word=words)
        factors.print_debug()
        shown.append(
            [
                model.print_topics(),
                model.show_topics(1),
                factors.print_topics(),
                factors.print_topic(1),
                [line for line in caplog.messages if line.startswith("topic #")],
            ]
        )
        assert model.id2word is factors.id2word is words
    assert shown[0] == shown[1]


def test_looking_at_coherences_does_not_show_in_other_threads(monkeypatch):
    """The vocabulary is the model's own all the time."""
    model = LdaModel(DOCUMENTS, num_topics=2, id2word={0: "a", 3: "d"}, random_state=1)
    seen = []
    coherence = gensim.models.ldamodel.CoherenceModel
    monkeypatch.setattr(
        gensim.models.ldamodel,
        "CoherenceModel",
        lambda **options: seen.append(model.id2word) or coherence(**options),
    )
    model.top_topics(DOCUMENTS)
    assert seen == [{0: "a", 3: "d"}]


def test_coherences_from_a_matrix():
    model = lda()
    matrix = corpus2csc(DOCUMENTS, num_terms=4)
    for given in (matrix, matrix.tocoo()):
        assert model.top_topics(given) == model.top_topics(DOCUMENTS)
    with pytest.raises(ValueError, match="documents x terms"):
        model.top_topics(matrix.T)


def test_a_model_without_topics_says_so():
    untrained = LsiModel(num_topics=2, id2word=WORDS)
    for look in ("show_topics", "print_topics", "get_topics", "print_debug", "topics_frame", "plot_topics"):
        with pytest.raises(ValueError, match="this model has no topics"):
            getattr(untrained, look)()
    cleared = lda()
    cleared.clear()
    for look in ("show_topics", "print_topics", "get_topics", "topics_frame", "top_topics"):
        with pytest.raises((ValueError, RuntimeError), match="this model has no topics"):
            getattr(cleared, look)()
    for one, other in ((cleared, lda()), (lda(), cleared)):
        with pytest.raises(RuntimeError, match="this model has no topics"):
            one.diff(other)
    for model in (untrained, cleared):  # a notebook shows what there is
        assert type(model).__name__ in model._repr_html_()


def filtering(model, method, passes_on=True):
    def long_ones(self, corpus, *args, **kwargs):
        if passes_on:
            getattr(model, method)(self, [bag for bag in corpus if len(bag) > 1], *args, **kwargs)

    return type("Filtering", (model,), {method: long_ones})


@pytest.mark.parametrize("model", [LdaModel, LsiModel])
def test_a_subclass_may_train_on_other_documents_than_it_is_given(model):
    method = "update" if model is LdaModel else "add_documents"
    options = {"num_topics": 2, "id2word": WORDS} | ({"random_state": 1} if model is LdaModel else {})
    found = filtering(model, method)([*DOCUMENTS, [(0, 1)]], **options)
    chosen = [bag for bag in DOCUMENTS if len(bag) > 1]
    assert found.get_topics().tobytes() == model(chosen, **options).get_topics().tobytes()
    idle = filtering(model, method, passes_on=False)(DOCUMENTS, **options)
    getattr(model, method)(idle, [])
    assert not any(DOCUMENTS in (value if type(value) is tuple else ()) for value in vars(idle).values())


def test_raising_on_floating_point_errors_makes_no_difference_to_single_precision():
    def use():
        model = lsi(dtype=np.float32)
        topics = lda(eta=1e-30, alpha=1e-30)
        other = LdaState(topics.eta, (2, 4), topics.dtype)
        tiny = [[(3, 1e-40)], [(3, 1e39)]]
        return [
            [model[bag] for bag in tiny],
            list(model[tiny]),
            list(model.transform(tiny)),
            model.__getitem__(tiny[0], scaled=True),
            [look() for look in (model.show_topics, model.get_topics, topics.show_topics, topics.get_topics)],
            [topics.do_estep(DOCUMENTS, other), topics.do_mstep(0.5, other), topics.sync_state()],
            [topics.get_topic_terms(0), topics.get_term_topics(0), topics.top_topics(DOCUMENTS)],
            topics.topics_frame().to_numpy(),
            list(topics[[*DOCUMENTS]]),
        ]

    expected = pickle.dumps(use())
    with np.errstate(all="raise"):
        assert pickle.dumps(use()) == expected


def test_half_precision_of_gensims_is_computed_in_single(tmp_path, caplog):
    path = str(tmp_path / "model")
    plain = gensim.models.LdaModel(DOCUMENTS, num_topics=2, id2word=WORDS, dtype=np.float16, random_state=1)
    plain.save(path)
    model = LdaModel.load(path)
    assert [line for line in caplog.messages if "dtype=float16" in line]
    np.testing.assert_allclose(model.get_topics(), plain.get_topics(), rtol=0.01)
    for use in USES.values():
        use(model)
    assert {model.dtype, model.alpha.dtype, model.eta.dtype, model.state.sstats.dtype} == {np.dtype("f4")}
    model.save(path)
    assert gensim.models.LdaModel.load(path).dtype == np.float32
    assert np.abs(lda().diff(plain)[0]).max() <= 1
    assert plain.state.sstats.dtype == np.float16


def dwarfed(num_terms, num_documents):
    counts = np.random.default_rng(0).poisson(0.3, (num_terms, num_documents)).astype(float)
    counts[0, 0] = 1e9
    return counts


MISSING = {
    "dwarfed": (dwarfed(60, 40), 20, True),
    "sums of others": (np.repeat(np.eye(9, 5), 3, axis=1), 8, False),
    "sums of two": (
        np.random.default_rng(0).random((30, 2)) @ np.random.default_rng(1).random((2, 20)),
        9,
        True,
    ),
    "more than there are documents": (np.random.default_rng(0).random((30, 7)), 20, False),
    "more than there are terms": (np.random.default_rng(0).random((6, 50)), 20, False),
    "terms that do not occur": (np.eye(20, 50), 30, False),
    "empty documents": (np.vstack([np.eye(9, 50), np.ones((3, 50)) * (np.arange(50) < 9)]), 30, False),
    "as many as wanted": (np.random.default_rng(0).random((30, 40)), 20, False),
}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("given", MISSING)
def test_lsi_topics_that_are_left_out_are_said(given, kept, caplog, monkeypatch):
    matrix, num_topics, said = MISSING[given]
    if not kept:
        monkeypatch.setattr(lsimodel, "KEPT_BYTES", 0)
        said |= given in ("sums of others", "empty documents")  # which only a look at them tells
    corpus = scipy.sparse.csc_array(matrix)
    model = LsiModel(corpus, num_topics=num_topics, id2word={n: str(n) for n in range(len(matrix))})
    lines = [line for line in caplog.messages if f"topics were found of num_topics={num_topics}" in line]
    assert len(lines) == said
    assert not said or lines[0].startswith(f"{len(model.projection.s)} topics")
    assert not said or f"below 1e-7 of the largest, {model.projection.s[0]:g}" in lines[0]


def test_vocabularies_with_gaps():
    model = LdaModel(DOCUMENTS, num_topics=2, id2word={0: "a", 3: "d"}, random_state=1)
    assert {word for word, _ in model.show_topic(0)} == {"a", 1, 2, "d"}
    full = lda()
    for (topic, score), (words, expected) in zip(
        model.top_topics(DOCUMENTS), full.top_topics(DOCUMENTS), strict=True
    ):
        assert score == pytest.approx(expected)
        assert [word for _, word in topic] == [{"b": 1, "c": 2}.get(word, word) for _, word in words]
    assert model.id2word == {0: "a", 3: "d"}


def malformed(kind):
    """A matrix that ends the process where scipy's compiled code trusts it."""
    matrix = kind(np.eye(4))
    (matrix.row if matrix.format == "coo" else matrix.indices)[0] = 10**8
    return matrix


MATRICES = [scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_matrix, scipy.sparse.bsr_array]


@pytest.mark.parametrize("kind", MATRICES)
def test_a_malformed_matrix_is_an_error_and_no_crash(kind, tmp_path):
    model, plain = lda(), lsi()
    calls = [
        *(lda, lsi, model.update, plain.add_documents, model.__getitem__, model.bound, model.log_perplexity),
        *(lambda matrix: list(plain[matrix]), lambda matrix: plain.__getitem__(matrix, chunksize=None)),
        *(lambda matrix: next(model.transform(matrix)), lambda matrix: next(plain.transform(matrix))),
        lambda matrix: model.inference(matrix, collect_sstats=True),
        lambda matrix: model.top_topics(matrix, coherence="u_mass"),
        lambda matrix: Corpus.write(tmp_path / "stored", matrix),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="not a sound terms x documents matrix"):
            call(malformed(kind))
    with pytest.raises(ValueError, match="not a sound terms x documents matrix"):
        model.get_document_topics(Sparse2Corpus(malformed(scipy.sparse.csc_matrix)), per_word_topics=True)


def test_a_document_may_be_given_as_a_generator():
    model, plain = lda(), lsi()
    for document in (DOCUMENTS[0], []):
        model.random_state, wanted = np.random.RandomState(0), plain[document]
        topics = model[document]
        for made in (iter, lambda pairs: (pair for pair in pairs)):
            model.random_state = np.random.RandomState(0)
            assert model[made(document)] == topics
            assert plain[made(document)] == wanted


def test_topics_of_words_of_any_kind_of_document():
    model = lda()
    wanted = model.get_document_topics(DOCUMENTS[0], per_word_topics=True)[1]
    for document in (
        iter(DOCUMENTS[0]),
        [(0.0, 1), (1.0, 2)],
        np.array(DOCUMENTS[0], np.float64),
        np.asmatrix(DOCUMENTS[0]),
        np.ma.array(DOCUMENTS[0]),
    ):
        assert model.get_document_topics(document, per_word_topics=True)[1] == wanted
    with pytest.raises(ValueError, match=r"document 0: term id 0\.5 is not a whole number"):
        model.get_document_topics([(0.5, 1)], per_word_topics=True)

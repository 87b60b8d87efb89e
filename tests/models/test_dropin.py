"""What programs that use gensim's models rely on, and where a wrong answer, or a lost model, would come in
silence.
"""

from __future__ import annotations

import copy
import logging
import pickle
import re
import subprocess
import sys
import threading
import warnings

import gensim.models
import numpy as np
import pytest
from gensim.matutils import Sparse2Corpus, corpus2csc

from distcorpus.algorithms.topics import LazyTopics
from distcorpus.corpora import reading
from distcorpus.models import LdaModel, LsiModel, _cluster, ldamodel
from distcorpus.models._cluster import Cluster
from distcorpus.models._content import checksum

LDA = {"num_topics": 8, "chunksize": 40, "random_state": 3}
CORPUS = [[(0, 1), (1, 2)], [(1, 1), (2, 3)], [(0, 4)], [(2, 1), (3, 1)]] * 5
WORDS = {0: "a", 1: "b", 2: "c", 3: "d"}


class Sub(LdaModel):
    """A user's own."""


@pytest.fixture(scope="module")
def trained(lee_corpus):
    return LdaModel(lee_corpus.counts, id2word=lee_corpus.dictionary, **LDA)


@pytest.fixture
def lda(trained):
    model = LdaModel.__new__(LdaModel)
    vars(model).update(vars(trained), _state=None, _prepared=None, _exp_elog_beta=None)
    topics = trained._lazy_topics()
    model._made = {}
    model._topics = LazyTopics(topics.eta, topics.table.copy(), topics.scale, topics.numdocs)
    model.random_state = np.random.RandomState(7)
    return model


def small(model=LdaModel, **options):
    return model(CORPUS, **{"id2word": WORDS, "num_topics": 2, "random_state": 1, **options})


# Nothing is given up before the new form is whole.


def interrupted_at(line, call, error):
    """Call with an error at that line of the models' code; return whether there is such a line."""
    left = line

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in (ldamodel.__file__, sys.modules[LazyTopics.__module__].__file__):
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise error
        return trace

    sys.settrace(trace)
    try:
        call()
    except error:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("look", ["state", "expElogbeta", "show_topics"])
def test_a_look_that_fails_at_any_point_loses_nothing(lda, look, error):
    form = lda._topics
    expected = lda.get_topics()
    lines = 0
    while True:
        lda.__dict__.update(_topics=form, _state=None, _exp_elog_beta=None, _made={})
        call = (lambda: lda.show_topics()) if look == "show_topics" else (lambda: getattr(lda, look))
        if not interrupted_at(lines, call, error):
            break
        lines += 1
        assert lda.get_topics().tobytes() == expected.tobytes()
        assert lda.state.numdocs == 300
        assert lda.expElogbeta.shape == expected.shape
    assert lines > 5


def test_threads_that_look_at_once_see_the_same(lda):
    states, weights, rows, errors = [], [], [], []
    barrier = threading.Barrier(8)
    expected = copy.deepcopy(lda).get_topics()

    def look():
        try:
            barrier.wait()
            rows.append(lda.get_topics())
            weights.append(lda.expElogbeta)
            states.append(lda.state)
            lda.inference([[(0, 1)]])
        except BaseException as error:
            errors.append(error)

    for _ in range(10):
        lda.__dict__.update(_topics=LazyTopics.from_state(lda.state.eta, lda.state.sstats, 300), _state=None)
        lda.__dict__.update(_exp_elog_beta=None, _made={})
        states.clear()
        weights.clear()
        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len({id(state) for state in states}) == len({id(one) for one in weights}) == 1
    for found in rows:
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("inference", ["vb", "cvb0"])
def test_a_state_is_prepared_once(monkeypatch, lda, tmp_path, inference):
    made = []
    prepare = LazyTopics.from_state
    monkeypatch.setattr(LazyTopics, "from_state", lambda *args: made.append(1) or prepare(*args))
    lda.variant = inference
    lda.save(str(tmp_path / "model"))
    for model in (lda, LdaModel.load(str(tmp_path / "model"))):
        assert model.state.numdocs == 300
        made.clear()
        for _ in range(3):
            assert model[[(3, 1), (5, 2)]]
            model.bound([[(3, 1), (5, 2)]])
            model.log_perplexity([[(3, 1), (5, 2)]])
        assert len(made) <= 1


def test_a_state_that_was_changed_in_place_is_seen(lda):
    before = lda.bound(CORPUS)
    lda.variant = "cvb0"
    theta = np.concatenate(list(lda.transform(CORPUS)))
    lda.state.sstats[:] = np.random.default_rng(0).gamma(1.0, 1.0, lda.state.sstats.shape)
    assert abs(lda.bound(CORPUS) - before) > 1
    assert np.abs(np.concatenate(list(lda.transform(CORPUS))) - theta).max() > 0.05
    gamma, _ = lda.inference(CORPUS)
    lda.state.sstats[:] = lda.state.sstats[::-1]
    lda.sync_state()
    np.testing.assert_allclose(lda.inference(CORPUS)[0], gamma[:, ::-1], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_entry_of_a_state_that_was_changed_in_place_counts(dtype):
    """However small it is beside the others of its topic."""
    model = small(id2word={number: str(number) for number in range(5000)}, dtype=dtype)
    sstats = model.state.sstats
    model.log_perplexity(CORPUS)
    sstats[1, 0] = 1e7
    for term, value in ((7, 1e-3), (4999, 1e-7)):
        model.log_perplexity(CORPUS)
        sstats[1, term] = value
        assert model._lazy_topics().table[term, 1] == dtype(value)
    model.update(CORPUS[:1], passes=0)
    assert model.state.sstats.tobytes() == sstats.tobytes()


def test_what_is_in_arrays_is_seen():
    values = np.random.default_rng(0).random((300, 7))
    seen = {checksum(values), checksum(values.astype(np.float32)), checksum(values.reshape(7, 300))}
    seen |= {checksum(values.T), checksum(values, 1), checksum(values[:, ::2]), checksum(values[:0])}
    assert len(seen) == 7
    for place in (0, 1000, 2099):
        for change in (lambda value: -value, lambda value: np.nextafter(value, 2)):
            changed = values.copy()
            changed.flat[place] = change(changed.flat[place])
            seen.add(checksum(changed))
    changed = values.copy()
    changed[:, 3] *= -1
    seen.add(checksum(changed))
    assert len(seen) == 14
    assert checksum(values.copy()) in seen


def test_a_cleared_model_says_so(lda):
    lda.clear()
    with pytest.raises(RuntimeError, match="clear"):
        lda.bound(CORPUS)


def test_a_failed_update_leaves_the_number_of_documents(lee_corpus, lda):
    def failing(documents):
        yield from documents
        raise OSError("the disk is gone")

    class Failing(list):
        def __len__(self):
            return 20

        def __iter__(self):
            return failing(list.__iter__(self))

    before = lda.get_topics()
    with pytest.raises(OSError, match="disk"):
        lda.update(Failing(lee_corpus.counts[:10]))
    with pytest.raises(ValueError, match="99999"):
        lda.update([[(99999, 1)]])
    assert lda.state.numdocs == 300
    assert np.array_equal(lda.get_topics(), before)


# Corpora.


class Rewinding:
    """A corpus that is its own iterator."""

    def __init__(self, documents):
        self.documents = documents
        self.times_measured = 0

    def __len__(self):
        self.times_measured += 1
        return len(self.documents)

    def __iter__(self):
        self.rest = iter(self.documents)
        return self

    def __next__(self):
        return next(self.rest)


@pytest.mark.parametrize("id2word", [WORDS, None])
def test_a_corpus_that_rewinds_is_read_once_a_pass_and_measured_once(id2word):
    for model, option in ((LdaModel, {"passes": 2, "random_state": 1}), (LsiModel, {})):
        option |= {"num_topics": 2, "chunksize": 3, "id2word": id2word}
        corpus = Rewinding(CORPUS)
        found = model(corpus, **option).get_topics()
        assert np.array_equal(found, model(CORPUS, **option).get_topics())
        assert corpus.times_measured <= 1 + (id2word is None)  # gensim's count of the terms
    assert sum(len(part) for part in small().transform(Rewinding(CORPUS), chunksize=3)) == len(CORPUS)


KINDS_OF_DOCUMENTS = {
    "objects": lambda bag: np.array(bag, dtype=object),
    "pairs": lambda bag: np.fromiter(bag, dtype=object, count=len(bag)),
    "structured": lambda bag: np.array(bag, dtype=[("word", np.int32), ("count", np.float32)]),
    "matrix": lambda bag: np.array(bag).view(np.matrix),
    "masked": lambda bag: np.ma.masked_array(np.array(bag), mask=False),
    "memory map": lambda bag: np.array(bag).view(np.memmap),
}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", KINDS_OF_DOCUMENTS)
def test_documents_may_be_any_kind_of_array(kind):
    documents = [KINDS_OF_DOCUMENTS[kind](bag) for bag in CORPUS]
    for model in (LdaModel, LsiModel):
        options = {"id2word": WORDS, "num_topics": 2, **({"random_state": 1} if model is LdaModel else {})}
        expected = model(CORPUS, **options).get_topics()
        assert np.array_equal(model(documents, **options).get_topics(), expected)


def test_masked_values_and_text_are_not_taken_for_numbers():
    masked = np.ma.masked_array(np.array(CORPUS[0]), mask=[[False, True], [False, False]])
    for document in (masked, np.array([("0", "1")], dtype=object)):
        with pytest.raises(TypeError, match="document 1"):
            small().update([CORPUS[0], document])


def test_arrays_of_a_loaded_model_are_plain(lee_corpus, trained, tmp_path):
    """Where they are memory maps they would not travel."""
    path = str(tmp_path / "model")
    trained.save(path, separately=["expElogbeta"], sep_limit=0)
    model = LdaModel.load(path, mmap="r")
    topics = model._lazy_topics()
    kept = ldamodel.topics_as_dict(topics, topics.numdocs)
    assert {type(value) for value in kept.values() if isinstance(value, np.ndarray)} == {np.ndarray}
    model.update(lee_corpus.counts[:10])
    model.log_perplexity(lee_corpus.counts[:10])


def test_a_matrix_of_documents_by_terms_is_refused(lee_corpus, lda):
    terms = len(lee_corpus.dictionary)
    matrix = corpus2csc(lee_corpus.counts, num_terms=terms)
    lsi = LsiModel(lee_corpus.tfidf, id2word=lee_corpus.dictionary, num_topics=5)
    for use in (lda.update, lda.bound, lsi.add_documents, lsi.__getitem__, lambda m: list(lsi.transform(m))):
        with pytest.raises(ValueError, match="documents x terms"):
            use(matrix.T)
    tfidf = corpus2csc(lee_corpus.tfidf[:20], num_terms=terms)
    for corpus in (tfidf, tfidf.tocsr(), Sparse2Corpus(tfidf)):
        np.testing.assert_allclose(
            [[value for _, value in document] for document in lsi[corpus]],
            [[value for _, value in document] for document in lsi[lee_corpus.tfidf[:20]]],
            rtol=1e-6,
            atol=1e-9,
        )


def test_hashed_ids_are_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(reading, "free_memory", lambda: 8 << 30)
    for model in (LdaModel, LsiModel):
        for id2word in (None, {3 * 10**8: "word"}):
            with pytest.raises(ValueError, match="largest term id, 300000000, makes the vocabulary"):
                model([[(3 * 10**8, 1)]], id2word=id2word, num_topics=10)
        with pytest.raises(ValueError, match="number the words from 0"):
            model([[(1, 1)]], id2word={2**40: "word"})


@pytest.mark.parametrize("value", [1e39, 1e300, 3e9])
def test_values_that_no_sum_can_hold_are_named(value):
    with pytest.raises(ValueError, match=re.escape(f"document 1: term id 2 has the value {value:g}")):
        small().update([[(0, 1)], [(2, value)]])


def test_weights_beyond_the_type_of_the_result_are_named():
    with pytest.raises(ValueError, match="float64"):
        LsiModel([[(0, 1e39)], [(1, 1)]], id2word=WORDS, num_topics=2, dtype=np.float32)
    found = LsiModel([[(0, 1e39)], [(1, 1e38)]], id2word=WORDS, num_topics=2).projection.s
    np.testing.assert_allclose(found, [1e39, 1e38], rtol=1e-4)


@pytest.mark.parametrize("inference", ["vb", "cvb0"])
def test_tiny_priors_train(inference):
    model = small(alpha=1e-30, eta=1e-30, inference=inference, passes=3)
    np.testing.assert_allclose(model.get_topics().sum(axis=1), 1.0, rtol=1e-5)
    assert np.isfinite(model.log_perplexity(CORPUS))


def test_raising_on_floating_point_errors_makes_no_difference():
    def use():
        model = small(alpha="auto", eta=1e-20, passes=3, per_word_topics=True)
        lsi = LsiModel(CORPUS, id2word=WORDS, num_topics=2)
        return [
            model.inference(CORPUS, collect_sstats=True),
            model[CORPUS[0]],
            list(model.get_document_topics(CORPUS)),
            list(model.transform(CORPUS)),
            model.bound(CORPUS),
            model.log_perplexity(CORPUS),
            model.get_topics(),
            model.expElogbeta,
            lsi.projection.u,
        ]

    expected = pickle.dumps(use())
    with np.errstate(all="raise"):
        assert pickle.dumps(use()) == expected


# Arguments.


def test_what_the_check_returns_is_kept():
    model = small(
        chunksize=3.0,
        passes=np.float64(2),
        iterations=50.0,
        update_every=np.int64(1),
        eval_every=np.array(2),
        decay=np.float32(0.5),
        gamma_threshold=np.float32(0.001),
        minimum_probability=np.float32(0),
        minimum_phi_value=0,
    )
    for name in ("chunksize", "passes", "iterations", "update_every", "eval_every"):
        assert type(getattr(model, name)) is int
    for name in ("decay", "offset", "gamma_threshold", "minimum_probability", "minimum_phi_value"):
        assert type(getattr(model, name)) is float
    assert len(list(model[CORPUS])) == 20
    model.update(CORPUS, chunksize=np.float64(4), iterations=3.0, passes=np.int8(1))
    lsi = LsiModel(CORPUS, id2word=WORDS, num_topics=2.0, chunksize=3.0, decay=np.float32(1))
    assert [type(lsi.num_topics), type(lsi.chunksize), type(lsi.decay)] == [int, int, float]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"num_topics": "2"}, {}),
        ({"num_topics": 2.67}, {}),
        ({"num_topics": np.float64(2)}, {}),
        ({"alpha": "0.5"}, {"alpha": 0.5}),
        ({"passes": "2"}, {"passes": 2}),
    ],
)
def test_text_and_fractions_count_as_in_gensim(given, meant):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = small(**given).get_topics()
    np.testing.assert_array_equal(found, small(**meant).get_topics())
    told = [(one.category, one.filename) for one in caught]
    assert told == ([] if given == {"num_topics": 2.0} else [(DeprecationWarning, __file__)])


def test_what_gensim_takes_is_taken():
    assert small(minimum_probability=None).minimum_probability == 0.0
    assert small(minimum_probability=0.2, minimum_phi_value=None).minimum_phi_value == 0.2
    small(eval_every=None)
    small(eval_every=-1)
    small(decay=1.5)
    model = small(alpha=[0.0, 1.0])
    assert np.isfinite(model.bound(CORPUS))
    assert [topic for topic, _ in model[CORPUS[0]]] == [1]
    with pytest.raises(ValueError, match="alpha is 0"):
        small(alpha=[0.0, 0.0])
    for name, value in (("alpha", "asymetric"), ("eta", "asymmetric")):
        with pytest.raises(ValueError, match=f"{name}='{value}': give one of 'symmetric'"):
            small(**{name: value})
    with pytest.raises(ValueError, match=r"workers=2 with distributed=True: give"):
        small(workers=2, distributed=True)
    with pytest.raises(ValueError, match=r"workers=2 with distributed=True: give"):
        LsiModel(id2word=WORDS, workers=2, distributed=True)


def test_a_prior_of_zero_is_taken_where_nothing_is_learnt():
    """`malletmodel2ldamodel` gives one."""
    model = LdaModel(id2word=WORDS, num_topics=2, eta=0, alpha=[1.0, 2.0], dtype=np.float64)
    model.state.sstats[...] = [[5.0, 0.0, 1.0, 0.0], [0.0, 4.0, 0.0, 2.0]]
    model.sync_state()
    assert max(model[[(0, 10)]], key=lambda topic: topic[1])[0] == 0
    assert np.concatenate(list(model.transform([[(1, 10)]]))).argmax() == 1
    for train in (lambda: model.update(CORPUS), lambda: small(eta=0)):
        with pytest.raises(ValueError, match="eta"):
            train()


def test_gaps_in_the_vocabulary_end_no_training(caplog):
    caplog.set_level(logging.INFO)
    gaps = {0: "a", 2: "c", 3: "d"}
    small(id2word=gaps)
    assert any('*"1"' in record.getMessage() for record in caplog.records)
    LsiModel(CORPUS, id2word=gaps, num_topics=2)


# Logs.


def test_log_lines_that_users_tune_by(caplog):
    caplog.set_level(logging.DEBUG)
    events = []
    lines = {}
    for model in (gensim.models.LdaModel, LdaModel):
        caplog.clear()
        options = {"progress": events.append} if model is LdaModel else {}
        small(
            model, alpha="auto", chunksize=10, eval_every=None, gamma_threshold=1e-9, iterations=20, **options
        )
        lines[model] = [
            record.getMessage() for record in caplog.records if record.name == "gensim.models.ldamodel"
        ]
    for start, words in (("", "documents converged within 20 iterations"), ("optimized alpha [", "")):
        for found in lines.values():
            assert [line for line in found if line.startswith(start) and words in line]
    merging = "merging changes from 10 documents into a model of 20 documents"
    assert [found.count(merging) for found in lines.values()] == [2, 2]
    updates = [event for event in events if event["kind"] == "update"]
    assert [event["merged"] for event in updates] == [10, 10]
    assert all(0 <= event["converged"] <= 10 for event in updates)
    shown = [line.split("/")[0] for line in lines[LdaModel] if "documents converged within" in line]
    assert shown == [str(event["converged"]) for event in updates]


def test_log_lines_of_lsi(caplog):
    caplog.set_level(logging.INFO)
    LsiModel(CORPUS, id2word=WORDS, num_topics=2, chunksize=8)
    text = [record.getMessage() for record in caplog.records if record.name == "gensim.models.lsimodel"]
    assert [f"processed documents up to #{n}" in text for n in (8, 16, 20)] == [True] * 3
    assert text.count("preparing a new chunk of documents") == 3


# Empty input.


def test_nothing_to_learn_from_changes_nothing(caplog):
    lda, lsi = small(), LsiModel(CORPUS, id2word=WORDS, num_topics=2)
    before = lda.get_topics(), lda.state.numdocs, lsi.projection.u.copy(), lsi.docs_processed
    for empty in ([], iter([]), (), corpus2csc([], num_terms=4)):
        lda.update(empty)
        lsi.add_documents(empty)
    assert sum("empty corpus" in record.getMessage() for record in caplog.records) == 8
    after = lda.get_topics(), lda.state.numdocs, lsi.projection.u, lsi.docs_processed
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)
    assert lda.log_perplexity([[]]) == lda.as_gensim().log_perplexity([[]]) == -np.inf
    assert lda.log_perplexity([]) == -np.inf
    assert lda.bound([]) == pytest.approx(lda.as_gensim().bound([]), rel=1e-4)
    for model in (LdaModel, LsiModel):
        for empty in ([], iter([])):
            with pytest.raises(ValueError, match="corpus is empty"):
                model(empty, id2word=WORDS, num_topics=2)


# One document at a time.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("inference", ["vb", "cvb0"])
@pytest.mark.parametrize(
    "bag", [[], [(1, 3)], [(0, 2.5)], [(0, 1), (3, 2)], [(3, 2), (0, 1)], [(1, 0), (2, 1)]]
)
def test_a_small_document_alone_is_as_in_a_corpus(bag, inference, dtype):
    """It is read without making a chunk of it."""
    model = small(inference=inference, dtype=dtype)
    gammas = []
    for documents in ([bag], (bag,)):
        model.random_state = np.random.RandomState(5)
        gammas.append(model.inference(documents)[0])
    assert gammas[0].dtype == gammas[1].dtype == dtype
    np.testing.assert_array_equal(*gammas)


@pytest.mark.parametrize(
    "bag", [[(4, 1)], [(-1, 1)], [(0, -1)], [(0, float("nan"))], [(0, 3e9)], [(0.5, 1)], ["ab"], [(0, 1, 2)]]
)
def test_a_wrong_document_alone_is_refused(bag):
    with pytest.raises((ValueError, TypeError), match="document 0"):
        small().get_document_topics(bag)


@pytest.mark.parametrize("bag", [[], [(1, 3)]])
def test_a_small_document_alone_takes_few_calls(trained, bag):
    """Its time is that of Python's calls, as gensim's is, each of which takes longer."""

    def calls(model):
        events = []
        model[bag]
        sys.setprofile(lambda frame, event, arg: events.append(event))
        try:
            model[bag]
        finally:
            sys.setprofile(None)
        return sum(event in ("call", "c_call") for event in events)

    assert calls(trained) < 4 * calls(trained.as_gensim())


FIRST = """
import sys, time
from distcorpus.models import LdaModel
model = LdaModel.load(sys.argv[1])
start = time.perf_counter()
topics = [model[[(0, 1), (2, 3)]] for _ in range(3)]
print(time.perf_counter() - start, "numba" in sys.modules, max(topics[0], key=lambda topic: topic[1])[0])
"""


@pytest.mark.parametrize("inference", ["vb", pytest.param("cvb0", marks=pytest.mark.long)])
def test_the_first_document_waits_for_no_compiler(tmp_path, inference):
    model = small(inference=inference)
    model.save(str(tmp_path / "model"))
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    seconds, loaded, topic = done.stdout.split()
    print(f"the first three documents: {seconds} s")
    assert loaded == "False"
    assert int(topic) == max(model[[(0, 1), (2, 3)]], key=lambda topic: topic[1])[0]


# Subclasses, and other models.


def test_a_subclass_keeps_its_type(tmp_path):
    path = str(tmp_path / "model")
    small(Sub).save(path)
    assert type(LdaModel.load(path)) is type(Sub.load(path)) is Sub
    assert type(gensim.models.LdaModel.load(path)) is gensim.models.LdaModel
    assert type(pickle.loads(pickle.dumps(small(Sub)))) is Sub

    class Local(LdaModel):
        pass

    small(Local).save(path)
    assert type(LdaModel.load(path)) is LdaModel


@pytest.mark.parametrize("ours", [LdaModel, LsiModel])
def test_files_of_a_class_that_was_put_in_the_place_of_gensims(monkeypatch, tmp_path, ours):
    """Programs do so where what they use imports its models from gensim."""
    module = sys.modules[ours.gensims_class.__module__]
    monkeypatch.setattr(module, ours.__name__, ours)
    path = str(tmp_path / "model")
    model_of_ours = ours(CORPUS, id2word=WORDS, num_topics=2)
    model_of_ours.save(path)
    assert getattr(module, ours.__name__) is ours
    loaded = getattr(module, ours.__name__).load(path)
    assert type(loaded) is ours
    monkeypatch.undo()
    plain = ours.gensims_class.load(path)
    assert type(plain) is ours.gensims_class
    for model in (loaded, plain):
        np.testing.assert_array_equal(model.get_topics(), model_of_ours.get_topics())


@pytest.mark.parametrize("hook", ldamodel.HOOKS)
def test_a_hook_that_is_not_called_is_named(hook):
    model = type("Hooked", (LdaModel,), {hook: lambda self, *args, **kwargs: None})
    with pytest.warns(UserWarning, match=f"its own {hook}: distcorpus calls none"):
        model(CORPUS, id2word=WORDS, num_topics=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(Sub)
        small(type("Other", (LdaModel,), {"show_topics": None}))


def test_the_difference_from_a_model_of_gensims():
    ours, plain = small(), small(gensim.models.LdaModel)
    for one, other in ((ours, plain), (plain, ours), (small(Sub), ours), (ours, small(Sub))):
        difference, _ = one.diff(other, distance="hellinger")
        expected, _ = gensim.models.LdaModel.diff(
            *(m if type(m) is gensim.models.LdaModel else m.as_gensim() for m in (one, other)),
            distance="hellinger",
        )
        np.testing.assert_allclose(difference, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="other is a int"):
        ours.diff(5)


# Clusters that are gone.


@pytest.fixture
def gone(monkeypatch):
    """A distributed model whose cluster cannot be found, and how often it was looked for."""
    looked = []

    def find(**where):
        looked.append(where)
        raise _cluster.NamingError("nobody")

    monkeypatch.setattr(_cluster, "find", find)
    model = small(chunksize=4)
    model.distributed, model.dispatcher = True, Cluster()
    return model, looked


def test_a_cluster_that_is_gone_is_remembered_for_a_while(gone, monkeypatch):
    model, looked = gone
    for _ in range(3):
        list(model[CORPUS])
        model.log_perplexity(CORPUS)
    assert len(looked) == 1
    with pytest.raises(RuntimeError, match=r"model\.distributed = False"):
        model.bound(CORPUS, distributed=True)
    monkeypatch.setattr(_cluster, "REMEMBERED_GONE", 0.0)
    list(model[CORPUS])
    assert len(looked) == 3
    with pytest.raises(RuntimeError, match=r"model\.distributed = False"):
        model.update(CORPUS)
    model.distributed = False
    model.update(CORPUS)
    model.distributed = True
    monkeypatch.setenv("DISTCORPUS_DISTRIBUTED", "0")
    model.update(CORPUS)
    list(model[CORPUS])
    LsiModel(CORPUS, id2word=WORDS, num_topics=2, distributed=True)
    assert len(looked) == 4


def test_another_name_server_is_looked_at(gone, monkeypatch):
    model, looked = gone
    list(model[CORPUS])
    monkeypatch.setattr(_cluster, "default_nameserver", lambda: ("elsewhere", 1))
    list(model[CORPUS])
    assert len(looked) == 2


def test_the_bound_is_the_same_here_and_on_a_cluster(cluster, lee_corpus, lda):
    bounds = []
    for distributed in (False, True):
        for documents in (30, 100):
            lda.random_state = np.random.RandomState(5)
            bounds.append(lda.bound(lee_corpus.counts[:documents], distributed=distributed))
    assert bounds[:2] == bounds[2:]

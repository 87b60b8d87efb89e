"""What people see of a model."""

from __future__ import annotations

import pickle
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from gensim.corpora import Dictionary
from gensim.matutils import corpus2csc

from distcorpus import LdaModel, LsiModel

ATTACK = "<script>alert(1)</script>&\"'$x$"


@pytest.fixture(scope="module")
def lda(lee_corpus: Any) -> LdaModel:
    return LdaModel(
        lee_corpus.counts, 15, lee_corpus.dictionary, chunksize=100, passes=3, random_state=1, workers=1,
        alpha="asymmetric",
    )  # fmt: skip


@pytest.fixture(scope="module")
def lsi(lee_corpus: Any) -> LsiModel:
    return LsiModel(lee_corpus.tfidf, 15, lee_corpus.dictionary, workers=1)


def text_of(model: Any) -> str:
    """What a notebook shows, as text; it is well-formed and has no script."""
    shown = model._repr_html_()
    root = ElementTree.fromstring(shown)
    assert not {"script", "style", "img"} & {element.tag for element in root.iter()}
    return " ".join(" ".join(root.itertext()).split())


def test_a_notebook_shows_a_model(lda: LdaModel, lsi: LsiModel) -> None:
    for model in (lda, lsi):
        text = text_of(model)
        assert type(model).__name__ in text
        assert "and 3 more" in text
    best = int(np.argmax(lda.state.sstats.sum(axis=1)))
    assert f"{100 * lda.state.sstats[best].sum() / lda.state.sstats.sum():.3g} % of tokens" in text_of(lda)
    for word, _ in lda.show_topic(best, 8):
        assert word in text_of(lda)
    assert f"{lsi.projection.s[0]:.4g}" in text_of(lsi)
    assert "<path" in lsi._repr_html_()


def test_a_notebook_shows_models_without_topics(lee_corpus: Any) -> None:
    assert "topic 0" not in text_of(LdaModel(num_topics=3, id2word=lee_corpus.dictionary))
    assert "topic 0" not in text_of(LsiModel(num_topics=3, id2word=lee_corpus.dictionary))


def test_words_are_text() -> None:
    dictionary = Dictionary([[ATTACK, "b"], [ATTACK, "c"]])
    corpus = [dictionary.doc2bow([ATTACK, "b"]), dictionary.doc2bow([ATTACK, "c"])]
    for model in (LdaModel(corpus, 2, dictionary, workers=1), LsiModel(corpus, 2, dictionary, workers=1)):
        assert ATTACK in text_of(model)
        figure = model.plot_topics()
        figure.savefig("/dev/null", format="svg")  # mathematics that is none would raise


def test_topics_as_a_table(lda: LdaModel, lsi: LsiModel) -> None:
    pytest.importorskip("pandas")
    for model, shown in ((lda, lda.show_topic(2, 5)), (lsi, lsi.show_topic(2, 5))):
        frame = model.topics_frame(topn=5)
        assert list(frame.columns) == ["topic", "weight", "rank", "word", "value"]
        assert len(frame) == 15 * 5
        third = frame[frame.topic == 2]
        assert list(third.word) == [word for word, _ in shown]
        np.testing.assert_allclose(third.value, [value for _, value in shown], rtol=1e-6)
    tokens = lda.state.sstats.sum(axis=1)
    np.testing.assert_allclose(lda.topics_frame(1).weight, tokens / tokens.sum(), rtol=1e-6)
    np.testing.assert_allclose(lsi.topics_frame(1).weight, lsi.projection.s, rtol=1e-6)
    with pytest.raises(ValueError, match="topn"):
        lda.topics_frame(0)


def test_plots_show_what_the_model_has(lda: LdaModel, lsi: LsiModel) -> None:
    pytest.importorskip("matplotlib")
    figure = lda.plot_topics([3], topn=4)
    (axes,) = figure.axes
    share = lda.topics_frame(1).weight[3]
    assert axes.get_title("left") == f"topic 3: {100 * share:.3g} % of tokens"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        word for word, _ in lda.show_topic(3, 4)
    ]
    np.testing.assert_allclose(
        [bar.get_width() for bar in axes.patches], [value for _, value in lda.show_topic(3, 4)], rtol=1e-6
    )
    assert len(lsi.plot_topics().axes) == 12
    with pytest.raises(ValueError, match="0 to 14"):
        lsi.plot_topics([15])
    (line,) = lsi.plot_spectrum().axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), lsi.projection.s)
    x, y = lda.plot_training().axes[0].lines[0].get_data()
    assert y[-1] == 3 * 300
    assert (np.diff(x) >= 0).all()
    assert lsi.plot_training().axes[0].lines[0].get_ydata()[-1] > 1
    untrained = LsiModel(num_topics=2, id2word=lsi.id2word)
    for plot in (untrained.plot_topics, untrained.plot_spectrum, untrained.plot_training):
        with pytest.raises(ValueError, match="this model"):
            plot()
    copy = pickle.loads(pickle.dumps(lda))
    with pytest.raises(ValueError, match="not trained in this process"):
        copy.plot_training()


def test_a_notebook_shows_plots_without_pyplot(lda: LdaModel, lsi: LsiModel) -> None:
    pytest.importorskip("matplotlib")
    for figure in (lda.plot_topics(), lda.plot_training(), lsi.plot_spectrum()):
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_arguments_of_tables_and_plots(lda: LdaModel) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    assert len(lda.topics_frame(np.int64(3))) == 15 * 3
    assert len(lda.plot_topics(np.array([1, 2]), topn=np.int64(3)).axes) == 2
    for show in (lda.topics_frame, lambda topn: lda.plot_topics(topn=topn)):
        with pytest.raises(TypeError, match="topn=True: give a whole number, 1 or more"):
            show(topn=True)
        with pytest.raises(ValueError, match="topn=0: give a whole number, 1 or more"):
            show(topn=0)
    with pytest.raises(ValueError, match=r"topics=\[\]: the topics are 0 to 14; give one or more"):
        lda.plot_topics([])
    for wrong in (3, "3"):
        with pytest.raises(TypeError, match="give a list of topics, of 0 to 14"):
            lda.plot_topics(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="topics=True: give a whole number"):
        lda.plot_topics([True])
    with pytest.raises(ValueError, match="this model has no topics yet"):
        LdaModel(num_topics=3, id2word=lda.id2word).plot_topics([0])


def test_a_missing_library_is_named(lda: LdaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "distcorpus.models._figure", raising=False)
    for module in ("pandas", "matplotlib.figure", "pyLDAvis"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    for call in (lda.topics_frame, lda.plot_topics, lambda: lda.pyldavis([[(0, 1)]])):
        with pytest.raises(ImportError, match="pip install"):
            call()


@pytest.mark.parametrize("sample", [None, 10])
@pytest.mark.parametrize(
    ("corpus", "error", "said"),
    [
        (
            [[(0, 1)], [(99_999, 1)]],
            ValueError,
            "chunk 0: document 1: term id 99999 is outside",
        ),
        ([[(0, "many")]], TypeError, "chunk 0: document 0"),
        ([[(0, -1)]], ValueError, "chunk 0: document 0: term id 0"),
        (["a text"], TypeError, "chunk 0: document 0 is not a bag of words"),
        (7, TypeError, "corpus is a int"),
    ],
)
def test_documents_that_pyldavis_cannot_show(
    lda: LdaModel, corpus: Any, error: type[Exception], said: str, sample: int | None
) -> None:
    pytest.importorskip("pyLDAvis")
    with pytest.raises(error, match=said):
        lda.pyldavis(corpus, sample=sample)


@pytest.mark.long
def test_pyldavis_of_a_stream_is_that_of_all_documents(lda: LdaModel, lee_corpus: Any) -> None:
    pyldavis = pytest.importorskip("pyLDAvis")
    counts, dictionary = lee_corpus.counts, lee_corpus.dictionary
    options = {"mds": lambda distances: np.zeros((len(distances), 2)), "n_jobs": 1, "R": 5}
    lda.random_state = np.random.RandomState(0)  # inference begins from random numbers
    theta = np.concatenate(list(lda.transform(counts)))
    frequency = np.asarray(corpus2csc(counts, len(dictionary)).sum(axis=1)).ravel()
    lengths = [sum(count for _, count in document) for document in counts]
    words = [dictionary[i] for i in range(len(dictionary))]
    wanted = pyldavis.prepare(lda.get_topics(), theta, lengths, words, frequency, **options)
    lda.random_state = np.random.RandomState(0)
    found = lda.pyldavis(iter(counts), **options)  # read once
    np.testing.assert_allclose(found.topic_coordinates.Freq, wanted.topic_coordinates.Freq, rtol=1e-5)
    assert found.topic_order == wanted.topic_order
    assert list(found.topic_info.Term) == list(wanted.topic_info.Term)
    np.testing.assert_allclose(found.topic_info.Freq, wanted.topic_info.Freq, rtol=1e-4)
    # Of a sample, about; of a sample that is all, the same.
    lda.random_state = np.random.RandomState(0)
    of_all = lda.pyldavis(counts, sample=10_000, **options)
    np.testing.assert_allclose(of_all.topic_coordinates.Freq, wanted.topic_coordinates.Freq, rtol=1e-5)
    of_some = lda.pyldavis(corpus2csc(counts, len(dictionary)), sample=50, **options)
    assert of_some.topic_coordinates.Freq.sum() == pytest.approx(100.0)
    with pytest.raises(ValueError, match="sample"):
        lda.pyldavis(counts, sample=0)


def test_the_cluster_in_a_notebook_links_to_its_dashboard() -> None:
    from distcorpus.cluster import LocalCluster

    cluster = LocalCluster.__new__(LocalCluster)
    cluster._nameserver, cluster._threads, cluster._certificates = ("127.0.0.1", 9090), 2, None
    cluster._workers, cluster._dashboards = [], [_Ready("http://127.0.0.1:8787/?token=<&>")]
    shown = cluster._repr_html_()
    assert re.search(r'<a href="http://127.0.0.1:8787/\?token=&lt;&amp;&gt;"', shown)
    assert cluster.dashboard_link in repr(cluster)
    cluster._dashboards = []
    assert "<a" not in cluster._repr_html_()


def test_the_bars_first_rate_counts_the_time_of_the_first_chunk(
    lee_corpus: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = _Clock()
    monkeypatch.setattr("tqdm.std.time", clock.time)
    monkeypatch.setattr("distcorpus.models._progress.time", clock)

    class Slow(list[Any]):
        def __iter__(self) -> Any:
            for document in super().__iter__():
                clock.now += 0.1
                yield document

    corpus = Slow(lee_corpus.counts[:100])
    LdaModel(corpus, 2, lee_corpus.dictionary, chunksize=100, workers=1, progress=True)
    rates = re.findall(r"([\w.]+)doc/s", capsys.readouterr().err)
    assert set(rates) == {"10.00"}


class _Clock:
    now = 1000.0

    def time(self) -> float:
        return self.now


class _Ready:
    def __init__(self, url: str) -> None:
        self.is_ready, self.facts = True, {"url": url}

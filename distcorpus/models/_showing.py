"""What people see of a model: in a notebook, as a table, and in plots."""

from __future__ import annotations

import html
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from gensim.matutils import argsort

from distcorpus.corpora.reading import as_corpus, chunks, word_of
from distcorpus.models import _check as check

#: Topics, and words of each, that a notebook shows.
TOPICS_SHOWN, WORDS_SHOWN = 12, 8
#: Events of a training that a model remembers, for its plot.
EVENTS_KEPT = 4000

_BLUE, _ORANGE = "#2a78d6", "#e0930c"


class WordsAndIds(Mapping[int, Any]):
    """A vocabulary in which ids stand for missing words.

    Parameters
    ----------
    id2word : mapping
    num_terms : int
    """

    def __init__(self, id2word: Any, num_terms: int) -> None:
        self._id2word = id2word
        self._num_terms = num_terms

    def __getitem__(self, word: int) -> Any:
        if not 0 <= word < self._num_terms:
            raise KeyError(word)
        return word_of(self._id2word, word)

    def __len__(self) -> int:
        return self._num_terms

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._num_terms))


class Shown:
    """What both models show of themselves."""

    num_topics: int
    num_terms: int
    id2word: Any

    def _worded(self, **attributes: Any) -> Any:
        """Return a model that shares all with this one but some attributes, and in which ids stand for
        missing words: gensim's methods look up words without asking.
        """
        worded = object.__new__(type(self))
        worded.__dict__.update(vars(self), **attributes)
        if len(self.id2word) < self.num_terms:
            worded.id2word = WordsAndIds(self.id2word, self.num_terms)
        return worded

    def _topic_table(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the topics' weights, shape (k,), and their terms' values, shape (k, num_terms)."""
        raise NotImplementedError

    def _facts(self) -> dict[str, Any]:
        raise NotImplementedError

    def _weight_text(self, weight: float) -> str:
        return f"{weight:.4g}"

    def topics_frame(self, topn: int = 10) -> Any:
        """Return the leading words of each topic as a table.

        Parameters
        ----------
        topn : int, default 10
            Words of a topic.

        Returns
        -------
        pandas.DataFrame
            With the columns ``topic``, ``weight`` (of the topic: its share of the tokens of the training, or
            its singular value), ``rank`` (from 1), ``word`` and ``value`` (a probability, or an entry of the
            singular vector).

        Raises
        ------
        ImportError
            pandas is not installed.
        ValueError
            There are no topics.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("pandas is not installed: pip install 'distcorpus[plot]'") from error
        columns = ("topic", "weight", "rank", "word", "value")
        rows = [
            (number, weight, rank, word, value)
            for number, weight, words in self._leading_of_some(topn)
            for rank, (word, value) in enumerate(words, 1)
        ]
        return pandas.DataFrame(rows, columns=list(columns))

    def plot_topics(self, topics: Sequence[int] | None = None, topn: int = 10) -> Any:
        """Draw the leading words of topics.

        Parameters
        ----------
        topics : sequence of int, optional
            Which; by default the twelve of the largest weight.
        topn : int, default 10
            Words of a topic.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            There is no such topic, or none at all.
        """
        topn = check.whole("topn", topn, 1)
        leading = self._leading_of_some(topn)
        if topics is None:
            shown = sorted(leading, key=lambda topic: -topic[1])[:TOPICS_SHOWN]
        else:
            shown = [leading[number] for number in _numbers_of_topics(topics, len(leading))]
        columns = min(len(shown), 4)
        rows = -(-len(shown) // columns)
        figure = _figure(2.9 * columns, (0.21 * topn + 0.6) * rows)
        for place, (number, weight, words) in enumerate(shown, 1):
            axes = figure.add_subplot(rows, columns, place)
            values = [value for _, value in words]
            axes.barh(
                range(len(words)),
                np.abs(values),
                color=[_BLUE if value >= 0 else _ORANGE for value in values],
            )
            axes.set_yticks(range(len(words)), [_plain(word) for word, _ in words], fontsize=8)
            axes.invert_yaxis()
            axes.set_title(f"topic {number}: {self._weight_text(weight)}", fontsize=9, loc="left")
            axes.tick_params(axis="x", labelsize=7)
            _without_frame(axes)
        return figure

    def plot_training(self) -> Any:
        """Draw how the latest training in this process went.

        Returns
        -------
        matplotlib.figure.Figure
            Documents or products over time and, where perplexities were estimated (for LDA with `eval_every`,
            in a program that logs at INFO or makes a report), these over the documents.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            This model was not trained in this process.
        """
        log: TrainingLog | None = self.__dict__.get("_training_log")
        if log is None or not log.progress:
            raise ValueError("this model was not trained in this process: there is nothing to draw")
        curves = [("seconds", log.what, np.array(log.progress))]
        if len(log.perplexities) > 1:
            curves.append(("documents computed", "perplexity", np.array(log.perplexities)))
        figure = _figure(4.5 * len(curves), 3.0)
        for place, (x, y, points) in enumerate(curves, 1):
            axes = figure.add_subplot(1, len(curves), place)
            axes.plot(points[:, 0], points[:, 1], color=_BLUE, linewidth=2)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(alpha=0.3)
            _without_frame(axes)
        return figure

    def _leading_of_some(self, topn: int) -> list[tuple[int, float, list[tuple[str, float]]]]:
        """Return what `_leading` does; raise an error where there are no topics."""
        leading = self._leading(topn)
        if not leading:
            raise ValueError("this model has no topics yet: train it first, or load one that is")
        return leading

    def _leading(self, topn: int) -> list[tuple[int, float, list[tuple[str, float]]]]:
        """Return number, weight and leading words, with their values, of each topic."""
        topn = check.whole("topn", topn, 1)
        table = self._topic_table()
        if table is None:
            return []
        found = []
        for number, (weight, values) in enumerate(zip(*table, strict=True)):
            terms = argsort(np.abs(values), topn=min(topn, len(values)), reverse=True)
            words = [(str(word_of(self.id2word, int(term))), float(values[term])) for term in terms]
            found.append((number, float(weight), words))
        return found

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        facts = "".join(
            f"<span style='margin-right:1.5em'><span style='opacity:.65'>{html.escape(name)}</span> "
            f"<b>{html.escape(str(value))}</b></span>"
            for name, value in self._facts().items()
        )
        leading = self._leading(WORDS_SHOWN)
        shown = sorted(leading, key=lambda topic: -topic[1])[:TOPICS_SHOWN]
        more = len(leading) - len(shown)
        return (
            f"<div><div style='margin-bottom:.6em'><b>{type(self).__name__}</b></div><div>{facts}</div>"
            f"{self._spectrum_html()}<div style='display:flex;flex-wrap:wrap;gap:1.2em;margin-top:.8em'>"
            + "".join(
                _topic_html(number, self._weight_text(weight), words) for number, weight, words in shown
            )
            + "</div>"
            + (f"<div style='opacity:.65'>and {more} more</div>" if more > 0 else "")
            + "</div>"
        )

    def _spectrum_html(self) -> str:
        return ""


class TrainingLog:
    """What a model remembers of its latest training.

    Parameters
    ----------
    what : str
        What its progress counts.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.progress: list[tuple[float, float]] = []
        self.perplexities: list[tuple[float, float]] = []
        self._documents = 0
        self._began = time.monotonic()

    def told(self, event: dict[str, Any]) -> None:
        """Take in an event of the training."""
        seconds = time.monotonic() - self._began
        if event["kind"] == "update":
            self._documents = event["pass_"] * (event["of"] or 0) + event["documents"]
            if self.what != "products with the corpus":
                self.progress.append((seconds, self._documents))
        elif event["kind"] == "round":
            self.progress.append((seconds, event["rounds"]))
        elif event["kind"] == "perplexity":
            self.perplexities.append((self._documents, float(np.exp2(-event["per_word"]))))
        for points in (self.progress, self.perplexities):
            if len(points) > EVENTS_KEPT:
                del points[::2]


def spectrum_figure(values: np.ndarray, axes: Any = None) -> Any:
    """Draw singular values, over their numbers from 1; return the figure."""
    if axes is None:
        axes = _figure(5.5, 3.2).add_subplot()
    axes.plot(range(1, len(values) + 1), values, color=_BLUE, linewidth=2)
    axes.fill_between(range(1, len(values) + 1), values, color=_BLUE, alpha=0.12)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("number")
    axes.set_ylabel("singular value")
    axes.grid(alpha=0.3)
    _without_frame(axes)
    return axes.figure


def spectrum_html(values: np.ndarray) -> str:
    """Draw singular values for a notebook."""
    if not len(values) or not values[0] > 0:
        return ""
    wide, tall = 420, 60
    step = wide / len(values)
    bars = "".join(
        f"M{number * step:.2f} {tall}v{-tall * value / values[0]:.2f}h{max(step * 0.85, 0.3):.2f}"
        f"v{tall * value / values[0]:.2f}z"
        for number, value in enumerate(values.tolist())
    )
    return (
        f"<div style='margin-top:.8em'><svg width='{wide}' height='{tall}' role='img' "
        f"aria-label='singular values'><path d='{bars}' fill='{_BLUE}'/></svg>"
        f"<div style='opacity:.65'>singular values, {values[0]:.4g} to {values[-1]:.4g}</div></div>"
    )


def prepare_pyldavis(model: Any, corpus: Any, sample: int | None, options: dict[str, Any]) -> Any:
    """See `LdaModel.pyldavis`."""
    try:
        import pyLDAvis
    except ImportError as error:
        raise ImportError("pyLDAvis is not installed: pip install pyLDAvis") from error
    frequency = np.zeros(model.num_terms)
    lengths: deque[float] = deque()

    def counted() -> Iterator[Any]:
        for chunk in chunks(as_corpus(corpus), model.chunksize, model.num_terms, counts=True):
            counts = chunk.data.astype(np.float64)
            np.add(frequency, np.bincount(chunk.indices, counts, len(frequency)), out=frequency)
            for start, end in pairwise(chunk.indptr.tolist()):
                if sample is None:
                    lengths.append(counts[start:end].sum())
                yield list(zip(chunk.indices[start:end].tolist(), counts[start:end].tolist(), strict=True))

    read: Iterable[Any] = counted()
    if sample is not None:
        read = _sampled(read, sample)
        lengths.extend(sum(count for _, count in bow) for bow in read)
    words_of_topic = np.zeros(model.num_topics)
    for distributions in model.transform(read):
        for distribution in distributions:
            words_of_topic += lengths.popleft() * np.asarray(distribution, dtype=np.float64)
    topics = np.asarray(model.get_topics(), dtype=np.float64)
    seen = frequency > 0
    # What pyLDAvis makes of documents is how many words each topic has: one document a topic tells it that.
    present = words_of_topic > 0
    if not present.any():
        raise ValueError("corpus has no words")
    return pyLDAvis.prepare(
        topics[:, seen] / topics[:, seen].sum(axis=1, keepdims=True),
        np.eye(model.num_topics)[present],
        words_of_topic[present],
        [str(word_of(model.id2word, int(term))) for term in np.flatnonzero(seen)],
        frequency[seen],
        **options,
    )


def _sampled(documents: Iterable[Any], number: int) -> list[Any]:
    """Return so many documents, each with the same chance (Vitter's algorithm R, 1985), always the same."""
    chance = random.Random(0)
    kept: list[Any] = []
    for position, document in enumerate(documents):
        if position < number:
            kept.append(document)
        elif (place := chance.randrange(position + 1)) < number:
            kept[place] = document
    return kept


def _numbers_of_topics(given: Any, number: int) -> list[int]:
    """Return which of so many topics are meant."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"topics={given!r}: give a list of topics, of 0 to {number - 1}")
    topics = [check.whole("topics", topic, -(2**63)) for topic in given]
    missing = [topic for topic in topics if not 0 <= topic < number]
    if missing or not topics:
        raise ValueError(f"topics={missing}: the topics are 0 to {number - 1}; give one or more of them")
    return topics


def _topic_html(number: int, weight: str, words: list[tuple[str, float]]) -> str:
    largest = max((abs(value) for _, value in words), default=0.0) or 1.0
    rows = "".join(
        "<tr style='background:none'>"
        "<td style='text-align:left;padding:0 .6em 0 0;max-width:11em;overflow:hidden'>"
        f"{html.escape(word)}</td>"
        f"<td style='padding:0;width:70px'><div style='width:{70 * abs(value) / largest:.0f}px;height:8px;"
        f"border-radius:2px;background:{_colour(value)}'></div></td>"
        f"<td style='text-align:right;padding:0 0 0 .6em'>{value:.3f}</td></tr>"
        for word, value in words
    )
    return (
        f"<div><div><b>topic {number}</b> <span style='opacity:.65'>{weight}</span></div>"
        f"<table style='font-size:90%;margin:0'>{rows}</table></div>"
    )


def _colour(value: float) -> str:
    return _BLUE if value >= 0 else _ORANGE


def _figure(width: float, height: float) -> Any:
    try:
        from distcorpus.models._figure import ShownFigure
    except ImportError as error:
        raise ImportError("matplotlib is not installed: pip install 'distcorpus[plot]'") from error
    return ShownFigure(figsize=(width, height), layout="constrained")


def _without_frame(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _plain(word: str) -> str:
    """Return a word as matplotlib shows it as it is: dollars begin mathematics there."""
    return word[:24].replace("$", r"\$")

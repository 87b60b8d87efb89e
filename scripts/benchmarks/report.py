"""Tables, plots, and the page of the documentation that shows them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "benchmarks.md"
PLOTS = DOCS / "benchmarks"


@dataclass(frozen=True)
class Result:
    """What a subcommand has found.

    Attributes
    ----------
    text : str
        Markdown.
    plots : dict of str to callable
        By their names; each draws its plot into a file.
    """

    text: str
    plots: dict[str, Callable[[Path], None]] = field(default_factory=dict)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, rule)

    def padded(line: Sequence[str]) -> list[str]:
        first, *others = zip(line, widths, strict=True)
        return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]

    return "\n".join(f"| {' | '.join(padded(line))} |" for line in lines)


def seconds(values: Sequence[float]) -> str:
    """The median of measured seconds, to three digits."""
    median = statistics.median(values)
    digits = 3 if median < 1 else 2 if median < 10 else 1
    return f"{median:.{digits}f}"


def ratio(reference: Sequence[float], values: Sequence[float]) -> str:
    """How many times faster than the reference, by the medians."""
    factor = statistics.median(reference) / statistics.median(values)
    return f"{factor:.1f}x" if factor < 100 else f"{factor:.0f}x"


def megabytes(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.0f}" if nbytes >= 1e7 else f"{nbytes / 1e6:.1f}"


def write_section(name: str, text: str, plots: dict[str, Callable[[Path], None]]) -> None:
    """Put text and plots between the two comments of this name in the page of the documentation.

    Raises
    ------
    ValueError
        If the page has no such place.
    """
    begin, end = f"<!-- {name}: written by scripts/bench.py -->", f"<!-- end of {name} -->"
    page = PAGE.read_text("utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE} has no place for {name}; put the lines {begin!r} and {end!r} into it")
    PLOTS.mkdir(exist_ok=True)
    for plot_name, draw in plots.items():
        draw(PLOTS / f"{plot_name}.png")
        text += f"\n\n![{plot_name}]({PLOTS.name}/{plot_name}.png)"
    PAGE.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page), "utf-8")


#: A line or a dot: its label, and points (x, y) in order.
Curve = tuple[str, Sequence[tuple[float, float]]]


@contextmanager
def _figure(path: Path, x: str, y: str, height: float = 4.5) -> Iterator[Any]:
    """Make axes, and save what was drawn as a small PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, height), layout="constrained")
    yield axes
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def draw_curves(path: Path, curves: Sequence[Curve], x: str, y: str) -> None:
    """Draw curves over a logarithmic axis, solid where the label starts with "ours"."""
    with _figure(path, x, y) as axes:
        for label, points in curves:
            style = "-" if label.startswith("ours") else "--"
            axes.plot(*zip(*points, strict=True), style, marker=".", label=label, linewidth=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")


def draw_dots(path: Path, dots: Sequence[Curve], x: str, y: str) -> None:
    """Draw labelled dots between two logarithmic axes, filled where the label starts with "ours"."""
    with _figure(path, x, y) as axes:
        for label, points in dots:
            axes.plot(*zip(*points, strict=True), "o" if label.startswith("ours") else "x", label=label)
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")


def draw_bars(path: Path, groups: Sequence[tuple[str, dict[str, float]]], y: str) -> None:
    """Draw groups of labelled bars."""
    labels = list(groups[0][1])
    width = 0.8 / len(labels)
    with _figure(path, "", y, height=3.5) as axes:
        for number, label in enumerate(labels):
            places = [place + number * width for place in range(len(groups))]
            axes.bar(places, [values[label] for _, values in groups], width, label=label)
        middles = [place + 0.4 - width / 2 for place in range(len(groups))]
        axes.set_xticks(middles, [name for name, _ in groups])

"""Plots of a report, as SVG that takes its colours from the page: readable in both themes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Found = Mapping[str, Any]
"""The part of a report on discovery."""

INK, FAINT = "#010203", "#040506"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
PAGE_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)"} | {
    colour: f"var(--series-{place})" for place, colour in enumerate(SERIES, 1)
}
"""Stand-ins for the page's colours; matplotlib knows no CSS variables."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sonant",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
CASES = {
    "I": "I · all agree: it sounds",
    "II": "II · sound and picture, not narrated",
    "III": "III · seen and narrated, silent",
    "IV": "IV · heard and narrated, unseen",
    "none": "none · nothing agrees",
    "wrong": "wrong · narration of another action",
}
SMOOTHING = 25
"""Steps that a training curve is averaged over."""


def curves(found: Found, pair: str) -> str:
    """ROC and PR curves of every model's raw score of a pair, and of the rows beside them."""
    rows = [row for row in found["rows"] if row["roc"] and row["pr"]]
    models = [row for row in rows if (row["pair"], row["score"]) == (pair, "raw")]
    if not models:
        return ""
    with mpl.rc_context(STYLE):
        many = len(models) > len(SERIES)
        figure, (left, right) = _figure(7.6, 3.5 + many * 0.07 * len(models), columns=2)
        for row in rows:
            if row["kind"] in ("baseline", "prior"):
                dashes = (0, (4, 2)) if row["kind"] == "prior" else "-"
                for axes, name in ((left, "roc"), (right, "pr")):
                    _curve(axes, row[name], color=FAINT, linewidth=1.0, linestyle=dashes)
        for row, look in zip(models, _looks(), strict=False):
            for axes, name in ((left, "roc"), (right, "pr")):
                _curve(axes, row[name], **look, label=row["name"])
        rate = found["positives"] / found["labelled"]
        left.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="chance")
        right.axhline(rate, color=INK, linewidth=0.8, linestyle=":", label="base rate")
        _name(left, "ROC", "false positive rate", "true positive rate")
        _name(right, "Precision and recall", "recall", "precision")
        for axes in (left, right):
            axes.set(xlim=(0, 1), ylim=(0, 1.01))
            if not many:
                axes.legend(loc="lower right" if axes is left else "lower left")
        if many:  # they would cover the curves
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        alt = f"ROC and precision-recall curves of {_names(models)}, {pair} raw"
        return _svg(figure, alt)


def histograms(found: Found, name: str) -> str:
    """Distribution of one model's raw scores in each case of clip, its mean marked."""
    rows = [
        row
        for row in found["rows"]
        if row["name"] == name and row["score"] == "raw" and row["histogram"]["edges"]
    ]
    if not rows:
        return ""
    cases = _ordered({case for row in rows for case in row["histogram"]["counts"]})
    with mpl.rc_context(STYLE):
        figure, grid = _figure(
            7.6, 0.8 + 0.75 * len(cases), columns=len(rows), rows=len(cases), sharex="col"
        )
        for column, row in enumerate(rows):
            axes = [grid[place * len(rows) + column] for place in range(len(cases))]
            _cases(axes, row, cases, labelled=column == 0)
            axes[0].set_title(f"{row['pair']} cosine", pad=14)
        return _svg(figure, f"Histograms of the scores of {name} in the cases {', '.join(cases)}")


def reliability(row: Mapping[str, Any]) -> str:
    """Share of sounding clips over probability with 95 % bands, and how often each is given."""
    if not row["bins"]:
        return ""
    with mpl.rc_context(STYLE):
        figure, (left, right) = _figure(7.6, 3.5, columns=2)
        x = [one["probability"] for one in row["bins"]]
        y, low, high = (
            np.array([one["share"][end] for one in row["bins"]], float)
            for end in ("value", "low", "high")
        )
        left.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect")
        left.fill_between(x, low, high, color=SERIES[0], alpha=0.22, linewidth=0)
        left.plot(x, y, color=SERIES[0], marker="o", markersize=4, label=row["name"])
        left.set(xlim=(0, 1), ylim=(0, 1.01))
        left.legend(loc="upper left")
        _name(left, "Reliability", "mean probability of a bin", "share that sounds")
        counts = row["counts"]
        edges = np.linspace(0, 1, len(counts) + 1)
        right.stairs(counts, edges, fill=True, color=SERIES[0], alpha=0.55, linewidth=0)
        threshold = row["calibration"]["threshold"]
        right.axvline(threshold, color=INK, linewidth=1, label=f"yes from {threshold:.2f}")
        right.set(xlim=(0, 1), ylim=(0, 1.25 * max(counts)))
        right.legend(loc="upper left")
        _name(right, "How often it is given", "probability", "clips")
        return _svg(figure, f"Reliability diagram of {row['name']}, and counts by probability")


def training(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    """Loss terms, cosines of clips with themselves, and effective ranks over the steps of a run."""
    if not lines:
        return ""
    panels = [
        ("terms", "Loss terms"),
        ("cosine", "Mean cosine of pairs"),
        ("rank", "Effective rank"),
    ]
    shown = [(key, title) for key, title in panels if any(line.get(key) for line in lines)]
    with mpl.rc_context(STYLE):
        figure, grid = _figure(7.6, 3.1, columns=max(len(shown), 1))
        for axes, (key, title) in zip(grid, shown, strict=False):
            _series(axes, lines, key)
            _stages(axes, lines)
            _name(axes, title, "step", "")
            axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.24), ncols=2, fontsize=8)
        return _svg(figure, f"Training of {name}: {', '.join(title for _, title in shown)} by step")


def _figure(
    width: float, height: float, *, columns: int = 1, rows: int = 1, sharex: Any = False
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    grid = np.ravel(figure.subplots(rows, columns, sharex=sharex, squeeze=False)).tolist()
    for axes in grid:
        axes.patch.set_alpha(0)
    return figure, grid


def _svg(figure: Figure, alt: str) -> str:
    """The figure's element, coloured by the page and described for those who cannot see it."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' id="(?:figure|axes|patch|line2d|text|legend|matplotlib)[^"]*"', "", svg)
    svg = re.sub(r' id="(?:xtick|ytick|LineCollection|FillBetween|PolyCollection)[^"]*"', "", svg)
    svg = re.sub(r"""font: (\S+) [^;"]*""", r"font: \1 var(--font)", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1 @>", svg, count=1)
    return svg.replace("@", f'role="img" aria-label="{_escaped(alt)}" class="plot"', 1)


def _escaped(text: str) -> str:
    for sign, name in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return text


def _looks() -> Iterator[dict[str, Any]]:
    """A look for each line: colours in turn; after the solid ones dashes, with a dot more a round.

    No two are alike, however many there are.
    """
    for dots in count(-1):
        dashes = "-" if dots < 0 else (0, (5, 1.5) + (1, 1.5) * dots)
        yield from ({"color": colour, "linestyle": dashes} for colour in SERIES)


def _curve(axes: Axes, curve: Mapping[str, list[float]], **style: Any) -> None:
    axes.plot(curve["x"], curve["y"], **style)


def _name(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(True, alpha=0.6)
    axes.set_axisbelow(True)


def _names(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(row["name"] for row in rows)


def _ordered(cases: set[str]) -> list[str]:
    """The paper's cases in their order, then any others."""
    return [case for case in CASES if case in cases] + sorted(cases - set(CASES))


def _cases(
    grid: Sequence[Axes], row: Mapping[str, Any], cases: Sequence[str], *, labelled: bool
) -> None:
    edges = np.asarray(row["histogram"]["edges"])
    shares = {
        case: np.asarray(counts) / max(sum(counts), 1)
        for case, counts in row["histogram"]["counts"].items()
    }
    for axes, case in zip(grid, cases, strict=True):
        colour = SERIES[0] if case in ("I", "sounding") else SERIES[1]
        if case in shares:
            axes.stairs(shares[case], edges, fill=True, color=colour, alpha=0.55, linewidth=0)
            axes.stairs(shares[case], edges, color=colour, linewidth=1.2)
            axes.axvline(row["means"][case], color=INK, linewidth=1)
            count = sum(row["histogram"]["counts"][case])
            text = f"n = {count}, mean {row['means'][case]:.2f}".replace("-", "−")
            axes.text(1, 1.0, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8)
        if labelled:
            axes.text(
                0, 1.0, CASES.get(case, case), transform=axes.transAxes, va="bottom", fontsize=8.5
            )
        axes.set(ylim=(0, 1.05 * max(shares.get(case, [1.0]))), yticks=[])
        axes.spines["left"].set_visible(False)
    grid[-1].set_xlabel("cosine")


def _series(axes: Axes, lines: Sequence[Mapping[str, Any]], key: str) -> None:
    """One line a name, smoothed, broken where a stage begins."""
    names = dict.fromkeys(name for line in lines for name in line.get(key) or {})
    looks = dict(zip(names, _looks(), strict=False))
    for begin, _, stage in _by_stage(lines):
        for name, look in looks.items():
            steps = [step for step, line in enumerate(stage) if name in (line.get(key) or {})]
            values = [stage[step][key][name] for step in steps]
            axes.plot(*_smooth(np.array(steps) + begin, np.array(values)), **look)
    for name, look in looks.items():
        axes.plot([], [], **look, label=name)


def _smooth(x: Any, y: Any) -> tuple[Any, Any]:
    """A moving average over `SMOOTHING` steps, where there are many."""
    if len(y) < 4 * SMOOTHING:
        return x, y
    middle = slice(SMOOTHING // 2, SMOOTHING // 2 + len(y) - SMOOTHING + 1)
    return x[middle], np.convolve(y, np.ones(SMOOTHING) / SMOOTHING, "valid")


def _by_stage(
    lines: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[int, str, list[Mapping[str, Any]]]]:
    """Where each stage begins, its name, and its lines."""
    begin = 0
    for name, of in groupby(lines, key=lambda line: str(line.get("stage", ""))):
        stage = list(of)
        yield begin, name, stage
        begin += len(stage)


def _stages(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """A line and a name where each stage begins."""
    for begin, name, _ in _by_stage(lines):
        if begin:
            axes.axvline(begin, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (begin, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8,
        )  # fmt: skip

"""What annotators agreed on, as files: JSON, Markdown, tables, and the long tail of Fig. 4."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from rich.table import Table

from sonant.clips import LABEL, Clips
from sonant.errors import UsageError
from sonant.files import replacing
from sonant.metrics.bootstrap import Interval
from sonant.report.figures import STYLE
from sonant.sources.annotations import LISTED, read_decisions
from sonant.tasks.annotations import Annotations, Group, Open

VERSION = "1"
DIGITS = 6
"""Significant digits of numbers in the JSON."""
NAMED = 10
"""Groups that the plot names, evenly spaced along the logarithm of their rank."""
INK, FAINT, BARS, PAPER = "#1d2327", "#a9afb3", "#0b62a8", "#fdfdfc"
"""The colours of a report's page by day."""


def save(folder: Path, found: Annotations, clips: Clips) -> None:
    """Write all that was found to a folder.

    `annotations.json` and `annotations.md`, the tables `labels.csv`, `verbs.csv`, `groups.csv`,
    the list `adjudication.csv`, the plot `groups.svg`, and `clips.parquet` with the truth in it.

    Args:
        folder: made if it is not there; files of these names are replaced.
        found: of `tasks.annotations.annotate`.
        clips: the clip table that it gave.

    Raises:
        UsageError: an `adjudication.csv` is there with decisions that `found` does not have.
        TableError: one is there that cannot be read.
    """
    _check_decisions(folder / "adjudication.csv", found)
    report = {
        "schema": "sonant.annotations",
        "version": VERSION,
        "made by": f"sonant {version('sonant')}",
        "clip table": clips.digest(),
        **vars(found),
    }
    _write(folder / "annotations.json", json.dumps(_plain(report), indent=1) + "\n")
    _write(folder / "annotations.md", markdown(found))
    _write(folder / "labels.csv", _csv(_LABELS, _labels(clips)))
    _write(folder / "verbs.csv", _csv(_VERBS, _verbs(found)))
    _write(folder / "groups.csv", _csv(_GROUPS, [vars(of).values() for of in found.groups]))
    names = [annotator.name for annotator in found.annotators]
    header = (*_OPEN, *names, "decision")
    listed = [_open(one, names) for one in (*found.open, *found.decided)]
    _write(folder / "adjudication.csv", _csv(header, listed))
    if found.groups:
        _write(folder / "groups.svg", tail(found.groups))
    clips.write(folder / "clips.parquet")


def table(found: Annotations) -> Table:
    """The main figures for a terminal."""
    shown = Table(
        box=None, show_header=False, title="What annotators agreed on", title_justify="left"
    )
    for name, value in _figures(found):
        shown.add_row(name, value)
    for note in found.notes:
        shown.add_row("", note)
    return shown


def markdown(found: Annotations) -> str:
    """The report for reading: figures, annotators, splits, Table 1, the largest groups."""
    parts = ["# Annotations", _table(("", ""), _figures(found))]
    if found.notes:
        parts.append("\n".join(f"- {note}" for note in found.notes))
    parts += [
        "## Annotators",
        _table(
            ("annotator", "votes", "yes", "with the truth"),
            [(a.name, a.votes, _share(a.yes), _share(a.with_truth)) for a in found.annotators],
        ),
        "## Splits",
        _table(
            ("split", "clips", "videos", "sound", "share"),
            [(p.split, p.clips, p.videos, p.sounding, _share(p.share)) for p in found.parts],
        ),
        "## How often verb groups sound (Table 1)",
        _table(
            ("verb", "clips", "sound", "share", "95 % over videos", "the paper"),
            [
                (
                    verb.name, verb.clips, verb.sounding, _share(verb.share.value),
                    _range(verb.share), _share(verb.paper),
                )
                for verb in found.verbs
            ],
        ),
        f"## Verb and noun groups of sounding clips (Fig. 4): {len(found.groups)}",
        _table(
            ("group", "clips", "for example"),
            [(group.name, group.clips, group.example) for group in found.groups[:20]],
        ),
        f"{found.large_groups} groups have more than two clips, {found.large_group_clips} in all. "
        "groups.csv has every group.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def tail(groups: Sequence[Group]) -> str:
    """The long tail of Fig. 4: sounding clips of each verb and noun group, as SVG.

    Args:
        groups: largest first.
    """
    counts = np.array([group.clips for group in groups])
    ranks = np.arange(1, len(groups) + 1)
    with mpl.rc_context({**STYLE, **_COLOURS}):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.fill_between(ranks, counts, step="mid", color=BARS, alpha=0.25, linewidth=0)
        axes.step(ranks, counts, where="mid", color=BARS, linewidth=1.4)
        for place in _named(len(groups)):
            axes.plot(ranks[place], counts[place], "o", color=BARS, markersize=3.5)
            axes.annotate(
                groups[place].name, (ranks[place], counts[place]), xytext=(4, 5),
                textcoords="offset points", rotation=28, fontsize=8, color=INK,
            )  # fmt: skip
        axes.set(
            title="Sounding clips by verb and noun",
            xlabel=f"{len(groups)} groups, largest first",
            ylabel="clips",
            yscale="log",
            xscale="log",
            ylim=(0.7, 5 * counts[0]),  # with room for the names
            xlim=(0.8, 4 * len(groups)),
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(True, alpha=0.6)
        axes.set_axisbelow(True)
        return _svg(figure)


_COLOURS: dict[Any, Any] = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT,
}  # fmt: skip
_LABELS = ("clip", "video", "start", "end", "split", "sounding", "verb", "noun", "group", "text")
_VERBS = ("verb", "clips", "sounding", "share", "low", "high", "paper")
_GROUPS = ("group", "clips", "example")
_OPEN = ("clip", *LISTED)


def _figures(found: Annotations) -> list[tuple[str, str]]:
    decided = found.sounding + found.silent
    share = _share(found.sounding / decided) if decided else "–"
    return [
        ("clips voted on", f"{found.voted} of {found.clips}, of {found.videos} videos"),
        ("votes", f"{found.votes} of panels of {found.panel}; {found.missing} missing"),
        ("sound", f"{found.sounding} ({share} of those decided)"),
        ("do not", f"{found.silent}"),
        ("undecided", f"{found.undecided}"),
        ("decided by an adjudicator", f"{found.decided_by_adjudicator}"),
        ("Fleiss' kappa", f"{_share(found.kappa.value)} ({_range(found.kappa)})"),
        ("pairs of votes alike", f"{_share(found.agreement.value)} ({_range(found.agreement)})"),
        ("unanimous panels", _share(found.unanimous)),
        ("Krippendorff's alpha", _share(found.alpha)),
    ]


def _labels(clips: Clips) -> Iterable[Sequence[Any]]:
    """Every clip of which the truth is known, with its groups."""
    names = [name for name in ("verb", "noun", "group") if LABEL + name in clips.table.column_names]
    for clip in clips:
        if clip.labels["sounding"] is not None:
            said = {name: clip.labels[name] for name in names}
            groups = [said.get(name) or "" for name in ("verb", "noun", "group")]
            sounds = "yes" if clip.labels["sounding"] else "no"
            times = [f"{time:.3f}" for time in (clip.start, clip.end)]
            yield clip.id, clip.video, *times, clip.split, sounds, *groups, clip.text


def _verbs(found: Annotations) -> Iterable[Sequence[Any]]:
    for verb in found.verbs:
        ends = [_number(end) for end in (verb.share.value, verb.share.low, verb.share.high)]
        yield verb.name, verb.clips, verb.sounding, *ends, _number(verb.paper)


def _open(one: Open, annotators: Sequence[str]) -> Sequence[Any]:
    votes = [one.votes.get(name, "") for name in annotators]
    times = [f"{time:.3f}" for time in (one.start, one.end)]
    return one.id, one.video, *times, one.text, one.why, one.majority, *votes, one.decision


def _check_decisions(path: Path, found: Annotations) -> None:
    """Refuse to write over an adjudicator's work that was not taken in."""
    there = read_decisions(path) if path.is_file() else {}
    taken = {one.id: one.decision == "yes" for one in found.decided}
    if lost := [id for id, decision in there.items() if taken.get(id) != decision]:
        raise UsageError(
            f"{path}: has {len(lost)} decisions that were not given, the first on clip "
            f"{lost[0]!r}; give the file with --decisions, move it away, or choose another --out"
        )


def _csv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _share(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def _range(of: Interval) -> str:
    return "–" if math.isnan(of.low) else f"{_share(of.low)} to {_share(of.high)}"


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{DIGITS}g}"


def _named(groups: int) -> list[int]:
    """Places of groups to name: the first, the last, and some between."""
    places = np.round(np.geomspace(1, groups, min(NAMED, groups))).astype(int) - 1
    return [int(place) for place in np.unique(places)]


def _plain(value: Any) -> Any:
    """Ready for JSON: NaN as null, floats with the digits that mean something."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return _plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")

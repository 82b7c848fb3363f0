"""Reports: one JSON file that holds what was found, and one HTML file that shows it to people.

The page is made from files alone and needs no network: plots are SVG, clips are small videos, both
inside it. The same files make the same page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from importlib.metadata import version
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from rich.markup import escape
from rich.table import Table

from sonant.clips import LABEL, Clips
from sonant.errors import SonantError, TableError, UsageError
from sonant.files import demand_writable, replacing
from sonant.media.pack import Pack
from sonant.report import figures
from sonant.report.films import film, poster
from sonant.tasks.agreement import Example
from sonant.tasks.calibration import Calibrated
from sonant.tasks.discovery import Discovery
from sonant.tasks.recognition import Recognition
from sonant.tasks.retrieval import Retrieval

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from sonant.tasks.clusters import Clusters
    from sonant.tasks.probe import Probe

VERSION = "1"
DIGITS = 6
"""Significant digits of the numbers in a report."""
THUMB_FRAMES = 64
"""Most frames of a clip that is shown."""
FILM_BYTES = 8_000_000
"""Most that the films of clusters fill in a page; beyond it, clips are stills."""
SHOWN = {
    "purity": "purity",
    "nmi": "NMI",
    "ami": "AMI",
    "ari": "ARI",
    "hungarian_accuracy": "matched",
}
"""Measures of clusters."""
PUREST = 5
"""Clusters that it shows for each label."""
AREAS = {
    "roc_auc": "ROC AUC",
    "average_precision": "AP",
    "pr_auc": "PR AUC",
    "within_verb": "within verb",
}
SCORES = {"raw": "cosine", "centred": "double-centred", "pmi": "PMI"}
PARTS = (
    "discovery",
    "calibration",
    "retrieval",
    "clusters",
    "recognition",
    "probe",
    "examples",
)
ERRORS = {
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece_equal_width": "ECE, equal width",
    "ece_equal_mass": "ECE, equal mass",
    "roc_auc": "ROC AUC",
}
DECISIONS = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
}
RULES = {
    "balanced": "best balanced accuracy",
    "f1": "best F1",
    "half": "probability 1/2",
}


def save(
    path: Path | str,
    *,
    clips: Clips,
    discovery: Discovery | None = None,
    calibration: Calibrated | None = None,
    retrieval: Retrieval | None = None,
    clusters: Clusters | None = None,
    recognition: Recognition | None = None,
    probe: Probe | None = None,
    examples: Mapping[str, Sequence[Example]] | None = None,
    made_from: Mapping[str, str] | None = None,
) -> None:
    """Write what was found as JSON, NaN as null, or add it to what the file holds already.

    What is not given stays as it is in a report of the same clips and labels, as long as its models
    are of the same runs as those of their names that are given; else it is left out.

    Args:
        path: the file, usually report.json.
        clips: the table that was judged; its quarantine is summed up.
        discovery: of `tasks.discovery`.
        calibration: of `tasks.calibration`.
        retrieval: of `tasks.retrieval`.
        clusters: of `tasks.clusters`.
        recognition: of `tasks.recognition`.
        probe: of `tasks.probe`.
        examples: of `tasks.agreement.examples`.
        made_from: name of a part to a hash of all that it was made from; see `holds`.

    Raises:
        TableError: the file is there and is no report of this version.
        UsageError: it is a report of other clips.
    """
    path, about = Path(path), _summary(clips)
    judged = (discovery, calibration, retrieval, clusters, recognition, probe)
    given = dict(zip(PARTS, (*judged, examples), strict=True))
    runs = {name: run for part in judged if part is not None for name, run in part.runs.items()}
    there = read(path) if path.is_file() else {}
    _spare_others(path, there, about, {part for part, value in given.items() if value is not None})
    kept = _of_runs(there, runs) if there.get("clips") == about else {}
    report = {
        "schema": "sonant.report",
        "version": VERSION,
        "made by": f"sonant {version('sonant')}",
        "clips": about,
        "made from": {**kept.get("made from", {}), **(made_from or {})},
        **{name: kept.get(name) if value is None else value for name, value in given.items()},
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(_plain(report), indent=1) + "\n", encoding="utf-8")


def _of_runs(there: Mapping[str, Any], runs: Mapping[str, str]) -> dict[str, Any]:
    """A report without the parts in which one of these models is of another run.

    Examples are of discovery's first model, and go with it.
    """
    other = {
        part
        for part in PARTS[:-1]
        for name, run in (there[part] or {}).get("runs", {}).items()
        if runs.get(name, run) != run
    }
    other |= {"examples"} if "discovery" in other else set()
    made_from = {part: of for part, of in there["made from"].items() if part not in other}
    return {**there, **dict.fromkeys(other), "made from": made_from}


def holds(path: Path | str, made_from: Mapping[str, str], clips: Clips | None = None) -> bool:
    """Whether a report is there whose parts were made from just this; if not, one can be written.

    Raises:
        UsageError: it has other parts, and is of other clips than those that are given; or it is
            no file.
        SonantError: it cannot be written.
    """
    path = Path(path)
    there = read(path) if path.is_file() else {}
    if clips is not None:
        _spare_others(path, there, _summary(clips), set(made_from))
    if there and all(there["made from"].get(part) == key for part, key in made_from.items()):
        return True
    demand_writable(path)
    return False


def _spare_others(
    path: Path, there: Mapping[str, Any], about: Mapping[str, Any], given: AbstractSet[str]
) -> None:
    """Refuse to lose what a report says of other clips."""
    lost = [part for part in PARTS[:-1] if there and there[part] and part not in given]
    if lost and there["clips"] != about:
        raise UsageError(
            f"{path}: says {', '.join(lost)} of other clips, or of clips whose labels or "
            "quarantine were others; give another name (`--out`), or delete it"
        )


def read(path: Path | str) -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        TableError: the file is missing, is no report, or is of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path}: no such report; `sonant score` makes one")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TableError(f"{path}: is no JSON: {error}") from error
    schema, there = (
        (report.get("schema"), report.get("version")) if isinstance(report, dict) else (None, None)
    )
    if (schema, there) != ("sonant.report", VERSION):
        raise TableError(
            f"{path}: is of schema {schema}, version {there}; this sonant reads sonant.report, "
            f"version {VERSION}: make it again with `sonant score`"
        )
    if not isinstance(report.get("clips"), dict):
        raise TableError(f"{path}: does not say of which clips it is: make it again")
    return {**dict.fromkeys(PARTS), "made by": "an older sonant", "made from": {}, **report}


def report(
    path: Path | str,
    out: Path | str,
    *,
    pack: Path | str | None = None,
    logs: Mapping[str, Path] | None = None,
) -> Path:
    """Make the page of a report.

    Args:
        path: report.json.
        out: the HTML file to write.
        pack: folder of the packed clips, for playable examples; without it they have no pictures.
        logs: name to the log.jsonl of a training run, for its curves; the run's record.json
            beside it is shown too.

    Returns:
        `out`.

    Raises:
        UsageError: a file that is no page is where the page should be.
        TableError: the report or a log is not what it should be.
        SonantError: an example is not in the pack, or the page cannot be written.
    """
    found = read(path)
    if Path(out).is_file() and b"<!doctype html" not in Path(out).read_bytes()[:200].lower():
        raise UsageError(
            f"{out}: is there already, and is no page; give another name, or delete it"
        )
    demand_writable(Path(out))
    films = {} if pack is None else _films(found, Pack.open(pack))
    runs = {name: _lines(Path(log)) for name, log in (logs or {}).items()}
    page = _template().render(
        report=found,
        films=films,
        runs=_runs(found),
        training={name: figures.training(lines, name) for name, lines in runs.items()},
        records=_records(logs or {}),
        score_names=SCORES,
        **(_of_discovery(found["discovery"]) if found["discovery"] else {}),
        **(_of_calibration(found["calibration"]) if found["calibration"] else {}),
        **(_of_retrieval(found["retrieval"]) if found["retrieval"] else {}),
    )
    out = Path(out)
    with replacing(out) as partial:
        partial.write_text(page, encoding="utf-8")
    return out


def discovery_table(report: Mapping[str, Any]) -> Table:
    """The main table for a terminal: every row's ROC AUC and AP with intervals, and within verb.

    Args:
        report: as `read` gives it.
    """
    found = _part(report, "discovery")
    about = (
        f"Which actions sound: {found['labelled']} clips of {found['videos']} videos, "
        f"{found['positives']} sound; 95 % intervals over videos"
    )
    judged = any(row["areas"] for row in found["rows"])
    title = about if judged else escape(found["notes"][0])
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    table.add_column("score", no_wrap=True)
    heads = ("ROC AUC", "AP", "in verb") if judged else ("clips", "mean score")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for title, rows in _sections(found):
        table.add_row(f"[bold]{title}")
        for row in rows:
            score = SCORES.get(row["score"], "").removeprefix("double-")
            name = escape(row["name"])
            table.add_row(f"  {name}", score, *(_judged(row) if judged else _unjudged(row)))
    return table


def retrieval_table(report: Mapping[str, Any]) -> Table:
    """Retrieval for a terminal, by direction: hit@k and mAP with intervals, and median rank."""
    found = _part(report, "retrieval")
    about = (
        f"{found['queries']} queries, {found['gallery']} clips to find, {found['groups']} groups"
    )
    title = f"How actions sound: {about}" if found["rows"] else escape(" ".join(found["notes"]))
    table = Table(
        title=title,
        title_justify="left",
        caption="hit@k: one of a query's group is among the first k. MC3's Table 3 fits no single\n"
        "definition of recall@k (docs/tasks.md); the others are in the report's file."
        if found["rows"]
        else None,
        caption_justify="left",
        box=None,
    )
    table.add_column("")
    for name in ("hit@5", "hit@10", "mAP", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    for direction in dict.fromkeys(row["direction"] for row in found["rows"]):
        table.add_row(f"[bold]{direction}")
        for row in (row for row in found["rows"] if row["direction"] == direction):
            cells = [_interval(row["values"].get(name)) for name in ("hit@5", "hit@10", "map")]
            rank = _fraction(row["values"]["median_rank"]["value"], 1)
            table.add_row(f"  {escape(row['name'])}", *cells, rank)
    return table


def calibration_table(report: Mapping[str, Any]) -> Table:
    """Calibrated discovery for a terminal: errors of probabilities, and of yes or no."""
    found = _part(report, "calibration")
    about = f"Does it sound? {found['kind']} of {found['score']}, from {found['learnt_from']}"
    notes = escape("\n".join(found["notes"]))
    table = Table(
        title=escape(about), title_justify="left", box=None, caption=notes, caption_justify="left"
    )
    heads = ("", "Brier", "log loss", "ECE width", "ECE mass", "yes from", "bal. acc.", "F1")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=bool(head))
    for row in found["rows"]:
        values = row["measures"] | row["decisions"]
        measured = [_fraction((values.get(name) or {}).get("value")) for name in ERRORS][:4]
        learnt = row["calibration"]
        chosen = [_fraction((values.get(name) or {}).get("value")) for name in DECISIONS]
        decided = [_fraction(learnt["threshold"]), chosen[0], chosen[2]] if learnt else ["–"] * 3
        table.add_row(escape(row["name"]), *measured, *decided)
    return table


def clusters_table(report: Mapping[str, Any]) -> Table:
    """Clusters for a terminal: how they meet the labels, beside permuted ones."""
    found = _part(report, "clusters")
    about = (
        f"{found['modality']} features, {found['split']}, in "
        f"{len(found['rows'][0]['clusters'])} clusters"
    )
    if any(row["measures"] for row in found["rows"]):
        about += "; in brackets, with permuted labels"
    notes = escape("\n".join(found["notes"]))
    table = Table(
        title=escape(about), title_justify="left", box=None, caption=notes, caption_justify="left"
    )
    table.add_column("")
    labels = list(dict.fromkeys(label for row in found["rows"] for label in row["measures"]))
    for label in labels:
        table.add_column(escape(label), justify="right", no_wrap=True)
    for row in found["rows"]:
        sizes = [cluster["clips"] for cluster in row["clusters"]]
        name = f"[bold]{escape(row['name'])}[/]"
        table.add_row(f"{name}, {row['clips']} clips in {sizes[0]} to {sizes[-1]}")
        levels = [row["measures"].get(label) for label in labels]
        for measure, said in SHOWN.items() if any(levels) else ():
            cells = [_above_chance(of[measure]) if of else "–" for of in levels]
            table.add_row(f"  {said}", *cells)
    return table


def _above_chance(level: Mapping[str, float]) -> str:
    return f"{_fraction(level['value'])} ({_fraction(level['chance'])})"


def concepts_table(report: Mapping[str, Any]) -> Table:
    """The purest clusters of each model for a terminal, read by their labels (XDC, Table 6)."""
    table = Table(title="the purest clusters", title_justify="left", box=None, show_header=False)
    table.add_column("cluster", justify="right", no_wrap=True)
    table.add_column("concepts", overflow="fold")
    for row in _part(report, "clusters")["rows"]:
        for label, readings in row["purest"].items():
            table.add_row("", f"[bold]{escape(row['name'])}[/]: {escape(label)}")
            for one in readings[:PUREST]:
                said = [f"{concept['value']} {concept['share']:.0%}" for concept in one["concepts"]]
                about = f"{one['cluster']}: {one['clips']} clips"
                table.add_row(about, escape(", ".join(said)))
    return table


def _part(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not report[name]:
        raise TableError(f"the report has no {name} in it; `sonant score {name}` adds it")
    return dict(report[name])


def _judged(row: Mapping[str, Any]) -> list[str]:
    cells = [_interval(row["areas"].get(name)) for name in ("roc_auc", "average_precision")]
    return [*cells, _fraction((row["areas"].get("within_verb") or {}).get("value"))]


def _unjudged(row: Mapping[str, Any]) -> list[str]:
    return [str(row["clips"]), f"{row['means']['all']:.3f}" if row["means"] else "–"]


def _interval(of: Mapping[str, float | None] | None) -> str:
    """Such as ".598 (.571-.624)"; a dash where there is none."""
    if of is None or of["value"] is None:
        return "–"
    if of["low"] is None or of["low"] == of["high"]:
        return _fraction(of["value"])
    return f"{_fraction(of['value'])} ({_fraction(of['low'])}–{_fraction(of['high'])})"


def _fraction(value: float | None, digits: int = 3) -> str:
    """A rounded number without the zero before its point, as in the papers' tables."""
    if value is None:
        return "–"
    text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 1 and digits else text


def _sections(found: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    rows = found["rows"]
    titles = {
        "AV": "Sound with picture (AV)",
        "AL": "Sound with narration (AL)",
        "": "Beside them",
    }
    sections = [(title, [row for row in rows if row["pair"] == p]) for p, title in titles.items()]
    return [(title, found) for title, found in sections if found]


def _runs(report: Mapping[str, Any]) -> dict[str, str]:
    """Model name to run, in all parts."""
    runs: dict[str, str] = {}
    for part in (report[name] for name in PARTS[:-1] if report[name]):
        runs |= {name: run for name, run in part["runs"].items() if name not in runs}
    return runs


def _records(logs: Mapping[str, Path]) -> dict[str, Any]:
    paths = {name: Path(log).with_name("record.json") for name, log in logs.items()}
    found = {name: path for name, path in paths.items() if path.is_file()}
    return {
        name: _object(path.read_bytes(), f"{path}: is no record") for name, path in found.items()
    }


def _object(text: bytes, wrong: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise TableError(f"{wrong}: {error}") from error
    if not isinstance(found, dict):
        raise TableError(f"{wrong}: it is {text.decode()[:40]!r}, not a JSON object")
    return found


def _of_discovery(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's part on discovery is made of."""
    return {
        "sections": _sections(found),
        "areas": AREAS,
        "case_areas": _case_areas(found),
        "cases": figures.CASES,
        "place": _place(found),
        "curves": {pair: figures.curves(found, pair) for pair in ("AV", "AL")},
        "histograms": {name: figures.histograms(found, name) for name in found["runs"]},
    }


def _of_calibration(found: Mapping[str, Any]) -> dict[str, Any]:
    models = [row for row in found["rows"] if row["calibration"]]
    return {
        "errors": ERRORS,
        "decisions": DECISIONS,
        "rules": RULES,
        "reliability": {row["name"]: figures.reliability(row) for row in models},
    }


def _of_retrieval(found: Mapping[str, Any]) -> dict[str, Any]:
    measures = list(found["rows"][0]["values"]) if found["rows"] else []
    return {"measures": measures, "main_measures": [name for name in measures if _is_main(name)]}


def _case_areas(found: Mapping[str, Any]) -> dict[str, str]:
    names = {name for row in found["rows"] for name in row["areas"]}
    cases = [name for name in names if name.startswith("I/")]
    order = list(figures.CASES)
    place = {name: order.index(c) if (c := name[2:]) in order else len(order) for name in cases}
    return {
        name: f"I over {name[2:]}" for name in sorted(cases, key=lambda name: (place[name], name))
    }


def _place(found: Mapping[str, Any]) -> Callable[[float], float]:
    """Where a ROC AUC lies between the lowest and the highest of the table, in per cent."""
    areas = [row["areas"]["roc_auc"] for row in found["rows"] if row["areas"]]
    ends = [of[name] for of in areas for name in ("value", "low", "high") if of[name] is not None]
    low, high = min([*ends, 0.45]) - 0.01, max([*ends, 0.55]) + 0.01
    return lambda value: 100 * (value - low) / (high - low)


def _is_main(measure: str) -> bool:
    return measure.startswith("hit@") or "@" not in measure or measure.endswith("@10")


def _summary(clips: Clips) -> dict[str, Any]:
    """What is in a clip table, and its quarantine by reason, the commonest first."""
    bad = clips.where(quarantined=True)
    reasons = Counter(bad.column("quarantine").tolist())
    labels = {name: clips.table[LABEL + name].to_pylist() for name in clips.labels}
    first = dict(zip(bad.column("quarantine")[::-1], bad.column("id")[::-1], strict=True))
    splits = Counter(clips.where(quarantined=False).column("split").tolist())
    return {
        "clips": len(clips),
        "videos": len(set(clips.column("video"))),
        "splits": {name or "(none)": count for name, count in sorted(splits.items())},
        "quarantine": [
            {"reason": reason, "clips": count, "first": first[reason]}
            for reason, count in reasons.most_common()
        ],
        "digest": clips.digest(),
        "labels": hashlib.sha256(repr(labels).encode()).hexdigest(),
    }


def _plain(value: Any) -> Any:
    """Ready for JSON: NaN as null, floats with the digits that mean something."""
    if is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log; one that a running training is about to end is left out."""
    try:
        *lines, _unended = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TableError(f"{path}: no training log there: {error.strerror}") from error
    return [
        _object(line, f"{path}: is no training log, at line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"fraction": _fraction}
    text = files("sonant.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _films(report: Mapping[str, Any], pack: Pack) -> dict[str, dict[str, str]]:
    """Clip id to data addresses of its `film`, a small mp4, and its `poster`, a still.

    Clips of clusters beyond `FILM_BYTES` have an empty film; those nearest the centres come first.
    """
    rows = {id: row for row, id in enumerate(pack.clips.column("id"))}
    examples = [one["id"] for ones in (report["examples"] or {}).values() for one in ones]
    clustered = list(_by_rank(report["clusters"]["rows"])) if report["clusters"] else []
    wanted = list(dict.fromkeys([*examples, *clustered]))
    if missing := [id for id in wanted if id not in rows]:
        raise SonantError(
            f"{pack.folder}: {len(missing)} of the report's {len(wanted)} examples are not in this "
            f"pack, the first is {missing[0]!r}; give the pack that was judged"
        )
    found, room = {}, FILM_BYTES
    for id in wanted:
        media = pack.read(rows[id], frames=THUMB_FRAMES)
        kind = "audio/mp4" if media.frames is None else "video/mp4"
        shown = film(media) if id in examples or room > 0 else b""
        room -= 0 if id in examples else len(shown)
        found[id] = {
            "film": _address(kind, shown) if shown else "",
            "poster": _address("image/jpeg", poster(media)),
        }
    return found


def _by_rank(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The clips that clusters show: the nearest of every cluster, then the second, and so on."""
    members = [cluster["members"] for row in rows for cluster in row["clusters"]]
    return (one["id"] for rank in zip_longest(*members) for one in rank if one)


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

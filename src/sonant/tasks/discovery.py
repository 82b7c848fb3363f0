"""Which actions sound: MC3 section 6.1, Table 2 and Fig. 5.

A clip's score is how well its sound agrees with its picture (AV) or its narration (AL). The truth,
`label.sounding`, is only looked at here. Beside the models stand rows that need no agreement at
all: what a single number of the sound gives, what supervised heads give, what the verb alone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonant.clips import Clips
from sonant.errors import UsageError, at_least
from sonant.features import Features
from sonant.metrics import bootstrap
from sonant.metrics.bootstrap import Interval, Values, Weights
from sonant.metrics.ranking import Ranking, pr_curve, roc_curve
from sonant.tasks.agreement import agreement, bank, label, sounding

Array = NDArray[Any]

BINS = 30
CURVE_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """A curve as at most `CURVE_POINTS` points."""

    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Histogram:
    """Counts of one row's scores: edges [bins + 1], and [bins] for each case of clip."""

    edges: list[float]
    counts: dict[str, list[int]]


@dataclass(frozen=True)
class Row:
    """What one score of one model, or one baseline, achieves on the clips that have it."""

    name: str
    kind: str
    """`model`, `baseline`, `prior` (the verb alone) or `chance` (the base rate)."""
    pair: str
    """`AV` or `AL` for a model, else empty."""
    score: str
    """`raw`, `centred` or `pmi` for a model, else empty."""
    clips: int
    areas: dict[str, Interval]
    """`roc_auc`, `average_precision`, `pr_auc`; `within_verb` and `I/<case>` are ROC AUC of pairs
    of the same verb, and of case I against another case. Empty without truth."""
    means: dict[str, float]
    """Mean score: of `all`, and of every case."""
    histogram: Histogram
    roc: Curve | None = None
    pr: Curve | None = None


@dataclass(frozen=True)
class Difference:
    """The first model minus another, clip by clip on the same clips and resamples."""

    first: str
    second: str
    pair: str
    score: str
    areas: dict[str, Interval]


@dataclass(frozen=True)
class Discovery:
    """The report of this task: rows in the order models, baselines, prior, chance."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    split: str
    reference: str
    """In words, the clips that `centred` and `pmi` compare with."""
    clips: int
    videos: int
    labelled: int
    positives: int
    temperature: float
    resamples: int
    seed: int
    rows: list[Row]
    differences: list[Difference]
    notes: list[str]
    """What a reader must know: truth that is missing, clips that were left out."""


def discovery(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    split: str | None = "test",
    reference_split: str | None = "train",
    temperature: float = 0.07,
    baselines: Mapping[str, Features] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Discovery:
    """Judge how well each model, and what stands beside it, tells clips whose action sounds.

    Args:
        models: name to features; the first is compared with each of the others.
        clips: the table that they embed. Labels used where there are any: `sounding` (bool), `case`
            (the paper's I to IV), `verb`.
        split: the split to judge on; None for all clips. Quarantined clips are left out.
        reference_split: the split that `centred` and `pmi` compare with; the judged clips
            themselves if None, or if no clip of it is embedded.
        temperature: of `pmi`.
        baselines: name to features with scores; each score is a row.
        resamples: of the bootstrap over videos.
        seed: of the bootstrap.

    Raises:
        UsageError: no such split, features of clips are missing, or there are no models.
    """
    if not models:
        raise UsageError("discovery needs the features of a model; none were given")
    at_least(0, seed=seed)
    judged = clips.where(split=split, quarantined=False)
    if not len(judged):
        raise UsageError(f"split {split!r} has no clip that is not in quarantine")
    truth = _Truth.of(judged)
    tables = {
        name: agreement(
            of, clips, split=split, reference_split=reference_split, temperature=temperature
        )
        for name, of in models.items()
    }
    scored = [*_of_models(tables), *_of_baselines(baselines or {}, judged)]
    scored += _verb_prior(clips, judged, split, reference_split)
    rows = [_row(one, truth, resamples, seed) for one in scored]
    _, reference = bank(next(iter(models.values())), clips, judged, reference_split)
    return Discovery(
        runs={name: of.run for name, of in models.items()},
        split=split or "all clips",
        reference=reference,
        clips=len(judged),
        videos=len(set(truth.videos)),
        labelled=int(truth.known.sum()),
        positives=int(truth.sounding.sum()),
        temperature=temperature,
        resamples=resamples,
        seed=seed,
        rows=[*rows, *_base_rate(truth, resamples, seed)],
        differences=_differences(scored, truth, resamples, seed),
        notes=truth.notes + [note for one in scored for note in one.notes],
    )


@dataclass(frozen=True)
class _Truth:
    """What is known of the judged clips; `known` says of which clips the truth is."""

    videos: Array
    known: Array
    sounding: Array
    cases: Array
    verbs: Array
    notes: list[str]

    @classmethod
    def of(cls, clips: Clips) -> _Truth:
        known, sounds = _sounding(clips)
        notes = []
        if not known.any():
            notes.append("There is no truth (label.sounding): scores are shown, not judged.")
        elif not 0 < sounds.sum() < known.sum():
            notes.append(
                f"{int(sounds.sum())} of {int(known.sum())} labelled clips sound: with one class "
                "only, scores are shown, not judged."
            )
            known = np.zeros(len(clips), bool)
        elif not known.all():
            notes.append(f"{int((~known).sum())} of {len(clips)} clips have no truth: left out.")
        cases = label(clips, "case")
        if (cases != "").any():
            cases = np.where(cases == "", "unknown", cases)
        else:
            words = np.where(sounds, "sounding", "silent")
            cases = np.where(known, words, "unlabelled").astype(object)
        verbs = label(clips, "verb")
        return cls(clips.column("video"), known, sounds & known, cases, verbs, notes)


def _sounding(clips: Clips) -> tuple[Array, Array]:
    """Whether each clip has the label, and its value (False where it has none)."""
    values = sounding(clips)
    known = np.array([value is not None for value in values], bool)
    return known, np.array([value is True for value in values], bool)


@dataclass(frozen=True)
class _Scored:
    """A row before it is judged; NaN where a clip has no score."""

    name: str
    kind: str
    pair: str
    score: str
    values: Array
    notes: list[str]


def _of_models(tables: Mapping[str, Features]) -> list[_Scored]:
    return [
        _scored(name, "model", pair, score, values)
        for name, table in tables.items()
        for column, values in table.scores.items()
        for pair, score in [column.split(" ")]
    ]


def _of_baselines(baselines: Mapping[str, Features], judged: Clips) -> list[_Scored]:
    return [
        _scored(name if len(scores) == 1 else f"{name}: {score}", "baseline", "", "", values)
        for name, features in baselines.items()
        for scores in [features.of_clips(judged.column("id")).scores]
        for score, values in scores.items()
    ]


def _verb_prior(
    clips: Clips, judged: Clips, split: str | None, reference_split: str | None
) -> list[_Scored]:
    """Each clip's score is the share of sounding clips of its verb in the reference split.

    No row if that split is judged too, or if nothing is known of its clips or of the judged ones.
    """
    if split is None or reference_split in (None, split):
        return []
    reference = clips.where(split=reference_split, quarantined=False)
    verbs, mine = label(reference, "verb"), label(judged, "verb")
    known, sounds = _sounding(reference)
    told = known & (verbs != "")
    if not told.any() or not (mine != "").any():
        return []
    overall = sounds[known].mean()
    shares = {verb: sounds[told & (verbs == verb)].mean() for verb in set(verbs[told])}
    values = np.array([shares.get(verb, overall) for verb in mine], float)
    return [_scored("verb prior", "prior", "", "", values)]


def _scored(name: str, kind: str, pair: str, score: str, values: Array) -> _Scored:
    missing = int(np.isnan(values).sum())
    full = " ".join(word for word in (name, pair) if word)
    told = missing and score in ("", "raw")
    notes = [f"{full}: {missing} of {len(values)} clips have no score: left out."] if told else []
    return _Scored(name, kind, pair, score, values, notes)


def _row(one: _Scored, truth: _Truth, resamples: int, seed: int) -> Row:
    has = np.isfinite(one.values)
    rows = np.flatnonzero(has & truth.known)
    judged = _judge(one.values, truth, rows, resamples, seed)
    return Row(
        one.name, one.kind, one.pair, one.score, int(has.sum()), judged,
        means=_means(one.values[has], truth.cases[has]),
        histogram=_histogram(one.values[has], truth.cases[has]),
        roc=_thin(roc_curve(truth.sounding[rows], one.values[rows])) if judged else None,
        pr=_thin(pr_curve(truth.sounding[rows], one.values[rows])) if judged else None,
    )  # fmt: skip


def _judge(
    values: Array, truth: _Truth, rows: Array, resamples: int, seed: int
) -> dict[str, Interval]:
    if not 0 < truth.sounding[rows].sum() < len(rows):
        return {}
    statistic = _statistic(values[rows], truth.sounding[rows], truth.cases[rows], truth.verbs[rows])
    return bootstrap.intervals(statistic, truth.videos[rows], resamples=resamples, seed=seed)


def _statistic(
    values: Array, truth: Array, cases: Array, verbs: Array
) -> Callable[[Weights], Values]:
    whole = Ranking.of(truth, values)
    of_verbs = [_among(verbs == verb, truth, values) for verb in sorted(set(verbs) - {""})]
    others = sorted(set(cases) - {"I"}) if "I" in cases else []
    of_cases = {
        f"I/{case}": [_among((cases == "I") | (cases == case), cases == "I", values)]
        for case in others
    }

    def statistic(weights: Weights) -> Values:
        areas = whole.areas(weights)
        if len(of_verbs) > 1:
            areas["within_verb"] = _pooled(of_verbs, weights)
        return areas | {name: _pooled(parts, weights) for name, parts in of_cases.items()}

    return statistic


def _among(mask: Array, positive: Array, values: Array) -> tuple[Array, Ranking]:
    return np.flatnonzero(mask), Ranking.of(positive[mask], values[mask])


def _pooled(parts: list[tuple[Array, Ranking]], weights: Weights) -> Array:
    """ROC AUC over the pairs inside the parts: their AUCs weighted by positives x negatives."""
    counts = np.array([ranking.pairs(weights[:, rows]) for rows, ranking in parts])
    right, pairs = counts.sum(0)
    share = np.divide(right, pairs, out=np.full(len(right), np.nan), where=pairs > 0)
    return np.asarray(share)


def _base_rate(truth: _Truth, resamples: int, seed: int) -> list[Row]:
    """What scores that say nothing get: ROC AUC 1/2, precision the share of positives."""
    if not truth.known.any():
        return []
    share = bootstrap.interval(
        bootstrap.mean(truth.sounding[truth.known]),
        truth.videos[truth.known],
        resamples=resamples,
        seed=seed,
    )
    areas = {
        "roc_auc": Interval(0.5, 0.5, 0.5),
        "average_precision": share,
        "pr_auc": share,
    }
    return [
        Row("base rate", "chance", "", "", int(truth.known.sum()), areas, {}, Histogram([], {}))
    ]


def _differences(
    scored: list[_Scored], truth: _Truth, resamples: int, seed: int
) -> list[Difference]:
    models = [one for one in scored if one.kind == "model"]
    found = []
    for first in (one for one in models if one.name == models[0].name):
        for second in models:
            if second.name != first.name and (second.pair, second.score) == (
                first.pair,
                first.score,
            ):
                areas = _difference(first.values, second.values, truth, resamples, seed)
                found.append(Difference(first.name, second.name, first.pair, first.score, areas))
    return found


def _difference(
    first: Array, second: Array, truth: _Truth, resamples: int, seed: int
) -> dict[str, Interval]:
    rows = np.flatnonzero(np.isfinite(first) & np.isfinite(second) & truth.known)
    if not 0 < truth.sounding[rows].sum() < len(rows):
        return {}
    one, other = (Ranking.of(truth.sounding[rows], values[rows]) for values in (first, second))

    def statistic(weights: Weights) -> Values:
        areas, less = one.areas(weights), other.areas(weights)
        return {name: areas[name] - less[name] for name in areas}

    return bootstrap.intervals(statistic, truth.videos[rows], resamples=resamples, seed=seed)


def _means(values: Array, cases: Array) -> dict[str, float]:
    named = {case: float(values[cases == case].mean()) for case in sorted(set(cases))}
    return {"all": float(values.mean()), **named} if len(values) else {}


def _histogram(values: Array, cases: Array) -> Histogram:
    if not len(values):
        return Histogram([], {})
    edges = np.histogram_bin_edges(values, BINS)
    counts = {
        case: np.histogram(values[cases == case], edges)[0].tolist() for case in sorted(set(cases))
    }
    return Histogram(edges.tolist(), counts)


def _thin(curve: tuple[Array, Array]) -> Curve:
    kept = np.linspace(0, len(curve[0]) - 1, min(CURVE_POINTS, len(curve[0]))).round().astype(int)
    x, y = (points[kept].round(5).tolist() for points in curve)
    return Curve(x, y)

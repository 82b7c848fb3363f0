"""Which class a recording is of, by a model's own scores of classes: what fine-tuning is judged by.

XDC (section 4) judges a recording by the mean over ten clips spread evenly over it. It does not say
what of them is averaged; here it is an argument.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonant.clips import Clips
from sonant.errors import UsageError, at_least
from sonant.features import Features
from sonant.metrics import bootstrap
from sonant.metrics.bootstrap import Interval, Values, Weights
from sonant.metrics.classification import (
    Average,
    among_best,
    averaged,
    mean_class_accuracy,
)
from sonant.sources.folds import recordings
from sonant.sources.windows import RECORDING
from sonant.tasks.agreement import label as label_of

Array = NDArray[Any]

PLACES = 5
"""Classes that may be named for `top5`."""


@dataclass(frozen=True)
class Row:
    """What the scores of one model, or guessing, achieve."""

    name: str
    kind: str
    """`model` or `chance`."""
    recordings: int
    classes: int
    """That there are scores of."""
    measures: dict[str, Interval]
    """`top1` and `top5` of recordings, and `mca`, the mean of classes' accuracies."""
    accuracies: dict[str, float]
    """Of each class that is judged."""


@dataclass(frozen=True)
class Difference:
    """The first model less another, on the same recordings and resamples."""

    first: str
    second: str
    measures: dict[str, Interval]


@dataclass(frozen=True)
class Recognition:
    """The report of this task: the models, then chance."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    split: str
    label: str
    average: str
    clips: int
    recordings: int
    videos: int
    resamples: int
    seed: int
    rows: list[Row]
    differences: list[Difference]
    notes: list[str]
    """What a reader must know: recordings that were left out, classes that a model lacks."""


@dataclass(frozen=True)
class Judged:
    """Recordings with a known class, each once."""

    ids: Array
    """Their clips [clips]."""
    of: Array
    """The recording of each clip [clips]."""
    names: Array
    """Recordings [recordings], in order; so are `truth` and `videos`."""
    truth: Array
    videos: Array

    @classmethod
    def found(cls, clips: Clips, label: str, recording: str = RECORDING) -> Judged:
        """The recordings of a table's good clips that have a label.

        Raises:
            UsageError: no clip has one, or a recording has several.
            TableError: there is no such label.
        """
        clips.column(label)
        values, of = label_of(clips, label), recordings(clips, recording)
        kept = (values != "") & (clips.column("quarantine") == "")
        if not kept.any():
            raise UsageError(f"none of the {len(clips)} clips to judge has a {label!r}")
        ids, values, of = clips.column("id")[kept], values[kept], of[kept]
        names, first, place = np.unique(of.astype(str), return_index=True, return_inverse=True)
        if (values != values[first][place]).any():
            row = int(np.flatnonzero(values != values[first][place])[0])
            raise UsageError(
                f"recording {of[row]!r} has clips of {label!r} {values[first][place[row]]!r} and "
                f"of {values[row]!r}; a recording is of one"
            )
        return cls(ids, of, names, values[first], clips.column("video")[kept][first])

    def __len__(self) -> int:
        return len(self.names)

    def numbers(self, classes: Sequence[str]) -> Array:
        """The place of each recording's class; -1 for one that is not there."""
        place = {name: number for number, name in enumerate(classes)}
        return np.array([place.get(value, -1) for value in self.truth.tolist()], np.int64)


def recognition(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    label: str = "class",
    split: str | None = "test",
    average: Average = "logits",
    recording: str = RECORDING,
    resamples: int = 1000,
    seed: int = 0,
) -> Recognition:
    """Judge models that score classes, such as `sonant train classify` makes, by recordings.

    Args:
        models: name to features with a score `LABEL=CLASS` for each class; the first is compared
            with each of the others.
        clips: the table that they embed.
        label: whose classes; clips without one are left out.
        split: the split to judge; None for all clips. Quarantined clips are left out.
        average: what is averaged over a recording's clips.
        recording: the label that says which recording a clip is of. Where windows were not cut a
            clip is a recording.
        resamples: of the bootstrap over videos.
        seed: of the bootstrap.

    Raises:
        UsageError: no such split, no clip of it has a label, features have no scores of its
            classes or none of these clips, or there are no models.
        TableError: there is no such label.
    """
    if not models:
        raise UsageError("recognition needs the features of a model; none were given")
    at_least(0, seed=seed)
    judged = Judged.found(clips.where(split=split, quarantined=False), label, recording)
    notes: list[str] = []
    scored = {name: _scored(name, of, judged, label, average, notes) for name, of in models.items()}
    rows = [
        row(name, "model", scores, judged, classes, resamples=resamples, seed=seed)
        for name, (classes, scores) in scored.items()
    ]
    most = max(len(classes) for classes, _ in scored.values())
    return Recognition(
        runs={name: of.run for name, of in models.items()},
        split=split or "all clips",
        label=label,
        average=average,
        clips=len(judged.ids),
        recordings=len(judged),
        videos=len(set(judged.videos)),
        resamples=resamples,
        seed=seed,
        rows=[*rows, *chance(judged.truth, most)],
        differences=_differences(scored, judged, resamples, seed),
        notes=notes,
    )


def class_scores(features: Features, label: str) -> tuple[list[str], Array]:
    """The classes of a label that features have scores of, and the scores [rows, classes].

    Raises:
        UsageError: there are none.
    """
    scores = features.scores
    named = {
        name.removeprefix(f"{label}="): name for name in scores if name.startswith(f"{label}=")
    }
    if not named:
        there = ", ".join(list(scores)[:5]) or "none at all"
        raise UsageError(
            f"features{f' of {features.run}' if features.run else ''} have no scores of the "
            f"classes of {label!r}, which would be called {label}=CLASS; there are {there}. Runs "
            f"of `sonant train classify` and its twins give them; for others, `sonant score svm`"
        )
    return list(named), np.stack([scores[name] for name in named.values()], 1)


def row(
    name: str,
    kind: str,
    scores: Array,
    judged: Judged,
    classes: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Row:
    """Judge scores [recordings, classes], NaN for recordings that have none."""
    has = ~np.isnan(scores).any(1)
    truth = judged.numbers(classes)[has]
    right = among_best(scores[has], truth)
    of_class = judged.truth[has]
    measures = bootstrap.intervals(
        _statistic(scores[has], truth, of_class), judged.videos[has], resamples=resamples, seed=seed
    )
    accuracies = {
        str(value): float(right[of_class == value].mean()) for value in sorted(set(of_class))
    }
    return Row(name, kind, int(has.sum()), len(classes), measures, accuracies)


def chance(truth: Array, classes: int) -> list[Row]:
    """What guessing gets on recordings of some classes: all alike, and always the commonest."""
    common = [count for _, count in Counter(truth.tolist()).most_common()]
    here, n = len(common), len(truth)
    even = {"top1": 1 / classes, "top5": min(1.0, PLACES / classes), "mca": 1 / classes}
    often = {"top1": common[0] / n, "top5": sum(common[:PLACES]) / n, "mca": 1 / here}
    return [
        Row(name, "chance", n, classes, {m: Interval(x, x, x) for m, x in values.items()}, {})
        for name, values in (("guessing", even), ("commonest class", often))
    ]


def _scored(
    name: str, features: Features, judged: Judged, label: str, average: Average, notes: list[str]
) -> tuple[list[str], Array]:
    """Classes, and the mean scores of the judged recordings; what is odd about them is noted."""
    classes, scores = class_scores(features.of_clips(judged.ids), label)
    has = ~np.isnan(scores).any(1)
    if not has.any():
        raise UsageError(f"{name}: none of the clips to judge has scores")
    found = np.full((len(judged), len(classes)), np.nan)
    names, means = averaged(scores[has], judged.of[has], average)
    found[np.searchsorted(judged.names, names)] = means
    if without := int(np.isnan(found).any(1).sum()):
        notes.append(f"{name}: {without} of {len(judged)} recordings have no score: left out.")
    if lacking := int((~has & np.isin(judged.of, names)).sum()):
        notes.append(
            f"{name}: {lacking} clips have no score; their recordings are judged by the others."
        )
    if unknown := sorted(set(judged.truth) - set(classes)):
        count = int(np.isin(judged.truth, unknown).sum())
        notes.append(
            f"{name}: has no score of {', '.join(unknown[:5])}; {count} recordings count as wrong."
        )
    return classes, found


def _statistic(scores: Array, truth: Array, of_class: Array) -> Any:
    top = {"top1": among_best(scores, truth), "top5": among_best(scores, truth, PLACES)}
    _, numbers = np.unique(of_class.astype(str), return_inverse=True)

    def statistic(weights: Weights) -> Values:
        total = weights.sum(1)
        shares = {name: weights @ right / total for name, right in top.items()}
        return shares | {"mca": mean_class_accuracy(top["top1"], numbers, weights)}

    return statistic


def _differences(
    scored: Mapping[str, tuple[list[str], Array]], judged: Judged, resamples: int, seed: int
) -> list[Difference]:
    """The first model less each other, where both have scores."""
    (first, (classes, ours)), *others = scored.items()
    found = []
    for name, (theirs_of, theirs) in others:
        both = ~(np.isnan(ours).any(1) | np.isnan(theirs).any(1))
        if not both.any():
            continue
        of_class = judged.truth[both]
        one = _statistic(ours[both], judged.numbers(classes)[both], of_class)
        other = _statistic(theirs[both], judged.numbers(theirs_of)[both], of_class)

        def less(weights: Weights, one: Any = one, other: Any = other) -> Values:
            a, b = one(weights), other(weights)
            return {measure: a[measure] - b[measure] for measure in a}

        measures = bootstrap.intervals(less, judged.videos[both], resamples=resamples, seed=seed)
        found.append(Difference(first, name, measures))
    return found

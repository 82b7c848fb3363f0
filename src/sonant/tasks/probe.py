"""What a linear classifier makes of frozen features: DCASE's linear SVM and the linear probe.

XDC (section 6) follows AVTS on DCASE: features of 60 clips spread evenly over each recording, each
of unit length, a linear SVM, and a recording is of the class with the best mean over its clips. How
C is chosen is not said; here it is chosen inside the training part, by whole recordings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sonant.clips import Clips
from sonant.errors import UsageError, above_zero, at_least
from sonant.features import Features
from sonant.metrics.classification import Average, among_best, averaged, mean_class_accuracy
from sonant.sources.folds import Fold, check_apart, folds, recordings
from sonant.sources.windows import RECORDING
from sonant.tasks.agreement import label as label_of
from sonant.tasks.recognition import Judged, Row, chance, row
from sonant.types import Modality

Array = NDArray[Any]
Classifier = Literal["svm", "logistic"]
Scale = Literal["unit", "standard"]

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
ITERATIONS = 10_000


@dataclass(frozen=True)
class Part:
    """One fold of one model."""

    fold: str
    cost: float
    """The C that was chosen inside the training part."""
    inner: dict[str, float]
    """Each C's accuracy there, on recordings held out of the training part; empty for one C."""
    train: int
    """Recordings; so is `test`."""
    test: int
    top1: float
    mca: float


@dataclass(frozen=True)
class Probed:
    """What a linear classifier makes of one model's features."""

    name: str
    parts: list[Part]
    mean: dict[str, float]
    """Of `top1` and `mca` over folds."""
    deviation: dict[str, float]
    """Of a sample; empty for one fold."""
    whole: Row
    """All judged recordings of all folds together, with intervals over videos; one that several
    folds judge counts as the last of them has it."""


@dataclass(frozen=True)
class Probe:
    """The report of this task."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    label: str
    classifier: str
    modalities: list[str]
    scale: str
    average: str
    folds: list[str]
    clips: int
    """To learn from and to judge."""
    recordings: int
    """That are judged."""
    classes: int
    resamples: int
    seed: int
    rows: list[Probed]
    chance: list[Row]
    notes: list[str]
    """What a reader must know: clips that were left out, classifiers that did not settle."""


def probe(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    label: str = "class",
    by: Sequence[str] = ("split",),
    classifier: Classifier = "svm",
    modalities: Sequence[Modality] = ("audio",),
    scale: Scale = "unit",
    costs: Sequence[float] = COSTS,
    inner: int = 5,
    apart: str = RECORDING,
    average: Average = "logits",
    resamples: int = 1000,
    seed: int = 0,
) -> Probe:
    """Judge features by a linear classifier, trained on the training part of each fold.

    Args:
        models: name to features.
        clips: the table that they embed; clips without the label are left out.
        label: to predict.
        by: columns that deal the clips, such as `split`, or `fold`; see `sources.folds.folds`.
        classifier: a linear SVM, one class against the others, or logistic regression.
        modalities: whose features; those of several stand side by side.
        scale: each modality's rows to length 1, or each number to mean 0 and deviation 1 in the
            training part.
        costs: values of C to choose from, by recordings held out of the training part; of equally
            good ones the smallest. With one value nothing is chosen.
        inner: parts that the training part is dealt into for that.
        apart: the label whose values are not torn apart there, such as a common source.
        average: what is averaged over a recording's clips: scores, or their softmax.
        resamples: of the bootstrap over videos.
        seed: of the inner parts, the SVM and the bootstrap.

    Raises:
        UsageError: folds share a recording or have too few, features lack clips or a modality, or
            settings are impossible.
        TableError: there is no such label or column.
    """
    _check(models, modalities, costs, inner, seed)
    judged, of = Judged.found(clips, label), recordings(clips)
    dealt = _dealt(clips, by, of)
    ask = _Ask(
        clips, label_of(clips, label), of, recordings(clips, apart), classifier, tuple(modalities),
        scale, tuple(sorted(costs)), inner, average, seed,
    )  # fmt: skip
    notes: list[str] = []
    tested = np.isin(judged.names, of[np.any([fold.test for fold in dealt], axis=0)].astype(str))
    classes = len(set(judged.truth))
    return Probe(
        runs={name: features.run for name, features in models.items()},
        label=label,
        classifier=classifier,
        modalities=list(modalities),
        scale=scale,
        average=average,
        folds=[fold.name for fold in dealt],
        clips=len(judged.ids),
        recordings=int(tested.sum()),
        classes=classes,
        resamples=resamples,
        seed=seed,
        rows=[_probed(n, x, ask, dealt, judged, resamples, notes) for n, x in models.items()],
        chance=chance(judged.truth[tested], classes),
        notes=notes,
    )


@dataclass(frozen=True)
class _Ask:
    """What is asked of every fold; arrays are [clips]."""

    clips: Clips
    labels: Array
    of: Array
    groups: Array
    classifier: Classifier
    modalities: tuple[Modality, ...]
    scale: Scale
    costs: tuple[float, ...]
    inner: int
    average: Average
    seed: int


def _check(
    models: Mapping[str, Features],
    modalities: Sequence[Modality],
    costs: Sequence[float],
    inner: int,
    seed: int,
) -> None:
    if not models or not costs or not modalities:
        raise UsageError("name at least one model, one modality to read, and one C to choose from")
    for cost in costs:
        above_zero(costs=cost)
    at_least(2, inner=inner)
    at_least(0, seed=seed)


def _dealt(clips: Clips, by: Sequence[str], of: Array) -> list[Fold]:
    """The folds, none of which judges a recording that it learns from."""
    dealt = folds(clips, by)
    for fold in dealt:
        check_apart(fold, of, "recordings")
    return dealt


def _matrices(
    name: str, features: Features, ask: _Ask, judged: Judged, notes: list[str]
) -> list[Array]:
    """Each modality's features of all clips [clips, width]; NaN where there are none."""
    known = features.of_clips(judged.ids)
    place = {id: row for row, id in enumerate(ask.clips.column("id"))}
    rows = [place[id] for id in judged.ids]
    found = []
    for modality in ask.modalities:
        there = known.matrix(modality).astype(np.float64)
        whole = np.full((len(ask.clips), there.shape[1]), np.nan)
        whole[rows] = there
        found.append(whole)
    lacking = int(np.isnan(np.concatenate(found, 1)[rows]).any(1).sum())
    if lacking:
        notes.append(f"{name}: {lacking} of {len(rows)} clips have no features: left out.")
    return found


def _probed(
    name: str,
    features: Features,
    ask: _Ask,
    dealt: Sequence[Fold],
    judged: Judged,
    resamples: int,
    notes: list[str],
) -> Probed:
    """Train and judge on every fold."""
    x = _matrices(name, features, ask, judged, notes)
    classes = sorted(set(judged.truth))
    whole = np.full((len(judged), len(classes)), np.nan)
    parts = []
    usable = ~np.isnan(np.concatenate(x, 1)).any(1) & (ask.labels != "")
    for fold in dealt:
        train, test = (np.flatnonzero(mask & usable) for mask in (fold.train, fold.test))
        where = f"{name}, {fold.name}"
        if not len(test) or len(set(ask.labels[train])) < 2:
            raise UsageError(f"{where}: has too few clips with features to learn from or to judge")
        cost, inner = _chosen(x, ask, train, where, notes)
        if unknown := sorted(set(ask.labels[test]) - set(ask.labels[train])):
            notes.append(f"{where}: never learned, so never right: {', '.join(unknown)}.")
        names, scores = _scores(x, ask, train, test, cost, classes, where, notes)
        rows = np.searchsorted(judged.names, names)
        whole[rows] = scores
        truth = judged.numbers(classes)[rows]
        right = among_best(scores, truth)
        mca = float(mean_class_accuracy(right, truth, np.ones((1, len(truth))))[0])
        counts = (len(set(ask.of[train])), len(names))
        parts.append(Part(fold.name, cost, inner, *counts, float(right.mean()), mca))
    values = {m: [getattr(part, m) for part in parts] for m in ("top1", "mca")}
    return Probed(
        name,
        parts,
        {measure: mean(of) for measure, of in values.items()},
        {measure: stdev(of) for measure, of in values.items() if len(of) > 1},
        row(name, "model", whole, judged, classes, resamples=resamples, seed=ask.seed),
    )


def _chosen(
    x: list[Array], ask: _Ask, train: Array, where: str, notes: list[str]
) -> tuple[float, dict[str, float]]:
    """The C that does best on recordings held out of the training part, and how each did."""
    if len(ask.costs) == 1:
        return ask.costs[0], {}
    labels, groups = ask.labels[train], ask.groups[train]
    most = int(np.unique(labels.astype(str), return_counts=True)[1].max())
    several = min(ask.inner, len(set(groups)), most)
    if several < 2:
        raise UsageError(
            f"{where}: too few recordings to choose C from inside its training part; give one value"
        )
    classes = sorted(set(labels))
    dealt = StratifiedGroupKFold(several, shuffle=True, random_state=ask.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = [
            (train[a], train[b])
            for a, b in dealt.split(train, labels, groups)
            if len(b) and len(set(labels[a])) > 1
        ]
    if not parts:
        raise UsageError(
            f"{where}: too few recordings of two classes or more to choose C from inside its "
            "training part; give one value"
        )
    found = {}
    for cost in ask.costs:
        right = []
        for learn, held in parts:
            names, scores = _scores(x, ask, learn, held, cost, classes, where, notes)
            truth = dict(zip(ask.of[held].astype(str), ask.labels[held], strict=True))
            right.append(among_best(scores, [classes.index(truth[name]) for name in names]))
        found[cost] = float(np.concatenate(right).mean())
    best = max(found, key=lambda cost: (found[cost], -cost))
    return best, {f"{cost:g}": accuracy for cost, accuracy in found.items()}


def _scores(
    x: list[Array],
    ask: _Ask,
    train: Array,
    test: Array,
    cost: float,
    classes: Sequence[str],
    where: str,
    notes: list[str],
) -> tuple[Array, Array]:
    """Recordings of the tested clips, and their mean scores by a classifier of the training's.

    Nothing of the tested rows is seen before the classifier is made.
    """
    scale = _scaled(x, ask.scale, train)
    made = (
        LinearSVC(C=cost, random_state=ask.seed, max_iter=ITERATIONS)
        if ask.classifier == "svm"
        else LogisticRegression(C=cost, max_iter=ITERATIONS)
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        made.fit(scale(train), ask.labels[train].astype(str))
    if any(issubclass(one.category, ConvergenceWarning) for one in caught):
        said = f"{where}: the classifier did not settle in {ITERATIONS} iterations with C {cost:g}."
        notes += [said] * (said not in notes)
    found = made.decision_function(scale(test))
    found = np.stack([-found, found], 1) if found.ndim == 1 else found
    scores = np.full((len(test), len(classes)), -np.inf)
    scores[:, [list(classes).index(name) for name in made.classes_]] = found
    return averaged(scores, ask.of[test], ask.average)


def _scaled(x: list[Array], scale: Scale, train: Array) -> Callable[[Array], Array]:
    """A function from rows to what the classifier reads of them."""
    if scale == "unit":
        return lambda rows: np.concatenate([_unit(one[rows]) for one in x], 1)
    learnt = [StandardScaler().fit(one[train]) for one in x]
    return lambda rows: np.concatenate(
        [by.transform(one[rows]) for by, one in zip(learnt, x, strict=True)], 1
    )


def _unit(x: Array) -> Array:
    """Rows of length 1; zeros, such as a network may give of silence, stay zeros."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(length > 0, length, 1.0))

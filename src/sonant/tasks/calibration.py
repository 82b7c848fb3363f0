"""Does this action sound? Discovery's score as a probability, learnt from validation clips.

Discovery (MC3 section 6.1) ranks clips; a ranking says nothing of one clip alone. A curve from
score to probability and a threshold for yes or no are fitted on the labelled clips of one split,
and judged on those of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sonant.clips import Clips
from sonant.errors import TableError, UsageError, at_least
from sonant.features import Features
from sonant.files import replacing
from sonant.metrics import bootstrap
from sonant.metrics import calibration as metrics
from sonant.metrics.bootstrap import Interval, Values, Weights
from sonant.metrics.calibration import Curve, Isotonic, Platt, Rule
from sonant.metrics.ranking import Ranking
from sonant.tasks.agreement import agreement, sounding

Array = NDArray[Any]
Kind = Literal["platt", "isotonic"]

VERSION = "1"
LEAST = 20
"""Fewest labelled clips that a curve is fitted to."""
CURVES: Mapping[str, type[Platt] | type[Isotonic]] = {"platt": Platt, "isotonic": Isotonic}


@dataclass(frozen=True)
class Calibration:
    """What makes one score of one model a probability and a yes or no; a run can carry it."""

    curve: Curve
    threshold: float
    """The least probability that is a yes."""
    rule: Rule
    """How the threshold was chosen."""
    score: str
    """The score that it is of, as `agreement` names it."""
    weights: str
    """Hash of the weights that made the score; "" if the features name none."""
    split: str
    """What it was fitted on."""
    clips: int
    positives: int
    videos: int

    @property
    def learnt_from(self) -> str:
        """What it was fitted on, in words."""
        return (
            f"{self.clips} clips of {self.videos} videos of split {self.split}, {self.positives} "
            "of which sound"
        )

    def probability(self, scores: ArrayLike) -> Array:
        """Probabilities in (0, 1) of scores of any shape; NaN where a score is NaN."""
        return self.curve(np.asarray(scores, np.float64))

    def sounds(self, scores: ArrayLike) -> Array:
        """Whether the probability reaches the threshold; False where a score is NaN."""
        return np.asarray(self.probability(scores) >= self.threshold)

    def write(self, path: Path | str) -> None:
        """Write as JSON, whole or not at all."""
        kind = "platt" if isinstance(self.curve, Platt) else "isotonic"
        about = {"schema": "sonant.calibration", "version": VERSION, "kind": kind}
        with replacing(Path(path)) as partial:
            partial.write_text(json.dumps(about | asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path | str) -> Calibration:
        """Read what `write` wrote.

        Raises:
            TableError: the file is missing, is no calibration, or of another version.
        """
        path = Path(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            about = [found.pop(name) for name in ("schema", "version", "kind")]
            if about[:2] != ["sonant.calibration", VERSION]:
                raise ValueError(f"it is of schema {about[0]}, version {about[1]}")
            curve = _curve(about[2], found.pop("curve"))
            return cls(curve, float(found.pop("threshold")), **found)
        except OSError as error:
            raise TableError(f"{path}: no calibration there: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TableError(
                f"{path}: is no calibration of version {VERSION} ({error}); `sonant score "
                "discovery --calibrate` makes one"
            ) from error


def calibrate(
    features: Features,
    clips: Clips,
    *,
    kind: Kind = "platt",
    score: str = "AV raw",
    split: str = "val",
    rule: Rule = "balanced",
    reference_split: str | None = "train",
    temperature: float = 0.07,
) -> Calibration:
    """Fit the curve and choose the threshold on the labelled clips of a split.

    Args:
        features: of one model.
        clips: the table that it embeds, with the label `sounding`.
        kind: of the curve, Platt's sigmoid or isotonic.
        score: what becomes a probability: a column of `agreement`.
        split: what to learn from; not one that is judged.
        rule: for the threshold. Best F1 tends to yes to all where the score is weak, so the default
            is the best balanced accuracy.
        reference_split: as in `discovery`.
        temperature: as in `discovery`.

    Raises:
        UsageError: there is no such split or score, too few of the clips have truth and score, or
            they are of one class or of one score; or the score compares with the judged clips,
            which are others wherever the curve is used.
    """
    if reference_split is None and not score.endswith(" raw"):
        raise UsageError(
            f"{score} of the judged clips among themselves cannot be calibrated: those learnt from "
            "are others than those judged; name a reference split, such as train"
        )
    learnt = clips.where(split=split, quarantined=False)
    found = _scores(features, clips, split, reference_split, temperature)
    if score not in found:
        raise _no_score(score, found)
    scores, (known, sounds) = found[score], _truth(learnt)
    rows = np.flatnonzero(known & np.isfinite(scores))
    if len(rows) < LEAST:
        raise UsageError(
            f"a calibration is learnt from {LEAST} clips or more with truth (label.sounding) and "
            f"the score {score}; {len(rows)} of the {len(learnt)} clips of split {split!r} have "
            f"both, {int(known.sum())} have truth"
        )
    if not 0 < sounds[rows].sum() < len(rows):
        raise UsageError(
            f"{int(sounds[rows].sum())} of the {len(rows)} labelled clips of split {split!r} "
            "sound: a calibration needs some that do and some that do not"
        )
    curve = CURVES[kind].fit(sounds[rows], scores[rows])
    return Calibration(
        curve,
        metrics.best_threshold(sounds[rows], curve(scores[rows]), rule),
        rule,
        score,
        features.run.rpartition("@")[2] if "@" in features.run else "",
        split,
        len(rows),
        int(sounds[rows].sum()),
        len(set(learnt.column("video")[rows])),
    )


def _curve(kind: str, of: Mapping[str, Any]) -> Curve:
    if kind == "platt":
        return Platt(float(of["slope"]), float(of["intercept"]))
    if kind != "isotonic":
        raise ValueError(f"there is no curve {kind!r}")
    return Isotonic(tuple(map(float, of["scores"])), tuple(map(float, of["probabilities"])))


@dataclass(frozen=True)
class Bin:
    """Clips of like probability."""

    start: float
    """Least probability."""
    clips: int
    probability: float
    """Mean."""
    share: Interval
    """Of clips that sound."""


@dataclass(frozen=True)
class Row:
    """What the probabilities of one model, or the share of sounding clips alone, are worth."""

    name: str
    kind: str
    """`model`, or `chance`: every clip gets the share of sounding clips that was learnt."""
    clips: int
    """Judged ones."""
    calibration: Calibration | None
    measures: dict[str, Interval]
    """`brier`, `log_loss`, `ece_equal_width`, `ece_equal_mass`, `roc_auc`; empty without truth."""
    by_chance: dict[str, float]
    """What the two calibration errors would be if the probabilities were perfect."""
    decisions: dict[str, Interval]
    """`accuracy`, `balanced_accuracy`, `f1`, `precision`, `recall`, `specificity` of yes or no."""
    bins: list[Bin]
    """Of equally many clips, for the reliability diagram."""
    counts: list[int]
    """Clips in each of the bins of equal width."""


@dataclass(frozen=True)
class Calibrated:
    """The report of this task."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    split: str
    """What was judged."""
    learnt_from: str
    """The split that curves and thresholds were fitted on."""
    kind: str
    score: str
    rule: str
    bins: int
    clips: int
    videos: int
    positives: int
    resamples: int
    seed: int
    rows: list[Row]
    notes: list[str]
    """What a reader must know."""


def calibration(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    kind: Kind = "platt",
    score: str = "AV raw",
    learn_from: str = "val",
    split: str | None = "test",
    rule: Rule = "balanced",
    bins: int = 10,
    reference_split: str | None = "train",
    temperature: float = 0.07,
    resamples: int = 1000,
    seed: int = 0,
    trained_on: Mapping[str, str] | None = None,
) -> Calibrated:
    """Calibrate every model on one split, and judge its probabilities on another.

    Args:
        models: name to features; those without the score are left out, as are those but the first
            that cannot be calibrated, and a note says so.
        clips: the table that they embed.
        kind: as in `calibrate`; so are `score`, `rule`, `reference_split`, `temperature`.
        score: what becomes a probability.
        learn_from: the split for curves and thresholds.
        split: the split to judge on.
        rule: for the threshold.
        bins: most bins of the calibration errors and of the reliability diagram.
        reference_split: what the score compares with.
        temperature: of the score.
        resamples: of the bootstrap over videos.
        seed: of the bootstrap and of the chance level.
        trained_on: name to the split that a model was trained on, where it is known.

    Raises:
        UsageError: as `calibrate`, for the first model; or the split to learn from is judged.
    """
    _check(models, split, learn_from, seed)
    judged = clips.where(split=split, quarantined=False)
    known, sounds = _truth(judged)
    scores = _judged_scores(models, clips, score, split, reference_split, temperature)
    learn = partial(
        calibrate, clips=clips, kind=kind, score=score, split=learn_from, rule=rule,
        reference_split=reference_split, temperature=temperature,
    )  # fmt: skip
    learnt, refused = _each(learn, {name: models[name] for name in scores})
    given = {name: of.probability(scores[name]) for name, of in learnt.items()}
    first = next(iter(learnt.values()))
    return Calibrated(
        runs={name: models[name].run for name in learnt},
        split=split or "",
        learnt_from=first.learnt_from,
        kind=kind,
        score=score,
        rule=rule,
        bins=bins,
        clips=int(known.sum()),
        videos=len(set(judged.column("video")[known])),
        positives=int(sounds.sum()),
        resamples=resamples,
        seed=seed,
        rows=_rows(learnt, given, judged, bins, resamples, seed),
        notes=[f"{name}: has no score {score}." for name in models if name not in scores]
        + refused
        + _of_training(learnt, learn_from, trained_on or {})
        + _notes(learnt, given, known, sounds, clips, judged, learn_from),
    )


def _check(models: Mapping[str, Features], split: str | None, learn_from: str, seed: int) -> None:
    if not models:
        raise UsageError("a calibration needs the features of a model; none were given")
    at_least(0, seed=seed)
    if split in (None, learn_from):
        raise UsageError(
            f"the clips of split {learn_from!r} are to be learnt from and so cannot be judged: "
            "judge another split"
        )


def _judged_scores(
    models: Mapping[str, Features],
    clips: Clips,
    score: str,
    split: str | None,
    reference_split: str | None,
    temperature: float,
) -> dict[str, Array]:
    """Of each model that has it, the score of the good clips of a split.

    Raises:
        UsageError: none has it.
    """
    scores = {
        name: _scores(of, clips, split, reference_split, temperature) for name, of in models.items()
    }
    found = {name: of[score] for name, of in scores.items() if score in of}
    if not found:
        raise _no_score(score, next(iter(scores.values())))
    return found


def _each(
    learn: Callable[[Features], Calibration], models: Mapping[str, Features]
) -> tuple[dict[str, Calibration], list[str]]:
    """The calibrations of all models but those that refuse, and a note for each of these.

    Raises:
        UsageError: the first refuses.
    """
    learnt, notes = {}, []
    for name, features in models.items():
        try:
            learnt[name] = learn(features)
        except UsageError as error:
            if not learnt:
                raise UsageError(f"{name}: {error}") from error
            notes.append(f"{name}: is left out: {error}.")
    return learnt, notes


def _of_training(
    learnt: Mapping[str, Calibration], learn_from: str, trained_on: Mapping[str, str]
) -> list[str]:
    seen = [name for name in learnt if trained_on.get(name, "train") == learn_from]
    if not seen:
        return []
    return [
        f"Split {learn_from}, which the curve is learnt from, is the training's of "
        f"{', '.join(seen)}: models score clips that they were trained on higher than others, and "
        "the probabilities of others come out too low. Learn from labelled clips of another split."
    ]


def _scores(
    features: Features,
    clips: Clips,
    split: str | None,
    reference_split: str | None,
    temperature: float,
) -> dict[str, Array]:
    """All scores of the good clips of a split."""
    return agreement(
        features, clips, split=split, reference_split=reference_split, temperature=temperature
    ).scores


def _no_score(score: str, there: Mapping[str, Array]) -> UsageError:
    return UsageError(f"no score {score!r} to calibrate; there are {', '.join(there)}")


def _truth(clips: Clips) -> tuple[Array, Array]:
    """Whether each clip's truth is known, and whether it is known to sound."""
    values = sounding(clips)
    known = np.array([value is not None for value in values], bool)
    return known, np.array([value is True for value in values], bool)


def _rows(
    learnt: Mapping[str, Calibration],
    given: Mapping[str, Array],
    judged: Clips,
    bins: int,
    resamples: int,
    seed: int,
) -> list[Row]:
    """What each model's probabilities are worth, and then the first one's base rate."""
    first = next(iter(learnt.values()))
    base = np.full(len(judged), first.positives / first.clips)
    rows = [_row(name, learnt[name], p, judged, bins, resamples, seed) for name, p in given.items()]
    return [*rows, _row("base rate", None, base, judged, bins, resamples, seed)]


def _row(
    name: str,
    learnt: Calibration | None,
    p: Array,
    judged: Clips,
    bins: int,
    resamples: int,
    seed: int,
) -> Row:
    kind = "chance" if learnt is None else "model"
    known, sounds = _truth(judged)
    rows = np.flatnonzero(known & np.isfinite(p))
    if not 0 < sounds[rows].sum() < len(rows):
        return Row(name, kind, 0, learnt, {}, {}, {}, [], [])
    p, truth, videos = p[rows], sounds[rows], judged.column("video")[rows]
    starts = {
        "ece_equal_width": metrics.equal_width(bins),
        "ece_equal_mass": metrics.equal_mass(p, bins),
    }
    yes = p >= (0.5 if learnt is None else learnt.threshold)

    def intervals(statistic: Callable[[Weights], Values]) -> dict[str, Interval]:
        return bootstrap.intervals(statistic, videos, resamples=resamples, seed=seed)

    return Row(
        name,
        kind,
        len(rows),
        learnt,
        measures=intervals(_measures(truth, p, starts)),
        by_chance={of: metrics.by_chance(p, start, seed=seed) for of, start in starts.items()},
        decisions=intervals(lambda weights: metrics.decisions(truth, yes, weights)),
        bins=_bins(truth, p, starts["ece_equal_mass"], intervals),
        counts=metrics.places(p, starts["ece_equal_width"]).sum(0).tolist(),
    )


def _measures(truth: Array, p: Array, starts: Mapping[str, Array]) -> Callable[[Weights], Values]:
    ranking = Ranking.of(truth, p)
    means = {
        "brier": bootstrap.mean(metrics.squares(truth, p)),
        "log_loss": bootstrap.mean(metrics.surprise(truth, p)),
    }

    def statistic(weights: Weights) -> Values:
        errors = {
            name: metrics.calibration_error(truth, p, start, weights)
            for name, start in starts.items()
        }
        area = ranking.areas(weights)["roc_auc"]
        return {name: of(weights) for name, of in means.items()} | errors | {"roc_auc": area}

    return statistic


def _bins(
    truth: Array,
    p: Array,
    starts: Array,
    intervals: Callable[[Callable[[Weights], Values]], dict[str, Interval]],
) -> list[Bin]:
    where = metrics.places(p, starts)

    def shares(weights: Weights) -> Values:
        counts, positives = weights @ where, weights @ (where & truth[:, None])
        share = np.divide(positives, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
        return {str(place): column for place, column in enumerate(share.T)}

    bands = intervals(shares)
    return [
        Bin(float(start), int(mine.sum()), float(p[mine].mean()), bands[str(place)])
        for place, (start, mine) in enumerate(zip(starts, where.T, strict=True))
    ]


def _notes(
    learnt: Mapping[str, Calibration],
    given: Mapping[str, Array],
    known: Array,
    sounds: Array,
    clips: Clips,
    judged: Clips,
    learn_from: str,
) -> list[str]:
    notes = []
    if not known.any():
        notes.append("There is no truth to judge by: probabilities are given, not judged.")
    elif not 0 < sounds.sum() < known.sum():
        notes.append(
            f"{int(sounds.sum())} of {int(known.sum())} labelled clips sound: with one class only, "
            "probabilities are given, not judged."
        )
    both = set(judged.column("video")) & set(clips.where(split=learn_from).column("video"))
    if both:
        notes.append(
            f"{len(both)} of the judged videos are also in split {learn_from}: clips of one video "
            "are alike, and so the figures flatter."
        )
    for name, calibration in learnt.items():
        if missing := int(np.isnan(given[name]).sum()):
            notes.append(f"{name}: {missing} of {len(judged)} clips have no score: left out.")
        if isinstance(calibration.curve, Platt) and calibration.curve.slope <= 0:
            notes.append(
                f"{name}: on the clips of split {learn_from} a higher {calibration.score} does not "
                "mean that a clip more likely sounds: the curve falls, and turns the ranking round."
            )
        if (
            isinstance(calibration.curve, Isotonic)
            and len(set(calibration.curve.probabilities)) < 2
        ):
            notes.append(
                f"{name}: on the clips of split {learn_from} a higher {calibration.score} does not "
                "mean that a clip more likely sounds: the curve is level, and tells no clip apart."
            )
    return notes

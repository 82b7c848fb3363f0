"""Scores to probabilities, and how far probabilities can be taken at their word.

A curve is fitted on some clips and used on others. Bins of probabilities are given by where each
begins: a bin holds what lies at its start or above, and below the next one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit, xlogy

from sonant.errors import UsageError, at_least

Scores = Float[np.ndarray, " clips"]
Weights = Float[np.ndarray, "draws clips"]

Rule = Literal["balanced", "f1", "half"]
"""How a threshold is chosen: best balanced accuracy, best F1, or probability 1/2."""


@dataclass(frozen=True)
class Platt:
    """P(positive | s) = 1 / (1 + exp(-(slope s + intercept))): Platt 1999, whose A and B these are
    with the other sign.
    """

    slope: float
    intercept: float

    @classmethod
    def fit(cls, y: ArrayLike, s: ArrayLike) -> Platt:
        """Fit by maximum likelihood of Platt's smoothed targets.

        They are (N+ + 1) / (N+ + 2) for the N+ positives and 1 / (N- + 2) for the N- negatives, so
        that the curve stays finite where scores part the classes.

        Args:
            y: truth [clips], booleans or 0 and 1.
            s: scores [clips].

        Raises:
            UsageError: shapes differ, a score is not finite, all are equal, or there is one class.
        """
        truth, scores = _fittable(y, s)
        low, high = _targets(truth)
        wanted = np.where(truth, high, low)
        middle, spread = scores.mean(), scores.std()
        inputs = np.stack([(scores - middle) / spread, np.ones(len(scores))], 1)

        def loss(curve: Float[np.ndarray, " 2"]) -> float:
            x = inputs @ curve
            return float(np.mean(np.logaddexp(0, x) - wanted * x))

        def gradient(curve: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 2"]:
            return np.asarray(inputs.T @ (expit(inputs @ curve) - wanted) / len(wanted))

        def hessian(curve: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "2 2"]:
            p = expit(inputs @ curve)
            return np.asarray((inputs.T * (p * (1 - p))) @ inputs / len(wanted))

        start = np.array([0.0, logit(wanted.mean())])
        found = minimize(
            loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10}
        )
        slope = float(found.x[0] / spread)
        return cls(slope, float(found.x[1] - slope * middle))

    def __call__(self, s: ArrayLike) -> Float[np.ndarray, ...]:
        """Probabilities of scores; NaN stays NaN."""
        return np.asarray(expit(self.slope * np.asarray(s, np.float64) + self.intercept))


@dataclass(frozen=True)
class Isotonic:
    """The rising curve nearest to the truth, straight between its corners, level outside them."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def fit(cls, y: ArrayLike, s: ArrayLike) -> Isotonic:
        """Fit by least squares: the pools of adjacent violators.

        Pools of one class, such as the lowest and the highest scores often make, would have
        probability 0 or 1, which no finite number of clips can show: all are kept within the two
        targets of `Platt.fit`.

        Args:
            y: truth [clips], booleans or 0 and 1.
            s: scores [clips]; tied ones count as one, with their mean truth.

        Raises:
            UsageError: as `Platt.fit`.
        """
        truth, scores = _fittable(y, s)
        x, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
        share = np.bincount(place, truth) / counts
        p = np.clip(isotonic_regression(share, weights=counts).x, *_targets(truth))
        corner = np.ones(len(p), bool)
        corner[1:-1] = (p[1:-1] != p[:-2]) | (p[1:-1] != p[2:])
        return cls(tuple(x[corner].tolist()), tuple(p[corner].tolist()))

    def __call__(self, s: ArrayLike) -> Float[np.ndarray, ...]:
        """Probabilities of scores; NaN stays NaN."""
        return np.asarray(np.interp(np.asarray(s, np.float64), self.scores, self.probabilities))


Curve = Platt | Isotonic


def brier(y: ArrayLike, p: ArrayLike) -> float:
    """Mean squared distance of probability and truth (Brier 1950): 0 is best, and 1/4 what an
    answer of 1/2 to everything gets.

    Raises:
        UsageError: shapes differ, there are no clips, or a probability is not in [0, 1].
    """
    truth, given = _checked(y, p)
    return float(squares(truth, given).mean())


def log_loss(y: ArrayLike, p: ArrayLike) -> float:
    """Mean of -log(probability given to what is true), in nats; infinite if one was sure and wrong.

    Raises:
        UsageError: as `brier`.
    """
    truth, given = _checked(y, p)
    return float(surprise(truth, given).mean())


def squares(truth: Bool[np.ndarray, " clips"], p: Scores) -> Scores:
    """What `brier` is the mean of."""
    return np.asarray((p - truth) ** 2)


def surprise(truth: Bool[np.ndarray, " clips"], p: Scores) -> Scores:
    """What `log_loss` is the mean of."""
    return np.asarray(-xlogy(1.0, np.where(truth, p, 1 - p)))


def ece_equal_width(y: ArrayLike, p: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width in [0, 1].

    The mean over clips of |mean probability - share of positives| of their bin. It is of the
    probability of the positive class, not of the confidence in whichever class is likelier.

    Raises:
        UsageError: as `brier`, or there is no bin.
    """
    truth, given = _checked(y, p)
    return float(calibration_error(truth, given, equal_width(bins))[0])


def ece_equal_mass(y: ArrayLike, p: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error over bins of equally many clips; see `ece_equal_width`.

    Clips of equal probability share a bin, so ties make the bins fewer or uneven.

    Raises:
        UsageError: as `brier`, or there is no bin.
    """
    truth, given = _checked(y, p)
    return float(calibration_error(truth, given, equal_mass(given, bins))[0])


def equal_width(bins: int) -> Float[np.ndarray, " bins"]:
    """Where each of so many bins of equal width begins."""
    at_least(1, bins=bins)
    return np.asarray(np.arange(bins) / bins)


def equal_mass(p: Scores, bins: int) -> Float[np.ndarray, " bins"]:
    """Where each of at most so many bins of equally many of these clips begins."""
    at_least(1, bins=bins)
    return np.unique(np.sort(p)[np.arange(bins) * len(p) // bins])


def places(p: Scores, starts: Float[np.ndarray, " bins"]) -> Bool[np.ndarray, "clips bins"]:
    """Which bin each clip is in."""
    place = np.maximum(np.searchsorted(starts, p, side="right") - 1, 0)
    return np.asarray(place[:, None] == np.arange(len(starts)))


def calibration_error(
    truth: Bool[np.ndarray, " clips"],
    p: Scores,
    starts: Float[np.ndarray, " bins"],
    weights: Weights | None = None,
) -> Float[np.ndarray, " draws"]:
    """Expected calibration error over given bins, for clips that count so often (once if None)."""
    given = np.ones((1, len(p))) if weights is None else weights
    gaps = given @ ((p - truth)[:, None] * places(p, starts))
    total = given.sum(1)
    error = np.abs(gaps).sum(1)
    return np.asarray(np.divide(error, total, out=np.full(len(total), np.nan), where=total > 0))


def by_chance(
    p: Scores, starts: Float[np.ndarray, " bins"], *, draws: int = 200, seed: int = 0
) -> float:
    """The mean calibration error of truth that is drawn from just these probabilities.

    Perfect probabilities have it on so few clips: an error of this size says nothing against them.
    """
    rng = np.random.default_rng(seed)
    found = [calibration_error(rng.random(len(p)) < p, p, starts)[0] for _ in range(draws)]
    return float(np.mean(found))


def decisions(
    truth: Bool[np.ndarray, " clips"],
    yes: Bool[np.ndarray, " clips"],
    weights: Weights | None = None,
) -> dict[str, Float[np.ndarray, " draws"]]:
    """`accuracy`, `balanced_accuracy`, `f1`, `precision`, `recall`, `specificity` of yes or no.

    NaN in draws where one is undefined: precision without a yes, recall without a positive.
    """
    given = np.ones((1, len(truth))) if weights is None else weights
    hits, alarms = given @ (truth & yes), given @ (~truth & yes)
    positives, total = given @ truth, given.sum(1)
    return _rates(hits, alarms, positives, total - positives)


def best_threshold(y: ArrayLike, p: ArrayLike, rule: Rule = "balanced") -> float:
    """The probability from which on the answer is yes.

    `balanced` and `f1` take the best of all cuts between distinct probabilities, set midway between
    the two (0 for yes to all); of equally good ones the highest. `half` is 1/2.

    Raises:
        UsageError: as `brier`, or there is only one class.
    """
    truth, given = _checked(y, p)
    if not 0 < truth.sum() < len(truth):
        raise UsageError(f"a threshold parts two classes; all {len(truth)} clips are of one")
    if rule == "half":
        return 0.5
    values = np.unique(given)[::-1]
    cuts = (values + np.append(values[1:], -values[-1])) / 2
    order = np.argsort(-given, kind="stable")
    last = np.searchsorted(-given[order], -values, side="right") - 1
    hits = np.cumsum(truth[order])[last].astype(np.float64)
    positives = np.full(len(hits), float(truth.sum()))
    rates = _rates(hits, last + 1 - hits, positives, len(truth) - positives)
    return float(cuts[np.argmax(rates[_RATES[rule]])])


_RATES: Mapping[str, str] = {"balanced": "balanced_accuracy", "f1": "f1"}


def _rates(
    hits: Float[np.ndarray, " draws"],
    alarms: Float[np.ndarray, " draws"],
    positives: Float[np.ndarray, " draws"],
    negatives: Float[np.ndarray, " draws"],
) -> dict[str, Float[np.ndarray, " draws"]]:
    recall, specificity = _ratio(hits, positives), _ratio(negatives - alarms, negatives)
    return {
        "accuracy": _ratio(hits + negatives - alarms, positives + negatives),
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": _ratio(2 * hits, hits + alarms + positives),
        "precision": _ratio(hits, hits + alarms),
        "recall": recall,
        "specificity": specificity,
    }


def _ratio(
    x: Float[np.ndarray, " draws"], y: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    return np.asarray(np.divide(x, y, out=np.full(len(x), np.nan), where=y > 0))


def _targets(truth: Bool[np.ndarray, " clips"]) -> tuple[float, float]:
    """Platt's targets for negatives and for positives."""
    positives = int(truth.sum())
    return 1 / (len(truth) - positives + 2), (positives + 1) / (positives + 2)


def _fittable(y: ArrayLike, s: ArrayLike) -> tuple[Bool[np.ndarray, " clips"], Scores]:
    truth, scores = _pair(y, s, "scores")
    if not np.isfinite(scores).all():
        raise UsageError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite, the "
            f"first in row {int(np.argmin(np.isfinite(scores)))}; leave these clips out"
        )
    if not 0 < truth.sum() < len(truth):
        raise UsageError(
            f"a calibration needs clips of both classes; {int(truth.sum())} of {len(truth)} are "
            "positive"
        )
    if np.ptp(scores) == 0:
        raise UsageError(
            f"all {len(scores)} scores are {scores[0]:g}: they tell no clip from another"
        )
    return truth, scores


def _checked(y: ArrayLike, p: ArrayLike) -> tuple[Bool[np.ndarray, " clips"], Scores]:
    truth, given = _pair(y, p, "probabilities")
    if not ((given >= 0) & (given <= 1)).all():
        row = int(np.argmin((given >= 0) & (given <= 1)))
        raise UsageError(f"probabilities lie in [0, 1]; that of row {row} is {given[row]:g}")
    return truth, given


def _pair(y: ArrayLike, s: ArrayLike, what: str) -> tuple[Bool[np.ndarray, " clips"], Scores]:
    truth, given = np.asarray(y), np.asarray(s, np.float64)
    if truth.shape != given.shape or given.ndim != 1 or not len(given):
        raise UsageError(
            f"truth and {what} are [clips], one or more of each; got shapes {truth.shape} and "
            f"{given.shape}"
        )
    if not np.isin(truth, (0, 1)).all():
        raise UsageError("truth must be yes or no (True and False, or 1 and 0) for every clip")
    return truth.astype(bool), given

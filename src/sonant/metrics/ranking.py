"""How well scores rank: areas under ROC and PR curves, and retrieval, with exact treatment of ties.

Ties. The areas are those of curves whose points are the distinct scores, so tied clips enter
together; for ROC that counts a tied pair half. The retrieval measures are means, or the median,
over all orders of the tied items, each equally likely. So scores that say nothing get the chance
level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from sonant.errors import UsageError

Array = NDArray[Any]

ROUNDING = 1e-9
"""How far from 1/2 a sum of probabilities may be that is 1/2."""
AREAS = ("roc_auc", "average_precision", "pr_auc")


def roc_auc(y: ArrayLike, s: ArrayLike) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs ranked rightly, ties half.

    Args:
        y: truth [clips], booleans or 0 and 1.
        s: scores [clips], higher for positive.

    Raises:
        UsageError: shapes differ, a score is NaN, or there is only one class.
    """
    return _area("roc_auc", y, s)


def average_precision(y: ArrayLike, s: ArrayLike) -> float:
    """Area under the PR curve by steps: precision at each distinct score, weighted by its recall.

    It is scikit-learn's `average_precision_score`; constant scores get the base rate.

    Args:
        y: truth [clips], booleans or 0 and 1.
        s: scores [clips], higher for positive.

    Raises:
        UsageError: shapes differ, a score is NaN, or there is no positive.
    """
    return _area("average_precision", y, s)


def pr_auc(y: ArrayLike, s: ArrayLike) -> float:
    """Area under the PR curve by trapezoids, from the point (recall 0, precision 1).

    It is what MC3 calls PR AUC and scikit-learn's `auc` gives for its `precision_recall_curve`: a
    little optimistic, so read it beside `average_precision`. Constant scores make no curve but
    one point; their area is its precision, the base rate.

    Args:
        y: truth [clips], booleans or 0 and 1.
        s: scores [clips], higher for positive.

    Raises:
        UsageError: shapes differ, a score is NaN, or there is no positive.
    """
    return _area("pr_auc", y, s)


@dataclass(frozen=True)
class Ranking:
    """Scored clips in falling order, sorted once, to be weighed many times.

    Weights [draws, clips] say how often a clip counts: all ones for the clips as they are,
    multiplicities for a bootstrap resample. A draw in which an area is undefined has NaN.
    """

    order: Int[np.ndarray, " clips"]
    """Rows by falling score."""
    positive: Bool[np.ndarray, " clips"]
    """Truth in that order."""
    ends: Int[np.ndarray, " thresholds"]
    """Place of the last clip of each distinct score."""

    @classmethod
    def of(cls, y: ArrayLike, s: ArrayLike) -> Ranking:
        """Sort clips by score.

        Args:
            y: truth [clips], booleans or 0 and 1.
            s: scores [clips], not NaN.

        Raises:
            UsageError: shapes differ, a score is NaN, or the truth is not yes or no.
        """
        truth, scores = _checked(y, s)
        order = np.argsort(-scores, kind="stable")
        falling = scores[order]
        ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)[: len(falling)])
        return cls(order, truth[order], ends)

    def counts(
        self, weights: Float[np.ndarray, "draws clips"] | None = None
    ) -> tuple[Float[np.ndarray, "draws thresholds"], Float[np.ndarray, "draws thresholds"]]:
        """Hits and false alarms at each distinct score, taken as the threshold, from the top."""
        given = np.ones((1, len(self.order))) if weights is None else weights
        falling = given[:, self.order]
        hits = np.cumsum(falling * self.positive, axis=1, dtype=np.float64)[:, self.ends]
        both = np.cumsum(falling, axis=1, dtype=np.float64)[:, self.ends]
        return hits, both - hits

    def areas(
        self, weights: Float[np.ndarray, "draws clips"] | None = None
    ) -> dict[str, Float[np.ndarray, " draws"]]:
        """`roc_auc`, `average_precision` and `pr_auc` of every draw."""
        hits, alarms = self.counts(weights)
        return {
            "roc_auc": _divide(_concordant(hits, alarms), hits[:, -1] * alarms[:, -1]),
            "average_precision": _stepwise(hits, alarms),
            "pr_auc": _trapezoid(hits, alarms),
        }

    def pairs(
        self, weights: Float[np.ndarray, "draws clips"] | None = None
    ) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
        """(positive, negative) pairs ranked rightly, ties half, and all of them, of every draw."""
        hits, alarms = self.counts(weights)
        return _concordant(hits, alarms), hits[:, -1] * alarms[:, -1]


def roc_curve(
    y: ArrayLike, s: ArrayLike
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """False and true positive rates, from (0, 0) to (1, 1), one point for each distinct score.

    Raises:
        UsageError: as `roc_auc`.
    """
    hits, alarms = _sound("roc_auc", y, s).counts()
    rates = [np.append(0.0, counts[0] / counts[0, -1]) for counts in (alarms, hits)]
    return rates[0], rates[1]


def pr_curve(
    y: ArrayLike, s: ArrayLike
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Recall and precision, recall rising, one point for each distinct score.

    The first point is (0, 1), or (0, base rate) for constant scores.

    Raises:
        UsageError: as `pr_auc`.
    """
    recall, precision = _precision(*_sound("pr_auc", y, s).counts())
    return recall[0], precision[0]


def retrieval(
    similarity: ArrayLike, relevant: ArrayLike, ks: Iterable[int] = (1, 5, 10)
) -> dict[str, float]:
    """Every common reading of "recall at k", each under its own name, over all queries.

    For one query with R relevant items among the gallery's N, and k the length of its list:

    - `hit@k`: whether a relevant item is in the first k (what cross-modal papers call recall);
    - `recall@k`: relevant items in the first k / R (recall of information retrieval);
    - `mean_hits@k`: relevant items in the first k, a number, not a fraction;
    - `precision@k`: relevant items in the first k / k;
    - `map`: mean over the R relevant items of the precision at their places;
    - `median_rank`: place of the first relevant item, from 1.

    All but the last are means over queries and over all orders of tied items, so an item tied with
    one other at the top has hit@1 = 1/2. `median_rank` is the median over queries and orders alike:
    half of all (query, order) have the place before it, half behind it. So a constant matrix gets
    exactly what random order gets.

    Args:
        similarity: [queries, gallery], higher for nearer, not NaN.
        relevant: [queries, gallery], booleans or 0 and 1.
        ks: lengths of the list, positive.

    Raises:
        UsageError: shapes differ, a similarity is NaN, a k is not positive, or a query has nothing
            relevant (such queries are for the caller to leave out).
    """
    return _over_queries(retrieval_by_query(similarity, relevant, ks))


def retrieval_by_query(
    similarity: ArrayLike, relevant: ArrayLike, ks: Iterable[int] = (1, 5, 10)
) -> dict[str, Float[np.ndarray, queries * _]]:
    """The values behind `retrieval`, one for each query.

    Only `median_rank` holds [queries, gallery], for `median_rank`: the probabilities that the first
    relevant item is at place 1, at 1 or 2, and so on.
    """
    lengths = _lengths(ks)
    groups = _tied(*_checked_matrices(similarity, relevant))
    wanted = groups.sum(groups.wanted)
    first = _first_upto(groups, np.shape(similarity)[1])
    hits = {k: groups.sum(groups.wanted * groups.among(k) / groups.tied) for k in lengths}
    return {
        **{f"hit@{k}": first[:, min(k, first.shape[1]) - 1] for k in lengths},
        **{f"recall@{k}": hits[k] / wanted for k in lengths},
        **{f"mean_hits@{k}": hits[k] for k in lengths},
        **{f"precision@{k}": hits[k] / k for k in lengths},
        "map": groups.sum(_precisions(groups)) / wanted,
        "median_rank": first,
    }


def median_rank(
    first: Float[np.ndarray, "queries gallery"],
    weights: Float[np.ndarray, "draws queries"] | None = None,
) -> Float[np.ndarray, " draws"]:
    """Median place over queries and orders of ties, where an even number has the middle of two.

    Args:
        first: of each query, the probability that its place is 1, at most 2, and so on.
        weights: how often a query counts; once if not given. A draw without queries has NaN.
    """
    given = np.ones((1, len(first))) if weights is None else weights
    total = given.sum(1)
    share = _divide(given @ first, np.repeat(total[:, None], first.shape[1], 1))
    places = [np.argmax(share > half, axis=1) for half in (0.5 - ROUNDING, 0.5 + ROUNDING)]
    return np.where(total > 0, 1 + (places[0] + places[1]) / 2, np.nan)


def chance(
    similarity: ArrayLike,
    relevant: ArrayLike,
    ks: Iterable[int] = (1, 5, 10),
    *,
    permutations: int = 10,
    seed: int = 0,
) -> dict[str, float]:
    """`retrieval` over random swaps of places of the gallery's items, taken together.

    Args:
        similarity: [queries, gallery].
        relevant: [queries, gallery].
        ks: lengths of the list.
        permutations: how many.
        seed: of the permutations.

    Raises:
        UsageError: as `retrieval`.
    """
    rng = np.random.default_rng(seed)
    truth, lengths = np.asarray(relevant), _lengths(ks)
    if truth.ndim != 2 or permutations < 1:
        raise UsageError(
            f"chance needs relevance [queries, gallery] and a permutation or more; got shape "
            f"{truth.shape} and {permutations}"
        )
    swaps = (rng.permutation(truth.shape[1]) for _ in range(permutations))
    drawn = (retrieval_by_query(similarity, truth[:, swap], lengths) for swap in swaps)
    totals = reduce(lambda x, y: {name: x[name] + y[name] for name in x}, drawn)
    return _over_queries({name: total / permutations for name, total in totals.items()})


def _over_queries(by_query: Mapping[str, Array]) -> dict[str, float]:
    return {
        name: float(median_rank(values)[0] if name == "median_rank" else np.mean(values))
        for name, values in by_query.items()
    }


def _area(name: str, y: ArrayLike, s: ArrayLike) -> float:
    return float(_sound(name, y, s).areas()[name][0])


def _sound(name: str, y: ArrayLike, s: ArrayLike) -> Ranking:
    """A ranking in which this area is defined."""
    ranking = Ranking.of(y, s)
    positives = int(ranking.positive.sum())
    if not positives or (name == "roc_auc" and positives == len(ranking.positive)):
        needs = "both classes" if name == "roc_auc" else "a positive clip"
        raise UsageError(
            f"{name} needs {needs}; the truth has {positives} positives among "
            f"{len(ranking.positive)} clips"
        )
    return ranking


def _divide(x: Array, y: Array) -> Array:
    """The ratio x / y, NaN where y is 0."""
    return np.asarray(np.divide(x, y, out=np.full(np.shape(x), np.nan), where=y > 0))


def _concordant(
    hits: Float[np.ndarray, "draws thresholds"], alarms: Float[np.ndarray, "draws thresholds"]
) -> Float[np.ndarray, " draws"]:
    """Trapezoids under hits over false alarms: pairs ranked rightly, tied ones half."""
    steps = np.diff(alarms, axis=1, prepend=0)
    middles = hits - np.diff(hits, axis=1, prepend=0) / 2
    return np.asarray(np.einsum("dt,dt->d", steps, middles))


def _stepwise(
    hits: Float[np.ndarray, "draws thresholds"], alarms: Float[np.ndarray, "draws thresholds"]
) -> Float[np.ndarray, " draws"]:
    """Sum over thresholds of precision times the gain in recall."""
    gains = np.diff(hits, axis=1, prepend=0)
    precision = np.divide(hits, hits + alarms, out=np.zeros(hits.shape), where=hits > 0)
    return _divide(np.einsum("dt,dt->d", gains, precision), hits[:, -1])


def _trapezoid(
    hits: Float[np.ndarray, "draws thresholds"], alarms: Float[np.ndarray, "draws thresholds"]
) -> Float[np.ndarray, " draws"]:
    recall, precision = _precision(hits, alarms)
    middles = (precision[:, 1:] + precision[:, :-1]) / 2
    return np.asarray(np.einsum("dt,dt->d", np.diff(recall), middles))


def _precision(
    hits: Float[np.ndarray, "draws thresholds"], alarms: Float[np.ndarray, "draws thresholds"]
) -> tuple[Float[np.ndarray, "draws points"], Float[np.ndarray, "draws points"]]:
    """Recall and precision with their first point, on which thresholds lie that no clip reaches."""
    both, zero = hits + alarms, np.zeros((len(hits), 1))
    constant = ((both == 0) | (both == both[:, -1:])).all(1)
    start = np.where(constant, _divide(hits[:, -1], both[:, -1]), 1.0)[:, None]
    reached = np.divide(hits, both, out=np.repeat(start, hits.shape[1], 1), where=both > 0)
    recall = _divide(hits, np.repeat(hits[:, -1:], hits.shape[1], 1))
    return np.hstack([zero, recall]), np.hstack([start, reached])


@dataclass(frozen=True)
class _Tied:
    """The distinct similarities that relevant items have: a query's from the best down."""

    queries: int
    query: Int[np.ndarray, " groups"]
    above: Int[np.ndarray, " groups"]
    """Items of the gallery with a higher similarity."""
    tied: Int[np.ndarray, " groups"]
    """Items with this similarity, relevant or not."""
    wanted: Int[np.ndarray, " groups"]
    """Relevant items with this similarity."""
    before: Int[np.ndarray, " groups"]
    """Relevant items with a higher one."""

    def among(self, k: int) -> Int[np.ndarray, " groups"]:
        """How many of the tied items are in the first k, whatever their order."""
        return np.asarray(np.clip(k - self.above, 0, self.tied))

    def sum(self, values: ArrayLike) -> Float[np.ndarray, " queries"]:
        """Sums over the groups of each query."""
        sums = np.bincount(self.query, np.asarray(values, np.float64), self.queries)
        return np.asarray(sums)


def _tied(
    similarity: Float[np.ndarray, "queries gallery"], relevant: Bool[np.ndarray, "queries gallery"]
) -> _Tied:
    found = []
    for row, (scores, wanted) in enumerate(zip(similarity, relevant, strict=True)):
        values, counts = np.unique(scores[wanted], return_counts=True)
        rising = np.sort(scores)
        below = np.searchsorted(rising, values, "left")
        upto = np.searchsorted(rising, values, "right")
        before = counts.sum() - np.cumsum(counts)
        group = (np.full(len(values), row), len(scores) - upto, upto - below, counts, before)
        found.append(np.stack(group)[:, ::-1])
    return _Tied(len(similarity), *np.concatenate(found, axis=1))


def _first_upto(groups: _Tied, gallery: int) -> Float[np.ndarray, "queries gallery"]:
    """Probability that the first relevant item is in the first 1, 2, ... (hypergeometric).

    Of the best group, of which m are tied and r wanted, none is among j drawn with probability
    C(m - r, j) / C(m, j).
    """
    best = groups.before == 0
    above, tied, others = (
        values[best][:, None] for values in (groups.above, groups.tied, groups.tied - groups.wanted)
    )
    drawn = np.clip(np.arange(1, gallery + 1) - above, 0, tied)
    log = gammaln(np.arange(gallery + 1) + 1.0)
    none = np.exp(log[others] + log[tied - drawn] - log[np.maximum(others - drawn, 0)] - log[tied])
    return np.select([drawn == 0, drawn > others], [0.0, 1.0], 1 - none)


def _precisions(groups: _Tied) -> Float[np.ndarray, " groups"]:
    """Expected sum of the precisions at the places of a group's relevant items.

    The place above + j (j = 1..m) holds one with probability r / m; given that, before + 1 +
    (j - 1) (r - 1) / (m - 1) relevant items are expected up to it. The sum over j is harmonic.
    """
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, (groups.above + groups.tied).max() + 1)))
    slope = (groups.wanted - 1) / np.maximum(groups.tied - 1, 1)
    offset = groups.before + 1 - slope * (groups.above + 1)
    spread = harmonic[groups.above + groups.tied] - harmonic[groups.above]
    return np.asarray(groups.wanted / groups.tied * (slope * groups.tied + offset * spread))


def _lengths(ks: Iterable[int]) -> Sequence[int]:
    lengths = list(ks)
    if not lengths or any(k < 1 or k != int(k) for k in lengths):
        raise UsageError(f"retrieval looks at the first k items, k = 1, 2, ...; not at {lengths}")
    return [int(k) for k in lengths]


def _truth(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values)
    if array.dtype == bool:
        return array
    if not np.isin(array, (0, 1)).all():
        wrong = next(value for value in array.ravel() if value not in (0, 1))
        raise UsageError(f"{name} must be booleans or 0 and 1; it holds {wrong!r}")
    return array.astype(bool)


def _numbers(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{name} must be numbers, not of type {array.dtype}")
    numbers = array if array.dtype.kind == "f" else array.astype(np.float64)
    if missing := int(np.isnan(numbers).sum()):
        raise UsageError(f"{name} holds {missing} NaN among {numbers.size} values; leave them out")
    return numbers


def _checked(
    y: ArrayLike, s: ArrayLike
) -> tuple[Bool[np.ndarray, " clips"], Float[np.ndarray, " clips"]]:
    truth, scores = _truth(y, "the truth"), _numbers(s, "the scores")
    if truth.ndim != 1 or truth.shape != scores.shape:
        raise UsageError(
            f"truth and scores must be of one shape [clips]; they are {truth.shape} and "
            f"{scores.shape}"
        )
    return truth, scores


def _checked_matrices(
    similarity: ArrayLike, relevant: ArrayLike
) -> tuple[Float[np.ndarray, "queries gallery"], Bool[np.ndarray, "queries gallery"]]:
    scores, truth = _numbers(similarity, "the similarity"), _truth(relevant, "the relevance")
    if scores.ndim != 2 or scores.shape != truth.shape or not scores.size:
        raise UsageError(
            f"similarity and relevance must be of one shape [queries, gallery], with one of each "
            f"or more; they are {scores.shape} and {truth.shape}"
        )
    empty = np.flatnonzero(~truth.any(1))
    if len(empty):
        raise UsageError(
            f"{len(empty)} of {len(truth)} queries have nothing relevant in the gallery, the first "
            f"is row {int(empty[0])}; leave them out"
        )
    return scores, truth

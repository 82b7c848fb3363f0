"""95 % intervals by resampling videos: clips of one video are alike, so they are drawn together.

Efron's percentile bootstrap. A resample draws as many videos as there are, with replacement; a
statistic sees it as weights, the number of times that each clip was drawn, for many resamples at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from sonant.errors import UsageError

LEVEL = 0.95
CHUNK_BYTES = 1 << 22
"""Size of the weights handed over at once: they stay in the processor's cache."""

Weights = Float[np.ndarray, "draws clips"]
Values = Mapping[str, Float[np.ndarray, " draws"]]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; NaN where they are undefined."""

    value: float
    low: float
    high: float


def intervals(
    statistic: Callable[[Weights], Values],
    videos: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of several values that one statistic gives.

    Args:
        statistic: weights [draws, clips] to named values [draws], NaN for draws in which one is
            undefined (say, a class is missing); these draws are left out of its interval.
        videos: the video of each clip [clips].
        resamples: how often to draw.
        seed: of the draws; the same seed draws the same videos, whatever the statistic.

    Returns:
        Name to the value for the clips as they are, and the 2.5th and 97.5th percentile of the
        resamples; these are NaN when there is only one video or half of the draws are undefined.

    Raises:
        UsageError: there are no clips or no resamples.
    """
    drawn = [statistic(weights) for weights in draws(videos, resamples=resamples, seed=seed)]
    whole = {
        name: float(value[0]) for name, value in statistic(np.ones((1, np.size(videos)))).items()
    }
    if len(np.unique(np.asarray(videos, dtype=str))) < 2:
        return {name: Interval(value, np.nan, np.nan) for name, value in whole.items()}
    return {
        name: _interval(value, np.concatenate([some[name] for some in drawn]))
        for name, value in whole.items()
    }


def interval(
    statistic: Callable[[Weights], Float[np.ndarray, " draws"]],
    videos: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of one value; see `intervals`."""
    named = intervals(
        lambda weights: {"value": statistic(weights)}, videos, resamples=resamples, seed=seed
    )
    return named["value"]


def mean(values: ArrayLike) -> Callable[[Weights], Float[np.ndarray, " draws"]]:
    """The statistic "mean of these values" [clips]."""
    numbers = np.asarray(values, np.float64)
    return lambda weights: _ratio(weights @ numbers, weights.sum(1))


def draws(videos: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Iterator[Weights]:
    """Weights [draws, clips] of resamples of the videos, in chunks.

    Raises:
        UsageError: there are no clips or no resamples.
    """
    names, video = np.unique(np.asarray(videos, dtype=str), return_inverse=True)
    if not len(names) or resamples < 1:
        raise UsageError(
            f"a bootstrap needs clips and resamples; there are {len(video)} clips, and {resamples} "
            "resamples are asked for"
        )
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_BYTES // (8 * len(video)))
    for begin in range(0, resamples, chunk):
        size = min(chunk, resamples - begin)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size)
        yield times[:, video].astype(np.float64)


def _interval(value: float, drawn: Float[np.ndarray, " draws"]) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    if 2 * len(defined) < len(drawn):
        return Interval(value, np.nan, np.nan)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _ratio(
    x: Float[np.ndarray, " draws"], y: Float[np.ndarray, " draws"]
) -> Float[np.ndarray, " draws"]:
    return np.asarray(np.divide(x, y, out=np.full(len(x), np.nan), where=y > 0))

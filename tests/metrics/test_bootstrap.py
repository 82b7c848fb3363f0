import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from sonant.errors import UsageError
from sonant.metrics import bootstrap
from sonant.metrics.bootstrap import draws, interval, intervals
from sonant.metrics.ranking import Ranking

RNG = np.random.default_rng(0)
VIDEOS = np.repeat([f"v{i}" for i in range(12)], RNG.integers(2, 9, 12))
Y = RNG.random(len(VIDEOS)) < 0.5
S = Y + RNG.normal(size=len(VIDEOS))


def test_videos_are_drawn_whole_and_as_many_as_there_are() -> None:
    weights = np.concatenate(list(draws(VIDEOS, resamples=50)))
    assert weights.shape == (50, len(VIDEOS))
    for video in set(VIDEOS):
        assert np.ptp(weights[:, video == VIDEOS], axis=1).max() == 0
    first = np.unique(VIDEOS, return_index=True)[1]
    assert (weights[:, first].sum(1) == 12).all()
    assert weights[:, first].mean() == pytest.approx(1)


def test_the_seed_decides_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(VIDEOS, resamples=40, seed=3)))
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 8 * len(VIDEOS) * 7)
    parts = list(draws(VIDEOS, resamples=40, seed=3))
    assert [len(part) for part in parts] == [7] * 5 + [5]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    other = np.concatenate(list(draws(VIDEOS, resamples=40, seed=4)))
    assert not np.array_equal(other, whole)


@pytest.mark.slow
def test_weighing_is_the_same_as_drawing_rows() -> None:
    ranking = Ranking.of(Y, S)
    weighed = interval(lambda weights: ranking.areas(weights)["average_precision"], VIDEOS)

    def of_drawn_rows(weights: np.ndarray) -> np.ndarray:
        drawn = [np.repeat(np.arange(len(Y)), draw.astype(int)) for draw in weights]
        return np.array([average_precision_score(Y[rows], S[rows]) for rows in drawn])

    drawn = interval(of_drawn_rows, VIDEOS)
    assert vars(weighed) == pytest.approx(vars(drawn), abs=1e-12)
    assert weighed.low < weighed.value < weighed.high


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(0, 99))
def test_mean_of_drawn_rows(values: list[int], seed: int) -> None:
    videos = np.arange(len(values)) // 2
    weights = np.concatenate(list(draws(videos, resamples=5, seed=seed)))
    array = np.array(values, float)
    rows = [np.repeat(array, row.astype(int)) for row in weights]
    assert bootstrap.mean(array)(weights) == pytest.approx([row.mean() for row in rows])


def test_interval_of_a_mean_covers_what_theory_says() -> None:
    rng = np.random.default_rng(1)
    effects = rng.normal(size=200)
    values = np.repeat(effects, 10) + rng.normal(size=2000) / 100
    found = interval(bootstrap.mean(values), np.repeat(np.arange(200), 10))
    half = 1.96 * effects.std() / math.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)
    by_clip = interval(bootstrap.mean(values), np.arange(2000))
    assert (found.high - found.low) / (by_clip.high - by_clip.low) == pytest.approx(
        math.sqrt(10), rel=0.15
    )


def test_undefined_draws_are_left_out() -> None:
    y = np.array([True, True, False, False, False])
    ranking = Ranking.of(y, np.array([5, 1, 3, 2, 1]))
    found = intervals(ranking.areas, ["a", "a", "b", "b", "c"], resamples=200)
    assert found["roc_auc"].value == pytest.approx(0.5 + 0.5 / 6)
    assert 0 <= found["roc_auc"].low < found["roc_auc"].high <= 1
    rare = intervals(ranking.areas, ["a", *"bcde"], resamples=200)
    assert math.isfinite(rare["roc_auc"].low)
    sometimes = interval(lambda weights: np.where(weights[:, 0] > 1, 1, np.nan), ["a", "b"])
    assert math.isnan(sometimes.low)


def test_one_video_has_no_interval() -> None:
    found = interval(bootstrap.mean([1.0, 2.0]), ["a", "a"])
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(UsageError, match="there are 0 clips"):
        interval(bootstrap.mean([]), [])
    with pytest.raises(UsageError, match="0 resamples"):
        interval(bootstrap.mean([1.0]), ["a"], resamples=0)

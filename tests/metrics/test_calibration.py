import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from sonant.errors import UsageError
from sonant.metrics.calibration import (
    Isotonic,
    Platt,
    best_threshold,
    brier,
    by_chance,
    calibration_error,
    decisions,
    ece_equal_mass,
    ece_equal_width,
    equal_mass,
    equal_width,
    log_loss,
    places,
)
from sonant.metrics.ranking import roc_auc

Drawn = tuple[np.ndarray, np.ndarray]


def draw(seed: int, clips: int = 80, *, digits: int = 9) -> Drawn:
    """Truth and cosines; few digits make ties."""
    rng = np.random.default_rng(seed)
    s = np.clip(0.2 + 0.15 * rng.normal(size=clips), -1, 1).round(digits)
    y = rng.random(clips) < 1 / (1 + np.exp(-rng.choice([3, 6, 12]) * (s - 0.2)))
    y[:2] = False, True
    return y, s


drawn = st.builds(draw, st.integers(0, 2**32 - 1), st.integers(4, 90), digits=st.integers(1, 9))


@settings(max_examples=30)
@given(drawn)
def test_platt_is_scikit_learns(data: Drawn) -> None:
    y, s = data
    if np.ptp(s) == 0:
        return
    curve = Platt.fit(y, s)
    a, b = _sigmoid_calibration(s, y.astype(float))
    np.testing.assert_allclose(curve(s), 1 / (1 + np.exp(a * s + b)), atol=1e-4)
    moved, low, high = curve(s), 1 / (2 + (~y).sum()), (1 + y.sum()) / (2 + y.sum())
    wanted = np.where(y, high, low)
    assert (moved - wanted).sum() == pytest.approx(0, abs=1e-6)
    assert ((moved - wanted) * s).sum() == pytest.approx(0, abs=1e-6)


def test_platt_stays_finite_where_scores_part_the_classes() -> None:
    s = np.array([0.1, 0.1, 0.2, 0.4, 0.4])
    curve = Platt.fit(s > 0.3, s)
    assert np.isfinite([curve.slope, curve.intercept]).all()
    assert curve([0.1]) == pytest.approx(1 / 5, abs=0.05)
    assert curve([0.4]) == pytest.approx(3 / 4, abs=0.05)


@settings(max_examples=30)
@given(drawn)
def test_platt_leaves_the_ranking_as_it_is_and_isotonic_only_ties(data: Drawn) -> None:
    y, s = data
    if np.ptp(s) == 0:
        return
    platt, isotonic = Platt.fit(y, s), Isotonic.fit(y, s)
    if platt.slope > 1e-6:
        assert roc_auc(y, platt(s)) == pytest.approx(roc_auc(y, s), abs=1e-12)
    order = np.argsort(s)
    assert (np.diff(isotonic(s)[order]) >= 0).all()


@settings(max_examples=30)
@given(drawn, st.floats(0.1, 10), st.floats(-2, 2))
def test_curves_do_not_see_the_scale_of_scores(data: Drawn, scale: float, shift: float) -> None:
    y, s = data
    if np.ptp(s) < 1e-3:
        return
    moved = scale * s + shift
    np.testing.assert_allclose(Platt.fit(y, moved)(moved), Platt.fit(y, s)(s), atol=1e-6)
    np.testing.assert_allclose(Isotonic.fit(y, moved)(moved), Isotonic.fit(y, s)(s), atol=1e-9)


@settings(max_examples=30)
@given(drawn)
def test_isotonic_is_scikit_learns_within_platts_targets(data: Drawn) -> None:
    y, s = data
    if np.ptp(s) == 0:
        return
    low, high = 1 / (2 + (~y).sum()), (1 + y.sum()) / (2 + y.sum())
    oracle = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(s, y)
    curve = Isotonic.fit(y, s)
    asked = np.append(s, [-1.0, 1.0])
    np.testing.assert_allclose(curve(asked), oracle.predict(asked), atol=1e-9)
    between = np.linspace(-1, 1, 50)
    np.testing.assert_allclose(curve(between), oracle.predict(between), atol=1e-9)
    assert len(curve.scores) <= len(np.unique(s))


def test_missing_scores_have_missing_probabilities() -> None:
    y, s = draw(0)
    for curve in (Platt.fit(y, s), Isotonic.fit(y, s)):
        assert np.isnan(curve([np.nan, 0.1])).tolist() == [True, False]


@settings(max_examples=30)
@given(drawn)
def test_brier_and_log_loss_are_scikit_learns(data: Drawn) -> None:
    y, s = data
    p = (1 + s) / 2
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p))
    assert log_loss(y, np.clip(p, 0.01, 0.99)) == pytest.approx(
        sklearn_log_loss(y, np.clip(p, 0.01, 0.99))
    )


def test_who_was_sure_and_wrong_has_lost() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_loss([1, 0], [0.0, 0.0]) == np.inf
        assert log_loss([1, 0], [1.0, 0.0]) == 0
    assert brier([1, 0], [0.5, 0.5]) == 0.25


def naive_ece(y: np.ndarray, p: np.ndarray, groups: list[list[int]]) -> float:
    """Naeini et al. 2015, with the share of positives for accuracy: transcribed."""
    parts = [len(rows) / len(p) * abs(p[rows].mean() - y[rows].mean()) for rows in groups if rows]
    return float(sum(parts))


@given(drawn, st.integers(1, 15))
def test_the_calibration_error_is_its_definition(data: Drawn, bins: int) -> None:
    y, s = data
    p = (1 + s) / 2
    width = [
        [i for i, v in enumerate(p) if k / bins <= v < (k + 1) / bins or (v == 1 and k == bins - 1)]
        for k in range(bins)
    ]
    assert ece_equal_width(y, p, bins=bins) == pytest.approx(naive_ece(y, p, width))
    if len(set(p)) == len(p):
        order = np.argsort(p).tolist()
        edges = [len(p) * k // bins for k in range(bins + 1)]
        mass = [order[a:b] for a, b in pairwise(edges)]
        assert ece_equal_mass(y, p, bins=bins) == pytest.approx(naive_ece(y, p, mass))


@given(drawn, st.integers(1, 15))
def test_clips_of_one_probability_share_a_bin_whatever_their_order(data: Drawn, bins: int) -> None:
    y, s = data
    p = ((1 + s) / 2).round(1)
    starts = equal_mass(p, bins)
    assert len(starts) <= bins
    where = places(p, starts)
    assert (where.sum(1) == 1).all()
    assert (where.sum(0) > 0).all()
    order = np.random.default_rng(len(p)).permutation(len(p))
    assert ece_equal_mass(y[order], p[order], bins=bins) == pytest.approx(
        ece_equal_mass(y, p, bins=bins)
    )


def test_clips_that_count_twice_are_clips_that_are_there_twice() -> None:
    y, s = draw(3, 40)
    p = (1 + s) / 2
    weights = np.random.default_rng(0).integers(0, 3, (5, 40)).astype(float)
    starts = equal_width(7)
    found = calibration_error(y, p, starts, weights)
    chosen = decisions(y, p > 0.6, weights)
    for draw_, weight in enumerate(weights):
        rows = np.repeat(np.arange(40), weight.astype(int))
        assert found[draw_] == pytest.approx(calibration_error(y[rows], p[rows], starts)[0])
        whole = decisions(y[rows], p[rows] > 0.6)
        for name, values in chosen.items():
            assert values[draw_] == pytest.approx(whole[name][0], nan_ok=True)


def test_true_probabilities_have_the_error_of_chance() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    errors = [ece_equal_width(rng.random(400) < p, p) for _ in range(100)]
    level = by_chance(p, equal_width(10))
    assert level == pytest.approx(np.mean(errors), rel=0.1)
    assert ece_equal_width(rng.random(400) < p, p**3) > 2 * level
    assert by_chance(np.repeat([0.0, 1.0], 5), equal_width(10)) == 0


def test_a_fitted_curve_is_calibrated_on_fresh_clips() -> None:
    (y, s), (fresh, t) = (
        (np.random.default_rng(seed).random(4000) < 1 / (1 + np.exp(-6 * (x - 0.2))), x)
        for seed in (1, 2)
        for x in [np.random.default_rng(seed + 9).normal(0.2, 0.2, 4000)]
    )
    for curve in (Platt.fit(y, s), Isotonic.fit(y, s)):
        p = curve(t)
        assert ece_equal_mass(fresh, p) < 2.5 * by_chance(p, equal_mass(p, 10))
        assert brier(fresh, p) < brier(fresh, np.full(4000, y.mean()))
    assert Platt.fit(y, s).slope == pytest.approx(6, abs=0.6)


def naive_rates(y: np.ndarray, yes: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy and F1 of a decision."""
    hits = (y & yes).sum()
    balanced = (hits / y.sum() + (~y & ~yes).sum() / (~y).sum()) / 2
    return balanced, 2 * hits / (y.sum() + yes.sum())


@given(drawn)
def test_the_threshold_is_the_best_of_all_cuts(data: Drawn) -> None:
    y, s = data
    p = (1 + s) / 2
    rates = [naive_rates(y, p >= cut) for cut in [*np.unique(p), 1.1]]
    balanced = decisions(y, p >= best_threshold(y, p, "balanced"))["balanced_accuracy"]
    f1 = decisions(y, p >= best_threshold(y, p, "f1"))["f1"]
    assert (balanced[0], f1[0]) == pytest.approx(np.max(rates, axis=0))
    assert best_threshold(y, p, "half") == 0.5


def test_decisions_are_scikit_learns() -> None:
    y, s = draw(5)
    found = decisions(y, s > 0.25)
    for name, oracle in (
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("f1", f1_score),
        ("precision", precision_score),
        ("recall", recall_score),
    ):
        assert found[name][0] == pytest.approx(oracle(y, s > 0.25)), name
    assert found["specificity"][0] == pytest.approx(recall_score(~y, s <= 0.25))


def test_a_threshold_lies_midway_and_the_highest_of_the_best_is_taken() -> None:
    assert best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    assert best_threshold([1, 0, 1, 0], [0.9, 0.6, 0.4, 0.2]) == pytest.approx(0.75)
    assert best_threshold([0, 1, 1, 1], [0.9, 0.6, 0.4, 0.2], "f1") == 0.0


@pytest.mark.parametrize(
    ("y", "s", "message"),
    [
        ([1, 0], [0.1, np.nan], "1 of 2 scores are not finite, the first in row 1"),
        ([1, 1, 1], [0.1, 0.2, 0.3], "both classes; 3 of 3 are positive"),
        ([1, 0], [0.3, 0.3], "all 2 scores are 0.3"),
        ([1, 0], [0.3], "got shapes"),
        ([], [], "one or more"),
        ([2, 0], [0.1, 0.2], "yes or no"),
    ],
)
def test_what_cannot_be_fitted_is_refused(y: list[int], s: list[float], message: str) -> None:
    for curve in (Platt, Isotonic):
        with pytest.raises(UsageError, match=message):
            curve.fit(y, s)


def test_what_is_no_probability_is_refused() -> None:
    for call in (brier, log_loss, ece_equal_width, ece_equal_mass, best_threshold):
        for bad in (1.5, -0.1, np.nan):
            with pytest.raises(UsageError, match=r"\[0, 1\]; that of row 1 is"):
                call([1, 0], [0.2, bad])
    with pytest.raises(UsageError, match="bins must be at least 1"):
        ece_equal_mass([1, 0], [0.2, 0.3], bins=0)
    with pytest.raises(UsageError, match="all 2 clips are of one"):
        best_threshold([1, 1], [0.2, 0.3])

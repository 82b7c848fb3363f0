import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from sonant.errors import UsageError
from sonant.metrics.ranking import (
    Ranking,
    average_precision,
    chance,
    median_rank,
    pr_auc,
    pr_curve,
    retrieval,
    retrieval_by_query,
    roc_auc,
    roc_curve,
)

Array = np.ndarray
LEVELS = st.sampled_from([-1.0, -0.25, 0.0, 0.5, 0.75])


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Array]:
    """Both classes, few distinct scores: ties everywhere."""
    labels = draw(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda y: sum(y) > 0))
    y = np.array(labels)
    if y.all():
        y[draw(st.integers(0, len(y) - 1))] = False
    return y, np.array(draw(st.lists(LEVELS, min_size=len(y), max_size=len(y))))


@given(scored())
def test_areas_are_those_of_scikit_learn(data: tuple[Array, Array]) -> None:
    y, s = data
    assert roc_auc(y, s) == pytest.approx(oracle.roc_auc_score(y, s), abs=1e-12)
    assert average_precision(y, s) == pytest.approx(oracle.average_precision_score(y, s), abs=1e-12)
    precision, recall, _ = oracle.precision_recall_curve(y, s)
    if len(set(s)) > 1:
        assert pr_auc(y, s) == pytest.approx(oracle.auc(recall, precision), abs=1e-12)


@given(scored())
def test_roc_auc_is_the_share_of_pairs(data: tuple[Array, Array]) -> None:
    y, s = data
    pairs = [(s[i] > s[j]) + (s[i] == s[j]) / 2 for i in np.where(y)[0] for j in np.where(~y)[0]]
    assert roc_auc(y, s) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert roc_auc(~y, -s) == pytest.approx(roc_auc(y, s), abs=1e-12)
    assert roc_auc(y, -s) == pytest.approx(1 - roc_auc(y, s), abs=1e-12)
    assert roc_auc(y, np.exp(s)) == roc_auc(y, s)


@given(scored())
def test_curves_are_those_of_scikit_learn(data: tuple[Array, Array]) -> None:
    y, s = data
    alarms, hits, _ = oracle.roc_curve(y, s, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(y, s), (alarms, hits), atol=1e-12)
    precision, recall, _ = oracle.precision_recall_curve(y, s)
    ours = pr_curve(y, s)
    assert np.all(np.diff(ours[0]) >= 0)
    if len(set(s)) > 1:
        np.testing.assert_allclose(ours, (recall[::-1], precision[::-1]), atol=1e-12)


def test_constant_scores_get_chance() -> None:
    y = np.array([1, 0, 0, 1, 0])
    assert roc_auc(y, np.zeros(5)) == 0.5
    assert average_precision(y, np.ones(5)) == pytest.approx(0.4)
    assert pr_auc(y, np.ones(5)) == pytest.approx(0.4)
    np.testing.assert_allclose(pr_curve(y, np.ones(5)), [[0, 1], [0.4, 0.4]])


@given(scored(), st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(data: tuple[Array, Array], seed: int) -> None:
    y, s = data
    weights = np.random.default_rng(seed).integers(0, 3, (4, len(y)))
    areas = Ranking.of(y, s).areas(weights.astype(float))
    for draw, row in enumerate(weights):
        repeated = np.repeat(y, row), np.repeat(s, row)
        for name, function in (("average_precision", average_precision), ("pr_auc", pr_auc)):
            want = function(*repeated) if repeated[0].any() else math.nan
            assert areas[name][draw] == pytest.approx(want, abs=1e-12, nan_ok=True)
        both = len(set(repeated[0])) == 2
        want = roc_auc(*repeated) if both else math.nan
        assert areas["roc_auc"][draw] == pytest.approx(want, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("function", [roc_auc, average_precision, pr_auc, roc_curve, pr_curve])
def test_bad_scores_are_refused(function: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match=r"one shape \[clips\]; they are \(2,\) and \(3,\)"):
        function([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match="1 NaN among 2"):
        function([0, 1], [0.1, math.nan])
    with pytest.raises(UsageError, match="0 and 1; it holds"):
        function([0, 2], [0.1, 0.2])
    with pytest.raises(UsageError, match="0 positives among 2"):
        function([0, 0], [0.1, 0.2])
    with pytest.raises(UsageError, match="0 positives among 0"):
        function([], [])
    with pytest.raises(UsageError, match="must be numbers"):
        function([0, 1], ["a", "b"])


def test_one_class_only() -> None:
    with pytest.raises(UsageError, match="both classes; the truth has 2 positives among 2"):
        roc_auc([1, 1], [0.1, 0.2])
    assert average_precision([1, 1], [0.1, 0.2]) == 1


def in_all_orders(scores: Array, wanted: Array, k: int) -> dict[str, float]:
    """The measures of one query, averaged over every order of its tied items."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        hits = np.array([wanted[item] for item in order])
        places = np.flatnonzero(hits) + 1
        found.append(
            [
                hits[:k].any(),
                hits[:k].sum() / hits.sum(),
                hits[:k].sum(),
                hits[:k].sum() / k,
                np.mean([hits[:place].mean() for place in places]),
            ]
        )
    names = [f"hit@{k}", f"recall@{k}", f"mean_hits@{k}", f"precision@{k}", "map"]
    return dict(zip(names, np.mean(found, axis=0), strict=True))


def first_places(scores: Array, wanted: Array) -> list[int]:
    """Place of the first relevant item in every order of tied items, 120 of them or less."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return [1 + [wanted[item] for item in order].index(True) for order in orders]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(LEVELS, min_size=5, max_size=5), min_size=1, max_size=3),
    bits=st.lists(st.integers(1, 31), min_size=3, max_size=3),
    k=st.integers(1, 7),
)
def test_retrieval_is_the_mean_over_all_orders_of_ties(
    scores: list[list[float]], bits: list[int], k: int
) -> None:
    similarity = np.array(scores)
    relevant = np.array([[bit >> i & 1 for i in range(5)] for bit in bits[: len(scores)]], bool)
    ours = retrieval_by_query(similarity, relevant, [k])
    for row in range(len(scores)):
        for name, value in in_all_orders(similarity[row], relevant[row], k).items():
            assert ours[name][row] == pytest.approx(value, abs=1e-12), name
    means = retrieval(similarity, relevant, [k])
    assert means["map"] == pytest.approx(ours["map"].mean())
    places = [first_places(*row) for row in zip(similarity, relevant, strict=True)]
    alike = [np.repeat(of, math.factorial(5) // len(of)) for of in places]
    assert means["median_rank"] == np.median(alike)
    weights = np.array([[2] * len(scores), [3, *[1] * (len(scores) - 1)]], float)
    drawn = [np.median(np.concatenate([*alike, *[alike[0]] * more])) for more in (0, 2)]
    assert median_rank(ours["median_rank"], weights).tolist() == drawn


def test_retrieval_without_ties_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    similarity, relevant = rng.normal(size=(50, 80)), rng.random((50, 80)) < 0.1
    relevant[np.arange(50), rng.integers(0, 80, 50)] = True
    ours = retrieval(similarity, relevant, [1, 5, 10])
    rows = list(zip(relevant, similarity, strict=True))
    assert ours["map"] == pytest.approx(
        np.mean([oracle.average_precision_score(*row) for row in rows])
    )
    one = relevant.copy()
    one[:] = False
    one[np.arange(50), rng.integers(0, 80, 50)] = True
    top = [
        oracle.top_k_accuracy_score(one.argmax(1), similarity, k=k, labels=range(80))
        for k in (1, 5, 10)
    ]
    single = retrieval(similarity, one, [1, 5, 10])
    for name in ("hit", "recall", "mean_hits"):
        assert [single[f"{name}@{k}"] for k in (1, 5, 10)] == pytest.approx(top)


def test_a_constant_matrix_gets_chance_everywhere() -> None:
    relevant = np.zeros((30, 40), bool)
    relevant[:, :2] = True
    constant = retrieval(np.full((30, 40), 0.3, np.float32), relevant)
    assert constant["hit@5"] == pytest.approx(1 - math.comb(38, 5) / math.comb(40, 5))
    assert constant["recall@10"] == pytest.approx(10 / 40)
    assert constant["mean_hits@10"] == pytest.approx(20 / 40)
    assert constant["precision@10"] == pytest.approx(2 / 40)
    assert constant["median_rank"] == 12  # C(29, 2) / C(40, 2) > 1/2 > C(28, 2) / C(40, 2)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(30, 40))
    for level in (
        chance(noise, relevant, permutations=300),
        retrieval(rng.normal(size=(9000, 40)), np.tile(relevant, (300, 1))),
    ):
        assert level == pytest.approx(constant, abs=0.02)


def test_chance_forgets_the_similarity_but_not_its_ties() -> None:
    relevant = np.eye(20, dtype=bool).repeat(2, axis=1)
    perfect = relevant + np.random.default_rng(1).random((20, 40)) / 9
    assert retrieval(perfect, relevant)["map"] == 1
    level = chance(perfect, relevant, permutations=100)
    assert level["recall@10"] == pytest.approx(0.25, abs=0.01)
    assert level == chance(perfect, relevant, permutations=100)
    constant = np.zeros((20, 40))
    assert chance(constant, relevant) == pytest.approx(retrieval(constant, relevant))


@given(st.integers(0, 2**32 - 1))
def test_retrieval_ignores_the_order_of_queries_and_gallery(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity, relevant = rng.integers(0, 4, (6, 9)) / 4, rng.random((6, 9)) < 0.4
    relevant[:, 0] = True
    rows, columns = rng.permutation(6), rng.permutation(9)
    moved = retrieval(similarity[rows][:, columns], relevant[rows][:, columns])
    assert moved == pytest.approx(retrieval(similarity, relevant))
    assert all(0 <= moved[name] <= 1 for name in moved if name[:3] not in ("mea", "med"))
    assert moved["hit@1"] <= moved["hit@5"] <= moved["hit@10"]


def test_bad_retrieval_is_refused() -> None:
    good = np.eye(3)
    with pytest.raises(UsageError, match=r"\[queries, gallery\].*\(3, 3\) and \(3, 2\)"):
        retrieval(good, good[:, :2])
    with pytest.raises(UsageError, match=r"2 of 3 queries have nothing relevant.*row 1"):
        retrieval(good, good * [[1], [0], [0]])
    with pytest.raises(UsageError, match="1 NaN among 9"):
        retrieval(np.where(good, [math.nan, 0, 0], 0.0), good)
    with pytest.raises(UsageError, match=r"k = 1, 2, \.\.\.; not at \[5, 0\]"):
        retrieval(good, good, [5, 0])
    with pytest.raises(UsageError, match="a permutation or more"):
        chance(good, good, permutations=0)

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.errors import UsageError
from sonant.metrics.clustering import Read, ami, ari, by_purity, hungarian_accuracy, nmi, purity

Array = np.ndarray
MEASURES = [purity, nmi, ami, ari, hungarian_accuracy]
CLUSTERS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
LABELS = np.array(["cut", "cut", "cut", "wash", "wash", "wash", "cut", "stir", "stir", "cut"])


@st.composite
def assigned(draw: st.DrawFn) -> tuple[Array, Array]:
    pair = st.tuples(st.integers(0, 3), st.sampled_from("abc"))
    pairs = draw(st.lists(pair, min_size=2, max_size=12))
    return tuple(np.array(column) for column in zip(*pairs, strict=True))  # type: ignore[return-value]


def entropy(values: list[object]) -> float:
    return -sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values())


def matched(clusters: Array, labels: Array) -> float:
    """The best over all ways to name clusters by different labels, or by none."""
    names = sorted(set(labels)) + [None] * len(set(clusters))
    ways = itertools.permutations(names, len(set(clusters)))
    places = np.unique(clusters, return_inverse=True)[1]
    return max(
        float(np.mean([way[c] == label for c, label in zip(places, labels, strict=True)]))
        for way in ways
    )


def pairs_adjusted(clusters: Array, labels: Array) -> float:
    """Hubert and Arabie's index from counting pairs of clips."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    c = np.array([clusters[i] == clusters[j] for i, j in pairs])
    y = np.array([labels[i] == labels[j] for i, j in pairs])
    expected, most = c.sum() * y.sum() / len(pairs), (c.sum() + y.sum()) / 2
    return 1.0 if most == expected else float(((c & y).sum() - expected) / (most - expected))


def test_by_hand() -> None:
    assert purity(CLUSTERS, LABELS) == pytest.approx((3 + 2 + 2) / 10)
    assert hungarian_accuracy(CLUSTERS, LABELS) == pytest.approx(0.7)
    merged = np.where(CLUSTERS == 1, 0, CLUSTERS)
    assert purity(merged, LABELS) == pytest.approx((4 + 2) / 10)
    many = np.arange(10)
    assert purity(many, LABELS) == 1
    assert hungarian_accuracy(many, LABELS) == pytest.approx(0.3)


@pytest.mark.slow
@given(assigned())
def test_nmi_is_over_the_mean_of_entropies(data: tuple[Array, Array]) -> None:
    c, y = (list(column) for column in data)
    joint = entropy(list(zip(c, y, strict=True)))
    mean = (entropy(c) + entropy(y)) / 2
    want = 1.0 if mean == 0 else max(entropy(c) + entropy(y) - joint, 0) / mean
    assert nmi(*data) == pytest.approx(want, abs=1e-9)


@given(assigned())
def test_ari_counts_pairs(data: tuple[Array, Array]) -> None:
    assert ari(*data) == pytest.approx(pairs_adjusted(*data), abs=1e-12)


@settings(max_examples=30)
@given(assigned())
def test_the_matching_is_the_best(data: tuple[Array, Array]) -> None:
    assert hungarian_accuracy(*data) == pytest.approx(matched(*data), abs=1e-12)
    assert hungarian_accuracy(*data) <= purity(*data) + 1e-12


@pytest.mark.parametrize("measure", MEASURES)
def test_names_and_order_do_not_matter(measure: Callable[[Array, Array], float]) -> None:
    value = measure(CLUSTERS, LABELS)
    order = np.random.default_rng(0).permutation(10)
    assert measure(CLUSTERS[order], LABELS[order]) == pytest.approx(value)
    assert measure(-7 * CLUSTERS, np.char.upper(LABELS)) == pytest.approx(value)
    assert measure(CLUSTERS, LABELS.astype(object)) == pytest.approx(value)
    assert measure(LABELS, LABELS) == pytest.approx(1)


def test_chance_is_0_where_it_is_adjusted_for() -> None:
    random = np.random.default_rng(0)
    draws = [(random.integers(0, 20, 200), random.integers(0, 5, 200)) for _ in range(30)]
    for measure in (ami, ari):
        assert np.mean([measure(*draw) for draw in draws]) == pytest.approx(0, abs=0.01)
    assert np.mean([nmi(*draw) for draw in draws]) > 0.05


def test_clusters_are_ranked_by_purity() -> None:
    first, second, third = by_purity(CLUSTERS, LABELS)
    assert first == Read(0, 4, (("cut", 0.75), ("wash", 0.25)))
    assert (second.cluster, second.concepts) == (1, (("wash", 2 / 3), ("cut", 1 / 3)))
    assert (third.cluster, third.purity) == (2, pytest.approx(2 / 3))
    assert [read.concepts for read in by_purity([9, 9], ["b", "a"], concepts=1)] == [(("a", 0.5),)]


@given(assigned())
def test_ranked_purities_make_up_the_whole(data: tuple[Array, Array]) -> None:
    ranked = by_purity(*data)
    assert sum(read.purity * read.clips for read in ranked) == pytest.approx(
        purity(*data) * len(data[0])
    )
    assert [read.purity for read in ranked] == sorted((r.purity for r in ranked), reverse=True)


@pytest.mark.parametrize("measure", [*MEASURES, by_purity])
def test_what_does_not_belong_together_is_refused(measure: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match=r"not \(2,\) and \(3,\)"):
        measure([0, 1], ["a", "b", "c"])
    with pytest.raises(UsageError, match="one of each a clip"):
        measure([], [])


def test_no_concepts_are_refused() -> None:
    with pytest.raises(UsageError, match="concepts must be at least 1, not 0"):
        by_purity(CLUSTERS, LABELS, concepts=0)

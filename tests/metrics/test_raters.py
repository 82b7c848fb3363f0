import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import UsageError
from sonant.metrics.raters import (
    fleiss_kappa,
    fleiss_kappas,
    krippendorff_alpha,
    pair_agreement,
    percent_agreement,
)

PSYCHIATRISTS = """
    00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
    00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
"""Fleiss (1971), Table 1: thirty patients, six psychiatrists each, five diagnoses."""


def table(text: str) -> np.ndarray:
    return np.array([[int(digit) for digit in row] for row in text.split()])


def by_pairs(votes: list[list[int]]) -> tuple[float, float]:
    """Observed agreement of pairs of raters, and kappa, from the votes one by one."""
    pairs = [one == other for row in votes for one, other in itertools.permutations(row, 2)]
    cast = [vote for row in votes for vote in row]
    chance = sum((cast.count(vote) / len(cast)) ** 2 for vote in set(cast))
    observed = sum(pairs) / len(pairs)
    return observed, (observed - chance) / (1 - chance)


def counted(votes: list[list[int]], categories: int) -> np.ndarray:
    return np.array([[row.count(category) for category in range(categories)] for row in votes])


def test_fleiss_own_example() -> None:
    counts = table(PSYCHIATRISTS)
    assert (counts.sum(1) == 6).all()
    np.testing.assert_allclose(counts.sum(0) / 180, [0.144, 0.144, 0.167, 0.306, 0.239], atol=5e-4)
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)
    assert percent_agreement(counts) == pytest.approx(0.556, abs=5e-4)


def test_fourteen_raters_of_ten_subjects() -> None:
    """The worked example of many textbooks, and of Wikipedia's page on this kappa."""
    rows = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(rows)) == pytest.approx(0.210, abs=5e-4)
    assert percent_agreement(np.array(rows)) == pytest.approx(0.378, abs=5e-4)


def test_krippendorffs_own_example() -> None:
    """Krippendorff (2011), section C: four observers, twelve units, votes missing; alpha .743."""
    a = "1 2 3 3 2 1 4 1 2 . . ."
    b = "1 2 3 3 2 2 4 1 2 5 . 3"
    c = ". 3 3 3 2 3 4 2 2 5 1 ."
    d = "1 2 3 3 2 4 4 1 2 5 1 ."
    votes = [
        [int(vote) - 1 for vote in unit if vote != "."]
        for unit in zip(*(row.split() for row in (a, b, c, d)), strict=True)
    ]
    assert krippendorff_alpha(counted(votes, 5)) == pytest.approx(0.743, abs=5e-4)


three = st.lists(
    st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=12
).filter(lambda votes: len({vote for row in votes for vote in row}) > 1)


@given(three)
def test_kappa_is_what_pairs_of_votes_say(votes: list[list[int]]) -> None:
    observed, kappa = by_pairs(votes)
    assert percent_agreement(counted(votes, 3)) == pytest.approx(observed)
    assert fleiss_kappa(counted(votes, 3)) == pytest.approx(kappa)


@given(three, st.permutations(range(3)))
def test_names_of_categories_do_not_matter(votes: list[list[int]], names: list[int]) -> None:
    counts = counted(votes, 3)
    assert fleiss_kappa(counts[:, names]) == pytest.approx(fleiss_kappa(counts))
    assert krippendorff_alpha(counts[::-1]) == pytest.approx(krippendorff_alpha(counts))


@given(three)
def test_alpha_is_kappa_but_for_the_number_of_votes(votes: list[list[int]]) -> None:
    counts = counted(votes, 3)
    small = 1 - 1 / counts.sum()
    assert 1 - krippendorff_alpha(counts) == pytest.approx((1 - fleiss_kappa(counts)) * small)


@given(three, st.data())
def test_weights_are_repetitions(votes: list[list[int]], data: st.DataObject) -> None:
    counts = counted(votes, 3)
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(votes), max_size=len(votes)))
    drawn = np.repeat(counts, times, axis=0)
    got = fleiss_kappas(counts, np.array([times], float))[0]
    want = fleiss_kappa(drawn) if len(drawn) else np.nan
    assert got == pytest.approx(want, nan_ok=True)


def test_limits() -> None:
    assert fleiss_kappa(np.array([[3, 0], [0, 3], [3, 0]])) == 1
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    assert np.isnan(krippendorff_alpha(np.array([[1, 0], [0, 0]])))
    rng = np.random.default_rng(0)
    yes = rng.binomial(3, 0.4, 20000)
    assert fleiss_kappa(np.stack([3 - yes, yes], 1)) == pytest.approx(0, abs=0.02)


def test_wrong_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="there are 3 on the first and 2 on row 1"):
        fleiss_kappa(np.array([[3, 0], [1, 1]]))
    with pytest.raises(UsageError, match="there are 2 subjects, and 1 votes on row 1"):
        pair_agreement(np.array([[3, 0], [1, 0]]))
    with pytest.raises(UsageError, match="there are 0 subjects"):
        percent_agreement(np.zeros((0, 2), int))

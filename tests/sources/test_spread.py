from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import UsageError
from sonant.sources.spread import spread

clips = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), min_size=1, max_size=60)


@given(clips, st.data(), st.integers(0, 99))
def test_videos_and_their_verbs_take_turns(
    clips: list[tuple[int, str]], data: st.DataObject, seed: int
) -> None:
    n = data.draw(st.integers(1, len(clips)))
    videos, verbs = (list(column) for column in zip(*clips, strict=True))
    rows = spread(videos, verbs, n, seed=seed)
    assert len(set(rows.tolist())) == n
    assert (np.diff(rows) > 0).all()
    fair(Counter(videos[row] for row in rows), Counter(videos))
    for video in set(videos):
        mine = [verbs[row] for row in rows if videos[row] == video]
        there = [verb for of, verb in clips if of == video]
        fair(Counter(mine), Counter(there))


def fair(taken: Counter[int] | Counter[str], there: Counter[int] | Counter[str]) -> None:
    """None is more than one behind another, unless it has no more."""
    most = max(taken.values(), default=0)
    assert all(taken[one] >= min(most - 1, there[one]) for one in there)


@given(clips, st.data(), st.integers(0, 99))
def test_fewer_are_the_first_of_more(
    clips: list[tuple[int, str]], data: st.DataObject, seed: int
) -> None:
    n = data.draw(st.integers(1, len(clips)))
    videos, verbs = zip(*clips, strict=True)
    more = spread(videos, verbs, n, seed=seed)
    fewer = spread(videos, verbs, data.draw(st.integers(1, n)), seed=seed)
    assert set(fewer.tolist()) <= set(more.tolist())


def test_rare_verbs_come_up() -> None:
    verbs = ["take"] * 97 + ["wash", "cut", ""]
    rows = spread(["v"] * 100, verbs, 8, seed=0)
    assert Counter(verbs[row] for row in rows) == {"take": 5, "wash": 1, "cut": 1, "": 1}


def test_the_seed_chooses() -> None:
    videos, verbs = ["v", "w"] * 50, ["a"] * 100
    choices = {tuple(spread(videos, verbs, 10, seed=seed)) for seed in range(5)}
    assert len(choices) == 5
    assert tuple(spread(videos, verbs, 10, seed=3)) in choices


def test_more_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(UsageError, match="3 clips cannot be chosen out of 2"):
        spread(["v", "v"], ["a", "b"], 3)
    with pytest.raises(UsageError, match="clips must be at least 1"):
        spread(["v", "v"], ["a", "b"], 0)

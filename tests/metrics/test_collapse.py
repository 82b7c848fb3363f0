import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sonant.log import effective_rank as of_torch
from sonant.metrics.collapse import effective_rank, mean_other_cosine


def units(n: int, width: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 999))
def test_figures_are_their_definitions(n: int, width: int, seed: int) -> None:
    x = units(n, width, seed)
    assert effective_rank(x) == pytest.approx(float(of_torch(torch.from_numpy(x))))
    cosines = [float(x[i] @ x[j]) for i in range(n) for j in range(n) if i != j]
    assert mean_other_cosine(x) == pytest.approx(np.mean(cosines))


def test_a_point_is_seen() -> None:
    x = np.repeat(units(1, 5, 0), 7, axis=0)
    assert effective_rank(x) == pytest.approx(1)
    assert mean_other_cosine(x) == pytest.approx(1)
    assert effective_rank(np.eye(6)) == pytest.approx(6)
    assert mean_other_cosine(np.eye(6)) == pytest.approx(0)

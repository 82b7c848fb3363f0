import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import UsageError
from sonant.metrics.agreement import centred, cosine, pmi, unit
from sonant.metrics.ranking import roc_auc


def embeddings(seed: int, clips: int = 7, bank: int = 5, width: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [unit(rng.normal(size=(n, width))) for n in (clips, clips, bank, bank)]


def test_scores_are_their_formulas_pair_by_pair() -> None:
    x, y, bank_x, bank_y = embeddings(0)
    for i in range(len(x)):
        row = [x[i] @ other for other in bank_y]
        column = [other @ y[i] for other in bank_x]
        assert cosine(x, y)[i] == pytest.approx(x[i] @ y[i])
        want = x[i] @ y[i] - np.mean(row) - np.mean(column)
        assert centred(x, y, bank_x, bank_y)[i] == pytest.approx(want)
        partition = np.mean(np.exp(np.divide(row, 0.1))) * np.mean(np.exp(np.divide(column, 0.1)))
        want = x[i] @ y[i] / 0.1 - np.log(partition)
        assert pmi(x, y, bank_x, bank_y, 0.1)[i] == pytest.approx(want)


@given(st.integers(0, 2**32 - 1))
def test_corrections_do_not_see_a_bank_repeated(seed: int) -> None:
    x, y, bank_x, bank_y = embeddings(seed)
    twice = np.repeat(bank_x, 2, axis=0), np.repeat(bank_y, 2, axis=0)
    np.testing.assert_allclose(centred(x, y, *twice), centred(x, y, bank_x, bank_y), atol=1e-12)
    np.testing.assert_allclose(pmi(x, y, *twice, 0.07), pmi(x, y, bank_x, bank_y, 0.07), atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_modalities_change_places(seed: int) -> None:
    x, y, bank_x, bank_y = embeddings(seed)
    assert cosine(x, y) == pytest.approx(cosine(y, x))
    assert centred(x, y, bank_x, bank_y) == pytest.approx(centred(y, x, bank_y, bank_x))
    assert pmi(x, y, bank_x, bank_y, 0.5) == pytest.approx(pmi(y, x, bank_y, bank_x, 0.5))
    assert (np.abs(cosine(x, y)) <= 1 + 1e-12).all()


def test_corrections_recover_a_pairing_that_offsets_hide() -> None:
    """Each sound is near to every picture by an amount of its own, beside what the pair shares."""
    rng = np.random.default_rng(0)
    truth, offset = rng.random(600) < 0.5, rng.normal(size=(600, 1)) * 5
    shared, noise = rng.normal(size=(2, 600, 4))
    x = np.hstack([shared, offset])
    y = np.hstack([np.where(truth[:, None], shared, noise), np.ones((600, 1))])
    bank = rng.permutation(600)[:300]
    raw = roc_auc(truth, cosine(x, y))
    assert roc_auc(truth, centred(x, y, x[bank], y[bank])) > raw + 0.1
    assert roc_auc(truth, pmi(x, y, x[bank], y[bank], 2.0)) > raw + 0.1


def test_bad_embeddings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"1 of 2 embeddings are all zeros, the first is row 1"):
        unit(np.array([[1.0, 0], [0, 0]]))
    assert np.isnan(unit(np.array([[np.nan, np.nan], [3, 4]]))[0]).all()
    with pytest.raises(UsageError, match=r"positive, not 0\.0"):
        pmi(*embeddings(0), 0.0)

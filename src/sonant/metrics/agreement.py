"""How well two modalities of a clip agree: cosine, and two ways to take off what is not the pair's.

InfoNCE does not see a constant added to a row of similarities, so raw cosines carry offsets: some
sounds are near to everything. Both corrections measure a clip's row and column against a bank of
other clips, usually those of the training split.

Sums are float64 and scores are rounded to `DECIMALS`. Equal embeddings so have equal scores, and
what tells nothing apart is at chance, not sorted by the rounding of its sums.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64
from scipy.special import logsumexp

from sonant.errors import UsageError

DECIMALS = 9
"""Of scores; embeddings, which are float32, have seven."""
CHUNK = 1024
"""Clips compared with the bank at once."""


def unit(x: Float[np.ndarray, "clips width"]) -> Float64[np.ndarray, "clips width"]:
    """Rows scaled to length 1; rows of NaN (missing) stay so.

    Raises:
        UsageError: a row is all zeros and so has no direction.
    """
    x = x.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length == 0).any():
        raise UsageError(
            f"{int((length == 0).sum())} of {len(x)} embeddings are all zeros, the first is row "
            f"{int(np.argmin(length))}; they have no cosine"
        )
    return np.asarray(x / length)


def cosine(
    x: Float[np.ndarray, "clips width"], y: Float[np.ndarray, "clips width"]
) -> Float[np.ndarray, " clips"]:
    """Cosine of each clip's two embeddings (unit rows), from -1 to 1: MC3's score."""
    return tied(np.einsum("cw,cw->c", x, y))


def centred(
    x: Float[np.ndarray, "clips width"],
    y: Float[np.ndarray, "clips width"],
    bank_x: Float[np.ndarray, "bank_x width"],
    bank_y: Float[np.ndarray, "bank_y width"],
) -> Float[np.ndarray, " clips"]:
    """Cosine minus its clip's mean cosine with the bank, in both directions.

    s(x_i, y_i) - mean_b s(x_i, bank_y_b) - mean_b s(bank_x_b, y_i), all rows of unit length.
    """
    return tied(cosine(x, y) - x @ bank_y.mean(0) - y @ bank_x.mean(0))


def pmi(
    x: Float[np.ndarray, "clips width"],
    y: Float[np.ndarray, "clips width"],
    bank_x: Float[np.ndarray, "bank_x width"],
    bank_y: Float[np.ndarray, "bank_y width"],
    temperature: float,
) -> Float[np.ndarray, " clips"]:
    """Pointwise mutual information, as a model trained by InfoNCE at this temperature sees it.

    With t the temperature: s(x_i, y_i) / t - log mean_b exp(s(x_i, bank_y_b) / t) - log mean_b
    exp(s(bank_x_b, y_i) / t). The means, not sums, make it independent of the bank's size.

    Raises:
        UsageError: the temperature is not positive.
    """
    if not temperature > 0:
        raise UsageError(f"a temperature is positive, not {temperature}")
    ways = _log_mean(x, bank_y, temperature) + _log_mean(y, bank_x, temperature)
    return tied(cosine(x, y) / temperature - ways)


def tied(scores: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """Scores without the last decimals, in which equal ones may differ."""
    return np.asarray(np.round(scores, DECIMALS))


def _log_mean(
    x: Float[np.ndarray, "clips width"], bank: Float[np.ndarray, "bank width"], temperature: float
) -> Float[np.ndarray, " clips"]:
    parts = [
        logsumexp(x[begin : begin + CHUNK] @ bank.T / temperature, axis=1)
        for begin in range(0, len(x), CHUNK)
    ]
    return np.asarray(np.concatenate([*parts, np.zeros(0)]) - np.log(len(bank)))

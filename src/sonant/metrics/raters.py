"""How far annotators agree beyond chance, from the votes that each clip got in each category."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from sonant.errors import UsageError

Counts = Integer[np.ndarray, "subjects categories"]
Weights = Float[np.ndarray, "draws subjects"]
Draws = Float[np.ndarray, " draws"]


def pair_agreement(counts: Counts) -> Float[np.ndarray, " subjects"]:
    """Share of the pairs of votes on each subject that are alike, from 0 to 1 (Fleiss' P_i).

    Args:
        counts: how many votes each subject got in each category, at least two a subject.

    Raises:
        UsageError: there is no subject, or one has fewer than two votes.
    """
    votes = counts.sum(1)
    if not len(votes) or votes.min() < 2:
        raise UsageError(
            f"agreement needs subjects with two votes or more; there are {len(votes)} subjects"
            + (f", and {votes.min()} votes on row {int(np.argmin(votes))}" if len(votes) else "")
        )
    pairs = votes * (votes - 1)
    return np.asarray(((counts * (counts - 1)).sum(1)) / pairs)


def percent_agreement(counts: Counts) -> float:
    """Mean over subjects of `pair_agreement`, from 0 to 1."""
    return float(pair_agreement(counts).mean())


def fleiss_kappa(counts: Counts) -> float:
    """Agreement of many raters beyond chance, 1 if whole, 0 at chance (Fleiss 1971, eqs. 2-7).

    Args:
        counts: how many votes each subject got in each category, as many a subject.

    Returns:
        NaN where all votes are of one category, so that chance agrees wholly too.

    Raises:
        UsageError: there is no subject, one has fewer than two votes, or another number than the
            first.
    """
    return float(fleiss_kappas(counts, np.ones((1, len(counts))))[0])


def fleiss_kappas(counts: Counts, weights: Weights) -> Draws:
    """`fleiss_kappa` of many draws at once, each subject counted as often as its weight says."""
    alike = pair_agreement(counts)
    votes = counts.sum(1)
    if (votes != votes[0]).any():
        other = int(np.argmax(votes != votes[0]))
        raise UsageError(
            f"Fleiss' kappa needs as many votes on every subject; there are {votes[0]} on the "
            f"first and {votes[other]} on row {other}: leave out those with votes missing"
        )
    total = weights.sum(1)
    observed = _over(weights @ alike, total)
    shares = _over(weights @ counts, votes[0] * total)
    return np.asarray(_beyond(observed, (shares**2).sum(1)))


def krippendorff_alpha(counts: Counts) -> float:
    """Agreement beyond chance where votes are missing: nominal alpha (Krippendorff 2004, ch. 11).

    Subjects with fewer than two votes say nothing and are left out. With as many votes on every
    subject, 1 - alpha is 1 - kappa times 1 - 1 / votes in all.

    Args:
        counts: how many votes each subject got in each category.

    Returns:
        NaN where no subject has two votes, or all votes are of one category.
    """
    paired = counts[counts.sum(1) > 1]
    votes, pairs = paired.sum(1), paired.sum()
    if not pairs:
        return float("nan")
    unlike = ((votes**2 - (paired**2).sum(1)) / (votes - 1)).sum() / pairs
    totals = paired.sum(0)
    expected = (pairs**2 - (totals**2).sum()) / (pairs * (pairs - 1))
    return float(1 - unlike / expected) if expected else float("nan")


def _over(x: np.ndarray, total: Draws) -> np.ndarray:
    """Rows over their totals, NaN where a total is 0."""
    below = total.reshape(-1, *[1] * (x.ndim - 1))
    return np.asarray(np.divide(x, below, out=np.full(x.shape, np.nan), where=below > 0))


def _beyond(observed: Draws, chance: Draws) -> Draws:
    out = np.full(len(observed), np.nan)
    return np.asarray(np.divide(observed - chance, 1 - chance, out=out, where=1 - chance > 1e-12))

"""Losses as pure functions of embeddings: rows are clips, and no model, rank or batch order enters.

Rows of all arguments are paired: row i of each is the same clip.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonant.errors import UsageError, above_zero
from sonant.types import Modality

_FLOOR = 1e-6
"""Least (x + 1) / 2 inside K: x ** 0.5 has infinite slope at zero."""

_ROUNDING = 32
"""Machine epsilons that a column's mean may be off by, as a share of the column's length."""


def info_nce(
    x: Float[Tensor, "clips width"], y: Float[Tensor, "clips width"], temperature: float
) -> Float[Tensor, ""]:
    """Tell each row's partner from all other rows, both ways (InfoNCE; MC3 eq. 1).

    For each row t of x: -log(exp(x_t·y_t / τ) / Σ_l exp(x_t·y_l / τ)), a mean over rows; plus the
    same with x and y exchanged. Rows are taken as they come: unit length is the caller's.
    """
    logits = _products(x, y) / temperature
    partner = torch.arange(len(x), device=x.device)
    return F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)


def contrastive(
    e: Mapping[Modality, Float[Tensor, "clips width"]], temperature: float
) -> Float[Tensor, ""]:
    """`info_nce` summed over every unordered pair of modalities (MC3 sec. 4.2).

    Raises:
        UsageError: there are fewer than two modalities.
    """
    if len(e) < 2:
        raise UsageError(f"contrastive needs two modalities or more, not {_names(e)}")
    pairs = combinations(e.values(), 2)
    return torch.stack([info_nce(x, y, temperature) for x, y in pairs]).sum()


def consensus(
    e: Mapping[Modality, Float[Tensor, "clips width"]],
    anchor: Modality,
    exponents: Mapping[Modality, float],
    *,
    inverse: Literal["winner", "plain"] = "winner",
    detach: bool = False,
    norm: Literal["l1", "l2"] = "l1",
) -> Float[Tensor, ""]:
    """Draw every modality's agreement with the anchor to the least of them (MC3 eqs. 2 and 3).

    With s_i = e_i·e_a and K_i(x) = ((x + 1) / 2) ** α_i, the consensus of a clip is
    c = K⁻¹(min_i K_i(s_i)), and its loss Σ_i |s_i - c|, i over all modalities but the anchor a.
    The mean over clips is returned. c is differentiated like everything else unless `detach`.

    Args:
        e: unit rows for each modality.
        anchor: the modality a.
        exponents: α_i > 0 for each modality but the anchor; an anchor's is ignored.
        inverse: K⁻¹ of the modality that attains the minimum ("winner": c is that modality's s,
            whose own term is therefore 0), or K⁻¹ with exponent 1 ("plain": c = 2 min K - 1).
        detach: hold c fixed in the gradient.
        norm: |s - c| ("l1"), or its square ("l2").

    Raises:
        UsageError: the anchor is not among the modalities, or an exponent is missing or not
            above 0.
    """
    others = [modality for modality in e if modality != anchor]
    if anchor not in e or not others:
        raise UsageError(f"consensus needs the anchor {anchor} and another, not {_names(e)}")
    if missing := [modality for modality in others if modality not in exponents]:
        raise UsageError(f"consensus has no exponent for {', '.join(missing)}")
    above_zero(**{f"exponent of {modality}": exponents[modality] for modality in others})
    s = torch.stack([(e[modality] * e[anchor]).sum(1) for modality in others])
    alpha = s.new_tensor([exponents[modality] for modality in others])
    k = ((s + 1) / 2).clamp(min=_FLOOR) ** alpha[:, None]
    low = k.min(0)
    c = s.gather(0, low.indices[None])[0] if inverse == "winner" else 2 * low.values - 1
    distance = (s - (c.detach() if detach else c)).abs()
    return (distance if norm == "l1" else distance**2).sum(0).mean()


def nt_xent(views: Sequence[Float[Tensor, "clips width"]], temperature: float) -> Float[Tensor, ""]:
    """Tell the other views of a clip from everything else in the batch (SimCLR eq. 1).

    Rows are normalised inside. An anchor is any row of any view, its positives are the same row of
    the other views, and its denominator runs over all rows of all views but the anchor itself. The
    mean is over anchors and positives.

    Raises:
        UsageError: there are fewer than two views.
    """
    if len(views) < 2:
        raise UsageError(f"nt_xent needs two views or more, not {len(views)}")
    rows = F.normalize(torch.cat(list(views)), dim=1)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = (_products(rows, rows) / temperature).masked_fill(itself, -torch.inf)
    clip = torch.arange(len(views[0]), device=rows.device).repeat(len(views))
    positive = (clip[:, None] == clip) & ~itself
    return -logits.log_softmax(1)[positive].mean()


def self_contrast(
    v: Float[Tensor, "clips width"], a: Float[Tensor, "clips width"], temperature: float
) -> Float[Tensor, ""]:
    """Contrast each clip's two modalities across and within modalities (AVCL eqs. 7 to 10).

    As written: cosines (eq. 8), denominators that hold the positive and both modalities of all
    other clips, and sums over the batch. That is 2N times `nt_xent` of the two.
    """
    return 2 * len(v) * nt_xent([v, a], temperature)


def cross_correlation(
    x: Float[Tensor, "clips width"],
    y: Float[Tensor, "clips width"],
    off_diagonal: float,
    *,
    centred: bool = False,
) -> Float[Tensor, ""]:
    """Draw the correlations of x's columns with y's to the identity matrix (AVCL eqs. 5 and 6).

    Σ_i (1 - C_ii)² + λ Σ_i Σ_{j≠i} C_ij², where C_ij is the cosine of columns x_i and y_j. A column
    that is zero throughout (a closed gate, or when centred a dead unit, whose value never changes)
    correlates with nothing and gets no gradient.

    Args:
        x: one modality.
        y: the other.
        off_diagonal: the weight λ.
        centred: subtract each column's mean first: Barlow Twins, whose columns are standardised
            with the biased variance.
    """
    c = _products(_unit_columns(x, centred).T, _unit_columns(y, centred).T)
    diagonal = torch.eye(len(c), dtype=torch.bool, device=c.device)
    return ((1 - c[diagonal]) ** 2).sum() + off_diagonal * (c[~diagonal] ** 2).sum()


def _unit_columns(x: Float[Tensor, "clips width"], centred: bool) -> Float[Tensor, "clips width"]:
    """Columns of length 1, or of zeros where all that is there is rounding."""
    rounding = _ROUNDING * torch.finfo(x.dtype).eps * x.detach().norm(dim=0)
    x = x - x.mean(0) if centred else x
    length = x.norm(dim=0)
    alive = length > rounding
    return torch.where(alive, x / length.where(alive, 1.0), 0.0)


def _products(
    x: Float[Tensor, "rows width"], y: Float[Tensor, "columns width"]
) -> Float[Tensor, "rows columns"]:
    """Dot products in the precision of the rows, under autocast too: τ divides their error."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ y.T


def _names(e: Mapping[Modality, Tensor]) -> str:
    return ", ".join(e) or "none"

"""Losses as pure functions of embeddings: rows are clips, and no model, rank or batch order enters.

Rows of all arguments are paired: row i of each is the same clip.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sonant.errors import UsageError, above_zero
from sonant.types import Modality

Pair = tuple[Modality, Modality]
There = Mapping[Modality, Bool[Tensor, "clips"]]

_FLOOR = 1e-6
"""Least (x + 1) / 2 inside K: x ** 0.5 has infinite slope at zero."""

_ROUNDING = 32
"""Machine epsilons that a column's mean may be off by, as a share of the column's length."""


def info_nce(
    x: Float[Tensor, "clips width"], y: Float[Tensor, "clips width"], temperature: float
) -> Float[Tensor, ""]:
    """Tell each row's partner from all other rows, both ways (InfoNCE; MC3 eq. 1).

    For each row t of x: -log(exp(x_t·y_t / τ) / Σ_l exp(x_t·y_l / τ)), a mean over rows; plus the
    same with x and y exchanged. Rows are taken as they come: unit length is the caller's. Without
    rows it is 0.
    """
    logits = products(x, y) / temperature
    if not len(x):
        return logits.sum()
    partner = torch.arange(len(x), device=x.device)
    return F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)


def contrastive(
    e: Mapping[Modality, Float[Tensor, "clips width"]],
    temperature: float,
    *,
    pairs: Iterable[Pair] | None = None,
    groups: Int[Tensor, "clips"] | None = None,
    there: There | None = None,
) -> Float[Tensor, ""]:
    """`info_nce` summed over pairs of modalities, by default every unordered one (MC3 sec. 4.2).

    A clip that lacks a modality takes part in the pairs that it has, as if the batch of a pair held
    only clips with both; a pair that no clip has adds nothing.

    Args:
        e: unit rows for each modality; those of clips that lack it are not looked at.
        temperature: τ.
        pairs: the pairs to contrast.
        groups: take `group_nce` with these groups instead.
        there: for modalities that some clips lack, which clips have them, bool [clips].

    Raises:
        UsageError: there are fewer than two modalities, or a pair is not among them.
    """
    wanted = list(combinations(e, 2) if pairs is None else pairs)
    if not wanted or not {modality for pair in wanted for modality in pair} <= e.keys():
        said = " and ".join("-".join(pair) for pair in wanted) or "two modalities or more"
        raise UsageError(f"contrastive needs {said}, not {_names(e)}")
    terms = []
    for pair in wanted:
        rows = having(pair, there)
        x, y = (e[modality][rows] for modality in pair)
        terms.append(
            info_nce(x, y, temperature)
            if groups is None
            else group_nce(x, y, groups[rows], temperature)
        )
    return torch.stack(terms).sum()


def having(modalities: Iterable[Modality], there: There | None) -> Bool[Tensor, "clips"] | slice:
    """The rows of clips that have all of some modalities."""
    masks = [there[modality] for modality in modalities if modality in there] if there else []
    return torch.stack(masks).all(0) if masks else slice(None)


def agreement_cross_entropy(
    x: Float[Tensor, "clips width"],
    y: Float[Tensor, "clips width"],
    chances: Float[Tensor, "clips"],
) -> Float[Tensor, ""]:
    """Cross entropy of (1 + cosine) / 2 with the chance that two modalities agree; a mean.

    The cosine is taken a millionth nearer to 0, so that even opposite rows have a finite loss, and
    a gradient that draws them together.

    Args:
        x: unit rows.
        y: unit rows of the same clips.
        chances: 0 to 1. Without any clip the loss is 0.
    """
    if not len(x):
        return x.sum() + y.sum()
    cosines = (x * y).sum(1)
    cosines = (1 - 1e-6) * cosines.to(torch.promote_types(cosines.dtype, torch.float32))
    p = chances.to(cosines.dtype)
    return -(p * ((1 + cosines) / 2).log() + (1 - p) * ((1 - cosines) / 2).log()).mean()


def consensus(
    e: Mapping[Modality, Float[Tensor, "clips width"]],
    anchor: Modality,
    exponents: Mapping[Modality, float],
    *,
    inverse: Literal["winner", "plain"] = "winner",
    detach: bool = False,
    norm: Literal["l1", "l2"] = "l1",
    there: There | None = None,
) -> Float[Tensor, ""]:
    """Draw every modality's agreement with the anchor to the least of them (MC3 eqs. 2 and 3).

    With s_i = e_i·e_a and K_i(x) = ((x + 1) / 2) ** α_i, the consensus of a clip is
    c = K⁻¹(min_i K_i(s_i)), and its loss Σ_i |s_i - c|, i over all modalities but the anchor a.
    The mean over clips is returned. c is differentiated like everything else unless `detach`.

    Only clips that have all the modalities take part; without any the loss is 0.

    Args:
        e: unit rows for each modality; those of clips that lack it are not looked at.
        anchor: the modality a.
        exponents: α_i > 0 for each modality but the anchor; an anchor's is ignored.
        inverse: K⁻¹ of the modality that attains the minimum ("winner": c is that modality's s,
            whose own term is therefore 0), or K⁻¹ with exponent 1 ("plain": c = 2 min K - 1).
        detach: hold c fixed in the gradient.
        norm: |s - c| ("l1"), or its square ("l2").
        there: for modalities that some clips lack, which clips have them, bool [clips].

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
    rows = having(e, there)
    s = torch.stack([(e[modality][rows] * e[anchor][rows]).sum(1) for modality in others])
    alpha = s.new_tensor([exponents[modality] for modality in others])
    k = ((s + 1) / 2).clamp(min=_FLOOR) ** alpha[:, None]
    low = k.min(0)
    c = s.gather(0, low.indices[None])[0] if inverse == "winner" else 2 * low.values - 1
    distance = (s - (c.detach() if detach else c)).abs()
    distance = distance if norm == "l1" else distance**2
    return distance.sum(0).mean() if distance.shape[1] else distance.sum()


def group_nce(
    x: Float[Tensor, "clips width"],
    y: Float[Tensor, "clips width"],
    groups: Int[Tensor, "clips"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Like `info_nce`, with every row of the same group a partner (EgoNCE; Lin et al. 2022, eq. 2).

    For each row t of x: -log(Σ_p exp(x_t·y_p / τ) / Σ_l exp(x_t·y_l / τ)), p over the rows of t's
    group; plus the same with x and y exchanged.

    Args:
        x: one modality.
        y: the other.
        groups: number of each clip's group, such as its verb and noun; a clip of a negative number
            is the only one of its group.
        temperature: τ.
    """
    itself = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    partners = ((groups[:, None] == groups) & (groups[:, None] >= 0)) | itself
    logits = products(x, y) / temperature
    found = logits.masked_fill(~partners, -torch.inf)
    both_ways = [found.logsumexp(d) - logits.logsumexp(d) for d in (0, 1)]
    return -torch.stack(both_ways).sum() / max(1, len(x))


def relational(
    x: Float[Tensor, "clips width"],
    y: Float[Tensor, "clips width"],
    target: Float[Tensor, "clips clips"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Make the rows of x relate to those of y as `target` says, whose gradient is not taken.

    KL(softmax(target / τ) ‖ softmax(x·y / τ)) over rows, a mean, plus the same over columns. With
    the products of sound and narration as the target, sound and sight are told not only which clip
    is whose, but which others are alike in what is heard and said.

    Args:
        x: one modality; its rows are the target's.
        y: the other; its rows are the target's columns.
        target: products of another pair of modalities, row i and column i of the same clip.
        temperature: τ, of both.
    """
    logits, wanted = products(x, y) / temperature, target.detach() / temperature
    found = [
        F.kl_div(logits.log_softmax(d), wanted.log_softmax(d), log_target=True, reduction="sum")
        for d in (0, 1)
    ]
    return torch.stack(found).sum() / max(1, len(x))


def products(
    x: Float[Tensor, "rows width"], y: Float[Tensor, "columns width"]
) -> Float[Tensor, "rows columns"]:
    """Dot products in the precision of the rows, under autocast too: τ divides their error."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ y.T


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
    logits = (products(rows, rows) / temperature).masked_fill(itself, -torch.inf)
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
    c = products(_unit_columns(x, centred).T, _unit_columns(y, centred).T)
    diagonal = torch.eye(len(c), dtype=torch.bool, device=c.device)
    return ((1 - c[diagonal]) ** 2).sum() + off_diagonal * (c[~diagonal] ** 2).sum()


def negative_cosine(
    p: Float[Tensor, "clips width"], z: Float[Tensor, "clips width"]
) -> Float[Tensor, ""]:
    """Predict each row's partner: the mean of -cos(p, z), whose gradient by z is not taken.

    SimSiam's distance (Chen and He 2021, eq. 1, with the stopped gradient of eq. 3). BYOL's (Grill
    et al. 2020, eq. 2) is 2 + 2 of it.
    """
    with torch.autocast(p.device.type, enabled=False):
        return -F.cosine_similarity(p, z.detach(), dim=1).mean()


def key_nce(
    queries: Float[Tensor, "clips width"],
    keys: Float[Tensor, "clips width"],
    others: Float[Tensor, "others width"],
    temperature: float,
    *,
    leave: Bool[Tensor, "clips others"] | None = None,
) -> Float[Tensor, ""]:
    """Tell each query's own key from other keys (MoCo; He et al. 2020, eq. 1).

    -log exp(q·k / τ) / (exp(q·k / τ) + Σ_o exp(q·o / τ)), a mean over queries. Rows are taken as
    they come: unit length is the caller's. Without others it is 0.

    Args:
        queries: those that ask.
        keys: row i is query i's.
        others: what it is to be told from, such as a queue or rows of a memory bank.
        temperature: τ.
        leave: the others that a query does not meet, such as what the bank holds of its own clip.
    """
    met = products(queries, others) / temperature
    if leave is not None:
        met = met.masked_fill(leave, -torch.inf)
    own = (queries * keys).sum(1, keepdim=True) / temperature
    return -torch.cat([own, met], 1).log_softmax(1)[:, 0].mean()


def _unit_columns(x: Float[Tensor, "clips width"], centred: bool) -> Float[Tensor, "clips width"]:
    """Columns of length 1, or of zeros where all that is there is rounding."""
    rounding = _ROUNDING * torch.finfo(x.dtype).eps * x.detach().norm(dim=0)
    x = x - x.mean(0) if centred else x
    length = x.norm(dim=0)
    alive = length > rounding
    return torch.where(alive, x / length.where(alive, 1.0), 0.0)


def _names(e: Mapping[Modality, Tensor]) -> str:
    return ", ".join(e) or "none"

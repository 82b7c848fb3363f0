"""Posterior consensus: what sounds, as sound and narration tell after alignment, all learn to say.

Beyond the paper: MC3's consensus asks each clip's cosines to be alike. Here the cosines of sound
with narration that alignment leaves decide how probable it is that a clip's action sounds, once
and for all clips, and refining teaches sight, and narration again, to agree with sound just so far.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.cluster import Rows, to_tensor
from sonant.data import Array
from sonant.distributed import dealt, gather
from sonant.errors import SonantError, at_least
from sonant.media.text import Tokenizer
from sonant.methods.method import Opening, Recipe
from sonant.methods.pairs import SOUND_SIGHT, SOUND_WORDS, Pairs
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import agreement_cross_entropy, having
from sonant.types import MODALITIES, Batch, Modality, Stage

UNKNOWN = -2.0
"""Stands for the cosine, and the chance, of a clip that lacks sound or narration."""


class Posterior(Pairs):
    """Align every pair of modalities, then refine towards how probably each clip sounds.

    Where refining begins, a mixture of two normal distributions is fitted to all clips' cosines of
    sound with narration; a clip's chance to be of the upper one is its target. Contrast of all
    pairs goes on beside it. A clip without sound or narration has no target.

    Args:
        towers: modality to tower.
        stages: "align" and "refine".
        temperature: τ of InfoNCE.
        weight: of the cross entropy.

    Raises:
        UsageError: the temperature is not above 0.
    """

    sounding: Tensor

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        temperature: float,
        weight: float,
    ) -> None:
        pairs = list(combinations(MODALITIES, 2))
        super().__init__(towers, stages, {"align": pairs, "refine": pairs}, temperature=temperature)
        at_least(0, **{"weight of posterior consensus": weight})
        self.weight = weight

    @property
    def clip_buffers(self) -> tuple[str, ...]:
        """How probably each clip sounds."""
        return ("sounding",)

    def attach(self, clips: Clips) -> None:
        """Make room for the targets."""
        super().attach(clips)
        where = next(self.parameters()).device
        self.register_buffer("sounding", torch.full((len(clips),), UNKNOWN, device=where))

    def survey(self, batch: Batch) -> dict[str, Tensor]:
        """The cosine [clips, 1] of sound with narration."""
        e = self.embed(batch)
        cosines = (e["audio"] * e["text"]).sum(1, keepdim=True)
        for modality in (m for m in SOUND_WORDS if m in batch.there):
            cosines = cosines.where(batch.there[modality][:, None], UNKNOWN)
        return {"cosine": cosines}

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> Opening | None:
        """Fit the mixture, where refining begins.

        Raises:
            SonantError: no clip has sound and narration, or their cosines are of one kind.
        """
        if stage.name != "refine" or not stage.epochs:
            return None
        own = to_tensor(features()["cosine"][:])[:, 0]
        cosines = dealt(own, len(self.sounding)).cpu().double().numpy()
        known = cosines != UNKNOWN
        chances, means = posterior(cosines[known])
        self.sounding[torch.from_numpy(known)] = torch.from_numpy(chances).to(self.sounding)
        said = f"cosines of sound with narration around {means[0]:.3f} and {means[1]:.3f}"
        share = float(chances.mean())
        line = {"posterior": {"low": means[0], "high": means[1], "sounding": share}}
        return Opening(said=f"{stage.name}: {said}; {share:.0%} of the clips sound", line=line)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of all pairs, and the cross entropy when refining."""
        e, there = self.gathered(batch)
        terms = {"contrastive": self.contrast(e, there, batch, stage)}
        if stage.name == "refine":
            chances = self.sounding[gather(batch.index)]
            told = []
            for first, second in (SOUND_SIGHT, SOUND_WORDS):
                rows = having((first, second), there)
                known = chances[rows] > UNKNOWN
                x, y = e[first][rows][known], e[second][rows][known]
                told.append(agreement_cross_entropy(x, y, chances[rows][known]))
            terms["posterior"] = self.weight * torch.stack(told).sum()
        return terms


def posterior(cosines: Float64[Array, "clips"]) -> tuple[Float64[Array, "clips"], list[float]]:
    """Each clip's chance to be of the upper of two normal distributions, and their means.

    Expectation maximisation begins at the quartiles, so that equal cosines give equal chances. Far
    out the wider of the two would be the likelier on either side; so a cosine beyond a mean has
    the chance that is had at that mean, and chances never fall where cosines rise.

    Raises:
        SonantError: there are none, one is not finite, fewer than two differ, or all are likelier
            of the same distribution.
    """
    from sklearn.mixture import GaussianMixture

    if not len(cosines) or not np.isfinite(cosines).all():
        what = "one that is not finite" if len(cosines) else "none"
        raise SonantError(f"of the cosines of sound with narration there is {what}")
    if (kinds := len(np.unique(cosines))) > 1:
        begun = np.quantile(cosines, [0.25, 0.75])[:, None]
        mixture = GaussianMixture(2, means_init=begun, random_state=0).fit(cosines[:, None])
        low, high = sorted(mixture.means_[:, 0].tolist())
        within = cosines.clip(low, high)[:, None]
        chances = mixture.predict_proba(within)[:, int(mixture.means_.argmax())]
        if chances.min() < 0.5 < chances.max():
            return chances, [low, high]
    raise SonantError(
        f"the cosines of sound with narration of {len(cosines)} clips, {kinds} of them different, "
        "are not of two kinds: align for longer"
    )


def posterior_consensus(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 3,
    refine_epochs: int = 2,
    posterior_weight: float = 40.0,
    temperature: float = 0.05,
    align_rate: float = 3e-5,
    refine_rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """Posterior consensus with the paper's towers.

    Args:
        tokenizer: of the training narrations.
        align_epochs: with the contrastive term only.
        refine_epochs: with the cross entropy beside it.
        posterior_weight: of the cross entropy.
        temperature: τ.
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        parts: towers, views and optimisation.
    """
    method = Posterior(
        parts.towers(tokenizer),
        (Stage("align", align_epochs), Stage("refine", refine_epochs)),
        temperature=temperature,
        weight=posterior_weight,
    )
    return parts.recipe(tokenizer, method, (align_rate, refine_rate))


posterior_consensus_small = small(
    posterior_consensus,
    "Posterior consensus with small towers, for a processor.",
    align_epochs=8,
    refine_epochs=5,
    temperature=0.07,
    align_rate=1e-3,
    refine_rate=5e-4,
)

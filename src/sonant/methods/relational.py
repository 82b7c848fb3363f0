"""Relational consensus: sound and sight agree on which clips are alike, as sound and narration do.

Beyond the paper: MC3's consensus compares a clip's modalities with each other. Here whole batches
are compared: how each clip's sound relates to all other clips' narrations is what its relation to
their pictures should be. docs/relational.md says what is gained, and by which control.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.distributed import gather
from sonant.errors import above_zero
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe
from sonant.methods.pairs import SIGHT_WORDS, SOUND_SIGHT, SOUND_WORDS
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import Pair, contrastive, having, products, relational
from sonant.types import Batch, Embeddings, Modality, Stage


class Relational(Method):
    """Align every pair of modalities, then refine sound-sight towards another pair's relations.

    Args:
        towers: modality to tower.
        stages: "align" and "refine"; a stage of any other name aligns.
        temperature: τ of all terms.
        weight: of the relational term.
        target: the pair whose relations are followed; its first modality stands for sound's rows,
            its second for sight's columns. Others than sound and narration are controls.
        sharpening: factor of the target's products.
        shuffled: exchange the target's columns between clips, as a control.
        keep: contrast sound with sight when refining, too.
    """

    partial = True

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        temperature: float,
        weight: float,
        posterior_weight: float = 0.0,
        target: Pair = SOUND_WORDS,
        sharpening: float = 1.0,
        shuffled: bool = False,
        keep: bool = True,
    ) -> None:
        super().__init__(towers, stages)
        above_zero(temperature=temperature, sharpening=sharpening)
        self.temperature = temperature
        self.weight = weight
        self.posterior_weight = posterior_weight
        self.target = target
        self.sharpening = sharpening
        self.shuffled = shuffled
        self.keep = keep

    def attach(self, clips: Clips) -> None:
        if self.posterior_weight:
            device = next(self.parameters()).device
            self.register_buffer("sounds", torch.zeros(len(clips), device=device))

    def begin(self, stage: Stage, features: Callable[[], Embeddings]) -> None:
        if stage.name == "refine" and self.posterior_weight:
            e = features()
            s = (e["audio"] * e["text"]).sum(1).cpu().numpy()
            self.get_buffer("sounds").copy_(torch.from_numpy(posterior(s)))

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of the pairs, and the relational term when refining."""
        e, there = self.gathered(batch)
        if stage.name != "refine":
            return {"contrastive": contrastive(e, self.temperature, there=there)}
        pairs = [SOUND_WORDS, SIGHT_WORDS, *([SOUND_SIGHT] if self.keep else [])]
        terms = {"contrastive": contrastive(e, self.temperature, pairs=pairs, there=there)}
        rows = having({*self.target, *SOUND_SIGHT}, there)
        if self.weight:
            x, y = (e[modality][rows].detach() for modality in self.target)
            if self.shuffled:
                y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
            relations = self.sharpening * products(x, y)
            terms["relational"] = self.weight * relational(
                e["audio"][rows], e["video"][rows], relations, self.temperature
            )
        if self.posterior_weight:
            sounds = self.get_buffer("sounds")[gather(batch.index)]
            both = [
                F.binary_cross_entropy(
                    (((e["audio"] * e[m]).sum(1) + 1) / 2).clamp(1e-6, 1 - 1e-6), sounds
                )
                for m in ("video", "text")
            ]
            terms["posterior"] = self.posterior_weight * torch.stack(both).sum()
        return terms


def posterior(s):
    mixture = GaussianMixture(
        2, random_state=0, means_init=[[np.quantile(s, 0.25)], [np.quantile(s, 0.75)]]
    )
    mixture.fit(s[:, None])
    high = int(np.argmax(mixture.means_[:, 0]))
    return mixture.predict_proba(s[:, None])[:, high].astype(np.float32)


def relational_consensus(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 3,
    refine_epochs: int = 2,
    relational_weight: float = 8.0,
    posterior_weight: float = 0.0,
    temperature: float = 0.05,
    target: tuple[Modality, Modality] = ("audio", "text"),
    sharpening: float = 1.0,
    shuffled: bool = False,
    keep: bool = True,
    align_rate: float = 3e-5,
    refine_rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """Relational consensus, with the paper's towers.

    Args:
        tokenizer: of the training narrations.
        align_epochs: with the contrastive term only.
        refine_epochs: with the relational term beside it.
        relational_weight: of the relational term.
        temperature: τ.
        target: the pair whose relations sound and sight are to follow; others are controls.
        sharpening: factor of the target's products.
        shuffled: exchange the target's columns between clips, as a control.
        keep: contrast sound with sight when refining, too.
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        parts: towers, views and optimisation.
    """
    method = Relational(
        parts.towers(tokenizer),
        (Stage("align", align_epochs), Stage("refine", refine_epochs)),
        temperature=temperature,
        weight=relational_weight,
        posterior_weight=posterior_weight,
        target=target,
        sharpening=sharpening,
        shuffled=shuffled,
        keep=keep,
    )
    return parts.recipe(tokenizer, method, (align_rate, refine_rate))


relational_consensus_small = small(
    relational_consensus,
    "Relational consensus with small towers, for a processor.",
    align_epochs=8,
    refine_epochs=5,
    temperature=0.07,
    align_rate=1e-3,
    refine_rate=5e-4,
)

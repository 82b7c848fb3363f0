"""Refine by contrasting how well all three modalities agree: the least cosine, a volume, an area.

Beyond the paper: MC3's consensus draws a clip's cosines to their least. Here that least, or another
measure of agreement, is what must be higher for a clip's own modalities than for mixed ones.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from sonant.errors import above_zero
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import (
    Agreement,
    area,
    contrastive,
    having,
    minimum,
    product,
    soft_minimum,
    tuple_nce,
    volume,
)
from sonant.types import Batch, Modality, Stage

AGREEMENTS: Mapping[str, Agreement] = {
    "minimum": minimum,
    "soft-minimum": soft_minimum,
    "product": product,
    "volume": volume,
    "area": area,
}


class Agreeing(Method):
    """Align every pair of modalities, then refine by InfoNCE over their agreement beside it.

    Args:
        towers: modality to tower.
        stages: "align" and "refine"; a stage of any other name aligns.
        agreement: of three cosines.
        anchor: the modality whose rows ask.
        temperature: τ of all terms.
        weight: of the agreement's term.
    """

    partial = True

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        agreement: Agreement,
        anchor: Modality,
        temperature: float,
        weight: float,
    ) -> None:
        super().__init__(towers, stages)
        above_zero(temperature=temperature)
        self.agreement, self.anchor = agreement, anchor
        self.temperature, self.weight = temperature, weight

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of the pairs, and of the agreement when refining."""
        e, there = self.gathered(batch)
        terms = {"contrastive": contrastive(e, self.temperature, there=there)}
        if stage.name == "refine":
            rows = having(e, there)
            whole = {modality: x[rows] for modality, x in e.items()}
            found = tuple_nce(whole, self.anchor, self.agreement, self.temperature)
            terms["agreement"] = self.weight * found
        return terms


def agree(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 3,
    refine_epochs: int = 2,
    agreement: Literal["minimum", "soft-minimum", "product", "volume", "area"] = "minimum",
    agreement_weight: float = 4.0,
    anchor: Modality = "audio",
    temperature: float = 0.05,
    align_rate: float = 3e-5,
    refine_rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """Contrast of three modalities' agreement, with the paper's towers.

    Args:
        tokenizer: of the training narrations.
        align_epochs: with the contrastive term only.
        refine_epochs: with the agreement's term beside it.
        agreement: of the three cosines: their least, a smooth least, their product, less the volume
            that the three embeddings span (GRAM), or less the area between their tips (TRIANGLE).
        agreement_weight: of the agreement's term.
        anchor: the modality whose rows ask.
        temperature: τ.
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        parts: towers, views and optimisation.
    """
    method = Agreeing(
        parts.towers(tokenizer),
        (Stage("align", align_epochs), Stage("refine", refine_epochs)),
        agreement=AGREEMENTS[agreement],
        anchor=anchor,
        temperature=temperature,
        weight=agreement_weight,
    )
    return parts.recipe(tokenizer, method, (align_rate, refine_rate))


agree_small = small(
    agree,
    "Contrast of three modalities' agreement, with small towers, for a processor.",
    align_epochs=8,
    refine_epochs=5,
    temperature=0.07,
    align_rate=1e-3,
    refine_rate=5e-4,
)

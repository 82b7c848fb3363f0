"""Relational consensus: sound and sight agree on which clips are alike, as sound and narration do.

Beyond the paper: MC3's consensus compares a clip's modalities with each other. Here whole batches
are compared: how a clip's sound relates to all clips' narrations is what its relation to their
pictures should be. That sight is not told that its own sound belongs to it, whatever is heard,
leaves it free to disagree where the action is silent. docs/relational.md has the controls.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import Tensor, nn

from sonant.distributed import gather
from sonant.errors import above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.method import Recipe
from sonant.methods.pairs import SIGHT_WORDS, SOUND_SIGHT, SOUND_WORDS, Pairs
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import Pair, having, products, relational
from sonant.types import MODALITIES, Batch, Modality, Stage


class Relational(Pairs):
    """Align every pair of modalities, then refine sound-sight towards another pair's relations.

    When refining, narration is contrasted with sound and with sight as before, and the relational
    term takes the place of the contrast of sound with sight.

    Args:
        towers: modality to tower.
        stages: "align" and "refine".
        temperature: τ of all terms.
        weight: of the relational term.
        target: the pair whose relations are followed; its first modality stands for sound's rows,
            its second for sight's columns. Others than sound and narration are controls.
        sharpening: factor of the target's products.
        shuffled: give each clip another's column of the target, as a control.
        contrast: contrast sound with sight when refining, too.
        groups: as in `Pairs`.

    Raises:
        UsageError: the temperature or the sharpening is not above 0.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        temperature: float,
        weight: float,
        target: Pair = SOUND_WORDS,
        sharpening: float = 1.0,
        shuffled: bool = False,
        contrast: bool = False,
        groups: Sequence[str] = (),
    ) -> None:
        refining = [SOUND_WORDS, SIGHT_WORDS, *([SOUND_SIGHT] if contrast else [])]
        pairs = {"align": list(combinations(MODALITIES, 2)), "refine": refining}
        super().__init__(towers, stages, pairs, temperature=temperature, groups=groups)
        above_zero(sharpening=sharpening)
        at_least(0, **{"weight of relational consensus": weight})
        self.weight = weight
        self.target = target
        self.sharpening = sharpening
        self.shuffled = shuffled

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of the stage's pairs, and the relational term when refining."""
        e, there = self.gathered(batch)
        terms = {"contrastive": self.contrast(e, there, batch, stage)}
        if stage.name == "refine":
            rows = having({*self.target, *SOUND_SIGHT}, there)
            x, y = (e[modality][rows] for modality in self.target)
            if self.shuffled:
                order = gather(batch.index)[rows].argsort()
                y = y[order.roll(len(order) // 2)][order.argsort()]
            sound, sight = (e[modality][rows] for modality in SOUND_SIGHT)
            followed = self.sharpening * products(x, y)
            found = relational(sound, sight, followed, self.temperature)
            terms["relational"] = self.weight * found
        return terms


def relational_consensus(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 3,
    refine_epochs: int = 2,
    relational_weight: float = 8.0,
    temperature: float = 0.05,
    target: tuple[Modality, Modality] = SOUND_WORDS,
    sharpening: float = 1.0,
    shuffled: bool = False,
    contrast: bool = False,
    groups: Sequence[str] = (),
    align_share: float = 0.5,
    align_rate: float = 3e-5,
    refine_rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """Relational consensus with the paper's towers.

    Args:
        tokenizer: of the training narrations.
        align_epochs: with the contrastive term only.
        refine_epochs: with the relational term in the place of the contrast of sound with sight.
        relational_weight: of the relational term.
        temperature: τ.
        target: the pair whose relations sound and sight are to follow; others are controls.
        sharpening: factor of the target's products.
        shuffled: give each clip another's column of the target, as a control.
        contrast: contrast sound with sight when refining, too.
        groups: label columns that together make clips each other's partners (EgoNCE).
        align_share: of the aligned weights, in those that refining ends with: a half is their mean
            with the refined ones (as WiSE-FT, Wortsman et al., 2022), 0 the refined ones alone.
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        parts: towers, views and optimisation.
    """
    method = Relational(
        parts.towers(tokenizer),
        (
            Stage("align", align_epochs),
            Stage("refine", refine_epochs, begun_share=align_share),
        ),
        temperature=temperature,
        weight=relational_weight,
        target=target,
        sharpening=sharpening,
        shuffled=shuffled,
        contrast=contrast,
        groups=groups,
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

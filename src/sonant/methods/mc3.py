"""MC3: multimodal contrastive-consensus coding (Chen et al., SoundingActions, CVPR 2024)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sonant.data import Views
from sonant.distributed import gather
from sonant.encoders.small import SmallAudio, SmallText, SmallVideo
from sonant.errors import above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Precision, Recipe, Tower
from sonant.objectives import consensus, contrastive
from sonant.types import Batch, Modality, Stage


class MC3(Method):
    """Align every pair of modalities, then refine towards their consensus.

    Args:
        towers: modality to tower.
        stages: "align" and "refine"; a stage of any other name aligns.
        temperature: τ of the contrastive term (eq. 1).
        anchor: the modality that the others are compared with (eq. 2).
        exponents: α of the other modalities (eq. 2).
        weight: of the consensus term beside the contrastive one; the paper's is 1 (eq. 4).
        inverse: see `sonant.objectives.consensus`.
        detach: likewise.
        norm: likewise.

    Raises:
        UsageError: the temperature or an exponent is not above 0.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        temperature: float = 0.07,
        anchor: Modality = "audio",
        exponents: Mapping[Modality, float],
        weight: float = 1.0,
        inverse: Literal["winner", "plain"] = "winner",
        detach: bool = False,
        norm: Literal["l1", "l2"] = "l1",
    ) -> None:
        super().__init__(towers, stages)
        above_zero(temperature=temperature)
        above_zero(**{f"exponent of {modality}": x for modality, x in exponents.items()})
        self.temperature = temperature
        self.anchor = anchor
        self.exponents = dict(exponents)
        self.weight = weight
        self.inverse: Literal["winner", "plain"] = inverse
        self.detach = detach
        self.norm: Literal["l1", "l2"] = norm

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """The contrastive term (eq. 1), and the weighted consensus term (eq. 3) when refining."""
        e = {modality: gather(x) for modality, x in self.embed(batch).items()}
        terms = {"contrastive": contrastive(e, self.temperature)}
        if stage.name == "refine":
            terms["consensus"] = self.weight * consensus(
                e,
                self.anchor,
                self.exponents,
                inverse=self.inverse,
                detach=self.detach,
                norm=self.norm,
            )
        return terms


def mc3_small(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 8,
    refine_epochs: int = 5,
    consensus_weight: float = 120.0,
    temperature: float = 0.07,
    anchor: Modality = "audio",
    video_exponent: float = 0.5,
    text_exponent: float = 1.0,
    audio_exponent: float = 1.0,
    inverse: Literal["winner", "plain"] = "winner",
    detach: bool = False,
    norm: Literal["l1", "l2"] = "l1",
    frames: int = 8,
    size: int = 64,
    jitter: int = 4,
    seconds: float = 1.5,
    tokens: int = 16,
    width: int = 128,
    batch: int = 128,
    align_rate: float = 1e-3,
    refine_rate: float = 5e-4,
    weight_decay: float = 0.0,
    precision: Precision = "fp32",
    seed: int = 0,
) -> Recipe:
    """MC3 with small towers, for a processor.

    Args:
        tokenizer: of the training narrations.
        align_epochs: with the contrastive term only.
        refine_epochs: with the consensus term beside it. The paper has five in all.
        consensus_weight: the paper's is 1, with which consensus hardly changes these towers'
            result; 120 was best on validation (LOG.md).
        temperature: τ; the paper gives none.
        anchor: the modality that the others are compared with.
        video_exponent: α of video, the paper's.
        text_exponent: α of narration, the paper's.
        audio_exponent: α of audio where another modality is the anchor.
        inverse: how consensus undoes the exponents; see `sonant.objectives.consensus`.
        detach: hold the consensus fixed in the gradient.
        norm: distance to the consensus, or its square ("l2").
        frames: of video a clip.
        size: pixels a side.
        jitter: most pixels that the crop moves in training; the mirror is thrown in.
        seconds: length of a clip's sound.
        tokens: longest narration; the rest is cut off.
        width: of the shared space.
        batch: clips a step over all ranks.
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        weight_decay: of AdamW.
        precision: of the towers in training.
        seed: of the weights, the order and the crops.
    """
    towers, views = small_parts(
        tokenizer,
        frames=frames,
        size=size,
        jitter=jitter,
        seconds=seconds,
        tokens=tokens,
        width=width,
        seed=seed,
    )
    exponents: dict[Modality, float] = {
        "audio": audio_exponent,
        "video": video_exponent,
        "text": text_exponent,
    }
    method = MC3(
        towers,
        (Stage("align", align_epochs), Stage("refine", refine_epochs)),
        temperature=temperature,
        anchor=anchor,
        exponents=exponents,
        weight=consensus_weight,
        inverse=inverse,
        detach=detach,
        norm=norm,
    )
    return Recipe(
        method=method,
        views=views,
        batch=batch,
        learning_rates=(align_rate, refine_rate),
        weight_decay=weight_decay,
        precision=precision,
        seed=seed,
    )


def small_parts(
    tokenizer: Tokenizer,
    *,
    frames: int,
    size: int,
    jitter: int,
    seconds: float,
    tokens: int,
    width: int,
    seed: int,
) -> tuple[dict[Modality, nn.Module], Views]:
    """One small tower for each modality, initialised from the seed alone, and what they look at."""
    views = Views(
        tokenizer=tokenizer,
        frames=frames,
        size=size,
        jitter=jitter,
        seconds=seconds,
        tokens=tokens,
    )
    at_least(1, width=width)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        towers: dict[Modality, nn.Module] = {
            "audio": Tower(SmallAudio(), width),
            "video": Tower(SmallVideo(), width),
            "text": Tower(SmallText(vocabulary=tokenizer.size, tokens=tokens), width),
        }
    return towers, views

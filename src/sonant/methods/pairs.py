"""Methods that contrast pairs of modalities: CLAP, audio-video InfoNCE, CMC, ImageBind.

They are the baselines of MC3 (Chen et al., CVPR 2024, Table 2), with its towers.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.distributed import gather
from sonant.errors import UsageError, above_zero
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import Pair, There, contrastive
from sonant.types import MODALITIES, Batch, Embeddings, Modality, Stage

SOUND_SIGHT: Pair = ("audio", "video")
SOUND_WORDS: Pair = ("audio", "text")
SIGHT_WORDS: Pair = ("video", "text")

ONE_STAGE: dict[str, Any] = {"epochs": 13, "temperature": 0.07, "rate": 1e-3}
"""Of the small twins."""


class Pairs(Method):
    """Contrast pairs of modalities, which ones depending on the stage.

    Args:
        towers: modality to tower.
        stages: the parts of training.
        pairs: for each stage by name, the pairs that it contrasts.
        temperature: τ of InfoNCE.
        groups: label columns that together say which clips are alike, such as verb and noun: all
            alike are then partners (EgoNCE; Lin et al., 2022). Without any, a clip is its own only
            partner.

    Raises:
        UsageError: the temperature is not above 0.
    """

    partial = True

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        pairs: Mapping[str, Sequence[Pair]],
        *,
        temperature: float,
        groups: Sequence[str] = (),
    ) -> None:
        super().__init__(towers, stages)
        above_zero(temperature=temperature)
        self.pairs = {name: tuple(wanted) for name, wanted in pairs.items()}
        self.temperature = temperature
        self.groups = tuple(groups)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the groups."""
        return self.groups

    def attach(self, clips: Clips) -> None:
        """Number the groups that the clips belong to."""
        if self.groups:
            numbers = torch.tensor(group_numbers(clips, self.groups))
            device = next(self.parameters()).device
            self.register_buffer("group", numbers.to(device), persistent=False)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of the stage's pairs."""
        wanted = {modality for pair in self.pairs[stage.name] for modality in pair}
        return {"contrastive": self.contrast(*self.gathered(batch, wanted), batch, stage)}

    def contrast(
        self, e: Embeddings, there: There, batch: Batch, stage: Stage
    ) -> Float[Tensor, ""]:
        """The term of gathered embeddings; `there` says which clips have what some lack."""
        pairs = self.pairs[stage.name]
        groups = self.get_buffer("group")[gather(batch.index)] if self.groups else None
        return contrastive(e, self.temperature, pairs=pairs, groups=groups, there=there)


def group_numbers(clips: Clips, labels: Sequence[str]) -> list[int]:
    """A number for each combination of labels; -1 where one is null.

    Raises:
        UsageError: a label is not in the table, or no clip has all of them.
    """
    if missing := [label for label in labels if label not in clips.labels]:
        raise UsageError(
            f"groups are made of labels that the clips have: {', '.join(clips.labels) or 'none'}; "
            f"not {', '.join(missing)}"
        )
    values = list(zip(*(clips.column(label).tolist() for label in labels), strict=True))
    known = sorted({value for value in values if None not in value}, key=str)
    if not known:
        raise UsageError(f"no clip has all of the labels {', '.join(labels)} to be grouped by")
    numbers = {value: number for number, value in enumerate(known)}
    return [numbers.get(value, -1) for value in values]


def clap(
    tokenizer: Tokenizer,
    *,
    epochs: int = 5,
    temperature: float = 0.05,
    rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """CLAP's objective, sound with narration, with MC3's towers.

    Args:
        tokenizer: of the training narrations.
        epochs: of the one stage.
        temperature: τ; CLAP learns it, here it is that of the other methods.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    return _one_stage(tokenizer, [SOUND_WORDS], epochs, temperature, rate, (), parts)


def av(
    tokenizer: Tokenizer,
    *,
    epochs: int = 5,
    temperature: float = 0.05,
    rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """InfoNCE of sound with sight, with MC3's towers.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    return _one_stage(tokenizer, [SOUND_SIGHT], epochs, temperature, rate, (), parts)


def cmc(
    tokenizer: Tokenizer,
    *,
    epochs: int = 5,
    temperature: float = 0.05,
    groups: Sequence[str] = (),
    rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """CMC, every pair of modalities contrasted, with MC3's towers.

    Args:
        tokenizer: of the training narrations.
        epochs: of the one stage.
        temperature: τ.
        groups: label columns that together make clips each other's partners (EgoNCE).
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    pairs = list(combinations(MODALITIES, 2))
    return _one_stage(tokenizer, pairs, epochs, temperature, rate, groups, parts)


def imagebind(
    tokenizer: Tokenizer,
    *,
    text_epochs: int = 3,
    audio_epochs: int = 2,
    temperature: float = 0.05,
    text_rate: float = 3e-5,
    audio_rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """ImageBind's order with MC3's towers: narration bound to sight, then sound to frozen sight.

    Args:
        tokenizer: of the training narrations.
        text_epochs: of binding narration and sight.
        audio_epochs: of binding sound, sight and narration standing still.
        temperature: τ.
        text_rate: peak learning rate of the first stage.
        audio_rate: peak learning rate of the second; its tower begins there.
        parts: towers, views and optimisation.
    """
    stages = (
        Stage("bind text", text_epochs, frozenset({"video", "text"})),
        Stage("bind audio", audio_epochs, frozenset({"audio"})),
    )
    pairs = {"bind text": [SIGHT_WORDS], "bind audio": [SOUND_SIGHT]}
    method = Pairs(parts.towers(tokenizer), stages, pairs, temperature=temperature)
    return parts.recipe(tokenizer, method, (text_rate, audio_rate))


clap_small = small(
    clap,
    "CLAP's objective, sound with narration, with small towers, for a processor.",
    **ONE_STAGE,
)
av_small = small(
    av, "InfoNCE of sound with sight, with small towers, for a processor.", **ONE_STAGE
)
cmc_small = small(
    cmc,
    "CMC, every pair of modalities contrasted, with small towers, for a processor.",
    **ONE_STAGE,
)
imagebind_small = small(
    imagebind,
    "ImageBind's order with small towers: narration bound to sight, then sound to frozen sight.",
    text_epochs=8,
    audio_epochs=5,
    temperature=0.07,
    text_rate=1e-3,
    audio_rate=1e-3,
)


def _one_stage(
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    epochs: int,
    temperature: float,
    rate: float,
    groups: Sequence[str],
    parts: Parts,
) -> Recipe:
    modalities = {modality for pair in pairs for modality in pair}
    method = Pairs(
        parts.towers(tokenizer, [m for m in MODALITIES if m in modalities]),
        (Stage("align", epochs),),
        {"align": pairs},
        temperature=temperature,
        groups=groups,
    )
    return parts.recipe(tokenizer, method, (rate,))

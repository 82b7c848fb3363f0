"""Methods on locked encoders: their vectors are computed once, and only small heads are trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from sonant.data import Locked, Views
from sonant.distributed import device
from sonant.encoders.locked import (
    LONGEST,
    HubSound,
    OnVectors,
    YamNet,
    picture_encoder,
    sound_encoder,
    text_encoder,
)
from sonant.errors import at_least
from sonant.media.text import Tokenizer
from sonant.methods.mc3 import MC3
from sonant.methods.method import Method, Precision, Recipe, Tower
from sonant.types import MODALITIES, Modality, Stage


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Heads on locked encoders, for a laptop."""

    audio: str = "yamnet"
    """locked encoder of sound: yamnet, a YAMNet .tflite file, or a CLAP of transformers."""
    video: str = "efficientnet-lite0"
    """locked encoder of pictures: efficientnet-lite0, or a CLIP or SigLIP of transformers."""
    text: str = "minilm"
    """locked encoder of narrations: minilm, or a CLAP, CLIP, SigLIP or sentence encoder."""
    frames: int = 4
    """of video a clip."""
    size: int = 112
    """pixels a side that are taken of a frame; the encoder scales them to its own."""
    seconds: float = 1.5
    """length of a clip's sound."""
    hidden: int = 256
    """units of each head."""
    width: int = 128
    """of the shared space."""
    batch: int = 128
    """clips a step over all ranks."""
    weight_decay: float = 0.0
    """of AdamW."""
    precision: Precision = "fp32"
    """of the heads in training."""
    seed: int = 0
    """of the weights and the order."""

    @cached_property
    def locked(self) -> dict[Modality, Locked]:
        """The encoders, on this process's device."""
        here = device()
        return {
            "audio": sound_encoder(self.audio, here),
            "video": picture_encoder(self.video, here),
            "text": text_encoder(self.text, here),
        }

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = MODALITIES
    ) -> dict[Modality, nn.Module]:
        """A head for each of the modalities, initialised from the seed alone."""
        at_least(1, width=self.width, hidden=self.hidden)
        at_least(0, seed=self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            made: dict[Modality, nn.Module] = {
                m: Tower(OnVectors(self.locked[m], width=self.hidden), self.width)
                for m in MODALITIES
            }
        return {modality: made[modality] for modality in modalities}

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        return Recipe(
            method=method,
            views=Views(
                tokenizer=tokenizer,
                frames=self.frames,
                size=self.size,
                seconds=self.seconds,
                tokens=LONGEST,
                rate=self.rate,
                locked=self.locked,
            ),
            batch=self.batch,
            learning_rates=learning_rates,
            weight_decay=self.weight_decay,
            precision=self.precision,
            seed=self.seed,
        )

    @property
    def rate(self) -> int:
        """Samples a second that the encoder of sound hears."""
        heard = self.locked["audio"]
        assert isinstance(heard, YamNet | HubSound)
        return heard.rate


def mc3_frozen(
    tokenizer: Tokenizer,
    *,
    align_epochs: int = 20,
    refine_epochs: int = 10,
    consensus_weight: float = 120.0,
    contrast: bool = True,
    temperature: float = 0.07,
    anchor: Modality = "audio",
    video_exponent: float = 0.5,
    text_exponent: float = 1.0,
    audio_exponent: float = 1.0,
    inverse: Literal["winner", "plain"] = "winner",
    detach: bool = False,
    norm: Literal["l1", "l2"] = "l1",
    align_rate: float = 1e-3,
    refine_rate: float = 5e-4,
    parts: Frozen = Frozen(),
) -> Recipe:
    """MC3 on locked encoders, whose vectors are computed once: for a laptop.

    Args:
        tokenizer: of the training narrations; the locked encoder has its own.
        align_epochs: with the contrastive term only.
        refine_epochs: with the consensus term beside it.
        consensus_weight: of the consensus term; the paper's is 1. With 0 there is no consensus.
        contrast: keep the contrastive term when refining.
        temperature: τ; the paper gives none.
        anchor: the modality that the others are compared with.
        video_exponent: α of video, the paper's.
        text_exponent: α of narration, the paper's.
        audio_exponent: α of audio where another modality is the anchor.
        inverse: how consensus undoes the exponents; see `sonant.objectives.consensus`.
        detach: hold the consensus fixed in the gradient.
        norm: distance to the consensus, or its square ("l2").
        align_rate: peak learning rate when aligning.
        refine_rate: peak learning rate when refining.
        parts: encoders, heads, views and optimisation.
    """
    exponents: dict[Modality, float] = {
        "audio": audio_exponent,
        "video": video_exponent,
        "text": text_exponent,
    }
    method = MC3(
        parts.towers(tokenizer),
        (Stage("align", align_epochs), Stage("refine", refine_epochs)),
        temperature=temperature,
        anchor=anchor,
        exponents=exponents,
        weight=consensus_weight,
        contrast=contrast,
        inverse=inverse,
        detach=detach,
        norm=norm,
    )
    return parts.recipe(tokenizer, method, (align_rate, refine_rate))

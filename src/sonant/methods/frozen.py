"""Methods on locked encoders: their vectors are computed once, and only small heads are trained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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
from sonant.methods.mc3 import mc3
from sonant.methods.method import Method, Precision, Recipe, Tower, drawn_by
from sonant.methods.parts import twin
from sonant.types import MODALITIES, Modality


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

    @property
    def locked(self) -> Mapping[Modality, Locked]:
        """The encoders, on this process's device."""
        return _encoders(self.audio, self.video, self.text, device())

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = MODALITIES
    ) -> dict[Modality, nn.Module]:
        """A head for each of the modalities, initialised from the seed alone."""
        at_least(1, width=self.width, hidden=self.hidden)
        at_least(0, seed=self.seed)
        with drawn_by(self.seed):
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


@lru_cache(maxsize=1)
def _encoders(audio: str, video: str, text: str, here: torch.device) -> Mapping[Modality, Locked]:
    """Loaded once for the heads and the views of a recipe, and for the next recipe on the same."""
    return {
        "audio": sound_encoder(audio, here),
        "video": picture_encoder(video, here),
        "text": text_encoder(text, here),
    }


mc3_frozen = twin(
    mc3,
    f"{__name__}:mc3_frozen",
    "MC3 on locked encoders, whose vectors are computed once: for a laptop.",
    align_epochs=20,
    refine_epochs=10,
    consensus_weight=120.0,
    temperature=0.07,
    align_rate=1e-3,
    refine_rate=5e-4,
    parts=Frozen(),
)

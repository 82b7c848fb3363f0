"""AVCL's towers: two 3-D networks of one shape, over frames and over the whole sound's mel.

Lan, Liu, Lin, Audio-Visual Contrastive Learning for Self-supervised Action Recognition, 2022,
section III-B.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from sonant.data import Array, Shapes, Views
from sonant.distributed import gather, ranks
from sonant.encoders.conv3d import (
    C3D_FRAMES,
    FromFrames,
    FromSpectrogram,
    Network,
    avcl_c3d,
    avcl_r2plus1d,
    avcl_r3d,
)
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.audio import AVCL_RATE, avcl, resample, stretch
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Precision, Recipe, drawn_by
from sonant.types import Modality

Backbone = Literal["c3d", "r3d", "r2plus1d"]
Sound = Literal["whole", "middle", "wave"]
"""What is made of the sound (Table I): the mel of all of it, that of its middle, or its wave."""
MIDDLE, MIDDLE_HOP = 1.2, 0.005
"""Seconds of sound in the middle, and between two windows of its mel."""
SIGHT_SOUND: tuple[Modality, Modality] = ("video", "audio")


@dataclass(frozen=True, kw_only=True)
class Films:
    """AVCL's networks, each modality with weights of its own unless said, and their views."""

    backbone: Backbone = "r3d"
    """of both modalities: C3D, R3D or R(2+1)D."""
    models: Literal[1, 2] = 2
    """networks: one for each modality, or the same for both (Table I)."""
    planes: int = 64
    """channels of the first stage; the features are 8 times as many."""
    frames: int = 16
    """of video, consecutive ones; where in the clip they begin is drawn anew in training."""
    frame_rate: float = 25.0
    """frames a second, which the pack must have; the paper gives none."""
    size: int = 112
    """pixels a side."""
    jitter: int = 8
    """most pixels that the crop moves in training, out of 128 a side; the mirror is thrown in."""
    sound: Sound = "whole"
    """what is heard: the mel of the whole, that of the middle 1.2 s, or the wave (Table I)."""
    mel: int = 256
    """steps and bands of the sound's spectrogram, or lines and samples in a line of its wave."""
    mel_crop: int = 112
    """steps and bands that are heard of a spectrogram: any in training, those in the middle in
    evaluation; of a wave, all is heard."""
    repeats: int = 1
    """how often that picture is repeated to be a film; C3D wants 8 or more, such as 16."""
    seconds: float = 10.0
    """length of a clip."""
    batch: int = 16
    """clips a step over all ranks."""
    sgd_momentum: float = 0.9
    """of the optimiser, SGD; the paper's."""
    weight_decay: float = 5e-4
    """of the optimiser; the paper's."""
    clip_norm: float = 1e6
    """longest gradient; the paper shortens none, and neither does so high a bound."""
    precision: Precision = "fp32"
    """of the towers in training."""
    seed: int = 0
    """of the weights, the order and the crops."""

    @property
    def width(self) -> int:
        """Features of a tower: 512 at the paper's width."""
        return 8 * self.planes

    def towers(
        self, tokenizer: Tokenizer, modalities: Iterable[Modality] = SIGHT_SOUND
    ) -> dict[Modality, nn.Module]:
        """A network for each of the modalities, initialised from the seed alone.

        A modality's network is the same whichever others are wanted. Batch statistics are those of
        all ranks. One model for both modalities has one set of weights, and running statistics of
        each: in training, too, either is normalised by its own.

        Raises:
            UsageError: a modality is neither audio nor video, or the film of a spectrogram is too
                short for C3D.
        """
        wanted = list(modalities)
        if foreign := [m for m in wanted if m not in SIGHT_SOUND]:
            raise UsageError(f"AVCL's networks see and hear; there is none for {foreign[0]}")
        at_least(2, planes=self.planes)
        at_least(1, repeats=self.repeats)
        at_least(0, seed=self.seed)
        if self.backbone == "c3d" and min(self.repeats, self.frames) < C3D_FRAMES:
            raise UsageError(
                f"C3D takes films of {C3D_FRAMES} frames or more, so frames and repeats must be as "
                f"many, such as 16, not {self.frames} and {self.repeats}"
            )
        with drawn_by(self.seed):
            seeing, hearing = self._network(), self._network()
        video = over_ranks(FromFrames(seeing, mean=[0.0] * 3, deviation=[1.0] * 3))
        audio = over_ranks(FromSpectrogram(hearing, frames=self.repeats))
        if self.models == 1:
            share_weights(video, audio)
        made: dict[Modality, nn.Module] = {"video": video, "audio": audio}
        return {modality: made[modality] for modality in wanted}

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        at_least(1, frames=self.frames)
        above_zero(frame_rate=self.frame_rate, seconds=self.seconds)
        views = SoundPicture(
            tokenizer=tokenizer,
            frames=max(1, round(self.seconds * self.frame_rate)),
            film=self.frames,
            size=self.size,
            jitter=self.jitter,
            seconds=self.seconds,
            tokens=1,
            rate=AVCL_RATE,
            sound=self.sound,
            mel=self.mel,
            crop=self.mel if self.sound == "wave" else self.mel_crop,
        )
        return Recipe(
            method=method,
            views=views,
            batch=self.batch,
            learning_rates=learning_rates,
            weight_decay=self.weight_decay,
            momentum=self.sgd_momentum,
            clip_norm=self.clip_norm,
            precision=self.precision,
            seed=self.seed,
        )

    def _network(self) -> Network:
        made: Mapping[str, Callable[..., Network]] = {
            "c3d": avcl_c3d,
            "r3d": avcl_r3d,
            "r2plus1d": avcl_r2plus1d,
        }
        if self.backbone not in made:
            raise UsageError(f"backbone must be one of {', '.join(made)}, not {self.backbone!r}")
        return made[self.backbone](planes=self.planes)


@dataclass(frozen=True, kw_only=True)
class SoundPicture(Views):
    """Views of a film in the clip, and of its sound as a square picture, as AVCL has it.

    Args:
        sound: what it is a picture of.
        mel: steps and bands; the front end's 256 are averaged down to fewer (`media.audio.stretch`,
            along both sides). A wave is brought to as many samples and written line by line.
        crop: steps and bands that are heard of these.

    Raises:
        UsageError: a number is out of its range.
    """

    sound: Sound = "whole"
    mel: int
    crop: int
    fewer: ClassVar[str] = "fewer a second (the `--frame-rate` of training)"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, frames=self.film, mel=self.mel, mel_crop=self.crop)
        if self.crop > self.mel:
            raise UsageError(f"no {self.crop} steps can be heard of {self.mel} (`--mel-crop`)")

    @property
    def identities(self) -> dict[str, str]:
        """Also what the sound becomes, so that no other view's spectrograms are taken for these."""
        return super().identities | {"audio": f"avcl {self.sound} {self.mel}"}

    @property
    def shapes(self) -> Shapes:
        """Of a clip's arrays before their crops."""
        return super().shapes | {"audio": (np.float32, (self.mel, self.mel))}

    @property
    def unheard(self) -> int:
        """Steps of a picture, and bands, that its crop leaves out."""
        return self.mel - self.crop

    def audio(self, samples: Float32[Array, "samples"], rate: int) -> Float32[Array, "mel mel"]:
        """Log-mel [time, bands], not normalised; or the wave within -1 to 1."""
        heard = samples[: round(self.seconds * rate)]
        if self.sound == "wave":
            count = self.mel * self.mel
            wave = resample(heard, rate, round(count / self.seconds))[:count]
            return np.pad(wave, (0, count - len(wave))).reshape(self.mel, self.mel)
        if self.sound == "middle":
            first = max(0, (len(heard) - round(MIDDLE * rate)) // 2)
            mel = avcl(heard[first : first + round(MIDDLE * rate)], rate, hop=MIDDLE_HOP)
        else:
            mel = avcl(heard, rate)
        return stretch(stretch(mel, self.mel).T, self.mel).T

    def heard(
        self, picture: Float32[Array, "mel mel"], random: np.random.Generator | None = None
    ) -> Float32[Array, "crop crop"]:
        """A square in the picture: any in training, the middle one without a draw."""
        most = self.unheard
        step, band = (most // 2,) * 2 if random is None else random.integers(0, most + 1, 2)
        return picture[step : step + self.crop, band : band + self.crop]


class SharedBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose statistics in training are those of all ranks' clips.

    With one process it is torch's. (torch's own one over ranks runs on accelerators alone.) Each
    rank gives films of one shape.
    """

    def forward(self, x: Float[Tensor, "n planes t h w"]) -> Float[Tensor, "n planes t h w"]:
        """Normalise."""
        if ranks() == 1 or not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        own = torch.stack([wide.mean((0, 2, 3, 4)), wide.var((0, 2, 3, 4), correction=0)])
        means, variances = gather(own[None]).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._remember(mean.detach(), variance.detach(), ranks() * wide[:, 0].numel())
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (wide * _channels(scale) + _channels(shift)).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, the variance unbiased, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)


def over_ranks(module: nn.Module) -> nn.Module:
    """The module, with `SharedBatchNorm3d` for every batch norm in it."""
    for name, child in module.named_children():
        if isinstance(child, SharedBatchNorm3d):
            continue
        if isinstance(child, nn.BatchNorm3d):
            shared = SharedBatchNorm3d(
                child.num_features, eps=child.eps, momentum=child.momentum
            ).to(child.weight)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared)
        else:
            over_ranks(child)
    return module


def share_weights(first: nn.Module, second: nn.Module) -> None:
    """Let a module have the parameters of another of the same layers; buffers stay its own."""
    for (_, mine), (_, other) in zip(first.named_modules(), second.named_modules(), strict=True):
        for name, parameter in mine.named_parameters(recurse=False):
            setattr(other, name, parameter)


def _channels(x: Float[Tensor, "planes"]) -> Float[Tensor, "planes 1 1 1"]:
    return x.view(-1, 1, 1, 1)

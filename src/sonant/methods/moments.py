"""XDC's towers: R(2+1)D-18 over a short film, a ResNet-18 over the sound around it.

Alwassel et al., Self-Supervised Learning by Cross-Modal Audio-Video Clustering, NeurIPS 2020,
section 4.1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, nn

from sonant.data import Array, Shapes, Views
from sonant.encoders.conv3d import CAFFE2_EPS, FromFrames, VideoResNet, r2plus1d_18
from sonant.encoders.released import fill
from sonant.encoders.resnet import AudioResNet, Geometry
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.audio import VMZ_BINS, VMZ_RATE, xdc
from sonant.media.text import Tokenizer
from sonant.methods.films import SIGHT_SOUND, SharedBatchNorm3d, over_ranks
from sonant.methods.method import Method, Precision, Recipe, drawn_by
from sonant.types import Modality


@dataclass(frozen=True, kw_only=True)
class Moments:
    """XDC's networks and what they take: some consecutive frames, and two seconds of sound."""

    planes: int = 64
    """channels of the first stage of both networks; the features are 8 times as many."""
    geometry: Geometry = "vmz"
    """of the network over sound: VMZ's own, or torchvision's ResNet-18 with one channel in."""
    frames: int = 8
    """of video, consecutive ones; where in the clip they begin is drawn anew in training."""
    frame_rate: float = 30.0
    """frames a second, which the pack must have."""
    size: int = 224
    """pixels a side."""
    jitter: int = 16
    """most pixels that the crop moves in training, out of 256 a side; the mirror is thrown in."""
    mel: int = 100
    """steps of the whole sound's spectrogram, of 40 bands."""
    hop: float = 0.02
    """seconds between them; another number of steps that this gives is stretched to `mel`."""
    seconds: float = 2.0
    """length of a clip."""
    video: str = ""
    """published weights that R(2+1)D-18 begins with, such as xdc-audioset, trained on 32 frames;
    NAME=FILE for a file in their layout."""
    batch: int = 256
    """clips a step over all ranks; the paper gives none."""
    sgd_momentum: float = 0.9
    """of the optimiser, SGD."""
    weight_decay: float = 1e-4
    """of the optimiser; the paper gives none, VMZ's is 0.0001."""
    clip_norm: float = 1e6
    """longest gradient; so high a bound shortens none."""
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
        all ranks.

        Raises:
            UsageError: a modality is neither audio nor video.
        """
        wanted = list(modalities)
        if foreign := [m for m in wanted if m not in SIGHT_SOUND]:
            raise UsageError(f"XDC's networks see and hear; there is none for {foreign[0]}")
        at_least(4, planes=self.planes)
        at_least(0, seed=self.seed)
        with drawn_by(self.seed):
            video = FromFrames(r2plus1d_18("per_conv", planes=self.planes, eps=CAFFE2_EPS))
            audio = AudioResNet(self.geometry, planes=self.planes)
        made: dict[Modality, nn.Module] = {
            "video": over_ranks(video),
            "audio": _pictures_over_ranks(audio),
        }
        return {modality: made[modality] for modality in wanted}

    def recipe(
        self, tokenizer: Tokenizer, method: Method, learning_rates: Sequence[float]
    ) -> Recipe:
        """The method with its views and the way it is optimised; a peak rate for each stage."""
        at_least(1, frames=self.frames)
        above_zero(frame_rate=self.frame_rate, seconds=self.seconds)
        views = Moment(
            tokenizer=tokenizer,
            frames=max(1, round(self.seconds * self.frame_rate)),
            size=self.size,
            jitter=self.jitter,
            seconds=self.seconds,
            tokens=1,
            rate=VMZ_RATE,
            film=self.frames,
            mel=self.mel,
            hop=self.hop,
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
            initialise=partial(self._take, method) if self.video else None,
            seed=self.seed,
        )

    def _take(self, method: Method) -> str:
        """Others' weights into the video network; returns what was taken, in words."""
        if "video" not in method.towers:
            raise UsageError(f"weights {self.video} see, and this method does not")
        film = method.towers["video"]
        assert isinstance(film, FromFrames) and isinstance(film.network, VideoResNet)
        return str(fill(film.network, self.video))


@dataclass(frozen=True, kw_only=True)
class Moment(Views):
    """Views of a film in the clip, wherever it begins (temporal jitter), and of all the sound.

    Args:
        mel: steps of the spectrogram (`media.audio.xdc`).
        hop: seconds between them.

    Raises:
        UsageError: a number is out of its range.
    """

    mel: int
    hop: float
    fewer: ClassVar[str] = "fewer a second (the `--frame-rate` of training)"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, frames=self.film, mel=self.mel)
        above_zero(hop=self.hop)

    @property
    def identities(self) -> dict[str, str]:
        """Also what the sound becomes, so that no other view's spectrograms are taken for these."""
        return super().identities | {"audio": f"xdc {self.mel} every {self.hop:g} s"}

    @property
    def shapes(self) -> Shapes:
        """Of a clip's arrays before the crop."""
        return super().shapes | {"audio": (np.float32, (self.mel, VMZ_BINS))}

    def audio(self, samples: Float32[Array, "samples"], rate: int) -> Float32[Array, "mel 40"]:
        """Log-mel [time, bins] of the whole sound."""
        return xdc(samples[: round(self.seconds * rate)], rate, frames=self.mel, hop=self.hop)


class SharedBatchNorm2d(SharedBatchNorm3d):
    """`SharedBatchNorm3d` for pictures."""

    def forward(self, x: Float[Tensor, "n planes h w"]) -> Float[Tensor, "n planes h w"]:
        """Normalise."""
        return super().forward(x[:, :, None])[:, :, 0]


def _pictures_over_ranks(module: nn.Module) -> nn.Module:
    """The module, with `SharedBatchNorm2d` for every batch norm of pictures in it."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = SharedBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            setattr(module, name, shared.to(child.weight))
        else:
            _pictures_over_ranks(child)
    return module

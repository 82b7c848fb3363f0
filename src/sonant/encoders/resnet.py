"""2-D residual networks over log-mel spectrograms, as XDC has for sound.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016; VMZ's acoustic network.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.encoders.conv3d import head, initialise
from sonant.errors import UsageError, above_zero, at_least

Geometry = Literal["vmz", "torchvision"]


SMALL = 4
"""Points of a map up to which oneDNN's bf16 gradient of the weights can be garbage."""


class Conv2d(nn.Conv2d):
    """A convolution that a processor computes in float32 where its map is next to nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if not x.is_cpu or x.shape[-2] * x.shape[-1] > SMALL:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Block(nn.Module):
    """Two 3 x 3 convolutions and what they are added to."""

    def __init__(self, ins: int, outs: int, stride: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.conv1 = Conv2d(ins, outs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outs, eps=eps, momentum=momentum)
        self.conv2 = Conv2d(outs, outs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outs, eps=eps, momentum=momentum)
        self.downsample = None
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(
                Conv2d(ins, outs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outs, eps=eps, momentum=momentum),
            )

    def forward(self, x: Float[Tensor, "n ins h w"]) -> Float[Tensor, "n outs h2 w2"]:
        """Add both ways."""
        around = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + around)


class AudioResNet(nn.Module):
    """A ResNet-18 over log-mel spectrograms [n, time, bins] of any length.

    Args:
        geometry: `vmz` begins with a 3 x 3 convolution to 16 channels and three blocks of 32,
            halves time and pitch five times in all, and takes the highest value of each channel:
            100 x 40 become 50 x 20, 25 x 10, 13 x 5, 7 x 3 and 4 x 2, which VMZ's pooling of 4 x 2
            fits. `torchvision` is its ResNet-18 with one channel in: 7 x 7, max pooling, and the
            mean at the end.
        classes: scores that a linear layer on top gives; None gives the features themselves.
        planes: channels of the first of the four stages; the others have 2, 4 and 8 times as many.
        eps: added to the variance in every batch norm.
        momentum: weight of a batch in the running statistics, as PyTorch counts it.

    Attributes:
        width: numbers that it gives for a spectrogram.
    """

    def __init__(
        self,
        geometry: Geometry = "vmz",
        classes: int | None = None,
        *,
        planes: int = 64,
        eps: float = 1e-3,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if geometry not in get_args(Geometry):
            names = " or ".join(get_args(Geometry))
            raise UsageError(f"geometry must be {names}, not {geometry!r}")
        at_least(4, planes=planes)
        above_zero(eps=eps)

        def stage(ins: int, outs: int, stride: int, blocks: int = 2) -> nn.Sequential:
            sizes = [(ins, stride)] + [(outs, 1)] * (blocks - 1)
            return nn.Sequential(*(Block(i, outs, s, eps=eps, momentum=momentum) for i, s in sizes))

        self.geometry = geometry
        if geometry == "vmz":
            first = Conv2d(1, planes // 4, 3, padding=1)
            self.stem = nn.Sequential(first, *stage(planes // 4, planes // 2, 2, blocks=3))
            self.layer1 = stage(planes // 2, planes, 2)
        else:
            first = Conv2d(1, planes, 7, stride=2, padding=3, bias=False)
            norm = nn.BatchNorm2d(planes, eps=eps, momentum=momentum)
            self.stem = nn.Sequential(first, norm, nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
            self.layer1 = stage(planes, planes, 1)
        self.layer2 = stage(planes, 2 * planes, 2)
        self.layer3 = stage(2 * planes, 4 * planes, 2)
        self.layer4 = stage(4 * planes, 8 * planes, 2)
        self.width, self.fc = head(8 * planes, classes)
        initialise(self)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """What stages 3 to 5 see (what comes before the four stages counts as the first).

        Args:
            x: log-mel spectrograms [n, time, bins].

        Returns:
            `conv3`, `conv4`, `conv5` [n, planes, t, pitch], and `pool` [n, 8 planes].

        Raises:
            UsageError: not [n, time, bins] in floating-point numbers, or none of them.
        """
        if x.ndim != 3 or not x.is_floating_point() or 0 in x.shape[1:]:
            raise UsageError(
                f"spectrograms must be [n, time, bins] in floating-point numbers, not "
                f"{list(x.shape)} of {x.dtype}"
            )
        conv3 = self.layer2(self.layer1(self.stem(x[:, None])))
        conv4 = self.layer3(conv3)
        conv5 = self.layer4(conv4)
        pool = conv5.amax((2, 3)) if self.geometry == "vmz" else conv5.mean((2, 3))
        return {"conv3": conv3, "conv4": conv4, "conv5": conv5, "pool": pool}

    def forward(self, x: Tensor) -> Float[Tensor, "n features"]:
        """Encode log-mel spectrograms [n, time, bins], such as `media.audio.xdc` makes."""
        out: Tensor = self.fc(self.maps(x)["pool"])
        return out

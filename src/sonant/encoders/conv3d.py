"""3-D convolutional networks: R(2+1)D, R3D and MC3 as XDC and torchvision have them, and AVCL's.

All take films as [n, 3, time, height, width] and give one vector a film. `FromFrames` and
`FromSpectrogram` let them read frames as they are decoded and log-mel spectrograms. Parameters are
named as torchvision names them, so that `sonant.encoders.released` can fill a network with what
XDC, IG-65M and torchvision have published.

Tran et al., A Closer Look at Spatiotemporal Convolutions for Action Recognition, CVPR 2018;
Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks, ICCV 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.errors import UsageError, above_zero, at_least

Kind = Literal["full", "flat", "factorised"]
"""A convolution over time and space; over space alone; over space, then time."""
Midplanes = Literal["per_block", "per_conv"]
Kinds = tuple[Kind, Kind, Kind, Kind]
Kernel = tuple[int, int, int]

FULL: Kinds = ("full", "full", "full", "full")
FACTORISED: Kinds = ("factorised", "factorised", "factorised", "factorised")
STEM_MIDPLANES = 45
"""Channels inside R(2+1)D's stem of 64, in VMZ and torchvision; the paper's formula gives 83."""

MEAN = (0.43216, 0.394666, 0.37645)
DEVIATION = (0.22803, 0.22145, 0.216989)
"""Of red, green and blue in 0 to 1 over Kinetics: what all released weights here were trained on
(VMZ has them as 110.201, 100.640, 95.9966 and 58.1489, 56.4701, 55.3324 of 255)."""
CAFFE2_EPS = 1e-3
"""Added to the variance in every batch norm of the networks that come from VMZ."""
C3D_FRAMES, C3D_SIDE = 8, 16
"""What C3D's pooling leaves one step and one pixel of."""


@runtime_checkable
class Network(Protocol):
    """A network over films: [n, 3, time, height, width] to [n, width], and its maps."""

    width: int

    def __call__(self, x: Tensor, /) -> Tensor:
        """Encode."""
        ...

    def maps(self, x: Tensor, /) -> dict[str, Tensor]:
        """Feature maps `conv3`, `conv4`, `conv5` [n, planes, t, h, w] and `pool` [n, planes]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What tells one residual network from another.

    Args:
        kinds: the convolutions of each of the four stages.
        depths: blocks a stage.
        planes: channels of the first stage; the others have 2, 4 and 8 times as many.
        midplanes: channels between the two halves of a factorised convolution: `per_conv` from its
            own ends (the paper's section 3.5; VMZ, XDC, IG-65M), `per_block` from those of the
            block's first one (torchvision). They differ in the second convolution of a stage's
            first block.
        stem_midplanes: channels inside a factorised stem; 0 where it is not factorised.
        factorised_shortcuts: whether projections around a block are factorised too.
        eps: added to the variance in every batch norm.
        momentum: weight of a batch in the running statistics, as PyTorch counts it.
    """

    kinds: Kinds
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    planes: int = 64
    midplanes: Midplanes = "per_block"
    stem_midplanes: int = 0
    factorised_shortcuts: bool = False
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if self.midplanes not in get_args(Midplanes):
            names = " or ".join(get_args(Midplanes))
            raise UsageError(f"midplanes must be {names}, not {self.midplanes!r}")
        at_least(2, planes=self.planes)
        above_zero(eps=self.eps)

    def norm(self, planes: int) -> nn.BatchNorm3d:
        """A batch norm."""
        return nn.BatchNorm3d(planes, eps=self.eps, momentum=self.momentum)

    def factorised(
        self, ins: int, mids: int, outs: int, kernel: Kernel, stride: Kernel
    ) -> nn.Sequential:
        """A convolution over space, batch norm, ReLU, and one over time."""
        return nn.Sequential(
            convolution(ins, mids, (1, *kernel[1:]), (1, *stride[1:])),
            self.norm(mids),
            nn.ReLU(),
            convolution(mids, outs, (kernel[0], 1, 1), (stride[0], 1, 1)),
        )

    def convolution(self, kind: Kind, ins: int, mids: int, outs: int, stride: int) -> nn.Module:
        """One of a block's two convolutions."""
        match kind:
            case "full":
                return convolution(ins, outs, (3, 3, 3), (stride, stride, stride))
            case "flat":
                return convolution(ins, outs, (1, 3, 3), (1, stride, stride))
            case "factorised":
                return self.factorised(ins, mids, outs, (3, 3, 3), (stride, stride, stride))

    def shortcut(self, kind: Kind, ins: int, outs: int, stride: int) -> nn.Sequential | None:
        """The way around a block; None where its input can be added as it is."""
        if stride == 1 and ins == outs:
            return None
        steps = (1 if kind == "flat" else stride, stride, stride)
        if self.factorised_shortcuts:
            mids = middle(ins, outs, (1, 1, 1))
            project: nn.Module = self.factorised(ins, mids, outs, (1, 1, 1), steps)
        else:
            project = convolution(ins, outs, (1, 1, 1), steps)
        return nn.Sequential(project, self.norm(outs))

    def stem(self) -> nn.Sequential:
        """The first layer: 3 x 7 x 7, halving height and width."""
        outs, mids, kernel, stride = self.planes, self.stem_midplanes, (3, 7, 7), (1, 2, 2)
        if mids:
            layers = list(self.factorised(3, mids, outs, kernel, stride))
        else:
            layers = [convolution(3, outs, kernel, stride)]
        return nn.Sequential(*layers, self.norm(outs), nn.ReLU())

    def stage(self, number: int) -> nn.Sequential:
        """Stage 0, 1, 2 or 3; all but the first halve time (unless flat), height and width."""
        outs = self.planes << number
        ins, stride = (outs // 2, 2) if number else (outs, 1)
        kind = self.kinds[number]
        first = Block(self, kind, ins, outs, stride)
        others = [Block(self, kind, outs, outs, 1) for _ in range(self.depths[number] - 1)]
        return nn.Sequential(first, *others)


def middle(ins: int, outs: int, kernel: Kernel = (3, 3, 3)) -> int:
    """Channels that give a factorised convolution as many weights as a full one (section 3.5)."""
    time, height, width = kernel
    area = height * width
    return time * area * ins * outs // (area * ins + time * outs)


class Conv3d(nn.Conv3d):
    """A convolution that a processor computes in float32, under autocast too.

    In bf16 oneDNN's gradient of the weights is garbage, or writes past its memory, where a kernel
    of three steps meets two (16 frames are two in the last stage, 8 are two in the one before).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if not x.is_cpu:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(self.weight.dtype))


def convolution(ins: int, outs: int, kernel: Kernel, stride: Kernel) -> Conv3d:
    """A convolution without bias, padded so that only its stride changes the size."""
    time, height, width = kernel
    padding = (time // 2, height // 2, width // 2)
    return Conv3d(ins, outs, kernel, stride=stride, padding=padding, bias=False)


class Block(nn.Module):
    """Two convolutions and what they are added to (He et al. 2016, the basic block)."""

    def __init__(self, plan: Plan, kind: Kind, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        first, own = middle(ins, outs), middle(outs, outs)
        second = own if plan.midplanes == "per_conv" else first
        self.conv1 = nn.Sequential(
            plan.convolution(kind, ins, first, outs, stride), plan.norm(outs), nn.ReLU()
        )
        self.conv2 = nn.Sequential(plan.convolution(kind, outs, second, outs, 1), plan.norm(outs))
        self.downsample = plan.shortcut(kind, ins, outs, stride)

    def forward(self, x: Float[Tensor, "n ins t h w"]) -> Float[Tensor, "n outs t2 h2 w2"]:
        """Add both ways."""
        around = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv2(self.conv1(x)) + around)


class VideoResNet(nn.Module):
    """A residual network over films of any length and size.

    Args:
        plan: what it is built of.
        classes: scores that a linear layer on top gives; None gives the features themselves.

    Attributes:
        width: numbers that it gives for a film.
    """

    def __init__(self, plan: Plan, classes: int | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.stem = plan.stem()
        self.layer1, self.layer2, self.layer3, self.layer4 = map(plan.stage, range(4))
        self.width, self.fc = head(8 * plan.planes, classes)
        initialise(self)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """What stages 3 to 5 see (the stem counts as the first), and the last one's mean.

        Args:
            x: normalised films [n, 3, time, height, width].

        Returns:
            `conv3`, `conv4`, `conv5` [n, planes, t, h, w], and `pool` [n, 8 planes].

        Raises:
            UsageError: not films of three channels in floating-point numbers.
        """
        _check_films(x)
        conv3 = self.layer2(self.layer1(self.stem(x)))
        conv4 = self.layer3(conv3)
        conv5 = self.layer4(conv4)
        return {"conv3": conv3, "conv4": conv4, "conv5": conv5, "pool": conv5.mean((2, 3, 4))}

    def forward(self, x: Tensor) -> Float[Tensor, "n features"]:
        """Encode normalised films [n, 3, time, height, width]."""
        out: Tensor = self.fc(self.maps(x)["pool"])
        return out


class C3D(nn.Module):
    """C3D with batch norm, its fully connected layers replaced by the mean over time and space.

    Eight 3 x 3 x 3 convolutions with biases, in five stages of 1, 2, 4, 8 and 8 times `planes`
    channels with max pooling between, which halves height and width four times, time three times.

    Args:
        planes: channels of the first stage.

    Attributes:
        width: numbers that it gives for a film.
    """

    def __init__(self, *, planes: int = 64) -> None:
        super().__init__()
        at_least(1, planes=planes)

        def stage(*channels: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for ins, outs in pairwise(channels):
                layers += [Conv3d(ins, outs, 3, padding=1), nn.BatchNorm3d(outs), nn.ReLU()]
            return nn.Sequential(*layers)

        self.conv1 = stage(3, planes)
        self.conv2 = stage(planes, 2 * planes)
        self.conv3 = stage(2 * planes, 4 * planes, 4 * planes)
        self.conv4 = stage(4 * planes, 8 * planes, 8 * planes)
        self.conv5 = stage(8 * planes, 8 * planes, 8 * planes)
        self.width = 8 * planes
        initialise(self)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """What stages 3 to 5 see, before the pooling that follows, and the last one's mean.

        Args:
            x: films [n, 3, time, height, width].

        Returns:
            `conv3`, `conv4`, `conv5` [n, planes, t, h, w], and `pool` [n, 8 planes].

        Raises:
            UsageError: not films of three channels in floating-point numbers, fewer frames than 8,
                or fewer pixels a side than 16.
        """
        _check_films(x, frames=C3D_FRAMES, side=C3D_SIDE)
        conv2 = self.conv2(F.max_pool3d(self.conv1(x), (1, 2, 2)))
        conv3 = self.conv3(F.max_pool3d(conv2, 2))
        conv4 = self.conv4(F.max_pool3d(conv3, 2))
        conv5 = self.conv5(F.max_pool3d(conv4, 2))
        return {"conv3": conv3, "conv4": conv4, "conv5": conv5, "pool": conv5.mean((2, 3, 4))}

    def forward(self, x: Tensor) -> Float[Tensor, "n features"]:
        """Encode films [n, 3, time, height, width]."""
        return self.maps(x)["pool"]


class FromFrames(nn.Module):
    """Frames as they are decoded, brought to the range that a network was trained on.

    Args:
        network: over films.
        mean: of each colour in 0 to 1; AVCL takes none off.
        deviation: of each colour in 0 to 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: Network,
        *,
        mean: Sequence[float] = MEAN,
        deviation: Sequence[float] = DEVIATION,
    ) -> None:
        super().__init__()
        above_zero(deviation=min(deviation))
        self.network, self.width = network, network.width
        for name, values in {"mean": mean, "deviation": deviation}.items():
            colours = 255 * torch.tensor(values, dtype=torch.float32).view(3, 1, 1, 1)
            self.register_buffer(name, colours, persistent=False)

    def films(self, x: Tensor) -> Float[Tensor, "n 3 t h w"]:
        """Normalised films of frames [n, time, 3, height, width] in 0 to 255.

        Raises:
            UsageError: not such frames.
        """
        if x.ndim != 5 or x.shape[2] != 3 or x.dtype != torch.uint8:
            raise UsageError(
                f"frames must be [n, time, 3, height, width] in 0 to 255 (uint8), not "
                f"{list(x.shape)} of {x.dtype}"
            )
        return (x.transpose(1, 2).to(self.mean.dtype) - self.mean) / self.deviation

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The network's maps."""
        return self.network.maps(self.films(x))

    def forward(self, x: Tensor) -> Float[Tensor, "n features"]:
        """Encode frames [n, time, 3, height, width] in 0 to 255."""
        return self.network(self.films(x))


class FromSpectrogram(nn.Module):
    """A log-mel spectrogram as a grey film that stands still: its height is time, its width pitch.

    AVCL does not say how a picture enters its 3-D networks.

    Args:
        network: over films.
        frames: how often the picture is repeated: once, which the residual networks take as it
            is (their convolutions over time then see padding to either side); C3D wants 8 or more.
    """

    def __init__(self, network: Network, *, frames: int = 1) -> None:
        super().__init__()
        at_least(1, frames=frames)
        self.network, self.width, self.frames = network, network.width, frames

    def films(self, x: Tensor) -> Float[Tensor, "n 3 frames time bins"]:
        """Spectrograms [n, time, bins] as films.

        Raises:
            UsageError: not [n, time, bins].
        """
        if x.ndim != 3:
            raise UsageError(f"spectrograms must be [n, time, bins], not {list(x.shape)}")
        return x[:, None, None].expand(-1, 3, self.frames, -1, -1)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The network's maps; their height is the sound's time."""
        return self.network.maps(self.films(x))

    def forward(self, x: Tensor) -> Float[Tensor, "n features"]:
        """Encode log-mel spectrograms [n, time, bins]."""
        return self.network(self.films(x))


def r2plus1d_18(
    midplanes: Midplanes = "per_block",
    classes: int | None = None,
    *,
    planes: int = 64,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> VideoResNet:
    """R(2+1)D of 18 layers: torchvision's as it stands, XDC's with `per_conv` and an eps of 1e-3.

    Args:
        midplanes: see `Plan`; 31,505,325 parameters with 400 classes, `per_conv` 33,370,839.
        classes: scores that a linear layer on top gives; None gives features [n, 512].
        planes: channels of the first stage.
        eps: added to the variance in every batch norm.
        momentum: weight of a batch in the running statistics. XDC's and IG-65M's PyTorch code has
            0.9, which is Caffe2's way to say 0.1.
    """
    plan = Plan(
        kinds=FACTORISED,
        planes=planes,
        midplanes=midplanes,
        stem_midplanes=STEM_MIDPLANES * planes // 64,
        eps=eps,
        momentum=momentum,
    )
    return VideoResNet(plan, classes)


def r2plus1d_34(
    midplanes: Midplanes = "per_conv",
    classes: int | None = None,
    *,
    planes: int = 64,
    eps: float = CAFFE2_EPS,
    momentum: float = 0.1,
) -> VideoResNet:
    """R(2+1)D of 34 layers, by default as VMZ trained it on IG-65M; arguments as `r2plus1d_18`."""
    plan = Plan(
        kinds=FACTORISED,
        depths=(3, 4, 6, 3),
        planes=planes,
        midplanes=midplanes,
        stem_midplanes=STEM_MIDPLANES * planes // 64,
        eps=eps,
        momentum=momentum,
    )
    return VideoResNet(plan, classes)


def r3d_18(
    classes: int | None = None, *, planes: int = 64, eps: float = 1e-5, momentum: float = 0.1
) -> VideoResNet:
    """R3D of 18 layers: full 3-D convolutions; 33,371,472 parameters with 400 classes.

    Args:
        classes: scores that a linear layer on top gives; None gives features [n, 512].
        planes: channels of the first stage.
        eps: added to the variance in every batch norm.
        momentum: weight of a batch in the running statistics.
    """
    return VideoResNet(Plan(kinds=FULL, planes=planes, eps=eps, momentum=momentum), classes)


def mc3_18(
    classes: int | None = None, *, planes: int = 64, eps: float = 1e-5, momentum: float = 0.1
) -> VideoResNet:
    """MC3 of 18 layers: one 3-D stage, then three over space alone; 11,695,440 with 400 classes.

    Args:
        classes: scores that a linear layer on top gives; None gives features [n, 512].
        planes: channels of the first stage.
        eps: added to the variance in every batch norm.
        momentum: weight of a batch in the running statistics.
    """
    return VideoResNet(
        Plan(kinds=("full", "flat", "flat", "flat"), planes=planes, eps=eps, momentum=momentum),
        classes,
    )


def avcl_c3d(*, planes: int = 64) -> C3D:
    """AVCL's C3D: [n, 3, 8 or more, 16 or more, 16 or more] to [n, 512]; 27,661,440 parameters."""
    return C3D(planes=planes)


def avcl_r3d(*, planes: int = 64) -> VideoResNet:
    """AVCL's R3D, one block a stage: nine convolutions, no pooling but the last; 14,361,792."""
    return VideoResNet(Plan(kinds=FULL, depths=(1, 1, 1, 1), planes=planes))


def avcl_r2plus1d(*, planes: int = 64) -> VideoResNet:
    """AVCL's R(2+1)D: its R3D with all convolutions factorised, shortcuts too; 14,365,303."""
    return VideoResNet(
        Plan(
            kinds=FACTORISED,
            depths=(1, 1, 1, 1),
            planes=planes,
            midplanes="per_conv",
            stem_midplanes=middle(3, planes, (3, 7, 7)),
            factorised_shortcuts=True,
        )
    )


def head(width: int, classes: int | None) -> tuple[int, nn.Module]:
    """The width of what a network gives, and its last layer: to scores, or nothing."""
    if classes is None:
        return width, nn.Identity()
    at_least(1, classes=classes)
    return classes, nn.Linear(width, classes)


def initialise(network: nn.Module) -> None:
    """He's initialisation by what a convolution gives out, as torchvision has it."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)


def _check_films(x: Tensor, *, frames: int = 1, side: int = 1) -> None:
    """Refuse what is no film, or a smaller one than the network has use for."""
    shape = list(x.shape)
    if x.ndim != 5 or shape[1] != 3:
        raise UsageError(f"films must be [n, 3, time, height, width], not {shape}")
    if not x.is_floating_point():
        raise UsageError(
            f"films must be normalised floating-point numbers, not {x.dtype}; FromFrames makes "
            "them of frames in 0 to 255"
        )
    if shape[2] < frames:
        raise UsageError(f"films must have {frames} frames or more, not {shape[2]}")
    if min(shape[3:]) < side:
        raise UsageError(
            f"films must have {side} pixels a side or more, not {shape[3]} x {shape[4]}"
        )

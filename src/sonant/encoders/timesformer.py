"""TimeSformer: a vision transformer whose attention is divided into time and space.

Bertasius et al., *Is space-time attention all you need for video understanding?*, ICML 2021, and
its variant of Bain et al., *Frozen in time*, ICCV 2021, that EgoVLP and so MC3 start from.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sonant.encoders.attention import Attention, Block, initialise, through, token
from sonant.errors import UsageError, at_least

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0 to 1; what EgoVLP and image models were trained with."""

KINETICS_MEAN, KINETICS_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
"""What TimeSformer's own models were trained with."""

Attending = Literal["frozen", "plain"]

Times = Literal["first", "nearest", "linear"]


class TimeSformer(nn.Module):
    """Frames to the first token of a vision transformer with divided space-time attention.

    The defaults are those of ViT-B/16. With either attention a new model's temporal part adds
    nothing: it begins as an image model.

    Args:
        attention: "frozen" as in Frozen in Time and EgoVLP, "plain" as in TimeSformer; see
            `FrozenBlock` and `PlainBlock`.
        frames: of the temporal position table, the most that a clip may have. A clip of fewer takes
            the first of them.
        size: pixels a side.
        patch: pixels a side of a patch.
        width: of a token, and of the output.
        depth: blocks.
        heads: of each attention.
        hidden: width between the layers of a block.
        epsilon: that the norms add to the variance.
        mean: of red, green and blue in 0 to 1, that frames are normalised with.
        std: likewise their deviation.
        checkpointing: compute each block again for its gradient: less memory, a third more time.

    Raises:
        UsageError: sizes that do not go together.
    """

    def __init__(
        self,
        *,
        attention: Attending = "frozen",
        frames: int = 16,
        size: int = 224,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        epsilon: float = 1e-6,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, frames=frames, patch=patch, depth=depth, hidden=hidden)
        at_least(patch, size=size)
        self.width, self.frames, self.size, self.checkpointing = width, frames, size, checkpointing
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.cls = token(1, width)
        self.places = token(1 + (size // patch) ** 2, width)
        self.times = nn.Parameter(torch.zeros(1, frames, width))
        kinds: dict[Attending, type[FrozenBlock | PlainBlock]]
        kinds = {"frozen": FrozenBlock, "plain": PlainBlock}
        kind = kinds[attention]
        blocks = [kind(width, heads, hidden=hidden, epsilon=epsilon) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        initialise(self)
        for block in blocks:
            nn.init.zeros_(block.last_of_time.weight)
        self.mean: Tensor
        self.register_buffer("mean", _colours(mean, "mean"), persistent=False)
        self.std: Tensor
        self.register_buffer("std", _colours(std, "std"), persistent=False)

    def forward(self, x: UInt8[Tensor, "n time 3 height width"]) -> Float[Tensor, "n features"]:
        """Encode frames in 0 to 255.

        Raises:
            UsageError: more frames than the table has places for, or of another size.
        """
        n, frames = x.shape[:2]
        if frames > self.frames or x.shape[3:] != (self.size, self.size):
            height, width = x.shape[3:]
            raise UsageError(
                f"video wants at most {self.frames} frames of {self.size} x {self.size} pixels, "
                f"not {frames} of {height} x {width}"
            )
        patches = self.patches(self._normalised(x.flatten(0, 1))).flatten(2).transpose(1, 2)
        patches = torch.unflatten(patches, 0, (n, frames))
        patches = patches + self.places[:, None, 1:] + self.times[:, :frames, None]
        first = (self.cls + self.places[:, :1]).expand(n, -1, -1)
        tokens = torch.cat([first, patches.flatten(1, 2)], 1)
        tokens = through(self.blocks, tokens, frames, checkpointing=self.checkpointing)
        out: Tensor = self.norm(tokens[:, 0])
        return out

    def _normalised(self, x: UInt8[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 size size"]:
        pixels = (x.to(self.mean.dtype) / 255 - self.mean) / self.std
        return pixels.to(self.patches.weight.dtype)


class DividedAttention(Attention):
    """Attention along one axis of space and time, of which the first token is on every line.

    Each patch sees the first token and the patches of its own frame, or of its own place in all
    frames. The first token sees everything (Bain et al., 2021).

    Args:
        width: of a token.
        heads: that attend side by side.
        along: the axis.
    """

    def __init__(self, width: int, heads: int, *, along: Literal["space", "time"]) -> None:
        super().__init__(width, heads)
        self.along = along

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "n tokens width"], frames: int
    ) -> Float[Tensor, "n tokens width"]:
        """Attend; x is a first token and the patches of the first frame, of the second, ..."""
        qkv = self.split(x)
        first = self.mix(qkv[:, :1, 0], qkv[:, :, 1], qkv[:, :, 2])
        rest = torch.unflatten(qkv[:, 1:], 1, (frames, -1))
        if self.along == "time":
            rest = self._lines(qkv[:, :1], rest.transpose(1, 2)).transpose(1, 2)
        else:
            rest = self._lines(qkv[:, :1], rest)
        out: Tensor = self.out(torch.cat([first, rest.flatten(1, 2)], 1))
        return out

    def _lines(
        self,
        first: Float[Tensor, "n 1 3 heads dim"],
        rest: Float[Tensor, "n lines members 3 heads dim"],
    ) -> Float[Tensor, "n lines members width"]:
        n, lines = rest.shape[:2]
        first = first[:, None, :, 1:].expand(-1, lines, -1, -1, -1, -1)
        k, v = torch.cat([first, rest[:, :, :, 1:]], 2).flatten(0, 1).unbind(2)
        mixed = self.mix(rest[:, :, :, 0].flatten(0, 1), k, v)
        return torch.unflatten(mixed, 0, (n, lines))


class FrozenBlock(Block):
    """Frozen in Time's: what space makes of time's output is added to the block's *input*.

    So time acts through space alone, and a clip of one frame passes as an image does.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, epsilon: float) -> None:
        space = DividedAttention(width, heads, along="space")
        super().__init__(space, hidden=hidden, epsilon=epsilon)
        self.norm_time = nn.LayerNorm(width, eps=epsilon)
        self.time = DividedAttention(width, heads, along="time")

    @property
    def last_of_time(self) -> nn.Linear:
        """The layer through which all that time adds goes."""
        return self.time.out

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "n tokens width"], frames: int
    ) -> Float[Tensor, "n tokens width"]:
        """Attend along time, then space, then compute token by token."""
        timed = x + self.time(self.norm_time(x), frames)
        x = x + self.attention(self.norm1(timed), frames)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PlainBlock(Block):
    """TimeSformer's: time's output is added, then space's to that.

    The first token takes no part in time. In space it is in each frame, and the mean of what the
    frames make of it is added.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, epsilon: float) -> None:
        super().__init__(Attention(width, heads), hidden=hidden, epsilon=epsilon)
        self.norm_time = nn.LayerNorm(width, eps=epsilon)
        self.time = Attention(width, heads)
        self.time_out = nn.Linear(width, width)

    @property
    def last_of_time(self) -> nn.Linear:
        """The layer through which all that time adds goes."""
        return self.time_out

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "n tokens width"], frames: int
    ) -> Float[Tensor, "n tokens width"]:
        """Attend along time, then space, then compute token by token."""
        n = x.shape[0]
        first, patches = x[:, None, :1], torch.unflatten(x[:, 1:], 1, (frames, -1))
        places = patches.transpose(1, 2).flatten(0, 1)
        timed = self.time_out(self.time(self.norm_time(places)))
        patches = patches + torch.unflatten(timed, 0, (n, -1)).transpose(1, 2)
        each = torch.cat([first.expand(-1, frames, -1, -1), patches], 2)
        seen = torch.unflatten(self.attention(self.norm1(each.flatten(0, 1))), 0, (n, frames))
        first = first[:, 0] + seen[:, :, 0].mean(1, keepdim=True)
        x = torch.cat([first, (patches + seen[:, :, 1:]).flatten(1, 2)], 1)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def fit_times(
    times: Float[Tensor, "1 there width"], frames: int, how: Times
) -> Float[Tensor, "1 frames width"]:
    """A temporal position table for another number of frames.

    Args:
        times: the table.
        frames: wanted.
        how: "first" cuts the end off or adds zeros, as EgoVLP does; "nearest" spreads the table
            over the new length and takes the nearest row, as TimeSformer does; "linear"
            interpolates between first and last, EgoVLP's other way.
    """
    if how == "first":
        return F.pad(times[:, :frames], (0, 0, 0, max(0, frames - times.shape[1])))
    rows = times.transpose(1, 2)
    if how == "nearest":
        return F.interpolate(rows, frames, mode="nearest").transpose(1, 2)
    return F.interpolate(rows, frames, mode="linear", align_corners=True).transpose(1, 2)


def fit_places(
    places: Float[Tensor, "1 there width"], side: int
) -> Float[Tensor, "1 places width"]:
    """A spatial position table for so many patches a side, interpolated bicubically.

    Raises:
        UsageError: the table is not that of a square after a first token.
    """
    first, grid = places[:, :1], places[:, 1:]
    there = round(grid.shape[1] ** 0.5)
    if there**2 != grid.shape[1]:
        raise UsageError(f"{grid.shape[1]} places are not those of a square")
    grid = torch.unflatten(grid.transpose(1, 2), 2, (there, there))
    grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)


def _colours(values: Sequence[float], name: str) -> Float[Tensor, "1 3 1 1"]:
    if len(values) != 3:
        raise UsageError(f"{name} must have 3 values, red, green and blue, not {len(values)}")
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)

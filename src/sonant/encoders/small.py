"""Small towers that train on a processor in minutes.

Each is a module from one modality's input to [clips, width], with `width` as an attribute. A clip's
vector never depends on the others in its batch, in training either: there are no batch statistics.
All keep time until late, since what matters is often when something moves or sounds.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from sonant.errors import UsageError

PATCH = 8
"""Pixels a side of a video patch."""

LEAST_SIZE = 3 * PATCH
"""Pixels a side of the smallest pictures. The stride of the first convolution leaves 2 x 2 cells of
3 x 3 patches and one of fewer, and oneDNN's bf16 gradient of the second one is garbage then."""


class TimeMix(nn.Module):
    """Residual convolutions over time, then a few bins of time side by side."""

    def __init__(self, channels: int, *, bins: int, width: int, layers: int = 2) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers))
        self.mixes = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=1) for _ in range(layers)
        )
        self.narrow = nn.Linear(channels, width // 2)
        self.bins = bins
        self.out = nn.Sequential(
            nn.ReLU(), nn.Linear(bins * (width // 2), width), nn.LayerNorm(width)
        )

    def forward(self, x: Float[Tensor, "n time channels"]) -> Float[Tensor, "n width"]:
        """Mix and pool."""
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            x = x + F.relu(mix(norm(x).transpose(1, 2))).transpose(1, 2)
        pooled = F.adaptive_avg_pool1d(self.narrow(x).transpose(1, 2), self.bins)
        out: Tensor = self.out(pooled.flatten(1))
        return out


class SmallVideo(nn.Module):
    """Patches and their change since the last frame, mixed over space and, by channel shifts, time.

    Any number of frames and any size from 24 pixels on will do; 4 to 16 frames at 64 to 112 pixels
    are what it is made for. Part of the patch features enter as their difference from the frame
    before: they are linear in the pixels, so this reads frame differences. Shifting a quarter of
    the channels a frame forth and a quarter back before a convolution over space makes it see three
    frames at no cost (Lin et al., TSM, 2019).
    """

    def __init__(self, *, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Linear(3 * PATCH * PATCH, 64)
        self.conv1 = nn.Conv2d(64, 96, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(96, 128, 3, stride=2, padding=1)
        self.flat = nn.Sequential(nn.LayerNorm(128 * 4), nn.Linear(128 * 4, 192))
        self.time = TimeMix(192, bins=4, width=width)
        self.rectified = _rectifiers("patches", "conv1", "conv2")
        _keep_scale(self)

    def forward(self, x: UInt8[Tensor, "n time 3 height width"]) -> Float[Tensor, "n features"]:
        """Encode frames in 0 to 255."""
        n, time = x.shape[:2]
        rectify = self.rectified
        frames = rectify["patches"](_with_change(self.patches(_patches(x)))).flatten(0, 1)
        frames = rectify["conv1"](self.conv1(frames.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        frames = _shift(frames.reshape(n, time, *frames.shape[1:])).flatten(0, 1)
        frames = rectify["conv2"](self.conv2(frames.permute(0, 3, 1, 2)))
        if frames.shape[-2:] != (2, 2):
            frames = F.adaptive_avg_pool2d(frames, 2)
        flat = self.flat(frames.permute(0, 2, 3, 1).flatten(1))
        out: Tensor = self.time(flat.reshape(n, time, -1))
        return out


class SmallAudio(nn.Module):
    """Convolutions over a log-mel spectrogram that narrow frequency first and time hardly at all.

    They also see its change since the frame before: onsets count more than levels. The last feature
    map holds one step every 80 ms for a front end with a hop of 10 ms.
    """

    def __init__(self, *, bins: int = 128, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(2, 32, 8, stride=(4, 8), padding=(2, 0))
        self.conv1 = nn.Conv2d(32, 64, 3, stride=(1, 2), padding=1)
        self.conv2 = nn.Conv2d(64, 96, 3, stride=(2, 2), padding=1)
        flat = 96 * (bins // 32)
        self.flat = nn.Sequential(nn.LayerNorm(flat), nn.Linear(flat, 192))
        self.time = TimeMix(192, bins=8, width=width)
        self.rectified = _rectifiers("stem", "conv1", "conv2")
        _keep_scale(self)

    def forward(self, x: Float[Tensor, "n time bins"]) -> Float[Tensor, "n features"]:
        """Encode normalised log-mel spectrograms."""
        change = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
        maps = self.rectified["stem"](self.stem(torch.stack([x, 4 * change], 1)))
        maps = self.rectified["conv1"](self.conv1(maps))
        maps = self.rectified["conv2"](self.conv2(maps))
        out: Tensor = self.time(self.flat(maps.permute(0, 2, 3, 1).flatten(2)))
        return out


class SmallText(nn.Module):
    """A transformer of two layers over token ids, 0 being padding; the mean over what is there.

    A learned first token keeps a text without words finite.
    """

    def __init__(self, *, vocabulary: int, tokens: int, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, tokens + 1, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, x: Int[Tensor, "n tokens"]) -> Float[Tensor, "n width"]:
        """Encode token ids."""
        there = F.pad(x != 0, (1, 0), value=True)
        h = torch.cat([self.first.expand(len(x), -1, -1), self.words(x)], 1)
        h = h + self.places[:, : h.shape[1]]
        for block in self.blocks:
            h = block(h, there)
        mask = there[..., None].to(h.dtype)
        out: Tensor = (self.norm(h) * mask).sum(1) / mask.sum(1)
        return out


class Block(nn.Module):
    """A pre-norm transformer layer whose attention skips padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "n tokens width"], there: Tensor
    ) -> Float[Tensor, "n tokens width"]:
        """Attend where `there` [n, tokens] is true."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def _rectifiers(*names: str) -> nn.ModuleDict:
    """A ReLU for each of the maps: as modules, so that the maps can be looked at on their way."""
    return nn.ModuleDict({name: nn.ReLU() for name in names})


def _keep_scale(model: nn.Module) -> None:
    """Initialise convolutions so that ReLU layers neither shrink nor grow what they pass (He)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _patches(x: UInt8[Tensor, "n time 3 height width"]) -> Float[Tensor, "n time h w pixels"]:
    """Squares of pixels in -2 to 2, side by side; what is left over at the edges is cut off."""
    n, time, _, height, width = x.shape
    if min(height, width) < LEAST_SIZE:
        raise UsageError(f"video wants {LEAST_SIZE} pixels a side or more, not {height} x {width}")
    h, w = height // PATCH, width // PATCH
    squares = x[..., : h * PATCH, : w * PATCH].reshape(n, time, 3, h, PATCH, w, PATCH)
    pixels = squares.permute(0, 1, 3, 5, 2, 4, 6).reshape(n, time, h, w, -1)
    return pixels.float().div_(64).sub_(2)


def _with_change(x: Float[Tensor, "n time h w channels"]) -> Float[Tensor, "n time h w channels"]:
    """Half of the channels as they are, half as four times their change since the frame before."""
    still, moving = x.chunk(2, dim=-1)
    change = F.pad(moving[:, 1:] - moving[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([still, 4 * change], -1)


def _shift(x: Float[Tensor, "n time h w channels"]) -> Float[Tensor, "n time h w channels"]:
    """A quarter of the channels from the frame before, a quarter from the next; zeros outside."""
    quarter = x.shape[-1] // 4
    before = F.pad(x[:, :-1, ..., :quarter], (0, 0, 0, 0, 0, 0, 1, 0))
    after = F.pad(x[:, 1:, ..., quarter : 2 * quarter], (0, 0, 0, 0, 0, 0, 0, 1))
    return torch.cat([before, after, x[..., 2 * quarter :]], -1)

"""AST: the audio spectrogram transformer of Gong et al., Interspeech 2021."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.encoders.attention import Attention, Block, initialise, through, token
from sonant.errors import UsageError, at_least

FIRST = 2
"""Tokens before the patches: the class token and DeiT's distillation token."""


class AST(nn.Module):
    """A log-mel spectrogram to the mean of the two first tokens of a vision transformer.

    The defaults are those of the paper's base model for 1.5 s of sound.

    Args:
        frames: of the spectrogram that the position table is made for; others will do, see
            `fit_places`.
        bins: of the spectrogram.
        patch: frames and bins of a patch.
        stride: frames and bins from one patch to the next; 10 makes patches overlap.
        width: of a token, and of the output.
        depth: blocks.
        heads: of the attention.
        hidden: width between the layers of a block.
        epsilon: that the norms add to the variance.
        checkpointing: compute each block again for its gradient: less memory, a third more time.

    Raises:
        UsageError: sizes that do not go together.
    """

    def __init__(
        self,
        *,
        frames: int = 149,
        bins: int = 128,
        patch: int = 16,
        stride: int = 10,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        epsilon: float = 1e-6,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, patch=patch, stride=stride, depth=depth, hidden=hidden)
        at_least(patch, frames=frames, bins=bins)
        self.width, self.checkpointing, self.patch, self.bins = width, checkpointing, patch, bins
        self.patches = nn.Conv2d(1, width, patch, stride=stride)
        self.grid = (1 + (bins - patch) // stride, 1 + (frames - patch) // stride)
        self.cls, self.distillation = token(1, width), token(1, width)
        self.places = token(FIRST + self.grid[0] * self.grid[1], width)
        self.blocks = nn.ModuleList(
            Block(Attention(width, heads), hidden=hidden, epsilon=epsilon) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=epsilon)
        initialise(self)

    def forward(self, x: Float[Tensor, "n time bins"]) -> Float[Tensor, "n width"]:
        """Encode normalised log-mel spectrograms of any length from one patch on.

        Raises:
            UsageError: shorter than a patch, or of other bins.
        """
        n, time, bins = x.shape
        if time < self.patch or bins != self.bins:
            raise UsageError(
                f"audio wants {self.patch} frames or more of {self.bins} bins, not {time} of {bins}"
            )
        maps = self.patches(x.transpose(1, 2)[:, None])
        places = fit_places(self.places, self.grid, (maps.shape[2], maps.shape[3]))
        first = torch.cat([self.cls, self.distillation], 1).expand(n, -1, -1)
        tokens = torch.cat([first, maps.flatten(2).transpose(1, 2)], 1) + places
        tokens = through(self.blocks, tokens, checkpointing=self.checkpointing)
        out: Tensor = self.norm(tokens[:, :FIRST]).mean(1)
        return out


def fit_places(
    places: Float[Tensor, "1 there width"], grid: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "1 places width"]:
    """A position table for another grid of patches.

    Along frequency and along time alike, the middle is cut out of what is longer, and what is
    shorter is interpolated linearly (sec. 2.2 of the paper: "cut and bi-linear interpolate").

    Args:
        places: of the two first tokens, then of the grid, row by row.
        grid: its rows of frequency and columns of time.
        wanted: likewise.
    """
    if grid == wanted:
        return places
    first, rest = places[:, :FIRST], places[:, FIRST:]
    rest = torch.unflatten(rest.transpose(1, 2), 2, grid)
    top, left = (max(0, a // 2 - b // 2) for a, b in zip(grid, wanted, strict=True))
    rest = rest[:, :, top : top + wanted[0], left : left + wanted[1]]
    if rest.shape[2:] != wanted:
        rest = F.interpolate(rest, wanted, mode="bilinear", align_corners=False)
    return torch.cat([first, rest.flatten(2).transpose(1, 2)], 1)

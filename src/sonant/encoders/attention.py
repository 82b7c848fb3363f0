"""Parts that the transformers share."""

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sonant.errors import UsageError, at_least

MOST = 65535
"""Rows that CUDA's attention kernels take at once; divided attention has one for every place."""


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: of a token; a multiple of heads.
        heads: that attend side by side.
        dropout: share of attention weights that training drops.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        at_least(1, width=width, heads=heads)
        if width % heads:
            raise UsageError(f"width must be a multiple of the {heads} heads, not {width}")
        self.width, self.heads, self.dropout = width, heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "n tokens width"], seen: Bool[Tensor, "n #h #t tokens"] | None = None
    ) -> Float[Tensor, "n tokens width"]:
        """Attend to all tokens, or to those where `seen` is true."""
        q, k, v = self.split(x).unbind(2)
        out: Tensor = self.out(self.mix(q, k, v, seen))
        return out

    def split(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens 3 heads dim"]:
        """Queries, keys and values."""
        return torch.unflatten(self.qkv(x), -1, (3, self.heads, -1))

    def mix(
        self,
        q: Float[Tensor, "n queries heads dim"],
        k: Float[Tensor, "n tokens heads dim"],
        v: Float[Tensor, "n tokens heads dim"],
        seen: Bool[Tensor, "n #h #t tokens"] | None = None,
    ) -> Float[Tensor, "n queries width"]:
        """For each query the mean of the values whose keys it asks for."""
        if len(q) > MOST:
            masks = repeat(None) if seen is None else torch.split(seen, MOST)
            parts = zip(*(torch.split(x, MOST) for x in (q, k, v)), masks, strict=False)
            return torch.cat([self.mix(*part) for part in parts])
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """A pre-norm transformer layer: ViT's.

    Args:
        attention: over all tokens, or as a subclass has it.
        hidden: width of the layer between.
        epsilon: that the norms add to the variance.
    """

    def __init__(self, attention: Attention, *, hidden: int, epsilon: float) -> None:
        super().__init__()
        width = attention.width
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = mlp(width, hidden)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        """Attend, then compute token by token."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def mlp(width: int, hidden: int) -> nn.Sequential:
    """Two layers with a GELU between, the second as wide as what comes in."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


def through(blocks: Iterable[nn.Module], x: Tensor, *rest: Any, checkpointing: bool) -> Tensor:
    """What is left of x after all blocks; `rest` goes to each.

    Args:
        blocks: in their order.
        x: tokens.
        rest: further arguments of a block.
        checkpointing: compute each block again for its gradient instead of keeping what it made.
    """
    for block in blocks:
        if checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, *rest, use_reentrant=False)
        else:
            x = block(x, *rest)
    return x


def initialise(model: nn.Module) -> None:
    """Matrices, kernels, words from a normal of deviation 0.02, biases zero: BERT's and ViT's."""
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


def token(count: int, width: int) -> nn.Parameter:
    """Learned tokens or places [1, count, width], from a normal of deviation 0.02."""
    return nn.Parameter(torch.randn(1, count, width) * 0.02)

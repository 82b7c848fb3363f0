"""DistilBERT: Sanh et al., *DistilBERT, a distilled version of BERT*, 2019."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonant.encoders.attention import Attention, initialise, mlp, through
from sonant.errors import UsageError, at_least

EPSILON = 1e-12
"""That the norms add to the variance."""


class DistilBERT(nn.Module):
    """Token ids, 0 being padding, to the first token's state, which BERT's vocabulary calls [CLS].

    The defaults are those of distilbert-base-uncased.

    Args:
        vocabulary: ids there are.
        tokens: of the position table, the most that a text may have.
        width: of a token, and of the output.
        depth: blocks.
        heads: of the attention.
        hidden: width between the layers of a block.
        dropout: share of embeddings, attention weights and block outputs that training drops.
        relu: end in a ReLU, so that with a linear head this is EgoVLP's text tower.
        checkpointing: compute each block again for its gradient: less memory, a third more time.

    Raises:
        UsageError: sizes that do not go together.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 30522,
        tokens: int = 512,
        width: int = 768,
        depth: int = 6,
        heads: int = 12,
        hidden: int = 3072,
        dropout: float = 0.1,
        relu: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, vocabulary=vocabulary, tokens=tokens, depth=depth, hidden=hidden)
        self.width, self.relu, self.checkpointing = width, relu, checkpointing
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Embedding(tokens, width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        initialise(self)

    def forward(self, x: Int[Tensor, "n tokens"]) -> Float[Tensor, "n width"]:
        """Encode token ids; of a text of padding alone the first token is seen all the same.

        Raises:
            UsageError: longer than the position table.
        """
        if x.shape[1] > self.places.num_embeddings:
            most = self.places.num_embeddings
            raise UsageError(f"text wants at most {most} tokens, not {x.shape[1]}")
        seen = F.pad(x[:, 1:] != 0, (1, 0), value=True)[:, None, None]
        h = self.drop(self.norm(self.words(x) + self.places.weight[: x.shape[1]]))
        first = through(self.blocks, h, seen, checkpointing=self.checkpointing)[:, 0]
        return torch.relu(first) if self.relu else first


class PostNormBlock(nn.Module):
    """BERT's transformer layer: what is added is normalised afterwards."""

    def __init__(self, width: int, heads: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = mlp(width, hidden)
        self.drop = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)

    def forward(
        self, x: Float[Tensor, "n tokens width"], seen: Bool[Tensor, "n 1 1 tokens"]
    ) -> Float[Tensor, "n tokens width"]:
        """Attend where `seen` is true, then compute token by token."""
        x = self.norm1(x + self.attention(x, seen))
        out: Tensor = self.norm2(x + self.drop(self.mlp(x)))
        return out

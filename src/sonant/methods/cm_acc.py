"""CM-ACC: audio-video contrast with actively sampled negatives (Ma et al., ICLR 2021).

What is contrasted with is a dictionary of keys: embeddings by momentum copies of the towers. Keys
enter it not at random but by how much, and how differently from each other, they would move the
classifier that the dictionary is (k-means++ seeding of their gradient embeddings, as BADGE).
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonant.distributed import gather
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe, at_least_fp32
from sonant.methods.parts import Paper, Parts, small
from sonant.objectives import key_nce, products
from sonant.types import Batch, Modality, Stage

OTHER: Mapping[Modality, Modality] = {"audio": "video", "video": "audio"}


class CMACC(Method):
    """Tell a clip's other modality from an actively sampled dictionary of other clips'.

    Each step: the momentum towers embed the batch; the keys join a pool of the last batches'; as
    many of the pool as `enqueue` enter the dictionary of `keys`, the oldest leave. All ranks hold
    the same dictionary, pool and momentum towers, which is that of one process: clips enter the
    pool in the order of the table. A clip never meets an old key of its own as a negative.

    Args:
        towers: of audio and video.
        stages: the parts of training; all do the same.
        width: of the towers' output.
        temperature: τ of the contrast and of the pseudo-labels.
        momentum: of the towers that make keys.
        keys: size of the dictionary. Until it is full, the batch's own keys stand beside it.
        pool: size of the pool.
        enqueue: keys that enter a step.

    Raises:
        UsageError: the towers are not of audio and video, or a number is out of its range.
    """

    chunked = False

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        width: int,
        temperature: float,
        momentum: float,
        keys: int,
        pool: int,
        enqueue: int,
    ) -> None:
        super().__init__(towers, stages)
        if set(self.modalities) != set(OTHER):
            raise UsageError(f"CM-ACC wants audio and video, not {', '.join(self.modalities)}")
        above_zero(temperature=temperature)
        at_least(1, keys=keys, pool=pool, enqueue=enqueue)
        if not 0 <= momentum < 1 or enqueue > min(pool, keys):
            raise UsageError(
                f"momentum is 0 or more and below 1, and no more keys enter than the pool and the "
                f"dictionary hold; not {momentum}, {enqueue} of {pool} into {keys}"
            )
        self.temperature, self.momentum, self.enqueue = temperature, momentum, enqueue
        self.slow = deepcopy(self.towers).requires_grad_(False)
        for modality in OTHER:
            self.register_buffer(f"keys_{modality}", torch.zeros(keys, width))
            self.register_buffer(f"held_{modality}", torch.zeros(keys, dtype=torch.int64))
            self.register_buffer(f"pool_{modality}", torch.zeros(pool, width))
        self.register_buffer("pooled", torch.zeros(pool, dtype=torch.int64))
        self.register_buffer("entered", torch.zeros(2, dtype=torch.int64))
        self.entered: Tensor

    def started(self) -> None:
        """The slow towers begin where the others do."""
        self.slow.load_state_dict(self.towers.state_dict())

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Cross-modal InfoNCE against the dictionary, both ways, and the step of the dictionary."""
        queries = {m: gather(x) for m, x in self.embed(batch).items()}
        clips = gather(batch.index)
        with torch.no_grad():
            if self.training:
                self._follow()
            keys = {m: gather(x) for m, x in self._slow_rows(batch).items()}
        terms = {
            f"{m} to {OTHER[m]}": self._contrast(queries[m], keys[OTHER[m]], clips, OTHER[m])
            for m in OTHER
        }
        if self.training:
            with torch.no_grad():
                order = clips.argsort()
                self._renew({m: rows[order] for m, rows in keys.items()}, clips[order])
        return terms

    def keys(self, modality: Modality) -> Float[Tensor, "keys width"]:
        """The dictionary of a modality; its first rows only, until it is full."""
        return self.get_buffer(f"keys_{modality}")

    def _contrast(
        self, queries: Tensor, keys: Tensor, clips: Tensor, other: Modality
    ) -> Float[Tensor, ""]:
        """Tell a clip's key from the dictionary's (Ma et al., eq. 2), never from its own old ones.

        The batch's other keys stand beside the dictionary until it is full.
        """
        size = len(self.keys(other))
        known = min(int(self.entered[0]), size)
        others, held = self.keys(other)[:known].clone(), self.get_buffer(f"held_{other}")[:known]
        if known < size:
            others, held = torch.cat([others, keys]), torch.cat([held, clips])
        own = clips[:, None] == held
        return key_nce(queries, keys, others, self.temperature, leave=own)

    def _follow(self) -> None:
        for slow, fast in zip(self.slow.parameters(), self.towers.parameters(), strict=True):
            slow.lerp_(fast.to(slow.dtype), 1 - self.momentum)

    def _slow_rows(self, batch: Batch) -> dict[Modality, Tensor]:
        rows = {m: self.slow[m](batch.inputs[m]) for m in OTHER}
        return {m: F.normalize(at_least_fp32(x), dim=1) for m, x in rows.items()}

    def _renew(self, keys: Mapping[Modality, Tensor], clips: Tensor) -> None:
        """Let the batch into the pool, and the most telling of the pool into the dictionary."""
        entered, pooled = (int(x) for x in self.entered)
        size, device = len(self.get_buffer("pooled")), clips.device
        places = (pooled + torch.arange(len(clips), device=device)) % size
        self.get_buffer("pooled")[places] = clips
        for modality in OTHER:
            self.get_buffer(f"pool_{modality}")[places] = keys[modality]
        there = min(pooled + len(clips), size)
        random = torch.Generator().manual_seed(entered)
        known = min(entered, len(self.keys("audio")))
        chosen = {}
        for modality, other in OTHER.items():
            seen = self.get_buffer(f"pool_{other}")[:there]
            doubt = residuals(products(seen, self.keys(modality)[:known]) / self.temperature)
            chosen[modality] = spread(doubt, seen, min(self.enqueue, there), random)
        entering = len(chosen["audio"])
        places = (entered + torch.arange(entering, device=device)) % len(self.keys("audio"))
        for modality, rows in chosen.items():
            self.keys(modality)[places] = self.get_buffer(f"pool_{modality}")[rows]
            self.get_buffer(f"held_{modality}")[places] = self.get_buffer("pooled")[rows]
        self.entered += torch.tensor([entering, len(clips)], device=self.entered.device)


def residuals(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """P - y: the gradient of cross entropy by the logits, with the likeliest class as its label."""
    p = logits.softmax(1)
    if not logits.shape[1]:
        return p
    return p - F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)


def spread(
    doubt: Float[Tensor, "rows classes"],
    x: Float[Tensor, "rows width"],
    n: int,
    random: torch.Generator,
) -> Int[Tensor, "n"]:
    """k-means++ seeding among the gradient embeddings (p - y) ⊗ x of rows.

    Each next row is drawn with a chance that grows as the square of its distance from the nearest
    one drawn so far; the first by its length. Their distances come from the factors' products:
    ⟨a ⊗ x, b ⊗ y⟩ = ⟨a, b⟩⟨x, y⟩, so that no row of classes x width is ever made.

    Args:
        doubt: first factor p - y; without classes rows are drawn evenly.
        x: second factor, what was classified.
        n: rows to draw, at most as many as there are.
        random: draws them; on the processor, so that devices agree.
    """
    lengths = (doubt.square().sum(1) * x.square().sum(1)).cpu().double()
    if not float(lengths.sum()):
        return torch.randperm(len(x), generator=random)[:n].to(x.device)
    inner = (products(doubt, doubt) * products(x, x)).cpu().double()
    distances = (lengths[:, None] + lengths - 2 * inner).clamp(min=0)
    nearest, drawn = lengths.clone(), list[int]()
    for _ in range(n):
        chance = nearest.clone()
        chance[drawn] = 0
        if not float(chance.sum()):
            chance = torch.ones_like(chance)
            chance[drawn] = 0
        drawn.append(int(torch.multinomial(chance, 1, generator=random)))
        nearest = torch.minimum(nearest, distances[drawn[-1]])
    return torch.tensor(drawn, device=x.device)


def cm_acc(
    tokenizer: Tokenizer,
    *,
    epochs: int = 5,
    temperature: float = 0.05,
    momentum: float = 0.999,
    keys: int = 8192,
    pool: int = 2560,
    enqueue: int = 256,
    rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """CM-ACC with MC3's towers.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ; the released code has none, and embeddings of any length.
        momentum: of the towers that make keys.
        keys: size of the dictionary.
        pool: of keys to choose from; ten batches, as in the released code.
        enqueue: keys that enter the dictionary a step.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    method = CMACC(
        parts.towers(tokenizer, ["audio", "video"]),
        (Stage("align", epochs),),
        width=parts.width,
        temperature=temperature,
        momentum=momentum,
        keys=keys,
        pool=pool,
        enqueue=enqueue,
    )
    return parts.recipe(tokenizer, method, (rate,))


cm_acc_small = small(
    cm_acc,
    "CM-ACC with small towers, for a processor.",
    epochs=13,
    temperature=0.07,
    keys=2048,
    pool=1280,
    enqueue=128,
    rate=1e-3,
)

"""AVTS: tell sound that is in sync with the pictures from sound that is not.

Korbar, Tran, Torresani, Cooperative Learning of Audio and Video Models from Self-Supervised
Synchronization, NeurIPS 2018: a contrastive loss with a margin, and a curriculum from easy
negatives, the sound of other videos, to hard ones, sound of the same video from another time. XDC
(Alwassel et al. 2020, Table 7 and section 6) compares itself with it on its own networks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.data import Array, seeded
from sonant.distributed import gather
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.films import SIGHT_SOUND
from sonant.methods.method import Method, Recipe, at_least_fp32, drawn_by
from sonant.methods.moments import Moments
from sonant.methods.parts import Parts, small
from sonant.types import Batch, Embeddings, Modality, Stage

EASY, HARD = "easy", "hard"
"""The stages."""
SLACK = 1e-6
"""Seconds by which times that are stored rounded may be off."""
_MIXING, _MIXED = 2_654_435_761, 1 << 32
"""Knuth's multiplier and what it is taken modulo: scatters rows, the same wherever they lie."""


class AVTS(Method):
    """Pull a clip's sound to its pictures, and push other sound away up to a margin.

    Each clip of a batch makes one pair in sync and one out of sync, its pictures with the sound of
    another clip of the batch: of another video; or, in the stage `hard` and for a share of them, of
    its own video from another time. Batches of that stage are put together so that such clips meet.
    A clip for which the batch has no such other makes no pair out of sync.

    Args:
        towers: of audio and video.
        stages: the parts of training; in that named `hard` there are hard negatives.
        width: of the towers' outputs.
        shared: of the space in which distances are measured.
        margin: distance beyond which sound that is out of sync is left alone; rows have length 1,
            so that distances are 0 to 2.
        hard_share: of the pairs out of sync in the stage `hard`, those of the same video.
        apart: least seconds between the end of the one and the start of the other clip of a hard
            negative.

    Raises:
        UsageError: the towers are not of audio and video, or a number is out of its range.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        width: int,
        shared: int,
        margin: float,
        hard_share: float,
        apart: float,
    ) -> None:
        super().__init__(towers, stages)
        if set(self.modalities) != set(SIGHT_SOUND):
            raise UsageError(f"AVTS wants audio and video, not {', '.join(self.modalities)}")
        at_least(1, shared=shared)
        at_least(0, apart=apart)
        if not 0 < margin <= 2:
            raise UsageError(f"margin is a distance above 0 and at most 2, not {margin}")
        if not 0 <= hard_share <= 1:
            raise UsageError(f"hard_share is a share, from 0 to 1, not {hard_share}")
        self.margin, self.hard_share, self.apart = margin, hard_share, apart
        self.heads = nn.ModuleDict({m: nn.Linear(width, shared) for m in self.modalities})

    def attach(self, clips: Clips) -> None:
        """Take which video a clip is of, and when in it.

        Raises:
            UsageError: all clips are of one video, or there is a stage with hard negatives and no
                video has two clips that are far enough apart.
        """
        names, videos = np.unique(clips.column("video").astype(str), return_inverse=True)
        starts, ends = (clips.column(name).astype(np.float64) for name in ("start", "end"))
        if len(names) < 2:
            raise UsageError("AVTS takes sound of other videos, and all clips are of one video")
        hard = any(stage.name == HARD and stage.epochs for stage in self.stages)
        if hard and self.hard_share and not _some_pair(videos, starts, ends, self.apart):
            raise UsageError(
                f"none of the {len(names)} videos has two clips that are {self.apart:g} s apart, "
                "of which hard negatives are made: cut more windows of each (`sonant index "
                "windows`), or train without that stage (`--hard-epochs 0`)"
            )
        device = next(self.parameters()).device
        for name, values in {"video": videos, "start": starts, "end": ends}.items():
            self.register_buffer(name, torch.from_numpy(values).to(device), persistent=False)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """The loss of the pairs in sync, and that of those out of sync."""
        e = {modality: gather(rows) for modality, rows in self.embed(batch).items()}
        index = gather(batch.index)
        share = self.hard_share if stage.name == HARD else 0.0
        partner = self.partners(index, share)
        there = partner >= 0
        wrong = e["audio"][partner.clamp(min=0)]
        return margin_contrast(e["video"], e["audio"], wrong, there, self.margin)

    def embed(self, batch: Batch) -> Embeddings:
        """Unit rows in the shared space."""
        return {
            m: F.normalize(at_least_fp32(self.heads[m](self.towers[m](x))), dim=1)
            for m, x in batch.inputs.items()
            if m in self.towers
        }

    def partners(self, index: Int[Tensor, "n"], hard_share: float) -> Int[Tensor, "n"]:
        """For each of a batch's clips, by row of the table, the place of its wrong sound.

        -1 where there is none. It depends on which clips there are, and not on their order.
        """
        video, start, end = (self.get_buffer(name)[index] for name in ("video", "start", "end"))
        same = video[:, None] == video
        gap = torch.maximum(start[:, None] - end, start - end[:, None])
        mixed = index * _MIXING % _MIXED
        after = (mixed - mixed[:, None]) % _MIXED  # in a round of all clips, how far ahead
        easy, _ = _first(~same, after)
        hard, can = _first(same & (gap >= self.apart - SLACK), after)
        before = (mixed[can] < mixed[:, None]).sum(1)
        chosen = can & (before < round(hard_share * len(index)))
        return torch.where(chosen, hard, easy)

    def order(self, clips: int, *, seed: int, stage: Stage, epoch: int) -> Array:
        """Each clip once; with hard negatives, enough of those that make such side by side."""
        random = seeded(seed=seed, stage=stage.name, epoch=epoch)
        rows = random.permutation(clips)
        if stage.name != HARD or not self.hard_share:
            return rows
        video, start, end = (self.get_buffer(n).cpu().numpy() for n in ("video", "start", "end"))
        pairs = _pairs(rows, video, start, end, self.apart)[: round(self.hard_share * clips / 2)]
        single = np.setdiff1d(rows, pairs, assume_unique=True)
        units = len(pairs) + len(single) // 2
        slots = (np.arange(len(pairs)) * units) // max(1, len(pairs))
        others = np.setdiff1d(np.arange(units), slots)
        order = np.empty((units, 2), np.int64)
        order[slots], order[others] = pairs, single[: 2 * len(others)].reshape(-1, 2)
        return np.concatenate([order.ravel(), single[2 * len(others) :]])


def margin_contrast(
    x: Float[Tensor, "n width"],
    y: Float[Tensor, "n width"],
    wrong: Float[Tensor, "n width"],
    there: Bool[Tensor, "n"],
    margin: float,
) -> dict[str, Float[Tensor, ""]]:
    """The contrastive loss of pairs in sync and pairs out of sync, a mean over all of them.

    d² of pairs in sync and max(margin - d, 0)² of those out of sync, d being a pair's distance.

    Args:
        x: the one modality.
        y: the other in sync.
        wrong: the other out of sync.
        there: whether a row has one that is out of sync.
        margin: distance beyond which those are left alone.

    Returns:
        Both sums over the number of all pairs, by name.
    """
    pairs = len(x) + there.sum()
    together = (x - y).square().sum(1)
    distance = torch.linalg.vector_norm(x - wrong, dim=1)
    pushed = torch.where(there, (margin - distance).clamp(min=0).square(), 0.0)
    return {"in sync": together.sum() / pairs, "out of sync": pushed.sum() / pairs}


def _first(
    wanted: Bool[Tensor, "n n"], after: Int[Tensor, "n n"]
) -> tuple[Int[Tensor, "n"], Bool[Tensor, "n"]]:
    """In each row the wanted column that comes first, or -1, and whether there is one."""
    there = wanted.any(1)
    found = torch.where(wanted, after, _MIXED).argmin(1)
    return torch.where(there, found, -1), there


def _some_pair(video: Array, start: Array, end: Array, apart: float) -> bool:
    """Whether some video has a clip that ends so much before another starts."""
    first_end = np.full(video.max() + 1, np.inf)
    last_start = np.full(video.max() + 1, -np.inf)
    np.minimum.at(first_end, video, end)
    np.maximum.at(last_start, video, start)
    return bool(np.any(last_start - first_end >= apart - SLACK))


def _pairs(rows: Array, video: Array, start: Array, end: Array, apart: float) -> Array:
    """Pairs [pairs, 2] of rows of one video and far enough apart, no row twice, in drawn order.

    The clips of a video pair off as they are drawn; pairs that are too close come apart again.
    """
    by_video = rows[np.argsort(video[rows], kind="stable")]
    of = video[by_video]
    turn = np.arange(len(of)) - np.searchsorted(of, of)
    opens = (turn[:-1] % 2 == 0) & (of[1:] == of[:-1])
    one, other = by_video[:-1][opens], by_video[1:][opens]
    far = np.maximum(start[other] - end[one], start[one] - end[other]) >= apart - SLACK
    place = np.empty(len(rows), np.int64)
    place[rows] = np.arange(len(rows))
    found = np.stack([one[far], other[far]], 1)
    return np.asarray(found[np.argsort(place[found[:, 0]])])


def avts(
    tokenizer: Tokenizer,
    *,
    easy_epochs: int = 50,
    hard_epochs: int = 40,
    hard_share: float = 0.25,
    apart: float = 0.5,
    margin: float = 0.99,
    shared: int = 128,
    rate: float = 0.01,
    parts: Parts = Moments(frames=25, frame_rate=25.0, hop=0.01, seconds=1.0, batch=64),
) -> Recipe:
    """AVTS: in sync or not, from easy to hard negatives, with XDC's networks on clips of a second.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        easy_epochs: with the sound of other videos.
        hard_epochs: after them, with sound of the same video too.
        hard_share: of the pairs out of sync that are of the same video then.
        apart: least seconds between the two clips of such a pair.
        margin: distance, of 0 to 2, beyond which sound that is out of sync is left alone.
        shared: width of the space in which sound and pictures are compared.
        rate: peak learning rate of both stages.
        parts: towers, views and optimisation.
    """
    towers = parts.towers(tokenizer, SIGHT_SOUND)
    stages = (Stage(EASY, easy_epochs), Stage(HARD, hard_epochs))
    with drawn_by(parts.seed):
        method = AVTS(
            towers,
            stages,
            width=parts.width,
            shared=shared,
            margin=margin,
            hard_share=hard_share,
            apart=apart,
        )
    above_zero(rate=rate)
    return parts.recipe(tokenizer, method, (rate, rate))


avts_small = small(
    avts,
    "AVTS with small towers: in sync or not, from easy to hard negatives, for a processor.",
    easy_epochs=8,
    hard_epochs=6,
    rate=1e-3,
)

"""AVCL's rivals on two networks: SimCLR, MoCo, BYOL, SimSiam, Barlow Twins, IIC.

Each compares two views of a clip. As in AVCL's comparison (Lan, Liu, Lin, 2022, section III-D) the
views are the modalities, and so each has a network of its own; a classifier reads both networks'
features side by side. What the originals draw at random to make two views of one picture is not
needed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.cluster import Rows, to_tensor
from sonant.distributed import dealt, gather
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.films import SIGHT_SOUND, Films
from sonant.methods.method import Method, Recipe, at_least_fp32, drawn_by
from sonant.methods.parts import Parts, small
from sonant.objectives import cross_correlation, key_nce, negative_cosine, nt_xent
from sonant.types import Batch, Embeddings, Modality, Stage

OTHER: Mapping[Modality, Modality] = {"audio": "video", "video": "audio"}
Heads = Mapping[Modality, nn.Module]
Broken = Literal["repeat", "shuffle"]
CUTS = 4
"""Parts that a shuffled clip is cut into, of which two change places."""


class RowNorm(nn.BatchNorm1d):
    """Batch norm of rows, of which there must be two or more in training."""

    def forward(self, x: Float[Tensor, "clips width"]) -> Float[Tensor, "clips width"]:
        """Normalise."""
        if self.training and len(x) < 2:
            raise UsageError("a batch of 1 clip has no spread to normalise by; take 2 or more")
        return super().forward(x)


def perceptron(*widths: int, norm: bool = True, norm_last: bool = False) -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them.

    Args:
        widths: of the input, between the layers, and of the output.
        norm: whether there is batch norm between the layers.
        norm_last: a batch norm on top too, without scale and shift.
    """
    at_least(1, width=min(widths))
    layers: list[nn.Module] = []
    for ins, outs in pairwise(widths):
        if layers:
            layers += [RowNorm(ins), nn.ReLU()] if norm else [nn.ReLU()]
        layers.append(nn.Linear(ins, outs))
    if norm_last:
        layers.append(RowNorm(widths[-1], affine=False))
    return nn.Sequential(*layers)


class Siamese(Method):
    """Two unshared networks, of sight and of sound, and a head on each.

    Heads read the whole batch on every rank, so that their batch norms see what one process would.
    They are computed in fp32.

    Args:
        towers: of video and audio.
        stages: the parts of training; all do the same.
        heads: modality to what turns a tower's features into what is compared.

    Raises:
        UsageError: the towers are not of audio and video.
    """

    def __init__(
        self, towers: Mapping[Modality, nn.Module], stages: Sequence[Stage], *, heads: Heads
    ) -> None:
        super().__init__(towers, stages)
        if set(self.modalities) != set(OTHER):
            raise UsageError(
                f"{type(self).__name__} wants audio and video, not {', '.join(self.modalities)}"
            )
        self.heads = nn.ModuleDict({m: heads[m] for m in SIGHT_SOUND})

    def views(self, batch: Batch) -> Embeddings:
        """What is compared: the heads' outputs [clips of all ranks, width], of any length."""
        return headed(self.towers, self.heads, {m: batch.inputs[m] for m in SIGHT_SOUND})

    def features(self, batch: Batch) -> Float[Tensor, "clips features"]:
        """Each clip's features of video and audio side by side: what a classifier reads."""
        return torch.cat([at_least_fp32(self.towers[m](batch.inputs[m])) for m in SIGHT_SOUND], 1)

    def embed(self, batch: Batch) -> Embeddings:
        """Unit rows [clips, width] of what is compared, for each modality in the batch."""
        rows = {m: self.towers[m](x) for m, x in batch.inputs.items() if m in self.towers}
        return {m: F.normalize(self.heads[m](at_least_fp32(x)), dim=1) for m, x in rows.items()}


def headed(
    towers: nn.ModuleDict, heads: nn.ModuleDict, inputs: Mapping[Modality, Tensor]
) -> Embeddings:
    """All ranks' rows through towers and heads, by modality."""
    rows = {m: at_least_fp32(towers[m](x)) for m, x in inputs.items()}
    device = next(iter(inputs.values())).device.type
    with torch.autocast(device, enabled=False):
        return {m: heads[m](gather(x)) for m, x in rows.items()}


class SimCLR(Siamese):
    """Tell a clip's other modality from everything else in the batch (Chen et al., 2020).

    AVCL's SelfCL is 2N times this loss, on gated features without heads.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        temperature: float,
    ) -> None:
        super().__init__(towers, stages, heads=heads)
        above_zero(temperature=temperature)
        self.temperature = temperature

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """NT-Xent of the modalities as views (eq. 1)."""
        z = self.views(batch)
        return {"contrast": nt_xent([z[m] for m in SIGHT_SOUND], self.temperature)}


class BarlowTwins(Siamese):
    """Draw the modalities' correlations over the batch to the identity (Zbontar et al., 2021)."""

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        off_diagonal: float,
    ) -> None:
        super().__init__(towers, stages, heads=heads)
        at_least(0, off_diagonal=off_diagonal)
        self.off_diagonal = off_diagonal

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Eqs. 1 and 2: what AVCL's CGRA leaves out is that columns are centred."""
        z = self.views(batch)
        v, a = (z[m] for m in SIGHT_SOUND)
        return {"correlation": cross_correlation(v, a, self.off_diagonal, centred=True)}


class SimSiam(Siamese):
    """Predict each modality from the other, without negatives (Chen and He, 2021).

    Args:
        towers: of video and audio.
        stages: the parts of training.
        heads: projections.
        predictors: modality to what predicts the other one's projection from its own.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        predictors: Heads,
    ) -> None:
        super().__init__(towers, stages, heads=heads)
        self.predictors = nn.ModuleDict({m: predictors[m] for m in SIGHT_SOUND})

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Half the negative cosine each way; what is predicted gets no gradient (eq. 4)."""
        z = self.views(batch)
        p = self.predicted(z)
        return {f"{m} to {OTHER[m]}": negative_cosine(p[m], z[OTHER[m]]) / 2 for m in SIGHT_SOUND}

    def predicted(self, z: Embeddings) -> Embeddings:
        """Each modality's prediction of the other's projection."""
        with torch.autocast(z["video"].device.type, enabled=False):
            return {m: self.predictors[m](z[m]) for m in SIGHT_SOUND}

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """How well each modality predicts the other: the mean cosine, which the loss is of."""
        rows = {m: at_least_fp32(self.towers[m](batch.inputs[m])) for m in SIGHT_SOUND}
        z = {m: self.heads[m](x) for m, x in rows.items()}
        p = self.predicted(z)
        both = [F.cosine_similarity(p[m], z[OTHER[m]], dim=1) for m in SIGHT_SOUND]
        return {"predicted": torch.stack(both).mean(0)}


class Slow(nn.Module):
    """A copy of towers and heads that follows them: no gradient, weights and buffers in the state.

    Args:
        method: whose towers and heads are copied.
    """

    def __init__(self, method: Siamese) -> None:
        super().__init__()
        self.towers = deepcopy(method.towers).requires_grad_(False)
        self.heads = deepcopy(method.heads).requires_grad_(False)

    def start(self, method: Siamese) -> None:
        """Be what the method's are."""
        self.towers.load_state_dict(method.towers.state_dict())
        self.heads.load_state_dict(method.heads.state_dict())

    @torch.no_grad()
    def follow(self, method: Siamese, momentum: float) -> None:
        """Keep `momentum` of the own weights, and take the rest from the method's."""
        for mine, theirs in ((self.towers, method.towers), (self.heads, method.heads)):
            for slow, fast in zip(mine.parameters(), theirs.parameters(), strict=True):
                slow.lerp_(fast.to(slow.dtype), 1 - momentum)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Embeddings:
        """All ranks' projections."""
        return headed(self.towers, self.heads, {m: batch.inputs[m] for m in SIGHT_SOUND})


class BYOL(SimSiam):
    """Predict what slow copies of towers and heads make of the other modality (Grill et al., 2020).

    Args:
        towers: of video and audio.
        stages: the parts of training.
        heads: projections.
        predictors: modality to what predicts the other one's slow projection.
        momentum: of the slow copies at first; by half a cosine it becomes 1 at a stage's end.
    """

    chunked = False
    steps: Tensor

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        predictors: Heads,
        momentum: float,
    ) -> None:
        super().__init__(towers, stages, heads=heads, predictors=predictors)
        _check_momentum(momentum)
        self.momentum = momentum
        self.clips = 0
        self.slow = Slow(self)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def attach(self, clips: Clips) -> None:
        """Note how many there are: how long a stage is follows from it."""
        self.clips = len(clips)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """‖p - z‖² of unit rows each way, 2 - 2 cos (eqs. 2 and 3)."""
        z = self.views(batch)
        if self.training:
            self.slow.follow(self, self.keeping(len(z["video"]), stage))
            self.steps += 1
        p, slow = self.predicted(z), self.slow(batch)
        return {
            f"{m} to {OTHER[m]}": 2 + 2 * negative_cosine(p[m], slow[OTHER[m]]) for m in SIGHT_SOUND
        }

    def started(self) -> None:
        """The slow copies begin where the others do."""
        self.slow.start(self)

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> None:
        """Count the stage's steps from 0."""
        self.steps.zero_()

    def keeping(self, batch: int, stage: Stage) -> float:
        """Momentum at the present step, 1 - (1 - τ)(cos(πk / K) + 1) / 2 (section 3.2)."""
        steps = stage.epochs * (self.clips // batch)
        gone = min(1.0, int(self.steps) / steps) if steps else 0.0
        return 1 - (1 - self.momentum) * (math.cos(math.pi * gone) + 1) / 2


class MoCo(Siamese):
    """Tell a clip's other modality from a queue of earlier clips' (He et al., 2020; Chen, 2020).

    What is compared with are keys: unit rows of slow copies of towers and heads. Until the queue is
    full the batch's other keys stand beside it. A clip never meets an old key of its own. All ranks
    hold the queue of one process: keys enter in the order of the table.

    Args:
        towers: of video and audio.
        stages: the parts of training.
        heads: projections.
        width: of the heads' output.
        temperature: τ.
        momentum: of the slow copies.
        keys: length of each modality's queue.
    """

    chunked = False
    held: Tensor
    entered: Tensor

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        width: int,
        temperature: float,
        momentum: float,
        keys: int,
    ) -> None:
        super().__init__(towers, stages, heads=heads)
        above_zero(temperature=temperature)
        at_least(1, keys=keys)
        _check_momentum(momentum)
        self.temperature, self.momentum = temperature, momentum
        self.slow = Slow(self)
        for modality in SIGHT_SOUND:
            self.register_buffer(f"queue_{modality}", torch.zeros(keys, width))
        self.register_buffer("held", torch.zeros(keys, dtype=torch.int64))
        self.register_buffer("entered", torch.zeros((), dtype=torch.int64))

    def started(self) -> None:
        """The slow copies begin where the others do."""
        self.slow.start(self)

    def queue(self, modality: Modality) -> Float[Tensor, "keys width"]:
        """The queue of a modality; its first rows only, until it is full."""
        return self.get_buffer(f"queue_{modality}")

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """InfoNCE of queries with the other modality's keys (eq. 1), and the queues' step."""
        q = {m: F.normalize(x, dim=1) for m, x in self.views(batch).items()}
        if self.training:
            self.slow.follow(self, self.momentum)
        k = {m: F.normalize(x, dim=1) for m, x in self.slow(batch).items()}
        clips = gather(batch.index)
        terms = {
            f"{m} to {OTHER[m]}": self._contrast(q[m], k[OTHER[m]], clips, OTHER[m]) for m in q
        }
        if self.training:
            order = clips.argsort()
            self._renew({m: rows[order] for m, rows in k.items()}, clips[order])
        return terms

    def _contrast(
        self, queries: Tensor, keys: Tensor, clips: Tensor, other: Modality
    ) -> Float[Tensor, ""]:
        queue = self.queue(other)
        known = min(int(self.entered), len(queue))
        others, held = queue[:known].clone(), self.held[:known]
        if known < len(queue):
            others, held = torch.cat([others, keys]), torch.cat([held, clips])
        return key_nce(queries, keys, others, self.temperature, leave=clips[:, None] == held)

    @torch.no_grad()
    def _renew(self, keys: Embeddings, clips: Tensor) -> None:
        """The batch's keys in place of the oldest."""
        n, size = len(clips), len(self.held)
        if n > size:
            raise UsageError(f"a queue of {size} keys cannot take a batch of {n}; make it longer")
        places = (int(self.entered) + torch.arange(n, device=clips.device)) % size
        for modality, rows in keys.items():
            self.queue(modality)[places] = rows
        self.held[places] = clips
        self.entered += n


class IIC(Siamese):
    """Tell a clip's other modality from other clips' and from clips whose order in time is broken.

    Inter-intra contrast (Tao, Wang, Yamasaki, 2020). All that is compared with lies in memory banks
    of a row a clip: of each modality, and of the broken videos. A row is a running mean of unit
    rows, and of unit length; it begins as what the clip is before anything is learned. The gradient
    is that of the asking row alone.

    Args:
        towers: of video and audio.
        stages: the parts of training.
        heads: projections.
        width: of the heads' output.
        temperature: τ.
        negatives: clips that are drawn from the banks a step, for the whole batch.
        momentum: share of a bank's row that it keeps when its clip comes again.
        broken: `repeat` shows one frame throughout, `shuffle` lets two quarters of the clip change
            places.
        bank: clips that the banks have rows for.
    """

    chunked = False
    steps: Tensor

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        heads: Heads,
        width: int,
        temperature: float,
        negatives: int,
        momentum: float,
        broken: Broken,
        bank: int,
    ) -> None:
        super().__init__(towers, stages, heads=heads)
        above_zero(temperature=temperature)
        at_least(1, negatives=negatives, bank=bank)
        _check_momentum(momentum)
        if broken not in get_args(Broken):
            raise UsageError(f"broken is {' or '.join(get_args(Broken))}, not {broken!r}")
        self.temperature, self.negatives, self.momentum = temperature, negatives, momentum
        self.broken: Broken = broken
        self.clips = bank
        for name in (*SIGHT_SOUND, "broken"):
            self.register_buffer(f"bank_{name}", torch.zeros(bank, width))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def attach(self, clips: Clips) -> None:
        """Note how many there are.

        Raises:
            UsageError: they are more than the banks have rows for.
        """
        rows = len(self.bank("broken"))
        if len(clips) > rows:
            raise UsageError(
                f"the memory banks have {rows} rows, and there are {len(clips)} clips: ask for "
                f"`--bank {len(clips)}` or more"
            )
        self.clips = len(clips)

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> None:
        """Fill the banks.

        A clip's own row is then as old as the others: were it of today, networks would learn to
        tell today from yesterday, by moving all rows together until they are one.
        """
        if not stage.epochs:
            return
        for name, rows in features().items():
            bank = self.bank(name)
            bank[: self.clips] = dealt(to_tensor(rows[:]), self.clips).to(bank)

    def survey(self, batch: Batch) -> dict[str, Tensor]:
        """A clip's rows of all banks."""
        broken = break_time(batch.inputs["video"], self.broken, batch.index, int(self.steps))
        rows = {str(m): x for m, x in self.embed(batch).items()}
        return rows | {"broken": self.embed(Batch(batch.index, {"video": broken}))["video"]}

    def bank(self, name: str) -> Float[Tensor, "rows width"]:
        """A memory bank."""
        return self.get_buffer(f"bank_{name}")

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Contrast of each modality with the banks, and the banks' step."""
        rows: dict[str, Tensor] = {m: F.normalize(x, dim=1) for m, x in self.views(batch).items()}
        with torch.no_grad():
            index = gather(batch.index)
            rows["broken"] = self._broken_rows(batch)
            drawn = self._drawn(index.device)
        terms = {
            f"{m} to {OTHER[m]}": self._contrast(rows[m], OTHER[m], index, drawn)
            for m in SIGHT_SOUND
        }
        if self.training:
            self._renew(index, {name: x.detach() for name, x in rows.items()})
        return terms

    def _contrast(
        self,
        queries: Tensor,
        other: Modality,
        index: Tensor,
        drawn: Tensor,
    ) -> Float[Tensor, ""]:
        """Its own row of the other modality against drawn clips' and against broken videos."""
        bank, broken = self.bank(other), self.bank("broken")
        others = torch.cat([bank[drawn], broken[drawn], broken[index]])
        itself = index[:, None] == drawn
        not_mine = ~torch.eye(len(index), dtype=torch.bool, device=index.device)
        leave = torch.cat([itself, itself, not_mine], 1)
        return key_nce(queries, bank[index], others, self.temperature, leave=leave)

    def _broken_rows(self, batch: Batch) -> Float[Tensor, "clips width"]:
        x = break_time(batch.inputs["video"], self.broken, batch.index, int(self.steps))
        rows: Tensor = headed(self.towers, self.heads, {"video": x})["video"]
        return F.normalize(rows, dim=1)

    def _drawn(self, device: torch.device) -> Int[Tensor, "negatives"]:
        """Clips, drawn with replacement, alike on all ranks."""
        random = torch.Generator().manual_seed(int(self.steps))
        return torch.randint(self.clips, (self.negatives,), generator=random).to(device)

    @torch.no_grad()
    def _renew(self, index: Tensor, rows: Mapping[str, Tensor]) -> None:
        for name, fresh in rows.items():
            bank = self.bank(name)
            moved = self.momentum * bank[index] + (1 - self.momentum) * fresh.to(bank.dtype)
            bank[index] = F.normalize(moved, dim=1)
        self.steps += 1


def break_time(x: Tensor, how: Broken, clips: Int[Tensor, "n"], step: int) -> Tensor:
    """Clips [n, time, ...] whose order in time is broken; which way depends on clip and step alone.

    Args:
        x: the clips.
        how: `repeat`: one frame, drawn at random, throughout. `shuffle`: two of four parts, as
            nearly equal as can be, change places.
        clips: their numbers.
        step: of training.

    Raises:
        UsageError: there is one frame only.
    """
    time = x.shape[1]
    if time < 2:
        raise UsageError("a video of 1 frame has no order to break; ask for 2 `--frames` or more")
    orders = [_order(time, how, int(clip), step) for clip in clips]
    order = torch.tensor(orders, device=x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], order]


def _order(time: int, how: Broken, clip: int, step: int) -> list[int]:
    random = np.random.default_rng((step, clip))
    if how == "repeat":
        return [int(random.integers(time))] * time
    parts = [part.tolist() for part in np.array_split(np.arange(time), min(CUTS, time))]
    i, j = random.permutation(len(parts))[:2]
    parts[i], parts[j] = parts[j], parts[i]
    return [frame for part in parts for frame in part]


def simclr(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    temperature: float = 0.07,
    hidden: int = 512,
    shared: int = 128,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """SimCLR's objective on sight and sound, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ.
        hidden: units of the projection.
        shared: width of what is compared.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        heads = _each(lambda: perceptron(parts.width, hidden, shared))
        return SimCLR(towers, stages, heads=heads, temperature=temperature)

    return _recipe(tokenizer, method, epochs, rate, parts)


def moco(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    temperature: float = 0.07,
    momentum: float = 0.999,
    keys: int = 4096,
    hidden: int = 512,
    shared: int = 128,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """MoCo's queue on sight and sound, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ.
        momentum: of the networks that make keys.
        keys: length of each modality's queue; the original has 65536, more than K32 has clips.
        hidden: units of the projection, which is MoCo v2's.
        shared: width of what is compared.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        return MoCo(
            towers,
            stages,
            heads=_each(lambda: perceptron(parts.width, hidden, shared, norm=False)),
            width=shared,
            temperature=temperature,
            momentum=momentum,
            keys=keys,
        )

    return _recipe(tokenizer, method, epochs, rate, parts)


def byol(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    momentum: float = 0.996,
    hidden: int = 4096,
    shared: int = 256,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """BYOL's prediction between sight and sound, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        momentum: of the slow networks at first; it ends at 1.
        hidden: units of projection and predictor.
        shared: width of what is compared.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        return BYOL(
            towers,
            stages,
            heads=_each(lambda: perceptron(parts.width, hidden, shared)),
            predictors=_each(lambda: perceptron(shared, hidden, shared)),
            momentum=momentum,
        )

    return _recipe(tokenizer, method, epochs, rate, parts)


def simsiam(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    hidden: int = 2048,
    shared: int = 2048,
    bottleneck: int = 512,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """SimSiam's prediction between sight and sound, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        hidden: units of the projection's two hidden layers.
        shared: width of what is compared.
        bottleneck: units of the predictor.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        widths = (parts.width, hidden, hidden, shared)
        return SimSiam(
            towers,
            stages,
            heads=_each(lambda: perceptron(*widths, norm_last=True)),
            predictors=_each(lambda: perceptron(shared, bottleneck, shared)),
        )

    return _recipe(tokenizer, method, epochs, rate, parts)


def barlow_twins(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    off_diagonal: float = 0.005,
    hidden: int = 8192,
    shared: int = 8192,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """Barlow Twins' correlation of sight with sound, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        off_diagonal: λ.
        hidden: units of the projection's two hidden layers.
        shared: width of what is correlated.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        heads = _each(lambda: perceptron(parts.width, hidden, hidden, shared))
        return BarlowTwins(towers, stages, heads=heads, off_diagonal=off_diagonal)

    return _recipe(tokenizer, method, epochs, rate, parts)


def iic(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    temperature: float = 0.07,
    negatives: int = 1024,
    momentum: float = 0.5,
    broken: Broken = "repeat",
    bank: int = 65536,
    shared: int = 128,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """IIC's contrast of sight and sound with memory banks, with AVCL's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ.
        negatives: clips that are drawn from the banks a step.
        momentum: share of a bank's row that it keeps when its clip comes again.
        broken: how the order in time of intra-negatives is broken: repeat or shuffle.
        bank: clips that the banks have rows for; three rows each.
        shared: width of what is compared.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """

    def method(towers: dict[Modality, nn.Module], stages: Sequence[Stage]) -> Method:
        return IIC(
            towers,
            stages,
            heads=_each(lambda: perceptron(parts.width, shared)),
            width=shared,
            temperature=temperature,
            negatives=negatives,
            momentum=momentum,
            broken=broken,
            bank=bank,
        )

    return _recipe(tokenizer, method, epochs, rate, parts)


SMALL: dict[str, Any] = {"epochs": 13, "rate": 1e-3}
"""Of the small twins."""

simclr_small = small(
    simclr,
    "SimCLR's objective on sight and sound, with small towers, for a processor.",
    **SMALL,
    hidden=256,
)
moco_small = small(
    moco,
    "MoCo's queue on sight and sound, with small towers, for a processor.",
    **SMALL | {"rate": 3e-4},
    keys=1024,
    hidden=256,
)
byol_small = small(
    byol,
    "BYOL's prediction between sight and sound, with small towers, for a processor.",
    **SMALL,
    momentum=0.99,
    hidden=512,
    shared=128,
)
simsiam_small = small(
    simsiam,
    "SimSiam's prediction between sight and sound, with small towers, for a processor.",
    **SMALL,
    hidden=512,
    shared=512,
    bottleneck=128,
)
barlow_twins_small = small(
    barlow_twins,
    "Barlow Twins' correlation of sight with sound, with small towers, for a processor.",
    **SMALL,
    hidden=512,
    shared=512,
)
iic_small = small(
    iic,
    "IIC's contrast of sight and sound with memory banks, with small towers, for a processor.",
    **SMALL | {"rate": 3e-4},
    momentum=0.9,
    bank=16384,
)


def _each(head: Callable[[], nn.Module]) -> dict[Modality, nn.Module]:
    """One for each modality, with weights of its own."""
    return {modality: head() for modality in SIGHT_SOUND}


def _recipe(
    tokenizer: Tokenizer,
    method: Callable[[dict[Modality, nn.Module], Sequence[Stage]], Method],
    epochs: int,
    rate: float,
    parts: Parts,
) -> Recipe:
    towers = parts.towers(tokenizer, SIGHT_SOUND)
    with drawn_by(parts.seed):
        made = method(towers, (Stage("pretrain", epochs),))
    return parts.recipe(tokenizer, made, (rate,))


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum < 1:
        raise UsageError(f"momentum is 0 or more and below 1, not {momentum}")

"""What a method and a recipe are."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.cluster import Rows
from sonant.data import Array, Views, order
from sonant.distributed import gather
from sonant.encoders import Encoder
from sonant.errors import UsageError, above_zero, at_least
from sonant.types import MODALITIES, Batch, Embeddings, Modality, Stage

Precision = Literal["fp32", "bf16"]


@contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """Weights are drawn by this seed here, on the processor; other generators stay as they are."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        yield


class Tower(nn.Module):
    """An encoder and a linear head into the space that the modalities share."""

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, width)

    def forward(self, x: Tensor) -> Float[Tensor, "n width"]:
        """Encode and project; rows are not normalised."""
        out: Tensor = self.head(self.encoder(x))
        return out


@runtime_checkable
class Mapped(Protocol):
    """A tower that also gives the maps on its way, as convolutional encoders do."""

    def maps(self, x: Tensor, /) -> dict[str, Tensor]:
        """`conv3`, `conv4`, `conv5` [n, planes, ...] and `pool` [n, width]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What the beginning of a stage found."""

    said: str = ""
    """In words; empty is not said."""
    line: Mapping[str, Any] = field(default_factory=dict)
    """What the log's line of the first step has beside the others."""
    table: pa.Table | None = None
    """Of the training clips, kept in the run's folder under the name of the stage."""
    skip: bool = False
    """Whether nothing is to be learned in this stage."""


class Method(nn.Module):
    """What one paper does with a batch.

    Whatever it needs after a restart is a parameter or a buffer. Buffers are not exchanged between
    ranks: each rank fills and changes them alike.

    Args:
        towers: modality to tower; what a batch holds of other modalities is not looked at.
        stages: the parts of training, in order, with different names.
    """

    def __init__(self, towers: Mapping[Modality, nn.Module], stages: Sequence[Stage]) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({m: towers[m] for m in MODALITIES if m in towers})
        self.stages = tuple(stages)

    partial: ClassVar[bool] = False
    """Whether clips that lack modalities are learned from, or refused."""
    inherited: tuple[str, ...] = ()
    """Modules beside the towers that others' weights are to fill too, such as AVCL's gate."""
    chunked: ClassVar[bool] = True
    """Whether nothing but the towers looks at a batch's inputs, so that chunks can follow each
    other."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that this method learns from."""
        return cast("tuple[Modality, ...]", tuple(self.towers))

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns that this method learns from; most learn from none."""
        return ()

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that this method learns from beside the clips, by the arguments that name them.

        Most learn from none.
        """
        return {}

    def attach(self, clips: Clips) -> None:
        """Take what is needed of the training clips, such as their labels.

        Called before a run starts or goes on. A buffer as long as the clips is made here, so that a
        checkpoint finds it when the run goes on.
        """

    def started(self) -> None:
        """Take note that a new run's first weights are in place, others' weights among them."""

    @property
    def clip_buffers(self) -> tuple[str, ...]:
        """Buffers that are of the training clips: in checkpoints, but no part of the weights."""
        return ()

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> Opening | None:
        """Prepare for a stage; called before its first step, on every rank alike.

        The method is in evaluation mode, and torch's random numbers are a function of the recipe's
        seed and the stage.

        Args:
            stage: the one that begins.
            features: what `survey` makes of the training clips, computed when called, on disk: on
                rank r of n, of every n-th clip from the r-th on.
        """
        return None

    surveyed: torch.dtype = torch.float32
    """In which a survey lies on disk."""

    def survey(self, batch: Batch) -> Mapping[str, Tensor]:
        """What `begin` may want to know of every training clip: [clips, width] by name."""
        return cast("Mapping[str, Tensor]", self.embed(batch))

    def order(self, clips: int, *, seed: int, stage: Stage, epoch: int) -> Array:
        """The rows that an epoch shows, as many as there are clips, in their order.

        By default each once. A function of the arguments and the method's buffers alone.
        """
        return order(clips, seed=seed, stage=stage.name, epoch=epoch)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Named terms, scalars; their sum is the loss of the whole batch, over all ranks."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Embeddings:
        """Unit rows [clips, width] for each modality in the batch, a clip's own alone."""
        rows = {m: self.towers[m](x) for m, x in batch.inputs.items() if m in self.towers}
        return {m: F.normalize(at_least_fp32(x), dim=1) for m, x in rows.items()}

    def gathered(
        self, batch: Batch, modalities: Iterable[Modality] = MODALITIES
    ) -> tuple[Embeddings, dict[Modality, Tensor]]:
        """All ranks' embeddings of some modalities, and which clips have those that some lack."""
        wanted = {m: x for m, x in batch.inputs.items() if m in set(modalities)}
        e = self.embed(Batch(batch.index, wanted))
        there = {m: gather(x.to(torch.uint8)).bool() for m, x in batch.there.items() if m in e}
        return {m: gather(x) for m, x in e.items()}, there

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """What the method itself predicts of each clip: name to [clips]. Most predict nothing."""
        return {}

    def merit(self, scores: Mapping[str, Array], clips: Clips) -> float:
        """How good the method's own scores [clips] of some clips are: larger is better.

        It chooses the best epoch where training is told to, by clips that are not learned from.

        Raises:
            UsageError: the method has no such measure; most have none.
        """
        raise UsageError(
            f"{type(self).__name__} has no measure of its own that could choose the best epoch"
        )


def at_least_fp32(x: Tensor) -> Tensor:
    """What losses and scores are computed in, whatever the towers ran in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that training needs beside the clips."""

    method: Method
    views: Views
    batch: int
    """Clips a step, over all ranks together."""
    learning_rates: Sequence[float]
    """The peak of each stage."""
    chunk: int = 0
    """Clips that a rank embeds at once; 0: its whole part of the batch. See `sonant.chunks`."""
    warmup: float = 0.05
    """Share of each stage's steps in which the learning rate rises."""
    milestones: Sequence[float] = ()
    """Shares of each stage at which its rate is multiplied by `gamma`; none: half a cosine."""
    gamma: float = 0.1
    """What the rate is multiplied by at each milestone."""
    head_rate: float = 1.0
    """Learning rate of all that is no tower, in times of the towers'."""
    weight_decay: float = 0.0
    """The optimiser's, on matrices and kernels; biases and scales are left alone."""
    momentum: float | None = None
    """Of SGD, below 1; None optimises with AdamW."""
    clip_norm: float = 1.0
    """Longest gradient; a longer one is shortened to it."""
    precision: Precision = "fp32"
    """Of the towers in training; losses and evaluation are always fp32."""
    initialise: Callable[[], str] | None = None
    """Fills the method with others' weights before a new run's first step, and says in words what
    it took; a run that goes on, or is read, does without."""
    seed: int = 0
    """Of order and augmentation; the method's weights come initialised."""

    def __post_init__(self) -> None:
        at_least(1, batch=self.batch)
        at_least(0, chunk=self.chunk)
        if self.chunk and not self.method.chunked:
            raise UsageError(
                f"{type(self.method).__name__} looks at whole batches; leave chunk at 0"
            )
        at_least(0, seed=self.seed)
        at_least(0, **{f"epochs of {stage.name}": stage.epochs for stage in self.method.stages})
        for stage in self.method.stages:
            if not 0 <= stage.begun_share <= 1:
                raise UsageError(
                    f"the weights that {stage.name} begins with have a share of 0 to 1 in those it "
                    f"ends with, not {stage.begun_share:g}"
                )
        above_zero(clip_norm=self.clip_norm, head_rate=self.head_rate)
        at_least(0, gamma=self.gamma, weight_decay=self.weight_decay)
        for rate in self.learning_rates:
            if not 0 <= rate < inf:
                raise UsageError(f"a learning rate is a finite number of 0 or more, not {rate}")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise UsageError(f"momentum of SGD must be 0 or more and below 1, not {self.momentum}")

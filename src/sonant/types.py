"""The few types that everything else is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Label = str | int | float | bool | None

Modality = Literal["audio", "video", "text"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Map = Literal["conv3", "conv4", "conv5"]
"""What three stages of a convolutional network give."""
Layer = Literal["conv3", "conv4", "conv5", "pool"]
"""One of them, or the last one pooled."""

Embeddings = dict[Modality, "Tensor"]
"""Modality to [clips, width]; row i of each is the same clip."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One span of one video, and what is said of it: a row of the clip table."""

    id: str
    video: str
    """Path of the video relative to the table's root, with forward slashes."""
    start: float
    """Seconds on the video's presentation clock; so is `end`."""
    end: float
    text: str = ""
    """The narration; empty where there is none."""
    split: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips as tensors: `index` [n] rows of the clip table; `inputs` [n, ...] for each modality."""

    index: Tensor
    inputs: dict[Modality, Tensor]
    there: dict[Modality, Tensor] = field(default_factory=dict)
    """Booleans [n]: which clips have a modality. All have one that is no key; the inputs of a clip
    without are zeros, and nothing may depend on them."""

    def part(self, rows: slice) -> Batch:
        """Some of the clips."""
        inputs = {modality: x[rows] for modality, x in self.inputs.items()}
        there = {modality: x[rows] for modality, x in self.there.items()}
        return Batch(self.index[rows], inputs, there)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of training: its name, its length, and which towers move in it (None: all)."""

    name: str
    epochs: int
    train: frozenset[Modality] | None = None
    begun_share: float = 0.0
    """Of the weights that it began with, in those it ends with; 0: what was learned, as it is."""

"""Towers: a modality's input to one vector a clip."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """What a tower is built on: a module from an input [clips, ...] to [clips, width]."""

    width: int

    def __call__(self, x: Tensor, /) -> Tensor:
        """Encode."""
        ...

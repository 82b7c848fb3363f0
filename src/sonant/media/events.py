"""What comes out of a media file as it is decoded, and why something may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame

Samples = np.ndarray[Any, np.dtype[np.float32]]
Kind = Literal["video", "audio"]

TICK = 1e-6
"""Seconds by which two times may differ and still be the same."""
EDGE = 0.1
"""Seconds by which a span may reach beyond the pictures or the sound, at either end.

Streams of one file hardly ever begin and end together. The first picture counts so long before its
time, the last one so long after its own end, and sound is mirrored from what is there."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded video frame from `time` on, with `duration` 0 where the file does not say."""

    time: float
    duration: float
    frame: VideoFrame


@dataclass(frozen=True, slots=True)
class Sound:
    """A stretch of mono samples [n] at `rate`, the first at `time`."""

    time: float
    samples: Samples
    rate: int

    @property
    def end(self) -> float:
        """Time after the last sample."""
        return self.time + len(self.samples) / self.rate


@dataclass(frozen=True, slots=True)
class Damage:
    """Something of a stream was lost at about `time`."""

    time: float
    kind: Kind
    reason: str


Event = Picture | Sound | Damage


def kind_of(event: Event) -> Kind:
    """The kind of stream that an event is of."""
    if isinstance(event, Damage):
        return event.kind
    return "video" if isinstance(event, Picture) else "audio"


class Lost(Exception):  # noqa: N818 (caught where the path is known, and made a MediaError)
    """A span cannot be had, for a reason fit for people, because of what is at `time`."""

    def __init__(self, reason: str, time: float) -> None:
        super().__init__(reason)
        self.reason, self.time = reason, time

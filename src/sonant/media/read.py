"""A span of a media file as frames and samples with their times."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonant.errors import MediaError, UsageError
from sonant.media.decode import MediaFile
from sonant.media.display import SHAPES, Scaler, Screen, shown_size
from sonant.media.events import Lost, Picture, Samples, Sound
from sonant.media.frames import Pixels, Times, centres
from sonant.media.sound import MARGIN, SoundTrack

PREROLL = 0.5
"""Seconds that sound decoders are given to settle before a span."""


@dataclass(frozen=True, eq=False)
class Media:
    """What is seen and heard in a span. A stream that the file does not have is None.

    Times are seconds on the file's presentation clock, from its first frame or sample, whichever
    is earlier.
    """

    frames: Pixels | None
    """Upright RGB pixels [T, H, W, 3], 0 to 255."""
    frame_times: Times | None
    """When each frame came on display [T]."""
    samples: Samples | None
    """Mono sound [S], within -1 to 1 where the file keeps to its scale."""
    samples_start: float | None
    """Time of the first sample."""
    rate: int
    """Samples per second."""

    def __post_init__(self) -> None:
        frames = None if self.frames is None else len(self.frames)
        times = None if self.frame_times is None else len(self.frame_times)
        if frames != times:
            raise ValueError(f"{frames} frames but {times} times of frames")
        if (self.samples is None) != (self.samples_start is None):
            raise ValueError("samples and the time of the first one come together or not at all")

    def __repr__(self) -> str:
        frames = None if self.frames is None else list(self.frames.shape)
        samples = None if self.samples is None else list(self.samples.shape)
        return f"Media(frames={frames}, samples={samples}, rate={self.rate})"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a media file says of itself, and when it begins and ends."""

    duration: float
    """Seconds from its first frame or sample to the end of its last."""
    has_video: bool
    has_audio: bool
    width: int
    """Pixels of a picture as shown, 0 without video; so is `height`."""
    height: int
    frame_rate: float
    """Average frames per second, 0 where unknown."""
    sample_rate: int
    """Samples per second, 0 without sound."""
    channels: int


def read(path: Path | str, start: float, end: float, *, frames: int, size: int, rate: int) -> Media:
    """Read a span of a media file.

    Frame k is the one on display at the middle of the k-th of `frames` equal parts of the span. The
    samples start within half a sample (of the file's own rate) of `start`. A span may reach beyond
    the video or the sound by 0.1 s: there the first or last frame counts, and sound is mirrored.
    Anything more is an error, and so is a hole, or anything damaged: nothing is made up.

    Channels are mixed as ffmpeg's `-ac 1` does (ITU-R BS.775): front ones at 0.71, centre at 1,
    surrounds at 0.5, no effects channel, scaled to sum to 1. Stereo is thus averaged.

    Args:
        path: any file that FFmpeg reads.
        start: seconds from the file's first frame or sample, whichever is earlier.
        end: seconds on the same clock.
        frames: how many frames, at least 1.
        size: pixels of the frames' short side.
        rate: samples per second wanted, whatever the file's own rate.

    Raises:
        UsageError: times that are no numbers, negative or out of order; counts below 1.
        MediaError: the file, or this span of it, cannot be read; with time and reason.
    """
    check_request(start, end, frames=frames, size=size, rate=rate)
    pictures: Pixels | None = None
    times: Times | None = None
    samples: Samples | None = None
    samples_start: float | None = None
    with MediaFile(path) as file:
        try:
            if file.video is not None:
                pictures, times = _pictures(file, centres(start, end, frames), size)
            if file.audio is not None:
                samples, samples_start = _samples(file, start, end, rate)
        except Lost as lost:
            raise MediaError(path, lost.reason, lost.time) from lost
    return Media(pictures, times, samples, samples_start, rate)


def probe(path: Path | str) -> Probe:
    """Read a media file's headers; where they do not tell the duration, its packets too.

    Raises:
        MediaError: the file is missing, unreadable, or has neither video nor sound.
    """
    with MediaFile(path) as file:
        video, audio, first = file.video, file.audio, file.first_picture()
        width, height = (0, 0) if first is None else shown_size(first.frame, file.pixel_shape)
        return Probe(
            duration=file.duration(),
            has_video=video is not None,
            has_audio=audio is not None,
            width=width,
            height=height,
            frame_rate=float(video.average_rate or 0) if video is not None else 0.0,
            sample_rate=audio.codec_context.sample_rate if audio is not None else 0,
            channels=audio.codec_context.channels if audio is not None else 0,
        )


def check_request(start: float, end: float, *, frames: int, size: int, rate: int) -> None:
    """Refuse what no file could answer.

    Raises:
        UsageError: naming the value and what would be right.
    """
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise UsageError(f"a span needs 0 <= start < end in seconds, not {start} to {end}")
    for name, value in (("frames", frames), ("size", size), ("rate", rate)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")


def _pictures(file: MediaFile, times: Times, size: int) -> tuple[Pixels, Times]:
    screen, scaler = Screen(list(times)), Scaler(size, file.pixel_shape)
    file.only_show(list(times))
    shown: list[Pixels] = []
    shown_times: list[float] = []

    def show(answers: Iterable[tuple[int, Picture | str]]) -> None:
        for index, answer in answers:
            if isinstance(answer, str):
                raise Lost(answer, times[index])
            repeated = shown_times and shown_times[-1] == answer.time
            shown.append(shown[-1] if repeated else scaler.pixels(answer.frame))
            shown_times.append(answer.time)

    for event in file.events_around(times[0], "video"):
        if not isinstance(event, Sound):
            show(screen.feed(event))
        if screen.done:
            break
    show(screen.finish())
    if len({picture.shape for picture in shown}) > 1:
        raise Lost(SHAPES, times[0])
    return np.stack(shown), np.array(shown_times)


def _samples(file: MediaFile, start: float, end: float, rate: int) -> tuple[Samples, float]:
    track = SoundTrack()
    for event in file.events_around(max(0.0, start - PREROLL), "audio"):
        if not isinstance(event, Picture):
            track.feed(event)
        if event.time > end + MARGIN:
            break
    return track.cut(start, end, rate)

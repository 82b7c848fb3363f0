"""Which picture is on display when, and its pixels as a player shows them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from av.buffer import Buffer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from sonant.media.events import EDGE, TICK, Damage, Lost, Picture
from sonant.media.frames import Pixels, short_side

SHAPES = "the pictures change their shape within the span"


class Screen:
    """What is on display at the times asked for, told as the pictures arrive.

    That is the last picture whose time has come. The first one also counts for `EDGE`
    before its time, the last one for its own duration and `EDGE` more. Nothing that
    depends on damaged data is shown: from the damage to the next key frame there is a reason
    instead.

    Args:
        times: seconds, ascending.
    """

    def __init__(self, times: Sequence[float]) -> None:
        self._times = times
        self._next = 0
        self._now: Picture | None = None
        self._lost = math.inf

    @property
    def done(self) -> bool:
        """Whether every time has had its answer."""
        return self._next == len(self._times)

    def feed(self, event: Picture | Damage) -> Iterator[tuple[int, Picture | str]]:
        """Answers (index of the time, picture or reason) that this event makes certain."""
        if isinstance(event, Damage):
            self._lost = min(self._lost, event.time)
            return
        if self._now is None:
            yield from self._answer(event.time - EDGE)
        elif event.time <= self._now.time:
            return
        else:
            yield from self._answer(event.time)
        self._now = event
        if event.frame.key_frame and self._lost <= event.time:
            self._lost = math.inf

    def finish(self) -> Iterator[tuple[int, Picture | str]]:
        """Answers for the rest, at the end of the file."""
        if self._now is not None:
            yield from self._answer(self._now.time + self._now.duration + EDGE)
        for index in range(self._next, len(self._times)):
            self._next = index + 1
            yield index, self._end(self._times[index])

    def _answer(self, limit: float) -> Iterator[tuple[int, Picture | str]]:
        while not self.done and self._times[self._next] < limit - TICK:
            time = self._times[self._next]
            self._next += 1
            if time >= self._lost:
                yield self._next - 1, f"the video is damaged at {self._lost:.3f} s"
            elif self._now is None:
                yield self._next - 1, f"at {time:.3f} s the video has not begun"
            else:
                yield self._next - 1, self._now

    def _end(self, time: float) -> str:
        if self._lost <= time:
            return f"the video is damaged at {self._lost:.3f} s"
        if self._now is None:
            return "no frame of the video can be decoded"
        end = self._now.time + self._now.duration
        return f"the video ends at {end:.3f} s, before a frame wanted at {time:.3f} s"


class Scaler:
    """Turns decoded frames into upright RGB pixels with a given short side.

    Args:
        size: pixels of the short side.
        pixel_shape: width of a pixel over its height, as the file has them.
    """

    def __init__(self, size: int, pixel_shape: float) -> None:
        self._size, self._pixel_shape = size, pixel_shape
        self._reformatter = VideoReformatter()

    def pixels(self, frame: VideoFrame) -> Pixels:
        """Pixels [H, W, 3] as a player shows them: square, turned and mirrored as the file says.

        Raises:
            Lost: the pixel format or size is one that cannot be converted.
        """
        shown_width = max(1, round(frame.width * self._pixel_shape))
        width, height = short_side(shown_width, frame.height, self._size)
        try:
            rgb = self._reformatter.reformat(
                frame, width, height, "rgb24", interpolation=Interpolation.AREA, threads=1
            ).to_ndarray()
        except (FFmpegError, ValueError, OverflowError) as error:
            raise Lost(f"a frame cannot be converted: {error}", frame.time or 0.0) from error
        return _upright(np.asarray(rgb, np.uint8), frame)


def shown_size(frame: VideoFrame, pixel_shape: float) -> tuple[int, int]:
    """Width and height of a frame in square pixels, upright."""
    width, height = max(1, round(frame.width * pixel_shape)), frame.height
    return (height, width) if _turns(frame)[0] else (width, height)


def _upright(pixels: Pixels, frame: VideoFrame) -> Pixels:
    transposed, leftwards, upwards = _turns(frame)
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if upwards else 1, :: -1 if leftwards else 1])


def _turns(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """What brings a frame upright: (swap the axes, then mirror across, mirror down).

    From the display matrix, x' = ax + cy and y' = bx + dy, to the nearest quarter turn.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return False, False, False
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)

"""Which moments of a span are sampled, and the geometry of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Times = np.ndarray[Any, np.dtype[np.float64]]


def centres(start: float, end: float, frames: int) -> Times:
    """Midpoints [frames] of equal parts of a span, in seconds."""
    times: Times = start + (np.arange(frames, dtype=np.float64) + 0.5) * ((end - start) / frames)
    return times


def short_side(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height of a picture once its short side is `size`, its shape kept."""
    if width < height:
        return size, max(size, round(size * height / width))
    return max(size, round(size * width / height)), size


def resize(frames: Pixels, size: int) -> Pixels:
    """Frames [T, H, W, 3] with short side `size`, averaged over the pixels that merge."""
    height, width = frames.shape[1:3]
    target = short_side(width, height, size)
    if target == (width, height):
        return frames
    scaled = [Image.fromarray(frame).resize(target, Image.Resampling.BILINEAR) for frame in frames]
    return np.stack([np.asarray(picture) for picture in scaled])


def centre_crop(frames: Pixels, size: int) -> Pixels:
    """The middle size x size pixels of frames [T, H, W, 3], as a view.

    Raises:
        ValueError: the frames are smaller than that.
    """
    height, width = frames.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"frames of {width} x {height} hold no square of {size} pixels")
    top, left = (height - size) // 2, (width - size) // 2
    return frames[:, top : top + size, left : left + size]

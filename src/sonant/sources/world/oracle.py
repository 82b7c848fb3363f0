"""The audio-video sync oracle: a file with a white flash and a click at known times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from sonant.errors import UsageError
from sonant.files import replacing

Array = np.ndarray[Any, np.dtype[Any]]

SYNC_TIMES = (1.0, 2.5, 3.2, 4.9, 7.3)
"""Seconds at which sync.mp4 and sync.mov flash and click."""
_TAIL = 1.7
_CLICK = np.array([0.25, 0.6, 1.0, 0.6, 0.25], np.float32)


def sync_video(
    path: Path,
    *,
    times: Sequence[float] = SYNC_TIMES,
    fps: int = 30,
    rate: int = 48_000,
    size: int = 96,
    audio: str = "aac",
) -> None:
    """Write a dark video in which one frame flashes white, with a click, at each of these times.

    The frame whose presentation begins at the time is white; the click is five samples long, its
    peak (0.9) at the time. The container is that of the path's suffix (PCM needs .mov). Frames
    depend on later ones (B-frames).

    Args:
        path: of the file.
        times: seconds, each a whole number of frames and of samples.
        fps: frames per second.
        rate: audio samples per second.
        size: width and height in pixels.
        audio: FFmpeg's name of the audio codec.

    Raises:
        UsageError: a time falls between frames.
    """
    for time in times:
        if abs(time * fps - round(time * fps)) > 1e-6 or time < 0:
            raise UsageError(f"{time} s is not the time of a frame at {fps} frames per second")
    count = round((max(times) + _TAIL) * fps)
    flashes = {round(time * fps) for time in times}
    sound = _clicks(times, round(count * rate / fps), rate)
    with replacing(path) as partial:
        kind = path.suffix.removeprefix(".").replace("mkv", "matroska")
        with av.open(str(partial), "w", format=kind) as container:
            video = container.add_stream(
                "libx264", rate=fps, options={"bf": "2", "crf": "18", "mbtree": "0"}
            )
            video.width = video.height = size
            video.pix_fmt = "yuv420p"
            stream: Any = container.add_stream(audio, rate=rate, layout="mono")
            stream.bit_rate = 128_000
            for number in range(count):
                picture = av.VideoFrame.from_ndarray(_picture(number, flashes, size), "rgb24")
                picture.pts = number
                container.mux(video.encode(picture))
                if number % fps == 0:
                    start = number // fps * rate
                    part = _samples(sound[start : start + rate], start, rate, audio)
                    container.mux(stream.encode(part))
            container.mux(video.encode(None))
            container.mux(stream.encode(None))


def _picture(number: int, flashes: set[int], size: int) -> Array:
    """White at a flash; else dark, with a bar that moves so that no two frames are alike."""
    out = np.full((size, size, 3), 255 if number in flashes else 16, np.uint8)
    if number not in flashes:
        left = (number * 3) % (size - 8)
        out[size // 2 : size // 2 + 8, left : left + 8] = 70
    return out


def _clicks(times: Sequence[float], length: int, rate: int) -> Array:
    half = len(_CLICK) // 2
    out = np.zeros(length + 2 * half, np.float32)
    for time in times:
        peak = round(time * rate) + half
        out[peak - half : peak + half + 1] = 0.9 * _CLICK
    return out[half : half + length]


def _samples(sound: Array, start: int, rate: int, codec: str) -> av.AudioFrame:
    if codec.startswith("pcm"):
        data, kind = np.round(sound * 32767).astype(np.int16), "s16"
    else:
        data, kind = sound, "fltp"
    frame = av.AudioFrame.from_ndarray(data[None], format=kind, layout="mono")
    frame.sample_rate = rate
    frame.pts = start
    return frame

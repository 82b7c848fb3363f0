"""Packed clips as small files that a page can hold and a browser can show."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from sonant.errors import SonantError
from sonant.media.read import Media

TICK = Fraction(1, 1000)
"""Seconds that the times of frames are counted in."""


def film(media: Media) -> bytes:
    """A clip as an mp4 (H.264, AAC) that browsers play; the same clip gives the same bytes.

    Frames come at their own times beside the sound; the first is there from the start.

    Raises:
        SonantError: there are no pictures, or this machine's FFmpeg lacks an encoder.
    """
    if media.frames is None or media.frame_times is None:
        raise SonantError("a clip without pictures cannot be shown")
    times, shown = np.unique(media.frame_times, return_index=True)
    frames = media.frames[shown]
    frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
    begin = times[0] if media.samples_start is None else media.samples_start
    ticks = np.maximum(np.round((times - begin) / float(TICK)), 0).astype(int)
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4") as container:
            _write(container, frames, [0, *ticks[1:].tolist()], media)
    except (av.FFmpegError, ValueError) as error:
        raise SonantError(f"a clip cannot be encoded for the page: {error}") from error
    return file.getvalue()


def _write(container: Any, frames: Any, ticks: list[int], media: Media) -> None:
    # With mbtree, the same frames are not always encoded alike.
    options = {"crf": "24", "bf": "0", "mbtree": "0"}
    video = container.add_stream("libx264", rate=30, options=options)
    video.height, video.width = frames.shape[1:3]
    video.pix_fmt, video.thread_count = "yuv420p", 1
    video.codec_context.time_base = TICK
    sound = None if media.samples is None else container.add_stream("aac", rate=media.rate)
    if sound is not None:
        sound.layout, sound.bit_rate = "mono", 64_000
    for pixels, tick in zip(frames, ticks, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = tick, TICK
        container.mux(video.encode(frame))
    container.mux(video.encode())
    if sound is not None and media.samples is not None:
        samples = np.clip(media.samples, -1, 1, dtype=np.float32)[None]
        audio = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = media.rate, 0, Fraction(1, media.rate)
        container.mux(sound.encode(audio))
        container.mux(sound.encode())


def poster(media: Media) -> bytes:
    """The middle frame as a JPEG, shown until the clip plays; empty if there are no pictures."""
    file = io.BytesIO()
    if media.frames is not None:
        Image.fromarray(media.frames[len(media.frames) // 2]).save(file, "JPEG", quality=80)
    return file.getvalue()

"""Media files made to order, with flashes and clicks at known times."""

import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FPS = 25
STEP, NUMBERS = 3, 70
Film = Callable[..., Path]


def _picture(index: int, width: int, height: int, *, white: bool) -> np.ndarray:
    """White, or a textured grey whose brightness tells the frame's number."""
    if white:
        return np.full((height, width, 3), 255, np.uint8)
    grain = np.random.default_rng(index).integers(0, 12, (height, width, 3))
    return (10 + STEP * (index % NUMBERS) + grain).astype(np.uint8)


def _sound(seconds: float, rate: int, channels: int, clicks: Sequence[float]) -> np.ndarray:
    """A quiet tone with clicks of 0.25 ms, the same in every channel."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.02 * np.sin(2 * np.pi * 330 * time)
    for click in clicks:
        wave[np.abs(time - click) <= 0.000125] = 0.9
    return np.tile(wave.astype(np.float32), (channels, 1))


@pytest.fixture(scope="session")
def film() -> Film:
    """Write a film: `film(path, seconds=3, flashes=[1.2], clicks=[1.2], ...)`.

    `stamps` maps a frame's number to its time in ticks of 1/1000 s, for uneven frame rates;
    `delay` shifts both streams, in seconds.
    """

    def make(
        path: Path,
        *,
        seconds: float = 3.0,
        flashes: Sequence[float] = (),
        clicks: Sequence[float] = (),
        video: str | None = "libx264",
        audio: str | None = "aac",
        rate: int = 48_000,
        layout: str = "mono",
        size: tuple[int, int] = (96, 64),
        stamps: Callable[[int], int] | None = None,
        delay: float = 0.0,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
    ) -> Path:
        flash_frames = {round(flash * FPS) for flash in flashes}
        with av.open(str(path), "w", options=container_options or {}) as container:
            if video:
                pictures = container.add_stream(
                    video, FPS, options={"g": "20", "crf": "12", **(options or {})}
                )
                pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
                pictures.codec_context.time_base = Fraction(1, 1000)
                pictures.codec_context.thread_count = 1
            if audio:
                sounds = container.add_stream(audio, rate, layout=layout)
                channels = sounds.codec_context.channels
                wave = _sound(seconds, rate, channels, clicks)
            for index in range(round(seconds * FPS)):
                if video:
                    pixels = _picture(index, *size, white=index in flash_frames)
                    frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                    stamp = stamps(index) if stamps else index * 1000 // FPS
                    frame.pts, frame.time_base = stamp + round(delay * 1000), Fraction(1, 1000)
                    container.mux(pictures.encode(frame))
                if audio:
                    span = slice(index * rate // FPS, (index + 1) * rate // FPS)
                    piece = av.AudioFrame.from_ndarray(
                        np.ascontiguousarray(wave[:, span]), "fltp", layout
                    )
                    piece.sample_rate, piece.time_base = rate, Fraction(1, rate)
                    piece.pts = span.start + round(delay * rate)
                    for resampled in _as_wanted(piece, sounds):
                        container.mux(sounds.encode(resampled))
            if video:
                container.mux(pictures.encode())
            if audio:
                container.mux(sounds.encode())
        return path

    return make


def _as_wanted(piece: av.AudioFrame, stream: av.AudioStream) -> list[av.AudioFrame]:
    """PCM encoders take packed integers; the others take what they are given."""
    wanted = stream.codec_context.format
    if wanted.is_planar or wanted.name == "flt":
        return [piece]
    array = np.rint(piece.to_ndarray().T.reshape(1, -1) * 32767).astype(np.int16)
    packed = av.AudioFrame.from_ndarray(array, "s16", piece.layout.name)
    packed.sample_rate, packed.time_base, packed.pts = (
        piece.sample_rate,
        piece.time_base,
        piece.pts,
    )
    return [packed]


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the ffmpeg command line, an independent reader."""

    def run(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        command = [FFMPEG, "-nostdin", "-y", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=True)

    return run

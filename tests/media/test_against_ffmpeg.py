"""Frames and samples of real files are those that the ffmpeg command line decodes."""

import os
import re
from pathlib import Path

import av
import numpy as np
import pytest

from sonant.errors import MediaError
from sonant.media.frames import centres, short_side
from sonant.media.read import probe, read

DATA = Path(__file__).parent.parent / "data"
FILES = sorted(path for path in DATA.iterdir() if path.suffix != ".md")
MORE = ("chaplin.mp4", "mdn_flower_vp8.webm", "nasa_13013_8khz.mp4", "nonzero_start.mp4")
if "SONANT_DATA" in os.environ:
    odd = Path(os.environ["SONANT_DATA"]) / "odd_videos"
    FILES += [odd / name for name in (*MORE, "soundofwater_pouring.mp4")]
SIZE, FRAMES = 96, 5


def best(path: Path, kind: str) -> int:
    with av.open(str(path)) as container:
        return container.streams.best(kind).index


def stream_times(log: bytes) -> np.ndarray:
    return np.array([float(time) for time in re.findall(rb"pts_time:(\S+)", log)])


def all_frames(ffmpeg, path, width, height):
    """Times and pixels of every frame of the file's video."""
    scale = f"showinfo,scale={width}:{height}:flags=area"
    done = ffmpeg(
        *("-copyts", "-i", path, "-map", f"0:{best(path, 'video')}", "-vf", scale),
        *("-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
    )
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return stream_times(done.stderr), frames


def all_samples(ffmpeg, path):
    """Time of the first sample, and all of the file's sound as mono."""
    done = ffmpeg(
        *("-copyts", "-i", path, "-map", f"0:{best(path, 'audio')}", "-af", "ashowinfo"),
        *("-ac", "1", "-f", "s16le", "-"),
    )
    return stream_times(done.stderr)[0], np.frombuffer(done.stdout, "<i2") / 32768


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.name)
def decoded(request, ffmpeg):
    """A file, and all that ffmpeg decodes of it: its frames in time and its sound."""
    path, there = request.param, probe(request.param)
    frames = all_frames(ffmpeg, path, *short_side(there.width, there.height, SIZE))
    return path, there, frames, all_samples(ffmpeg, path) if there.has_audio else None


@pytest.mark.parametrize("part", [0.0, 0.37, 0.95])
def test_real_files(decoded, part):
    path, there, (times, frames), sound = decoded
    length = min(1.2, there.duration * 0.9)
    start = part * (there.duration - length)
    try:
        rate = there.sample_rate or 16_000
        media = read(path, start, start + length, frames=FRAMES, size=SIZE, rate=rate)
    except MediaError as error:
        assert path.name == "decord_corrupted.mp4"
        assert "the video is damaged at 3.000 s" in str(error)
        assert start + length > 3
        return
    origin = min(times[0], sound[0]) if sound else times[0]
    times = times - origin
    assert media.frames.shape == (FRAMES, *frames.shape[1:])
    for at, time, pixels in zip(
        centres(start, start + length, FRAMES), media.frame_times, media.frames, strict=True
    ):
        shown = np.flatnonzero(times <= at + 1e-6)[-1]
        assert time == pytest.approx(times[shown], abs=1e-5)
        assert np.abs(frames[shown].astype(int) - pixels).mean() < 2  # it scales after it turns
    if sound:
        first, samples = sound
        begin = round((media.samples_start - (first - origin)) * rate)
        wanted = samples[max(0, begin) : begin + len(media.samples)]
        there = media.samples[max(0, -begin) :][: len(wanted)]
        np.testing.assert_allclose(there, wanted, atol=1e-4)
        assert len(wanted) > len(media.samples) - 0.1 * rate
    else:
        assert media.samples is None and media.samples_start is None


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "quad", "5.0", "5.1"])
def test_channels_are_mixed_as_ffmpeg_does(layout, ffmpeg, tmp_path):
    path = tmp_path / "channels.wav"
    expression = "|".join(f"0.3*sin({100 * k}*t)" for k in range(1, 7))
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc={expression}:c=5.1:d=1", "-ac", "6", path)
    several = tmp_path / f"{layout}.wav"
    ffmpeg("-i", path, "-af", f"aformat=channel_layouts={layout}", several)
    media = read(several, 0.2, 0.7, frames=1, size=8, rate=44_100)
    _, samples = all_samples(ffmpeg, several)
    begin = round(media.samples_start * 44_100)
    np.testing.assert_allclose(media.samples, samples[begin : begin + 22_050], atol=1e-4)
    assert media.frames is None and media.frame_times is None


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True], ids=["plain", "mirrored"])
def test_display_matrix_is_applied(degrees, mirrored, ffmpeg, film, tmp_path):
    plain = film(tmp_path / "plain.mp4", seconds=0.5, audio=None, size=(128, 64))
    turned = tmp_path / "turned.mp4"
    flip = ["-display_hflip"] if mirrored else []
    ffmpeg("-display_rotation", degrees, *flip, "-i", plain, "-c", "copy", turned)
    pixels = read(turned, 0, 0.4, frames=2, size=64, rate=16_000).frames
    height, width = pixels.shape[1:3]
    assert (width, height) == ((128, 64) if degrees % 180 == 0 else (64, 128))
    times, frames = all_frames(ffmpeg, turned, width, height)
    for at, shown in zip(centres(0, 0.4, 2), pixels, strict=True):
        wanted = frames[np.flatnonzero(times <= at)[-1]]
        assert np.abs(wanted.astype(int) - shown).mean() < 1
    assert (probe(turned).width, probe(turned).height) == (width, height)

"""How fast a densely narrated video is packed: against decoding it only, and against seeking.

    python benchmarks/pack.py --seconds 240 --out pack.json

Makes a 720p video (H.264 with B-frames, AAC) with a clip of 1.5 s every 2 s, then measures in one
run, each on one thread:

- decode: PyAV decodes the file, pictures and sound, and keeps nothing;
- pack: `sonant.media.pack` with one worker, from its start to shards on the disk;
- loader: what loaders for training do a clip at a time, PyTorchVideo's `EncodedVideo` for one:
  open, seek and decode the pictures, seek and decode the sound, make every picture of the span an
  RGB array, then keep some and scale them;
- seek: the least that plain PyAV can do: open, seek once, decode both, and make arrays of nothing
  but the frames and the sound that `pack` keeps, which is checked before;
- read: the same by `sonant.media.read`, which skips pictures that nothing is made from.

They take turns and the best of each counts. All rates are per second of processor time, so that
other work on the machine does not count. It ends with 1 unless pack / decode is at least 0.7
(frames) and pack / loader 3 (clips).

With a key frame every 250 frames, a seek decodes 4.2 s before the clip on average: 5.8 s a clip,
where the pass has 2 s: 2.9 times as much, which a pass that decodes every frame stays below. The
start of the worker, a third of a second, counts; so the longer the video, the better the pass. The
fewer frames are kept (`--frame-rate 2.6667` keeps MC3's four a clip), the more the pass leaves out,
of those that no other frame is made from; plain PyAV, which the seek is, decodes all. With
`--every 30`, say, most of the video is in no clip: `pack` jumps over that, and nothing is demanded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.subtitles.subtitle import SubtitleSet
from av.video.frame import VideoFrame

from sonant.clips import Clips
from sonant.media.frames import centres
from sonant.media.pack import pack
from sonant.media.read import read
from sonant.types import Clip

WIDTH, HEIGHT, FRAME_RATE, RATE = 1280, 720, 30, 48_000
CLIP, EVERY = 1.5, 2.0
FRAMES_A_SECOND, SIZE, KEPT_RATE = 16.0, 112, 16_000
"""What `pack` keeps of a clip by default."""
LEAD = 0.05
"""Seconds of sound before and after a clip, for the resampling filter."""
DEMANDS = {"pack / decode": 0.7, "pack / loader": 3.0}


def make_video(path: Path, seconds: float) -> None:
    """A texture that drifts under a little noise, with noise to be heard."""
    random = np.random.default_rng(0)
    coarse = random.integers(40, 216, (HEIGHT // 8 + 32, WIDTH // 8 + 32), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((8, 8), np.uint8))
    grain = random.integers(0, 16, (8, HEIGHT, WIDTH), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", FRAME_RATE, options={"preset": "faster"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", RATE)
        for index in range(round(seconds * FRAME_RATE)):
            x, y = (abs((index * step) % 510 - 255) for step in (3, 2))
            grey = texture[y : y + HEIGHT, x : x + WIDTH] + grain[index % 8]
            pixels = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            pixels[:HEIGHT] = grey
            frame = VideoFrame.from_ndarray(pixels, "yuv420p")
            frame.pts = index
            container.mux(video.encode(frame))
            noise = random.normal(0, 0.1, (1, RATE // FRAME_RATE)).astype(np.float32)
            sound = AudioFrame.from_ndarray(noise, "fltp", "mono")
            sound.sample_rate, sound.pts = RATE, index * (RATE // FRAME_RATE)
            container.mux(audio.encode(sound))
        container.mux(video.encode())
        container.mux(audio.encode())


def narrated(root: Path, video: str, seconds: float, every: float = EVERY) -> Clips:
    """A clip every so many seconds."""
    starts = np.arange(0.0, seconds - CLIP, every)
    rows = [Clip(f"{k:04}", video, start, start + CLIP) for k, start in enumerate(starts)]
    return Clips.of(rows, root=root)


def decode_only(path: Path) -> None:
    """All frames and all sound, kept nowhere."""
    with av.open(str(path)) as container:
        streams = [container.streams.video[0], container.streams.audio[0]]
        for stream in streams:
            stream.codec_context.thread_count = 1
        for packet in container.demux(*streams):
            packet.decode()


def load_clip(path: Path, start: float, frames: int, size: int) -> tuple[Any, Any]:
    """What `EncodedVideo.get_clip`, `UniformTemporalSubsample` and `ShortSideScale` do.

    Returns:
        RGB pictures [frames, 3, H, W], evenly spaced, and mono sound at the file's rate.
    """
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
        span = [frame.to_rgb().to_ndarray() for frame in decoded(container, video, start)]
        sound = [frame.to_ndarray().mean(0) for frame in decoded(container, audio, start)]
    pictures = torch.from_numpy(np.stack(span)).permute(0, 3, 1, 2).float()
    kept = pictures[torch.linspace(0, len(span) - 1, frames).long()]
    scaled = torch.nn.functional.interpolate(kept, (size, size * 16 // 9), mode="bilinear")
    return scaled, np.concatenate(sound)


def decoded(container: InputContainer, stream: Any, start: float) -> list[Any]:
    """The frames of one stream that begin within a clip."""
    container.seek(int(start / stream.time_base), stream=stream)
    found = []
    for frame in container.decode(stream):
        if frame.time >= start + CLIP:
            break
        if frame.time >= start:
            found.append(frame)
    return found


def seek_clip(path: Path, start: float, frames: int, size: int) -> tuple[list[Any], Any]:
    """Open, seek, decode to the clip's end, keep what is needed, and nothing else.

    Returns:
        The pictures on display at the middles of `frames` equal parts, and mono sound at 16 kHz.
    """
    times, end = centres(start, start + CLIP, frames), start + CLIP
    resampler = AudioResampler("flt", "mono", KEPT_RATE)
    kept: list[Any] = []
    samples: list[Any] = []
    shown: VideoFrame | None = None
    sound_start, heard = 0.0, False
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        for stream in (video, audio):
            stream.codec_context.thread_count = 1
        container.seek(int(start * av.time_base))
        for frame in container.decode(video, audio):
            assert not isinstance(frame, SubtitleSet) and frame.time is not None
            if isinstance(frame, AudioFrame):
                if frame.time > start - LEAD:
                    sound_start = sound_start if samples else frame.time
                    samples += [part.to_ndarray()[0] for part in resampler.resample(frame)]
                heard = frame.time > end + LEAD
            else:
                while shown and len(kept) < frames and frame.time > times[len(kept)]:
                    small = shown.reformat(
                        size * 16 // 9, size, "rgb24", interpolation="AREA", threads=1
                    )
                    kept.append(small.to_ndarray())
                shown = frame
            if heard and len(kept) == frames:
                break
    first = round((start - sound_start) * KEPT_RATE)
    return kept, np.concatenate(samples)[first : first + round(CLIP * KEPT_RATE)]


def check_alike(path: Path, start: float, frames: int) -> None:
    """Stop unless a seek gives the very frames that `read` gives, and sound of the same length."""
    wanted = read(path, start, start + CLIP, frames=frames, size=SIZE, rate=KEPT_RATE)
    kept, samples = seek_clip(path, start, frames, SIZE)
    np.testing.assert_array_equal(np.stack(kept), wanted.frames)
    assert wanted.samples is not None
    assert len(samples) == len(wanted.samples), (len(samples), len(wanted.samples))
    assert np.corrcoef(samples, wanted.samples)[0, 1] > 0.6  # the first within half a sample


def seek_clips(path: Path, starts: Iterable[float], frames: int, size: int) -> None:
    """Every clip by a seek of its own."""
    for start in starts:
        seek_clip(path, start, frames, size)


def load_clips(path: Path, starts: Iterable[float], frames: int, size: int) -> None:
    """Every clip as loaders do it."""
    for start in starts:
        load_clip(path, start, frames, size)


def read_clips(path: Path, starts: Iterable[float], frames: int, size: int) -> None:
    """Every clip by `sonant.media.read`."""
    for start in starts:
        read(path, start, start + CLIP, frames=frames, size=size, rate=KEPT_RATE)


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time that this process and those it started and awaited have spent on some work."""
    before = sum(os.times()[:4])
    work()
    return sum(os.times()[:4]) - before


def least(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least processor time that each work takes, in rounds in which all take turns."""
    spent = [{name: processor_seconds(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: min(each[name] for each in spent) for name in works}


def tell(figures: Mapping[str, float], demands: Mapping[str, float], out: Path | None) -> int:
    """Print figures with what is demanded of them, and write them; 1 if one is missed, else 0."""
    for name, value in figures.items():
        wanted = f"  at least {demands[name]:g} wanted" if name in demands else ""
        missed = ": MISSED" if value < demands.get(name, value) else ""
        print(f"{name:>18} {value:10.3f}{wanted}{missed}")
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(figures[name] < demand for name, demand in demands.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the video")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds from clip to clip")
    parser.add_argument(
        "--frame-rate", type=float, default=FRAMES_A_SECOND, help="frames kept a second of clip"
    )
    parser.add_argument("--video", type=Path, help="keep the video here, or use it if it is there")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.video or Path(folder) / "video.mp4"
        if not path.exists():
            make_video(path, arguments.seconds)
        with av.open(str(path)) as container:
            seconds = float(container.duration or 0) / av.time_base
        clips = narrated(path.parent, path.name, seconds, arguments.every)
        starts = clips.column("start")
        sought = np.random.default_rng(0).permutation(starts)[:30]
        rate = arguments.frame_rate
        kept = round(CLIP * rate)
        check_alike(path, float(sought[0]), kept)
        frames = seconds * FRAME_RATE
        numbers = count()
        works = {
            "decode": lambda: decode_only(path),
            "pack": lambda: pack(
                clips, Path(folder) / f"pack{next(numbers)}", frame_rate=rate, workers=1
            ),
            "loader": lambda: load_clips(path, sought, kept, SIZE),
            "seek": lambda: seek_clips(path, sought, kept, SIZE),
            "read": lambda: read_clips(path, sought, kept, SIZE),
        }
        spent = least(works, arguments.repeat)
    figures = {
        "video seconds": seconds,
        "clips": len(clips),
        "decode frames/s": frames / spent["decode"],
        "pack frames/s": frames / spent["pack"],
        "pack clips/s": len(clips) / spent["pack"],
        "loader clips/s": len(sought) / spent["loader"],
        "seek clips/s": len(sought) / spent["seek"],
        "read clips/s": len(sought) / spent["read"],
        "pack / decode": spent["decode"] / spent["pack"],
        "pack / loader": len(clips) / spent["pack"] * spent["loader"] / len(sought),
        "pack / seek": len(clips) / spent["pack"] * spent["seek"] / len(sought),
        "pack / read": len(clips) / spent["pack"] * spent["read"] / len(sought),
    }
    return tell(figures, DEMANDS if arguments.every == EVERY else {}, arguments.out)


if __name__ == "__main__":
    sys.exit(main())

"""Stories to files: H.264/AAC videos, narrations.csv, and apart from it truth.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console
from rich.progress import track

from sonant.errors import UsageError
from sonant.files import replacing
from sonant.processes import die_with_parent
from sonant.sources.world import laws
from sonant.sources.world.oracle import SYNC_TIMES, sync_video
from sonant.sources.world.picture import frames
from sonant.sources.world.sound import soundtrack
from sonant.sources.world.story import story
from sonant.sources.world.truth import Truth, truths

Array = np.ndarray[Any, np.dtype[Any]]

NARRATION_COLUMNS = ("video", "time", "text")
TRUTH_COLUMNS = tuple(field.name for field in fields(Truth))
_VIDEO_OPTIONS = {
    "preset": "veryfast",
    "crf": "27",
    "bf": "2",
    "g": "48",
    "threads": "1",
    "mbtree": "0",  # with it, the same frames are not always encoded alike
}
_AUDIO_OPTIONS = {"aac_coder": "fast", "b": "64000"}


def world(
    out: Path,
    *,
    videos: int,
    seed: int,
    workers: int = 2,
    sync: bool = True,
) -> None:
    """Write the synthetic narrated world `laws.NAME`: videos, narrations, and what is true of them.

    In `out` there will be `videos/*.mp4`; `narrations.csv` (video, time, text); `truth.csv`, row by
    row about the same moments (see `Truth`); `world.json`; and `sync.mp4` and `sync.mov`, with a
    flash and a click at the times in `world.json`. Videos that are there already are not made
    again, so an interrupted call goes on where it stopped. Video i is the same however many
    videos or workers there are.

    Args:
        out: folder to write to.
        videos: how many, of one to three minutes and 30 to 45 narrated actions each.
        seed: of the world.
        workers: processes.
        sync: sounds happen when they are seen to; without it they keep a time of their own.

    Raises:
        UsageError: impossible numbers, or `out` holds another world.
        SonantError: `out` cannot be written.
    """
    out = Path(out)
    if videos < 1 or workers < 1 or seed < 0:
        raise UsageError(
            f"videos {videos}, workers {workers}, seed {seed}: wanted are at least 1, 1 and 0"
        )
    _claim(out, {"name": laws.NAME, "seed": seed, "sync": sync, "videos": videos})
    for name, codec in (("sync.mp4", "aac"), ("sync.mov", "pcm_s16le")):
        if not (out / name).is_file():
            sync_video(out / name, times=SYNC_TIMES, audio=codec)
    missing = [index for index in range(videos) if not _finished(out, index)]
    with _mapping(workers) as run:
        done = run(partial(_write, out, seed, sync), missing)
        console = Console(stderr=True)
        for _ in track(done, "world", len(missing), console=console, disable=not missing):
            pass
    rows = [row for index in range(videos) for row in _read_rows(out, index)]
    _write_csv(out / "narrations.csv", NARRATION_COLUMNS, rows)
    _write_csv(out / "truth.csv", TRUTH_COLUMNS, rows)


def video_name(index: int) -> str:
    """Path of a video relative to its world's folder."""
    return f"videos/{index:05d}.mp4"


def _claim(out: Path, record: Mapping[str, Any]) -> None:
    """Write world.json, unless the folder holds another world."""
    path = out / "world.json"
    if path.is_file():
        try:
            there = json.loads(path.read_text())
        except (OSError, ValueError):
            there = None
        if not isinstance(there, dict):
            raise UsageError(
                f"{path}: does not describe a world; choose another folder or remove this one"
            )
        for name in ("name", "seed", "sync"):
            if there.get(name) != record[name]:
                raise UsageError(
                    f"{out} holds a world with {name} {there.get(name)!r}, not {record[name]!r}; "
                    "choose another folder or remove it"
                )
    with replacing(path) as partial_path:
        partial_path.write_text(json.dumps({**record, "sync_times": SYNC_TIMES}, indent=2) + "\n")


def _rows_path(out: Path, index: int) -> Path:
    return out / "rows" / f"{index:05d}.csv"


def _finished(out: Path, index: int) -> bool:
    """A video's rows are written after the video itself."""
    return _rows_path(out, index).is_file() and (out / video_name(index)).is_file()


def _read_rows(out: Path, index: int) -> list[dict[str, str]]:
    with _rows_path(out, index).open(newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    with replacing(path) as partial_path, partial_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A map over items: in this process for one worker, else over a pool."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, initializer=die_with_parent) as pool:
        yield pool.map


def _write(out: Path, seed: int, sync: bool, index: int) -> int:
    """Render and encode one video, then its rows."""
    name = video_name(index)
    plot = story(seed, index, sync=sync)
    sound = soundtrack(plot)
    with replacing(out / name) as path:
        times = np.arange(round(plot.duration * laws.FPS)) / laws.FPS
        encode(path, frames(plot, times), sound.mix)
    rows = [
        {"text": moment.text, **truth.row()}
        for moment, truth in zip(plot.moments, truths(plot, sound, name), strict=True)
    ]
    _write_csv(_rows_path(out, index), ("text", *TRUTH_COLUMNS), rows)
    return index


def encode(path: Path, pictures: Iterable[Array], samples: Array) -> None:
    """Write an H.264/AAC mp4 file, picture and sound interleaved second by second.

    Args:
        path: of the file, whatever its suffix.
        pictures: uint8 [SIZE, SIZE, 3] at `laws.FPS`.
        samples: float32 [n] at `laws.RATE`.
    """
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=laws.FPS, options=_VIDEO_OPTIONS)
        video.width = video.height = laws.SIZE
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=laws.RATE, options=_AUDIO_OPTIONS, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            if number % laws.FPS == 0:
                start = number // laws.FPS * laws.RATE
                _mux_sound(container, audio, samples[start : start + laws.RATE], start)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _mux_sound(container: Any, stream: Any, samples: Array, start: int) -> None:
    if not len(samples):
        return
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = laws.RATE
    frame.pts = start
    container.mux(stream.encode(frame))

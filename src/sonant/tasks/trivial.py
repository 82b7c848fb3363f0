"""What single numbers of sound or picture tell, without learning: rows to print beside any model.

If one of these tells sounding actions well, the data give the answer away, and a model that is
better than chance may only have found the same number.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.media.audio import log_mel
from sonant.media.pack import Pack
from sonant.media.read import Media
from sonant.processes import die_with_parent

Array = NDArray[Any]

VERSION = "trivial 1"
"""Of the measures and all that they are made by; with another they are measured anew."""
MEASURES = (
    "loudness mean",
    "loudness max",
    "log-mel deviation",
    "spectral flux max",
    "motion energy",
)
FRAMES = 12
"""Frames of a clip that motion is measured between; at 8 a second, 1.5 s hold so many."""
WINDOW = 0.025
SHIFT = 0.010
FLOOR = -100.0
"""Level of digital silence, in dB of full scale."""
CHUNK = 256
"""Clips that a process measures at once: about half a second of work."""
CHUNKS_OF_A_PROCESS = 8
"""Fewer are done before another process has started."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def trivial(
    clips: Clips, folder: Path | str, out: Path | str | None = None, *, workers: int = 2
) -> Features:
    """Measure every packed clip: the scores of `measure`.

    Args:
        clips: a packed table.
        folder: of its shards.
        out: Parquet file to keep the result in; if it holds that of these clips, it is read.
        workers: processes at most; few clips are measured in this one.

    Raises:
        UsageError: no clip is packed, or there are no workers.
        SonantError: a shard cannot be read.
    """
    packed = clips.where(packed=True, quarantined=False)
    if not len(packed) or workers < 1:
        raise UsageError(
            f"{len(packed)} of {len(clips)} clips are packed, to be measured by {workers} workers; "
            "there must be one of each or more: `sonant pack` packs clips"
        )
    if out is not None and (done := _done(Path(out), packed)):
        return done
    measured = np.concatenate(list(_measured(packed, str(folder), workers)))
    scores = dict(zip(MEASURES, measured.T, strict=True))
    data = packed.packed_digest()
    features = Features.of(packed.column("id").tolist(), scores=scores, run=VERSION, data=data)
    if out is not None:
        features.write(out)
    return features


def measure(media: Media) -> dict[str, float]:
    """The trivial scores of one clip; NaN where it lacks the stream.

    - `loudness mean`, `loudness max`: level of windows of 25 ms, in dB of full scale;
    - `log-mel deviation`: standard deviation over time of the log-mel, mean over its bins;
    - `spectral flux max`: largest rise of the log-mel from a window to the next, mean over bins;
    - `motion energy`: mean absolute change of a pixel's luma between neighbouring frames, 0 to 1.
    """
    return _sound(media) | {"motion energy": _motion(media)}


def _sound(media: Media) -> dict[str, float]:
    if media.samples is None or len(media.samples) < round(WINDOW * media.rate):
        return dict.fromkeys(MEASURES[:4], np.nan)
    levels = _levels(media.samples, media.rate)
    mel = log_mel(media.samples, media.rate)
    rises = np.maximum(np.diff(mel, axis=0), 0).mean(1)
    values = (levels.mean(), levels.max(), mel.std(0).mean(), rises.max(initial=0.0))
    return dict(zip(MEASURES[:4], map(float, values), strict=True))


def _levels(samples: Array, rate: int) -> Array:
    """Mean power of each window, in dB."""
    window, shift = round(WINDOW * rate), round(SHIFT * rate)
    total = np.append(0.0, np.cumsum(np.square(samples, dtype=np.float64)))
    starts = np.arange(0, len(samples) - window + 1, shift)
    power = np.maximum(total[starts + window] - total[starts], 0) / window
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR / 10))))


def _motion(media: Media) -> float:
    if media.frames is None or len(media.frames) < 2:
        return np.nan
    luma = media.frames.astype(np.float32) @ LUMA / 255
    return float(np.abs(np.diff(luma, axis=0)).mean())


def _done(path: Path, packed: Clips) -> Features | None:
    """The result kept at `path`, if it is that of these clips."""
    if not path.is_file():
        return None
    try:
        there = Features.read(path)
    except TableError:
        return None
    return there if (there.run, there.data) == (VERSION, packed.packed_digest()) else None


def _measured(packed: Clips, folder: str, workers: int) -> Iterator[Array]:
    """Arrays [clips, measures], in the order of the table."""
    chunks = [
        Clips(packed.table.take(np.arange(begin, min(begin + CHUNK, len(packed)))), packed.root)
        for begin in range(0, len(packed), CHUNK)
    ]
    chunk = partial(_chunk, folder)
    shown = partial(track, description="measure", total=len(chunks), console=Console(stderr=True))
    useful = min(workers, len(chunks) // CHUNKS_OF_A_PROCESS)
    if useful < 2:
        yield from shown(map(chunk, chunks))
        return
    with ProcessPoolExecutor(useful, get_context("spawn"), die_with_parent) as processes:
        yield from shown(processes.map(chunk, chunks))


def _chunk(folder: str, clips: Clips) -> Array:
    pack = Pack(clips, folder)
    measured = [measure(pack.read(row, frames=FRAMES)) for row in range(len(pack))]
    return np.array([[one[name] for name in MEASURES] for one in measured])

"""Clips to shards, in one pass over each video; and clips out of shards, with one read each.

The folder of a pack holds

    pack.json        settings, and what clips it is of
    00000.tar        clips of a few videos, as WebDataset reads them (see `shard`)
    00000.json       where each clip lies in 00000.tar and a hash of it, or why it does not; last
    clips.parquet    the clip table with these places and reasons

A shard is a function of its videos and the settings: it holds no dates and no chance. It counts
once its .json is there, so that a pack that was killed goes on with the shards it has not finished.
It goes on to count while its videos are away.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec

from sonant.clips import Clips
from sonant.errors import SonantError, TableError, UsageError, above_zero, at_least
from sonant.files import replacing
from sonant.media import crew
from sonant.media.job import Job
from sonant.media.read import Media
from sonant.media.shard import content, load
from sonant.media.sweep import Form, Span

VERSION = "1"
MOST = {
    "rate": 192_000,
    "frame_rate": 240,
    "short_side": 4320,
    "quality": 95,
    "shard_size": 1_000_000,
    "workers": 1000,
    "patience": 24 * 3600,
}
"""Settings beyond these are mistakes."""


def pack(
    clips: Clips,
    out: Path | str,
    *,
    rate: int = 16_000,
    frame_rate: float = 16.0,
    short_side: int = 112,
    quality: int = 90,
    shard_size: int = 256,
    partial: bool = False,
    workers: int = 2,
    patience: float = 60.0,
) -> Clips:
    """Write the good clips of a table into shards, and the table with their places beside them.

    Clips that cannot be had whole (no such file, no sound, past the end, damaged) are not written;
    their row says why in `quarantine`. A video on which the decoder crashes or hangs costs its own
    clips only. Called again, it goes on where it was interrupted, redoes shards whose videos have
    changed, and ends with the same shards, byte for byte. Shards whose videos are gone stay.

    Args:
        clips: what to pack.
        out: folder of the pack.
        rate: samples of sound per second.
        frame_rate: frames per second of clip; of the 24 that 16 per second make of 1.5 s, 4, 6, 8
            or 12 are evenly spaced. A picture that stays on display is stored once.
        short_side: pixels of the frames' short side.
        quality: of the JPEG frames, 1 to 95.
        shard_size: a shard takes videos until it has so many clips.
        partial: also write the clips of files that have sound alone or pictures alone, with what
            there is; else such clips are in quarantine.
        workers: processes, each on one video at a time.
        patience: seconds without progress after which a video is given up.

    Returns:
        The table that was also written to `out`/clips.parquet.

    Raises:
        UsageError: impossible settings, or `out` is a pack of other clips or settings.
        SonantError: the folder cannot be written, or what is to be packed is not there.
    """
    form = Form(rate, frame_rate, short_side, quality, partial)
    _check(form, shard_size=shard_size, workers=workers, patience=patience)
    out = Path(out)
    jobs = list(_jobs(clips, out, form, shard_size))
    if not clips.root.is_dir() and any(job.finished() is None for job in jobs):
        raise SonantError(
            f"{clips.root}: the folder of the videos is not there, and not all is packed yet"
        )
    _claim(out, {**asdict(form), "shard_size": shard_size}, jobs)
    with _alone(out):
        undone = [job for job in jobs if job.finished() is None]
        crew.run(undone, workers=workers, patience=patience, title="pack")
    places: dict[str, tuple[str, int, int]] = {}
    contents: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for job in jobs:
        record = job.finished()
        if record is None:
            raise SonantError(f"{job.record}: was taken away while the pack was being written")
        places |= {id: (job.shard.name, *place) for id, place in record["places"].items()}
        contents |= record.get("contents", {})  # which those beside tables of version 1 lack
        reasons |= record["reasons"]
    packed = clips.quarantined(reasons).with_packed(places, contents)
    table = out / "clips.parquet"
    if not _holds(table, packed):
        packed.write(table)
    return packed


class Pack:
    """Random access to packed clips, by row of their table.

    It holds no open files, so that it may be handed to other processes and threads as it is. The
    bytes of a clip are compared with their hash in the table when a process first reads them.

    Args:
        clips: a table with places, such as `pack` returns, or some of its rows.
        folder: where the shards lie: a local folder or any address that fsspec understands.
    """

    def __init__(self, clips: Clips, folder: Path | str) -> None:
        self.clips, self.folder = clips, str(folder).rstrip("/")
        self._offsets, self._sizes = clips.column("offset"), clips.column("size")
        names = (clips.table[name].combine_chunks() for name in ("id", "shard", "content"))
        self._ids, shards, self._contents = names
        self._shards = shards.dictionary_encode()
        self._compared = bytearray(len(clips))

    @classmethod
    def open(cls, folder: Path | str) -> Pack:
        """All clips of a pack, quarantined ones too.

        Args:
            folder: a local folder or any address that fsspec understands, as text.

        Raises:
            UsageError: no such pack, or its place cannot be reached.
        """
        if "://" not in str(folder):
            return cls(Clips.read(table_of(Path(folder)), made_by="sonant pack"), folder)
        place = f"{str(folder).rstrip('/')}/clips.parquet"
        with TemporaryDirectory() as here:
            table = Path(here) / "clips.parquet"
            try:
                system, path = fsspec.core.url_to_fs(place)
                system.get_file(path, str(table))
            except (OSError, ValueError, ImportError) as error:
                raise UsageError(f"{place}: cannot be fetched: {error}") from error
            return cls(Clips.read(table, made_by="sonant pack"), folder)

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        """One clip: its sound, and the packed frames nearest to the centres of equal parts.

        Only those frames are decoded, and of them those that `film` cuts out. Asked for more than
        were packed, it repeats the nearest; asked for 0, it gives the sound alone, with `frames`
        and `frame_times` None. These are None too if the clip has no pictures, and `samples` and
        `samples_start` if it has no sound.

        Raises:
            UsageError: the row is not packed, or `frames` is below 0.
            SonantError: the shard is missing, damaged, or does not belong to the table.
        """
        offset, size = int(self._offsets[row]), int(self._sizes[row])
        shard, id = self._shards[row].as_py(), self._ids[row].as_py()
        if frames < 0:
            raise UsageError(f"frames must be 0 or more, not {frames}")
        if not shard:
            reason = self.clips.column("quarantine")[row] or "it was never packed"
            raise UsageError(f"clip {id!r} (row {row}) is in no shard: {reason}")
        place = f"{self.folder}/{shard}"
        try:
            fetch = _fetch if "://" in self.folder else _pread
            data = fetch(place, offset, size)
            self._compare(row, data)
            return load(data, id, frames, film)
        except (OSError, ValueError, KeyError) as error:
            raise SonantError(
                f"{place}: clip {id!r} cannot be read at byte {offset}: {error}; "
                "does the shard belong to this table? if so, it is damaged: delete the shard and "
                "pack again"
            ) from error

    def _compare(self, row: int, data: bytes) -> None:
        """Once a row: a hash takes a tenth of the time that decoding does."""
        if self._compared[row]:
            return
        if (wanted := self._contents[row].as_py()) and content(data) != wanted:
            raise ValueError("these are not the bytes that were packed")
        self._compared[row] = 1


def table_of(folder: Path) -> Path:
    """Where the clip table of a pack lies, with the clips' places in the shards.

    Raises:
        UsageError: there is no pack.
    """
    table = folder / "clips.parquet"
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; `sonant pack` makes a pack of a clip table")
    if not table.is_file():
        raise UsageError(
            f"{folder}: no pack there (no such clip table: {table}); `sonant pack` makes one"
        )
    return table


def _pread(place: str, offset: int, size: int) -> bytes:
    file = os.open(place, os.O_RDONLY)
    try:
        return os.pread(file, size, offset)
    finally:
        os.close(file)


def _fetch(place: str, offset: int, size: int) -> bytes:
    system, path = fsspec.core.url_to_fs(place)
    return bytes(system.cat_file(path, start=offset, end=offset + size))


def _holds(table: Path, packed: Clips) -> bool:
    """Whether a table is there that says just this; a finished pack is not written to."""
    try:
        there = Clips.read(table)
    except TableError:
        return False
    return there.root == packed.root.resolve() and there.table.equals(packed.table)


def _check(form: Form, *, patience: float, **counts: int) -> None:
    at_least(1000, rate=form.rate)
    at_least(8, short_side=form.short_side)
    at_least(1, quality=form.quality, **counts)
    above_zero(frame_rate=form.frame_rate, patience=patience)
    given = {**asdict(form), "patience": patience, **counts}
    for name, most in MOST.items():
        if not given[name] <= most:
            raise UsageError(f"{name} must be at most {most}, not {given[name]}")


def _jobs(clips: Clips, out: Path, form: Form, shard_size: int) -> Iterator[Job]:
    """Videos in the order of the table, gathered into shards of at least `shard_size` clips."""
    videos: dict[str, list[Span]] = {}
    for row in clips.where(quarantined=False):
        videos.setdefault(row.video, []).append(Span(row.id, row.start, row.end))
    group: dict[str, list[Span]] = {}
    number = 0
    for place, (video, spans) in enumerate(videos.items(), 1):
        group[video] = spans
        if sum(map(len, group.values())) >= shard_size or place == len(videos):
            yield Job(out / f"{number:05}.tar", clips.root, group, form)
            group, number = {}, number + 1


def _claim(out: Path, settings: Mapping[str, Any], jobs: Sequence[Job]) -> None:
    """Write what the folder is a pack of, or make sure that it is a pack of just this."""
    rows = [
        [video, asdict(span)]
        for job in jobs
        for video, spans in job.videos.items()
        for span in spans
    ]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    wanted = {"version": VERSION, **settings, "clips": len(rows), "digest": digest}
    path = out / "pack.json"
    if not path.is_file():
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(wanted, indent=1) + "\n")
        return
    try:
        there = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: does not describe a pack ({error})") from error
    if not isinstance(there, dict):
        raise UsageError(
            f"{path}: does not describe a pack; choose another folder, or delete this one"
        )
    there = {"partial": False, **there}  # packs from before there was a choice do not say
    unlike = [name for name in wanted if there.get(name) != wanted[name]]
    if unlike:
        differences = ", ".join(
            "other clips" if name == "digest" else f"{name} {there.get(name)}, not {wanted[name]}"
            for name in unlike
        )
        raise UsageError(
            f"{out}: holds a pack with {differences}; choose another folder, or delete this one"
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Be the only one who packs into a folder; the unfinished files of those who died go.

    They go before, and also after: those of workers that were stopped because another failed.
    """
    with (out / "pack.json").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{out}: another process is packing into this folder") from error
        _tidy(out)
        try:
            yield
        finally:
            _tidy(out)


def _tidy(out: Path) -> None:
    for unfinished in out.glob(".*.partial"):
        unfinished.unlink(missing_ok=True)

"""Windows of recordings: equal spans, one after the other or spread evenly, of un-narrated footage.

The recordings are the files of a folder, or the clips of a table in which a clip is a whole
recording. Judging a recording by the mean over windows spread evenly over it is the custom of XDC
(section 4): 10 windows of a video, 60 of a sound scene.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sonant import __version__
from sonant.clips import COLUMNS, LABEL, Clips
from sonant.errors import TableError, UsageError, at_least
from sonant.media.events import EDGE
from sonant.sources.folder import FRACTIONS, OWN_COLUMNS, SUFFIXES, read_csv
from sonant.sources.labelled import SOUNDS, Item, Listing, media_files
from sonant.sources.lists import folder
from sonant.types import Label

RECORDING = "recording"
"""The label that says which recording a window is of."""
MOMENT = 1e-3
"""Seconds that times in ids are rounded to; windows that begin in the same one are one."""

Times = NDArray[np.float64]

OF_CLIPS = tuple(name for name in OWN_COLUMNS if name not in ("video", "split"))
"""Columns that say something of a clip, and nothing of a whole file."""

LEFT: Times = np.array([math.nan])
"""In place of the starts of windows: the recording stays as it is."""


def windows(
    clips: Clips, *, seconds: float, stride: float | None = None, count: int | None = None
) -> Clips:
    """Cut clips that are whole recordings into windows.

    A window has all that its recording has, its labels, split and text, and the label `recording`:
    the recording's id. Its own id is that id, an @ and its start in seconds.

    A recording that is shorter than a window, by more than the 0.1 s that may be read beyond the
    end of a file, stays as one row in quarantine; so does, with its own reason, one that is there
    already.

    Args:
        clips: recordings. Where they lie in a pack does not count: windows are packed anew.
        seconds: of a window.
        stride: seconds from the start of one window to that of the next, the first at the
            recording's; what is left at the end is no window. If neither this nor `count` is given,
            it is `seconds`.
        count: instead, so many windows spread evenly: the first begins with the recording, the last
            ends with it, one alone lies in the middle. They overlap where they must; those of a
            recording so short that they would begin in the same millisecond are one.

    Raises:
        UsageError: both `stride` and `count`, or one of no sense.
        TableError: the clips have a label `recording` already.
    """
    cut = _Cut(seconds, stride, count)
    if RECORDING in clips.labels:
        raise TableError(
            f"the clips have a label {RECORDING!r} already; wanted are whole recordings, not "
            "windows of them"
        )
    clips = clips.quarantined(_too_short(clips, seconds))
    spans = zip(*(clips.column(name) for name in ("start", "end", "quarantine")), strict=True)
    starts = [LEFT if why else cut.starts(begin, end) for begin, end, why in spans]
    rows = np.repeat(np.arange(len(clips)), [len(some) for some in starts])
    start = np.concatenate([np.zeros(0), *starts])
    left = np.isnan(start)
    recordings, table = clips.column("id")[rows], clips.table.take(pa.array(rows))
    columns = {
        "id": _ids(recordings, start),
        "start": np.where(left, clips.column("start")[rows], start),
        "end": np.where(left, clips.column("end")[rows], start + seconds),
    }
    for name, values in columns.items():
        field = COLUMNS.field(name)
        table = table.set_column(COLUMNS.names.index(name), field, [pa.array(values, field.type)])
    table = table.append_column(LABEL + RECORDING, pa.array(recordings, pa.string()))
    return Clips(table, clips.root).with_packed({})


def footage(root: Path, *, labels: Path | None = None) -> Listing:
    """List the files of a folder, each of them one recording.

    Args:
        root: the folder; video and sound files are looked for at any depth. Whether those with
            sound alone or pictures alone can be used is for `pack` to say.
        labels: CSV with a column `video` (path inside the folder), a row a recording, and labels;
            `split` is taken for the split. Rows of files that are absent go to quarantine.

    Raises:
        UsageError: there is no such folder, or nothing in it.
        TableError: the CSV cannot be read, has no rows or none of these files, lacks `video`, has a
            column that is of clips (`OF_CLIPS`), repeats a video or a column, or has a `sounding`
            that is no truth value.
    """
    paths = media_files(folder(root), SUFFIXES | SOUNDS)
    there = {path.relative_to(root).as_posix() for path in paths}
    if not there:
        looked = " ".join(sorted(SUFFIXES | SOUNDS))
        raise UsageError(f"{root}: no videos and no sounds there (looked for {looked})")
    told = {} if labels is None else _told(labels, root)
    if told and there.isdisjoint(told):
        raise TableError(
            f"{labels}: none of its videos is in {root}; its first is {next(iter(told))!r}, the "
            f"folder's first {min(there)!r}"
        )
    rows = [(video, *told.get(video, ("", {}))) for video in sorted(there | told.keys())]
    items = [Item(video, video, labels, str(root), split) for video, split, labels in rows]
    return Listing(root, items, needs=(), takes=("video", "audio"))


def recordings(
    source: Path,
    *,
    labels: Path | None = None,
    splits: Path | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    workers: int = 2,
    patience: float = 60.0,
) -> Clips:
    """The files of a folder as clips that are whole recordings, or a table of such clips.

    A clip of a file with pictures and sound is where both are, unless that gives up a second or
    more; then it is the whole file, and which windows lack a stream is for `pack` to say.

    Args:
        source: a folder, or a clip table, which is read as it is.
        labels: of a folder, as `footage` has it.
        splits: of a folder: another clip table of these files, such as one of narrated clips, whose
            splits they get; files that it lacks are for training.
        fractions: of a folder: shares of the splits, dealt by file, where the CSV gives none; with
            fewer files than splits no split is set.
        seed: of that deal, 0 or more.
        workers: processes that look into the files.
        patience: seconds without an answer after which a file is given up.

    Raises:
        UsageError: nothing is there, impossible settings, or labels for a clip table.
        TableError: as `footage`; or no clip table.
    """
    at_least(0, seed=seed)
    if not source.is_dir():
        _check_table(source, labels)
        return Clips.read(source)
    clips = footage(source, labels=labels).clips(workers=workers, patience=patience)
    if splits is not None:
        return clips.in_splits(_known(splits, clips), other="train")
    split = clips.column("split")
    if np.any(split != ""):
        _check_dealt(clips, labels)
        return clips
    return clips if len(split) < len(fractions) else clips.split(fractions, seed=seed)


def made_from(
    source: Path,
    *,
    seconds: float,
    stride: float | None = None,
    count: int | None = None,
    labels: Path | None = None,
    splits: Path | None = None,
    seed: int = 0,
) -> str:
    """Hash of all that `windows` of `recordings` are made from, so that they need not be again.

    That is sonant's version, the arguments, and the clip table, or else what `labels` say and every
    file's size and time of change. No file is opened.

    Raises:
        UsageError: as `windows` and `recordings`.
        TableError: as `footage`.
    """
    cut = _Cut(seconds, stride, count)
    if source.is_dir():
        held = footage(source, labels=labels).made_from()
        held += "" if splits is None else Clips.read(splits).digest()
    else:
        _check_table(source, labels)
        held = hashlib.sha256(source.read_bytes()).hexdigest()
    return hashlib.sha256(repr((__version__, held, cut, seed)).encode()).hexdigest()


def _known(table: Path, wanted: Clips) -> dict[Path, str]:
    """The split of each video of a clip table, by where it lies.

    Raises:
        TableError: no such table, or it has none of the videos wanted.
    """
    clips = Clips.read(table)
    videos = zip(clips.column("video"), clips.column("split"), strict=True)
    found = {clips.path(video).resolve(): split for video, split in videos}
    if found.keys().isdisjoint(wanted.path(video).resolve() for video in wanted.column("video")):
        raise TableError(
            f"{table}: is of none of these files; its first is {next(iter(found), None)}"
        )
    return found


def _check_dealt(clips: Clips, labels: Path | None) -> None:
    """Refuse files without a split where others have one: nothing would be done with them."""
    left = clips.column("video")[(clips.column("split") == "") & (clips.column("quarantine") == "")]
    if len(left):
        raise TableError(
            f"{labels}: gives splits, but none to {len(set(left))} of the files there, the first "
            f"is {left[0]!r}; give all of them one, or none"
        )


def _check_table(source: Path, labels: Path | None) -> None:
    if not source.is_file():
        raise UsageError(f"{source}: no such folder, and no such clip table")
    if labels is not None:
        raise UsageError(f"{labels}: labels are for a folder; {source} is a table, with its own")


@dataclass(frozen=True)
class _Cut:
    """Where windows begin in a recording."""

    seconds: float
    stride: float | None
    count: int | None

    def __post_init__(self) -> None:
        at_least(MOMENT, seconds=self.seconds)
        if self.stride is not None and self.count is not None:
            raise UsageError(
                f"a stride of {self.stride:g} s and a count of {self.count} are two ways to cut "
                "recordings: give one"
            )
        if self.stride is not None:
            at_least(MOMENT, stride=self.stride)
        if self.count is not None:
            at_least(1, count=self.count)
        if math.isinf(self.seconds) or math.isinf(self.step):
            raise UsageError(f"windows of {self.seconds:g} s every {self.step:g} s have no end")

    @property
    def step(self) -> float:
        """Seconds from one window to the next, where they are not counted."""
        return self.seconds if self.stride is None else self.stride

    def starts(self, begin: float, end: float) -> Times:
        """Seconds at which the windows of a recording begin."""
        room = max(end - begin - self.seconds, 0.0)
        if self.count is None:
            offsets = np.arange(int(room / self.step + 1e-9) + 1) * self.step
        elif self.count == 1:
            offsets = np.array([room / 2])
        else:
            offsets = np.linspace(0.0, room, self.count)
        starts: Times = begin + offsets.astype(np.float64)
        return starts[np.unique(_moments(starts), return_index=True)[1]]


def _moments(times: Times) -> Times:
    return np.rint(times / MOMENT)


def _ids(recordings: NDArray[Any], starts: Times) -> list[str]:
    times = _moments(starts) * MOMENT
    return [
        recording if math.isnan(time) else f"{recording}@{time:.3f}"
        for recording, time in zip(recordings, times, strict=True)
    ]


def _too_short(clips: Clips, seconds: float) -> dict[str, str]:
    """Reasons of the recordings that are shorter than a window."""
    short = clips.column("end") - clips.column("start") < seconds - EDGE
    return dict.fromkeys(clips.column("id")[short], f"shorter than a window of {seconds:g} s")


def _told(path: Path, root: Path) -> dict[str, tuple[str, Mapping[str, Label]]]:
    """Split and labels of each video of a folder that a CSV names."""
    table = read_csv(path, root=root)
    if "video" not in table.column_names:
        raise TableError(
            f"{path}: has the columns {', '.join(table.column_names)}; wanted are video and labels"
        )
    if foreign := [name for name in table.column_names if name in OF_CLIPS]:
        raise TableError(
            f"{path}: has the column {foreign[0]!r}, which would be of a clip, and its rows are of "
            "whole files; leave it out, or call it otherwise to have it as a label. Clips at times "
            "that are known are what `sonant index folder --narrations` makes"
        )
    if not table.num_rows:
        raise TableError(f"{path}: has no rows")
    names = [name for name in table.column_names if name not in OWN_COLUMNS]
    told: dict[str, tuple[str, Mapping[str, Label]]] = {}
    for row in table.to_pylist():
        if not (row["video"] or "").strip():
            raise TableError(f"{path}: row {len(told) + 1} has no video")
        if row["video"] in told:
            raise TableError(f"{path}: has more than one row for the video {row['video']!r}")
        told[row["video"]] = (
            row.get("split") or "",
            {name.removeprefix(LABEL): row[name] for name in names},
        )
    return told

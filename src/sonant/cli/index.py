"""`sonant index`: clip tables of data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sonant.cli.arguments import Command, Root, write_clips
from sonant.errors import UsageError


def index_folder(
    root: Root,
    *,
    narrations: Path | None = None,
    labels: Path | None = None,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    stride: float | None = None,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make the clip table of a folder of videos.

    Args:
        root: the folder; videos are looked for at any depth.
        narrations: CSV with columns video, time (or start and end) and text; id, split and labels
            as you like. Without it, every video is cut into windows.
        labels: a second CSV with columns video and time, matching the narrations, and labels.
        out: the clip table to write.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        stride: seconds between un-narrated windows; a window's length if not given.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    from sonant.sources.folder import Window, folder

    clips = folder(
        root,
        narrations=narrations,
        labels=labels,
        window=Window(before, after),
        stride=stride,
        seed=seed,
        workers=workers,
    )
    write_clips(clips, out)


def index_world(
    root: Root,
    *,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make the clip table of a world that `sonant world` wrote, its truth as labels.

    Args:
        root: the world's folder.
        out: the clip table to write.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    if not (root / "truth.csv").is_file():
        raise UsageError(f"{root}: no truth.csv there; `sonant world {root}` makes a world")
    index_folder(
        root,
        narrations=root / "narrations.csv",
        labels=root / "truth.csv",
        out=out,
        before=before,
        after=after,
        seed=seed,
        workers=workers,
    )


INDEX: Mapping[str, Command] = {"folder": index_folder, "world": index_world}

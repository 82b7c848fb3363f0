"""`sonant index`: clip tables of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from sonant.cli.arguments import Command, Root, console, show_clips, write_clips
from sonant.clips import Clips
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
        out: the clip table to write; one made from the same files and settings is left alone.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        stride: seconds between un-narrated windows; a window's length if not given.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    from sonant.sources.folder import Window, folder, made_from

    settings: dict[str, Any] = {
        "narrations": narrations,
        "labels": labels,
        "window": Window(before, after),
        "stride": stride,
        "seed": seed,
    }
    wanted = made_from(root, **settings)
    if Clips.holds(out, wanted):
        console.print(f"no file has changed since {out} was made; delete it to make it again")
        show_clips(Clips.read(out), out)
        return
    write_clips(folder(root, **settings, workers=workers), out, made_from=wanted)


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
        out: the clip table to write; one made from the same files and settings is left alone.
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


def index_ego4d(
    root: Root,
    *,
    narrations: tuple[Path, ...] = (),
    annotations: Path | None = None,
    videos: Path | None = None,
    metadata: Path | None = None,
    manifest: Path | None = None,
    verbs: Path | None = None,
    nouns: Path | None = None,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    own_spans: bool = False,
    tags: bool = True,
    shortest: int = 4,
    apart: float = 0.5,
    chunk: float = 0.0,
    present_only: bool = False,
    benchmarks: bool = False,
    train: int = 0,
    val: int = 3000,
    seed: int = 0,
) -> None:
    """Make the clip table of Ego4D, of its narrations, EgoClip's, or annotated ones.

    Args:
        root: Ego4D as its own command downloads it; files that are not given are looked for there.
        narrations: narration.json, all_narrations_redacted.json, EgoClip's csv: any of them.
        annotations: a csv as EgoClip's with the column positive, the truth; its videos become the
            splits val and test, the others train.
        videos: folder of the video files, such as ROOT/v2/full_scale.
        metadata: ego4d.json.
        manifest: manifest.csv of the videos, which says which of them have sound.
        verbs: narration_verb_taxonomy.csv.
        nouns: narration_noun_taxonomy.csv.
        out: the clip table to write; one made from the same files and settings is left alone.
        before: seconds of the clip before the narrated time.
        after: seconds of the clip after it.
        own_spans: take clip_start and clip_end of a csv instead, where it has them.
        tags: take EgoClip's tags for verbs and nouns, where there are any.
        shortest: words that a narration must have, "#C C" counted as two.
        apart: seconds below which equal narrations of two passes are one.
        chunk: seconds of files UID/0.mp4, UID/1.mp4 ... that videos were cut into, such as 600; 0
            for whole videos.
        present_only: leave out the clips of absent files, instead of into quarantine.
        benchmarks: take the videos that Ego4D's benchmarks hold out too.
        train: training clips to choose, spread over videos and verbs; 0 for all.
        val: annotated clips of the split val, about; no video is split.
        seed: of the splits and of the choice.
    """
    from sonant.sources.ego4d import Files, Rules, ego4d, located, made_from
    from sonant.sources.folder import Window

    found = located(root)
    files = Files(
        videos=videos or found.videos,
        narrations=narrations or found.narrations,
        annotations=annotations,
        metadata=metadata or found.metadata,
        manifest=manifest or found.manifest,
        verbs=verbs or found.verbs,
        nouns=nouns or found.nouns,
    )
    window = Window(before, after)
    rules = Rules(window, own_spans, tags, shortest, apart, chunk, present_only, benchmarks)
    wanted = made_from(files, rules, train=train, val=val, seed=seed)
    _show("read", files.shown())
    if Clips.holds(out, wanted):
        console.print(f"no file has changed since {out} was made; delete it to make it again")
        show_clips(Clips.read(out), out)
        return
    index = ego4d(files, rules, train=train, val=val, seed=seed)
    _show("found", [(what, str(count)) for what, count in index.counts.items()])
    write_clips(index.clips, out, made_from=wanted)


def _show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("which", overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


INDEX: Mapping[str, Command] = {"folder": index_folder, "world": index_world, "ego4d": index_ego4d}

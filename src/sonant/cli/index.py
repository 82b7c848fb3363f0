"""`sonant index`: clip tables of data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sonant.cli.arguments import Command, Root, Source, console, write_clips
from sonant.clips import Clips
from sonant.errors import UsageError

if TYPE_CHECKING:
    from sonant.sources.ego4d import Files, Rules
    from sonant.sources.labelled import Listing


def index_folder(
    root: Root,
    *,
    narrations: Path | None = None,
    labels: Path | None = None,
    out: Path = Path("clips.parquet"),
    before: float = 0.5,
    after: float = 1.0,
    stride: float | None = None,
    partial: bool = False,
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
        partial: keep rows whose narration says nothing, as clips that lack one; methods of several
            modalities learn from such clips what they can.
        seed: of the split into train, val and test, which is by video.
        workers: processes that look into the videos.
    """
    from sonant.sources.folder import Window, folder, made_from

    settings: dict[str, Any] = {
        "narrations": narrations,
        "labels": labels,
        "window": Window(before, after),
        "stride": stride,
        "partial": partial,
        "seed": seed,
    }
    wanted = made_from(root, **settings)
    clips = write_clips(out, lambda: folder(root, **settings, workers=workers), made_from=wanted)
    _tell_unsplit(clips)


def index_windows(
    source: Source,
    *,
    seconds: float,
    stride: float | None = None,
    count: int | None = None,
    labels: Path | None = None,
    splits: Path | None = None,
    out: Path = Path("windows.parquet"),
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Make a clip table of windows of recordings: a folder's files, or the clips of another table.

    Args:
        source: a folder of videos and sounds, looked for at any depth, or a clip table whose clips
            are whole recordings; their labels and splits are those of their windows too.
        seconds: length of a window.
        stride: seconds from one window to the next; a window's length if not given.
        count: instead, so many windows spread evenly over each recording.
        labels: of a folder: CSV with the column video, a row a file, and labels; split as you like.
        splits: of a folder: a clip table of the same files, such as that of the narrated clips, so
            that none of its test videos is trained on; files that it lacks are for training.
        out: the clip table to write; one made from the same files and settings is left alone.
        seed: of a folder's split into train, val and test, which is by file.
        workers: processes that look into a folder's files.
    """
    from sonant.sources.windows import made_from, recordings, windows

    if out.exists() and source.exists() and out.samefile(source):
        raise UsageError(f"{out}: is the table to be cut; give another --out")
    wanted = made_from(
        source,
        labels=labels,
        splits=splits,
        seed=seed,
        seconds=seconds,
        stride=stride,
        count=count,
    )

    def make() -> Clips:
        whole = recordings(source, labels=labels, splits=splits, seed=seed, workers=workers)
        return windows(whole, seconds=seconds, stride=stride, count=count)

    clips = write_clips(out, make, made_from=wanted)
    if source.is_dir():
        _tell_unsplit(clips)


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
    absent_usable: bool = False,
    train: int = 0,
    val: int = 3000,
    seed: int = 0,
) -> None:
    """Make the clip table of Ego4D, of its narrations, EgoClip's, or annotated ones.

    Args:
        root: Ego4D as its own command downloads it; files that are not given are looked for there.
        narrations: narration.json, all_narrations_redacted.json, EgoClip's csv: any of them.
        annotations: a csv as EgoClip's with the column positive, the truth; its videos become the
            splits val and test, the others train. Its videos without any truth are left out.
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
        absent_usable: take clips of absent files for good, to choose before downloading.
        train: training clips to choose, spread over videos and verbs; 0 for all.
        val: annotated clips of the split val, about; no video is split.
        seed: of the splits and of the choice.
    """
    from sonant.sources.ego4d import Rules, located
    from sonant.sources.folder import Window

    given: dict[str, Any] = {
        "videos": videos, "narrations": narrations, "annotations": annotations,
        "metadata": metadata, "manifest": manifest, "verbs": verbs, "nouns": nouns,
    }  # fmt: skip
    files = replace(located(root), **{name: path for name, path in given.items() if path})
    window = Window(before, after)
    rules = Rules(
        window, own_spans, tags, shortest, apart, chunk, present_only, benchmarks, absent_usable
    )
    choice: dict[str, Any] = {"train": train, "val": val, "seed": seed}
    _index_ego4d(files, rules, choice, out)


def _index_ego4d(files: Files, rules: Rules, choice: Mapping[str, Any], out: Path) -> None:
    """Say what is read, and what of it became clips."""
    from sonant.sources.ego4d import ego4d, made_from

    wanted = made_from(files, rules, **choice)
    _show("read", files.shown())

    def make() -> Clips:
        index = ego4d(files, rules, **choice)
        _show("found", [(what, str(count)) for what, count in index.counts.items()])
        return index.clips

    write_clips(out, make, made_from=wanted)


def index_kinetics(
    root: Root,
    *,
    lists: tuple[Path, ...] = (),
    videos: Path | None = None,
    sound: bool = False,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of Kinetics-400, -600 or -700, with its classes and splits.

    Args:
        root: folder with train.csv, val.csv (or validate.csv) and test.csv, those there are.
        lists: csv files of DeepMind's or CVDF's, if they are others.
        videos: folder of the videos, if it is another; files that are absent go to quarantine.
        sound: put videos without sound into quarantine too.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.kinetics import kinetics

    _index(kinetics(root, lists=lists, videos=videos, sound=sound), out, workers)


def index_kinetics_sounds(
    root: Root,
    *,
    classes: str = "ks32",
    lists: tuple[Path, ...] = (),
    videos: Path | None = None,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of the classes of Kinetics that are seen and heard.

    Args:
        root: folder with Kinetics' train.csv, val.csv (or validate.csv) and test.csv.
        classes: ks34, ks32 or ks31 as published, ks100-open (our own list, since AVCL's was never
            published), or a text file with a class a line.
        lists: csv files of DeepMind's or CVDF's, if they are others.
        videos: folder of the videos, if it is another; files that are absent or have no sound go to
            quarantine.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.kinetics_sounds import absent, classes_of, kinetics_sounds

    wanted = classes_of(classes)
    listing = kinetics_sounds(root, classes=wanted, lists=lists, videos=videos)
    if lacking := absent(listing, wanted):
        console.print(
            f"of {len(wanted)} classes, {len(lacking)} are not in the lists: {', '.join(lacking)}"
        )
    _index(listing, out, workers)


def index_audioset(
    root: Root,
    *,
    lists: tuple[Path, ...] = (),
    names: Path | None = None,
    videos: Path | None = None,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of AudioSet, with its labels.

    Args:
        root: folder with balanced_train_segments.csv, unbalanced_train_segments.csv and
            eval_segments.csv, those there are.
        lists: some of them, if they are elsewhere.
        names: class_labels_indices.csv or ontology.json, if it is elsewhere.
        videos: folder of the files, video or sound, if it is another; files that are absent go to
            quarantine.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.audioset import audioset

    _index(audioset(root, lists=lists, names=names, videos=videos), out, workers)


def index_ucf101(
    root: Root,
    *,
    split: int | None = None,
    videos: Path | None = None,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of UCF101, with its classes and three splits.

    Args:
        root: folder with ucfTrainTestlist, or the files of it.
        split: the official split, 1 to 3, that becomes the column split; all three are labels.
        videos: folder of the videos, if it is another; files that are absent go to quarantine.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.ucf101 import ucf101

    _index(ucf101(root, split=split, videos=videos), out, workers)


def index_hmdb51(
    root: Root,
    *,
    split: int | None = None,
    videos: Path | None = None,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of HMDB51, with its classes and three splits.

    Args:
        root: folder with the lists CLASS_test_split1.txt, at any depth.
        split: the official split, 1 to 3, that becomes the column split; all three are labels.
        videos: folder of the videos, if it is another; files that are absent go to quarantine.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.hmdb51 import hmdb51

    _index(hmdb51(root, split=split, videos=videos), out, workers)


def index_esc50(
    root: Root,
    *,
    fold: int | None = None,
    esc10: bool = False,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of ESC-50 or ESC-10, with its classes and five folds.

    Args:
        root: folder with meta/esc50.csv or esc10.csv, and the sounds.
        fold: the official fold, 1 to 5, that becomes the split test; the others become train.
        esc10: only the classes of ESC-10.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.esc50 import esc50

    _index(esc50(root, fold=fold, esc10=esc10), out, workers)


def index_dcase2013(
    root: Root,
    *,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of the scenes of DCASE 2013, with their classes and split.

    Args:
        root: folder with scenes_stereo and scenes_stereo_testset somewhere in it.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.dcase2013 import dcase2013

    _index(dcase2013(root), out, workers)


def index_kitchen20(
    root: Root,
    *,
    fold: int | None = None,
    folds: int = 5,
    seed: int = 0,
    out: Path = Path("clips.parquet"),
    workers: int = 2,
) -> None:
    """Make the clip table of Kitchen20, dealt into folds by recording, since its own folds leak.

    Args:
        root: folder with kitchen20.csv and the sounds.
        fold: the fold, 1 to FOLDS, that becomes the split test; the others become train.
        folds: how many folds the recordings are dealt into.
        seed: of the deal.
        out: the clip table to write; one made from the same files and settings is left alone.
        workers: processes that look into the files.
    """
    from sonant.sources.kitchen20 import kitchen20

    _index(kitchen20(root, fold=fold, folds=folds, seed=seed), out, workers)


def _index(listing: Listing, out: Path, workers: int) -> None:
    write_clips(out, lambda: listing.clips(workers=workers), made_from=listing.made_from())


def _tell_unsplit(clips: Clips) -> None:
    """Say that there were too few videos to deal into splits, if so, and how to go on."""
    from sonant.sources.folder import FRACTIONS

    few = len(set(clips.column("video")) - {""}) < len(FRACTIONS)
    if few and set(clips.column("split")) == {""}:
        console.print(
            f"no split is set, which takes {len(FRACTIONS)} videos or more; "
            "`--split all` takes all clips"
        )


def _show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("which", overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


INDEX: Mapping[str, Command] = {
    "folder": index_folder,
    "windows": index_windows,
    "world": index_world,
    "ego4d": index_ego4d,
    "kinetics": index_kinetics,
    "kinetics-sounds": index_kinetics_sounds,
    "audioset": index_audioset,
    "ucf101": index_ucf101,
    "hmdb51": index_hmdb51,
    "esc50": index_esc50,
    "dcase2013": index_dcase2013,
    "kitchen20": index_kitchen20,
}

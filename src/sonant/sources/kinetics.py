"""Kinetics-400, -600 and -700: segments of 10 s of YouTube videos, one action each.

The lists are DeepMind's csv files, as CVDF mirrors them too: label, youtube_id, time_start,
time_end, split, and in some is_cc; the test list of Kinetics-400 has no label. Many videos are
gone from YouTube, so that a list has more rows than anyone has files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonant.errors import UsageError
from sonant.media.events import Kind
from sonant.sources.folder import SUFFIXES
from sonant.sources.labelled import Item, Listing, Media
from sonant.sources.lists import Row, folder, table

COLUMNS = ("youtube_id", "time_start", "time_end", "split")
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
"""Names of the splits in the lists, and here."""
LISTS = ("train.csv", "val.csv", "validate.csv", "test.csv")
PLACES = ("", "annotations", "lists")
"""Where in the folder the lists lie, the first place first."""


def kinetics(
    root: Path,
    *,
    lists: Sequence[Path] = (),
    videos: Path | None = None,
    sound: bool = False,
) -> Listing:
    """List the clips of Kinetics.

    Labels: `class` (null in test lists without it), `youtube`. The split is the official one.

    A file is found as `ID_000010_000020.mp4` or, with the whole video or the segment alone in it,
    as `ID.mp4`; with any suffix of a video and in any folder.

    Args:
        root: folder with the lists, and the videos in it.
        lists: csv files, if they are others than those found in the root.
        videos: folder of the videos, if it is another.
        sound: whether a video without sound is of no use.

    Raises:
        UsageError: there is no such folder, or no list in it; a clip's file is there twice.
        TableError: a list is not what it should be, and where.
    """
    paths = list(lists) or _lists(root)
    media = Media(videos or root, SUFFIXES)
    items = [_item(row, media) for path in paths for row in table(path, COLUMNS)]
    needs: tuple[Kind, ...] = ("video", "audio") if sound else ("video",)
    return Listing(media.root, items, needs=needs, takes=("audio",))


def _lists(root: Path) -> list[Path]:
    for place in PLACES:
        there = [path for name in LISTS if (path := folder(root) / place / name).is_file()]
        if there:
            return there
    raise UsageError(f"{root}: has none of {', '.join(LISTS)}; give the csv files of Kinetics")


def _item(row: Row, media: Media) -> Item:
    uid, split = row.text("youtube_id"), SPLITS[row.one_of("split", SPLITS)]
    segment = row.segment("time_start", "time_end")
    told = "label" in row.cells and (split != "test" or row.cells["label"].strip())
    label = row.text("label") if told else None
    name = f"{uid}_{int(segment[0]):06}_{int(segment[1]):06}"
    trimmed = media.find(name)
    return Item(
        id=name,
        video=trimmed or media.find(uid) or f"{label or split}/{name}.mp4",
        labels={"class": label, "youtube": uid},
        where=row.where,
        split=split,
        segment=segment,
        trimmed=trimmed is not None,
    )

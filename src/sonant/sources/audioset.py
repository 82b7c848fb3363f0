"""AudioSet: segments of up to 10 s of YouTube videos, with one or more of 527 labels (2017).

Its lists `balanced_train_segments.csv`, `unbalanced_train_segments.csv` and `eval_segments.csv`
begin with lines of comments and have rows `YTID, start, end, "mid,mid"`. What a label is called
stands in `class_labels_indices.csv` (index, mid, display_name) or in `ontology.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sonant.errors import TableError, UsageError
from sonant.sources.folder import SUFFIXES
from sonant.sources.labelled import SOUNDS, Item, Listing, Media
from sonant.sources.lists import Row, first_there, folder, table

COLUMNS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
LISTS = {
    "balanced_train_segments.csv": ("balanced", "train"),
    "unbalanced_train_segments.csv": ("unbalanced", "train"),
    "eval_segments.csv": ("eval", "test"),
}
"""The lists, with the set that each is and its split."""
PLACES = ("", "csv", "metadata")
NAMED = ("index", "mid", "display_name")
NAMES = ("class_labels_indices.csv", "ontology.json")


def audioset(
    root: Path,
    *,
    lists: Sequence[Path] = (),
    names: Path | None = None,
    videos: Path | None = None,
) -> Listing:
    """List the clips of AudioSet.

    Labels: `mids` (with commas between), `classes` (what they are called, with `; ` between),
    `class` (null for a clip with more than one label), `set` (balanced, unbalanced, eval) and
    `youtube`. Both training lists are the split train, the other is test.

    A file is found as `ID_START_END` (in seconds or milliseconds), `ID` or `YID`, with any suffix
    of a video or a sound and in any folder; without times in its name it holds the whole video, or
    the segment alone.

    Args:
        root: folder with the lists and the names of the labels, and the files in it.
        lists: csv files named as the three are, if they are others than those in the root.
        names: class_labels_indices.csv or ontology.json.
        videos: folder of the files, if it is another.

    Raises:
        UsageError: there is no such folder, no list or no names in it; a clip's file is there
            twice.
        TableError: a list is not what it should be, and where.
    """
    paths = list(lists) or _lists(root)
    if strange := [path for path in paths if path.name not in LISTS]:
        raise UsageError(f"{strange[0]}: is not named as a list of AudioSet: {', '.join(LISTS)}")
    places = [f"{place}/{name}".lstrip("/") for place in PLACES for name in NAMES]
    known = _names(names or first_there(root, *places))
    media = Media(videos or root, SUFFIXES | SOUNDS)
    items = [
        _item(row, known, media, *LISTS[path.name])
        for path in paths
        for row in table(path, names=COLUMNS)
    ]
    return Listing(media.root, items, needs=("audio",), takes=("video",))


def _lists(root: Path) -> list[Path]:
    for place in PLACES:
        if there := [path for name in LISTS if (path := folder(root) / place / name).is_file()]:
            return there
    raise UsageError(f"{root}: has none of {', '.join(LISTS)}")


def _names(path: Path) -> dict[str, str]:
    """Labels to what they are called."""
    if path.suffix == ".csv":
        return {row.text("mid"): row.text("display_name") for row in table(path, NAMED)}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {str(one["id"]): str(one["name"]) for one in told}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TableError(f"{path}: is not AudioSet's ontology.json ({error!r})") from error


def _item(row: Row, known: Mapping[str, str], media: Media, part: str, split: str) -> Item:
    uid, (start, end) = row.text("YTID"), row.segment("start_seconds", "end_seconds")
    mids = [mid.strip() for mid in row.text("positive_labels").split(",")]
    if unknown := [mid for mid in mids if mid not in known]:
        raise TableError(
            f"{row.where}: label {unknown[0]!r} is none of the {len(known)} that have names"
        )
    names = [known[mid] for mid in mids]
    times = [f"{spell(start)}_{spell(end)}" for spell in (_whole, _milli, _exact)]
    trimmed = media.find(*(f"{y}{uid}_{time}" for time in times for y in ("", "Y")))
    return Item(
        id=f"{uid}_{_milli(start)}_{_milli(end)}",
        video=trimmed or media.find(uid, f"Y{uid}") or f"{part}/{uid}_{_whole(start)}.wav",
        labels={
            "class": names[0] if len(names) == 1 else None,
            "classes": "; ".join(names),
            "mids": ",".join(mids),
            "set": part,
            "youtube": uid,
        },
        where=row.where,
        split=split,
        segment=(start, end),
        trimmed=trimmed is not None,
    )


def _whole(time: float) -> str:
    return str(int(time))


def _milli(time: float) -> str:
    return str(round(time * 1000))


def _exact(time: float) -> str:
    return f"{time:.3f}"

"""UCF101: videos of 101 actions, with three official splits (Soomro et al. 2012).

Its lists, in `ucfTrainTestlist` or beside the videos: `classInd.txt` (`1 ApplyEyeMakeup`),
`trainlist01.txt` (`Class/v_Class_g08_c01.avi 1`) and `testlist01.txt` (the path alone).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from sonant.errors import TableError, UsageError
from sonant.sources.folder import SUFFIXES
from sonant.sources.labelled import Item, Listing, Media
from sonant.sources.lists import Row, chosen, first_there, words

SPLITS = 3
INDEX = "classInd.txt"
LISTS = "ucfTrainTestlist"


def ucf101(root: Path, *, split: int | None = None, videos: Path | None = None) -> Listing:
    """List the videos of UCF101.

    Labels: `class`, `target` (as in classInd.txt, from 1), and `split1` to `split3` (train or test,
    null in a split whose lists lack the video or are not there). Half of the videos have no sound.

    Args:
        root: folder with the lists, and the videos in it at any depth.
        split: the official split, 1 to 3, that becomes the column split.
        videos: folder of the videos, if it is another.

    Raises:
        UsageError: there is no such split or folder, or its lists are not there.
        TableError: a list is not what it should be, and where.
    """
    chosen(SPLITS, split=split)
    index = first_there(root, f"{LISTS}/{INDEX}", INDEX)
    classes = _classes(index)
    there = [k for k in range(1, SPLITS + 1) if all(p.is_file() for p in _lists(index, k).values())]
    if not there or (split is not None and split not in there):
        wanted = " and ".join(path.name for path in _lists(index, split or 1).values())
        raise UsageError(f"{index.parent}: has no {wanted}")
    parts: dict[str, dict[int, str]] = {}
    firsts: dict[str, Row] = {}
    for number in there:
        for part, path in _lists(index, number).items():
            for row in _rows(path, part, classes):
                name, splits = row.cells["video"], parts.setdefault(row.cells["video"], {})
                if number in splits:
                    raise TableError(f"{row.where}: {name} is in split {number} already")
                splits[number] = part
                firsts.setdefault(name, row)
    media = Media(videos or root, SUFFIXES, parts=2, cased=False)
    items = [_item(row, parts[name], classes, media, split) for name, row in firsts.items()]
    return Listing(media.root, items, needs=("video",))


def _lists(index: Path, split: int) -> dict[str, Path]:
    return {part: index.parent / f"{part}list{split:02}.txt" for part in ("train", "test")}


def _classes(path: Path) -> dict[str, int]:
    classes: dict[str, int] = {}
    for row in words(path, ("number", "class"), first=True):
        name, number = row.text("class"), row.whole("number", 1, 10_000)
        if name in classes or number in classes.values():
            raise TableError(f"{row.where}: class {number} {name} is there already")
        classes[name] = number
    return classes


def _rows(path: Path, part: str, classes: Mapping[str, int]) -> Iterator[Row]:
    """The rows of a list, each with its `video` and `class`."""
    for row in words(path, ("video", "number") if part == "train" else ("video",)):
        name = row.text("video")
        parts = PurePosixPath(name).parts
        if len(parts) != 2:
            raise TableError(f"{row.where}: {name!r} is not of the form CLASS/VIDEO.avi")
        full = Row(row.where, {**row.cells, "class": parts[0]})
        number = classes[full.one_of("class", classes)]
        if part == "train" and row.whole("number", 1, 10_000) != number:
            raise TableError(
                f"{row.where}: class {parts[0]} is {row.cells['number']} here, and {number} in "
                f"{INDEX}"
            )
        yield full


def _item(
    row: Row,
    splits: Mapping[int, str],
    classes: Mapping[str, int],
    media: Media,
    split: int | None,
) -> Item:
    place, name = PurePosixPath(row.cells["video"]), row.cells["class"]
    labels = {
        "class": name,
        "target": classes[name],
        **{f"split{number}": splits.get(number) for number in range(1, SPLITS + 1)},
    }
    part = splits.get(split, "") if split is not None else ""
    return Item(place.stem, media.at(str(place)), labels, row.where, part)

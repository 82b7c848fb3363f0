"""HMDB51: videos of 51 actions, with three official splits (Kuehne et al. 2011).

Each class has a list a split, `brush_hair_test_split1.txt`, of lines `VIDEO.avi CODE`: 1 for
training, 2 for testing, 0 for neither. The videos lie in folders named by the class.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from sonant.errors import TableError, UsageError
from sonant.sources.folder import SUFFIXES
from sonant.sources.labelled import Item, Listing, Media
from sonant.sources.lists import Row, chosen, folder, words

SPLITS = 3
CODES = {"0": None, "1": "train", "2": "test"}


def hmdb51(root: Path, *, split: int | None = None, videos: Path | None = None) -> Listing:
    """List the videos of HMDB51.

    Labels: `class`, and `split1` to `split3` (train, test, or null where the split leaves the
    video out). Most videos have no sound.

    Args:
        root: folder with the lists, and the videos in it, at any depth.
        split: the official split, 1 to 3, that becomes the column split.
        videos: folder of the videos, if it is another.

    Raises:
        UsageError: there is no such split or folder, or a list is missing.
        TableError: a list is not what it should be, and where.
    """
    chosen(SPLITS, split=split)
    lists = _lists(root)
    codes: dict[tuple[str, str], dict[int, str]] = {}
    firsts: dict[tuple[str, str], Row] = {}
    for (name, number), path in lists.items():
        for row in words(path, ("video", "code")):
            key = name, row.text("video")
            if number in codes.setdefault(key, {}):
                raise TableError(f"{row.where}: {key[1]} is listed twice")
            codes[key][number] = row.one_of("code", CODES)
            firsts.setdefault(key, row)
    media = Media(videos or root, SUFFIXES, parts=2, cased=False)
    items = [_item(*key, codes[key], row, media, split) for key, row in firsts.items()]
    return Listing(media.root, items, needs=("video",))


def _lists(root: Path) -> dict[tuple[str, int], Path]:
    """The lists by class and split."""
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(folder(root).rglob("*_test_split*.txt")):
        named = re.fullmatch(r"(.+)_test_split(\d+)", path.stem)
        if named is None or not 1 <= int(named[2]) <= SPLITS:
            raise UsageError(f"{path}: is of none of the splits 1 to {SPLITS}")
        key = named[1], int(named[2])
        if key in found:
            raise UsageError(f"{path}: is there already, as {found[key]}")
        found[key] = path
    if not found:
        raise UsageError(f"{root}: has no lists CLASS_test_split1.txt")
    for name in sorted({name for name, _ in found}):
        for number in range(1, SPLITS + 1):
            if (name, number) not in found:
                raise UsageError(f"{root}: has no {name}_test_split{number}.txt")
    return found


def _item(
    name: str, file: str, codes: dict[int, str], row: Row, media: Media, split: int | None
) -> Item:
    parts = {k: CODES[codes[k]] if k in codes else None for k in range(1, SPLITS + 1)}
    stem = str(PurePosixPath(file).with_suffix(""))
    labels = {"class": name, **{f"split{number}": part for number, part in parts.items()}}
    part = parts[split] if split is not None else None
    return Item(f"{name}/{stem}", media.at(f"{name}/{file}"), labels, row.where, part or "")

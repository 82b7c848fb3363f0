"""DCASE 2013 scenes: recordings of 30 s from ten places, a set to learn from and one for tests.

The files lie in folders `scenes_stereo` (train) and `scenes_stereo_testset` (test), wherever these
are inside the root, and are named by their class and two digits: `busystreet07.wav`.
"""

from __future__ import annotations

import re
from pathlib import Path

from sonant.errors import TableError, UsageError
from sonant.sources.labelled import SOUNDS, Item, Listing, media_files
from sonant.sources.lists import folder

CLASSES = (
    *("bus", "busystreet", "office", "openairmarket", "park", "quietstreet", "restaurant"),
    *("supermarket", "tube", "tubestation"),
)
SETS = {"scenes_stereo": "train", "scenes_stereo_testset": "test"}


def dcase2013(root: Path) -> Listing:
    """List the recordings; labels: `class`. The split is the official one.

    Args:
        root: the data set's folder, or one with both sets somewhere in it.

    Raises:
        UsageError: no such folder, or no recordings of one of the two sets in it.
        TableError: a file is not named by one of the ten classes.
    """
    found: dict[str, list[Path]] = {name: [] for name in SETS}
    for path in media_files(folder(root), SOUNDS):
        if within := [part for part in path.relative_to(root).parts[:-1] if part in SETS]:
            found[within[-1]].append(path)
    if lacking := [name for name, paths in found.items() if not paths]:
        raise UsageError(f"{root}: no recordings in a folder {lacking[0]} there")
    items = [_item(root, path, SETS[name]) for name, paths in found.items() for path in paths]
    return Listing(root, items, needs=("audio",))


def _item(root: Path, path: Path, split: str) -> Item:
    named = re.fullmatch(r"(.+)\d\d", path.stem)
    if named is None or named[1] not in CLASSES:
        raise TableError(
            f"{path}: is not named by a class and two digits; the classes are {', '.join(CLASSES)}"
        )
    place = path.relative_to(root).as_posix()
    return Item(f"{split}/{path.stem}", place, {"class": named[1]}, str(path), split)

"""Kinetics-Sounds: classes of Kinetics that are seen and heard, in the lists that are in use.

Arandjelovic and Zisserman (2017, appendix A1) chose 34 classes before Kinetics was released, some
under names that it has not kept; two were never released. SeLaVi and XKD use the 32 that remain,
OGM-GE and others 31 of them. AVCL's 100 classes were never published: `ks100-open` is our own list,
and figures on it compare with no paper's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from sonant.errors import TableError, UsageError
from sonant.sources.kinetics import kinetics
from sonant.sources.labelled import Listing
from sonant.sources.lists import words

RENAMED = {
    "blowing out": "blowing out candles",
    "dribbling ball": "dribbling basketball",
    "fingerpicking": "strumming guitar",
    "mowing the lawn by pushing lawnmower": "mowing lawn",
    "stomping": "stomping grapes",
}
"""Names of the 34 that Kinetics was released under others."""
KS34 = (
    *("blowing nose", "bowling", "chopping wood", "ripping paper", "shuffling cards", "singing"),
    *("tapping pen", "typing", "blowing out", "dribbling ball", "laughing"),
    *("mowing the lawn by pushing lawnmower", "shoveling snow", "stomping", "tap dancing"),
    *("tapping guitar", "tickling", "fingerpicking", "patting", "playing accordion"),
    *("playing bagpipes", "playing bass guitar", "playing clarinet", "playing drums"),
    *("playing guitar", "playing harmonica", "playing keyboard", "playing organ"),
    *("playing piano", "playing saxophone", "playing trombone", "playing trumpet"),
    *("playing violin", "playing xylophone"),
)
"""The classes as they were called before the release."""
KS32 = tuple(RENAMED.get(name, name) for name in KS34 if name not in ("typing", "patting"))
KS31 = tuple(name for name in KS32 if name != "strumming guitar")
KS100_OPEN = (
    *KS32,
    *("applauding", "auctioning", "beatboxing", "belly dancing", "blasting sand"),
    *("blowing leaves", "bouncing on trampoline", "brushing teeth", "busking", "celebrating"),
    *("cheerleading", "clapping", "cooking sausages", "country line dancing", "crying"),
    *("dancing charleston", "driving tractor", "drumming fingers", "dunking basketball"),
    *("finger snapping", "frying vegetables", "gargling", "golf driving", "grinding meat"),
    *("hitting baseball", "jetskiing", "marching", "motorcycling", "news anchoring"),
    *("opening bottle", "playing badminton", "playing basketball", "playing cello"),
    *("playing cricket", "playing cymbals", "playing didgeridoo", "playing flute"),
    *("playing harp", "playing ice hockey", "playing paintball", "playing recorder"),
    *("playing squash or racquetball", "playing tennis", "playing ukulele"),
    *("playing volleyball", "presenting weather forecast", "recording music", "sanding floor"),
    *("scrambling eggs", "sharpening knives", "sharpening pencil", "shredding paper"),
    *("skateboarding", "slapping", "sled dog racing", "sneezing", "sniffing", "snowmobiling"),
    *("spray painting", "sword fighting", "testifying", "throwing axe", "trimming trees"),
    *("unboxing", "using computer", "washing dishes", "welding", "whistling"),
)
"""Ours: the 32, AVCL's named ones, and other classes of Kinetics-400 that sound."""
CLASSES = {"ks34": KS34, "ks32": KS32, "ks31": KS31, "ks100-open": KS100_OPEN}


def classes_of(name: str) -> tuple[str, ...]:
    """A list of classes, by its name or out of a text file with a class a line.

    Raises:
        UsageError: it is no list's name, and no such file is there.
        TableError: the file is unreadable or empty, or has a class twice.
    """
    if name in CLASSES:
        return CLASSES[name]
    if not Path(name).is_file():
        raise UsageError(
            f"{name}: no list of that name, and no such file; there are {', '.join(CLASSES)}"
        )
    seen: dict[str, str] = {}
    for row in words(Path(name), ("class",)):
        if row.text("class") in seen:
            raise TableError(f"{row.where}: {row.text('class')!r} is there already")
        seen[row.text("class")] = row.where
    return tuple(seen)


def kinetics_sounds(
    root: Path,
    *,
    classes: Sequence[str] = KS32,
    lists: Sequence[Path] = (),
    videos: Path | None = None,
) -> Listing:
    """List the clips of some classes of Kinetics; videos without sound are of no use.

    Labels are those of `kinetics`; `class` is what Kinetics calls it.

    Args:
        root: folder with Kinetics' lists, and the videos in it.
        classes: names of the classes, those of before the release too.
        lists: csv files, if they are others than those found in the root.
        videos: folder of the videos, if it is another.

    Raises:
        UsageError: as `kinetics`, or none of the classes is in the lists.
        TableError: a list is not what it should be, and where.
    """
    wanted = {_plain(RENAMED.get(name, name)) for name in classes}
    every = kinetics(root, lists=lists, videos=videos, sound=True)
    items = [item for item in every.items if _plain(str(item.labels["class"])) in wanted]
    if not items:
        raise UsageError(f"{root}: the lists have no clip of {', '.join(classes)}")
    return replace(every, items=items)


def absent(listing: Listing, classes: Collection[str]) -> list[str]:
    """Those of some classes of which nothing is listed."""
    there = {_plain(str(item.labels["class"])) for item in listing.items}
    return [name for name in classes if _plain(RENAMED.get(name, name)) not in there]


def _plain(name: str) -> str:
    """Some mirrors write class names with underscores."""
    return name.replace("_", " ").lower().strip()

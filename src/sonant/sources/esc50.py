"""ESC-50 and ESC-10: sounds of 5 s in 50 (10) classes, with five official folds (Piczak 2015).

The folder is that of the published archive, with `meta/esc50.csv` (filename, fold, target,
category, esc10, src_file, take) and `audio/`; or one with `esc10.csv` (file, category, fold,
source_id), as ESC-10 came out by itself.
"""

from __future__ import annotations

from pathlib import Path

from sonant.errors import TableError, UsageError
from sonant.sources.labelled import SOUNDS, Item, Listing, Media
from sonant.sources.lists import Row, chosen, first_there, table
from sonant.types import Label

FOLDS = 5
CLASSES = (
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops", "wind"),
    *("pouring_water", "toilet_flush", "thunderstorm", "crying_baby", "sneezing", "clapping"),
    *("breathing", "coughing", "footsteps", "laughing", "brushing_teeth", "snoring"),
    *("drinking_sipping", "door_wood_knock", "mouse_click", "keyboard_typing"),
    *("door_wood_creaks", "can_opening", "washing_machine", "vacuum_cleaner", "clock_alarm"),
    *("clock_tick", "glass_breaking", "helicopter", "chainsaw", "siren", "car_horn", "engine"),
    *("train", "church_bells", "airplane", "fireworks", "hand_saw"),
)
"""Names by their number `target`."""
ESC10 = (
    *("Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick", "Person sneeze", "Helicopter"),
    *("Chainsaw", "Rooster", "Fire crackling"),
)
"""Names in ESC-10's own archive."""


def esc50(root: Path, *, fold: int | None = None, esc10: bool = False) -> Listing:
    """List the clips of ESC-50, or of ESC-10.

    Labels: `class`, `fold`, `source` (the Freesound recording), and of ESC-50 `target` and `esc10`.

    Args:
        root: the data set's folder.
        fold: the fold, 1 to 5, that becomes the split test; the others become train.
        esc10: only the ten classes of ESC-10.

    Raises:
        UsageError: there is no such fold or folder, or it has no list.
        TableError: the list is not what it should be, and where.
    """
    chosen(FOLDS, fold=fold)
    path = first_there(root, "meta/esc50.csv", "esc50.csv", "esc10.csv")
    media = Media(root, SOUNDS)
    if path.name == "esc10.csv":
        rows = table(path, ("file", "category", "fold", "source_id"))
        items = [_of_esc10(row, media, fold) for row in rows]
    else:
        rows = table(path, ("filename", "fold", "target", "category", "esc10", "src_file"))
        items = [_of_esc50(row, media, fold) for row in rows]
        items = [item for item in items if item.labels["esc10"] or not esc10]
        if not items:
            raise UsageError(f"{path}: lists no clip of ESC-10")
    return Listing(root, items, needs=("audio",))


def _of_esc50(row: Row, media: Media, fold: int | None) -> Item:
    target = row.whole("target", 0, len(CLASSES) - 1)
    name = row.one_of("category", CLASSES)
    if CLASSES[target] != name:
        raise TableError(
            f"{row.where}: target {target} is {CLASSES[target]!r} in ESC-50, not {name!r}"
        )
    small = row.one_of("esc10", ("True", "False")) == "True"
    labels: dict[str, Label] = {"class": name, "target": target, "esc10": small}
    labels["source"] = row.text("src_file")
    return _item(row, f"audio/{row.text('filename')}", labels, media, fold)


def _of_esc10(row: Row, media: Media, fold: int | None) -> Item:
    labels: dict[str, Label] = {"class": row.one_of("category", ESC10)}
    labels["source"] = row.text("source_id")
    return _item(row, row.text("file"), labels, media, fold)


def _item(row: Row, place: str, labels: dict[str, Label], media: Media, test: int | None) -> Item:
    fold = row.whole("fold", 1, FOLDS)
    split = "" if test is None else "test" if fold == test else "train"
    return Item(Path(place).stem, media.at(place), labels | {"fold": fold}, row.where, split)

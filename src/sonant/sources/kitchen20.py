"""Kitchen20: kitchen sounds in 20 classes (Moreaux et al. 2019).

Its folds share recordings: takes of one Freesound recording lie in several of them. So a split is
made of folds of our own, in which a recording with all its takes lies in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sonant.errors import TableError, UsageError, at_least
from sonant.sources.labelled import SOUNDS, Item, Listing, Media
from sonant.sources.lists import Row, chosen, first_there, table
from sonant.types import Label

CLASSES = (
    *("blender", "dishwasher", "fridge", "microwave", "stove-fan", "stove-burner", "frying-pan"),
    *("water-flowing", "boiling-water", "juicer", "cupboard", "drawer", "clean-dishes", "book"),
    *("chopping", "cutlery", "eat", "peel", "plates", "sweep"),
)
"""Names by their number `target`."""
OFFICIAL_FOLDS = 10
FILES, SOURCES = ("file", "path"), ("source_id", "orig_idx")
"""Names of two columns, in the part that is of Freesound and in the data set's own list."""


def kitchen20(root: Path, *, fold: int | None = None, folds: int = 5, seed: int = 0) -> Listing:
    """List the clips of Kitchen20, and deal its recordings into folds.

    Labels: `class`, `target`, `source` (the recording), `fold` (the data set's own, which leaks)
    and `source_fold` (ours, 1 to `folds`).

    Args:
        root: folder with `kitchen20.csv` (file or path, category, target, fold, and source_id or
            orig_idx) and the sounds.
        fold: the fold of ours that becomes the split test; the others become train.
        folds: how many folds recordings are dealt into.
        seed: of the deal, 0 or more.

    Raises:
        UsageError: there is no such fold or folder, or more folds than recordings.
        TableError: the list is not what it should be, and where.
    """
    at_least(2, folds=folds)
    at_least(0, seed=seed)
    chosen(folds, fold=fold)
    path = first_there(root, "kitchen20.csv", "metadata/kitchen20.csv")
    media = Media(root, SOUNDS)
    items = [_item(row, media, path) for row in table(path, ("category", "target", "fold"))]
    sources = [str(item.labels["source"]) for item in items]
    if len(set(sources)) < folds:
        raise UsageError(f"{path}: {len(set(sources))} recordings cannot make {folds} folds")
    ours = deal(sources, [str(item.labels["class"]) for item in items], folds, seed=seed)
    dealt = [
        replace(
            item,
            labels={**item.labels, "source_fold": own},
            split="" if fold is None else "test" if own == fold else "train",
        )
        for item, own in zip(items, ours, strict=True)
    ]
    return Listing(root, dealt, needs=("audio",))


def deal(sources: Sequence[str], classes: Sequence[str], folds: int, *, seed: int) -> list[int]:
    """Folds, from 1, of clips, such that no source lies in two and classes are spread evenly.

    Sources take turns, those with most clips first and equal ones in an order drawn from the seed;
    each goes where clips of its classes are fewest, then where all clips are fewest.

    Args:
        sources: of each clip.
        classes: of each clip.
        folds: how many folds.
        seed: of the order.
    """
    held: dict[str, Counter[str]] = {}
    for source, name in zip(sources, classes, strict=True):
        held.setdefault(source, Counter())[name] += 1
    names = sorted(held)
    shuffled = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    filled: list[Counter[str]] = [Counter() for _ in range(folds)]
    place: dict[str, int] = {}
    for source in sorted(shuffled, key=lambda source: -held[source].total()):
        alike = [sum(fold[name] for name in held[source]) for fold in filled]
        place[source] = min(range(folds), key=lambda k: (alike[k], filled[k].total(), k))
        filled[place[source]] += held[source]
    return [place[source] + 1 for source in sources]


def _item(row: Row, media: Media, path: Path) -> Item:
    name, source = (_either(row, names, path) for names in (FILES, SOURCES))
    target = row.whole("target", 0, len(CLASSES) - 1)
    category = row.one_of("category", CLASSES)
    if CLASSES[target] != category:
        raise TableError(
            f"{row.where}: target {target} is {CLASSES[target]!r} in Kitchen20, not {category!r}"
        )
    labels: dict[str, Label] = {
        "class": category,
        "target": target,
        "source": source,
        "fold": row.whole("fold", 0, OFFICIAL_FOLDS),
    }
    return Item(Path(name).stem, media.at(name), labels, row.where)


def _either(row: Row, names: tuple[str, str], path: Path) -> str:
    """The cell under the one of two names that the list uses."""
    for name in names:
        if name in row.cells:
            return row.text(name)
    raise TableError(
        f"{path}: has the columns {', '.join(row.cells)}; wanted is {' or '.join(names)}"
    )

"""What pretrained towers transfer to: a classifier trained, embedded and judged on every fold.

One call trains one row: from scratch, fine-tuned, or the layers over still towers alone. Rows of a
folder are of the same clips dealt alike, and stand in one table.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sonant.bench.runs import RESAMPLES, Result
from sonant.bench.tables import Column, Table, differences, table, write
from sonant.checkpoint import RecipeFunction, defaults
from sonant.clips import Clips
from sonant.data import Array, Cache
from sonant.embed import embed
from sonant.errors import UsageError
from sonant.files import replacing
from sonant.media.pack import Pack
from sonant.sources.folds import Fold, check_apart, folds, recordings
from sonant.sources.windows import RECORDING
from sonant.tasks.agreement import label as label_of
from sonant.tasks.recognition import recognition
from sonant.train import train
from sonant.validation import Validation

Choice = Literal["last", "val", "held-out"]
"""Which epoch's weights are judged: the last one's, or those of the best one by the clips that are
`val`, or by clips held out of the training part."""

COLUMNS = [
    Column("top-1", "recognition", "top1", percent=True),
    Column("top-5", "recognition", "top5", percent=True),
    Column("mean class", "recognition", "mca", percent=True),
]


@dataclass(frozen=True)
class Dealing:
    """How clips are dealt to training, choosing and judging; the same for all rows of a table."""

    by: tuple[str, ...] = ("split",)
    """Columns, as `sources.folds.folds` reads them."""
    choose: Choice = "last"
    held_out: float = 0.1
    """Share of the training part that chooses the epoch, if that is asked for."""
    apart: str = RECORDING
    """The label whose values are not torn apart when clips are held out."""
    seed: int = 0
    """Of what is held out."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise UsageError(f"the share held out is above 0 and below 1, not {self.held_out}")
        if self.choose not in get_args(Choice):
            raise UsageError(f"choose is one of {', '.join(get_args(Choice))}, not {self.choose!r}")

    def folds(self, clips: Clips, label: str) -> list[Fold]:
        """The folds with what chooses the epoch in `val`, of clips that are packed and labelled.

        Raises:
            UsageError: a fold judges recordings that it learns from, or nothing can choose.
            TableError: there is no such label or column.
        """
        clips.column(label)
        good = (clips.column("shard") != "") & (label_of(clips, label) != "")
        of, groups = recordings(clips), recordings(clips, self.apart)
        found = []
        for fold in folds(clips, self.by):
            check_apart(fold, of, "recordings")
            kept = Fold(fold.name, fold.train & good, fold.test & good, fold.val & good)
            chosen = self._choosing(kept, groups)
            for part in (chosen.train, chosen.test):
                check_apart(Fold(fold.name, part, chosen.val, part), of, "choosing recordings")
            found.append(chosen)
        return found

    def unjudged(self, clips: Clips, label: str) -> list[str]:
        """In words, how many labelled recordings each fold cannot judge, since none is packed."""
        labelled, packed = label_of(clips, label) != "", clips.column("shard") != ""
        of, notes = recordings(clips), []
        whole = Clips.of([*clips], root=clips.root)  # those in quarantine, too
        for fold in folds(whole, self.by):
            wanted, there = (set(of[fold.test & mask]) for mask in (labelled, labelled & packed))
            if lost := wanted - there:
                notes.append(
                    f"{fold.name}: {len(lost)} of {len(wanted)} recordings to judge are not "
                    "packed, and not judged."
                )
        return notes

    def _choosing(self, fold: Fold, groups: Array) -> Fold:
        val = fold.val if self.choose == "val" else np.zeros(len(groups), bool)
        if self.choose == "held-out":
            there = sorted(set(groups[fold.train]))
            dealt = np.random.default_rng(self.seed).permutation(len(there))
            number = max(1, round(self.held_out * len(there)))
            val = fold.train & np.isin(groups, [there[place] for place in dealt[:number]])
        elif self.choose == "val" and not val.any():
            raise UsageError(f"{fold.name}: no labelled clip is val, to choose the best epoch by")
        train = fold.train & ~val
        if not train.any() or not fold.test.any():
            raise UsageError(f"{fold.name}: nothing labelled and packed to learn from, or to judge")
        return Fold(fold.name, train, fold.test, val)


def transfer(
    out: Path,
    pack: Path,
    recipe: RecipeFunction,
    arguments: Mapping[str, Any],
    *,
    name: str = "",
    initial: Path | None = None,
    dealing: Dealing = Dealing(),
    workers: int = 2,
    cache: bool = True,
) -> list[Table]:
    """Train, embed and judge a classifier on every fold; each only if it is not done already.

    Args:
        out: folder of the table transfer.{md,csv,html}, and in it one of the row with its runs.
        pack: folder of the packed clips.
        recipe: of a classifier, such as `methods.classify.classify_small`.
        arguments: its keywords.
        name: of the row; if none is given, it says how the row is trained.
        initial: weights to begin with; None begins from scratch, or with the published weights
            that the arguments name.
        dealing: of the clips.
        workers: processes that decode ahead.
        cache: keep decoded clips in PACK/cache.

    Returns:
        The table of all rows in `out`, and if there are several, that of their differences.

    Raises:
        UsageError: the folder's rows are of other clips, or dealt otherwise; or as `train`,
            `Dealing.folds` and `recognition`.
    """
    given = defaults(recipe) | dict(arguments)
    begun = initial is not None or bool(given.get("video"))
    name = name or _name(begun, bool(given["frozen"]))
    if name == "chance" or not any(letter.isalnum() for letter in name):
        raise UsageError(f"{name!r} cannot be the name of a row; letters and digits can")
    clips = Pack.open(pack).clips
    dealt = dealing.folds(clips, given["label"])
    about = _about(clips, dealt, dealing, given)
    rows = _rows(out, about)
    _check_folders(name, [*rows], [fold.name for fold in dealt])
    kept = _cache(pack, clips, dealt) if cache else None
    reached, notes = [], dealing.unjudged(clips, given["label"])
    for fold in dealt:
        run = out / _folder(name) / _folder(fold.name)
        _train(recipe, arguments, clips, pack, fold, run, initial, workers, kept)
        judged = clips.where(fold.test)
        features = embed(
            run, judged, run / "features.parquet", media=Pack(judged, pack), workers=workers
        )
        found = recognition(
            {"": features}, judged, label=given["label"], split=None, average=given["average"],
            resamples=RESAMPLES,
        )  # fmt: skip
        result = {row.name: {m: x.value for m, x in row.measures.items()} for row in found.rows}
        reached.append({"recognition": result.pop("")} | result)
        notes += [f"{name}, {fold.name}{note}" for note in found.notes]
    said = {"row": name, "about": about, "folds": [x.name for x in dealt], "reached": reached}
    said["notes"] = notes
    with replacing(out / _folder(name) / "row.json") as partial:
        partial.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return _tables(out, {**rows, name: reached}, given, dealing, dealt)


def reached_by(out: Path, name: str) -> list[Result]:
    """What a row of a folder of `transfer` reached in each fold: `recognition`, and `guessing`."""
    path = out / _folder(name) / "row.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["reached"])


def _cache(pack: Path, clips: Clips, dealt: Sequence[Fold]) -> Cache:
    """One cache for all folds: what one learns from, the next does not decode again."""
    learned = np.logical_or.reduce([fold.train | fold.val for fold in dealt])
    return Cache(pack / "cache", clips.where(learned))


def _train(
    recipe: RecipeFunction,
    arguments: Mapping[str, Any],
    clips: Clips,
    pack: Path,
    fold: Fold,
    run: Path,
    initial: Path | None,
    workers: int,
    cache: Cache | None,
) -> None:
    learned = clips.where(fold.train)
    validation = None
    if fold.val.any():
        held = clips.where(fold.val)
        validation = Validation(held, Pack(held, pack))
    try:
        train(
            recipe,
            arguments,
            learned,
            run,
            media=Pack(learned, pack),
            initial=initial,
            validation=validation,
            workers=workers,
            cache=cache,
        )
    except UsageError as error:
        raise UsageError(f"{fold.name}: {error}") from error


def _name(begun: bool, frozen: bool) -> str:
    if frozen:
        return "fc only" if begun else "fc only of random towers"
    return "fine-tuned" if begun else "scratch"


def _folder(name: str) -> str:
    kept = "".join(c if c.isalnum() or c in ".=" else " " for c in name.lower())
    return "-".join(kept.split())


def _about(clips: Clips, dealt: Sequence[Fold], dealing: Dealing, given: Mapping[str, Any]) -> str:
    """Hash of what rows must have in common to stand in one table."""
    hash = hashlib.sha256(clips.packed_digest().encode())
    hash.update(repr((dealing.choose, given["label"], given["average"])).encode())
    hash.update(repr(label_of(clips, given["label"]).tolist()).encode())
    for fold in dealt:
        hash.update(repr((fold.name, *(mask.tobytes() for mask in _masks(fold)))).encode())
    return hash.hexdigest()


def _masks(fold: Fold) -> tuple[Array, Array, Array]:
    return fold.train, fold.val, fold.test


def _check_folders(name: str, rows: Sequence[str], dealt: Sequence[str]) -> None:
    """Refuse rows and folds whose names differ in marks or capitals alone."""
    names = [other for other in rows if other != name]
    for mine, others in ((name, names), *((fold, [*dealt[:n]]) for n, fold in enumerate(dealt))):
        for other in others:
            if _folder(mine) == _folder(other):
                raise UsageError(f"{mine!r} and {other!r} would share a folder: rename one")


def _notes(out: Path) -> list[str]:
    """What is to be known of the rows of a folder, such as recordings that were left out."""
    files = sorted(out.glob("*/row.json"), key=lambda path: path.stat().st_mtime_ns)
    notes = [n for path in files for n in json.loads(path.read_text(encoding="utf-8"))["notes"]]
    return list(dict.fromkeys(notes))


def _rows(out: Path, about: str) -> dict[str, list[Result]]:
    """What the rows of a folder reached, by their names in the order they were made."""
    files = sorted(out.glob("*/row.json"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    if other := [row["row"] for row in found if row["about"] != about]:
        raise UsageError(
            f"{out}: its row {other[0]!r} is of other clips, or of clips dealt or averaged "
            "otherwise; rows of a table are alike in that: give another folder"
        )
    return {row["row"]: row["reached"] for row in found}


def _tables(
    out: Path,
    results: Mapping[str, list[Result]],
    given: Mapping[str, Any],
    dealing: Dealing,
    dealt: Sequence[Fold],
) -> list[Table]:
    epoch = {
        "last": "the last epoch",
        "val": "the best epoch by the clips that are val",
        "held-out": f"the best epoch by {dealing.held_out:.0%} held out of the training part",
    }[dealing.choose]
    first = next(iter(results.values()))
    shown = {"chance": [{"recognition": one["guessing"]} for one in first], **results}
    about = (
        f"{given['label']}, in percent: mean ± deviation over {len(dealt)} "
        f"({', '.join(fold.name for fold in dealt)}); {epoch}; {given['average']} of a "
        "recording's clips averaged."
    )
    about = " ".join([about, *_notes(out)])
    tables = [table("Transfer", about, shown, COLUMNS)]
    names = list(results)
    if len(names) > 1:
        pairs = [(later, names[0]) for later in names[1:]]
        said = "Mean over folds, and of every fold."
        tables.append(differences("Differences", said, results, pairs, COLUMNS))
    write(out, "transfer", "# Transfer", tables, shown)
    return tables

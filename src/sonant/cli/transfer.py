"""`sonant transfer`: pretrained towers fine-tuned and judged, fold by fold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from sonant.cli.arguments import Command, Out, PackFolder, console
from sonant.cli.train import of_recipe


def transfers() -> dict[str, Command]:
    """A command for each recipe of a classifier."""
    from sonant.methods.classify import CLASSIFIERS

    added = {
        "pack": (PackFolder, inspect.Parameter.empty),
        "out": (Out, inspect.Parameter.empty),
        "name": (str, ""),
        "folds": (tuple[str, ...], ("split",)),
        "initial": (Path | None, None),
        "choose": (Literal["last", "val", "held-out"], "last"),
        "held_out": (float, 0.1),
        "apart": (str, "recording"),
        "workers": (int, 2),
        "cache": (bool, True),
    }
    return {
        name: of_recipe(recipe, transfer, added, ARGUMENTS) for name, recipe in CLASSIFIERS.items()
    }


def transfer(
    recipe: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    pack: Path,
    out: Path,
    name: str,
    folds: tuple[str, ...],
    initial: Path | None,
    choose: Literal["last", "val", "held-out"],
    held_out: float,
    apart: str,
    workers: int,
    cache: bool,
) -> None:
    """Train, embed and judge a recipe on every fold, and show the table of all rows."""
    from sonant.bench.transfer import Dealing
    from sonant.bench.transfer import transfer as transfer_row

    tables = transfer_row(
        out,
        pack,
        recipe,
        arguments,
        name=name,
        initial=initial,
        dealing=Dealing(folds, choose, held_out, apart, arguments["seed"]),
        workers=workers,
        cache=cache,
    )
    for table in tables:
        console.print(table.shown())
    console.print(f"all of it in {out}")


ARGUMENTS = """
    pack: folder of the pack.
    out: folder of the table and of the runs; what is done there is not done again, and a row of
        another name is added.
    name: of the row; if not given, it says how the row is trained.
    folds: columns that deal the clips: with values train and test, as split, or with a value a
        fold, each of which is judged in turn.
    initial: begin with the towers of these weights; without, from scratch, or with the published
        weights that `--video` names.
    choose: the epoch that is judged: the last, or the best by the clips that are val, or by clips
        held out of the training part.
    held_out: share of the training part's recordings that are held out.
    apart: the label whose values are not torn apart by that.
    workers: processes that decode ahead.
    cache: keep decoded clips in PACK/cache, about 200 kB each for small towers."""

"""`sonant train`: a command for each recipe, made from its signature."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from sonant.cli.arguments import Command, Out, PackFolder, RunFolder, console, split_of


def trainings() -> dict[str, Command]:
    """A command for each recipe, and one that does a run again."""
    from sonant.train import RECIPES

    return {name: _training(recipe) for name, recipe in RECIPES.items()} | {"again": train_again}


def train_again(
    run: RunFolder,
    pack: PackFolder,
    out: Out,
    *,
    split: str = "train",
    validation: str | None = None,
    initial: Path | None = None,
    workers: int = 2,
    cache: bool = True,
) -> None:
    """Do a recorded run again: its recipe with its arguments, on the clips of a pack.

    Args:
        run: folder of the run to do again.
        pack: folder of the pack to train on.
        out: folder of the new run.
        split: the clips to train on; "all" for all of them.
        validation: the split that chose the run's best epoch, if one did.
        initial: the weights that the run began with, if it did.
        workers: processes that decode ahead.
        cache: keep decoded clips in PACK/cache, about 200 kB each for small towers.
    """
    from sonant.checkpoint import (
        check_same_data,
        check_same_files,
        check_same_start,
        check_same_validation,
        recorded,
    )
    from sonant.media.pack import Pack

    recipe, arguments = recorded(run)
    good = Pack.open(pack).clips.where(packed=True, quarantined=False)
    check_same_data(run, good.where(split=split_of(pack, split)))
    check_same_files(run)
    check_same_validation(run, None if validation is None else good.where(split=validation))
    check_same_start(run, initial)
    train(
        recipe,
        arguments,
        pack,
        out,
        split=split,
        validation=validation,
        initial=initial,
        like=run,
        workers=workers,
        cache=cache,
    )


def train(
    recipe: Callable[..., Any],
    arguments: Mapping[str, Any],
    pack: Path,
    run: Path,
    *,
    split: str,
    workers: int,
    cache: bool,
    validation: str | None = None,
    initial: Path | None = None,
    like: Path | None = None,
) -> None:
    """Train a recipe on the good clips of one split of a pack, or of all."""
    from sonant.files import again, stamp
    from sonant.media.pack import Pack
    from sonant.train import train as train_run
    from sonant.validation import Validation

    there = Pack.open(pack).clips
    clips = there.where(split=split_of(pack, split), packed=True, quarantined=False)
    media = Pack(clips, pack)
    chosen_by = None
    if validation is not None:
        held = there.where(split=validation, packed=True, quarantined=False)
        chosen_by = Validation(held, Pack(held, pack))
    kept = pack / "cache" if cache else None
    before = stamp(run / "last.pt")
    train_run(
        recipe,
        arguments,
        clips,
        run,
        media=media,
        initial=initial,
        like=like,
        validation=chosen_by,
        workers=workers,
        cache=kept,
    )
    console.print(f"trained in {run}{again(run / 'last.pt', before)}")


def _training(recipe: Callable[..., Any]) -> Command:
    """The command of a recipe: the pack, the run, and the recipe's own keyword arguments."""
    added = {
        "pack": (PackFolder, inspect.Parameter.empty),
        "run": (RunFolder, inspect.Parameter.empty),
        "split": (str, "train"),
        "validation": (str | None, None),
        "initial": (Path | None, None),
        "workers": (int, 2),
        "cache": (bool, True),
    }
    return of_recipe(recipe, train, added, TRAIN_ARGUMENTS)


def of_recipe(
    recipe: Callable[..., Any],
    work: Callable[..., None],
    added: Mapping[str, tuple[Any, Any]],
    said: str,
) -> Command:
    """A command that takes a recipe's own keyword arguments and others.

    Args:
        recipe: the function.
        work: called with the recipe, its arguments by name, and what was added by keyword.
        added: name to type and default of what does not belong to the recipe.
        said: the help of these, as lines of a docstring.
    """

    def command(**given: Any) -> None:
        flat: dict[str, Any] = {}
        for name in (name for name in given if name not in added):
            value = given[name]
            group = is_dataclass(value) and not isinstance(value, type)
            flat |= asdict(value) if group else {name: value}
        work(recipe, flat, **{name: given[name] for name in added})

    hints = get_type_hints(recipe)
    own = list(inspect.signature(recipe).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, annotation=kind, default=default)
        for name, (kind, default) in added.items()
    ] + [
        p.replace(annotation=type(p.default) if is_dataclass(p.default) else hints[p.name])
        for p in own
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = re.sub(r"\n +tokenizer: .*", said, inspect.getdoc(recipe) or "")
    return command


TRAIN_ARGUMENTS = """
    pack: folder of the pack to train on.
    run: folder of the run; one that was interrupted goes on, a finished one is left alone.
    split: the clips to train on; "all" for all of them.
    validation: the split whose clips choose the best epoch, for recipes that classify; none: the
        last epoch.
    initial: begin with the towers of these weights, such as those of another run's first stage.
    workers: processes that decode ahead.
    cache: keep decoded clips in PACK/cache, about 200 kB each for small towers."""

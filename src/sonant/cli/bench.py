"""`sonant bench`: a paper's tables by one command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from sonant.cli.arguments import Command, console
from sonant.errors import UsageError, at_least

if TYPE_CHECKING:
    from sonant.bench.runs import Draw, FormOf
    from sonant.bench.tables import Table

WIDEST = 9
"""Columns of a table that a terminal has room for; all are in the files."""


def bench_mc3(
    *,
    world: Literal["world-1"] = "world-1",
    clips: Path | None = None,
    out: Path = Path("bench/mc3"),
    runs: int = 3,
    ablation_runs: int = 1,
    videos: int = 460,
    seed: int = 100,
    split: str = "test",
    towers: Literal["small", "paper"] = "small",
    parts: tuple[str, ...] = (),
    cache: bool = True,
    workers: int = 2,
) -> None:
    """Train every row of MC3's Table 2 on equal steps, and write Tables 2 and 3 with ablations.

    What is there already is not done again: the same command goes on where it was stopped, and a
    larger one adds to a smaller one.

    Args:
        world: the narrated world; each run has a draw of its own.
        clips: a clip table instead, such as one of Ego4D, whose runs differ in their seed alone.
            Clips of 1.5 s are taken to begin 0.5 s before their narration, and are cut anew for the
            ablation of their duration.
        out: folder for the draws, the rows and the tables mc3.md, mc3.html and mc3.csv.
        runs: paired runs of every row of the tables.
        ablation_runs: of these, those that the ablations get, too.
        videos: of a draw of the world; 460 give about 12,000 training clips.
        seed: of the first run; each other run's is one more.
        split: the clips to judge; choose on val, and look at test once.
        towers: small ones, or those of the paper's size with its epochs, for a GPU.
        parts: NAME=VALUE of the paper's towers, as `sonant train mc3` has them, such as
            video=egovlp.pth text=egovlp.pth vocabulary=distilbert-base-uncased batch=128.
        cache: keep decoded clips beside the pack, about 200 kB each for small towers, 800 kB for
            the paper's.
        workers: processes that decode.
    """
    from sonant.bench.mc3 import bench, packed_for
    from sonant.methods.parts import Paper

    paper = _parts(parts) if towers == "paper" else None
    if parts and paper is None:
        raise UsageError(f"--parts {parts[0]} is of the paper's towers: give --towers paper, too")
    form = None if paper is None else partial(packed_for, Paper(**paper))
    drawn = _draws(world, clips, out, runs, videos, seed, workers, form=form)
    if clips is not None:
        _tell_unlabelled(clips, split)
    durations = clips is None or _one_length(clips)
    draws = [replace(draw, cache=cache) for draw in drawn]
    tables = bench(
        out,
        draws,
        ablation_draws=_first(draws, ablation_runs),
        durations=durations,
        split=split,
        paper=paper,
    )
    _show(tables, out)


def bench_avcl(
    *,
    world: Literal["world-1"] = "world-1",
    clips: Path | None = None,
    out: Path = Path("bench/avcl"),
    label: str = "verb",
    runs: int = 3,
    ablation_runs: int = 1,
    videos: int = 100,
    seed: int = 300,
    split: str = "test",
    workers: int = 2,
) -> None:
    """Pretrain and fine-tune every row of AVCL's Tables I to IV, and write them.

    What is there already is not done again: the same command goes on where it was stopped, and a
    larger one adds to a smaller one.

    Args:
        world: the narrated world; each run has a draw of its own.
        clips: a clip table instead, such as one of Kinetics-Sounds, with clips of 1.5 s.
        out: folder for the draws, the rows and the tables avcl.md, avcl.html and avcl.csv.
        label: the classes to recognise.
        runs: paired runs of the rows with small towers.
        ablation_runs: of these, those that AVCL's own networks get, too.
        videos: of a draw of the world; 100 give about 1,700 training clips, and as many to test.
        seed: of the first run; each other run's is one more.
        split: the clips to judge; choose on val, and look at test once.
        workers: processes that decode.
    """
    from sonant.bench.avcl import bench
    from sonant.bench.runs import EVEN

    draws = _draws(world, clips, out, runs, videos, seed, workers, EVEN)
    tables = bench(
        out, draws, ablation_draws=_first(draws, ablation_runs), label=label, split=split
    )
    _show(tables, out)


def bench_xdc(
    *,
    world: Literal["world-1"] = "world-1",
    out: Path = Path("bench/xdc"),
    runs: int = 3,
    ablation_runs: int = 1,
    videos: int = 100,
    seed: int = 200,
    split: str = "test",
    workers: int = 2,
) -> None:
    """Pretrain and transfer every row of XDC's Tables 1 to 6 on the world, and write them.

    What is there already is not done again: the same command goes on where it was stopped, and a
    larger one adds to a smaller one.

    Args:
        world: the narrated world, of which pretraining sees whole videos without narrations.
        out: folder for the draws, the rows and the tables xdc.md, xdc.html and xdc.csv.
        runs: paired runs of the methods.
        ablation_runs: of these, those that get other numbers of clusters and other data, too.
        videos: of a draw; 100 give about 1,700 clips of actions to learn from, and as many to test.
        seed: of the first run; each other run's is one more.
        split: the clips to judge; choose on val, and look at test once.
        workers: processes that decode.
    """
    from sonant.bench.runs import EVEN
    from sonant.bench.xdc import bench

    draws = _draws(world, None, out, runs, videos, seed, workers, EVEN)
    _show(bench(out, draws, ablation_draws=_first(draws, ablation_runs), split=split), out)


def bench_sounds(
    *,
    esc10: Path,
    kitchen20: Path,
    world: Literal["world-1"] = "world-1",
    out: Path = Path("bench/xdc"),
    runs: int = 3,
    videos: int = 100,
    seed: int = 200,
    workers: int = 2,
) -> None:
    """Transfer XDC's audio encoders to the recorded sounds of ESC-10 and Kitchen20.

    They are pretrained on the world, as by bench xdc, or on the sounds without their labels. What
    is there already is not done again: with the folder of bench xdc its encoders are taken.

    Args:
        esc10: folder of ESC-10, or of ESC-50, which holds it.
        kitchen20: folder of Kitchen20.
        world: the narrated world, of which pretraining sees whole videos without narrations.
        out: folder for the draws, the rows and the tables sounds.md, sounds.html and sounds.csv.
        runs: paired runs of every row.
        videos: of a draw.
        seed: of the first run; each other run's is one more.
        workers: processes that decode.
    """
    from sonant.bench.runs import EVEN
    from sonant.bench.sounds import bench, recorded

    draws = _draws(world, None, out, runs, videos, seed, workers, EVEN)
    _show(bench(out, draws, recorded(esc10, kitchen20, workers=workers)), out)


BENCH: Mapping[str, Command] = {
    "mc3": bench_mc3,
    "xdc": bench_xdc,
    "sounds": bench_sounds,
    "avcl": bench_avcl,
}


def _draws(
    world: str,
    clips: Path | None,
    out: Path,
    runs: int,
    videos: int,
    seed: int,
    workers: int,
    fractions: Mapping[str, float] | None = None,
    form: FormOf | None = None,
) -> list[Draw]:
    from sonant.bench.runs import table_draws, world_draws
    from sonant.sources.folder import FRACTIONS
    from sonant.sources.world import laws

    assert world == laws.NAME
    at_least(1, runs=runs)
    if clips is not None:
        return table_draws(out, clips, runs=runs, seed=seed, workers=workers, form=form)
    return world_draws(
        out,
        runs=runs,
        videos=videos,
        seed=seed,
        workers=workers,
        fractions=fractions or FRACTIONS,
        form=form,
    )


def _parts(given: Sequence[str]) -> dict[str, Any]:
    """Arguments of the paper's towers, of the types that they have there.

    Raises:
        UsageError: one is not NAME=VALUE, or there is none of that name or with such a value.
    """
    from sonant.methods.parts import Paper

    known, hints, found = asdict(Paper()), get_type_hints(Paper), dict[str, Any]()
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or name not in known or name == "seed":
            there = ", ".join(name for name in known if name != "seed")
            raise UsageError(f"--parts {one}: wanted is NAME=VALUE, and names are {there}")
        choices = {"true": True, "false": False} if hints[name] is bool else None
        if get_origin(hints[name]) is Literal:
            choices = {choice: choice for choice in get_args(hints[name])}
        try:
            found[name] = choices[value] if choices else hints[name](value)
        except (ValueError, KeyError) as error:
            number = "a whole number" if hints[name] is int else "a number"
            wanted = " or ".join(choices) if choices else number
            raise UsageError(f"--parts {one}: {name} is {wanted}") from error
    return found


def _tell_unlabelled(table: Path, split: str) -> None:
    """Say so where nothing can be judged by truth."""
    from sonant.clips import Clips

    clips = Clips.read(table).where(split=split)
    if "sounding" not in clips.labels or all(x is None for x in clips.column("sounding")):
        console.print(f"{table}: no {split} clip has the label sounding: Table 2 stays empty")


def _one_length(table: Path) -> bool:
    """Whether clips can be cut to other lengths; says so where they cannot."""
    from sonant.clips import Clips
    from sonant.sources.recut import uneven

    if why := uneven(Clips.read(table)):
        console.print(f"{table}: {why}: there is no ablation of their duration")
    return not why


def _first(draws: list[Draw], runs: int) -> list[Draw]:
    if not 0 <= runs <= len(draws):
        raise UsageError(f"of {len(draws)} runs, {runs} cannot get the ablations")
    return draws[:runs]


def _show(tables: Sequence[Table], out: Path) -> None:
    for table in (table for table in tables if len(table.heads) <= WIDEST):
        console.print(table.shown())
    console.print(f"all of them: {out}")

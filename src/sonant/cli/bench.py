"""`sonant bench`: a paper's tables by one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sonant.cli.arguments import Command, console
from sonant.errors import UsageError, at_least

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
    workers: int = 2,
) -> None:
    """Train every row of MC3's Table 2 on equal steps, and write Tables 2 and 3 with ablations.

    What is there already is not done again: the same command goes on where it was stopped, and a
    larger one adds to a smaller one.

    Args:
        world: the narrated world; each run has a draw of its own.
        clips: a clip table instead, such as one of Ego4D, whose runs differ in their seed alone.
        out: folder for the draws, the rows and the tables mc3.md, mc3.html and mc3.csv.
        runs: paired runs of every row of the tables.
        ablation_runs: of these, those that the ablations get, too.
        videos: of a draw of the world; 460 give about 12,000 training clips.
        seed: of the first run; each other run's is one more.
        split: the clips to judge; choose on val, and look at test once.
        workers: processes that decode.
    """
    from sonant.bench.mc3 import bench
    from sonant.bench.runs import table_draws, world_draws
    from sonant.sources.world import laws

    assert world == laws.NAME
    at_least(1, runs=runs)
    if not 0 <= ablation_runs <= runs:
        raise UsageError(f"of {runs} runs, {ablation_runs} cannot get the ablations")
    draws = (
        world_draws(out, runs=runs, videos=videos, seed=seed, workers=workers)
        if clips is None
        else table_draws(out, clips, runs=runs, seed=seed, workers=workers)
    )
    tables = bench(
        out,
        draws,
        ablation_draws=draws[:ablation_runs],
        durations=clips is None,
        split=split,
    )
    for table in (table for table in tables if len(table.heads) <= WIDEST):
        console.print(table.shown())
    console.print(f"all of them: {out}")


BENCH: Mapping[str, Command] = {"mc3": bench_mc3}

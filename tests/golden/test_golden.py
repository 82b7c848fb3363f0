"""The whole way on a small world, against recorded figures; REGOLD=1 records them anew."""

import json
import os
from pathlib import Path

import pytest
import torch

from sonant.clips import Clips
from sonant.embed import embed
from sonant.media.pack import Pack, pack
from sonant.methods.mc3 import mc3_small
from sonant.sources.folder import folder
from sonant.sources.world import world
from sonant.tasks.discovery import discovery
from sonant.tasks.retrieval import retrieval
from sonant.train import train

FIGURES = Path(__file__).with_name("mc3_small.txt")
RATES = {"align_rate": 2e-4, "refine_rate": 3e-5}
"""At the recipe's own, batches as small as these fall back to chance within three steps."""
TOLERANCE = 2e-3
"""Relative; processors differ in the last bits, and some thirty steps make more of that."""
GRADIENT = 2e-2
"""Of gradients, which are small next to what they are the difference of."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clips, Path]:
    root = tmp_path_factory.mktemp("golden")
    world(root / "world", videos=10, seed=0)
    files = {name: root / "world" / f"{name}.csv" for name in ("narrations", "truth")}
    clips = folder(root / "world", narrations=files["narrations"], labels=files["truth"])
    return pack(clips, root / "pack"), root


def run(packed: Clips, root: Path) -> dict[str, float]:
    clips = packed.where(split="train", quarantined=False)
    arguments = {"batch": 24, "align_epochs": 2, "refine_epochs": 1} | RATES
    media = Pack(clips, root / "pack")
    train(mc3_small, arguments, clips, root / "run", media=media, workers=0)
    lines = [json.loads(line) for line in (root / "run" / "log.jsonl").read_text().splitlines()]
    figures = {}
    for line in lines:
        for name, value in {**line["terms"], "gradient": line["gradient"]}.items():
            figures[f"{line['stage']} {line['step']:02d} {name}"] = value
    media = Pack(packed, root / "pack")
    features = embed(root / "run", packed, root / "features.parquet", media=media, workers=0)
    for row in discovery({"mc3": features}, packed, split=None, resamples=2).rows:
        for name in ("roc_auc", "average_precision") if row.kind == "model" else ():
            figures[f"{row.pair} {row.score} {name}"] = row.areas[name].value
    for found in retrieval({"mc3": features}, packed, split=None, resamples=2).rows:
        figures[f"{found.name} {found.direction} map"] = found.values["map"].value
    return figures


@pytest.mark.golden
def test_small_recipe_gives_the_recorded_figures(packed: tuple[Clips, Path]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = run(*packed)
    finally:
        torch.set_num_threads(threads)
    if os.environ.get("REGOLD"):
        text = "".join(f"{name}: {value:.6f}\n" for name, value in figures.items())
        FIGURES.write_text(text)
    lines = (line.rpartition(": ") for line in FIGURES.read_text().splitlines())
    recorded = {name: float(value) for name, _, value in lines}
    steps = {name: value for name, value in figures.items() if name.endswith("gradient")}
    assert {*figures} == {*recorded}
    assert steps == pytest.approx({name: recorded[name] for name in steps}, rel=GRADIENT)
    for name in steps:
        del figures[name], recorded[name]
    assert figures == pytest.approx(recorded, rel=TOLERANCE)

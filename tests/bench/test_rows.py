"""The rows of the benches of AVCL and XDC: what their recipes take, and the papers' names."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from sonant.bench import avcl, xdc
from sonant.bench.runs import Row
from sonant.checkpoint import defaults, make
from sonant.clips import Clips
from sonant.errors import TableError
from sonant.features import Features
from sonant.media.text import train_tokenizer
from sonant.sources.world.laws import THINGS
from sonant.sources.world.story import story
from sonant.sources.world.surroundings import surroundings
from sonant.sources.world.writer import video_name
from sonant.types import Clip

AVCL = [*avcl.rivals("verb"), *avcl.weights("verb")]
AVCL += [row for rows in avcl.ABLATIONS.values() for row in rows("verb")]
XDC = [row for rows in (xdc.METHODS, xdc.NUMBERS, xdc.DATA) for row in rows.values() if row]


def chain(row: Row) -> Iterator[Row]:
    """A row and all that it begins with."""
    yield row
    if row.after is not None:
        yield from chain(row.after)


@pytest.mark.parametrize("rows", [AVCL, [*XDC, xdc.UNTRAINED], [*xdc.TUNINGS.values()]])
def test_rows_are_what_their_recipes_take_and_have_folders_of_their_own(rows: list[Row]) -> None:
    there = {row.name: row for first in rows for row in chain(first)}
    assert len({row.folder for row in there.values()}) == len(there)
    for row in there.values():
        assert row.folder.isascii()
        assert not row.folder.startswith(".")
        assert row.arguments.keys() <= defaults(row.recipe).keys()
        json.dumps(dict(row.arguments))


@pytest.mark.parametrize("row", [AVCL[3], AVCL[-1], XDC[1], xdc.NARRATED], ids=lambda row: row.name)
def test_what_a_row_begins_with_has_its_towers(row: Row) -> None:
    tokenizer, arguments = train_tokenizer(["cut"]), {"classes": ["cut", "pour"]}
    for later in chain(row):
        if later.after is not None:
            known = arguments if "classes" in defaults(later.recipe) else {}
            after = make(later.recipe, tokenizer, dict(later.arguments) | known).method
            before = make(later.after.recipe, tokenizer, later.after.arguments).method
            assert set(after.towers) <= set(before.towers)
            for modality, tower in after.towers.items():
                mine, theirs = tower.state_dict(), before.towers[modality].state_dict()
                assert {n: x.shape for n, x in mine.items()} == {
                    n: x.shape for n, x in theirs.items()
                }


def test_the_papers_figures_are_of_rows_that_are_there() -> None:
    assert avcl.PUBLISHED.keys() <= {row.name for row in AVCL}
    assert xdc.PUBLISHED.keys() == xdc.METHODS.keys()
    told = avcl.DIFFERENCES + avcl.NARROW_DIFFERENCES
    assert {name for pair in told for name in pair} <= {row.name for row in AVCL}
    assert {name for pair in xdc.DIFFERENCES for name in pair} <= xdc.METHODS.keys()


PAPERS: dict[str, tuple[str, dict[str, object]]] = {
    "Baseline-R": ("60.4", {"modalities": ("video",)}),
    "Baseline-A": ("52.9", {"modalities": ("audio",)}),
    "Baseline-R+A": ("73.9", {"modalities": ("audio", "video")}),
    "IIC": ("60.5", {}),
    "SimCLR": ("69.7", {}),
    "MoCo": ("68.2", {}),
    "BYOL": ("73.3", {}),
    "SimSiam": ("72.9", {}),
    "Barlow Twins": ("69.6", {}),
    "AVCL": ("75.6", {"fusion": True}),
    "raw audio": ("50.2", {"sound": "wave", "frames": 8}),
    "1 frame, middle 1.2 s": ("67.9", {"sound": "middle", "frames": 1}),
    "one model": ("60.5", {"models": 1}),
    "no CGRA": ("72.5", {"layers": ()}),
    "CGRA at conv3": ("68.5", {"layers": ("conv3",)}),
    "CGRA at conv4": ("69.3", {"layers": ("conv4",)}),
    "CGRA at conv5 and pool": ("70.4", {"layers": ("conv5", "pool")}),
    "without SelfCL": ("73.5", {"correlation_weight": 1.0, "contrast_weight": 0.0}),
    "cor .1, self .9": ("72.0", {"correlation_weight": 0.1, "contrast_weight": 0.45}),
    "cor .3, self .7": ("72.2", {"correlation_weight": 0.3, "contrast_weight": 0.35}),
    "cor .5, self .5": ("74.1", {"correlation_weight": 0.5, "contrast_weight": 0.25}),
    "cor .7, self .3": ("73.7", {"correlation_weight": 0.7, "contrast_weight": 0.15}),
    "without AMFM": ("73.5", {"fusion": False, "contrast_weight": 0.05}),
    "Baseline-R+A, one network": ("73.9", {"models": 1}),
    "AVCL, C3D": ("74.0", {"backbone": "c3d"}),
    "AVCL, R(2+1)D": ("77.2", {"backbone": "r2plus1d"}),
    "AVCL, R3D": ("75.6", {"backbone": "r3d", "models": 2, "layers": ("pool",), "sound": "whole"}),
    "AVCL, R3D, gated": ("75.6", {"backbone": "r3d", "fusion": True}),
}
"""AVCL's Tables I to IV: top-1 of a row, and what makes it that row. Weights of the contrast are of
batches of 32, half of the paper's at 16."""


def test_rows_are_those_of_the_papers_tables() -> None:
    there = {row.name: row for row in AVCL}
    assert there.keys() == PAPERS.keys() | {"Baseline-R+A, two networks"}
    for name, (published, wanted) in PAPERS.items():
        row = there[name]
        first = row.after or row
        assert avcl.PUBLISHED[name] == published
        known = defaults(first.recipe) | dict(first.arguments)
        assert {key: known[key] for key in wanted} == wanted, name
        if "fusion" in wanted:
            assert row.arguments["fusion"] == wanted["fusion"]
        assert row.chosen
        assert row.arguments["label"] == "verb"
        assert not first.chosen or first is row
    methods = {name: row.after.recipe.__name__ for name, row in there.items() if row.after}
    for name in ("SimCLR", "MoCo", "BYOL", "SimSiam", "Barlow Twins", "IIC", "AVCL"):
        assert methods[name] == f"{name.lower().replace(' ', '_')}_small"


def test_all_rivals_are_trained_for_as_long() -> None:
    for row in avcl.rivals("verb") + avcl.weights("verb"):
        epochs = [(defaults(x.recipe) | dict(x.arguments))["epochs"] for x in chain(row)]
        assert epochs in ([12, 13], [12])
    for row in XDC:
        known = defaults(row.recipe) | dict(row.arguments)
        assert known["epochs"] * known.get("rounds", 1) == 12


def test_linear_classifiers_learn_from_the_training_clips_alone() -> None:
    """Features that tell the verb in both splits, and the noun in the training clips only."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(120):
        split, thing = "train" if number < 60 else "test", number // 2 % 2
        labels = {"verb": "cut" if number % 2 else "pour", "noun": "ab"[thing]}
        labels["done_noun"] = ["onion", "bottle"][thing]
        rows.append(Clip(f"c{number}", video_name(number), 0, 1, "", split, labels))
    clips = Clips.of(rows, root=".")
    x = random.normal(0, 0.1, (120, 8)).astype(np.float32)
    x[:, 0] += np.arange(120) % 2
    x[:60, 1] += np.arange(60) // 2 % 2
    features = Features.of([row.id for row in rows], {"video": x})
    found = xdc._linear(features, clips, "test", seed=0)
    assert found.keys() == {"fc video"}
    assert found["fc video"]["verb"] > 0.95
    assert 0.3 < found["fc video"]["noun"] < 0.7
    assert found["fc video"].keys() == {"verb", "noun", "material", "scene"}


def test_a_world_s_clips_have_materials_and_scenes() -> None:
    clips = Clips.of(
        [Clip(f"c{i}", video_name(i), 0, 1, "", labels={"done_noun": "bottle"}) for i in (7, 0)],
        root=".",
    )
    found = surroundings(clips, seed=3)
    assert found.column("scene").tolist() == [story(3, i).scene.name for i in (7, 0)]
    assert found.column("material").tolist() == [THINGS["bottle"].material] * 2
    others = Clips.of([Clip("c", video_name(0), 0, 1, "")], root=".")
    with pytest.raises(TableError, match="done_noun"):
        surroundings(others, seed=3)

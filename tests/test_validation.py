"""The best epoch by validation, and classifiers that are trained by the loop."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sonant.checkpoint import check_same_validation
from sonant.clips import Clips
from sonant.data import Array
from sonant.embed import embed
from sonant.errors import UsageError
from sonant.media.read import Media
from sonant.methods.classify import Classifier, classify, classify_small
from sonant.methods.mc3 import mc3_small
from sonant.methods.method import Recipe
from sonant.train import Stopped, train
from sonant.types import Clip
from sonant.validation import Validation
from test_train import in_another_process
from toy import TINY, Toy, toy_clips

CLIPS, EPOCHS = 18, 4
ARGUMENTS: dict[str, Any] = TINY | {"label": "verb", "epochs": EPOCHS, "modalities": ["audio"]}
VALIDATION = Clips.of(
    [
        Clip(f"held{i}", f"w{i}.mp4", 0.0, 0.3, "", "val", {"verb": ("cut", "wash", "rub")[i % 3]})
        for i in range(5)
    ],
    root=Path(),
)


class Told(Classifier):
    """Whose merits were made up beforehand: one before the first epoch, then one after each."""

    merits = (1.0, 0.25, 0.75, 0.75, 0.5)

    def merit(self, scores: dict[str, Array], clips: Clips) -> float:
        """The next of them; the state that it comes from is part of the weights."""
        assert len(scores["verb=cut"]) == len(clips) == len(VALIDATION)
        assert not self.training
        found = float(self.get_buffer("looks"))
        self.get_buffer("looks").add_(1)
        return self.merits[int(found)]


def told(tokenizer: Any, **arguments: Any) -> Recipe:
    recipe = classify_small(tokenizer, **arguments)
    recipe.method.__class__ = Told
    recipe.method.register_buffer("looks", torch.zeros(()))
    return recipe


told.__signature__ = classify_small.__signature__  # type: ignore[attr-defined]


class Killing(Toy):
    """Sends a signal to this process at a read."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.number = at, number

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        if self.reads == self.at:
            os.kill(os.getpid(), self.number)
        return super().read(row, frames=frames, film=film)


def run(folder: Path, media: Toy | None = None, recipe: Any = classify_small, **more: Any) -> None:
    options: dict[str, Any] = {"validation": Validation(VALIDATION, Toy()), "save_every": 3}
    options |= {name: more.pop(name) for name in list(more) if name in ("validation", "initial")}
    clips = more.pop("clips", toy_clips(CLIPS))
    train(
        recipe,
        ARGUMENTS | more,
        clips,
        folder,
        media=media or Toy(),
        workers=0,
        **options,
    )


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "classify.safetensors")


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_stage_ends_with_the_earlier_of_the_best_epochs(tmp_path: Path) -> None:
    run(tmp_path / "chosen", recipe=told)
    ends = [line for line in log(tmp_path / "chosen") if "validation" in line]
    assert [line["step"] for line in ends] == [1, 3, 5, 7]
    assert [line["validation"] for line in ends] == list(Told.merits[1:])
    assert [line["best"] for line in ends] == [True, True, False, False]
    assert float(weights(tmp_path / "chosen")["looks"]) == 3, "the one before training too"
    steps: list[dict[str, Tensor]] = []

    class Watched(Told):
        def merit(self, scores: dict[str, Array], clips: Clips) -> float:
            found = super().merit(scores, clips)
            steps.append({name: x.clone() for name, x in self.state_dict().items()})
            return found

    def watched(tokenizer: Any, **arguments: Any) -> Recipe:
        recipe = told(tokenizer, **arguments)
        recipe.method.__class__ = Watched
        return recipe

    watched.__signature__ = classify_small.__signature__  # type: ignore[attr-defined]
    run(tmp_path / "watched", recipe=watched)
    there = weights(tmp_path / "chosen")
    assert all(steps[2][name].equal(x) for name, x in there.items())
    assert not all(steps[3][name].equal(x) for name, x in there.items())


@pytest.mark.slow
def test_without_validation_a_stage_ends_with_its_last_epoch(tmp_path: Path) -> None:
    run(tmp_path / "last", validation=None)
    assert "validation" not in log(tmp_path / "last")[-1]
    run(tmp_path / "chosen", recipe=told)
    assert not weights(tmp_path / "last")["head.1.weight"].equal(
        weights(tmp_path / "chosen")["head.1.weight"]
    )


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_ends_with_the_same_best_epoch(tmp_path: Path, number: int) -> None:
    run(tmp_path / "whole", recipe=told)
    media = Killing(5 * 8 + 2, number)
    if number == signal.SIGTERM:
        with pytest.raises(Stopped):
            run(tmp_path / "parts", media, recipe=told)
    else:
        killed = in_another_process(lambda: run(tmp_path / "parts", media, recipe=told))
        assert killed == -signal.SIGKILL
    there = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["best"]
    assert there["epoch"] in (0, 1)
    run(tmp_path / "parts", recipe=told)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(parts[name].equal(x) for name, x in whole.items())
    ends = [
        [line.get("validation") for line in log(tmp_path / name)] for name in ("whole", "parts")
    ]
    assert ends[0] == ends[1]


def test_validation_that_cannot_choose_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"18 of the clips .* are learned from, the first is 'c0'"):
        run(tmp_path, validation=Validation(toy_clips(CLIPS), Toy()))
    with pytest.raises(UsageError, match="MC3 has no measure of its own"):
        train(
            mc3_small,
            TINY,
            toy_clips(CLIPS),
            tmp_path,
            media=Toy(),
            workers=0,
            validation=Validation(VALIDATION, Toy()),
        )
    run(tmp_path)
    with pytest.raises(UsageError, match="validation: other clips, or none, to choose"):
        run(tmp_path, validation=None)
    check_same_validation(tmp_path, VALIDATION)
    with pytest.raises(UsageError, match="its epoch was chosen by other clips"):
        check_same_validation(tmp_path, None)


def test_merit_is_the_share_of_recordings_that_are_right() -> None:
    clips = toy_clips(4).join(
        toy_clips(4).table.select(["id"]).append_column("recording", [["r", "r", "q", "q"]])
    )
    clips = clips.join(clips.table.select(["id"]).append_column("verb", [["a", "a", "b", "b"]]))
    tower = {"audio": torch.nn.Linear(1, 1)}
    made = Classifier(tower, (), width=1, label="verb", classes=("a", "b"))  # type: ignore[arg-type]
    scores = {"verb=a": np.array([0.0, 3.0, 2.0, 0.0]), "verb=b": np.array([1.0, 0.0, 0.0, 1.0])}
    assert made.merit(scores, clips) == 0.5, "means: r 1.5 and 0.5, q 1 and 0.5"


def test_fc_only_leaves_towers_and_their_batch_norms_as_they_were(tmp_path: Path) -> None:
    small = {
        "frames": 1,
        "size": 16,
        "jitter": 0,
        "mel": 16,
        "mel_crop": 16,
        "planes": 2,
        "seconds": 0.3,
    }
    small |= {"batch": 9, "label": "verb", "modalities": ["audio"], "hidden": []}
    for name, more in (
        ("first", {"epochs": 0}),
        ("frozen", {"epochs": 1, "frozen": True}),
        ("tuned", {"epochs": 1}),
    ):
        train(classify, small | more, toy_clips(CLIPS), tmp_path / name, media=Toy(), workers=0)
    before, frozen, tuned = (weights(tmp_path / x) for x in ("first", "frozen", "tuned"))
    norms = [name for name in before if name.endswith("running_mean")]
    assert norms
    assert {name for name in before if not frozen[name].equal(before[name])} == {
        "head.1.weight",
        "head.1.bias",
    }
    assert all(not tuned[name].equal(before[name]) for name in norms)


def test_classes_are_those_of_the_training_clips_and_kept_with_the_run(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=1, validation=None)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["arguments"]["classes"] == ["cut", "rub", "wash"]
    run(tmp_path / "run", epochs=1, validation=None)
    found = embed(tmp_path / "run", VALIDATION, tmp_path / "f.parquet", media=Toy(), workers=0)
    assert list(found.scores) == ["verb=cut", "verb=rub", "verb=wash"]
    own = [f"own{i}" for i in range(300)]
    crowd = toy_clips(300)
    crowd = crowd.join(crowd.table.select(["id"]).append_column("own", [own]))
    run(tmp_path / "many", clips=crowd, label="own", epochs=0, validation=None)
    assert weights(tmp_path / "many")["head.1.weight"].shape[0] == 300


@pytest.mark.slow
def test_it_begins_with_the_towers_of_another_run(tmp_path: Path) -> None:
    train(mc3_small, TINY | {"align_epochs": 1, "refine_epochs": 0}, toy_clips(CLIPS),
          tmp_path / "mc3", media=Toy(), workers=0)  # fmt: skip
    first = tmp_path / "mc3" / "align.safetensors"
    run(tmp_path / "tuned", epochs=0, initial=first, validation=None)
    theirs, ours = load_file(first), weights(tmp_path / "tuned")
    towers = [name for name in ours if name.startswith("towers.")]
    assert towers
    assert all(ours[name].equal(theirs[name]) for name in towers)


def test_beginning_with_untrained_towers_is_beginning_from_scratch(tmp_path: Path) -> None:
    run(tmp_path / "none", epochs=0, validation=None)
    run(tmp_path / "from", initial=tmp_path / "none" / "classify.safetensors", validation=None)
    run(tmp_path / "scratch", validation=None)
    scratch = weights(tmp_path / "scratch")
    assert all(scratch[name].equal(x) for name, x in weights(tmp_path / "from").items())


def test_the_head_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """One step of SGD from the same weights: the head's goes ten times as far."""

    def stepping(tokenizer: Any, **arguments: Any) -> Recipe:
        recipe = classify_small(tokenizer, **arguments)
        object.__setattr__(recipe, "momentum", 0.0)
        object.__setattr__(recipe, "clip_norm", 1e9)
        return recipe

    stepping.__signature__ = classify_small.__signature__  # type: ignore[attr-defined]
    short = {"recipe": stepping, "epochs": 1, "batch": 18, "validation": None}
    run(tmp_path / "before", **short | {"epochs": 0})
    run(tmp_path / "alike", **short)
    run(tmp_path / "ten", head_rate=10.0, **short)
    before, alike, ten = (weights(tmp_path / x) for x in ("before", "alike", "ten"))
    for name, times in (("head.1.weight", 10), ("towers.audio.head.weight", 1)):
        torch.testing.assert_close(
            ten[name] - before[name], times * (alike[name] - before[name]), rtol=1e-3, atol=1e-6
        )

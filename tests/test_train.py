import inspect
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor

import sonant.train
from sonant.checkpoint import (
    Checkpoint,
    RecipeFunction,
    check_same_data,
    check_same_start,
    defaults,
    make,
)
from sonant.clips import Clips
from sonant.data import Examples, loader, requests
from sonant.errors import SonantError, UsageError
from sonant.media.read import Media
from sonant.media.text import Tokenizer, train_tokenizer
from sonant.methods.classify import supervised_small
from sonant.methods.mc3 import MC3, mc3_small
from sonant.methods.method import Recipe
from sonant.methods.pairs import clap_small
from sonant.schedule import learning_rate
from sonant.train import Stopped, _told_to_stop, train
from sonant.types import Batch, Embeddings, Stage
from toy import TINY, Toy, packed_toys, toy_clips

CLIPS = 18
SHORT = TINY | {"align_epochs": 3, "refine_epochs": 3}
STEPS = 6
"""Of each stage: 2 batches of 8 an epoch. There is a checkpoint after every second one."""


class Signalling(Toy):
    """Sends this process a signal at a read of a clip."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.number = at, number

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        if self.reads == self.at:
            os.kill(os.getpid(), self.number)
        return super().read(row, frames=frames, film=film)


def run(
    folder: Path,
    media: Toy | None = None,
    clips: Clips | None = None,
    *,
    recipe: RecipeFunction = mc3_small,
    initial: Path | None = None,
    like: Path | None = None,
    workers: int = 0,
    cache: Path | None = None,
    save_every: int = 2,
    **more: Any,
) -> None:
    train(
        recipe,
        SHORT | more,
        clips or toy_clips(CLIPS),
        folder,
        media=media or Toy(),
        initial=initial,
        like=like,
        workers=workers,
        cache=cache,
        save_every=save_every,
    )


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def places(folder: Path) -> list[tuple[str, int]]:
    return [(line["stage"], line["step"]) for line in log(folder)]


WHOLE = [(stage, step) for stage in ("align", "refine") for step in range(STEPS)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder


def in_another_process(work: Callable[[], None]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def test_a_run_is_recorded(trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text())
    assert record["recipe"] == "sonant.methods.mc3:mc3_small"
    assert record["arguments"]["batch"] == 8
    assert record["arguments"]["temperature"] == 0.07
    assert (record["clips"], record["precision"]) == (CLIPS, "fp32")
    assert record["data"] == toy_clips(CLIPS).digest()
    assert places(trained) == WHOLE
    line = log(trained)[0]
    assert set(line) >= {"loss", "terms", "gradient", "rate", "clips_per_second", "waiting"}
    assert set(line["cosine"]) == {"audio-video", "audio-text", "video-text"}
    assert set(line["rank"]) == {"audio", "video", "text"}
    assert log(trained)[-1]["terms"].keys() == {"contrastive", "consensus"}
    assert line["loss"] == pytest.approx(sum(line["terms"].values()))
    for stage, peak in (("align", 1e-3), ("refine", 5e-4)):
        rates = [line["rate"] for line in log(trained) if line["stage"] == stage]
        wanted = (learning_rate(s, steps=STEPS, peak=peak, warmup=0.05) for s in range(STEPS))
        assert rates == pytest.approx(list(wanted))


def test_the_same_call_learns_the_same_and_another_seed_does_not(
    trained: Path, tmp_path: Path
) -> None:
    run(tmp_path / "again")
    run(tmp_path / "other", seed=1)
    assert weights(tmp_path / "again") == weights(trained)
    assert weights(tmp_path / "other") != weights(trained)


def weights(folder: Path) -> bytes:
    return (folder / "refine.safetensors").read_bytes()


def test_a_finished_run_is_left_alone(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    toy = Toy()
    run(trained, toy)
    assert toy.reads == 0
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir()} == before


@pytest.mark.parametrize(("seed", "first"), [(0, 0), (1, 2), (2, STEPS + 2)])
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(
    seed: int, first: int, trained: Path, tmp_path: Path
) -> None:
    """At a random clip: of all, or after a checkpoint within the first or the last stage."""
    at = random.Random(seed).randrange(8 * first, 8 * (STEPS if 0 < first < STEPS else 2 * STEPS))
    killer = Signalling(at, signal.SIGKILL)
    assert in_another_process(lambda: run(tmp_path, killer)) == -signal.SIGKILL
    run(tmp_path)
    assert weights(tmp_path) == weights(trained)
    assert places(tmp_path) == WHOLE
    assert [line["loss"] for line in log(tmp_path)] == [line["loss"] for line in log(trained)]


@pytest.mark.slow
def test_a_killed_run_with_workers_and_a_cache_does_too(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second epoch, when not all that is in the cache has been told of."""
    killed = partial(run, tmp_path / "run", workers=2, cache=tmp_path / "cache")

    def deadly(step: int, **more: Any) -> float:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return learning_rate(step, **more)

    with monkeypatch.context() as patched:
        patched.setattr(sonant.train, "learning_rate", deadly)
        assert in_another_process(killed) == -signal.SIGKILL
    assert places(tmp_path / "run") == WHOLE[:3]
    killed()
    assert weights(tmp_path / "run") == weights(trained)
    assert places(tmp_path / "run") == WHOLE
    toy = Toy()
    run(tmp_path / "again", toy, cache=tmp_path / "cache")
    assert toy.reads == 1, "only the look at one clip before training"


def test_sigterm_saves_stops_and_lets_go_on(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="saved at step 2 of refine; the same command goes on"):
        run(tmp_path, Signalling(8 * (STEPS + 1) + 2, signal.SIGTERM))
    assert places(tmp_path) == WHOLE[: STEPS + 2]
    assert not (tmp_path / "refine.safetensors").exists()
    run(tmp_path)
    assert weights(tmp_path) == weights(trained)


@pytest.mark.slow
def test_sigterm_of_the_whole_group_saves_too(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun, SLURM, systemd and timeout send it: the workers get it as well."""

    def told(step: int, **more: Any) -> float:
        if step == 3:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.5)
        return learning_rate(step, **more)

    def work() -> None:
        os.setpgrp()
        try:
            run(tmp_path, workers=2, save_every=100)
        except Stopped:
            sys.exit(128 + signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(sonant.train, "learning_rate", told)
        assert in_another_process(work) == 128 + signal.SIGTERM
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4
    run(tmp_path)
    assert weights(tmp_path) == weights(trained)


def test_sigint_saves_too(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Signalling(2, signal.SIGINT))
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_no_epochs_leave_the_weights_as_initialised(tmp_path: Path) -> None:
    run(tmp_path, align_epochs=0, refine_epochs=0)
    tokenizer_size = load_file(tmp_path / "refine.safetensors")["towers.text.encoder.words.weight"]
    assert weights(tmp_path) == (tmp_path / "align.safetensors").read_bytes()
    assert len(tokenizer_size)


def test_another_run_in_the_folder_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)another run.*temperature: 0.07 there, 0.1 wanted"):
        run(trained, temperature=0.1)
    with pytest.raises(UsageError, match=r"clips: 18 others there, 24 wanted"):
        run(trained, clips=toy_clips(24))
    with pytest.raises(UsageError, match=r"media: the same clips were packed from other files"):
        run(trained, clips=packed_toys(CLIPS))
    with pytest.raises(UsageError, match=r"recipe: sonant.methods.mc3:mc3_small there"):
        train(supervised_small, TINY, toy_clips(CLIPS), trained, media=Toy(), workers=0)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"batch": 0}, "batch must be at least 1, not 0"),
    ({"batch": -8}, "batch must be at least 1, not -8"),
    ({"align_epochs": -1}, "epochs of align must be at least 0, not -1"),
    ({"seed": -1}, "seed must be at least 0, not -1"),
    ({"width": 0}, "width must be at least 1, not 0"),
    ({"video_exponent": 0.0}, "exponent of video must be above 0, not 0.0"),
    ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
    ({"seconds": -1.0}, "seconds must be above 0, not -1.0"),
    ({"seconds": 1.5}, r"18 of 18 clips are not of the 1\.5 s .* of 0\.3 s: train with `--seconds"),
    ({"workers": -1}, "workers must be at least 0, not -1"),
    ({"save_every": 0}, "save_every must be at least 1, not 0"),
    ({"size": 64}, "short side has 36 pixels and 68 are wanted"),
]


def test_wrong_use_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes no depth; it takes align_ep"):
        run(tmp_path, depth=3)
    with pytest.raises(UsageError, match="18 clips fill no batch of 32"):
        run(tmp_path, batch=32)
    for wrong, said in IMPOSSIBLE:
        with pytest.raises(UsageError, match=said):
            run(tmp_path, cache=tmp_path / "cache", **wrong)
    bad = toy_clips(CLIPS).quarantined({"c3": "no sound"})
    with pytest.raises(UsageError, match="quarantined"):
        run(tmp_path, clips=bad)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_shape_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, Signalling(2, signal.SIGTERM))
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    last["model"]["towers.audio.head.weight"] = torch.zeros(2, 2)
    torch.save(last, tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r"another shape:\n  towers.audio.head.weight: \(2, 2\)"):
        run(tmp_path)


class Poisoned(Toy):
    """The sound of two clips is too loud for float32."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        media = super().read(row, frames=frames, film=film)
        if row in (5, 11):
            media.samples[:] *= 1e30
        return media


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    said = r"contrastive, gradient not finite at step (\d) of align, .* not finite: c(5|11)"
    steps = []
    step = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", lambda *x: steps.append(1) or step(*x))
        with pytest.raises(SonantError, match=said) as raised:
            run(tmp_path, Poisoned())
    found = re.search(said, str(raised.value))
    assert found
    assert len(steps) == int(found[1])
    assert not (tmp_path / "align.safetensors").exists()


def test_weights_that_ran_away_end_in_words(tmp_path: Path) -> None:
    said = r"after step 0 the embeddings of audio, video, text are not finite; a lower rate may"
    with pytest.raises(SonantError, match=said):
        run(tmp_path, align_rate=1e9)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_a_run_that_failed_before_a_checkpoint_does_not_block_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SonantError, match="not finite"):
        run(tmp_path, Poisoned(), toy_clips(24))
    (tmp_path / "record.json").write_text("{")
    run(tmp_path, temperature=0.1)
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["arguments"]["temperature"], record["clips"]) == (0.1, CLIPS)
    assert places(tmp_path) == WHOLE
    with pytest.raises(UsageError, match="another run"):
        run(tmp_path)


def test_doing_a_run_again_on_other_data_is_refused(trained: Path, tmp_path: Path) -> None:
    check_same_data(trained, toy_clips(CLIPS))
    with pytest.raises(UsageError, match="clips: 18 others there, 24 wanted"):
        check_same_data(trained, toy_clips(24))
    with pytest.raises(UsageError, match="media: the same clips were packed from other files"):
        check_same_data(trained, packed_toys(CLIPS))
    with pytest.raises(UsageError, match="no run there"):
        check_same_data(tmp_path, toy_clips(CLIPS))


def test_a_checkpoint_without_a_record_is_not_taken_over(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes((trained / "last.pt").read_bytes())
    with pytest.raises(UsageError, match=r"holds a checkpoint but no record\.json"):
        run(tmp_path)


def test_bf16_trains_and_is_recorded(trained: Path, tmp_path: Path) -> None:
    run(tmp_path, precision="bf16")
    assert json.loads((tmp_path / "record.json").read_text())["precision"] == "bf16"
    assert weights(tmp_path) != weights(trained)
    losses = [[line["loss"] for line in log(folder)] for folder in (tmp_path, trained)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def like_mc3(recipe: RecipeFunction) -> RecipeFunction:
    """Let a recipe take what MC3's takes."""
    recipe.__signature__ = inspect.signature(mc3_small)  # type: ignore[attr-defined]
    return recipe


@like_mc3
def dropping(tokenizer: Any, **arguments: Any) -> Recipe:
    """MC3 that drops features at random."""
    recipe = mc3_small(tokenizer, **arguments)
    tower = recipe.method.towers["video"]
    recipe.method.towers["video"] = torch.nn.Sequential(tower, torch.nn.Dropout(0.3))
    return recipe


def test_random_numbers_go_on_too(tmp_path: Path) -> None:
    def go(folder: Path, media: Toy) -> None:
        more = {"align_epochs": 2, "refine_epochs": 0}
        train(dropping, TINY | more, toy_clips(CLIPS), folder, media=media, workers=0)

    go(tmp_path / "whole", Toy())
    with pytest.raises(Stopped):
        go(tmp_path / "parts", Signalling(12, signal.SIGTERM))
    torch.rand(7)
    go(tmp_path / "parts", Toy())
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@like_mc3
def still_video(tokenizer: Any, **arguments: Any) -> Recipe:
    """MC3 whose video tower stands still."""
    recipe = mc3_small(tokenizer, **arguments)
    stages = recipe.method.stages
    recipe.method.stages = tuple(
        type(stage)(stage.name, stage.epochs, frozenset({"audio", "text"})) for stage in stages
    )
    return recipe


def test_only_the_towers_of_a_stage_move(tmp_path: Path) -> None:
    more = {"align_epochs": 1, "refine_epochs": 0}
    train(still_video, TINY | more, toy_clips(CLIPS), tmp_path, media=Toy(), workers=0)
    run(tmp_path / "fresh", align_epochs=0, refine_epochs=0)
    before = load_file(tmp_path / "fresh" / "refine.safetensors")
    after: dict[str, Tensor] = load_file(tmp_path / "refine.safetensors")
    moved = {name.split(".")[1] for name in after if not after[name].equal(before[name])}
    assert moved == {"audio", "text"}


@like_mc3
def video_stands_still_later(tokenizer: Any, **arguments: Any) -> Recipe:
    """MC3 whose video tower stands still in the second stage."""
    recipe = mc3_small(tokenizer, **arguments)
    towers = frozenset({"audio", "text"})
    recipe.method.stages = (Stage("align", 2), Stage("refine", 2, towers))
    return recipe


def test_a_tower_that_no_longer_moves_has_no_say_in_the_gradient(tmp_path: Path) -> None:
    """Going on within the second stage there is no gradient left of the first."""
    arguments = {"recipe": video_stands_still_later, "temperature": 5.0, "consensus_weight": 1e-3}
    run(tmp_path / "whole", **arguments)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", Signalling(8 * 5 + 2, signal.SIGTERM), **arguments)
    run(tmp_path / "parts", **arguments)
    whole, parts = (
        [line["gradient"] for line in log(tmp_path / name)] for name in ("whole", "parts")
    )
    assert parts == whole
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


class Beginning(MC3):
    """Keeps, at the begin of a stage, something of the embeddings and of chance."""

    def attach(self, clips: Clips) -> None:
        self.register_buffer("kept", torch.zeros(len(clips), 16))

    def begin(self, stage: Stage, features: Callable[[], Embeddings]) -> None:
        assert not self.training
        self.kept = torch.from_numpy(features()["video"]) + torch.rand(1)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        assert self.training
        pulled = (self.embed(batch)["video"] * self.kept[batch.index]).sum(1).mean()
        return super().forward(batch, stage) | {"pull": pulled}


@like_mc3
def beginning(tokenizer: Any, **arguments: Any) -> Recipe:
    recipe = dropping(tokenizer, **arguments)
    recipe.method.__class__ = Beginning
    return recipe


@pytest.mark.slow
def test_a_stage_that_is_begun_again_begins_the_same(tmp_path: Path) -> None:
    """Killed after the first step of a stage, of which nothing was saved yet."""
    run(tmp_path / "whole", recipe=beginning)
    for number, stage in enumerate(("align", "refine")):
        folder = tmp_path / stage
        reads = 8 * STEPS * number + CLIPS * (number + 1) + 10
        killer = partial(run, folder, Signalling(reads, signal.SIGKILL), recipe=beginning)
        assert in_another_process(killer) == -signal.SIGKILL
        assert places(folder)[-1] == (stage, 0)
        run(folder, recipe=beginning)
        assert weights(folder) == weights(tmp_path / "whole")


def test_refining_an_alignment_is_training_the_whole(trained: Path, tmp_path: Path) -> None:
    """What several runs do first can be done once."""
    run(tmp_path / "align", refine_epochs=0)
    first = tmp_path / "align" / "align.safetensors"
    run(tmp_path / "refine", align_epochs=0, initial=first)
    assert weights(tmp_path / "refine") == weights(trained)
    with pytest.raises(UsageError, match="initial: other weights to begin with"):
        run(tmp_path / "refine", align_epochs=0, initial=trained / "refine.safetensors")


def test_a_text_tower_keeps_its_words(trained: Path, tmp_path: Path) -> None:
    """Other narrations have as many pieces, perhaps, but other ones."""
    first = trained / "align.safetensors"
    clips = toy_clips(24)
    told = [text.translate(str.maketrans("cwrp", "pcwr")) for text in clips.column("text")]
    place = clips.table.column_names.index("text")
    other = Clips(clips.table.set_column(place, "text", pa.array(told)), clips.root)
    nothing = TINY | {"align_epochs": 0, "refine_epochs": 0}
    train(mc3_small, nothing, other, tmp_path / "run", media=Toy(), initial=first, workers=0)
    words = [(folder / "tokenizer.json").read_bytes() for folder in (trained, tmp_path / "run")]
    assert words[0] == words[1]
    alone = tmp_path / "alone" / "align.safetensors"
    alone.parent.mkdir()
    alone.write_bytes(first.read_bytes())
    with pytest.raises(UsageError, match=r"holds a text tower, and no tokenizer\.json lies beside"):
        run(tmp_path / "other", initial=alone)


def test_doing_again_begins_with_the_same_weights(trained: Path, tmp_path: Path) -> None:
    first = trained / "align.safetensors"
    run(tmp_path, align_epochs=0, refine_epochs=0, initial=first)
    check_same_start(tmp_path, first)
    check_same_start(trained, None)
    with pytest.raises(UsageError, match=r"began with weights of SHA-256 [0-9a-f]{64}"):
        check_same_start(tmp_path, None)
    with pytest.raises(UsageError, match="began without others' weights"):
        check_same_start(trained, first)


def test_a_run_killed_between_weights_and_checkpoint_begins_as_it_did(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stage's weights are there, and no state yet: others' weights are taken again."""
    first = {"initial": trained / "align.safetensors", "save_every": 100}
    run(tmp_path / "whole", **first)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(sonant.train._Run, "_save", lambda *_: sys.exit(9))
        run(tmp_path / "parts", **first)
    assert (tmp_path / "parts" / "align.safetensors").is_file()
    assert not (tmp_path / "parts" / "last.pt").exists()
    run(tmp_path / "parts", **first)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@like_mc3
def from_a_file(tokenizer: Any, **arguments: Any) -> Recipe:
    """MC3 that begins with weights that stand somewhere by name."""
    recipe = mc3_small(tokenizer, **arguments)

    def take() -> str:
        recipe.method.load_state_dict(torch.load(NAMED[0]))
        return "all taken"

    return replace(recipe, initialise=take)


NAMED: list[Path] = []


def test_published_weights_that_have_changed_since_are_noticed(tmp_path: Path) -> None:
    NAMED[:] = [tmp_path / "published.pt"]
    method = make(mc3_small, train_tokenizer(list(toy_clips(CLIPS).column("text"))), SHORT).method
    torch.save(method.state_dict(), NAMED[0])
    none = {"recipe": from_a_file, "align_epochs": 0, "refine_epochs": 0}
    run(tmp_path / "first", **none)
    run(tmp_path / "same", like=tmp_path / "first", **none)
    torch.save({name: x + 1 for name, x in method.state_dict().items()}, NAMED[0])
    with pytest.raises(UsageError, match=r"first: the weights or word pieces .* changed since"):
        run(tmp_path / "other", like=tmp_path / "first", **none)
    assert not (tmp_path / "other" / "record.json").exists()
    assert (tmp_path / "same/refine.safetensors").read_bytes() == weights(tmp_path / "first")


def test_only_towers_that_fit_are_begun_with(trained: Path, tmp_path: Path) -> None:
    first = trained / "align.safetensors"
    train(
        clap_small,
        TINY | {"epochs": 0},
        toy_clips(CLIPS),
        tmp_path,
        media=Toy(),
        workers=0,
        initial=first,
    )
    begun = load_file(tmp_path / "align.safetensors")
    assert begun.keys() == {name for name in load_file(first) if "video" not in name}
    assert all(x.equal(load_file(first)[name]) for name, x in begun.items())
    with pytest.raises(
        UsageError, match=r"head.weight: \(16, 256\) in the file, \(8, 256\) wanted"
    ):
        run(tmp_path / "other", initial=first, width=8)
    (tmp_path / "empty.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    with pytest.raises(UsageError, match="holds no tower of audio, video, text to begin with"):
        run(tmp_path / "other", initial=tmp_path / "empty.safetensors")


def test_arguments_are_recorded_flat_whatever_the_recipe_groups(trained: Path) -> None:
    recorded = json.loads((trained / "record.json").read_text())["arguments"]
    assert recorded == json.loads(json.dumps(defaults(mc3_small) | SHORT))
    assert make(mc3_small, train_tokenizer(["cut"]), recorded).batch == TINY["batch"]


@like_mc3
def with_momentum(tokenizer: Any, **arguments: Any) -> Recipe:
    return replace(mc3_small(tokenizer, **arguments), momentum=0.9)


def test_sgd_has_its_momentum_and_goes_on_with_it(tmp_path: Path) -> None:
    """Two steps of one batch of all clips, by torch's formula; then killed after the first."""
    arguments = {"refine_epochs": 0, "align_epochs": 2, "batch": CLIPS}
    short = {"recipe": with_momentum} | arguments
    run(tmp_path / "whole", **short)
    first, second = (line["rate"] for line in log(tmp_path / "whole"))
    made = make(
        with_momentum,
        Tokenizer.read(tmp_path / "whole/tokenizer.json"),
        SHORT | {n: x for n, x in short.items() if n != "recipe"},
    )
    moving = dict(made.method.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in moving.items()}
    examples = Examples(toy_clips(CLIPS), Toy(), made.views, made.method.modalities, None)
    asked = requests(CLIPS, batch=CLIPS, epochs=2, seed=0, stage="align", first=0, rank=0, ranks=1)
    for batch, rate in zip(loader(examples, asked, workers=0), (first, second), strict=True):
        made.method.zero_grad()
        torch.stack(list(made.method(batch, made.method.stages[0]).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(made.method.parameters(), made.clip_norm)
        with torch.no_grad():
            for name, p in moving.items():
                velocity[name] = 0.9 * velocity[name] + (0 if p.grad is None else p.grad)
                p -= rate * velocity[name]
    there = load_file(tmp_path / "whole/align.safetensors")
    for name, p in moving.items():
        torch.testing.assert_close(there[name], p.detach())
    with pytest.raises(Stopped):
        run(tmp_path / "parts", Signalling(CLIPS - 1, signal.SIGTERM), **short)
    assert places(tmp_path / "parts") == [("align", 0)]
    run(tmp_path / "parts", **short)
    assert (tmp_path / "parts/align.safetensors").read_bytes() == (
        tmp_path / "whole/align.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_momentum_is_checked(momentum: float) -> None:
    with pytest.raises(UsageError, match="momentum of SGD must be 0 or more and below 1"):
        replace(make(mc3_small, train_tokenizer(["cut a leek"]), SHORT), momentum=momentum)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_learning_rates_are_checked(rate: float) -> None:
    with pytest.raises(UsageError, match="a finite number of 0 or more, not"):
        replace(make(mc3_small, train_tokenizer(["cut a leek"]), SHORT), learning_rates=(0.1, rate))


def test_a_stage_ends_with_its_share_of_the_weights_it_began_with(
    trained: Path, tmp_path: Path
) -> None:
    """Also if it is killed in between; the log is that of a stage that keeps none."""
    run(tmp_path / "whole", align_share=0.25)
    begun, learned, mixed = (
        load_file(folder / name)
        for folder, name in (
            (trained, "align.safetensors"),
            (trained, "refine.safetensors"),
            (tmp_path / "whole", "refine.safetensors"),
        )
    )
    assert any(not learned[name].equal(x) for name, x in mixed.items())
    for name, x in mixed.items():
        torch.testing.assert_close(x, 0.75 * learned[name] + 0.25 * begun[name])
    assert [line["loss"] for line in log(tmp_path / "whole")] == [
        line["loss"] for line in log(trained)
    ]
    with pytest.raises(Stopped):
        run(tmp_path / "parts", Signalling(8 * (STEPS + 3), signal.SIGTERM), align_share=0.25)
    assert (tmp_path / "parts" / "refine.begun").is_file()
    run(tmp_path / "parts", align_share=0.25)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert not list(tmp_path.glob("*/*.begun"))
    with pytest.raises(UsageError, match="share of 0 to 1 in those it ends with, not 2"):
        run(tmp_path / "wrong", align_share=2.0)


def test_a_second_sigterm_does_not_keep_it_from_saving() -> None:
    """torchrun hands on what its group has had already."""
    with _told_to_stop() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed() == (True, False)
        with pytest.raises(Stopped):
            stop.leave("stopped")


def test_sigterm_is_heeded_while_a_stage_begins(tmp_path: Path) -> None:
    run(tmp_path / "whole", recipe=beginning)
    for number in (0, 1):
        folder = tmp_path / f"{number}"
        reads = (8 * STEPS + CLIPS) * number + 3
        with pytest.raises(Stopped, match="stopped while a stage began"):
            run(folder, Signalling(reads, signal.SIGTERM), recipe=beginning)
        run(folder, recipe=beginning)
        assert weights(folder) == weights(tmp_path / "whole")


def test_checkpoints_take_a_twentieth_of_the_time_at_most(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, written = [0.0], list[tuple[int, int]]()

    def now() -> float:
        clock[0] += 1
        return clock[0]

    def write(self: Checkpoint, path: Path) -> None:
        clock[0] += slow
        written.append((self.stage, self.step))

    monkeypatch.setattr(sonant.train.time, "perf_counter", now)
    monkeypatch.setattr(Checkpoint, "write", write)
    for slow in (0, 10**4):
        written.clear()
        run(tmp_path / f"{slow}", save_every=1)
        ends = {(0, 1), (1, 0), (2, 0)}
        assert set(written) == ends if slow else set(written) > ends, "the first, ends of stages"
    assert weights(tmp_path / "10000") == weights(trained)

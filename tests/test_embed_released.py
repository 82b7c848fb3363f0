"""Features by published weights: files of the published layout, and packs that do or do not fit."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from film_networks import random_state, video_maps, video_shapes
from sonant.cli import main
from sonant.clips import Clips
from sonant.embed import embed_released, pace, released_model
from sonant.encoders import released as module
from sonant.encoders.conv3d import DEVIATION, MEAN, r2plus1d_18
from sonant.encoders.released import RELEASES, Release, Sight
from sonant.errors import UsageError
from sonant.features import Features
from sonant.media.read import Media
from sonant.types import Clip, Map

PLANES, FRAMES, SIDE = 8, 4, 20


class Still:
    """Noise of `frames` different frames of SIDE pixels; the second clip has no pictures."""

    def __init__(self, frames: int = FRAMES, side: int = SIDE) -> None:
        self.frames, self.side = frames, side

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        samples = np.zeros(16, np.float32)
        if row == 1 or not frames:
            return Media(None, None, samples, 0.0, 16)
        shape = (self.frames, self.side, self.side, 3)
        noise = np.random.default_rng(row).integers(0, 256, shape).astype(np.uint8)
        shown = np.arange(frames) * self.frames // frames
        return Media(noise[shown], shown / 4.0, samples, 0.0, 16)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a small release `tiny`, as XDC publishes its own."""
    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    torch.save(
        random_state(
            video_shapes("r2plus1d", "per_conv", planes=PLANES, classes=None, counters=False)
        ),
        path,
    )
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    release = Release(
        f"https://nowhere.invalid/tiny-{digits}.pth",
        lambda classes: r2plus1d_18("per_conv", classes, planes=PLANES, eps=1e-3),
        Sight(FRAMES, 4.0, size=16, short_side=SIDE),
    )
    monkeypatch.setitem(module.RELEASES, "tiny", release)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return path


def clips(*, end: float = 1.0) -> Clips:
    return Clips.of([Clip(id, "v.mp4", 0.0, end) for id in "abc"], root=Path("/nowhere"))


def test_features_are_what_the_published_network_sees_in_the_middle(
    file: Path, tmp_path: Path
) -> None:
    model, said = released_model("tiny", path=file)
    assert said.endswith("tensors taken")
    assert model.name.startswith("tiny@")
    out = tmp_path / "features.parquet"
    found = embed_released(model, clips(), out, media=Still(), batch=2, workers=0)
    assert found.modalities == ("video",)
    assert np.isnan(found.matrix("video")[1]).all()
    frames = Still().read(2, frames=FRAMES).frames
    assert frames is not None
    seen = torch.from_numpy(frames[:, 2:18, 2:18].astype(np.float64) / 255)
    film = (seen - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    film = film.permute(3, 0, 1, 2)[None].float()
    wanted = video_maps(film, torch.load(file), eps=1e-3)["mean"][0].numpy()
    assert found.matrix("video")[2] == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)
    again = embed_released(model, clips(), out, media=Still(), batch=1, workers=0)
    assert again.table.equals(Features.read(out).table)


def test_a_map_of_the_published_network_is_its_own(file: Path, tmp_path: Path) -> None:
    model, _ = released_model("tiny", path=file)
    frames = Still().read(2, frames=FRAMES).frames
    assert frames is not None
    seen = torch.from_numpy(frames[:, 2:18, 2:18].astype(np.float64) / 255)
    film = (seen - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    maps = video_maps(film.permute(3, 0, 1, 2)[None].float(), torch.load(file), eps=1e-3)
    layers: dict[Map, str] = {"conv3": "layer2", "conv4": "layer3", "conv5": "layer4"}
    for layer, name in layers.items():
        out = tmp_path / f"{layer}.parquet"
        found = embed_released(model, clips(), out, media=Still(), workers=0, layer=layer)
        wanted = maps[name][0].flatten().numpy()
        assert found.matrix("video")[2] == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)
        assert found.run != model.name


def test_other_weights_of_the_layout_go_by_their_file(file: Path) -> None:
    state = torch.load(file)
    state["layer4.1.conv2.1.bias"] += 1
    torch.save(state, file)
    model, said = released_model("tiny", path=file)
    assert said.endswith("it is not the published file of tiny")
    assert model.name.startswith(f"{file}@")


def test_the_same_weights_that_see_otherwise_are_another_model(file: Path) -> None:
    names = {
        released_model("tiny", path=file, **how)[0].name
        for how in ({}, {"frames": 2}, {"size": 8}, {"frames": FRAMES})
    }
    assert len(names) == 3


def test_a_pack_with_too_little_in_it_is_refused(file: Path, tmp_path: Path) -> None:
    model, _ = released_model("tiny", path=file)
    for media, message in (
        (Still(frames=3), r"3 different frames and 4 are wanted: .*--frames.*--frame-rate"),
        (Still(side=19), r"short side has 19 pixels and 20 are wanted .*--size.*--short-side"),
    ):
        with pytest.raises(UsageError, match=message):
            embed_released(model, clips(), tmp_path / "f", media=media, workers=0)


def test_the_pace_of_the_frames_is_told(file: Path) -> None:
    model, _ = released_model("tiny", path=file)
    assert pace("tiny", model, clips(end=2.0)).startswith("4 frames a clip are 2 a second; these")
    both = Clips.of([*clips(), Clip("d", "v.mp4", 0.0, 4.0)], root=Path("/nowhere"))
    assert "are 1 to 4 a second" in pace("tiny", model, both)


def test_weights_that_cannot_be_fetched_can_be_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = (file.parent / "none-01234567.pth").as_uri()
    monkeypatch.setitem(module.RELEASES, "tiny", replace(RELEASES["tiny"], url=url))
    with pytest.raises(Exception, match=r"cannot be fetched: .* \(`NAME=FILE`\)"):
        released_model("tiny")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("embed pack f.parquet", "embed wants a RUN, a PACK and OUT, or, with --weights NAME"),
        ("embed run pack f.parquet --weights tiny", "given are run pack f.parquet"),
        ("embed run pack f.parquet --frames 8", "--frames and --size are for --weights"),
        ("embed run s3://bucket/pack f.parquet", "commands work on local folders and files"),
        ("embed pack f.parquet --weights xdc-audioset=s3://x.pth", "no such clip table"),
    ],
)
def test_wrong_use_is_told(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err

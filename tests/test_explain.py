"""Where a model looks: against transcriptions, regions that are known, and the world's masks."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from published import OURS, scattered
from sonant.checkpoint import make
from sonant.cli import main
from sonant.clips import Clips
from sonant.data import to_batch
from sonant.embed import Model
from sonant.encoders.ast import AST
from sonant.encoders.conv3d import FromSpectrogram, avcl_c3d, avcl_r2plus1d, avcl_r3d
from sonant.encoders.resnet import AudioResNet
from sonant.encoders.small import SmallAudio, SmallVideo
from sonant.encoders.timesformer import FrozenBlock, TimeSformer
from sonant.errors import SonantError, UsageError
from sonant.explain import pictures as pictures_of_explain
from sonant.explain.clip import Explanation, Heat, explain, frames_seen, front_end, sound_axes
from sonant.explain.layers import SAME, Axis, Layer, layers, spread
from sonant.explain.maps import BEST, ROLL_OUT, find, grad_cam
from sonant.explain.measure import MODEL, RANDOM, _answer, _mel
from sonant.explain.pictures import blended, write_film, write_sheet
from sonant.explain.rollout import patches
from sonant.media.audio import log_mel, mel_centres
from sonant.media.read import Media
from sonant.media.text import train_tokenizer
from sonant.methods.avcl import avcl
from sonant.methods.classify import supervised_small
from sonant.methods.mc3 import mc3_small
from sonant.methods.method import Method
from sonant.methods.moments import Moment
from sonant.metrics.pointing import iou, pointing
from sonant.sources.world import laws, world
from sonant.sources.world.masks import Masks
from sonant.sources.world.picture import frames, own_pixels
from sonant.sources.world.sound import soundtrack
from sonant.sources.world.story import story
from sonant.sources.world.truth import truths
from sonant.train import train
from sonant.types import Batch, Stage
from toy import RATE, SECONDS, TINY, Toy, toy_clips

TOKENIZER = train_tokenizer(["cuts the cup", "washes the pot"], size=60)
WORLD_SEED = 7


def toy_model(recipe: Any = mc3_small, **arguments: Any) -> Model:
    made = make(recipe, TOKENIZER, TINY | arguments)
    return Model(made.method, made.views, "toy")


def toy_batch(model: Model, rows: list[int]) -> Batch:
    media = [Toy().read(row, frames=model.views.frames) for row in rows]
    v = model.views
    sound = np.stack([v.audio(one.samples, one.rate) for one in media if one.samples is not None])
    sight = np.stack([v.middle(v.video(one.frames)) for one in media if one.frames is not None])
    return to_batch(np.arange(len(rows)), {"audio": sound, "video": sight})


# ----------------------------------------------------------------------------------------- Grad-CAM


class Glance(nn.Module):
    """Films [n, time, 3, h, w] to one number: what is red, where it is read."""

    width = 1

    def __init__(self, window: tuple[slice, slice, slice]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.window = window
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.relu(self.conv(x.float().transpose(1, 2) / 255))
        time, height, width = self.window
        out: Tensor = self.out(maps[:, :, time, height, width].square().mean((2, 3, 4)))
        return out


@layers.register
def _glance(encoder: Glance) -> dict[str, Layer]:
    return {"relu": Layer(encoder.relu, (SAME, SAME, SAME))}


class Alone(Method):
    """One tower, and its output as a score."""

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        return {"red": self.towers["video"](batch.inputs["video"])[:, 0]}


def alone(encoder: nn.Module) -> Model:
    views = make(mc3_small, TOKENIZER, TINY).views
    return Model(Alone({"video": encoder}, (Stage("s", 1),)), views, "alone")


def films(n: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(3)).to(
        torch.uint8
    )


@pytest.mark.parametrize("pooled", [True, False])
def test_grad_cam_is_the_papers(pooled: bool) -> None:
    """Equations 1 and 2 cell by cell, with the activations as leaves of a graph of their own."""
    torch.manual_seed(0)
    encoder = Glance((slice(0, 3), slice(1, 4), slice(0, 5)))
    x = films(2, 3, 3, 5, 6)
    found = find(alone(encoder), Batch(torch.arange(2), {"video": x}), pooled=pooled)
    looked = found.looked["video"]
    assert (found.target, looked.layer, looked.cells) == (BEST, "relu", (3, 5, 6))
    for clip in range(2):
        maps = F.relu(encoder.conv(x[clip : clip + 1].float().transpose(1, 2) / 255))[0].detach()
        maps.requires_grad_()
        y = encoder.out(maps[:, :3, 1:4, :5].square().mean((1, 2, 3)))
        assert found.value[clip] == pytest.approx(y.item(), abs=1e-5)
        (gradient,) = torch.autograd.grad(y.sum(), maps)
        cam = torch.zeros(3, 5, 6)
        for t in range(3):
            for i in range(5):
                for j in range(6):
                    own = gradient.sum((1, 2, 3)) / 90 if pooled else gradient[:, t, i, j]
                    cam[t, i, j] = max(0.0, (own * maps[:, t, i, j]).sum().item())
        assert looked.peak[clip] == pytest.approx(float(cam.max()), rel=1e-4)
        if looked.peak[clip] > 0:
            expected = (cam / cam.max()).numpy()
            np.testing.assert_allclose(looked.heat[clip], expected, atol=1e-5)


def test_a_net_that_reads_one_region_points_there() -> None:
    window = (slice(2, 3), slice(4, 6), slice(9, 11))
    encoder = Glance(window)
    nn.init.constant_(encoder.conv.weight, 0.1)
    nn.init.zeros_(encoder.conv.bias)
    nn.init.ones_(encoder.out.weight)
    heat = (
        find(
            alone(encoder), Batch(torch.arange(1), {"video": films(1, 4, 3, 12, 12)}), pooled=False
        )
        .looked["video"]
        .heat[0]
    )
    outside = heat.copy()
    outside[window] = 0
    assert heat.max() == 1
    assert not outside.any()


def test_a_net_that_sees_red_points_at_what_is_red() -> None:
    encoder = Glance((slice(None), slice(None), slice(None)))
    with torch.no_grad():
        encoder.conv.weight.zero_()
        encoder.conv.bias.zero_()
        for colour in range(3):
            encoder.conv.weight[colour, colour, 1, 1, 1] = 1
        encoder.out.weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 0.0]]))
    x = torch.zeros(1, 4, 3, 12, 12, dtype=torch.uint8)
    x[0, 1, 0, 3, 8], x[0, 2, 2, 5, 5], x[0, 0, 1, 9, 9] = 100, 255, 255
    looked = find(alone(encoder), Batch(torch.arange(1), {"video": x})).looked["video"]
    assert np.unravel_index(looked.heat[0].argmax(), looked.heat[0].shape) == (1, 3, 8)
    assert looked.heat[0].sum() == 1


def test_of_what_nothing_speaks_for_the_map_is_zero() -> None:
    encoder = Glance((slice(None), slice(None), slice(None)))
    nn.init.constant_(encoder.out.weight, -1)
    looked = find(alone(encoder), Batch(torch.arange(1), {"video": films(1, 3, 3, 8, 8)})).looked
    assert looked["video"].peak.tolist() == [0]
    assert not looked["video"].heat.any()
    one = Heat(looked["video"].heat[0], np.arange(3.0), None, np.zeros(1), "relu", (3, 8, 8), 0.0)
    assert "nowhere" in one.told()


def test_channels_that_push_the_target_down_do_not_count() -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, 0.0]]])
    rising = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]]])
    np.testing.assert_allclose(grad_cam(maps, rising).numpy(), [[0, 2]])


# -------------------------------------------------------------------------------- what is where


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)).filter(
            lambda layer: layer[2] < layer[0]
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_cell_is_centred_on_what_it_sees(chain: list[tuple[int, int, int]]) -> None:
    axis, x = SAME, torch.ones(1, 1, 90, requires_grad=True)
    out = x
    for kernel, stride, padding in chain:
        axis = axis.after(kernel, stride, padding)
        out = F.conv1d(out, torch.ones(1, 1, kernel), stride=stride, padding=padding)
    cell = out.shape[2] // 2
    (gradient,) = torch.autograd.grad(out[0, 0, cell], x)
    seen = torch.nonzero(gradient[0, 0])[:, 0]
    if seen[0] > 0 and seen[-1] < 89:
        assert (seen[0] + seen[-1]).item() / 2 == axis.first + axis.step * cell


def uniform(network: nn.Module) -> nn.Module:
    """Every kernel the same everywhere: gradients are symmetric around their cell's centre."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.double().eval()


NETWORKS = {
    "r3d": (lambda: avcl_r3d(planes=2), ("conv1", "conv2", "conv3")),
    "r2plus1d": (lambda: avcl_r2plus1d(planes=2), ("conv1", "conv2")),
    "c3d": (lambda: avcl_c3d(planes=2), ("conv1", "conv2", "conv3")),
    "vmz": (lambda: AudioResNet(planes=4), ("conv1", "conv2")),
    "torchvision": (lambda: AudioResNet("torchvision", planes=4), ("conv1", "conv2")),
    "as a film": (lambda: FromSpectrogram(avcl_r3d(planes=2)), ("conv1", "conv3")),
    "small audio": (lambda: SmallAudio(bins=160), ("stem", "conv1", "conv2")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_centre_of_each_cell_is_where_its_gradient_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "max_pool3d", F.avg_pool3d)  # of the same geometry, and smooth
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda own, x: F.avg_pool2d(x, 3, 2, 1))
    network, names = NETWORKS[name][0](), NETWORKS[name][1]
    uniform(network)
    volume = name in ("r3d", "r2plus1d", "c3d")
    size = (24, 48, 56) if volume else (160, 160)
    x = torch.ones(1, *([3] if volume else []), *size, dtype=torch.float64, requires_grad=True)
    if name == "small audio":  # of sound it also sees the change, which has no gradient at rest
        with torch.no_grad():
            network.stem.weight[:, 1] = 0
    made: dict[str, Tensor] = {}
    for layer in names:
        hook = layers(network)[layer].module.register_forward_hook(
            lambda _, __, out, layer=layer: made.__setitem__(layer, out)
        )
        network(x)
        hook.remove()
        known = layers(network)[layer]
        maps = known.arranged(made[layer], 1)
        cell = [n // 2 for n in maps.shape[2:]]
        (gradient,) = torch.autograd.grad(maps[(0, slice(None), *cell)].sum(), x)
        weight = gradient[0].sum(0) if volume else gradient[0]
        there = [(at, axis) for at, axis in zip(cell, known.axes, strict=True) if axis is not None]
        for dimension, (at, axis) in enumerate(there):
            profile = weight.sum([d for d in range(weight.ndim) if d != dimension])
            places = torch.arange(len(profile), dtype=torch.float64)
            assert profile[0] == 0 or name == "r2plus1d" or dimension == 0, "it fits"
            if profile[0] == 0 and profile[-1] == 0:
                centre = float((profile * places).sum() / profile.sum())
                assert centre == pytest.approx(axis.first + axis.step * at, abs=1e-6), dimension


def test_the_small_video_towers_cells_are_centred_on_what_they_see() -> None:
    network = uniform(SmallVideo()).float()
    nn.init.constant_(network.patches.weight, 1e-3)
    base = torch.full((1, 3, 3, 32, 160), 130, dtype=torch.uint8)
    columns = list(range(0, 160, 4))
    changed = base.repeat(len(columns), 1, 1, 1, 1)
    for row, column in enumerate(columns):
        changed[row, :, :, :, column : column + 4] = 250
    for name, layer in layers(network).items():
        made: list[Tensor] = []
        with torch.no_grad():
            hook = layer.module.register_forward_hook(
                lambda _, __, out, made=made: made.append(out)
            )
            network(base)
            network(changed)
            hook.remove()
        before, after = (layer.arranged(x, n) for x, n in zip(made, (1, len(columns)), strict=True))
        cell = before.shape[-1] // 2
        moved = (after - before)[:, :, 1, 0, cell].abs().amax(1) > 1e-6
        seen = [column for column, here in zip(columns, moved, strict=True) if here]
        axis = layer.axes[2]
        assert axis is not None
        assert (seen[0] + seen[-1] + 3) / 2 == axis.first + axis.step * cell, name


halves = st.integers(0, 18).map(lambda n: n / 2)
line = st.integers(1, 5).flatmap(
    lambda cells: st.tuples(halves, st.integers(1, 20), st.just(cells), st.integers(0, cells - 1))
)


@settings(max_examples=40, deadline=None)
@given(st.tuples(line, line, line))
def test_a_hot_cell_lands_at_its_place(lines: tuple[tuple[float, int, int, int], ...]) -> None:
    axes = [Axis(first, step) for first, step, _, _ in lines]
    cells, hot = [n for _, _, n, _ in lines], [at for *_, at in lines]
    size = [math.ceil(axis.first + axis.step * n) + 1 for axis, n in zip(axes, cells, strict=True)]
    values = np.zeros((1, *cells))
    values[(0, *hot)] = 1
    heat = spread(values, axes, size)[0]
    centre = [axis.first + axis.step * at for axis, at in zip(axes, hot, strict=True)]
    around = tuple(slice(math.floor(at), math.ceil(at) + 1) for at in centre)
    assert heat[around].max() == heat.max()
    assert 0 <= heat.min() <= heat.max() <= 1
    np.testing.assert_allclose(spread(np.ones((1, *cells)), axes, size), 1)


def test_a_click_and_a_flash_are_found_at_their_second() -> None:
    """A hot cell's second and pitch, from the file's clock to the words that are printed."""
    seconds = 3.25 + np.arange(8) * 0.1875
    values = np.zeros((8, 64, 64), np.float32)
    values[5, 12, 48] = 1
    seen = np.zeros((8, 64, 64, 3), np.uint8)
    heat = Heat(values, seconds, None, seen, "conv1", (8, 4, 4), 1.0)
    assert heat.place() == (5, 12, 48)
    assert heat.told() == "at 4.19 s, 76% from the left and 20% from the top"


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_beep_lies_at_its_second_and_pitch(hertz: float) -> None:
    """Of every front end: where its spectrogram is loudest, its axes name the beep."""
    rate, begin, at = 24000, 10.0, 1.2
    t = np.arange(2 * rate) / rate
    wave = np.exp(-(((t - at) / 0.02) ** 2)) * np.sin(2 * np.pi * hertz * t)
    media = Media(None, None, wave.astype(np.float32), begin, rate)
    tokens = make(mc3_small, TOKENIZER, TINY | {"seconds": 2.0}).views
    films = {"seconds": 2.0, "planes": 2, "mel": 64, "mel_crop": 64}
    whole, middle, cropped = (
        make(avcl, TOKENIZER, films | more).views
        for more in ({}, {"sound": "middle", "mel": 256, "mel_crop": 256}, {"mel_crop": 56})
    )
    shared = {"tokenizer": TOKENIZER, "frames": 4, "size": 32, "seconds": 2.0, "tokens": 1}
    xdc = Moment(**shared, film=2, mel=100, hop=0.02)
    for views in (tokens, whole, middle, cropped, xdc):
        mel = views.heard(views.audio(media.samples, rate))
        time, pitch = np.unravel_index(mel.argmax(), mel.shape)
        seconds, known = sound_axes(views, media, mel.shape)
        assert known is not None
        assert seconds[time] == pytest.approx(begin + at, abs=0.026)
        assert known[pitch] == pytest.approx(hertz, rel=0.15)
        assert np.all(np.diff(seconds) > 0)


def test_of_a_wave_the_lines_share_its_time() -> None:
    arguments = {"seconds": 2.0, "sound": "wave", "mel": 32, "planes": 2}
    views = make(avcl, TOKENIZER, arguments).views
    media = Media(None, None, np.zeros(2 * RATE, np.float32), 1.0, RATE)
    seconds, hertz = sound_axes(views, media, (32, 32))
    assert front_end(views) is None
    assert hertz is None
    np.testing.assert_allclose(seconds, 1 + (np.arange(32) + 0.5) / 16)


def test_mel_centres_are_those_of_the_filter_bank() -> None:
    assert mel_centres(0, 8000, 3)[1] == pytest.approx(700 * (math.sqrt(8700 / 700) - 1))


def test_views_that_cut_frames_off_say_which_are_seen() -> None:
    shared = {"tokenizer": TOKENIZER, "size": 8, "seconds": 2.0, "tokens": 1}
    assert frames_seen(Moment(frames=60, film=4, mel=9, hop=0.02, **shared), 60).tolist() == [
        28, 29, 30, 31,
    ]  # fmt: skip
    plain = make(mc3_small, TOKENIZER, TINY).views
    assert frames_seen(plain, 300).tolist() == list(range(300))


# ----------------------------------------------------------------------------------------- roll-out


def weights(attention: Any, x: Tensor, sees: list[list[int]]) -> Tensor:
    """Attention weights [tokens, tokens], token by token and head by head, a mean over heads."""
    q, k, _ = attention.qkv(x).reshape(len(x), 3, attention.heads, -1).unbind(1)
    found = torch.zeros(len(x), len(x))
    for head in range(attention.heads):
        for token, others in enumerate(sees):
            asked = torch.stack([q[token, head] @ k[o, head] / q.shape[-1] ** 0.5 for o in others])
            found[token, others] += torch.softmax(asked, 0) / attention.heads
    return found


@torch.no_grad()
def test_roll_out_of_ast_is_the_papers() -> None:
    model = scattered(AST(frames=20, bins=16, patch=8, stride=4, **OURS))
    x = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(2))
    maps = model.patches(x.transpose(1, 2)[:, None])
    h = torch.cat([model.cls, model.distillation, maps.flatten(2).transpose(1, 2)], 1)
    h = h + model.places
    rolled, tokens = torch.eye(h.shape[1]), h.shape[1]
    for block in model.blocks:
        attended = weights(block.attention, block.norm1(h)[0], [list(range(tokens))] * tokens)
        rolled = (0.5 * attended + 0.5 * torch.eye(tokens)) @ rolled
        h = block(h)
    torch.testing.assert_close(rolled.sum(1), torch.ones(tokens))
    row = rolled[:2, 2:].mean(0).reshape(3, 4).T
    row = row - row.min()
    looked = find(heard_by(model), Batch(torch.arange(1), {"audio": x})).looked["audio"]
    assert (looked.layer, looked.cells) == (ROLL_OUT, (4, 3))
    kind = patches(model)
    assert kind is not None
    assert kind.axes == (Axis(3.5, 4), Axis(3.5, 4))
    expected = spread(row[None].numpy(), kind.axes, (20, 16))[0]
    assert looked.peak[0] == pytest.approx(expected.max(), rel=1e-4)
    np.testing.assert_allclose(looked.heat[0], expected / expected.max(), atol=1e-4)


class Heard(Method):
    def scores(self, batch: Batch) -> dict[str, Tensor]:
        return {m: tower(batch.inputs[m])[:, 0] for m, tower in self.towers.items()}  # type: ignore[index]


def heard_by(encoder: nn.Module) -> Model:
    views = make(mc3_small, TOKENIZER, TINY).views
    return Model(Heard({"audio": encoder}, (Stage("s", 1),)), views, "heard")


@pytest.mark.parametrize("attention", ["frozen", "plain"])
@torch.no_grad()
def test_roll_out_of_divided_attention_is_the_papers(attention: Any) -> None:
    model = scattered(TimeSformer(attention=attention, frames=3, size=16, patch=8, **OURS))
    x = films(1, 3, 3, 16, 16)
    places, tokens = 4, 13
    here = [list(range(tokens))] + [
        [0, *range(1 + f * places, 1 + (f + 1) * places)] for f in range(3) for _ in range(places)
    ]
    then = [list(range(tokens))] + [
        [0, *range(1 + p, tokens, places)] for _ in range(3) for p in range(places)
    ]
    seen: list[Tensor] = []
    hooks = [
        b.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for b in model.blocks
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    eye, rolled = torch.eye(tokens), torch.eye(tokens)
    for block, h in zip(model.blocks, seen, strict=True):
        if isinstance(block, FrozenBlock):
            time = weights(block.time, block.norm_time(h)[0], then)
            timed = h + block.time(block.norm_time(h), 3)
            space = weights(block.attention, block.norm1(timed)[0], here)
            rolled = (0.5 * space @ (0.5 * time + 0.5 * eye) + 0.5 * eye) @ rolled
            continue
        time, space = torch.zeros(tokens, tokens), torch.zeros(tokens, tokens)
        time[0, 0] = 1
        patched = h[0].clone()
        for p in range(places):
            line = list(range(1 + p, tokens, places))
            given = block.norm_time(h[0, line])
            own = weights(block.time, given, [[0, 1, 2]] * 3)
            time[torch.tensor(line)[:, None], torch.tensor(line)] = own
            patched[line] = h[0, line] + block.time_out(block.time(given[None]))[0]
        for f in range(3):
            line = here[1 + f * places]
            own = weights(block.attention, block.norm1(patched[line]), [list(range(5))] * 5)
            space[0, line] += own[0] / 3
            space[torch.tensor(line[1:])[:, None], torch.tensor(line)] = own[1:]
        rolled = (0.5 * space + 0.5 * eye) @ (0.5 * time + 0.5 * eye) @ rolled
    torch.testing.assert_close(rolled.sum(1), torch.ones(tokens))
    looked = find(alone(model), Batch(torch.arange(1), {"video": x})).looked["video"]
    assert (looked.layer, looked.cells) == (ROLL_OUT, (3, 2, 2))
    row = (rolled[0, 1:] - rolled[0, 1:].min()).reshape(1, 3, 2, 2).numpy()
    expected = spread(row, (SAME, Axis(3.5, 8), Axis(3.5, 8)), (3, 16, 16))[0]
    np.testing.assert_allclose(looked.heat[0], expected / expected.max(), atol=1e-4)


# -------------------------------------------------------------------------------- models and clips


def test_agreement_is_explained_for_both_modalities_and_alike_each_time() -> None:
    model = toy_model()
    found, again = (find(model, toy_batch(model, [0, 1, 2])) for _ in range(2))
    e = model.method.embed(toy_batch(model, [0, 1, 2]))
    np.testing.assert_allclose(found.value, (e["audio"] * e["video"]).sum(1).detach(), atol=1e-6)
    assert found.target == "AV"
    assert found.looked["video"].heat.shape == (3, 2, 32, 32)
    assert found.looked["audio"].heat.shape == (3, *model.views.shapes["audio"][1])
    single = find(model, toy_batch(model, [1]))
    for modality, looked in found.looked.items():
        assert np.array_equal(looked.heat, again.looked[modality].heat)
        np.testing.assert_allclose(single.looked[modality].heat[0], looked.heat[1], atol=1e-4)
        assert looked.heat.min() >= 0
        assert looked.heat.max() <= 1
    assert not any(parameter.grad is not None for parameter in model.method.parameters())
    assert not any(module._forward_hooks for module in model.method.modules())


def test_a_network_that_both_modalities_share_has_a_map_of_each() -> None:
    arguments = {"planes": 2, "frames": 8, "size": 32, "jitter": 0, "seconds": SECONDS}
    arguments |= {"mel": 32, "mel_crop": 32}
    recipe = make(avcl, TOKENIZER, arguments | {"models": 1, "joint": 4})
    model = Model(recipe.method, recipe.views, "shared")
    found = find(model, toy_batch(model, [0, 1]), at={"audio": "conv2", "video": "conv2"})
    assert found.target == BEST
    assert found.looked["video"].cells == (8, 16, 16)
    assert found.looked["audio"].cells == (16, 16)


def test_the_default_layer_still_has_space_and_time() -> None:
    for side, layer, cells in ((64, "conv1", (4, 4, 4)), (32, "patches", (4, 4, 4))):
        x = films(1, 4, 3, side, side)
        looked = find(alone(SmallVideo(width=8)), Batch(torch.arange(1), {"video": x})).looked
        assert (looked["video"].layer, looked["video"].cells) == (layer, cells)


def test_a_supervised_score_is_explained_by_name() -> None:
    model = toy_model(supervised_small, modalities=("audio",))
    batch = toy_batch(model, [0, 1])
    found = find(model, batch, target="sounding")
    np.testing.assert_allclose(
        found.value, model.method.scores(batch)["sounding"].detach(), atol=1e-6
    )
    assert set(found.looked) == {"audio"}
    with pytest.raises(UsageError, match=r"no target 'loud'; there are best, sounding"):
        find(model, batch, target="loud")
    with pytest.raises(UsageError, match=r"no video; there are no pairs"):
        find(model, batch, target="AV")


def test_layers_and_towers_that_are_not_there_are_refused() -> None:
    model = toy_model()
    with pytest.raises(UsageError, match=r"no layer 'conv9': there are patches, conv1, conv2 in"):
        find(model, toy_batch(model, [0]), at={"video": "conv9"})
    with pytest.raises(UsageError, match=r"no layer 'conv1': video has no part in what is asked"):
        explain(model, toy_clips(4), Toy(), "c0", target="AL", at={"video": "conv1"})

    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float().mean((1, 2, 3, 4))[:, None]

    with pytest.raises(UsageError, match=r"no tower here has maps or attention .*Blind"):
        find(alone(Blind()), Batch(torch.arange(1), {"video": films(1, 2, 3, 8, 8)}))
    sformer = TimeSformer(frames=2, size=16, patch=8, **OURS)
    batch = Batch(torch.arange(1), {"video": films(1, 2, 3, 16, 16)})
    with pytest.raises(UsageError, match=r"attention is rolled out through all of them"):
        find(alone(sformer), batch, at={"video": "conv1"})


class Partly(Toy):
    """Of clip 1 there is no sound, of clip 2 no picture."""

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        media = super().read(row, frames=frames, film=film)
        if row == 1:
            return Media(media.frames, media.frame_times, None, None, media.rate)
        return Media(None, None, media.samples, 0.0, media.rate) if row == 2 else media


def test_a_clip_that_lacks_what_is_asked_of_it_is_refused() -> None:
    model, clips = toy_model(), toy_clips(4)
    with pytest.raises(SonantError, match=r"clip 'c1' has no sound, and what .* audio, video"):
        explain(model, clips, Partly(), "c1")
    with pytest.raises(SonantError, match=r"clip 'c2' has no pictures, and AV is"):
        explain(model, clips, Partly(), "c2", target="AV")
    heard = explain(model, clips, Partly(), "c2", target="AL")
    assert set(heard.heats) == {"audio"}
    with pytest.raises(UsageError, match=r"no clip 'c 3' there; the nearest are 'c3'"):
        explain(model, clips, Partly(), "c 3")
    with pytest.raises(UsageError, match=r"quarantine: damaged"):
        explain(model, clips.quarantined({"c0": "damaged"}), Partly(), "c0")


@pytest.mark.slow
def test_pictures_are_written_and_alike_each_time(tmp_path: Path) -> None:
    model, clips = toy_model(), toy_clips(4)
    whole = explain(model, clips, Toy(), "c0")
    assert whole.told().splitlines()[0].startswith("c0: AV ")
    sheets = [write_sheet(whole, tmp_path / f"{name}.png", run="toy") for name in "ab"]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    with Image.open(sheets[0]) as sheet:
        assert sheet.size[0] > 1000
    media = Toy().read(0, frames=5)
    films = [write_film(whole, media, model.views, tmp_path / f"{name}.mp4") for name in "ab"]
    assert films[0].read_bytes() == films[1].read_bytes()
    with av.open(str(films[0])) as container:
        assert [s.codec_context.name for s in container.streams] == ["h264", "aac"]
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 5
    assert shown[0].shape[0] > shown[0].shape[1] * 0.9
    with pytest.raises(SonantError, match="no pictures to make a film of"):
        write_film(whole, Partly().read(2, frames=5), model.views, tmp_path / "c.mp4")


def test_heat_is_drawn_where_it_is() -> None:
    heat = np.zeros((1, 8, 8))
    heat[0, 2, 5] = 1
    shown = blended(np.full((1, 8, 8, 3), 90, np.uint8), heat).astype(int)
    changed = np.argwhere((shown != 90).any(-1))
    assert changed.tolist() == [[0, 2, 5]]


def colourful(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How far pictures [..., 3] are from grey, where heat is."""
    return np.ptp(pictures[..., :3].astype(int), axis=-1)


def hot_spots() -> dict[Any, Heat]:
    """Sight sees frames 4 to 7 of twelve, hot in the second above and right of the middle; sound is
    heard from .5 to 1 s, and hot at .8 s and high."""
    values, heard = np.zeros((4, 32, 32), np.float32), np.zeros((50, 128), np.float32)
    values[1, 4:10, 20:26], heard[29:32, 100:110] = 1, 1
    return {
        "video": Heat(
            values, (np.arange(4) + 4.5) / 8, None, np.full((4, 32, 32, 3), 120), "v", (4, 4), 1.0
        ),
        "audio": Heat(
            heard,
            0.505 + np.arange(50) / 100,
            mel_centres(0, 12_000, 256)[:128],
            np.tile(np.linspace(1, 2, 128), (50, 1)),
            "a",
            (4, 4),
            1.0,
        ),
    }


def test_a_films_heat_is_at_its_second_place_and_pitch(tmp_path: Path) -> None:
    media = Media(
        np.full((12, 64, 96, 3), 120, np.uint8),
        (np.arange(12) + 0.5) / 8,
        np.zeros(24_000, np.float32),
        0.0,
        16_000,
    )
    whole = Explanation("c", "", "AV", 0.5, hot_spots())
    views = replace(toy_model(jitter=0).views, frames=12, film=4)
    path = write_film(whole, media, views, tmp_path / "c.mp4")
    with av.open(str(path)) as container:
        film = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    pictures, strip = film[:, : -pictures_of_explain.STRIP], film[:, -pictures_of_explain.STRIP :]
    hot = colourful(pictures)
    frame, row, column = np.unravel_index(hot.argmax(), hot.shape)
    assert frame == 5
    assert row / 336 == pytest.approx(7 / 32, abs=0.1)
    assert (column - 84) / 336 == pytest.approx(23 / 32, abs=0.1)
    seen = pictures[:, 200:300, 100:200].mean((1, 2, 3))
    np.testing.assert_allclose(seen, [54] * 4 + [120] * 4 + [54] * 4, atol=4)
    for unseen in (*range(4), *range(8, 12)):
        assert hot[unseen].max() < 20
    all_seen = write_film(whole, media, replace(views, film=0), tmp_path / "all.mp4")
    with av.open(str(all_seen)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert first[200:300, 100:200].mean() == pytest.approx(120, abs=4)

    # The line is elsewhere in the first frame, and no colour.
    heat = colourful(strip[0])
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert column / strip.shape[2] * 1.5 == pytest.approx(0.81, abs=0.03)
    assert row == pytest.approx((127 - 104.5) / 128 * pictures_of_explain.STRIP, abs=6)
    light = strip[0].mean((0, 2))
    seconds = (np.arange(strip.shape[2]) + 0.5) / strip.shape[2] * 1.5
    assert light[(seconds > 0.53) & (seconds < 0.97)].min() > 80
    assert light[(seconds > 0.1) & (seconds < 0.47)].max() < 10
    assert light[seconds > 1.03].max() < 10


def test_a_sheets_heat_is_at_its_second_place_and_pitch() -> None:
    heats = hot_spots()
    part = Figure().subfigures(1, 1)
    pictures_of_explain._frames(part, heats["video"])
    below = [axes.get_images()[0].get_array() for axes in part.axes[4:8]]
    assert [int(colourful(picture).max() > 50) for picture in below] == [0, 1, 0, 0]
    hottest = np.argwhere(colourful(below[1]) > 50)
    assert (hottest.min(0).tolist(), hottest.max(0).tolist()) == ([4, 20], [9, 25])
    assert [axes.get_xlabel()[:6] for axes in part.axes[4:8]] == [
        "0.56 s",
        "0.69 s",
        "0.81 s",
        "0.94 s",
    ]

    part = Figure().subfigures(1, 1)
    pictures_of_explain._spectrogram(part, heats["audio"], None)
    axes = part.axes[0]
    (image,) = axes.get_images()
    found = np.argwhere(colourful(image.get_array()) > 50)
    assert (found.min(0).tolist(), found.max(0).tolist()) == ([100, 29], [109, 31])
    assert axes.get_ylim()[0] < axes.get_ylim()[1], "low sounds are below"
    np.testing.assert_allclose(image.get_extent(), (0.5, 1.0, -0.5, 127.5))
    marks = [label.get_text() for label in axes.get_yticklabels()]
    assert marks == ["250 Hz", "500 Hz", "1000 Hz", "2000 Hz"]
    hertz = heats["audio"].hertz
    assert hertz is not None
    assert hertz[round(axes.get_yticks()[2])] == pytest.approx(1000, rel=0.02)


def test_no_pitch_is_marked_below_what_is_heard() -> None:
    heat = replace(hot_spots()["audio"], hertz=mel_centres(0, 12_000, 256)[72:200])
    part = Figure().subfigures(1, 1)
    pictures_of_explain._spectrogram(part, heat, None)
    assert [label.get_text() for label in part.axes[0].get_yticklabels()] == [
        "1000 Hz",
        "2000 Hz",
        "4000 Hz",
    ]


# --------------------------------------------------------------------------------- the measurement


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_the_pointing_game(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    heat, mask = rng.random((3, 9, 7)), rng.random((3, 9, 7)) < 0.1
    t, i, j = np.unravel_index(heat.argmax(), heat.shape)
    near = mask[t, max(0, i - reach) : i + reach + 1, max(0, j - reach) : j + reach + 1]
    assert pointing(heat, mask, (0, reach, reach)) == float(near.any())
    flat = np.full(heat.shape, 0.3)
    assert pointing(flat, mask, (0, 0, 0)) == pytest.approx(mask.mean())
    assert iou(flat, mask) == pytest.approx(mask.mean())
    hot = heat >= 0.5 * heat.max()
    assert iou(heat, mask) == pytest.approx((hot & mask).sum() / (hot | mask).sum())
    if mask.any():
        assert iou(mask.astype(float), mask) == 1
        assert pointing(mask.astype(float), mask, (0, 0, 0)) == 1


def test_what_a_model_gains_on_random_weights_is_counted_frame_by_frame() -> None:
    mask = np.zeros((3, 20, 20), bool)
    mask[0, 5:8, 5:8] = True
    right, late = np.zeros(mask.shape), np.zeros(mask.shape)
    right[0, 6, 6], late[1, 6, 6] = 1, 1
    heats = {MODEL: [right, right], RANDOM: [late, right]}
    found = _answer("pixels", [mask, mask], heats, np.array(["a.mp4", "b.mp4"]), 0)
    points = {name: row.pointing.value for name, row in found.rows.items()}
    assert (points[MODEL], points[RANDOM]) == (1.0, 0.5)
    assert points["where it is in other clips"] == 1.0
    assert found.gain.pointing.value == 0.5
    assert found.gain.iou.value == pytest.approx((1 / 9 + 1 / 9) / 2 - (0 + 1 / 9) / 2)
    assert (found.clips, found.area) == (2, pytest.approx(9 / 1200))


def test_cells_are_those_that_the_views_hear() -> None:
    arguments = {"planes": 4, "frames": 2, "frame_rate": 20 / 3, "size": 32, "jitter": 2}
    arguments |= {"mel": 32, "mel_crop": 20, "seconds": SECONDS, "joint": 8, "batch": 8}
    views = make(avcl, TOKENIZER, arguments).views
    samples = Toy().read(0, frames=0).samples
    assert samples is not None
    cells = _mel(views)(samples, RATE)
    np.testing.assert_array_equal(cells, views.heard(views.audio(samples, RATE)))
    assert cells.shape == (20, 20)


def test_maps_and_masks_that_do_not_fit_are_refused() -> None:
    heat, mask = np.ones((2, 3)), np.ones((2, 3), bool)
    with pytest.raises(UsageError, match=r"\[2, 3\] has no mask of \[2, 2\]"):
        iou(heat, mask[:, :2])
    with pytest.raises(UsageError, match="as many reaches"):
        pointing(heat, mask, (1,))
    with pytest.raises(UsageError, match="threshold must be above 0"):
        iou(heat, mask, 0.0)


def test_pixels_outside_the_mask_are_the_same_without_the_action() -> None:
    plot = story(WORLD_SEED, 0)
    row = next(row for row, moment in enumerate(plot.moments) if moment.seen)
    times = np.round((plot.moments[row].happened + np.array([-1.0, -0.4, 0.0, 0.5])) * 12) / 12
    own, moving = own_pixels(plot, row, times)
    without = [
        replace(moment, seen=False, decoy=None) if number == row else moment
        for number, moment in enumerate(plot.moments)
    ]
    bare = replace(plot, moments=tuple(without))
    differs = [
        (one != other).any(-1)
        for one, other in zip(frames(plot, times), frames(bare, times), strict=True)
    ]
    assert np.array_equal(own, differs)
    assert own.any()
    assert moving.any()
    assert (moving & ~own).mean() < own.mean()
    assert not np.any(own_pixels(bare, row, times))
    assert not own_pixels(plot, row, times + 2.6)[0].any(), "then another action is on"


@pytest.mark.slow
def test_mel_cells_of_an_action_are_those_that_truth_counts(tmp_path: Path) -> None:
    told = {"name": laws.NAME, "seed": WORLD_SEED, "sync": True, "videos": 1}
    (tmp_path / "world.json").write_text(json.dumps(told))
    masks, plot = Masks(tmp_path), story(WORLD_SEED, 0)
    for truth in truths(plot, soundtrack(plot), "v")[:6]:
        start = truth.time - laws.BEFORE
        cells = masks.cells("videos/00000.mp4", start, truth.time + laws.AFTER, log_mel)
        assert cells.mean() == pytest.approx(truth.cells)
    with pytest.raises(UsageError, match=r"no narrated clip .* begins at 0.000 s"):
        masks.pixels("videos/00000.mp4", 0.0, np.zeros(1))
    with pytest.raises(UsageError, match="none of the 1 videos"):
        masks.pixels("videos/00001.mp4", 0.0, np.zeros(1))
    (tmp_path / "world.json").write_text(json.dumps(told | {"name": "world-2"}))
    with pytest.raises(UsageError, match="only the laws of 'world-1'"):
        Masks(tmp_path)
    with pytest.raises(UsageError, match="does not describe a world"):
        Masks(tmp_path / "nowhere")


# --------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A world of two short videos, packed, and a run that was trained on toys."""
    out = tmp_path_factory.mktemp("explain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laws, "NARRATIONS", (5, 8))
        world(out / "world", videos=2, seed=WORLD_SEED, workers=1)
        for line in (
            f"index world {out}/world --out {out}/clips.parquet --workers 1",
            f"pack {out}/clips.parquet {out}/pack --workers 1",
        ):
            assert main(line.split()) == 0
        clips = Clips.read(out / "pack" / "clips.parquet")
        arguments = {"frames": 4, "size": 32, "jitter": 2, "batch": 4}
        arguments |= {"align_epochs": 2, "refine_epochs": 0}
        train(mc3_small, arguments, clips, out / "run", media=Toy(), workers=0)
        yield out


@pytest.mark.slow
def test_the_command_draws_and_measures(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = Clips.read(done / "pack" / "clips.parquet")
    id = clips[0].id
    words = ["explain", str(done / "run"), id, "--pack", f"{done}/pack", "--out", f"{done}/out"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{id}: AV " in said
    assert "looked" in said
    assert "listened" in said
    assert sorted(path.suffix for path in (done / "out").iterdir()) == [".mp4", ".png"]
    kept = {path: path.read_bytes() for path in (done / "out").iterdir()}
    assert main(words) == 0
    assert {path: path.read_bytes() for path in (done / "out").iterdir()} == kept
    measuring = ["explain", str(done / "run"), "--pack", f"{done}/pack", "--out", f"{done}/m"]
    measuring += ["--world", f"{done}/world", "--split", "all"]
    assert main(measuring) == 0
    found = json.loads((done / "m" / "measure.json").read_text())
    assert set(found["answers"]) == {"movement", "pixels", "sound"}
    for answer in found["answers"].values():
        rows = answer["rows"]
        assert rows["chance"]["iou"]["value"] == pytest.approx(answer["area"])
        model, random = (rows[name]["iou"]["value"] for name in (MODEL, RANDOM))
        assert answer["gain"]["iou"]["value"] == pytest.approx(model - random)
        assert model != random
    assert main(measuring) == 0
    assert json.loads((done / "m" / "measure.json").read_text()) == found
    sounding = clips.column("sounding").tolist().index(True)
    measuring = measuring[: measuring.index("--split")]  # which draws, and here one is named
    assert main([*measuring, "--out", f"{done}/one", clips[sounding].id]) == 0
    alone = json.loads((done / "one" / "measure.json").read_text())
    assert alone["answers"]["sound"]["rows"]["model"]["iou"]["low"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "name clips to explain by their ids, or measure"),
        ("nothing", "no clip 'nothing' there; the nearest are 'videos/"),
        (
            "ID --audio-layer conv7",
            "no layer 'conv7': there are stem, conv1, conv2 in the audio tower",
        ),
        ("ID --target verb", "no target 'verb'; there are AV, AL, VL"),
        ("--world POOR --split all", "world.json: does not describe a world that was written"),
        ("--world WORLD --split nowhere", "no clip in the split 'nowhere' sounds"),
    ],
)
def test_wrong_use_is_told(
    done: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    id = Clips.read(done / "pack" / "clips.parquet")[0].id
    words = line.replace("ID", id).replace("WORLD", f"{done}/world").replace("POOR", f"{done}")
    out = ["--pack", f"{done}/pack", "--out", f"{done}/none"]
    assert main(["explain", f"{done}/run", *words.split(), *out]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (done / "none").exists()

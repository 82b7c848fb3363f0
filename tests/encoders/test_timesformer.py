import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from published import OURS, SIZES, as_published, scattered, tower_of_egovlp
from sonant.encoders.timesformer import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS_MEAN,
    KINETICS_STD,
    TimeSformer,
    fit_places,
    fit_times,
)
from sonant.encoders.weights import load_timesformer
from sonant.errors import UsageError

TINY = {**OURS, "size": 32, "patch": 8}
VIDEO = torch.randint(0, 256, (2, 3, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(
    torch.uint8
)


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (x / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def test_plain_attention_is_that_of_transformers() -> None:
    from transformers import TimesformerConfig, TimesformerModel

    config = TimesformerConfig(
        **SIZES, intermediate_size=40, image_size=32, patch_size=8, num_frames=3
    )
    theirs = scattered(TimesformerModel(config))
    ours = TimeSformer(
        attention="plain", frames=3, mean=KINETICS_MEAN, std=KINETICS_STD, **TINY
    ).eval()
    load_timesformer(ours, theirs.state_dict())
    pixels = normalised(VIDEO, KINETICS_MEAN, KINETICS_STD)
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state[:, 0]
        torch.testing.assert_close(ours(VIDEO), expected, atol=1e-5, rtol=0)


def transcribed(w: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    """Frozen in Time's video tower in loops, from its published weights and normalised pixels."""
    clips = []
    for clip in x:
        patches = F.conv2d(clip, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=8)
        frames, places = len(clip), patches.shape[2] * patches.shape[3]
        tokens = [w["cls_token"][0, 0] + w["pos_embed"][0, 0]]
        for f in range(frames):
            for p in range(places):
                token = patches[f, :, p // patches.shape[3], p % patches.shape[3]]
                tokens.append(token + w["pos_embed"][0, 1 + p] + w["temporal_embed"][0, f])
        h = torch.stack(tokens)
        in_space = [[1 + f * places + p for p in range(places)] for f in range(frames)]
        in_time = [[1 + f * places + p for f in range(frames)] for p in range(places)]
        for n in range(2):
            block = {k.removeprefix(f"blocks.{n}."): v for k, v in w.items() if f"blocks.{n}." in k}
            timed = h + attended(block, "timeattn", norm(block, "norm3", h), in_time, heads)
            h = h + attended(block, "attn", norm(block, "norm1", timed), in_space, heads)
            inner = F.linear(
                norm(block, "norm2", h), block["mlp.fc1.weight"], block["mlp.fc1.bias"]
            )
            h = h + F.linear(F.gelu(inner), block["mlp.fc2.weight"], block["mlp.fc2.bias"])
        clips.append(norm(w, "norm", h)[0])
    return torch.stack(clips)


def norm(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def attended(
    w: dict[str, Tensor], name: str, x: Tensor, lines: list[list[int]], heads: int
) -> Tensor:
    q, k, v = F.linear(x, w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"]).chunk(3, dim=1)
    dim, out = q.shape[1] // heads, torch.zeros_like(q)
    seen = [(0, list(range(len(x))))] + [(i, [0, *line]) for line in lines for i in line]
    for i, others in seen:
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            weights = (k[others, part] @ q[i, part] / dim**0.5).softmax(0)
            out[i, part] = weights @ v[others, part]
    return F.linear(out, w[f"{name}.proj.weight"], w[f"{name}.proj.bias"])


def test_frozen_attention_is_that_of_frozen_in_time() -> None:
    published = tower_of_egovlp(
        width=24, depth=2, hidden=40, frames=4, places=16, patch=8, device="cpu"
    )
    ours = TimeSformer(frames=4, **TINY).eval()
    load_timesformer(ours, published)
    pixels = normalised(VIDEO[:, :3], IMAGENET_MEAN, IMAGENET_STD)
    with torch.no_grad():
        expected = transcribed(published, pixels, heads=3)
        torch.testing.assert_close(ours(VIDEO[:, :3]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["frozen", "plain"])
def test_a_new_model_of_an_image_model_sees_one_frame_as_an_image(attention: str) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        **SIZES, intermediate_size=40, image_size=32, patch_size=8, layer_norm_eps=1e-6
    )
    theirs = scattered(ViTModel(config))
    ours = TimeSformer(attention=attention, frames=4, **TINY).eval()
    report = load_timesformer(ours, as_published(theirs))
    assert "times" in report.fresh
    with torch.no_grad():
        expected = theirs(normalised(VIDEO[:, 0], IMAGENET_MEAN, IMAGENET_STD))
        found = ours(VIDEO[:, :1])
    torch.testing.assert_close(found, expected.last_hidden_state[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["frozen", "plain"])
def test_fewer_frames_take_the_first_places_in_time(attention: str) -> None:
    long = scattered(TimeSformer(attention=attention, frames=5, **TINY))
    short = TimeSformer(attention=attention, frames=2, **TINY).eval()
    short.load_state_dict(long.state_dict() | {"times": long.times[:, :2]})
    torch.testing.assert_close(long(VIDEO[:, :2]), short(VIDEO[:, :2]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["frozen", "plain"])
def test_the_order_of_frames_matters(attention: str) -> None:
    model = scattered(TimeSformer(attention=attention, frames=3, **TINY))
    assert not torch.allclose(model(VIDEO), model(VIDEO.flip(1)), atol=1e-2)


def test_the_full_size_is_that_of_the_published_models() -> None:
    from transformers import TimesformerConfig, TimesformerModel

    def size(model: torch.nn.Module) -> int:
        return sum(x.numel() for x in model.parameters())

    with torch.device("meta"):
        plain = TimeSformer(attention="plain", frames=8)
        frozen = TimeSformer(attention="frozen")
        assert size(plain) == size(TimesformerModel(TimesformerConfig())) == 121_258_752
    published = tower_of_egovlp(
        width=768, depth=12, hidden=3072, frames=16, places=196, patch=16, device="meta"
    )
    image = 85_798_656  # ViT-B/16 without its head
    time = 12 * (4 * 768**2 + 4 * 768 + 2 * 768) + 16 * 768
    assert size(frozen) == sum(x.numel() for x in published.values()) == image + time


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["first", "nearest", "linear"]))
def test_a_temporal_table_is_made_to_fit(there: int, frames: int, how: str) -> None:
    table = torch.arange(1.0, there + 1).reshape(1, there, 1).expand(1, there, 2)
    found = fit_times(table, frames, how)
    assert found.shape == (1, frames, 2)
    row = found[0, :, 0]
    if how == "first":
        assert row.tolist() == [n + 1 if n < there else 0 for n in range(frames)]
    if how == "nearest":
        assert row.tolist() == [1 + n * there // frames for n in range(frames)]
    if how == "linear" and frames > 1:
        expected = [1 + n * (there - 1) / (frames - 1) for n in range(frames)]
        assert row.tolist() == pytest.approx(expected)


def test_a_spatial_table_is_made_to_fit() -> None:
    ramp = torch.arange(6.0).expand(6, 6).reshape(1, 36, 1)
    table = torch.cat([torch.full((1, 1, 1), 7.0), ramp], 1)
    torch.testing.assert_close(fit_places(table, 6), table)
    found = fit_places(table, 12)
    assert found[0, 0] == 7
    rows = found[0, 1:, 0].reshape(12, 12)
    torch.testing.assert_close(rows, rows[:1].expand(12, 12))
    torch.testing.assert_close(
        rows[0, 4:8], torch.tensor([1.75, 2.25, 2.75, 3.25]), atol=0.05, rtol=0
    )
    with pytest.raises(UsageError, match="35 places are not those of a square"):
        fit_places(table[:, :-1], 12)


def test_what_does_not_go_together_is_refused() -> None:
    model = TimeSformer(frames=2, **TINY)
    with pytest.raises(UsageError, match="at most 2 frames of 32 x 32 pixels, not 3 of 32 x 32"):
        model(VIDEO)
    with pytest.raises(UsageError, match="not 1 of 32 x 24"):
        model(VIDEO[:, :1, :, :, :24])
    with pytest.raises(UsageError, match="multiple of the 5 heads, not 24"):
        TimeSformer(**{**TINY, "heads": 5})
    with pytest.raises(UsageError, match="size must be at least 8, not 4"):
        TimeSformer(**{**TINY, "size": 4})
    with pytest.raises(UsageError, match="std must have 3 values"):
        TimeSformer(std=(1.0,), **TINY)

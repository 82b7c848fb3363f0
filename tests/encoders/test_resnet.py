"""XDC's networks over sound against their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from film_networks import Shapes, convolved, norm_shapes, normed, random_state
from sonant.encoders import Encoder
from sonant.encoders.resnet import AudioResNet
from sonant.errors import UsageError

GEOMETRIES = ["vmz", "torchvision"]
geometries = pytest.mark.parametrize("geometry", GEOMETRIES)


def mel(n: int = 2, frames: int = 100, bins: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(n, frames, bins, generator=torch.Generator().manual_seed(seed))


def block_shapes(at: str, i: int, o: int, stride: int) -> Shapes:
    shapes = {f"{at}.conv1.weight": (o, i, 3, 3), f"{at}.conv2.weight": (o, o, 3, 3)}
    shapes |= norm_shapes(f"{at}.bn1", o, counters=True)
    shapes |= norm_shapes(f"{at}.bn2", o, counters=True)
    if stride > 1 or i != o:
        shapes[f"{at}.downsample.0.weight"] = (o, i, 1, 1)
        shapes |= norm_shapes(f"{at}.downsample.1", o, counters=True)
    return shapes


def layout(geometry: str, planes: int = 64) -> dict[str, tuple[int, int, int]]:
    """Channels in and out and stride of every block."""
    p = planes
    blocks = {}
    if geometry == "vmz":
        for k in range(3):
            blocks[f"stem.{k + 1}"] = (p // 2 if k else p // 4, p // 2, 1 if k else 2)
    first = (p // 2, p, 2) if geometry == "vmz" else (p, p, 1)
    for stage in range(4):
        o = p * 2**stage
        blocks[f"layer{stage + 1}.0"] = (o // 2, o, 2) if stage else first
        blocks[f"layer{stage + 1}.1"] = (o, o, 1)
    return blocks


def wanted_shapes(geometry: str, planes: int = 64, classes: int | None = None) -> Shapes:
    if geometry == "vmz":
        shapes: Shapes = {"stem.0.weight": (planes // 4, 1, 3, 3), "stem.0.bias": (planes // 4,)}
    else:
        shapes = {"stem.0.weight": (planes, 1, 7, 7)}
        shapes |= norm_shapes("stem.1", planes, counters=True)
    for at, (i, o, stride) in layout(geometry, planes).items():
        shapes |= block_shapes(at, i, o, stride)
    if classes:
        shapes |= {"fc.weight": (classes, 8 * planes), "fc.bias": (classes,)}
    return shapes


@pytest.mark.parametrize(("geometry", "published"), [("vmz", None), ("torchvision", 11_170_240)])
def test_names_shapes_and_counts(geometry, published):
    network = AudioResNet(geometry)
    found = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    assert found == wanted_shapes(geometry)
    parameters = sum(x.numel() for x in network.parameters())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    weights = {n: s for n, s in wanted_shapes(geometry).items() if not n.endswith(statistics)}
    assert parameters == sum(torch.Size(s).numel() for s in weights.values())
    assert parameters == (published or 11_202_528)


@geometries
@pytest.mark.parametrize(("frames", "bins"), [(100, 40), (37, 24)])
def test_every_map_is_that_of_the_definition(geometry, frames, bins):
    state = random_state(wanted_shapes(geometry, 8, 3), dtype=torch.float64)
    network = AudioResNet(geometry, 3, planes=8, eps=1e-3).double().eval()
    network.load_state_dict(state)
    x = mel(frames=frames, bins=bins).double()
    h = x[:, None]
    if geometry == "vmz":
        h = F.conv2d(h, state["stem.0.weight"], state["stem.0.bias"], padding=1)
    else:
        h = F.conv2d(h, state["stem.0.weight"], stride=2, padding=3)
        h = F.max_pool2d(F.relu(normed(h, state, "stem.1", 1e-3)), 3, 2, 1)
    wanted = {}
    for at, (_, _, stride) in layout(geometry, 8).items():
        out = convolved(h, state[f"{at}.conv1.weight"], stride)
        out = convolved(
            F.relu(normed(out, state, f"{at}.bn1", 1e-3)), state[f"{at}.conv2.weight"], 1
        )
        if f"{at}.downsample.0.weight" in state:
            h = convolved(h, state[f"{at}.downsample.0.weight"], stride)
            h = normed(h, state, f"{at}.downsample.1", 1e-3)
        h = F.relu(normed(out, state, f"{at}.bn2", 1e-3) + h)
        wanted[at] = h
    maps = network.maps(x)
    for name, at in {"conv3": "layer2.1", "conv4": "layer3.1", "conv5": "layer4.1"}.items():
        torch.testing.assert_close(maps[name], wanted[at], atol=1e-9, rtol=1e-9)
    pool = h.flatten(2).max(2).values if geometry == "vmz" else h.flatten(2).mean(2)
    torch.testing.assert_close(maps["pool"], pool, atol=1e-9, rtol=1e-9)
    scores = pool @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(network(x), scores, atol=1e-9, rtol=1e-9)


def test_vmzs_pooling_of_4_by_2_fits_100_by_40():
    network = AudioResNet(planes=8).eval()
    maps = network.maps(mel())
    assert [tuple(maps[f"conv{k}"].shape[2:]) for k in (3, 4, 5)] == [(13, 5), (7, 3), (4, 2)]
    pooled = F.max_pool2d(maps["conv5"], (4, 2), stride=1).flatten(1)
    assert torch.equal(network(mel()), pooled)


@geometries
def test_every_weight_gets_a_gradient_and_the_maps_lie_on_the_way(geometry):
    torch.manual_seed(0)
    network = AudioResNet(geometry, planes=8)
    assert isinstance(network, Encoder)
    maps = network.maps(mel(8))
    score = maps["pool"].pow(2).sum()
    for map_ in maps.values():
        assert torch.autograd.grad(score, map_, retain_graph=True)[0].any()
    score.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@geometries
def test_one_seed_one_network(geometry):
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(AudioResNet(geometry, planes=8)(mel()))
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2])


@pytest.mark.parametrize("frames", [1, 16, 33])
@geometries
def test_sound_of_any_length(geometry, frames):
    network = AudioResNet(geometry, planes=8).eval()
    assert network(mel(frames=frames)).isfinite().all()


@pytest.mark.parametrize("side", [16, 32])
def test_gradients_of_the_last_stage_in_bf16_are_those_of_float32(side):
    """They were garbage on processors where a map shrinks to one point."""
    torch.manual_seed(0)
    stage, x = AudioResNet(planes=8).layer4, torch.randn(8, 32, side // 16, 1)
    found = []
    for bf16 in (False, True):
        stage.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = stage(x)
        (out.float().flatten(1) @ torch.linspace(-1, 1, out[0].numel())).sum().backward()
        found.append([w.grad.flatten() for w in stage.parameters() if w.ndim > 1])
    for exact, rounded in zip(*found, strict=True):
        assert F.cosine_similarity(exact, rounded, 0) > 0.98


def test_norms_take_their_eps_and_momentum():
    network = AudioResNet(planes=8, eps=0.5, momentum=0.25)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.5, 0.25)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AudioResNet(planes=3), "planes must be at least 4"),
        (lambda: AudioResNet(classes=0), "classes must be at least 1"),
        (lambda: AudioResNet(planes=4)(mel()[:, None]), r"not \[2, 1, 100, 40\] of torch.float32"),
        (lambda: AudioResNet(planes=4)(mel()[:, :0]), r"not \[2, 0, 40\]"),
        (lambda: AudioResNet(planes=4)(mel().long()), "torch.int64"),
    ],
)
def test_impossible_sound_and_networks_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()

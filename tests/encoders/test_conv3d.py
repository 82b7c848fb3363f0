"""Networks over films against the published figures, names and arithmetic."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from film_networks import normed, random_state, video_maps, video_shapes
from sonant.encoders import Encoder
from sonant.encoders.conv3d import (
    C3D,
    DEVIATION,
    MEAN,
    FromFrames,
    FromSpectrogram,
    Plan,
    VideoResNet,
    avcl_c3d,
    avcl_r2plus1d,
    avcl_r3d,
    mc3_18,
    r2plus1d_18,
    r2plus1d_34,
    r3d_18,
)
from sonant.errors import UsageError

NARROW: dict[str, Callable[[], VideoResNet | C3D]] = {
    "r2plus1d_18": lambda: r2plus1d_18(planes=8),
    "r2plus1d_18 per conv": lambda: r2plus1d_18("per_conv", planes=8),
    "r3d_18": lambda: r3d_18(planes=8),
    "mc3_18": lambda: mc3_18(planes=8),
    "avcl_c3d": lambda: avcl_c3d(planes=8),
    "avcl_r3d": lambda: avcl_r3d(planes=8),
    "avcl_r2plus1d": lambda: avcl_r2plus1d(planes=8),
}
every = pytest.mark.parametrize("name", NARROW)


def film(n: int = 2, frames: int = 8, side: int = 32, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, frames, side, side, generator=g)


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose weights are never written, and so cost no time."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def parameters(network: nn.Module) -> int:
    return sum(x.numel() for x in network.parameters())


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in network.state_dict().items()}


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (lambda: r2plus1d_18("per_conv", 400), 33_370_839),
        (lambda: r2plus1d_18("per_conv"), 33_165_639),
        (lambda: r2plus1d_18("per_block", 400), 31_505_325),
        (lambda: r3d_18(400), 33_371_472),
        (lambda: mc3_18(400), 11_695_440),
        (avcl_c3d, 27_661_440),
        (avcl_r3d, 14_361_792),
        (avcl_r2plus1d, 14_365_303),
        (lambda: VideoResNet(Plan(kinds=("full",) * 4)), 33_166_272),
    ],
)
def test_parameters_are_as_many_as_published(build, published, blank):
    assert parameters(build()) == published


@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda: r2plus1d_18("per_block", 400), video_shapes("r2plus1d")),
        (lambda: r2plus1d_18("per_conv", 400), video_shapes("r2plus1d", "per_conv")),
        (
            lambda: r2plus1d_34(classes=359),
            video_shapes("r2plus1d", "per_conv", depth=34, classes=359),
        ),
        (lambda: r3d_18(400), video_shapes("r3d")),
        (lambda: mc3_18(400), video_shapes("mc3")),
        (lambda: r2plus1d_18(), video_shapes("r2plus1d", classes=None)),
    ],
)
def test_names_and_shapes_are_the_published_ones(build, wanted, blank):
    assert shapes(build()) == wanted


def test_midplanes_make_the_18_tensors_differ_that_xdc_and_torchvision_differ_in(blank):
    block, conv = shapes(r2plus1d_18("per_block")), shapes(r2plus1d_18("per_conv"))
    differing = {name for name in block if block[name] != conv[name]}
    assert len(differing) == 18
    assert {name.partition(".0.conv2.0.")[0] for name in differing} == {
        "layer2",
        "layer3",
        "layer4",
    }
    middles = [
        (block[f"layer{i}.0.conv2.0.0.weight"][0], conv[f"layer{i}.0.conv2.0.0.weight"][0])
        for i in (2, 3, 4)
    ]
    assert middles == [(230, 288), (460, 576), (921, 1152)]


def test_avcls_factorised_convolutions_have_the_papers_middles(blank):
    network = avcl_r2plus1d()
    middles = {
        name: layer.out_channels
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 1 and name.endswith("0.0")
    }
    assert network.stem[0].out_channels == 83
    assert [middles[f"layer{i}.0.conv{k}.0.0"] for i in (1, 2, 3, 4) for k in (1, 2)] == [
        *(144, 144),
        *(230, 288),
        *(460, 576),
        *(921, 1152),
    ]
    assert [middles[f"layer{i}.0.downsample.0.0"] for i in (2, 3, 4)] == [42, 85, 170]


@pytest.mark.parametrize(
    ("build", "frames", "side", "wanted"),
    [
        (r2plus1d_18, 8, 224, [(4, 56), (2, 28), (1, 14)]),
        (r3d_18, 32, 112, [(16, 28), (8, 14), (4, 7)]),
        (mc3_18, 16, 112, [(16, 28), (16, 14), (16, 7)]),
        (avcl_c3d, 16, 112, [(8, 28), (4, 14), (2, 7)]),
        (avcl_r3d, 16, 112, [(8, 28), (4, 14), (2, 7)]),
        (avcl_r2plus1d, 1, 256, [(1, 64), (1, 32), (1, 16)]),
    ],
)
def test_maps_have_the_published_sizes(build, frames, side, wanted):
    maps = build(planes=2).eval().maps(film(1, frames, side))
    channels = (8, 16, 16) if build is avcl_c3d else (4, 8, 16)
    assert {name: tuple(x.shape[1:]) for name, x in maps.items()} == {
        f"conv{stage}": (planes, time, pixels, pixels)
        for stage, planes, (time, pixels) in zip((3, 4, 5), channels, wanted, strict=True)
    } | {"pool": (16,)}


@pytest.mark.parametrize(
    ("kind", "midplanes", "build"),
    [
        ("r2plus1d", "per_block", lambda: r2plus1d_18(classes=5, planes=8, eps=1e-5)),
        ("r2plus1d", "per_conv", lambda: r2plus1d_18("per_conv", 5, planes=8, eps=1e-3)),
        ("r3d", "", lambda: r3d_18(5, planes=8, eps=0.1)),
        ("mc3", "", lambda: mc3_18(5, planes=8)),
    ],
)
@pytest.mark.parametrize("frames", [1, 11])
def test_every_map_is_that_of_the_published_arithmetic(kind, midplanes, build, frames):
    state = random_state(video_shapes(kind, midplanes, planes=8, classes=5), dtype=torch.float64)
    network = build().double().eval()
    network.load_state_dict(state)
    x = film(frames=frames, side=28).double()
    maps, wanted = network.maps(x), video_maps(x, state, eps=network.plan.eps)
    for ours, theirs in {"conv3": "layer2", "conv4": "layer3", "conv5": "layer4"}.items():
        torch.testing.assert_close(maps[ours], wanted[theirs], atol=1e-9, rtol=1e-9)
    scores = wanted["mean"] @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(network(x), scores, atol=1e-9, rtol=1e-9)


def test_c3d_is_eight_convolutions_and_four_poolings():
    network = avcl_c3d(planes=8).double().eval()
    state = random_state(shapes(network), dtype=torch.float64)
    network.load_state_dict(state)
    h = x = film(frames=16, side=32).double()
    wanted = {}
    for stage, convolutions in enumerate([1, 1, 2, 2, 2], 1):
        if stage > 1:
            h = F.max_pool3d(h, (1, 2, 2) if stage == 2 else (2, 2, 2))
        for k in range(convolutions):
            at = f"conv{stage}.{3 * k}"
            h = F.conv3d(h, state[f"{at}.weight"], state[f"{at}.bias"], padding=1)
            h = F.relu(normed(h, state, f"conv{stage}.{3 * k + 1}", 1e-5))
        wanted[f"conv{stage}"] = h
    maps = network.maps(x)
    for name in ("conv3", "conv4", "conv5"):
        torch.testing.assert_close(maps[name], wanted[name], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(network(x), h.mean((2, 3, 4)), atol=1e-9, rtol=1e-9)


@every
def test_every_weight_gets_a_gradient_and_the_maps_lie_on_the_way(name):
    torch.manual_seed(0)
    network = NARROW[name]()
    assert isinstance(network, Encoder)
    maps = network.maps(film(4))
    assert maps["pool"].shape == (4, network.width)
    score = maps["pool"][:, :5].pow(2).sum()
    for map_ in maps.values():
        assert torch.autograd.grad(score, map_, retain_graph=True)[0].any()
    score.backward()
    for weight, parameter in network.named_parameters():
        assert parameter.grad is not None, weight
        assert parameter.grad.isfinite().all(), weight


@every
def test_one_seed_one_network(name):
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(NARROW[name]()(film()))
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2])


@every
def test_the_order_of_frames_matters(name):
    torch.manual_seed(0)
    network, x = NARROW[name]().eval(), film()
    assert not torch.allclose(network(x), network(x.flip(2)), atol=1e-3)


@pytest.mark.parametrize("frames", [8, 16])
@pytest.mark.parametrize("name", ["r2plus1d_18", "avcl_r3d", "avcl_c3d"])
def test_gradients_in_bf16_are_those_of_float32(name, frames):
    """They were garbage on processors where a stage sees two steps of time."""
    torch.manual_seed(0)
    network, x = NARROW[name](), film(4, frames)
    found = []
    for bf16 in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(x)
        (out.float() @ torch.linspace(-1, 1, network.width)).sum().backward()
        found.append([w.grad.flatten() for w in network.parameters() if w.ndim > 1])
    for exact, rounded in zip(*found, strict=True):
        assert F.cosine_similarity(exact, rounded, 0) > 0.98


def test_norms_take_their_eps_and_momentum():
    norms = [
        layer
        for layer in r2plus1d_18(planes=8, eps=1e-3, momentum=0.9).modules()
        if isinstance(layer, nn.BatchNorm3d)
    ]
    assert len(norms) == 37
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.9)}


def test_frames_are_normalised_as_the_released_weights_want_them():
    network = FromFrames(r3d_18(planes=8)).eval()
    frames = torch.randint(0, 256, (2, 4, 3, 24, 40), dtype=torch.uint8)
    films = network.films(frames)
    assert films.shape == (2, 3, 4, 24, 40)
    for colour in range(3):
        wanted = (frames[:, :, colour].double() / 255 - MEAN[colour]) / DEVIATION[colour]
        torch.testing.assert_close(films[:, colour].double(), wanted, atol=1e-5, rtol=0)
    assert torch.equal(network(frames), network.network(films))
    assert torch.equal(network.maps(frames)["conv4"], network.network.maps(films)["conv4"])
    plain = FromFrames(r3d_18(planes=8), mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))
    torch.testing.assert_close(plain.films(frames)[:, 1], frames[:, :, 1] / 255)
    assert network.state_dict().keys() == {f"network.{k}" for k in r3d_18(planes=8).state_dict()}


@pytest.mark.parametrize(("name", "frames"), [("avcl_r3d", 1), ("avcl_r3d", 16), ("avcl_c3d", 16)])
def test_a_spectrogram_enters_as_a_film_that_stands_still(name, frames):
    network = FromSpectrogram(NARROW[name](), frames=frames).eval()
    mel = torch.randn(2, 48, 32)
    films = network.films(mel)
    assert films.shape == (2, 3, frames, 48, 32)
    assert (films == mel[:, None, None]).all()
    maps = network.maps(mel)
    assert maps["conv3"].shape[3] * 4 == 48
    assert torch.equal(network(mel), maps["pool"])
    assert network(mel).shape == (2, network.width)


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("r3d_18", film()[:, :2], r"\[n, 3, time, height, width\], not \[2, 2, 8, 32, 32\]"),
        ("r3d_18", film()[0], r"not \[3, 8, 32, 32\]"),
        ("avcl_r3d", film().transpose(1, 2), r"not \[2, 8, 3, 32, 32\]"),
        ("r2plus1d_18", film().to(torch.uint8), "not torch.uint8; FromFrames makes them"),
        ("mc3_18", film()[:, :, :0], "1 frames or more, not 0"),
        ("avcl_c3d", film(frames=7), "8 frames or more, not 7"),
        ("avcl_c3d", film(side=15), "16 pixels a side or more, not 15 x 15"),
    ],
)
def test_what_is_no_film_is_refused(name, x, message):
    with pytest.raises(UsageError, match=message):
        NARROW[name]()(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: r3d_18(0), "classes must be at least 1, not 0"),
        (lambda: mc3_18(planes=1), "planes must be at least 2"),
        (lambda: r3d_18(eps=0.0), "eps must be above 0"),
        (lambda: FromSpectrogram(r3d_18(planes=2), frames=0), "frames must be at least 1"),
        (
            lambda: FromFrames(r3d_18(planes=2), deviation=(1.0, 0.0, 1.0)),
            "deviation must be above 0",
        ),
        (lambda: FromFrames(r3d_18(planes=2))(film()), "in 0 to 255 .uint8., not .* torch.float32"),
        (lambda: FromSpectrogram(r3d_18(planes=2))(film()), r"must be \[n, time, bins\]"),
        (lambda: FromSpectrogram(avcl_c3d(planes=2))(torch.zeros(1, 64, 64)), "8 frames or more"),
    ],
)
def test_impossible_networks_are_refused(build, message):
    with pytest.raises(UsageError, match=message):
        build()

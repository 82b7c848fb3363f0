"""AVCL: the paper's equations, its towers, and what is left undefined there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonant.checkpoint import load_towers, make, save_weights
from sonant.embed import load
from sonant.errors import UsageError
from sonant.media.audio import avcl as mel_of
from sonant.media.audio import resample, stretch
from sonant.media.text import train_tokenizer
from sonant.methods.avcl import AVCL, Fusion, avcl, avcl_small
from sonant.methods.classify import classify
from sonant.methods.films import Films, SharedBatchNorm3d, SoundPicture, over_ranks
from sonant.objectives import cross_correlation, nt_xent
from sonant.train import train
from sonant.types import Batch, Stage
from toy import TINY, Toy, toy_clips

STAGE = Stage("pretrain", 1)
A = torch.tensor([[1, 2, -1], [0.5, -1, 2], [3, 0, 1], [-1, -2, 0.5]]).double()
B = torch.tensor([[1.1, 1.9, -0.8], [0.4, -1.2, 2.2], [2.5, 0.3, 1.4], [-0.7, -2.2, 0.1]]).double()
NARROW = {"planes": 2, "frames": 2, "frame_rate": 20.0, "size": 16, "jitter": 0, "seconds": 0.3}
NARROW |= {"mel": 16, "mel_crop": 16}
quick = settings(deadline=None, max_examples=20)


def rows(v: Tensor, a: Tensor) -> Batch:
    return Batch(torch.arange(len(v)), {"video": v, "audio": a})


def method(fusion: Fusion | None = None, **more: object) -> AVCL:
    """On towers that hand through what they are given."""
    towers: dict = {"video": nn.Identity(), "audio": nn.Identity()}
    numbers = {
        "temperature": 0.1,
        "off_diagonal": 0.005,
        "correlation_weight": 0.9,
        "contrast_weight": 0.1,
    }
    return AVCL(towers, (STAGE,), fusion=fusion, **(numbers | more)).double()  # type: ignore[arg-type]


def narrow(**more: object) -> AVCL:
    made = make(avcl, train_tokenizer(["cut"]), NARROW | {"joint": 8} | more).method
    assert isinstance(made, AVCL)
    return made


def films(n: int = 5) -> Batch:
    random = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (n, 2, 3, 16, 16), dtype=torch.uint8, generator=random)
    return rows(frames, torch.randn(n, 16, 16, generator=random))


def fused_by_hand(fusion: Fusion, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. 1 to 4 for one clip after the other."""
    gates = []
    for one, other in zip(v, a, strict=True):
        z = fusion.squeeze.weight @ torch.cat([one, other]) + fusion.squeeze.bias
        e = fusion.excite.weight @ z + fusion.excite.bias
        gates.append(e * (e > 0))
    gate = torch.stack(gates)
    return gate * v, gate * a


def loss_by_hand(v: Tensor, a: Tensor, τ: float, λ: float, cor: float, self_: float) -> float:
    """Eqs. 5 to 11, an entry at a time."""
    n, width = v.shape

    def h(x: Tensor, y: Tensor) -> float:
        return math.exp(float(x @ y / (x.norm() * y.norm())) / τ)

    contrast, (v, a) = 0.0, (v.detach(), a.detach())
    for x, y in ((v, a), (a, v)):
        for i in range(n):
            across = sum(h(x[i], y[j]) for j in range(n))
            within = sum(h(x[i], x[j]) for j in range(n) if j != i)
            contrast -= math.log(h(x[i], y[i]) / (across + within))
    correlation = 0.0
    for i in range(width):
        for j in range(width):
            c = float(v[:, i] @ a[:, j] / (v[:, i].norm() * a[:, j].norm()))
            correlation += (1 - c) ** 2 if i == j else λ * c**2
    return cor * correlation + self_ * contrast


@quick
@given(st.integers(2, 5), st.integers(0, 10_000), st.booleans())
def test_the_terms_are_the_equations(n: int, seed: int, gated: bool) -> None:
    torch.manual_seed(seed)
    v, a = torch.randn(2, n, 3).double()
    fusion = Fusion(3, 4).double() if gated else None
    if fusion is not None:
        nn.init.constant_(fusion.excite.bias, 1.0)
    terms = method(fusion, temperature=0.3)(rows(v, a), STAGE)
    f_v, f_a = (v, a) if fusion is None else fused_by_hand(fusion, v, a)
    if min(f_v.norm(dim=0).min(), f_v.norm(dim=1).min()) == 0:
        return
    wanted = loss_by_hand(f_v, f_a, 0.3, 0.005, 0.9, 0.1)
    assert float(sum(terms.values()).detach()) == pytest.approx(wanted, rel=1e-9)


def test_the_terms_are_the_recorded_figures() -> None:
    terms = method()(rows(A, B), STAGE)
    assert float(terms["correlation"]) == pytest.approx(0.9 * 0.00707812, abs=1e-7)
    assert float(terms["contrast"]) == pytest.approx(0.1 * 0.12259037, abs=3e-7)
    warmer = method(temperature=0.5)(rows(A, B), STAGE)
    assert float(warmer["contrast"]) == pytest.approx(0.1 * 5.85175037, abs=3e-7)
    alike = torch.ones(4, 3).double()
    collapsed = method(contrast_weight=1 / 8)(rows(alike, alike), STAGE)
    assert float(collapsed["contrast"]) == pytest.approx(math.log(7))


def test_selfcl_is_2n_times_nt_xent_with_the_modalities_as_views() -> None:
    torch.manual_seed(0)
    fusion, (v, a) = Fusion(6, 5).double(), torch.randn(2, 7, 6).double()
    found = method(fusion, contrast_weight=1.0)(rows(v, a), STAGE)["contrast"]
    torch.testing.assert_close(found, 2 * 7 * nt_xent(list(fusion(v, a)), 0.1))


def test_a_shared_gate_gives_the_clip_away() -> None:
    """Sight and sound that have nothing in common, told apart by a gate that learned nothing."""
    torch.manual_seed(0)
    v, a = 1 + 0.3 * torch.randn(2, 64, 64)
    fusion = Fusion(64, 64)
    with torch.no_grad():
        for layer in (fusion.squeeze, fusion.excite):
            layer.weight.normal_()
        fusion.excite.bias -= fusion.excite(fusion.squeeze(torch.cat([v, a], 1))).mean(0)
        chance = math.log(2 * 64 - 1)
        assert float(nt_xent([v, a], 0.07)) == pytest.approx(chance, rel=0.02)
        assert float(nt_xent(list(fusion(v, a)), 0.07)) < 0.1 * chance


@pytest.mark.parametrize(("joint", "wanted"), [(256, 393_984), (512, 787_456), (1024, 1_574_400)])
def test_the_gate_has_as_many_weights_as_its_equations(joint: int, wanted: int) -> None:
    assert sum(p.numel() for p in Fusion(512, joint).parameters()) == wanted


@quick
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_closed_gates_and_single_clips_are_defined(n: int, seed: int) -> None:
    """Channels and clips that the gate silences have finite terms, and do not move their gate."""
    torch.manual_seed(seed)
    fusion = Fusion(4, 3).double()
    with torch.no_grad():
        fusion.excite.bias[1] = -100
        if seed % 3 == 0:
            fusion.excite.bias[:] = -100
    v, a = (x.requires_grad_() for x in torch.randn(2, n, 4).double())
    loss = sum(method(fusion)(rows(v, a), STAGE).values())
    loss.backward()
    assert loss.isfinite()
    for x in (v, a):
        assert x.grad.isfinite().all()
    for p in fusion.parameters():
        assert p.grad.isfinite().all()
    assert not fusion.excite.weight.grad[1].any()


def test_a_constant_channel_is_like_any_other() -> None:
    v, a = A.clone(), B.clone()
    v[:, 0] = 2.0
    terms = method()(rows(v, a), STAGE)
    wanted = loss_by_hand(v, a, 0.1, 0.005, 0.9, 0.1)
    assert float(sum(terms.values())) == pytest.approx(wanted)


def test_bf16_is_for_the_towers_alone() -> None:
    torch.manual_seed(0)
    towers: dict = {m: nn.Linear(12, 6) for m in ("video", "audio")}
    fusion = Fusion(6, 4)
    numbers = {"correlation_weight": 0.9, "contrast_weight": 0.1}
    made = AVCL(towers, (STAGE,), fusion=fusion, temperature=0.07, off_diagonal=0.005, **numbers)
    x = torch.randn(2, 16, 12)
    with torch.autocast("cpu", torch.bfloat16):
        v, a = (towers[m](y) for m, y in zip(("video", "audio"), x, strict=True))
        terms = made(rows(*x), STAGE)
    assert v.dtype == torch.bfloat16
    exact = method(fusion, temperature=0.07)(rows(v.double(), a.double()), STAGE)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert float(term.detach()) == pytest.approx(float(exact[name].detach()), rel=1e-5)


@pytest.mark.parametrize("layers", [(), ("pool",), ("conv3",), ("conv4",), ("conv5", "pool")])
def test_alignment_is_of_the_maps_means(layers: tuple[str, ...]) -> None:
    """Table II; at the pool it is of the gated features."""
    made, clips = narrow(layers=layers), films()
    terms = made(clips, STAGE)
    v, a = (made.towers[m].maps(clips.inputs[m]) for m in ("video", "audio"))
    found = torch.tensor(0.0)
    for layer in layers:
        if layer == "pool":
            pair = made.fusion(v["pool"], a["pool"])
        else:
            pair = [x[layer].mean((2, 3, 4)) for x in (v, a)]
        found = found + 0.9 * cross_correlation(*pair, 0.005)
    assert ("correlation" in terms) == bool(layers)
    torch.testing.assert_close(terms.get("correlation", torch.tensor(0.0)), found)


def test_what_a_clip_gives_depends_on_no_other_clip() -> None:
    made, clips = narrow().eval(), films()
    part = Batch(clips.index[2:3], {m: x[2:3] for m, x in clips.inputs.items()})
    with torch.no_grad():
        whole, single = made.features(clips), made.features(part)
        torch.testing.assert_close(single, whole[2:3])
        alone = made.embed(Batch(part.index, {"video": part.inputs["video"]}))
        torch.testing.assert_close(alone["video"], made.embed(clips)["video"][2:3])
        assert whole.shape == (5, 32)
        cosine = F.cosine_similarity(*whole.chunk(2, 1))
        torch.testing.assert_close(made.scores(clips)["fused"], cosine)


def test_each_modality_has_weights_of_its_own_and_of_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = narrow().state_dict(), narrow().state_dict()
    assert torch.get_rng_state().equal(before)
    assert all(other[name].equal(x) for name, x in one.items())
    video, audio = (one[f"towers.{m}.network.layer1.0.conv1.0.weight"] for m in ("video", "audio"))
    assert not video.equal(audio)
    alone = Films(planes=2).towers(train_tokenizer(["cut"]), ["audio"])["audio"].state_dict()
    assert all(one[f"towers.audio.{name}"].equal(x) for name, x in alone.items())


def test_every_backbone_takes_both_modalities() -> None:
    for backbone, more in (
        ("r2plus1d", {}),
        ("c3d", {"frames": 8, "frame_rate": 40.0, "repeats": 8}),
    ):
        made = narrow(backbone=backbone, **more)
        frames = torch.zeros(2, more.get("frames", 2), 3, 16, 16, dtype=torch.uint8)
        terms = made(rows(frames, torch.randn(2, 16, 16)), STAGE)
        assert all(term.isfinite() for term in terms.values())


def test_shared_batch_norm_is_that_of_torch_in_one_process() -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.BatchNorm3d(3, eps=1e-3, momentum=0.2))
    nn.init.uniform_(one[0].weight)
    other = over_ranks(nn.Sequential(nn.BatchNorm3d(3)))
    assert isinstance(other[0], SharedBatchNorm3d)
    other = over_ranks(one.requires_grad_(False))
    x = torch.randn(4, 3, 2, 2, 2)
    plain = nn.BatchNorm3d(3, eps=1e-3, momentum=0.2)
    plain.load_state_dict(other[0].state_dict())
    torch.testing.assert_close(other(x), plain(x))
    torch.testing.assert_close(other.state_dict()["0.running_var"], plain.running_var)


def test_the_sound_is_the_whole_clip_as_a_picture() -> None:
    arguments = {"planes": 2, "mel": 32, "mel_crop": 32, "seconds": 2.0}
    views = make(avcl, train_tokenizer(["cut"]), arguments).views
    assert isinstance(views, SoundPicture)
    wave = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    found = views.audio(wave, 24_000)
    assert found.shape == views.shapes["audio"][1] == (32, 32)
    np.testing.assert_allclose(found, stretch(stretch(mel_of(wave, 24_000), 32).T, 32).T)
    assert views.identities != make(avcl, train_tokenizer(["cut"]), {"planes": 2}).views.identities


def test_training_hears_any_square_of_the_picture_and_evaluation_the_middle() -> None:
    arguments = {"planes": 2, "mel": 8, "mel_crop": 6}
    views = make(avcl, train_tokenizer(["cut"]), arguments).views
    picture = np.arange(64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(views.heard(picture), picture[1:7, 1:7])
    heard = [views.heard(picture, np.random.default_rng(seed)) for seed in range(99)]
    assert {float(square[0, 0]) for square in heard} == {0, 1, 2, 8, 9, 10, 16, 17, 18}
    assert all(square.shape == (6, 6) for square in heard)
    with pytest.raises(UsageError, match="no 112 steps can be heard of 64"):
        make(avcl, train_tokenizer(["cut"]), {"planes": 2, "mel": 64})


def test_impossible_films_are_refused_before_anything_is_read() -> None:
    def refused(said: str, **arguments: object) -> None:
        with pytest.raises(UsageError, match=said):
            make(avcl, train_tokenizer(["cut"]), {"planes": 2} | arguments)

    refused("frames must be at least 1, not -2", frames=-2)
    refused("frame_rate must be finite, not inf", frame_rate=math.inf)
    refused("frames and repeats must be as many", backbone="c3d", repeats=16, frames=4)
    refused("clips of 0.5 s have 12 frames, which hold no film of 16", seconds=0.5)


def test_the_papers_numbers() -> None:
    """Section IV; λ of eq. 5 from Barlow Twins."""
    recipe = make(avcl, train_tokenizer(["cut"]), {"planes": 2})
    v, method = recipe.views, recipe.method
    assert isinstance(v, SoundPicture)
    assert (v.film, v.size, v.kept_size, v.mel, v.crop) == (16, 112, 128, 256, 112)
    assert (v.seconds, v.frames, v.rate) == (10.0, 250, 24_000)
    assert (recipe.learning_rates, recipe.momentum, recipe.batch) == ((1e-3,), 0.9, 16)
    assert (recipe.weight_decay, recipe.clip_norm, recipe.precision) == (5e-4, 1e6, "fp32")
    assert method.stages == (Stage("pretrain", 300),)
    assert isinstance(method, AVCL)
    assert (method.correlation_weight, method.contrast_weight) == (0.9, 0.1)
    assert (method.temperature, method.off_diagonal, method.layers) == (0.07, 0.005, ("pool",))
    assert isinstance(method.fusion, Fusion)
    other = make(avcl, train_tokenizer(["cut"]), {"planes": 2, "precision": "bf16"})
    assert other.precision == "bf16"


def test_a_gate_that_is_not_taken_is_said_to_be_left(tmp_path: Path) -> None:
    save_weights(narrow(), tmp_path / "w.safetensors")
    for fusion, said in ((False, "; left there: fusion"), (True, ", fusion from ")):
        arguments = NARROW | {"classes": ["a", "b"], "fusion": fusion, "joint": 8}
        method = make(classify, train_tokenizer(["cut"]), arguments).method
        assert said in load_towers(method, tmp_path / "w.safetensors")


def test_a_loss_of_nothing_is_refused() -> None:
    for nothing in ({"correlation_weight": 0.0}, {"layers": ()}):
        with pytest.raises(UsageError, match="nothing is learned: neither contrast nor"):
            method(contrast_weight=0.0, **nothing)


def test_the_sound_is_its_middle_or_its_wave() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)

    def heard(sound: str) -> np.ndarray:
        arguments = {"planes": 2, "mel": 32, "mel_crop": 32, "seconds": 2.0, "sound": sound}
        return make(avcl, train_tokenizer(["cut"]), arguments).views.audio(wave, 24_000)

    middle = stretch(mel_of(wave[9_600:38_400], 24_000, hop=0.005), 32)
    np.testing.assert_allclose(heard("middle"), stretch(middle.T, 32).T)
    lines = heard("wave")
    assert lines.shape == (32, 32)
    np.testing.assert_array_equal(lines.ravel(), resample(wave, 24_000, 512))


def test_one_model_sees_and_hears(tmp_path: Path) -> None:
    """In a run from its first step to the loaded model, and into a run with two."""
    one, two = narrow(models=1), narrow()
    counts = [sum(p.numel() for p in made.towers.parameters()) for made in (one, two)]
    assert counts[1] == 2 * counts[0]
    both = zip(one.towers["video"].parameters(), one.towers["audio"].parameters(), strict=True)
    assert all(x is y for x, y in both)
    arguments = NARROW | {"joint": 8, "batch": 8, "epochs": 1, "models": 1}
    train(avcl, arguments, toy_clips(16), tmp_path, media=Toy(), workers=0)
    towers = load(tmp_path).method.towers
    both = zip(towers["video"].parameters(), towers["audio"].parameters(), strict=True)
    assert all(x is y for x, y in both)
    begun = make(avcl, train_tokenizer(["cut"]), arguments | {"models": 2}).method
    load_towers(begun, tmp_path / "pretrain.safetensors")
    both = zip(begun.towers["video"].parameters(), begun.towers["audio"].parameters(), strict=True)
    assert all(x.equal(y) for x, y in both)


def test_one_model_knows_how_sights_and_how_sounds_are_spread() -> None:
    """Evaluation normalises either as training does: mixed statistics would fit neither."""
    towers = narrow(models=1).towers
    torch.manual_seed(0)
    inputs = {
        "video": torch.randint(0, 256, (16, 4, 3, 32, 32), dtype=torch.uint8),
        "audio": 4 * torch.randn(16, 32, 32) - 9,
    }
    with torch.no_grad():
        for _ in range(100):
            learned = {m: towers[m].train()(x) for m, x in inputs.items()}
        for m, x in inputs.items():
            judged = towers[m].eval()(x)
            assert (judged - learned[m]).norm() < 0.05 * learned[m].norm()


@pytest.mark.parametrize("recipe", [avcl, avcl_small])
def test_a_run_trains_and_embeds(recipe: object, tmp_path: object) -> None:
    arguments = (NARROW | {"joint": 8, "batch": 8}) if recipe is avcl else TINY
    arguments = arguments | {"epochs": 1}
    train(recipe, arguments, toy_clips(16), tmp_path, media=Toy(), workers=0)  # type: ignore[arg-type]
    model = load(tmp_path)  # type: ignore[arg-type]
    frames = np.zeros((2, 2, 40, 40, 3), np.uint8)
    found = model.embed(video=frames, audio=np.zeros((2, 7200), np.float32))
    assert all(np.isfinite(x).all() for x in found.values())
    assert set(found) == {"audio", "video"}


def test_errors_say_what_would_be_right() -> None:
    tokenizer = train_tokenizer(["cut"])
    with pytest.raises(UsageError, match="there is none for text"):
        Films(planes=2).towers(tokenizer, ["text"])
    with pytest.raises(UsageError, match="repeats must be as many, such as 16, not 2 and 1"):
        narrow(backbone="c3d")
    with pytest.raises(UsageError, match="once at a layer"):
        narrow(layers=("pool", "pool"))
    with pytest.raises(UsageError, match="no maps to align at conv5"):
        make(avcl_small, tokenizer, TINY | {"layers": ("conv5",)})
    with pytest.raises(UsageError, match="temperature must be above 0"):
        narrow(temperature=0.0)
    with pytest.raises(UsageError, match="audio and video, not audio"):
        AVCL(
            {"audio": nn.Identity()},
            (STAGE,),
            fusion=None,
            temperature=1.0,
            off_diagonal=0.0,
            correlation_weight=1.0,
            contrast_weight=1.0,
        )

"""AVCL's rivals: their losses against loops and recorded figures, and what they carry along."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonant import chunks
from sonant.checkpoint import make
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.siamese import (
    BYOL,
    IIC,
    BarlowTwins,
    MoCo,
    Siamese,
    SimCLR,
    SimSiam,
    barlow_twins_small,
    break_time,
    byol_small,
    iic_small,
    moco_small,
    perceptron,
    simclr_small,
    simsiam_small,
)
from sonant.objectives import cross_correlation, info_nce, key_nce, negative_cosine, nt_xent
from sonant.types import Batch, Stage
from toy import TINY, toy_clips

N = 6
STAGE = Stage("pretrain", 4)
A = torch.tensor([[1, 2, -1], [0.5, -1, 2], [3, 0, 1], [-1, -2, 0.5]]).double()
B = torch.tensor([[1.1, 1.9, -0.8], [0.4, -1.2, 2.2], [2.5, 0.3, 1.4], [-0.7, -2.2, 0.1]]).double()
RECIPES = [simclr_small, moco_small, byol_small, simsiam_small, barlow_twins_small, iic_small]
quick = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 10_000)


def same() -> dict:
    """Towers, heads or predictors that hand through what they are given."""
    return {"video": nn.Identity(), "audio": nn.Identity()}


def linear(ins: int = 5, outs: int = 4) -> dict:
    return {"video": nn.Linear(ins, outs), "audio": nn.Linear(ins, outs)}


def rows(v: Tensor, a: Tensor) -> Batch:
    return Batch(torch.arange(len(v)), {"video": v, "audio": a})


def clips(seed: int = 0, n: int = N) -> Batch:
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=random)
    v, a = torch.randn(2, n, 5, generator=random)
    return Batch(order, {"video": v, "audio": a})


def moco(**more: object) -> MoCo:
    torch.manual_seed(0)
    numbers = {"width": 4, "temperature": 0.1, "momentum": 0.9, "keys": 8} | more
    return MoCo(linear(), (STAGE,), heads=linear(4), **numbers).train()  # type: ignore[arg-type]


def byol(**more: object) -> BYOL:
    torch.manual_seed(0)
    numbers = {"momentum": 0.9} | more
    made = BYOL(linear(), (STAGE,), heads=linear(4), predictors=linear(4), **numbers)  # type: ignore[arg-type]
    return made.train()


def iic(**more: object) -> IIC:
    torch.manual_seed(0)
    numbers = {"width": 4, "temperature": 0.1, "negatives": 9, "momentum": 0.5}
    numbers |= {"broken": "repeat", "bank": 10} | more
    made = IIC(linear(), (STAGE,), heads=linear(4), **numbers)  # type: ignore[arg-type]
    random = F.normalize(torch.randn(3, 10, 4), dim=2)
    made.begin(STAGE, lambda: dict(zip(("video", "audio", "broken"), random, strict=True)))
    return made.train()


def test_the_losses_are_the_recorded_figures() -> None:
    clip = rows(A, B)
    towers = {"towers": same(), "stages": (STAGE,), "heads": same()}
    for temperature, wanted in ((0.07, 0.00196113), (0.1, 0.01532384), (0.5, 0.73146886)):
        found = SimCLR(**towers, temperature=temperature)(clip, STAGE)["contrast"]
        assert float(found) == pytest.approx(wanted, abs=3e-7)
    barlow = BarlowTwins(**towers, off_diagonal=0.005)(clip, STAGE)["correlation"]
    assert float(barlow) == pytest.approx(0.00848, abs=1e-5)
    simsiam = SimSiam(**towers, predictors=same())(clip, STAGE)
    assert float(sum(simsiam.values())) == pytest.approx(-0.98572648, abs=1e-7)
    found = BYOL(**towers, predictors=same(), momentum=0.5)(clip, STAGE)
    assert [float(x) for x in found.values()] == pytest.approx([0.02854705] * 2, abs=1e-7)


@quick
@given(st.integers(1, 5), st.integers(0, 6), seeds)
def test_key_nce_is_its_equation(n: int, m: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k, others = (
        torch.randn(n, 3).double(),
        torch.randn(n, 3).double(),
        torch.randn(m, 3).double(),
    )
    leave = torch.rand(n, m) < 0.3
    losses = []
    for i in range(n):
        own = math.exp(float(q[i] @ k[i]) / 0.7)
        rest = [math.exp(float(q[i] @ o) / 0.7) for j, o in enumerate(others) if not leave[i, j]]
        losses.append(-math.log(own / (own + sum(rest))))
    found = key_nce(q, k, others, 0.7, leave=leave)
    assert float(found) == pytest.approx(sum(losses) / n, abs=1e-12)


def test_key_nce_of_collapsed_rows_is_chance() -> None:
    x = F.normalize(torch.ones(5, 3).double(), dim=1)
    assert float(key_nce(x, x, x[:1].expand(32, -1), 0.2)) == pytest.approx(math.log(33))


@quick
@given(st.integers(1, 5), seeds)
def test_negative_cosine_is_half_of_a_squared_distance(n: int, seed: int) -> None:
    """BYOL's loss as it is written, and no gradient by what is predicted."""
    torch.manual_seed(seed)
    p, z = (x.requires_grad_() for x in torch.randn(2, n, 4).double())
    squares = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(2 + 2 * negative_cosine(p, z), squares)
    negative_cosine(p, z).backward()
    assert p.grad is not None
    assert z.grad is None


def test_heads_and_towers_of_both_modalities_are_unshared() -> None:
    for recipe in RECIPES:
        method = make(recipe, train_tokenizer(["cut"]), TINY).method
        assert isinstance(method, Siamese)
        heads = [list(method.heads[m].parameters()) for m in ("video", "audio")]
        assert not any(x.equal(y) for x, y in zip(*heads, strict=True) if x.ndim > 1)


def test_features_stand_side_by_side_and_embeddings_are_what_is_compared() -> None:
    torch.manual_seed(0)
    method = SimCLR(linear(), (STAGE,), heads=linear(4, 3), temperature=0.1)
    clip = clips()
    v, a = (method.towers[m](clip.inputs[m]) for m in ("video", "audio"))
    torch.testing.assert_close(method.features(clip), torch.cat([v, a], 1))
    e = method.embed(clip)
    torch.testing.assert_close(e["audio"], F.normalize(method.heads["audio"](a), dim=1))
    torch.testing.assert_close(
        method(clip, STAGE)["contrast"], nt_xent([e["video"], e["audio"]], 0.1)
    )


def test_simsiam_predicts_what_gets_no_gradient() -> None:
    torch.manual_seed(0)
    method = SimSiam(linear(), (STAGE,), heads=linear(4), predictors=linear(4))
    terms = method(clips(), STAGE)
    terms["video to audio"].backward()
    assert all(p.grad is not None for p in method.towers["video"].parameters())
    assert all(p.grad is None for p in method.towers["audio"].parameters())
    z = method.views(clips())
    p = {m: method.predictors[m](z[m]) for m in z}
    cosines = [
        F.cosine_similarity(p[m], z[n], dim=1) for m, n in (("video", "audio"), ("audio", "video"))
    ]
    torch.testing.assert_close(sum(terms.values()).detach(), -sum(cosines).mean().detach() / 2)
    torch.testing.assert_close(method.scores(clips())["predicted"], sum(cosines) / 2)


def test_barlow_is_centred_and_takes_dead_units() -> None:
    torch.manual_seed(0)
    heads = {"video": nn.Identity(), "audio": nn.Linear(3, 3)}
    with torch.no_grad():
        heads["audio"].weight[1] = 0
    method = BarlowTwins(same(), (STAGE,), heads=heads, off_diagonal=0.01).double()
    v, a = torch.randn(2, 5, 3).double()
    term = method(rows(v, a), STAGE)["correlation"]
    term.backward()
    wanted = cross_correlation(v, heads["audio"](a), 0.01, centred=True)
    torch.testing.assert_close(term, wanted)
    assert heads["audio"].weight.grad.isfinite().all()
    assert not heads["audio"].weight.grad[1].any()
    single = method(rows(v[:1], a[:1]), STAGE)["correlation"]
    assert float(single.detach()) == 3, "a clip alone correlates with nothing"


def test_a_batch_of_one_has_a_loss_or_a_reason() -> None:
    one = Batch(torch.arange(1), {"video": torch.randn(1, 5), "audio": torch.randn(1, 5)})
    for method in (moco(), iic()):
        assert all(term.isfinite() for term in method(one, STAGE).values())
    heads = {m: perceptron(4, 6, 3) for m in ("video", "audio")}
    method = SimCLR(linear(), (STAGE,), heads=heads, temperature=0.1)
    with pytest.raises(UsageError, match="batch of 1 clip has no spread to normalise by"):
        method(one, STAGE)
    assert method.eval().embed(one)["video"].isfinite().all()


def test_moco_contrasts_with_the_batch_until_its_queue_is_full() -> None:
    method, clip = moco(), clips()
    e = method.embed(clip)
    terms = method(clip, STAGE)
    torch.testing.assert_close(sum(terms.values()), info_nce(e["video"], e["audio"], 0.1))
    order = clip.index.argsort()
    torch.testing.assert_close(method.queue("audio")[:N], e["audio"][order].detach())
    method(clips(1), STAGE)
    torch.testing.assert_close(method.queue("audio")[4:6], e["audio"][order][4:].detach())
    assert int(method.entered) == 2 * N
    before = {m: method.queue(m).clone() for m in ("video", "audio")}
    held = method.held.clone()
    clip = clips(2)
    terms, e = method(clip, STAGE), method.embed(clip)
    k = {m: F.normalize(x, dim=1) for m, x in method.slow(clip).items()}
    for asks, told in (("video", "audio"), ("audio", "video")):
        losses = []
        for i, number in enumerate(clip.index):
            met = torch.cat([k[told][i : i + 1], before[told][held != number]])
            losses.append(-(met @ e[asks][i] / 0.1).log_softmax(0)[0])
        torch.testing.assert_close(terms[f"{asks} to {told}"], torch.stack(losses).mean())


def test_slow_copies_follow_in_training_alone() -> None:
    for method in (moco(momentum=0.75), byol(momentum=0.75)):
        with torch.no_grad():
            method.towers["audio"].bias += 1
            method.heads["video"].bias += 2
        method.eval()(clips(), STAGE)
        pairs = [
            (method.towers["audio"], method.slow.towers["audio"], 1.0),
            (method.heads["video"], method.slow.heads["video"], 2.0),
        ]
        for fast, slow, apart in pairs:
            torch.testing.assert_close(fast.bias - slow.bias, torch.full((4,), apart))
        method.train()(clips(), STAGE)
        for fast, slow, apart in pairs:
            torch.testing.assert_close(fast.bias - slow.bias, torch.full((4,), 0.75 * apart))
        assert not any(p.requires_grad for p in method.slow.parameters())
        method.started()
        for fast, slow, _ in pairs:
            assert fast.bias.equal(slow.bias), "towers that were filled before the first step"


def test_byols_momentum_becomes_one() -> None:
    method = byol()
    assert method.keeping(N, STAGE) == 0.9
    method.attach(toy_clips(2 * N))
    found = []
    for _ in range(9):
        found.append(method.keeping(N, STAGE))
        method(clips(), STAGE)
    assert found[0] == pytest.approx(0.9)
    assert found[4] == pytest.approx(0.95)
    assert found[8] == 1
    assert found == sorted(found)


def iic_by_hand(method: IIC, banks: dict[str, Tensor], clip: Batch, step: int) -> dict[str, float]:
    """The contrast of one clip after the other, on copies of the banks."""
    random = torch.Generator().manual_seed(step)
    drawn = torch.randint(method.clips, (method.negatives,), generator=random).tolist()
    broken = break_time(clip.inputs["video"], method.broken, clip.index, step)
    now = dict(method.embed(clip))
    now["broken"] = method.embed(Batch(clip.index, {"video": broken}))["video"]
    losses = {}
    for asks, told in (("video", "audio"), ("audio", "video")):
        total = 0.0
        for i, number in enumerate(clip.index.tolist()):
            others = [banks["broken"][number]]
            for j in drawn:
                if j != number:
                    others += [banks[told][j], banks["broken"][j]]
            h = [math.exp(float(now[asks][i] @ x) / 0.1) for x in (banks[told][number], *others)]
            total -= math.log(h[0] / sum(h)) / len(clip.index)
        losses[f"{asks} to {told}"] = total
    for i, number in enumerate(clip.index.tolist()):
        for name, bank in banks.items():
            bank[number] = F.normalize(0.5 * bank[number] + 0.5 * now[name][i], dim=0)
    return losses


@pytest.mark.parametrize("broken", ["repeat", "shuffle"])
def test_iic_contrasts_with_its_banks(broken: str) -> None:
    method = iic(broken=broken)
    method.attach(toy_clips(9))
    banks = {name: method.bank(name).clone() for name in ("video", "audio", "broken")}
    with torch.no_grad():
        for step in range(4):
            clip = clips(step)
            clip = Batch((clip.index + step) % 9, clip.inputs)
            wanted = iic_by_hand(method, banks, clip, step)
            terms = method(clip, STAGE)
            for name, term in terms.items():
                assert float(term) == pytest.approx(wanted[name], rel=1e-5)
            for name, bank in banks.items():
                torch.testing.assert_close(method.bank(name), bank)


def test_iic_s_banks_begin_as_what_the_clips_are() -> None:
    method, random = iic(), torch.Generator().manual_seed(1)
    method.attach(toy_clips(9))
    clip = rows(*torch.randn(2, 9, 5, generator=random))
    seen = method.survey(clip)
    method.begin(STAGE, lambda: seen)
    broken = break_time(clip.inputs["video"], "repeat", clip.index, 0)
    wanted = dict(method.embed(clip))
    wanted["broken"] = method.embed(Batch(clip.index, {"video": broken}))["video"]
    for name, x in wanted.items():
        torch.testing.assert_close(method.bank(name)[:9], x)


def test_iic_learns_by_the_asking_rows_alone() -> None:
    method = iic()
    method(clips(), STAGE)
    terms = method(clips(), STAGE)
    terms["audio to video"].backward()
    assert all(p.grad is None for p in method.towers["video"].parameters())
    assert all(p.grad is not None for p in method.towers["audio"].parameters())
    state = {name: x.clone() for name, x in method.state_dict().items()}
    method.eval()(clips(1), STAGE)
    assert all(x.equal(state[name]) for name, x in method.state_dict().items())


@quick
@given(st.integers(2, 17), st.integers(0, 2**20), st.integers(0, 2**20))
def test_broken_clips_are_their_own_frames_in_no_order(time: int, clip: int, step: int) -> None:
    x = torch.arange(3 * time).view(3, time)
    index = torch.tensor([clip, clip + 1, 7])
    repeated, shuffled = (break_time(x, how, index, step) for how in ("repeat", "shuffle"))
    for mine, still, moved in zip(x, repeated, shuffled, strict=True):
        assert still.unique().numel() == 1
        assert still[0] in mine
        assert moved.sort().values.equal(mine)
        assert not moved.equal(mine)
    for how, found in (("repeat", repeated), ("shuffle", shuffled)):
        assert break_time(x[1:2], how, index[1:2], step).equal(found[1:2])


def test_which_frame_is_repeated_varies() -> None:
    x, index = torch.arange(8).expand(64, 8), torch.arange(64)
    assert break_time(x, "repeat", index, 0)[:, 0].unique().numel() == 8
    assert not break_time(x, "repeat", index, 1).equal(break_time(x, "repeat", index, 0))


@pytest.mark.parametrize("make_method", [moco, byol, iic])
def test_a_method_goes_on_from_its_state(make_method: type) -> None:
    one, other = make_method(), make_method()
    for method in (one, other):
        method.attach(toy_clips(9))
    for seed in range(3):
        one(clips(seed), STAGE)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.load_state_dict(one.state_dict())
    for seed in (3, 4):
        ours, theirs = (method(clips(seed), STAGE) for method in (one, other))
        assert all(theirs[name].equal(term) for name, term in ours.items())
    state = other.state_dict()
    assert all(state[name].equal(x) for name, x in one.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_small_twins_learn_a_batch(recipe: object) -> None:
    tokenizer = train_tokenizer(["cut"])
    sizes = TINY | {"shared": 16} | ({"keys": 32} if recipe is moco_small else {})
    method = make(recipe, tokenizer, sizes).method.train()  # type: ignore[arg-type]
    method.attach(toy_clips(8))
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3)
    random = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (8, 2, 3, 32, 32), dtype=torch.uint8, generator=random)
    clip = rows(frames, torch.randn(8, 28, 128, generator=random))
    with torch.no_grad():
        begun = method.survey(clip)
    method.begin(method.stages[0], lambda: begun)
    losses = []
    for _ in range(32 if recipe is iic_small else 12):
        optimizer.zero_grad()
        loss = torch.stack(list(method(clip, method.stages[0]).values())).sum()
        loss.backward()
        assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < sum(losses[1:4])


def test_bf16_is_for_the_towers_alone() -> None:
    torch.manual_seed(0)
    heads = {m: perceptron(4, 8, 6) for m in ("video", "audio")}
    method = BarlowTwins(linear(), (STAGE,), heads=heads, off_diagonal=0.005)
    clip = clips(n=32)
    with torch.autocast("cpu", torch.bfloat16):
        towers = {m: method.towers[m](x) for m, x in clip.inputs.items()}
        term = method(clip, STAGE)["correlation"]
    assert towers["video"].dtype == torch.bfloat16
    v, a = (heads[m].double()(towers[m].double()) for m in ("video", "audio"))
    wanted = cross_correlation(v, a, 0.005, centred=True)
    assert float(term.detach()) == pytest.approx(float(wanted.detach()), rel=1e-4)


def test_a_batch_in_chunks_has_the_gradient_of_the_batch() -> None:
    torch.manual_seed(0)
    heads = {m: perceptron(4, 8, 6) for m in ("video", "audio")}
    method = BarlowTwins(linear(), (STAGE,), heads=heads, off_diagonal=0.1).double()
    clip = clips()
    clip = Batch(clip.index, {m: x.double() for m, x in clip.inputs.items()})
    method(clip, STAGE)["correlation"].backward()
    whole = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    chunks.backward(method, clip, STAGE, chunk=4, seed=0, autocast=torch.float32)
    torch.testing.assert_close([p.grad for p in method.parameters()], whole)


def test_errors_say_what_would_be_right() -> None:
    with pytest.raises(UsageError, match="SimCLR wants audio and video, not audio"):
        SimCLR({"audio": nn.Identity()}, (STAGE,), heads=same(), temperature=0.1)
    with pytest.raises(UsageError, match="ask for `--bank 12`"):
        iic().attach(toy_clips(12))
    with pytest.raises(UsageError, match="1 frame has no order to break"):
        break_time(torch.zeros(2, 1), "repeat", torch.arange(2), 0)
    with pytest.raises(UsageError, match="queue of 4 keys cannot take a batch of 6"):
        moco(keys=4)(clips(), STAGE)
    for wrong in (moco, byol, iic):
        with pytest.raises(UsageError, match=r"below 1, not 1\.0"):
            wrong(momentum=1.0)
    with pytest.raises(UsageError, match="keys must be at least 1"):
        moco(keys=0)

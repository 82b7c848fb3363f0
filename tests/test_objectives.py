import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sonant.errors import UsageError
from sonant.methods.posterior import UNKNOWN, Posterior
from sonant.objectives import (
    agreement_cross_entropy,
    consensus,
    contrastive,
    cross_correlation,
    group_nce,
    info_nce,
    nt_xent,
    relational,
    self_contrast,
)
from sonant.types import Batch, Stage

A = torch.tensor([[1, 2, -1], [0.5, -1, 2], [3, 0, 1], [-1, -2, 0.5]]).double()
B = torch.tensor([[1.1, 1.9, -0.8], [0.4, -1.2, 2.2], [2.5, 0.3, 1.4], [-0.7, -2.2, 0.1]]).double()
ALPHA = {"audio": 1.0, "video": 0.5, "text": 1.0}
quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 10_000)
sizes = st.integers(2, 7)


def units(n: int, seed: int, width: int = 5) -> Tensor:
    rows = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).double()
    return F.normalize(rows, dim=1)


def three(n: int, seed: int) -> dict[str, Tensor]:
    return {m: units(n, 3 * seed + k) for k, m in enumerate(("audio", "video", "text"))}


def one_way(x: Tensor, y: Tensor, temperature: float) -> float:
    """MC3 eq. 1 as it is written: for each t a softmax over all l."""
    losses = []
    for t in range(len(x)):
        e = [math.exp(float(x[t] @ y[l]) / temperature) for l in range(len(y))]  # noqa: E741
        losses.append(-math.log(e[t] / sum(e)))
    return sum(losses) / len(losses)


def k(x: float, alpha: float) -> float:
    return ((x + 1) / 2) ** alpha


def consensus_loop(e: dict[str, Tensor], anchor: str, inverse: str, norm: str) -> float:
    """MC3 eqs. 2 and 3, a clip at a time."""
    total = 0.0
    n = len(e[anchor])
    for t in range(n):
        s = {m: float(e[m][t] @ e[anchor][t]) for m in e if m != anchor}
        winner = min(s, key=lambda m: k(s[m], ALPHA[m]))
        alpha = ALPHA[winner] if inverse == "winner" else 1.0
        c = 2 * k(s[winner], ALPHA[winner]) ** (1 / alpha) - 1
        total += sum(abs(x - c) ** (1 if norm == "l1" else 2) for x in s.values())
    return total / n


@quick
@given(sizes, seeds, st.floats(0.05, 2))
def test_info_nce_is_the_equation_both_ways(n: int, seed: int, temperature: float) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    wanted = one_way(x, y, temperature) + one_way(y, x, temperature)
    assert float(info_nce(x, y, temperature)) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(info_nce(x, y, temperature), info_nce(y, x, temperature))


@quick
@given(sizes, seeds)
def test_info_nce_does_not_care_for_the_order_of_clips(n: int, seed: int) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(info_nce(x[shuffled], y[shuffled], 0.1), info_nce(x, y, 0.1))


@quick
@given(st.integers(1, 9))
def test_info_nce_of_constant_embeddings_is_chance(n: int) -> None:
    x = torch.ones(n, 3).double()
    assert float(info_nce(x, x, 0.07)) == pytest.approx(2 * math.log(n), abs=1e-9)


def test_info_nce_vanishes_where_only_partners_agree() -> None:
    assert float(info_nce(torch.eye(4), torch.eye(4), 0.01)) < 1e-6


def test_info_nce_is_as_exact_under_autocast() -> None:
    x, y = units(6, 0).float(), units(6, 1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(x, y, 0.07)
    torch.testing.assert_close(found, info_nce(x, y, 0.07))


@quick
@given(sizes, seeds)
def test_contrastive_sums_six_directed_terms(n: int, seed: int) -> None:
    e = three(n, seed)
    wanted = sum(one_way(x, y, 0.07) for x, y in permutations(e.values(), 2))
    assert float(contrastive(e, 0.07)) == pytest.approx(wanted, rel=1e-9)


def test_contrastive_wants_two_modalities() -> None:
    with pytest.raises(UsageError, match="two modalities or more, not audio"):
        contrastive({"audio": A}, 0.07)


@pytest.mark.parametrize("inverse", ["winner", "plain"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
@quick
@given(n=sizes, seed=seeds, anchor=st.sampled_from(["audio", "video", "text"]))
def test_consensus_is_the_equations(
    inverse: str, norm: str, n: int, seed: int, anchor: str
) -> None:
    e = three(n, seed)
    found = consensus(e, anchor, ALPHA, inverse=inverse, norm=norm)
    assert float(found) == pytest.approx(consensus_loop(e, anchor, inverse, norm), abs=1e-9)


def test_a_smaller_exponent_lets_the_lower_cosine_lose() -> None:
    """With α_v = .5, s_v = 0 and s_l = .3: K_v = .707 > K_l = .65, and video is pulled up to .3."""
    anchor = torch.tensor([[1.0, 0.0]])
    video = torch.tensor([[0.0, 1.0]]).requires_grad_()
    text = torch.tensor([[0.3, math.sqrt(1 - 0.09)]])
    loss = consensus({"audio": anchor, "video": video, "text": text}, "audio", ALPHA)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3)
    assert float(video.grad[0, 0]) == pytest.approx(-1)


@quick
@given(sizes, seeds)
def test_consensus_is_bounded_and_nothing_where_all_agree(n: int, seed: int) -> None:
    e = three(n, seed)
    assert 0 <= float(consensus(e, "audio", ALPHA)) <= 2
    same = dict.fromkeys(e, e["audio"])
    assert float(consensus(same, "audio", ALPHA)) == pytest.approx(0, abs=1e-12)


@quick
@given(seeds)
def test_consensus_of_two_modalities_is_nothing(seed: int) -> None:
    e = three(4, seed)
    del e["text"]
    assert float(consensus(e, "audio", ALPHA)) == 0


@quick
@given(seeds)
def test_detached_consensus_moves_only_the_losers(seed: int) -> None:
    e = {m: x.requires_grad_() for m, x in three(1, seed).items()}
    consensus(e, "audio", ALPHA, detach=True).backward()
    s = {m: float((e[m][0] @ e["audio"][0]).detach()) for m in ("video", "text")}
    winner = min(s, key=lambda m: k(s[m], ALPHA[m]))
    assert not e[winner].grad.any()
    whole = {m: x.detach().requires_grad_() for m, x in e.items()}
    consensus(whole, "audio", ALPHA).backward()
    assert whole[winner].grad.any()


@pytest.mark.parametrize("inverse", ["winner", "plain"])
def test_consensus_has_finite_gradients_at_opposite_embeddings(inverse: str) -> None:
    x = torch.tensor([[1.0, 0.0]])
    e = {"audio": x, "video": (-x).requires_grad_(), "text": x.clone().requires_grad_()}
    consensus(e, "audio", ALPHA, inverse=inverse).backward()
    assert all(e[m].grad.isfinite().all() for m in ("video", "text"))


@pytest.mark.parametrize("inverse", ["winner", "plain"])
def test_consensus_gradient_is_its_slope(inverse: str) -> None:
    e = {m: x.requires_grad_() for m, x in three(3, 5).items()}
    assert torch.autograd.gradcheck(
        lambda a, v, t: consensus(
            {"audio": a, "video": v, "text": t}, "audio", ALPHA, inverse=inverse, norm="l2"
        ),
        tuple(e.values()),
    )


def test_consensus_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="the anchor text and another, not audio, video"):
        consensus({"audio": A, "video": B}, "text", ALPHA)
    with pytest.raises(UsageError, match="no exponent for video"):
        consensus({"audio": A, "video": B}, "audio", {"audio": 1.0})


def nt_xent_loop(views: list[Tensor], temperature: float) -> float:
    """SimCLR eq. 1, an anchor and a positive at a time."""
    rows = [F.normalize(x, dim=0) for view in views for x in view]
    n = len(views[0])
    h = [[math.exp(float(x @ y) / temperature) for y in rows] for x in rows]
    losses = [
        -math.log(h[i][j] / (sum(h[i]) - h[i][i]))
        for i in range(len(rows))
        for j in range(len(rows))
        if i != j and i % n == j % n
    ]
    return sum(losses) / len(losses)


@quick
@given(st.integers(2, 5), seeds, st.integers(2, 4))
def test_nt_xent_is_the_equation(n: int, seed: int, views: int) -> None:
    x = [3 * units(n, seed + view) for view in range(views)]
    assert float(nt_xent(x, 0.3)) == pytest.approx(nt_xent_loop(x, 0.3), rel=1e-9)


@pytest.mark.parametrize(
    ("temperature", "wanted"), [(0.07, 0.00196113), (0.1, 0.01532384), (0.5, 0.73146886)]
)
def test_nt_xent_agrees_with_lightly(temperature: float, wanted: float) -> None:
    assert float(nt_xent([A, B], temperature)) == pytest.approx(wanted, abs=3e-7)


@quick
@given(st.integers(2, 9))
def test_nt_xent_of_collapsed_rows_is_chance(n: int) -> None:
    x = torch.ones(n, 3).double()
    assert float(nt_xent([x, 2 * x], 0.1)) == pytest.approx(math.log(2 * n - 1))


def test_nt_xent_wants_two_views() -> None:
    with pytest.raises(UsageError, match="two views or more, not 1"):
        nt_xent([A], 0.1)


def self_contrast_loop(v: Tensor, a: Tensor, temperature: float) -> float:
    """AVCL eqs. 7 to 10 as they are written, sums and all."""

    def h(x: Tensor, y: Tensor) -> float:
        return math.exp(float(x @ y / (x.norm() * y.norm())) / temperature)

    total = 0.0
    for x, y in ((v, a), (a, v)):
        for i in range(len(x)):
            across = sum(h(x[i], y[j]) for j in range(len(x)))
            within = sum(h(x[i], x[j]) for j in range(len(x)) if j != i)
            total -= math.log(h(x[i], y[i]) / (across + within))
    return total


@quick
@given(st.integers(2, 6), seeds)
def test_self_contrast_is_the_equations(n: int, seed: int) -> None:
    v, a = 2 * units(n, seed), 0.5 * units(n, seed + 1)
    found = float(self_contrast(v, a, 0.2))
    assert found == pytest.approx(self_contrast_loop(v, a, 0.2), rel=1e-9)


def cross_correlation_loop(x: Tensor, y: Tensor, off_diagonal: float) -> float:
    """AVCL eqs. 5 and 6, a pair of columns at a time."""
    total = 0.0
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            c = float((x[:, i] * y[:, j]).sum() / (x[:, i].norm() * y[:, j].norm()))
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
    return total


@quick
@given(st.integers(2, 6), seeds)
def test_cross_correlation_is_the_equations(n: int, seed: int) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    found = float(cross_correlation(x, y, 0.01))
    assert found == pytest.approx(cross_correlation_loop(x, y, 0.01), rel=1e-9)


def test_cross_correlation_agrees_with_recorded_figures() -> None:
    assert float(cross_correlation(A, B, 0.005)) == pytest.approx(0.00707812, abs=1e-7)
    assert float(cross_correlation(A, B, 0.005, centred=True)) == pytest.approx(0.00848, abs=1e-5)


@quick
@given(st.integers(3, 6), seeds, st.floats(0.1, 9), st.floats(-5, 5))
def test_centred_correlation_sees_no_scale_and_no_shift(
    n: int, seed: int, scale: float, shift: float
) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    moved = cross_correlation(scale * x + shift, y, 0.01, centred=True)
    torch.testing.assert_close(moved, cross_correlation(x, y, 0.01, centred=True))


@quick
@given(
    st.integers(3, 300),
    seeds,
    st.booleans(),
    st.floats(-9, 9),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_closed_gate_and_a_dead_unit_correlate_with_nothing(
    n: int, seed: int, centred: bool, value: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(2, n, 4, dtype=dtype)
    x[:, 1] = value if centred else 0
    rest = [0, 2, 3]
    among = cross_correlation(x[:, rest], y[:, rest], 0.1, centred=centred)
    living, partner = (z - z.mean(0) if centred else z for z in (x[:, rest], y[:, 1:2]))
    across = (F.normalize(living, dim=0).T @ F.normalize(partner, dim=0)).square().sum()
    x.requires_grad_()
    loss = cross_correlation(x, y, 0.1, centred=centred)
    loss.backward()
    torch.testing.assert_close(loss.detach(), 1 + among + 0.1 * across)
    assert x.grad.isfinite().all()
    assert not x.grad[:, 1].any()


def missing(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Embeddings of nine clips, some of which lack a modality; what they lack is NaN."""
    e = three(9, seed)
    there = {
        "audio": torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1]).bool(),
        "text": torch.tensor([1, 0, 1, 1, 1, 0, 1, 1, 0]).bool(),
    }
    for modality, mask in there.items():
        e[modality][~mask] = math.nan
    return e, there


@quick
@given(seeds)
def test_clips_that_lack_a_modality_take_part_in_what_they_can(seed: int) -> None:
    e, there = missing(seed)
    av, al = [0, 1, 2, 4, 5, 6, 7, 8], [0, 2, 4, 6, 7]
    vl, all_three = [0, 2, 3, 4, 6, 7], [0, 2, 4, 6, 7]
    rows = {("audio", "video"): av, ("audio", "text"): al, ("video", "text"): vl}
    wanted = sum(float(info_nce(e[x][r], e[y][r], 0.1)) for (x, y), r in rows.items())
    assert float(contrastive(e, 0.1, there=there)) == pytest.approx(wanted)
    whole = {m: x[all_three] for m, x in e.items()}
    for inverse in ("winner", "plain"):
        found = consensus(e, "audio", ALPHA, inverse=inverse, there=there)
        assert float(found) == pytest.approx(
            float(consensus(whole, "audio", ALPHA, inverse=inverse))
        )


def test_a_batch_without_a_whole_clip_has_no_loss_but_a_gradient() -> None:
    e = {m: x.requires_grad_() for m, x in three(4, 1).items()}
    there = {"audio": torch.tensor([1, 1, 0, 0]).bool(), "text": torch.tensor([0, 0, 1, 1]).bool()}
    loss = contrastive(e, 0.1, pairs=[("audio", "text")], there=there)
    loss = loss + consensus(e, "audio", ALPHA, there=there)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(e[m].grad is None or not e[m].grad.any() for m in e)


def test_contrastive_says_which_pair_is_missing() -> None:
    e = {m: x for m, x in three(3, 0).items() if m != "text"}
    with pytest.raises(UsageError, match="contrastive needs audio-text, not audio, video"):
        contrastive(e, 0.1, pairs=[("audio", "text")])


@quick
@given(sizes, seeds)
def test_group_nce_is_the_equation(n: int, seed: int) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    groups = torch.randint(-1, 3, (n,), generator=torch.Generator().manual_seed(seed))
    wanted = 0.0
    for one, other in ((x, y), (y, x)):
        for t in range(n):
            e = [math.exp(float(one[t] @ other[u]) / 0.2) for u in range(n)]
            alike = [u for u in range(n) if u == t or (groups[u] == groups[t] and groups[t] >= 0)]
            wanted -= math.log(sum(e[u] for u in alike) / sum(e)) / n
    assert float(group_nce(x, y, groups, 0.2)) == pytest.approx(wanted)
    alone = torch.full((n,), -1)
    torch.testing.assert_close(group_nce(x, y, alone, 0.2), info_nce(x, y, 0.2))
    assert float(group_nce(x, y, torch.zeros(n).long(), 0.2)) == pytest.approx(0, abs=1e-9)


@quick
@given(sizes, seeds)
def test_relational_is_two_divergences(n: int, seed: int) -> None:
    e = three(n, seed)
    target = e["audio"] @ e["text"].T
    wanted = 0.0
    for way in (0, 1):
        for t in range(n):
            ours, theirs = (m.T[t] if way else m[t] for m in (e["audio"] @ e["video"].T, target))
            p = [math.exp(float(s) / 0.2) for s in theirs]
            q = [math.exp(float(s) / 0.2) for s in ours]
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            wanted += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / n
    assert float(relational(e["audio"], e["video"], target, 0.2)) == pytest.approx(wanted, abs=1e-9)


def test_relations_are_followed_not_moved() -> None:
    e = {m: x.requires_grad_() for m, x in three(5, 2).items()}
    relational(e["audio"], e["video"], e["audio"] @ e["text"].T, 0.1).backward()
    assert e["text"].grad is None
    assert e["video"].grad is not None
    own = units(5, 3)
    assert float(relational(own, own, own @ own.T, 0.1)) == pytest.approx(0, abs=1e-9)


NEARER = 1 - 1e-6
chance = st.floats(0, 1)


def turned(cosine: float) -> tuple[Tensor, Tensor]:
    """Two unit rows of that cosine."""
    y = torch.tensor([[cosine, math.sqrt(1 - cosine**2)]]).double()
    return torch.tensor([[1.0, 0.0]]).double(), y


def unlike(chance: float, agrees: float) -> float:
    """Cross entropy of two chances, 0 log 0 being 0."""
    both = ((chance, agrees), (1 - chance, 1 - agrees))
    return -sum(p * math.log(q) for p, q in both if p)


@quick
@given(st.integers(1, 7), seeds)
def test_agreement_cross_entropy_is_the_formula(n: int, seed: int) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    chances = torch.rand(n, generator=torch.Generator().manual_seed(seed)).double()
    wanted = 0.0
    for i in range(n):
        agrees = (1 + NEARER * float(x[i] @ y[i])) / 2
        wanted += unlike(float(chances[i]), agrees) / n
    found = agreement_cross_entropy(x, y, chances)
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    torch.testing.assert_close(agreement_cross_entropy(y, x, chances), found)
    plain = F.binary_cross_entropy((1 + (x * y).sum(1)) / 2, chances)
    assert float(found) == pytest.approx(float(plain), rel=1e-4)


def test_agreement_cross_entropy_gradient_is_its_slope() -> None:
    rows = [units(4, seed).requires_grad_() for seed in (5, 6)]
    chances = torch.tensor([0.0, 0.2, 0.7, 1.0]).double()
    assert torch.autograd.gradcheck(lambda x, y: agreement_cross_entropy(x, y, chances), rows)


@quick
@given(chance, st.floats(-1, 1))
def test_agreement_is_learned_up_to_the_chance(p: float, cosine: float) -> None:
    """The least loss is the chance's own entropy, at (1 + cosine) / 2 = p.

    Elsewhere it is more by the square of the distance, twice or more (Pinsker's inequality).
    """
    chances, entropy = torch.tensor([p]).double(), unlike(p, p)
    least = float(agreement_cross_entropy(*turned(2 * p - 1), chances))
    assert least == pytest.approx(entropy, abs=2e-6)
    x, y = turned(cosine)
    x.requires_grad_()
    loss = agreement_cross_entropy(x, y, chances)
    distance = (1 + cosine) / 2 - p
    assert float(loss.detach()) >= entropy + 2 * distance**2 - 2e-6
    if abs(distance) > 1e-6:
        loss.backward()
        assert math.copysign(1, float(x.grad[0, 0] * cosine + x.grad[0, 1] * y[0, 1])) == (
            math.copysign(1, distance)
        )


@quick
@given(sizes, seeds)
def test_agreement_cross_entropy_is_bounded(n: int, seed: int) -> None:
    x, y = units(n, seed), units(n, seed + 1)
    random = torch.Generator().manual_seed(seed)
    chances = torch.randint(0, 2, (n,), generator=random).double()
    worst = -math.log(5e-7)
    assert 0 < float(agreement_cross_entropy(x, y, chances)) < worst
    signs = 2 * chances[:, None] - 1
    assert 0 < float(agreement_cross_entropy(x, signs * x, chances)) < 1e-6
    assert float(agreement_cross_entropy(x, -signs * x, chances)) == pytest.approx(worst)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@quick
@given(st.integers(1, 600), seeds, st.sampled_from([-1.0, 1.0]))
def test_rows_as_wrong_as_can_be_have_a_finite_loss_that_moves_them(
    dtype: torch.dtype, width: int, seed: int, cosine: float
) -> None:
    """Opposite ones that should agree are drawn together, equal ones that should not apart."""
    x = units(3, seed, width).to(dtype)
    y, chances = cosine * x, torch.full((3,), (1 - cosine) / 2)
    x, y = F.normalize(x, dim=1).requires_grad_(), F.normalize(y, dim=1).requires_grad_()
    loss = agreement_cross_entropy(x, y, chances)
    loss.backward()
    assert 12 < float(loss.detach()) < 17
    for row, other in ((x, y), (y, x)):
        assert row.grad.isfinite().all()
        along = (row.grad * other.detach()).sum(1)
        assert (along < -1e3).all() if cosine < 0 else (along > 1e3).all()


def test_clips_without_a_chance_are_left_out_of_the_agreement() -> None:
    """Whatever is in their rows, the term does not change, and does not move them."""
    towers = {m: nn.Identity() for m in ("audio", "video", "text")}
    method = Posterior(towers, (Stage("refine", 1),), temperature=0.1, weight=1.0)
    chances = torch.tensor([0.9, UNKNOWN, 0.0, 1.0, UNKNOWN]).double()
    method.register_buffer("sounding", chances)
    known = [0, 2, 3]
    for other in (three(5, 1), three(5, 2)):
        e = three(5, 0)
        for modality, x in e.items():
            x[[1, 4]] = other[modality][[1, 4]]
            x.requires_grad_()
        term = method(Batch(torch.arange(5), e), method.stages[0])["posterior"]
        wanted = sum(
            agreement_cross_entropy(e["audio"][known], e[m][known], chances[known])
            for m in ("video", "text")
        )
        torch.testing.assert_close(term, wanted)
        term.backward()
        assert all(x.grad[known].any(1).all() for x in e.values())
        assert not any(x.grad[[1, 4]].any() for x in e.values())


def test_agreement_of_no_clips_is_no_loss_with_a_gradient() -> None:
    x, y = (torch.zeros(0, 5, requires_grad=True) for _ in range(2))
    loss = agreement_cross_entropy(x, y, torch.zeros(0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert x.grad.shape == y.grad.shape == (0, 5)


@given(st.integers(0, 99), st.floats(0.1, 4.0), st.floats(0.1, 4.0), st.floats(0.1, 1.0))
def test_exponents_say_nothing_where_c_is_one_of_two_cosines_or_between(
    seed: int, video: float, text: float, up_to_1: float
) -> None:
    """The loss is then |s_video - s_text|."""
    e = three(6, seed)
    s = {m: (e[m] * e["audio"]).sum(1) for m in ("video", "text")}
    want = (s["video"] - s["text"]).abs().mean()
    winner = consensus(e, "audio", {"video": video, "text": text})
    torch.testing.assert_close(winner, want)
    between = consensus(e, "audio", {"video": up_to_1, "text": 1.0}, inverse="plain")
    torch.testing.assert_close(between, want, atol=1e-6, rtol=1e-5)

"""The baselines: which towers meet in which stage, and CM-ACC's dictionary."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.checkpoint import make
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.cm_acc import CMACC, cm_acc_small, residuals, spread
from sonant.methods.method import Method
from sonant.methods.pairs import (
    av_small,
    clap_small,
    cmc_small,
    group_numbers,
    imagebind_small,
)
from sonant.objectives import contrastive, group_nce, info_nce
from sonant.types import Batch, Stage
from toy import TINY, toy_clips

N = 6


def made(recipe: object, **arguments: object) -> Method:
    tokenizer = train_tokenizer(toy_clips(6).column("text"))
    return make(recipe, tokenizer, TINY | arguments).method  # type: ignore[arg-type]


def batch(seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    inputs = {
        "video": torch.randint(0, 256, (N, 2, 3, 32, 32), dtype=torch.uint8, generator=random),
        "audio": torch.randn(N, 28, 128, generator=random),
        "text": torch.randint(1, 9, (N, 6), generator=random),
    }
    return Batch(torch.arange(N), inputs)


@pytest.mark.parametrize(
    ("recipe", "modalities"),
    [
        (clap_small, ("audio", "text")),
        (av_small, ("audio", "video")),
        (cmc_small, ("audio", "video", "text")),
    ],
)
def test_one_stage_contrasts_what_it_has_towers_for(recipe: object, modalities: tuple) -> None:
    method, clips = made(recipe), batch()
    assert method.modalities == modalities
    terms = method(clips, method.stages[0])
    torch.testing.assert_close(terms["contrastive"], contrastive(method.embed(clips), 0.07))


def test_the_towers_of_a_seed_are_the_same_in_every_method() -> None:
    alone, together = made(clap_small).state_dict(), made(cmc_small).state_dict()
    assert all(together[name].equal(x) for name, x in alone.items())


def test_imagebind_binds_words_and_then_sound_to_sight() -> None:
    method, clips = made(imagebind_small), batch()
    e = method.embed(clips)
    first, second = method.stages
    assert (first.train, second.train) == ({"video", "text"}, {"audio"})
    for stage, pair in ((first, ("video", "text")), (second, ("audio", "video"))):
        wanted = info_nce(e[pair[0]], e[pair[1]], 0.07)
        torch.testing.assert_close(method(clips, stage)["contrastive"], wanted)


def test_clips_of_a_group_are_partners() -> None:
    method, clips = made(cmc_small, groups=("verb",)), batch()
    assert method.labels == ("verb",)
    method.attach(toy_clips(N))
    e = method.embed(clips)
    groups = torch.tensor([0, 2, 1, 0, 2, 1])
    pairs = (("audio", "video"), ("audio", "text"), ("video", "text"))
    wanted = sum(group_nce(e[x], e[y], groups, 0.07) for x, y in pairs)
    torch.testing.assert_close(method(clips, method.stages[0])["contrastive"], wanted)


def test_groups_are_combinations_of_labels() -> None:
    clips = toy_clips(6)
    numbers = group_numbers(clips, ("verb", "sounding"))
    verbs, sounding = clips.column("verb"), clips.column("sounding")
    for i in range(6):
        for j in range(6):
            alike = (verbs[i], sounding[i]) == (verbs[j], sounding[j])
            assert (numbers[i] == numbers[j]) == alike
    with pytest.raises(UsageError, match="labels that the clips have: verb, sounding; not noun"):
        group_numbers(clips, ("verb", "noun"))


def cm_acc(**arguments: object) -> CMACC:
    sizes = {"keys": 8, "pool": 12, "enqueue": 4}
    method = made(cm_acc_small, **(sizes | arguments)).train()
    assert isinstance(method, CMACC)
    return method


def test_cm_acc_contrasts_with_the_batch_until_its_dictionary_is_full() -> None:
    method, clips = cm_acc(), batch()
    e = method.embed(clips)
    terms = method(clips, Stage("align", 1))
    torch.testing.assert_close(sum(terms.values()), info_nce(e["audio"], e["video"], 0.07))
    assert method.entered.tolist() == [4, N]
    keys = F.normalize(method.slow["audio"](clips.inputs["audio"]), dim=1)
    entered = method.keys("audio")[:4]
    assert (entered @ keys.T).max(1).values == pytest.approx(torch.ones(4), abs=1e-5)
    for _ in range(2):
        method(clips, Stage("align", 1))
    assert method.entered.tolist() == [12, 3 * N]
    before, held = method.keys("video").clone(), method.get_buffer("held_video").clone()
    e = method.embed(clips)
    slow = F.normalize(method.slow["video"](clips.inputs["video"]), dim=1)
    positive = (e["audio"] * slow).sum(1, keepdim=True)
    own = clips.index[:, None] == held
    assert own.any(), "its own old keys are no negatives of a clip"
    negative = (e["audio"] @ before.T).masked_fill(own, -torch.inf)
    logits = torch.cat([positive, negative], 1) / 0.07
    wanted = -logits.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(method(clips, Stage("align", 1))["audio to video"], wanted)


def test_the_most_telling_of_the_pool_enter_the_dictionary() -> None:
    """A candidate is classified by the other modality's row of it, among the dictionary's."""
    method, clips = cm_acc(keys=12, pool=16, enqueue=4), batch()
    method(clips, Stage("align", 1))
    entered = int(method.entered[0])
    before = {m: method.keys(m)[:entered].clone() for m in ("audio", "video")}
    method(clips, Stage("align", 1))
    there = min(int(method.entered[1]), 16)
    random = torch.Generator().manual_seed(entered)
    for modality, other in (("audio", "video"), ("video", "audio")):
        seen = method.get_buffer(f"pool_{other}")[:there]
        doubt = residuals(seen @ before[modality].T / method.temperature)
        rows = spread(doubt, seen, 4, random)
        new = method.keys(modality)[entered : entered + 4]
        torch.testing.assert_close(new, method.get_buffer(f"pool_{modality}")[rows])


def test_cm_acc_follows_slowly_and_only_in_training() -> None:
    method, clips = cm_acc(momentum=0.75), batch()
    with torch.no_grad():
        method.towers["audio"].head.bias += 1
    fast, slow = (t["audio"].head.bias for t in (method.towers, method.slow))
    apart = (fast - slow).detach().clone()
    method(clips, Stage("align", 1))
    torch.testing.assert_close(fast - slow, 0.75 * apart)
    state = {name: x.clone() for name, x in method.eval().state_dict().items()}
    method(clips, Stage("align", 1))
    assert all(x.equal(state[name]) for name, x in method.state_dict().items())
    assert not any(p.requires_grad for p in method.slow.parameters())


def test_cm_accs_slow_towers_begin_with_the_weights_of_the_others() -> None:
    method = cm_acc()
    with torch.no_grad():
        method.towers["audio"].head.bias += 1
    method.started()
    fast, slow = (t["audio"].state_dict() for t in (method.towers, method.slow))
    assert all(slow[name].equal(x) for name, x in fast.items())


def test_cm_acc_goes_on_from_its_state() -> None:
    one = cm_acc()
    for seed in range(3):
        one(batch(seed), Stage("align", 1))
    other = cm_acc(seed=1)
    other.load_state_dict(one.state_dict())
    for seed in (3, 4):
        ours, theirs = (method(batch(seed), Stage("align", 1)) for method in (one, other))
        assert all(theirs[name].equal(term) for name, term in ours.items())
    assert one.keys("audio").equal(other.keys("audio"))


@pytest.mark.parametrize("wrong", [{"enqueue": 13}, {"momentum": 1.0}, {"keys": 0}])
def test_cm_acc_refuses_impossible_sizes(wrong: dict) -> None:
    with pytest.raises(UsageError):
        cm_acc(**wrong)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 1000))
def test_spread_is_kmeans_seeding_of_gradient_embeddings(
    rows: int, classes: int, seed: int
) -> None:
    """Against distances between outer products that are really made."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=random).double()
    doubt = residuals(torch.randn(rows, classes, generator=random).double())
    n = min(rows, 4)
    found = spread(doubt, x, n, torch.Generator().manual_seed(seed)).tolist()
    assert len(set(found)) == n
    gradients = (doubt[:, :, None] * x[:, None]).flatten(1)
    if not gradients.any():
        return
    again = torch.Generator().manual_seed(seed)
    chance, drawn = gradients.square().sum(1), []
    for _ in range(n):
        live = chance.clone()
        live[drawn] = 0
        if live.sum() < 1e-9:
            return
        drawn.append(int(torch.multinomial(live, 1, generator=again)))
        away = (gradients - gradients[drawn[-1]]).square().sum(1)
        chance = torch.minimum(chance, away)
    assert found == drawn


def test_residuals_are_the_gradient_of_the_likeliest_class() -> None:
    logits = torch.randn(5, 4, dtype=torch.double, requires_grad=True)
    F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
    torch.testing.assert_close(residuals(logits.detach()), logits.grad)

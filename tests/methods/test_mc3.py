import inspect
import math
from typing import Any

import pytest
import torch

from sonant.checkpoint import make
from sonant.errors import UsageError
from sonant.media.text import Tokenizer, train_tokenizer
from sonant.methods.mc3 import MC3, mc3_small
from sonant.methods.method import Recipe
from sonant.objectives import consensus, contrastive
from sonant.types import Batch, Stage
from toy import TINY, toy_clips

ALPHA = {"audio": 1.0, "video": 0.5, "text": 1.0}


def tokenizer() -> Tokenizer:
    return train_tokenizer(toy_clips(6).column("text"))


def made(**arguments: object) -> Recipe:
    return make(mc3_small, tokenizer(), TINY | arguments)


def batch(n: int) -> Batch:
    torch.manual_seed(0)
    inputs = {
        "video": torch.randint(0, 256, (n, 2, 3, 32, 32), dtype=torch.uint8),
        "audio": torch.randn(n, 28, 128),
        "text": torch.randint(1, 9, (n, 6)),
    }
    return Batch(torch.arange(n), inputs)


def test_terms_are_the_objectives_of_the_embeddings() -> None:
    method, clips = made(consensus_weight=3.0).method, batch(5)
    e = method.embed(clips)
    align = method(clips, Stage("align", 1))
    refine = method(clips, Stage("refine", 1))
    assert align.keys() == {"contrastive"}
    torch.testing.assert_close(align["contrastive"], contrastive(e, 0.07))
    torch.testing.assert_close(refine["contrastive"], contrastive(e, 0.07))
    torch.testing.assert_close(refine["consensus"], 3 * consensus(e, "audio", ALPHA))


@pytest.mark.parametrize(
    "given",
    [
        {"anchor": "video"},
        {"anchor": "text"},
        {"inverse": "plain"},
        {"norm": "l2"},
        {"detach": True, "inverse": "plain"},
        {"video_exponent": 2.0, "inverse": "plain"},
        {"text_exponent": 0.3, "inverse": "plain"},
        {"audio_exponent": 3.0, "anchor": "video", "inverse": "plain"},
        {"temperature": 0.2},
        {"contrast": False},
    ],
    ids=str,
)
def test_each_argument_reaches_the_equations(given: dict[str, Any]) -> None:
    """By value and gradient, which each of them changes."""
    known: dict[str, Any] = {"anchor": "audio", "inverse": "winner", "norm": "l1", "detach": False}
    known |= {key: value for key, value in given.items() if key in known}
    exponents = {m: given.get(f"{m}_exponent", ALPHA[m]) for m in ALPHA}
    method, clips = made(consensus_weight=3.0, **given).method, batch(5)
    terms = method(clips, Stage("refine", 1))
    e = {m: x.detach().requires_grad_() for m, x in method.embed(clips).items()}
    wanted = {"consensus": 3 * consensus(e, exponents=exponents, **known)}
    if given.get("contrast", True):
        wanted["contrastive"] = contrastive(e, given.get("temperature", 0.07))
    assert terms.keys() == wanted.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, wanted[name])
    heads = [method.towers[m].head.bias for m in e]
    mine = torch.autograd.grad(sum(terms.values()), heads)
    rows = torch.autograd.grad(sum(wanted.values()), list(e.values()))
    again = sum((x * row).sum() for x, row in zip(method.embed(clips).values(), rows, strict=True))
    for found, checked in zip(mine, torch.autograd.grad(again, heads), strict=True):
        torch.testing.assert_close(found, checked, atol=1e-5, rtol=1e-4)


def test_each_argument_of_training_reaches_the_recipe() -> None:
    recipe = made(align_rate=0.1, refine_rate=0.2, align_share=0.3, align_epochs=4, refine_epochs=6)
    assert recipe.learning_rates == (0.1, 0.2)
    assert recipe.method.stages == (Stage("align", 4), Stage("refine", 6, begun_share=0.3))


def test_embeddings_are_unit_rows_of_what_is_given() -> None:
    method, clips = made().method, batch(5)
    assert {m: tuple(x.shape) for m, x in method.embed(clips).items()} == dict.fromkeys(
        ("video", "audio", "text"), (5, 16)
    )
    for x in method.embed(clips).values():
        torch.testing.assert_close(x.norm(dim=1), torch.ones(5))
    only = method.embed(Batch(clips.index, {"audio": clips.inputs["audio"]}))
    assert only.keys() == {"audio"}


def test_a_recipe_is_a_function_of_its_seed() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, same, other = (made(seed=s).method.state_dict() for s in (0, 0, 1))
    assert torch.random.get_rng_state().equal(state)
    assert all(one[name].equal(x) for name, x in same.items())
    assert not one["towers.audio.head.weight"].equal(other["towers.audio.head.weight"])


@pytest.mark.parametrize("wrong", ["temperature", "video_exponent", "text_exponent"])
def test_impossible_arguments_are_refused(wrong: str) -> None:
    said = wrong if wrong == "temperature" else f"exponent of {wrong.split('_')[0]}"
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match=f"{said} must be above 0, not {value}"):
            made(**{wrong: value})


def test_every_argument_of_the_method_is_one_of_the_recipe() -> None:
    recipe = inspect.signature(mc3_small).parameters
    for name in ("temperature", "anchor", "inverse", "detach", "norm"):
        assert recipe[name].annotation == inspect.signature(MC3).parameters[name].annotation


@pytest.mark.parametrize("anchor", ["audio", "video", "text"])
def test_any_modality_can_be_the_anchor(anchor: str) -> None:
    method = made(anchor=anchor, video_exponent=2.0).method
    assert method(batch(3), Stage("refine", 1))["consensus"].isfinite()

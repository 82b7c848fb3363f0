from typing import Any

import pytest
import torch

from sonant.checkpoint import make
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.method import Method
from sonant.methods.relational import relational_consensus_small
from sonant.objectives import contrastive, relational
from sonant.types import Batch, Stage
from toy import TINY, noise_batch, toy_clips

N = 6
ALIGN, REFINE = Stage("align", 1), Stage("refine", 1)
WORDS = [("audio", "text"), ("video", "text")]


def made(**arguments: Any) -> Method:
    tokenizer = train_tokenizer(toy_clips(6).column("text"))
    return make(relational_consensus_small, tokenizer, TINY | arguments).method


def test_refining_follows_the_narrations_instead_of_contrasting_sight() -> None:
    method, clips = made(relational_weight=3.0), noise_batch()
    e = method.embed(clips)
    assert method(clips, ALIGN).keys() == {"contrastive"}
    torch.testing.assert_close(method(clips, ALIGN)["contrastive"], contrastive(e, 0.07))
    terms = method(clips, REFINE)
    torch.testing.assert_close(terms["contrastive"], contrastive(e, 0.07, pairs=WORDS))
    followed = relational(e["audio"], e["video"], e["audio"] @ e["text"].T, 0.07)
    torch.testing.assert_close(terms["relational"], 3 * followed)
    kept = made(contrast=True)(clips, REFINE)["contrastive"]
    torch.testing.assert_close(kept, contrastive(e, 0.07))


def test_the_target_is_not_moved_by_the_relational_term() -> None:
    method = made()
    method(noise_batch(), REFINE)["relational"].backward()
    assert all(p.grad is None for p in method.towers["text"].parameters())
    assert any(p.grad is not None for p in method.towers["video"].parameters())


@pytest.mark.parametrize("target", [("text", "video"), ("audio", "audio"), ("audio", "video")])
def test_controls_follow_something_else(target: tuple[Any, Any]) -> None:
    method, clips = made(target=target, sharpening=2.0, relational_weight=1.0), noise_batch()
    e = method.embed(clips)
    followed = 2 * e[target[0]] @ e[target[1]].T
    wanted = relational(e["audio"], e["video"], followed, 0.07)
    torch.testing.assert_close(method(clips, REFINE)["relational"], wanted)


def test_shuffled_narrations_are_those_of_other_clips() -> None:
    method = made(shuffled=True, relational_weight=1.0)
    e = method.embed(noise_batch())
    others = e["text"].roll(N // 2, 0)
    wanted = relational(e["audio"], e["video"], e["audio"] @ others.T, 0.07)
    torch.testing.assert_close(method(noise_batch(), REFINE)["relational"], wanted)
    mixed = torch.tensor([3, 0, 5, 1, 4, 2])
    clips = noise_batch()
    dealt = Batch(mixed, {m: x[mixed] for m, x in clips.inputs.items()})
    torch.testing.assert_close(method(dealt, REFINE)["relational"], wanted)


def test_clips_without_a_narration_have_no_relations() -> None:
    method = made(relational_weight=1.0)
    there = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    e = {m: x[there] for m, x in method.embed(noise_batch()).items()}
    wanted = relational(e["audio"], e["video"], e["audio"] @ e["text"].T, 0.07)
    found = method(noise_batch({"text": there}), REFINE)["relational"]
    torch.testing.assert_close(found, wanted)


def test_sharpening_is_above_zero() -> None:
    with pytest.raises(UsageError, match="sharpening must be above 0"):
        made(sharpening=0.0)

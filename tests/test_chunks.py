"""Two passes over chunks have the value and the gradient of one."""

from typing import Any

import pytest
import torch
from torch import nn

from sonant.checkpoint import make
from sonant.chunks import backward
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.classify import Supervised
from sonant.methods.cm_acc import cm_acc_small
from sonant.methods.mc3 import MC3
from sonant.methods.method import Method
from sonant.methods.relational import Relational
from sonant.types import MODALITIES, Batch, Stage
from toy import TINY, toy_clips

CLIPS = 7
REFINE = Stage("refine", 1)
STAGES = (Stage("align", 1), REFINE)


def towers() -> dict[Any, nn.Module]:
    torch.manual_seed(0)
    return {m: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)) for m in MODALITIES}


def supervised() -> Method:
    method = Supervised(
        towers(), STAGES, width=4, label="sounding", auxiliary=["verb"], auxiliary_weight=0.5
    )
    method.attach(toy_clips(CLIPS))
    return method


def mc3() -> Method:
    return MC3(towers(), STAGES, exponents={"video": 0.5, "text": 1.0}, weight=30.0)


def relating() -> Method:
    return Relational(towers(), STAGES, temperature=0.1, weight=3.0)


def still_video() -> Method:
    method = mc3()
    method.towers["video"].requires_grad_(False)
    return method


def gradients(method: Method, *, chunk: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    inputs = {m: torch.randn(CLIPS, 6, generator=random).double() for m in MODALITIES}
    there = {"text": torch.arange(CLIPS) != 2} if method.partial else {}
    batch = Batch(torch.arange(CLIPS), inputs, there)
    method = method.double()
    if chunk:
        terms = backward(method, batch, REFINE, chunk=chunk, seed=0, autocast=torch.float32)
    else:
        terms = method(batch, REFINE)
        torch.stack(list(terms.values())).sum().backward()
    moved = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return {name: term.detach() for name, term in terms.items()} | moved


@pytest.mark.parametrize("made", [mc3, relating, supervised, still_video])
@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
def test_two_passes_are_one(made: Any, chunk: int) -> None:
    whole, parts = gradients(made(), chunk=0), gradients(made(), chunk=chunk)
    assert whole.keys() == parts.keys()
    for name, x in whole.items():
        torch.testing.assert_close(parts[name], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("made", [mc3, relating, supervised])
def test_two_passes_in_bf16_are_near_one(made: Any) -> None:
    """What is not a tower runs under the same autocast."""
    found = []
    for chunk in (0, 3):
        method = made()
        inputs = {m: torch.linspace(-1, 1, CLIPS * 6).reshape(CLIPS, 6) for m in MODALITIES}
        batch = Batch(torch.arange(CLIPS), inputs)
        if chunk:
            terms = backward(method, batch, REFINE, chunk=3, seed=0, autocast=torch.bfloat16)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                terms = method(batch, REFINE)
            torch.stack(list(terms.values())).sum().backward()
        moved = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
        found.append(torch.cat([torch.stack(list(terms.values())).detach(), *moved]))
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=0.05)


def test_both_passes_drop_the_same() -> None:
    """With dropout the loss is that of the embeddings that the gradient goes back through."""
    method = mc3().double()
    for tower in method.towers.values():
        tower.append(nn.Dropout(0.5))
    seen: list[torch.Tensor] = []
    method.towers["audio"].register_forward_hook(lambda *_, seen=seen: seen.append(_[2].detach()))
    gradients(method, chunk=3)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert first.equal(second)
    assert (first == 0).any()


def test_a_method_that_looks_at_whole_batches_refuses_chunks() -> None:
    with pytest.raises(UsageError, match="CMACC looks at whole batches; leave chunk at 0"):
        make(cm_acc_small, train_tokenizer(["cut"]), TINY | {"chunk": 4})

"""What holds of every transformer here."""

from typing import Any

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published import OURS, scattered
from sonant.encoders import Encoder
from sonant.encoders.ast import AST
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.timesformer import TimeSformer

NAMES = ["frozen", "plain", "ast", "distilbert"]


def encoder(name: str, *, checkpointing: bool = False) -> nn.Module:
    if name == "ast":
        model: nn.Module = AST(
            frames=43, bins=32, patch=8, stride=5, checkpointing=checkpointing, **OURS
        )
    elif name == "distilbert":
        model = DistilBERT(
            vocabulary=30, tokens=9, dropout=0.0, relu=False, checkpointing=checkpointing, **OURS
        )
    else:
        model = TimeSformer(
            attention=name, frames=3, size=32, patch=8, checkpointing=checkpointing, **OURS
        )
    return scattered(model).train()


def inputs(name: str, n: int) -> Tensor:
    g = torch.Generator().manual_seed(3)
    if name == "ast":
        return torch.randn(n, 43, 32, generator=g)
    if name == "distilbert":
        text = torch.randint(1, 30, (n, 7), generator=g)
        text[1:, 4:] = 0
        return text
    return torch.randint(0, 256, (n, 3, 3, 32, 32), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_does_not_depend_on_its_batch(name: str) -> None:
    model, x = encoder(name), inputs(name, 5)
    assert isinstance(model, Encoder)
    whole = model(x)
    assert whole.shape == (5, model.width)
    alone = torch.cat([model(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_more_rows_than_a_kernel_takes_are_attended_to_in_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = encoder(name), inputs(name, 5)
    whole = model(x)
    monkeypatch.setattr("sonant.encoders.attention.MOST", 2)
    rows, attend = list[int](), F.scaled_dot_product_attention

    def counted(q: Tensor, *of: Any, **more: Any) -> Tensor:
        rows.append(len(q))
        return attend(q, *of, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    torch.testing.assert_close(model(x), whole)
    assert max(rows) == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_gets_a_gradient_and_the_same_when_checkpointed(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = encoder(name, checkpointing=checkpointing)
        model(inputs(name, 4))[:, :5].pow(2).sum().backward()
        gradients.append({key: x.grad for key, x in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert gradient is not None, key
        assert gradient.any(), key
        torch.testing.assert_close(gradients[1][key], gradient, atol=0, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_to_one_graph(
    name: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks do not trace
    model, x = encoder(name, checkpointing=checkpointing), inputs(name, 4)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_near_float32(name: str) -> None:
    model, x = encoder(name), inputs(name, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    error = (found - model(x)).norm() / model(x).norm()
    assert error < 0.05
    assert model.to(torch.bfloat16)(x if x.dtype == torch.uint8 else bfloat16(x)).isfinite().all()


def bfloat16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16) if x.is_floating_point() else x

"""A training step: clips a second, share of the objectives, and how much of the device is used.

    python benchmarks/step.py                   # the small towers, on a processor
    python benchmarks/step.py --size paper      # the paper's, bf16 against plain eager fp32

Times are medians over steps; the two forms of the paper's model take turns in one run. FLOPs are
those of the matrix products and convolutions of one step (torch's own counter), utilisation is
against `--peak`. It ends with 1 unless the objectives take at most 3 % of a step.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sonant.checkpoint import make
from sonant.distributed import device
from sonant.media.text import train_tokenizer
from sonant.methods.mc3 import MC3, mc3, mc3_small
from sonant.methods.method import Recipe
from sonant.objectives import consensus, contrastive
from sonant.types import Batch, Modality, Stage

REFINE = Stage("refine", 1)
MOST = 0.03
"""Of a step's time, for the objectives."""


def clips_of(recipe: Recipe, n: int) -> Batch:
    """Noise of the shapes that the recipe's towers take."""
    v = recipe.views
    shape = (n, v.frames, 3, v.size, v.size)
    inputs: dict[Modality, torch.Tensor] = {
        "audio": torch.randn(n, v.mel_frames, 128),
        "video": torch.randint(0, 256, shape, dtype=torch.uint8),
        "text": torch.randint(1, v.tokenizer.size, (n, v.tokens)),
    }
    here = device()
    return Batch(torch.arange(n, device=here), {m: x.to(here) for m, x in inputs.items()})


def step(recipe: Recipe, batch: Batch, precision: torch.dtype) -> Callable[[], None]:
    """One whole step of training."""
    method = recipe.method.to(device()).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-6)

    def go() -> None:
        optimizer.zero_grad()
        with torch.autocast(device().type, precision, enabled=precision != torch.float32):
            terms = method(batch, REFINE)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()

    return go


def objectives(method: MC3, n: int, width: int) -> Callable[[], None]:
    """The loss and its gradient by the embeddings, alone."""
    rows = {m: torch.randn(n, width, device=device()) for m in method.modalities}
    e = {m: nn.functional.normalize(x, dim=1).requires_grad_() for m, x in rows.items()}

    def go() -> None:
        loss = contrastive(e, method.temperature) + consensus(e, method.anchor, method.exponents)
        loss.backward()  # type: ignore[no-untyped-call]

    return go


def seconds(go: Callable[[], None]) -> float:
    """Of one call, the device's work included."""
    began = time.perf_counter()
    go()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def taking_turns(forms: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Median seconds of each, after one call to warm up."""
    for go in forms.values():
        seconds(go)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeat):
        for name, go in forms.items():
            times[name].append(seconds(go))
    return {name: statistics.median(found) for name, found in times.items()}


def small(batch: int, repeat: int) -> dict[str, Any]:
    """The share of the objectives in a step of the small towers."""
    recipe = make(mc3_small, train_tokenizer(["cut"]), {"batch": batch})
    method = recipe.method
    assert isinstance(method, MC3)
    took = taking_turns(
        {
            "step": step(recipe, clips_of(recipe, batch), torch.float32),
            "objectives": objectives(method, batch, 128),
        },
        repeat,
    )
    share = took["objectives"] / took["step"]
    return {"clips a second": batch / took["step"], "share of the objectives": share}


def paper(batch: int, repeat: int, peak: float) -> dict[str, Any]:
    """The paper's towers: bf16, compiled on an accelerator, against plain eager fp32."""
    tokenizer = train_tokenizer(["cut"])
    compiled = device().type == "cuda"
    asked = {"batch": batch, "tokens": 16}
    fast = make(mc3, tokenizer, asked | {"compile": compiled})
    plain = make(mc3, tokenizer, asked | {"precision": "fp32"})
    clips = clips_of(plain, batch)
    with FlopCounterMode(display=False) as counter:
        step(plain, clips, torch.float32)()
    flops = counter.get_total_flops()
    took = taking_turns(
        {
            "bf16": step(fast, clips, torch.bfloat16),
            "eager fp32": step(plain, clips, torch.float32),
            "objectives": objectives(fast.method, batch, 256),  # type: ignore[arg-type]
        },
        repeat,
    )
    found = {
        "clips a second, bf16": batch / took["bf16"],
        "clips a second, eager fp32": batch / took["eager fp32"],
        "times as fast": took["eager fp32"] / took["bf16"],
        "TFLOP a clip": flops / batch / 1e12,
        "share of the objectives": took["objectives"] / took["bf16"],
        "hours for 250,000 clips, five epochs": 5 * 250_000 / (batch / took["bf16"]) / 3600,
    }
    if peak:
        found["utilisation"] = flops / took["bf16"] / 1e12 / peak
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        others = torch.cuda.memory_allocated()
        step(fast, clips, torch.bfloat16)()
        found["GB of memory, bf16"] = (torch.cuda.max_memory_allocated() - others) / 1e9
    return found


def main() -> int:
    """Print what was measured; 1 if the objectives take more than their share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=["small", "paper"], default="small")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the device in bf16")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = (
        small(given.batch, given.repeat)
        if given.size == "small"
        else paper(given.batch, given.repeat, given.peak)
    )
    for name, value in found.items():
        print(f"{name:40} {value:10.4g}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(found["share of the objectives"] > MOST)


if __name__ == "__main__":
    sys.exit(main())

"""Tiny models of transformers with random weights, and checkpoints with the published names."""

import re

import torch
from torch import Tensor, nn

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
OURS = {"width": 24, "depth": 2, "heads": 3, "hidden": 40}
"""The same sizes as our encoders call them."""

OLD_NAMES = {
    r"(^|\.)layers\.": r"\1encoder.layer.",
    r"attention\.q_proj": "attention.attention.query",
    r"attention\.k_proj": "attention.attention.key",
    r"attention\.v_proj": "attention.attention.value",
    r"attention\.o_proj": "attention.output.dense",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}
"""What the newest transformers calls parts of ViT, DeiT and AST, and what published files do."""


def scattered(model: nn.Module, seed: int = 0) -> nn.Module:
    """All weights random, also those that begin as zeros or ones; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(random(name, weight.shape, generator))
    return model.eval()


def random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Matrices that keep scale, scales of norms near one, and tables and biases that matter."""
    x = torch.randn(shape, generator=generator, device=generator.device)
    if len(shape) in (2, 4):
        return x / x[0].numel() ** 0.5
    return 1 + x * 0.3 if name.endswith("weight") else x * 0.5


def as_published(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The state of a model of the newest transformers under the names of published files."""
    state = {}
    for name, x in model.state_dict().items():
        for new, old in OLD_NAMES.items():
            name = re.sub(new, old, name)
        state[prefix + name] = x
    return state


def tower_of_egovlp(
    *, width: int, depth: int, hidden: int, frames: int, places: int, patch: int, device: str
) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of EgoVLP's video_model."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, places + 1, width),
        "temporal_embed": (1, frames, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for n in range(depth):
        linear = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
        for attention in ("attn", "timeattn"):
            linear |= {f"{attention}.qkv": (3 * width, width), f"{attention}.proj": (width, width)}
        for name, shape in linear.items():
            shapes[f"blocks.{n}.{name}.weight"] = shape
            shapes[f"blocks.{n}.{name}.bias"] = shape[:1]
        for name in ("norm1", "norm2", "norm3"):
            shapes |= {f"blocks.{n}.{name}.{leaf}": (width,) for leaf in ("weight", "bias")}
    if device == "meta":
        return {name: torch.empty(shape, device=device) for name, shape in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    return {name: random(name, shape, generator) for name, shape in shapes.items()}

"""Names, shapes and arithmetic of the networks that others have published, written out anew.

From torchvision's `models/video/resnet.py` and `models/resnet.py`, and VMZ's difference: the middle
of a factorised convolution is counted for each convolution instead of for each block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def norm_shapes(name: str, planes: int, *, counters: bool) -> Shapes:
    names = ["weight", "bias", "running_mean", "running_var"]
    shapes: Shapes = {f"{name}.{part}": (planes,) for part in names}
    return shapes | ({f"{name}.num_batches_tracked": ()} if counters else {})


def mid(i: int, o: int) -> int:
    return (i * o * 3 * 3 * 3) // (i * 3 * 3 + 3 * o)


def video_shapes(
    kind: str,
    midplanes: str = "per_block",
    *,
    depth: int = 18,
    planes: int = 64,
    classes: int | None = 400,
    counters: bool = True,
) -> Shapes:
    """The state dict of `r2plus1d`, `r3d` or `mc3`."""

    def norm(name: str, channels: int) -> Shapes:
        return norm_shapes(name, channels, counters=counters)

    shapes: Shapes = {}
    if kind == "r2plus1d":
        inner = 45 * planes // 64
        shapes |= {"stem.0.weight": (inner, 3, 1, 7, 7), **norm("stem.1", inner)}
        shapes |= {"stem.3.weight": (planes, inner, 3, 1, 1), **norm("stem.4", planes)}
    else:
        shapes |= {"stem.0.weight": (planes, 3, 3, 7, 7), **norm("stem.1", planes)}
    i = planes
    for stage, blocks in enumerate(BLOCKS[depth]):
        o = planes * 2**stage
        for block in range(blocks):
            at = f"layer{stage + 1}.{block}"
            mids = [mid(i, o), mid(o, o) if midplanes == "per_conv" else mid(i, o)]
            for conv, (ins, m) in enumerate(zip([i, o], mids, strict=True)):
                here = f"{at}.conv{conv + 1}"
                if kind == "r2plus1d":
                    shapes[f"{here}.0.0.weight"] = (m, ins, 1, 3, 3)
                    shapes |= norm(f"{here}.0.1", m)
                    shapes[f"{here}.0.3.weight"] = (o, m, 3, 1, 1)
                else:
                    time = 1 if kind == "mc3" and stage > 0 else 3
                    shapes[f"{here}.0.weight"] = (o, ins, time, 3, 3)
                shapes |= norm(f"{here}.1", o)
            if stage > 0 and block == 0:
                shapes |= {f"{at}.downsample.0.weight": (o, i, 1, 1, 1)}
                shapes |= norm(f"{at}.downsample.1", o)
            i = o
    if classes is not None:
        shapes |= {"fc.weight": (classes, i), "fc.bias": (classes,)}
    return shapes


def random_state(
    shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Tensors of these shapes, such that activations keep their scale."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            fan = torch.Size(shape[1:]).numel()
            state[name] = torch.randn(shape, generator=g, dtype=dtype) * (2 / fan) ** 0.5
        elif name.endswith(("running_var", ".weight")):
            state[name] = 0.5 + torch.rand(shape, generator=g, dtype=dtype)
        else:
            state[name] = 0.3 * torch.randn(shape, generator=g, dtype=dtype)
    return state


def normed(x: Tensor, state: dict[str, Tensor], name: str, eps: float) -> Tensor:
    view = [1, -1] + [1] * (x.ndim - 2)
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(view)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + eps) * weight + bias


def convolved(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """With the padding and stride that go with a kernel: none where it is one wide."""
    kernel = weight.shape[2:]
    point = all(k == 1 for k in kernel)
    steps = [stride if k > 1 or point else 1 for k in kernel]
    function = F.conv3d if x.ndim == 5 else F.conv2d
    return function(x, weight, stride=steps, padding=[k // 2 for k in kernel])


def video_maps(
    x: Tensor, state: dict[str, Tensor], *, depth: int = 18, eps: float
) -> dict[str, Tensor]:
    """The outputs of the stages `layer1` to `layer4` and their mean, in evaluation."""

    def unit(h: Tensor, name: str, stride: int) -> Tensor:
        """A convolution, full or factorised, without the norm that follows."""
        if f"{name}.weight" in state:
            return convolved(h, state[f"{name}.weight"], stride)
        h = F.relu(normed(convolved(h, state[f"{name}.0.weight"], stride), state, f"{name}.1", eps))
        return convolved(h, state[f"{name}.3.weight"], stride)

    h = F.conv3d(
        x,
        state["stem.0.weight"],
        stride=(1, 2, 2),
        padding=tuple(k // 2 for k in state["stem.0.weight"].shape[2:]),
    )
    h = F.relu(normed(h, state, "stem.1", eps))
    if "stem.3.weight" in state:
        h = F.conv3d(h, state["stem.3.weight"], padding=(1, 0, 0))
        h = F.relu(normed(h, state, "stem.4", eps))
    maps = {}
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = F.relu(normed(unit(h, f"{at}.conv1.0", stride), state, f"{at}.conv1.1", eps))
            out = normed(unit(out, f"{at}.conv2.0", 1), state, f"{at}.conv2.1", eps)
            if f"{at}.downsample.0.weight" in state:
                flat = state.get(f"{at}.conv1.0.weight", torch.empty(1, 1, 3)).shape[2] == 1
                steps = (1 if flat else stride, stride, stride)
                h = F.conv3d(h, state[f"{at}.downsample.0.weight"], stride=steps)
                h = normed(h, state, f"{at}.downsample.1", eps)
            h = F.relu(out + h)
        maps[f"layer{stage}"] = h
    return maps | {"mean": h.mean((2, 3, 4))}

"""Batches larger than memory: their gradient in two passes over chunks (GradCache; Gao et al.).

A contrastive loss needs every embedding of the batch at once, but not every tower's activations.
First all clips are embedded chunk by chunk without a graph, and the loss gives each embedding its
gradient; then each chunk is embedded again, with its graph, and takes its gradient back. The loss
and the gradient are those of one pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sonant.distributed import ranks
from sonant.methods.method import Method
from sonant.types import Batch, Modality, Stage


def backward(
    method: Method, batch: Batch, stage: Stage, *, chunk: int, seed: int, autocast: torch.dtype
) -> dict[str, Tensor]:
    """Add the gradient of a batch's loss to the method's parameters, over all ranks alike.

    Args:
        method: whose forward passes meet its towers' inputs nowhere but in its towers.
        batch: this rank's part.
        stage: the present one.
        chunk: clips that are embedded at once.
        seed: of what towers drop at random, which is the same in both passes.
        autocast: precision of the towers.

    Returns:
        The terms of the loss.
    """
    modalities = [m for m in method.modalities if m in batch.inputs]
    firsts = range(0, len(batch.index), chunk)

    def outputs(modality: Modality, first: int) -> Tensor:
        torch.manual_seed(seed + first)
        x = batch.inputs[modality][first : first + chunk]
        with torch.autocast(x.device.type, autocast, enabled=autocast != torch.float32):
            found: Tensor = method.towers[modality](x)
        return found

    with torch.no_grad():
        made = {m: torch.cat([outputs(m, first) for first in firsts]) for m in modalities}
    leaves = {m: x.requires_grad_() for m, x in made.items()}
    device = batch.index.device.type
    mixed = torch.autocast(device, autocast, enabled=autocast != torch.float32)
    with _without_towers(method), mixed:
        terms: dict[str, Tensor] = method(Batch(batch.index, leaves, batch.there), stage)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    for modality, x in leaves.items():
        tower = method.towers[modality]
        if x.grad is None or not any(p.requires_grad for p in tower.parameters()):
            continue
        for first in firsts:
            again = outputs(modality, first)
            again.backward(x.grad[first : first + chunk])  # type: ignore[no-untyped-call]
    _average(method)
    return terms


@contextmanager
def _without_towers(method: Method) -> Iterator[None]:
    """The method as it is on its towers' outputs."""
    towers = method.towers
    method.towers = nn.ModuleDict({modality: nn.Identity() for modality in towers})
    try:
        yield
    finally:
        method.towers = towers


def _average(method: Method) -> None:
    """What DistributedDataParallel does at the end of one pass."""
    if ranks() == 1:
        return
    for parameter in method.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks()

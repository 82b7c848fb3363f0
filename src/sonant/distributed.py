"""The few things that N processes do together; with one process each is the identity.

Every rank computes the loss of the whole batch from gathered embeddings. `gather` returns to each
rank the gradient that all ranks' losses have for its rows, which is N times that of the one loss;
DistributedDataParallel then averages parameter gradients over the N ranks, and the two cancel: the
gradient of one process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """The device of this process: its own accelerator where there is one, else the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started, over nccl with accelerators and gloo without.

    Without torchrun, or where a process group is there already, nothing is done.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    here = device()
    if here.type == "cuda":
        torch.cuda.set_device(here)
    backend = "nccl" if here.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield
    except BaseException:
        # nccl would wait here for ranks that wait for this one, and nobody would read the error;
        # as this process ends, it is aborted, and torchrun ends the others.
        if backend == "gloo":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if ranks() > 1:
        dist.barrier()


def alike(*numbers: int) -> bool:
    """Whether all ranks have given the same; all have the answer."""
    mine = torch.tensor(numbers, dtype=torch.int64, device=device())
    return torch.equal(largest(mine.clone()), -largest(-mine))


def gather(x: Tensor) -> Tensor:
    """All ranks' rows [N * n, ...] in rank order, differentiable; each rank gives as many.

    The gradient of a rank's rows is the sum over ranks of the gradients that their losses have for
    these rows.
    """
    if ranks() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


def largest(x: Tensor) -> Tensor:
    """The elementwise maximum over ranks."""
    if ranks() > 1:
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def dealt(rows: Tensor, total: int) -> Tensor:
    """All `total` rows of numbers on every rank; each has every `ranks`-th from its number on."""
    info = torch.finfo if rows.is_floating_point() else torch.iinfo
    least = info(rows.dtype).min
    whole = torch.full((total, *rows.shape[1:]), least, dtype=rows.dtype, device=device())
    whole[rank() :: ranks()] = rows.to(whole)
    return largest(whole)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(ranks())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(ranks())[rank()]

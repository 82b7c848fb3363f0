"""An accelerator that there is everywhere: its tensors refuse to meet those of the processor.

It computes on the processor, and so gives what the processor gives; but a tensor that was made on
the wrong side, or that is read as if it lay on the processor, is an error, as with a real one. It
has no autocast, no generator and no addresses of its own, and two modules do not go on sharing
their weights there. Several processes exchange what lies there and nothing else, as nccl does.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import sonant.distributed
import sonant.train
from sonant.checkpoint import defaults
from sonant.distributed import device, gather, largest, rank, ranks, together
from sonant.embed import embed
from sonant.train import RECIPES, train
from toy import TINY, Toy, toy_clips

NAME = "pretend"
LONGEST = 300.0
"""Seconds after which a process waits for one that is not there any more."""
ops = torch.ops.aten
INDEXED = {ops.index, ops.index_put, ops.index_put_, ops._index_put_impl_}
"""Accelerators take indices that lie on the processor."""
PLAIN_NUMBERS = {
    getattr(ops, name + suffix)
    for name in ("add", "sub", "mul", "div", "pow", "where", "lerp", "masked_fill", "maximum")
    for suffix in ("", "_")
    if hasattr(ops, name + suffix)
} | {getattr(ops, name) for name in ("gt", "lt", "ge", "le", "eq", "ne", "fill_", "minimum")}
"""And of numbers, elementwise operations take them."""


ONE: dict[str, Any] = dict.fromkeys(
    ("epochs", "align_epochs", "refine_epochs", "text_epochs", "audio_epochs"), 1
)
FEW: dict[str, Any] = {"rounds": 1, "video_clusters": 3, "audio_clusters": 3, "clusters": 3}


def train_toys(name: str, given: dict[str, Any], folder: Path, where: str) -> None:
    """Train a method on toys, and embed some others."""
    assert device().type == where
    known = defaults(RECIPES[name])
    arguments = {k: v for k, v in (TINY | ONE | FEW | given).items() if k in known}
    train(RECIPES[name], arguments, toy_clips(40), folder / "run", media=Toy(), workers=0)
    if os.environ["RANK"] == "0":
        embed(folder / "run", toy_clips(8), folder / "features.parquet", media=Toy(), workers=0)


def mix() -> None:
    """Operations on tensors of two devices, which a real accelerator takes or refuses likewise."""
    x = torch.ones(3, 3, device=device())
    assert (x * torch.tensor(2.0) + 1).sum().item() == 27
    assert x[torch.tensor([0, 2])].shape == (2, 3)
    for wrong in (
        lambda: x + torch.arange(3),
        lambda: x @ torch.eye(3),
        lambda: torch.cat([x, torch.ones(1, 3)]),
        lambda: x.numpy(),
    ):
        with pytest.raises((RuntimeError, TypeError)):
            wrong()


def exchange() -> None:
    """Processes exchange tensors of the accelerator; those of the processor are refused."""
    with together():
        mine = torch.full((2, 1), float(rank()), device=device())
        assert gather(mine).tolist() == [[0.0], [0.0], [1.0], [1.0]]
        assert largest(mine).tolist() == [[1.0], [1.0]]
        for refused in (gather, largest):
            with pytest.raises(AssertionError, match="on the accelerator"):
                refused(torch.ones(2, 1))


def on_device(work: Callable[[], None], name: str, *, ranks: int = 1) -> None:
    """Do some work in processes of its own, where `sonant.distributed.device` is a given one.

    They are forked from one that has never gone backward: autograd counts the accelerators when it
    first does.

    Args:
        work: can be pickled.
        name: "cpu", or `NAME` for the accelerator.
        ranks: how many processes do it, as if torchrun had started them.

    Raises:
        AssertionError: the work raised something, which is printed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["accelerator"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        context.Process(target=_there, args=(work, name, number, ranks, port))
        for number in range(ranks)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(LONGEST)
        child.kill()
    assert not any(child.exitcode for child in children), "see above what a child raised"


def _there(work: Callable[[], None], name: str, number: int, ranks: int, port: int) -> None:
    os.environ |= {"RANK": f"{number}", "LOCAL_RANK": f"{number}", "WORLD_SIZE": f"{ranks}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    if name == NAME:
        dist.all_gather, dist.all_reduce = _gathering(dist.all_gather), _reducing(dist.all_reduce)
        sonant.train.DistributedDataParallel = _Averaged  # type: ignore[attr-defined]
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    there = torch.device(name, 0)
    known, own = sonant.distributed.device, lambda: there
    for module in list(sys.modules.values()):
        if vars(module).get("device") is known:
            module.device = own  # type: ignore[attr-defined]
    torch.tensor = partial(_made, torch.tensor)
    torch.Tensor.new_tensor = _new  # type: ignore[method-assign, assignment]
    torch.Tensor.tolist = _listed(torch.Tensor.tolist)  # type: ignore[method-assign]
    torch.Tensor.numpy = _read(torch.Tensor.numpy)  # type: ignore[method-assign]
    torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc]
    with _Mode():
        work()


class _Module:
    """What torch asks of a device's module."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class _Away(Tensor):
    """A tensor on the accelerator, around one on the processor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Away":
        away: _Away = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        return away

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Also sees what is made of nothing."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})


def _run(op: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    away = [x for x in leaves if isinstance(x, _Away)]
    here = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, _Away)]
    wanted = kwargs.get("device")
    goes = bool(away) if wanted is None else torch.device(wanted).type == NAME
    if op is ops.copy_.default:
        _inner(args[0]).copy_(_inner(args[1]))
        return args[0]
    if op is not ops._to_copy.default and op.overloadpacket not in INDEXED and away:
        _check(op, here)
    inner_kwargs = tree_map_only(_Away, _inner, dict(kwargs))
    if goes and wanted is not None:
        inner_kwargs["device"] = "cpu"
    found = op(*tree_map_only(_Away, _inner, args), **inner_kwargs)
    if not goes or op is ops._local_scalar_dense.default:
        return found
    known = {id(x.inner): x for x in away}
    return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else _Away(x), found)


def _check(op: Any, here: list[Tensor]) -> None:
    for x in here:
        if x.ndim or op.overloadpacket not in PLAIN_NUMBERS:
            raise RuntimeError(
                f"{op}: of the processor among tensors of the accelerator: {list(x.shape)}"
            )


def _gathering(exchanged: Callable[..., Any]) -> Callable[..., Any]:
    def all_gather(parts: list[Tensor], x: Tensor) -> None:
        assert all(isinstance(one, _Away) for one in (x, *parts)), "exchanged: on the accelerator"
        exchanged([_inner(part) for part in parts], _inner(x))

    return all_gather


def _reducing(exchanged: Callable[..., Any]) -> Callable[..., Any]:
    def all_reduce(x: Tensor, *of: Any) -> None:
        assert isinstance(x, _Away), "exchanged: on the accelerator"
        exchanged(_inner(x), *of)

    return all_reduce


class _Averaged(nn.Module):
    """DistributedDataParallel as it is on the accelerator: its own is C++ and wants addresses."""

    def __init__(self, module: nn.Module, *, broadcast_buffers: bool) -> None:
        super().__init__()
        self.module = module
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._average)

    def forward(self, *given: Any) -> Any:
        return self.module(*given)

    def _average(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        dist.all_reduce(parameter.grad)
        parameter.grad /= ranks()


def _inner(x: Tensor) -> Tensor:
    return x.inner if isinstance(x, _Away) else x


def _made(make: Callable[..., Tensor], data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
    """torch.tensor; its own way to a device goes round the mode."""
    made = make(data, **kwargs)
    return made if device is None else made.to(device)


def _new(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device)


def _listed(listed: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda x: listed(_inner(x))


def _read(numpy: Callable[..., Any]) -> Callable[..., Any]:
    def read(x: Tensor, **kwargs: Any) -> Any:
        if isinstance(x, _Away):
            raise TypeError("a tensor of the accelerator is read as if it lay on the processor")
        return numpy(x, **kwargs)

    return read

"""N ranks against one process, value and gradient, on gloo; forked, so that they start at once."""

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sonant.checkpoint import make
from sonant.data import Examples
from sonant.distributed import alike, gather, largest, rank, ranks, together
from sonant.errors import UsageError
from sonant.media.text import train_tokenizer
from sonant.methods.avcl import AVCL, Fusion
from sonant.methods.classify import Classifier, Supervised, classify_small
from sonant.methods.cm_acc import CMACC
from sonant.methods.deepcluster import DeepCluster, Rounds, concatenated, crossed
from sonant.methods.films import over_ranks
from sonant.methods.mc3 import MC3, mc3_small
from sonant.methods.method import Method
from sonant.methods.moments import SharedBatchNorm2d
from sonant.methods.pairs import Pairs
from sonant.methods.posterior import Posterior
from sonant.methods.relational import Relational
from sonant.methods.siamese import BYOL, IIC, BarlowTwins, MoCo, SimCLR, SimSiam, perceptron
from sonant.objectives import consensus, contrastive
from sonant.train import _movable, train
from sonant.types import MODALITIES, Batch, Modality, Stage
from sonant.validation import Chooser
from toy import TINY, Toy, toy_clips

CLIPS = 8
CLOSE = {"trained": 1e-3, "losses": 1e-4, "gradients": 1e-4}
"""In float32 after steps of Adam, whose first ones are as long for a gradient of 1e-9 as of 1."""
ALPHA: dict[Modality, float] = {"video": 0.5, "text": 1.0}


def towers() -> dict[Modality, nn.Module]:
    torch.manual_seed(0)
    return {m: nn.Linear(6, 4).double() for m in MODALITIES}


def inputs() -> dict[Modality, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randn(CLIPS, 6, generator=generator).double() for m in MODALITIES}


def dealt(e: dict[Modality, Tensor]) -> Tensor:
    """What a rank takes of the gathered rows: here losses differ, and DDP takes their mean."""
    return torch.stack(list(e.values()))[:, rank() :: ranks()]


LOSSES: dict[str, Callable[[dict[Modality, Tensor]], Tensor]] = {
    "contrastive": lambda e: contrastive(e, 0.1),
    "consensus": lambda e: consensus(e, "audio", ALPHA),
    "plain consensus": lambda e: consensus(e, "audio", ALPHA, inverse="plain", norm="l2"),
    "rows dealt to the ranks": lambda e: ranks() / CLIPS * dealt(e).pow(3).sum(),
}


class Whole(nn.Module):
    """Embeds its part of the clips and takes the loss of all."""

    def __init__(self, loss: Callable[[dict[Modality, Tensor]], Tensor]) -> None:
        super().__init__()
        self.towers, self.loss = nn.ModuleDict(towers()), loss

    def forward(self, x: dict[Modality, Tensor]) -> Tensor:
        return self.loss({m: gather(F.normalize(self.towers[m](x[m]), dim=1)) for m in x})


def learn(loss: Callable[[dict[Modality, Tensor]], Tensor]) -> dict[str, Any]:
    """The loss, its gradient, and the weights after three steps of SGD."""
    whole = Whole(loss)
    model = DistributedDataParallel(whole) if ranks() > 1 else whole
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    part = {m: x[rank() :: ranks()] for m, x in inputs().items()}
    found: dict[str, Any] = {}
    for step in range(3):
        optimizer.zero_grad()
        value = model(part)
        value.backward()
        if step == 0:
            found |= {f"gradient of {n}": p.grad.clone() for n, p in whole.named_parameters()}
        optimizer.step()
        found[f"loss {step}"] = gather(value.detach()[None]).mean()
    return found | {n: p.detach() for n, p in whole.named_parameters()}


def dealt_batch() -> Batch:
    """A rank's part of the clips."""
    mine = slice(rank(), None, ranks())
    return Batch(torch.arange(CLIPS)[mine], {m: x[mine] for m, x in inputs().items()})


def methods() -> dict[str, Method]:
    """The methods themselves, in double precision on linear towers."""
    torch.manual_seed(1)
    supervised = Supervised(
        towers(),
        (Stage("classify", 1),),
        width=4,
        label="sounding",
        auxiliary=["verb"],
        auxiliary_weight=0.5,
    )
    supervised.attach(toy_clips(CLIPS))
    stages = (Stage("align", 1), Stage("refine", 1))
    mc3 = MC3(towers(), stages, exponents=ALPHA, weight=60.0)
    return {
        "align": mc3,
        "refine": mc3,
        "classify": supervised.double(),
        "recognise": recognising(),
        "groups": grouped(),
        "relate": relating(),
        "tell": telling(),
        "sample": sampling(),
        "fuse": fusing(),
        **clustering(),
        **siamese(),
    }


def recognising() -> Method:
    """A classifier behind AVCL's gate."""
    both = {m: tower for m, tower in towers().items() if m != "text"}
    torch.manual_seed(3)
    method = Classifier(
        both,
        (Stage("recognise", 1),),
        width=4,
        label="verb",
        classes=("cut", "rub", "wash"),
        hidden=(5,),
        fusion=Fusion(4, 3),
    )
    method.attach(toy_clips(CLIPS))
    return method.double()


def looked_at() -> dict[str, Tensor]:
    """A classifier's scores of clips that no number of ranks divides."""
    arguments = TINY | {"label": "verb", "classes": ["cut", "rub", "wash"], "modalities": ["audio"]}
    made = make(classify_small, train_tokenizer(["cut"]), arguments)
    examples = Examples(toy_clips(5), Toy(), made.views, ("audio",))
    scores = Chooser(made.method.eval(), examples, 0)._scores()
    return {name: torch.from_numpy(values.copy()) for name, values in scores.items()}


def grouped() -> Method:
    """CMC whose partners are all clips of a verb."""
    pairs = list(combinations(MODALITIES, 2))
    method = Pairs(
        towers(), (Stage("groups", 1),), {"groups": pairs}, temperature=0.1, groups=["verb"]
    )
    method.attach(toy_clips(CLIPS))
    return method


def relating() -> Method:
    """Relational consensus, on clips of which some have no narration."""

    class Relating(Relational):
        def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
            there = {"text": batch.index % 3 != 0}
            return super().forward(Batch(batch.index, batch.inputs, there), Stage("refine", 1))

    stages = (Stage("align", 1), Stage("refine", 1))
    return Relating(towers(), stages, temperature=0.1, weight=3.0)


def telling() -> Method:
    """Posterior consensus, on clips of which some have no narration."""

    def narrated(batch: Batch) -> Batch:
        return Batch(batch.index, batch.inputs, {"text": batch.index % 3 != 0})

    class Telling(Posterior):
        def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
            return super().forward(narrated(batch), refining)

    refining = Stage("refine", 1)
    method = Telling(towers(), (refining,), temperature=0.1, weight=3.0)
    method.attach(toy_clips(CLIPS))
    with torch.no_grad():
        seen = method.survey(narrated(dealt_batch()))
    method.begin(refining, partial(dict, seen))
    return method


def sampling() -> Method:
    """CM-ACC with a dictionary that is full, and small enough for its choice to matter."""
    av = {m: tower for m, tower in towers().items() if m != "text"}
    sizes = {"keys": 6, "pool": 8, "enqueue": 3}
    stages = (Stage("sample", 1),)
    method = CMACC(av, stages, width=4, temperature=0.1, momentum=0.9, **sizes).double()
    for _ in range(2):
        method(dealt_batch(), stages[0])
    return method


def fusing() -> Method:
    """AVCL on towers with batch norm, aligned at their maps and at their gated features."""

    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.Conv3d(1, 4, (1, 2, 2)), nn.BatchNorm3d(4), nn.Softplus())
            self.layers = over_ranks(nn.Sequential(*layers))

        def maps(self, x: Tensor) -> dict[str, Tensor]:
            conv5 = self.layers(x.view(-1, 1, 1, 2, 3))
            return {"conv5": conv5, "pool": conv5.mean((2, 3, 4))}

    torch.manual_seed(2)
    towers: dict[Modality, nn.Module] = {m: Mapped() for m in ("video", "audio")}
    weights = {"correlation_weight": 0.9, "contrast_weight": 0.1, "off_diagonal": 0.005}
    return AVCL(
        towers,
        (Stage("fuse", 1),),
        fusion=Fusion(4, 6),
        temperature=0.1,
        layers=("conv5", "pool"),
        **weights,
    ).double()


def clustering() -> dict[str, Method]:
    """XDC and CDC on towers with batch norm, each rank with the features of its own clips."""

    def network() -> nn.Module:
        layers = (nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), SharedBatchNorm2d(4))
        return nn.Sequential(*layers, nn.Flatten())

    made: dict[str, Method] = {}
    for name, policy in {"cross": crossed, "concatenate": concatenated}.items():
        torch.manual_seed(4)
        rounds = Rounds(rounds=1, unit=True, assignment="sinkhorn" if name == "cross" else "kmeans")
        method = DeepCluster(
            {m: network() for m in ("video", "audio")},
            rounds.stages,
            routes=policy(("video", "audio")),
            clusters={"video": 3, "audio": 2, "video+audio": 3},
            width=8,
            rounds=rounds,
        ).double()
        method.attach(toy_clips(CLIPS))
        with torch.no_grad():
            seen = method.eval().survey(dealt_batch())
        method.begin(rounds.stages[0], partial(dict, seen))
        made[name] = method.train()
    return made


def siamese() -> dict[str, Method]:
    """AVCL's rivals, two steps on, with batch norm in their heads."""
    stages = (Stage("two networks", 3),)

    def each(*widths: int) -> dict[Modality, nn.Module]:
        return {m: perceptron(*widths) for m in ("video", "audio")}

    def common() -> dict[str, Any]:
        torch.manual_seed(3)
        av = {m: tower for m, tower in towers().items() if m != "text"}
        return {"towers": av, "stages": stages, "heads": each(4, 5, 4)}

    bank = {"negatives": 5, "momentum": 0.5, "broken": "shuffle", "bank": CLIPS}
    made: dict[str, Method] = {
        "simclr": SimCLR(**common(), temperature=0.1),
        "barlow": BarlowTwins(**common(), off_diagonal=0.01),
        "simsiam": SimSiam(**common(), predictors=each(4, 3, 4)),
        "byol": BYOL(**common(), predictors=each(4, 3, 4), momentum=0.9),
        "moco": MoCo(**common(), width=4, temperature=0.1, momentum=0.9, keys=12),
        "iic": IIC(**common(), width=4, temperature=0.1, **bank),
    }
    for method in made.values():
        method.double().attach(toy_clips(CLIPS))
        with torch.no_grad():
            seen = method.eval().survey(dealt_batch())
        method.train().begin(stages[0], partial(dict, seen))
        for _ in range(2):
            method(dealt_batch(), stages[0])
    return made


def terms_and_gradients(method: Method, stage: str) -> dict[str, Any]:
    model = DistributedDataParallel(method) if ranks() > 1 else method
    method.zero_grad()
    terms = model(dealt_batch(), Stage(stage, 1))
    sum(terms.values()).backward()
    moving = {n: p for n, p in method.named_parameters() if p.requires_grad}
    gradients = {f"gradient of {n}": p.grad.clone() for n, p in moving.items()}
    state = {n: x.clone() for n, x in method.state_dict().items()}
    return {name: term.detach() for name, term in terms.items()} | gradients | state


def everything(folder: Path) -> dict[str, dict[str, Any]]:
    """All that must not depend on the number of ranks."""
    found = {name: learn(loss) for name, loss in LOSSES.items()}
    found |= {stage: terms_and_gradients(m, stage) for stage, m in methods().items()}
    x = torch.arange(CLIPS)[rank() :: ranks()]
    found["gathered"] = {"rows": gather(x).sort().values, "largest": largest(x.max().clone())}
    found["looked at"] = looked_at()
    made = make(mc3_small, train_tokenizer(["cut"]), TINY)
    moved, _ = _movable(made, made.method.stages[0])
    assert not getattr(moved, "broadcast_buffers", False), "labels are sent at each step"
    arguments = TINY | {"align_epochs": 1, "refine_epochs": 1}
    train(mc3_small, arguments, toy_clips(16), folder, media=Toy(), workers=0)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found["trained"] = torch.load(folder / "last.pt", weights_only=True)["model"]
    found["losses"] = {"all": torch.tensor([line["loss"] for line in lines])}
    found["gradients"] = {"all": torch.tensor([line["gradient"] for line in lines])}
    return found


def one_rank(number: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=count
    )
    assert alike(3, -4, True) and not alike(3, number)
    found = everything(folder / "run")
    torch.save(found, folder / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return everything(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_do_what_one_process_does(
    count: int, tmp_path: Path, alone: dict[str, dict[str, Any]]
) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=one_rank, args=(k, count, tmp_path)) for k in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    for number in range(count):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        for name in alone:
            close = CLOSE.get(name, 1e-6)
            torch.testing.assert_close(found[name], alone[name], atol=close, rtol=close)


def apart(number: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2
    )
    with pytest.raises(UsageError, match="must be one that all machines share"):
        train(mc3_small, TINY, toy_clips(16), folder / f"{number}", media=Toy(), workers=0)
    dist.destroy_process_group()


def test_ranks_that_find_other_runs_in_the_folder_say_so(tmp_path: Path) -> None:
    arguments = TINY | {"align_epochs": 0, "refine_epochs": 0}
    train(mc3_small, arguments, toy_clips(16), tmp_path / "0", media=Toy(), workers=0)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=apart, args=(number, tmp_path)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_a_rank_that_fails_does_not_wait_for_the_others(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nccl's end waits for ranks that wait in a collective; to end the process ends them."""
    did: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: backend == "nccl")
    monkeypatch.setattr("torch.cuda.set_device", lambda device: did.append(str(device)))
    monkeypatch.setattr(dist, "init_process_group", lambda name, timeout: did.append(name))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: did.append("ended"))
    begun = ["cuda:1", "nccl"] if backend == "nccl" else ["gloo"]
    with together():
        pass
    assert did == [*begun, "ended"]
    with pytest.raises(ValueError, match="a clip"), together():
        raise ValueError("a clip cannot be read")
    assert did[len(begun) + 1 :] == (begun if backend == "nccl" else [*begun, "ended"])

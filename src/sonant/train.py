"""The loop: stages, steps, checkpoints. It knows no method.

A run is a folder: record.json (recipe, arguments, data, versions), tokenizer.json, log.jsonl,
last.pt (where to go on), and the weights at the end of each stage. The same call goes on with an
interrupted run and leaves a finished one alone. On a processor an interrupted run ends bit for bit
as one that was not; on accelerators, whose sums have no fixed order, to rounding.
"""

import hashlib
import json
import math
import os
import platform
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sonant import __version__, chunks
from sonant.checkpoint import (
    Checkpoint,
    RecipeFunction,
    check_same_published,
    data_differences,
    data_record,
    defaults,
    done,
    file_digest,
    files_differences,
    files_record,
    fill,
    load_towers,
    make,
    read_record,
    save_weights,
    start_digest,
    weights_path,
    words_of,
)
from sonant.clips import Clips
from sonant.data import Array, Cache, Examples, Reader, Request, loader, requests, to_device
from sonant.distributed import alike, barrier, device, largest, rank, ranks, together
from sonant.errors import SonantError, UsageError, at_least
from sonant.files import replacing, why
from sonant.log import Line, Log, agreement
from sonant.media.text import Tokenizer, train_tokenizer
from sonant.methods.avcl import avcl, avcl_small
from sonant.methods.avts import avts, avts_small
from sonant.methods.classify import (
    classes,
    classify,
    classify_small,
    classify_xdc,
    supervised,
    supervised_small,
)
from sonant.methods.cm_acc import cm_acc, cm_acc_small
from sonant.methods.deepcluster import (
    cdc,
    cdc_small,
    mdc,
    mdc_small,
    same_modality,
    same_modality_small,
    sdc,
    sdc_small,
    xdc,
    xdc_final,
    xdc_final_small,
    xdc_small,
)
from sonant.methods.frozen import mc3_frozen
from sonant.methods.mc3 import mc3, mc3_small
from sonant.methods.method import Method, Opening, Recipe
from sonant.methods.pairs import (
    av,
    av_small,
    clap,
    clap_small,
    cmc,
    cmc_small,
    imagebind,
    imagebind_small,
)
from sonant.methods.posterior import posterior_consensus, posterior_consensus_small
from sonant.methods.relational import relational_consensus, relational_consensus_small
from sonant.methods.siamese import (
    barlow_twins,
    barlow_twins_small,
    byol,
    byol_small,
    iic,
    iic_small,
    moco,
    moco_small,
    simclr,
    simclr_small,
    simsiam,
    simsiam_small,
)
from sonant.schedule import learning_rate
from sonant.types import Batch, Stage
from sonant.validation import Chooser, Validation

RECIPES: Mapping[str, RecipeFunction] = {
    "mc3": mc3,
    "mc3-small": mc3_small,
    "mc3-frozen": mc3_frozen,
    "posterior": posterior_consensus,
    "posterior-small": posterior_consensus_small,
    "relational": relational_consensus,
    "relational-small": relational_consensus_small,
    "clap": clap,
    "clap-small": clap_small,
    "cm-acc": cm_acc,
    "cm-acc-small": cm_acc_small,
    "av": av,
    "av-small": av_small,
    "cmc": cmc,
    "cmc-small": cmc_small,
    "imagebind": imagebind,
    "imagebind-small": imagebind_small,
    "avcl": avcl,
    "avcl-small": avcl_small,
    "simclr": simclr,
    "simclr-small": simclr_small,
    "moco": moco,
    "moco-small": moco_small,
    "byol": byol,
    "byol-small": byol_small,
    "simsiam": simsiam,
    "simsiam-small": simsiam_small,
    "barlow-twins": barlow_twins,
    "barlow-twins-small": barlow_twins_small,
    "iic": iic,
    "iic-small": iic_small,
    "sdc": sdc,
    "sdc-small": sdc_small,
    "mdc": mdc,
    "mdc-small": mdc_small,
    "cdc": cdc,
    "cdc-small": cdc_small,
    "xdc": xdc,
    "xdc-small": xdc_small,
    "same-modality": same_modality,
    "same-modality-small": same_modality_small,
    "xdc-final": xdc_final,
    "xdc-final-small": xdc_final_small,
    "avts": avts,
    "avts-small": avts_small,
    "supervised": supervised,
    "supervised-small": supervised_small,
    "classify": classify,
    "classify-xdc": classify_xdc,
    "classify-small": classify_small,
}
"""What `sonant train` offers; any other function of the kind can be trained from Python."""

SAVING = 0.05
"""Most of the time that checkpoints may take."""
APART = (
    "the processes do not find the same there: the folder of a run must be one that all machines "
    "share, and see alike"
)
AGREEMENT_EVERY = 20
"""Steps between looks at how the embeddings lie, which cost a forward pass; every epoch ends with
one too."""


class Stopped(SonantError):  # noqa: N818
    """Training was told to end, saved, and can go on."""

    exit_code = 143


def train(
    recipe: RecipeFunction,
    arguments: Mapping[str, Any],
    clips: Clips,
    run: Path,
    *,
    media: Reader,
    initial: Path | None = None,
    like: Path | None = None,
    validation: Validation | None = None,
    workers: int = 2,
    cache: Path | Cache | None = None,
    save_every: int = 100,
) -> None:
    """Train a method, or go on where an earlier call was interrupted.

    Under torchrun every process makes this call; the result is that of one process, to rounding.

    Args:
        recipe: a typed function of a module, from a tokenizer and keywords to a `Recipe`.
        arguments: its keywords, as JSON can hold them; defaults are recorded too.
        clips: the training clips, none of them quarantined.
        run: the folder of the run.
        media: reads the clips by their row in `clips`, such as a pack of them.
        initial: weights whose towers the method begins with, such as those at the end of another
            run's first stage; the stage that follows there then ends as it would have there.
        like: a run that began with weights published by others, which this one is to begin with,
            too.
        validation: clips that choose, after each epoch, whether it is the best so far; a stage then
            ends with the weights of its best epoch. None ends with those of the last.
        workers: processes a rank that decode ahead; 0 decodes in between.
        cache: for decoded clips, for later epochs and other runs; None decodes each time.
        save_every: steps between checkpoints, at least: they take no more than a twentieth of the
            time.

    Raises:
        UsageError: clips or arguments do not fit the recipe (clips are as long as its `seconds`),
            published weights are no longer those of `like`, or the folder holds another run that
            has come as far as a checkpoint.
        Stopped: SIGTERM came; the state is saved. SIGINT saves too, and is KeyboardInterrupt.
        SonantError: a clip cannot be read, the cache not kept, or the loss is not finite.
    """
    run = Path(run)
    at_least(0, workers=workers)
    at_least(1, save_every=save_every)
    with together(), torch.random.fork_rng(_devices()), _told_to_stop() as stop:
        if (clips.column("quarantine") != "").any():
            raise UsageError("some of the training clips are quarantined; leave them out")
        there, going = _read_record(run)
        tokenizer = Tokenizer.read(run / "tokenizer.json") if there else None
        arguments = _with_classes(recipe, arguments, clips)
        tokenizer = tokenizer or _tokenizer(clips, recipe, arguments, initial)
        made = make(recipe, tokenizer, arguments)
        record = _record(recipe, arguments, made, clips, initial, validation, there)
        if there:
            _compare(there, record, run)
        if _finished(run, there, made.method):
            return
        _check(made, clips)
        began = "" if going else _begin(made, initial, like or (run if there else None), record)
        made.method.to(device())
        examples = _examples(made, clips, media, cache)
        chooser = _chooser(made, validation, clips, cache, workers)
        if any(stage.epochs for stage in made.method.stages):
            examples.check_text()
            began = "\n".join(filter(None, [began, examples.check_media()]))
        if rank() == 0 and not going:
            _keep(run, made, record)
        _Run(made, examples, run, stop, workers, save_every, began, chooser).go()


def _devices() -> list[torch.device]:
    """Those with a generator that training seeds, besides the processor's."""
    return [device()] if device().type == "cuda" else []


def _read_record(run: Path) -> tuple[dict[str, Any], bool]:
    """The record of the run in a folder, empty if there are no weights; and if there is a state.

    Weights without a state are of a run that was killed between the two: it begins again.
    """
    going = (run / "last.pt").is_file()
    begun = going or any(run.glob("*.safetensors"))
    if not alike(begun, going):
        raise UsageError(f"{run}: {APART}")
    if begun and not (run / "record.json").is_file():
        raise UsageError(f"{run}: holds a checkpoint but no record.json; choose another folder")
    return (read_record(run) if begun else {}), going


def _finished(run: Path, there: Mapping[str, Any], method: Method) -> bool:
    """Whether nothing is left to be done, which all ranks must find."""
    finished = bool(there) and done(run, method)
    if not alike(finished):
        raise UsageError(f"{run}: {APART}")
    return finished


def _tokenizer(
    clips: Clips, recipe: RecipeFunction, arguments: Mapping[str, Any], initial: Path | None
) -> Tokenizer:
    """A new run's: the published one that the argument `vocabulary` names, or else that of the
    text tower which the run begins with, or of the narrations.
    """
    known = words_of(initial) if initial else None
    published = (defaults(recipe) | dict(arguments)).get("vocabulary")
    if not published:
        return known or train_tokenizer(list(clips.column("text")))
    tokenizer = Tokenizer.published(published)
    if known and not known.alike(tokenizer):
        raise UsageError(
            f"{initial}: its text tower was trained with other words than those of {published}; "
            "name the vocabulary of its run"
        )
    return tokenizer


def _with_classes(
    recipe: RecipeFunction, arguments: Mapping[str, Any], clips: Clips
) -> Mapping[str, Any]:
    """With the classes that a recipe asks for and is not given: those of its label in the clips."""
    given = defaults(recipe) | dict(arguments)
    if "label" not in given or given.get("classes", "none asked for"):
        return arguments
    return {**arguments, "classes": classes(clips, given["label"])}


def _examples(made: Recipe, clips: Clips, media: Reader, cache: Path | Cache | None) -> Examples:
    """The training clips as the method takes them; it has taken note of them."""
    method = made.method
    method.attach(clips)
    examples = Examples(clips, media, made.views, method.modalities, cache, partial=method.partial)
    examples.check_lengths()
    return examples


def _chooser(
    made: Recipe,
    validation: Validation | None,
    clips: Clips,
    cache: Path | Cache | None,
    workers: int,
) -> Chooser | None:
    """What chooses the best epoch, if anything does."""
    if validation is None:
        return None
    method = made.method
    validation.check(method, clips)
    examples = Examples(validation.clips, validation.media, made.views, method.modalities, cache)
    examples.check_lengths()
    return Chooser(method, examples, workers)


def _begin(made: Recipe, initial: Path | None, like: Path | None, record: dict[str, Any]) -> str:
    """Fill a new run's method; returns what was taken from where, in words, and records it."""
    said = [made.initialise()] if made.initialise else []
    if initial is not None:
        said.append(load_towers(made.method, initial))
    if made.initialise:
        record["began_with"] = start_digest(made)
        if like is not None:
            check_same_published(like, record["began_with"])
    made.method.started()
    return "\n".join(said)


def _record(
    recipe: RecipeFunction,
    arguments: Mapping[str, Any],
    made: Recipe,
    clips: Clips,
    initial: Path | None,
    validation: Validation | None,
    there: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run is; files that it was made from and that are gone since are taken for the same."""
    gone = initial is not None and bool(there) and not initial.is_file()
    began = there.get("initial") if gone else initial and file_digest(initial)
    record = {
        "recipe": f"{recipe.__module__}:{recipe.__qualname__}",
        "arguments": defaults(recipe) | dict(arguments),
        "initial": began,
        **data_record(clips, made.method.labels),
        "files": files_record(made.method, there),
        "validation": validation and data_record(validation.clips, made.method.labels),
        "precision": made.precision,
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device().type,
        "ranks": ranks(),
    }
    try:
        return dict(json.loads(json.dumps(record)))
    except TypeError as error:
        raise UsageError(f"arguments of a recipe are what JSON can hold: {error}") from error


def _keep(run: Path, made: Recipe, record: Mapping[str, Any]) -> None:
    """Write what a run is into its folder."""
    made.views.tokenizer.save(run / "tokenizer.json")
    with replacing(run / "record.json") as unfinished:
        unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _compare(there: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """A run goes on only as what it began as."""
    if there["recipe"] != wanted["recipe"]:
        differing = [f"recipe: {there['recipe']} there, {wanted['recipe']} wanted"]
    else:
        old, new = there["arguments"], wanted["arguments"]
        differing = [
            f"{name}: {old.get(name, 'none')!r} there, {new.get(name, 'none')!r} wanted"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
    if there.get("initial") != wanted["initial"]:
        differing.append("initial: other weights to begin with")
    if there.get("validation") != wanted["validation"]:
        differing.append("validation: other clips, or none, to choose the best epoch by")
    differing += data_differences(there, wanted) + files_differences(there, wanted)
    if differing:
        raise UsageError(
            f"{run}: is the folder of another run; choose another, or ask for the same:\n  "
            + "\n  ".join(differing)
        )


def _check(made: Recipe, clips: Clips) -> None:
    if made.batch % ranks():
        raise UsageError(f"a batch of {made.batch} cannot be dealt to {ranks()} processes evenly")
    if len(made.learning_rates) != len(made.method.stages):
        raise UsageError(
            f"{len(made.learning_rates)} learning rates for {len(made.method.stages)} stages"
        )
    if len(clips) < made.batch and any(stage.epochs for stage in made.method.stages):
        raise UsageError(
            f"{len(clips)} clips fill no batch of {made.batch}; ask for smaller batches"
        )


@dataclass
class _Run:
    made: Recipe
    examples: Examples
    run: Path
    stop: "_Stop"
    workers: int
    save_every: int
    began: str
    """What its first weights were taken from, in words."""
    chooser: Chooser | None = None
    """Of the epoch whose weights a stage ends with; None takes the last one's."""
    log: Log = field(init=False)
    lines: list[Line] = field(default_factory=list)
    opened: Line = field(default_factory=dict)
    """What the beginning of the stage found, until the log has it."""
    waited: float = 0.0
    since: float = 0.0
    saved: float = -math.inf
    """When the last checkpoint was written, and how many seconds that took."""
    saving: float = 0.0

    @property
    def method(self) -> Method:
        return self.made.method

    @property
    def precision(self) -> torch.dtype:
        """Of the towers."""
        return torch.bfloat16 if self.made.precision == "bf16" else torch.float32

    def _mixed(self, batch: Batch) -> torch.autocast:
        """The context in which towers see a batch."""
        here, precision = batch.index.device.type, self.precision
        return torch.autocast(here, precision, enabled=precision != torch.float32)

    def go(self) -> None:
        last = self.run / "last.pt"
        there = Checkpoint.read(last) if last.is_file() else None
        if there is not None:
            fill(self.method, there.model, last)
            if self.chooser is not None:
                self.chooser.best = there.best
        number, step = (0, 0) if there is None else (there.stage, there.step)
        if not alike(number, step):
            raise UsageError(f"{self.run}: {APART}")
        state = {} if there is None else there.optimizer
        self.log = Log(
            self.run / "log.jsonl" if rank() == 0 else None, keep=there.log if there else 0
        )
        with self.log:
            if self.began:
                self.log.say(self.began)
            for stage in self.method.stages[number:]:
                self._stage(number, stage, step, state)
                number, step, state = number + 1, 0, {}

    def _stage(self, number: int, stage: Stage, step: int, state: dict[str, Any]) -> None:
        made = self.made
        steps = stage.epochs * (len(self.examples) // made.batch)
        if step == 0:
            steps *= self._open(stage)
            self._look_ahead(steps)
        if step == 0 and stage.begun_share:
            if rank() == 0:
                save_weights(self.method, self._begun(stage))
            barrier()
        model, optimizer = _movable(made, stage)
        if state:
            optimizer.load_state_dict(state)
        self.log.begin(stage.name, done=step, steps=steps)
        for batch in self._batches(stage, step, steps):
            peak = made.learning_rates[number]
            rate = learning_rate(
                step,
                steps=steps,
                peak=peak,
                warmup=made.warmup,
                milestones=made.milestones,
                gamma=made.gamma,
            )
            line = self._step(model, optimizer, batch, stage, step, rate)
            step += 1
            line |= self._judge(step)
            self._tell(line, stage, step, steps)
            stopping, saving = self.stop.agreed(self._due(step))
            if stopping or saving:
                self._save(number, step, optimizer.state_dict())
            if stopping:
                self.stop.leave(f"{self.run}: stopped and saved at step {step} of {stage.name}")
        if self.chooser is not None and self.chooser.best:
            self.log.say(self.chooser.restore())
        self._mix(stage)
        if rank() == 0:
            path, without = weights_path(self.run, stage), self.method.clip_buffers
            save_weights(self.method, path, without=without)
        self._save(number + 1, 0, {})
        if rank() == 0:
            self._begun(stage).unlink(missing_ok=True)

    def _look_ahead(self, steps: int) -> None:
        """Judge before anything is learned, so that clips that cannot choose are found out."""
        if self.chooser is not None and steps:
            with _evaluating(self.method):
                self.chooser.merit()

    def _judge(self, step: int) -> Line:
        """After an epoch's last step, how good the method is; it does not count in its time."""
        per_epoch = len(self.examples) // self.made.batch
        if self.chooser is None or step % per_epoch:
            return {}
        before = time.perf_counter()
        with _evaluating(self.method):
            found = self.chooser.judge(step // per_epoch - 1)
        self.since += time.perf_counter() - before
        return found

    def _open(self, stage: Stage) -> bool:
        """Let the method prepare for a stage; returns whether it has anything to learn there."""
        torch.manual_seed(_seed(self.made.seed, stage.name, "begin"))
        with _evaluating(self.method):
            opening = self.method.begin(stage, self._features) or Opening()
        self.opened = dict(opening.line)
        if opening.said:
            self.log.say(opening.said)
        if opening.table is not None and rank() == 0:
            with replacing(self.run / f"{stage.name}.parquet") as unfinished:
                pq.write_table(opening.table, unfinished)
        return not opening.skip

    def _begun(self, stage: Stage) -> Path:
        """Where the weights that a stage began with are kept, if it ends with a share of them."""
        return self.run / f"{stage.name}.begun"

    def _mix(self, stage: Stage) -> None:
        """Let the method have its share of the weights that the stage began with."""
        if not stage.begun_share:
            return
        begun, mixed = load_file(self._begun(stage)), set[int]()
        with torch.no_grad():
            for name, x in self.method.state_dict().items():
                if name in begun and x.is_floating_point() and x.data_ptr() not in mixed:
                    x.lerp_(begun[name].to(x), stage.begun_share)
                    mixed.add(x.data_ptr())

    def _batches(self, stage: Stage, step: int, steps: int) -> Iterator[Batch]:
        """The rest of a stage's batches, with the time spent waiting for them noted."""
        if step >= steps:
            return
        asked = requests(
            len(self.examples),
            batch=self.made.batch,
            epochs=stage.epochs,
            seed=self.made.seed,
            stage=stage.name,
            first=step,
            rank=rank(),
            ranks=ranks(),
            drawn=lambda epoch: self.method.order(
                len(self.examples), seed=self.made.seed, stage=stage, epoch=epoch
            ),
        )
        batches = loader(self.examples, asked, workers=self.workers)
        self.since = before = time.perf_counter()
        for batch in batches:
            self.waited = time.perf_counter() - before
            yield to_device(batch, device())
            before = time.perf_counter()

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: Batch,
        stage: Stage,
        step: int,
        rate: float,
    ) -> Line:
        torch.manual_seed(_seed(self.made.seed, stage.name, step, rank()))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.zero_grad()
        terms = self._backward(model, batch, stage, step)
        loss = torch.stack(list(terms.values())).sum()
        norm = nn.utils.clip_grad_norm_(model.parameters(), self.made.clip_norm)
        self._demand_finite(terms | {"gradient": norm}, batch, stage, step)
        optimizer.step()
        return {
            "loss": float(loss.detach()),
            "terms": {name: float(term.detach()) for name, term in terms.items()},
            "gradient": float(norm),
            "rate": rate,
        } | self._look(batch, step)

    def _backward(
        self, model: nn.Module, batch: Batch, stage: Stage, step: int
    ) -> dict[str, Tensor]:
        """The terms of the loss, whose gradient is added to the parameters."""
        made = self.made
        if made.chunk:
            seed = _seed(made.seed, stage.name, step, rank())
            return chunks.backward(
                self.method, batch, stage, chunk=made.chunk, seed=seed, autocast=self.precision
            )
        with self._mixed(batch):
            terms: dict[str, Tensor] = model(batch, stage)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return terms

    def _demand_finite(
        self, terms: Mapping[str, Tensor], batch: Batch, stage: Stage, step: int
    ) -> None:
        """Stop, on all ranks, before anything that is not a number reaches the weights."""
        bad = [name for name, term in terms.items() if not term.detach().isfinite()]
        if not float(largest(torch.tensor(float(bool(bad)), device=batch.index.device))):
            return
        guilty = self._guilty(batch)
        index = batch.index.cpu().numpy()
        ids = list(self.examples.ids[index[guilty] if guilty.any() else index])
        which = (
            "clips whose embeddings are not finite:"
            if guilty.any()
            else "every embedding is finite; the batch was"
        )
        raise SonantError(
            f"{self.run}: {', '.join(bad) or 'a term of another rank'} not finite at step {step} "
            f"of {stage.name}, before the weights were changed; {which} {', '.join(ids[:8])}"
            + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        )

    def _guilty(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which clips have embeddings that are not finite."""
        found = []
        size = self.made.chunk or len(batch.index)
        for first in range(0, len(batch.index), size):
            part = batch.part(slice(first, first + size))
            with torch.no_grad():
                e = self.method.embed(part)
            bad = {m: ~x.isfinite().all(1) for m, x in e.items()}
            found.append(torch.stack([x & part.there.get(m, x) for m, x in bad.items()]).any(0))
        return torch.cat(found).cpu().numpy()

    def _look(self, batch: Batch, step: int) -> Line:
        ends = (step + 1) % (len(self.examples) // self.made.batch) == 0
        if rank() or not (ends or step % AGREEMENT_EVERY == 0):
            return {}
        seen = batch.part(slice(self.made.chunk or None))
        with torch.no_grad(), self._mixed(batch), _evaluating(self.method):
            e = self.method.embed(seen)
        there = {m: x[seen.there[m]] if m in seen.there else x for m, x in e.items()}
        if bad := [m for m, x in there.items() if not x.isfinite().all()]:
            raise SonantError(
                f"{self.run}: after step {step} the embeddings of {', '.join(bad)} are not finite; "
                "a lower rate may help"
            )
        return agreement(e, seen.there)

    def _tell(self, line: Line, stage: Stage, step: int, steps: int) -> None:
        now = time.perf_counter()
        took, self.since = now - self.since, now
        per_epoch = steps // stage.epochs
        line = (
            {
                "stage": stage.name,
                "epoch": (step - 1) // per_epoch,
                "step": step - 1,
                "seconds": round(took, 4),
                "waiting": round(self.waited / took, 4),
                "clips_per_second": round(self.made.batch / took, 2),
            }
            | line
            | self.opened
        )
        self.opened = {}
        self.log.step(line)
        self.lines.append(line)
        if step % per_epoch == 0:
            self.log.say(_epoch_line(self.lines))
            self.lines = []

    def _due(self, step: int) -> bool:
        """Whether a checkpoint is to be written, which takes little of the time."""
        enough = time.perf_counter() - self.saved > self.saving / SAVING
        return step % self.save_every == 0 and enough

    def _save(self, number: int, step: int, optimizer: dict[str, Any]) -> None:
        before, kept = time.perf_counter(), self.examples.kept
        if kept is not None:
            kept.save(rank())
        if rank() == 0:
            model = {name: x.cpu() for name, x in self.method.state_dict().items()}
            best = {} if self.chooser is None else self.chooser.best
            state = Checkpoint(number, step, model, optimizer, self.log.position(), best)
            state.write(self.run / "last.pt")
        barrier()
        if kept is not None:
            kept.learn()
        self.saved = time.perf_counter()
        self.saving = self.saved - before

    def _features(self) -> Mapping[str, Array]:
        """This rank's training clips as the method surveys them now: maps of files, one a name."""
        rows = np.arange(len(self.examples))[rank() :: ranks()]
        parts = max(1, len(self.examples) // ranks() // 128)
        asked = [Request(part) for part in np.array_split(rows, parts)]
        found: dict[str, Array] = {}
        first = 0
        for batch in loader(self.examples, asked, workers=self.workers):
            with torch.no_grad():
                seen = self.method.survey(to_device(batch, device()))
            for name, x in seen.items():
                if name not in found:
                    found[name] = self._survey(name, (len(rows), x.shape[1]))
                found[name][first : first + len(x)] = x.to(self.method.surveyed).cpu().numpy()
            first += len(batch.index)
            if self.stop.agreed()[0]:
                self.stop.leave(f"{self.run}: stopped while a stage began")
        return found

    def _survey(self, name: str, shape: tuple[int, ...]) -> Array:
        """Space on disk that is given back once nobody reads it any more."""
        kind = np.float16 if self.method.surveyed == torch.float16 else np.float32
        if not shape[0]:
            return np.empty(shape, kind)
        size = np.dtype(kind).itemsize * math.prod(shape)
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.run) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, kind, "r+", shape=shape)
        except OSError as error:
            raise SonantError(
                f"{self.run}: features of {name} ({size / 1e9:.3g} GB) cannot be kept there: "
                f"{why(error)}"
            ) from error


def _movable(made: Recipe, stage: Stage) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The method ready for a stage: only its towers move, over all ranks alike."""
    method = made.method.train()
    method.zero_grad()
    for modality, tower in method.towers.items():
        moves = stage.train is None or modality in stage.train
        tower.requires_grad_(moves).train(moves)
    moving = [p for p in method.parameters() if p.requires_grad]
    if not moving:
        raise UsageError(f"nothing moves in stage {stage.name}")
    groups = _groups(moving, made.weight_decay)
    if made.head_rate != 1:
        begun = (method.get_submodule(name) for name in ("towers", *method.inherited))
        towers = {p for module in begun for p in module.parameters()}
        groups = _groups([p for p in moving if p in towers], made.weight_decay)
        heads = _groups([p for p in moving if p not in towers], made.weight_decay)
        groups += [group | {"factor": made.head_rate} for group in heads]
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, lr=0.0)
        if made.momentum is None
        else torch.optim.SGD(groups, lr=0.0, momentum=made.momentum)
    )
    if ranks() == 1 or made.chunk:
        return method, optimizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its successor is not in all torch we take
        return DistributedDataParallel(method, broadcast_buffers=False), optimizer


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels, which decay, and biases and scales, which do not."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _evaluating(method: Method) -> Iterator[None]:
    """In evaluation mode; what was in training mode returns to it."""
    training = [module for module in method.modules() if module.training]
    method.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _seed(*parts: object) -> int:
    """A seed for each step, so that there is no generator to save."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


class _Stop:
    """Whether a signal asked for the end, on any rank."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note it; a second Ctrl-C is not held back. SIGTERM comes twice where torchrun is told."""
        self.signal = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    def agreed(self, due: bool = False) -> tuple[bool, bool]:
        """Agree over ranks, of which one may have had the signal, and on what rank 0 finds due."""
        mine = torch.tensor([self.signal, due and rank() == 0], device=device())
        self.signal, saving = map(int, largest(mine).tolist())
        return bool(self.signal), bool(saving)

    def leave(self, said: str) -> None:
        """Raise what fits the signal."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(said)
        raise Stopped(f"{said}; the same command goes on")


@contextmanager
def _told_to_stop() -> Iterator[_Stop]:
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _epoch_line(lines: Sequence[Line]) -> str:
    """Means over the steps of an epoch, and how its embeddings lay when last looked at."""
    last = lines[-1]
    terms = {name: np.mean([line["terms"][name] for line in lines]) for name in last["terms"]}
    seconds = sum(line["seconds"] for line in lines)
    clips = sum(line["seconds"] * line["clips_per_second"] for line in lines)
    waiting = sum(line["seconds"] * line["waiting"] for line in lines)
    parts = [
        f"{last['stage']} epoch {last['epoch'] + 1}:",
        ", ".join(f"{name} {value:.4f}" for name, value in terms.items()),
        f"| {clips / seconds:.0f} clips/s, {waiting / seconds:.0%} waiting",
    ]
    looks = [line for line in lines if "cosine" in line]
    if looks:
        for name in ("cosine", "rank"):
            found = ", ".join(f"{key} {value:.2f}" for key, value in looks[-1][name].items())
            parts.append(f"| {name} {found}" if found else "")
    if "validation" in last:
        best = ", the best so far" if last["best"] else ""
        parts.append(f"| validation {last['validation']:.4f}{best}")
    return " ".join(parts)

"""Methods that learn from labels: the ceilings beside which the others are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.data import Array
from sonant.distributed import gather
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.avcl import Fusion
from sonant.methods.films import SIGHT_SOUND, Films
from sonant.methods.method import Method, Recipe, at_least_fp32, drawn_by
from sonant.methods.moments import Moments
from sonant.methods.parts import Paper, Parts, small, twin
from sonant.metrics.classification import Average, among_best, averaged
from sonant.sources.folds import recordings
from sonant.types import Batch, Modality, Stage

MOST_CLASSES = 256
"""Outputs of an auxiliary head: it is made before the training clips' classes are known, and those
beyond them stand still."""


class Supervised(Method):
    """Predict a yes-or-no label from some modalities, and other labels beside it as a help.

    The towers' outputs stand side by side under a small perceptron. Clips whose label is null
    do not count for that label. Auxiliary classes are the values found in the training clips.

    Args:
        towers: of the modalities to predict from.
        stages: the parts of training; all do the same.
        width: of each tower's output.
        label: column of booleans, or of 0 and 1.
        auxiliary: further label columns.
        auxiliary_weight: of each auxiliary cross entropy.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        width: int,
        label: str,
        auxiliary: Sequence[str],
        auxiliary_weight: float,
    ) -> None:
        super().__init__(towers, stages)
        if not towers:
            raise UsageError("a supervised head wants at least one modality to predict from")
        if len({label, *auxiliary}) != 1 + len(auxiliary):
            raise UsageError(
                f"labels to learn are named once each, not {', '.join((label, *auxiliary))}"
            )
        self.label = label
        self.auxiliary = tuple(auxiliary)
        self.classes: dict[str, list[str]] = {}
        self.auxiliary_weight = auxiliary_weight
        self.mix = nn.Sequential(
            nn.LayerNorm(width * len(towers)), nn.Linear(width * len(towers), 256), nn.GELU()
        )
        sizes = {label: 1} | dict.fromkeys(self.auxiliary, MOST_CLASSES)
        self.heads = nn.ModuleDict({_key(name): nn.Linear(256, n) for name, n in sizes.items()})

    @property
    def labels(self) -> tuple[str, ...]:
        """The label and the auxiliary ones."""
        return (self.label, *self.auxiliary)

    def attach(self, clips: Clips) -> None:
        """Keep each clip's labels: NaN or -1 where there is none."""
        values = [np.nan if x is None else x for x in clips.column(self.label)]
        wrong = {str(x) for x in values if x not in (0, 1) and x == x}
        if wrong:
            raise UsageError(
                f"label {self.label!r} has values such as {', '.join(sorted(wrong)[:5])}; the "
                "label to predict is yes or no: true, false, 0, 1 or null"
            )
        self._keep(self.label, torch.tensor(values, dtype=torch.float32))
        for name in self.auxiliary:
            self.classes[name] = classes(clips, name)
            if not 0 < len(self.classes[name]) <= MOST_CLASSES:
                raise UsageError(
                    f"auxiliary label {name!r} has {len(self.classes[name])} classes; wanted are 1 "
                    f"to {MOST_CLASSES}"
                )
            numbers = {value: number for number, value in enumerate(self.classes[name])}
            found = [numbers.get(str(value), -1) for value in clips.column(name)]
            self._keep(name, torch.tensor(found))

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Cross entropies of the label and of the auxiliary ones."""
        index = gather(batch.index)
        logits = {name: gather(x) for name, x in self.logits(batch).items()}
        truth = self.get_buffer(_key(self.label))[index]
        terms = {self.label: _binary(logits[self.label][:, 0], truth)}
        for name in self.auxiliary:
            known = logits[name][:, : len(self.classes[name])]
            truth = self.get_buffer(_key(name))[index]
            terms[name] = self.auxiliary_weight * _categorical(known, truth)
        return terms

    def logits(self, batch: Batch) -> dict[str, Float[Tensor, "clips classes"]]:
        """Of every label, [clips, 1] for the yes-or-no one; only an auxiliary one's first count."""
        seen = [tower(batch.inputs[cast("Modality", m)]) for m, tower in self.towers.items()]
        mixed = self.mix(torch.cat(seen, 1))
        names = (self.label, *self.auxiliary)
        return {name: at_least_fp32(self.heads[_key(name)](mixed)) for name in names}

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """The logit of the label [clips]."""
        return {self.label: self.logits(batch)[self.label][:, 0]}

    def _keep(self, name: str, values: Tensor) -> None:
        device = next(self.parameters()).device
        self.register_buffer(_key(name), values.to(device), persistent=False)


def supervised(
    tokenizer: Tokenizer,
    *,
    modalities: Sequence[Modality] = ("audio", "video"),
    label: str = "sounding",
    auxiliary: Sequence[str] = (),
    auxiliary_weight: float = 1.0,
    epochs: int = 5,
    rate: float = 3e-5,
    parts: Parts = Paper(),
) -> Recipe:
    """A supervised head on the paper's towers.

    Args:
        tokenizer: of the training narrations.
        modalities: those to predict from.
        label: the yes-or-no label column to predict.
        auxiliary: further label columns to learn beside it, of any values.
        auxiliary_weight: of each auxiliary term.
        epochs: of training.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    towers = parts.towers(tokenizer, modalities)
    with drawn_by(parts.seed):
        method = Supervised(
            towers,
            (Stage("classify", epochs),),
            width=parts.width,
            label=label,
            auxiliary=auxiliary,
            auxiliary_weight=auxiliary_weight,
        )
    return parts.recipe(tokenizer, method, (rate,))


supervised_small = small(
    supervised, "A supervised head on small towers, for a processor.", epochs=8, rate=1e-3
)


class Classifier(Method):
    """Predict one label by fully connected layers over some modalities' towers side by side.

    Clips whose label is null, or none of the classes, do not count in the loss. Layers and loss are
    computed in fp32 whatever the towers run in.

    Args:
        towers: of the modalities to predict from.
        stages: the parts of training; all do the same.
        width: of each tower's output.
        label: column to predict, of any values.
        classes: its values, as strings.
        hidden: widths of the layers between the towers and the classes, with a ReLU after each.
        dropout: share of what a hidden layer gives that the next one does without in training.
        input_dropout: the same share of what the towers give.
        average: what `merit` averages over a recording's clips.
        fusion: AVCL's gate between the towers of video and audio and the layers; it is inherited
            with the towers, and stands still with them.

    Raises:
        UsageError: there is no modality, or fewer than two classes, or one twice, or a number is
            out of its range; or a gate has not both to gate.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        width: int,
        label: str,
        classes: Sequence[str],
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        average: Average = "logits",
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__(towers, stages)
        if not towers:
            raise UsageError("a classifier wants at least one modality to predict from")
        if len(set(classes)) < max(2, len(classes)):
            raise UsageError(
                f"classes of {label!r} are two or more different ones, not "
                f"{', '.join(map(repr, classes)) or 'none'}"
            )
        _share(dropout=dropout, input_dropout=input_dropout)
        self.label, self.classes, self.average = label, tuple(classes), average
        self.head = _layers([width * len(towers), *hidden, len(classes)], input_dropout, dropout)
        self.fusion = fusion
        if fusion is not None:
            if set(self.modalities) != set(SIGHT_SOUND):
                raise UsageError(f"AVCL's gate is of audio and video, not {self.modalities}")
            self.inherited = ("fusion",)
            fusion.requires_grad_(all(stage.train is None for stage in self.stages))

    @property
    def labels(self) -> tuple[str, ...]:
        """The one label."""
        return (self.label,)

    def attach(self, clips: Clips) -> None:
        """Keep each clip's class: -1 where there is none.

        Raises:
            UsageError: no clip is of any of the classes.
        """
        truth = torch.tensor(self._numbers(clips))
        if not (truth >= 0).any():
            raise UsageError(f"no clip to learn from has a {self.label!r} among the classes")
        device = next(self.parameters()).device
        self.register_buffer("truth", truth.to(device), persistent=False)

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """The cross entropy of the label, a mean over the clips that have one."""
        truth = self.get_buffer("truth")[gather(batch.index)]
        return {self.label: _categorical(gather(self.logits(batch)), truth)}

    def logits(self, batch: Batch) -> Float[Tensor, "clips classes"]:
        """One for each class, in the order of `classes`."""
        seen = {m: self.towers[m](batch.inputs[m]) for m in self.modalities}
        with torch.autocast(batch.index.device.type, enabled=False):
            read = {m: at_least_fp32(x) for m, x in seen.items()}
            if self.fusion is not None:
                read["video"], read["audio"] = self.fusion(read["video"], read["audio"])
            found: Tensor = self.head(torch.cat([read[m] for m in self.modalities], 1))
        return found

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """The logit of each class [clips], named `label=class`."""
        logits = self.logits(batch)
        return {f"{self.label}={name}": logits[:, k] for k, name in enumerate(self.classes)}

    def merit(self, scores: Mapping[str, Array], clips: Clips) -> float:
        """Share of the labelled recordings whose class is the best of their clips' mean scores.

        Raises:
            UsageError: none has one of the classes.
        """
        logits = np.stack([scores[f"{self.label}={name}"] for name in self.classes], 1)
        of, truth = recordings(clips), self._numbers(clips)
        _, means = averaged(logits, of, self.average)
        _, first = np.unique(of.astype(str), return_index=True)
        known = truth[first] >= 0
        if not known.any():
            raise UsageError(
                f"none of the {len(known)} recordings that are to choose the best epoch has a "
                f"{self.label!r} that is learned: {', '.join(self.classes[:8])}"
            )
        return float(among_best(means[known], truth[first][known]).mean())

    def _numbers(self, clips: Clips) -> Array:
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers.get(str(value), -1) for value in clips.column(self.label)])


def classify(
    tokenizer: Tokenizer,
    *,
    label: str = "class",
    classes: Sequence[str] = (),
    modalities: Sequence[Modality] = ("audio", "video"),
    frozen: bool = False,
    hidden: Sequence[int] = (512,),
    dropout: float = 0.7,
    input_dropout: float = 0.0,
    fusion: bool = False,
    joint: int = 256,
    average: Average = "logits",
    epochs: int = 150,
    rate: float = 1e-3,
    head_rate: float = 1.0,
    warmup: float = 0.05,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    parts: Parts = Films(weight_decay=5e-3),
) -> Recipe:
    """A label predicted from AVCL's networks: from scratch, or fine-tuned with `--initial`.

    Args:
        tokenizer: of the training narrations; they are read only where text is a modality.
        label: the label column to predict, of any values.
        classes: its values; if none are given, those of the training clips.
        modalities: those to predict from, side by side.
        frozen: leave the towers as they are, batch norms too, and train the layers over them alone.
        hidden: widths of fully connected layers before the last one; the paper gives none.
        dropout: of what goes from one of these layers to the next; AVCL has 0.7.
        input_dropout: of what goes from the towers to the first of them.
        fusion: gate both modalities by each other as AVCL does; `--initial` has the gate, too.
        joint: width inside the gate.
        average: what is averaged over a recording's clips: scores, or their softmax.
        epochs: of training; AVCL fine-tunes for 150.
        rate: peak learning rate of the towers.
        head_rate: that of the layers over them, in times of `rate`.
        warmup: share of the steps in which the rate rises.
        milestones: epochs after which the rate is multiplied by gamma; none: half a cosine.
        gamma: what milestones multiply by.
        parts: towers, views and optimisation.
    """
    at_least(0, warmup=warmup, gamma=gamma)
    above_zero(head_rate=head_rate)
    towers = parts.towers(tokenizer, modalities)
    with drawn_by(parts.seed):
        method = Classifier(
            towers,
            (Stage("classify", epochs, frozenset() if frozen else None),),
            width=parts.width,
            label=label,
            classes=classes,
            hidden=hidden,
            dropout=dropout,
            input_dropout=input_dropout,
            average=average,
            fusion=Fusion(parts.width, joint) if fusion else None,
        )
    return replace(
        parts.recipe(tokenizer, method, (rate,)),
        head_rate=head_rate,
        warmup=warmup,
        milestones=tuple(epoch / max(1, epochs) for epoch in milestones),
        gamma=gamma,
    )


classify_small = small(
    classify,
    "A label predicted from small towers, for a processor.",
    hidden=(),
    dropout=0.0,
    joint=64,
    epochs=30,
)


classify_xdc = twin(
    classify,
    "sonant.methods.classify:classify_xdc",
    "A label predicted from one of XDC's encoders: from scratch, or fine-tuned with `--initial`.",
    modalities=("video",),
    hidden=(),
    dropout=0.0,
    epochs=12,
    rate=2.5e-4,
    head_rate=10.0,
    warmup=2 / 12,
    milestones=(6, 10),
    gamma=0.05,
    parts=Moments(batch=32, weight_decay=5e-3),
)

CLASSIFIERS: Mapping[str, Callable[..., Recipe]] = {
    "classify": classify,
    "classify-xdc": classify_xdc,
    "classify-small": classify_small,
}
"""What `sonant transfer` offers."""


def classes(clips: Clips, label: str) -> list[str]:
    """The values that a label takes, in order."""
    values = clips.column(label).tolist()
    known = {str(value) for value in values if value is not None and value == value}
    return sorted(known - {""})


def _layers(widths: Sequence[int], first: float, between: float) -> nn.Sequential:
    """Fully connected layers through these widths, with dropout before each."""
    at_least(1, **{"widths of layers": min(widths)})
    made: list[nn.Module] = [nn.Dropout(first), nn.Linear(widths[0], widths[1])]
    for wide, narrow in pairwise(widths[1:]):
        made += [nn.ReLU(), nn.Dropout(between), nn.Linear(wide, narrow)]
    return nn.Sequential(*made)


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UsageError(f"{name} must be 0 or more and below 1, not {value}")


def _key(label: str) -> str:
    return f"label_{label}"


def _binary(logits: Float[Tensor, "clips"], truth: Float[Tensor, "clips"]) -> Float[Tensor, ""]:
    known = ~truth.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits, truth.nan_to_num().to(logits.dtype), reduction="none"
    )
    return losses[known].sum() / known.sum().clamp(min=1)


def _categorical(logits: Float[Tensor, "clips n"], classes: Tensor) -> Float[Tensor, ""]:
    losses = F.cross_entropy(logits, classes, ignore_index=-1, reduction="sum")
    return losses / (classes >= 0).sum().clamp(min=1)

"""Methods that learn from labels: the ceilings beside which the others are read."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.clips import Clips
from sonant.distributed import gather
from sonant.errors import UsageError
from sonant.media.text import Tokenizer
from sonant.methods.method import Method, Recipe, at_least_fp32
from sonant.methods.parts import Paper, Parts, small
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
    with torch.random.fork_rng():
        torch.manual_seed(parts.seed)
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


def classes(clips: Clips, label: str) -> list[str]:
    """The values that a label takes, in order."""
    return sorted({str(value) for value in clips.column(label) if value is not None})


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

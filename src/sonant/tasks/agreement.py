"""Clips' own agreement: a score for every clip, and the clips to show that have the most and least.

The product for someone with videos and no truth: a table of how likely each action is to sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.metrics import agreement as agree
from sonant.types import Modality

Array = NDArray[Any]

PAIRS: Mapping[str, tuple[Modality, Modality]] = {
    "AV": ("audio", "video"),
    "AL": ("audio", "text"),
}
BANK = 16_384
"""Most clips that a reference bank holds; a larger split is thinned evenly to them."""


def agreement(
    features: Features,
    clips: Clips,
    *,
    split: str | None = "test",
    reference_split: str | None = "train",
    temperature: float = 0.07,
) -> Features:
    """Score every clip of a split: the columns `AV raw`, `AV centred`, `AV pmi`, `AL raw`, ...

    A pair that no clip has both modalities of has no columns; a clip that lacks one has NaN.

    Args:
        features: of one model.
        clips: the table that it embeds.
        split: as in `discovery`; so are the others.
        reference_split: clips to compare with.
        temperature: of `pmi`.
    """
    judged = clips.where(split=split, quarantined=False)
    here = features.of_clips(judged.column("id"))
    reference, _ = bank(features, clips, judged, reference_split)
    scores: dict[str, Array] = {}
    for pair, (one, other) in PAIRS.items():
        if _together(here, one, other):
            values = _scores(here, reference, (one, other), temperature)
            scores |= {f"{pair} {name}": value for name, value in values.items()}
    if not scores:
        there = ", ".join(features.modalities) or "no modality"
        raise UsageError(
            "agreement needs clips with features of audio, and of video or text; among the "
            f"{len(here)} clips none has both; there are features of {there}"
        )
    return Features.of(here.ids.tolist(), scores=scores, run=features.run, data=features.data)


@dataclass(frozen=True)
class Example:
    """A clip to show: what is said of it, what it scores, and what is true."""

    id: str
    text: str
    video: str
    start: float
    end: float
    score: float
    loudness: float
    sounding: bool | None
    case: str | None


def examples(
    scores: Features,
    clips: Clips,
    loudness: Features,
    *,
    score: str = "AV raw",
    loudest: float = 0.25,
    count: int = 6,
) -> dict[str, list[Example]]:
    """The loudest clips that agree most and least: `agreeing` and `disagreeing`, best first.

    Clips that overlap one already taken are passed over, and no clip is in both lists.

    Args:
        scores: of the clips to choose among, from `agreement`.
        clips: the clip table.
        loudness: features with the score `loudness mean`.
        score: the column of `scores` to choose by.
        loudest: share of the clips that counts as loudest.
        count: clips in each list, fewer where there are not so many.

    Raises:
        UsageError: the share is not in (0, 1].
    """
    if not 0 < loudest <= 1:
        raise UsageError(f"the loudest share of clips must lie in (0, 1], not {loudest}")
    places = {id: row for row, id in enumerate(clips.column("id"))}
    rows = [places[id] for id in scores.ids]
    values = _column(scores, score)
    levels = _column(loudness.of_clips(scores.ids), "loudness mean")
    good = np.flatnonzero(np.isfinite(values) & np.isfinite(levels))
    many = max(min(2 * count, len(good)), round(loudest * len(good)))
    loud = good[np.argsort(-levels[good], kind="stable")[:many]]
    rising = loud[np.argsort(values[loud], kind="stable")]
    half = min(count, len(rising) // 2)
    chosen = {"agreeing": rising[::-1], "disagreeing": rising}
    taken: set[int] = set()
    lists: dict[str, list[Example]] = {}
    for name, order in chosen.items():
        lists[name] = []
        for place in order.tolist():
            if len(lists[name]) == half:
                break
            example = _example(clips, rows[place], values[place], levels[place])
            if place not in taken and not any(_overlap(example, one) for one in lists[name]):
                taken.add(place)
                lists[name].append(example)
    return lists


def _example(clips: Clips, row: int, score: float, loudness: float) -> Example:
    clip = clips[row]
    truth, case = clip.labels.get("sounding"), clip.labels.get("case")
    return Example(
        clip.id, clip.text, clip.video, clip.start, clip.end, float(score), float(loudness),
        None if truth is None else bool(truth), None if case is None else str(case),
    )  # fmt: skip


def _overlap(one: Example, other: Example) -> bool:
    return one.video == other.video and one.start < other.end and other.start < one.end


def _column(features: Features, name: str) -> Array:
    if name not in features.scores:
        raise UsageError(
            f"no score {name!r}; there are {', '.join(features.scores) or 'no scores'}"
        )
    return features.scores[name]


def bank(
    features: Features, clips: Clips, judged: Clips, reference_split: str | None
) -> tuple[Features, str]:
    """The features to compare with, and what they are, in words.

    They are those of the split's good clips, evenly thinned to `BANK`; or, where no split is named,
    of the judged clips themselves.

    Raises:
        UsageError: there is no such split, or none of it is embedded.
    """
    if reference_split is None:
        return features.of_clips(judged.column("id")), f"the {len(judged)} judged clips themselves"
    reference = clips.where(split=reference_split).where(quarantined=False)
    ids = reference.column("id")
    rows = np.flatnonzero(np.isin(ids.astype(str), features.ids.astype(str)))
    if not len(rows):
        raise UsageError(
            f"none of the {len(ids)} good clips of split {reference_split!r} is embedded, and "
            "centred scores compare with them; embed them, or compare with the judged clips"
        )
    kept = rows[np.linspace(0, len(rows) - 1, min(BANK, len(rows))).round().astype(int)]
    words = f"{len(kept)} of the {len(rows)}" if len(kept) < len(rows) else f"the {len(rows)}"
    return features.of_clips(ids[kept]), f"{words} clips of split {reference_split}"


def sounding(clips: Clips) -> list[bool | None]:
    """The truth of each clip, None where it is not known.

    Raises:
        TableError: the label is there and is not boolean.
    """
    if "sounding" not in clips.labels:
        return [None] * len(clips)
    column = clips.table["label.sounding"]
    if column.type != pa.bool_():
        raise TableError(f"label.sounding must be of type bool; it is {column.type}")
    return list(column.to_pylist())


def label(clips: Clips, name: str) -> Array:
    """A label of each clip as a string, "" where it is not known: null, NaN, blank, or no label."""
    values = clips.column(name).tolist() if name in clips.labels else [None] * len(clips)
    known = (value is not None and value == value for value in values)  # NaN is not itself
    return np.array([str(v) if is_ else "" for v, is_ in zip(values, known, strict=True)], object)


def _together(features: Features, *modalities: Modality) -> bool:
    """Whether some clip has all of these."""
    if not all(modality in features.modalities for modality in modalities):
        return False
    return bool(np.all([features.table[name].is_valid() for name in modalities], axis=0).any())


def _scores(
    here: Features, reference: Features, pair: tuple[Modality, Modality], temperature: float
) -> dict[str, Array]:
    x, y = (agree.unit(here.matrix(modality)) for modality in pair)
    if x.shape != y.shape:
        raise UsageError(
            f"{pair[0]} and {pair[1]} have different widths, {x.shape[1]} and {y.shape[1]}: they "
            "are not of one space"
        )
    banks = [agree.unit(reference.matrix(modality)) for modality in pair]
    bank_x, bank_y = (matrix[np.isfinite(matrix[:, 0])] for matrix in banks)
    if not len(bank_x) or not len(bank_y):
        return {"raw": agree.cosine(x, y)}
    return {
        "raw": agree.cosine(x, y),
        "centred": agree.centred(x, y, bank_x, bank_y),
        "pmi": agree.pmi(x, y, bank_x, bank_y, temperature),
    }

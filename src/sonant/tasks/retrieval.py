"""How actions sound: cross-modal retrieval among sounding clips, MC3 section 6.2 and Table 3.

A query of one modality is compared with a gallery of another; what it should find are clips of its
group, the same verb with the same noun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonant.clips import Clips
from sonant.errors import UsageError, at_least
from sonant.features import Features
from sonant.metrics import bootstrap
from sonant.metrics.agreement import tied, unit
from sonant.metrics.bootstrap import Interval, Values, Weights
from sonant.metrics.ranking import chance, median_rank, retrieval_by_query
from sonant.tasks.agreement import bank, label, sounding
from sonant.types import MODALITIES, Modality

Array = NDArray[Any]

DIRECTIONS: Mapping[str, tuple[Modality, Modality]] = {
    "V>A": ("video", "audio"),
    "A>V": ("audio", "video"),
    "L>A": ("text", "audio"),
    "A>L": ("audio", "text"),
}


@dataclass(frozen=True)
class Row:
    """One model, or the chance level, in one direction."""

    name: str
    kind: str
    """`model`, or `chance`: over permutations of the gallery."""
    direction: str
    """Query modality > gallery modality, of V, A and L."""
    values: dict[str, Interval]
    """All that `metrics.ranking.retrieval` defines; intervals over the queries' videos."""


@dataclass(frozen=True)
class Retrieval:
    """The report of this task."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    split: str
    score: str
    """`raw` cosines, or `centred` against the reference."""
    reference: str
    """In words; empty for raw cosines."""
    queries: int
    gallery: int
    groups: int
    videos: int
    """Videos that the queries come from."""
    more_than: int
    resamples: int
    seed: int
    rows: list[Row]
    notes: list[str]
    """What a reader must know: labels that are missing, clips that were left out."""


def retrieval(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    split: str | None = "test",
    reference_split: str | None = "train",
    centred: bool = False,
    more_than: int = 2,
    ks: tuple[int, ...] = (1, 5, 10),
    permutations: int = 20,
    resamples: int = 1000,
    seed: int = 0,
) -> Retrieval:
    """Judge how well clips of one group find each other across modalities.

    Groups with more than `more_than` sounding clips are split in half at random, the odd clip to
    the queries. Without the labels to form groups (`group`, or `verb` and `noun`) there are no
    rows, and a note says so.

    Args:
        models: name to features. Each has the directions between modalities that it embeds; the
            first that has a direction gives its chance level.
        clips: the table that they embed; without the label `sounding`, all clips are taken.
        split: the split to judge on; None for all clips. Quarantined clips are left out.
        reference_split: for centred similarities, the clips to compare with, as in `discovery`.
        centred: take off each item's mean cosine with the other modality of the reference.
        more_than: clips that a group needs more of.
        ks: lengths of the list.
        permutations: for the chance level.
        resamples: of the bootstrap over the queries' videos.
        seed: of halves, permutations and resamples.

    Raises:
        UsageError: no such split, features of clips are missing, or there are no models.
    """
    if not models:
        raise UsageError("retrieval needs the features of a model; none were given")
    at_least(0, seed=seed)
    judged = clips.where(split=split, quarantined=False)
    groups, notes = _eligible(models, judged)
    queries, gallery = halves(groups, more_than=more_than, seed=seed)
    if groups.any() and not len(queries):
        notes.append(f"No group has more than {more_than} clips: nothing to retrieve.")
    relevant = groups[queries][:, None] == groups[gallery][None, :]
    videos = judged.column("video")[queries]
    rows: list[Row] = []
    matrices = _similarities(models, clips, judged, (queries, gallery), reference_split, centred)
    for name, direction, similarity in matrices if len(queries) else ():
        if all(row.direction != direction for row in rows):
            level = chance(similarity, relevant, ks, permutations=permutations, seed=seed)
            rows.append(Row("chance", "chance", direction, _certain(level)))
        statistic = _statistic(retrieval_by_query(similarity, relevant, ks))
        values = bootstrap.intervals(statistic, videos, resamples=resamples, seed=seed)
        rows.append(Row(name, "model", direction, values))
    if len(queries) and not rows:
        notes.append("No model embeds sound, and pictures or narrations too: nothing to compare.")
    return Retrieval(
        runs={name: of.run for name, of in models.items()},
        split=split or "all clips",
        score="centred" if centred else "raw",
        reference=_reference(models, clips, judged, reference_split) if centred else "",
        queries=len(queries),
        gallery=len(gallery),
        groups=len(set(groups[queries])),
        videos=len(set(videos)),
        more_than=more_than,
        resamples=resamples,
        seed=seed,
        rows=rows,
        notes=notes,
    )


def halves(groups: Array, *, more_than: int = 2, seed: int = 0) -> tuple[Array, Array]:
    """Rows of queries and of gallery: half of each large group each, the odd one a query.

    Args:
        groups: group of each clip [clips]; "" for clips in none.
        more_than: clips that a group needs more of.
        seed: of who goes where; a group's split does not depend on the other groups.

    Raises:
        UsageError: `more_than` is not positive: a query needs something to find.
    """
    at_least(1, more_than=more_than)
    queries: list[Array] = []
    for group in sorted(set(groups) - {""}):
        rows = np.flatnonzero(groups == group)
        if len(rows) > more_than:
            rng = np.random.default_rng([seed, *group.encode()])
            queries.append(rng.permutation(rows)[: (len(rows) + 1) // 2])
    chosen = np.sort(np.concatenate([*queries, np.zeros(0, int)]))
    large = np.isin(groups.astype(str), groups[chosen].astype(str)) & (groups != "")
    return chosen, np.setdiff1d(np.flatnonzero(large), chosen)


def _eligible(models: Mapping[str, Features], judged: Clips) -> tuple[Array, list[str]]:
    """Each clip's group, "" for those that do not sound or lack a modality."""
    groups, notes = _groups(judged)
    embedded = _embedded(models, judged)
    if dropped := int(((groups != "") & ~embedded).sum()):
        notes.append(f"{dropped} clips lack a modality that other clips have: left out.")
    return np.where(embedded, groups, ""), notes


def _groups(clips: Clips) -> tuple[Array, list[str]]:
    """Each sounding clip's group, "" for the others."""
    groups, verbs, nouns = (label(clips, name) for name in ("group", "verb", "noun"))
    if not (groups != "").any():
        groups = np.where((verbs != "") & (nouns != ""), verbs + " " + nouns, "")
    if not (groups != "").any():
        known = ", ".join(name for name in clips.labels if (label(clips, name) != "").any())
        return groups, [
            "Retrieval needs the label group, or verb and noun; the labels there are: "
            f"{known or 'none'}."
        ]
    heard = sounding(clips)
    if all(value is None for value in heard):
        note = "There is no truth (label.sounding): silent clips are among queries and gallery."
        return groups, [note]
    groups = np.where([value is True for value in heard], groups, "")
    none = "None of the clips with a group sounds (label.sounding): nothing to retrieve."
    return groups, [] if (groups != "").any() else [none]


def _embedded(models: Mapping[str, Features], clips: Clips) -> Array:
    """Clips that have every modality which a model has for any clip."""
    good = np.ones(len(clips), bool)
    for features in models.values():
        here = features.of_clips(clips.column("id"))
        for modality in here.modalities:
            valid = here.table[modality].is_valid().to_numpy()
            good &= valid | ~valid.any()
    return good


def _similarities(
    models: Mapping[str, Features],
    clips: Clips,
    judged: Clips,
    rows: tuple[Array, Array],
    reference_split: str | None,
    centred: bool,
) -> Iterator[tuple[str, str, Array]]:
    """Model, direction, and cosines [queries, gallery], plain or double-centred."""
    for name, features in models.items():
        here = features.of_clips(judged.column("id"))
        reference = bank(features, clips, judged, reference_split)[0] if centred else None
        for direction, pair in _directions(here).items():
            yield name, direction, _similarity(here, pair, rows, reference)


def _directions(features: Features) -> dict[str, tuple[Modality, Modality]]:
    there = {m for m in MODALITIES if m in features.modalities and len(features)}
    there = {m for m in there if features.table[m].null_count < len(features)}
    return {name: pair for name, pair in DIRECTIONS.items() if set(pair) <= there}


def _similarity(
    features: Features,
    pair: tuple[Modality, Modality],
    rows: tuple[Array, Array],
    reference: Features | None,
) -> Array:
    x, y = (unit(features.matrix(m)[of]) for m, of in zip(pair, rows, strict=True))
    if x.shape[1] != y.shape[1]:
        raise UsageError(
            f"{pair[0]} and {pair[1]} have different widths, {x.shape[1]} and {y.shape[1]}: they "
            "are not of one space"
        )
    similarity = x @ y.T
    if reference is not None:
        bank_x, bank_y = (np.nanmean(unit(reference.matrix(m)), axis=0) for m in pair)
        similarity = similarity - (x @ bank_y)[:, None] - (y @ bank_x)[None, :]
    return tied(similarity)


def _reference(
    models: Mapping[str, Features], clips: Clips, judged: Clips, reference_split: str | None
) -> str:
    return bank(next(iter(models.values())), clips, judged, reference_split)[1]


def _statistic(by_query: Mapping[str, Array]) -> Callable[[Weights], Values]:
    parts = {
        name: partial(median_rank, values) if name == "median_rank" else bootstrap.mean(values)
        for name, values in by_query.items()
    }

    def statistic(weights: Weights) -> Values:
        return {name: part(weights) for name, part in parts.items()}

    return statistic


def _certain(values: Mapping[str, float]) -> dict[str, Interval]:
    return {name: Interval(value, np.nan, np.nan) for name, value in values.items()}

"""What a model finds alike: embeddings of one modality in clusters, and what these are made of.

MC3 (section 6.1, Fig. 6) groups the video embeddings of the test clips into 20 clusters by
agglomerative clustering and shows the 8 foremost clips of one. It names neither linkage nor metric;
here they are arguments. XDC (section 5, Table 6) ranks the clusters of k-means by their purity and
reads each by its three commonest labels; Fig. 2 shows the clips nearest the centroids. Those are
the clusters that training itself has found, which `assigned` shows.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning

from sonant.assignments import Assignment
from sonant.clips import Clips
from sonant.errors import UsageError, at_least
from sonant.features import Features
from sonant.metrics.agreement import unit
from sonant.metrics.clustering import ami, ari, by_purity, hungarian_accuracy, nmi, purity
from sonant.tasks.agreement import label as label_of
from sonant.tasks.agreement import sounding
from sonant.types import Modality

Array = NDArray[Any]
Grouping = Literal["ward", "average", "complete", "single", "kmeans"]
Metric = Literal["euclidean", "cosine"]

MOST = 40_000
"""Clips beyond which all but k-means want a sample: their distances would fill 13 GB."""
STARTS = 4
"""Of k-means, the best of which counts."""
CONCEPTS = 3
"""Values of a label that a cluster is read by (XDC, Table 6)."""
LABELS = ("verb", "noun")
"""What clusters are compared with if nothing else is asked for, as far as clips have it."""
MEASURES: Mapping[str, Callable[[Array, Array], float]] = {
    "purity": purity,
    "nmi": nmi,
    "ami": ami,
    "ari": ari,
    "hungarian_accuracy": hungarian_accuracy,
}


@dataclass(frozen=True)
class Member:
    """A clip to show for its cluster."""

    id: str
    text: str
    video: str
    start: float
    end: float
    labels: dict[str, str]
    """Those that were asked for and are known."""
    sounding: bool | None
    cosine: float | None = None
    """With the cluster's centre."""
    distance: float | None = None
    """Squared, from the centroid that a run had."""


@dataclass(frozen=True)
class Common:
    """The commonest value of a label in a cluster, and its share of the clips that have one."""

    value: str
    share: float


@dataclass(frozen=True)
class Cluster:
    """One cluster."""

    clips: int
    videos: int
    sounding: float | None
    """Share of sounding clips; None without truth."""
    common: dict[str, Common]
    """Label to its commonest value."""
    members: list[Member]
    """The clips nearest the centre."""
    cosine: float | None = None
    """Mean cosine of its clips with its centre, the mean of their unit embeddings."""
    distance: float | None = None
    """Mean squared distance of its clips from the centroid that a run had."""


@dataclass(frozen=True)
class Reading:
    """A cluster in the words of one label: a cell of XDC's Table 6."""

    cluster: int
    """Its number, from 1, by size."""
    clips: int
    """Those that have the label."""
    concepts: list[Common]
    """The commonest values, the share of the first being the cluster's purity."""


@dataclass(frozen=True)
class Level:
    """A measure, and what clusters of the same sizes get when labels are permuted."""

    value: float
    chance: float
    """Mean over permutations."""
    high: float
    """95th percentile over permutations."""


@dataclass(frozen=True)
class Row:
    """The clusters of one model, the largest first."""

    name: str
    clips: int
    measures: dict[str, dict[str, Level]]
    """Label to `purity`, `nmi`, `ami`, `ari`, `hungarian_accuracy` among the clips that have it."""
    purest: dict[str, list[Reading]]
    """Label to the clusters that have clips with it, the purest first."""
    clusters: list[Cluster]


@dataclass(frozen=True)
class Clusters:
    """The report of this task."""

    runs: dict[str, str]
    """Model name to the run that its features are from."""
    split: str
    modality: str
    """Whose embeddings are clustered; of a run's own clusters, its name of the source."""
    grouping: str
    """`assigned` where a run had found them."""
    metric: str
    permutations: int
    seed: int
    rows: list[Row]
    notes: list[str]
    """What a reader must know: labels that are missing, clips that were left out."""


def clusters(
    models: Mapping[str, Features],
    clips: Clips,
    *,
    modality: Modality = "video",
    number: int = 20,
    split: str | None = "test",
    grouping: Grouping = "ward",
    metric: Metric = "euclidean",
    labels: Sequence[str] = LABELS,
    members: int = 8,
    sample: int | None = None,
    permutations: int = 100,
    seed: int = 0,
) -> Clusters:
    """Cluster the clips of a split by what each model makes of one modality.

    n clips take 8 n² bytes and time that grows a little faster than n²: 0.8 GB and a quarter of a
    minute for 10,000, 7 GB and some minutes for 30,000. k-means takes no more than the embeddings.

    Args:
        models: name to features.
        clips: the table that they embed.
        modality: whose embeddings, scaled to unit length, are clustered.
        number: of clusters.
        split: the clips to cluster; None for all. Quarantined ones are left out.
        grouping: which two clusters to join next. `ward`, those whose union spreads least about its
            mean, makes clusters of like sizes; on unit rows its squared distances are 2 - 2 cosine,
            what the training moved. `average` makes few large ones and some of a clip or two,
            `single` leaves nearly all clips in one. `kmeans` joins nothing: of `STARTS` starts by
            k-means++, the one with the least sum of squared distances to the centres.
        metric: between clips; ward and kmeans take euclidean only.
        labels: what clusters are compared with, where clips have them; of `LABELS`, those that
            there are.
        members: clips nearest each centre, fewer where a cluster is small; those that overlap one
            already taken are passed over.
        sample: cluster so many clips, drawn at random; needed beyond `MOST`, but for k-means.
        permutations: for the chance level.
        seed: of the sample, of k-means and of the permutations.

    Raises:
        UsageError: there are no models, too few clips or too many, or too few that differ; ward or
            kmeans with another metric; labels that there are not.
        TableError: a model has no such modality.
    """
    if not models:
        raise UsageError("clusters need the features of a model; none were given")
    ask = _Ask(
        modality, number, grouping, metric, _known(labels, clips), members, sample, permutations,
        seed,
    )  # fmt: skip
    judged = clips.where(split=split, quarantined=False)
    notes: list[str] = []
    rows = [_row(name, features, judged, ask, notes) for name, features in models.items()]
    notes += [f"No clip has the label {of}." for of in labels if of not in rows[0].measures]
    return Clusters(
        runs={name: of.run for name, of in models.items()},
        split=split or "all clips",
        modality=modality,
        grouping=grouping,
        metric=metric,
        permutations=permutations,
        seed=seed,
        rows=rows,
        notes=notes,
    )


def assigned(
    name: str,
    found: Assignment,
    clips: Clips,
    *,
    run: str = "",
    split: str | None = None,
    labels: Sequence[str] = LABELS,
    members: int = 10,
    permutations: int = 100,
    seed: int = 0,
) -> Clusters:
    """Show the clusters that a round of deep clustering found, as they are (XDC, Fig. 2).

    Args:
        name: of the model.
        found: its clusters of one source.
        clips: the table that it was trained on, or one with more clips.
        run: what found them.
        split: look at the clips of this split alone; None for all that were clustered.
        labels: what clusters are compared with, where clips have them; see `clusters`.
        members: clips nearest each centroid, fewer where a cluster is small.
        permutations: for the chance level.
        seed: of the permutations.

    Raises:
        UsageError: none of the clips were clustered; labels that there are not.
        TableError: clips with ids that were clustered are others.
    """
    at_least(0, seed=seed)
    at_least(1, members=members, permutations=permutations)
    labels = _known(labels, clips)
    found.check(clips)
    judged = clips.where(split=split, quarantined=False)
    places = {id: place for place, id in enumerate(found.ids)}
    rows = [places.get(id, -1) for id in judged.column("id")]
    here = judged.where(np.array(rows, np.int64) >= 0)
    taken = [row for row in rows if row >= 0]
    if not taken:
        raise UsageError(
            f"of the {len(found.ids)} clips that {name} clustered, the first {found.ids[0]!r}, "
            f"none is among the {len(judged)} clips of {f'split {split}' if split else 'the table'}"
        )
    numbers = _by_size(found.clusters[taken])
    measures, purest = _compared(numbers, here, labels, permutations, seed)
    shown = _clusters(numbers, here, labels, members, distance=found.distances[taken])
    notes = [f"No clip has the label {of}." for of in labels if of not in measures]
    if lost := len(found.ids) - len(taken):
        notes.append(f"{lost} of {len(found.ids)} clustered clips are not among these.")
    return Clusters(
        runs={name: run},
        split=split or "all clustered clips",
        modality=found.source,
        grouping="assigned",
        metric="euclidean",
        permutations=permutations,
        seed=seed,
        rows=[Row(name, len(here), measures, purest, shown)],
        notes=notes,
    )


@dataclass(frozen=True)
class _Ask:
    """What is asked of every model; see `clusters`."""

    modality: Modality
    number: int
    grouping: Grouping
    metric: Metric
    labels: Sequence[str]
    members: int
    sample: int | None
    permutations: int
    seed: int

    def __post_init__(self) -> None:
        at_least(2, number=self.number)
        at_least(0, seed=self.seed)
        sample = 1 if self.sample is None else self.sample
        at_least(1, members=self.members, permutations=self.permutations, sample=sample)
        if self.grouping in ("ward", "kmeans") and self.metric != "euclidean":
            raise UsageError(
                f"{self.grouping} is of euclidean distances, not {self.metric}; average takes both"
            )


def _known(labels: Sequence[str], clips: Clips) -> Sequence[str]:
    """Labels that clips have, or else the usual ones.

    Raises:
        UsageError: others, some of which there are not.
    """
    unknown = [label for label in labels if label not in clips.labels]
    if unknown and tuple(labels) != LABELS:
        raise UsageError(
            f"no label {unknown[0]!r} to compare clusters with; there are "
            f"{', '.join(clips.labels) or 'none'}"
        )
    return labels


def _row(name: str, features: Features, judged: Clips, ask: _Ask, notes: list[str]) -> Row:
    """The clusters of one model; what is odd about them is noted."""
    x = features.of_clips(judged.column("id")).matrix(ask.modality)
    most = len(x) if ask.grouping == "kmeans" else MOST
    kept = _kept(x, ask.sample, ask.number, ask.seed, most=most)
    here, e = judged.where(_mask(kept, len(judged))), unit(x[kept])
    found = _grouped(e, ask.number, ask.grouping, ask.metric, ask.seed)
    measures, purest = _compared(found, here, ask.labels, ask.permutations, ask.seed)
    notes += [f"{name}: {note}" for note in _left_out(x, kept, ask.modality)]
    shown = _clusters(found, here, ask.labels, ask.members, cosine=_cosines(found, e))
    return Row(name, len(here), measures, purest, shown)


def _kept(x: Array, sample: int | None, number: int, seed: int, *, most: int) -> Array:
    """The rows to cluster."""
    rows = np.flatnonzero(np.isfinite(x[:, 0]))
    if sample is not None and sample < len(rows):
        rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
    if len(rows) < number:
        raise UsageError(
            f"{number} clusters need as many clips or more; {len(rows)} have an embedding"
        )
    if len(rows) > most:
        raise UsageError(
            f"the distances of {len(rows)} clips fill {8 * len(rows) ** 2 / 1e9:.0f} GB; ask for a "
            f"sample of {most} or fewer, or for k-means"
        )
    return rows


def _grouped(e: Array, number: int, grouping: Grouping, metric: Metric, seed: int) -> Array:
    """The cluster of each clip, numbered by size from 0; of equal ones, the first found first."""
    if grouping == "kmeans":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # refused below, in other words
            found = KMeans(number, n_init=STARTS, random_state=seed).fit_predict(e)
    elif (unlike := len(np.unique(e, axis=0))) < number:
        raise UsageError(
            f"{len(e)} clips with {unlike} different embeddings cannot make {number} clusters"
        )
    else:
        found = AgglomerativeClustering(number, metric=metric, linkage=grouping).fit_predict(e)
    sizes = np.bincount(found, minlength=number)
    if not sizes.all():
        raise UsageError(
            f"k-means makes {np.count_nonzero(sizes)} clusters of these {len(e)} clips, not "
            f"{number}: no more of their embeddings differ"
        )
    return _by_size(found)


def _by_size(found: Array) -> Array:
    """Clusters numbered anew, the largest first, without those that have no clips."""
    there, found = np.unique(found, return_inverse=True)
    place = np.empty(len(there), np.int64)
    place[np.argsort(-np.bincount(found), kind="stable")] = np.arange(len(there))
    return np.asarray(place[found])


def _mask(rows: Array, length: int) -> Array:
    return np.asarray(np.isin(np.arange(length), rows))


def _left_out(x: Array, kept: Array, modality: str) -> list[str]:
    there = int(np.isfinite(x[:, 0]).sum())
    notes = []
    if there < len(x):
        notes.append(f"{len(x) - there} of {len(x)} clips have no {modality}: left out.")
    if len(kept) < there:
        notes.append(f"a random sample of {len(kept)} of {there} clips is clustered.")
    return notes


def _compared(
    found: Array, clips: Clips, labels: Sequence[str], permutations: int, seed: int
) -> tuple[dict[str, dict[str, Level]], dict[str, list[Reading]]]:
    """How clusters meet each label that some clips have, and how they read by it."""
    measured, read = {}, {}
    for label in labels:
        values = label_of(clips, label)
        known = values != ""
        if known.any():
            _, truth = np.unique(values[known].astype(str), return_inverse=True)
            measured[label] = _levels(found[known], truth, permutations, seed)
            read[label] = _readings(found[known], values[known])
    return measured, read


def _readings(found: Array, values: Array) -> list[Reading]:
    return [
        Reading(one.cluster + 1, one.clips, [Common(*concept) for concept in one.concepts])
        for one in by_purity(found, values, concepts=CONCEPTS)
    ]


def _levels(found: Array, truth: Array, permutations: int, seed: int) -> dict[str, Level]:
    rng = np.random.default_rng(seed)
    swapped = [rng.permutation(truth) for _ in range(permutations)]
    levels = {}
    for name, measure in MEASURES.items():
        drawn = [measure(found, swap) for swap in swapped]
        levels[name] = Level(
            measure(found, truth), float(np.mean(drawn)), float(np.quantile(drawn, 0.95))
        )
    return levels


def _cosines(found: Array, e: Array) -> Array:
    """Of each clip with its cluster's centre."""
    centres = unit(np.stack([e[found == place].mean(0) for place in range(found.max() + 1)]))
    return np.asarray((e * centres[found]).sum(1))


def _clusters(
    found: Array, clips: Clips, labels: Sequence[str], members: int, **near: Array
) -> list[Cluster]:
    """What there is to say of each; `near` is `cosine` or `distance`, of every clip."""
    values = {label: label_of(clips, label) for label in labels}
    heard = sounding(clips)
    return [
        _cluster(np.flatnonzero(found == place), clips, values, heard, members, near)
        for place in range(found.max() + 1)
    ]


def _cluster(
    rows: Array,
    clips: Clips,
    values: Mapping[str, Array],
    heard: Sequence[bool | None],
    members: int,
    near: Mapping[str, Array],
) -> Cluster:
    ((name, nearness),) = near.items()
    told = [heard[row] for row in rows if heard[row] is not None]
    nearest: list[Member] = []
    inside = nearness[rows]
    for place in np.argsort(inside if name == "distance" else -inside, kind="stable"):
        row = int(rows[place])
        one = _member(clips, row, values, heard[row], {name: float(nearness[row])})
        if not any(_overlap(one, other) for other in nearest):
            nearest.append(one)
        if len(nearest) == members:
            break
    return Cluster(
        clips=len(rows),
        videos=len(set(clips.column("video")[rows])),
        sounding=float(np.mean(told)) if told else None,
        common={
            label: common for label, of in values.items() for common in _common(of[rows].tolist())
        },
        members=nearest,
        **{name: float(inside.mean())},
    )


def _common(values: Sequence[str]) -> list[Common]:
    """The commonest value, the first by name of equally common ones; none if none is known."""
    counts = Counter(sorted(value for value in values if value))
    return [Common(value, count / counts.total()) for value, count in counts.most_common(1)]


def _member(
    clips: Clips,
    row: int,
    values: Mapping[str, Array],
    heard: bool | None,
    near: Mapping[str, float],
) -> Member:
    clip = clips[row]
    labels = {label: str(of[row]) for label, of in values.items() if of[row]}
    return Member(clip.id, clip.text, clip.video, clip.start, clip.end, labels, heard, **near)


def _overlap(one: Member, other: Member) -> bool:
    return one.video == other.video and one.start < other.end and other.start < one.end

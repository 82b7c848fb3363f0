"""Deep clustering within and across modalities: SDC, MDC, CDC, XDC and same-modality-XDC.

Alwassel et al., Self-Supervised Learning by Cross-Modal Audio-Video Clustering, NeurIPS 2020.
Training goes by rounds: features are clustered, and encoders learn to predict the clusters. What
tells the models apart is whose features are clustered for whom (section 3): a `Policy`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from sonant.assignments import read_assignment, spans_of, to_table
from sonant.clips import Clips
from sonant.cluster import Blocks, Rows, kmeans, preparation, sinkhorn, to_tensor
from sonant.data import Array, seeded
from sonant.distributed import dealt, device, gather, largest, rank, ranks
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.films import SIGHT_SOUND
from sonant.methods.method import Method, Opening, Recipe, at_least_fp32, drawn_by
from sonant.methods.moments import Moments
from sonant.methods.parts import Parts, small
from sonant.metrics.clustering import nmi, purity
from sonant.types import Batch, Modality, Stage

SECOND = "second_"
"""What a second encoder of a modality is called, before the modality."""

Source = tuple[str, ...]
"""Encoders whose features are clustered, side by side if there are several."""
Routes = Mapping[str, Sequence[Source]]
"""Encoder to the sources whose clusters it learns, with a head for each."""
Policy = Callable[[Sequence[str]], Routes]
"""The routes between some encoders."""


def single(encoders: Sequence[str]) -> Routes:
    """SDC: each learns its own clusters (section 3.1)."""
    return {encoder: [(encoder,)] for encoder in encoders}


def multi_head(encoders: Sequence[str]) -> Routes:
    """MDC: each learns its own clusters, and with other heads those of the others (3.2)."""
    return {e: [(e,), *crossed(encoders)[e]] for e in encoders}


def concatenated(encoders: Sequence[str]) -> Routes:
    """CDC: all learn the clusters of their features side by side (section 3.2)."""
    return {encoder: [tuple(encoders)] for encoder in encoders}


def crossed(encoders: Sequence[str]) -> Routes:
    """XDC: each learns the clusters of the others, and not its own (section 3.2)."""
    return {e: [(other,) for other in encoders if other != e] for e in encoders}


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often features are clustered, and how."""

    rounds: int = 6
    """clusterings, each with training after it; the paper's models take 5 to 6 to converge."""
    epochs: int = 10
    """of training a round; the paper gives none."""
    converged: float | None = None
    """end early once all clusters agree so well with those of the round before (NMI)."""
    uniform: bool = True
    """show as many clips of each cluster; without, each clip once an epoch."""
    pca: int = 0
    """principal components that are clustered, at most as many as features vary in; 0: all."""
    whiten: bool = False
    """scale each of them to variance 1."""
    unit: bool = False
    """scale what is clustered to length 1, last."""
    half: bool = False
    """keep features on disk in half precision while they are clustered: half the space. Untrained
    towers' differ by so little that it rounds some of that away."""
    assignment: Literal["kmeans", "sinkhorn"] = "kmeans"
    """labels: the nearest centroid, or the best balance of near ones (Sinkhorn; SeLaVi)."""
    sharpness: float = 20.0
    """of balanced labels: the higher, the nearer to one cluster a clip before the best is taken."""
    start: Literal["plusplus", "random"] = "plusplus"
    """of k-means."""
    iterations: int = 20
    """of k-means."""
    restarts: int = 1
    """of k-means; the tightest clusters count."""
    compared: Sequence[str] = ()
    """label columns whose purity in the clusters is logged; nothing is learned from them."""

    def __post_init__(self) -> None:
        at_least(1, rounds=self.rounds, iterations=self.iterations, restarts=self.restarts)
        at_least(0, epochs=self.epochs, pca=self.pca)
        above_zero(sharpness=self.sharpness)
        if self.converged is not None and not 0 < self.converged <= 1:
            raise UsageError(f"converged is an NMI above 0 and at most 1, not {self.converged}")
        if self.start not in ("plusplus", "random"):
            raise UsageError(f"start must be plusplus or random, not {self.start!r}")
        if self.assignment not in ("kmeans", "sinkhorn"):
            raise UsageError(f"assignment must be kmeans or sinkhorn, not {self.assignment!r}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A stage a round."""
        return tuple(Stage(f"round {number}", self.epochs) for number in range(1, self.rounds + 1))

    def clusters(
        self, x: Rows, k: int, *, clips: int, seed: int
    ) -> tuple[Int[Tensor, " clips"], Float[Tensor, " clips"]]:
        """Labels of all ranks' clips, and the squared distances to their clusters' centroids.

        Args:
            x: features [rows, width] of this rank's clips, every `ranks`-th from its number on.
            k: the number of clusters.
            clips: over all ranks.
            seed: of the start.

        Raises:
            UsageError: features are not finite, all equal, fewer than k that differ, or vary in
                fewer directions than are wanted.
        """
        prepare = None
        if self.pca or self.whiten or self.unit:
            prepare = preparation(x, pca=self.pca or None, whiten=self.whiten, unit=self.unit)
        centroids, labels, _ = kmeans(
            x,
            k,
            seed=seed,
            iterations=self.iterations,
            start=self.start,
            restarts=self.restarts,
            prepare=prepare,
        )
        blocks, centroids = Blocks(x, [prepare] if prepare else []), centroids.double()
        if self.assignment == "sinkhorn":
            labels = balanced(blocks, centroids, clips=clips, sharpness=self.sharpness)
        away = torch.zeros(len(labels), dtype=torch.float64)
        for part, _, rows in blocks:
            own = centroids[labels[part]].to(rows.device)
            away[part] = (rows.double() - own).square().sum(1).to(away)
        return dealt(labels, clips).cpu(), dealt(away, clips).cpu()


def balanced(
    blocks: Blocks, centroids: Float[Tensor, "k d"], *, clips: int, sharpness: float
) -> Int[Tensor, " rows"]:
    """Labels of this rank's clips that deal all ranks' clips to the clusters about evenly.

    Asano et al. 2020, with the probability of a cluster that falls with the squared distance to its
    centroid, in units of the mean one to the nearest; SeLaVi takes what its heads predict. Every
    rank holds a number for each clip and cluster.
    """
    own = torch.zeros(len(blocks), len(centroids), dtype=torch.float64)
    for part, _, rows in blocks:
        own[part] = torch.cdist(rows.double(), centroids.to(rows.device).double()).square().to(own)
    squares = dealt(own, clips).cpu()
    unit = squares.amin(1).mean().clamp(min=torch.finfo(torch.float64).tiny)
    return sinkhorn(-squares / unit, sharpness=sharpness).argmax(1)[rank() :: ranks()]


@dataclass(frozen=True)
class SideBySide:
    """Features of several encoders in one row, those of each scaled to length 1 (section 3.2).

    They are read where they lie, when rows are asked for.
    """

    parts: Sequence[Rows]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        return int(self.parts[0].shape[0]), sum(int(part.shape[1]) for part in self.parts)

    def __getitem__(self, rows: Any) -> Float[Tensor, "b width"]:
        """Some rows."""
        read = [at_least_fp32(to_tensor(part[rows])) for part in self.parts]
        return torch.cat([F.normalize(part, dim=1) for part in read], 1)


def evenly(clusterings: Sequence[Int64[Array, "n"]], random: np.random.Generator) -> Array:
    """As many rows as there are, the same number of every cluster that has any (DeepCluster).

    Of several clusterings, each has an equal part of the rows to itself. Within a cluster each clip
    is drawn as often as every other; where numbers do not divide, chance gives some one more.

    Args:
        clusterings: labels, one a row in each.
        random: decides which clips are drawn more often than others, and the order.
    """
    n, drawn = len(clusterings[0]), []
    for part, labels in zip(_shares(n, len(clusterings), random), clusterings, strict=True):
        mixed = random.permutation(n)
        members = mixed[np.argsort(labels[mixed], kind="stable")]
        sizes = np.unique(labels, return_counts=True)[1]
        shares = _shares(part, len(sizes), random)
        clusters = np.split(members, np.cumsum(sizes)[:-1])
        drawn += [np.resize(rows, share) for rows, share in zip(clusters, shares, strict=True)]
    return random.permutation(np.concatenate(drawn))


class DeepCluster(Method):
    """Encoders learn to predict clusters of their own or of each other's features.

    A round, which is a stage, begins with clustering what the encoders make of all clips as
    evaluation sees them. The heads begin anew; encoders go on. What `embed` gives are the towers'
    features at length 1; what is clustered are the features as they are, but those that are put
    side by side, which have length 1 each.

    Args:
        towers: the encoders; none but linear heads follow them.
        stages: the rounds.
        routes: whose clusters each encoder learns.
        clusters: their number for each source, by its `name`.
        width: of every encoder's features.
        rounds: how clusters are found and shown.
        seconds: second encoders of modalities that have a tower.

    Raises:
        UsageError: routes are not of these encoders, or a number is out of range.
    """

    chunked = False
    settled: Tensor

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        routes: Routes,
        clusters: Mapping[str, int],
        width: int,
        rounds: Rounds,
        seconds: Mapping[Modality, nn.Module] | None = None,
    ) -> None:
        super().__init__(towers, stages)
        self.seconds = nn.ModuleDict({SECOND + m: x for m, x in (seconds or {}).items()})
        self.routes = {encoder: [name(source) for source in routes[encoder]] for encoder in routes}
        self.sources = {name(source): source for some in routes.values() for source in some}
        self.clusters = {source: clusters[source] for source in self.sources}
        self.rounds = rounds
        self.surveyed = torch.float16 if rounds.half else torch.float32
        self.compared: dict[str, Array] = {}
        self.ids: list[str] = []
        self.spans = np.empty(0, np.int64)
        self._check(routes)
        most = width * min(map(len, self.sources.values()))
        if rounds.pca > most:
            raise UsageError(f"features of {most} numbers have no {rounds.pca} components: --pca")
        self.heads = nn.ModuleDict(
            {
                encoder: nn.ModuleDict(
                    {source: nn.Linear(width, self.clusters[source]) for source in sources}
                )
                for encoder, sources in self.routes.items()
            }
        )
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))
        self.reset_heads()

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """All of them, by name."""
        return dict(self.towers.items()) | dict(self.seconds.items())

    @property
    def clip_buffers(self) -> tuple[str, ...]:
        """The labels."""
        return tuple(_buffer(source) for source in self.sources)

    def attach(self, clips: Clips) -> None:
        """Make room for the labels, and keep those to compare with."""
        self.ids, self.spans = clips.column("id").tolist(), spans_of(clips)
        for source, k in self.clusters.items():
            if k > len(clips):
                raise UsageError(
                    f"{k} clusters of {source} wanted of {len(clips)} clips; there must be as many "
                    "clips as clusters, and should be many times more"
                )
            labels = torch.full((len(clips),), -1, device=self.settled.device)
            self.register_buffer(_buffer(source), labels)
        self.compared = {label: clips.column(label) for label in self.rounds.compared}

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> Opening | None:
        """Cluster, and begin with new heads; or, once clusters have settled, leave all as it is.

        Raises:
            UsageError: features are not finite, or all equal.
        """
        if self.settled:
            return Opening(said=f"{stage.name}: left out, as clusters have settled", skip=True)
        seen = features()
        found = {source: self._found(stage, source, seen) for source in self.sources}
        measures = {source: self._measures(source, labels) for source, (labels, _) in found.items()}
        said = f"{stage.name}: " + "; ".join(_said(*measured) for measured in measures.items())
        line = {"clusters": measures}
        agreed, limit = [m["nmi"] for m in measures.values()], self.rounds.converged
        if limit is not None and all(x is not None and x >= limit for x in agreed):
            self.settled.fill_(True)
            return Opening(said=f"{said}: settled, those before stay", line=line, skip=True)
        for source, (labels, _) in found.items():
            self.get_buffer(_buffer(source)).copy_(labels)
        self.reset_heads()
        return Opening(said=said, line=line, table=self._table(stage, found))

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Cross entropy of every head, a mean over the batch."""
        index = gather(batch.index)
        seen = {encoder: gather(x) for encoder, x in self.survey(batch).items()}
        with torch.autocast(batch.index.device.type, enabled=False):
            return {
                f"{encoder} from {source}": F.cross_entropy(
                    self.head(encoder, source)(seen[encoder]),
                    self.get_buffer(_buffer(source))[index],
                )
                for encoder, sources in self.routes.items()
                for source in sources
            }

    def survey(self, batch: Batch) -> dict[str, Tensor]:
        """Every encoder's features [clips, width], as they are."""
        return {
            encoder: at_least_fp32(module(batch.inputs[_modality(encoder)]))
            for encoder, module in self.encoders.items()
        }

    def order(self, clips: int, *, seed: int, stage: Stage, epoch: int) -> Array:
        """Rows that show as many clips of each cluster, if `uniform`."""
        if not self.rounds.uniform:
            return super().order(clips, seed=seed, stage=stage, epoch=epoch)
        labels = [self.get_buffer(_buffer(source)).cpu().numpy() for source in self.sources]
        return evenly(labels, seeded(seed=seed, stage=stage.name, epoch=epoch))

    def head(self, encoder: str, source: str) -> nn.Module:
        """What predicts the clusters of a source from the features of an encoder."""
        return cast("nn.ModuleDict", self.heads[encoder])[source]

    def reset_heads(self) -> None:
        """Draw all heads anew, as DeepCluster draws its own."""
        for layer in self.heads.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def features_of(self, source: str, seen: Mapping[str, Rows]) -> Rows:
        """What is clustered of `survey`'s features."""
        parts = [seen[encoder] for encoder in self.sources[source]]
        return parts[0] if len(parts) == 1 else SideBySide(parts)

    def _found(self, stage: Stage, source: str, seen: Mapping[str, Rows]) -> tuple[Tensor, Tensor]:
        seed = int(torch.randint(2**31, ()))
        x, k = self.features_of(source, seen), self.clusters[source]
        try:
            if len(self.sources[source]) > 1:
                _check_differ({encoder: seen[encoder] for encoder in self.sources[source]})
            return self.rounds.clusters(x, k, clips=len(self.ids), seed=seed)
        except UsageError as error:
            why = " (kept in half precision, --half)" if self.rounds.half else ""
            raise UsageError(f"{stage.name}, clusters of {source}{why}: {error}") from error

    def _measures(self, source: str, labels: Tensor) -> dict[str, Any]:
        """How the new clusters of a source are, and lie to those before and to known labels."""
        before, now = self.get_buffer(_buffer(source)).cpu().numpy(), labels.cpu().numpy()
        sizes = np.bincount(now, minlength=self.clusters[source])
        pure = {}
        for label, values in self.compared.items():
            known = np.array([value is not None and value == value for value in values], bool)
            if known.any():
                pure[label] = round(purity(now[known], values[known]), 5)
        return {
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "nmi": round(nmi(before, now), 5) if before[0] >= 0 else None,
            "purity": pure,
        }

    def _table(self, stage: Stage, found: Mapping[str, tuple[Tensor, Tensor]]) -> pa.Table:
        arrays = {
            source: (labels.cpu().numpy(), away.float().cpu().numpy())
            for source, (labels, away) in found.items()
        }
        return to_table(self.ids, self.spans, arrays, stage.name)

    def _check(self, routes: Routes) -> None:
        known = set(self.encoders)
        used = {encoder for source in self.sources.values() for encoder in source}
        if not known or set(routes) != known or not used <= known or not all(routes.values()):
            raise UsageError(
                f"there are encoders of {', '.join(sorted(known)) or 'nothing'}; each learns the "
                f"clusters of one or more of them, and not {dict(routes)}"
            )
        at_least(2, **{f"clusters of {source}": k for source, k in self.clusters.items()})


class Assigned(DeepCluster):
    """Encoders learn clusters that are there: a round without clustering (section 6).

    Args:
        towers: the encoders.
        stages: of training; all do the same.
        table: file of clusters that a run of deep clustering left.
        source: the column in it.
        clusters: how many there are.
        width: of every encoder's features.
        uniform: show as many clips of each cluster.
    """

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        table: Path,
        source: str,
        clusters: int,
        width: int,
        uniform: bool,
    ) -> None:
        super().__init__(
            towers,
            stages,
            routes={modality: [(source,)] for modality in towers},
            clusters={source: clusters},
            width=width,
            rounds=Rounds(uniform=uniform),
        )
        self.table, self.source = table, source

    @property
    def files(self) -> Mapping[str, Path]:
        """The table."""
        return {"table": self.table}

    def attach(self, clips: Clips) -> None:
        """Take the clips' labels.

        Raises:
            TableError: the file is missing, or no table of clusters, or has no such column, or is
                of other clips of the same ids.
            UsageError: it lacks clips, or has more clusters.
        """
        super().attach(clips)
        assignment = read_assignment(self.table, self.source)
        assignment.check(clips)
        labels, k = assignment.of, self.clusters[self.source]
        lost = [id for id in self.ids if id not in labels]
        if lost:
            raise UsageError(
                f"{self.table}: has no cluster for {len(lost)} of the {len(self.ids)} clips, the "
                f"first is {lost[0]!r}; it is of another clip table"
            )
        found = torch.tensor([labels[id] for id in self.ids])
        if int(found.max()) >= k:
            raise UsageError(
                f"{self.table}: has clusters of {self.source} up to number {int(found.max())}; ask "
                f"for `--clusters {int(found.max()) + 1}` or more, not {k}"
            )
        self.get_buffer(_buffer(self.source)).copy_(found)

    def begin(self, stage: Stage, features: Callable[[], Mapping[str, Rows]]) -> Opening | None:
        """Leave all as it is."""
        return None

    def _check(self, routes: Routes) -> None:
        at_least(2, **{f"clusters of {source}": k for source, k in self.clusters.items()})


def _check_differ(parts: Mapping[str, Rows]) -> None:
    """Refuse an encoder's features that are all one; beside another's it would not show."""
    for encoder, part in parts.items():
        first = to_tensor(part[:1])
        differ = any(bool((rows != first.to(rows)).any()) for _, _, rows in Blocks(part))
        if not largest(torch.tensor([int(differ)], device=device())).item():
            raise UsageError(f"all rows of {encoder} are equal, and say nothing")


def name(source: Source) -> str:
    """Of a source: its encoders."""
    return "+".join(source)


def sdc(
    tokenizer: Tokenizer,
    *,
    modalities: Sequence[Modality] = SIGHT_SOUND,
    audio_clusters: int = 128,
    video_clusters: int = 64,
    rate: float = 0.01,
    rounds: Rounds = Rounds(),
    parts: Parts = Moments(),
) -> Recipe:
    """SDC, single-modality deep clustering (DeepCluster), on XDC's networks.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        modalities: those that are learned, each by itself.
        audio_clusters: k of the audio features.
        video_clusters: k of the video features.
        rate: peak learning rate of a round.
        rounds: how often and how features are clustered.
        parts: towers, views and optimisation.
    """
    if foreign := [m for m in modalities if m not in SIGHT_SOUND]:
        raise UsageError(f"deep clustering here is of audio and video, not of {foreign[0]}")
    clusters = {"audio": audio_clusters, "video": video_clusters}
    return _recipe(tokenizer, single, modalities, clusters, rate, rounds, parts)


def mdc(
    tokenizer: Tokenizer,
    *,
    audio_clusters: int = 128,
    video_clusters: int = 64,
    rate: float = 0.01,
    rounds: Rounds = Rounds(),
    parts: Parts = Moments(),
) -> Recipe:
    """MDC: each network predicts, with two heads, its own and the other's clusters.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        audio_clusters: k of the audio features.
        video_clusters: k of the video features.
        rate: peak learning rate of a round.
        rounds: how often and how features are clustered.
        parts: towers, views and optimisation.
    """
    clusters = {"audio": audio_clusters, "video": video_clusters}
    return _recipe(tokenizer, multi_head, SIGHT_SOUND, clusters, rate, rounds, parts)


def cdc(
    tokenizer: Tokenizer,
    *,
    clusters: int = 128,
    rate: float = 0.01,
    rounds: Rounds = Rounds(),
    parts: Parts = Moments(),
) -> Recipe:
    """CDC: both networks predict the clusters of their features side by side.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        clusters: k of the features side by side.
        rate: peak learning rate of a round.
        rounds: how often and how features are clustered.
        parts: towers, views and optimisation.
    """
    joint = {name(SIGHT_SOUND): clusters}
    return _recipe(tokenizer, concatenated, SIGHT_SOUND, joint, rate, rounds, parts)


def xdc(
    tokenizer: Tokenizer,
    *,
    audio_clusters: int = 128,
    video_clusters: int = 64,
    rate: float = 0.01,
    rounds: Rounds = Rounds(),
    parts: Parts = Moments(),
) -> Recipe:
    """XDC: each network predicts the other's clusters, and those alone.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        audio_clusters: k of the audio features, which video learns.
        video_clusters: k of the video features, which audio learns.
        rate: peak learning rate of a round.
        rounds: how often and how features are clustered.
        parts: towers, views and optimisation.
    """
    clusters = {"audio": audio_clusters, "video": video_clusters}
    return _recipe(tokenizer, crossed, SIGHT_SOUND, clusters, rate, rounds, parts)


def same_modality(
    tokenizer: Tokenizer,
    *,
    modality: Literal["audio", "video"] = "video",
    clusters: int = 64,
    rate: float = 0.01,
    rounds: Rounds = Rounds(),
    parts: Parts = Moments(),
) -> Recipe:
    """Same-modality-XDC: two networks of one modality predict each other's clusters.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        modality: of both; what is embedded is the first one's.
        clusters: k of each one's features.
        rate: peak learning rate of a round.
        rounds: how often and how features are clustered.
        parts: towers, views and optimisation.
    """
    both = {modality: clusters, SECOND + modality: clusters}
    other = replace(cast("Any", parts), seed=parts.seed + 1)
    seconds = other.towers(tokenizer, [modality])
    return _recipe(tokenizer, crossed, [modality], both, rate, rounds, parts, seconds)


def xdc_final(
    tokenizer: Tokenizer,
    *,
    table: str = "",
    source: str = "audio",
    clusters: int = 128,
    modalities: Sequence[Modality] = ("video",),
    epochs: int = 60,
    uniform: bool = True,
    rate: float = 0.01,
    parts: Parts = Moments(frames=32),
) -> Recipe:
    """New networks on the clusters that a run found last, on longer films.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        table: the clusters of a run's last round, such as `runs/xdc/round 6.parquet`.
        source: whose clusters are learned, a column of the table.
        clusters: how many there are.
        modalities: those that learn them.
        epochs: of training; the paper gives none.
        uniform: show as many clips of each cluster; without, each clip once an epoch.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    towers = parts.towers(tokenizer, modalities)
    with drawn_by(parts.seed):
        method = Assigned(
            towers,
            (Stage("final", epochs),),
            table=Path(table),
            source=source,
            clusters=clusters,
            width=parts.width,
            uniform=uniform,
        )
    return parts.recipe(tokenizer, method, (rate,))


_FEW = Rounds(rounds=5, epochs=4)
_K = {"audio_clusters": 32, "video_clusters": 32}
_SMALL = "with small towers, for a processor."
sdc_small = small(sdc, f"SDC {_SMALL}", rate=1e-3, rounds=_FEW, **_K)
mdc_small = small(mdc, f"MDC {_SMALL}", rate=1e-3, rounds=_FEW, **_K)
cdc_small = small(cdc, f"CDC {_SMALL}", rate=1e-3, rounds=_FEW, clusters=32)
xdc_small = small(xdc, f"XDC {_SMALL}", rate=1e-3, rounds=_FEW, **_K)
same_modality_small = small(
    same_modality, f"Same-modality-XDC {_SMALL}", rate=1e-3, rounds=_FEW, clusters=32
)
xdc_final_small = small(
    xdc_final,
    "New small towers on the clusters that a run found last.",
    rate=1e-3,
    epochs=8,
    clusters=32,
)


def _recipe(
    tokenizer: Tokenizer,
    policy: Policy,
    modalities: Iterable[Modality],
    clusters: Mapping[str, int],
    rate: float,
    rounds: Rounds,
    parts: Parts,
    seconds: Mapping[Modality, nn.Module] | None = None,
) -> Recipe:
    towers = parts.towers(tokenizer, modalities)
    encoders = [*towers, *(SECOND + modality for modality in seconds or {})]
    with drawn_by(parts.seed):
        method = DeepCluster(
            towers,
            rounds.stages,
            routes=policy(encoders),
            clusters=clusters,
            width=parts.width,
            rounds=rounds,
            seconds=seconds,
        )
    return parts.recipe(tokenizer, method, (rate,) * rounds.rounds)


def _modality(encoder: str) -> Modality:
    return cast("Modality", encoder.removeprefix(SECOND))


def _buffer(source: str) -> str:
    return f"labels_{source}"


def _said(source: str, measured: Mapping[str, Any]) -> str:
    """The measures of a source's clusters, in words."""
    parts = [f"{source} in clusters of {measured['smallest']} to {measured['largest']} clips"]
    if measured["nmi"] is not None:
        parts.append(f"NMI {measured['nmi']:.3f} with those before")
    parts += [f"purity {share:.3f} of {label}" for label, share in measured["purity"].items()]
    return ", ".join(parts)


def _shares(total: int, parts: int, random: np.random.Generator) -> list[int]:
    """A number in so many parts that differ by one at most; chance says which are larger."""
    shares = np.full(parts, total // parts)
    shares[random.permutation(parts)[: total % parts]] += 1
    return [int(share) for share in shares]

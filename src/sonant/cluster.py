"""K-means over features that many processes hold, read in blocks; and balanced labels.

Each rank gives its own rows: a tensor, an array, or whatever else has a shape and is sliced, such
as `numpy.load(path, mmap_mode="r")`. One block of them is in memory at a time, so that only the
labels grow with the rows. All rows count, unless a `share` of them is asked for.

Chance comes from hashing what is in a row, never from its place: the clusters are the same however
rows are ordered and dealt to ranks. Assignments are those of float64: float32 decides for the rows
whose nearest centroids its rounding cannot confuse, float64 for the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Generator, Tensor

from sonant.distributed import device, gather, largest, rank, ranks
from sonant.errors import UsageError, above_zero, at_least

ROUNDS = 2
"""Passes of k-means‖ that draw rows far from those drawn before."""
TRIES = 4
"""Times that what they drew is clustered; the best is the start."""
REPAIRS = 50
"""Iterations beyond those asked for, in which clusters without rows may still find some."""
_BLOCK, _LARGE_BLOCK = 1024, 65_536
"""Rows in memory at once: as many as a processor's caches hold, or an accelerator wants."""
_EQUAL = 2.0**-46
"""Scores that differ by less than this share of their terms are equal; the first centroid wins."""
_GOLDEN = -7046029254386353131
"""2 ** 64 over the golden ratio: spreads the few bits that are set in simple numbers."""
_LOG = logging.getLogger(__name__)


@runtime_checkable
class Rows(Protocol):
    """Features [n, width] of this rank's clips: a tensor, an array, a memory map, an HDF5 data set.

    Floating numbers of any size that numpy or torch has; also indexed by sorted row numbers, where
    a `share` is asked for.
    """

    @property
    def shape(self) -> Any:
        """The number of rows, and their width."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Rows, as a tensor or an array."""


Prepare = Callable[[Tensor], Tensor]
"""Makes of rows [b, width] the rows [b, d] that are clustered, each by itself."""


class Clusters(NamedTuple):
    """What `kmeans` found, on the device that the rows lie on."""

    centroids: Float[Tensor, "k d"]
    """The means, equal on all ranks; float32, or float64 where the rows are."""
    assignments: Int[Tensor, " n"]
    """The nearest centroid of each of this rank's rows; each centroid has rows on some rank."""
    objective: Float[Tensor, " iterations"]
    """After each iteration, the sum over all ranks' rows of the squared distance to the nearest
    centroid; float64, never rising. Once an iteration changes no assignment, it is repeated."""


class Nearest(NamedTuple):
    """Where rows lie among centroids."""

    assignments: Int[Tensor, " n"]
    """The nearest centroid of each row."""
    distances: Float[Tensor, " n"]
    """Its squared distance; float64."""


@dataclass(frozen=True, eq=False)
class Preparation:
    """DeepCluster's preprocessing: PCA, whitening, length 1 (Caron et al. 2018, sec. 4).

    Args:
        mean: [width] is taken off every row.
        projection: [width, d] multiplies it.
        unit: it is then scaled to length 1; of zeros it makes NaN, which `kmeans` refuses.
    """

    mean: Float[Tensor, " width"] | None = None
    projection: Float[Tensor, "width d"] | None = None
    unit: bool = False

    def __call__(self, rows: Float[Tensor, "b width"]) -> Float[Tensor, "b d"]:
        """Prepare rows."""
        if self.mean is not None:
            rows = rows - self.mean.to(rows)
        if self.projection is not None:
            rows = rows @ self.projection.to(rows)
        return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True) if self.unit else rows


@torch.no_grad()
def preparation(
    x: Rows, *, pca: int | None = None, whiten: bool = False, unit: bool = False
) -> Preparation:
    """Learn from all ranks' rows how to prepare them for `kmeans`; equal on all ranks.

    Args:
        x: this rank's rows [n, width].
        pca: keep this many principal components; None keeps all, and rotates only to whiten.
        whiten: scale each component to variance 1.
        unit: scale rows to length 1, last.

    Raises:
        UsageError: rows are not finite or all equal, or vary in fewer directions than are kept.
    """
    blocks = Blocks(x)
    total, mean = _survey(blocks, 1)
    if pca is None and not whiten:
        return Preparation(unit=unit)
    kept = len(mean) if pca is None else pca
    at_least(1, pca=kept)
    scatter = mean.new_zeros(len(mean), len(mean))
    for _, raw, _ in blocks:
        away = raw.double() - mean
        scatter += away.T @ away
    variances, directions = torch.linalg.eigh(_summed(scatter) / (total - 1))
    there = int((variances > len(mean) * torch.finfo(torch.float32).eps * variances[-1]).sum())
    if kept > there:
        raise UsageError(
            f"{kept} principal components wanted, but the {total} rows of {len(mean)} numbers vary "
            f"in {there} directions; keep at most pca={there}"
        )
    variances, directions = variances[-kept:].flip(0), directions[:, -kept:].flip(1)
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return Preparation(mean, directions * signs * (variances.rsqrt() if whiten else 1.0), unit)


@torch.no_grad()
def kmeans(
    x: Rows,
    k: int,
    *,
    seed: int,
    iterations: int = 20,
    start: Literal["plusplus", "random"] | Float[Tensor, "k d"] = "plusplus",
    restarts: int = 1,
    spherical: bool = False,
    prepare: Prepare | None = None,
    share: float = 1.0,
) -> Clusters:
    """Cluster all ranks' rows around k means by Lloyd's iterations, with sums in float64.

    A centroid that is left without rows moves to a row drawn as k-means++ draws, and so splits that
    row's cluster; the last iteration is repeated while it leaves one. The logger `sonant.cluster`
    says when that happens, and what a `share` leaves out.

    Args:
        x: this rank's rows [n, width].
        k: the number of clusters.
        seed: of all draws; the same on all ranks.
        iterations: how often means are taken and rows assigned to them.
        start: "plusplus" is scalable k-means++ (k-means‖, Bahmani et al. 2012): k rows are drawn
            alike and k in each of `ROUNDS` passes by their squared distance from those before;
            greedy k-means++ and Lloyd's iterations cluster the means of the rows nearest to each.
            "random" draws k rows alike. A tensor [k, d] is itself the start.
        restarts: how many starts are tried; the least objective at the end counts.
        spherical: rows, once prepared, and means are scaled to length 1 (cosine k-means).
        prepare: applied to each block that is read, for instance a `Preparation`; the centroids are
            in the space that it leads to.
        share: the part of the rows, drawn alike, that means are taken of and that the objective
            sums over; all are assigned at the end. 1 is all.

    Raises:
        UsageError: k is not from 1 to the number of rows that differ; rows are not finite, all
            equal or not equally wide on all ranks; or an argument is out of its range.
    """
    at_least(1, k=k, iterations=iterations, restarts=restarts)
    if not 0 < share <= 1:
        raise UsageError(f"share must be above 0 and at most 1, not {share}")
    if not isinstance(start, Tensor) and start not in STARTS:
        raise UsageError(f"start must be a tensor or one of {', '.join(STARTS)}, not {start!r}")
    steps: list[Prepare] = [prepare] if prepare else []
    steps += [Preparation(unit=True)] if spherical else []
    _, mean = _survey(Blocks(x, steps), k)
    blocks = Blocks(x, steps or [Preparation(mean)])
    origin = torch.zeros_like(mean[:1]) if steps else mean.to(blocks.dtype).double()
    generator = Generator().manual_seed(seed)
    learned = blocks if share == 1 else _picked(blocks, share, k, generator)
    if isinstance(start, Tensor):
        start = _given(start, k, blocks) - origin
    runs = (_lloyd(learned, k, start, iterations, spherical, generator) for _ in range(restarts))
    centroids, labels, objective = min(runs, key=lambda run: float(run.objective[-1]))
    if share < 1:
        labels, _ = _assigned(blocks, centroids)
    where = x.device if isinstance(x, Tensor) else torch.device("cpu")
    centroids = (centroids + origin).to(where, blocks.dtype)
    return Clusters(centroids, labels.to(where), objective.to(where))


@torch.no_grad()
def nearest(x: Rows, centroids: Float[Tensor, "k d"], *, prepare: Prepare | None = None) -> Nearest:
    """Assign rows to centroids that are there, as `kmeans` does; each rank does its own.

    Args:
        x: rows [n, width].
        centroids: in the space that `prepare` leads to.
        prepare: what `kmeans` was given.

    Raises:
        UsageError: rows or centroids are not finite, or not equally wide.
    """
    blocks = Blocks(x, [prepare] if prepare else [])
    found = _assigned(blocks, _given(centroids, len(centroids), blocks))
    lost = (~found.distances.isfinite()).nonzero()
    if len(lost):
        raise UsageError(f"row {int(lost[0])} of the features holds NaN or infinity")
    where = x.device if isinstance(x, Tensor) else torch.device("cpu")
    return Nearest(*(part.to(where) for part in found))


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n k"],
    *,
    sharpness: float = 20.0,
    shares: Float[Tensor, " k"] | None = None,
    tolerance: float = 0.1,
    iterations: int = 2000,
) -> Float[Tensor, "n k"]:
    """Soft labels that are balanced over clusters (Asano et al. 2020, eqs. 5 to 8; SeLaVi).

    Of all Q ≥ 0 whose rows sum to 1 and whose columns sum to n times their share, that with the
    largest Σ Q·scores + H(Q) / sharpness, by Sinkhorn's iterations in float64 and in logarithms.
    They end with the columns: those sums are exact, those of the rows as near as `tolerance` asks.
    The labels are `sinkhorn(...).argmax(1)`.

    Args:
        scores: log-probabilities of clusters; for SeLaVi, summed over the modalities.
        sharpness: λ; the higher, the nearer to one label a row. The defaults are SeLaVi's.
        shares: of each cluster, above 0; None: 1 / k each.
        tolerance: stop when the columns' scale factors change by less, relatively and summed.
        iterations: at most so many.

    Raises:
        UsageError: scores are not [n, k] or NaN, or a share is not above 0.
    """
    above_zero(sharpness=sharpness, tolerance=tolerance)
    at_least(1, iterations=iterations)
    if scores.ndim != 2 or not scores.numel() or scores.isnan().any():
        raise UsageError(
            f"scores have the shape {tuple(scores.shape)} and {int(scores.isnan().sum())} NaN; "
            "wanted numbers [rows, clusters]"
        )
    rows, k = scores.shape
    wanted = scores.new_ones(k).double() if shares is None else shares.to(scores).double()
    if wanted.shape != (k,) or not (wanted > 0).all():
        raise UsageError(f"shares are {wanted.tolist()}; wanted {k} numbers above 0")
    sums = (rows * wanted / wanted.sum()).log()
    logits = sharpness * scores.double()
    column = torch.zeros_like(sums)
    for _ in range(iterations):
        row = -(logits + column).logsumexp(1, keepdim=True)
        before, column = column, sums - (logits + row).logsumexp(0)
        if (before - column).expm1().abs().sum() < tolerance:
            break
    return (logits + row + column).exp().to(scores.dtype)


class Blocks:
    """This rank's rows, read a block at a time.

    Args:
        x: the rows.
        steps: what prepares each block, one after the other.
        picked: numbers of the rows that are read, rising; None reads all.

    Raises:
        UsageError: rows are not [rows, width], or no floating numbers.
    """

    def __init__(
        self, x: Rows, steps: Sequence[Prepare] = (), picked: NDArray[Any] | None = None
    ) -> None:
        self.x, self.steps, self.picked = x, steps, picked
        if len(x.shape) != 2 or not x.shape[1]:
            raise UsageError(f"features have the shape {tuple(x.shape)}; wanted [rows, width]")
        kind = to_tensor(x[:0])
        if not kind.is_floating_point():
            raise UsageError(f"features are {kind.dtype}; wanted floating numbers of 16 to 64 bits")
        self.dtype = torch.float64 if kind.dtype == torch.float64 else torch.float32
        self.device = device() if kind.device.type == "cpu" else kind.device
        empty = torch.zeros(0, int(x.shape[1]), dtype=self.dtype, device=self.device)
        self.width = int(self._prepared(empty).shape[1])

    def __len__(self) -> int:
        return int(self.x.shape[0]) if self.picked is None else len(self.picked)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Where a block lies, its rows [b, width] as they are, and [b, d] as they are clustered."""
        size = _BLOCK if self.device.type == "cpu" else _LARGE_BLOCK
        for first in range(0, len(self), size):
            part = slice(first, min(first + size, len(self)))
            read = self.x[part if self.picked is None else self.picked[part]]
            rows = to_tensor(read).to(self.device, self.dtype)
            yield part, rows, self._prepared(rows)

    def _prepared(self, rows: Tensor) -> Tensor:
        for step in self.steps:
            rows = step(rows)
        return rows


def to_tensor(rows: Any) -> Tensor:
    """Rows as a tensor; copied only where torch cannot lie on numpy's memory."""
    if isinstance(rows, Tensor):
        return rows
    array = np.asarray(rows)
    if array.dtype.kind != "f" or array.itemsize > 8:
        raise UsageError(f"features are {array.dtype}; wanted floating numbers of 16 to 64 bits")
    copy = not array.flags.writeable or min(array.strides) < 0
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=copy))


def _summed(x: Tensor) -> Tensor:
    """The sum over ranks."""
    if ranks() > 1:
        dist.all_reduce(x)
    return x


def _survey(blocks: Blocks, k: int) -> tuple[int, Tensor]:
    """Refuse, on all ranks at once, what has no k clusters; else count all rows and their mean."""
    width, bad = int(blocks.x.shape[1]), torch.zeros(3, dtype=torch.int64)
    total = torch.zeros(width, dtype=torch.float64, device=blocks.device)
    extremes = torch.full((2, blocks.width), -math.inf, dtype=blocks.dtype, device=blocks.device)
    for part, rows, prepared in blocks:
        total += total.new_ones(len(rows)) @ rows.double()
        extremes = extremes.maximum(torch.stack([prepared.amax(0), -prepared.amin(0)]))
        lost = (~torch.linalg.vector_norm(prepared, dim=1).isfinite()).nonzero()[:, 0]
        if len(lost) and not bad[0]:
            here = bool(torch.linalg.vector_norm(rows[lost[0]]).isfinite())
            bad = torch.tensor([0, part.start + int(lost[0]), here])
        bad[0] += len(lost)
    about = torch.tensor([[len(blocks), width, *bad.tolist()]], device=blocks.device)
    everywhere = gather(about).tolist()
    _check(everywhere, k)
    count = sum(rows for rows, *_ in everywhere)
    highest, lowest = largest(extremes) * extremes.new_tensor([[1], [-1]])
    rounding = 4 * torch.finfo(blocks.dtype).eps * highest.abs().maximum(lowest.abs())
    if count > 1 and bool((highest - lowest <= rounding).all()):
        raise UsageError(
            f"all {count} rows of the features are equal, so there is nothing to cluster; an "
            "encoder that has collapsed gives such features"
        )
    return count, _summed(total) / count


def _check(everywhere: list[list[int]], k: int) -> None:
    """Of each rank: rows, width, bad rows, the first of them, and if only its preparation fails."""
    widths = [width for _, width, *_ in everywhere]
    if len(set(widths)) > 1:
        raise UsageError(f"features are {widths} numbers wide on the ranks; wanted one width")
    count = sum(rows for rows, *_ in everywhere)
    bad = sum(here for _, _, here, *_ in everywhere)
    for place, (rows, _, here, first, prepared) in enumerate(everywhere):
        if here:
            which = f"row {first}" + (f" of the {rows} of rank {place}" if ranks() > 1 else "")
            what = "has no direction" if prepared else "is not finite or too long for float32"
            raise UsageError(f"{which} of the features {what}; so it is with {bad} of {count} rows")
    if count < k:
        raise UsageError(f"k={k} clusters wanted of {count} rows; there must be k rows or more")


def _given(centroids: Tensor, k: int, blocks: Blocks) -> Tensor:
    """Centroids of the caller's, checked; float64."""
    if centroids.shape != (k, blocks.width) or not k or not centroids.isfinite().all():
        raise UsageError(
            f"centroids have the shape {tuple(centroids.shape)} and "
            f"{int((~centroids.isfinite()).sum())} numbers that are not finite; wanted finite ones "
            f"[{k}, {blocks.width}]"
        )
    return centroids.to(blocks.device).double()


def _finder(centroids: Tensor) -> Callable[[Tensor], Tensor]:
    """What finds the nearest of centroids [k, d] (float64) for rows [b, d]; exact to `_EQUAL`.

    Distances to centroids m + a, m their mean, order as the scores |a|² / 2 + m·a - y·a. A product
    of d terms in float32 is off by at most (d + 4)·u·|y||a|, u the unit roundoff (Higham 2002, sec.
    3.1); of rows whose two least scores are nearer than twice that, float64 finds the least.
    """
    middle = centroids.mean(0)
    away = centroids - middle
    height = away.square().sum(1) / 2 + away @ middle
    reach, tallest = away.norm(dim=1).max(), height.abs().max()
    fast = _linear(-away.float(), height.float())
    rough = 0.0 if torch.get_float32_matmul_precision() == "highest" else 2.0**-7
    slack = 2 * ((centroids.shape[1] + 4) * 2.0**-24 + rough)

    def find(rows: Tensor) -> Tensor:
        scores = fast(rows.float())
        labels: Tensor = _argmin(scores)
        least = scores.gather(1, labels[:, None])
        second = scores.scatter_(1, labels[:, None], math.inf).amin(1, keepdim=True)
        size = torch.linalg.vector_norm(rows, dim=1, keepdim=True) * reach + tallest
        doubt = least + slack * size
        close = (~(second > doubt)).nonzero()[:, 0]
        if len(close):
            able = ~(scores.scatter_(1, labels[:, None], least)[close] > doubt[close])
            which, able = able.nonzero(as_tuple=True)
            row, centre = rows[close[which]].double(), away[able]
            terms = row.norm(dim=1) * centre.norm(dim=1) + height[able].abs()
            exact = away.new_full((2, len(close), len(away)), math.inf)
            exact[:, which, able] = height[able] - (row * centre).sum(1)
            exact[0, which, able] -= _EQUAL * terms
            exact[1, which, able] += _EQUAL * terms
            labels[close] = (exact[0] <= exact[1].amin(1, keepdim=True)).byte().argmax(1)
        return labels

    return find


def _argmin(scores: Tensor) -> Tensor:
    """The first least of each row; on a processor by numpy, whose search is vectorized."""
    if scores.device.type != "cpu":
        return scores.argmin(1)
    return torch.from_numpy(scores.numpy().argmin(1))


def _linear(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows @ weight.T + bias in float32; by oneDNN, as MKL is half as fast on some processors."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return lambda rows: F.linear(rows, weight, bias)
    weight, bias = weight.to_mkldnn(), bias.to_mkldnn()
    return lambda rows: F.linear(rows.to_mkldnn(), weight, bias).to_dense()


def _squares(rows: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances of paired rows, in the wider of their types; 0 where they are rounding."""
    found: Tensor = torch.linalg.vector_norm(rows - centroids, dim=1)
    rounding = 4 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(rows, dim=1)
    return found.where(~(found <= rounding), 0.0).double().square()


def _assigned(blocks: Blocks, centroids: Tensor) -> Nearest:
    """The nearest centroids of this rank's rows."""
    find = _finder(centroids)
    found = Nearest(
        torch.zeros(len(blocks), dtype=torch.int64, device=blocks.device),
        torch.zeros(len(blocks), dtype=torch.float64, device=blocks.device),
    )
    for part, _, rows in blocks:
        found.assignments[part] = find(rows)
        found.distances[part] = _squares(rows, centroids[found.assignments[part]])
    return found


class _Sweep(NamedTuple):
    """What one pass over all ranks' rows brings."""

    counts: Tensor
    """Rows of each cluster, [k]."""
    sums: Tensor
    """Their sum, [k, d]."""
    changed: bool
    """Whether an assignment is another than before."""


class _Assignment:
    """This rank's rows among k clusters: their labels [n], and the sums of clusters [k + 1, d].

    Rows begin in the last one, which is none. Sums follow the rows that move.
    """

    def __init__(self, blocks: Blocks, centroids: Tensor) -> None:
        k = len(centroids)
        self.blocks = blocks
        self.labels = torch.full((len(blocks),), k, device=blocks.device)
        self.sums = torch.zeros_like(F.pad(centroids, (0, 0, 0, 1)))

    def sweep(self, centroids: Tensor) -> _Sweep:
        """Assign all rows to their nearest centroids [k, d]."""
        find, changed = _finder(centroids), self.labels.new_zeros(1)
        for part, _, rows in self.blocks:
            found, before = find(rows), self.labels[part]
            moved = (found != before).nonzero()[:, 0]
            moving = rows[moved].double()
            self.sums.index_add_(0, found[moved], moving)
            self.sums.index_add_(0, before[moved], moving, alpha=-1)
            self.labels[part] = found
            changed += len(moved)
        counts = _summed(self.labels.bincount(minlength=len(centroids))).double()
        return _Sweep(counts, _summed(self.sums[:-1].clone()), bool(_summed(changed)))


def _lloyd(
    blocks: Blocks,
    k: int,
    start: str | Tensor,
    iterations: int,
    spherical: bool,
    generator: Generator,
) -> Clusters:
    """One start and its iterations, in float64."""
    centroids = STARTS[start](blocks, k, generator) if isinstance(start, str) else start
    spread = centroids.new_zeros(1)
    for _, _, rows in blocks:
        spread += torch.linalg.vector_norm(rows, dtype=torch.float64).square()
    _summed(spread)
    assignment = _Assignment(blocks, centroids)
    swept = assignment.sweep(centroids)
    objective: list[Tensor] = []
    for iteration in count(1):
        centroids = _moved(blocks, centroids, swept, spherical, generator)
        swept = assignment.sweep(centroids)
        squares = swept.counts @ centroids.square().sum(1) - 2 * (centroids * swept.sums).sum()
        objective[iterations - 1 :] = [(spread + squares).clamp(min=0)]
        if swept.counts.all() and (iteration >= iterations or not swept.changed):
            break
        if iteration > iterations + REPAIRS:
            raise UsageError(
                f"k={len(centroids)} clusters wanted, but {int((swept.counts == 0).sum())} of them "
                "have no row however often they are drawn: rows differ by too little"
            )
    objective += objective[-1:] * (iterations - len(objective))
    return Clusters(centroids, assignment.labels, torch.cat(objective))


def _moved(
    blocks: Blocks, centroids: Tensor, swept: _Sweep, spherical: bool, generator: Generator
) -> Tensor:
    """The means of the clusters, and drawn rows for those without rows."""
    means = swept.sums / swept.counts.clamp(min=1)[:, None]
    if spherical:
        length = means.norm(dim=1, keepdim=True)
        means = torch.where(length > 0, means / length, centroids)
    empty = swept.counts == 0
    lost = int(empty.sum())
    if lost:
        drawn = _draw(blocks, lost, generator, means[~empty])
        if len(drawn) < lost:
            there = len(means) - lost + len(drawn)
            raise UsageError(f"k={len(means)} clusters wanted, but only {there} rows differ")
        means[empty] = drawn
        _LOG.info("%d of %d clusters had no rows and take part of others", lost, len(means))
    return means


def _at_random(blocks: Blocks, k: int, generator: Generator) -> Tensor:
    """K rows that differ, drawn alike."""
    drawn = _draw(blocks, k, generator)
    if len(drawn) < k:
        raise UsageError(f"k={k} clusters wanted, but only {len(drawn)} rows differ")
    return drawn


def _plus_plus(blocks: Blocks, k: int, generator: Generator) -> Tensor:
    """K-means‖: candidates, and k-means of the means of the rows nearest to each."""
    drawn = _at_random(blocks, k, generator)
    for _ in range(ROUNDS):
        drawn = torch.cat([drawn, _draw(blocks, k, generator, drawn)])
    swept = _Assignment(blocks, drawn).sweep(drawn)
    full = swept.counts > 0
    weights = swept.counts[full].cpu()
    points = swept.sums[full].cpu() / weights[:, None]
    if len(points) < k:
        raise UsageError(f"k={k} clusters wanted, but only {len(points)} rows differ")
    tries = [_reduced(points, weights, k, generator) for _ in range(TRIES)]
    return min(tries, key=lambda found: float(weights @ _apart(points, found).amin(1))).to(
        blocks.device
    )


def _reduced(points: Tensor, weights: Tensor, k: int, generator: Generator) -> Tensor:
    """K centroids [k, d] of weighted points in memory."""
    centroids = _greedy(points, weights, k, generator)
    for _ in range(10):
        labels = _apart(points, centroids).argmin(1)
        mass = torch.zeros(k).to(weights).index_add_(0, labels, weights)
        total = torch.zeros_like(centroids).index_add_(0, labels, weights[:, None] * points)
        centroids = torch.where(mass[:, None] > 0, total / mass[:, None], centroids)
    return centroids


def _greedy(points: Tensor, weights: Tensor, k: int, generator: Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): of each few points drawn, the best."""
    trials = 2 + int(math.log(k))
    chosen = [weights.multinomial(1, generator=generator)]
    near = _apart(points, points[chosen[0]])[:, 0]
    while len(chosen) < k:
        tried = (weights * near).multinomial(trials, replacement=True, generator=generator)
        nearer = _apart(points, points[tried]).minimum(near[:, None])
        best = (weights @ nearer).argmin()
        chosen.append(tried[best][None])
        near = nearer[:, best]
    return points[torch.cat(chosen)]


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances [n, m]."""
    return torch.addmm(x.square().sum(1, keepdim=True) + y.square().sum(1), x, y.T, alpha=-2).clamp(
        min=0
    )


STARTS: dict[str, Callable[[Blocks, int, Generator], Tensor]] = {
    "plusplus": _plus_plus,
    "random": _at_random,
}


def _draw(
    blocks: Blocks, wanted: int, generator: Generator, centroids: Tensor | None = None
) -> Tensor:
    """Rows [up to wanted, d] that differ, of all ranks: alike, or by squared distance to centroids.

    A row with weight w wins with the least -log(chance) / w, so that the draw is one without
    replacement (Efraimidis and Spirakis 2006). Equal rows count once.
    """
    multipliers = _multipliers(blocks, generator)
    find = None if centroids is None else _finder(centroids)
    keys = torch.zeros(0, dtype=torch.float64, device=blocks.device)
    hashes, won = keys.long(), keys.new_zeros(0, blocks.width)
    for _, rows, prepared in blocks:
        here, chance = _chances(rows, multipliers)
        key = -chance.log()
        if find and centroids is not None:
            key /= _squares(prepared, centroids.to(prepared.dtype)[find(prepared)])
        good = key < (keys[-1] if len(keys) == wanted else math.inf)
        keys, hashes = torch.cat([keys, key[good]]), torch.cat([hashes, here[good]])
        won = torch.cat([won, prepared[good].double()])
        first = _first(keys, hashes, wanted)
        keys, hashes, won = keys[first], hashes[first], won[first]
    return _of_all(keys, hashes, won, wanted)


def _of_all(keys: Tensor, hashes: Tensor, won: Tensor, wanted: int) -> Tensor:
    """The first of all ranks' winners, on all ranks."""
    lacking = (0, wanted - len(keys))
    first = _first(
        gather(F.pad(keys, lacking, value=math.inf)), gather(F.pad(hashes, lacking)), wanted
    )
    rows = won.new_zeros(len(first), won.shape[1])
    mine = first // wanted == rank()
    rows[mine] = won[first[mine] % wanted]
    return _summed(rows)


def _first(keys: Tensor, hashes: Tensor, wanted: int) -> Tensor:
    """Where the least keys lie, in order, equal hashes once."""
    order = keys.argsort(stable=True)
    fresh = keys[order] < math.inf
    fresh[1:] &= hashes[order][1:] != hashes[order][:-1]
    return order[fresh][:wanted]


def _multipliers(blocks: Blocks, generator: Generator) -> Tensor:
    """Random odd numbers, one for each word of a row: a hash."""
    words = _words(torch.zeros(1, int(blocks.x.shape[1]), dtype=blocks.dtype)).shape[1]
    return torch.randint(-(2**63), 2**63 - 1, (words,), generator=generator).to(blocks.device) | 1


def _words(rows: Tensor) -> Tensor:
    """Rows as integers of 64 bits; the two zeros are one."""
    return F.pad(rows + 0.0, (0, rows.shape[1] % 2)).view(torch.int64)


def _chances(rows: Tensor, multipliers: Tensor) -> tuple[Tensor, Tensor]:
    """Hashes [b] of rows, and what they say as numbers between 0 and 1."""
    words = _words(rows)
    mixed = words * _GOLDEN
    hashes = ((mixed ^ (mixed >> 32)) * multipliers).sum(1)
    return hashes, ((hashes >> 11 & 2**53 - 1) + 0.5) / 2**53


def _picked(blocks: Blocks, share: float, k: int, generator: Generator) -> Blocks:
    """A share of the rows."""
    multipliers = _multipliers(blocks, generator)
    picks = [(_chances(rows, multipliers)[1] < share).cpu() for _, rows, _ in blocks]
    picked = np.flatnonzero(torch.cat([torch.zeros(0, dtype=torch.bool), *picks]))
    count, total = _summed(torch.tensor([len(picked), len(blocks)], device=blocks.device)).tolist()
    if count < k:
        raise UsageError(
            f"share={share} of {total} rows leaves {count}, and k={k} clusters want k or more"
        )
    _LOG.info("share=%g: the means are learned from %d of %d rows", share, count, total)
    return Blocks(blocks.x, blocks.steps, picked)

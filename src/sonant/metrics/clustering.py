"""How well clusters and labels agree: purity, mutual information, Rand, matching.

Clusters and labels are arrays [clips] of any values that can be told apart; what they are called,
and in which order, does not matter.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix

from sonant.errors import UsageError, at_least

Array = NDArray[Any]


def purity(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Share of clips that have the commonest label of their cluster, in (0, 1]."""
    table = _table(clusters, labels)
    return float(table.max(1).sum() / table.sum())


def nmi(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1].

    Other means are in use; this one, scikit-learn's default, is the V-measure.
    """
    return float(normalized_mutual_info_score(*_alike(labels, clusters)))


def ami(clusters: ArrayLike, labels: ArrayLike) -> float:
    """NMI adjusted for chance: 0 is expected of clusters that know nothing, 1 the best."""
    return float(adjusted_mutual_info_score(*_alike(labels, clusters)))


def ari(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Rand's share of pairs that both keep together or apart, adjusted for chance; 1 the best."""
    return float(adjusted_rand_score(*_alike(labels, clusters)))


def hungarian_accuracy(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Share of clips whose cluster stands for their label, under the best one-to-one matching."""
    table = _table(clusters, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


@dataclass(frozen=True)
class Read:
    """A cluster in the words of its labels: a cell of XDC's Table 6."""

    cluster: Any
    """Its name among the clusters."""
    clips: int
    concepts: tuple[tuple[Any, float], ...]
    """Its commonest labels, each with the share of the cluster's clips that have it."""

    @property
    def purity(self) -> float:
        """The share of the commonest."""
        return self.concepts[0][1]


def by_purity(clusters: ArrayLike, labels: ArrayLike, *, concepts: int = 3) -> list[Read]:
    """Clusters from the purest, each with its commonest labels (XDC sec. 5, Table 6).

    Of clusters equally pure the larger is first; of labels equally common, the first in order.

    Args:
        clusters: of each clip, [clips].
        labels: of each clip, [clips].
        concepts: how many labels to tell of each cluster; those that no clip has are left out.

    Raises:
        UsageError: there is not one cluster and one label a clip, or `concepts` is below 1.
    """
    at_least(1, concepts=concepts)
    table = _table(clusters, labels)
    (names, _), (words, _) = _told_apart(clusters), _told_apart(labels)
    found = []
    for name, row in zip(names.tolist(), table, strict=True):
        common = [at for at in np.argsort(-row, kind="stable")[:concepts] if row[at]]
        shares = tuple((words[at].item(), float(row[at] / row.sum())) for at in common)
        found.append(Read(name, int(row.sum()), shares))
    return sorted(found, key=lambda read: (-read.purity, -read.clips))


def _table(clusters: ArrayLike, labels: ArrayLike) -> Array:
    """Clips of each cluster (rows) with each label (columns)."""
    labels, clusters = _alike(labels, clusters)
    return np.asarray(contingency_matrix(clusters, labels))


def _alike(labels: ArrayLike, clusters: ArrayLike) -> tuple[Array, Array]:
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or not len(labels):
        raise UsageError(
            f"clusters and labels are one of each a clip, and not {clusters.shape} and "
            f"{labels.shape}"
        )
    return _told_apart(labels)[1], _told_apart(clusters)[1]


def _told_apart(values: ArrayLike) -> tuple[Array, Array]:
    """The values there are, in order, and which of them each clip has."""
    values = np.asarray(values)
    return np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)

"""How well clusters and labels agree: purity, mutual information, Rand, matching.

Clusters and labels are arrays [clips] of any values that can be told apart; what they are called,
and in which order, does not matter.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix

from sonant.errors import UsageError

Array = NDArray[Any]


def purity(clusters: Array, labels: Array) -> float:
    """Share of clips that have the commonest label of their cluster, in (0, 1]."""
    table = _table(clusters, labels)
    return float(table.max(1).sum() / table.sum())


def nmi(clusters: Array, labels: Array) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1]."""
    return float(normalized_mutual_info_score(*_alike(labels, clusters)))


def ami(clusters: Array, labels: Array) -> float:
    """NMI adjusted for chance: 0 is expected of clusters that know nothing, 1 the best."""
    return float(adjusted_mutual_info_score(*_alike(labels, clusters)))


def ari(clusters: Array, labels: Array) -> float:
    """Rand's share of pairs that both keep together or apart, adjusted for chance; 1 the best."""
    return float(adjusted_rand_score(*_alike(labels, clusters)))


def hungarian_accuracy(clusters: Array, labels: Array) -> float:
    """Share of clips whose cluster stands for their label, under the best one-to-one matching."""
    table = _table(clusters, labels)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def _table(clusters: Array, labels: Array) -> Array:
    """Clips of each cluster (rows) with each label (columns)."""
    labels, clusters = _alike(labels, clusters)
    return np.asarray(contingency_matrix(clusters, labels))


def _alike(labels: Array, clusters: Array) -> tuple[Array, Array]:
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or not len(labels):
        raise UsageError(
            f"clusters and labels are one of each a clip, and not {clusters.shape} and "
            f"{labels.shape}"
        )
    return tuple(np.unique(x.astype(str), return_inverse=True)[1] for x in (labels, clusters))  # type: ignore[return-value]

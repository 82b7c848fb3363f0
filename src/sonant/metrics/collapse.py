"""Has a space of embeddings collapsed? What to look at beside every score."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def effective_rank(x: Array) -> float:
    """Exponential of the entropy of the singular values' shares (Roy and Vetterli, 2007).

    Args:
        x: embeddings [clips, width], finite.

    Returns:
        From 1 (all rows on one line) to the lesser of clips and width.
    """
    share = np.linalg.svd(np.asarray(x, float), compute_uv=False)
    share = share[share > 0] / max(share.sum(), np.finfo(float).tiny)
    return float(np.exp(-(share * np.log(share)).sum()))


def mean_other_cosine(x: Array) -> float:
    """Mean cosine of each clip's embedding with those of all other clips: 1 if all are one.

    Args:
        x: unit rows [clips, width], two or more.
    """
    x = np.asarray(x, float)
    n = len(x)
    return float((np.square(x.sum(0)).sum() - np.square(x).sum()) / (n * (n - 1)))

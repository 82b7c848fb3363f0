"""A choice of clips that is spread over videos and verbs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sonant.errors import UsageError, at_least

Rows = NDArray[np.intp]


def spread(videos: ArrayLike, verbs: ArrayLike, clips: int, *, seed: int = 0) -> Rows:
    """Choose clips so that every video, and in a video every verb, comes up as often as it can.

    Videos take turns; when it is a video's turn, its verbs take turns. Who goes first in a turn,
    and which clip of a verb is taken, is drawn. So videos differ by at most one clip until the
    smaller ones have no more, and so do the verbs of a video. Fewer clips are the first of more.

    Args:
        videos: video of each clip [clips].
        verbs: verb of each clip [clips]; "" for clips of which it is not known, one verb here.
        clips: how many to choose.
        seed: of the draw.

    Returns:
        The chosen rows, in the order of the table.

    Raises:
        UsageError: there are fewer clips.
    """
    of_video, of_verb = _codes(videos), _codes(verbs)
    at_least(1, clips=clips)
    if clips > len(of_video):
        raise UsageError(f"{clips} clips cannot be chosen out of {len(of_video)} that can be used")
    drawn = np.random.default_rng(seed).permutation(len(of_video))
    of_cell = of_video * (of_verb.max(initial=0) + 1) + of_verb
    verb_turn = _turns(of_cell, drawn)
    turn = _turns(of_video, np.lexsort((drawn, verb_turn)).argsort())
    return np.sort(np.lexsort((drawn, turn))[:clips])


def _turns(groups: NDArray[Any], order: NDArray[Any]) -> NDArray[np.int64]:
    """Each row's place in its group, from 0, if rows stand in an order."""
    rows = np.lexsort((order, groups))
    sorted_groups = groups[rows]
    first = np.searchsorted(sorted_groups, sorted_groups)
    turns = np.empty(len(rows), np.int64)
    turns[rows] = np.arange(len(rows)) - first
    return turns


def _codes(names: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(names)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    return np.unique(array.astype(str), return_inverse=True)[1].astype(np.int64)

"""Clips of a table at another length, around the same narrated times."""

import numpy as np
import pyarrow as pa

from sonant.clips import COLUMNS, Clips
from sonant.errors import UsageError
from sonant.media.events import TICK
from sonant.sources.folder import Window, look_into, too_short


def uneven(clips: Clips, window: Window) -> str:
    """Why clips were not all cut to a window, or nothing; those in quarantine do not count."""
    good = clips.where(quarantined=False)
    seconds = good.column("end") - good.column("start")
    if np.all(np.abs(seconds - window.length) <= TICK):
        return ""
    return f"clips last from {seconds.min():g} to {seconds.max():g} s, not all {window.length:g} s"


def recut(
    clips: Clips,
    window: Window,
    *,
    was: Window | None = None,
    workers: int = 2,
    patience: float = 60.0,
) -> Clips:
    """The clips at another length, under the same ids and around the times they were cut around.

    That time is `was.before` after a clip's start, but for a clip that was moved inwards at an edge
    of its video, where it is off by as much. The new clips are moved inwards, too; one that is
    longer than its video goes to quarantine, and so do those of videos that cannot be opened.

    Args:
        clips: all of the length of `was`, but for those in quarantine, which stay as they are.
        window: what to cut.
        was: what the clips were cut with; MC3's 0.5 s before and 1 s after if not given.
        workers: processes that look how long the videos are.
        patience: seconds without an answer after which a video is given up.

    Raises:
        UsageError: clips of other lengths.
    """
    was = was or Window()
    if why := uneven(clips, was):
        raise UsageError(f"{why}: they cannot be cut to {window.length:g} s")
    good = clips.column("quarantine") == ""
    ids, videos = clips.column("id"), clips.column("video")
    wanted = sorted(set(videos[good]))
    seen = look_into(clips.root, wanted, workers=workers, patience=patience)
    start, end = clips.column("start").copy(), clips.column("end").copy()
    reasons: dict[str, str] = {}
    for row in np.flatnonzero(good):
        look = seen[videos[row]]
        if isinstance(look, str):
            reasons[ids[row]] = look
        elif look.duration < window.length - TICK:
            reasons[ids[row]] = too_short(look.duration, window)
        else:
            start[row], end[row] = window.around(start[row] + was.before, look.duration)
    table = clips.table
    for name, times in (("start", start), ("end", end)):
        table = table.set_column(COLUMNS.names.index(name), COLUMNS.field(name), [pa.array(times)])
    return Clips(table, clips.root).quarantined(reasons).with_packed({})

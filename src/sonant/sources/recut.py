"""Clips of a table at another length, around the times that they were cut around."""

import numpy as np
import pyarrow as pa

from sonant.clips import COLUMNS, LENGTH_SLACK, Clips
from sonant.errors import UsageError
from sonant.media.events import TICK
from sonant.sources.folder import Window, look_into, too_short

CUT = Window()
"""What clips are taken to have been cut with: MC3's 0.5 s before their narration and 1 s after."""


def uneven(clips: Clips) -> str:
    """Why clips cannot all have been cut with `CUT`, or nothing; quarantined ones do not count."""
    good = clips.where(quarantined=False)
    seconds = good.column("end") - good.column("start")
    if np.all(np.abs(seconds - CUT.length) <= LENGTH_SLACK):
        return ""
    return f"clips last from {seconds.min():.3f} to {seconds.max():.3f} s, not all {CUT.length:g} s"


def recut(clips: Clips, window: Window, *, workers: int = 2, patience: float = 60.0) -> Clips:
    """The clips at another length, under the same ids and around the same times.

    A clip's time is `CUT.before` after its start, but for a clip that was moved inwards at an edge
    of its video, where it is off by as much. The new clips are moved inwards, too; one that is
    longer than its video goes to quarantine, and so do those of videos that cannot be opened.

    Args:
        clips: all of the length of `CUT`, but for those in quarantine, which stay as they are.
        window: what to cut.
        workers: processes that look how long the videos are.
        patience: seconds without an answer after which a video is given up.

    Raises:
        UsageError: clips of other lengths, or the folder of the videos is not there.
    """
    if why := uneven(clips):
        raise UsageError(f"{why}: they cannot be cut to {window.length:g} s")
    if not clips.root.is_dir():
        raise UsageError(f"{clips.root}: no such folder, and the videos are to be cut anew")
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
            start[row], end[row] = window.around(start[row] + CUT.before, look.duration)
    table = clips.table
    for name, times in (("start", start), ("end", end)):
        table = table.set_column(COLUMNS.names.index(name), COLUMNS.field(name), [pa.array(times)])
    return Clips(table, clips.root).quarantined(reasons).with_packed({})

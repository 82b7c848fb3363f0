"""A narrated world whose truth is known: long videos in which people do things that may sound.

`laws` holds its constants, `story` what happens, `motion` how it moves, `picture` and `sound` what
is seen and heard, `narration` what is told, `truth` what is so, `writer` the files, and `oracle` a
file that checks the timing of whoever reads them. docs/world.md states the calibration.
"""

from sonant.sources.world.oracle import sync_video
from sonant.sources.world.writer import world

__all__ = ["sync_video", "world"]

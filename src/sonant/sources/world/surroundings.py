"""Labels of a world's clips beside truth.csv: what a thing is made of, where a video plays."""

from pathlib import Path

import pyarrow as pa

from sonant.clips import Clips
from sonant.sources.world.laws import THINGS
from sonant.sources.world.story import story


def surroundings(clips: Clips, *, seed: int) -> Clips:
    """The clips with a `material`, of the thing that is handled, and the `scene` of their video.

    Args:
        clips: of a world, with the labels of its truth.csv.
        seed: of that world.

    Raises:
        TableError: there is no label `done_noun`, so that the clips are of no world.
    """
    videos = sorted(set(clips.column("video")))
    scenes = [story(seed, int(Path(video).stem)).scene.name for video in videos]
    things = {"done_noun": list(THINGS), "material": [x.material for x in THINGS.values()]}
    return clips.join(pa.table(things), on="done_noun").join(
        pa.table({"video": videos, "scene": scenes}), on="video"
    )

"""How fast packed clips load for training: against seeking in the video, and against bare JPEGs.

    python benchmarks/loader.py --seconds 120 --out loader.json

Packs the video of benchmarks/pack.py at a short side of 224, then measures in one run, on one
thread: `Pack.read` of 4 frames and 1.5 s of sound, Pillow decoding just the same JPEG frames from
memory, and PyAV opening the video and seeking for every clip. They take turns and the best of each
counts. All rates are per second of processor time. It ends with 1 unless pack / seek is at least 20
and pack / bare 0.5 (clips per second).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pack import CLIP, least, make_video, narrated, seek_clips, tell
from sonant.clips import Clips
from sonant.media.pack import Pack, pack

FRAMES, SIZE = 4, 224
LOADS = 10
"""Times that every clip is loaded in a run: processor time comes in steps of 10 ms."""
DEMANDS = {"pack / seek": 20.0, "pack / bare": 0.5}


def jpegs(folder: Path, clips: Clips) -> list[list[bytes]]:
    """The JPEG files that `Pack.read` decodes of each clip, read by the standard library."""
    there = Pack(clips, folder)
    chosen = []
    for row, clip in enumerate(clips):
        times = there.read(row, frames=FRAMES).frame_times
        assert times is not None
        with tarfile.open(folder / clips.column("shard")[row]) as shard:
            names = [name for name in shard.getnames() if name.split(".")[0] == clip.id]
            members = {name: shard.extractfile(name).read() for name in names}  # type: ignore[union-attr]
        about = json.loads(members[f"{clip.id}.json"])
        places = [about["frame_times"].index(time) for time in times]
        chosen.append([members[f"{clip.id}.{place:03}.jpg"] for place in places])
    return chosen


def decode(files: list[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pixels [frames, H, W, 3] by Pillow alone."""
    return np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the video")
    parser.add_argument("--video", type=Path, help="keep the video here, or use it if it is there")
    parser.add_argument("--repeat", type=int, default=3, help="runs of which the best counts")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = arguments.video or Path(temporary) / "video.mp4"
        if not path.exists():
            make_video(path, arguments.seconds)
        with av.open(str(path)) as container:
            seconds = float(container.duration or 0) / av.time_base
        folder = Path(temporary) / "pack"
        clips = pack(narrated(path.parent, path.name, seconds), folder, short_side=SIZE, workers=1)
        files = jpegs(folder, clips)
        there = Pack(clips, folder)
        loads = [row for _ in range(LOADS) for row in range(len(clips))]
        sought = np.random.default_rng(0).permutation(clips.column("start"))[:20]
        works: dict[str, Callable[[], object]] = {
            "pack": lambda: [there.read(row, frames=FRAMES) for row in loads],
            "bare": lambda: [decode(files[row]) for row in loads],
            "seek": lambda: seek_clips(path, sought, FRAMES, SIZE),
        }
        spent = least(works, arguments.repeat)
    rates = {
        "pack": len(loads) / spent["pack"],
        "bare": len(loads) / spent["bare"],
        "seek": len(sought) / spent["seek"],
    }
    figures = {
        "clips": len(clips),
        "clip seconds": CLIP,
        "pack clips/s": rates["pack"],
        "bare JPEG clips/s": rates["bare"],
        "seek clips/s": rates["seek"],
        "pack / seek": rates["pack"] / rates["seek"],
        "pack / bare": rates["pack"] / rates["bare"],
    }
    return tell(figures, DEMANDS, arguments.out)


if __name__ == "__main__":
    sys.exit(main())

"""Damaged files: every one ends in a result or a reason, soon, and never in a made-up picture."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sonant.media.pack import Pack, pack
from sonant.sources.folder import Window, folder

DATA = Path(__file__).parent.parent / "data"
MUTATIONS = 300
SECONDS = 60
BLACK = 8
"""A picture that is nowhere brighter has been made up; JPEG adds a little to black."""

TRY_ALL = """
import json, sys, time
from pathlib import Path
import numpy as np
from sonant.errors import MediaError
from sonant.media.read import probe, read

for path in map(Path, sys.argv[1:]):
    print(json.dumps({"begin": path.name}), flush=True)
    begin, outcomes, black = time.monotonic(), [], False
    try:
        length = min(max(probe(path).duration, 0.2), 2.0)
        for start, end in ((0, length), (0.5 * length, 0.9 * length)):
            try:
                media = read(path, start, end, frames=4, size=32, rate=16_000)
                outcomes.append("")
                if media.frames is not None:
                    black |= bool((media.frames.reshape(4, -1).max(axis=1) == 0).any())
                assert media.samples is None or np.isfinite(media.samples).all()
            except MediaError as error:
                outcomes.append(error.reason)
    except MediaError as error:
        outcomes.append(error.reason)
    spent = time.monotonic() - begin
    print(json.dumps({"outcomes": outcomes, "black": black, "seconds": spent}), flush=True)
"""


def mutate(data: bytes, other: bytes, seed: int) -> bytes:
    """Cut short, with flipped bits, or with a stretch of another file in it."""
    chance = random.Random(seed)
    mutated = bytearray(data)
    kind = seed % 3
    if kind == 0:
        del mutated[chance.randrange(len(mutated)) :]
    elif kind == 1:
        for _ in range(chance.choice([1, 3, 10, 50])):
            mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
    else:
        at, of = chance.randrange(len(mutated)), chance.randrange(len(other))
        length = chance.randrange(1, 2000)
        mutated[at : at + length] = other[of : of + length]
    return bytes(mutated)


@pytest.fixture(scope="module")
def originals(film, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("originals")
    return [
        film(folder / "h264.mp4", seconds=2, options={"bf": "2", "crf": "24"}),
        film(folder / "vp8.webm", video="libvpx", audio="libopus", seconds=2),
        film(folder / "vp9.webm", video="libvpx-vp9", audio="libopus", seconds=1),
        film(folder / "mpeg4.mp4", video="mpeg4", seconds=2),
        DATA / "nasa_13013_rotated.mp4",
        DATA / "av1_video.mkv",
    ]


def mutants(originals: list[Path], folder: Path, number: int) -> list[Path]:
    contents = [path.read_bytes() for path in originals]
    paths = []
    for seed in range(number):
        which, other = seed % len(contents), (seed // 7) % len(contents)
        path = folder / f"{seed:03}{originals[which].suffix}"
        # Dividing first makes every original meet every kind of damage.
        path.write_bytes(mutate(contents[which], contents[other], seed // len(contents)))
        paths.append(path)
    return paths


@pytest.mark.slow
def test_mutated_files_are_packed_or_have_a_reason(originals, tmp_path):
    paths = mutants(originals, tmp_path, MUTATIONS)
    window = Window(0.2, 0.4)
    clips = pack(folder(tmp_path, window=window, patience=20.0), tmp_path / "pack", patience=20.0)
    assert set(clips.column("video")) == {path.name for path in paths}
    packed, reasons = clips.column("shard") != "", clips.column("quarantine")
    assert ((reasons == "") == packed).all()
    assert packed.sum() > 100 and len(set(reasons)) > 20
    there = Pack(clips, tmp_path / "pack")
    for row in np.flatnonzero(packed):
        frames = there.read(int(row), frames=2).frames
        assert len(frames) == 2 and (frames.reshape(2, -1).max(axis=1) > BLACK).all()


@pytest.mark.slow
def test_mutated_files_end_in_a_result_or_a_reason(originals, tmp_path):
    paths = mutants(originals, tmp_path, MUTATIONS)
    done = subprocess.run(
        [sys.executable, "-c", TRY_ALL, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1]} ended with {done.returncode}: {done.stderr[-2000:]}"
    results = [line for line in lines if "outcomes" in line]
    assert len(results) == MUTATIONS
    assert not any(result["black"] for result in results)
    assert max(result["seconds"] for result in results) < 10
    outcomes = [outcome for result in results for outcome in result["outcomes"]]
    assert outcomes.count("") > 50, "mutations that leave nothing readable prove little"
    assert sum(bool(outcome) for outcome in outcomes) > 50

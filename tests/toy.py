"""Clips whose sound, pictures and words go together, made up on the fly: for tests of learning."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sonant.clips import Clips
from sonant.media.read import Media
from sonant.types import Batch, Clip, Modality

VERBS = ("cut", "wash", "rub")
RATE = 16000
SECONDS = 0.3
TINY = {"frames": 2, "size": 32, "jitter": 2, "tokens": 6, "batch": 8, "width": 16}
TINY |= {"seconds": SECONDS}
"""Arguments that make a recipe small; its clips are as long as toy clips."""


def toy_clips(n: int) -> Clips:
    """Clips of three verbs in turn, every second one sounding, twenty a video."""
    rows = [
        Clip(
            id=f"c{i}",
            video=f"v{i // 20}.mp4",
            start=float(i % 20),
            end=i % 20 + SECONDS,
            text=f"#C C {VERBS[i % 3]}s the {('cup', 'pot')[i % 2]}",
            split="train",
            labels={"verb": VERBS[i % 3], "sounding": i % 2 == 0},
        )
        for i in range(n)
    ]
    return Clips.of(rows, root=Path())


def packed_toys(n: int, *, size: int = 512) -> Clips:
    """Toy clips that lie in a pack, each with so many bytes."""
    clips = toy_clips(n)
    return clips.with_packed({f"c{i}": ("00000.tar", size * i, size) for i in range(n)})


def noise_batch(there: Mapping[Modality, Tensor] | None = None, n: int = 6) -> Batch:
    """Clips of noise, as the small towers read them."""
    random = torch.Generator().manual_seed(0)
    inputs: dict[Modality, Tensor] = {
        "video": torch.randint(0, 256, (n, 2, 3, 32, 32), dtype=torch.uint8, generator=random),
        "audio": torch.randn(n, 28, 128, generator=random),
        "text": torch.randint(1, 9, (n, 6), generator=random),
    }
    return Batch(torch.arange(n), inputs, dict(there or {}))


class Toy:
    """Reads toy clips, and counts how often."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, row: int, *, frames: int, film: slice = slice(None)) -> Media:
        self.reads += 1
        random = np.random.default_rng(row)
        pixels = random.integers(0, 80, (frames, 36, 40, 3), dtype=np.uint8)
        for time in range(frames):
            left = 8 * time + 5 * (row % 3)
            pixels[time, :, left : left + 6] = 220
        wave = 0.01 * random.standard_normal(int(SECONDS * RATE))
        if row % 2 == 0:
            wave += np.sin(np.arange(wave.size) * (0.1 + 0.2 * (row % 3)))
        times = np.arange(frames) * 0.1
        sound = wave.astype(np.float32)
        if not frames:
            return Media(None, None, sound, 0.0, RATE)
        return Media(pixels[film], times[film], sound, 0.0, RATE)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files grow no larger than so many bytes: a full disk, for those who write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

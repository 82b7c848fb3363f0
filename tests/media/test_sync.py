"""The oracle of synchrony: a white frame and a click at known times, wherever a span begins."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sonant.media.read import Media, read

FLASHES = [0.6, 1.64, 2.36]
FRAME = 0.04


# Where nothing in the file says that an encoder's first samples are no sound, they are its first;
# and a fragmented file puts its pictures off by the two frames that B-frames are reordered over.
PRIMING = 1024 / 48_000


class Kind(NamedTuple):
    name: str
    options: dict[str, object]
    early: float = 0.0


KINDS = [
    Kind("h264_aac.mp4", {}),
    Kind("h264_aac_441.mp4", {"rate": 44_100, "layout": "stereo"}),
    Kind("h264_pcm.mov", {"audio": "pcm_s16le"}),
    Kind("h264_pcm_8k.mov", {"audio": "pcm_s16le", "rate": 8_000}),
    Kind("vp8_opus.webm", {"video": "libvpx", "audio": "libopus"}),
    Kind("h264_flac.mkv", {"audio": "flac"}),
    Kind("h264_aac.ts", {}, PRIMING),
    Kind("fragmented.mp4", {"container_options": {"movflags": "frag_keyframe"}}, 0.08),
    Kind("delayed.mp4", {"delay": 5.0}, PRIMING),
    Kind("one_keyframe.mp4", {"options": {"g": "1000", "bf": "3"}}),
    Kind("mpeg4_mp3.mp4", {"video": "mpeg4", "audio": "libmp3lame", "rate": 44_100}),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def flashing(request, film, tmp_path_factory) -> tuple[Path, float]:
    kind = request.param
    path = tmp_path_factory.mktemp("sync") / kind.name
    clicks = [flash + FRAME / 2 for flash in FLASHES]
    return film(path, flashes=FLASHES, clicks=clicks, **kind.options), kind.early


def white_times(media: Media) -> list[float]:
    assert media.frames is not None and media.frame_times is not None
    white = media.frames.reshape(len(media.frames), -1).mean(1) > 240
    return sorted(set(np.round(media.frame_times[white], 3)))


def click_times(media: Media) -> list[float]:
    assert media.samples is not None and media.samples_start is not None
    loud = np.flatnonzero(np.abs(media.samples) > 0.2)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > media.rate // 100) + 1)
    peaks = [group[np.argmax(np.abs(media.samples[group]))] for group in groups if len(group)]
    return [media.samples_start + peak / media.rate for peak in peaks]


@pytest.mark.parametrize("start", [0.0, 0.1, 0.377, 0.58, 1.0, 1.423])
def test_flash_and_click_are_where_they_belong(flashing, start):
    path, early = flashing
    end = start + 1.5
    media = read(path, start, end, frames=75, size=64, rate=16_000)
    inside = [flash + early for flash in FLASHES if start < flash + early + FRAME / 2 < end]
    assert white_times(media) == pytest.approx(inside, abs=0.002)
    clicks = [flash + FRAME / 2 for flash in inside]
    assert click_times(media) == pytest.approx(clicks, abs=0.001)
    assert abs(media.samples_start - start) < 0.001
    assert len(media.samples) == 24_000

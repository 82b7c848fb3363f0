import math
from pathlib import Path

import numpy as np
import pytest

from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.features import Features
from sonant.media.pack import pack
from sonant.media.read import Media
from sonant.report.films import film as as_mp4
from sonant.tasks import trivial as task
from sonant.tasks.trivial import MEASURES, measure, trivial
from sonant.types import Clip

RATE = 16_000


def media(samples: np.ndarray | None, frames: np.ndarray | None = None) -> Media:
    times = None if frames is None else np.arange(len(frames)) / 8
    sound = None if samples is None else samples.astype(np.float32)
    return Media(frames, times, sound, None if samples is None else 0.0, RATE)


def tone(level: float, seconds: float = 1.5) -> np.ndarray:
    return level * np.sqrt(2) * np.sin(2 * np.pi * 1000 * np.arange(int(seconds * RATE)) / RATE)


def test_loudness_is_the_level_of_a_tone() -> None:
    found = measure(media(tone(0.1)))
    assert found["loudness mean"] == pytest.approx(-20, abs=0.01)
    assert found["loudness max"] == pytest.approx(-20, abs=0.01)
    half = np.concatenate([tone(0.1, 0.75), np.zeros(RATE * 3 // 4)])
    found = measure(media(half))
    assert found["loudness max"] == pytest.approx(-20, abs=0.01)
    assert found["loudness mean"] == pytest.approx((-20 + task.FLOOR) / 2, abs=2)
    assert measure(media(np.zeros(RATE)))["loudness max"] == task.FLOOR


def test_a_knock_moves_the_log_mel_and_a_hum_does_not() -> None:
    noise = np.random.default_rng(0).normal(size=RATE) * 1e-3
    knock = noise.copy()
    knock[8000:8400] += np.random.default_rng(1).normal(size=400)
    hum, struck = measure(media(noise)), measure(media(knock))
    assert struck["spectral flux max"] > 3 * hum["spectral flux max"]
    assert struck["log-mel deviation"] > hum["log-mel deviation"]
    assert struck["loudness mean"] < hum["loudness mean"] + 5


def test_motion_is_the_mean_change_of_luma() -> None:
    still = np.full((4, 6, 8, 3), 100, np.uint8)
    assert measure(media(None, still))["motion energy"] == 0
    blink = still.copy()
    blink[1::2] = 151
    assert measure(media(None, blink))["motion energy"] == pytest.approx(51 / 255, rel=1e-5)
    green = still.copy()
    green[2:, :3, :, 1] += 51
    want = 0.587 * 51 / 255 / 2 / 3
    assert measure(media(None, green))["motion energy"] == pytest.approx(want, rel=1e-4)


def test_what_a_clip_lacks_is_nan() -> None:
    silent = measure(media(None, np.zeros((2, 4, 4, 3), np.uint8)))
    assert list(silent) == list(MEASURES)
    assert [math.isnan(value) for value in silent.values()] == [True] * 4 + [False]
    assert math.isnan(measure(media(tone(0.1)))["motion energy"])
    assert math.isnan(measure(media(np.zeros(10)))["loudness mean"])


class Tones:
    """Stands for a pack: a clip's level is in its text."""

    def __init__(self, clips: Clips, folder: str) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, row: int, *, frames: int) -> Media:
        return media(tone(float(self.clips[row].text)), np.zeros((frames, 4, 4, 3), np.uint8))


def packed(clips: int) -> Clips:
    rows = [Clip(f"c{i}", "a.mp4", i, i + 1.5, f"{0.01 * (i + 1)}") for i in range(clips)]
    table = Clips.of([*rows, Clip("bad", "a.mp4", 0, 1)], root=Path("/"))
    return table.quarantined({"bad": "gone"}).with_packed(
        {row.id: ("0.tar", 512 * i, 512) for i, row in enumerate(rows)}
    )


def test_every_packed_clip_is_measured_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "Pack", Tones)
    monkeypatch.setattr(task, "CHUNK", 4)
    found = trivial(packed(10), tmp_path, tmp_path / "trivial.parquet", workers=1)
    assert found.ids.tolist() == [f"c{i}" for i in range(10)]
    want = 20 * np.log10(0.01 * np.arange(1, 11))
    assert found.scores["loudness mean"] == pytest.approx(want, abs=0.01)
    assert tuple(found.scores) == MEASURES


def test_a_result_is_kept_for_its_clips_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "Pack", Tones)
    out = tmp_path / "trivial.parquet"
    first = trivial(packed(3), tmp_path, out)
    monkeypatch.setattr(task, "Pack", None)
    assert trivial(packed(3), tmp_path, out).table.equals(first.table)
    monkeypatch.setattr(task, "Pack", Tones)
    assert len(trivial(packed(4), tmp_path, out)) == 4
    assert len(Features.read(out)) == 4
    moved = packed(4).with_packed({f"c{i}": ("0.tar", 1024 * i, 1024) for i in range(4)})
    assert trivial(moved, tmp_path, out).data != trivial(packed(4), tmp_path).data
    assert Features.read(out).data == moved.where(packed=True).packed_digest()
    out.write_text("no table")
    with pytest.raises(UsageError, match="is no table of features"):
        trivial(packed(4), tmp_path, out)
    assert out.read_text() == "no table"


def test_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = Media(
        np.random.default_rng(0).integers(0, 255, (48, 16, 16, 3), np.uint8),
        np.arange(48) / 8,
        tone(0.1, 6).astype(np.float32),
        0.0,
        RATE,
    )
    (tmp_path / "a.mp4").write_bytes(as_mp4(film))
    rows = [Clip(f"c{i}", "a.mp4", i, i + 1.0) for i in range(5)]
    clips = pack(Clips.of(rows, root=tmp_path), tmp_path / "pack", workers=1)
    assert len(clips.where(packed=True)) == 5
    alone = trivial(clips, tmp_path / "pack", workers=1)
    monkeypatch.setattr(task, "CHUNK", 2)
    monkeypatch.setattr(task, "CHUNKS_OF_A_PROCESS", 1)
    assert trivial(clips, tmp_path / "pack", workers=2).table.equals(alone.table)
    assert alone.scores["loudness mean"] == pytest.approx(-20, abs=0.5)


def test_nothing_to_measure_is_an_error(tmp_path: Path) -> None:
    unpacked = Clips.of([Clip("a", "a.mp4", 0, 1)], root=Path("/"))
    with pytest.raises(UsageError, match="0 of 1 clips are packed"):
        trivial(unpacked, tmp_path)

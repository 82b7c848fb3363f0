"""Clips cut anew are those that indexing at that length makes."""

from pathlib import Path

import numpy as np
import pytest

from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.sources.folder import Window, folder
from sonant.sources.recut import recut, uneven

DATA = Path(__file__).parents[1] / "data"
VIDEO = "moviepy_pan_airshow.mp4"


def indexed(tmp_path: Path, window: Window, times: str) -> Clips:
    rows = "".join(f"{VIDEO},{time},#C C waits\n" for time in times.split())
    narrations = tmp_path / "narrations.csv"
    narrations.write_text("video,time,text\n" + rows)
    return folder(DATA, narrations=narrations, window=window, workers=1)


@pytest.mark.parametrize("window", [Window(0.25, 0.5), Window(1.0, 2.0), Window(0.0, 0.1)])
def test_clips_are_those_of_an_index_at_that_length(tmp_path: Path, window: Window) -> None:
    times = "1.5 2.0 -1 99 2.25"
    made = recut(indexed(tmp_path, Window(), times), window, workers=1)
    wanted = indexed(tmp_path, window, times)
    for name in ("id", "video", "text", "quarantine", "shard"):
        assert list(made.column(name)) == list(wanted.column(name))
    good = wanted.column("quarantine") == ""
    assert good.sum() == 3
    for name in ("start", "end"):
        np.testing.assert_allclose(made.column(name)[good], wanted.column(name)[good], atol=1e-9)


def test_at_an_edge_a_clip_stays_within_its_video_at_full_length(tmp_path: Path) -> None:
    made = recut(indexed(tmp_path, Window(), "0 11.2"), Window(1.0, 2.0), workers=1)
    assert list(made.column("start")) == pytest.approx([0.0, made[1].end - 3.0])
    assert made[1].end == pytest.approx(11.233, abs=1e-3)


def test_a_video_that_is_too_short_or_gone_costs_its_own_clips(tmp_path: Path) -> None:
    clips = indexed(tmp_path, Window(), "2")
    gone = Clips(clips.table, tmp_path)
    assert list(recut(gone, Window(1, 2), workers=1).column("quarantine")) == ["file is missing"]
    (why,) = recut(clips, Window(10, 20), workers=1).column("quarantine")
    assert "shorter than a clip of 30.000 s" in why


def test_clips_of_other_lengths_are_refused(tmp_path: Path) -> None:
    assert uneven(indexed(tmp_path, Window(), "2 99")) == ""
    with pytest.raises(UsageError, match=r"last from 1\.750 to 1\.750 s, not all 1\.5 s"):
        recut(indexed(tmp_path, Window(0.5, 1.25), "2 99"), Window(1, 2), workers=1)


def test_videos_that_are_away_are_no_videos_that_are_gone(tmp_path: Path) -> None:
    away = Clips(indexed(tmp_path, Window(), "2").table, tmp_path / "unmounted")
    with pytest.raises(UsageError, match="unmounted: no such folder"):
        recut(away, Window(1, 2), workers=1)

"""Windows of recordings: where they lie, what they keep, what becomes of short and bad ones."""

import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.cli import main
from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.media.pack import Pack, pack
from sonant.sources.esc50 import esc50
from sonant.sources.windows import footage, made_from, recordings, windows
from sonant.types import Clip


def sound(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        tone = 8000 * np.sin(np.arange(round(seconds * 8000)) * 0.2)
        file.writeframes(tone.astype("<i2").tobytes())
    return path


def whole(*spans: tuple[float, float]) -> Clips:
    """Recordings a, b, ... with these spans."""
    return Clips.of(
        [
            Clip(name, f"{name}.wav", *span, "", "test", {"class": name, "fold": None, "target": 3})
            for name, span in zip("abcdefgh", spans, strict=False)
        ],
        root=Path("/nowhere"),
    )


def starts(clips: Clips) -> list[float]:
    return [pytest.approx(start) for start in clips.column("start")]


@pytest.mark.parametrize(
    ("span", "how", "wanted"),
    [
        ((0.0, 7.0), {"stride": 2.0}, [0, 2, 4]),  # the second that is left is no window
        ((0.0, 7.0), {}, [0, 3]),
        ((0.0, 6.0), {}, [0, 3]),
        ((1.5, 8.5), {"count": 5}, [1.5, 2.5, 3.5, 4.5, 5.5]),
        ((0.0, 7.0), {"count": 1}, [2]),
        ((0.0, 7.0), {"count": 2}, [0, 4]),
        ((0.0, 3.1), {"count": 3}, [0, 0.05, 0.1]),  # they overlap
        ((0.0, 3.0), {"count": 10}, [0]),  # and here they are one
        ((0.0, 2.95), {"count": 10}, [0]),  # a little beyond the end
    ],
)
def test_windows_lie_where_they_should(
    span: tuple[float, float], how: dict[str, float], wanted: list[float]
) -> None:
    cut = windows(whole(span), seconds=3.0, **how)
    assert starts(cut) == wanted
    assert cut.column("end") - cut.column("start") == pytest.approx(3.0)
    assert cut.column("quarantine").tolist() == [""] * len(wanted)


@given(
    st.floats(0, 100),
    st.floats(0.2, 100),
    st.floats(0.1, 30),
    st.integers(1, 70),
)
def test_counted_windows_are_spread_evenly_from_begin_to_end(
    begin: float, length: float, seconds: float, count: int
) -> None:
    cut = windows(whole((begin, begin + length)), seconds=seconds, count=count)
    if cut.column("quarantine")[0]:
        assert length < seconds - 0.09
        return
    start, room = cut.column("start"), max(length - seconds, 0.0)
    assert len(cut) == count or (len(cut) < count and room < count * 1e-3)
    if count > 1 and len(cut) == count:
        assert start == pytest.approx(begin + np.linspace(0, room, count), abs=1e-9)
    assert start.min() >= begin
    assert start.max() <= begin + room + 1e-9


def test_windows_keep_what_their_recording_has(tmp_path: Path) -> None:
    cut = windows(whole((0.0, 4.0), (0.0, 2.0)), seconds=2.0)
    assert cut.column("id").tolist() == ["a@0.000", "a@2.000", "b@0.000"]
    assert cut.column("recording").tolist() == ["a", "a", "b"]
    assert cut.column("class").tolist() == ["a", "a", "b"]
    assert set(cut.column("split")) == {"test"}
    assert cut.table["label.target"].type == pa.int64()
    assert cut.table["label.fold"].null_count == 3
    cut.write(tmp_path / "windows.parquet")
    assert Clips.read(tmp_path / "windows.parquet").table.equals(cut.table)


def test_what_cannot_be_cut_stays_with_its_reason() -> None:
    bad = whole((0.0, 4.0), (0.0, 1.0), (0.0, 4.0)).quarantined({"c": "no audio stream"})
    cut = windows(bad, seconds=2.0, count=2)
    assert cut.column("id").tolist() == ["a@0.000", "a@2.000", "b", "c"]
    assert cut.column("quarantine").tolist() == [
        "",
        "",
        "shorter than a window of 2 s",
        "no audio stream",
    ]
    assert cut.column("recording").tolist() == ["a", "a", "b", "c"]
    assert (cut[2].start, cut[2].end) == (0.0, 1.0)
    assert len(windows(whole(), seconds=2.0)) == 0


def test_a_place_in_a_pack_is_not_that_of_a_window() -> None:
    packed = whole((0.0, 4.0)).with_packed({"a": ("00000.tar", 512, 100)}, {"a": "hash"})
    assert not len(windows(packed, seconds=2.0).where(packed=True))


def test_windows_of_windows_are_refused() -> None:
    with pytest.raises(TableError, match="a label 'recording' already"):
        windows(windows(whole((0.0, 4.0)), seconds=2.0), seconds=1.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"seconds": 2.0, "stride": 1.0, "count": 2}, "a stride of 1 s and a count of 2"),
        ({"seconds": 0.0}, r"seconds must be at least 0\.001, not 0"),
        ({"seconds": float("nan")}, "not nan"),
        ({"seconds": float("inf")}, "windows of inf s"),
        ({"seconds": 2.0, "stride": 0.0}, r"stride must be at least 0\.001"),
        ({"seconds": 2.0, "count": 0}, "count must be at least 1, not 0"),
    ],
)
def test_cuts_of_no_sense_are_refused(how: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        windows(whole((0.0, 4.0)), **how)


# Folders


def test_a_folder_becomes_windows_that_can_be_packed(tmp_path: Path) -> None:
    for name, seconds in {"x/a.wav": 3.0, "b.wav": 1.0, "c.WAV": 2.0}.items():
        sound(tmp_path / name, seconds)
    (tmp_path / "broken.mp3").write_bytes(b"not a sound")
    (tmp_path / "notes.txt").write_text("nothing to hear")
    labels = tmp_path / "labels.csv"
    labels.write_text("video,class,fold\n./x/a.wav,dog,1\nb.wav,cat,2\ngone.wav,dog,3\n")
    cut = windows(recordings(tmp_path, labels=labels, workers=1), seconds=1.0, count=2)
    assert dict(zip(cut.column("id"), cut.column("quarantine"), strict=True)) == {
        "b.wav@0.000": "",
        "broken.mp3": cut.column("quarantine")[1],
        "c.WAV@0.000": "",
        "c.WAV@1.000": "",
        "gone.wav": "file is missing",
        "x/a.wav@0.000": "",
        "x/a.wav@2.000": "",
    }
    assert "not a readable media file" in cut.column("quarantine")[1]
    assert cut.column("class").tolist() == ["cat", None, None, None, "dog", "dog", "dog"]
    assert set(cut.column("text")) == {""}
    assert set(cut.column("split")) == {"train", "val", "test"}
    by_video = set(zip(cut.column("video"), cut.column("split"), strict=True))
    assert len(by_video) == len({video for video, _ in by_video})


@pytest.mark.slow
def test_windows_can_be_packed(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 3.0)
    cut = windows(recordings(tmp_path, workers=1), seconds=1.0, count=5)
    packed = pack(cut, tmp_path / "pack", frame_rate=1.0, partial=True, workers=1)
    assert len(packed.where(packed=True)) == 5
    samples = Pack.open(tmp_path / "pack").read(1, frames=1).samples
    assert samples is not None
    wanted = 8000 / 32768 * np.sin(np.arange(4000, 12000) * 0.2)
    assert samples[1000:-1000:2] == pytest.approx(wanted[500:-500], abs=0.01)


def test_splits_of_the_labels_count(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        sound(tmp_path / name, 1.0)
    labels = tmp_path / "labels.csv"
    labels.write_text("video,split\na.wav,train\nb.wav,test\nc.wav,mine\n")
    found = recordings(tmp_path, labels=labels, workers=1)
    assert found.column("split").tolist() == ["train", "test", "mine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na.wav,dog\n", "has the columns file, class; wanted are video and labels"),
        ("video,class\n", "has no rows"),
        ("video,class,\na.wav,dog,\n", r"column 3 of 3 has no name"),
        ("video, class\na.wav,dog\n", r"column ' class' has blanks around its name: write 'class'"),
        ("video,class,label.class\na.wav,dog,cat\n", "has the label 'class' more than once"),
        ("video,start,class\na.wav,0,dog\n", "the column 'start', which would be of a clip"),
        ("video,class,id\na.wav,dog,7\n", "the column 'id', which would be of a clip.*otherwise"),
        ("video,class\na.wav,dog\n./a.wav,cat\n", "more than one row for the video 'a.wav'"),
        ("video,class\nother.wav,dog\n", r"first is 'other\.wav', the folder's first 'a\.wav'"),
    ],
)
def test_labels_that_fit_no_folder_say_so(tmp_path: Path, text: str, message: str) -> None:
    sound(tmp_path / "a.wav", 1.0)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        footage(tmp_path, labels=tmp_path / "labels.csv")


def test_windows_that_nothing_is_long_enough_for_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole((0.0, 1.0), (0.0, 2.0)).write(tmp_path / "clips.parquet")
    words = ["index", "windows", str(tmp_path / "clips.parquet"), "--out"]
    words += [str(tmp_path / "w.parquet"), "--seconds"]
    for _ in range(2):  # the second time the table is there
        assert main([*words, "1000"]) == 1
        said = "no clip in it can be used; 2 of 2: shorter than a window of 1000 s"
        assert f"w.parquet: {said}" in capsys.readouterr().err
        assert len(Clips.read(tmp_path / "w.parquet")) == 2
    assert main([*words, "2"]) == 0
    assert "1 of 2 clips in quarantine" in capsys.readouterr().out


def test_sources_that_are_none_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no videos and no sounds there"):
        recordings(tmp_path)
    with pytest.raises(UsageError, match="no such folder, and no such clip table"):
        recordings(tmp_path / "none")
    whole((0.0, 4.0)).write(tmp_path / "clips.parquet")
    with pytest.raises(UsageError, match="is a table, with its own"):
        recordings(tmp_path / "clips.parquet", labels=tmp_path / "labels.csv")


def test_windows_are_made_again_when_what_they_are_made_from_has_changed(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", 1.0)
    whole((0.0, 4.0)).write(tmp_path / "clips.parquet")
    before = {
        made_from(source, seconds=seconds, count=count)
        for source in (tmp_path, tmp_path / "clips.parquet")
        for seconds in (1.0, 2.0)
        for count in (None, 2)
    }
    assert len(before) == 8
    assert made_from(tmp_path, seconds=1.0) in before
    sound(path, 2.0)
    assert made_from(tmp_path, seconds=1.0) not in before
    whole((0.0, 5.0)).write(tmp_path / "clips.parquet")
    assert made_from(tmp_path / "clips.parquet", seconds=1.0) not in before


@pytest.mark.data
@pytest.mark.slow
def test_ten_windows_of_each_sound_of_esc10(sonant_data: Path) -> None:
    cut = windows(esc50(sonant_data / "esc10", fold=1).clips(), seconds=2.0, count=10)
    assert len(cut) == 4000
    assert len(set(cut.column("recording"))) == 400
    assert np.sum(cut.column("split") == "test") == 800


def test_files_get_the_splits_of_another_table(tmp_path: Path) -> None:
    """That of narrated clips, which lacks one file and lies elsewhere itself."""
    for name in "abcdef":
        sound(tmp_path / "films" / f"{name}.wav", 1.0)
    told = {name: ("train", "val", "test")[n % 3] for n, name in enumerate("abcde")}
    rows = [Clip(f"n{v}", f"films/{v}.wav", 0, 1, "", split) for v, split in told.items()]
    Clips.of(rows, root=tmp_path).write(tmp_path / "clips.parquet")
    cut = recordings(tmp_path / "films", splits=tmp_path / "clips.parquet", workers=1)
    dealt = dict(zip(cut.column("video"), cut.column("split"), strict=True))
    assert dealt == {f"{v}.wav": split for v, split in told.items()} | {"f.wav": "train"}
    table = tmp_path / "clips.parquet"
    plain, dealt = (made_from(tmp_path / "films", seconds=1, splits=x) for x in (None, table))
    assert plain != dealt
    sound(tmp_path / "others" / "a.wav", 1.0)
    with pytest.raises(TableError, match="is of none of these files; its first is"):
        recordings(tmp_path / "others", splits=tmp_path / "clips.parquet", workers=1)


def test_a_csv_gives_all_files_a_split_or_none(tmp_path: Path) -> None:
    for name in "abc":
        sound(tmp_path / f"{name}.wav", 1.0)
    labels = tmp_path / "labels.csv"
    labels.write_text("video,split\na.wav,train\nb.wav,test\n")
    with pytest.raises(TableError, match=r"none to 1 of the files there, the first is 'c\.wav'"):
        recordings(tmp_path, labels=labels, workers=1)
    labels.write_text("video,class\n,3\na.wav,4\n")
    with pytest.raises(TableError, match=r"labels\.csv: row 1 has no video"):
        recordings(tmp_path, labels=labels, workers=1)

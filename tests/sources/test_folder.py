import csv as standard
import gzip
import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sonant.errors import TableError, UsageError
from sonant.media import crew
from sonant.sources.folder import Window, folder, made_from, read_csv


def video(path: Path, seconds: float, *, sound: bool = True) -> None:
    """A small real file: grey frames at 10 a second and a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", rate=10, width=32, height=32, pix_fmt="yuv420p")
        tone = file.add_stream("aac", rate=16000, layout="mono") if sound else None
        for _ in range(round(seconds * 10)):
            grey = np.full((32, 32, 3), 128, np.uint8)
            file.mux(picture.encode(av.VideoFrame.from_ndarray(grey)))
        file.mux(picture.encode())
        if tone is not None:
            wave = np.sin(np.arange(round(seconds * 16000)) * 0.2).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 16000
            file.mux([*tone.encode(frame), *tone.encode()])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    video(root / "kitchen" / "a.mp4", 6.0)
    video(root / "b.MP4", 4.0)
    video(root / "mute.mp4", 4.0, sound=False)
    video(root / "short.mp4", 1.0)
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "notes.txt").write_text("no video at all")
    return root


def csv(root: Path, text: str) -> Path:
    path = root / "narrations.csv"
    path.write_text(text)
    return path


def test_each_bad_row_says_why_and_the_good_ones_stay(root: Path) -> None:
    rows = {
        "kitchen/a.mp4,2.0,#C C cuts": "",
        "b.MP4,1:01.5,#C C waits": "narrated at 61.500 s, but the video ends at 4.0",
        "b.MP4,nan,#C C waits": "time is 'nan'",
        "b.MP4,-1,#C C waits": "time is '-1'",
        "b.MP4,soon,#C C waits": "time is 'soon'",
        "b.MP4,,#C C waits": "the row has no time",
        "b.MP4, ,#C C waits": "the row has no time",
        ",1.0,#C C waits": "the row has no video",
        " ,1.0,#C C waits": "the row has no video",
        "b.MP4,2.0,": "the narration is empty",
        "b.MP4,2.0,  ": "the narration is empty",
        "b.MP4,2.0,#C C": "marks such as #C, and no words",
        "b.MP4,2.0,# O #": "marks such as #C, and no words",
        "b.MP4,2.0,#unsure": "",
        "gone.mp4,1.0,#C C leaves": "file is missing",
        "nul\0.mp4,1.0,#C C leaves": "file is missing",
        "kitchen,1.0,#C C cooks": "it is a folder, not a file",
        "notes.txt/a.mp4,1.0,#C C reads": "a part of the path is a file, not a folder",
        f"{'long' * 99}.mp4,1.0,#C C waits": "File name too long",
        "mute.mp4,1.0,#C C mimes": "",
        "short.mp4,0.5,#C C blinks": "shorter than a clip of 1.500 s",
    }
    table = folder(root, narrations=csv(root, "video,time,text\n" + "\n".join(rows)))
    assert len(table) == len(rows)
    for reason, wanted in zip(table.column("quarantine"), rows.values(), strict=True):
        assert (wanted in reason) if wanted else reason == ""
    assert table[0].id == "kitchen/a.mp4@2.000"
    assert (table[0].start, table[0].end) == (1.5, 3.0)


def test_clips_without_a_narration_are_kept_if_told(root: Path) -> None:
    text = "video,time,text\nb.MP4,1,#C C cuts\nb.MP4,1.5,\nb.MP4,2.0,#C C\nb.MP4,900,\n"
    given = csv(root, text)
    without = folder(root, narrations=given).column("quarantine").tolist()
    assert without[1] == "the narration is empty"
    table = folder(root, narrations=given, partial=True)
    assert [bool(reason) for reason in table.column("quarantine")] == [False, False, False, True]
    assert table.column("text").tolist()[:2] == ["#C C cuts", ""]
    assert made_from(root, narrations=given) != made_from(root, narrations=given, partial=True)


def test_files_that_cannot_be_read_are_rows_too(root: Path) -> None:
    table = folder(root, narrations=csv(root, "video,time,text\nbroken.mp4,1,#C C breaks\n"))
    assert table.column("quarantine")[0]
    table = folder(root)
    reasons = dict(zip(table.column("video"), table.column("quarantine"), strict=True))
    assert set(reasons) == {"kitchen/a.mp4", "b.MP4", "mute.mp4", "short.mp4", "broken.mp4"}
    good = [video for video, reason in reasons.items() if not reason]
    assert good == ["b.MP4", "kitchen/a.mp4", "mute.mp4"]


@pytest.mark.parametrize("narrated", [True, False])
def test_a_file_that_may_not_be_reached_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrated: bool
) -> None:
    stat = Path.stat

    def denied(self: Path, **options: bool) -> os.stat_result:
        if self.name == "locked.mp4":
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    def here(jobs: Sequence[crew.Job], **_: object) -> list[Any]:
        return [job.run({}, lambda said: None) for job in jobs]

    video(tmp_path / "a.mp4", 2.0)
    (tmp_path / "locked.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    text = "video,time,text\na.mp4,1,x\nlocked.mp4,1,x\n"
    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr("sonant.media.crew.run", here)
    table = folder(tmp_path, narrations=csv(tmp_path, text) if narrated else None)
    assert table.column("video").tolist() == ["a.mp4", "locked.mp4"]
    reasons = table.column("quarantine").tolist()
    assert reasons == ["", "no permission for the file or its folder"]


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_its_own_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "media" / "bad_decoder")
    for name in ("a.mp4", "crash.mp4", "hang.mp4", "z.mp4"):
        video(tmp_path / name, 2.0)
    table = folder(tmp_path, patience=1.0)
    assert table.column("quarantine").tolist() == [
        "",
        "the decoder crashed (SIGSEGV)",
        "the decoder made no progress for 1 s",
        "",
    ]


def test_a_header_that_claims_years_is_not_believed(tmp_path: Path) -> None:
    video(tmp_path / "a.mkv", 2.0)
    data = (tmp_path / "a.mkv").read_bytes()
    at = data.index(b"\x44\x89\x88") + 3
    claim = struct.pack(">d", 1e12)  # milliseconds
    (tmp_path / "a.mkv").write_bytes(data[:at] + claim + data[at + 8 :])
    assert folder(tmp_path).column("quarantine").tolist() == [
        "the file claims to last 1000000000 s"
    ]


def test_unnarrated_videos_are_cut_into_windows(root: Path) -> None:
    table = folder(root, window=Window(0.0, 2.0), stride=1.0).where(quarantined=False)
    starts = [clip.start for clip in table if clip.video == "kitchen/a.mp4"]
    assert starts == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert all(clip.end - clip.start == 2.0 and clip.text == "" for clip in table)


def test_clips_at_the_edges_keep_their_length(root: Path) -> None:
    text = "video,time,text\nb.MP4,0.1,#C C starts\nb.MP4,3.9,#C C ends\n"
    first, last = folder(root, narrations=csv(root, text))
    assert (first.start, first.end) == (0.0, 1.5)
    assert last.end == pytest.approx(4.0, abs=0.1)
    assert last.end - last.start == pytest.approx(1.5)


def test_spans_ids_splits_and_labels_are_taken(root: Path) -> None:
    text = (
        "id,video,start,end,text,split,verb,sounding\n"
        "x,b.MP4,0.5,0:02.0,#C C cuts,train,cut,true\n"
        "y,kitchen/a.mp4,1,9,#C C cuts,test,cut,false\n"
        "z,kitchen/a.mp4,1,1,#C C cuts,,,\n"
    )
    table = folder(root, narrations=csv(root, text))
    assert table.column("id").tolist() == ["x", "y", "z"]
    assert (table[0].start, table[0].end, table[0].split) == (0.5, 2.0, "train")
    assert table[0].labels == {"verb": "cut", "sounding": True}
    assert table.column("sounding").tolist() == [True, False, None]
    assert [bool(reason) for reason in table.column("quarantine")] == [False, True, True]


def test_labels_of_a_second_file_are_matched_by_video_and_time(root: Path) -> None:
    (root / "truth.csv").write_text("video,time,sounding\nb.MP4,2,false\nkitchen/a.mp4,1.0,true\n")
    text = "video,time,text\nkitchen/a.mp4,1,#C C cuts\nb.MP4,2.000,#C C cuts\nb.MP4,3,#C C cuts\n"
    table = folder(root, narrations=csv(root, text), labels=root / "truth.csv")
    assert table.column("sounding").tolist() == [True, False, None]


def test_labels_of_which_none_match_are_refused(root: Path) -> None:
    truth = root / "truth.csv"
    narrations = csv(root, "video,time,text\nb.MP4,1,#C C cuts\n")
    truth.write_text("video,time,sounding\nB.mp4,1.0,true\n")
    with pytest.raises(
        TableError, match=r"truth.csv: no row matches .* 'B.mp4' at '1.0', .* 'b.MP4' at 1 s"
    ):
        folder(root, narrations=narrations, labels=truth)
    truth.write_text("video,time,sounding\n")
    with pytest.raises(TableError, match=r"truth.csv: has no rows"):
        folder(root, narrations=narrations, labels=truth)


@pytest.mark.parametrize("words", ["true false", "TRUE False", "1 0", "yes no", "Yes 0"])
def test_sounding_is_a_truth_value_however_it_is_written(root: Path, words: str) -> None:
    rows = [f"b.MP4,{k},#C C cuts,{word}\n" for k, word in enumerate([*words.split(), ""])]
    narrated = csv(root, "video,time,text,sounding\n" + "".join(rows))
    table = folder(root, narrations=narrated)
    assert table.column("sounding").tolist() == [True, False, None]
    (root / "truth.csv").write_text(narrated.read_text())
    narrated.write_text("video,time,text\nb.MP4,1,#C C cuts\nb.MP4,0,#C C cuts\n")
    table = folder(root, narrations=narrated, labels=root / "truth.csv")
    assert table.column("sounding").tolist() == [False, True]
    assert str(table.table["label.sounding"].type) == "bool"


def test_sounding_is_a_truth_value_even_where_none_is_known(root: Path) -> None:
    table = folder(root, narrations=csv(root, "video,time,text,sounding\nb.MP4,1,#C C cuts,\n"))
    assert str(table.table["label.sounding"].type) == "bool"


def test_a_split_of_the_second_file_is_refused(root: Path) -> None:
    narrations = csv(root, "video,time,text\nlong.mp4,1,cut\n")
    truth = root / "truth.csv"
    truth.write_text("video,time,split\nlong.mp4,1,test\n")
    with pytest.raises(TableError, match=r"truth\.csv: has the column split, which counts beside"):
        folder(root, narrations=narrations, labels=truth)


def test_dates_are_labels_as_they_are_written(root: Path) -> None:
    text = "video,time,text,day,hour,moment,n\nb.MP4,1,x,2024-01-05,10:30:00,2024-01-05 10:30,7\n"
    (clip,) = folder(root, narrations=csv(root, text))
    assert clip.labels == {
        "day": "2024-01-05",
        "hour": "10:30:00",
        "moment": "2024-01-05 10:30",
        "n": 7,
    }


def test_a_video_may_have_clips_without_a_split(root: Path) -> None:
    text = "video,time,text,split\nb.MP4,1,x,\nb.MP4,2,x,val\n"
    table = folder(root, narrations=csv(root, text))
    assert table.column("split").tolist() == ["", "val"]


def test_one_moment_narrated_twice_makes_two_ids(root: Path) -> None:
    text = "video,time,text\nb.MP4,1,#C C cuts\nb.MP4,1.0,#C C chops\n"
    table = folder(root, narrations=csv(root, text))
    assert table.column("id").tolist() == ["b.MP4@1.000", "b.MP4@1.000#2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,begin,text\n", "has the columns video, begin, text; wanted are video, time"),
        ("file,time,text\n", "has the columns file, time, text"),
        ("id,video,time,text\na,b.MP4,1,x\na,b.MP4,2,x\n", "'a' stands in lines 2, 3"),
        ("video,time,text\nb.MP4,1\n", "not a readable CSV"),
        ("video,time,text\n", r"narrations.csv: has no rows"),
        ("video,time,text,text\nb.MP4,1,x,y\n", "has the column 'text' more than once"),
        ("video,time,text,verb,verb\nb.MP4,1,x,y,z\n", "has the column 'verb' more than once"),
        (
            "video,time,text,split\nb.MP4,1,x,val\nc.mp4,1,x,val\nc.mp4,2,x,test\n",
            r"narrations.csv: video 'c.mp4' is in the splits 'val' and 'test'",
        ),
        (
            "video,time,text,sounding\nb.MP4,1,x,1\nb.MP4,2,x,2\n",
            r"narrations.csv, line 3: sounding is '2'; wanted is true or false, 1 or 0",
        ),
        (
            "\n\nvideo,time,text,sounding\n\nb.MP4,1,x,1\n\r\n\nb.MP4,2,x,2\n",
            r"narrations.csv, line 8: sounding is '2'",
        ),
        (
            'id,video,time,text\n\na,b.MP4,1,"x\n\ny"\n\na,b.MP4,2,x\n',
            "'a' stands in lines 3, 7",
        ),
        (
            'video,time,text\nb.MP4,1,"a\n\nb"\nb.MP4,2,"open quote\nb.MP4,3,x\nb.MP4,4,x\n',
            r"""csv, line 5: the cell that begins '"open quote' has no quote at its end; one""",
        ),
        (
            'video,time,text\r\nb.MP4,1,"open\r\nb.MP4,2,"x"\r\nb.MP4,3,x\r\n',
            r"""csv, line 2: the cell that begins '"open' has no quote at its end; one""",
        ),
        ('video,time,"text\nb.MP4,1,x\n', r"""csv, line 1: the cell that begins '"text' has"""),
    ],
)
def test_wrong_tables_say_what_is_wanted(root: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        folder(root, narrations=csv(root, text))


def test_wrong_use_says_so(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        folder(tmp_path / "none")
    with pytest.raises(UsageError, match="no videos there"):
        folder(tmp_path)
    with pytest.raises(TableError, match="no such file"):
        folder(root, narrations=tmp_path / "none.csv")
    with pytest.raises(UsageError, match="make no clip"):
        Window(0.5, -0.5)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("stride must be above 0 s, not -1", {"stride": -1.0}),
        ("seed must be 0 or more, not -1", {"seed": -1}),
        ("workers must be at least 1, not 0", {"workers": 0}),
        ("patience must be above 0 s, not 0", {"patience": 0.0}),
    ]
    for message, setting in wrong:
        with pytest.raises(UsageError, match=message):
            folder(root, **setting)


def test_a_compressed_table_has_lines_too(root: Path) -> None:
    path = root / "narrations.csv.gz"
    path.write_bytes(gzip.compress(b"video,time,text,sounding\n\nb.MP4,1,x,maybe\n"))
    with pytest.raises(TableError, match=r"csv.gz, line 3: sounding is 'maybe'"):
        folder(root, narrations=path)


def test_whatever_a_table_is_made_from_changes_its_hash(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", 2.0)
    narrations, labels = tmp_path / "n.csv", tmp_path / "l.csv"
    narrations.write_text("video,time,text\na.mp4,1,#C C cuts\n")
    labels.write_text("video,time,verb\na.mp4,1,cut\n")
    files = {"narrations": narrations, "labels": labels}
    first = made_from(tmp_path, **files)
    assert made_from(tmp_path, **files, window=Window(), seed=0) == first
    hashes = [
        first,
        made_from(tmp_path),
        made_from(tmp_path, narrations=narrations),
        made_from(tmp_path, **files, window=Window(0.5, 1.5)),
        made_from(tmp_path, **files, stride=1.0),
        made_from(tmp_path, **files, fractions={"train": 1.0}),
        made_from(tmp_path, **files, seed=1),
    ]
    for path in (narrations, labels):
        path.write_text(path.read_text().replace("cut", "hew"))
        hashes.append(made_from(tmp_path, **files))
    os.utime(tmp_path / "a.mp4", ns=(0, 0))
    hashes.append(made_from(tmp_path, **files))
    video(tmp_path / "b.mp4", 2.0)
    assert made_from(tmp_path, **files) == hashes[-1]  # no narration is of it
    hashes += [made_from(tmp_path), made_from(tmp_path / ".." / "none", seed=1)]
    (tmp_path / "a.mp4").unlink()
    hashes.append(made_from(tmp_path, **files))
    assert len(set(hashes)) == len(hashes)


@given(st.text('",x\n\r', max_size=12))
@example('a,"x\n')
@example('a,"x"" y","\n"\n')
@example('a,x"y,"x"y\n')
def test_a_quote_is_refused_where_the_standard_library_refuses_it(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "quotes.csv"
    path.write_bytes(text.encode())
    try:
        list(standard.reader(io.StringIO(text, newline=""), strict=True))
        closed = True
    except standard.Error:
        closed = False
    try:
        read_csv(path)
        said = ""
    except TableError as error:
        said = str(error)
    assert ("no quote at its end" not in said) == closed


def test_a_large_table_may_have_line_breaks_within_quotes(tmp_path: Path) -> None:
    texts = [f"#C C cuts,\n{'then ' * 8}waits {k}" for k in range(30_000)]
    path = tmp_path / "n.csv"
    rows = [f'v{k % 9}.mp4,{k},"{text}"\n' for k, text in enumerate(texts)]
    path.write_text("video,time,text\n" + "".join(rows))
    assert path.stat().st_size > 1 << 20
    assert read_csv(path)["text"].to_pylist() == texts


def test_however_a_path_is_written_it_is_one_video(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    names = ["b.MP4", "./b.MP4", "gone/../b.MP4", f"../{root.name}/b.MP4", str(root / "b.MP4")]
    names += [f"{root}//kitchen/../b.MP4", f"{tmp_path}/link/b.MP4"]
    text = "video,time,text\n" + "".join(f"{name},{k},x\n" for k, name in enumerate(names))
    narrations = csv(root, text)
    for way in (root, tmp_path / "link"):
        assert set(read_csv(narrations, root=way)["video"].to_pylist()) == {"b.MP4"}
    table = folder(root, narrations=narrations)
    assert set(table.column("video")) == {"b.MP4"}
    assert set(table.column("split")) == {""}  # three videos would be dealt
    torn = "video,time,text,split\nb.MP4,1,x,val\n" + f"{root}/b.MP4,1,x,test\n"
    with pytest.raises(TableError, match=r"video 'b.MP4' is in the splits 'val' and 'test'"):
        folder(root, narrations=csv(root, torn))


def test_a_path_may_be_relative_to_where_one_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "kitchen")
    text = f"video,time,text\nb.MP4,1,x\n{root}/b.MP4,2,x\n"
    assert set(read_csv(csv(root, text), root=Path(".."))["video"].to_pylist()) == {"b.MP4"}


def test_a_label_finds_its_narration_however_the_path_is_written(root: Path) -> None:
    (root / "truth.csv").write_text(f"video,time,sounding\n{root / 'b.MP4'},2,false\n")
    narrations = csv(root, "video,time,text\nkitchen/../b.MP4,2,#C C cuts\n")
    table = folder(root, narrations=narrations, labels=root / "truth.csv")
    assert table.column("sounding").tolist() == [False]


def test_a_video_elsewhere_has_its_whole_path_and_a_link_its_own_name(
    root: Path, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    for name in ("a.mp4", "z.mp4"):
        (away / name).symlink_to(root / "b.MP4")
    text = "video,time,text\na.mp4,1,x\nz.mp4,1,x\n" + f"{root}/b.MP4,1,x\n"
    relative = os.path.relpath(root / "b.MP4", away)
    table = folder(away, narrations=csv(root, text + f"{relative},2,x\n"))
    assert table.column("video").tolist() == ["a.mp4", "z.mp4", *[str(root / "b.MP4")] * 2]
    assert not table.column("quarantine").any()
    assert len(set(table.column("split")[:3])) == 3


def test_rows_without_a_video_are_no_video(root: Path) -> None:
    text = "video,time,text\n,1,x\n,2,x\nb.MP4,1,x\nmute.mp4,1,x\n"
    table = folder(root, narrations=csv(root, text))
    assert set(table.column("split")) == {""}
    assert table.column("quarantine").tolist() == ["the row has no video"] * 2 + [""] * 2
    split = "video,time,text,split\n,1,x,val\n,2,x,test\n"
    table = folder(root, narrations=csv(root, split))
    assert table.column("quarantine").tolist() == ["the row has no video"] * 2

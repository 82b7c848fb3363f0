"""What data sets of labelled files have in common: lists, files by name, spans, folds."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import TableError, UsageError
from sonant.sources.kitchen20 import deal
from sonant.sources.labelled import Item, Listing, Media, span
from sonant.sources.lists import table, words


def film(path: Path, *, video: float = 0.0, audio: float = 0.0) -> Path:
    """A small real file with so many seconds of grey pictures and of a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        picture = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        codec = "pcm_s16le" if path.suffix == ".avi" else "aac"
        tone = file.add_stream(codec, rate=16000, layout="mono") if audio else None
        for _ in range(round(video * 10)):
            grey = np.full((32, 32, 3), 128, np.uint8)
            file.mux(picture.encode(av.VideoFrame.from_ndarray(grey)))
        file.mux(picture.encode())
        if tone is not None:
            file.mux(sound(tone, audio))
    return path


def wave(path: Path, seconds: float) -> Path:
    """A small real file of sound alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        codec = {".wav": "pcm_s16le", ".flac": "flac"}[path.suffix]
        file.mux(sound(file.add_stream(codec, rate=16000, layout="mono"), seconds))
    return path


def sound(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    tone = np.sin(np.arange(round(seconds * 16000)) * 0.2).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
    frame.sample_rate = 16000
    return [*stream.encode(frame), *stream.encode()]


def item(id: str = "a", video: str = "a.mp4", **more: object) -> Item:
    return replace(Item(id, video, {"class": "dog"}, "list.csv, line 2"), **more)


# Lists


def test_a_table_says_which_line_a_row_is_in(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b'\xef\xbb\xbfname,what\r\na,"two\r\nlines"\r\n\r\nb,c\r\n')
    rows = list(table(path, ("name",)))
    assert [row.cells["name"] for row in rows] == ["a", "b"]
    assert [row.where for row in rows] == [f"{path}, line 3", f"{path}, line 5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("name,what\n", "has no rows"),
        ("name\na\n", "has the columns name; wanted are name, what"),
        ("name,what,name\na,b,c\n", "has the column 'name' more than once"),
        ("name,what\na,b\nc\n", "line 3: has 1 cells; wanted are 2: name, what"),
        ("name,what\na,b,c\n", "line 2: has 3 cells"),
        ('name,what\na,"b\n', "not readable as CSV"),
        ('name,what\na,"b"c\n', "line 2: not readable as CSV"),
    ],
)
def test_a_broken_table_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message) as error:
        list(table(path, ("name", "what")))
    assert str(path) in str(error.value)


def test_lists_that_cannot_be_read_are_table_errors(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such file"):
        list(table(tmp_path / "none.csv"))
    with pytest.raises(TableError, match="not a readable text file"):
        list(words(tmp_path, ("name",)))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 1\n")
    with pytest.raises(TableError, match="not a readable text file"):
        list(words(tmp_path / "latin.txt", ("name", "code")))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(TableError, match="is empty"):
        list(words(tmp_path / "empty.txt", ("name",)))


def test_words_belong_to_the_name_or_to_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1 two words\r\n\r\n  two words 1  \n")
    first, last = (list(words(path, ("a", "b"), first=first)) for first in (True, False))
    assert [row.cells for row in first] == [
        {"a": "1", "b": "two words"},
        {"a": "two", "b": "words 1"},
    ]
    assert [row.cells for row in last] == [
        {"a": "1 two", "b": "words"},
        {"a": "two words", "b": "1"},
    ]
    assert last[1].where == f"{path}, line 3"


# Files by name


def test_files_are_found_by_their_names(tmp_path: Path) -> None:
    for place in ("x/-aB_c.mp4", "x/.hidden.mp4", "y/HandStandPushups/v_1.AVI", "y/a.b.mkv"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    media = Media(tmp_path, {".mp4", ".avi", ".mkv"})
    assert media.find("-aB_c") == "x/-aB_c.mp4"
    assert media.find("-ab_c") is None  # ids of YouTube differ by case
    assert media.find(".hidden") is None
    assert media.find("none", "a.b") == "y/a.b.mkv"
    folders = Media(tmp_path, {".avi"}, parts=2, cased=False)
    assert folders.at("HandstandPushups/v_1.avi") == "y/HandStandPushups/v_1.AVI"
    assert folders.at("Other/v_1.avi") == "Other/v_1.avi"


def test_a_file_that_is_there_twice_needs_a_choice_or_a_replacement(tmp_path: Path) -> None:
    for place in ("train/a.mp4", "other/a.mkv"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch()
    with pytest.raises(UsageError, match=r"has a more than once, as other/a.mkv and train/a.mp4"):
        Media(tmp_path, {".mp4", ".mkv"}).find("a")
    assert Media(tmp_path, {".mp4", ".mkv"}).at("train/a.mp4") == "train/a.mp4"
    (tmp_path / "replacement_for_corrupted_k400").mkdir()
    (tmp_path / "replacement_for_corrupted_k400" / "a.mp4").touch()
    assert Media(tmp_path, {".mp4", ".mkv"}).find("a") == "replacement_for_corrupted_k400/a.mp4"


# Spans

TIMES = st.floats(0, 1000, allow_nan=False).map(lambda time: round(time, 3))


@given(TIMES, TIMES, TIMES, TIMES, st.booleans())
def test_a_span_lies_in_what_the_file_holds_or_says_why_not(
    begin: float, length: float, start: float, seconds: float, trimmed: bool
) -> None:
    listed = item(segment=(start, start + seconds + 0.1), trimmed=trimmed)
    first, last, why = span(listed, (begin, begin + length))
    if not why:
        assert begin <= first < last <= begin + length
    elif length:
        assert not trimmed and length > seconds + 1


@pytest.mark.parametrize(
    ("segment", "trimmed", "extent", "wanted"),
    [
        (None, False, (0.1, 9.9), (0.1, 9.9)),
        ((30.0, 40.0), False, (0.0, 200.0), (30.0, 40.0)),  # in the whole video
        ((30.0, 40.0), False, (0.0, 39.7), (30.0, 39.7)),  # which is rounded up
        ((30.0, 40.0), False, (0.0, 10.1), (0.0, 10.1)),  # the segment alone
        ((30.0, 40.0), True, (0.0, 10.1), (0.0, 10.1)),
        ((0.0, 10.0), True, (0.0, 60.0), (0.0, 60.0)),  # named as a segment: it is one
        ((0.0, 10.0), False, (0.02, 9.98), (0.02, 9.98)),
    ],
)
def test_a_segment_is_sought_where_it_is(
    segment: tuple[float, float] | None,
    trimmed: bool,
    extent: tuple[float, float],
    wanted: tuple[float, float],
) -> None:
    assert span(item(segment=segment, trimmed=trimmed), extent) == (*wanted, "")


def test_a_segment_beyond_its_video_says_so() -> None:
    *_, why = span(item(segment=(30.0, 40.0)), (0.0, 25.0))
    assert why == "it has 0.000 to 25.000 s; the segment is 30.000 to 40.000 s"


# Listings


def test_a_clip_is_listed_once(tmp_path: Path) -> None:
    again = item(where="list.csv, line 7")
    with pytest.raises(TableError, match=r"line 7: 'a' is listed already, in list.csv, line 2"):
        Listing(tmp_path, [item(), again], needs=("video",))
    with pytest.raises(TableError, match="nothing is listed"):
        Listing(tmp_path, [], needs=("video",))


def test_clips_are_as_long_as_what_is_in_their_files(tmp_path: Path) -> None:
    film(tmp_path / "both.mp4", video=2.0, audio=1.6)
    film(tmp_path / "uneven.mp4", video=2.0, audio=0.5)
    film(tmp_path / "mute.avi", video=2.0)
    wave(tmp_path / "tone.flac", 1.5)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    names = ["both.mp4", "uneven.mp4", "mute.avi", "tone.flac", "broken.mp4", "gone.mp4"]
    items = [item(name, name) for name in names]
    listing = Listing(tmp_path, items, needs=("video",), takes=("audio",))
    clips = listing.clips(workers=1)
    reasons = dict(zip(clips.column("id"), clips.column("quarantine"), strict=True))
    assert reasons["tone.flac"] == "no video stream"
    assert reasons["broken.mp4"].startswith("not a readable media file")
    assert reasons["gone.mp4"] == "file is missing"
    ends = {clip.id: clip.end for clip in clips.where(quarantined=False)}
    assert ends == pytest.approx({"both.mp4": 1.6, "uneven.mp4": 2.0, "mute.avi": 2.0}, abs=0.1)
    heard = Listing(tmp_path, items[:4], needs=("audio",)).clips(workers=1)
    assert heard.column("quarantine").tolist() == ["", "", "no audio stream", ""]
    assert heard.column("end")[[0, 1, 3]] == pytest.approx([1.6, 0.5, 1.5], abs=0.1)


def test_what_a_table_is_made_from_changes_with_the_list_and_the_files(tmp_path: Path) -> None:
    one = Listing(tmp_path, [item()], needs=("video",))
    same = Listing(tmp_path, [item(where="list.csv, line 9")], needs=("video",))
    assert one.made_from() == same.made_from()
    others = [
        Listing(tmp_path, [item(split="test")], needs=("video",)),
        Listing(tmp_path, [item(labels={"class": "cat"})], needs=("video",)),
        Listing(tmp_path, [item()], needs=("audio",)),
    ]
    before = {listing.made_from() for listing in (one, *others)}
    assert len(before) == 4
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert one.made_from() not in before


# Folds by source


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=8, max_size=80),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_no_source_lies_in_two_folds(drawn: list[tuple[int, int]], folds: int, seed: int) -> None:
    sources, classes = ([str(part) for part in parts] for parts in zip(*drawn, strict=True))
    found = deal(sources, classes, folds, seed=seed)
    assert found == deal(sources, classes, folds, seed=seed)
    assert set(found) <= set(range(1, folds + 1))
    assert len(set(zip(sources, found, strict=True))) == len(set(sources))


@given(
    st.lists(st.integers(0, 40), min_size=8, max_size=120),
    st.integers(2, 5),
)
def test_classes_are_spread_as_evenly_as_their_largest_source_allows(
    drawn: list[int], folds: int
) -> None:
    sources = [str(source) for source in drawn]
    classes = [str(source % 3) for source in drawn]  # a source is of one class
    found = deal(sources, classes, folds, seed=0)
    for name in set(classes):
        held = Counter(fold for fold, other in zip(found, classes, strict=True) if other == name)
        sizes = Counter(s for s, other in zip(sources, classes, strict=True) if other == name)
        counts = [held[fold] for fold in range(1, folds + 1)]
        assert max(counts) - min(counts) <= max(sizes.values())

"""The files of Ego4D and of what is built on it: narrations, EgoClip's and annotated clips, videos.

Ego4D has narrations as `narration.json`, in two passes of other people (either may be missing), and
as `all_narrations_redacted.json`. EgoClip, and the released form of MC3's annotations, are tables
with tabs or commas between the columns, one row a narration.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sonant.errors import TableError

ROWS = pa.schema(
    [
        ("uid", pa.string()),
        ("pass", pa.string()),
        ("index", pa.int64()),
        ("time", pa.float64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        ("verb_tag", pa.int64()),
        ("noun_tag", pa.int64()),
        ("sounding", pa.bool_()),
        ("rejected", pa.bool_()),
    ]
)
"""What is known of a narration, null where a file does not say: the video, the pass and the place
in it, the time and the file's own span, the video's duration, all in seconds, EgoClip's first tags,
whether the action sounds, whether Ego4D has taken the narration back."""

PASSES = ("narration_pass_1", "narration_pass_2")
REJECTED = ("is_rejected", "rejected", "is_redacted", "redacted")
BENCHMARKS = ("split_em", "split_fho", "split_av")
SOUND = ("canonical_audio_start_sec", "canonical_audio_duration_sec")
DURATIONS = ("duration_sec", "canonical_mp4_duration_sec", "canonical_video_duration_sec")
TABLE = {
    "uid": "video_uid",
    "pass": "narration_source",
    "index": "narration_ind",
    "time": "narration_time",
    "start": "clip_start",
    "end": "clip_end",
    "duration": "video_dur",
    "text": "clip_text",
    "verb_tag": "tag_verb",
    "noun_tag": "tag_noun",
    "sounding": "positive",
}
"""Our columns and EgoClip's; the last is that of MC3's annotations."""
NEEDED = ("uid", "time", "text")
"""Those that no table of narrations may lack."""
LATEST = 1e9
"""Seconds, more than thirty years: a number beyond it is no time."""
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Narrations:
    """What a file of narrations holds."""

    rows: pa.Table
    """Of the schema `ROWS`."""
    counts: Mapping[str, int]
    """In words, what was read and what is no narration: how many."""


@dataclass(frozen=True)
class Video:
    """What Ego4D says of one video."""

    duration: float | None = None
    """Seconds."""
    sound: bool | None = None
    benchmark: bool = False
    """Whether one of its benchmarks holds the video out for validation or test."""


def read_narrations(path: Path) -> Narrations:
    """Read narrations: JSON by its suffix .json, else a table.

    Raises:
        TableError: the file is missing or not what it should be, and where.
    """
    return _of_json(path) if path.suffix.lower() == ".json" else _of_table(path)


def read_annotations(path: Path) -> Narrations:
    """Read a table of narrations that says which of them sound, in its column `positive`.

    Raises:
        TableError: the file is missing or not what it should be, and where; or nothing in it is
            annotated.
    """
    found = _of_table(path, (*NEEDED, "sounding"))
    if found.rows["sounding"].null_count == found.rows.num_rows:
        raise TableError(
            f"{path}: {TABLE['sounding']} is empty in all {found.rows.num_rows} rows; wanted is 1 "
            "where the action sounds, 0 where not"
        )
    return found


def read_videos(metadata: Path | None, manifest: Path | None) -> dict[str, Video]:
    """What `ego4d.json` and a `manifest.csv` say of the videos; either may be missing.

    A video has no sound if both the start and the duration of its sound are empty.

    Raises:
        TableError: a file is missing or not what it should be, and where.
    """
    found = {} if metadata is None else _of_metadata(metadata)
    if manifest is None:
        return found
    for uid, (duration, sound) in _of_manifest(manifest).items():
        known = found.get(uid, Video())
        length = duration if known.duration is None else known.duration
        found[uid] = Video(length, sound, known.benchmark)
    return found


def _of_json(path: Path) -> Narrations:
    columns: dict[str, list[Any]] = {name: [] for name in ("uid", *_ITEM)}
    counts = {"videos in the file": 0, "summaries, which are no clips": 0}
    for uid, video in _members(path):
        counts["videos in the file"] += 1
        if not isinstance(video, dict):
            raise TableError(f"{path}: {uid!r} is {_shown(video)}; wanted are its narrations")
        passes = [name for name in PASSES if name in video]
        if not passes and "narrations" not in video:
            status = f"videos without narrations, status {_shown(video.get('status'))}"
            counts[status] = counts.get(status, 0) + 1
        for name in passes or [""]:
            told = video[name] if name else video
            if not isinstance(told, dict):
                raise TableError(f"{path}: {uid}, {name} is {_shown(told)}; wanted are narrations")
            counts["summaries, which are no clips"] += len(_list(told, "summaries", uid, path))
            for index, item in enumerate(_list(told, "narrations", uid, path)):
                _add(columns, item, uid, name, index, path)
    counts["narrations"] = len(columns["uid"])
    table = pa.table({name: _column(name, of, path) for name, of in columns.items()})
    return Narrations(_filled(table), counts)


_ITEM = ("pass", "index", "time", "text", "rejected")


def _column(name: str, values: list[Any], path: Path) -> pa.Array:
    try:
        return pa.array(values, ROWS.field(name).type)
    except UnicodeEncodeError as error:
        raise TableError(
            f"{path}: {_shown(error.object)} is no text: {error.reason}; wanted are whole "
            "characters, both halves of those that JSON writes as a pair of \\u"
        ) from error


def _list(told: Mapping[str, Any], member: str, uid: str, path: Path) -> list[Any]:
    """A list of a JSON object, empty where it is missing or null."""
    items = told.get(member)
    if items is None:
        return []
    if not isinstance(items, list):
        raise TableError(f"{path}: {uid}, {member} are {_shown(items)}; wanted is a list")
    return items


def _add(
    columns: dict[str, list[Any]], item: Any, uid: str, source: str, index: int, path: Path
) -> None:
    """Take one narration of a JSON file."""
    try:
        time = item["timestamp_sec"] if "timestamp_sec" in item else item["time"]
        text = item["narration_text"] if "narration_text" in item else item["text"]
        known = (text is None or isinstance(text, str)) and (time is None or _is_number(time))
    except (KeyError, TypeError):
        known = False
    if not known:
        raise TableError(
            f"{path}: {uid}, {source or 'narrations'}, narration {index} is {_shown(item)}; wanted "
            "are timestamp_sec, a number, and narration_text, a text"
        )
    columns["uid"].append(uid)
    columns["pass"].append(source or None)
    columns["index"].append(index)
    columns["time"].append(math.nan if time is None or abs(time) > LATEST else float(time))
    columns["text"].append(text or "")
    columns["rejected"].append(any(item.get(name) is True for name in REJECTED))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of a large JSON object, decoded one at a time: narrations are 1 GB.

    Those of the member `videos`, where there is one, as in all_narrations_redacted.json.
    """
    text = _text(path)
    decoder = json.JSONDecoder()
    place = _after(text, 0, "{", path)
    first = True
    while True:
        place = _skipped(text, place)
        if text[place : place + 1] == "}" and first:
            return
        key, place = _decoded(decoder, text, place, path)
        place = _after(text, place, ":", path)
        place = _skipped(text, place)
        if key == "videos" and text[place : place + 1] == "{":
            place, first = place + 1, True
            continue
        value, place = _decoded(decoder, text, place, path, key)
        if not isinstance(key, str):
            raise _broken(path, text, place, f"{_shown(key)} is no name of a video")
        if key not in ("date", "version", "description"):
            yield key, value
        place, first = _skipped(text, place), False
        if text[place : place + 1] == "}":
            return
        place = _after(text, place, ",", path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: is no text in UTF-8: {error}") from error


def _decoded(
    decoder: json.JSONDecoder, text: str, place: int, path: Path, key: object = None
) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else place
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise _broken(path, text, at, f"{f'in {key}: ' if key else ''}{why}") from error


def _after(text: str, place: int, sign: str, path: Path) -> int:
    place = _skipped(text, place)
    if text[place : place + 1] != sign:
        there = repr(text[place : place + 20]) if place < len(text) else "the end of the file"
        raise _broken(path, text, place, f"wanted is {sign!r}, there is {there}")
    return place + 1


def _skipped(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _broken(path: Path, text: str, place: int, why: str) -> TableError:
    line = text.count("\n", 0, place) + 1
    column = place - text.rfind("\n", 0, place)
    return TableError(f"{path}, line {line}, column {column}: is no JSON of narrations: {why}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _of_table(path: Path, required: Sequence[str] = NEEDED) -> Narrations:
    there = _table(path)
    needed = [TABLE[name] for name in required]
    if missing := [name for name in needed if name not in there.column_names]:
        raise TableError(
            f"{path}: lacks {', '.join(missing)}; wanted are {', '.join(TABLE.values())}, of which "
            f"{', '.join(needed)} must be there; there are {', '.join(there.column_names)}"
        )
    columns = {
        name: _converted(there[of], name, of, path)
        for name, of in TABLE.items()
        if of in there.column_names
    }
    if columns["uid"].null_count:
        row = pc.index(columns["uid"].is_null(), True).as_py()
        raise TableError(f"{_place(path, row)}: video_uid is empty")
    rows = _filled(pa.table(columns))
    return Narrations(rows, {"narrations": rows.num_rows})


def _table(path: Path) -> pa.Table:
    """The table as text, whichever sign stands between its columns."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            head = file.readline()
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # with threads, no row numbers
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if "\t" in head else ",", newlines_in_values=True
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(
                    (*TABLE.values(), "video_uid", *SOUND, *DURATIONS), pa.string()
                ),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: not a readable table: {error}") from error


def _converted(column: pa.ChunkedArray, name: str, of: str, path: Path) -> pa.ChunkedArray:
    kind = ROWS.field(name).type
    if name in ("verb_tag", "noun_tag"):
        return _first_tags(column, of, path)
    if name == "sounding":
        return _truths(column, of, path)
    if name == "index":
        return _places(column, of, path)
    return _times(column) if pa.types.is_floating(kind) else column


def _place(path: Path, row: int) -> str:
    return f"{path}, row {row + 1} below the header"


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as numbers, NaN where they are none."""
    try:
        return column.cast(pa.float64())
    except pa.ArrowException:
        return pa.chunked_array([pa.array([_number(of) for of in column.to_pylist()])])


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return math.nan


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as seconds, NaN where they are no time."""
    numbers = _numbers(column)
    return pc.if_else(pc.less_equal(pc.abs(numbers), LATEST), numbers, math.nan)


def _places(column: pa.ChunkedArray, of: str, path: Path) -> pa.ChunkedArray:
    """Texts as whole numbers."""
    numbers = _numbers(column)
    whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**53))
    if pc.any(pc.invert(whole)).as_py():
        row = pc.index(whole, False).as_py()
        raise TableError(
            f"{_place(path, row)}: {of} is {_shown(column[row].as_py())}; wanted is a whole "
            "number, the narration's place in its pass, or nothing where it is unknown"
        )
    return numbers.cast(pa.int64())


def _first_tags(column: pa.ChunkedArray, of: str, path: Path) -> pa.ChunkedArray:
    """The first number of lists such as `[192, 115]`, null of `[]`."""
    lists = pc.match_substring_regex(column, r"^\s*\[\s*(\d{1,18}\b[\s\d,]*)?\]\s*$")
    if pc.any(pc.invert(lists)).as_py():
        row = pc.index(lists, False).as_py()
        raise TableError(
            f"{_place(path, row)}: {of} is {_shown(column[row].as_py())}; wanted is a list of "
            "numbers such as [93], rows of the taxonomy"
        )
    found = pc.extract_regex(column, r"^\s*\[\s*(?P<tag>\d+)")
    return pc.struct_field(found, "tag").cast(pa.int64())


def _truths(column: pa.ChunkedArray, of: str, path: Path) -> pa.ChunkedArray:
    numbers = _numbers(pc.utf8_trim_whitespace(column))
    wrong = pc.invert(pc.is_in(numbers, pa.array([0.0, 1.0, None])))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise TableError(
            f"{_place(path, row)}: {of} is {column[row].as_py()!r}; wanted is 1 where the "
            "action sounds, 0 where not, or nothing where it is unknown"
        )
    return pc.equal(numbers, 1.0)


def _filled(table: pa.Table) -> pa.Table:
    """With all columns of `ROWS`, nulls where there was none."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in ROWS
    ]
    return pa.table(columns, schema=ROWS)


def _of_metadata(path: Path) -> dict[str, Video]:
    text = _text(path)
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise TableError(f"{path}, line {error.lineno}: is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise _no_metadata(path, str(error)) from error
    videos = whole.get("videos") if isinstance(whole, dict) else None
    if not isinstance(videos, list):
        raise _no_metadata(path, f"it is {_shown(whole)}")
    return dict(_video(video, row, path) for row, video in enumerate(videos))


def _no_metadata(path: Path, why: str) -> TableError:
    return TableError(
        f"{path}: is not Ego4D's ego4d.json, a list `videos` of video_uid and duration_sec, "
        f"seconds or null: {why}"
    )


def _video(video: Any, row: int, path: Path) -> tuple[str, Video]:
    uid = video.get("video_uid") if isinstance(video, dict) else None
    if not isinstance(uid, str):
        raise _no_metadata(path, f"video {row} of it is {_shown(video)}")
    duration, about = video.get("duration_sec"), video.get("video_metadata") or {}
    if duration is not None and not (_is_number(duration) and 0 <= duration <= LATEST):
        raise _no_metadata(path, f"duration_sec of {uid} is {_shown(duration)}")
    if not isinstance(about, dict):
        raise _no_metadata(path, f"video_metadata of {uid} is {_shown(about)}")
    sound = [about[name] for name in ("audio_start_sec", "audio_duration_sec") if name in about]
    return uid, Video(
        None if duration is None else float(duration),
        any(value is not None for value in sound) if sound else None,
        any(video.get(name) in ("val", "test") for name in BENCHMARKS),
    )


def _of_manifest(path: Path) -> dict[str, tuple[float | None, bool | None]]:
    there = _table(path)
    names = there.column_names
    if missing := [name for name in ("video_uid", *SOUND) if name not in names]:
        raise TableError(
            f"{path}: lacks {', '.join(missing)}; wanted are video_uid, {' and '.join(SOUND)}; "
            f"there are {', '.join(names)}"
        )
    heard = np.any([there[name].is_valid().to_numpy() for name in SOUND], axis=0)
    lengths: list[Any] = [None] * there.num_rows
    if duration := next((name for name in DURATIONS if name in names), None):
        lengths = _times(there[duration]).to_pylist()
    uids = there["video_uid"].to_pylist()
    return dict(zip(uids, zip(lengths, heard.tolist(), strict=True), strict=True))

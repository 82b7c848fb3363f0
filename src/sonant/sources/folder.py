"""Any folder of videos, with or without a CSV of what is done in them and when.

The CSV has a column `video` (path inside the folder, or a whole path), either `time` (roughly when
the action is) or `start` and `end`, and `text` (the narration). `id` and `split` are taken if
there, a video lying in one split; every further column becomes a label, `sounding` a truth value.
Times are seconds or `[hours:]minutes:seconds`.

A row that cannot be used is kept with its reason in `quarantine`; whether a file with sound alone
or pictures alone can be used is for `pack` to say. A clip around a `time` that would begin before
its video or end after it is moved inwards, not cut: every clip keeps its length.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from sonant import __version__
from sonant.clips import LABEL, LABEL_TYPES, Clips
from sonant.errors import MediaError, TableError, UsageError
from sonant.files import stamp, why
from sonant.media import crew
from sonant.media.read import Probe, probe
from sonant.media.text import clean
from sonant.types import Clip

SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
LONGEST = 7 * 24 * 3600.0
"""Seconds; a header that claims more is not believed."""
LOOK_SIZE = 8
"""Videos that a worker looks into at a time."""
A_FOLDER = "it is a folder, not a file"
OWN_COLUMNS = ("id", "video", "time", "start", "end", "text", "split")
SOUNDING = ("sounding", LABEL + "sounding")
TRUTHS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_QUOTED = re.compile(r'"(?<![^,\r\n]")[^"]*(?:""[^"]*)*("(?![^,\r\n]))?')
"""A cell that begins with a quote, up to the quote that ends it, if one does."""


@dataclass(frozen=True)
class Window:
    """The span of a clip around the time its narration gives, in seconds (MC3, section 5)."""

    before: float = 0.5
    after: float = 1.0

    def __post_init__(self) -> None:
        if not self.length > 0 or not math.isfinite(self.length):
            raise UsageError(f"before {self.before} s and after {self.after} s make no clip")

    @property
    def length(self) -> float:
        """Seconds from begin to end."""
        return self.before + self.after

    def around(self, time: float, duration: float = math.inf) -> tuple[float, float]:
        """The span [start, end] around a time, moved into [0, duration] without changing length."""
        start = min(max(time - self.before, 0.0), max(duration - self.length, 0.0))
        return start, start + self.length


def folder(
    root: Path,
    *,
    narrations: Path | None = None,
    labels: Path | None = None,
    window: Window | None = None,
    stride: float | None = None,
    partial: bool = False,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    workers: int = 2,
    patience: float = 60.0,
) -> Clips:
    """Make the clip table of a folder of videos.

    Args:
        root: the folder; videos are looked for in it at any depth.
        narrations: CSV as the module describes; without one, each video is cut into windows.
        labels: CSV with columns `video` and `time`, matching those of `narrations`, and labels.
        window: span around a narrated time; its length is that of un-narrated windows too.
        stride: seconds from one un-narrated window to the next; their length if not given.
        partial: keep rows whose narration says nothing, as clips that lack one.
        fractions: shares of the splits, dealt by video, where the CSV has no column `split`; with
            fewer videos than splits no split is set.
        seed: of that deal, 0 or more.
        workers: processes that look into the videos.
        patience: seconds without an answer after which a video is given up.

    Raises:
        UsageError: the folder does not exist or holds no video; impossible settings.
        TableError: a CSV cannot be read, has no rows, lacks or repeats columns, repeats ids, puts a
            video in two splits, has a `sounding` that is no truth value, or labels no clip at all.
    """
    window = window or Window()
    _check(stride=stride, seed=seed, workers=workers, patience=patience)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    if partial and narrations is None:
        raise UsageError("without narrations no clip has one: `--partial` is for a CSV of them")
    table, videos = _listed(root, narrations)
    if table is None and not videos:
        raise UsageError(f"{root}: no videos there (looked for {' '.join(sorted(SUFFIXES))})")
    seen = look_into(root, videos, workers=workers, patience=patience)
    seen |= {"": "the row has no video"}
    if table is None or narrations is None:
        rows = [row for video in videos for row in _windows(video, seen[video], window, stride)]
    else:
        rows = _narrated(table, narrations, seen, window, partial)
    clips = Clips.of([clip for clip, _ in rows], root=root, quarantine=[why for _, why in rows])
    if labels is not None:
        clips = _labelled(clips, table, labels)
    clips = _sounding_or_unknown(clips)
    if table is not None and "split" in table.column_names:
        return clips
    return clips.split(fractions, seed=seed) if len(videos) >= len(fractions) else clips


def look_into(
    root: Path, videos: Sequence[str], *, workers: int = 2, patience: float = 60.0
) -> dict[str, Probe | str]:
    """What each video is, or why it cannot be used.

    Args:
        root: folder that `videos` are relative to.
        videos: their paths.
        workers: processes that look.
        patience: seconds without an answer after which a video is given up.
    """
    looks = [_Look(root, videos[k : k + LOOK_SIZE]) for k in range(0, len(videos), LOOK_SIZE)]
    found = crew.run(looks, workers=workers, patience=patience, title="index")
    answers = [look if isinstance(look, str) else Probe(**look) for some in found for look in some]
    return dict(zip(videos, answers, strict=True))


def made_from(
    root: Path,
    *,
    narrations: Path | None = None,
    labels: Path | None = None,
    window: Window | None = None,
    stride: float | None = None,
    partial: bool = False,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> str:
    """Hash of all that `folder` makes its table of, so that it need not be made again.

    That is sonant's version, the arguments (which are those of `folder`), what the CSVs hold, and
    every video's size and time of change. No video is opened.

    Raises:
        TableError: `narrations` cannot be read or lacks columns.
    """
    _, videos = _listed(root, narrations)
    stamps = [(video, stamp(root / video)) for video in videos]
    arguments = (str(root.resolve()), window or Window(), stride, partial, dict(fractions), seed)
    hash = hashlib.sha256(repr((__version__, arguments, stamps)).encode())
    for path in (narrations, labels):
        held = path.read_bytes() if path is not None and path.is_file() else b""
        hash.update(hashlib.sha256(held).digest())
    return hash.hexdigest()


def _listed(root: Path, narrations: Path | None) -> tuple[pa.Table | None, list[str]]:
    """The narrations, if any, and the videos that they are of, or else all that there are."""
    if narrations is None:
        return None, _videos(root)
    table = _narrations(narrations, root)
    return table, sorted(set(table["video"].to_pylist()) - {""})


def _check(*, stride: float | None, seed: int, workers: int, patience: float) -> None:
    if stride is not None and not stride > 0:
        raise UsageError(f"stride must be above 0 s, not {stride}")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, not {seed}")
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    if not patience > 0:
        raise UsageError(f"patience must be above 0 s, not {patience}")


def _videos(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and _no_file(path) != A_FOLDER
    )


def _no_file(path: Path) -> str:
    """Why there is no file to be read, in words; "" if there is one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, ValueError):  # the latter where a name holds what no name can
        return "file is missing"
    except OSError as error:
        return why(error)
    if stat.S_ISREG(mode):
        return ""
    return A_FOLDER if stat.S_ISDIR(mode) else "it is a device, not a file"


@dataclass(frozen=True)
class _Look:
    """Some videos to be probed by a worker: each gets a `Probe` as a dictionary, or a reason."""

    root: Path
    videos: Sequence[str]

    def run(self, lost: Mapping[str, str], say: crew.Say) -> list[dict[str, Any] | str]:
        """What each is, in order."""
        found: list[dict[str, Any] | str] = []
        for video in self.videos:
            say({"video": video})
            look = lost.get(video) or _look(self.root / video)
            found.append(look if isinstance(look, str) else asdict(look))
        return found


def _look(path: Path) -> Probe | str:
    """What the file is, or why it cannot be used."""
    if reason := _no_file(path):
        return reason
    try:
        found = probe(path)
    except MediaError as error:
        return error.reason
    except MemoryError:
        return "it takes too much memory"
    if not found.duration <= LONGEST:
        return f"the file claims to last {found.duration:.0f} s"
    if not (found.has_video or found.has_audio):
        return "no video and no audio stream"
    return found


def _windows(
    video: str, look: Probe | str, window: Window, stride: float | None
) -> list[tuple[Clip, str]]:
    if isinstance(look, str):
        return [(Clip(f"{video}@0.000", video, 0.0, window.length), look)]
    step = window.length if stride is None else stride
    if look.duration < window.length:
        why = too_short(look.duration, window)
        return [(Clip(f"{video}@0.000", video, 0.0, window.length), why)]
    count = int((look.duration - window.length) / step + 1e-9) + 1
    starts = [index * step for index in range(count)]
    return [
        (Clip(f"{video}@{start:.3f}", video, start, start + window.length), "") for start in starts
    ]


def too_short(duration: float, window: Window) -> str:
    """Why a video holds no clip."""
    return f"the video is {duration:.3f} s long, shorter than a clip of {window.length:.3f} s"


def _narrations(path: Path, root: Path) -> pa.Table:
    table = read_csv(path, root=root)
    there = set(table.column_names)
    if not {"video", "text"} <= there or not ("time" in there or {"start", "end"} <= there):
        raise TableError(
            f"{path}: has the columns {', '.join(table.column_names)}; wanted are video, time (or "
            "start and end) and text, and id, split and labels as you like"
        )
    _check_rows(table, path)
    if "split" in there:
        _check_splits(table, path)
    return table


def _check_rows(table: pa.Table, path: Path) -> None:
    if not table.num_rows:
        raise TableError(f"{path}: has no rows")


def _check_splits(table: pa.Table, path: Path) -> None:
    splits: dict[str, str] = {}
    for video, split in zip(table["video"].to_pylist(), table["split"].to_pylist(), strict=True):
        if video and split and splits.setdefault(video, split) != split:
            raise TableError(
                f"{path}: video {video!r} is in the splits {splits[video]!r} and {split!r}; "
                "all clips of a video are in one"
            )


def read_csv(path: Path, *, root: Path | None = None) -> pa.Table:
    """A CSV with `OWN_COLUMNS` as text, the others with the types of label they look like.

    A video has one name however its path is written, so that it lies in one split; none is "".

    Args:
        path: the file, which may be compressed.
        root: the folder that names are relative to. Those of videos in it become so; those of
            others, absolute. If not given, absolute names stay.

    Raises:
        TableError: it cannot be read, repeats columns or labels, has a column without a name, a
            quote that is not closed, or a `sounding` that is no truth value.
    """
    texts = {*OWN_COLUMNS, *SOUNDING}
    table = _parsed(path, texts)
    names = table.column_names
    _check_names(names, path)
    kinds = (*LABEL_TYPES, pa.null())
    if others := {field.name for field in table.schema if field.type not in kinds}:  # dates, say
        table = _parsed(path, texts | others)
    if "video" in names:
        written = table["video"].to_pylist()
        name_of = {video: _name(video or "", root) for video in set(written)}
        videos = pa.array([name_of[video] for video in written], pa.string())
        table = table.set_column(names.index("video"), "video", videos)
    for name in (name for name in SOUNDING if name in names):
        table = table.set_column(names.index(name), name, _truths(table[name], name, path))
    return table


def _name(written: str, root: Path | None) -> str:
    """A video's one name. Links of folders are followed where they lead to `root`, no others."""
    if not written.strip():
        return ""
    name = Path(os.path.normpath(written))
    if root is None or not (name.is_absolute() or name.parts[:1] == ("..",)):
        return name.as_posix()
    home = Path(os.path.realpath(root))
    path = Path(os.path.normpath(home / name))
    real = Path(os.path.realpath(path.parent), path.name)
    for place, top in ((path, Path(os.path.normpath(root.absolute()))), (path, home), (real, home)):
        if place.is_relative_to(top):
            return place.relative_to(top).as_posix()
    return path.as_posix()


def _check_names(names: Sequence[str], path: Path) -> None:
    """Refuse columns that would get lost."""
    if "" in names:
        raise TableError(f"{path}: column {names.index('') + 1} of {len(names)} has no name")
    if blank := [name for name in names if name != name.strip()]:
        right = blank[0].strip()
        raise TableError(
            f"{path}: the column {blank[0]!r} has blanks around its name: write {right!r}"
        )
    labels = [name.removeprefix(LABEL) for name in names if name not in OWN_COLUMNS]
    for what, of in (("column", names), ("label", labels)):
        if repeated := [name for name, count in Counter(of).items() if count > 1]:
            raise TableError(f"{path}: has the {what} {repeated[0]!r} more than once")


def _parsed(path: Path, texts: Iterable[str]) -> pa.Table:
    """The CSV, with some columns as text."""
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(texts, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    rows = pyarrow.csv.ReadOptions(use_threads=False)  # with threads, errors name no row
    cells = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        _check_quotes(path)
        return pyarrow.csv.read_csv(
            path, read_options=rows, parse_options=cells, convert_options=options
        )
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: not a readable CSV file: {error}") from error


def _opened(path: Path) -> io.TextIOWrapper:
    """A text, decompressed, with its line breaks as they are."""
    return io.TextIOWrapper(pa.input_stream(path), "utf-8-sig", errors="replace", newline="")


def _check_quotes(path: Path) -> None:
    """Refuse a cell that begins with a quote and does not end with one: it would take in others."""
    with _opened(path) as file:
        text = file.read()
    for cell in _QUOTED.finditer(text):
        if cell[1] is None:
            line = len(re.findall(r"\r\n|\r|\n", text[: cell.start()])) + 1
            raise TableError(
                f"{path}, line {line}: the cell that begins {_first(cell[0])!r} has no quote at "
                "its end; one that begins with a quote ends with one, and quotes in it are doubled"
            )


def _first(text: str, most: int = 30) -> str:
    """The first line of a text, or the beginning of it."""
    return text.splitlines()[0][:most]


def _lines(path: Path) -> list[int]:
    """The line that each row of a CSV begins in; empty lines are no rows."""
    lines: list[int] = []
    with _opened(path) as file:
        reader = csv.reader(file)
        before = 0
        for row in reader:
            if row:
                lines.append(before + 1)
            before = reader.line_num
    return lines[1:]


def _truths(column: pa.ChunkedArray, name: str, path: Path) -> pa.Array:
    texts = [(text or "").strip() for text in column.to_pylist()]
    for row, text in enumerate(texts):
        if text and text.lower() not in TRUTHS:
            raise TableError(
                f"{path}, line {_lines(path)[row]}: {name} is {text!r}; wanted is true or false, 1 "
                "or 0, yes or no, or nothing where it is unknown"
            )
    return pa.array([TRUTHS.get(text.lower()) for text in texts], pa.bool_())


def _sounding_or_unknown(clips: Clips) -> Clips:
    """Have the label `sounding`, if there is one, as truth values even if none is known."""
    name = LABEL + "sounding"
    if name not in clips.table.column_names:
        return clips
    column = clips.table[name].cast(pa.bool_())
    return Clips(
        clips.table.set_column(clips.table.column_names.index(name), name, column), clips.root
    )


def _narrated(
    table: pa.Table, path: Path, seen: Mapping[str, Probe | str], window: Window, partial: bool
) -> list[tuple[Clip, str]]:
    rows = table.to_pylist()
    spans = [_span(row, seen[row["video"]], window, partial) for row in rows]
    ids = _ids(rows, path)
    labels = [name for name in table.column_names if name not in OWN_COLUMNS]
    return [
        (
            Clip(
                id,
                row["video"],
                start,
                end,
                (row["text"] or "").strip(),
                row.get("split") or "",
                {name: row[name] for name in labels},
            ),
            why,
        )
        for row, id, (start, end, why) in zip(rows, ids, spans, strict=True)
    ]


def _span(
    row: Mapping[str, Any], look: Probe | str, window: Window, partial: bool
) -> tuple[float, float, str]:
    """Start and end of a row's clip, and why it cannot be used, if so."""
    if isinstance(look, str):
        return 0.0, window.length, look
    given = {name: _seconds(row[name]) for name in ("time", "start", "end") if name in row}
    for name, value in given.items():
        if not (row[name] or "").strip():
            return 0.0, window.length, f"the row has no {name}"
        if not math.isfinite(value) or value < 0:
            why = f"{name} is {row[name]!r}; wanted are seconds, 0 or more"
            return 0.0, window.length, why
    if "time" in given:
        if given["time"] > look.duration:
            why = f"narrated at {given['time']:.3f} s, but the video ends at {look.duration:.3f} s"
            return *window.around(given["time"]), why
        start, end = window.around(given["time"], look.duration)
    else:
        start, end = given["start"], given["end"]
    if end <= start:
        return start, end, f"ends at {end:.3f} s, not after its start at {start:.3f} s"
    if end > look.duration + 1e-3:
        if "time" in given:
            return start, end, too_short(look.duration, window)
        return start, end, f"ends at {end:.3f} s, but the video ends at {look.duration:.3f} s"
    if partial:
        return start, end, ""
    if not (row["text"] or "").strip():
        return start, end, "the narration is empty"
    if not clean(row["text"]):
        return start, end, "the narration has marks such as #C, and no words"
    return start, end, ""


def _seconds(text: str | None) -> float:
    """Seconds of `12.5`, `1:12.5` or `0:01:12.5`; NaN of anything else."""
    try:
        parts = [float(part) for part in (text or "").split(":")]
    except ValueError:
        return math.nan
    if len(parts) > 3 or any(part < 0 for part in parts[1:]):
        return math.nan
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _ids(rows: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    """The rows' own ids, else video@time, numbered where one moment is narrated twice."""
    if rows and "id" in rows[0]:
        ids = [row["id"] or "" for row in rows]
        for id, count in Counter(ids).items():
            if count > 1 or not id:
                lines = [line for line, other in zip(_lines(path), ids, strict=True) if other == id]
                where = f"lines {', '.join(map(str, lines[:9]))}"
                raise TableError(
                    f"{path}: id {id!r} stands in {where}; ids are unique and not empty"
                )
        return ids
    times = [_seconds(row.get("time") or row.get("start")) for row in rows]
    seen: Counter[str] = Counter()
    ids = []
    for row, time in zip(rows, times, strict=True):
        id = f"{row['video']}@{time:.3f}"
        seen[id] += 1
        ids.append(id if seen[id] == 1 else f"{id}#{seen[id]}")
    return ids


def _labelled(clips: Clips, narrations: pa.Table | None, path: Path) -> Clips:
    """Join a second CSV's columns by video and time."""
    table = read_csv(path, root=clips.root)
    if not {"video", "time"} <= set(table.column_names):
        there = ", ".join(table.column_names)
        raise TableError(f"{path}: has the columns {there}; wanted are video, time and labels")
    _check_rows(table, path)
    if narrations is None or "time" not in narrations.column_names:
        raise UsageError(f"{path}: labels are matched by video and time, which these clips lack")
    if "split" in table.column_names and "split" not in narrations.column_names:
        raise TableError(f"{path}: has the column split, which counts beside the narrations alone")
    keys = _keys(narrations)
    places = {key: row for row, key in enumerate(_keys(table))}
    if len(places) != table.num_rows:
        raise TableError(f"{path}: has more than one row for the same video and time")
    if places.keys().isdisjoint(keys):
        video, time = table["video"][0].as_py(), table["time"][0].as_py()
        raise TableError(
            f"{path}: no row matches a narration by video and time; the first is of {video!r} at "
            f"{time!r}, the first narration of {keys[0][0]!r} at {keys[0][1]:g} s"
        )
    rows = pa.array([places.get(key) for key in keys], pa.int64())
    names = [name for name in table.column_names if name not in OWN_COLUMNS]
    columns = {name: table[name].take(rows) for name in names}
    return clips.join(pa.table({"id": clips.table["id"], **columns}))


def _keys(table: pa.Table) -> list[tuple[str, float]]:
    times = [_seconds(time) for time in table["time"].to_pylist()]
    return list(zip(table["video"].to_pylist(), times, strict=True))

"""Ego4D: narrations of its videos, EgoClip's or MC3's annotated ones, as a clip table.

Nothing is downloaded and no video is opened: what `ego4d.json` and the manifest say of a video is
believed, and what they do not say shows when the clips are packed. docs/ego4d.md has every rule.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sonant import __version__
from sonant.clips import COLUMNS, LABEL, PLACE, Clips
from sonant.errors import TableError, UsageError, at_least
from sonant.files import stamp
from sonant.sources.annotations import held_out
from sonant.sources.ego4d_files import (
    ROWS,
    Video,
    read_annotations,
    read_narrations,
    read_videos,
)
from sonant.sources.folder import FRACTIONS, SUFFIXES, Window
from sonant.sources.spread import spread
from sonant.sources.taxonomy import Actions, Taxonomy
from sonant.types import Clip

Array = NDArray[Any]

PLACES = ("", "annotations", "v2", "v2/annotations", "v1", "v1/annotations")
"""Where in a download its files lie, the first place first."""
MEDIA = (
    "v2/full_scale",
    "v2/video_540ss",
    "v1/full_scale",
    "v1/video_540ss",
    "full_scale",
    "video_540ss",
    "videos",
    "",
)
"""Where its videos may lie; the first folder that there is."""
MISSING = "file is missing"
"""Why a clip of a video that is not there is in quarantine."""
SAME_MOMENT = 5e-4
"""Seconds; times that are written with fewer digits are still the same."""


@dataclass(frozen=True)
class Files:
    """The files that clips are made from."""

    videos: Path
    """The folder of the videos; the clip table is relative to it."""
    narrations: tuple[Path, ...] = ()
    """narration.json, all_narrations_redacted.json, EgoClip's csv: any of them."""
    annotations: Path | None = None
    """A table as EgoClip's with the column `positive`; none of its videos is for training."""
    metadata: Path | None = None
    """ego4d.json."""
    manifest: Path | None = None
    """manifest.csv of the videos."""
    verbs: Path | None = None
    nouns: Path | None = None

    def shown(self) -> list[tuple[str, str]]:
        """What each file is, and where it is."""
        return [
            ("videos", str(self.videos)),
            ("narrations", ", ".join(map(str, self.narrations)) or "none"),
            ("annotations", str(self.annotations or "none")),
            ("ego4d.json", str(self.metadata or "none")),
            ("manifest", str(self.manifest or "none")),
            ("verbs", str(self.verbs or "none")),
            ("nouns", str(self.nouns or "none")),
        ]


@dataclass(frozen=True)
class Rules:
    """How narrations become clips, with the defaults of MC3, section 5, where it says.

    Args:
        window: span of a clip around its narrated time.
        own_spans: take the file's clip_start and clip_end where it has them.
        tags: take verbs and nouns from EgoClip's tags where there are any; else from the words.
        shortest: words of a narration, `#C C` among them, that it must have.
        apart: seconds between equal narrations of two passes below which they are one.
        chunk: seconds of the files `UID/0.mp4`, `UID/1.mp4` ... that a video was cut into; 0 for
            whole videos.
        present_only: leave out clips whose video file is absent; else they are quarantined.
        absent_usable: take absent video files for good, to choose what to download.
        benchmarks: take videos that Ego4D's benchmarks hold out too.
    """

    window: Window = field(default_factory=Window)
    own_spans: bool = False
    tags: bool = True
    shortest: int = 4
    apart: float = 0.5
    chunk: float = 0.0
    present_only: bool = False
    benchmarks: bool = False
    absent_usable: bool = False

    def __post_init__(self) -> None:
        at_least(0, shortest=self.shortest, apart=self.apart, chunk=self.chunk)
        if self.present_only and self.absent_usable:
            raise UsageError("clips of absent files are left out or usable, not both; say one")
        if 0 < self.chunk < self.window.length:
            raise UsageError(
                f"files of {self.chunk:g} s hold no clip of {self.window.length:g} s; chunk is 0 "
                "for whole videos"
            )


@dataclass(frozen=True)
class Found:
    """A clip table, and in words what became of the narrations: how many."""

    clips: Clips
    counts: Mapping[str, int]


def located(root: Path) -> Files:
    """The files of an Ego4D download, or of any folder that has them side by side.

    Raises:
        UsageError: the folder does not exist.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder")
    videos = next(folder for place in MEDIA if (folder := root / place).is_dir())

    def file(name: str) -> Path | None:
        places = [root / place / name for place in PLACES]
        return next((path for path in places if path.is_file()), None)

    narrations = file("narration.json")
    manifest = videos / "manifest.csv"
    return Files(
        videos,
        narrations=() if narrations is None else (narrations,),
        metadata=file("ego4d.json"),
        manifest=manifest if manifest.is_file() else None,
        verbs=file("narration_verb_taxonomy.csv"),
        nouns=file("narration_noun_taxonomy.csv"),
    )


def ego4d(
    files: Files,
    rules: Rules | None = None,
    *,
    train: int = 0,
    val: int = 3000,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
) -> Found:
    """Make the clip table of Ego4D.

    With annotations, their videos are split into val and test (those without any label are left
    out), and the rest is train; without, the videos are dealt by `fractions`.

    Args:
        files: what to read; see `located`.
        rules: how narrations become clips.
        train: clips of the training split, chosen by `spread`; 0 for all there are.
        val: annotated clips, about, whose videos are split val; the other ones are test.
        fractions: shares of the splits, by video, where nothing is annotated.
        seed: of the splits and of the choice, 0 or more.

    Raises:
        UsageError: there are no narrations, no folder of videos or none of the videos that are
            wanted in it, impossible settings, or too few clips to choose from.
        TableError: a file is not what it should be, or there is no narration at all.
    """
    rules = rules or Rules()
    at_least(0, train=train, seed=seed)
    if not files.videos.is_dir():
        raise UsageError(f"{files.videos}: no such folder of videos")
    counts: dict[str, int] = {}
    rows, annotated = _rows(files, rules, counts)
    videos = read_videos(files.metadata, files.manifest)
    rows = rows.filter(pa.array(_kept(rows, _Videos.of(rows, videos), annotated, rules, counts)))
    known = _Videos.of(rows, videos)
    splits = _splits(known, rows, val, fractions, seed)
    clips = _clips(files, rows, known, splits[known.code], rules, counts)
    if train:
        clips = _chosen(clips, train, seed, counts)
    return Found(clips, {name: count for name, count in counts.items() if count})


def made_from(files: Files, rules: Rules, *, train: int = 0, val: int = 3000, seed: int = 0) -> str:
    """Hash of all that `ego4d` makes its table of, so that it need not be made again.

    That is sonant's version, the arguments, the sizes and times of change of the files, and which
    videos are there.
    """
    read = (files.annotations, *files.narrations, files.metadata, files.manifest)
    stamps = [(str(path), stamp(path)) for path in (*read, files.verbs, files.nouns) if path]
    there = sorted(path.relative_to(files.videos).as_posix() for path in _there(files.videos))
    said = (__version__, str(files.videos.resolve()), rules, train, val, seed, stamps, there)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _rows(files: Files, rules: Rules, counts: dict[str, int]) -> tuple[pa.Table, pa.Array]:
    """All narrations, those that another says already left out, by video and time.

    With them the videos of the annotations, whether or not they are labelled.
    """
    paths = (*(() if files.annotations is None else (files.annotations,)), *files.narrations)
    if not paths:
        raise UsageError(
            f"{files.videos}: no narrations there; give Ego4D's narration.json, EgoClip's csv or "
            "an annotated csv"
        )
    parts = []
    annotated = pa.array([], pa.string())
    for path in paths:
        truth = path == files.annotations
        found = read_annotations(path) if truth else read_narrations(path)
        counts |= {f"{path.name}: {what}": count for what, count in found.counts.items()}
        rows = found.rows
        if truth:
            annotated = pc.unique(rows["uid"])
        else:  # truth is only what the annotations say
            rows = rows.set_column(
                ROWS.names.index("sounding"), "sounding", pa.nulls(rows.num_rows, pa.bool_())
            )
        parts.append(rows)
    rows = pa.concat_tables(parts).combine_chunks()
    if not rows.num_rows:
        raise TableError(f"{', '.join(map(str, paths))}: no narrations in it")
    repeated = _repeated(rows, rules.apart)
    counts["said before, in another pass or file"] = int(repeated.sum())
    rows = rows.filter(pa.array(~repeated))
    by = [(name, "ascending") for name in ("uid", "time", "pass", "index", "text")]
    return rows.sort_by(by).combine_chunks(), annotated


def _repeated(rows: pa.Table, apart: float) -> Array:
    """Which rows another row says already, in the same words, at the same moment or nearly so.

    One is left out that a kept one says less than `apart` away in another pass, or at its very
    moment. Annotated ones are kept before others, and earlier ones before later ones.

    Raises:
        TableError: a narration is annotated twice, and not alike.
    """
    video, words, source = (
        _codes(of)[0] for of in (rows["uid"], _plain(rows["text"]), rows["pass"])
    )
    time = rows["time"].to_numpy()
    labelled = rows["sounding"].is_valid().to_numpy()
    order = np.lexsort((source, ~labelled, time, words, video))
    before, after = order[:-1], order[1:]
    gap = time[after] - time[before]
    same = (video[after] == video[before]) & (words[after] == words[before])
    linked = same & (gap < max(apart, SAME_MOMENT))
    near = linked & ((gap < SAME_MOMENT) | (source[after] != source[before]))
    run = np.concatenate([[0], np.cumsum(~linked)])  # rows of two runs never say the same
    runs = np.unique(run[1:][near])
    ends = (np.searchsorted(run, runs, side) for side in ("left", "right"))
    repeated = np.zeros(len(time), bool)
    for first, end in zip(*ends, strict=True):
        said = order[first:end]
        columns = (of[said].tolist() for of in (time, source, labelled))
        repeated[said] = _again(list(zip(*columns, strict=True)), apart)
    _check_truths(rows, order[labelled[order]], words)
    return repeated


def _again(said: list[tuple[float, int, bool]], apart: float) -> list[bool]:
    """Which of the same words a kept one says already: their times, passes, and whether labelled.

    They stand in the order of their times.
    """
    kept: list[tuple[float, int]] = []
    again = [False] * len(said)
    for row in sorted(range(len(said)), key=lambda row: not said[row][2]):
        time, source, labelled = said[row]
        again[row] = any(
            abs(time - other) < SAME_MOMENT
            or (abs(time - other) < apart and source != of and not labelled)
            for other, of in reversed(kept)
        )
        if not again[row]:
            kept.append((time, source))
    return again


def _check_truths(rows: pa.Table, order: Array, words: Array) -> None:
    """Refuse labelled rows, by video, words and time, that are the same but for their truth."""
    found = rows.take(pa.array(order))
    uid, time, sounds = (found[name].to_numpy() for name in ("uid", "time", "sounding"))
    words = words[order]
    same = (uid[1:] == uid[:-1]) & (words[1:] == words[:-1]) & (np.diff(time) < SAME_MOMENT)
    if (unlike := np.flatnonzero(same & (sounds[1:] != sounds[:-1]))).size:
        where = f"video {uid[unlike[0]]} at {time[unlike[0]]:.3f} s"
        raise TableError(f"{where} is annotated twice, once as sounding and once as not")


@dataclass(frozen=True)
class _Videos:
    """Each row's video as a number, and what is known of the videos by that number."""

    code: Array
    uids: Array
    duration: Array
    """Seconds, infinite where it is not known."""
    silent: Array
    benchmark: Array

    @classmethod
    def of(cls, rows: pa.Table, videos: Mapping[str, Video]) -> _Videos:
        code, uids = _codes(rows["uid"])
        about = [videos.get(uid, Video()) for uid in uids]
        duration = np.array([math.nan if v.duration is None else v.duration for v in about])
        told = rows["duration"].to_numpy()
        own = np.full(len(uids), np.nan)
        own[code[np.isfinite(told)]] = told[np.isfinite(told)]
        duration = np.where(np.isnan(duration), own, duration)
        return cls(
            code,
            uids,
            np.where(np.isnan(duration), np.inf, duration),
            np.array([video.sound is False for video in about], bool),
            np.array([video.benchmark for video in about], bool),
        )


def _splits(
    videos: _Videos, rows: pa.Table, val: int, fractions: Mapping[str, float], seed: int
) -> Array:
    """The split of each video: val and test are the annotated ones, if there are any."""
    splits = np.full(len(videos.uids), "train", object)
    labelled = rows["sounding"].is_valid().to_numpy()
    if labelled.any():
        of_clips = videos.uids[videos.code[labelled]]
        chosen = held_out(of_clips.tolist(), val, seed=seed)
        splits[np.isin(videos.uids, of_clips)] = "test"
        splits[[uid in chosen for uid in videos.uids]] = "val"
        return splits
    if len(videos.uids) < len(fractions):
        return np.full(len(videos.uids), "", object)
    one_each = Clips.of([Clip(uid, uid, 0.0, 1.0) for uid in videos.uids], root=Path())
    return one_each.split(fractions, seed=seed).column("split")


def _kept(
    rows: pa.Table, videos: _Videos, annotated: pa.Array, rules: Rules, counts: dict[str, int]
) -> Array:
    """Rows that may be clips: not the unlabelled ones of annotated videos, nor the held out."""
    labelled = rows["sounding"].is_valid().to_numpy()
    of_annotated = pc.is_in(rows["uid"], annotated).to_numpy()
    unjudged = of_annotated & ~labelled
    counts["of annotated videos, but not annotated: left out"] = int(unjudged.sum())
    held = videos.benchmark[videos.code] & ~of_annotated & (not rules.benchmarks)
    counts["of videos that Ego4D's benchmarks hold out: left out"] = int(held.sum())
    return np.asarray(~unjudged & ~held)


def _clips(
    files: Files,
    rows: pa.Table,
    videos: _Videos,
    splits: Array,
    rules: Rules,
    counts: dict[str, int],
) -> Clips:
    start, end, wrong = _spans(rows, videos, rules)
    video, start, end, missing, cut = _media(files.videos, videos, start, end, rules)
    counts["videos"] = len(np.unique(videos.code))
    counts["videos whose files are absent"] = len(np.unique(videos.code[missing]))
    counts["clips of which the file is absent"] = int(missing.sum())
    reasons = [
        (missing & (not rules.absent_usable), MISSING),
        (videos.silent[videos.code], "no audio stream, by the manifest"),
        *wrong,
        (cut, "the clip lies in two files of its video"),
        *_wordings(rows["text"], rows["rejected"], rules, counts),
    ]
    quarantine = np.full(len(start), "", object)
    for mask, reason in reversed(reasons):
        quarantine[mask] = reason
    verb, noun, group = _actions(files, rows, rules, counts)
    columns = {
        "id": pa.array(_ids(rows), pa.string()),
        "video": video,
        "start": pa.array(start),
        "end": pa.array(end),
        "text": pc.fill_null(rows["text"], ""),
        "split": pa.array(splits, pa.string()),
        "quarantine": pa.array(quarantine, pa.string()),
        **_unpacked(len(start)),
        LABEL + "uid": rows["uid"],
        LABEL + "pass": rows["pass"],
        LABEL + "index": rows["index"],
        LABEL + "time": rows["time"],
        LABEL + "wearer": _wearers(rows["text"]),
        LABEL + "verb": verb,
        LABEL + "noun": noun,
        LABEL + "group": group,
    }
    if rows["sounding"].null_count < rows.num_rows:
        columns[LABEL + "sounding"] = rows["sounding"]
    table = pa.table(columns)
    if rules.present_only:
        if len(video) and missing.all():
            raise UsageError(
                f"{files.videos}: has none of the {counts['videos']} videos, and only present ones "
                f"are wanted; wanted is such as {video[0].as_py()}"
            )
        table = table.filter(pa.array(~missing))
    return Clips(table, files.videos)


def _unpacked(clips: int) -> dict[str, pa.Array]:
    """The columns of a place in a pack, for clips that have none."""
    blank = {pa.string(): "", pa.int64(): 0}
    kinds = {name: COLUMNS.field(name).type for name in PLACE}
    return {name: pa.repeat(pa.scalar(blank[kind], kind), clips) for name, kind in kinds.items()}


def _spans(
    rows: pa.Table, videos: _Videos, rules: Rules
) -> tuple[Array, Array, list[tuple[Array, str]]]:
    """Starts and ends, moved into the video as `Window.around` does, and what is wrong there."""
    time, length = rows["time"].to_numpy(), rules.window.length
    duration = videos.duration[videos.code]
    known = np.where(np.isfinite(time), time, 0.0)
    start = np.clip(known - rules.window.before, 0.0, np.maximum(duration - length, 0.0))
    end = start + length
    if rules.own_spans:
        own = np.array([rows[name].to_numpy() for name in ("start", "end")])
        given = np.isfinite(own).all(0)
        start, end = (np.where(given, of, it) for of, it in zip(own, (start, end), strict=True))
    return start, end, [
        (~np.isfinite(time), "the narration has no time"),
        (time < 0, "narrated before the video begins"),
        (time > duration, "narrated after the video ends"),
        (~(end > start) | (start < 0), "the file's own span is none"),
        (end > duration + 1e-3, "the clip ends after its video"),
    ]  # fmt: skip


def _media(
    folder: Path, videos: _Videos, start: Array, end: Array, rules: Rules
) -> tuple[pa.Array, Array, Array, Array, Array]:
    """Each clip's file and its times in it, whether the file is absent, whether it is in two."""
    none = np.zeros(len(start), bool)
    if not rules.chunk:
        there = _whole(folder, set(videos.uids))
        paths = np.array([there.get(uid, f"{uid}.mp4") for uid in videos.uids], object)
        absent = np.array([uid not in there for uid in videos.uids], bool)
        return pa.array(paths[videos.code], pa.string()), start, end, absent[videos.code], none
    number = np.floor(start / rules.chunk).astype(np.int64)
    cut = end > (number + 1) * rules.chunk + 1e-6
    chunks = _chunks(folder, set(videos.uids))
    keys = np.stack([videos.code, number], axis=1)
    unique, place = np.unique(keys, axis=0, return_inverse=True)
    files = [(videos.uids[code], int(chunk)) for code, chunk in unique]
    paths = np.array([chunks.get((uid, k), f"{uid}/{k}.mp4") for uid, k in files], object)
    absent = np.array([file not in chunks for file in files], bool)
    place = place.reshape(-1)
    shift = number * rules.chunk
    return pa.array(paths[place], pa.string()), start - shift, end - shift, absent[place], cut


def _there(folder: Path) -> Iterator[Path]:
    """All videos in a folder, at any depth."""
    return (
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _whole(folder: Path, uids: set[str]) -> dict[str, str]:
    """Paths inside the folder of the videos that are there as `UID.mp4`, at any depth."""
    found: dict[str, str] = {}
    for path in sorted(_there(folder)):
        if path.stem in uids:
            place = path.relative_to(folder).as_posix()
            if path.stem in found:
                raise UsageError(
                    f"{folder}: has video {path.stem} twice, as {found[path.stem]} and {place}; "
                    "give the folder that has it once, such as v2/full_scale"
                )
            found[path.stem] = place
    return found


def _chunks(folder: Path, uids: set[str]) -> dict[tuple[str, int], str]:
    """Paths inside the folder of the files `UID/NUMBER.mp4`, at any depth."""
    return {
        (path.parent.name, int(path.stem)): path.relative_to(folder).as_posix()
        for path in sorted(_there(folder))
        if path.parent.name in uids and path.stem.isdecimal()
    }


_REDACTED = r"(?i)^(#[co]\s+)*(c\s+)?[\[<(#]*redacted[\])>]*\.?$"


def _wordings(
    text: pa.ChunkedArray, rejected: pa.ChunkedArray, rules: Rules, counts: dict[str, int]
) -> list[tuple[Array, str]]:
    """What is wrong with some narrations' words."""
    text = pc.utf8_trim_whitespace(pc.fill_null(text, ""))
    words = pc.list_value_length(pc.utf8_split_whitespace(text)).to_numpy()
    empty = pc.equal(text, "").to_numpy()
    redacted = pc.match_substring_regex(text, _REDACTED)
    taken_back = pc.fill_null(rejected, False).to_numpy() | redacted.to_numpy()
    unsure = pc.match_substring_regex(text, r"(?i)#\s*unsure").to_numpy()
    counts["with #unsure, read as something"] = int(unsure.sum())
    return [
        (empty, "the narration is empty"),
        (taken_back, "Ego4D has taken the narration back"),
        (words < rules.shortest, f"the narration has fewer than {rules.shortest} words"),
    ]


def _wearers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether the camera wearer acts, or someone else (#O)."""
    return pc.invert(pc.match_substring_regex(pc.fill_null(text, ""), r"(?i)^\s*#\s*o\b"))


def _actions(
    files: Files, rows: pa.Table, rules: Rules, counts: dict[str, int]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Verb, noun and group of each narration."""
    verbs = None if files.verbs is None else Taxonomy.read(files.verbs)
    nouns = None if files.nouns is None else Taxonomy.read(files.nouns)
    tagged = [
        pa.nulls(rows.num_rows, pa.string())
        if taxonomy is None or not rules.tags
        else _tagged(rows[f"{kind}_tag"], taxonomy, kind, counts)
        for kind, taxonomy in (("verb", verbs), ("noun", nouns))
    ]
    told = _told(rows["text"], Actions(verbs, nouns), pc.and_(*map(pc.is_valid, tagged)))
    verb, noun = (pc.coalesce(*both) for both in zip(tagged, told, strict=True))
    for kind, taxonomy, named in (("verb", verbs, verb), ("noun", nouns, noun)):
        if taxonomy is not None:
            counts[f"without a {kind} of the taxonomy"] = named.null_count
    return verb, noun, pc.binary_join_element_wise(verb, noun, ":")


def _told(text: pa.ChunkedArray, actions: Actions, known: pa.Array) -> list[pa.Array]:
    """Verbs and nouns by their words, of narrations of which they are not known."""
    wanted = pc.if_else(known, "", pc.fill_null(text, "")).combine_chunks()
    each = wanted.dictionary_encode()  # many are said more than once
    found = [actions.find(words) for words in each.dictionary.to_pylist()]
    named = zip(*found, strict=True) if found else ((), ())
    return [pa.array(names, pa.string()).take(each.indices) for names in named]


def _tagged(
    tags: pa.ChunkedArray, taxonomy: Taxonomy, kind: str, counts: dict[str, int]
) -> pa.Array:
    """EgoClip's tags as names; null for none, and for those beyond the taxonomy."""
    numbers = tags.combine_chunks()
    beyond = pc.fill_null(pc.greater_equal(numbers, len(taxonomy.names)), False)
    counts[f"with a {kind} tag beyond the taxonomy's {len(taxonomy.names)}"] = pc.sum(
        beyond
    ).as_py()
    numbers = pc.if_else(beyond, pa.scalar(None, pa.int64()), numbers)
    return pa.array(taxonomy.names, pa.string()).take(numbers)


def _ids(rows: pa.Table) -> list[str]:
    """UID@SECONDS, numbered where one moment is narrated twice; rows stand by video and time."""
    pairs = zip(rows["uid"].to_pylist(), rows["time"].to_numpy().tolist(), strict=True)
    ids = [f"{uid}@{time:.3f}" for uid, time in pairs]
    number, before = 1, ""
    for row, id in enumerate(ids):
        number = number + 1 if id == before else 1
        before = id
        if number > 1:
            ids[row] = f"{id}#{number}"
    return ids


def _chosen(clips: Clips, train: int, seed: int, counts: dict[str, int]) -> Clips:
    """The good training clips thinned to so many; those in quarantine stay, with their reasons."""
    of_split = clips.column("split") == "train"
    training = of_split & (clips.column("quarantine") == "")
    able = np.flatnonzero(training)
    if train > len(able):
        raise UsageError(
            _too_few(train, len(able), clips.column("quarantine")[of_split & ~training])
        )
    verbs = pc.fill_null(clips.table[LABEL + "verb"], "")
    chosen = spread(
        _codes(clips.table[LABEL + "uid"])[0][able], _codes(verbs)[0][able], train, seed=seed
    )
    keep = ~training
    keep[able[chosen]] = True
    counts["training clips not chosen"] = int((~keep).sum())
    return clips.where(keep)


def _too_few(train: int, able: int, reasons: Array) -> str:
    """Why so many training clips cannot be chosen, and what would help."""
    said = f"--train {train}: only {able} of {able + len(reasons)} training clips can be used"
    if not len(reasons):
        return said
    names, counts = np.unique(reasons.astype(str), return_counts=True)
    common = str(names[counts.argmax()])
    said += f"; of {counts.max()} the reason is: {common}"
    if common != MISSING:
        return said
    return f"{said}; --absent-usable chooses before the videos are downloaded"


def _plain(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without what does not matter: case, space, punctuation."""
    lower = pc.utf8_lower(pc.fill_null(texts, ""))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, r"[^\pL\pN]+", " "))


def _codes(column: pa.ChunkedArray | pa.Array) -> tuple[Array, Array]:
    """Texts as numbers in their order, and the texts by number; null is a text too, the last."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = whole.dictionary_encode(null_encoding="encode")
    names = encoded.dictionary
    order = pc.sort_indices(names).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    codes = place[encoded.indices.to_numpy()]
    return codes, np.array(names.take(pa.array(order)).to_pylist(), dtype=object)

"""The clip table: one row is one span of one video, with narration, split, labels, place in a pack.

On disk it is Parquet, with the schema's version and the videos' folder in the file's metadata. Rows
are never dropped for being bad: they carry the reason in `quarantine`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sonant.errors import TableError, UsageError
from sonant.files import replacing, spare
from sonant.types import Clip

VERSION = "2"
WITHOUT_CONTENT = "1"
"""The version before, which had no column `content`; it is read as blank."""
LABEL = "label."
LENGTH_SLACK = 5e-3
"""Seconds by which clips of one length may differ."""
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("video", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("text", pa.string()),
        ("split", pa.string()),
        ("quarantine", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("content", pa.string()),
    ]
)
PLACE = ("shard", "offset", "size", "content")
"""Columns that say where a packed clip lies, and what lies there."""
LABEL_TYPES = (pa.string(), pa.int64(), pa.float64(), pa.bool_())


@dataclass(frozen=True, eq=False)
class Clips:
    """A checked clip table and the folder its videos lie in.

    Args:
        table: the columns of `COLUMNS` in that order, then any `label.<name>` columns of string,
            int64, double or bool. Times are seconds; an empty `quarantine` means good, an empty
            `shard` means not packed; `content` is a hash of a packed clip's bytes.
        root: folder that `video` is relative to.

    Raises:
        TableError: columns are missing, of another type, or hold impossible values.
    """

    table: pa.Table
    root: Path

    def __post_init__(self) -> None:
        _check_columns(self.table.schema)
        _check_values(self.table)

    @classmethod
    def of(cls, clips: Iterable[Clip], *, root: Path, quarantine: Sequence[str] = ()) -> Clips:
        """Build a table from clips, with the reasons of those that are quarantined already.

        Labels that a clip does not have are null.
        """
        rows = list(clips)
        blank = [""] * len(rows)
        columns: dict[str, Any] = {
            "id": [clip.id for clip in rows],
            "video": [clip.video for clip in rows],
            "start": [float(clip.start) for clip in rows],
            "end": [float(clip.end) for clip in rows],
            "text": [clip.text for clip in rows],
            "split": [clip.split for clip in rows],
            "quarantine": list(quarantine) or blank,
            "shard": blank,
            "offset": [0] * len(rows),
            "size": [0] * len(rows),
            "content": blank,
        }
        table = pa.table(columns, schema=COLUMNS)
        for name in dict.fromkeys(name for clip in rows for name in clip.labels):
            values = [clip.labels.get(name) for clip in rows]
            table = table.append_column(LABEL + name, _label_array(name, values))
        return cls(table, Path(root))

    @classmethod
    def read(cls, path: Path | str, *, made_by: str = "sonant index") -> Clips:
        """Read a table that `write` wrote.

        Args:
            path: the file.
            made_by: the command that makes such tables, for the error's words.

        Raises:
            TableError: the file is missing, no clip table, of another version, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise TableError(f"{path}: no such clip table; `{made_by}` makes one")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{path}: not a readable Parquet file: {error}") from error
        metadata = table.schema.metadata or {}
        version = metadata.get(b"sonant.clips", b"").decode()
        if version == WITHOUT_CONTENT:
            table = _with_blank_content(table)
        elif version != VERSION:
            raise TableError(
                f"{path}: is {f'clip table version {version}' if version else 'no clip table'}, "
                f"with columns {', '.join(table.column_names)}; this sonant reads clip tables of "
                f"version {VERSION}: make it again with `{made_by}`"
            )
        try:
            root = Path(metadata[b"root"].decode())
        except KeyError:
            raise TableError(
                f"{path}: does not say where its videos lie (no `root` in its metadata): make it "
                f"again with `{made_by}`"
            ) from None
        try:
            return cls(table, root if root.is_absolute() else (path.parent / root).resolve())
        except TableError as error:
            raise TableError(f"{path}: {error}") from error

    def write(self, path: Path | str, *, made_from: str = "") -> None:
        """Write as Parquet, whole or not at all.

        Args:
            path: the file.
            made_from: a hash of all that the table is made from, for `holds`.

        Raises:
            UsageError: something is there that is no clip table.
        """
        spare(Path(path), "sonant.clips", "clip table")
        metadata = {
            b"sonant.clips": VERSION.encode(),
            b"root": str(self.root.resolve()).encode(),
            b"made_from": made_from.encode(),
        }
        with replacing(Path(path)) as partial:
            pq.write_table(self.table.replace_schema_metadata(metadata), partial)

    @staticmethod
    def holds(path: Path | str, made_from: str) -> bool:
        """Whether a table of this version is there that was made from just this."""
        try:
            metadata = pq.read_metadata(path).metadata or {}
        except (pa.ArrowException, OSError):
            return False
        there = (metadata.get(b"sonant.clips"), metadata.get(b"made_from"))
        return there == (VERSION.encode(), made_from.encode())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, row: int) -> Clip:
        return _clip(self.table.slice(row, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Clip]:
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from map(_clip, batch.to_pylist())

    def __repr__(self) -> str:
        videos = pc.count_distinct(self.table["video"]).as_py()
        bad = int(np.sum(self.column("quarantine") != ""))
        return (
            f"Clips({len(self)} of {videos} videos, {bad} quarantined, labels {list(self.labels)})"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns, without their prefix."""
        names = self.table.column_names
        return tuple(name.removeprefix(LABEL) for name in names if name.startswith(LABEL))

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """One column or label as an array [rows]; nulls are None, or NaN among floats.

        Raises:
            TableError: there is no such column.
        """
        found = name if name in COLUMNS.names else LABEL + name
        if found not in self.table.column_names:
            raise TableError(
                f"no column or label {name!r}; there are {', '.join(COLUMNS.names)} and the labels "
                f"{', '.join(self.labels) or '(none)'}"
            )
        values = self.table[found]
        if pa.types.is_string(values.type) or (
            values.null_count and not pa.types.is_floating(values.type)
        ):
            return np.array(values.to_pylist(), dtype=object)
        return np.asarray(values.to_numpy())

    def where(
        self,
        mask: np.ndarray[Any, Any] | None = None,
        *,
        split: str | None = None,
        quarantined: bool | None = None,
        packed: bool | None = None,
    ) -> Clips:
        """The rows for which everything asked for holds, in their order.

        Args:
            mask: booleans [rows].
            split: name of a split; "" for the clips of none.
            quarantined: True for bad rows only, False for good ones.
            packed: whether the row has a place in a pack.

        Raises:
            UsageError: no row has this split.
        """
        keep = np.ones(len(self), bool) if mask is None else np.asarray(mask, bool).copy()
        if split is not None:
            splits = self.column("split")
            if split not in splits:
                there = ", ".join(repr(name) for name in sorted(set(splits) - {""}))
                known = f"; the splits there are: {there}"
                none = ", nor in another; leave the split out for all clips"
                raise UsageError(f"no clip is in split {split!r}{known if there else none}")
            keep &= splits == split
        if quarantined is not None:
            keep &= (self.column("quarantine") != "") == quarantined
        if packed is not None:
            keep &= (self.column("shard") != "") == packed
        return Clips(self.table.filter(pa.array(keep, pa.bool_())), self.root)

    def join(self, labels: pa.Table, *, on: str = "id") -> Clips:
        """Add the columns of another table as labels; rows without a match get nulls.

        Args:
            labels: one row a value of `on`; a column of the same label is replaced.
            on: a column of both tables.

        Raises:
            TableError: `on` is missing on a side or not unique in `labels`.
        """
        if on not in labels.column_names:
            raise TableError(
                f"no column {on!r} to join on; there are {', '.join(labels.column_names)}"
            )
        keys = labels[on].to_pylist()
        if repeated := [key for key, count in Counter(keys).items() if count > 1]:
            raise TableError(f"column {on!r} to join on has {repeated[0]!r} more than once")
        places = {key: row for row, key in enumerate(keys)}
        rows = pa.array([places.get(key) for key in self.column(on)], pa.int64())
        table = self.table
        for name in (name for name in labels.column_names if name != on):
            column = _label_array(name, labels[name].take(rows).to_pylist())
            full = LABEL + name.removeprefix(LABEL)
            if full in table.column_names:
                table = table.drop_columns([full])
            table = table.append_column(full, column)
        return Clips(table, self.root)

    def split(self, fractions: Mapping[str, float], *, seed: int) -> Clips:
        """Deal the videos, and their clips with them, into named splits.

        A video never lies in two splits. With n videos, each split gets its share to within one
        video, and at least one where n allows; the same seed deals the same videos alike.

        Raises:
            UsageError: fractions are not positive or do not sum to 1, or videos are too few.
        """
        total = math.fsum(fractions.values())
        if min(fractions.values(), default=0.0) <= 0 or abs(total - 1) > 1e-9:
            raise UsageError(
                f"split fractions must be positive and sum to 1, not {dict(fractions)}"
            )
        videos = np.array(sorted(set(self.column("video"))), dtype=object)
        if len(videos) < len(fractions):
            raise UsageError(
                f"{len(videos)} videos cannot be split into {len(fractions)} parts by video"
            )
        dealt = np.random.default_rng(seed).permutation(len(videos))
        names = np.repeat(list(fractions), _counts(list(fractions.values()), len(videos)))
        place = dict(zip(videos[dealt], names, strict=True))
        column = pa.array([place[video] for video in self.column("video")], pa.string())
        return self._with(split=column)

    def torn(self) -> list[str]:
        """Videos with good clips in more than one split, in order; no split does not count."""
        rows = self.where((self.column("quarantine") == "") & (self.column("split") != "")).table
        counts = rows.group_by("video").aggregate([("split", "count_distinct")])
        more = pc.greater(counts["split_count_distinct"], 1)
        return sorted(counts.filter(more)["video"].to_pylist())

    def in_splits(self, splits: Mapping[Path, str], *, other: str) -> Clips:
        """Put videos, by where they lie, into given splits; those of none into another one.

        Args:
            splits: absolute path of a video to its split.
            other: the split of the others.
        """
        videos = self.column("video")
        found = {video: splits.get(self.path(video).resolve(), other) for video in set(videos)}
        return self._with(split=pa.array([found[video] for video in videos], pa.string()))

    def quarantined(self, reasons: Mapping[str, str]) -> Clips:
        """Mark the clips with these ids as bad; a reason already there stays."""
        return self._with(
            quarantine=pa.array(
                [
                    there or reasons.get(id, "")
                    for id, there in zip(self.column("id"), self.column("quarantine"), strict=True)
                ],
                pa.string(),
            )
        )

    def with_packed(
        self, places: Mapping[str, tuple[str, int, int]], contents: Mapping[str, str] | None = None
    ) -> Clips:
        """Set where clips lie in a pack, and what lies there.

        Args:
            places: id to (shard, offset, size), in bytes.
            contents: id to a hash of these bytes, where one is known.
        """
        known, ids = contents or {}, self.column("id")
        rows = [(*places.get(id, ("", 0, 0)), known.get(id, "")) for id in ids]
        columns = zip(*rows, strict=True) if rows else [()] * len(PLACE)
        return self._with(
            **{
                name: pa.array(column, COLUMNS.field(name).type)
                for name, column in zip(PLACE, columns, strict=True)
            }
        )

    def path(self, video: str) -> Path:
        """Where a video of this table lies."""
        return self.root / video

    def digest(self) -> str:
        """Hash of what the rows say: ids, videos, times, texts, splits. Not of where they lie."""
        hash = hashlib.sha256()
        for name in ("id", "video", "start", "end", "text", "split", "quarantine"):
            hash.update(repr(self.table[name].to_pylist()).encode())
        return hash.hexdigest()

    def packed_digest(self) -> str:
        """Hash of what the rows say and of what of them lies where in a pack: of the media too.

        The same clips packed from another file, or in another form, have other contents. It is
        `digest` where nothing is packed.
        """
        columns = {name: self.table[name].to_pylist() for name in PLACE}
        places = {name: column for name, column in columns.items() if any(column)}
        if not places:
            return self.digest()
        return hashlib.sha256(repr((self.digest(), places)).encode()).hexdigest()

    def _with(self, **columns: pa.Array) -> Clips:
        table = self.table
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), name, column)
        return Clips(table, self.root)


def _with_blank_content(table: pa.Table) -> pa.Table:
    place = min(COLUMNS.names.index("content"), table.num_columns)
    return table.add_column(place, COLUMNS.field("content"), [[""] * table.num_rows])


def _counts(shares: Sequence[float], n: int) -> list[int]:
    """Deal n things by shares: each gets one at least, and the largest remainders the rest."""
    counts = [max(1, int(share * n)) for share in shares]
    missing = [share * n - count for share, count in zip(shares, counts, strict=True)]
    while sum(counts) != n:
        step = 1 if sum(counts) < n else -1
        able = [place for place, count in enumerate(counts) if count + step > 0]
        most = max(able, key=lambda place: step * missing[place])
        counts[most] += step
        missing[most] -= step
    return counts


def _clip(row: dict[str, Any]) -> Clip:
    labels = {
        name.removeprefix(LABEL): value for name, value in row.items() if name.startswith(LABEL)
    }
    return Clip(
        row["id"], row["video"], row["start"], row["end"], row["text"], row["split"], labels
    )


def _label_array(name: str, values: list[Any]) -> pa.Array:
    try:
        array = pa.array(values)
    except pa.ArrowException as error:
        raise TableError(f"label {name!r} mixes kinds of value: {error}") from error
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _check_columns(schema: pa.Schema) -> None:
    wanted = ", ".join(f"{field.name} ({field.type})" for field in COLUMNS)
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    base = pa.schema([field for field in schema if not field.name.startswith(LABEL)])
    if not base.equals(COLUMNS):
        raise TableError(f"a clip table has the columns {wanted}; there are {there}")
    for field in schema:
        if field.name.startswith(LABEL) and field.type not in LABEL_TYPES:
            raise TableError(
                f"{field.name} is of type {field.type}; labels are string, int64, double or bool"
            )


def _check_values(table: pa.Table) -> None:
    for name in COLUMNS.names:
        if table[name].null_count:
            raise TableError(f"column {name!r} has {table[name].null_count} nulls")
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        counts = Counter(table["id"].to_pylist())
        repeated = [id for id, count in counts.items() if count > 1]
        raise TableError(f"{len(repeated)} ids stand more than once, the first is {repeated[0]!r}")
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    good = table["quarantine"].to_numpy() == ""
    impossible = good & ~((start >= 0) & (end > start) & np.isfinite(end))
    if impossible.any():
        row = int(np.flatnonzero(impossible)[0])
        raise TableError(
            f"{int(impossible.sum())} clips have impossible times, the first is "
            f"{table['id'][row].as_py()!r} (row {row}): start {start[row]}, end {end[row]}; "
            "wanted 0 <= start < end"
        )

"""Features of clips: one row an embedded clip, one column a modality or a score.

On disk it is Parquet: `id`, the modalities as fixed-size lists of float32 (null where a clip lacks
the modality), `score.<name>` as doubles; schema version, run and data digest in the metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sonant.errors import TableError
from sonant.files import replacing, spare
from sonant.types import MODALITIES, Modality

VERSION = "1"
SCORE = "score."


@dataclass(frozen=True, eq=False)
class Features:
    """A checked table of embeddings and scores, and what they were made from.

    Args:
        table: `id` (string, unique), then any of `audio`, `video`, `text` (fixed-size lists of
            float32, finite, null where missing) and `score.<name>` (double, null where missing).
        run: what made them, usually the path of a run; "" if nothing trained did.
        data: digest of the clip table that they were made from; "" if unknown.

    Raises:
        TableError: columns are missing, unknown, of another type, or hold impossible values.
    """

    table: pa.Table
    run: str = ""
    data: str = ""

    def __post_init__(self) -> None:
        _check_columns(self.table.schema)
        _check_values(self.table)

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        embeddings: Mapping[Modality, np.ndarray[Any, Any]] | None = None,
        *,
        scores: Mapping[str, np.ndarray[Any, Any]] | None = None,
        run: str = "",
        data: str = "",
    ) -> Features:
        """Build the table from arrays whose rows are the clips of `ids`.

        Args:
            ids: the clips.
            embeddings: modality to [clips, width]; a row of NaN means that the clip lacks it.
            scores: name to [clips]; NaN means that the clip has none.
            run: what made them.
            data: digest of the clip table.
        """
        columns: dict[str, pa.Array] = {"id": pa.array(list(ids), pa.string())}
        for modality, matrix in (embeddings or {}).items():
            columns[modality] = _lists(modality, np.asarray(matrix, np.float32), len(ids))
        for name, values in (scores or {}).items():
            column = np.asarray(values, np.float64)
            if column.shape != (len(ids),):
                raise TableError(
                    f"score {name!r} has shape {column.shape}; wanted one value for each of the "
                    f"{len(ids)} clips"
                )
            columns[SCORE + name] = pa.array(column, pa.float64(), from_pandas=True)
        return cls(pa.table(columns), run, data)

    @classmethod
    def read(cls, path: Path | str) -> Features:
        """Read a table that `write` wrote.

        Raises:
            TableError: the file is missing, holds no features, is of another version, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise TableError(f"{path}: no such features; `sonant embed` makes them")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{path}: not a readable Parquet file: {error}") from error
        metadata = table.schema.metadata or {}
        version = metadata.get(b"sonant.features", b"").decode()
        if version != VERSION:
            raise TableError(
                f"{path}: is {f'features of version {version}' if version else 'no features'}, "
                f"with columns {', '.join(table.column_names)}; this sonant reads features of "
                f"version {VERSION}: make them again with `sonant embed`"
            )
        run, data = (metadata.get(key, b"").decode() for key in (b"run", b"data"))
        try:
            return cls(table, run, data)
        except TableError as error:
            raise TableError(f"{path}: {error}") from error

    def write(self, path: Path | str) -> None:
        """Write as Parquet, whole or not at all.

        Raises:
            UsageError: something is there that is no features.
        """
        spare(Path(path), "sonant.features", "table of features")
        metadata = {"sonant.features": VERSION, "run": self.run, "data": self.data}
        with replacing(Path(path)) as partial:
            pq.write_table(self.table.replace_schema_metadata(metadata), partial)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        widths = [f"{name} {self.table[name].type.list_size}" for name in self.modalities]
        return f"Features({len(self)} clips, {', '.join(widths)}, scores {list(self.scores)})"

    @property
    def ids(self) -> np.ndarray[Any, Any]:
        """The clips' ids [rows], as strings."""
        return np.array(self.table["id"].to_pylist(), dtype=object)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that have a column."""
        return tuple(name for name in MODALITIES if name in self.table.column_names)

    @property
    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """Score name to float64 [rows]; NaN where a clip has none."""
        return {
            name.removeprefix(SCORE): np.asarray(self.table[name].to_numpy(), np.float64)
            for name in self.table.column_names
            if name.startswith(SCORE)
        }

    def matrix(self, modality: Modality) -> np.ndarray[Any, Any]:
        """The embeddings of one modality, float32 [rows, width]; rows of NaN where there is none.

        Raises:
            TableError: there is no such column.
        """
        if modality not in self.modalities:
            raise TableError(
                f"no features of {modality!r}; there are those of "
                f"{', '.join(self.modalities) or 'no modality'}"
            )
        column = self.table[modality]
        matrix = np.full((len(self), column.type.list_size), np.nan, np.float32)
        matrix[column.is_valid().to_numpy()] = _values(column).reshape(-1, column.type.list_size)
        return matrix

    def of_clips(self, ids: Sequence[str] | np.ndarray[Any, Any]) -> Features:
        """The rows of these clips, in the order of `ids`.

        Raises:
            TableError: some of the clips have no features; the first is named.
        """
        rows = pc.index_in(pa.array(list(ids), pa.string()), self.table["id"].combine_chunks())
        if rows.null_count:
            first = ids[int(np.flatnonzero(rows.is_null().to_numpy(False))[0])]
            raise TableError(
                f"{rows.null_count} of {len(ids)} clips have no features, the first is {first!r}; "
                f"there are {len(self)} rows{f' from {self.run}' if self.run else ''}: "
                "embed this clip table again"
            )
        return Features(self.table.take(rows), self.run, self.data)


def _values(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """All numbers of the lists that are not null, in a row."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([*chunks, np.zeros(0, np.float32)])


def _lists(modality: str, matrix: np.ndarray[Any, Any], rows: int) -> pa.Array:
    if matrix.ndim != 2 or len(matrix) != rows or not matrix.shape[1]:
        raise TableError(
            f"{modality} has shape {matrix.shape}; wanted [{rows}, width], a row for each clip"
        )
    missing = np.isnan(matrix).all(1)
    values = pa.array(np.where(missing[:, None], 0, matrix).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(values, matrix.shape[1], mask=pa.array(missing))


def _check_columns(schema: pa.Schema) -> None:
    there = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    wanted = (
        "id (string), audio, video, text (fixed_size_list<float>) and score.<name> (double), "
        "with at least one beside id"
    )
    good = "id" in schema.names and len(schema.names) > 1 and all(map(_fits, schema))
    if not good or len(set(schema.names)) != len(schema.names):
        raise TableError(f"features have the columns {wanted}; there are {there}")


def _fits(field: pa.Field) -> bool:
    if field.name in MODALITIES:
        lists = pa.types.is_fixed_size_list(field.type)
        return lists and bool(field.type.value_type == pa.float32())
    if field.name.startswith(SCORE):
        return bool(field.type == pa.float64())
    return bool(field.name == "id" and field.type == pa.string())


def _check_values(table: pa.Table) -> None:
    if table["id"].null_count:
        raise TableError(f"column 'id' has {table['id'].null_count} nulls")
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        counts = Counter(table["id"].to_pylist())
        repeated = [id for id, count in counts.items() if count > 1]
        raise TableError(f"{len(repeated)} ids stand more than once, the first is {repeated[0]!r}")
    for name in (name for name in table.column_names if name != "id"):
        column = table[name]
        values = _values(column) if name in MODALITIES else column.drop_null().to_numpy()
        if np.isfinite(values).all():
            continue
        bad = ~np.isfinite(values).reshape(-1, column.type.list_size if name in MODALITIES else 1)
        row = np.flatnonzero(column.is_valid().to_numpy())[np.flatnonzero(bad.any(1))[0]]
        raise TableError(
            f"column {name!r} holds {int(bad.sum())} numbers that are not finite, the first in the "
            f"row of {table['id'][int(row)].as_py()!r}; a missing value is null"
        )

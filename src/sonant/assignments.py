"""Which cluster a round of deep clustering put each clip into, and how far from its centroid.

On disk it is Parquet: `id`, `span`, which tells the clips of one table from those of another whose
ids are the same, and for each source (the encoders whose features were clustered) a column with the
cluster's number from 0 and `<source> distance`, squared, as they were prepared for k-means. A run
leaves one a round, such as `runs/xdc/round 6.parquet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sonant.clips import Clips
from sonant.errors import TableError

Array = np.ndarray[Any, Any]

VERSION = "1"
DISTANCE = " distance"
NO_SOURCE = ("id", "span")


@dataclass(frozen=True, eq=False)
class Assignment:
    """The clusters of one source."""

    source: str
    """The encoders whose features were clustered, such as `video+audio`."""
    ids: Sequence[str]
    clusters: Array
    """Of each clip, from 0."""
    distances: Array
    """Squared, from the cluster's centroid."""
    spans: Array | None = None
    """Of `spans_of`; None where the table is older than that."""

    def check(self, clips: Clips) -> None:
        """Refuse clips that have ids of these, and are others.

        Raises:
            TableError: some are of another video or of other times.
        """
        if self.spans is None:
            return
        mine = dict(zip(self.ids, self.spans.tolist(), strict=True))
        there = zip(clips.column("id"), spans_of(clips).tolist(), strict=True)
        others = [id for id, span in there if mine.get(id, span) != span]
        if others:
            raise TableError(
                f"{len(others)} of the {len(clips)} clips have an id that was clustered, and are "
                f"of another video or of other times, the first is {others[0]!r}: these are "
                "clusters of another clip table"
            )

    @property
    def of(self) -> dict[str, int]:
        """Clip id to cluster."""
        return dict(zip(self.ids, self.clusters.tolist(), strict=True))


def spans_of(clips: Clips) -> Array:
    """A hash of each clip's video and times, int64 [clips]."""
    rows = zip(*(clips.column(name) for name in ("video", "start", "end")), strict=True)
    said = (f"{video}\n{start:.3f}\n{end:.3f}".encode() for video, start, end in rows)
    return np.frombuffer(b"".join(hashlib.sha256(one).digest()[:8] for one in said), np.int64)


def to_table(
    ids: Sequence[str], spans: Array, found: Mapping[str, tuple[Array, Array]], stage: str
) -> pa.Table:
    """The table of a round: source to clusters and squared distances, each [clips]."""
    columns: dict[str, Any] = {"id": ids, "span": spans}
    for source, (clusters, distances) in found.items():
        columns |= {source: clusters, source + DISTANCE: distances}
    return pa.table(columns).replace_schema_metadata({"sonant.clusters": VERSION, "stage": stage})


def read_assignment(path: Path, source: str = "") -> Assignment:
    """What a run's round found for one source; it may be left unsaid where there is but one.

    Raises:
        TableError: the file is missing, is no such table, or has no such source.
    """
    if not path.is_file():
        lost = f"{path}: no such table of clusters" if path.name else "no table of clusters named"
        raise TableError(f"{lost}; wanted is one that a round of `sonant train xdc` left")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: not a readable Parquet file: {error}") from error
    version = (table.schema.metadata or {}).get(b"sonant.clusters", b"").decode()
    if version != VERSION:
        raise TableError(
            f"{path}: is no table of clusters of version {VERSION}; its columns are "
            f"{', '.join(table.column_names)}"
        )
    there = [
        name for name in table.column_names if name not in NO_SOURCE and not name.endswith(DISTANCE)
    ]
    if not source and len(there) == 1:
        source = there[0]
    if source not in there:
        lacks = f"has no clusters of {source!r}" if source else "has clusters of several sources"
        raise TableError(f"{path}: {lacks}; `--source` is one of {', '.join(there)}")
    return Assignment(
        source,
        table["id"].to_pylist(),
        table[source].to_numpy(),
        table[source + DISTANCE].to_numpy(),
        table["span"].to_numpy() if "span" in table.column_names else None,
    )

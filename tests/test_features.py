from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sonant.errors import TableError
from sonant.features import Features

RNG = np.random.default_rng(0)


def features() -> Features:
    text = RNG.normal(size=(5, 3)).astype(np.float32)
    text[[1, 4]] = np.nan
    return Features.of(
        list("abcde"),
        {"audio": RNG.normal(size=(5, 4)), "text": text},
        scores={"loudness": np.array([1, 2, np.nan, 4, 5])},
        run="runs/one",
        data="digest",
    )


def test_written_is_read_back(tmp_path: Path) -> None:
    there = features()
    there.write(tmp_path / "features.parquet")
    again = Features.read(tmp_path / "features.parquet")
    assert (again.run, again.data, len(again)) == ("runs/one", "digest", 5)
    assert again.ids.tolist() == list("abcde")
    assert again.modalities == ("audio", "text")
    for modality in again.modalities:
        np.testing.assert_array_equal(again.matrix(modality), there.matrix(modality))
    assert again.matrix("text").dtype == np.float32
    assert np.isnan(again.matrix("text")).all(1).tolist() == [False, True, False, False, True]
    assert again.table["text"].null_count == 2
    np.testing.assert_array_equal(again.scores["loudness"], [1, 2, np.nan, 4, 5])
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]


def test_rows_of_clips_come_in_their_order() -> None:
    there = features()
    some = there.of_clips(["d", "b", "a"])
    assert some.ids.tolist() == ["d", "b", "a"]
    np.testing.assert_array_equal(some.matrix("text"), there.matrix("text")[[3, 1, 0]])
    np.testing.assert_array_equal(some.scores["loudness"], [4, 2, 1])
    assert len(there.of_clips([])) == 0
    assert there.of_clips([]).matrix("audio").shape == (0, 4)
    with pytest.raises(TableError, match=r"2 of 3 clips have no features, the first is 'x'"):
        there.of_clips(["a", "x", "y"])


def test_a_missing_modality_is_named_with_those_there() -> None:
    with pytest.raises(TableError, match=r"'video'; there are those of audio, text"):
        features().matrix("video")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"clip": ["a"], "x": [1.0]}, r"id \(string\).*there are clip \(string\), x \(double\)"),
        ({"id": ["a"]}, "at least one beside id"),
        ({"id": ["a"], "audio": [[1.0]]}, "audio"),
        ({"id": ["a"], "score.x": ["high"]}, "score.x"),
        ({"id": ["a", "a"], "score.x": [1.0, 2.0]}, "'a'"),
        ({"id": [None, "a"], "score.x": [1.0, 2.0]}, "nulls"),
        ({"id": ["a", "b"], "score.x": [1.0, float("inf")]}, "not finite.*'b'"),
    ],
)
def test_what_is_no_feature_table_is_refused(
    columns: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(TableError, match=message):
        Features(pa.table(columns))


def test_a_damaged_embedding_is_refused_not_taken_for_missing() -> None:
    matrix = np.ones((3, 2))
    matrix[0], matrix[2, 1] = np.nan, np.nan
    with pytest.raises(TableError, match=r"'audio' holds 1 numbers that are not finite.*'c'"):
        Features.of(list("abc"), {"audio": matrix})


@pytest.mark.parametrize("shape", [(2, 3), (3,), (3, 0)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(TableError, match=r"wanted \[3, width\]"):
        Features.of(list("abc"), {"audio": np.ones(shape)})
    with pytest.raises(TableError, match="wanted one value for each of the 3"):
        Features.of(list("abc"), scores={"x": np.ones(2)})


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    with pytest.raises(TableError, match="no such features"):
        Features.read(path)
    path.write_text("id,audio")
    with pytest.raises(TableError, match="not a readable Parquet"):
        Features.read(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(TableError, match="is no features, with columns id"):
        Features.read(path)
    pq.write_table(features().table.replace_schema_metadata({"sonant.features": "9"}), path)
    with pytest.raises(TableError, match=r"version 9.*reads features of version 1"):
        Features.read(path)

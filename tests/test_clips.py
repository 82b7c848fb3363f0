import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.clips import Clips
from sonant.errors import SonantError, TableError, UsageError
from sonant.features import Features
from sonant.files import demand_writable, replacing, why
from sonant.media.pack import Pack
from sonant.types import Clip


def clips(videos: int = 4, each: int = 3) -> Clips:
    rows = [
        Clip(
            f"v{v}:{i}",
            f"v{v}.mp4",
            i * 2.0,
            i * 2.0 + 1.5,
            f"#C C does {i}",
            labels={"verb": "do", "n": i},
        )
        for v in range(videos)
        for i in range(each)
    ]
    return Clips.of(rows, root=Path("/videos"))


def test_written_is_read_back(tmp_path: Path) -> None:
    table = (
        clips().quarantined({"v1:0": "no audio stream"}).with_packed({"v0:0": ("a.tar", 512, 99)})
    )
    table.write(tmp_path / "clips.parquet")
    again = Clips.read(tmp_path / "clips.parquet")
    assert again.table.equals(table.table)
    assert again.root == Path("/videos")
    assert list(again) == list(table)
    assert again.digest() == table.digest()
    assert [path.name for path in tmp_path.iterdir()] == ["clips.parquet"]


def test_row_is_a_clip() -> None:
    assert clips()[4] == list(clips())[4]
    assert clips()[4].labels == {"verb": "do", "n": 1}


def test_missing_columns_are_named_with_those_wanted(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "begin": [0.0]})
    path = tmp_path / "clips.parquet"
    pq.write_table(table.replace_schema_metadata({"sonant.clips": "2", "root": "/"}), path)
    with pytest.raises(
        TableError, match=r"start \(double\).*there are id \(string\), begin \(double\)"
    ):
        Clips.read(path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    pq.write_table(clips().table.replace_schema_metadata({"sonant.clips": "7", "root": "/"}), path)
    with pytest.raises(TableError, match=r"version 7.*reads clip tables of version 2"):
        Clips.read(path)
    with pytest.raises(TableError, match="with `sonant index`"):
        Clips.read(path)
    with pytest.raises(TableError, match="with `sonant pack`"):
        Pack.open(tmp_path)


def test_a_table_from_before_there_were_contents_is_read_with_none(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    table = clips().with_packed({"v0:0": ("a.tar", 512, 99)})
    old = table.table.drop_columns(["content"])
    pq.write_table(old.replace_schema_metadata({"sonant.clips": "1", "root": "/videos"}), path)
    again = Clips.read(path)
    assert again.table.equals(table.table)
    assert again.packed_digest() == table.packed_digest()
    broken = old.select(["id", "label.verb"])
    pq.write_table(broken.replace_schema_metadata({"sonant.clips": "1", "root": "/"}), path)
    with pytest.raises(TableError, match=r"there are id \(string\), label.verb"):
        Clips.read(path)


def test_a_table_knows_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    assert not Clips.holds(path, "a")
    path.write_text("no table")
    assert not Clips.holds(path, "a")
    path.unlink()
    clips().write(path, made_from="a")
    assert Clips.holds(path, "a") and not Clips.holds(path, "b")
    Clips.read(path).write(path)
    assert not Clips.holds(path, "a")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such clip table"):
        Clips.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("video,time,text")
    with pytest.raises(TableError, match="not a readable Parquet"):
        Clips.read(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)]
)
def test_impossible_times_are_refused_unless_quarantined(start: float, end: float) -> None:
    clip = Clip("a", "a.mp4", start, end)
    with pytest.raises(TableError, match="'a'"):
        Clips.of([clip], root=Path())
    assert len(Clips.of([clip], root=Path(), quarantine=["bad time"])) == 1


def test_duplicate_ids_are_named() -> None:
    with pytest.raises(TableError, match="'a'"):
        Clips.of([Clip("a", "a.mp4", 0, 1), Clip("a", "b.mp4", 0, 1)], root=Path())


def test_a_table_that_does_not_say_where_its_videos_lie_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    Clips.of([Clip(id="a", video="a.mp4", start=0, end=1)], root=tmp_path).write(path)
    whole = pq.read_table(path)
    metadata = {name: value for name, value in whole.schema.metadata.items() if name != b"root"}
    pq.write_table(whole.replace_schema_metadata(metadata), path)
    with pytest.raises(TableError, match="does not say where its videos lie"):
        Clips.read(path)


def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path / "pipe", "is a device, and no file"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=said), replacing(path) as partial:
            partial.write_text("x")
    assert (tmp_path / "pipe").is_fifo()


def test_unknown_split_and_column_name_what_there_is() -> None:
    table = clips().split({"train": 0.5, "test": 0.5}, seed=0)
    with pytest.raises(UsageError, match="'val'; the splits there are: 'test', 'train'"):
        table.where(split="val")
    with pytest.raises(UsageError, match=r"'val', nor in another; leave the split out for all"):
        clips().where(split="val")
    with pytest.raises(TableError, match=r"'noun'.*labels verb, n"):
        table.column("noun")


@given(
    videos=st.integers(3, 40),
    seed=st.integers(0, 2**32 - 1),
    train=st.floats(0.05, 0.9),
    tested=st.floats(0.05, 0.95),
)
def test_split_is_by_video_and_fair(videos: int, seed: int, train: float, tested: float) -> None:
    shares = {"train": train, "val": (1 - train) * (1 - tested), "test": (1 - train) * tested}
    table = clips(videos, 2).split(shares, seed=seed)
    split_of: dict[str, set[str]] = {}
    for clip in table:
        split_of.setdefault(clip.video, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in split_of.values())
    counts = {name: sum(name in s for s in split_of.values()) for name in ("train", "val", "test")}
    assert all(counts.values())
    wanted = {name: max(1, share * videos) for name, share in shares.items()}
    assert all(abs(counts[name] - wanted[name]) <= 2 for name in shares)
    again = clips(videos, 2).split(shares, seed=seed)
    assert again.table.equals(table.table)


def test_videos_in_several_splits_are_named_and_bad_or_undealt_clips_do_not_count() -> None:
    whole = clips(3)
    assert whole.torn() == []
    splits = ["train", "test", "", "val", "val", "", "train", "test", "train"]
    table = whole.table.set_column(5, "split", pa.array(splits))
    assert Clips(table, whole.root).torn() == ["v0.mp4", "v2.mp4"]
    assert Clips(table, whole.root).quarantined({"v0:1": "damaged"}).torn() == ["v2.mp4"]


def test_split_fractions_must_make_sense() -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        clips().split({"train": 0.5}, seed=0)
    with pytest.raises(UsageError, match="4 videos cannot be split into 5"):
        clips().split(dict.fromkeys("abcde", 0.2), seed=0)


def test_join_adds_labels_and_keeps_rows() -> None:
    labels = pa.table({"id": ["v0:1", "v3:2"], "sounding": [True, False]})
    joined = clips().join(labels)
    assert joined.labels == ("verb", "n", "sounding")
    assert joined.column("sounding").tolist() == [None, True] + [None] * 9 + [False]
    with pytest.raises(TableError, match="more than once"):
        clips().join(pa.concat_tables([labels, labels]))
    with pytest.raises(TableError, match="no column 'id'"):
        clips().join(pa.table({"key": ["a"]}))


def test_another_pack_of_the_same_clips_has_another_packed_digest() -> None:
    table = clips()
    packs = [table.with_packed({"v0:0": ("a.tar", 512, size)}) for size in (99, 99, 98)]
    assert len({pack.digest() for pack in packs}) == 1
    assert packs[0].packed_digest() == packs[1].packed_digest() != packs[2].packed_digest()
    assert table.packed_digest() == table.digest() != packs[0].packed_digest()
    heard = [table.with_packed({"v0:0": ("a.tar", 0, 9)}, {"v0:0": hash}) for hash in "aab"]
    assert heard[0].packed_digest() == heard[1].packed_digest() != heard[2].packed_digest()


def test_where_combines() -> None:
    table = clips().quarantined({"v0:0": "gone"}).with_packed({"v1:1": ("s", 0, 1)})
    assert len(table.where(quarantined=False)) == 11
    assert [clip.id for clip in table.where(packed=True)] == ["v1:1"]
    assert len(table.where(np.arange(12) < 6, quarantined=False, packed=False)) == 4


def test_a_label_has_one_kind() -> None:
    with pytest.raises(TableError, match="'x' mixes"):
        Clips.of(
            [Clip("a", "a", 0, 1, labels={"x": "s"}), Clip("b", "a", 0, 1, labels={"x": 1})],
            root=Path(),
        )


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_permission_to_write_or_to_read_says_so(tmp_path: Path) -> None:
    denied = PermissionError(13, "Permission denied")
    said = "file: cannot be written: no permission for the file or its folder"
    with pytest.raises(SonantError, match=said), replacing(tmp_path / "file"):
        raise denied
    assert not any(word in why(denied) for word in ("written", "read"))  # it may be either


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    with pytest.raises(SonantError, match="no space left"), replacing(tmp_path / "file") as partial:
        partial.write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(SonantError, match="not a folder"):
        (tmp_path / "taken").write_text("")
        with replacing(tmp_path / "taken" / "file"):
            pass
    assert not (tmp_path / "file").exists()


def test_what_could_not_be_written_is_known_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    demand_writable(path)
    assert path.parent.is_dir() and not any(path.parent.iterdir())
    path.write_text("old")
    demand_writable(path)
    assert path.read_text() == "old" and len(list(path.parent.iterdir())) == 1
    with pytest.raises(UsageError, match="is a folder, and no file"):
        demand_writable(path.parent)
    with pytest.raises(SonantError, match="a part of the path is a file, not a folder"):
        demand_writable(path / "file")


@pytest.mark.parametrize("there", [b"video,time,text\n", b"", b"PAR1"])
def test_what_is_no_table_of_ours_is_not_written_over(tmp_path: Path, there: bytes) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(there)
    features = Features.of(["a"], {"audio": np.ones((1, 2), np.float32)})
    for write, kind in ((clips().write, "clip table"), (features.write, "table of features")):
        with pytest.raises(UsageError, match=f"mine.csv: is there already, and is no {kind}"):
            write(path)
        assert path.read_bytes() == there
    clips().write(tmp_path / "clips.parquet")
    with pytest.raises(UsageError, match="is no table of features"):
        features.write(tmp_path / "clips.parquet")
    clips().write(tmp_path / "clips.parquet")

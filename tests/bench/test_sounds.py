"""Recorded sounds: two sets in one table, and whole rows on a few made recordings."""

import csv
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sonant.bench import sounds
from sonant.bench.runs import Draw
from sonant.clips import Clips
from sonant.media.pack import Pack, pack
from sonant.methods.deepcluster import sdc_small
from sonant.sources.esc50 import ESC10
from sonant.sources.kitchen20 import CLASSES
from sonant.train import train
from toy import SECONDS, TINY

RATE = 16000


def tone(path: Path, pitch: float) -> None:
    """A wave file as long as two windows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(2 * SECONDS * RATE)) / RATE
    hiss = 0.05 * np.random.default_rng(int(pitch)).standard_normal(len(times))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(
            (8000 * (np.sin(2 * np.pi * pitch * times) + hiss)).astype("<i2").tobytes()
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """ESC-10 and Kitchen20: two classes each, twenty recordings, two of them of one source."""
    root = tmp_path_factory.mktemp("sets")
    esc10 = ["file,category,fold,source_id"]
    kitchen = ["file,category,target,fold,take,source_id"]
    for r in range(20):
        kind = r % 2
        tone(root / "esc10" / "audio" / f"e{r}.wav", (300, 2500)[kind] + r)
        tone(root / "kitchen" / f"k{r}.wav", (900, 5000)[kind] + r)
        esc10.append(f"audio/e{r}.wav,{ESC10[kind]},{1 + r // 4},{r // 2 if r < 4 else r}")
        kitchen.append(f"k{r}.wav,{CLASSES[kind]},{kind},{1 + r % 3},A,{100 + r - r // 2 % 2 * 2}")
    (root / "esc10" / "esc10.csv").write_text("\n".join(esc10) + "\n")
    (root / "kitchen" / "kitchen20.csv").write_text("\n".join(kitchen) + "\n")
    return root / "esc10", root / "kitchen"


@pytest.fixture(scope="module")
def clips(folders: tuple[Path, Path]) -> Clips:
    """Windows of both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sounds, "SECONDS", SECONDS)
        patch.setattr(sounds, "WINDOWS", 2)
        return sounds.recorded(*folders, workers=1)


@pytest.mark.slow
def test_two_sets_stand_in_one_table(clips: Clips, folders: tuple[Path, Path]) -> None:
    assert len(clips) == 2 * 20 * 2 == len(set(clips.column("id")))
    sets = [clips.column(name) for name in sounds.SETS]
    folds = [clips.column(f"{name} fold") for name in sounds.SETS]
    for label, fold in zip(sets, folds, strict=True):
        there = np.array([value is not None for value in label])
        assert there.sum() == len(clips) / 2
        assert there.tolist() == [value == value and value is not None for value in fold]
    listed = list(csv.DictReader((folders[0] / "esc10.csv").open()))
    for row in listed:
        mine = clips.column("recording") == f"ESC-10/{Path(row['file']).stem}"
        assert set(sets[0][mine]) == {row["category"]}
        assert {int(fold) for fold in folds[0][mine]} == {int(row["fold"])}
        assert {clips.path(video) for video in clips.column("video")[mine]} == {
            folders[0].resolve() / row["file"]
        }
    kitchen = np.array([value is not None for value in sets[1]])
    for source in set(clips.column(sounds.SOURCE)[kitchen]):
        assert len(set(folds[1][kitchen & (clips.column(sounds.SOURCE) == source)])) == 1


def test_the_mean_over_runs_is_taken_fold_by_fold() -> None:
    values = np.random.default_rng(0).random((3, 5, 2))
    runs = [
        [{"fc ESC-10": dict(zip(("top1", "mca"), fold, strict=True))} for fold in run]
        for run in values.tolist()
    ]
    found = sounds._mean(runs)
    got = [[fold["fc ESC-10"][measure] for measure in ("top1", "mca")] for fold in found]
    np.testing.assert_allclose(got, values.mean(0))


@pytest.fixture(scope="module")
def packed(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The windows in a pack."""
    out = tmp_path_factory.mktemp("packed")
    pack(clips, out, partial=True, workers=1)
    return out


@pytest.mark.slow
def test_pretraining_on_the_sounds_reads_no_label(packed: Path, tmp_path: Path) -> None:
    there = Pack.open(packed).clips
    random = np.random.default_rng(0)
    shuffled = there
    for name in sounds.SETS:
        mixed = pa.array(random.permutation(there.column(name)).tolist(), pa.string())
        labels = pa.table({"id": there.column("id"), name: mixed})
        shuffled = shuffled.join(labels)
    arguments = {**sounds.ON_SOUNDS[sounds.HEARD].arguments, **TINY, "audio_clusters": 4}
    arguments |= {"rounds": 2, "epochs": 1}
    for name, some in (("true", there), ("shuffled", shuffled)):
        train(sdc_small, arguments, some, tmp_path / name, media=Pack(some, packed), workers=0)
    last = "round 2.safetensors"
    assert (tmp_path / "true" / last).read_bytes() == (tmp_path / "shuffled" / last).read_bytes()


@pytest.mark.slow
def test_rows_of_one_run_are_paired_and_what_is_done_stays(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny: dict[str, Any] = TINY | {"audio_clusters": 4, "rounds": 1, "pca": 2}
    heard = {
        name: replace(row, arguments={**row.arguments, **tiny, "epochs": min(1, k)})
        for k, (name, row) in enumerate(sounds.ON_SOUNDS.items())
    }
    monkeypatch.setattr(sounds, "ON_SOUNDS", heard)
    monkeypatch.setattr(sounds, "ON_WORLD", {"XDC": heard[sounds.SCRATCH]})
    monkeypatch.setattr(sounds, "FINE_TUNING", TINY | {"modalities": ["audio"], "epochs": 1})
    at = tmp_path / "sounds" / "run-7"
    monkeypatch.setattr(sounds, "trained", lambda row, draw: at / row.folder)
    monkeypatch.setattr(sounds, "pack", lambda *a, workers, **k: pack(*a, workers=1, **k))
    draw = Draw(tmp_path, 7, tmp_path, lambda *_: clips, "", workers=0)
    table, less = sounds.bench(tmp_path, [draw], clips)
    names = [*sounds.ON_SOUNDS, "XDC"]
    assert [line[0] for line in table.lines] == names
    found = {line[0]: line[1:] for line in table.lines}
    assert found["XDC"] == found[sounds.SCRATCH], "from scratch is from what is initialised"
    assert less.lines[0][0] == "XDC less Scratch"
    assert less.lines[0][1] == "+0.0 (+0.0, +0.0, +0.0, +0.0, +0.0)"
    with (tmp_path / "sounds.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["measure"] == "top1"]
    assert len(rows) == len(names) * 5 * len(sounds.COLUMNS)
    assert len(table.heads) == 1 + len(sounds.COLUMNS) + len(sounds.RANKS)
    first = [100 * float(row["value"]) for row in rows if row["of"] == "fc ESC-10"][:5]
    assert found[sounds.SCRATCH][0] == f"{np.mean(first):.1f} ± {np.std(first, ddof=1):.1f}"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    before |= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("features/*.json")}
    assert sounds.bench(tmp_path, [draw], clips) == [table, less]
    assert {path: path.stat().st_mtime_ns for path in before} == before

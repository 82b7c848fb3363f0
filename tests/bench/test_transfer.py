"""Whole rows on a tiny pack of sounds: what is done is not done again, and rows stand together."""

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonant.bench.transfer import Dealing, _about, transfer
from sonant.checkpoint import defaults
from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.media.pack import Pack, pack
from sonant.methods.classify import classify_small
from sonant.types import Clip
from toy import TINY

RATE, SECONDS = 16000, 0.3
ARGUMENTS: dict[str, Any] = TINY | {"modalities": ["audio"], "epochs": 1, "batch": 4}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of two clips, of two pitches, in two folds and three sources."""
    root = tmp_path_factory.mktemp("transfer")
    rows = []
    for r in range(12):
        times = np.arange(int(2 * SECONDS * RATE)) / RATE
        sound = np.sin(2 * np.pi * (300, 2500)[r % 2] * times) + 0.01 * np.sin(r * times)
        with wave.open(str(root / f"{r}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((8000 * sound).astype("<i2").tobytes())
        labels = {"class": ["low", "high"][r % 2], "fold": 1 + r // 6, "recording": f"r{r}"}
        labels |= {"source": f"s{r // 4}"}
        rows += [
            Clip(f"r{r}@{w}", f"{r}.wav", w * SECONDS, (w + 1) * SECONDS, "", "", labels)
            for w in (0, 1)
        ]
    pack(Clips.of(rows, root=root), root / "pack", partial=True, workers=1)
    return root / "pack"


def go(out: Path, packed: Path, *, by: str = "fold", **more: Any) -> Any:
    arguments = ARGUMENTS | more.pop("arguments", {})
    options = {"dealing": Dealing((by,)), "workers": 0, "cache": False} | more
    return transfer(out, packed, classify_small, arguments, **options)


@pytest.mark.slow
def test_rows_of_a_folder_stand_in_one_table(packed: Path, tmp_path: Path) -> None:
    (only,) = go(tmp_path, packed)
    assert [line[0] for line in only.lines] == ["chance", "scratch"]
    assert only.lines[0][1] == "50.0 ± 0.0"
    runs = sorted(path.parent.name for path in tmp_path.glob("scratch/*/classify.safetensors"))
    assert runs == ["fold-1", "fold-2"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("scratch/*/*")}
    go(tmp_path, packed)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is done stays"
    first = tmp_path / "scratch" / "fold-1" / "classify.safetensors"
    table, less = go(tmp_path, packed, initial=first, arguments={"frozen": True})
    assert [line[0] for line in table.lines] == ["chance", "scratch", "fc only"]
    assert [line[0] for line in less.lines] == ["fc only less scratch"]
    row = json.loads((tmp_path / "scratch" / "row.json").read_text())
    tops = [100 * fold["recognition"]["top1"] for fold in row["reached"]]
    assert table.lines[1][1] == f"{np.mean(tops):.1f} ± {np.std(tops, ddof=1):.1f}"
    assert (tmp_path / "transfer.md").read_text().count("fc only") == 2
    with pytest.raises(UsageError, match="'scratch' is of other clips, or of clips dealt"):
        go(tmp_path, packed, by="recording")


def test_the_epoch_is_chosen_by_sources_held_out(packed: Path, tmp_path: Path) -> None:
    clips = Clips.read(packed / "clips.parquet")
    dealing = Dealing(("fold",), "held-out", 0.3, "source")
    sources = clips.column("source")
    for fold in dealing.folds(clips, "class"):
        parts = [set(sources[mask]) for mask in (fold.train, fold.val)]
        assert not parts[0] & parts[1]
        assert fold.val.any()
        assert not (fold.test & (fold.train | fold.val)).any()
    go(tmp_path, packed, dealing=dealing)
    log = (tmp_path / "scratch" / "fold-1" / "log.jsonl").read_text().splitlines()
    assert "validation" in json.loads(log[-1])


@pytest.mark.slow
def test_folds_share_what_is_decoded(packed: Path, tmp_path: Path) -> None:
    """Everything that any fold learns from, once, and it changes nothing."""
    dealing = Dealing(("fold",), "held-out", 0.3, "source")
    plain = go(tmp_path / "plain", packed, dealing=dealing)
    assert not (packed / "cache").exists()
    kept = go(tmp_path / "kept", packed, dealing=dealing, cache=True)
    assert kept[0].lines == plain[0].lines
    (folder,) = (packed / "cache").iterdir()
    assert np.load(folder / "audio.0.npy").tolist() == [1] * 24
    for fold in ("fold-1", "fold-2"):
        weights = [
            tmp_path / way / "scratch" / fold / "classify.safetensors" for way in ("plain", "kept")
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_impossible_protocols_are_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fold 1: no labelled clip is val"):
        go(tmp_path, packed, dealing=Dealing(("fold",), "val"))
    with pytest.raises(UsageError, match=r"above 0 and below 1, not 1.5"):
        Dealing(held_out=1.5)
    with pytest.raises(UsageError, match=r"fold 1: 12 clips fill no batch of 64"):
        go(tmp_path, packed, arguments={"batch": 64})


def test_what_chooses_is_neither_learned_from_nor_judged() -> None:
    """Windows of one recording that are dealt to two parts."""

    def dealt(*splits: str) -> Clips:
        rows = [
            Clip(f"{r}@{w}", f"{r}.wav", w, w + 1, "", "", {"class": "ab"[r % 2], "deal": split})
            for r in range(4)
            for w, split in enumerate(("train", "test") if r < 2 else splits)
        ]
        for row, r in zip(rows, np.repeat(range(4), 2), strict=True):
            row.labels["recording"] = f"{r}" + (f"@{row.labels['deal']}" if r < 2 else "")  # type: ignore[index]
        whole = Clips.of(rows, root=".")
        return whole.with_packed({row.id: ("a.tar", n, 1) for n, row in enumerate(rows)})

    for torn in (("val", "test"), ("val", "train")):
        with pytest.raises(UsageError, match=r"deal: 2 of the judged choosing recordings are"):
            Dealing(("deal",), "val").folds(dealt(*torn), "class")
    assert Dealing(("deal",), "val").folds(dealt("val", "val"), "class")[0].val.sum() == 4


@pytest.mark.parametrize("name", ["..", ".", "  ", "/", "chance"])
def test_names_that_are_no_folder_of_their_own_are_refused(
    packed: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a row; letters and digits can"):
        go(tmp_path / "out", packed, name=name)
    assert not list(tmp_path.iterdir())


def test_names_that_would_share_a_folder_are_refused(packed: Path, tmp_path: Path) -> None:
    done = tmp_path / "scratch"
    done.mkdir()
    clips = Pack.open(packed).clips
    given = defaults(classify_small) | ARGUMENTS
    about = _about(clips, Dealing(("fold",)).folds(clips, "class"), Dealing(("fold",)), given)
    row = {"row": "scratch", "about": about, "folds": [], "reached": [], "notes": []}
    (done / "row.json").write_text(json.dumps(row))
    with pytest.raises(UsageError, match="'SCRATCH' and 'scratch' would share a folder"):
        go(tmp_path, packed, name="SCRATCH")
    with pytest.raises(UsageError, match="are named once, not fold, fold"):
        go(tmp_path, packed, dealing=Dealing(("fold", "fold")))
    with pytest.raises(UsageError, match="choose is one of last, val, held-out, not 'best'"):
        Dealing(choose="best")  # type: ignore[arg-type]


def test_recordings_that_are_not_judged_are_counted(packed: Path, tmp_path: Path) -> None:
    clips = Clips.read(packed / "clips.parquet")
    ids = ("r0@0", "r0@1", "r1@0", "r7@0", "r7@1")
    lost = dict.fromkeys(ids, "shorter than a window of 2 s")
    places = {
        clip.id: ("00000.tar", 512 * place, 512)
        for place, clip in enumerate(clips)
        if clip.id not in lost
    }
    fewer = Clips.of([*clips], root=clips.root).quarantined(lost).with_packed(places)
    assert Dealing(("fold",)).unjudged(clips, "class") == []
    assert Dealing(("fold",)).unjudged(fewer, "class") == [
        f"fold {fold}: 1 of 6 recordings to judge are not packed, and not judged."
        for fold in (1, 2)
    ]

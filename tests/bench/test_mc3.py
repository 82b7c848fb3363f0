"""The rows of MC3's tables at both sizes, and the tables of a clip table from the command line."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sonant.bench import mc3
from sonant.bench.mc3 import at_papers_size
from sonant.bench.runs import Draw, Row, table_draws
from sonant.checkpoint import defaults
from sonant.cli import main
from sonant.clips import Clips
from sonant.errors import UsageError
from sonant.sources.folder import Window, folder
from sonant.sources.world import world

PARTS = {"video": "egovlp.pth", "batch": 4, "checkpointing": True}
SMALL = [*mc3.ROWS, *mc3.CONTROLS, *(row for rows in mc3.ABLATIONS.values() for row in rows)]
PAPER = [at_papers_size(row, PARTS) for row in SMALL]


def epochs(row: Row) -> int:
    """Of a row and all that it begins with."""
    known = defaults(row.recipe) | dict(row.arguments)
    own = sum(known[name] for name in known if name.endswith("epochs"))
    return int(own) + (epochs(row.after) if row.after else 0)


@pytest.mark.parametrize(("rows", "all_of", "aligned"), [(SMALL, 13, 8), (PAPER, 5, 3)])
def test_all_rows_are_trained_for_as_long(rows: Sequence[Row], all_of: int, aligned: int) -> None:
    short = {"untrained": 0, "aligned only": aligned}
    for row in rows:
        assert epochs(row) == short.get(row.name, all_of), row.name
        assert row.arguments.keys() <= defaults(row.recipe).keys()
        json.dumps(dict(row.arguments))


def test_rows_have_folders_of_their_own_and_papers_the_towers_that_were_asked_for() -> None:
    there = {row.name: row for row in SMALL}
    assert len({row.folder for row in there.values()}) == len(there)
    for row, small in zip(PAPER, SMALL, strict=True):
        assert row.recipe.__name__ == small.recipe.__name__.removesuffix("_small")
        assert PARTS.items() <= dict(row.arguments).items()
        if row.after is not None:
            assert PARTS.items() <= dict(row.after.arguments).items()
    assert {name for pair in mc3.DIFFERENCES for name in pair} <= there.keys()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of the world for training, one to choose by, two to test."""
    root = tmp_path_factory.mktemp("world")
    world(root, videos=5, seed=4, workers=1)
    clips = folder(
        root,
        narrations=root / "narrations.csv",
        labels=root / "truth.csv",
        fractions={"train": 0.4, "val": 0.2, "test": 0.4},
        workers=1,
    )
    clips.write(root / "clips.parquet")
    return root / "clips.parquet"


@pytest.mark.slow
def test_the_tables_of_a_clip_table(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shorter(row: Row) -> Row:
        known = defaults(row.recipe) | dict(row.arguments)
        fewer: dict[str, Any] = {
            name: min(known[name], 2) for name in known if name.endswith("epochs")
        }
        fewer |= {"batch": 32}
        if row.name == "CM-ACC":
            fewer |= {"keys": 32, "pool": 32, "enqueue": 16}
        after = None if row.after is None else shorter(row.after)
        return replace(row, arguments={**row.arguments, **fewer}, after=after)

    names = ["untrained", "CLAP", "CM-ACC", "CMC", "ImageBind", "MC3", "relational consensus"]
    rows = [shorter(row) for row in mc3.ROWS if row.name in names]
    align = shorter(mc3.ALIGN)
    monkeypatch.setattr(mc3, "ROWS", rows)
    monkeypatch.setattr(mc3, "CONTROLS", [align])
    monkeypatch.setattr(mc3, "ABLATIONS", {"Anchor": [rows[5]]})
    monkeypatch.setattr(mc3, "DIFFERENCES", [("MC3", "CMC")])
    monkeypatch.setattr(mc3, "DURATIONS", [rows[5], shorter(mc3.DURATIONS[2])])
    out = tmp_path / "bench"
    asked = ["bench", "mc3", "--clips", str(table), "--out", str(out), "--runs", "2"]
    assert main([*asked, "--workers", "1"]) == 0
    page = (out / "mc3.md").read_text()
    assert "2 paired runs" in page and "## Anchor" in page and "13 epochs" in page
    assert "## Duration of a clip" in page and "| 3 s |" in page
    longer, ids = Clips.read(out / "pack-1-2" / "clips.parquet"), Clips.read(table).column("id")
    np.testing.assert_allclose(longer.column("end") - longer.column("start"), 3.0)
    assert set(longer.column("id")) == set(ids)
    assert (out / "run-100" / "rows" / "report.html").is_file()
    judged = json.loads((out / "run-101" / "rows" / "mc3" / "test.json").read_text())
    assert 0 < judged["reached"]["AV raw"]["roc_auc"] < 1
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    capsys.readouterr()
    assert main([*asked, "--workers", "1"]) == 0
    assert written == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}


def test_runs_of_a_clip_table_share_a_pack_that_is_no_other_s(table: Path, tmp_path: Path) -> None:
    few = Clips.read(table).where(split="val")
    few.write(tmp_path / "few.parquet")
    asked: dict[str, Any] = {"runs": 2, "seed": 7, "workers": 1}
    first, second = table_draws(tmp_path, tmp_path / "few.parquet", **asked)
    assert (first.seed, second.seed) == (7, 8)
    assert first.folder != second.folder
    assert first.pack(Window()) == second.pack(Window())
    other, _ = table_draws(tmp_path, table, **asked)
    with pytest.raises(UsageError, match="give another folder"):
        other.pack(Window())
    large, _ = table_draws(
        tmp_path, tmp_path / "few.parquet", form=lambda _: {"short_side": 256}, **asked
    )
    with pytest.raises(UsageError, match=r"not of clips .*, short_side 256; give another folder"):
        large.pack(Window())


def test_parts_and_pack_reach_the_tables_as_they_were_asked_for(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def bench(out: Path, draws: Sequence[Draw], **given: Any) -> list[Any]:
        asked.update(given, draws=draws)
        return []

    monkeypatch.setattr(mc3, "bench", bench)
    command = ["bench", "mc3", "--clips", str(table), "--out", str(tmp_path), "--no-cache"]
    parts = ["batch=4", "least_area=.3", "checkpointing=true", "attention=plain", "size=384"]
    assert main([*command, "--towers", "paper", "--parts", *parts]) == 0
    assert asked["paper"] == {
        "batch": 4,
        "least_area": 0.3,
        "checkpointing": True,
        "attention": "plain",
        "size": 384,
    }
    for draw in asked["draws"]:
        assert draw.form(Window()) == {"short_side": 416, "frame_rate": 8.0}
    assert asked["durations"]
    assert not any(draw.cache for draw in asked["draws"])
    assert main(command[:-1]) == 0
    assert asked["paper"] is None
    assert all(draw.cache and draw.form is None for draw in asked["draws"])


def test_what_a_table_is_too_poor_for_is_told(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, asked = Clips.read(table), dict[str, Any]()
    monkeypatch.setattr(mc3, "bench", lambda out, draws, **given: asked.update(given) or [])
    ends = pa.array(whole.column("end") + 0.5)
    longer = whole.table.set_column(whole.table.column_names.index("end"), "end", ends)
    poor = Clips(longer.drop_columns(["label.sounding"]), whole.root)
    poor.write(tmp_path / "poor.parquet")
    for given, lacking in ((table, False), (tmp_path / "poor.parquet", True)):
        assert main(["bench", "mc3", "--clips", str(given), "--out", str(tmp_path / "o")]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert ("no test clip has the label sounding: Table 2 stays empty" in said) == lacking
        assert ("2.000 s, not all 1.5 s: there is no ablation of their duration" in said) == lacking
        assert asked["durations"] == (not lacking)


def test_what_the_papers_towers_do_not_take_is_refused_before_clips_are_packed(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "mc3", "--clips", str(table), "--out", str(tmp_path / "out")]
    assert main([*command, "--towers", "paper", "--parts", "batch=0"]) == 2
    assert "batch must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["batch=4"], "give --towers paper, too"),
        (["--towers", "paper", "batch"], "wanted is NAME=VALUE, and names are frames"),
        (["--towers", "paper", "seed=1"], "wanted is NAME=VALUE"),
        (["--towers", "paper", "batch=many"], "batch is a whole number"),
        (["--towers", "paper", "compile=perhaps"], "compile is true or false"),
        (["--towers", "paper", "attention=flash"], "attention is frozen or plain"),
        (["--towers", "paper", "text=egovlp.pth"], "name them (`--vocabulary"),
    ],
)
def test_parts_that_are_none_are_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "mc3", *given[:-1], "--parts", given[-1]]) == 2
    assert said in " ".join(capsys.readouterr().err.split())

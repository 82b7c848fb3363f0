"""The commands as a person uses them: exit codes, messages, the whole way on a small world."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import sonant
from sonant.cli import COMMANDS, main
from sonant.cli.arguments import show_quarantine
from sonant.cli.score import _trained_on as trained_on
from sonant.clips import Clips
from sonant.demo import commands
from sonant.errors import SonantError, UsageError
from sonant.features import Features
from sonant.media.pack import Pack
from sonant.media.read import Probe
from sonant.sources.world import world
from sonant.types import Clip


class ToldError(SonantError):
    """Stands for training that was told to end."""

    exit_code = 143


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sing"], 2, "no such command; there are world, index"),
        (["index", "folder", "nowhere"], 2, "nowhere: no such folder"),
        (["index", "world", "nowhere"], 2, "no truth.csv there"),
        (["pack", "nowhere.parquet", "out"], 2, "no such clip table"),
        (["train", "mc3-small", "nowhere", "run"], 2, "nowhere: no pack there (no such clip table"),
        (["train", "mc3-small", ".", "run"], 2, "`sonant pack` makes one"),
        (["train", "mc3-small", "a.parquet", "run"], 2, "`sonant pack` makes a pack of a clip"),
        (["embed", "nowhere", "nowhere", "f.parquet"], 2, "nowhere: no pack there"),
        (["embed", "run", "a.parquet", "f.parquet"], 2, "a.parquet: is a file; `sonant pack`"),
        (["score", "discovery", "nowhere", "--features", "a=b"], 2, "nowhere: no pack there"),
        (["score", "discovery", "a.parquet", "--features", "a=b"], 2, "a.parquet: is a file; `s"),
        (
            ["world", "w", "--check", "--videos", "9", "--workers", "0"],
            2,
            "--videos 9 asks for another: give",
        ),
        (["report", "nowhere.json"], 2, "no such report"),
        (["embed", "p", "f", "--weights", "xdc-audioset="], 2, "names no file after the =; wanted"),
        (["explain", "run", "id", "--pack", "p", "--split", "val"], 2, "here, 'id' the first"),
        (["explain", "run", "id", "--pack", "p", "--clips", "400"], 2, "give the one or the other"),
    ],
)
def test_wrong_use_exits_with_2(
    words: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").write_text("a clip table")
    assert main(words) == code
    assert message in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(("error", "code"), [(SonantError, 1), (UsageError, 2), (ToldError, 143)])
def test_an_error_says_how_the_command_ends(
    error: type[SonantError], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error("so it is")

    monkeypatch.setattr("sonant.cli.COMMANDS", {"fail": fail})
    assert main(["fail"]) == code


@pytest.mark.parametrize(
    "line",
    [
        "train mc3 s3://bucket/pack run",
        "pack file:///clips.parquet out",
        "index folder videos --narrations memory://n.csv",
    ],
)
def test_an_address_is_no_path(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "commands work on local folders and files" in said


def test_an_unknown_flag_exits_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pack", "--fast"])
    assert caught.value.code == 2


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's commands on a world of four videos, with short training."""
    out = tmp_path_factory.mktemp("demo")
    for words in small(out):
        assert main(words) == 0, words
    return out


def small(out: Path) -> list[list[str]]:
    short = {"mc3-small": ["--batch", "16", "--align-epochs", "1", "--refine-epochs", "1"]}
    short["supervised-small"] = ["--batch", "16", "--epochs", "1"]
    lines = commands(out, videos=4, seed=0)
    return [
        [*words, *short[words[1]]] if words[0] == "train" and "untrained" not in words[3] else words
        for words in lines
    ]


@pytest.mark.slow
def test_the_whole_way(done: Path) -> None:
    found = json.loads((done / "report.json").read_text())
    names = {row["name"] for row in found["discovery"]["rows"]}
    assert {"MC3", "untrained", "verb prior", "supervised, audio"} <= names
    page = (done / "report.html").read_text()
    assert page.count("data:video/mp4;base64") >= 2
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_what_docs_do_from_python_can_be_done(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    (done / "demo").symlink_to(done)
    monkeypatch.chdir(done)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert -1 <= names["model"].score(names["video"], 12.5, 14.0) <= 1
    assert (done / "runs" / "short" / "refine.safetensors").is_file()


@pytest.mark.slow
def test_what_is_done_is_not_done_again(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [
        *done.glob("pack/*.tar"),
        *done.glob("runs/*/*.safetensors"),
        *done.glob("world/**/*.mp4"),
    ]
    kept += [done / "clips.parquet", *done.glob("runs/*/features.parquet")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    for words in small(done):
        assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == before


@pytest.mark.slow
def test_a_run_folder_of_another_recipe_is_refused(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "mc3-small", str(done / "pack"), str(done / "runs" / "MC3"), "--seed", "7"]
    assert main(words) == 2
    assert "seed: 0 there, 7 wanted" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.data
def test_odd_videos_end_in_features_or_in_quarantine(
    done: Path, sonant_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, packed = tmp_path / "clips.parquet", tmp_path / "pack"
    features, found = tmp_path / "features.parquet", tmp_path / "report.json"
    for line in (
        f"index folder {sonant_data / 'odd_videos'} --out {clips}",
        f"pack {clips} {packed}",
        f"embed {done / 'runs' / 'MC3'} {packed} {features}",
        f"score discovery {packed} --features MC3={features} --split all --reference-split all "
        f"--out {found}",
        f"report {found} {tmp_path / 'report.html'} --pack {packed}",
    ):
        assert main(line.split()) == 0, line
    table = Clips.read(packed / "clips.parquet")
    good = table.where(quarantined=False)
    assert set(Features.read(features).ids) == set(good.column("id"))
    reasons = dict(zip(table.column("video"), table.column("quarantine"), strict=True))
    assert "no audio stream" in reasons["mdn_bug_noaudio.mp4"]
    assert "shorter than a clip" in reasons["audio_only_6ch.mp4"]
    embedded = set(good.column("video"))
    assert {"soundofwater_pouring.mp4", "tears_of_steel_70s_vp8.webm", "chaplin.mp4"} <= embedded
    assert "in quarantine" in capsys.readouterr().out


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    """A pack of two videos, which are in no split."""
    clips = Clips.of(
        [Clip(video, video, 0.0, 1.5) for video in ("a.mp4", "b.mp4")], root=tmp_path
    ).with_packed({"a.mp4": ("00000.tar", 0, 1), "b.mp4": ("00000.tar", 1, 1)})
    clips.write(tmp_path / "pack" / "clips.parquet")
    return tmp_path / "pack"


def test_a_pack_tells_of_videos_in_two_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = "moviepy_pan_airshow.mp4"
    rows = [
        Clip(f"{k}", video, k, k + 1.5, split=split) for k, split in enumerate(("train", "test"))
    ]
    table = Clips.of(rows, root=Path(__file__).parent / "data")
    table.write(tmp_path / "clips.parquet")
    assert main(["pack", str(tmp_path / "clips.parquet"), str(tmp_path / "pack")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"1 videos have clips in more than one split, the first is {video}" in said


def test_clips_without_splits_are_trained_on_and_judged_as_all(
    unsplit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []

    def train(recipe: object, arguments: object, clips: Clips, run: Path, **_: object) -> None:
        trained.extend(clips.column("id"))

    monkeypatch.setattr("sonant.train.train", train)
    words = ["train", "mc3-small", str(unsplit), str(unsplit.parent / "run")]
    said = "--split {}: no clip is in that split, nor in another; --split all takes all clips"
    assert main(words) == 2
    assert said.format("train") in capsys.readouterr().err
    assert main([*words, "--split", "all"]) == 0
    assert trained == ["a.mp4", "b.mp4"]
    Features.of(["a.mp4"], scores={"s": np.zeros(1)}).write(unsplit.parent / "f")
    assert main(["score", "discovery", str(unsplit), "--features", f"f={unsplit.parent}/f"]) == 2
    assert said.format("test") in capsys.readouterr().err


def test_a_split_that_is_not_there_is_told_with_those_that_are(
    unsplit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Clips.read(unsplit / "clips.parquet").split({"train": 0.5, "test": 0.5}, seed=0)
    table.write(unsplit / "clips.parquet")
    assert main(["train", "mc3-small", str(unsplit), "run", "--split", "dev"]) == 2
    told = "--split dev: no clip is in that split; test, train and all are to choose from"
    assert told in capsys.readouterr().err


def test_who_was_trained_on_all_clips_was_trained_on_those_to_learn_from(
    unsplit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Clips.read(unsplit / "clips.parquet").split({"train": 0.5, "val": 0.5}, seed=0)
    runs = {name: unsplit / name for name in ("all", "train")}
    data = {runs["all"]: clips.digest(), runs["train"]: clips.where(split="train").digest()}
    for run in data:
        run.mkdir()
        (run / "record.json").write_text("")
    monkeypatch.setattr("sonant.checkpoint.read_record", lambda run: {"data": data[run]})
    score = {"s": np.zeros(2)}
    models = {name: Features.of(["a", "b"], scores=score, run=f"{runs[name]}@0") for name in runs}
    assert trained_on(models, clips, "val") == {"all": "val", "train": "train"}


def test_an_index_of_few_videos_says_that_they_are_in_no_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look = asdict(Probe(9.0, True, True, 32, 32, 10.0, 16000, 1))
    monkeypatch.setattr("sonant.media.crew.run", lambda jobs, **_: [[look] * len(jobs[0].videos)])
    words = ["index", "folder", str(tmp_path), "--out", str(tmp_path / "clips.parquet")]
    told = "no split is set, which takes 3 videos or more; `--split all` takes all clips\n"
    for count in (1, 2, 2, 3):
        (tmp_path / f"{count}.mp4").write_text("")
        assert main(words) == 0
        assert (told in capsys.readouterr().out) == (count < 3)


def test_a_file_that_may_not_be_read_is_not_told_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    path.write_text("{}")

    def denied(self: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", denied)
    assert main(["report", str(path)]) == 1
    assert f"{path}: no permission for the file or its folder" in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "a.mp4").write_text("")
    monkeypatch.setattr("sonant.sources.folder.folder", lambda *_, **__: pytest.fail("begun"))
    words = ["index", "folder", str(tmp_path), "--out", str(tmp_path / "taken" / "clips.parquet")]
    assert main(words) == 1
    assert "cannot be written: a part of the path is a file" in " ".join(
        capsys.readouterr().err.split()
    )


def test_importing_the_command_is_quick_because_it_does_not_load_torch() -> None:
    code = "import sys, sonant.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_index_is_left_alone_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "videos", tmp_path / "clips.parquet"
    root.mkdir()
    (root / "a.mp4").write_bytes(b"no video")
    words = ["index", "folder", str(root), "--out", str(out)]
    assert main(words) == 1  # there is a table, and no clip in it is good
    before, said = out.read_bytes(), capsys.readouterr().out
    looked: list[Any] = []
    monkeypatch.setattr("sonant.media.crew.run", lambda *jobs, **_: looked.append(jobs) or [["x"]])
    assert main(words) == 1
    assert out.read_bytes() == before and not looked
    again = capsys.readouterr().out
    assert "no file has changed since" in again and said in again
    (root / "a.mp4").write_bytes(b"no video either")
    assert main(words) == 1
    assert looked and out.read_bytes() != before
    assert main([*words, "--after", "2"]) == 1
    assert len(looked) == 2
    Clips.read(out).write(out)  # as someone who has added a label does
    assert main([*words, "--after", "2"]) == 1
    assert len(looked) == 3


def test_reasons_that_differ_by_numbers_are_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "[red]"]
    reasons = [f"ends at {second}.5 s, but lasts {second} s" for second in range(300)]
    reasons += [f"time is {word!r}" for word in words for _ in range(2)]
    reasons += [f"start is {word!r}" for word in words]
    clips = [Clip(f"a@{number:03}", "a.mp4", 0.0, 1.5) for number in range(len(reasons))]
    show_quarantine(Clips.of(clips, root=Path(), quarantine=reasons))
    first, *shown = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("│")
    ]
    assert first == ["such as: ends at 0.5 s, but lasts 0 s", "300", "a@000"]
    assert shown[:2] == [["time is 'one'", "2", "a@300"], ["time is 'two'", "2", "a@302"]]
    assert shown[10] == ["time is '[red]'", "2", "a@320"]
    assert shown[-2] == ["start is 'three'", "1", "a@324"]
    assert shown[-1] == ["and 8 more kinds", "8", ""]
    assert len(shown) == 15


@pytest.mark.slow
def test_a_sounding_world_is_indexed_with_its_truth(tmp_path: Path) -> None:
    world(tmp_path / "w", videos=1, seed=3)
    assert main(["index", "world", str(tmp_path / "w"), "--out", str(tmp_path / "c.parquet")]) == 0
    clips = Clips.read(tmp_path / "c.parquet")
    assert {"sounding", "case", "verb", "noun", "group"} <= set(clips.labels)
    assert None not in clips.column("sounding")


@pytest.mark.slow
def test_a_run_carries_its_calibration_and_its_clusters_are_drawn(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = copytree(done / "runs" / "MC3", tmp_path / "run"), tmp_path / "r.json"
    features = f"--features MC3={run / 'features.parquet'} --out {out}"
    for line in (
        f"score discovery {done / 'pack'} {features} --calibrate platt --calibrate-split train "
        f"--calibration {run} --scores {tmp_path / 's.parquet'}",
        f"score clusters {done / 'pack'} {features} --clusters 4 --sheet {tmp_path / 'c.png'}",
        f"report {out} {tmp_path / 'r.html'} --pack {done / 'pack'}",
    ):
        assert main(line.split()) == 0, line
    assert "Does it sound? platt of AV raw" in capsys.readouterr().out
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "r.html").read_text()
    assert "Reliability diagram of MC3" in page
    assert 'id="clusters"' in page
    model = sonant.load(run)
    clips = Pack.open(done / "pack").clips.where(split="test", quarantined=False)
    probabilities = Features.read(tmp_path / "s.parquet").of_clips([clips[0].id])
    found = model.score(clips.root / clips[0].video, clips[0].start, clips[0].end)
    assert found == pytest.approx(probabilities.scores["probability"][0], abs=0.02)


@pytest.mark.slow
def test_a_rounds_clusters_take_the_place_of_others(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """XDC trained, its last round shown; and maps are no part of small towers."""
    run, out = tmp_path / "xdc", tmp_path / "r.json"
    few = "--rounds 1 --epochs 1 --audio-clusters 3 --video-clusters 4 --batch 16"
    features = f"--features MC3={done / 'runs' / 'MC3' / 'features.parquet'}"
    table, page = run / "round 1.parquet", tmp_path / "r.html"
    shown = ["score", "round", str(done / "pack"), str(table), "--out", str(out)]
    for words in (
        f"train xdc-small {done / 'pack'} {run} {few}".split(),
        f"score clusters {done / 'pack'} {features} --clusters 4 --out {out}".split(),
        [*shown, "--source", "audio", "--members", "2", "--sheet", str(tmp_path / "c.png")],
        f"report {out} {page} --pack {done / 'pack'}".split(),
    ):
        assert main(words) == 0, words
    found = json.loads(out.read_text())["clusters"]
    assert (found["grouping"], found["modality"]) == ("assigned", "audio")
    (row,) = found["rows"]
    assert row["name"] == "xdc, round 1"
    assert len(row["clusters"]) == 3
    assert row["clips"] == pq.read_table(table).num_rows
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    said = page.read_text()
    assert "those that training itself had found" in said
    assert "mean squared distance" in said
    assert "mean cosine" not in said
    capsys.readouterr()
    assert main(shown) == 2
    assert "`--source` is one of audio, video" in " ".join(capsys.readouterr().err.split())
    maps = ["embed", str(run), str(done / "pack"), str(tmp_path / "f.parquet"), "--layer", "conv5"]
    assert main(maps) == 2
    assert "small twins' are not" in " ".join(capsys.readouterr().err.split())

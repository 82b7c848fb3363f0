"""What `sonant score` does with its arguments and files, on clips that were never filmed."""

import json
from pathlib import Path

import numpy as np
import pytest

from sonant.checkpoint import RECORD
from sonant.cli import main
from sonant.clips import Clips
from sonant.features import Features
from sonant.media.pack import Pack
from sonant.report import read
from sonant.types import Clip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table that stands for a pack of 90 clips, and the features of two models: a and b."""
    rng = np.random.default_rng(0)
    labels: list[dict[str, bool | str]] = [
        {"sounding": bool(rng.random() < 0.5), "verb": "ab"[i % 2]} for i in range(90)
    ]
    rows = [
        Clip(f"c{i}", f"v{i % 9}.mp4", i, i + 1, "", ("train", "val", "test")[i % 3], labels[i])
        for i in range(90)
    ]
    clips = Clips.of(rows, root=tmp_path)
    clips.write(tmp_path / "clips.parquet")
    ids = clips.column("id").tolist()
    Features.of(ids, scores={"loudness mean": rng.normal(size=90)}).write(tmp_path / "loud")
    for name in "ab":
        heard, seen = rng.normal(size=(2, 90, 4))
        Features.of(ids, {"audio": heard, "video": seen}, run=f"runs/{name}@{name * 12}").write(
            tmp_path / name
        )

    class Packed:
        def __init__(self) -> None:
            self.clips = clips

    monkeypatch.setattr(Pack, "open", lambda folder: Packed())
    loud = Features.read(tmp_path / "loud")
    monkeypatch.setattr("sonant.tasks.trivial.trivial", lambda *_: loud)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", [["--out", "taken/r.json"], ["--scores", "taken/s.parquet"]])
def test_what_cannot_be_written_is_said_before_the_work(
    folder: Path,
    given: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "taken").write_text("a file")
    monkeypatch.setattr("sonant.tasks.discovery.discovery", lambda *_, **__: pytest.fail("begun"))
    assert main(["score", "discovery", ".", "--features", "MC3=a", *given]) == 1
    assert "a part of the path is a file, not a folder" in capsys.readouterr().err
    assert (folder / "taken").read_text() == "a file"


def test_scores_are_those_of_the_model_that_is_asked_for(folder: Path) -> None:
    words = ["score", "discovery", ".", "--scores", "s.parquet", "--features"]
    for name, more in (("a", ()), ("b", ("--calibrate", "platt")), ("a", ())):
        assert main([*words, f"MC3={name}", *more]) == 0
        scores = Features.read(folder / "s.parquet")
        assert scores.run == f"runs/{name}@{name * 12}"
        assert ("probability" in scores.scores) == bool(more)
        assert read(folder / "report.json")["discovery"]["runs"] == {"MC3": scores.run}
    assert read(folder / "report.json")["calibration"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("discovery --calibrate platt --calibration gone", "--calibration gone: no such run"),
        ("discovery --split dev", "--split dev: no clip is in that split; test, train, val and"),
        ("discovery --reference-split dev", "--reference-split dev: no clip"),
        ("discovery --calibrate platt --calibrate-split dev", "--calibrate-split dev: no clip"),
        ("discovery --seed -1", "seed must be at least 0, not -1"),
        ("retrieval --more-than 0", "--more-than must be at least 1, not 0"),
        ("clusters --clusters 1", "--clusters must be at least 2, not 1"),
        ("clusters --labels verb klass", "no label 'klass' to compare clusters with; there are so"),
    ],
)
def test_wrong_arguments_are_named(
    folder: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task, *more = words.split()
    assert main(["score", task, ".", "--features", "MC3=a", *more]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "gone").exists()


def test_models_have_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for pair in ("=a", "a", "MC3="):
        assert main(["score", "discovery", ".", "--features", pair]) == 2
        assert f"{pair!r} is not of the form NAME=FILE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["base rate", "verb prior", "chance"])
def test_models_have_names_of_their_own(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "discovery", ".", "--features", f"{name}=a"]) == 2
    assert f"{name!r} is a row of every report" in capsys.readouterr().err


def test_a_calibration_is_kept_in_no_run_of_other_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sonant.embed.weights_of", lambda run: "b" * 12)
    (folder / "run").mkdir()
    words = ["score", "discovery", ".", "--calibrate", "platt", "--calibration", "run"]
    assert main([*words, "--features", "MC3=a"]) == 2
    assert "a was embedded by other weights than run holds" in capsys.readouterr().err
    assert not (folder / "report.json").exists()


def test_learning_from_the_split_that_was_trained_on_is_noted(folder: Path) -> None:
    clips = Clips.read(folder / "clips.parquet")
    run = folder / "runs" / "a"
    run.mkdir(parents=True)
    record = dict.fromkeys(RECORD, "") | {"recipe": "m:r", "arguments": {}}
    record["data"] = clips.where(split="val").digest()
    (run / "record.json").write_text(json.dumps(record))
    words = ["score", "discovery", ".", "--calibrate", "platt", "--features"]
    for name, noted in (("a", True), ("b", False)):
        assert main([*words, f"MC3={name}"]) == 0
        notes = " ".join(read(folder / "report.json")["calibration"]["notes"])
        assert ("the training's of MC3" in notes) == noted

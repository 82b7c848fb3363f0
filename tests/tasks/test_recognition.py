from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from sonant.clips import Clips
from sonant.errors import TableError, UsageError
from sonant.features import Features
from sonant.report import read, save
from sonant.report.recognition import recognition_table
from sonant.tasks.recognition import class_scores, recognition
from sonant.types import Clip

CLASSES = ("bark", "rain", "bell")


def table(recordings: int, windows: int = 2, split: str = "test") -> Clips:
    rows = [
        Clip(
            f"r{r}@{w}",
            f"{r}.wav",
            float(w),
            w + 1.0,
            "",
            split,
            {"class": CLASSES[r % 3], "recording": f"r{r}"},
        )
        for r in range(recordings)
        for w in range(windows)
    ]
    return Clips.of(rows, root=Path())


def features(clips: Clips, scores: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Features:
    named = {f"class={name}": scores[:, k] for k, name in enumerate(classes)}
    return Features.of(list(clips.column("id")), scores=named, run="run")


def test_scores_are_averaged_by_recording_by_hand() -> None:
    clips = table(3)
    scores = np.array(
        [[5.0, 0, 0], [0, 4, 0], [0, 1, 9], [0, 7, 0], [0, 1, 0], [1, 1, 0]], np.float64
    )
    found = recognition({"m": features(clips, scores)}, clips)
    row, guessing, often = found.rows
    assert row.measures["top1"].value == pytest.approx(1 / 3), "only the first is right"
    assert row.accuracies == {"bark": 1.0, "rain": 0.0, "bell": 0.0}
    assert (found.recordings, found.clips, row.measures["top5"].value) == (3, 6, 1.0)
    assert (guessing.measures["top1"].value, often.measures["top1"].value) == (1 / 3, 1 / 3)
    by = recognition({"m": features(clips, scores)}, clips, average="probabilities")
    means = softmax(scores, 1).reshape(3, 2, 3).mean(1)
    right = means.argmax(1) == [0, 1, 2]
    assert by.rows[0].measures["top1"].value == pytest.approx(right.mean())


def test_scores_that_say_nothing_are_at_chance_and_models_are_compared() -> None:
    clips = table(30)
    good = np.eye(3)[np.arange(60) // 2 % 3]
    models = {"good": features(clips, good), "flat": features(clips, np.zeros((60, 3)))}
    found = recognition(models, clips, resamples=50)
    ours, flat = found.rows[:2]
    assert {m: x.value for m, x in ours.measures.items()} == {"top1": 1, "top5": 1, "mca": 1}
    assert flat.measures["top1"].value == pytest.approx(1 / 3)
    assert flat.measures["mca"].value == pytest.approx(1 / 3)
    (less,) = found.differences
    assert less.measures["top1"].value == pytest.approx(2 / 3)
    assert less.measures["top1"].low <= 2 / 3 <= less.measures["top1"].high


def test_what_is_missing_is_said() -> None:
    clips = table(6)
    scores = np.eye(3)[np.arange(12) // 2 % 3]
    scores[:2] = np.nan
    scores[2] = np.nan
    found = recognition({"m": features(clips, scores[:, :2], CLASSES[:2])}, clips, resamples=2)
    assert found.rows[0].recordings == 5
    assert found.rows[0].classes == 2
    assert found.notes == [
        "m: 1 of 6 recordings have no score: left out.",
        "m: 1 clips have no score; their recordings are judged by the others.",
        "m: has no score of bell; 2 recordings count as wrong.",
    ]
    assert found.rows[0].accuracies["bell"] == 0


def test_bad_requests_are_refused() -> None:
    clips = table(3)
    good = features(clips, np.zeros((6, 3)))
    with pytest.raises(UsageError, match=r"no scores of the classes of 'verb', .* verb=CLASS"):
        class_scores(good, "verb")
    with pytest.raises(TableError, match="no column or label 'verb'"):
        recognition({"m": good}, clips, label="verb")
    with pytest.raises(UsageError, match="no clip is in split 'val'"):
        recognition({"m": good}, clips, split="val")
    with pytest.raises(UsageError, match="needs the features of a model"):
        recognition({}, clips)
    torn = clips.table.select(["id"]).append_column("recording", [["a"] * 6])
    with pytest.raises(UsageError, match="recording 'a' has clips of 'class' 'bark' and of 'rain'"):
        recognition({"m": good}, clips.join(torn))


def test_the_report_holds_it(tmp_path: Path) -> None:
    clips = table(6)
    found = recognition({"m": features(clips, np.zeros((12, 3)))}, clips, resamples=5)
    save(tmp_path / "report.json", clips=clips, recognition=found)
    shown = recognition_table(read(tmp_path / "report.json"))
    assert list(shown.columns[0].cells) == ["m", "guessing", "commonest class"]
    assert list(shown.columns[1].cells)[1] == "33.3"
